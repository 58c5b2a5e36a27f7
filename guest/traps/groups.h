/* SPDX-License-Identifier: MIT */
/* The groups of trap tests; each table ends with an empty row. */
#ifndef GUEST_TRAP_GROUPS_H
#define GUEST_TRAP_GROUPS_H

#include "test.h"

extern const struct test msr_tests[];
extern const struct test halt_tests[];
extern const struct test window_tests[];
extern const struct test deadline_tests[];
extern const struct test reset_tests[];
extern const struct test pv_tests[];

#endif
