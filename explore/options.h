/* SPDX-License-Identifier: MIT */
/* The arguments of `vapic check`, and the words that they and the output share. */
#ifndef VAPIC_EXPLORE_OPTIONS_H
#define VAPIC_EXPLORE_OPTIONS_H

#include <stddef.h>

#include "engine.h"

enum check_status {
    CHECK_OK = 0,
    CHECK_FAILED = 1, /* a property is broken, or not everything was run */
    CHECK_USAGE = 2,  /* bad arguments or files */
};

enum check_action {
    CHECK_RUN,
    CHECK_REPLAY,
    CHECK_MERGE,
    CHECK_LIST_PROPERTIES,
    CHECK_LIST_RACES,
    CHECK_MUTANTS,
};

struct check_options {
    enum check_action action;
    bool list;    /* what there is of it, instead of exploring */
    char **names; /* scenarios or files: as they stand in argv */
    size_t name_count;
    uint32_t modes; /* EX_MODE() of each */
    uint32_t bound; /* CHECK_OWN_BOUND: as the scenario says */
    enum ex_memory_model memory;
    enum ex_strategy strategy;
    uint64_t schedules, seed;
    double seconds, timeout; /* 0: no limit */
    uint32_t parts;          /* of the exploration of one scenario in one mode */
    uint32_t shard, shards;  /* of all these parts, from 1; 0 of 0: everything */
    unsigned jobs;
    const char *mutant, *replay, *svg;
    const char *only; /* mutants of this name */
    bool mechanical, shrink, json, verbose;
    uint32_t given; /* which options: options.c */
};

#define CHECK_OWN_BOUND (UINT32_MAX - 1)

/* The words of --accel, with "all" at EX_MODES, and of --memory; NULL ends both. */
extern const char *const check_mode_names[];
extern const char *const check_memory_names[];

/* Ends the program with status 2 and one line when the arguments are wrong. */
void check_options_parse(struct check_options *options, int argc, char **argv);

/* Which scenarios `names` mean; false with a message when one of them means none. */
bool check_select(const struct check_options *options, bool *selected, char *error, size_t size);

/* One line on standard error; returns CHECK_USAGE. */
int check_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
