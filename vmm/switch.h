/* SPDX-License-Identifier: MIT */
/*
 * The live switch: a stopped machine's interrupt controllers become the other model's, libvapic's
 * or KVM's own. KVM cannot give up its irqchip, so everything is saved, a new virtual machine is
 * made over the same guest memory, and everything is loaded. Called by the machine (machine.c)
 * between two runs of its vCPU threads.
 */
#ifndef VMM_SWITCH_H
#define VMM_SWITCH_H

#include "err.h"

struct vmm_machine;

/* No vCPU thread runs. After a failure there is nothing left to run. */
int vmm_switch(struct vmm_machine *m, struct vmm_err *err);

#endif
