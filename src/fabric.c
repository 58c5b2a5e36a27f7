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
 * A slot's `ident` word alone decides whether a message concerns the vCPU (concerns()). The arrays
 * are an accelerator: they propose candidates, and each is checked against its ident. What they
 * cannot promise by themselves is completeness while a vCPU moves from one chain to another; so a
 * sender reads the sequence count, resolves its whole target set, reads the count again, and only
 * then posts. A vCPU that moves is found exactly once, before or after.
 *
 * A sender that meets a writer again and again (a guest may rewrite its LDR in a loop), or whose
 * target set is large, scans the dense array instead: each slot is visited once and its ident is
 * consistent by itself, so the answer is right without the count, and nobody ever waits.
 * The same scan serves broadcasts.
 *
 * Writers hold the host's configuration lock.
 */
#include "fabric.h"

#define SMALL_SET      16u /* targets that are resolved by the arrays; an x2APIC cluster's worth */
#define CHAIN_STEPS    64u /* a chain that is rewritten meanwhile can lead anywhere: stop there */
#define COUNT_ATTEMPTS 4u  /* then scan */

/* ---- Matching: does a message concern the vCPU with this identity? ---- */

static bool from_device(const struct vapic_msg *msg)
{
    return msg->source == VAPIC_FROM_DEVICE;
}

/* FFh means everybody to xAPICs; of a device it does to x2APICs as well, if so configured. */
static bool broadcast_reaches(const struct vapic_vm *vm, uint64_t ident,
                              const struct vapic_msg *msg)
{
    if (msg->dest == APIC_DEST_ALL_32)
        return (ident & IDENT_X2APIC) != 0;
    if (msg->dest != APIC_DEST_ALL_8)
        return false;
    return !(ident & IDENT_X2APIC) ||
           (from_device(msg) && knob(vm, VAPIC_KNOB_DEVICE_BROADCAST_FF));
}

/* [SDM3 12.6.2.1] [SDM3 12.12.10]. */
static bool physical_match(const struct vapic_vm *vm, uint64_t ident, uint32_t dest)
{
    if (ident & IDENT_X2APIC)
        return dest == ident_id(ident);
    if (dest <= 0xFF)
        return dest == ident_xid(ident);
    return (dest == ident_id(ident) && knob(vm, VAPIC_KNOB_WIDE_XAPIC)) ||
           ((dest & 0xFF) == ident_xid(ident) && knob(vm, VAPIC_KNOB_X2APIC_ALIASES_XAPIC));
}

/* [SDM3 12.6.2.2] [SDM3 12.12.10.2]: each vCPU by its own LDR and DFR. */
static bool logical_match(uint64_t ident, uint32_t dest)
{
    uint32_t ldr = ident_ldr(ident), id = ident_id(ident);

    if (ident & IDENT_X2APIC)
        return dest >> 16 == (id >> 4 & 0xFFFF) && dest >> (id & 15) & 1;
    switch (ident_dfr(ident)) {
    case DFR_FLAT:
        return (ldr & dest & 0xFF) != 0;
    case DFR_CLUSTER:
        return dest >> 4 == ldr >> 4 && (dest & ldr & 15) != 0;
    case DFR_NEITHER:
        break;
    }
    return false;
}

static bool concerns(const struct vapic_vm *vm, uint64_t ident, uint32_t index,
                     const struct vapic_msg *msg)
{
    if ((ident & (IDENT_ADDED | IDENT_ENABLED)) != (IDENT_ADDED | IDENT_ENABLED))
        return false;
    switch (msg->icr & APIC_ICR_SHORTHAND) {
    case APIC_ICR_SELF:
        return index == msg->source;
    case APIC_ICR_ALL_INCL:
        return true;
    case APIC_ICR_ALL_EXCL:
        return index != msg->source;
    default:
        break;
    }
    if (broadcast_reaches(vm, ident, msg))
        return true;
    if (msg->icr & APIC_ICR_LOGICAL)
        return logical_match(ident, msg->dest);
    return physical_match(vm, ident, msg->dest);
}

/* ---- Candidates from the arrays ---- */

struct targets {
    uint32_t count;
    uint16_t index[SMALL_SET];
};

static bool contains(const struct targets *set, uint32_t index)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (set->index[i] == index)
            return true;
    return false;
}

/* False: the set is full. */
static bool propose(const struct vapic_vm *vm, const struct vapic_msg *msg, uint32_t index,
                    struct targets *set)
{
    if (!concerns(vm, load_ident(vm, index), index, msg) || contains(set, index))
        return true;
    if (set->count == SMALL_SET)
        return false;
    set->index[set->count++] = (uint16_t)index;
    return true;
}

