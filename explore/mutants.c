/* SPDX-License-Identifier: MIT */
/*
 * A run of mutants, one process each (jobs.c), from its options to what is printed. What came out
 * is a document (JSON), like that of an exploration, so that shards can be added up.
 */
#include "mutants.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mutants_parts.h"
#include "options.h"

/* ---- Rows of the document ---- */

static json_t *row_of(const struct mutant *m)
{
    json_t *row = json_pack("{s:s, s:s, s:s}", "mutant", m->name, "kind",
                            mutant_kind_names[m->kind], "text", m->text);

    if (m->reach != NULL)
        json_object_set_new(row, "shared", json_boolean(m->shared));
    if (m->argued != NULL)
        json_object_set_new(row, "argued", json_string(m->argued));
    return row;
}

static json_t *row_of_job(const struct check_job *job)
{
    const struct mutant_hunt *hunt = job->arg;
    json_t *row = row_of(hunt->mutant);
    bool killed = job->result != NULL && json_object_get(job->result, "scenario") != NULL;

    if (job->result != NULL || job->error[0] != '\0')
        json_object_set_new(row, "killed", json_boolean(killed));
    if (job->result != NULL)
        json_object_update(row, job->result);
    else
        json_object_set_new(row, "error",
                            json_string(job->error[0] != '\0' ? job->error : "not tried"));
    return row;
}

static const char *text_in(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));

    return text != NULL ? text : "";
}

