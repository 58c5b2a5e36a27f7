/* SPDX-License-Identifier: MIT */
/*
 * See nested_fixture.h: L1's software. Between nx_l1_begin() and nx_l1_end() it runs on one of L1's
 * vCPUs; what it wants of the world are instructions there.
 */
#include "nested_fixture_private.h"

#include <string.h>

#define NO_VCPU NX_ANY

int nx_l1_begin(struct nx_l1 *c)
{
    int before = c->nx->on_l1;

    assert_false(c->l2);
    c->nx->on_l1 = (int)c->n;
    return before;
}

void nx_l1_end(struct nx *nx, int before)
{
    nx_written(nx);
    nx->on_l1 = before;
}

static struct nx_l1 *here(struct nx *nx)
{
    assert_true(nx->on_l1 >= 0);
    return nx->l1[nx->on_l1];
}

/* CLI and STI, CLGI and STGI; they nest. */
static void interrupts_off(struct nx_l1 *c)
{
    c->cli++;
    nx_sync_if(c);
}

static void interrupts_on(struct nx_l1 *c)
{
    assert_int_not_equal(c->cli, 0);
    c->cli--;
    nx_sync_if(c);
}

/* ---- Instructions of L1 ---- */

bool nx_l1_take(struct nx *nx, uint32_t l1)
{
    struct nx_l1 *c = nx->l1[l1];

    if (c->stopped || c->cpu == NULL)
        return false;
    if (!c->l2 && !c->blocked)
        return true;
    nx_l1_interrupt(nx, l1, NX_L1_KICK_VECTOR);
    for (uint32_t i = 0; i < 100 && c->l2; i++)
        nx_boundaries(c);
    return !c->l2 && nx_enter_guest(c) == NX_IN;
}

enum nx_result nx_l1_execute(struct nx *nx, uint32_t l1, struct nx_op *op)
{
    struct nx_l1 *c = nx->l1[l1];
    enum nx_result result = NX_RETRY;

    if (!nx_l1_take(nx, l1))
        return NX_STUCK;
    for (uint32_t i = 0; i < 1000 && result == NX_RETRY; i++) {
        if (!nx_boundaries(c))
            return NX_STUCK;
        result = nx_perform(c, op);
    }
    assert_int_not_equal(result, NX_RETRY);
    return result;
}

static bool l1_by_msr(const struct nx *nx, uint32_t l1)
{
    return (vapic_base(&nx->l1[l1]->apic) & APIC_BASE_EXTD) != 0;
}

enum nx_result nx_l1_wrmsr(struct nx *nx, uint32_t l1, uint32_t msr, uint64_t value)
{
    struct nx_op op = {NX_MSR, true, 0, msr, value};

    return nx_l1_execute(nx, l1, &op);
}

enum nx_result nx_l1_rdmsr(struct nx *nx, uint32_t l1, uint32_t msr, uint64_t *value)
{
    struct nx_op op = {NX_MSR, false, 0, msr, 0};
    enum nx_result result = nx_l1_execute(nx, l1, &op);

    *value = op.value;
    return result;
}

static struct nx_op register_op(bool by_msr, uint32_t offset, bool write, uint64_t value)
{
    if (by_msr)
        return (struct nx_op){NX_MSR, write, 0, MSR_X2APIC_FIRST + (offset >> 4), value};
    return (struct nx_op){NX_MMIO, write, 4, APIC_DEFAULT_BASE + offset, value};
}

enum nx_result nx_l1_try_read(struct nx *nx, uint32_t l1, uint32_t offset, uint64_t *value)
{
    struct nx_op op = register_op(l1_by_msr(nx, l1), offset, false, 0);
    enum nx_result result = nx_l1_execute(nx, l1, &op);

    *value = op.value;
    return result;
}

enum nx_result nx_l1_try_write(struct nx *nx, uint32_t l1, uint32_t offset, uint64_t value)
{
    struct nx_op op = register_op(l1_by_msr(nx, l1), offset, true, value);

    return nx_l1_execute(nx, l1, &op);
}

uint32_t nx_l1_read(struct nx *nx, uint32_t l1, uint32_t offset)
{
    uint64_t value = 0;

    assert_int_equal(nx_l1_try_read(nx, l1, offset, &value), NX_DONE);
    return (uint32_t)value;
}

void nx_l1_write(struct nx *nx, uint32_t l1, uint32_t offset, uint64_t value)
{
    assert_int_equal(nx_l1_try_write(nx, l1, offset, value), NX_DONE);
}

