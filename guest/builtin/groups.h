/* SPDX-License-Identifier: MIT */
/* The built-in guest's groups of tests, one file each; each table ends with an empty row. */
#ifndef GUEST_GROUPS_H
#define GUEST_GROUPS_H

#include "test.h"

extern const struct test base_tests[];
extern const struct test register_tests[];
extern const struct test priority_tests[];
extern const struct test ipi_tests[];
extern const struct test start_tests[];
extern const struct test timer_tests[];
extern const struct test ioapic_tests[];
extern const struct test load_tests[];
extern const struct test storm_tests[];

#endif
