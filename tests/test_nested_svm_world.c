/* SPDX-License-Identifier: MIT */
/*
 * AVIC for L2 with a whole L1: a second instance of libvapic, which reaches the world through
 * guest memory, VMRUN and MSRs only. What no bench can show: that both schedulers, both inhibitions
 * and the interrupts of two levels together lose nothing, double nothing, and cost what they
 * should.
 */
#include "nested_fixture.h"

#define IPI (APIC_DM_FIXED | APIC_ICR_ASSERT)

enum world { AVIC_DUMMY, AVIC_SHADOW, X2AVIC_DUMMY, X2AVIC_SHADOW, WORLDS };

static struct nx_options options_of(enum world w, uint32_t vcpus)
{
    bool x2 = w == X2AVIC_DUMMY || w == X2AVIC_SHADOW;
    bool shadow = w == AVIC_SHADOW || w == X2AVIC_SHADOW;

    return (struct nx_options){
        .kind = VAPIC_ACCEL_AVIC,
        .features = VAPIC_ACCEL_IPIV | (x2 ? VAPIC_ACCEL_X2AVIC : 0u),
        .offered = VAPIC_NESTED_AVIC | (x2 ? VAPIC_NESTED_X2AVIC : 0u),
        .strategy = shadow ? VAPIC_NESTED_SHADOW : VAPIC_NESTED_DUMMY,
        .l2 = x2 ? NX_L2_X2AVIC : NX_L2_AVIC,
        .vcpus = vcpus,
    };
}

static struct nx *new_world(enum world w, uint32_t vcpus)
{
    struct nx_options o = options_of(w, vcpus);
    struct nx *nx = nx_new(&o);

    nx_settle(nx);
    nx_forget(nx);
    return nx;
}

/* ---- What an IPI costs ---- */

static void test_exits_of_a_thousand_ipis(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++) {
        bool shadow = w == AVIC_SHADOW || w == X2AVIC_SHADOW;
        struct nx *nx = new_world((enum world)w, 2);
        uint32_t exits;

        for (uint32_t i = 0; i < 1000; i++) {
            nx_l2_ipi(nx, i % 2, IPI | 0x51, 1 - i % 2);
            nx_settle(nx);
            nx_l2_eoi(nx, 1 - i % 2);
        }
        exits = nx_exits(nx, NX_ANY, NX_ANY_CODE, true);
        assert_int_equal(nx_l2_delivered(nx, 0, 0x51) + nx_l2_delivered(nx, 1, 0x51), 1000);
        assert_int_equal(nx_reflected(nx, NX_ANY, NX_ANY_CODE), 0);
        if (shadow)
            assert_true(exits < 10);
        else
            assert_int_equal(exits, 1000);
        nx_free(nx);
    }
}

/* ---- L1's interrupts ---- */

/* At the n-th of L0's steps with vCPU 0 an interrupt of L1's comes for it. */
static struct {
    uint32_t step, at;
    bool by_ipi;
} arrival;

static void arrive(struct nx *nx, uint32_t l1)
{
    if (l1 != 0 || arrival.step++ != arrival.at)
        return;
    assert_true(nx_l1_interrupt(nx, 0, 0x71));
}

static void arrive_at_12(struct nx *nx, uint32_t l1, struct nx_l2_vcpu *c)
{
    (void)c;
    arrive(nx, l1);
}

