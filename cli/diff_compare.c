/* SPDX-License-Identifier: MIT */
/* Comparing logs operation by operation; see diff_compare.h. */
#include "diff_compare.h"

#include <stddef.h>
#include <string.h>

#include "vapic/arch/ioapic.h"

#define PIN_NONE UINT32_MAX

/* The records of one operation. */
struct group {
    const struct diff_record *record;
    uint32_t count;
};

static struct group group_at(const struct diff_log *log, uint32_t *at, uint32_t op)
{
    struct group g = {&log->record[*at], 0};

    while (*at < log->count && log->record[*at].op == op) {
        (*at)++;
        g.count++;
    }
    return g;
}

/* ---------------------------------------------------------------------------------------------- */
/* Rules                                                                                          */
/* ---------------------------------------------------------------------------------------------- */

/* The register that an operation is about; an MSR of x2APIC mode by its offset in the page. */
static uint64_t register_of(const struct diff_op *op)
{
    bool msr = op->code == DIFF_OP_RDMSR || op->code == DIFF_OP_WRMSR;

    return msr && op->b >= 0x800 && op->b <= 0x8ff ? (op->b - 0x800) << 4 : op->a;
}

static bool holds(const struct diff_condition *c, const struct diff_op *op)
{
    uint64_t field = c->field == 'a' ? register_of(op) : c->field == 'b' ? op->b : op->c;

    switch (c->test) {
    case '&':
        return (field & c->value) != 0;
    case '!':
        return (field & c->value) == 0;
    case '<':
        return field < c->value;
    case '>':
        return field > c->value;
    default:
        return field == c->value;
    }
}

/* The vector that an operation sends, or gives to a register. */
static uint8_t vector_of(const struct diff_op *op)
{
    bool in_b = op->code == DIFF_OP_IPI || op->code == DIFF_OP_RTE || op->code == DIFF_OP_IO_WR ||
                op->code == DIFF_OP_TIMER || op->code == DIFF_OP_DEADLINE;

    return (uint8_t)(in_b ? op->b : op->c);
}

/*
 * Is `vector` delivered on one side only, or does its bit of ISR, TMR or IRR differ? A narrow read
 * of the page may begin inside of the register.
 */
static bool is_about(const struct diff_difference *d, uint8_t vector)
{
    uint32_t what = d->kernel.kind != DIFF_NOTHING ? d->kernel.what : d->vapic.what;
    uint64_t differ = d->kernel.value ^ d->vapic.value;

    if (d->kernel.kind == DIFF_VECTOR && d->kernel.what == vector) {
        return true;
    }
    if (d->vapic.kind == DIFF_VECTOR && d->vapic.what == vector) {
        return true;
    }
    what = what >= 0x800 ? (what - 0x800) << 4 : what;
    differ <<= 8 * (what % 4);
    return d->kernel.kind == DIFF_VALUE && d->vapic.kind == DIFF_VALUE && what >= 0x100 &&
           what < 0x280 && (what - 0x100) / 16 % 8 == vector / 32u &&
           (differ >> vector % 32 & 1) != 0;
}

static bool fits(const struct diff_pattern *pattern, const struct diff_op *op)
{
    if ((pattern->ops >> op->code & 1) == 0) {
        return false;
    }
    for (unsigned i = 0; i < pattern->conditions; i++) {
        if (!holds(&pattern->condition[i], op)) {
            return false;
        }
    }
    return true;
}

/* The pin that an operation is about; PIN_NONE: it is about none. */
static uint32_t pin_of(const struct diff_op *op)
{
    switch (op->code) {
    case DIFF_OP_RTE:
    case DIFF_OP_LINE:
        return op->a;
    case DIFF_OP_IO_WR:
        return op->a >= IOAPIC_REG_RTE ? (op->a - IOAPIC_REG_RTE) / 2 : PIN_NONE;
    default:
        return PIN_NONE;
    }
}

/* Is there an operation, up to this difference, that gives the entry of `pin` its vector? */
static bool is_pin_about(uint32_t pin, const struct diff_program *p,
                         const struct diff_difference *d)
{
    for (uint32_t i = 0; pin != PIN_NONE && i <= d->op && i < p->count; i++) {
        const struct diff_op *op = &p->ops[i];

        if (op->code != DIFF_OP_LINE && pin_of(op) == pin && is_about(d, vector_of(op))) {
            return true;
        }
    }
    return false;
}

static bool was_done(const struct diff_pattern *pattern, const struct diff_program *p,
                     const struct diff_difference *d)
{
    uint8_t cpu = d->kernel.kind != DIFF_NOTHING ? d->kernel.cpu : d->vapic.cpu;

    for (uint32_t i = 0; i <= d->op && i < p->count; i++) {
        if (fits(pattern, &p->ops[i]) && (!pattern->cpu || p->ops[i].cpu == cpu) &&
            (!pattern->vector || is_about(d, vector_of(&p->ops[i]))) &&
            (!pattern->pin || is_pin_about(pin_of(&p->ops[i]), p, d))) {
            return true;
        }
    }
    return false;
}

static bool side_fits(const struct diff_side *side, const struct diff_record *r)
{
    return (side->kinds >> r->kind & 1) != 0 && (!side->has_value || side->value == r->value);
}

