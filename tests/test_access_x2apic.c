/* SPDX-License-Identifier: MIT */
/*
 * The MSRs of x2APIC mode, all 256 of them: who may read and write what, and which bits raise #GP.
 * [SDM3 12.12.1.2] [SDM3 12.12.1.3] [APM2 16.11]
 */
#include "fixture.h"
#include "registers.h"

#define FIXTURE_FEATURES                                                                           \
    (VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS)

static const struct {
    const char *name;
    uint32_t features, knobs;
} processors[] = {
    {"manual", 0, VAPIC_PROFILE_MANUAL},
    {"kvm", 0, VAPIC_PROFILE_KVM},
    {"all registers", VAPIC_FEATURE_CMCI | VAPIC_FEATURE_AMD_EXT, VAPIC_PROFILE_MANUAL},
};

static struct fx *x2apic(uint32_t features, uint32_t knobs)
{
    return fx_new(&(struct fx_options){
        .x2apic = true, .features = features, .config = {.knobs = knobs, .knobs_set = true}});
}

static uint32_t offset_of(uint32_t msr)
{
    return (msr - 0x800) * 16;
}

/* Calls `check` for every MSR on every processor of the table. */
static void walk(void (*check)(struct fx *fx, uint32_t msr, unsigned access, const char *name))
{
    for (uint32_t p = 0; p < sizeof(processors) / sizeof(processors[0]); p++) {
        struct fx *fx = x2apic(processors[p].features, processors[p].knobs);

        for (uint32_t msr = 0x800; msr <= 0x8FF; msr++)
            check(fx, msr,
                  expected_access(offset_of(msr), processors[p].features | FIXTURE_FEATURES),
                  processors[p].name);
        fx_free(fx);
    }
}

static void check_read(struct fx *fx, uint32_t msr, unsigned access, const char *name)
{
    uint64_t value = UINT64_C(0xA5A5A5A500000000);
    int expected = access & VAPIC_X2_R ? VAPIC_OK : VAPIC_GP;

    fx_equal(fx_rdmsr(fx, 0, msr, &value), expected, "%s: RDMSR %x", name, msr);
    if (expected == VAPIC_OK)
        fx_equal(value >> 32, 0, "%s: upper half of %x", name, msr);
}

static void reads_of_every_msr(void **state)
{
    (void)state;
    walk(check_read);
}

static void check_write_ones(struct fx *fx, uint32_t msr, unsigned access, const char *name)
{
    (void)access;
    fx_equal(fx_wrmsr(fx, 0, msr, UINT64_MAX), VAPIC_GP, "%s: WRMSR %x, ones", name, msr);
}

/* All ones violate something everywhere: bits 63:32, or the reserved bits of ICR. */
static void trap_20_all_ones(void **state)
{
    (void)state;
    walk(check_write_ones);
}

static void check_write_back(struct fx *fx, uint32_t msr, unsigned access, const char *name)
{
    uint64_t before = 0, after = 0;

    if (!(access & VAPIC_X2_W)) {
        fx_equal(fx_wrmsr(fx, 0, msr, 0), VAPIC_GP, "%s: WRMSR %x, zero", name, msr);
        return;
    }
    if (!(access & VAPIC_X2_R)) {
        fx_equal(fx_wrmsr(fx, 0, msr, msr == 0x83F ? 0x51 : 0), VAPIC_OK, "%s: WRMSR %x", name,
                 msr);
        return;
    }
    fx_equal(fx_rdmsr(fx, 0, msr, &before), VAPIC_OK, "%s: RDMSR %x", name, msr);
    fx_equal(fx_wrmsr(fx, 0, msr, before), VAPIC_OK, "%s: WRMSR %x, same", name, msr);
    fx_equal(fx_rdmsr(fx, 0, msr, &after), VAPIC_OK, "%s: RDMSR %x again", name, msr);
    fx_equal(after, before, "%s: value of %x", name, msr);
}

static void trap_21_write_back(void **state)
{
    (void)state;
    walk(check_write_back);
}

