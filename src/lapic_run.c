/* SPDX-License-Identifier: MIT */
/*
 * The run loop's side of the library: what has to happen before an entry, what was injected, what
 * the exit showed, and sleeping. Called by the owner only.
 */
#include "internal.h"

/*
 * Where the owner is, for senders (protocol "post", internal.h). An exchange, because it must be
 * seen before the following load of ON is performed.
 */
static void announce(struct vapic *v, enum presence where)
{
    if (MUTANT(ANNOUNCE_UNORDERED))
        vapic_store32(&v->presence, where, VAPIC_RELEASE);
    else
        vapic_xchg32(&v->presence, where, VAPIC_SEQ_CST);
}

static bool attention(const struct vapic *v)
{
    /* SEQ_CST: the owner's second step of protocol "post", after the exchange in announce(). */
    return (vapic_load64(&v->pid.control, VAPIC_SEQ_CST) & PID_ON) != 0;
}

static uint32_t events(const struct vapic *v)
{
    return vapic_load32(&v->events, VAPIC_ACQUIRE);
}

/* ---- INIT and SIPI [SDM3 10.4] ---- */

static void take_init(struct vapic *v, struct vapic_entry *entry)
{
    /* Who waits for all vCPUs to leave the guest may hold the lock that this one is about to take.
     */
    vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    /* INIT forgets what waited for the processor before it; the wires keep their level. */
    vapic_and32(&v->events, ~(EV_INIT | EV_NMI | EV_SMI | EV_REMOTE | EV_OWNER), VAPIC_SEQ_CST);
    vapic_lapic_reset_registers(v, true);
    v->activity = v->apic_base & APIC_BASE_BSP ? VAPIC_RUNNING : VAPIC_WAIT_FOR_SIPI;
    if (v->index != VAPIC_NO_INDEX)
        vapic_fabric_update(v);
    entry->event = VAPIC_CPU_INIT;
    entry->runnable = v->activity == VAPIC_RUNNING;
    TRACE(v->vm, CPU_EVENT, v->index, v->id, VAPIC_CPU_INIT, 0, 0);
}

/*
 * A SIPI that finds the processor not waiting for one has no effect [SDM3 10.4.2]. One behind an
 * INIT that came meanwhile belongs to the life after that INIT: it must stay latched for it.
 */
static void take_sipi(struct vapic *v, struct vapic_entry *entry)
{
    uint32_t old = events(v);

    do {
        if (!(old & EV_SIPI) || (old & EV_INIT && !MUTANT(SIPI_BEFORE_INIT)))
            return;
        if (MUTANT(SIPI_CLEARED_LATE))
            break;
    } while (!vapic_cas32(&v->events, &old, old & ~(EV_SIPI | EV_SIPI_VECTOR), VAPIC_SEQ_CST));
    if (MUTANT(SIPI_CLEARED_LATE))
        vapic_and32(&v->events, ~(EV_SIPI | EV_SIPI_VECTOR), VAPIC_SEQ_CST);
    if (v->activity != VAPIC_WAIT_FOR_SIPI)
        return;
    v->activity = VAPIC_RUNNING;
    entry->event = VAPIC_CPU_SIPI;
    entry->vector = (uint8_t)(old >> EV_SIPI_VECTOR_SHIFT);
    entry->runnable = true;
    TRACE(v->vm, CPU_EVENT, v->index, v->id, VAPIC_CPU_SIPI, entry->vector, 0);
}

/* While INIT is blocked it stays latched, and a SIPI is lost [SDM3 25.8]. */
static NOINLINE void start_up(struct vapic *v, uint32_t can, struct vapic_entry *entry)
{
    uint32_t now = events(v);

    if (now & EV_INIT && can & VAPIC_CAN_INIT)
        take_init(v, entry);
    else if (now & EV_INIT)
        vapic_and32(&v->events, ~(EV_SIPI | EV_SIPI_VECTOR), VAPIC_SEQ_CST);
    else if (now & EV_SIPI)
        take_sipi(v, entry);
}

/* ---- What to inject [SDM3 7.9] ---- */

/* Only one NMI is remembered behind the one in service [SDM3 7.7.1]. */
static NOINLINE void limit_nmis(struct vapic *v)
{
    uint32_t old = events(v);

    while ((old & EV_NMI) > EV_NMI_ONE &&
           !vapic_cas32(&v->events, &old, (old & ~EV_NMI) | EV_NMI_ONE, VAPIC_SEQ_CST))
        ;
}

