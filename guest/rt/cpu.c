/* SPDX-License-Identifier: MIT */
/* Processors and waiting: see cpu.h. The table's memory follows the image. */
#include "cpu.h"

#include <stddef.h>

#include "acpi.h"
#include "console.h"
#include "irq.h"
#include "x86.h"

#define STACK_SIZE    8192u
#define INIT_ASSERT   (ICR_INIT | ICR_ASSERT)
#define DEFAULT_LIMIT 60000000000ull
#define WINDOW_TURNS  1000u

extern const uint8_t trampoline[], trampoline_end[];
extern uint8_t image_end[];

uint32_t cpu_count;
uint32_t cpu_apic_ids[MAX_CPUS];
struct cpu *cpu_table[MAX_CPUS];
uint8_t *cpu_stacks[MAX_CPUS];

static uint8_t *free_memory = image_end;
static uint64_t limit = DEFAULT_LIMIT;
static uint32_t highest;
static uint8_t start_page;

static void *allocate(size_t size)
{
    uint8_t *p = free_memory;

    free_memory += (size + 63) & ~(size_t)63;
    __builtin_memset(p, 0, size);
    return p;
}

static uint32_t own_id(void)
{
    if (cpuid(0, 0).eax >= 0xb && cpuid(0xb, 0).ebx)
        return cpuid(0xb, 0).edx;
    return cpuid(1, 0).ebx >> 24;
}

static void add_cpu(uint32_t id)
{
    struct cpu *c;

    for (uint32_t i = 0; i < cpu_count; i++)
        if (cpu_apic_ids[i] == id)
            return;
    if (cpu_count == MAX_CPUS || (cpu_count && id > highest))
        return;
    c = allocate(sizeof(*c));
    c->self = c;
    c->index = cpu_count;
    c->apic_id = id;
    cpu_table[cpu_count] = c;
    cpu_apic_ids[cpu_count] = id;
    if (cpu_count)
        cpu_stacks[cpu_count] = (uint8_t *)allocate(STACK_SIZE) + STACK_SIZE;
    cpu_count++;
}

void cpu_init(uint32_t highest_id)
{
    highest = highest_id;
    add_cpu(own_id());
    wrmsr(MSR_GS_BASE, (uint64_t)cpu_table[0]);
    this_cpu()->mode = apic_current_mode();
    acpi_each_cpu(add_cpu);
}

void cpu_place_trampoline(uint8_t page)
{
    uint64_t to = (uint64_t)page << 12;

    __asm__("" : "+r"(to));
    __builtin_memcpy((void *)to, trampoline, (size_t)(trampoline_end - trampoline));
    start_page = page;
}

static void idle(struct cpu *c)
{
    for (;;) {
        cpu_fn fn = __atomic_load_n(&c->work, __ATOMIC_ACQUIRE);

        if (fn) {
            fn(c->work_arg);
            cli();
            __atomic_store_n(&c->work, NULL, __ATOMIC_RELEASE);
        } else {
            sti_hlt_cli();
        }
    }
}

void ap_start(struct cpu *c, uint32_t cs);

void ap_start(struct cpu *c, uint32_t cs)
{
    wrmsr(MSR_GS_BASE, (uint64_t)c);
    c->mode = apic_current_mode();
    apic_take_snapshot(&c->fresh);
    irq_init();
    c->sipi_page = cs >> 8;
    c->boots++;
    if (cpu_table[0]->mode == APIC_X2APIC)
        apic_set_mode(APIC_X2APIC);
    apic_setup();
    __atomic_store_n(&c->ready, 1, __ATOMIC_RELEASE);
    idle(c);
}

void cpu_forget(struct cpu *c)
{
    __atomic_store_n(&c->work, NULL, __ATOMIC_SEQ_CST);
    __atomic_store_n(&c->ready, 0, __ATOMIC_SEQ_CST);
}

bool cpu_wait_ready(struct cpu *c)
{
    uint64_t start = rdtsc();

    while (!__atomic_load_n(&c->ready, __ATOMIC_ACQUIRE)) {
        if (rdtsc() - start > limit)
            return false;
        cpu_pause();
    }
    return true;
}

bool cpu_start(struct cpu *c)
{
    cpu_forget(c);
    apic_icr(INIT_ASSERT, c->apic_id);
    apic_icr(ICR_SIPI | ICR_ASSERT | start_page, c->apic_id);
    return cpu_wait_ready(c);
}

void cpu_run_async(struct cpu *c, cpu_fn fn, uint64_t arg)
{
    c->work_arg = arg;
    __atomic_store_n(&c->work, fn, __ATOMIC_RELEASE);
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC_PING, c->apic_id);
}

bool cpu_join(struct cpu *c)
{
    uint64_t start = rdtsc();

    while (__atomic_load_n(&c->work, __ATOMIC_ACQUIRE)) {
        if (rdtsc() - start > limit)
            return false;
        cpu_pause();
    }
    return true;
}

bool cpu_run(struct cpu *c, cpu_fn fn, uint64_t arg)
{
    cpu_run_async(c, fn, arg);
    return cpu_join(c);
}

void cpu_run_others(cpu_fn fn, uint64_t arg)
{
    for (uint32_t i = 1; i < cpu_count; i++)
        cpu_run_async(cpu_table[i], fn, arg);
    for (uint32_t i = 1; i < cpu_count; i++)
        cpu_join(cpu_table[i]);
}

static void nothing(uint64_t arg)
{
    (void)arg;
}

/*
 * The second round's ping wakes a CPU that went through `sti; hlt` after the first one: everything
 * of a higher class was taken before it. [SDM3 12.8.4]
 */
void cpu_settle(void)
{
    cpu_run_others(nothing, 0);
    cpu_run_others(nothing, 0);
}

void irq_window(void)
{
    sti();
    spin(WINDOW_TURNS);
    cli();
}

void spin(unsigned turns)
{
    while (turns--)
        cpu_pause();
}

bool wait_word(volatile uint32_t *word, uint32_t value)
{
    uint64_t start = rdtsc();

    while ((int32_t)(*word - value) < 0) {
        if (rdtsc() - start > limit)
            return false;
        cpu_pause();
    }
    return true;
}

bool wait_word_open(volatile uint32_t *word, uint32_t value)
{
    bool in_time;

    sti();
    in_time = wait_word(word, value);
    cli();
    return in_time;
}

void set_wait_limit(uint64_t cycles)
{
    limit = cycles;
}

uint64_t wait_limit(void)
{
    return limit;
}
