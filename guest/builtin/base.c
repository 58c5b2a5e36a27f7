/* SPDX-License-Identifier: MIT */
/* IA32_APIC_BASE: the state machine, its faults, and what survives a transition. */
#include "groups.h"

#define ALL_ONES        0xffffffffu
#define OTHER_BASE      0xfed40000ull
#define VEC             0x61
#define CPUID1_EDX_APIC (1u << 9)

static uint64_t base_bits(void)
{
    return rdmsr(MSR_APIC_BASE) & ~(APIC_BASE_EN | APIC_BASE_EXTD);
}

/* A write that must fault and change nothing. */
static void refused(uint64_t value)
{
    uint64_t before = rdmsr(MSR_APIC_BASE);

    CHECK(!wrmsr_safe(MSR_APIC_BASE, value));
    CHECK_EQ(rdmsr(MSR_APIC_BASE), before);
}

static void xapic_faults(void)
{
    uint64_t on;

    apic_set_mode(APIC_XAPIC);
    on = rdmsr(MSR_APIC_BASE);
    refused(base_bits() | APIC_BASE_EXTD);
    refused(on | 1);
    refused(on | (1ull << 9));
    if (cpu_physical_bits() < 52)
        refused(on | (1ull << cpu_physical_bits()));
    if (!apic_has_x2apic())
        refused(on | APIC_BASE_EXTD);
}

static void disabled_faults(void)
{
    apic_set_mode(APIC_OFF);
    refused(base_bits() | APIC_BASE_EXTD);
    refused(base_bits() | APIC_BASE_EXTD | APIC_BASE_EN);
}

static void x2apic_faults(void)
{
    apic_set_mode(APIC_X2APIC);
    refused(base_bits() | APIC_BASE_EN);
    refused(base_bits() | APIC_BASE_EXTD);
}

static void same_value(void)
{
    uint32_t tpr = 0x50;

    apic_write(APIC_TPR, tpr);
    CHECK(wrmsr_safe(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE)));
    CHECK_EQ(apic_read(APIC_TPR), tpr);
    CHECK(apic_read(APIC_SVR) & SVR_ENABLE);
}

static void disabled_is_absent(void)
{
    uint64_t value;

    apic_set_mode(APIC_XAPIC);
    CHECK(cpuid(1, 0).edx & CPUID1_EDX_APIC);
    apic_set_mode(APIC_OFF);
    CHECK(!(cpuid(1, 0).edx & CPUID1_EDX_APIC));
    CHECK_EQ(apic_mmio_read(APIC_VERSION), ALL_ONES);
    CHECK_EQ(apic_mmio_read(APIC_TPR), ALL_ONES);
    CHECK(!rdmsr_safe(apic_msr(APIC_VERSION), &value));
    apic_set_mode(APIC_XAPIC);
    CHECK(cpuid(1, 0).edx & CPUID1_EDX_APIC);
}

static void disabled_keeps_cr8(void)
{
    uint64_t cr8 = 6;

    apic_set_mode(APIC_XAPIC);
    write_cr8(cr8);
    apic_set_mode(APIC_OFF);
    CHECK_EQ(read_cr8(), cr8);
    write_cr8(cr8 ^ 0xf);
    CHECK_EQ(read_cr8(), cr8 ^ 0xf);
    apic_set_mode(APIC_XAPIC);
    CHECK_EQ(apic_read(APIC_TPR), read_cr8() << 4);
    write_cr8(cr8);
    CHECK_EQ(apic_read(APIC_TPR) >> 4, cr8);
}

static void disabled_deadline(void)
{
    apic_set_mode(APIC_XAPIC);
    apic_set_mode(APIC_OFF);
    CHECK(wrmsr_safe(MSR_TSC_DEADLINE, 1));
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
}

static void send_when_told(uint64_t flag)
{
    volatile uint32_t *go = (volatile uint32_t *)flag;

    wait_word(go, 1);
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC, cpu_table[0]->apic_id);
    wait_word(go, 2);
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC, cpu_table[0]->apic_id);
}

/* Of two interrupts sent, the one that meets a disabled APIC is gone, the other arrives. */
static void disabled_takes_nothing(void)
{
    struct cpu *me = this_cpu(), *other = cpu_table[1];
    uint32_t before = me->received[VEC], sent = other->icr_writes;

    me->scratch = 0;
    cpu_run_async(other, send_when_told, (uint64_t)&me->scratch);
    apic_set_mode(APIC_OFF);
    me->scratch = 1;
    CHECK(wait_word(&other->icr_writes, sent + 1));
    spin(100);
    apic_set_mode(run_mode);
    apic_setup();
    irq_window();
    CHECK_EQ(me->received[VEC], before);
    me->scratch = 2;
    CHECK(wait_word_open(&me->received[VEC], before + 1));
    CHECK(cpu_join(other));
    CHECK_EQ(me->received[VEC], before + 1);
}

static void round_trip(void)
{
    uint32_t version;

    apic_set_mode(APIC_X2APIC);
    version = apic_read(APIC_VERSION);
    CHECK(cpuid(1, 0).edx & CPUID1_EDX_APIC);
    apic_set_mode(APIC_OFF);
    apic_set_mode(APIC_XAPIC);
    CHECK_EQ(apic_read(APIC_VERSION), version);
    CHECK_EQ(apic_read(APIC_ID) >> 24, this_cpu()->apic_id & 0xff);
    apic_set_mode(APIC_X2APIC);
    CHECK_EQ(apic_read(APIC_ID), this_cpu()->apic_id);
    CHECK_EQ(apic_read(APIC_VERSION), version);
}

