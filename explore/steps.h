/* SPDX-License-Identifier: MIT */
/* Steps of actors: between the run-time's calls and the machine. Used inside the engine. */
#ifndef VAPIC_EXPLORE_STEPS_H
#define VAPIC_EXPLORE_STEPS_H

#include <string.h>

#include "machine.h"

static inline uint64_t steps_mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 29;
    x *= 0x9e3779b97f4a7c15ull;
    return x ^ x >> 32;
}

/* A hash of the bytes of a range as they are. */
static inline uint64_t steps_contents(uintptr_t address, size_t size, uint64_t hash)
{
    uint64_t value;

    for (; size > 8; size -= 8, address += 8) {
        memcpy(&value, (void *)address, 8);
        hash = steps_mix(hash + value);
    }
    value = 0;
    memcpy(&value, (void *)address, size);
    return hash + value;
}

static inline void steps_fold(struct machine_actor *actor, uint64_t value)
{
    actor->history = steps_mix(actor->history * 3 + value);
}

/* The current actor makes what stores it has left undone: it is about to wait, or ends. */
void steps_finish(struct machine_actor *actor);

/* A wait of the current actor has ended. */
void steps_waited(struct machine_actor *actor);

/* The actor has just come in by entry.h, and might be left here. */
void steps_stand(struct machine_actor *actor);

/* Whether anybody else reaches these words . */
bool steps_shared(uintptr_t address, size_t size, uint32_t actor);

void steps_trace(struct ex_step step);

#endif
