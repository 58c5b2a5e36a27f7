/* SPDX-License-Identifier: MIT */
/* The table of the scenarios that scenarios.h names. */
#include "scenarios.h"

#define X(name) &scenario_##name,
const struct ex_scenario *const ex_scenarios[] = {EX_SCENARIOS(X)};
#undef X
const size_t ex_scenario_count = sizeof(ex_scenarios) / sizeof(ex_scenarios[0]);
