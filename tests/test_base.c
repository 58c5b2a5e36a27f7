/* SPDX-License-Identifier: MIT */
/*
 * IA32_APIC_BASE: who may change the mode of an APIC to what, what each change keeps, and how an
 * APIC behaves while it is globally disabled. [SDM3 12.4.3] [SDM3 12.12.5] [APM2 16.9]
 */
#include "fixture.h"

#include <string.h>

#define BASE      (APIC_DEFAULT_BASE | APIC_BASE_BSP)
#define OFF       BASE
#define XAPIC     (BASE | APIC_BASE_EN)
#define X2APIC    (BASE | APIC_BASE_EN | APIC_BASE_EXTD)
#define BROKEN    (BASE | APIC_BASE_EXTD)
#define ELSEWHERE 0xFED40000u

static struct fx *with_knobs(uint32_t knobs)
{
    return fx_new(&(struct fx_options){.config = {.knobs = knobs, .knobs_set = true}});
}

static int wrbase(struct fx *fx, uint64_t value)
{
    return fx_wrmsr(fx, 0, MSR_APIC_BASE, value);
}

static void load_base(struct fx *fx, uint64_t value)
{
    assert_int_equal(vapic_load_base(&fx->v[0], value), VAPIC_OK);
}

/* Brings vCPU 0 there as a guest has to. */
static void go(struct fx *fx, uint64_t value)
{
    if ((vapic_base(&fx->v[0]) & APIC_BASE_EXTD) && !(value & APIC_BASE_EXTD))
        assert_int_equal(wrbase(fx, OFF), VAPIC_OK);
    if (!(vapic_base(&fx->v[0]) & APIC_BASE_EN) && (value & APIC_BASE_EXTD))
        assert_int_equal(wrbase(fx, XAPIC), VAPIC_OK);
    assert_int_equal(wrbase(fx, value), VAPIC_OK);
}

/* ---- The state machine ---- */

static const struct {
    uint32_t from, to;
    int guest, vmm;
} transitions[] = {
    {OFF, OFF, VAPIC_OK, VAPIC_OK},       {OFF, XAPIC, VAPIC_OK, VAPIC_OK},
    {OFF, X2APIC, VAPIC_GP, VAPIC_OK},    {OFF, BROKEN, VAPIC_GP, VAPIC_E_BASE},
    {XAPIC, OFF, VAPIC_OK, VAPIC_OK},     {XAPIC, XAPIC, VAPIC_OK, VAPIC_OK},
    {XAPIC, X2APIC, VAPIC_OK, VAPIC_OK},  {XAPIC, BROKEN, VAPIC_GP, VAPIC_E_BASE},
    {X2APIC, OFF, VAPIC_OK, VAPIC_OK},    {X2APIC, XAPIC, VAPIC_GP, VAPIC_OK},
    {X2APIC, X2APIC, VAPIC_OK, VAPIC_OK}, {X2APIC, BROKEN, VAPIC_GP, VAPIC_E_BASE},
};

#define TRANSITIONS (sizeof(transitions) / sizeof(transitions[0]))

/* [SDM3 F12-27] [SDM3 12.12.5] */
static void transitions_by_the_guest(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < TRANSITIONS; n++) {
        struct fx *fx = fx_new(NULL);
        uint32_t from = transitions[n].from, to = transitions[n].to;

        load_base(fx, from);
        fx_equal(wrbase(fx, to), transitions[n].guest, "guest %x -> %x", from, to);
        fx_equal(vapic_base(&fx->v[0]), transitions[n].guest == 0 ? to : from,
                 "base after guest %x -> %x", from, to);
        fx_free(fx);
    }
}

/* A state load is no transition of the machine's, so any legal state may follow any other. */
static void transitions_by_the_vmm(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < TRANSITIONS; n++) {
        struct fx *fx = fx_new(NULL);
        uint32_t from = transitions[n].from, to = transitions[n].to;

        load_base(fx, from);
        fx_equal(vapic_load_base(&fx->v[0], to), transitions[n].vmm, "vmm %x -> %x", from, to);
        fx_equal(vapic_base(&fx->v[0]), transitions[n].vmm == VAPIC_OK ? to : from,
                 "base after vmm %x -> %x", from, to);
        fx_free(fx);
    }
}

