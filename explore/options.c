/* SPDX-License-Identifier: MIT */
/* Parsing of `vapic check`'s arguments with argp; see options.h. */
#include "options.h"

#include <argp.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "words.h"

#define SAMPLES 10000u /* schedules of a sampled exploration that has no limit of its own */

const char *const check_mode_names[] = {
    [EX_NONE] = "none",
    [EX_AVIC] = "avic",
    [EX_AVIC_NOIPIV] = "avic-noipiv",
    [EX_X2AVIC] = "x2avic",
    [EX_APICV] = "apicv",
    [EX_APICV_IPIV] = "apicv-ipiv",
    [EX_MODES] = "all",
    NULL,
};
const char *const check_memory_names[] = {[EX_SC] = "sc", [EX_TSO] = "tso", [EX_C11] = "c11", NULL};

enum key {
    KEY_LIST = 256,
    KEY_LIST_PROPERTIES,
    KEY_LIST_RACES,
    KEY_MUTANTS,
    KEY_MECHANICAL,
    KEY_ONLY,
    KEY_ACCEL,
    KEY_BOUND,
    KEY_TSO,
    KEY_MEMORY,
    KEY_SCHEDULES,
    KEY_SECONDS,
    KEY_SEED,
    KEY_REPLAY,
    KEY_SHRINK,
    KEY_NO_SHRINK,
    KEY_JSON,
    KEY_SVG,
    KEY_MUTANT,
    KEY_PARTS,
    KEY_SHARD,
    KEY_MERGE,
    KEY_TIMEOUT,
    KEY_VERBOSE,
};

static const struct argp_option option_table[] = {
    {NULL, 0, NULL, 0, "What to do, instead of exploring:", 1},
    {"list", KEY_LIST, NULL, 0, "List the scenarios, or those that are named", 0},
    {"list-properties", KEY_LIST_PROPERTIES, NULL, 0, "List the properties that must hold", 0},
    {"list-races", KEY_LIST_RACES, NULL, 0,
     "List the races of docs/races.md, each with the scenarios that stand for it", 0},
    {"mutants", KEY_MUTANTS, NULL, 0,
     "Switch on each known bug and look which scenario finds it; with --list, list them", 0},
    {"mechanical", KEY_MECHANICAL, NULL, 0,
     "With --mutants: every memory order weakened, neighbouring stores swapped, notifications "
     "dropped",
     0},
    {"only", KEY_ONLY, "PATTERN", 0, "With --mutants: those of this name", 0},
    {"merge", KEY_MERGE, NULL, 0, "Add up the results of shards: files that --json has written", 0},
    {"replay", KEY_REPLAY, "SCHEDULE", 0, "Run one schedule, as a failure has printed it", 0},
    {NULL, 0, NULL, 0, "How to explore:", 2},
    {"accel", KEY_ACCEL, "MODE", 0,
     "On which hardware: none, avic, avic-noipiv, x2avic, apicv, apicv-ipiv, several of them "
     "joined by commas, or all (the default); scenarios without that mode are left out",
     0},
    {"bound", KEY_BOUND, "N", 0,
     "Preemptions in one schedule, or complete: all interleavings (default: what the scenario "
     "states)",
     0},
    {"memory", KEY_MEMORY, "MODEL", 0,
     "sc: interleavings only (the default); tso: with the store buffers of x86; c11: with every "
     "stale read that the memory orders in the source permit, sampled",
     0},
    {"tso", KEY_TSO, NULL, 0, "The same as --memory tso", 0},
    {"schedules", KEY_SCHEDULES, "N", 0, "At most so many per scenario, mode and part", 0},
    {"seconds", KEY_SECONDS, "N", 0, "At most so long per scenario, mode and part", 0},
    {"seed", KEY_SEED, "N", 0,
     "Take schedules at random from this seed instead of going through all of them", 0},
    {"mutant", KEY_MUTANT, "NAME", 0, "Explore with this bug switched on", 0},
    {"shrink", KEY_SHRINK, NULL, 0, "Make a failing schedule minimal (the default)", 0},
    {"no-shrink", KEY_NO_SHRINK, NULL, 0, "Show a failing schedule as it was found", 0},
    {NULL, 0, NULL, 0, "More processors and machines:", 3},
    {"jobs", 'j', "N", 0, "Processes at the same time (one per processor)", 0},
    {"parts", KEY_PARTS, "K", 0,
     "Split the exploration of each scenario and mode into K parts (1), which are then run at the "
     "same time or in different shards; each part repeats a little of the others' work",
     0},
    {"shard", KEY_SHARD, "I/N", 0,
     "Explore the I-th of N shares of all parts, I from 1: --merge adds them up", 0},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0, "End after so long; what was not run is a failure", 0},
    {NULL, 0, NULL, 0, "Output:", 4},
    {"json", KEY_JSON, NULL, 0, "Print one JSON document", 0},
    {"svg", KEY_SVG, "FILE", 0, "Draw the (first) counterexample", 0},
    {"verbose", KEY_VERBOSE, NULL, 0, "Show every shared access of it", 0},
    {0},
};

