/* SPDX-License-Identifier: MIT */
/* The Intel half of accel_fixture.h. */
#include "accel_fixture.h"

const struct ax_vendor ax_intel = {.silicon = VAPIC_SIL_INTEL};

void ax_intel_control(struct ax_vcpu *c, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)c;
    (void)field;
    (void)mask;
    (void)value;
}

uint16_t ax_intel_interrupt_status(struct ax_vcpu *c)
{
    (void)c;
    return 0;
}
