/* SPDX-License-Identifier: MIT */
/* The C half of every interrupt; entry.S is the other half. */
#include "irq.h"

#include "apic.h"
#include "console.h"
#include "cpu.h"
#include "x86.h"

static irq_handler handlers[256];
static uint32_t violations;

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

static void exception(struct irq_frame *f)
{
    irq_handler handler = __atomic_load_n(&handlers[f->vector], __ATOMIC_SEQ_CST);

    if (handler)
        handler(f);
    if (f->vector == VEC_NMI || (f->vector == VEC_GP && irq_repair(f)) || handler)
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
