/* SPDX-License-Identifier: MIT */
/*
 * The command of the equivalence test with nesting (nested_equiv.h).
 *
 *      nested_equiv                      the short run of `make test`, as TAP
 *      nested_equiv --long               1 million operations
 *      nested_equiv --seed 7 --row 1 --epoch 12 --epochs 1
 */
#include "nested_equiv.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH       250u /* operations */
#define HISTORY     256u
#define ROWS        2u

#define AMD_ALL     (VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC)
#define INTEL_POSTS (VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED)
#define INTEL_ALL   (INTEL_POSTS | VAPIC_NESTED_IPIV)
#define AMD         .kind = VAPIC_ACCEL_AVIC, .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC
#define INTEL       .kind = VAPIC_ACCEL_APICV, .features = VAPIC_ACCEL_IPIV
#define SHADOWED    .strategy = VAPIC_NESTED_SHADOW

enum { IN_XAPIC = 1, IN_X2APIC = 2, IN_BOTH = 3 };

struct world {
    const char *name;
    uint32_t rows;
    struct nx_options options;
};

static const struct world worlds[] = {
    {"AMD, software", IN_BOTH, {AMD, .offered = AMD_ALL}},
    {"AVIC, dummy", IN_XAPIC, {AMD, .offered = AMD_ALL, .l2 = NX_L2_AVIC}},
    {"AVIC, shadow", IN_XAPIC, {AMD, .offered = AMD_ALL, .l2 = NX_L2_AVIC, SHADOWED}},
    {"AVIC, shadow, HLT inside",
     IN_XAPIC,
     {AMD, .offered = AMD_ALL, .l2 = NX_L2_AVIC, SHADOWED, .hlt_inside = true}},
    {"x2AVIC, dummy", IN_X2APIC, {AMD, .offered = AMD_ALL, .l2 = NX_L2_X2AVIC}},
    {"x2AVIC, shadow", IN_X2APIC, {AMD, .offered = AMD_ALL, .l2 = NX_L2_X2AVIC, SHADOWED}},
    {"AVIC for an L2 in x2APIC mode, shadow",
     IN_X2APIC,
     {AMD, .offered = AMD_ALL, .l2 = NX_L2_AVIC, SHADOWED}},
    {"Intel, software", IN_BOTH, {INTEL}},
    {"APICv", IN_BOTH, {INTEL, .offered = VAPIC_NESTED_APICV, .l2 = NX_L2_APICV}},
    {"APICv, posted", IN_BOTH, {INTEL, .offered = INTEL_POSTS, .l2 = NX_L2_POSTED}},
    {"APICv, posted, HLT inside, L1 not accelerated",
     IN_BOTH,
     {INTEL, .offered = INTEL_POSTS, .l2 = NX_L2_POSTED, .hlt_inside = true, .disabled = true}},
    {"IPIv, dummy", IN_BOTH, {INTEL, .offered = INTEL_ALL, .l2 = NX_L2_IPIV}},
    {"IPIv, shadow", IN_BOTH, {INTEL, .offered = INTEL_ALL, .l2 = NX_L2_IPIV, SHADOWED}},
    {"IPIv, shadow, HLT inside",
     IN_BOTH,
     {INTEL, .offered = INTEL_ALL, .l2 = NX_L2_IPIV, SHADOWED, .hlt_inside = true}},
};

#define WORLDS_IN_ALL (sizeof(worlds) / sizeof(worlds[0]))

struct counts {
    uint64_t ops[NEQ_KINDS], landed[NEQ_KINDS];
    uint64_t l2_vectors, l1_vectors;
    uint64_t exits[WORLDS_IN_ALL], reflected[WORLDS_IN_ALL];
    uint64_t ipi_exits[WORLDS_IN_ALL]; /* of L2, to L0: an IPI that hardware did not deliver */
    uint64_t written, pins;
};

struct run {
    uint32_t row; /* 0: xAPIC mode, 1: x2APIC mode */
    uint64_t seed, epoch, step;
    struct neq_epoch how;
    struct neq_random random;
    struct neq_op op;
    uint32_t count;
    uint32_t world[NEQ_WORLDS]; /* indices into worlds */
    struct nx *nx[NEQ_WORLDS];
    struct neq_outcome outcome[NEQ_WORLDS];
    struct counts counts;
    char failure[256];
};

static struct {
    uint64_t seed, first, epochs;
    int row;
    bool verbose;
} options = {.seed = 1, .epochs = 12, .row = -1};

static struct run run;
static bool finished = true;

/* ---- Comparing ---- */

