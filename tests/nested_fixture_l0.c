/* SPDX-License-Identifier: MIT */
/* See nested_fixture.h: L0, its callbacks and its run loop. */
#include "nested_fixture_private.h"

#include <stdlib.h>
#include <string.h>

#define LENGTH  3u /* of memory accesses */
#define NO_VCPU NX_ANY

/* ---- Callbacks ---- */

static void host_lock(void *ctx)
{
    struct nx *nx = ctx;

    assert_false(nx->locked);
    nx->locked = true;
    nx->lock_count++;
}

static void host_unlock(void *ctx)
{
    struct nx *nx = ctx;

    assert_true(nx->locked);
    nx->locked = false;
}

static void host_quiesce(void *ctx)
{
    assert_false(((struct nx *)ctx)->locked);
}

static void doorbell(struct nx *nx, struct vapic *v, uint8_t vector)
{
    uint32_t id;

    if (!vapic_doorbell_id(v, &id))
        return;
    if (vector == 0)
        assert_int_equal(vapic_sil_doorbell(&nx->silicon, id), VAPIC_SIL_DONE);
    else
        vapic_sil_interrupt(&nx->silicon, id, vector);
}

void nx_act(struct nx *nx, uint32_t l1, enum vapic_action action)
{
    struct nx_l1 *c = nx->l1[l1];

    if (action == VAPIC_ACTION_NONE)
        return;
    nx_log(nx, (struct nx_event){.kind = NX_NOTIFY, .n = l1, .a = action});
    if (action == VAPIC_ACTION_DOORBELL)
        doorbell(nx, &c->apic, nx->kind == VAPIC_ACCEL_AVIC ? 0 : NX_NOTIFY_VECTOR);
    else if (action == VAPIC_ACTION_NESTED)
        doorbell(nx, &c->apic, NX_NESTED_VECTOR);
    else if (action == VAPIC_ACTION_WAKE)
        c->woken = true;
    else if (c->cpu != NULL)
        vapic_sil_interrupt(&nx->silicon, c->cpu->apic_id, NX_KICK_VECTOR);
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct nx *nx = ctx;
    uint32_t n = nx_l1_of(target)->n;

    assert_int_not_equal(action, VAPIC_ACTION_NONE);
    nx_act(nx, n, action);
    if (nx->on_notify != NULL)
        nx->on_notify(nx, n, action);
}

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    nx_log(ctx, (struct nx_event){.kind = NX_EOI, .n = nx_l1_of(v)->n, .a = vector});
}

static uint64_t host_physical(void *ctx, const void *memory)
{
    return nx_host_hpa(ctx, memory);
}

static void host_kick_all(void *ctx)
{
    struct nx *nx = ctx;

    assert_true(nx->locked);
    nx_log(nx, (struct nx_event){.kind = NX_KICK_ALL, .n = NO_VCPU});
    for (uint32_t n = 0; n < nx->l1_count; n++) {
        struct nx_l1 *c = nx->l1[n];

        if (c == NULL || !vapic_in_guest(&c->apic)) /* NULL: nx_new() is still at it */
            continue;
        assert_int_not_equal((int)n, nx->executing);
        nx_leave(nx, n);
    }
}

static void host_access_page(void *ctx, bool mapped)
{
    struct nx *nx = ctx;

    assert_true(nx->locked);
    nx->page_mapped = mapped;
    for (uint32_t i = 0; i < nx->cpu_count && !mapped; i++)
        vapic_sil_flush(&nx->cpus[i], APIC_DEFAULT_BASE);
}

static void host_flush(void *ctx, struct vapic *v)
{
    ((struct nx *)ctx)->vendor->flush(nx_l1_of(v));
}

static void tell_pass(struct nx *nx, struct vapic *v, const struct vapic_msr_pass *pass, bool l2)
{
    struct nx_l1 *c = nx_l1_of(v);

    nx_log(nx, (struct nx_event){.kind = NX_INTERCEPT, .n = c->n, .l2 = l2});
    nx->vendor->intercept(c, pass, l2);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    tell_pass(ctx, v, pass, false);
}

static void host_intercept_l2(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    assert_true(nx_l1_of(v)->l2);
    tell_pass(ctx, v, pass, true);
}

