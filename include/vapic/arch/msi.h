/* SPDX-License-Identifier: MIT */
/* Facts of message signalled interrupts [SDM3 12.11]. Constants only. */
#ifndef VAPIC_ARCH_MSI_H
#define VAPIC_ARCH_MSI_H

#define MSI_ADDR_PREFIX      0xFEE00000u
#define MSI_ADDR_PREFIX_MASK 0xFFF00000u
#define MSI_ADDR_LOGICAL     (1u << 2)
#define MSI_ADDR_REDIRECT    (1u << 3) /* RH, redirection hint */
#define MSI_ADDR_REMAPPABLE  (1u << 4) /* interrupt-remapping format */
#define MSI_ADDR_EXT_SHIFT   5         /* bits 11:5 carry destination 14:8 (extended ID) */
#define MSI_ADDR_EXT_MASK    0x7Fu
#define MSI_ADDR_DEST_SHIFT  12
#define MSI_DATA_VECTOR      0xFFu
#define MSI_DATA_DM          (7u << 8)
#define MSI_DATA_ASSERT      (1u << 14)
#define MSI_DATA_LEVEL       (1u << 15)

#endif