void nx_l1_ipi(struct nx *nx, uint32_t l1, uint32_t icr, uint32_t dest)
{
    if (l1_by_msr(nx, l1)) {
        nx_l1_write(nx, l1, APIC_ICR, (uint64_t)dest << 32 | icr);
        return;
    }
    nx_l1_write(nx, l1, APIC_ICR2, (uint64_t)dest << 24);
    nx_l1_write(nx, l1, APIC_ICR, icr);
}

void nx_l1_if(struct nx *nx, uint32_t l1, bool enabled)
{
    nx->l1[l1]->l1_if = enabled;
    nx_sync_if(nx->l1[l1]);
}

/* ---- L1's IDT ---- */

static bool internal(uint8_t vector)
{
    return vector == NX_L1_KICK_VECTOR || vector == NX_L1_NOTIFY_VECTOR ||
           vector == NX_L1_WAKEUP_VECTOR;
}

static void l1_eoi(struct nx_l1 *c, bool in_l2)
{
    struct nx_op op = register_op(l1_by_msr(c->nx, c->n), APIC_EOI, true, 0);

    if (!in_l2) {
        nx_l1_write(c->nx, c->n, APIC_EOI, 0);
        return;
    }
    /* L2 has L1's interrupts, and its APIC: the EOI of its handler comes to L0. */
    nx_leave(c->nx, c->n);
    assert_int_equal(nx_emulate(c, &op), NX_DONE);
}

void nx_l1_handler(struct nx_l1 *c, uint8_t vector, bool in_l2)
{
    struct nx *nx = c->nx;
    enum nx_kind kind = internal(vector) ? NX_L1_INTERNAL : NX_L1_DELIVERED;
    int before;

    nx_log(nx, (struct nx_event){.kind = kind, .n = c->n, .a = vector, .l2 = in_l2});
    c->poked = true;
    if (!internal(vector) && nx->options.l1_manual_eoi)
        return;
    if (in_l2) {
        l1_eoi(c, true);
        return;
    }
    before = nx_l1_begin(c);
    interrupts_off(c);
    l1_eoi(c, false);
    if (vector == NX_L1_WAKEUP_VECTOR && nx->l1_accel != NULL)
        vapic_wakeup(nx->l1_vm, &c->l1_pcpu);
    interrupts_on(c);
    nx_l1_end(nx, before);
}

/* ---- Callbacks of L1's libvapic ---- */

static void l1_lock(void *ctx)
{
    struct nx *nx = ctx;

    assert_false(nx->l1_locked);
    nx->l1_locked = true;
    nx_written(nx);
}

static void l1_unlock(void *ctx)
{
    struct nx *nx = ctx;

    assert_true(nx->l1_locked);
    nx->l1_locked = false;
    nx_written(nx);
}

static void l1_quiesce(void *ctx)
{
    assert_false(((struct nx *)ctx)->l1_locked);
}

static void kick(struct nx *nx, int32_t target)
{
    if (target >= 0)
        nx_l1_ipi(nx, here(nx)->n, APIC_DM_FIXED | APIC_ICR_ASSERT | NX_L1_KICK_VECTOR,
                  vapic_id(&nx->l1[target]->apic));
}

/* A signal to L2 that needs no exit to L1. */
static void ring(struct nx *nx, struct nx_l2_vcpu *c)
{
    uint32_t id;

    if (!vapic_doorbell_id(&c->apic, &id))
        return;
    if (nx->kind == VAPIC_ACCEL_AVIC)
        assert_int_equal(nx_l1_wrmsr(nx, here(nx)->n, AVIC_DOORBELL_MSR, id), NX_DONE);
    else if (nx->options.l2 == NX_L2_APICV) /* no posted interrupts: L2 has to be left */
        kick(nx, c->on);
    else
        nx_l1_ipi(nx, here(nx)->n, APIC_DM_FIXED | APIC_ICR_ASSERT | NX_L1_NOTIFY_VECTOR, id);
}

static void l1_act(struct nx *nx, struct nx_l2_vcpu *c, enum vapic_action action)
{
    if (action == VAPIC_ACTION_NONE || nx->on_l1 < 0) /* nx_new() is still at it */
        return;
    nx_log(nx, (struct nx_event){.kind = NX_L1_NOTIFY, .n = c->n, .a = action});
    nx_written(nx);
    if (action == VAPIC_ACTION_DOORBELL) {
        ring(nx, c);
        return;
    }
    if (action == VAPIC_ACTION_WAKE)
        c->woken = true;
    if (c->on != nx->on_l1)
        kick(nx, c->on);
}

