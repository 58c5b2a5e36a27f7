/* SPDX-License-Identifier: MIT */
/*
 * Lowest-priority delivery: one target of those that match, chosen by vector hashing or by
 * arbitration; the redirection hint. [SDM3 12.6.2.4] [SDM3 12.11.1]
 */
#include "fixture.h"

#define LOGICAL (APIC_DM_LOWEST | APIC_ICR_LOGICAL)

enum setting { FLAT, CLUSTER, X2APIC, SETTINGS };

static const char *const setting_names[SETTINGS] = {"flat", "cluster", "x2APIC"};

static struct fx *make(enum setting setting, uint32_t vcpus, uint32_t knobs)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = vcpus,
                                                .x2apic = setting == X2APIC,
                                                .config = {.knobs = knobs, .knobs_set = true}});

    for (uint32_t n = 0; n < vcpus && setting != X2APIC; n++) {
        if (setting == CLUSTER)
            fx_write(fx, n, APIC_DFR, APIC_DFR_CLUSTER);
        fx_write(fx, n, APIC_LDR, 1u << (24 + n));
    }
    return fx;
}

/* Sends once; the only vCPU that took it, -1 when nobody did; more than one fails. */
static int taker(struct fx *fx, uint32_t icr, uint32_t dest)
{
    int found = -1;

    fx_icr(fx, 0, icr, dest);
    for (uint32_t n = 0; n < fx->vcpus; n++) {
        if (fx_take_eoi(fx, n) != (int)(icr & 0xFF))
            continue;
        fx_equal(found, (uint64_t)-1, "vCPU %u is the second to take %x", n, icr & 0xFF);
        found = (int)n;
    }
    return found;
}

/* ---- Hashing: the n-th candidate in the order of the vCPUs, n = vector mod candidates ---- */

static void hashing_in_every_model(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);

        for (uint32_t vector = 16; vector < 256; vector++)
            fx_equal(taker(fx, LOGICAL | vector, 0xF), vector % 4, "%s, vector %x",
                     setting_names[setting], vector);
        fx_free(fx);
    }
}

static void hashing_over_a_subset(void **state)
{
    static const int members[] = {0, 2, 3};

    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);

        for (uint32_t vector = 16; vector < 80; vector++)
            fx_equal(taker(fx, LOGICAL | vector, 0xD), members[vector % 3], "%s, vector %x",
                     setting_names[setting], vector);
        fx_free(fx);
    }
}

static void trap_54_vector_mod_two(void **state)
{
    struct fx *fx = make(FLAT, 2, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (int again = 0; again < 3; again++) {
        assert_int_equal(taker(fx, LOGICAL | 0x50, 3), 0);
        assert_int_equal(taker(fx, LOGICAL | 0x51, 3), 1);
    }
    fx_free(fx);
}

/* Whoever cannot take it is no candidate: nothing may be lost. */
static void software_disabled_is_no_candidate(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);

        fx_set(fx, 1, APIC_SVR, 0xFF);
        fx_set(fx, 2, APIC_SVR, 0xFF);
        for (uint32_t vector = 16; vector < 48; vector++)
            fx_equal(taker(fx, LOGICAL | vector, 0xF), vector % 2 ? 3 : 0, "%s, vector %x",
                     setting_names[setting], vector);
        fx_free(fx);
    }
}

static void bits_without_a_vcpu_are_no_candidates(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 2, VAPIC_PROFILE_MANUAL);

        for (uint32_t vector = 16; vector < 48; vector++)
            fx_equal(taker(fx, LOGICAL | vector, 0xF), vector % 2, "%s, vector %x",
                     setting_names[setting], vector);
        fx_free(fx);
    }
}

static void nobody_matches(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 2, VAPIC_PROFILE_MANUAL);

        assert_int_equal(taker(fx, LOGICAL | 0x51, 0xC), -1);
        fx_free(fx);
    }
}

static void physical_single_target(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);

        for (uint32_t n = 0; n < 4; n++)
            assert_int_equal(taker(fx, APIC_DM_LOWEST | 0x51, n), (int)n);
        fx_free(fx);
    }
}

/* Several APICs with one logical ID: still one of them. */
static void duplicates_share_an_id(void **state)
{
    struct fx *fx = make(FLAT, 3, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t n = 0; n < 3; n++)
        fx_write(fx, n, APIC_LDR, 0x01000000);
    for (uint32_t vector = 16; vector < 48; vector++)
        assert_int_equal(taker(fx, LOGICAL | vector, 0x01), (int)(vector % 3));
    fx_free(fx);
}

