/* SPDX-License-Identifier: MIT */
/*
 * AVIC for L2: what 02 gets of 12, interrupts of L1 and of L2 while L2 is current, L2's IPIs with
 * the dummy and with a shadow, L1's doorbells, what L1 gets back.
 */
#include <pthread.h>
#include <semaphore.h>

#include "../src/nested/shadow.h"
#include "nested_svm_bench.h"

#define FIXED(v) (APIC_ICR_ASSERT | (v))
#define MODE     (VMCB_V_AVIC | VMCB_V_X2AVIC)

static uint64_t vmcb02(struct sb *sb, uint32_t n, uint32_t field)
{
    return vmcb_get64(sb->v[n]->vmcb02, field);
}

static uint64_t vmcb01(struct sb *sb, uint32_t n, uint32_t field)
{
    return vmcb_get64(sb->v[n]->vmcb01, field);
}

static uint8_t *vmcb12(struct sb *sb, uint32_t n)
{
    return sb->v[n]->vmcb12;
}

static void int_ctl12(struct sb *sb, uint32_t n, uint64_t set, uint64_t clear)
{
    vmcb_set64(vmcb12(sb, n), VMCB_INT_CTL,
               (vmcb_get64(vmcb12(sb, n), VMCB_INT_CTL) & ~clear) | set);
}

/* Of L0's own table, for L1's AVIC. */
static bool l1_runs(struct sb *sb, uint32_t n)
{
    uint64_t *table = sb_sil_memory(sb, vmcb01(sb, n, VMCB_AVIC_PHYSICAL) & AVIC_ADDRESS, 4096);

    return (table[n] & AVIC_PHYSICAL_RUNNING) != 0;
}

/* ---- What 02 gets ---- */

static void test_fields_of_02(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    int_ctl12(sb, 1, 5 | VMCB_V_IRQ | VMCB_V_IGN_TPR, VMCB_V_INTR_MASKING);
    vmcb_set64(vmcb12(sb, 1), VMCB_AVIC_BAR, 0x123456000);
    assert_int_equal(sb_nested_enter(sb, 1), VAPIC_OK);
    /* V_IRQ is none of L2's with AVIC, masking is L0's own. */
    assert_int_equal(vmcb02(sb, 1, VMCB_INT_CTL), VMCB_V_AVIC | VMCB_V_INTR_MASKING | 5);
    assert_int_equal(vmcb02(sb, 1, VMCB_AVIC_BAR), 0x123456000);
    assert_int_equal(vmcb02(sb, 1, VMCB_AVIC_BACKING), sb_page_hpa(sb, SB_BACKING + 1));
    assert_int_equal(vmcb02(sb, 1, VMCB_AVIC_PHYSICAL) & AVIC_MAX_INDEX, SB_VCPUS - 1);
    assert_int_equal(sb->pins[SB_BACKING + 1], 1);
    /* With the dummy no table of L1's is walked by the processor. */
    assert_int_not_equal(vmcb02(sb, 1, VMCB_AVIC_LOGICAL), sb_page_hpa(sb, SB_LOGICAL));
    assert_int_not_equal(vmcb02(sb, 1, VMCB_AVIC_PHYSICAL) & AVIC_ADDRESS,
                         sb_page_hpa(sb, SB_TABLE));
    sb_free(sb);
}

/* G1, N3, N11: the bits of 02 follow from 12 alone. */
static void test_l2_keeps_its_avic_although_l1s_is_inhibited(void **state)
{
    struct sb_options o = *SB_DUMMY;
    struct sb *sb;
    uint8_t before[4096];

    (void)state;
    o.disabled = true;
    sb = sb_new(&o);
    sb_start(sb, 0);
    assert_int_equal(vmcb02(sb, 0, VMCB_INT_CTL) & MODE, VMCB_V_AVIC);
    assert_int_equal(vmcb01(sb, 0, VMCB_INT_CTL) & MODE, 0);
    sb_free(sb);

    sb = sb_new(SB_DUMMY);
    sb_start_all(sb);
    memcpy(before, sb->v[0]->vmcb02, sizeof(before));
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(vapic_set_inhibit(&sb->vm, VAPIC_INHIBIT_BLOCKIRQ, i % 2 == 0), VAPIC_OK);
        for (uint32_t n = 0; n < sb->vcpus; n++)
            if (!sb->v[n]->entered)
                sb_run(sb, n);
        assert_int_equal(sb->v[0]->entry.nested, VAPIC_NESTED_STAY);
    }
    assert_int_equal(vmcb02(sb, 0, VMCB_INT_CTL), vmcb_get64(before, VMCB_INT_CTL));
    for (uint32_t field = VMCB_AVIC_BAR; field <= VMCB_AVIC_PHYSICAL; field += 8)
        if (field != VMCB_EVENTINJ && field != VMCB_CLEAN && field != VMCB_NRIP)
            assert_int_equal(vmcb02(sb, 0, field), vmcb_get64(before, field));
    sb_free(sb);
}

/* N4, N5. L1 enters and leaves; IsRunning says so; V_TPR is given back. */
static void test_l1s_avic_is_inhibited_while_l2_runs(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct vapic_nested_left left;
    struct vapic *v = &sb->v[2]->apic;

    (void)state;
    for (uint32_t n = 0; n < sb->vcpus; n++)
        assert_true(sb_look(sb, n));
    vapic_exit(v, 0, true);
    assert_true(l1_runs(sb, 2));
    assert_int_equal(vmcb01(sb, 2, VMCB_INT_CTL) & MODE, VMCB_V_AVIC);
    int_ctl12(sb, 2, 3, 0);
    sb_start(sb, 2);
    assert_false(l1_runs(sb, 2));
    assert_true(l1_runs(sb, 1)); /* the others are as they were */
    assert_int_equal(vmcb01(sb, 2, VMCB_INT_CTL) & MODE, 0);
    assert_int_equal(vapic_sil_write_cr8(sb->v[2]->cpu, 9), VAPIC_SIL_DONE);
    sb_leave(sb, 2);
    sb_nested_exit(sb, 2, &left);
    assert_int_equal(left.int_ctl_mask, VMCB_V_TPR);
    assert_int_equal(left.int_ctl, 9);
    assert_int_equal(vapic_nested_state(v), VAPIC_NESTED_L1);
    assert_true(sb_look(sb, 2));
    assert_true(l1_runs(sb, 2));
    assert_int_equal(vmcb01(sb, 2, VMCB_INT_CTL) & MODE, VMCB_V_AVIC);
    assert_int_equal(vmcb01(sb, 2, VMCB_INT_CTL) & VMCB_V_TPR, 0); /* L1's TPR, not L2's */
    assert_int_equal(vapic_inhibits(&sb->vm).bits, 0);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        vapic_exit(&sb->v[n]->apic, 0, true);
    sb_free(sb);
}

/* Fields that differ lose their clean bits, the others do not; a new page flushes translations. */
static void test_clean_bits(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    sb_start(sb, 0);
    sb_nested_exit(sb, 0, NULL);
    vmcb_set32(c->vmcb02, VMCB_CLEAN, 0xFFFFFFFF);
    sb_start(sb, 0);
    sb_leave(sb, 0);
    assert_int_equal(c->vmcb02[VMCB_TLB_CONTROL], VMCB_TLB_NOTHING);
    sb_nested_exit(sb, 0, NULL);
    vmcb_set32(c->vmcb02, VMCB_CLEAN, 0xFFFFFFFF);
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    assert_int_equal(vmcb_get32(c->vmcb02, VMCB_CLEAN), 0xFFFFFFFF);
    sb_nested_exit(sb, 0, NULL);
    vmcb_set64(c->vmcb12, VMCB_AVIC_BACKING, SB_GPA(SB_BACKING + 1));
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    assert_int_equal(vmcb_get32(c->vmcb02, VMCB_CLEAN), 0xFFFFFFFF & ~VMCB_CLEAN_AVIC);
    assert_int_equal(c->vmcb02[VMCB_TLB_CONTROL], VMCB_TLB_ASID);
    assert_int_equal(sb->pins[SB_BACKING], 0); /* the old page is let go */
    sb_nested_exit(sb, 0, NULL);
    int_ctl12(sb, 0, 0, VMCB_V_AVIC);
    vmcb_set32(c->vmcb02, VMCB_CLEAN, 0xFFFFFFFF);
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    assert_int_equal(vmcb_get32(c->vmcb02, VMCB_CLEAN),
                     0xFFFFFFFF & ~(VMCB_CLEAN_AVIC | VMCB_CLEAN_TPR));
    assert_int_equal(sb->pins[SB_BACKING + 1], 0);
    sb_free(sb);
}

/* ---- Checks [APM2 15.29.4.1] ---- */

struct check {
    const char *what;
    uint32_t field;
    uint64_t value; /* of 64 bits; int_ctl: these bits are set */
    uint64_t clear;
    uint32_t offered;
    bool x2;
    int result;
};

#define AVIC   VAPIC_NESTED_AVIC
#define X2     (VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC)
#define X2_EXT (X2 | VAPIC_NESTED_X2AVIC_EXT)
#define BAD    VAPIC_E_CONTROLS

