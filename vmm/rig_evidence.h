/* SPDX-License-Identifier: MIT */
/*
 * What a silent emulator was doing: its threads with the time they use, and, through its monitor,
 * the state of its processors twice, a second apart. Called by rig.c before it ends an emulator
 * that has stopped to answer, so that a reader can tell one that loops from one that sleeps for
 * ever.
 */
#ifndef VMM_RIG_EVIDENCE_H
#define VMM_RIG_EVIDENCE_H

#include "rig_qemu.h"

/* Prints it to standard error, each line marked; takes at most some ten seconds. */
void vmm_rig_evidence(const struct vmm_rig_machine *machine);

#endif
