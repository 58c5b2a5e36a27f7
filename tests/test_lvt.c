/* SPDX-License-Identifier: MIT */
/*
 * The local vector table: masks, delivery modes, the LINT inputs as edges and levels, ExtINT, the
 * performance counter's mask, CMCI and AMD's extended entries. [SDM3 12.5.1] [APM2 16.4.5]
 */
#include "fixture.h"

static const uint32_t entries[] = {APIC_LVT_CMCI,  APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PMC,
                                   APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};

#define ENTRIES (sizeof(entries) / sizeof(entries[0]))

static struct fx *new_fx(uint32_t features)
{
    return fx_new(&(struct fx_options){.features = features});
}

/* ---- Masks and the software enable bit [SDM3 12.4.7.2] ---- */

static void soft_disable_masks_every_entry(void **state)
{
    struct fx *fx = new_fx(VAPIC_FEATURE_CMCI);

    (void)state;
    for (uint32_t n = 0; n < ENTRIES; n++)
        fx_set(fx, 0, entries[n], 0x31 + n);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    for (uint32_t n = 0; n < ENTRIES; n++)
        fx_equal(fx_get(fx, 0, entries[n]), APIC_LVT_MASKED | (0x31 + n), "entry %x", entries[n]);
    fx_free(fx);
}

static void soft_disabled_entries_stay_masked(void **state)
{
    struct fx *fx = new_fx(VAPIC_FEATURE_CMCI);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0xFF);
    for (uint32_t n = 0; n < ENTRIES; n++) {
        fx_set(fx, 0, entries[n], 0x41 + n);
        fx_equal(fx_get(fx, 0, entries[n]), APIC_LVT_MASKED | (0x41 + n), "entry %x", entries[n]);
    }
    fx_free(fx);
}

static void enabling_unmasks_nothing(void **state)
{
    struct fx *fx = new_fx(VAPIC_FEATURE_CMCI);

    (void)state;
    for (uint32_t n = 0; n < ENTRIES; n++)
        fx_set(fx, 0, entries[n], 0x31);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    for (uint32_t n = 0; n < ENTRIES; n++)
        fx_equal(fx_get(fx, 0, entries[n]), APIC_LVT_MASKED | 0x31, "entry %x", entries[n]);
    fx_free(fx);
}

/* ---- Delivery mode by source ---- */

struct outcome {
    uint32_t mode;
    enum vapic_inject inject;
    enum vapic_cpu_event event;
};