/* "vCPU 0 enters L2 while it is interrupted at each of its steps": once, and within one kick. */
static void test_l1s_interrupt_at_each_step_of_an_entry(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++)
        for (uint32_t at = 0; at < 8; at++) {
            struct nx *nx = new_world((enum world)w, 2);

            nx_l1_deschedule(nx, 0);
            nx_settle(nx);
            nx_forget(nx);
            arrival.step = 0;
            arrival.at = at;
            nx->before_entry = arrive;
            nx->on_12 = arrive_at_12;
            nx_l1_schedule(nx, 0, 0);
            nx_settle(nx);
            /* L2 goes on, and is entered a few times more. */
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

/* An IPI of L1's to a vCPU that runs L2: the sender exits, because IsRunning is clear. */
static void test_l1s_ipi_to_a_vcpu_that_runs_l2(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++) {
        struct nx *nx = new_world((enum world)w, 2);

        nx_l1_ipi(nx, nx_spare(nx), IPI | 0x72, vapic_id(&nx->l1[0]->apic));
        nx_settle(nx);
        assert_int_equal(nx_l1_delivered(nx, 0, 0x72), 1);
        assert_int_equal(nx_exits(nx, nx_spare(nx), SVM_EXIT_AVIC_INCOMPLETE, false), 1);
        assert_int_equal(nx_reflected(nx, 0, SVM_EXIT_INTR), 1);
        /* Of vCPU 1, which L1 runs L2 on too, nothing was asked. */
        assert_int_equal(nx_exits(nx, 1, NX_ANY_CODE, true), 0);
        nx_free(nx);
    }
}

/* Interrupts of both levels at once, in both orders. */
static void test_both_levels_at_once(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++)
        for (uint32_t order = 0; order < 2; order++) {
            struct nx *nx = new_world((enum world)w, 2);

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

static void test_a_thousand_toggles_while_l2_runs(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++) {
        struct nx *nx = new_world((enum world)w, 2);

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
        assert_int_equal(nx_reflected(nx, NX_ANY, NX_ANY_CODE), 0);
        assert_true(nx_in_l2(nx, 0));
        nx_free(nx);
    }
}

static void test_restore_in_an_inhibited_vm(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++) {
        struct nx *nx = new_world((enum world)w, 2);

        nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, true);
        nx_save_restore(nx, 0);
        nx_settle(nx);
        nx_l2_ipi(nx, 1, IPI | 0x51, 0);
        nx_settle(nx);
        assert_int_equal(nx_l2_delivered(nx, 0, 0x51), 1);
        assert_false(vapic_active(&nx->l1[0]->apic));
        assert_true(nx_l1_take(nx, 0));
        assert_false(vapic_active(&nx->l1[0]->apic)); /* in L1 too: the VM is inhibited */
        nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, false);
        nx_settle(nx);
        assert_true(nx_l1_take(nx, 0));
        assert_true(vapic_active(&nx->l1[0]->apic));
        nx_settle(nx);
        nx_free(nx);
    }
}

/* ---- L1's APIC passed through ---- */

static void test_l1s_apic_passed_through(void **state)
{
    (void)state;
    for (uint32_t offered = 0; offered < 2; offered++)
        for (uint32_t x2 = 0; x2 < 2; x2++) {
            struct nx_options o = {.kind = VAPIC_ACCEL_AVIC,
                                   .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
                                   .offered = offered ? VAPIC_NESTED_AVIC : 0,
                                   .l1_x2apic = x2,
                                   .pass_through = true};
            struct nx *nx = nx_new(&o);

            nx_settle(nx);
            nx_forget(nx);
            nx_l2_write(nx, 0, APIC_TPR, 0x45);
            assert_int_equal(nx_l1_page(nx, 0, APIC_TPR), 0x45);
            assert_int_equal(nx_l2_read(nx, 0, APIC_TPR), 0x45);
            nx_l2_write(nx, 0, APIC_TPR, 0);
            nx_l2_ipi(nx, 0, IPI | 0x71, vapic_id(&nx->l1[1]->apic));
            nx_settle(nx);
            assert_int_equal(nx_l1_delivered(nx, 1, 0x71), 1);
            nx_free(nx);
        }
}

/* ---- Everything together ---- */

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((seed >> 33) % below);
}

#define VECTORS 8u /* 51h, 61h, ... */

struct walk {
    struct nx *nx;
    uint32_t vcpus;
    uint32_t sent[NX_MAX_L2][VECTORS], l1_sent[NX_MAX_L1];
};