/* A target with several matching bits is one candidate: each gets half of the vectors. */
static void several_bits_count_once(void **state)
{
    struct fx *fx = make(FLAT, 2, VAPIC_PROFILE_MANUAL);
    int taken[2] = {0};

    (void)state;
    fx_write(fx, 0, APIC_LDR, 0xF0000000);
    fx_write(fx, 1, APIC_LDR, 0x0F000000);
    for (uint32_t vector = 16; vector < 48; vector++) {
        int who = taker(fx, LOGICAL | vector, 0xFE);

        assert_in_range(who, 0, 1);
        assert_int_equal(taker(fx, LOGICAL | vector, 0xFE), who);
        taken[who]++;
    }
    assert_int_equal(taken[0], 16);
    assert_int_equal(taken[1], 16);
    fx_free(fx);
}

static void models_mixed_in_one_vm(void **state)
{
    struct fx *fx = make(FLAT, 4, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_write(fx, 2, APIC_DFR, APIC_DFR_CLUSTER);
    fx_write(fx, 2, APIC_LDR, 0x01000000);
    assert_int_equal(vapic_load_base(&fx->v[3], vapic_base(&fx->v[3]) | APIC_BASE_EXTD), VAPIC_OK);
    /* 01h: vCPU 0 (flat bit 0), vCPU 2 (cluster 0, bit 0); vCPU 3's bit is 8 */
    for (uint32_t vector = 16; vector < 48; vector++)
        assert_int_equal(taker(fx, LOGICAL | vector, 0x01), vector % 2 ? 2 : 0);
    for (uint32_t vector = 16; vector < 48; vector++)
        assert_int_equal(taker(fx, LOGICAL | vector, 0x08), 3);
    fx_free(fx);
}

static void level_is_kept(void **state)
{
    struct fx *fx = make(FLAT, 2, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_icr(fx, 0, LOGICAL | APIC_ICR_LEVEL | APIC_ICR_ASSERT | 0x51, 3);
    assert_true(fx_bit(fx, 1, APIC_TMR, 0x51));
    assert_int_equal(fx_take(fx, 1), 0x51);
    fx_free(fx);
}

/* ---- Arbitration: whoever took the fewest ---- */

static void arbitration_takes_turns(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL | VAPIC_KNOB_ARBITRATE);
        int taken[4] = {0};

        for (int n = 0; n < 40; n++) {
            int who = taker(fx, LOGICAL | 0x51, 0xF);

            assert_in_range(who, 0, 3);
            taken[who]++;
        }
        for (int n = 0; n < 4; n++)
            fx_equal(taken[n], 10, "%s, vCPU %d", setting_names[setting], n);
        fx_free(fx);
    }
}

static void arbitration_ties_go_to_the_first(void **state)
{
    struct fx *fx = make(FLAT, 4, VAPIC_PROFILE_MANUAL | VAPIC_KNOB_ARBITRATE);

    (void)state;
    for (int n = 0; n < 8; n++)
        assert_int_equal(taker(fx, LOGICAL | 0x51, 0xF), n % 4);
    fx_free(fx);
}

static void arbitration_skips_the_disabled(void **state)
{
    struct fx *fx = make(FLAT, 3, VAPIC_PROFILE_MANUAL | VAPIC_KNOB_ARBITRATE);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0xFF);
    for (int n = 0; n < 8; n++)
        assert_int_equal(taker(fx, LOGICAL | 0x51, 0x7), 1 + n % 2);
    fx_free(fx);
}

static void init_clears_the_count(void **state)
{
    struct fx *fx = make(FLAT, 2, VAPIC_PROFILE_MANUAL | VAPIC_KNOB_ARBITRATE);

    (void)state;
    for (int n = 0; n < 3; n++)
        assert_int_equal(taker(fx, LOGICAL | 0x51, 0x1), 0);
    vapic_reset(&fx->v[0]);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    fx_set(fx, 0, APIC_LDR, 0x01000000);
    assert_int_equal(taker(fx, LOGICAL | 0x51, 0x3), 0);
    assert_int_equal(taker(fx, LOGICAL | 0x51, 0x3), 1);
    fx_free(fx);
}

/* ---- Redirection hint of devices ---- */

static struct vapic_sent redirect(struct fx *fx, uint32_t icr, uint32_t dest)
{
    return vapic_send(&fx->vm, (struct vapic_msg){.icr = icr,
                                                  .dest = dest,
                                                  .source = VAPIC_FROM_DEVICE,
                                                  .flags = VAPIC_MSG_REDIRECT});
}

