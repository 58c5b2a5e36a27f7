/* SPDX-License-Identifier: MIT */
/* The engine's front, engine.h: one exploration, replay or shrink from its options to its result.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mutation.h"
#include "strategy.h"

#define USUAL_STEPS 100000u
#define LOOKS_EVERY 256u /* schedules between two looks at the clock */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Runs of an exploration ---- */

static bool look_at_limits(struct exploration *e)
{
    const struct ex_options *o = e->options;
    struct ex_result *r = e->result;

    if (o->max_schedules > 0 && r->schedules >= o->max_schedules)
        return false;
    if (r->schedules < e->next_look)
        return true;
    e->next_look = r->schedules + LOOKS_EVERY;
    r->seconds = now() - e->started;
    if (o->max_seconds > 0 && r->seconds >= o->max_seconds)
        return false;
    return o->progress == NULL || o->progress(o->arg, r->schedules, e->fraction);
}

bool exploration_run(struct exploration *e, const struct checkpoint *from)
{
    if (from != NULL)
        machine_resume(e->scenario, from);
    else
        machine_run(e->scenario);
    e->result->schedules++;
    e->result->steps += machine.step;
    e->result->blocked += machine.outcome == MACHINE_CUT;
    if (machine.outcome == MACHINE_FAILED)
        return false;
    return look_at_limits(e);
}

/* ---- Results ---- */

static bool writes(enum ex_step_kind kind)
{
    return kind == EX_STEP_WRITE || kind == EX_STEP_RMW || kind == EX_STEP_DRAIN;
}

static bool is_access(const struct ex_step *step)
{
    return step->kind <= EX_STEP_DRAIN && step->address != NULL;
}

/* By word of the scenario's memory and actor: 1 + the last step that read or wrote it. */
struct last {
    uint32_t read[EX_MAX_ACTORS], written[EX_MAX_ACTORS];
};

/* Marks the step, and the last of another actor that conflicts with it, if there is one. */
static void mark_conflict(struct ex_step *trace, size_t at, const struct last *last)
{
    uint32_t other = 0;

    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++) {
        uint32_t step = last->written[i];

        if (writes(trace[at].kind) && last->read[i] > step)
            step = last->read[i];
        if (i != trace[at].actor && step > other)
            other = step;
    }
    if (other != 0)
        trace[at].decisive = trace[other - 1].decisive = true;
}

static void mark_word(struct ex_step *trace, size_t at, struct last *last)
{
    mark_conflict(trace, at, last);
    if (writes(trace[at].kind))
        last->written[trace[at].actor] = (uint32_t)at + 1;
    else
        last->read[trace[at].actor] = (uint32_t)at + 1;
}

/* The steps that a reader of the timeline wants to see: those that conflict with another actor's,
 * and all that are no accesses. */
static void mark_decisive(struct ex_step *trace, size_t count)
{
    struct last *last = calloc(EX_MEMORY / 4, sizeof *last);

    if (last == NULL)
        abort();
    for (size_t i = 0; i < count; i++) {
        size_t offset = (uintptr_t)trace[i].address - MACHINE_BASE;

        if (!is_access(&trace[i]) || offset >= EX_MEMORY) {
            trace[i].decisive = true;
            continue;
        }
        for (size_t at = offset / 4; at <= (offset + trace[i].size - 1) / 4; at++)
            mark_word(trace, i, &last[at]);
    }
    free(last);
}

/* Keeps the failure of the machine's last run. */
static void keep_failure(struct ex_result *result)
{
    result->failed = true;
    result->property = machine.property;
    memcpy(result->message, machine.message, sizeof result->message);
    free(result->schedule);
    result->schedule = schedule_text();
}

static void keep_trace(struct ex_result *result)
{
    free(result->trace);
    result->trace_count = machine.trace_count;
    result->trace = malloc((machine.trace_count + 1) * sizeof *result->trace);
    if (result->trace == NULL)
        abort();
    memcpy(result->trace, machine.trace, machine.trace_count * sizeof *result->trace);
    mark_decisive(result->trace, result->trace_count);
}

/* Runs the schedule once more, for its trace. */
static int trace_schedule(const struct ex_scenario *scenario, struct ex_result *result,
                          const char *schedule, char *error, size_t error_size)
{
    int wrong;

    machine.tracing = true;
    wrong = schedule_run(scenario, schedule, true, error, error_size);
    machine.tracing = false;
    keep_trace(result);
    return wrong;
}

/* ---- Beginning ---- */

static int load(const struct ex_scenario *scenario, const struct ex_options *options,
                struct ex_result *result, char *error, size_t error_size)
{
    memset(result, 0, sizeof *result);
    if (options->mode >= EX_MODES || !(scenario->modes & EX_MODE(options->mode))) {
        snprintf(error, error_size, "%s: there is no such scenario in this mode", scenario->name);
        return EX_REFUSED;
    }
    if (mutation_select(options->mutant, error, error_size) != 0)
        return EX_REFUSED;
    machine.memory = options->memory;
    machine.max_steps = options->max_steps != 0 ? options->max_steps : USUAL_STEPS;
    machine.tracing = false;
    if (machine_load(scenario, options->mode) == 0)
        return 0;
    snprintf(error, error_size, "%s: setup: %s: %s", scenario->name, machine.property,
             machine.message);
    return EX_NOT_DONE;
}

/* ---- engine.h ---- */

int ex_explore(const struct ex_scenario *scenario, const struct ex_options *options,
               struct ex_result *result, char *error, size_t error_size)
{
    struct exploration e = {.scenario = scenario,
                            .options = options,
                            .result = result,
                            .started = now(),
                            .next_look = LOOKS_EVERY};
    int wrong;

    wrong = load(scenario, options, result, error, error_size);
    if (wrong != 0)
        return wrong;
    if (options->memory == EX_C11 && options->strategy == EX_SYSTEMATIC) {
        snprintf(error, error_size, "the memory of C11 can only be sampled");
        return EX_REFUSED;
    }
    if (options->strategy == EX_SAMPLED)
        sample(&e);
    else
        search(&e);
    result->seconds = now() - e.started;
    if (machine.outcome != MACHINE_FAILED)
        return 0;
    if (strcmp(machine.property, MACHINE_ASTRAY) == 0) {
        snprintf(error, error_size, "%s: %s", scenario->name, machine.message);
        return EX_NOT_DONE;
    }
    keep_failure(result);
    return trace_schedule(scenario, result, result->schedule, error, error_size) == 0 ? 0
                                                                                      : EX_NOT_DONE;
}

int ex_replay(const struct ex_scenario *scenario, const struct ex_options *options,
              const char *schedule, struct ex_result *result, char *error, size_t error_size)
{
    double started = now();
    int wrong = load(scenario, options, result, error, error_size);

    if (wrong == 0)
        wrong = trace_schedule(scenario, result, schedule, error, error_size);
    if (wrong != 0)
        return wrong;
    result->schedules = 1;
    result->steps = machine.step;
    result->seconds = now() - started;
    if (machine.outcome == MACHINE_FAILED)
        keep_failure(result);
    else
        result->schedule = schedule_text();
    return 0;
}

void ex_result_free(struct ex_result *result)
{
    free(result->schedule);
    free(result->trace);
    result->schedule = NULL;
    result->trace = NULL;
}
