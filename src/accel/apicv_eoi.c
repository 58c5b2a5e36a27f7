/* SPDX-License-Identifier: MIT */
/*
 * APICv's EOI-exit bitmap: of which vectors software must see the EOI. Owned by the vCPU's owner,
 * loaded last thing before an entry. [SDM3 31.1.4]
 *
 * The bit of a vector is set while one of these is true:
 *
 * - A level-triggered or watched pin or message route has the vector and leads to this vCPU
 *   (eoi_here). By itself this would be too late when a route changes while the vCPU is in the
 *   guest, and too early to forget when one is led away; it spares loading the bitmap anew for
 *   every interrupt.
 *
 * - IRR or ISR hold the vector and TMR calls it level-triggered. That is what makes it right.
 *   Levels come into IRR by software only, outside the guest (post.c), and TMR with them; so
 *   whatever the route was then or is now, the bit is loaded before the vector can be ended, and
 *   stays until it has been.
 *
 * - IRR or ISR hold the vector and any watched route has it, wherever it leads (eoi_watched): an
 *   edge whose route was led away while it was in flight. A software EOI tells watchers by vector,
 *   too.
 *
 * A bit too many costs an exit and nothing else: the EOI is looked at as software would.
 */
#include "apicv.h"

/* Two neighbouring words of ISR, TMR or IRR: the vectors 64*n to 64*n+63. */
static uint64_t vectors(const struct vapic *v, uint32_t base, uint32_t n)
{
    return reg(v, base + 32 * n) | (uint64_t)reg(v, base + 32 * n + 16) << 32;
}

/*
 * `generation` was read before the routes are. So a change that this scan may have missed, also one
 * that is under way, has yet to count the generation up: the next entry scans again. Until it does,
 * senders see the change by routes_changing (post.c).
 */
static void scan(struct vapic *v, uint32_t generation)
{
    struct vapic_accel_vcpu *av = v->accel;
    struct vapic_eoi_vectors set;

    vapic_eoi_vectors(v, &set);
    for (uint32_t i = 0; i < 4; i++) {
        av->eoi_here[i] = set.here[i];
        av->eoi_watched[i] = set.watched[i];
    }
    /* Relaxed: whoever posts by what this says does so with ON, and the guest is entered after. */
    vapic_store32(&av->scanned, generation, VAPIC_RELAXED);
}

/* What the contents of IRR and ISR ask for. The hints are right: the harvest has just been. */
static uint64_t pending_exits(const struct vapic *v, uint32_t n)
{
    uint32_t words = (uint32_t)v->irr_words | v->isr_words;
    uint64_t pending;

    if ((words >> 2 * n & 3) == 0)
        return 0;
    if (MUTANT(EOI_BITMAP_LATE))
        return 0;
    pending = vectors(v, APIC_IRR, n) | vectors(v, APIC_ISR, n);
    return pending & (vectors(v, APIC_TMR, n) | v->accel->eoi_watched[n]);
}

void vapic_apicv_load_eoi_exits(struct vapic *v)
{
    struct vapic_accel_vcpu *av = v->accel;
    uint32_t generation = vapic_load32(&v->vm->routes_generation, VAPIC_ACQUIRE);

    if (av->scanned != generation)
        scan(v, generation);
    for (uint32_t n = 0; n < 4; n++)
        vapic_apicv_tell(v, APICV_FIELD_EOI + n, av->eoi_here[n] | pending_exits(v, n));
}
