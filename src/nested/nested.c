/* SPDX-License-Identifier: MIT */
/*
 * Nested guests: the states of a vCPU, its pins, and what the core and the scheduler call. What is
 * different for the two vendors is behind struct nested_ops (nested.h).
 *
 *      state       02 current  how it is left
 *      L1          no          vapic_nested_enter() -> ENTERING; vapic_nested_restore() -> RESTORED
 *      RESTORED    yes         first vapic_enter() -> ENTERING or L2; leave, abandon
 *      ENTERING    yes         vapic_nested_ran() -> L2; leave, abandon
 *      L2          yes         vapic_nested_leave() -> LEAVING; abandon
 *      LEAVING     first       vapic_nested_exit() -> L1; abandon
 *
 * Of L1's own acceleration only this is said here: the vCPU's reason NESTED is set as long as 02 is
 * current (AVIC honours it, APICv does not), and at the exit the back end writes whatever 01 should
 * hold. There is no list of what was put off: the back end compares with what 01 was last told.
 */
#include "nested.h"
#include "../bytes.h"

/* ---- The VM ---- */

size_t vapic_nested_memory(const struct vapic_nested_config *config,
                           const struct vapic_accel_config *accel)
{
    if (config == NULL || accel == NULL || accel->kind == VAPIC_ACCEL_NONE)
        return 0;
    return accel->kind == VAPIC_ACCEL_AVIC ? vapic_nested_svm.memory(config, accel)
                                           : vapic_nested_vmx.memory(config, accel);
}

static bool host_complete(const struct vapic_nested_host *h, const struct vapic_accel *accel)
{
    if (h == NULL || h->size < sizeof(*h) || !h->pin || !h->unpin || !h->intercept)
        return false;
    return accel->kind == VAPIC_ACCEL_AVIC || (h->control && h->interrupt_status);
}

static const struct nested_ops *ops_of(const struct vapic_accel *accel)
{
    return accel->kind == VAPIC_ACCEL_AVIC ? &vapic_nested_svm : &vapic_nested_vmx;
}

int vapic_nested_init(struct vapic_nested *n, size_t size, struct vapic_vm *vm,
                      const struct vapic_nested_config *config,
                      const struct vapic_nested_host *host, void *memory, size_t memory_size)
{
    struct vapic_accel *accel;
    size_t needed;

    if (size != sizeof(*n))
        return VAPIC_E_SIZE;
    if (n == NULL || vm == NULL || vm->accel == NULL || config == NULL || memory == NULL ||
        ((uintptr_t)memory & (APIC_PAGE_SIZE - 1)) != 0 || !host_complete(host, vm->accel))
        return VAPIC_E_ARG;
    accel = vm->accel;
    if (accel->nested != NULL || vm->top != 0)
        return VAPIC_E_BUSY;
    needed = ops_of(accel)->memory(
        config, &(struct vapic_accel_config){.kind = accel->kind,
                                             .features = accel->features,
                                             .max_id = accel->max_id,
                                             .notify_vector = accel->notify_vector,
                                             .wakeup_vector = accel->wakeup_vector});
    if (needed == 0)
        return VAPIC_E_ARG;
    if (memory_size < needed)
        return VAPIC_E_SIZE;
    zero_bytes(n, sizeof(*n));
    zero_bytes(memory, needed);
    n->vm = vm;
    n->host = *host;
    n->config = *config;
    if (host->track == NULL)
        n->config.strategy = VAPIC_NESTED_DUMMY;
    ops_of(accel)->place(n, memory);
    accel->nested = n;
    return VAPIC_OK;
}

void vapic_nested_fini(struct vapic_nested *n)
{
    struct vapic_vm *vm = n->vm;

    vm->host.lock(vm->ctx);
    ops_of(vm->accel)->fini(n);
    /* Memory may go away after this, and nothing is left to tell. */
    vm->accel->nested = NULL;
    vm->host.unlock(vm->ctx);
}

