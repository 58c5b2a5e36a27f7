/* SPDX-License-Identifier: MIT */
/*
 * The named deviations: where real silicon shows a guest something else than a local APIC would.
 * Each row says in which modes it appears, what the manual says of it, and which differences it
 * explains. The equivalence test fails for a difference that no row explains, and the full run
 * fails for a row that explains nothing in one of its modes.
 */
#ifndef VAPIC_TESTS_DEVIATIONS_H
#define VAPIC_TESTS_DEVIATIONS_H

#include "equiv.h"

#define IN(mode)      (1u << AX_MODE_##mode)
#define IN_AVIC       (IN(AVIC) | IN(AVIC_NOIPIV) | IN(X2AVIC))
#define IN_APICV      (IN(APICV) | IN(APICV_IPIV))
#define IN_ALL        (IN_AVIC | IN_APICV)
#define IN_X2_SILICON (IN(X2AVIC) | IN_APICV)

/* ---- What the operation was ---- */

static inline bool dev_mmio(const struct equiv *e, bool write)
{
    return e->op.kind == EQ_MMIO && e->op.write == write && !e->before.x2apic[e->op.vcpu] &&
           e->before.enabled[e->op.vcpu];
}

static inline bool dev_whole(const struct equiv *e)
{
    return e->op.size == 4 && e->op.where % 16 == 0;
}

static inline uint32_t dev_slot(const struct equiv *e)
{
    if (e->op.kind == EQ_MSR)
        return (e->op.where - MSR_X2APIC_FIRST) << 4;
    return e->op.where & 0xFF0;
}

static inline bool dev_state(const struct eq_difference *d, uint32_t offset)
{
    return d->kind == EQ_STATE && d->offset == offset;
}

static inline bool dev_in(uint32_t offset, uint32_t first, uint32_t end)
{
    return offset >= first && offset < end;
}

static inline bool dev_software_enabled(const struct equiv *e, uint32_t n)
{
    return (ax_page(e->ref, n, APIC_SVR) & APIC_SVR_ENABLE) != 0;
}

static inline bool dev_vector_reg(uint32_t offset)
{
    return offset == APIC_PPR || offset == APIC_APR || dev_in(offset, APIC_ISR, APIC_TMR) ||
           dev_in(offset, APIC_IRR, APIC_ESR);
}

/* What is left of an interrupt: pending, in service, and the priority that follows. */
static inline bool dev_vectors(const struct equiv *e, const struct eq_difference *d)
{
    if (d->kind == EQ_VALUE)
        return (e->op.kind == EQ_MMIO || e->op.kind == EQ_MSR) && dev_vector_reg(dev_slot(e));
    if (d->kind == EQ_STATE || d->kind == EQ_IMAGE)
        return dev_vector_reg(d->offset);
    return d->kind == EQ_EVENT;
}

/* ---- AVIC: the page is memory ---- */

/* Offsets that AVIC's access table does not list. */
static inline bool dev_unlisted(uint32_t slot)
{
    return slot < APIC_ID || dev_in(slot, 0x040, APIC_TPR) || dev_in(slot, 0x290, APIC_ICR) ||
           dev_in(slot, 0x3A0, APIC_TDCR) || slot == 0x3F0 || dev_in(slot, 0x430, 0x480);
}

static bool dev_reserved_memory(const struct equiv *e, const struct eq_difference *d)
{
    if (d->kind == EQ_IMAGE)
        return dev_unlisted(d->offset);
    if (e->op.kind != EQ_MMIO || !e->before.active[e->op.vcpu] || !dev_unlisted(dev_slot(e)))
        return false;
    /* An error interrupt that does not come is the error's. */
    return (d->kind == EQ_VALUE && dev_mmio(e, false)) ||
           (d->vcpu == e->op.vcpu && (d->kind == EQ_LATCH || dev_vectors(e, d)));
}

/* An access that is not of one whole register: memory on AVIC, an illegal one by software. */
static bool dev_odd(const struct equiv *e, const struct eq_difference *d)
{
    if (d->kind == EQ_IMAGE) /* read-only, computed by software: what lies there shows in it */
        return d->offset == APIC_APR || d->offset == APIC_RRR;
    if (e->op.kind != EQ_MMIO || !e->before.active[e->op.vcpu] || dev_whole(e) ||
        e->before.x2apic[e->op.vcpu])
        return false;
    return d->kind == EQ_VALUE || (d->vcpu == e->op.vcpu && d->kind != EQ_RESULT);
}

