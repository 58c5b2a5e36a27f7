/* SPDX-License-Identifier: MIT */
/*
 * What the guest does to its APIC, done by the modelled processor, and the model's exits: counted,
 * and handed to the library; see accel.h. On the vCPU's thread.
 */
#include <stdio.h>
#include <string.h>

#include "accel.h"
#include "machine.h"
#include "vapic/arch/atomic.h"

#define CLEAN_ALL             0x1fffu
#define LENGTH                3u /* of an instruction: nobody knows, and nobody looks */

#define SVM_EXIT_IOIO         0x07bull
#define VMX_EXIT_TRIPLE_FAULT 2u
#define VMX_EXIT_IO           30u

/* Exit codes of both vendors. The first row of a kind is what vmm_accel_leave() uses. */
#define NO_CODE UINT64_MAX
static const struct {
    enum vmm_accel_exit kind;
    uint64_t svm, vmx;
} codes[] = {
    {VMM_ACCEL_EXIT_INTERRUPT, SVM_EXIT_INTR, VMX_EXIT_EXTINT},
    {VMM_ACCEL_EXIT_WINDOW, SVM_EXIT_VINTR, VMX_EXIT_INTERRUPT_WINDOW},
    {VMM_ACCEL_EXIT_HLT, SVM_EXIT_HLT, VMX_EXIT_HLT},
    {VMM_ACCEL_EXIT_IO, SVM_EXIT_IOIO, VMX_EXIT_IO},
    {VMM_ACCEL_EXIT_MSR, SVM_EXIT_MSR, VMX_EXIT_WRMSR},
    {VMM_ACCEL_EXIT_MSR, NO_CODE, VMX_EXIT_RDMSR},
    {VMM_ACCEL_EXIT_PAGE, SVM_EXIT_NPF, VMX_EXIT_EPT_VIOLATION},
    {VMM_ACCEL_EXIT_CR8, SVM_EXIT_CR8_WRITE, VMX_EXIT_CR_ACCESS},
    {VMM_ACCEL_EXIT_CR8, NO_CODE, VMX_EXIT_TPR_THRESHOLD},
    {VMM_ACCEL_EXIT_INCOMPLETE_IPI, SVM_EXIT_AVIC_INCOMPLETE, NO_CODE},
    {VMM_ACCEL_EXIT_UNACCELERATED, SVM_EXIT_AVIC_NOACCEL, NO_CODE},
    {VMM_ACCEL_EXIT_APIC_ACCESS, NO_CODE, VMX_EXIT_APIC_ACCESS},
    {VMM_ACCEL_EXIT_APIC_WRITE, NO_CODE, VMX_EXIT_APIC_WRITE},
    {VMM_ACCEL_EXIT_EOI, NO_CODE, VMX_EXIT_VIRTUALIZED_EOI},
    {VMM_ACCEL_EXIT_OTHER, SVM_EXIT_SHUTDOWN, VMX_EXIT_TRIPLE_FAULT},
};

#define CODES (sizeof(codes) / sizeof(codes[0]))

static uint64_t code_of(bool intel, enum vmm_accel_exit kind)
{
    for (size_t i = 0; i < CODES; i++) {
        if (codes[i].kind == kind) {
            return intel ? codes[i].vmx : codes[i].svm;
        }
    }
    return 0;
}

static enum vmm_accel_exit kind_of(bool intel, uint64_t code)
{
    for (size_t i = 0; i < CODES; i++) {
        if ((intel ? codes[i].vmx : codes[i].svm) == code) {
            return codes[i].kind;
        }
    }
    return VMM_ACCEL_EXIT_OTHER;
}

/* ---------------------------------------------------------------------------------------------- */
/* Exits                                                                                          */
/* ---------------------------------------------------------------------------------------------- */

/* Why the model has left the guest. */
struct cause {
    uint64_t code, info1, info2;
    uint64_t interrupt; /* Intel: interruption information */
};

static uint64_t get64(const uint8_t *vmcb, uint32_t offset)
{
    uint64_t value;

    memcpy(&value, vmcb + offset, sizeof(value));
    return value;
}

static struct cause read_cause(const struct vmm_vcpu *v)
{
    const struct vmm_accel_vcpu *a = v->accel;
    struct cause c = {0, 0, 0, 0};

