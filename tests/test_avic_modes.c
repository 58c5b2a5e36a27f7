/* SPDX-License-Identifier: MIT */
/*
 * AVIC by mode of the APIC: which MSRs do not exit, hybrid mode, xAPIC and x2APIC vCPUs side by
 * side, the logical table, tables of every size.
 */
#include "avic_tests.h"

static void to_x2apic(struct ax *ax, uint32_t n)
{
    uint64_t base = vapic_base(&ax->v[n]->apic);

    assert_int_equal(ax_wrmsr(ax, n, MSR_APIC_BASE, base | APIC_BASE_EXTD), AX_DONE);
}

static void disable(struct ax *ax, uint32_t n)
{
    uint64_t base = vapic_base(&ax->v[n]->apic);

    assert_int_equal(
        ax_wrmsr(ax, n, MSR_APIC_BASE, base & ~(uint64_t)(APIC_BASE_EXTD | APIC_BASE_EN)), AX_DONE);
}

/* ---- MSRs that do not exit [APM2 15.29.9.2] ---- */

static bool open_for_reads(uint32_t msr)
{
    return msr == 0x802 || msr == 0x803 || msr == 0x808 || msr == 0x80A || msr == 0x80D ||
           msr == 0x80F || (msr >= 0x810 && msr <= 0x828) || msr == 0x830 ||
           (msr >= 0x832 && msr <= 0x838) || msr == 0x83E;
}

static bool open_for_writes(uint32_t msr)
{
    return msr == 0x808 || msr == 0x80B || msr == 0x830 || msr == 0x83F;
}

static uint32_t intercepts(const struct ax *ax, uint32_t n, uint32_t msr)
{
    uint32_t at = (uint32_t)svm_msrpm_bit(msr);

    return ax->v[n]->msrpm[at / 8] >> at % 8 & 3;
}

static void check_pass_list(const struct ax *ax, uint32_t n, bool open)
{
    for (uint32_t msr = 0; msr < 0x2000; msr++) {
        bool x2 = msr >= 0x800 && msr <= 0x8FF;

        assert_int_equal((intercepts(ax, n, msr) & 1) == 0, open && x2 && open_for_reads(msr));
        assert_int_equal((intercepts(ax, n, msr) & 2) == 0, open && x2 && open_for_writes(msr));
    }
    assert_int_equal(intercepts(ax, n, AVIC_DOORBELL_MSR), 3);
}

static void test_pass_list(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 2, true);

    (void)state;
    enter_all(ax);
    check_pass_list(ax, 0, true);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    enter_all(ax);
    check_pass_list(ax, 0, false);
    ax_free(ax);
    ax = avic_vm(XAVIC, 1, true); /* hybrid: the MSRs are those of the host's own APIC */
    enter_all(ax);
    check_pass_list(ax, 0, false);
    ax_free(ax);
}

/* A register that the vCPU lacks raises #GP, as without acceleration. */
static void test_pass_list_by_features(void **state)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_AVIC, .features = X2AVIC}, .x2apic = true, .max_lvt = 3};
    struct ax *ax = ax_new(&o);
    uint64_t value;

    (void)state;
    assert_int_equal(ax_rdmsr(ax, 0, 0x832, &value), AX_DONE);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    assert_int_equal(ax_rdmsr(ax, 0, 0x833, &value), AX_GP);
    assert_int_equal(ax_rdmsr(ax, 0, 0x834, &value), AX_GP);
    ax_free(ax);
}

static void test_map_of_pass_list(void **state)
{
    struct vapic_msr_pass pass = {{0}, {0}};
    uint8_t map[SVM_MSRPM_SIZE];

    (void)state;
    pass.read[0] = 1;
    pass.write[3] = 1ull << 63;
    memset(map, 0x5A, sizeof(map));
    vapic_pass_to_msrpm(&pass, map);
    assert_int_equal(map[0x800 * 2 / 8] & 3, 2);
    assert_int_equal(map[0x8FF * 2 / 8] >> 6, 1);
    assert_int_equal(map[0x801 * 2 / 8] >> 2 & 3, 3);
    assert_int_equal(map[0x7FF * 2 / 8], 0x5A); /* others stay */
    assert_int_equal(map[0x900 * 2 / 8], 0x5A);
}

