/* SPDX-License-Identifier: MIT */
/* The time line of an inhibition, and the statistics of modelled silicon: vmm/accel_timeline.h,
 * accel_report.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel_report.h"
#include "stats.h"

#define BLOCKIRQ (1u << VAPIC_INHIBIT_BLOCKIRQ)
#define IRQWIN   (1u << VAPIC_INHIBIT_IRQWIN)
#define TPR      (APIC_TPR >> 4)
#define EOI      (APIC_EOI >> 4)
#define ICR      (APIC_ICR >> 4)

static struct vmm_timeline timeline;
static struct vmm_vcpu_stats cpu[2];

static int setup(void **state)
{
    (void)state;
    memset(cpu, 0, sizeof(cpu));
    return vmm_timeline_init(&timeline) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    vmm_timeline_fini(&timeline);
    return 0;
}

static void near(double value, double wanted)
{
    assert_true(value > wanted - 1e-9 && value < wanted + 1e-9);
}

/* ---------------------------------------------------------------------------------------------- */
/* Time line                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

static void time_goes_to_the_reasons_in_force(void **state)
{
    (void)state;
    vmm_timeline_begin(&timeline, 1000, 0);
    vmm_timeline_change(&timeline, 1200, BLOCKIRQ);
    vmm_timeline_change(&timeline, 1300, BLOCKIRQ | IRQWIN);
    vmm_timeline_change(&timeline, 1600, IRQWIN);
    vmm_timeline_change(&timeline, 1700, 0);
    vmm_timeline_end(&timeline, 2000);
    near(vmm_timeline_share(&timeline, VAPIC_INHIBIT_BLOCKIRQ), 0.4);
    near(vmm_timeline_share(&timeline, VAPIC_INHIBIT_IRQWIN), 0.4);
    near(vmm_timeline_share(&timeline, VAPIC_INHIBIT_COUNT), 0.5);
    near(vmm_timeline_share(&timeline, VAPIC_INHIBIT_SEV), 0);
    assert_int_equal(timeline.changes, 4);
    assert_int_equal(timeline.count, 5);
    assert_int_equal(timeline.entry[2].ns, 300);
    assert_int_equal(timeline.entry[2].mask, BLOCKIRQ | IRQWIN);
}

static void what_changes_nothing_is_no_change(void **state)
{
    (void)state;
    vmm_timeline_change(&timeline, 10, BLOCKIRQ); /* before the beginning */
    vmm_timeline_begin(&timeline, 100, BLOCKIRQ);
    vmm_timeline_change(&timeline, 150, BLOCKIRQ);
    vmm_timeline_end(&timeline, 200);
    vmm_timeline_change(&timeline, 300, 0); /* after the end */
    vmm_timeline_end(&timeline, 400);
    assert_int_equal(timeline.changes, 0);
    assert_int_equal(timeline.count, 1);
    assert_int_equal(timeline.total_ns, 100);
    near(vmm_timeline_share(&timeline, VAPIC_INHIBIT_BLOCKIRQ), 1);
}

/* Events of different threads may come with times the wrong way round. */
static void time_does_not_run_back(void **state)
{
    (void)state;
    vmm_timeline_begin(&timeline, 1000, 0);
    vmm_timeline_change(&timeline, 2000, BLOCKIRQ);
    vmm_timeline_change(&timeline, 1900, 0);
    vmm_timeline_end(&timeline, 3000);
    assert_int_equal(timeline.total_ns, 2000);
    assert_int_equal(timeline.any_ns, 0);
    assert_int_equal(timeline.entry[2].ns, 1000);
}

static void sums_outlive_a_full_list(void **state)
{
    uint64_t now = 0;

    (void)state;
    vmm_timeline_begin(&timeline, now, 0);
    for (unsigned i = 0; i < 2 * VMM_TIMELINE_MAX; i++) {
        now += 10;
        vmm_timeline_change(&timeline, now, i % 2 == 0 ? BLOCKIRQ : 0);
    }
    vmm_timeline_end(&timeline, now);
    assert_int_equal(timeline.count, VMM_TIMELINE_MAX);
    assert_int_equal(timeline.changes, 2 * VMM_TIMELINE_MAX);
    near(vmm_timeline_share(&timeline, VAPIC_INHIBIT_BLOCKIRQ), 0.5);
}

