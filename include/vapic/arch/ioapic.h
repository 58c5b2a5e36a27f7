/* SPDX-License-Identifier: MIT */
/* Facts of the I/O APIC (82093AA and its successors with an EOI register). Constants only. */
#ifndef VAPIC_ARCH_IOAPIC_H
#define VAPIC_ARCH_IOAPIC_H

#define IOAPIC_DEFAULT_BASE 0xFEC00000u
#define IOAPIC_WINDOW       0x1000u

/* Direct registers [IOAPIC 3.1]. */
#define IOAPIC_REGSEL 0x00u
#define IOAPIC_IOWIN  0x10u
#define IOAPIC_EOIR   0x40u /* version 20h and later */

/* Indirect registers [IOAPIC 3.2]. */
#define IOAPIC_REG_ID      0x00u
#define IOAPIC_REG_VERSION 0x01u
#define IOAPIC_REG_ARB     0x02u
#define IOAPIC_REG_RTE     0x10u
#define IOAPIC_ID_MASK     0x0F000000u

/* Redirection table entry, low word [IOAPIC 3.2.4]. */
#define IOAPIC_RTE_VECTOR  0xFFu
#define IOAPIC_RTE_DM      (7u << 8)
#define IOAPIC_RTE_LOGICAL (1u << 11)
#define IOAPIC_RTE_DS      (1u << 12)
#define IOAPIC_RTE_LOW     (1u << 13)
#define IOAPIC_RTE_RIRR    (1u << 14)
#define IOAPIC_RTE_LEVEL   (1u << 15)
#define IOAPIC_RTE_MASKED  (1u << 16)
/* High word: format (bit 48), extended destination 14:8 (55:49), destination 7:0 (63:56). */
#define IOAPIC_RTE_HI_FORMAT     (1u << 16)
#define IOAPIC_RTE_HI_EXT_SHIFT  17
#define IOAPIC_RTE_HI_DEST_SHIFT 24

#define IOAPIC_VERSION_11        0x11u
#define IOAPIC_VERSION_20        0x20u

#endif
