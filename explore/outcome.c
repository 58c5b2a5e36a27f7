/* SPDX-License-Identifier: MIT */
/*
 * Results as JSON: written by the process that explored, with the names that only it knows, and
 * read by everything that prints.
 */
#include <stdlib.h>
#include <string.h>

#include "output.h"

#define STALE_LOOK 4096u /* steps back from a load to the store that it might have missed */

static const char *const kinds[] = {
    [EX_STEP_READ] = "read",     [EX_STEP_WRITE] = "write",
    [EX_STEP_RMW] = "rmw",       [EX_STEP_CAS_FAILED] = "cas-failed",
    [EX_STEP_DRAIN] = "drain",   [EX_STEP_WAIT] = "wait",
    [EX_STEP_CHOICE] = "choice", [EX_STEP_NOTE] = "note",
    [EX_STEP_FAIL] = "fail",
};

static const char *order_name(uint8_t order)
{
    switch (order) {
    case __ATOMIC_RELAXED:
        return "relaxed";
    case __ATOMIC_CONSUME:
    case __ATOMIC_ACQUIRE:
        return "acquire";
    case __ATOMIC_RELEASE:
        return "release";
    case __ATOMIC_ACQ_REL:
        return "acq_rel";
    case __ATOMIC_SEQ_CST:
        return "seq_cst";
    default:
        return "plain";
    }
}

/* ---- Writing ---- */

static bool is_access(enum ex_step_kind kind)
{
    return kind <= EX_STEP_DRAIN;
}

static json_t *hex(uint64_t value)
{
    return json_sprintf("0x%llx", (unsigned long long)value);
}

static json_t *step_json(const struct ex_step *step, size_t number)
{
    json_t *json =
        json_pack("{s:I, s:i, s:s, s:b}", "step", (json_int_t)number, "actor", (int)step->actor,
                  "kind", kinds[step->kind], "decisive", (int)step->decisive);

    if (step->text != NULL) {
        json_object_set_new(json, "text", json_string(step->text));
    }
    if (step->kind == EX_STEP_CHOICE) {
        json_object_set_new(json, "value", json_sprintf("%llu", (unsigned long long)step->value));
    }
    if (!is_access(step->kind)) {
        return json;
    }
    json_object_set_new(json, "name", json_string(ex_address_name(step->address, step->size)));
    json_object_set_new(json, "size", json_integer(step->size));
    json_object_set_new(json, "order", json_string(order_name(step->order)));
    json_object_set_new(json, "value", hex(step->value));
    if (step->kind == EX_STEP_RMW) {
        json_object_set_new(json, "old", hex(step->old));
    }
    json_object_set_new(json, "place", json_string(step->pc != 0 ? ex_place_name(step->pc) : ""));
    return json;
}

static bool writes(enum ex_step_kind kind)
{
    return kind == EX_STEP_WRITE || kind == EX_STEP_RMW;
}

/* In the memory of C11 a load may see an older store: the store that it did not see. */
static const struct ex_step *missed_store(const struct ex_result *result, size_t reader)
{
    const struct ex_step *step = &result->trace[reader];
    size_t first = reader > STALE_LOOK ? reader - STALE_LOOK : 0;

    for (size_t i = reader; step->kind == EX_STEP_READ && i-- > first;) {
        const struct ex_step *other = &result->trace[i];

        if (writes(other->kind) && other->address == step->address && other->size == step->size) {
            return other->value != step->value ? other : NULL;
        }
    }
    return NULL;
}

static json_t *actors_json(void)
{
    json_t *actors = json_array();
    const char *name;

    for (uint32_t i = 0; i < EX_MAX_ACTORS && (name = ex_actor_name(i)) != NULL; i++) {
        json_array_append_new(actors, json_string(name));
    }
    return actors;
}

#define LIVELOCK_FIRST 40u /* of a run without end: so many steps from its beginning on, */
#define LIVELOCK_LAST  20u /* and so many of each actor's at its end */

static bool is_shown(const struct ex_step *step)
{
    return step->decisive || !is_access(step->kind);
}

/* Which steps are shown of a run without end, which says the same again and again. */
static bool *without_repetition(const struct ex_result *result)
{
    bool *shown = calloc(result->trace_count + 1, sizeof(*shown));
    uint32_t last[EX_MAX_ACTORS + 1] = {0};
    uint32_t first = 0;

    if (shown == NULL) {
        abort();
    }
    for (size_t i = 0; i < result->trace_count && first < LIVELOCK_FIRST; i++) {
        shown[i] = is_shown(&result->trace[i]);
        first += shown[i];
    }
    for (size_t i = result->trace_count; i-- > 0;) {
        const struct ex_step *step = &result->trace[i];
        uint32_t actor = step->actor < EX_MAX_ACTORS ? step->actor : EX_MAX_ACTORS;

        shown[i] |= is_shown(step) && last[actor]++ < LIVELOCK_LAST;
    }
    return shown;
}

