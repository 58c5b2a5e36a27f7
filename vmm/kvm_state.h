/* SPDX-License-Identifier: MIT */
/*
 * What KVM holds of a processor besides its APIC, and of the machine: saved from one virtual
 * machine and loaded into another one over the same guest memory, on the same host. Called by
 * switch.c while no vCPU runs.
 */
#ifndef VMM_KVM_STATE_H
#define VMM_KVM_STATE_H

#include "err.h"
#include "kvm.h"

struct vmm_cpu_state {
    struct kvm_mp_state mp;
    struct kvm_vcpu_events events;
    struct vmm_kvm_regs regs;
    struct kvm_xcrs xcrs;
    void *xsave;
    struct kvm_msrs *msrs;
    uint64_t tsc;        /* at tsc_ns */
    uint64_t tsc_ns;     /* monotonic clock */
    uint64_t tsc_offset; /* where KVM tells it */
    uint32_t tsc_khz;
};

/* kvmclock's time, at a time of the monotonic clock. */
struct vmm_clock_state {
    uint64_t ns;
    uint64_t at_ns;
};

/* Everything but the MP state and the events, which are saved last and loaded last. */
int vmm_cpu_save(const struct vmm_kvm *kvm, int vm_fd, int vcpu_fd, struct vmm_cpu_state *state,
                 struct vmm_err *err);
int vmm_cpu_load(const struct vmm_kvm *kvm, int vcpu_fd, const struct vmm_cpu_state *state,
                 struct vmm_err *err);

int vmm_cpu_save_events(int vcpu_fd, struct vmm_cpu_state *state, struct vmm_err *err);
int vmm_cpu_load_events(int vcpu_fd, const struct vmm_cpu_state *state, struct vmm_err *err);

/* A zeroed state is left alone. */
void vmm_cpu_state_free(struct vmm_cpu_state *state);

int vmm_clock_save(int vm_fd, struct vmm_clock_state *state, struct vmm_err *err);
int vmm_clock_load(int vm_fd, const struct vmm_clock_state *state, struct vmm_err *err);

#endif
