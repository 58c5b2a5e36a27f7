/* SPDX-License-Identifier: MIT */
/*
 * The APIC timer in one-shot and periodic mode: counting, expiry, what starts and stops it, and
 * what the host is told. [SDM3 12.5.4]
 */
#include "fixture.h"

#define VECTOR      0x31
#define ONESHOT     VECTOR
#define PERIODIC    (APIC_TIMER_PERIODIC | VECTOR)
#define DIVIDE_BY_1 0xB
#define COUNT       1000000u /* with DIVIDE_BY_1 and the default bus: nanoseconds */

static struct fx *start_with(const struct fx_options *options, uint32_t lvt, uint32_t count)
{
    struct fx *fx = fx_new(options);

    fx_set(fx, 0, APIC_TDCR, DIVIDE_BY_1);
    fx_set(fx, 0, APIC_LVT_TIMER, lvt);
    fx_set(fx, 0, APIC_TMICT, count);
    return fx;
}

static struct fx *start(uint32_t lvt, uint32_t count)
{
    return start_with(NULL, lvt, count);
}

static struct fx *start_with_knobs(uint32_t knobs, uint32_t lvt, uint32_t count)
{
    return start_with(&(struct fx_options){.config = {.knobs = knobs, .knobs_set = true}}, lvt,
                      count);
}

static uint32_t count(struct fx *fx)
{
    return fx_get(fx, 0, APIC_TMCCT);
}

static bool fires(struct fx *fx)
{
    return fx_take_eoi(fx, 0) == VECTOR;
}

/* ---- Divide values [SDM3 F12-10] ---- */

static const struct {
    uint32_t tdcr, divisor;
} divide_rows[] = {
    {0x0, 2}, {0x1, 4}, {0x2, 8}, {0x3, 16}, {0x8, 32}, {0x9, 64}, {0xA, 128}, {0xB, 1},
};

#define DIVIDE_ROWS (sizeof(divide_rows) / sizeof(divide_rows[0]))

/* On a 25 MHz bus, as the usual tests of guests have it. */
static void trap_63_divide_values(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        for (uint32_t n = 0; n < DIVIDE_ROWS; n++) {
            struct fx *fx =
                fx_new(&(struct fx_options){.x2apic = x2apic != 0, .config = {.bus_ns = 40}});

            fx_set(fx, 0, APIC_TDCR, divide_rows[n].tdcr);
            fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
            fx_set(fx, 0, APIC_TMICT, COUNT);
            for (uint32_t ticks = 1; ticks < COUNT; ticks *= 7) {
                uint64_t started = fx->now.ns;

                fx->now.ns += (uint64_t)ticks * 40 * divide_rows[n].divisor;
                fx_equal(count(fx), COUNT - ticks, "divide by %u, %u ticks", divide_rows[n].divisor,
                         ticks);
                fx->now.ns = started;
            }
            fx_free(fx);
        }
    }
}

static void a_tick_is_not_rounded_up(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.config = {.bus_ns = 40}});

    (void)state;
    fx_set(fx, 0, APIC_TDCR, 0x3); /* 640 ns */
    fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
    fx_set(fx, 0, APIC_TMICT, 100);
    fx->now.ns += 640 * 99 + 1; /* less than a tick remains */
    assert_int_equal(fx_take(fx, 0), -1);
    assert_true(count(fx) <= 1);
    fx->now.ns += 639;
    assert_true(fires(fx));
    fx_free(fx);
}

/* 2^32-1 ticks of the slowest bus and the largest divisor do not overflow. */
static void the_longest_period(void **state)
{
    const uint64_t tick = UINT64_C(33554432) * 128;
    struct fx *fx = fx_new(&(struct fx_options){.config = {.bus_ns = 33554432}});

    (void)state;
    fx_set(fx, 0, APIC_TDCR, 0xA);
    fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
    fx_set(fx, 0, APIC_TMICT, 0xFFFFFFFF);
    assert_int_equal(count(fx), 0xFFFFFFFF);
    fx->now.ns += tick;
    assert_int_equal(count(fx), 0xFFFFFFFE);
    fx->now.ns += tick * 0xFFFFFFFD;
    assert_false(fires(fx));
    assert_int_equal(count(fx), 1);
    fx_free(fx);
}

/* ---- One-shot ---- */

