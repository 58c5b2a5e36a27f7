/* SPDX-License-Identifier: MIT */
/*
 * Runs mutants: which there are, in what order scenarios are tried on each, what came out. One
 * process per mutant (jobs.c).
 *
 * A mutant is tried first where it is known to be found, then on everything that may reach it:
 * quickly by sampling, then with more samples, then systematically, until it is found or its time
 * is over. Mechanical mutants of a place are tried only on scenarios that reach the place; these
 * are found by profiling. Changed orders are looked for in the memory of C11. What fails without
 * the mutation too finds nothing.
 */
#include "mutants.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/mutant.h"
#include "jobs.h"
#include "mutation.h"
#include "options.h"

enum kind { KIND_BUG, KIND_ORDER, KIND_SWAP, KIND_DROP };

static const char *const kind_names[] = {"bug", "order", "swap", "drop"};
static const char *const strategy_names[] = {
    [EX_SYSTEMATIC] = "systematic", [EX_SAMPLED] = "sampled"};

struct mutant {
    char *name;
    const char *text;
    enum kind kind;
    bool *reached; /* by scenario * EX_MODES + mode; NULL: not known */
    char *argued;  /* why nothing can find it; NULL */
};

static struct mutant *mutants;
static size_t mutant_count;

static const struct ex_mutants_options *options;

static size_t pairs(void)
{
    return ex_scenario_count * EX_MODES;
}

/* ---- Which there are ---- */

static struct mutant *add_mutant(const char *name, const char *text, enum kind kind)
{
    struct mutant *m;

    mutants = realloc(mutants, (mutant_count + 1) * sizeof(*mutants));
    if (mutants == NULL)
        abort();
    m = &mutants[mutant_count++];
    *m = (struct mutant){.name = strdup(name), .text = text, .kind = kind};
    return m;
}

static void add_named(void)
{
    for (uint32_t i = 1; i < VAPIC_MUTANT_COUNT; i++)
        add_mutant(vapic_mutant_texts[i].name, vapic_mutant_texts[i].text, KIND_BUG);
}

static struct mutant *find_mutant(const char *name)
{
    for (size_t i = 0; i < mutant_count; i++)
        if (strcmp(mutants[i].name, name) == 0)
            return &mutants[i];
    return NULL;
}

static enum kind kind_of(const char *name)
{
    for (int kind = KIND_ORDER; kind <= KIND_DROP; kind++)
        if (strncmp(name, kind_names[kind], strlen(kind_names[kind])) == 0)
            return (enum kind)kind;
    return KIND_BUG;
}

static void add_place(const char *name, size_t pair)
{
    static const char *const texts[] = {"", "the order is relaxed",
                                        "the store comes after the next",
                                        "the notification is dropped"};
    struct mutant *m = find_mutant(name);

    if (m == NULL) {
        m = add_mutant(name, texts[kind_of(name)], kind_of(name));
        m->reached = calloc(pairs(), sizeof(*m->reached));
        if (m->reached == NULL)
            abort();
    }
    m->reached[pair] = true;
}

static int by_name(const void *a, const void *b)
{
    const struct mutant *x = a, *y = b;
    int order = (int)x->kind - (int)y->kind;

    return order != 0 ? order : strcmp(x->name, y->name);
}

/* ---- Profiling: a job per process, for names of places are looked up once per process ---- */

#define PROFILE_SCHEDULES 12u

static json_t *profiled; /* of the mode that runs: names */

static void note_place(const char *kind, const char *name)
{
    char text[200];

    snprintf(text, sizeof(text), "%s:%s", kind, name);
    json_array_append_new(profiled, json_string(text));
}

static json_t *profile_mode(const struct ex_scenario *scenario, uint32_t mode, char *error,
                            size_t error_size)
{
    struct ex_options o = {
        .mode = mode, .strategy = EX_SAMPLED, .max_schedules = PROFILE_SCHEDULES, .seed = 1};
    struct ex_result result = {0};
    json_t *names = json_array();
    int status;

    profiled = names;
    mutation_profile(note_place);
    status = ex_explore(scenario, &o, &result, error, error_size);
    mutation_profile(NULL);
    ex_result_free(&result);
    if (status == 0)
        return names;
    json_decref(names);
    return NULL;
}

