/* SPDX-License-Identifier: MIT */
/* Counters of modelled acceleration as text and JSON; see accel_report.h. */
#include "accel_report.h"

#include <string.h>

#include "vapic/vapic.h"

#define TEXT_CHANGES 12u /* of the time line that the text shows */
#define WORD(member) (unsigned)(offsetof(struct vmm_accel_counts, member) / sizeof(uint64_t))

static const char *const exit_names[] = {
#define VMM_X(name, text, what) [VMM_ACCEL_EXIT_##name] = (text),
    VMM_ACCEL_EXITS(VMM_X)
#undef VMM_X
};

static const char *const end_names[] = {
#define VMM_X(name, text, what) [VMM_ACCEL_END_##name] = (text),
    VMM_ACCEL_ENDS(VMM_X)
#undef VMM_X
};

static const char *const direction[] = {"read", "write"};

static const char *const ipi_ids[VMM_ACCEL_IPI_IDS] = {
    "invalid_type",   "not_running",   "invalid_target", "invalid_backing",
    "invalid_vector", "unaccelerated", "unknown",
};

/* The counters that are neither a list nor a table. */
static const struct {
    const char *name;
    unsigned word;
} plain[] = {
    {"entries", WORD(entries)},
    {"eoi_exits", WORD(eoi_exits)},
    {"delivered", WORD(delivered)},
    {"doorbells", WORD(doorbells)},
    {"notifications", WORD(notifications)},
    {"posted", WORD(posted)},
    {"moves", WORD(moves)},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

uint64_t vmm_accel_word(const struct vmm_accel_counts *counts, unsigned word)
{
    return ((const uint64_t *)counts)[word];
}

uint64_t vmm_accel_accesses(const struct vmm_accel_counts *counts, enum vmm_accel_end end)
{
    uint64_t sum = 0;

    for (unsigned r = 0; r < VMM_ACCEL_REGS; r++) {
        for (unsigned w = 0; w < 2; w++) {
            for (unsigned e = 0; e < VMM_ACCEL_END_COUNT; e++) {
                sum += end == VMM_ACCEL_END_COUNT || end == e ? counts->reg[r][w][e] : 0;
            }
        }
    }
    return sum;
}

const char *vmm_accel_reg_name(unsigned row, char *text, size_t size)
{
    const struct vapic_reg *reg = vapic_reg_at(row << 4);

    if (row == VMM_ACCEL_REG_CR8) {
        return "CR8";
    }
    if (row >= VMM_ACCEL_REG_OTHER) {
        return "other";
    }
    if (reg == NULL) {
        snprintf(text, size, "%03Xh", row << 4);
    } else if (reg->count == 1) {
        return reg->name;
    } else {
        snprintf(text, size, "%s%u", reg->name, row - (reg->offset >> 4));
    }
    return text;
}

/* ---------------------------------------------------------------------------------------------- */
/* Rows                                                                                           */
/* ---------------------------------------------------------------------------------------------- */

static void add_row(struct vmm_accel_row *rows, unsigned *n, unsigned word, const char *first,
                    const char *second)
{
    snprintf(rows[*n].name, sizeof(rows[*n].name), "%s %s", first, second);
    rows[(*n)++].word = word;
}

static void add_register_rows(const struct vmm_accel_counts *sum, struct vmm_accel_row *rows,
                              unsigned *n)
{
    char name[16];
    char what[20];

    for (unsigned r = 0; r < VMM_ACCEL_REGS; r++) {
        for (unsigned w = 0; w < 2; w++) {
            for (unsigned e = 0; e < VMM_ACCEL_END_COUNT; e++) {
                if (sum->reg[r][w][e] != 0) {
                    snprintf(what, sizeof(what), "%c %s", "rw"[w], end_names[e]);
                    add_row(rows, n, WORD(reg[0][0][0]) + (r * 2 + w) * VMM_ACCEL_END_COUNT + e,
                            vmm_accel_reg_name(r, name, sizeof(name)), what);
                }
            }
        }
    }
}

unsigned vmm_accel_rows(const struct vmm_accel_counts *sum,
                        struct vmm_accel_row rows[VMM_ACCEL_ROWS_MAX])
{
    unsigned n = 0;

    for (unsigned e = 0; e < VMM_ACCEL_EXIT_COUNT; e++) {
        add_row(rows, &n, WORD(exits[0]) + e, "silicon", exit_names[e]);
    }
    for (size_t i = 0; i < COUNT(plain); i++) {
        add_row(rows, &n, plain[i].word, "silicon", plain[i].name);
    }
    for (unsigned i = 0; i < VMM_ACCEL_IPI_IDS; i++) {
        if (sum->incomplete[i] != 0) {
            add_row(rows, &n, WORD(incomplete[0]) + i, "ipi", ipi_ids[i]);
        }
    }
    add_register_rows(sum, rows, &n);
    return n;
}

/* ---------------------------------------------------------------------------------------------- */
/* Text                                                                                           */
/* ---------------------------------------------------------------------------------------------- */

static double percent(uint64_t part, uint64_t whole)
{
    return whole != 0 ? 100.0 * (double)part / (double)whole : 0;
}

static void timeline_text(const struct vmm_timeline *t, FILE *to)
{
    unsigned shown = t->count < TEXT_CHANGES ? t->count : TEXT_CHANGES;
    char text[256];

    fprintf(to, "  inhibited %.1f %% of %.2f s", 100 * vmm_timeline_share(t, VAPIC_INHIBIT_COUNT),
            (double)t->total_ns / 1e9);
    for (unsigned i = 0; i < VAPIC_INHIBIT_COUNT; i++) {
        if (t->reason_ns[i] != 0) {
            fprintf(to, ", %s %.1f %%", vapic_inhibit_name(i), 100 * vmm_timeline_share(t, i));
        }
    }
    fprintf(to, "\n  time line, ms:");
    for (unsigned i = 0; i < shown; i++) {
        fprintf(to, "%s %.1f %s", i != 0 ? ";" : "", (double)t->entry[i].ns / 1e6,
                vmm_inhibits_text(t->entry[i].mask, text, sizeof(text)));
    }
    if (t->changes + 1 > shown) {
        fprintf(to, "; ... %llu changes in all", (unsigned long long)t->changes);
    }
    fputc('\n', to);
}

/* A vCPU that does not get to its next entry in time makes one move of several. */
static unsigned long long moves_due(const struct vmm_accel_report *report)
{
    return report->pause_ns != 0 ? report->timeline->total_ns / report->pause_ns : 0;
}

void vmm_accel_report_text(const struct vmm_accel_report *report,
                           const struct vmm_accel_counts *sum, FILE *to)
{
    uint64_t all = vmm_accel_accesses(sum, VMM_ACCEL_END_COUNT);
    uint64_t done = vmm_accel_accesses(sum, VMM_ACCEL_END_ACCELERATED);
    char text[256];

    fprintf(to, "silicon %s: %.1f %% of %llu register accesses accelerated; inhibits 0x%x (%s)\n",
            report->mode, percent(done, all), (unsigned long long)all, report->inhibits,
            vmm_inhibits_text(report->inhibits, text, sizeof(text)));
    if (report->page_withdrawn) {
        fputs("  the APIC access page is withdrawn: a vCPU uses x2APIC mode\n", to);
    }
    for (unsigned i = 0; i < report->reboots; i++) {
        fprintf(to, "  after reboot %u: inhibits 0x%x (%s)\n", i + 1, report->boot_masks[i],
                vmm_inhibits_text(report->boot_masks[i], text, sizeof(text)));
    }
    fputs("  rows \"exit\" are KVM's, rows \"silicon\" the modelled processor's exits\n", to);
    timeline_text(report->timeline, to);
    for (unsigned i = 0; i < report->scripts; i++) {
        const struct vmm_inhibit_result *r = &report->script[i];

        fprintf(to, "  %s@%lluus: %llu changes were due, %llu happened\n",
                vapic_inhibit_name(r->script.reason),
                (unsigned long long)(r->script.period_ns / 1000), (unsigned long long)r->requested,
                (unsigned long long)r->happened);
    }
    if (report->pause_ns != 0) {
        fprintf(to, "  a vCPU told to move every %llu us: %llu moves were due, %llu happened\n",
                (unsigned long long)(report->pause_ns / 1000), moves_due(report),
                (unsigned long long)sum->moves);
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* JSON                                                                                           */
/* ---------------------------------------------------------------------------------------------- */

static void set_count(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

static json_t *list_json(const uint64_t *values, const char *const *names, unsigned count)
{
    json_t *object = json_object();

    for (unsigned i = 0; i < count; i++) {
        set_count(object, names[i], values[i]);
    }
    return object;
}

static uint64_t sum_of(const uint64_t *values, unsigned count)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < count; i++) {
        sum += values[i];
    }
    return sum;
}

/* {"TPR": {"write": {"accelerated": 1, ...}}, ...}: what never happened is left out. */
static json_t *registers_json(const struct vmm_accel_counts *c)
{
    json_t *object = json_object();
    char name[16];

    for (unsigned r = 0; r < VMM_ACCEL_REGS; r++) {
        json_t *reg = json_object();

        for (unsigned w = 0; w < 2; w++) {
            if (sum_of(c->reg[r][w], VMM_ACCEL_END_COUNT) != 0) {
                json_object_set_new(reg, direction[w],
                                    list_json(c->reg[r][w], end_names, VMM_ACCEL_END_COUNT));
            }
        }
        if (json_object_size(reg) != 0) {
            json_object_set(object, vmm_accel_reg_name(r, name, sizeof(name)), reg);
        }
        json_decref(reg);
    }
    return object;
}

json_t *vmm_accel_counts_json(const struct vmm_accel_counts *c)
{
    json_t *object = json_object();
    json_t *exits = list_json(c->exits, exit_names, VMM_ACCEL_EXIT_COUNT);

    set_count(exits, "total", sum_of(c->exits, VMM_ACCEL_EXIT_COUNT));
    json_object_set_new(object, "exits", exits);
    for (size_t i = 0; i < COUNT(plain); i++) {
        set_count(object, plain[i].name, vmm_accel_word(c, plain[i].word));
    }
    json_object_set_new(object, "incomplete_ipis",
                        list_json(c->incomplete, ipi_ids, VMM_ACCEL_IPI_IDS));
    for (unsigned e = 0; e < VMM_ACCEL_END_COUNT; e++) {
        set_count(object, end_names[e], vmm_accel_accesses(c, e));
    }
    json_object_set_new(object, "registers", registers_json(c));
    return object;
}

static json_t *timeline_json(const struct vmm_timeline *t)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < t->count; i++) {
        json_array_append_new(
            array, json_pack("[f, i]", (double)t->entry[i].ns / 1e9, (int)t->entry[i].mask));
    }
    return array;
}

