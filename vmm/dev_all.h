/* SPDX-License-Identifier: MIT */
/*
 * All devices of the machine together: one structure, one init, one reset. The machine (the engine)
 * owns it.
 *
 *     struct vmm_devices *devs             allocated by the machine (large)
 *     vmm_env_init(&devs->env)             then .loop, .ports, .irq and .power are filled in
 *     vmm_console_init(console, ...)       if there is a terminal or pipe (dev_console.h)
 *     vmm_devices_init(devs, &config)      claims the ports
 *     vmm_evloop_start(), vmm_console_start()
 *     ... vCPUs run ...
 *     vmm_devices_reset(devs)              at each reboot; no vCPU is in the guest
 *     vmm_console_stop(), vmm_evloop_stop()
 *     vmm_devices_fini(devs)
 */
#ifndef VMM_DEV_ALL_H
#define VMM_DEV_ALL_H

#include "dev_acpi_pm.h"
#include "dev_env.h"
#include "dev_fwcfg.h"
#include "dev_kbc.h"
#include "dev_pci.h"
#include "dev_pic.h"
#include "dev_pit.h"
#include "dev_rtc.h"
#include "dev_serial.h"
#include "dev_testdev.h"

struct vmm_devices_config {
    uint64_t ram_below_4g; /* bytes */
    uint64_t ram_above_4g;
    unsigned cpus;
    unsigned max_cpus;
    unsigned pm_timer_bits; /* 24 or 32, as the FADT says */
    struct vmm_pic_output pic_output;
    struct vmm_serial_backend serial; /* usually vmm_console_backend() */
};

struct vmm_devices {
    struct vmm_env env;
    struct vmm_pic pic;
    struct vmm_pit pit;
    struct vmm_rtc rtc;
    struct vmm_serial serial;
    struct vmm_acpi_pm pm;
    struct vmm_kbc kbc;
    struct vmm_pci pci;
    struct vmm_fwcfg fwcfg;
    struct vmm_testdev testdev;
};

/*
 * Initialises every device; `devices->env` is filled already. Returns 0 or a negative errno, and
 * then nothing needs to be undone but the ports claimed on the bus.
 */
int vmm_devices_init(struct vmm_devices *devices, const struct vmm_devices_config *config);

/* The machine's reset line. Takes the device lock. The vCPUs are outside of the guest. */
void vmm_devices_reset(struct vmm_devices *devices);

void vmm_devices_fini(struct vmm_devices *devices);

#endif
