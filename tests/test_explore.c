/* SPDX-License-Identifier: MIT */
/* The explorer on programs whose outcomes are known: every outcome is found, and no other. */
#include "explore_fixture.h"

#include <string.h>

#include "vapic/arch/atomic.h"

static const struct ex_options complete = {
    .mode = EX_NONE, .memory = EX_SC, .strategy = EX_SYSTEMATIC, .bound = EX_COMPLETE};

/* ---- Actors of this room's own ---- */

static void add_plain(struct toys *t, uint32_t self)
{
    (void)self;
    toy_add_plain(t);
}

static void add_in_two(struct toys *t, uint32_t self)
{
    (void)self;
    toy_add_in_two(t);
}

static void add_atomic(struct toys *t, uint32_t self)
{
    (void)self;
    toy_add_atomic(t);
}

static void add_with_cas(struct toys *t, uint32_t self)
{
    (void)self;
    toy_add_with_cas(t);
}

static void add_locked(struct toys *t, uint32_t self)
{
    (void)self;
    ex_lock(&t->lock.value, "the lock");
    toy_add_plain(t);
    ex_unlock(&t->lock.value, "the lock");
}

static void sb_relaxed(struct toys *t, uint32_t self)
{
    toy_sb(t, self, VAPIC_RELEASE, VAPIC_ACQUIRE);
}

static void sb_strong(struct toys *t, uint32_t self)
{
    toy_sb(t, self, VAPIC_SEQ_CST, VAPIC_SEQ_CST);
}

static void mp(struct toys *t, uint32_t self)
{
    if (self == 0)
        toy_mp_send(t);
    else
        toy_mp_receive(t);
}

static void peterson(struct toys *t, uint32_t self)
{
    toy_peterson(t, self, VAPIC_RELEASE);
}

/* Two locks, in the order of the number or against it. */
static void two_locks(struct toys *t, uint32_t self)
{
    uint32_t *first = self == 0 ? &t->x.value : &t->y.value;
    uint32_t *second = self == 0 ? &t->y.value : &t->x.value;

    ex_lock(first, "the first");
    ex_lock(second, "the second");
    ex_unlock(second, "the second");
    ex_unlock(first, "the first");
}

static bool is_set(void *word)
{
    return ex_read(word, "a flag") != 0;
}

static void waits_for_x(struct toys *t, uint32_t self)
{
    ex_wait(is_set, &t->x.value, "x");
    t->result[self].value = 1 + ex_read(&t->y.value, "y");
}

static void waits_for_good(struct toys *t, uint32_t self)
{
    ex_may_end(true);
    waits_for_x(t, self);
}

static void sets_x(struct toys *t, uint32_t self)
{
    (void)self;
    ex_write(&t->x.value, 1, "x");
    ex_write(&t->y.value, 1, "y");
    ex_write(&t->x.value, 0, "x");
}

static void does_nothing(struct toys *t, uint32_t self)
{
    (void)t;
    (void)self;
}

static void chooses(struct toys *t, uint32_t self)
{
    t->result[self].value = ex_choose(3, "of three") * 10;
    t->result[self].value += ex_choose(2, "of two");
}

static void wild(struct toys *t, uint32_t self)
{
    (void)t;
    (void)self;
    toy_wild();
}

static void for_ever(struct toys *t, uint32_t self)
{
    (void)self;
    toy_for_ever(t);
}

static void fills_stack(struct toys *t, uint32_t self)
{
    struct toy_block block;

    (void)self;
    toy_fill(&block);
    toy_copy((struct toy_block *)t->block, &block);
}

static uint64_t x_of(const struct toys *t)
{
    return t->x.value;
}

static uint64_t results_of(const struct toys *t)
{
    return t->result[0].value * 100 + t->result[1].value;
}

/* ---- Outcomes ---- */

struct row {
    const char *name;
    struct toy_scenario toy;
    uint32_t count;
    uint64_t outcomes[8];
    const char *property; /* the exploration fails by it; NULL */
};

static const struct row rows[] = {
    {"data race", {{{add_plain}, {add_plain}}, x_of, NULL}, 0, {0}, "race"},
    {"lost update", {{{add_in_two}, {add_in_two}}, x_of, NULL}, 2, {1, 2}, NULL},
    {"atomic update", {{{add_atomic}, {add_atomic}}, x_of, NULL}, 1, {2}, NULL},
    {"three atomic updates",
     {{{add_atomic}, {add_atomic}, {add_atomic}}, x_of, NULL},
     1,
     {3},
     NULL},
    {"compare and swap", {{{add_with_cas}, {add_with_cas}, {add_with_cas}}, x_of, NULL}, 1, {3}, NULL},
    {"lock", {{{add_locked}, {add_locked}, {add_locked}}, x_of, NULL}, 1, {3}, NULL},
    {"store buffering", {{{sb_relaxed}, {sb_relaxed}}, results_of, NULL}, 3, {1, 100, 101}, NULL},
    {"store buffering, strong",
     {{{sb_strong}, {sb_strong}}, results_of, NULL},
     3,
     {1, 100, 101},
     NULL},
    {"message passing", {{{mp}, {mp}}, results_of, NULL}, 3, {0, 1, 101}, NULL},
    {"Peterson", {{{peterson}, {peterson}}, x_of, NULL}, 2, {0, 1}, NULL},
    {"deadlock", {{{two_locks}, {two_locks}}, NULL, NULL}, 0, {0}, "deadlock"},
    {"wait", {{{waits_for_x}, {does_nothing}}, NULL, NULL}, 0, {0}, "deadlock"},
    {"wait for good", {{{waits_for_good}, {does_nothing}}, results_of, NULL}, 1, {0}, NULL},
    {"wait for what passes",
     {{{waits_for_good}, {sets_x}}, results_of, NULL},
     3,
     {0, 100, 200},
     NULL},
    {"choices", {{{chooses}}, results_of, NULL}, 6, {0, 100, 1000, 1100, 2000, 2100}, NULL},
    {"crash", {{{wild}, {does_nothing}}, NULL, NULL}, 0, {0}, "crash"},
    {"livelock", {{{for_ever}}, NULL, NULL}, 0, {0}, "livelock"},
    {"race of blocks", {{{fills_stack}, {fills_stack}}, NULL, NULL}, 0, {0}, "race"},
};

static void check_row(const struct row *row, const struct ex_options *options)
{
    struct outcomes got;
    struct ex_result result = explore_toy(&row->toy, options, &got);

    if (row->property != NULL) {
        assert_true(result.failed);
        assert_string_equal(result.property, row->property);
        assert_non_null(result.schedule);
        assert_true(result.trace_count > 0);
    } else {
        if (result.failed)
            fail_msg("%s: %s: %s", row->name, result.property, result.message);
        if (options->strategy == EX_SYSTEMATIC)
            assert_true(result.complete);
        if (got.count != row->count)
            fail_msg("%s: %zu outcomes, not %u", row->name, got.count, row->count);
        assert_memory_equal(got.value, row->outcomes, row->count * sizeof got.value[0]);
    }
    ex_result_free(&result);
}

static void test_outcomes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_row(&rows[i], &complete);
}

static void test_sampled(void **state)
{
    struct ex_options options = complete;

    (void)state;
    options.strategy = EX_SAMPLED;
    options.max_schedules = 5000;
    options.seed = 1;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_row(&rows[i], &options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_sampled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