/* The processor would refuse the TSC-deadline bit; the intercept comes first. */
static void test_tsc_deadline(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 1, true);

    (void)state;
    assert_int_equal(ax_wrmsr(ax, 0, 0x832, APIC_TIMER_DEADLINE | 0xEC), AX_DONE);
    assert_int_equal(ax_read(ax, 0, APIC_LVT_TIMER), APIC_TIMER_DEADLINE | 0xEC);
    assert_int_equal(ax_wrmsr(ax, 0, MSR_TSC_DEADLINE, ax->now.tsc + 1000), AX_DONE);
    ax_tick(ax, 1000);
    assert_int_equal(ax_delivered(ax, 0, 0xEC), 1);
    ax_free(ax);
}

/* No access of a guest in any mode reaches the host's own APIC. */
static void test_never_native(void **state)
{
    static const uint32_t features[] = {XAVIC, X2AVIC};

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        struct ax *ax = avic_vm(features[i & 1], 1, i & 2);
        uint64_t value;

        vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, i & 4);
        for (uint32_t msr = 0x800; msr <= 0x8FF; msr++) {
            assert_int_not_equal(ax_rdmsr(ax, 0, msr, &value), AX_NATIVE);
            assert_int_not_equal(ax_wrmsr(ax, 0, msr, 0), AX_NATIVE);
            ax_forget(ax);
        }
        ax_free(ax);
    }
}

/* ---- Hybrid mode ---- */

static void test_hybrid(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 3, false);

    (void)state;
    enter_all(ax);
    ax_write(ax, 1, APIC_TPR, 0); /* caches a translation */
    assert_true(vapic_access_page(&ax->vm));
    to_x2apic(ax, 1);
    ax_forget(ax);
    ax_settle(ax);
    assert_false(vapic_access_page(&ax->vm));
    assert_int_equal(ax_nth(ax, AX_PAGE, 0)->a, 0);
    assert_int_equal(ax_nth(ax, AX_ENTRY, 0)->vcpu, 1);
    assert_true(ax_nth(ax, AX_PAGE, 0) < ax_nth(ax, AX_ENTRY, 0)); /* before the first entry */
    assert_int_equal(avic_mode(ax, 1), VMCB_V_AVIC);
    assert_true(vapic_active(&ax->v[1]->apic));

    /* Interrupts still come by doorbell, whoever sends them. */
    ax_forget(ax);
    ax_ipi(ax, 1, APIC_ICR_ASSERT | 0x61, 2);
    assert_int_equal(ax_nth(ax, AX_NOTIFY, 0)->a, VAPIC_ACTION_DOORBELL);
    assert_int_equal(ax_traced(ax, VAPIC_EVENT_AVIC_DOORBELL), 1);
    ax_post(ax, 1, 0x62, false);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 2, 0x61), 1);
    assert_int_equal(ax_delivered(ax, 1, 0x62), 1);

    /* The peers in xAPIC mode go on by emulation. */
    ax_forget(ax);
    ax_eoi(ax, 2);
    assert_int_equal(ax_exits(ax, 2, SVM_EXIT_NPF), 1);
    ax_ipi(ax, 2, APIC_ICR_ASSERT | 0x63, 0);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x63), 1);
    assert_int_equal(ax_read(ax, 2, APIC_SVR), 0x1FF);
    ax_eoi(ax, 1);
    ax_eoi(ax, 0);

    /* For good, also when nobody is in x2APIC mode any more. */
    disable(ax, 1);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    ax_settle(ax);
    assert_false(vapic_access_page(&ax->vm));
    ax_free(ax);
}

/* An EOI by MSR lets the next one pass although no processor saw it. */
static void test_hybrid_priorities(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, true);

    (void)state;
    enter_all(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x80, 1);
    ax_settle(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x51, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x51), 0);
    ax_write(ax, 1, APIC_TPR, 0x60);
    ax_eoi(ax, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x51), 0);
    assert_int_equal(ax_read_cr8(ax, 1), 6);
    ax_write_cr8(ax, 1, 4); /* by the processor, without an exit */
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x51), 1);
    assert_int_equal(ax_read(ax, 1, APIC_TPR), 0x40);
    ax_free(ax);
}

/* ---- xAPIC and x2APIC side by side, with x2AVIC ---- */

