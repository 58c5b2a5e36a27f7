/* SPDX-License-Identifier: MIT */
/*
 * The world of the explorer without the explorer.
 *
 * Every scenario in every mode, its actors as coroutines that are switched at random where the
 * room's own accesses are (explore.h), over the library as it is. What must hold holds, and nobody
 * waits for ever. (The explorer itself switches at each access of the library's, too.) Scenarios of
 * two actors are to be explored completely.
 *
 * And every property is seen to be broken where it is: by accounts that do not fit what happened.
 */
#include "../explore/scenarios.h"
#include "../explore/world_parts.h"
#include "vapic/arch/apic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define STACK 65536u
#define RUNS  50u
#define STEPS 100000u

struct actor {
    ucontext_t context;
    const char *name;
    void (*run)(void *arg);
    void *arg;
    bool ended, may_end;
    bool (*ready)(void *arg);
    void *ready_arg;
    const char *waits_for;
    char *stack;
};

static struct {
    uint8_t *memory, *snapshot;
    struct actor actor[EX_MAX_ACTORS];
    uint32_t count, self, steps;
    ucontext_t scheduler;
    uint64_t random;
    char text[65536];
    size_t text_used;
    bool inside; /* an actor runs */
    jmp_buf failed;
    char message[512];
} room;

/* ---- explore.h ---- */

static uint32_t next_random(void)
{
    room.random = room.random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(room.random >> 33);
}

/* Before each access; now and then somebody else goes on. */
static void point(void)
{
    if (room.inside && next_random() % 3 == 0)
        swapcontext(&room.actor[room.self].context, &room.scheduler);
}

uint32_t ex_actor(const char *name, void (*run)(void *arg), void *arg)
{
    assert_true(room.count < EX_MAX_ACTORS);
    room.actor[room.count].name = name;
    room.actor[room.count].run = run;
    room.actor[room.count].arg = arg;
    return room.count++;
}

void ex_private(const void *start, size_t size, uint32_t actor)
{
    (void)start;
    (void)size;
    (void)actor;
}

void ex_name(const void *start, size_t size, const char *name)
{
    (void)start;
    (void)size;
    assert_non_null(name);
}

void ex_name_array(const void *start, size_t size, size_t stride, const char *name)
{
    assert_true(size >= stride);
    ex_name(start, size, name);
}

const char *ex_text(const char *format, ...)
{
    char *text = room.text + room.text_used;
    va_list args;

    va_start(args, format);
    room.text_used += (size_t)vsnprintf(text, sizeof(room.text) - room.text_used, format, args) + 1;
    va_end(args);
    assert_true(room.text_used < sizeof(room.text));
    return text;
}

uint32_t ex_self(void)
{
    return room.inside ? room.self : EX_MAX_ACTORS;
}

uint32_t ex_read(const uint32_t *word, const char *what)
{
    (void)what;
    point();
    return *word;
}

void ex_write(uint32_t *word, uint32_t value, const char *what)
{
    (void)what;
    point();
    *word = value;
}

void ex_release(uint32_t *word, uint32_t value, const char *what)
{
    ex_write(word, value, what);
}

uint32_t ex_add(uint32_t *word, uint32_t value, const char *what)
{
    uint32_t old;

    (void)what;
    point();
    old = *word;
    *word += value;
    return old;
}

uint32_t ex_swap(uint32_t *word, uint32_t value, const char *what)
{
    uint32_t old;

    (void)what;
    point();
    old = *word;
    *word = value;
    return old;
}

void ex_write_block(void *to, const void *from, size_t size, const char *what)
{
    (void)what;
    point();
    memcpy(to, from, size);
}

static bool evaluate(bool (*ready)(void *arg), void *arg)
{
    bool was = room.inside, result;

    room.inside = false; /* no switch in there */
    result = ready(arg);
    room.inside = was;
    return result;
}

void ex_wait(bool (*ready)(void *arg), void *arg, const char *what)
{
    struct actor *a = &room.actor[room.self];

    if (!room.inside) {
        assert_true(ready(arg));
        return;
    }
    point();
    while (!evaluate(ready, arg)) {
        a->ready = ready;
        a->ready_arg = arg;
        a->waits_for = what;
        swapcontext(&a->context, &room.scheduler);
        a->ready = NULL;
    }
}

void ex_may_end(bool may)
{
    room.actor[room.self].may_end = may;
}

static bool is_free(void *arg)
{
    return *(uint32_t *)arg == 0;
}

void ex_lock(uint32_t *word, const char *what)
{
    ex_wait(is_free, word, what);
    *word = 1;
}

void ex_unlock(uint32_t *word, const char *what)
{
    (void)what;
    assert_int_equal(*word, 1);
    point();
    *word = 0;
}

uint32_t ex_choose(uint32_t count, const char *what)
{
    (void)what;
    return next_random() % count;
}

void ex_note(const char *format, ...)
{
    (void)format;
}