/* vmcs01 must be current for the one, vmcs02 for the other. */
static void control(struct nx *nx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value,
                    bool l2)
{
    struct nx_l1 *c = nx_l1_of(v);

    nx_log(nx, (struct nx_event){
                   .kind = NX_CONTROL, .n = c->n, .l2 = l2, .a = field, .b = mask, .c = value});
    assert_int_equal(c->l2, l2);
    assert_int_equal(value & ~mask, 0);
    nx_intel_control(c, field, mask, value, l2);
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    control(ctx, v, field, mask, value, false);
}

static void host_control_l2(void *ctx, struct vapic *v, uint32_t field, uint64_t mask,
                            uint64_t value)
{
    control(ctx, v, field, mask, value, true);
}

static uint16_t host_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    assert_false(nx_l1_of(v)->l2);
    return nx_intel_status(nx_l1_of(v), false);
}

static uint16_t host_status_l2(void *ctx, struct vapic *v)
{
    (void)ctx;
    assert_true(nx_l1_of(v)->l2);
    return nx_intel_status(nx_l1_of(v), true);
}

static void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 0);
    *word = 1;
}

static void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 1);
    *word = 0;
}

const struct vapic_host nx_l0_host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .eoi = host_eoi,
    .physical = host_physical,
    .kick_all = host_kick_all,
    .access_page = host_access_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .control = host_control,
    .interrupt_status = host_status,
    .spin_lock = host_spin_lock,
    .spin_unlock = host_spin_unlock,
};

/* ---- L1's pages ---- */

static struct nx_page *page_of(struct nx *nx, uint64_t gpa)
{
    assert_int_equal(gpa % NX_PAGE, 0);
    return nx_at(nx, gpa) != NULL ? &nx->page[(gpa - NX_L1_RAM) / NX_PAGE] : NULL;
}

static bool host_pin(void *ctx, uint64_t gpa, struct vapic_l1_page *pin)
{
    struct nx *nx = ctx;
    struct nx_page *page = page_of(nx, gpa);

    assert_true(nx->locked);
    if (page == NULL || page->gone)
        return false;
    nx_log(nx, (struct nx_event){.kind = NX_PIN, .n = NO_VCPU, .a = gpa});
    page->pins++;
    nx->pins++;
    *pin = (struct vapic_l1_page){.memory = nx_at(nx, gpa), .hpa = nx_hpa(nx, gpa)};
    return true;
}

/* No processor reaches the page any more. */
static void check_unused(struct nx *nx, uint64_t hpa)
{
    for (uint32_t n = 0; n < nx->l1_count; n++) {
        const struct nx_l1 *c = nx->l1[n];

        if (c == NULL || !c->l2 || !c->entered || c->cpu == NULL || !c->cpu->in_guest)
            continue;
        if (nx->vendor->names(nx, c, hpa))
            fail_msg("L1's vCPU %u runs L2 with the unpinned page %#llx", n,
                     (unsigned long long)hpa);
    }
}

static void host_unpin(void *ctx, uint64_t gpa, const struct vapic_l1_page *pin)
{
    struct nx *nx = ctx;
    struct nx_page *page = page_of(nx, gpa);

    assert_true(nx->locked);
    assert_non_null(page);
    assert_int_not_equal(page->pins, 0);
    assert_ptr_equal(pin->memory, nx_at(nx, gpa));
    assert_int_equal(pin->hpa, nx_hpa(nx, gpa));
    nx_log(nx, (struct nx_event){.kind = NX_UNPIN, .n = NO_VCPU, .a = gpa});
    page->pins--;
    nx->pins--;
    if (page->pins == 0)
        check_unused(nx, pin->hpa);
}

static bool host_track(void *ctx, uint64_t gpa, bool on)
{
    struct nx *nx = ctx;
    struct nx_page *page = page_of(nx, gpa);

    assert_true(nx->locked);
    if (page == NULL)
        return false;
    assert_int_not_equal(page->tracked, on); /* they do not nest */
    nx_log(nx, (struct nx_event){.kind = NX_TRACK, .n = NO_VCPU, .a = gpa, .b = on});
    page->tracked = on;
    if (page->shadow == NULL)
        page->shadow = malloc(NX_PAGE);
    memcpy(page->shadow, nx_at(nx, gpa), NX_PAGE);
    return true;
}

