/* SPDX-License-Identifier: MIT */
/*
 * The loop of a vCPU's thread while its modelled processor is in the guest; see accel.h.
 *
 *      VMRUN or VM entry of the model
 *      loop:  a kick, or the machine wants to stop: exit of the model for an interrupt
 *             boundary: doorbells, notifications, delivery (settle())
 *             KVM_RUN: the guest executes until it touches something (accel_exit.c)
 *      until the model is outside
 *
 * The model's interrupt window is KVM's. It is kept shut, by the interrupt shadow, whenever KVM
 * cannot take an interrupt: while an instruction waits for its completion, and after one has been
 * queued. So the model is asked twice: with the window shut, for all that needs none; and, if it
 * then waits for the window, once more as soon as KVM's is open. In between KVM watches for it.
 *
 * Signals. Whoever sends a doorbell or a notification does so behind `running`; this thread stores
 * it, then looks at what is pending, then calls KVM_RUN, which a signal in between makes return at
 * once. A kick sets `leave` before its signal.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "accel.h"
#include "machine.h"
#include "vapic/arch/atomic.h"

#define CLEAN_ALL  0x1fffu
#define V_IRQ_BITS (VMCB_V_IRQ | VMCB_V_IGN_TPR | VMCB_V_INTR_PRIO)

bool vmm_accel_in_guest(const struct vmm_vcpu *v)
{
    return v->accel != NULL && v->accel->on != NULL && v->accel->on->sil.in_guest;
}

uint8_t vmm_accel_cr8(const struct vmm_vcpu *v)
{
    return vmm_accel_in_guest(v) ? v->accel->cr8 : (uint8_t)vapic_read_cr8(&v->apic);
}

/* ---------------------------------------------------------------------------------------------- */
/* Entering                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

static uint64_t get64(const uint8_t *vmcb, uint32_t offset)
{
    uint64_t value;

    memcpy(&value, vmcb + offset, sizeof(value));
    return value;
}

static void put64(uint8_t *vmcb, uint32_t offset, uint64_t value)
{
    memcpy(vmcb + offset, &value, sizeof(value));
}

static void merge32(uint8_t *vmcb, uint32_t offset, uint32_t mask, bool on, uint32_t *dirty,
                    uint32_t clean)
{
    uint32_t old, new;

    memcpy(&old, vmcb + offset, sizeof(old));
    new = on ? old | mask : old & ~mask;
    if (new != old) {
        memcpy(vmcb + offset, &new, sizeof(new));
        *dirty |= clean;
    }
}

/*
 * An interrupt window is a virtual interrupt that is intercepted when the guest would take it
 * [APM2 15.21]; with AVIC there is no such thing, and the library switches AVIC off first.
 */
static void ask_window(struct vmm_vcpu *v, uint8_t *vmcb, uint32_t *dirty)
{
    uint64_t int_ctl = get64(vmcb, VMCB_INT_CTL) & ~V_IRQ_BITS;
    bool ask = v->accel->window && !vapic_active(&v->apic);

    put64(vmcb, VMCB_INT_CTL, ask ? int_ctl | V_IRQ_BITS : int_ctl);
    *dirty |= VMCB_CLEAN_TPR; /* the library keeps V_TPR in the same field */
    merge32(vmcb, VMCB_INTERCEPT3, VMCB_I3_VINTR, ask, dirty, VMCB_CLEAN_INTERCEPTS);
}

static enum vapic_sil_result vmrun(struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    struct vmm_accel_vcpu *a = v->accel;
    bool watch_cr8 = entry->tpr_threshold != 0 && !vapic_active(&v->apic);
    uint32_t dirty = a->moved ? CLEAN_ALL : 0;
    uint32_t clean;

    ask_window(v, a->vmcb, &dirty);
    merge32(a->vmcb, VMCB_INTERCEPT_CR, VMCB_CR8_WRITE, watch_cr8, &dirty, VMCB_CLEAN_INTERCEPTS);
    put64(a->vmcb, VMCB_RIP, v->run->s.regs.regs.rip);
    put64(a->vmcb, VMCB_RFLAGS, v->interrupt_flag ? VMCB_RFLAGS_IF : 0);
    put64(a->vmcb, VMCB_INT_STATE, 0); /* boundary() says what KVM says */
    memcpy(&clean, a->vmcb + VMCB_CLEAN, sizeof(clean));
    clean &= ~dirty;
    memcpy(a->vmcb + VMCB_CLEAN, &clean, sizeof(clean));
    return vapic_sil_vmrun(&a->on->sil, a->vmcb_hpa);
}

static enum vapic_sil_result vmentry(struct vmm_vcpu *v)
{
    struct vapic_sil_vmcs *vmcs = &v->accel->vmcs;
    uint64_t primary = 0;

