/* SPDX-License-Identifier: MIT */
/*
 * The run loop: enter, commit, exit, halt, block; who must be notified when; what is taken back
 * when an injection did not arrive. [SDM3 12.8.4] [SDM3 7.9]
 */
#include "fixture.h"

#define IRQ (VAPIC_CAN_IRQ | (unsigned)VAPIC_IF)

static enum vapic_action post(struct fx *fx, uint8_t vector)
{
    return vapic_post(&fx->v[0], vector, false, NULL);
}

/* ---- Enter, commit, exit ---- */

static void nothing_to_do(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry = fx_peek(fx, 0, FX_CAN_ALL);

    (void)state;
    assert_int_equal(entry.event, VAPIC_CPU_NONE);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_int_equal(entry.cr8, 0);
    assert_int_equal(entry.tpr_threshold, 0);
    assert_true(entry.runnable);
    assert_false(entry.irq_window);
    assert_false(entry.nmi_window);
    assert_int_equal(entry.deadline.clock, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

/* Choosing is not acknowledging. */
static void enter_without_commit_changes_nothing(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x51);
    for (int n = 0; n < 3; n++) {
        struct vapic_entry entry = fx_peek(fx, 0, IRQ);

        assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
        assert_int_equal(entry.vector, 0x51);
        vapic_exit(&fx->v[0], entry.cr8, true);
        assert_true(fx_bit(fx, 0, APIC_IRR, 0x51));
        assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    }
    fx_free(fx);
}

static void commit_of_nothing(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry = fx_peek(fx, 0, FX_CAN_ALL);

    (void)state;
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    assert_false(vapic_not_delivered(&fx->v[0]));
    fx_free(fx);
}

/* An exit awaits completion: whatever is pending has to wait, even an NMI. */
static void incomplete_exit_injects_nothing(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    vapic_nmi(&fx->v[0]);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    entry = fx_step(fx, 0, FX_CAN_ALL | VAPIC_INCOMPLETE);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_true(entry.runnable);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_SMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_VECTOR);
    fx_free(fx);
}

/* ---- An injection that did not reach the guest ---- */

