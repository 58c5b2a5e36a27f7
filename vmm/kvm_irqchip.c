/* SPDX-License-Identifier: MIT */
/* KVM's own interrupt controllers; see kvm_irqchip.h. */
#include "kvm_irqchip.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "layout.h"
#include "vapic/arch/apic.h"

#define PIC_WIRES   16u
#define PIC_CASCADE 2u
#define PIT_PIN     2u
#define ROUTES_MAX  (PIC_WIRES + VMM_IOAPIC_PINS)

static void add_route(struct kvm_irq_routing *routes, uint32_t wire, uint32_t chip, uint32_t pin)
{
    routes->entries[routes->nr++] = (struct kvm_irq_routing_entry){
        .gsi = wire,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = chip, .pin = pin},
    };
}

/* Wire 2 has no device: its 8259 input is the cascade, its pin is wire 0's. */
static int set_routes(int vm_fd)
{
    struct kvm_irq_routing *routes =
        calloc(1, sizeof(*routes) + ROUTES_MAX * sizeof(routes->entries[0]));
    int rc;

    if (routes == NULL) {
        return -1;
    }
    for (uint32_t wire = 0; wire < VMM_IOAPIC_PINS; wire++) {
        if (wire == PIC_CASCADE) {
            continue;
        }
        if (wire < PIC_WIRES) {
            add_route(routes, wire, wire < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                      wire % 8);
        }
        add_route(routes, wire, KVM_IRQCHIP_IOAPIC, wire == 0 ? PIT_PIN : wire);
    }
    rc = ioctl(vm_fd, KVM_SET_GSI_ROUTING, routes);
    free(routes);
    return rc;
}

int vmm_irqchip_create(int vm_fd)
{
    if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) != 0) {
        return -1;
    }
    return set_routes(vm_fd);
}

int vmm_irqchip_set_wire(int vm_fd, unsigned wire, bool level)
{
    struct kvm_irq_level line = {.irq = wire, .level = level};

    return ioctl(vm_fd, KVM_IRQ_LINE, &line);
}

static void put_register(struct kvm_lapic_state *apic, uint32_t offset, uint32_t value)
{
    memcpy(&apic->regs[offset], &value, sizeof(value));
}

int vmm_irqchip_hand_over(int vcpu_fd)
{
    struct kvm_lapic_state apic;

    if (ioctl(vcpu_fd, KVM_GET_LAPIC, &apic) != 0) {
        return -1;
    }
    put_register(&apic, APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_VECTOR);
    put_register(&apic, APIC_LVT_LINT0, APIC_DM_EXTINT);
    put_register(&apic, APIC_LVT_LINT1, APIC_DM_NMI);
    return ioctl(vcpu_fd, KVM_SET_LAPIC, &apic);
}

int vmm_irqchip_msi(int vm_fd, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address,
        .address_hi = (uint32_t)(address >> 32),
        .data = data,
    };

    return ioctl(vm_fd, KVM_SIGNAL_MSI, &msi);
}
