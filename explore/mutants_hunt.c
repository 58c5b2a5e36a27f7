/* SPDX-License-Identifier: MIT */
/*
 * Looks for a scenario that finds a mutant: first where it is known to be found (mutants_hints.c),
 * then on everything that may reach it: quickly by sampling, then with more samples, then
 * systematically, until it is found or its time is over. Mechanical mutants are tried where their
 * place touches memory that another actor touches, changed orders in the memory of C11. What fails
 * without the mutation too finds nothing.
 */
#include <stdio.h>
#include <string.h>

#include "machine.h"
#include "mutants_parts.h"
#include "options.h"

static const char *const strategy_names[] = {
    [EX_SYSTEMATIC] = "systematic", [EX_SAMPLED] = "sampled"};

struct attempt {
    size_t scenario;
    uint32_t mode;
    enum ex_memory_model memory;
    enum ex_strategy strategy;
    uint64_t schedules; /* 0: no limit */
    double seconds;
};

struct hunt {
    const struct mutant *mutant;
    const struct check_job *job;
    double start, limit;
    uint64_t schedules;
    json_t *found;
};

/* One limit of schedules and seconds for every pair of scenario and mode that is come to as far as
 * `reach`. */
struct phase {
    enum mutant_reach reach;
    enum ex_memory_model memory;
    enum ex_strategy strategy;
    uint64_t schedules;
    double seconds;
};

static const struct phase bug_phases[] = {
    {REACH_SHARED, EX_SC, EX_SAMPLED, 40, 1},
    {REACH_SHARED, EX_TSO, EX_SAMPLED, 40, 1},
    {REACH_SHARED, EX_SC, EX_SAMPLED, 400, 2},
    {REACH_SHARED, EX_TSO, EX_SAMPLED, 400, 2},
    {REACH_SHARED, EX_SC, EX_SAMPLED, 5000, 5},
    {REACH_SHARED, EX_TSO, EX_SAMPLED, 5000, 5},
    {REACH_SHARED, EX_SC, EX_SYSTEMATIC, 0, 15},
    {REACH_SHARED, EX_TSO, EX_SYSTEMATIC, 0, 15},
    {0},
};
static const struct phase order_phases[] = {
    {REACH_SHARED, EX_C11, EX_SAMPLED, 60, 1},     {REACH_SHARED, EX_C11, EX_SAMPLED, 400, 2},
    {REACH_SHARED, EX_TSO, EX_SAMPLED, 20, 1},     {REACH_SHARED, EX_C11, EX_SAMPLED, 3000, 5},
    {REACH_SHARED, EX_C11, EX_SAMPLED, 30000, 15}, {0},
};
/* A store that is held back shows to its own actor too, whatever the schedule is. */
static const struct phase swap_phases[] = {
    {REACH_SHARED, EX_SC, EX_SAMPLED, 60, 1},   {REACH_OWN, EX_SC, EX_SAMPLED, 8, 1},
    {REACH_SHARED, EX_SC, EX_SAMPLED, 1000, 3}, {REACH_SHARED, EX_TSO, EX_SAMPLED, 300, 2},
    {REACH_SHARED, EX_SC, EX_SYSTEMATIC, 0, 8}, {0},
};
static const struct phase *const phases[MUTANT_KINDS] = {bug_phases, order_phases, swap_phases,
                                                         swap_phases};

static double left(const struct hunt *h)
{
    return h->start + h->limit - check_now();
}

static json_t *describe(const struct hunt *h, const struct attempt *a,
                        const struct ex_result *result)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:f, s:s, s:s, s:s}", "scenario",
                     ex_scenarios[a->scenario]->name, "accel", check_mode_names[a->mode], "memory",
                     check_memory_names[a->memory], "strategy", strategy_names[a->strategy],
                     "schedules", (json_int_t)h->schedules, "seconds", check_now() - h->start,
                     "property", result->property, "message", result->message, "schedule",
                     result->schedule);
}

/* ---- Without the mutation ---- */

#define MOST_SAMPLES 2000u

/* The schedule that broke the property, as far as it fits, must not break it by itself. */
static bool replay_fails(const struct ex_scenario *scenario, const struct ex_options *o,
                         const struct ex_result *found)
{
    struct ex_result result = {0};
    char error[256];
    bool fails;

    ex_replay(scenario, o, found->schedule, &result, error, sizeof(error));
    fails = machine.outcome == MACHINE_FAILED && strcmp(machine.property, found->property) == 0;
    ex_result_free(&result);
    return fails;
}

