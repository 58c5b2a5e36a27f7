/* SPDX-License-Identifier: MIT */
/*
 * PCI configuration mechanism 1 (ports CF8h to CFFh) with a host bridge (8086:1237) at 00:00.0 and
 * nothing else, and the reset control register that lies inside these ports (CF9h, byte accesses
 * only).
 */
#ifndef VMM_DEV_PCI_H
#define VMM_DEV_PCI_H

#include "dev_env.h"

struct vmm_pci {
    struct vmm_env *env;
    uint32_t address;
    uint8_t reset_control; /* bit 1: the reset is to be a full one */
    uint8_t command[2];
};

int vmm_pci_init(struct vmm_pci *pci, struct vmm_env *env);
void vmm_pci_reset(struct vmm_pci *pci);

#endif
