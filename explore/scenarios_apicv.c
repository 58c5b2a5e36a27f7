/* SPDX-License-Identifier: MIT */
/*
 * Scenarios of APICv and posted interrupts: what its switching on and off, its own copies of
 * priorities (RVI, SVI, TPR threshold) and its EOI-exit bitmap have to keep. Those that mean
 * something elsewhere run there too.
 */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

static const struct world_op switches_off[] = {H_INHIBIT(BLOCKIRQ, 1), {0}};
static const struct world_op switches_on[] = {H_INHIBIT(BLOCKIRQ, 0), {0}};
static const struct world_op posts_0[] = {H_POST(0, 0x41), {0}};
static const struct world_op posts_two[] = {
    H_POST(0, 0x41), H_AFTER(0, 0x41, 1), H_POST(0, 0x51), {0}};
static const struct world_op nmi_0[] = {H_NMI(0), {0}};
static const struct world_op device_0[] = {H_DEVICE(0), {0}};
static const struct world_op device_1[] = {H_DEVICE(1), {0}};
static const struct world_op raises_0[] = {H_PIN(0, 1), {0}};
static const struct world_op routes_to_1[] = {H_ROUTE(0, 1, APIC_ICR_LEVEL | 0x61), {0}};
static const struct world_op moves_0[] = {H_MOVE(0, 4), {0}};

static const struct world_op opens[] = {G_STI, {0}};
static const struct world_op sleeps_then_opens[] = {G_HLT, G_STI, {0}};
static const struct world_op ends_two_by_hand[] = {G_SPIN(0x51, 1), G_EOI, G_EOI, {0}};
static const struct world_op raises_and_lowers_tpr[] = {G_CR8(5), G_CR8(0), {0}};
static const struct world_op self_ipi_under_tpr_ops[] = {
    G_CR8(5), G_IPI_SELF(0, 0x42), G_CR8(0), {0}};

static const struct world_spec off_while_pending = {
    .vcpu_count = 1,
    .vcpu = {{.ops = opens, .flags = W_CLOSED}},
    .actor = {{"device", posts_0}, {"administrator", switches_off}},
};

const struct ex_scenario scenario_off_while_pending = {
    .name = "off-while-pending",
    .text = "acceleration is switched off while a vector waits for IF",
    .races = "P15 I7",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&off_while_pending),
};

static const struct world_spec on_while_in_service = {
    .vcpu_count = 1,
    .vcpu = {{.ops = ends_two_by_hand, .flags = W_BY_HAND}},
    .actor = {{"device", posts_two}, {"administrator", switches_on}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
};

const struct ex_scenario scenario_on_while_in_service = {
    .name = "on-while-in-service",
    .text = "acceleration is switched on while two vectors are in service, which end in order",
    .races = "P14",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&on_while_in_service),
};

static const struct world_spec tpr_across_switch = {
    .vcpu_count = 1,
    .vcpu = {{.ops = raises_and_lowers_tpr}},
    .actor = {{"device", posts_0}, {"administrator", switches_off}},
};

const struct ex_scenario scenario_tpr_across_switch = {
    .name = "tpr-across-switch",
    .text = "the guest raises and lowers TPR while acceleration is switched off and a vector comes",
    .races = "P17 A21 S16",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&tpr_across_switch),
};

static const struct world_spec sleeper_with_if_clear = {
    .vcpu_count = 1,
    .vcpu = {{.ops = sleeps_then_opens, .flags = W_CLOSED}},
    .actor = {{"device", posts_0}, {"watchdog", nmi_0}},
};

const struct ex_scenario scenario_sleeper_with_if_clear = {
    .name = "sleeper-with-if-clear",
    .text = "a vCPU sleeps with interrupts off: what comes waits for the NMI that wakes it",
    .races = "P18 S10",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&sleeper_with_if_clear),
};

static const struct world_spec route_and_service = {
    .vcpu_count = 2,
    .vcpu = {{.flags = W_SPINS}, {.ops = NULL}},
    .actor = {{"device", raises_0}, {"administrator", routes_to_1}},
    .pin = {{.vector = 0x61, .level = true, .services = 2}},
};

const struct ex_scenario scenario_route_and_service = {
    .name = "route-and-service",
    .text = "a level goes to another vCPU while it is pending or in service at the first: its EOI "
            "counts",
    .races = "P12 S8",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&route_and_service),
};

static const struct world_spec two_devices = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", device_0}, {"another", device_1}},
    .irte = {{.vector = 0x71}, {.vector = 0x72}},
};

const struct ex_scenario scenario_two_devices = {
    .name = "two-devices",
    .text = "two devices post to a vCPU in the guest: one of them may find ON set",
    .races = "P1 P2 P3",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&two_devices),
};

static const struct world_spec post_and_device = {
    .vcpu_count = 1,
    .actor = {{"device", device_0}, {"software", posts_0}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_post_and_device = {
    .name = "post-and-device",
    .text = "software and a device post to a vCPU on the way to sleep",
    .races = "P4 P5 P8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&post_and_device),
};

static const struct world_spec level_and_switch = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", raises_0}, {"administrator", switches_off}},
    .pin = {{.vector = 0x61, .level = true, .services = 2}},
};

const struct ex_scenario scenario_level_and_switch = {
    .name = "level-and-switch",
    .text = "a level's EOI meets the switch off: the I/O APIC sees it once",
    .races = "P11 P13 I7",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&level_and_switch),
};

static const struct world_spec device_and_move = {
    .vcpu_count = 1,
    .actor = {{"device", device_0}, {"scheduler", moves_0}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_device_and_move = {
    .name = "device-and-move",
    .text = "a device posts while its vCPU moves to another processor and sleeps there",
    .races = "P7 P6 A3 A8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&device_and_move),
};

static const struct world_spec self_ipi_under_tpr = {
    .vcpu_count = 1,
    .vcpu = {{.ops = self_ipi_under_tpr_ops}},
    .actor = {{"device", posts_0}},
};

const struct ex_scenario scenario_self_ipi_under_tpr = {
    .name = "self-ipi-under-tpr",
    .text = "a vCPU interrupts itself under a TPR that it then lowers, while a message comes",
    .races = "P17 S16",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&self_ipi_under_tpr),
};
