/* SPDX-License-Identifier: MIT */
/*
 * Interrupts that meet an unfinished access: a VMM which completes RDMSR, WRMSR or a load only at
 * its next entry must neither lose an interrupt there, nor deliver it inside the #GP handler, nor
 * spoil the value read.
 */
#include "barrage.h"
#include "clock.h"
#include "groups.h"

#define VEC_TIMER 0xb1
#define NO_MSR    0x4fedcba9u

static volatile uint32_t in_gp, gps, timer_wrong, timer_runs;

static bool inside_gp(void)
{
    return in_gp;
}

/* The first processor only; #GP comes through an interrupt gate: IF=0 until its IRET. */
static void on_gp(struct irq_frame *f)
{
    (void)f;
    in_gp = 1;
    gps++;
    spin(4);
    in_gp = 0;
}

typedef bool (*access_fn)(void);

static bool read_eoi(void)
{
    uint64_t value;

    return rdmsr_safe(apic_msr(APIC_EOI), &value);
}

static bool read_hole(void)
{
    uint64_t value;

    return rdmsr_safe(0x8fe, &value);
}

static bool write_hole(void)
{
    return wrmsr_safe(0x8fe, 0);
}

static bool write_id(void)
{
    return wrmsr_safe(apic_msr(APIC_ID), 0);
}

static bool write_self_ipi(void)
{
    return wrmsr_safe(apic_msr(APIC_SELF_IPI), 0xff00);
}

static bool write_tpr_high(void)
{
    return wrmsr_safe(apic_msr(APIC_TPR), 1ull << 40);
}

static bool write_base(void)
{
    return wrmsr_safe(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1);
}

/* Every one of these faults, in either mode of the APIC. */
static const access_fn illegal[] = {
    read_eoi, read_hole, write_hole, write_id, write_self_ipi, write_tpr_high, write_base,
};

static void fault_all(void)
{
    for (unsigned i = 0; i < sizeof(illegal) / sizeof(illegal[0]); i++)
        CHECK(!illegal[i]());
}

static void lost_interrupt(void)
{
    uint32_t loops = 0;

    irq_set(VEC_GP, on_gp);
    gps = 0;
    barrage_forbid(inside_gp);
    barrage_start(test_rounds(150));
    sti();
    for (; !barrage_over(); loops++) {
        fault_all();
        spin(loops % 64); /* a machine that opens the interrupt window late gets one */
    }
    cli();
    barrage_check();
    CHECK_EQ(gps, loops * (sizeof(illegal) / sizeof(illegal[0])));
    test_stat("faults", 0, gps);
}

static void on_timer(struct irq_frame *f)
{
    (void)f;
    timer_wrong += in_gp;
    timer_runs++;
    apic_eoi();
}

/* The same against this processor's own timer; the delay moves the expiry over the accesses. */
static void lost_timer(void)
{
    uint32_t rounds = test_rounds(100);
    uint64_t start, cost;

    irq_set(VEC_GP, on_gp);
    irq_set(VEC_TIMER, on_timer);
    timer_runs = timer_wrong = 0;
    start = rdtsc();
    fault_all();
    cost = rdtsc() - start;
    for (uint32_t i = 1; i <= rounds; i++) {
        sti();
        clock_arm(VEC_TIMER, 1 + cost * (i % 32) / 32);
        fault_all();
        cli();
        if (!wait_word_open(&timer_runs, i)) {
            test_fail(__FILE__, __LINE__, "every timer interrupt is taken");
            return;
        }
        CHECK_EQ(timer_runs, i);
    }
    CHECK_EQ(timer_wrong, 0);
    clock_disarm();
}

/* A self IPI's interrupt is pending when the next, faulting access begins. */
static void self_then_fault(void)
{
    uint32_t rounds = test_rounds(100);

    irq_set(VEC_GP, on_gp);
    irq_set(VEC_TIMER, on_timer);
    timer_runs = timer_wrong = 0;
    for (uint32_t i = 1; i <= rounds; i++) {
        apic_self(VEC_TIMER);
        sti();
        CHECK(!illegal[i % (sizeof(illegal) / sizeof(illegal[0]))]());
        cli();
        CHECK(wait_word_open(&timer_runs, i));
        CHECK_EQ(timer_runs, i);
    }
    CHECK_EQ(timer_wrong, 0);
}

