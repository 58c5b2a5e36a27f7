/* SPDX-License-Identifier: MIT */
/*
 * Five situations in which hypervisors have lost interrupts, let a guest where it must not be, or
 * run without acceleration for good. Each is played against the silicon model twice: as the library
 * is, and with the fix taken out by a switch of mutant.h. Then it must go wrong, in the way that it
 * says: the wrong access succeeds, the VM entry fails, the interrupt is lost.
 */
#include "../src/mutant.h"
#include "accel_modes.h"
#include "vapic/arch/apic.h"
#include "vapic/nested.h"

#include <stdio.h>
#include <string.h>

#define APIC_GPA  UINT64_C(0xFEE00000)
#define BIT(name) (1u << VAPIC_INHIBIT_##name)

/* A situation: NULL when all went well, else what went wrong. */
typedef const char *(*situation_fn)(enum vapic_mutant without);

static void to_x2apic(struct ax *ax, uint32_t n)
{
    uint64_t base;

    assert_int_equal(ax_rdmsr(ax, n, 0x1B, &base), AX_DONE);
    assert_int_equal(ax_wrmsr(ax, n, 0x1B, base | APIC_BASE_EXTD), AX_DONE);
}

/* ---- 1. A vCPU in x2APIC mode on silicon that virtualizes xAPIC only ---- */

/* The silicon redirects the page whatever mode the APIC is in. */
static const char *page_in_x2apic_mode(enum vapic_mutant without)
{
    struct ax_options options = ax_options_for(AX_MODE_AVIC, 2);
    struct ax *ax = ax_new(&options);
    uint64_t value = 0x70;
    const char *verdict = NULL;

    vapic_mutant = without;
    ax_write(ax, 1, APIC_TPR, 0x10); /* the page is in use, by a peer in xAPIC mode */
    to_x2apic(ax, 0);
    ax_write(ax, 0, APIC_TPR, 0x20);
    assert_true(vapic_active(&ax->v[0]->apic));
    assert_int_equal(ax_mmio(ax, 0, true, APIC_GPA + APIC_TPR, &value), AX_DONE);
    if (ax_read(ax, 0, APIC_TPR) == 0x70)
        verdict = "the write reached the page";
    else
        assert_int_equal(ax_read(ax, 0, APIC_TPR), 0x20);
    ax_write(ax, 1, APIC_TPR, 0x30); /* emulated now, and right */
    assert_int_equal(ax_read(ax, 1, APIC_TPR), 0x30);
    ax_free(ax);
    return verdict;
}

/* ---- 2. An update of APICv while a nested guest is current ---- */

/* What L1 asked for its guest: no TPR shadow, hence nothing that needs one [SDM3 27.2.1.1]. */
static void make_vmcs02(struct vapic_sil_vmcs *vmcs)
{
    vapic_sil_vmcs_init(vmcs);
    assert_true(vapic_sil_vmwrite(vmcs, VMCS_PIN_CONTROLS, VMX_PIN_MUST | VMX_PIN_EXTINT_EXITING));
    assert_true(vapic_sil_vmwrite(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_MUST | VMX_PRI_SECONDARY));
    assert_true(vapic_sil_vmwrite(vmcs, VMCS_SECONDARY_CONTROLS, VMX_SEC_EPT));
    assert_true(vapic_sil_vmwrite(vmcs, VMCS_EXIT_CONTROLS, VMX_EXC_MUST | VMX_EXC_ACK_INTERRUPT));
    assert_true(vapic_sil_vmwrite(vmcs, VMCS_ENTRY_CONTROLS, VMX_ENTRY_MUST));
}

static const char *entry_of_l2(struct ax_vcpu *c)
{
    uint64_t error = 0;

    vapic_enter(&c->apic, VAPIC_CAN_IRQ | VAPIC_IF, c->ax->now, &c->entry);
    if (vapic_sil_vmentry(c->cpu, &c->vmcs) == VAPIC_SIL_DONE) {
        vapic_sil_leave(c->cpu, VMX_EXIT_CPUID, 0, 2);
        vapic_exit(&c->apic, c->entry.cr8, true);
        return NULL;
    }
    assert_true(vapic_sil_vmread(&c->vmcs, VMCS_INSTRUCTION_ERROR, &error));
    vapic_exit(&c->apic, c->entry.cr8, true);
    return error == 7 ? "VM entry fails with error 7" : "VM entry fails";
}

