/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the APICv back end share: machines by a few letters, VMCS fields, inhibition.
 * Static functions: every test program has them to itself.
 */
#ifndef VAPIC_TESTS_APICV_BENCH_H
#define VAPIC_TESTS_APICV_BENCH_H

#include <string.h>

#include "accel_fixture.h"
#include "vapic/arch/ioapic.h"

#define APICV_FN static __attribute__((unused))

/* What a machine is made with. */
enum {
    WITH_IPIV = 1 << 0,
    WITH_X2APIC = 1 << 1, /* every vCPU starts in x2APIC mode */
    WITH_TRACE = 1 << 2,
    WITH_XAPIC_HOST = 1 << 3,
    WITHOUT_ACCEL = 1 << 4, /* the library alone */
    SOFT_DISABLED = 1 << 5,
    PARKED = 1 << 6,
};

APICV_FN struct ax *machine_with_ids(unsigned with, uint32_t vcpus, const uint32_t *ids)
{
    struct ax_options o = {
        .vcpus = vcpus,
        .ids = ids,
        .x2apic = (with & WITH_X2APIC) != 0,
        .trace = (with & WITH_TRACE) != 0,
        .soft_disabled = (with & SOFT_DISABLED) != 0,
        .parked = (with & PARKED) != 0,
        .config = {.max_gsis = 64},
    };

    if (!(with & WITHOUT_ACCEL))
        o.accel.kind = VAPIC_ACCEL_APICV;
    if (with & WITH_IPIV)
        o.accel.features |= VAPIC_ACCEL_IPIV;
    if (with & WITH_XAPIC_HOST)
        o.accel.features |= VAPIC_ACCEL_XAPIC_HOST;
    return ax_new(&o);
}

APICV_FN struct ax *machine(unsigned with, uint32_t vcpus)
{
    return machine_with_ids(with, vcpus, NULL);
}

APICV_FN uint64_t field(const struct ax *ax, uint32_t n, uint32_t encoding)
{
    uint64_t value = 0;

    assert_true(vapic_sil_vmread(&ax->v[n]->vmcs, encoding, &value));
    return value;
}

APICV_FN uint8_t rvi(const struct ax *ax, uint32_t n)
{
    return VMX_STATUS_RVI(field(ax, n, VMCS_GUEST_INTERRUPT_STATUS));
}

APICV_FN uint8_t svi(const struct ax *ax, uint32_t n)
{
    return VMX_STATUS_SVI(field(ax, n, VMCS_GUEST_INTERRUPT_STATUS));
}

APICV_FN bool eoi_exits(const struct ax *ax, uint32_t n, uint8_t vector)
{
    return (field(ax, n, VMCS_EOI_EXIT0 + 2 * (vector >> 6)) >> (vector & 63)) & 1;
}

APICV_FN uint64_t pid_control(const struct ax *ax, uint32_t n)
{
    return ax->v[n]->apic.pid.control;
}

APICV_FN uint32_t controls_told(const struct ax *ax)
{
    return ax_count(ax, AX_CONTROL);
}

/* How often a field was written since ax_forget(). */
APICV_FN uint32_t told(const struct ax *ax, uint32_t n, uint32_t encoding)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ax->logged; i++)
        count += ax->log[i].kind == AX_CONTROL && ax->log[i].vcpu == n && ax->log[i].a == encoding;
    return count;
}

APICV_FN void inhibit(struct ax *ax, bool set)
{
    assert_int_equal(vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, set), VAPIC_OK);
}

/* Out of the guest and in again. */
APICV_FN void reenter(struct ax *ax, uint32_t n)
{
    ax_leave(ax, n);
    assert_true(ax_enter(ax, n));
}

/* A redirection entry, as the guest writes it: both halves. */
APICV_FN void write_rte(struct ax *ax, uint32_t pin, uint64_t entry)
{
    vapic_ioapic_write(&ax->io, IOAPIC_REGSEL, IOAPIC_REG_RTE + 2 * pin + 1, 4);
    vapic_ioapic_write(&ax->io, IOAPIC_IOWIN, entry >> 32, 4);
    vapic_ioapic_write(&ax->io, IOAPIC_REGSEL, IOAPIC_REG_RTE + 2 * pin, 4);
    vapic_ioapic_write(&ax->io, IOAPIC_IOWIN, (uint32_t)entry, 4);
}

#define RTE_TO(id) ((uint64_t)(id) << 56)

#endif
