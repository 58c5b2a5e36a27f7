/* SPDX-License-Identifier: MIT */
/*
 * A VT-d IOMMU, as far as one message of a device goes through one interrupt remapping table entry:
 * posted format (into a posted-interrupt descriptor, the same protocol as an IPI's, see
 * apicv_posted.c) and remapped format (an interrupt of the host).
 *
 * The table, its cache and the queues are software's business: the caller names the entry.
 */
#include "apicv.h"

struct irte {
    uint64_t low, high;
};

/* Hardware reads the entry at once. Here the first word is read before and after the second, until
 * it stays the same; it holds the present bit, the format and, if posted, a part of the address.
 * Software that puts an old first word back within the time of these loads is not noticed. */
static struct irte load_irte(const uint64_t *entry)
{
    struct irte irte = {.low = vapic_load64(&entry[0], VAPIC_ACQUIRE)};

    for (unsigned tries = 0; tries < 64; tries++) {
        uint64_t before = irte.low;

        /* Acquire on both: pairs with the release (or locked) stores of whoever changes it. */
        irte.high = vapic_load64(&entry[1], VAPIC_ACQUIRE);
        irte.low = vapic_load64(&entry[0], VAPIC_ACQUIRE);
        if (irte.low == before)
            break;
    }
    return irte;
}

/* What is compared of the requester: all, or all but some of the function number's bits. */
static bool source_ok(const struct irte *irte, uint16_t source)
{
    static const uint16_t ignored[] = {0x0, 0x4, 0x6, 0x7};
    uint16_t sid = VTD_IRTE_SID(irte->high);
    uint16_t mask = (uint16_t)~ignored[(irte->high & VTD_IRTE_SQ) >> VTD_IRTE_SQ_SHIFT];

    switch (irte->high & VTD_IRTE_SVT) {
    case VTD_IRTE_SVT_NONE:
        return true;
    case VTD_IRTE_SVT_REQUESTER:
        return (sid & mask) == (source & mask);
    case VTD_IRTE_SVT_BUS:
        return source >> 8 >= sid >> 8 && source >> 8 <= (sid & 0xFF);
    default:
        return false;
    }
}

static bool reserved_bits(const struct irte *irte, bool xapic)
{
    if (irte->low & VTD_IRTE_POSTED)
        return (irte->low & VTD_IRTE_POSTED_RESERVED) || (irte->high & VTD_IRTE_HIGH_RESERVED);
    return (irte->low & VTD_IRTE_REMAPPED_RESERVED) || irte->high >> 20 ||
           (xapic && (irte->low & VTD_IRTE_DEST_XAPIC_RESERVED));
}

static uint64_t *descriptor(const struct vapic_sil *m, const struct irte *irte)
{
    uint64_t address =
        irte->high >> VTD_IRTE_PID_HIGH_SHIFT << 32 | irte->low >> VTD_IRTE_PID_LOW_SHIFT << 6;

    return vapic_sil_legal(m, address) ? vapic_sil_memory(m, address, PID_SIZE) : NULL;
}

/* Is the processor among the destinations? Logical IDs: in x2APIC mode they follow from the APIC
 * ID [SDM3 12.12.10.2]; in xAPIC mode software chooses, and this model takes the flat model with
 * one bit per processor, as everybody does who has up to eight. */
static bool matches(const struct vapic_sil *m, uint32_t id, bool logical, uint32_t dest)
{
    bool xapic = m->config.xapic_host;

    if (dest == (xapic ? APIC_DEST_ALL_8 : APIC_DEST_ALL_32))
        return true;
    if (!logical)
        return id == dest;
    if (xapic)
        return id < 8 && (dest >> id & 1);
    return id >> 4 == dest >> 16 && (dest >> (id & 15) & 1);
}

/* Fixed or lowest priority; other delivery modes have no vector, and no part in this model. The
 * choice among several for lowest priority is hardware's: here it is the lowest ID. */
static void deliver_remapped(struct vapic_sil *m, const struct irte *irte)
{
    uint64_t mode = (irte->low & VTD_IRTE_DM) >> VTD_IRTE_DM_SHIFT;
    bool one = mode == 1 || (irte->low & VTD_IRTE_REDIRECTION_HINT);
    bool logical = (irte->low & VTD_IRTE_LOGICAL) != 0;
    unsigned shift = m->config.xapic_host ? VTD_IRTE_DEST_XAPIC_SHIFT : VTD_IRTE_DEST_SHIFT;
    uint32_t dest = (uint32_t)(irte->low >> shift);

    for (uint32_t id = 0; mode <= 1 && id < m->cpu_count; id++) {
        if (!m->cpus[id] || !matches(m, id, logical, dest))
            continue;
        vapic_sil_interrupt(m, id, VTD_IRTE_VECTOR(irte->low));
        if (one)
            return;
    }
}

enum vapic_sil_msi vapic_sil_vtd_msi(struct vapic_sil *m, const uint64_t entry[2], uint16_t source)
{
    struct irte irte = load_irte(entry);
    enum vapic_sil_msi fault =
        irte.low & VTD_IRTE_FPD ? VAPIC_SIL_MSI_BLOCKED : VAPIC_SIL_MSI_FAULT;
    uint64_t *pid;

    if (!(irte.low & VTD_IRTE_PRESENT))
        return VAPIC_SIL_MSI_BLOCKED;
    if (reserved_bits(&irte, m->config.xapic_host) || !source_ok(&irte, source))
        return fault;
    if (!(irte.low & VTD_IRTE_POSTED)) {
        deliver_remapped(m, &irte);
        return VAPIC_SIL_MSI_REMAPPED;
    }
    pid = descriptor(m, &irte);
    if (!pid)
        return fault;
    vapic_sil_apicv_post(m, NULL, pid, VTD_IRTE_VECTOR(irte.low),
                         (irte.low & VTD_IRTE_URGENT) != 0);
    return VAPIC_SIL_MSI_POSTED;
}
