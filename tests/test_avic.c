/* SPDX-License-Identifier: MIT */
/*
 * The AVIC back end: what it writes into VMCB and tables, when a vCPU counts as running, TPR, and
 * what happens when it is switched off and on.
 */
#include "avic_tests.h"
#include "vapic/nested.h"

/* ---- The VMCB [APM2 15.29.2] ---- */

static void test_vmcb_after_attach(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 3, false);

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        assert_int_equal(vmcb64(ax, n, VMCB_AVIC_BAR), APIC_DEFAULT_BASE);
        assert_int_equal(vmcb64(ax, n, VMCB_AVIC_BACKING), ax_hpa(ax, ax->v[n]->page));
        assert_int_equal(vmcb64(ax, n, VMCB_AVIC_LOGICAL), ax->accel.logical_hpa);
        assert_int_equal(vmcb64(ax, n, VMCB_AVIC_PHYSICAL), ax->accel.physical_hpa | 2);
        assert_true(vmcb64(ax, n, VMCB_INT_CTL) & VMCB_V_INTR_MASKING);
        assert_int_equal(physical_entry(ax, n) & (AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_BACKING),
                         AVIC_PHYSICAL_VALID | ax_hpa(ax, ax->v[n]->page));
    }
    assert_int_equal(physical_entry(ax, 3), 0);
    ax_free(ax);
}

/* int_ctl 31:30, the CR8 intercept and the MSRs, by mode of the APIC and kind of silicon. */
static void test_controls_by_mode(void **state)
{
    static const struct {
        uint32_t features;
        bool x2apic, inhibited;
        uint64_t mode;
        bool msrs_open;
    } rows[] = {
        {XAVIC, false, false, VMCB_V_AVIC, false},
        {XAVIC, false, true, 0, false},
        {XAVIC, true, false, VMCB_V_AVIC, false}, /* hybrid */
        {XAVIC, true, true, 0, false},
        {X2AVIC, false, false, VMCB_V_AVIC, false},
        {X2AVIC, false, true, 0, false},
        {X2AVIC, true, false, VMCB_V_AVIC | VMCB_V_X2AVIC, true},
        {X2AVIC, true, true, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = avic_vm(rows[i].features, 2, rows[i].x2apic);
        uint32_t at = (uint32_t)svm_msrpm_bit(0x808);

        vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, rows[i].inhibited);
        enter_all(ax);
        assert_int_equal(avic_mode(ax, 0), rows[i].mode);
        assert_int_equal((vmcb32(ax, 0, VMCB_INTERCEPT_CR) & VMCB_CR8_WRITE) != 0,
                         rows[i].mode == 0);
        assert_int_equal((ax->v[0]->msrpm[at / 8] >> at % 8 & 3) == 0, rows[i].msrs_open);
        assert_int_equal(vapic_active(&ax->v[0]->apic), rows[i].mode != 0);
        ax_free(ax);
    }
}

static void test_max_index_by_mode(void **state)
{
    static const struct {
        uint32_t features, max_id, x1, x2;
        size_t pages;
    } rows[] = {
        {XAVIC, 3, 3, 3, 1},
        {XAVIC, 254, 254, 254, 1},
        {XAVIC, 255, 254, 254, 1},
        {XAVIC, 4000, 254, 254, 1},
        {X2AVIC, 255, 254, 255, 1},
        {X2AVIC, 511, 254, 511, 1},
        {X2AVIC, 4095, 254, 511, 1},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 511, 254, 511, 1},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 512, 254, 512, 2},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 4095, 254, 4095, 8},
        {X2AVIC | VAPIC_ACCEL_X2AVIC_EXT, 60000, 254, 4095, 8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vapic_accel_config config = {
            .kind = VAPIC_ACCEL_AVIC, .features = rows[i].features, .max_id = rows[i].max_id};

        assert_int_equal(vapic_accel_memory(&config), (rows[i].pages + 1) * 4096);
        for (uint32_t x2 = 0; x2 < 2; x2++) {
            struct ax_options o = {.accel = config, .x2apic = x2, .vcpus = 1};
            bool by_msr = x2 && rows[i].features & VAPIC_ACCEL_X2AVIC;
            struct ax *ax = ax_new(&o);

            enter_all(ax);
            assert_int_equal(vmcb64(ax, 0, VMCB_AVIC_PHYSICAL) & AVIC_MAX_INDEX,
                             by_msr ? rows[i].x2 : rows[i].x1);
            assert_true(ax->v[0]->cpu->in_guest);
            ax_free(ax);
        }
    }
}

