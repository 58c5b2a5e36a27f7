/* SPDX-License-Identifier: MIT */
/*
 * The state of a run as one number: all that decides how it goes on, and nothing else. How it was
 * come to is none of it, nor how many steps that took.
 *
 *      memory      every byte of it, and so what properties.c keeps there, too
 *      actors      each one's stack and registers where it came into the engine, the access before
 *                  which it stands or the condition for which it waits, and what the engine itself
 *                  remembers of it
 *      buffers     tso.c: what is stored and not visible yet
 *      races       c11.c: who does not know yet of which access that could be raced with
 *
 * A store that a mutation holds back lies between the steps of its actor, in the engine: there all
 * that the actor has read stands for it.
 */
#include "arena.h"
#include "memory.h"
#include "mutation.h"
#include "steps.h"
#include "tso.h"

/* Four chains side by side, for speed; `size` in whole words. */
static uint64_t hash_words(uint64_t seed, const void *start, size_t size)
{
    const uint64_t *at = start, *end = at + size / sizeof *at;
    uint64_t a = seed + 1, b = seed + 2, c = seed + 3, d = seed + 4;

    for (; end - at >= 4; at += 4) {
        a = (a ^ at[0]) * 0x9e3779b97f4a7c15ull;
        b = (b ^ at[1]) * 0xd6e8feb86659fd93ull;
        c = (c ^ at[2]) * 0xbf58476d1ce4e5b9ull;
        d = (d ^ at[3]) * 0x94d049bb133111ebull;
        a ^= a >> 32;
        b ^= b >> 32;
        c ^= c >> 32;
        d ^= d >> 32;
    }
    for (; at < end; at++)
        a = steps_mix(a ^ *at);
    return steps_mix(a + steps_mix(b + steps_mix(c + steps_mix(d))));
}

/* Pages are summed up, so that it does not matter when one was written first. */
static uint64_t memory_state(void)
{
    uint64_t sum = 0;
    void *page;
    uint32_t viewer = machine.memory == EX_TSO ? tso_viewer() : MACHINE_NOBODY;

    tso_show(MACHINE_NOBODY);
    for (size_t i = 0; (page = arena_page(i)) != NULL; i++) {
        if (arena_page_differs(i))
            sum += hash_words((uintptr_t)page, page, ARENA_PAGE);
    }
    tso_show(viewer);
    return sum;
}

static uint64_t access_state(uint64_t hash, const struct machine_access *access)
{
    hash = steps_mix(hash + access->address);
    hash = steps_mix(hash + access->size * 65536 + access->kind * 4096 + access->op * 256 +
                     access->order);
    hash = steps_mix(hash + access->operand);
    return steps_mix(steps_mix(hash + access->expected) + access->aside);
}

/* Of an actor that was started. */
static uint64_t local_state(const struct machine_actor *actor, uint32_t number)
{
    uintptr_t top = MACHINE_STACKS + number * MACHINE_STRIDE + MACHINE_STACK;
    uint64_t hash = hash_words(number, &actor->stands, offsetof(struct caller, stack));

    hash = hash_words(hash, (const void *)(uintptr_t)actor->stands.rsp, top - actor->stands.rsp);
    hash = access_state(hash, &actor->pending);
    if (actor->status == MACHINE_WAITING)
        hash = steps_mix(steps_mix(hash + (uintptr_t)actor->ready) + (uintptr_t)actor->ready_arg);
    hash = steps_mix(steps_mix(hash + actor->last.pc) + actor->last.address);
    if (actor->last.local != 0)
        hash = steps_mix(steps_mix(hash + actor->last.local) + actor->last.value);
    return hash | 1;
}

static uint64_t actor_state(uint32_t number)
{
    struct machine_actor *actor = &machine.actors[number];

    if (actor->status == MACHINE_ENDED || actor->stands.rsp == 0)
        return actor->status;
    if (actor->local == 0)
        actor->local = local_state(actor, number);
    return steps_mix(actor->local + actor->status * 2 + actor->may_end);
}

static uint64_t mutated_state(uint64_t key)
{
    for (uint32_t i = 0; i < machine.actor_count; i++) {
        const struct machine_actor *actor = &machine.actors[i];
        uint64_t steps = actor->steps;

        if (i == machine.current)
            steps += machine.step - machine.resumed;
        key = steps_mix(steps_mix(key ^ actor->history) + steps);
    }
    return key;
}

uint64_t machine_key(uint32_t current)
{
    uint64_t key = memory_state() + memory_key() + steps_mix(current + 1);

    for (uint32_t i = 0; i < machine.actor_count; i++)
        key = steps_mix(key + actor_state(i));
    if (mutation_delays)
        key = mutated_state(key);
    return machine.memory == EX_TSO ? tso_key(key) : key;
}