/* The base may move in the write that changes the mode. */
static void transition_moves_the_base(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t value = ELSEWHERE | (X2APIC & 0xFFF);

    (void)state;
    assert_int_equal(wrbase(fx, value), VAPIC_OK);
    assert_int_equal(vapic_base(&fx->v[0]), value);
    fx_free(fx);
}

/* [SDM3 12.4.4] bits 9, 7:0 and those from MAXPHYADDR on */
static void reserved_bits(void **state)
{
    static const uint8_t widths[] = {32, 36, 40, 48, 52, 0};

    (void)state;
    for (uint32_t n = 0; n < sizeof(widths); n++) {
        struct fx *fx = fx_new(&(struct fx_options){.not_added = true});
        struct vapic_config config = {.bsp = true, .phys_bits = widths[n]};
        uint32_t width = widths[n] != 0 ? widths[n] : 52;

        assert_int_equal(vapic_init(&fx->v[0], sizeof(fx->v[0]), &fx->vm, &config, fx->pages),
                         VAPIC_OK);
        for (uint32_t bit = 0; bit < 64; bit++) {
            uint64_t value = XAPIC ^ (UINT64_C(1) << bit);
            bool reserved = bit < 8 || bit == 9 || bit >= width || bit == 10;

            if (bit == 8 || bit == 11)
                continue;
            fx_equal(wrbase(fx, value), reserved ? VAPIC_GP : VAPIC_OK, "guest, bit %u of %u", bit,
                     width);
            fx_equal(vapic_load_base(&fx->v[0], value), reserved ? VAPIC_E_BASE : VAPIC_OK,
                     "vmm, bit %u of %u", bit, width);
            load_base(fx, XAPIC);
        }
        fx_free(fx);
    }
}

/* EXTD does not exist without CPUID.1:ECX[21]. [SDM3 12.12.1] */
static void extd_needs_x2apic(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.no_features = true});

    (void)state;
    assert_int_equal(wrbase(fx, X2APIC), VAPIC_GP);
    assert_int_equal(vapic_load_base(&fx->v[0], X2APIC), VAPIC_E_BASE);
    assert_int_equal(vapic_base(&fx->v[0]), XAPIC);
    fx_free(fx);
}

/* [SDM3 12.12.5] Disabled does not lead to x2APIC, nor EXTD alone anywhere. */
static void trap_01_disabled_to_x2apic(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    load_base(fx, OFF);
    assert_int_equal(wrbase(fx, BROKEN), VAPIC_GP);
    assert_int_equal(wrbase(fx, X2APIC), VAPIC_GP);
    assert_int_equal(vapic_base(&fx->v[0]), OFF);
    fx_free(fx);
}

static void trap_02_x2apic_to_xapic(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.x2apic = true});

    (void)state;
    assert_int_equal(wrbase(fx, XAPIC), VAPIC_GP);
    assert_int_equal(wrbase(fx, BROKEN), VAPIC_GP);
    assert_int_equal(vapic_base(&fx->v[0]), X2APIC);
    fx_free(fx);
}

static void trap_03_x2apic_disabled_xapic(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}, .x2apic = true});
    uint32_t version = fx_get(fx, 0, APIC_LVR);

    (void)state;
    assert_int_equal(wrbase(fx, OFF), VAPIC_OK);
    assert_int_equal(wrbase(fx, XAPIC), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    assert_int_equal(fx_read(fx, 0, APIC_LVR), version);
    fx_free(fx);
}

static void trap_04_xapic_to_extd_alone(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(wrbase(fx, BROKEN), VAPIC_GP);
    assert_int_equal(vapic_base(&fx->v[0]), XAPIC);
    fx_free(fx);
}

/* CPUID.1:EDX[9] is the host's; what it follows is bit 11 of vapic_base(). [SDM3 12.4.3] */
static void trap_05_disable(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t cr8;

    (void)state;
    assert_int_equal(vapic_write_cr8(&fx->v[0], 5), VAPIC_OK);
    assert_int_equal(wrbase(fx, OFF), VAPIC_OK);
    assert_int_equal(vapic_base(&fx->v[0]) & APIC_BASE_EN, 0);
    assert_int_equal(fx_read(fx, 0, APIC_LVR), 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_TPR), 0xFFFFFFFF);
    cr8 = vapic_read_cr8(&fx->v[0]);
    assert_int_equal(cr8, 5);
    assert_int_equal(vapic_write_cr8(&fx->v[0], cr8 ^ 0xF), VAPIC_OK);
    assert_int_equal(vapic_read_cr8(&fx->v[0]), 0xA);
    fx_free(fx);
}

