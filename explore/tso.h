/* SPDX-License-Identifier: MIT */
/*
 * Store buffers of x86-TSO, one per actor. [SDM3 9.2]
 *
 * While an actor runs, memory shows what that actor sees: the machine's memory with the actor's
 * own buffered stores over it (so that compiled code which reads memory itself gets them
 * forwarded). Whoever goes on next takes the former's stores off and puts its own on: tso_show().
 */
#ifndef VAPIC_EXPLORE_TSO_H
#define VAPIC_EXPLORE_TSO_H

#include "machine.h"

void tso_reset(void);

/* Memory as this actor sees it; MACHINE_NOBODY: without any buffered store. */
void tso_show(uint32_t actor);

/* True: the access only enters the buffer, and nobody else can notice. */
bool tso_buffers(const struct machine_access *access);
/* The actor's buffer has stores in it. */
bool tso_waiting(uint32_t actor);

/* The i-th store in it; false: there are fewer. */
bool tso_peek(uint32_t actor, uint32_t i, uintptr_t *address, size_t *size);

/* Before and after a plain store that the compiled code makes itself. */
void tso_before_store(uintptr_t address, size_t size);
void tso_settle(uintptr_t address, size_t size);
/* An atomic access: true if it was a store and is in the buffer now; otherwise the buffer is empty
 * where the access demands it. */
bool tso_store(const struct machine_access *access);

/* The actor's oldest store, or all of them, become visible to everybody. */
void tso_drain(uint32_t actor);
void tso_flush(uint32_t actor);
/* The oldest ones up to the first on which `current`'s step or a wait depends: what drains before
 * it in between could as well drain with it. If there is none, the oldest. */
void tso_drain_what_matters(uint32_t actor, uint32_t current);

/* Adds the drains that somebody might notice here to the moves of the point. */
void tso_list_drains(struct machine_point *point);

uint64_t tso_key(uint64_t key);

/* Whose view memory is now; MACHINE_NOBODY. */
uint32_t tso_viewer(void);
/* Hands all that is kept here to a function that keeps it or brings it back: checkpoint.c. */
void tso_transfer(void (*transfer)(void *memory, size_t size));

#endif
