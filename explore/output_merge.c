/* SPDX-License-Identifier: MIT */
/*
 * Adding the results of shards up: the documents must be those of one run, each shard once, none
 * missing. The sum is what one run of everything would have said.
 */
#include <stdlib.h>
#include <string.h>

#include "output.h"

struct shards {
    char *const *files;
    size_t count;
    json_t **document;
    const char **owner; /* of shard n: the file */
    char *error;
    size_t size;
};

static bool fail(const struct shards *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool fail(const struct shards *s, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(s->error, s->size, format, args);
    va_end(args);
    return false;
}

/* ---- Reading ---- */

/* Makes a text fit for a terminal and for XML: what is no character to be seen becomes '?'. */
static void clean_text(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
        if (*c < 0x20 || *c == 0x7f) {
            *c = '?';
        } else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) { /* C1 in UTF-8 */
            c[0] = c[1] = '?';
        }
    }
}

static void clean_string(json_t *json)
{
    char *text = strdup(json_string_value(json));

    if (text == NULL) {
        abort();
    }
    clean_text(text);
    json_string_set(json, text);
    free(text);
}

void check_clean_texts(json_t *json)
{
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_string(json)) {
        clean_string(json);
    }
    json_object_foreach(json, key, value)
    {
        check_clean_texts(value);
    }
    json_array_foreach(json, i, value)
    {
        check_clean_texts(value);
    }
}

static bool load(struct shards *s, size_t n)
{
    json_error_t why;
    json_t *json = json_load_file(s->files[n], 0, &why);

    if (json == NULL && why.line < 0) {
        return fail(s, "%s", why.text);
    }
    if (json == NULL) {
        return fail(s, "%s:%d: %s", s->files[n], why.line, why.text);
    }
    s->document[n] = json;
    if (json_integer_value(json_object_get(json, "vapic_check")) != 1 ||
        !json_is_object(json_object_get(json, "options")) ||
        !json_is_array(json_object_get(json, "results"))) {
        return fail(s, "%s is no result of `vapic check --json`", s->files[n]);
    }
    if (json_array_size(json_object_get(json, "results")) == 0) {
        return fail(s, "%s is damaged: it has no results", s->files[n]);
    }
    check_clean_texts(json);
    return true;
}

static bool shard_of(const struct shards *s, size_t n, size_t *index, size_t *count)
{
    const json_t *shard = json_object_get(s->document[n], "shard");
    json_int_t i = json_integer_value(json_object_get(shard, "index"));
    json_int_t of = json_integer_value(json_object_get(shard, "count"));

    if (!json_is_object(shard)) {
        return fail(s, "%s is no shard: it was made without --shard, or by --merge", s->files[n]);
    }
    if (i < 1 || i > of || of > 99999) {
        return fail(s, "%s: shard %lld of %lld makes no sense", s->files[n], (long long)i,
                    (long long)of);
    }
    *index = (size_t)i;
    *count = (size_t)of;
    return true;
}

/* ---- Comparing ---- */

