/* SPDX-License-Identifier: MIT */
/* Checkpoints, as in checkpoint.h: one pass over all that is kept, in the one direction or the
 * other. */
#include "checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "coroutine.h"
#include "machine.h"
#include "memory.h"
#include "tso.h"

struct checkpoint {
    void *stack_pointer;
    uint32_t current, step, resumed, preemptions;
    uint64_t epoch;
    size_t segment_count, choice_count, page_count;
    struct memory_mark mark;
    struct machine_actor actors[EX_MAX_ACTORS];
    uint8_t *bytes; /* stacks, pages, buffers */
    size_t size, room;
};

static struct {
    struct checkpoint *checkpoint;
    size_t at;
    bool back; /* into the machine */
} pass;

static bool came_back;

static void transfer(void *memory, size_t size)
{
    struct checkpoint *c = pass.checkpoint;

    if (pass.at + size > c->room) {
        c->room = 2 * (pass.at + size) + ARENA_PAGE;
        c->bytes = realloc(c->bytes, c->room);
        if (c->bytes == NULL)
            abort();
    }
    if (pass.back)
        memcpy(memory, c->bytes + pass.at, size);
    else
        memcpy(c->bytes + pass.at, memory, size);
    pass.at += size;
}

/* ---- Stacks ---- */

/* What lies below is nobody's, and must not differ by what was run before. */
static void transfer_stack(uintptr_t from, uintptr_t top)
{
    uintptr_t end = top - MACHINE_STACK;

    transfer((void *)from, top - from);
    if (pass.back && from - end > MACHINE_SCRUB)
        memset((void *)(from - MACHINE_SCRUB), 0, MACHINE_SCRUB);
}

static void transfer_stacks(uint32_t number, uintptr_t stack_pointer)
{
    uintptr_t top = MACHINE_STACKS + number * MACHINE_STRIDE + MACHINE_STACK;
    uintptr_t engine_top = MACHINE_ENGINES + number * MACHINE_STRIDE + MACHINE_STACK;

    if (engine_top - stack_pointer <= MACHINE_STACK) {
        transfer((void *)stack_pointer, engine_top - stack_pointer);
        stack_pointer = *(uintptr_t *)(engine_top - 16); /* pushed by ENTRY() */
    }
    transfer_stack(stack_pointer, top);
}

/* ---- Everything ---- */

static void transfer_all(struct checkpoint *c, bool back)
{
    pass.checkpoint = c;
    pass.at = 0;
    pass.back = back;
    for (uint32_t i = 0; i < machine.actor_count; i++)
        transfer_stacks(
            i, (uintptr_t)(i == c->current ? c->stack_pointer : c->actors[i].stack_pointer));
    for (size_t i = 0; i < c->page_count; i++)
        transfer(arena_page(i), ARENA_PAGE);
    if (machine.memory == EX_TSO)
        tso_transfer(transfer);
    memory_transfer(transfer);
    c->size = pass.at;
}

static void save(void *arg)
{
    struct checkpoint *c = arg;

    c->current = machine.current;
    c->step = machine.step;
    c->resumed = machine.resumed;
    c->preemptions = machine.preemptions;
    c->epoch = machine.epoch;
    c->segment_count = machine.segment_count;
    c->choice_count = machine.choice_count;
    c->page_count = arena_pages();
    c->mark = memory_mark();
    memcpy(c->actors, machine.actors, sizeof c->actors);
    transfer_all(c, false);
}

bool checkpoint_take(struct checkpoint **checkpoint)
{
    if (*checkpoint == NULL)
        *checkpoint = calloc(1, sizeof **checkpoint);
    if (*checkpoint == NULL)
        abort();
    came_back = false;
    coroutine_mark(&(*checkpoint)->stack_pointer, save, *checkpoint);
    return came_back;
}

void *checkpoint_restore(const struct checkpoint *checkpoint)
{
    struct checkpoint *c = (struct checkpoint *)checkpoint;

    machine.current = c->current;
    machine.step = c->step;
    machine.resumed = c->resumed;
    machine.preemptions = c->preemptions;
    machine.epoch = c->epoch;
    machine.segment_count = c->segment_count;
    machine.choice_count = c->choice_count;
    memcpy(machine.actors, c->actors, sizeof c->actors);
    transfer_all(c, true);
    for (size_t i = c->page_count; i < arena_pages(); i++)
        arena_restore_page(i);
    memory_back(c->mark);
    machine_back_in(c->current);
    came_back = true;
    return c->stack_pointer;
}