int vapic_nested_attach(struct vapic *v, struct vapic_nested_vcpu *nv, size_t size,
                        const struct vapic_nested_vcpu_config *config)
{
    if (size != sizeof(*nv))
        return VAPIC_E_SIZE;
    if (nv == NULL || v->accel == NULL || v->vm->accel->nested == NULL ||
        v->accel->nested != NULL || v->index != VAPIC_NO_INDEX)
        return VAPIC_E_ARG;
    if (v->vm->accel->kind == VAPIC_ACCEL_AVIC && (config == NULL || config->vmcb02 == NULL))
        return VAPIC_E_ARG;
    zero_bytes(nv, sizeof(*nv));
    nv->v = v;
    nv->vmcb02 = config != NULL ? config->vmcb02 : NULL;
    nv->table = NESTED_NO_PAGE;
    nv->key = UINT64_MAX;
    nv->posted_hpa = v->vm->host.physical(v->vm->ctx, &nv->posted);
    /* Silent until it is loaded for the first time. */
    nv->posted.control = PID_SN;
    v->accel->nested = nv;
    if (v->accel->loaded)
        vapic_nested_load(v);
    return VAPIC_OK;
}

/* ---- Pins ---- */

/* Owner, no lock: what is doomed has also set `again`. */
static bool pin_is(const struct vapic_nested_vcpu *nv, uint32_t slot, uint64_t gpa)
{
    if (nv->pins[slot].pin.memory == NULL)
        return gpa == NESTED_NO_PAGE;
    return nv->pins[slot].gpa == gpa;
}

/* Configuration lock held; nobody uses the page any more. */
static void drop_pin(struct vapic *v, uint32_t slot)
{
    struct vapic_nested *n = nested_vm(v);
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (nv->pins[slot].pin.memory == NULL)
        return;
    n->host.unpin(v->vm->ctx, nv->pins[slot].gpa, &nv->pins[slot].pin);
    nv->pins[slot].pin.memory = NULL;
    nv->pins[slot].doomed = 0;
}

static bool set_pin(struct vapic *v, uint32_t slot, uint64_t gpa)
{
    struct vapic_nested *n = nested_vm(v);
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (pin_is(nv, slot, gpa) && nv->pins[slot].doomed == 0)
        return true;
    drop_pin(v, slot);
    if (gpa == NESTED_NO_PAGE)
        return true;
    if (!n->host.pin(v->vm->ctx, gpa, &nv->pins[slot].pin)) {
        nv->pins[slot].pin.memory = NULL;
        return false;
    }
    nv->pins[slot].gpa = gpa;
    return true;
}

static bool set_pins(struct vapic *v, const uint64_t gpa[VAPIC_NESTED_PINS])
{
    for (uint32_t i = 0; i < VAPIC_NESTED_PINS; i++)
        if (!set_pin(v, i, gpa[i]))
            return false;
    return true;
}

/* ---- The pages and tables of 12 ---- */

/* SEQ_CST: see "Pins of a vCPU" in nested.h. */
static bool must_look_again(const struct vapic_nested_vcpu *nv)
{
    return vapic_load32(&nv->again, VAPIC_SEQ_CST) != 0;
}

void vapic_nested_look_again(struct vapic *v)
{
    vapic_store32(&v->accel->nested->again, 1, VAPIC_SEQ_CST);
}

static bool as_before(const struct vapic *v, const uint64_t gpa[VAPIC_NESTED_PINS])
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (!nv->mapped || must_look_again(nv) || nested_ops(v)->table(v) != nv->table)
        return false;
    for (uint32_t i = 0; i < VAPIC_NESTED_PINS; i++)
        if (!pin_is(nv, i, gpa[i]))
            return false;
    return true;
}

/* Configuration lock held. */
static int map_anew(struct vapic *v, const uint64_t gpa[VAPIC_NESTED_PINS])
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    const struct nested_ops *ops = nested_ops(v);
    int result = VAPIC_OK;

    /* Cleared before anything is read: what changes after it is seen at the next look. */
    vapic_store32(&nv->again, 0, VAPIC_SEQ_CST);
    if (!set_pins(v, gpa))
        return VAPIC_E_MEMORY;
    if (ops->use_table != NULL)
        result = ops->use_table(v);
    if (result == VAPIC_OK)
        nv->table = ops->table(v);
    return result;
}

/* Pins, tables, and the APIC's part of 02. */
static int map(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_vm *vm = v->vm;
    uint64_t gpa[VAPIC_NESTED_PINS];
    int result = VAPIC_OK;

    nested_ops(v)->pages(v, gpa);
    if (!as_before(v, gpa)) {
        vm->host.lock(vm->ctx);
        result = map_anew(v, gpa);
        nv->mapped = result == VAPIC_OK;
        vm->host.unlock(vm->ctx);
    }
    if (result != VAPIC_OK)
        return result;
    nested_ops(v)->write(v, !nv->started);
    nv->started = true;
    return VAPIC_OK;
}

