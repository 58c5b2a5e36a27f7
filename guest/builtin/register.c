/* SPDX-License-Identifier: MIT */
/* Every register's access rules, by MMIO and by MSR, and the values that read back. */
#include "groups.h"

#define VEC     0x62
#define ILLEGAL 5

enum access { NONE = 0, R = 1, W = 2, RW = 3 };

struct access_row {
    uint16_t first, last; /* MSR numbers */
    uint8_t access;
};

/* What x2APIC mode offers; all else from 800H to 8FFH faults. [SDM3 12.12.1.2] */
static const struct access_row x2apic_map[] = {
    {0x802, 0x803, R},  {0x808, 0x808, RW}, {0x80a, 0x80a, R},  {0x80b, 0x80b, W},
    {0x80d, 0x80d, R},  {0x80f, 0x80f, RW}, {0x810, 0x827, R},  {0x828, 0x828, RW},
    {0x82f, 0x82f, RW}, {0x830, 0x830, RW}, {0x832, 0x838, RW}, {0x839, 0x839, R},
    {0x83e, 0x83e, RW}, {0x83f, 0x83f, W},
};

static bool has_cmci(void)
{
    return ((apic_read(APIC_VERSION) >> 16) & 0xff) >= 6;
}

/* The arbitration priority is gone from Intel's x2APIC mode and readable in AMD's. [APM2 16.11] */
static bool has_apr(void)
{
    return cpuid(0, 0).ecx == 0x444d4163; /* AuthenticAMD */
}

static enum access access_of(uint32_t msr)
{
    if (msr == apic_msr(APIC_APR))
        return has_apr() ? R : NONE;
    if (msr == apic_msr(APIC_LVT_CMCI) && !has_cmci())
        return NONE;
    for (unsigned i = 0; i < sizeof(x2apic_map) / sizeof(x2apic_map[0]); i++)
        if (msr >= x2apic_map[i].first && msr <= x2apic_map[i].last)
            return (enum access)x2apic_map[i].access;
    return NONE;
}

static void expect_access(uint32_t msr, bool got, bool want, const char *what)
{
    if (got == want)
        return;
    print("# MSR 0x%x: %s %s\n", msr, what, got ? "did not fault" : "faulted");
    test_fail(__FILE__, __LINE__, "the access follows the register map");
}

static void sweep_msr(uint32_t msr)
{
    enum access a = access_of(msr);
    uint64_t value;
    bool readable = rdmsr_safe(msr, &value);

    expect_access(msr, readable, a & R, "RDMSR");
    if (readable && msr != apic_msr(APIC_ICR))
        CHECK_EQ(value >> 32, 0);
    if (msr == apic_msr(APIC_ICR))
        return;
    expect_access(msr, wrmsr_safe(msr, ~0ull), false, "WRMSR of all ones");
    /* ESR takes nothing but 0; SELF_IPI would send. */
    if (a == RW)
        expect_access(msr, wrmsr_safe(msr, msr == apic_msr(APIC_ESR) ? 0 : value), true,
                      "WRMSR of the value read");
    else if (msr != apic_msr(APIC_SELF_IPI))
        expect_access(msr, wrmsr_safe(msr, 0), a & W, "WRMSR of 0");
}

static void x2apic_sweep(void)
{
    apic_set_mode(APIC_X2APIC);
    apic_setup();
    for (uint32_t msr = 0x800; msr <= 0x8ff; msr++)
        sweep_msr(msr);
}

static void x2apic_self_ipi_bits(void)
{
    static const uint32_t bad[] = {0x100, 0xff00, 0xff000000};
    struct cpu *me = this_cpu();
    uint32_t before = me->received[0];

    apic_set_mode(APIC_X2APIC);
    for (unsigned i = 0; i < 3; i++)
        CHECK(!wrmsr_safe(apic_msr(APIC_SELF_IPI), bad[i] | VEC));
    CHECK(!wrmsr_safe(apic_msr(APIC_EOI), 1));
    irq_window();
    CHECK_EQ(me->received[0], before);
    CHECK_EQ(apic_irr(VEC), false);
}

static void x2apic_upper_half(void)
{
    static const uint16_t regs[] = {APIC_TPR, APIC_SVR, APIC_LVT_TIMER, APIC_TMICT, APIC_TDCR};

    apic_set_mode(APIC_X2APIC);
    for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++)
        CHECK(!wrmsr_safe(apic_msr(regs[i]), (1ull << 32) | apic_read(regs[i])));
}

