/* SPDX-License-Identifier: MIT */
/* Words of --inhibit and --pause-vcpu, and the choice of --accel auto: vmm/accel_disturb.h,
 * accel.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "accel.h"
#include "accel_disturb.h"

static void periods(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns; /* 0: refused */
        const char *why;
    } rows[] = {
        {"10ms", 10000000, NULL},
        {"10", 10000000, NULL},
        {"100us", 100000, NULL},
        {"99us", 0, "out of range"},
        {"2s", 2000000000, NULL},
        {"3600s", 3600000000000, NULL},
        {"3601s", 0, "out of range"},
        {"0", 0, "out of range"},
        {"18446744073709551615s", 0, "out of range"},
        {"99999999999999999999s", 0, "is no period"},
        {"", 0, "is no period"},
        {"ms", 0, "is no period"},
        {"-5ms", 0, "is no period"},
        {" 5ms", 0, "is no period"},
        {"5 ms", 0, "is no period"},
        {"5min", 0, "is no period"},
        {"1.5ms", 0, "is no period"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmm_err err = {""};
        uint64_t ns = 77;
        int rc = vmm_period_parse("pause-vcpu", rows[i].text, &ns, &err);

        assert_int_equal(rc, rows[i].ns != 0 ? 0 : -1);
        assert_true(ns == (rows[i].ns != 0 ? rows[i].ns : 77));
        if (rows[i].why != NULL) {
            assert_non_null(strstr(err.text, rows[i].why));
            assert_non_null(strstr(err.text, "--pause-vcpu"));
        }
    }
}

static void a_script_is_added(void **state)
{
    struct vmm_disturb_config config = {.inhibits = 0};
    struct vmm_err err;

    (void)state;
    assert_int_equal(vmm_inhibit_parse("BLOCKIRQ@10ms", &config, &err), 0);
    assert_int_equal(vmm_inhibit_parse("PIT_REINJ@500us", &config, &err), 0);
    assert_int_equal(config.inhibits, 2);
    assert_int_equal(config.inhibit[0].reason, VAPIC_INHIBIT_BLOCKIRQ);
    assert_int_equal(config.inhibit[0].period_ns, 10000000);
    assert_int_equal(config.inhibit[1].reason, VAPIC_INHIBIT_PIT_REINJ);
    assert_int_equal(config.inhibit[1].period_ns, 500000);
}

static void bad_scripts_change_nothing(void **state)
{
    static const struct {
        const char *text;
        const char *why;
    } rows[] = {
        {"BLOCKIRQ", "has no period"},
        {"BLOCKIRQ@", "is no period"},
        {"BLOCKIRQ@now", "is no period"},
        {"BLOCKIRQ@1us", "out of range"},
        {"@10ms", "no reason ''"},
        {"BLOCK@10ms", "no reason 'BLOCK'"},
        {"BLOCKIRQS@10ms", "no reason 'BLOCKIRQS'"},
        {"blockirq@10ms", "give one of DISABLED"},
        {"NESTED@10ms", "no reason 'NESTED'"},
        {"IRQWIN@10ms", "no reason 'IRQWIN'"},
    };
    struct vmm_disturb_config config = {.inhibits = 0};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmm_err err = {""};

        assert_int_equal(vmm_inhibit_parse(rows[i].text, &config, &err), -1);
        assert_int_equal(config.inhibits, 0);
        assert_non_null(strstr(err.text, rows[i].why));
    }
}

static void a_reason_has_one_script(void **state)
{
    static const char *const names[] = {"DISABLED",
                                        "HYPERV",
                                        "ABSENT",
                                        "BLOCKIRQ",
                                        "SEV",
                                        "PIT_REINJ",
                                        "PHYSICAL_ID_ALIASED",
                                        "LOGICAL_ID_ALIASED"};
    struct vmm_disturb_config config = {.inhibits = 0};
    struct vmm_err err = {""};
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(text, sizeof(text), "%s@1s", names[i]);
        assert_int_equal(vmm_inhibit_parse(text, &config, &err), 0);
    }
    assert_int_equal(vmm_inhibit_parse("SEV@2s", &config, &err), -1);
    assert_non_null(strstr(err.text, "twice"));
    assert_int_equal(vmm_inhibit_parse("APIC_ID_MODIFIED@2s", &config, &err), -1);
    assert_non_null(strstr(err.text, "more than 8"));
    assert_int_equal(config.inhibits, VMM_INHIBITS_MAX);
}

