/* SPDX-License-Identifier: MIT */
/*
 * What the files of `vapic check --mutants` tell each other.
 *
 *      mutants.c         a run of them from its options to what is printed
 *      mutants_list.c    which there are
 *      mutants_argued.c  those of which docs/mutations-argued.md says why nothing can see them
 *      mutants_hunt.c    looks for a scenario that finds one
 *      mutants_merge.c   adds the documents of shards up
 */
#ifndef VAPIC_EXPLORE_MUTANTS_PARTS_H
#define VAPIC_EXPLORE_MUTANTS_PARTS_H

#include <jansson.h>

#include "jobs.h"
#include "mutants.h"

enum mutant_kind { MUTANT_BUG, MUTANT_ORDER, MUTANT_SWAP, MUTANT_DROP, MUTANT_KINDS };

extern const char *const mutant_kind_names[MUTANT_KINDS];

/* How far a scenario comes to a place. */
enum mutant_reach {
    REACH_NONE,
    REACH_OWN,    /* nobody else touches what is accessed there */
    REACH_SHARED, /* another actor does */
};

struct mutant {
    char *name;
    const char *text;
    enum mutant_kind kind;
    uint8_t *reach; /* by scenario * EX_MODES + mode: enum mutant_reach; NULL: not known */
    bool shared;    /* in one of them */
    char *argued;   /* why nothing can find it; NULL */
};

struct mutants {
    struct mutant *mutant;
    size_t count;
};

static inline enum mutant_reach mutant_reach(const struct mutant *m, size_t scenario, uint32_t mode)
{
    if (!(ex_scenarios[scenario]->modes & EX_MODE(mode)))
        return REACH_NONE;
    return m->reach == NULL ? REACH_SHARED
                            : (enum mutant_reach)m->reach[scenario * EX_MODES + mode];
}

/* The switches of src/mutant.h. */
void mutants_add_named(struct mutants *all);
/* Those of places, found by profiling all scenarios in so many processes. False: with a message. */
bool mutants_add_mechanical(struct mutants *all, unsigned processes);
struct mutant *mutants_find(const struct mutants *all, const char *name);
void mutants_forget(struct mutants *all);

/* Gives the mutants their arguments. Returns what is wrong with the list, texts: names of nothing,
 * names that are there twice. */
json_t *mutants_argue(struct mutants *all);
/* The argument of one that nothing finds because nobody else touches the memory. */
bool mutant_is_argued_as_own(const char *argument);

/* A job: its `arg` is a struct mutant_hunt. An object that says where the mutant was found; one
 * without "scenario": it was not. */
struct mutant_hunt {
    const struct mutant *mutant;
    double seconds;
};
json_t *mutant_hunt(const struct check_job *job, char *error, size_t error_size);

/* Prints a document, whole; the exit status of what it says. */
int mutants_print(const json_t *document, bool json);

#endif
