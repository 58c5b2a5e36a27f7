/* SPDX-License-Identifier: MIT */
/*
 * IPI virtualization [SDM3 31.1.6]: an IPI with one physical destination finds its target's
 * posted-interrupt descriptor in the PID-pointer table and is posted. What the table does not
 * answer for ends in exit 56; the value is in the page by then and the instruction complete.
 */
#include "apicv.h"

/* The descriptor, NULL: the table has none. */
static uint64_t *descriptor(const struct vapic_sil_cpu *cpu, uint32_t target)
{
    const struct vapic_sil *m = cpu->machine;
    uint64_t table = apicv_get(cpu, FIELD_PID_TABLE);
    const uint64_t *slot;
    uint64_t entry;

    if (target > apicv_get(cpu, FIELD_LAST_PID_INDEX))
        return NULL;
    slot = vapic_sil_memory(m, table + 8 * (uint64_t)target, sizeof(*slot));
    if (!slot)
        return NULL;
    /* Acquire: pairs with the store that publishes the entry after its descriptor. */
    entry = vapic_load64(slot, VAPIC_ACQUIRE);
    if ((entry & APICV_PID_ENTRY_FLAGS) != APICV_PID_ENTRY_VALID || !vapic_sil_legal(m, entry))
        return NULL;
    return vapic_sil_memory(m, entry & ~APICV_PID_ENTRY_FLAGS, PID_SIZE);
}

enum vapic_sil_result vapic_sil_apicv_send_ipi(struct vapic_sil_cpu *cpu, uint8_t vector,
                                               uint32_t target)
{
    uint64_t *pid = vector < APICV_FIRST_VECTOR ? NULL : descriptor(cpu, target);

    if (!pid)
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_APIC_WRITE, APIC_ICR);
    vapic_sil_apicv_post(cpu->machine, cpu, pid, vector, false);
    return VAPIC_SIL_DONE;
}
