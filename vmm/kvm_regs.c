/* SPDX-License-Identifier: MIT */
/* Register state of one vCPU: start, INIT, SIPI, APIC base, print. Called by its own thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"
#include "vapic/arch/apic.h"

#define CR0_PE     0x1ull
#define CR0_ET     0x10ull
#define CR0_PG     0x80000000ull
#define CR0_CD_NW  0x60000000ull
#define CR4_PAE    0x20ull
#define EFER_LME   0x100ull
#define EFER_LMA   0x400ull
#define RFLAGS_ONE 0x2ull

int vmm_kvm_save_regs(int vcpu_fd, struct vmm_kvm_regs *initial)
{
    if (ioctl(vcpu_fd, KVM_GET_REGS, &initial->regs) != 0 ||
        ioctl(vcpu_fd, KVM_GET_SREGS, &initial->sregs) != 0) {
        return -1;
    }
    return ioctl(vcpu_fd, KVM_GET_DEBUGREGS, &initial->debug);
}

/* Forgets what KVM still meant to inject: an interrupt, an exception, NMIs and their masking. */
static int clear_events(int vcpu_fd)
{
    struct kvm_vcpu_events events = {.flags = KVM_VCPUEVENT_VALID_NMI_PENDING |
                                              KVM_VCPUEVENT_VALID_SHADOW};

    return ioctl(vcpu_fd, KVM_SET_VCPU_EVENTS, &events);
}

bool vmm_kvm_nmi_masked(int vcpu_fd)
{
    struct kvm_vcpu_events events;

    return ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &events) == 0 && events.nmi.masked != 0;
}

int vmm_kvm_init_cpu(int vcpu_fd, const struct vmm_kvm_regs *initial, uint64_t apic_base)
{
    struct kvm_sregs sregs = initial->sregs;
    struct kvm_sregs now;

    if (ioctl(vcpu_fd, KVM_GET_SREGS, &now) != 0) {
        return -1;
    }
    /* INIT leaves the cache controls alone [SDM3 T10-1]. */
    sregs.cr0 = (sregs.cr0 & ~CR0_CD_NW) | (now.cr0 & CR0_CD_NW);
    sregs.apic_base = apic_base;
    memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) != 0 ||
        ioctl(vcpu_fd, KVM_SET_REGS, &initial->regs) != 0 ||
        ioctl(vcpu_fd, KVM_SET_DEBUGREGS, &initial->debug) != 0) {
        return -1;
    }
    return clear_events(vcpu_fd);
}

int vmm_kvm_sipi(int vcpu_fd, uint8_t vector)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu_fd, KVM_GET_REGS, &regs) != 0 || ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) != 0) {
        return -1;
    }
    sregs.cs.selector = (uint16_t)(vector << 8);
    sregs.cs.base = (uint64_t)vector << 12;
    regs.rip = 0;
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) != 0) {
        return -1;
    }
    return ioctl(vcpu_fd, KVM_SET_REGS, &regs);
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long_mode)
{
    return (struct kvm_segment){
        .limit = 0xffffffffu,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .db = !long_mode,
        .l = long_mode,
        .g = 1,
    };
}

static void start_sregs(const struct vmm_start *start, struct kvm_sregs *s)
{
    s->cs = flat_segment(start->code_selector, 0xb, start->long_mode);
    s->ds = flat_segment(start->data_selector, 0x3, false);
    s->es = s->fs = s->gs = s->ss = s->ds;
    s->gdt.base = start->gdt_base;
    s->gdt.limit = start->gdt_limit;
    s->cr0 = CR0_PE | CR0_ET;
    if (start->long_mode) {
        s->cr0 |= CR0_PG;
        s->cr3 = start->cr3;
        s->cr4 = CR4_PAE;
        s->efer = EFER_LME | EFER_LMA;
    }
}

