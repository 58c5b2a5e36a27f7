/* SPDX-License-Identifier: MIT */
/*
 * Actors, and one run of them from the snapshot under a driver's decisions. A switch happens in
 * one place, machine_point() and what it calls: an actor stands before a step, somebody else goes
 * on, and later it finds itself there again.
 */
#include "machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "checkpoint.h"
#include "coroutine.h"
#include "memory.h"
#include "shadow.h"
#include "steps.h"
#include "symbols.h"
#include "tso.h"

struct machine machine = {.current = MACHINE_NOBODY};
struct caller caller;

static void *main_stack, *boot_pointer;
static uint8_t boot_stack[64 << 10] __attribute__((aligned(16)));
static jmp_buf outside; /* of actors: where a property broken in setup or check leads */
static bool outside_set;

/* ---- Leaving a run ---- */

/* Gives the run up; the actors stay where they are, for ever. */
static _Noreturn void leave(enum machine_outcome outcome)
{
    void *nowhere;

    machine.outcome = outcome;
    machine.active = false;
    machine.evaluating = 0;
    caller.stack = 0;
    coroutine_switch(&nowhere, main_stack);
    abort();
}

_Noreturn void machine_fail(const char *property, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(machine.message, sizeof machine.message, format, arguments);
    va_end(arguments);
    machine_failed(property);
}

_Noreturn void machine_failed(const char *property)
{
    machine.property = property;
    if (machine.tracing)
        steps_trace((struct ex_step){.kind = EX_STEP_FAIL,
                                     .actor = (uint8_t)machine.current,
                                     .text = property,
                                     .decisive = true});
    if (machine.active)
        leave(MACHINE_FAILED);
    if (!outside_set)
        abort();
    machine.outcome = MACHINE_FAILED;
    longjmp(outside, 1);
}

void ex_fail(const char *property, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(machine.message, sizeof machine.message, format, arguments);
    va_end(arguments);
    machine_failed(property);
}

static void on_crash(uintptr_t pc, uintptr_t address)
{
    const char *place = ex_place_name(pc);

    machine_fail("crash", "%s: access to %#lx (%s)",
                 machine.current < machine.actor_count ? machine.actors[machine.current].name : "?",
                 (unsigned long)address, place[0] != '\0' ? place : "outside of the library");
}

/* ---- Conditions ---- */

/* Asks the actor's condition, if memory has changed since it was asked last. */
static bool ready(uint32_t number)
{
    struct machine_actor *actor = &machine.actors[number];
    struct caller kept = caller;

    if (actor->ready_epoch == machine.epoch)
        return actor->is_ready;
    caller.stack = 0;
    machine.evaluating = (uint8_t)(number + 1);
    machine.ready_hash = 0;
    tso_show(number);
    actor->is_ready = actor->ready(actor->ready_arg);
    tso_show(machine.current);
    actor->ready_hash = machine.ready_hash;
    actor->ready_epoch = machine.epoch;
    machine.evaluating = 0;
    caller = kept;
    return actor->is_ready;
}

bool machine_enabled(uint32_t number)
{
    const struct machine_actor *actor = &machine.actors[number];

    return actor->status == MACHINE_READY || (actor->status == MACHINE_WAITING && ready(number));
}

/* ---- Points ---- */

static void list_moves(struct machine_point *point)
{
    point->count = 0;
    if (point->current != MACHINE_NOBODY)
        point->moves[point->count++] = (uint8_t)point->current;
    for (uint32_t i = 0; i < machine.actor_count && !point->fresh; i++) {
        if (i != point->current && machine_enabled(i))
            point->moves[point->count++] = (uint8_t)i;
    }
    if (machine.memory == EX_TSO)
        tso_list_drains(point);
}

static void record_move(uint8_t move, bool forced)
{
    struct machine_segment *segment;

    if (machine.segment_count == machine.segment_room) {
        machine.segment_room = machine.segment_room * 2 + 64;
        machine.segments =
            realloc(machine.segments, machine.segment_room * sizeof *machine.segments);
        if (machine.segments == NULL)
            abort();
    }
    segment = &machine.segments[machine.segment_count++];
    *segment = (struct machine_segment){move, forced, machine.step};
}

static _Noreturn void finish(void)
{
    for (uint32_t i = 0; i < machine.actor_count; i++) {
        const struct machine_actor *actor = &machine.actors[i];

        if (actor->status == MACHINE_WAITING && !actor->may_end)
            machine_fail("deadlock", "%s waits for %s", actor->name, actor->waits_for);
    }
    leave(MACHINE_DONE);
}

/* Decides what happens next. `current` stands before a step, or is MACHINE_NOBODY. */
static uint8_t next_move(uint32_t current, bool fresh)
{
    struct machine_point point = {.step = machine.step, .current = current, .fresh = fresh};
    uint8_t move;

    if (machine.driver->recorded(machine.step, current, &move)) {
        if (move == MACHINE_STOP)
            leave(MACHINE_CUT);
        return move;
    }
    list_moves(&point);
    if (point.count == 0)
        finish();
    move = machine.driver->decide(&point);
    if (move == MACHINE_STOP)
        leave(MACHINE_CUT);
    return move;
}

static void go_to(void **from, uint32_t number, bool forced)
{
    if (machine.current != MACHINE_NOBODY)
        machine.actors[machine.current].steps += machine.step - machine.resumed;
    machine.resumed = machine.step;
    record_move((uint8_t)number, forced);
    machine.current = number;
    machine_back_in(number);
    tso_show(number);
    coroutine_switch(from, machine.actors[number].stack_pointer);
    machine_back_in(machine.current);
}

