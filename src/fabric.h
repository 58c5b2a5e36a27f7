/* SPDX-License-Identifier: MIT */
/*
 * The destination map as its writers (fabric_map.c) and its readers (fabric.c, fabric_find.c) both
 * see it. How these keep out of each other's way is told at the head of fabric.c. The readers'
 * loads are acquires, pairing with the writers' release stores: see seq_begin().
 */
#ifndef VAPIC_FABRIC_H
#define VAPIC_FABRIC_H

#include "internal.h"

static inline uint64_t load_ident(const struct vapic_vm *vm, uint32_t index)
{
    /* Acquire: pairs with the release in set_ident() in fabric_map.c. */
    return vapic_load64(&vm->slots[index].ident, VAPIC_ACQUIRE);
}

/* The head of the list that holds `id`: an array cell, or a hash chain. */
static inline uint16_t *id_head(struct vapic_vm *vm, uint32_t id)
{
    if (LIKELY(id < vm->id_bound))
        return &vm->by_id[id];
    return &vm->by_hash[((id * 0x9E3779B1u) >> 16) & vm->hash_mask];
}

/* Index + 1 of the added vCPU with this configured x2APIC ID, 0 when there is none. */
static inline uint32_t find_id(struct vapic_vm *vm, uint32_t id)
{
    uint32_t at = vapic_load16(id_head(vm, id), VAPIC_ACQUIRE);

    /* A cell of the array holds no other ID than its own. */
    if (LIKELY(id < vm->id_bound))
        return at;
    for (uint32_t steps = 0; at != 0 && steps < VAPIC_MAX_VCPUS; steps++) {
        struct vapic_slot *slot = &vm->slots[at - 1];

        /* Relaxed: written before the link that led here. */
        if (vapic_load32(&slot->id, VAPIC_RELAXED) == id)
            return at;
        at = vapic_load16(&slot->next[LINK_ID], VAPIC_ACQUIRE);
    }
    return 0;
}

static inline bool from_device(const struct vapic_msg *msg)
{
    return msg->source == VAPIC_FROM_DEVICE;
}

static inline bool count_begin(const struct vapic_vm *vm, uint32_t *seq)
{
    *seq = vapic_load32(&vm->seq, VAPIC_ACQUIRE); /* pairs with seq_end() */
    return !(*seq & 1);
}

/* The acquire loads in between keep this one behind them: see seq_begin(). */
static inline bool count_unchanged(const struct vapic_vm *vm, uint32_t seq)
{
    return vapic_load32(&vm->seq, VAPIC_RELAXED) == seq || MUTANT(COUNT_NOT_RECHECKED);
}

#define SMALL_SET 16u /* targets that are resolved by the arrays; an x2APIC cluster's worth */

struct targets {
    uint32_t count;
    uint16_t index[SMALL_SET];
};

/* fabric_find.c: does the message concern the vCPU at `index` with this identity? */
bool vapic_fabric_concerns(const struct vapic_vm *vm, uint64_t ident, uint32_t index,
                           const struct vapic_msg *msg);

/* The vCPUs that a message concerns, at one moment. False: scan the slots instead. */
bool vapic_fabric_find(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set);

#endif
