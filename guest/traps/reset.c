/* SPDX-License-Identifier: MIT */
/* INIT, SIPI and mode changes that hit a processor in the middle of something. */
#include "groups.h"

#define VEC        0x54
#define FIRST_PAGE 0x08

static void started(void)
{
    this_cpu()->scratch = 1;
}

static void read_registers(uint64_t unused)
{
    (void)unused;
    started();
    for (;;)
        apic_read(APIC_ID);
}

static void write_registers(uint64_t unused)
{
    (void)unused;
    started();
    for (uint32_t n = 0;; n++)
        apic_write(APIC_LVT_ERROR, LVT_MASKED | (n & 0xff));
}

static void fault(uint64_t unused)
{
    uint64_t value;

    (void)unused;
    started();
    for (;;)
        rdmsr_safe(apic_msr(APIC_EOI), &value);
}

static void read_port(uint64_t unused)
{
    (void)unused;
    started();
    for (;;)
        inb(0x21);
}

static void sleep(uint64_t unused)
{
    (void)unused;
    started();
    for (;;)
        __asm__ volatile("hlt" : : : "memory");
}

static void take_interrupts(uint64_t unused)
{
    (void)unused;
    started();
    sti();
    for (;;)
        apic_self(VEC);
}

static void loop(uint64_t unused)
{
    (void)unused;
    started();
    for (;;)
        cpu_pause();
}

static const cpu_fn occupations[] = {
    read_registers, write_registers, fault, read_port, sleep, take_interrupts, loop,
};

static void expect_fresh(const struct cpu *c)
{
    CHECK_EQ(c->fresh.tpr | c->fresh.irr | c->fresh.isr, 0);
    CHECK_EQ(c->fresh.svr, 0xff);
    CHECK_EQ(c->fresh.lvt_error, LVT_MASKED);
    CHECK_EQ(c->sipi_page, FIRST_PAGE);
}

/* Whatever it does, INIT and SIPI at once start it clean. */
static void anywhere(void)
{
    uint32_t kinds = sizeof(occupations) / sizeof(occupations[0]);

    for (uint32_t n = 0; n < test_rounds(3) * kinds; n++) {
        for (uint32_t i = 1; i < cpu_count; i++) {
            struct cpu *c = cpu_table[i];
            uint32_t boots = c->boots;

            c->scratch = 0;
            cpu_run_async(c, occupations[(n + i) % kinds], 0);
            CHECK(wait_word(&c->scratch, 1));
            spin(n * 7 % 64);
            CHECK(cpu_start(c));
            CHECK_EQ(c->boots, boots + 1);
            expect_fresh(c);
        }
    }
}

/* The same for all at once, by shorthand, and the SIPI without its assert bit. */
static void everyone(void)
{
    uint32_t kinds = sizeof(occupations) / sizeof(occupations[0]);

    for (uint32_t n = 0; n < test_rounds(3) * kinds; n++) {
        for (uint32_t i = 1; i < cpu_count; i++) {
            cpu_table[i]->scratch = 0;
            cpu_run_async(cpu_table[i], occupations[(n + i) % kinds], 0);
        }
        for (uint32_t i = 1; i < cpu_count; i++)
            CHECK(wait_word(&cpu_table[i]->scratch, 1));
        for (uint32_t i = 1; i < cpu_count; i++)
            cpu_forget(cpu_table[i]);
        apic_icr(ICR_INIT | ICR_ASSERT | ICR_OTHERS, 0);
        apic_icr(ICR_SIPI | ICR_OTHERS | FIRST_PAGE, 0);
        for (uint32_t i = 1; i < cpu_count; i++) {
            CHECK(cpu_wait_ready(cpu_table[i]));
            expect_fresh(cpu_table[i]);
        }
    }
}

static void answer(uint64_t unused)
{
    (void)unused;
}

/* What a processor that does not answer is waiting for. */
static void diagnose(struct cpu *c)
{
    uint32_t boots = c->boots, pings = c->received[VEC_PING];

    print("# CPU %u: %u starts, ready %u, %u pings", c->index, boots, c->ready, pings);
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC_PING, c->apic_id);
    print("; after another ping %s", cpu_join(c) ? "it works" : "nothing");
    apic_icr(ICR_SIPI | ICR_ASSERT | FIRST_PAGE, c->apic_id);
    spin(100000);
    print("; after another SIPI %u starts\n", c->boots - boots);
}

/* INITs and SIPIs in a burst: the processor ends up running, once, from the last SIPI. */
static void burst(void)
{
    struct cpu *c = cpu_table[1];

    for (uint32_t n = 0; n < test_rounds(20); n++) {
        for (uint32_t i = 0; i < n % 4; i++) {
            apic_icr(ICR_INIT | ICR_ASSERT, c->apic_id);
            apic_icr(ICR_SIPI | ICR_ASSERT | FIRST_PAGE, c->apic_id);
        }
        CHECK(cpu_start(c));
        expect_fresh(c);
        apic_icr(ICR_SIPI | ICR_ASSERT | FIRST_PAGE, c->apic_id);
        if (!cpu_run(c, answer, 0)) {
            test_fail(__FILE__, __LINE__, "a started processor takes work");
            diagnose(c);
            return;
        }
    }
}

/* Changes the mode of its own APIC all the time, with interrupts open. */
static void toggle(uint64_t rounds)
{
    for (uint32_t n = 0; n < rounds; n++) {
        cli();
        apic_set_mode(n % 2 ? APIC_OFF : APIC_XAPIC);
        if (n % 2 == 0)
            apic_setup();
        sti();
        spin(n % 32);
    }
    cli();
    apic_set_mode(run_mode);
    apic_setup();
    irq_window();
}

/* Messages to a processor in transition arrive there or nowhere; afterwards all is as before. */
static void modes_under_fire(void)
{
    struct cpu *c = cpu_table[1];
    uint32_t sent = 0, mine = this_cpu()->received[VEC], before = c->received[VEC], last;

    cpu_run_async(c, toggle, test_rounds(200));
    while (__atomic_load_n(&c->work, __ATOMIC_ACQUIRE)) {
        apic_icr(ICR_FIXED | ICR_ASSERT | VEC, c->apic_id);
        sent++;
        spin(sent % 64);
    }
    irq_window();
    CHECK_EQ(this_cpu()->received[VEC], mine);
    CHECK(c->received[VEC] - before <= sent);
    last = c->received[VEC];
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC, c->apic_id);
    CHECK(wait_word(&c->received[VEC], last + 1));
}

const struct test reset_tests[] = {
    {"trap-init-anywhere", "[SDM3 10.4.4] [SDM3 12.4.7.3]", anywhere, NEED_2_CPUS, 0},
    {"trap-init-everyone", "[SDM3 10.4.4]", everyone, NEED_2_CPUS, 0},
    {"trap-init-burst", "[SDM3 10.4.4]", burst, NEED_2_CPUS, 0},
    {"trap-modes-under-fire", "[SDM3 12.4.3]", modes_under_fire, NEED_2_CPUS, 0},
    {0},
};