const struct vapic_nested_host nx_l0_nested_host = {
    .size = sizeof(struct vapic_nested_host),
    .pin = host_pin,
    .unpin = host_unpin,
    .track = host_track,
    .control = host_control_l2,
    .interrupt_status = host_status_l2,
    .intercept = host_intercept_l2,
};

static void set_gone(struct nx *nx, uint64_t gpa, uint64_t size, bool gone)
{
    for (uint64_t at = gpa; at < gpa + size; at += NX_PAGE) {
        assert_non_null(page_of(nx, at));
        page_of(nx, at)->gone = gone;
    }
}

void nx_unmap(struct nx *nx, uint64_t gpa, uint64_t size)
{
    set_gone(nx, gpa, size, true);
    vapic_nested_unmap(&nx->vm, gpa, size);
    for (uint64_t at = gpa; at < gpa + size; at += NX_PAGE) {
        assert_int_equal(page_of(nx, at)->pins, 0);
        assert_false(page_of(nx, at)->tracked);
        check_unused(nx, nx_hpa(nx, at));
    }
}

void nx_map(struct nx *nx, uint64_t gpa, uint64_t size)
{
    set_gone(nx, gpa, size, false);
    for (uint32_t n = 0; n < nx->l1_count; n++)
        nx->l1[n]->stopped = false;
}

/* ---- Page walks: neither guest has memory that the tests touch but APIC pages ---- */

static const struct nx_l1 *running_on(const struct nx *nx, const struct vapic_sil_cpu *cpu)
{
    for (uint32_t n = 0; n < nx->l1_count; n++)
        if (nx->l1[n]->cpu == cpu && nx->l1[n]->entered)
            return nx->l1[n];
    return NULL;
}

void nx_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct nx *nx = ctx;

    if (nx->on_point != NULL)
        nx->on_point(nx, cpu, point);
}

bool nx_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa, struct vapic_sil_page *page)
{
    struct nx *nx = ctx;
    const struct nx_l1 *c = running_on(nx, cpu);

    assert_non_null(c);
    if (gpa != APIC_DEFAULT_BASE)
        return false;
    if (!c->l2) {
        *page = (struct vapic_sil_page){nx_host_hpa(nx, nx->scratch), true, true};
        return nx->page_mapped;
    }
    *page = (struct vapic_sil_page){nx_hpa(nx, nx_gpa(nx, nx->l2_scratch)), true, true};
    return nx->l2_page_mapped && !nx->options.pass_through;
}

/* ---- Interrupts of the host ---- */

void nx_handle_interrupt(struct nx *nx, struct vapic_sil_cpu *cpu, uint8_t vector)
{
    if (vector == NX_WAKEUP_VECTOR)
        vapic_wakeup(&nx->vm, &nx->pcpus[cpu - nx->cpus]);
}

bool nx_take_interrupts(struct nx *nx, struct vapic_sil_cpu *cpu)
{
    bool any = false;
    int vector;

    while ((vector = vapic_sil_take_interrupt(cpu)) >= 0) {
        nx_handle_interrupt(nx, cpu, (uint8_t)vector);
        any = true;
    }
    return any;
}

void nx_idle_processors(struct nx *nx)
{
    for (uint32_t i = 0; i < nx->cpu_count; i++)
        if (!nx->cpus[i].in_guest && nx_take_interrupts(nx, &nx->cpus[i]))
            nx->total++;
}

/* ---- Entry ---- */

static uint32_t can_in_l1(const struct nx_l1 *c)
{
    if (!nx_l1_open(c))
        return VAPIC_CAN_INIT;
    return VAPIC_CAN_INIT | VAPIC_IF | (c->injected == VAPIC_INJECT_NONE ? VAPIC_CAN_IRQ : 0u);
}

static uint32_t can_in_l2(struct nx_l1 *c)
{
    bool interruptible = nx_current(c)->guest_if;
    uint32_t can = VAPIC_CAN_INIT | (interruptible ? VAPIC_IF : 0u);

    if (c->null_view && c->nx->vendor->intercepts(c)) /* "taken" is: an exit to L1 */
        return can | (c->nx->vendor->masked(c) ? 0u : VAPIC_CAN_IRQ);
    if (interruptible && c->injected == VAPIC_INJECT_NONE && c->event12 == 0)
        can |= VAPIC_CAN_IRQ;
    return can;
}

