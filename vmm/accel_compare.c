/* SPDX-License-Identifier: MIT */
/*
 * Runs of one guest on different silicon, side by side; see accel_report.h. The run without
 * acceleration has no model: its exits are KVM's own, under the names of the model's.
 */
#include <stdlib.h>
#include <string.h>

#include "accel_report.h"
#include "stats.h"

static bool is_plain(const struct vmm_compare_run *run)
{
    return !run->modelled;
}

static uint64_t kvm_exits(const struct vmm_vcpu_stats *s, enum vmm_accel_exit kind)
{
    const uint64_t *e = s->exits;

    switch (kind) {
    case VMM_ACCEL_EXIT_INTERRUPT:
        return e[VMM_EXIT_KICK];
    case VMM_ACCEL_EXIT_WINDOW:
        return e[VMM_EXIT_IRQ_WINDOW];
    case VMM_ACCEL_EXIT_HLT:
        return e[VMM_EXIT_HLT];
    case VMM_ACCEL_EXIT_IO:
        return e[VMM_EXIT_IO];
    case VMM_ACCEL_EXIT_MSR:
        return e[VMM_EXIT_MSR_X2APIC] + e[VMM_EXIT_MSR_TSC_DEADLINE] + e[VMM_EXIT_MSR_APIC_BASE] +
               e[VMM_EXIT_MSR_OTHER];
    case VMM_ACCEL_EXIT_PAGE:
        return e[VMM_EXIT_MMIO_APIC] + e[VMM_EXIT_MMIO_IOAPIC] + e[VMM_EXIT_MMIO_OTHER];
    case VMM_ACCEL_EXIT_CR8:
        return e[VMM_EXIT_TPR];
    case VMM_ACCEL_EXIT_OTHER:
        return e[VMM_EXIT_OTHER];
    default:
        return 0;
    }
}

static uint64_t exits(const struct vmm_compare_run *run, unsigned kind)
{
    return is_plain(run) ? kvm_exits(run->sum, kind) : run->sum->accel.exits[kind];
}

static uint64_t exits_in_all(const struct vmm_compare_run *run)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < VMM_ACCEL_EXIT_COUNT; i++) {
        sum += exits(run, i);
    }
    return sum;
}

static uint64_t ends(const struct vmm_compare_run *run, enum vmm_accel_end end)
{
    const uint64_t *e = run->sum->exits;

    if (!is_plain(run)) {
        return vmm_accel_accesses(&run->sum->accel, end);
    }
    return end == VMM_ACCEL_END_EMULATED || end == VMM_ACCEL_END_COUNT
               ? e[VMM_EXIT_MMIO_APIC] + e[VMM_EXIT_MSR_X2APIC]
               : 0;
}

static double share(const struct vmm_compare_run *run)
{
    uint64_t all = ends(run, VMM_ACCEL_END_COUNT);

    return all != 0 ? (double)ends(run, VMM_ACCEL_END_ACCELERATED) / (double)all : 0;
}

/* ---------------------------------------------------------------------------------------------- */
/* The rows. Columns: name, value of run `r`                                                      */
/* ---------------------------------------------------------------------------------------------- */

#define INCOMPLETE(id) r->sum->accel.incomplete[id]

#define NUMBERS(X)                                                                                 \
    X(exits, exits_in_all(r))                                                                      \
    X(exit_interrupt, exits(r, VMM_ACCEL_EXIT_INTERRUPT))                                          \
    X(exit_window, exits(r, VMM_ACCEL_EXIT_WINDOW))                                                \
    X(exit_hlt, exits(r, VMM_ACCEL_EXIT_HLT))                                                      \
    X(exit_io, exits(r, VMM_ACCEL_EXIT_IO))                                                        \
    X(exit_msr, exits(r, VMM_ACCEL_EXIT_MSR))                                                      \
    X(exit_page, exits(r, VMM_ACCEL_EXIT_PAGE))                                                    \
    X(exit_cr8, exits(r, VMM_ACCEL_EXIT_CR8))                                                      \
    X(exit_incomplete_ipi, exits(r, VMM_ACCEL_EXIT_INCOMPLETE_IPI))                                \
    X(exit_unaccelerated, exits(r, VMM_ACCEL_EXIT_UNACCELERATED))                                  \
    X(exit_apic_access, exits(r, VMM_ACCEL_EXIT_APIC_ACCESS))                                      \
    X(exit_apic_write, exits(r, VMM_ACCEL_EXIT_APIC_WRITE))                                        \
    X(exit_eoi, exits(r, VMM_ACCEL_EXIT_EOI))                                                      \
    X(exit_other, exits(r, VMM_ACCEL_EXIT_OTHER))                                                  \
    X(ipi_invalid_type, INCOMPLETE(AVIC_IPI_INVALID_TYPE))                                         \
    X(ipi_not_running, INCOMPLETE(AVIC_IPI_NOT_RUNNING))                                           \
    X(ipi_invalid_target, INCOMPLETE(AVIC_IPI_INVALID_TARGET))                                     \
    X(accelerated, ends(r, VMM_ACCEL_END_ACCELERATED))                                             \
    X(trap, ends(r, VMM_ACCEL_END_TRAP))                                                           \
    X(fault, ends(r, VMM_ACCEL_END_FAULT))                                                         \
    X(emulated, ends(r, VMM_ACCEL_END_EMULATED))                                                   \
    X(gp, ends(r, VMM_ACCEL_END_GP))                                                               \
    X(eoi_exits, r->sum->accel.eoi_exits)                                                          \
    X(delivered, r->sum->accel.delivered)                                                          \
    X(injected, r->sum->apic.injected)                                                             \
    X(pv_eois, r->sum->pv.eois)                                                                    \
    X(doorbells, r->sum->accel.doorbells)                                                          \
    X(notifications, r->sum->accel.notifications)                                                  \
    X(posted, r->sum->accel.posted)                                                                \
    X(kicks, r->sum->kicks)                                                                        \
    X(wakeups, r->sum->wakes)                                                                      \
    X(moves, r->sum->accel.moves)

