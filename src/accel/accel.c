/* SPDX-License-Identifier: MIT */
/*
 * What both back ends have in common: attaching, when a vCPU is accelerated, where it runs, writes
 * that the processor has stored already, and the calls from the core into the back end.
 *
 * A vCPU is active when no reason inhibits it or its VM, and its APIC is globally enabled. (Not
 * also software enabled: the access page is mapped for all vCPUs or for none, and one that is not
 * active would find ordinary memory there instead of the SVR that it has to write.) The decision is
 * made by the owner under the configuration lock, when the generation of the VM's reasons is not
 * the one it has served: protocol "inhibit" (inhibit.c). Whatever else may change it (mode,
 * enablement, state load, nesting) sets the served generation to 0, so that the next entry decides
 * anew; there is no second way.
 */
#include "../bytes.h"
#include "backend.h"

/* ---- The VM ---- */

static const struct vapic_backend *backend_of(enum vapic_accel_kind kind)
{
    return kind == VAPIC_ACCEL_AVIC ? &vapic_avic_backend : &vapic_apicv_backend;
}

size_t vapic_accel_memory(const struct vapic_accel_config *config)
{
    if (config == NULL)
        return 0;
    switch (config->kind) {
    case VAPIC_ACCEL_AVIC:
        return vapic_avic_memory(config);
    case VAPIC_ACCEL_APICV:
        return vapic_apicv_memory(config);
    case VAPIC_ACCEL_NONE:
        break;
    }
    return 0;
}

static bool host_complete(const struct vapic_host *h, enum vapic_accel_kind kind)
{
    if (!h->physical || !h->kick_all || !h->access_page || !h->flush || !h->intercept ||
        !h->spin_lock || !h->spin_unlock)
        return false;
    return kind == VAPIC_ACCEL_AVIC || (h->control && h->interrupt_status);
}

static void copy_config(struct vapic_accel *accel, const struct vapic_accel_config *c)
{
    accel->kind = c->kind;
    accel->features = c->features;
    accel->max_id = c->max_id;
    accel->notify_vector = c->notify_vector;
    accel->wakeup_vector = c->wakeup_vector;
    accel->vm_tag = c->vm_tag;
    accel->platform = c->platform;
    accel->disabled = c->disabled;
}

static void install(struct vapic_accel *accel, struct vapic_vm *vm)
{
    enum vapic_inhibit first = accel->disabled ? VAPIC_INHIBIT_DISABLED : VAPIC_INHIBIT_ABSENT;

    vm->accel = accel;
    vm->backend = backend_of(accel->kind);
    vm->post = accel->kind == VAPIC_ACCEL_AVIC ? POST_PAGE : POST_SPLIT;
    vm->generation = 2;
    vm->inhibits = UINT64_C(1) << first;
    vm->derived = 1u << first;
    TRACE(vm, APICV_INHIBIT_CHANGED, VAPIC_NO_INDEX, first, true, vm->inhibits, 0);
}

int vapic_accel_init(struct vapic_accel *accel, size_t size, struct vapic_vm *vm,
                     const struct vapic_accel_config *config, void *memory, size_t memory_size)
{
    size_t needed = vapic_accel_memory(config);

    if (size != sizeof(*accel))
        return VAPIC_E_SIZE;
    /* A GA log that nobody can look up would leave vCPUs asleep. */
    if (config != NULL && config->vm_tag != 0 && config->platform == NULL)
        return VAPIC_E_ARG;
    if (accel == NULL || vm == NULL || needed == 0 || memory == NULL ||
        ((uintptr_t)memory & (APIC_PAGE_SIZE - 1)) != 0 || !host_complete(&vm->host, config->kind))
        return VAPIC_E_ARG;
    if (vm->accel != NULL || vm->top != 0)
        return VAPIC_E_BUSY;
    if (memory_size < needed)
        return VAPIC_E_SIZE;
    zero_bytes(accel, sizeof(*accel));
    zero_bytes(memory, needed);
    accel->vm = vm;
    copy_config(accel, config);
    if (accel->kind == VAPIC_ACCEL_AVIC)
        vapic_avic_place(accel, memory);
    else
        vapic_apicv_place(accel, memory);
    if (vapic_avic_join(accel) != VAPIC_OK)
        return VAPIC_E_EXIST;
    install(accel, vm);
    return VAPIC_OK;
}

void vapic_accel_fini(struct vapic_accel *accel)
{
    vapic_avic_leave(accel);
}

int vapic_pcpu_init(struct vapic_pcpu *pcpu, size_t size, uint32_t apic_id)
{
    if (size != sizeof(*pcpu))
        return VAPIC_E_SIZE;
    zero_bytes(pcpu, sizeof(*pcpu));
    pcpu->apic_id = apic_id;
    return VAPIC_OK;
}