/* Makes moves until the caller's actor `self` is to go on. */
static void move_on(uint32_t self, bool can_go_on)
{
    bool fresh = false;

    for (;;) {
        uint8_t move = next_move(can_go_on ? self : MACHINE_NOBODY, fresh);

        if (move & MACHINE_DRAIN) {
            record_move(move, !can_go_on);
            tso_drain_what_matters(move & (MACHINE_DRAIN - 1), can_go_on ? self : MACHINE_NOBODY);
            if (can_go_on)
                record_move((uint8_t)self, false);
            continue;
        }
        if (move == self && can_go_on)
            return;
        if (can_go_on)
            machine.preemptions++;
        if (move == self)
            record_move(move, true);
        else
            go_to(&machine.actors[self].stack_pointer, move, !can_go_on);
        if (machine.memory != EX_TSO || machine.actors[self].status == MACHINE_WAITING)
            return;
        can_go_on = fresh = true;
    }
}

void machine_point(void)
{
    move_on(machine.current, true);
}

void machine_await(bool (*is_ready)(void *arg), void *arg, const char *what)
{
    uint32_t self = machine.current;
    struct machine_actor *actor = &machine.actors[self];
    bool asked = false;

    steps_finish(actor);
    actor->ready = is_ready;
    actor->ready_arg = arg;
    actor->ready_epoch = UINT64_MAX;
    actor->waits_for = what;
    actor->status = MACHINE_WAITING;
    while (!ready(self) || (!asked && machine.step >= machine.consult_from)) {
        move_on(self, ready(self));
        asked = true;
    }
    actor->status = MACHINE_READY;
    steps_waited(actor);
}

void ex_may_end(bool may)
{
    if (machine.current < machine.actor_count)
        machine.actors[machine.current].may_end = may;
}

/* ---- Actors ---- */

static void actor_main(void)
{
    struct machine_actor *actor = &machine.actors[machine.current];

    actor->run(actor->arg);
    steps_finish(actor);
    actor->status = MACHINE_ENDED;
    for (;;)
        move_on(machine.current, false);
}

uint32_t ex_actor(const char *name, void (*run)(void *arg), void *arg)
{
    struct machine_actor *actor = &machine.actors[machine.actor_count];

    if (machine.actor_count == EX_MAX_ACTORS)
        ex_fail("scenario", "more than %u actors", EX_MAX_ACTORS);
    *actor = (struct machine_actor){.name = name, .run = run, .arg = arg};
    return machine.actor_count++;
}

void ex_private(const void *start, size_t size, uint32_t actor)
{
    shadow_own((uintptr_t)start, size, actor);
}

uint32_t ex_self(void)
{
    if (machine.evaluating != 0)
        return machine.evaluating - 1u;
    return machine.active ? machine.current : EX_MAX_ACTORS;
}

const char *ex_actor_name(uint32_t actor)
{
    return actor < machine.actor_count ? machine.actors[actor].name : NULL;
}

static void prepare(uint32_t number)
{
    struct machine_actor *actor = &machine.actors[number];
    uintptr_t top = MACHINE_STACKS + number * MACHINE_STRIDE + MACHINE_STACK;
    const struct machine_actor fresh = {
        .name = actor->name,
        .run = actor->run,
        .arg = actor->arg,
        .stack_pointer = coroutine_prepare(top, actor_main),
    };

    memset((void *)(top - MACHINE_SCRUB), 0, MACHINE_SCRUB - 128);
    *actor = fresh;
}

/* ---- Runs ---- */

int machine_load(const struct ex_scenario *scenario, uint32_t mode)
{
    machine.active = false;
    machine.actor_count = 0;
    machine.current = MACHINE_NOBODY;
    machine.property = NULL;
    arena_crash = on_crash;
    arena_open();
    shadow_reset();
    memory_forget();
    symbols_forget();
    outside_set = true;
    if (setjmp(outside) == 0)
        scenario->setup(scenario, (void *)MACHINE_BASE, mode);
    outside_set = false;
    arena_snapshot();
    return machine.property == NULL ? 0 : -1;
}

static void reset(void)
{
    machine.current = MACHINE_NOBODY;
    machine.evaluating = 0;
    machine.step = machine.resumed = 0;
    machine.preemptions = 0;
    machine.epoch = 1;
    machine.segment_count = machine.choice_count = machine.trace_count = 0;
    arena_restore();
    tso_reset();
    memory_reset();
    for (uint32_t i = 0; i < machine.actor_count; i++)
        prepare(i);
}

/* The first decision is made on a stack of its own, so that it can end the run like any other. */
static void boot(void)
{
    go_to(&boot_pointer, next_move(MACHINE_NOBODY, false), true);
    abort();
}

static void check(const struct ex_scenario *scenario)
{
    machine.current = MACHINE_NOBODY;
    tso_show(MACHINE_NOBODY);
    outside_set = true;
    if (setjmp(outside) == 0 && scenario->check != NULL)
        scenario->check(scenario, (void *)MACHINE_BASE);
    outside_set = false;
}

static void go(const struct ex_scenario *scenario, void *stack_pointer)
{
    machine.outcome = MACHINE_DONE;
    machine.property = NULL;
    machine.message[0] = '\0';
    machine.active = true;
    coroutine_switch(&main_stack, stack_pointer);
    machine.active = false;
    if (machine.outcome == MACHINE_DONE)
        check(scenario);
}

void machine_run(const struct ex_scenario *scenario)
{
    reset();
    machine.outcome = MACHINE_DONE;
    if (machine.actor_count > 0)
        go(scenario, coroutine_prepare((uintptr_t)boot_stack + sizeof boot_stack, boot));
}

void machine_resume(const struct ex_scenario *scenario, const struct checkpoint *checkpoint)
{
    go(scenario, checkpoint_restore(checkpoint));
}