static const char *update_under_l2(enum vapic_mutant without)
{
    struct ax_options options = ax_options_for(AX_MODE_APICV, 2);
    struct ax *ax = ax_new(&options);
    struct ax_vcpu *c = ax->v[0];
    struct vapic_sil_vmcs vmcs01;
    const char *verdict;

    vapic_mutant = without;
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_settle(ax);
    ax_leave(ax, 0);
    vmcs01 = c->vmcs;
    make_vmcs02(&c->vmcs); /* "the current VMCS" is L2's from here on */
    vapic_nested_enter(&c->apic, NULL);
    assert_null(entry_of_l2(c));
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    verdict = entry_of_l2(c);
    c->vmcs = vmcs01;
    vapic_nested_exit(&c->apic);
    if (verdict == NULL) {
        /* And what was put off has been written. */
        ax_post(ax, 0, 0x41, false);
        ax_settle(ax);
        assert_true(vapic_active(&c->apic));
        assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    }
    ax_free(ax);
    return verdict;
}

/* ---- 3. The EOI trap in x2APIC mode, where the register cannot be read ---- */

#define PIN    5u
#define VECTOR 0x61u

static void route_level_pin(struct ax *ax)
{
    struct vapic_ioapic *io = ax_ioapic(ax);

    vapic_ioapic_write(io, 0, 0x10 + 2 * PIN + 1, 4);
    vapic_ioapic_write(io, 0x10, 0, 4);
    vapic_ioapic_write(io, 0, 0x10 + 2 * PIN, 4);
    vapic_ioapic_write(io, 0x10, VECTOR | 1u << 15, 4);
}

static void read_of_eoi_is_gp(struct ax *ax)
{
    uint64_t value;

    assert_int_equal(ax_rdmsr(ax, 0, 0x80B, &value), AX_GP);
}

static const char *level_interrupt_in(enum ax_mode_index mode, enum vapic_mutant without)
{
    struct ax_options options = ax_options_for(mode, 2);
    const char *verdict = NULL;
    struct ax *ax;

    options.x2apic = true;
    options.config.max_gsis = 24;
    ax = ax_new(&options);
    route_level_pin(ax);
    vapic_mutant = without;
    read_of_eoi_is_gp(ax);
    vapic_gsi_set(&ax->vm, PIN, 0, true);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    read_of_eoi_is_gp(ax);
    ax_eoi(ax, 0); /* and the device wants more */
    ax_settle(ax);
    if (ax_delivered(ax, 0, VECTOR) != 2)
        verdict = "the level interrupt never comes again";
    read_of_eoi_is_gp(ax);
    vapic_gsi_set(&ax->vm, PIN, 0, false);
    ax_eoi(ax, 0);
    ax_settle(ax);
    read_of_eoi_is_gp(ax);
    ax_free(ax);
    return verdict;
}

static const char *eoi_trap(enum vapic_mutant without)
{
    return level_interrupt_in(AX_MODE_X2AVIC, without);
}

static void level_interrupts_everywhere(void **state)
{
    (void)state;
    for (int mode = 0; mode < AX_MODES; mode++)
        assert_null(level_interrupt_in((enum ax_mode_index)mode, VAPIC_MUTANT_NONE));
}

/* An ICR write that the processor leaves to software after it has stored it: the upper half lies at
 * 310h on AMD, at 304h on Intel. The destination needs more than eight bits, on purpose. */
static void wide_icr(enum ax_mode_index mode, uint32_t high)
{
    static const uint32_t ids[] = {0x102, 0x201};
    struct ax_options options = ax_options_for(mode, 2);
    uint64_t icr = (uint64_t)ids[1] << 32 | 0x400u | APIC_ICR_ASSERT, value;
    struct ax *ax;

    options.x2apic = true;
    options.ids = ids;
    options.accel.features |= mode == AX_MODE_X2AVIC ? VAPIC_ACCEL_X2AVIC_EXT : 0;
    ax = ax_new(&options);
    ax_settle(ax);
    assert_true(vapic_active(&ax->v[0]->apic));
    ax_forget(ax);
    assert_int_equal(ax_wrmsr(ax, 0, 0x830, icr), AX_DONE);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_NMI), 1);
    assert_int_equal(ax_nth(ax, AX_NMI, 0)->vcpu, 1);
    assert_int_equal(ax_page(ax, 0, APIC_ICR), (uint32_t)icr);
    assert_int_equal(ax_page(ax, 0, high), ids[1]);
    assert_int_equal(ax_rdmsr(ax, 0, 0x830, &value), AX_DONE);
    assert_true(value == icr);
    /* The same by the entry point for other sources of such a trap. */
    ax_leave(ax, 0);
    vapic_trap_write(&ax->v[0]->apic, APIC_ICR, ax->now);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_NMI), 2);
    assert_int_equal(ax_nth(ax, AX_NMI, 1)->vcpu, 1);
    ax_free(ax);
}

