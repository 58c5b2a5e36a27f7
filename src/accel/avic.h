/* SPDX-License-Identifier: MIT */
/*
 * AVIC, among its own files:
 *
 *   avic.c         what the core asks of a back end: VMCB, the running state, tables in memory
 *   avic_table.c   the physical and the logical APIC ID table
 *   avic_msr.c     which x2APIC MSRs do not exit
 *   avic_irte.c    devices behind an IOMMU: remapping entries, the GA log, the platform
 *   avic_exit.c    #VMEXIT 401h and 402h
 */
#ifndef VAPIC_ACCEL_AVIC_H
#define VAPIC_ACCEL_AVIC_H

#include "backend.h"

/*
 * vapic_accel_vcpu.entry is what the physical table should say of the vCPU, with the true IsRunning
 * bit, and these two in the bits that the table keeps reserved. They never get there.
 */
#define ENTRY_POSTS   (1ull << 52) /* accelerated: IRTEs are in guest mode */
#define ENTRY_SLEEPS  (1ull << 53) /* blocked: whoever posts must wake the vCPU */
#define ENTRY_PRIVATE (ENTRY_POSTS | ENTRY_SLEEPS)

static inline bool avic_feature(const struct vapic *v, enum vapic_accel_feature feature)
{
    return (v->vm->accel->features & (uint32_t)feature) != 0;
}

/* Does the processor serve this vCPU's x2APIC MSRs? Not in hybrid mode. */
static inline bool avic_in_x2avic(const struct vapic *v)
{
    return is_active(v) && in_x2apic(v) && avic_feature(v, VAPIC_ACCEL_X2AVIC);
}

/* ---- avic_table.c ---- */

/*
 * What is in force for this vCPU: stored for the processors to see, and ordered before everything
 * that the caller does next. Under the vCPU's spin lock.
 */
void vapic_avic_store_entry(struct vapic *v);

/* The logical table's entry of this vCPU, from its LDR, DFR and mode. Under the configuration lock,
 * owner. */
void vapic_avic_update_logical(struct vapic *v);
void vapic_avic_drop_logical(struct vapic *v);

/* MAX_INDEX for a vCPU whose registers the processor reaches by MSR (or by MMIO). */
uint32_t vapic_avic_max_index(const struct vapic_accel *accel, bool x2);

/* The guest's ID of the vCPU that a slot of the logical table names; -1: nobody. */
int vapic_avic_logical_id(const struct vapic_accel *accel, uint32_t slot);

/* ---- avic_msr.c ---- */

void vapic_avic_pass(const struct vapic *v, struct vapic_msr_pass *pass);

/* ---- avic_irte.c ---- */

/* Every IRTE of the vCPU follows `entry` and `host_id`. Under the vCPU's spin lock. */
void vapic_avic_update_irtes(struct vapic *v);

/* Around vapic_accel_vcpu.entry, .host_id and .irtes. */
static inline void avic_lock(struct vapic *v)
{
    v->vm->host.spin_lock(v->vm->ctx, &v->accel->lock);
}

static inline void avic_unlock(struct vapic *v)
{
    v->vm->host.spin_unlock(v->vm->ctx, &v->accel->lock);
}

#endif
