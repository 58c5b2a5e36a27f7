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
#include "internal.h"

#define SMALL_SET      16u /* targets that are resolved by the arrays; an x2APIC cluster's worth */
#define CHAIN_STEPS    64u /* a chain that is rewritten meanwhile can lead anywhere: stop there */
#define COUNT_ATTEMPTS 4u  /* then scan */

/* ---- VM ---- */

struct layout {
    size_t slots, by_id, by_hash, by_xid, by_flat, by_cluster, routes, watch, total;
    uint32_t id_bound, hash_size;
};

static size_t take(size_t *at, size_t count, size_t size)
{
    size_t here = *at;

    *at += (count * size + 63) & ~(size_t)63;
    return here;
}

static uint32_t power_of_two_above(uint32_t n)
{
    uint32_t p = 16;

    while (p < n)
        p *= 2;
    return p;
}

static bool vm_config_valid(const struct vapic_vm_config *c)
{
    return c->max_vcpus >= 1 && c->max_vcpus <= VAPIC_MAX_VCPUS && c->id_bound <= 65536 &&
           c->bus_ns <= 33554432 && c->max_gsis <= 4096 && c->msi_dest <= VAPIC_MSI_DEST_32 &&
           (!c->knobs_set || c->knobs >> (VAPIC_KNOB_COUNT - 1) <= 1);
}

static bool lay_out(const struct vapic_vm_config *c, struct layout *l)
{
    size_t at = 0;

    if (!vm_config_valid(c))
        return false;
    l->id_bound = c->id_bound ? c->id_bound : c->max_vcpus > 256 ? c->max_vcpus : 256;
    l->hash_size = power_of_two_above(c->max_vcpus);
    l->slots = take(&at, c->max_vcpus, sizeof(struct vapic_slot));
    l->by_id = take(&at, l->id_bound, sizeof(uint16_t));
    l->by_hash = take(&at, l->hash_size, sizeof(uint16_t));
    l->by_xid = take(&at, 256, sizeof(uint16_t));
    l->by_flat = take(&at, 8, sizeof(uint16_t));
    l->by_cluster = take(&at, 64, sizeof(uint16_t));
    l->routes = take(&at, c->max_gsis, sizeof(uint64_t));
    l->watch = take(&at, c->max_gsis, sizeof(uint32_t));
    l->total = at;
    return true;
}

size_t vapic_vm_memory(const struct vapic_vm_config *config)
{
    struct layout l;

    return lay_out(config, &l) ? l.total : 0;
}

static void zero(void *memory, size_t size)
{
    uint8_t *p = memory;

    for (size_t i = 0; i < size; i++)
        p[i] = 0;
}

static void place(struct vapic_vm *vm, uint8_t *memory, const struct layout *l)
{
    vm->slots = (struct vapic_slot *)(void *)(memory + l->slots);
    vm->by_id = (uint16_t *)(void *)(memory + l->by_id);
    vm->by_hash = (uint16_t *)(void *)(memory + l->by_hash);
    vm->by_xid = (uint16_t *)(void *)(memory + l->by_xid);
    vm->by_flat = (uint16_t *)(void *)(memory + l->by_flat);
    vm->by_cluster = (uint16_t *)(void *)(memory + l->by_cluster);
    vm->routes = (uint64_t *)(void *)(memory + l->routes);
    vm->watch = (uint32_t *)(void *)(memory + l->watch);
    vm->id_bound = l->id_bound;
    vm->hash_mask = l->hash_size - 1;
}

int vapic_vm_init(struct vapic_vm *vm, size_t vm_size, const struct vapic_vm_config *config,
                  const struct vapic_host *host, void *ctx, void *memory, size_t size)
{
    struct layout l;

    if (vm_size != sizeof(*vm))
        return VAPIC_E_SIZE;
    if (!lay_out(config, &l) || memory == NULL || ((uintptr_t)memory & 63) != 0)
        return VAPIC_E_ARG;
    if (!host->lock || !host->unlock || !host->quiesce || !host->notify)
        return VAPIC_E_ARG;
    if (size < l.total)
        return VAPIC_E_SIZE;
    zero(vm, sizeof(*vm));
    zero(memory, l.total);
    place(vm, memory, &l);
    vm->host = *host;
    vm->ctx = ctx;
    vm->knobs = config->knobs_set ? config->knobs : VAPIC_PROFILE_MANUAL;
    vm->bus_ns = config->bus_ns ? config->bus_ns : 1;
    vm->min_period_ns = config->min_period_ns ? config->min_period_ns : 200000;
    vm->max_vcpus = config->max_vcpus;
    vm->max_gsis = config->max_gsis;
    vm->msi_dest = (uint8_t)config->msi_dest;
    vm->count_received = config->count_received;
    return VAPIC_OK;
}

