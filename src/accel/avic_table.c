/* SPDX-License-Identifier: MIT */
/*
 * The tables by which AVIC finds the targets of an IPI: the physical APIC ID table, indexed by
 * guest APIC ID, and the logical one, indexed by bits of LDR in xAPIC mode [APM2 15.29.2]. One of
 * each per VM, in memory that the processors of all its vCPUs read at any time.
 *
 * Every entry is written by one aligned store, so that no processor sees half of it.
 */
#include "avic.h"

#define LOGICAL_ENTRIES (AVIC_LOGICAL_CLUSTERS * 4)

/* ---- Memory ---- */

static uint32_t feature_limit(uint32_t features)
{
    if (!(features & VAPIC_ACCEL_X2AVIC))
        return AVIC_LAST_ID_X1;
    return features & VAPIC_ACCEL_X2AVIC_EXT ? AVIC_MAX_INDEX_X2_EXT : AVIC_MAX_INDEX_X2;
}

static uint32_t at_most(uint32_t value, uint32_t limit)
{
    return value < limit ? value : limit;
}

static size_t physical_size(uint32_t features, uint32_t max_id)
{
    size_t entries = (size_t)at_most(max_id, feature_limit(features)) + 1;

    return (entries * sizeof(uint64_t) + APIC_PAGE_SIZE - 1) & ~(size_t)(APIC_PAGE_SIZE - 1);
}

size_t vapic_avic_memory(const struct vapic_accel_config *config)
{
    uint32_t both = VAPIC_ACCEL_X2AVIC | VAPIC_ACCEL_X2AVIC_EXT;

    if ((config->features & both) == VAPIC_ACCEL_X2AVIC_EXT)
        return 0;
    if (config->vm_tag >= 1u << (32 - AVIC_GA_TAG_VCPU_BITS))
        return 0;
    return physical_size(config->features, config->max_id) + APIC_PAGE_SIZE;
}

void vapic_avic_place(struct vapic_accel *accel, void *memory)
{
    size_t size = physical_size(accel->features, accel->max_id);
    uint8_t *logical = (uint8_t *)memory + size;

    accel->table_limit = feature_limit(accel->features);
    accel->physical_table = memory;
    accel->physical_hpa = accel->vm->host.physical(accel->vm->ctx, memory);
    accel->logical_table = (uint32_t *)(void *)logical;
    accel->logical_hpa = accel->vm->host.physical(accel->vm->ctx, logical);
}

/*
 * The last entry, not a count. Two modes of one VM differ: they share the table, but with MMIO
 * MAX_INDEX above 255 fails VMRUN, and FFh means everybody [APM2 15.29.4.2]. A broadcast of a vCPU
 * in xAPIC mode therefore misses the vCPUs above 254: those of its peers that it cannot name
 * anyway.
 */
uint32_t vapic_avic_max_index(const struct vapic_accel *accel, bool x2)
{
    return at_most(accel->max_id, x2 ? accel->table_limit : AVIC_LAST_ID_X1);
}

/* ---- Physical ---- */

/*
 * On processors with erratum 1235 a sender may act on IsRunning = 1 that was cleared since, and
 * does not exit then: so the bit is never shown to them, every IPI to another vCPU exits after it
 * was posted, and the library wakes whom it must. IOMMUs do read the true bit, in their own
 * entries.
 *
 * An exchange, which is a full barrier. For a vCPU that is about to sleep or to be switched off,
 * IsRunning is cleared before it looks at IRR for the last time; a sender sets IRR before it reads
 * IsRunning (two-pass delivery; IOMMUs do the same with IsRun). One of them sees the other.
 */
void vapic_avic_store_entry(struct vapic *v)
{
    struct vapic_accel_vcpu *av = v->accel;
    uint64_t entry = av->entry & ~ENTRY_PRIVATE;

    /* The table's field has 12 bits; a processor beyond them cannot be rung by others. */
    if (!avic_feature(v, VAPIC_ACCEL_IPIV) || av->host_id > AVIC_PHYSICAL_HOST_ID)
        entry &= ~AVIC_PHYSICAL_RUNNING;
    if (av->table_entry != NULL && MUTANT(RUNNING_UNORDERED))
        vapic_store64(av->table_entry, entry, VAPIC_RELEASE);
    else if (av->table_entry != NULL)
        vapic_xchg64(av->table_entry, entry, VAPIC_SEQ_CST);
}