static void check_upper_half(struct fx *fx, uint32_t msr, unsigned access, const char *name)
{
    if (msr == 0x830 || !(access & VAPIC_X2_W))
        return;
    for (uint32_t bit = 32; bit < 64; bit++)
        fx_equal(fx_wrmsr(fx, 0, msr, UINT64_C(1) << bit), VAPIC_GP, "%s: WRMSR %x, bit %u", name,
                 msr, bit);
}

static void upper_half_of_writes(void **state)
{
    (void)state;
    walk(check_upper_half);
}

static void trap_22_write_only_and_absent(void **state)
{
    static const uint32_t unreadable[] = {0x80B, 0x83F, 0x80E, 0x831};
    static const uint32_t bad_self[] = {0x100, 0xFF00, 0xFF000000, 0x151};
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);
    uint64_t value;

    (void)state;
    for (uint32_t n = 0; n < 4; n++)
        fx_equal(fx_rdmsr(fx, 0, unreadable[n], &value), VAPIC_GP, "RDMSR %x", unreadable[n]);
    for (uint32_t n = 0; n < 4; n++)
        fx_equal(fx_wrmsr(fx, 0, 0x83F, bad_self[n]), VAPIC_GP, "SELF_IPI %x", bad_self[n]);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* [SDM3 12.12.3] the ID is the whole x2APIC ID and read-only */
static void trap_18_id_is_read_only(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x12345}, .x2apic = true});

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x802, 0x12345), VAPIC_GP);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x12345);
    assert_int_equal(vapic_id(&fx->v[0]), 0x12345);
    fx_free(fx);
}

/* [SDM3 12.8.5] */
static void eoi_takes_zero_only(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x80B, 0), VAPIC_OK);
    vapic_post(&fx->v[0], 0x51, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x51);
    assert_int_equal(fx_wrmsr(fx, 0, 0x80B, 1), VAPIC_GP);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_int_equal(fx_wrmsr(fx, 0, 0x80B, 0), VAPIC_OK);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* [SDM3 12.5.3] */
static void trap_26_esr_write(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x828, 0), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ESR), 0);
    assert_int_equal(fx_wrmsr(fx, 0, 0x828, 1), VAPIC_GP);
    assert_int_equal(fx_wrmsr(fx, 0, 0x828, 0x80000000), VAPIC_GP);
    fx_free(fx);
}

/* [SDM3 12.12.1.2] an absent MSR is #GP and no ESR bit */
static void absent_msrs_leave_no_error(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);
    uint64_t value;

    (void)state;
    assert_int_equal(fx_rdmsr(fx, 0, 0x83A, &value), VAPIC_GP);
    assert_int_equal(fx_wrmsr(fx, 0, 0x83A, 0), VAPIC_GP);
    assert_int_equal(fx_wrmsr(fx, 0, 0x828, 0), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ESR), 0);
    fx_free(fx);
}

/* ---- Reserved bits of the low word: #GP by the manual, masked by Linux ---- */

static const struct {
    uint32_t msr;
    uint32_t reserved; /* bits that no manual defines for this register */
} reserved_rows[] = {
    {0x808, 0xFFFFFF00}, {0x80F, 0xFFFFEC00}, {0x82F, 0xFFFEA800}, {0x832, 0xFFF8E800},
    {0x833, 0xFFFEA800}, {0x834, 0xFFFEA800}, {0x835, 0xFFFE0800}, {0x836, 0xFFFE0800},
    {0x837, 0xFFFEE800}, {0x83E, 0xFFFFFFF4},
};

#define RESERVED_ROWS (sizeof(reserved_rows) / sizeof(reserved_rows[0]))

/* [SDM3 12.12.1.3] */
static void reserved_bits_fault(void **state)
{
    struct fx *fx = x2apic(VAPIC_FEATURE_CMCI, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t n = 0; n < RESERVED_ROWS; n++) {
        uint64_t before = 0, after = 1;

        assert_int_equal(fx_rdmsr(fx, 0, reserved_rows[n].msr, &before), VAPIC_OK);
        for (uint32_t bit = 0; bit < 32; bit++) {
            if (!(reserved_rows[n].reserved >> bit & 1))
                continue;
            fx_equal(fx_wrmsr(fx, 0, reserved_rows[n].msr, before | 1u << bit), VAPIC_GP,
                     "%x, bit %u", reserved_rows[n].msr, bit);
        }
        assert_int_equal(fx_rdmsr(fx, 0, reserved_rows[n].msr, &after), VAPIC_OK);
        fx_equal(after, before, "%x after the faults", reserved_rows[n].msr);
    }
    fx_free(fx);
}

