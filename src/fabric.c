/* SPDX-License-Identifier: MIT */
/*
 * The fabric: who receives a message.
 *
 *      by_id[id] / by_hash ---+
 *      by_xid[xid]  chain ----+--> slot (dense array, one cache line per vCPU, index + 1 in the
 *      by_flat[bit] chain ----+    arrays, 0 = nobody) --> struct vapic
 *      by_cluster[c][bit] ----+
 *
 * Slots live as long as the VM, and the arrays hold indices into them, so that a reader without a
 * lock can follow whatever it finds; the vCPU behind a slot is kept alive by host.quiesce().
 *
 * A slot's `ident` word alone decides whether a message concerns the vCPU
 * (vapic_fabric_concerns()). The arrays are an accelerator: they propose candidates, and each is
 * checked against its ident. What they cannot promise by themselves is completeness while a vCPU
 * moves from one chain to another; so a sender reads the sequence count, resolves its whole target
 * set, reads the count again, and only then posts. A vCPU that moves is found exactly once, before
 * or after.
 *
 * A sender that meets a writer again and again (a guest may rewrite its LDR in a loop), or whose
 * target set is large, scans the dense array instead: each slot is visited once and its ident is
 * consistent by itself, so each vCPU gets the message at most once and by an identity that it had
 * meanwhile, and nobody ever waits. (What the scan cannot give is one moment for all: two vCPUs
 * that swap an ID while it passes may both be found, or neither.) The same scan serves broadcasts.
 *
 * Writers hold the host's configuration lock.
 */
#include "fabric.h"

#define CHOICES 4u /* attempts at lowest priority before anybody will do */

/* ---- One target ---- */

static struct vapic_sent nobody(void)
{
    return (struct vapic_sent){0, 0, VAPIC_ACTION_NONE, 0};
}

static bool wanted(uint32_t icr)
{
    return !(icr & APIC_ICR_LEVEL) || icr & APIC_ICR_ASSERT;
}

static NOINLINE void count_received(struct vapic *v, bool device)
{
    vapic_add64(device ? &v->msis_received : &v->ipis_received, 1, VAPIC_RELAXED);
}

static NOINLINE void count_post(struct vapic *v, bool device, enum vapic_action action)
{
    count_received(v, device);
    if (action == VAPIC_ACTION_NONE)
        vapic_add64(&v->posts_unnotified, 1, VAPIC_RELAXED);
}

/* Posts to another vCPU of the VM. */
static inline enum vapic_action post(const struct vapic_vm *vm, struct vapic *v, uint8_t vector,
                                     bool level, bool device, bool *coalesced)
{
    enum vapic_action action = post_vector(vm, v, vector, level, coalesced);

    if (UNLIKELY(vm->count_received))
        count_post(v, device, action);
    return action;
}

/* Fixed and lowest priority [SDM3 12.8.4]: a disabled or soft-disabled APIC drops it. */
static struct vapic_sent accept_fixed(struct vapic *v, uint32_t index, uint64_t ident,
                                      const struct vapic_msg *msg)
{
    struct vapic_sent sent = {0, (uint16_t)index, VAPIC_ACTION_NONE, 0};
    bool level = (msg->icr & APIC_ICR_LEVEL) != 0, coalesced = false;
    uint8_t vector = (uint8_t)msg->icr;

    if (!(ident & IDENT_SW) || !wanted(msg->icr))
        return sent;
    if (index == msg->source) {
        if (!vapic_lapic_accept_local(v, vector, level))
            return sent;
        if (v->vm->count_received)
            count_received(v, false);
    } else {
        sent.action = (uint8_t)post(v->vm, v, vector, level, from_device(msg), &coalesced);
    }
    sent.accepted = 1;
    sent.coalesced = coalesced;
    return sent;
}

