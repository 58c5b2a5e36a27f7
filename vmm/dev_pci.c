/* SPDX-License-Identifier: MIT */
/*
 * PCI configuration ports and the reset control register (see dev_pci.h). Called by the port bus.
 * [PCI] is the PCI local bus specification 2.2, 3.2.2.3.2 (mechanism 1) and 6.1 (header).
 */
#include "dev_pci.h"

#include <string.h>

enum {
    ADDRESS = 0,
    RESET_CONTROL = 1,
    DATA = 4,
    ADDRESS_ENABLE = 0x80000000u,
    ADDRESS_RESERVED = 0x7f000003u,
    CONFIG_COMMAND = 0x04,
    COMMAND_MEMORY = 0x02, /* the bridge always passes memory cycles on ... */
    COMMAND_MASTER = 0x04, /* ... and is always a master */
    RC_FULL = 0x02,
    RC_RESET = 0x04,
};

/* What the bridge's header holds besides zeros: ids 8086:1237, revision 2, class 060000h. */
static const uint8_t bridge[] = {
    0x86, 0x80, 0x37, 0x12, 0x00, 0x00, 0x80, 0x02, 0x02, 0x00, 0x00, 0x06,
};

/* `at` is the offset in the device's 256 bytes. */
static uint8_t bridge_byte(const struct vmm_pci *pci, unsigned at)
{
    if (at == CONFIG_COMMAND || at == CONFIG_COMMAND + 1)
        return pci->command[at - CONFIG_COMMAND];
    return at < sizeof(bridge) ? bridge[at] : 0;
}

/* Bus 0, device 0, function 0. */
static bool selects_bridge(const struct vmm_pci *pci)
{
    return (pci->address & ADDRESS_ENABLE) && !(pci->address & 0x00ffff00u);
}

static uint64_t pci_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct vmm_pci *pci = ctx;
    uint64_t value = 0;

    if (offset == ADDRESS && size == 4)
        return pci->address;
    if (offset == RESET_CONTROL && size == 1)
        return pci->reset_control;
    if (offset < DATA || !selects_bridge(pci))
        return UINT64_MAX;
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (pci->address & 0xfc) + (unsigned)(offset - DATA) + i;

        value |= (uint64_t)bridge_byte(pci, at) << (8 * i);
    }
    return value;
}

static void bridge_write(struct vmm_pci *pci, unsigned at, uint8_t value)
{
    if (at == CONFIG_COMMAND)
        pci->command[0] = (value & 0x40) | COMMAND_MEMORY | COMMAND_MASTER;
    else if (at == CONFIG_COMMAND + 1)
        pci->command[1] = value & 0x01;
}

static void pci_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_pci *pci = ctx;

    if (offset == ADDRESS && size == 4) {
        pci->address = (uint32_t)value & ~ADDRESS_RESERVED;
    } else if (offset == RESET_CONTROL && size == 1) {
        pci->reset_control = (uint8_t)value & RC_FULL;
        if (value & RC_RESET)
            vmm_env_power(pci->env, VMM_POWER_RESET, 0);
    } else if (offset >= DATA && selects_bridge(pci)) {
        for (unsigned i = 0; i < size; i++)
            bridge_write(pci, (pci->address & 0xfc) + (unsigned)(offset - DATA) + i,
                         (uint8_t)(value >> (8 * i)));
    }
}

static const struct vmm_bus_ops pci_ops = {pci_read, pci_write};

int vmm_pci_init(struct vmm_pci *pci, struct vmm_env *env)
{
    memset(pci, 0, sizeof(*pci));
    pci->env = env;
    vmm_pci_reset(pci);
    return vmm_env_claim(env, "pci config", 0xcf8, 8, VMM_BUS_W124, &pci_ops, pci);
}

void vmm_pci_reset(struct vmm_pci *pci)
{
    pci->address = 0;
    pci->reset_control = 0;
    pci->command[0] = COMMAND_MEMORY | COMMAND_MASTER;
    pci->command[1] = 0;
}