static double parse_seconds(struct argp_state *state, const char *option, const char *word)
{
    char *end;
    double n = strtod(word, &end);

    if (end == word || *end != '\0' || !isfinite(n) || n <= 0 || n > 1e9) {
        argp_failure(state, CHECK_USAGE, 0, "--%s: '%s' is no number of seconds", option, word);
    }
    return n;
}

/* Words of --accel: the modes, and all of them. */
static uint32_t parse_modes(struct argp_state *state, char *list)
{
    uint32_t modes = 0;
    char *word;

    while ((word = strsep(&list, ",")) != NULL) {
        int mode = cli_choose(state, "accel", word, check_mode_names);

        modes |= mode == EX_MODES ? EX_MODE(EX_MODES) - 1 : EX_MODE(mode);
    }
    return modes;
}

static uint32_t parse_bound(struct argp_state *state, const char *word)
{
    if (strcmp(word, "complete") == 0) {
        return EX_COMPLETE;
    }
    return (uint32_t)cli_number(state, "bound", word, 0, 1000);
}

static void parse_shard(struct argp_state *state, struct check_options *o, const char *word)
{
    unsigned i, n;
    int used = 0;

    if (sscanf(word, "%5u/%5u%n", &i, &n, &used) != 2 || word[used] != '\0' || i < 1 || i > n) {
        argp_failure(state, CHECK_USAGE, 0,
                     "--shard: '%s' is not I/N with I from 1 to N, as 2/8 for the second of eight",
                     word);
        return;
    }
    o->shard = i;
    o->shards = n;
}

static void set_action(struct argp_state *state, struct check_options *o, enum check_action action)
{
    if (o->action != CHECK_RUN && o->action != action) {
        argp_failure(state, CHECK_USAGE, 0,
                     "two things to do: give one of --list-properties, --list-races, --mutants, "
                     "--merge and --replay");
    }
    o->action = action;
}

/* What the command is asked to do, as a bit, and how its user called it. */
enum purpose {
    TO_EXPLORE = 1 << 0,
    TO_REPLAY = 1 << 1,
    TO_MERGE = 1 << 2,
    TO_MUTATE = 1 << 3,
    TO_LIST = 1 << 4,
};

static enum purpose purpose_of(const struct check_options *o, const char **called)
{
    static const struct {
        enum purpose purpose;
        const char *called;
    } purposes[] = {
        [CHECK_RUN] = {TO_EXPLORE, "an exploration"},
        [CHECK_REPLAY] = {TO_REPLAY, "--replay"},
        [CHECK_MERGE] = {TO_MERGE, "--merge"},
        [CHECK_LIST_PROPERTIES] = {TO_LIST, "--list-properties"},
        [CHECK_LIST_RACES] = {TO_LIST, "--list-races"},
        [CHECK_MUTANTS] = {TO_MUTATE, "--mutants"},
    };

    if (o->list && o->action == CHECK_RUN) {
        *called = "--list";
        return TO_LIST;
    }
    *called = purposes[o->action].called;
    return purposes[o->action].purpose;
}

