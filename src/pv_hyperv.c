/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's interface to the local APIC: its MSRs for EOI, ICR and TPR, and AutoEOI vectors. The VP
 * assist page's lazy EOI is in pv.c, the IPI hypercalls are in pv_ipi.c. Called by the owner.
 */
#include "internal.h"

/* ---- MSRs ---- */

/* There is no local APIC to reach while IA32_APIC_BASE.EN is clear. Nobody says what a guest gets
 * then; #GP, as for the x2APIC registers. */
int vapic_hv_msr_read(const struct vapic *v, uint32_t msr, uint64_t *value)
{
    if (!apic_enabled(v))
        return VAPIC_GP;
    switch (msr) {
    case VAPIC_MSR_HV_ICR:
        *value = (uint64_t)reg(v, vapic_lapic_icr_high_offset(v)) << 32 | reg(v, APIC_ICR);
        return VAPIC_OK;
    case VAPIC_MSR_HV_TPR:
        *value = reg(v, APIC_TPR);
        return VAPIC_OK;
    default:
        return VAPIC_GP; /* EOI is write-only */
    }
}

/* The same register that the APIC's own interface shows, whatever the mode. */
static int write_icr(struct vapic *v, uint64_t value)
{
    uint32_t low = (uint32_t)value & ~APIC_ICR_BUSY;
    uint32_t high = (uint32_t)(value >> 32);

    if ((uint32_t)value & APIC_ICR_X2_RESERVED)
        return VAPIC_GP;
    if (!in_x2apic(v))
        high &= 0xFF000000;
    set_reg(v, vapic_lapic_icr_high_offset(v), high);
    set_reg(v, APIC_ICR, low);
    vapic_lapic_send(v, low, in_x2apic(v) ? high : high >> 24);
    return VAPIC_OK;
}

static int write_tpr(struct vapic *v, uint64_t value)
{
    if (value >> 32 || (value > 0xFF && knob(v->vm, VAPIC_KNOB_STRICT_RESERVED)))
        return VAPIC_GP;
    set_reg(v, APIC_TPR, (uint32_t)value & 0xFF);
    vapic_lapic_update_ppr(v);
    return VAPIC_OK;
}

int vapic_hv_msr_write(struct vapic *v, uint32_t msr, uint64_t value)
{
    if (!apic_enabled(v))
        return VAPIC_GP;
    switch (msr) {
    case VAPIC_MSR_HV_ICR:
        return write_icr(v, value);
    case VAPIC_MSR_HV_TPR:
        return write_tpr(v, value);
    default:
        vapic_eoi(v);
        return VAPIC_OK;
    }
}

/* ---- AutoEOI ---- */

static bool any_vector(const uint64_t vectors[4])
{
    return (vectors[0] | vectors[1] | vectors[2] | vectors[3]) != 0;
}

/*
 * A vCPU counts once, however many vectors it has. The count and the reason change together under
 * the configuration lock, or two vCPUs could pass each other on the way from one to the other. The
 * reason is set before there is a vector whose end hardware would miss; it is cleared after the
 * last one is gone. (This vCPU is outside the guest, so for it the order cannot be seen at all.)
 */
static void count_vcpu(struct vapic_vm *vm, bool more)
{
    vm->host.lock(vm->ctx);
    vm->auto_eoi_vcpus = more ? vm->auto_eoi_vcpus + 1 : vm->auto_eoi_vcpus - 1;
    if (vm->backend != NULL && vm->auto_eoi_vcpus == (more ? 1u : 0u))
        vapic_inhibit_locked(vm, VAPIC_INHIBIT_HYPERV, more);
    vm->host.unlock(vm->ctx);
}

static void set_vectors(struct vapic *v, const uint64_t vectors[4])
{
    struct vapic_pv *pv = v->pv;
    bool was = any_vector(pv->auto_eoi), is = any_vector(vectors);

    if (is && !was)
        count_vcpu(v->vm, true);
    for (uint32_t i = 0; i < 4; i++)
        pv->auto_eoi[i] = vectors[i];
    if (was && !is)
        count_vcpu(v->vm, false);
}

int vapic_hv_set_auto_eoi(struct vapic *v, const uint64_t vectors[4])
{
    if (v == NULL || vectors == NULL || v->pv == NULL)
        return VAPIC_E_ARG;
    set_vectors(v, vectors);
    return VAPIC_OK;
}

static void recompute(struct vapic *v)
{
    uint64_t vectors[4] = {0};

    for (uint32_t n = 0; n < VAPIC_HV_SINTS; n++) {
        uint64_t sint = v->pv->sint[n];

        if ((sint & (VAPIC_HV_SINT_MASKED | VAPIC_HV_SINT_AUTO_EOI)) == VAPIC_HV_SINT_AUTO_EOI)
            vectors[(sint & 0xFF) >> 6] |= UINT64_C(1) << (sint & 63);
    }
    set_vectors(v, vectors);
}

int vapic_hv_write_sint(struct vapic *v, uint32_t n, uint64_t value)
{
    if (v == NULL || v->pv == NULL || n >= VAPIC_HV_SINTS)
        return VAPIC_E_ARG;
    if (!(value & VAPIC_HV_SINT_MASKED) && (value & 0xFF) < APIC_FIRST_VECTOR)
        return VAPIC_GP;
    v->pv->sint[n] = value;
    recompute(v);
    return VAPIC_OK;
}

uint64_t vapic_hv_read_sint(const struct vapic *v, uint32_t n)
{
    return v->pv != NULL && n < VAPIC_HV_SINTS ? v->pv->sint[n] : 0;
}

void vapic_hv_reset(struct vapic *v)
{
    static const uint64_t none[4];

    for (uint32_t n = 0; n < VAPIC_HV_SINTS; n++)
        v->pv->sint[n] = VAPIC_HV_SINT_MASKED;
    set_vectors(v, none);
}