static void l1_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    l1_act(ctx, nx_l2_of(target), action);
}

static uint64_t l1_physical(void *ctx, const void *memory)
{
    return nx_gpa(ctx, memory);
}

/* Whoever waits for a vCPU of L1 waits for L0's scheduler, too. */
static void give_processor(struct nx *nx, struct nx_l1 *c)
{
    for (uint32_t cpu = 0; c->cpu == NULL && cpu < nx->cpu_count; cpu++) {
        bool taken = false;

        for (uint32_t n = 0; n < nx->l1_count; n++)
            taken |= nx->l1[n]->cpu == &nx->cpus[cpu];
        if (!taken)
            nx_schedule(nx, c->n, cpu);
    }
}

static void wait_outside(struct nx *nx, struct nx_l2_vcpu *c)
{
    struct nx_l1 *target = nx->l1[c->on];
    int before = nx->on_l1;

    give_processor(nx, target);
    nx->on_l1 = -1;
    for (uint32_t i = 0; i < 1000 && vapic_in_guest(&c->apic); i++) {
        nx_idle_processors(nx);
        nx_boundaries(target);
    }
    nx->on_l1 = before;
    assert_false(vapic_in_guest(&c->apic));
}

static void l1_kick_all(void *ctx)
{
    struct nx *nx = ctx;

    assert_true(nx->l1_locked);
    nx_log(nx, (struct nx_event){.kind = NX_L1_KICK_ALL, .n = NO_VCPU});
    nx_written(nx);
    for (uint32_t n = 0; n < nx->l2_count; n++) {
        struct nx_l2_vcpu *c = nx->l2[n];

        if (c == NULL || !vapic_in_guest(&c->apic))
            continue;
        assert_int_not_equal(c->on, nx->on_l1);
        kick(nx, c->on);
        wait_outside(nx, c);
    }
}

static void l1_access_page(void *ctx, bool mapped)
{
    struct nx *nx = ctx;

    assert_true(nx->l1_locked);
    nx->l2_page_mapped = mapped;
    for (uint32_t i = 0; i < nx->cpu_count && !mapped; i++)
        vapic_sil_flush(&nx->cpus[i], APIC_DEFAULT_BASE);
}

static void l1_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    nx_l2_of(v)->l1_wants_flush = true;
}

static void l1_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    ((struct nx *)ctx)->vendor->intercept12(nx_l2_of(v), pass);
}

static void l1_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    nx_intel_control12(nx_l2_of(v), field, mask, value);
}

static uint16_t l1_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    return (uint16_t)vmcs_get(&nx_l2_of(v)->vmcs, VMCS_GUEST_INTERRUPT_STATUS);
}

static void l1_spin_lock(void *ctx, uint32_t *word)
{
    struct nx *nx = ctx;

    assert_int_equal(*word, 0);
    *word = 1;
    if (nx->on_l1 >= 0)
        interrupts_off(here(nx));
}

static void l1_spin_unlock(void *ctx, uint32_t *word)
{
    struct nx *nx = ctx;

    assert_int_equal(*word, 1);
    nx_written(nx);
    *word = 0;
    if (nx->on_l1 >= 0)
        interrupts_on(here(nx));
}

const struct vapic_host nx_l1_host = {
    .size = sizeof(struct vapic_host),
    .lock = l1_lock,
    .unlock = l1_unlock,
    .quiesce = l1_quiesce,
    .notify = l1_notify,
    .physical = l1_physical,
    .kick_all = l1_kick_all,
    .access_page = l1_access_page,
    .flush = l1_flush,
    .intercept = l1_intercept,
    .control = l1_control,
    .interrupt_status = l1_status,
    .spin_lock = l1_spin_lock,
    .spin_unlock = l1_spin_unlock,
};

/* ---- L1 runs L2 ---- */

static uint32_t can12(const struct nx_l2_vcpu *c)
{
    uint32_t can = VAPIC_CAN_INIT | (c->guest_if ? VAPIC_IF : 0u);

    return c->guest_if && c->injected == VAPIC_INJECT_NONE ? can | VAPIC_CAN_IRQ : can;
}

static void after_exit12(struct nx_l2_vcpu *c)
{
    bool taken = c->injected == VAPIC_INJECT_NONE;

    c->entered = false;
    vapic_exit(&c->apic, c->nx->vendor->cr8_12(c), taken);
    if (taken)
        return;
    assert_true(vapic_not_delivered(&c->apic));
    c->injected = VAPIC_INJECT_NONE;
}