static const struct outcome lint_modes[] = {
    {APIC_DM_FIXED, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE},
    {APIC_DM_SMI, VAPIC_INJECT_SMI, VAPIC_CPU_NONE},
    {APIC_DM_NMI, VAPIC_INJECT_NMI, VAPIC_CPU_NONE},
    {APIC_DM_INIT, VAPIC_INJECT_NONE, VAPIC_CPU_INIT},
    {APIC_DM_EXTINT, VAPIC_INJECT_EXTINT, VAPIC_CPU_NONE},
    {APIC_DM_LOWEST, VAPIC_INJECT_NONE, VAPIC_CPU_NONE}, /* reserved codes */
    {APIC_DM_REMOTE, VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
    {APIC_DM_SIPI, VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
};

#define LINT_MODES (sizeof(lint_modes) / sizeof(lint_modes[0]))

static void check(struct vapic_entry entry, const struct outcome *expected, const char *text)
{
    fx_equal(entry.inject, expected->inject, "%s, mode %x: inject", text, expected->mode);
    fx_equal(entry.event, expected->event, "%s, mode %x: event", text, expected->mode);
    if (expected->inject == VAPIC_INJECT_VECTOR)
        fx_equal(entry.vector, 0x51, "%s, mode %x: vector", text, expected->mode);
}

static void lint_delivery_modes(void **state)
{
    (void)state;
    for (unsigned pin = 0; pin < 2; pin++) {
        for (uint32_t n = 0; n < LINT_MODES; n++) {
            struct fx *fx = new_fx(0);

            fx_set(fx, 0, APIC_LVT_LINT0 + 16 * pin, lint_modes[n].mode | 0x51);
            vapic_set_lint(&fx->v[0], pin, true);
            check(fx_step(fx, 0, FX_CAN_ALL), &lint_modes[n], pin ? "LINT1" : "LINT0");
            fx_free(fx);
        }
    }
}

static void masked_lint_delivers_nothing(void **state)
{
    static const struct outcome nothing = {0, VAPIC_INJECT_NONE, VAPIC_CPU_NONE};

    (void)state;
    for (unsigned pin = 0; pin < 2; pin++) {
        for (uint32_t n = 0; n < LINT_MODES; n++) {
            struct fx *fx = new_fx(0);

            fx_set(fx, 0, APIC_LVT_LINT0 + 16 * pin, APIC_LVT_MASKED | lint_modes[n].mode | 0x51);
            vapic_set_lint(&fx->v[0], pin, true);
            check(fx_step(fx, 0, FX_CAN_ALL), &nothing, "masked");
            fx_free(fx);
        }
    }
}

static const struct outcome event_modes[] = {
    {APIC_DM_FIXED, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE},
    {APIC_DM_SMI, VAPIC_INJECT_SMI, VAPIC_CPU_NONE},
    {APIC_DM_NMI, VAPIC_INJECT_NMI, VAPIC_CPU_NONE},
    {APIC_DM_REMOTE, VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
};

static const uint32_t event_sources[] = {APIC_LVT_THERMAL, APIC_LVT_PMC,      APIC_LVT_CMCI,
                                         APIC_EILVT,       APIC_EILVT + 0x10, APIC_EILVT + 0x20,
                                         APIC_EILVT + 0x30};

#define EVENT_SOURCES  (sizeof(event_sources) / sizeof(event_sources[0]))
#define EVENT_FEATURES (VAPIC_FEATURE_CMCI | VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT)

static void local_event_delivery_modes(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < EVENT_SOURCES; s++) {
        for (uint32_t n = 0; n < sizeof(event_modes) / sizeof(event_modes[0]); n++) {
            struct fx *fx = new_fx(EVENT_FEATURES);

            fx_set(fx, 0, event_sources[s], event_modes[n].mode | 0x51);
            vapic_local_event(&fx->v[0], event_sources[s]);
            check(fx_step(fx, 0, FX_CAN_ALL), &event_modes[n], "local event");
            fx_eoi(fx, 0);
            fx_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE, "%x: once",
                     event_sources[s]);
            fx_free(fx);
        }
    }
}

static void masked_local_event_is_lost(void **state)
{
    struct fx *fx = new_fx(EVENT_FEATURES);

    (void)state;
    for (uint32_t s = 0; s < EVENT_SOURCES; s++) {
        fx_set(fx, 0, event_sources[s], APIC_LVT_MASKED | 0x51);
        vapic_local_event(&fx->v[0], event_sources[s]);
        fx_equal(fx_take(fx, 0), (uint64_t)-1, "%x, masked", event_sources[s]);
        fx_set(fx, 0, event_sources[s], 0x51);
        fx_equal(fx_take(fx, 0), (uint64_t)-1, "%x, unmasked", event_sources[s]);
    }
    fx_free(fx);
}

static void event_of_no_entry(void **state)
{
    static const uint32_t offsets[] = {0,     APIC_LVT_TIMER,    APIC_LVT_ERROR, APIC_LVT_LINT0,
                                       0x2E0, APIC_EILVT + 0x40, 0xFFFFFFFF};
    struct fx *fx = new_fx(0);

    (void)state;
    for (uint32_t n = 0; n < sizeof(offsets) / sizeof(offsets[0]); n++)
        fx_equal(vapic_local_event(&fx->v[0], offsets[n]), VAPIC_ACTION_NONE, "%x", offsets[n]);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void event_of_an_absent_entry(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    vapic_local_event(&fx->v[0], APIC_LVT_CMCI);
    vapic_local_event(&fx->v[0], APIC_EILVT);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

static void counts_local_events(void **state)
{
    struct fx *fx = new_fx(0);
    struct vapic_stats stats;

    (void)state;
    fx_set(fx, 0, APIC_LVT_THERMAL, 0x51);
    vapic_local_event(&fx->v[0], APIC_LVT_THERMAL);
    fx_take(fx, 0);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.lvt_events, 1);
    fx_free(fx);
}

/* ---- Edges ---- */

static void an_edge_fires_once(void **state)
{
    (void)state;
    for (unsigned pin = 0; pin < 2; pin++) {
        struct fx *fx = new_fx(0);

        fx_set(fx, 0, APIC_LVT_LINT0 + 16 * pin, 0x51);
        vapic_set_lint(&fx->v[0], pin, true);
        assert_int_equal(fx_take_eoi(fx, 0), 0x51);
        vapic_set_lint(&fx->v[0], pin, true);
        assert_int_equal(fx_take(fx, 0), -1);
        vapic_set_lint(&fx->v[0], pin, false);
        assert_int_equal(fx_take(fx, 0), -1);
        vapic_set_lint(&fx->v[0], pin, true);
        assert_int_equal(fx_take(fx, 0), 0x51);
        assert_false(fx_bit(fx, 0, APIC_TMR, 0x51));
        fx_free(fx);
    }
}

static void a_short_pulse_is_not_missed(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT1, 0x51);
    vapic_set_lint(&fx->v[0], 1, true);
    vapic_set_lint(&fx->v[0], 1, false);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

/* What delivered nothing was no event. */
static void reserved_modes_are_not_counted(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < LINT_MODES; n++) {
        struct fx *fx = new_fx(0);
        struct vapic_stats stats;
        bool delivers =
            lint_modes[n].inject != VAPIC_INJECT_NONE || lint_modes[n].event != VAPIC_CPU_NONE;

        if (lint_modes[n].mode == APIC_DM_EXTINT)
            delivers = false; /* a level, counted when it is taken */
        fx_set(fx, 0, APIC_LVT_LINT1, lint_modes[n].mode | 0x51);
        vapic_set_lint(&fx->v[0], 1, true);
        fx_step(fx, 0, FX_CAN_ALL);
        vapic_get_stats(&fx->v[0], &stats);
        fx_equal(stats.lvt_events, delivers, "mode %x", lint_modes[n].mode);
        fx_free(fx);
    }
}

static void a_masked_edge_is_lost(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT1, APIC_LVT_MASKED | 0x51);
    vapic_set_lint(&fx->v[0], 1, true);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_set(fx, 0, APIC_LVT_LINT1, 0x51);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* NMI is edge-triggered whatever bit 15 says. */
static void nmi_is_always_an_edge(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT1, APIC_LVT_LEVEL | APIC_DM_NMI);
    vapic_set_lint(&fx->v[0], 1, true);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

/* ---- Levels: remote IRR blocks until EOI ---- */

static struct fx *level_lint0(void)
{
    struct fx *fx = new_fx(0);

    fx_set(fx, 0, APIC_LVT_LINT0, APIC_LVT_LEVEL | 0x51);
    return fx;
}

static void level_sets_remote_irr(void **state)
{
    struct fx *fx = level_lint0();

    (void)state;
    assert_int_equal(fx_get(fx, 0, APIC_LVT_LINT0) & APIC_LVT_RIRR, 0);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_take(fx, 0), 0x51);
    assert_true(fx_bit(fx, 0, APIC_TMR, 0x51));
    assert_int_equal(fx_get(fx, 0, APIC_LVT_LINT0) & APIC_LVT_RIRR, APIC_LVT_RIRR);
    vapic_set_lint(&fx->v[0], 0, false);
    fx_eoi(fx, 0);
    assert_int_equal(fx_get(fx, 0, APIC_LVT_LINT0) & APIC_LVT_RIRR, 0);
    fx_free(fx);
}

