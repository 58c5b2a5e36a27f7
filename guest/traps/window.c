/* SPDX-License-Identifier: MIT */
/* When an interrupt may enter: IF, the shadow of STI, TPR, NMI blocking. */
#include "barrage.h"
#include "groups.h"
#include "ioapic.h"

#define VEC      0x53
#define VEC_SOFT 0x33
#define PIN      14

/* Waits with loads and RDTSC only: nothing here leaves the guest by itself. */
static bool await_without_exits(volatile uint32_t *word, uint32_t value)
{
    uint64_t start = rdtsc();

    while (*word != value)
        if (rdtsc() - start > wait_limit())
            return false;
    return true;
}

/* Lowering CR8 alone must let the interrupt in. */
static void tpr_loop(void)
{
    struct cpu *me = this_cpu();
    uint32_t rounds = test_rounds(200);
    bool came = true;

    for (uint32_t i = 0; i < rounds && came; i++) {
        uint32_t before = me->received[VEC];

        write_cr8(15);
        apic_self(VEC);
        sti();
        spin(4);
        CHECK_EQ(me->received[VEC], before);
        write_cr8(0);
        came = await_without_exits(&me->received[VEC], before + 1);
        cli();
    }
    CHECK(came);
}

/* Raising and lowering CR8 all the time under fire: nothing lost, nothing past the barrier. */
static bool cr8_is_high(void)
{
    return read_cr8() == 15;
}

static void tpr_under_fire(void)
{
    uint32_t n = 0;

    barrage_forbid(cr8_is_high);
    barrage_start(test_rounds(150));
    sti();
    while (!barrage_over()) {
        write_cr8(15);
        n++;
        CHECK_EQ(read_cr8(), 15);
        write_cr8(n & 3);
        if (!(n % 64))
            CHECK_EQ(apic_read(APIC_TPR), (n & 3) << 4);
    }
    write_cr8(0);
    cli();
    barrage_check();
}

/* IF off most of the time; POPF opens the window, not STI. */
static void popf_under_fire(void)
{
    barrage_start(test_rounds(150));
    while (!barrage_over()) {
        __asm__ volatile("pushfq\n orl $0x200, (%%rsp)\n popfq\n nop\n nop" : : : "memory", "cc");
        spin(8);
        cli();
        spin(8);
    }
    barrage_check();
}

/*
 * How often an interrupt may come one instruction too early: never. In the rig seldom: when the
 * host was interrupted just after the guest's STI, its processor does not know of the shadow any
 * more. A VMM that does not respect the shadow would be too early (nearly) every time.
 */
static uint32_t shadows_lost(uint32_t rounds)
{
    return test_ref_is(REF_RIG) ? rounds / 8 : 0;
}

/* The instruction after STI runs before the pending interrupt. */
static void sti_shadow_irq(void)
{
    struct cpu *me = this_cpu();
    uint32_t rounds = test_rounds(100), early = 0;

    for (uint32_t i = 0; i < rounds; i++) {
        uint32_t before = me->received[VEC];
        uint64_t after_sti;

        apic_self(VEC);
        __asm__ volatile("lea 1f(%%rip), %0\n sti\n1: nop\n nop\n nop\n nop"
                         : "=r"(after_sti)
                         :
                         : "memory");
        CHECK(await_without_exits(&me->received[VEC], before + 1));
        cli();
        early += me->last_rip == after_sti;
    }
    CHECK(early <= shadows_lost(rounds));
}

static volatile uint32_t sequence, soft_at, hard_at;

static void on_soft(struct irq_frame *f)
{
    (void)f;
    soft_at = ++sequence;
}

static void on_hard(struct irq_frame *f)
{
    (void)f;
    hard_at = ++sequence;
    apic_eoi();
}

/* STI; INT n with an interrupt pending: the software interrupt is first. */
static void sti_int(void)
{
    uint32_t rounds = test_rounds(50), early = 0;

    irq_set(VEC_SOFT, on_soft);
    irq_set(VEC, on_hard);
    for (uint32_t i = 0; i < rounds; i++) {
        sequence = 0;
        apic_self(VEC);
        __asm__ volatile("sti\n int %0" : : "i"(VEC_SOFT) : "memory");
        CHECK(await_without_exits(&sequence, 2));
        cli();
        CHECK_EQ(soft_at + hard_at, 3);
        early += hard_at == 1;
    }
    CHECK(early <= shadows_lost(rounds));
}

