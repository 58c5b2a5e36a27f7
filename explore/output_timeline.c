/* SPDX-License-Identifier: MIT */
/*
 * A counterexample as text: one column per actor, time goes down, and every line is a step of one
 * actor: a shared access that conflicts with another actor's, a wait, a choice, a note. The broken
 * property comes last, with the line that plays it again.
 *
 * A failure is an object {property, message, schedule, steps, actors, timeline}; a replay that
 * went well is one whose property is null.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "output.h"

#define WIDTH_DEFAULT 120u
#define WIDTH_LEAST   60u
#define WIDTH_MOST    200u
#define NUMBER_WIDTH  6u /* the step's number, and a blank */
#define COLUMN_MOST   64u
#define CELL_LINES    3u /* of what is done; more is cut */

struct page {
    const json_t *actors;
    size_t columns; /* the actors', and one for what belongs to none if there is such a step */
    size_t width;   /* of a column, without the rule at its left */
    int64_t last_actor;
    bool verbose;
};

static size_t terminal_width(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;
    size_t width = WIDTH_DEFAULT;

    if (columns != NULL && atoi(columns) > 0) {
        width = (size_t)atoi(columns);
    } else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        width = size.ws_col;
    }
    return width < WIDTH_LEAST ? WIDTH_LEAST : width > WIDTH_MOST ? WIDTH_MOST : width;
}

/* One line with text in one column only; `number` 0 prints none. */
static void print_cell(const struct page *p, int64_t number, size_t column, const char *text,
                       size_t length)
{
    char label[NUMBER_WIDTH + 1] = "";
    size_t last = p->columns - 1;

    if (number > 0) {
        snprintf(label, sizeof(label), "%5lld", (long long)(number % 100000));
    }
    printf("%-*s", (int)NUMBER_WIDTH, label);
    for (size_t i = 0; i < column; i++) {
        printf("| %-*s", (int)p->width, "");
    }
    if (column == last) {
        printf("| %.*s\n", (int)length, text);
        return;
    }
    printf("| %-*.*s", (int)p->width, (int)length, text);
    for (size_t i = column + 1; i < last; i++) {
        printf("| %-*s", (int)p->width, "");
    }
    puts("|");
}

static void print_rule(const struct page *p)
{
    for (size_t i = 0; i < NUMBER_WIDTH; i++) {
        putchar('-');
    }
    for (size_t i = 0; i < p->columns; i++) {
        putchar('+');
        for (size_t n = 0; n <= p->width && (i + 1 < p->columns || n < p->width); n++) {
            putchar('-');
        }
    }
    putchar('\n');
}

static const char *column_name(const struct page *p, size_t column)
{
    const char *name = json_string_value(json_array_get(p->actors, column));

    return name != NULL ? name : "environment";
}

static void print_header(const struct page *p)
{
    printf("%-*s", (int)NUMBER_WIDTH, " step");
    for (size_t i = 0; i < p->columns; i++) {
        int width = i + 1 < p->columns ? (int)p->width : 0;

        printf("| %-*.*s", width, (int)p->width, column_name(p, i));
    }
    putchar('\n');
    print_rule(p);
}

static void print_step(struct page *p, const struct check_step *step)
{
    char what[512];
    char where[160];
    const char *rest = what;
    size_t count = json_array_size(p->actors);
    size_t column = (size_t)step->actor < count ? (size_t)step->actor : p->columns - 1;
    int64_t number = step->number;

    if (p->last_actor >= 0 && p->last_actor != step->actor) {
        print_cell(p, 0, 0, "", 0);
    }
    p->last_actor = step->actor;
    check_step_say(step, what, sizeof(what));
    for (unsigned n = 0; *rest != '\0' && n < CELL_LINES; n++) {
        size_t length = check_wrap(rest, p->width - 1);

        print_cell(p, number, column, rest, length);
        rest += length + (rest[length] == ' ');
        number = 0;
    }
    check_step_where(step, where, sizeof(where), p->width - 3);
    if (where[0] != '\0') {
        memmove(where + 2, where, strlen(where) + 1);
        memcpy(where, "  ", 2);
        print_cell(p, 0, column, where, strlen(where));
    }
}

static bool is_shown(const struct check_step *step, bool verbose)
{
    return verbose || step->decisive || step->name == NULL;
}

