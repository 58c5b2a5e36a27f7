/* SPDX-License-Identifier: MIT */
/* Device interrupts: I/O APIC pins edge and level, remote IRR, retargeting; the 8259 by ExtINT. */
#include "ioapic.h"

#include "groups.h"

#define PIN     14
#define PIN2    15
#define PIC_IRQ 10
#define VEC     0x65
#define VEC2    0x85
#define VEC_EXT (VEC_PIC + PIC_IRQ)

static volatile uint32_t runs;
static volatile bool lower_in_handler, rirr_inside;
static volatile uint8_t tmr_inside;

static void reset_line(void)
{
    line_set(PIN, false);
    line_set(PIN2, false);
    runs = 0;
    lower_in_handler = true;
}

static void on_line(struct irq_frame *f)
{
    runs++;
    rirr_inside = ioapic_low(PIN) & RTE_REMOTE_IRR;
    tmr_inside = apic_tmr((uint8_t)f->vector);
    if (lower_in_handler)
        line_set(PIN, false);
    apic_eoi();
}

static void route(uint32_t low)
{
    reset_line();
    irq_set(VEC, on_line);
    ioapic_route(PIN, low | VEC, this_cpu()->apic_id);
}

static void expect_runs(uint32_t count)
{
    CHECK(wait_word_open(&runs, count));
    irq_window();
    CHECK_EQ(runs, count);
}

static void pulse(void)
{
    line_set(PIN, true);
    line_set(PIN, false);
}

static void registers(void)
{
    uint32_t version = ioapic_read(IOAPIC_VERSION), id = ioapic_read(IOAPIC_ID);

    CHECK((version & 0xff) == 0x11 || (version & 0xff) >= 0x20);
    CHECK(ioapic_pins() >= 24);
    ioapic_write(IOAPIC_VERSION, ~version);
    CHECK_EQ(ioapic_read(IOAPIC_VERSION), version);
    ioapic_write(IOAPIC_ID, 0xffffffff);
    CHECK_EQ(ioapic_read(IOAPIC_ID), 0x0f000000);
    CHECK_EQ(ioapic_read(IOAPIC_ARB), 0x0f000000);
    ioapic_write(IOAPIC_ARB, 0);
    CHECK_EQ(ioapic_read(IOAPIC_ARB), 0x0f000000);
    ioapic_write(IOAPIC_ID, id);
    CHECK_EQ(ioapic_read(IOAPIC_ID), id);
}

/* Remote IRR and delivery status are read-only. */
static void rte_readback(void)
{
    ioapic_route(PIN, RTE_MASKED | RTE_REMOTE_IRR | RTE_PENDING | RTE_LEVEL | VEC, 0xab);
    CHECK_EQ(ioapic_low(PIN), RTE_MASKED | RTE_LEVEL | VEC);
    CHECK_EQ(ioapic_read(IOAPIC_RTE + 2 * PIN + 1) >> 24, 0xab);
}

static void edge(void)
{
    route(0);
    pulse();
    expect_runs(1);
    CHECK_EQ(tmr_inside, 0);
    lower_in_handler = false;
    line_set(PIN, true);
    expect_runs(2);
    line_set(PIN, true); /* still high: no edge */
    expect_runs(2);
    line_set(PIN, false);
    expect_runs(2);
}

static void edge_masked(void)
{
    route(RTE_MASKED);
    pulse();
    irq_window();
    ioapic_route(PIN, VEC, this_cpu()->apic_id);
    irq_window();
    CHECK_EQ(runs, 0);
    pulse();
    expect_runs(1);
}

static void level(void)
{
    route(RTE_LEVEL);
    line_set(PIN, true);
    expect_runs(1);
    CHECK(rirr_inside);
    CHECK_EQ(tmr_inside, 1);
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
    line_set(PIN, true);
    expect_runs(2);
}

static void bounce(struct irq_frame *f)
{
    (void)f;
    runs++;
    line_set(PIN, false);
    line_set(PIN, true);
    line_set(PIN, false);
    apic_eoi();
}

static void level_bounces(void)
{
    route(RTE_LEVEL);
    irq_set(VEC, bounce);
    line_set(PIN, true);
    expect_runs(1);
}

static void lower_second(struct irq_frame *f)
{
    (void)f;
    if (++runs == 2)
        line_set(PIN, false);
    apic_eoi();
}