/* ---- A vCPU ---- */

int vapic_accel_attach(struct vapic *v, struct vapic_accel_vcpu *av, size_t size,
                       const struct vapic_accel_vcpu_config *config)
{
    struct vapic_vm *vm = v->vm;
    struct vapic_accel *accel = vm->accel;

    if (size != sizeof(*av))
        return VAPIC_E_SIZE;
    if (av == NULL || accel == NULL || v->accel != NULL || v->index != VAPIC_NO_INDEX ||
        v->id > accel->max_id)
        return VAPIC_E_ARG;
    if (accel->kind == VAPIC_ACCEL_AVIC && (config == NULL || config->vmcb == NULL))
        return VAPIC_E_ARG;
    zero_bytes(av, sizeof(*av));
    av->v = v;
    av->vmcb = config != NULL ? config->vmcb : NULL;
    v->accel = av;
    vm->host.lock(vm->ctx);
    if (v->id > accel->table_limit)
        vapic_inhibit_locked(vm, VAPIC_INHIBIT_PHYSICAL_ID_TOO_BIG, true);
    vm->backend->attach(v);
    if (MUTANT(CREATED_WITHOUT_UPDATE) && vapic_inhibits(vm).bits == 0) {
        vapic_store32(&v->active, true, VAPIC_RELAXED);
        vm->backend->refresh(v, false);
    }
    vm->host.unlock(vm->ctx);
    return VAPIC_OK;
}

void vapic_accel_added(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;

    if (vapic_inhibits(vm).bits & INHIBIT_BIT(ABSENT))
        vapic_inhibit_locked(vm, VAPIC_INHIBIT_ABSENT, false);
    vapic_accel_identity(v);
    if (MUTANT(CREATED_WITHOUT_UPDATE) && is_active(v))
        v->accel->served = vm->generation;
}

/* Under the lock. */
static void drop_window(struct vapic *v)
{
    if (v->accel->irqwin && !MUTANT(WINDOW_LEAKS))
        vapic_inhibit_irqwin_locked(v->vm, false);
    v->accel->irqwin = false;
}

void vapic_accel_removed(struct vapic *v)
{
    v->vm->backend->detach(v);
    vapic_nested_withdrawn(v);
    /* Behind both: a processor in the middle of an IPI may still hold the address of the page, or
     * of a descriptor; who enters from now on finds none. */
    v->vm->host.kick_all(v->vm->ctx);
    vapic_nested_removed(v);
    drop_window(v);
    /* A late put, load or unblock of its thread must not touch the entry of a successor. */
    vapic_store32(&v->active, 0, VAPIC_RELAXED);
    vapic_accel_request(v);
    vapic_alias_evaluate(v->vm);
}

void vapic_accel_identity(struct vapic *v)
{
    v->vm->backend->identity(v);
    vapic_alias_evaluate(v->vm);
    if (!MUTANT(CREATED_WITHOUT_UPDATE))
        vapic_accel_request(v);
    /* RESET by another thread than its owner's, who may sleep on: nothing waits any more. */
    if (!vapic_lapic_extint(v))
        drop_window(v);
}

/* ---- Deciding ---- */

static bool same_pass(const struct vapic_msr_pass *a, const struct vapic_msr_pass *b)
{
    for (uint32_t i = 0; i < 4; i++)
        if (a->read[i] != b->read[i] || a->write[i] != b->write[i])
            return false;
    return true;
}

void vapic_accel_tell_pass(struct vapic *v, const struct vapic_msr_pass *pass)
{
    struct vapic_accel_vcpu *av = v->accel;

    if (av->told.valid && same_pass(pass, &av->told.pass))
        return;
    av->told.pass = *pass;
    av->told.valid = true;
    v->vm->host.intercept(v->vm->ctx, v, pass);
}

static bool may_be_active(const struct vapic *v)
{
    return (vapic_inhibits(v->vm).bits | v->accel->own_reasons) == 0 && apic_enabled(v);
}

/*
 * Silicon that redirects the page's accesses of every vCPU to its register page, whatever mode its
 * APIC is in: no vCPU in x2APIC mode may enter while the page is mapped for any.
 */
static void withdraw_page_for_x2apic(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;

    if (in_x2apic(v) && vm->backend->hybrid(vm->accel) && !vm->page_withdrawn &&
        !MUTANT(HYBRID_KEEPS_PAGE))
        vapic_inhibit_withdraw_page(vm);
}

/* With the lock held, outside the guest. */
static void decide(struct vapic *v)
{
    bool was = is_active(v), now;

    withdraw_page_for_x2apic(v);
    now = may_be_active(v);
    vapic_store32(&v->active, now, VAPIC_RELAXED);
    if (now && !was)
        v->isr_touched = true;
    v->vm->backend->refresh(v, was);
    if (!now)
        vapic_lapic_recount(v);
    v->accel->served = v->vm->generation;
}

