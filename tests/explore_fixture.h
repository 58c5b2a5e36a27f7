/* SPDX-License-Identifier: MIT */
/* Toy scenarios for tests of the explorer: actors from a table, outcomes collected over runs. */
#ifndef VAPIC_TESTS_EXPLORE_FIXTURE_H
#define VAPIC_TESTS_EXPLORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../explore/engine.h"
#include "explore_toys.h"

struct toy_actor {
    void (*run)(struct toys *t, uint32_t number);
};

struct toy_scenario {
    struct toy_actor actors[EX_MAX_ACTORS];
    uint64_t (*outcome)(const struct toys *t); /* of a run that ended well; NULL: 0 */
    void (*check)(const struct toys *t);       /* ex_fail()s; NULL */
};

#define MAX_OUTCOMES 4096

struct outcomes {
    uint64_t value[MAX_OUTCOMES];
    size_t count;
};

/* Explores all interleavings in `memory` and returns the distinct outcomes, sorted. */
struct ex_result explore_toy(const struct toy_scenario *toy, const struct ex_options *options,
                             struct outcomes *outcomes);
struct ex_scenario toy_scenario(const struct toy_scenario *toy);
void outcomes_start(struct outcomes *outcomes);
bool outcomes_have(const struct outcomes *outcomes, uint64_t value);

#endif
