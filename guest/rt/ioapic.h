/* SPDX-License-Identifier: MIT */
/*
 * The first I/O APIC, the lines that port 0x2000+n raises and lowers (as QEMU's pc-testdev), and
 * the 8259 pair. [82093AA 3.2]
 */
#ifndef GUEST_IOAPIC_H
#define GUEST_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

enum ioapic_bits {
    RTE_LOGICAL = 0x800,
    RTE_NMI = 0x400,
    RTE_PENDING = 0x1000,
    RTE_ACTIVE_LOW = 0x2000,
    RTE_REMOTE_IRR = 0x4000,
    RTE_LEVEL = 0x8000,
    RTE_MASKED = 0x10000,
};

enum ioapic_index { IOAPIC_ID = 0, IOAPIC_VERSION = 1, IOAPIC_ARB = 2, IOAPIC_RTE = 0x10 };

void ioapic_init(void);
bool ioapic_present(void);
void ioapic_mask_all(void);
unsigned ioapic_pins(void);

uint32_t ioapic_read(unsigned index);
void ioapic_write(unsigned index, uint32_t value);
/* Version 0x20 and up: the EOI register. */
void ioapic_eoi(uint8_t vector);
/* Destination first, so that an unmasked entry is never half new. */
void ioapic_route(unsigned pin, uint32_t low, uint32_t dest);
uint32_t ioapic_low(unsigned pin);

/* Line n as a device would drive it; n below 16 (QEMU has no more). */
void line_set(unsigned n, bool high);
bool ioapic_lines_work(void);

/* Edge-triggered, vectors from VEC_PIC; everything masked. */
void pic_init(void);
void pic_unmask(unsigned irq);
void pic_mask_all(void);
void pic_eoi(unsigned irq);
bool pic_requested(unsigned irq);

#endif
