/* SPDX-License-Identifier: MIT */
/*
 * The smallest schedule that breaks the same property: fewest preemptions, then fewest drains that
 * somebody had to decide, then fewest steps.
 *
 * A schedule is a list of segments (replay.c). Candidates leave out a segment, let one run on to
 * its end, or make one shorter; each is run, passing over what no longer fits, and what it really
 * did is the next schedule if it is smaller. Until no candidate helps.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "strategy.h"

/* No clock: what is found must not depend on the machine. A livelock is long: few runs of it. */
#define MOST_RUNS  20000u
#define MOST_STEPS 20000000u

/* A schedule, and how large it is. */
struct part {
    uint8_t move;
    bool forced;
    uint32_t steps;
};

struct candidate {
    struct part *segments;
    size_t count;
    uint32_t *choices;
    size_t choice_count;
    uint64_t size;
};

static const struct ex_scenario *scenario;
static const char *property;
static uint64_t last_run, last_step;
static struct ex_result *counting;

static void *copy(const void *from, size_t size)
{
    void *to = malloc(size + 1);

    if (to == NULL)
        abort();
    if (from != NULL)
        memcpy(to, from, size);
    return to;
}

static void drop(struct candidate *c)
{
    free(c->segments);
    free(c->choices);
    *c = (struct candidate){0};
}

/* What the machine's last run did, as a candidate. */
static struct candidate taken(void)
{
    struct candidate c = {.count = machine.segment_count, .choice_count = machine.choice_count};
    uint64_t drains = 0, answers = 0;

    c.segments = copy(NULL, c.count * sizeof *c.segments);
    c.choices = copy(machine.choices, c.choice_count * sizeof *c.choices);
    for (size_t i = 0; i < c.count; i++) {
        c.segments[i] = (struct part){machine.segments[i].move, machine.segments[i].forced,
                                      machine_segment_steps(i)};
        drains += c.segments[i].move & MACHINE_DRAIN && !c.segments[i].forced;
    }
    for (size_t i = 0; i < c.choice_count; i++)
        answers += c.choices[i] != 0;
    c.size = (uint64_t)machine.preemptions << 48 | (drains + answers) << 32 | machine.step;
    return c;
}

/* Runs a schedule as far as it fits. True: the property is broken by it. */
static bool breaks(const char *text)
{
    char ignored[200];

    schedule_run(scenario, text, false, ignored, sizeof ignored);
    counting->schedules++;
    counting->steps += machine.step;
    return machine.outcome == MACHINE_FAILED && strcmp(machine.property, property) == 0;
}

/* ---- One change ---- */

enum change { CHANGE_LEAVE_OUT, CHANGE_RUN_ON, CHANGE_HALVE, CHANGE_ONE_LESS, CHANGES };

static void put(FILE *out, const struct candidate *c, size_t i, uint32_t steps, bool counted)
{
    uint8_t move = c->segments[i].move;

    fputs(ftell(out) > 0 ? "," : "", out);
    if (move & MACHINE_DRAIN)
        fprintf(out, "d%u", move & (MACHINE_DRAIN - 1));
    else if (counted)
        fprintf(out, "%u:%u", move, steps);
    else
        fprintf(out, "%u", move);
}

static void put_choices(FILE *out, const struct candidate *c, size_t cleared)
{
    for (size_t i = 0; i < c->choice_count; i++)
        fprintf(out, "%c%u", i == 0 ? '/' : ',', i == cleared ? 0 : c->choices[i]);
}

/* The candidate's text, with segment `at` changed. */
static char *changed(const struct candidate *c, size_t at, enum change change)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        abort();
    for (size_t i = 0; i < c->count; i++) {
        bool counted = i + 1 < c->count && !c->segments[i + 1].forced;
        uint32_t steps = c->segments[i].steps;

        if (i == at && change == CHANGE_LEAVE_OUT)
            continue;
        if (i == at && change == CHANGE_HALVE)
            steps /= 2;
        if (i == at && change == CHANGE_ONE_LESS)
            steps -= steps > 0;
        put(out, c, i, steps, i == at ? change != CHANGE_RUN_ON : counted);
    }
    put_choices(out, c, SIZE_MAX);
    fclose(out);
    return text;
}

static char *with_choice_cleared(const struct candidate *c, size_t at)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        abort();
    for (size_t i = 0; i < c->count; i++)
        put(out, c, i, c->segments[i].steps, i + 1 < c->count && !c->segments[i + 1].forced);
    put_choices(out, c, at);
    fclose(out);
    return text;
}

/* ---- Until nothing helps ---- */

/* Takes the text in the candidate's place if it is smaller and still breaks the property. */
static bool try(struct candidate *c, char *text)
{
    bool better = false;

    if (counting->schedules < last_run && counting->steps < last_step && breaks(text)) {
        struct candidate found = taken();

        better = found.size < c->size;
        if (better) {
            drop(c);
            *c = found;
        } else {
            drop(&found);
        }
    }
    free(text);
    return better;
}

static bool shrink_segments(struct candidate *c)
{
    bool better = false;

    for (enum change change = 0; change < CHANGES; change++) {
        for (size_t i = c->count; i-- > 0;) {
            if (i < c->count)
                better |= try(c, changed(c, i, change));
        }
    }
    return better;
}

static bool shrink_choices(struct candidate *c)
{
    bool better = false;

    for (size_t i = c->choice_count; i-- > 0;) {
        if (i < c->choice_count && c->choices[i] != 0)
            better |= try(c, with_choice_cleared(c, i));
    }
    return better;
}

int ex_shrink(const struct ex_scenario *of, const struct ex_options *options,
              struct ex_result *result, char *error, size_t error_size)
{
    char *text = result->schedule != NULL ? strdup(result->schedule) : NULL;
    struct ex_result small;
    struct candidate c;
    int wrong;

    if (text == NULL) {
        snprintf(error, error_size, "nothing has failed that could be made smaller");
        return -1;
    }
    wrong = ex_replay(of, options, text, &small, error, error_size);
    free(text);
    if (wrong != 0)
        return EX_NOT_DONE;
    ex_result_free(&small);
    scenario = of;
    property = result->property;
    last_run = result->schedules + MOST_RUNS;
    last_step = result->steps + MOST_STEPS;
    counting = result;
    c = taken();
    while (shrink_segments(&c) || shrink_choices(&c))
        ;
    text = with_choice_cleared(&c, SIZE_MAX);
    drop(&c);
    wrong = ex_replay(of, options, text, &small, error, error_size);
    free(text);
    if (wrong == 0) {
        free(result->schedule);
        free(result->trace);
        result->schedule = small.schedule;
        result->trace = small.trace;
        result->trace_count = small.trace_count;
        memcpy(result->message, small.message, sizeof result->message);
    }
    return wrong == 0 ? 0 : EX_NOT_DONE;
}
