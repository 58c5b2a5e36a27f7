/* SPDX-License-Identifier: MIT */
/* The Intel half of a vCPU's run loop: what surrounds VMLAUNCH. world_vcpu.c calls it. */
#include "world_parts.h"

#include "vapic/arch/apic.h"

#define CONTROL_BLOCK_CHECK(condition) world_require(condition, #condition)
#include "../tests/control_block.h"

static void fail(const struct world_vcpu *v, const char *what, uint64_t value)
{
    EX_BROKEN(CONTROLS, "vCPU %u: %s (%#llx)", v->n, what, (unsigned long long)value);
}

static struct vapic_sil_vmcs *current(struct world_vcpu *v)
{
    return v->l2 ? &v->vmcs02 : &v->vmcs;
}

static void intel_create(struct world_vcpu *v)
{
    memset(v->msrs, 0xFF, PAGE);
    vmcs_create(&v->vmcs, world_hpa(v->w, v->msrs), world_hpa(v->w, v->w->scratch), v->n + 1);
    vmcs_set(&v->vmcs, VMCS_GUEST_RIP, 0x1000);
}

static uint32_t event_of(const struct world_vcpu *v)
{
    switch (v->injected) {
    case VAPIC_INJECT_VECTOR:
        return VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | v->entry.vector;
    case VAPIC_INJECT_EXTINT:
        return VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | v->extint;
    case VAPIC_INJECT_NMI:
        return VMX_INFO_VALID | VMX_INFO_TYPE_NMI | 2;
    default:
        return 0;
    }
}

/* HLT always exits, and INIT and SIPI have been handled: the activity state is "active". */
static enum vapic_sil_result intel_enter(struct world_vcpu *v)
{
    struct vapic_sil_vmcs *vmcs = current(v);

    if (!v->l2) {
        vmcs_set(vmcs, VMCS_ENTRY_INTR_INFO, event_of(v));
        vmcs_set_bits(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW,
                      v->entry.irq_window ? VMX_PRI_INTERRUPT_WINDOW : 0);
        vmcs_set_bits(vmcs, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, v->guest_if ? VMX_RFLAGS_IF : 0);
        vmcs_set(vmcs, VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
        vmcs_set(vmcs, VMCS_GUEST_INTERRUPTIBILITY, 0);
    }
    if (v->cpu != v->last) /* INVVPID: that processor's cache is of before */
        vapic_sil_flush(v->cpu, APIC_DEFAULT_BASE);
    v->last = v->cpu;
    return vapic_sil_vmentry(v->cpu, vmcs);
}

/* The TPR shadow lies in the page. */
static uint8_t intel_cr8(struct world_vcpu *v)
{
    return (uint8_t)vapic_read_cr8(&v->apic);
}

static void advance(struct world_vcpu *v)
{
    struct vapic_sil_vmcs *vmcs = current(v);

    vmcs_set(vmcs, VMCS_GUEST_RIP,
             vmcs_get(vmcs, VMCS_GUEST_RIP) + vmcs_get(vmcs, VMCS_EXIT_LENGTH));
}

/* What the exit left undone; an instruction that faults does not move on. */
static enum handled emulate(struct world_vcpu *v, struct insn *insn)
{
    enum handled result = world_emulate(v, insn);

    if (result == HANDLED_DONE)
        advance(v);
    return result;
}

static enum handled apic_exit(struct world_vcpu *v, struct insn *insn, uint32_t reason)
{
    int result = vapic_apicv_exit(&v->apic, reason, vmcs_get(current(v), VMCS_EXIT_QUALIFICATION),
                                  world_now(v->w));

    if (result == VAPIC_EMULATE)
        return emulate(v, insn);
    if (result == VAPIC_ADVANCE)
        advance(v);
    return insn != NULL ? HANDLED_DONE : HANDLED_RETRY;
}

/* "Acknowledge interrupt on exit" has taken the vector from the local APIC. */
static void handle_acknowledged(struct world_vcpu *v)
{
    uint64_t info = vmcs_get(current(v), VMCS_EXIT_INTR_INFO);

    if (info & VMX_INFO_VALID)
        world_handle_interrupt(v->w, (uint32_t)(v->cpu - v->w->cpu), (uint8_t)info);
}

static enum handled intel_exit(struct world_vcpu *v, struct insn *insn)
{
    uint32_t reason = (uint32_t)vmcs_get(current(v), VMCS_EXIT_REASON);