void ex_barrier(const char *what)
{
    (void)what;
    point();
}

void ex_fail(const char *property, const char *format, ...)
{
    va_list args;
    int used = snprintf(room.message, sizeof(room.message), "%s: ", property);

    va_start(args, format);
    vsnprintf(room.message + used, sizeof(room.message) - (size_t)used, format, args);
    va_end(args);
    longjmp(room.failed, 1);
}

bool ex_dropped(const char *what)
{
    (void)what;
    return false;
}

/* ---- One run ---- */

static void trampoline(void)
{
    struct actor *a = &room.actor[room.self];

    a->run(a->arg);
    a->ended = true;
    swapcontext(&a->context, &room.scheduler);
}

static void start(struct actor *a)
{
    if (a->stack == NULL)
        a->stack = malloc(STACK);
    assert_non_null(a->stack);
    a->ended = a->may_end = false;
    a->ready = NULL;
    getcontext(&a->context);
    a->context.uc_stack.ss_sp = a->stack;
    a->context.uc_stack.ss_size = STACK;
    a->context.uc_link = NULL;
    makecontext(&a->context, trampoline, 0);
}

static bool can_run(struct actor *a)
{
    return !a->ended && (a->ready == NULL || evaluate(a->ready, a->ready_arg));
}

/* False: nobody can. */
static bool choose(void)
{
    uint32_t first = next_random() % room.count;

    for (uint32_t i = 0; i < room.count; i++) {
        room.self = (first + i) % room.count;
        if (can_run(&room.actor[room.self]))
            return true;
    }
    return false;
}

static void check_waits(const char *name)
{
    for (uint32_t i = 0; i < room.count; i++)
        if (!room.actor[i].ended && !room.actor[i].may_end)
            fail_msg("%s: %s waits for ever: %s", name, room.actor[i].name,
                     room.actor[i].waits_for);
}

static void run_once(const struct ex_scenario *s, uint32_t mode, uint64_t seed)
{
    memcpy(room.memory, room.snapshot, EX_MEMORY);
    room.random = seed;
    room.steps = 0;
    for (uint32_t i = 0; i < room.count; i++)
        start(&room.actor[i]);
    if (setjmp(room.failed)) {
        room.inside = false;
        fail_msg("%s, mode %u, seed %llu: %s", s->name, mode, (unsigned long long)seed,
                 room.message);
    }
    while (choose()) {
        assert_true(++room.steps < STEPS);
        room.inside = true;
        swapcontext(&room.scheduler, &room.actor[room.self].context);
        room.inside = false;
    }
    check_waits(s->name);
    s->check(s, room.memory);
}

static void run_mode(const struct ex_scenario *s, uint32_t mode)
{
    memset(room.memory, 0, EX_MEMORY);
    room.count = 0;
    room.text_used = 0;
    if (setjmp(room.failed))
        fail_msg("%s, mode %u, setup: %s", s->name, mode, room.message);
    s->setup(s, room.memory, mode);
    memcpy(room.snapshot, room.memory, EX_MEMORY);
    for (uint64_t seed = 1; seed <= RUNS; seed++)
        run_once(s, mode, seed);
}

static void scenario(void **state)
{
    const struct ex_scenario *s = *state;

    assert_int_not_equal(s->modes, 0);
    for (uint32_t mode = 0; mode < EX_MODES; mode++) {
        if (s->modes & EX_MODE(mode))
            run_mode(s, mode);
    }
    if (room.count <= 2 && s->bound != EX_COMPLETE)
        fail_msg("two actors, and a bound of %u preemptions", s->bound);
}

/* ---- Broken properties ---- */

static void invented(struct world *w)
{
    world_delivered(&w->v[0], 0x41);
}

static void taken_twice(struct world *w)
{
    world_sent_to(&w->v[0], 0x41, false);
    for (int i = 0; i < 2; i++) {
        world_delivered(&w->v[0], 0x41);
        world_ended(&w->v[0]);
    }
}

static void against_tpr(struct world *w)
{
    w->v[0].ref.tpr = 0x45;
    world_sent_to(&w->v[0], 0x41, false);
    world_delivered(&w->v[0], 0x41);
}

static void against_isr(struct world *w)
{
    world_sent_to(&w->v[0], 0x51, false);
    world_sent_to(&w->v[0], 0x41, false);
    world_delivered(&w->v[0], 0x51);
    world_delivered(&w->v[0], 0x41);
}

static void against_if(struct world *w)
{
    w->v[0].guest_if = false;
    world_sent_to(&w->v[0], 0x41, false);
    world_delivered(&w->v[0], 0x41);
}

static void eoi_of_edge(struct world *w)
{
    world_eoi_seen(&w->v[0], 0x41);
}

static void eoi_not_seen(struct world *w)
{
    w->v[0].ref.eois_of_level = 1;
    world_check_end(w);
}

static void never_arrived(struct world *w)
{
    world_sent_to(&w->v[0], 0x41, false);
    world_check_end(w);
}

