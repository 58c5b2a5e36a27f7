/* SPDX-License-Identifier: MIT */
/* INIT and SIPI: starting processors again and again, and what state they start in. */
#include "groups.h"

#define VEC        0x63
#define OTHER_PAGE 0x30
#define FIRST_PAGE 0x08

static void dirty(uint64_t unused)
{
    (void)unused;
    apic_write(APIC_TPR, 0x40);
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | LVT_MASKED | VEC);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_TMICT, 0x10000000);
    apic_write(APIC_LVT_ERROR, VEC);
    apic_self(VEC);
    CHECK(apic_irr(VEC));
}

/* [SDM3 12.4.7.3]: as after reset, but ID and IA32_APIC_BASE stay. */
static void init_state(void)
{
    for (uint32_t i = 1; i < cpu_count; i++) {
        struct cpu *c = cpu_table[i];
        const struct apic_snapshot *s = &c->fresh;
        bool x2apic = run_mode == APIC_X2APIC;

        CHECK(cpu_run(c, dirty, 0));
        CHECK(cpu_start(c));
        CHECK_EQ(s->base & (APIC_BASE_EN | APIC_BASE_EXTD | APIC_BASE_BSP),
                 x2apic ? APIC_BASE_EN | APIC_BASE_EXTD : APIC_BASE_EN);
        CHECK_EQ(x2apic ? s->id : s->id >> 24, c->apic_id);
        CHECK_EQ(s->ldr, x2apic ? apic_logical_id(i) : 0);
        CHECK_EQ(s->dfr, DFR_ALL_FLAT);
        CHECK_EQ(s->svr, 0xff);
        CHECK_EQ(s->tpr | s->irr | s->isr | s->tmict | s->tdcr, 0);
        CHECK_EQ(s->lvt_timer, LVT_MASKED);
        CHECK_EQ(s->lvt_lint0, LVT_MASKED);
        CHECK_EQ(s->lvt_lint1, LVT_MASKED);
        CHECK_EQ(s->lvt_error, LVT_MASKED);
    }
}

static void again_and_again(void)
{
    uint32_t rounds = test_rounds(10);

    for (uint32_t i = 1; i < cpu_count; i++) {
        struct cpu *c = cpu_table[i];
        uint32_t boots = c->boots;

        for (uint32_t n = 0; n < rounds; n++)
            CHECK(cpu_start(c));
        CHECK_EQ(c->boots, boots + rounds);
    }
}

/* No delay between the two, and a SIPI without the assert bit. */
static void all_at_once(void)
{
    uint32_t rounds = test_rounds(4);

    for (uint32_t n = 0; n < rounds; n++) {
        for (uint32_t i = 1; i < cpu_count; i++)
            cpu_forget(cpu_table[i]);
        apic_icr(ICR_INIT | ICR_ASSERT | ICR_OTHERS, 0);
        apic_icr(ICR_SIPI | ICR_OTHERS | FIRST_PAGE, 0);
        for (uint32_t i = 1; i < cpu_count; i++)
            CHECK(cpu_wait_ready(cpu_table[i]));
    }
}

static void second_sipi(void)
{
    struct cpu *c = cpu_table[1];
    uint32_t boots = c->boots;

    for (unsigned i = 0; i < 10; i++)
        apic_icr(ICR_SIPI | ICR_ASSERT | OTHER_PAGE, c->apic_id);
    cpu_settle();
    CHECK_EQ(c->boots, boots);
}

static void other_page(void)
{
    struct cpu *c = cpu_table[1];

    cpu_place_trampoline(OTHER_PAGE);
    CHECK(cpu_start(c));
    CHECK_EQ(c->sipi_page, OTHER_PAGE);
    cpu_place_trampoline(FIRST_PAGE);
    CHECK(cpu_start(c));
    CHECK_EQ(c->sipi_page, FIRST_PAGE);
}

static void deassert(void)
{
    struct cpu *c = cpu_table[1];
    uint32_t boots = c->boots;

    apic_icr(ICR_INIT | ICR_LEVEL, c->apic_id);
    cpu_settle();
    CHECK_EQ(c->boots, boots);
    CHECK(__atomic_load_n(&c->ready, __ATOMIC_SEQ_CST));
}