static void trap_06_enable_again(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint32_t version = fx_read(fx, 0, APIC_LVR);

    (void)state;
    assert_int_equal(wrbase(fx, OFF), VAPIC_OK);
    assert_int_equal(vapic_write_cr8(&fx->v[0], 9), VAPIC_OK);
    assert_int_equal(wrbase(fx, XAPIC), VAPIC_OK);
    assert_int_equal(vapic_base(&fx->v[0]) & APIC_BASE_EN, APIC_BASE_EN);
    assert_int_equal(fx_read(fx, 0, APIC_LVR), version);
    assert_int_equal(fx_read(fx, 0, APIC_TPR), 0x90);
    assert_int_equal(vapic_write_cr8(&fx->v[0], 6), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_TPR), 0x60);
    fx_free(fx);
}

static void trap_07_x2apic_after_enable(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint32_t version = fx_read(fx, 0, APIC_LVR);
    uint64_t value = 0;

    (void)state;
    assert_int_equal(wrbase(fx, OFF), VAPIC_OK);
    assert_int_equal(wrbase(fx, XAPIC), VAPIC_OK);
    assert_int_equal(wrbase(fx, X2APIC), VAPIC_OK);
    assert_int_equal(vapic_base(&fx->v[0]) & APIC_BASE_EN, APIC_BASE_EN);
    assert_int_equal(fx_read(fx, 0, APIC_LVR), 0xFFFFFFFF);
    assert_int_equal(fx_rdmsr(fx, 0, 0x803, &value), VAPIC_OK);
    assert_int_equal(value, version);
    fx_free(fx);
}

static void trap_08_reserved_base_bits(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(wrbase(fx, XAPIC | UINT64_C(1) << 52), VAPIC_GP);
    assert_int_equal(wrbase(fx, XAPIC | 1), VAPIC_GP);
    assert_int_equal(vapic_base(&fx->v[0]), XAPIC);
    fx_free(fx);
}

/* [SDM3 12.4.5] */
static void trap_09_relocated_base(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
    uint32_t version = fx_read(fx, 0, APIC_LVR);

    (void)state;
    assert_true(vapic_mmio_claims(&fx->v[0], APIC_DEFAULT_BASE));
    assert_int_equal(wrbase(fx, ELSEWHERE | (XAPIC & 0xFFF)), VAPIC_OK);
    assert_true(vapic_mmio_claims(&fx->v[0], ELSEWHERE));
    assert_true(vapic_mmio_claims(&fx->v[0], ELSEWHERE + 0xFFF));
    assert_false(vapic_mmio_claims(&fx->v[0], ELSEWHERE + 0x1000));
    assert_false(vapic_mmio_claims(&fx->v[0], ELSEWHERE - 1));
    assert_false(vapic_mmio_claims(&fx->v[0], APIC_DEFAULT_BASE));
    assert_true(vapic_mmio_claims(&fx->v[1], APIC_DEFAULT_BASE));
    assert_int_equal(fx_read(fx, 0, APIC_LVR), version);
    fx_free(fx);
}

static void trap_10_same_value(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_write(fx, 0, APIC_ID, 0x09000000);
    fx_forget(fx);
    assert_int_equal(wrbase(fx, XAPIC), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x09000000);
    assert_int_equal(fx_count(fx, FX_LOCK), 0);
    fx_free(fx);
}

static void trap_11_vmm_loads_extd_alone(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(vapic_load_base(&fx->v[0], 1u << 10), VAPIC_E_BASE);
    assert_int_equal(vapic_load_base(&fx->v[0], 1u << 11), VAPIC_OK);
    assert_int_equal(vapic_base(&fx->v[0]), 1u << 11);
    fx_free(fx);
}

static void trap_12_vmm_loads_xapic_over_x2apic(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x123}, .x2apic = true});

    (void)state;
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x123);
    load_base(fx, XAPIC);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x23000000);
    fx_free(fx);
}