static const struct check checks[] = {
    {"nothing", VMCB_INT_CTL, 0, 0, AVIC, false, VAPIC_OK},
    {"x2AVIC without AVIC", VMCB_INT_CTL, VMCB_V_X2AVIC, VMCB_V_AVIC, X2, false, BAD},
    {"the same, AVIC only offered", VMCB_INT_CTL, VMCB_V_X2AVIC, VMCB_V_AVIC, AVIC, false, BAD},
    {"x2AVIC, not offered", VMCB_INT_CTL, VMCB_V_X2AVIC, 0, AVIC, false, BAD},
    {"x2AVIC, nothing offered", VMCB_INT_CTL, VMCB_V_X2AVIC, 0, 0, false, VAPIC_OK},
    {"AVIC, nothing offered", VMCB_INT_CTL, 0, 0, 0, false, VAPIC_OK},
    {"without nested paging", VMCB_NP_ENABLE, 0, 0, AVIC, false, BAD},
    {"255", VMCB_AVIC_PHYSICAL, SB_RAM | 255, 0, AVIC, false, VAPIC_OK},
    {"256", VMCB_AVIC_PHYSICAL, SB_RAM | 256, 0, AVIC, false, BAD},
    {"256, x2AVIC offered", VMCB_AVIC_PHYSICAL, SB_RAM | 256, 0, X2, false, BAD},
    {"511", VMCB_AVIC_PHYSICAL, SB_RAM | 511, 0, X2, true, VAPIC_OK},
    {"512", VMCB_AVIC_PHYSICAL, SB_RAM | 512, 0, X2, true, BAD},
    {"4095", VMCB_AVIC_PHYSICAL, SB_RAM | 4095, 0, X2_EXT, true, VAPIC_OK},
    {"4095, xAVIC", VMCB_AVIC_PHYSICAL, SB_RAM | 4095, 0, X2_EXT, false, BAD},
    {"backing not aligned", VMCB_AVIC_BACKING, SB_RAM | 8, 0, AVIC, false, BAD},
    {"backing reserved", VMCB_AVIC_BACKING, SB_RAM | 1ull << 52, 0, AVIC, false, BAD},
    {"backing too far", VMCB_AVIC_BACKING, 1ull << 48, 0, AVIC, false, BAD},
    {"logical not aligned", VMCB_AVIC_LOGICAL, SB_RAM | 1, 0, AVIC, false, BAD},
    {"logical too far", VMCB_AVIC_LOGICAL, 1ull << 48, 0, AVIC, false, BAD},
    {"logical unused", VMCB_AVIC_LOGICAL, ~0ull, 0, X2, true, VAPIC_OK},
    {"BAR reserved", VMCB_AVIC_BAR, 1ull << 52, 0, AVIC, false, BAD},
    {"BAR unused", VMCB_AVIC_BAR, ~0ull, 0, X2, true, VAPIC_OK},
    {"table too far", VMCB_AVIC_PHYSICAL, 1ull << 48, 0, AVIC, false, BAD},
    {"table's end too far", VMCB_AVIC_PHYSICAL, (1ull << 48) - 4096 + 512, 0, X2_EXT, true, BAD},
    {"table reserved", VMCB_AVIC_PHYSICAL, SB_RAM | 1ull << 63, 0, AVIC, false, BAD},
    {"no backing page", VMCB_AVIC_BACKING, SB_NOWHERE, 0, AVIC, false, VAPIC_E_MEMORY},
    {"no table", VMCB_AVIC_PHYSICAL, SB_NOWHERE, 0, AVIC, false, VAPIC_E_MEMORY},
    {"no logical table", VMCB_AVIC_LOGICAL, SB_NOWHERE, 0, AVIC, false, VAPIC_E_MEMORY},
};

static void check(const struct check *k, enum vapic_nested_strategy strategy)
{
    struct sb_options o = {.hardware =
                               VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC | VAPIC_ACCEL_X2AVIC_EXT,
                           .offered = k->offered,
                           .strategy = strategy,
                           .x2 = k->x2,
                           .entries = 4096};
    struct sb *sb = sb_new(&o);
    int result;

    if (k->field == VMCB_INT_CTL)
        int_ctl12(sb, 0, k->value, k->clear);
    else
        vmcb_set64(vmcb12(sb, 0), k->field, k->value);
    result = sb_nested_enter(sb, 0);
    if (result != k->result)
        fail_msg("%s: %d instead of %d", k->what, result, k->result);
    if (result == VAPIC_OK) {
        sb_run(sb, 0);
        assert_int_equal((vmcb02(sb, 0, VMCB_INT_CTL) & MODE) != 0, k->offered != 0);
    } else {
        assert_int_equal(vapic_nested_state(&sb->v[0]->apic), VAPIC_NESTED_L1);
    }
    sb_free(sb);
}

static void test_checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        check(&checks[i], VAPIC_NESTED_DUMMY);
        check(&checks[i], VAPIC_NESTED_SHADOW);
    }
}

/* What is not checked is not there: 12 without AVIC, with garbage in its fields. */
static void test_fields_are_unused_without_avic(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    int_ctl12(sb, 0, 0, VMCB_V_AVIC);
    for (uint32_t field = VMCB_AVIC_BACKING; field <= VMCB_AVIC_PHYSICAL; field += 8)
        vmcb_set64(vmcb12(sb, 0), field, ~0ull);
    vmcb_set64(vmcb12(sb, 0), VMCB_NP_ENABLE, 0);
    sb_start(sb, 0);
    assert_int_equal(vmcb02(sb, 0, VMCB_INT_CTL) & MODE, 0);
    sb_leave(sb, 0);
    assert_int_equal(
        vapic_nested_avic_exit(&sb->v[0]->apic, SVM_EXIT_AVIC_INCOMPLETE, 0, 0, &sb->v[0]->reflect),
        VAPIC_E_ARG);
    assert_int_equal(sb->pinned, 0);
    sb_free(sb);
}

static void test_memory_of_the_vm(void **state)
{
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_AVIC, .max_id = 3};
    struct vapic_nested_config c = {.features = AVIC};

    (void)state;
    assert_true(vapic_nested_memory(&c, &accel) > 0);
    c.features = X2;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0); /* the processor has none */
    accel.features = VAPIC_ACCEL_X2AVIC;
    assert_true(vapic_nested_memory(&c, &accel) > 0);
    c.features = X2_EXT;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.features = VAPIC_NESTED_X2AVIC;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.features = AVIC | VAPIC_NESTED_APICV;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c = (struct vapic_nested_config){.features = AVIC, .strategy = VAPIC_NESTED_SHADOW};
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.tables = 1;
    c.entries = 4097;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.entries = 4096;
    assert_true(vapic_nested_memory(&c, &accel) > 4096 * 8);
}

/* ---- MSRs ---- */

static bool passes(const uint64_t set[4], uint32_t offset)
{
    return set[offset >> 10] >> (offset >> 4 & 63) & 1;
}

