/* SPDX-License-Identifier: MIT */
/*
 * `vapic-check`, which `vapic check` runs: makes a job of every scenario in every mode that was
 * asked for, and prints what they found. options.h has the arguments, output.h what is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs.h"
#include "mutants.h"
#include "options.h"
#include "output.h"

/* A scenario in a mode: one line of the table. */
struct row {
    const struct ex_scenario *scenario;
    struct ex_options options;
    char title[80];
};

/* What a job explores: a row, or a part of it. */
struct task {
    size_t row;
    struct ex_options options;
    const struct check_options *asked;
    const struct ex_scenario *scenario;
};

struct plan {
    const struct check_options *asked;
    struct row *row;
    size_t rows;
    struct task *task;
    size_t tasks;
};

/* ---- In a job's process ---- */

static int explore(const struct task *task, const struct ex_options *options,
                   struct ex_result *result, char *error, size_t size)
{
    if (task->asked->action == CHECK_REPLAY) {
        return ex_replay(task->scenario, options, task->asked->replay, result, error, size);
    }
    if (ex_explore(task->scenario, options, result, error, size) != 0) {
        return -1;
    }
    if (result->failed && task->asked->shrink) {
        return ex_shrink(task->scenario, options, result, error, size);
    }
    return 0;
}

/* Said by the first process that knows, heard in unmet_mutant(): no part of the result. */
#define UNMET "mutant_not_met"

static json_t *work(const struct check_job *job, char *error, size_t size)
{
    const struct task *task = job->arg;
    struct ex_options options = task->options;
    struct ex_result result = {0};
    json_t *json;
    int wrong;

    options.progress = job->progress;
    options.arg = job->progress_arg;
    wrong = explore(task, &options, &result, error, size);
    if (wrong != 0) {
        return wrong == EX_NOT_DONE ? check_outcome_missing(task->scenario, &task->options, error)
                                    : NULL;
    }
    json = check_outcome_new(task->scenario, &options, &result, task->asked->verbose);
    if (!result.failed && !ex_mutation_met()) {
        json_object_set_new(json, UNMET, json_true());
    }
    ex_result_free(&result);
    return json;
}

/* ---- Which jobs ---- */

static struct ex_options engine_options(const struct check_options *o,
                                        const struct ex_scenario *scenario, unsigned mode)
{
    return (struct ex_options){
        .mode = mode,
        .memory = o->memory,
        .strategy = o->strategy,
        .bound = o->bound == CHECK_OWN_BOUND ? scenario->bound : o->bound,
        .max_schedules = o->schedules,
        .max_seconds = o->seconds,
        .seed = o->seed,
        .mutant = o->mutant,
    };
}

static void add_rows(struct plan *plan, const struct ex_scenario *scenario)
{
    for (unsigned mode = 0; mode < EX_MODES; mode++) {
        struct row *row = &plan->row[plan->rows];

        if (!(scenario->modes & plan->asked->modes & EX_MODE(mode))) {
            continue;
        }
        row->scenario = scenario;
        row->options = engine_options(plan->asked, scenario, mode);
        snprintf(row->title, sizeof(row->title), "%s %s", scenario->name, check_mode_names[mode]);
        plan->rows++;
    }
}

static bool make_rows(struct plan *plan, char *error, size_t size)
{
    bool *selected = calloc(ex_scenario_count + 1, sizeof(*selected));
    bool good;

    plan->row = calloc(ex_scenario_count * EX_MODES + 1, sizeof(*plan->row));
    if (selected == NULL || plan->row == NULL) {
        abort();
    }
    good = check_select(plan->asked, selected, error, size);
    for (size_t i = 0; i < ex_scenario_count && good; i++) {
        if (selected[i]) {
            add_rows(plan, ex_scenarios[i]);
        }
    }
    free(selected);
    if (good && plan->rows == 0) {
        snprintf(error, size, "--accel: no such mode of these scenarios: see `vapic check --list`");
        return false;
    }
    return good;
}

/* The parts of all rows are dealt out to the shards like cards. */
static void make_tasks(struct plan *plan)
{
    const struct check_options *o = plan->asked;
    size_t all = plan->rows * o->parts;

    plan->task = calloc(all + 1, sizeof(*plan->task));
    if (plan->task == NULL) {
        abort();
    }
    for (size_t n = 0; n < all; n++) {
        struct task *task = &plan->task[plan->tasks];
        const struct row *row = &plan->row[n / o->parts];

        if (o->shards != 0 && n % o->shards != o->shard - 1) {
            continue;
        }
        *task = (struct task){
            .row = n / o->parts, .options = row->options, .asked = o, .scenario = row->scenario};
        task->options.shard = (uint32_t)(n % o->parts);
        task->options.shards = o->parts > 1 ? o->parts : 0;
        plan->tasks++;
    }
}

/* ---- Running them ---- */

static json_t *task_result(const struct task *task, const struct check_job *job)
{
    const char *error = job->error[0] != '\0' ? job->error : "not run: the time was over";

    if (job->result != NULL) {
        return job->result;
    }
    return check_outcome_missing(task->scenario, &task->options, error);
}

static json_t *collect(const struct plan *plan, const struct check_job *jobs)
{
    json_t *results = json_array();

    for (size_t i = 0; i < plan->rows; i++) {
        const struct row *row = &plan->row[i];

        json_array_append_new(
            results, check_outcome_none(row->scenario, row->options.bound, row->options.mode));
    }
    for (size_t i = 0; i < plan->tasks; i++) {
        json_t *result = task_result(&plan->task[i], &jobs[i]);

        check_outcome_add(json_array_get(results, plan->task[i].row), result);
        json_decref(result);
    }
    return results;
}