static void test_side_by_side(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 3, false);

    (void)state;
    to_x2apic(ax, 1);
    to_x2apic(ax, 2);
    enter_all(ax);
    assert_int_equal(avic_mode(ax, 0), VMCB_V_AVIC);
    assert_int_equal(avic_mode(ax, 1), VMCB_V_AVIC | VMCB_V_X2AVIC);
    assert_true(vapic_access_page(&ax->vm));
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    ax_ipi(ax, 1, APIC_ICR_ASSERT | 0x62, 0);
    ax_settle(ax);
    ax_ipi(ax, 1, APIC_ICR_ALL_EXCL | APIC_ICR_ASSERT | 0x71, 0);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    assert_int_equal(ax_delivered(ax, 0, 0x62), 1);
    assert_int_equal(ax_delivered(ax, 0, 0x71) + ax_delivered(ax, 2, 0x71), 2);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* A vCPU in x2APIC mode finds ordinary memory at the page's address, never its registers. */
static void test_x2apic_never_reaches_page(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 1, false);
    uint64_t value = 0xFFFFFFFF;

    (void)state;
    ax_write(ax, 0, APIC_TPR, 0x10);
    to_x2apic(ax, 0);
    assert_int_equal(ax_mmio(ax, 0, true, APIC_DEFAULT_BASE + APIC_TPR, &value), AX_DONE);
    assert_int_equal(ax_page(ax, 0, APIC_TPR), 0x10);
    ax_free(ax);
}

/* ---- The logical table [APM2 15.29.2.4] ---- */

static void ldr(struct ax *ax, uint32_t n, uint8_t value)
{
    ax_write(ax, n, APIC_LDR, (uint32_t)value << 24);
    ax_settle(ax);
}

static void test_logical_table(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 2, false);

    (void)state;
    enter_all(ax);
    ldr(ax, 1, 0x04);
    assert_int_equal(logical_entry(ax, 2), AVIC_LOGICAL_VALID | 1);
    ldr(ax, 1, 0x04); /* the same again */
    assert_int_equal(logical_entry(ax, 2), AVIC_LOGICAL_VALID | 1);
    ldr(ax, 1, 0x40); /* moved */
    assert_int_equal(logical_entry(ax, 2), 0);
    assert_int_equal(logical_entry(ax, 6), AVIC_LOGICAL_VALID | 1);
    ldr(ax, 1, 0x06); /* no slot can say two bits */
    assert_int_equal(logical_entry(ax, 6), 0);
    ldr(ax, 1, 0);
    ldr(ax, 1, 0x02);
    assert_int_equal(logical_entry(ax, 1), AVIC_LOGICAL_VALID | 1);
    ax_write(ax, 1, APIC_DFR, 0x2FFFFFFF); /* a model that does not exist */
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 1), 0);
    ax_write(ax, 1, APIC_DFR, APIC_DFR_FLAT);
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 1), AVIC_LOGICAL_VALID | 1);
    ax_write(ax, 1, APIC_SVR, 0xFF); /* accepts nothing now */
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 1), 0);
    ax_write(ax, 1, APIC_SVR, 0x1FF);
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 1), AVIC_LOGICAL_VALID | 1);
    to_x2apic(ax, 1);
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 1), 0);
    ax_free(ax);
}

/* Cluster 1 bit 2 is entry 6; cluster 15 has none. */
static void test_logical_clusters(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ldr(ax, 0, 0x14);
    ax_write(ax, 0, APIC_DFR, APIC_DFR_CLUSTER);
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 6), AVIC_LOGICAL_VALID | 0);
    ldr(ax, 0, 0xF1);
    assert_int_equal(logical_entry(ax, 60), 0);
    ldr(ax, 0, 0x16);
    for (uint32_t slot = 0; slot < 64; slot++)
        assert_int_equal(logical_entry(ax, slot), 0);
    ax_free(ax);
}

/* Two claim one slot: invalid until only one does; the VM is inhibited meanwhile. */
static void test_logical_conflict(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 3, false);

    (void)state;
    enter_all(ax);
    ldr(ax, 1, 2);
    ldr(ax, 2, 2);
    assert_int_equal(logical_entry(ax, 1), 0);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 1u << VAPIC_INHIBIT_LOGICAL_ID_ALIASED);
    ax_forget(ax);
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | APIC_ICR_ASSERT | 0x61, 2);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61) + ax_delivered(ax, 2, 0x61), 2);
    ldr(ax, 2, 4);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    assert_int_equal(logical_entry(ax, 1), AVIC_LOGICAL_VALID | 1); /* claimed anew */
    assert_int_equal(logical_entry(ax, 2), AVIC_LOGICAL_VALID | 2);
    ax_free(ax);
}

/* LDR changes while AVIC is off, by software: right again when it is on. */
static void test_logical_while_inhibited(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ldr(ax, 1, 2);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ldr(ax, 1, 8);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    ax_settle(ax);
    assert_int_equal(logical_entry(ax, 1), 0);
    assert_int_equal(logical_entry(ax, 3), AVIC_LOGICAL_VALID | 1);
    ax_forget(ax);
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | APIC_ICR_ASSERT | 0x61, 8);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* ---- Off by the guest ---- */

