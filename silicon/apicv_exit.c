/* SPDX-License-Identifier: MIT */
/*
 * VM exit: the guest's state goes to the VMCS, the exit information tells why [SDM3 29.2] and
 * [SDM3 29.3]. Whatever was under way in the instruction is dropped.
 */
#include "apicv.h"

static void save_rflags(struct vapic_sil_cpu *cpu, bool resume)
{
    uint64_t flags = apicv_get(cpu, FIELD_GUEST_RFLAGS);

    flags &= ~(uint64_t)(VMX_RFLAGS_IF | VMX_RFLAGS_RF);
    flags |= cpu->guest.interrupt_flag ? VMX_RFLAGS_IF : 0;
    flags |= resume ? VMX_RFLAGS_RF : 0;
    apicv_set(cpu, FIELD_GUEST_RFLAGS, flags);
}

/* The kind of blocking (STI or MOV SS) that the entry loaded is kept while it lasts; blocking that
 * began in the guest is saved as STI's. */
static void save_blocking(struct vapic_sil_cpu *cpu)
{
    uint64_t old = apicv_get(cpu, FIELD_GUEST_INTERRUPTIBILITY);
    uint64_t kind = old & (VMX_INTR_STI | VMX_INTR_MOV_SS);

    if (cpu->guest.shadow && kind)
        return;
    old &= ~kind;
    old |= cpu->guest.shadow ? VMX_INTR_STI : 0;
    apicv_set(cpu, FIELD_GUEST_INTERRUPTIBILITY, old);
}

static void save_guest(struct vapic_sil_cpu *cpu)
{
    uint64_t rights = apicv_get(cpu, FIELD_GUEST_SS_RIGHTS) & ~UINT64_C(0x60);
    uint8_t halted = cpu->guest.halted ? VMX_ACTIVITY_HLT : VMX_ACTIVITY_ACTIVE;

    apicv_set(cpu, FIELD_GUEST_RIP, cpu->guest.rip);
    apicv_set(cpu, FIELD_GUEST_SS_RIGHTS, rights | (uint64_t)(cpu->guest.cpl & 3) << 5);
    apicv_set(cpu, FIELD_GUEST_ACTIVITY, cpu->apicv.activity ? cpu->apicv.activity : halted);
    save_blocking(cpu);
    if (apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY))
        apicv_set(cpu, FIELD_GUEST_INTERRUPT_STATUS, VMX_STATUS_MAKE(cpu->rvi, cpu->svi));
}

/* The event in whose delivery the exit happened, to be injected again by software. */
static void save_vectoring(struct vapic_sil_cpu *cpu)
{
    uint32_t info = cpu->apicv.vectoring;
    bool error = (info & VMX_INFO_VALID) && (info & VMX_INFO_ERROR_CODE);

    apicv_set(cpu, FIELD_IDT_VECTORING, info);
    apicv_set(cpu, FIELD_IDT_VECTORING_ERROR,
              error ? apicv_get(cpu, FIELD_ENTRY_EXCEPTION_ERROR) : 0);
}

/* These leave a debug exception pending that the completed instruction caused [SDM3 29.3.4]. */
static bool keeps_pending_debug(uint32_t reason)
{
    return reason == VMX_EXIT_TPR_THRESHOLD || reason == VMX_EXIT_VIRTUALIZED_EOI ||
           reason == VMX_EXIT_APIC_WRITE;
}

/* The basic exit reasons that stand for an instruction, which did not happen: CPUID to WRMSR;
 * MWAIT; MONITOR, PAUSE; GDTR, LDTR; INVEPT, RDTSCP; INVVPID to XSETBV; RDRAND to RDSEED; XSAVES,
 * XRSTORS. */
static bool by_instruction(uint32_t reason)
{
    static const struct {
        uint8_t first, last;
    } ranges[] = {{10, 32}, {36, 36}, {39, 40}, {46, 47}, {50, 51}, {53, 55}, {57, 61}, {63, 64}};

    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (reason >= ranges[i].first && reason <= ranges[i].last)
            return true;
    return false;
}

/* Whatever RF was, an exit for an instruction saves 0, a fault-like one by an access 1; others, and
 * those in the delivery of an event, what it was [SDM3 29.3.3]. */
static bool saved_resume(const struct vapic_sil_cpu *cpu, const struct apicv_exit *exit)
{
    if (by_instruction(exit->reason))
        return false;
    return cpu->apicv.resume || (exit->fault && !cpu->apicv.vectoring);
}

enum vapic_sil_result vapic_sil_apicv_exit(struct vapic_sil_cpu *cpu, const struct apicv_exit *exit)
{
    uint64_t entry_info = apicv_get(cpu, FIELD_ENTRY_INTR_INFO);
    bool resume = saved_resume(cpu, exit);

    save_guest(cpu);
    save_rflags(cpu, resume);
    save_vectoring(cpu);
    if (!keeps_pending_debug(exit->reason))
        apicv_set(cpu, FIELD_GUEST_PENDING_DEBUG, 0);
    apicv_set(cpu, FIELD_EXIT_REASON, exit->reason);
    apicv_set(cpu, FIELD_EXIT_QUALIFICATION, exit->qualification);
    apicv_set(cpu, FIELD_GUEST_PHYSICAL_ADDRESS, exit->gpa);
    apicv_set(cpu, FIELD_EXIT_INTR_INFO, exit->intr_info);
    apicv_set(cpu, FIELD_EXIT_LENGTH, exit->length);
    apicv_set(cpu, FIELD_ENTRY_INTR_INFO, entry_info & ~(uint64_t)VMX_INFO_VALID);
    cpu->in_guest = false;
    cpu->recognized = false;
    cpu->operation.pending_write = false;
    cpu->apicv.vectoring = 0;
    return VAPIC_SIL_EXIT;
}

enum vapic_sil_result vapic_sil_apicv_trap(struct vapic_sil_cpu *cpu, uint32_t reason,
                                           uint64_t qualification)
{
    struct apicv_exit exit = {.reason = reason, .qualification = qualification};

    return vapic_sil_apicv_exit(cpu, &exit);
}

static bool has_address(uint64_t code)
{
    return code == VMX_EXIT_EPT_VIOLATION || code == VMX_EXIT_EPT_MISCONFIG;
}

/* Can the delivery of an event end in this exit? Any other exit is of an instruction of the
 * handler, also when the driver did not say that delivery was over. */
static bool of_delivery(uint64_t code)
{
    return code == VMX_EXIT_EXCEPTION || code == VMX_EXIT_TASK_SWITCH ||
           code == VMX_EXIT_APIC_ACCESS || has_address(code);
}

/* An event that was to be injected and has not been looked at yet counts as being delivered: VM
 * entry delivers it, so nothing can come before. */
void vapic_sil_apicv_leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2)
{
    struct apicv_exit exit = {
        .reason = (uint32_t)code,
        .qualification = info1,
        .gpa = has_address(code) ? info2 : 0,
        .length = has_address(code) ? 0 : (uint32_t)info2,
        .fault = has_address(code),
    };

    if (cpu->apicv.entry_event)
        cpu->apicv.vectoring = cpu->apicv.entry_event;
    else if (!of_delivery(code))
        cpu->apicv.vectoring = 0;
    vapic_sil_apicv_exit(cpu, &exit);
}

void vapic_sil_apicv_complete(struct vapic_sil_cpu *cpu, unsigned length)
{
    cpu->guest.rip += length;
    cpu->guest.shadow = false;
    cpu->apicv.resume = false;
    cpu->apicv.vectoring = 0;
}
