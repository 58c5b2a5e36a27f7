/* SPDX-License-Identifier: MIT */
/*
 * Sampled exploration: seeded random schedules. Each run gives the actors random priorities and
 * lets the highest go on; at a few random points whoever runs falls to the lowest. A bug that needs
 * d orderings is found by a run with d - 1 such points with a probability that has a lower bound,
 * whatever else the actors do. [Burckhardt et al., "A Randomized Scheduler with Probabilistic
 * Guarantees of Finding Bugs", ASPLOS 2010]
 *
 * A run's numbers come from the seed and the run's number alone; a shard makes every N-th run.
 */
#include <string.h>

#include "steps.h"
#include "strategy.h"

#define MANY_CHANGES  32u
#define USUAL_CHANGES 3u
#define USUAL_RUNS    100000u
#define DRAINS_ONE_IN 4u /* points at which a buffered store is let go */
#define NEWEST_ONE_IN 2u /* answers that are the default */

static uint64_t state;
static uint32_t priority[EX_MAX_ACTORS];
static uint32_t lowest;
static uint32_t changes[MANY_CHANGES], change_count;
static uint32_t points, points_before; /* of this run; most of any run before */

static uint32_t random_below(uint32_t limit)
{
    state += 0x9e3779b97f4a7c15ull;
    return (uint32_t)((steps_mix(steps_mix(state)) >> 32) * limit >> 32);
}

static void begin_run(const struct ex_options *options, uint64_t run)
{
    state = steps_mix(options->seed * 0x9e3779b97f4a7c15ull + 1) ^ steps_mix(run + 1);
    lowest = MANY_CHANGES;
    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++)
        priority[i] = MANY_CHANGES + 1 + random_below(1u << 16);
    change_count = options->bound == EX_COMPLETE ? USUAL_CHANGES : options->bound;
    if (change_count > MANY_CHANGES)
        change_count = MANY_CHANGES;
    for (uint32_t i = 0; i < change_count; i++)
        changes[i] = random_below(points_before);
    points = 0;
    machine.consult_from = 0;
    machine.every_step = false;
    machine.watchful = machine.memory == EX_C11;
}

static bool recorded(uint32_t step, uint32_t current, uint8_t *move)
{
    (void)step;
    (void)current;
    (void)move;
    return false;
}

static bool is_change(uint32_t point)
{
    for (uint32_t i = 0; i < change_count; i++) {
        if (changes[i] == point)
            return true;
    }
    return false;
}

/* One of the drains on offer, now and then; otherwise MACHINE_STOP. */
static uint8_t some_drain(const struct machine_point *point)
{
    uint32_t first = 0;

    while (first < point->count && !(point->moves[first] & MACHINE_DRAIN))
        first++;
    if (first == point->count || (first > 0 && random_below(DRAINS_ONE_IN) != 0))
        return MACHINE_STOP;
    return point->moves[first + random_below(point->count - first)];
}

static uint8_t decide(const struct machine_point *point)
{
    uint8_t best = some_drain(point);

    if (best != MACHINE_STOP)
        return best;
    best = point->moves[0];
    if (point->fresh)
        return best;
    if (is_change(points++) && point->current != MACHINE_NOBODY)
        priority[point->current] = lowest--;
    for (uint32_t i = 1; i < point->count; i++) {
        if (!(point->moves[i] & MACHINE_DRAIN) && priority[point->moves[i]] > priority[best])
            best = point->moves[i];
    }
    return best;
}

static uint32_t choose(uint32_t step, uint32_t count)
{
    (void)step;
    return random_below(NEWEST_ONE_IN) == 0 ? 0 : random_below(count);
}

static const struct machine_driver driver = {recorded, decide, choose};

void sample(struct exploration *e)
{
    uint64_t shards = e->options->shards > 1 ? e->options->shards : 1;
    uint64_t limit = e->options->max_schedules;

    if (limit == 0 && e->options->max_seconds <= 0)
        limit = USUAL_RUNS / shards + 1;
    machine.driver = &driver;
    points_before = 1;
    for (uint64_t run = e->options->shard;; run += shards) {
        begin_run(e->options, run);
        if (limit > 0)
            e->fraction = (double)e->result->schedules / (double)limit;
        if (!exploration_run(e, NULL) || (limit > 0 && e->result->schedules >= limit))
            return;
        points_before = points > points_before ? points : points_before;
    }
}
