/* SPDX-License-Identifier: MIT */
/*
 * VM entry, second half: MSR loading as far as it concerns the APIC, loading of the guest's state,
 * and what is due before the first instruction [SDM3 28.3.2.5] [SDM3 28.7.7].
 */
#include "apicv.h"

enum { MSR_LOAD_X2APIC = 0x800 >> 8 };

/* An entry of the VM-entry MSR-load area [SDM3 26.8.2]. */
struct msr_entry {
    uint32_t index, reserved;
    uint64_t value;
};

/* The number of the first entry (from 1) that names an x2APIC MSR, 0 when there is none. */
static uint64_t refused_msr(const struct vapic_sil *m, const struct vapic_sil_vmcs *vmcs)
{
    uint64_t area = vmcs->field[FIELD_ENTRY_MSR_LOAD];
    uint64_t count = vmcs->field[FIELD_ENTRY_MSR_LOAD_COUNT];

    for (uint64_t i = 0; i < count; i++) {
        const struct msr_entry *entry =
            vapic_sil_memory(m, area + i * sizeof(*entry), sizeof(*entry));

        if (!entry || entry->index >> 8 == MSR_LOAD_X2APIC)
            return i + 1;
    }
    return 0;
}

static enum vapic_sil_result fail_msr_load(struct vapic_sil_vmcs *vmcs, uint64_t entry)
{
    vmcs->field[FIELD_EXIT_REASON] = VMX_EXIT_REASON_ENTRY_FAIL | VMX_EXIT_ENTRY_MSR;
    vmcs->field[FIELD_EXIT_QUALIFICATION] = entry;
    return VAPIC_SIL_EXIT;
}

/*
 * Cached translations belong to an EPTP and a VPID. Without VPIDs the guest uses VPID 0, and the
 * entry drops what is cached for that [SDM3 30.4.3.1].
 */
static void load_tag(struct vapic_sil_cpu *cpu)
{
    uint64_t vpid = apicv_secondary(cpu, VMX_SEC_VPID) ? apicv_get(cpu, FIELD_VPID) : 0;

    cpu->apicv.tag = apicv_get(cpu, FIELD_EPTP) >> 12 << 16 | vpid;
    for (unsigned i = 0; i < VAPIC_SIL_TLB; i++) {
        if (vpid == 0 && (cpu->tlb[i].tag & 0xFFFF) == 0)
            cpu->tlb[i].valid = false;
    }
}

static void load_guest(struct vapic_sil_cpu *cpu)
{
    uint64_t flags = apicv_get(cpu, FIELD_GUEST_RFLAGS);
    uint64_t blocking = apicv_get(cpu, FIELD_GUEST_INTERRUPTIBILITY);
    uint64_t activity = apicv_get(cpu, FIELD_GUEST_ACTIVITY);

    cpu->guest.rip = apicv_get(cpu, FIELD_GUEST_RIP);
    cpu->guest.cpl = (uint8_t)(apicv_get(cpu, FIELD_GUEST_SS_RIGHTS) >> 5 & 3);
    cpu->guest.interrupt_flag = (flags & VMX_RFLAGS_IF) != 0;
    cpu->guest.shadow = (blocking & (VMX_INTR_STI | VMX_INTR_MOV_SS)) != 0;
    cpu->guest.halted = activity == VMX_ACTIVITY_HLT;
    cpu->apicv.activity = activity > VMX_ACTIVITY_HLT ? (uint8_t)activity : VMX_ACTIVITY_ACTIVE;
    cpu->apicv.resume = (flags & VMX_RFLAGS_RF) != 0;
}

/* An event that is injected ends STI and MOV SS blocking, and wakes [SDM3 28.7.1]. */
static void load_event(struct vapic_sil_cpu *cpu)
{
    uint32_t event = (uint32_t)apicv_get(cpu, FIELD_ENTRY_INTR_INFO);

    cpu->apicv.entry_event = 0;
    if (!(event & VMX_INFO_VALID))
        return;
    cpu->apicv.entry_event = event;
    cpu->guest.shadow = false;
    cpu->guest.halted = false;
    cpu->apicv.activity = VMX_ACTIVITY_ACTIVE;
}

/* PPR virtualization and the first evaluation [SDM3 28.3.2.5]. */
static void load_status(struct vapic_sil_cpu *cpu)
{
    uint32_t status = (uint32_t)apicv_get(cpu, FIELD_GUEST_INTERRUPT_STATUS);

    if (!apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY))
        return;
    cpu->rvi = VMX_STATUS_RVI(status);
    cpu->svi = VMX_STATUS_SVI(status);
    for (unsigned i = 0; i < 4; i++)
        cpu->eoi_exit[i] = apicv_get(cpu, (enum apicv_field)(FIELD_EOI_EXIT0 + i));
    vapic_sil_apicv_ppr(cpu);
    vapic_sil_apicv_evaluate(cpu);
}

/* Is exit 43 due after this entry? [SDM3 28.7.7] */
static bool below_threshold(const struct vapic_sil_cpu *cpu)
{
    if (!apicv_primary(cpu, VMX_PRI_TPR_SHADOW) ||
        apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY) ||
        !apicv_secondary(cpu, VMX_SEC_APIC_ACCESSES))
        return false;
    return (vapic_sil_apicv_page_read(cpu, APIC_TPR) >> 4 & 15) <
           apicv_get(cpu, FIELD_TPR_THRESHOLD);
}

static void load(struct vapic_sil_cpu *cpu, struct vapic_sil_vmcs *vmcs,
                 const struct apicv_controls *controls)
{
    cpu->vmcs = vmcs;
    cpu->apicv.pin = controls->pin;
    cpu->apicv.primary = controls->primary;
    cpu->apicv.secondary = controls->secondary;
    cpu->apicv.tertiary = controls->tertiary;
    load_tag(cpu);
    load_guest(cpu);
    load_event(cpu);
    load_status(cpu);
    cpu->apicv.below = below_threshold(cpu);
    cpu->in_guest = true;
}

enum vapic_sil_result vapic_sil_vmentry(struct vapic_sil_cpu *cpu, struct vapic_sil_vmcs *vmcs)
{
    const struct vapic_sil *m = cpu->machine;
    struct apicv_controls controls;
    uint64_t entry;

    if (cpu->in_guest || m->config.vendor != VAPIC_SIL_INTEL)
        return VAPIC_SIL_INVALID;
    vapic_sil_apicv_controls(m, vmcs, &controls);
    if (!vapic_sil_apicv_checks(m, vmcs, &controls)) {
        vmcs->field[FIELD_INSTRUCTION_ERROR] = VMX_ERROR_CONTROLS;
        return VAPIC_SIL_INVALID;
    }
    if ((controls.primary & VMX_PRI_TPR_SHADOW) && !m->config.knobs.entry_keeps_vtpr_bytes) {
        uint32_t *tpr =
            vapic_sil_memory(m, vmcs->field[FIELD_VIRTUAL_APIC] + APIC_TPR, sizeof(*tpr));

        vapic_store32(tpr, (uint8_t)vapic_load32(tpr, VAPIC_RELAXED), VAPIC_RELAXED);
    }
    entry = refused_msr(m, vmcs);
    if (entry)
        return fail_msr_load(vmcs, entry);
    load(cpu, vmcs, &controls);
    return VAPIC_SIL_DONE;
}
