/* SPDX-License-Identifier: MIT */
#include "groups.h"
const struct test start_tests[] = {{0}};
