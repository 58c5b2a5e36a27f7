/* SPDX-License-Identifier: MIT */
/*
 * Loading the state of another hypervisor's controllers, which come without a record: what the vCPU
 * does, a timer that has ended, I/O APIC entries with remote IRR.
 */
#include "fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

#define VECTOR 0x51
#define LEVEL  IOAPIC_RTE_LEVEL
#define RIRR   IOAPIC_RTE_RIRR
#define PIN    9u

/* ---- What the vCPU does ---- */

static void activity_is_loaded(void **state)
{
    static const enum vapic_activity all[] = {VAPIC_WAIT_FOR_SIPI, VAPIC_UNINITIALIZED,
                                              VAPIC_HALTED, VAPIC_RUNNING};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
    (void)state;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        assert_int_equal(vapic_load_activity(&fx->v[1], all[i]), VAPIC_OK);
        assert_int_equal(vapic_activity(&fx->v[1]), all[i]);
        assert_int_equal(fx_peek(fx, 1, FX_CAN_ALL).runnable, all[i] == VAPIC_RUNNING);
    }
    fx_free(fx);
}

/* A halted one with an interrupt pending wakes at its next look, if it takes interrupts. */
static void halted_one_wakes(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    vapic_post(&fx->v[0], VECTOR, false, NULL);
    assert_int_equal(vapic_load_activity(&fx->v[0], VAPIC_HALTED), VAPIC_OK);
    assert_false(fx_peek(fx, 0, VAPIC_CAN_INIT).runnable);
    assert_true(fx_peek(fx, 0, VAPIC_IF).runnable);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    fx_free(fx);
}

static void activity_is_refused(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
    (void)state;

    assert_int_equal(vapic_load_activity(&fx->v[0], VAPIC_WAIT_FOR_SIPI), VAPIC_E_ARG);
    assert_int_equal(vapic_load_activity(&fx->v[0], VAPIC_UNINITIALIZED), VAPIC_E_ARG);
    assert_int_equal(vapic_load_activity(&fx->v[1], (enum vapic_activity)4), VAPIC_E_ARG);
    assert_int_equal(vapic_load_activity(NULL, VAPIC_RUNNING), VAPIC_E_ARG);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_RUNNING);
    fx_free(fx);
}

/* ---- The timer ---- */

static void load(struct fx *fx, const uint8_t *image)
{
    vapic_reset(&fx->v[0]);
    assert_int_equal(vapic_load_image(&fx->v[0], VAPIC_IMAGE_ID8, image, VAPIC_IMAGE_SIZE, fx->now),
                     VAPIC_OK);
}

/* Without a word a count of 0 means an interrupt that is still to come; with it, none is. */
static void ended_timer_stays_ended(void **state)
{
    uint8_t image[VAPIC_IMAGE_SIZE];
    struct fx *fx = fx_new(NULL);
    (void)state;

    fx_set(fx, 0, APIC_LVT_TIMER, VECTOR);
    fx_set(fx, 0, APIC_TDCR, 0xb);
    fx_set(fx, 0, APIC_TMICT, 1000);
    fx->now.ns += 5000;
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(vapic_save_image(&fx->v[0], VAPIC_IMAGE_ID8, image, sizeof(image), fx->now),
                     VAPIC_OK);
    load(fx, image);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    load(fx, image);
    assert_int_equal(vapic_load_timer_ended(&fx->v[0]), VAPIC_OK);
    fx->now.ns += 5000;
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(fx_get(fx, 0, APIC_TMICT), 1000);
    assert_int_equal(fx_get(fx, 0, APIC_TMCCT), 0);
    fx_free(fx);
}

/* A timer of another mode, or one that was never started, has not ended: it goes on. */
static void only_a_one_shot_ends(void **state)
{
    static const struct {
        uint32_t mode, initial;
        int result;
    } rows[] = {
        {APIC_TIMER_ONESHOT, 1000000, VAPIC_OK},
        {APIC_TIMER_ONESHOT, 0, VAPIC_E_ARG},
        {APIC_TIMER_PERIODIC, 1000000, VAPIC_E_ARG},
        {APIC_TIMER_DEADLINE, 0, VAPIC_E_ARG},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fx *fx = fx_new(NULL);
        int want = rows[i].mode == APIC_TIMER_PERIODIC ? VECTOR : -1;

        fx_set(fx, 0, APIC_TDCR, 0xb);
        fx_set(fx, 0, APIC_LVT_TIMER, rows[i].mode | VECTOR);
        fx_set(fx, 0, APIC_TMICT, rows[i].initial);
        fx_equal(vapic_load_timer_ended(&fx->v[0]), rows[i].result, "row %zu", i);
        fx->now.ns += 5000000;
        fx_equal(fx_take(fx, 0), want, "row %zu", i);
        fx_free(fx);
    }
    assert_int_equal(vapic_load_timer_ended(NULL), VAPIC_E_ARG);
}

/* ---- I/O APIC entries ---- */

