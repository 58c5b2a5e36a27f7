/* SPDX-License-Identifier: MIT */
/* The document that --json prints: how the results were made, the results, what they come to. */
#include <elf.h>
#include <link.h>
#include <string.h>

#include "output.h"

#define FORMAT 1

/* ---- Which program made it: results of different code must not be added up ---- */

static const unsigned char *find_build_id(const struct dl_phdr_info *info, size_t *size)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        const unsigned char *at = (const unsigned char *)info->dlpi_addr + segment->p_vaddr;
        const unsigned char *end = at + segment->p_memsz;

        while (segment->p_type == PT_NOTE && at + sizeof(ElfW(Nhdr)) <= end) {
            const ElfW(Nhdr) *note = (const void *)at;
            const unsigned char *name = at + sizeof(*note);
            const unsigned char *text = name + ((note->n_namesz + 3u) & ~3u);

            if (note->n_type == NT_GNU_BUILD_ID && memcmp(name, "GNU", 4) == 0) {
                *size = note->n_descsz;
                return text;
            }
            at = text + ((note->n_descsz + 3u) & ~3u);
        }
    }
    return NULL;
}

/* The first object is the program itself: the search ends there. */
static int build_id(struct dl_phdr_info *info, size_t info_size, void *arg)
{
    char *to = arg;
    size_t size = 0;
    const unsigned char *id = find_build_id(info, &size);

    (void)info_size;
    for (size_t i = 0; id != NULL && i < size && i < 20; i++) {
        sprintf(to + 2 * i, "%02x", id[i]);
    }
    return 1;
}

static json_t *program_json(void)
{
    char id[41] = "";

    dl_iterate_phdr(build_id, id);
    return json_sprintf(VAPIC_VERSION "%s%s", id[0] != '\0' ? "-" : "", id);
}

/* ---- The document ---- */

static json_t *names_json(char *const *names, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, json_string(names[i]));
    }
    return array;
}

json_t *check_modes_json(uint32_t modes)
{
    json_t *array = json_array();

    for (unsigned m = 0; m < EX_MODES; m++) {
        if (modes & EX_MODE(m)) {
            json_array_append_new(array, json_string(check_mode_names[m]));
        }
    }
    return array;
}

static json_t *bound_json(uint32_t bound)
{
    if (bound == CHECK_OWN_BOUND) {
        return json_string("own");
    }
    return bound == EX_COMPLETE ? json_string("complete") : json_integer(bound);
}

/* All that decides what a run finds, but the shard. */
static json_t *options_json(const struct check_options *o)
{
    json_t *json = json_object();
    bool sampled = o->strategy == EX_SAMPLED;

    json_object_set_new(json, "program", program_json());
    json_object_set_new(json, "scenarios", names_json(o->names, o->name_count));
    json_object_set_new(json, "accel", check_modes_json(o->modes));
    json_object_set_new(json, "memory", json_string(check_memory_names[o->memory]));
    json_object_set_new(json, "bound", bound_json(o->bound));
    json_object_set_new(json, "parts", json_integer(o->parts));
    json_object_set_new(json, "sampled", json_boolean(sampled));
    json_object_set_new(json, "seed", sampled ? json_integer((json_int_t)o->seed) : json_null());
    json_object_set_new(json, "schedules", json_integer((json_int_t)o->schedules));
    json_object_set_new(json, "seconds", json_real(o->seconds));
    json_object_set_new(json, "mutant", o->mutant != NULL ? json_string(o->mutant) : json_null());
    json_object_set_new(json, "shrink", json_boolean(o->shrink));
    return json;
}

static void count_result(json_t *result, json_int_t counts[7], double *seconds)
{
    struct check_outcome o;
    char error[256];

    if (!check_outcome_parse(result, &o, error, sizeof(error))) {
        counts[3]++;
        return;
    }
    counts[0] += o.parts != 0;
    counts[1] += strcmp(o.extent, "complete") == 0 || strcmp(o.extent, "bounded") == 0;
    counts[2] += json_is_string(json_object_get(o.failure, "property"));
    counts[3] += o.error != NULL;
    counts[4] += o.schedules;
    counts[5] += o.steps;
    counts[6] += o.blocked;
    *seconds += o.seconds;
}

static json_t *totals_json(const json_t *results)
{
    static const char *const names[7] = {"explored",  "complete", "broken", "not_done",
                                         "schedules", "steps",    "blocked"};
    json_int_t counts[7] = {0};
    double seconds = 0;
    json_t *totals = json_object();
    size_t i;
    json_t *result;

    json_array_foreach((json_t *)results, i, result)
    {
        count_result(result, counts, &seconds);
    }
    for (i = 0; i < 7; i++) {
        json_object_set_new(totals, names[i], json_integer(counts[i]));
    }
    json_object_set_new(totals, "seconds", json_real(seconds));
    return totals;
}

json_t *check_document_of(json_t *options, json_t *shard, json_t *results)
{
    json_t *document = json_object();

    json_object_set_new(document, "vapic_check", json_integer(FORMAT));
    json_object_set_new(document, "options", options);
    json_object_set_new(document, "shard", shard);
    json_object_set_new(document, "totals", totals_json(results));
    json_object_set_new(document, "results", results);
    return document;
}

json_t *check_document_new(const struct check_options *options, json_t *results)
{
    json_t *shard = options->shards == 0 ? json_null()
                                         : json_pack("{s:i, s:i}", "index", (int)options->shard,
                                                     "count", (int)options->shards);

    return check_document_of(options_json(options), shard, results);
}

enum check_status check_document_status(const json_t *document)
{
    const json_t *totals = json_object_get(document, "totals");
    bool bad = json_integer_value(json_object_get(totals, "broken")) != 0 ||
               json_integer_value(json_object_get(totals, "not_done")) != 0;

    return bad ? CHECK_FAILED : CHECK_OK;
}

void check_print_json(const json_t *document)
{
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
}
