/* SPDX-License-Identifier: MIT */
/*
 * How long which reason kept a VM from being accelerated: a list of changes, and sums that stay
 * exact when the list is full. Fed from the trace event of the inhibition by any thread; read when
 * the machine has ended.
 */
#ifndef VMM_ACCEL_TIMELINE_H
#define VMM_ACCEL_TIMELINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vapic/accel.h"

#define VMM_TIMELINE_MAX 16384u

struct vmm_timeline_entry {
    uint64_t ns; /* since the beginning */
    uint32_t mask;
};

struct vmm_timeline {
    pthread_mutex_t lock; /* guards the rest */
    uint64_t begin, last;
    uint32_t mask;
    bool running;
    uint64_t changes;
    uint64_t total_ns;
    uint64_t any_ns;                         /* with at least one reason */
    uint64_t reason_ns[VAPIC_INHIBIT_COUNT]; /* with this one */
    struct vmm_timeline_entry *entry;        /* the first VMM_TIMELINE_MAX changes */
    unsigned count;
};

/* False: no memory. */
bool vmm_timeline_init(struct vmm_timeline *t);
void vmm_timeline_fini(struct vmm_timeline *t);

/* The set of reasons was `mask` at the beginning, becomes `mask`, is over; `now` in nanoseconds. */
void vmm_timeline_begin(struct vmm_timeline *t, uint64_t now, uint32_t mask);
void vmm_timeline_change(struct vmm_timeline *t, uint64_t now, uint32_t mask);
void vmm_timeline_end(struct vmm_timeline *t, uint64_t now);

/* Part of the time, 0 to 1, with one reason; with any, for VAPIC_INHIBIT_COUNT. After the end. */
double vmm_timeline_share(const struct vmm_timeline *t, unsigned reason);

/* "BLOCKIRQ IRQWIN", or "none". */
const char *vmm_inhibits_text(uint32_t mask, char *text, size_t size);

#endif
