/* SPDX-License-Identifier: MIT */
/*
 * The explorer's memory of C11 by litmus tests: what it must show and what it must never show, over
 * all interleavings and all values that loads may return. And data races: found where two accesses
 * are not ordered, not found where they are.
 */
#include "../explore/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

/* ---- In place of the engine ---- */

struct machine machine;

static jmp_buf failed;
static bool raced;

void machine_fail(const char *property, const char *format, ...)
{
    (void)format;
    assert_string_equal(property, "race");
    raced = true;
    longjmp(failed, 1);
}

const char *ex_address_name(const void *address, size_t size)
{
    (void)address;
    (void)size;
    return "";
}

const char *ex_place_name(uintptr_t pc)
{
    (void)pc;
    return "";
}

/* ---- All decisions, one after the other ---- */

#define DECISIONS 64u

static uint32_t decision[DECISIONS], count_of[DECISIONS], depth, known;

static uint32_t decide(uint32_t count)
{
    assert_true(depth < DECISIONS);
    if (depth == known) {
        decision[known] = 0;
        known++;
    }
    count_of[depth] = count;
    return decision[depth++];
}

uint32_t machine_choose(uint32_t count)
{
    return decide(count);
}

static bool next_decisions(void)
{
    for (known = depth; known > 0; known--) {
        if (decision[known - 1] + 1 < count_of[known - 1]) {
            decision[known - 1]++;
            return true;
        }
    }
    return false;
}

/* ---- Litmus programs ---- */

enum op_kind { END, LOAD, STORE, ADD, PLAIN_LOAD, PLAIN_STORE, UNLESS, LOCK, UNLOCK };

struct op {
    enum op_kind kind;
    uint8_t at; /* variable; of UNLESS a register: ends the program unless it holds `value` */
    int order;
    uint64_t value; /* of loads: the register */
};

#define RLX __ATOMIC_RELAXED
#define ACQ __ATOMIC_ACQUIRE
#define REL __ATOMIC_RELEASE
#define SC  __ATOMIC_SEQ_CST

enum { X, Y, Z, MUTEX };

#define MAX_OPS 5u
#define ACTORS  4u

struct litmus {
    const char *name;
    enum ex_memory_model memory;
    struct op program[ACTORS][MAX_OPS];
    const char *shown, *hidden; /* outcomes: one digit per register, '.' any; NULL: none */
    bool race;
};

static char reg[5];

static struct machine_access access_of(const struct op *op)
{
    return (struct machine_access){.address = MACHINE_BASE + 64 * op->at,
                                   .size = 8,
                                   .order = (uint8_t)op->order,
                                   .operand = op->value};
}

static uint64_t *word(const struct op *op)
{
    return (uint64_t *)(MACHINE_BASE + 64 * op->at);
}

static void atomic(struct machine_access *a)
{
    if (machine.memory == EX_C11) {
        memory_atomic(a);
        return;
    }
    a->value = *(uint64_t *)a->address;
    if (a->kind != MACHINE_LOAD)
        *(uint64_t *)a->address = a->kind == MACHINE_RMW ? a->value + a->operand : a->operand;
    memory_observe(a);
}

static void perform(const struct op *op)
{
    struct machine_access a = access_of(op);

    switch (op->kind) {
    case LOAD:
        a.kind = MACHINE_LOAD;
        atomic(&a);
        reg[op->value] = (char)('0' + a.value);
        break;
    case STORE:
    case UNLOCK: /* the engine's is an exchange; a release is all that it takes */
        a.kind = MACHINE_STORE;
        atomic(&a);
        break;
    case ADD:
        a.kind = MACHINE_RMW;
        a.op = MACHINE_ADD;
        atomic(&a);
        break;
    case PLAIN_LOAD:
        a.kind = MACHINE_LOAD;
        memory_plain(&a);
        reg[op->value] = (char)('0' + *word(op));
        break;
    case PLAIN_STORE:
        a.kind = MACHINE_STORE;
        memory_plain(&a);
        *word(op) = op->value;
        break;
    case LOCK:
        memory_lock((const uint32_t *)word(op));
        *word(op) = 1;
        break;
    default:
        break;
    }
}

