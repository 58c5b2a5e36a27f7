/* SPDX-License-Identifier: MIT */
/*
 * An AMD IOMMU's interrupt remapping with 128-bit entries: guest mode posts into a vCPU's backing
 * page and rings the doorbell or writes the GA log; remapped mode sends to the host. Called by
 * whoever plays a device, on any thread.
 *
 * Posting has the same race as an IPI (avic_ipi.c): the IRR bit is set first, then IsRun and
 * GALogIntr of the entry are read again. Whoever blocks a vCPU clears IsRun, sets GALogIntr, and
 * then looks at IRR. [IOMMU 2.2.5.2]
 *
 * The GA log: software owns the head, the IOMMU the tail. An entry is complete in memory before the
 * tail moves. When the log is full the entry is lost, the overflow bit is set, and logging stops
 * until software clears the bit.
 */
#include "avic.h"

enum { LOW, HIGH };

/* ---- GA log ---- */

static void lock(struct vapic_sil_amd_iommu *iommu)
{
    while (vapic_xchg32(&iommu->lock, 1, VAPIC_ACQUIRE) != 0)
        __builtin_ia32_pause();
}

static void unlock(struct vapic_sil_amd_iommu *iommu)
{
    vapic_store32(&iommu->lock, 0, VAPIC_RELEASE);
}

/* True when the entry is in the log. */
static bool append(struct vapic_sil_amd_iommu *iommu, uint64_t entry)
{
    uint32_t tail = vapic_load32(&iommu->tail, VAPIC_RELAXED);
    uint32_t next = (tail + 1) & (iommu->entries - 1);

    if (vapic_load32(&iommu->overflow, VAPIC_ACQUIRE))
        return false;
    /* Acquire: software has read the slot that it gave back by moving the head. */
    if (next == vapic_load32(&iommu->head, VAPIC_ACQUIRE)) {
        vapic_store32(&iommu->overflow, 1, VAPIC_RELEASE);
        return false;
    }
    vapic_store64(&iommu->log[tail], entry, VAPIC_RELAXED);
    /* Release: pairs with software's load of the tail before it reads the entry. */
    vapic_store32(&iommu->tail, next, VAPIC_RELEASE);
    return true;
}

static enum vapic_sil_msi log_entry(struct vapic_sil_amd_iommu *iommu, uint64_t low,
                                    uint16_t device)
{
    uint64_t entry = AMD_GA_LOG_GUEST_NR << AMD_GA_LOG_TYPE_SHIFT |
                     (uint64_t)device << AMD_GA_LOG_DEVICE_SHIFT | low >> AMD_IRTE_GA_TAG_SHIFT;
    bool logged;

    if (iommu->entries == 0)
        return VAPIC_SIL_MSI_POSTED;
    lock(iommu);
    logged = append(iommu, entry);
    unlock(iommu);
    /* For an overflow as for an entry: software must hear of both. */
    if (iommu->log_interrupt)
        vapic_sil_interrupt(iommu->machine, iommu->log_dest, iommu->log_vector);
    return logged ? VAPIC_SIL_MSI_LOGGED : VAPIC_SIL_MSI_POSTED;
}

/* ---- Guest mode ---- */

static uint32_t destination(uint64_t low, uint64_t high)
{
    return (uint32_t)((low & AMD_IRTE_DEST_LOW) >> AMD_IRTE_DEST_LOW_SHIFT) |
           (uint32_t)(high >> AMD_IRTE_HI_DEST_SHIFT) << 24;
}

