/* SPDX-License-Identifier: MIT */
/* The AMD half of accel_fixture.h: what a VMRUN loop does around the library. */
#include "accel_fixture.h"

#include "control_block.h"

#define PAGE 4096u

static void amd_create(struct ax_vcpu *c)
{
    struct ax *ax = c->ax;

    c->vmcb = ax_memory(ax, VMCB_SIZE, PAGE);
    c->msrpm = ax_memory(ax, SVM_MSRPM_SIZE, PAGE);
    vmcb_create(c->vmcb, c->msrpm, ax_hpa(ax, c->msrpm), c->n + 1);
}

static uint64_t event_of(const struct ax_vcpu *c)
{
    switch (c->injected) {
    case VAPIC_INJECT_VECTOR:
        return VMCB_EVENT_VALID | VMCB_EVENT_INTR | c->entry.vector;
    case VAPIC_INJECT_EXTINT:
        return VMCB_EVENT_VALID | VMCB_EVENT_INTR | c->extint;
    case VAPIC_INJECT_NMI:
        return VMCB_EVENT_VALID | VMCB_EVENT_NMI | 2;
    default:
        return 0;
    }
}

/* A dummy virtual interrupt of the highest priority, to exit when the guest opens the window. */
static void request_window(struct ax_vcpu *c, bool wanted)
{
    uint64_t control =
        vmcb_get64(c->vmcb, VMCB_INT_CTL) & ~(VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR);
    uint32_t intercepts = vmcb_get32(c->vmcb, VMCB_INTERCEPT3) & ~VMCB_I3_VINTR;

    if (wanted) {
        control |= VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR;
        intercepts |= VMCB_I3_VINTR;
        /* AVIC ignores V_IRQ: the library has switched it off. */
        assert_int_equal(control & VMCB_V_AVIC, 0);
    }
    vmcb_set64(c->vmcb, VMCB_INT_CTL, control);
    vmcb_set32(c->vmcb, VMCB_INTERCEPT3, intercepts);
    vmcb_dirty(c->vmcb, VMCB_CLEAN_TPR | VMCB_CLEAN_INTERCEPTS);
}

static void amd_flush(struct ax_vcpu *c)
{
    c->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
}

static enum vapic_sil_result amd_enter(struct ax_vcpu *c)
{
    enum vapic_sil_result result;

    vmcb_set64(c->vmcb, VMCB_EVENTINJ, event_of(c));
    if (c->entry.irq_window || vmcb_get32(c->vmcb, VMCB_INTERCEPT3) & VMCB_I3_VINTR)
        request_window(c, c->entry.irq_window);
    vmcb_set64(c->vmcb, VMCB_RFLAGS, c->guest_if ? VMCB_RFLAGS_IF | 2 : 2);
    assert_int_equal(vmcb_get64(c->vmcb, VMCB_INT_CTL) & VMCB_V_TPR, c->entry.cr8);
    if (c->cpu != c->last) { /* what it has cached is of an earlier time [APM2 15.15.2] */
        vmcb_set32(c->vmcb, VMCB_CLEAN, 0);
        amd_flush(c);
    }
    c->last = c->cpu;
    result = vapic_sil_vmrun(c->cpu, ax_hpa(c->ax, c->vmcb));
    /* What is not touched until the next entry is as the processor has it. */
    vmcb_set32(c->vmcb, VMCB_CLEAN, 0xFFFFFFFF);
    c->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_NOTHING;
    return result;
}

static uint8_t amd_cr8(struct ax_vcpu *c)
{
    return (uint8_t)(vmcb_get64(c->vmcb, VMCB_INT_CTL) & VMCB_V_TPR);
}

static enum ax_result handled(struct ax_vcpu *c, struct ax_op *op, int result)
{
    if (result == VAPIC_EMULATE) {
        assert_non_null(op);
        return ax_emulate(c, op);
    }
    assert_int_equal(result, VAPIC_OK);
    return AX_DONE;
}

static enum ax_result amd_exit(struct ax_vcpu *c, struct ax_op *op)
{
    uint64_t code = vmcb_get64(c->vmcb, VMCB_EXITCODE);

    switch (code) {
    case SVM_EXIT_AVIC_INCOMPLETE:
    case SVM_EXIT_AVIC_NOACCEL:
        return handled(c, op,
                       vapic_avic_exit(&c->apic, code, vmcb_get64(c->vmcb, VMCB_EXITINFO1),
                                       vmcb_get64(c->vmcb, VMCB_EXITINFO2), c->ax->now));
    case SVM_EXIT_NPF:
    case SVM_EXIT_MSR:
    case SVM_EXIT_CR8_WRITE:
    case SVM_EXIT_HLT:
        assert_non_null(op);
        return ax_emulate(c, op);
    case SVM_EXIT_INTR:
    case SVM_EXIT_VINTR:
        return AX_RETRY;
    default:
        fail_msg("vCPU %u: exit %#llx", c->n, (unsigned long long)code);
        return AX_STUCK;
    }
}

static void amd_why(struct ax_vcpu *c, uint64_t *code, uint64_t *info1, uint64_t *info2)
{
    *code = vmcb_get64(c->vmcb, VMCB_EXITCODE);
    *info1 = vmcb_get64(c->vmcb, VMCB_EXITINFO1);
    *info2 = vmcb_get64(c->vmcb, VMCB_EXITINFO2);
}

static void amd_intercept(struct ax_vcpu *c, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_msrpm(pass, c->msrpm);
    vmcb_dirty(c->vmcb, VMCB_CLEAN_PERMISSION);
}

const struct ax_vendor ax_amd = {
    .silicon = VAPIC_SIL_AMD,
    .create = amd_create,
    .enter = amd_enter,
    .cr8 = amd_cr8,
    .exit = amd_exit,
    .why = amd_why,
    .flush = amd_flush,
    .intercept = amd_intercept,
    .leave_code = SVM_EXIT_INTR,
};
