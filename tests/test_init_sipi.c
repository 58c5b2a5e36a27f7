/* SPDX-License-Identifier: MIT */
/*
 * INIT, start-up messages and what a processor does between them.
 * [SDM3 10.4] [SDM3 10.4.3] [SDM3 12.4.7.3] [SDM3 12.6.1]
 */
#include "fixture.h"

#define INIT (APIC_DM_INIT | APIC_ICR_ASSERT)

static struct fx *parked(uint32_t vcpus, uint32_t knobs)
{
    return fx_new(&(struct fx_options){.vcpus = vcpus,
                                       .parked = true,
                                       .soft_disabled = true,
                                       .config = {.knobs = knobs, .knobs_set = true}});
}

static void expect_event(struct fx *fx, uint32_t n, enum vapic_cpu_event event)
{
    assert_int_equal(fx_step(fx, n, FX_CAN_ALL).event, event);
}

static void expect_sipi(struct fx *fx, uint32_t n, uint8_t vector)
{
    struct vapic_entry entry = fx_step(fx, n, FX_CAN_ALL);

    assert_int_equal(entry.event, VAPIC_CPU_SIPI);
    assert_int_equal(entry.vector, vector);
    entry = fx_step(fx, n, FX_CAN_ALL);
    assert_int_equal(entry.event, VAPIC_CPU_NONE);
    assert_true(entry.runnable);
    assert_int_equal(vapic_activity(&fx->v[n]), VAPIC_RUNNING);
}

/* ---- After RESET ---- */

static void only_the_boot_processor_runs(void **state)
{
    static const uint32_t profiles[] = {VAPIC_PROFILE_MANUAL, VAPIC_PROFILE_KVM};

    (void)state;
    for (uint32_t p = 0; p < 2; p++) {
        struct fx *fx = parked(2, profiles[p]);

        assert_true(fx_step(fx, 0, FX_CAN_ALL).runnable);
        assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
        assert_int_equal(vapic_activity(&fx->v[1]), p ? VAPIC_UNINITIALIZED : VAPIC_WAIT_FOR_SIPI);
        fx_free(fx);
    }
}

/* Processors wait for a SIPI right after RESET; Linux wants an INIT first. [SDM3 10.4.2] */
static void lone_sipi_after_reset(void **state)
{
    (void)state;
    for (int kvm = 0; kvm < 2; kvm++) {
        struct fx *fx = parked(2, kvm ? VAPIC_PROFILE_KVM : VAPIC_PROFILE_MANUAL);

        fx_icr(fx, 0, APIC_DM_SIPI | 0x9A, 1);
        if (kvm) {
            expect_event(fx, 1, VAPIC_CPU_NONE);
            assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
        } else {
            expect_sipi(fx, 1, 0x9A);
        }
        fx_free(fx);
    }
}

/* ---- The boot sequences that guests use ---- */

static const struct sequence {
    const char *name;
    uint32_t icr[4];
    uint8_t vector;
} sequences[] = {
    {"INIT, SIPI, SIPI", {0x4500, 0x4600 | 0x9A, 0x4600 | 0x9A, 0}, 0x9A},
    {"INIT assert, de-assert, SIPI, SIPI", {0xC500, 0x8500, 0x0600 | 0x10, 0x0600 | 0x10}, 0x10},
    {"SIPI without level", {0xC500, 0x0600, 0, 0}, 0},
    {"INIT edge, level 0", {0x0500, 0x0600 | 0xFF, 0, 0}, 0xFF},
};

static void start_sequences(void **state)
{
    static const uint32_t profiles[] = {VAPIC_PROFILE_MANUAL, VAPIC_PROFILE_KVM};

    (void)state;
    for (uint32_t p = 0; p < 2; p++) {
        for (uint32_t s = 0; s < sizeof(sequences) / sizeof(sequences[0]); s++) {
            struct fx *fx = parked(2, profiles[p]);
            struct vapic_entry entry;

            for (uint32_t n = 0; n < 4 && sequences[s].icr[n] != 0; n++)
                fx_icr(fx, 0, sequences[s].icr[n], 1);
            fx_equal(fx_step(fx, 1, FX_CAN_ALL).event, VAPIC_CPU_INIT, "%s", sequences[s].name);
            entry = fx_step(fx, 1, FX_CAN_ALL);
            fx_equal(entry.event, VAPIC_CPU_SIPI, "%s", sequences[s].name);
            fx_equal(entry.vector, sequences[s].vector, "%s: vector", sequences[s].name);
            entry = fx_step(fx, 1, FX_CAN_ALL);
            fx_equal(entry.event, VAPIC_CPU_NONE, "%s: third", sequences[s].name);
            fx_equal(entry.runnable, true, "%s: runs", sequences[s].name);
            fx_free(fx);
        }
    }
}