/* [SDM3 12.12.2] the page is no interface to the APIC in x2APIC mode */
static void trap_13_mmio_in_x2apic_mode(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2, .x2apic = true});
    uint64_t icr = 1;

    (void)state;
    fx_write(fx, 0, APIC_ICR2, 1u << 24);
    fx_write(fx, 0, APIC_ICR, 0x4051);
    fx_write(fx, 0, APIC_TPR, 0x50);
    assert_int_equal(fx_take(fx, 1), -1);
    assert_int_equal(fx_rdmsr(fx, 0, 0x830, &icr), VAPIC_OK);
    assert_int_equal(icr, 0);
    assert_int_equal(fx_get(fx, 0, APIC_TPR), 0);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 0);
    fx_free(fx);
}

/* [SDM3 10.4.1] exactly the chosen processor is the bootstrap processor */
static void trap_14_boot_processor(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3, .not_added = true});

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct vapic_config config = {.id = n, .bsp = n == 1};
        struct vapic_entry entry;

        assert_int_equal(
            vapic_init(&fx->v[n], sizeof(fx->v[n]), &fx->vm, &config, fx->pages + 4096u * n),
            VAPIC_OK);
        assert_int_equal(vapic_base(&fx->v[n]) & APIC_BASE_BSP, n == 1 ? APIC_BASE_BSP : 0);
        entry = fx_peek(fx, n, FX_CAN_ALL);
        assert_int_equal(entry.runnable, n == 1);
        assert_int_equal(vapic_activity(&fx->v[n]) == VAPIC_RUNNING, n == 1);
    }
    fx_free(fx);
}

/* [SDM3 12.12.1.2] the MSRs exist in x2APIC mode only */
static void trap_15_x2apic_msrs_in_xapic_mode(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t value;

    (void)state;
    assert_int_equal(fx_rdmsr(fx, 0, 0x802, &value), VAPIC_GP);
    assert_int_equal(fx_wrmsr(fx, 0, 0x80B, 0), VAPIC_GP);
    fx_free(fx);
}

static void msr_numbers(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.x2apic = true});
    uint64_t value;

    (void)state;
    for (uint32_t msr = 0; msr < 0x2000; msr++) {
        bool mine = msr == 0x1B || msr == 0x6E0 || (msr >= 0x800 && msr <= 0x8FF);

        fx_equal(fx_rdmsr(fx, 0, msr, &value) != VAPIC_UNCLAIMED, mine, "RDMSR %x", msr);
        if (!mine)
            fx_equal(fx_wrmsr(fx, 0, msr, 0), VAPIC_UNCLAIMED, "WRMSR %x", msr);
    }
    fx_free(fx);
}

static void base_reads_back(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t value = 0;

    (void)state;
    assert_int_equal(fx_rdmsr(fx, 0, MSR_APIC_BASE, &value), VAPIC_OK);
    assert_int_equal(value, XAPIC);
    fx_free(fx);
}

/* ---- What a transition keeps ---- */

static const struct {
    uint32_t offset, value;
} survivors[] = {
    {APIC_TPR, 0x35},          {APIC_SVR, 0x1EF},
    {APIC_LVT_TIMER, 0x10031}, {APIC_LVT_THERMAL, 0x10032},
    {APIC_LVT_PMC, 0x10400},   {APIC_LVT_LINT0, 0x10700},
    {APIC_LVT_LINT1, 0x10033}, {APIC_LVT_ERROR, 0x100FE},
    {APIC_TDCR, 0xA},
};

#define SURVIVORS (sizeof(survivors) / sizeof(survivors[0]))

static void check_survivors(struct fx *fx, const char *where)
{
    for (uint32_t n = 0; n < SURVIVORS; n++)
        fx_equal(fx_get(fx, 0, survivors[n].offset), survivors[n].value, "%s: register %x", where,
                 survivors[n].offset);
    fx_equal(fx_bit(fx, 0, APIC_IRR, 0x41), 1, "%s: IRR", where);
    fx_equal(fx_bit(fx, 0, APIC_TMR, 0x41), 1, "%s: TMR", where);
    fx_equal(fx_bit(fx, 0, APIC_ISR, 0x61), 1, "%s: ISR", where);
    fx_equal(fx_get(fx, 0, APIC_TMICT), 100000, "%s: TMICT", where);
}

static struct fx *with_survivors(uint32_t knobs)
{
    struct fx *fx = with_knobs(knobs);

