/* SPDX-License-Identifier: MIT */
/*
 * The firmware configuration device (see dev_fwcfg.h). Called by the port bus.
 */
#include "dev_fwcfg.h"

#include <stddef.h>
#include <string.h>

enum {
    KEY_SIGNATURE = 0x00,
    KEY_ID = 0x01,
    KEY_RAM_SIZE = 0x03,
    KEY_CPUS = 0x05,
    KEY_MAX_CPUS = 0x0f,
    KEY_FILE_DIR = 0x19,
    KEY_MASK = 0xbfff, /* bit 14 asks to write, which no item here allows */
    ID_TRADITIONAL = 0x01,
};

/* Stores `value`, low byte first, and returns its length. */
static size_t item_number(uint8_t *out, uint64_t value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(value >> (8 * i));
    return len;
}

/* The contents of the item selected, at most 8 bytes; returns their length. */
static size_t item(const struct vmm_fwcfg *fwcfg, uint8_t out[8])
{
    switch (fwcfg->key & KEY_MASK) {
    case KEY_SIGNATURE:
        memcpy(out, "QEMU", 4);
        return 4;
    case KEY_ID:
        return item_number(out, ID_TRADITIONAL, 4);
    case KEY_RAM_SIZE:
        return item_number(out, fwcfg->config.ram_size, 8);
    case KEY_CPUS:
        return item_number(out, fwcfg->config.cpus, 2);
    case KEY_MAX_CPUS:
        return item_number(out, fwcfg->config.max_cpus, 2);
    case KEY_FILE_DIR: /* number of files, high byte first */
        return item_number(out, 0, 4);
    default:
        return 0;
    }
}

static uint8_t next_byte(struct vmm_fwcfg *fwcfg)
{
    uint8_t data[8] = {0};
    size_t len = item(fwcfg, data);

    return fwcfg->offset < len ? data[fwcfg->offset++] : 0;
}

/* Both ports read data; a word is two bytes of it. */
static uint64_t fwcfg_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_fwcfg *fwcfg = ctx;
    uint64_t value = next_byte(fwcfg);

    (void)offset;
    return size == 1 ? value : value | (uint64_t)next_byte(fwcfg) << 8;
}

static void fwcfg_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_fwcfg *fwcfg = ctx;

    (void)offset;
    /* Byte writes would change an item; none can be changed. */
    if (size != 2)
        return;
    fwcfg->key = (uint16_t)value;
    fwcfg->offset = 0;
}

static const struct vmm_bus_ops fwcfg_ops = {fwcfg_read, fwcfg_write};

int vmm_fwcfg_init(struct vmm_fwcfg *fwcfg, struct vmm_env *env,
                   const struct vmm_fwcfg_config *config)
{
    memset(fwcfg, 0, sizeof(*fwcfg));
    fwcfg->env = env;
    fwcfg->config = *config;
    return vmm_env_claim(env, "fw_cfg", 0x510, 2, VMM_BUS_W1 | VMM_BUS_W2, &fwcfg_ops, fwcfg);
}

void vmm_fwcfg_reset(struct vmm_fwcfg *fwcfg)
{
    fwcfg->key = KEY_SIGNATURE;
    fwcfg->offset = 0;
}
