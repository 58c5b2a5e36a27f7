/* SPDX-License-Identifier: MIT */
/*
 * AMD: entering and leaving the guest. Called through vapic_sil_vmrun(), and by the other files of
 * this half for #VMEXIT.
 *
 * VMRUN checks and loads the VMCB, honouring clean bits in the worst way: a field whose clean bit
 * is set keeps the value that this processor had for this VMCB. #VMEXIT writes back what changes.
 * [APM2 15.5] [APM2 15.6] [APM2 15.15]
 */
#include "avic.h"

/* ---- The VMCB: its owner's thread is the only one that touches it ---- */

static uint64_t vmcb64(const struct vapic_sil_cpu *cpu, uint32_t offset)
{
    return vapic_load64((const uint64_t *)(const void *)(cpu->svm.vmcb + offset), VAPIC_RELAXED);
}

static uint32_t vmcb32(const struct vapic_sil_cpu *cpu, uint32_t offset)
{
    return vapic_load32((const uint32_t *)(const void *)(cpu->svm.vmcb + offset), VAPIC_RELAXED);
}

static void vmcb_store64(struct vapic_sil_cpu *cpu, uint32_t offset, uint64_t value)
{
    vapic_store64((uint64_t *)(void *)(cpu->svm.vmcb + offset), value, VAPIC_RELAXED);
}

/* Replaces the bits of `mask`. */
static void vmcb_merge64(struct vapic_sil_cpu *cpu, uint32_t offset, uint64_t mask, uint64_t value)
{
    vmcb_store64(cpu, offset, (vmcb64(cpu, offset) & ~mask) | (value & mask));
}

/* ---- VMRUN: load ---- */

#define X2_MSRS_FIRST_BYTE (MSR_X2APIC_FIRST * 2 / 8)

/* The processor may keep what the permission map said when it was last told that it changed. */
static void load_msrpm(struct vapic_sil_cpu *cpu)
{
    cpu->svm.msrpm = vmcb64(cpu, VMCB_MSRPM_BASE) & AVIC_ADDRESS;
    for (uint32_t i = 0; i < 8; i++)
        cpu->svm.x2msrs[i] =
            vapic_sil_read(cpu->machine, cpu->svm.msrpm + X2_MSRS_FIRST_BYTE + 8ull * i, 8);
}

static void load_avic(struct vapic_sil_cpu *cpu)
{
    cpu->svm.bar = vmcb64(cpu, VMCB_AVIC_BAR);
    cpu->svm.backing = vmcb64(cpu, VMCB_AVIC_BACKING);
    cpu->svm.logical = vmcb64(cpu, VMCB_AVIC_LOGICAL);
    cpu->svm.physical = vmcb64(cpu, VMCB_AVIC_PHYSICAL);
}

static void load_controls(struct vapic_sil_cpu *cpu, uint32_t clean)
{
    if (!(clean & VMCB_CLEAN_INTERCEPTS)) {
        cpu->svm.intercept_cr = vmcb32(cpu, VMCB_INTERCEPT_CR);
        cpu->svm.intercept3 = vmcb32(cpu, VMCB_INTERCEPT3);
        cpu->svm.intercept4 = vmcb32(cpu, VMCB_INTERCEPT4);
        cpu->svm.intercept5 = vmcb32(cpu, VMCB_INTERCEPT5);
    }
    if (!(clean & VMCB_CLEAN_PERMISSION))
        load_msrpm(cpu);
    if (!(clean & VMCB_CLEAN_ASID))
        cpu->svm.asid = vmcb32(cpu, VMCB_ASID);
    if (!(clean & VMCB_CLEAN_TPR))
        cpu->svm.int_ctl = vmcb64(cpu, VMCB_INT_CTL);
    if (!(clean & VMCB_CLEAN_NP))
        cpu->svm.np_enable = vmcb64(cpu, VMCB_NP_ENABLE);
    if (!(clean & VMCB_CLEAN_AVIC))
        load_avic(cpu);
}

static void load_guest(struct vapic_sil_cpu *cpu)
{
    uint64_t int_ctl = cpu->svm.int_ctl;

    cpu->guest = (struct vapic_sil_guest){
        .rip = vmcb64(cpu, VMCB_RIP),
        .cpl = cpu->svm.vmcb[VMCB_CPL],
        .interrupt_flag = (vmcb64(cpu, VMCB_RFLAGS) & VMCB_RFLAGS_IF) != 0,
        .shadow = (vmcb64(cpu, VMCB_INT_STATE) & VMCB_STATE_SHADOW) != 0,
        .gif = !(int_ctl & VMCB_V_GIF_ENABLE) || (int_ctl & VMCB_V_GIF),
        .nmi_masked = (int_ctl & VMCB_V_NMI_ENABLE) && (int_ctl & VMCB_V_NMI_MASK),
    };
}

/* ---- VMRUN: checks ---- */

