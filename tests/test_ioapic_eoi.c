/* SPDX-License-Identifier: MIT */
/* Ends and troubles of a level-triggered pin: EOI register, nobody accepts, storms. */
#include "ioapic_bench.h"

/* ---- EOI register, directed EOI [IOAPIC 3.1] [SDM3 12.8.5] ---- */

static void eoi_register_ends_a_level_round(void **state)
{
    static const struct {
        uint8_t version;
        uint8_t written;
        bool high, rirr;
        const char *what;
    } rows[] = {
        {0x20, VECTOR, false, false, "clears remote IRR"},
        {0x20, VECTOR, true, true, "and sends again while the line is high"},
        {0x20, VECTOR + 1, false, true, "another vector"},
        {0x11, VECTOR, false, true, "version 11h has no such register"},
    };
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct bench b = begin_with(NULL, 24, rows[n].version);

        fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
        set(&b, true);
        assert_int_equal(fx_take(b.fx, 0), VECTOR);
        if (!rows[n].high)
            set(&b, false);
        vapic_ioapic_write(b.io, IOAPIC_EOIR, 0xFFFFFF00 | rows[n].written, 4);
        fx_equal(rirr(&b), rows[n].rirr, "%s", rows[n].what);
        fx_equal(fx_bit(b.fx, 0, APIC_IRR, VECTOR), rows[n].high, "%s", rows[n].what);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_EOIR, 4), 0, "%s, read", rows[n].what);
        end(&b);
    }
}

static void eoi_register_ignores_edge_entries(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    set(&b, true);
    assert_int_equal(fx_take_eoi(b.fx, 0), VECTOR);
    vapic_ioapic_write(b.io, IOAPIC_EOIR, VECTOR, 4);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void suppressed_broadcast_waits_for_the_eoi_register(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_EOI_SUPPRESS | 0xFF);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take_eoi(b.fx, 0), VECTOR);
    assert_true(rirr(&b));
    assert_int_equal(runs(&b, 0), 0);
    vapic_ioapic_write(b.io, IOAPIC_EOIR, VECTOR, 4);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

/* ---- Nobody accepts ---- */

static void nobody_accepts_leaves_no_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_false(rirr(&b));
    assert_true(vapic_ioapic_entry(b.io, PIN) & IOAPIC_RTE_DS); /* send pending */
    set(&b, false);
    assert_false(vapic_ioapic_entry(b.io, PIN) & IOAPIC_RTE_DS);
    end(&b);
}

