/* SPDX-License-Identifier: MIT */
/* The table at the end: one line for each scenario and mode, and what they come to. */
#include <string.h>

#include "output.h"

static const char *property_of(const struct check_outcome *o)
{
    const char *property = json_string_value(json_object_get(o->failure, "property"));

    return property;
}

static void say_extent(const struct check_outcome *o, char *to, size_t size)
{
    const char *property = property_of(o);

    if (o->error != NULL) {
        snprintf(to, size, "NOT DONE");
    } else if (property != NULL) {
        snprintf(to, size, "BROKEN: %s", property);
    } else if (strcmp(o->extent, "bounded") == 0) {
        snprintf(to, size, "complete to %lld preemption%s", (long long)o->bound,
                 o->bound == 1 ? "" : "s");
    } else if (strcmp(o->extent, "stopped") == 0 && o->bound >= 0) {
        snprintf(to, size, "stopped, below %lld preemptions", (long long)o->bound);
    } else if (strcmp(o->extent, "elsewhere") == 0) {
        snprintf(to, size, "in other shards");
    } else {
        snprintf(to, size, "%s", o->extent);
    }
}

static void print_row(const struct check_outcome *o, int widest)
{
    char extent[80];

    say_extent(o, extent, sizeof(extent));
    printf("%-*s  %-11s  %12s  %-29s  %11s\n", widest, o->scenario, o->mode,
           check_number((uint64_t)o->schedules), extent, check_duration(o->seconds));
    if (o->error != NULL) {
        printf("  %s\n", o->error);
    }
}

static int widest_name(const json_t *results)
{
    size_t i;
    size_t widest = strlen("scenario");
    json_t *json;

    json_array_foreach((json_t *)results, i, json)
    {
        const char *name = json_string_value(json_object_get(json, "scenario"));

        widest = name != NULL && strlen(name) > widest ? strlen(name) : widest;
    }
    return (int)widest;
}

static int64_t total(const json_t *document, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(document, "totals"), name));
}

static void print_shard(const json_t *document)
{
    const json_t *shard = json_object_get(document, "shard");

    if (json_is_object(shard)) {
        printf("This is shard %lld of %lld: `vapic check --merge` adds them up.\n",
               (long long)json_integer_value(json_object_get(shard, "index")),
               (long long)json_integer_value(json_object_get(shard, "count")));
    }
}

void check_print_table(const json_t *document)
{
    const json_t *results = json_object_get(document, "results");
    int widest = widest_name(results);
    size_t i;
    json_t *json;

    printf("%-*s  %-11s  %12s  %-29s  %11s\n", widest, "scenario", "mode", "schedules", "explored",
           "time");
    json_array_foreach((json_t *)results, i, json)
    {
        struct check_outcome outcome;
        char error[256];

        if (check_outcome_parse(json, &outcome, error, sizeof(error))) {
            print_row(&outcome, widest);
        }
    }
    printf("\n%lld explored, %lld of them complete within their bound, %lld broken, %lld not done; "
           "%s schedules, %s steps\n",
           (long long)total(document, "explored"), (long long)total(document, "complete"),
           (long long)total(document, "broken"), (long long)total(document, "not_done"),
           check_number((uint64_t)total(document, "schedules")),
           check_number((uint64_t)total(document, "steps")));
    print_shard(document);
}
