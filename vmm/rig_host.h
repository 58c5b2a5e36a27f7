/* SPDX-License-Identifier: MIT */
/*
 * Finds the parts of the rig: emulator, host kernel, initramfs images. Called by rig.c.
 */
#ifndef VMM_RIG_HOST_H
#define VMM_RIG_HOST_H

#include "err.h"
#include "rig.h"

#include <limits.h>

struct vmm_rig_host {
    char qemu[PATH_MAX];
    char kernel[PATH_MAX];
    char base[PATH_MAX];    /* initramfs: busybox and /init */
    char modules[PATH_MAX]; /* initramfs: the modules of this very kernel */
};

int vmm_rig_host_find(struct vmm_rig_host *host, const struct vmm_rig_config *cfg,
                      struct vmm_err *err);

#endif