static void wake12(struct nx_l2_vcpu *c)
{
    if (!c->blocked)
        return;
    c->blocked = false;
    c->woken = false;
    vapic_unblock(&c->apic);
}

/* vapic_enter(), VMRUN. False: it does not run. Interrupts of L1's are held off in between; when
 * VMRUN fails, too, what follows is what follows an exit. */
static bool enter12(struct nx_l1 *l1, struct nx_l2_vcpu *c)
{
    interrupts_off(l1);
    do
        vapic_enter(&c->apic, can12(c), c->nx->now, &c->entry);
    while (c->entry.event != VAPIC_CPU_NONE);
    if (!c->entry.runnable) {
        interrupts_on(l1);
        return false;
    }
    c->entered = true;
    if (c->entry.inject != VAPIC_INJECT_NONE) {
        assert_int_equal(c->entry.inject, VAPIC_INJECT_VECTOR);
        vapic_commit(&c->apic, &c->entry);
        c->injected = VAPIC_INJECT_VECTOR;
    }
    c->nx->vendor->prepare12(c);
    if (c->nx->on_12 != NULL)
        c->nx->on_12(c->nx, l1->n, c);
    nx_written(c->nx);
    nx_vmrun(l1, c->gpa12);
    if (l1->l2)
        return true;
    c->failed = true;
    after_exit12(c);
    interrupts_on(l1);
    return false;
}

static void block12(struct nx_l2_vcpu *c)
{
    if (!c->blocked && vapic_block(&c->apic))
        c->blocked = true;
    else if (!c->blocked)
        c->nx->total++;
}

enum nx_result nx_l1_exited(struct nx_l1 *l1, struct nx_op *op)
{
    struct nx_l2_vcpu *c = nx_current(l1);
    int before = nx_l1_begin(l1);
    enum nx_result result;

    after_exit12(c);
    interrupts_on(l1);
    result = c->nx->vendor->exit12(c, op);
    nx_l1_end(c->nx, before);
    return result;
}

/* The thread of L2's vCPU that L1 has here. True: L2 has been entered. */
static bool run12(struct nx_l1 *l1)
{
    struct nx_l2_vcpu *c = l1->runs >= 0 ? nx_current(l1) : NULL;

    if (c == NULL || c->failed || (c->blocked && !c->woken))
        return false;
    wake12(c);
    if (enter12(l1, c))
        return true;
    if (!c->failed)
        block12(c);
    return false;
}

bool nx_l1_schedule_here(struct nx_l1 *l1)
{
    struct nx_op hlt = {NX_HLT, false, 0, 0, 0};
    struct nx *nx = l1->nx;
    bool entered = false;
    int before;

    if (!nx_boundaries(l1)) {
        if (!l1->l2 && !l1->stopped && l1->cpu != NULL)
            nx_block(l1);
        return false;
    }
    before = nx_l1_begin(l1);
    l1->poked = false;
    entered = run12(l1);
    if (!entered && !l1->poked && !(l1->runs >= 0 && nx_current(l1)->woken))
        assert_int_equal(nx_l1_execute(nx, l1->n, &hlt), NX_DONE);
    nx_l1_end(nx, before);
    if (!entered && !nx_boundaries(l1) && !l1->l2 && !l1->stopped && l1->cpu != NULL)
        nx_block(l1);
    return entered;
}

/* ---- Instructions of L2 ---- */

/* The HLT of L2's idle loop ended without an interrupt for L2 (one of L1's has ended it: AMD has no
 * activity state that would be kept): L2 executes it again. */
static void halt_again(struct nx_l1 *l1)
{
    struct nx_op hlt = {NX_HLT, false, 0, 0, 0};

    nx_perform(l1, &hlt);
}

/* L2's vCPU is in the guest, with nothing to deliver. */
static bool ready(struct nx *nx, struct nx_l2_vcpu *c)
{
    for (uint32_t i = 0; i < 1000; i++) {
        struct nx_l1 *l1 = c->on >= 0 ? nx->l1[c->on] : NULL;

        if (l1 == NULL || c->failed || l1->stopped || l1->cpu == NULL ||
            (l1->blocked && !l1->woken))
            return false;
        if (!l1->l2) {
            if (!nx_l1_schedule_here(l1) && l1->blocked)
                return false;
            continue;
        }
        if (nx_boundaries(l1)) {
            if (!c->idle)
                return true;
            halt_again(l1);
            continue;
        }
        if (l1->l2 && !l1->stopped) {
            nx_block(l1);
            if (l1->blocked)
                return false;
        }
    }
    fail_msg("L2's vCPU %u does not get into the guest", c->n);
    return false;
}