/* V6: open only where L1 lets it pass, and the access then hits L2's page. */
static void test_msrs(void **state)
{
    struct sb *sb = sb_new(SB_X2(VAPIC_NESTED_DUMMY));
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    c->pass12.write[0] &= ~(1ull << (APIC_TPR >> 4));
    sb_start(sb, 0);
    assert_true(passes(c->pass02.read, APIC_TPR));
    assert_false(passes(c->pass02.write, APIC_TPR));
    assert_true(passes(c->pass02.write, APIC_EOI));
    assert_true(passes(c->pass02.write, APIC_ICR));
    assert_true(passes(c->pass02.read, APIC_LDR));
    assert_false(passes(c->pass02.write, APIC_LDR));
    assert_false(passes(c->pass02.read, 0x2F0)); /* #GP: for L0 to raise */
    assert_false(passes(c->pass02.read, 0x540));
    sb_nested_exit(sb, 0, NULL);
    int_ctl12(sb, 0, 0, VMCB_V_X2AVIC);
    *sb_reg(sb, 0, APIC_ID) = 0;
    sb_start(sb, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(c->pass02.read[i] | c->pass02.write[i], 0);
    sb_free(sb);
}

/* No MSR that passes is the host's own, whatever L1 lets pass and whatever L2 asks for. */
static void test_no_msr_is_the_hosts(void **state)
{
    struct sb *sb;

    (void)state;
    for (uint32_t x2 = 0; x2 < 2; x2++) {
        sb = sb_new(x2 ? SB_X2(VAPIC_NESTED_DUMMY) : SB_DUMMY);
        for (uint32_t msr = MSR_X2APIC_FIRST; msr <= MSR_X2APIC_LAST; msr++) {
            uint64_t value = 0;

            sb_start(sb, 0);
            assert_int_not_equal(vapic_sil_rdmsr(sb->v[0]->cpu, msr, &value), VAPIC_SIL_NATIVE);
            sb_nested_exit(sb, 0, NULL);
            sb_start(sb, 0);
            assert_int_not_equal(vapic_sil_wrmsr(sb->v[0]->cpu, msr, 0), VAPIC_SIL_NATIVE);
            sb_nested_exit(sb, 0, NULL);
        }
        sb_free(sb);
    }
}

/* ---- V_IRQ, without AVIC ---- */

#define L2_IRQ (VMCB_V_IRQ | 8ull << VMCB_V_INTR_PRIO_SHIFT | 0x81ull << VMCB_V_VECTOR_SHIFT)

static struct sb *without_avic(void)
{
    struct sb *sb = sb_new(SB_DUMMY);

    int_ctl12(sb, 0, L2_IRQ | 2, VMCB_V_AVIC);
    return sb;
}

static void test_v_irq_is_l2s(void **state)
{
    struct sb *sb = without_avic();
    struct vapic_nested_left left;

    (void)state;
    sb_start(sb, 0);
    sb_leave(sb, 0);
    sb_nested_exit(sb, 0, &left); /* not taken */
    assert_int_equal(left.int_ctl_mask, VMCB_V_TPR | VMCB_V_IRQ);
    assert_int_equal(left.int_ctl, VMCB_V_IRQ | 2);
    sb_start(sb, 0);
    assert_int_equal(sb_take(sb, 0), 0x81);
    sb_leave(sb, 0);
    sb_run(sb, 0);
    assert_int_equal(sb_take(sb, 0), -1); /* once */
    sb_leave(sb, 0);
    sb_nested_exit(sb, 0, &left);
    assert_int_equal(left.int_ctl, 2);
    sb_free(sb);
}

/* A window that L0 opens for an interrupt of L1's which goes into L2 (L1 does not intercept it). */
static void test_v_irq_is_not_copied_from_a_window(void **state)
{
    struct sb *sb = without_avic();
    struct sb_vcpu *c = sb->v[0];
    struct vapic_nested_left left;

    (void)state;
    vmcb_set32(c->vmcb12, VMCB_INTERCEPT3, VMCB_I3_MSR);
    vapic_post(&c->apic, 0x55, false, NULL);
    c->can = 0; /* IF=0 */
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    assert_true(sb_look(sb, 0));
    assert_true(c->entry.irq_window);
    assert_int_equal(c->entry.nested, VAPIC_NESTED_STAY);
    /* The host overwrites V_IRQ; L2 leaves meanwhile. */
    vmcb_set64(c->vmcb02, VMCB_INT_CTL,
               (vmcb02(sb, 0, VMCB_INT_CTL) & ~VMCB_V_VECTOR) | VMCB_V_IGN_TPR | VMCB_V_IRQ);
    vapic_exit(&c->apic, 0, true);
    vapic_nested_ran(&c->apic);
    c->can = VAPIC_CAN_IRQ | VAPIC_IF;
    assert_true(sb_look(sb, 0));
    assert_int_equal(c->entry.inject, VAPIC_INJECT_VECTOR);
    assert_int_equal(c->entry.vector, 0x55);
    vapic_commit(&c->apic, &c->entry);
    assert_int_equal(vmcb02(sb, 0, VMCB_INT_CTL) & ~MODE,
                     L2_IRQ | 2 | VMCB_V_INTR_MASKING); /* L2's is back */
    vapic_exit(&c->apic, 0, true);
    c->can = 0;
    vapic_post(&c->apic, 0x66, false, NULL);
    assert_true(sb_look(sb, 0));
    assert_true(c->entry.irq_window);
    vmcb_set64(c->vmcb02, VMCB_INT_CTL, vmcb02(sb, 0, VMCB_INT_CTL) & ~VMCB_V_IRQ);
    vapic_exit(&c->apic, 0, true);
    assert_true(sb_look(sb, 0));
    assert_int_equal(vmcb02(sb, 0, VMCB_INT_CTL) & VMCB_V_IRQ, VMCB_V_IRQ);
    vmcb_set64(c->vmcb02, VMCB_INT_CTL, vmcb02(sb, 0, VMCB_INT_CTL) & ~VMCB_V_IRQ);
    vapic_exit(&c->apic, 0, true);
    sb_nested_exit(sb, 0, &left);
    assert_int_equal(left.int_ctl, VMCB_V_IRQ | 2); /* L2's, not what became of the window */
    /* The next L2's V_IRQ is looked at from its start. */
    int_ctl12(sb, 0, 0, VMCB_V_IRQ);
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    vmcb_set64(c->vmcb02, VMCB_INT_CTL, vmcb02(sb, 0, VMCB_INT_CTL) | VMCB_V_IRQ);
    sb_nested_exit(sb, 0, &left);
    assert_int_equal(left.int_ctl, VMCB_V_IRQ | 2);
    sb_free(sb);
}

/* L2's CR8 is then the TPR of L1's APIC: it exits, for vapic_write_cr8(). */
static void test_cr8_without_masking(void **state)
{
    struct sb *sb = without_avic();
    uint64_t value;

    (void)state;
    int_ctl12(sb, 0, 0, VMCB_V_INTR_MASKING);
    sb_start(sb, 0);
    assert_int_equal(vapic_sil_write_cr8(sb->v[0]->cpu, 5), VAPIC_SIL_EXIT);
    assert_int_equal(vmcb02(sb, 0, VMCB_EXITCODE), SVM_EXIT_CR8_WRITE);
    sb_leave(sb, 0);
    sb_run(sb, 0);
    assert_int_equal(vapic_sil_read_cr8(sb->v[0]->cpu, &value), VAPIC_SIL_EXIT);
    sb_leave(sb, 0);
    sb_nested_exit(sb, 0, NULL);
    int_ctl12(sb, 0, VMCB_V_INTR_MASKING, 0);
    sb_start(sb, 0);
    assert_int_equal(vapic_sil_write_cr8(sb->v[0]->cpu, 5), VAPIC_SIL_DONE);
    sb_free(sb);
}

/* ---- L1's interrupts while L2 is current (section "decision") ---- */

struct decision {
    const char *what;
    bool intercepts, masking, l1_if;
    uint32_t can;
    enum vapic_nested_do nested;
    enum vapic_inject inject;
    bool window;
};

#define OPEN (VAPIC_CAN_IRQ | VAPIC_IF)

static const struct decision decisions[] = {
    {"exit", true, true, true, OPEN, VAPIC_NESTED_LEAVE, VAPIC_INJECT_NONE, false},
    {"L2's IF is not asked", true, true, true, 0, VAPIC_NESTED_LEAVE, VAPIC_INJECT_NONE, false},
    {"L1's IF is", true, true, false, OPEN, VAPIC_NESTED_STAY, VAPIC_INJECT_NONE, false},
    {"masking by L2's IF", true, false, true, 0, VAPIC_NESTED_STAY, VAPIC_INJECT_NONE, true},
    {"shadow blocks no exit", true, false, true, VAPIC_IF, VAPIC_NESTED_LEAVE, VAPIC_INJECT_NONE,
     false},
    {"an instruction first", true, true, true, OPEN | VAPIC_INCOMPLETE, VAPIC_NESTED_SOON,
     VAPIC_INJECT_NONE, false},
    {"into L2", false, true, true, OPEN, VAPIC_NESTED_STAY, VAPIC_INJECT_VECTOR, false},
    {"into L2, later", false, false, true, 0, VAPIC_NESTED_STAY, VAPIC_INJECT_NONE, true},
};

static void decide(const struct decision *d)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct sb_vcpu *c = sb->v[1];
    enum vapic_action action;

    if (!d->intercepts)
        vmcb_set32(c->vmcb12, VMCB_INTERCEPT3, VMCB_I3_MSR);
    if (!d->masking)
        int_ctl12(sb, 1, 0, VMCB_V_INTR_MASKING);
    c->l1_if = d->l1_if;
    sb_start(sb, 1);
    action = vapic_post(&c->apic, 0x77, false, NULL);
    assert_int_equal(action, VAPIC_ACTION_KICK); /* N1: no doorbell, nobody would look */
    sb_leave(sb, 1);
    c->can = d->can;
    assert_true(sb_look(sb, 1));
    if (c->entry.nested != d->nested || c->entry.inject != d->inject ||
        c->entry.irq_window != d->window)
        fail_msg("%s: nested %d inject %d window %d", d->what, c->entry.nested, c->entry.inject,
                 c->entry.irq_window);
    /* Nothing is acknowledged by a decision: L1 takes it itself. */
    assert_true(*(uint32_t *)(void *)(c->page + APIC_IRR + 0x30) & 1u << (0x77 & 31));
    vapic_exit(&c->apic, 0, true);
    sb_free(sb);
}

static void test_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(decisions) / sizeof(decisions[0]); i++)
        decide(&decisions[i]);
}

/* SE: L2 is entered once before an exit to L1 may be made of it. */
static void test_interrupt_of_l1_between_vmrun_and_first_entry(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct sb_vcpu *c = sb->v[1];

    (void)state;
    assert_int_equal(sb_nested_enter(sb, 1), VAPIC_OK);
    vapic_post(&c->apic, 0x77, false, NULL);
    sb_run(sb, 1);
    assert_int_equal(c->entry.nested, VAPIC_NESTED_SOON);
    sb_leave(sb, 1);
    assert_true(sb_look(sb, 1));
    assert_int_equal(c->entry.nested, VAPIC_NESTED_LEAVE);
    vapic_exit(&c->apic, 0, true);
    sb_nested_exit(sb, 1, NULL);
    assert_true(sb_look(sb, 1)); /* and L1 finds it */
    assert_int_equal(c->entry.nested, VAPIC_NESTED_STAY);
    assert_true(vapic_active(&c->apic));
    vapic_exit(&c->apic, 0, true);
    sb_free(sb);
}

/* ---- L2's IPIs, with the dummy: every one exits, and is answered from L1's tables ---- */

static void test_dummy_answers_from_l1s_tables(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    sb_start_all(sb);
    assert_true(sb_ipi(sb, 0, FIXED(0x91), 2));
    assert_int_equal(sb->v[0]->exit.code, SVM_EXIT_AVIC_INCOMPLETE);
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    assert_int_equal(sb->v[2]->doorbells, 1);
    assert_int_equal(sb_take(sb, 2), 0x91);
    assert_int_equal(sb_take(sb, 1), -1);
    assert_int_equal(sb_take(sb, 2), -1);
    sb_free(sb);
}

static void test_dummy_needs_no_exit_for_self_eoi_and_tpr(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    sb_start_all(sb);
    assert_false(sb_ipi(sb, 1, FIXED(0x92) | APIC_ICR_SELF, 0));
    assert_int_equal(sb_take(sb, 1), 0x92);
    assert_false(sb_write(sb, 1, APIC_TPR, 0x20));
    assert_false(sb_write(sb, 1, APIC_EOI, 0));
    assert_false(sb_bit(sb, 1, APIC_ISR, 0x92));
    sb_free(sb);
}

