/* SPDX-License-Identifier: MIT */
/* The nested part of saved records, of both vendors: what comes back is what was saved, and what
 * nobody has saved is refused without a trace. */
#include "nested_fixture.h"

#include <string.h>

enum { VERSION = 4, NESTED = 96, NESTED_SIZE = 208 };

static const struct nx_options worlds[] = {
    {.kind = VAPIC_ACCEL_AVIC, .offered = VAPIC_NESTED_AVIC},
    {.kind = VAPIC_ACCEL_AVIC, .offered = VAPIC_NESTED_AVIC, .l2 = NX_L2_AVIC},
    {.kind = VAPIC_ACCEL_AVIC,
     .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
     .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC,
     .strategy = VAPIC_NESTED_SHADOW,
     .l2 = NX_L2_X2AVIC},
    {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV, .l2 = NX_L2_APICV},
    {.kind = VAPIC_ACCEL_APICV,
     .features = VAPIC_ACCEL_IPIV,
     .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
     .strategy = VAPIC_NESTED_SHADOW,
     .l2 = NX_L2_IPIV},
};

#define WORLDS (sizeof(worlds) / sizeof(worlds[0]))

/* vCPU 0 in L2 is saved; then it is in L1, and can be loaded. */
static struct nx *saved_in_l2(const struct nx_options *o, uint8_t record[VAPIC_RECORD_SIZE])
{
    struct nx *nx = nx_new(o);
    struct vapic *v = &nx->l1[0]->apic;

    nx_settle(nx);
    nx_leave(nx, 0);
    assert_true(nx_in_l2(nx, 0));
    assert_int_equal(vapic_save_record(v, record, VAPIC_RECORD_SIZE, nx->now), VAPIC_OK);
    assert_int_equal(record[VERSION], 2);
    assert_int_equal(vapic_load_record(v, record, VAPIC_RECORD_SIZE, nx->now, NULL), VAPIC_E_BUSY);
    assert_true(nx_l1_take(nx, 0));
    nx_leave(nx, 0);
    assert_int_equal(vapic_nested_state(v), VAPIC_NESTED_L1);
    return nx;
}

static int load(struct nx *nx, const uint8_t record[VAPIC_RECORD_SIZE])
{
    return vapic_load_record(&nx->l1[0]->apic, record, VAPIC_RECORD_SIZE, nx->now, NULL);
}

static void what_was_saved_comes_back(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE], again[VAPIC_RECORD_SIZE];

    (void)state;
    for (uint32_t i = 0; i < WORLDS; i++) {
        struct nx *nx = saved_in_l2(&worlds[i], record);
        struct vapic *v = &nx->l1[0]->apic;

        assert_int_equal(load(nx, record), VAPIC_OK);
        assert_int_equal(vapic_nested_state(v), VAPIC_NESTED_RESTORED);
        assert_int_equal(vapic_save_record(v, again, sizeof(again), nx->now), VAPIC_OK);
        assert_memory_equal(record, again, sizeof(record));
        vapic_nested_abandon(v);
        assert_int_equal(vapic_nested_state(v), VAPIC_NESTED_L1);
        nx_free(nx);
    }
}

/* What a load has made of it (controls that are not activated are gone) loads, and is saved again.
 */
static void must_be_stable(struct nx *nx, const uint8_t record[VAPIC_RECORD_SIZE])
{
    struct vapic *v = &nx->l1[0]->apic;
    uint8_t again[VAPIC_RECORD_SIZE];

    assert_int_equal(load(nx, record), VAPIC_OK);
    assert_int_equal(vapic_save_record(v, again, sizeof(again), nx->now), VAPIC_OK);
    assert_memory_equal(record, again, sizeof(again));
    vapic_nested_abandon(v);
}

/* One bit after the other: refused, or it is something else that can be loaded and saved. */
static void every_bit(void **state)
{
    uint8_t record[VAPIC_RECORD_SIZE], before[VAPIC_RECORD_SIZE], after[VAPIC_RECORD_SIZE];

    (void)state;
    for (uint32_t i = 0; i < WORLDS; i++) {
        struct nx *nx = saved_in_l2(&worlds[i], record);
        struct vapic *v = &nx->l1[0]->apic;
        uint32_t refused = 0;

        for (uint32_t bit = 8 * NESTED; bit < 8 * (NESTED + NESTED_SIZE); bit++) {
            int result;

            assert_int_equal(vapic_save_record(v, before, sizeof(before), nx->now), VAPIC_OK);
            record[bit / 8] ^= (uint8_t)(1u << bit % 8);
            result = load(nx, record);
            assert_int_equal(vapic_save_record(v, after, sizeof(after), nx->now), VAPIC_OK);
            if (result == VAPIC_OK) {
                vapic_nested_abandon(v);
                must_be_stable(nx, after);
            } else {
                assert_int_equal(result, VAPIC_E_FORMAT);
                assert_memory_equal(before, after, sizeof(after));
                refused++;
            }
            assert_int_equal(vapic_nested_state(v), VAPIC_NESTED_L1);
            record[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_true(refused > 100);
        nx_free(nx);
    }
}

/* Another vendor's, or one for a host that offers L1 something that this one does not. */
static void records_of_other_hosts(void **state)
{
    uint8_t records[WORLDS][VAPIC_RECORD_SIZE];
    struct nx *nx[WORLDS];

    (void)state;
    for (uint32_t i = 0; i < WORLDS; i++)
        nx[i] = saved_in_l2(&worlds[i], records[i]);
    for (uint32_t i = 0; i < WORLDS; i++)
        for (uint32_t k = 0; k < WORLDS; k++) {
            bool more = worlds[k].offered & ~worlds[i].offered;

            if (worlds[i].kind == worlds[k].kind && !more)
                continue;
            assert_int_equal(load(nx[i], records[k]), VAPIC_E_FORMAT);
        }
    for (uint32_t i = 0; i < WORLDS; i++)
        nx_free(nx[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_saved_comes_back),
        cmocka_unit_test(every_bit),
        cmocka_unit_test(records_of_other_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
