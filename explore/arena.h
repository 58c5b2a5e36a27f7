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

/* The pages that any run since the snapshot has written to, in the order in which they were found;
 * NULL: there are no more. */
#define ARENA_PAGE ((size_t)4096)
size_t arena_pages(void);
void *arena_page(size_t i);
bool arena_page_differs(size_t i); /* from the snapshot */
void arena_restore_page(size_t i);

/* Called in place of a crash while an actor runs: `pc` met `address`. Must not return. */
extern void (*arena_crash)(uintptr_t pc, uintptr_t address);

#endif