/* The modes that are latched as events [SDM3 12.6.1]. False: nothing happens. */
static bool accept_event(struct vapic *v, uint32_t icr)
{
    switch (icr & APIC_ICR_DM) {
    case APIC_DM_SMI:
        vapic_or32(&v->events, EV_SMI, VAPIC_SEQ_CST);
        return true;
    case APIC_DM_REMOTE:
        vapic_or32(&v->events, EV_REMOTE, VAPIC_SEQ_CST);
        return true;
    case APIC_DM_NMI:
        vapic_lapic_event_nmi(v);
        return true;
    case APIC_DM_INIT:
        if (!wanted(icr))
            return false; /* INIT level de-assert */
        vapic_lapic_event_init(v);
        return true;
    case APIC_DM_SIPI:
        vapic_lapic_event_sipi(v, (uint8_t)icr);
        return true;
    default:
        return false; /* ExtINT has no target in this fabric: it is a wire, LINT0 */
    }
}

/* KVM prints the second line for a target that is accelerated. */
static NOINLINE void trace_accepted(struct vapic *v, uint32_t icr)
{
    uint32_t mode = icr & APIC_ICR_DM;
    bool level = (icr & APIC_ICR_LEVEL) != 0;

    TRACE(v->vm, APIC_ACCEPT_IRQ, v->index, v->id, mode >> 8, level, icr & APIC_ICR_VECTOR);
    if (mode <= APIC_DM_LOWEST && is_active(v))
        TRACE(v->vm, APICV_ACCEPT_IRQ, v->index, v->id, mode >> 8, level, icr & APIC_ICR_VECTOR);
}

static struct vapic_sent accept_one(struct vapic_vm *vm, uint32_t index,
                                    const struct vapic_msg *msg)
{
    uint64_t ident = load_ident(vm, index);
    struct vapic *v = vm->slots[index].vcpu;
    struct vapic_sent sent = {0, (uint16_t)index, VAPIC_ACTION_NONE, 0};
    uint32_t mode = msg->icr & APIC_ICR_DM;

    if (LIKELY(mode <= APIC_DM_LOWEST)) {
        sent = accept_fixed(v, index, ident, msg);
    } else if (accept_event(v, msg->icr)) {
        sent.accepted = 1;
        sent.action = (uint8_t)post_notify(v);
    }
    if (UNLIKELY(sent.accepted && vapic_traced(vm)))
        trace_accepted(v, msg->icr);
    return sent;
}

static void notify(struct vapic_vm *vm, struct vapic_sent *sent)
{
    if (sent->action != VAPIC_ACTION_NONE)
        vm->host.notify(vm->ctx, vm->slots[sent->target].vcpu, (enum vapic_action)sent->action);
    sent->action = VAPIC_ACTION_NONE;
}

static void accept_and_notify(struct vapic_vm *vm, uint32_t index, const struct vapic_msg *msg,
                              struct vapic_sent *total)
{
    struct vapic_sent one = accept_one(vm, index, msg);

    if (!one.accepted)
        return;
    notify(vm, &one);
    total->accepted++;
    total->target = one.target;
    total->coalesced = one.coalesced;
}

/* ---- Choosing one of several: lowest priority, redirection hint ---- */

/* A broadcast in physical mode goes to everybody whatever the mode says [SDM3 12.6.2.1]. */
static bool picks_one(const struct vapic_msg *msg)
{
    bool lowest = (msg->icr & APIC_ICR_DM) == APIC_DM_LOWEST || msg->flags & VAPIC_MSG_REDIRECT;

    if (!lowest)
        return false;
    return msg->icr & (APIC_ICR_LOGICAL | APIC_ICR_SHORTHAND) ||
           (msg->dest != APIC_DEST_ALL_8 && msg->dest != APIC_DEST_ALL_32);
}

struct pick {
    uint32_t wanted; /* hashing: how many candidates to pass over */
    uint32_t seen;
    uint32_t best; /* index + 1 */
    uint32_t best_load;
};

/* Candidates come one by one; vCPUs that would drop the message are none. */
static void offer(const struct vapic_vm *vm, const struct vapic_msg *msg, uint32_t index,
                  struct pick *p)
{
    uint64_t ident = load_ident(vm, index);
    uint32_t load;

