/* SPDX-License-Identifier: MIT */
/*
 * Images and records that nobody honest has written: each load either fails with a precise error
 * and has changed nothing, or leaves a state that a guest could have brought about. [SDM3 12.4.1]
 */
#include <string.h>

#include "reference.h"
#include "registers.h"

#define EXTRA (VAPIC_FEATURE_CMCI | VAPIC_FEATURE_AMD_EXT)

static struct fx *new_fx(void)
{
    return fx_new(&(struct fx_options){.features = EXTRA});
}

static int load_image(struct fx *fx, const uint8_t *image)
{
    return vapic_load_image(&fx->v[0], VAPIC_IMAGE_ID32, image, VAPIC_IMAGE_SIZE, fx->now);
}

static void save_image(struct fx *fx, uint8_t *image)
{
    assert_int_equal(
        vapic_save_image(&fx->v[0], VAPIC_IMAGE_ID32, image, VAPIC_IMAGE_SIZE, fx->now), VAPIC_OK);
}

static void put(uint8_t *image, uint32_t offset, uint32_t value)
{
    memcpy(image + offset, &value, 4);
}

/* ---- One field at a time ---- */

/* All ones in the image; what a guest's own write of all ones would leave. */
static const struct {
    uint32_t offset, value;
} normalized[] = {
    {APIC_ID, 0xFF000000},       {APIC_TPR, 0xFF},         {APIC_LDR, 0xFF000000},
    {APIC_DFR, 0xFFFFFFFF},      {APIC_SVR, 0x13FF},       {APIC_LVT_CMCI, 0x107FF},
    {APIC_ICR, 0xFFFFEFFF},      {APIC_ICR2, 0xFF000000},  {APIC_LVT_TIMER, 0x700FF},
    {APIC_LVT_THERMAL, 0x107FF}, {APIC_LVT_PMC, 0x107FF},  {APIC_LVT_LINT1, 0x1A7FF},
    {APIC_LVT_ERROR, 0x100FF},   {APIC_TMICT, 0xFFFFFFFF}, {APIC_TDCR, 0xB},
};

static void fields_are_normalized(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(normalized) / sizeof(normalized[0]); n++) {
        struct fx *fx = new_fx();
        uint8_t image[VAPIC_IMAGE_SIZE];
        uint32_t offset = normalized[n].offset;

        save_image(fx, image);
        put(image, offset, 0xFFFFFFFF);
        assert_int_equal(load_image(fx, image), VAPIC_OK);
        fx_equal(fx_read(fx, 0, offset), normalized[n].value, "register %x", offset);
        fx_free(fx);
    }
}

/* SVR[12] does not exist without the feature. */
static void suppress_bit_without_the_feature(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.no_features = true});
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, image);
    put(image, APIC_SVR, 0xFFFFFFFF);
    assert_int_equal(load_image(fx, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0x3FF);
    fx_free(fx);
}

static void deadline_mode_without_the_feature(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.no_features = true});
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, image);
    put(image, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | 0x31);
    assert_int_equal(load_image(fx, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_LVT_TIMER), 0x31);
    fx_free(fx);
}

static void version_is_not_loaded(void **state)
{
    struct fx *fx = new_fx();
    uint32_t version = fx_read(fx, 0, APIC_LVR);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, image);
    put(image, APIC_LVR, ~version);
    assert_int_equal(load_image(fx, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_LVR), version);
    fx_free(fx);
}

/* An unmasked entry cannot be while SVR[8] is clear. */
static void soft_disabled_image_masks_every_entry(void **state)
{
    static const uint32_t lvts[] = {APIC_LVT_CMCI,  APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PMC,
                                    APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};
    struct fx *fx = new_fx();
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, image);
    put(image, APIC_SVR, 0xFF);
    for (uint32_t n = 0; n < 7; n++)
        put(image, lvts[n], 0x31);
    assert_int_equal(load_image(fx, image), VAPIC_OK);
    for (uint32_t n = 0; n < 7; n++)
        fx_equal(fx_read(fx, 0, lvts[n]), APIC_LVT_MASKED | 0x31, "entry %x", lvts[n]);
    fx_free(fx);
}

