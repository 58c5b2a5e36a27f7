/* SPDX-License-Identifier: MIT */
/* The map of made-up host-physical addresses: vmm/accel_hpa.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "accel_hpa.h"

#define PAGE 4096u

static _Alignas(PAGE) uint8_t memory[8 * PAGE];

static void addresses_lead_back(void **state)
{
    struct vmm_hpa map;

    (void)state;
    vmm_hpa_init(&map);
    assert_true(vmm_hpa_add(&map, memory, 2 * PAGE));
    assert_true(vmm_hpa_add(&map, memory + 4 * PAGE, PAGE));
    for (unsigned i = 0; i < 5 * PAGE; i += 64) {
        uint64_t hpa = vmm_hpa_of(&map, memory + i);

        if (i >= 2 * PAGE && i < 4 * PAGE) {
            assert_true(hpa == VMM_HPA_NONE);
        } else {
            assert_ptr_equal(vmm_hpa_at(&map, hpa, 64), memory + i);
        }
    }
}

static void place_in_page_is_kept(void **state)
{
    struct vmm_hpa map;

    (void)state;
    vmm_hpa_init(&map);
    assert_true(vmm_hpa_add(&map, memory + 192, 64));
    assert_int_equal(vmm_hpa_of(&map, memory + 192) % PAGE, 192);
    assert_int_equal(vmm_hpa_of(&map, memory + 255) % PAGE, 255);
}

static void nothing_lies_beside_a_region(void **state)
{
    struct vmm_hpa map;
    uint64_t hpa;

    (void)state;
    vmm_hpa_init(&map);
    assert_true(vmm_hpa_add(&map, memory, PAGE));
    assert_true(vmm_hpa_add(&map, memory + PAGE, PAGE));
    hpa = vmm_hpa_of(&map, memory);
    assert_true(hpa != 0);
    assert_null(vmm_hpa_at(&map, hpa - 1, 1));
    assert_null(vmm_hpa_at(&map, hpa + PAGE, 1));
    assert_null(vmm_hpa_at(&map, hpa + PAGE - 4, 8));
    assert_non_null(vmm_hpa_at(&map, hpa + PAGE - 4, 4));
    assert_true(vmm_hpa_of(&map, memory + PAGE) >= hpa + 2ull * PAGE);
    assert_null(vmm_hpa_at(&map, 0, 1));
    assert_null(vmm_hpa_at(&map, UINT64_MAX, 8));
}

static void memory_has_one_address(void **state)
{
    struct vmm_hpa map;

    (void)state;
    vmm_hpa_init(&map);
    assert_true(vmm_hpa_add(&map, memory + PAGE, PAGE));
    assert_false(vmm_hpa_add(&map, memory + PAGE, PAGE));
    assert_false(vmm_hpa_add(&map, memory, PAGE + 1));
    assert_false(vmm_hpa_add(&map, memory + 2 * PAGE - 1, PAGE));
    assert_false(vmm_hpa_add(&map, memory, 8 * PAGE));
    assert_false(vmm_hpa_add(&map, memory, 0));
    assert_true(vmm_hpa_add(&map, memory, PAGE));
    assert_true(vmm_hpa_add(&map, memory + 2 * PAGE, PAGE));
}

static void a_full_map_refuses(void **state)
{
    struct vmm_hpa map;

    (void)state;
    vmm_hpa_init(&map);
    for (unsigned i = 0; i < VMM_HPA_REGIONS_MAX; i++) {
        assert_true(vmm_hpa_add(&map, memory + 64 * i, 64));
    }
    assert_false(vmm_hpa_add(&map, memory + PAGE, 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_lead_back),          cmocka_unit_test(place_in_page_is_kept),
        cmocka_unit_test(nothing_lies_beside_a_region), cmocka_unit_test(memory_has_one_address),
        cmocka_unit_test(a_full_map_refuses),
    };

    return cmocka_run_group_tests_name("accel_hpa", tests, NULL, NULL);
}
