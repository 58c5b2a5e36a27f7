/* SPDX-License-Identifier: MIT */
/*
 * The exits of APICv: 43 and 45 are over when they come, 44 has changed nothing yet, 56 has changed
 * the page and nothing else. Owner, after vapic_exit(). [SDM3 29.2.1] [SDM3 31.4]
 */
#include "apicv.h"

#define WRITE_OFFSET UINT64_C(0xFFF)
#define EOI_VECTOR   UINT64_C(0xFF)

/*
 * 44, APIC access. The EOI of a vCPU that is not accelerated needs no decoding: the value does not
 * matter. (Nor does the size, to us: a guest that writes less than the register, which a real APIC
 * need not take, ends its interrupt.) It comes on hosts that leave the access page mapped for some
 * vCPU that is not active, else there is no mapping then. With virtual-interrupt delivery an EOI
 * only gets here as part of something unusual.
 */
static int access_exit(struct vapic *v, uint64_t qualification, struct vapic_now now)
{
    const uint32_t any = 0;

    switch (APICV_QUAL_TYPE(qualification)) {
    case APICV_ACCESS_WRITE:
        if ((qualification & APICV_QUAL_OFFSET) != APIC_EOI || is_active(v))
            return VAPIC_EMULATE;
        vapic_mmio_write(v, APIC_EOI, &any, sizeof(any), now);
        return VAPIC_ADVANCE;
    case APICV_ACCESS_READ:
    case APICV_ACCESS_FETCH:
    case APICV_ACCESS_EVENT:
    case APICV_ACCESS_PHYS_EVENT:
    case APICV_ACCESS_PHYS_INSTR:
        return VAPIC_EMULATE;
    default:
        return VAPIC_E_ARG;
    }
}

/* 45, virtualized EOI: ISR, SVI and PPR are up to date. What is left are the others that want to
 * know; TMR says how the vector came. */
static int eoi_exit(struct vapic *v, uint64_t qualification)
{
    if (qualification & ~EOI_VECTOR)
        return VAPIC_E_ARG;
    vapic_trap_eoi(v, (uint8_t)qualification);
    return VAPIC_OK;
}

/* Slots whose write ends in exit 56, at their first byte or at one of the other three. */
static bool traps(const struct vapic *v, uint32_t slot)
{
    if (in_x2apic(v))
        return slot == APIC_ICR || slot == APIC_SELF_IPI;
    switch (slot) {
    case APIC_ID:
    case APIC_TPR:
    case APIC_EOI:
    case APIC_LDR:
    case APIC_DFR:
    case APIC_SVR:
    case APIC_ESR:
    case APIC_ICR:
    case APIC_TMICT:
    case APIC_TDCR:
        return true;
    default:
        return slot >= APIC_LVT_TIMER && slot <= APIC_LVT_ERROR;
    }
}

/*
 * A write that does not begin where the register does: an APIC takes only whole registers
 * [SDM3 12.4.1], so nothing was written. (Of ICR's low word the old value is not known any more:
 * the hardware may have stored others since the entry. The bytes stay, nothing is sent.)
 */
static void undo_write(struct vapic *v, uint32_t slot)
{
    if (slot == APIC_TPR)
        set_reg(v, slot, reg(v, slot) & 0xFF);
    else if (slot == APIC_EOI)
        set_reg(v, slot, 0);
    else if (slot == APIC_ICR)
        set_reg(v, slot, reg(v, slot) & ~APIC_ICR_BUSY);
    else
        vapic_trap_undo(v, slot);
}

/* Reads as zero where it can be read at all, and an RDMSR of the page gets the upper word, too. */
static void clear_slot(struct vapic *v, uint32_t slot)
{
    set_reg(v, slot, 0);
    set_reg(v, slot + 4, 0);
}

/*
 * 56, APIC write. The raw value is in the page, whatever the guest's right to read the register; it
 * is sanitized by being written again as the guest would. A self-IPI only comes here with an
 * illegal vector, and gets its error bit; an EOI only on a processor without virtual-interrupt
 * delivery.
 */
static int write_exit(struct vapic *v, uint64_t qualification, struct vapic_now now)
{
    uint32_t offset = (uint32_t)(qualification & WRITE_OFFSET), slot = offset & 0xFF0;

    if (qualification & ~WRITE_OFFSET || !traps(v, slot) || (offset & 15) > 3)
        return VAPIC_E_ARG;
    if (offset != slot) {
        undo_write(v, slot);
        return VAPIC_OK;
    }
    vapic_trap_write(v, slot, now);
    if (slot == APIC_EOI || slot == APIC_SELF_IPI)
        clear_slot(v, slot);
    return VAPIC_OK;
}

int vapic_apicv_exit(struct vapic *v, uint32_t reason, uint64_t qualification, struct vapic_now now)
{
    if (v->accel == NULL || v->vm->post != POST_SPLIT)
        return VAPIC_E_ARG;
    switch (reason) {
    case VMX_EXIT_TPR_THRESHOLD:
        /* vapic_exit() has PPR from the new TPR; vapic_enter() sees what may pass now. */
        return VAPIC_OK;
    case VMX_EXIT_APIC_ACCESS:
        return access_exit(v, qualification, now);
    case VMX_EXIT_VIRTUALIZED_EOI:
        return eoi_exit(v, qualification);
    case VMX_EXIT_APIC_WRITE:
        return write_exit(v, qualification, now);
    default:
        return VAPIC_E_ARG;
    }
}