static void junk_between_the_registers_is_ignored(void **state)
{
    struct fx *fx = new_fx();
    uint8_t image[VAPIC_IMAGE_SIZE], after[VAPIC_IMAGE_SIZE], before[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, before);
    memcpy(image, before, sizeof(image));
    for (uint32_t offset = 0; offset < VAPIC_IMAGE_SIZE; offset++) {
        if (offset % 16 >= 4 || expected_at(offset & ~15u, EXTRA) == NULL)
            image[offset] = 0xEE;
    }
    assert_int_equal(load_image(fx, image), VAPIC_OK);
    save_image(fx, after);
    assert_memory_equal(after, before, sizeof(after));
    fx_free(fx);
}

/* Every bit of ISR and IRR at once: it takes 16 x EOI and so on, but it ends. */
static void all_vectors_in_service_and_pending(void **state)
{
    struct fx *fx = new_fx();
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, image);
    for (uint32_t n = 0; n < 8; n++) {
        put(image, APIC_ISR + 16 * n, 0xFFFFFFFF);
        put(image, APIC_IRR + 16 * n, 0xFFFFFFFF);
        put(image, APIC_TMR + 16 * n, 0xFFFFFFFF);
    }
    assert_int_equal(load_image(fx, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_PPR), 0xF0);
    assert_int_equal(fx_take(fx, 0), -1);
    for (int n = 0; n < 256; n++)
        fx_eoi(fx, 0);
    assert_int_equal(fx_read(fx, 0, APIC_PPR), 0);
    for (int vector = 255; vector >= 16; vector--)
        fx_equal(fx_take_eoi(fx, 0), vector, "vector");
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* ---- Random images ---- */

static void fill(uint8_t *bytes, size_t size, uint32_t *seed)
{
    for (size_t n = 0; n < size; n++)
        bytes[n] = (uint8_t)ref_random(seed);
}

/* No register holds what a guest could not have put there. */
static void check_registers(struct fx *fx, uint32_t run)
{
    for (uint32_t n = 0; n < sizeof(normalized) / sizeof(normalized[0]); n++) {
        uint32_t value = fx_read(fx, 0, normalized[n].offset);

        fx_equal(value & ~normalized[n].value, 0, "run %u, register %x", run, normalized[n].offset);
    }
    fx_equal(fx_read(fx, 0, APIC_LVT_LINT0) & ~(0x1A7FFu | APIC_LVT_RIRR), 0, "run %u, LINT0", run);
    fx_equal(fx_read(fx, 0, APIC_DFR) & 0x0FFFFFFF, 0x0FFFFFFF, "run %u, DFR", run);
}

/* The vCPU goes on living: it can be run, timed, written and sent to without end. */
static void exercise(struct fx *fx, uint32_t *seed)
{
    for (int n = 0; n < 20; n++) {
        struct vapic_msg msg = {.icr = ref_random(seed) & 0xCFFF,
                                .dest = ref_random(seed) & 0xFF,
                                .source = VAPIC_FROM_DEVICE};

        fx->now.ns += ref_random(seed);
        fx->now.tsc += ref_random(seed);
        vapic_send(&fx->vm, msg);
        fx_step(fx, 0, FX_CAN_ALL);
        vapic_eoi(&fx->v[0]);
        fx_read(fx, 0, APIC_TMCCT);
        fx_write(fx, 0, (ref_random(seed) & 0x3F) << 4, ref_random(seed));
    }
}

static void random_images(void **state)
{
    uint32_t seed = 0x1234567;

    (void)state;
    for (uint32_t run = 0; run < 300; run++) {
        struct fx *fx = new_fx();
        uint8_t image[VAPIC_IMAGE_SIZE], first[VAPIC_IMAGE_SIZE], second[VAPIC_IMAGE_SIZE];

        fill(image, sizeof(image), &seed);
        fx_equal(load_image(fx, image), VAPIC_OK, "run %u", run);
        check_registers(fx, run);
        save_image(fx, first);
        fx_equal(load_image(fx, first), VAPIC_OK, "run %u, again", run);
        save_image(fx, second);
        fx_equal(memcmp(first, second, sizeof(first)), 0, "run %u: loading twice differs", run);
        exercise(fx, &seed);
        fx_free(fx);
    }
}

