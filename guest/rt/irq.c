/* SPDX-License-Identifier: MIT */
/* The IDT and the C half of every interrupt; entry.S is the other half. */
#include "irq.h"

#include "apic.h"
#include "console.h"
#include "cpu.h"
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
static irq_handler handlers[256];
static uint32_t violations;

void irq_init(void)
{
    for (unsigned v = 0; v < 256 && !idt[255].selector; v++) {
        uint64_t stub = (uint64_t)irq_stubs + v * STUB_SIZE;

        idt[v] = (struct gate){(uint16_t)stub,         SELECTOR_CODE,          GATE_INTERRUPT,
                               (uint16_t)(stub >> 16), (uint32_t)(stub >> 32), 0};
    }
    lidt(idt, sizeof(idt) - 1);
}

void irq_set(unsigned vector, irq_handler handler)
{
    __atomic_store_n(&handlers[vector], handler, __ATOMIC_SEQ_CST);
}

void irq_reset_handlers(void)
{
    for (unsigned v = 0; v < 256; v++)
        irq_set(v, NULL);
}

uint32_t irq_violations(void)
{
    return __atomic_load_n(&violations, __ATOMIC_SEQ_CST);
}

static bool repair(struct irq_frame *f)
{
    for (const struct fixup *x = fixup_begin; x < fixup_end; x++) {
        if (x->at == f->rip) {
            f->rip = x->to;
            return true;
        }
    }
    return false;
}

static void exception(struct irq_frame *f)
{
    irq_handler handler = __atomic_load_n(&handlers[f->vector], __ATOMIC_SEQ_CST);

    if (handler)
        handler(f);
    if (f->vector == VEC_NMI || (f->vector == VEC_GP && repair(f)) || handler)
        return;
    panic("exception %lu (error %lx) on CPU %u at %lx", f->vector, f->error, this_cpu()->index,
          f->rip);
}

static void maskable(struct irq_frame *f)
{
    irq_handler handler = __atomic_load_n(&handlers[f->vector], __ATOMIC_SEQ_CST);

    if (!(f->rflags & RFLAGS_IF))
        __atomic_fetch_add(&violations, 1, __ATOMIC_SEQ_CST);
    if (handler)
        handler(f);
    else if (f->vector != VEC_SPURIOUS || apic_isr(VEC_SPURIOUS))
        apic_eoi(); /* a spurious interrupt gets none [SDM3 12.9] */
}

void irq_entry(struct irq_frame *f);

void irq_entry(struct irq_frame *f)
{
    struct cpu *c = this_cpu();

    c->received[f->vector]++;
    c->last_rip = f->rip;
    if (f->vector < VEC_FIRST_IRQ)
        exception(f);
    else
        maskable(f);
}