/* The same, with the target looking after every step. */
static void start_sequence_in_slow_motion(void **state)
{
    struct fx *fx = parked(2, VAPIC_PROFILE_KVM);

    (void)state;
    fx_icr(fx, 0, 0xC500, 1);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    assert_int_equal(vapic_activity(&fx->v[1]), VAPIC_WAIT_FOR_SIPI);
    assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
    fx_icr(fx, 0, 0x8500, 1);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    fx_icr(fx, 0, APIC_DM_SIPI | 0x42, 1);
    expect_sipi(fx, 1, 0x42);
    fx_icr(fx, 0, APIC_DM_SIPI | 0x43, 1);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    fx_free(fx);
}

static void trap_46_init_and_sipi_to_all_but_self(void **state)
{
    struct fx *fx = parked(4, VAPIC_PROFILE_KVM);

    (void)state;
    fx_write(fx, 0, APIC_ICR, 0xC4500);
    fx_write(fx, 0, APIC_ICR, 0xC0600);
    for (uint32_t n = 1; n < 4; n++) {
        expect_event(fx, n, VAPIC_CPU_INIT);
        expect_sipi(fx, n, 0);
    }
    expect_event(fx, 0, VAPIC_CPU_NONE);
    fx_free(fx);
}

static void trap_47_init_drops_a_latched_sipi(void **state)
{
    struct fx *fx = parked(2, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_icr(fx, 0, APIC_DM_SIPI | 0x9A, 1);
    fx_icr(fx, 0, INIT, 1);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    assert_int_equal(vapic_activity(&fx->v[1]), VAPIC_WAIT_FOR_SIPI);
    fx_free(fx);
}

static void last_sipi_vector_wins(void **state)
{
    struct fx *fx = parked(2, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_icr(fx, 0, APIC_DM_SIPI | 0xFF, 1);
    fx_icr(fx, 0, APIC_DM_SIPI | 0x10, 1);
    expect_sipi(fx, 1, 0x10);
    fx_free(fx);
}

static void sipi_to_a_running_processor(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        fx_icr(fx, 1 - n, APIC_DM_SIPI | 0x9A, n);
        expect_event(fx, n, VAPIC_CPU_NONE);
    }
    /* nor is it kept for later */
    fx_icr(fx, 0, INIT, 1);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    fx_free(fx);
}

/* [SDM3 12.4.7.3] the bootstrap processor starts again at once */
static void trap_48_init_to_the_boot_processor(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){3}, .x2apic = true});
    uint64_t base = vapic_base(&fx->v[0]);
    struct vapic_entry entry;

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0x50);
    fx_icr(fx, 0, INIT, 3);
    expect_event(fx, 0, VAPIC_CPU_INIT);
    entry = fx_step(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.event, VAPIC_CPU_NONE);
    assert_true(entry.runnable);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_RUNNING);
    assert_int_equal(vapic_base(&fx->v[0]), base);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 3);
    assert_int_equal(fx_get(fx, 0, APIC_TPR), 0);
    assert_int_equal(fx_get(fx, 0, APIC_SVR), 0xFF);
    fx_free(fx);
}

/* VMX root operation, SMM, GIF=0: INIT is remembered, a SIPI meanwhile is lost. [SDM3 25.8] */
static void trap_49_blocked_init(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_icr(fx, 0, INIT, 1);
    assert_int_equal(fx_step(fx, 1, FX_CAN_ALL & ~(unsigned)VAPIC_CAN_INIT).event, VAPIC_CPU_NONE);
    fx_icr(fx, 0, APIC_DM_SIPI | 0x9A, 1);
    assert_int_equal(fx_step(fx, 1, FX_CAN_ALL & ~(unsigned)VAPIC_CAN_INIT).event, VAPIC_CPU_NONE);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    assert_int_equal(vapic_activity(&fx->v[1]), VAPIC_WAIT_FOR_SIPI);
    fx_free(fx);
}

/* A processor under blocked INIT goes on as before. */
static void blocked_init_lets_it_run(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
    struct vapic_entry entry;

    (void)state;
    fx_icr(fx, 0, INIT, 1);
    fx_icr(fx, 0, 0x51, 1);
    entry = fx_step(fx, 1, FX_CAN_ALL & ~(unsigned)VAPIC_CAN_INIT);
    assert_true(entry.runnable);
    assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
    fx_free(fx);
}

static void init_clears_what_was_pending(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_icr(fx, 0, 0x51, 1);
    fx_icr(fx, 0, INIT, 1);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    fx_icr(fx, 0, APIC_DM_SIPI | 1, 1);
    expect_sipi(fx, 1, 1);
    fx_set(fx, 1, APIC_SVR, 0x1FF);
    assert_int_equal(fx_take(fx, 1), -1);
    fx_free(fx);
}

/* [SDM3 12.12.5.1] */
static void init_keeps_x2apic_mode(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2, .x2apic = true});

    (void)state;
    fx_icr(fx, 0, INIT, 1);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    assert_int_equal(vapic_base(&fx->v[1]), APIC_DEFAULT_BASE | APIC_BASE_EN | APIC_BASE_EXTD);
    assert_int_equal(fx_get(fx, 1, APIC_ID), 1);
    fx_icr(fx, 0, APIC_DM_SIPI | 0x77, 1);
    expect_sipi(fx, 1, 0x77);
    fx_free(fx);
}