static ALWAYS_INLINE void inject_vector(struct vapic *v, uint32_t can, bool alone,
                                        struct vapic_entry *entry)
{
    bool extint = vapic_lapic_extint(v);
    /* An active vCPU's vectors are the processor's business. */
    int vector = !alone && by_hardware(v) ? -1 : vapic_lapic_pending(v);

    if (!extint && vector < 0)
        return;
    if (entry->inject != VAPIC_INJECT_NONE || !(can & VAPIC_CAN_IRQ)) {
        entry->irq_window = true;
        return;
    }
    entry->inject = extint ? VAPIC_INJECT_EXTINT : VAPIC_INJECT_VECTOR;
    entry->vector = extint ? 0 : (uint8_t)vector;
    /* The 8259 may have more, and it is not the library that knows; a vector waits meanwhile. */
    entry->irq_window = extint && vector >= 0;
}

static ALWAYS_INLINE void choose(struct vapic *v, uint32_t can, bool alone,
                                 struct vapic_entry *entry)
{
    uint32_t now = events(v);

    if (can & VAPIC_INCOMPLETE)
        can &= ~(uint32_t)(VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_SMI);
    if (now & EV_SMI && can & VAPIC_CAN_SMI)
        entry->inject = VAPIC_INJECT_SMI;
    else if (now & EV_NMI && can & VAPIC_CAN_NMI)
        entry->inject = VAPIC_INJECT_NMI;
    entry->smi_window = now & EV_SMI && entry->inject != VAPIC_INJECT_SMI;
    /* Of two NMIs the second waits for the IRET of the first. */
    entry->nmi_window = (now & EV_NMI) > (entry->inject == VAPIC_INJECT_NMI ? EV_NMI_ONE : 0);
    inject_vector(v, can, alone, entry);
}

/* What ends HLT [SDM2 HLT]: an enabled interrupt, NMI, SMI (INIT has been handled before). */
static NOINLINE bool wakes(const struct vapic *v, uint32_t can)
{
    uint32_t now = events(v);

    if (now & EV_REMOTE || (now & EV_SMI && can & VAPIC_CAN_SMI))
        return true;
    /* An NMI that waits for the IRET of another one ends nothing [SDM3 7.7.1]. */
    if (now & EV_NMI && !(can & VAPIC_NMI_MASKED))
        return true;
    if (UNLIKELY(in_nested(v)))
        return vapic_nested_wakes(v, can);
    return can & (VAPIC_IF | VAPIC_CAN_IRQ) &&
           (vapic_lapic_extint(v) || vapic_lapic_pending(v) >= 0);
}

static ALWAYS_INLINE bool runs(struct vapic *v, uint32_t can)
{
    if (v->activity == VAPIC_HALTED && wakes(v, can))
        v->activity = VAPIC_RUNNING;
    if (events(v) & EV_REMOTE)
        vapic_and32(&v->events, ~EV_REMOTE, VAPIC_SEQ_CST);
    return v->activity == VAPIC_RUNNING;
}

static NOINLINE void take_events(struct vapic *v)
{
    vapic_lapic_local_events(v);
    if (vapic_and32(&v->events, ~EV_TIMER, VAPIC_SEQ_CST) & EV_TIMER && !MUTANT(TIMER_NOT_RETOLD))
        vapic_timer_retell(v);
}

/* ON goes first: what is posted after it was cleared sets it again (protocol "post"). */
static ALWAYS_INLINE void take_posted(struct vapic *v)
{
    if (MUTANT(ON_CLEARED_LATE))
        vapic_lapic_harvest(v);
    vapic_and64(&v->pid.control, ~(uint64_t)PID_ON, VAPIC_SEQ_CST);
    if (!MUTANT(ON_CLEARED_LATE))
        vapic_lapic_harvest(v);
    if (UNLIKELY(events(v) & (EV_TIMER | EV_OWNER)))
        take_events(v);
}

/*
 * In a VM with a back end a clear ON says little. AVIC's hardware posts without it. APICv's clears
 * it when it takes PIR over in the guest, also when software had set it for something that no
 * hardware takes: levels, events.
 */
static NOINLINE void take_unannounced(struct vapic *v)
{
    vapic_lapic_harvest(v);
    if (events(v) & (EV_TIMER | EV_OWNER))
        take_events(v);
}