static json_t *repetition_json(const struct ex_step *step, size_t number, size_t count)
{
    json_t *json = json_pack("{s:I, s:i, s:s, s:b}", "step", (json_int_t)number, "actor",
                             (int)step->actor, "kind", kinds[EX_STEP_NOTE], "decisive", 1);

    json_object_set_new(json, "text", json_sprintf("(%zu steps like these)", count));
    return json;
}

/* The steps of a run that did not end: how it came to that, and the last of each actor. */
static json_t *livelock_json(const struct ex_result *result)
{
    json_t *steps = json_array();
    bool *shown = without_repetition(result);
    size_t hidden = 0;

    for (size_t i = 0; i < result->trace_count; i++) {
        const struct ex_step *step = &result->trace[i];

        if (!shown[i]) {
            hidden += is_shown(step);
            continue;
        }
        if (hidden > 0) {
            json_array_append_new(steps, repetition_json(step, i, hidden));
        }
        json_array_append_new(steps, step_json(step, i + 1));
        hidden = 0;
    }
    free(shown);
    return steps;
}

static json_t *timeline_json(const struct ex_result *result, bool stale, bool all)
{
    json_t *steps = json_array();

    for (size_t i = 0; i < result->trace_count; i++) {
        const struct ex_step *step = &result->trace[i];

        const struct ex_step *missed = stale ? missed_store(result, i) : NULL;

        if (all || step->decisive || !is_access(step->kind)) {
            json_t *json = step_json(step, i + 1);

            if (missed != NULL) {
                json_object_set_new(json, "missed", hex(missed->value));
            }
            json_array_append_new(steps, json);
        }
    }
    return steps;
}

/* What was broken is null for a replay that went well. */
static json_t *failure_json(const struct ex_result *result, bool stale, bool all)
{
    json_t *failure = json_object();
    const char *schedule = result->schedule != NULL ? result->schedule : "";
    bool endless = result->failed && strcmp(result->property, "livelock") == 0;

    json_object_set_new(failure, "property",
                        result->failed ? json_string(result->property) : json_null());
    json_object_set_new(failure, "message", json_string(result->failed ? result->message : ""));
    json_object_set_new(failure, "schedule", json_string(schedule));
    json_object_set_new(failure, "steps", json_integer((json_int_t)result->trace_count));
    json_object_set_new(failure, "actors", actors_json());
    json_object_set_new(failure, "timeline",
                        endless && !all ? livelock_json(result)
                                        : timeline_json(result, stale, all));
    return failure;
}

static const char *extent_of(const struct ex_options *options, const struct ex_result *result)
{
    if (options->strategy == EX_SAMPLED) {
        return "sampled";
    }
    if (!result->complete) {
        return "stopped";
    }
    return options->bound == EX_COMPLETE ? "complete" : "bounded";
}

static json_t *bound_json(uint32_t bound)
{
    return bound == EX_COMPLETE ? json_string("complete") : json_integer(bound);
}

json_t *check_outcome_new(const struct ex_scenario *scenario, const struct ex_options *options,
                          const struct ex_result *result, bool verbose)
{
    json_t *json = json_object();
    bool traced = result->failed || result->trace != NULL;

    json_object_set_new(json, "scenario", json_string(scenario->name));
    json_object_set_new(json, "mode", json_string(check_mode_names[options->mode]));
    json_object_set_new(json, "bound", bound_json(options->bound));
    json_object_set_new(json, "extent", json_string(extent_of(options, result)));
    json_object_set_new(json, "parts", json_integer(1));
    json_object_set_new(json, "schedules", json_integer((json_int_t)result->schedules));
    json_object_set_new(json, "steps", json_integer((json_int_t)result->steps));
    json_object_set_new(json, "blocked", json_integer((json_int_t)result->blocked));
    json_object_set_new(json, "seconds", json_real(result->seconds));
    json_object_set_new(json, "failure",
                        traced ? failure_json(result, options->memory == EX_C11, verbose)
                               : json_null());
    json_object_set_new(json, "error", json_null());
    return json;
}

static json_t *empty(const struct ex_scenario *scenario, uint32_t bound, unsigned mode,
                     const char *extent, int parts)
{
    return json_pack("{s:s, s:s, s:o, s:s, s:i, s:i, s:i, s:i, s:f, s:n, s:n}", "scenario",
                     scenario->name, "mode", check_mode_names[mode], "bound", bound_json(bound),
                     "extent", extent, "parts", parts, "schedules", 0, "steps", 0, "blocked", 0,
                     "seconds", 0.0, "failure", "error");
}

