/* SPDX-License-Identifier: MIT */
/* The CPUID table that a vCPU is given, and the MSRs that are answered for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "kvm.h"

#define ROOM 64u

/* What a host might support; every word is full of ones where nothing else is said. */
static const struct kvm_cpuid_entry2 host[] = {
    {.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
    {.function = 1, .eax = 0x800f11, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
    {.function = 4, .index = 0, .eax = 0xffffc121, .flags = 1},
    {.function = 4, .index = 3, .eax = 0xffffc163, .flags = 1},
    {.function = 4, .index = 4, .eax = 0, .flags = 1},
    {.function = 6, .eax = ~0u, .ebx = ~0u, .ecx = ~0u},
    {.function = 0xa, .eax = ~0u, .ebx = ~0u, .edx = ~0u},
    {.function = 0xb, .index = 0, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 77, .flags = 1},
    {.function = 0xd, .eax = 7, .ebx = 0x240, .flags = 1},
    {.function = 0x40000000, .eax = 0, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d},
    {.function = 0x40000001, .eax = ~0u, .edx = ~0u},
    {.function = 0x80000001, .ecx = ~0u, .edx = ~0u},
    {.function = 0x80000008, .eax = 0x3030, .ecx = 0xf0ff},
    {.function = 0x8000001e, .eax = 9, .ebx = 0x1ff, .ecx = 0x7ff},
};

static struct kvm_cpuid_entry2 table[ROOM];
static unsigned entries;

static void build(struct vmm_kvm_cpu_config config)
{
    size_t bytes = sizeof(struct kvm_cpuid2) + sizeof(host);
    struct kvm_cpuid2 *supported = malloc(bytes);

    supported->nent = sizeof(host) / sizeof(host[0]);
    memcpy(supported->entries, host, sizeof(host));
    entries = vmm_kvm_build_cpuid(supported, &config, table, ROOM);
    assert_true(entries > 0);
    free(supported);
}

/* The only entry of a leaf and subleaf. */
static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
    const struct kvm_cpuid_entry2 *found = NULL;

    for (unsigned i = 0; i < entries; i++) {
        if (table[i].function == function && table[i].index == index) {
            assert_null(found);
            found = &table[i];
        }
    }
    assert_non_null(found);
    return found;
}

static void apic_id_is_in_every_leaf_that_has_it(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.apic_id = 0x123, .cpus = 300, .x2apic = true});
    assert_int_equal(leaf(1, 0)->ebx >> 24, 0x23);
    assert_int_equal(leaf(0xb, 0)->edx, 0x123);
    assert_int_equal(leaf(0xb, 1)->edx, 0x123);
    assert_int_equal(leaf(0x1f, 0)->edx, 0x123);
    assert_int_equal(leaf(0x1f, 1)->edx, 0x123);
    assert_int_equal(leaf(0x8000001e, 0)->eax, 0x123);
}

static void x2apic_and_deadline_are_as_configured(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        build((struct vmm_kvm_cpu_config){.cpus = 1, .x2apic = i & 1, .tsc_deadline = i >> 1});
        assert_int_equal(leaf(1, 0)->ecx >> 21 & 1, i & 1);
        assert_int_equal(leaf(1, 0)->ecx >> 24 & 1, i >> 1);
        assert_int_equal(leaf(1, 0)->edx >> 9 & 1, 1);
    }
}

static void topology_is_cores_of_one_thread(void **state)
{
    static const struct {
        unsigned cpus, bits;
    } rows[] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {288, 9}, {4096, 12}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        build((struct vmm_kvm_cpu_config){.cpus = rows[i].cpus, .x2apic = true});
        assert_int_equal(leaf(0xb, 0)->eax, 0);
        assert_int_equal(leaf(0xb, 0)->ebx, 1);
        assert_int_equal(leaf(0xb, 0)->ecx, 0x100);
        assert_int_equal(leaf(0xb, 1)->eax, rows[i].bits);
        assert_int_equal(leaf(0xb, 1)->ebx, rows[i].cpus);
        assert_int_equal(leaf(0xb, 1)->ecx, 0x201);
        assert_int_equal(leaf(0xb, 2)->ebx, 0);
        assert_int_equal(leaf(0xb, 2)->ecx, 2);
        assert_int_equal(leaf(0x80000008, 0)->ecx >> 12 & 0xf, rows[i].bits);
    }
}

static void counts_that_do_not_fit_are_capped(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 4096, .x2apic = true});
    assert_int_equal(leaf(1, 0)->ebx >> 16 & 0xff, 255);
    assert_int_equal(leaf(0x80000008, 0)->ecx & 0xff, 255);
    assert_int_equal(leaf(4, 3)->eax >> 14 & 0xfff, 0xfff);
    assert_int_equal(leaf(4, 3)->eax >> 26, 0x3f);
}

static void only_the_last_cache_is_shared(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 4});
    assert_int_equal(leaf(4, 0)->eax >> 14 & 0xfff, 0);
    assert_int_equal(leaf(4, 3)->eax >> 14 & 0xfff, 3);
    assert_int_equal(leaf(4, 0)->eax >> 26, 3);
    assert_int_equal(leaf(4, 4)->eax, 0);
}