/* Neither may samples, for the mutation changes what fits. */
static bool samples_fail(const struct ex_scenario *scenario, struct ex_options o,
                         const struct ex_result *found)
{
    struct ex_result result = {0};
    char error[256];
    bool fails;

    o.strategy = EX_SAMPLED;
    o.max_schedules = 4 * found->schedules + 200;
    o.max_schedules = o.max_schedules < MOST_SAMPLES ? o.max_schedules : MOST_SAMPLES;
    fails = ex_explore(scenario, &o, &result, error, sizeof(error)) != 0 ||
            (result.failed && strcmp(result.property, found->property) == 0);
    ex_result_free(&result);
    return fails;
}

static bool fails_anyway(const struct ex_scenario *scenario, struct ex_options o,
                         const struct ex_result *found)
{
    o.mutant = NULL;
    if (!replay_fails(scenario, &o, found) && !samples_fail(scenario, o, found))
        return false;
    fprintf(stderr, "%s (%s, %s) fails without any mutation: %s\n", scenario->name,
            check_mode_names[o.mode], check_memory_names[o.memory], found->property);
    return true;
}

/* ---- With it ---- */

/* False: there is no use in going on. */
static bool try(struct hunt *h, const struct attempt *a, char *error, size_t error_size)
{
    const struct ex_scenario *scenario = ex_scenarios[a->scenario];
    struct ex_options o = {.mode = a->mode,
                           .memory = a->memory,
                           .strategy = a->strategy,
                           .bound = scenario->bound,
                           .max_schedules = a->schedules,
                           .max_seconds = a->seconds < left(h) ? a->seconds : left(h),
                           .seed = 1,
                           .mutant = h->mutant->name,
                           .progress = h->job->progress,
                           .arg = h->job->progress_arg};
    struct ex_result result = {0};

    if (o.max_seconds <= 0)
        return false;
    if (ex_explore(scenario, &o, &result, error, error_size) != 0)
        return false;
    h->schedules += result.schedules;
    if (result.failed && !fails_anyway(scenario, o, &result))
        h->found = describe(h, a, &result);
    ex_result_free(&result);
    return h->found == NULL;
}

static bool try_phase(struct hunt *h, const struct phase *p, char *error, size_t error_size)
{
    for (size_t s = 0; s < ex_scenario_count; s++) {
        for (uint32_t mode = 0; mode < EX_MODES; mode++) {
            struct attempt a = {s, mode, p->memory, p->strategy, p->schedules, p->seconds};

            if (mutant_reach(h->mutant, s, mode) == p->reach && !try(h, &a, error, error_size))
                return false;
        }
    }
    return true;
}

static size_t scenario_named(const char *name)
{
    size_t i = 0;

    while (i < ex_scenario_count && strcmp(ex_scenarios[i]->name, name) != 0)
        i++;
    return i;
}

#define HINT_SECONDS 60
#define NO_LIMIT     1e9

static bool try_hints(struct hunt *h, char *error, size_t error_size)
{
    for (size_t i = 0; i < ex_mutant_hint_count; i++) {
        const struct ex_mutant_hint *hint = &ex_mutant_hints[i];
        struct attempt a = {scenario_named(hint->scenario),
                            hint->mode,
                            hint->memory,
                            hint->strategy,
                            0,
                            HINT_SECONDS};

        if (strcmp(hint->mutant, h->mutant->name) == 0 && a.scenario < ex_scenario_count &&
            !try(h, &a, error, error_size))
            return false;
    }
    return true;
}

json_t *mutant_hunt(const struct check_job *job, char *error, size_t error_size)
{
    const struct mutant_hunt *asked = job->arg;
    struct hunt h = {
        .mutant = asked->mutant, .job = job, .start = check_now(), .limit = asked->seconds};

    error[0] = '\0';
    h.limit = NO_LIMIT; /* where it is known to be found it must be, however busy the machine is */
    if (try_hints(&h, error, error_size)) {
        h.limit = check_now() - h.start + asked->seconds;
        for (const struct phase *p = phases[h.mutant->kind]; p->seconds > 0; p++)
            if (!try_phase(&h, p, error, error_size))
                break;
    }
    if (error[0] != '\0')
        return NULL;
    if (h.found != NULL)
        return h.found;
    return json_pack("{s:I, s:f}", "schedules", (json_int_t)h.schedules, "seconds",
                     check_now() - h.start);
}