    fx_set(fx, 0, APIC_TDCR, 0xA);
    for (uint32_t n = 0; n < SURVIVORS; n++)
        fx_set(fx, 0, survivors[n].offset, survivors[n].value);
    fx_set(fx, 0, APIC_TMICT, 100000);
    vapic_post(&fx->v[0], 0x61, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x61);
    vapic_post(&fx->v[0], 0x41, true, NULL);
    return fx;
}

/* [SDM3 12.12.5.1] */
static void xapic_to_x2apic_keeps(void **state)
{
    struct fx *fx = with_survivors(VAPIC_PROFILE_MANUAL);
    uint32_t count = fx_get(fx, 0, APIC_TMCCT);

    (void)state;
    go(fx, X2APIC);
    check_survivors(fx, "x2APIC");
    assert_int_equal(fx_get(fx, 0, APIC_TMCCT), count);
    fx_free(fx);
}

static void trap_40_isr_survives_x2apic(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_post(&fx->v[0], 0x31, false, NULL);
    vapic_post(&fx->v[0], 0x51, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x51);
    go(fx, X2APIC);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0x50);
    fx_eoi(fx, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_int_equal(fx_take(fx, 0), 0x31);
    fx_free(fx);
}

/* [SDM3 12.12.5] an APIC that is switched off and on again keeps its registers here */
static void off_and_on_keeps(void **state)
{
    struct fx *fx = with_survivors(VAPIC_PROFILE_KVM);

    (void)state;
    go(fx, OFF);
    go(fx, XAPIC);
    check_survivors(fx, "xAPIC again");
    fx_free(fx);
}

/* The ID register in every mode. [SDM3 12.4.6] [SDM3 12.12.5.1] */
static void id_across_modes(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x1234}});

    (void)state;
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x34000000);
    go(fx, X2APIC);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x1234);
    go(fx, OFF);
    go(fx, XAPIC);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x34000000);
    load_base(fx, OFF);
    load_base(fx, X2APIC);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x1234);
    fx_free(fx);
}

/* LDR is derived from the ID, id[19:4] the cluster, id[3:0] the bit. [SDM3 12.12.10.2] */
static void ldr_follows_the_mode(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x1234}});

    (void)state;
    fx_write(fx, 0, APIC_LDR, 0x08000000);
    go(fx, X2APIC);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 0x01230010);
    load_base(fx, OFF);
    load_base(fx, X2APIC);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 0x01230010);
    fx_free(fx);
}

/* What LDR was in x2APIC mode, and stays until it is written, does not show in what is written:
 * bits 23:0 are reserved. [SDM3 12.6.2.2] */
static void ldr_written_after_x2apic_is_whole(void **state)
{
    struct fx *fx = with_knobs(VAPIC_PROFILE_MANUAL & ~(uint32_t)VAPIC_KNOB_DISABLE_CLEARS_LDR);

    (void)state;
    go(fx, X2APIC);
    go(fx, XAPIC);
    fx_write(fx, 0, APIC_LDR, 0x02000000);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 0x02000000);
    fx_free(fx);
}

static void x2apic_ldr_of_every_low_id(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < 64; id++) {
        struct fx *fx = fx_new(&(struct fx_options){.ids = &id, .x2apic = true});

        fx_equal(fx_get(fx, 0, APIC_LDR), (id / 16) << 16 | 1u << (id % 16), "id %u", id);
        fx_free(fx);
    }
}

/* ---- While globally disabled ---- */

static void disabled_reads_ones_of_any_size(void **state)
{
    uint8_t data[9];
    static const size_t sizes[] = {1, 2, 4, 8};

    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(NULL);

        go(fx, x2apic ? X2APIC : OFF);
        assert_true(vapic_mmio_claims(&fx->v[0], APIC_DEFAULT_BASE + 0x30));
        for (uint32_t offset = 0; offset < 0x1000; offset += 16) {
            for (uint32_t s = 0; s < 4; s++) {
                memset(data, 0, sizeof(data));
                vapic_mmio_read(&fx->v[0], offset, data, sizes[s], fx->now);
                for (uint32_t n = 0; n < 9; n++)
                    fx_equal(data[n], n < sizes[s] ? 0xFF : 0, "%x, size %zu, byte %u", offset,
                             sizes[s], n);
            }
        }
        fx_free(fx);
    }
}