static void not_delivered_vector_comes_again(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    entry = fx_peek(fx, 0, IRQ);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_true(fx_bit(fx, 0, APIC_IRR, 0x51));
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0);
    assert_false(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void not_delivered_gives_way_to_a_higher_one(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    entry = fx_peek(fx, 0, IRQ);
    vapic_commit(&fx->v[0], &entry);
    post(fx, 0x91);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_take_eoi(fx, 0), 0x91);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void not_delivered_while_the_vector_came_again(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    entry = fx_peek(fx, 0, IRQ);
    vapic_commit(&fx->v[0], &entry);
    post(fx, 0x51);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_take_eoi(fx, 0), 0x51);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void delivered_cannot_be_taken_back(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_false(vapic_not_delivered(&fx->v[0]));
    post(fx, 0x51);
    assert_int_equal(fx_take(fx, 0), 0x51);
    assert_false(vapic_not_delivered(&fx->v[0]));
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

static void extint_cannot_be_put_back(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_set_lint(&fx->v[0], 0, true);
    entry = fx_peek(fx, 0, IRQ);
    assert_int_equal(entry.inject, VAPIC_INJECT_EXTINT);
    vapic_commit(&fx->v[0], &entry);
    vapic_set_lint(&fx->v[0], 0, false);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_step(fx, 0, IRQ).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

static void not_delivered_smi_comes_again(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_SMI);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_SMI);
    fx_free(fx);
}

/* What was taken back has not been injected, in no count. */
static void counts_of_what_was_taken_back(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t counts[256] = {0};
    struct vapic_entry entry;
    struct vapic_stats stats;

    (void)state;
    vapic_count_vectors(&fx->v[0], counts);
    post(fx, 0x51);
    entry = fx_peek(fx, 0, IRQ);
    vapic_commit(&fx->v[0], &entry);
    assert_int_equal(counts[0x51], 1);
    vapic_exit(&fx->v[0], 0, false);
    vapic_not_delivered(&fx->v[0]);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(counts[0x51], 0);
    assert_int_equal(stats.injected, 0);
    fx_free(fx);
}

static void outstanding_injection_is_not_covered(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    entry = fx_peek(fx, 0, IRQ);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    entry = fx_peek(fx, 0, IRQ); /* unknown, so still outstanding: nothing is injected on top */
    vapic_exit(&fx->v[0], 0, true);
    assert_false(vapic_not_delivered(&fx->v[0]));
    fx_free(fx);
}

/* ---- Who has to be told ---- */

/* Outside the guest nobody; the owner looks before it enters. */
static void outside_needs_no_notification(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(post(fx, 0x51), VAPIC_ACTION_NONE);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

static void in_the_guest_the_first_kicks(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_peek(fx, 0, IRQ);
    assert_int_equal(post(fx, 0x51), VAPIC_ACTION_KICK);
    assert_int_equal(post(fx, 0x61), VAPIC_ACTION_NONE);
    assert_int_equal(post(fx, 0x51), VAPIC_ACTION_NONE);
    vapic_exit(&fx->v[0], 0, true);
    assert_int_equal(fx_take_eoi(fx, 0), 0x61);
    assert_int_equal(fx_take_eoi(fx, 0), 0x51);
    fx_peek(fx, 0, IRQ);
    assert_int_equal(post(fx, 0x51), VAPIC_ACTION_KICK);
    fx_free(fx);
}

static void asleep_the_first_wakes(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    assert_false(fx_step(fx, 0, IRQ).runnable);
    assert_true(vapic_block(&fx->v[0]));
    assert_int_equal(post(fx, 0x51), VAPIC_ACTION_WAKE);
    assert_int_equal(post(fx, 0x61), VAPIC_ACTION_NONE);
    vapic_unblock(&fx->v[0]);
    assert_int_equal(fx_take(fx, 0), 0x61);
    fx_free(fx);
}

/* What arrived between looking and sleeping keeps the owner awake. */
static void block_refuses_when_something_arrived(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    assert_false(fx_step(fx, 0, IRQ).runnable);
    post(fx, 0x51);
    assert_false(vapic_block(&fx->v[0]));
    assert_true(fx_step(fx, 0, IRQ).runnable);
    fx_free(fx);
}

static void unblock_ends_the_sleep(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    fx_step(fx, 0, IRQ);
    assert_true(vapic_block(&fx->v[0]));
    vapic_unblock(&fx->v[0]);
    assert_int_equal(post(fx, 0x51), VAPIC_ACTION_NONE);
    fx_free(fx);
}

static void poke_makes_it_look(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_peek(fx, 0, IRQ);
    assert_int_equal(vapic_poke(&fx->v[0]), VAPIC_ACTION_KICK);
    assert_int_equal(vapic_poke(&fx->v[0]), VAPIC_ACTION_NONE);
    vapic_exit(&fx->v[0], 0, true);
    assert_int_equal(vapic_poke(&fx->v[0]), VAPIC_ACTION_NONE);
    vapic_halt(&fx->v[0]);
    assert_false(fx_step(fx, 0, IRQ).runnable);
    assert_true(vapic_block(&fx->v[0]));
    assert_int_equal(vapic_poke(&fx->v[0]), VAPIC_ACTION_WAKE);
    fx_free(fx);
}

static void lines_and_events_kick(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    fx_set(fx, 0, APIC_LVT_THERMAL, 0x51);
    fx_peek(fx, 0, IRQ);
    assert_int_equal(vapic_set_lint(&fx->v[0], 0, true), VAPIC_ACTION_KICK);
    vapic_exit(&fx->v[0], 0, true);
    fx_peek(fx, 0, IRQ);
    assert_int_equal(vapic_local_event(&fx->v[0], APIC_LVT_THERMAL), VAPIC_ACTION_KICK);
    fx_free(fx);
}

/* ---- HLT [SDM3 12.8.4] ---- */

static void trap_52_halted_gets_an_ipi(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    vapic_halt(&fx->v[0]);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_HALTED);
    assert_false(fx_step(fx, 0, IRQ).runnable);
    assert_true(vapic_block(&fx->v[0]));
    fx_icr(fx, 1, 0x51, 0);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).a, VAPIC_ACTION_WAKE);
    vapic_unblock(&fx->v[0]);
    assert_int_equal(fx_take_eoi(fx, 0), 0x51);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_RUNNING);
    assert_true(fx_step(fx, 0, IRQ).runnable);
    fx_free(fx);
}

static const struct {
    const char *name;
    uint8_t tpr, vector;
    unsigned can;
    bool wakes;
} wake_rows[] = {
    {"IF and a free class", 0x00, 0x51, VAPIC_IF | VAPIC_CAN_IRQ, true},
    {"IF clear", 0x00, 0x51, 0, false},
    {"blocked by TPR", 0x50, 0x51, VAPIC_IF | VAPIC_CAN_IRQ, false},
    {"just above TPR", 0x40, 0x51, VAPIC_IF | VAPIC_CAN_IRQ, true},
};

