/* SPDX-License-Identifier: MIT */
/*
 * AMD: what the guest's instructions do. Memory accesses go through the nested page tables and the
 * processor's cached translations; in xAVIC, data accesses to the page of APIC_BAR are redirected
 * to the backing page and follow the register table. MSRs, CR8 and HLT are here, too.
 *
 * A translation carries the redirection that was in force when it was cached. So a processor that
 * is not told to flush goes on reaching the backing page after xAVIC was switched off, or another
 * vCPU's page when two share an ASID: that is what hardware does, and what a VMM must prevent.
 * [APM2 15.29.3.1]
 */
#include "avic.h"

/* ---- What accelerated writes do, once the value is stored ---- */

static void set_tpr(struct vapic_sil_cpu *cpu, uint32_t tpr)
{
    cpu->svm.int_ctl = (cpu->svm.int_ctl & ~VMCB_V_TPR) | (tpr >> 4 & VMCB_V_TPR);
    vapic_sil_avic_update_ppr(cpu);
    vapic_sil_avic_evaluate(cpu);
}

static void clear_isr(struct vapic_sil_cpu *cpu, uint8_t vector)
{
    uint32_t word = vapic_sil_word(APIC_ISR, vector);

    vapic_sil_avic_store(cpu, word, vapic_sil_avic_load(cpu, word) & ~vapic_sil_bit(vector));
    vapic_sil_avic_update_ppr(cpu);
}

/*
 * The manual's table calls the exit for a level-triggered interrupt a trap, its exit description a
 * fault. Here RIP is past the instruction, and the ISR bit is left for the VMM: the VMMs that work
 * on this hardware clear it themselves.
 */
static enum vapic_sil_result end_of_interrupt(struct vapic_sil_cpu *cpu)
{
    int highest = vapic_sil_avic_highest(cpu, APIC_ISR);
    uint8_t vector = (uint8_t)highest;
    uint32_t tmr;

    if (highest < 0)
        return VAPIC_SIL_DONE;
    tmr = vapic_sil_avic_load(cpu, vapic_sil_word(APIC_TMR, vector));
    if (!(tmr & vapic_sil_bit(vector))) {
        clear_isr(cpu, vector);
        vapic_sil_avic_evaluate(cpu);
        return VAPIC_SIL_DONE;
    }
    if (vapic_sil_knobs(cpu)->level_eoi_clears_isr)
        clear_isr(cpu, vector);
    return vapic_sil_avic_exit(cpu, SVM_EXIT_AVIC_NOACCEL, AVIC_NOACCEL_WRITE | APIC_EOI, vector);
}

static enum vapic_sil_result self_ipi(struct vapic_sil_cpu *cpu, uint32_t value)
{
    return vapic_sil_avic_send(cpu, (value & APIC_ICR_VECTOR) | APIC_ICR_SELF, 0);
}

/* The instruction that wrote the register is complete. */
static enum vapic_sil_result effect(struct vapic_sil_cpu *cpu, uint32_t offset, uint32_t value,
                                    enum vapic_sil_avic_action action)
{
    switch (action) {
    case AVIC_DO_TPR:
        set_tpr(cpu, value);
        return VAPIC_SIL_DONE;
    case AVIC_DO_EOI:
        return end_of_interrupt(cpu);
    case AVIC_DO_ICR:
        return vapic_sil_avic_send(cpu, value, vapic_sil_avic_load(cpu, APIC_ICR2));
    case AVIC_DO_SELF_IPI:
        return self_ipi(cpu, value);
    default: /* AVIC_DO_TRAP; the others have no effect, or no stored value */
        return vapic_sil_avic_exit(cpu, SVM_EXIT_AVIC_NOACCEL, AVIC_NOACCEL_WRITE | offset, 0);
    }
}

static enum vapic_sil_result fault(struct vapic_sil_cpu *cpu, uint32_t offset, bool write)
{
    return vapic_sil_avic_exit(cpu, SVM_EXIT_AVIC_NOACCEL,
                               (write ? AVIC_NOACCEL_WRITE : 0) | (offset & AVIC_NOACCEL_OFFSET),
                               0);
}

