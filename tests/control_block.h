/* SPDX-License-Identifier: MIT */
/* Fields of a VMCB and of a VMCS, and what of each is the host's to fill in: for the hypervisors of
 * the tests and of the explorer. vapic_accel_attach() and host.control() do the rest. Who is no
 * cmocka test defines CONTROL_BLOCK_CHECK(condition) before. */
#ifndef VAPIC_TESTS_CONTROL_BLOCK_H
#define VAPIC_TESTS_CONTROL_BLOCK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef CONTROL_BLOCK_CHECK
#include <cmocka.h>
#define CONTROL_BLOCK_CHECK(condition) assert_true(condition)
#endif

#include "vapic/silicon.h"

/* ---- AMD ---- */

static inline uint64_t vmcb_get64(const uint8_t *vmcb, uint32_t field)
{
    uint64_t value;

    memcpy(&value, vmcb + field, sizeof(value));
    return value;
}

static inline uint32_t vmcb_get32(const uint8_t *vmcb, uint32_t field)
{
    return (uint32_t)vmcb_get64(vmcb, field);
}

static inline void vmcb_set64(uint8_t *vmcb, uint32_t field, uint64_t value)
{
    memcpy(vmcb + field, &value, sizeof(value));
}

static inline void vmcb_set32(uint8_t *vmcb, uint32_t field, uint32_t value)
{
    memcpy(vmcb + field, &value, sizeof(value));
}

static inline void vmcb_dirty(uint8_t *vmcb, uint32_t clean)
{
    vmcb_set32(vmcb, VMCB_CLEAN, vmcb_get32(vmcb, VMCB_CLEAN) & ~clean);
}

/* `msrpm_hpa`: where the processor finds `msrpm`, in which every access exits at first. */
static inline void vmcb_create(uint8_t *vmcb, uint8_t *msrpm, uint64_t msrpm_hpa, uint32_t asid)
{
    memset(msrpm, 0xFF, SVM_MSRPM_SIZE);
    vmcb_set32(vmcb, VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_NMI | VMCB_I3_HLT | VMCB_I3_MSR);
    vmcb_set32(vmcb, VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    vmcb_set64(vmcb, VMCB_MSRPM_BASE, msrpm_hpa);
    vmcb_set64(vmcb, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    vmcb_set32(vmcb, VMCB_ASID, asid);
}

/* ---- Intel ---- */

static inline uint64_t vmcs_get(const struct vapic_sil_vmcs *vmcs, uint32_t field)
{
    uint64_t value = 0;

    CONTROL_BLOCK_CHECK(vapic_sil_vmread(vmcs, field, &value));
    return value;
}

static inline void vmcs_set(struct vapic_sil_vmcs *vmcs, uint32_t field, uint64_t value)
{
    CONTROL_BLOCK_CHECK(vapic_sil_vmwrite(vmcs, field, value));
}

static inline void vmcs_set_bits(struct vapic_sil_vmcs *vmcs, uint32_t field, uint64_t mask,
                                 uint64_t value)
{
    vmcs_set(vmcs, field, (vmcs_get(vmcs, field) & ~mask) | (value & mask));
}

/* `bitmap_hpa` and `access_hpa`: where the processor finds the MSR bitmap and the APIC-access page.
 * The secondary controls are the library's to activate. */
static inline void vmcs_create(struct vapic_sil_vmcs *vmcs, uint64_t bitmap_hpa,
                               uint64_t access_hpa, uint32_t vpid)
{
    vapic_sil_vmcs_init(vmcs);
    vmcs_set_bits(vmcs, VMCS_PIN_CONTROLS, VMX_PIN_EXTINT_EXITING, UINT64_MAX);
    vmcs_set_bits(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_MSR_BITMAPS | VMX_PRI_HLT_EXITING,
                  UINT64_MAX);
    vmcs_set_bits(vmcs, VMCS_SECONDARY_CONTROLS, VMX_SEC_EPT | VMX_SEC_VPID, UINT64_MAX);
    vmcs_set_bits(vmcs, VMCS_EXIT_CONTROLS, VMX_EXC_ACK_INTERRUPT, UINT64_MAX);
    vmcs_set(vmcs, VMCS_MSR_BITMAP, bitmap_hpa);
    vmcs_set(vmcs, VMCS_APIC_ACCESS, access_hpa);
    vmcs_set(vmcs, VMCS_EPTP, 0x1000);
    vmcs_set(vmcs, VMCS_VPID, vpid);
}

#endif
