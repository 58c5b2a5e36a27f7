/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's time: the host's monotonic clock, the guest's TSC beside it, and the timer that kicks a
 * running vCPU at its APIC timer's deadline. Called by the vCPU's own thread only.
 *
 * The guest's TSC costs a system call to read, so it is estimated from the monotonic clock since
 * the last reading. An estimate is good enough to compute a waiting time from, but not to decide
 * that a deadline has come: an interrupt handler must never read a TSC below the deadline it was
 * called for. So near a TSC deadline, or when the last reading is old, it is read again.
 */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm_vcpu.h"

#define NS_PER_SEC 1000000000ull
#define NEAR_NS    50000ull    /* estimates are late by less than this... */
#define STALE_NS   20000000ull /* ...within this time */

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t ns_to_ticks(const struct vmm_vcpu *v, uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * v->tsc_khz / 1000000u);
}

static uint64_t ticks_to_ns(const struct vmm_vcpu *v, uint64_t ticks)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * 1000000u + v->tsc_khz - 1) / v->tsc_khz;

    return ns > INT64_MAX ? INT64_MAX : (uint64_t)ns;
}

bool vmm_clock_start(struct vmm_vcpu *v)
{
    struct sigevent event;

    memset(&event, 0, sizeof(event));
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = VMM_TIMER_SIGNAL;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    v->timer_made = timer_create(CLOCK_MONOTONIC, &event, &v->timer) == 0;
    atomic_store(&v->armed_clock, VAPIC_CLOCK_NONE);
    v->deadline = (struct vapic_deadline){VAPIC_CLOCK_NONE, 0};
    /* A fresh virtual machine has a fresh TSC: the last one's says nothing. */
    vmm_clock_now_exact(v);
    return v->timer_made;
}

void vmm_clock_stop(struct vmm_vcpu *v)
{
    if (v->timer_made) {
        timer_delete(v->timer);
        v->timer_made = false;
    }
}

/* A reading during which this thread lost the processor is a bad base for estimates: once more. */
struct vapic_now vmm_clock_now_exact(struct vmm_vcpu *v)
{
    uint64_t before;
    uint64_t tsc;
    unsigned tries = 0;

    do {
        before = monotonic_ns();
        if (vmm_kvm_read_tsc(v->fd, &tsc) == 0) {
            v->tsc_ref = tsc;
        }
        v->ns_ref = monotonic_ns();
    } while (v->ns_ref - before > NEAR_NS && ++tries < 2);
    return (struct vapic_now){v->ns_ref, v->tsc_ref};
}

/* Never ahead of the guest's TSC: the reference time was taken after the TSC. */
static struct vapic_now estimate(struct vmm_vcpu *v)
{
    uint64_t ns = monotonic_ns();

    return (struct vapic_now){ns, v->tsc_ref + ns_to_ticks(v, ns - v->ns_ref)};
}

struct vapic_now vmm_clock_now_fresh(struct vmm_vcpu *v)
{
    struct vapic_now now = estimate(v);

    return now.ns - v->ns_ref > STALE_NS ? vmm_clock_now_exact(v) : now;
}

struct vapic_now vmm_clock_now(struct vmm_vcpu *v)
{
    struct vapic_now now = estimate(v);

    if (v->deadline.clock == VAPIC_CLOCK_TSC &&
        (now.ns - v->ns_ref > STALE_NS || now.tsc + ns_to_ticks(v, NEAR_NS) >= v->deadline.when)) {
        return vmm_clock_now_exact(v);
    }
    return now;
}

uint64_t vmm_clock_deadline_ns(struct vmm_vcpu *v, struct vapic_now now)
{
    uint64_t when = v->deadline.when;

    switch (v->deadline.clock) {
    case VAPIC_CLOCK_NS:
        return when != 0 ? when : 1;
    case VAPIC_CLOCK_TSC:
        return when <= now.tsc ? now.ns : now.ns + ticks_to_ns(v, when - now.tsc);
    case VAPIC_CLOCK_NONE:
        break;
    }
    return 0;
}

bool vmm_clock_armed(const struct vmm_vcpu *v)
{
    return v->deadline.clock != VAPIC_CLOCK_NONE && v->deadline.when == v->armed_when &&
           atomic_load(&v->armed_clock) == (uint32_t)v->deadline.clock;
}

void vmm_clock_arm(struct vmm_vcpu *v, struct vapic_now now)
{
    uint64_t at = vmm_clock_deadline_ns(v, now);
    struct itimerspec spec = {{0, 0}, {0, 0}};

    /* A timer that is no longer wanted fires once for nothing: cheaper than a call to stop it. */
    if (at == 0 || vmm_clock_armed(v)) {
        return;
    }
    /* First the note, then the timer: its signal may come at once, and takes the note back. */
    v->armed_when = v->deadline.when;
    atomic_store(&v->armed_clock, v->deadline.clock);
    spec.it_value.tv_sec = (time_t)(at / NS_PER_SEC);
    spec.it_value.tv_nsec = (long)(at % NS_PER_SEC);
    timer_settime(v->timer, TIMER_ABSTIME, &spec, NULL);
    v->stats.timer_arms++;
}