/* ---- Memory accesses ---- */

static bool writes(const struct vapic_sil_access *a)
{
    return a->kind == VAPIC_SIL_WRITE || a->kind == VAPIC_SIL_TABLE_WRITE ||
           a->kind == VAPIC_SIL_EVENT_WRITE;
}

/* The read of a read-modify-write needs the permission to write, too. */
static bool needs_write(const struct vapic_sil_access *a)
{
    return writes(a) || a->modify;
}

/* Whether hardware redirects anything but data accesses is not known; here it does not. */
static bool redirectable(const struct vapic_sil_cpu *cpu, const struct vapic_sil_access *a)
{
    switch (a->kind) {
    case VAPIC_SIL_TABLE_READ:
    case VAPIC_SIL_TABLE_WRITE:
        return false;
    case VAPIC_SIL_FETCH:
        return vapic_sil_knobs(cpu)->fetch_redirected;
    default:
        return true;
    }
}

static bool hits_apic_page(const struct vapic_sil_cpu *cpu, uint64_t gpa)
{
    return vapic_sil_avic_on(cpu) && !vapic_sil_avic_x2(cpu) &&
           ((gpa ^ cpu->svm.bar) & AVIC_ADDRESS) == 0;
}

static enum vapic_sil_result nested_fault(struct vapic_sil_cpu *cpu,
                                          const struct vapic_sil_access *a, bool present)
{
    bool table = a->kind == VAPIC_SIL_TABLE_READ || a->kind == VAPIC_SIL_TABLE_WRITE;
    uint64_t error = SVM_NPF_USER | (table ? SVM_NPF_TABLE : SVM_NPF_FINAL);

    if (present)
        error |= SVM_NPF_PRESENT;
    if (needs_write(a))
        error |= SVM_NPF_WRITE;
    if (a->kind == VAPIC_SIL_FETCH)
        error |= SVM_NPF_FETCH;
    if (a->kind != VAPIC_SIL_EVENT_WRITE)
        cpu->svm.vectoring = 0;
    return vapic_sil_avic_exit(cpu, SVM_EXIT_NPF, error, a->gpa);
}

/*
 * Finds where the access goes. False: it has exited. The permission check is the ordinary one,
 * also for the APIC page, whose translated address is then not used. (The manual wants that page
 * mapped for reading and writing, and does not say what a read of a read-only one does: here it
 * succeeds.) Fetches and table walks have caches of their own, which this model leaves out.
 */
static bool translate(struct vapic_sil_cpu *cpu, const struct vapic_sil_access *a,
                      struct vapic_sil_tlb *t)
{
    bool data = a->kind != VAPIC_SIL_FETCH && redirectable(cpu, a);
    const struct vapic_sil_tlb *cached = NULL;
    struct vapic_sil_page page = {0};
    bool redirect;

    if (data)
        cached = vapic_sil_tlb_find(cpu, cpu->svm.asid, a->gpa, needs_write(a));
    if (cached) {
        *t = *cached;
        return true;
    }
    if (!cpu->machine->host.walk(cpu->machine->ctx, cpu, a->gpa & ~VAPIC_SIL_PAGE_MASK, &page))
        page.present = false;
    if (!page.present || (needs_write(a) && !page.writable)) {
        nested_fault(cpu, a, page.present);
        return false;
    }
    redirect = redirectable(cpu, a) && hits_apic_page(cpu, a->gpa);
    if (redirect)
        page.hpa = cpu->svm.backing;
    if (data)
        *t = *vapic_sil_tlb_fill(cpu, cpu->svm.asid, a->gpa, &page, redirect);
    else
        *t = (struct vapic_sil_tlb){.hpa = page.hpa & ~VAPIC_SIL_PAGE_MASK, .redirect = false};
    return true;
}

/* The last access of an instruction ends it, with what an earlier one has left to do. */
static enum vapic_sil_result finish(struct vapic_sil_cpu *cpu, const struct vapic_sil_access *a)
{
    bool pending = cpu->operation.pending_write;
    uint32_t offset = cpu->operation.write_offset;

