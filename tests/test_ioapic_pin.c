/* SPDX-License-Identifier: MIT */
/* The state machine of an I/O APIC pin: edges, levels, remote IRR [IOAPIC 3.2.4]. */
#include "ioapic_bench.h"

/* ---- Edge ---- */

static void edge_fires_on_each_rise_and_never_sets_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(set(&b, true), 1);
    assert_false(rirr(&b));
    assert_int_equal(runs(&b, 0), 1);
    assert_int_equal(set(&b, false), 0);
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    end(&b);
}

static void edge_needs_a_fall_before_the_next_rise(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    assert_int_equal(set(&b, true), 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void edge_rise_onto_a_pending_vector_coalesces(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(set(&b, true), 1);
    set(&b, false);
    assert_int_equal(set(&b, true), 0);
    assert_int_equal(runs(&b, 0), 1);
    end(&b);
}

static void shared_edge_line_rises_once(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 3, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 4, true), 0);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 3, false), 0);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 3, true), 0); /* 4 held it high */
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* [IOAPIC 3.2.4], mask: an edge that comes while masked is not remembered. */
static void trap_76_masked_edge_is_lost(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | MASKED, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    set(&b, false);
    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    end(&b);
}

static void edge_high_through_the_unmask_does_not_fire(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | MASKED, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(runs(&b, 0), 0);
    set(&b, false);
    assert_int_equal(set(&b, true), 1);
    end(&b);
}

static void edge_that_nobody_accepts_is_gone(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* ---- Level ---- */

static void level_remote_irr_is_set_until_the_eoi(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_false(rirr(&b));
    assert_int_equal(set(&b, true), 1);
    assert_true(rirr(&b));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    assert_true(rirr(&b));
    set(&b, false);
    assert_true(rirr(&b));
    fx_eoi(b.fx, 0);
    assert_false(rirr(&b));
    end(&b);
}

static void level_rise_during_service_is_blocked(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 1, true), VAPIC_GSI_BLOCKED);
    end(&b);
}