static unsigned processes(void)
{
    return options->jobs != 0 ? options->jobs : 1;
}

/* Every n-th scenario. The names in pairs of scenario and mode: [[pair, [name, ...]], ...]. */
static json_t *profile_share(const struct check_job *job, char *error, size_t error_size)
{
    const size_t *first = job->arg;
    json_t *all = json_array();

    for (size_t s = *first; s < ex_scenario_count; s += processes()) {
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

static void take_profile(const json_t *all)
{
    size_t i, j;
    json_t *row, *name;

    json_array_foreach(all, i, row) json_array_foreach(json_array_get(row, 1), j, name)
        add_place(json_string_value(name), (size_t)json_integer_value(json_array_get(row, 0)));
}

static bool add_mechanical(void)
{
    size_t *first = calloc(processes(), sizeof(*first));
    struct check_job *jobs = calloc(processes(), sizeof(*jobs));
    struct check_jobs run = {
        .job = jobs, .count = processes(), .parallel = processes(), .quiet = true};
    bool good = true;

    if (jobs == NULL || first == NULL)
        abort();
    for (size_t i = 0; i < run.count; i++) {
        first[i] = i;
        jobs[i] = (struct check_job){.title = "places", .work = profile_share, .arg = &first[i]};
    }
    check_jobs_run(&run);
    for (size_t i = 0; i < run.count; i++) {
        good = good && jobs[i].result != NULL;
        if (jobs[i].result == NULL)
            fprintf(stderr, "looking for places: %s\n", jobs[i].error);
        else
            take_profile(jobs[i].result);
        json_decref(jobs[i].result);
    }
    free(jobs);
    free(first);
    if (mutant_count != 0)
        qsort(mutants, mutant_count, sizeof(*mutants), by_name);
    return good;
}

/* ---- Arguments: lines "| `pattern` | why |" of docs/mutations-argued.md ---- */

static void argue(const char *pattern, const char *why)
{
    for (size_t i = 0; i < mutant_count; i++)
        if (mutants[i].argued == NULL && fnmatch(pattern, mutants[i].name, 0) == 0)
            mutants[i].argued = strdup(why);
}

static void read_argument(char *line)
{
    char *pattern, *end, *why;

    if (strncmp(line, "| `", 3) != 0)
        return;
    pattern = line + 3;
    end = strchr(pattern, '`');
    why = end != NULL ? strchr(end, '|') : NULL;
    if (why == NULL)
        return;
    *end = '\0';
    why += strspn(why, "| ");
    why[strcspn(why, "|\n")] = '\0';
    argue(pattern, why);
}

static void read_arguments(void)
{
    FILE *file = fopen(EX_ARGUED_FILE, "r");
    char *line = NULL;
    size_t size = 0;

    if (file == NULL) {
        fprintf(stderr, "%s: not there: no mutant is argued\n", EX_ARGUED_FILE);
        return;
    }
    while (getline(&line, &size, file) >= 0)
        read_argument(line);
    free(line);
    fclose(file);
}

/* ---- Trying ---- */

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

/* One limit of schedules and seconds for every pair of scenario and mode. */
struct phase {
    enum ex_memory_model memory;
    enum ex_strategy strategy;
    uint64_t schedules;
    double seconds;
};

static const struct phase bug_phases[] = {
    {EX_SC, EX_SAMPLED, 40, 1},    {EX_TSO, EX_SAMPLED, 40, 1},    {EX_SC, EX_SAMPLED, 400, 2},
    {EX_TSO, EX_SAMPLED, 400, 2},  {EX_SC, EX_SAMPLED, 5000, 5},   {EX_TSO, EX_SAMPLED, 5000, 5},
    {EX_SC, EX_SYSTEMATIC, 0, 15}, {EX_TSO, EX_SYSTEMATIC, 0, 15}, {0},
};
static const struct phase order_phases[] = {
    {EX_C11, EX_SAMPLED, 100, 1},
    {EX_TSO, EX_SAMPLED, 100, 1},
    {EX_C11, EX_SAMPLED, 1500, 4},
    {0},
};
static const struct phase swap_phases[] = {
    {EX_SC, EX_SAMPLED, 60, 1},
    {EX_SC, EX_SAMPLED, 1000, 3},
    {EX_SC, EX_SYSTEMATIC, 0, 8},
    {0},
};
static const struct phase *const phases[] = {bug_phases, order_phases, swap_phases, swap_phases};

static double left(const struct hunt *h)
{
    return h->start + h->limit - check_now();
}

static json_t *describe(const struct hunt *h, const struct attempt *a,
                        const struct ex_result *result)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:f, s:s, s:s}", "scenario",
                     ex_scenarios[a->scenario]->name, "accel", check_mode_names[a->mode], "memory",
                     check_memory_names[a->memory], "strategy", strategy_names[a->strategy],
                     "schedules", (json_int_t)h->schedules, "seconds", check_now() - h->start,
                     "property", result->property, "message", result->message);
}

