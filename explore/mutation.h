/* SPDX-License-Identifier: MIT */
/*
 * Mutations while they are on: the switches of src/mutant.h, and mechanical ones of single places
 * in the code under test, asked by the run-time at each access while an actor runs. Which there
 * are: mutants.h. A mutation is named
 *
 *      NAME                        a switch of src/mutant.h
 *      order:post.c:88:post_page   the atomic access at this place is relaxed
 *      swap:post.c:88:post_page    the store at this place is made after the actor's next one
 *      drop:kick                   this notification of the host comes to nothing
 */
#ifndef VAPIC_EXPLORE_MUTATION_H
#define VAPIC_EXPLORE_MUTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Switches on what the name says, and everything else off; NULL: nothing is on. 0; or -1 with a
 * message in `error`. Before a scenario is set up. */
int mutation_select(const char *name, char *error, size_t error_size);

/* From now on every place is told to `note`: what it is ("order", "swap", "drop"), its name. Each
 * once. NULL: no more. */
void mutation_profile(void (*note)(const char *kind, const char *name));

extern bool mutation_orders; /* an order is changed in this run */
extern bool mutation_delays; /* a store is */

uint8_t mutation_changed_order(uintptr_t pc, uint8_t order);
bool mutation_is_delayed(uintptr_t pc);

/* The order that the atomic access at `pc` really has in this run. */
static inline uint8_t mutation_order(uintptr_t pc, uint8_t order)
{
    return mutation_orders ? mutation_changed_order(pc, order) : order;
}

/* True: the store at `pc` is made only after the actor's next one. */
static inline bool mutation_delay(uintptr_t pc)
{
    return mutation_delays && mutation_is_delayed(pc);
}

#endif
