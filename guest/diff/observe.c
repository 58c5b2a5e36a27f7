/* SPDX-License-Identifier: MIT */
/*
 * What is observed of time, which no two runs share: whether a timer fired, stopped or began
 * again, and that it did not fire too early; and the dump of an APIC's registers.
 */
#include "diff.h"

#define PATIENCE_CYCLES 1000000000ull
#define PATIENCE_POLLS  64u
#define AFTER_POLLS     4u

uint64_t coarse(uint32_t reg, uint64_t value)
{
    uint64_t initial = value;

    if (reg != APIC_TMCCT || value == 0xffffffffu)
        return value;
    if (value == 0)
        return DIFF_COUNT_ZERO;
    if (value <= 0xffffffffu)
        reg_read(APIC_TMICT, &initial);
    return value <= initial ? DIFF_COUNT_RUNS : DIFF_COUNT_BEYOND;
}

static bool requested(uint8_t vector)
{
    uint64_t word = 0;

    reg_read(APIC_IRR + 16u * (vector / 32u), &word);
    return word >> (vector % 32) & 1;
}

/* The state of a timer at one look. */
struct look {
    bool requested, stopped;
    uint64_t count;
};

static struct look look(uint8_t vector, bool deadline)
{
    struct look seen = {.requested = requested(vector)};

    if (deadline)
        rdmsr_safe(MSR_TSC_DEADLINE, &seen.count);
    else
        reg_read(APIC_TMCCT, &seen.count);
    seen.stopped = seen.count == 0;
    return seen;
}

/*
 * Both have passed: the time, and enough looks for whoever had to notice it. A timer that is masked
 * has nobody to wait for: the looks alone take far longer than it does.
 */
static bool patient(uint64_t start, uint32_t polls, bool masked)
{
    return polls < PATIENCE_POLLS || (!masked && rdtsc() - start < PATIENCE_CYCLES);
}

/* Software that is disabled masks an entry whatever was written. */
static bool is_masked(void)
{
    uint64_t lvt = LVT_MASKED;

    reg_read(APIC_LVT_TIMER, &lvt);
    return lvt & LVT_MASKED;
}

/*
 * Looks until the vector is requested (for a periodic timer also until the count has begun again).
 * A masked one requests nothing: it has stopped, and some looks more do not change that. An
 * interrupt that is due may take its time: whoever has to notice it may not have run.
 */
static uint32_t watch(uint8_t vector, bool deadline, bool periodic)
{
    bool masked = is_masked();
    uint32_t expected =
        (masked ? 0u : DIFF_FIRED_IRR) | (periodic ? DIFF_FIRED_WRAPPED : DIFF_FIRED_STOPPED);
    uint64_t start = rdtsc(), last = 0xffffffffu;
    uint32_t result = 0, after = 0;

    for (uint32_t polls = 0; patient(start, polls, masked) && after < AFTER_POLLS; polls++) {
        struct look seen = look(vector, deadline);

        result |= seen.requested ? DIFF_FIRED_IRR : 0;
        result |= periodic && seen.count > last ? DIFF_FIRED_WRAPPED : 0;
        last = seen.count;
        if (!periodic && seen.stopped)
            result |= DIFF_FIRED_STOPPED;
        after += result == expected;
    }
    return result;
}

static bool is_enabled(void)
{
    return me()->base & APIC_BASE_EN;
}

/* Masked afterwards, so that no tick follows; a request that was there stays. */
void run_timer(const struct diff_op *op)
{
    bool periodic = op->b & LVT_PERIODIC;
    uint8_t vector = (uint8_t)op->b;
    uint32_t fired;

    if (!is_enabled() || requested(vector)) {
        record(DIFF_FIRED, vector, 0);
        return;
    }
    reg_write(APIC_TDCR, op->a);
    reg_write(APIC_LVT_TIMER, op->b);
    reg_write(APIC_TMICT, op->c);
    fired = watch(vector, false, periodic);
    reg_write(APIC_LVT_TIMER, LVT_MASKED | vector);
    reg_write(APIC_TMICT, 0);
    record(DIFF_FIRED, vector, fired);
}

void run_deadline(const struct diff_op *op)
{
    uint8_t vector = (uint8_t)op->b;
    uint64_t when = rdtsc() + op->c;
    uint32_t fired;

    if (!is_enabled() || !apic_has_deadline() || requested(vector)) {
        record(DIFF_FIRED, vector, 0);
        return;
    }
    reg_write(APIC_LVT_TIMER, op->b);
    wrmsr_safe(MSR_TSC_DEADLINE, when);
    fired = watch(vector, true, false);
    if (fired && rdtsc() < when)
        fired |= DIFF_FIRED_EARLY;
    wrmsr_safe(MSR_TSC_DEADLINE, 0);
    reg_write(APIC_LVT_TIMER, LVT_MASKED | vector);
    record(DIFF_FIRED, vector, fired);
}

static void dump_one(uint32_t reg)
{
    uint64_t v = 0;
    bool fine = reg_read(reg, &v);

    record(fine ? DIFF_VALUE : DIFF_FAULT, reg, fine ? coarse(reg, v) : 0);
}

void dump(void)
{
    static const uint16_t single[] = {
        APIC_ID,        APIC_VERSION,     APIC_TPR,     APIC_PPR,       APIC_LDR,
        APIC_DFR,       APIC_SVR,         APIC_ESR,     APIC_ICR,       APIC_ICR2,
        APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PMC, APIC_LVT_LINT0, APIC_LVT_LINT1,
        APIC_LVT_ERROR, APIC_TMICT,       APIC_TMCCT,   APIC_TDCR};

    record(DIFF_VALUE, MSR_APIC_BASE, rdmsr(MSR_APIC_BASE));
    record(DIFF_VALUE, 8, read_cr8());
    for (uint32_t i = 0; i < sizeof(single) / sizeof(single[0]); i++)
        dump_one(single[i]);
    for (uint32_t i = 0; i < 8; i++) {
        dump_one(APIC_ISR + 16 * i);
        dump_one(APIC_TMR + 16 * i);
        dump_one(APIC_IRR + 16 * i);
    }
}