static bool legal_event(uint64_t event)
{
    uint64_t vector = event & VMCB_EVENT_VECTOR;

    if (!(event & VMCB_EVENT_VALID))
        return true;
    switch (event & VMCB_EVENT_TYPE) {
    case VMCB_EVENT_INTR:
    case VMCB_EVENT_NMI:
    case VMCB_EVENT_SOFTWARE:
        return true;
    case VMCB_EVENT_EXCEPTION:
        return vector < 32 && vector != 2;
    default:
        return false;
    }
}

static bool legal_tlb_control(uint8_t control)
{
    return control == VMCB_TLB_NOTHING || control == VMCB_TLB_ALL || control == VMCB_TLB_ASID ||
           control == VMCB_TLB_ASID_NON_GLOBAL;
}

/* [APM2 15.5.1], as far as this model has the state. */
static bool legal_controls(const struct vapic_sil_cpu *cpu)
{
    if (!(cpu->svm.intercept4 & VMCB_I4_VMRUN) || cpu->svm.asid == 0)
        return false;
    if ((cpu->svm.intercept3 & VMCB_I3_MSR) && !vapic_sil_legal(cpu->machine, cpu->svm.msrpm))
        return false;
    return legal_tlb_control(cpu->svm.vmcb[VMCB_TLB_CONTROL]) &&
           legal_event(vmcb64(cpu, VMCB_EVENTINJ));
}

/* Reserved bits of a pointer, and whether all of it is inside of the physical address range. The
 * manual says that pointers beyond the range fail; that reserved bits do is a choice. */
static bool legal_pointer(const struct vapic_sil_cpu *cpu, uint64_t pointer, uint64_t reserved,
                          uint64_t size)
{
    if (pointer & (reserved | AVIC_ADDRESS_HIGH))
        return false;
    return vapic_sil_legal(cpu->machine, (pointer & AVIC_ADDRESS) + size - 1);
}

/* APIC_BAR and the logical table take no part in x2AVIC and are not looked at then. */
static bool legal_pointers(const struct vapic_sil_cpu *cpu, bool x2)
{
    uint64_t pages = ((cpu->svm.physical & AVIC_MAX_INDEX) >> 9) + 1;

    if (vapic_sil_knobs(cpu)->pointers_unchecked)
        return true;
    if (!legal_pointer(cpu, cpu->svm.backing, AVIC_ADDRESS_LOW, VMCB_SIZE) ||
        !legal_pointer(cpu, cpu->svm.physical, 0, pages * VMCB_SIZE))
        return false;
    if (x2)
        return true;
    return !(cpu->svm.bar & AVIC_ADDRESS_HIGH) &&
           legal_pointer(cpu, cpu->svm.logical, AVIC_ADDRESS_LOW, VMCB_SIZE);
}

/* [APM2 15.29.2] */
static bool legal_avic(const struct vapic_sil_cpu *cpu)
{
    const struct vapic_sil_config *config = &cpu->machine->config;
    uint64_t max = cpu->svm.physical & AVIC_MAX_INDEX;
    bool x2 = vapic_sil_avic_x2(cpu);

    if (!vapic_sil_avic_on(cpu))
        return !x2;
    if (x2 && !config->x2avic) /* the bit is reserved there */
        return false;
    if (max > (x2 ? AVIC_MAX_INDEX_X2 : AVIC_MAX_INDEX_X1) && !(x2 && config->x2avic_ext))
        return false;
    if (!(cpu->svm.np_enable & VMCB_NP_ENABLED) && !config->knobs.np_optional)
        return false;
    return legal_pointers(cpu, x2);
}

/* ---- VMRUN ---- */

static void flush_as_told(struct vapic_sil_cpu *cpu)
{
    switch (cpu->svm.vmcb[VMCB_TLB_CONTROL]) {
    case VMCB_TLB_ALL:
        vapic_sil_tlb_drop_all(cpu);
        break;
    case VMCB_TLB_ASID:
    case VMCB_TLB_ASID_NON_GLOBAL:
        vapic_sil_tlb_drop(cpu, cpu->svm.asid);
        break;
    default:
        break;
    }
}

enum vapic_sil_result vapic_sil_vmrun(struct vapic_sil_cpu *cpu, uint64_t vmcb_hpa)
{
    uint8_t *vmcb;
    bool again;

    if (cpu->in_guest || cpu->machine->config.vendor != VAPIC_SIL_AMD)
        return VAPIC_SIL_INVALID;
    if ((vmcb_hpa & VAPIC_SIL_PAGE_MASK) || !vapic_sil_legal(cpu->machine, vmcb_hpa))
        return VAPIC_SIL_GP;
    vmcb = vapic_sil_memory(cpu->machine, vmcb_hpa, VMCB_SIZE);
    if (!vmcb)
        return VAPIC_SIL_GP;

