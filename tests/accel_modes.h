/* SPDX-License-Identifier: MIT */
/*
 * The kinds of silicon that the tests with a back end run on, by the names that `vapic run --accel`
 * gives them. "none" is the library alone, with what no processor can do: what all the others are
 * compared with.
 */
#ifndef VAPIC_TESTS_ACCEL_MODES_H
#define VAPIC_TESTS_ACCEL_MODES_H

#include "accel_fixture.h"

struct ax_mode {
    const char *name;
    enum vapic_accel_kind kind;
    uint32_t features;
};

enum ax_mode_index {
    AX_MODE_NONE,
    AX_MODE_AVIC,
    AX_MODE_AVIC_NOIPIV,
    AX_MODE_X2AVIC,
    AX_MODE_APICV,
    AX_MODE_APICV_IPIV,
    AX_MODES
};

static const struct ax_mode ax_modes[AX_MODES] = {
    [AX_MODE_NONE] = {"none", VAPIC_ACCEL_NONE, 0},
    [AX_MODE_AVIC] = {"avic", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV},
    [AX_MODE_AVIC_NOIPIV] = {"avic-noipiv", VAPIC_ACCEL_AVIC, 0},
    [AX_MODE_X2AVIC] = {"x2avic", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC},
    [AX_MODE_APICV] = {"apicv", VAPIC_ACCEL_APICV, 0},
    [AX_MODE_APICV_IPIV] = {"apicv-ipiv", VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV},
};

static inline struct ax_options ax_options_for(enum ax_mode_index mode, uint32_t vcpus)
{
    return (struct ax_options){
        .accel =
            {
                .kind = ax_modes[mode].kind,
                .features = ax_modes[mode].features,
                .notify_vector = AX_NOTIFY_VECTOR,
                .wakeup_vector = AX_WAKEUP_VECTOR,
            },
        .vcpus = vcpus,
    };
}

#endif
