/* SPDX-License-Identifier: MIT */
/*
 * The firmware configuration device (ports 510h/511h) in its oldest form, no DMA: a 16-bit write
 * selects an item, byte reads give its contents and then zeros. Has the signature, the interface
 * version, the RAM size, the CPU counts and an empty file directory; every other item is empty.
 */
#ifndef VMM_DEV_FWCFG_H
#define VMM_DEV_FWCFG_H

#include "dev_env.h"

struct vmm_fwcfg_config {
    uint64_t ram_size;
    uint16_t cpus;
    uint16_t max_cpus;
};

struct vmm_fwcfg {
    struct vmm_env *env;
    struct vmm_fwcfg_config config;
    uint16_t key;
    uint32_t offset;
};

int vmm_fwcfg_init(struct vmm_fwcfg *fwcfg, struct vmm_env *env,
                   const struct vmm_fwcfg_config *config);
void vmm_fwcfg_reset(struct vmm_fwcfg *fwcfg);

#endif
