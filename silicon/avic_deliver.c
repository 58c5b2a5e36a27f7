/* SPDX-License-Identifier: MIT */
/*
 * AMD: what happens between two instructions of the guest: events that VMRUN injects, physical
 * interrupts, NMIs, virtual interrupts. Called through vapic_sil_boundary().
 *
 * With AVIC, the processor looks at the backing page's IRR only at evaluation points: VMRUN, a
 * doorbell, a self IPI, an EOI, a change of TPR. If the priorities let a vector through,
 * cpu->remembered is set, and it is delivered at the first boundary at which IF, interrupt shadow
 * and GIF allow. A bit that somebody sets in IRR without a doorbell is not noticed before the next
 * evaluation point. [APM2 15.29.5]. Without AVIC, V_IRQ, V_INTR_PRIO and V_TPR decide.
 * [APM2 15.21]
 *
 * The host's RFLAGS.IF is taken to be one while a guest runs, as every hypervisor has it.
 */
#include "avic.h"

/* ---- Evaluation ---- */

int vapic_sil_avic_highest(const struct vapic_sil_cpu *cpu, uint32_t base)
{
    for (int word = 7; word >= 0; word--) {
        const uint32_t *p =
            vapic_sil_memory(cpu->machine, cpu->svm.backing + base + 0x10u * (uint32_t)word, 4);
        /* IRR: after the doorbell that announced it; pairs with vapic_sil_avic_post(). */
        uint32_t bits = p ? vapic_load32(p, VAPIC_SEQ_CST) : 0;

        if (word == 0)
            bits &= ~0u << APIC_FIRST_VECTOR;
        if (bits)
            return word * 32 + 31 - __builtin_clz(bits);
    }
    return -1;
}

/* V_TPR gates delivery, not the page's TPR: a VMM that leaves the two different has been seen to
 * hang its guest. The knob is for the other reading of the manual. */
static int threshold(const struct vapic_sil_cpu *cpu)
{
    int highest = vapic_sil_avic_highest(cpu, APIC_ISR);
    int isr = highest < 0 ? 0 : highest >> 4;
    int tpr = (int)(cpu->svm.int_ctl & VMCB_V_TPR);

    if (vapic_sil_knobs(cpu)->gate_on_tpr)
        tpr = (int)((vapic_sil_avic_load(cpu, APIC_TPR) >> 4) & 0xF);
    return isr > tpr ? isr : tpr;
}

int vapic_sil_avic_due(const struct vapic_sil_cpu *cpu)
{
    int vector = vapic_sil_avic_highest(cpu, APIC_IRR);

    return vector >= 0 && vector >> 4 > threshold(cpu) ? vector : -1;
}

void vapic_sil_avic_evaluate(struct vapic_sil_cpu *cpu)
{
    cpu->remembered = vapic_sil_avic_due(cpu) >= 0;
}

/* [APM2 15.29.4]: kept current when TPR or the highest ISR bit changes. */
void vapic_sil_avic_update_ppr(const struct vapic_sil_cpu *cpu)
{
    uint32_t tpr = vapic_sil_avic_load(cpu, APIC_TPR) & 0xFF;
    int highest = vapic_sil_avic_highest(cpu, APIC_ISR);
    uint32_t isr = highest < 0 ? 0 : (uint32_t)highest;

    vapic_sil_avic_store(cpu, APIC_PPR, tpr >> 4 >= isr >> 4 ? tpr : isr & 0xF0);
}

/* ---- Delivery ---- */

static enum vapic_sil_result deliver(struct vapic_sil_cpu *cpu, uint64_t event, uint8_t *vector)
{
    *vector = (uint8_t)event;
    cpu->guest.halted = false;
    cpu->svm.vectoring = event | VMCB_EVENT_VALID;
    return VAPIC_SIL_DELIVER;
}

static bool window(const struct vapic_sil_cpu *cpu)
{
    return cpu->guest.interrupt_flag && !cpu->guest.shadow && cpu->guest.gif;
}

static enum vapic_sil_result inject(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    uint64_t event = cpu->svm.injected;

    cpu->svm.injected = 0;
    if ((event & VMCB_EVENT_TYPE) == VMCB_EVENT_NMI) {
        event = (event & ~VMCB_EVENT_VECTOR) | 2;
        cpu->guest.nmi_masked |= (cpu->svm.int_ctl & VMCB_V_NMI_ENABLE) != 0;
    }
    return deliver(cpu, event, vector);
}

/* With V_INTR_MASKING the host's IF gates physical interrupts, else the guest's own. One that is
 * not intercepted goes through the guest's IDT. [APM2 15.21.1] */
static enum vapic_sil_result physical(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    bool masking = (cpu->svm.int_ctl & VMCB_V_INTR_MASKING) != 0;
    int pending = vapic_sil_physical(cpu);

    if (pending < 0 || (!masking && (!cpu->guest.interrupt_flag || cpu->guest.shadow)))
        return VAPIC_SIL_NOTHING;
    if (cpu->svm.intercept3 & VMCB_I3_INTR)
        return vapic_sil_avic_exit(cpu, SVM_EXIT_INTR, 0, 0);
    vapic_sil_acknowledge(cpu, (uint8_t)pending);
    return deliver(cpu, VMCB_EVENT_INTR | (uint64_t)pending, vector);
}

