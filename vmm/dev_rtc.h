/* SPDX-License-Identifier: MIT */
/*
 * The MC146818 real-time clock with its CMOS memory (ports 70h/71h). Owns 128 bytes of CMOS, the
 * time of day (UTC, from the host's clock at start; the guest may set it) and one timer of the
 * event loop; drives wire 8.
 *
 * The flags of register C are computed when somebody looks; a timer runs only while an interrupt is
 * enabled and the wire is low. As the wire stays high until the guest reads register C, there is at
 * most one event per such read.
 */
#ifndef VMM_DEV_RTC_H
#define VMM_DEV_RTC_H

#include "dev_env.h"

struct vmm_rtc_config {
    uint64_t ram_below_4g; /* bytes, from address 0 */
    uint64_t ram_above_4g;
    unsigned cpus;
};

struct vmm_rtc {
    struct vmm_env *env;
    struct vmm_timer timer;
    uint8_t index;
    uint8_t cmos[128];  /* the time is in it only while SET stops the clock */
    bool line;          /* wire 8 */
    int64_t base_sec;   /* second that began ... */
    uint64_t base_mono; /* ... at this monotonic time (modulo 2^64) */
    uint64_t seen;      /* ns since base_mono up to which the flags are computed */
    uint64_t alarm;     /* second, counted from base_sec, of the next alarm; UINT64_MAX: never */
    uint64_t event;     /* when the timer is wanted; VMM_TIME_NEVER: not */
};

int vmm_rtc_init(struct vmm_rtc *rtc, struct vmm_env *env, const struct vmm_rtc_config *config);

/* The reset line: interrupts off, flags cleared. Time and memory live on a battery and stay. */
void vmm_rtc_reset(struct vmm_rtc *rtc);
void vmm_rtc_fini(struct vmm_rtc *rtc);

#endif