/* What the engine refuses (an unknown mutant, a schedule that does not fit) it refuses alike for
 * every job that has such options: the arguments are wrong, nothing failed. */
static const char *refused(const struct check_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].refused) {
            return jobs[i].error;
        }
    }
    return NULL;
}

/* A place that nobody comes to is a slip of the pen, or of a line that moved; but another shard may
 * come to it. */
static bool unmet_mutant(const struct plan *plan, const struct check_jobs *jobs)
{
    if (plan->asked->mutant == NULL || plan->asked->shards != 0 || jobs->count == 0) {
        return false;
    }
    for (size_t i = 0; i < jobs->count; i++) {
        if (json_object_get(jobs->job[i].result, UNMET) == NULL) {
            return false;
        }
    }
    return true;
}

/* The document of all results; NULL with a message. `in_time` is false when time was over. */
static json_t *run_plan(const struct plan *plan, bool *in_time, char *error, size_t size)
{
    const struct check_options *o = plan->asked;
    struct check_jobs jobs = {.count = plan->tasks, .parallel = o->jobs, .timeout = o->timeout};
    const char *why;
    json_t *document = NULL;

    jobs.job = calloc(plan->tasks + 1, sizeof(*jobs.job));
    if (jobs.job == NULL) {
        abort();
    }
    for (size_t i = 0; i < plan->tasks; i++) {
        jobs.job[i] = (struct check_job){
            .title = plan->row[plan->task[i].row].title, .work = work, .arg = &plan->task[i]};
    }
    *in_time = check_jobs_run(&jobs);
    why = refused(jobs.job, jobs.count);
    if (why != NULL) {
        snprintf(error, size, "%s", why);
    } else if (unmet_mutant(plan, &jobs)) {
        snprintf(error, size,
                 "--mutant %s: nothing that was run comes to such a place: see `vapic check "
                 "--mutants --mechanical --list`",
                 o->mutant);
    } else {
        document = check_document_new(o, collect(plan, jobs.job));
    }
    free(jobs.job);
    return document;
}

/* ---- What the command can do ---- */

static int print_document(const json_t *document, const struct check_options *o)
{
    char error[320];

    if (o->json) {
        check_print_json(document);
    } else if (o->action == CHECK_REPLAY) {
        check_print_failures(document, o->verbose);
    } else {
        check_print_table(document);
        check_print_failures(document, o->verbose);
    }
    if (o->svg != NULL && !check_draw(document, o->svg, o->verbose, error, sizeof(error))) {
        return check_refuse("%s", error);
    }
    return check_document_status(document);
}

static int run_and_print(struct plan *plan)
{
    const struct check_options *o = plan->asked;
    char error[320];
    bool in_time = true;
    json_t *document;
    int status;

    if (!make_rows(plan, error, sizeof(error))) {
        return check_refuse("%s", error);
    }
    if (o->action == CHECK_REPLAY && plan->rows != 1) {
        return check_refuse("--replay: name the one scenario of the schedule, and its mode by "
                            "--accel");
    }
    make_tasks(plan);
    document = run_plan(plan, &in_time, error, sizeof(error));
    if (document == NULL) {
        return check_refuse("%s", error);
    }
    status = print_document(document, o);
    json_decref(document);
    if (!in_time) {
        fputs("vapic check: --timeout: not everything was explored\n", stderr);
    }
    return status == CHECK_OK && !in_time ? CHECK_FAILED : status;
}

static int run(const struct check_options *o)
{
    struct plan plan = {.asked = o};
    int status = run_and_print(&plan);

    free(plan.row);
    free(plan.task);
    return status;
}

static int merge(const struct check_options *o)
{
    char error[512];
    json_t *document;
    int status;

    if (ex_mutants_is_document(o->names[0])) {
        return ex_mutants_merge(o->names, o->name_count, o->json);
    }
    document = check_merge(o->names, o->name_count, error, sizeof(error));
    if (document == NULL) {
        return check_refuse("--merge: %s", error);
    }
    status = print_document(document, o);
    json_decref(document);
    return status;
}

static int list(const struct check_options *o)
{
    bool *selected = calloc(ex_scenario_count + 1, sizeof(*selected));
    char error[320];

    if (selected == NULL) {
        abort();
    }
    if (o->name_count == 0) {
        memset(selected, true, ex_scenario_count);
    } else if (!check_select(o, selected, error, sizeof(error))) {
        free(selected);
        return check_refuse("%s", error);
    }
    check_list_scenarios(selected, o->json);
    free(selected);
    return CHECK_OK;
}

static int mutants(const struct check_options *o)
{
    struct ex_mutants_options options = {
        .mechanical = o->mechanical,
        .only = o->only,
        .list = o->list,
        .json = o->json,
        .shard = o->shards != 0 ? o->shard - 1 : 0,
        .shards = o->shards,
        .seconds = o->seconds,
        .jobs = o->jobs,
    };

    return ex_mutants_run(&options);
}

int main(int argc, char **argv)
{
    struct check_options options;
    int status;

    check_options_parse(&options, argc, argv);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (options.action == CHECK_MUTANTS) {
        status = mutants(&options);
    } else if (options.action == CHECK_MERGE) {
        status = merge(&options);
    } else if (options.action == CHECK_LIST_PROPERTIES) {
        check_list_properties(options.json);
        status = CHECK_OK;
    } else if (options.action == CHECK_LIST_RACES) {
        check_list_races(options.json);
        status = CHECK_OK;
    } else {
        status = options.list ? list(&options) : run(&options);
    }
    free(options.names);
    return status;
}
