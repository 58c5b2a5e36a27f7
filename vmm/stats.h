/* SPDX-License-Identifier: MIT */
/*
 * The statistics of a run: what one vCPU counted, summed over the machine's restarts, and the
 * table or JSON text made of it. The engine counts exits and kicks, libvapic the rest.
 */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "accel_counts.h"
#include "vapic/pv.h"
#include "vapic/vapic.h"

/* Columns: enumerator, name in the table and in JSON, what it counts. */
#define VMM_EXITS(X)                                                                               \
    X(IO, "io", "port accesses")                                                                   \
    X(MMIO_APIC, "mmio_apic", "accesses to the local APIC's page")                                 \
    X(MMIO_IOAPIC, "mmio_ioapic", "accesses to the I/O APIC")                                      \
    X(MMIO_OTHER, "mmio_other", "accesses where nothing is")                                       \
    X(MSR_X2APIC, "msr_x2apic", "accesses to x2APIC registers")                                    \
    X(MSR_TSC_DEADLINE, "msr_tsc_deadline", "accesses to IA32_TSC_DEADLINE")                       \
    X(MSR_APIC_BASE, "msr_apic_base", "accesses to IA32_APIC_BASE")                                \
    X(MSR_OTHER, "msr_other", "accesses to MSRs that KVM does not know")                           \
    X(HLT, "hlt", "HLT instructions")                                                              \
    X(IRQ_WINDOW, "irq_window", "interrupt windows that were waited for")                          \
    X(TPR, "tpr", "CR8 writes that lowered it")                                                    \
    X(KICK, "kick", "exits because of a signal")                                                   \
    X(OTHER, "other", "everything else")

enum vmm_exit {
#define VMM_X(name, text, what) VMM_EXIT_##name,
    VMM_EXITS(VMM_X)
#undef VMM_X
        VMM_EXIT_COUNT
};

struct vmm_vcpu_stats {
    uint64_t exits[VMM_EXIT_COUNT];
    uint64_t runs;       /* KVM_RUN calls that could enter the guest */
    uint64_t finishes;   /* KVM_RUN calls that only finished an instruction */
    uint64_t blocks;     /* sleeps */
    uint64_t timer_arms; /* host timers set */
    uint64_t kicks;      /* signals sent to it (any thread, atomic) */
    uint64_t wakes;      /* wake-ups from sleep (any thread, atomic) */
    struct vapic_stats apic;
    struct vapic_pv_stats pv;
    struct vmm_accel_counts accel;
};

struct vmm_accel_report;

struct vmm_stats {
    const struct vmm_vcpu_stats *cpu; /* by vCPU */
    unsigned cpus;
    const uint64_t (*vectors)[256]; /* injected vectors by vCPU; NULL: not counted */
    uint64_t ioapic_interrupts;     /* accepted from the I/O APIC, per target */
    uint64_t boots;
    uint64_t switches;      /* between libvapic's controllers and KVM's */
    uint64_t switch_ns_max; /* the longest */
    double seconds;
    const char *engine;
    const struct vmm_accel_report *accel; /* NULL: none was modelled */
};

/* Adds `from` to `to`, field by field. */
void vmm_stats_add(struct vmm_vcpu_stats *to, const struct vmm_vcpu_stats *from);

void vmm_stats_text(const struct vmm_stats *stats, FILE *to);

/* Returns -1 when the text cannot be written. */
int vmm_stats_json(const struct vmm_stats *stats, FILE *to);

#endif
