/* SPDX-License-Identifier: MIT */
/*
 * APICv for L2 with a whole L1: a second instance of libvapic, which posts, sends notifications and
 * maps its PID-pointer table as a hypervisor does. What no bench can show: that both schedulers,
 * both inhibitions and the interrupts of two levels together lose nothing and double nothing.
 */
#include "nested_fixture.h"

#include <string.h>

#define IPI (APIC_DM_FIXED | APIC_ICR_ASSERT)

enum world { APICV, POSTED, IPIV_DUMMY, IPIV_SHADOW, WORLDS };

static struct nx *new_world(enum world w, uint32_t vcpus, bool hlt_inside)
{
    static const uint32_t offered[WORLDS] = {
        VAPIC_NESTED_APICV,
        VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED,
        VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
        VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
    };
    static const enum nx_l2 l2[WORLDS] = {NX_L2_APICV, NX_L2_POSTED, NX_L2_IPIV, NX_L2_IPIV};
    struct nx_options o = {
        .kind = VAPIC_ACCEL_APICV,
        .features = VAPIC_ACCEL_IPIV,
        .offered = offered[w],
        .strategy = w == IPIV_SHADOW ? VAPIC_NESTED_SHADOW : VAPIC_NESTED_DUMMY,
        .l1_x2apic = true,
        .l2 = l2[w],
        .l2_x2apic = vcpus != 3,
        .hlt_inside = hlt_inside,
        .vcpus = vcpus,
    };
    struct nx *nx = nx_new(&o);

    nx_settle(nx);
    nx_forget(nx);
    return nx;
}

/* ---- L1's interrupts ---- */

static struct {
    uint32_t step, at;
} arrival;

static void arrive(struct nx *nx, uint32_t l1)
{
    if (l1 == 0 && arrival.step++ == arrival.at)
        assert_true(nx_l1_interrupt(nx, 0, 0x71));
}

static void arrive_at_12(struct nx *nx, uint32_t l1, struct nx_l2_vcpu *c)
{
    (void)c;
    arrive(nx, l1);
}

static void an_interrupt_of_l1_at_each_step_of_an_entry(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++)
        for (uint32_t at = 0; at < 8; at++) {
            struct nx *nx = new_world((enum world)w, 2, false);

            nx_l1_deschedule(nx, 0);
            nx_settle(nx);
            nx_forget(nx);
            arrival.step = 0;
            arrival.at = at;
            nx->before_entry = arrive;
            nx->on_12 = arrive_at_12;
            nx_l1_schedule(nx, 0, 0);
            nx_settle(nx);
            nx_l2_ipi(nx, 0, IPI | 0x51, 1);
            nx_l2_ipi(nx, 1, IPI | 0x52, 0);
            nx_settle(nx);
            for (uint32_t i = 0; arrival.step <= at; i++) {
                assert_true(i < 10);
                nx_leave(nx, 0);
                nx_settle(nx);
            }
            assert_int_equal(nx_l1_delivered(nx, 0, 0x71), 1);
            assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 1);
            assert_int_equal(nx_l2_delivered(nx, 0, 0x52), 1);
            assert_true(nx_in_l2(nx, 0));
            nx_free(nx);
        }
}

static void both_levels_at_once(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++)
        for (uint32_t order = 0; order < 2; order++) {
            struct nx *nx = new_world((enum world)w, 2, false);

            if (order == 0)
                nx_l1_interrupt(nx, 1, 0x71);
            nx_l2_ipi(nx, 0, IPI | 0x51, 1);
            if (order == 1)
                nx_l1_interrupt(nx, 1, 0x71);
            nx_settle(nx);
            assert_int_equal(nx_l1_delivered(nx, 1, 0x71), 1);
            assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 1);
            nx_free(nx);
        }
}

/* ---- Inhibition ---- */

static void a_thousand_toggles_while_l2_runs(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++) {
        struct nx *nx = new_world((enum world)w, 2, false);

        for (uint32_t i = 0; i < 1000; i++) {
            nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, i % 2 == 0);
            if (i % 50 != 0)
                continue;
            nx_l2_ipi(nx, 0, IPI | 0x51, 1);
            nx_settle(nx);
            nx_l2_eoi(nx, 1);
        }
        nx_settle(nx);
        assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 20);
        assert_int_equal(nx_count(nx, NX_FAILED), 0);
        if (w >= IPIV_DUMMY) /* of the toggles L1 has seen nothing */
            assert_int_equal(nx_reflected(nx, NX_ANY, NX_ANY_CODE), 0);
        assert_true(nx_in_l2(nx, 0));
        nx_free(nx);
    }
}

/* ---- The target is taken away while a processor sends ---- */

static struct {
    enum vapic_sil_point point;
    uint32_t how;
    bool done;
} taken;

static void take_away(struct nx *nx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    if (taken.done || cpu != nx->l1[0]->cpu || point != taken.point)
        return;
    taken.done = true;
    if (taken.how == 0)
        nx_deschedule(nx, 1);
    else
        nx_l1_interrupt(nx, 1, 0x71);
}

static void the_target_leaves_while_a_processor_sends(void **state)
{
    (void)state;
    for (uint32_t point = 0; point <= VAPIC_SIL_POINT_FOUND; point++)
        for (uint32_t how = 0; how < 2; how++) {
            struct nx *nx = new_world(IPIV_SHADOW, 2, false);

            taken.point = (enum vapic_sil_point)point;
            taken.how = how;
            taken.done = false;
            nx->on_point = take_away;
            nx_l2_ipi(nx, 0, IPI | 0x51, 1);
            nx->on_point = NULL;
            assert_true(taken.done);
            nx_settle(nx);
            if (how == 0)
                nx_schedule(nx, 1, nx->cpu_count - 1);
            nx_settle(nx);
            assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 1);
            assert_int_equal(nx_l1_delivered(nx, 1, 0x71), how);
            nx_free(nx);
        }
}

