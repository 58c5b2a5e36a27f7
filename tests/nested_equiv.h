/* SPDX-License-Identifier: MIT */
/*
 * The equivalence test with nesting: whatever L1 gives to L2, and however L0 makes it work, L2 and
 * L1 must see the same. Worlds of nested_fixture.h take one stream of operations in lock step:
 *
 *      nested_equiv_stream.c    what is drawn, and one operation on one world
 *      nested_equiv.c           the worlds, the comparison, the command
 *
 * The first world of a row is the reference: L1 emulates L2's APIC by software. The stream follows
 * from the seed alone. Compared after each operation, which ends with nobody having anything to do:
 * the vectors that each vCPU of L2 and of L1 took, in order; what each instruction of L2 gave; TPR
 * and ISR of every vCPU of L2, and IRR of those that run.
 *
 * The stream keeps away from what hardware shows differently by nature (deviations.h): odd accesses
 * of the page, L2 in software-disabled or mixed modes, and vectors that are now edge-, now
 * level-triggered. Vectors that are sent to one vCPU in a single operation wait there until all of
 * them are there: how many a running vCPU takes in between is a matter of time.
 */
#ifndef VAPIC_TESTS_NESTED_EQUIV_H
#define VAPIC_TESTS_NESTED_EQUIV_H

#include "nested_fixture.h"

#define NEQ_VCPUS  4u
#define NEQ_WORLDS 12u
#define NEQ_BURST  5u

enum neq_kind {
    NEQ_PHYSICAL,
    NEQ_LOGICAL,
    NEQ_BROADCAST,
    NEQ_SELF,
    NEQ_EOI,
    NEQ_TPR,
    NEQ_CR8,
    NEQ_READ,
    NEQ_HLT,
    NEQ_IF,
    NEQ_MASKED, /* several IPIs to a vCPU that takes none */
    NEQ_DEVICE, /* L1's, edge-triggered */
    NEQ_LEVEL,  /* L1's, level-triggered */
    NEQ_DEVICE_ALL,
    NEQ_MODEL,     /* flat or clusters */
    NEQ_L1_DEVICE, /* an interrupt for L1, from L0 */
    NEQ_L1_IPI,
    NEQ_L1_MOVE, /* L1's scheduler: an IPI comes while the vCPU is nowhere */
    NEQ_L1_SWAP,
    NEQ_L0_MOVE, /* L0's scheduler: the same */
    NEQ_MEET,    /* the target is moved in the middle of an IPI, if there is a middle */
    NEQ_L0_INHIBIT,
    NEQ_L1_INHIBIT,
    NEQ_RESTORE,
    NEQ_KINDS
};

extern const char *const neq_kind_names[NEQ_KINDS];

struct neq_ipi {
    uint32_t from, icr, dest;
};

struct neq_op {
    enum neq_kind kind;
    uint32_t a, b; /* vCPUs of L2 */
    uint32_t value;
    bool flag;
    uint32_t count;
    struct neq_ipi ipi[NEQ_BURST]; /* also of a move */
};

/* What L2's instructions gave. */
struct neq_outcome {
    uint32_t done, stuck;
    uint64_t value;
};

struct neq_random {
    uint64_t state;
};

/* An epoch: how the vCPUs of both levels begin. */
struct neq_epoch {
    bool x2apic;
    bool l2_eoi; /* handlers end with an EOI */
    const uint32_t *l2_ids;
};

struct neq_op neq_draw(struct neq_random *random, const struct neq_epoch *epoch);
void neq_begin(struct nx *nx, const struct neq_epoch *epoch);
struct neq_outcome neq_apply(struct nx *nx, const struct neq_op *op);

static inline uint32_t neq_below(struct neq_random *r, uint32_t n)
{
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return (uint32_t)(((z >> 32) * n) >> 32);
}

#endif