static void hardware_honours_its_reasons(void **state)
{
    (void)state;
    assert_true(vmm_accel_honours(VMM_ACCEL_X2AVIC, VAPIC_INHIBIT_PIT_REINJ));
    assert_false(vmm_accel_honours(VMM_ACCEL_APICV, VAPIC_INHIBIT_PIT_REINJ));
    assert_false(vmm_accel_honours(VMM_ACCEL_APICV_IPIV, VAPIC_INHIBIT_SEV));
    assert_true(vmm_accel_honours(VMM_ACCEL_APICV_IPIV, VAPIC_INHIBIT_BLOCKIRQ));
    assert_false(vmm_accel_honours(VMM_ACCEL_NONE, VAPIC_INHIBIT_BLOCKIRQ));
}

static void moving_needs_a_spare_processor(void **state)
{
    struct vmm_disturb_config config = {.inhibits = 1};

    (void)state;
    assert_int_equal(vmm_disturb_spare(NULL), 0);
    assert_int_equal(vmm_disturb_spare(&config), 0);
    config.pause_ns = 1000000;
    assert_int_equal(vmm_disturb_spare(&config), 1);
}

static void a_script_that_cannot_keep_up_leaves_the_guest_time(void **state)
{
    static const struct {
        uint64_t due, now, at;
    } rows[] = {
        {1100, 1001, 1100},
        {1100, 1100, 1100},
        {1100, 9000, 1100},
        {1100, 1100 + VMM_DISTURB_LATE_NS, 1100},
        {1100, 1101 + VMM_DISTURB_LATE_NS, 1151 + VMM_DISTURB_LATE_NS},
        {1100, 9000 + VMM_DISTURB_LATE_NS, 9050 + VMM_DISTURB_LATE_NS},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(vmm_disturb_time(rows[i].due, rows[i].now, 100), rows[i].at);
    }
}

#define AVIC   SVM_CPUID_EDX_AVIC
#define X2AVIC SVM_CPUID_EDX_X2AVIC
#define ZEN4   0xa10f11u /* family 19h */
#define INTEL  0x806f8u  /* family 6 */

static void auto_takes_what_the_processor_has(void **state)
{
    static const struct {
        const char *cpuinfo;
        uint32_t svm_edx, signature;
        enum vmm_accel_mode mode;
    } rows[] = {
        {"", 0, INTEL, VMM_ACCEL_NONE},
        {"", SVM_CPUID_EDX_NP, ZEN4, VMM_ACCEL_NONE},
        {"", AVIC, ZEN4, VMM_ACCEL_AVIC},
        {"", AVIC | X2AVIC, ZEN4, VMM_ACCEL_X2AVIC},
        {"", AVIC, 0x800f12, VMM_ACCEL_AVIC_NOIPIV}, /* family 17h: Zen */
        {"", AVIC, 0x870f10, VMM_ACCEL_AVIC_NOIPIV}, /* Zen 2 */
        {"", AVIC, 0x900f02, VMM_ACCEL_AVIC_NOIPIV}, /* 18h: Hygon */
        {"", AVIC, 0xa20f10, VMM_ACCEL_AVIC},        /* 19h: Zen 3 */
        {"", X2AVIC, ZEN4, VMM_ACCEL_NONE},
        {"vmx flags\t: vnmi posted_intr flexpriority apicv vapic\n", 0, INTEL, VMM_ACCEL_APICV},
        {"vmx flags\t: vnmi apicv posted_intr", 0, INTEL, VMM_ACCEL_APICV},
        {"vmx flags\t: posted_intr apicv ipi_virt\n", 0, INTEL, VMM_ACCEL_APICV_IPIV},
        {"vmx flags\t: vnmi apicv\n", 0, INTEL, VMM_ACCEL_NONE},
        {"vmx flags\t: vnmi posted_intr\n", 0, INTEL, VMM_ACCEL_NONE},
        {"vmx flags\t: posted_intrs apicv2\n", 0, INTEL, VMM_ACCEL_NONE},
        {"flags\t: apicv posted_intr\n", 0, INTEL, VMM_ACCEL_NONE},
        {"vmx flags\t: vnmi\nbugs\t: apicv posted_intr\n", 0, INTEL, VMM_ACCEL_NONE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(vmm_accel_judge_host(rows[i].cpuinfo, rows[i].svm_edx, rows[i].signature),
                         rows[i].mode);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(periods),
        cmocka_unit_test(a_script_is_added),
        cmocka_unit_test(bad_scripts_change_nothing),
        cmocka_unit_test(a_reason_has_one_script),
        cmocka_unit_test(hardware_honours_its_reasons),
        cmocka_unit_test(moving_needs_a_spare_processor),
        cmocka_unit_test(a_script_that_cannot_keep_up_leaves_the_guest_time),
        cmocka_unit_test(auto_takes_what_the_processor_has),
    };

    return cmocka_run_group_tests_name("accel_scripts", tests, NULL, NULL);
}
