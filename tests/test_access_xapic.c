/* SPDX-License-Identifier: MIT */
/*
 * The register page in xAPIC mode: every offset, every width and alignment, what is ignored and
 * what ESR records. No access may fault. [SDM3 12.4.1]
 */
#include <string.h>

#include "fixture.h"
#include "registers.h"

#define FEATURES_OF_FIXTURE                                                                        \
    (VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS)

/* What ESR collected since the last call. */
static uint32_t errors(struct fx *fx)
{
    fx_write(fx, 0, APIC_ESR, 0);
    return fx_read(fx, 0, APIC_ESR);
}

/* Write-only registers give nothing; whether reading one is an error the manual leaves open. */
static bool write_only(uint32_t offset)
{
    return offset == APIC_EOI;
}

static void reads_of_every_offset(void **state)
{
    static const uint32_t features[] = {
        FEATURES_OF_FIXTURE,
        FEATURES_OF_FIXTURE | VAPIC_FEATURE_CMCI | VAPIC_FEATURE_AMD_EXT,
    };

    (void)state;
    for (uint32_t f = 0; f < 2; f++) {
        struct fx *fx =
            fx_new(&(struct fx_options){.features = features[f], .soft_disabled = true});

        for (uint32_t offset = 0; offset < 0x1000; offset += 16) {
            const struct expected_reg *row = expected_at(offset, features[f]);
            bool readable = row != NULL && (row->access & VAPIC_X_R);
            bool reserved = row == NULL || !(row->access & (VAPIC_X_R | VAPIC_X_W));

            errors(fx);
            if (offset != APIC_LVR)
                fx_equal(fx_read(fx, 0, offset), readable ? row->reset : 0, "read %x", offset);
            if (!write_only(offset))
                fx_equal(errors(fx), reserved ? APIC_ESR_ILLEGAL_REG : 0, "ESR, read %x", offset);
        }
        fx_free(fx);
    }
}

/* [SDM3 12.5.3] a write of a reserved offset is recorded, of a read-only register it is ignored */
static void writes_of_every_offset(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t offset = 0; offset < 0x1000; offset += 16) {
        unsigned access = expected_access(offset, FEATURES_OF_FIXTURE);
        uint32_t before;

        if (access & VAPIC_X_W)
            continue;
        before = fx_read(fx, 0, offset);
        errors(fx);
        fx_write(fx, 0, offset, ~before);
        fx_equal(errors(fx), access & VAPIC_X_R ? 0 : APIC_ESR_ILLEGAL_REG, "ESR, write %x",
                 offset);
        fx_equal(fx_read(fx, 0, offset), before, "write %x", offset);
    }
    fx_free(fx);
}

/* Without ESR the same accesses leave no trace at all. */
static void no_errors_without_esr(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .config = {.knobs = VAPIC_PROFILE_MANUAL & ~VAPIC_KNOB_ESR, .knobs_set = true}});

    (void)state;
    for (uint32_t offset = 0; offset < 0x1000; offset += 16) {
        if (expected_access(offset, FEATURES_OF_FIXTURE) & (VAPIC_X_R | VAPIC_X_W))
            continue;
        fx_equal(fx_read(fx, 0, offset), 0, "read %x", offset);
        fx_write(fx, 0, offset, 0xFFFFFFFF);
        fx_equal(errors(fx), 0, "ESR %x", offset);
    }
    fx_free(fx);
}

/* Bytes of the register in the first four bytes of its slot; zeros for anything else. */
static void reads_of_any_width(void **state)
{
    static const size_t sizes[] = {1, 2, 4, 8, 16, 32, 64};
    struct fx *fx = fx_new(NULL);
    uint8_t whole[4], data[65];

    (void)state;
    fx_write(fx, 0, APIC_LVT_LINT1, 0x1A5F3);
    memcpy(whole, &(uint32_t){0x1A5F3}, 4);
    for (uint32_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        for (uint32_t at = 0; at < 16; at++) {
            bool inside = at + sizes[s] <= 4;

            memset(data, 0xA5, sizeof(data));
            vapic_mmio_read(&fx->v[0], APIC_LVT_LINT1 + at, data, sizes[s], fx->now);
            for (uint32_t n = 0; n < sizes[s]; n++)
                fx_equal(data[n], inside ? whole[at + n] : 0, "+%u, size %zu, byte %u", at,
                         sizes[s], n);
            fx_equal(data[sizes[s]], 0xA5, "+%u, size %zu, behind the end", at, sizes[s]);
        }
    }
    fx_free(fx);
}

static void reads_at_the_end_of_the_page(void **state)
{
    static const size_t sizes[] = {1, 2, 4, 8, 16, 32, 64};
    struct fx *fx = fx_new(NULL);
    uint8_t data[64];

    (void)state;
    for (uint32_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        for (uint32_t offset = 0xFC0; offset < 0x1000; offset++) {
            memset(data, 0xA5, sizeof(data));
            vapic_mmio_read(&fx->v[0], offset, data, sizes[s], fx->now);
            for (uint32_t n = 0; n < sizes[s]; n++)
                fx_equal(data[n], 0, "%x, size %zu", offset, sizes[s]);
        }
    }
    fx_free(fx);
}

