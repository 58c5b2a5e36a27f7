/* SPDX-License-Identifier: MIT */
/*
 * A guest from VM entry to VM exit: its program, instruction by instruction, and the interrupts
 * that it takes. What concerns the APIC goes through the model of the silicon; without a back end
 * it exits. What is delivered goes to the reference (properties.c). The run loop (world_vcpu.c)
 * calls it.
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"

#include <string.h>

/* ---- What the guest does next ---- */

static bool uses_msrs(const struct world_vcpu *v)
{
    return in_l2(v) ? v->l2s.x2 : v->x2apic;
}

static struct insn write_register(const struct world_vcpu *v, uint32_t offset, uint64_t value)
{
    if (uses_msrs(v))
        return (struct insn){INSN_MSR, true, MSR_X2APIC_FIRST + (offset >> 4), value};
    return (struct insn){INSN_MMIO, true, APIC_DEFAULT_BASE + offset, value};
}

static struct insn read_register(const struct world_vcpu *v, uint32_t offset)
{
    struct insn insn = write_register(v, offset, 0);

    insn.write = false;
    return insn;
}

static uint32_t destination(const struct world_vcpu *v, const struct world_op *op)
{
    if (op->a & (APIC_ICR_LOGICAL | APIC_ICR_SHORTHAND))
        return (uint32_t)op->b;
    return op->b < WORLD_VCPUS ? v->w->v[op->b].id : (uint32_t)op->b;
}

/* In xAPIC mode two instructions, the destination first, which sends nothing. */
static enum next icr(struct world_vcpu *v, struct insn *insn)
{
    const struct world_op *op = v->op;
    uint32_t dest = destination(v, op), low = op->a | APIC_ICR_ASSERT;

    if (uses_msrs(v)) {
        *insn = write_register(v, APIC_ICR, (uint64_t)dest << 32 | low);
        v->phase = 1;
    } else if (v->phase == 0 && !(op->a & APIC_ICR_SHORTHAND)) {
        *insn = write_register(v, APIC_ICR2, (uint64_t)dest << 24);
        return NEXT_INSN;
    } else {
        *insn = write_register(v, APIC_ICR, low);
        v->phase = 1;
    }
    return NEXT_INSN;
}

static enum next await(struct world_vcpu *v, struct insn *insn)
{
    const uint8_t *taken = in_l2(v) ? v->l2s.taken : v->ref.taken;

    if (taken[(uint8_t)v->op->a] >= v->op->b) {
        v->op++;
        return NEXT_AGAIN;
    }
    *insn = (struct insn){.kind = INSN_HLT};
    return v->op->kind == WORLD_SPIN ? NEXT_WAIT : NEXT_INSN;
}

static enum next set_if(struct world_vcpu *v)
{
    v->guest_if = v->op->b != 0;
    if (v->cpu != NULL && v->cpu->in_guest)
        v->cpu->guest.interrupt_flag = v->guest_if;
    v->op++;
    return v->entry.irq_window && v->w->vendor == NULL ? NEXT_LEAVE : NEXT_AGAIN;
}

static enum next eoi(struct world_vcpu *v, struct insn *insn)
{
    if (v->spec->flags & W_PV && ex_swap(&v->pv_word, 0, "PV EOI") & 1) {
        v->eois -= v->eois != 0;
        world_ended(v);
        return NEXT_AGAIN;
    }
    *insn = write_register(v, APIC_EOI, 0);
    return NEXT_INSN;
}

static enum next idle(struct world_vcpu *v, struct insn *insn)
{
    *insn = (struct insn){.kind = INSN_HLT};
    return v->spec->flags & W_SPINS ? NEXT_WAIT : NEXT_INSN;
}

static enum next next(struct world_vcpu *v, struct insn *insn)
{
    const struct world_op *op = v->op;

    if (v->service != 0)
        return NEXT_LEAVE;
    if (in_l2(v) ? v->l2s.eois != 0 : v->eois != 0)
        return eoi(v, insn);
    if (world_l1_leaves(v))
        return NEXT_LEAVE;
    switch ((enum world_op_kind)op->kind) {
    case WORLD_END:
        return idle(v, insn);
    case WORLD_WRITE:
        *insn = write_register(v, op->a, op->b);
        return NEXT_INSN;
    case WORLD_READ:
        *insn = read_register(v, op->a);
        return NEXT_INSN;
    case WORLD_WRMSR:
        *insn = (struct insn){INSN_MSR, true, op->a, op->b};
        return NEXT_INSN;
    case WORLD_MODE:
        *insn = (struct insn){INSN_MSR, true, MSR_APIC_BASE,
                              APIC_DEFAULT_BASE | (v->n == 0 ? APIC_BASE_BSP : 0) | op->b};
        return NEXT_INSN;
    case WORLD_ICR:
        return icr(v, insn);
    case WORLD_CR8:
        *insn = (struct insn){INSN_CR8, true, 0, op->b};
        return NEXT_INSN;
    case WORLD_IF:
        return set_if(v);
    case WORLD_HLT:
        *insn = (struct insn){.kind = INSN_HLT};
        return NEXT_INSN;
    case WORLD_AWAIT:
    case WORLD_SPIN:
        return await(v, insn);
    case WORLD_EOI:
        return eoi(v, insn);
    case WORLD_PROBE:
        *insn = (struct insn){INSN_MMIO, true, APIC_DEFAULT_BASE + APIC_TPR, op->a};
        return NEXT_INSN;
    default:
        return NEXT_LEAVE; /* L2, PV_IPI, RESET, STOP */
    }
}

