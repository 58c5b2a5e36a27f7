/* SPDX-License-Identifier: MIT */
/*
 * What an entry of L1's PID-pointer table means, and what its shadow holds [SDM3 31.1.6]. L1's
 * entry is the address of a descriptor in L1's memory, whose notification vector and destination
 * are L1's too, so the hardware must never see it. It is valid in the shadow only while a vCPU of
 * L1 runs L2 with that very descriptor, and leads to the descriptor of L0's that its vmcs02 names.
 * Elsewhere the IPI exits.
 *
 * A vCPU is named by its descriptor's address, while L2 is current on it.
 */
#include "shadow.h"

#define PID_POINTER_ADDRESS (~UINT64_C(0x3F))

static struct shadow_parsed parse(const struct vapic_nested *n, uint64_t l1)
{
    struct shadow_parsed p = {SHADOW_NOBODY, NESTED_NO_PAGE};

    (void)n;
    if ((l1 & ~PID_POINTER_ADDRESS) == APICV_PID_ENTRY_VALID)
        p.key = l1 & PID_POINTER_ADDRESS;
    return p;
}

static uint64_t idle(const struct vapic_nested *n)
{
    (void)n;
    return 0;
}

static uint64_t hardware(const struct vapic_nested *n, const struct vapic_shadow_entry *e,
                         const struct vapic_nested_vcpu *nv)
{
    (void)n;
    (void)e;
    return nv != NULL ? nv->posted_hpa | APICV_PID_ENTRY_VALID : 0;
}

const struct shadow_kind vapic_shadow_pid = {
    .parse = parse,
    .hardware = hardware,
    .idle = idle,
};