static bool virtual_nmi(const struct vapic_sil_cpu *cpu)
{
    return (cpu->svm.int_ctl & VMCB_V_NMI_ENABLE) && (cpu->svm.int_ctl & VMCB_V_NMI);
}

static enum vapic_sil_result nmi(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    if (!virtual_nmi(cpu) || cpu->guest.nmi_masked || !cpu->guest.gif || cpu->guest.shadow)
        return VAPIC_SIL_NOTHING;
    cpu->svm.int_ctl &= ~VMCB_V_NMI;
    cpu->guest.nmi_masked = true;
    return deliver(cpu, VMCB_EVENT_NMI | 2, vector);
}

static bool v_irq_due(const struct vapic_sil_cpu *cpu)
{
    uint64_t int_ctl = cpu->svm.int_ctl;
    uint64_t priority = (int_ctl & VMCB_V_INTR_PRIO) >> VMCB_V_INTR_PRIO_SHIFT;

    if (!(int_ctl & VMCB_V_IRQ))
        return false;
    return (int_ctl & VMCB_V_IGN_TPR) || priority > (int_ctl & VMCB_V_TPR);
}

static enum vapic_sil_result virtual_interrupt(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    if (!v_irq_due(cpu) || !window(cpu))
        return VAPIC_SIL_NOTHING;
    if (cpu->svm.intercept3 & VMCB_I3_VINTR)
        return vapic_sil_avic_exit(cpu, SVM_EXIT_VINTR, 0, 0);
    cpu->svm.int_ctl &= ~VMCB_V_IRQ;
    return deliver(cpu, VMCB_EVENT_INTR | (uint8_t)(cpu->svm.int_ctl >> VMCB_V_VECTOR_SHIFT),
                   vector);
}

static void accept(struct vapic_sil_cpu *cpu, uint8_t vector)
{
    uint64_t irr = cpu->svm.backing + vapic_sil_word(APIC_IRR, vector);
    uint32_t isr = vapic_sil_word(APIC_ISR, vector);

    cpu->remembered = false;
    /* Locked: others set bits of the same word. */
    vapic_and32(vapic_sil_memory(cpu->machine, irr, 4), ~vapic_sil_bit(vector), VAPIC_SEQ_CST);
    vapic_sil_avic_store(cpu, isr, vapic_sil_avic_load(cpu, isr) | vapic_sil_bit(vector));
    vapic_sil_avic_update_ppr(cpu);
}

static enum vapic_sil_result avic_interrupt(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    int due;

    if (!cpu->remembered || !window(cpu))
        return VAPIC_SIL_NOTHING;
    due = vapic_sil_avic_due(cpu); /* anew: a higher one may have come */
    cpu->remembered = due >= 0;
    if (due < 0)
        return VAPIC_SIL_NOTHING;
    if (vapic_sil_knobs(cpu)->vintr_intercept && (cpu->svm.intercept3 & VMCB_I3_VINTR))
        return vapic_sil_avic_exit(cpu, SVM_EXIT_VINTR, 0, 0);
    accept(cpu, (uint8_t)due);
    return deliver(cpu, VMCB_EVENT_INTR | (uint64_t)due, vector);
}

/* A doorbell carries nothing: whatever vCPU runs here now looks at its own page. Without AVIC it
 * has no effect. [APM2 15.29.3.3] */
static void answer_doorbell(struct vapic_sil_cpu *cpu)
{
    if (vapic_load32(&cpu->doorbell, VAPIC_RELAXED) == 0)
        return;
    /* Before IRR is looked at; pairs with the OR in vapic_sil_avic_ring(). */
    vapic_xchg32(&cpu->doorbell, 0, VAPIC_SEQ_CST);
    if (vapic_sil_avic_on(cpu))
        vapic_sil_avic_evaluate(cpu);
}

/* Physical interrupts win over virtual ones, NMIs over interrupts. [APM2 15.21.4] */
enum vapic_sil_result vapic_sil_avic_boundary(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    enum vapic_sil_result result;

    if (cpu->svm.injected & VMCB_EVENT_VALID)
        return inject(cpu, vector);
    cpu->svm.vectoring = 0;
    answer_doorbell(cpu);
    result = physical(cpu, vector);
    if (result == VAPIC_SIL_NOTHING)
        result = nmi(cpu, vector);
    if (result != VAPIC_SIL_NOTHING)
        return result;
    if (vapic_sil_avic_on(cpu))
        return avic_interrupt(cpu, vector);
    return virtual_interrupt(cpu, vector);
}

bool vapic_sil_avic_waiting(const struct vapic_sil_cpu *cpu)
{
    if (!vapic_sil_avic_on(cpu))
        return v_irq_due(cpu);
    /* Acquire: a doorbell that is seen makes the IRR bit before it visible. */
    if (!cpu->remembered && vapic_load32(&cpu->doorbell, VAPIC_ACQUIRE) == 0)
        return false;
    return vapic_sil_avic_due(cpu) >= 0;
}