static ALWAYS_INLINE void collect(struct vapic *v, uint32_t can, bool alone, struct vapic_now now)
{
    if (attention(v))
        take_posted(v);
    else if (!alone && v->vm->post != POST_PIR && !MUTANT(ON_TRUSTED_AT_ENTRY))
        take_unannounced(v);
    vapic_timer_run(v, now);
    if (can & VAPIC_NMI_MASKED)
        limit_nmis(v);
    if (can & VAPIC_CAN_IRQ)
        v->injected_kind = VAPIC_INJECT_NONE; /* the slot is free: what was in it was taken */
}

/*
 * Announces the entry. `alone`, here and below: the VM has no back end, a constant where it is
 * given. In a VM with one the state of the inhibition is settled before and
 * looked at again after: protocol "inhibit" (inhibit.c).
 */
static ALWAYS_INLINE void announce_entry(struct vapic *v, uint32_t can, bool alone)
{
    const bool settles = !alone && v->accel != NULL;

    /* A host may ask twice before it enters. Who may take the lock must be outside: its holder may
     * be waiting for that. */
    if (settles)
        vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    if (UNLIKELY(v->pv != NULL))
        vapic_pv_sync(v);
    if (!settles) {
        announce(v, PRESENCE_GUEST);
        return;
    }
    for (;;) {
        vapic_accel_prepare(v, can);
        announce(v, by_hardware(v) ? PRESENCE_ACCEL : PRESENCE_GUEST);
        if (vapic_accel_prepared(v) || MUTANT(GENERATION_NOT_RECHECKED))
            return;
        vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    }
}

static ALWAYS_INLINE void look(struct vapic *v, uint32_t can, bool alone, struct vapic_now now,
                               struct vapic_entry *entry)
{
    *entry = (struct vapic_entry){0};
    if (MUTANT(LOOKED_BEFORE_ANNOUNCED))
        collect(v, can, alone, now);
    announce_entry(v, can, alone);
    if (!MUTANT(LOOKED_BEFORE_ANNOUNCED))
        collect(v, can, alone, now);
    if (UNLIKELY(events(v) & (EV_INIT | EV_SIPI)))
        start_up(v, can, entry);
    if (entry->event == VAPIC_CPU_NONE) {
        entry->runnable = runs(v, can);
        if (entry->runnable)
            choose(v, can, alone, entry);
        if (!alone && UNLIKELY(in_nested(v)))
            entry->runnable = vapic_nested_choose(v, can, entry);
    }
}

static ALWAYS_INLINE void finish_entry(struct vapic *v, struct vapic_entry *entry)
{
    if (!entry->runnable || entry->event != VAPIC_CPU_NONE)
        vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    entry->cr8 = (uint8_t)(reg(v, APIC_TPR) >> 4);
    entry->tpr_threshold = vapic_lapic_tpr_threshold(v);
    entry->deadline = vapic_timer_deadline(v);
    if (UNLIKELY(v->pv != NULL) && entry->runnable)
        vapic_pv_enter(v);
}

static NOINLINE void enter_with_backend(struct vapic *v, uint32_t can, struct vapic_now now,
                                        struct vapic_entry *entry)
{
    /* Again when it was accelerated with a window wanted that cannot be opened then, and is no
     * more. */
    do
        look(v, can, false, now, entry);
    while (v->accel != NULL && UNLIKELY(vapic_accel_opens_window(v, entry)));
    finish_entry(v, entry);
    if (v->accel != NULL)
        vapic_accel_enter(v, entry);
}

static NOINLINE void enter_alone(struct vapic *v, uint32_t can, struct vapic_now now,
                                 struct vapic_entry *entry)
{
    look(v, can, true, now, entry);
    finish_entry(v, entry);
}

void vapic_enter(struct vapic *v, uint32_t can, struct vapic_now now, struct vapic_entry *entry)
{
    if (LIKELY(v->vm->post == POST_PIR))
        enter_alone(v, can, now, entry);
    else
        enter_with_backend(v, can, now, entry);
}

static void commit_nmi(struct vapic *v)
{
    uint32_t old = events(v);

    while (old & EV_NMI && !vapic_cas32(&v->events, &old, old - EV_NMI_ONE, VAPIC_SEQ_CST))
        ;
    v->stats.nmis++;
}

static NOINLINE void tell_of_commit(struct vapic *v, uint8_t vector)
{
    TRACE(v->vm, INJ_VIRQ, v->index, vector, 0, 0, 0);
    if (v->pv != NULL && vapic_pv_committed(v, vector))
        vapic_lapic_auto_eoi(v, vector);
}