static void masks_as_text(void **state)
{
    char text[256];
    char small[12];

    (void)state;
    assert_string_equal(vmm_inhibits_text(0, text, sizeof(text)), "none");
    assert_string_equal(vmm_inhibits_text(BLOCKIRQ | IRQWIN, text, sizeof(text)),
                        "BLOCKIRQ IRQWIN");
    assert_string_equal(vmm_inhibits_text(BLOCKIRQ | IRQWIN, small, sizeof(small)), "BLOCKIRQ IR");
    vmm_inhibits_text((1u << VAPIC_INHIBIT_COUNT) - 1, text, sizeof(text));
    assert_non_null(strstr(text, "PHYSICAL_ID_TOO_BIG"));
}

/* ---------------------------------------------------------------------------------------------- */
/* Counters                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

static void fill(void)
{
    cpu[0].accel.entries = 50;
    cpu[0].accel.exits[VMM_ACCEL_EXIT_HLT] = 7;
    cpu[1].accel.exits[VMM_ACCEL_EXIT_HLT] = 4;
    cpu[1].accel.exits[VMM_ACCEL_EXIT_INCOMPLETE_IPI] = 3;
    cpu[1].accel.incomplete[AVIC_IPI_NOT_RUNNING] = 3;
    cpu[0].accel.reg[TPR][1][VMM_ACCEL_END_ACCELERATED] = 30;
    cpu[0].accel.reg[EOI][1][VMM_ACCEL_END_ACCELERATED] = 40;
    cpu[1].accel.reg[EOI][1][VMM_ACCEL_END_ACCELERATED] = 5;
    cpu[1].accel.reg[ICR][1][VMM_ACCEL_END_TRAP] = 3;
    cpu[1].accel.reg[ICR][0][VMM_ACCEL_END_EMULATED] = 22;
    cpu[1].accel.doorbells = 6;
    cpu[0].accel.posted = 2;
    cpu[0].accel.eoi_exits = 1;
    cpu[0].accel.delivered = 45;
    vmm_timeline_begin(&timeline, 0, 0);
    vmm_timeline_change(&timeline, 750, BLOCKIRQ);
    vmm_timeline_end(&timeline, 1000);
}

static const uint32_t masks[] = {0, IRQWIN};

static struct vmm_accel_report report(void)
{
    return (struct vmm_accel_report){
        .mode = "avic",
        .inhibits = BLOCKIRQ,
        .boot_masks = masks,
        .reboots = 2,
        .pause_ns = 10,
        .timeline = &timeline,
        .script = {{{VAPIC_INHIBIT_BLOCKIRQ, 10000000}, 600, 598}},
        .scripts = 1,
    };
}

static struct vmm_stats stats_of(const struct vmm_accel_report *accel)
{
    return (struct vmm_stats){
        .cpu = cpu, .cpus = 2, .boots = 1, .seconds = 2, .engine = "kvm", .accel = accel};
}

/* The text of a row: its name, then the columns. */
static bool has_row(const char *text, const char *row)
{
    char squeezed[16384];
    size_t n = 0;

    for (const char *at = text; *at != '\0' && n + 1 < sizeof(squeezed); at++) {
        if (*at != ' ' || n == 0 || squeezed[n - 1] != ' ') {
            squeezed[n++] = *at;
        }
    }
    squeezed[n] = '\0';
    return strstr(squeezed, row) != NULL;
}

static char *text_of(const struct vmm_stats *stats)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    vmm_stats_text(stats, file);
    fclose(file);
    return text;
}

