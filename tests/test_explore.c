/* SPDX-License-Identifier: MIT */
/* The explorer on programs whose outcomes are known: every outcome is found, and no other. */
#include "explore_fixture.h"

#include <string.h>

#include "../explore/machine.h"
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

static void spins_on_x(struct toys *t, uint32_t self)
{
    if (self == 0)
        toy_spin(t);
    else
        toy_add_atomic(t);
}

static void locks_by_spinning(struct toys *t, uint32_t self)
{
    (void)self;
    toy_lock(t);
    toy_add_plain(t);
    toy_unlock(t);
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
    {"compare and swap",
     {{{add_with_cas}, {add_with_cas}, {add_with_cas}}, x_of, NULL},
     1,
     {3},
     NULL},
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
    {"spinning", {{{spins_on_x}, {spins_on_x}}, x_of, NULL}, 1, {1}, NULL},
    {"spinning alone", {{{spins_on_x}, {does_nothing}}, x_of, NULL}, 0, {0}, "deadlock"},
    {"spin lock",
     {{{locks_by_spinning}, {locks_by_spinning}, {locks_by_spinning}}, x_of, NULL},
     1,
     {3},
     NULL},
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

/* ---- x86-TSO ---- */

static void sb_fenced(struct toys *t, uint32_t self)
{
    uint32_t *mine = self == 0 ? &t->x.value : &t->y.value;
    uint32_t *other = self == 0 ? &t->y.value : &t->x.value;

    toy_store(mine, 1);
    ex_barrier("mfence");
    t->result[self].value = toy_load(other);
}

/* The store stays in the buffer while its own actor reads it. */
static void forwards(struct toys *t, uint32_t self)
{
    uint32_t *mine = self == 0 ? &t->x.value : &t->y.value;
    uint32_t *other = self == 0 ? &t->y.value : &t->x.value;

    toy_store(mine, 1);
    t->result[self].value = toy_load(mine) * 10;
    t->result[self].value += toy_load(other);
}

static void lb(struct toys *t, uint32_t self)
{
    toy_lb(t, self);
}

static void iriw(struct toys *t, uint32_t self)
{
    if (self < 2)
        toy_iriw_write(t, self);
    else
        toy_iriw_read(t, self - 2);
}

static uint64_t four_results(const struct toys *t)
{
    uint64_t number = 0;

    for (uint32_t i = 0; i < 4; i++)
        number = number * 10 + t->result[i].value;
    return number;
}

/* Two stores to the same word by each: coherence, and the last drain wins. */
static void two_stores(struct toys *t, uint32_t self)
{
    toy_store(&t->x.value, 2 * self + 1);
    toy_store(&t->x.value, 2 * self + 2);
}

static void reads_twice(struct toys *t, uint32_t self)
{
    t->result[self].value = toy_load(&t->x.value) * 10;
    t->result[self].value += toy_load(&t->x.value);
}

static void stores_and_reads(struct toys *t, uint32_t self)
{
    if (self == 0)
        two_stores(t, self);
    else
        reads_twice(t, self);
}

/* A plain store in a buffer is awaited by another actor. */
static void stores_for_waiter(struct toys *t, uint32_t self)
{
    if (self == 0) {
        toy_store(&t->y.value, 6);
        toy_store(&t->x.value, 1);
        toy_store(&t->x.value, 0);
    } else {
        waits_for_good(t, self);
    }
}

static void locked_in_tso(struct toys *t, uint32_t self)
{
    add_locked(t, self);
    toy_store(&t->y.value, self + 1);
    add_locked(t, self);
}

static const struct row tso_rows[] = {
    {"store buffering",
     {{{sb_relaxed}, {sb_relaxed}}, results_of, NULL},
     4,
     {0, 1, 100, 101},
     NULL},
    {"strong", {{{sb_strong}, {sb_strong}}, results_of, NULL}, 3, {1, 100, 101}, NULL},
    {"fenced", {{{sb_fenced}, {sb_fenced}}, results_of, NULL}, 3, {1, 100, 101}, NULL},
    {"one fence", {{{sb_fenced}, {sb_relaxed}}, results_of, NULL}, 4, {0, 1, 100, 101}, NULL},
    {"forwarding", {{{forwards}, {forwards}}, results_of, NULL}, 4, {1010, 1011, 1110, 1111}, NULL},
    {"message passing", {{{mp}, {mp}}, results_of, NULL}, 3, {0, 1, 101}, NULL},
    {"load buffering", {{{lb}, {lb}}, results_of, NULL}, 3, {0, 1, 100}, NULL},
    {"coherence", {{{two_stores}, {two_stores}}, x_of, NULL}, 2, {2, 4}, NULL},
    {"coherence of reads",
     {{{stores_and_reads}, {stores_and_reads}}, results_of, NULL},
     6,
     {0, 1, 2, 11, 12, 22},
     NULL},
    {"Peterson", {{{peterson}, {peterson}}, x_of, NULL}, 3, {0, 1, 2}, NULL},
    {"wait", {{{stores_for_waiter}, {stores_for_waiter}}, results_of, NULL}, 2, {0, 7}, NULL},
    {"lock", {{{locked_in_tso}, {locked_in_tso}}, x_of, NULL}, 1, {4}, NULL},
    {"compare and swap", {{{add_with_cas}, {add_with_cas}}, x_of, NULL}, 1, {2}, NULL},
};

static void test_tso(void **state)
{
    struct ex_options options = complete;

    (void)state;
    options.memory = EX_TSO;
    for (size_t i = 0; i < sizeof tso_rows / sizeof tso_rows[0]; i++)
        check_row(&tso_rows[i], &options);
}

/* Nobody sees two independent writes in an order that somebody else sees reversed. */
static void test_tso_iriw(void **state)
{
    const struct toy_scenario toy = {{{iriw}, {iriw}, {iriw}, {iriw}}, four_results, NULL};
    struct ex_options options = complete;
    struct outcomes sc, tso;
    struct ex_result result;

    (void)state;
    result = explore_toy(&toy, &options, &sc);
    assert_true(result.complete);
    assert_false(outcomes_have(&sc, 1010));
    ex_result_free(&result);
    options.memory = EX_TSO;
    result = explore_toy(&toy, &options, &tso);
    assert_true(result.complete);
    assert_int_equal(sc.count, 15);
    assert_int_equal(tso.count, sc.count);
    assert_memory_equal(sc.value, tso.value, sc.count * sizeof sc.value[0]);
    ex_result_free(&result);
}

/* ---- Against brute force ---- */

static uint32_t random_seed, random_length, random_allowed;

static bool is_not_zero(void *word)
{
    return ex_read(word, "word") != 0;
}

static void wait_for_word(uint32_t *word)
{
    ex_may_end(true);
    ex_wait(is_not_zero, word, "a word");
    ex_may_end(false);
}

static void lock_word(uint32_t *word)
{
    ex_lock(word, "the lock");
}

/* With a barrier or without. */
static void unlock_word(uint32_t *word)
{
    if (random_seed & 1)
        ex_release(word, 0, "the lock");
    else
        ex_unlock(word, "the lock");
}

static uint32_t choose_one(void)
{
    return ex_choose(2, "a choice");
}

static void random_program(struct toys *t, uint32_t self)
{
    const struct toy_random random = {
        .seed = random_seed * 7 + self,
        .length = random_length,
        .allowed = random_allowed,
        .wait = wait_for_word,
        .lock = lock_word,
        .unlock = unlock_word,
        .choose = choose_one,
    };

    toy_random(t, self, &random);
}

/* Every interleaving of single steps, by the simplest means: the machine under a driver that goes
 * through all answers like an odometer. */
static struct {
    uint8_t at[256], count[256];
    uint32_t used, step;
} odometer;

#define MOST_RUNS 20000u /* of brute force; what would take more is left out */

static uint8_t turn(uint32_t count)
{
    if (odometer.step == odometer.used) {
        odometer.at[odometer.used] = 0;
        odometer.count[odometer.used++] = (uint8_t)count;
    }
    return odometer.at[odometer.step++];
}

static bool nothing_recorded(uint32_t step, uint32_t current, uint8_t *move)
{
    (void)step;
    (void)current;
    (void)move;
    return false;
}

static uint32_t preemptions; /* that brute force may spend */
static uint64_t races;       /* that it found */
static uint32_t compared;

static uint8_t any_move(const struct machine_point *point)
{
    if (point->fresh || (point->current != MACHINE_NOBODY && machine.preemptions >= preemptions))
        return point->moves[0];
    return point->moves[turn(point->count)];
}

static uint32_t any_answer(uint32_t step, uint32_t count)
{
    (void)step;
    return turn(count);
}

static const struct machine_driver brute = {nothing_recorded, any_move, any_answer};

static bool advance(void)
{
    while (odometer.used > 0) {
        if (++odometer.at[odometer.used - 1] < odometer.count[odometer.used - 1])
            return true;
        odometer.used--;
    }
    return false;
}

static uint64_t by_brute_force(const struct toy_scenario *toy, enum ex_memory_model memory,
                               struct outcomes *outcomes)
{
    const struct ex_scenario scenario = toy_scenario(toy);
    uint64_t runs = 0;

    races = 0;
    assert_int_equal(machine_load(&scenario, EX_NONE), 0);
    outcomes_start(outcomes);
    machine.memory = memory;
    machine.max_steps = 1000;
    machine.driver = &brute;
    machine.every_step = machine.watchful = true;
    machine.consult_from = 0;
    machine.single_drains = true;
    odometer.used = 0;
    do {
        odometer.step = 0;
        machine_run(&scenario);
        if (machine.outcome == MACHINE_FAILED && strcmp(machine.property, "race") == 0)
            races++;
        else
            assert_int_equal(machine.outcome, MACHINE_DONE);
        runs++;
    } while (advance() && runs < MOST_RUNS);
    machine.single_drains = false;
    outcomes_start(NULL);
    return runs;
}

static uint64_t everything(const struct toys *t)
{
    uint64_t hash = t->x.value * 31ull + t->y.value * 1009ull + t->z.value * 1000003ull;

    for (uint32_t i = 0; i < 3; i++)
        hash = hash * 0x9e3779b97f4a7c15ull + t->result[i].value;
    return hash;
}

/* A bound on preemptions counts brute force's drains differently: there, no outcome may be missing.
 */
static void compare_outcomes(const struct outcomes *found, const struct outcomes *all, bool exactly)
{
    for (size_t i = 0; i < all->count; i++) {
        if (!outcomes_have(found, all->value[i]))
            fail_msg("seed %u, %u operations, %#x, bound %d: %zu outcomes, not %zu", random_seed,
                     random_length, random_allowed, (int)preemptions, found->count, all->count);
    }
    assert_true(!exactly || found->count == all->count);
}

static void compare_with_brute_force(const struct toy_scenario *toy, enum ex_memory_model memory)
{
    static struct outcomes all, found;
    uint64_t runs = by_brute_force(toy, memory, &all);
    struct ex_options options = complete;
    struct ex_result result;

    if (runs == MOST_RUNS)
        return;
    compared++;
    options.memory = memory;
    options.bound = preemptions;
    result = explore_toy(toy, &options, &found);
    if (result.failed != (races > 0))
        fail_msg("seed %u, %u operations, %#x, bound %d: %s, and brute force finds %u races",
                 random_seed, random_length, random_allowed, (int)preemptions,
                 result.failed ? result.message : "no failure", (unsigned)races);
    assert_true(result.failed || result.complete);
    if (races == 0)
        compare_outcomes(&found, &all, memory == EX_SC || preemptions == EX_COMPLETE);
    ex_result_free(&result);
}

static const struct toy_scenario two_random = {
    {{random_program}, {random_program}}, everything, NULL};
static const struct toy_scenario three_random = {
    {{random_program}, {random_program}, {random_program}}, everything, NULL};

static const struct {
    const struct toy_scenario *toy;
    enum ex_memory_model memory;
    uint32_t length, bound, programs;
} comparisons[] = {
    {&two_random, EX_SC, 4, EX_COMPLETE, 60},
    {&two_random, EX_SC, 6, 1, 30},
    {&two_random, EX_SC, 5, 2, 30},
    {&three_random, EX_SC, 2, EX_COMPLETE, 40},
    {&three_random, EX_SC, 3, 1, 30},
    {&two_random, EX_TSO, 2, EX_COMPLETE, 40},
    {&two_random, EX_TSO, 3, EX_COMPLETE, 30},
    {&two_random, EX_TSO, 3, 1, 30},
};

static void compare_programs(uint32_t allowed)
{
    compared = 0;
    for (size_t i = 0; i < sizeof comparisons / sizeof comparisons[0]; i++) {
        random_length = comparisons[i].length;
        preemptions = comparisons[i].bound;
        for (random_seed = 0; random_seed < comparisons[i].programs; random_seed++) {
            random_allowed = allowed & (uint32_t)(random_seed * 0x9e3779b9u >> 16);
            compare_with_brute_force(comparisons[i].toy, comparisons[i].memory);
        }
    }
    assert_true(compared >= 200);
}

static void test_brute_force(void **state)
{
    (void)state;
    compare_programs(TOY_WAITS | TOY_LOCKS | TOY_CHOICES);
}

static void hand_over(struct toys *t, uint32_t self)
{
    if (self == 0)
        toy_hand_over(t);
    else
        toy_take_over(t);
}

/* Who looked at x in time and who did not are in the same state but for what they know. */
static void test_races_in_known_states(void **state)
{
    static const struct toy_scenario toy = {{{hand_over}, {hand_over}}, NULL, NULL};
    struct ex_result result = explore_toy(&toy, &complete, NULL);

    (void)state;
    assert_true(result.failed);
    assert_string_equal(result.property, "race");
    ex_result_free(&result);
}

/* Whether there is a data race is a question of what is ordered, not of what is read. */
static void test_races_by_brute_force(void **state)
{
    (void)state;
    compare_programs(TOY_WAITS | TOY_LOCKS | TOY_PLAIN);
}

/* ---- Schedules ---- */

static void x_is_3(const struct toys *t)
{
    if (t->x.value != 3)
        ex_fail("scenario", "x is %u", t->x.value);
}

static void adds_with_detours(struct toys *t, uint32_t self)
{
    for (uint32_t i = 0; i < 10; i++)
        toy_store(&t->y.value, self * 10 + i);
    toy_add_in_two(t);
    for (uint32_t i = 0; i < 10; i++)
        toy_store(&t->z.value, self * 10 + i);
}

static const struct toy_scenario losing = {
    {{adds_with_detours}, {adds_with_detours}, {adds_with_detours}}, NULL, x_is_3};

static struct ex_result replay(const char *schedule)
{
    const struct ex_scenario scenario = toy_scenario(&losing);
    struct ex_result result;
    char error[200] = "";

    outcomes_start(NULL);
    if (ex_replay(&scenario, &complete, schedule, &result, error, sizeof error) != 0)
        fail_msg("%s: %s", schedule, error);
    return result;
}

static void test_replay(void **state)
{
    struct ex_result found = explore_toy(&losing, &complete, NULL), again;

    (void)state;
    assert_true(found.failed);
    again = replay(found.schedule);
    assert_true(again.failed);
    assert_string_equal(again.property, "scenario");
    assert_string_equal(again.message, found.message);
    assert_string_equal(again.schedule, found.schedule);
    assert_int_equal(again.trace_count, found.trace_count);
    assert_memory_equal(again.trace, found.trace, found.trace_count * sizeof *found.trace);
    ex_result_free(&again);
    ex_result_free(&found);
    again = replay("");
    assert_false(again.failed);
    assert_string_equal(again.schedule, "0,1,2");
    ex_result_free(&again);
}

static void test_schedules_that_do_not_fit(void **state)
{
    static const char *const wrong[][2] = {
        {"0:x", "schedule: character 3 makes no sense"},
        {"7", "schedule: character 2 makes no sense"},
        {"0,1,2,", "schedule: character 7 makes no sense"},
        {"0:23,1:4", "schedule: item 1: the actor stops 1 steps earlier"},
        {"0,0", "schedule: item 2: nothing to be done by 0 now"},
        {"0,5", "schedule: item 2: nothing to be done by 5 now"},
        {"0:4,d0,1", "schedule: item 2: nothing to be done by 0 now"},
        {"0,1,2,1", "schedule: item 4: nothing to be done by 1 now"},
    };
    const struct ex_scenario scenario = toy_scenario(&losing);

    (void)state;
    outcomes_start(NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct ex_result result;
        char error[200] = "";

        assert_int_equal(ex_replay(&scenario, &complete, wrong[i][0], &result, error, sizeof error),
                         -1);
        assert_string_equal(error, wrong[i][1]);
        ex_result_free(&result);
    }
}

static void test_shrink(void **state)
{
    const struct ex_scenario scenario = toy_scenario(&losing);
    struct ex_options options = complete;
    struct ex_result found;
    char error[200] = "";

    (void)state;
    options.strategy = EX_SAMPLED;
    options.bound = 10;
    found = explore_toy(&losing, &options, NULL);
    assert_true(found.failed);
    assert_int_equal(ex_shrink(&scenario, &options, &found, error, sizeof error), 0);
    assert_string_equal(found.property, "scenario");
    assert_non_null(strchr(found.schedule, ':')); /* one preemption, which takes a count */
    assert_ptr_equal(strchr(found.schedule, ':'), strrchr(found.schedule, ':'));
    ex_result_free(&found);
}

/* ---- The same again ---- */

static void test_repeats(void **state)
{
    static const struct toy_scenario toy = {
        {{random_program}, {random_program}, {random_program}}, everything, NULL};
    struct ex_options options = complete;

    (void)state;
    random_length = 4;
    random_seed = 3;
    random_allowed = TOY_WAITS | TOY_LOCKS | TOY_CHOICES;
    for (options.memory = EX_SC; options.memory <= EX_TSO; options.memory++) {
        struct ex_result one = explore_toy(&toy, &options, NULL);
        struct ex_result two = explore_toy(&toy, &options, NULL);

        assert_true(one.complete && two.complete);
        assert_int_equal(one.schedules, two.schedules);
        assert_int_equal(one.steps, two.steps);
        assert_int_equal(one.blocked, two.blocked);
        ex_result_free(&one);
        ex_result_free(&two);
    }
}

/* ---- Shards ---- */

static void test_shards(void **state)
{
    static const struct toy_scenario toy = {
        {{random_program}, {random_program}, {random_program}}, everything, NULL};
    static struct outcomes all, one, sum;
    struct ex_options options = complete;

    (void)state;
    random_length = 3;
    random_allowed = TOY_WAITS | TOY_LOCKS | TOY_CHOICES;
    for (random_seed = 0; random_seed < 10; random_seed++) {
        struct ex_result result = explore_toy(&toy, &complete, &all);

        ex_result_free(&result);
        options.shards = 3;
        sum.count = 0;
        for (options.shard = 0; options.shard < 3; options.shard++) {
            result = explore_toy(&toy, &options, &one);
            assert_true(result.complete);
            ex_result_free(&result);
            for (size_t i = 0; i < one.count; i++) {
                assert_true(outcomes_have(&all, one.value[i]));
                if (!outcomes_have(&sum, one.value[i]))
                    sum.value[sum.count++] = one.value[i];
            }
        }
        assert_int_equal(sum.count, all.count);
    }
}

/* ---- Sampling ---- */

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
        cmocka_unit_test(test_tso),
        cmocka_unit_test(test_tso_iriw),
        cmocka_unit_test(test_brute_force),
        cmocka_unit_test(test_races_by_brute_force),
        cmocka_unit_test(test_races_in_known_states),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_sampled),
        cmocka_unit_test(test_schedules_that_do_not_fit),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_shrink),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
