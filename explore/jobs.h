/* SPDX-License-Identifier: MIT */
/*
 * Runs jobs in processes of their own, several at a time: what one of them does to its memory, or
 * that it dies, does not concern the others. A job's result is a JSON object.
 */
#ifndef VAPIC_EXPLORE_JOBS_H
#define VAPIC_EXPLORE_JOBS_H

#include <jansson.h>

#include "engine.h"

struct check_job {
    const char *title; /* for the progress line and for errors */
    /* In the job's process. Returns a new object; NULL with a message. `progress` is to be passed
     * on to the engine, with `arg`. */
    json_t *(*work)(const struct check_job *job, char *error, size_t error_size);
    const void *arg;
    bool (*progress)(void *arg, uint64_t schedules, double fraction);
    void *progress_arg;
    /* The result: one of them when the job was run, none of them when time was over. */
    json_t *result;
    bool refused;    /* work() returned NULL */
    char error[256]; /* what it said, or how its process ended */
};

struct check_jobs {
    struct check_job *job;
    size_t count;
    unsigned parallel;
    double timeout; /* of all of them, seconds; 0: none */
    bool quiet;     /* no progress line */
};

/* False: the time was over before all were done, which then say that they were cut off by it
 * (`complete` is false) or have no result. */
bool check_jobs_run(struct check_jobs *jobs);

/* Seconds of a clock that only goes forward. */
double check_now(void);

#endif