/* ---- A storm ---- */

#define VCPUS 4u

struct storm {
    struct nx *nx;
    uint64_t random;
    uint32_t expected[VCPUS][256]; /* of L2's vCPUs */
    uint32_t l1_expected[VCPUS];   /* vector 71h */
    bool open[VCPUS];              /* 71h is not delivered yet */
    bool away[VCPUS], l1_away[VCPUS];
};

static uint32_t draw(struct storm *s, uint32_t below)
{
    s->random = s->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(s->random >> 33) % below;
}

/* Everybody is there again, and has ended what was delivered. */
static void calm(struct storm *s)
{
    for (uint32_t n = 0; n < VCPUS; n++) {
        if (s->away[n])
            nx_schedule(s->nx, n, n);
        s->away[n] = false;
    }
    nx_settle(s->nx);
    for (uint32_t n = 0; n < VCPUS; n++) {
        if (s->l1_away[n])
            nx_l1_schedule(s->nx, n, n);
        s->l1_away[n] = s->open[n] = false;
    }
    nx_settle(s->nx);
    /* Those of lower priority come one by one. */
    for (uint32_t round = 0; round < 40; round++)
        for (uint32_t n = 0; n < VCPUS; n++) {
            nx_l2_eoi(s->nx, n);
            nx_settle(s->nx);
        }
}

static void check(const struct storm *s)
{
    for (uint32_t n = 0; n < VCPUS; n++) {
        assert_int_equal(nx_l1_delivered(s->nx, n, 0x71), s->l1_expected[n]);
        for (uint32_t vector = 0x20; vector < 0x100; vector++)
            if (nx_l2_delivered(s->nx, n, (uint8_t)vector) != s->expected[n][vector])
                fail_msg("vCPU %u, vector %02x: %u times, not %u", n, vector,
                         nx_l2_delivered(s->nx, n, (uint8_t)vector), s->expected[n][vector]);
    }
}

/* Each vector of a round is sent once, so that none can merge with another. */
static void send(struct storm *s, uint8_t vector)
{
    uint32_t from = draw(s, VCPUS), to = draw(s, VCPUS);

    switch (draw(s, 5)) {
    case 0: /* a device of L1's */
        assert_true(nx_l2_interrupt(s->nx, nx_spare(s->nx), to, vector, false));
        s->expected[to][vector]++;
        return;
    case 1:
        if (s->away[from] || s->l1_away[from])
            return;
        nx_l2_ipi(s->nx, from, IPI | APIC_ICR_ALL_EXCL | vector, 0);
        for (uint32_t n = 0; n < VCPUS; n++)
            s->expected[n][vector] += n != from;
        return;
    default:
        if (s->away[from] || s->l1_away[from])
            return;
        nx_l2_ipi(s->nx, from, IPI | vector, to);
        s->expected[to][vector]++;
    }
}

static void disturb(struct storm *s, uint32_t i)
{
    uint32_t n = draw(s, VCPUS);

    switch (draw(s, 8)) {
    case 0:
        nx_toggle_inhibit(s->nx, VAPIC_INHIBIT_BLOCKIRQ, i & 1);
        break;
    case 1:
        if (!s->away[n])
            nx_deschedule(s->nx, n);
        else
            nx_schedule(s->nx, n, n);
        s->away[n] = !s->away[n];
        break;
    case 2:
        if (s->away[n])
            break;
        if (!s->l1_away[n])
            nx_l1_deschedule(s->nx, n);
        else
            nx_l1_schedule(s->nx, n, n);
        s->l1_away[n] = !s->l1_away[n];
        break;
    case 3:
        if (s->open[n])
            break;
        assert_true(nx_l1_interrupt(s->nx, n, 0x71));
        s->l1_expected[n]++;
        s->open[n] = true;
        break;
    case 4:
        if (!s->away[n] && nx_in_l2(s->nx, n))
            nx_save_restore(s->nx, n);
        break;
    case 5:
        if (!s->away[n])
            nx_leave(s->nx, n);
        break;
    default:
        nx_settle(s->nx);
        break;
    }
}

static void storm(enum world w, uint64_t seed)
{
    struct storm s = {.nx = new_world(w, VCPUS, seed & 1), .random = seed};

    for (uint32_t round = 0; round < 6; round++) {
        for (uint32_t i = 0; i < 25; i++) {
            send(&s, (uint8_t)(0x80 + 4 * i + draw(&s, 4)));
            disturb(&s, i);
        }
        calm(&s);
        check(&s);
    }
    nx_toggle_inhibit(s.nx, VAPIC_INHIBIT_BLOCKIRQ, false);
    nx_settle(s.nx);
    nx_free(s.nx);
}

static void a_storm_loses_and_doubles_nothing(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++)
        for (uint64_t seed = 1; seed <= 4; seed++)
            storm((enum world)w, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_interrupt_of_l1_at_each_step_of_an_entry),
        cmocka_unit_test(both_levels_at_once),
        cmocka_unit_test(a_thousand_toggles_while_l2_runs),
        cmocka_unit_test(the_target_leaves_while_a_processor_sends),
        cmocka_unit_test(a_storm_loses_and_doubles_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