static void after_exit(struct nx_l1 *c)
{
    bool taken = c->injected == VAPIC_INJECT_NONE;

    c->entered = false;
    vapic_exit(&c->apic, c->l2 ? 0 : c->nx->vendor->cr8(c), taken);
    if (taken)
        return;
    assert_true(vapic_not_delivered(&c->apic));
    c->injected = VAPIC_INJECT_NONE;
}

static void wake(struct nx_l1 *c)
{
    if (!c->blocked)
        return;
    c->blocked = false;
    c->woken = false;
    vapic_unblock(&c->apic);
}

static void commit(struct nx_l1 *c)
{
    if (c->entry.inject == VAPIC_INJECT_NONE)
        return;
    assert_int_equal(c->entry.inject, VAPIC_INJECT_VECTOR);
    vapic_commit(&c->apic, &c->entry);
    c->injected = VAPIC_INJECT_VECTOR;
    c->vector = c->entry.vector;
}

static enum nx_result take_exit(struct nx_l1 *c, struct nx_op *op)
{
    const struct nx_vendor *vendor = c->nx->vendor;
    struct vapic_reflect why;
    enum nx_result result = NX_RETRY;
    bool l2 = c->l2;

    vendor->why(c, &why);
    nx_log(c->nx,
           (struct nx_event){.kind = NX_EXIT, .n = c->n, .l2 = l2, why.code, why.info1, why.info2});
    after_exit(c);
    nx_take_interrupts(c->nx, c->cpu);
    if (!l2)
        return vendor->exit(c, &why, op);
    vapic_nested_ran(&c->apic);
    c->pending_run = false;
    return vendor->exit_l2(c, &why, op, &result) ? nx_reflect(c, &why, op) : result;
}

static void enter_silicon(struct nx_l1 *c)
{
    enum vapic_sil_result result;

    nx_check(c->nx);
    result = c->nx->vendor->enter(c);
    nx_log(c->nx, (struct nx_event){.kind = NX_ENTRY, .n = c->n, .l2 = c->l2});
    if (result == VAPIC_SIL_EXIT)
        take_exit(c, NULL);
    else
        assert_int_equal(result, VAPIC_SIL_DONE);
}

/* An interrupt of L1's has to make L2 exit. */
static bool wants_l1(const struct nx_l1 *c)
{
    if (!c->l2 || !c->entry.runnable)
        return false;
    if (c->entry.nested == VAPIC_NESTED_LEAVE || c->entry.nested == VAPIC_NESTED_SOON)
        return true;
    return c->null_view && c->nx->vendor->intercepts(c) && c->entry.inject != VAPIC_INJECT_NONE;
}

void nx_stop(struct nx_l1 *c)
{
    nx_log(c->nx, (struct nx_event){.kind = NX_STOP, .n = c->n});
    c->stopped = true;
    if (c->nx->on_stop != NULL)
        c->nx->on_stop(c->nx, c->n);
}

static void leave_for_l1(struct nx_l1 *c)
{
    struct vapic_reflect why = {.code = c->nx->vendor->interrupt_code};

    after_exit(c);
    nx_reflect(c, &why, NULL);
}

/* After vapic_enter() said that the guest runs. */
static enum nx_entered go_in(struct nx_l1 *c)
{
    bool leave = wants_l1(c);

    c->entered = true;
    if (leave && !c->pending_run) {
        assert_int_not_equal(c->entry.nested, VAPIC_NESTED_SOON);
        leave_for_l1(c);
        return NX_LEFT_L2;
    }
    if (leave) { /* pending, it makes L2 exit before its first instruction */
        c->entry.inject = VAPIC_INJECT_NONE;
        vapic_sil_interrupt(&c->nx->silicon, c->cpu->apic_id, NX_KICK_VECTOR);
    }
    c->halted = false;
    commit(c);
    if (c->nx->before_entry != NULL)
        c->nx->before_entry(c->nx, c->n);
    if (c->entered)
        enter_silicon(c);
    return NX_IN;
}

