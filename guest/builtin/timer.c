/* SPDX-License-Identifier: MIT */
/*
 * The APIC timer. Only lower bounds and order are checked, never that something came soon: the
 * machine may be slow, or stop for a while at any instruction.
 */
#include "clock.h"
#include "groups.h"

#define VEC   0x64
#define TICKS 5

static volatile uint64_t fired_at;

static void note_time(struct irq_frame *f)
{
    (void)f;
    fired_at = rdtsc();
    apic_eoi();
}

/* Writes TMICT in the given mode; returns the TSC just before. */
static uint64_t start_timer(uint32_t lvt, uint32_t counts)
{
    uint64_t start;

    apic_write(APIC_TDCR, clock_divide[0]);
    apic_write(APIC_LVT_TIMER, lvt | VEC);
    start = rdtsc();
    apic_write(APIC_TMICT, counts);
    return start;
}

static void expect_at_least(uint64_t elapsed, uint64_t least)
{
    /* 2 % for clocks that are not derived from each other */
    if (elapsed < least - least / 50) {
        print("# %lu cycles, at least %lu expected\n", elapsed, least);
        test_fail(__FILE__, __LINE__, "no interrupt before its time");
    }
}

/* Long enough that anything due within `cycles` has come. */
static void let_pass(uint64_t cycles)
{
    uint64_t start = rdtsc();

    sti();
    while (rdtsc() - start < cycles)
        cpu_pause();
    cli();
}

static void one_shot(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC], counts = clock_counts(clock_short());
    uint64_t start;

    irq_set(VEC, note_time);
    start = start_timer(0, counts);
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    expect_at_least(fired_at - start, clock_least_cycles(counts));
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    CHECK_EQ(apic_read(APIC_TMICT), counts);
    let_pass(clock_short() * 2);
    CHECK_EQ(me->received[VEC], before + 1);
}

static void counts_down(void)
{
    uint32_t first, second, third;

    start_timer(LVT_MASKED, 0xffffffff);
    first = apic_read(APIC_TMCCT);
    spin(100);
    second = apic_read(APIC_TMCCT);
    spin(100);
    third = apic_read(APIC_TMCCT);
    CHECK(first > second && second > third && third > 0);
    apic_write(APIC_TMICT, 0);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
}

static void periodic(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC], counts = clock_counts(clock_short());
    uint64_t start;

    irq_set(VEC, note_time);
    start = start_timer(LVT_PERIODIC, counts);
    for (uint32_t i = 1; i <= TICKS; i++) {
        CHECK(wait_word_open(&me->received[VEC], before + i));
        expect_at_least(fired_at - start, i * clock_least_cycles(counts));
    }
    CHECK(apic_read(APIC_TMCCT) <= counts);
    apic_write(APIC_TMICT, 0);
    irq_window();
    before = me->received[VEC];
    let_pass(clock_short() * 2);
    CHECK_EQ(me->received[VEC], before);
}

static void stopped(void)
{
    struct cpu *me = this_cpu();
    uint32_t before;

    start_timer(0, clock_counts(clock_short() * 4));
    apic_write(APIC_TMICT, 0);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    irq_window(); /* a slow machine may have got there before the stop */
    before = me->received[VEC];
    let_pass(clock_short() * 8);
    CHECK_EQ(me->received[VEC], before);
}

/* Expiry behind the mask is lost: unmasking does not bring it back. */
static void masked_expiry(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];

    start_timer(LVT_MASKED, clock_counts(clock_short()));
    let_pass(clock_short() * 2);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    CHECK_EQ(me->received[VEC], before);
    apic_write(APIC_LVT_TIMER, VEC);
    let_pass(clock_short());
    CHECK_EQ(me->received[VEC], before);
}

/* A change between the two counting modes neither restarts nor stops the count. */
static void to_periodic(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC], counts = clock_counts(clock_short() * 2), left, after;
    uint64_t start;

    irq_set(VEC, note_time);
    start_timer(0, counts);
    do {
        start = rdtsc();
        left = apic_read(APIC_TMCCT);
    } while (left > counts / 2);
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VEC);
    after = apic_read(APIC_TMCCT);
    /* more than before, or ended before the switch, only if there was the time to reach 0 */
    if (after > left || after == 0)
        expect_at_least(rdtsc() - start, clock_least_cycles(left));
    CHECK_EQ(apic_read(APIC_TMICT), counts);
    if (after)
        CHECK(wait_word_open(&me->received[VEC], before + 2));
    clock_disarm();
}

