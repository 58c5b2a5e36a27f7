/* SPDX-License-Identifier: MIT */
/*
 * End of interrupt: which vector it retires, who is told, what AMD's specific EOI and interrupt
 * enables change. [SDM3 12.8.5] [APM2 16.7.1]
 */
#include "fixture.h"

#define EXTENDED (VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT)

static struct fx *with_knobs(uint32_t knobs)
{
    return fx_new(&(struct fx_options){.config = {.knobs = knobs, .knobs_set = true}});
}

static void start(struct fx *fx, uint8_t vector, bool level)
{
    vapic_post(&fx->v[0], vector, level, NULL);
    assert_int_equal(fx_take(fx, 0), vector);
}

/* The highest bit of ISR goes, not the vector of the handler that runs. */
static void trap_35_eoi_clears_the_highest(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(&(struct fx_options){.x2apic = x2apic != 0});

        start(fx, 0x31, false);
        start(fx, 0x51, false);
        start(fx, 0x91, false);
        fx_eoi(fx, 0);
        assert_false(fx_bit(fx, 0, APIC_ISR, 0x91));
        assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
        fx_eoi(fx, 0);
        assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
        assert_true(fx_bit(fx, 0, APIC_ISR, 0x31));
        fx_free(fx);
    }
}

static void eoi_without_service(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_stats stats;

    (void)state;
    vapic_post(&fx->v[0], 0x51, true, NULL);
    for (int n = 0; n < 300; n++)
        fx_eoi(fx, 0);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.eois, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void every_vector_retires(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t vector = 16; vector < 256; vector++) {
        start(fx, (uint8_t)vector, true);
        fx_forget(fx);
        fx_eoi(fx, 0);
        fx_equal(fx_count(fx, FX_EOI), 1, "EOIs of %x", vector);
        fx_equal(fx_nth(fx, FX_EOI, 0).a, vector, "vector of the EOI");
        fx_equal(fx_nth(fx, FX_EOI, 0).vcpu, 0, "vCPU of the EOI");
        fx_equal(fx_get(fx, 0, APIC_PPR), 0, "PPR after %x", vector);
    }
    fx_free(fx);
}

/* TMR decides whether the EOI is broadcast. */
static void edge_is_not_broadcast(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_stats stats;

    (void)state;
    start(fx, 0x51, false);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.eois, 1);
    assert_int_equal(stats.eois_broadcast, 0);
    fx_free(fx);
}

static void level_is_broadcast(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_stats stats;

    (void)state;
    start(fx, 0x51, true);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.eois, 1);
    assert_int_equal(stats.eois_broadcast, 1);
    fx_free(fx);
}

static void eoi_by_other_means(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    start(fx, 0x51, true);
    vapic_eoi(&fx->v[0]);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    vapic_eoi(&fx->v[0]);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    fx_free(fx);
}

/* SVR[12]: the guest tells the I/O APIC itself. [SDM3 12.8.5] */
static void suppressed_broadcast(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0x11FF);
    start(fx, 0x51, true);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    start(fx, 0x51, true);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    fx_free(fx);
}

/* A host whose I/O APIC knows nothing of directed EOIs still wants to see them. */
static void trap_83_split_ignores_suppression(void **state)
{
    struct fx *fx = with_knobs(VAPIC_PROFILE_MANUAL | VAPIC_KNOB_SPLIT_IGNORES_SUPPRESS);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0x11FF);
    start(fx, 0x51, true);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    fx_free(fx);
}

/* A level-triggered IPI sets TMR, and nobody needs to own its vector. [APM2 16.5] */
static void trap_56_level_ipi(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);

    (void)state;
    fx_icr(fx, 0, APIC_ICR_LEVEL | APIC_ICR_ASSERT | 0x51, 0);
    assert_int_equal(fx_take(fx, 0), 0x51);
    assert_true(fx_bit(fx, 0, APIC_TMR, 0x51));
    fx_eoi(fx, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
    fx_ioapic_free(io);
}

static void optional_callback_may_be_missing(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.no_optional = true});

    (void)state;
    start(fx, 0x51, true);
    fx_eoi(fx, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

static void ppr_falls_to_the_next_in_service(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    start(fx, 0x31, false);
    start(fx, 0x91, false);
    fx_eoi(fx, 0);
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0x30);
    fx_set(fx, 0, APIC_TPR, 0x45);
    fx_eoi(fx, 0);
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0x45);
    fx_free(fx);
}