static enum vapic_sil_msi post(struct vapic_sil_amd_iommu *iommu, const uint64_t irte[2],
                               uint64_t low, uint64_t high, uint16_t device)
{
    struct vapic_sil *m = iommu->machine;
    uint64_t root = high & AMD_IRTE_HI_ROOT;

    if ((low & AMD_IRTE_GA_RESERVED) || (high & AMD_IRTE_HI_RESERVED))
        return VAPIC_SIL_MSI_FAULT;
    if (!vapic_sil_legal(m, root) ||
        !vapic_sil_avic_post(m, root, (uint8_t)(high & AMD_IRTE_HI_VECTOR)))
        return VAPIC_SIL_MSI_FAULT;
    vapic_sil_at(m, NULL, VAPIC_SIL_POINT_POSTED);
    /* After the OR of IRR; pairs with software's store of IsRun before it looks at IRR. IsRun,
     * GALogIntr, destination and tag are not cached by the IOMMU. */
    low = vapic_load64(&irte[LOW], VAPIC_SEQ_CST);
    high = vapic_load64(&irte[HIGH], VAPIC_SEQ_CST);
    vapic_sil_at(m, NULL, VAPIC_SIL_POINT_FOUND);
    /* Switched to remapped mode meanwhile: the same bits mean other things now, and whoever did it
     * looks at IRR once the IOMMU has acknowledged the invalidation. */
    if (!(low & AMD_IRTE_GUEST_MODE))
        return VAPIC_SIL_MSI_POSTED;
    if (low & AMD_IRTE_IS_RUN)
        vapic_sil_avic_ring(m, destination(low, high));
    else if (low & AMD_IRTE_GA_LOG_INTR)
        return log_entry(iommu, low, device);
    return VAPIC_SIL_MSI_POSTED;
}

/* ---- Remapped mode ---- */

enum { TYPE_FIXED, TYPE_ARBITRATED };

/* Logical IDs of the host are those of x2APIC mode. True when a processor was there. */
static bool send_logical(struct vapic_sil *m, uint32_t dest, uint8_t vector, bool one)
{
    bool sent = false;

    for (uint32_t b = 0; b < 16 && !(sent && one); b++) {
        uint32_t id = (dest >> 16) << 4 | b;

        if (!(dest & (1u << b)) || !vapic_sil_cpu_at(m, id))
            continue;
        vapic_sil_interrupt(m, id, vector);
        sent = true;
    }
    return sent;
}

static void send_broadcast(struct vapic_sil *m, uint8_t vector)
{
    for (uint32_t id = 0; id < m->cpu_count; id++)
        vapic_sil_interrupt(m, id, vector);
}

/* Only the types that the model's processors take: the others are not remapped here. */
static enum vapic_sil_msi remap(struct vapic_sil *m, uint64_t low, uint64_t high)
{
    uint32_t type = (uint32_t)((low & AMD_IRTE_INT_TYPE) >> AMD_IRTE_INT_TYPE_SHIFT);
    uint32_t dest = destination(low, high);
    uint8_t vector = (uint8_t)(high & AMD_IRTE_HI_VECTOR);

    if (type > TYPE_ARBITRATED || vector < APIC_FIRST_VECTOR)
        return VAPIC_SIL_MSI_FAULT;
    if (dest == APIC_DEST_ALL_32)
        send_broadcast(m, vector);
    else if (low & AMD_IRTE_LOGICAL)
        send_logical(m, dest, vector, type == TYPE_ARBITRATED);
    else
        vapic_sil_interrupt(m, dest, vector);
    return VAPIC_SIL_MSI_REMAPPED;
}

/* ---- A message ---- */

/* The entry as one: software replaces it in a way that never shows one half of each mode, and the
 * IOMMU reads it in one access. A bounded number of looks: who rewrites it all the time gets the
 * last one. */
static void read_entry(const uint64_t irte[2], uint64_t *low, uint64_t *high)
{
    for (int look = 0; look < 4; look++) {
        *low = vapic_load64(&irte[LOW], VAPIC_SEQ_CST);
        *high = vapic_load64(&irte[HIGH], VAPIC_SEQ_CST);
        if (vapic_load64(&irte[LOW], VAPIC_SEQ_CST) == *low)
            return;
    }
}

enum vapic_sil_msi vapic_sil_amd_msi(struct vapic_sil_amd_iommu *iommu, const uint64_t irte[2],
                                     uint16_t device)
{
    uint64_t low, high;

    read_entry(irte, &low, &high);
    if (!(low & AMD_IRTE_VALID))
        return VAPIC_SIL_MSI_BLOCKED;
    if (low & AMD_IRTE_GUEST_MODE)
        return post(iommu, irte, low, high, device);
    return remap(iommu->machine, low, high);
}