/* 402h is always L1's. */
static void test_unaccelerated_accesses_are_l1s(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    sb_start(sb, 0);
    assert_true(sb_write(sb, 0, APIC_LVT_LINT0, 0x700));
    assert_int_equal(sb->v[0]->result, VAPIC_REFLECT);
    assert_int_equal(sb->v[0]->reflect.code, SVM_EXIT_AVIC_NOACCEL);
    assert_int_equal(sb->v[0]->reflect.info1, AVIC_NOACCEL_WRITE | APIC_LVT_LINT0);
    assert_int_equal(*sb_reg(sb, 0, APIC_LVT_LINT0), 0x700);
    sb_free(sb);
}

/* What no table has to do with is L1's as the processor says it: types, trigger mode, vectors. */
static void test_ids_0_and_4_are_reflected(void **state)
{
    static const uint32_t low[] = {APIC_DM_NMI,  APIC_DM_INIT,
                                   APIC_DM_SIPI, APIC_DM_LOWEST | 0x40,
                                   APIC_DM_SMI,  FIXED(0x50) | APIC_ICR_LEVEL,
                                   FIXED(15),    FIXED(3) | APIC_ICR_ALL_EXCL};

    (void)state;
    for (uint32_t shadow = 0; shadow < 2; shadow++)
        for (size_t i = 0; i < sizeof(low) / sizeof(low[0]); i++) {
            struct sb *sb = sb_new(shadow ? SB_SHADOW : SB_DUMMY);

            sb_start(sb, 0);
            sb->pinned = 0;
            assert_true(sb_ipi(sb, 0, low[i], 1));
            assert_int_equal(sb->v[0]->result, VAPIC_REFLECT);
            assert_memory_equal(&sb->v[0]->reflect, &sb->v[0]->exit, sizeof(sb->v[0]->exit));
            assert_int_equal(sb->pinned, 0);
            sb_free(sb);
        }
}

/* ---- IPIs with targets of every kind, in both strategies ---- */

enum target { RUNS, L1_STOPPED, INVALID, NO_PAGE };

struct multicast {
    const char *what;
    enum target target[SB_VCPUS];
    uint32_t low, dest;
    uint32_t posted; /* a bit per vCPU */
    int id, index;   /* reflected; -1: nothing is */
};

#define ALL     APIC_ICR_ALL_INCL
#define OTHERS  APIC_ICR_ALL_EXCL
#define LOGICAL APIC_ICR_LOGICAL

static const struct multicast multicasts[] = {
    {"one", {RUNS, RUNS, RUNS, RUNS}, 0, 3, 8, -1, 0},
    {"one stopped", {RUNS, RUNS, RUNS, L1_STOPPED}, 0, 3, 8, 1, 3},
    {"one invalid", {RUNS, RUNS, RUNS, INVALID}, 0, 3, 0, 2, 3},
    {"beyond MAX_INDEX", {RUNS, RUNS, RUNS, RUNS}, 0, 4, 0, 2, 4},
    {"one without memory", {RUNS, RUNS, RUNS, NO_PAGE}, 0, 3, 0, 3, 3},
    {"itself", {RUNS, RUNS, RUNS, RUNS}, 0, 0, 1, -1, 0},
    {"others", {RUNS, RUNS, RUNS, RUNS}, OTHERS, 0, 14, -1, 0},
    {"all", {RUNS, RUNS, RUNS, RUNS}, ALL, 0, 15, -1, 0},
    {"FFh", {RUNS, RUNS, RUNS, RUNS}, 0, 0xFF, 15, -1, 0},
    {"logical FFh", {RUNS, INVALID, RUNS, RUNS}, LOGICAL, 0xFF, 13, -1, 0},
    {"invalid ones are skipped", {RUNS, INVALID, RUNS, L1_STOPPED}, OTHERS, 0, 12, 1, 3},
    {"lowest stopped", {RUNS, L1_STOPPED, RUNS, L1_STOPPED}, OTHERS, 0, 14, 1, 1},
    {"two flat", {RUNS, RUNS, RUNS, RUNS}, LOGICAL, 0x0A, 10, -1, 0},
    {"all or nothing", {RUNS, RUNS, INVALID, RUNS}, LOGICAL, 0x06, 0, 2, 2},
    {"two flat, one stopped", {RUNS, L1_STOPPED, RUNS, RUNS}, LOGICAL, 0x06, 6, 1, 1},
    {"no such slot", {RUNS, RUNS, RUNS, RUNS}, LOGICAL, 0x12, 0, 2, 4},
    {"nobody", {RUNS, RUNS, RUNS, RUNS}, LOGICAL, 0, 0, -1, 0},
};

static void set_target(struct sb *sb, uint32_t n, enum target t)
{
    uint64_t entry = sb_good_entry(n);

    if (t == INVALID)
        entry &= ~AVIC_PHYSICAL_VALID;
    if (t == L1_STOPPED)
        entry &= ~AVIC_PHYSICAL_RUNNING;
    if (t == NO_PAGE)
        entry = (entry & ~AVIC_PHYSICAL_BACKING) | SB_NOWHERE;
    sb_write_entry(sb, n, entry);
}

static void send(const struct multicast *m, const struct sb_options *o)
{
    struct sb *sb = sb_new(o);
    uint32_t low = FIXED(0xA3) | m->low, posted = 0;
    bool exited;

    sb_start_all(sb);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        set_target(sb, n, m->target[n]);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        if (!sb->v[n]->entered) /* the table has changed */
            sb_run(sb, n);
    sb->v[0]->result = VAPIC_OK;
    exited = sb_ipi(sb, 0, low, m->dest);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        posted |= (uint32_t)sb_bit(sb, n, APIC_IRR, 0xA3) << n;
    if (posted != m->posted)
        fail_msg("%s: posted %x instead of %x", m->what, posted, m->posted);
    if (m->id < 0)
        assert_int_equal(sb->v[0]->result, VAPIC_OK);
    else
        sb_reflected(sb, 0, low, m->dest << 24, (uint32_t)m->id, (uint32_t)m->index);
    for (uint32_t n = 1; n < sb->vcpus; n++)
        if (m->posted >> n & 1 && m->target[n] == RUNS)
            assert_int_equal(sb_take(sb, n), 0xA3);
    assert_true(exited || m->id < 0);
    sb_free(sb);
}

static void test_multicast(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(multicasts) / sizeof(multicasts[0]); i++) {
        send(&multicasts[i], SB_DUMMY);
        /* With a shadow the processor posts before it is known that a page is the dummy's. */
        send(&multicasts[i], SB_SHADOW);
    }
}

/* ---- Logical destinations [APM2 15.29.5] ---- */

struct decode {
    bool flat;
    uint8_t dest;
    uint32_t slots[8]; /* of the logical table, and then 99 */
};

static const struct decode decodes[] = {
    {true, 0x81, {0, 7, 99}},        {true, 0x10, {4, 99}},       {false, 0x11, {4, 99}},
    {false, 0x1F, {4, 5, 6, 7, 99}}, {false, 0xE8, {59, 99}},     {false, 0x06, {1, 2, 99}},
    {true, 0x6C, {2, 3, 5, 6, 99}},  {false, 0x45, {16, 18, 99}},
};

/* Every slot names the next one's vCPU, modulo 4: who gets it shows which slots were read. */
static void decode(const struct decode *d, const struct sb_options *o)
{
    struct sb *sb = sb_new(o);
    uint32_t expected = 0, posted = 0;

    for (uint32_t i = 0; i < 64; i++)
        *sb_logical(sb, i) = 0;
    for (uint32_t i = 0; d->slots[i] != 99; i++) {
        *sb_logical(sb, d->slots[i]) = AVIC_LOGICAL_VALID | (d->slots[i] + 1) % 4;
        expected |= 1u << (d->slots[i] + 1) % 4;
    }
    *sb_reg(sb, 0, APIC_DFR) = d->flat ? APIC_DFR_FLAT : APIC_DFR_CLUSTER;
    sb_start_all(sb);
    sb->v[0]->result = VAPIC_OK;
    sb_ipi(sb, 0, FIXED(0xB4) | LOGICAL, d->dest);
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        posted |= (uint32_t)sb_bit(sb, n, APIC_IRR, 0xB4) << n;
    assert_int_equal(posted, expected);
    /* One of the slots is no longer there: it, and nobody else, is what failed. */
    *sb_logical(sb, d->slots[0]) = 0;
    assert_true(sb_ipi(sb, 0, FIXED(0xB5) | LOGICAL, d->dest));
    sb_reflected(sb, 0, FIXED(0xB5) | LOGICAL, (uint32_t)d->dest << 24, 2, d->slots[0]);
    sb_free(sb);
}

static void test_logical_decode(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(decodes) / sizeof(decodes[0]); i++) {
        decode(&decodes[i], SB_DUMMY);
        decode(&decodes[i], SB_SHADOW);
    }
}

static void test_x2_logical(void **state)
{
    (void)state;
    for (uint32_t strategy = 0; strategy < 2; strategy++) {
        struct sb *sb = sb_new(SB_X2((enum vapic_nested_strategy)strategy));

        sb_start_all(sb);
        sb->v[0]->result = VAPIC_OK;
        sb_ipi(sb, 0, FIXED(0xB6) | LOGICAL, 0x0000000E);
        assert_int_equal(sb->v[0]->result, VAPIC_OK);
        for (uint32_t n = 0; n < sb->vcpus; n++)
            assert_int_equal(sb_bit(sb, n, APIC_IRR, 0xB6), n > 0);
        assert_true(sb_ipi(sb, 0, FIXED(0xB7) | LOGICAL, 0x00010002)); /* 17 */
        sb_reflected(sb, 0, FIXED(0xB7) | LOGICAL, 0x00010002, 2, 17);
        sb_run(sb, 0);
        assert_true(sb_ipi(sb, 0, FIXED(0xB7), 0xFF)); /* an ordinary ID, beyond the table */
        sb_reflected(sb, 0, FIXED(0xB7), 0xFF, 2, 0xFF);
        sb_run(sb, 0);
        sb->v[0]->result = VAPIC_OK;
        sb_ipi(sb, 0, FIXED(0xB8), 0xFFFFFFFF);
        assert_int_equal(sb->v[0]->result, VAPIC_OK);
        for (uint32_t n = 0; n < sb->vcpus; n++)
            assert_true(sb_bit(sb, n, APIC_IRR, 0xB8));
        sb_free(sb);
    }
}

