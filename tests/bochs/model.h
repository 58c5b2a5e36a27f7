/* SPDX-License-Identifier: MIT */
/*
 * The silicon model's side of the comparison: runs a case of cases.h on libvapic-silicon by its
 * public interface and tells the outcome.
 */
#ifndef BOCHS_MODEL_H
#define BOCHS_MODEL_H

#include "cases.h"

/*
 * Where Bochs is known to differ, each with its verdict in known.md under this name. The model's
 * driver can imitate each, so that a difference is accepted only when it is exactly the known one.
 */
#define QUIRK_LIST(X)                                                                              \
    X(RMW_TYPE, "rmw-type")           /* exit 44 of a read-modify-write says "read" */             \
    X(RMW_EPT, "rmw-ept")             /* exit 48 of a read-modify-write says "write" only */       \
    X(WALK_TYPE, "walk-type")         /* exit 44 of a page walk: as of a linear access */          \
    X(FRAME_VECTOR, "frame-vector")   /* IDT-vectoring information of a virtual interrupt */       \
    X(FRAME_RF, "frame-rf")           /* an exit during event delivery saves RFLAGS.RF = 1 */      \
    X(SELF_IPI_PAGE, "self-ipi-page") /* WRMSR 83Fh does not store its value */                    \
    X(EOI_PAGE, "eoi-page")           /* WRMSR 80Bh stores four bytes, not eight */                \
    X(ODD_OFFSET, "odd-offset")       /* bytes 1 to 3 of EOI and ICR without ARV */                \
    X(HALT_VIRTUAL, "halt-virtual")   /* a virtual interrupt does not end HLT */                   \
    X(HALT_WINDOW, "halt-window")     /* an open interrupt window does not end HLT */              \
    X(HALT_SAVED, "halt-saved")       /* exits 1 and 7 out of HLT save the state active */         \
    X(EXTERNAL_IF, "external-if")     /* exit 1 after VM entry waits for IF */

#define QUIRK_ENUM(name, text) QUIRK_##name,
enum quirk { QUIRK_LIST(QUIRK_ENUM) QUIRKS };
#undef QUIRK_ENUM
enum { QUIRKS_ALL = (1 << QUIRKS) - 1 };

struct model;

/* NULL: out of memory. `phys_bits` is the physical-address width of the processor compared with. */
struct model *model_new(unsigned phys_bits);
void model_free(struct model *model);

/* Runs case n, imitating the quirks whose bits are set; valid until the next call. */
const struct outcome *model_run(struct model *model, uint32_t n, unsigned quirks);

#endif
