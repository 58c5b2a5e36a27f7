/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables of the machine: RSDP, RSDT, XSDT, FADT, FACS, MADT and a compiled DSDT, laid
 * out one after the other in the BIOS area, where a guest that scans 0xE0000..0xFFFFF finds the
 * root pointer at its first step. Called once per machine start.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "mem.h"

#define VMM_ACPI_RESET_PORT  0xcf9u
#define VMM_ACPI_RESET_VALUE 0x06u

/* Width of the PM timer that the FADT announces. */
#define VMM_ACPI_PM_TIMER_BITS 32u

struct vmm_acpi_config {
    const uint32_t *apic_ids; /* by processor number */
    unsigned cpus;
};

/* Writes the tables into RAM and the address of the root pointer to *rsdp. */
int vmm_acpi_build(const struct vmm_mem *mem, const struct vmm_acpi_config *config, uint64_t *rsdp,
                   struct vmm_err *err);

/* The compiled DSDT. */
extern const uint8_t *const vmm_dsdt;
extern const size_t vmm_dsdt_size;

#endif