static volatile uint64_t shadow_rip;
static volatile uint32_t nmis_in_shadow;

static void on_nmi(struct irq_frame *f)
{
    nmis_in_shadow += f->rip == shadow_rip;
}

static void send_nmis(uint64_t count)
{
    struct cpu *c = cpu_table[0];

    for (uint32_t i = 0; i < count; i++) {
        uint32_t before = c->received[VEC_NMI];

        apic_icr(ICR_NMI | ICR_ASSERT, c->apic_id);
        if (!wait_word(&c->received[VEC_NMI], before + 1)) {
            test_fail(__FILE__, __LINE__, "every NMI is taken");
            return;
        }
    }
}

/* Nor does an NMI enter between STI and the next instruction. */
static void sti_shadow_nmi(void)
{
    struct cpu *sender = cpu_table[1];
    uint32_t before = this_cpu()->received[VEC_NMI], rounds = test_rounds(300);

    nmis_in_shadow = 0;
    irq_set(VEC_NMI, on_nmi);
    cpu_run_async(sender, send_nmis, rounds);
    while (__atomic_load_n(&sender->work, __ATOMIC_ACQUIRE))
        __asm__ volatile("lea 1f(%%rip), %%rax\n mov %%rax, %0\n sti\n1: nop\n cli"
                         : "=m"(shadow_rip)
                         :
                         : "rax", "memory");
    CHECK(nmis_in_shadow <= shadows_lost(rounds));
    CHECK_EQ(this_cpu()->received[VEC_NMI] - before, rounds);
}

static void send_one_nmi(uint64_t unused)
{
    (void)unused;
    apic_icr(ICR_NMI | ICR_ASSERT, cpu_table[0]->apic_id);
}

/* Two NMIs at once may merge; none blocks the next. */
static void nmi_from_two(void)
{
    struct cpu *me = this_cpu();

    for (uint32_t i = 0; i < test_rounds(50); i++) {
        uint32_t before = me->received[VEC_NMI], now;

        cpu_run_async(cpu_table[1], send_one_nmi, 0);
        cpu_run_async(cpu_table[2], send_one_nmi, 0);
        CHECK(cpu_join(cpu_table[1]));
        CHECK(cpu_join(cpu_table[2]));
        CHECK(wait_word(&me->received[VEC_NMI], before + 1));
        irq_window();
        now = me->received[VEC_NMI];
        CHECK(now - before <= 2);
        send_one_nmi(0);
        CHECK(wait_word(&me->received[VEC_NMI], now + 1));
    }
}

static volatile uint32_t storm_runs;

static void on_storm(struct irq_frame *f)
{
    (void)f;
    storm_runs++;
    apic_eoi();
}

/* A level line that nobody lowers: the program still gets on. */
static void level_storm(void)
{
    volatile uint32_t progress = 0;
    uint64_t start = rdtsc();

    storm_runs = 0;
    irq_set(VEC, on_storm);
    ioapic_route(PIN, RTE_LEVEL | VEC, this_cpu()->apic_id);
    line_set(PIN, true);
    sti();
    while (progress < 20 && rdtsc() - start < wait_limit() * 4)
        progress++;
    line_set(PIN, false);
    cli();
    CHECK_EQ(progress, 20);
    CHECK(storm_runs > 0);
    test_stat("storm-runs", 0, storm_runs);
}

const struct test window_tests[] = {
    {"trap-tpr-loop", "[SDM3 12.8.6]", tpr_loop, 0, REF_SOFT_KVM},
    {"trap-tpr-under-fire", "[SDM3 12.8.6]", tpr_under_fire, NEED_2_CPUS, 0},
    {"trap-popf-under-fire", "[SDM3 7.8.1]", popf_under_fire, NEED_2_CPUS, 0},
    {"trap-sti-shadow-irq", "[SDM2 STI]", sti_shadow_irq, 0, 0},
    {"trap-sti-int", "[SDM2 STI] [SDM3 7.9]", sti_int, NEED_INT_N, 0},
    {"trap-sti-shadow-nmi", "[SDM2 STI]", sti_shadow_nmi, NEED_2_CPUS, REF_QEMU},
    {"trap-nmi-from-two", "[SDM3 7.7.1]", nmi_from_two, NEED_3_CPUS, 0},
    {"trap-level-storm", "[82093AA 3.2.4]", level_storm, NEED_LINES, 0},
    {0},
};
