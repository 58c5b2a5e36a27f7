/* SPDX-License-Identifier: MIT */
/*
 * The primitives of APIC virtualization: virtualization of TPR, PPR, EOI
 * and self-IPIs, evaluation and delivery of pending virtual interrupts, and the emulation of writes
 * to the APIC page [SDM3 31.4.3.2].
 *
 * State: RVI, SVI and the EOI-exit bitmap are in the processor, the `recognized` flag, too; all
 * else is in the virtual-APIC page and is read anew each time. TMR is not looked at and not changed
 * by anything here.
 */
#include "apicv.h"

static uint32_t *word_at(const struct vapic_sil_cpu *cpu, uint32_t offset)
{
    uint64_t page = apicv_get(cpu, FIELD_VIRTUAL_APIC);

    return vapic_sil_memory(cpu->machine, page + offset, sizeof(uint32_t));
}

uint32_t vapic_sil_apicv_page_read(const struct vapic_sil_cpu *cpu, uint32_t offset)
{
    return vapic_load32(word_at(cpu, offset), VAPIC_RELAXED);
}

void vapic_sil_apicv_page_write(struct vapic_sil_cpu *cpu, uint32_t offset, uint32_t value)
{
    vapic_store32(word_at(cpu, offset), value, VAPIC_RELAXED);
}

/* The set's highest vector, 0 when it is empty: no set here can hold a meaningful vector 0. */
static uint8_t highest(const struct vapic_sil_cpu *cpu, uint32_t set)
{
    for (unsigned word = 8; word-- > 0;) {
        uint32_t bits = vapic_sil_apicv_page_read(cpu, set + 0x10 * word);

        if (bits)
            return (uint8_t)(word * 32 + 31 - (unsigned)__builtin_clz(bits));
    }
    return 0;
}

/* Locked, because software may set bits of IRR on its own; order is nobody's matter: who reads the
 * sets on another thread takes them as they are. */
static void set_vector(struct vapic_sil_cpu *cpu, uint32_t set, uint8_t vector)
{
    vapic_or32(word_at(cpu, vapic_sil_word(set, vector)), vapic_sil_bit(vector), VAPIC_RELAXED);
}

static void clear_vector(struct vapic_sil_cpu *cpu, uint32_t set, uint8_t vector)
{
    vapic_and32(word_at(cpu, vapic_sil_word(set, vector)), ~vapic_sil_bit(vector), VAPIC_RELAXED);
}

/* [SDM3 31.2.1] */
void vapic_sil_apicv_evaluate(struct vapic_sil_cpu *cpu)
{
    uint32_t ppr = vapic_sil_apicv_page_read(cpu, APIC_PPR);

    cpu->recognized =
        !apicv_primary(cpu, VMX_PRI_INTERRUPT_WINDOW) && (cpu->rvi >> 4) > (ppr >> 4 & 15);
}

/* [SDM3 31.1.3] */
void vapic_sil_apicv_ppr(struct vapic_sil_cpu *cpu)
{
    uint8_t tpr = (uint8_t)vapic_sil_apicv_page_read(cpu, APIC_TPR);
    uint8_t ppr = tpr >> 4 >= cpu->svi >> 4 ? tpr : cpu->svi & 0xF0;

    vapic_sil_apicv_page_write(cpu, APIC_PPR, ppr);
}

/* [SDM3 31.1.2] Without virtual-interrupt delivery the exit comes also when nothing changed. */
enum vapic_sil_result vapic_sil_apicv_tpr(struct vapic_sil_cpu *cpu)
{
    uint32_t class = vapic_sil_apicv_page_read(cpu, APIC_TPR) >> 4 & 15;

    if (!apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY)) {
        if (class < (apicv_get(cpu, FIELD_TPR_THRESHOLD) & 15))
            return vapic_sil_apicv_trap(cpu, VMX_EXIT_TPR_THRESHOLD, 0);
        return VAPIC_SIL_DONE;
    }
    vapic_sil_apicv_ppr(cpu);
    vapic_sil_apicv_evaluate(cpu);
    return VAPIC_SIL_DONE;
}

/* [SDM3 31.1.4] What is dismissed is SVI, whatever the top of ISR is. With the exit there is no
 * evaluation: the next VM entry does it. */
