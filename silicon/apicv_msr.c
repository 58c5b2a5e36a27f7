/* SPDX-License-Identifier: MIT */
/*
 * MSRs and CR8. RDMSR and WRMSR: privilege, then the MSR bitmap, then what "virtualize x2APIC mode"
 * makes of 800h to 8FFh [SDM3 31.5]; MOV to and from CR8 [SDM3 31.3].
 *
 * VAPIC_SIL_NATIVE means that the access is neither an exit nor virtualized: it reaches the host's
 * own registers. The instruction is not counted as complete then.
 */
#include "apicv.h"

enum { MSR_LENGTH = 2, CR8_LENGTH = 4, CR8 = 8 };

static bool is_x2apic(uint32_t msr)
{
    return msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST;
}

static uint32_t offset_of(uint32_t msr)
{
    return (msr & 0xFF) << 4;
}

/* MSRs outside of both ranges of the bitmap always exit [SDM3 27.1.3]. */
static bool intercepted(const struct vapic_sil_cpu *cpu, uint32_t msr, bool write)
{
    uint64_t at = write ? APICV_MSR_BITMAP_WRITE_LOW : APICV_MSR_BITMAP_READ_LOW;
    uint64_t byte;

    if (!apicv_primary(cpu, VMX_PRI_MSR_BITMAPS))
        return true;
    if (msr >= 0xC0000000 && msr <= 0xC0001FFF)
        at = write ? APICV_MSR_BITMAP_WRITE_HIGH : APICV_MSR_BITMAP_READ_HIGH;
    else if (msr > 0x1FFF)
        return true;
    at += apicv_get(cpu, FIELD_MSR_BITMAP) + APICV_MSR_BITMAP_BYTE(msr);
    byte = vapic_sil_read(cpu->machine, at, 1);
    return (byte & APICV_MSR_BITMAP_BIT(msr)) != 0;
}

static enum vapic_sil_result exit_msr(struct vapic_sil_cpu *cpu, uint32_t reason)
{
    struct apicv_exit exit = {.reason = reason, .length = MSR_LENGTH};

    return vapic_sil_apicv_exit(cpu, &exit);
}

static void write8(struct vapic_sil_cpu *cpu, uint32_t offset, uint64_t value)
{
    vapic_sil_write(cpu->machine, apicv_get(cpu, FIELD_VIRTUAL_APIC) + offset, 8, value);
}

/* With APIC-register virtualization every index can be read, also those that x2APIC mode does not
 * have or has for writing only: it is up to software to intercept them. */
enum vapic_sil_result vapic_sil_apicv_rdmsr(struct vapic_sil_cpu *cpu, uint32_t msr,
                                            uint64_t *value)
{
    uint32_t offset = offset_of(msr);

    cpu->apicv.vectoring = 0;
    if (cpu->guest.cpl > 0)
        return VAPIC_SIL_GP;
    if (intercepted(cpu, msr, false))
        return exit_msr(cpu, VMX_EXIT_RDMSR);
    if (!is_x2apic(msr) || !apicv_secondary(cpu, VMX_SEC_X2APIC))
        return VAPIC_SIL_NATIVE;
    if (offset != APIC_TPR && !apicv_secondary(cpu, VMX_SEC_APIC_REGISTER))
        return VAPIC_SIL_NATIVE;
    *value = vapic_sil_read(cpu->machine, apicv_get(cpu, FIELD_VIRTUAL_APIC) + offset, 8);
    vapic_sil_apicv_complete(cpu, MSR_LENGTH);
    return VAPIC_SIL_DONE;
}

static enum vapic_sil_result write_self_ipi(struct vapic_sil_cpu *cpu)
{
    uint8_t vector = (uint8_t)vapic_sil_apicv_page_read(cpu, APIC_SELF_IPI);

    if (vector < APICV_FIRST_VECTOR)
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_APIC_WRITE, APIC_SELF_IPI);
    vapic_sil_apicv_self_ipi(cpu, vector);
    return VAPIC_SIL_DONE;
}

/* A self shorthand goes the way of all others: exit. The destination is at 304h, not 310h. */
static enum vapic_sil_result write_icr(struct vapic_sil_cpu *cpu)
{
    uint32_t icr = vapic_sil_apicv_page_read(cpu, APIC_ICR);