static void oneshot_counts_down_from_the_start(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    assert_int_equal(count(fx), COUNT);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), COUNT);
    fx->now.ns += 1;
    assert_int_equal(count(fx), COUNT - 1);
    fx->now.ns += COUNT - 2;
    assert_int_equal(count(fx), 1);
    fx_free(fx);
}

static void trap_57_oneshot_fires_once_and_not_early(void **state)
{
    struct fx *fx = start(ONESHOT, 0x10000);

    (void)state;
    fx->now.ns += 0xFFFF;
    assert_false(fires(fx));
    fx->now.ns += 1;
    assert_true(fires(fx));
    fx->now.ns += 100 * 0x10000;
    assert_false(fires(fx));
    fx_free(fx);
}

static void oneshot_stays_at_zero(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    assert_int_equal(count(fx), 0);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), COUNT);
    fx->now.ns += COUNT / 2;
    assert_int_equal(count(fx), 0);
    fx_set(fx, 0, APIC_TMICT, 77);
    assert_int_equal(count(fx), 77);
    fx_free(fx);
}

static void count_is_zero_at_expiry_before_the_entry(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx->now.ns += COUNT + 5;
    assert_int_equal(count(fx), 0);
    assert_true(fires(fx));
    fx_free(fx);
}

static void writing_zero_stops(void **state)
{
    (void)state;
    for (int periodic = 0; periodic < 2; periodic++) {
        struct fx *fx = start(periodic ? PERIODIC : ONESHOT, COUNT);

        fx->now.ns += COUNT / 2;
        fx_set(fx, 0, APIC_TMICT, 0);
        assert_int_equal(count(fx), 0);
        fx->now.ns += 10 * COUNT;
        assert_false(fires(fx));
        fx_free(fx);
    }
}

static void writing_again_restarts(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx->now.ns += COUNT - 1;
    fx_set(fx, 0, APIC_TMICT, COUNT);
    fx->now.ns += COUNT - 1;
    assert_false(fires(fx));
    fx->now.ns += 1;
    assert_true(fires(fx));
    fx_free(fx);
}

static void the_vector_of_the_moment(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, 0x45);
    fx->now.ns += COUNT;
    assert_int_equal(fx_take(fx, 0), 0x45);
    assert_false(fx_bit(fx, 0, APIC_TMR, 0x45));
    fx_free(fx);
}

static void current_count_is_read_only(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx_write(fx, 0, APIC_TMCCT, 5);
    assert_int_equal(count(fx), COUNT);
    fx_free(fx);
}

/* ---- Periodic ---- */

static void periodic_fires_every_period(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    for (int n = 0; n < 20; n++) {
        fx->now.ns += COUNT - 1;
        assert_false(fires(fx));
        assert_int_equal(count(fx), 1);
        fx->now.ns += 1;
        assert_true(fires(fx));
        assert_false(fires(fx));
    }
    fx_free(fx);
}

static void periodic_reloads(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    fx->now.ns += COUNT / 4;
    assert_int_equal(count(fx), COUNT - COUNT / 4);
    fx_free(fx);
}

static void periodic_count_wraps_without_entries(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx->now.ns += 3 * (uint64_t)COUNT + COUNT / 4;
    assert_int_equal(count(fx), COUNT - COUNT / 4);
    fx_free(fx);
}

/* What a sleeping thread missed is one interrupt, and the phase stays. */
static void missed_periods_are_not_replayed(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx->now.ns += 10 * (uint64_t)COUNT + COUNT / 2;
    assert_true(fires(fx));
    assert_false(fires(fx));
    fx->now.ns += COUNT / 2 - 1;
    assert_false(fires(fx));
    fx->now.ns += 1;
    assert_true(fires(fx));
    fx_free(fx);
}

/* Runs the vCPU for a second of its time and counts the interrupts. */
static uint32_t ticks_of_a_second(struct fx *fx)
{
    uint64_t end = fx->now.ns + 1000000000;
    uint32_t ticks = 0;

    while (fx->now.ns < end && ticks < 1000000) {
        struct vapic_entry entry = fx_step(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);

        if (entry.inject == VAPIC_INJECT_VECTOR) {
            ticks++;
            fx_eoi(fx, 0);
        }
        assert_int_equal(entry.deadline.clock, VAPIC_CLOCK_NS);
        fx->now.ns = entry.deadline.when > fx->now.ns ? entry.deadline.when : fx->now.ns + 1;
    }
    return ticks;
}