/* Does a pin of this vCPU lie in [gpa, gpa + size)? One that another call has doomed stays that
 * one's, which waits already. Configuration lock held. */
static bool doom_pins(struct vapic_nested_vcpu *nv, uint64_t gpa, uint64_t size, uint64_t call)
{
    bool any = false;

    for (uint32_t i = 0; i < VAPIC_NESTED_PINS; i++)
        if (nv->pins[i].pin.memory != NULL &&
            nested_overlap(gpa, size, nv->pins[i].gpa, APIC_PAGE_SIZE)) {
            if (nv->pins[i].doomed == 0)
                nv->pins[i].doomed = call;
            any = true;
        }
    return any;
}

static struct vapic *vcpu_at(const struct vapic_vm *vm, uint32_t index)
{
    struct vapic *v = vm->slots[index].vcpu;

    return v != NULL && nested_of(v) != NULL ? v : NULL;
}

/* Phase 1: nobody will use them from now on, once `kick_all` and `quiesce` are over. */
static bool doom_all(struct vapic_vm *vm, uint64_t gpa, uint64_t size, uint64_t call)
{
    bool any = false;

    for (uint32_t i = 0; i < vm->top; i++) {
        struct vapic *v = vcpu_at(vm, i);

        if (v == NULL || !doom_pins(v->accel->nested, gpa, size, call))
            continue;
        vapic_nested_look_again(v);
        any = true;
    }
    return any;
}

static bool doomed_by(const struct vapic_nested_vcpu *nv, uint32_t slot, uint64_t call)
{
    return nv->pins[slot].doomed != 0 && nv->pins[slot].doomed <= call;
}

/*
 * Phase 2. An owner that came meanwhile has done it already. What a later call has doomed may still
 * be in use: that one's wait is not over.
 */
static void drop_doomed(struct vapic_vm *vm, uint64_t call)
{
    for (uint32_t i = 0; i < vm->top; i++) {
        struct vapic *v = vcpu_at(vm, i);

        for (uint32_t k = 0; v != NULL && k < VAPIC_NESTED_PINS; k++)
            if (doomed_by(v->accel->nested, k, call))
                drop_pin(v, k);
    }
}

void vapic_nested_unmap(struct vapic_vm *vm, uint64_t gpa, uint64_t size)
{
    struct vapic_nested *n;
    uint64_t call;
    bool any;

    if (vm->accel == NULL)
        return;
    vm->host.lock(vm->ctx);
    n = vm->accel->nested;
    if (n == NULL) {
        vm->host.unlock(vm->ctx);
        return;
    }
    if (ops_of(vm->accel)->unmap != NULL)
        ops_of(vm->accel)->unmap(n, gpa, size);
    call = ++n->unmaps;
    any = doom_all(vm, gpa, size, call);
    if (any)
        vm->host.kick_all(vm->ctx);
    vm->host.unlock(vm->ctx);
    if (!any)
        return;
    vm->host.quiesce(vm->ctx);
    vm->host.lock(vm->ctx);
    drop_doomed(vm, call);
    vm->host.unlock(vm->ctx);
}

void vapic_nested_written(struct vapic_vm *vm, uint64_t gpa, uint64_t size)
{
    if (vm->accel == NULL || ops_of(vm->accel)->written == NULL)
        return;
    vm->host.lock(vm->ctx);
    if (vm->accel->nested != NULL)
        ops_of(vm->accel)->written(vm->accel->nested, gpa, size);
    vm->host.unlock(vm->ctx);
}

void vapic_nested_withdrawn(struct vapic *v)
{
    if (nested_of(v) != NULL && nested_ops(v)->detach != NULL)
        nested_ops(v)->detach(v);
}

void vapic_nested_removed(struct vapic *v)
{
    if (nested_of(v) == NULL)
        return;
    for (uint32_t i = 0; i < VAPIC_NESTED_PINS; i++)
        drop_pin(v, i);
    v->accel->nested->mapped = false;
}

/* ---- The states ---- */

enum vapic_nested_state vapic_nested_state(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = nested_of(v);

    if (nv == NULL)
        return v->accel != NULL && v->accel->in_l2 ? VAPIC_NESTED_L2 : VAPIC_NESTED_L1;
    return (enum vapic_nested_state)nv->state;
}

