/* SPDX-License-Identifier: MIT */
/*
 * A machine for the model of the hardware: a few processors and 64 KiB of host-physical memory, in
 * which everything that the model reaches by address lies, and which a target may fill with
 * anything. What the model may ask of its host is checked here.
 */
#ifndef VAPIC_FUZZ_SIL_H
#define VAPIC_FUZZ_SIL_H

#include "fuzz.h"
#include "vapic/arch/apic.h"
#include "vapic/silicon.h"

#define FUZZ_SIL_CPUS   4u
#define FUZZ_SIL_IDS    8u /* host APIC IDs 0 to 7; 1 to 4 have a processor */
#define FUZZ_SIL_MEMORY 0x10000u
#define FUZZ_SIL_RAM    0xE000u /* the last page is ordinary memory of the guest */

struct fuzz_sil {
    _Alignas(4096) uint8_t memory[FUZZ_SIL_MEMORY];
    struct vapic_sil machine;
    struct vapic_sil_cpu *table[FUZZ_SIL_IDS];
    struct vapic_sil_cpu cpu[FUZZ_SIL_CPUS];
    struct vapic_sil_page apic_page; /* what the nested tables say of FEE00000h */
    uint32_t signals;
    /* The operation that is carried out, and on which processor */
    struct fuzz_op op;
    uint32_t n;
    struct vapic_sil_cpu *now; /* &cpu[n] */
    uint32_t high;             /* for operations that take more than 32 bits: fuzz_sil_high() */
};

/* Sets the machine back: memory is copied from `image`, the processors are new. */
void fuzz_sil_init(struct fuzz_sil *s, const uint8_t image[FUZZ_SIL_MEMORY],
                   const struct vapic_sil_config *config);

/* Host-physical memory; the offset is taken modulo its size and aligned to `size`. */
void *fuzz_sil_at(struct fuzz_sil *s, uint64_t hpa, uint32_t size);

/* ---- Operations ---- */

typedef void (*fuzz_sil_op)(struct fuzz_sil *s);

/* Carries out all records of the input, up to 200: `kind` chooses of `ops`, `who` bit 0 the CPU. */
void fuzz_sil_run(struct fuzz_sil *s, struct fuzz_input *in, const fuzz_sil_op *ops,
                  uint32_t count);

void fuzz_sil_poke(struct fuzz_sil *s); /* four bytes anywhere in memory */
void fuzz_sil_high(struct fuzz_sil *s);
/* Interrupts of the host, doorbells, shoot-downs. */
void fuzz_sil_host(struct fuzz_sil *s);
void fuzz_sil_leave(struct fuzz_sil *s);

/* What a guest does: the result is checked against where the processor is then. */

/* `who` bits 4:2 the size, `where` the kind, the flags and the offset in the page. */
void fuzz_sil_access(struct fuzz_sil *s);
void fuzz_sil_msr(struct fuzz_sil *s);
void fuzz_sil_cr8(struct fuzz_sil *s);
void fuzz_sil_flags(struct fuzz_sil *s);
void fuzz_sil_hlt(struct fuzz_sil *s);
/* No operation by itself. True: a vector was delivered. */
bool fuzz_sil_boundary(struct fuzz_sil *s, uint8_t *vector);

#endif