    if (a->more)
        return VAPIC_SIL_DONE;
    vapic_sil_avic_complete(cpu, a->length);
    if (!pending)
        return VAPIC_SIL_DONE;
    return effect(cpu, offset, vapic_sil_avic_load(cpu, offset),
                  vapic_sil_avic_mmio(cpu, offset, true));
}

static enum vapic_sil_result plain(struct vapic_sil_cpu *cpu, uint64_t hpa,
                                   struct vapic_sil_access *a)
{
    if (writes(a))
        vapic_sil_write(cpu->machine, hpa, a->size, a->value);
    else
        a->value = vapic_sil_read(cpu->machine, hpa, a->size);
    return finish(cpu, a);
}

/* What of a written value the register keeps. */
static uint32_t stored(const struct vapic_sil_cpu *cpu, uint32_t value,
                       enum vapic_sil_avic_action action)
{
    const struct vapic_sil_knobs *knobs = vapic_sil_knobs(cpu);

    if (action == AVIC_DO_TPR)
        return value & 0xFF;
    if (action == AVIC_DO_ICR && knobs->masks_busy)
        return value & ~APIC_ICR_BUSY;
    if (action == AVIC_DO_ICR_HIGH && knobs->masks_icr_high)
        return value & 0xFF000000u;
    return value;
}

/* An aligned 32-bit access to a register, in the page at `hpa`: the backing page, unless the
 * translation is stale. */
static enum vapic_sil_result mmio_register(struct vapic_sil_cpu *cpu, uint64_t hpa,
                                           struct vapic_sil_access *a)
{
    uint32_t offset = (uint32_t)(a->gpa & VAPIC_SIL_PAGE_MASK);
    bool write = writes(a);
    enum vapic_sil_avic_action action = vapic_sil_avic_mmio(cpu, offset, write);
    uint32_t value = (uint32_t)a->value;

    if (action == AVIC_DO_FAULT)
        return fault(cpu, offset, write);
    if (!write) {
        a->value = vapic_sil_read(cpu->machine, hpa + offset, 4);
        return finish(cpu, a);
    }
    vapic_sil_write(cpu->machine, hpa + offset, 4, stored(cpu, value, action));
    if (action == AVIC_DO_ALLOW || action == AVIC_DO_ICR_HIGH)
        return finish(cpu, a);
    if (a->more) {
        cpu->operation.pending_write = true;
        cpu->operation.write_offset = (uint16_t)offset;
        return VAPIC_SIL_DONE;
    }
    vapic_sil_avic_complete(cpu, a->length);
    return effect(cpu, offset, value, action);
}

/* Other than aligned 32-bit accesses: undefined by the manual; here plain accesses to the page. */
static enum vapic_sil_result mmio(struct vapic_sil_cpu *cpu, uint64_t hpa,
                                  struct vapic_sil_access *a)
{
    uint32_t offset = (uint32_t)(a->gpa & VAPIC_SIL_PAGE_MASK);

    if (a->kind != VAPIC_SIL_EVENT_WRITE)
        cpu->svm.vectoring = 0;
    if (a->size == 4 && offset % 16 == 0)
        return mmio_register(cpu, hpa, a);
    if (vapic_sil_knobs(cpu)->odd_mmio_faults)
        return fault(cpu, offset, writes(a));
    return plain(cpu, hpa + offset, a);
}

static enum vapic_sil_result access(struct vapic_sil_cpu *cpu, struct vapic_sil_access *a)
{
    struct vapic_sil_tlb t;
    uint64_t hpa;

    if (!translate(cpu, a, &t))
        return VAPIC_SIL_EXIT;
    hpa = t.hpa + (a->gpa & VAPIC_SIL_PAGE_MASK);
    /* A redirection that was cached in xAVIC and survives it still leads to the backing page; but
     * without xAVIC there is no register table, and the page is memory. */
    if (t.redirect && vapic_sil_avic_on(cpu) && !vapic_sil_avic_x2(cpu))
        return mmio(cpu, t.hpa, a);
    return plain(cpu, hpa, a);
}