enum nx_entered nx_enter_guest(struct nx_l1 *c)
{
    if (c->stopped || c->cpu == NULL)
        return NX_STOPPED;
    if (c->blocked && !c->woken)
        return NX_SLEEPS;
    wake(c);
    for (uint32_t i = 0; i < 1000 && !c->entered; i++) {
        bool l2 = c->l2;

        vapic_enter(&c->apic, l2 ? can_in_l2(c) : can_in_l1(c), c->nx->now, &c->entry);
        if (c->entry.event != VAPIC_CPU_NONE)
            continue;
        if (l2 && c->entry.nested == VAPIC_NESTED_STOP) {
            nx_stop(c);
            return NX_STOPPED;
        }
        if (!c->entry.runnable)
            return NX_SLEEPS;
        if (go_in(c) == NX_LEFT_L2 || c->l2 != l2)
            return NX_LEFT_L2;
        if (c->stopped)
            return NX_STOPPED;
    }
    assert_true(c->entered);
    return NX_IN;
}

bool nx_enter(struct nx *nx, uint32_t l1)
{
    return nx_enter_guest(nx->l1[l1]) == NX_IN;
}

void nx_leave(struct nx *nx, uint32_t l1)
{
    struct nx_l1 *c = nx->l1[l1];

    if (!c->entered)
        return;
    if (!c->cpu->in_guest) { /* between vapic_enter() and the entry: cancelled */
        after_exit(c);
        return;
    }
    vapic_sil_leave(c->cpu, nx->vendor->leave_code, 0, 0);
    assert_int_equal(take_exit(c, NULL), NX_RETRY);
}

void nx_block(struct nx_l1 *c)
{
    if (!c->blocked && vapic_block(&c->apic))
        c->blocked = true;
    else if (!c->blocked)
        c->nx->total++; /* something has come meanwhile: look again */
}

/* ---- Boundaries ---- */

static void l2_delivered(struct nx_l1 *c, uint8_t vector)
{
    struct nx_l2_vcpu *l2 = nx_current(c);

    if (c->event12 != 0) {
        c->event12 = 0;
        l2->injected = VAPIC_INJECT_NONE;
    }
    l2->idle = false;
    l2->owes += c->nx->options.l2_eoi;
    nx_log(c->nx, (struct nx_event){.kind = NX_L2_DELIVERED, .n = l2->n, .a = vector});
}

static void delivered(struct nx_l1 *c, uint8_t vector)
{
    bool l0_injected = c->injected != VAPIC_INJECT_NONE;

    c->injected = VAPIC_INJECT_NONE;
    if (c->l2 && !l0_injected)
        l2_delivered(c, vector);
    else
        nx_l1_handler(c, vector, c->l2);
}

bool nx_boundaries(struct nx_l1 *c)
{
    int before = c->nx->executing;
    bool l2 = c->l2;

    for (uint32_t i = 0; i < 10000; i++) {
        enum vapic_sil_result result;
        uint8_t vector = 0;

        if (nx_enter_guest(c) != NX_IN || c->l2 != l2)
            return false;
        c->nx->executing = (int)c->n;
        result = vapic_sil_boundary(c->cpu, &vector);
        c->nx->executing = before;
        if (result == VAPIC_SIL_NOTHING)
            return true;
        if (result == VAPIC_SIL_DELIVER) {
            delivered(c, vector);
        } else {
            assert_int_equal(result, VAPIC_SIL_EXIT);
            assert_int_equal(take_exit(c, NULL), NX_RETRY);
        }
        if (c->l2 != l2)
            return false;
    }
    fail_msg("L1's vCPU %u: interrupts without end", c->n);
    return false;
}

/* ---- Instructions ---- */

void nx_sync_if(struct nx_l1 *c)
{
    if (c->entered && c->cpu->in_guest)
        c->cpu->guest.interrupt_flag = c->l2 ? nx_current(c)->guest_if : nx_l1_open(c);
}

