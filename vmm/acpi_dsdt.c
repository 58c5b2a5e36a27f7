/* SPDX-License-Identifier: MIT */
/* The compiled vmm/dsdt.asl; the build makes dsdt.hex of it. */
#include "acpi.h"

#include "dsdt.hex"

const uint8_t *const vmm_dsdt = dsdt_aml_code;
const size_t vmm_dsdt_size = sizeof(dsdt_aml_code);