enum vapic_sil_result vapic_sil_apicv_eoi(struct vapic_sil_cpu *cpu)
{
    uint8_t vector = cpu->svi;

    clear_vector(cpu, APIC_ISR, vector);
    cpu->svi = highest(cpu, APIC_ISR);
    vapic_sil_apicv_ppr(cpu);
    if (cpu->eoi_exit[vector / 64] >> (vector % 64) & 1)
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_VIRTUALIZED_EOI, vector);
    vapic_sil_apicv_evaluate(cpu);
    return VAPIC_SIL_DONE;
}

/* [SDM3 31.1.5] */
void vapic_sil_apicv_self_ipi(struct vapic_sil_cpu *cpu, uint8_t vector)
{
    set_vector(cpu, APIC_IRR, vector);
    if (vector > cpu->rvi)
        cpu->rvi = vector;
    vapic_sil_apicv_evaluate(cpu);
}

/* [SDM3 31.2.2] RVI rules: IRR need not have its bit. No evaluation follows. */
uint8_t vapic_sil_apicv_deliver(struct vapic_sil_cpu *cpu)
{
    uint8_t vector = cpu->rvi;

    set_vector(cpu, APIC_ISR, vector);
    cpu->svi = vector;
    vapic_sil_apicv_page_write(cpu, APIC_PPR, vector & 0xF0);
    clear_vector(cpu, APIC_IRR, vector);
    cpu->rvi = highest(cpu, APIC_IRR);
    cpu->recognized = false;
    return vector;
}

static enum vapic_sil_result write_tpr(struct vapic_sil_cpu *cpu)
{
    vapic_sil_apicv_page_write(cpu, APIC_TPR, (uint8_t)vapic_sil_apicv_page_read(cpu, APIC_TPR));
    return vapic_sil_apicv_tpr(cpu);
}

static enum vapic_sil_result write_eoi(struct vapic_sil_cpu *cpu)
{
    if (!apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY))
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_APIC_WRITE, APIC_EOI);
    vapic_sil_apicv_page_write(cpu, APIC_EOI, 0);
    return vapic_sil_apicv_eoi(cpu);
}

/* A self-IPI ignores trigger-level assert and destination mode (bits 14 and 11), an IPI with a
 * destination only the former. That 300h is judged by the same bits as MSR 830h is taken over from
 * the latter: the manual's older editions do not spell it out. */
static enum vapic_sil_result write_icr(struct vapic_sil_cpu *cpu)
{
    uint32_t icr = vapic_sil_apicv_page_read(cpu, APIC_ICR);
    uint32_t target = vapic_sil_apicv_page_read(cpu, APIC_ICR2) >> 24;
    bool self = (icr & (APICV_ICR_SELF_RESERVED | APIC_ICR_SHORTHAND)) == APICV_ICR_SELF;

    if (apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY) && self && (icr & 0xF0)) {
        vapic_sil_apicv_self_ipi(cpu, (uint8_t)icr);
        return VAPIC_SIL_DONE;
    }
    if (apicv_ipiv(cpu) && !(icr & APICV_ICR_IPIV_RESERVED) &&
        !(target == 0xFF && apicv_knobs(cpu)->ipiv_ff_broadcast_exits))
        return vapic_sil_apicv_send_ipi(cpu, (uint8_t)icr, target);
    return vapic_sil_apicv_trap(cpu, VMX_EXIT_APIC_WRITE, APIC_ICR);
}

/* Only the exact offsets 080h, 0B0h and 300h have a meaning, and any byte of 310h to 313h. */
enum vapic_sil_result vapic_sil_apicv_emulate_write(struct vapic_sil_cpu *cpu)
{
    uint32_t offset = cpu->operation.write_offset;

    cpu->operation.pending_write = false;
    switch (offset) {
    case APIC_TPR:
        return write_tpr(cpu);
    case APIC_EOI:
        return write_eoi(cpu);
    case APIC_ICR:
        return write_icr(cpu);
    case APIC_ICR2:
    case APIC_ICR2 + 1:
    case APIC_ICR2 + 2:
    case APIC_ICR2 + 3:
        vapic_sil_apicv_page_write(cpu, APIC_ICR2,
                                   vapic_sil_apicv_page_read(cpu, APIC_ICR2) & 0xFF000000);
        return VAPIC_SIL_DONE;
    default:
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_APIC_WRITE, offset);
    }
}
