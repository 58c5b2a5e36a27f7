/* SPDX-License-Identifier: MIT */
/*
 * The 8254 interval timer (ports 40h to 43h) and the system control port B (61h) that gates its
 * channel 2. Owns the three counters and one timer of the event loop; drives wire 0.
 *
 * A counter is not stepped: its value and output are computed from the time since it began to
 * count. Only channel 0 needs events, one per rising edge of its output.
 *
 * Interrupt policy: an event that comes late delivers one edge and the ones missed are dropped,
 * never replayed; and edges are at least VMM_PIT_MIN_PERIOD_NS apart whatever count the guest
 * programs. A guest can therefore not make the host storm itself, and a guest that counts PIT ticks
 * to tell the time loses time on an overloaded host.
 */
#ifndef VMM_DEV_PIT_H
#define VMM_DEV_PIT_H

#include "dev_env.h"

#define VMM_PIT_HZ            1193182ull
#define VMM_PIT_MIN_PERIOD_NS 100000ull

/* What a read of the counter port gives next. */
struct vmm_pit_latch {
    uint16_t count;
    uint8_t status;
    uint8_t count_bytes; /* bytes of `count` still to be read */
    bool status_valid;
};

struct vmm_pit_channel {
    uint8_t mode;   /* 0 to 5 */
    uint8_t access; /* 1 low byte, 2 high byte, 3 low then high */
    bool bcd;
    bool gate;
    bool counting;     /* a count is loaded (modes 1 and 5: and triggered) */
    bool null_count;   /* the count last written is not in the counter yet */
    bool write_high;   /* access 3: the next write is the high byte */
    bool read_high;    /* access 3: the next unlatched read is the high byte */
    uint8_t write_low; /* access 3: the low byte written */
    uint32_t count;    /* 1 to 65536 */
    uint32_t reload;   /* modes 2 and 3: takes over at the end of the period; 0: none */
    uint64_t start;    /* ns at which the counting began */
    uint64_t held;     /* gate low in modes 0 and 4: ticks counted so far */
    struct vmm_pit_latch latch;
};

struct vmm_pit {
    struct vmm_env *env;
    struct vmm_timer timer;
    struct vmm_pit_channel ch[3];
    uint8_t port61;  /* bits 0 to 3 */
    bool line;       /* wire 0 */
    uint64_t edge;   /* when channel 0's output rises next; VMM_TIME_NEVER: not */
    bool programmed; /* the guest has written channel 0 since reset */
};

int vmm_pit_init(struct vmm_pit *pit, struct vmm_env *env);
void vmm_pit_reset(struct vmm_pit *pit);
void vmm_pit_fini(struct vmm_pit *pit);

#endif