/* (b) of protocol "inhibit"; SEQ_CST: behind the announcement of the entry. */
bool vapic_accel_prepared(const struct vapic *v)
{
    return v->accel->served == vapic_load32(&v->vm->generation, VAPIC_SEQ_CST) &&
           (LIKELY(!in_nested(v)) || vapic_nested_prepared(v));
}

/* No lock held, outside the guest. */
static void set_window(struct vapic *v, bool wanted)
{
    v->accel->irqwin = wanted;
    vapic_inhibit_irqwin(v->vm, wanted);
}

/*
 * AVIC cannot open an interrupt window. While one is wanted the VM runs without it; the request
 * ends when nothing waits for the window any more.
 */
static void settle_window(struct vapic *v, uint32_t can)
{
    struct vapic_accel_vcpu *av = v->accel;
    bool waits = vapic_lapic_extint(v);
    /* One that sleeps with interrupts off waits for no window. */
    bool wanted =
        waits && !(can & VAPIC_CAN_IRQ) && (v->activity == VAPIC_RUNNING || can & VAPIC_IF);

    if (!(v->vm->backend->honours & INHIBIT_BIT(IRQWIN)) || v->vm->accel->disabled)
        return;
    if (wanted && !av->irqwin && !av->in_l2)
        set_window(v, true);
    else if (av->irqwin && !(wanted || (waits && can & VAPIC_CAN_IRQ)) && !MUTANT(WINDOW_STAYS))
        set_window(v, false);
}

/*
 * What settle_window() could not know: the ExtINT came after it, or an NMI goes first. (With a
 * request open already the VM is inhibited, unless somebody else's change has just ended that: then
 * the next look decides anew.)
 */
bool vapic_accel_opens_window(struct vapic *v, const struct vapic_entry *entry)
{
    if (!entry->irq_window || !by_hardware(v) || !(v->vm->backend->honours & INHIBIT_BIT(IRQWIN)))
        return false;
    vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    if (!v->accel->irqwin)
        set_window(v, true);
    return true;
}

void vapic_accel_prepare(struct vapic *v, uint32_t can)
{
    struct vapic_vm *vm = v->vm;

    v->accel->can_irq = (can & (VAPIC_IF | VAPIC_CAN_IRQ)) != 0;
    if (UNLIKELY(v->accel->nested != NULL))
        vapic_nested_late(v);
    /* The pages of 12 before anything that concerns L1: they may not be there yet. */
    if (UNLIKELY(in_nested(v)))
        vapic_nested_prepare(v, can);
    settle_window(v, can);
    if (LIKELY(vapic_accel_prepared(v)))
        return;
    if (MUTANT(DECIDED_UNLOCKED)) {
        decide(v);
        return;
    }
    vm->host.lock(vm->ctx);
    decide(v);
    vm->host.unlock(vm->ctx);
}

/* ---- Entry and exit ---- */

static const uint16_t trap_regs[] = {
    APIC_ID,           APIC_LDR,          APIC_DFR,          APIC_SVR,     APIC_ESR,
    APIC_LVT_CMCI,     APIC_LVT_TIMER,    APIC_LVT_THERMAL,  APIC_LVT_PMC, APIC_LVT_LINT0,
    APIC_LVT_LINT1,    APIC_LVT_ERROR,    APIC_TMICT,        APIC_TDCR,    APIC_EILVT,
    APIC_EILVT + 0x10, APIC_EILVT + 0x20, APIC_EILVT + 0x30,
};

#define TRAP_REGS (sizeof(trap_regs) / sizeof(trap_regs[0]))
_Static_assert(TRAP_REGS <= VAPIC_TRAP_REGS, "written[] has room for all of them");

/* Four at a time, with every entry: the loop costs more than what it does. */
static inline void note_four(const struct vapic *v, uint32_t *written, uint32_t i)
{
    written[i] = reg(v, trap_regs[i]);
    written[i + 1] = reg(v, trap_regs[i + 1]);
    written[i + 2] = reg(v, trap_regs[i + 2]);
    written[i + 3] = reg(v, trap_regs[i + 3]);
}

_Static_assert(TRAP_REGS == 18, "note_registers() notes all of them");

static void note_registers(struct vapic *v)
{
    uint32_t *written = v->accel->written;

    note_four(v, written, 0);
    note_four(v, written, 4);
    note_four(v, written, 8);
    note_four(v, written, 12);
    written[16] = reg(v, trap_regs[16]);
    written[17] = reg(v, trap_regs[17]);
}

