/* SPDX-License-Identifier: MIT */
/*
 * Which APIC IDs are not one-to-one: the three reasons of the inhibition that follow from the
 * destination map. Each change of a vCPU's identity adjusts counts, so that the verdict costs
 * nothing that grows with the number of vCPUs. Only in VMs with a back end, under the configuration
 * lock.
 *
 * A physical ID is claimed by every enabled vCPU that answers to it: by its 8-bit ID in xAPIC mode,
 * by its 32-bit ID in x2APIC mode. IDs above FFh cannot be claimed twice (two vCPUs never share
 * one). Under the policy UNIQUE_ID the fabric itself decides who has an ID, and none is aliased.
 *
 * Logical IDs are those of software-enabled vCPUs. Tables can express them when all are of one
 * model, each xAPIC one has one bit set, and no bit is claimed twice.
 */
#include "internal.h"

/* Layout of vapic_vm.claims. */
#define CLAIM_FLAT    256u
#define CLAIM_CLUSTER (CLAIM_FLAT + 8u)

static bool is_enabled(uint64_t ident)
{
    const uint64_t must = IDENT_ADDED | IDENT_ENABLED;

    return (ident & must) == must;
}

static void claim(struct vapic_vm *vm, uint32_t at, bool add, uint32_t *several)
{
    if (add)
        *several += ++vm->claims[at] == 2;
    else
        *several -= vm->claims[at]-- == 2;
}

static void adjust(uint32_t *count, bool add)
{
    *count += add ? 1u : UINT32_MAX;
}

static void claim_physical(struct vapic_vm *vm, uint32_t id, uint64_t ident, bool add)
{
    if (ident & IDENT_X2APIC) {
        /* One that kept a written ID: the table is indexed by the vCPU's own. */
        if (ident & IDENT_ODD)
            adjust(&vm->aliases.modified, add);
        if (ident_id(ident) < 256)
            claim(vm, ident_id(ident), add, &vm->aliases.physical);
        return;
    }
    claim(vm, ident_xid(ident), add, &vm->aliases.physical);
    /* Its own ID is cut to the register's 8 bits, or no guest above 255 vCPUs could ever boot. */
    if (ident_xid(ident) != (MUTANT(ID_COMPARED_WIDE) ? id : id & 0xFF))
        adjust(&vm->aliases.modified, add);
}

static bool one_bit(uint32_t bits)
{
    return bits != 0 && (bits & (bits - 1)) == 0;
}

static void claim_bits(struct vapic_vm *vm, uint32_t first, uint32_t bits, bool add)
{
    if (!one_bit(bits))
        adjust(&vm->aliases.unusual, add);
    for (uint32_t bit = 0; bit < 8; bit++)
        if (bits >> bit & 1)
            claim(vm, first + bit, add, &vm->aliases.logical);
}

static void claim_logical(struct vapic_vm *vm, uint64_t ident, bool add)
{
    uint32_t ldr = ident_ldr(ident);

    if (ident & IDENT_X2APIC) {
        adjust(&vm->aliases.x2apic, add);
        return;
    }
    if (ldr == 0)
        return;
    if (ident_dfr(ident) == DFR_FLAT) {
        adjust(&vm->aliases.flat, add);
        claim_bits(vm, CLAIM_FLAT, ldr, add);
    } else if (ident_dfr(ident) == DFR_CLUSTER) {
        adjust(&vm->aliases.cluster, add);
        claim_bits(vm, CLAIM_CLUSTER + (ldr >> 4) * 4, ldr & 15, add);
    } else {
        adjust(&vm->aliases.unusual, add);
    }
}

static void claim_all(struct vapic_vm *vm, uint32_t id, uint64_t ident, bool add)
{
    if (!is_enabled(ident))
        return;
    claim_physical(vm, id, ident, add);
    if (ident & IDENT_SW)
        claim_logical(vm, ident, add);
}

void vapic_alias_change(struct vapic_vm *vm, uint32_t id, uint64_t old, uint64_t new)
{
    if (!MUTANT(CLAIMS_STAY))
        claim_all(vm, id, old, false);
    claim_all(vm, id, new, true);
}

static bool logical_mixed(const struct vapic_vm *vm)
{
    return (vm->aliases.flat != 0) + (vm->aliases.cluster != 0) + (vm->aliases.x2apic != 0) > 1;
}

/* In Linux's order, each at every rebuild whether or not it changes anything. */
void vapic_alias_evaluate(struct vapic_vm *vm)
{
    bool physical =
        vm->aliases.physical != 0 && !knob(vm, VAPIC_KNOB_UNIQUE_ID) && !MUTANT(ALIAS_NOT_SEEN);
    bool logical =
        physical || logical_mixed(vm) || vm->aliases.unusual != 0 || vm->aliases.logical != 0;

    vapic_inhibit_locked(vm, VAPIC_INHIBIT_PHYSICAL_ID_ALIASED, physical);
    vapic_inhibit_locked(vm, VAPIC_INHIBIT_LOGICAL_ID_ALIASED, logical);
    if (vm->aliases.modified != 0 || !MUTANT(ID_INHIBIT_STICKS))
        vapic_inhibit_locked(vm, VAPIC_INHIBIT_APIC_ID_MODIFIED, vm->aliases.modified != 0);
}