/* ---- With a shadow ---- */

/* "IPIs between running L2 vCPUs need no exit to L0 that the silicon can avoid" */
static void test_shadow_needs_no_exit(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start_all(sb);
    assert_false(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_int_equal(sb_take(sb, 1), 0xC1);
    assert_false(sb_ipi(sb, 1, FIXED(0xD2) | OTHERS, 0));
    assert_int_equal(sb_take(sb, 0), 0xD2);
    assert_int_equal(sb_take(sb, 2), 0xD2);
    assert_int_equal(sb_take(sb, 3), 0xD2);
    assert_false(sb_ipi(sb, 3, FIXED(0xE3) | LOGICAL, 0x04));
    assert_int_equal(sb_take(sb, 2), 0xE3);
    sb_free(sb);
}

/* Erratum 1235: IsRunning is never published, and nothing is lost. */
static void test_shadow_without_ipi_virtualization(void **state)
{
    struct sb_options o = *SB_SHADOW;
    struct sb *sb;

    (void)state;
    o.hardware = 0;
    sb = sb_new(&o);
    sb_start_all(sb);
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    assert_int_equal(sb->v[1]->doorbells, 1);
    assert_int_equal(sb_take(sb, 1), 0xC1);
    sb_free(sb);
}

/* N10: L1 is not told of a target that it has marked running. */
static void test_target_that_l0_descheduled(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start_all(sb);
    sb_leave(sb, 1);
    vapic_put(&sb->v[1]->apic); /* preempted */
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    assert_int_equal(sb->v[1]->wakes, 0); /* it will run by itself */
    vapic_load(&sb->v[1]->apic, &sb->pcpu[1]);
    sb_run(sb, 1);
    assert_int_equal(sb_take(sb, 1), 0xC1);
    assert_false(sb_ipi(sb, 0, FIXED(0xD2), 1)); /* published again */
    assert_int_equal(sb_take(sb, 1), 0xD2);
    sb_free(sb);
}

/* L2 halts inside: its vCPU of L1 sleeps, which L1 does not know. */
static void sleep_in_l2(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];

    sb_leave(sb, n);
    vapic_halt(&c->apic);
    assert_false(sb_look(sb, n));
    assert_true(vapic_block(&c->apic));
}

static void test_halted_target_is_woken(void **state)
{
    (void)state;
    for (uint32_t shadow = 0; shadow < 2; shadow++) {
        struct sb *sb = sb_new(shadow ? SB_SHADOW : SB_DUMMY);

        sb_start_all(sb);
        sleep_in_l2(sb, 1);
        assert_true(sb_ipi(sb, 0, FIXED(0xC1), 1));
        assert_int_equal(sb->v[0]->result, VAPIC_OK);
        assert_int_equal(sb->v[1]->wakes, 1);
        vapic_unblock(&sb->v[1]->apic);
        sb_run(sb, 1);
        assert_int_equal(sb->v[1]->entry.nested, VAPIC_NESTED_STAY);
        assert_int_equal(sb_take(sb, 1), 0xC1);
        sb_free(sb);
    }
}

/* One invalid, one not running for L1, one descheduled by L0: two valid ones get it, one is woken,
 * L1 sees one exit. */
static void test_broadcast_to_one_of_each(void **state)
{
    (void)state;
    for (uint32_t shadow = 0; shadow < 2; shadow++) {
        struct sb *sb = sb_new(shadow ? SB_SHADOW : SB_DUMMY);

        sb_start_all(sb);
        sleep_in_l2(sb, 3);
        set_target(sb, 1, INVALID);
        set_target(sb, 2, L1_STOPPED);
        if (!sb->v[0]->entered)
            sb_run(sb, 0);
        assert_true(sb_ipi(sb, 0, FIXED(0xC1) | OTHERS, 0));
        sb_reflected(sb, 0, FIXED(0xC1) | OTHERS, 0, 1, 2);
        assert_int_equal(sb->v[3]->wakes, 1);
        assert_int_equal(sb->v[1]->wakes + sb->v[2]->wakes, 0);
        assert_false(sb_bit(sb, 1, APIC_IRR, 0xC1));
        assert_true(sb_bit(sb, 2, APIC_IRR, 0xC1));
        assert_true(sb_bit(sb, 3, APIC_IRR, 0xC1));
        vapic_unblock(&sb->v[3]->apic);
        sb_free(sb);
    }
}

/* N9. Id 1 with a shadow: the processor has posted, and the target has ended it meanwhile. */
static void take_and_end(struct sb *sb, enum vapic_sil_point point)
{
    if (point != VAPIC_SIL_POINT_FOUND)
        return;
    sb->on_point = NULL;
    assert_true(sb_bit(sb, 1, APIC_IRR, 0xC1));
    *sb_reg(sb, 1, APIC_IRR + 0xC1 / 32 * 16) = 0; /* delivered elsewhere, and ended */
}

static void test_shadow_does_not_post_again(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start(sb, 0);
    sb_write_entry(sb, 1, sb_good_entry(1) & ~AVIC_PHYSICAL_RUNNING);
    sb->on_point = take_and_end;
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 1));
    sb_reflected(sb, 0, FIXED(0xC1), 1u << 24, 1, 1);
    assert_false(sb_bit(sb, 1, APIC_IRR, 0xC1));
    sb_free(sb);
}

/* An entry is idle while L1's changes or its page goes: what the processor posted went to L0's own
 * page then. L0 does not know for which of the two it was, and posts. */
static void test_idle_entries_lose_nothing(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);
    uint64_t *hardware;

    (void)state;
    sb_start(sb, 0);
    hardware = sb_sil_memory(sb, vmcb02(sb, 0, VMCB_AVIC_PHYSICAL) & AVIC_ADDRESS, 4096);
    assert_int_equal(hardware[2] & AVIC_PHYSICAL_BACKING, sb_page_hpa(sb, SB_BACKING + 2));
    vapic_nested_unmap(&sb->vm, SB_GPA(SB_BACKING + 2), 4096); /* kicks 0 out; entries are idle */
    assert_int_equal(sb->pins[SB_BACKING + 2], 0);
    assert_int_equal(hardware[2] & AVIC_PHYSICAL_VALID, AVIC_PHYSICAL_VALID);
    /* The exit of an IPI that it sent just before it noticed. */
    assert_int_equal(vapic_nested_avic_exit(&sb->v[0]->apic, SVM_EXIT_AVIC_INCOMPLETE,
                                            2ull << 56 | FIXED(0xC1), 1ull << 32 | 2,
                                            &sb->v[0]->reflect),
                     VAPIC_OK);
    assert_true(sb_bit(sb, 2, APIC_IRR, 0xC1));
    sb_run(sb, 0);
    assert_int_equal(sb->pins[SB_BACKING + 2], 1);
    assert_true(sb_ipi(sb, 0, FIXED(0xC2), 2) == false || sb->v[0]->result == VAPIC_OK);
    sb_free(sb);
}

static void go_on(struct sb *sb, uint32_t n)
{
    if (!sb->v[n]->entered)
        sb_run(sb, n);
}

/* The entry was read while L1 had no such page. When it has one, nobody writes the entry. */
static void test_page_that_comes_back(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start_all(sb);
    sb->gone[SB_BACKING + 2] = true;
    vapic_nested_unmap(&sb->vm, SB_GPA(SB_BACKING + 2), 4096);
    go_on(sb, 0);
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 2));
    sb_reflected(sb, 0, FIXED(0xC1), 2u << 24, AVIC_IPI_INVALID_BACKING, 2);
    sb->gone[SB_BACKING + 2] = false;
    go_on(sb, 0);
    assert_true(sb_ipi(sb, 0, FIXED(0xC2), 2));
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    assert_false(sb_bit(sb, 2, APIC_IRR, 0xC1));
    assert_true(sb_bit(sb, 2, APIC_IRR, 0xC2));
    go_on(sb, 2);
    assert_int_equal(sb_take(sb, 2), 0xC2);
    go_on(sb, 0);
    assert_false(sb_ipi(sb, 0, FIXED(0xC3), 2));
    sb_free(sb);
}

static int late_exit(struct sb *sb, uint32_t low, uint32_t dest, uint32_t id)
{
    return vapic_nested_avic_exit(&sb->v[0]->apic, SVM_EXIT_AVIC_INCOMPLETE,
                                  (uint64_t)dest << 56 | low, (uint64_t)id << AVIC_IPI_ID_SHIFT,
                                  &sb->v[0]->reflect);
}

/* The same where L1 gives an entry another page: only that one was idle. */
static void test_entry_that_changed_page_loses_nothing(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start(sb, 0);
    sb_write_entry(sb, 2, sb_good_entry(3));
    assert_false(sb->v[0]->entered); /* it was kicked out */
    assert_int_equal(late_exit(sb, FIXED(0xC1), 2, AVIC_IPI_NOT_RUNNING), VAPIC_OK);
    assert_true(sb_bit(sb, 3, APIC_IRR, 0xC1));
    /* Later it is known again who has posted. */
    sb_run(sb, 0);
    sb_leave(sb, 0);
    assert_int_equal(late_exit(sb, FIXED(0xC2), 2, AVIC_IPI_NOT_RUNNING), VAPIC_OK);
    assert_false(sb_bit(sb, 3, APIC_IRR, 0xC2));
    sb_free(sb);
}