#define X(name, expression)                                                                        \
    static uint64_t get_##name(const struct vmm_compare_run *r)                                    \
    {                                                                                              \
        return expression;                                                                         \
    }
NUMBERS(X)
#undef X

static const struct {
    const char *name;
    uint64_t (*get)(const struct vmm_compare_run *r);
} numbers[] = {
#define X(name, expression) {#name, get_##name},
    NUMBERS(X)
#undef X
};

#define NUMBER_COUNT (sizeof(numbers) / sizeof(numbers[0]))

bool vmm_compare_add(struct vmm_compare *compare, const char *mode, int status,
                     const struct vmm_stats *stats)
{
    static const struct vmm_stats nothing = {.cpus = 0};
    struct vmm_vcpu_stats *sum = calloc(1, sizeof(*sum));

    stats = stats != NULL ? stats : &nothing;
    if (sum == NULL || compare->count == VMM_COMPARE_MAX) {
        free(sum);
        return false;
    }
    for (unsigned i = 0; i < stats->cpus; i++) {
        vmm_stats_add(sum, &stats->cpu[i]);
    }
    compare->run[compare->count++] = (struct vmm_compare_run){
        .mode = mode,
        .modelled = stats->accel != NULL,
        .sum = sum,
        .seconds = stats->seconds,
        .boots = stats->boots,
        .inhibited = stats->accel != NULL
                         ? vmm_timeline_share(stats->accel->timeline, VAPIC_INHIBIT_COUNT)
                         : 0,
        .status = status,
    };
    return true;
}

void vmm_compare_free(struct vmm_compare *compare)
{
    for (unsigned i = 0; i < compare->count; i++) {
        free(compare->run[i].sum);
    }
    compare->count = 0;
}

static void real_row(const struct vmm_compare *compare, const char *name, FILE *to,
                     double (*get)(const struct vmm_compare_run *r))
{
    fprintf(to, "%-20s", name);
    for (unsigned i = 0; i < compare->count; i++) {
        fprintf(to, "%13.2f", get(&compare->run[i]));
    }
    fputc('\n', to);
}

static void status_row(const struct vmm_compare *compare, FILE *to)
{
    fprintf(to, "%-20s", "status");
    for (unsigned i = 0; i < compare->count; i++) {
        fprintf(to, "%13d", compare->run[i].status);
    }
    fputc('\n', to);
}

static double get_seconds(const struct vmm_compare_run *r)
{
    return r->seconds;
}

static double get_share(const struct vmm_compare_run *r)
{
    return 100 * share(r);
}

static double get_inhibited(const struct vmm_compare_run *r)
{
    return 100 * r->inhibited;
}

static bool any(const struct vmm_compare *compare, size_t row)
{
    for (unsigned i = 0; i < compare->count; i++) {
        if (numbers[row].get(&compare->run[i]) != 0) {
            return true;
        }
    }
    return false;
}

void vmm_compare_text(const struct vmm_compare *compare, FILE *to)
{
    fprintf(to, "%-20s", "vapic: accel");
    for (unsigned i = 0; i < compare->count; i++) {
        fprintf(to, "%13s", compare->run[i].mode);
    }
    fputc('\n', to);
    status_row(compare, to);
    real_row(compare, "seconds", to, get_seconds);
    real_row(compare, "accelerated %", to, get_share);
    real_row(compare, "inhibited %", to, get_inhibited);
    for (size_t row = 0; row < NUMBER_COUNT; row++) {
        if (!any(compare, row)) {
            continue;
        }
        fprintf(to, "%-20s", numbers[row].name);
        for (unsigned i = 0; i < compare->count; i++) {
            fprintf(to, "%13llu", (unsigned long long)numbers[row].get(&compare->run[i]));
        }
        fputc('\n', to);
    }
    fflush(to);
}

static json_t *run_json(const struct vmm_compare_run *r)
{
    json_t *object = json_object();

    json_object_set_new(object, "accel", json_string(r->mode));
    json_object_set_new(object, "status", json_integer(r->status));
    json_object_set_new(object, "seconds", json_real(r->seconds));
    json_object_set_new(object, "boots", json_integer((json_int_t)r->boots));
    json_object_set_new(object, "share_accelerated", json_real(share(r)));
    json_object_set_new(object, "share_inhibited", json_real(r->inhibited));
    for (size_t row = 0; row < NUMBER_COUNT; row++) {
        json_object_set_new(object, numbers[row].name,
                            json_integer((json_int_t)numbers[row].get(r)));
    }
    return object;
}

int vmm_compare_json(const struct vmm_compare *compare, FILE *to)
{
    json_t *root = json_object();
    json_t *runs = json_array();
    int rc;

    for (unsigned i = 0; i < compare->count; i++) {
        json_array_append_new(runs, run_json(&compare->run[i]));
    }
    json_object_set_new(root, "runs", runs);
    rc = json_dumpf(root, to, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    json_decref(root);
    fputc('\n', to);
    return rc == 0 && fflush(to) == 0 ? 0 : -1;
}
