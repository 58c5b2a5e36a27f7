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

/* What a job explores. */
struct task {
    const struct ex_scenario *scenario;
    struct ex_options options;
    const struct check_options *asked;
    char title[80];
};

struct tasks {
    struct task *task;
    size_t count;
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

static json_t *work(const struct check_job *job, char *error, size_t size)
{
    const struct task *task = job->arg;
    struct ex_options options = task->options;
    struct ex_result result = {0};
    json_t *json;

    options.progress = job->progress;
    options.arg = job->progress_arg;
    if (explore(task, &options, &result, error, size) != 0) {
        return NULL;
    }
    json = check_outcome_new(task->scenario, &options, &result, task->asked->verbose);
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
        .shard = o->shards != 0 ? o->shard - 1 : 0,
        .shards = o->shards,
        .mutant = o->mutant,
    };
}

static void add_tasks(struct tasks *tasks, const struct check_options *o,
                      const struct ex_scenario *scenario)
{
    for (unsigned mode = 0; mode < EX_MODES; mode++) {
        struct task *task = &tasks->task[tasks->count];

        if (!(scenario->modes & o->modes & EX_MODE(mode))) {
            continue;
        }
        *task = (struct task){
            .scenario = scenario, .options = engine_options(o, scenario, mode), .asked = o};
        snprintf(task->title, sizeof(task->title), "%s %s", scenario->name, check_mode_names[mode]);
        tasks->count++;
    }
}

static bool make_tasks(struct tasks *tasks, const struct check_options *o, char *error, size_t size)
{
    bool *selected = calloc(ex_scenario_count + 1, sizeof(*selected));
    bool good;

    tasks->task = calloc(ex_scenario_count * EX_MODES + 1, sizeof(*tasks->task));
    if (selected == NULL || tasks->task == NULL) {
        abort();
    }
    good = check_select(o, selected, error, size);
    for (size_t i = 0; i < ex_scenario_count && good; i++) {
        if (selected[i]) {
            add_tasks(tasks, o, ex_scenarios[i]);
        }
    }
    free(selected);
    if (good && tasks->count == 0) {
        snprintf(error, size, "--accel: no such mode of these scenarios: see `vapic check --list`");
        return false;
    }
    return good;
}

/* ---- Running them ---- */

static json_t *collect(const struct tasks *tasks, const struct check_job *jobs)
{
    json_t *results = json_array();

    for (size_t i = 0; i < tasks->count; i++) {
        const struct task *task = &tasks->task[i];
        const char *error = jobs[i].error[0] != '\0' ? jobs[i].error : "not run: the time was over";
        json_t *result = jobs[i].result;

        if (result == NULL) {
            result = check_outcome_missing(task->scenario, &task->options, error);
        }
        json_array_append_new(results, result);
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

/* The document of all results; NULL with a message. `in_time` is false when time was over. */
static json_t *run_tasks(const struct tasks *tasks, const struct check_options *o, bool *in_time,
                         char *error, size_t size)
{
    struct check_jobs jobs = {.count = tasks->count, .parallel = o->jobs, .timeout = o->timeout};
    const char *why;
    json_t *document = NULL;

    jobs.job = calloc(tasks->count, sizeof(*jobs.job));
    if (jobs.job == NULL) {
        abort();
    }
    for (size_t i = 0; i < tasks->count; i++) {
        jobs.job[i] =
            (struct check_job){.title = tasks->task[i].title, .work = work, .arg = &tasks->task[i]};
    }
    *in_time = check_jobs_run(&jobs);
    why = refused(jobs.job, jobs.count);
    if (why != NULL) {
        snprintf(error, size, "%s", why);
    } else {
        document = check_document_new(o, collect(tasks, jobs.job));
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

static int run(const struct check_options *o)
{
    struct tasks tasks = {0};
    char error[320];
    bool in_time = true;
    json_t *document = NULL;
    int status;

    if (!make_tasks(&tasks, o, error, sizeof(error))) {
        free(tasks.task);
        return check_refuse("%s", error);
    }
    if (o->action == CHECK_REPLAY && tasks.count != 1) {
        free(tasks.task);
        return check_refuse("--replay: name the one scenario of the schedule, and its mode by "
                            "--accel");
    }
    document = run_tasks(&tasks, o, &in_time, error, sizeof(error));
    free(tasks.task);
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

static int merge(const struct check_options *o)
{
    char error[512];
    json_t *document = check_merge(o->names, o->name_count, error, sizeof(error));
    int status;

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
    } else {
        status = options.list ? list(&options) : run(&options);
    }
    free(options.names);
    return status;
}
