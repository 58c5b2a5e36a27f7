/* SPDX-License-Identifier: MIT */
/* The TSC-deadline timer and its MSR 6E0h. [SDM3 12.5.4.1] */
#include "fixture.h"

#define VECTOR   0x31
#define DEADLINE (APIC_TIMER_DEADLINE | VECTOR)

static struct fx *new_fx(void)
{
    struct fx *fx = fx_new(NULL);

    fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
    return fx;
}

static void arm(struct fx *fx, uint64_t tsc)
{
    assert_int_equal(fx_wrmsr(fx, 0, MSR_TSC_DEADLINE, tsc), VAPIC_OK);
}

static uint64_t msr(struct fx *fx)
{
    uint64_t value = UINT64_C(0xA5A5A5A5A5A5A5A5);

    assert_int_equal(fx_rdmsr(fx, 0, MSR_TSC_DEADLINE, &value), VAPIC_OK);
    return value;
}

static bool fires(struct fx *fx)
{
    return fx_take_eoi(fx, 0) == VECTOR;
}

/* ---- The MSR ---- */

static void inert_in_other_modes(void **state)
{
    static const uint32_t modes[] = {APIC_TIMER_ONESHOT, APIC_TIMER_PERIODIC, 3u << 17};

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct fx *fx = fx_new(NULL);

        fx_set(fx, 0, APIC_LVT_TIMER, modes[n] | VECTOR);
        arm(fx, fx->now.tsc + 10);
        fx_equal(msr(fx), 0, "mode %x", modes[n]);
        fx->now.tsc += 100;
        fx_equal(fires(fx), false, "mode %x", modes[n]);
        fx_free(fx);
    }
}

static void inert_without_the_feature(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.no_features = true});

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
    assert_int_equal(fx_get(fx, 0, APIC_LVT_TIMER), VECTOR);
    arm(fx, fx->now.tsc + 10);
    assert_int_equal(msr(fx), 0);
    fx_free(fx);
}

static void reads_what_was_armed(void **state)
{
    struct fx *fx = new_fx();
    uint64_t when = fx->now.tsc + 1000;

    (void)state;
    assert_int_equal(msr(fx), 0);
    arm(fx, when);
    assert_int_equal(msr(fx), when);
    fx_free(fx);
}

/* ---- Expiry ---- */

static void trap_64_not_before_the_deadline(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(&(struct fx_options){.x2apic = x2apic != 0});

        fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
        arm(fx, fx->now.tsc + 1000);
        fx->now.ns += 1000000000;
        assert_false(fires(fx));
        fx->now.tsc += 999;
        assert_false(fires(fx));
        fx->now.tsc += 1;
        assert_true(fires(fx));
        fx->now.tsc += 10000;
        assert_false(fires(fx));
        fx_free(fx);
    }
}

static void trap_61_in_the_past(void **state)
{
    static const int64_t offsets[] = {0, -1, -999999};

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct fx *fx = new_fx();

        arm(fx, fx->now.tsc + (uint64_t)offsets[n]);
        fx_equal(fires(fx), true, "row %u", n);
        fx_equal(fires(fx), false, "row %u, again", n);
        fx_equal(msr(fx), 0, "row %u, MSR", n);
        fx_free(fx);
    }
}

static void reads_zero_after_expiry(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    arm(fx, fx->now.tsc + 1000);
    fx->now.tsc += 1000;
    assert_true(fires(fx));
    assert_int_equal(msr(fx), 0);
    fx_free(fx);
}

static void zero_disarms(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    arm(fx, fx->now.tsc + 1000);
    arm(fx, 0);
    assert_int_equal(msr(fx), 0);
    fx->now.tsc += 10000;
    assert_false(fires(fx));
    fx_free(fx);
}

static void second_write_replaces(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    arm(fx, fx->now.tsc + 1000);
    arm(fx, fx->now.tsc + 3000);
    fx->now.tsc += 2999;
    assert_false(fires(fx));
    fx->now.tsc += 1;
    assert_true(fires(fx));
    assert_false(fires(fx));
    fx_free(fx);
}

static void far_future(void **state)
{
    struct fx *fx = new_fx();
    struct vapic_deadline deadline;

    (void)state;
    arm(fx, UINT64_MAX);
    assert_int_equal(msr(fx), UINT64_MAX);
    deadline = fx_step(fx, 0, 0).deadline;
    assert_int_equal(deadline.clock, VAPIC_CLOCK_TSC);
    assert_int_equal(deadline.when, UINT64_MAX);
    fx->now.tsc = UINT64_C(1) << 63;
    assert_false(fires(fx));
    fx_free(fx);
}

/* The comparison is unsigned. */
static void deadline_with_the_top_bit(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    arm(fx, UINT64_C(1) << 63 | 5);
    assert_false(fires(fx));
    fx->now.tsc = UINT64_C(1) << 63 | 5;
    assert_true(fires(fx));
    fx_free(fx);
}

/* The deadline is on the guest's clock, wherever that jumps. */
static void trap_69_tsc_written_while_armed(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    arm(fx, fx->now.tsc + 1000);
    fx->now.tsc -= 500000;
    fx->now.ns += 1000000;
    assert_false(fires(fx));
    fx->now.tsc += 500999;
    assert_false(fires(fx));
    fx->now.tsc += 5000000;
    assert_true(fires(fx));
    fx_free(fx);
}

