/* SPDX-License-Identifier: MIT */
/*
 * Who reaches which byte of the scenario's memory: learned from all runs of an exploration. An
 * access that no access of another living actor can conflict with is no scheduling point, for it
 * commutes with all that can come before it. What is learned late means
 * that points were passed over before: the exploration begins anew with what it knows now
 * (machine.grown), so that in the end none was.
 */
#ifndef VAPIC_EXPLORE_SHADOW_H
#define VAPIC_EXPLORE_SHADOW_H

#include <string.h>

#include "machine.h"

#define SHADOW_ONES 0x0101010101010101ull

extern uint8_t shadow_readers[EX_MEMORY + 64]; /* a bit per actor */
extern uint8_t shadow_writers[EX_MEMORY + 64];
extern uint8_t shadow_owner[EX_MEMORY + 64]; /* 1 + the actor whose private memory it is; 0 */

void shadow_reset(void);
void shadow_own(uintptr_t start, size_t size, uint32_t actor);

/* Notes an access of the actor; sets machine.grown if points were passed over without it. */
void shadow_note_slowly(size_t offset, size_t size, bool write, uint32_t actor);

/* The union of a mask over a range. */
static inline uint8_t shadow_over(const uint8_t *mask, size_t offset, size_t size)
{
    uint64_t word = 0, all = 0;

    for (; size >= 8; size -= 8, offset += 8) {
        memcpy(&word, mask + offset, 8);
        all |= word;
    }
    if (size > 0) {
        memcpy(&word, mask + offset, 8);
        all |= word & (~0ull >> (64 - 8 * size));
    }
    all |= all >> 32;
    all |= all >> 16;
    return (uint8_t)(all | all >> 8);
}

/* Whether an access conflicts with one that an actor of `others` is known to make. */
static inline bool shadow_conflicts(size_t offset, size_t size, bool write, uint8_t others)
{
    uint8_t mask = shadow_over(shadow_writers, offset, size);

    if (write)
        mask |= shadow_over(shadow_readers, offset, size);
    return mask & others;
}

/* Whether every byte has the actor's bit already. */
static inline bool shadow_noted(const uint8_t *mask, size_t offset, size_t size, uint32_t actor)
{
    uint64_t word, want = SHADOW_ONES << actor;

    for (; size >= 8; size -= 8, offset += 8) {
        memcpy(&word, mask + offset, 8);
        if (want & ~word)
            return false;
    }
    if (size == 0)
        return true;
    memcpy(&word, mask + offset, 8);
    return !(want & ~word & (~0ull >> (64 - 8 * size)));
}

static inline void shadow_note(size_t offset, size_t size, bool write, uint32_t actor)
{
    if (!shadow_noted(write ? shadow_writers : shadow_readers, offset, size, actor))
        shadow_note_slowly(offset, size, write, actor);
}

#endif