static bool count_reaches_zero(void)
{
    uint64_t start = rdtsc();

    while (apic_read(APIC_TMCCT))
        if (rdtsc() - start > wait_limit())
            return false;
    return true;
}

static void to_one_shot(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC], counts = clock_counts(clock_short());

    irq_set(VEC, note_time);
    start_timer(LVT_PERIODIC, counts);
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    apic_write(APIC_LVT_TIMER, VEC);
    CHECK(count_reaches_zero());
    let_pass(clock_short());
    before = me->received[VEC];
    let_pass(clock_short() * 2);
    CHECK_EQ(me->received[VEC], before);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
}

static void expired_stays(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];

    start_timer(0, clock_counts(clock_short() / 4));
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VEC);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    let_pass(clock_short());
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    CHECK_EQ(me->received[VEC], before + 1);
}

/* Each divisor's cycles per count, over the first one's, within the bounds and 5 %. */
static void divisors(void)
{
    struct clock_rate one, rate;

    CHECK(clock_measure(clock_divide[0], clock_short(), &one));
    for (unsigned i = 1; i < 8; i++) {
        CHECK(clock_measure(clock_divide[i], clock_short(), &rate));
        if ((rate.least >> i) * 95 / 100 <= one.most && (rate.most >> i) >= one.least * 95 / 100)
            continue;
        print("# divide by %u: %lu to %lu, by 1: %lu to %lu\n", 1u << i, rate.least, rate.most,
              one.least, one.most);
        test_fail(__FILE__, __LINE__, "the divisor divides");
    }
}

/* A new divisor while running changes the speed, not the count reached. */
static void divisor_while_running(void)
{
    uint32_t before, after;

    start_timer(LVT_MASKED, 0xf0000000);
    before = apic_read(APIC_TMCCT);
    apic_write(APIC_TDCR, clock_divide[7]);
    after = apic_read(APIC_TMCCT);
    CHECK(after <= before && after > 0x10000000);
    clock_disarm();
}

static void wakes_halt(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];

    for (uint32_t i = 1; i <= test_rounds(10); i++) {
        clock_arm(VEC, clock_short() / 8);
        while (me->received[VEC] == before + i - 1)
            sti_hlt_cli();
        CHECK_EQ(me->received[VEC], before + i);
    }
    clock_disarm();
}

static void arm_deadline(uint64_t when)
{
    apic_write(APIC_LVT_TIMER, LVT_DEADLINE | VEC);
    fence();
    wrmsr(MSR_TSC_DEADLINE, when);
}

static void deadline_past(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];

    arm_deadline(1);
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    irq_window();
    CHECK_EQ(me->received[VEC], before + 1);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
}

static void deadline_not_early(void)
{
    struct cpu *me = this_cpu();
    uint64_t when;

    irq_set(VEC, note_time);
    for (uint32_t i = 0; i < test_rounds(20); i++) {
        uint32_t before = me->received[VEC];

        when = rdtsc() + clock_short() / 16 * (i % 8 + 1);
        arm_deadline(when);
        CHECK(wait_word_open(&me->received[VEC], before + 1));
        CHECK(fired_at >= when);
        CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
        CHECK_EQ(me->received[VEC], before + 1);
    }
}

static void deadline_replaced(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];
    uint64_t when;

    irq_set(VEC, note_time);
    arm_deadline(rdtsc() + clock_short() * 20000);
    when = rdtsc() + clock_short() * 10000;
    wrmsr(MSR_TSC_DEADLINE, when);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), when);
    when = rdtsc() + clock_short();
    wrmsr(MSR_TSC_DEADLINE, when);
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    CHECK(fired_at >= when);
}

