/* SPDX-License-Identifier: MIT */
/*
 * State of a stopped machine's interrupt controllers, out of either model and into either. Called
 * by switch.c; no vCPU runs, and the device lock is held but where it says otherwise.
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

/*
 * Ends the pauses of I/O APIC pins whose line stays high: what ends one sends a message. Without
 * the device lock, after the vCPUs are settled, one of whose EOIs may have begun one.
 */
void vmm_chips_end_pauses(struct vmm_machine *m);

/*
 * Out of the model that the machine has now, in this order. The I/O APIC comes first: KVM has
 * pauses of its own, and one that ends in between has sent to an APIC that has yet to be saved.
 * The pin, saved without remote IRR, then sends again, which a level may. The 8259 pair comes
 * last: an APIC that is settled may acknowledge one of its interrupts.
 */
int vmm_ioapic_save(struct vmm_machine *m, struct vmm_ioapic_state *state, struct vmm_err *err);
int vmm_apic_save(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err);
int vmm_pics_save(struct vmm_machine *m, struct vmm_chips_state *state, struct vmm_err *err);

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