json_t *check_outcome_missing(const struct ex_scenario *scenario, const struct ex_options *options,
                              const char *error)
{
    json_t *json = empty(scenario, options->bound, options->mode, "not run", 1);

    json_object_set_new(json, "error", json_string(error));
    return json;
}

json_t *check_outcome_none(const struct ex_scenario *scenario, uint32_t bound, unsigned mode)
{
    return empty(scenario, bound, mode, "elsewhere", 0);
}

/* ---- Adding ---- */

/* From the least to the most that can be said. */
static const char *const extents[] = {"not run", "stopped",  "sampled",
                                      "bounded", "complete", "elsewhere"};

static int rank(const char *extent)
{
    for (int i = 0; i < (int)(sizeof(extents) / sizeof(extents[0])); i++) {
        if (strcmp(extents[i], extent) == 0) {
            return i;
        }
    }
    return -1;
}

static void add_integer(json_t *sum, const json_t *other, const char *key)
{
    json_int_t mine = json_integer_value(json_object_get(sum, key));

    json_object_set_new(sum, key,
                        json_integer(mine + json_integer_value(json_object_get(other, key))));
}

void check_outcome_add(json_t *sum, const json_t *other)
{
    double seconds = json_number_value(json_object_get(sum, "seconds"));
    json_t *extent = json_object_get(other, "extent");

    add_integer(sum, other, "parts");
    add_integer(sum, other, "schedules");
    add_integer(sum, other, "steps");
    add_integer(sum, other, "blocked");
    seconds += json_number_value(json_object_get(other, "seconds"));
    json_object_set_new(sum, "seconds", json_real(seconds));
    if (rank(json_string_value(extent)) < rank(json_string_value(json_object_get(sum, "extent")))) {
        json_object_set(sum, "extent", extent);
    }
    if (!json_is_object(json_object_get(sum, "failure"))) {
        json_object_set(sum, "failure", json_object_get(other, "failure"));
    }
    if (!json_is_string(json_object_get(sum, "error"))) {
        json_object_set(sum, "error", json_object_get(other, "error"));
    }
}

/* ---- Reading ---- */

static bool parse_bound(const json_t *json, int64_t *bound)
{
    if (json_is_string(json) && strcmp(json_string_value(json), "complete") == 0) {
        *bound = -1;
        return true;
    }
    *bound = json_integer_value(json);
    return json_is_integer(json) && *bound >= 0;
}

static bool are_strings(const json_t *array)
{
    size_t i;
    json_t *item;

    json_array_foreach((json_t *)array, i, item)
    {
        if (!json_is_string(item)) {
            return false;
        }
    }
    return json_is_array(array);
}

/* null; or an object as failure_json() makes them. */
static bool is_failure(const json_t *json)
{
    const json_t *property = json_object_get(json, "property");

    if (json_is_null(json)) {
        return true;
    }
    return (json_is_string(property) || json_is_null(property)) &&
           json_is_string(json_object_get(json, "message")) &&
           json_is_string(json_object_get(json, "schedule")) &&
           json_is_integer(json_object_get(json, "steps")) &&
           are_strings(json_object_get(json, "actors")) &&
           json_is_array(json_object_get(json, "timeline"));
}

bool check_outcome_parse(json_t *json, struct check_outcome *o, char *error, size_t size)
{
    json_error_t why;
    json_t *bound, *what;
    json_int_t parts, schedules, steps, blocked;

    *o = (struct check_outcome){0};
    if (json_unpack_ex(json, &why, 0, "{s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:F, s:o, s:o}",
                       "scenario", &o->scenario, "mode", &o->mode, "bound", &bound, "extent",
                       &o->extent, "parts", &parts, "schedules", &schedules, "steps", &steps,
                       "blocked", &blocked, "seconds", &o->seconds, "failure", &o->failure, "error",
                       &what) != 0) {
        snprintf(error, size, "a result is damaged: %s", why.text);
        return false;
    }
    if (!parse_bound(bound, &o->bound) || rank(o->extent) < 0 || parts < 0 || schedules < 0 ||
        steps < 0 || blocked < 0 || !is_failure(o->failure) ||
        !(json_is_null(what) || json_is_string(what))) {
        snprintf(error, size, "the result of %s in mode %s is damaged", o->scenario, o->mode);
        return false;
    }
    o->parts = parts;
    o->schedules = schedules;
    o->steps = steps;
    o->blocked = blocked;
    o->failure = json_is_object(o->failure) ? o->failure : NULL;
    o->error = json_string_value(what);
    return true;
}
