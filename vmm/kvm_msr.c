/* SPDX-License-Identifier: MIT */
/*
 * MSRs that exit to us because KVM does not know them. A processor raises #GP for a register it
 * does not have, and so do we; the exceptions are few, read-mostly, and each has a reason. Called
 * by the vCPU's run loop.
 */
#include "kvm.h"

/*
 * Registers that a guest reads without being prepared for #GP because every processor of the
 * family has them. They read zero; writes of what they read are accepted and anything else is
 * not, so that no guest is told a feature is on when it is not.
 */
static const uint32_t zero_msrs[] = {
    0x0000002a, /* EBL_CR_POWERON: bus clock ratios, read by P6 drivers */
    0x00000034, /* SMI_COUNT: there is no SMM */
    0x000000ce, /* PLATFORM_INFO: KVM before 4.20 */
    0x00000140, /* MISC_FEATURES_ENABLES: KVM before 4.20 */
    0x00000606, /* RAPL_POWER_UNIT: read without a CPUID bit */
    0xc0010010, /* SYSCFG: memory typing, read at start by AMD guests */
    0xc0010015, /* HWCR: KVM knows it, other hosts may not */
    0xc001001f, /* NB_CFG: northbridge */
    0xc0010055, /* INTPENDING: C1E detection */
    0xc0010058, /* MMIO_CONF_BASE: no memory-mapped configuration space */
    0xc0010112, /* TSEG base: there is no SMM */
    0xc0010113, /* TSEG mask: there is no SMM */
    0xc0011020, /* LS_CFG */
    0xc0011021, /* IC_CFG */
    0xc0011022, /* DC_CFG */
    0xc0011023, /* BU_CFG */
    0xc0011029, /* DE_CFG */
    0xc001102a, /* BU_CFG2 */
};

static bool is_zero_msr(uint32_t msr)
{
    for (size_t i = 0; i < sizeof(zero_msrs) / sizeof(zero_msrs[0]); i++) {
        if (zero_msrs[i] == msr) {
            return true;
        }
    }
    return false;
}

bool vmm_kvm_read_msr(uint32_t msr, uint64_t *value)
{
    *value = 0;
    return is_zero_msr(msr);
}

bool vmm_kvm_write_msr(uint32_t msr, uint64_t value)
{
    return value == 0 && is_zero_msr(msr);
}