int vmm_kvm_start(int vcpu_fd, const struct vmm_start *start)
{
    struct kvm_regs regs = {
        .rip = start->rip,
        .rax = start->rax,
        .rbx = start->rbx,
        .rsi = start->rsi,
        .rflags = RFLAGS_ONE,
    };
    struct kvm_sregs sregs;

    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) != 0) {
        return -1;
    }
    start_sregs(start, &sregs);
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) != 0) {
        return -1;
    }
    return ioctl(vcpu_fd, KVM_SET_REGS, &regs);
}

/* One MSR, as KVM_GET_MSRS and KVM_SET_MSRS take it. */
struct one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

int vmm_kvm_write_msr_of(int vcpu_fd, uint32_t msr, uint64_t value)
{
    struct one_msr one = {.head.nmsrs = 1, .entry = {msr, 0, value}};

    return ioctl(vcpu_fd, KVM_SET_MSRS, &one) == 1 ? 0 : -1;
}

/*
 * By the MSR and not with the segment registers: writing those back changes the type of a loaded
 * TR, which some nested processors then refuse to use for the guest's I/O permissions.
 */
int vmm_kvm_set_apic_base(int vcpu_fd, uint64_t apic_base)
{
    return vmm_kvm_write_msr_of(vcpu_fd, MSR_APIC_BASE, apic_base);
}

int vmm_kvm_read_msr_of(int vcpu_fd, uint32_t msr, uint64_t *value)
{
    struct one_msr one = {.head.nmsrs = 1, .entry.index = msr};

    if (ioctl(vcpu_fd, KVM_GET_MSRS, &one) != 1) {
        return -1;
    }
    *value = one.entry.data;
    return 0;
}

int vmm_kvm_read_tsc(int vcpu_fd, uint64_t *tsc)
{
    return vmm_kvm_read_msr_of(vcpu_fd, VMM_MSR_TSC, tsc);
}

/* Moves the guest's TSC by `delta`, exactly: KVM rounds a TSC that is set by its MSR. */
static int move_tsc(int vcpu_fd, uint64_t delta)
{
    uint64_t offset;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)&offset,
    };

    if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) != 0) {
        return -1;
    }
    offset += delta;
    return ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr);
}

/* Either register moves the TSC, and IA32_TSC_ADJUST by the same amount [SDM3 19.17.3]. */
int vmm_kvm_write_tsc(int vcpu_fd, uint32_t msr, uint64_t value)
{
    uint64_t old;
    uint64_t old_adjust;

    if (vmm_kvm_read_msr_of(vcpu_fd, VMM_MSR_TSC_ADJUST, &old_adjust) != 0 ||
        vmm_kvm_read_msr_of(vcpu_fd, msr, &old) != 0 || move_tsc(vcpu_fd, value - old) != 0) {
        return -1;
    }
    return vmm_kvm_write_msr_of(vcpu_fd, VMM_MSR_TSC_ADJUST, old_adjust + (value - old));
}

void vmm_kvm_print_regs(const struct kvm_regs *r, const struct kvm_sregs *s, char *text,
                        size_t size)
{
    int n = snprintf(text, size,
                     "  rip %016llx rsp %016llx rflags %08llx\n"
                     "  rax %016llx rbx %016llx rcx %016llx rdx %016llx\n"
                     "  rsi %016llx rdi %016llx rbp %016llx r8  %016llx\n"
                     "  r9  %016llx r10 %016llx r11 %016llx r12 %016llx\n"
                     "  r13 %016llx r14 %016llx r15 %016llx\n",
                     r->rip, r->rsp, r->rflags, r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi,
                     r->rbp, r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15);

    if (s == NULL || n < 0 || (size_t)n >= size) {
        return;
    }
    snprintf(text + n, size - (size_t)n,
             "  cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %llx\n"
             "  cs %04x:%llx ss %04x:%llx gdt %llx+%x idt %llx+%x tr %04x\n",
             s->cr0, s->cr2, s->cr3, s->cr4, s->efer, s->cs.selector, s->cs.base, s->ss.selector,
             s->ss.base, s->gdt.base, s->gdt.limit, s->idt.base, s->idt.limit, s->tr.selector);
}
