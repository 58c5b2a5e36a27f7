/* SPDX-License-Identifier: MIT */
/* What is measured: one row per operation. */
#ifndef VAPIC_BENCH_CASES_H
#define VAPIC_BENCH_CASES_H

#include "machine.h"

typedef void (*case_fn)(struct machine *m);

struct hot_case {
    const char *name;
    const char *text;
    uint32_t vcpus;
    bool x2apic;
    uint32_t targets; /* the counts are divided by it */
    uint32_t aim;     /* instructions per target; 0: none */
    int locked_aim;   /* locked operations per target; -1: none */
    case_fn setup;    /* once; may be NULL */
    case_fn prepare;  /* before each operation; may be NULL */
    case_fn op;       /* the operation, a function whose name begins with op_ */
    case_fn verify;   /* after one prepare and op: ends the program unless it did its work */
};

/* The rows of a VM with the same back end; they end with one whose name is NULL. */
struct hot_table {
    const struct hot_case *cases;
    enum vapic_accel_kind kind;
};

extern const struct hot_case hot_cases[];       /* cases.c: no back end */
extern const struct hot_case hot_cases_avic[];  /* accel_cases.c */
extern const struct hot_case hot_cases_apicv[]; /* accel_cases.c */

/* Ends the program unless `good`: an operation that fails fast must not look fast. */
void hot_verify(bool good, const char *what);

#endif
