/* SPDX-License-Identifier: MIT */
/* The strategies that decide about schedules, for engine.c. */
#ifndef VAPIC_EXPLORE_STRATEGY_H
#define VAPIC_EXPLORE_STRATEGY_H

#include "machine.h"

/* What an exploration is about and when it stops; engine.c owns it. */
struct exploration {
    const struct ex_scenario *scenario;
    const struct ex_options *options;
    struct ex_result *result;
    double started;
    uint64_t next_look; /* at the clock, in schedules */
    double fraction;    /* done, as far as the strategy can tell */
    bool stopped;       /* by a limit, or by the caller */
};

/* One run, from its beginning (NULL) or from where it was kept: counts it, looks at limits. True:
 * go on with the next. */
bool exploration_run(struct exploration *exploration, const struct checkpoint *from);

/* Explores; result->complete is set if all within the bound was. */
void search(struct exploration *exploration); /* search.c */
void sample(struct exploration *exploration); /* sample.c */

/* ---- replay.c ---- */

/* The schedule of the machine's last run as text. */
char *schedule_text(void);

/* Runs a schedule; 0, or -1 with a message: it does not fit. `strict`: it must fit exactly;
 * otherwise what does not is passed over. */
int schedule_run(const struct ex_scenario *scenario, const char *text, bool strict, char *error,
                 size_t error_size);

#endif
