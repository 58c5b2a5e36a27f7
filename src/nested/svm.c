/* SPDX-License-Identifier: MIT */
/*
 * AVIC and x2AVIC for L2: what 02 gets of 12, and the exits of L2 that are AVIC's.
 */
#include "nested.h"

static int take(struct vapic *v, const struct vapic_nested_view *view)
{
    (void)v;
    return view->vmcb12 != NULL ? VAPIC_E_CONTROLS : VAPIC_E_ARG;
}

static size_t memory(const struct vapic_nested_config *config,
                     const struct vapic_accel_config *accel)
{
    (void)config;
    (void)accel;
    return 0;
}

const struct nested_ops vapic_nested_svm = {
    .take = take,
    .memory = memory,
};
