/* SPDX-License-Identifier: MIT */
/*
 * Comparing two logs of one program, and the reviewed list of differences that are known
 * (tests/diff/known.md): a rule is a fenced block `rule` in that file, of lines `key: value`.
 * docs/differential.md has the keys. A difference that no rule explains is unexplained.
 */
#ifndef CLI_DIFF_COMPARE_H
#define CLI_DIFF_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "diff_machine.h"
#include "diff_program.h"
#include "err.h"

#define DIFF_RULES_MAX      96u
#define DIFF_CONDITIONS_MAX 6u
#define DIFF_RANGES_MAX     12u

/* Two records that should be the same; DIFF_NOTHING: one log has none here. */
struct diff_difference {
    uint32_t op;
    struct diff_record kernel, vapic;
};

/* A field of an operation (a, b, c) or of it all: `& mask` is not zero, or `= < >` a value. */
struct diff_condition {
    char field, test;
    uint64_t value;
};

struct diff_pattern {
    uint64_t ops; /* mask by enum diff_code */
    struct diff_condition condition[DIFF_CONDITIONS_MAX];
    unsigned conditions;
    bool vector; /* its vector is the one that differs */
    bool cpu;    /* it is of the processor that shows the difference */
    bool pin;    /* it concerns a pin whose entry was given the vector that differs */
};

struct diff_range {
    uint32_t first, last;
};

/* What one side says: a kind of record, and perhaps a value. */
struct diff_side {
    uint32_t kinds; /* mask by enum diff_kind */
    bool has_value;
    uint64_t value;
};

struct diff_rule {
    char name[48];
    struct diff_pattern op;       /* the operation that shows the difference */
    struct diff_pattern after[3]; /* each was done before, by any processor */
    unsigned afters;
    struct diff_range what[DIFF_RANGES_MAX]; /* that the record is about; none: any */
    unsigned ranges;
    struct diff_side kernel, vapic;
    uint64_t bits; /* values differ in these only */
    char modes[64], profile[16], hosts[64];
    bool stop; /* nothing after it is compared */
    uint64_t hits;
};

struct diff_rules {
    struct diff_rule rule[DIFF_RULES_MAX];
    unsigned count;
};

/* Where the comparison is made: for the rules' modes, profile and hosts. */
struct diff_place {
    const char *mode, *profile, *host;
};

int diff_rules_parse(struct diff_rules *rules, const char *name, const char *text,
                     struct vmm_err *err);

/* What came of a comparison. */
struct diff_verdict {
    bool unexplained;
    struct diff_difference first; /* that is unexplained */
    uint32_t compared;            /* operations, up to where it ended */
    uint32_t explained;           /* differences */
    const struct diff_rule *cut;  /* the rule that ended it; NULL: it went to the end */
};

void diff_compare(const struct diff_program *p, const struct diff_log *kernel,
                  const struct diff_log *vapic, struct diff_rules *rules,
                  const struct diff_place *place, struct diff_verdict *verdict);

#endif
