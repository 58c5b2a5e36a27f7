/* SPDX-License-Identifier: MIT */
/*
 * KVM's own interrupt controllers, for a virtual machine whose interrupts are not libvapic's: one
 * local APIC per vCPU, one I/O APIC of 24 pins at its usual address, the 8259 pair at its ports
 * with the edge/level registers. Guest accesses to them do not exit. The devices are the same:
 * their wires lead here by KVM_IRQ_LINE, messages by KVM_SIGNAL_MSI. Called by the machine.
 */
#ifndef VMM_KVM_IRQCHIP_H
#define VMM_KVM_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

/* More processors than an 8-bit destination can name this I/O APIC cannot reach. */
#define VMM_KERNEL_CPUS 255u

/*
 * Makes them, before any vCPU: wire n leads to input n of the 8259 pair and to pin n of the I/O
 * APIC, wire 0 to pin 2, as the MADT says. Returns 0, or -1 with errno set.
 */
int vmm_irqchip_create(int vm_fd);

/* Wire `wire` goes high or low; 0, or -1 with errno set. Any thread. */
int vmm_irqchip_set_wire(int vm_fd, unsigned wire, bool level);

/* The boot processor's local APIC as firmware hands it over; see machine.c. */
int vmm_irqchip_hand_over(int vcpu_fd);

/* A message; returns the number of vCPUs that took it, or -1. Any thread. */
int vmm_irqchip_msi(int vm_fd, uint64_t address, uint32_t data);

#endif