    if (!vapic_fabric_concerns(vm, ident, index, msg) || !(ident & IDENT_SW))
        return;
    p->seen++;
    if (knob(vm, VAPIC_KNOB_ARBITRATE)) {
        load = vapic_load32(&vm->slots[index].arbiter, VAPIC_RELAXED);
        if (p->best != 0 && (int32_t)(load - p->best_load) >= 0)
            return;
        p->best_load = load;
        p->best = index + 1;
    } else if (p->seen <= p->wanted + 1) {
        p->best = index + 1;
    }
}

static void offer_all(const struct vapic_vm *vm, const struct vapic_msg *msg,
                      const struct targets *set, struct pick *p)
{
    uint32_t top = slots_end(vm);

    for (uint32_t i = 0; set == NULL && i < top; i++)
        offer(vm, msg, i, p);
    for (uint32_t i = 0; set != NULL && i < set->count; i++)
        offer(vm, msg, set->index[i], p);
}

/* In the order of the scan, so that hashing chooses the same whichever way a set was found. */
static void sort_targets(struct targets *set)
{
    for (uint32_t i = 1; i < set->count; i++) {
        uint16_t index = set->index[i];
        uint32_t at = i;

        for (; at > 0 && set->index[at - 1] > index; at--)
            set->index[at] = set->index[at - 1];
        set->index[at] = index;
    }
}

/*
 * By vector hashing the candidate number (vector mod count) is chosen, so that a vector always goes
 * to the same vCPU; by arbitration the one that took the fewest. `set` NULL: all slots. Index + 1,
 * 0 when there is no candidate (any more).
 */
static uint32_t choose(const struct vapic_vm *vm, const struct vapic_msg *msg,
                       const struct targets *set)
{
    struct pick p = {UINT32_MAX - 1, 0, 0, 0};

    offer_all(vm, msg, set, &p);
    if (!knob(vm, VAPIC_KNOB_ARBITRATE) && p.seen > 1) {
        p = (struct pick){(msg->icr & APIC_ICR_VECTOR) % p.seen, 0, 0, 0};
        offer_all(vm, msg, set, &p);
    }
    return p.best;
}

/*
 * A candidate may cease to be one between the choice and the acceptance; then another is chosen.
 * A guest can do that again and again: in the end whoever takes the message has it.
 */
static struct vapic_sent send_to_one(struct vapic_vm *vm, const struct vapic_msg *msg,
                                     const struct targets *set)
{
    uint32_t top = set != NULL ? set->count : slots_end(vm);
    struct vapic_sent sent = nobody();

    for (uint32_t attempt = 0; attempt < CHOICES && !sent.accepted; attempt++) {
        uint32_t best = choose(vm, msg, set);

        if (best == 0)
            break;
        sent = accept_one(vm, best - 1, msg);
        if (sent.accepted)
            vapic_add32(&vm->slots[best - 1].arbiter, 1, VAPIC_RELAXED);
    }
    for (uint32_t i = 0; i < top && !sent.accepted; i++) {
        uint32_t index = set != NULL ? set->index[i] : i;

        if (vapic_fabric_concerns(vm, load_ident(vm, index), index, msg))
            sent = accept_one(vm, index, msg);
    }
    return sent;
}

/* ---- The common case: one vCPU by its physical ID, fixed or lowest priority, edge ---- */

/* What leaves the common case: the rest of DM, destination mode, level, shorthand. */
#define NOT_COMMON                                                                                 \
    (APIC_ICR_SHORTHAND | APIC_ICR_LOGICAL | APIC_ICR_LEVEL | (APIC_ICR_DM & ~APIC_DM_LOWEST))

/*
 * Does nobody else answer to the ID? Two x2APICs never share one; in xAPIC mode it is shared by
 * whoever wrote it, and by_xid knows them all. FFh is not asked about.
 */
static inline bool alone(const struct vapic_vm *vm, uint64_t ident, uint32_t at, uint32_t dest)
{
    uint32_t first;

    if (UNLIKELY(dest > APIC_DEST_ALL_8))
        return ident & IDENT_X2APIC && !knob(vm, VAPIC_KNOB_X2APIC_ALIASES_XAPIC);
    first = vapic_load16(&vm->by_xid[dest], VAPIC_ACQUIRE);
    if (ident & IDENT_X2APIC)
        return first == 0;
    return first == at && vapic_load16(&vm->slots[at - 1].next[LINK_XID], VAPIC_ACQUIRE) == 0;
}