/* It has noted the last count on its way in, just before it was told to look again. What it sends
 * is posted, and no entry gets a page that nobody would take from it again. */
static void test_sent_while_all_entries_are_idle(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);
    struct vapic_nested_vcpu *nv = &sb->v[0]->nested;

    (void)state;
    sb_start(sb, 0);
    vapic_nested_unmap(&sb->vm, SB_GPA(SB_BACKING + 3), 4096);
    assert_false(sb->v[0]->entered);
    assert_int_equal(sb->pins[SB_BACKING + 2], 0);
    nv->idled = nv->shadow->idled;
    assert_int_equal(late_exit(sb, FIXED(0xC1), 2, AVIC_IPI_NOT_RUNNING), VAPIC_OK);
    assert_true(sb_bit(sb, 2, APIC_IRR, 0xC1));
    assert_int_equal(sb->pins[SB_BACKING + 2], 0);
    sb_free(sb);
}

/* A vCPU that has left for the kick is back in L2, with what it notes then, and sends before the
 * entry is L1's again. */
static void send_while_idle(struct sb *sb, uint64_t gpa)
{
    if (gpa != SB_GPA(SB_BACKING + 3) || sb->v[0]->entered)
        return;
    sb->on_pin = NULL;
    sb_run(sb, 0);
    assert_int_equal(sb_icr(sb->v[0]->cpu, false, FIXED(0xC1), 2), VAPIC_SIL_EXIT);
    assert_int_equal(vmcb02(sb, 0, VMCB_EXITCODE), SVM_EXIT_AVIC_INCOMPLETE);
    sb_outside(sb, 0);
}

static void test_sent_while_an_entry_is_idle(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start(sb, 0);
    sb->on_pin = send_while_idle;
    sb_write_entry(sb, 2, sb_good_entry(3));
    assert_null(sb->on_pin);
    assert_int_equal(late_exit(sb, FIXED(0xC1), 2, AVIC_IPI_NOT_RUNNING), VAPIC_OK);
    assert_true(sb_bit(sb, 3, APIC_IRR, 0xC1));
    sb_free(sb);
}

/* The processor's word on what a destination is counts, where it cannot be tested otherwise. */
static void test_what_the_processor_took_it_for(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    sb_start(sb, 0);
    sb_leave(sb, 0);
    assert_int_equal(late_exit(sb, FIXED(0xC1), 0xFF, AVIC_IPI_INVALID_TARGET), VAPIC_REFLECT);
    assert_int_equal(sb->v[0]->reflect.info2, 2ull << 32 | 0xFF);
    assert_int_equal(late_exit(sb, FIXED(0xC1) | APIC_ICR_LEVEL, 1, 2), VAPIC_REFLECT);
    assert_int_equal(sb->v[0]->reflect.info2, 2ull << 32);
    assert_int_equal(late_exit(sb, FIXED(0xC1), 1, 5), VAPIC_REFLECT);
    assert_int_equal(sb->v[0]->reflect.info2, 5ull << 32);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        assert_false(sb_bit(sb, n, APIC_IRR, 0xC1));
    sb_free(sb);
}

/* Between the two looks at an entry L1 makes it invalid: the IPI ends there, as on a processor. */
static uint32_t looks;

static void invalidate(struct sb *sb, uint64_t gpa)
{
    if (gpa == SB_GPA(SB_BACKING + 2) && ++looks == 1)
        *sb_entry(sb, 2) &= ~AVIC_PHYSICAL_VALID;
}

static void test_entry_becomes_invalid_between_two_looks(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    looks = 0;
    sb_start(sb, 0);
    sb->on_pin = invalidate;
    assert_true(sb_ipi(sb, 0, FIXED(0xC1) | OTHERS, 0));
    sb_reflected(sb, 0, FIXED(0xC1) | OTHERS, 0, AVIC_IPI_INVALID_BACKING, 2);
    assert_true(sb_bit(sb, 1, APIC_IRR, 0xC1)); /* served before */
    assert_false(sb_bit(sb, 2, APIC_IRR, 0xC1));
    assert_false(sb_bit(sb, 3, APIC_IRR, 0xC1));
    sb_free(sb);
}

/* L1 rewrites its logical table while its L2 sends by it: whom the processor reached is not known
 * any more, and L1 hears of it. */
static uint32_t *moved_slot;

static void move_slot(struct sb *sb, enum vapic_sil_point point)
{
    if (point != VAPIC_SIL_POINT_FOUND)
        return;
    sb->on_point = NULL;
    *moved_slot = AVIC_LOGICAL_VALID | 2;
}

static void test_logical_table_changes_under_an_ipi(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    sb_start_all(sb);
    sb_write_entry(sb, 1, sb_good_entry(1) & ~AVIC_PHYSICAL_RUNNING);
    moved_slot = sb_logical(sb, 1);
    sb->on_point = move_slot;
    assert_true(sb_ipi(sb, 0, FIXED(0xC1) | LOGICAL, 2));
    assert_int_equal(sb->v[0]->result, VAPIC_REFLECT);
    assert_int_equal(sb->v[0]->reflect.info2 >> 32, AVIC_IPI_NOT_RUNNING);
    sb_free(sb);
}

/* A table too large for a shadow, or without room for one, is served by the dummy. */
static void test_without_room_it_is_the_dummy(void **state)
{
    struct sb_options o = *SB_SHADOW;
    struct sb *sb;

    (void)state;
    o.entries = 3;
    sb = sb_new(&o);
    sb_start_all(sb);
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    assert_int_equal(sb_take(sb, 1), 0xC1);
    sb_free(sb);
    o = *SB_SHADOW;
    o.no_track = true;
    sb = sb_new(&o);
    sb_start_all(sb);
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_int_equal(sb_take(sb, 1), 0xC1);
    sb_free(sb);
}

/* ---- L1's doorbell ---- */

static void test_doorbell(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct vapic *v = &sb->v[0]->apic;

    (void)state;
    sb_start(sb, 1);
    sb_start(sb, 2);
    sleep_in_l2(sb, 2);
    assert_int_equal(vapic_nested_doorbell(v, 1ull << 32), VAPIC_GP);
    assert_int_equal(vapic_nested_doorbell(v, 77), VAPIC_OK); /* nobody */
    assert_int_equal(vapic_nested_doorbell(v, 3), VAPIC_OK);  /* in L1: nothing */
    sb_set_bit(sb, 1, APIC_IRR, 0x61);
    sb_set_bit(sb, 2, APIC_IRR, 0x62);
    assert_int_equal(sb_take(sb, 1), -1); /* nobody has said so */
    assert_int_equal(vapic_nested_doorbell(v, 1), VAPIC_OK);
    assert_int_equal(vapic_nested_doorbell(v, 2), VAPIC_OK);
    assert_int_equal(sb->v[1]->doorbells, 1);
    assert_int_equal(sb->v[2]->wakes, 1);
    assert_int_equal(sb->v[3]->doorbells + sb->v[3]->wakes + sb->v[3]->kicks, 0);
    assert_int_equal(sb_take(sb, 1), 0x61);
    vapic_unblock(&sb->v[2]->apic);
    sb_run(sb, 2);
    assert_int_equal(sb_take(sb, 2), 0x62);
    sb_free(sb);

    sb = sb_new(&(struct sb_options){.hardware = VAPIC_ACCEL_IPIV});
    assert_int_equal(vapic_nested_doorbell(&sb->v[0]->apic, 1), VAPIC_GP); /* not offered */
    sb_free(sb);
}

/* A target that L1 runs on nobody any more when the bell rings: the next nested entry looks. */
static void test_doorbell_for_a_target_in_l1(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);

    (void)state;
    sb_start(sb, 1);
    sb_nested_exit(sb, 1, NULL);
    assert_true(sb_look(sb, 1)); /* L1 runs there */
    sb_set_bit(sb, 1, APIC_IRR, 0x61);
    assert_int_equal(vapic_nested_doorbell(&sb->v[0]->apic, 1), VAPIC_OK);
    assert_int_equal(sb->v[1]->doorbells + sb->v[1]->wakes + sb->v[1]->kicks, 0);
    vapic_exit(&sb->v[1]->apic, 0, true);
    vapic_halt(&sb->v[1]->apic); /* L1 sleeps there */
    assert_false(sb_look(sb, 1));
    assert_true(vapic_block(&sb->v[1]->apic));
    assert_int_equal(vapic_nested_doorbell(&sb->v[0]->apic, 1), VAPIC_OK);
    assert_int_equal(sb->v[1]->wakes, 0);
    vapic_unblock(&sb->v[1]->apic);
    vapic_load_activity(&sb->v[1]->apic, VAPIC_RUNNING);
    sb_start(sb, 1);
    assert_int_equal(sb_take(sb, 1), 0x61);
    sb_free(sb);
}

/* ---- What wakes a halted L2: its whole IRR against what gates it ---- */

static void test_every_vector_wakes(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    sb_start(sb, 0);
    sb_leave(sb, 0);
    for (uint32_t vector = 0; vector < 256; vector++) {
        memset(sb_reg(sb, 0, APIC_IRR), 0, 0x80);
        sb_set_bit(sb, 0, APIC_IRR, (uint8_t)vector);
        vapic_halt(&c->apic);
        assert_int_equal(sb_look(sb, 0), vector >= 16);
        if (vector >= 16)
            vapic_exit(&c->apic, 0, true);
        assert_int_equal(vapic_load_activity(&c->apic, VAPIC_HALTED), VAPIC_OK);
    }
    vapic_load_activity(&c->apic, VAPIC_RUNNING);
    sb_free(sb);
}

