/* SPDX-License-Identifier: MIT */
/*
 * What a vCPU's exits ask for: port and memory accesses, MSRs, HLT, and the ends of a guest. Called
 * by the run loop, once per exit, on the vCPU's thread.
 *
 * An exit that KVM still has to complete (a read, an MSR access, a port access whose instruction is
 * skipped only at the next KVM_RUN) marks the vCPU incomplete; see prepare() in kvm_vcpu.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm_pv.h"
#include "kvm_vcpu.h"
#include "layout.h"
#include "machine.h"
#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

#define PAGE 4096u

static void exit_io(struct vmm_vcpu *v)
{
    struct vmm_bus *ports = &v->machine->ports;
    struct kvm_run *run = v->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    v->stats.exits[VMM_EXIT_IO]++;
    v->incomplete = true;
    vmm_accel_leave(v, VMM_ACCEL_EXIT_IO);
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        uint64_t value = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, run->io.size);
            vmm_bus_write(ports, run->io.port, run->io.size, value);
        } else {
            value = vmm_bus_read(ports, run->io.port, run->io.size);
            memcpy(data, &value, run->io.size);
        }
    }
}

static void lapic_access(struct vmm_vcpu *v, uint32_t offset, uint8_t *data, uint32_t len,
                         bool write)
{
    if (write) {
        vapic_mmio_write(&v->apic, offset, data, len, vmm_clock_now(v));
    } else {
        vapic_mmio_read(&v->apic, offset, data, len, vmm_clock_now(v));
    }
}

static void ioapic_access(struct vmm_vcpu *v, uint32_t offset, uint8_t *data, uint32_t len,
                          bool write)
{
    struct vapic_ioapic *io = &v->machine->ioapic;
    uint64_t value = 0;

    v->stats.exits[VMM_EXIT_MMIO_IOAPIC]++;
    if (write) {
        memcpy(&value, data, len);
        vapic_ioapic_write(io, offset, value, len);
    } else {
        value = vapic_ioapic_read(io, offset, len);
        memcpy(data, &value, len);
    }
}

/* The page that modelled hardware redirects lies where every guest expects it. */
static bool by_hardware(struct vmm_vcpu *v, uint64_t gpa, uint8_t *data, uint32_t len, bool write)
{
    return gpa - VMM_LAPIC_BASE < PAGE &&
           vmm_accel_mmio(v, (uint32_t)(gpa - VMM_LAPIC_BASE), data, len, write);
}

static bool is_inkernel(const struct vmm_vcpu *v)
{
    return v->machine->irqchip == VMM_IRQCHIP_KERNEL;
}

/* Returns false where nobody answers. */
static bool by_apics(struct vmm_vcpu *v, uint64_t gpa, uint8_t *data, uint32_t len, bool write)
{
    if (is_inkernel(v)) {
        return false; /* KVM would have answered itself */
    }
    if (vapic_mmio_claims(&v->apic, gpa)) {
        v->stats.exits[VMM_EXIT_MMIO_APIC]++;
        lapic_access(v, gpa & (PAGE - 1), data, len, write);
        return true;
    }
    if (gpa - VMM_IOAPIC_BASE < IOAPIC_WINDOW) {
        ioapic_access(v, gpa & (PAGE - 1), data, len, write);
        return true;
    }
    return false;
}

static void exit_mmio(struct vmm_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t gpa = run->mmio.phys_addr;
    uint32_t offset = gpa & (PAGE - 1);
    uint32_t len = run->mmio.len;
    bool write = run->mmio.is_write != 0;

    v->incomplete = !write;
    if (len > sizeof(run->mmio.data) || len > PAGE - offset) {
        len = 0;
    }
    if (len != 0 && by_hardware(v, gpa, run->mmio.data, len, write)) {
        v->stats.exits[VMM_EXIT_MMIO_APIC]++;
        return;
    }
    vmm_accel_leave(v, VMM_ACCEL_EXIT_PAGE);
    if (len == 0 || !by_apics(v, gpa, run->mmio.data, len, write)) {
        v->stats.exits[VMM_EXIT_MMIO_OTHER]++;
        if (!write) {
            memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
        }
    }
}

static enum vmm_exit msr_class(const struct vmm_vcpu *v, uint32_t msr)
{
    if (is_inkernel(v)) {
        return VMM_EXIT_MSR_OTHER; /* what KVM's own APIC refused is nobody's */
    }
    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST) {
        return VMM_EXIT_MSR_X2APIC;
    }
    if (msr == MSR_TSC_DEADLINE) {
        return VMM_EXIT_MSR_TSC_DEADLINE;
    }
    return msr == MSR_APIC_BASE ? VMM_EXIT_MSR_APIC_BASE : VMM_EXIT_MSR_OTHER;
}

static struct vapic_now now_for(struct vmm_vcpu *v, enum vmm_exit class)
{
    return class == VMM_EXIT_MSR_TSC_DEADLINE ? vmm_clock_now_fresh(v) : vmm_clock_now(v);
}

static void exit_rdmsr(struct vmm_vcpu *v)
{
    struct kvm_run *run = v->run;
    enum vmm_exit class = msr_class(v, run->msr.index);
    uint64_t value = 0;
    bool ok, fault;

    v->stats.exits[class]++;
    v->incomplete = true;
    if (class == VMM_EXIT_MSR_X2APIC && vmm_accel_rdmsr(v, run->msr.index, &value, &fault)) {
        run->msr.data = value;
        run->msr.error = fault;
        return;
    }
    vmm_accel_leave(v, VMM_ACCEL_EXIT_MSR);
    if (class == VMM_EXIT_MSR_OTHER) {
        ok = vmm_pv_read_msr(v, run->msr.index, &value) || vmm_kvm_read_msr(run->msr.index, &value);
    } else {
        ok = vapic_msr_read(&v->apic, run->msr.index, &value, now_for(v, class)) == VAPIC_OK;
    }
    run->msr.data = value;
    run->msr.error = !ok;
}