/* ---- Identity ---- */

static enum ident_dfr dfr_model(uint32_t dfr)
{
    if (dfr == APIC_DFR_FLAT)
        return DFR_FLAT;
    return dfr == APIC_DFR_CLUSTER ? DFR_CLUSTER : DFR_NEITHER;
}

static uint64_t ident_of(const struct vapic *v)
{
    uint64_t ident = IDENT_ADDED;
    uint32_t id = v->id;

    if (apic_enabled(v))
        ident |= IDENT_ENABLED;
    if (sw_enabled(v))
        ident |= IDENT_SW;
    if (in_x2apic(v)) {
        id = reg(v, APIC_ID);
        ident |= IDENT_X2APIC | (id != v->id ? IDENT_ODD : 0);
    } else {
        ident |= (uint64_t)(reg(v, APIC_ID) >> 24) << IDENT_XID_SHIFT;
        ident |= (uint64_t)(reg(v, APIC_LDR) >> 24) << IDENT_LDR_SHIFT;
        ident |= (uint64_t)dfr_model(reg(v, APIC_DFR)) << IDENT_DFR_SHIFT;
    }
    return ident | (uint64_t)id << IDENT_ID_SHIFT;
}

static bool is_xapic(uint64_t ident)
{
    return (ident & (IDENT_ADDED | IDENT_ENABLED | IDENT_X2APIC)) == (IDENT_ADDED | IDENT_ENABLED);
}

/* ---- Chains: ordered by index, so that "the lowest index" is the first ---- */

static uint16_t *next_xid(struct vapic_slot *slot, uint32_t unused)
{
    (void)unused;
    return &slot->next_xid;
}

static uint16_t *next_id(struct vapic_slot *slot, uint32_t unused)
{
    (void)unused;
    return &slot->next_id;
}

static uint16_t *next_logical(struct vapic_slot *slot, uint32_t bit)
{
    return &slot->next_logical[bit];
}

typedef uint16_t *(*next_fn)(struct vapic_slot *slot, uint32_t bit);

static void chain_insert(struct vapic_vm *vm, uint16_t *head, next_fn next, uint32_t bit,
                         uint32_t index)
{
    uint16_t *at = head;

    while (*at != 0 && *at < index + 1)
        at = next(&vm->slots[*at - 1], bit);
    vapic_store16(next(&vm->slots[index], bit), *at, VAPIC_RELAXED);
    vapic_store16(at, (uint16_t)(index + 1), VAPIC_RELAXED);
}

static void chain_remove(struct vapic_vm *vm, uint16_t *head, next_fn next, uint32_t bit,
                         uint32_t index)
{
    uint16_t *at = head;

    while (*at != 0 && *at != index + 1)
        at = next(&vm->slots[*at - 1], bit);
    if (*at != 0)
        vapic_store16(at, *next(&vm->slots[index], bit), VAPIC_RELAXED);
}

typedef void (*chain_fn)(struct vapic_vm *vm, uint16_t *head, next_fn next, uint32_t bit,
                         uint32_t index);

/* A multi-bit LDR is legal; the vCPU stands in the chain of each bit [SDM3 12.6.2.2]. */
static void for_logical_chains(struct vapic_vm *vm, uint64_t ident, uint32_t index, chain_fn change)
{
    uint32_t ldr = ident_ldr(ident);
    bool flat = ident_dfr(ident) == DFR_FLAT;
    uint32_t bits = flat ? 8 : 4;
    uint16_t *heads = flat ? vm->by_flat : &vm->by_cluster[(ldr >> 4) * 4];

    if (ident_dfr(ident) == DFR_NEITHER)
        return;
    for (uint32_t bit = 0; bit < bits; bit++)
        if (ldr >> bit & 1)
            change(vm, &heads[bit], next_logical, bit, index);
}

static void for_chains(struct vapic_vm *vm, uint64_t ident, uint32_t index, chain_fn change)
{
    if (!is_xapic(ident))
        return;
    change(vm, &vm->by_xid[ident_xid(ident)], next_xid, 0, index);
    for_logical_chains(vm, ident, index, change);
}

/* ---- Writers, under the configuration lock ---- */

static void seq_begin(struct vapic_vm *vm)
{
    /* Odd before anything changes: pairs with the acquire fence in count_unchanged(). */
    vapic_store32(&vm->seq, vm->seq + 1, VAPIC_RELAXED);
    vapic_fence_release();
}