static void set_state(struct vapic *v, enum vapic_nested_state state)
{
    if (v->accel->nested != NULL)
        vapic_store32(&v->accel->nested->state, state, VAPIC_RELAXED);
}

static void set_own(struct vapic *v, uint32_t reason, bool set)
{
    uint32_t bit = 1u << reason & v->vm->backend->honours;

    v->accel->own_reasons = set ? v->accel->own_reasons | bit : v->accel->own_reasons & ~bit;
    vapic_accel_request(v);
}

/* 02 is current from here on. What other threads read is valid before they can find it. */
static void become_nested(struct vapic *v, enum vapic_nested_state state)
{
    v->accel->in_l2 = true;
    set_state(v, state);
    if (!MUTANT(NESTED_KEEPS_RUNNING))
        set_own(v, VAPIC_INHIBIT_NESTED, true);
    if (nested_virtualized(v) && state != VAPIC_NESTED_RESTORED)
        nested_ops(v)->publish(v);
}

static int take(struct vapic *v, const struct vapic_nested_view *view)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (nv == NULL)
        return view == NULL ? VAPIC_OK : VAPIC_E_ARG;
    if (nv->state != VAPIC_NESTED_L1)
        return VAPIC_E_ARG;
    nv->virtualized = false;
    nv->started = false;
    /* `pending` stays: it may be of a sender that has found this L2 already, by the same vector. A
     * look too many at the descriptor is harmless. */
    if (view == NULL)
        return VAPIC_OK;
    return nested_ops(v)->take(v, view);
}

static bool nested_ops_check(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    return nv != NULL && nv->virtualized && nested_ops(v)->check_memory != NULL;
}

int vapic_nested_enter(struct vapic *v, const struct vapic_nested_view *view)
{
    int result;

    if (v->accel == NULL)
        return view == NULL ? VAPIC_OK : VAPIC_E_ARG;
    result = take(v, view);
    if (result == VAPIC_OK && v->accel->nested != NULL && v->accel->nested->virtualized)
        result = map(v);
    if (result == VAPIC_OK && nested_ops_check(v))
        result = nested_ops(v)->check_memory(v);
    if (result == VAPIC_OK)
        become_nested(v, VAPIC_NESTED_ENTERING);
    return result;
}

int vapic_nested_restore(struct vapic *v, const struct vapic_nested_view *view, bool ran)
{
    int result;

    if (v->accel == NULL)
        return view == NULL ? VAPIC_OK : VAPIC_E_ARG;
    result = take(v, view);
    if (result != VAPIC_OK)
        return result;
    if (v->accel->nested != NULL)
        v->accel->nested->ran = ran;
    become_nested(v, VAPIC_NESTED_RESTORED);
    if (MUTANT(NESTED_UPDATE_DROPPED))
        v->accel->served = vapic_load32(&v->vm->generation, VAPIC_SEQ_CST);
    return VAPIC_OK;
}

int vapic_nested_restore_copied(struct vapic *v, bool ran)
{
    /* Without a view take() only prepares. */
    int result = take(v, NULL);

    if (result == VAPIC_OK)
        result = nested_ops(v)->retake(v);
    if (result != VAPIC_OK)
        return result;
    v->accel->nested->ran = ran;
    become_nested(v, VAPIC_NESTED_RESTORED);
    return VAPIC_OK;
}

void vapic_nested_ran(struct vapic *v)
{
    if (vapic_nested_state(v) == VAPIC_NESTED_ENTERING)
        set_state(v, VAPIC_NESTED_L2);
}

void vapic_nested_leave(struct vapic *v, struct vapic_nested_left *left)
{
    zero_bytes(left, sizeof(*left));
    if (v->accel == NULL)
        return;
    if (nested_virtualized(v))
        nested_ops(v)->leave(v, left);
    set_state(v, VAPIC_NESTED_LEAVING);
}

void vapic_nested_exit(struct vapic *v)
{
    if (v->accel == NULL || !v->accel->in_l2)
        return;
    v->accel->in_l2 = false;
    set_state(v, VAPIC_NESTED_L1);
    if (!MUTANT(NESTED_STAYS_INHIBITED))
        set_own(v, VAPIC_INHIBIT_NESTED, false);
    if (v->vm->backend->nested_exit != NULL && !MUTANT(NESTED_EXIT_FORGETS))
        v->vm->backend->nested_exit(v);
}