static void test_memory_refused(void **state)
{
    struct vapic_accel_config ext = {.kind = VAPIC_ACCEL_AVIC, .features = VAPIC_ACCEL_X2AVIC_EXT};
    struct vapic_accel_config tag = {.kind = VAPIC_ACCEL_AVIC, .vm_tag = 0x100000};

    (void)state;
    assert_int_equal(vapic_accel_memory(&ext), 0);
    assert_int_equal(vapic_accel_memory(&tag), 0);
    tag.vm_tag = 0xFFFFF;
    assert_int_equal(vapic_accel_memory(&tag), 2 * 4096);
}

/* With every clean bit set by the host after each exit, what the processor acts on must still be
 * what the library has written: the model keeps its copy of every field that is called clean. */
static void test_clean_bits(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 2, false);
    uint64_t value;

    (void)state;
    enter_all(ax);
    ax_leave(ax, 0);
    assert_int_equal(vmcb32(ax, 0, VMCB_CLEAN), 0xFFFFFFFF);
    ax_enter(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(vapic_load_base(&ax->v[0]->apic, vapic_base(&ax->v[0]->apic) | APIC_BASE_EXTD),
                     VAPIC_OK);
    ax_forget(ax);
    assert_int_equal(ax_rdmsr(ax, 0, 0x802, &value), AX_DONE);
    assert_int_equal(ax_count(ax, AX_EXIT), 0); /* x2AVIC and the open MSR are in force */
    assert_int_equal(value, 0);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_forget(ax);
    assert_int_equal(ax_rdmsr(ax, 0, 0x802, &value), AX_DONE);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_MSR), 1); /* and so are the intercepts, again */
    ax_write_cr8(ax, 0, 5);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_CR8_WRITE), 1);
    ax_free(ax);
}

/* ---- Translations of the APIC page ---- */

/* The processor holds one of the scratch page when AVIC is switched on. */
static void test_flush_at_activation(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    enter_all(ax);
    ax->page_mapped = true; /* as a lazy host would have it: mapped, but AVIC is off */
    ax->cpus[0].tlb[0] = (struct vapic_sil_tlb){.tag = 1,
                                                .gpa = APIC_DEFAULT_BASE,
                                                .hpa = ax_hpa(ax, ax->scratch),
                                                .valid = true,
                                                .writable = true};
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    ax_forget(ax);
    assert_int_equal(ax_read(ax, 0, APIC_SVR), 0x1FF);
    assert_int_equal(ax_count(ax, AX_FLUSH), 1);
    ax_free(ax);
}

/* xAVIC to x2AVIC: the translation that leads to the register page must go. */
static void test_flush_at_mode_change(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 1, false);
    uint64_t base = vapic_base(&ax->v[0]->apic), value = 0;

    (void)state;
    assert_int_equal(ax_read(ax, 0, APIC_SVR), 0x1FF);
    assert_int_equal(ax_wrmsr(ax, 0, MSR_APIC_BASE, base | APIC_BASE_EXTD), AX_DONE);
    ax_forget(ax);
    assert_int_equal(ax_mmio(ax, 0, false, APIC_DEFAULT_BASE + APIC_SVR, &value), AX_DONE);
    assert_int_equal(value, 0); /* the scratch page */
    assert_int_equal(ax_count(ax, AX_FLUSH), 1);
    ax_free(ax);
}

/* ---- IsRunning ---- */

static void test_running_protocol(void **state)
{
    struct ax_options parked = {
        .accel = {.kind = VAPIC_ACCEL_AVIC, .features = XAVIC}, .vcpus = 2, .parked = true};
    struct ax *ax = ax_new(&parked);

    (void)state;
    assert_true(physical_entry(ax, 1) & AVIC_PHYSICAL_VALID);
    assert_false(is_running(ax, 1)); /* not before it has taken notice that it may be */
    ax_free(ax);
    ax = avic_vm(XAVIC, 2, false);
    enter_all(ax);
    assert_true(is_running(ax, 1));
    assert_int_equal(physical_entry(ax, 1) & AVIC_PHYSICAL_HOST_ID, AX_HOST_ID(1));
    assert_int_equal(physical_entry(ax, 1) & AVIC_PHYSICAL_RESERVED, 0);
    ax_leave(ax, 1);
    assert_true(is_running(ax, 1)); /* an exit changes nothing */
    ax_put(ax, 1);
    assert_false(is_running(ax, 1));
    assert_int_equal(physical_entry(ax, 1) & AVIC_PHYSICAL_HOST_ID, AX_HOST_ID(1));
    ax_load(ax, 1, 3);
    assert_true(is_running(ax, 1));
    assert_int_equal(physical_entry(ax, 1) & AVIC_PHYSICAL_HOST_ID, AX_HOST_ID(3));
    ax_enter(ax, 1);
    sleep_vcpu(ax, 1);
    assert_false(is_running(ax, 1));
    ax_post(ax, 1, 0x40, false);
    ax_settle(ax);
    assert_true(is_running(ax, 1));
    assert_int_equal(ax_delivered(ax, 1, 0x40), 1);
    ax_free(ax);
}