/* Whom a shorthand means may just be changing. */
static void nmi_sent(struct world_vcpu *v, const struct world_op *op)
{
    uint32_t shorthand = op->a & APIC_ICR_SHORTHAND;

    for (uint32_t n = 0; n < v->w->spec->vcpu_count; n++)
        if (shorthand && n != v->n)
            v->w->v[n].ref.nmis_may++;
        else if (!shorthand && op->b == n)
            v->w->v[n].ref.nmis_sent++;
}

/* Before the instruction: whatever it sends may arrive from now on. */
static void begin_insn(struct world_vcpu *v)
{
    const struct world_op *op = v->op;

    if (in_l2(v) ? v->l2s.eois != 0 : v->eois != 0)
        return;
    if (in_l2(v)) {
        world_l2_sent(v, op);
        return;
    }
    if (op->kind == WORLD_ICR && v->phase == 1) {
        if ((op->a & APIC_ICR_DM) == APIC_DM_NMI)
            nmi_sent(v, op);
        world_sent(v->w, op, (uint8_t)op->a);
        v->phase = 2; /* sent; a retry sends nothing new */
    } else if (op->kind == WORLD_WRITE && op->to != 0 && v->phase == 0) {
        world_sent(v->w, op, (uint8_t)op->mask);
        v->phase = 2;
    }
}

static void finish_op(struct world_vcpu *v, const struct insn *insn)
{
    const struct world_op *op = v->op;

    switch ((enum world_op_kind)op->kind) {
    case WORLD_READ:
        if ((insn->value ^ op->b) & op->mask)
            EX_BROKEN(ACCESS, "vCPU %u: register %03Xh reads %08llX, should be %08llX", v->n, op->a,
                      (unsigned long long)insn->value, (unsigned long long)op->b);
        break;
    case WORLD_WRITE:
        if (op->a == APIC_TPR)
            v->ref.tpr = (uint8_t)op->b;
        break;
    case WORLD_CR8:
        v->ref.tpr = (uint8_t)(op->b << 4);
        break;
    case WORLD_EOI:
        world_ended(v);
        break;
    case WORLD_MODE:
        v->x2apic = (op->b & APIC_BASE_EXTD) != 0;
        v->off = !(op->b & APIC_BASE_EN);
        break;
    default:
        break;
    }
    if (op->kind == WORLD_AWAIT || op->kind == WORLD_END)
        return; /* HLT: again, unless the condition holds */
    if (op->kind == WORLD_ICR && v->phase == 0) {
        v->phase = 1;
        return;
    }
    v->phase = 0;
    v->op++;
}

void world_end_insn(struct world_vcpu *v, const struct insn *insn)
{
    if (in_l2(v) && v->l2s.eois != 0) {
        v->l2s.eois--;
        return;
    }
    if (!in_l2(v) && v->eois != 0) {
        v->eois--;
        world_ended(v);
        return;
    }
    finish_op(v, insn);
}

/* ---- Interrupts that the guest takes ---- */

static void handler(struct world_vcpu *v, uint8_t vector)
{
    for (uint32_t i = 0; i < WORLD_PINS; i++)
        if (v->w->spec->pin[i].vector == vector && v->w->spec->pin[i].services != 0)
            v->service |= (uint8_t)(1u << i);
    if (!(v->spec->flags & W_BY_HAND))
        v->eois++;
}

static void delivered(struct world_vcpu *v, uint8_t vector)
{
    if (in_l2(v)) {
        world_l2_delivered(v, vector);
        return;
    }
    if (v->injected == VAPIC_INJECT_NMI) {
        v->ref.nmis++;
        ex_note("takes NMI");
    } else if (v->injected == VAPIC_INJECT_EXTINT) {
        v->ref.extints++;
        v->extint = 0;
        ex_note("takes ExtINT %02Xh", vector);
    } else {
        ex_note("takes %02Xh", vector);
        world_delivered(v, vector);
        handler(v, vector);
    }
    v->injected = VAPIC_INJECT_NONE;
    ex_add(&v->deliveries, 1, "takes an interrupt");
}

/* ---- In the guest, on silicon ---- */

static enum vapic_sil_result do_access(struct world_vcpu *v, struct insn *insn)
{
    struct vapic_sil_access access = {
        .gpa = insn->address,
        .kind = insn->write ? VAPIC_SIL_WRITE : VAPIC_SIL_READ,
        .size = 4,
        .length = LENGTH,
        .value = insn->value,
    };
    enum vapic_sil_result result = vapic_sil_access(v->cpu, &access);

    if (result == VAPIC_SIL_DONE)
        insn->value = access.value;
    return result;
}

