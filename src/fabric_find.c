/* SPDX-License-Identifier: MIT */
/*
 * Which vCPUs a message concerns: the rule for one vCPU (vapic_fabric_concerns), and the arrays of
 * the destination map as its accelerator (vapic_fabric_find). Any thread, no lock; how that is
 * right while the map changes is told at the head of fabric.c.
 */
#include "fabric.h"

#define CHAIN_STEPS    64u /* a chain that is rewritten meanwhile can lead anywhere: stop there */
#define COUNT_ATTEMPTS 4u  /* then scan */

/* ---- Matching: does a message concern the vCPU with this identity? ---- */

/*
 * FFh means everybody to xAPICs; of a device it does to x2APICs as well, if so configured and if
 * the device could not name the x2APIC ID FFh otherwise.
 */
static bool ff_reaches_x2apics(const struct vapic_vm *vm, const struct vapic_msg *msg)
{
    return from_device(msg) && vm->msi_dest == VAPIC_MSI_DEST_8 &&
           knob(vm, VAPIC_KNOB_DEVICE_BROADCAST_FF);
}

static bool broadcast_reaches(const struct vapic_vm *vm, uint64_t ident,
                              const struct vapic_msg *msg)
{
    if (msg->dest == APIC_DEST_ALL_32)
        return (ident & IDENT_X2APIC) != 0;
    if (msg->dest != APIC_DEST_ALL_8)
        return false;
    return !(ident & IDENT_X2APIC) || ff_reaches_x2apics(vm, msg);
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

bool vapic_fabric_concerns(const struct vapic_vm *vm, uint64_t ident, uint32_t index,
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
    if (!vapic_fabric_concerns(vm, load_ident(vm, index), index, msg) || contains(set, index))
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
    /* Relaxed: a scan is always right, and that there was one before `seq` is known from `seq`. */
    if (msg->icr & APIC_ICR_LOGICAL && vapic_load32(&vm->far_ids, VAPIC_RELAXED) != 0)
        return true;
    return msg->dest == APIC_DEST_ALL_8 &&
           (ff_reaches_x2apics(vm, msg) || vapic_load32(&vm->xapic_count, VAPIC_ACQUIRE) != 0);
}

bool vapic_fabric_find(struct vapic_vm *vm, const struct vapic_msg *msg, struct targets *set)
{
    for (uint32_t attempt = 0; attempt < COUNT_ATTEMPTS; attempt++) {
        uint32_t seq;
        bool complete;

        set->count = 0;
        if (!count_begin(vm, &seq))
            continue;
        if (needs_scan(vm, msg))
            return false;
        complete =
            msg->icr & APIC_ICR_LOGICAL ? find_logical(vm, msg, set) : find_physical(vm, msg, set);
        if (count_unchanged(vm, seq))
            return complete;
    }
    return false;
}
