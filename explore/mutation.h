/* SPDX-License-Identifier: MIT */
/*
 * Mutations while they are on: the switches of src/mutant.h, and mechanical ones of single places
 * in the code under test, asked by the run-time at each access while an actor runs. Which there
 * are: mutants.h. A mutation is named
 *
 *      NAME                        a switch of src/mutant.h
 *      order:post.c:post_page+9    the atomic access at this place is relaxed
 *      swap:post.c:post_page+9     the store at this place is made after the actor's next one
 *      drop:kick                   this notification of the host comes to nothing
 *
 * A place is a line of a function, counted from the one that declares it, so that it keeps its name
 * when something else in the file changes.
 */
#ifndef VAPIC_EXPLORE_MUTATION_H
#define VAPIC_EXPLORE_MUTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine.h"

/* Switches on what the name says, and everything else off; NULL: nothing is on. 0; or -1 with a
 * message in `error`. Before a scenario is set up. */
int mutation_select(const char *name, char *error, size_t error_size);

/*
 * From now on every place that is come to is remembered; at the end each is told, maybe several
 * times: what can be done there ("order", "swap", "drop"), its name, and whether another actor of
 * the scenario that was explored meanwhile touches the word that was accessed, in a way that
 * conflicts.
 */
void mutation_profile_begin(void);
void mutation_profile_end(void (*note)(const char *kind, const char *name, bool shared));

extern bool mutation_orders; /* an order is changed in this run */
extern bool mutation_delays; /* a store is */

uint8_t mutation_changed_order(const struct machine_access *access);
bool mutation_is_delayed(const struct machine_access *access);

/* The order that the atomic access really has in this run. */
static inline uint8_t mutation_order(const struct machine_access *access)
{
    return mutation_orders ? mutation_changed_order(access) : access->order;
}

/* True: the store is made only after the actor's next one. */
static inline bool mutation_delay(const struct machine_access *access)
{
    return mutation_delays && mutation_is_delayed(access);
}

#endif
