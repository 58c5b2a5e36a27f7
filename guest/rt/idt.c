/* SPDX-License-Identifier: MIT */
/* The IDT, and faults that are expected; see irq.h. */
#include "irq.h"
#include "x86.h"

#define GATE_INTERRUPT 0x8e00u
#define SELECTOR_CODE  0x18u
#define STUB_SIZE      16

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

bool irq_repair(struct irq_frame *f)
{
    for (const struct fixup *x = fixup_begin; x < fixup_end; x++) {
        if (x->at == f->rip) {
            f->rip = x->to;
            return true;
        }
    }
    return false;
}
