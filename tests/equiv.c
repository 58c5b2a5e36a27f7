/* SPDX-License-Identifier: MIT */
/*
 * The command of the equivalence test (equiv.h). Every run follows from its options: what it prints
 * on a failure repeats the failure.
 *
 *      equiv                     the short run of `make test`, as TAP
 *      equiv --long              10 million operations; demands counts, prints them
 *      equiv --mode avic --seed 7 --ops 5000 --verbose
 */
#include "equiv.h"

#include "../src/mutant.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EPOCH 3000u

struct options {
    uint64_t seed, ops, epoch;
    int mode; /* enum ax_mode_index; 0: all */
    bool full, verbose, cells, random, no_toggles, survey;
};

static struct options options = {.seed = 1, .ops = 40000, .cells = true, .random = true};
static struct equiv equiv;
static bool finished = true;

/* ---- One operation ---- */

static void print_log(const struct ax *ax, const char *name)
{
    static const char *const kinds[AX_KINDS] = {
        [AX_DELIVERED] = "vector",  [AX_NOTIFY] = "notify",     [AX_EXIT] = "exit",
        [AX_ENTRY] = "entry",       [AX_EOI] = "eoi",           [AX_GSI_ACK] = "gsi-ack",
        [AX_INTERCEPT] = "msr-map", [AX_FLUSH] = "flush",       [AX_PAGE] = "page",
        [AX_IRTE] = "irte",         [AX_KICK_ALL] = "kick-all", [AX_NMI] = "nmi",
        [AX_EXTINT] = "extint",     [AX_TRACE] = "trace",
    };

    printf("# %s, during that operation:\n", name);
    for (uint32_t i = 0; ax != NULL && i < ax->logged; i++)
        printf("#   vCPU %d %s %#llx %#llx %#llx\n", (int)ax->log[i].vcpu,
               kinds[ax->log[i].kind] ? kinds[ax->log[i].kind] : "?",
               (unsigned long long)ax->log[i].a, (unsigned long long)ax->log[i].b,
               (unsigned long long)ax->log[i].c);
}

static void trace_op(const struct equiv *e, const struct eq_op *op)
{
    printf("# %llu: %s vcpu %u %s size %u where %#x value %#llx\n", (unsigned long long)e->number,
           eq_kind_names[op->kind], op->vcpu, op->write ? "write" : "read", op->size, op->where,
           (unsigned long long)op->value);
}

bool eq_step(struct equiv *e, const struct eq_op *op)
{
    e->op = *op;
    e->history[e->number % 64] = *op;
    if (e->verbose)
        trace_op(e, op);
    ax_forget(e->ref);
    ax_forget(e->acc);
    eq_note_before(e);
    e->counts.ops[op->kind]++;
    /* The other one first: the reference says where the guest's page is, before the operation. */
    e->acc_outcome = eq_apply(e, e->acc, op);
    e->ref_outcome = eq_apply(e, e->ref, op);
    eq_settle(e, e->acc);
    eq_settle(e, e->ref);
    e->counts.exits += ax_count(e->acc, AX_EXIT);
    eq_note_cell(e);
    if (e->verbose)
        print_log(e->acc, ax_modes[e->mode].name);
    if (eq_compare(e))
        return true;
    e->failed = true;
    if (!e->silent) {
        print_log(e->ref, "alone");
        print_log(e->acc, ax_modes[e->mode].name);
    }
    return false;
}

/* What the guest cannot see it must not see: nothing that was lost comes to light now. */
static bool disturb(struct equiv *e)
{
    ax_forget(e->ref);
    ax_forget(e->acc);
    if (!eq_disturb(e))
        return true;
    e->op = (struct eq_op){.kind = EQ_NOTHING};
    e->ref_outcome = e->acc_outcome = (struct eq_outcome){0};
    eq_settle(e, e->acc);
    if (eq_compare(e))
        return true;
    e->failed = true;
    if (!e->silent)
        print_log(e->acc, ax_modes[e->mode].name);
    return false;
}

/* ---- A run ---- */

/* Each epoch has generators of its own, so that it can be run alone. */
static void seed_epoch(struct equiv *e)
{
    struct eq_random r = {.state = e->seed * 0x10001 + e->number / e->epoch_length};

    e->stream.state = eq_next(&r);
    e->other.state = eq_next(&r) + (uint64_t)e->mode;
}

static bool one_epoch(struct equiv *e)
{
    e->epoch_start = e->number;
    seed_epoch(e);
    eq_begin_epoch(e);
    eq_make(e);
    for (uint32_t i = 0; i < e->epoch_length && e->number < e->ops; i++, e->number++) {
        struct eq_op op = eq_draw(e);

        if (!eq_step(e, &op) || !disturb(e))
            return false;
    }
    return eq_compare_images(e);
}

static bool random_run(struct equiv *e)
{
    bool fine = true;

    while (fine && e->number < e->ops) {
        fine = one_epoch(e);
        eq_free(e);
    }
    return fine;
}

