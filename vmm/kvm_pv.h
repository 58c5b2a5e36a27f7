/* SPDX-License-Identifier: MIT */
/*
 * The paravirtual companions that `vapic run` offers: KVM's PV EOI. KVM's own implementation is
 * part of its in-kernel APIC, so the MSR is filtered, exits, and goes to libvapic; CPUID offers the
 * feature (kvm_cpuid.c). The word itself lies in guest memory, which is mapped here anyway.
 *
 * What KVM lets nobody offer from here: PV IPIs and the other hypercalls, for VMCALL does not exit
 * to user space; and Hyper-V's MSRs would exit, but no guest uses them without the rest of that
 * interface. Both are complete in libvapic (pv.h).
 */
#ifndef VMM_KVM_PV_H
#define VMM_KVM_PV_H

#include <stdbool.h>
#include <stdint.h>

struct vmm_vcpu;

/* Before the vCPU first runs. Returns a result of libvapic. */
int vmm_pv_attach(struct vmm_vcpu *v);

/* RDMSR and WRMSR of an MSR that exits; false: it is none of these, or raises #GP. */
bool vmm_pv_read_msr(struct vmm_vcpu *v, uint32_t msr, uint64_t *value);
bool vmm_pv_write_msr(struct vmm_vcpu *v, uint32_t msr, uint64_t value);

#endif
