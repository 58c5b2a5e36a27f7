/* SPDX-License-Identifier: MIT */
#include "groups.h"
const struct test timer_tests[] = {{0}};
