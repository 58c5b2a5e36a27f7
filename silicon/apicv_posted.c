/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts, both ends of the descriptor [SDM3 31.6]:
 *
 *      sender      PIR |= vector (A1); ON, unless it is set or SN forbids (A2); notify (A3)
 *      receiver    take the notification (B1); clear ON (B2); harvest PIR (B3)
 *
 * A sender that comes too late for B3 sees at A2 what B2 left, ON=0, and notifies again: nothing is
 * lost. With B3 before B2 a vector set in between would sit in PIR with nobody told. All five are
 * locked operations, full barriers. Software that posts or harvests follows the same order.
 *
 * Senders are IPI virtualization (apicv_ipiv.c), the IOMMU (iommu_vtd.c) and software.
 */
#include "apicv.h"

/* PIR and VIRR are the same 256 bits, 64 and 32 at a time. The words of VIRR are 10h apart. */
static void merge(struct vapic_sil_cpu *cpu, unsigned word, uint64_t bits)
{
    uint64_t page = apicv_get(cpu, FIELD_VIRTUAL_APIC);

    for (unsigned half = 0; half < 2; half++) {
        uint32_t offset = APIC_IRR + 0x10 * (2 * word + half);

        vapic_or32(vapic_sil_memory(cpu->machine, page + offset, sizeof(uint32_t)),
                   (uint32_t)(bits >> (32 * half)), VAPIC_RELAXED);
    }
}

/* Uses VPPR as it stands: there is no PPR virtualization here. */
void vapic_sil_apicv_process_posted(struct vapic_sil_cpu *cpu)
{
    uint64_t *pid = vapic_sil_memory(cpu->machine, apicv_get(cpu, FIELD_PID), PID_SIZE);

    /* B2, pairs with A2 */
    vapic_and64(&pid[PID_CONTROL / 8], ~(uint64_t)PID_ON, VAPIC_SEQ_CST);
    vapic_sil_at(cpu->machine, cpu, VAPIC_SIL_POINT_CLEARED);
    for (unsigned word = 0; word < 4; word++) {
        /* B3, pairs with A1 */
        uint64_t bits = vapic_xchg64(&pid[word], 0, VAPIC_SEQ_CST);
        uint8_t top = bits ? (uint8_t)(word * 64 + 63 - (unsigned)__builtin_clzll(bits)) : 0;

        if (bits)
            merge(cpu, word, bits);
        if (top > cpu->rvi)
            cpu->rvi = top;
    }
    vapic_sil_apicv_evaluate(cpu);
}

/* True: ON was set here, so this sender notifies. */
static bool claim(uint64_t *control, bool urgent, uint64_t *seen)
{
    *seen = vapic_load64(control, VAPIC_RELAXED);
    for (;;) {
        bool quiet = (*seen & PID_ON) || ((*seen & PID_SN) && !urgent);

        /* A2, pairs with B2. The word is rewritten also when it does not change: a plain read could
         * be older than A1, and see an ON that the receiver has cleared before its harvest. */
        if (vapic_cas64(control, seen, quiet ? *seen : *seen | PID_ON, VAPIC_SEQ_CST))
            return !quiet;
    }
}

/* A host in xAPIC mode sends by an 8-bit ID, in x2APIC mode by a 32-bit one; all ones is everybody,
 * as in any ICR: it is up to software not to put that into a descriptor. */
static void notify(struct vapic_sil *m, struct vapic_sil_cpu *cpu, uint64_t control)
{
    bool xapic = m->config.xapic_host;
    uint32_t id = xapic ? PID_NDST_XAPIC_ID(PID_NDST(control)) : PID_NDST(control);

    if (cpu)
        cpu->notifications_sent++;
    if (id != (xapic ? APIC_DEST_ALL_8 : APIC_DEST_ALL_32)) {
        vapic_sil_interrupt(m, id, PID_NV(control));
        return;
    }
    for (uint32_t i = 0; i < m->cpu_count; i++)
        vapic_sil_interrupt(m, i, PID_NV(control));
}

void vapic_sil_apicv_post(struct vapic_sil *m, struct vapic_sil_cpu *cpu, uint64_t *pid,
                          uint8_t vector, bool urgent)
{
    uint64_t control;
    bool first;

    vapic_sil_at(m, cpu, VAPIC_SIL_POINT_RESOLVED);
    /* A1, pairs with B3 */
    vapic_or64(&pid[vector / 64], UINT64_C(1) << (vector % 64), VAPIC_SEQ_CST);
    vapic_sil_at(m, cpu, VAPIC_SIL_POINT_POSTED);
    first = claim(&pid[PID_CONTROL / 8], urgent, &control);
    vapic_sil_at(m, cpu, VAPIC_SIL_POINT_FOUND);
    if (first)
        notify(m, cpu, control);
}
