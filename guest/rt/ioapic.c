/* SPDX-License-Identifier: MIT */
/* I/O APIC, test lines, 8259: see ioapic.h. Called by the first processor. */
#include "ioapic.h"

#include "acpi.h"
#include "apic.h"
#include "cpu.h"
#include "irq.h"
#include "x86.h"

#define LINE_PORT   0x2000
#define PROBE_PIN   14
#define PROBE_VEC   0xc0
#define PIC_MASTER  0x20
#define PIC_SLAVE   0xa0
#define PIC_CASCADE 2

static struct acpi_ioapic io;
static bool lines;
static bool routed; /* something may be unmasked */

static volatile uint32_t *window(uint32_t offset)
{
    return (volatile uint32_t *)(uint64_t)(io.address + offset);
}

bool ioapic_present(void)
{
    return io.present;
}

uint32_t ioapic_read(unsigned index)
{
    *window(0) = index;
    return *window(0x10);
}

void ioapic_write(unsigned index, uint32_t value)
{
    routed |= index >= IOAPIC_RTE;
    *window(0) = index;
    *window(0x10) = value;
}

void ioapic_eoi(uint8_t vector)
{
    *window(0x40) = vector;
}

unsigned ioapic_pins(void)
{
    return io.present ? ((ioapic_read(IOAPIC_VERSION) >> 16) & 0xff) + 1 : 0;
}

void ioapic_route(unsigned pin, uint32_t low, uint32_t dest)
{
    ioapic_write(IOAPIC_RTE + 2 * pin + 1, dest << 24);
    ioapic_write(IOAPIC_RTE + 2 * pin, low);
}

uint32_t ioapic_low(unsigned pin)
{
    return ioapic_read(IOAPIC_RTE + 2 * pin);
}

void ioapic_mask_all(void)
{
    for (unsigned pin = 0; routed && pin < ioapic_pins(); pin++)
        ioapic_write(IOAPIC_RTE + 2 * pin, RTE_MASKED);
    routed = false;
}

void line_set(unsigned n, bool high)
{
    outb((uint16_t)(LINE_PORT + n), high);
}

bool ioapic_lines_work(void)
{
    return lines;
}

/* Whether the ports drive anything shows in the IRR of the CPU that the pin is routed to. */
static bool probe_lines(void)
{
    struct cpu *me = this_cpu();
    bool seen = false;

    ioapic_route(PROBE_PIN, PROBE_VEC, me->apic_id);
    line_set(PROBE_PIN, true);
    for (unsigned i = 0; i < 1000 && !seen; i++)
        seen = apic_irr(PROBE_VEC);
    line_set(PROBE_PIN, false);
    return seen && wait_word_open(&me->received[PROBE_VEC], 1);
}

void ioapic_init(void)
{
    pic_init();
    io = acpi_first_ioapic();
    if (!io.present)
        return;
    routed = true; /* by the firmware, perhaps */
    ioapic_mask_all();
    lines = probe_lines();
    ioapic_mask_all();
}

/* ICW1-4: cascaded, 8086 mode, edge, vectors from VEC_PIC. [8259A] */
void pic_init(void)
{
    outb(PIC_MASTER, 0x11);
    outb(PIC_SLAVE, 0x11);
    outb(PIC_MASTER + 1, VEC_PIC);
    outb(PIC_SLAVE + 1, VEC_PIC + 8);
    outb(PIC_MASTER + 1, 1 << PIC_CASCADE);
    outb(PIC_SLAVE + 1, PIC_CASCADE);
    outb(PIC_MASTER + 1, 0x01);
    outb(PIC_SLAVE + 1, 0x01);
    pic_mask_all();
}

void pic_mask_all(void)
{
    outb(PIC_MASTER + 1, 0xff);
    outb(PIC_SLAVE + 1, 0xff);
}

void pic_unmask(unsigned irq)
{
    if (irq >= 8)
        outb(PIC_SLAVE + 1, (uint8_t) ~(1u << (irq - 8)));
    outb(PIC_MASTER + 1, (uint8_t) ~(irq < 8 ? 1u << irq : 1u << PIC_CASCADE));
}

/* Non-specific, slave first. */
void pic_eoi(unsigned irq)
{
    if (irq >= 8)
        outb(PIC_SLAVE, 0x20);
    outb(PIC_MASTER, 0x20);
}

bool pic_requested(unsigned irq)
{
    uint16_t port = irq < 8 ? PIC_MASTER : PIC_SLAVE;

    outb(port, 0x0a);
    return (inb(port) >> (irq & 7)) & 1;
}