/* Everything that went through somebody's IDT, in order. */
static uint32_t history(const struct nx *nx, enum nx_kind kind, uint32_t n, uint8_t *vectors)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < nx->logged; i++)
        if (nx->log[i].kind == kind && nx->log[i].n == n && count < HISTORY)
            vectors[count++] = (uint8_t)nx->log[i].a;
    return count;
}

static bool differ(struct run *r, uint32_t w, const char *what, uint32_t n, uint64_t seen,
                   uint64_t expected)
{
    if (seen == expected)
        return false;
    snprintf(r->failure, sizeof(r->failure), "\"%s\", vCPU %u: %s is %#llx, not %#llx as in \"%s\"",
             worlds[r->world[w]].name, n, what, (unsigned long long)seen,
             (unsigned long long)expected, worlds[r->world[0]].name);
    return true;
}

static bool histories_differ(struct run *r, uint32_t w, enum nx_kind kind, uint32_t n)
{
    bool l2 = kind == NX_L2_DELIVERED;
    uint8_t expected[HISTORY], seen[HISTORY];
    uint32_t count = history(r->nx[0], kind, n, expected);
    uint32_t more = history(r->nx[w], kind, n, seen);

    if (differ(r, w, l2 ? "L2's number of vectors" : "L1's number of vectors", n, more, count))
        return true;
    for (uint32_t i = 0; i < count; i++)
        if (differ(r, w, l2 ? "a vector of L2" : "a vector of L1", n, seen[i], expected[i]))
            return true;
    return false;
}

static bool words_differ(struct run *r, uint32_t w, const char *what, uint32_t n, uint32_t offset,
                         uint32_t words)
{
    for (uint32_t i = 0; i < words; i++)
        if (differ(r, w, what, n, nx_l2_page(r->nx[w], n, offset + 16 * i),
                   nx_l2_page(r->nx[0], n, offset + 16 * i)))
            return true;
    return false;
}

/* What was posted to it has come to its page. */
static bool runs(const struct nx *nx, uint32_t l2)
{
    const struct nx_l1 *l1 = nx->l1[nx->l2[l2]->on];

    return l1->l2 && l1->cpu != NULL && !nx->l2[l2]->idle && !l1->blocked;
}

static bool l2_differs(struct run *r, uint32_t w, uint32_t n)
{
    if (histories_differ(r, w, NX_L2_DELIVERED, n) || words_differ(r, w, "TPR", n, APIC_TPR, 1) ||
        words_differ(r, w, "ISR", n, APIC_ISR, 8))
        return true;
    return runs(r->nx[0], n) && runs(r->nx[w], n) && words_differ(r, w, "IRR", n, APIC_IRR, 8);
}

static bool world_differs(struct run *r, uint32_t w)
{
    const struct neq_outcome *seen = &r->outcome[w], *expected = &r->outcome[0];

    if (differ(r, w, "executed", r->op.a, seen->done, expected->done) ||
        differ(r, w, "refused", r->op.a, seen->stuck, expected->stuck) ||
        differ(r, w, "value", r->op.a, seen->value, expected->value))
        return true;
    for (uint32_t n = 0; n < NEQ_VCPUS; n++)
        if (l2_differs(r, w, n))
            return true;
    for (uint32_t n = 0; n < r->nx[w]->l1_count; n++)
        if (histories_differ(r, w, NX_L1_DELIVERED, n))
            return true;
    return false;
}

/* ---- Running ---- */

/* AMD: "incomplete IPI"; Intel: the APIC write of ICR. */
static uint32_t ipi_exits(const struct nx *nx)
{
    return nx_exits(nx, NX_ANY, nx->kind == VAPIC_ACCEL_AVIC ? 0x401 : 56, true);
}

static void count_step(struct run *r)
{
    struct counts *c = &r->counts;

    c->ops[r->op.kind]++;
    c->landed[r->op.kind] += r->outcome[0].done != 0;
    c->l2_vectors += nx_count(r->nx[0], NX_L2_DELIVERED);
    c->l1_vectors += nx_count(r->nx[0], NX_L1_DELIVERED);
    for (uint32_t w = 0; w < r->count; w++) {
        c->exits[r->world[w]] += nx_count(r->nx[w], NX_EXIT);
        c->reflected[r->world[w]] += nx_count(r->nx[w], NX_REFLECTED);
        c->ipi_exits[r->world[w]] += ipi_exits(r->nx[w]);
        c->written += nx_count(r->nx[w], NX_WRITTEN);
        c->pins += nx_count(r->nx[w], NX_PIN);
    }
}

