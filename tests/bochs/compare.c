/* SPDX-License-Identifier: MIT */
/*
 * Compares what the program in Bochs printed with the silicon model, case by case, and prints TAP:
 * one test for each group of cases and one for each known difference. Called by tests/bochs/run.
 *
 * A case is the same when the two lines are. Else the model runs it again, imitating what is known
 * of Bochs (model.h): only when the outcome is exactly that one, the difference counts as known, as
 * one of each imitation without which it would not be. A known difference must be in known.md and
 * must be seen.
 */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

enum { GROUPS = 64, LINE = 2048, SHOWN = 5 };

struct options {
    const char *known, *parameters, *output;
    struct case_parameters wanted;
};

struct tally {
    uint32_t same, known, unknown;
};

struct comparison {
    struct options options;
    struct model *model;
    FILE *output;
    struct tally groups[GROUPS];
    uint32_t quirks[QUIRKS];
    uint32_t next; /* the case whose line is due */
    unsigned tests, failures;
};

#define QUIRK_NAME(name, text) [QUIRK_##name] = (text),
static const char *const quirk_names[QUIRKS] = {QUIRK_LIST(QUIRK_NAME)};
#undef QUIRK_NAME

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "bochs-compare: %s %s\n", what, which);
    exit(2);
}

/* ---- A case in words, for whoever has to explain a difference ---- */

static const char *const control_names[] = {"TS",  "VAA", "VX2",  "ARV", "VID", "EIE",
                                            "SEC", "BM",  "IWE",  "HLT", "CRL", "CRS",
                                            "AIE", "PPI", "BITS", "EPT"};
static const char *const op_names[OP_CODES] = {
    [OP_READ] = "read",
    [OP_WRITE] = "write",
    [OP_OR] = "or",
    [OP_MOVS] = "movs",
    [OP_RDMSR] = "rdmsr",
    [OP_WRMSR] = "wrmsr",
    [OP_READ_CR8] = "read-cr8",
    [OP_WRITE_CR8] = "write-cr8",
    [OP_STI] = "sti",
    [OP_CLI] = "cli",
    [OP_HLT] = "hlt",
    [OP_PUSH] = "sti-on-page",
    [OP_WALK] = "walk",
    [OP_WALK_PUSH] = "sti-walk",
    [OP_STORE] = "store",
};

static void describe(uint32_t n)
{
    struct apicv_case c;

    case_make(n, &c);
    printf("#   %s:", case_group_name(c.group));
    for (unsigned i = 0; i < sizeof(control_names) / sizeof(control_names[0]); i++)
        if (c.controls >> i & 1)
            printf(" %s", control_names[i]);
    printf("\n#   page %u spoil %u rvi %02x svi %02x vtpr %02x threshold %x if %d halted %d"
           " physical %02x irr %02x %02x %02x isr %02x %02x %02x"
           " inject %02x blocking %u ept %u user %d load %03x eoi %llx %llx %llx %llx\n#  ",
           c.page, c.spoil, c.rvi, c.svi, c.vtpr, c.threshold, c.interrupt_flag, c.halted,
           c.physical, c.irr[0], c.irr[1], c.irr[2], c.isr[0], c.isr[1], c.isr[2], c.inject,
           c.blocking, c.ept, c.user, c.load_msr, (unsigned long long)c.eoi_exit[0],
           (unsigned long long)c.eoi_exit[1], (unsigned long long)c.eoi_exit[2],
           (unsigned long long)c.eoi_exit[3]);
    for (unsigned i = 0; i < c.count; i++)
        printf(" %s.%u@%03x:%llx", op_names[c.ops[i].code], c.ops[i].size, c.ops[i].at,
               (unsigned long long)c.ops[i].value);
    printf("\n");
}

/* ---- Comparing ---- */

static bool agrees(struct comparison *x, uint32_t n, const char *line, unsigned quirks)
{
    return strcmp(model_run(x->model, n, quirks)->text, line) == 0;
}

static void explain(struct comparison *x, uint32_t n, const char *line)
{
    printf("# case %u\n#   Bochs:%s\n", n, line);
    printf("#   model:%s\n", model_run(x->model, n, 0)->text);
    printf("#   model, as Bochs is known:%s\n", model_run(x->model, n, QUIRKS_ALL)->text);
    describe(n);
}

/* Which imitations does the agreement need? */
static void count_quirks(struct comparison *x, uint32_t n, const char *line)
{
    for (unsigned q = 0; q < QUIRKS; q++)
        if (!agrees(x, n, line, QUIRKS_ALL & ~(1u << q)))
            x->quirks[q]++;
}

static void compare(struct comparison *x, uint32_t n, const char *line)
{
    struct apicv_case c;
    struct tally *group;

    case_make(n, &c);
    group = &x->groups[c.group];
    if (agrees(x, n, line, 0)) {
        group->same++;
    } else if (agrees(x, n, line, QUIRKS_ALL)) {
        group->known++;
        count_quirks(x, n, line);
    } else if (++group->unknown <= SHOWN) {
        explain(x, n, line);
    }
}

/* The next case of the share at or after `n`. */
static uint32_t due(const struct comparison *x, uint32_t n)
{
    while (n < x->options.wanted.end && !case_in_share(n, x->options.wanted.shares))
        n++;
    return n;
}