    switch (reason) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
    case VMX_EXIT_APIC_WRITE:
        return apic_exit(v, insn, reason);
    case VMX_EXIT_HLT:
    case VMX_EXIT_RDMSR:
    case VMX_EXIT_WRMSR:
        return emulate(v, insn);
    case VMX_EXIT_EPT_VIOLATION:
        return world_map_page(v->w) ? HANDLED_RETRY : emulate(v, insn);
    case VMX_EXIT_EXTINT:
        handle_acknowledged(v);
        return HANDLED_RETRY;
    case VMX_EXIT_INTERRUPT_WINDOW:
        return HANDLED_RETRY;
    default:
        fail(v, "an exit that nobody asked for", reason);
        return HANDLED_RETRY;
    }
}

static void intel_flush(struct world_vcpu *v)
{
    v->last = NULL; /* at the next entry */
}

static void intel_intercept(struct world_vcpu *v, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_bitmap(pass, v->msrs);
}

/* What L1 asked for its guest: no TPR shadow, hence nothing that needs one [SDM3 27.2.1.1]. */
static void intel_create_l2(struct world_vcpu *v)
{
    vapic_sil_vmcs_init(&v->vmcs02);
    vmcs_set(&v->vmcs02, VMCS_PIN_CONTROLS, VMX_PIN_MUST | VMX_PIN_EXTINT_EXITING);
    vmcs_set(&v->vmcs02, VMCS_PRIMARY_CONTROLS, VMX_PRI_MUST | VMX_PRI_SECONDARY);
    vmcs_set(&v->vmcs02, VMCS_SECONDARY_CONTROLS, VMX_SEC_EPT);
    vmcs_set(&v->vmcs02, VMCS_EXIT_CONTROLS, VMX_EXC_MUST | VMX_EXC_ACK_INTERRUPT);
    vmcs_set(&v->vmcs02, VMCS_ENTRY_CONTROLS, VMX_ENTRY_MUST);
}

/* ---- At the end: the descriptor [SDM3 T31-1] ---- */

static bool hardware_posts(const struct world *w)
{
    return w->features & VAPIC_ACCEL_IPIV || w->spec->irte[0].vector != 0;
}

static uint64_t vector_of(uint64_t control)
{
    return (control & PID_NV_MASK) >> PID_NV_SHIFT;
}

static void intel_check(struct world_vcpu *v)
{
    uint64_t control = v->apic.pid.control;
    bool runs = v->where != NOWHERE && !v->asleep && !v->stopped;

    if (v->asleep && v->guest_if && hardware_posts(v->w)) {
        if (vector_of(control) != WAKEUP_VECTOR || control & PID_SN)
            fail(v, "sleeps, and hardware that posts would not wake it", control);
    } else if (!runs) {
        if (!(control & PID_SN))
            fail(v, "does not run, and SN is clear", control);
    } else if (vector_of(control) != NOTIFY_VECTOR || control & PID_SN) {
        fail(v, "runs, and hardware that posts would not notify it", control);
    }
    if (runs && !(v->w->spec->flags & WORLD_XAPIC_HOST) &&
        control >> PID_NDST_SHIFT != v->cpu->apic_id)
        fail(v, "the descriptor names another processor", control);
}

const struct world_vendor world_intel = {
    .silicon = VAPIC_SIL_INTEL,
    .create = intel_create,
    .enter = intel_enter,
    .cr8 = intel_cr8,
    .exit = intel_exit,
    .flush = intel_flush,
    .intercept = intel_intercept,
    .create_l2 = intel_create_l2,
    .check = intel_check,
    .leave_code = VMX_EXIT_EXTINT,
};
