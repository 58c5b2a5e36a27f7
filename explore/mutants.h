/* SPDX-License-Identifier: MIT */
/*
 * `vapic check --mutants`: does the explorer find the bugs that are put in for it to find? Named
 * ones (src/mutant.h), and mechanical ones of every place that a scenario reaches: an order
 * relaxed, two stores swapped, a notification dropped. mutation.h says what each does.
 */
#ifndef VAPIC_EXPLORE_MUTANTS_H
#define VAPIC_EXPLORE_MUTANTS_H

#include "engine.h"

struct ex_mutants_options {
    bool mechanical;  /* instead of the named ones */
    const char *only; /* shell pattern of names; NULL: all */
    bool list, json;
    uint32_t shard, shards; /* from 0; 0 of 0: everything */
    double seconds;         /* per mutant; 0: as is good for its kind */
    unsigned jobs;          /* at the same time; 0: one */
};

/* The exit status: 1 when one survives of which docs/mutations-argued.md does not say why, when one
 * is found of which it does, or when it speaks of one that is not there. */
int ex_mutants_run(const struct ex_mutants_options *options);

/* Is the file a document of --mutants --json? Adds such files up, of all shards; prints the sum. */
bool ex_mutants_is_document(const char *file);
int ex_mutants_merge(char *const *files, size_t count, bool json);

/* Where a mutant is known to be found: tried first. mutants_hints.c, made by tools/mutant-hints.py
 * from the JSON of a run. */
struct ex_mutant_hint {
    const char *mutant, *scenario;
    enum ex_mode mode;
    enum ex_memory_model memory;
    enum ex_strategy strategy;
};

extern const struct ex_mutant_hint ex_mutant_hints[];
extern const size_t ex_mutant_hint_count;

#endif
