/* SPDX-License-Identifier: MIT */
/* The C half of every interrupt: records what was delivered, and does what the program asked for.
 */
#include "diff.h"

#define GATE_INTERRUPT 0x8e00u
#define SELECTOR_CODE  0x18u
#define STUB_SIZE      16
#define FIRST_OF_APIC  16u /* below: exceptions and NMI */

struct gate {
    uint16_t offset_low, selector, attributes, offset_middle;
    uint32_t offset_high, reserved;
};

struct fixup {
    uint64_t at, to;
};

extern const uint8_t irq_stubs[];
extern const struct fixup fixup_begin[], fixup_end[];

static struct gate idt[256] __attribute__((aligned(16)));

void irq_init(void)
{
    for (unsigned v = 0; v < 256 && !idt[255].selector; v++) {
        uint64_t stub = (uint64_t)irq_stubs + v * STUB_SIZE;

        idt[v] = (struct gate){(uint16_t)stub,         SELECTOR_CODE,          GATE_INTERRUPT,
                               (uint16_t)(stub >> 16), (uint32_t)(stub >> 32), 0};
    }
    lidt(idt, sizeof(idt) - 1);
}

static _Noreturn void die(const struct irq_frame *f)
{
    for (;;)
        outl(DIFF_PORT_PANIC, (uint32_t)f->vector << 24 | (uint32_t)(f->rip & 0xffffff));
}

static void repair(struct irq_frame *f)
{
    for (const struct fixup *x = fixup_begin; x < fixup_end; x++) {
        if (x->at == f->rip) {
            f->rip = x->to;
            return;
        }
    }
    die(f);
}

static void exception(struct irq_frame *f)
{
    if (f->vector == VEC_NMI)
        record(DIFF_NMI, 0, 0);
    else if (f->vector == VEC_GP)
        repair(f);
    else
        die(f);
}

static void interrupt(const struct irq_frame *f)
{
    struct diff_cpu *c = me();

    if (c->quiet) {
        reg_write(APIC_EOI, 0);
        return;
    }
    record(DIFF_VECTOR, (uint32_t)f->vector, 0);
    c->taken++;
    if (c->take & DIFF_TAKE_NEST)
        open_window();
    if (!(c->take & DIFF_TAKE_KEEP) && c->taken <= DIFF_TAKE_LIMIT)
        reg_write(APIC_EOI, 0);
}

void irq_entry(struct irq_frame *f);

void irq_entry(struct irq_frame *f)
{
    if (f->vector < FIRST_OF_APIC)
        exception(f);
    else
        interrupt(f);
}
