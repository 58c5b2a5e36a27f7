/* SPDX-License-Identifier: MIT */
/*
 * Which mutants there are: the named ones, and the mechanical ones of every place that a scenario
 * comes to, which a profile of all scenarios finds. The profile says as well where a place touches
 * memory that another actor touches: elsewhere no order and hardly a swap can be seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/mutant.h"
#include "mutants_parts.h"
#include "mutation.h"

const char *const mutant_kind_names[MUTANT_KINDS] = {"bug", "order", "swap", "drop"};

static size_t pairs(void)
{
    return ex_scenario_count * EX_MODES;
}

static struct mutant *add(struct mutants *all, const char *name, const char *text,
                          enum mutant_kind kind)
{
    struct mutant *m;

    all->mutant = realloc(all->mutant, (all->count + 1) * sizeof(*all->mutant));
    if (all->mutant == NULL)
        abort();
    m = &all->mutant[all->count++];
    *m = (struct mutant){.name = strdup(name), .text = text, .kind = kind};
    return m;
}

void mutants_add_named(struct mutants *all)
{
    for (uint32_t i = 1; i < VAPIC_MUTANT_COUNT; i++)
        add(all, vapic_mutant_texts[i].name, vapic_mutant_texts[i].text, MUTANT_BUG);
}

struct mutant *mutants_find(const struct mutants *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->mutant[i].name, name) == 0)
            return &all->mutant[i];
    return NULL;
}

void mutants_forget(struct mutants *all)
{
    for (size_t i = 0; i < all->count; i++) {
        free(all->mutant[i].name);
        free(all->mutant[i].reach);
        free(all->mutant[i].argued);
    }
    free(all->mutant);
}

/* ---- Profiling: a job per process, for names of places are looked up once per process ---- */

#define PROFILE_SCHEDULES 24u

static json_t *profiled; /* of the mode that runs: names, true for shared ones */

static void note_place(const char *kind, const char *name, bool shared)
{
    char text[200];

    snprintf(text, sizeof(text), "%s:%s", kind, name);
    if (shared || json_object_get(profiled, text) == NULL)
        json_object_set_new(profiled, text, json_boolean(shared));
}

static json_t *profile_mode(const struct ex_scenario *scenario, uint32_t mode, char *error,
                            size_t error_size)
{
    struct ex_options o = {
        .mode = mode, .strategy = EX_SAMPLED, .max_schedules = PROFILE_SCHEDULES, .seed = 1};
    struct ex_result result = {0};
    int status;

    mutation_profile_begin();
    status = ex_explore(scenario, &o, &result, error, error_size);
    profiled = json_object();
    mutation_profile_end(note_place);
    ex_result_free(&result);
    if (status == 0)
        return profiled;
    json_decref(profiled);
    return NULL;
}

struct share {
    size_t first, step; /* every step-th scenario */
};

/* The names in pairs of scenario and mode: [[pair, {name: shared, ...}], ...]. */
static json_t *profile_share(const struct check_job *job, char *error, size_t error_size)
{
    const struct share *share = job->arg;
    json_t *all = json_array();

    for (size_t s = share->first; s < ex_scenario_count; s += share->step) {
        for (uint32_t mode = 0; mode < EX_MODES; mode++) {
            json_t *names;

            if (!(ex_scenarios[s]->modes & EX_MODE(mode)))
                continue;
            names = profile_mode(ex_scenarios[s], mode, error, error_size);
            if (names == NULL) {
                json_decref(all);
                return NULL;
            }
            json_array_append_new(all,
                                  json_pack("[I, o]", (json_int_t)(s * EX_MODES + mode), names));
        }
    }
    return all;
}

static enum mutant_kind kind_of(const char *name)
{
    for (int kind = MUTANT_ORDER; kind <= MUTANT_DROP; kind++)
        if (strncmp(name, mutant_kind_names[kind], strlen(mutant_kind_names[kind])) == 0)
            return (enum mutant_kind)kind;
    return MUTANT_BUG;
}

static void add_place(struct mutants *all, const char *name, size_t pair, bool shared)
{
    static const char *const texts[] = {"", "the order is relaxed",
                                        "the store comes after the next",
                                        "the notification is dropped"};
    struct mutant *m = mutants_find(all, name);

    if (m == NULL) {
        m = add(all, name, texts[kind_of(name)], kind_of(name));
        m->reach = calloc(pairs(), sizeof(*m->reach));
        if (m->reach == NULL)
            abort();
    }
    m->reach[pair] = shared ? REACH_SHARED : REACH_OWN;
    m->shared |= shared;
}

static void take_profile(struct mutants *all, json_t *profile)
{
    size_t i;
    json_t *row, *shared;
    const char *name;

    json_array_foreach(profile, i, row) json_object_foreach(json_array_get(row, 1), name, shared)
        add_place(all, name, (size_t)json_integer_value(json_array_get(row, 0)),
                  json_is_true(shared));
}

static int by_name(const void *a, const void *b)
{
    const struct mutant *x = a, *y = b;
    int order = (int)x->kind - (int)y->kind;

    return order != 0 ? order : strcmp(x->name, y->name);
}

bool mutants_add_mechanical(struct mutants *all, unsigned processes)
{
    struct share *shares = calloc(processes, sizeof(*shares));
    struct check_job *jobs = calloc(processes, sizeof(*jobs));
    struct check_jobs run = {.job = jobs, .count = processes, .parallel = processes, .quiet = true};
    bool good = true;

    if (jobs == NULL || shares == NULL)
        abort();
    for (size_t i = 0; i < run.count; i++) {
        shares[i] = (struct share){i, processes};
        jobs[i] = (struct check_job){.title = "places", .work = profile_share, .arg = &shares[i]};
    }
    check_jobs_run(&run);
    for (size_t i = 0; i < run.count; i++) {
        good = good && jobs[i].result != NULL;
        if (jobs[i].result == NULL)
            fprintf(stderr, "looking for places: %s\n", jobs[i].error);
        else
            take_profile(all, jobs[i].result);
        json_decref(jobs[i].result);
    }
    free(jobs);
    free(shares);
    if (all->count != 0)
        qsort(all->mutant, all->count, sizeof(*all->mutant), by_name);
    return good;
}
