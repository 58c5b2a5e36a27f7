/* SPDX-License-Identifier: MIT */
/*
 * The VMX facts that the bare-metal program needs and that are no matter of APIC virtualization
 * (those are in vapic/arch/apicv.h): fields of guest and host state, capability MSRs, instructions.
 * [SDM3 26], [SDM3 C].
 */
#ifndef BOCHS_VMX_H
#define BOCHS_VMX_H

#include <stdbool.h>
#include <stdint.h>

#define MSR_FEATURE_CONTROL 0x03Au
#define MSR_CR0_FIXED0      0x486u
#define MSR_CR4_FIXED0      0x488u
#define MSR_EFER            0xC0000080u
#define FEATURE_LOCK_VMXON  5u
#define CR4_OSFXSR          (1u << 9)
#define CR4_VMXE            (1u << 13)

#define EXIT_HOST_64        (1u << 9) /* VM-exit control: host address-space size */
#define ENTRY_GUEST_64      (1u << 9) /* VM-entry control: IA-32e mode guest */

/* Selector, limit, access rights and base of segment n: ES CS SS DS FS GS LDTR TR. */
#define GUEST_SELECTOR(n) (0x0800u + 2 * (n))
#define GUEST_LIMIT(n)    (0x4800u + 2 * (n))
#define GUEST_RIGHTS(n)   (0x4814u + 2 * (n))
#define GUEST_BASE(n)     (0x6806u + 2 * (n))
#define HOST_SELECTOR(n)  (0x0C00u + 2 * (n)) /* TR is n = 6 here */

#define VMCS_LINK         0x2800u
#define GUEST_DEBUGCTL    0x2802u
#define EXCEPTION_BITMAP  0x4004u
#define PREEMPTION_TIMER  0x482Eu
#define GUEST_GDTR_LIMIT  0x4810u
#define GUEST_IDTR_LIMIT  0x4812u
#define GUEST_CR0         0x6800u
#define GUEST_CR3         0x6802u
#define GUEST_CR4         0x6804u
#define GUEST_GDTR_BASE   0x6816u
#define GUEST_IDTR_BASE   0x6818u
#define GUEST_DR7         0x681Au
#define GUEST_RSP         0x681Cu
#define HOST_CR0          0x6C00u
#define HOST_CR3          0x6C02u
#define HOST_CR4          0x6C04u
#define HOST_TR_BASE      0x6C0Au
#define HOST_GDTR_BASE    0x6C0Cu
#define HOST_IDTR_BASE    0x6C0Eu
#define HOST_RSP          0x6C14u
#define HOST_RIP          0x6C16u

static inline bool vmxon(const uint64_t *region)
{
    bool failed;

    __asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(*region) : "memory");
    return !failed;
}

static inline bool vmclear(const uint64_t *vmcs)
{
    bool failed;

    __asm__ volatile("vmclear %1" : "=@ccbe"(failed) : "m"(*vmcs) : "memory");
    return !failed;
}

static inline bool vmptrld(const uint64_t *vmcs)
{
    bool failed;

    __asm__ volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(*vmcs) : "memory");
    return !failed;
}

static inline bool vmwrite(uint64_t field, uint64_t value)
{
    bool failed;

    __asm__ volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"(field), "r"(value) : "cc");
    return !failed;
}

static inline uint64_t vmread(uint64_t field)
{
    uint64_t value = 0;

    __asm__ volatile("vmread %1, %0" : "+r"(value) : "r"(field) : "cc");
    return value;
}

static inline void flush_ept(void)
{
    struct {
        uint64_t eptp, zero;
    } descriptor = {0, 0};

    __asm__ volatile("invept %0, %1" : : "m"(descriptor), "r"(UINT64_C(2)) : "cc", "memory");
}

#endif
