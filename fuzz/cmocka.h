/* SPDX-License-Identifier: MIT */
/*
 * Stands in for the test library where the tests' fixtures are built into fuzz targets: the same
 * names, but a failure aborts, as fuzzing engines want it, and no library is needed.
 */
#ifndef VAPIC_FUZZ_CMOCKA_H
#define VAPIC_FUZZ_CMOCKA_H

#include "fuzz.h"

#define fail_msg(...)      fuzz_fail(__FILE__, __LINE__, __VA_ARGS__)
#define assert_true(c)     fuzz_check(c, "%s", #c)
#define assert_false(c)    fuzz_check(!(c), "not: %s", #c)
#define assert_non_null(p) fuzz_check((p) != NULL, "%s is NULL", #p)
#define assert_null(p)     fuzz_check((p) == NULL, "%s is not NULL", #p)
#define assert_int_equal(a, b)                                                                     \
    fuzz_check((uint64_t)(a) == (uint64_t)(b), "%s is %#llx, %s is %#llx", #a,                     \
               (unsigned long long)(a), #b, (unsigned long long)(b))
#define assert_int_not_equal(a, b)                                                                 \
    fuzz_check((uint64_t)(a) != (uint64_t)(b), "%s is %s: %#llx", #a, #b, (unsigned long long)(a))

#endif