static void forget_posts(struct vapic_nested_vcpu *nv)
{
    vapic_store32(&nv->named, false, VAPIC_SEQ_CST);
    vapic_store32(&nv->pending, 0, VAPIC_SEQ_CST);
    vapic_and64(&nv->posted.control, ~(uint64_t)PID_ON, VAPIC_SEQ_CST);
    for (uint32_t i = 0; i < 4; i++)
        vapic_store64(&nv->posted.pir[i], 0, VAPIC_SEQ_CST);
}

void vapic_nested_abandon(struct vapic *v)
{
    enum vapic_nested_state state = vapic_nested_state(v);

    if (v->accel == NULL || !v->accel->in_l2)
        return;
    if (nested_virtualized(v) && state != VAPIC_NESTED_RESTORED && state != VAPIC_NESTED_LEAVING)
        nested_ops(v)->leave(v, NULL);
    if (v->accel->nested != NULL)
        forget_posts(v->accel->nested);
    vapic_nested_exit(v);
}

int vapic_nested_acknowledge(struct vapic *v)
{
    int vector;

    if (vapic_lapic_extint(v))
        return VAPIC_NESTED_EXTINT;
    vector = vapic_lapic_pending(v);
    if (vector >= 0)
        vapic_lapic_ack(v, (uint8_t)vector);
    return vector;
}

/* ---- What vapic_enter() and vapic_block() ask ---- */

static bool l2_open(uint32_t can)
{
    return (can & (VAPIC_IF | VAPIC_CAN_IRQ)) != 0;
}

/* Would an interrupt of L1's end HLT of L2, by an exit or in L2? */
static bool l1_open(const struct vapic *v, uint32_t can)
{
    const struct nested_ops *ops = nested_ops(v);

    return v->accel->nested->virtualized && ops->l1_intercepts(v) ? ops->l1_open(v, can)
                                                                  : l2_open(can);
}

/* Outside, no lock held: before the presence is announced. */
void vapic_nested_prepare(struct vapic *v, uint32_t can)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    bool restored = nv->state == VAPIC_NESTED_RESTORED;

    /* Who posts for L1 must not be silenced because L2 sleeps with its interrupts off. */
    v->accel->can_irq = l1_open(v, can);
    nv->can_irq = l2_open(can);
    if (!nv->virtualized) {
        if (restored)
            set_state(v, nv->ran ? VAPIC_NESTED_L2 : VAPIC_NESTED_ENTERING);
        return;
    }
    if (nv->mapped && !restored && !must_look_again(nv))
        return;
    if (map(v) != VAPIC_OK || !restored)
        return;
    set_state(v, nv->ran ? VAPIC_NESTED_L2 : VAPIC_NESTED_ENTERING);
    nested_ops(v)->publish(v);
}

/* After the presence was announced. Without pages there is nothing to enter that could change. */
bool vapic_nested_prepared(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    return !nested_virtualized(v) || !nv->mapped || !must_look_again(nv) ||
           MUTANT(NESTED_PAGES_NOT_RECHECKED);
}

static bool l1_waits(const struct vapic *v)
{
    return vapic_lapic_extint(v) || vapic_lapic_pending(v) >= 0;
}

/* L1's interrupts: an exit of L2 to L1, once L2 may be left at all. */
static void choose(struct vapic *v, uint32_t can, struct vapic_entry *entry)
{
    const struct nested_ops *ops = nested_ops(v);
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (!nv->virtualized || !ops->l1_intercepts(v))
        return;
    if (entry->inject == VAPIC_INJECT_VECTOR || entry->inject == VAPIC_INJECT_EXTINT)
        entry->inject = VAPIC_INJECT_NONE;
    entry->irq_window = false;
    if (!ops->l1_open(v, can)) {
        entry->irq_window = l1_waits(v) && ops->l1_window != NULL && ops->l1_window(v);
        return;
    }
    while (!vapic_lapic_extint(v)) {
        int vector = vapic_lapic_pending(v);

        if (vector < 0)
            return;
        if (ops->consume == NULL || !ops->consume(v, vector))
            break;
    }
    /* An instruction of L2's that awaits completion is completed before. */
    if (nv->state == VAPIC_NESTED_ENTERING || can & VAPIC_INCOMPLETE)
        entry->nested = VAPIC_NESTED_SOON;
    else
        entry->nested = VAPIC_NESTED_LEAVE;
}

