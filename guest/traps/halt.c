/* SPDX-License-Identifier: MIT */
/* HLT and what ends it: no wake-up may fall between the last look and the sleep. */
#include "clock.h"
#include "groups.h"

#define VEC_TOKEN   0x51
#define VEC_ALL     0x52
#define VEC_BLOCKED 0x35
#define VEC_WAKE    0x72
#define VEC_GUARD   0xd2

static volatile uint32_t holder, passes;
static uint32_t laps, guards;

static void on_guard(struct irq_frame *f)
{
    (void)f;
    __atomic_fetch_add(&guards, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

/* A sleeper wakes in any case, and says so, when its wake-up got lost. */
static void guard_on(void)
{
    irq_set(VEC_GUARD, on_guard);
    clock_arm(VEC_GUARD, wait_limit());
}

static bool guard_fired(void)
{
    return __atomic_load_n(&guards, __ATOMIC_SEQ_CST);
}

/* The token goes round by interrupts; whoever lacks it sleeps. */
static void run_ring(uint64_t limit)
{
    uint32_t me = this_cpu()->index, next = (me + 1) % cpu_count;

    guard_on();
    while (passes < limit && !guard_fired()) {
        if (holder != me) {
            sti_hlt_cli();
            continue;
        }
        passes++;
        __atomic_store_n(&holder, next, __ATOMIC_SEQ_CST);
        apic_icr(ICR_FIXED | ICR_ASSERT | VEC_TOKEN, cpu_table[next]->apic_id);
    }
    clock_disarm();
    /* the last one's successor still waits for a token that will not come */
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC_TOKEN, cpu_table[next]->apic_id);
}

static void token_ring(void)
{
    clock_counts(1);
    laps = test_rounds(200);
    guards = 0;
    holder = passes = 0;
    for (uint32_t i = 1; i < cpu_count; i++)
        cpu_run_async(cpu_table[i], run_ring, (uint64_t)laps * cpu_count);
    run_ring((uint64_t)laps * cpu_count);
    for (uint32_t i = 1; i < cpu_count; i++)
        CHECK(cpu_join(cpu_table[i]));
    irq_window();
    CHECK_EQ(guards, 0);
    CHECK_EQ(passes, laps * cpu_count);
    test_stat("ring-passes", 0, passes);
}

/* Self IPI with IF=0, then STI; HLT: the interrupt is pending before the sleep. */
static void pending_before(void)
{
    struct cpu *me = this_cpu();
    uint32_t rounds = test_rounds(200);

    clock_counts(1);
    guards = 0;
    guard_on();
    for (uint32_t i = 0; i < rounds; i++) {
        uint32_t before = me->received[VEC_TOKEN];

        apic_self(VEC_TOKEN);
        while (me->received[VEC_TOKEN] == before && !guard_fired())
            sti_hlt_cli();
    }
    clock_disarm();
    CHECK_EQ(guards, 0);
}

/* The timer expires about when HLT begins, a little earlier or later each time. */
static void timer_about_now(void)
{
    struct cpu *me = this_cpu();
    uint32_t rounds = test_rounds(100), start;
    uint64_t t0 = rdtsc(), cost;

    clock_arm(VEC_WAKE, clock_short());
    cost = rdtsc() - t0;
    clock_disarm();
    irq_window();
    start = me->received[VEC_WAKE];
    for (uint32_t i = 1; i <= rounds; i++) {
        clock_arm(VEC_WAKE, 1 + cost * (i % 16) / 8);
        while (me->received[VEC_WAKE] - start < i)
            sti_hlt_cli();
        CHECK_EQ(me->received[VEC_WAKE] - start, i);
    }
    clock_disarm();
}

static void sleep_masked(uint64_t unused)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC_NMI];

    (void)unused;
    me->scratch = 1;
    while (me->received[VEC_NMI] == before)
        __asm__ volatile("hlt" : : : "memory");
}

/* An NMI ends a HLT with IF=0; a fixed interrupt does not. */
static void nmi_wakes(void)
{
    for (uint32_t i = 1; i < cpu_count; i++) {
        struct cpu *c = cpu_table[i];
        uint32_t fixed = c->received[VEC_TOKEN];

        c->scratch = 0;
        cpu_run_async(c, sleep_masked, 0);
        CHECK(wait_word(&c->scratch, 1));
        apic_icr(ICR_FIXED | ICR_ASSERT | VEC_TOKEN, c->apic_id);
        spin(2000);
        CHECK(__atomic_load_n(&c->work, __ATOMIC_SEQ_CST) != NULL);
        CHECK_EQ(c->received[VEC_TOKEN], fixed);
        /* an NMI just before its HLT is taken and does not wake: send until it is through */
        for (uint32_t n = 0; n < 1000 && __atomic_load_n(&c->work, __ATOMIC_SEQ_CST); n++) {
            apic_icr(ICR_NMI | ICR_ASSERT, c->apic_id);
            spin(2000);
        }
        CHECK(cpu_join(c));
        CHECK(wait_word(&c->received[VEC_TOKEN], fixed + 1));
    }
}

/* What TPR holds back does not end the sleep; the timer, of a higher class, does. */
static void blocked_sleeps_on(void)
{
    struct cpu *me = this_cpu();
    uint32_t blocked = me->received[VEC_BLOCKED], wake = me->received[VEC_WAKE];

    apic_write(APIC_TPR, 0x40);
    apic_self(VEC_BLOCKED);
    clock_arm(VEC_WAKE, clock_short());
    sti_hlt_cli();
    CHECK_EQ(me->received[VEC_WAKE], wake + 1);
    CHECK_EQ(me->received[VEC_BLOCKED], blocked);
    apic_write(APIC_TPR, 0);
    CHECK(wait_word_open(&me->received[VEC_BLOCKED], blocked + 1));
    clock_disarm();
}

/* All asleep, one message wakes them all, once each. */
static void wake_all(void)
{
    uint32_t rounds = test_rounds(20), before[64], n = cpu_count < 64 ? cpu_count : 64;

    for (uint32_t i = 1; i < n; i++)
        before[i] = cpu_table[i]->received[VEC_ALL];
    for (uint32_t r = 1; r <= rounds; r++) {
        apic_icr(ICR_OTHERS | ICR_ASSERT | VEC_ALL, 0);
        for (uint32_t i = 1; i < n; i++)
            CHECK(wait_word(&cpu_table[i]->received[VEC_ALL], before[i] + r));
    }
    cpu_settle();
    for (uint32_t i = 1; i < n; i++)
        CHECK_EQ(cpu_table[i]->received[VEC_ALL], before[i] + rounds);
}

const struct test halt_tests[] = {
    {"trap-halt-token-ring", "[SDM2 HLT] [SDM2 STI]", token_ring, NEED_2_CPUS, 0},
    {"trap-halt-pending-before", "[SDM2 HLT] [SDM2 STI]", pending_before, 0, 0},
    {"trap-halt-timer", "[SDM2 HLT] [SDM3 12.5.4]", timer_about_now, 0, 0},
    {"trap-halt-nmi", "[SDM2 HLT] [SDM3 7.7]", nmi_wakes, NEED_2_CPUS, 0},
    {"trap-halt-blocked", "[SDM2 HLT] [SDM3 12.8.3.1]", blocked_sleeps_on, 0, 0},
    {"trap-halt-wake-all", "[SDM3 12.6.1]", wake_all, NEED_2_CPUS, 0},
    {0},
};