enum nx_result nx_l2_execute(struct nx *nx, uint32_t l2, struct nx_op *op)
{
    struct nx_l2_vcpu *c = nx->l2[l2];
    enum nx_result result = NX_RETRY;

    for (uint32_t i = 0; i < 1000 && result == NX_RETRY; i++) {
        if (!ready(nx, c))
            return NX_STUCK;
        result = nx_perform(nx->l1[c->on], op);
    }
    assert_int_not_equal(result, NX_RETRY);
    if (op->kind == NX_HLT)
        c->idle = true;
    return result;
}

static bool l2_by_msr(const struct nx *nx, uint32_t l2)
{
    return nx->options.pass_through ? l1_by_msr(nx, (uint32_t)nx->l2[l2]->on)
                                    : (vapic_base(&nx->l2[l2]->apic) & APIC_BASE_EXTD) != 0;
}

enum nx_result nx_l2_try_read(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t *value)
{
    struct nx_op op = register_op(l2_by_msr(nx, l2), offset, false, 0);
    enum nx_result result = nx_l2_execute(nx, l2, &op);

    *value = op.value;
    return result;
}

enum nx_result nx_l2_try_write(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t value)
{
    struct nx_op op = register_op(l2_by_msr(nx, l2), offset, true, value);

    return nx_l2_execute(nx, l2, &op);
}

uint32_t nx_l2_read(struct nx *nx, uint32_t l2, uint32_t offset)
{
    uint64_t value = 0;

    assert_int_equal(nx_l2_try_read(nx, l2, offset, &value), NX_DONE);
    return (uint32_t)value;
}

void nx_l2_write(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t value)
{
    assert_int_equal(nx_l2_try_write(nx, l2, offset, value), NX_DONE);
}

uint8_t nx_l2_read_cr8(struct nx *nx, uint32_t l2)
{
    struct nx_op op = {NX_CR8, false, 0, 0, 0};

    assert_int_equal(nx_l2_execute(nx, l2, &op), NX_DONE);
    return (uint8_t)op.value;
}

void nx_l2_write_cr8(struct nx *nx, uint32_t l2, uint8_t value)
{
    struct nx_op op = {NX_CR8, true, 0, 0, value};

    assert_int_equal(nx_l2_execute(nx, l2, &op), NX_DONE);
}

void nx_l2_hlt(struct nx *nx, uint32_t l2)
{
    struct nx_op op = {NX_HLT, false, 0, 0, 0};

    assert_int_equal(nx_l2_execute(nx, l2, &op), NX_DONE);
}

void nx_l2_eoi(struct nx *nx, uint32_t l2)
{
    nx_l2_write(nx, l2, APIC_EOI, 0);
}

void nx_l2_ipi(struct nx *nx, uint32_t l2, uint32_t icr, uint32_t dest)
{
    if (l2_by_msr(nx, l2)) {
        nx_l2_write(nx, l2, APIC_ICR, (uint64_t)dest << 32 | icr);
        return;
    }
    nx_l2_write(nx, l2, APIC_ICR2, (uint64_t)dest << 24);
    nx_l2_write(nx, l2, APIC_ICR, icr);
}

/* A window that L0 or L1 waits for is noticed as it opens. */
void nx_l2_if(struct nx *nx, uint32_t l2, bool enabled)
{
    struct nx_l2_vcpu *c = nx->l2[l2];
    struct nx_l1 *l1 = c->on >= 0 ? nx->l1[c->on] : NULL;

    c->guest_if = enabled;
    if (l1 == NULL || !l1->l2)
        return;
    nx_sync_if(l1);
    if (enabled && l1->entered && l1->entry.irq_window)
        nx_leave(nx, l1->n);
}

/* ---- Running ---- */

static void end_interrupts(struct nx *nx, struct nx_l2_vcpu *c)
{
    for (; c->owes > 0 && ready(nx, c); c->owes--)
        nx_l2_eoi(nx, c->n);
}

void nx_run(struct nx *nx, uint32_t l1)
{
    struct nx_l1 *c = nx->l1[l1];

    if (c->stopped || c->cpu == NULL || (c->blocked && !c->woken))
        return;
    if (!c->l2 && !nx_l1_schedule_here(c))
        return;
    if (!nx_boundaries(c)) {
        if (c->l2 && !c->stopped)
            nx_block(c);
        else
            nx->total++;
        return;
    }
    if (c->l2 && nx_current(c)->owes > 0)
        end_interrupts(nx, nx_current(c));
    else if (c->l2 && nx_current(c)->idle)
        halt_again(c);
}

