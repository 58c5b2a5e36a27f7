/* SPDX-License-Identifier: MIT */
/*
 * AMD: what a hypervisor inside of a guest makes the processor do: the doorbell MSR of a guest, and
 * two VMCBs that take turns on one processor. [APM2 15.29.3.3] [APM2 15.15] [APM2 15.16]
 */
#include "silicon_fixture.h"

enum { OTHER = 9 }; /* the vCPU whose VMCB takes turns with that of vCPU 0 */

static void enter(struct sf *sf, uint32_t vmcb)
{
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[0], SF_VMCB + 0x1000ull * vmcb), VAPIC_SIL_DONE);
}

static void leave(struct sf *sf)
{
    vapic_sil_leave(&sf->cpu[0], SVM_EXIT_INTR, 0, 0);
}

/* ---- WRMSR C001011Bh by a guest ---- */

static void doorbell_exits(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    uint64_t value = 0;

    (void)state;
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, VMCB_I3_MSR);
    sf_intercept_msr(sf, 0, AVIC_DOORBELL_MSR, true, true);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], AVIC_DOORBELL_MSR, 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, SVM_EXIT_MSR, 1, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP, "RIP");
    sf_equal(sf->cpu[1].doorbell, 0, "not rung");
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], AVIC_DOORBELL_MSR, &value), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, SVM_EXIT_MSR, 0, 0);
    sf_free(sf);
}

/* Not intercepted it is the host's: a guest with other IDs must not be let at it. */
static void doorbell_is_the_hosts(void **state)
{
    (void)state;
    for (int x2 = 0; x2 < 2; x2++) {
        struct sf *sf = sf_new(NULL, x2 != 0);

        sf_run(sf, 0);
        assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], AVIC_DOORBELL_MSR, 3), VAPIC_SIL_NATIVE);
        sf_equal(sf->cpu[3].doorbell, 0, "rung by the guest");
        sf_equal(sf->cpu[0].guest.rip, SF_RIP, "RIP");
        sf_free(sf);
    }
}

/* ---- Two VMCBs in turn ---- */

/* Translations carry the ASID: each guest reaches its own registers, without any flush. */
static void each_its_page(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    uint32_t value = 0;

    (void)state;
    sf_set_reg(sf, 0, APIC_LDR, 0x11000000);
    sf_set_reg(sf, OTHER, APIC_LDR, 0x22000000);
    for (int i = 0; i < 3; i++) {
        enter(sf, 0);
        sf_read(sf, 0, APIC_LDR, &value);
        sf_equal(value, 0x11000000, "round %d", i);
        leave(sf);
        enter(sf, OTHER);
        sf_read(sf, 0, APIC_LDR, &value);
        sf_equal(value, 0x22000000, "round %d", i);
        leave(sf);
    }
    sf_equal(sf->walks, 2, "walks");
    sf_free(sf);
}

/* All clean bits are set, and the fields differ: what was cached of another VMCB is not used. */
static void clean_bits_are_of_one_vmcb(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t vmcb = i & 1 ? OTHER : 0;

        sf_set_vmcb32(sf, vmcb, VMCB_CLEAN, 0xFFFFFFFF);
        enter(sf, vmcb);
        sf_equal(sf->cpu[0].svm.backing, SF_BACKING + 0x1000 * vmcb, "round %u", i);
        sf_equal(sf->cpu[0].svm.asid, sf_vmcb32(sf, vmcb, VMCB_ASID), "round %u", i);
        leave(sf);
    }
    sf_free(sf);
}

/* A doorbell has no address: it makes whatever runs look at its own page. What was meant for the
 * VMCB that has just been left is found at its next VMRUN. */
static void doorbell_in_the_other_guest(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    enter(sf, 0);
    leave(sf);
    enter(sf, OTHER);
    sf_set_bit(sf, 0, APIC_IRR, 0x51, true);
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 0), VAPIC_SIL_DONE);
    sf_equal(sf_take(sf, 0), -1, "nothing for this one");
    sf_set_bit(sf, OTHER, APIC_IRR, 0x61, true);
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 0), VAPIC_SIL_DONE);
    sf_equal(sf_take(sf, 0), 0x61, "its own");
    leave(sf);
    enter(sf, 0);
    sf_equal(sf_take(sf, 0), 0x51, "found by VMRUN");
    sf_free(sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doorbell_exits),
        cmocka_unit_test(doorbell_is_the_hosts),
        cmocka_unit_test(each_its_page),
        cmocka_unit_test(clean_bits_are_of_one_vmcb),
        cmocka_unit_test(doorbell_in_the_other_guest),
    };

    return cmocka_run_group_tests_name("silicon_nested", tests, NULL, NULL);
}