static void begin(struct equiv *e, enum ax_mode_index mode)
{
    struct eq_counts counts = e->counts;

    memset(e, 0, sizeof(*e));
    e->counts = counts;
    e->mode = mode;
    e->seed = options.seed;
    e->ops = options.ops;
    e->epoch_length = EPOCH;
    e->verbose = options.verbose;
    e->survey = options.survey;
    e->toggling = !options.no_toggles;
    e->number = options.epoch * EPOCH;
}

/* ---- Reports ---- */

static void print_history(const struct equiv *e)
{
    uint64_t from = e->number > 20 ? e->number - 20 : 0;

    for (uint64_t i = from; i <= e->number; i++) {
        const struct eq_op *op = &e->history[i % 64];

        printf("#   %llu: %s vcpu %u %s size %u where %#x value %#llx\n", (unsigned long long)i,
               eq_kind_names[op->kind], op->vcpu, op->write ? "write" : "read", op->size, op->where,
               (unsigned long long)op->value);
    }
}

static void how_to_repeat(const struct equiv *e, const char *what)
{
    printf("# repeat: equiv --mode %s --seed %llu", ax_modes[e->mode].name,
           (unsigned long long)e->seed);
    if (*what == '\0')
        printf(" --no-cells --epoch %llu --ops %llu", (unsigned long long)(e->number / EPOCH),
               (unsigned long long)e->number + 1);
    printf("%s\n", what);
}

static void report(const struct equiv *e, const char *what)
{
    printf("# %s\n", e->failure);
    how_to_repeat(e, what);
    print_history(e);
}

/* The fixture's own assertions end the program, and so does a crash. */
static void at_exit(void)
{
    if (finished)
        return;
    /* NOLINTNEXTLINE(bugprone-signal-handler) */
    printf("# ended in the middle of operation %llu\n", (unsigned long long)equiv.number);
    report(&equiv, "");
}

/* The program is lost in any case: a report that may itself fail is better than none. */
static void on_signal(int number)
{
    if (!finished)
        at_exit();
    finished = true;
    fflush(stdout); /* NOLINT(bugprone-signal-handler) */
    signal(number, SIG_DFL);
    raise(number);
}

static void print_counts(const struct equiv *e)
{
    const struct eq_counts *c = &e->counts;
    uint64_t least = UINT64_MAX, where = 0, ops = 0;

    for (uint32_t i = 0; i < EQ_CELLS; i++)
        if (c->cells[i] < least) {
            least = c->cells[i];
            where = i;
        }
    for (uint32_t i = 0; i < EQ_KINDS; i++)
        ops += c->ops[i];
    printf("# %llu operations, %llu interrupts, %llu exits, vCPUs active in %llu %%\n",
           (unsigned long long)ops, (unsigned long long)c->delivered, (unsigned long long)c->exits,
           (unsigned long long)(c->samples ? c->active * 100 / c->samples : 0));
    printf("# toggles: %llu between operations; between post and look: %llu by processors, %llu "
           "by IOMMUs, %llu by software\n",
           (unsigned long long)c->toggles, (unsigned long long)c->points_hardware,
           (unsigned long long)c->points_iommu, (unsigned long long)c->points_software);
    printf("# cells: %u, the least often used %llu times (%s mode, offset %#llx, %s)\n", EQ_CELLS,
           (unsigned long long)least, where >= 512 ? "x2APIC" : "xAPIC",
           (unsigned long long)(where >> 1 & 255) << 4, where & 1 ? "write" : "read");
}

/* ---- Modes as tests ---- */

static uint32_t tests;

static bool verdict(bool fine, const char *what, const char *mode)
{
    printf("%sok %u - %s: %s\n", fine ? "" : "not ", ++tests, mode, what);
    fflush(stdout);
    return fine;
}

static uint64_t seen[EQ_DEVIATIONS_MAX][AX_MODES];

static void add_seen(const struct equiv *e)
{
    for (uint32_t i = 0; i < eq_deviation_count(); i++)
        seen[i][e->mode] += e->counts.deviations[i];
}

static bool enough(const struct equiv *e)
{
    const struct eq_counts *c = &e->counts;
    bool ipis =
        ax_modes[e->mode].features & VAPIC_ACCEL_IPIV || ax_modes[e->mode].kind == VAPIC_ACCEL_AVIC;
    bool fine = c->points_software >= 1000 && c->points_iommu >= 1000 &&
                (!ipis || c->points_hardware >= 1000);

    for (uint32_t i = 0; i < EQ_CELLS; i++)
        fine = fine && c->cells[i] >= 100;
    return fine;
}

static bool run_part(struct equiv *e, enum ax_mode_index mode, bool (*part)(struct equiv *e),
                     const char *title, const char *repeat)
{
    bool fine;

    begin(e, mode);
    eq_machine_init(e);
    finished = false;
    fine = part(e);
    finished = true;
    eq_machine_end(e);
    if (!fine)
        report(e, repeat);
    return verdict(fine, title, ax_modes[mode].name);
}