/* ---- MSRs ---- */

#define MSR_LENGTH 2u

static bool is_x2apic(uint32_t msr)
{
    return msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST;
}

/* [APM2 15.11]. MSRs that the map does not cover are always intercepted. */
static bool msr_intercepted(const struct vapic_sil_cpu *cpu, uint32_t msr, bool write)
{
    int32_t bit = svm_msrpm_bit(msr);
    uint64_t map;

    if (!(cpu->svm.intercept3 & VMCB_I3_MSR))
        return false;
    if (bit < 0)
        return true;
    bit += write;
    if (is_x2apic(msr)) {
        bit -= svm_msrpm_bit(MSR_X2APIC_FIRST);
        return cpu->svm.x2msrs[bit / 64] >> (bit % 64) & 1;
    }
    map = vapic_sil_read(cpu->machine, cpu->svm.msrpm + (uint32_t)bit / 8, 1);
    return map >> (bit % 8) & 1;
}

/* What comes before AVIC: privilege, then the permission map. VAPIC_SIL_DONE: go on. */
static enum vapic_sil_result msr_checks(struct vapic_sil_cpu *cpu, uint32_t msr, bool write)
{
    if (cpu->guest.cpl != 0)
        return VAPIC_SIL_GP;
    if (msr_intercepted(cpu, msr, write))
        return vapic_sil_avic_intercept(cpu, SVM_EXIT_MSR, write, MSR_LENGTH);
    /* Without x2AVIC, an x2APIC register that is not intercepted is the host's own. */
    if (!is_x2apic(msr) || !vapic_sil_avic_x2(cpu))
        return VAPIC_SIL_NATIVE;
    return VAPIC_SIL_DONE;
}

static uint32_t msr_offset(uint32_t msr)
{
    return (msr - MSR_X2APIC_FIRST) * 16;
}

static enum vapic_sil_result rdmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t *value)
{
    enum vapic_sil_result result = msr_checks(cpu, msr, false);
    uint32_t offset = msr_offset(msr);
    enum vapic_sil_avic_action action;

    if (result != VAPIC_SIL_DONE)
        return result;
    action = vapic_sil_avic_msr(cpu, offset, false, 0);
    if (action == AVIC_DO_GP)
        return VAPIC_SIL_GP;
    if (action == AVIC_DO_FAULT)
        return fault(cpu, offset, false);
    *value = vapic_sil_avic_load(cpu, offset);
    if (offset == APIC_ICR) /* two words of the page, unlike Intel's one [APM2 15.29.10] */
        *value |= (uint64_t)vapic_sil_avic_load(cpu, APIC_ICR2) << 32;
    vapic_sil_avic_complete(cpu, MSR_LENGTH);
    return VAPIC_SIL_DONE;
}

static enum vapic_sil_result wrmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t value)
{
    enum vapic_sil_result result = msr_checks(cpu, msr, true);
    uint32_t offset = msr_offset(msr), low = (uint32_t)value;
    enum vapic_sil_avic_action action;

    if (result != VAPIC_SIL_DONE)
        return result;
    action = vapic_sil_avic_msr(cpu, offset, true, value);
    if (action == AVIC_DO_GP)
        return VAPIC_SIL_GP;
    if (action == AVIC_DO_FAULT)
        return fault(cpu, offset, true);
    if (action == AVIC_DO_ICR) {
        low &= ~APIC_ICR_BUSY; /* where it is not a must-be-zero bit */
        vapic_sil_avic_store(cpu, APIC_ICR2, (uint32_t)(value >> 32));
    }
    vapic_sil_avic_store(cpu, offset, low);
    vapic_sil_avic_complete(cpu, MSR_LENGTH);
    return effect(cpu, offset, low, action);
}

/* ---- CR8 ---- */

#define CR8_LENGTH 4u

/* With AVIC, CR8 is V_TPR whatever V_INTR_MASKING says [APM2 15.29.4]; without either of them it is
 * the host's own. */