void nx_settle(struct nx *nx)
{
    uint64_t before;
    uint32_t rounds = 0;

    do {
        before = nx->total;
        for (uint32_t n = 0; n < nx->l1_count; n++)
            nx_run(nx, n);
        nx_idle_processors(nx);
        assert_true(++rounds < 1000);
    } while (nx->total != before);
}

/* ---- L1's scheduler and devices ---- */

void nx_l1_deschedule(struct nx *nx, uint32_t l2)
{
    struct nx_l2_vcpu *c = nx->l2[l2];
    struct nx_l1 *l1;
    int before;

    assert_true(c->on >= 0);
    l1 = nx->l1[c->on];
    assert_true(nx_l1_take(nx, l1->n));
    before = nx_l1_begin(l1);
    if (nx->l1_accel != NULL)
        vapic_put(&c->apic);
    nx_l1_end(nx, before);
    l1->runs = -1;
    c->on = -1;
}

void nx_l1_schedule(struct nx *nx, uint32_t l2, uint32_t l1)
{
    struct nx_l2_vcpu *c = nx->l2[l2];
    int before;

    assert_int_equal(c->on, -1);
    assert_int_equal(nx->l1[l1]->runs, -1);
    assert_true(nx_l1_take(nx, l1));
    c->on = (int32_t)l1;
    c->failed = false;
    nx->l1[l1]->runs = (int32_t)l2;
    before = nx_l1_begin(nx->l1[l1]);
    if (nx->l1_accel != NULL)
        vapic_load(&c->apic, &nx->l1[l1]->l1_pcpu);
    nx_l1_end(nx, before);
}

bool nx_l2_interrupt(struct nx *nx, uint32_t from, uint32_t l2, uint8_t vector, bool level)
{
    bool accepted = false;
    int before;

    assert_true(nx_l1_take(nx, from));
    before = nx_l1_begin(nx->l1[from]);
    l1_act(nx, nx->l2[l2], vapic_post(&nx->l2[l2]->apic, vector, level, &accepted));
    nx_l1_end(nx, before);
    return accepted;
}

void nx_l1_toggle_inhibit(struct nx *nx, uint32_t from, enum vapic_inhibit reason, bool set)
{
    int before;

    assert_true(nx_l1_take(nx, from));
    before = nx_l1_begin(nx->l1[from]);
    assert_int_equal(vapic_set_inhibit(nx->l1_vm, reason, set), VAPIC_OK);
    nx_l1_end(nx, before);
}

/* ---- What an exit to L1 left undone ---- */

static enum nx_result result_of(int result)
{
    assert_true(result == VAPIC_OK || result == VAPIC_GP);
    return result == VAPIC_OK ? NX_DONE : NX_GP;
}

static enum nx_result emulate_mmio(struct nx_l2_vcpu *c, struct nx_op *op)
{
    uint32_t offset = (uint32_t)(op->address & (NX_PAGE - 1));

    if (!vapic_mmio_claims(&c->apic, op->address))
        fail_msg("L2's vCPU %u: nothing at %#llx", c->n, (unsigned long long)op->address);
    if (op->write) {
        vapic_mmio_write(&c->apic, offset, &op->value, op->size, c->nx->now);
    } else {
        op->value = 0;
        vapic_mmio_read(&c->apic, offset, &op->value, op->size, c->nx->now);
    }
    return NX_DONE;
}

enum nx_result nx_emulate12(struct nx_l2_vcpu *c, struct nx_op *op)
{
    struct vapic_now now = c->nx->now;

    assert_non_null(op);
    switch (op->kind) {
    case NX_MMIO:
        return emulate_mmio(c, op);
    case NX_MSR:
        if (op->write)
            return result_of(vapic_msr_write(&c->apic, (uint32_t)op->address, op->value, now));
        return result_of(vapic_msr_read(&c->apic, (uint32_t)op->address, &op->value, now));
    case NX_CR8:
        if (op->write)
            return result_of(vapic_write_cr8(&c->apic, op->value));
        op->value = vapic_read_cr8(&c->apic);
        return NX_DONE;
    case NX_HLT:
        break;
    }
    vapic_halt(&c->apic);
    return NX_DONE;
}
