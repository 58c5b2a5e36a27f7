/* SPDX-License-Identifier: MIT */
/* The C half of every interrupt: records what was delivered, and does what the program asked for.
 */
#include "diff.h"

#define FIRST_OF_APIC 16u /* below: exceptions and NMI */

static _Noreturn void die(const struct irq_frame *f)
{
    for (;;)
        outl(DIFF_PORT_PANIC, (uint32_t)f->vector << 24 | (uint32_t)(f->rip & 0xffffff));
}

static void exception(struct irq_frame *f)
{
    if (f->vector == VEC_NMI)
        record(DIFF_NMI, 0, 0);
    else if (f->vector != VEC_GP || !irq_repair(f))
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

void irq_entry(struct irq_frame *f)
{
    if (f->vector < FIRST_OF_APIC)
        exception(f);
    else
        interrupt(f);
}