static void what_ends_halt(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(wake_rows) / sizeof(wake_rows[0]); n++) {
        struct fx *fx = fx_new(NULL);

        fx_set(fx, 0, APIC_TPR, wake_rows[n].tpr);
        vapic_halt(&fx->v[0]);
        post(fx, wake_rows[n].vector);
        fx_equal(fx_step(fx, 0, wake_rows[n].can).runnable, wake_rows[n].wakes, "%s",
                 wake_rows[n].name);
        fx_free(fx);
    }
}

static void extint_ends_halt(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_halt(&fx->v[0]);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_false(fx_step(fx, 0, 0).runnable);
    assert_true(fx_step(fx, 0, IRQ).runnable);
    fx_free(fx);
}

static void timer_ends_halt(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, 0x31);
    fx_set(fx, 0, APIC_TMICT, 1000);
    vapic_halt(&fx->v[0]);
    entry = fx_step(fx, 0, IRQ);
    assert_false(entry.runnable);
    assert_int_equal(entry.deadline.clock, VAPIC_CLOCK_NS);
    fx->now.ns = entry.deadline.when;
    entry = fx_step(fx, 0, IRQ);
    assert_true(entry.runnable);
    assert_int_equal(entry.vector, 0x31);
    fx_free(fx);
}

/* Linux uses the reserved remote read to kick a halted vCPU. */
static void remote_read_ends_halt(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    vapic_halt(&fx->v[0]);
    assert_false(fx_step(fx, 0, 0).runnable);
    fx_icr(fx, 1, APIC_DM_REMOTE, 0);
    assert_true(fx_step(fx, 0, 0).runnable);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_RUNNING);
    fx_free(fx);
}

static void spurious_wakeup_sleeps_again(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    for (int n = 0; n < 3; n++) {
        assert_false(fx_step(fx, 0, IRQ).runnable);
        assert_true(vapic_block(&fx->v[0]));
        vapic_poke(&fx->v[0]);
        vapic_unblock(&fx->v[0]);
    }
    fx_free(fx);
}

static void halt_with_a_vector_pending(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x51);
    vapic_halt(&fx->v[0]);
    assert_int_equal(fx_take(fx, 0), 0x51);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_RUNNING);
    fx_free(fx);
}

/* ---- Reading IRR collects what was posted; events must not get lost by it ---- */

struct arrival {
    const char *name;
    void (*arrive)(struct fx *fx);
    enum vapic_inject inject;
    enum vapic_cpu_event event;
};

static void arrive_nmi(struct fx *fx)
{
    vapic_nmi(&fx->v[0]);
}

static void arrive_smi(struct fx *fx)
{
    fx_icr(fx, 1, APIC_DM_SMI, 0);
}

static void arrive_init(struct fx *fx)
{
    fx_icr(fx, 1, APIC_DM_INIT | APIC_ICR_ASSERT, 0);
}

static void arrive_edge(struct fx *fx)
{
    vapic_set_lint(&fx->v[0], 1, true);
}

static void arrive_level(struct fx *fx)
{
    vapic_set_lint(&fx->v[0], 0, true);
}

static void arrive_local(struct fx *fx)
{
    vapic_local_event(&fx->v[0], APIC_LVT_THERMAL);
}

static void arrive_vector(struct fx *fx)
{
    vapic_post(&fx->v[0], 0x71, false, NULL);
}

static void arrive_nmi_message(struct fx *fx)
{
    fx_icr(fx, 1, APIC_DM_NMI, 0);
}

static void arrive_remote_read(struct fx *fx)
{
    fx_icr(fx, 1, APIC_DM_REMOTE, 0);
}

static const struct arrival arrivals[] = {
    {"NMI", arrive_nmi, VAPIC_INJECT_NMI, VAPIC_CPU_NONE},
    {"NMI message", arrive_nmi_message, VAPIC_INJECT_NMI, VAPIC_CPU_NONE},
    {"remote read", arrive_remote_read, VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
    {"SMI", arrive_smi, VAPIC_INJECT_SMI, VAPIC_CPU_NONE},
    {"INIT", arrive_init, VAPIC_INJECT_NONE, VAPIC_CPU_INIT},
    {"LINT1 edge", arrive_edge, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE},
    {"LINT0 ExtINT", arrive_level, VAPIC_INJECT_EXTINT, VAPIC_CPU_NONE},
    {"thermal", arrive_local, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE},
    {"vector", arrive_vector, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE},
};

#define ARRIVALS (sizeof(arrivals) / sizeof(arrivals[0]))

static struct fx *with_entries(void)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    fx_set(fx, 0, APIC_LVT_LINT1, 0x77);
    fx_set(fx, 0, APIC_LVT_THERMAL, 0x75);
    return fx;
}