static bool same_options(const struct shards *s, size_t n)
{
    const char *key;
    json_t *value;
    json_t *first = json_object_get(s->document[0], "options");
    json_t *other = json_object_get(s->document[n], "options");

    json_object_foreach(first, key, value)
    {
        json_t *theirs = json_object_get(other, key);

        if (!json_equal(value, theirs)) {
            char *a = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            char *b = theirs != NULL ? json_dumps(theirs, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

            fail(s, "%s and %s differ in '%s': %s and %s", s->files[0], s->files[n], key, a,
                 b != NULL ? b : "nothing");
            free(a);
            free(b);
            return false;
        }
    }
    if (json_object_size(first) != json_object_size(other)) {
        return fail(s, "%s and %s differ in their options", s->files[0], s->files[n]);
    }
    return true;
}

static bool same_results(const struct shards *s, size_t n)
{
    json_t *first = json_object_get(s->document[0], "results");
    json_t *other = json_object_get(s->document[n], "results");
    size_t i;
    json_t *result;

    if (json_array_size(first) != json_array_size(other)) {
        return fail(s, "%s and %s have not the same scenarios", s->files[0], s->files[n]);
    }
    json_array_foreach(other, i, result)
    {
        json_t *model = json_array_get(first, i);
        struct check_outcome a, b;
        char error[200];

        if (!check_outcome_parse(result, &b, error, sizeof(error))) {
            return fail(s, "%s: %s", s->files[n], error);
        }
        if (!check_outcome_parse(model, &a, error, sizeof(error))) {
            return fail(s, "%s: %s", s->files[0], error);
        }
        if (strcmp(a.scenario, b.scenario) != 0 || strcmp(a.mode, b.mode) != 0 ||
            a.bound != b.bound) {
            return fail(s, "result %zu is %s on %s in %s, and %s on %s in %s", i + 1, a.scenario,
                        a.mode, s->files[0], b.scenario, b.mode, s->files[n]);
        }
    }
    return true;
}

/* ---- All there, each once ---- */

static bool place(struct shards *s, size_t n, size_t wanted)
{
    size_t index = 0, count = 0;

    if (!shard_of(s, n, &index, &count)) {
        return false;
    }
    if (count != wanted) {
        return fail(s, "%s is one of %zu shards, %s is one of %zu", s->files[0], wanted,
                    s->files[n], count);
    }
    if (s->owner[index] != NULL) {
        return fail(s, "shard %zu of %zu is in %s and in %s", index, count, s->owner[index],
                    s->files[n]);
    }
    s->owner[index] = s->files[n];
    return same_options(s, n) && same_results(s, n);
}

/* Names the missing ones, as many as fit. */
static bool none_missing(const struct shards *s, size_t wanted)
{
    char list[160] = "";
    size_t used = 0, missing = 0;

    for (size_t i = 1; i <= wanted; i++) {
        if (s->owner[i] != NULL) {
            continue;
        }
        missing++;
        if (used + 24 < sizeof(list)) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%zu",
                                     missing == 1 ? "" : ", ", i);
        } else if (list[used - 1] != '.') {
            used += (size_t)snprintf(list + used, sizeof(list) - used, ", ...");
        }
    }
    return missing == 0 || fail(s, "%zu of %zu shards missing: %s", missing, wanted, list);
}

static bool complete_set(struct shards *s)
{
    size_t index = 0, wanted = 0;
    bool good = true;

    if (!shard_of(s, 0, &index, &wanted)) {
        return false;
    }
    s->owner = calloc(wanted + 1, sizeof(*s->owner));
    if (s->owner == NULL) {
        return fail(s, "out of memory");
    }
    for (size_t n = 0; n < s->count && good; n++) {
        good = place(s, n, wanted);
    }
    return good && none_missing(s, wanted);
}

/* ---- Adding ---- */

/* Each part must have been somewhere. */
static bool all_parts(const struct shards *s, const json_t *sum)
{
    const json_t *options = json_object_get(s->document[0], "options");
    json_int_t wanted = json_integer_value(json_object_get(options, "parts"));
    size_t i;
    json_t *result;

    json_array_foreach((json_t *)sum, i, result)
    {
        json_int_t parts = json_integer_value(json_object_get(result, "parts"));

        if (parts != wanted) {
            return fail(s, "%s on %s: %lld parts, not %lld",
                        json_string_value(json_object_get(result, "scenario")),
                        json_string_value(json_object_get(result, "mode")), (long long)parts,
                        (long long)wanted);
        }
    }
    return true;
}

/* In the order of the shards, so that the order of the files changes nothing. */
static json_t *add_up(const struct shards *s)
{
    json_t *sum = NULL;

    for (size_t i = 1; i <= s->count; i++) {
        size_t n = 0, k;
        json_t *results, *result;

        while (s->files[n] != s->owner[i]) {
            n++;
        }
        results = json_object_get(s->document[n], "results");
        if (sum == NULL) {
            sum = json_deep_copy(results);
            continue;
        }
        json_array_foreach(results, k, result)
        {
            check_outcome_add(json_array_get(sum, k), result);
        }
    }
    return sum;
}

json_t *check_merge(char *const *files, size_t count, char *error, size_t size)
{
    struct shards s = {.files = files, .count = count, .error = error, .size = size};
    json_t *merged = NULL;
    bool good = true;

    s.document = calloc(count, sizeof(*s.document));
    if (s.document == NULL) {
        fail(&s, "out of memory");
        return NULL;
    }
    for (size_t n = 0; n < count && good; n++) {
        good = load(&s, n);
    }
    if (good && complete_set(&s)) {
        json_t *sum = add_up(&s);

        if (all_parts(&s, sum)) {
            merged = check_document_of(json_deep_copy(json_object_get(s.document[0], "options")),
                                       json_null(), sum);
        } else {
            json_decref(sum);
        }
    }
    for (size_t n = 0; n < count; n++) {
        json_decref(s.document[n]);
    }
    if (merged == NULL) {
        clean_text(error);
    }
    free(s.owner);
    free(s.document);
    return merged;
}