static bool propose_chain(struct vapic_vm *vm, const struct vapic_msg *msg, const uint16_t *head,
                          uint32_t link, struct targets *set)
{
    uint32_t at = vapic_load16(head, VAPIC_ACQUIRE);

    for (uint32_t steps = 0; at != 0; steps++) {
        if (steps == CHAIN_STEPS || !propose(vm, msg, at - 1, set))
            return false;
        at = vapic_load16(&vm->slots[at - 1].next[link], VAPIC_ACQUIRE);
    }
    return true;
}

static bool unique_found(const struct vapic_vm *vm, const struct targets *set)
{
    return set->count != 0 && knob(vm, VAPIC_KNOB_UNIQUE_ID);
}

static bool find_physical(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set)
{
    uint32_t at = find_id(vm, msg->dest);

    /* In xAPIC mode an ID below 100h counts only through the register, by_xid. */
    if (at != 0 && (msg->dest > 0xFF || load_ident(vm, at - 1) & IDENT_X2APIC) &&
        !propose(vm, msg, at - 1, set))
        return false;
    if (LIKELY(vapic_load32(&vm->xapic_count, VAPIC_ACQUIRE) == 0) || unique_found(vm, set))
        return true;
    if (msg->dest > 0xFF && !knob(vm, VAPIC_KNOB_X2APIC_ALIASES_XAPIC))
        return true;
    if (!propose_chain(vm, msg, &vm->by_xid[msg->dest & 0xFF], LINK_XID, set))
        return false;
    if (unique_found(vm, set))
        set->count = 1;
    return true;
}

static void find_x2apic_cluster(struct vapic_vm *vm, const struct vapic_msg *msg,
                                struct targets *set)
{
    const uint64_t x2apic = IDENT_ADDED | IDENT_ENABLED | IDENT_X2APIC;

    for (uint32_t bits = msg->dest & 0xFFFF; bits != 0; bits &= bits - 1) {
        uint32_t id = (msg->dest >> 16) << 4 | (uint32_t)__builtin_ctz(bits);
        uint32_t at = find_id(vm, id);

        /* Other IDs, other vCPUs: no need to look whether the set holds it already. */
        if (at != 0 && (load_ident(vm, at - 1) & (x2apic | IDENT_ODD)) == x2apic)
            set->index[set->count++] = (uint16_t)(at - 1);
    }
}

static bool find_bits(struct vapic_vm *vm, const struct vapic_msg *msg, const uint16_t *heads,
                      uint32_t bits, struct targets *set)
{
    for (; bits != 0; bits &= bits - 1) {
        uint32_t bit = (uint32_t)__builtin_ctz(bits);

        if (!propose_chain(vm, msg, &heads[bit], bit, set))
            return false;
    }
    return true;
}

static bool find_logical(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set)
{
    uint32_t dest = msg->dest;

    find_x2apic_cluster(vm, msg, set);
    if (LIKELY(vapic_load32(&vm->xapic_count, VAPIC_ACQUIRE) == 0))
        return true;
    if (!find_bits(vm, msg, vm->by_flat, dest & 0xFF, set))
        return false;
    return dest > 0xFF || find_bits(vm, msg, &vm->by_cluster[(dest >> 4) * 4], dest & 15, set);
}

/* Messages whose targets the arrays cannot propose. */
static bool needs_scan(const struct vapic_vm *vm, const struct vapic_msg *msg)
{
    if (msg->icr & APIC_ICR_SHORTHAND || msg->dest == APIC_DEST_ALL_32)
        return true;
    if (vapic_load32(&vm->odd_ids, VAPIC_ACQUIRE) != 0)
        return true;
    if (msg->icr & APIC_ICR_LOGICAL && vapic_load32(&vm->far_ids, VAPIC_ACQUIRE) != 0)
        return true;
    return msg->dest == APIC_DEST_ALL_8 &&
           (from_device(msg) || vapic_load32(&vm->xapic_count, VAPIC_ACQUIRE) != 0);
}

static bool count_begin(const struct vapic_vm *vm, uint32_t *seq)
{
    *seq = vapic_load32(&vm->seq, VAPIC_ACQUIRE); /* pairs with seq_end() */
    return !(*seq & 1);
}

/* The acquire loads in between keep this one behind them: see seq_begin(). */
static bool count_unchanged(const struct vapic_vm *vm, uint32_t seq)
{
    return vapic_load32(&vm->seq, VAPIC_RELAXED) == seq;
}

