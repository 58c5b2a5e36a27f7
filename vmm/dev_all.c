/* SPDX-License-Identifier: MIT */
/*
 * All devices together (see dev_all.h): the order of initialisation and reset. Called by the
 * machine.
 */
#include "dev_all.h"

#include <errno.h>

/* The legacy devices whose configuration is nothing but the environment, and the PIC before all. */
static int init_simple(struct vmm_devices *devices, const struct vmm_devices_config *config)
{
    struct vmm_env *env = &devices->env;
    int ret = vmm_pic_init(&devices->pic, env, &config->pic_output);

    if (ret == 0)
        ret = vmm_kbc_init(&devices->kbc, env);
    if (ret == 0)
        ret = vmm_pci_init(&devices->pci, env);
    if (ret == 0)
        ret = vmm_testdev_init(&devices->testdev, env);
    if (ret == 0)
        ret = vmm_serial_init(&devices->serial, env, 0x3f8, 4, &config->serial);
    return ret;
}

static int init_timed(struct vmm_devices *devices, const struct vmm_devices_config *config)
{
    const struct vmm_rtc_config rtc = {
        .ram_below_4g = config->ram_below_4g,
        .ram_above_4g = config->ram_above_4g,
        .cpus = config->cpus,
    };
    struct vmm_env *env = &devices->env;
    int ret = vmm_pit_init(&devices->pit, env);

    if (ret == 0)
        ret = vmm_rtc_init(&devices->rtc, env, &rtc);
    if (ret == 0)
        ret = vmm_acpi_pm_init(&devices->pm, env, config->pm_timer_bits);
    return ret;
}

int vmm_devices_init(struct vmm_devices *devices, const struct vmm_devices_config *config)
{
    const struct vmm_fwcfg_config fwcfg = {
        .ram_size = config->ram_below_4g + config->ram_above_4g,
        .cpus = (uint16_t)config->cpus,
        .max_cpus = (uint16_t)config->max_cpus,
    };
    int ret;

    /* So that fini may follow a failure. */
    devices->pit.timer.loop = NULL;
    devices->rtc.timer.loop = NULL;
    devices->pm.timer.loop = NULL;
    ret = init_simple(devices, config);
    if (ret == 0)
        ret = vmm_fwcfg_init(&devices->fwcfg, &devices->env, &fwcfg);
    if (ret == 0)
        ret = init_timed(devices, config);
    if (ret)
        vmm_devices_fini(devices);
    return ret;
}

void vmm_devices_reset(struct vmm_devices *devices)
{
    pthread_mutex_lock(&devices->env.lock);
    /* The sources of interrupts first, so that the PIC ends with every wire as they leave it. */
    vmm_serial_reset(&devices->serial);
    vmm_pit_reset(&devices->pit);
    vmm_rtc_reset(&devices->rtc);
    vmm_acpi_pm_reset(&devices->pm);
    vmm_kbc_reset(&devices->kbc);
    vmm_testdev_reset(&devices->testdev);
    vmm_pci_reset(&devices->pci);
    vmm_fwcfg_reset(&devices->fwcfg);
    vmm_pic_reset(&devices->pic);
    pthread_mutex_unlock(&devices->env.lock);
}

void vmm_devices_fini(struct vmm_devices *devices)
{
    vmm_pit_fini(&devices->pit);
    vmm_rtc_fini(&devices->rtc);
    vmm_acpi_pm_fini(&devices->pm);
}
