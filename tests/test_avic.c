/* SPDX-License-Identifier: MIT */
/*
 * The AVIC back end on the silicon model: the life of a vCPU's VMCB, table entries and running
 * state, IPIs, EOIs, TPR, toggles.
 */
#include "accel_fixture.h"

static struct ax *avic(uint32_t features, uint32_t vcpus)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_AVIC, .features = features}, .vcpus = vcpus, .trace = true};

    return ax_new(&o);
}

static void test_self_ipi(void **state)
{
    struct ax *ax = avic(VAPIC_ACCEL_IPIV, 2);

    (void)state;
    ax_ipi(ax, 0, APIC_ICR_SELF | APIC_ICR_ASSERT | 0x51, 0);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self_ipi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