static bool run_mode(struct equiv *e, enum ax_mode_index mode)
{
    bool fine = true;

    memset(&e->counts, 0, sizeof(e->counts));
    if (options.cells)
        fine = run_part(e, mode, eq_cells, "every cell of the access tables", " --cells");
    if (options.random)
        fine &= run_part(e, mode, random_run, "a random stream", "");
    print_counts(e);
    if (options.full)
        fine &= verdict(enough(e), "counts", ax_modes[mode].name);
    add_seen(e);
    return fine;
}

/* A library with a known bug must not pass. */
static bool is_noticed(struct equiv *e, enum ax_mode_index mode, enum vapic_mutant mutant)
{
    bool fine;

    begin(e, mode);
    e->ops = e->number + 40000;
    e->silent = true;
    vapic_mutant = mutant;
    eq_machine_init(e);
    fine = random_run(e);
    eq_machine_end(e);
    vapic_mutant = VAPIC_MUTANT_NONE;
    return !fine;
}

static bool bugs_are_noticed(struct equiv *e)
{
    bool page = is_noticed(e, AX_MODE_AVIC, VAPIC_MUTANT_HYBRID_KEEPS_PAGE);
    bool eoi = is_noticed(e, AX_MODE_X2AVIC, VAPIC_MUTANT_EOI_TRAP_READS);

    page = verdict(page, "a page that is not withdrawn is noticed", "avic");
    eoi = verdict(eoi, "an EOI that is dropped is noticed", "x2avic");
    return page && eoi;
}

static bool listed_and_seen(void)
{
    bool fine = true;

    for (uint32_t i = 0; i < eq_deviation_count(); i++) {
        const struct eq_deviation *d = eq_deviation(i);

        printf("# deviation %s:", d->name);
        for (int mode = AX_MODE_AVIC; mode < AX_MODES; mode++) {
            if (!(d->modes & 1u << mode))
                continue;
            printf(" %s %llu", ax_modes[mode].name, (unsigned long long)seen[i][mode]);
            fine = fine && seen[i][mode] != 0;
        }
        printf("\n");
    }
    return fine;
}

/* ---- Command line ---- */

enum { KEY_CELLS = 1, KEY_NO_CELLS, KEY_LONG, KEY_NO_TOGGLES, KEY_SURVEY };

static const struct argp_option argp_options[] = {
    {"mode", 'm', "MODE", 0, "avic, avic-noipiv, x2avic, apicv, apicv-ipiv (default: all)", 0},
    {"seed", 's', "N", 0, "the stream", 0},
    {"ops", 'n', "N", 0, "operations per mode", 0},
    {"epoch", 'e', "N", 0, "begin with this epoch, of 3000 operations each", 0},
    {"long", KEY_LONG, NULL, 0, "10 million operations; every count must be reached", 0},
    {"cells", KEY_CELLS, NULL, 0, "the cells of the access tables only", 0},
    {"no-cells", KEY_NO_CELLS, NULL, 0, "the random stream only", 0},
    {"no-toggles", KEY_NO_TOGGLES, NULL, 0, "no inhibition, no moves", 0},
    {"survey", KEY_SURVEY, NULL, 0, "one line for each kind of unlisted difference, and go on", 0},
    {"verbose", 'v', NULL, 0, "print every operation", 0},
    {0},
};

static int mode_by_name(const char *name)
{
    for (int mode = AX_MODE_AVIC; mode < AX_MODES; mode++)
        if (strcmp(ax_modes[mode].name, name) == 0)
            return mode;
    return -1;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    unsigned long long value;
    char *end = NULL;

    switch (key) {
    case 'm':
        options.mode = mode_by_name(text);
        if (options.mode < 0)
            argp_error(state, "no such mode: %s", text);
        break;
    case 's':
    case 'n':
    case 'e':
        value = strtoull(text, &end, 0);
        if (*text == '\0' || *end != '\0')
            argp_error(state, "not a number: %s", text);
        *(key == 's' ? &options.seed : key == 'n' ? &options.ops : &options.epoch) = value;
        break;
    case KEY_LONG:
        options.full = true;
        options.ops = 10000000;
        break;
    case KEY_CELLS:
        options.random = false;
        break;
    case KEY_NO_CELLS:
        options.cells = false;
        break;
    case KEY_NO_TOGGLES:
        options.no_toggles = true;
        break;
    case KEY_SURVEY:
        options.survey = true;
        break;
    case 'v':
        options.verbose = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {argp_options,
                                     parse,
                                     NULL,
                                     "Compares the library on modelled silicon with the library "
                                     "alone, operation by operation.",
                                     NULL,
                                     NULL,
                                     NULL};
    bool fine = true;

    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    atexit(at_exit);
    signal(SIGSEGV, on_signal);
    signal(SIGABRT, on_signal);
    for (int mode = AX_MODE_AVIC; mode < AX_MODES; mode++)
        if (options.mode == 0 || options.mode == mode)
            fine &= run_mode(&equiv, (enum ax_mode_index)mode);
    if (options.mode == 0)
        fine &= bugs_are_noticed(&equiv);
    if (options.mode == 0)
        fine &= verdict(listed_and_seen() || !options.full, "every deviation was seen", "all");
    else
        listed_and_seen();
    printf("1..%u\n", tests);
    return fine ? 0 : 1;
}
