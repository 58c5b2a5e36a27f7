/* SPDX-License-Identifier: MIT */
/*
 * Starts and stops the rig's emulator. Its ends of the channels are sockets that exist before
 * it does; nothing is named in the file system. Called by rig.c, which reads and writes them.
 */
#ifndef VMM_RIG_QEMU_H
#define VMM_RIG_QEMU_H

#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "rig.h"
#include "rig_host.h"
#include "rig_pack.h"

#define VMM_RIG_CHANNELS_MAX (VMM_RIG_PORT_CONTROL + VMM_RIG_OUTPUTS_MAX)

struct vmm_rig_machine {
    pid_t pid;
    int channel[VMM_RIG_CHANNELS_MAX]; /* our ends, non-blocking, by port number - 1 */
    unsigned channels;
    int monitor; /* our end of QEMU's, in QMP */
    int log;     /* what the host kernel said on its serial port, then what the emulator said */
};

/* What to boot: the descriptor and size of the initramfs are vmm_rig_pack()'s. */
struct vmm_rig_boot {
    const struct vmm_rig_config *cfg;
    const struct vmm_rig_host *host;
    int initramfs;
    uint64_t initramfs_size;
};

int vmm_rig_qemu_start(struct vmm_rig_machine *machine, const struct vmm_rig_boot *boot,
                       struct vmm_err *err);

/* Ends the emulator if it still runs, reaps it, closes our ends; returns its wait status. */
int vmm_rig_qemu_stop(struct vmm_rig_machine *machine);

#endif
