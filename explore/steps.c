/* SPDX-License-Identifier: MIT */
/*
 * What an actor does to memory, step by step: plain accesses, which the compiled code makes itself
 * as soon as it is told to go on; atomic ones, which are made here; and those of this room.
 */
#include "steps.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"
#include "memory.h"
#include "mutation.h"
#include "shadow.h"
#include "tso.h"

/* ---- Bookkeeping ---- */

static inline struct machine_actor *running(void)
{
    return &machine.actors[machine.current];
}

void steps_stand(struct machine_actor *actor)
{
    actor->stands = caller;
    actor->local = 0;
}

/* Before a condition, and no access. */
static void stand_and_wait(struct machine_actor *actor)
{
    actor->pending = (struct machine_access){0};
    steps_stand(actor);
}

static inline uint8_t others_of(uint32_t actor)
{
    return (uint8_t)(((1u << machine.actor_count) - 1) & ~(1u << actor));
}

/* Those that may still do something, if only by a store in their buffers. */
static uint8_t living_others(uint32_t actor)
{
    uint8_t others = others_of(actor);

    for (uint32_t i = 0; i < machine.actor_count; i++) {
        if (machine.actors[i].status == MACHINE_ENDED && !tso_waiting(i))
            others &= (uint8_t) ~(1u << i);
    }
    return others;
}

static inline size_t offset_of(uintptr_t address)
{
    return address - MACHINE_BASE;
}

void steps_trace(struct ex_step step)
{
    if (machine.trace_count == machine.trace_room) {
        machine.trace_room = machine.trace_room * 2 + 256;
        machine.trace = realloc(machine.trace, machine.trace_room * sizeof *machine.trace);
        if (machine.trace == NULL)
            abort();
    }
    machine.trace[machine.trace_count++] = step;
}

bool steps_shared(uintptr_t address, size_t size, uint32_t actor)
{
    size_t start = offset_of(address) & ~(size_t)7;
    size_t length = ((offset_of(address) + size + 7) & ~(size_t)7) - start;

    return shadow_conflicts(start, length, true, others_of(actor));
}

/* ---- The beginning and the end of a step ---- */

static bool may_conflict(const struct machine_access *access, bool write, uint8_t others)
{
    return shadow_conflicts(offset_of(access->address), access->size, write, others);
}

/* The actor's store buffer is about to be emptied: the same for each store in it. */
static bool flush_may_conflict(uint32_t self, uint8_t others)
{
    struct machine_access store = {.kind = MACHINE_STORE};

    for (uint32_t i = 0; tso_peek(self, i, &store.address, &store.size); i++) {
        if (may_conflict(&store, true, others))
            return true;
    }
    return false;
}

/* Whether somebody else might do something here that matters. */
static bool worth_asking(uint32_t self, const struct machine_access *access)
{
    bool write = access->kind != MACHINE_LOAD;
    uint8_t others = living_others(self);

    if (machine.every_step)
        return true;
    if (machine.memory == EX_TSO) {
        if (tso_buffers(access))
            return false;
        if (write && flush_may_conflict(self, others))
            return true;
    }
    return access->kind != MACHINE_FENCE && may_conflict(access, write, others);
}

/* The actor stands before this access; returns when it is to make it. */
static void begin(struct machine_actor *actor, const struct machine_access *access)
{
    actor->pending = *access;
    if (machine.step >= machine.consult_from && worth_asking(machine.current, access)) {
        steps_stand(actor);
        machine_point();
    }
    if (machine.step >= machine.max_steps)
        machine_fail("livelock", "no end after %u steps; %s is at %s, %s", machine.step,
                     actor->name,
                     access->what != NULL ? access->what
                                          : ex_address_name((void *)access->address, access->size),
                     access->pc != 0 ? ex_place_name(access->pc) : "in the world");
    machine.step++;
    if (access->kind != MACHINE_LOAD)
        machine.epoch++;
}

static enum ex_step_kind step_kind(const struct machine_access *access)
{
    switch (access->kind) {
    case MACHINE_LOAD:
        return EX_STEP_READ;
    case MACHINE_STORE:
        return EX_STEP_WRITE;
    case MACHINE_CAS:
        return access->failed ? EX_STEP_CAS_FAILED : EX_STEP_RMW;
    case MACHINE_RMW:
        return EX_STEP_RMW;
    case MACHINE_FENCE:
        break;
    }
    return EX_STEP_NOTE;
}

