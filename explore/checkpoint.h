/* SPDX-License-Identifier: MIT */
/*
 * A run, kept in the middle of a decision, to go on from there once more: memory, stacks, actors
 * and buffers. Used by search.c, which makes decisions one after the other otherwise.
 */
#ifndef VAPIC_EXPLORE_CHECKPOINT_H
#define VAPIC_EXPLORE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>

struct checkpoint;

/* Makes one in *checkpoint (NULL: a new one) and returns false; each time that it is gone on from,
 * the same call returns once more, true. Inside of a driver's functions only, on the stack of an
 * actor. Of several, those made later than the one gone on from are worth nothing any more. */
bool checkpoint_take(struct checkpoint **checkpoint);

/* Everything as it was; the stack pointer to switch to. For machine_resume(). */
void *checkpoint_restore(const struct checkpoint *checkpoint);

#endif
