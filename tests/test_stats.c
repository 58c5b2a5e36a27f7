/* SPDX-License-Identifier: MIT */
/* What a run leaves: statistics in both forms, and the self-test's judgement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm_probe.h"
#include "stats.h"

static struct vmm_vcpu_stats cpu[20];
static uint64_t vectors[20][256];

static struct vmm_stats sample(unsigned cpus)
{
    memset(cpu, 0, sizeof(cpu));
    memset(vectors, 0, sizeof(vectors));
    for (unsigned i = 0; i < cpus; i++) {
        cpu[i].exits[VMM_EXIT_HLT] = 10 + i;
        cpu[i].exits[VMM_EXIT_IO] = 1;
        cpu[i].runs = 100;
        cpu[i].kicks = 2;
        cpu[i].wakes = 3;
        cpu[i].apic.ipis_received = 7;
        cpu[i].apic.msis_received = 1;
        cpu[i].apic.posts_unnotified = 3 + i;
        cpu[i].apic.timer_ticks = 5000000000u;
        vectors[i][0x30] = i + 1;
    }
    return (struct vmm_stats){
        .cpu = cpu,
        .cpus = cpus,
        .vectors = (const uint64_t(*)[256])vectors,
        .ioapic_interrupts = 4,
        .boots = 2,
        .seconds = 1.5,
        .engine = "kvm",
    };
}

static void adding_adds_every_counter(void **state)
{
    struct vmm_vcpu_stats a, b;
    const uint64_t *words = (const uint64_t *)&a;

    (void)state;
    for (size_t i = 0; i < sizeof(a) / sizeof(uint64_t); i++) {
        ((uint64_t *)&a)[i] = i;
        ((uint64_t *)&b)[i] = 1000;
    }
    vmm_stats_add(&a, &b);
    for (size_t i = 0; i < sizeof(a) / sizeof(uint64_t); i++) {
        assert_int_equal(words[i], 1000 + i);
    }
}

static char *text_of(const struct vmm_stats *stats)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    vmm_stats_text(stats, f);
    fclose(f);
    return text;
}

static void text_has_a_column_for_each_vcpu_and_the_total(void **state)
{
    struct vmm_stats stats = sample(2);
    char *text = text_of(&stats);

    (void)state;
    assert_non_null(strstr(text, "2 vCPUs, engine kvm, 1.50 s, 2 boots, 23 exits"));
    assert_non_null(strstr(text, "vCPU 0      vCPU 1          total\n"));
    assert_non_null(strstr(text, "exit hlt                          10          11          21\n"));
    assert_non_null(strstr(text, "timer_interrupts          5000000000  5000000000 10000000000\n"));
    free(text);
}

static void text_of_many_vcpus_comes_in_blocks(void **state)
{
    struct vmm_stats stats = sample(20);
    char *text = text_of(&stats);
    unsigned blocks = 0;

    (void)state;
    for (const char *p = text; (p = strstr(p, "exit hlt")) != NULL; p++) {
        blocks++;
    }
    assert_int_equal(blocks, 3);
    assert_non_null(strstr(text, "vCPU 19         total\n"));
    free(text);
}

static void total_stands_alone_when_a_block_is_full(void **state)
{
    struct vmm_stats stats = sample(8);
    char *text = text_of(&stats);

    (void)state;
    assert_non_null(strstr(text, "vCPU 7   \n"));
    assert_non_null(strstr(text, "\n                               total\n"));
    free(text);
}

static json_t *json_of(const struct vmm_stats *stats)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    json_t *root;

    assert_int_equal(vmm_stats_json(stats, f), 0);
    fclose(f);
    root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static json_int_t number(json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);

    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void json_says_what_the_table_says(void **state)
{
    struct vmm_stats stats = sample(2);
    json_t *root = json_of(&stats);
    json_t *one = json_array_get(json_object_get(root, "cpus"), 1);
    json_t *all = json_object_get(root, "total");

    (void)state;
    assert_int_equal(number(root, "vcpus"), 2);
    assert_int_equal(number(root, "boots"), 2);
    assert_int_equal(number(root, "ioapic_interrupts"), 4);
    assert_int_equal(number(json_object_get(one, "exits"), "hlt"), 11);
    assert_int_equal(number(json_object_get(one, "exits"), "total"), 12);
    assert_int_equal(number(json_object_get(all, "exits"), "hlt"), 21);
    assert_int_equal(number(all, "timer_interrupts"), 10000000000);
    json_decref(root);
}

static void json_names_the_vectors_that_came(void **state)
{
    struct vmm_stats stats = sample(2);
    json_t *root = json_of(&stats);
    json_t *one = json_array_get(json_object_get(root, "cpus"), 1);

    (void)state;
    assert_int_equal(json_object_size(json_object_get(one, "vectors")), 1);
    assert_int_equal(number(json_object_get(one, "vectors"), "48"), 2);
    json_decref(root);
}

static void kicks_avoided_are_posts_without_a_signal(void **state)
{
    struct vmm_stats stats = sample(2);
    json_t *root = json_of(&stats);

    (void)state;
    assert_int_equal(number(json_object_get(root, "total"), "kicks_avoided"), 3 + 4);
    json_decref(root);
}

static void json_to_a_full_device_is_an_error(void **state)
{
    struct vmm_stats stats = sample(1);
    FILE *f = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(f);
    assert_int_equal(vmm_stats_json(&stats, f), -1);
    fclose(f);
}

static void self_test_reports_are_judged(void **state)
{
    static const struct {
        const char *report;
        bool good;
        const char *says;
    } rows[] = {
        {"selftest instructions=20000 cycles=11000 irqs=1\n", true, "at hardware speed"},
        {"noise\r\nselftest instructions=20000 cycles=159999 irqs=1\n", true, "at hardware speed"},
        {"selftest instructions=20000 cycles=160000 irqs=1\n", false,
         "8 cycles for an instruction"},
        {"selftest instructions=20000 cycles=15000000 irqs=1\n", false, "interprets: 750 cycles"},
        {"selftest instructions=20000 cycles=11000 irqs=0\n", false, "delivered 0 interrupts"},
        {"selftest instructions=20000 cycles=11000 irqs=2\n", false, "delivered 2 interrupts"},
        {"selftest instructions=0 cycles=0 irqs=1\n", false, "did not run"},
        {"selftest instructions=20000\n", false, "did not run"},
        {"", false, "did not run"},
        {"error: no KVM_CAP_X", false, "no KVM_CAP_X"},
    };
    char why[200];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(vmm_kvm_probe_judge(rows[i].report, why, sizeof(why)), rows[i].good);
        if (strstr(why, rows[i].says) == NULL) {
            fail_msg("row %zu: '%s' does not say '%s'", i, why, rows[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adding_adds_every_counter),
        cmocka_unit_test(text_has_a_column_for_each_vcpu_and_the_total),
        cmocka_unit_test(text_of_many_vcpus_comes_in_blocks),
        cmocka_unit_test(total_stands_alone_when_a_block_is_full),
        cmocka_unit_test(json_says_what_the_table_says),
        cmocka_unit_test(json_names_the_vectors_that_came),
        cmocka_unit_test(kicks_avoided_are_posts_without_a_signal),
        cmocka_unit_test(json_to_a_full_device_is_an_error),
        cmocka_unit_test(self_test_reports_are_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
