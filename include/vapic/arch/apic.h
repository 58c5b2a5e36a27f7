/* SPDX-License-Identifier: MIT */
/*
 * Facts of the local APIC: register offsets, fields, MSR numbers. Constants only; the rules that go
 * with them are in the register table (src/regs.c) and in the code that cites the manual.
 *
 * [SDM3 12.4.1] register map, [SDM3 12.12.1] x2APIC register map, [APM2 16.3.2] AMD's map.
 */
#ifndef VAPIC_ARCH_APIC_H
#define VAPIC_ARCH_APIC_H

/* Offsets in the register page; the x2APIC MSR is 800h + offset/16. */
#define APIC_ID          0x020u
#define APIC_LVR         0x030u
#define APIC_TPR         0x080u
#define APIC_APR         0x090u
#define APIC_PPR         0x0A0u
#define APIC_EOI         0x0B0u
#define APIC_RRR         0x0C0u
#define APIC_LDR         0x0D0u
#define APIC_DFR         0x0E0u
#define APIC_SVR         0x0F0u
#define APIC_ISR         0x100u /* 8 words, 10h apart */
#define APIC_TMR         0x180u
#define APIC_IRR         0x200u
#define APIC_ESR         0x280u
#define APIC_LVT_CMCI    0x2F0u
#define APIC_ICR         0x300u
#define APIC_ICR2        0x310u
#define APIC_LVT_TIMER   0x320u
#define APIC_LVT_THERMAL 0x330u
#define APIC_LVT_PMC     0x340u
#define APIC_LVT_LINT0   0x350u
#define APIC_LVT_LINT1   0x360u
#define APIC_LVT_ERROR   0x370u
#define APIC_TMICT       0x380u
#define APIC_TMCCT       0x390u
#define APIC_TDCR        0x3E0u
#define APIC_SELF_IPI    0x3F0u
/* AMD extended space [APM2 16.3.4]; present when the version register's bit 31 is set. */
#define APIC_EAFR         0x400u
#define APIC_EACR         0x410u
#define APIC_SEOI         0x420u
#define APIC_IER          0x480u /* 8 words */
#define APIC_EILVT        0x500u /* 4 entries */

#define APIC_PAGE_SIZE    4096u
#define APIC_DEFAULT_BASE 0xFEE00000u

/* MSRs. */
#define MSR_APIC_BASE    0x01Bu
#define MSR_TSC_DEADLINE 0x6E0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST  0x8FFu

/* IA32_APIC_BASE [SDM3 12.4.4] [SDM3 12.12.1]. */
#define APIC_BASE_BSP          (1u << 8)
#define APIC_BASE_EXTD         (1u << 10)
#define APIC_BASE_EN           (1u << 11)
#define APIC_BASE_LOW_RESERVED 0x2FFu /* bits 9 and 7:0 */

/* Version register [SDM3 12.4.8] [APM2 16.3.4]. */
#define APIC_LVR_VERSION      0xFFu
#define APIC_LVR_MAXLVT_SHIFT 16
#define APIC_LVR_EOI_SUPPRESS (1u << 24)
#define APIC_LVR_EXT_SPACE    (1u << 31)

/* Spurious-interrupt vector register [SDM3 12.9]. */
#define APIC_SVR_VECTOR       0xFFu
#define APIC_SVR_ENABLE       (1u << 8)
#define APIC_SVR_FOCUS        (1u << 9)
#define APIC_SVR_EOI_SUPPRESS (1u << 12)

/* Error status register [SDM3 12.5.3]. */
#define APIC_ESR_REDIRECTABLE (1u << 4)
#define APIC_ESR_SEND_ILLEGAL (1u << 5)
#define APIC_ESR_RECV_ILLEGAL (1u << 6)
#define APIC_ESR_ILLEGAL_REG  (1u << 7)

/* Interrupt command register, low word [SDM3 12.6.1]. The same bits describe a vapic_msg. */
#define APIC_ICR_VECTOR      0xFFu
#define APIC_ICR_DM          (7u << 8)
#define APIC_ICR_LOGICAL     (1u << 11)
#define APIC_ICR_BUSY        (1u << 12)
#define APIC_ICR_ASSERT      (1u << 14)
#define APIC_ICR_LEVEL       (1u << 15)
#define APIC_ICR_SHORTHAND   (3u << 18)
#define APIC_ICR_SELF        (1u << 18)
#define APIC_ICR_ALL_INCL    (2u << 18)
#define APIC_ICR_ALL_EXCL    (3u << 18)
#define APIC_ICR_X2_RESERVED 0xFFF32000u /* 31:20, 17:16, 13 */

/* Delivery modes, as ICR, LVT, RTE and MSI data place them at bits 10:8. */
#define APIC_DM_FIXED  (0u << 8)
#define APIC_DM_LOWEST (1u << 8)
#define APIC_DM_SMI    (2u << 8)
#define APIC_DM_REMOTE (3u << 8)
#define APIC_DM_NMI    (4u << 8)
#define APIC_DM_INIT   (5u << 8)
#define APIC_DM_SIPI   (6u << 8)
#define APIC_DM_EXTINT (7u << 8)

/* Local vector table [SDM3 12.5.1]. */
#define APIC_LVT_VECTOR     0xFFu
#define APIC_LVT_DM         (7u << 8)
#define APIC_LVT_DS         (1u << 12)
#define APIC_LVT_LOW        (1u << 13)
#define APIC_LVT_RIRR       (1u << 14)
#define APIC_LVT_LEVEL      (1u << 15)
#define APIC_LVT_MASKED     (1u << 16)
#define APIC_LVT_TIMER_MODE (3u << 17)
#define APIC_TIMER_ONESHOT  (0u << 17)
#define APIC_TIMER_PERIODIC (1u << 17)
#define APIC_TIMER_DEADLINE (2u << 17)

/* DFR models [SDM3 12.6.2.2]. */
#define APIC_DFR_FLAT    0xFFFFFFFFu
#define APIC_DFR_CLUSTER 0x0FFFFFFFu

/* Destinations that mean everybody [SDM3 12.6.2.1] [SDM3 12.12.9]. */
#define APIC_DEST_ALL_8  0xFFu
#define APIC_DEST_ALL_32 0xFFFFFFFFu

/* AMD extended APIC control and feature bits [APM2 16.3.4]. */
#define APIC_EXT_IER  (1u << 0)
#define APIC_EXT_SEOI (1u << 1)
#define APIC_EXT_ID8  (1u << 2)

/* Vectors 0 to 15 are illegal for fixed delivery [SDM3 12.5.2]. */
#define APIC_FIRST_VECTOR 16u

#endif
