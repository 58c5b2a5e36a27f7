/* SPDX-License-Identifier: MIT */
/*
 * The equivalence test: the library with a back end on modelled silicon must look to its guest like
 * the library alone. Two machines take the same stream of operations side by side:
 *
 *      equiv_stream.c    the stream: what the guest's vCPUs and the devices do
 *      equiv_machine.c   one operation on one machine; settling; toggles at awkward moments
 *      equiv_compare.c   what the guest can see of both, after each operation; deviations
 *      equiv_cells.c     the two access tables, cell by cell
 *      equiv.c           the command
 *
 * The stream follows from the seed and from what the reference (the machine without a back end)
 * shows: the same for every mode. What only the other machine knows (reasons for inhibition that
 * come and go, vCPUs that move between processors) is drawn from a second generator.
 */
#ifndef VAPIC_TESTS_EQUIV_H
#define VAPIC_TESTS_EQUIV_H

#include "accel_modes.h"
#include "vapic/arch/apic.h"

#define EQ_VCPUS 4u
#define EQ_PINS  8u

/* ---- The stream ---- */

struct eq_random {
    uint64_t state;
};

static inline uint64_t eq_next(struct eq_random *r)
{
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* 0 to n-1. */
static inline uint32_t eq_below(struct eq_random *r, uint32_t n)
{
    return (uint32_t)(((eq_next(r) >> 32) * n) >> 32);
}

static inline bool eq_chance(struct eq_random *r, uint32_t percent)
{
    return eq_below(r, 100) < percent;
}

enum eq_kind {
    EQ_NOTHING,
    EQ_MMIO,   /* an access to the register page: write, size, where (offset), value */
    EQ_MSR,    /* write, where, value */
    EQ_CR8,    /* write, value */
    EQ_IPI,    /* value: destination << 32 | ICR, written as the mode asks for */
    EQ_HLT,    /* */
    EQ_IF,     /* value: CLI, STI */
    EQ_POST,   /* value: vector, write: level-triggered */
    EQ_MSI,    /* where: address's low half, value: data */
    EQ_IRTE,   /* the vCPU's own device behind the IOMMU */
    EQ_PIN,    /* where: pin, value: line */
    EQ_RTE,    /* where: pin, value: entry */
    EQ_NMI,    /* by other means than the fabric */
    EQ_LINT,   /* where: input, value: level */
    EQ_TICK,   /* value: nanoseconds */
    EQ_START,  /* SIPI, from nowhere */
    EQ_PAUSE,  /* the vCPU loses its processor */
    EQ_RESUME, /* and gets one */
    EQ_KINDS
};

extern const char *const eq_kind_names[EQ_KINDS];

struct eq_op {
    uint8_t kind; /* enum eq_kind */
    uint8_t vcpu;
    uint8_t size;
    bool write;
    uint32_t where;
    uint64_t value;
};

/* What has become of an operation. */
struct eq_outcome {
    enum ax_result result;
    uint64_t value;
};

/* An epoch is the life of one pair of machines. */
struct eq_epoch {
    bool x2apic;        /* starts in x2APIC mode */
    bool target_x2;     /* the mode that vCPUs are led to */
    uint32_t switch_at; /* operation of the epoch at which target_x2 turns */
    uint32_t move_at;   /* from here on the page may be moved, which lasts */
};

/* ---- Deviations ---- */

enum eq_difference_kind {
    EQ_RESULT,      /* done, #GP, does not run */
    EQ_VALUE,       /* what a read gave */
    EQ_EVENT,       /* interrupts delivered: vector, EQ_NO_EVENT: nothing more */
    EQ_EOI,         /* EOIs that were reported */
    EQ_STATE,       /* a register */
    EQ_REDIRECTION, /* an entry of the I/O APIC */
    EQ_ACTIVITY,
    EQ_IMAGE, /* a word of the saved image */
    EQ_LATCH, /* errors that the next write of ESR shows */
};

#define EQ_NO_EVENT  0xFFFFu
#define EQ_EVENT_NMI 0x100u
#define EQ_EVENT_EXT 0x200u

struct eq_difference {
    enum eq_difference_kind kind;
    uint32_t vcpu;
    uint32_t offset; /* EQ_STATE, EQ_IMAGE: of the register, EQ_REDIRECTION: the pin */
    uint64_t ref, acc;
};

struct equiv;

struct eq_deviation {
    const char *name;
    uint32_t modes;      /* 1 << enum ax_mode_index */
    const char *verdict; /* what the manual says of it */
    bool (*explains)(const struct equiv *e, const struct eq_difference *d);
};

#define EQ_DEVIATIONS_MAX 40u

/* ---- The test ---- */

#define EQ_CELLS (2u * 256u * 2u) /* xAPIC and x2APIC mode, slot of 16 bytes, read and write */

struct eq_counts {
    uint64_t ops[EQ_KINDS];
    uint64_t cells[EQ_CELLS]; /* while the vCPU was active */
    uint64_t deviations[EQ_DEVIATIONS_MAX];
    uint64_t delivered, resyncs;
    uint64_t toggles;         /* between operations */
    uint64_t points_hardware; /* between IRR (PIR) and IsRunning (ON), sender a processor */
    uint64_t points_iommu;
    uint64_t points_software; /* between the post and the look at presence */
    uint64_t exits;
    uint64_t active, samples; /* vCPUs, sampled after each operation */
};

/* The state of both machines before the operation, as far as deviations depend on it. */
struct eq_before {
    bool active[EQ_VCPUS];
    bool x2apic[EQ_VCPUS], enabled[EQ_VCPUS], software[EQ_VCPUS];
    bool page_mapped;
};

struct equiv {
    enum ax_mode_index mode;
    uint64_t seed;
    uint64_t ops;
    uint64_t number; /* of the operation under way */
    uint64_t epoch_start;
    uint32_t epoch_length;
    bool verbose, toggling;
    bool silent; /* a failure is what is expected */
    bool keeps;  /* eq_make() sets back the machines that it made before: quicker */
    bool survey; /* report every kind of unlisted difference, and go on */
    struct eq_random stream, other;
    struct eq_epoch epoch;
    struct ax *ref, *acc;
    bool paused[EQ_VCPUS];
    struct eq_op op;
    struct eq_before before;
    struct eq_outcome ref_outcome, acc_outcome;
    struct eq_counts counts;
    uint32_t reasons; /* that toggles have set */
    struct eq_op history[64];
    bool failed;
    char failure[512];
};

/* equiv_stream.c */
void eq_begin_epoch(struct equiv *e);
struct eq_op eq_draw(struct equiv *e);

/* equiv_machine.c */
void eq_machine_init(struct equiv *e); /* hooks; once per program and test */
void eq_machine_end(struct equiv *e);
void eq_make(struct equiv *e); /* both machines, by e->epoch */
void eq_free(struct equiv *e);
struct eq_outcome eq_apply(struct equiv *e, struct ax *ax, const struct eq_op *op);
void eq_settle(struct equiv *e, struct ax *ax);
bool eq_disturb(struct equiv *e); /* perhaps a toggle or a move, between operations */

/* equiv_compare.c */
uint32_t eq_deviation_count(void);
const struct eq_deviation *eq_deviation(uint32_t n);
void eq_note_before(struct equiv *e);
void eq_note_cell(struct equiv *e);
/* False: an unlisted difference; e->failure says which. */
bool eq_compare(struct equiv *e);
bool eq_compare_images(struct equiv *e);

/* equiv.c: one operation on both machines, and the comparison. */
bool eq_step(struct equiv *e, const struct eq_op *op);

/* equiv_cells.c: every cell of both access tables once, from the state of RESET. */
bool eq_cells(struct equiv *e);

/* What the reference shows. */
static inline struct vapic *eq_vcpu(const struct equiv *e, uint32_t n)
{
    return &e->ref->v[n]->apic;
}

static inline bool eq_is_amd(const struct equiv *e)
{
    return ax_modes[e->mode].kind == VAPIC_ACCEL_AVIC;
}

static inline uint32_t eq_cell(bool x2apic, uint32_t slot, bool write)
{
    return (x2apic ? 512u : 0u) + slot * 2 + write;
}

#endif