static void version(void)
{
    uint32_t v = apic_read(APIC_VERSION);

    CHECK((v & 0xff) >= 0x10 && (v & 0xff) <= 0x15);
    CHECK(((v >> 16) & 0xff) >= 3);
}

static void id_of(uint64_t unused)
{
    struct cpu *me = this_cpu();
    uint32_t id = apic_read(APIC_ID);

    (void)unused;
    CHECK_EQ(me->mode == APIC_X2APIC ? id : id >> 24, me->apic_id);
    CHECK_EQ(cpuid(1, 0).ebx >> 24, me->apic_id & 0xff);
    if (me->mode == APIC_X2APIC)
        CHECK_EQ(cpuid(0xb, 0).edx, id);
}

static void ids(void)
{
    id_of(0);
    cpu_run_others(id_of, 0);
}

static void x2apic_id_fixed(void)
{
    apic_set_mode(APIC_X2APIC);
    CHECK(!wrmsr_safe(apic_msr(APIC_ID), apic_read(APIC_ID)));
    CHECK(!wrmsr_safe(apic_msr(APIC_LDR), 1));
}

/* Some processors take a new ID, some ignore it; none faults, and no other bit sticks. */
static void xapic_id_write(void)
{
    uint32_t old, now;

    apic_set_mode(APIC_XAPIC);
    old = apic_read(APIC_ID);
    apic_write(APIC_ID, 0x2a123456);
    now = apic_read(APIC_ID);
    CHECK(now == old || now == 0x2a000000);
    apic_write(APIC_ID, old);
    CHECK_EQ(apic_read(APIC_ID), old);
}

/* A written ID is not kept through the disabled state, nor taken into x2APIC mode. */
static void xapic_id_forgotten(void)
{
    uint32_t old;

    apic_set_mode(APIC_XAPIC);
    old = apic_read(APIC_ID);
    apic_write(APIC_ID, 0x2a000000);
    apic_set_mode(APIC_OFF);
    apic_set_mode(APIC_XAPIC);
    CHECK_EQ(apic_read(APIC_ID), old);
    apic_write(APIC_ID, old);
    if (!apic_has_x2apic())
        return;
    apic_write(APIC_ID, 0x2a000000);
    apic_set_mode(APIC_X2APIC);
    CHECK_EQ(apic_read(APIC_ID), this_cpu()->apic_id);
}

static void ldr_of(uint64_t unused)
{
    struct cpu *me = this_cpu();

    (void)unused;
    CHECK_EQ(apic_read(APIC_LDR), apic_logical_id(me->index) << (me->mode == APIC_XAPIC ? 24 : 0));
}

static void ldr(void)
{
    ldr_of(0);
    cpu_run_others(ldr_of, 0);
}

static void xapic_ldr_dfr_masks(void)
{
    apic_set_mode(APIC_XAPIC);
    apic_write(APIC_LDR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_LDR), 0xff000000);
    apic_write(APIC_DFR, 0);
    CHECK_EQ(apic_read(APIC_DFR), 0x0fffffff);
    apic_write(APIC_DFR, DFR_ALL_FLAT);
    CHECK_EQ(apic_read(APIC_DFR), DFR_ALL_FLAT);
}

static void xapic_masks(void)
{
    uint32_t svr = apic_read(APIC_VERSION) & VERSION_NO_BROADCAST ? 0x13ff : 0x3ff;
    uint32_t timer = apic_has_deadline() ? 0x710ff : 0x310ff;

    apic_set_mode(APIC_XAPIC);
    apic_write(APIC_SVR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_SVR), svr);
    apic_setup();
    /* bit 12, delivery status, is read-only */
    apic_write(APIC_LVT_TIMER, 0xffffffff);
    CHECK_EQ(apic_read(APIC_LVT_TIMER) | 0x1000, timer);
    apic_write(APIC_LVT_ERROR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_LVT_ERROR) & ~0x1700u, 0x100ff);
    apic_write(APIC_LVT_LINT0, 0xffffffff);
    CHECK_EQ(apic_read(APIC_LVT_LINT0) & ~0x5000u, 0x1a7ff);
    apic_write(APIC_TDCR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_TDCR), 0xb);
    apic_write(APIC_TPR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_TPR), 0xff);
    apic_write(APIC_TPR, 0);
}

