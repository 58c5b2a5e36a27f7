/* SPDX-License-Identifier: MIT */
/*
 * AVIC's register table: what the hardware does about a guest's access to each register of the
 * page. Pure: it looks at the offset, the direction, the mode and the value, and performs nothing.
 * Called by avic_access.c.
 *
 * [APM2 15.29.4] gives the table for both modes; [APM2 16.11] says which x2APIC registers exist,
 * which way, and with which reserved bits. The order of the two is not documented; processors have
 * been seen to raise #GP where AVIC's table alone says "exit", so #GP wins (knob
 * avic_before_x2apic). Registers that AVIC's table does not list are plain memory in xAVIC.
 */
#include "avic.h"

#define ALLOW AVIC_DO_ALLOW
#define TRAP  AVIC_DO_TRAP
#define FAULT AVIC_DO_FAULT

/* As x2APIC MSR: none, read only, write only, both. */
enum msr_kind { NONE, RO, WO, RW };

/* Reserved bits of x2APIC registers, low half; the high half is reserved in all but ICR. */
#define RES_NONE  0x00000000u
#define RES_ALL   0xFFFFFFFFu
#define RES_BYTE  0xFFFFFF00u /* TPR, SELF_IPI */
#define RES_SVR   0xFFFFFC00u /* AMD has no EOI-broadcast suppression */
#define RES_ICR   (APIC_ICR_X2_RESERVED | APIC_ICR_BUSY)
#define RES_TIMER 0xFFFCEF00u /* bit 18 with them: AMD has no TSC-deadline timer */
#define RES_LVT   0xFFFEE800u
#define RES_LINT  0xFFFE0800u
#define RES_TDCR  0xFFFFFFF4u

struct row {
    uint16_t first, last;
    uint8_t read, write;
    uint8_t msr;
    uint32_t reserved;
    bool extended; /* read and write hold with ext_lvt only, else both are faults */
};

static const struct row rows[] = {
    /* from, to, read, write, as MSR, reserved bits */
    {0x000, 0x010, ALLOW, ALLOW, NONE, RES_NONE, false},
    {APIC_ID, APIC_ID, ALLOW, TRAP, RO, RES_NONE, false},
    {APIC_LVR, APIC_LVR, ALLOW, FAULT, RO, RES_NONE, false},
    {0x040, 0x070, ALLOW, ALLOW, NONE, RES_NONE, false},
    {APIC_TPR, APIC_TPR, ALLOW, AVIC_DO_TPR, RW, RES_BYTE, false},
    {APIC_APR, APIC_APR, FAULT, FAULT, RO, RES_NONE, false},
    {APIC_PPR, APIC_PPR, ALLOW, FAULT, RO, RES_NONE, false},
    {APIC_EOI, APIC_EOI, ALLOW, AVIC_DO_EOI, WO, RES_ALL, false},
    {APIC_RRR, APIC_RRR, ALLOW, TRAP, NONE, RES_NONE, false},
    {APIC_LDR, APIC_LDR, ALLOW, TRAP, RO, RES_NONE, false},
    {APIC_DFR, APIC_DFR, ALLOW, TRAP, NONE, RES_NONE, false},
    {APIC_SVR, APIC_SVR, ALLOW, TRAP, RW, RES_SVR, false},
    {APIC_ISR, APIC_IRR + 0x70, ALLOW, FAULT, RO, RES_NONE, false}, /* ISR, TMR, IRR */
    {APIC_ESR, APIC_ESR, ALLOW, TRAP, RW, RES_ALL, false},
    {0x290, 0x2F0, ALLOW, ALLOW, NONE, RES_NONE, false},
    {APIC_ICR, APIC_ICR, ALLOW, AVIC_DO_ICR, RW, RES_ICR, false},
    {APIC_ICR2, APIC_ICR2, ALLOW, AVIC_DO_ICR_HIGH, NONE, RES_NONE, false},
    {APIC_LVT_TIMER, APIC_LVT_TIMER, ALLOW, TRAP, RW, RES_TIMER, false},
    {APIC_LVT_THERMAL, APIC_LVT_PMC, ALLOW, TRAP, RW, RES_LVT, false},
    {APIC_LVT_LINT0, APIC_LVT_LINT1, ALLOW, TRAP, RW, RES_LINT, false},
    {APIC_LVT_ERROR, APIC_LVT_ERROR, ALLOW, TRAP, RW, RES_LVT, false},
    {APIC_TMICT, APIC_TMICT, ALLOW, TRAP, RW, RES_NONE, false},
    {APIC_TMCCT, APIC_TMCCT, FAULT, FAULT, RO, RES_NONE, false},
    {0x3A0, 0x3D0, ALLOW, ALLOW, NONE, RES_NONE, false},
    {APIC_TDCR, APIC_TDCR, ALLOW, TRAP, RW, RES_TDCR, false},
    {APIC_SELF_IPI, APIC_SELF_IPI, ALLOW, AVIC_DO_SELF_IPI, WO, RES_BYTE, false},
    {APIC_EAFR, APIC_EAFR, FAULT, FAULT, RO, RES_NONE, false},
    {APIC_EACR, APIC_SEOI, FAULT, FAULT, RW, RES_NONE, false},
    {0x430, 0x470, ALLOW, ALLOW, NONE, RES_NONE, false},
    {APIC_IER, APIC_IER + 0x70, FAULT, FAULT, RW, RES_NONE, false},
    {APIC_EILVT, APIC_EILVT + 0x30, ALLOW, TRAP, RW, RES_LVT, true},
    {0x540, 0xFF0, FAULT, FAULT, NONE, RES_NONE, false},
};

static const struct row *row_of(uint32_t offset)
{
    const struct row *row = rows;

    while (offset > row->last) /* the last row ends the page */
        row++;
    return row;
}

static enum vapic_sil_avic_action listed(const struct vapic_sil_cpu *cpu, const struct row *row,
                                         bool write)
{
    if (row->extended && !cpu->machine->config.ext_lvt)
        return AVIC_DO_FAULT;
    return write ? row->write : row->read;
}

enum vapic_sil_avic_action vapic_sil_avic_mmio(const struct vapic_sil_cpu *cpu, uint32_t offset,
                                               bool write)
{
    enum vapic_sil_avic_action action = listed(cpu, row_of(offset), write);

    return action == AVIC_DO_SELF_IPI ? AVIC_DO_ALLOW : action; /* xAPIC has no such register */
}

/* x2APIC's own rules. [APM2 16.11] */
static bool legal(const struct vapic_sil_cpu *cpu, const struct row *row, bool write,
                  uint64_t value)
{
    uint32_t reserved = row->reserved;

    if (row->msr == NONE || row->msr == (write ? RO : WO))
        return false;
    if (!write)
        return true;
    if (row->write != AVIC_DO_ICR)
        return (value >> 32) == 0 && ((uint32_t)value & reserved) == 0;
    if (vapic_sil_knobs(cpu)->x2_busy_dropped)
        reserved &= ~APIC_ICR_BUSY;
    return ((uint32_t)value & reserved) == 0;
}

enum vapic_sil_avic_action vapic_sil_avic_msr(const struct vapic_sil_cpu *cpu, uint32_t offset,
                                              bool write, uint64_t value)
{
    const struct row *row = row_of(offset);
    enum vapic_sil_avic_action action = listed(cpu, row, write);
    bool exits = action == AVIC_DO_TRAP || action == AVIC_DO_FAULT;

    if (exits && vapic_sil_knobs(cpu)->avic_before_x2apic)
        return action;
    return legal(cpu, row, write, value) ? action : AVIC_DO_GP;
}