/* For which purposes an option is there; the others: for all. */
static const struct {
    int key;
    unsigned purposes;
} uses[] = {
    {KEY_ACCEL, TO_EXPLORE | TO_REPLAY},
    {KEY_BOUND, TO_EXPLORE},
    {KEY_TSO, TO_EXPLORE | TO_REPLAY},
    {KEY_MEMORY, TO_EXPLORE | TO_REPLAY},
    {KEY_SCHEDULES, TO_EXPLORE},
    {KEY_SECONDS, TO_EXPLORE | TO_MUTATE},
    {KEY_SEED, TO_EXPLORE},
    {KEY_MUTANT, TO_EXPLORE | TO_REPLAY},
    {KEY_SHRINK, TO_EXPLORE},
    {KEY_NO_SHRINK, TO_EXPLORE},
    {'j', TO_EXPLORE | TO_MUTATE},
    {KEY_PARTS, TO_EXPLORE},
    {KEY_SHARD, TO_EXPLORE | TO_MUTATE},
    {KEY_TIMEOUT, TO_EXPLORE | TO_REPLAY},
    {KEY_SVG, TO_EXPLORE | TO_REPLAY | TO_MERGE},
    {KEY_VERBOSE, TO_EXPLORE | TO_REPLAY | TO_MERGE},
    {KEY_LIST, TO_LIST | TO_MUTATE},
    {KEY_MECHANICAL, TO_MUTATE},
    {KEY_ONLY, TO_MUTATE},
};

#define USES (sizeof(uses) / sizeof(uses[0]))

/* An option that was given, as a bit: where it stands in `uses`. */
static uint32_t use_of(int key)
{
    for (size_t i = 0; i < USES; i++) {
        if (uses[i].key == key) {
            return 1u << i;
        }
    }
    return 0;
}

static const char *option_name(int key)
{
    size_t i = 0;

    while (option_table[i].key != key) {
        i++;
    }
    return option_table[i].name;
}

static void check_uses(struct argp_state *state, const struct check_options *o)
{
    const char *called;
    enum purpose purpose = purpose_of(o, &called);

    for (size_t i = 0; i < USES; i++) {
        if (o->given >> i & 1 && !(uses[i].purposes & purpose)) {
            argp_failure(state, CHECK_USAGE, 0, "--%s does not go with %s",
                         option_name(uses[i].key), called);
        }
    }
}

static void check_shape(struct argp_state *state, const struct check_options *o)
{
    if (o->action == CHECK_RUN && o->name_count == 0 && !o->list) {
        argp_failure(state, CHECK_USAGE, 0, "name scenarios (--list lists them), or all");
    }
    if (o->action == CHECK_MERGE && o->name_count == 0) {
        argp_failure(state, CHECK_USAGE, 0, "--merge: name the files of the shards");
    }
    if (o->action == CHECK_REPLAY && o->name_count != 1) {
        argp_failure(state, CHECK_USAGE, 0, "--replay: name the one scenario of the schedule");
    }
    if (o->action == CHECK_MUTANTS && o->name_count != 0) {
        argp_failure(state, CHECK_USAGE, 0,
                     "--mutants chooses its scenarios by itself: name bugs by --only PATTERN");
    }
    check_uses(state, o);
}

static void complete_options(struct check_options *o)
{
    if (o->memory == EX_C11) {
        o->strategy = EX_SAMPLED;
    }
    if (o->strategy == EX_SAMPLED && o->schedules == 0 && o->seconds == 0) {
        o->schedules = SAMPLES;
    }
    if (o->jobs == 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);

        o->jobs = n > 0 ? (unsigned)n : 1;
    }
}