static void random_images_in_x2apic_mode(void **state)
{
    uint32_t seed = 0x7654321;

    (void)state;
    for (uint32_t run = 0; run < 100; run++) {
        struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x12345}, .x2apic = true});
        uint8_t image[VAPIC_IMAGE_SIZE];

        fill(image, sizeof(image), &seed);
        fx_equal(load_image(fx, image), (uint64_t)(int64_t)VAPIC_E_ID, "run %u", run);
        put(image, APIC_ID, 0x12345);
        fx_equal(load_image(fx, image), VAPIC_OK, "run %u", run);
        fx_equal(fx_get(fx, 0, APIC_ID), 0x12345, "run %u, ID", run);
        fx_equal(fx_get(fx, 0, APIC_LDR), 0x12340020, "run %u, LDR", run);
        for (int n = 0; n < 10; n++) {
            fx->now.ns += ref_random(&seed);
            fx_step(fx, 0, FX_CAN_ALL);
            fx_eoi(fx, 0);
        }
        fx_free(fx);
    }
}

/* ---- Records ---- */

/* Everything that a load could change. */
/* Bytes, not members: padding must not change either. */
struct snapshot {
    uint8_t v[sizeof(struct vapic)];
    uint8_t page[4096];
};

static void snap(struct fx *fx, struct snapshot *to)
{
    memcpy(to->v, &fx->v[0], sizeof(to->v));
    memcpy(to->page, fx->pages, sizeof(to->page));
}

static int load_record(struct fx *fx, const uint8_t *record, size_t size)
{
    struct vapic_entry entry;

    return vapic_load_record(&fx->v[0], record, size, fx->now, &entry);
}

static struct fx *with_record(uint8_t *record)
{
    struct fx *fx = new_fx();

    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_PERIODIC | 0x31);
    fx_set(fx, 0, APIC_TMICT, 1000000);
    vapic_post(&fx->v[0], 0x51, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x51);
    memset(record, 0, VAPIC_RECORD_SIZE);
    assert_int_equal(vapic_save_record(&fx->v[0], record, VAPIC_RECORD_SIZE, fx->now), VAPIC_OK);
    return fx;
}

static void record_sizes(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE];
    struct fx *fx = with_record(record);

    (void)state;
    assert_int_equal(load_record(fx, record, VAPIC_RECORD_SIZE), VAPIC_OK);
    for (size_t size = 0; size < 32; size++)
        assert_true(load_record(fx, record, size) < 0);
    assert_int_equal(vapic_save_record(&fx->v[0], record, VAPIC_RECORD_SIZE - 1, fx->now),
                     VAPIC_E_SIZE);
    fx_free(fx);
}

static void record_of_a_newer_version(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE];
    struct fx *fx = with_record(record);

    (void)state;
    record[4] = 3;
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_E_VERSION);
    record[4] = record[5] = 0xFF;
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_E_VERSION);
    record[4] = record[5] = 0;
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_E_FORMAT);
    fx_free(fx);
}

static void record_of_something_else(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE];
    struct fx *fx = with_record(record);

    (void)state;
    record[0] ^= 1;
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_E_FORMAT);
    memset(record, 0, sizeof(record));
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_E_FORMAT);
    fx_free(fx);
}

/* What has no meaning yet is zero, or the record was written by somebody else. */
static void record_with_unused_bytes(void **state)
{
    static const size_t unused[] = {30, 31, 36, 39, 96, 500, VAPIC_RECORD_SIZE - 1};
    uint8_t record[VAPIC_RECORD_SIZE];
    struct fx *fx = with_record(record);

    (void)state;
    for (size_t n = 0; n < sizeof(unused) / sizeof(unused[0]); n++) {
        record[unused[n]] = 1;
        fx_equal((unsigned)load_record(fx, record, sizeof(record)), (unsigned)VAPIC_E_FORMAT,
                 "byte %zu", unused[n]);
        record[unused[n]] = 0;
    }
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_OK);
    fx_free(fx);
}

/* Vector 8 in service, and acknowledged but not taken: injecting it would be a double fault. */
static void record_that_injects_an_exception(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE], image[VAPIC_IMAGE_SIZE];
    struct fx *fx = with_record(record);

    (void)state;
    assert_int_equal(vapic_save_image(&fx->v[0], VAPIC_IMAGE_ID32, image, sizeof(image), fx->now),
                     VAPIC_OK);
    image[APIC_ISR + 1] |= 1;
    assert_int_equal(vapic_load_image(&fx->v[0], VAPIC_IMAGE_ID32, image, sizeof(image), fx->now),
                     VAPIC_OK);
    record[28] = VAPIC_INJECT_VECTOR;
    record[29] = 8;
    assert_int_equal(load_record(fx, record, sizeof(record)), VAPIC_E_FORMAT);
    fx_free(fx);
}

