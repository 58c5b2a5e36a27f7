/* SPDX-License-Identifier: MIT */
/*
 * The keyboard controller and port 92h (see dev_kbc.h). Called by the port bus.
 */
#include "dev_kbc.h"

#include <string.h>

#define GSI_KBC 1

enum {
    ST_OUTPUT_FULL = 0x01,
    ST_SYSTEM = 0x04,
    ST_COMMAND = 0x08,
    ST_UNLOCKED = 0x10,
    ST_TIMEOUT = 0x40,

    CMD_READ_MODE = 0x20,
    CMD_WRITE_MODE = 0x60,
    CMD_AUX_DISABLE = 0xa7,
    CMD_AUX_ENABLE = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KBD_TEST = 0xab,
    CMD_KBD_DISABLE = 0xad,
    CMD_KBD_ENABLE = 0xae,
    CMD_READ_OUTPUT_PORT = 0xd0,
    CMD_WRITE_OUTPUT_PORT = 0xd1,
    CMD_WRITE_KBD_OUT = 0xd2,
    CMD_WRITE_AUX_OUT = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_PULSE = 0xf0, /* and above: the low four bits that are 0 are pulsed low */

    MODE_KBD_IRQ = 0x01,
    MODE_SYSTEM = 0x04,
    MODE_KBD_OFF = 0x10,
    MODE_AUX_OFF = 0x20,
    MODE_TRANSLATE = 0x40,

    PORT_NO_RESET = 0x01, /* output port and pulse: 0 resets the processor */
    PORT_A20 = 0x02,
    OUTPUT_PORT = 0xcf,
    SELF_TEST_OK = 0x55,
    AUX_TEST_DATA_LOW = 0x03,
    RESEND = 0xfe,
    P92_RESET = 0x01,
    P92_A20 = 0x02,
};

static void update(struct vmm_kbc *kbc)
{
    bool level = (kbc->status & ST_OUTPUT_FULL) && (kbc->mode & MODE_KBD_IRQ);

    if (level == kbc->line)
        return;
    kbc->line = level;
    vmm_env_gsi(kbc->env, GSI_KBC, level);
}

static void answer(struct vmm_kbc *kbc, uint8_t data)
{
    kbc->data = data;
    kbc->status = (kbc->status & (uint8_t)~ST_TIMEOUT) | ST_OUTPUT_FULL;
}

/* Nobody is plugged in: the controller gives up waiting for the device. */
static void no_device(struct vmm_kbc *kbc)
{
    answer(kbc, RESEND);
    kbc->status |= ST_TIMEOUT;
}

static void reset_machine(struct vmm_kbc *kbc)
{
    vmm_env_power(kbc->env, VMM_POWER_RESET, 0);
}

static void command(struct vmm_kbc *kbc, uint8_t value)
{
    kbc->pending = 0;
    switch (value) {
    case CMD_READ_MODE:
        answer(kbc, kbc->mode);
        break;
    case CMD_AUX_DISABLE:
        kbc->mode |= MODE_AUX_OFF;
        break;
    case CMD_AUX_ENABLE:
        kbc->mode &= (uint8_t)~MODE_AUX_OFF;
        break;
    case CMD_AUX_TEST:
        answer(kbc, AUX_TEST_DATA_LOW);
        break;
    case CMD_SELF_TEST:
        kbc->status |= ST_SYSTEM;
        answer(kbc, SELF_TEST_OK);
        break;
    case CMD_KBD_TEST:
        answer(kbc, 0);
        break;
    case CMD_KBD_DISABLE:
        kbc->mode |= MODE_KBD_OFF;
        break;
    case CMD_KBD_ENABLE:
        kbc->mode &= (uint8_t)~MODE_KBD_OFF;
        break;
    case CMD_READ_OUTPUT_PORT:
        answer(kbc, OUTPUT_PORT);
        break;
    case CMD_WRITE_MODE:
    case CMD_WRITE_OUTPUT_PORT:
    case CMD_WRITE_KBD_OUT:
    case CMD_WRITE_AUX_OUT:
    case CMD_WRITE_AUX:
        kbc->pending = value;
        break;
    default:
        if (value >= CMD_PULSE && !(value & PORT_NO_RESET))
            reset_machine(kbc);
        break;
    }
}

static void parameter(struct vmm_kbc *kbc, uint8_t value)
{
    uint8_t pending = kbc->pending;

    kbc->pending = 0;
    switch (pending) {
    case CMD_WRITE_MODE:
        kbc->mode = value;
        break;
    case CMD_WRITE_OUTPUT_PORT:
        if (!(value & PORT_NO_RESET))
            reset_machine(kbc);
        break;
    case CMD_WRITE_KBD_OUT:
    case CMD_WRITE_AUX_OUT: /* No mouse port: it comes back as the keyboard's. */
        answer(kbc, value);
        break;
    default: /* To a device. */
        no_device(kbc);
        break;
    }
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_kbc *kbc = ctx;

    (void)offset;
    (void)size;
    kbc->status &= (uint8_t) ~(ST_OUTPUT_FULL | ST_TIMEOUT);
    update(kbc);
    return kbc->data;
}

static void data_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_kbc *kbc = ctx;

    (void)offset;
    (void)size;
    kbc->status &= (uint8_t)~ST_COMMAND;
    parameter(kbc, (uint8_t)value);
    update(kbc);
}

static uint64_t status_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_kbc *kbc = ctx;

    (void)offset;
    (void)size;
    return kbc->status;
}

static void status_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_kbc *kbc = ctx;

    (void)offset;
    (void)size;
    kbc->status |= ST_COMMAND;
    command(kbc, (uint8_t)value);
    update(kbc);
}

static uint64_t port92_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_kbc *kbc = ctx;

    (void)offset;
    (void)size;
    return kbc->port92;
}

static void port92_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_kbc *kbc = ctx;
    bool was_set = kbc->port92 & P92_RESET;

    (void)offset;
    (void)size;
    kbc->port92 = (uint8_t)value & (P92_RESET | P92_A20);
    if (!was_set && (value & P92_RESET))
        reset_machine(kbc);
}

static const struct vmm_bus_ops data_ops = {data_read, data_write};
static const struct vmm_bus_ops status_ops = {status_read, status_write};
static const struct vmm_bus_ops port92_ops = {port92_read, port92_write};

static void power_on(struct vmm_kbc *kbc)
{
    kbc->mode = MODE_KBD_IRQ | MODE_SYSTEM | MODE_AUX_OFF | MODE_TRANSLATE;
    kbc->status = ST_SYSTEM | ST_UNLOCKED;
    kbc->pending = 0;
    kbc->data = 0;
    kbc->port92 = P92_A20;
}

int vmm_kbc_init(struct vmm_kbc *kbc, struct vmm_env *env)
{
    int ret;

    memset(kbc, 0, sizeof(*kbc));
    kbc->env = env;
    power_on(kbc);
    ret = vmm_env_claim(env, "kbc data", 0x60, 1, VMM_BUS_W1, &data_ops, kbc);
    if (ret == 0)
        ret = vmm_env_claim(env, "kbc command", 0x64, 1, VMM_BUS_W1, &status_ops, kbc);
    if (ret == 0)
        ret = vmm_env_claim(env, "port 92h", 0x92, 1, VMM_BUS_W1, &port92_ops, kbc);
    return ret;
}

void vmm_kbc_reset(struct vmm_kbc *kbc)
{
    power_on(kbc);
    update(kbc);
}