/* Does the scenario fail in the same way without the mutation? Asked of samples only. */
static bool fails_anyway(const struct ex_scenario *scenario, struct ex_options o,
                         uint64_t schedules)
{
    struct ex_result result = {0};
    char error[256];
    bool fails;

    o.mutant = NULL;
    o.max_schedules = 4 * schedules + 200;
    fails = ex_explore(scenario, &o, &result, error, sizeof(error)) != 0 || result.failed;
    if (fails)
        fprintf(stderr, "%s (%s, %s) fails without any mutation: %s: %s\n", scenario->name,
                check_mode_names[o.mode], check_memory_names[o.memory],
                result.property != NULL ? result.property : "", result.message);
    ex_result_free(&result);
    return fails;
}

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
    if (result.failed &&
        (a->strategy != EX_SAMPLED || !fails_anyway(scenario, o, result.schedules)))
        h->found = describe(h, a, &result);
    ex_result_free(&result);
    return h->found == NULL;
}

static bool reaches(const struct mutant *m, size_t scenario, uint32_t mode)
{
    if (!(ex_scenarios[scenario]->modes & EX_MODE(mode)))
        return false;
    return m->reached == NULL || m->reached[scenario * EX_MODES + mode];
}

static bool try_phase(struct hunt *h, const struct phase *p, char *error, size_t error_size)
{
    for (size_t s = 0; s < ex_scenario_count; s++) {
        for (uint32_t mode = 0; mode < EX_MODES; mode++) {
            struct attempt a = {s, mode, p->memory, p->strategy, p->schedules, p->seconds};

            if (reaches(h->mutant, s, mode) && !try(h, &a, error, error_size))
                return false;
        }
    }
    return true;
}

/* Where to look first for a mutant of a place in a file: the scenarios of what the file is for. */
static const struct {
    const char *file, *scenario;
} suited[] = {
    {"accel.c", "inhibit-a-runner"},
    {"accel.c", "two-administrators"},
    {"accel.c", "iommu-to-sleeper"},
    {"apicv", "route-and-service"},
    {"apicv", "on-while-in-service"},
    {"avic_irte.c", "iommu-to-sleeper"},
    {"avic_irte.c", "attach-and-move"},
    {"avic_table.c", "ipi-to-sleeper"},
    {"avic_table.c", "ldr-is-shared"},
    {"fabric", "moves-between-chains"},
    {"fabric", "hotplug-and-nmi"},
    {"fabric", "remove-and-msi"},
    {"flush", "apic-off-and-on"},
    {"gsi.c", "level-served-twice"},
    {"inhibit.c", "window-and-reason"},
    {"inhibit.c", "inhibit-a-runner"},
    {"inhibit.c", "page-fault-and-withdrawal"},
    {"internal.h", "level-and-poke"},
    {"internal.h", "nmi-to-sleeper"},
    {"ioapic", "level-to-nobody"},
    {"ioapic", "level-raised-again"},
    {"lapic.c", "level-and-poke"},
    {"lapic.c", "nmi-and-extint"},
    {"lapic_run.c", "post-behind-post"},
    {"lapic_run.c", "two-lives"},
    {"post.c", "post-to-sleeper"},
    {"post.c", "post-behind-post"},
    {"post.c", "level-and-poke"},
    {"posted.c", "post-and-device"},
    {"posted.c", "list-left-twice"},
    {"posted.c", "silent-post-before-sleep"},
    {"posted.c", "attach-to-sleeper"},
    {"pv.c", "pv-eoi-and-post"},
};