static void test_apic_disabled(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    disable(ax, 1);
    ax_settle(ax);
    assert_int_equal(avic_mode(ax, 1), 0);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    /* Nothing may wait for it when it is enabled again. */
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    ax_ipi(ax, 0, APIC_ICR_ALL_EXCL | APIC_ICR_ASSERT | 0x62, 0);
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | APIC_ICR_ASSERT | 0x63, 0xFF);
    ax_wrmsr(ax, 1, MSR_APIC_BASE, APIC_DEFAULT_BASE | APIC_BASE_EN);
    ax_settle(ax);
    assert_int_equal(avic_mode(ax, 1), VMCB_V_AVIC);
    assert_true(is_running(ax, 1));
    ax_write(ax, 1, APIC_SVR, 0x1FF);
    ax_settle(ax);
    for (uint32_t vector = 0x61; vector <= 0x63; vector++)
        assert_int_equal(ax_delivered(ax, 1, (uint8_t)vector), 0);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x64, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x64), 1);
    ax_free(ax);
}

static void test_moved_base(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    assert_int_equal(ax_wrmsr(ax, 1, MSR_APIC_BASE, 0xFED00000 | APIC_BASE_EN), AX_DONE);
    ax_settle(ax);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 1u << VAPIC_INHIBIT_APIC_BASE_MODIFIED);
    assert_int_equal(avic_mode(ax, 0), 0);
    ax_free(ax);
}

/* ---- Sizes ---- */

static void test_too_big(void **state)
{
    static const struct {
        uint32_t features, id;
        bool fits;
    } rows[] = {
        {XAVIC, 254, true},
        {XAVIC, 255, false},
        {X2AVIC, 255, true},
        {X2AVIC, 511, true},
        {X2AVIC, 512, false},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 512, true},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 4095, true},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 4096, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t ids[] = {0, rows[i].id};
        struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC, .features = rows[i].features},
                               .vcpus = 2,
                               .ids = ids,
                               .x2apic = true};
        struct ax *ax = ax_new(&o);
        uint32_t expected = rows[i].fits ? 0 : 1u << VAPIC_INHIBIT_PHYSICAL_ID_TOO_BIG;

        enter_all(ax);
        assert_int_equal(vapic_inhibits(&ax->vm).bits, expected);
        assert_int_equal(vapic_active(&ax->v[1]->apic), rows[i].fits);
        ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, rows[i].id);
        ax_settle(ax);
        assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
        ax_free(ax);
    }
}

/* Broadcast and the highest vCPU, in VMs of 255 and 512 vCPUs. */
static void large(uint32_t vcpus)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_AVIC, .features = X2AVIC}, .vcpus = vcpus, .x2apic = true};
    struct ax *ax = ax_new(&o);
    uint32_t delivered = 0;

    enter_all(ax);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    ax_ipi(ax, 0, APIC_ICR_ALL_EXCL | APIC_ICR_ASSERT | 0x61, 0);
    ax_settle(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x72, vcpus - 1);
    if (vcpus > 256)
        ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x73, 255); /* an ID like any other */
    ax_settle(ax);
    if (vcpus > 256)
        assert_int_equal(ax_delivered(ax, 255, 0x73), 1);
    for (uint32_t n = 1; n < vcpus; n++)
        delivered += ax_page_bit(ax, n, APIC_ISR, 0x61);
    assert_int_equal(delivered, vcpus - 1);
    assert_int_equal(ax_delivered(ax, vcpus - 1, 0x72), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

static void test_large(void **state)
{
    (void)state;
    large(255);
    large(512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pass_list),
        cmocka_unit_test(test_pass_list_by_features),
        cmocka_unit_test(test_map_of_pass_list),
        cmocka_unit_test(test_tsc_deadline),
        cmocka_unit_test(test_never_native),
        cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_hybrid_priorities),
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_x2apic_never_reaches_page),
        cmocka_unit_test(test_logical_table),
        cmocka_unit_test(test_logical_clusters),
        cmocka_unit_test(test_logical_conflict),
        cmocka_unit_test(test_logical_while_inhibited),
        cmocka_unit_test(test_apic_disabled),
        cmocka_unit_test(test_moved_base),
        cmocka_unit_test(test_too_big),
        cmocka_unit_test(test_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