/* Any effect on anybody: a narrow write of ICR sends. */
static bool dev_narrow(const struct equiv *e, const struct eq_difference *d)
{
    return e->op.kind == EQ_MMIO && e->op.size < 4 && e->before.active[e->op.vcpu] &&
           !e->before.x2apic[e->op.vcpu] && d->kind != EQ_RESULT && d->kind != EQ_IMAGE;
}

static bool dev_self_ipi(const struct equiv *e, const struct eq_difference *d)
{
    (void)e;
    return d->kind == EQ_IMAGE && d->offset == APIC_SELF_IPI;
}

static bool dev_eoi_reads(const struct equiv *e, const struct eq_difference *d)
{
    if (d->kind == EQ_IMAGE)
        return d->offset == APIC_EOI;
    return d->kind == EQ_VALUE && dev_mmio(e, false) && dev_slot(e) == APIC_EOI;
}

static bool dev_icr_high(const struct equiv *e, const struct eq_difference *d)
{
    return dev_state(d, APIC_ICR2) && dev_mmio(e, true) && dev_slot(e) == APIC_ICR2 &&
           ((d->ref ^ d->acc) & 0xFF000000) == 0;
}

static bool dev_busy(const struct equiv *e, const struct eq_difference *d)
{
    return dev_state(d, APIC_ICR) && !e->before.x2apic[d->vcpu] &&
           (d->ref ^ d->acc) == APIC_ICR_BUSY && d->acc & APIC_ICR_BUSY;
}

static bool dev_busy_gp(const struct equiv *e, const struct eq_difference *d)
{
    bool icr = (e->op.kind == EQ_IPI && e->before.x2apic[e->op.vcpu]) ||
               (e->op.kind == EQ_MSR && e->op.where == 0x830 && e->op.write);

    if (!icr || d->kind == EQ_IMAGE || !(e->op.value & APIC_ICR_BUSY))
        return false;
    return e->ref_outcome.result == AX_DONE && e->acc_outcome.result == AX_GP;
}

/* ---- Posting that does not look at the target ---- */

static bool dev_soft_disabled(const struct equiv *e, uint32_t n)
{
    return !e->before.software[n] || !dev_software_enabled(e, n);
}

static bool dev_delivered_soft_disabled(const struct equiv *e, const struct eq_difference *d)
{
    bool eoi = (e->op.kind == EQ_MMIO || e->op.kind == EQ_MSR) && dev_slot(e) == APIC_EOI;

    /* Another vector is in service, and it is that one's EOI, with all that follows from it. */
    if (eoi && e->op.write && dev_soft_disabled(e, e->op.vcpu) && d->kind != EQ_RESULT)
        return true;
    if (d->kind == EQ_EOI || d->kind == EQ_REDIRECTION || !dev_soft_disabled(e, d->vcpu))
        return false;
    /* Now, or what comes with the enabling has been delivered before. */
    if (d->kind == EQ_EVENT)
        return d->ref == EQ_NO_EVENT || d->acc == EQ_NO_EVENT;
    return dev_vectors(e, d) && !dev_in(d->offset, APIC_IRR, APIC_ESR);
}

static bool dev_posted_soft_disabled(const struct equiv *e, const struct eq_difference *d)
{
    return (d->kind == EQ_STATE || d->kind == EQ_IMAGE) && dev_in(d->offset, APIC_IRR, APIC_ESR) &&
           dev_soft_disabled(e, d->vcpu);
}

/* The APIC is enabled, and the descriptor has what a device posted before. */
static bool dev_posted_disabled(const struct equiv *e, const struct eq_difference *d)
{
    return e->op.kind == EQ_MSR && e->op.where == MSR_APIC_BASE && e->op.write &&
           d->vcpu == e->op.vcpu && !e->before.enabled[d->vcpu] && dev_vectors(e, d);
}

/* Hardware sets IRR and leaves TMR. (Every PIR may be taken over by hardware.) */
static bool dev_stale_tmr(const struct equiv *e, const struct eq_difference *d)
{
    bool by_hardware = !eq_is_amd(e) || e->op.kind == EQ_IPI || e->op.kind == EQ_IRTE ||
                       e->op.kind == EQ_MSR || e->op.kind == EQ_MMIO || e->op.kind == EQ_RESUME;

    return d->kind == EQ_STATE && dev_in(d->offset, APIC_TMR, APIC_IRR) && by_hardware &&
           (d->ref & ~d->acc) == 0;
}