static void init_wakes_from_halt(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_step(fx, 1, FX_CAN_ALL);
    vapic_halt(&fx->v[1]);
    assert_int_equal(vapic_activity(&fx->v[1]), VAPIC_HALTED);
    fx_icr(fx, 0, INIT, 1);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    assert_int_equal(vapic_activity(&fx->v[1]), VAPIC_WAIT_FOR_SIPI);
    fx_free(fx);
}

/* Nothing but INIT and SIPI moves a waiting processor. */
static void waiting_processor_takes_nothing_else(void **state)
{
    static const uint32_t modes[] = {APIC_DM_FIXED, APIC_DM_NMI, APIC_DM_SMI};

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct fx *fx = parked(2, VAPIC_PROFILE_MANUAL);
        struct vapic_entry entry;

        fx_set(fx, 1, APIC_SVR, 0x1FF);
        fx_icr(fx, 0, modes[n] | 0x51, 1);
        entry = fx_step(fx, 1, FX_CAN_ALL);
        fx_equal(entry.runnable, false, "mode %x", modes[n]);
        fx_equal(entry.inject, VAPIC_INJECT_NONE, "mode %x", modes[n]);
        fx_free(fx);
    }
}

static void sipi_to_a_disabled_apic(void **state)
{
    struct fx *fx = parked(2, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(vapic_load_base(&fx->v[1], APIC_DEFAULT_BASE), VAPIC_OK);
    fx_icr(fx, 0, APIC_DM_SIPI | 1, 1);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    assert_int_equal(vapic_load_base(&fx->v[1], APIC_DEFAULT_BASE | APIC_BASE_EN), VAPIC_OK);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    fx_free(fx);
}

/* The sender's action brings the sleeping target up. */
static void sipi_wakes_the_sleeping_thread(void **state)
{
    struct fx *fx = parked(2, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
    assert_true(vapic_block(&fx->v[1]));
    fx_icr(fx, 0, APIC_DM_SIPI | 7, 1);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 1);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).a, VAPIC_ACTION_WAKE);
    vapic_unblock(&fx->v[1]);
    expect_sipi(fx, 1, 7);
    fx_free(fx);
}

/* A SIPI that a running processor ignored is gone, also when INIT comes by a pin. */
static void ignored_sipi_is_not_kept(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_set(fx, 1, APIC_LVT_LINT1, APIC_DM_INIT);
    fx_icr(fx, 0, APIC_DM_SIPI | 0x9A, 1);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    vapic_set_lint(&fx->v[1], 1, true);
    expect_event(fx, 1, VAPIC_CPU_INIT);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    assert_int_equal(vapic_activity(&fx->v[1]), VAPIC_WAIT_FOR_SIPI);
    fx_free(fx);
}

/* The event comes with what the host needs to go on. */
static void event_says_whether_to_run(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_icr(fx, 0, INIT, 0);
    assert_true(fx_step(fx, 0, FX_CAN_ALL).runnable);
    fx_icr(fx, 0, INIT, 1);
    assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
    fx_icr(fx, 0, APIC_DM_SIPI | 1, 1);
    assert_true(fx_step(fx, 1, FX_CAN_ALL).runnable);
    fx_free(fx);
}

static void reset_forgets_init_and_sipi(void **state)
{
    struct fx *fx = parked(2, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_icr(fx, 0, INIT, 1);
    fx_icr(fx, 0, APIC_DM_SIPI | 1, 1);
    vapic_reset(&fx->v[1]);
    expect_event(fx, 1, VAPIC_CPU_NONE);
    assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_boot_processor_runs),
        cmocka_unit_test(lone_sipi_after_reset),
        cmocka_unit_test(start_sequences),
        cmocka_unit_test(start_sequence_in_slow_motion),
        cmocka_unit_test(trap_46_init_and_sipi_to_all_but_self),
        cmocka_unit_test(trap_47_init_drops_a_latched_sipi),
        cmocka_unit_test(last_sipi_vector_wins),
        cmocka_unit_test(sipi_to_a_running_processor),
        cmocka_unit_test(trap_48_init_to_the_boot_processor),
        cmocka_unit_test(trap_49_blocked_init),
        cmocka_unit_test(blocked_init_lets_it_run),
        cmocka_unit_test(init_clears_what_was_pending),
        cmocka_unit_test(init_keeps_x2apic_mode),
        cmocka_unit_test(init_wakes_from_halt),
        cmocka_unit_test(waiting_processor_takes_nothing_else),
        cmocka_unit_test(sipi_to_a_disabled_apic),
        cmocka_unit_test(sipi_wakes_the_sleeping_thread),
        cmocka_unit_test(ignored_sipi_is_not_kept),
        cmocka_unit_test(event_says_whether_to_run),
        cmocka_unit_test(reset_forgets_init_and_sipi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