/* The mode may have changed: KVM's copy of the register follows, and CPUID with it. */
static void base_written(struct vmm_vcpu *v)
{
    uint64_t base = vapic_base(&v->apic);

    v->ever_x2apic |= (base & APIC_BASE_EXTD) != 0;
    vmm_vcpu_finish(v);
    if (vmm_kvm_set_apic_base(v->fd, base) != 0) {
        vmm_machine_fail(v->machine, v, "KVM refuses the guest's IA32_APIC_BASE");
    }
}

/* What neither KVM nor the APIC does. The TSC may have jumped over the timer's deadline: look. */
static bool write_other(struct vmm_vcpu *v, uint32_t msr, uint64_t value)
{
    if (msr != VMM_MSR_TSC && msr != VMM_MSR_TSC_ADJUST) {
        return vmm_pv_write_msr(v, msr, value) || vmm_kvm_write_msr(msr, value);
    }
    if (vmm_kvm_write_tsc(v->fd, msr, value) != 0) {
        return false;
    }
    vmm_clock_now_exact(v);
    atomic_store(&v->armed_clock, VAPIC_CLOCK_NONE);
    return true;
}

static void exit_wrmsr(struct vmm_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint32_t msr = run->msr.index;
    enum vmm_exit class = msr_class(v, msr);
    bool ok, fault;

    v->stats.exits[class]++;
    v->incomplete = true;
    if (class == VMM_EXIT_MSR_X2APIC && vmm_accel_wrmsr(v, msr, run->msr.data, &fault)) {
        run->msr.error = fault;
        return;
    }
    vmm_accel_leave(v, VMM_ACCEL_EXIT_MSR);
    if (class == VMM_EXIT_MSR_OTHER) {
        ok = write_other(v, msr, run->msr.data);
    } else {
        ok = vapic_msr_write(&v->apic, msr, run->msr.data, now_for(v, class)) == VAPIC_OK;
    }
    run->msr.error = !ok;
    if (ok && class == VMM_EXIT_MSR_APIC_BASE) {
        base_written(v);
    }
}

static void exit_hlt(struct vmm_vcpu *v)
{
    v->stats.exits[VMM_EXIT_HLT]++;
    v->nmi_given = v->nmi_given && vmm_kvm_nmi_masked(v->fd);
    v->nmi_masked = v->nmi_given;
    vmm_accel_hlt(v);
    vapic_halt(&v->apic);
}

static void exit_window(struct vmm_vcpu *v)
{
    v->stats.exits[VMM_EXIT_IRQ_WINDOW]++;
}

static void exit_tpr(struct vmm_vcpu *v)
{
    v->stats.exits[VMM_EXIT_TPR]++;
}

static void exit_intr(struct vmm_vcpu *v)
{
    v->stats.exits[VMM_EXIT_KICK]++;
}

static void exit_fail_entry(struct vmm_vcpu *v)
{
    char text[96];

    snprintf(text, sizeof(text), "the processor refuses to enter the guest (reason 0x%llx)",
             (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
    vmm_machine_fail(v->machine, v, text);
}

static void exit_internal(struct vmm_vcpu *v)
{
    char text[96];

    snprintf(text, sizeof(text), "KVM cannot execute the guest (internal error %u)",
             v->run->internal.suberror);
    vmm_machine_fail(v->machine, v, text);
}

static void exit_shutdown(struct vmm_vcpu *v)
{
    v->stats.exits[VMM_EXIT_OTHER]++;
    vmm_accel_leave(v, VMM_ACCEL_EXIT_OTHER);
    vmm_machine_triple_fault(v->machine, v);
}

static const struct {
    uint32_t reason;
    void (*handle)(struct vmm_vcpu *v);
} exit_table[] = {
    {KVM_EXIT_IO, exit_io},
    {KVM_EXIT_MMIO, exit_mmio},
    {KVM_EXIT_X86_RDMSR, exit_rdmsr},
    {KVM_EXIT_X86_WRMSR, exit_wrmsr},
    {KVM_EXIT_HLT, exit_hlt},
    {KVM_EXIT_IRQ_WINDOW_OPEN, exit_window},
    {KVM_EXIT_SET_TPR, exit_tpr},
    {KVM_EXIT_INTR, exit_intr},
    {KVM_EXIT_SHUTDOWN, exit_shutdown},
    {KVM_EXIT_FAIL_ENTRY, exit_fail_entry},
    {KVM_EXIT_INTERNAL_ERROR, exit_internal},
};

void vmm_vcpu_exit(struct vmm_vcpu *v)
{
    char text[64];

    if (v->run->exit_reason != KVM_EXIT_SHUTDOWN && v->machine->kvm.sync_regs) {
        v->before = v->run->s.regs.regs;
    }
    for (size_t i = 0; i < sizeof(exit_table) / sizeof(exit_table[0]); i++) {
        if (exit_table[i].reason == v->run->exit_reason) {
            exit_table[i].handle(v);
            return;
        }
    }
    v->stats.exits[VMM_EXIT_OTHER]++;
    snprintf(text, sizeof(text), "unexpected KVM exit %u", v->run->exit_reason);
    vmm_machine_fail(v->machine, v, text);
}