static void trap_65_shortest_period(void **state)
{
    struct fx *fx = start(PERIODIC, 1);

    (void)state;
    assert_in_range(ticks_of_a_second(fx), 4000, 5001);
    fx_free(fx);
}

static void shortest_period_is_configurable(void **state)
{
    struct fx *fx =
        start_with(&(struct fx_options){.config = {.min_period_ns = 1000000}}, PERIODIC, 1);

    (void)state;
    assert_in_range(ticks_of_a_second(fx), 900, 1001);
    fx_free(fx);
}

/* The limit is the host's protection, not the guest's business. */
static void short_period_keeps_the_initial_count(void **state)
{
    struct fx *fx = start(PERIODIC, 3);

    (void)state;
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), 3);
    fx_free(fx);
}

static void oneshot_has_no_shortest_time(void **state)
{
    struct fx *fx = start(ONESHOT, 1);

    (void)state;
    fx->now.ns += 1;
    assert_true(fires(fx));
    fx_free(fx);
}

/* ---- Changing the mode while it runs ---- */

static void trap_58_oneshot_to_periodic(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx->now.ns += COUNT - COUNT / 4;
    fx_set(fx, 0, APIC_LVT_TIMER, PERIODIC);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), COUNT);
    assert_int_equal(count(fx), COUNT / 4);
    fx->now.ns += COUNT / 4;
    assert_true(fires(fx));
    fx->now.ns += COUNT / 4;
    assert_int_equal(count(fx), COUNT - COUNT / 4);
    fx->now.ns += COUNT - COUNT / 4;
    assert_true(fires(fx));
    fx_free(fx);
}

static void trap_59_periodic_to_oneshot(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx->now.ns += COUNT + COUNT / 2;
    assert_true(fires(fx));
    fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
    assert_int_equal(count(fx), COUNT / 2);
    fx->now.ns += COUNT / 2;
    assert_true(fires(fx));
    assert_int_equal(count(fx), 0);
    fx->now.ns += 10 * COUNT;
    assert_int_equal(count(fx), 0);
    assert_false(fires(fx));
    fx_free(fx);
}

static void trap_60_expired_oneshot_to_periodic(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    fx_set(fx, 0, APIC_LVT_TIMER, PERIODIC);
    assert_int_equal(count(fx), 0);
    fx->now.ns += 10 * COUNT;
    assert_int_equal(count(fx), 0);
    assert_false(fires(fx));
    fx_free(fx);
}

/* Into TSC-deadline mode and out of it the timer is disarmed. [SDM3 12.5.4.1] */
static void deadline_mode_disarms(void **state)
{
    (void)state;
    for (int periodic = 0; periodic < 2; periodic++) {
        struct fx *fx = start(periodic ? PERIODIC : ONESHOT, COUNT);

        fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | VECTOR);
        assert_int_equal(fx_get(fx, 0, APIC_TMICT), 0);
        assert_int_equal(count(fx), 0);
        fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
        fx->now.ns += 10 * COUNT;
        assert_false(fires(fx));
        fx_free(fx);
    }
}

static void initial_count_in_deadline_mode(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | VECTOR);
    fx_set(fx, 0, APIC_TMICT, COUNT);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), 0);
    assert_int_equal(count(fx), 0);
    fx->now.ns += 10 * COUNT;
    assert_false(fires(fx));
    fx_free(fx);
}

static void reserved_mode_fires_nothing(void **state)
{
    struct fx *fx = start(3u << 17 | VECTOR, COUNT);

    (void)state;
    fx->now.ns += 10 * COUNT;
    fx->now.tsc += 10 * COUNT;
    assert_false(fires(fx));
    fx_free(fx);
}

static void changing_the_vector_disturbs_nothing(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx->now.ns += COUNT / 2;
    fx_set(fx, 0, APIC_LVT_TIMER, PERIODIC);
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | PERIODIC);
    fx_set(fx, 0, APIC_LVT_TIMER, PERIODIC);
    assert_int_equal(count(fx), COUNT / 2);
    fx_free(fx);
}

/* ---- Changing the divisor while it runs ---- */

static void divisor_change_keeps_the_count(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < DIVIDE_ROWS; n++) {
        struct fx *fx = start(ONESHOT, COUNT);
        uint64_t rest = (uint64_t)(COUNT - 1000) * divide_rows[n].divisor;

        fx->now.ns += 1000;
        fx_set(fx, 0, APIC_TDCR, divide_rows[n].tdcr);
        fx_equal(count(fx), COUNT - 1000, "divide by %u", divide_rows[n].divisor);
        fx->now.ns += rest - 1;
        fx_equal(fires(fx), false, "divide by %u, early", divide_rows[n].divisor);
        fx->now.ns += 1;
        fx_equal(fires(fx), true, "divide by %u, fires", divide_rows[n].divisor);
        fx_free(fx);
    }
}

