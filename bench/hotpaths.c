/* SPDX-License-Identifier: MIT */
/*
 * hotpaths: runs one operation of cases.c a given number of times (for a tool that counts
 * instructions), or times it. measure.py calls it; `hotpaths --list` says what there is.
 */
#define _GNU_SOURCE
#include "cases.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCHES    101u
#define BATCH_SIZE 2000u

struct options {
    bool list;
    const char *run;
    const char *time;
    uint32_t count;
};

static const struct hot_table tables[] = {
    {hot_cases, VAPIC_ACCEL_NONE},
    {hot_cases_avic, VAPIC_ACCEL_AVIC},
    {hot_cases_apicv, VAPIC_ACCEL_APICV},
};

#define TABLES (sizeof(tables) / sizeof(tables[0]))

/* An operation and the back end of the VM that it wants. */
struct found {
    const struct hot_case *c;
    enum vapic_accel_kind kind;
};

static struct found find_case(const char *name)
{
    for (size_t i = 0; i < TABLES; i++)
        for (const struct hot_case *c = tables[i].cases; c->name != NULL; c++)
            if (strcmp(c->name, name) == 0)
                return (struct found){c, tables[i].kind};
    fprintf(stderr, "hotpaths: no operation \"%s\"; see --list\n", name);
    exit(2);
}

static int list(void)
{
    for (size_t i = 0; i < TABLES; i++)
        for (const struct hot_case *c = tables[i].cases; c->name != NULL; c++)
            printf("%s\t%u\t%u\t%d\t%s\n", c->name, c->targets, c->aim, c->locked_aim, c->text);
    return 0;
}

static void nothing(struct machine *m)
{
    (void)m;
}

static case_fn or_nothing(case_fn fn)
{
    return fn != NULL ? fn : nothing;
}

/* A machine on which the operation has been seen to work, once. */
static struct machine *set_up(struct found f)
{
    const struct hot_case *c = f.c;
    struct machine *m = machine_new(c->vcpus, c->x2apic, f.kind);

    or_nothing(c->setup)(m);
    or_nothing(c->prepare)(m);
    m->locks = m->notified = 0;
    c->op(m);
    c->verify(m);
    return m;
}

static int run(struct found f, uint32_t count)
{
    const struct hot_case *c = f.c;
    struct machine *m = set_up(f);
    case_fn prepare = or_nothing(c->prepare);

    for (uint32_t i = 0; i < count; i++) {
        prepare(m);
        c->op(m);
    }
    machine_free(m);
    return 0;
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static double time_batch(struct machine *m, case_fn prepare, case_fn op)
{
    double start = now_ns();

    for (uint32_t i = 0; i < BATCH_SIZE; i++) {
        prepare(m);
        op(m);
    }
    return (now_ns() - start) / BATCH_SIZE;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median_of(struct machine *m, case_fn prepare, case_fn op)
{
    static double batch[BATCHES];

    for (uint32_t i = 0; i < BATCHES; i++)
        batch[i] = time_batch(m, prepare, op);
    qsort(batch, BATCHES, sizeof(batch[0]), compare);
    return batch[BATCHES / 2];
}

/* The operation with its preparation, less the preparation alone. */
static int time_case(struct found f)
{
    const struct hot_case *c = f.c;
    struct machine *m = set_up(f);
    case_fn prepare = or_nothing(c->prepare);
    double with = median_of(m, prepare, c->op), without = median_of(m, prepare, nothing);

    printf("%.2f\n", (with - without) / c->targets);
    machine_free(m);
    return 0;
}

static const struct argp_option argp_options[] = {
    {"list", 'l', NULL, 0, "Print name, targets, aims and description of each operation", 0},
    {"run", 'r', "NAME", 0, "Run operation NAME", 0},
    {"count", 'n', "N", 0, "... this many times after the first (default 100)", 0},
    {"time", 't', "NAME", 0, "Print the median nanoseconds of NAME, per target", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    char *end;

    switch (key) {
    case 'l':
        o->list = true;
        return 0;
    case 'r':
        o->run = arg;
        return 0;
    case 't':
        o->time = arg;
        return 0;
    case 'n':
        o->count = (uint32_t)strtoul(arg, &end, 10);
        if (*arg == '\0' || *end != '\0' || o->count > 100000000)
            argp_error(state, "--count wants a number up to 100000000, not \"%s\"", arg);
        return 0;
    case ARGP_KEY_END:
        if (o->list + (o->run != NULL) + (o->time != NULL) != 1)
            argp_error(state, "give one of --list, --run and --time");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        argp_options, parse, NULL, "Runs or times the hot paths of libvapic.", NULL, NULL, NULL};
    struct options o = {.count = 100};

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.list)
        return list();
    return o.run != NULL ? run(find_case(o.run), o.count) : time_case(find_case(o.time));
}