static void defined_bits_do_not_fault(void **state)
{
    struct fx *fx = x2apic(VAPIC_FEATURE_CMCI, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t n = 0; n < RESERVED_ROWS; n++) {
        uint32_t defined = ~reserved_rows[n].reserved & ~(APIC_LVT_DS | APIC_LVT_RIRR);

        if (reserved_rows[n].msr == 0x837)
            defined &= ~APIC_LVT_DM; /* AMD's error entry has a delivery mode, Intel's has none */
        if (reserved_rows[n].msr == 0x832)
            defined &= ~APIC_LVT_DM;
        if (reserved_rows[n].msr == 0x80F)
            defined |= APIC_SVR_EOI_SUPPRESS;
        fx_equal(
            fx_wrmsr(fx, 0, reserved_rows[n].msr, defined | APIC_LVT_MASKED * (n > 1 && n < 9)),
            VAPIC_OK, "WRMSR %x, %x", reserved_rows[n].msr, defined);
    }
    fx_free(fx);
}

/* Bits that a missing feature takes away. */
static void reserved_bits_without_features(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .x2apic = true, .no_features = true, .features = VAPIC_FEATURE_X2APIC});

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x80F, 0x11FF), VAPIC_GP);
    assert_int_equal(fx_wrmsr(fx, 0, 0x80F, 0x1FF), VAPIC_OK);
    assert_int_equal(fx_wrmsr(fx, 0, 0x832, APIC_TIMER_DEADLINE | 0x31), VAPIC_GP);
    assert_int_equal(fx_wrmsr(fx, 0, 0x832, APIC_TIMER_PERIODIC | 0x31), VAPIC_OK);
    fx_free(fx);
}

/* ---- ICR [SDM3 12.12.9] ---- */

static void trap_28_icr_bits(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);
    uint64_t value = 0;

    (void)state;
    for (uint32_t bit = 0; bit < 32; bit++) {
        bool reserved = bit >= 20 || bit == 17 || bit == 16 || bit == 13;
        uint64_t icr = UINT64_C(0x777700000000) | UINT64_C(1) << bit;

        if (bit == 18 || bit == 19) /* shorthands, below */
            continue;
        fx_equal(fx_wrmsr(fx, 0, 0x830, icr), reserved ? VAPIC_GP : VAPIC_OK, "ICR bit %u", bit);
        assert_int_equal(fx_rdmsr(fx, 0, 0x830, &value), VAPIC_OK);
        if (!reserved)
            fx_equal(value, icr & ~(uint64_t)APIC_ICR_BUSY, "read-back of bit %u", bit);
    }
    fx_free(fx);
}

static void icr_reads_back_every_mode_and_shorthand(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t mode = 0; mode < 8; mode++) {
        for (uint32_t shorthand = 0; shorthand < 4; shorthand++) {
            uint64_t icr = UINT64_C(0xABCDEF9800000000) | shorthand << 18 | mode << 8 | 0x31;
            uint64_t value = 0;

            fx_equal(fx_wrmsr(fx, 0, 0x830, icr), VAPIC_OK, "mode %u, shorthand %u", mode,
                     shorthand);
            fx_equal(fx_rdmsr(fx, 0, 0x830, &value), VAPIC_OK, "RDMSR");
            fx_equal(value, icr, "mode %u, shorthand %u, read back", mode, shorthand);
        }
    }
    fx_free(fx);
}

static void faulting_icr_sends_nothing(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x830, APIC_ICR_SELF | 1u << 20 | 0x51), VAPIC_GP);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* ---- SELF IPI [SDM3 12.12.11] ---- */

static void self_ipi(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);
    uint64_t icr = 1;

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x83F, 0x51), VAPIC_OK);
    assert_false(fx_bit(fx, 0, APIC_TMR, 0x51));
    assert_int_equal(fx_take_eoi(fx, 0), 0x51);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(fx_rdmsr(fx, 0, 0x830, &icr), VAPIC_OK);
    assert_int_equal(icr, 0);
    fx_free(fx);
}