static void level_lowered_before_eoi_runs_once(void **state)
{
    struct fx *fx = level_lint0();

    (void)state;
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_take(fx, 0), 0x51);
    vapic_set_lint(&fx->v[0], 0, false);
    fx_eoi(fx, 0);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void level_still_high_at_eoi_runs_again(void **state)
{
    struct fx *fx = level_lint0();

    (void)state;
    vapic_set_lint(&fx->v[0], 0, true);
    for (int n = 0; n < 3; n++)
        assert_int_equal(fx_take_eoi(fx, 0), 0x51);
    vapic_set_lint(&fx->v[0], 0, false);
    fx_take_eoi(fx, 0);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void level_waits_for_its_eoi(void **state)
{
    struct fx *fx = level_lint0();

    (void)state;
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_take(fx, 0), 0x51);
    vapic_set_lint(&fx->v[0], 0, false);
    fx_step(fx, 0, 0);
    vapic_set_lint(&fx->v[0], 0, true);
    fx_step(fx, 0, 0);
    assert_false(fx_bit(fx, 0, APIC_IRR, 0x51));
    fx_free(fx);
}

static void masked_level_fires_on_unmask(void **state)
{
    struct fx *fx = level_lint0();

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_LVT_MASKED | APIC_LVT_LEVEL | 0x51);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_LVT_LEVEL | 0x51);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void switch_to_edge_clears_remote_irr(void **state)
{
    struct fx *fx = level_lint0();

    (void)state;
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_set(fx, 0, APIC_LVT_LINT0, 0x51);
    assert_int_equal(fx_get(fx, 0, APIC_LVT_LINT0) & APIC_LVT_RIRR, 0);
    fx_free(fx);
}

