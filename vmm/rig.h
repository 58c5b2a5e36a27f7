/* SPDX-License-Identifier: MIT */
/*
 * The rig: runs a command, usually this very program, in a small Linux host under QEMU, whose
 * TCG emulates an AMD processor with SVM, so that the command finds a working /dev/kvm. No
 * privileges, no network and no /dev/kvm of this machine are needed. Called by `vapic run`.
 *
 * The host is a kernel of Debian's (`make` downloads it), a base initramfs (busybox, KVM's
 * modules) and what this run adds: the program, the shared objects it uses and its input files.
 *
 * Environment: VAPIC_RIG_DIR names the directory with the kernel and the initramfs images,
 * VAPIC_RIG_QEMU the emulator, VAPIC_RIG_LOG a file that receives the host kernel's messages,
 * VAPIC_RIG_SILENCE the seconds without a sign of life after which the emulator is given up (90).
 */
#ifndef VMM_RIG_H
#define VMM_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define VMM_RIG_FILES_MAX   64u
#define VMM_RIG_OUTPUTS_MAX 8u

enum vmm_rig_arg_kind {
    VMM_RIG_TEXT, /* passed on as it is */
    VMM_RIG_SELF, /* the running program; its text is the name under which it runs */
    VMM_RIG_IN,   /* names a file here that the command reads: packed, and its name replaced */
    VMM_RIG_OUT,  /* names a file here that the command writes, front to back; no other access */
};

struct vmm_rig_arg {
    enum vmm_rig_arg_kind kind;
    const char *text;
};

/* A further file for the command: `path` here, `name` (absolute) inside. */
struct vmm_rig_file {
    const char *path;
    const char *name;
};

struct vmm_rig_config {
    const struct vmm_rig_arg *args; /* the command; args[0] is what is executed */
    size_t nargs;
    const struct vmm_rig_file *files;
    size_t nfiles;
    uint64_t guest_mem; /* bytes that the command will want for its guest */
    const char *dir;    /* NULL: VAPIC_RIG_DIR, or the directory set when this was built */
    const char *kernel; /* NULL: vmlinuz of the directory */
    unsigned cpus;      /* of the host; 0: the default */
    bool icount;        /* repeatable virtual time, 1 ns per instruction, one host CPU */
    bool sandbox;       /* enter it (sandbox.h) once the host is up */
};

/*
 * Runs the command to its end: this process's standard input, output and error are the
 * command's, byte for byte; a terminal is raw meanwhile. Returns 0 and the command's exit status,
 * or -1 when the rig could not run it or was interrupted before the command could end by itself.
 * What the host kernel said is then on standard error, ahead of the error's line.
 *
 * SIGINT, SIGTERM and SIGHUP end the command with SIGTERM, a second one (or ten seconds) ends
 * the rig. To be called from the main thread: the emulator dies with the thread that started it.
 */
int vmm_rig_run(const struct vmm_rig_config *cfg, int *status, struct vmm_err *err);

#endif
