/* SPDX-License-Identifier: MIT */
/*
 * The APIC timer: one-shot, periodic, TSC-deadline [SDM3 12.5.4].
 *
 * Nothing counts. While the timer is armed, `timer_when` is the moment of the next expiry on the
 * clock of the mode (nanoseconds, or guest TSC), and the current count is what remains until then.
 * A change of the divisor keeps the count, so it moves the moment. The host learns each change
 * through host.arm(); expiry itself is noticed by vapic_timer_run() before an entry.
 *
 * No product overflows: TMICT < 2^32, bus_ns <= 2^25, divisor <= 2^7.
 */
#include "internal.h"

static uint32_t timer_mode(const struct vapic *v)
{
    return reg(v, APIC_LVT_TIMER) & APIC_LVT_TIMER_MODE;
}

/* Bits 3, 1, 0 of TDCR: 000b is 2, 110b is 128, 111b is 1 [SDM3 F12-10]. */
static uint32_t divide_shift(uint32_t tdcr)
{
    uint32_t code = (tdcr & 3) | (tdcr & 8) >> 1;

    return (code + 1) & 7;
}

static uint64_t ticks_to_ns(const struct vapic *v, uint32_t ticks)
{
    return (uint64_t)ticks * v->vm->bus_ns << divide_shift(reg(v, APIC_TDCR));
}

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

struct vapic_deadline vapic_timer_deadline(const struct vapic *v)
{
    struct vapic_deadline d = {VAPIC_CLOCK_NONE, 0};

    if (v->timer_flags & VAPIC_TIMER_ARMED) {
        d.clock = timer_mode(v) == APIC_TIMER_DEADLINE ? VAPIC_CLOCK_TSC : VAPIC_CLOCK_NS;
        d.when = v->timer_when;
    }
    return d;
}

static void call_host(struct vapic *v, struct vapic_deadline d)
{
    if (v->vm->host.arm)
        v->vm->host.arm(v->vm->ctx, v, d);
}

static NOINLINE void tell_host_traced(struct vapic *v, struct vapic_deadline d)
{
    TRACE(v->vm, TIMER, v->index, v->id, d.clock, d.when, 0);
    call_host(v, d);
}

static void tell_host(struct vapic *v)
{
    struct vapic_deadline d = vapic_timer_deadline(v);

    if (d.clock == v->told_clock && d.when == v->told_when)
        return;
    v->told_clock = (uint8_t)d.clock;
    v->told_when = d.when;
    if (UNLIKELY(vapic_traced(v->vm)))
        tell_host_traced(v, d);
    else
        call_host(v, d);
}

/* The host's timer has fired, by its clock; if ours says that it was early it must be set again. */
void vapic_timer_retell(struct vapic *v)
{
    v->told_clock = VAPIC_CLOCK_NONE;
    v->told_when = 0;
}

static void arm(struct vapic *v, uint64_t when)
{
    v->timer_when = when;
    v->timer_flags = VAPIC_TIMER_ARMED;
    tell_host(v);
}

void vapic_timer_stop(struct vapic *v)
{
    v->timer_when = 0;
    v->timer_flags = 0;
    tell_host(v);
}

/* The period that a reload uses: a tiny one would keep the host busy with nothing else. */
static uint64_t period_ns(const struct vapic *v)
{
    uint64_t period = ticks_to_ns(v, reg(v, APIC_TMICT));

    return period < v->vm->min_period_ns ? v->vm->min_period_ns : period;
}

static bool counts(const struct vapic *v)
{
    return timer_mode(v) == APIC_TIMER_ONESHOT || timer_mode(v) == APIC_TIMER_PERIODIC;
}

