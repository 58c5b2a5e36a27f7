/* SPDX-License-Identifier: MIT */
/*
 * What an entry of L1's physical APIC ID table means, and what its shadow holds [APM2 15.29.4]:
 *
 *      Valid      as L1's
 *      backing    L1's page, pinned; the scratch page where L1 has no such page
 *      IsRunning  L1 says so, and the vCPU of L1 that it names is loaded on a processor
 *      host ID    that processor's
 *
 * A vCPU of L1 is named by its APIC ID, from its load to its put.
 */
#include "shadow.h"

static struct shadow_parsed parse(const struct vapic_nested *n, uint64_t l1)
{
    struct shadow_parsed p = {SHADOW_NOBODY, NESTED_NO_PAGE};

    (void)n;
    if (!(l1 & AVIC_PHYSICAL_VALID))
        return p;
    p.page = l1 & AVIC_PHYSICAL_BACKING;
    if (l1 & AVIC_PHYSICAL_RUNNING)
        p.key = l1 & AVIC_PHYSICAL_HOST_ID;
    return p;
}

/* On processors with erratum 1235 nobody is ever published as running. */
static bool can_publish(const struct vapic_nested *n, const struct vapic_nested_vcpu *nv)
{
    return nv != NULL && nv->where != 0 && nv->where - 1 <= AVIC_PHYSICAL_HOST_ID &&
           n->vm->accel->features & VAPIC_ACCEL_IPIV;
}

static uint64_t idle(const struct vapic_nested *n)
{
    return AVIC_PHYSICAL_VALID | n->scratch_hpa;
}

static uint64_t hardware(const struct vapic_nested *n, const struct vapic_shadow_entry *e,
                         const struct vapic_nested_vcpu *nv)
{
    uint64_t value;

    if (!(e->l1 & AVIC_PHYSICAL_VALID))
        return 0;
    if (e->page == NESTED_NO_PAGE)
        return idle(n);
    value = AVIC_PHYSICAL_VALID | e->pin.hpa;
    if (e->l1 & AVIC_PHYSICAL_RUNNING && can_publish(n, nv))
        value |= AVIC_PHYSICAL_RUNNING | (nv->where - 1);
    return value;
}

const struct shadow_kind vapic_shadow_avic = {
    .parse = parse,
    .hardware = hardware,
    .idle = idle,
};