/* Only aligned 32-bit stores to the first word of a slot count. */
static void writes_of_any_width(void **state)
{
    static const size_t sizes[] = {1, 2, 4, 8, 16, 32, 64};
    struct fx *fx = fx_new(NULL);
    uint8_t data[64];

    (void)state;
    memset(data, 0x41, sizeof(data));
    for (uint32_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        for (uint32_t at = 0; at < 16; at++) {
            bool counts = at == 0 && sizes[s] == 4;

            fx_write(fx, 0, APIC_TPR, 0);
            vapic_mmio_write(&fx->v[0], APIC_TPR + at, data, sizes[s], fx->now);
            fx_equal(fx_read(fx, 0, APIC_TPR), counts ? 0x41 : 0, "+%u, size %zu", at, sizes[s]);
        }
    }
    fx_free(fx);
}

static void odd_icr_writes_send_nothing(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t data = APIC_ICR_SELF | 0x51;

    (void)state;
    vapic_mmio_write(&fx->v[0], APIC_ICR, &data, 8, fx->now);
    vapic_mmio_write(&fx->v[0], APIC_ICR, &data, 1, fx->now);
    vapic_mmio_write(&fx->v[0], APIC_ICR + 4, &data, 4, fx->now);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* [SDM3 12.4.6] the ID is writable here; reading back or ignoring are both legal, faulting is not
 */
static void trap_17_id_write(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_write(fx, 0, APIC_ID, 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0xFF000000);
    fx_write(fx, 0, APIC_ID, 0x2A123456);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x2A000000);
    fx_free(fx);
}

static void trap_19_id_write_and_modes(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}});
    uint64_t base = vapic_base(&fx->v[0]);

    (void)state;
    fx_write(fx, 0, APIC_ID, 0x09000000);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base | APIC_BASE_EXTD), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 5);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base & ~(uint64_t)APIC_BASE_EN), VAPIC_OK);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    fx_free(fx);
}

/* [SDM3 12.8.5] any value is an EOI */
static void trap_24_eoi_value(void **state)
{
    static const uint32_t values[] = {0, 77, 0xFFFFFFFF};

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct fx *fx = fx_new(NULL);

        vapic_post(&fx->v[0], 0x51, false, NULL);
        assert_int_equal(fx_take(fx, 0), 0x51);
        fx_write(fx, 0, APIC_EOI, values[n]);
        fx_equal(fx_bit(fx, 0, APIC_ISR, 0x51), 0, "EOI with %x", values[n]);
        fx_free(fx);
    }
}

/* A read-modify-write instruction on EOI reads 0 first. */
static void eoi_by_read_modify_write(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_post(&fx->v[0], 0x51, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x51);
    assert_int_equal(fx_read(fx, 0, APIC_EOI), 0);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_write(fx, 0, APIC_EOI, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* [SDM3 12.6.1] only the delivery status reads other than it was written */
static void trap_27_icr_reads_back(void **state)
{
    static const uint32_t words[] = {0,          0x000C4611, 0xFFF31000, 0x00001051,
                                     0x00009051, 0xFFF33FFF, 0x000040FE};
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t n = 0; n < sizeof(words) / sizeof(words[0]); n++) {
        fx_write(fx, 0, APIC_ICR2, 0x55AA55AA);
        fx_write(fx, 0, APIC_ICR, words[n]);
        fx_equal(fx_read(fx, 0, APIC_ICR), words[n] & ~APIC_ICR_BUSY, "ICR := %x", words[n]);
        fx_equal(fx_read(fx, 0, APIC_ICR2), 0x55000000, "ICR2 after %x", words[n]);
    }
    fx_free(fx);
}

/* [SDM3 12.6.1] writing the high word alone sends nothing */
static void icr2_only_stores(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx_write(fx, 0, APIC_ICR2, 1u << 24);
    fx_write(fx, 0, APIC_ICR, 0x51);
    assert_int_equal(fx_take_eoi(fx, 1), 0x51);
    fx_write(fx, 0, APIC_ICR2, 1u << 24);
    assert_int_equal(fx_take(fx, 1), -1);
    fx_write(fx, 0, APIC_ICR, 0x52);
    assert_int_equal(fx_take(fx, 1), 0x52);
    fx_free(fx);
}

static void self_ipi_register_is_reserved(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_write(fx, 0, APIC_SELF_IPI, 0x51);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void counts_accesses(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_stats before, after;

    (void)state;
    vapic_get_stats(&fx->v[0], &before);
    fx_read(fx, 0, APIC_ID);
    fx_write(fx, 0, APIC_TPR, 0);
    fx_write(fx, 0, APIC_TPR, 0x10);
    vapic_get_stats(&fx->v[0], &after);
    assert_int_equal(after.mmio_reads - before.mmio_reads, 1);
    assert_int_equal(after.mmio_writes - before.mmio_writes, 2);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_of_every_offset),
        cmocka_unit_test(writes_of_every_offset),
        cmocka_unit_test(no_errors_without_esr),
        cmocka_unit_test(reads_of_any_width),
        cmocka_unit_test(reads_at_the_end_of_the_page),
        cmocka_unit_test(writes_of_any_width),
        cmocka_unit_test(odd_icr_writes_send_nothing),
        cmocka_unit_test(trap_17_id_write),
        cmocka_unit_test(trap_19_id_write_and_modes),
        cmocka_unit_test(trap_24_eoi_value),
        cmocka_unit_test(eoi_by_read_modify_write),
        cmocka_unit_test(trap_27_icr_reads_back),
        cmocka_unit_test(icr2_only_stores),
        cmocka_unit_test(self_ipi_register_is_reserved),
        cmocka_unit_test(counts_accesses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