#define SUITED_SCHEDULES 600u

static bool is_suited(const struct mutant *m, size_t row)
{
    const char *place = strchr(m->name, ':');

    return place != NULL && strncmp(place + 1, suited[row].file, strlen(suited[row].file)) == 0;
}

static size_t scenario_named(const char *name)
{
    size_t i = 0;

    while (i < ex_scenario_count && strcmp(ex_scenarios[i]->name, name) != 0)
        i++;
    return i;
}

static bool try_hints(struct hunt *h, char *error, size_t error_size)
{
    for (size_t i = 0; i < ex_mutant_hint_count; i++) {
        const struct ex_mutant_hint *hint = &ex_mutant_hints[i];
        struct attempt a = {
            scenario_named(hint->scenario), hint->mode, hint->memory, hint->strategy, 0, 30};

        if (fnmatch(hint->mutant, h->mutant->name, 0) == 0 && a.scenario < ex_scenario_count &&
            !try(h, &a, error, error_size))
            return false;
    }
    return true;
}

static bool try_suited(struct hunt *h, char *error, size_t error_size)
{
    const struct phase *p = phases[h->mutant->kind];

    for (size_t i = 0; i < sizeof(suited) / sizeof(suited[0]); i++) {
        struct attempt a = {
            scenario_named(suited[i].scenario), 0, p->memory, p->strategy, SUITED_SCHEDULES, 3};

        for (; is_suited(h->mutant, i) && a.scenario < ex_scenario_count && a.mode < EX_MODES;
             a.mode++)
            if (reaches(h->mutant, a.scenario, a.mode) && !try(h, &a, error, error_size))
                return false;
    }
    return true;
}

/* The result is empty for a mutant that survives. */
static json_t *hunt(const struct check_job *job, char *error, size_t error_size)
{
    const struct mutant *m = job->arg;
    double limit = options->seconds > 0 ? options->seconds : m->kind == KIND_BUG ? 240 : 30;
    struct hunt h = {.mutant = m, .job = job, .start = check_now(), .limit = limit};

    error[0] = '\0';
    if (try_hints(&h, error, error_size) && try_suited(&h, error, error_size))
        for (const struct phase *p = phases[m->kind]; p->seconds > 0; p++)
            if (!try_phase(&h, p, error, error_size))
                break;
    if (error[0] != '\0')
        return NULL;
    if (h.found != NULL)
        return h.found;
    return json_pack("{s:I, s:f}", "schedules", (json_int_t)h.schedules, "seconds",
                     check_now() - h.start);
}

/* ---- What came out ---- */

struct count {
    size_t killed, survived, argued, broken, wrongly_argued;
};

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool is_killed(const struct check_job *job)
{
    return job->result != NULL && json_object_get(job->result, "scenario") != NULL;
}

static void print_killed(const struct mutant *m, const json_t *r)
{
    printf("%-28s killed by %s (%s, %s) in %lld schedules, %.2f s: %s%s\n", m->name,
           text_of(r, "scenario"), text_of(r, "accel"), text_of(r, "memory"),
           (long long)json_integer_value(json_object_get(r, "schedules")),
           json_number_value(json_object_get(r, "seconds")), text_of(r, "property"),
           m->argued != NULL ? "; ARGUED, but found" : "");
}

static void print_survivor(const struct mutant *m, const json_t *r)
{
    printf("%-28s %s after %lld schedules, %.1f s: %s\n", m->name,
           m->argued != NULL ? "survives, as argued," : "SURVIVED",
           (long long)json_integer_value(json_object_get(r, "schedules")),
           json_number_value(json_object_get(r, "seconds")),
           m->argued != NULL ? m->argued : m->text);
}

static void tell(const struct check_job *job, struct count *count)
{
    const struct mutant *m = job->arg;

    if (is_killed(job)) {
        count->killed++;
        count->wrongly_argued += m->argued != NULL;
        if (!options->json)
            print_killed(m, job->result);
    } else if (job->result != NULL) {
        count->survived += m->argued == NULL;
        count->argued += m->argued != NULL;
        if (!options->json)
            print_survivor(m, job->result);
    } else {
        count->broken++;
        fprintf(stderr, "%s: %s\n", m->name, job->error[0] != '\0' ? job->error : "not tried");
    }
}

