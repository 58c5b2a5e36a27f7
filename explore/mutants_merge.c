/* SPDX-License-Identifier: MIT */
/*
 * Adds the documents of shards of `vapic check --mutants` up into what one run would have said: all
 * of one run, each shard once, none missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mutants_parts.h"
#include "output.h"

struct merge {
    json_t *sum;
    const char *first; /* file */
    json_int_t shards;
    const char **owner; /* of shard n, from 1: the file */
};

bool ex_mutants_is_document(const char *file)
{
    json_t *json = json_load_file(file, 0, NULL);
    bool is = json_object_get(json, "vapic_mutants") != NULL;

    json_decref(json);
    return is;
}

static bool is_text(const json_t *row, const char *key)
{
    return json_is_string(json_object_get(row, key));
}

/* What a row must have for its verdict and for what is printed of it. */
static bool is_row(const json_t *row)
{
    static const char *const of_killed[] = {"scenario", "accel", "memory", "property"};
    const json_t *killed = json_object_get(row, "killed"), *argued = json_object_get(row, "argued");

    if (!is_text(row, "mutant") || !is_text(row, "kind") || !is_text(row, "text") ||
        (argued != NULL && !json_is_string(argued)))
        return false;
    if (json_object_get(row, "error") != NULL)
        return is_text(row, "error");
    for (size_t i = 0; json_is_true(killed) && i < sizeof(of_killed) / sizeof(of_killed[0]); i++)
        if (!is_text(row, of_killed[i]))
            return false;
    return json_is_boolean(killed) && json_is_number(json_object_get(row, "schedules")) &&
           json_is_number(json_object_get(row, "seconds"));
}

static bool are_rows(const json_t *document)
{
    json_t *rows = json_object_get(document, "mutants");
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row) if (!is_row(row)) return false;
    return json_is_array(rows) && json_is_array(json_object_get(document, "wrong_arguments"));
}

static bool same_run(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"mechanical", "only", "seconds", "wrong_arguments"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);

        if (x != y && !json_equal(x, y))
            return false;
    }
    return true;
}

static bool refuse(const char *file, const char *why)
{
    check_refuse("--merge: %s: %s", file, why);
    return false;
}

/* False: the document does not belong here, and why is said. */
static bool place(struct merge *m, const char *file, const json_t *document, size_t files)
{
    const json_t *shard = json_object_get(document, "shard");
    json_int_t index = json_integer_value(json_object_get(shard, "index"));
    json_int_t count = json_integer_value(json_object_get(shard, "count"));

    if (json_integer_value(json_object_get(document, "vapic_mutants")) != 1)
        return refuse(file, "is no document of `vapic check --mutants --json`");
    if (!are_rows(document))
        return refuse(file, "is damaged");
    if (!json_is_object(shard))
        return refuse(file, "is no shard: it was made without --shard, or by --merge");
    if (index < 1 || index > count)
        return refuse(file, "its shard makes no sense");
    if (m->sum != NULL && (count != m->shards || !same_run(document, m->sum)))
        return refuse(file, "is not of the same run as the first file");
    if ((size_t)count != files)
        return refuse(file, "not as many files as shards");
    if (m->owner[index] != NULL)
        return refuse(file, "this shard is there twice");
    m->owner[index] = file;
    m->shards = count;
    return true;
}

static bool add(struct merge *m, const char *file, size_t files)
{
    json_error_t why;
    json_t *document = json_load_file(file, 0, &why);
    bool good;

    if (document == NULL)
        return refuse(file, why.text);
    check_clean_texts(document);
    good = place(m, file, document, files);
    if (good && m->sum == NULL) {
        m->sum = json_incref(document);
        json_object_set_new(m->sum, "shard", json_null());
    } else if (good) {
        json_array_extend(json_object_get(m->sum, "mutants"), json_object_get(document, "mutants"));
    }
    json_decref(document);
    return good;
}

int ex_mutants_merge(char *const *files, size_t count, bool json)
{
    struct merge m = {.owner = calloc(count + 1, sizeof(*m.owner))};
    bool good = m.owner != NULL;
    int status = CHECK_USAGE;

    for (size_t i = 0; good && i < count; i++)
        good = add(&m, files[i], count);
    if (good)
        status = mutants_print(m.sum, json);
    json_decref(m.sum);
    free(m.owner);
    return status;
}
