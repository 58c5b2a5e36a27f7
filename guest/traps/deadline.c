/* SPDX-License-Identifier: MIT */
/* The TSC deadline: by the TSC of the processor that armed it, never early, never lost. */
#include "clock.h"
#include "groups.h"

#define VEC   0x74
#define TRIES 20u

static volatile uint64_t fired_at[MAX_CPUS];

static void note_time(struct irq_frame *f)
{
    (void)f;
    fired_at[this_cpu()->index] = rdtsc();
    apic_eoi();
}

static uint64_t arm(uint64_t delay)
{
    uint64_t when;

    apic_write(APIC_LVT_TIMER, LVT_DEADLINE | VEC);
    fence();
    when = rdtsc() + delay;
    wrmsr(MSR_TSC_DEADLINE, when);
    return when;
}

static void deadlines(uint64_t rounds)
{
    struct cpu *me = this_cpu();

    for (uint32_t i = 0; i < rounds; i++) {
        uint32_t before = me->received[VEC];
        uint64_t when = arm(clock_short() / 32 * (i % 8));

        CHECK(wait_word_open(&me->received[VEC], before + 1));
        CHECK(fired_at[me->index] >= when);
        CHECK_EQ(me->received[VEC], before + 1);
        CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    }
    clock_disarm();
}

/* All processors at once, each by its own TSC. */
static void on_all(void)
{
    uint32_t rounds = test_rounds(50);

    clock_counts(1);
    irq_set(VEC, note_time);
    for (uint32_t i = 1; i < cpu_count; i++)
        cpu_run_async(cpu_table[i], deadlines, rounds);
    deadlines(rounds);
    for (uint32_t i = 1; i < cpu_count; i++)
        CHECK(cpu_join(cpu_table[i]));
}

/* Re-armed again and again before it expires: one interrupt in the end, at the last time. */
static void rearmed(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];
    uint64_t when = 0;

    irq_set(VEC, note_time);
    for (uint32_t i = 0; i < test_rounds(100); i++)
        when = arm(clock_short() * 10000);
    CHECK_EQ(me->received[VEC], before);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), when);
    when = arm(clock_short());
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    CHECK(fired_at[0] >= when);
    clock_disarm();
}

/* The deadline is a value of the TSC, also when the TSC is written after it was armed. */
static void tsc_forward(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];
    uint64_t jump = clock_short() * 100000, when;
    bool came = false;

    irq_set(VEC, note_time);
    when = arm(jump);
    wrmsr(MSR_TSC, rdtsc() + jump);
    sti();
    for (uint64_t start = rdtsc(); !came && rdtsc() - start < wait_limit() / 4;)
        came = me->received[VEC] != before;
    cli();
    CHECK(came);
    CHECK(!came || fired_at[0] >= when);
    wrmsr(MSR_TSC_DEADLINE, 0);
    wrmsr(MSR_TSC, rdtsc() - jump);
}

/* Arms a deadline, then writes the TSC; false: the deadline had passed before it came to that. */
static bool arm_and_go_back(uint64_t jump, uint64_t *when)
{
    *when = arm(clock_short());
    wrmsr(MSR_TSC, rdtsc() - jump);
    return !apic_irr(VEC);
}

static void tsc_backward(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC], tries = 1;
    uint64_t jump = clock_short() * 10, when;

    irq_set(VEC, note_time);
    while (!arm_and_go_back(jump, &when) && tries++ < TRIES) {
        irq_window();
        wrmsr(MSR_TSC, rdtsc() + jump);
        before = me->received[VEC];
    }
    CHECK(tries <= TRIES);
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    CHECK(fired_at[0] >= when);
    wrmsr(MSR_TSC, rdtsc() + jump);
}

const struct test deadline_tests[] = {
    {"trap-deadline-all", "[SDM3 12.5.4.1]", on_all, NEED_DEADLINE, 0},
    {"trap-deadline-rearmed", "[SDM3 12.5.4.1]", rearmed, NEED_DEADLINE, 0},
    {"trap-deadline-tsc-forward", "[SDM3 12.5.4.1]", tsc_forward, NEED_DEADLINE, REF_KVM},
    {"trap-deadline-tsc-backward", "[SDM3 12.5.4.1]", tsc_backward, NEED_DEADLINE, 0},
    {0},
};