/* The record belongs to the base that was loaded before it. */
static void record_of_another_base(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE];
    struct fx *fx = with_record(record);
    int result;

    (void)state;
    assert_int_equal(vapic_load_base(&fx->v[0], vapic_base(&fx->v[0]) | APIC_BASE_EXTD), VAPIC_OK);
    result = load_record(fx, record, sizeof(record));
    assert_int_equal(result, VAPIC_E_BASE);
    fx_free(fx);
}

/* Each byte set to many values: an error changed nothing, a success is a state that works. */
static void records_with_one_wrong_byte(void **state)
{
    static struct snapshot before, after;
    uint8_t good[VAPIC_RECORD_SIZE], bad[VAPIC_RECORD_SIZE];
    uint32_t refused = 0, seed = 99;

    (void)state;
    for (uint32_t at = 0; at < 96; at++) {
        for (uint32_t flip = 1; flip < 256; flip += flip < 4 ? 1 : 31) {
            struct fx *fx = with_record(good);

            memcpy(bad, good, sizeof(bad));
            bad[at] ^= (uint8_t)flip;
            snap(fx, &before);
            if (load_record(fx, bad, sizeof(bad)) == VAPIC_OK) {
                exercise(fx, &seed);
            } else {
                refused++;
                snap(fx, &after);
                fx_equal(memcmp(&before, &after, sizeof(before)), 0, "byte %u ^ %x changed it", at,
                         flip);
            }
            fx_free(fx);
        }
    }
    assert_true(refused > 100);
}

static void random_records(void **state)
{
    static struct snapshot before, after;
    uint8_t good[VAPIC_RECORD_SIZE], bad[VAPIC_RECORD_SIZE];
    uint32_t seed = 4711;

    (void)state;
    for (uint32_t run = 0; run < 300; run++) {
        struct fx *fx = with_record(good);

        memcpy(bad, good, sizeof(bad));
        for (uint32_t n = ref_random(&seed) % 20; n > 0; n--)
            bad[8 + ref_random(&seed) % 88] = (uint8_t)ref_random(&seed);
        snap(fx, &before);
        if (load_record(fx, bad, sizeof(bad)) == VAPIC_OK) {
            exercise(fx, &seed);
        } else {
            snap(fx, &after);
            fx_equal(memcmp(&before, &after, sizeof(before)), 0, "run %u changed it", run);
        }
        fx_free(fx);
    }
}

/* A vector said to be acknowledged must be in service, or nobody could end it. */
static void outstanding_vector_must_be_in_service(void **state)
{
    struct fx *fx = new_fx(), *other = new_fx();
    uint8_t record[VAPIC_RECORD_SIZE];
    struct vapic_entry entry;

    (void)state;
    vapic_post(&fx->v[0], 0x51, false, NULL);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    assert_int_equal(vapic_save_record(&fx->v[0], record, sizeof(record), fx->now), VAPIC_OK);
    assert_int_equal(load_record(other, record, sizeof(record)), VAPIC_E_FORMAT);
    fx_free(fx);
    fx_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_normalized),
        cmocka_unit_test(suppress_bit_without_the_feature),
        cmocka_unit_test(deadline_mode_without_the_feature),
        cmocka_unit_test(version_is_not_loaded),
        cmocka_unit_test(soft_disabled_image_masks_every_entry),
        cmocka_unit_test(junk_between_the_registers_is_ignored),
        cmocka_unit_test(all_vectors_in_service_and_pending),
        cmocka_unit_test(random_images),
        cmocka_unit_test(random_images_in_x2apic_mode),
        cmocka_unit_test(record_sizes),
        cmocka_unit_test(record_of_a_newer_version),
        cmocka_unit_test(record_of_something_else),
        cmocka_unit_test(record_with_unused_bytes),
        cmocka_unit_test(record_that_injects_an_exception),
        cmocka_unit_test(record_of_another_base),
        cmocka_unit_test(records_with_one_wrong_byte),
        cmocka_unit_test(random_records),
        cmocka_unit_test(outstanding_vector_must_be_in_service),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
