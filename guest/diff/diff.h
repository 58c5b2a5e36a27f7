/* SPDX-License-Identifier: MIT */
/*
 * The guest of `vapic diff`: what its files share. See abi.h for the other side.
 *
 *   main.c       start, the loop over programs, one fixed state before each
 *   turn.c       processors, whose turn it is, what they do for each other
 *   ops.c        the operations
 *   observe.c    timers and the dump of registers
 *   entry.c      interrupts
 *   board.c      I/O APIC, lines, 8259s
 */
#ifndef GUEST_DIFF_H
#define GUEST_DIFF_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "apic.h"
#include "cpu.h"
#include "irq.h"
#include "x86.h"

struct diff_cpu {
    uint64_t base;  /* IA32_APIC_BASE as last read */
    uint32_t take;  /* enum diff_take of the operation that runs */
    uint32_t taken; /* interrupts in it */
    bool quiet;     /* interrupts are not recorded, and end in EOI */
};

extern struct diff_mailbox mailbox;
extern struct diff_cpu diff_cpu[DIFF_CPUS_MAX];

static inline struct diff_cpu *me(void)
{
    return &diff_cpu[this_cpu()->index];
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

/* main.c */
extern uint32_t touched_pins;    /* of the I/O APIC, or lines, by this program */
extern uint32_t unmaskable_pins; /* whose entry sends what does not wait for a window */
void record(enum diff_kind kind, uint32_t what, uint64_t value);

/* turn.c */
enum diff_call { CALL_NOTHING, CALL_SETTLE, CALL_BASELINE };

void start_cpus(void);
/* All others do it, one after the other. What is pending there and not maskable they take before.
 */
void call_others(enum diff_call what);
void settle(void);
/* Runs the program, or this processor's share of it; on processor 0 it returns at the end. */
void interpret(void);

/* main.c: this processor's APIC as every program finds it */
void baseline(void);

/* ops.c */
void execute(const struct diff_op *op);
/* Registers by the way of the current mode; false: #GP. */
bool reg_read(uint32_t reg, uint64_t *value);
bool reg_write(uint32_t reg, uint64_t value);
void refresh_base(void);
void open_window(void);

/* observe.c */
uint64_t coarse(uint32_t reg, uint64_t value);
void run_timer(const struct diff_op *op);
void run_deadline(const struct diff_op *op);
void dump(void);

#endif