static void no_tsc_no_expiry(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    fx->now.tsc = 0;
    arm(fx, 1000);
    fx->now.ns += UINT64_C(1000000000000);
    assert_false(fires(fx));
    fx_free(fx);
}

/* ---- Modes ---- */

static void trap_62_mode_change_disarms(void **state)
{
    static const uint32_t modes[] = {APIC_TIMER_ONESHOT, APIC_TIMER_PERIODIC};

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        struct fx *fx = new_fx();

        arm(fx, fx->now.tsc + 1000);
        fx_set(fx, 0, APIC_LVT_TIMER, modes[n] | VECTOR);
        assert_int_equal(fx_get(fx, 0, APIC_TMICT), 0);
        assert_int_equal(msr(fx), 0);
        fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
        assert_int_equal(msr(fx), 0);
        fx->now.tsc += 10000;
        fx->now.ns += 10000;
        assert_false(fires(fx));
        fx_free(fx);
    }
}

static void rewriting_the_entry_keeps_the_deadline(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    arm(fx, fx->now.tsc + 1000);
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | DEADLINE);
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | 0x32);
    fx->now.tsc += 1000;
    assert_int_equal(fx_take(fx, 0), 0x32);
    fx_free(fx);
}

static void masked_expiry(void **state)
{
    (void)state;
    for (int remember = 0; remember < 2; remember++) {
        struct fx *fx = fx_new(&(struct fx_options){
            .config = {.knobs =
                           VAPIC_PROFILE_MANUAL | (remember ? VAPIC_KNOB_REMEMBER_MASKED_TICK : 0),
                       .knobs_set = true}});

        fx_set(fx, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | DEADLINE);
        arm(fx, fx->now.tsc + 1000);
        fx->now.tsc += 2000;
        assert_false(fires(fx));
        if (!remember)
            assert_int_equal(msr(fx), 0);
        fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
        assert_int_equal(fires(fx), remember);
        assert_int_equal(msr(fx), 0);
        fx_free(fx);
    }
}

static void soft_disable_keeps_the_deadline(void **state)
{
    struct fx *fx = new_fx();
    uint64_t when = fx->now.tsc + 1000;

    (void)state;
    arm(fx, when);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    assert_int_equal(msr(fx), when);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
    fx->now.tsc += 1000;
    assert_true(fires(fx));
    fx_free(fx);
}

static void init_and_reset_disarm(void **state)
{
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        struct fx *fx = new_fx();

        arm(fx, fx->now.tsc + 1000);
        if (reset)
            vapic_reset(&fx->v[0]);
        else
            fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0);
        fx_settle(fx);
        fx_set(fx, 0, APIC_SVR, 0x1FF);
        fx_set(fx, 0, APIC_LVT_TIMER, DEADLINE);
        assert_int_equal(msr(fx), 0);
        fx->now.tsc += 10000;
        assert_false(fires(fx));
        fx_free(fx);
    }
}

/* ---- What the host sees ---- */

static void the_host_gets_guest_tsc_units(void **state)
{
    struct fx *fx = new_fx();
    struct fx_event event;

    (void)state;
    arm(fx, fx->now.tsc + 1000);
    assert_int_equal(fx_step(fx, 0, 0).deadline.clock, VAPIC_CLOCK_TSC);
    event = fx_nth(fx, FX_ARM, fx_count(fx, FX_ARM) - 1);
    assert_int_equal(event.a, VAPIC_CLOCK_TSC);
    assert_int_equal(event.b, fx->now.tsc + 1000);
    fx->now.tsc += 1000;
    assert_true(fires(fx));
    assert_int_equal(fx_step(fx, 0, 0).deadline.clock, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

static void counts_ticks(void **state)
{
    struct fx *fx = new_fx();
    struct vapic_stats stats;

    (void)state;
    for (int n = 0; n < 3; n++) {
        arm(fx, fx->now.tsc + 10);
        fx->now.tsc += 10;
        assert_true(fires(fx));
    }
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.timer_ticks, 3);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inert_in_other_modes),
        cmocka_unit_test(inert_without_the_feature),
        cmocka_unit_test(reads_what_was_armed),
        cmocka_unit_test(trap_64_not_before_the_deadline),
        cmocka_unit_test(trap_61_in_the_past),
        cmocka_unit_test(reads_zero_after_expiry),
        cmocka_unit_test(zero_disarms),
        cmocka_unit_test(second_write_replaces),
        cmocka_unit_test(far_future),
        cmocka_unit_test(deadline_with_the_top_bit),
        cmocka_unit_test(trap_69_tsc_written_while_armed),
        cmocka_unit_test(no_tsc_no_expiry),
        cmocka_unit_test(trap_62_mode_change_disarms),
        cmocka_unit_test(rewriting_the_entry_keeps_the_deadline),
        cmocka_unit_test(masked_expiry),
        cmocka_unit_test(soft_disable_keeps_the_deadline),
        cmocka_unit_test(init_and_reset_disarm),
        cmocka_unit_test(the_host_gets_guest_tsc_units),
        cmocka_unit_test(counts_ticks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
