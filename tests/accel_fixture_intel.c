/* SPDX-License-Identifier: MIT */
/* The Intel half of accel_fixture.h: what a VMLAUNCH loop does around the library. */
#include "accel_fixture.h"

#include "control_block.h"

#include <string.h>

#define PAGE 4096u

/* The VMCS that is current: a VMWRITE of the library's goes there, wanted or not. */
static struct vapic_sil_vmcs *current(struct ax_vcpu *c)
{
    return c->l2 ? &c->vmcs02 : &c->vmcs;
}

void ax_intel_control(struct ax_vcpu *c, uint32_t field, uint64_t mask, uint64_t value)
{
    ax_log(c->ax,
           (struct ax_event){.kind = AX_CONTROL, .vcpu = c->n, .a = field, .b = mask, .c = value});
    assert_int_equal(value & ~mask, 0);
    vmcs_set_bits(current(c), field, mask, value);
}

uint16_t ax_intel_interrupt_status(struct ax_vcpu *c)
{
    return (uint16_t)vmcs_get(current(c), VMCS_GUEST_INTERRUPT_STATUS);
}

static void intel_create(struct ax_vcpu *c)
{
    struct ax *ax = c->ax;

    c->msrpm = ax_memory(ax, PAGE, PAGE);
    memset(c->msrpm, 0xFF, PAGE);
    vmcs_create(&c->vmcs, ax_hpa(ax, c->msrpm), ax_hpa(ax, ax->scratch), c->n + 1);
    vmcs_set(current(c), VMCS_GUEST_RIP, 0x1000);
}

static uint32_t event_of(const struct ax_vcpu *c)
{
    switch (c->injected) {
    case VAPIC_INJECT_VECTOR:
        return VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | c->entry.vector;
    case VAPIC_INJECT_EXTINT:
        return VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | c->extint;
    case VAPIC_INJECT_NMI:
        return VMX_INFO_VALID | VMX_INFO_TYPE_NMI | 2;
    default:
        return 0;
    }
}

/* HLT always exits, and INIT and SIPI have been handled: the activity state is "active". */
static enum vapic_sil_result intel_enter(struct ax_vcpu *c)
{
    enum vapic_sil_result result;

    vmcs_set(current(c), VMCS_ENTRY_INTR_INFO, event_of(c));
    vmcs_set_bits(current(c), VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW,
                  c->entry.irq_window ? VMX_PRI_INTERRUPT_WINDOW : 0);
    vmcs_set_bits(current(c), VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, c->guest_if ? VMX_RFLAGS_IF : 0);
    vmcs_set(current(c), VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
    vmcs_set(current(c), VMCS_GUEST_INTERRUPTIBILITY, 0);
    if (c->cpu != c->last && c->last != NULL) /* INVVPID: that processor's cache is of before */
        vapic_sil_flush(c->cpu, APIC_DEFAULT_BASE);
    c->last = c->cpu;
    result = vapic_sil_vmentry(c->cpu, current(c));
    if (result == VAPIC_SIL_INVALID)
        ax_log(c->ax, (struct ax_event){.kind = AX_FAILED,
                                        .vcpu = c->n,
                                        .a = vmcs_get(current(c), VMCS_INSTRUCTION_ERROR)});
    return result;
}

/* The TPR shadow lies in the page. */
static uint8_t intel_cr8(struct ax_vcpu *c)
{
    return (uint8_t)vapic_read_cr8(&c->apic);
}

static void advance(struct ax_vcpu *c)
{
    uint64_t length = vmcs_get(current(c), VMCS_EXIT_LENGTH);

    assert_int_not_equal(length, 0);
    vmcs_set(current(c), VMCS_GUEST_RIP, vmcs_get(current(c), VMCS_GUEST_RIP) + length);
}

/* What the exit left undone; an instruction that faults does not move on. */
static enum ax_result emulate(struct ax_vcpu *c, struct ax_op *op)
{
    enum ax_result result;

    assert_non_null(op);
    result = ax_emulate(c, op);
    if (result == AX_DONE && vmcs_get(current(c), VMCS_EXIT_LENGTH) != 0)
        advance(c);
    return result;
}

static enum ax_result apic_exit(struct ax_vcpu *c, struct ax_op *op, uint32_t reason)
{
    int result = vapic_apicv_exit(&c->apic, reason, vmcs_get(current(c), VMCS_EXIT_QUALIFICATION),
                                  c->ax->now);

    if (result == VAPIC_EMULATE)
        return emulate(c, op);
    if (result == VAPIC_ADVANCE)
        advance(c);
    else
        assert_int_equal(result, VAPIC_OK);
    return op != NULL ? AX_DONE : AX_RETRY;
}

/* "Acknowledge interrupt on exit" has taken the vector from the local APIC. */
static void handle_acknowledged(struct ax_vcpu *c)
{
    uint64_t info = vmcs_get(current(c), VMCS_EXIT_INTR_INFO);

    if (info & VMX_INFO_VALID)
        ax_handle_interrupt(c->ax, (uint32_t)(c->cpu - c->ax->cpus), (uint8_t)info);
}

static enum ax_result intel_exit(struct ax_vcpu *c, struct ax_op *op)
{
    uint32_t reason = (uint32_t)vmcs_get(current(c), VMCS_EXIT_REASON);

    switch (reason) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
    case VMX_EXIT_APIC_WRITE:
        return apic_exit(c, op, reason);
    case VMX_EXIT_HLT:
    case VMX_EXIT_RDMSR:
    case VMX_EXIT_WRMSR:
    case VMX_EXIT_EPT_VIOLATION:
        return emulate(c, op);
    case VMX_EXIT_EXTINT:
        handle_acknowledged(c);
        return AX_RETRY;
    case VMX_EXIT_INTERRUPT_WINDOW:
        return AX_RETRY;
    default: /* CR8 never exits: the TPR shadow is always on */
        fail_msg("vCPU %u: exit %u", c->n, reason);
        return AX_STUCK;
    }
}

static void intel_why(struct ax_vcpu *c, uint64_t *code, uint64_t *info1, uint64_t *info2)
{
    *code = vmcs_get(current(c), VMCS_EXIT_REASON);
    *info1 = vmcs_get(current(c), VMCS_EXIT_QUALIFICATION);
    *info2 = vmcs_get(current(c), VMCS_EXIT_LENGTH);
}

static void intel_flush(struct ax_vcpu *c)
{
    vapic_sil_flush(c->cpu, APIC_DEFAULT_BASE);
}

static void intel_intercept(struct ax_vcpu *c, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_bitmap(pass, c->msrpm);
}

const struct ax_vendor ax_intel = {
    .silicon = VAPIC_SIL_INTEL,
    .create = intel_create,
    .enter = intel_enter,
    .cr8 = intel_cr8,
    .exit = intel_exit,
    .why = intel_why,
    .flush = intel_flush,
    .intercept = intel_intercept,
    .leave_code = VMX_EXIT_EXTINT,
};
