/* SPDX-License-Identifier: MIT */
/* The options of `vapic diff`, parsed and checked. */
#ifndef CLI_DIFF_OPTIONS_H
#define CLI_DIFF_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "accel.h"

#define DIFF_PROGRAMS_MAX 48u

enum diff_engine { DIFF_ENGINE_AUTO, DIFF_ENGINE_KVM, DIFF_ENGINE_RIG };
enum diff_profile { DIFF_PROFILE_MANUAL, DIFF_PROFILE_KVM, DIFF_PROFILES };

/* enum vmm_accel_mode, and one word more. */
#define DIFF_ACCEL_ALL VMM_ACCEL_MODES

struct diff_options {
    uint64_t seed, first, ops;
    uint32_t length;
    unsigned cpus, accel;
    unsigned profile; /* enum diff_profile, or DIFF_PROFILES: each */
    enum diff_engine engine;
    unsigned limit; /* divergences after which it ends */
    bool json, print, no_shrink;
    const char *known, *rig_kernel;
    const char *program[DIFF_PROGRAMS_MAX];
    unsigned programs;
};

extern const char *const diff_accel_names[];
extern const char *const diff_profile_names[];

/* Prints what is wrong and ends the process with status 2 when the arguments are bad. */
void diff_options_parse(struct diff_options *options, int argc, char **argv);

#endif