/* [SDM3 12.5.4]: writing the initial count starts the timer, writing 0 stops it. */
void vapic_timer_write_initial(struct vapic *v, uint32_t count, struct vapic_now now)
{
    uint64_t period;

    if (timer_mode(v) == APIC_TIMER_DEADLINE)
        return; /* ignored [SDM3 12.5.4.1] */
    set_reg(v, APIC_TMICT, count);
    if (count == 0 || !counts(v)) {
        vapic_timer_stop(v);
        return;
    }
    period = timer_mode(v) == APIC_TIMER_PERIODIC ? period_ns(v) : ticks_to_ns(v, count);
    arm(v, add_saturating(now.ns, period));
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What remains until expiry; a periodic timer that nobody looked at for a while has wrapped. */
static uint64_t remaining_ns(const struct vapic *v, struct vapic_now now)
{
    if (now.ns < v->timer_when)
        return v->timer_when - now.ns;
    if (timer_mode(v) != APIC_TIMER_PERIODIC)
        return 0;
    return period_ns(v) - (now.ns - v->timer_when) % period_ns(v);
}

uint32_t vapic_timer_current(const struct vapic *v, struct vapic_now now)
{
    uint64_t tick = ticks_to_ns(v, 1), count, initial = reg(v, APIC_TMICT);

    if (!(v->timer_flags & VAPIC_TIMER_ARMED) || timer_mode(v) == APIC_TIMER_DEADLINE)
        return 0;
    /* A count that has begun is not over: round up, so that the first read gives TMICT. */
    count = remaining_ns(v, now);
    count = count / tick + (count % tick != 0);
    return (uint32_t)(count < initial ? count : initial);
}

/* The count goes on from where it is, at the new speed. */
void vapic_timer_write_divide(struct vapic *v, uint32_t value, struct vapic_now now)
{
    uint32_t old = divide_shift(reg(v, APIC_TDCR)), new = divide_shift(value);
    uint64_t left;

    if (v->timer_flags & VAPIC_TIMER_ARMED && timer_mode(v) != APIC_TIMER_DEADLINE && old != new) {
        left = smaller(remaining_ns(v, now), ticks_to_ns(v, reg(v, APIC_TMICT))) >> old << new;
        set_reg(v, APIC_TDCR, value);
        arm(v, add_saturating(now.ns, left));
        return;
    }
    set_reg(v, APIC_TDCR, value);
    if (old != new && v->timer_flags & VAPIC_TIMER_EXPIRED &&knob(v->vm, VAPIC_KNOB_TDCR_REFIRES))
        arm(v, now.ns);
}

/*
 * Between one-shot and periodic the count goes on; a change to or from TSC-deadline mode disarms
 * and clears TMICT [SDM3 12.5.4.1]. Code 3 is reserved: nothing counts.
 */
static NOINLINE void change_lvt(struct vapic *v, uint32_t old, uint32_t value)
{
    bool changed = ((old ^ value) & APIC_LVT_TIMER_MODE) != 0;

    if (changed && (old & APIC_TIMER_DEADLINE || value & APIC_TIMER_DEADLINE)) {
        vapic_timer_stop(v);
        set_reg(v, APIC_TMICT, 0);
    }
    if (v->timer_flags & VAPIC_TIMER_REMEMBERED && !(value & APIC_LVT_MASKED)) {
        v->timer_flags &= (uint8_t)~VAPIC_TIMER_REMEMBERED;
        vapic_lapic_fire_lvt(v, APIC_LVT_TIMER);
    }
}

void vapic_timer_write_lvt(struct vapic *v, uint32_t value)
{
    uint32_t old = reg(v, APIC_LVT_TIMER);

    set_reg(v, APIC_LVT_TIMER, value);
    /* Most writes mask or unmask, or set another vector. */
    if (UNLIKELY((old ^ value) & APIC_LVT_TIMER_MODE || v->timer_flags & VAPIC_TIMER_REMEMBERED))
        change_lvt(v, old, value);
}

/* [SDM3 12.5.4.1]: ignored outside of TSC-deadline mode; 0 disarms; a past value fires at once. */
void vapic_timer_write_deadline(struct vapic *v, uint64_t tsc, struct vapic_now now)
{
    if (timer_mode(v) != APIC_TIMER_DEADLINE || !apic_enabled(v))
        return;
    if (tsc == 0) {
        vapic_timer_stop(v);
        return;
    }
    v->timer_when = tsc;
    v->timer_flags = VAPIC_TIMER_ARMED;
    /* Do not bother the host with a moment that has passed. */
    if (now.tsc >= tsc)
        vapic_timer_run(v, now);
    else
        tell_host(v);
}

uint64_t vapic_timer_read_deadline(const struct vapic *v)
{
    if (timer_mode(v) != APIC_TIMER_DEADLINE || !apic_enabled(v))
        return 0;
    return v->timer_flags & (VAPIC_TIMER_ARMED | VAPIC_TIMER_REMEMBERED) ? v->timer_when : 0;
}

/* Missed periods are not made up for; the phase stays. */
static void next_period(struct vapic *v, struct vapic_now now)
{
    uint64_t period = period_ns(v);

    v->timer_when = add_saturating(v->timer_when, period);
    if (v->timer_when <= now.ns)
        v->timer_when = add_saturating(now.ns, period - (now.ns - v->timer_when) % period);
}

static void expire(struct vapic *v, struct vapic_now now)
{
    uint32_t mode = timer_mode(v);

    if (mode == APIC_TIMER_PERIODIC) {
        next_period(v, now);
    } else {
        v->timer_flags = mode == APIC_TIMER_ONESHOT ? VAPIC_TIMER_EXPIRED : 0;
        if (mode == APIC_TIMER_ONESHOT)
            v->timer_when = 0;
    }
    /* An expiry under mask is lost, by the manual; Linux remembers it. */
    if (!(reg(v, APIC_LVT_TIMER) & APIC_LVT_MASKED))
        vapic_lapic_fire_lvt(v, APIC_LVT_TIMER);
    else if (knob(v->vm, VAPIC_KNOB_REMEMBER_MASKED_TICK))
        v->timer_flags |= VAPIC_TIMER_REMEMBERED;
}

void vapic_timer_run(struct vapic *v, struct vapic_now now)
{
    uint64_t clock;

    if (!(v->timer_flags & VAPIC_TIMER_ARMED))
        return;
    clock = timer_mode(v) == APIC_TIMER_DEADLINE ? now.tsc : now.ns;
    if (clock >= v->timer_when)
        expire(v, now);
    tell_host(v);
}

/* Clearing SVR[8] drops a tick that was not delivered; the count goes on [SDM3 12.4.7.2]. */
void vapic_timer_soft_disabled(struct vapic *v)
{
    v->timer_flags &= (uint8_t)~VAPIC_TIMER_REMEMBERED;
}

/*
 * A one-shot timer whose saved count is 0 may have expired just before the save with the interrupt
 * on its way: firing once too often is safer than once too seldom. A periodic one starts afresh.
 */
void vapic_timer_restore(struct vapic *v, uint32_t current, struct vapic_now now)
{
    uint32_t initial = reg(v, APIC_TMICT);

    vapic_timer_stop(v);
    if (!counts(v) || initial == 0)
        return;
    if (current > initial || (current == 0 && timer_mode(v) == APIC_TIMER_PERIODIC))
        current = initial;
    arm(v, add_saturating(now.ns, ticks_to_ns(v, current)));
}

int vapic_load_timer_ended(struct vapic *v)
{
    if (v == NULL || timer_mode(v) != APIC_TIMER_ONESHOT || reg(v, APIC_TMICT) == 0)
        return VAPIC_E_ARG;
    vapic_timer_stop(v);
    v->timer_flags = VAPIC_TIMER_EXPIRED;
    return VAPIC_OK;
}

void vapic_timer_load(struct vapic *v, uint8_t flags, uint64_t when, struct vapic_now now)
{
    uint64_t longest = ticks_to_ns(v, reg(v, APIC_TMICT));

    if (!knob(v->vm, VAPIC_KNOB_REMEMBER_MASKED_TICK))
        flags &= (uint8_t)~VAPIC_TIMER_REMEMBERED;
    /* No count is longer than the initial one; a clamped period may be. */
    if (timer_mode(v) == APIC_TIMER_PERIODIC)
        longest = period_ns(v);
    v->timer_flags = flags;
    v->timer_when = when;
    if (counts(v) && flags & VAPIC_TIMER_ARMED)
        v->timer_when = add_saturating(now.ns, smaller(when, longest));
    /* The host's timer may be used up while ours runs: tell it again. */
    if (v->timer_flags & VAPIC_TIMER_ARMED)
        vapic_timer_retell(v);
    tell_host(v);
}