static bool cr8_virtual(const struct vapic_sil_cpu *cpu)
{
    return vapic_sil_avic_on(cpu) || (cpu->svm.int_ctl & VMCB_V_INTR_MASKING);
}

static enum vapic_sil_result read_cr8(struct vapic_sil_cpu *cpu, uint64_t *value)
{
    if (cpu->guest.cpl != 0)
        return VAPIC_SIL_GP;
    if (cpu->svm.intercept_cr & VMCB_CR8_READ)
        return vapic_sil_avic_intercept(cpu, SVM_EXIT_CR8_READ, 0, CR8_LENGTH);
    if (!cr8_virtual(cpu))
        return VAPIC_SIL_NATIVE;
    *value = cpu->svm.int_ctl & VMCB_V_TPR;
    vapic_sil_avic_complete(cpu, CR8_LENGTH);
    return VAPIC_SIL_DONE;
}

static enum vapic_sil_result write_cr8(struct vapic_sil_cpu *cpu, uint64_t value)
{
    if (cpu->guest.cpl != 0)
        return VAPIC_SIL_GP;
    if (cpu->svm.intercept_cr & VMCB_CR8_WRITE)
        return vapic_sil_avic_intercept(cpu, SVM_EXIT_CR8_WRITE, 0, CR8_LENGTH);
    if (value > 0xF)
        return VAPIC_SIL_GP;
    if (!cr8_virtual(cpu))
        return VAPIC_SIL_NATIVE;
    vapic_sil_avic_complete(cpu, CR8_LENGTH);
    if (vapic_sil_avic_on(cpu)) {
        vapic_sil_avic_store(cpu, APIC_TPR, (uint32_t)value << 4);
        set_tpr(cpu, (uint32_t)value << 4);
        return VAPIC_SIL_DONE;
    }
    cpu->svm.int_ctl = (cpu->svm.int_ctl & ~VMCB_V_TPR) | value;
    return VAPIC_SIL_DONE;
}

/* ---- HLT ---- */

#define HLT_LENGTH 1u

/* Is there an event that keeps an idle-HLT intercept from firing? [APM2 15.9] */
static bool event_pending(struct vapic_sil_cpu *cpu)
{
    const struct vapic_sil_knobs *knobs = vapic_sil_knobs(cpu);
    bool looks_at_v_irq = !vapic_sil_avic_on(cpu) || knobs->idle_hlt_ignores_irr;

    if (cpu->svm.int_ctl & VMCB_V_NMI_ENABLE && cpu->svm.int_ctl & VMCB_V_NMI)
        return true;
    if (looks_at_v_irq)
        return (cpu->svm.int_ctl & VMCB_V_IRQ) != 0;
    vapic_sil_avic_evaluate(cpu);
    return cpu->remembered;
}

static enum vapic_sil_result hlt(struct vapic_sil_cpu *cpu)
{
    if (cpu->guest.cpl != 0)
        return VAPIC_SIL_GP;
    if (cpu->svm.intercept3 & VMCB_I3_HLT)
        return vapic_sil_avic_intercept(cpu, SVM_EXIT_HLT, 0, HLT_LENGTH);
    if ((cpu->svm.intercept5 & VMCB_I5_IDLE_HLT) && !event_pending(cpu))
        return vapic_sil_avic_intercept(cpu, SVM_EXIT_IDLE_HLT, 0, HLT_LENGTH);
    vapic_sil_avic_complete(cpu, HLT_LENGTH);
    cpu->guest.halted = true;
    return VAPIC_SIL_DONE;
}

const struct vapic_sil_ops vapic_sil_avic_ops = {
    .leave = vapic_sil_avic_leave,
    .boundary = vapic_sil_avic_boundary,
    .waiting = vapic_sil_avic_waiting,
    .access = access,
    .rdmsr = rdmsr,
    .wrmsr = wrmsr,
    .read_cr8 = read_cr8,
    .write_cr8 = write_cr8,
    .hlt = hlt,
};