/* ---- ExtINT: the 8259 behind LINT0 ---- */

static void trap_86_extint_waits_for_unmask(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_LVT_MASKED | APIC_DM_EXTINT);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_EXTINT);
    fx_free(fx);
}

/* [SDM3 7.9] [SDM3 12.8.4] no priority, no ISR, no EOI */
static void trap_87_extint_before_vector(void **state)
{
    struct fx *fx = new_fx(0);
    struct vapic_stats stats;

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_post(&fx->v[0], 0xFE, false, NULL);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_EXTINT);
    for (uint32_t word = 0; word < 8; word++)
        assert_int_equal(fx_get(fx, 0, APIC_ISR + 16 * word), 0);
    vapic_set_lint(&fx->v[0], 0, false);
    assert_int_equal(fx_take(fx, 0), 0xFE);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.extints, 1);
    fx_free(fx);
}

static void extint_ignores_tpr(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    fx_set(fx, 0, APIC_TPR, 0xFF);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_EXTINT);
    fx_free(fx);
}

static void extint_asks_for_a_window(void **state)
{
    struct fx *fx = new_fx(0);
    struct vapic_entry entry;

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_set_lint(&fx->v[0], 0, true);
    entry = fx_step(fx, 0, 0);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_true(entry.irq_window);
    fx_free(fx);
}

