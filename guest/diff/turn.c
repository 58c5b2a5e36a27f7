/* SPDX-License-Identifier: MIT */
/*
 * Processors that run one at a time. A processor gives its turn away and gets it back by one OUT,
 * in which the monitor holds it. One that INIT has stopped stands in that OUT as well, so INIT and
 * SIPI reach it before it runs again; it begins anew, and joins.
 */
#include "diff.h"

#define TRAMPOLINE_PAGE 8u
#define STACK_SIZE      16384u

extern const uint8_t trampoline[], trampoline_end[];

uint32_t cpu_count;
uint32_t cpu_apic_ids[MAX_CPUS];
struct cpu *cpu_table[MAX_CPUS];
uint8_t *cpu_stacks[MAX_CPUS];

static struct cpu cpus[DIFF_CPUS_MAX];
static uint8_t stacks[DIFF_CPUS_MAX][STACK_SIZE] __attribute__((aligned(64)));

static volatile uint32_t called, caller;

static void turn(uint32_t next)
{
    outl(DIFF_PORT_TURN, this_cpu()->index << 8 | next);
}

/* The call goes round: who has answered gives the turn to the next one, the last to the caller. */
static void pass_on(void)
{
    uint32_t next = (this_cpu()->index + 1) % cpu_count;

    if (next == caller)
        called = CALL_NOTHING;
    turn(next);
}

static void answer(void)
{
    while (called != CALL_NOTHING) {
        if (called == CALL_BASELINE)
            baseline();
        pass_on();
    }
}

void call_others(enum diff_call what)
{
    caller = this_cpu()->index;
    called = what;
    if (cpu_count > 1)
        pass_on();
    called = CALL_NOTHING;
}

void settle(void)
{
    call_others(CALL_SETTLE);
}

static void run_op(const struct diff_op *op)
{
    execute(op);
    mailbox.pc++;
}

void interpret(void)
{
    uint32_t self = this_cpu()->index;

    for (;;) {
        const struct diff_op *op = &mailbox.ops[mailbox.pc];
        bool end = mailbox.pc >= mailbox.op_count;
        uint32_t next = end ? 0 : op->cpu % cpu_count;

        if (end && self == 0)
            return;
        if (next == self) {
            run_op(op);
        } else {
            turn(next);
            answer();
        }
    }
}

void ap_start(struct cpu *c, uint32_t cs);

void ap_start(struct cpu *c, uint32_t cs)
{
    wrmsr(MSR_GS_BASE, (uint64_t)c);
    irq_init();
    *me() = (struct diff_cpu){.base = rdmsr(MSR_APIC_BASE)};
    turn(DIFF_JOIN);
    record(DIFF_RESTART, cs >> 8, me()->base);
    answer();
    interpret();
}

static void make_cpu(uint32_t index)
{
    cpus[index].self = &cpus[index];
    cpus[index].index = index;
    cpus[index].apic_id = index;
    cpu_table[index] = &cpus[index];
    cpu_apic_ids[index] = index;
    cpu_stacks[index] = stacks[index] + STACK_SIZE;
}

void start_cpus(void)
{
    uint64_t page = (uint64_t)TRAMPOLINE_PAGE << 12;

    __asm__("" : "+r"(page));
    __builtin_memcpy((void *)page, trampoline, (uint64_t)(trampoline_end - trampoline));
    for (uint32_t i = 0; i < mailbox.cpus && i < DIFF_CPUS_MAX; i++)
        make_cpu(i);
    cpu_count = mailbox.cpus;
    wrmsr(MSR_GS_BASE, (uint64_t)&cpus[0]);
    refresh_base();
    apic_mmio_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
    apic_mmio_write(APIC_ICR, ICR_OTHERS | ICR_ASSERT | ICR_INIT);
    apic_mmio_write(APIC_ICR, ICR_OTHERS | ICR_ASSERT | ICR_SIPI | TRAMPOLINE_PAGE);
    settle();
}
