/* SPDX-License-Identifier: MIT */
/*
 * Schedules as a line of text, and runs that follow one:
 *
 *      0:17,1:40,d0,1,0/1,0,2
 *
 * Actor 0 makes 17 steps, actor 1 makes 40, the oldest stores in actor 0's buffer become visible,
 * actor 1 goes on until it cannot, then actor 0. Behind the slash: the answers to choices, in the
 * order in which they are asked; zeros at the end are left out. When the text is used up, the run
 * goes on without preemptions.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "strategy.h"
#include "tso.h"

#define ALL UINT32_MAX

/* ---- From a run to text ---- */

static void put(FILE *out, size_t i)
{
    const struct machine_segment *segment = &machine.segments[i];
    bool last = i + 1 == machine.segment_count;

    if (segment->move & MACHINE_DRAIN)
        fprintf(out, "d%u", segment->move & (MACHINE_DRAIN - 1));
    else if (last || machine.segments[i + 1].forced)
        fprintf(out, "%u", segment->move);
    else
        fprintf(out, "%u:%u", segment->move, machine_segment_steps(i));
}

/* Nothing to say: an actor that was passed over between two drains. */
static bool is_empty(size_t i)
{
    const struct machine_segment *segment = &machine.segments[i];

    return !(segment->move & MACHINE_DRAIN) && machine_segment_steps(i) == 0 &&
           i + 1 < machine.segment_count && !machine.segments[i + 1].forced;
}

char *schedule_text(void)
{
    char *text = NULL;
    size_t size, choices = machine.choice_count;
    const char *between = "";
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        abort();
    for (size_t i = 0; i < machine.segment_count; i++) {
        if (is_empty(i))
            continue;
        fputs(between, out);
        put(out, i);
        between = ",";
    }
    while (choices > 0 && machine.choices[choices - 1] == 0)
        choices--;
    for (size_t i = 0; i < choices; i++)
        fprintf(out, "%c%u", i == 0 ? '/' : ',', machine.choices[i]);
    fclose(out);
    return text;
}

/* ---- From text to decisions ---- */

struct item {
    uint8_t move;
    uint32_t steps;
};

static struct item *items;
static uint32_t *answers;
static size_t item_count, item_at, answer_count, answer_at;
static uint32_t until; /* the step at which the current item is used up */
static bool is_strict;
static char problem[160];

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...)
{
    va_list arguments;

    if (problem[0] != '\0' || !is_strict)
        return;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
}

static bool number(const char **at, uint32_t *value)
{
    char *end;
    unsigned long got;

    if (!isdigit((unsigned char)**at))
        return false;
    got = strtoul(*at, &end, 10);
    *at = end;
    *value = (uint32_t)got;
    return got < ALL;
}

static bool parse_item(const char **at, struct item *item)
{
    uint32_t actor;
    bool drain = **at == 'd';

    *at += drain;
    if (!number(at, &actor) || actor >= EX_MAX_ACTORS)
        return false;
    item->move = (uint8_t)(actor | (drain ? MACHINE_DRAIN : 0));
    item->steps = ALL;
    if (**at != ':' || drain)
        return true;
    ++*at;
    return number(at, &item->steps);
}

static bool parse_list(const char **at, bool answer)
{
    for (;;) {
        if (answer ? !number(at, &answers[answer_count++]) : !parse_item(at, &items[item_count++]))
            return false;
        if (**at != ',')
            return true;
        ++*at;
    }
}

/* 0; or the place in the text, from 1, that makes no sense. */
static size_t parse(const char *text)
{
    const char *at = text;
    size_t room = strlen(text) + 1;

    item_count = item_at = answer_count = answer_at = 0;
    items = realloc(items, room * sizeof *items);
    answers = realloc(answers, room * sizeof *answers);
    if (items == NULL || answers == NULL)
        abort();
    if (*at != '\0' && *at != '/' && !parse_list(&at, false))
        return (size_t)(at - text) + 1;
    if (*at == '/' && (++at, !parse_list(&at, true)))
        return (size_t)(at - text) + 1;
    return *at == '\0' ? 0 : (size_t)(at - text) + 1;
}

/* ---- The driver ---- */

/* The current actor cannot go on although the text says that it does. */
static void cut_short(uint32_t step)
{
    if (item_at > 0 && until != ALL && step < until)
        complain("item %zu: the actor stops %u steps earlier", item_at, until - step);
    until = step;
}

static bool is_possible(uint8_t move)
{
    uint32_t actor = move & (MACHINE_DRAIN - 1);

    if (move & MACHINE_DRAIN)
        return actor < machine.actor_count && machine.memory == EX_TSO && tso_waiting(actor);
    return actor < machine.actor_count && machine_enabled(actor);
}

/* The step at which the item is used up; one that would be beyond all numbers is never reached. */
static uint32_t end_of(const struct item *item, uint32_t step)
{
    if (item->steps == ALL)
        return ALL;
    return item->steps < ALL - 1 - step ? step + item->steps : ALL - 1;
}

static bool recorded(uint32_t step, uint32_t current, uint8_t *move)
{
    if (current == MACHINE_NOBODY)
        cut_short(step);
    for (;;) {
        const struct item *item;

        if (current != MACHINE_NOBODY && step < until) {
            machine.consult_from = until;
            *move = (uint8_t)current;
            return true;
        }
        if (item_at == item_count)
            return false;
        item = &items[item_at++];
        *move = item->move;
        if (!is_possible(item->move)) {
            complain("item %zu: nothing to be done by %u now", item_at,
                     item->move & (MACHINE_DRAIN - 1));
            continue;
        }
        if (item->move & MACHINE_DRAIN)
            return true;
        until = end_of(item, step);
        machine.consult_from = until;
        if (item->move != current)
            return true;
    }
}

static uint8_t decide(const struct machine_point *point)
{
    machine.consult_from = ALL;
    return point->moves[0];
}

static uint32_t choose(uint32_t step, uint32_t count)
{
    uint32_t answer = answer_at < answer_count ? answers[answer_at] : 0;

    answer_at++;
    if (answer < count)
        return answer;
    complain("answer %zu: %u, of %u at step %u", answer_at, answer, count, step);
    return 0;
}

static const struct machine_driver driver = {recorded, decide, choose};

int schedule_run(const struct ex_scenario *scenario, const char *text, bool strict, char *error,
                 size_t error_size)
{
    size_t wrong = parse(text);

    if (wrong != 0) {
        snprintf(error, error_size, "schedule: character %zu makes no sense", wrong);
        return -1;
    }
    machine.driver = &driver;
    machine.consult_from = 0;
    machine.every_step = machine.watchful = true;
    until = 0;
    is_strict = strict;
    problem[0] = '\0';
    machine_run(scenario);
    if (item_at < item_count && machine.outcome != MACHINE_FAILED)
        complain("item %zu: nobody is left to go on", item_at + 1);
    if (machine.outcome != MACHINE_FAILED)
        cut_short(machine.step);
    if (problem[0] == '\0')
        return 0;
    snprintf(error, error_size, "schedule: %s", problem);
    return -1;
}
