/* SPDX-License-Identifier: MIT */
/*
 * The scenarios of this build, in the order of --list. Each is a `const struct ex_scenario
 * scenario_<name>` in the file that its line names; scenarios.c makes the table of them.
 */
#ifndef VAPIC_EXPLORE_SCENARIOS_H
#define VAPIC_EXPLORE_SCENARIOS_H

#include "explore.h"

#define EX_SCENARIOS(X)                                                                            \
    /* scenarios_software.c */                                                                     \
    X(post_to_sleeper)                                                                             \
    /* scenarios_avic.c */                                                                         \
    X(ipi_to_sleeper)

#define X(name) extern const struct ex_scenario scenario_##name;
EX_SCENARIOS(X)
#undef X

#endif
