/* SPDX-License-Identifier: MIT */
/*
 * The memory of C11, for EX_C11, and data races, in every model: c11.c. Called by steps.c for every
 * access of an actor to the scenario's memory, after the step was decided and before it is made
 * (memory_observe(): after).
 */
#ifndef VAPIC_EXPLORE_MEMORY_H
#define VAPIC_EXPLORE_MEMORY_H

#include "machine.h"

/* Before every run. */
void memory_reset(void);

/* Before the first run of a scenario. */
void memory_forget(void);

/* What decides which races will be found: the accesses that somebody does not know of yet, and who
 * would learn of them by which word. */
uint64_t memory_key(void);

/* Going back to an earlier moment of the same run, in which memory_mark() was called and
 * memory_transfer() kept the rest: checkpoint.c. Not for EX_C11. */
struct memory_mark {
    uint32_t undo, locations, records;
};
struct memory_mark memory_mark(void);
void memory_back(struct memory_mark mark);
void memory_transfer(void (*transfer)(void *memory, size_t size));

/* A plain access, which the compiled code makes as soon as this returns (access->value: what is in
 * memory now). Looks for data races; may end the run by machine_fail("race", …). */
void memory_plain(const struct machine_access *access);

/* Makes an atomic access (or fence): sets access->value, access->failed, and memory. May ask
 * machine_choose() which of several values is read; 0 must be the newest. */
void memory_atomic(struct machine_access *access);

/* In the other models: an atomic access that was made on memory as it is. Looks for data races. */
void memory_observe(const struct machine_access *access);

/* What `actor` reads while the condition of its wait is asked; and: the wait is over. It knows then
 * what those who wrote that knew. */
void memory_condition(uint32_t actor, uintptr_t address, size_t size);
void memory_waited(void);

/* The room's own mutex: acquire, release. */
void memory_lock(const uint32_t *word);
void memory_unlock(const uint32_t *word);

#endif
