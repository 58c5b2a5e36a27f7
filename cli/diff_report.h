/* SPDX-License-Identifier: MIT */
/* The results of `vapic diff`: text for a person, and JSON. */
#ifndef CLI_DIFF_REPORT_H
#define CLI_DIFF_REPORT_H

#include <jansson.h>
#include <stdint.h>

#include "diff_compare.h"

/* One mode and profile. */
struct diff_totals {
    struct diff_place place;
    uint64_t programs, ops, explained, cut, unexplained, unsteady;
};

/* An unexplained difference, its program as short as it could be made. */
struct diff_finding {
    const struct diff_program *program;
    const struct diff_log *kernel, *vapic;
    const struct diff_place *place;
    struct diff_difference difference;
};

void diff_finding_text(const struct diff_finding *finding, FILE *to);
json_t *diff_finding_json(const struct diff_finding *finding);

void diff_totals_text(const struct diff_totals *totals, unsigned count,
                      const struct diff_rules *rules, FILE *to);
json_t *diff_totals_json(const struct diff_totals *totals, unsigned count);
json_t *diff_rules_json(const struct diff_rules *rules);

#endif