    if (v->machine->accel->intel) {
        vapic_sil_vmread(&a->vmcs, VMCS_EXIT_REASON, &c.code);
        vapic_sil_vmread(&a->vmcs, VMCS_EXIT_QUALIFICATION, &c.info1);
        vapic_sil_vmread(&a->vmcs, VMCS_EXIT_INTR_INFO, &c.interrupt);
        c.code &= VMX_EXIT_REASON_BASIC;
    } else {
        c.code = get64(a->vmcb, VMCB_EXITCODE);
        c.info1 = get64(a->vmcb, VMCB_EXITINFO1);
        c.info2 = get64(a->vmcb, VMCB_EXITINFO2);
    }
    return c;
}

static void count(struct vmm_vcpu *v, const struct cause *c)
{
    struct vmm_accel_counts *n = &v->accel->counts;
    const struct vapic_sil_cpu *sil = &v->accel->on->sil;
    enum vmm_accel_exit kind = kind_of(v->machine->accel->intel, c->code);
    uint64_t id = c->info2 >> AVIC_IPI_ID_SHIFT;

    n->exits[kind]++;
    n->doorbells += sil->doorbells_sent - v->accel->ticks[0];
    n->notifications += sil->notifications_sent - v->accel->ticks[1];
    if (kind == VMM_ACCEL_EXIT_INCOMPLETE_IPI) {
        n->incomplete[id < VMM_ACCEL_IPI_IDS ? id : VMM_ACCEL_IPI_IDS - 1]++;
    }
    n->eoi_exits += kind == VMM_ACCEL_EXIT_EOI || (kind == VMM_ACCEL_EXIT_UNACCELERATED &&
                                                   c->info1 == (APIC_EOI | AVIC_NOACCEL_WRITE));
}

/* With acknowledgement on exit the processor has taken the interrupt already. */
static void take_acknowledged(struct vmm_vcpu *v, const struct cause *c)
{
    uint64_t valid = VMX_INFO_VALID | VMM_ACCEL_WAKEUP_VECTOR;

    if (c->code == VMX_EXIT_EXTINT &&
        (c->interrupt & (VMX_INFO_VALID | VMX_INFO_VECTOR)) == valid) {
        vapic_wakeup(&v->machine->vm, &v->accel->on->pcpu);
    }
}

static int handle(struct vmm_vcpu *v, const struct cause *c)
{
    switch (kind_of(v->machine->accel->intel, c->code)) {
    case VMM_ACCEL_EXIT_INCOMPLETE_IPI:
    case VMM_ACCEL_EXIT_UNACCELERATED:
        return vapic_avic_exit(&v->apic, c->code, c->info1, c->info2, vmm_clock_now(v));
    case VMM_ACCEL_EXIT_APIC_ACCESS:
    case VMM_ACCEL_EXIT_APIC_WRITE:
    case VMM_ACCEL_EXIT_EOI:
        return vapic_apicv_exit(&v->apic, (uint32_t)c->code, c->info1, vmm_clock_now(v));
    case VMM_ACCEL_EXIT_CR8:
        if (c->code == VMX_EXIT_TPR_THRESHOLD && v->machine->accel->intel) {
            return vapic_apicv_exit(&v->apic, (uint32_t)c->code, c->info1, vmm_clock_now(v));
        }
        return VAPIC_EMULATE;
    default:
        return VAPIC_EMULATE;
    }
}

int vmm_accel_exited(struct vmm_vcpu *v)
{
    struct vmm_accel_vcpu *a = v->accel;
    struct cause c = read_cause(v);
    char text[96];
    int rc;

    count(v, &c);
    if (!v->machine->accel->intel) {
        vapic_store32((uint32_t *)(void *)(a->vmcb + VMCB_CLEAN), CLEAN_ALL, VAPIC_RELAXED);
    }
    vapic_exit(&v->apic, a->cr8, true);
    atomic_fetch_add(&a->outside, 1);
    if (v->machine->accel->intel) {
        take_acknowledged(v, &c);
    }
    rc = handle(v, &c);
    if (rc < 0) {
        snprintf(text, sizeof(text), "libvapic does not know the exit %llxh, %llxh, %llxh",
                 (unsigned long long)c.code, (unsigned long long)c.info1,
                 (unsigned long long)c.info2);
        vmm_machine_fail(v->machine, v, text);
    }
    return rc;
}

