/* SPDX-License-Identifier: MIT */
/*
 * What the manuals say about the register map, written down a second time for the tests, so that a
 * mistake in the library's own table cannot hide: [SDM3 T12-1] [SDM3 T12-6] [APM2 T16-2]
 * [APM2 16.3.2].
 */
#ifndef VAPIC_TESTS_REGISTERS_H
#define VAPIC_TESTS_REGISTERS_H

#include "vapic/vapic.h"

#define XR VAPIC_X_R
#define XW VAPIC_X_W
#define R  VAPIC_X2_R
#define W  VAPIC_X2_W

static const struct expected_reg {
    uint32_t offset;
    uint32_t count; /* words, 10h apart */
    unsigned access;
    uint32_t feature; /* without it the register is absent; 0: always there */
    uint32_t reset;   /* of an application processor with ID 0, manual profile, version 14h */
} expected_regs[] = {
    {APIC_ID, 1, XR | XW | R, 0, 0},
    {APIC_LVR, 1, XR | R, 0, 0x00050014},
    {APIC_TPR, 1, XR | XW | R | W, 0, 0},
    {APIC_APR, 1, XR, 0, 0},
    {APIC_PPR, 1, XR | R, 0, 0},
    {APIC_EOI, 1, XW | W, 0, 0},
    {APIC_RRR, 1, XR, 0, 0},
    {APIC_LDR, 1, XR | XW | R, 0, 0},
    {APIC_DFR, 1, XR | XW, 0, 0xFFFFFFFF},
    {APIC_SVR, 1, XR | XW | R | W, 0, 0xFF},
    {APIC_ISR, 8, XR | R, 0, 0},
    {APIC_TMR, 8, XR | R, 0, 0},
    {APIC_IRR, 8, XR | R, 0, 0},
    {APIC_ESR, 1, XR | XW | R | W, 0, 0},
    {APIC_LVT_CMCI, 1, XR | XW | R | W, VAPIC_FEATURE_CMCI, 0x10000},
    {APIC_ICR, 1, XR | XW | R | W, 0, 0},
    {APIC_ICR2, 1, XR | XW, 0, 0},
    {APIC_LVT_TIMER, 1, XR | XW | R | W, 0, 0x10000},
    {APIC_LVT_THERMAL, 1, XR | XW | R | W, 0, 0x10000},
    {APIC_LVT_PMC, 1, XR | XW | R | W, 0, 0x10000},
    {APIC_LVT_LINT0, 1, XR | XW | R | W, 0, 0x10000},
    {APIC_LVT_LINT1, 1, XR | XW | R | W, 0, 0x10000},
    {APIC_LVT_ERROR, 1, XR | XW | R | W, 0, 0x10000},
    {APIC_TMICT, 1, XR | XW | R | W, 0, 0},
    {APIC_TMCCT, 1, XR | R, 0, 0},
    {APIC_TDCR, 1, XR | XW | R | W, 0, 0},
    {APIC_SELF_IPI, 1, W, 0, 0},
    {APIC_EAFR, 1, XR | R, VAPIC_FEATURE_AMD_EXT, 0x00040007},
    {APIC_EACR, 1, XR | XW | R | W, VAPIC_FEATURE_AMD_EXT, 0},
    {APIC_SEOI, 1, XR | XW | R | W, VAPIC_FEATURE_AMD_EXT, 0},
    {APIC_IER, 8, XR | XW | R | W, VAPIC_FEATURE_AMD_EXT, 0xFFFFFFFF},
    {APIC_EILVT, 4, XR | XW | R | W, VAPIC_FEATURE_AMD_EXT, 0},
};

#undef XR
#undef XW
#undef R
#undef W

#define EXPECTED_REGS (sizeof(expected_regs) / sizeof(expected_regs[0]))

/* The row that covers `offset` for a processor with these features, or NULL. */
static inline const struct expected_reg *expected_at(uint32_t offset, uint32_t features)
{
    for (uint32_t n = 0; n < EXPECTED_REGS; n++) {
        const struct expected_reg *row = &expected_regs[n];

        if (offset < row->offset || offset >= row->offset + 16 * row->count)
            continue;
        return (row->feature & features) == row->feature ? row : (const struct expected_reg *)0;
    }
    return (const struct expected_reg *)0;
}

static inline unsigned expected_access(uint32_t offset, uint32_t features)
{
    const struct expected_reg *row = expected_at(offset, features);

    return row == (const struct expected_reg *)0 ? 0 : row->access;
}

#endif
