/* SPDX-License-Identifier: MIT */
/* The AMD half of a vCPU's run loop: what surrounds VMRUN. world_vcpu.c calls it. */
#include "world_parts.h"

#include "vapic/arch/apic.h"

#define CONTROL_BLOCK_CHECK(condition) world_require(condition, #condition)
#include "../tests/control_block.h"

static void fail(const struct world_vcpu *v, const char *what, uint64_t value)
{
    EX_BROKEN(CONTROLS, "vCPU %u: %s (%#llx)", v->n, what, (unsigned long long)value);
}

static void amd_create(struct world_vcpu *v)
{
    vmcb_create(v->vmcb, v->msrs, world_hpa(v->w, v->msrs), v->n + 1);
}

static uint64_t event_of(const struct world_vcpu *v)
{
    switch (v->injected) {
    case VAPIC_INJECT_VECTOR:
        return VMCB_EVENT_VALID | VMCB_EVENT_INTR | v->entry.vector;
    case VAPIC_INJECT_EXTINT:
        return VMCB_EVENT_VALID | VMCB_EVENT_INTR | v->extint;
    case VAPIC_INJECT_NMI:
        return VMCB_EVENT_VALID | VMCB_EVENT_NMI | 2;
    default:
        return 0;
    }
}

/* A dummy virtual interrupt of the highest priority, to exit when the guest opens the window. */
static void request_window(struct world_vcpu *v, bool wanted)
{
    const uint64_t virq = VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR;
    uint64_t control = vmcb_get64(v->vmcb, VMCB_INT_CTL) & ~virq;
    uint32_t intercepts = vmcb_get32(v->vmcb, VMCB_INTERCEPT3) & ~VMCB_I3_VINTR;

    if (wanted && control & VMCB_V_AVIC)
        fail(v, "a window is wanted, and AVIC ignores V_IRQ", control);
    vmcb_set64(v->vmcb, VMCB_INT_CTL, wanted ? control | virq : control);
    vmcb_set32(v->vmcb, VMCB_INTERCEPT3, wanted ? intercepts | VMCB_I3_VINTR : intercepts);
    vmcb_dirty(v->vmcb, VMCB_CLEAN_TPR | VMCB_CLEAN_INTERCEPTS);
}

static void amd_flush(struct world_vcpu *v)
{
    v->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
}

static void check_vmcb(struct world_vcpu *v)
{
    uint64_t control = vmcb_get64(v->vmcb, VMCB_INT_CTL);

    if ((control & VMCB_V_TPR) != v->entry.cr8)
        fail(v, "V_TPR is not the guest's CR8", control);
    if (((control & VMCB_V_AVIC) != 0) != vapic_active(&v->apic))
        fail(v, "the VMCB's AVIC bit is not what the library says", control);
}

static enum vapic_sil_result enter_l2(struct world_vcpu *v)
{
    return vapic_sil_vmrun(v->cpu, world_hpa(v->w, v->vmcb02));
}

static enum vapic_sil_result amd_enter(struct world_vcpu *v)
{
    enum vapic_sil_result result;

    if (v->l2)
        return enter_l2(v);
    vmcb_set64(v->vmcb, VMCB_EVENTINJ, event_of(v));
    if (v->entry.irq_window || vmcb_get32(v->vmcb, VMCB_INTERCEPT3) & VMCB_I3_VINTR)
        request_window(v, v->entry.irq_window);
    vmcb_set64(v->vmcb, VMCB_RFLAGS, v->guest_if ? VMCB_RFLAGS_IF | 2 : 2);
    check_vmcb(v);
    if (v->cpu != v->last) { /* what it has cached is of an earlier time [APM2 15.15.2] */
        vmcb_set32(v->vmcb, VMCB_CLEAN, 0);
        amd_flush(v);
    }
    v->last = v->cpu;
    result = vapic_sil_vmrun(v->cpu, world_hpa(v->w, v->vmcb));
    /* What is not touched until the next entry is as the processor has it. */
    vmcb_set32(v->vmcb, VMCB_CLEAN, 0xFFFFFFFF);
    v->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_NOTHING;
    return result;
}

static uint8_t amd_cr8(struct world_vcpu *v)
{
    return (uint8_t)(vmcb_get64(v->vmcb, VMCB_INT_CTL) & VMCB_V_TPR);
}

static enum handled avic_exit(struct world_vcpu *v, struct insn *insn, uint64_t code)
{
    int result = vapic_avic_exit(&v->apic, code, vmcb_get64(v->vmcb, VMCB_EXITINFO1),
                                 vmcb_get64(v->vmcb, VMCB_EXITINFO2), world_now(v->w));

    return result == VAPIC_EMULATE ? world_emulate(v, insn) : HANDLED_DONE;
}

