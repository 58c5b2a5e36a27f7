/* SPDX-License-Identifier: MIT */
/*
 * The guest-physical map of the machine: where RAM lies, where the devices decode, and which
 * low pages the loaders fill before the first instruction. Everything that places something in
 * guest memory takes the address from here, so that two of them cannot overlap.
 *
 *   00000000  RAM, 639 KiB       00001000 GDT, 00007000 zero page or multiboot info,
 *                                00008000 command line, 00010000 page tables
 *   0009FC00  EBDA, reserved     its first word is its size in KiB
 *   000A0000  hole
 *   000E0000  ACPI tables, reserved; the RSDP comes first
 *   000F8000  reserved, but free: linkers put an image's headers just below 1 MiB
 *   00100000  RAM                up to 3 GiB
 *   C0000000  hole               I/O APIC at FEC00000, local APIC at FEE00000
 *   100000000 RAM                what did not fit below the hole
 */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

#include <stdint.h>

#define VMM_GDT_BASE        0x1000ull
#define VMM_BOOT_INFO_BASE  0x7000ull
#define VMM_CMDLINE_BASE    0x8000ull
#define VMM_CMDLINE_MAX     0x8000u /* bytes with the terminating NUL */
#define VMM_PAGE_TABLE_BASE 0x10000ull
#define VMM_PAGE_TABLE_SIZE 0x6000u /* PML4, PDPT, four page directories */
#define VMM_LOADER_END      0x16000ull

/*
 * BIOS data area: the word by which a program tells the firmware that it resets the machine (0:
 * cold, 1234h: warm). It starts with another value, so that the machine sees whether it was
 * written.
 */
#define VMM_BDA_RESET_FLAG  0x472ull
#define VMM_BDA_RESET_UNSET 0xffffu
#define VMM_BDA_RESET_COLD  0x0000u
#define VMM_BDA_RESET_WARM  0x1234u

#define VMM_EBDA_BASE       0x9fc00ull
#define VMM_LOW_RAM_END     VMM_EBDA_BASE
#define VMM_ACPI_BASE       0xe0000ull
#define VMM_ACPI_SIZE       0x18000u
#define VMM_ACPI_END        (VMM_ACPI_BASE + VMM_ACPI_SIZE)
#define VMM_HIGH_RAM_BASE   0x100000ull

#define VMM_HOLE_BASE       0xc0000000ull
#define VMM_HOLE_END        0x100000000ull

#define VMM_IOAPIC_BASE     0xfec00000ull
#define VMM_IOAPIC_PINS     24u
#define VMM_LAPIC_BASE      0xfee00000ull

/* KVM on Intel wants a three-page task state segment in unused guest-physical space. */
#define VMM_KVM_TSS_BASE 0xfffbd000ull

#endif
