/* SPDX-License-Identifier: MIT */
/*
 * What the run loop, reset and state files call of the paravirtual companions (pv*.c), and what
 * these share. All of it on the owner's thread, and only where v->pv is not NULL.
 */
#ifndef VAPIC_SRC_PV_H
#define VAPIC_SRC_PV_H

#include "vapic/pv.h"

/*
 * Takes notice of what the guest did to the shared word and leaves it clear. The vCPU is outside
 * the guest. Before anybody looks at ISR, PPR or IRR with the intention to act on it: vapic_exit(),
 * the start of vapic_enter(), state save and load, before the vCPU becomes active.
 */
void vapic_pv_sync(struct vapic *v);

/* Last step of vapic_enter() of a vCPU that runs: sets the word where it may be set. */
void vapic_pv_enter(struct vapic *v);

/*
 * `vector` has just moved from IRR to ISR. True: it is an AutoEOI vector, and the caller takes it
 * out of service again, which no I/O APIC learns of when it is edge-triggered. False: the word may
 * have been set.
 */
bool vapic_pv_committed(struct vapic *v, uint8_t vector);

/*
 * RESET or INIT: MSRs and SINTs back to their initial values. Takes the configuration lock when
 * there were AutoEOI vectors.
 */
void vapic_pv_reset(struct vapic *v);

/* ---- pv_hyperv.c, for pv.c ---- */

int vapic_hv_msr_read(const struct vapic *v, uint32_t msr, uint64_t *value);
int vapic_hv_msr_write(struct vapic *v, uint32_t msr, uint64_t value);
/* Masks the SINTs and forgets AutoEOI vectors. Takes the configuration lock if there were any. */
void vapic_hv_reset(struct vapic *v);

#endif
