/* SPDX-License-Identifier: MIT */
/*
 * The writers of the destination map: a vCPU is added, removed, or changes the mode, ID, LDR, DFR
 * or enablement by which messages find it. All of it under the host's configuration lock, inside
 * the sequence count that the readers in fabric.c check.
 */
#include "fabric.h"

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

static void chain_insert(struct vapic_vm *vm, uint16_t *head, uint32_t link, uint32_t index)
{
    uint16_t *at = head;

    while (*at != 0 && *at < index + 1)
        at = &vm->slots[*at - 1].next[link];
    vapic_store16(&vm->slots[index].next[link], *at, VAPIC_RELEASE);
    vapic_store16(at, (uint16_t)(index + 1), VAPIC_RELEASE);
}

static void chain_remove(struct vapic_vm *vm, uint16_t *head, uint32_t link, uint32_t index)
{
    uint16_t *at = head;

    while (*at != 0 && *at != index + 1)
        at = &vm->slots[*at - 1].next[link];
    if (*at != 0)
        vapic_store16(at, vm->slots[index].next[link], VAPIC_RELEASE);
}

typedef void (*chain_fn)(struct vapic_vm *vm, uint16_t *head, uint32_t link, uint32_t index);

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
            change(vm, &heads[bit], bit, index);
}

static void for_chains(struct vapic_vm *vm, uint64_t ident, uint32_t index, chain_fn change)
{
    if (!is_xapic(ident))
        return;
    change(vm, &vm->by_xid[ident_xid(ident)], LINK_XID, index);
    for_logical_chains(vm, ident, index, change);
}

/* ---- Writers, under the configuration lock ---- */

/*
 * Odd while anything changes. The stores in between are releases, so that a reader whose acquire
 * load sees one of them also sees the odd count when it looks again (count_unchanged()).
 */
static void seq_begin(struct vapic_vm *vm)
{
    if (MUTANT(COUNT_STAYS_EVEN))
        return;
    vapic_store32(&vm->seq, vm->seq + 1, VAPIC_RELAXED);
}

static void seq_end(struct vapic_vm *vm)
{
    /* pairs with count_begin() */
    vapic_store32(&vm->seq, vm->seq + (MUTANT(COUNT_STAYS_EVEN) ? 2 : 1), VAPIC_RELEASE);
}

static void count_idents(struct vapic_vm *vm, uint64_t old, uint64_t new)
{
    uint32_t xapic = vm->xapic_count + is_xapic(new) - is_xapic(old);
    uint32_t odd = vm->odd_ids + ((new &IDENT_ODD) != 0) - ((old & IDENT_ODD) != 0);

    vapic_store32(&vm->xapic_count, xapic, VAPIC_RELEASE);
    vapic_store32(&vm->odd_ids, odd, VAPIC_RELEASE);
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
    if (UNLIKELY(vm->backend != NULL))
        vapic_alias_change(vm, slot->id, old, ident);
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
    if (UNLIKELY(v->accel != NULL))
        vapic_accel_identity(v);
    unlock(vm);
    if (!MUTANT(STARVED_NOT_RETRIED))
        vapic_ioapic_map_changed(vm);
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

    seq_begin(vm);
    if (!MUTANT(ADDED_BEFORE_FILLED))
        slot->vcpu = v;
    /* Relaxed: readers come to it by the chain, which is written after. */
    vapic_store32(&slot->id, v->id, VAPIC_RELAXED);
    vapic_store32(&slot->arbiter, 0, VAPIC_RELAXED);
    chain_insert(vm, id_head(vm, v->id), LINK_ID, index);
    vapic_store32(&vm->far_ids, vm->far_ids + (v->id >> 20 != 0), VAPIC_RELAXED);
    set_ident(vm, index, ident_of(v));
    /* Relaxed: both only lead to the identity word, which is acquired. vapic_post(), slots_end() */
    vapic_store32(&v->index, index, VAPIC_RELAXED);
    if (index >= vm->top)
        vapic_store32(&vm->top, index + 1, VAPIC_RELAXED);
    if (MUTANT(ADDED_BEFORE_FILLED))
        slot->vcpu = v;
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
    if (UNLIKELY(v->accel != NULL) && result == VAPIC_OK)
        vapic_accel_added(v);
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
    chain_remove(vm, id_head(vm, v->id), LINK_ID, index);
    vapic_store32(&vm->far_ids, vm->far_ids - (v->id >> 20 != 0), VAPIC_RELAXED);
    seq_end(vm);
    if (UNLIKELY(v->accel != NULL))
        vapic_accel_removed(v);
    unlock(vm);
    vapic_store32(&v->index, VAPIC_NO_INDEX, VAPIC_RELAXED); /* quiesce() waits for vapic_post() */
    /* Senders that resolved this vCPU before may be about to post to it. */
    if (!MUTANT(REMOVED_AT_ONCE))
        vm->host.quiesce(vm->ctx);
    lock(vm);
    vm->slots[index].vcpu = NULL;
    unlock(vm);
    /* Who shared an ID with it may be reached now. */
    vapic_ioapic_map_changed(vm);
    return VAPIC_OK;
}

/* RESET, INIT and a state load start lowest-priority arbitration afresh. */
void vapic_fabric_forget_load(struct vapic *v)
{
    if (v->index != VAPIC_NO_INDEX)
        vapic_store32(&v->vm->slots[v->index].arbiter, 0, VAPIC_RELAXED);
}
