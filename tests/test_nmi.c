/* SPDX-License-Identifier: MIT */
/* NMI and SMI: how many are remembered, what blocks them, what they go before. [SDM3 7.7] */
#include "fixture.h"

#define NO_NMI (FX_CAN_ALL & ~(unsigned)VAPIC_CAN_NMI)

/* NMIs that come out while nothing blocks. */
static int drain(struct fx *fx)
{
    int count = 0;

    while (count < 100 && fx_step(fx, 0, FX_CAN_ALL).inject == VAPIC_INJECT_NMI)
        count++;
    return count;
}

/* Two senders at the same moment give two runs; more merge. [SDM3 7.7.1] */
static void trap_50_at_most_two_pend(void **state)
{
    static const int expected[] = {0, 1, 2, 2, 2, 2};

    (void)state;
    for (int sent = 0; sent < 6; sent++) {
        struct fx *fx = fx_new(NULL);

        for (int n = 0; n < sent; n++)
            vapic_nmi(&fx->v[0]);
        fx_equal(drain(fx), expected[sent], "%d sent", sent);
        fx_free(fx);
    }
}

/* While one is in service, only one more is remembered: ten from inside the handler are one. */
static void trap_50_one_pends_while_masked(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_nmi(&fx->v[0]);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    for (int n = 0; n < 10; n++) {
        fx_icr(fx, 0, APIC_DM_NMI, 0);
        assert_int_equal(fx_step(fx, 0, NO_NMI | VAPIC_NMI_MASKED).inject, VAPIC_INJECT_NONE);
    }
    assert_int_equal(drain(fx), 1);
    fx_free(fx);
}

static void burst_while_masked(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (int n = 0; n < 10; n++)
        vapic_nmi(&fx->v[0]);
    fx_step(fx, 0, NO_NMI | VAPIC_NMI_MASKED);
    assert_int_equal(drain(fx), 1);
    fx_free(fx);
}

/* [SDM3 7.8.3] the shadow of STI or MOV SS: later, and the host is asked for the moment */
static void trap_51_interrupt_shadow(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    vapic_nmi(&fx->v[0]);
    entry = fx_step(fx, 0, VAPIC_IF);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_true(entry.nmi_window);
    entry = fx_step(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_NMI);
    assert_false(entry.nmi_window);
    fx_free(fx);
}

static void window_for_the_second(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    vapic_nmi(&fx->v[0]);
    vapic_nmi(&fx->v[0]);
    entry = fx_step(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_NMI);
    assert_true(entry.nmi_window); /* a host that runs the guest now must watch for its IRET */
    assert_true(fx_step(fx, 0, NO_NMI | VAPIC_NMI_MASKED).nmi_window);
    fx_free(fx);
}

/* [SDM3 12.6.1] vector, TPR, IF, software enable: none matters */
static void nmi_ignores_the_apic(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0xFF);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    fx_icr(fx, 1, APIC_DM_NMI | 3, 0);
    assert_int_equal(fx_step(fx, 0, VAPIC_CAN_NMI).inject, VAPIC_INJECT_NMI);
    for (uint32_t word = 0; word < 8; word++) {
        assert_int_equal(fx_get(fx, 0, APIC_IRR + 16 * word), 0);
        assert_int_equal(fx_get(fx, 0, APIC_ISR + 16 * word), 0);
    }
    fx_free(fx);
}

/* [SDM3 T7-2] SMI, NMI, then interrupts */
static void order_of_events(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_post(&fx->v[0], 0x51, false, NULL);
    vapic_set_lint(&fx->v[0], 0, true);
    vapic_nmi(&fx->v[0]);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_SMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_EXTINT);
    vapic_set_lint(&fx->v[0], 0, false);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_VECTOR);
    fx_free(fx);
}

static void vector_passes_a_blocked_nmi(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_nmi(&fx->v[0]);
    vapic_post(&fx->v[0], 0x51, false, NULL);
    assert_int_equal(fx_step(fx, 0, NO_NMI | VAPIC_NMI_MASKED).inject, VAPIC_INJECT_VECTOR);
    assert_int_equal(drain(fx), 1);
    fx_free(fx);
}

/* [SDM3 12.8.4] IF does not matter for waking by NMI */
static void nmi_ends_halt(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    vapic_halt(&fx->v[0]);
    assert_false(fx_step(fx, 0, VAPIC_CAN_NMI).runnable);
    vapic_nmi(&fx->v[0]);
    entry = fx_step(fx, 0, VAPIC_CAN_NMI);
    assert_true(entry.runnable);
    assert_int_equal(entry.inject, VAPIC_INJECT_NMI);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_RUNNING);
    fx_free(fx);
}

static void masked_nmi_does_not_end_halt(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    vapic_nmi(&fx->v[0]);
    assert_false(fx_step(fx, 0, NO_NMI | VAPIC_NMI_MASKED).runnable);
    fx_free(fx);
}

static void nmi_kicks(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_peek(fx, 0, FX_CAN_ALL);
    assert_int_equal(vapic_nmi(&fx->v[0]), VAPIC_ACTION_KICK);
    assert_int_equal(vapic_nmi(&fx->v[0]), VAPIC_ACTION_NONE);
    fx_free(fx);
}

static void nmi_that_did_not_arrive(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    vapic_nmi(&fx->v[0]);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(drain(fx), 1);
    fx_free(fx);
}

/* ---- SMI ---- */

static void smi_waits_for_smm(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL & ~(unsigned)VAPIC_CAN_SMI).inject,
                     VAPIC_INJECT_NONE);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_SMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

static void smi_asks_to_look_again_after_rsm(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_false(fx_step(fx, 0, FX_CAN_ALL).smi_window);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    assert_true(fx_step(fx, 0, FX_CAN_ALL & ~(unsigned)VAPIC_CAN_SMI).smi_window);
    assert_false(fx_step(fx, 0, FX_CAN_ALL).smi_window);
    assert_false(fx_step(fx, 0, FX_CAN_ALL).smi_window);
    fx_free(fx);
}

static void smi_ends_halt(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    assert_true(fx_step(fx, 0, VAPIC_CAN_SMI).runnable);
    fx_free(fx);
}

static void counts_nmis(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_stats stats;

    (void)state;
    for (int n = 0; n < 3; n++) {
        vapic_nmi(&fx->v[0]);
        fx_step(fx, 0, FX_CAN_ALL);
    }
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.nmis, 3);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trap_50_at_most_two_pend),
        cmocka_unit_test(trap_50_one_pends_while_masked),
        cmocka_unit_test(burst_while_masked),
        cmocka_unit_test(trap_51_interrupt_shadow),
        cmocka_unit_test(window_for_the_second),
        cmocka_unit_test(nmi_ignores_the_apic),
        cmocka_unit_test(order_of_events),
        cmocka_unit_test(vector_passes_a_blocked_nmi),
        cmocka_unit_test(nmi_ends_halt),
        cmocka_unit_test(masked_nmi_does_not_end_halt),
        cmocka_unit_test(nmi_kicks),
        cmocka_unit_test(nmi_that_did_not_arrive),
        cmocka_unit_test(smi_waits_for_smm),
        cmocka_unit_test(smi_asks_to_look_again_after_rsm),
        cmocka_unit_test(smi_ends_halt),
        cmocka_unit_test(counts_nmis),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