/* False: scan instead. */
static bool find(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set)
{
    for (uint32_t attempt = 0; attempt < COUNT_ATTEMPTS; attempt++) {
        uint32_t seq;
        bool complete;

        set->count = 0;
        if (needs_scan(vm, msg))
            return false;
        if (!count_begin(vm, &seq))
            continue;
        complete =
            msg->icr & APIC_ICR_LOGICAL ? find_logical(vm, msg, set) : find_physical(vm, msg, set);
        if (complete && count_unchanged(vm, seq))
            return true;
    }
    return false;
}

/* ---- One target ---- */

static struct vapic_sent nobody(void)
{
    return (struct vapic_sent){0, 0, VAPIC_ACTION_NONE, 0};
}

static bool wanted(uint32_t icr)
{
    return !(icr & APIC_ICR_LEVEL) || icr & APIC_ICR_ASSERT;
}

static void count_received(struct vapic *v, const struct vapic_msg *msg)
{
    if (v->vm->count_received)
        vapic_add64(from_device(msg) ? &v->msis_received : &v->ipis_received, 1, VAPIC_RELAXED);
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
    } else {
        sent.action = (uint8_t)post_vector(v, vector, level, &coalesced);
    }
    sent.accepted = 1;
    sent.coalesced = coalesced;
    count_received(v, msg);
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
    if (sent.accepted)
        TRACE(vm, APIC_ACCEPT_IRQ, index, v->id, mode >> 8, (msg->icr & APIC_ICR_LEVEL) != 0,
              msg->icr & APIC_ICR_VECTOR);
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

    if (!concerns(vm, ident, index, msg) || !(ident & IDENT_SW))
        return;
    p->seen++;
    if (knob(vm, VAPIC_KNOB_ARBITRATE)) {
        load = vapic_load32(&vm->slots[index].arbiter, VAPIC_RELAXED);
        if (p->best != 0 && load >= p->best_load)
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
    uint32_t top = vapic_load32(&vm->top, VAPIC_ACQUIRE);

    for (uint32_t i = 0; set == NULL && i < top; i++)
        offer(vm, msg, i, p);
    for (uint32_t i = 0; set != NULL && i < set->count; i++)
        offer(vm, msg, set->index[i], p);
}

/*
 * By vector hashing the candidate number (vector mod count) is chosen, so that a vector always goes
 * to the same vCPU; by arbitration the one that took the fewest. `set` NULL: all slots. Candidates
 * that vanish between the two passes make the last one seen the choice.
 */
static struct vapic_sent send_to_one(struct vapic_vm *vm, const struct vapic_msg *msg,
                                     const struct targets *set)
{
    struct pick p = {UINT32_MAX - 1, 0, 0, 0};

    offer_all(vm, msg, set, &p);
    if (p.seen == 0)
        return nobody();
    if (!knob(vm, VAPIC_KNOB_ARBITRATE) && p.seen > 1) {
        p = (struct pick){(msg->icr & APIC_ICR_VECTOR) % p.seen, 0, 0, 0};
        offer_all(vm, msg, set, &p);
    }
    if (p.best == 0)
        return nobody();
    vapic_add32(&vm->slots[p.best - 1].arbiter, 1, VAPIC_RELAXED);
    return accept_one(vm, p.best - 1, msg);
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
                 vm->trace != NULL || !count_begin(vm, &seq)))
        return 0;
    at = vapic_load16(&vm->by_id[dest], VAPIC_ACQUIRE);
    if (UNLIKELY(at == 0 || vapic_load32(&vm->odd_ids, VAPIC_ACQUIRE) != 0))
        return 0;
    ident = load_ident(vm, at - 1);
    if (UNLIKELY(!takes_posts(ident) || !alone(vm, ident, at, dest) || !count_unchanged(vm, seq)))
        return 0;
    return at;
}

static inline enum vapic_action post_edge(const struct vapic_vm *vm, struct vapic *v, uint32_t icr,
                                          bool device, bool *coalesced)
{
    if (UNLIKELY(vm->count_received))
        vapic_add64(device ? &v->msis_received : &v->ipis_received, 1, VAPIC_RELAXED);
    return post_vector(v, icr & APIC_ICR_VECTOR, false, coalesced);
}

/* ---- Several vCPUs, fixed or lowest priority, edge, nobody listening ---- */

static bool only_posts(const struct vapic_vm *vm, uint32_t icr)
{
    return !(icr & (APIC_ICR_LEVEL | (APIC_ICR_DM & ~APIC_DM_LOWEST))) && vm->trace == NULL;
}

/* accept_and_notify() for such a message to another vCPU than the sender. */
static ALWAYS_INLINE void post_one(struct vapic_vm *vm, uint32_t index, uint32_t icr, bool device,
                                   struct vapic_sent *total)
{
    const uint64_t takes = IDENT_ADDED | IDENT_ENABLED | IDENT_SW;
    enum vapic_action action;
    bool coalesced = false;
    struct vapic *v;

