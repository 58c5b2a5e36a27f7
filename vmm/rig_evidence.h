/* SPDX-License-Identifier: MIT */
/*
 * What a silent emulator was doing: its threads with the time they use, and, through its monitor,
 * the state of its processors twice, a second apart. Called by rig.c before it ends an emulator
 * that has stopped to answer, so that a reader can tell one that loops from one that sleeps for
 * ever.
 */
#ifndef VMM_RIG_EVIDENCE_H
#define VMM_RIG_EVIDENCE_H

#include <sys/types.h>

#define VMM_RIG_THREADS_MAX 64u

/* What the kernel says of its threads: open files, for later nothing can be opened. */
struct vmm_rig_evidence {
    int stat[VMM_RIG_THREADS_MAX];
    unsigned threads;
};

/* Of the threads that it has now. What cannot be opened is left out. */
void vmm_rig_evidence_open(struct vmm_rig_evidence *evidence, pid_t pid);

void vmm_rig_evidence_close(struct vmm_rig_evidence *evidence);

/* Prints it to standard error, each line marked; takes at most some ten seconds. */
void vmm_rig_evidence_show(const struct vmm_rig_evidence *evidence, int monitor);

#endif