    vapic_sil_vmread(vmcs, VMCS_PRIMARY_CONTROLS, &primary);
    primary &= ~(uint64_t)VMX_PRI_INTERRUPT_WINDOW;
    vapic_sil_vmwrite(vmcs, VMCS_PRIMARY_CONTROLS,
                      v->accel->window ? primary | VMX_PRI_INTERRUPT_WINDOW : primary);
    vapic_sil_vmwrite(vmcs, VMCS_GUEST_RIP, v->run->s.regs.regs.rip);
    vapic_sil_vmwrite(vmcs, VMCS_GUEST_RFLAGS, 2u | (v->interrupt_flag ? VMX_RFLAGS_IF : 0));
    vapic_sil_vmwrite(vmcs, VMCS_GUEST_INTERRUPTIBILITY, 0); /* boundary() says what KVM says */
    return vapic_sil_vmentry(&v->accel->on->sil, vmcs);
}

static void complain(struct vmm_vcpu *v, enum vapic_sil_result result)
{
    uint64_t error = 0;
    char text[96];

    if (v->machine->accel->intel) {
        vapic_sil_vmread(&v->accel->vmcs, VMCS_INSTRUCTION_ERROR, &error);
        snprintf(text, sizeof(text), "the modelled processor refuses VM entry (%d, error %u)",
                 (int)result, (unsigned)error);
    } else {
        snprintf(text, sizeof(text), "the modelled processor refuses VMRUN (%d)", (int)result);
    }
    vmm_machine_fail(v->machine, v, text);
}

static bool enter_model(struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    struct vmm_accel_vcpu *a = v->accel;
    enum vapic_sil_result result;

    a->cr8 = entry->cr8;
    a->window = entry->irq_window;
    a->ticks[0] = a->on->sil.doorbells_sent;
    a->ticks[1] = a->on->sil.notifications_sent;
    result = v->machine->accel->intel ? vmentry(v) : vmrun(v, entry);
    a->moved = false;
    a->counts.entries++;
    if (result != VAPIC_SIL_DONE) {
        complain(v, result);
        vapic_exit(&v->apic, a->cr8, true);
        return false;
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------- */
/* Between two instructions                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/* What the boundary showed: run the guest on, or look again. */
enum next { NEXT_RUN, NEXT_LOOK };

static enum vapic_sil_result boundary(struct vmm_vcpu *v, bool open, uint8_t *vector)
{
    struct vapic_sil_cpu *sil = &v->accel->on->sil;

    sil->guest.interrupt_flag = v->interrupt_flag;
    sil->guest.shadow = !open;
    return vapic_sil_boundary(sil, vector);
}

static void deliver(struct vmm_vcpu *v, uint8_t vector)
{
    v->accel->counts.delivered++;
    if (v->machine->vectors != NULL) {
        v->machine->vectors[v->index][vector]++;
    }
    vmm_vcpu_queue_interrupt(v, vector);
}

static enum next open_window(struct vmm_vcpu *v)
{
    uint8_t vector = 0;

    switch (boundary(v, true, &vector)) {
    case VAPIC_SIL_DELIVER:
        deliver(v, vector);
        return NEXT_LOOK;
    case VAPIC_SIL_EXIT:
        vmm_accel_exited(v);
        return NEXT_LOOK;
    default:
        return NEXT_RUN;
    }
}

/* Says in `watch` whether the next KVM_RUN shall end when the window opens. */
static enum next settle(struct vmm_vcpu *v)
{
    uint8_t vector;

    v->accel->watch = false;
    if (boundary(v, false, &vector) == VAPIC_SIL_EXIT) {
        vmm_accel_exited(v);
        return NEXT_LOOK;
    }
    if (!vapic_sil_waiting(&v->accel->on->sil)) {
        return NEXT_RUN;
    }
    if (v->incomplete && v->interrupt_flag) {
        vmm_vcpu_finish(v);
        return NEXT_LOOK;
    }
    if (!v->irq_ready) {
        v->accel->watch = true;
        return NEXT_RUN;
    }
    if (vmm_shadow_before_hlt(v)) {
        v->held = true; /* until HLT has exited */
        v->irq_ready = false;
        return NEXT_RUN;
    }
    return open_window(v);
}

/* ---------------------------------------------------------------------------------------------- */
/* The loop                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

static void run_kvm(struct vmm_vcpu *v)
{
    int rc = vmm_vcpu_run(v, v->accel->cr8, v->accel->watch);
    int error = errno;

    vmm_accel_cr8_now(v, (uint8_t)v->run->cr8);
    if (rc == 0) {
        vmm_accel_between(v);
        vmm_vcpu_exit(v);
    } else if (error == EINTR || error == EAGAIN) {
        v->stats.exits[VMM_EXIT_KICK]++;
    } else {
        vmm_machine_fail(v->machine, v, strerror(error));
    }
}

void vmm_accel_run(struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    struct vmm_accel_vcpu *a = v->accel;

    atomic_store(&a->running, true);
    if (enter_model(v, entry)) {
        while (a->on->sil.in_guest) {
            __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_RELAXED);
            if (atomic_load(&a->leave) || vmm_machine_wants(v->machine)) {
                vmm_accel_leave(v, VMM_ACCEL_EXIT_INTERRUPT);
            } else if (settle(v) == NEXT_RUN) {
                run_kvm(v);
            }
        }
    }
    atomic_store(&a->running, false);
}