static void icr_trap_on_both_layouts(void **state)
{
    (void)state;
    wide_icr(AX_MODE_X2AVIC, 0x310);
    wide_icr(AX_MODE_APICV_IPIV, 0x304);
}

/* ---- 4. An IPI for a vCPU that runs a nested guest ---- */

/* L1's VMCB without AVIC: what a processor that runs L2 looks at. */
static uint64_t make_vmcb02(struct ax *ax, const struct ax_vcpu *c)
{
    uint8_t *vmcb = ax_memory(ax, VMCB_SIZE, VMCB_SIZE);
    uint32_t intercepts;
    uint64_t control;

    memcpy(vmcb, c->vmcb, VMCB_SIZE);
    memcpy(&control, vmcb + VMCB_INT_CTL, sizeof(control));
    control &= ~(VMCB_V_AVIC | VMCB_V_X2AVIC);
    memcpy(vmcb + VMCB_INT_CTL, &control, sizeof(control));
    memset(vmcb + VMCB_CLEAN, 0, 4);
    memcpy(&intercepts, vmcb + VMCB_INTERCEPT3, sizeof(intercepts));
    intercepts |= VMCB_I3_INTR;
    memcpy(vmcb + VMCB_INTERCEPT3, &intercepts, sizeof(intercepts));
    return ax_hpa(ax, vmcb);
}

static bool told(const struct ax *ax, uint32_t n)
{
    for (uint32_t i = 0; i < ax_count(ax, AX_NOTIFY); i++)
        if (ax_nth(ax, AX_NOTIFY, i)->vcpu == n && ax_nth(ax, AX_NOTIFY, i)->a == VAPIC_ACTION_KICK)
            return true;
    return false;
}

static const char *ipi_to_l2(enum vapic_mutant without)
{
    struct ax_options options = ax_options_for(AX_MODE_AVIC, 2);
    struct ax *ax = ax_new(&options);
    struct ax_vcpu *c = ax->v[1];
    const char *verdict = NULL;
    uint64_t vmcb02;
    uint8_t vector;

    vapic_mutant = without;
    ax_settle(ax);
    ax_leave(ax, 1);
    vmcb02 = make_vmcb02(ax, c);
    vapic_nested_enter(&c->apic, NULL);
    vapic_enter(&c->apic, VAPIC_CAN_IRQ | VAPIC_IF, ax->now, &c->entry);
    assert_int_equal(vapic_sil_vmrun(c->cpu, vmcb02), VAPIC_SIL_DONE);
    ax_forget(ax);
    ax_ipi(ax, 0, VECTOR, 1);
    assert_true(ax_page_bit(ax, 1, APIC_IRR, VECTOR));
    if (!told(ax, 1)) {
        /* L2 runs on, for as long as it likes: the doorbell means nothing to it. */
        for (int i = 0; i < 100; i++)
            assert_int_equal(vapic_sil_boundary(c->cpu, &vector), VAPIC_SIL_NOTHING);
        verdict = "the IPI is lost in a doorbell";
    }
    vapic_sil_leave(c->cpu, SVM_EXIT_INTR, 0, 0);
    vapic_exit(&c->apic, c->entry.cr8, true);
    vapic_nested_exit(&c->apic);
    c->woken = c->blocked;
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, VECTOR), 1);
    ax_free(ax);
    return verdict;
}

/* ---- 5. APIC_ID_MODIFIED for IDs that were never modified, or are no more ---- */

static const char *modified(struct ax *ax, const char *text)
{
    return vapic_inhibits(&ax->vm).bits & BIT(APIC_ID_MODIFIED) ? text : NULL;
}

