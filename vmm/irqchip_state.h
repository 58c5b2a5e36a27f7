/* SPDX-License-Identifier: MIT */
/*
 * State of a stopped machine's interrupt controllers, out of either model and into either. Called
 * by switch.c; no vCPU runs, and but for vmm_vcpu_settle() the device lock is held.
 */
#ifndef VMM_IRQCHIP_STATE_H
#define VMM_IRQCHIP_STATE_H

#include "err.h"
#include "interchange.h"
#include "kvm_vcpu.h"

struct vmm_machine;

/* The I/O APIC and the 8259 pair. */
struct vmm_chips_state {
    struct vmm_ioapic_state ioapic;
    struct vmm_pic_chip master;
    struct vmm_pic_chip slave;
};

/*
 * Finishes the instruction that the vCPU stopped in: its devices' share may call the bus, so
 * without the device lock, and before any state is read.
 */
void vmm_vcpu_settle(struct vmm_vcpu *v);

/* Out of the model that the machine has now. */
int vmm_apic_save(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err);
int vmm_chips_save(struct vmm_machine *m, struct vmm_chips_state *state, struct vmm_err *err);

/*
 * Into libvapic; all of it before the new vCPUs are made, which take IA32_APIC_BASE from there. The
 * I/O APIC comes last: what it has to send it sends.
 */
int vmm_apic_load_vapic(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err);
int vmm_chips_load_vapic(struct vmm_machine *m, const struct vmm_chips_state *state,
                         struct vmm_err *err);

/* Into KVM's, with the new vCPUs there: chips last too. */
int vmm_apic_load_kernel(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err);
int vmm_chips_load_kernel(struct vmm_machine *m, const struct vmm_chips_state *state,
                          struct vmm_err *err);

#endif
