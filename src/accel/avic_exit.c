/* SPDX-License-Identifier: MIT */
/*
 * #VMEXIT 401h (incomplete IPI) and 402h (access that is not accelerated) [APM2 15.29.9]. No exit
 * says whether it is a trap (the page holds the written value, RIP is past the instruction) or a
 * fault (nothing has happened): that follows from the register and the direction alone.
 *
 * Both are of the vCPU whose exit it is, on its thread, after vapic_exit().
 */
#include "../fabric.h"
#include "avic.h"

/* ---- 401h: the IPI, as EXITINFO1 tells it. EXITINFO2's index is never relied on ---- */

struct ipi {
    uint32_t low, high, dest, index;
    bool x2;
};

static bool is_broadcast(const struct ipi *ipi)
{
    if (ipi->low & APIC_ICR_SHORTHAND)
        return true;
    /* Also as logical destination, whoever's LDR matches [APM2 15.29.2.4]. */
    return ipi->dest == (ipi->x2 ? APIC_DEST_ALL_32 : APIC_DEST_ALL_8);
}

/*
 * To be made to look. Also when the fabric's rule says so as well: between two looks at a target's
 * identity it may have become another one and back. A second notification of a target that is not
 * accelerated finds ON set; of one that is, it rings a second doorbell, which does nothing.
 */
static void kick(struct vapic *v, struct vapic *target)
{
    enum vapic_action action;

    if (target == NULL || target == v)
        return;
    action = vapic_accel_notify(target);
    if (action != VAPIC_ACTION_NONE)
        v->vm->host.notify(v->vm->ctx, target, action);
}

static void kick_everybody(struct vapic *v, const struct ipi *ipi)
{
    uint32_t top = slots_end(v->vm);

    TRACE(v->vm, AVIC_KICK_VCPU_SLOWPATH, v->index, ipi->high, ipi->low, ipi->index, 0);
    for (uint32_t i = 0; i < top; i++)
        kick(v, vapic_at(v->vm, i));
}

static void kick_x2_logical(struct vapic *v, const struct ipi *ipi)
{
    for (uint32_t bits = ipi->dest & 0xFFFF; bits != 0; bits &= bits - 1)
        kick(v, vapic_by_id(v->vm, (ipi->dest >> 16) << 4 | (uint32_t)__builtin_ctz(bits)));
}

/* By the sender's DFR, as the processor does it. */
static void kick_logical(struct vapic *v, const struct ipi *ipi)
{
    bool flat = reg(v, APIC_DFR) >> 28 == 0xF;
    uint32_t bits = flat ? ipi->dest & 0xFF : ipi->dest & 15,
             first = flat ? 0 : ipi->dest >> 4 << 2;

    for (; bits != 0; bits &= bits - 1) {
        int id = vapic_avic_logical_id(v->vm->accel, first + (uint32_t)__builtin_ctz(bits));

        if (id >= 0)
            kick(v, vapic_by_id(v->vm, (uint32_t)id));
    }
}

/*
 * Since the sender entered the guest (avic_enter()): the processor may have gone by an entry that
 * is gone, also by one that was just being changed then.
 */
static bool table_has_changed(const struct vapic *v)
{
    uint32_t seen = v->accel->logical_seen;

    /* Behind the look at the table, whose acquire pairs with store_logical(). */
    return seen & 1 || vapic_load32(&v->vm->accel->logical_changes, VAPIC_ACQUIRE) != seen;
}

/*
 * The processor has set the vector in every target's IRR, and found one of them not running.
 * Posting again would interrupt twice a target that has ended the first one meanwhile. All targets
 * are kicked: the exit names but one, and running ones whom this concerns no more do not mind. Whom
 * the processor's rule reached and whom the fabric's would reach can differ (logical FFh), so both
 * are told. When the logical table has changed meanwhile nobody knows whom it named: all are told.
 */
static void kick_targets(struct vapic *v, const struct ipi *ipi)
{
    if (MUTANT(IPI_POSTED_AGAIN)) {
        vapic_lapic_send(v, ipi->low, ipi->dest);
        return;
    }
    vapic_fabric_kick(v, ipi->low, ipi->dest);
    if (is_broadcast(ipi))
        kick_everybody(v, ipi);
    else if (!(ipi->low & APIC_ICR_LOGICAL))
        kick(v, vapic_by_id(v->vm, ipi->dest));
    else if (ipi->x2)
        kick_x2_logical(v, ipi);
    else
        kick_logical(v, ipi);
    if (ipi->low & APIC_ICR_LOGICAL && !ipi->x2 && table_has_changed(v))
        kick_everybody(v, ipi);
}

/* Nothing was posted, in no target: the library sends it, as it would without AVIC. */
static void emulate(struct vapic *v, const struct ipi *ipi)
{
    vapic_lapic_send(v, ipi->low, ipi->dest);
}

typedef void (*incomplete_fn)(struct vapic *v, const struct ipi *ipi);

static const incomplete_fn incomplete[] = {
    [AVIC_IPI_INVALID_TYPE] = emulate,
    [AVIC_IPI_NOT_RUNNING] = kick_targets,
    [AVIC_IPI_INVALID_TARGET] = emulate,
    /*
     * No entry of this library holds an illegal address: a vCPU is being removed. Nobody says what
     * was posted to the others before that was found; they are told to look, nothing is repeated.
     */
    [AVIC_IPI_INVALID_BACKING] = kick_targets,
    /* A vector below 16: an error that the sender's APIC reports [APM2 16.5]. */
    [AVIC_IPI_INVALID_VECTOR] = emulate,
};