static void shared_level_line_stays_high_until_the_last_source(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    vapic_ioapic_set(b.io, PIN, 0, true);
    vapic_ioapic_set(b.io, PIN, 15, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    vapic_ioapic_set(b.io, PIN, 0, false);
    fx_eoi(b.fx, 0); /* 15 still holds it */
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    vapic_ioapic_set(b.io, PIN, 15, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(fx_take(b.fx, 0), -1);
    end(&b);
}

/* [IOAPIC 3.2.4] [SDM3 12.8.5] */
static void trap_71_edge_pulse_and_level_run_once_each(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    set(&b, true);
    set(&b, false);
    assert_int_equal(runs(&b, 0), 1);

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_72_lower_raise_lower_in_the_handler_runs_once(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    set(&b, true);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_73_raised_again_after_service_runs_again(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    for (int n = 0; n < 2; n++) {
        assert_int_equal(set(&b, true), 1);
        assert_int_equal(fx_take(b.fx, 0), VECTOR);
        set(&b, false);
        fx_eoi(b.fx, 0);
        assert_int_equal(runs(&b, 0), 0);
    }
    end(&b);
}

/* The vCPU sleeps in HLT with interrupts on when the EOI's re-delivery must wake it. */
static void trap_74_line_left_high_at_eoi_runs_again(void **state)
{
    struct bench b = begin(1);
    struct vapic_entry entry;
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    fx_eoi(b.fx, 0);
    vapic_halt(&b.fx->v[0]);
    entry = fx_peek(b.fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);
    assert_true(entry.runnable);
    assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_75_masked_in_the_handler_runs_again_at_unmask(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL | MASKED);
    fx_eoi(b.fx, 0);
    assert_false(rirr(&b));
    assert_int_equal(runs(&b, 0), 0);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_77_masked_level_fires_at_unmask(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | MASKED, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_int_equal(runs(&b, 0), 0);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void masked_level_lowered_before_the_unmask_is_gone(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | MASKED, 0));
    set(&b, true);
    set(&b, false);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* [SDM3 12.8.4]: TMR follows the message that was accepted last, not the entry. */
static void trap_78_tmr_follows_the_message_not_the_entry(void **state)
{
    static const uint32_t triggers[] = {0, LEVEL};
    (void)state;

    for (int first = 0; first < 2; first++) {
        struct bench b = begin(2);

        for (uint32_t cpu = 0; cpu < 2; cpu++) {
            fx_rte_write(b.io, PIN, rte(VECTOR | triggers[first], (uint8_t)cpu));
            set(&b, true);
            assert_int_equal(fx_take(b.fx, cpu), VECTOR);
            set(&b, false);
            fx_eoi(b.fx, cpu);
            fx_equal(fx_bit(b.fx, cpu, APIC_TMR, VECTOR), first, "first on %u", cpu);
            fx_rte_write(b.io, PIN, rte(VECTOR | triggers[!first], (uint8_t)cpu));
            fx_equal(fx_bit(b.fx, cpu, APIC_TMR, VECTOR), first, "entry written, %u", cpu);
            set(&b, true);
            assert_int_equal(fx_take(b.fx, cpu), VECTOR);
            fx_equal(fx_bit(b.fx, cpu, APIC_TMR, VECTOR), !first, "in the handler, %u", cpu);
            set(&b, false);
            fx_eoi(b.fx, cpu);
        }
        end(&b);
    }
}

/* 64h in service and 84h pending on CPU 0 when both are sent to CPU 1: the EOIs still count. */
static void trap_79_destination_rewritten_before_the_eoi(void **state)
{
    struct bench b = begin(2);
    struct vapic_entry entry;
    (void)state;

    fx_rte_write(b.io, 1, rte(0x64 | LEVEL, 0));
    fx_rte_write(b.io, 2, rte(0x84 | LEVEL, 0));
    vapic_ioapic_set(b.io, 1, 0, true);
    assert_int_equal(fx_take(b.fx, 0), 0x64);
    vapic_ioapic_set(b.io, 2, 0, true);
    vapic_ioapic_set(b.io, 1, 0, false);
    vapic_ioapic_set(b.io, 2, 0, false);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * 1 + 1, 0x01000000);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * 2 + 1, 0x01000000);
    assert_true(vapic_ioapic_entry(b.io, 1) & RIRR);
    assert_true(vapic_ioapic_entry(b.io, 2) & RIRR);
    fx_eoi(b.fx, 0);
    assert_false(vapic_ioapic_entry(b.io, 1) & RIRR);
    entry = fx_peek(b.fx, 0, 0); /* IF = 0: it waits */
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_int_equal(fx_take_eoi(b.fx, 0), 0x84);
    assert_false(vapic_ioapic_entry(b.io, 2) & RIRR);
    assert_int_equal(runs(&b, 1), 0);
    end(&b);
}

/* [SDM3 12.12.10.2] */
static void trap_80_physical_one_and_logical_three_of_four(void **state)
{
    struct fx_options options = {.vcpus = 4, .x2apic = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 1));
    assert_int_equal(set(&b, true), 1);
    set(&b, false);
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        fx_equal(runs(&b, cpu), cpu == 1, "physical, vCPU %u", cpu);

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | LOGICAL, 0x0D));
    assert_int_equal(set(&b, true), 3);
    set(&b, false);
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        fx_equal(runs(&b, cpu), cpu != 1, "logical, vCPU %u", cpu);
    assert_false(rirr(&b));
    end(&b);
}

/* How guests get rid of a stuck remote IRR without an EOI register. */
static void trap_81_edge_trick_clears_remote_irr(void **state)
{
    static const bool highs[] = {false, true};
    (void)state;

    for (size_t n = 0; n < 2; n++) {
        struct bench b = begin_with(NULL, 24, IOAPIC_VERSION_11);

        fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
        set(&b, true);
        assert_int_equal(fx_take(b.fx, 0), VECTOR);
        if (!highs[n])
            set(&b, false);
        fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | MASKED);
        assert_false(rirr(&b));
        fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL);
        fx_equal(rirr(&b), highs[n], "line %d", highs[n]);
        fx_equal(fx_bit(b.fx, 0, APIC_IRR, VECTOR), highs[n], "line %d", highs[n]);
        end(&b);
    }
}

