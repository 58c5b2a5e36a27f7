/* SPDX-License-Identifier: MIT */
/*
 * Builds the initramfs of one run of the rig, in memory: the base image, the kernel's modules,
 * and an archive with the command: /rig/run (a shell script that executes it), the program, the
 * shared objects it uses, its input files. Called by rig.c.
 */
#ifndef VMM_RIG_PACK_H
#define VMM_RIG_PACK_H

#include <stdint.h>

#include "err.h"
#include "rig.h"
#include "rig_host.h"

/* The virtio ports by number; tools/initramfs-rig.init uses the same. */
enum vmm_rig_port {
    VMM_RIG_PORT_CONSOLE = 1,
    VMM_RIG_PORT_STDERR = 2,
    VMM_RIG_PORT_CONTROL = 3,
    VMM_RIG_PORT_OUTPUT = 4, /* the first of them */
};

/* Returns a descriptor (of a file without a name) that holds the image, or -1. */
int vmm_rig_pack(const struct vmm_rig_config *cfg, const struct vmm_rig_host *host, uint64_t *size,
                 struct vmm_err *err);

#endif