/* Last part of the look, announced; entry->runnable says whether the owner would run. False: it
 * does not; also when it sleeps in L2, and what could wake it is no longer known. */
bool vapic_nested_choose(struct vapic *v, uint32_t can, struct vapic_entry *entry)
{
    if (v->accel->nested->virtualized && !v->accel->nested->mapped) {
        entry->inject = VAPIC_INJECT_NONE;
        entry->nested = VAPIC_NESTED_STOP;
        return false;
    }
    if (!entry->runnable) {
        if (nested_virtualized(v) && nested_ops(v)->asleep != NULL)
            nested_ops(v)->asleep(v);
        return false;
    }
    choose(v, can, entry);
    if (nested_virtualized(v))
        nested_ops(v)->enter(v);
    v->accel->nested->window = entry->irq_window;
    /* 02 is not entered, and what comes next may take the lock: its holder may be waiting for this
     * vCPU to be outside. */
    if (entry->nested == VAPIC_NESTED_LEAVE)
        vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    return true;
}

/* Ends HLT of L2: an interrupt of its own, or one of L1's that it would exit for or take. */
bool vapic_nested_wakes(const struct vapic *v, uint32_t can)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (l1_open(v, can) && l1_waits(v))
        return true;
    return l2_open(can) && nv->virtualized && nv->mapped && nested_ops(v)->l2_due(v);
}

/* After the presence "blocked" was announced: has something come for L2? */
bool vapic_nested_must_look(const struct vapic *v)
{
    return nested_virtualized(v) && v->accel->nested->can_irq &&
           (!v->accel->nested->mapped || must_look_again(v->accel->nested) ||
            (nested_ops(v)->l2_due(v) && !MUTANT(NESTED_SEEN_EARLY)));
}

/* ---- Senders and the scheduler ---- */

/*
 * L1's software posted into the descriptor of its L2 and sends the notification vector. The latch
 * before the look where the target is (SEQ_CST both); the owner announces where it is before it
 * looks at the latch: protocol "post" with `pending` for ON.
 *
 * Whoever leaves L2 withdraws the vector first and looks at the latch then. So a sender that had
 * read the vector before looks whether it is still there after it has set the latch: one of the two
 * sees the other. (Both may: L1 then gets a notification for what its L2 has already.) If another
 * L2 is there by then, with the same vector, its entry looks at its descriptor.
 */
bool vapic_nested_post(struct vapic *v, uint32_t vector, enum vapic_action *action)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    uint32_t where = MUTANT(NESTED_LATCHED_LATE) ? vapic_load32(&v->presence, VAPIC_SEQ_CST) : 0;

    vapic_xchg32(&nv->pending, 1, VAPIC_SEQ_CST);
    if (vapic_load32(&v->nested_vector, VAPIC_SEQ_CST) != vector)
        return false;
    if (!MUTANT(NESTED_LATCHED_LATE))
        where = vapic_load32(&v->presence, VAPIC_SEQ_CST);
    *action = (enum vapic_action)where;
    if (where == PRESENCE_GUEST || where == PRESENCE_ACCEL)
        *action = vapic_load32(&nv->named, VAPIC_SEQ_CST) ? VAPIC_ACTION_KICK : VAPIC_ACTION_NESTED;
    return true;
}

static bool announced(const struct vapic_nested_vcpu *nv)
{
    return (vapic_load64(&nv->posted.control, VAPIC_SEQ_CST) & PID_ON) != 0;
}

bool vapic_nested_posted(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    return announced(nv) ||
           (nested_virtualized(v) && vapic_load32(&nv->pending, VAPIC_SEQ_CST) != 0);
}

void vapic_nested_late(struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (nested_ops(v)->late != NULL && !MUTANT(NESTED_LATE_POST_STAYS) && announced(nv) &&
        !vapic_load32(&nv->named, VAPIC_RELAXED))
        nested_ops(v)->late(v);
}

void vapic_nested_load(struct vapic *v)
{
    if (nested_ops(v)->load != NULL)
        nested_ops(v)->load(v);
}

void vapic_nested_put(struct vapic *v, bool blocking)
{
    if (nested_ops(v)->put != NULL)
        nested_ops(v)->put(v, blocking);
}