static void paravirtual_features_need_no_kernel_apic(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 1, .x2apic = true});
    assert_int_equal(leaf(0x40000000, 0)->eax, 0x40000001);
    assert_int_equal(leaf(0x40000001, 0)->eax, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 15 | 1u << 24);
    assert_int_equal(leaf(0x40000001, 0)->edx, 0);
}

/* Bit 6: the MSR behind it is libvapic's, so the host's KVM need not know it. */
static void pv_eoi_is_ours_to_offer(void **state)
{
    (void)state;
    for (int offered = 0; offered < 2; offered++) {
        build((struct vmm_kvm_cpu_config){.cpus = 1, .pv_eoi = offered != 0});
        assert_int_equal(leaf(0x40000001, 0)->eax >> 6 & 1, offered);
    }
}

static void extended_destinations_need_x2apic(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 1, .x2apic = false});
    assert_int_equal(leaf(0x40000001, 0)->eax >> 15 & 1, 0);
}

static void nothing_is_offered_that_does_not_work(void **state)
{
    static const struct {
        uint32_t function, index;
        char reg;
        unsigned bit;
    } rows[] = {
        {1, 0, 'c', 3},           /* MONITOR */
        {1, 0, 'c', 5},           /* VMX */
        {0x80000001, 0, 'c', 2},  /* SVM */
        {0x80000001, 0, 'c', 3},  /* the extended APIC space */
        {0x80000001, 0, 'c', 23}, /* core performance counters */
        {6, 0, 'c', 0},           /* APERF, MPERF */
        {0xa, 0, 'a', 0},         /* architectural performance counters */
    };

    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 1});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct kvm_cpuid_entry2 *e = leaf(rows[i].function, rows[i].index);

        assert_int_equal((rows[i].reg == 'a' ? e->eax : e->ecx) >> rows[i].bit & 1, 0);
    }
}

static void timer_runs_always_and_its_clock_is_known(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 1, .tsc_khz = 2300000, .bus_hz = 1000000000});
    assert_int_equal(leaf(6, 0)->eax, 4);
    /* TSC = crystal * EBX / EAX */
    assert_int_equal(leaf(0x15, 0)->ecx, 1000000000);
    assert_int_equal((uint64_t)leaf(0x15, 0)->ecx * leaf(0x15, 0)->ebx / leaf(0x15, 0)->eax,
                     2300000000u);
    build((struct vmm_kvm_cpu_config){.cpus = 1, .tsc_khz = 0, .bus_hz = 1000000000});
    assert_int_equal(leaf(0x15, 0)->eax, 0);
    assert_int_equal(leaf(0x15, 0)->ecx, 0);
}

static void the_last_leaf_covers_what_was_added(void **state)
{
    (void)state;
    build((struct vmm_kvm_cpu_config){.cpus = 1});
    assert_int_equal(leaf(0, 0)->eax, 0x1f);
    assert_int_equal(leaf(0xd, 0)->ebx, 0x240);
}

static void a_table_without_room_is_refused(void **state)
{
    struct kvm_cpuid2 *supported = calloc(1, sizeof(*supported) + 4 * sizeof(host[0]));
    struct vmm_kvm_cpu_config config = {.cpus = 1};

    (void)state;
    supported->nent = 4;
    assert_int_equal(vmm_kvm_build_cpuid(supported, &config, table, 5), 0);
    free(supported);
}

static void unknown_msrs_fault(void **state)
{
    uint64_t value = 1;

    (void)state;
    assert_false(vmm_kvm_read_msr(0x12345678, &value));
    assert_false(vmm_kvm_write_msr(0x12345678, 0));
}

static void known_msrs_read_zero_and_take_only_that(void **state)
{
    uint64_t value = 1;

    (void)state;
    assert_true(vmm_kvm_read_msr(0x34, &value));
    assert_int_equal(value, 0);
    assert_true(vmm_kvm_write_msr(0x34, 0));
    assert_false(vmm_kvm_write_msr(0x34, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apic_id_is_in_every_leaf_that_has_it),
        cmocka_unit_test(x2apic_and_deadline_are_as_configured),
        cmocka_unit_test(topology_is_cores_of_one_thread),
        cmocka_unit_test(counts_that_do_not_fit_are_capped),
        cmocka_unit_test(only_the_last_cache_is_shared),
        cmocka_unit_test(paravirtual_features_need_no_kernel_apic),
        cmocka_unit_test(pv_eoi_is_ours_to_offer),
        cmocka_unit_test(extended_destinations_need_x2apic),
        cmocka_unit_test(nothing_is_offered_that_does_not_work),
        cmocka_unit_test(timer_runs_always_and_its_clock_is_known),
        cmocka_unit_test(the_last_leaf_covers_what_was_added),
        cmocka_unit_test(a_table_without_room_is_refused),
        cmocka_unit_test(unknown_msrs_fault),
        cmocka_unit_test(known_msrs_read_zero_and_take_only_that),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