static uint64_t memory_value(uintptr_t address, size_t size)
{
    uint64_t value = 0;

    memcpy(&value, (void *)address, size < sizeof value ? size : sizeof value);
    return value;
}

static void trace_access(const struct machine_access *access)
{
    if (!machine.tracing)
        return;
    steps_trace((struct ex_step){
        .kind = step_kind(access),
        .actor = (uint8_t)machine.current,
        .size = (uint8_t)(access->size < 255 ? access->size : 255),
        .order = access->order,
        .value = access->kind == MACHINE_LOAD || access->kind == MACHINE_FENCE
                     ? access->value
                     : memory_value(access->address, access->size),
        .old = access->value,
        .address = (void *)access->address,
        .pc = access->pc,
        .text = access->what,
    });
}

/* True: a step that nobody else can notice, made without further ado. What another actor is not
 * known to touch is the actor's own; words that are partly others' must be kept in the hash. */
static inline bool make_quietly(const struct machine_access *access)
{
    size_t offset = offset_of(access->address);
    bool write = access->kind != MACHINE_LOAD;

    if (machine.watchful || machine.step >= machine.max_steps ||
        machine.actors[machine.current].has_delayed)
        return false;
    if (write ? steps_shared(access->address, access->size, machine.current)
              : shadow_conflicts(offset, access->size, false, others_of(machine.current)))
        return false;
    if (machine.memory == EX_TSO && write && access->order != MACHINE_PLAIN)
        return false;
    machine.step++;
    return true;
}

/* ---- Accesses that are no steps ---- */

static void read_by_condition(uintptr_t address, size_t size, bool write)
{
    uint32_t actor = machine.evaluating - 1u;

    if (write)
        machine_fail("scenario", "%s: the condition of a wait writes to memory",
                     machine.actors[actor].name);
    shadow_note(offset_of(address), size, false, actor);
    machine.ready_hash = steps_mix(machine.ready_hash * 3 + steps_contents(address, size, 0));
    memory_condition(actor, address, size);
}

/* Memory outside of the arena: the actor's own stack, constants. */
static void elsewhere(uintptr_t address, bool write, uintptr_t pc)
{
    uintptr_t offset = address - MACHINE_STACKS;

    if (offset - machine.current * MACHINE_STRIDE < MACHINE_STACK || machine.evaluating != 0)
        return;
    if (offset < EX_MAX_ACTORS * MACHINE_STRIDE)
        machine_fail("private", "%s reaches the stack of %s", running()->name,
                     ex_actor_name((uint32_t)(offset / MACHINE_STRIDE)));
    if (write || address < 65536)
        machine_fail("crash", "%s: %s %#lx, outside of the scenario's memory (%s)", running()->name,
                     write ? "a store to" : "a load from", (unsigned long)address,
                     ex_place_name(pc));
}

/* True: nobody else can have to do with this access. */
static bool uninteresting(uintptr_t address, size_t size, bool write, uintptr_t pc)
{
    size_t offset = offset_of(address);

    if (offset >= EX_MEMORY || size > EX_MEMORY - offset) {
        elsewhere(address, write, pc);
        return true;
    }
    if (shadow_owner[offset] != 0) {
        uint32_t self = ex_self();

        if (shadow_owner[offset] != self + 1)
            machine_fail("private", "%s reaches %s, private memory of %s", ex_actor_name(self),
                         ex_address_name((void *)address, size),
                         ex_actor_name(shadow_owner[offset] - 1u));
        return true;
    }
    if (machine.evaluating != 0) {
        read_by_condition(address, size, write);
        return true;
    }
    return false;
}

/* ---- Atomic accesses ---- */

static uint64_t combine(enum machine_op op, uint64_t old, uint64_t operand)
{
    switch (op) {
    case MACHINE_XCHG:
        return operand;
    case MACHINE_ADD:
        return old + operand;
    case MACHINE_SUB:
        return old - operand;
    case MACHINE_AND:
        return old & operand;
    case MACHINE_OR:
        return old | operand;
    case MACHINE_XOR:
        return old ^ operand;
    case MACHINE_NAND:
        return ~(old & operand);
    }
    abort();
}

/* Makes the access on memory as it is. */
static void perform(struct machine_access *access)
{
    uint64_t new = access->operand;

    if (access->kind == MACHINE_FENCE)
        return;
    access->value = memory_value(access->address, access->size);
    access->failed = access->kind == MACHINE_CAS && access->value != access->expected;
    if (access->kind == MACHINE_LOAD || access->failed)
        return;
    if (access->kind == MACHINE_RMW)
        new = combine(access->op, access->value, access->operand);
    memcpy((void *)access->address, &new, access->size);
}