static uint8_t vector_of(uint32_t i)
{
    return (uint8_t)(0x51 + 0x10 * i);
}

/* A vector that waits or is in service would be taken for the same one. */
static bool free_for(const struct walk *w, uint32_t to, uint8_t vector)
{
    return !nx_l2_bit(w->nx, to, APIC_IRR, vector) && !nx_l2_bit(w->nx, to, APIC_ISR, vector);
}

static bool can_execute(const struct walk *w, uint32_t l2)
{
    const struct nx_l2_vcpu *c = w->nx->l2[l2];

    return c->on >= 0 && !c->blocked && w->nx->l1[c->on]->cpu != NULL && !w->nx->l1[c->on]->blocked;
}

/* False: L2's vCPU does not run now, and has sent nothing. */
static bool try_ipi(struct walk *w, uint32_t from, uint32_t icr, uint32_t dest)
{
    bool x2 = w->nx->options.l2 == NX_L2_X2AVIC;
    uint64_t value = x2 ? (uint64_t)dest << 32 | icr : icr;

    if (!can_execute(w, from))
        return false;
    if (!x2 && nx_l2_try_write(w->nx, from, APIC_ICR2, (uint64_t)dest << 24) != NX_DONE)
        return false;
    return nx_l2_try_write(w->nx, from, APIC_ICR, value) == NX_DONE;
}

static void send(struct walk *w)
{
    uint32_t from = rnd(w->vcpus), to = rnd(w->vcpus), i = rnd(VECTORS);

    if (free_for(w, to, vector_of(i)) && try_ipi(w, from, IPI | vector_of(i), to))
        w->sent[to][i]++;
}

static void send_to_all(struct walk *w)
{
    uint32_t from = rnd(w->vcpus), i = rnd(VECTORS);

    for (uint32_t n = 0; n < w->vcpus; n++)
        if (!free_for(w, n, vector_of(i)))
            return;
    if (!try_ipi(w, from, IPI | APIC_ICR_ALL_EXCL | vector_of(i), 0))
        return;
    for (uint32_t n = 0; n < w->vcpus; n++)
        w->sent[n][i] += n != from;
}

/* Not in a handler, and nothing waits: what waits behind its EOI would wait for ever. */
static bool idle(const struct walk *w, uint32_t l2)
{
    for (uint32_t i = 0; i < VECTORS; i++)
        if (!free_for(w, l2, vector_of(i)))
            return false;
    return w->nx->l2[l2]->owes == 0;
}

static void halt(struct walk *w)
{
    struct nx_op hlt = {NX_HLT, false, 0, 0, 0};
    uint32_t n = rnd(w->vcpus);

    nx_settle(w->nx);
    if (can_execute(w, n) && idle(w, n))
        nx_l2_execute(w->nx, n, &hlt);
}

static void l1_interrupt(struct walk *w)
{
    uint32_t n = rnd(w->nx->l1_count);

    if (nx_l1_bit(w->nx, n, APIC_IRR, 0x41) || nx_l1_bit(w->nx, n, APIC_ISR, 0x41))
        return;
    w->l1_sent[n]++;
    nx_l1_interrupt(w->nx, n, 0x41);
}

static void l0_schedules(struct walk *w)
{
    uint32_t n = rnd(w->nx->l1_count), cpu = rnd(w->nx->cpu_count);

    if (w->nx->l1[n]->cpu != NULL) {
        nx_deschedule(w->nx, n);
        return;
    }
    for (uint32_t i = 0; i < w->nx->l1_count; i++)
        if (w->nx->l1[i]->cpu == &w->nx->cpus[cpu])
            return;
    nx_schedule(w->nx, n, cpu);
}

static void l1_schedules(struct walk *w)
{
    uint32_t n = rnd(w->vcpus), to = rnd(w->nx->l1_count);
    struct nx_l2_vcpu *c = w->nx->l2[n];

    if (c->on >= 0) {
        if (w->nx->l1[c->on]->cpu != NULL)
            nx_l1_deschedule(w->nx, n);
    } else if (w->nx->l1[to]->runs < 0 && w->nx->l1[to]->cpu != NULL) {
        nx_l1_schedule(w->nx, n, to);
    }
}