static enum vapic_sil_result do_access(struct nx_l1 *c, struct nx_op *op)
{
    struct vapic_sil_access access = {
        .gpa = op->address,
        .kind = op->write ? VAPIC_SIL_WRITE : VAPIC_SIL_READ,
        .size = op->size,
        .length = LENGTH,
        .value = op->value,
    };
    enum vapic_sil_result result = vapic_sil_access(c->cpu, &access);

    if (result == VAPIC_SIL_DONE)
        op->value = access.value;
    return result;
}

static enum vapic_sil_result on_silicon(struct nx_l1 *c, struct nx_op *op)
{
    switch (op->kind) {
    case NX_MMIO:
        return do_access(c, op);
    case NX_MSR:
        if (op->write)
            return vapic_sil_wrmsr(c->cpu, (uint32_t)op->address, op->value);
        return vapic_sil_rdmsr(c->cpu, (uint32_t)op->address, &op->value);
    case NX_CR8:
        if (op->write)
            return vapic_sil_write_cr8(c->cpu, op->value);
        return vapic_sil_read_cr8(c->cpu, &op->value);
    case NX_HLT:
        break;
    }
    return vapic_sil_hlt(c->cpu);
}

/* One instruction of the guest that is in the processor. */
enum nx_result nx_perform(struct nx_l1 *c, struct nx_op *op)
{
    enum vapic_sil_result result;
    int before = c->nx->executing;

    c->nx->executing = (int)c->n;
    result = on_silicon(c, op);
    c->nx->executing = before;
    switch (result) {
    case VAPIC_SIL_DONE:
        return NX_DONE;
    case VAPIC_SIL_GP:
        return NX_GP;
    case VAPIC_SIL_NATIVE:
        return NX_NATIVE;
    case VAPIC_SIL_EXIT:
        return take_exit(c, op);
    default:
        fail_msg("L1's vCPU %u: the silicon says %d", c->n, (int)result);
        return NX_STUCK;
    }
}

static enum nx_result result_of(int result)
{
    assert_true(result == VAPIC_OK || result == VAPIC_GP);
    return result == VAPIC_OK ? NX_DONE : NX_GP;
}

static enum nx_result emulate_mmio(struct nx_l1 *c, struct nx_op *op)
{
    uint32_t offset = (uint32_t)(op->address & (NX_PAGE - 1));

    if (!vapic_mmio_claims(&c->apic, op->address))
        fail_msg("L1's vCPU %u: nothing at %#llx", c->n, (unsigned long long)op->address);
    if (op->write) {
        vapic_mmio_write(&c->apic, offset, &op->value, op->size, c->nx->now);
    } else {
        op->value = 0;
        vapic_mmio_read(&c->apic, offset, &op->value, op->size, c->nx->now);
    }
    return NX_DONE;
}

static enum nx_result emulate_msr(struct nx_l1 *c, struct nx_op *op)
{
    uint32_t msr = (uint32_t)op->address;

    if (msr == AVIC_DOORBELL_MSR) {
        nx_log(c->nx, (struct nx_event){.kind = NX_DOORBELL, .n = c->n, .a = op->value});
        return op->write ? result_of(vapic_nested_doorbell(&c->apic, op->value)) : NX_GP;
    }
    if (op->write)
        return result_of(vapic_msr_write(&c->apic, msr, op->value, c->nx->now));
    return result_of(vapic_msr_read(&c->apic, msr, &op->value, c->nx->now));
}