/* The same as a step of the current actor. */
static void perform_shared(struct machine_access *access)
{
    if (machine.memory == EX_TSO && tso_store(access)) {
        memory_observe(access);
        return;
    }
    if (access->order == MACHINE_PLAIN)
        memory_plain(access);
    if (machine.memory == EX_C11 && access->order != MACHINE_PLAIN)
        memory_atomic(access);
    else
        perform(access);
    if (machine.memory != EX_C11 && access->order != MACHINE_PLAIN)
        memory_observe(access);
}

/* ---- Stores that a mutation holds back ---- */

/* The actor has made another store, or comes to where no store may be left behind. */
static void make_delayed(struct machine_actor *actor)
{
    struct machine_access access = actor->delayed;

    actor->has_delayed = false;
    begin(actor, &access);
    perform_shared(&access);
    trace_access(&access);
}

/* The compiled code makes this store as soon as we return; it is taken back at its next call. */
static void hold_back_plain(struct machine_actor *actor, const struct machine_access *access)
{
    actor->delays_plain = true;
    actor->delayed = *access;
    actor->delayed.value = memory_value(access->address, access->size);
}

static void take_back(struct machine_actor *actor)
{
    uintptr_t address = actor->delayed.address;
    uint64_t old = actor->delayed.value;

    actor->delays_plain = false;
    actor->has_delayed = true;
    actor->delayed.operand = memory_value(address, actor->delayed.size);
    memcpy((void *)address, &old, actor->delayed.size);
}

/* ---- Plain accesses ---- */

void machine_settle(struct machine_actor *actor)
{
    if (actor->delays_plain)
        take_back(actor);
    if (!actor->unsettled)
        return;
    actor->unsettled = false;
    if (machine.memory == EX_TSO)
        tso_settle(actor->unsettled_at, actor->unsettled_size);
    if (machine.tracing)
        machine.trace[actor->unsettled_step].value =
            memory_value(actor->unsettled_at, actor->unsettled_size);
    if (actor->has_delayed)
        make_delayed(actor);
}

/* The compiled code makes this store as soon as we return. */
static void leave_store(struct machine_actor *actor, const struct machine_access *access)
{
    actor->unsettled = true;
    actor->unsettled_at = access->address;
    actor->unsettled_size = access->size;
    actor->unsettled_step = machine.trace_count - 1;
    if (machine.memory == EX_TSO)
        tso_before_store(access->address, access->size);
}

void machine_plain(uintptr_t address, size_t size, bool write, uintptr_t pc, uint64_t aside)
{
    struct machine_actor *actor = running();
    struct machine_access access = {
        .address = address,
        .size = size,
        .kind = write ? MACHINE_STORE : MACHINE_LOAD,
        .order = MACHINE_PLAIN,
        .pc = pc,
        .aside = aside,
    };

    if (uninteresting(address, size, write, pc))
        return;
    machine_settle(actor);
    shadow_note(offset_of(address), size, write, machine.current);
    if (write && !actor->has_delayed && mutation_delay(&access) && size <= sizeof access.operand) {
        hold_back_plain(actor, &access);
        return;
    }
    if (make_quietly(&access))
        return;
    begin(actor, &access);
    access.value = memory_value(address, size);
    trace_access(&access);
    memory_plain(&access);
    if (write)
        leave_store(actor, &access);
    else if (shadow_conflicts(offset_of(address), size, false, others_of(machine.current)))
        steps_fold(actor, steps_contents(address, size, 0));
}

/* ---- Loops that wait ---- */

/* Not by machine_atomic(): that would order the actor behind whoever made the change. */
static bool has_changed(void *arg)
{
    const struct machine_actor *actor = arg;
    const struct machine_access *access = &actor->pending;

    machine.ready_hash = memory_value(access->address, access->size);
    shadow_note(offset_of(access->address), access->size, false, ex_self());
    return machine.ready_hash != actor->last.value;
}

/* Whether the access leaves memory as it is. */
static bool changes_nothing(const struct machine_access *access, uint64_t value)
{
    switch (access->kind) {
    case MACHINE_LOAD:
        return true;
    case MACHINE_RMW:
        return ((combine(access->op, value, access->operand) ^ value) &
                (~0ull >> (64 - 8 * access->size))) == 0;
    case MACHINE_CAS:
        return value != access->expected;
    case MACHINE_STORE:
    case MACHINE_FENCE:
        break;
    }
    return false;
}

