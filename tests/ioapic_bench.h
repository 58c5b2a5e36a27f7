/* SPDX-License-Identifier: MIT */
/* What the tests of the I/O APIC share: a VM with one I/O APIC, and a handler that only ends. */
#ifndef VAPIC_TESTS_IOAPIC_BENCH_H
#define VAPIC_TESTS_IOAPIC_BENCH_H

#include "fixture.h"
#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

#define LEVEL   IOAPIC_RTE_LEVEL
#define MASKED  IOAPIC_RTE_MASKED
#define LOGICAL IOAPIC_RTE_LOGICAL
#define RIRR    IOAPIC_RTE_RIRR
#define VECTOR  0x51
#define PIN     5

struct bench {
    struct fx *fx;
    struct vapic_ioapic *io;
};

static inline struct bench begin_with(const struct fx_options *options, uint32_t pins,
                                      uint8_t version)
{
    struct bench b = {.fx = fx_new(options)};

    b.io = fx_ioapic(b.fx, pins, 0, version);
    fx_forget(b.fx);
    return b;
}

static inline struct bench begin(uint32_t vcpus)
{
    return begin_with(&(struct fx_options){.vcpus = vcpus}, 24, IOAPIC_VERSION_20);
}

static inline void end(struct bench *b)
{
    fx_free(b->fx);
    fx_ioapic_free(b->io);
}

static inline uint64_t rte(uint32_t low, uint8_t dest)
{
    return low | (uint64_t)dest << 56;
}

/* Source 0 of PIN. */
static inline int set(struct bench *b, bool level)
{
    return vapic_ioapic_set(b->io, PIN, 0, level);
}

static inline bool rirr(struct bench *b)
{
    return (vapic_ioapic_entry(b->io, PIN) & RIRR) != 0;
}

/* How many times the handler runs on `cpu` until it is quiet; it does nothing but EOI. */
static inline uint32_t runs(struct bench *b, uint32_t cpu)
{
    uint32_t n = 0;

    while (n < 100 && fx_take_eoi(b->fx, cpu) >= 0)
        n++;
    return n;
}

#endif