/* Accepts what is posted, under the ID by which by_id leads to it. */
static inline bool takes_posts(uint64_t ident)
{
    const uint64_t must = IDENT_ADDED | IDENT_ENABLED | IDENT_SW;

    return (ident & (must | IDENT_ODD)) == must;
}

/*
 * Index + 1 of the one vCPU that takes the message; 0: not the common case, vapic_send() decides.
 * Resolved inside the sequence count like every other target set; the loads are acquires for
 * count_unchanged().
 */
static ALWAYS_INLINE uint32_t sole_target(const struct vapic_vm *vm, uint32_t icr, uint32_t dest)
{
    uint32_t at, seq;
    uint64_t ident;

    if (UNLIKELY(icr & NOT_COMMON || dest >= vm->id_bound || dest == APIC_DEST_ALL_8 ||
                 vapic_traced(vm) || !count_begin(vm, &seq)))
        return 0;
    at = vapic_load16(&vm->by_id[dest], VAPIC_ACQUIRE);
    if (UNLIKELY(at == 0 || vapic_load32(&vm->odd_ids, VAPIC_ACQUIRE) != 0))
        return 0;
    ident = load_ident(vm, at - 1);
    if (UNLIKELY(!takes_posts(ident) || !alone(vm, ident, at, dest) || !count_unchanged(vm, seq)))
        return 0;
    return at;
}

static ALWAYS_INLINE struct vapic_sent delivered(struct vapic_vm *vm, uint32_t at,
                                                 enum vapic_action action, bool coalesced)
{
    if (action != VAPIC_ACTION_NONE)
        vm->host.notify(vm->ctx, vm->slots[at - 1].vcpu, action);
    return (struct vapic_sent){1, (uint16_t)(at - 1), VAPIC_ACTION_NONE, coalesced};
}

/* The end of the common case in a VM with a back end. Apart: a call of its own to post. */
static NOINLINE struct vapic_sent deliver_accel(struct vapic_vm *vm, uint32_t at, uint32_t icr,
                                                bool device)
{
    struct vapic *v = vm->slots[at - 1].vcpu;
    bool coalesced = false;
    enum vapic_action action = post(vm, v, (uint8_t)icr, false, device, &coalesced);

    return delivered(vm, at, action, coalesced);
}

/* And in one without. */
static ALWAYS_INLINE struct vapic_sent deliver_plain(struct vapic_vm *vm, uint32_t at, uint32_t icr,
                                                     bool device)
{
    struct vapic *v = vm->slots[at - 1].vcpu;
    bool coalesced = false;
    enum vapic_action action = post_to_pir(v, (uint8_t)icr, false, &coalesced);

    if (UNLIKELY(vm->count_received))
        count_post(v, device, action);
    return delivered(vm, at, action, coalesced);
}

static ALWAYS_INLINE struct vapic_sent deliver_at(struct vapic_vm *vm, uint32_t at, uint32_t icr,
                                                  bool device)
{
    if (UNLIKELY(vm->post != POST_PIR))
        return deliver_accel(vm, at, icr, device);
    return deliver_plain(vm, at, icr, device);
}

/* ---- Several vCPUs, fixed or lowest priority, edge, nobody listening ---- */

static bool only_posts(const struct vapic_vm *vm, uint32_t icr)
{
    return !(icr & (APIC_ICR_LEVEL | (APIC_ICR_DM & ~APIC_DM_LOWEST))) && !vapic_traced(vm);
}

/* accept_and_notify() for such a message to another vCPU than the sender. */
static ALWAYS_INLINE void post_one(struct vapic_vm *vm, uint32_t index, uint32_t icr, bool device,
                                   struct vapic_sent *total)
{
    const uint64_t takes = IDENT_ADDED | IDENT_ENABLED | IDENT_SW;
    struct vapic_sent one;