static void test_priorities_hold_back(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    sb_start(sb, 0);
    assert_false(sb_write(sb, 0, APIC_TPR, 0x70));
    sleep_in_l2(sb, 0);
    vapic_unblock(&c->apic);
    sb_set_bit(sb, 0, APIC_IRR, 0x7F);
    assert_false(sb_look(sb, 0));
    sb_set_bit(sb, 0, APIC_ISR, 0x90); /* in service */
    sb_set_bit(sb, 0, APIC_IRR, 0x9F);
    assert_false(sb_look(sb, 0));
    assert_true(vapic_block(&c->apic));
    vapic_unblock(&c->apic);
    sb_set_bit(sb, 0, APIC_IRR, 0xA0);
    assert_false(vapic_block(&c->apic)); /* the last look before the sleep */
    c->can = 0;                          /* L2's IF is clear */
    assert_false(sb_look(sb, 0));
    c->can = VAPIC_IF;
    assert_true(sb_look(sb, 0));
    vapic_exit(&c->apic, 0, true);
    sb_free(sb);
}

static void test_v_irq_wakes(void **state)
{
    struct sb *sb = without_avic();
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    vapic_halt(&c->apic);
    assert_true(sb_look(sb, 0));
    vapic_exit(&c->apic, 0, true);
    sb_nested_exit(sb, 0, NULL);
    int_ctl12(sb, 0, 8, 0); /* V_TPR equals its priority */
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    vapic_halt(&c->apic);
    assert_false(sb_look(sb, 0));
    vapic_load_activity(&c->apic, VAPIC_RUNNING);
    sb_free(sb);
}

/* L2 has taken it, and halts: there is none any more. */
static void test_v_irq_wakes_once(void **state)
{
    struct sb *sb = without_avic();
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    assert_int_equal(sb_nested_enter(sb, 0), VAPIC_OK);
    sb_run(sb, 0);
    assert_true(sb_take(sb, 0) >= 0);
    sb_leave(sb, 0);
    vapic_halt(&c->apic);
    assert_false(sb_look(sb, 0));
    vapic_load_activity(&c->apic, VAPIC_RUNNING);
    sb_free(sb);
}

/* L1's interrupts end L2's HLT where they would make it exit, and not where L1's IF is clear. */
static void test_l1s_interrupt_ends_l2s_hlt(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    struct sb_vcpu *c = sb->v[0];

    (void)state;
    sb_start(sb, 0);
    c->can = 0;
    sleep_in_l2(sb, 0);
    assert_int_equal(vapic_post(&c->apic, 0x41, false, NULL), VAPIC_ACTION_WAKE);
    vapic_unblock(&c->apic);
    assert_true(sb_look(sb, 0));
    assert_int_equal(c->entry.nested, VAPIC_NESTED_LEAVE);
    vapic_exit(&c->apic, 0, true);
    sb_nested_exit(sb, 0, NULL);
    c->l1_if = false;
    sb_start(sb, 0);
    sb_leave(sb, 0);
    vapic_halt(&c->apic);
    assert_false(sb_look(sb, 0));
    vapic_load_activity(&c->apic, VAPIC_RUNNING);
    sb_free(sb);
}

/* ---- Restore, abandon, memory that goes away ---- */

/* Right after creation, with memory that is not there yet. */
static void test_restore_right_after_creation(void **state)
{
    (void)state;
    for (uint32_t shadow = 0; shadow < 2; shadow++) {
        struct sb *sb = sb_new(shadow ? SB_SHADOW : SB_DUMMY);
        struct sb_vcpu *c = sb->v[1];
        struct vapic_nested_view view = {.vmcb12 = c->vmcb12, .pass = &c->pass12, .l1_if = true};
        struct vapic_nested_left left;

        int_ctl12(sb, 1, 6, 0);
        sb->gone[SB_BACKING + 1] = true;
        assert_int_equal(vapic_nested_restore(&c->apic, &view, true), VAPIC_OK);
        assert_int_equal(sb->pinned, 0);
        assert_int_equal(vmcb02(sb, 1, VMCB_INT_CTL), 0); /* untouched */
        assert_false(sb_look(sb, 1));
        assert_int_equal(c->entry.nested, VAPIC_NESTED_STOP);
        assert_int_equal(vapic_nested_state(&c->apic), VAPIC_NESTED_RESTORED);
        sb->gone[SB_BACKING + 1] = false;
        sb_run(sb, 1);
        assert_int_equal(vapic_nested_state(&c->apic), VAPIC_NESTED_L2);
        assert_false(vapic_active(&c->apic));
        assert_int_equal(vmcb02(sb, 1, VMCB_INT_CTL) & (MODE | VMCB_V_TPR), VMCB_V_AVIC | 6);
        sb_leave(sb, 1);
        sb_nested_exit(sb, 1, NULL);
        /* Left before it ever ran: 12 gets back what it has. */
        vmcb_set64(c->vmcb02, VMCB_INT_CTL, 0xF);
        assert_int_equal(vapic_nested_restore(&c->apic, &view, false), VAPIC_OK);
        vapic_nested_leave(&c->apic, &left);
        assert_int_equal(left.int_ctl, 6);
        vapic_nested_exit(&c->apic);
        sb_free(sb);
    }
}

/* The host's map for 02 may be a new one by then. */
static void test_restore_tells_the_msrs_again(void **state)
{
    struct sb *sb = sb_new(SB_X2(VAPIC_NESTED_DUMMY));
    struct sb_vcpu *c = sb->v[1];
    struct vapic_nested_view view = {.vmcb12 = c->vmcb12, .pass = &c->pass12, .l1_if = true};

    (void)state;
    sb_start(sb, 1);
    sb_leave(sb, 1);
    vapic_nested_abandon(&c->apic);
    memset(&c->pass02, 0, sizeof(c->pass02));
    assert_int_equal(vapic_nested_restore(&c->apic, &view, true), VAPIC_OK);
    sb_run(sb, 1);
    assert_true(passes(c->pass02.write, APIC_EOI));
    sb_free(sb);
}

static void test_abandon(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);
    struct sb_vcpu *c = sb->v[1];

    (void)state;
    sb_start(sb, 1);
    sb_leave(sb, 1);
    vapic_nested_abandon(&c->apic);
    assert_int_equal(vapic_nested_state(&c->apic), VAPIC_NESTED_L1);
    assert_true(sb_look(sb, 1));
    assert_true(vapic_active(&c->apic));
    vapic_exit(&c->apic, 0, true);
    sb_free(sb);
}

/* Withdrawing L1's access page while L2 runs leaves L2 alone. */
static void test_x2apic_l1_withdraws_its_page(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);
    uint64_t control;

    (void)state;
    sb_start(sb, 1);
    control = vmcb02(sb, 1, VMCB_INT_CTL);
    assert_int_equal(vapic_load_base(&sb->v[0]->apic, vapic_base(&sb->v[0]->apic) | APIC_BASE_EXTD),
                     VAPIC_OK);
    assert_true(sb_look(sb, 0)); /* hybrid: the page goes for good */
    vapic_exit(&sb->v[0]->apic, 0, true);
    if (!sb->v[1]->entered)
        sb_run(sb, 1);
    assert_int_equal(vmcb02(sb, 1, VMCB_INT_CTL), control);
    assert_int_equal(sb->v[1]->entry.nested, VAPIC_NESTED_STAY);
    assert_false(sb_write(sb, 1, APIC_TPR, 0x10));
    sb_free(sb);
}

/* N7, N8. */
static void test_memory_goes_away(void **state)
{
    static const uint32_t page[] = {SB_BACKING + 1, SB_LOGICAL, SB_TABLE};

    (void)state;
    for (uint32_t shadow = 0; shadow < 2; shadow++)
        for (size_t i = 0; i < sizeof(page) / sizeof(page[0]); i++) {
            struct sb *sb = sb_new(shadow ? SB_SHADOW : SB_DUMMY);
            struct sb_vcpu *c = sb->v[1];

            sb_start_all(sb);
            sb->gone[page[i]] = true;
            vapic_nested_unmap(&sb->vm, SB_GPA(page[i]), 4096);
            assert_int_equal(sb->pins[page[i]], 0);
            assert_false(c->entered);
            assert_false(sb_look(sb, 1));
            assert_int_equal(c->entry.nested, VAPIC_NESTED_STOP);
            sb->gone[page[i]] = false;
            sb_run(sb, 1);
            sb_free(sb);
        }
}

/* "An L1 that frees and reuses a table page": nothing follows the old table any more that could
 * send an IPI astray, and what the page holds by then is data. */
static void test_table_page_is_freed_and_reused(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);
    uint64_t *old = sb_entry(sb, 0), *new;

    (void)state;
    sb_start(sb, 0);
    sb_start(sb, 1);
    assert_false(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_int_equal(sb_take(sb, 1), 0xC1);
    /* L1 moves its table, one vCPU after the other, and uses the page for something else. */
    new = (uint64_t *)(void *)sb_page(sb, SB_FREE + 4);
    memcpy(new, old, 8 * SB_VCPUS);
    for (uint32_t n = 0; n < 2; n++) {
        sb_nested_exit(sb, n, NULL);
        vmcb_set64(vmcb12(sb, n), VMCB_AVIC_PHYSICAL, SB_GPA(SB_FREE + 4) | (SB_VCPUS - 1));
        sb_start(sb, n);
    }
    for (uint32_t i = 0; i < 512; i++)
        sb_write_entry(sb, i, AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_RUNNING | SB_GPA(i % SB_PAGES));
    for (uint32_t n = 0; n < 2; n++)
        if (!sb->v[n]->entered)
            sb_run(sb, n);
    sb->v[0]->result = VAPIC_OK;
    sb_ipi(sb, 0, FIXED(0xD1) | OTHERS, 0);
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    assert_int_equal(sb_take(sb, 1), 0xD1);
    assert_true(sb_bit(sb, 2, APIC_IRR, 0xD1) && sb_bit(sb, 3, APIC_IRR, 0xD1));
    /* And without having moved it: L2 on vCPU 2 still runs with the page when it becomes data. */
    sb_start(sb, 2);
    for (uint32_t i = 0; i < 512; i++)
        sb_write_entry(sb, i, 0);
    if (!sb->v[2]->entered)
        sb_run(sb, 2);
    assert_true(sb_ipi(sb, 2, FIXED(0xE1), 1));
    sb_reflected(sb, 2, FIXED(0xE1), 1u << 24, AVIC_IPI_INVALID_TARGET, 1);
    sb_free(sb);
}