/* A vCPU that is preempted on its way to sleep: nothing is published until it is awake again. */
static void test_load_while_blocking(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);
    struct vapic *v = &ax->v[1]->apic;

    (void)state;
    enter_all(ax);
    sleep_vcpu(ax, 1);
    vapic_put(v);
    vapic_load(v, &ax->pcpus[2]);
    ax->v[1]->cpu = &ax->cpus[2];
    ax->v[1]->pcpu = &ax->pcpus[2];
    assert_false(is_running(ax, 1));
    ax_post(ax, 1, 0x40, false);
    ax_run(ax, 1);
    assert_true(is_running(ax, 1));
    assert_int_equal(physical_entry(ax, 1) & AVIC_PHYSICAL_HOST_ID, AX_HOST_ID(2));
    assert_int_equal(ax_delivered(ax, 1, 0x40), 1);
    ax_free(ax);
}

/* A host APIC ID beyond the table's 12 bits cannot be rung by other processors. */
static void test_host_id_too_large(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    ax_put(ax, 1);
    ax->pcpus[2].apic_id = 0x1000;
    ax_load(ax, 1, 2);
    assert_false(is_running(ax, 1));
    assert_true(physical_entry(ax, 1) & AVIC_PHYSICAL_VALID);
    ax_free(ax);
}

/* The sender posts, the target stops running before the sender looks: the sender exits. */
static void stop_target(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    (void)cpu;
    if (point != *(enum vapic_sil_point *)ax->user)
        return;
    ax->on_point = NULL;
    ax->executing = -1;
    ax_hlt(ax, 1);
    ax_run(ax, 1);
    ax->executing = 0;
}

static void block_race(enum vapic_sil_point point, bool sleeps)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    enter_all(ax);
    ax->user = &point;
    ax->on_point = stop_target;
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    if (sleeps)
        assert_true(ax_exits(ax, 0, SVM_EXIT_AVIC_INCOMPLETE) == 1 || !ax->v[1]->blocked);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* One of the two sees the other, wherever the target's way to sleep falls in. */
static void test_block_race(void **state)
{
    (void)state;
    block_race(VAPIC_SIL_POINT_RESOLVED, true);
    block_race(VAPIC_SIL_POINT_POSTED, true);
    block_race(VAPIC_SIL_POINT_FOUND, false);
}

/* ---- Erratum 1235 ---- */

static void test_never_published(void **state)
{
    struct ax *ax = avic_vm(0, 3, false);

    (void)state;
    enter_all(ax);
    assert_false(is_running(ax, 1));
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_INCOMPLETE), 1);
    ax_ipi(ax, 0, APIC_ICR_SELF | APIC_ICR_ASSERT | 0x62, 0);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    assert_int_equal(ax_delivered(ax, 0, 0x62), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 1); /* the self IPI needed none */
    ax_free(ax);
}

/* A processor that acts on a stale IsRunning: lost with it, safe without. */
static bool arrives_with_stale_bit(uint32_t features)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_AVIC, .features = features},
        .silicon = {.knobs = {.quirk_1235 = true}},
        .silicon_set = true,
        .vcpus = 2,
    };
    struct ax *ax = ax_new(&o);
    bool arrived;

    enter_all(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    ax_settle(ax);
    ax_eoi(ax, 1);
    sleep_vcpu(ax, 1);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x62, 1);
    ax_settle(ax);
    arrived = ax_delivered(ax, 1, 0x62) == 1;
    ax_free(ax);
    return arrived;
}

static void test_erratum_1235(void **state)
{
    (void)state;
    assert_false(arrives_with_stale_bit(XAVIC)); /* the erratum is there */
    assert_true(arrives_with_stale_bit(0));
}

/* ---- TPR ---- */