/* ---- AMD's extended space [APM2 16.7.1] ---- */

static struct fx *extended(bool x2apic)
{
    return fx_new(&(struct fx_options){.features = EXTENDED, .x2apic = x2apic});
}

/* [APM2 16.7.1] */
static void specific_eoi_out_of_order(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = extended(x2apic != 0);

        fx_set(fx, 0, APIC_EACR, APIC_EXT_SEOI);
        start(fx, 0x31, true);
        start(fx, 0x51, true);
        fx_set(fx, 0, APIC_SEOI, 0x31);
        assert_false(fx_bit(fx, 0, APIC_ISR, 0x31));
        assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
        assert_int_equal(fx_count(fx, FX_EOI), 1);
        assert_int_equal(fx_nth(fx, FX_EOI, 0).a, 0x31);
        fx_free(fx);
    }
}

static void specific_eoi_of_nothing(void **state)
{
    struct fx *fx = extended(false);

    (void)state;
    fx_set(fx, 0, APIC_EACR, APIC_EXT_SEOI);
    start(fx, 0x51, true);
    fx_set(fx, 0, APIC_SEOI, 0x52);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    fx_free(fx);
}

static void specific_eoi_must_be_enabled(void **state)
{
    struct fx *fx = extended(false);

    (void)state;
    start(fx, 0x51, false);
    fx_set(fx, 0, APIC_SEOI, 0x51);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* A vector whose enable bit is clear waits in IRR. [APM2 16.7.2] */
static void interrupt_enable_holds_a_vector(void **state)
{
    struct fx *fx = extended(false);

    (void)state;
    fx_set(fx, 0, APIC_EACR, APIC_EXT_IER);
    fx_set(fx, 0, APIC_IER + 0x20, ~(1u << 0x11));
    vapic_post(&fx->v[0], 0x51, false, NULL);
    vapic_post(&fx->v[0], 0x41, false, NULL);
    assert_true(fx_bit(fx, 0, APIC_IRR, 0x51));
    assert_int_equal(fx_take_eoi(fx, 0), 0x41);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_set(fx, 0, APIC_IER + 0x20, 0xFFFFFFFF);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void interrupt_enable_must_be_enabled(void **state)
{
    struct fx *fx = extended(false);

    (void)state;
    fx_set(fx, 0, APIC_IER + 0x20, 0);
    vapic_post(&fx->v[0], 0x51, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void interrupt_enable_of_every_word(void **state)
{
    (void)state;
    for (uint32_t word = 1; word < 8; word++) {
        struct fx *fx = extended(false);
        uint8_t vector = (uint8_t)(word * 32 + 7);

        fx_set(fx, 0, APIC_EACR, APIC_EXT_IER);
        fx_set(fx, 0, APIC_IER + 16 * word, 0);
        vapic_post(&fx->v[0], vector, false, NULL);
        fx_equal(fx_take(fx, 0), (uint64_t)-1, "vector %x, disabled", vector);
        fx_set(fx, 0, APIC_IER + 16 * word, 1u << 7);
        fx_equal(fx_take(fx, 0), vector, "vector %x, enabled", vector);
        fx_free(fx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trap_35_eoi_clears_the_highest),
        cmocka_unit_test(eoi_without_service),
        cmocka_unit_test(every_vector_retires),
        cmocka_unit_test(edge_is_not_broadcast),
        cmocka_unit_test(level_is_broadcast),
        cmocka_unit_test(eoi_by_other_means),
        cmocka_unit_test(suppressed_broadcast),
        cmocka_unit_test(trap_83_split_ignores_suppression),
        cmocka_unit_test(trap_56_level_ipi),
        cmocka_unit_test(optional_callback_may_be_missing),
        cmocka_unit_test(ppr_falls_to_the_next_in_service),
        cmocka_unit_test(specific_eoi_out_of_order),
        cmocka_unit_test(specific_eoi_of_nothing),
        cmocka_unit_test(specific_eoi_must_be_enabled),
        cmocka_unit_test(interrupt_enable_holds_a_vector),
        cmocka_unit_test(interrupt_enable_must_be_enabled),
        cmocka_unit_test(interrupt_enable_of_every_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
