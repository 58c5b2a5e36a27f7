/* SPDX-License-Identifier: MIT */
/*
 * The explorer's interface to the command: explore one scenario in one mode under given options,
 * replay one schedule, shrink it. Nothing here prints; explore.h has the picture of the room.
 */
#ifndef VAPIC_EXPLORE_ENGINE_H
#define VAPIC_EXPLORE_ENGINE_H

#include "explore.h"

enum ex_memory_model {
    EX_SC,  /* sequential consistency: interleavings only */
    EX_TSO, /* x86-TSO: each actor has a store buffer; its drain is a step of its own */
    EX_C11, /* orders taken at their word: loads may be stale where C11 allows it; sampled */
};

enum ex_strategy {
    EX_SYSTEMATIC, /* partial-order reduction within the bound; complete when it ends */
    EX_SAMPLED,    /* seeded random schedules with few, well spread preemptions */
};

struct ex_options {
    uint32_t mode; /* enum ex_mode */
    enum ex_memory_model memory;
    enum ex_strategy strategy;
    uint32_t bound;         /* preemptions; EX_COMPLETE */
    uint32_t max_steps;     /* of one run, shared accesses: beyond is a livelock. 0: 100 000 */
    uint64_t max_schedules; /* 0: no limit */
    double max_seconds;     /* 0: no limit. A run that stops by it is not complete */
    uint64_t seed;          /* of EX_SAMPLED */
    uint32_t shard, shards; /* 0 of 0: everything. Splits without communication */
    const char *mutant;     /* name, see mutants.h; NULL: the code as it is */
    /* Now and then, for a progress line; false stops. May be NULL. */
    bool (*progress)(void *arg, uint64_t schedules, double fraction);
    void *arg;
};

/* One step of a run: one shared access of one actor, or a note. */
enum ex_step_kind {
    EX_STEP_READ,
    EX_STEP_WRITE,
    EX_STEP_RMW,
    EX_STEP_CAS_FAILED,
    EX_STEP_DRAIN, /* a store leaves the buffer and becomes visible */
    EX_STEP_WAIT,
    EX_STEP_CHOICE,
    EX_STEP_NOTE,
    EX_STEP_FAIL, /* the broken property */
};

struct ex_step {
    enum ex_step_kind kind;
    uint8_t actor;
    uint8_t size;  /* bytes */
    uint8_t order; /* __ATOMIC_ value; 0xFF: plain */
    bool decisive; /* a switch here, or a conflict with another actor's access: worth a line */
    uint64_t value, old; /* value read or written; before a read-modify-write */
    const void *address;
    uintptr_t pc;     /* 0: code of this room */
    const char *text; /* note, wait, property; NULL */
};

struct ex_result {
    uint64_t schedules; /* runs made */
    uint64_t steps;     /* shared accesses in all of them */
    uint64_t blocked;   /* runs cut off as repetitions by the reduction */
    bool complete;      /* everything within the bound was explored */
    bool failed;
    double seconds;
    /* Of the first failure, already shrunk if asked to be: */
    const char *property;  /* its name */
    char message[256];     /* what was wrong, in numbers */
    char *schedule;        /* one line; ex_result_free() */
    struct ex_step *trace; /* the whole run */
    size_t trace_count;
};

/* What all of these return, with a message in `error` unless it is 0. */
#define EX_REFUSED  (-1) /* unknown mutant, a mode that the scenario does not have, a schedule */
#define EX_NOT_DONE (-2) /* its setup breaks a property, or it is not the same run twice */

int ex_explore(const struct ex_scenario *scenario, const struct ex_options *options,
               struct ex_result *result, char *error, size_t error_size);

/* Runs one schedule. A schedule that does not fit the scenario (too short is allowed: the rest is
 * run without preemptions) is an error that says where. */
int ex_replay(const struct ex_scenario *scenario, const struct ex_options *options,
              const char *schedule, struct ex_result *result, char *error, size_t error_size);

/* Whether a run of this process came to the place or notification of the mutant that is on; true
 * for a switch of the library's, and when none is on. */
bool ex_mutation_met(void);

/* Makes result->schedule minimal: fewest preemptions, then fewest steps, the same property. */
int ex_shrink(const struct ex_scenario *scenario, const struct ex_options *options,
              struct ex_result *result, char *error, size_t error_size);

void ex_result_free(struct ex_result *result);

/* "v0.IRR[3]" or a number; "post.c:88 post_page" or "". The texts live until the next call. */
const char *ex_address_name(const void *address, size_t size);
const char *ex_place_name(uintptr_t pc);

/* The name that the scenario of the last run gave its actor; NULL: it has no actor of this number.
 * "environment" choices and notes made outside of actors carry EX_MAX_ACTORS. */
const char *ex_actor_name(uint32_t actor);

#endif