/* Without DISABLED_READS_ONES the page belongs to the APIC in xAPIC mode only. */
static void page_is_claimed_by_mode(void **state)
{
    static const uint32_t modes[] = {OFF, XAPIC, X2APIC};

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        for (int ones = 0; ones < 2; ones++) {
            struct fx *fx =
                with_knobs(ones ? VAPIC_PROFILE_MANUAL
                                : VAPIC_PROFILE_MANUAL & ~(unsigned)VAPIC_KNOB_DISABLED_READS_ONES);

            load_base(fx, modes[n]);
            fx_equal(vapic_mmio_claims(&fx->v[0], APIC_DEFAULT_BASE + 0x30),
                     ones || modes[n] == XAPIC, "mode %x, knob %d", modes[n], ones);
            fx_free(fx);
        }
    }
}

static void disabled_drops_writes(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    go(fx, OFF);
    for (uint32_t offset = 0; offset < 0x1000; offset += 16)
        fx_write(fx, 0, offset, 0x51);
    go(fx, XAPIC);
    assert_int_equal(fx_read(fx, 0, APIC_TPR), 0);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0x1FF);
    assert_int_equal(fx_read(fx, 0, APIC_LVT_LINT0), 0x10000);
    assert_int_equal(fx_read(fx, 0, APIC_TMICT), 0);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 0);
    fx_free(fx);
}

static void disabled_msrs_fault(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t value;

    (void)state;
    go(fx, OFF);
    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++) {
        fx_equal(fx_rdmsr(fx, 0, msr, &value), VAPIC_GP, "RDMSR %x", msr);
        fx_equal(fx_wrmsr(fx, 0, msr, 0), VAPIC_GP, "WRMSR %x", msr);
    }
    fx_free(fx);
}

/* [SDM3 12.4.3] nothing on the fabric reaches it */
static void disabled_accepts_no_message(void **state)
{
    static const uint32_t modes[] = {APIC_DM_FIXED, APIC_DM_LOWEST, APIC_DM_SMI,
                                     APIC_DM_NMI,   APIC_DM_INIT,   APIC_DM_SIPI};

    (void)state;
    for (uint32_t n = 0; n < sizeof(modes) / sizeof(modes[0]); n++) {
        struct fx *fx = fx_new(NULL);
        struct vapic_msg msg = {.icr = modes[n] | APIC_ICR_ASSERT | 0x51,
                                .source = VAPIC_FROM_DEVICE};
        struct vapic_entry entry;

        go(fx, OFF);
        fx_equal(vapic_send(&fx->vm, msg).accepted, 0, "mode %x", modes[n]);
        entry = fx_peek(fx, 0, FX_CAN_ALL);
        fx_equal(entry.event, VAPIC_CPU_NONE, "mode %x", modes[n]);
        fx_equal(entry.inject, VAPIC_INJECT_NONE, "mode %x", modes[n]);
        vapic_exit(&fx->v[0], entry.cr8, true);
        go(fx, XAPIC);
        fx_equal(fx_take(fx, 0), (uint64_t)-1, "mode %x, enabled again", modes[n]);
        fx_free(fx);
    }
}

static void disabled_accepts_no_post(void **state)
{
    struct fx *fx = fx_new(NULL);
    bool accepted = true;

    (void)state;
    go(fx, OFF);
    vapic_post(&fx->v[0], 0x51, false, &accepted);
    assert_false(accepted);
    fx_free(fx);
}

/* [SDM3 12.4.3] the pins are INTR and NMI of a processor without an APIC */
static void disabled_lint0_is_intr(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    go(fx, OFF);
    vapic_set_lint(&fx->v[0], 0, true);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_EXTINT);
    fx_free(fx);
}

static void disabled_lint1_is_nmi(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    go(fx, OFF);
    vapic_set_lint(&fx->v[0], 1, true);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_NMI);
    fx_free(fx);
}