static void test_tpr_and_cr8(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ax_write(ax, 0, APIC_TPR, 0x35);
    assert_int_equal(ax_read_cr8(ax, 0), 3);
    assert_int_equal(ax_read(ax, 0, APIC_TPR), 0x35);
    ax_leave(ax, 0);
    assert_int_equal(ax_page(ax, 0, APIC_TPR), 0x35); /* an exit does not lose the low bits */
    ax_write_cr8(ax, 0, 5);
    assert_int_equal(ax_read(ax, 0, APIC_TPR), 0x50);
    assert_int_equal(ax_count(ax, AX_EXIT), 1); /* that of ax_leave() */
    ax_free(ax);
}

/* Software changes TPR; V_TPR is what gates. */
static void test_v_tpr_follows(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ax_write_cr8(ax, 0, 15);
    ax_post(ax, 0, 0x80, false);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x80), 0);
    ax_leave(ax, 0);
    assert_int_equal(vapic_write_cr8(&ax->v[0]->apic, 0), VAPIC_OK);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x80), 1);
    ax_free(ax);
}

/* A restored page with a lower TPR than the processor was left with. */
static void test_v_tpr_after_load(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);
    uint8_t image[VAPIC_IMAGE_SIZE];
    struct vapic *v = &ax->v[0]->apic;

    (void)state;
    ax_enter(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(vapic_save_image(v, VAPIC_IMAGE_ID32, image, sizeof(image), ax->now),
                     VAPIC_OK);
    ax_write_cr8(ax, 0, 15);
    ax_post(ax, 0, 0x80, false);
    ax_settle(ax);
    ax_leave(ax, 0);
    image[APIC_IRR + 0x40] = 1; /* 80h pends */
    assert_int_equal(vapic_load_image(v, VAPIC_IMAGE_ID32, image, sizeof(image), ax->now),
                     VAPIC_OK);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x80), 1);
    ax_free(ax);
}

/* A vCPU that halts with something in IRR that priority holds back sleeps; else it does not. */
static void test_halt_with_pending(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    ax_write_cr8(ax, 1, 15);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    sleep_vcpu(ax, 1);
    ax_post(ax, 1, 0xF5, false);
    ax_settle(ax);
    assert_true(ax->v[1]->blocked);
    ax_act(ax, 1, vapic_nmi(&ax->v[1]->apic));
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_NMI), 1);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 0);
    ax_write_cr8(ax, 1, 0);
    ax_hlt(ax, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0xF5), 1);
    ax_free(ax);
}

/* Where the processor reports a class that the page does not have, the processor is right. */
static void test_tpr_from_v_tpr(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);
    uint32_t tpr = 0x35;

    (void)state;
    ax_enter(ax, 0);
    ax->v[0]->cpu->svm.int_ctl = (ax->v[0]->cpu->svm.int_ctl & ~VMCB_V_TPR) | 7;
    memcpy(ax->v[0]->page + APIC_TPR, &tpr, sizeof(tpr));
    ax_leave(ax, 0);
    assert_int_equal(ax_page(ax, 0, APIC_TPR), 0x70);
    assert_int_equal(ax_page(ax, 0, APIC_PPR), 0x70);
    ax_free(ax);
}

/* ---- Off and on with interrupts in flight ---- */

static void test_toggle_keeps_irr_and_isr(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x80, 1);
    ax_settle(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x51, 1); /* pends behind 80h */
    ax_settle(ax);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    assert_false(ax->v[1]->entered);
    ax_settle(ax);
    assert_false(is_running(ax, 1));
    assert_int_equal(ax_delivered(ax, 1, 0x51), 0);
    ax_eoi(ax, 1); /* by software now: it must know of 80h in service */
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x51), 1);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x31, 1);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    ax_settle(ax);
    assert_true(is_running(ax, 1));
    ax_forget(ax);
    ax_eoi(ax, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x31), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* Between the sender's post and its look at IsRunning the whole VM is switched off. */
static void inhibit_now(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    (void)cpu;
    if (point != *(enum vapic_sil_point *)ax->user)
        return;
    ax->on_point = NULL;
    /* Only the target has taken notice; the sender's processor is in the guest still. */
    ax_leave(ax, 1);
    vapic_nested_enter(&ax->v[1]->apic, NULL);
    ax->executing = -1;
    ax_run(ax, 1);
    ax->executing = 0;
}

static void test_off_between_post_and_look(void **state)
{
    static const enum vapic_sil_point points[] = {VAPIC_SIL_POINT_RESOLVED, VAPIC_SIL_POINT_POSTED,
                                                  VAPIC_SIL_POINT_FOUND};

    (void)state;
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        struct ax *ax = avic_vm(XAVIC, 2, false);
        enum vapic_sil_point point = points[i];

        enter_all(ax);
        ax->user = &point;
        ax->on_point = inhibit_now;
        ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
        ax_settle(ax);
        assert_false(vapic_active(&ax->v[1]->apic));
        assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
        ax_free(ax);
    }
}

