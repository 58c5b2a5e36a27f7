/* SPDX-License-Identifier: MIT */
/*
 * What `vapic check` prints. Results are JSON documents from the process that explored them to
 * what the user reads (outcome.c), so that a merged result prints like one that was just made.
 */
#ifndef VAPIC_EXPLORE_OUTPUT_H
#define VAPIC_EXPLORE_OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "options.h"

/* ---- One result (outcome.c): a scenario in a mode ---- */

struct check_outcome {
    const char *scenario, *mode;
    const char *extent; /* "complete", "bounded", "sampled", "stopped", "not run", "elsewhere" */
    int64_t parts;      /* that this result is about; 0: all of them are in other shards */
    int64_t bound;      /* preemptions; -1: all interleavings */
    int64_t schedules, steps, blocked;
    double seconds;
    json_t *failure;   /* NULL; or an object: output_timeline.c */
    const char *error; /* NULL; or why there is no result */
};

/* The JSON of what the engine found. */
json_t *check_outcome_new(const struct ex_scenario *scenario, const struct ex_options *options,
                          const struct ex_result *result, bool verbose);
/* The JSON of a job that left none. */
json_t *check_outcome_missing(const struct ex_scenario *scenario, const struct ex_options *options,
                              const char *error);
/* The JSON of nothing yet, which check_outcome_add() adds parts to. */
json_t *check_outcome_none(const struct ex_scenario *scenario, uint32_t bound, unsigned mode);
/* Adds another part, or another shard's parts, of the same scenario in the same mode: counts are
 * added; what was reached is the least that was reached in any part. */
void check_outcome_add(json_t *sum, const json_t *other);
/* False with a message when the JSON is not that of a result. The texts are the JSON's. */
bool check_outcome_parse(json_t *json, struct check_outcome *outcome, char *error, size_t size);

/* ---- The document around results (output_json.c) ---- */

/* The names of a set of EX_MODE(). */
json_t *check_modes_json(uint32_t modes);

/* Takes what it is given. */
json_t *check_document_of(json_t *options, json_t *shard, json_t *results);
json_t *check_document_new(const struct check_options *options, json_t *results);
/* Adds the files of shards up into one document; NULL with a message. */
json_t *check_merge(char *const *files, size_t count, char *error, size_t size);
/* Makes all texts of a document fit to be printed, whoever may have written it. */
void check_clean_texts(json_t *json);
/* CHECK_OK or CHECK_FAILED, by what the results are. */
enum check_status check_document_status(const json_t *document);

/* ---- For people ---- */

void check_print_json(const json_t *document);
void check_print_table(const json_t *document);
/* Every counterexample of the document. */
void check_print_failures(const json_t *document, bool verbose);
void check_print_timeline(const json_t *document, const struct check_outcome *outcome,
                          bool verbose);
/* The document's first counterexample as a picture; false with a message. */
bool check_draw(const json_t *document, const char *file, bool verbose, char *error, size_t size);

void check_list_scenarios(const bool *selected, bool json);
void check_list_properties(bool json);
void check_list_races(bool json);

/* ---- Pieces of a timeline that text and picture share (output_steps.c) ---- */

struct check_step {
    int64_t number; /* in the run, from 1 */
    int64_t actor;
    const char *kind;  /* "read", "write", "rmw", "cas-failed", "drain", "wait", "choice", ... */
    const char *name;  /* of the memory; NULL: none */
    const char *place; /* in the code; "": none */
    const char *order; /* "plain", "relaxed", ... */
    const char *value, *old;
    const char *missed; /* the newest value, of a load that saw an older one; NULL */
    const char *text;   /* of a note, wait, choice; NULL */
    bool decisive;
};

bool check_step_parse(json_t *json, struct check_step *step);
/* "write v0.IRR[3] := 0x20" */
void check_step_say(const struct check_step *step, char *to, size_t size);
/* "post.c:88 post_page, release", shortened to `width`, or "". */
void check_step_where(const struct check_step *step, char *to, size_t size, size_t width);
/* How many characters of `text` fit into a line of `width`, broken at a blank if there is one. */
size_t check_wrap(const char *text, size_t width);
/* The line that plays the counterexample again; to be freed. */
char *check_replay_line(const json_t *document, const struct check_outcome *outcome);

/* ---- Progress, one line on a terminal (output_progress.c) ---- */

struct check_progress {
    size_t done, count;
    uint64_t schedules;
    double seconds, fraction; /* of everything */
    const char *title;        /* one that is being explored */
};

void check_progress_show(const struct check_progress *progress);
void check_progress_clear(void);

/* "1 234 567" and "2 min 05 s"; in one of a few buffers that are used in turn. */
const char *check_number(uint64_t n);
const char *check_duration(double seconds);

#endif