static void disabled_holds_irr(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_post(&fx->v[0], 0x51, false, NULL);
    go(fx, OFF);
    assert_int_equal(fx_take(fx, 0), -1);
    go(fx, XAPIC);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

/* [SDM3 12.5.4.1] */
static void disabled_tsc_deadline_is_inert(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t value = 1;

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | 0x31);
    go(fx, OFF);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_TSC_DEADLINE, fx->now.tsc + 1000), VAPIC_OK);
    assert_int_equal(fx_rdmsr(fx, 0, MSR_TSC_DEADLINE, &value), VAPIC_OK);
    assert_int_equal(value, 0);
    assert_int_equal(fx_peek(fx, 0, FX_CAN_ALL).deadline.clock, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

/* [SDM3 12.8.6.1] */
static void cr8_checks_its_bits(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t bit = 4; bit < 64; bit++)
        fx_equal(vapic_write_cr8(&fx->v[0], UINT64_C(1) << bit | 3), VAPIC_GP, "bit %u", bit);
    assert_int_equal(vapic_read_cr8(&fx->v[0]), 0);
    for (uint32_t value = 0; value < 16; value++) {
        assert_int_equal(vapic_write_cr8(&fx->v[0], value), VAPIC_OK);
        fx_equal(vapic_read_cr8(&fx->v[0]), value, "CR8");
        fx_equal(fx_read(fx, 0, APIC_TPR), value << 4, "TPR");
    }
    fx_free(fx);
}

/* ---- RESET ---- */

/* [SDM3 12.4.7.1] from wherever the guest left it */
static void reset_restores_the_base(void **state)
{
    static const uint32_t from[] = {OFF, XAPIC, X2APIC, ELSEWHERE | APIC_BASE_EN};

    (void)state;
    for (uint32_t n = 0; n < 4; n++) {
        struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){7}});

        load_base(fx, from[n]);
        vapic_reset(&fx->v[0]);
        fx_equal(vapic_base(&fx->v[0]), XAPIC, "from %x", from[n]);
        fx_equal(fx_read(fx, 0, APIC_ID), 0x07000000, "from %x", from[n]);
        fx_free(fx);
    }
}

/* Firmware hands over in x2APIC mode; the next boot starts in xAPIC mode with the right ID. */
static void reboot_by_base_load(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}});

    (void)state;
    fx_write(fx, 0, APIC_ID, 0x09000000);
    go(fx, X2APIC);
    load_base(fx, XAPIC);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transitions_by_the_guest),
        cmocka_unit_test(transitions_by_the_vmm),
        cmocka_unit_test(transition_moves_the_base),
        cmocka_unit_test(reserved_bits),
        cmocka_unit_test(extd_needs_x2apic),
        cmocka_unit_test(trap_01_disabled_to_x2apic),
        cmocka_unit_test(trap_02_x2apic_to_xapic),
        cmocka_unit_test(trap_03_x2apic_disabled_xapic),
        cmocka_unit_test(trap_04_xapic_to_extd_alone),
        cmocka_unit_test(trap_05_disable),
        cmocka_unit_test(trap_06_enable_again),
        cmocka_unit_test(trap_07_x2apic_after_enable),
        cmocka_unit_test(trap_08_reserved_base_bits),
        cmocka_unit_test(trap_09_relocated_base),
        cmocka_unit_test(trap_10_same_value),
        cmocka_unit_test(trap_11_vmm_loads_extd_alone),
        cmocka_unit_test(trap_12_vmm_loads_xapic_over_x2apic),
        cmocka_unit_test(trap_13_mmio_in_x2apic_mode),
        cmocka_unit_test(trap_14_boot_processor),
        cmocka_unit_test(trap_15_x2apic_msrs_in_xapic_mode),
        cmocka_unit_test(msr_numbers),
        cmocka_unit_test(base_reads_back),
        cmocka_unit_test(xapic_to_x2apic_keeps),
        cmocka_unit_test(trap_40_isr_survives_x2apic),
        cmocka_unit_test(off_and_on_keeps),
        cmocka_unit_test(id_across_modes),
        cmocka_unit_test(ldr_follows_the_mode),
        cmocka_unit_test(ldr_written_after_x2apic_is_whole),
        cmocka_unit_test(x2apic_ldr_of_every_low_id),
        cmocka_unit_test(disabled_reads_ones_of_any_size),
        cmocka_unit_test(page_is_claimed_by_mode),
        cmocka_unit_test(disabled_drops_writes),
        cmocka_unit_test(disabled_msrs_fault),
        cmocka_unit_test(disabled_accepts_no_message),
        cmocka_unit_test(disabled_accepts_no_post),
        cmocka_unit_test(disabled_lint0_is_intr),
        cmocka_unit_test(disabled_lint1_is_nmi),
        cmocka_unit_test(disabled_holds_irr),
        cmocka_unit_test(disabled_tsc_deadline_is_inert),
        cmocka_unit_test(cr8_checks_its_bits),
        cmocka_unit_test(reset_restores_the_base),
        cmocka_unit_test(reboot_by_base_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