static void toggle(struct walk *w)
{
    nx_toggle_inhibit(w->nx, VAPIC_INHIBIT_BLOCKIRQ, rnd(2) != 0);
}

static void unmap(struct walk *w)
{
    uint64_t gpa = NX_L1_RAM + 4096ull * rnd(NX_L1_PAGES);

    nx_unmap(w->nx, gpa, 4096);
    nx_map(w->nx, gpa, 4096);
}

static void settle(struct walk *w)
{
    nx_settle(w->nx);
}

/* Everybody gets a processor, L2 runs on, and what was sent has arrived. */
static void finish(struct walk *w)
{
    struct nx *nx = w->nx;

    for (uint32_t n = 0, cpu = 0; n < nx->l1_count; n++) {
        for (uint32_t i = 0; i < nx->l1_count; i++)
            if (nx->l1[i]->cpu == &nx->cpus[cpu])
                cpu++, i = (uint32_t)-1;
        if (nx->l1[n]->cpu == NULL)
            nx_schedule(nx, n, cpu);
    }
    for (uint32_t n = 0, to = 0; n < w->vcpus; n++) {
        while (nx->l2[n]->on < 0 && nx->l1[to]->runs >= 0)
            to++;
        if (nx->l2[n]->on < 0)
            nx_l1_schedule(nx, n, to);
    }
    nx_settle(nx);
    for (uint32_t n = 0; n < w->vcpus; n++)
        for (uint32_t i = 0; i < VECTORS; i++)
            if (nx_l2_delivered(nx, n, vector_of(i)) != w->sent[n][i])
                fail_msg("L2 %u, vector %#x: sent %u, delivered %u", n, vector_of(i), w->sent[n][i],
                         nx_l2_delivered(nx, n, vector_of(i)));
    for (uint32_t n = 0; n < nx->l1_count; n++)
        assert_int_equal(nx_l1_delivered(nx, n, 0x41), w->l1_sent[n]);
}

typedef void (*step_fn)(struct walk *w);

static void walk(struct nx_options o, uint32_t steps)
{
    static const step_fn step[] = {send,   send,         send,         send_to_all,
                                   halt,   l1_interrupt, l0_schedules, l1_schedules,
                                   toggle, unmap,        settle,       settle};
    struct walk w = {.vcpus = o.vcpus};

    o.l2_eoi = true;
    w.nx = nx_new(&o);
    nx_settle(w.nx);
    nx_forget(w.nx);
    for (uint32_t i = 0; i < steps; i++)
        step[rnd(sizeof(step) / sizeof(step[0]))](&w);
    finish(&w);
    nx_free(w.nx);
}

static void test_nothing_is_lost_or_doubled(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < WORLDS; w++)
        for (uint32_t i = 0; i < 24; i++) {
            struct nx_options o = options_of((enum world)w, 2 + i % 3);

            o.hlt_inside = i % 2;
            o.features &= i % 5 == 4 ? ~(uint32_t)VAPIC_ACCEL_IPIV : ~0u;
            o.tables = 1 + i % 2;
            seed = 100 * w + i;
            walk(o, 150);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exits_of_a_thousand_ipis),
        cmocka_unit_test(test_l1s_interrupt_at_each_step_of_an_entry),
        cmocka_unit_test(test_l1s_ipi_to_a_vcpu_that_runs_l2),
        cmocka_unit_test(test_both_levels_at_once),
        cmocka_unit_test(test_a_thousand_toggles_while_l2_runs),
        cmocka_unit_test(test_restore_in_an_inhibited_vm),
        cmocka_unit_test(test_l1s_apic_passed_through),
        cmocka_unit_test(test_nothing_is_lost_or_doubled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