static enum vapic_sil_result perform(struct world_vcpu *v, struct insn *insn)
{
    switch (insn->kind) {
    case INSN_MMIO:
        return do_access(v, insn);
    case INSN_MSR:
        if (insn->write)
            return vapic_sil_wrmsr(v->cpu, (uint32_t)insn->address, insn->value);
        return vapic_sil_rdmsr(v->cpu, (uint32_t)insn->address, &insn->value);
    case INSN_CR8:
        return vapic_sil_write_cr8(v->cpu, insn->value);
    case INSN_HLT:
        break;
    }
    return vapic_sil_hlt(v->cpu);
}

static uint32_t tpr_in_page(const struct world_vcpu *v)
{
    uint32_t value;

    memcpy(&value, v->page + APIC_TPR, sizeof(value));
    return value;
}

/* True: the exit that the silicon took is this instruction's. */
static bool execute(struct world_vcpu *v, struct insn *insn)
{
    bool probe = v->eois == 0 && v->op->kind == WORLD_PROBE;
    uint32_t before = tpr_in_page(v);

    begin_insn(v);
    switch (perform(v, insn)) {
    case VAPIC_SIL_DONE:
        if (probe && tpr_in_page(v) != before)
            EX_BROKEN(PAGE, "vCPU %u: in x2APIC mode, writes its TPR by MMIO", v->n);
        world_end_insn(v, insn);
        return false;
    case VAPIC_SIL_EXIT:
        return true;
    case VAPIC_SIL_NATIVE:
        EX_BROKEN(NATIVE, "vCPU %u: an access reaches the host's APIC", v->n);
        break;
    case VAPIC_SIL_GP:
        EX_BROKEN(FAULT, "vCPU %u: #GP", v->n);
        break;
    default:
        EX_BROKEN(FAULT, "vCPU %u: the silicon takes no instruction", v->n);
        break;
    }
    return false;
}

/* Something reached the processor: a doorbell, or an interrupt. */
static bool cpu_called(void *arg)
{
    struct world_vcpu *v = arg;

    return ex_read(&v->cpu->doorbell, "doorbell?") != 0 || world_cpu_pending(v->cpu);
}

static bool was_kicked(void *arg)
{
    return ex_read(&((struct world_vcpu *)arg)->kicked, "kicked?") != 0;
}

/* The guest loops. Nothing is looked at before something reaches the processor. */
static void loop_in_guest(struct world_vcpu *v)
{
    v->spinning = true;
    ex_may_end(true);
    ex_wait(v->w->vendor != NULL ? cpu_called : was_kicked, v, "the guest loops");
    ex_may_end(false);
    v->spinning = false;
}

static enum exited in_guest(struct world_vcpu *v, struct insn *insn)
{
    if (in_l2(v) && v->entry.nested == VAPIC_NESTED_SOON) { /* a self-IPI is pending */
        vapic_sil_leave(v->cpu, v->w->vendor->leave_code, 0, LENGTH);
        return EXIT_BOUNDARY;
    }
    for (;;) {
        uint8_t vector = 0;
        enum vapic_sil_result result = vapic_sil_boundary(v->cpu, &vector);
        bool look_again = v->injected != VAPIC_INJECT_NONE && v->entry.nmi_window;
        enum next what;

        if (result == VAPIC_SIL_EXIT)
            return EXIT_BOUNDARY;
        if (result == VAPIC_SIL_DELIVER)
            delivered(v, vector);
        if (result == VAPIC_SIL_DELIVER && !look_again)
            continue;
        what = look_again ? NEXT_LEAVE : v->l2 && !in_l2(v) ? NEXT_WAIT : next(v, insn);
        if (what == NEXT_LEAVE) {
            vapic_sil_leave(v->cpu, v->w->vendor->leave_code, 0, LENGTH);
            return look_again ? EXIT_BOUNDARY : EXIT_OWN;
        }
        if (what == NEXT_WAIT)
            loop_in_guest(v);
        else if (what == NEXT_INSN && execute(v, insn))
            return EXIT_INSN;
    }
}

/* ---- The same without silicon: what is injected is delivered, what concerns the APIC exits ----
 */

static enum exited in_software(struct world_vcpu *v, struct insn *insn)
{
    if (v->injected != VAPIC_INJECT_NONE)
        delivered(v, v->injected == VAPIC_INJECT_EXTINT ? v->extint : v->entry.vector);
    if (v->entry.nmi_window || (v->entry.irq_window && v->guest_if))
        return EXIT_BOUNDARY; /* the window is open */
    for (;;) {
        if (ex_swap(&v->kicked, 0, "kicked?"))
            return EXIT_BOUNDARY;
        switch (next(v, insn)) {
        case NEXT_INSN:
            begin_insn(v);
            return EXIT_INSN;
        case NEXT_LEAVE:
            return EXIT_OWN;
        case NEXT_WAIT:
            loop_in_guest(v);
            break;
        case NEXT_AGAIN:
            break;
        }
    }
}

enum exited world_run_guest(struct world_vcpu *v, struct insn *insn)
{
    return v->w->vendor != NULL ? in_guest(v, insn) : in_software(v, insn);
}