    if (icr & APICV_ICR_IPIV_RESERVED)
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_APIC_WRITE, APIC_ICR);
    return vapic_sil_apicv_send_ipi(cpu, (uint8_t)icr, vapic_sil_apicv_page_read(cpu, 0x304));
}

/* The writes that are virtualized: the controls that make them so, bits that are #GP, what is done
 * when the value is in the page. All are 8 bytes wide there. */
static const struct special {
    uint16_t offset;
    uint32_t secondary;
    uint64_t tertiary;
    uint64_t reserved;
    enum vapic_sil_result (*done)(struct vapic_sil_cpu *cpu);
} specials[] = {
    {APIC_TPR, 0, 0, ~UINT64_C(0xFF), vapic_sil_apicv_tpr},
    {APIC_EOI, VMX_SEC_INTERRUPT_DELIVERY, 0, UINT64_MAX, vapic_sil_apicv_eoi},
    {APIC_SELF_IPI, VMX_SEC_INTERRUPT_DELIVERY, 0, ~UINT64_C(0xFF), write_self_ipi},
    {APIC_ICR, 0, VMX_TER_IPI_VIRTUALIZATION, APICV_ICR_X2_RESERVED, write_icr},
};

static const struct special *special_write(const struct vapic_sil_cpu *cpu, uint32_t msr)
{
    if (!is_x2apic(msr) || !apicv_secondary(cpu, VMX_SEC_X2APIC))
        return NULL;
    for (unsigned i = 0; i < sizeof(specials) / sizeof(specials[0]); i++) {
        const struct special *s = &specials[i];

        if (s->offset == offset_of(msr) && (s->secondary & cpu->apicv.secondary) == s->secondary &&
            (s->tertiary & cpu->apicv.tertiary) == s->tertiary)
            return s;
    }
    return NULL;
}

enum vapic_sil_result vapic_sil_apicv_wrmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t value)
{
    const struct special *special;

    cpu->apicv.vectoring = 0;
    if (cpu->guest.cpl > 0)
        return VAPIC_SIL_GP;
    if (intercepted(cpu, msr, true))
        return exit_msr(cpu, VMX_EXIT_WRMSR);
    special = special_write(cpu, msr);
    if (!special)
        return VAPIC_SIL_NATIVE;
    if (value & special->reserved)
        return VAPIC_SIL_GP;
    write8(cpu, special->offset, value);
    vapic_sil_apicv_complete(cpu, MSR_LENGTH);
    return special->done(cpu);
}

/* The model does not know the general register: it says RAX, whose number is 0. */
static enum vapic_sil_result exit_cr8(struct vapic_sil_cpu *cpu, uint64_t access)
{
    struct apicv_exit exit = {
        .reason = VMX_EXIT_CR_ACCESS, .qualification = CR8 | access, .length = CR8_LENGTH};

    return vapic_sil_apicv_exit(cpu, &exit);
}

enum vapic_sil_result vapic_sil_apicv_read_cr8(struct vapic_sil_cpu *cpu, uint64_t *value)
{
    cpu->apicv.vectoring = 0;
    if (cpu->guest.cpl > 0)
        return VAPIC_SIL_GP;
    if (apicv_primary(cpu, VMX_PRI_CR8_STORE))
        return exit_cr8(cpu, VMX_CR_MOV_FROM);
    if (!apicv_primary(cpu, VMX_PRI_TPR_SHADOW))
        return VAPIC_SIL_NATIVE;
    *value = vapic_sil_apicv_page_read(cpu, APIC_TPR) >> 4 & 15;
    vapic_sil_apicv_complete(cpu, CR8_LENGTH);
    return VAPIC_SIL_DONE;
}

enum vapic_sil_result vapic_sil_apicv_write_cr8(struct vapic_sil_cpu *cpu, uint64_t value)
{
    cpu->apicv.vectoring = 0;
    if (cpu->guest.cpl > 0)
        return VAPIC_SIL_GP;
    if (apicv_primary(cpu, VMX_PRI_CR8_LOAD))
        return exit_cr8(cpu, VMX_CR_MOV_TO);
    if (!apicv_primary(cpu, VMX_PRI_TPR_SHADOW))
        return VAPIC_SIL_NATIVE;
    if (value > 15)
        return VAPIC_SIL_GP;
    vapic_sil_apicv_page_write(cpu, APIC_TPR, (uint32_t)value << 4);
    vapic_sil_apicv_complete(cpu, CR8_LENGTH);
    return vapic_sil_apicv_tpr(cpu);
}