static enum handled handle_exit(struct world_vcpu *v, struct insn *insn, uint64_t code)
{
    switch (code) {
    case SVM_EXIT_AVIC_INCOMPLETE:
    case SVM_EXIT_AVIC_NOACCEL:
        return avic_exit(v, insn, code);
    case SVM_EXIT_NPF:
        return world_map_page(v->w) ? HANDLED_RETRY : world_emulate(v, insn);
    case SVM_EXIT_MSR:
    case SVM_EXIT_CR8_WRITE:
    case SVM_EXIT_HLT:
        return world_emulate(v, insn);
    case SVM_EXIT_INTR:
    case SVM_EXIT_VINTR:
        return HANDLED_RETRY;
    default:
        fail(v, "an exit that nobody asked for", code);
        return HANDLED_RETRY;
    }
}

/* What it was is nobody's concern any more: so ways that differ in nothing else meet again. */
static enum handled amd_exit(struct world_vcpu *v, struct insn *insn)
{
    uint8_t *vmcb = v->l2 ? v->vmcb02 : v->vmcb;
    enum handled result = handle_exit(v, insn, vmcb_get64(vmcb, VMCB_EXITCODE));

    vmcb_set64(vmcb, VMCB_EXITCODE, 0);
    vmcb_set64(vmcb, VMCB_EXITINFO1, 0);
    vmcb_set64(vmcb, VMCB_EXITINFO2, 0);
    vmcb_set64(vmcb, VMCB_NRIP, 0);
    return result;
}

static void amd_intercept(struct world_vcpu *v, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_msrpm(pass, v->msrs);
    vmcb_dirty(v->vmcb, VMCB_CLEAN_PERMISSION);
}

/* L1's VMCB without AVIC: what a processor that runs L2 looks at. */
static void amd_create_l2(struct world_vcpu *v)
{
    memcpy(v->vmcb02, v->vmcb, VMCB_SIZE);
    vmcb_set64(v->vmcb02, VMCB_INT_CTL,
               vmcb_get64(v->vmcb02, VMCB_INT_CTL) & ~(VMCB_V_AVIC | VMCB_V_X2AVIC));
    vmcb_set32(v->vmcb02, VMCB_CLEAN, 0);
    vmcb_set64(v->vmcb02, VMCB_EVENTINJ, 0);
    vmcb_set32(v->vmcb02, VMCB_INTERCEPT3, vmcb_get32(v->vmcb02, VMCB_INTERCEPT3) | VMCB_I3_INTR);
}

/* ---- At the end ---- */

static bool loaded(const struct world_vcpu *v)
{
    return v->where != NOWHERE && !v->asleep && !v->stopped;
}

static void check_table(struct world_vcpu *v)
{
    uint64_t entry = v->w->table[v->id];
    bool running = vapic_active(&v->apic) && loaded(v) && v->w->features & VAPIC_ACCEL_IPIV;

    if (((entry & AVIC_PHYSICAL_RUNNING) != 0) != running)
        fail(v, running ? "IsRunning is not set" : "IsRunning is set", entry);
    if (running && (entry & AVIC_PHYSICAL_HOST_ID) != v->cpu->apic_id)
        fail(v, "the table names another processor", entry);
    if (!v->off && !(entry & AVIC_PHYSICAL_VALID))
        fail(v, "the table's entry is not valid", entry);
}

static void check_irte(struct world_vcpu *v, uint32_t i)
{
    uint64_t low = v->w->irte_words[i][0];
    bool sleeps = v->asleep, log = !(v->w->spec->flags & WORLD_NO_GA_LOG);
    bool guest = vapic_active(&v->apic) && (!sleeps || log);

    if (((low & AMD_IRTE_GUEST_MODE) != 0) != guest)
        fail(v, guest ? "the IRTE does not post" : "the IRTE posts", low);
    if (!guest)
        return;
    if (((low & AMD_IRTE_IS_RUN) != 0) != loaded(v))
        fail(v, "IsRun of the IRTE is not what is so", low);
    if (((low & AMD_IRTE_GA_LOG_INTR) != 0) != sleeps)
        fail(v, "GALogIntr of the IRTE is not what is so", low);
    if (loaded(v) && (low & AMD_IRTE_DEST_LOW) >> AMD_IRTE_DEST_LOW_SHIFT != v->cpu->apic_id)
        fail(v, "the IRTE names another processor", low);
}

static void amd_check(struct world_vcpu *v)
{
    if (v->id <= AVIC_MAX_INDEX_X1)
        check_table(v);
    for (uint32_t i = 0; i < WORLD_IRTES; i++)
        if (v->w->irte[i].v == &v->apic)
            check_irte(v, i);
}

const struct world_vendor world_amd = {
    .silicon = VAPIC_SIL_AMD,
    .create = amd_create,
    .enter = amd_enter,
    .cr8 = amd_cr8,
    .exit = amd_exit,
    .flush = amd_flush,
    .intercept = amd_intercept,
    .create_l2 = amd_create_l2,
    .check = amd_check,
    .leave_code = SVM_EXIT_INTR,
};