/* ---- Reading ---- */

/* The first line: what was run, and on what processor. Gives its physical-address width. */
static unsigned read_header(struct comparison *x)
{
    char line[LINE];
    const char *phys, *run;
    unsigned end = 0, shares = 0;

    if (!fgets(line, sizeof(line), x->output) || strncmp(line, "vapic ", 6) != 0)
        fail("the program printed nothing in", x->options.output);
    phys = strstr(line, " phys=");
    run = strstr(line, " end=");
    if (!phys || !run || sscanf(run, " end=%x shares=%x", &end, &shares) != 2)
        fail("no first line in", x->options.output);
    if (end != x->options.wanted.end || shares != x->options.wanted.shares)
        fail("another share of the list was run in", x->options.output);
    printf("# %s", line);
    return (unsigned)strtoul(phys + strlen(" phys="), NULL, 16);
}

/* Every line, in order; false when the output stops or strays. */
static bool read_cases(struct comparison *x)
{
    char line[LINE], *text;

    x->next = due(x, 0);
    while (fgets(line, sizeof(line), x->output)) {
        line[strcspn(line, "\n")] = 0;
        if (x->next == x->options.wanted.end)
            return strcmp(line, "end") == 0;
        if (strtoul(line, &text, 10) != x->next || text == line) {
            printf("# instead of case %u: %s\n", x->next, line);
            return false;
        }
        compare(x, x->next, text);
        x->next = due(x, x->next + 1);
    }
    printf("# the output ends where case %u is due\n", x->next);
    return false;
}

/* ---- Reporting ---- */

static void report(struct comparison *x, bool ok)
{
    x->tests++;
    x->failures += !ok;
    printf("%sok %u - ", ok ? "" : "not ", x->tests);
}

static bool documented(const struct comparison *x, const char *name)
{
    FILE *file = fopen(x->options.known, "r");
    char line[LINE], heading[64];
    bool found = false;

    if (!file)
        fail("cannot read", x->options.known);
    snprintf(heading, sizeof(heading), "## %s\n", name);
    while (!found && fgets(line, sizeof(line), file))
        found = strcmp(line, heading) == 0;
    fclose(file);
    return found;
}

static int report_all(struct comparison *x, bool complete)
{
    report(x, complete);
    printf("the program in Bochs ran its whole share of the list\n");
    for (unsigned i = 0; i < case_groups(); i++) {
        const struct tally *t = &x->groups[i];

        report(x, t->unknown == 0 && t->same + t->known > 0);
        printf("%s: %u cases the same, %u differ as known, %u otherwise\n", case_group_name(i),
               t->same, t->known, t->unknown);
    }
    for (unsigned q = 0; q < QUIRKS; q++) {
        bool known = documented(x, quirk_names[q]);

        report(x, known && x->quirks[q]);
        printf("known difference %s: in %u cases%s\n", quirk_names[q], x->quirks[q],
               known ? "" : ", but known.md has no verdict");
    }
    printf("1..%u\n", x->tests);
    return x->failures ? 1 : 0;
}

/* ---- The command line ---- */

static const struct argp_option argp_options[] = {
    {"shares", 's', "N", 0, "compare one N-th of the list (1: all)", 0},
    {"more", 'm', "N", 0, "N random cases beyond the list", 0},
    {"write-parameters", 'w', "FILE", 0, "write what the program has to be told, and end", 0},
    {"known", 'k', "FILE", 0, "the reviewed differences", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    unsigned long value = text ? strtoul(text, NULL, 10) : 0;

    switch (key) {
    case 's':
        if (!value || value > 100000)
            argp_error(state, "'%s' is no number of shares (1 to 100000)", text);
        options->wanted.shares = (uint32_t)value;
        return 0;
    case 'm':
        if (value > 100000000)
            argp_error(state, "'%s' is more than 100000000 cases", text);
        options->wanted.end = case_count() + (uint32_t)value;
        return 0;
    case 'w':
        options->parameters = text;
        return 0;
    case 'k':
        options->known = text;
        return 0;
    case ARGP_KEY_ARG:
        if (options->output)
            argp_error(state, "more than one output");
        options->output = text;
        return 0;
    case ARGP_KEY_END:
        if (!options->parameters && (!options->output || !options->known))
            argp_error(state, "the program's output and --known are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int write_parameters(const struct options *options)
{
    FILE *file = fopen(options->parameters, "wb");

    if (!file || fwrite(&options->wanted, sizeof(options->wanted), 1, file) != 1 || fclose(file))
        fail("cannot write", options->parameters);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        argp_options,
        parse,
        "[OUTPUT]",
        "Compare what the program in Bochs printed with the silicon model; prints TAP.",
        NULL,
        NULL,
        NULL};
    struct comparison x = {.options.wanted = {.end = case_count(), .shares = 1}};
    int status;

    argp_parse(&argp, argc, argv, 0, NULL, &x.options);
    if (x.options.parameters)
        return write_parameters(&x.options);
    x.output = fopen(x.options.output, "r");
    if (!x.output)
        fail("cannot read", x.options.output);
    x.model = model_new(read_header(&x));
    if (!x.model)
        fail("no memory for", "the model");
    status = report_all(&x, read_cases(&x));
    model_free(x.model);
    fclose(x.output);
    return status;
}
