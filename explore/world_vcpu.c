/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's thread: the run loop of docs/embedding.md and docs/acceleration.md around the program of
 * a guest. The guest's instructions go through the model of the silicon; without a back end each
 * one that concerns the APIC exits. What is delivered goes to the reference (properties.c).
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"
#include "vapic/nested.h"

#include <string.h>

static void fail(enum ex_property_id id, const struct world_vcpu *v, const char *what)
{
    ex_fail(ex_properties[id].name, "vCPU %u: %s", v->n, what);
}

/* ---- What the guest does next ---- */

enum next {
    NEXT_INSN,  /* an instruction for the silicon or the library */
    NEXT_AGAIN, /* done already: look at the boundary */
    NEXT_WAIT,  /* a loop that waits for an interrupt */
    NEXT_LEAVE, /* an instruction that exits for reasons of its own */
};

static struct insn write_register(const struct world_vcpu *v, uint32_t offset, uint64_t value)
{
    if (v->x2apic)
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

    if (v->x2apic) {
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
    if (v->ref.taken[(uint8_t)v->op->a] >= v->op->b) {
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

static const struct world_op the_end = {.kind = WORLD_END};

static enum next next(struct world_vcpu *v, struct insn *insn)
{
    const struct world_op *op = v->op;

    if (v->service != 0)
        return NEXT_LEAVE;
    if (v->eois != 0)
        return eoi(v, insn);
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

    if (v->eois != 0)
        return;
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
            ex_fail(ex_properties[EX_PROPERTY_ACCESS].name,
                    "vCPU %u: register %03Xh reads %08llX, should be %08llX", v->n, op->a,
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

/* It is complete, by whomever. */
static void end_insn(struct world_vcpu *v, const struct insn *insn)
{
    if (v->eois != 0) {
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

/* ---- Exits ---- */

static enum handled result_of(int result)
{
    return result == VAPIC_OK ? HANDLED_DONE : HANDLED_GP;
}

static enum handled emulate_mmio(struct world_vcpu *v, struct insn *insn)
{
    uint32_t offset = (uint32_t)(insn->address & (PAGE - 1)), value = (uint32_t)insn->value;

    /* Another address, or an APIC that is not there: memory that nobody looks at. */
    if (!vapic_mmio_claims(&v->apic, insn->address))
        return HANDLED_DONE;
    if (insn->write) {
        vapic_mmio_write(&v->apic, offset, &value, sizeof(value), world_now(v->w));
        return HANDLED_DONE;
    }
    vapic_mmio_read(&v->apic, offset, &value, sizeof(value), world_now(v->w));
    insn->value = value;
    return HANDLED_DONE;
}

enum handled world_emulate(struct world_vcpu *v, struct insn *insn)
{
    uint32_t msr = (uint32_t)insn->address;

    switch (insn->kind) {
    case INSN_MMIO:
        return emulate_mmio(v, insn);
    case INSN_MSR:
        if (insn->write)
            return result_of(vapic_msr_write(&v->apic, msr, insn->value, world_now(v->w)));
        return result_of(vapic_msr_read(&v->apic, msr, &insn->value, world_now(v->w)));
    case INSN_CR8:
        if (insn->write)
            return result_of(vapic_write_cr8(&v->apic, insn->value));
        insn->value = vapic_read_cr8(&v->apic);
        return HANDLED_DONE;
    case INSN_HLT:
        break;
    }
    vapic_halt(&v->apic);
    return HANDLED_DONE;
}

static void serve_devices(struct world_vcpu *v)
{
    for (uint32_t i = 0; i < WORLD_PINS; i++) {
        if (!(v->service >> i & 1) || ++v->ref.served[i] < v->w->spec->pin[i].services)
            continue;
        v->ref.served[i] = 0;
        world_line(v->w, i, false);
    }
    v->service = 0;
}

static void pv_ipi(struct world_vcpu *v)
{
    struct vapic_pv_call call = {
        .number = VAPIC_PV_CALL_SEND_IPI, .arg = {v->op->b, 0, 0, v->op->a}, .long_mode = true};
    int64_t accepted = 0;

    world_sent(v->w, v->op, (uint8_t)v->op->a);
    if (vapic_pv_hypercall(&v->apic, &call, &accepted) != VAPIC_OK)
        fail(EX_PROPERTY_FAULT, v, "the hypercall fails");
}

static void stop(struct world_vcpu *v)
{
    if (v->w->vendor != NULL && v->cpu != NULL)
        vapic_put(&v->apic);
    ex_write(&v->stopped, 1, "stops");
}

static void enter_l2(struct world_vcpu *v)
{
    ex_note("L2");
    v->w->vendor->create_l2(v);
    v->l2 = true;
    vapic_nested_enter(&v->apic, NULL);
}

/* What the guest asked for by an exit of its own. */
static void serve_exit(struct world_vcpu *v)
{
    if (v->service != 0) {
        serve_devices(v);
        return;
    }
    switch ((enum world_op_kind)v->op->kind) {
    case WORLD_L2:
        enter_l2(v);
        break;
    case WORLD_PV_IPI:
        pv_ipi(v);
        break;
    case WORLD_RESET:
        vapic_reset(&v->apic);
        world_forgotten(v);
        v->x2apic = false;
        break;
    case WORLD_STOP:
        stop(v);
        return;
    default:
        return; /* STI with a window asked for */
    }
    v->op++;
}

/* What the guest did not get is chosen anew. An ExtINT cannot go back to the 8259: it is kept. */
static void after_exit(struct world_vcpu *v)
{
    const struct world_vendor *vendor = v->w->vendor;
    bool taken = v->injected == VAPIC_INJECT_NONE;
    uint8_t cr8 = vendor != NULL ? vendor->cr8(v) : (uint8_t)vapic_read_cr8(&v->apic);

    vapic_exit(&v->apic, cr8, taken);
    ex_add(&v->outside, 1, "exit");
    if (taken || v->injected == VAPIC_INJECT_EXTINT)
        return;
    vapic_not_delivered(&v->apic);
    v->injected = VAPIC_INJECT_NONE;
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
            fail(EX_PROPERTY_PAGE, v, "in x2APIC mode, writes its TPR by MMIO");
        end_insn(v, insn);
        return false;
    case VAPIC_SIL_EXIT:
        return true;
    case VAPIC_SIL_NATIVE:
        fail(EX_PROPERTY_NATIVE, v, "an access reaches the host's APIC");
        break;
    case VAPIC_SIL_GP:
        fail(EX_PROPERTY_FAULT, v, "#GP");
        break;
    default:
        fail(EX_PROPERTY_FAULT, v, "the silicon takes no instruction");
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

enum exited {
    EXIT_BOUNDARY, /* nothing was under way */
    EXIT_INSN,     /* the instruction's */
    EXIT_OWN,      /* the guest asked for it */
};

static enum exited in_guest(struct world_vcpu *v, struct insn *insn)
{
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
        what = look_again ? NEXT_LEAVE : v->l2 ? NEXT_WAIT : next(v, insn);
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

/* ---- The run loop ---- */

static uint32_t can(const struct world_vcpu *v)
{
    if (v->injected != VAPIC_INJECT_NONE) /* the slot is not free */
        return VAPIC_CAN_INIT | (v->guest_if ? VAPIC_IF : 0);
    return VAPIC_CAN_INIT | VAPIC_CAN_NMI | (v->guest_if ? VAPIC_CAN_IRQ | VAPIC_IF : 0);
}

void world_load(struct world_vcpu *v, uint32_t cpu)
{
    struct world *w = v->w;

    v->cpu = &w->cpu[cpu];
    ex_write(&v->where, cpu + 1, "runs on");
    vapic_load(&v->apic, &w->pcpu[cpu]);
}

static void put(struct world_vcpu *v)
{
    struct vapic_sil_cpu *cpu = v->cpu;

    vapic_put(&v->apic);
    ex_write(&v->where, NOWHERE, "runs nowhere");
    v->cpu = NULL;
    world_take_interrupts(v->w, cpu); /* of the processor that it leaves */
}

static bool has_orders(void *arg)
{
    return ex_read(&((struct world_vcpu *)arg)->order, "orders?") != 0;
}

/* The scheduler's orders are carried out on the vCPU's own thread, outside the guest. */
static void obey_scheduler(struct world_vcpu *v)
{
    uint32_t order;

    while (v->scheduled) {
        if (v->cpu == NULL) {
            world_call_end(v->w);
            ex_wait(has_orders, v, "no processor");
            world_call_begin(v->w);
        }
        order = ex_swap(&v->order, 0, "orders?");
        if (order == 0)
            return;
        if (v->cpu != NULL)
            put(v);
        if (order != ORDER_PUT)
            world_load(v, order - 1);
    }
}

static bool sleep_is_over(void *arg)
{
    struct world_vcpu *v = arg;

    return ex_read(&v->woken, "woken?") != 0 || (v->cpu != NULL && world_cpu_pending(v->cpu));
}

static void leave_processor(struct world_vcpu *v)
{
    vapic_put(&v->apic);
    ex_write(&v->where, NOWHERE, "runs nowhere");
    v->cpu = NULL;
}

static void sleep_until_woken(struct world_vcpu *v)
{
    bool off_cpu = (v->spec->flags & W_OFF_CPU) != 0;

    obey_scheduler(v); /* preempted since it looked whether it may sleep */
    ex_write(&v->woken, 0, "not woken");
    if (!vapic_block(&v->apic))
        return;
    if (off_cpu)
        leave_processor(v);
    v->asleep = true;
    world_call_end(v->w);
    ex_may_end(true);
    for (;;) {
        ex_wait(sleep_is_over, v, "sleeps");
        if (ex_read(&v->woken, "woken?"))
            break;
        world_take_interrupts(v->w, v->cpu);
    }
    ex_may_end(false);
    world_call_begin(v->w);
    v->asleep = false;
    if (off_cpu)
        world_load(v, WORLD_CPUS - 1);
    vapic_unblock(&v->apic);
}

static uint8_t fetch_extint(struct world_vcpu *v)
{
    vapic_set_lint(&v->apic, 0, false);
    return v->lint0;
}

static void inject(struct world_vcpu *v)
{
    if (v->entry.inject == VAPIC_INJECT_NONE)
        return;
    if (v->entry.inject == VAPIC_INJECT_EXTINT)
        v->extint = fetch_extint(v);
    vapic_commit(&v->apic, &v->entry);
    v->injected = (uint8_t)v->entry.inject;
}

/* An interrupt for L1 ends L2. */
static bool leave_l2(struct world_vcpu *v)
{
    if (!v->l2 || (v->entry.inject == VAPIC_INJECT_NONE && !v->entry.irq_window))
        return false;
    vapic_exit(&v->apic, v->entry.cr8, true);
    ex_add(&v->outside, 1, "exit");
    v->l2 = false;
    vapic_nested_exit(&v->apic);
    ex_note("L1");
    return true;
}

/*
 * The host's interrupts go off here. What came before was taken by the host: a kick is over, and
 * its sender waits for this vCPU to be outside; a notification did nothing. What comes from here on
 * stays pending for the guest.
 */
static bool entry_is_stale(struct world_vcpu *v)
{
    bool kicked = world_take_interrupts(v->w, v->cpu);

    return kicked || (v->w->vendor == &world_intel && vapic_posted(&v->apic));
}

static void handle(struct world_vcpu *v, enum exited why, struct insn *insn)
{
    enum handled result = HANDLED_RETRY;

    if (why == EXIT_OWN) {
        serve_exit(v);
        return;
    }
    if (v->w->vendor != NULL)
        result = v->w->vendor->exit(v, why == EXIT_INSN ? insn : NULL);
    else if (why == EXIT_INSN)
        result = world_emulate(v, insn);
    if (result == HANDLED_GP)
        fail(EX_PROPERTY_FAULT, v, "#GP");
    if (result == HANDLED_DONE && why == EXIT_INSN)
        end_insn(v, insn);
}

static enum exited run(struct world_vcpu *v, struct insn *insn)
{
    enum vapic_sil_result result;
    enum exited why;

    ex_barrier("VM entry");
    if (v->w->vendor != NULL) {
        world_check_entry(v);
        result = v->w->vendor->enter(v);
        if (result != VAPIC_SIL_DONE)
            fail(EX_PROPERTY_ENTRY, v, "the VM entry fails");
    }
    world_call_end(v->w);
    why = v->w->vendor != NULL ? in_guest(v, insn) : in_software(v, insn);
    world_call_begin(v->w);
    ex_barrier("VM exit");
    return why;
}

static void turn(struct world_vcpu *v)
{
    struct insn insn = {0};
    enum exited why;

    obey_scheduler(v);
    vapic_enter(&v->apic, can(v), world_now(v->w), &v->entry);
    if (v->entry.event != VAPIC_CPU_NONE) {
        if (v->entry.event == VAPIC_CPU_INIT)
            world_forgotten(v);
        return;
    }
    if (!v->entry.runnable) {
        sleep_until_woken(v);
        return;
    }
    if (leave_l2(v))
        return;
    inject(v);
    if (v->w->vendor != NULL && entry_is_stale(v)) {
        after_exit(v);
        return;
    }
    why = run(v, &insn);
    after_exit(v);
    world_take_interrupts(v->w, v->cpu);
    handle(v, why, &insn);
}

static bool exists(void *arg)
{
    return ex_read(&((struct world_vcpu *)arg)->exists, "exists?") != 0;
}

void world_vcpu_main(void *arg)
{
    struct world_vcpu *v = arg;

    if (v->op == NULL)
        v->op = &the_end;
    if (v->spec->flags & W_ABSENT) {
        ex_wait(exists, v, "not created yet");
        if (v->w->vendor != NULL)
            world_load(v, v->n);
    }
    while (!v->stopped) {
        world_call_begin(v->w);
        turn(v);
        world_call_end(v->w);
    }
}

void world_leave(struct world_vcpu *v)
{
    if (v->cpu != NULL && v->cpu->in_guest)
        vapic_sil_leave(v->cpu, v->w->vendor->leave_code, 0, LENGTH);
    if (vapic_in_guest(&v->apic))
        after_exit(v);
}
