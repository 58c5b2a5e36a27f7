/* SPDX-License-Identifier: MIT */
/*
 * The APIC timer against the TSC. Bounds are rigorous on any machine, however slow or preempted:
 * a count is read between two readings of the TSC, so the true ratio lies between the two figures.
 */
#ifndef GUEST_CLOCK_H
#define GUEST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_SHIFT 16

struct clock_rate {
    uint64_t least, most; /* TSC cycles per count, times 2^CLOCK_SHIFT */
};

/* TDCR values for dividing by 1, 2, 4 ... 128. [SDM3 12.5.4] */
extern const uint8_t clock_divide[8];

/* Runs the (masked) timer for about `cycles`; false: it did not count. */
bool clock_measure(uint8_t divide_code, uint64_t cycles, struct clock_rate *rate);

/* Counts (divide by 1) that last about this many TSC cycles; calibrates on first use. */
uint32_t clock_counts(uint64_t cycles);
/* A number of counts lasts at least so many cycles. */
uint64_t clock_least_cycles(uint64_t counts);
/* A time in TSC cycles that is short, yet as long as many accesses to the APIC take here. */
uint64_t clock_short(void);

/* Arms one interrupt of `vector` after about `cycles`, by the mechanism that timer= chose. */
void clock_arm(uint8_t vector, uint64_t cycles);
void clock_disarm(void);

#endif