/* The actor's registers and stack: with memory they decide what it does next. */
static uint64_t local_state(void)
{
    uintptr_t top = MACHINE_STACKS + machine.current * MACHINE_STRIDE + MACHINE_STACK;

    return steps_contents(caller.rsp, top - caller.rsp,
                          steps_contents((uintptr_t)&caller, offsetof(struct caller, stack), 0));
}

/* An actor that makes the same access in the same state as the last time and finds the same will
 * do so until somebody else writes: it is taken for one that waits for that. (A lock taken by a
 * loop around an exchange; without this, a schedule that never lets its owner go on would be a
 * livelock.) */
static void wait_if_spinning(struct machine_actor *actor, const struct machine_access *access)
{
    uint64_t value = memory_value(access->address, access->size);
    uint64_t local = changes_nothing(access, value) ? local_state() : 0;

    if (local != 0 && local == actor->last.local && value == actor->last.value) {
        actor->pending = *access;
        steps_stand(actor);
        machine_await(has_changed, actor, "a word on which it spins");
        local = 0;
    }
    actor->last.value = value;
    actor->last.local = local;
}

static inline void look_for_spinning(struct machine_actor *actor,
                                     const struct machine_access *access)
{
    if (access->pc == actor->last.pc && access->address == actor->last.address && access->pc != 0 &&
        machine.memory != EX_C11) {
        wait_if_spinning(actor, access);
    } else {
        actor->last.pc = access->pc;
        actor->last.address = access->address;
        actor->last.local = 0;
    }
}

uint64_t machine_atomic(struct machine_access *access)
{
    struct machine_actor *actor = running();
    bool fence = access->kind == MACHINE_FENCE, write = access->kind != MACHINE_LOAD;

    if (!machine.active ||
        (!fence && uninteresting(access->address, access->size, write, access->pc))) {
        perform(access);
        return access->value;
    }
    machine_settle(actor);
    if (access->kind == MACHINE_STORE && !actor->has_delayed && mutation_delay(access)) {
        actor->has_delayed = true;
        actor->delayed = *access;
        return 0;
    }
    if (!fence) {
        look_for_spinning(actor, access);
        shadow_note(offset_of(access->address), access->size, write, machine.current);
        if (make_quietly(access)) {
            perform(access);
            return access->value;
        }
    }
    if (actor->has_delayed && fence)
        make_delayed(actor);
    begin(actor, access);
    perform_shared(access);
    trace_access(access);
    if (!fence && access->kind != MACHINE_STORE)
        steps_fold(actor, access->value);
    if (actor->has_delayed && write)
        make_delayed(actor);
    return access->value;
}

/* ---- Accesses of this room ---- */

static uint64_t own(const uint32_t *word, enum machine_kind kind, enum machine_op op,
                    uint32_t operand, const char *what)
{
    struct machine_access access = {
        .address = (uintptr_t)word,
        .size = word != NULL ? sizeof *word : 0,
        .kind = kind,
        .op = op,
        .order = __ATOMIC_SEQ_CST,
        .operand = operand,
        .what = what,
    };

    return machine_atomic(&access);
}

ENTRY(ex_read);
ENTERED uint32_t entered_ex_read(const uint32_t *word, const char *what)
{
    return (uint32_t)own(word, MACHINE_LOAD, MACHINE_XCHG, 0, what);
}

ENTRY(ex_write);
ENTERED void entered_ex_write(uint32_t *word, uint32_t value, const char *what)
{
    own(word, MACHINE_STORE, MACHINE_XCHG, value, what);
}

ENTRY(ex_release);
ENTERED void entered_ex_release(uint32_t *word, uint32_t value, const char *what)
{
    struct machine_access access = {
        .address = (uintptr_t)word,
        .size = sizeof *word,
        .kind = MACHINE_STORE,
        .order = __ATOMIC_RELEASE,
        .operand = value,
        .what = what,
    };

    machine_atomic(&access);
}

ENTRY(ex_add);
ENTERED uint32_t entered_ex_add(uint32_t *word, uint32_t value, const char *what)
{
    return (uint32_t)own(word, MACHINE_RMW, MACHINE_ADD, value, what);
}

ENTRY(ex_swap);
ENTERED uint32_t entered_ex_swap(uint32_t *word, uint32_t value, const char *what)
{
    return (uint32_t)own(word, MACHINE_RMW, MACHINE_XCHG, value, what);
}