static void seq_end(struct vapic_vm *vm)
{
    /* Even after everything changed: pairs with the acquire load in count_begin(). */
    vapic_store32(&vm->seq, vm->seq + 1, VAPIC_RELEASE);
}

static void count_idents(struct vapic_vm *vm, uint64_t old, uint64_t new)
{
    uint32_t xapic = vm->xapic_count + is_xapic(new) - is_xapic(old);
    uint32_t odd = vm->odd_ids + ((new &IDENT_ODD) != 0) - ((old & IDENT_ODD) != 0);

    vapic_store32(&vm->xapic_count, xapic, VAPIC_RELAXED);
    vapic_store32(&vm->odd_ids, odd, VAPIC_RELAXED);
}

static void set_ident(struct vapic_vm *vm, uint32_t index, uint64_t ident)
{
    struct vapic_slot *slot = &vm->slots[index];
    uint64_t old = slot->ident;

    for_chains(vm, old, index, chain_remove);
    /* Release: a scanning sender that sees the vCPU added sees its slot filled in. */
    vapic_store64(&slot->ident, ident, VAPIC_RELEASE);
    for_chains(vm, ident, index, chain_insert);
    count_idents(vm, old, ident);
}

static void lock(struct vapic_vm *vm)
{
    vm->host.lock(vm->ctx);
}

static void unlock(struct vapic_vm *vm)
{
    vm->host.unlock(vm->ctx);
}

void vapic_fabric_update(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;
    uint64_t ident = ident_of(v);

    lock(vm);
    if (ident != vm->slots[v->index].ident) {
        seq_begin(vm);
        set_ident(vm, v->index, ident);
        seq_end(vm);
    }
    unlock(vm);
    vapic_ioapic_map_changed(vm);
}

/* The head of the list that holds `id`: an array cell, or a hash chain. */
static uint16_t *id_head(struct vapic_vm *vm, uint32_t id)
{
    if (LIKELY(id < vm->id_bound))
        return &vm->by_id[id];
    return &vm->by_hash[((id * 0x9E3779B1u) >> 16) & vm->hash_mask];
}

static uint32_t find_id(struct vapic_vm *vm, uint32_t id)
{
    uint32_t at = vapic_load16(id_head(vm, id), VAPIC_RELAXED);

    for (uint32_t steps = 0; at != 0 && steps < VAPIC_MAX_VCPUS; steps++) {
        struct vapic_slot *slot = &vm->slots[at - 1];

        if (vapic_load32(&slot->id, VAPIC_RELAXED) == id)
            return at;
        at = vapic_load16(&slot->next_id, VAPIC_RELAXED);
    }
    return 0;
}

/* A slot that is neither in use nor waiting for its quiesce. */
static uint32_t free_slot(const struct vapic_vm *vm)
{
    uint32_t index = 0;

    while (index < vm->max_vcpus && vm->slots[index].vcpu != NULL)
        index++;
    return index;
}

static void publish(struct vapic *v, uint32_t index)
{
    struct vapic_vm *vm = v->vm;
    struct vapic_slot *slot = &vm->slots[index];

    v->index = index;
    seq_begin(vm);
    slot->vcpu = v;
    vapic_store32(&slot->id, v->id, VAPIC_RELAXED);
    vapic_store32(&slot->arbiter, 0, VAPIC_RELAXED);
    chain_insert(vm, id_head(vm, v->id), next_id, 0, index);
    vapic_store32(&vm->far_ids, vm->far_ids + (v->id >> 20 != 0), VAPIC_RELAXED);
    set_ident(vm, index, ident_of(v));
    /* Release: who sees the new bound sees the slot below it. */
    if (index >= vm->top)
        vapic_store32(&vm->top, index + 1, VAPIC_RELEASE);
    seq_end(vm);
}

int vapic_add(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;
    int result = VAPIC_OK;
    uint32_t index;

    lock(vm);
    index = free_slot(vm);
    if (v->index != VAPIC_NO_INDEX)
        result = VAPIC_E_BUSY;
    else if (find_id(vm, v->id) != 0)
        result = VAPIC_E_EXIST;
    else if (index == vm->max_vcpus)
        result = VAPIC_E_FULL;
    else
        publish(v, index);
    unlock(vm);
    if (result == VAPIC_OK)
        vapic_ioapic_map_changed(vm);
    return result;
}