static bool what_fits(const struct diff_rule *rule, const struct diff_record *r)
{
    bool any = rule->ranges == 0 || r->kind == DIFF_NOTHING;

    for (unsigned i = 0; i < rule->ranges && !any; i++) {
        any = r->what >= rule->what[i].first && r->what <= rule->what[i].last;
    }
    return any;
}

/* Is `word` one of the words of `list`? An empty list has them all. */
static bool listed(const char *list, const char *word)
{
    size_t length = strlen(word);

    if (*list == '\0') {
        return true;
    }
    for (const char *at = list; *at != '\0'; at += strspn(at, " ")) {
        size_t n = strcspn(at, " ");
        bool prefix = n > 0 && at[n - 1] == '*';

        if (prefix ? strncmp(at, word, n - 1) == 0 : n == length && memcmp(at, word, n) == 0) {
            return true;
        }
        at += n;
    }
    return false;
}

static bool applies(const struct diff_rule *rule, const struct diff_program *p,
                    const struct diff_difference *d, const struct diff_place *place)
{
    uint64_t differ = d->kernel.value ^ d->vapic.value;

    if (!listed(rule->modes, place->mode) || !listed(rule->profile, place->profile) ||
        !listed(rule->hosts, place->host) || !fits(&rule->op, &p->ops[d->op]) ||
        !side_fits(&rule->kernel, &d->kernel) || !side_fits(&rule->vapic, &d->vapic) ||
        !what_fits(rule, &d->kernel) || !what_fits(rule, &d->vapic)) {
        return false;
    }
    if (rule->bits != UINT64_MAX &&
        (d->kernel.kind != d->vapic.kind || (differ & ~rule->bits) != 0)) {
        return false;
    }
    for (unsigned i = 0; i < rule->afters; i++) {
        if (!was_done(&rule->after[i], p, d)) {
            return false;
        }
    }
    return true;
}

/* One after which the comparison goes on is preferred: what follows shows whether it was enough. */
static struct diff_rule *explain(struct diff_rules *rules, const struct diff_program *p,
                                 const struct diff_difference *d, const struct diff_place *place)
{
    struct diff_rule *found = NULL;

    for (unsigned i = 0; i < rules->count && (found == NULL || found->stop); i++) {
        struct diff_rule *rule = &rules->rule[i];

        if ((found == NULL || !rule->stop) && applies(rule, p, d, place)) {
            found = rule;
        }
    }
    return found;
}

/* ---------------------------------------------------------------------------------------------- */
/* The comparison                                                                                 */
/* ---------------------------------------------------------------------------------------------- */

static bool same_place(const struct diff_record *a, const struct diff_record *b)
{
    return a->cpu == b->cpu && a->what == b->what;
}

static bool same(const struct diff_record *a, const struct diff_record *b)
{
    return same_place(a, b) && a->kind == b->kind && a->value == b->value;
}

/* True: the comparison goes on behind this difference. */
static bool weigh(const struct diff_difference *d, const struct diff_program *p,
                  struct diff_rules *rules, const struct diff_place *place,
                  struct diff_verdict *verdict)
{
    struct diff_rule *rule = explain(rules, p, d, place);

    if (rule == NULL) {
        verdict->unexplained = true;
        verdict->first = *d;
        return false;
    }
    rule->hits++;
    verdict->explained++;
    if (rule->stop) {
        verdict->cut = rule;
    }
    return !rule->stop;
}

/*
 * Values of the same registers are compared one by one. Where the records themselves are others,
 * only the first that is another counts: what follows in this operation follows from it.
 */
static bool compare_group(uint32_t op, struct group k, struct group v, const struct diff_program *p,
                          struct diff_rules *rules, const struct diff_place *place,
                          struct diff_verdict *verdict)
{
    static const struct diff_record nothing;
    uint32_t longer = k.count > v.count ? k.count : v.count;

    for (uint32_t i = 0; i < longer; i++) {
        const struct diff_difference d = {op, i < k.count ? k.record[i] : nothing,
                                          i < v.count ? v.record[i] : nothing};

        if (same(&d.kernel, &d.vapic)) {
            continue;
        }
        if (!weigh(&d, p, rules, place, verdict)) {
            return false;
        }
        if (k.count != v.count || !same_place(&d.kernel, &d.vapic)) {
            return true;
        }
    }
    return true;
}

void diff_compare(const struct diff_program *p, const struct diff_log *kernel,
                  const struct diff_log *vapic, struct diff_rules *rules,
                  const struct diff_place *place, struct diff_verdict *verdict)
{
    uint32_t k = 0, v = 0;

    *verdict = (struct diff_verdict){.compared = 0};
    for (uint32_t op = 0; op < p->count; op++) {
        struct group a = group_at(kernel, &k, op), b = group_at(vapic, &v, op);

        if (!compare_group(op, a, b, p, rules, place, verdict)) {
            return;
        }
        /* Behind this one side has nothing to compare with. */
        if ((kernel->end != DIFF_END_DONE && kernel->pc == op) ||
            (vapic->end != DIFF_END_DONE && vapic->pc == op)) {
            verdict->unexplained = true;
            verdict->first = (struct diff_difference){.op = op};
            return;
        }
        verdict->compared++;
    }
}
