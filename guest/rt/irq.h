/* SPDX-License-Identifier: MIT */
/*
 * Interrupt entry. irq.c, which not every guest takes, counts every vector per CPU, calls the
 * test's handler or just EOIs, and panics on exceptions that are neither handled nor expected.
 */
#ifndef GUEST_IRQ_H
#define GUEST_IRQ_H

#include <stdbool.h>
#include <stdint.h>

/* What entry.S leaves on the stack. */
struct irq_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
    uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

enum irq_vector {
    VEC_DE = 0,
    VEC_NMI = 2,
    VEC_GP = 13,
    VEC_FIRST_IRQ = 32,
    VEC_PING = 0x21, /* wakes an idle CPU for work; nothing else may use its class */
    VEC_PIC = 0xe0,  /* 8259 pair: 0xE0-0xEF */
    VEC_SPURIOUS = 0xff,
};

/* ---- idt.c ---- */

/* Each CPU loads the one IDT, which the first call builds. */
void irq_init(void);

/* A #GP that its code expects goes on behind it. False: nobody expects one there. */
bool irq_repair(struct irq_frame *frame);

/* ---- irq.c, or a guest's own ---- */

/* entry.S calls it for every vector. */
void irq_entry(struct irq_frame *frame);

/* ---- irq.c ---- */

typedef void (*irq_handler)(struct irq_frame *frame);

/* A handler does its own EOI. Null restores the default: EOI for vectors from 32 up, nothing below.
 */
void irq_set(unsigned vector, irq_handler handler);
void irq_reset_handlers(void);

/* How often any CPU entered a maskable interrupt's handler from code that had IF=0: always 0. */
uint32_t irq_violations(void);

#endif