/* The options that say what to do and what to show. */
static bool parse_action(int key, char *arg, struct argp_state *state, struct check_options *o)
{
    static const struct {
        int key;
        enum check_action action;
    } actions[] = {
        {KEY_LIST_PROPERTIES, CHECK_LIST_PROPERTIES},
        {KEY_LIST_RACES, CHECK_LIST_RACES},
        {KEY_MUTANTS, CHECK_MUTANTS},
        {KEY_MERGE, CHECK_MERGE},
        {KEY_REPLAY, CHECK_REPLAY},
    };

    if (key == KEY_LIST) {
        o->list = true;
        return true;
    }
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (actions[i].key == key) {
            set_action(state, o, actions[i].action);
            o->replay = key == KEY_REPLAY ? arg : o->replay;
            return true;
        }
    }
    return false;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct check_options *o = state->input;

    o->given |= use_of(key);
    if (parse_action(key, arg, state, o)) {
        return 0;
    }
    switch (key) {
    case KEY_ACCEL:
        o->modes = parse_modes(state, arg);
        break;
    case KEY_BOUND:
        o->bound = parse_bound(state, arg);
        break;
    case KEY_TSO:
        o->memory = EX_TSO;
        break;
    case KEY_MEMORY:
        o->memory = (enum ex_memory_model)cli_choose(state, "memory", arg, check_memory_names);
        break;
    case KEY_SCHEDULES:
        o->schedules = cli_number(state, "schedules", arg, 1, INT64_MAX);
        break;
    case KEY_SECONDS:
        o->seconds = parse_seconds(state, "seconds", arg);
        break;
    case KEY_SEED:
        o->seed = cli_number(state, "seed", arg, 0, INT64_MAX);
        o->strategy = EX_SAMPLED;
        break;
    case KEY_SHRINK:
    case KEY_NO_SHRINK:
        o->shrink = key == KEY_SHRINK;
        break;
    case KEY_JSON:
        o->json = true;
        break;
    case KEY_SVG:
        o->svg = arg;
        break;
    case KEY_MUTANT:
        o->mutant = arg;
        break;
    case KEY_MECHANICAL:
        o->mechanical = true;
        break;
    case KEY_ONLY:
        o->only = arg;
        break;
    case KEY_PARTS:
        o->parts = (uint32_t)cli_number(state, "parts", arg, 1, 4096);
        break;
    case KEY_SHARD:
        parse_shard(state, o, arg);
        break;
    case 'j':
        o->jobs = (unsigned)cli_number(state, "jobs", arg, 1, 4096);
        break;
    case KEY_TIMEOUT:
        o->timeout = parse_seconds(state, "timeout", arg);
        break;
    case KEY_VERBOSE:
        o->verbose = true;
        break;
    case ARGP_KEY_ARG:
        o->names[o->name_count++] = arg;
        break;
    case ARGP_KEY_END:
        check_shape(state, o);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void check_options_parse(struct check_options *options, int argc, char **argv)
{
    static const struct argp parser = {
        .options = option_table,
        .parser = parse_option,
        .args_doc = "all | SCENARIO... | --merge FILE...",
        .doc = "Explores the interleavings of small scenarios over the library's real code and the "
               "model of the hardware. SCENARIO may be a pattern, as 'avic-*'."
               "\vExit status: 0 every property held; 1 a property was broken, or not everything "
               "was run; 2 bad arguments or files. docs/checking.md is the manual.",
    };
    static char name[] = "vapic check";

    *options = (struct check_options){.modes = EX_MODE(EX_MODES) - 1,
                                      .bound = CHECK_OWN_BOUND,
                                      .seed = 1,
                                      .parts = 1,
                                      .shrink = true};
    options->names = calloc((size_t)argc + 1, sizeof(char *));
    if (options->names == NULL) {
        exit(check_refuse("out of memory"));
    }
    argp_err_exit_status = CHECK_USAGE;
    argv[0] = name;
    argp_parse(&parser, argc, argv, 0, NULL, options);
    complete_options(options);
}

static bool select_one(const char *pattern, bool *selected)
{
    bool found = false;

    for (size_t i = 0; i < ex_scenario_count; i++) {
        if (strcmp(pattern, "all") == 0 || fnmatch(pattern, ex_scenarios[i]->name, 0) == 0) {
            selected[i] = true;
            found = true;
        }
    }
    return found;
}

bool check_select(const struct check_options *options, bool *selected, char *error, size_t size)
{
    for (size_t n = 0; n < options->name_count; n++) {
        if (!select_one(options->names[n], selected)) {
            snprintf(error, size, "no scenario '%s': `vapic check --list` lists them",
                     options->names[n]);
            return false;
        }
    }
    return true;
}

int check_refuse(const char *format, ...)
{
    va_list args;

    fputs("vapic check: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return CHECK_USAGE;
}