/* The line is still high at the EOI: at once again, also out of a halt. */
static void level_stays(void)
{
    route(RTE_LEVEL);
    irq_set(VEC, lower_second);
    line_set(PIN, true);
    while (runs < 2)
        sti_hlt_cli();
    irq_window();
    CHECK_EQ(runs, 2);
}

static void mask_and_eoi(struct irq_frame *f)
{
    (void)f;
    runs++;
    ioapic_route(PIN, RTE_MASKED | RTE_LEVEL | VEC, this_cpu()->apic_id);
    apic_eoi();
}

static void level_masked_by_handler(void)
{
    route(RTE_LEVEL);
    irq_set(VEC, mask_and_eoi);
    line_set(PIN, true);
    expect_runs(1);
    irq_set(VEC, on_line);
    ioapic_route(PIN, RTE_LEVEL | VEC, this_cpu()->apic_id);
    expect_runs(2);
}

static void level_masked(void)
{
    route(RTE_LEVEL | RTE_MASKED);
    line_set(PIN, true);
    irq_window();
    CHECK_EQ(runs, 0);
    ioapic_route(PIN, RTE_LEVEL | VEC, this_cpu()->apic_id);
    expect_runs(1);
}

/* TMR says how the vector came last; writing the entry alone changes nothing. */
static void trigger_modes(void)
{
    route(0);
    pulse();
    expect_runs(1);
    CHECK_EQ(tmr_inside, 0);
    ioapic_route(PIN, RTE_LEVEL | VEC, this_cpu()->apic_id);
    CHECK(!apic_tmr(VEC));
    line_set(PIN, true);
    expect_runs(2);
    CHECK_EQ(tmr_inside, 1);
    ioapic_route(PIN, VEC, this_cpu()->apic_id);
    CHECK(apic_tmr(VEC));
    pulse();
    expect_runs(3);
    CHECK_EQ(tmr_inside, 0);
}

static void in_service(struct irq_frame *f)
{
    (void)f;
    runs++;
}

/* Changing the entry to edge forgets remote IRR; back at level the high line fires again. */
static void edge_trick(void)
{
    route(RTE_LEVEL);
    irq_set(VEC, in_service);
    line_set(PIN, true);
    expect_runs(1);
    CHECK(ioapic_low(PIN) & RTE_REMOTE_IRR);
    ioapic_write(IOAPIC_RTE + 2 * PIN, RTE_MASKED | VEC);
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
    ioapic_write(IOAPIC_RTE + 2 * PIN, RTE_LEVEL | VEC);
    CHECK(ioapic_low(PIN) & RTE_REMOTE_IRR);
    CHECK(apic_irr(VEC));
    irq_set(VEC, on_line);
    apic_eoi();
    expect_runs(2);
}

static void eoi_register(void)
{
    if ((ioapic_read(IOAPIC_VERSION) & 0xff) < 0x20) {
        test_skip("this I/O APIC version has no EOI register");
        return;
    }
    route(RTE_LEVEL);
    irq_set(VEC, in_service);
    line_set(PIN, true);
    expect_runs(1);
    line_set(PIN, false);
    ioapic_eoi(VEC);
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
    apic_eoi();
}

/* With broadcasts off the local EOI leaves remote IRR; only the EOI register clears it. */
static void directed_eoi(void)
{
    if (!(apic_read(APIC_VERSION) & VERSION_NO_BROADCAST)) {
        test_skip("EOI broadcasts cannot be suppressed here");
        return;
    }
    apic_write(APIC_SVR, SVR_ENABLE | SVR_NO_BROADCAST | VEC_SPURIOUS);
    route(RTE_LEVEL);
    line_set(PIN, true);
    expect_runs(1);
    CHECK(ioapic_low(PIN) & RTE_REMOTE_IRR);
    ioapic_eoi(VEC);
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
    apic_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
}

/* Two entries with one vector: one EOI serves both. */
static void shared_vector(void)
{
    route(RTE_LEVEL);
    ioapic_route(PIN2, RTE_LEVEL | VEC, this_cpu()->apic_id);
    irq_set(VEC, in_service);
    line_set(PIN, true);
    line_set(PIN2, true);
    expect_runs(1);
    line_set(PIN, false);
    line_set(PIN2, false);
    apic_eoi();
    irq_set(VEC, on_line);
    irq_window();
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
    CHECK(!(ioapic_low(PIN2) & RTE_REMOTE_IRR));
}

static volatile uint32_t second_ran_nested;
static volatile bool first_active;