static void redirection_hint_picks_one(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);

        for (uint32_t vector = 16; vector < 48; vector++) {
            struct vapic_sent sent = redirect(fx, APIC_ICR_LOGICAL | vector, 0xF);

            fx_equal(sent.accepted, 1, "%s, vector %x", setting_names[setting], vector);
            fx_equal(sent.target, vector % 4, "%s, vector %x", setting_names[setting], vector);
            fx_equal(fx_take_eoi(fx, vector % 4), vector, "taken");
        }
        fx_free(fx);
    }
}

static void redirection_hint_with_one_physical_target(void **state)
{
    struct fx *fx = make(FLAT, 4, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(redirect(fx, 0x51, 2).target, 2);
    assert_int_equal(fx_take(fx, 2), 0x51);
    fx_free(fx);
}

/* The delivery mode stays what it is. */
static void redirection_hint_keeps_the_mode(void **state)
{
    struct fx *fx = make(FLAT, 2, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(redirect(fx, APIC_ICR_LOGICAL | APIC_DM_NMI, 3).accepted, 1);
    assert_int_equal((fx_step(fx, 0, FX_CAN_ALL).inject == VAPIC_INJECT_NMI) +
                         (fx_step(fx, 1, FX_CAN_ALL).inject == VAPIC_INJECT_NMI),
                     1);
    fx_free(fx);
}

/* A physical broadcast reaches everybody, whatever the mode or the hint says. [SDM3 12.6.2.1] */
static void physical_broadcast_is_for_all(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);
        uint32_t all = setting == X2APIC ? 0xFFFFFFFF : 0xFF;

        fx_icr(fx, 0, APIC_DM_LOWEST | 0x51, all);
        for (uint32_t n = 0; n < 4; n++)
            fx_equal(fx_take_eoi(fx, n), 0x51, "%s, vCPU %u", setting_names[setting], n);
        assert_int_equal(redirect(fx, 0x52, all).accepted, 4);
        fx_free(fx);
    }
}

/* ---- Shorthands: one of the set ---- */

static void lowest_priority_all_but_self(void **state)
{
    (void)state;
    for (uint32_t setting = 0; setting < SETTINGS; setting++) {
        struct fx *fx = make(setting, 4, VAPIC_PROFILE_MANUAL);

        for (uint32_t vector = 16; vector < 48; vector++) {
            int who = taker(fx, APIC_DM_LOWEST | APIC_ICR_ALL_EXCL | vector, 0);

            fx_equal(who >= 1 && who <= 3, true, "%s, vector %x went to %d", setting_names[setting],
                     vector, who);
        }
        fx_free(fx);
    }
}

static void redirected_to_nobody(void **state)
{
    struct fx *fx = make(FLAT, 2, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(redirect(fx, APIC_ICR_LOGICAL | 0x51, 0xC0).accepted, 0);
    assert_int_equal(redirect(fx, 0x51, 0x77).accepted, 0);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    fx_set(fx, 1, APIC_SVR, 0xFF);
    assert_int_equal(redirect(fx, APIC_ICR_LOGICAL | 0x51, 3).accepted, 0);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashing_in_every_model),
        cmocka_unit_test(hashing_over_a_subset),
        cmocka_unit_test(trap_54_vector_mod_two),
        cmocka_unit_test(software_disabled_is_no_candidate),
        cmocka_unit_test(bits_without_a_vcpu_are_no_candidates),
        cmocka_unit_test(nobody_matches),
        cmocka_unit_test(physical_single_target),
        cmocka_unit_test(duplicates_share_an_id),
        cmocka_unit_test(several_bits_count_once),
        cmocka_unit_test(models_mixed_in_one_vm),
        cmocka_unit_test(level_is_kept),
        cmocka_unit_test(arbitration_takes_turns),
        cmocka_unit_test(arbitration_ties_go_to_the_first),
        cmocka_unit_test(arbitration_skips_the_disabled),
        cmocka_unit_test(init_clears_the_count),
        cmocka_unit_test(redirection_hint_picks_one),
        cmocka_unit_test(redirection_hint_with_one_physical_target),
        cmocka_unit_test(redirection_hint_keeps_the_mode),
        cmocka_unit_test(physical_broadcast_is_for_all),
        cmocka_unit_test(lowest_priority_all_but_self),
        cmocka_unit_test(redirected_to_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
