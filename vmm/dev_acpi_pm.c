/* SPDX-License-Identifier: MIT */
/*
 * The ACPI fixed hardware (see dev_acpi_pm.h); the register model is the ACPI specification's,
 * section 4.8, cited as [ACPI].
 */
#include "dev_acpi_pm.h"

#include <string.h>

enum {
    STS = 0x0,
    EN = 0x2,
    CNT = 0x4,
    TMR = 0x8,
    TMR_STS = 0x0001,
    /* Power and sleep button, wake and global lock status: nothing here sets them. */
    EN_RW = 0x0721,
    CNT_SCI_EN = 0x0001,
    CNT_RW = 0x1c03,
    CNT_SLP_TYP = 0x1c00,
    CNT_SLP_EN = 0x2000,
    SLP_TYP_S5 = 0,
};

static uint64_t timer_now(const struct vmm_acpi_pm *pm)
{
    return vmm_ticks(vmm_env_now(pm->env), VMM_ACPI_PM_TMR_HZ);
}

/* TMR_STS is set when the most significant bit of the timer changes [ACPI 4.8.2.1]. */
static void settle(struct vmm_acpi_pm *pm)
{
    uint64_t now = timer_now(pm);

    if (now >> (pm->timer_bits - 1) != pm->seen >> (pm->timer_bits - 1))
        pm->status |= TMR_STS;
    pm->seen = now;
}

static void update(struct vmm_acpi_pm *pm)
{
    bool level = (pm->status & pm->enable) && (pm->control & CNT_SCI_EN);
    uint64_t half = 1ull << (pm->timer_bits - 1);

    if (level != pm->line) {
        pm->line = level;
        vmm_env_gsi(pm->env, VMM_ACPI_SCI, level);
    }
    pm->event = VMM_TIME_NEVER;
    if ((pm->enable & TMR_STS) && !(pm->status & TMR_STS))
        pm->event = vmm_ticks_to_ns((pm->seen / half + 1) * half, VMM_ACPI_PM_TMR_HZ);
    vmm_timer_arm(&pm->timer, pm->event);
}

static void on_timer(void *ctx)
{
    struct vmm_acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->env->lock);
    if (vmm_env_now(pm->env) >= pm->event) {
        settle(pm);
        update(pm);
    }
    pthread_mutex_unlock(&pm->env->lock);
}

static void write_control(struct vmm_acpi_pm *pm, uint16_t value)
{
    pm->control = value & CNT_RW;
    if ((value & CNT_SLP_EN) && (value & CNT_SLP_TYP) >> 10 == SLP_TYP_S5)
        vmm_env_power(pm->env, VMM_POWER_OFF, 0);
}

/* The block as aligned 16-bit registers. */
static uint16_t read_word(const struct vmm_acpi_pm *pm, uint64_t at)
{
    uint32_t ticks = (uint32_t)pm->seen & (pm->timer_bits == 24 ? 0xffffffu : UINT32_MAX);

    switch (at) {
    case STS:
        return pm->status;
    case EN:
        return pm->enable;
    case CNT:
        return pm->control;
    case TMR:
        return (uint16_t)ticks;
    case TMR + 2:
        return (uint16_t)(ticks >> 16);
    default:
        return 0;
    }
}

/* `mask` has the bits that the access writes. */
static void write_word(struct vmm_acpi_pm *pm, uint64_t at, uint16_t value, uint16_t mask)
{
    switch (at) {
    case STS:
        pm->status &= (uint16_t)~value;
        break;
    case EN:
        pm->enable = ((pm->enable & (uint16_t)~mask) | value) & EN_RW;
        break;
    case CNT:
        write_control(pm, (pm->control & (uint16_t)~mask) | value);
        break;
    default:
        break;
    }
}

static uint64_t pm_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_acpi_pm *pm = ctx;
    uint64_t word = offset & ~1ull;
    uint32_t value;

    settle(pm);
    value = read_word(pm, word) | (uint32_t)read_word(pm, word + 2) << 16;
    update(pm);
    return size == 1 ? value >> (8 * (offset & 1)) : value;
}

static void pm_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_acpi_pm *pm = ctx;
    uint64_t word = offset & ~1ull;
    unsigned shift = 8 * (unsigned)(offset & 1);

    settle(pm);
    if (size == 1)
        write_word(pm, word, (uint16_t)(value << shift), (uint16_t)(0xffu << shift));
    else
        write_word(pm, word, (uint16_t)value, 0xffff);
    if (size == 4)
        write_word(pm, word + 2, (uint16_t)(value >> 16), 0xffff);
    update(pm);
}

static uint64_t command_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_acpi_pm *pm = ctx;

    (void)size;
    return pm->command[offset];
}

static void command_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_acpi_pm *pm = ctx;

    (void)size;
    pm->command[offset] = (uint8_t)value;
    if (offset)
        return;
    settle(pm);
    if (value == VMM_ACPI_ENABLE)
        pm->control |= CNT_SCI_EN;
    else if (value == VMM_ACPI_DISABLE)
        pm->control &= (uint16_t)~CNT_SCI_EN;
    update(pm);
}

static const struct vmm_bus_ops pm_ops = {pm_read, pm_write};
static const struct vmm_bus_ops command_ops = {command_read, command_write};

int vmm_acpi_pm_init(struct vmm_acpi_pm *pm, struct vmm_env *env, unsigned timer_bits)
{
    int ret;

    memset(pm, 0, sizeof(*pm));
    pm->env = env;
    pm->timer_bits = timer_bits == 24 ? 24 : 32;
    pm->control = CNT_SCI_EN;
    pm->event = VMM_TIME_NEVER;
    pm->seen = timer_now(pm);
    ret =
        vmm_env_claim(env, "acpi pm", VMM_ACPI_PM_BASE, VMM_ACPI_PM_LEN, VMM_BUS_W124, &pm_ops, pm);
    if (ret == 0)
        ret = vmm_env_claim(env, "acpi command", VMM_ACPI_SMI_CMD, 2, VMM_BUS_W1, &command_ops, pm);
    if (ret == 0)
        ret = vmm_timer_init(&pm->timer, env->loop, on_timer, pm);
    return ret;
}

void vmm_acpi_pm_reset(struct vmm_acpi_pm *pm)
{
    pm->status = 0;
    pm->enable = 0;
    pm->control = CNT_SCI_EN;
    pm->seen = timer_now(pm);
    memset(pm->command, 0, sizeof(pm->command));
    update(pm);
}

void vmm_acpi_pm_fini(struct vmm_acpi_pm *pm)
{
    vmm_timer_fini(&pm->timer);
}
