/* SPDX-License-Identifier: MIT */
/*
 * The statistics table; see stats.h. One list of columns, each a name and a function of a vCPU's
 * counters, serves the text and the JSON form, so the two cannot differ.
 */
#include "stats.h"

#include <jansson.h>
#include <string.h>

#include "accel_report.h"

static const char *const exit_names[] = {
#define VMM_X(name, text, what) [VMM_EXIT_##name] = (text),
    VMM_EXITS(VMM_X)
#undef VMM_X
};

/* The counters besides the exits. Columns: name, expression on `s`. */
#define COUNTERS(X)                                                                                \
    X(runs, s->runs)                                                                               \
    X(finishes, s->finishes)                                                                       \
    X(sleeps, s->blocks)                                                                           \
    X(timer_arms, s->timer_arms)                                                                   \
    X(kicks_sent, s->kicks)                                                                        \
    X(wakeups_sent, s->wakes)                                                                      \
    X(kicks_avoided, s->apic.posts_unnotified)                                                     \
    X(ipis_sent, s->apic.ipis_sent)                                                                \
    X(ipi_targets, s->apic.ipi_targets)                                                            \
    X(ipis_received, s->apic.ipis_received)                                                        \
    X(msis_received, s->apic.msis_received)                                                        \
    X(timer_interrupts, s->apic.timer_ticks)                                                       \
    X(lvt_interrupts, s->apic.lvt_events)                                                          \
    X(eois, s->apic.eois)                                                                          \
    X(eois_broadcast, s->apic.eois_broadcast)                                                      \
    X(pv_eois, s->pv.eois)                                                                         \
    X(injected_vectors, s->apic.injected)                                                          \
    X(injected_extints, s->apic.extints)                                                           \
    X(injected_nmis, s->apic.nmis)

#define X(name, expression)                                                                        \
    static uint64_t get_##name(const struct vmm_vcpu_stats *s)                                     \
    {                                                                                              \
        return expression;                                                                         \
    }
COUNTERS(X)
#undef X

static const struct counter {
    const char *name;
    uint64_t (*get)(const struct vmm_vcpu_stats *s);
} counters[] = {
#define X(name, expression) {#name, get_##name},
    COUNTERS(X)
#undef X
};

#define COUNTER_COUNT  (sizeof(counters) / sizeof(counters[0]))
#define ROWS_PER_BLOCK 8u

void vmm_stats_add(struct vmm_vcpu_stats *to, const struct vmm_vcpu_stats *from)
{
    uint64_t *t = (uint64_t *)to;
    const uint64_t *f = (const uint64_t *)from;

    _Static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "counters are all 64 bits wide");
    for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++) {
        t[i] += f[i];
    }
}

static struct vmm_vcpu_stats total(const struct vmm_stats *stats)
{
    struct vmm_vcpu_stats sum;

    memset(&sum, 0, sizeof(sum));
    for (unsigned i = 0; i < stats->cpus; i++) {
        vmm_stats_add(&sum, &stats->cpu[i]);
    }
    return sum;
}

static uint64_t exit_total(const struct vmm_vcpu_stats *s)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < VMM_EXIT_COUNT; i++) {
        sum += s->exits[i];
    }
    return sum;
}

/* ---------------------------------------------------------------------------------------------- */
/* Text                                                                                           */
/* ---------------------------------------------------------------------------------------------- */

/* The column after the last vCPU is the total. */
static const struct vmm_vcpu_stats *column(const struct vmm_stats *stats,
                                           const struct vmm_vcpu_stats *sum, unsigned i)
{
    return i < stats->cpus ? &stats->cpu[i] : sum;
}

static void text_heading(const struct vmm_stats *stats, unsigned first, unsigned last, FILE *to)
{
    fprintf(to, "%-24s", "");
    for (unsigned i = first; i < last; i++) {
        if (i < stats->cpus) {
            fprintf(to, "%8s%-4u", "vCPU ", i);
        } else {
            fprintf(to, "%12s", "total");
        }
    }
    fputc('\n', to);
}

static void text_block(const struct vmm_stats *stats, const struct vmm_vcpu_stats *sum,
                       unsigned first, unsigned last, FILE *to)
{
    text_heading(stats, first, last, to);
    for (unsigned e = 0; e < VMM_EXIT_COUNT; e++) {
        fprintf(to, "exit %-19s", exit_names[e]);
        for (unsigned i = first; i < last; i++) {
            fprintf(to, "%12llu", (unsigned long long)column(stats, sum, i)->exits[e]);
        }
        fputc('\n', to);
    }
    for (size_t c = 0; c < COUNTER_COUNT; c++) {
        fprintf(to, "%-24s", counters[c].name);
        for (unsigned i = first; i < last; i++) {
            fprintf(to, "%12llu", (unsigned long long)counters[c].get(column(stats, sum, i)));
        }
        fputc('\n', to);
    }
}

