/* SPDX-License-Identifier: MIT */
/*
 * L2's exits 43, 44, 45, 56. Only vmcs12 can have asked for them, so they are L1's; but for a write
 * of ICR that L1's processor would have sent by IPI virtualization, and L0's did not, because the
 * table of vmcs02 has no valid entry for the target: a stand-in, or L2 is not current there. That
 * IPI is posted here, by way of L1's own table.
 *
 * L1's table and descriptors hold what L1 likes. Every address in them is L1-physical, and goes
 * through host.pin(); what cannot be pinned, or is no entry, makes the exit L1's, as a processor
 * would that finds no valid entry. L1 then sends the IPI by its own software.
 */
#include "vmx.h"

#define WRITE_OFFSET UINT64_C(0xFFF)

struct ipi {
    uint32_t icr; /* low word, as stored */
    uint32_t target;
};

/* The bits that [SDM3 31.1.6] wants to be zero, and the vector. */
static bool virtualized(const struct ipi *ipi)
{
    return (ipi->icr & APICV_ICR_IPIV_RESERVED) == 0 &&
           (ipi->icr & APIC_ICR_VECTOR) >= APICV_FIRST_VECTOR;
}

static struct ipi stored(const struct vapic_nested_vcpu *nv)
{
    bool x2apic = vmx_secondary(&nv->vmcs12, VMX_SEC_X2APIC);
    uint32_t high =
        vapic_load32(vmx_page_word(nv, x2apic ? APIC_ICR + 4 : APIC_ICR2), VAPIC_RELAXED);

    return (struct ipi){vapic_load32(vmx_page_word(nv, APIC_ICR), VAPIC_RELAXED),
                        x2apic ? high : high >> 24};
}

/* What the guest has written is in its page, if that is still there. */
static bool read_page(struct vapic *v, struct ipi *ipi)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_vm *vm = v->vm;
    bool there;

    vm->host.lock(vm->ctx);
    there = vmx_pinned(nv, VMX_SLOT_APIC);
    if (there)
        *ipi = stored(nv);
    vm->host.unlock(vm->ctx);
    return there;
}

/* L1's entry for the target; 0 (not valid): there is none. */
static uint64_t l1_entry(struct vapic *v, uint32_t target)
{
    const struct vapic_vmcs12 *c = &v->accel->nested->vmcs12;
    struct vapic_nested *n = nested_vm(v);
    struct vapic_vm *vm = v->vm;
    uint64_t gpa = c->pid_table + sizeof(uint64_t) * target;
    uint64_t page = gpa & ~(uint64_t)(APIC_PAGE_SIZE - 1), entry = 0;
    struct vapic_l1_page pin;

    if (target > c->last_pid_index)
        return 0;
    vm->host.lock(vm->ctx);
    if (n->host.pin(vm->ctx, page, &pin)) {
        entry = vapic_load64((const uint64_t *)(const void *)((const uint8_t *)pin.memory +
                                                              (gpa & (APIC_PAGE_SIZE - 1))),
                             VAPIC_ACQUIRE);
        n->host.unpin(vm->ctx, page, &pin);
    }
    vm->host.unlock(vm->ctx);
    return entry;
}

static bool send(struct vapic *v, const struct ipi *ipi)
{
    uint64_t entry = l1_entry(v, ipi->target), bits[4] = {0};
    uint32_t vector = ipi->icr & APIC_ICR_VECTOR;

    if ((entry & APICV_PID_ENTRY_FLAGS) != APICV_PID_ENTRY_VALID || !vmx_address_ok(v, entry, 0))
        return false;
    bits[vector >> 6] = UINT64_C(1) << (vector & 63);
    return vapic_vmx_post(v, entry & ~APICV_PID_ENTRY_FLAGS, bits);
}

static int reflected(uint32_t reason, uint64_t qualification, struct vapic_reflect *reflect)
{
    *reflect = (struct vapic_reflect){reason, qualification, 0};
    return VAPIC_REFLECT;
}

static int write_exit(struct vapic *v, uint64_t qualification, struct vapic_reflect *reflect)
{
    struct ipi ipi;

    if (qualification & ~WRITE_OFFSET)
        return VAPIC_E_ARG;
    if (qualification != APIC_ICR || !vmx_sends(&v->accel->nested->vmcs12))
        return reflected(VMX_EXIT_APIC_WRITE, qualification, reflect);
    if (!read_page(v, &ipi))
        return VAPIC_E_MEMORY;
    if (virtualized(&ipi) && send(v, &ipi))
        return VAPIC_OK;
    return reflected(VMX_EXIT_APIC_WRITE, qualification, reflect);
}

int vapic_nested_apicv_exit(struct vapic *v, uint32_t reason, uint64_t qualification,
                            struct vapic_reflect *reflect)
{
    if (!in_nested(v) || v->vm->accel->kind != VAPIC_ACCEL_APICV || !nested_virtualized(v))
        return VAPIC_E_ARG;
    switch (reason) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
        return reflected(reason, qualification, reflect);
    case VMX_EXIT_APIC_WRITE:
        return write_exit(v, qualification, reflect);
    default:
        return VAPIC_E_ARG;
    }
}