static void commit_vector(struct vapic *v, uint8_t vector)
{
    vapic_lapic_ack(v, vector);
    v->injected = vector;
    v->stats.injected++;
    if (v->vector_counts)
        v->vector_counts[vector]++;
    if (UNLIKELY(v->pv != NULL || vapic_traced(v->vm)))
        tell_of_commit(v, vector);
}

void vapic_commit(struct vapic *v, const struct vapic_entry *entry)
{
    switch (entry->inject) {
    case VAPIC_INJECT_VECTOR:
        commit_vector(v, entry->vector);
        break;
    case VAPIC_INJECT_EXTINT:
        v->stats.extints++;
        break;
    case VAPIC_INJECT_NMI:
        commit_nmi(v);
        break;
    case VAPIC_INJECT_SMI:
        vapic_and32(&v->events, ~EV_SMI, VAPIC_SEQ_CST);
        break;
    case VAPIC_INJECT_NONE:
        return;
    }
    v->injected_kind = (uint8_t)entry->inject;
}

bool vapic_not_delivered(struct vapic *v)
{
    uint8_t kind = v->injected_kind;

    v->injected_kind = VAPIC_INJECT_NONE;
    switch ((enum vapic_inject)kind) {
    case VAPIC_INJECT_VECTOR:
        if (!MUTANT(NOT_DELIVERED_DROPPED))
            vapic_lapic_unack(v, v->injected);
        v->stats.injected--;
        if (v->vector_counts)
            v->vector_counts[v->injected]--;
        return true;
    case VAPIC_INJECT_NMI:
        vapic_lapic_event_nmi(v);
        v->stats.nmis--;
        return true;
    case VAPIC_INJECT_EXTINT:
        v->stats.extints--;
        return true;
    case VAPIC_INJECT_SMI:
        vapic_or32(&v->events, EV_SMI, VAPIC_SEQ_CST);
        return true;
    case VAPIC_INJECT_NONE:
        break;
    }
    return false;
}

/* An unchanged CR8 says nothing about TPR[3:0]; a written one has cleared them. */
static inline void take_cr8(struct vapic *v, uint8_t cr8)
{
    if (reg(v, APIC_TPR) >> 4 == (cr8 & 15u))
        return;
    set_reg(v, APIC_TPR, (cr8 & 15u) << 4);
    vapic_lapic_update_ppr(v);
}

static NOINLINE void exit_with_companions(struct vapic *v, uint8_t cr8)
{
    if (v->pv != NULL)
        vapic_pv_sync(v);
    /* The processor kept the page's TPR up to date itself, CR8 included. */
    if (is_active(v) || v->vm->post == POST_SPLIT)
        vapic_accel_exit(v);
    else if (v->accel == NULL || !v->accel->in_l2) /* else it may be L2's */
        take_cr8(v, cr8);
}

void vapic_exit(struct vapic *v, uint8_t cr8, bool delivered)
{
    /* A plain store: nothing depends on senders learning of an exit early. */
    vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    if (delivered)
        v->injected_kind = VAPIC_INJECT_NONE;
    if (UNLIKELY(v->pv != NULL || v->accel != NULL))
        exit_with_companions(v, cr8);
    else
        take_cr8(v, cr8);
}

void vapic_halt(struct vapic *v)
{
    v->activity = VAPIC_HALTED;
}

bool vapic_block(struct vapic *v)
{
    if (!MUTANT(BLOCK_ANNOUNCED_LATE))
        announce(v, PRESENCE_BLOCKED);
    if (UNLIKELY(v->accel != NULL) && !MUTANT(BLOCK_WITHDRAWN_LATE))
        vapic_accel_block(v);
    if (!attention(v) && (LIKELY(v->accel == NULL) || !vapic_accel_must_look(v))) {
        if (MUTANT(BLOCK_ANNOUNCED_LATE))
            announce(v, PRESENCE_BLOCKED);
        if (MUTANT(BLOCK_WITHDRAWN_LATE) && v->accel != NULL)
            vapic_accel_block(v);
        return true;
    }
    vapic_unblock(v);
    return false;
}

void vapic_unblock(struct vapic *v)
{
    vapic_store32(&v->presence, PRESENCE_OUTSIDE, VAPIC_RELEASE);
    if (UNLIKELY(v->accel != NULL))
        vapic_accel_unblock(v);
}