static void vector_rewritten_in_service_keeps_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    fx_rte_write(b.io, PIN, rte(0x61 | LEVEL, 0));
    fx_eoi(b.fx, 0);
    assert_true(rirr(&b));
    vapic_broadcast_eoi(&b.fx->vm, 0x61); /* an EOI of the new vector */
    assert_int_equal(fx_take_eoi(b.fx, 0), 0x61);
    end(&b);
}

static void eoi_reaches_every_pin_with_the_vector(void **state)
{
    struct bench b = begin(1);
    struct vapic_ioapic *second;
    (void)state;

    second = fx_ioapic(b.fx, 8, 24, IOAPIC_VERSION_11);
    fx_rte_write(b.io, 1, rte(VECTOR | LEVEL, 0));
    fx_rte_write(b.io, 23, rte(VECTOR | LEVEL, 0));
    fx_rte_write(second, 7, rte(VECTOR | LEVEL, 0));
    vapic_ioapic_set(b.io, 1, 0, true);
    vapic_ioapic_set(b.io, 23, 0, true);
    vapic_ioapic_set(second, 7, 0, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    vapic_ioapic_set(b.io, 1, 0, false);
    vapic_ioapic_set(b.io, 23, 0, false);
    vapic_ioapic_set(second, 7, 0, false);
    fx_eoi(b.fx, 0);
    assert_false(vapic_ioapic_entry(b.io, 1) & RIRR);
    assert_false(vapic_ioapic_entry(b.io, 23) & RIRR);
    assert_false(vapic_ioapic_entry(second, 7) & RIRR);
    end(&b);
    fx_ioapic_free(second);
}

static void eoi_of_an_edge_message_leaves_remote_irr(void **state)
{
    struct bench b = begin(2);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    set(&b, false);
    vapic_msi(&b.fx->vm, 0xFEE01000, VECTOR); /* edge, to the other vCPU */
    assert_int_equal(fx_take_eoi(b.fx, 1), VECTOR);
    assert_true(rirr(&b));
    end(&b);
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(edge_fires_on_each_rise_and_never_sets_remote_irr),
        TEST(edge_needs_a_fall_before_the_next_rise),
        TEST(edge_rise_onto_a_pending_vector_coalesces),
        TEST(shared_edge_line_rises_once),
        TEST(trap_76_masked_edge_is_lost),
        TEST(edge_high_through_the_unmask_does_not_fire),
        TEST(edge_that_nobody_accepts_is_gone),
        TEST(level_remote_irr_is_set_until_the_eoi),
        TEST(level_rise_during_service_is_blocked),
        TEST(shared_level_line_stays_high_until_the_last_source),
        TEST(trap_71_edge_pulse_and_level_run_once_each),
        TEST(trap_72_lower_raise_lower_in_the_handler_runs_once),
        TEST(trap_73_raised_again_after_service_runs_again),
        TEST(trap_74_line_left_high_at_eoi_runs_again),
        TEST(trap_75_masked_in_the_handler_runs_again_at_unmask),
        TEST(trap_77_masked_level_fires_at_unmask),
        TEST(masked_level_lowered_before_the_unmask_is_gone),
        TEST(trap_78_tmr_follows_the_message_not_the_entry),
        TEST(trap_79_destination_rewritten_before_the_eoi),
        TEST(trap_80_physical_one_and_logical_three_of_four),
        TEST(trap_81_edge_trick_clears_remote_irr),
        TEST(vector_rewritten_in_service_keeps_remote_irr),
        TEST(eoi_reaches_every_pin_with_the_vector),
        TEST(eoi_of_an_edge_message_leaves_remote_irr),
    };

    return cmocka_run_group_tests_name("ioapic_pin", tests, NULL, NULL);
}