/* A vCPU that is removed is named by no table any more, and leaves room for another's shadow. */
static void test_removed_vcpu_leaves_its_shadow(void **state)
{
    struct sb_options o = *SB_SHADOW;
    struct sb_vcpu *c;
    struct sb *sb;

    (void)state;
    o.tables = 1;
    sb = sb_new(&o);
    c = sb->v[3];
    sb_start(sb, 3);
    sb_nested_exit(sb, 3, NULL);
    assert_true(sb->tracked[SB_TABLE]);
    vapic_put(&c->apic);
    assert_int_equal(vapic_remove(&c->apic), VAPIC_OK);
    memset(&c->nested, 0xA5, sizeof(c->nested)); /* its memory is the caller's again */
    sb->v[3] = NULL;
    memcpy(sb_page(sb, SB_FREE + 4), sb_entry(sb, 0), 8 * SB_VCPUS);
    for (sb->vcpus = 0; sb->vcpus < 3; sb->vcpus++) {
        vmcb_set64(vmcb12(sb, sb->vcpus), VMCB_AVIC_PHYSICAL, SB_GPA(SB_FREE + 4) | 3);
        sb_start(sb, sb->vcpus);
    }
    assert_false(sb->tracked[SB_TABLE]);
    assert_false(sb_ipi(sb, 0, FIXED(0xC1), 1));
    assert_true(sb_ipi(sb, 0, FIXED(0xC1), 3)); /* running for L1, on nobody that there is */
    assert_int_equal(sb->v[0]->result, VAPIC_OK);
    sb_free(sb);
}

/* Only writes since L2 last ran with the table make L0 believe that it is none any more. */
static void test_flood_counts_from_the_last_entry(void **state)
{
    struct sb *sb = sb_new(SB_SHADOW);

    (void)state;
    for (uint32_t round = 0; round < 3; round++) {
        sb_start(sb, 0);
        sb_nested_exit(sb, 0, NULL);
        for (uint32_t i = 0; i < 3000; i++)
            sb_write_entry(sb, 1, sb_good_entry(1) ^ (i & 1 ? AVIC_PHYSICAL_RUNNING : 0));
        assert_true(sb->tracked[SB_TABLE]);
    }
    sb_free(sb);
}

/* A call that begins while unmap waits for those that had begun before: pins that are about to go
 * are not used any more. */
static int late_result;

static void exit_while_unmapping(struct sb *sb)
{
    sb->on_quiesce = NULL;
    late_result = late_exit(sb, FIXED(0xC1) | LOGICAL, 2, AVIC_IPI_INVALID_TARGET);
}

static void test_exit_while_memory_goes_away(void **state)
{
    static const uint32_t page[] = {SB_BACKING, SB_LOGICAL, SB_TABLE};

    (void)state;
    for (uint32_t i = 0; i < 2 * sizeof(page) / sizeof(page[0]); i++) {
        struct sb *sb = sb_new(SB_DUMMY);
        bool gone = i % 2;

        sb_start(sb, 0);
        sb->on_quiesce = exit_while_unmapping;
        sb->gone[page[i / 2]] = gone; /* else it has come back already, another one perhaps */
        vapic_nested_unmap(&sb->vm, SB_GPA(page[i / 2]), 4096);
        assert_int_equal(late_result, gone ? VAPIC_E_MEMORY : VAPIC_OK);
        assert_int_equal(sb_bit(sb, 1, APIC_IRR, 0xC1), !gone);
        assert_int_equal(sb->pins[page[i / 2]], 0);
        sb_free(sb);
    }
}

/* To the end of all addresses, and all of them. */
static void test_all_memory_goes_away(void **state)
{
    const uint64_t from[] = {SB_GPA(0), 0, 1}, size[] = {0 - SB_GPA(0), UINT64_MAX, UINT64_MAX};

    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        struct sb *sb = sb_new(i & 1 ? SB_SHADOW : SB_DUMMY);

        sb_start_all(sb);
        vapic_nested_unmap(&sb->vm, from[i / 2], size[i / 2]);
        for (uint32_t page = 0; page < SB_PAGES; page++)
            assert_int_equal(sb->pins[page], 0);
        sb_free(sb);
    }
}

/* Two at a time: when the first has waited, the second has not. */
static struct {
    pthread_t thread;
    sem_t doomed, go_on;
} second;

static void wait_of_second(struct sb *sb)
{
    sb->on_quiesce = NULL;
    sem_post(&second.doomed);
    sem_wait(&second.go_on);
}

static void *unmap_second(void *sb)
{
    vapic_nested_unmap(&((struct sb *)sb)->vm, SB_GPA(SB_BACKING + 2), 4096);
    return NULL;
}

static void wait_of_first(struct sb *sb)
{
    sb->on_quiesce = wait_of_second;
    assert_int_equal(pthread_create(&second.thread, NULL, unmap_second, sb), 0);
    sem_wait(&second.doomed);
}

static void test_two_unmap_at_once(void **state)
{
    struct sb *sb = sb_new(SB_DUMMY);
    uint32_t left;

    (void)state;
    sem_init(&second.doomed, 0, 0);
    sem_init(&second.go_on, 0, 0);
    sb_start_all(sb);
    sb->on_quiesce = wait_of_first;
    vapic_nested_unmap(&sb->vm, SB_GPA(SB_BACKING + 1), 4096);
    assert_int_equal(sb->pins[SB_BACKING + 1], 0);
    left = sb->pins[SB_BACKING + 2];
    sem_post(&second.go_on);
    pthread_join(second.thread, NULL);
    assert_int_equal(left, 1); /* somebody may still be reading it */
    assert_int_equal(sb->pins[SB_BACKING + 2], 0);
    sb_free(sb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_of_02),
        cmocka_unit_test(test_l2_keeps_its_avic_although_l1s_is_inhibited),
        cmocka_unit_test(test_l1s_avic_is_inhibited_while_l2_runs),
        cmocka_unit_test(test_clean_bits),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_fields_are_unused_without_avic),
        cmocka_unit_test(test_memory_of_the_vm),
        cmocka_unit_test(test_msrs),
        cmocka_unit_test(test_no_msr_is_the_hosts),
        cmocka_unit_test(test_v_irq_is_l2s),
        cmocka_unit_test(test_v_irq_is_not_copied_from_a_window),
        cmocka_unit_test(test_cr8_without_masking),
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_interrupt_of_l1_between_vmrun_and_first_entry),
        cmocka_unit_test(test_dummy_answers_from_l1s_tables),
        cmocka_unit_test(test_dummy_needs_no_exit_for_self_eoi_and_tpr),
        cmocka_unit_test(test_unaccelerated_accesses_are_l1s),
        cmocka_unit_test(test_ids_0_and_4_are_reflected),
        cmocka_unit_test(test_multicast),
        cmocka_unit_test(test_logical_decode),
        cmocka_unit_test(test_x2_logical),
        cmocka_unit_test(test_shadow_needs_no_exit),
        cmocka_unit_test(test_shadow_without_ipi_virtualization),
        cmocka_unit_test(test_target_that_l0_descheduled),
        cmocka_unit_test(test_halted_target_is_woken),
        cmocka_unit_test(test_broadcast_to_one_of_each),
        cmocka_unit_test(test_shadow_does_not_post_again),
        cmocka_unit_test(test_idle_entries_lose_nothing),
        cmocka_unit_test(test_page_that_comes_back),
        cmocka_unit_test(test_entry_that_changed_page_loses_nothing),
        cmocka_unit_test(test_sent_while_an_entry_is_idle),
        cmocka_unit_test(test_sent_while_all_entries_are_idle),
        cmocka_unit_test(test_what_the_processor_took_it_for),
        cmocka_unit_test(test_entry_becomes_invalid_between_two_looks),
        cmocka_unit_test(test_logical_table_changes_under_an_ipi),
        cmocka_unit_test(test_without_room_it_is_the_dummy),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_doorbell_for_a_target_in_l1),
        cmocka_unit_test(test_every_vector_wakes),
        cmocka_unit_test(test_priorities_hold_back),
        cmocka_unit_test(test_v_irq_wakes),
        cmocka_unit_test(test_v_irq_wakes_once),
        cmocka_unit_test(test_l1s_interrupt_ends_l2s_hlt),
        cmocka_unit_test(test_restore_right_after_creation),
        cmocka_unit_test(test_restore_tells_the_msrs_again),
        cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_x2apic_l1_withdraws_its_page),
        cmocka_unit_test(test_memory_goes_away),
        cmocka_unit_test(test_exit_while_memory_goes_away),
        cmocka_unit_test(test_all_memory_goes_away),
        cmocka_unit_test(test_two_unmap_at_once),
        cmocka_unit_test(test_table_page_is_freed_and_reused),
        cmocka_unit_test(test_removed_vcpu_leaves_its_shadow),
        cmocka_unit_test(test_flood_counts_from_the_last_entry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