    if (UNLIKELY((load_ident(vm, index) & takes) != takes))
        return;
    v = vm->slots[index].vcpu;
    action = post_edge(vm, v, icr, device, &coalesced);
    total->accepted++;
    total->target = (uint16_t)index;
    total->coalesced = coalesced;
    if (UNLIKELY(action != VAPIC_ACTION_NONE))
        vm->host.notify(vm->ctx, v, action);
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
    const uint32_t top = vapic_load32(&vm->top, VAPIC_ACQUIRE); /* pairs with publish() */
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
    uint32_t top = vapic_load32(&vm->top, VAPIC_ACQUIRE), best = VAPIC_NO_INDEX;

    for (uint32_t i = 0; i < top; i++) {
        uint64_t ident = load_ident(vm, i);

        if (!concerns(vm, ident, i, msg))
            continue;
        if (ident & IDENT_X2APIC || msg->dest > 0xFF) {
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
    uint32_t top = vapic_load32(&vm->top, VAPIC_ACQUIRE); /* pairs with publish() */
    struct vapic_sent total = nobody();

    if (picks_one(msg))
        return send_to_one(vm, msg, NULL);
    if (unique_physical(vm, msg))
        return scan_unique(vm, msg);
    if ((msg->icr & APIC_ICR_SHORTHAND) == APIC_ICR_ALL_EXCL && only_posts(vm, msg->icr) &&
        !from_device(msg))
        return post_to_others(vm, msg);
    for (uint32_t i = 0; i < top; i++)
        if (concerns(vm, load_ident(vm, i), i, msg))
            accept_and_notify(vm, i, msg, &total);
    return total;
}

struct vapic_sent vapic_send(struct vapic_vm *vm, struct vapic_msg msg)
{
    struct vapic_sent total = nobody();
    struct targets set;

    if ((msg.icr & APIC_ICR_SHORTHAND) == APIC_ICR_SELF) {
        if (msg.source >= vapic_load32(&vm->top, VAPIC_ACQUIRE) ||
            !concerns(vm, load_ident(vm, msg.source), msg.source, &msg))
            return total;
        return accept_one(vm, msg.source, &msg);
    }
    if (!find(vm, &msg, &set))
        return scan(vm, &msg);
    if (set.count == 1)
        return accept_one(vm, set.index[0], &msg);
    if (picks_one(&msg))
        return send_to_one(vm, &msg, &set);
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
    enum vapic_action action;
    bool coalesced = false;
    struct vapic *v;

    if (UNLIKELY(at == 0 || at - 1 == msg.source))
        return deliver_uncommon(vm, msg);
    v = vm->slots[at - 1].vcpu;
    action = post_edge(vm, v, msg.icr, from_device(&msg), &coalesced);
    if (action != VAPIC_ACTION_NONE)
        vm->host.notify(vm->ctx, v, action);
    return (struct vapic_sent){1, (uint16_t)(at - 1), VAPIC_ACTION_NONE, coalesced};
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
    enum vapic_action action;
    struct vapic *target;
    bool coalesced;

    if (UNLIKELY(at == 0 || at - 1 == v->index)) {
        ipi_uncommon(v, icr, dest);
        return;
    }
    target = vm->slots[at - 1].vcpu;
    v->stats.ipi_targets++;
    action = post_edge(vm, target, icr, false, &coalesced);
    if (action != VAPIC_ACTION_NONE)
        vm->host.notify(vm->ctx, target, action);
}

enum vapic_action vapic_post(struct vapic *v, uint8_t vector, bool level, bool *accepted)
{
    struct vapic_msg msg = {vector | (level ? APIC_ICR_LEVEL : 0) | APIC_ICR_ASSERT, 0,
                            VAPIC_FROM_DEVICE, 0};
    struct vapic_sent sent = nobody();

    if (v->index != VAPIC_NO_INDEX) {
        uint64_t ident = load_ident(v->vm, v->index);

        if (ident & IDENT_ENABLED)
            sent = accept_fixed(v, v->index, ident, &msg);
    }
    if (accepted)
        *accepted = sent.accepted != 0;
    return (enum vapic_action)sent.action;
}

struct vapic *vapic_at(struct vapic_vm *vm, uint32_t index)
{
    if (index >= vapic_load32(&vm->top, VAPIC_ACQUIRE) || !(load_ident(vm, index) & IDENT_ADDED))
        return NULL;
    return vm->slots[index].vcpu;
}

struct vapic *vapic_by_id(struct vapic_vm *vm, uint32_t id)
{
    uint32_t at = find_id(vm, id);

    return at ? vapic_at(vm, at - 1) : NULL;
}
