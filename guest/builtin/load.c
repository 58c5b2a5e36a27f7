/* SPDX-License-Identifier: MIT */
/*
 * Load: all processors at once exchange numbered interrupts. A sender has one message under way and
 * its own vector at every receiver, so that nothing coalesces: every message must raise exactly one
 * interrupt, and the receiver must see the number the sender wrote before it sent.
 */
#include "clock.h"
#include "groups.h"

#define FIRST_VEC 0x40
#define SENDERS   112u /* processors beyond share vectors */
#define VEC_TICK  0xc4
#define VEC_ALL   0xc8
#define VEC_ACK   0xd1 /* wakes a sender that waits in HLT */
#define VEC_GUARD 0xd2 /* its timer: wakes it to report a loss */

struct mail {
    uint32_t target;   /* index of the receiver */
    uint32_t sent;     /* number under way */
    uint32_t received; /* number the receiver has acknowledged */
    uint32_t taken;    /* interrupts by which it did */
} __attribute__((aligned(64)));

static struct mail mail[MAX_CPUS];
static uint32_t wrong, running, rounds_now;
static bool halting; /* senders wait in HLT for the acknowledgement, not spinning */

/* The messages of all senders that share this vector and mean this CPU. */
static void on_mail(struct irq_frame *f)
{
    uint32_t me = this_cpu()->index;
    bool any = false;

    for (uint32_t s = (uint32_t)f->vector - FIRST_VEC; s < cpu_count; s += SENDERS) {
        struct mail *m = &mail[s];
        uint32_t sent = __atomic_load_n(&m->sent, __ATOMIC_ACQUIRE);

        if (m->target != me || sent == m->received)
            continue;
        any = true;
        if (sent != m->received + 1)
            __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
        m->taken++;
        __atomic_store_n(&m->received, sent, __ATOMIC_RELEASE);
        if (halting)
            apic_icr(ICR_FIXED | ICR_ASSERT | VEC_ACK, cpu_table[s]->apic_id);
    }
    if (!any && cpu_count <= SENDERS)
        __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static void rest(void)
{
    if (halting) {
        sti_hlt_cli();
        return;
    }
    sti();
    spin(8); /* long enough for a machine that opens the interrupt window late */
    cli();
}

static bool acknowledged(struct mail *m, uint32_t number)
{
    uint64_t start = rdtsc();

    while (__atomic_load_n(&m->received, __ATOMIC_ACQUIRE) != number) {
        if (rdtsc() - start > wait_limit())
            return false;
        rest();
    }
    return true;
}

/* By physical ID, or by logical ID where that names one CPU only. */
static void post(uint32_t target, uint32_t low, uint32_t number)
{
    struct cpu *c = cpu_table[target];
    bool logical_is_single = this_cpu()->mode == APIC_X2APIC || cpu_count <= 8;

    if (logical_is_single && (number & 1))
        apic_icr(low | ICR_LOGICAL, apic_logical_id(target));
    else
        apic_icr(low, c->apic_id);
}

/* The others may still send here: a processor goes on taking messages until all are done. */
static void leave_together(void)
{
    if (!__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST) && halting)
        for (uint32_t i = 0; i < cpu_count; i++)
            apic_icr(ICR_FIXED | ICR_ASSERT | VEC_ACK, cpu_table[i]->apic_id);
    while (__atomic_load_n(&running, __ATOMIC_SEQ_CST))
        rest();
}

static void exchange(uint64_t rounds)
{
    uint32_t me = this_cpu()->index, random = me * 2654435761u + 1;
    struct mail *m = &mail[me];
    uint32_t vector = FIRST_VEC + me % SENDERS;

    if (halting)
        clock_arm(VEC_GUARD, wait_limit());
    for (uint32_t n = 1; n <= rounds; n++) {
        random = random * 1664525u + 1013904223u;
        m->target = (random >> 8) % cpu_count;
        __atomic_store_n(&m->sent, n, __ATOMIC_RELEASE);
        post(m->target, ICR_FIXED | ICR_ASSERT | vector, n);
        if (!acknowledged(m, n)) {
            print("# CPU %u: message %u to CPU %u got lost\n", me, n, m->target);
            __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
            break;
        }
    }
    leave_together();
    if (halting)
        clock_disarm();
}

