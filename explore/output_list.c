/* SPDX-License-Identifier: MIT */
/* `vapic check --list`, `--list-properties`, `--list-races`. */
#include <string.h>

#include "output.h"
#include "properties.h"

static json_t *scenario_json(const struct ex_scenario *s)
{
    json_t *bound =
        s->bound == EX_COMPLETE ? json_string("complete") : json_integer((json_int_t)s->bound);

    return json_pack("{s:s, s:s, s:o, s:o, s:s}", "name", s->name, "text", s->text, "modes",
                     check_modes_json(s->modes), "bound", bound, "races",
                     s->races != NULL ? s->races : "");
}

static void print_scenario(const struct ex_scenario *s)
{
    printf("%s\n    %s\n    on", s->name, s->text);
    for (unsigned m = 0; m < EX_MODES; m++) {
        if (s->modes & EX_MODE(m)) {
            printf(" %s", check_mode_names[m]);
        }
    }
    if (s->bound == EX_COMPLETE) {
        fputs("; complete", stdout);
    } else {
        printf("; up to %u preemptions", s->bound);
    }
    if (s->races != NULL) {
        printf("; races %s", s->races);
    }
    putchar('\n');
}

static unsigned explorations(const bool *selected)
{
    unsigned count = 0;

    for (size_t i = 0; i < ex_scenario_count; i++) {
        count += selected[i] ? (unsigned)__builtin_popcount(ex_scenarios[i]->modes) : 0;
    }
    return count;
}

void check_list_scenarios(const bool *selected, bool json)
{
    json_t *list = json_array();
    json_t *document;
    size_t count = 0;

    for (size_t i = 0; i < ex_scenario_count; i++) {
        if (!selected[i]) {
            continue;
        }
        count++;
        json_array_append_new(list, scenario_json(ex_scenarios[i]));
        if (!json) {
            print_scenario(ex_scenarios[i]);
        }
    }
    document = json_pack("{s:o}", "scenarios", list);
    if (json) {
        check_print_json(document);
    } else {
        printf("\n%zu scenarios, %u with their modes\n", count, explorations(selected));
    }
    json_decref(document);
}

void check_list_properties(bool json)
{
    json_t *list = json_array();
    json_t *document;

    for (size_t i = 0; i < ex_property_count; i++) {
        const struct ex_property *p = &ex_properties[i];

        json_array_append_new(list, json_pack("{s:s, s:s}", "name", p->name, "text", p->text));
        if (!json) {
            printf("%-10s %s\n", p->name, p->text);
        }
    }
    document = json_pack("{s:o}", "properties", list);
    if (json) {
        check_print_json(document);
    }
    json_decref(document);
}

/* ---- Races ---- */

#define RACES_MOST 99u /* of one letter */

static bool names_race(const char *races, const char *race)
{
    size_t length = strlen(race);

    for (const char *word = races; word != NULL && *word != '\0';) {
        size_t size = strcspn(word, " ");

        if (size == length && memcmp(word, race, length) == 0) {
            return true;
        }
        word += size + strspn(word + size, " ");
    }
    return false;
}

static json_t *scenarios_of(const char *race)
{
    json_t *list = json_array();

    for (size_t i = 0; i < ex_scenario_count; i++) {
        if (names_race(ex_scenarios[i]->races, race)) {
            json_array_append_new(list, json_string(ex_scenarios[i]->name));
        }
    }
    return list;
}

static void print_race(const char *race, const json_t *scenarios)
{
    size_t i;
    json_t *name;

    printf("%-4s", race);
    json_array_foreach((json_t *)scenarios, i, name)
    {
        printf(" %s", json_string_value(name));
    }
    putchar('\n');
}

void check_list_races(bool json)
{
    static const char letters[] = "SAPIN"; /* in the order of docs/races.md */
    json_t *races = json_object();
    json_t *document;

    for (unsigned n = 0; n < RACES_MOST * (sizeof(letters) - 1); n++) {
        char race[8];
        json_t *scenarios;

        snprintf(race, sizeof(race), "%c%u", letters[n / RACES_MOST], n % RACES_MOST + 1);
        scenarios = scenarios_of(race);
        if (json_array_size(scenarios) != 0 && !json) {
            print_race(race, scenarios);
        }
        if (json_array_size(scenarios) != 0) {
            json_object_set(races, race, scenarios);
        }
        json_decref(scenarios);
    }
    document = json_pack("{s:o}", "races", races);
    if (json) {
        check_print_json(document);
    }
    json_decref(document);
}