static void text_has_a_row_per_register(void **state)
{
    struct vmm_accel_report accel = report();
    struct vmm_stats stats;
    char *text;

    (void)state;
    fill();
    stats = stats_of(&accel);
    text = text_of(&stats);
    assert_true(has_row(text, "\nsilicon hlt 7 4 11\n"));
    assert_true(has_row(text, "\nsilicon doorbells 0 6 6\n"));
    assert_true(has_row(text, "\nsilicon posted 2 0 2\n"));
    assert_true(has_row(text, "\nipi not_running 0 3 3\n"));
    assert_true(has_row(text, "\nTPR w accelerated 30 0 30\n"));
    assert_true(has_row(text, "\nEOI w accelerated 40 5 45\n"));
    assert_true(has_row(text, "\nICR w trap 0 3 3\n"));
    assert_true(has_row(text, "\nICR r emulated 0 22 22\n"));
    assert_null(strstr(text, "TPR r"));
    assert_null(strstr(text, "ipi invalid_type"));
    assert_non_null(strstr(text, "silicon avic: 75.0 % of 100 register accesses accelerated; "
                                 "inhibits 0x8 (BLOCKIRQ)\n"));
    assert_non_null(strstr(text, "after reboot 1: inhibits 0x0 (none)\n"));
    assert_non_null(strstr(text, "after reboot 2: inhibits 0x100 (IRQWIN)\n"));
    assert_non_null(strstr(text, "inhibited 25.0 % of 0.00 s, BLOCKIRQ 25.0 %\n"));
    assert_non_null(strstr(text, "BLOCKIRQ@10000us: 600 changes were due, 598 happened\n"));
    assert_non_null(strstr(text, "to move every 0 us: 100 moves were due, 0 happened\n"));
    free(text);
}

static void no_rows_without_a_model(void **state)
{
    struct vmm_stats stats;
    char *text;

    (void)state;
    fill();
    stats = stats_of(NULL);
    text = text_of(&stats);
    assert_null(strstr(text, "silicon"));
    assert_null(strstr(text, "accelerated"));
    free(text);
}

static json_t *parsed(char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);

    free(text);
    assert_non_null(root);
    return root;
}

/* The number at a path of names, -1 if there is none. */
static json_int_t number(json_t *at, const char *path)
{
    char copy[128];
    char *save = NULL;

    snprintf(copy, sizeof(copy), "%s", path);
    for (char *name = strtok_r(copy, "/", &save); name != NULL; name = strtok_r(NULL, "/", &save)) {
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(name)) : json_object_get(at, name);
    }
    return json_is_integer(at) ? json_integer_value(at) : -1;
}

static void json_says_the_same(void **state)
{
    struct vmm_accel_report accel = report();
    struct vmm_stats stats;
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    json_t *root;

    (void)state;
    fill();
    stats = stats_of(&accel);
    assert_int_equal(vmm_stats_json(&stats, file), 0);
    fclose(file);
    root = parsed(text);
    assert_int_equal(number(root, "cpus/0/silicon/exits/hlt"), 7);
    assert_int_equal(number(root, "total/silicon/exits/total"), 14);
    assert_int_equal(number(root, "total/silicon/accelerated"), 75);
    assert_int_equal(number(root, "total/silicon/incomplete_ipis/not_running"), 3);
    assert_int_equal(number(root, "cpus/1/silicon/registers/EOI/write/accelerated"), 5);
    assert_int_equal(number(root, "cpus/1/silicon/registers/ICR/read/emulated"), 22);
    assert_int_equal(number(root, "cpus/0/silicon/registers/ICR/write/trap"), -1);
    assert_int_equal(number(root, "accel/inhibits"), BLOCKIRQ);
    assert_int_equal(number(root, "accel/inhibits_after_reboot/1"), IRQWIN);
    assert_int_equal(number(root, "accel/scripts/0/happened"), 598);
    assert_int_equal(number(root, "accel/moves_due"), 100);
    assert_int_equal(number(root, "accel/timeline/1/1"), BLOCKIRQ);
    json_decref(root);
}

static void names_of_registers(void **state)
{
    char text[16];

    (void)state;
    assert_string_equal(vmm_accel_reg_name(TPR, text, sizeof(text)), "TPR");
    assert_string_equal(vmm_accel_reg_name((APIC_IRR >> 4) + 3, text, sizeof(text)), "IRR3");
    assert_string_equal(vmm_accel_reg_name(VMM_ACCEL_REG_CR8, text, sizeof(text)), "CR8");
    assert_string_equal(vmm_accel_reg_name(VMM_ACCEL_REG_OTHER, text, sizeof(text)), "other");
    assert_string_equal(vmm_accel_reg_name(0x01, text, sizeof(text)), "010h");
}

/* ---------------------------------------------------------------------------------------------- */
/* Side by side                                                                                   */
/* ---------------------------------------------------------------------------------------------- */

