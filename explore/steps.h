/* SPDX-License-Identifier: MIT */
/* Steps of actors: between the run-time's calls and the machine. Used inside the engine. */
#ifndef VAPIC_EXPLORE_STEPS_H
#define VAPIC_EXPLORE_STEPS_H

#include "machine.h"

static inline uint64_t steps_mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 29;
    x *= 0x9e3779b97f4a7c15ull;
    return x ^ x >> 32;
}

static inline void steps_fold(struct machine_actor *actor, uint64_t value)
{
    actor->history = steps_mix(actor->history * 3 + value);
}

/* The current actor makes what stores it has left undone: it is about to wait, or ends. */
void steps_finish(struct machine_actor *actor);

/* A wait of the current actor has ended. */
void steps_waited(struct machine_actor *actor);

/* Adds or takes away the words of a range to or from machine.memory_hash. */
void steps_hash_in(uintptr_t address, size_t size);
void steps_hash_out(uintptr_t address, size_t size);

/* Whether anybody else reaches these words (the hash has them then). */
bool steps_shared(uintptr_t address, size_t size, uint32_t actor);

void steps_trace(struct ex_step step);

#endif
