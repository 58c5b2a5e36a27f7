/* SPDX-License-Identifier: MIT */
/*
 * The host's KVM: /dev/kvm, one virtual machine with its memory and its MSR filter, and what a
 * vCPU's CPUID says. Files kvm_*.c; the run loop is in kvm_vcpu.c. Unless the user asks for it
 * (enum vmm_irqchip) nothing here creates an irqchip, in whole or in part: every interrupt is
 * libvapic's.
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "load.h"
#include "mem.h"

/* The device, open: what the host offers. Lives as long as the command. */
struct vmm_kvm {
    int fd;
    size_t run_size; /* of a vCPU's shared page */
    unsigned max_cpus;
    unsigned max_id;              /* vCPU IDs are below it */
    bool sync_regs;               /* general registers come with every exit */
    bool forgets_shadow;          /* see kvm_shadow.c */
    bool tsc_offset;              /* a vCPU's TSC offset can be set */
    bool tsc_adjust;              /* guests have IA32_TSC_ADJUST */
    struct kvm_cpuid2 *supported; /* CPUID that this host can give to a guest */
};

/* Whose interrupt controllers a virtual machine has: local APICs, I/O APIC and 8259 pair. */
enum vmm_irqchip {
    VMM_IRQCHIP_VAPIC,  /* libvapic's, and the 8259 pair of dev_pic.h */
    VMM_IRQCHIP_KERNEL, /* KVM's own: see kvm_irqchip.h */
};

/* What the guest is offered. */
struct vmm_kvm_cpu_config {
    uint32_t apic_id;
    unsigned cpus;
    bool x2apic;
    bool tsc_deadline;
    bool pv_eoi;
    uint32_t tsc_khz; /* 0: unknown */
    uint32_t bus_hz;  /* of the APIC timer before division */
};

int vmm_kvm_open(struct vmm_kvm *kvm, struct vmm_err *err);
void vmm_kvm_close(struct vmm_kvm *kvm);

/* A new virtual machine with this memory. Returns its descriptor, or -1 with the error set. */
int vmm_kvm_create_vm(const struct vmm_kvm *kvm, const struct vmm_mem *mem,
                      enum vmm_irqchip irqchip, struct vmm_err *err);

/* Does the host's processor forget the shadow of STI? See kvm_shadow.c. */
bool vmm_shadow_is_forgotten(void);
/* Is the host's processor AMD's (or Hygon's)? Decides which topology leaves a guest reads. */
bool vmm_kvm_is_amd(const struct vmm_kvm *kvm);

/* Bits of a physical address as the guest will see them. */
unsigned vmm_kvm_phys_bits(const struct vmm_kvm *kvm);

/* Gives one vCPU its CPUID. */
int vmm_kvm_set_cpuid(const struct vmm_kvm *kvm, int vcpu_fd,
                      const struct vmm_kvm_cpu_config *config, struct vmm_err *err);

/*
 * Builds the table that vmm_kvm_set_cpuid() installs; `room` entries fit. Returns the number of
 * entries, 0 when there is no room. Separate so that a test can read it.
 */
unsigned vmm_kvm_build_cpuid(const struct kvm_cpuid2 *supported,
                             const struct vmm_kvm_cpu_config *config,
                             struct kvm_cpuid_entry2 *table, unsigned room);

/*
 * Registers of one vCPU. `initial` is what KVM gives a new vCPU, which is the state after RESET;
 * INIT goes back to it.
 */
struct vmm_kvm_regs {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debug;
};

int vmm_kvm_save_regs(int vcpu_fd, struct vmm_kvm_regs *initial);

/* INIT: the initial registers, but the APIC base stays, and nothing is pending any more. */
int vmm_kvm_init_cpu(int vcpu_fd, const struct vmm_kvm_regs *initial, uint64_t apic_base);

/* SIPI to a processor that was just initialised: real mode at vector << 12. */
int vmm_kvm_sipi(int vcpu_fd, uint8_t vector);

/* The boot processor begins where the loader said. */
int vmm_kvm_start(int vcpu_fd, const struct vmm_start *start);

/* Makes KVM's idea of IA32_APIC_BASE ours; CPUID.1:EDX[9] follows it. */
int vmm_kvm_set_apic_base(int vcpu_fd, uint64_t apic_base);

/* Is an NMI in service? */
bool vmm_kvm_nmi_masked(int vcpu_fd);

/* An MSR of a vCPU's, read and written as the host. */
int vmm_kvm_read_msr_of(int vcpu_fd, uint32_t msr, uint64_t *value);
int vmm_kvm_write_msr_of(int vcpu_fd, uint32_t msr, uint64_t value);

/* Reads IA32_TSC of a vCPU. */
int vmm_kvm_read_tsc(int vcpu_fd, uint64_t *tsc);

/* The guest writes IA32_TSC or IA32_TSC_ADJUST; they exit where kvm->tsc_offset is set. */
#define VMM_MSR_TSC        0x10u
#define VMM_MSR_TSC_ADJUST 0x3bu
int vmm_kvm_write_tsc(int vcpu_fd, uint32_t msr, uint64_t value);

/* Registers as text for a person; `sregs` may be NULL. */
void vmm_kvm_print_regs(const struct kvm_regs *regs, const struct kvm_sregs *sregs, char *text,
                        size_t size);

/*
 * MSRs that neither KVM nor the APIC knows. Returns false when the access raises #GP, as on a
 * processor without that register.
 */
bool vmm_kvm_read_msr(uint32_t msr, uint64_t *value);
bool vmm_kvm_write_msr(uint32_t msr, uint64_t value);

#endif