static double number_in(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

/* ---- What came out ---- */

enum verdict {
    KILLED,
    KILLED_ARGUED, /* its argument is wrong */
    SURVIVES_ARGUED,
    SURVIVED,
    NOT_TRIED,
    VERDICTS
};

static enum verdict verdict_of(const json_t *row)
{
    bool argued = json_object_get(row, "argued") != NULL;

    if (json_object_get(row, "error") != NULL)
        return NOT_TRIED;
    if (json_is_true(json_object_get(row, "killed")))
        return argued ? KILLED_ARGUED : KILLED;
    return argued ? SURVIVES_ARGUED : SURVIVED;
}

static void print_row(const json_t *row)
{
    enum verdict verdict = verdict_of(row);
    const char *name = text_in(row, "mutant");

    switch (verdict) {
    case KILLED:
    case KILLED_ARGUED:
        printf("%-28s killed by %s (%s, %s) in %.0f schedules, %.2f s: %s%s\n", name,
               text_in(row, "scenario"), text_in(row, "accel"), text_in(row, "memory"),
               number_in(row, "schedules"), number_in(row, "seconds"), text_in(row, "property"),
               verdict == KILLED_ARGUED ? "; ARGUED, but found" : "");
        break;
    case SURVIVES_ARGUED:
    case SURVIVED:
        printf("%-28s %s after %.0f schedules, %.1f s: %s\n", name,
               verdict == SURVIVED ? "SURVIVED" : "survives, as argued,",
               number_in(row, "schedules"), number_in(row, "seconds"),
               text_in(row, verdict == SURVIVED ? "text" : "argued"));
        break;
    case NOT_TRIED:
    case VERDICTS:
        fprintf(stderr, "%s: %s\n", name, text_in(row, "error"));
        break;
    }
}

static void print_wrong(const json_t *document)
{
    size_t i;
    json_t *text;

    json_array_foreach(json_object_get(document, "wrong_arguments"), i, text)
        fprintf(stderr, "%s\n", json_string_value(text));
}

static void count_verdicts(const json_t *document, size_t count[VERDICTS])
{
    size_t i;
    json_t *row;

    json_array_foreach(json_object_get(document, "mutants"), i, row) count[verdict_of(row)]++;
}

/* What is left to be said when the rows have been. */
static int print_end(const json_t *document, bool json)
{
    size_t count[VERDICTS] = {0};

    count_verdicts(document, count);
    if (!json)
        printf("%zu mutants: %zu killed, %zu survive as argued, %zu SURVIVED, %zu not tried\n",
               json_array_size(json_object_get(document, "mutants")),
               count[KILLED] + count[KILLED_ARGUED], count[SURVIVES_ARGUED], count[SURVIVED],
               count[NOT_TRIED]);
    if (json)
        json_dumpf(document, stdout, JSON_INDENT(1));
    if (json)
        putchar('\n');
    fflush(stdout);
    if (count[KILLED_ARGUED] > 0)
        fprintf(stderr, "%zu ARGUED, but found: their arguments are wrong\n", count[KILLED_ARGUED]);
    print_wrong(document);
    return count[SURVIVED] + count[KILLED_ARGUED] + count[NOT_TRIED] == 0 &&
                   json_array_size(json_object_get(document, "wrong_arguments")) == 0
               ? CHECK_OK
               : CHECK_FAILED;
}

int mutants_print(const json_t *document, bool json)
{
    size_t i;
    json_t *row;

    if (!json)
        json_array_foreach(json_object_get(document, "mutants"), i, row) print_row(row);
    return print_end(document, json);
}

/* ---- A run ---- */

static bool is_chosen(const struct ex_mutants_options *o, const struct mutant *m, size_t number)
{
    if (o->only != NULL && fnmatch(o->only, m->name, 0) != 0)
        return false;
    return o->shards == 0 || number % o->shards == o->shard;
}

static json_t *document_of(const struct ex_mutants_options *o, json_t *wrong)
{
    json_t *shard = o->shards != 0 ? json_pack("{s:I, s:I}", "index", (json_int_t)(o->shard + 1),
                                               "count", (json_int_t)o->shards)
                                   : json_null();

    return json_pack("{s:i, s:b, s:s*, s:f, s:o, s:o, s:[]}", "vapic_mutants", 1, "mechanical",
                     o->mechanical, "only", o->only, "seconds", o->seconds, "shard", shard,
                     "wrong_arguments", wrong, "mutants");
}

static int list_mutants(const struct mutants *all, const struct ex_mutants_options *o,
                        json_t *document)
{
    json_t *rows = json_object_get(document, "mutants");
    size_t i;
    json_t *row;

    for (i = 0; i < all->count; i++)
        if (is_chosen(o, &all->mutant[i], i))
            json_array_append_new(rows, row_of(&all->mutant[i]));
    if (o->json) {
        json_dumpf(document, stdout, JSON_INDENT(1));
        putchar('\n');
    } else {
        json_array_foreach(rows, i, row) printf(
            "%-28s %s%s%s\n", text_in(row, "mutant"), text_in(row, "text"),
            json_object_get(row, "argued") != NULL ? "; argued: " : "", text_in(row, "argued"));
    }
    fflush(stdout);
    print_wrong(document);
    return json_array_size(json_object_get(document, "wrong_arguments")) == 0 ? CHECK_OK
                                                                              : CHECK_FAILED;
}

#define BATCH           4u /* per process: so that results are seen before all are there */
#define SECONDS_OF_BUGS 240.0
#define SECONDS         20.0

static double seconds_for(const struct ex_mutants_options *o, const struct mutant *m)
{
    if (o->seconds > 0)
        return o->seconds;
    return m->kind == MUTANT_BUG ? SECONDS_OF_BUGS : SECONDS;
}

static void run_batch(struct check_jobs *batch, bool json, json_t *rows)
{
    check_jobs_run(batch);
    for (size_t i = 0; i < batch->count; i++) {
        json_t *row = row_of_job(&batch->job[i]);

        json_array_append_new(rows, row);
        if (!json)
            print_row(row);
        json_decref(batch->job[i].result);
    }
    fflush(stdout);
}

static void run_chosen(const struct mutants *all, const struct ex_mutants_options *o, json_t *rows)
{
    unsigned parallel = o->jobs != 0 ? o->jobs : 1;
    size_t room = (size_t)BATCH * parallel;
    struct check_job *jobs = calloc(room, sizeof(*jobs));
    struct mutant_hunt *hunts = calloc(room, sizeof(*hunts));
    struct check_jobs batch = {.job = jobs, .parallel = parallel};

    if (jobs == NULL || hunts == NULL)
        abort();
    for (size_t i = 0; i < all->count; i++) {
        const struct mutant *m = &all->mutant[i];

        if (is_chosen(o, m, i)) {
            hunts[batch.count] = (struct mutant_hunt){m, seconds_for(o, m)};
            jobs[batch.count] = (struct check_job){
                .title = m->name, .work = mutant_hunt, .arg = &hunts[batch.count]};
            batch.count++;
        }
        if (batch.count == room || i + 1 == all->count) {
            run_batch(&batch, o->json, rows);
            batch.count = 0;
        }
    }
    free(jobs);
    free(hunts);
}

/* An empty share is no mistake: there may be more of them than mutants. */
static bool nothing_chosen(const struct mutants *all, const struct ex_mutants_options *o)
{
    for (size_t i = 0; i < all->count; i++)
        if (is_chosen(o, &all->mutant[i], i))
            return false;
    return o->shards == 0;
}

static int run(struct mutants *all, const struct ex_mutants_options *o)
{
    json_t *document;
    int status;

    if (nothing_chosen(all, o))
        return check_refuse("no mutant is called \"%s\": see --mutants --list",
                            o->only != NULL ? o->only : "");
    document = document_of(o, o->mechanical ? mutants_argue(all) : json_array());
    if (o->list) {
        status = list_mutants(all, o, document);
    } else {
        run_chosen(all, o, json_object_get(document, "mutants"));
        status = print_end(document, o->json);
    }
    json_decref(document);
    return status;
}

int ex_mutants_run(const struct ex_mutants_options *o)
{
    struct mutants all = {0};
    int status = CHECK_FAILED;

    if (!o->mechanical)
        mutants_add_named(&all);
    if (!o->mechanical || mutants_add_mechanical(&all, o->jobs != 0 ? o->jobs : 1))
        status = run(&all, o);
    mutants_forget(&all);
    return status;
}