static void compare_runs(struct vmm_compare *compare)
{
    struct vmm_accel_report accel = report();
    struct vmm_stats stats = stats_of(NULL);

    memset(compare, 0, sizeof(*compare));
    cpu[0].exits[VMM_EXIT_MMIO_APIC] = 100;
    cpu[1].exits[VMM_EXIT_MMIO_IOAPIC] = 11;
    cpu[1].exits[VMM_EXIT_KICK] = 5;
    assert_true(vmm_compare_add(compare, "none", 0, &stats));
    fill();
    stats = stats_of(&accel);
    assert_true(vmm_compare_add(compare, "avic", 3, &stats));
}

static void a_table_compares_runs(void **state)
{
    struct vmm_compare compare;
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    (void)state;
    compare_runs(&compare);
    vmm_compare_text(&compare, file);
    fclose(file);
    assert_true(has_row(text, "vapic: accel none avic\n"));
    assert_true(has_row(text, "\nstatus 0 3\n"));
    assert_true(has_row(text, "\nseconds 2.00 2.00\n"));
    assert_true(has_row(text, "\naccelerated % 0.00 75.00\n"));
    assert_true(has_row(text, "\ninhibited % 0.00 25.00\n"));
    assert_true(has_row(text, "\nexits 116 14\n"));
    assert_true(has_row(text, "\nexit_page 111 0\n"));
    assert_true(has_row(text, "\nexit_interrupt 5 0\n"));
    assert_true(has_row(text, "\nexit_incomplete_ipi 0 3\n"));
    assert_true(has_row(text, "\nemulated 100 22\n"));
    assert_null(strstr(text, "exit_window"));
    free(text);
    vmm_compare_free(&compare);
}

static void json_compares_runs(void **state)
{
    struct vmm_compare compare;
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    json_t *root;

    (void)state;
    compare_runs(&compare);
    assert_int_equal(vmm_compare_json(&compare, file), 0);
    fclose(file);
    root = parsed(text);
    assert_int_equal(number(root, "runs/0/exits"), 116);
    assert_int_equal(number(root, "runs/1/accelerated"), 75);
    assert_int_equal(number(root, "runs/1/status"), 3);
    assert_int_equal(number(root, "runs/1/exit_window"), 0);
    json_decref(root);
    vmm_compare_free(&compare);
}

/* Its counters are zero, not those of a run without a model. */
static void a_run_that_failed_has_a_column(void **state)
{
    struct vmm_accel_report accel = report();
    struct vmm_stats stats = stats_of(&accel);
    struct vmm_compare compare = {.count = 0};
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    json_t *root;

    (void)state;
    cpu[0].exits[VMM_EXIT_KICK] = 5;
    assert_true(vmm_compare_add(&compare, "avic", 1, &stats)); /* before its first entry */
    assert_true(vmm_compare_add(&compare, "x2avic", 2, NULL));
    assert_int_equal(vmm_compare_json(&compare, file), 0);
    fclose(file);
    root = parsed(text);
    assert_int_equal(number(root, "runs/0/exits"), 0);
    assert_int_equal(number(root, "runs/1/status"), 2);
    assert_int_equal(number(root, "runs/1/boots"), 0);
    json_decref(root);
    vmm_compare_free(&compare);
}

static void a_full_comparison_refuses(void **state)
{
    struct vmm_stats stats = stats_of(NULL);
    struct vmm_compare compare = {.count = 0};

    (void)state;
    for (unsigned i = 0; i < VMM_COMPARE_MAX; i++) {
        assert_true(vmm_compare_add(&compare, "none", 0, &stats));
    }
    assert_false(vmm_compare_add(&compare, "none", 0, &stats));
    vmm_compare_free(&compare);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(time_goes_to_the_reasons_in_force),
        TEST(what_changes_nothing_is_no_change),
        TEST(time_does_not_run_back),
        TEST(sums_outlive_a_full_list),
        TEST(masks_as_text),
        TEST(text_has_a_row_per_register),
        TEST(no_rows_without_a_model),
        TEST(json_says_the_same),
        TEST(names_of_registers),
        TEST(a_table_compares_runs),
        TEST(json_compares_runs),
        TEST(a_run_that_failed_has_a_column),
        TEST(a_full_comparison_refuses),
    };

    return cmocka_run_group_tests_name("accel_report", tests, NULL, NULL);
}