static bool dev_modes_mixed(const struct equiv *e, uint32_t n)
{
    for (uint32_t i = 0; i < EQ_VCPUS; i++)
        if (e->before.x2apic[i] != e->before.x2apic[n])
            return true;
    return false;
}

/* x2AVIC goes by physical IDs alone: a target in the other mode has another logical ID, or none,
 * and is not meant by a broadcast in this mode's width. What came to a vCPU that is paused is seen
 * when it is resumed. */
static bool dev_mode_of_target(const struct equiv *e, const struct eq_difference *d)
{
    uint32_t n = e->op.vcpu;
    bool icr = e->op.kind == EQ_IPI ||
               ((e->op.kind == EQ_MSR || e->op.kind == EQ_MMIO) && dev_slot(e) == APIC_ICR);

    if (e->op.kind == EQ_RESUME)
        return d->vcpu == n && dev_modes_mixed(e, n) && dev_vectors(e, d);
    return icr && e->before.active[n] && e->before.x2apic[n] != e->before.x2apic[d->vcpu] &&
           dev_vectors(e, d);
}

/* ---- A page that is mapped for a vCPU that it does not serve ---- */

static bool dev_scratch(const struct equiv *e, const struct eq_difference *d)
{
    bool served = e->before.enabled[e->op.vcpu] && !e->before.x2apic[e->op.vcpu];

    return d->kind == EQ_VALUE && e->op.kind == EQ_MMIO && !e->op.write && !served &&
           e->before.page_mapped;
}

static const struct eq_deviation deviations[] = {
    {"reserved-offset-is-memory", IN_AVIC,
     "offsets that the access table does not list are ordinary memory [APM2 15.29.3]",
     dev_reserved_memory},
    {"odd-access-is-memory", IN_AVIC,
     "accesses other than of an aligned register are undefined; here: memory [APM2 15.29.3]",
     dev_odd},
    {"eoi-reads-as-written", IN_AVIC, "reads of EOI are allowed, as memory [APM2 15.29.3]",
     dev_eoi_reads},
    {"icr-high-stored-whole", IN_AVIC,
     "310h is memory: bits 23:0 are stored although reserved [APM2 15.29.3]", dev_icr_high},
    {"sticky-busy-bit", IN_AVIC,
     "the delivery status bit is stored as written, and nobody clears it; unspecified", dev_busy},
    {"busy-bit-is-gp", IN(X2AVIC),
     "bit 12 must be zero in a write of MSR 830h [APM2 16.11]; by software it is ignored",
     dev_busy_gp},
    {"delivered-while-soft-disabled", IN_ALL,
     "evaluation does not look at SVR [APM2 15.29.4] [SDM3 31.2]; by software pending interrupts "
     "are "
     "held [SDM3 12.4.7.2]",
     dev_delivered_soft_disabled},
    {"posted-while-soft-disabled", IN_ALL,
     "posting looks at the tables only; a software-disabled APIC accepts none [SDM3 12.4.7.2]",
     dev_posted_soft_disabled},
    {"posted-while-disabled", IN_APICV,
     "an IOMMU looks at the descriptor only, which keeps the vector until the APIC is enabled "
     "[SDM3 31.6]",
     dev_posted_disabled},
    {"narrow-access-works", IN_APICV,
     "accesses of one or two bytes are virtualized [SDM3 31.4.2]; by software they are undefined",
     dev_narrow},
    {"self-ipi-is-stored", IN_APICV,
     "a write of MSR 83Fh stores its value at 3F0h, which no guest can read [SDM3 31.5]",
     dev_self_ipi},
    {"stale-trigger-mode", IN_ALL,
     "posting by hardware leaves TMR: an edge after a level keeps the level's bit [APM2 15.29.4] "
     "[SDM3 31.6]",
     dev_stale_tmr},
    {"mode-of-target-ignored", IN(X2AVIC),
     "x2AVIC resolves destinations by physical ID; LDR and the target's mode have no part in it "
     "[APM2 15.29.5]",
     dev_mode_of_target},
    {"page-of-another-mode-is-memory", IN_X2_SILICON | IN(AVIC) | IN(AVIC_NOIPIV),
     "the access page is mapped for all vCPUs; one that it does not serve finds memory there",
     dev_scratch},
};

#endif