enum nx_result nx_emulate(struct nx_l1 *c, struct nx_op *op)
{
    assert_non_null(op);
    switch (op->kind) {
    case NX_MMIO:
        return emulate_mmio(c, op);
    case NX_MSR:
        return emulate_msr(c, op);
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

/* ---- L1 enters and leaves L2 ---- */

void nx_vmrun(struct nx_l1 *c, uint64_t gpa12)
{
    const struct nx_vendor *vendor = c->nx->vendor;
    int result;

    assert_false(c->l2);
    assert_true(nx_boundaries(c)); /* with interrupts held off */
    vapic_sil_leave(c->cpu, vendor->run_code, 0, 0);
    nx_log(c->nx, (struct nx_event){.kind = NX_EXIT, .n = c->n, .a = vendor->run_code});
    after_exit(c);
    nx_take_interrupts(c->nx, c->cpu);
    c->gpa12 = gpa12;
    result = vendor->nested_enter(c);
    if (result == VAPIC_OK) {
        c->pending_run = !c->halted;
        return;
    }
    nx_log(c->nx, (struct nx_event){.kind = NX_FAILED, .n = c->n, .a = (uint64_t)(int64_t)result});
}

enum nx_result nx_reflect(struct nx_l1 *c, const struct vapic_reflect *why, struct nx_op *op)
{
    assert_true(c->l2);
    nx_log(c->nx, (struct nx_event){
                      .kind = NX_REFLECTED, .n = c->n, .a = why->code, why->info1, why->info2});
    c->nx->vendor->nested_leave(c, why);
    assert_false(c->l2);
    c->event12 = 0;
    nx_written(c->nx);
    return nx_l1_exited(c, op);
}

/* ---- The scheduler, and outside ---- */

void nx_deschedule(struct nx *nx, uint32_t l1)
{
    struct nx_l1 *c = nx->l1[l1];

    nx_leave(nx, l1);
    vapic_put(&c->apic);
    c->cpu = NULL;
    c->pcpu = NULL;
}

void nx_schedule(struct nx *nx, uint32_t l1, uint32_t cpu)
{
    struct nx_l1 *c = nx->l1[l1];

    assert_true(cpu < nx->cpu_count);
    assert_null(c->cpu);
    for (uint32_t n = 0; n < nx->l1_count; n++)
        assert_ptr_not_equal(nx->l1[n]->cpu, &nx->cpus[cpu]);
    c->cpu = &nx->cpus[cpu];
    c->pcpu = &nx->pcpus[cpu];
    vapic_load(&c->apic, c->pcpu);
}

bool nx_l1_interrupt(struct nx *nx, uint32_t l1, uint8_t vector)
{
    bool accepted = false;

    nx_act(nx, l1, vapic_post(&nx->l1[l1]->apic, vector, false, &accepted));
    return accepted;
}

void nx_toggle_inhibit(struct nx *nx, enum vapic_inhibit reason, bool set)
{
    assert_int_equal(vapic_set_inhibit(&nx->vm, reason, set), VAPIC_OK);
}

bool nx_in_l2(const struct nx *nx, uint32_t l1)
{
    return nx->l1[l1]->l2;
}

static void save(struct nx_l1 *c, uint8_t image[VAPIC_IMAGE_SIZE],
                 uint8_t record[VAPIC_RECORD_SIZE])
{
    struct vapic_now now = c->nx->now;

    assert_int_equal(vapic_save_image(&c->apic, VAPIC_IMAGE_ID32, image, VAPIC_IMAGE_SIZE, now),
                     VAPIC_OK);
    assert_true(vapic_save_record(&c->apic, record, VAPIC_RECORD_SIZE, now) >= 0);
}

void nx_save_restore(struct nx *nx, uint32_t l1)
{
    struct nx_l1 *c = nx->l1[l1];
    uint8_t image[VAPIC_IMAGE_SIZE], record[VAPIC_RECORD_SIZE];
    struct vapic_entry entry;
    uint64_t base;
    bool l2 = c->l2;

    nx_leave(nx, l1);
    wake(c);
    base = vapic_base(&c->apic);
    save(c, image, record);
    if (l2)
        nx->vendor->sync(c);
    c->l2 = false;
    vapic_nested_abandon(&c->apic);
    vapic_reset(&c->apic);
    if (l2)
        nx->vendor->scramble(c);
    assert_int_equal(vapic_load_base(&c->apic, base), VAPIC_OK);
    assert_int_equal(vapic_load_image(&c->apic, VAPIC_IMAGE_ID32, image, sizeof(image), nx->now),
                     VAPIC_OK);
    assert_int_equal(vapic_load_record(&c->apic, record, sizeof(record), nx->now, &entry),
                     VAPIC_OK);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    /* The record says nothing of a vCPU without nested support. */
    c->l2 = l2;
    if (l2 && (nx->options.restore_by_view || vapic_nested_state(&c->apic) == VAPIC_NESTED_L1)) {
        c->l2 = false;
        vapic_nested_abandon(&c->apic);
        c->l2 = true;
        assert_int_equal(nx->vendor->restore(c, !c->pending_run), VAPIC_OK);
    }
}