static json_t *document_of(const struct check_job *job)
{
    const struct mutant *m = job->arg;
    json_t *row = json_pack("{s:s, s:s, s:s, s:b}", "mutant", m->name, "kind", kind_names[m->kind],
                            "text", m->text, "killed", is_killed(job));

    if (m->argued != NULL)
        json_object_set_new(row, "argued", json_string(m->argued));
    if (job->result != NULL)
        json_object_update(row, job->result);
    else
        json_object_set_new(row, "error", json_string(job->error));
    return row;
}

static void print_json(const struct check_jobs *jobs)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < jobs->count; i++)
        json_array_append_new(rows, document_of(&jobs->job[i]));
    json_dumpf(rows, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(rows);
}

static bool is_chosen(const struct mutant *m, size_t number)
{
    if (options->only != NULL && fnmatch(options->only, m->name, 0) != 0)
        return false;
    return options->shards == 0 || number % options->shards == options->shard;
}

static struct check_jobs make_jobs(void)
{
    struct check_jobs jobs = {.job = calloc(mutant_count + 1, sizeof(*jobs.job)),
                              .parallel = processes()};

    if (jobs.job == NULL)
        abort();
    for (size_t i = 0; i < mutant_count; i++)
        if (is_chosen(&mutants[i], i))
            jobs.job[jobs.count++] =
                (struct check_job){.title = mutants[i].name, .work = hunt, .arg = &mutants[i]};
    return jobs;
}

static int list_mutants(const struct check_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++) {
        const struct mutant *m = jobs->job[i].arg;

        printf("%-28s %s%s%s\n", m->name, m->text, m->argued != NULL ? "; argued: " : "",
               m->argued != NULL ? m->argued : "");
    }
    return CHECK_OK;
}

#define BATCH 4u /* per process: so that results are seen before all are there */

static void run_batch(const struct check_jobs *jobs, size_t first, struct count *count)
{
    struct check_jobs batch = *jobs;

    batch.job = &jobs->job[first];
    batch.count = jobs->count - first;
    if (batch.count > BATCH * jobs->parallel)
        batch.count = BATCH * jobs->parallel;
    check_jobs_run(&batch);
    for (size_t i = 0; i < batch.count; i++)
        tell(&batch.job[i], count);
    fflush(stdout);
}

static int run_mutants(struct check_jobs *jobs)
{
    struct count count = {0};

    for (size_t i = 0; i < jobs->count; i += BATCH * jobs->parallel)
        run_batch(jobs, i, &count);
    if (options->json)
        print_json(jobs);
    else
        printf("%zu mutants: %zu killed, %zu survive as argued, %zu SURVIVED, %zu not tried\n",
               jobs->count, count.killed, count.argued, count.survived, count.broken);
    if (count.wrongly_argued > 0)
        fprintf(stderr, "%zu ARGUED, but found: their arguments are wrong\n", count.wrongly_argued);
    return count.survived + count.broken == 0 ? CHECK_OK : CHECK_FAILED;
}

static void forget(struct check_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++)
        json_decref(jobs->job[i].result);
    free(jobs->job);
    for (size_t i = 0; i < mutant_count; i++) {
        free(mutants[i].name);
        free(mutants[i].reached);
        free(mutants[i].argued);
    }
    free(mutants);
}

int ex_mutants_run(const struct ex_mutants_options *o)
{
    struct check_jobs jobs;
    int status;

    options = o;
    if (!o->mechanical)
        add_named();
    else if (!add_mechanical())
        return CHECK_FAILED;
    read_arguments();
    jobs = make_jobs();
    /* A share may be empty: there are more of them than mutants. */
    if (jobs.count == 0 && o->shards == 0)
        status = check_refuse("no mutant is called \"%s\": see --mutants --list",
                              o->only != NULL ? o->only : "");
    else
        status = o->list ? list_mutants(&jobs) : run_mutants(&jobs);
    forget(&jobs);
    return status;
}