static void deadline_disarmed(void)
{
    struct cpu *me = this_cpu();
    uint32_t before;

    arm_deadline(rdtsc() + clock_short() * 8);
    wrmsr(MSR_TSC_DEADLINE, 0);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    irq_window(); /* a slow machine may have got there before */
    before = me->received[VEC];
    let_pass(clock_short() * 16);
    CHECK_EQ(me->received[VEC], before);
}

static void deadline_far(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];

    arm_deadline(~0ull);
    let_pass(clock_short());
    CHECK_EQ(me->received[VEC], before);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), ~0ull);
    wrmsr(MSR_TSC_DEADLINE, 0);
}

/* Leaving deadline mode disarms; outside it the MSR takes nothing and TMICT counts again. */
static void deadline_left(void)
{
    struct cpu *me = this_cpu();
    uint32_t before;

    arm_deadline(rdtsc() + clock_short() * 8);
    apic_write(APIC_TMICT, 1000);
    CHECK_EQ(apic_read(APIC_TMICT), 0);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    apic_write(APIC_LVT_TIMER, VEC);
    CHECK_EQ(apic_read(APIC_TMICT), 0);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    wrmsr(MSR_TSC_DEADLINE, 1);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    irq_window();
    before = me->received[VEC];
    let_pass(clock_short() * 16);
    CHECK_EQ(me->received[VEC], before);
}

static void tick(uint64_t ticks)
{
    struct cpu *me = this_cpu();
    uint32_t start = me->received[VEC];

    for (uint32_t i = 1; i <= ticks; i++) {
        clock_arm(VEC, clock_short() / 4);
        while ((int32_t)(me->received[VEC] - start - i) < 0)
            sti_hlt_cli();
    }
    clock_disarm();
    CHECK_EQ(me->received[VEC], start + ticks);
}

static void on_every_cpu(void)
{
    clock_counts(1); /* calibrates here, once */
    for (uint32_t i = 1; i < cpu_count; i++)
        cpu_run_async(cpu_table[i], tick, TICKS);
    tick(TICKS);
    for (uint32_t i = 1; i < cpu_count; i++)
        CHECK(cpu_join(cpu_table[i]));
}

const struct test timer_tests[] = {
    {"timer-one-shot", "[SDM3 12.5.4]", one_shot, 0, 0},
    {"timer-counts-down", "[SDM3 12.5.4]", counts_down, 0, 0},
    {"timer-periodic", "[SDM3 12.5.4]", periodic, 0, 0},
    {"timer-stopped", "[SDM3 12.5.4]", stopped, 0, 0},
    {"timer-masked-expiry", "[SDM3 12.5.1]", masked_expiry, 0, REF_KVM},
    {"timer-to-periodic", "[SDM3 12.5.4]", to_periodic, 0, 0},
    {"timer-to-one-shot", "[SDM3 12.5.4]", to_one_shot, 0, 0},
    {"timer-expired-stays", "[SDM3 12.5.4]", expired_stays, 0, REF_QEMU},
    {"timer-divisors", "[SDM3 12.5.4]", divisors, 0, 0},
    {"timer-divisor-while-running", "[SDM3 12.5.4]", divisor_while_running, 0, REF_QEMU},
    {"timer-wakes-halt", "[SDM3 12.5.4]", wakes_halt, 0, 0},
    {"timer-on-every-cpu", "[SDM3 12.5.4]", on_every_cpu, 0, 0},
    {"timer-deadline-past", "[SDM3 12.5.4.1]", deadline_past, NEED_DEADLINE, 0},
    {"timer-deadline-not-early", "[SDM3 12.5.4.1]", deadline_not_early, NEED_DEADLINE, 0},
    {"timer-deadline-replaced", "[SDM3 12.5.4.1]", deadline_replaced, NEED_DEADLINE, 0},
    {"timer-deadline-disarmed", "[SDM3 12.5.4.1]", deadline_disarmed, NEED_DEADLINE, 0},
    {"timer-deadline-far", "[SDM3 12.5.4.1]", deadline_far, NEED_DEADLINE, 0},
    {"timer-deadline-left", "[SDM3 12.5.4.1]", deadline_left, NEED_DEADLINE, 0},
    {0},
};
