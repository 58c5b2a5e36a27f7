/* SPDX-License-Identifier: MIT */
/*
 * AMD's half of the model, among its own files:
 *
 *   avic_run.c     VMRUN, #VMEXIT
 *   avic_deliver.c instruction boundaries, evaluation and delivery
 *   avic_access.c  the guest's instructions: memory accesses, MSRs, CR8, HLT
 *   avic_regs.c    the register table
 *   avic_ipi.c     ICR: resolving, posting, doorbells
 *
 * Who calls what: avic_access.c drives the others; nobody calls back into it.
 */
#ifndef VAPIC_SILICON_AVIC_H
#define VAPIC_SILICON_AVIC_H

#include "internal.h"

/* ---- State that VMRUN loaded ---- */

static inline bool vapic_sil_avic_on(const struct vapic_sil_cpu *cpu)
{
    return (cpu->svm.int_ctl & VMCB_V_AVIC) != 0;
}

static inline bool vapic_sil_avic_x2(const struct vapic_sil_cpu *cpu)
{
    return (cpu->svm.int_ctl & VMCB_V_X2AVIC) != 0;
}

static inline const struct vapic_sil_knobs *vapic_sil_knobs(const struct vapic_sil_cpu *cpu)
{
    return &cpu->machine->config.knobs;
}

/* ---- The backing page of the guest that runs ---- */

static inline uint32_t vapic_sil_avic_load(const struct vapic_sil_cpu *cpu, uint32_t offset)
{
    return (uint32_t)vapic_sil_read(cpu->machine, cpu->svm.backing + offset, 4);
}

static inline void vapic_sil_avic_store(const struct vapic_sil_cpu *cpu, uint32_t offset,
                                        uint32_t value)
{
    vapic_sil_write(cpu->machine, cpu->svm.backing + offset, 4, value);
}

/* ---- avic_run.c ---- */

/* #VMEXIT. RIP is saved as it is. Always VAPIC_SIL_EXIT. */
enum vapic_sil_result vapic_sil_avic_exit(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1,
                                          uint64_t info2);
/* The exit of an intercepted instruction of this length, which has not been executed. */
enum vapic_sil_result vapic_sil_avic_intercept(struct vapic_sil_cpu *cpu, uint64_t code,
                                               uint64_t info1, uint32_t length);
/* An instruction is complete: RIP moves on, its interrupt shadow ends. */
void vapic_sil_avic_complete(struct vapic_sil_cpu *cpu, uint32_t length);
void vapic_sil_avic_leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2);

/* ---- avic_deliver.c ---- */

/* An evaluation point: looks at IRR and remembers whether an interrupt is due. [APM2 15.29.5] */
void vapic_sil_avic_evaluate(struct vapic_sil_cpu *cpu);
/* The vector that the priorities let through, -1 for none. */
int vapic_sil_avic_due(const struct vapic_sil_cpu *cpu);
/* The highest vector in a bitmap of the backing page, -1 for none. */
int vapic_sil_avic_highest(const struct vapic_sil_cpu *cpu, uint32_t base);
void vapic_sil_avic_update_ppr(const struct vapic_sil_cpu *cpu);

enum vapic_sil_result vapic_sil_avic_boundary(struct vapic_sil_cpu *cpu, uint8_t *vector);
bool vapic_sil_avic_waiting(const struct vapic_sil_cpu *cpu);

/* ---- avic_regs.c ---- */

enum vapic_sil_avic_action {
    AVIC_DO_ALLOW, /* plain read or write of the backing page */
    AVIC_DO_TPR,   /* accelerated writes */
    AVIC_DO_EOI,
    AVIC_DO_ICR,
    AVIC_DO_ICR_HIGH,
    AVIC_DO_SELF_IPI,
    AVIC_DO_TRAP,
    AVIC_DO_FAULT,
    AVIC_DO_GP
};

/* What an aligned 32-bit MMIO access to the page's `offset` does. */
enum vapic_sil_avic_action vapic_sil_avic_mmio(const struct vapic_sil_cpu *cpu, uint32_t offset,
                                               bool write);
/* What RDMSR or WRMSR of the x2APIC register at `offset` does; `value` is what is written. */
enum vapic_sil_avic_action vapic_sil_avic_msr(const struct vapic_sil_cpu *cpu, uint32_t offset,
                                              bool write, uint64_t value);

/* ---- avic_ipi.c ---- */

/* Sends what an ICR write asked for; the instruction is complete. VAPIC_SIL_DONE or _EXIT. */
enum vapic_sil_result vapic_sil_avic_send(struct vapic_sil_cpu *cpu, uint32_t low, uint32_t high);
/* Sets an IRR bit in the backing page at `hpa`; false when there is no such page. */
bool vapic_sil_avic_post(const struct vapic_sil *m, uint64_t hpa, uint8_t vector);
/* Rings the doorbell of the processor with this host APIC ID. */
void vapic_sil_avic_ring(const struct vapic_sil *m, uint64_t apic_id);

#endif