static void sleeps_on(struct world *w)
{
    world_sent_to(&w->v[0], 0x41, false);
    vapic_post(&w->v[0].apic, 0x41, false, NULL);
    w->v[0].asleep = true;
    world_check_end(w);
}

static void runs_on(struct world *w)
{
    world_sent_to(&w->v[0], 0x41, false);
    vapic_post(&w->v[0].apic, 0x41, false, NULL);
    world_check_end(w);
}

static void pending_unsent(struct world *w)
{
    vapic_post(&w->v[0].apic, 0x41, false, NULL);
    world_check_end(w);
}

static void pending_again(struct world *w)
{
    world_sent_to(&w->v[0], 0x41, false);
    world_delivered(&w->v[0], 0x41);
    world_ended(&w->v[0]);
    vapic_post(&w->v[0].apic, 0x41, false, NULL);
    world_check_end(w);
}

static void other_isr(struct world *w)
{
    w->v[0].ref.isr[2] = 2;
    world_check_end(w);
}

static void other_tpr(struct world *w)
{
    w->v[0].ref.tpr = 0x20;
    world_check_end(w);
}

static void level_is_silent(struct world *w)
{
    w->line[0] = LINE_HIGH;
    world_check_end(w);
}

static void level_unasked(struct world *w)
{
    world_delivered(&w->v[0], 0x61);
}

static void nmi_lost(struct world *w)
{
    w->v[0].ref.nmis_sent = 1;
    world_check_end(w);
}

static void nmi_twice(struct world *w)
{
    w->v[0].ref.nmis_sent = 1;
    w->v[0].ref.nmis = 2;
    world_check_end(w);
}

static void extint_lost(struct world *w)
{
    w->v[0].ref.extints_sent = 1;
    world_check_end(w);
}

static void holds(struct world *w)
{
    world_sent_to(&w->v[0], 0x41, false);
    world_delivered(&w->v[0], 0x41);
    world_ended(&w->v[0]);
    world_check_end(w);
}

static const struct breach {
    const char *name;
    void (*play)(struct world *w);
    const char *property; /* NULL: none */
} breaches[] = {
    {"nothing is wrong", holds, NULL},
    {"taken, never sent", invented, "invented"},
    {"taken twice", taken_twice, "twice"},
    {"taken against TPR", against_tpr, "priority"},
    {"taken against ISR", against_isr, "priority"},
    {"taken with IF clear", against_if, "priority"},
    {"EOI of an edge broadcast", eoi_of_edge, "eoi"},
    {"EOI of a level not broadcast", eoi_not_seen, "eoi"},
    {"sent, neither taken nor pending", never_arrived, "lost"},
    {"pending for a sleeper", sleeps_on, "asleep"},
    {"pending for one that runs", runs_on, "lost"},
    {"pending, never sent", pending_unsent, "invented"},
    {"pending once more", pending_again, "twice"},
    {"another ISR", other_isr, "reference"},
    {"another TPR", other_tpr, "reference"},
    {"high line, no interrupt", level_is_silent, "level"},
    {"low line, an interrupt", level_unasked, "invented"},
    {"NMI not taken", nmi_lost, "lost"},
    {"NMI taken twice", nmi_twice, "twice"},
    {"ExtINT not taken", extint_lost, "lost"},
};

#define BREACHES (sizeof(breaches) / sizeof(breaches[0]))

/* The world of a level-triggered pin with vector 61h. */
static void breach(void **state)
{
    const struct ex_scenario *s = &scenario_level_served_twice;
    const struct breach *b = *state;

    memset(room.memory, 0, EX_MEMORY);
    room.count = 0;
    room.text_used = 0;
    room.message[0] = 0;
    s->setup(s, room.memory, EX_NONE);
    if (setjmp(room.failed) == 0)
        b->play((struct world *)(void *)room.memory);
    if (b->property == NULL)
        assert_string_equal(room.message, "");
    else if (strncmp(room.message, b->property, strlen(b->property)) != 0)
        fail_msg("should break '%s', is: '%s'", b->property, room.message);
}

int main(void)
{
    struct CMUnitTest tests[256];
    size_t count = 0;

    room.memory = aligned_alloc(4096, EX_MEMORY);
    room.snapshot = malloc(EX_MEMORY);
    assert_non_null(room.memory);
    assert_non_null(room.snapshot);
    for (size_t i = 0; i < BREACHES; i++)
        tests[count++] = (struct CMUnitTest){breaches[i].name, breach, NULL, NULL,
                                             (void *)(uintptr_t)&breaches[i]};
    for (size_t i = 0; i < ex_scenario_count; i++)
        tests[count++] = (struct CMUnitTest){ex_scenarios[i]->name, scenario, NULL, NULL,
                                             (void *)(uintptr_t)ex_scenarios[i]};
    return _cmocka_run_group_tests("explorer's world", tests, count, NULL, NULL);
}