static void sipi_starts(struct cpu *c)
{
    apic_icr(ICR_SIPI | ICR_ASSERT | FIRST_PAGE, c->apic_id);
    CHECK(cpu_wait_ready(c));
}

/* After INIT nothing but SIPI makes it run: a fixed interrupt does not. */
static void waits_for_sipi(void)
{
    struct cpu *c = cpu_table[1];
    uint32_t boots = c->boots, before = c->received[VEC];

    cpu_forget(c);
    apic_icr(ICR_INIT | ICR_ASSERT, c->apic_id);
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC, c->apic_id);
    spin(20000);
    CHECK_EQ(c->boots, boots);
    CHECK_EQ(c->received[VEC], before);
    sipi_starts(c);
    CHECK_EQ(c->boots, boots + 1);
    CHECK_EQ(c->received[VEC], before);
}

/* SIPI before INIT is no start: whatever came first, after an INIT it waits for another SIPI. */
static void init_drops_sipi(void)
{
    struct cpu *c = cpu_table[1];
    uint32_t boots;

    for (uint32_t n = 0; n < test_rounds(10); n++) {
        cpu_forget(c);
        apic_icr(ICR_SIPI | ICR_ASSERT | FIRST_PAGE, c->apic_id);
        apic_icr(ICR_INIT | ICR_ASSERT, c->apic_id);
        spin(5000);
        cpu_forget(c);
        boots = c->boots;
        spin(5000);
        CHECK_EQ(c->boots, boots);
        CHECK(!__atomic_load_n(&c->ready, __ATOMIC_SEQ_CST));
        sipi_starts(c);
        CHECK_EQ(c->boots, boots + 1);
    }
}

static void spin_for_ever(uint64_t unused)
{
    (void)unused;
    this_cpu()->scratch = 1;
    for (;;)
        cpu_pause();
}

/* INIT is not masked by IF=0, nor by TPR. */
static void interrupts_a_loop(void)
{
    for (uint32_t i = 1; i < cpu_count; i++) {
        struct cpu *c = cpu_table[i];

        c->scratch = 0;
        cpu_run_async(c, spin_for_ever, 0);
        CHECK(wait_word(&c->scratch, 1));
        CHECK(cpu_start(c));
    }
}

static void start_neighbour(uint64_t arg)
{
    struct cpu *c = (struct cpu *)arg;

    CHECK(cpu_start(c));
}

static void by_another(void)
{
    struct cpu *c = cpu_table[2];
    uint32_t boots = c->boots;

    CHECK(cpu_run(cpu_table[1], start_neighbour, (uint64_t)c));
    CHECK_EQ(c->boots, boots + 1);
}

const struct test start_tests[] = {
    {"start-init-state", "[SDM3 12.4.7.3]", init_state, NEED_2_CPUS, 0},
    {"start-again-and-again", "[SDM3 10.4.3]", again_and_again, NEED_2_CPUS, 0},
    {"start-all-at-once", "[SDM3 10.4.4] [SDM3 12.6.1]", all_at_once, NEED_2_CPUS, 0},
    {"start-second-sipi", "[SDM3 10.4.4]", second_sipi, NEED_2_CPUS, 0},
    {"start-other-page", "[SDM3 12.6.1]", other_page, NEED_2_CPUS, 0},
    {"start-deassert", "[SDM3 12.4.7.4]", deassert, NEED_2_CPUS, 0},
    {"start-waits-for-sipi", "[SDM3 12.4.7.3]", waits_for_sipi, NEED_2_CPUS, 0},
    {"start-init-drops-sipi", "[SDM3 12.4.7.3]", init_drops_sipi, NEED_2_CPUS, REF_QEMU},
    {"start-interrupts-a-loop", "[SDM3 12.6.1]", interrupts_a_loop, NEED_2_CPUS, 0},
    {"start-by-another", "[SDM3 10.4.4]", by_another, NEED_3_CPUS, 0},
    {0},
};
