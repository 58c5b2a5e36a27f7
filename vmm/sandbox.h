/* SPDX-License-Identifier: MIT */
/*
 * What a running `vapic run` may still ask of the kernel (docs/sandbox.md): a seccomp filter over
 * all threads, from the moment at which everything is opened until the process ends, and
 * no-new-privileges. Called by the command before the machine runs, and by the rig once the
 * emulator is up.
 *
 * A call that is not in the list ends the process: SIGSYS, after a line on standard error.
 */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

#include "err.h"

enum vmm_sandbox {
    VMM_SANDBOX_KVM, /* threads, memory, timers, and the ioctls of /dev/kvm that vmm/ makes */
    VMM_SANDBOX_RIG, /* reading, writing, and ending the emulator */
};

/*
 * False where there can be none: the sanitizers' run-time libraries make calls of their own, so a
 * program built with one runs without.
 */
bool vmm_sandbox_possible(void);

/* No program that this process executes gains privileges. Harmless, and for good. */
int vmm_sandbox_no_new_privs(struct vmm_err *err);

/*
 * The filter, for good. `emulator` is the process that the rig may end; the other kind has none, 0.
 * -1: the kernel has no seccomp, and the error says what to do.
 */
int vmm_sandbox_enter(enum vmm_sandbox kind, pid_t emulator, struct vmm_err *err);

#endif