void vmm_accel_leave(struct vmm_vcpu *v, enum vmm_accel_exit why)
{
    if (vmm_accel_in_guest(v)) {
        vapic_sil_leave(&v->accel->on->sil, code_of(v->machine->accel->intel, why), 0, LENGTH);
        vmm_accel_exited(v);
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* Registers                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

static unsigned row_of(uint32_t offset)
{
    unsigned row = offset >> 4;

    return row < VMM_ACCEL_REG_CR8 ? row : VMM_ACCEL_REG_OTHER;
}

/*
 * Is an access to the page that the processor has done one to a register? Else the page is mapped
 * for the sake of other vCPUs, and it was one to memory: it is not counted, and moves no TPR.
 */
static bool reaches_registers(const struct vmm_vcpu *v)
{
    return vapic_active(&v->apic) && (vapic_base(&v->apic) & APIC_BASE_EXTD) == 0;
}

static void note(struct vmm_vcpu *v, unsigned row, bool write, enum vmm_accel_end end)
{
    v->accel->counts.reg[row][write][end]++;
}

/* How an access ended that made the model leave the guest. */
static enum vmm_accel_end end_of(const struct vmm_vcpu *v, int rc)
{
    bool intel = v->machine->accel->intel;

    switch (kind_of(intel, read_cause(v).code)) {
    case VMM_ACCEL_EXIT_PAGE:
    case VMM_ACCEL_EXIT_MSR:
        return VMM_ACCEL_END_EMULATED;
    default:
        return rc == VAPIC_EMULATE ? VMM_ACCEL_END_FAULT : VMM_ACCEL_END_TRAP;
    }
}

/* What the model said of an access. True: it is done, or raises #GP; false: emulate. */
static bool conclude(struct vmm_vcpu *v, unsigned row, bool write, enum vapic_sil_result result,
                     bool *fault)
{
    int rc;

    *fault = false;
    switch (result) {
    case VAPIC_SIL_DONE:
        note(v, row, write, VMM_ACCEL_END_ACCELERATED);
        return true;
    case VAPIC_SIL_GP:
        note(v, row, write, VMM_ACCEL_END_GP);
        *fault = true;
        return true;
    case VAPIC_SIL_EXIT:
        rc = vmm_accel_exited(v);
        note(v, row, write, end_of(v, rc));
        *fault = rc == VAPIC_GP;
        return rc != VAPIC_EMULATE;
    case VAPIC_SIL_NATIVE:
        vmm_machine_fail(v->machine, v,
                         "the guest would have reached the host's own APIC: a register that is "
                         "neither virtualized nor intercepted");
        return true;
    default:
        vmm_accel_leave(v, VMM_ACCEL_EXIT_PAGE); /* an access that no processor makes in one */
        note(v, row, write, VMM_ACCEL_END_EMULATED);
        return false;
    }
}

/*
 * AVIC virtualizes writes of 32 bits; smaller ones it stores in the page and leaves V_TPR alone
 * [APM2 15.29.3]. APICv looks at the low byte, whatever the size [SDM3 31.4.3].
 */
static bool is_tpr_write(const struct vmm_vcpu *v, uint32_t offset, uint32_t len)
{
    return offset == APIC_TPR && (v->machine->accel->intel || len == sizeof(uint32_t));
}

/* KVM's copy of CR8 follows a TPR that the processor wrote. */
static void follow_tpr(struct vmm_vcpu *v, uint32_t offset, uint64_t value)
{
    if (offset == APIC_TPR && vmm_accel_in_guest(v)) {
        v->accel->cr8 = (uint8_t)(value >> 4 & 15);
    }
}

bool vmm_accel_mmio(struct vmm_vcpu *v, uint32_t offset, void *data, uint32_t len, bool write)
{
    struct vapic_sil_access access = {
        .gpa = VMM_LAPIC_BASE + offset,
        .kind = write ? VAPIC_SIL_WRITE : VAPIC_SIL_READ,
        .size = (uint8_t)len,
        .length = LENGTH,
    };
    enum vapic_sil_result result;
    bool memory, fault;

    if (!vmm_accel_in_guest(v)) {
        return false;
    }
    if (write) {
        memcpy(&access.value, data, len);
    }
    result = vapic_sil_access(&v->accel->on->sil, &access);
    memory = result == VAPIC_SIL_DONE && !reaches_registers(v);
    if (!memory && !conclude(v, row_of(offset), write, result, &fault)) {
        return false;
    }
    if (!write) {
        memcpy(data, &access.value, len);
    } else if (!memory && is_tpr_write(v, offset, len)) {
        follow_tpr(v, offset, access.value);
    }
    return true;
}

bool vmm_accel_rdmsr(struct vmm_vcpu *v, uint32_t msr, uint64_t *value, bool *fault)
{
    uint32_t offset = (msr - MSR_X2APIC_FIRST) << 4;

    return vmm_accel_in_guest(v) &&
           conclude(v, row_of(offset), false, vapic_sil_rdmsr(&v->accel->on->sil, msr, value),
                    fault);
}

bool vmm_accel_wrmsr(struct vmm_vcpu *v, uint32_t msr, uint64_t value, bool *fault)
{
    uint32_t offset = (msr - MSR_X2APIC_FIRST) << 4;

    if (!vmm_accel_in_guest(v) ||
        !conclude(v, row_of(offset), true, vapic_sil_wrmsr(&v->accel->on->sil, msr, value),
                  fault)) {
        return false;
    }
    if (!*fault) {
        follow_tpr(v, offset, value);
    }
    return true;
}

static const struct {
    uint32_t reason;
    enum vmm_accel_exit kind;
} kvm_exits[] = {
    {KVM_EXIT_IO, VMM_ACCEL_EXIT_IO},         {KVM_EXIT_MMIO, VMM_ACCEL_EXIT_PAGE},
    {KVM_EXIT_X86_RDMSR, VMM_ACCEL_EXIT_MSR}, {KVM_EXIT_X86_WRMSR, VMM_ACCEL_EXIT_MSR},
    {KVM_EXIT_HLT, VMM_ACCEL_EXIT_HLT},
};

/* The library emulates it, whatever the processor could have done. */
static void note_emulated(struct vmm_vcpu *v)
{
    const struct kvm_run *run = v->run;
    uint32_t msr = run->msr.index;

    if (run->exit_reason == KVM_EXIT_MMIO) {
        if (vapic_mmio_claims(&v->apic, run->mmio.phys_addr)) {
            note(v, row_of(run->mmio.phys_addr & (APIC_PAGE_SIZE - 1)), run->mmio.is_write != 0,
                 VMM_ACCEL_END_EMULATED);
        }
    } else if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST) {
        note(v, row_of((msr - MSR_X2APIC_FIRST) << 4), run->exit_reason == KVM_EXIT_X86_WRMSR,
             VMM_ACCEL_END_EMULATED);
    }
}

void vmm_accel_between(struct vmm_vcpu *v)
{
    if (v->accel == NULL || vmm_accel_in_guest(v)) {
        return;
    }
    for (size_t i = 0; i < sizeof(kvm_exits) / sizeof(kvm_exits[0]); i++) {
        if (kvm_exits[i].reason == v->run->exit_reason) {
            v->accel->counts.entries++;
            v->accel->counts.exits[kvm_exits[i].kind]++;
        }
    }
    if (v->run->exit_reason == KVM_EXIT_MMIO || v->run->exit_reason == KVM_EXIT_X86_RDMSR ||
        v->run->exit_reason == KVM_EXIT_X86_WRMSR) {
        note_emulated(v);
    }
}

void vmm_accel_hlt(struct vmm_vcpu *v)
{
    if (vmm_accel_in_guest(v) && vapic_sil_hlt(&v->accel->on->sil) == VAPIC_SIL_EXIT) {
        vmm_accel_exited(v);
    }
    vmm_accel_leave(v, VMM_ACCEL_EXIT_HLT);
}

/*
 * KVM shows CR8 after an exit, not each write of it; what is seen here is the last of one or more.
 * A write that is intercepted has not happened yet on the modelled processor.
 */
void vmm_accel_cr8_now(struct vmm_vcpu *v, uint8_t cr8)
{
    bool fault;

    if (!vmm_accel_in_guest(v) || cr8 == v->accel->cr8) {
        return;
    }
    v->accel->cr8 = cr8;
    if (!conclude(v, VMM_ACCEL_REG_CR8, true, vapic_sil_write_cr8(&v->accel->on->sil, cr8),
                  &fault)) {
        vapic_write_cr8(&v->apic, cr8);
    }
}