    if (UNLIKELY((load_ident(vm, index) & takes) != takes))
        return;
    one = deliver_at(vm, index + 1, icr, device);
    total->accepted++;
    total->target = one.target;
    total->coalesced = one.coalesced;
}

static struct vapic_sent post_to_set(struct vapic_vm *vm, const struct vapic_msg *msg,
                                     const struct targets *set)
{
    const uint32_t icr = msg->icr;
    const bool device = from_device(msg);
    struct vapic_sent total = nobody();

    for (uint32_t i = 0; i < set->count; i++) {
        if (UNLIKELY(set->index[i] == msg->source))
            accept_and_notify(vm, set->index[i], msg, &total);
        else
            post_one(vm, set->index[i], icr, device, &total);
    }
    return total;
}

/* The broadcast that guests use. */
static struct vapic_sent post_to_others(struct vapic_vm *vm, const struct vapic_msg *msg)
{
    const uint32_t top = slots_end(vm);
    const uint32_t icr = msg->icr, source = msg->source;
    struct vapic_sent total = nobody();

    for (uint32_t i = 0; i < top; i++)
        if (LIKELY(i != source))
            post_one(vm, i, icr, false, &total);
    return total;
}

/* ---- Sending ---- */

/* Under the unique policy a physical ID names one vCPU, also when the arrays could not be used. */
static bool unique_physical(const struct vapic_vm *vm, const struct vapic_msg *msg)
{
    return knob(vm, VAPIC_KNOB_UNIQUE_ID) &&
           !(msg->icr & (APIC_ICR_SHORTHAND | APIC_ICR_LOGICAL)) && msg->dest != APIC_DEST_ALL_8 &&
           msg->dest != APIC_DEST_ALL_32;
}

static struct vapic_sent scan_unique(struct vapic_vm *vm, const struct vapic_msg *msg)
{
    uint32_t top = slots_end(vm), best = VAPIC_NO_INDEX;

    for (uint32_t i = 0; i < top; i++) {
        uint64_t ident = load_ident(vm, i);

        if (!vapic_fabric_concerns(vm, ident, i, msg))
            continue;
        /* As fabric_find.c: who has the ID by configuration, then the lowest index. */
        if (ident_id(ident) == msg->dest && (ident & IDENT_X2APIC || msg->dest > 0xFF)) {
            best = i;
            break;
        }
        if (best == VAPIC_NO_INDEX)
            best = i;
    }
    return best == VAPIC_NO_INDEX ? nobody() : accept_one(vm, best, msg);
}

static struct vapic_sent scan(struct vapic_vm *vm, const struct vapic_msg *msg)
{
    uint32_t top = slots_end(vm);
    struct vapic_sent total = nobody();

    if (unique_physical(vm, msg))
        return scan_unique(vm, msg);
    if (picks_one(msg))
        return send_to_one(vm, msg, NULL);
    if ((msg->icr & APIC_ICR_SHORTHAND) == APIC_ICR_ALL_EXCL && only_posts(vm, msg->icr) &&
        !from_device(msg))
        return post_to_others(vm, msg);
    for (uint32_t i = 0; i < top; i++)
        if (vapic_fabric_concerns(vm, load_ident(vm, i), i, msg))
            accept_and_notify(vm, i, msg, &total);
    return total;
}

struct vapic_sent vapic_send(struct vapic_vm *vm, struct vapic_msg msg)
{
    struct vapic_sent total = nobody();
    struct targets set;

    if ((msg.icr & APIC_ICR_SHORTHAND) == APIC_ICR_SELF) {
        if (msg.source >= slots_end(vm) ||
            !vapic_fabric_concerns(vm, load_ident(vm, msg.source), msg.source, &msg))
            return total;
        return accept_one(vm, msg.source, &msg);
    }
    if (!vapic_fabric_find(vm, &msg, &set))
        return scan(vm, &msg);
    if (set.count == 1)
        return accept_one(vm, set.index[0], &msg);
    if (picks_one(&msg)) {
        sort_targets(&set);
        return send_to_one(vm, &msg, &set);
    }
    if (only_posts(vm, msg.icr))
        return post_to_set(vm, &msg, &set);
    for (uint32_t i = 0; i < set.count; i++)
        accept_and_notify(vm, set.index[i], &msg, &total);
    return total;
}