static void on_second(struct irq_frame *f)
{
    (void)f;
    runs++;
    second_ran_nested = first_active;
    apic_eoi();
}

/* VEC in service, VEC2 pending here; both entries move to CPU 1 before the EOIs. */
static void retarget_inside(struct irq_frame *f)
{
    uint32_t other = cpu_table[1]->apic_id;

    (void)f;
    first_active = true;
    runs++;
    line_set(PIN2, true);
    CHECK(apic_irr(VEC2));
    line_set(PIN, false);
    line_set(PIN2, false);
    ioapic_route(PIN, RTE_LEVEL | VEC, other);
    ioapic_route(PIN2, RTE_LEVEL | VEC2, other);
    CHECK(ioapic_low(PIN) & RTE_REMOTE_IRR);
    CHECK(ioapic_low(PIN2) & RTE_REMOTE_IRR);
    apic_eoi();
    first_active = false;
}

static void retarget(void)
{
    struct cpu *other = cpu_table[1];
    uint32_t before = other->received[VEC] + other->received[VEC2];

    route(RTE_LEVEL);
    irq_set(VEC, retarget_inside);
    irq_set(VEC2, on_second);
    ioapic_route(PIN2, RTE_LEVEL | VEC2, this_cpu()->apic_id);
    line_set(PIN, true);
    expect_runs(2);
    CHECK(!second_ran_nested);
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
    CHECK(!(ioapic_low(PIN2) & RTE_REMOTE_IRR));
    cpu_settle();
    CHECK_EQ(other->received[VEC] + other->received[VEC2], before);
}

static void lower_and_eoi(struct irq_frame *f)
{
    (void)f;
    line_set(PIN, false);
    apic_eoi();
}

static void to_cpu(void)
{
    struct cpu *other = cpu_table[1];
    uint32_t before = other->received[VEC], mine = this_cpu()->received[VEC];

    route(RTE_LEVEL);
    irq_set(VEC, lower_and_eoi);
    ioapic_route(PIN, RTE_LEVEL | VEC, other->apic_id);
    line_set(PIN, true);
    CHECK(wait_word(&other->received[VEC], before + 1));
    cpu_settle();
    irq_window();
    CHECK_EQ(other->received[VEC], before + 1);
    CHECK_EQ(this_cpu()->received[VEC], mine);
    CHECK(!(ioapic_low(PIN) & RTE_REMOTE_IRR));
}

/* Logical destination DH: CPUs 0, 2 and 3. */
static void to_set(void)
{
    uint32_t before[4];

    route(RTE_LEVEL);
    irq_set(VEC, lower_and_eoi);
    for (unsigned i = 0; i < 4; i++)
        before[i] = cpu_table[i]->received[VEC];
    ioapic_route(PIN, RTE_LEVEL | RTE_LOGICAL | VEC, 0x0d);
    line_set(PIN, true);
    for (unsigned i = 0; i < 4; i++)
        CHECK(wait_word_open(&cpu_table[i]->received[VEC], before[i] + (i != 1)));
    cpu_settle();
    irq_window();
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(cpu_table[i]->received[VEC], before[i] + (i != 1));
}

static void as_nmi(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC_NMI];

    route(RTE_NMI);
    pulse();
    CHECK(wait_word(&me->received[VEC_NMI], before + 1));
    irq_window();
    CHECK_EQ(me->received[VEC_NMI], before + 1);
    CHECK_EQ(runs, 0);
}

static volatile uint8_t ext_isr;

static void on_ext(struct irq_frame *f)
{
    (void)f;
    runs++;
    ext_isr = apic_isr(VEC_EXT);
    line_set(PIC_IRQ, false);
    pic_eoi(PIC_IRQ);
}

static void ext_prepare(uint32_t lint0)
{
    runs = 0;
    line_set(PIC_IRQ, false);
    irq_set(VEC_EXT, on_ext);
    pic_init();
    pic_unmask(PIC_IRQ);
    apic_write(APIC_LVT_LINT0, lint0);
}

static void ext_finish(void)
{
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    line_set(PIC_IRQ, false);
    pic_mask_all();
}

/* The 8259's own vector, past TPR, with no ISR bit. */
static void ext_int(void)
{
    ext_prepare(LVT_EXTINT);
    apic_write(APIC_TPR, 0xff);
    line_set(PIC_IRQ, true);
    expect_runs(1);
    CHECK_EQ(ext_isr, 0);
    ext_finish();
}