/* `skip`: the world that does not hear of it. */
static bool step(struct run *r, uint32_t skip)
{
    bool same = true;

    for (uint32_t w = 0; w < r->count; w++) {
        nx_forget(r->nx[w]);
        r->outcome[w] = w == skip ? r->outcome[0] : neq_apply(r->nx[w], &r->op);
    }
    for (uint32_t w = 1; w < r->count && same; w++)
        same = !world_differs(r, w);
    count_step(r);
    return same;
}

static void make(struct run *r)
{
    static const uint32_t plain[NEQ_VCPUS] = {0, 1, 2, 3}, spread[NEQ_VCPUS] = {0, 3, 17, 18};

    r->random.state = (r->seed * 0x10001 + r->epoch) * 2 + r->row;
    r->how = (struct neq_epoch){.x2apic = r->row == 1,
                                .l2_eoi = neq_below(&r->random, 2) != 0,
                                .l2_ids = neq_below(&r->random, 2) != 0 ? spread : plain};
    r->count = 0;
    for (uint32_t i = 0; i < WORLDS_IN_ALL; i++) {
        struct nx_options o = worlds[i].options;

        if (!(worlds[i].rows & 1u << r->row))
            continue;
        o.vcpus = NEQ_VCPUS;
        o.l2_x2apic = r->how.x2apic;
        o.l2_eoi = r->how.l2_eoi;
        o.l2_ids = r->how.l2_ids;
        o.l1_x2apic = r->how.x2apic && r->epoch % 2 != 0;
        r->world[r->count] = i;
        r->nx[r->count] = nx_new(&o);
        neq_begin(r->nx[r->count], &r->how);
        r->count++;
    }
}

static void end(struct run *r)
{
    for (uint32_t w = 0; w < r->count; w++)
        nx_free(r->nx[w]);
    r->count = 0;
}

static void trace(const struct run *r)
{
    const struct neq_op *op = &r->op;

    printf("# %llu: %s a %u b %u value %#x %s", (unsigned long long)r->step,
           neq_kind_names[op->kind], op->a, op->b, op->value, op->flag ? "on" : "off");
    for (uint32_t i = 0; i < op->count; i++)
        printf(", %u sends %#x to %#x", op->ipi[i].from, op->ipi[i].icr, op->ipi[i].dest);
    printf("\n");
}

static void report(const struct run *r)
{
    if (r->failure[0] != '\0')
        printf("# %s\n", r->failure);
    trace(r);
    printf("# repeat: nested_equiv --verbose --seed %llu --row %u --epoch %llu --epochs 1\n",
           (unsigned long long)r->seed, r->row, (unsigned long long)r->epoch);
}

static bool one_epoch(struct run *r)
{
    bool same = true;

    r->step = 0;
    make(r);
    for (; r->step < EPOCH && same; r->step++) {
        r->op = neq_draw(&r->random, &r->how);
        if (options.verbose)
            trace(r);
        same = step(r, NEQ_WORLDS);
        if (!same)
            report(r);
    }
    end(r);
    return same;
}

/* ---- Reports ---- */

static uint32_t tests;

static bool verdict(bool fine, const char *what, const char *row)
{
    printf("%s %u - %s, %s\n", fine ? "ok" : "not ok", ++tests, what, row);
    return fine;
}

static void print_counts(const struct run *r)
{
    const struct counts *c = &r->counts;

    printf("# interrupts: %llu for L2, %llu for L1; told of writes %llu times, pins %llu\n",
           (unsigned long long)c->l2_vectors, (unsigned long long)c->l1_vectors,
           (unsigned long long)c->written, (unsigned long long)c->pins);
    for (uint32_t i = 0; i < NEQ_KINDS; i++)
        printf("#   %s: %llu, done in L2 or L1: %llu\n", neq_kind_names[i],
               (unsigned long long)c->ops[i], (unsigned long long)c->landed[i]);
    for (uint32_t i = 0; i < WORLDS_IN_ALL; i++)
        if (c->exits[i] != 0)
            printf("#   %s: %llu exits to L0, %llu of them to L1; for IPIs %llu\n", worlds[i].name,
                   (unsigned long long)c->exits[i], (unsigned long long)c->reflected[i],
                   (unsigned long long)c->ipi_exits[i]);
}

static uint32_t named(const char *name)
{
    uint32_t i = 0;

    while (strcmp(worlds[i].name, name) != 0)
        i++;
    return i;
}