static void events_survive_a_read_of_irr(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < ARRIVALS; n++) {
        struct fx *fx = with_entries();
        struct vapic_entry entry;

        arrivals[n].arrive(fx);
        fx_read(fx, 0, APIC_IRR);
        entry = fx_step(fx, 0, FX_CAN_ALL);
        fx_equal(entry.inject, arrivals[n].inject, "%s", arrivals[n].name);
        fx_equal(entry.event, arrivals[n].event, "%s", arrivals[n].name);
        fx_free(fx);
    }
}

/* The same for a halted vCPU that is about to sleep. */
static void nobody_sleeps_after_a_read_of_irr(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < ARRIVALS; n++) {
        struct fx *fx = with_entries();

        vapic_halt(&fx->v[0]);
        assert_false(fx_step(fx, 0, FX_CAN_ALL).runnable);
        arrivals[n].arrive(fx);
        fx_read(fx, 0, APIC_IRR);
        fx_equal(vapic_block(&fx->v[0]), false, "%s", arrivals[n].name);
        fx_equal(fx_step(fx, 0, FX_CAN_ALL).runnable, true, "%s", arrivals[n].name);
        fx_free(fx);
    }
}

static void events_survive_a_save(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < ARRIVALS; n++) {
        struct fx *fx = with_entries();
        uint8_t image[VAPIC_IMAGE_SIZE];
        struct vapic_entry entry;

        arrivals[n].arrive(fx);
        vapic_save_image(&fx->v[0], VAPIC_IMAGE_ID32, image, sizeof(image), fx->now);
        entry = fx_step(fx, 0, FX_CAN_ALL);
        fx_equal(entry.inject, arrivals[n].inject, "%s", arrivals[n].name);
        fx_equal(entry.event, arrivals[n].event, "%s", arrivals[n].name);
        fx_free(fx);
    }
}

/* Each of them reaches a vCPU wherever it is. */
static void every_arrival_notifies(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < ARRIVALS; n++) {
        struct fx *fx = with_entries();
        struct vapic_entry entry;

        fx_peek(fx, 0, FX_CAN_ALL);
        arrivals[n].arrive(fx);
        fx_equal(vapic_poke(&fx->v[0]), VAPIC_ACTION_NONE, "%s has kicked", arrivals[n].name);
        vapic_exit(&fx->v[0], 0, true);
        entry = fx_step(fx, 0, FX_CAN_ALL);
        fx_equal(entry.inject, arrivals[n].inject, "%s", arrivals[n].name);
        fx_free(fx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_do),
        cmocka_unit_test(enter_without_commit_changes_nothing),
        cmocka_unit_test(commit_of_nothing),
        cmocka_unit_test(incomplete_exit_injects_nothing),
        cmocka_unit_test(not_delivered_vector_comes_again),
        cmocka_unit_test(not_delivered_gives_way_to_a_higher_one),
        cmocka_unit_test(not_delivered_while_the_vector_came_again),
        cmocka_unit_test(delivered_cannot_be_taken_back),
        cmocka_unit_test(extint_cannot_be_put_back),
        cmocka_unit_test(not_delivered_smi_comes_again),
        cmocka_unit_test(counts_of_what_was_taken_back),
        cmocka_unit_test(outstanding_injection_is_not_covered),
        cmocka_unit_test(outside_needs_no_notification),
        cmocka_unit_test(in_the_guest_the_first_kicks),
        cmocka_unit_test(asleep_the_first_wakes),
        cmocka_unit_test(block_refuses_when_something_arrived),
        cmocka_unit_test(unblock_ends_the_sleep),
        cmocka_unit_test(poke_makes_it_look),
        cmocka_unit_test(lines_and_events_kick),
        cmocka_unit_test(trap_52_halted_gets_an_ipi),
        cmocka_unit_test(what_ends_halt),
        cmocka_unit_test(extint_ends_halt),
        cmocka_unit_test(timer_ends_halt),
        cmocka_unit_test(remote_read_ends_halt),
        cmocka_unit_test(spurious_wakeup_sleeps_again),
        cmocka_unit_test(halt_with_a_vector_pending),
        cmocka_unit_test(events_survive_a_read_of_irr),
        cmocka_unit_test(nobody_sleeps_after_a_read_of_irr),
        cmocka_unit_test(events_survive_a_save),
        cmocka_unit_test(every_arrival_notifies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
