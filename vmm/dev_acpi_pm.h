/* SPDX-License-Identifier: MIT */
/*
 * The ACPI fixed hardware: PM1a event block (600h), PM1a control block (604h), PM timer (608h), and
 * the ACPI enable/disable command port (B2h/B3h). Owns these registers and one timer of the event
 * loop; drives wire 9 (SCI, level, active high).
 *
 * There is no firmware that could run in legacy mode, so SCI_EN is set from reset on; the command
 * port (F1h on, F0h off) exists for a FADT that names one. Writing SLP_EN with SLP_TYP 0 (S5) turns
 * the machine off; other sleep states do nothing.
 */
#ifndef VMM_DEV_ACPI_PM_H
#define VMM_DEV_ACPI_PM_H

#include "dev_env.h"

#define VMM_ACPI_PM_BASE   0x600
#define VMM_ACPI_PM_LEN    0x40
#define VMM_ACPI_PM1_EVT   0x600
#define VMM_ACPI_PM1_CNT   0x604
#define VMM_ACPI_PM_TMR    0x608
#define VMM_ACPI_SMI_CMD   0xb2
#define VMM_ACPI_ENABLE    0xf1
#define VMM_ACPI_DISABLE   0xf0
#define VMM_ACPI_SCI       9
#define VMM_ACPI_PM_TMR_HZ 3579545ull

struct vmm_acpi_pm {
    struct vmm_env *env;
    struct vmm_timer timer;
    unsigned timer_bits; /* 24 or 32; the FADT must say the same */
    uint16_t status;
    uint16_t enable;
    uint16_t control;
    uint8_t command[2];
    bool line;
    uint64_t seen;  /* PM timer value, not cut, up to which TMR_STS is computed */
    uint64_t event; /* when the timer is wanted; VMM_TIME_NEVER: not */
};

int vmm_acpi_pm_init(struct vmm_acpi_pm *pm, struct vmm_env *env, unsigned timer_bits);
void vmm_acpi_pm_reset(struct vmm_acpi_pm *pm);
void vmm_acpi_pm_fini(struct vmm_acpi_pm *pm);

#endif
