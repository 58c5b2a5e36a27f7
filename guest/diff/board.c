/* SPDX-License-Identifier: MIT */
/* The rest of the board: I/O APIC, device lines, and the 8259s, which are kept quiet. */
#include "diff.h"

#include "ioapic.h"

#define IOAPIC_WINDOW 0xfec00000ull
#define IOAPIC_DATA   0x10u
#define IOAPIC_EOI    0x40u
#define LINE_PORT     0x2000u
#define PIC_MASTER    0x21u
#define PIC_SLAVE     0xa1u

static volatile uint32_t *window(uint32_t offset)
{
    return (volatile uint32_t *)(IOAPIC_WINDOW + offset);
}

uint32_t ioapic_read(unsigned index)
{
    *window(0) = index;
    return *window(IOAPIC_DATA);
}

void ioapic_write(unsigned index, uint32_t value)
{
    *window(0) = index;
    *window(IOAPIC_DATA) = value;
}

void ioapic_eoi(uint8_t vector)
{
    *window(IOAPIC_EOI) = vector;
}

void ioapic_route(unsigned pin, uint32_t low, uint32_t dest)
{
    ioapic_write(IOAPIC_RTE + 2 * pin + 1, dest << 24);
    ioapic_write(IOAPIC_RTE + 2 * pin, low);
}

void line_set(unsigned n, bool high)
{
    outb((uint16_t)(LINE_PORT + n), high);
}

void pic_mask_all(void)
{
    outb(PIC_MASTER, 0xff);
    outb(PIC_SLAVE, 0xff);
}