void vapic_accel_enter(struct vapic *v, const struct vapic_entry *entry)
{
    if (is_active(v))
        note_registers(v);
    v->vm->backend->enter(v, entry);
}

void vapic_accel_exit(struct vapic *v)
{
    v->vm->backend->exit(v);
    vapic_lapic_recount(v);
}

/* What written[] holds for `offset`; NULL when it is no register of trap_regs[]. */
static uint32_t *noted(struct vapic *v, uint32_t offset)
{
    for (uint32_t i = 0; i < TRAP_REGS; i++)
        if (trap_regs[i] == offset)
            return &v->accel->written[i];
    return NULL;
}

void vapic_trap_undo(struct vapic *v, uint32_t offset)
{
    uint32_t *old = noted(v, offset);

    if (old != NULL)
        set_reg(v, offset, *old);
}

/*
 * The page holds what the guest wrote; what the register was before decides what the write means
 * (an SVR that was enabled, the remote IRR of an LVT entry). So the old value goes back, and the
 * write is then made as if nothing had happened. The guest does not run meanwhile.
 */
static void write_again(struct vapic *v, uint32_t offset, struct vapic_now now)
{
    uint32_t *old = noted(v, offset), value = reg(v, offset);

    if (old != NULL)
        set_reg(v, offset, *old);
    vapic_lapic_write(v, offset, value, now);
    if (old != NULL)
        *old = reg(v, offset);
}

static void send_stored(struct vapic *v)
{
    uint32_t high = reg(v, vapic_lapic_icr_high_offset(v));

    vapic_lapic_send(v, reg(v, APIC_ICR), in_x2apic(v) ? high : high >> 24);
}

void vapic_trap_write(struct vapic *v, uint32_t offset, struct vapic_now now)
{
    offset &= 0xFF0;
    if (v->accel == NULL)
        return;
    if (offset == APIC_EOI)
        vapic_eoi(v);
    else if (offset == APIC_ICR)
        send_stored(v);
    else
        write_again(v, offset, now);
}

/* ---- Scheduling ---- */

static void publish(struct vapic *v)
{
    struct vapic_accel_vcpu *av = v->accel;

    /* Relaxed: a stale ID makes a doorbell spurious, and the entry on the new processor looks. */
    vapic_store32(&av->doorbell, av->pcpu->apic_id + 1, VAPIC_RELAXED);
    av->loaded = true;
    v->vm->backend->load(v);
    if (UNLIKELY(av->nested != NULL))
        vapic_nested_load(v);
}

static void withdraw(struct vapic *v, bool blocking)
{
    v->accel->loaded = false;
    v->vm->backend->put(v, blocking);
    if (UNLIKELY(v->accel->nested != NULL))
        vapic_nested_put(v, blocking);
    vapic_store32(&v->accel->doorbell, 0, VAPIC_RELAXED);
}

void vapic_load(struct vapic *v, struct vapic_pcpu *pcpu)
{
    if (v->accel == NULL)
        return;
    v->accel->pcpu = pcpu;
    /* While it sleeps, waking it is all that senders may do; unblock publishes it. */
    if (!v->accel->blocking)
        publish(v);
}

void vapic_put(struct vapic *v)
{
    if (v->accel == NULL)
        return;
    if (v->accel->loaded)
        withdraw(v, false);
    v->accel->pcpu = NULL;
}

bool vapic_doorbell_id(const struct vapic *v, uint32_t *apic_id)
{
    uint32_t at = v->accel != NULL ? vapic_load32(&v->accel->doorbell, VAPIC_RELAXED) : 0;

    *apic_id = at - 1;
    return at != 0;
}

/*
 * Protocol "block", after the presence has been announced: not running (so that hardware that posts
 * asks for a wake-up), then look again. put() ends with a SEQ_CST read-modify-write.
 */
void vapic_accel_block(struct vapic *v)
{
    v->accel->blocking = true;
    /* Also when it is not loaded any more: preempted just now, it was withdrawn for that only. */
    if (v->accel->pcpu != NULL)
        withdraw(v, true);
}

/* Hardware sets IRR (AVIC) without ON. While interrupts cannot end the sleep they do not matter. */
bool vapic_accel_must_look(struct vapic *v)
{
    if (UNLIKELY(v->accel->nested != NULL) &&
        (vapic_nested_posted(v) || (in_nested(v) && vapic_nested_must_look(v))))
        return true;
    if (v->vm->post != POST_PAGE || !v->accel->can_irq || MUTANT(IRR_NOT_LOOKED_AT))
        return false;
    vapic_lapic_harvest(v);
    return vapic_lapic_pending(v) >= 0;
}

void vapic_accel_unblock(struct vapic *v)
{
    v->accel->blocking = false;
    if (v->accel->pcpu != NULL && !v->accel->loaded)
        publish(v);
}