static struct ax *large_guest(void)
{
    struct ax_options options = ax_options_for(AX_MODE_X2AVIC, 512);

    options.config.knobs_set = true;
    options.config.knobs = VAPIC_PROFILE_MANUAL | VAPIC_KNOB_UNIQUE_ID;
    return ax_new(&options);
}

static const char *wide_id(enum vapic_mutant without)
{
    const char *verdict;
    struct ax *ax;

    vapic_mutant = without;
    ax = large_guest();
    ax_settle(ax);
    verdict = modified(ax, "512 vCPUs in xAPIC mode are inhibited by APIC_ID_MODIFIED");
    if (verdict == NULL)
        assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    ax_free(ax);
    return verdict;
}

static const char *id_restored(enum vapic_mutant without)
{
    const char *verdict;
    struct ax *ax;

    vapic_mutant = without;
    ax = large_guest();
    ax_write(ax, 1, APIC_ID, 0x99u << 24);
    assert_non_null(modified(ax, "as it should be"));
    for (uint32_t n = 0; n < ax->vcpus; n++) {
        ax_leave(ax, n);
        vapic_reset(&ax->v[n]->apic);
        ax->v[n]->woken = ax->v[n]->blocked;
    }
    ax_settle(ax);
    verdict = modified(ax, "APIC_ID_MODIFIED survives the reboot");
    if (verdict == NULL)
        assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    ax_free(ax);
    return verdict;
}

/* ---- Both ways ---- */

static const struct row {
    const char *name;
    situation_fn play;
    enum vapic_mutant mutant;
    const char *wrong;
} rows[] = {
    {"x2apic_vcpu_cannot_reach_the_page", page_in_x2apic_mode, VAPIC_MUTANT_HYBRID_KEEPS_PAGE,
     "the write reached the page"},
    {"update_under_l2_is_put_off", update_under_l2, VAPIC_MUTANT_CONTROL_WRITES_L2,
     "VM entry fails with error 7"},
    {"eoi_trap_does_not_read", eoi_trap, VAPIC_MUTANT_EOI_TRAP_READS,
     "the level interrupt never comes again"},
    {"ipi_reaches_a_vcpu_in_l2", ipi_to_l2, VAPIC_MUTANT_NESTED_KEEPS_RUNNING,
     "the IPI is lost in a doorbell"},
    {"wide_id_is_not_modified", wide_id, VAPIC_MUTANT_ID_COMPARED_WIDE,
     "512 vCPUs in xAPIC mode are inhibited by APIC_ID_MODIFIED"},
    {"restored_id_is_not_modified", id_restored, VAPIC_MUTANT_ID_INHIBIT_STICKS,
     "APIC_ID_MODIFIED survives the reboot"},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void holds(void **state)
{
    const struct row *row = *state;
    const char *verdict = row->play(VAPIC_MUTANT_NONE);

    if (verdict != NULL)
        fail_msg("%s", verdict);
}

static void fails_without_the_fix(void **state)
{
    const struct row *row = *state;
    const char *verdict = row->play(row->mutant);

    vapic_mutant = VAPIC_MUTANT_NONE;
    if (verdict == NULL)
        fail_msg("nothing goes wrong without the fix");
    assert_string_equal(verdict, row->wrong);
}

static int back_to_normal(void **state)
{
    (void)state;
    vapic_mutant = VAPIC_MUTANT_NONE;
    return 0;
}

int main(void)
{
    static char names[ROWS][80];
    struct CMUnitTest tests[2 * ROWS + 2] = {
        cmocka_unit_test(level_interrupts_everywhere),
        cmocka_unit_test(icr_trap_on_both_layouts),
    };

    for (size_t i = 0; i < ROWS; i++) {
        void *row = (void *)(uintptr_t)&rows[i];

        snprintf(names[i], sizeof(names[i]), "%s_fails_without_the_fix", rows[i].name);
        tests[2 * i + 2] = (struct CMUnitTest){rows[i].name, holds, NULL, back_to_normal, row};
        tests[2 * i + 3] =
            (struct CMUnitTest){names[i], fails_without_the_fix, NULL, back_to_normal, row};
    }
    return _cmocka_run_group_tests("situations", tests, 2 * ROWS + 2, NULL, NULL);
}