/* ---- Logical ---- */

static bool one_bit(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/*
 * The slot that LDR and DFR name, -1 for none: an LDR that no slot can express is resolved by
 * software, because the processor exits (invalid target) for whatever the table does not hold. So
 * are vCPUs whose APIC is switched off, which accept nothing, and those in x2APIC mode, whose LDR
 * is of another format.
 */
static int wanted_slot(const struct vapic *v)
{
    uint32_t ldr = reg(v, APIC_LDR) >> 24, model = reg(v, APIC_DFR) >> 28;

    if (!apic_enabled(v) || !sw_enabled(v) || in_x2apic(v) || v->accel->table_entry == NULL ||
        v->id > AVIC_LAST_ID_X1)
        return -1;
    if (model == 0xF)
        return one_bit(ldr) ? __builtin_ctz(ldr) : -1;
    if (model != 0 || ldr >> 4 >= AVIC_LOGICAL_CLUSTERS || !one_bit(ldr & 15))
        return -1;
    return (int)(ldr >> 4) * 4 + __builtin_ctz(ldr);
}

/*
 * Under the configuration lock. The count is odd while the entry changes: whoever finds the new
 * entry finds the count odd or beyond (release), and whoever has found it even and as it is now
 * went by the entry that is there now (release).
 */
static void store_logical(struct vapic_accel *accel, uint32_t slot, uint32_t entry)
{
    uint32_t changes = accel->logical_changes;

    vapic_store32(&accel->logical_changes, changes + (MUTANT(LOGICAL_COUNT_EVEN) ? 2 : 1),
                  VAPIC_RELAXED);
    vapic_store32(&accel->logical_table[slot], entry, VAPIC_RELEASE);
    vapic_store32(&accel->logical_changes, changes + 2, VAPIC_RELEASE);
}

int vapic_avic_logical_id(const struct vapic_accel *accel, uint32_t slot)
{
    uint32_t entry = 0;

    if (slot < LOGICAL_ENTRIES)
        entry = vapic_load32(&accel->logical_table[slot], VAPIC_ACQUIRE);
    return entry & AVIC_LOGICAL_VALID ? (int)(entry & AVIC_LOGICAL_ID) : -1;
}

void vapic_avic_drop_logical(struct vapic *v)
{
    struct vapic_accel *accel = v->vm->accel;
    struct vapic_accel_vcpu *av = v->accel;

    /* Another vCPU may have made the slot unusable meanwhile, or have claimed it since. */
    if (av->logical_slot != 0 && vapic_avic_logical_id(accel, av->logical_slot - 1) == (int)v->id)
        store_logical(accel, av->logical_slot - 1, 0);
    av->logical_slot = 0;
}

/*
 * Two vCPUs with one logical ID cannot be expressed. The VM is inhibited for it in the same
 * critical section; until every vCPU has taken notice the slot is invalid, so that IPIs to it exit
 * and reach both. When the VM is accelerated again each vCPU claims its slot anew.
 */
void vapic_avic_update_logical(struct vapic *v)
{
    struct vapic_accel *accel = v->vm->accel;
    int slot = wanted_slot(v);

    if (MUTANT(LOGICAL_NOT_UPDATED) && v->accel->logical_slot != 0)
        return;
    if (slot >= 0 && v->accel->logical_slot == (uint32_t)slot + 1 &&
        vapic_avic_logical_id(accel, (uint32_t)slot) == (int)v->id)
        return;
    vapic_avic_drop_logical(v);
    if (slot < 0)
        return;
    if (vapic_avic_logical_id(accel, (uint32_t)slot) < 0 || MUTANT(SLOT_TAKEN_OVER))
        store_logical(accel, (uint32_t)slot, AVIC_LOGICAL_VALID | v->id);
    else
        store_logical(accel, (uint32_t)slot, 0);
    v->accel->logical_slot = (uint32_t)slot + 1;
}