static void divisor_change_keeps_a_periodic_timer_going(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx->now.ns += COUNT / 2;
    fx_set(fx, 0, APIC_TDCR, 0); /* by 2 */
    assert_int_equal(count(fx), COUNT / 2);
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    fx->now.ns += 2 * COUNT - 1;
    assert_false(fires(fx));
    fx->now.ns += 1;
    assert_true(fires(fx));
    fx_free(fx);
}

static void divisor_change_when_stopped(void **state)
{
    struct fx *fx = start(ONESHOT, 0);

    (void)state;
    fx_set(fx, 0, APIC_TDCR, 0);
    assert_int_equal(count(fx), 0);
    fx->now.ns += COUNT;
    assert_false(fires(fx));
    fx_free(fx);
}

/* An expired timer stays so; Linux fires it once more. */
static void divisor_change_after_expiry(void **state)
{
    (void)state;
    for (int kvm = 0; kvm < 2; kvm++) {
        struct fx *fx = start_with_knobs(VAPIC_PROFILE_MANUAL | (kvm ? VAPIC_KNOB_TDCR_REFIRES : 0),
                                         ONESHOT, COUNT);

        fx->now.ns += COUNT;
        assert_true(fires(fx));
        fx_set(fx, 0, APIC_TDCR, 0);
        fx->now.ns += 1;
        assert_int_equal(fires(fx), kvm);
        fx_free(fx);
    }
}

/* ... but only that: a timer that runs or was never started does not fire for it. */
static void divisor_change_fires_expired_timers_only(void **state)
{
    (void)state;
    for (uint32_t initial = 0; initial <= COUNT; initial += COUNT) {
        struct fx *fx =
            start_with_knobs(VAPIC_PROFILE_MANUAL | VAPIC_KNOB_TDCR_REFIRES, ONESHOT, initial);

        fx->now.ns += 10;
        fx_set(fx, 0, APIC_TDCR, 0);
        fx->now.ns += 10;
        fx_equal(fires(fx), false, "initial count %u", initial);
        fx_free(fx);
    }
}

/* ---- Masking and disabling ---- */

static void masked_timer_counts(void **state)
{
    struct fx *fx = start(APIC_LVT_MASKED | PERIODIC, COUNT);

    (void)state;
    fx->now.ns += COUNT / 4;
    assert_int_equal(count(fx), COUNT - COUNT / 4);
    fx->now.ns += COUNT;
    assert_false(fires(fx));
    fx_set(fx, 0, APIC_LVT_TIMER, PERIODIC);
    fx->now.ns += COUNT - COUNT / 4;
    assert_true(fires(fx));
    fx_free(fx);
}

static void masked_expiry(void **state)
{
    (void)state;
    for (int remember = 0; remember < 2; remember++) {
        struct fx *fx = start_with_knobs(VAPIC_PROFILE_MANUAL |
                                             (remember ? VAPIC_KNOB_REMEMBER_MASKED_TICK : 0),
                                         APIC_LVT_MASKED | ONESHOT, COUNT);

        fx->now.ns += COUNT;
        assert_false(fires(fx));
        fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
        assert_int_equal(fires(fx), remember);
        assert_false(fires(fx));
        fx_set(fx, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | ONESHOT);
        fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
        assert_false(fires(fx));
        fx_free(fx);
    }
}

/* [SDM3 12.4.7.2] counting goes on, the entry is masked */
static void soft_disable(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0xFF);
    fx->now.ns += COUNT / 4;
    assert_int_equal(count(fx), COUNT - COUNT / 4);
    fx->now.ns += COUNT;
    assert_false(fires(fx));
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    assert_false(fires(fx));
    assert_int_equal(fx_get(fx, 0, APIC_LVT_TIMER), APIC_LVT_MASKED | PERIODIC);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), COUNT);
    fx_free(fx);
}