static void extint_follows_its_line(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_set_lint(&fx->v[0], 0, true);
    vapic_set_lint(&fx->v[0], 0, false);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

/* ---- Performance counter [SDM3 12.5.1] ---- */

static void trap_88_pmc_masks_itself(void **state)
{
    (void)state;
    for (int amd = 0; amd < 2; amd++) {
        struct fx *fx = new_fx(amd ? VAPIC_FEATURE_AMD : 0);

        fx_set(fx, 0, APIC_LVT_PMC, APIC_DM_NMI);
        vapic_local_event(&fx->v[0], APIC_LVT_PMC);
        assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
        assert_int_equal(fx_get(fx, 0, APIC_LVT_PMC) & APIC_LVT_MASKED, amd ? 0 : APIC_LVT_MASKED);
        fx_free(fx);
    }
}

/* ---- CMCI ---- */

static void trap_97_cmci(void **state)
{
    struct fx *fx = new_fx(VAPIC_FEATURE_CMCI);

    (void)state;
    fx_set(fx, 0, APIC_LVT_CMCI, 0xF9);
    assert_int_equal(fx_take(fx, 0), -1);
    vapic_local_event(&fx->v[0], APIC_LVT_CMCI);
    assert_int_equal(fx_take_eoi(fx, 0), 0xF9);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* ---- Sources of a disabled APIC ---- */

static void soft_disabled_sources_deliver_nothing(void **state)
{
    struct fx *fx = new_fx(0);
    struct vapic_entry entry;

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    fx_set(fx, 0, APIC_LVT_LINT1, APIC_DM_NMI);
    fx_set(fx, 0, APIC_LVT_THERMAL, 0x51);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    vapic_set_lint(&fx->v[0], 0, true);
    vapic_set_lint(&fx->v[0], 1, true);
    vapic_local_event(&fx->v[0], APIC_LVT_THERMAL);
    entry = fx_step(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

/* A guest's read of IRR harvests what was posted; what waits for the entry must go on waiting. */
static void a_read_of_irr_loses_no_edge(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT1, 0x51);
    vapic_set_lint(&fx->v[0], 1, true);
    fx_get(fx, 0, APIC_IRR);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void a_read_of_irr_loses_no_local_event(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    fx_set(fx, 0, APIC_LVT_THERMAL, 0x52);
    vapic_local_event(&fx->v[0], APIC_LVT_THERMAL);
    fx_get(fx, 0, APIC_IRR);
    assert_int_equal(fx_take(fx, 0), 0x52);
    fx_free(fx);
}

static void lint_number_out_of_range(void **state)
{
    struct fx *fx = new_fx(0);

    (void)state;
    assert_int_equal(vapic_set_lint(&fx->v[0], 2, true), VAPIC_ACTION_NONE);
    assert_int_equal(vapic_set_lint(&fx->v[0], 100, true), VAPIC_ACTION_NONE);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(soft_disable_masks_every_entry),
        cmocka_unit_test(soft_disabled_entries_stay_masked),
        cmocka_unit_test(enabling_unmasks_nothing),
        cmocka_unit_test(lint_delivery_modes),
        cmocka_unit_test(masked_lint_delivers_nothing),
        cmocka_unit_test(local_event_delivery_modes),
        cmocka_unit_test(masked_local_event_is_lost),
        cmocka_unit_test(event_of_no_entry),
        cmocka_unit_test(event_of_an_absent_entry),
        cmocka_unit_test(counts_local_events),
        cmocka_unit_test(an_edge_fires_once),
        cmocka_unit_test(a_short_pulse_is_not_missed),
        cmocka_unit_test(reserved_modes_are_not_counted),
        cmocka_unit_test(a_masked_edge_is_lost),
        cmocka_unit_test(nmi_is_always_an_edge),
        cmocka_unit_test(level_sets_remote_irr),
        cmocka_unit_test(level_lowered_before_eoi_runs_once),
        cmocka_unit_test(level_still_high_at_eoi_runs_again),
        cmocka_unit_test(level_waits_for_its_eoi),
        cmocka_unit_test(masked_level_fires_on_unmask),
        cmocka_unit_test(switch_to_edge_clears_remote_irr),
        cmocka_unit_test(trap_86_extint_waits_for_unmask),
        cmocka_unit_test(trap_87_extint_before_vector),
        cmocka_unit_test(extint_ignores_tpr),
        cmocka_unit_test(extint_asks_for_a_window),
        cmocka_unit_test(extint_follows_its_line),
        cmocka_unit_test(trap_88_pmc_masks_itself),
        cmocka_unit_test(trap_97_cmci),
        cmocka_unit_test(soft_disabled_sources_deliver_nothing),
        cmocka_unit_test(a_read_of_irr_loses_no_edge),
        cmocka_unit_test(a_read_of_irr_loses_no_local_event),
        cmocka_unit_test(lint_number_out_of_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