static json_t *shares_json(const struct vmm_timeline *t)
{
    json_t *object = json_object();

    json_object_set_new(object, "any", json_real(vmm_timeline_share(t, VAPIC_INHIBIT_COUNT)));
    for (unsigned i = 0; i < VAPIC_INHIBIT_COUNT; i++) {
        if (t->reason_ns[i] != 0) {
            json_object_set_new(object, vapic_inhibit_name(i), json_real(vmm_timeline_share(t, i)));
        }
    }
    return object;
}

static json_t *scripts_json(const struct vmm_accel_report *report)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < report->scripts; i++) {
        const struct vmm_inhibit_result *r = &report->script[i];
        json_t *object = json_object();

        json_object_set_new(object, "reason", json_string(vapic_inhibit_name(r->script.reason)));
        set_count(object, "period_ns", r->script.period_ns);
        set_count(object, "requested", r->requested);
        set_count(object, "happened", r->happened);
        json_array_append_new(array, object);
    }
    return array;
}

json_t *vmm_accel_report_json(const struct vmm_accel_report *report)
{
    json_t *object = json_object();
    json_t *masks = json_array();

    for (unsigned i = 0; i < report->reboots; i++) {
        json_array_append_new(masks, json_integer(report->boot_masks[i]));
    }
    json_object_set_new(object, "mode", json_string(report->mode));
    set_count(object, "inhibits", report->inhibits);
    json_object_set_new(object, "page_withdrawn", json_boolean(report->page_withdrawn));
    json_object_set_new(object, "inhibits_after_reboot", masks);
    json_object_set_new(object, "inhibited", shares_json(report->timeline));
    set_count(object, "inhibit_changes", report->timeline->changes);
    json_object_set_new(object, "timeline", timeline_json(report->timeline));
    json_object_set_new(object, "scripts", scripts_json(report));
    set_count(object, "pause_vcpu_ns", report->pause_ns);
    set_count(object, "moves_due", moves_due(report));
    return object;
}
