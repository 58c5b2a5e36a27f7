/* SPDX-License-Identifier: MIT */
#include "groups.h"
const struct test ipi_tests[] = {{0}};
