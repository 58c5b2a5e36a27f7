/* SPDX-License-Identifier: MIT */
/*
 * APICv and posted interrupts for L2: what vmcs02 gets of vmcs12.
 */
#include "nested.h"

static int take(struct vapic *v, const struct vapic_nested_view *view)
{
    (void)v;
    return view->vmcs12 != NULL ? VAPIC_E_CONTROLS : VAPIC_E_ARG;
}

static size_t memory(const struct vapic_nested_config *config,
                     const struct vapic_accel_config *accel)
{
    (void)config;
    (void)accel;
    return 0;
}

const struct nested_ops vapic_nested_vmx = {
    .take = take,
    .memory = memory,
};