static void xapic_read_only(void)
{
    static const uint16_t regs[] = {APIC_VERSION, APIC_PPR, APIC_ISR,
                                    APIC_TMR,     APIC_IRR, APIC_TMCCT};

    apic_set_mode(APIC_XAPIC);
    apic_setup();
    for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++) {
        uint32_t before = apic_read(regs[i]);

        apic_write(regs[i], ~before);
        CHECK_EQ(apic_read(regs[i]), before);
    }
}

/* Reserved offsets and odd widths may read as anything, but never fault, nor hang. */
static void xapic_odd_accesses(void)
{
    volatile uint8_t *page = (volatile uint8_t *)APIC_DEFAULT_BASE;
    uint8_t bytes = 0;

    apic_set_mode(APIC_XAPIC);
    for (uint32_t reg = 0; reg < 0x1000; reg += 0x10)
        bytes |= (uint8_t)apic_mmio_read(reg);
    for (uint32_t i = 0; i < 16; i++)
        bytes |= page[APIC_VERSION + i];
    bytes |= (uint8_t) * (volatile uint16_t *)(page + APIC_VERSION);
    bytes |= (uint8_t) * (volatile uint64_t *)(page + APIC_VERSION);
    apic_mmio_write(0x3d0, bytes);
    apic_mmio_write(0x290, bytes);
    apic_write(APIC_ESR, 0);
    CHECK_EQ(apic_read(APIC_VERSION) & 0xf0, 0x10);
}

static void lvts_masked_while_off(void)
{
    static const uint16_t regs[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};

    for (unsigned i = 0; i < 4; i++)
        apic_write(regs[i], VEC);
    apic_write(APIC_SVR, VEC_SPURIOUS);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(apic_read(regs[i]) & LVT_MASKED);
        apic_write(regs[i], VEC);
        CHECK(apic_read(regs[i]) & LVT_MASKED);
    }
    apic_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
    for (unsigned i = 0; i < 4; i++)
        CHECK(apic_read(regs[i]) & LVT_MASKED);
}

static void esr_clean(void)
{
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
    CHECK_EQ(apic_read(APIC_ESR), 0);
    if (this_cpu()->mode == APIC_X2APIC)
        CHECK(!wrmsr_safe(apic_msr(APIC_ESR), 1));
}

/* A machine that wrongly delivers the vector does no further harm. */
static void swallow(struct irq_frame *f)
{
    (void)f;
    test_fail(__FILE__, __LINE__, "an illegal vector is not delivered");
    apic_eoi();
}

/* An error shows only after a write latches it, and interrupts through its LVT once. */
static void esr_latches(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC];

    esr_clean();
    apic_write(APIC_LVT_ERROR, VEC);
    irq_set(ILLEGAL, swallow);
    apic_self(ILLEGAL);
    CHECK_EQ(apic_read(APIC_ESR), 0);
    irq_window();
    CHECK_EQ(me->received[VEC], before + 1);
    apic_write(APIC_ESR, 0);
    CHECK(apic_read(APIC_ESR) & 0x20);
    apic_write(APIC_ESR, 0);
    CHECK_EQ(apic_read(APIC_ESR), 0);
}

static void esr_illegal_register(void)
{
    apic_set_mode(APIC_XAPIC);
    esr_clean();
    apic_mmio_read(0x290);
    apic_write(APIC_ESR, 0);
    CHECK_EQ(apic_read(APIC_ESR), 0x80);
}

/* An ID that nobody has; in xAPIC mode with all 254 in use there may be none. */
static uint32_t absent_id(void)
{
    uint32_t id = 0xfe;

    for (uint32_t i = 0; i < cpu_count; i++)
        if (cpu_table[i]->apic_id == id)
            id--;
    return id;
}

static void xapic_icr_readback(void)
{
    static const uint32_t lows[] = {0x4000 | VEC, 0x4100 | VEC, 0x0800 | VEC, 0x4400, 0xc000 | VEC};

    apic_set_mode(APIC_XAPIC);
    apic_setup();
    for (unsigned i = 0; i < sizeof(lows) / sizeof(lows[0]); i++) {
        apic_mmio_write(APIC_ICR2, absent_id() << 24);
        apic_mmio_write(APIC_ICR, lows[i] & ICR_LOGICAL ? lows[i] & ~ICR_LOGICAL : lows[i]);
        CHECK_EQ(apic_mmio_read(APIC_ICR), lows[i] & ~ICR_LOGICAL);
        CHECK_EQ(apic_mmio_read(APIC_ICR2) >> 24, absent_id());
    }
    CHECK(!(apic_mmio_read(APIC_ICR) & ICR_BUSY));
}