static NOINLINE struct vapic_sent deliver_uncommon(struct vapic_vm *vm, struct vapic_msg msg)
{
    struct vapic_sent sent = vapic_send(vm, msg);

    if (sent.accepted == 1)
        notify(vm, &sent);
    return sent;
}

struct vapic_sent vapic_fabric_deliver(struct vapic_vm *vm, struct vapic_msg msg)
{
    uint32_t at = sole_target(vm, msg.icr, msg.dest);

    if (UNLIKELY(at == 0 || at - 1 == msg.source))
        return deliver_uncommon(vm, msg);
    /* Not deliver_at(): a tail call, so that this function keeps nothing across a call. */
    if (UNLIKELY(vm->post != POST_PIR))
        return deliver_accel(vm, at, msg.icr, from_device(&msg));
    return deliver_plain(vm, at, msg.icr, from_device(&msg));
}

static NOINLINE void ipi_uncommon(struct vapic *v, uint32_t icr, uint32_t dest)
{
    struct vapic_msg msg = {icr, dest, v->index, 0};

    v->stats.ipi_targets += deliver_uncommon(v->vm, msg).accepted;
}

void vapic_fabric_ipi(struct vapic *v, uint32_t icr, uint32_t dest)
{
    struct vapic_vm *vm = v->vm;
    uint32_t at = sole_target(vm, icr, dest);

    if (UNLIKELY(at == 0 || at - 1 == v->index)) {
        ipi_uncommon(v, icr, dest);
        return;
    }
    v->stats.ipi_targets++;
    deliver_at(vm, at, icr, false);
}

static void kick(struct vapic_vm *vm, uint32_t index)
{
    struct vapic *target = vm->slots[index].vcpu;
    enum vapic_action action = vapic_accel_notify(target);

    if (action != VAPIC_ACTION_NONE)
        vm->host.notify(vm->ctx, target, action);
}

void vapic_fabric_kick(struct vapic *v, uint32_t icr, uint32_t dest)
{
    struct vapic_msg msg = {icr, dest, v->index, 0};
    struct vapic_vm *vm = v->vm;
    uint32_t top = slots_end(vm);
    struct targets set;

    if (vapic_fabric_find(vm, &msg, &set)) {
        for (uint32_t i = 0; i < set.count; i++)
            if (set.index[i] != v->index)
                kick(vm, set.index[i]);
        return;
    }
    for (uint32_t i = 0; i < top; i++)
        if (i != v->index && vapic_fabric_concerns(vm, load_ident(vm, i), i, &msg))
            kick(vm, i);
}

enum vapic_action vapic_post(struct vapic *v, uint8_t vector, bool level, bool *accepted)
{
    struct vapic_msg msg = {vector | (level ? APIC_ICR_LEVEL : 0) | APIC_ICR_ASSERT, 0,
                            VAPIC_FROM_DEVICE, 0};
    /* Relaxed: the identity word says whether it is there. publish(), vapic_remove(). */
    uint32_t index = vapic_load32(&v->index, VAPIC_RELAXED);
    struct vapic_sent sent = nobody();

    if (index != VAPIC_NO_INDEX) {
        uint64_t ident = load_ident(v->vm, index);

        if (ident & IDENT_ENABLED)
            sent = accept_fixed(v, index, ident, &msg);
    }
    if (accepted)
        *accepted = sent.accepted != 0;
    return (enum vapic_action)sent.action;
}

struct vapic *vapic_at(struct vapic_vm *vm, uint32_t index)
{
    if (index >= slots_end(vm) || !(load_ident(vm, index) & IDENT_ADDED))
        return NULL;
    return vm->slots[index].vcpu;
}

struct vapic *vapic_by_id(struct vapic_vm *vm, uint32_t id)
{
    uint32_t at = find_id(vm, id);

    return at ? vapic_at(vm, at - 1) : NULL;
}