int vapic_remove(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;
    uint32_t index = v->index;

    if (index == VAPIC_NO_INDEX)
        return VAPIC_E_ARG;
    lock(vm);
    seq_begin(vm);
    set_ident(vm, index, 0);
    chain_remove(vm, id_head(vm, v->id), next_id, 0, index);
    vapic_store32(&vm->far_ids, vm->far_ids - (v->id >> 20 != 0), VAPIC_RELAXED);
    seq_end(vm);
    unlock(vm);
    /* Senders that resolved this vCPU before may be about to post to it. */
    vm->host.quiesce(vm->ctx);
    lock(vm);
    vm->slots[index].vcpu = NULL;
    v->index = VAPIC_NO_INDEX;
    unlock(vm);
    return VAPIC_OK;
}

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

/* [SDM3 12.6.2.1] [SDM3 12.12.2]. */
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

static uint64_t load_ident(const struct vapic_vm *vm, uint32_t index)
{
    /* Acquire: pairs with the release in set_ident(). */
    return vapic_load64(&vm->slots[index].ident, VAPIC_ACQUIRE);
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
                          next_fn next, uint32_t bit, struct targets *set)
{
    uint32_t at = vapic_load16(head, VAPIC_RELAXED);

    for (uint32_t steps = 0; at != 0; steps++) {
        if (steps == CHAIN_STEPS || !propose(vm, msg, at - 1, set))
            return false;
        at = vapic_load16(next(&vm->slots[at - 1], bit), VAPIC_RELAXED);
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
    if (LIKELY(vapic_load32(&vm->xapic_count, VAPIC_RELAXED) == 0) || unique_found(vm, set))
        return true;
    if (msg->dest > 0xFF && !knob(vm, VAPIC_KNOB_X2APIC_ALIASES_XAPIC))
        return true;
    if (!propose_chain(vm, msg, &vm->by_xid[msg->dest & 0xFF], next_xid, 0, set))
        return false;
    if (unique_found(vm, set))
        set->count = 1;
    return true;
}

static bool find_x2apic_cluster(struct vapic_vm *vm, const struct vapic_msg *msg,
                                struct targets *set)
{
    for (uint32_t bits = msg->dest & 0xFFFF; bits != 0; bits &= bits - 1) {
        uint32_t id = (msg->dest >> 16) << 4 | (uint32_t)__builtin_ctz(bits);
        uint32_t at = find_id(vm, id);

        if (at != 0 && load_ident(vm, at - 1) & IDENT_X2APIC && !propose(vm, msg, at - 1, set))
            return false;
    }
    return true;
}

static bool find_bits(struct vapic_vm *vm, const struct vapic_msg *msg, const uint16_t *heads,
                      uint32_t bits, struct targets *set)
{
    for (; bits != 0; bits &= bits - 1) {
        uint32_t bit = (uint32_t)__builtin_ctz(bits);

        if (!propose_chain(vm, msg, &heads[bit], next_logical, bit, set))
            return false;
    }
    return true;
}

static bool find_logical(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set)
{
    uint32_t dest = msg->dest;

    if (!find_x2apic_cluster(vm, msg, set))
        return false;
    if (LIKELY(vapic_load32(&vm->xapic_count, VAPIC_RELAXED) == 0))
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
    if (vapic_load32(&vm->odd_ids, VAPIC_RELAXED) != 0)
        return true;
    if (msg->icr & APIC_ICR_LOGICAL && vapic_load32(&vm->far_ids, VAPIC_RELAXED) != 0)
        return true;
    return msg->dest == APIC_DEST_ALL_8 &&
           (from_device(msg) || vapic_load32(&vm->xapic_count, VAPIC_RELAXED) != 0);
}

static bool count_begin(const struct vapic_vm *vm, uint32_t *seq)
{
    *seq = vapic_load32(&vm->seq, VAPIC_ACQUIRE); /* pairs with seq_end() */
    return !(*seq & 1);
}

static bool count_unchanged(const struct vapic_vm *vm, uint32_t seq)
{
    vapic_fence_acquire(); /* pairs with the release fence in seq_begin() */
    return vapic_load32(&vm->seq, VAPIC_RELAXED) == seq;
}

/* False: scan instead. */
static bool find(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set)
{
    for (uint32_t attempt = 0; attempt < COUNT_ATTEMPTS; attempt++) {
        uint32_t seq;
        bool complete;

        set->count = 0;
        if (!count_begin(vm, &seq) || needs_scan(vm, msg))
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
    for (uint32_t i = 0; i < set.count; i++)
        accept_and_notify(vm, set.index[i], &msg, &total);
    return total;
}

struct vapic_sent vapic_fabric_deliver(struct vapic_vm *vm, struct vapic_msg msg)
{
    struct vapic_sent sent = vapic_send(vm, msg);

    if (sent.accepted == 1)
        notify(vm, &sent);
    return sent;
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