/* Whether a step belongs to no actor, so that a column more is needed. */
static bool needs_environment(const json_t *timeline, size_t actors)
{
    size_t i;
    json_t *json;

    json_array_foreach((json_t *)timeline, i, json)
    {
        struct check_step step;

        if (check_step_parse(json, &step) && (size_t)step.actor >= actors &&
            strcmp(step.kind, "fail") != 0) {
            return true;
        }
    }
    return false;
}

static void lay_out(struct page *p, const json_t *timeline)
{
    size_t actors = json_array_size(p->actors);
    size_t room = terminal_width() - NUMBER_WIDTH;

    p->columns = actors + needs_environment(timeline, actors);
    p->columns += p->columns == 0;
    p->width = room / p->columns - 2;
    p->width = p->width > COLUMN_MOST ? COLUMN_MOST : p->width;
    p->last_actor = -1;
}

static size_t print_steps(struct page *p, const json_t *timeline)
{
    size_t i, shown = 0;
    json_t *json;

    json_array_foreach((json_t *)timeline, i, json)
    {
        struct check_step step;

        if (!check_step_parse(json, &step) || !is_shown(&step, p->verbose) ||
            strcmp(step.kind, "fail") == 0) {
            continue;
        }
        print_step(p, &step);
        shown++;
    }
    return shown;
}

static void print_wrapped(const char *title, const char *text)
{
    size_t indent = strlen(title);
    size_t width = terminal_width() - indent;

    fputs(title, stdout);
    while (*text != '\0') {
        size_t length = check_wrap(text, width);

        printf("%.*s\n", (int)length, text);
        text += length + (text[length] == ' ');
        if (*text != '\0') {
            printf("%*s", (int)indent, "");
        }
    }
}

static void print_end(const json_t *document, const struct check_outcome *o)
{
    const char *property = json_string_value(json_object_get(o->failure, "property"));
    char *replay = check_replay_line(document, o);
    char *text = NULL;

    if (property == NULL) {
        puts("No property is broken by this schedule.");
    } else if (asprintf(&text, "%s: %s", property,
                        json_string_value(json_object_get(o->failure, "message"))) > 0) {
        print_wrapped("BROKEN  ", text);
    }
    printf("replay  %s\n", replay != NULL ? replay : "");
    free(text);
    free(replay);
}

void check_print_timeline(const json_t *document, const struct check_outcome *o, bool verbose)
{
    const json_t *timeline = json_object_get(o->failure, "timeline");
    struct page page = {.actors = json_object_get(o->failure, "actors"), .verbose = verbose};
    const char *memory =
        json_string_value(json_object_get(json_object_get(document, "options"), "memory"));
    int64_t all = json_integer_value(json_object_get(o->failure, "steps"));
    size_t shown;

    lay_out(&page, timeline);
    printf("%s on %s, memory model %s\n\n", o->scenario, o->mode, memory != NULL ? memory : "?");
    print_header(&page);
    shown = print_steps(&page, timeline);
    print_rule(&page);
    if ((int64_t)shown < all) {
        printf("%zu of %lld steps are shown, those that matter%s\n", shown, (long long)all,
               verbose ? "" : " (--verbose: all of them)");
    }
    print_end(document, o);
}

/* Whether an earlier result of the same scenario broke the same: once is enough to read. */
static bool seen_before(const json_t *results, size_t before, const struct check_outcome *o)
{
    const json_t *property = json_object_get(o->failure, "property");

    for (size_t i = 0; i < before; i++) {
        const json_t *other = json_array_get(results, i);
        const char *scenario = json_string_value(json_object_get(other, "scenario"));

        if (scenario != NULL && strcmp(scenario, o->scenario) == 0 &&
            json_equal(property, json_object_get(json_object_get(other, "failure"), "property"))) {
            return true;
        }
    }
    return false;
}

static void print_line_only(const json_t *document, const struct check_outcome *o)
{
    char *replay = check_replay_line(document, o);

    printf("\n%s on %s: the same property is broken\nreplay  %s\n", o->scenario, o->mode,
           replay != NULL ? replay : "");
    free(replay);
}

void check_print_failures(const json_t *document, bool verbose)
{
    const json_t *results = json_object_get(document, "results");
    size_t i;
    json_t *json;

    json_array_foreach((json_t *)results, i, json)
    {
        struct check_outcome outcome;
        char error[256];

        if (!check_outcome_parse(json, &outcome, error, sizeof(error)) || outcome.failure == NULL) {
            continue;
        }
        if (seen_before(results, i, &outcome)) {
            print_line_only(document, &outcome);
        } else {
            putchar('\n');
            check_print_timeline(document, &outcome, verbose);
        }
    }
}