/* Reads that succeed must bring the right value with interrupts all around. */
static void read_under_fire(void)
{
    uint32_t id = apic_read(APIC_ID), version = apic_read(APIC_VERSION);
    uint64_t base = rdmsr(MSR_APIC_BASE);

    apic_write(APIC_LVT_ERROR, LVT_MASKED | 0x5a);
    barrage_start(test_rounds(150));
    sti();
    while (!barrage_over()) {
        CHECK_EQ(apic_read(APIC_ID), id);
        CHECK_EQ(apic_read(APIC_VERSION), version);
        CHECK_EQ(apic_read(APIC_LVT_ERROR), LVT_MASKED | 0x5a);
        CHECK_EQ(rdmsr(MSR_APIC_BASE), base);
        CHECK_EQ(inb(0x21), 0xff);
    }
    cli();
    barrage_check();
}

/* Stores as well: each must have happened exactly once when the next instruction reads it back. */
static void write_under_fire(void)
{
    uint32_t n = 0;

    barrage_start(test_rounds(150));
    sti();
    while (!barrage_over()) {
        n++;
        apic_write(APIC_LVT_ERROR, LVT_MASKED | (n & 0xff));
        CHECK_EQ(apic_read(APIC_LVT_ERROR), LVT_MASKED | (n & 0xff));
        apic_write(APIC_TDCR, n & 3);
        CHECK_EQ(apic_read(APIC_TDCR), n & 3);
    }
    cli();
    barrage_check();
}

/* An MSR that no processor has. */
static void unknown_msr(void)
{
    uint64_t value;

    CHECK(!rdmsr_safe(NO_MSR, &value));
    CHECK(!wrmsr_safe(NO_MSR, 0));
}

static uint32_t id_seen[MAX_CPUS];

static void identify(uint64_t unused)
{
    struct cpu *me = this_cpu();

    (void)unused;
    CHECK_EQ(cpuid(1, 0).ebx >> 24, me->apic_id & 0xff);
    if (cpuid(0, 0).eax >= 0xb && cpuid(0xb, 0).ebx) {
        CHECK_EQ(cpuid(0xb, 0).edx, me->apic_id);
        CHECK_EQ(cpuid(0xb, 1).edx, me->apic_id);
    }
    if (cpuid(0, 0).eax >= 0x1f && cpuid(0x1f, 0).ebx)
        CHECK_EQ(cpuid(0x1f, 0).edx, me->apic_id);
    id_seen[me->index] = apic_read(APIC_ID) >> (me->mode == APIC_XAPIC ? 24 : 0);
}

/* What CPUID, the MADT and the APIC say of a processor's ID is one thing. */
static void identities(void)
{
    identify(0);
    cpu_run_others(identify, 0);
    for (uint32_t i = 0; i < cpu_count; i++)
        CHECK_EQ(id_seen[i], cpu_table[i]->apic_id);
}

/* Software reads the 8259's masks back. */
static void pic_readback(void)
{
    outb(0x21, 0xa5);
    outb(0xa1, 0x5a);
    CHECK_EQ(inb(0x21), 0xa5);
    CHECK_EQ(inb(0xa1), 0x5a);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

const struct test msr_tests[] = {
    {"trap-lost-interrupt", "[SDM3 7.8.1] [SDM3 12.8.4]", lost_interrupt, NEED_2_CPUS, REF_QEMU},
    {"trap-lost-timer", "[SDM3 7.8.1] [SDM3 12.5.4]", lost_timer, 0, REF_QEMU},
    {"trap-self-then-fault", "[SDM3 7.8.1]", self_then_fault, 0, REF_QEMU},
    {"trap-read-under-fire", "[SDM3 12.8.4]", read_under_fire, NEED_2_CPUS, 0},
    {"trap-write-under-fire", "[SDM3 12.8.4]", write_under_fire, NEED_2_CPUS, 0},
    {"trap-unknown-msr", "[SDM2 RDMSR]", unknown_msr, 0, REF_QEMU},
    {"trap-identities", "[SDM3 12.4.6] [SDM3 12.12.8]", identities, 0, 0},
    {"trap-pic-readback", "[8259A]", pic_readback, 0, 0},
    {0},
};