struct bench {
    struct fx *fx;
    struct vapic_ioapic *io;
};

static struct bench begin(void)
{
    struct bench b = {.fx = fx_new(NULL)};

    b.io = fx_ioapic(b.fx, 24, 0, 0x11);
    return b;
}

static void end(struct bench *b)
{
    fx_free(b->fx);
    fx_ioapic_free(b->io);
}

/* Level-triggered and awaiting an EOI: it is quiet until that has come, then asks again. */
static void remote_irr_holds_the_line(void **state)
{
    struct bench b = begin();
    (void)state;

    vapic_ioapic_set(b.io, PIN, 0, true);
    assert_int_equal(vapic_ioapic_load_entry(b.io, PIN, LEVEL | RIRR | VECTOR), VAPIC_OK);
    assert_int_equal(fx_take(b.fx, 0), -1);
    assert_true(fx_rte_read(b.io, PIN) & RIRR);
    vapic_broadcast_eoi(&b.fx->vm, VECTOR);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void high_line_sends_at_once(void **state)
{
    struct bench b = begin();
    (void)state;

    vapic_ioapic_set(b.io, PIN, 0, true);
    assert_int_equal(vapic_ioapic_load_entry(b.io, PIN, LEVEL | VECTOR), VAPIC_OK);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

/* The line rose before, for the other model: that edge is no edge here. */
static void high_line_is_no_edge(void **state)
{
    struct bench b = begin();
    (void)state;

    vapic_ioapic_set(b.io, PIN, 0, true);
    assert_int_equal(vapic_ioapic_load_entry(b.io, PIN, RIRR | VECTOR), VAPIC_OK);
    assert_int_equal(fx_take(b.fx, 0), -1);
    assert_false(fx_rte_read(b.io, PIN) & RIRR);
    vapic_ioapic_set(b.io, PIN, 0, false);
    vapic_ioapic_set(b.io, PIN, 0, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void what_an_entry_cannot_hold(void **state)
{
    struct bench b = begin();
    (void)state;

    assert_int_equal(vapic_ioapic_load_entry(b.io, PIN, ~UINT64_C(0)), VAPIC_OK);
    assert_int_equal(fx_rte_read(b.io, PIN) & UINT64_C(0x0000FFFFFFFE0000), 0);
    assert_int_equal(vapic_ioapic_load_entry(b.io, 24, 0), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_load_entry(NULL, 0, 0), VAPIC_E_ARG);
    end(&b);
}

/* ---- A line that moves while its entry is loaded ---- */

#define MOVES 2000u

struct mover {
    struct vapic_ioapic *io;
    atomic_uint begun, done; /* moves; odd ones raise the line */
};

static void await(atomic_uint *count, uint32_t least)
{
    while (atomic_load(count) < least)
        sched_yield();
}

static void *move_line(void *arg)
{
    struct mover *m = arg;

    for (uint32_t n = 1; n <= MOVES; n++) {
        await(&m->begun, n);
        vapic_ioapic_set(m->io, PIN, 0, n % 2);
        atomic_store(&m->done, n);
    }
    return NULL;
}

/* What the pin makes of its line once the entry is unmasked; it is masked again afterwards. */
static int taken_from_line(struct bench *b)
{
    int vector;

    vapic_ioapic_load_entry(b->io, PIN, LEVEL | VECTOR);
    vector = fx_take(b->fx, 0);
    vapic_ioapic_load_entry(b->io, PIN, IOAPIC_RTE_MASKED | LEVEL | VECTOR);
    if (vector >= 0)
        fx_eoi(b->fx, 0);
    return vector;
}

/* By another thread, as the interface allows: no move is undone. */
static void moving_line_is_kept(void **state)
{
    struct bench b = begin();
    struct mover m = {.io = b.io};
    pthread_t thread;
    uint32_t wrong = 0;
    (void)state;

    assert_int_equal(pthread_create(&thread, NULL, move_line, &m), 0);
    for (uint32_t n = 1; n <= MOVES; n++) {
        atomic_store(&m.begun, n);
        do {
            vapic_ioapic_load_entry(b.io, PIN, IOAPIC_RTE_MASKED | LEVEL | VECTOR);
        } while (atomic_load(&m.done) < n);
        wrong += taken_from_line(&b) != (n % 2 ? VECTOR : -1);
    }
    pthread_join(thread, NULL);
    assert_int_equal(wrong, 0);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activity_is_loaded),        cmocka_unit_test(halted_one_wakes),
        cmocka_unit_test(activity_is_refused),       cmocka_unit_test(ended_timer_stays_ended),
        cmocka_unit_test(remote_irr_holds_the_line), cmocka_unit_test(high_line_sends_at_once),
        cmocka_unit_test(high_line_is_no_edge),      cmocka_unit_test(what_an_entry_cannot_hold),
        cmocka_unit_test(moving_line_is_kept),       cmocka_unit_test(only_a_one_shot_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
