/* SPDX-License-Identifier: MIT */
/* What the tests of the AVIC back end share: machines of each kind, and looks at what the library
 * has written for the processor. */
#ifndef VAPIC_TESTS_AVIC_TESTS_H
#define VAPIC_TESTS_AVIC_TESTS_H

#include "accel_fixture.h"

#include <string.h>

#define XAVIC  VAPIC_ACCEL_IPIV
#define X2AVIC (VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC)

static inline struct ax *avic_vm(uint32_t features, uint32_t vcpus, bool x2apic)
{
    struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC, .features = features},
                           .vcpus = vcpus,
                           .x2apic = x2apic,
                           .trace = true};

    return ax_new(&o);
}

static inline uint64_t vmcb64(const struct ax *ax, uint32_t n, uint32_t field)
{
    uint64_t value;

    memcpy(&value, ax->v[n]->vmcb + field, sizeof(value));
    return value;
}

static inline void vmcb_put64(struct ax *ax, uint32_t n, uint32_t field, uint64_t value)
{
    memcpy(ax->v[n]->vmcb + field, &value, sizeof(value));
}

static inline uint32_t vmcb32(const struct ax *ax, uint32_t n, uint32_t field)
{
    return (uint32_t)vmcb64(ax, n, field);
}

static inline uint64_t avic_mode(const struct ax *ax, uint32_t n)
{
    return vmcb64(ax, n, VMCB_INT_CTL) & (VMCB_V_AVIC | VMCB_V_X2AVIC);
}

/* Entry `id` of the table that the VMCB of vCPU 0 points to, as the processor sees it. */
static inline uint64_t physical_entry(const struct ax *ax, uint32_t id)
{
    uint64_t table = vmcb64(ax, 0, VMCB_AVIC_PHYSICAL) & AVIC_ADDRESS, entry;

    memcpy(&entry, ax->arena + (table - ax_hpa((struct ax *)ax, ax->arena)) + 8 * id,
           sizeof(entry));
    return entry;
}

static inline bool is_running(const struct ax *ax, uint32_t id)
{
    return (physical_entry(ax, id) & AVIC_PHYSICAL_RUNNING) != 0;
}

static inline uint32_t logical_entry(const struct ax *ax, uint32_t slot)
{
    uint64_t table = vmcb64(ax, 0, VMCB_AVIC_LOGICAL) & AVIC_ADDRESS;
    uint32_t entry;

    memcpy(&entry, ax->arena + (table - ax_hpa((struct ax *)ax, ax->arena)) + 4 * slot,
           sizeof(entry));
    return entry;
}

/* Everybody is in the guest, nothing is in the log. */
static inline void enter_all(struct ax *ax)
{
    ax_settle(ax);
    ax_forget(ax);
}

/* The guest halts and its vCPU sleeps. */
static inline void sleep_vcpu(struct ax *ax, uint32_t n)
{
    ax_hlt(ax, n);
    ax_run(ax, n);
    assert_true(ax->v[n]->blocked);
}

#endif
