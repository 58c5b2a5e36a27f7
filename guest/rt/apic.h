/* SPDX-License-Identifier: MIT */
/*
 * The calling processor's local APIC in either mode. Offsets are the xAPIC's; in x2APIC mode they
 * become MSR 800H + offset / 16. [SDM3 12.4.1] [SDM3 12.12.1.2]
 */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include <stdbool.h>
#include <stdint.h>

#define APIC_DEFAULT_BASE 0xfee00000ull
#define APIC_BASE_BSP     0x100ull
#define APIC_BASE_EXTD    0x400ull
#define APIC_BASE_EN      0x800ull

enum apic_mode { APIC_OFF, APIC_XAPIC, APIC_X2APIC };

enum apic_register {
    APIC_ID = 0x020,
    APIC_VERSION = 0x030,
    APIC_TPR = 0x080,
    APIC_APR = 0x090,
    APIC_PPR = 0x0a0,
    APIC_EOI = 0x0b0,
    APIC_LDR = 0x0d0,
    APIC_DFR = 0x0e0,
    APIC_SVR = 0x0f0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_LVT_CMCI = 0x2f0,
    APIC_ICR = 0x300,
    APIC_ICR2 = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_THERMAL = 0x330,
    APIC_LVT_PMC = 0x340,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TMICT = 0x380,
    APIC_TMCCT = 0x390,
    APIC_TDCR = 0x3e0,
    APIC_SELF_IPI = 0x3f0,
};

enum apic_bits {
    SVR_ENABLE = 0x100,
    SVR_NO_BROADCAST = 0x1000,
    VERSION_NO_BROADCAST = 0x1000000,
    DFR_CLUSTER = 0x0fffffff,
    LVT_MASKED = 0x10000,
    LVT_PERIODIC = 0x20000,
    LVT_DEADLINE = 0x40000,
    LVT_EXTINT = 0x700,
    ICR_FIXED = 0x000,
    ICR_LOWEST = 0x100,
    ICR_SMI = 0x200,
    ICR_NMI = 0x400,
    ICR_INIT = 0x500,
    ICR_SIPI = 0x600,
    ICR_LOGICAL = 0x800,
    ICR_BUSY = 0x1000,
    ICR_ASSERT = 0x4000,
    ICR_LEVEL = 0x8000,
    ICR_SELF = 0x40000,
    ICR_ALL = 0x80000,
    ICR_OTHERS = 0xc0000,
};

#define DFR_ALL_FLAT 0xffffffffu

/* The registers whose value after INIT the manual gives. [SDM3 12.4.7.3] */
struct apic_snapshot {
    uint64_t base;
    uint32_t id, tpr, svr, ldr, dfr, irr, isr, tmict, tdcr;
    uint32_t lvt_timer, lvt_lint0, lvt_lint1, lvt_error;
};

enum apic_mode apic_current_mode(void); /* from IA32_APIC_BASE */
bool apic_has_x2apic(void);
bool apic_has_deadline(void);
/* By legal steps only, from any mode; the other bits of IA32_APIC_BASE stay. */
void apic_set_mode(enum apic_mode mode);
/* Software enabled, everything masked, TPR 0, flat logical ID 1 << (index % 8) in xAPIC mode. */
void apic_setup(void);
void apic_take_snapshot(struct apic_snapshot *s);

uint32_t apic_read(uint32_t reg);
void apic_write(uint32_t reg, uint32_t value);
/* At the xAPIC's page whatever the mode is. */
uint32_t apic_mmio_read(uint32_t reg);
void apic_mmio_write(uint32_t reg, uint32_t value);
static inline uint32_t apic_msr(uint32_t reg)
{
    return 0x800u + (reg >> 4);
}

void apic_eoi(void);
/* Sends; dest is the whole destination field (8 bits in xAPIC mode, 32 in x2APIC mode). */
void apic_icr(uint32_t low, uint32_t dest);
void apic_self_ipi_msr(uint8_t vector);
/* A fixed interrupt to this CPU by whatever is the shortest way of the mode. */
void apic_self(uint8_t vector);

bool apic_irr(uint8_t vector);
bool apic_isr(uint8_t vector);
bool apic_tmr(uint8_t vector);
uint32_t apic_broadcast(void);            /* the destination that means everyone */
uint32_t apic_logical_id(uint32_t index); /* of a CPU, as apic_setup() made it */

/* Bit of the first implemented physical address bit that is reserved. */
unsigned cpu_physical_bits(void);

#endif