static void global_disable(void **state)
{
    (void)state;
    for (int stops = 0; stops < 2; stops++) {
        struct fx *fx = start_with_knobs(
            stops ? VAPIC_PROFILE_MANUAL : VAPIC_PROFILE_MANUAL & ~VAPIC_KNOB_DISABLE_STOPS_TIMER,
            PERIODIC, COUNT);
        uint64_t base = vapic_base(&fx->v[0]);

        assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base & ~(uint64_t)APIC_BASE_EN), VAPIC_OK);
        fx->now.ns += COUNT / 4;
        assert_false(fires(fx));
        assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base), VAPIC_OK);
        assert_int_equal(count(fx), stops ? 0 : COUNT - COUNT / 4);
        fx->now.ns += COUNT;
        assert_int_equal(fires(fx), !stops);
        fx_free(fx);
    }
}

static void init_stops(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);

    (void)state;
    fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0);
    fx_settle(fx);
    assert_int_equal(count(fx), 0);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), 0);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    fx_set(fx, 0, APIC_LVT_TIMER, PERIODIC);
    fx->now.ns += 10 * COUNT;
    assert_false(fires(fx));
    fx_free(fx);
}

/* ---- What the host sees ---- */

static void deadline_of_the_entry(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);
    struct vapic_deadline deadline;

    (void)state;
    deadline = fx_step(fx, 0, 0).deadline;
    assert_int_equal(deadline.clock, VAPIC_CLOCK_NS);
    assert_int_equal(deadline.when, fx->now.ns + COUNT);
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    assert_int_equal(fx_step(fx, 0, 0).deadline.clock, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

static void the_host_is_armed(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);
    struct fx_event arm;

    (void)state;
    fx_step(fx, 0, 0);
    assert_true(fx_count(fx, FX_ARM) > 0);
    arm = fx_nth(fx, FX_ARM, fx_count(fx, FX_ARM) - 1);
    assert_int_equal(arm.a, VAPIC_CLOCK_NS);
    assert_int_equal(arm.b, fx->now.ns + COUNT);
    fx_forget(fx);
    fx_set(fx, 0, APIC_TMICT, 0);
    fx_step(fx, 0, 0);
    arm = fx_nth(fx, FX_ARM, fx_count(fx, FX_ARM) - 1);
    assert_int_equal(arm.a, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

static void without_arm_callback(void **state)
{
    struct fx *fx = start_with(&(struct fx_options){.no_optional = true}, ONESHOT, COUNT);

    (void)state;
    assert_int_equal(fx_step(fx, 0, 0).deadline.when, fx->now.ns + COUNT);
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    fx_free(fx);
}

/* The host's timer thread: the vCPU in the guest is kicked, the sleeping one woken. */
static void timer_expired_reaches_the_vcpu(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);

    (void)state;
    fx_peek(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);
    fx->now.ns += COUNT;
    assert_int_equal(vapic_timer_expired(&fx->v[0]), VAPIC_ACTION_KICK);
    vapic_exit(&fx->v[0], 0, true);
    assert_true(fires(fx));
    vapic_halt(&fx->v[0]);
    fx_set(fx, 0, APIC_TMICT, COUNT);
    assert_false(fx_step(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF).runnable);
    assert_true(vapic_block(&fx->v[0]));
    fx->now.ns += COUNT;
    assert_int_equal(vapic_timer_expired(&fx->v[0]), VAPIC_ACTION_WAKE);
    vapic_unblock(&fx->v[0]);
    assert_true(fires(fx));
    fx_free(fx);
}

/* The host's clock was early: it has to be told again, or the tick would never come. */
static void early_expiry_is_armed_again(void **state)
{
    struct fx *fx = start(ONESHOT, COUNT);
    uint64_t when = fx->now.ns + COUNT;

    (void)state;
    fx_step(fx, 0, 0);
    fx->now.ns += COUNT - 10;
    vapic_timer_expired(&fx->v[0]);
    fx_forget(fx);
    assert_false(fires(fx));
    assert_int_equal(fx_count(fx, FX_ARM), 1);
    assert_int_equal(fx_nth(fx, FX_ARM, 0).b, when);
    fx_free(fx);
}

/* Only a tick that can be delivered ends HLT. */
static void masked_tick_wakes_nobody(void **state)
{
    struct fx *fx = start(APIC_LVT_MASKED | ONESHOT, COUNT);

    (void)state;
    vapic_halt(&fx->v[0]);
    fx->now.ns += COUNT;
    assert_false(fx_step(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF).runnable);
    fx_free(fx);
}

static void counts_ticks(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);
    struct vapic_stats stats;

    (void)state;
    for (int n = 0; n < 5; n++) {
        fx->now.ns += COUNT;
        fx_take_eoi(fx, 0);
    }
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.timer_ticks, 5);
    fx_free(fx);
}

