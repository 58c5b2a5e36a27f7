/* SPDX-License-Identifier: MIT */
/*
 * The memory of a scenario, at a fixed address, and its snapshot: what was there after setup is
 * there again before every run. Used by machine.c.
 */
#ifndef VAPIC_EXPLORE_ARENA_H
#define VAPIC_EXPLORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Maps memory and stacks (once per process) and clears the memory. */
void arena_open(void);

/* From here on this is what arena_restore() brings back. */
void arena_snapshot(void);
void arena_restore(void);

/* Called in place of a crash while an actor runs: `pc` met `address`. Must not return. */
extern void (*arena_crash)(uintptr_t pc, uintptr_t address);

#endif