ENTRY(ex_barrier);
ENTERED void entered_ex_barrier(const char *what)
{
    own(NULL, MACHINE_FENCE, MACHINE_XCHG, 0, what);
}

ENTRY(ex_write_block);
ENTERED void entered_ex_write_block(void *to, const void *from, size_t size, const char *what)
{
    struct machine_actor *actor = running();
    struct machine_access access = {
        .address = (uintptr_t)to,
        .size = size,
        .kind = MACHINE_STORE,
        .order = __ATOMIC_SEQ_CST,
        .aside = (uintptr_t)from,
        .what = what,
    };

    if (!machine.active || uninteresting(access.address, size, true, 0)) {
        memcpy(to, from, size);
        return;
    }
    machine_settle(actor);
    if (actor->has_delayed)
        make_delayed(actor);
    shadow_note(offset_of(access.address), size, true, machine.current);
    begin(actor, &access);
    if (machine.memory == EX_TSO)
        tso_flush(machine.current);
    memcpy(to, from, size);
    trace_access(&access);
}

/* ---- Waits, locks, choices, notes ---- */

void steps_finish(struct machine_actor *actor)
{
    machine_settle(actor);
    if (actor->has_delayed)
        make_delayed(actor);
}

void steps_waited(struct machine_actor *actor)
{
    machine.step++;
    steps_fold(actor, actor->ready_hash);
    memory_waited();
    if (machine.step >= machine.max_steps)
        machine_fail("livelock", "no end after %u steps; %s waits for %s", machine.step,
                     actor->name, actor->waits_for);
    if (machine.tracing)
        steps_trace((struct ex_step){.kind = EX_STEP_WAIT,
                                     .actor = (uint8_t)machine.current,
                                     .order = MACHINE_PLAIN,
                                     .text = actor->waits_for});
}

ENTRY(ex_wait);
ENTERED void entered_ex_wait(bool (*ready)(void *arg), void *arg, const char *what)
{
    if (!machine.active)
        ex_fail("scenario", "a wait outside of an actor: %s", what);
    stand_and_wait(running());
    machine_await(ready, arg, what);
}

static bool is_free(void *arg)
{
    return entered_ex_read(arg, NULL) == 0;
}

ENTRY(ex_lock);
ENTERED void entered_ex_lock(uint32_t *word, const char *what)
{
    if (!machine.active)
        return;
    shadow_note(offset_of((uintptr_t)word), sizeof *word, true, machine.current);
    stand_and_wait(running());
    machine_await(is_free, word, what);
    if (machine.memory == EX_TSO)
        tso_flush(machine.current);
    memory_lock(word);
    machine.epoch++;
    *word = 1;
}

ENTRY(ex_unlock);
ENTERED void entered_ex_unlock(uint32_t *word, const char *what)
{
    if (!machine.active)
        return;
    memory_unlock(word);
    entered_ex_swap(word, 0, what);
}

ENTRY(ex_choose);
ENTERED uint32_t entered_ex_choose(uint32_t count, const char *what)
{
    struct machine_actor *actor = running();
    uint32_t choice;

    if (!machine.active || count < 2)
        return 0;
    machine_settle(actor);
    choice = machine_choose(count);
    machine.step++;
    steps_fold(actor, choice);
    if (machine.tracing)
        steps_trace((struct ex_step){.kind = EX_STEP_CHOICE,
                                     .actor = (uint8_t)machine.current,
                                     .order = MACHINE_PLAIN,
                                     .value = choice,
                                     .old = count,
                                     .text = what});
    return choice;
}

uint32_t machine_choose(uint32_t count)
{
    uint32_t choice = machine.driver->choose(machine.step, count);

    if (machine.choice_count == machine.choice_room) {
        machine.choice_room = machine.choice_room * 2 + 64;
        machine.choices = realloc(machine.choices, machine.choice_room * sizeof *machine.choices);
        if (machine.choices == NULL)
            abort();
    }
    machine.choices[machine.choice_count++] = choice;
    return choice;
}

void ex_note(const char *format, ...)
{
    char text[256];
    va_list arguments;

    if (!machine.tracing || machine.evaluating != 0)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    steps_trace((struct ex_step){.kind = EX_STEP_NOTE,
                                 .actor = (uint8_t)ex_self(),
                                 .order = MACHINE_PLAIN,
                                 .text = ex_text("%s", text)});
}