    again = cpu->svm.held && cpu->vmcb_hpa == vmcb_hpa;
    cpu->svm.vmcb = vmcb;
    cpu->vmcb_hpa = vmcb_hpa;
    load_controls(cpu, again ? vmcb32(cpu, VMCB_CLEAN) : 0);
    cpu->svm.held = legal_controls(cpu) && legal_avic(cpu);
    if (!cpu->svm.held) {
        vmcb_store64(cpu, VMCB_EXITCODE, SVM_EXIT_INVALID);
        return VAPIC_SIL_INVALID;
    }
    cpu->svm.backing &= AVIC_ADDRESS; /* with pointers_unchecked the other bits are ignored */
    flush_as_told(cpu);
    load_guest(cpu);
    cpu->svm.injected = vmcb64(cpu, VMCB_EVENTINJ);
    cpu->in_guest = true;
    /* Before IRR is looked at: a doorbell for a bit that is set after that look must stay. Pairs
     * with the OR in vapic_sil_avic_ring(). */
    vapic_xchg32(&cpu->doorbell, 0, VAPIC_SEQ_CST);
    if (vapic_sil_avic_on(cpu))
        vapic_sil_avic_evaluate(cpu);
    return VAPIC_SIL_DONE;
}

/* ---- #VMEXIT ---- */

#define INT_CTL_SAVED (VMCB_V_TPR | VMCB_V_IRQ | VMCB_V_GIF | VMCB_V_NMI | VMCB_V_NMI_MASK)

static void save_int_ctl(struct vapic_sil_cpu *cpu)
{
    uint64_t int_ctl = cpu->svm.int_ctl;

    if (int_ctl & VMCB_V_GIF_ENABLE)
        int_ctl = cpu->guest.gif ? int_ctl | VMCB_V_GIF : int_ctl & ~VMCB_V_GIF;
    if (int_ctl & VMCB_V_NMI_ENABLE)
        int_ctl = cpu->guest.nmi_masked ? int_ctl | VMCB_V_NMI_MASK : int_ctl & ~VMCB_V_NMI_MASK;
    cpu->svm.int_ctl = int_ctl;
    vmcb_merge64(cpu, VMCB_INT_CTL, INT_CTL_SAVED, int_ctl);
}

static void save(struct vapic_sil_cpu *cpu, uint64_t next_rip)
{
    /* An event that VMRUN was to inject and that did not get into the guest is not lost. */
    uint64_t event = cpu->svm.injected & VMCB_EVENT_VALID ? cpu->svm.injected : 0;

    save_int_ctl(cpu);
    vmcb_store64(cpu, VMCB_INT_STATE, cpu->guest.shadow ? VMCB_STATE_SHADOW : 0);
    vmcb_store64(cpu, VMCB_EXITINTINFO, event ? event : cpu->svm.vectoring);
    vmcb_merge64(cpu, VMCB_EVENTINJ, VMCB_EVENT_VALID, 0);
    vmcb_store64(cpu, VMCB_RIP, cpu->guest.rip);
    vmcb_merge64(cpu, VMCB_RFLAGS, VMCB_RFLAGS_IF, cpu->guest.interrupt_flag ? VMCB_RFLAGS_IF : 0);
    cpu->svm.vmcb[VMCB_CPL] = cpu->guest.cpl;
    vmcb_store64(cpu, VMCB_NRIP, next_rip);
}

static enum vapic_sil_result leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1,
                                   uint64_t info2, uint64_t next_rip)
{
    save(cpu, next_rip);
    vmcb_store64(cpu, VMCB_EXITCODE, code);
    vmcb_store64(cpu, VMCB_EXITINFO1, info1);
    vmcb_store64(cpu, VMCB_EXITINFO2, info2);
    cpu->svm.injected = 0;
    cpu->svm.vectoring = 0;
    cpu->operation.pending_write = false;
    cpu->remembered = false;
    cpu->in_guest = false;
    return VAPIC_SIL_EXIT;
}

/* Only an access that belongs to the delivery of an event is interrupted in it; see
 * avic_access.c. */
enum vapic_sil_result vapic_sil_avic_exit(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1,
                                          uint64_t info2)
{
    return leave(cpu, code, info1, info2, 0);
}

enum vapic_sil_result vapic_sil_avic_intercept(struct vapic_sil_cpu *cpu, uint64_t code,
                                               uint64_t info1, uint32_t length)
{
    cpu->svm.vectoring = 0;
    return leave(cpu, code, info1, 0, cpu->guest.rip + length);
}

/* Exits that the delivery of an event can cause: intercepted exceptions, task switch, shutdown,
 * nested page fault. [APM2 15.7.2] */
static bool delivery_can_cause(uint64_t code)
{
    return (code >= SVM_EXIT_EXCEPTION && code < SVM_EXIT_EXCEPTION + 32) ||
           code == SVM_EXIT_TASK_SWITCH || code == SVM_EXIT_SHUTDOWN || code == SVM_EXIT_NPF;
}

void vapic_sil_avic_leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2)
{
    if (!delivery_can_cause(code))
        cpu->svm.vectoring = 0;
    leave(cpu, code, info1, info2, 0);
}

void vapic_sil_avic_complete(struct vapic_sil_cpu *cpu, uint32_t length)
{
    cpu->guest.rip += length;
    cpu->guest.shadow = false;
    cpu->svm.vectoring = 0;
    cpu->operation.pending_write = false;
}
