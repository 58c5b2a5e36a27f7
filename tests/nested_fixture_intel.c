/* SPDX-License-Identifier: MIT */
/* The Intel half of nested_fixture.h. */
#include "nested_fixture_private.h"

void nx_intel_control(struct nx_l1 *c, uint32_t field, uint64_t mask, uint64_t value, bool l2)
{
    vmcs_set_bits(l2 ? &c->vmcs02 : &c->vmcs01, field, mask, value);
}

uint16_t nx_intel_status(struct nx_l1 *c, bool l2)
{
    return (uint16_t)vmcs_get(l2 ? &c->vmcs02 : &c->vmcs01, VMCS_GUEST_INTERRUPT_STATUS);
}

void nx_intel_control12(struct nx_l2_vcpu *c, uint32_t field, uint64_t mask, uint64_t value)
{
    vmcs_set_bits(&c->vmcs, field, mask, value);
}

const struct nx_vendor nx_intel = {.silicon = VAPIC_SIL_INTEL};