/* ---- APR: AMD's x2APIC has it, Intel's has not [SDM3 T12-6] [APM2 16.6.4] ---- */

static void apr_by_vendor(void **state)
{
    uint64_t value;

    (void)state;
    for (int amd = 0; amd < 2; amd++) {
        struct fx *fx = x2apic(amd ? VAPIC_FEATURE_AMD : 0, VAPIC_PROFILE_MANUAL);

        assert_int_equal(fx_rdmsr(fx, 0, 0x809, &value), amd ? VAPIC_OK : VAPIC_GP);
        assert_int_equal(fx_wrmsr(fx, 0, 0x809, 0), VAPIC_GP);
        fx_free(fx);
        fx = x2apic(amd ? VAPIC_FEATURE_AMD : 0, VAPIC_PROFILE_MANUAL & ~(unsigned)VAPIC_KNOB_APR);
        assert_int_equal(fx_rdmsr(fx, 0, 0x809, &value), VAPIC_GP);
        fx_free(fx);
    }
}

static void counts_accesses(void **state)
{
    struct fx *fx = x2apic(0, VAPIC_PROFILE_MANUAL);
    struct vapic_stats before, after;

    (void)state;
    vapic_get_stats(&fx->v[0], &before);
    fx_get(fx, 0, APIC_ID);
    fx_get(fx, 0, APIC_LVR);
    fx_set(fx, 0, APIC_TPR, 0);
    vapic_get_stats(&fx->v[0], &after);
    assert_int_equal(after.msr_reads - before.msr_reads, 2);
    assert_int_equal(after.msr_writes - before.msr_writes, 1);
    fx_free(fx);
}

static void ignore_event(void *ctx, const struct vapic_event *event)
{
    (void)ctx;
    (void)event;
}

/* Each word of IER and EILVT is its own register, whatever its value and whoever listens. */
static void words_of_extended_registers(bool traced)
{
    struct fx *fx = x2apic(VAPIC_FEATURE_AMD_EXT, VAPIC_PROFILE_KVM);

    if (traced)
        vapic_trace(&fx->vm, ignore_event, NULL);
    for (uint32_t n = 0; n < 8; n++)
        assert_int_equal(fx_wrmsr(fx, 0, 0x848 + n, 0x41000 + n), VAPIC_OK);
    for (uint32_t n = 0; n < 4; n++)
        assert_int_equal(fx_wrmsr(fx, 0, 0x850 + n, 0x10041 + n), VAPIC_OK);
    for (uint32_t n = 0; n < 12; n++) {
        uint64_t value;

        assert_int_equal(fx_rdmsr(fx, 0, 0x848 + n, &value), VAPIC_OK);
        fx_equal(value, n < 8 ? 0x41000 + n : 0x10041 + n - 8, "MSR %x", 0x848 + n);
    }
    fx_free(fx);
}

static void each_word_is_a_register(void **state)
{
    (void)state;
    words_of_extended_registers(false);
    words_of_extended_registers(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_of_every_msr),
        cmocka_unit_test(trap_20_all_ones),
        cmocka_unit_test(trap_21_write_back),
        cmocka_unit_test(upper_half_of_writes),
        cmocka_unit_test(trap_22_write_only_and_absent),
        cmocka_unit_test(trap_18_id_is_read_only),
        cmocka_unit_test(eoi_takes_zero_only),
        cmocka_unit_test(trap_26_esr_write),
        cmocka_unit_test(absent_msrs_leave_no_error),
        cmocka_unit_test(reserved_bits_fault),
        cmocka_unit_test(defined_bits_do_not_fault),
        cmocka_unit_test(reserved_bits_without_features),
        cmocka_unit_test(trap_28_icr_bits),
        cmocka_unit_test(icr_reads_back_every_mode_and_shorthand),
        cmocka_unit_test(faulting_icr_sends_nothing),
        cmocka_unit_test(self_ipi),
        cmocka_unit_test(each_word_is_a_register),
        cmocka_unit_test(apr_by_vendor),
        cmocka_unit_test(counts_accesses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
