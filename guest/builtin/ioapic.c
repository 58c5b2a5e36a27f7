/* SPDX-License-Identifier: MIT */
#include "groups.h"
const struct test ioapic_tests[] = {{0}};
