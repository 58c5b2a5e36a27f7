/* SPDX-License-Identifier: MIT */
/* Scenarios of the library's own protocols: they hold without a back end and with any. */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

static const struct world_op post_one[] = {H_POST(0, 0x41), {0}};

static const struct world_spec post_to_sleeper = {
    .vcpu_count = 1,
    .actor = {{"device", post_one}},
};

const struct ex_scenario scenario_post_to_sleeper = {
    .name = "post-to-sleeper",
    .text = "a message comes while the vCPU executes HLT and goes to sleep: it wakes, or never sleeps",
    .races = "S1 A4 P4",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&post_to_sleeper),
};
