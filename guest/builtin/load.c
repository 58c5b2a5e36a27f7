/* SPDX-License-Identifier: MIT */
#include "groups.h"
const struct test load_tests[] = {{0}};
