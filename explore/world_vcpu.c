/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's thread: the run loop of docs/embedding.md and docs/acceleration.md around its guest
 * (world_guest.c): processors, sleep, injection, and what a hypervisor does at an exit.
 */
#include "world_parts.h"

#include "vapic/nested.h"

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
        EX_BROKEN(FAULT, "vCPU %u: the hypercall fails", v->n);
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
    if (world_serve_l1(v))
        return;
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
    if (in_l2(v))
        vapic_nested_ran(&v->apic);
    ex_write(&v->watched, 0, "exit");
    if (taken || v->injected == VAPIC_INJECT_EXTINT)
        return;
    vapic_not_delivered(&v->apic);
    v->injected = VAPIC_INJECT_NONE;
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
    if (!v->l2 || in_l2(v) || (v->entry.inject == VAPIC_INJECT_NONE && !v->entry.irq_window))
        return false;
    vapic_exit(&v->apic, v->entry.cr8, true);
    ex_write(&v->watched, 0, "exit");
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
    if (in_l2(v))
        result = world_exit_l2(v, why == EXIT_INSN ? insn : NULL);
    else if (v->w->vendor != NULL)
        result = v->w->vendor->exit(v, why == EXIT_INSN ? insn : NULL);
    else if (why == EXIT_INSN)
        result = world_emulate(v, insn);
    if (result == HANDLED_GP)
        EX_BROKEN(FAULT, "vCPU %u: #GP", v->n);
    if (result == HANDLED_DONE && why == EXIT_INSN)
        world_end_insn(v, insn);
}

static enum exited run(struct world_vcpu *v, struct insn *insn)
{
    enum vapic_sil_result result;
    enum exited why;

    ex_barrier("VM entry");
    if (v->w->vendor != NULL) {
        world_check_entry(v);
        result = in_l2(v) ? world_enter_l2(v) : v->w->vendor->enter(v);
        if (result != VAPIC_SIL_DONE)
            EX_BROKEN(ENTRY, "vCPU %u: the VM entry fails", v->n);
    }
    world_call_end(v->w);
    why = world_run_guest(v, insn);
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
    if (in_l2(v) && world_l2_turn(v))
        return;
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

    if (v->spec->flags & W_IN_L2) {
        world_create_vcpu(v);
        world_start_vcpu(v);
        ex_write(&v->exists, 1, "created");
    }
    if (v->spec->flags & W_ABSENT) {
        ex_wait(exists, v, "not created yet");
        if (v->w->vendor != NULL)
            world_load(v, v->n);
    }
    if (v->spec->flags & W_IN_L2)
        world_restore_l2(v);
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