static uint32_t at_op[ACTORS];

static bool can_go_on(const struct litmus *test, uint32_t actor)
{
    const struct op *op = &test->program[actor][at_op[actor]];

    if (at_op[actor] == MAX_OPS || op->kind == END)
        return false;
    if (op->kind == UNLESS)
        return reg[op->at] == (char)('0' + op->value);
    return op->kind != LOCK || *word(op) == 0;
}

static bool step(const struct litmus *test)
{
    uint32_t ready[ACTORS], count = 0, actor;

    for (uint32_t i = 0; i < ACTORS; i++)
        if (can_go_on(test, i))
            ready[count++] = i;
    if (count == 0)
        return false;
    actor = ready[count > 1 ? decide(count) : 0];
    machine.current = actor;
    perform(&test->program[actor][at_op[actor]++]);
    return true;
}

static bool is_outcome(const char *pattern)
{
    for (uint32_t i = 0; pattern[i] != '\0'; i++)
        if (pattern[i] != '.' && pattern[i] != reg[i])
            return false;
    return true;
}

/* One sequence of decisions, to the end or to the first race. */
static void run_once(const struct litmus *test)
{
    depth = 0;
    memset((void *)MACHINE_BASE, 0, 4096);
    memset(at_op, 0, sizeof(at_op));
    strcpy(reg, "----");
    machine.memory = test->memory;
    machine.epoch++;
    memory_reset();
    if (setjmp(failed) != 0)
        return;
    while (step(test))
        ;
}

static void run_all(void **state)
{
    const struct litmus *test = *state;
    bool shown = false;

    raced = false;
    known = 0;
    do {
        run_once(test);
        shown = shown || (test->shown != NULL && is_outcome(test->shown));
        if (test->hidden != NULL && is_outcome(test->hidden))
            fail_msg("%s is seen", reg);
    } while (next_decisions());
    if (test->shown != NULL && !shown)
        fail_msg("%s is never seen", test->shown);
    assert_int_equal(raced, test->race);
}

/* ---- The tests ---- */

#define MP(model, store, load)                                                                     \
    .memory = model, .program = {                                                                  \
                         {{STORE, X, RLX, 1}, {STORE, Y, store, 1}},                               \
                         {{LOAD, Y, load, 0}, {LOAD, X, RLX, 1}},                                  \
    }

#define SB(store, load)                                                                            \
    .memory = EX_C11, .program = {                                                                 \
                          {{STORE, X, store, 1}, {LOAD, Y, load, 0}},                              \
                          {{STORE, Y, store, 1}, {LOAD, X, load, 1}},                              \
    }

/* As the protocols of the library do it: a read-modify-write, then a load. */
#define SB_RMW(rmw, load)                                                                          \
    .memory = EX_C11, .program = {                                                                 \
                          {{ADD, X, rmw, 1}, {LOAD, Y, load, 0}},                                  \
                          {{ADD, Y, rmw, 1}, {LOAD, X, load, 1}},                                  \
    }

#define IRIW(store, load)                                                                          \
    .memory = EX_C11, .program = {                                                                 \
                          {{STORE, X, store, 1}},                                                  \
                          {{STORE, Y, store, 1}},                                                  \
                          {{LOAD, X, load, 0}, {LOAD, Y, load, 1}},                                \
                          {{LOAD, Y, load, 2}, {LOAD, X, load, 3}},                                \
    }

#define WRC(store, load)                                                                           \
    .memory = EX_C11, .program = {                                                                 \
                          {{STORE, X, RLX, 1}},                                                    \
                          {{LOAD, X, load, 0}, {STORE, Y, store, 1}},                              \
                          {{LOAD, Y, load, 1}, {LOAD, X, RLX, 2}},                                 \
    }

