/* SPDX-License-Identifier: MIT */
/* Scenarios of AVIC. */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

static const struct world_op ipi_to_1[] = {G_IPI(1, 0x41), G_STOP};

static const struct world_spec ipi_to_sleeper = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_to_1}, {.ops = NULL}},
};

const struct ex_scenario scenario_ipi_to_sleeper = {
    .name = "ipi-to-sleeper",
    .text = "an IPI finds its target on the way to sleep",
    .races = "A1",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ipi_to_sleeper),
};