/* What modelled silicon counted. */
static void accel_block(const struct vmm_stats *stats, const struct vmm_vcpu_stats *sum,
                        unsigned first, unsigned last, FILE *to)
{
    struct vmm_accel_row rows[VMM_ACCEL_ROWS_MAX];
    unsigned count = vmm_accel_rows(&sum->accel, rows);

    for (unsigned r = 0; r < count; r++) {
        fprintf(to, "%-24s", rows[r].name);
        for (unsigned i = first; i < last; i++) {
            fprintf(
                to, "%12llu",
                (unsigned long long)vmm_accel_word(&column(stats, sum, i)->accel, rows[r].word));
        }
        fputc('\n', to);
    }
}

/* With many vCPUs their columns come in blocks; the total ends the last one. */
void vmm_stats_text(const struct vmm_stats *stats, FILE *to)
{
    struct vmm_vcpu_stats sum = total(stats);

    fprintf(to,
            "vapic: %u vCPUs, engine %s, %.2f s, %llu boot%s, %llu exits, "
            "%llu I/O APIC interrupts\n",
            stats->cpus, stats->engine, stats->seconds, (unsigned long long)stats->boots,
            stats->boots == 1 ? "" : "s", (unsigned long long)exit_total(&sum),
            (unsigned long long)stats->ioapic_interrupts);
    if (stats->switches != 0) {
        fprintf(to, "vapic: %llu switches between irqchips, the longest took %.1f ms\n",
                (unsigned long long)stats->switches, (double)stats->switch_ns_max / 1e6);
    }
    for (unsigned first = 0; first <= stats->cpus; first += ROWS_PER_BLOCK) {
        unsigned last = first + ROWS_PER_BLOCK;

        last = last <= stats->cpus ? last : stats->cpus + 1;
        text_block(stats, &sum, first, last, to);
        if (stats->accel != NULL) {
            accel_block(stats, &sum, first, last, to);
        }
    }
    if (stats->accel != NULL) {
        vmm_accel_report_text(stats->accel, &sum.accel, to);
    }
    fflush(to);
}

/* ---------------------------------------------------------------------------------------------- */
/* JSON                                                                                           */
/* ---------------------------------------------------------------------------------------------- */

static json_t *json_vcpu(const struct vmm_stats *stats, const struct vmm_vcpu_stats *s)
{
    json_t *object = json_object();
    json_t *exits = json_object();

    for (unsigned i = 0; i < VMM_EXIT_COUNT; i++) {
        json_object_set_new(exits, exit_names[i], json_integer((json_int_t)s->exits[i]));
    }
    json_object_set_new(exits, "total", json_integer((json_int_t)exit_total(s)));
    json_object_set_new(object, "exits", exits);
    for (size_t c = 0; c < COUNTER_COUNT; c++) {
        json_object_set_new(object, counters[c].name, json_integer((json_int_t)counters[c].get(s)));
    }
    if (stats->accel != NULL) {
        json_object_set_new(object, "silicon", vmm_accel_counts_json(&s->accel));
    }
    return object;
}

/* Vectors that were injected at least once, by number. */
static json_t *json_vectors(const uint64_t counts[256])
{
    json_t *object = json_object();
    char name[8];

    for (unsigned i = 0; i < 256; i++) {
        if (counts[i] != 0) {
            snprintf(name, sizeof(name), "%u", i);
            json_object_set_new(object, name, json_integer((json_int_t)counts[i]));
        }
    }
    return object;
}

int vmm_stats_json(const struct vmm_stats *stats, FILE *to)
{
    struct vmm_vcpu_stats sum = total(stats);
    json_t *root = json_object();
    json_t *cpus = json_array();
    int rc;

    for (unsigned i = 0; i < stats->cpus; i++) {
        json_t *cpu = json_vcpu(stats, &stats->cpu[i]);

        if (stats->vectors != NULL) {
            json_object_set_new(cpu, "vectors", json_vectors(stats->vectors[i]));
        }
        json_array_append_new(cpus, cpu);
    }
    json_object_set_new(root, "engine", json_string(stats->engine));
    json_object_set_new(root, "vcpus", json_integer((json_int_t)stats->cpus));
    json_object_set_new(root, "seconds", json_real(stats->seconds));
    json_object_set_new(root, "boots", json_integer((json_int_t)stats->boots));
    json_object_set_new(root, "switches", json_integer((json_int_t)stats->switches));
    json_object_set_new(root, "switch_seconds_max", json_real((double)stats->switch_ns_max / 1e9));
    json_object_set_new(root, "ioapic_interrupts",
                        json_integer((json_int_t)stats->ioapic_interrupts));
    json_object_set_new(root, "total", json_vcpu(stats, &sum));
    if (stats->accel != NULL) {
        json_object_set_new(root, "accel", vmm_accel_report_json(stats->accel));
    }
    json_object_set_new(root, "cpus", cpus);
    rc = json_dumpf(root, to, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    json_decref(root);
    fputc('\n', to);
    return rc == 0 && fflush(to) == 0 ? 0 : -1;
}