static void state_survives(void)
{
    apic_set_mode(APIC_XAPIC);
    apic_setup();
    apic_write(APIC_TPR, 0x30);
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VEC);
    apic_set_mode(APIC_X2APIC);
    CHECK_EQ(apic_read(APIC_TPR), 0x30);
    CHECK_EQ(apic_read(APIC_LVT_TIMER), LVT_PERIODIC | VEC);
    CHECK_EQ(apic_read(APIC_SVR), SVR_ENABLE | VEC_SPURIOUS);
}

static void no_eoi(struct irq_frame *f)
{
    (void)f;
}

static void isr_survives(void)
{
    apic_set_mode(APIC_XAPIC);
    apic_setup();
    irq_set(VEC, no_eoi);
    apic_self(VEC);
    irq_window();
    CHECK(apic_isr(VEC));
    apic_set_mode(APIC_X2APIC);
    CHECK(apic_isr(VEC));
    CHECK_EQ(apic_read(APIC_PPR) & 0xf0, VEC & 0xf0);
    apic_eoi();
    CHECK(!apic_isr(VEC));
    CHECK_EQ(apic_read(APIC_PPR), 0);
}

/* No store to the page may act, or write a register, in x2APIC mode. */
static void x2apic_hides_page(void)
{
    struct cpu *me = this_cpu();
    uint32_t before;

    apic_set_mode(APIC_X2APIC);
    apic_setup();
    before = me->received[VEC];
    apic_mmio_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VEC);
    apic_mmio_write(APIC_TPR, 0x70);
    CHECK_EQ(apic_mmio_read(APIC_VERSION), ALL_ONES);
    CHECK_EQ(apic_read(APIC_TPR), 0);
    irq_window();
    CHECK_EQ(me->received[VEC], before);
}

static void xapic_hides_msrs(void)
{
    uint64_t value;

    apic_set_mode(APIC_XAPIC);
    CHECK(!rdmsr_safe(apic_msr(APIC_ID), &value));
    CHECK(!rdmsr_safe(apic_msr(APIC_VERSION), &value));
    CHECK(!wrmsr_safe(apic_msr(APIC_EOI), 0));
    CHECK(!wrmsr_safe(apic_msr(APIC_SELF_IPI), VEC));
}

static void relocate(void)
{
    volatile uint32_t *moved = (volatile uint32_t *)(OTHER_BASE + APIC_VERSION);
    uint64_t old;
    uint32_t version;

    apic_set_mode(APIC_XAPIC);
    old = rdmsr(MSR_APIC_BASE);
    version = apic_read(APIC_VERSION);
    CHECK(wrmsr_safe(MSR_APIC_BASE, (old & 0xfff) | OTHER_BASE));
    CHECK_EQ(*moved, version);
    CHECK(apic_mmio_read(APIC_VERSION) != version);
    CHECK(wrmsr_safe(MSR_APIC_BASE, old));
    CHECK_EQ(apic_read(APIC_VERSION), version);
}

static void bsp_bit_of(uint64_t want)
{
    CHECK_EQ(rdmsr(MSR_APIC_BASE) & APIC_BASE_BSP, want ? APIC_BASE_BSP : 0);
}

static void bsp_bit(void)
{
    bsp_bit_of(1);
    cpu_run_others(bsp_bit_of, 0);
}

const struct test base_tests[] = {
    {"base-bsp-bit", "[SDM3 10.4.1] [SDM3 12.4.4]", bsp_bit, 0, 0},
    {"base-xapic-faults", "[SDM3 12.4.4] [SDM3 12.12.5]", xapic_faults, 0, REF_QEMU},
    {"base-disabled-faults", "[SDM3 12.12.5.1]", disabled_faults, 0, REF_QEMU},
    {"base-x2apic-faults", "[SDM3 12.12.5.1]", x2apic_faults, NEED_X2APIC, 0},
    {"base-same-value", "[SDM3 12.4.4]", same_value, 0, REF_QEMU},
    {"base-disabled-is-absent", "[SDM3 12.4.3]", disabled_is_absent, 0, REF_QEMU},
    {"base-disabled-keeps-cr8", "[SDM3 12.8.6.1]", disabled_keeps_cr8, 0, 0},
    {"base-disabled-deadline", "[SDM3 12.5.4.1]", disabled_deadline, NEED_DEADLINE, 0},
    {"base-disabled-takes-nothing", "[SDM3 12.4.3]", disabled_takes_nothing, NEED_2_CPUS, REF_QEMU},
    {"base-round-trip", "[SDM3 12.12.5.1]", round_trip, NEED_X2APIC, 0},
    {"base-state-survives-x2apic", "[SDM3 12.12.5.1]", state_survives, NEED_X2APIC, 0},
    {"base-isr-survives-x2apic", "[SDM3 12.12.5.1]", isr_survives, NEED_X2APIC, 0},
    {"base-x2apic-hides-page", "[SDM3 12.12.2]", x2apic_hides_page, NEED_X2APIC, REF_QEMU},
    {"base-xapic-hides-msrs", "[SDM3 12.12.1.2]", xapic_hides_msrs, 0, REF_QEMU},
    {"base-relocate", "[SDM3 12.4.5]", relocate, 0, REF_QEMU},
    {0},
};
