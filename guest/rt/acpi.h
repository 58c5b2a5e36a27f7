/* SPDX-License-Identifier: MIT */
/* What the guest needs of ACPI: the MADT's processors and I/O APICs, the FADT's PM1a control port.
 */
#ifndef GUEST_ACPI_H
#define GUEST_ACPI_H

#include <stdbool.h>
#include <stdint.h>

struct acpi_ioapic {
    uint32_t address;
    uint32_t gsi_base;
    bool present;
};

/* Finds and checks the tables; false: none, or a checksum is wrong. */
bool acpi_init(void);
uint16_t acpi_pm1a_control(void);
struct acpi_ioapic acpi_first_ioapic(void);

typedef void (*acpi_cpu_fn)(uint32_t apic_id);
/* Every enabled processor of the MADT, in its order. */
void acpi_each_cpu(acpi_cpu_fn fn);

#endif
