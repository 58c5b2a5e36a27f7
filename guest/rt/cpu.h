/* SPDX-License-Identifier: MIT */
/*
 * The guest's processors: who they are, starting them with INIT and SIPI, giving them work, and
 * waiting for things without waiting for ever.
 */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "apic.h"

#define MAX_CPUS 4096u

typedef void (*cpu_fn)(uint64_t arg);

struct cpu {
    struct cpu *self; /* first: %gs:0 */
    uint32_t index, apic_id;
    enum apic_mode mode;        /* of its APIC, kept by apic.c */
    uint32_t boots;             /* times it came through SIPI */
    uint32_t sipi_page;         /* where it last started */
    struct apic_snapshot fresh; /* its APIC as SIPI found it */
    volatile uint32_t received[256];
    volatile uint64_t last_rip;
    volatile uint32_t eois, icr_writes, self_writes; /* what it did to its APIC */
    volatile uint32_t scratch;                       /* free for the running test */
    uint32_t ready;                                  /* atomic: takes work */
    cpu_fn work;                                     /* atomic: null when done */
    uint64_t work_arg;
};

extern uint32_t cpu_count; /* 1 while only the first processor is known */
extern struct cpu *cpu_table[MAX_CPUS];

static inline struct cpu *this_cpu(void)
{
    struct cpu *c;

    __asm__ volatile("mov %%gs:0, %0" : "=r"(c));
    return c;
}

/* Builds the table from CPUID and the MADT; IDs above `highest_id` are left out. */
void cpu_init(uint32_t highest_id);
/* Copies the start-up code; any page below 1 MiB in use is the caller's fault. */
void cpu_place_trampoline(uint8_t page);

/* INIT, SIPI, wait until it takes work; false: it did not in time. */
bool cpu_start(struct cpu *c);
bool cpu_wait_ready(struct cpu *c);
void cpu_forget(struct cpu *c); /* before it is reset: no longer ready */

/* Runs fn on another processor with IF=0, and waits for its end (false: it never ended). */
bool cpu_run(struct cpu *c, cpu_fn fn, uint64_t arg);
void cpu_run_async(struct cpu *c, cpu_fn fn, uint64_t arg);
bool cpu_join(struct cpu *c);
void cpu_run_others(cpu_fn fn, uint64_t arg);

/* All interrupts sent to the other CPUs so far have been taken when this returns. */
void cpu_settle(void);

/* Takes what is pending here: IF=1 for a while. */
void irq_window(void);

/* Spins, with IF as it is, until *word reaches at least `value`; false: not in time. */
bool wait_word(volatile uint32_t *word, uint32_t value);
/* The same with IF=1 inside and IF=0 after. */
bool wait_word_open(volatile uint32_t *word, uint32_t value);
void spin(unsigned turns);

/* A bound on every wait, in TSC cycles. */
void set_wait_limit(uint64_t cycles);
uint64_t wait_limit(void);

#endif