/* Plain data behind a flag: no load of the data unless the flag was seen. */
#define GUARDED(model, store, load)                                                                \
    .memory = model, .program = {                                                                  \
                         {{PLAIN_STORE, X, 0, 1}, {STORE, Y, store, 1}},                           \
                         {{LOAD, Y, load, 0}, {UNLESS, 0, 0, 1}, {PLAIN_LOAD, X, 0, 1}},           \
    }

#define LOCKED(model)                                                                              \
    .memory = model, .program = {                                                                  \
                         {{LOCK, MUTEX, 0, 0}, {PLAIN_STORE, X, 0, 1}, {UNLOCK, MUTEX, REL, 0}},   \
                         {{LOCK, MUTEX, 0, 0}, {PLAIN_LOAD, X, 0, 0}, {UNLOCK, MUTEX, REL, 0}},    \
    }

static const struct litmus tests[] = {
    {"message_relaxed_flag_is_not_enough", MP(EX_C11, RLX, RLX), .shown = "10"},
    {"message_release_alone_is_not_enough", MP(EX_C11, REL, RLX), .shown = "10"},
    {"message_acquire_alone_is_not_enough", MP(EX_C11, RLX, ACQ), .shown = "10"},
    {"message_release_acquire", MP(EX_C11, REL, ACQ), .shown = "11", .hidden = "10"},
    {"message_under_interleaving_only", MP(EX_SC, RLX, RLX), .shown = "11", .hidden = "10"},
    {"buffering_release_acquire_is_not_enough", SB(REL, ACQ), .shown = "00"},
    {"buffering_seq_cst", SB(SC, SC), .shown = "11", .hidden = "00"},
    {"buffering_seq_cst_store_acquire_load", SB(SC, ACQ), .shown = "00"},
    {"buffering_operation_and_load", SB_RMW(SC, SC), .shown = "11", .hidden = "00"},
    {"buffering_operation_is_no_barrier", SB_RMW(SC, ACQ), .shown = "00"},
    {"buffering_weaker_operation", SB_RMW(__ATOMIC_ACQ_REL, SC), .shown = "00"},
    {"two_readers_two_writers_acquire", IRIW(REL, ACQ), .shown = "1010"},
    {"two_readers_two_writers_seq_cst", IRIW(SC, SC), .shown = "1111", .hidden = "1010"},
    {"causality_relaxed", WRC(RLX, RLX), .shown = "110"},
    {"causality_release_acquire", WRC(REL, ACQ), .shown = "111", .hidden = "110"},
    {"coherence_never_back", .memory = EX_C11,
     .program = {{{STORE, X, RLX, 1}}, {{LOAD, X, RLX, 0}, {LOAD, X, RLX, 1}}}, .shown = "01",
     .hidden = "10"},
    {"own_store_is_seen", .memory = EX_C11, .program = {{{STORE, X, RLX, 1}, {LOAD, X, RLX, 0}}},
     .shown = "1", .hidden = "0"},
    {"operations_are_whole", .memory = EX_C11,
     .program = {{{ADD, X, RLX, 1}, {STORE, Y, REL, 1}},
                 {{ADD, X, RLX, 1}, {LOAD, Y, ACQ, 0}, {UNLESS, 0, 0, 1}, {LOAD, X, RLX, 1}}},
     .shown = "12", .hidden = "11"},
    {"release_sequence_goes_on", .memory = EX_C11,
     .program = {{{STORE, X, RLX, 1}, {STORE, Y, REL, 1}},
                 {{LOAD, Y, RLX, 0}, {UNLESS, 0, 0, 1}, {ADD, Y, RLX, 1}},
                 {{LOAD, Y, ACQ, 1}, {LOAD, X, RLX, 2}}},
     .shown = "121", .hidden = ".20"},
    {"release_sequence_ends_with_a_store", .memory = EX_C11,
     .program = {{{STORE, X, RLX, 1}, {STORE, Y, REL, 1}},
                 {{LOAD, Y, RLX, 0}, {UNLESS, 0, 0, 1}, {STORE, Y, RLX, 2}},
                 {{LOAD, Y, ACQ, 1}, {LOAD, X, RLX, 2}}},
     .shown = ".20"},
    /* The limit of the machine, told at its head. */
    {"loads_do_not_wait_for_the_future", .memory = EX_C11,
     .program = {{{LOAD, X, RLX, 0}, {STORE, Y, RLX, 1}}, {{LOAD, Y, RLX, 1}, {STORE, X, RLX, 1}}},
     .shown = "10", .hidden = "11"},
    {"race_behind_a_relaxed_flag", GUARDED(EX_C11, RLX, RLX), .race = true},
    {"race_behind_a_relaxed_flag_of_interleaving", GUARDED(EX_SC, RLX, RLX), .race = true},
    {"race_behind_a_flag_that_is_only_released", GUARDED(EX_SC, REL, RLX), .race = true},
    {"no_race_behind_a_flag", GUARDED(EX_C11, REL, ACQ), .shown = "11", .hidden = "10"},
    {"no_race_behind_a_flag_of_interleaving", GUARDED(EX_SC, REL, ACQ), .shown = "11"},
    {"no_race_under_a_lock", LOCKED(EX_C11), .shown = "1"},
    {"no_race_under_a_lock_of_interleaving", LOCKED(EX_SC), .shown = "1"},
    {"race_of_a_plain_and_an_atomic_store", .memory = EX_SC,
     .program = {{{PLAIN_STORE, X, 0, 1}}, {{STORE, X, SC, 2}}}, .race = true},
    {"no_race_of_two_plain_loads", .memory = EX_SC,
     .program = {{{PLAIN_LOAD, X, 0, 0}}, {{PLAIN_LOAD, X, 0, 1}}}},
    {"no_race_of_atomic_accesses", .memory = EX_C11,
     .program = {{{STORE, X, RLX, 1}}, {{STORE, X, RLX, 2}}, {{LOAD, X, RLX, 0}}}, .shown = "2"},
};