static void ext_int_masked(void)
{
    ext_prepare(LVT_MASKED | LVT_EXTINT);
    line_set(PIC_IRQ, true);
    irq_window();
    CHECK_EQ(runs, 0);
    CHECK(pic_requested(PIC_IRQ));
    apic_write(APIC_LVT_LINT0, LVT_EXTINT);
    expect_runs(1);
    ext_finish();
}

static volatile uint32_t fixed_at, ext_at, moment;

static void on_fixed_order(struct irq_frame *f)
{
    (void)f;
    fixed_at = ++moment;
    apic_eoi();
}

static void on_ext_order(struct irq_frame *f)
{
    ext_at = ++moment;
    on_ext(f);
}

static void ext_int_first(void)
{
    ext_prepare(LVT_EXTINT);
    moment = 0;
    irq_set(VEC, on_fixed_order);
    irq_set(VEC_EXT, on_ext_order);
    apic_self(VEC);
    line_set(PIC_IRQ, true);
    CHECK(wait_word_open(&moment, 2));
    CHECK(ext_at < fixed_at);
    ext_finish();
}

/* A disabled APIC leaves the 8259's line on the processor itself. */
static void ext_int_without_apic(void)
{
    ext_prepare(LVT_MASKED);
    apic_set_mode(APIC_OFF);
    line_set(PIC_IRQ, true);
    sti();
    for (uint32_t i = 0; i < 1000000 && !runs; i++)
        cpu_pause();
    cli();
    CHECK_EQ(runs, 1);
    apic_set_mode(run_mode);
    apic_setup();
    ext_finish();
}

const struct test ioapic_tests[] = {
    {"ioapic-registers", "[82093AA 3.2]", registers, NEED_IOAPIC, 0},
    {"ioapic-rte-readback", "[82093AA 3.2.4]", rte_readback, NEED_IOAPIC, 0},
    {"ioapic-edge", "[82093AA 3.2.4]", edge, NEED_LINES, REF_QEMU},
    {"ioapic-edge-masked", "[82093AA 3.2.4]", edge_masked, NEED_LINES, 0},
    {"ioapic-level", "[82093AA 3.2.4] [SDM3 12.8.5]", level, NEED_LINES, 0},
    {"ioapic-level-bounces", "[82093AA 3.2.4]", level_bounces, NEED_LINES, 0},
    {"ioapic-level-stays", "[SDM3 12.8.5]", level_stays, NEED_LINES, 0},
    {"ioapic-level-masked-by-handler", "[82093AA 3.2.4]", level_masked_by_handler, NEED_LINES, 0},
    {"ioapic-level-masked", "[82093AA 3.2.4]", level_masked, NEED_LINES, 0},
    {"ioapic-trigger-modes", "[SDM3 12.8.4]", trigger_modes, NEED_LINES, 0},
    {"ioapic-edge-trick", "[82093AA 3.2.4]", edge_trick, NEED_LINES, 0},
    {"ioapic-eoi-register", "[SDM3 12.8.5]", eoi_register, NEED_LINES, 0},
    {"ioapic-directed-eoi", "[SDM3 12.8.5]", directed_eoi, NEED_LINES, 0},
    {"ioapic-shared-vector", "[SDM3 12.8.5]", shared_vector, NEED_LINES, 0},
    {"ioapic-retarget", "[SDM3 12.8.5]", retarget, NEED_LINES | NEED_2_CPUS, 0},
    {"ioapic-to-cpu", "[SDM3 12.6.2.1]", to_cpu, NEED_LINES | NEED_2_CPUS, 0},
    {"ioapic-to-set", "[SDM3 12.6.2.2]", to_set, NEED_LINES | NEED_4_CPUS, 0},
    {"ioapic-as-nmi", "[82093AA 3.2.4]", as_nmi, NEED_LINES, 0},
    {"ioapic-ext-int", "[SDM3 12.5.1] [8259A]", ext_int, NEED_LINES, 0},
    {"ioapic-ext-int-masked", "[SDM3 12.5.1] [8259A]", ext_int_masked, NEED_LINES, 0},
    {"ioapic-ext-int-first", "[SDM3 12.8.1]", ext_int_first, NEED_LINES, 0},
    {"ioapic-ext-int-without-apic", "[SDM3 12.4.3]", ext_int_without_apic, NEED_LINES, REF_QEMU},
    {0},
};