/* ---- Nested guests ---- */

/* A vCPU that runs L2 is not running for its peers; what is written is L1's VMCB alone. */
static void test_nested(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    ax_leave(ax, 1);
    vapic_nested_enter(&ax->v[1]->apic, NULL);
    ax_enter(ax, 1);
    assert_false(is_running(ax, 1));
    assert_int_equal(avic_mode(ax, 1), 0);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0); /* nobody else is concerned */
    assert_int_equal(avic_mode(ax, 0), VMCB_V_AVIC);
    ax_forget(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_INCOMPLETE), 1);
    assert_int_equal(ax_nth(ax, AX_NOTIFY, 0)->a, VAPIC_ACTION_KICK);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_leave(ax, 1);
    vapic_nested_exit(&ax->v[1]->apic);
    ax_enter(ax, 1);
    assert_true(is_running(ax, 1));
    assert_int_equal(avic_mode(ax, 1), VMCB_V_AVIC);
    ax_free(ax);
}

/* ---- Interrupt windows ---- */

static void test_extint_window(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_write(ax, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    ax_if(ax, 0, false);
    enter_all(ax);
    ax_act(ax, 0, vapic_set_lint(&ax->v[0]->apic, 0, true));
    ax_settle(ax);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 1u << VAPIC_INHIBIT_IRQWIN);
    assert_int_equal(avic_mode(ax, 0), 0);
    assert_int_equal(avic_mode(ax, 1), 0);
    assert_int_equal(ax_count(ax, AX_EXTINT), 0);
    ax_if(ax, 0, true);
    ax_settle(ax);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_VINTR), 1);
    assert_int_equal(ax_count(ax, AX_EXTINT), 1);
    ax_leave(ax, 0);
    ax_settle(ax);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    assert_int_equal(avic_mode(ax, 0), VMCB_V_AVIC);
    ax_free(ax);
}

/* ---- Removal ---- */

static void test_removed_vcpu(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_write(ax, 1, APIC_LDR, 2u << 24);
    enter_all(ax);
    assert_int_equal(logical_entry(ax, 1), AVIC_LOGICAL_VALID | 1);
    ax_put(ax, 1);
    assert_int_equal(vapic_remove(&ax->v[1]->apic), VAPIC_OK);
    assert_int_equal(physical_entry(ax, 1), ax_hpa(ax, ax->v[1]->page));
    assert_int_equal(logical_entry(ax, 1), 0);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x61, 1);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_INCOMPLETE), 1);
    ax_ipi(ax, 0, APIC_ICR_ALL_EXCL | APIC_ICR_ASSERT | 0x62, 0);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_INCOMPLETE), 1); /* skipped in silence */
    assert_false(ax_page_bit(ax, 1, APIC_IRR, 0x61));
    assert_false(ax_page_bit(ax, 1, APIC_IRR, 0x62));
    assert_int_equal(vapic_add(&ax->v[1]->apic), VAPIC_OK);
    ax_load(ax, 1, 1);
    ax_settle(ax);
    ax_forget(ax);
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 0x63, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x63), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vmcb_after_attach),
        cmocka_unit_test(test_controls_by_mode),
        cmocka_unit_test(test_max_index_by_mode),
        cmocka_unit_test(test_memory_refused),
        cmocka_unit_test(test_clean_bits),
        cmocka_unit_test(test_flush_at_activation),
        cmocka_unit_test(test_flush_at_mode_change),
        cmocka_unit_test(test_running_protocol),
        cmocka_unit_test(test_load_while_blocking),
        cmocka_unit_test(test_host_id_too_large),
        cmocka_unit_test(test_block_race),
        cmocka_unit_test(test_never_published),
        cmocka_unit_test(test_erratum_1235),
        cmocka_unit_test(test_tpr_and_cr8),
        cmocka_unit_test(test_v_tpr_follows),
        cmocka_unit_test(test_v_tpr_after_load),
        cmocka_unit_test(test_halt_with_pending),
        cmocka_unit_test(test_tpr_from_v_tpr),
        cmocka_unit_test(test_toggle_keeps_irr_and_isr),
        cmocka_unit_test(test_off_between_post_and_look),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_extint_window),
        cmocka_unit_test(test_removed_vcpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