/* The event of the trace and the call of the host say the same; either may be missing. */
static void arming_is_traced(void **state)
{
    (void)state;
    for (int no_host = 0; no_host < 2; no_host++) {
        struct fx *fx = fx_new(&(struct fx_options){.no_optional = no_host != 0});
        bool found = false;

        fx_trace(fx);
        fx_set(fx, 0, APIC_TDCR, DIVIDE_BY_1);
        fx_set(fx, 0, APIC_LVT_TIMER, ONESHOT);
        fx_set(fx, 0, APIC_TMICT, COUNT);
        fx_step(fx, 0, 0);
        for (uint32_t n = 0; n < fx_count(fx, FX_TRACE); n++) {
            struct vapic_event event = fx_nth(fx, FX_TRACE, n).event;

            found |= event.kind == VAPIC_EVENT_TIMER && event.arg[1] == VAPIC_CLOCK_NS &&
                     event.arg[2] == fx->now.ns + COUNT;
        }
        assert_true(found);
        assert_int_equal(fx_count(fx, FX_ARM) > 0, !no_host);
        fx_free(fx);
    }
}

/* Told once: the same deadline again is no news. */
static void the_host_is_told_once(void **state)
{
    struct fx *fx = start(PERIODIC, COUNT);
    uint32_t told;

    (void)state;
    fx_step(fx, 0, 0);
    told = fx_count(fx, FX_ARM);
    for (int n = 0; n < 5; n++)
        fx_step(fx, 0, 0);
    assert_int_equal(fx_count(fx, FX_ARM), told);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trap_63_divide_values),
        cmocka_unit_test(a_tick_is_not_rounded_up),
        cmocka_unit_test(the_longest_period),
        cmocka_unit_test(oneshot_counts_down_from_the_start),
        cmocka_unit_test(trap_57_oneshot_fires_once_and_not_early),
        cmocka_unit_test(oneshot_stays_at_zero),
        cmocka_unit_test(count_is_zero_at_expiry_before_the_entry),
        cmocka_unit_test(writing_zero_stops),
        cmocka_unit_test(writing_again_restarts),
        cmocka_unit_test(the_vector_of_the_moment),
        cmocka_unit_test(current_count_is_read_only),
        cmocka_unit_test(periodic_fires_every_period),
        cmocka_unit_test(periodic_reloads),
        cmocka_unit_test(periodic_count_wraps_without_entries),
        cmocka_unit_test(missed_periods_are_not_replayed),
        cmocka_unit_test(trap_65_shortest_period),
        cmocka_unit_test(shortest_period_is_configurable),
        cmocka_unit_test(short_period_keeps_the_initial_count),
        cmocka_unit_test(oneshot_has_no_shortest_time),
        cmocka_unit_test(trap_58_oneshot_to_periodic),
        cmocka_unit_test(trap_59_periodic_to_oneshot),
        cmocka_unit_test(trap_60_expired_oneshot_to_periodic),
        cmocka_unit_test(deadline_mode_disarms),
        cmocka_unit_test(initial_count_in_deadline_mode),
        cmocka_unit_test(reserved_mode_fires_nothing),
        cmocka_unit_test(changing_the_vector_disturbs_nothing),
        cmocka_unit_test(divisor_change_keeps_the_count),
        cmocka_unit_test(divisor_change_keeps_a_periodic_timer_going),
        cmocka_unit_test(divisor_change_when_stopped),
        cmocka_unit_test(divisor_change_after_expiry),
        cmocka_unit_test(divisor_change_fires_expired_timers_only),
        cmocka_unit_test(masked_timer_counts),
        cmocka_unit_test(masked_expiry),
        cmocka_unit_test(soft_disable),
        cmocka_unit_test(global_disable),
        cmocka_unit_test(init_stops),
        cmocka_unit_test(deadline_of_the_entry),
        cmocka_unit_test(the_host_is_armed),
        cmocka_unit_test(without_arm_callback),
        cmocka_unit_test(timer_expired_reaches_the_vcpu),
        cmocka_unit_test(early_expiry_is_armed_again),
        cmocka_unit_test(masked_tick_wakes_nobody),
        cmocka_unit_test(counts_ticks),
        cmocka_unit_test(arming_is_traced),
        cmocka_unit_test(the_host_is_told_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