/*
 * Messages that no processor accelerates (NMI, INIT, SIPI, SMI, lowest priority, ...) are sent by
 * the library whatever the exit calls them; an NMI's vector field may well be zero, for instance.
 */
static incomplete_fn handler_of(const struct ipi *ipi, uint32_t id)
{
    if ((ipi->low & APIC_ICR_DM) != APIC_DM_FIXED)
        return emulate;
    return id < sizeof(incomplete) / sizeof(incomplete[0]) ? incomplete[id] : NULL;
}

/* The processor stores bit 12 as the guest wrote it, and nobody else would ever clear it. */
static void clear_busy(struct vapic *v)
{
    uint32_t icr = reg(v, APIC_ICR);

    if (icr & APIC_ICR_BUSY)
        set_reg(v, APIC_ICR, icr & ~APIC_ICR_BUSY);
}

static int incomplete_ipi(struct vapic *v, uint64_t info1, uint64_t info2)
{
    uint32_t id = (uint32_t)(info2 >> AVIC_IPI_ID_SHIFT), high = (uint32_t)(info1 >> 32);
    bool x2 = in_x2apic(v);
    struct ipi ipi = {(uint32_t)info1, high, x2 ? high : high >> 24,
                      (uint32_t)(info2 & AVIC_IPI_INDEX), x2};
    incomplete_fn fn = handler_of(&ipi, id);

    TRACE(v->vm, AVIC_INCOMPLETE_IPI, v->index, ipi.high, ipi.low, id, ipi.index);
    clear_busy(v);
    if (fn != NULL)
        fn(v, &ipi);
    return VAPIC_OK;
}

/* ---- 402h ---- */

/* Writes that are complete when the processor exits; bit n is the slot at 10h * n. */
#define SLOT(offset) (UINT64_C(1) << ((offset) >> 4))
static const uint64_t trapped = SLOT(APIC_ID) | SLOT(APIC_EOI) | SLOT(APIC_RRR) | SLOT(APIC_LDR) |
                                SLOT(APIC_DFR) | SLOT(APIC_SVR) | SLOT(APIC_ESR) | SLOT(APIC_ICR) |
                                SLOT(APIC_LVT_TIMER) | SLOT(APIC_LVT_THERMAL) | SLOT(APIC_LVT_PMC) |
                                SLOT(APIC_LVT_LINT0) | SLOT(APIC_LVT_LINT1) | SLOT(APIC_LVT_ERROR) |
                                SLOT(APIC_TMICT) | SLOT(APIC_TDCR);

static bool is_trap(const struct vapic *v, uint32_t offset, bool write)
{
    if (!write)
        return false;
    /* To take this trap for a fault would be to emulate the guest's next instruction. */
    if (offset >= APIC_EILVT && offset <= APIC_EILVT + 0x30)
        return avic_feature(v, VAPIC_ACCEL_EXT_LVT);
    return offset < 0x400 && trapped & SLOT(offset);
}

/*
 * The write is complete but for what only software can do: the value was checked by the processor,
 * and asking for it as the guest would is #GP in x2APIC mode.
 */
static void end_of_interrupt(struct vapic *v, uint8_t vector, struct vapic_now now)
{
    uint64_t value;

    if (MUTANT(EOI_TRAP_READS) && in_x2apic(v) &&
        vapic_msr_read(v, MSR_X2APIC_FIRST + (APIC_EOI >> 4), &value, now) != VAPIC_OK)
        return;
    vapic_trap_eoi(v, vector);
}

static int noaccel(struct vapic *v, uint64_t info1, uint64_t info2, struct vapic_now now)
{
    uint32_t offset = (uint32_t)(info1 & AVIC_NOACCEL_OFFSET);
    uint8_t vector = (uint8_t)(info2 & AVIC_NOACCEL_VECTOR);
    bool write = (info1 & AVIC_NOACCEL_WRITE) != 0;
    bool trap = is_trap(v, offset, write);

    TRACE(v->vm, AVIC_UNACCELERATED_ACCESS, v->index, offset, (uint64_t)(trap | write << 1), vector,
          0);
    if (!trap)
        return VAPIC_EMULATE;
    if (offset == APIC_EOI)
        end_of_interrupt(v, vector, now);
    else if (offset == APIC_RRR)
        set_reg(v, APIC_RRR, 0); /* nobody answers remote reads; the guest's value must not stay */
    else
        vapic_trap_write(v, offset, now);
    return VAPIC_OK;
}

int vapic_avic_exit(struct vapic *v, uint64_t code, uint64_t info1, uint64_t info2,
                    struct vapic_now now)
{
    if (v->accel == NULL || v->vm->backend != &vapic_avic_backend)
        return VAPIC_E_ARG;
    if (code == SVM_EXIT_AVIC_INCOMPLETE)
        return incomplete_ipi(v, info1, info2);
    if (code == SVM_EXIT_AVIC_NOACCEL)
        return noaccel(v, info1, info2, now);
    return VAPIC_E_ARG;
}