static void start_exchange(uint32_t rounds)
{
    wrong = 0;
    running = cpu_count;
    rounds_now = rounds;
    for (uint32_t i = 0; i < cpu_count; i++)
        mail[i] = (struct mail){0, 0, 0, 0};
    for (uint32_t v = 0; v < SENDERS; v++)
        irq_set(FIRST_VEC + v, on_mail);
    for (uint32_t i = 1; i < cpu_count; i++)
        cpu_run_async(cpu_table[i], exchange, rounds);
    exchange(rounds);
    for (uint32_t i = 1; i < cpu_count; i++)
        CHECK(cpu_join(cpu_table[i]));
}

static void check_exchange(const char *sent_name, const char *received_name)
{
    CHECK_EQ(wrong, 0);
    for (uint32_t i = 0; i < cpu_count; i++) {
        CHECK_EQ(mail[i].sent, rounds_now);
        CHECK_EQ(mail[i].received, mail[i].sent);
        CHECK_EQ(mail[i].taken, mail[i].sent);
        test_stat(sent_name, i, mail[i].sent);
        test_stat(received_name, i, mail[i].taken);
    }
}

/* To processors that run: their senders spin. */
static void running_targets(void)
{
    start_exchange(test_rounds(20));
    check_exchange("load-running-sent", "load-running-taken");
}

/* To processors that mostly sleep; every message wakes two. */
static void halted_targets(void)
{
    clock_counts(1);
    halting = true;
    start_exchange(test_rounds(200));
    halting = false;
    check_exchange("load-halted-sent", "load-halted-taken");
}

static uint32_t ticks[MAX_CPUS];

static void on_tick(struct irq_frame *f)
{
    (void)f;
    ticks[this_cpu()->index]++;
    if (__atomic_load_n(&running, __ATOMIC_SEQ_CST))
        clock_arm(VEC_TICK, clock_short());
    apic_eoi();
}

static void arm_here(uint64_t unused)
{
    (void)unused;
    clock_arm(VEC_TICK, clock_short());
}

/* The same with every processor's timer running, of the higher class. */
static void with_timers(void)
{
    clock_counts(1);
    running = 1;
    irq_set(VEC_TICK, on_tick);
    for (uint32_t i = 0; i < cpu_count; i++)
        ticks[i] = 0;
    arm_here(0);
    cpu_run_others(arm_here, 0);
    start_exchange(test_rounds(20));
    CHECK(wait_word_open((volatile uint32_t *)&ticks[0], 1));
    check_exchange("load-timers-sent", "load-timers-taken");
    for (uint32_t i = 0; i < cpu_count; i++) {
        CHECK(wait_word_open((volatile uint32_t *)&ticks[i], 1));
        test_stat("load-timers-ticks", i, ticks[i]);
    }
    cpu_settle();
}

static void shout(uint64_t vector)
{
    apic_icr(ICR_OTHERS | ICR_ASSERT | (uint32_t)vector, 0);
}

/* Each processor in turn to all others. */
static void broadcast(void)
{
    uint32_t rounds = test_rounds(8), start[MAX_CPUS / 64];
    uint32_t n = cpu_count < 64 ? cpu_count : 64;

    for (uint32_t i = 0; i < n; i++)
        start[i] = cpu_table[i]->received[VEC_ALL];
    for (uint32_t r = 0; r < rounds; r++) {
        for (uint32_t s = 0; s < n; s++) {
            if (s == 0)
                shout(VEC_ALL);
            else
                CHECK(cpu_run(cpu_table[s], shout, VEC_ALL));
            for (uint32_t i = 0; i < n; i++)
                CHECK(wait_word_open(&cpu_table[i]->received[VEC_ALL],
                                     start[i] + r * (n - 1) + s + (i > s ? 1 : 0)));
        }
    }
    cpu_settle();
    irq_window();
    for (uint32_t i = 0; i < n; i++)
        CHECK_EQ(cpu_table[i]->received[VEC_ALL] - start[i], rounds * (n - 1));
}

const struct test load_tests[] = {
    {"load-running", "[SDM3 12.6.3] [SDM3 12.8.4]", running_targets, 0, 0},
    {"load-halted", "[SDM3 12.6.3] [SDM3 12.8.4]", halted_targets, 0, 0},
    {"load-with-timers", "[SDM3 12.8.4]", with_timers, 0, 0},
    {"load-broadcast", "[SDM3 12.6.1]", broadcast, NEED_2_CPUS, 0},
    {0},
};
