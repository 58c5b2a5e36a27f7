/* SPDX-License-Identifier: MIT */
/* The fixture of nested tests itself: does the world of three levels run at all, and do its checks
 * notice what they are for? */
#include "nested_fixture.h"

static void test_svm_none(void **state)
{
    struct nx *nx = nx_new(&(struct nx_options){.kind = VAPIC_ACCEL_AVIC});

    (void)state;
    assert_true(nx_in_l2(nx, 0));
    assert_true(nx_in_l2(nx, 1));
    assert_false(nx_in_l2(nx, nx_spare(nx)));
    nx_l2_ipi(nx, 0, APIC_DM_FIXED | APIC_ICR_ASSERT | 0x51, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 1);
    assert_true(nx_l2_bit(nx, 1, APIC_ISR, 0x51));
    nx_l2_eoi(nx, 1);
    assert_false(nx_l2_bit(nx, 1, APIC_ISR, 0x51));
    nx_free(nx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_svm_none),
    };

    return cmocka_run_group_tests_name("nested_fixture", tests, NULL, NULL);
}
