/* SPDX-License-Identifier: MIT */
/*
 * The speed self-test: `vapic run --engine auto` runs it to judge a /dev/kvm. Proves that 64-bit
 * code runs, that an interrupt raised by the APIC arrives exactly once, and how fast instructions
 * are: hardware needs about one cycle per round of the loop, an interpreter hundreds. Prints
 *
 *     selftest instructions=N cycles=C irqs=1
 *
 * and ends by isa-debug-exit with code 0 (exit status 1), or 1 (status 3) if the interrupt failed.
 */
#include "apic.h"
#include "console.h"
#include "cpu.h"
#include "irq.h"
#include "start.h"
#include "x86.h"

#define ROUNDS   10000u
#define PASSES   8u
#define VEC_SELF 0x50
#define PATIENCE 100000u

/* Two instructions a round, so that the count is exact whatever the compiler is. */
static uint64_t timed_loop(void)
{
    uint64_t start = rdtsc();
    uint32_t n = ROUNDS;

    __asm__ volatile("1: dec %0\n jnz 1b" : "+r"(n) : : "cc");
    return rdtsc() - start;
}

static uint32_t self_ipi_count(void)
{
    struct cpu *c = this_cpu();

    apic_self(VEC_SELF);
    sti();
    for (uint32_t i = 0; i < PATIENCE && !c->received[VEC_SELF]; i++)
        cpu_pause();
    spin(16);
    cli();
    return c->received[VEC_SELF];
}

_Noreturn void guest_main(const char *command_line)
{
    uint64_t cycles;
    uint32_t irqs;

    (void)command_line;
    irq_init();
    cpu_init(0);
    apic_setup();
    /* The best of several: the others met a cold cache or lost the processor. */
    cycles = timed_loop();
    for (uint32_t i = 1; i < PASSES; i++) {
        uint64_t again = timed_loop();

        cycles = again < cycles ? again : cycles;
    }
    irqs = self_ipi_count();
    print("selftest instructions=%u cycles=%lu irqs=%u\n", 2 * ROUNDS, cycles, irqs);
    debug_exit(irqs == 1 ? 0 : 1);
}
