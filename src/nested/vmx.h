/* SPDX-License-Identifier: MIT */
/*
 * What the VMX half's files share:
 *
 *      vmx.c          checks of vmcs12, what vmcs02 gets, entering and leaving
 *      vmx_post.c     L2's posted interrupts: descriptors, RVI, the end of HLT
 *      vmx_exit.c     exits of L2, IPIs that the processor has not sent
 *      vmx_shadow.c   what the entries of a PID-pointer table mean
 */
#ifndef VAPIC_NESTED_VMX_H
#define VAPIC_NESTED_VMX_H

#include "../accel/apicv.h"
#include "shadow.h"

/* The pages of vmcs12, by their slot in vapic_nested_vcpu.pins. */
enum vmx_slot {
    VMX_SLOT_APIC,
    VMX_SLOT_ACCESS,
    VMX_SLOT_DESCRIPTOR,
    VMX_SLOTS,
};

_Static_assert(VMX_SLOTS <= VAPIC_NESTED_PINS, "a slot for every page");

static inline bool vmx_secondary(const struct vapic_vmcs12 *c, uint32_t bit)
{
    return (c->secondary & bit) != 0;
}

/* Virtual-interrupt delivery. */
static inline bool vmx_delivers(const struct vapic_vmcs12 *c)
{
    return vmx_secondary(c, VMX_SEC_INTERRUPT_DELIVERY);
}

static inline bool vmx_posts(const struct vapic_vmcs12 *c)
{
    return (c->pin & VMX_PIN_POSTED_INTERRUPTS) != 0;
}

static inline bool vmx_sends(const struct vapic_vmcs12 *c)
{
    return (c->tertiary & VMX_TER_IPI_VIRTUALIZATION) != 0;
}

/* Bits 11:0 zero and so on, and within L1's physical-address width. */
static inline bool vmx_address_ok(const struct vapic *v, uint64_t address, uint64_t low_bits)
{
    return !(address & low_bits) && address >> v->phys_bits == 0;
}

/* Bits of a field of vmcs02. It is current. */
static inline void vmx_control(struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    nested_vm(v)->host.control(v->vm->ctx, v, field, mask, value);
}

static inline uint16_t vmx_status(struct vapic *v)
{
    return nested_vm(v)->host.interrupt_status(v->vm->ctx, v);
}

/* A word of L2's virtual-APIC page, which is pinned: L1's memory, and of its processors. */
static inline uint32_t *vmx_page_word(const struct vapic_nested_vcpu *nv, uint32_t offset)
{
    return (uint32_t *)(void *)((uint8_t *)nested_pin(nv, VMX_SLOT_APIC)->memory + offset);
}

/* Configuration lock held. */
static inline bool vmx_pinned(const struct vapic_nested_vcpu *nv, enum vmx_slot slot)
{
    return nested_pin(nv, slot)->memory != NULL && nv->pins[slot].doomed == 0;
}

/* ---- vmx_post.c ---- */

/* What was posted for L2 and announced is in VIRR after it; RVI for it, or `rvi` if that is more.
 * Pages pinned, L2 current or just left. */
uint8_t vapic_vmx_collect(struct vapic *v, uint8_t rvi);

/* Is there anything for vapic_vmx_collect() that would end HLT of an L2 with this status? */
bool vapic_vmx_due(const struct vapic *v, uint16_t status);

/* An interrupt of L2's, by software, into L1's descriptor at `gpa`; a notification that it asks for
 * is sent as an IPI of L1's. False: L1 has no such memory. Owner, no lock held. */
bool vapic_vmx_post(struct vapic *v, uint64_t gpa, const uint64_t bits[4]);

/* ON may be set in the descriptor of L0's although L2 has been left. nested_ops.late */
void vapic_vmx_late(struct vapic *v);

/* Nobody who sends by hardware holds the descriptor any more, and it is empty. No lock held. */
void vapic_vmx_drain(struct vapic *v);

/* The control word of the descriptor of L0's: nested_ops.load, .put */
void vapic_vmx_load(struct vapic *v);
void vapic_vmx_put(struct vapic *v, bool blocking);

#endif