#define TESTS (sizeof(tests) / sizeof(tests[0]))

/* A word that is read by halves: the parts of one store never mix with another's place. */
static void parts_of_a_word(void **state)
{
    struct machine_access whole = {.address = MACHINE_BASE,
                                   .size = 8,
                                   .kind = MACHINE_CAS,
                                   .order = SC,
                                   .operand = 0x1111111122222222,
                                   .failure = RLX};
    struct machine_access half = {
        .address = MACHINE_BASE + 4, .size = 4, .kind = MACHINE_LOAD, .order = RLX};

    (void)state;
    memset((void *)MACHINE_BASE, 0, 64);
    machine.memory = EX_C11;
    memory_reset();
    machine.current = 0;
    memory_atomic(&half);
    assert_int_equal(half.value, 0);
    memory_atomic(&whole);
    assert_false(whole.failed);
    memory_atomic(&half);
    assert_int_equal(half.value, 0x11111111);
    half.kind = MACHINE_STORE;
    half.operand = 0x33333333;
    memory_atomic(&half);
    whole.expected = 0x1111111122222222;
    memory_atomic(&whole);
    assert_true(whole.failed);
    assert_true(whole.value == 0x3333333322222222);
}

int main(void)
{
    struct CMUnitTest list[TESTS + 1] = {cmocka_unit_test(parts_of_a_word)};
    void *memory = mmap((void *)MACHINE_BASE, EX_MEMORY, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (memory != (void *)MACHINE_BASE) {
        perror("mmap");
        return 1;
    }
    for (size_t i = 0; i < TESTS; i++)
        list[i + 1] =
            (struct CMUnitTest){tests[i].name, run_all, NULL, NULL, (void *)(uintptr_t)&tests[i]};
    return _cmocka_run_group_tests("explore_c11", list, TESTS + 1, NULL, NULL);
}