/* Hardware delivered what shadowed tables let it, and nothing without them. */
static bool shadows_worked(const struct run *r)
{
    static const struct {
        const char *dummy, *shadow;
    } pairs[] = {
        {"AVIC, dummy", "AVIC, shadow"},
        {"x2AVIC, dummy", "x2AVIC, shadow"},
        {"IPIv, dummy", "IPIv, shadow"},
    };
    bool fine = true;

    for (uint32_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        uint32_t dummy = named(pairs[i].dummy), shadow = named(pairs[i].shadow);

        if (worlds[dummy].rows & 1u << r->row)
            fine = fine && r->counts.ipi_exits[shadow] < r->counts.ipi_exits[dummy] * 3 / 4;
    }
    return fine;
}

/* Each kind of operation was done, often; interrupts came; tables were followed. */
static bool enough(const struct run *r, uint64_t epochs)
{
    const struct counts *c = &r->counts;
    bool fine = c->l2_vectors > 80 * epochs && c->l1_vectors > 5 * epochs && c->written > epochs;

    for (uint32_t i = 0; i < NEQ_KINDS; i++)
        fine = fine && (c->landed[i] >= epochs / 2 || (i == NEQ_MODEL && r->row == 1));
    return fine;
}

static bool run_row(struct run *r, uint32_t row, uint64_t epochs)
{
    static const char *const names[ROWS] = {"xAPIC mode", "x2APIC mode"};
    bool fine = true;

    memset(r, 0, sizeof(*r));
    r->row = row;
    r->seed = options.seed;
    finished = false;
    for (uint64_t i = 0; i < epochs && fine; i++) {
        r->epoch = options.first + i;
        fine = one_epoch(r);
    }
    finished = true;
    print_counts(r);
    fine = verdict(fine, "L2 and L1 see the same in all worlds", names[row]);
    if (epochs < 10)
        return fine;
    fine &= verdict(enough(r, epochs), "every kind of operation was done", names[row]);
    fine &= verdict(shadows_worked(r), "shadows save exits", names[row]);
    return fine;
}

/* An IPI that one world loses is seen at once, in whichever world. */
static bool losses_are_noticed(struct run *r)
{
    bool fine = true;

    memset(r, 0, sizeof(*r));
    r->seed = options.seed;
    make(r);
    r->op = (struct neq_op){.kind = NEQ_PHYSICAL, .a = 0, .b = 1, .count = 1};
    for (uint32_t w = 1; w < r->count && fine; w++) {
        r->op.ipi[0] = (struct neq_ipi){0, APIC_DM_FIXED | APIC_ICR_ASSERT | (0x40 + 0x10 * w),
                                        r->how.l2_ids[1]};
        fine = !step(r, w);
        neq_apply(r->nx[w], &r->op);
    }
    end(r);
    return verdict(fine, "an IPI that is lost is noticed", "all worlds");
}

/* The fixture's own assertions end the program. */
static void at_exit(void)
{
    if (!finished)
        report(&run);
}

/* ---- Command line ---- */

enum { KEY_LONG = 1, KEY_EPOCHS };

static const struct argp_option argp_options[] = {
    {"seed", 's', "N", 0, "the stream", 0},
    {"row", 'r', "N", 0, "0: xAPIC mode, 1: x2APIC mode (default: both)", 0},
    {"epoch", 'e', "N", 0, "begin with this one, of 250 operations", 0},
    {"epochs", KEY_EPOCHS, "N", 0, "so many in each row", 0},
    {"long", KEY_LONG, NULL, 0, "1 million operations", 0},
    {"verbose", 'v', NULL, 0, "print every operation", 0},
    {0},
};

static uint64_t number(const char *text, struct argp_state *state)
{
    char *last = NULL;
    unsigned long long value = strtoull(text, &last, 0);

    if (*text == '\0' || *last != '\0')
        argp_error(state, "not a number: %s", text);
    return value;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    switch (key) {
    case 's':
        options.seed = number(text, state);
        return 0;
    case 'r':
        options.row = (int)(number(text, state) % ROWS);
        return 0;
    case 'e':
        options.first = number(text, state);
        return 0;
    case KEY_EPOCHS:
        options.epochs = number(text, state);
        return 0;
    case KEY_LONG:
        options.epochs = 1000000 / EPOCH / ROWS;
        return 0;
    case 'v':
        options.verbose = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {argp_options,
                                     parse,
                                     NULL,
                                     "Compares what guests of guests see, in worlds that differ in "
                                     "what accelerates them.",
                                     NULL,
                                     NULL,
                                     NULL};
    bool fine = true;

    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    atexit(at_exit);
    for (uint32_t row = 0; row < ROWS; row++)
        if (options.row < 0 || options.row == (int)row)
            fine &= run_row(&run, row, options.epochs);
    if (options.row < 0)
        fine &= losses_are_noticed(&run);
    printf("1..%u\n", tests);
    return fine ? 0 : 1;
}