/* As Linux: nobody tries again by himself, but line, entry and EOI make it look. */
static void level_that_nobody_accepts_is_forgotten_by_knob(void **state)
{
    struct fx_options options = {
        .soft_disabled = true, .config = {.knobs_set = true, .knobs = VAPIC_KNOB_LEVEL_FORGOTTEN}};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_11);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_false(vapic_ioapic_entry(b.io, PIN) & (IOAPIC_RTE_RIRR | IOAPIC_RTE_DS));
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    assert_true(rirr(&b));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_fires_when_a_vcpu_is_enabled(void **state)
{
    struct fx_options options = {.soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_true(rirr(&b));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_fires_when_a_vcpu_is_added(void **state)
{
    struct fx_options options = {.not_added = true, .soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_int_equal(vapic_add(&b.fx->v[0]), VAPIC_OK);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_fires_when_its_destination_is_rewritten(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_that_went_low_stays_quiet(void **state)
{
    struct fx_options options = {.soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    set(&b, false);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_false(rirr(&b));
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* A change that feeds nobody leaves the pin to the next change. */
static void starved_pin_is_retried_at_every_change(void **state)
{
    struct fx_options options = {.vcpus = 2, .soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 1));
    set(&b, true);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_false(rirr(&b));
    fx_set(b.fx, 1, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(fx_take(b.fx, 1), VECTOR);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* ---- Storms [KVM ioapic] ---- */

/* The handler runs `n` times; the device never lowers its line. */
static void eois(struct bench *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(fx_take_eoi(b->fx, 0), VECTOR);
}

static void trap_82_storm_makes_a_pause_and_goes_on(void **state)
{
    struct bench b = begin(1);
    struct fx_event pause;
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    for (int round = 0; round < 2; round++) { /* the count restarts */
        eois(&b, 9999);
        assert_int_equal(fx_count(b.fx, FX_DELAY), 0);
        fx_forget(b.fx); /* the log is full of EOIs */
        eois(&b, 1);
        assert_int_equal(fx_count(b.fx, FX_DELAY), 1);
        pause = fx_nth(b.fx, FX_DELAY, 0);
        assert_int_equal(pause.a, PIN);
        assert_int_equal(pause.b, 10000000);
        assert_ptr_equal(pause.io, b.io);
        assert_int_equal(fx_take(b.fx, 0), -1); /* the guest makes progress */
        assert_false(rirr(&b));
        vapic_ioapic_resume(b.io, PIN);
        fx_forget(b.fx);
    }
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void an_eoi_with_the_line_low_restarts_the_storm_count(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 9999);
    set(&b, false);
    eois(&b, 1);
    set(&b, true);
    eois(&b, 9999);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 0);
    eois(&b, 1);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 1);
    end(&b);
}

static void a_masked_eoi_restarts_the_storm_count(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 9998);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | MASKED, 0));
    eois(&b, 1);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    eois(&b, 9999);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 0);
    end(&b);
}

static void resume_after_the_line_went_low_does_nothing(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 10000);
    set(&b, false);
    vapic_ioapic_resume(b.io, PIN);
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    end(&b);
}

static void a_rise_during_the_pause_fires_at_once(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 10000);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 1, true), 1);
    vapic_ioapic_resume(b.io, PIN);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void resume_from_inside_the_callback(struct fx *fx, struct vapic_ioapic *io, uint32_t pin)
{
    (void)fx;
    vapic_ioapic_resume(io, pin);
}

static void the_host_may_resume_inside_the_callback(void **state)
{
    struct bench b = begin(1);
    (void)state;

    b.fx->on_delay = resume_from_inside_the_callback;
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 10000);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 1);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void without_the_callback_there_is_no_pause(void **state)
{
    struct fx_options options = {.no_optional = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 20001);
    end(&b);
}

/* ---- Who is told ---- */

static void a_running_target_is_kicked(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    fx_peek(b.fx, 0, VAPIC_CAN_IRQ | VAPIC_IF); /* in the guest from here on */
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(fx_count(b.fx, FX_NOTIFY), 1);
    assert_int_equal(fx_nth(b.fx, FX_NOTIFY, 0).a, VAPIC_ACTION_KICK);
    end(&b);
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(eoi_register_ends_a_level_round),
        TEST(eoi_register_ignores_edge_entries),
        TEST(suppressed_broadcast_waits_for_the_eoi_register),
        TEST(nobody_accepts_leaves_no_remote_irr),
        TEST(level_that_nobody_accepts_is_forgotten_by_knob),
        TEST(starved_pin_fires_when_a_vcpu_is_enabled),
        TEST(starved_pin_fires_when_a_vcpu_is_added),
        TEST(starved_pin_fires_when_its_destination_is_rewritten),
        TEST(starved_pin_that_went_low_stays_quiet),
        TEST(starved_pin_is_retried_at_every_change),
        TEST(trap_82_storm_makes_a_pause_and_goes_on),
        TEST(an_eoi_with_the_line_low_restarts_the_storm_count),
        TEST(a_masked_eoi_restarts_the_storm_count),
        TEST(resume_after_the_line_went_low_does_nothing),
        TEST(a_rise_during_the_pause_fires_at_once),
        TEST(the_host_may_resume_inside_the_callback),
        TEST(without_the_callback_there_is_no_pause),
        TEST(a_running_target_is_kicked),
    };

    return cmocka_run_group_tests_name("ioapic_eoi", tests, NULL, NULL);
}