static void x2apic_icr_readback(void)
{
    uint64_t dest = (uint64_t)absent_id() << 32;

    apic_set_mode(APIC_X2APIC);
    for (uint64_t mode = 0; mode < 8; mode++) {
        CHECK(wrmsr_safe(apic_msr(APIC_ICR), dest | ICR_ASSERT | (mode << 8) | VEC));
        CHECK_EQ(rdmsr(apic_msr(APIC_ICR)), dest | ICR_ASSERT | (mode << 8) | VEC);
    }
}

static void x2apic_icr_reserved(void)
{
    uint64_t dest = (uint64_t)absent_id() << 32;

    apic_set_mode(APIC_X2APIC);
    for (unsigned bit = 0; bit < 32; bit++)
        if (bit == 13 || bit == 16 || bit == 17 || bit >= 20)
            CHECK(!wrmsr_safe(apic_msr(APIC_ICR), dest | ICR_ASSERT | VEC | (1ull << bit)));
}

static void tmict_and_tdcr(void)
{
    static const uint8_t codes[] = {0, 1, 2, 3, 8, 9, 0xa, 0xb};

    for (unsigned i = 0; i < sizeof(codes); i++) {
        apic_write(APIC_TDCR, codes[i]);
        CHECK_EQ(apic_read(APIC_TDCR), codes[i]);
    }
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_TMICT, 0x12345678);
    CHECK_EQ(apic_read(APIC_TMICT), 0x12345678);
    apic_write(APIC_TMICT, 0);
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
}

const struct test register_tests[] = {
    {"reg-version", "[SDM3 12.4.8]", version, 0, 0},
    {"reg-id", "[SDM3 12.4.6] [SDM3 12.12.8]", ids, 0, 0},
    {"reg-x2apic-id-fixed", "[SDM3 12.12.1.2]", x2apic_id_fixed, NEED_X2APIC, 0},
    {"reg-xapic-id-write", "[SDM3 12.4.6]", xapic_id_write, 0, 0},
    {"reg-xapic-id-forgotten", "[SDM3 12.12.5.1]", xapic_id_forgotten, 0, REF_QEMU},
    {"reg-ldr", "[SDM3 12.6.2.2] [SDM3 12.12.10.2]", ldr, 0, 0},
    {"reg-xapic-ldr-dfr-masks", "[SDM3 12.6.2.2]", xapic_ldr_dfr_masks, 0, 0},
    {"reg-xapic-masks", "[SDM3 12.4.1]", xapic_masks, 0, REF_QEMU},
    {"reg-xapic-read-only", "[SDM3 12.4.1]", xapic_read_only, 0, 0},
    {"reg-xapic-odd-accesses", "[SDM3 12.4.1]", xapic_odd_accesses, 0, 0},
    {"reg-x2apic-sweep", "[SDM3 12.12.1.2] [SDM3 12.12.1.3]", x2apic_sweep, NEED_X2APIC, REF_QEMU},
    {"reg-x2apic-self-ipi-bits", "[SDM3 12.12.11]", x2apic_self_ipi_bits, NEED_X2APIC,
     REF_QEMU | REF_KVM},
    {"reg-x2apic-upper-half", "[SDM3 12.12.1.3]", x2apic_upper_half, NEED_X2APIC, REF_QEMU},
    {"reg-lvts-masked-while-off", "[SDM3 12.4.7.2]", lvts_masked_while_off, 0, REF_QEMU},
    {"reg-esr-clean", "[SDM3 12.5.3]", esr_clean, 0, REF_QEMU},
    {"reg-esr-latches", "[SDM3 12.5.3]", esr_latches, 0, REF_QEMU | REF_KVM},
    {"reg-esr-illegal-register", "[SDM3 12.5.3]", esr_illegal_register, 0,
     REF_QEMU | REF_KVM | REF_RESERVED_MEMORY},
    {"reg-xapic-icr-readback", "[SDM3 12.6.1]", xapic_icr_readback, 0, 0},
    {"reg-x2apic-icr-readback", "[SDM3 12.12.9]", x2apic_icr_readback, NEED_X2APIC, REF_QEMU},
    {"reg-x2apic-icr-reserved", "[SDM3 12.12.9]", x2apic_icr_reserved, NEED_X2APIC, REF_QEMU},
    {"reg-timer-readback", "[SDM3 12.5.4]", tmict_and_tdcr, 0, 0},
    {0},
};
