/* SPDX-License-Identifier: MIT */
/*
 * Scenarios of the library's own protocols: posting, sleeping, the map, the I/O APIC, timer, NMI,
 * INIT, TPR, paravirtual companions. They must hold without a back end and with any.
 */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

/* ---- One message ---- */

static const struct world_op post_one[] = {H_POST(0, 0x41), {0}};

static const struct world_spec post_to_sleeper = {
    .vcpu_count = 1,
    .actor = {{"device", post_one}},
};

const struct ex_scenario scenario_post_to_sleeper = {
    .name = "post-to-sleeper",
    .text = "a message comes while the vCPU executes HLT and goes to sleep",
    .races = "S1 A4 P4",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&post_to_sleeper),
};

static const struct world_spec post_to_runner = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", post_one}},
};

const struct ex_scenario scenario_post_to_runner = {
    .name = "post-to-runner",
    .text = "a message comes while the vCPU enters the guest and runs there",
    .races = "S2 S21 A4 P2 P3",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&post_to_runner),
};

/* ---- Two messages ---- */

static const struct world_op post_low[] = {H_POST(0, 0x41), {0}};
static const struct world_op post_high[] = {H_POST(0, 0x61), {0}};

static const struct world_spec two_posts = {
    .vcpu_count = 1,
    .actor = {{"device 0", post_low}, {"device 1", post_high}},
};

const struct ex_scenario scenario_two_posts = {
    .name = "two-posts",
    .text = "two devices post two vectors to a vCPU that goes to sleep",
    .races = "S3 S4 P1",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&two_posts),
};

static const struct world_op post_twice[] = {H_POST(0, 0x41), H_POST(0, 0x61), {0}};

static const struct world_spec post_behind_post = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", post_twice}},
};

const struct ex_scenario scenario_post_behind_post = {
    .name = "post-behind-post",
    .text = "a second vector, of higher priority, is posted while the first is taken over",
    .races = "S3 S4 P1 P2",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&post_behind_post),
};

static const struct world_op post_same[] = {H_POST(0, 0x41), H_POST(0, 0x41), {0}};

static const struct world_spec same_vector_again = {
    .vcpu_count = 1,
    .actor = {{"device", post_same}},
};

const struct ex_scenario scenario_same_vector_again = {
    .name = "same-vector-again",
    .text = "a device posts one vector twice: the second one coalesces or comes again",
    .races = "S5",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&same_vector_again),
};

/* ---- Messages between vCPUs ---- */

static const struct world_op ipi_1[] = {G_IPI(1, 0x41), {0}};
static const struct world_op ipi_0[] = {G_IPI(0, 0x51), {0}};

static const struct world_spec ipis_cross = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.ops = ipi_0}},
};

const struct ex_scenario scenario_ipis_cross = {
    .name = "ipis-cross",
    .text = "two vCPUs send an IPI to each other and go to sleep",
    .races = "S17 S1 A1 P10",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ipis_cross),
};

static const struct world_op ping[] = {G_IPI(1, 0x41), G_AWAIT(0x51, 1), G_STOP};
static const struct world_op pong[] = {G_AWAIT(0x41, 1), G_IPI(0, 0x51), G_STOP};

static const struct world_spec ping_pong = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ping}, {.ops = pong}},
};

const struct ex_scenario scenario_ping_pong = {
    .name = "ping-pong",
    .text = "an IPI and its answer; each sleeps until it has got its own",
    .races = "S17 S1",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ping_pong),
};

static const struct world_op broadcast[] = {G_IPI_OTHERS(6, 0x41), G_STOP};

static const struct world_spec broadcast_to_two = {
    .vcpu_count = 3,
    .vcpu = {{.ops = broadcast}, {.flags = 0}, {.flags = W_SPINS}},
};

const struct ex_scenario scenario_broadcast_to_two = {
    .name = "broadcast-to-two",
    .text = "an IPI to all but self finds one target on the way to sleep and one in the guest",
    .races = "S18 A11 P10",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&broadcast_to_two),
};

static const struct world_op becomes_x2apic[] = {G_X2APIC, {0}};

static const struct world_op msi_0[] = {H_MSI(0, 0x45), {0}};

static const struct world_spec mode_switch = {
    .vcpu_count = 1,
    .vcpu = {{.ops = becomes_x2apic}},
    .actor = {{"device", msi_0}},
};

const struct ex_scenario scenario_mode_switch = {
    .name = "mode-switch",
    .text = "a message by physical ID while its target switches from xAPIC to x2APIC mode",
    .races = "S15 I12",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&mode_switch),
};

/* ---- I/O APIC ---- */

static const struct world_op raise_pin[] = {H_PIN(0, 1), {0}};

static const struct world_spec level_served_twice = {
    .vcpu_count = 1,
    .actor = {{"device", raise_pin}},
    .pin = {{.vector = 0x61, .level = true, .services = 2}},
};

const struct ex_scenario scenario_level_served_twice = {
    .name = "level-served-twice",
    .text = "a level whose device is satisfied by the second run of its handler: it comes twice",
    .races = "S7 S6 A13 P11 P13",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&level_served_twice),
};

static const struct world_op raise_again[] = {H_PIN(0, 1), H_PIN(0, 0), H_PIN(0, 1), {0}};

static const struct world_spec level_raised_again = {
    .vcpu_count = 1,
    .actor = {{"device", raise_again}},
    .pin = {{.vector = 0x61, .level = true, .services = 1}},
};

const struct ex_scenario scenario_level_raised_again = {
    .name = "level-raised-again",
    .text = "the line of a level falls and rises while its handler runs and ends",
    .races = "S7 A13 A14 P11 P13",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&level_raised_again),
};

static const struct world_op raise_edge[] = {H_PIN(0, 1), {0}};
static const struct world_op unmask[] = {H_ROUTE(0, 0, 0x61), {0}};

static const struct world_spec edge_and_unmask = {
    .vcpu_count = 1,
    .actor = {{"device", raise_edge}, {"administrator", unmask}},
    .pin = {{.vector = 0x61, .masked = true}},
};

const struct ex_scenario scenario_edge_and_unmask = {
    .name = "edge-and-unmask",
    .text = "an edge meets the unmasking of its pin: it is sent once or not at all",
    .races = "S9",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&edge_and_unmask),
};

/* ---- NMI, INIT, ExtINT, timer ---- */

static const struct world_op nmi[] = {H_NMI(0), {0}};

static const struct world_spec nmi_and_post = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"NMI button", nmi}, {"device", post_one}},
};

const struct ex_scenario scenario_nmi_and_post = {
    .name = "nmi-and-post",
    .text = "an NMI and a vector meet in front of an entry: both are taken once",
    .races = "S10 S2",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&nmi_and_post),
};

static const struct world_spec nmi_to_sleeper = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_CLOSED}},
    .actor = {{"NMI button", nmi}},
};

const struct ex_scenario scenario_nmi_to_sleeper = {
    .name = "nmi-to-sleeper",
    .text = "an NMI wakes a vCPU that sleeps with interrupts off",
    .races = "S10 S1 P18",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&nmi_to_sleeper),
};

static const struct world_op init_1[] = {G_SEND(APIC_DM_INIT, 1), G_STOP};
static const struct world_op post_1_maybe[] = {H_POST_MAYBE(1, 0x41), {0}};

static const struct world_spec init_and_post = {
    .vcpu_count = 2,
    .vcpu = {{.ops = init_1}, {.ops = NULL}},
    .actor = {{"device", post_1_maybe}},
};

const struct ex_scenario scenario_init_and_post = {
    .name = "init-and-post",
    .text = "INIT meets a vector: the vector is taken before, or not at all",
    .races = "S11",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&init_and_post),
};

static const struct world_op extint[] = {H_LINT0(0, 0x20), {0}};
static const struct world_op opens_late[] = {G_STI, {0}};

static const struct world_spec extint_and_window = {
    .vcpu_count = 1,
    .vcpu = {{.ops = opens_late, .flags = W_CLOSED}},
    .actor = {{"8259", extint}},
};

const struct ex_scenario scenario_extint_and_window = {
    .name = "extint-and-window",
    .text = "the 8259 interrupts while the guest opens its interrupts: the window opens",
    .races = "S20 A20 I14",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&extint_and_window),
};

static const struct world_op arm_timer[] = {G_TIMER(0, 0x81, 100), {0}};
static const struct world_op pass_time[] = {H_TIME(0, 1000000), {0}};

static const struct world_spec timer_and_sleep = {
    .vcpu_count = 1,
    .vcpu = {{.ops = arm_timer, .timer = 0x81}},
    .actor = {{"clock", pass_time}},
};

const struct ex_scenario scenario_timer_and_sleep = {
    .name = "timer-and-sleep",
    .text = "the timer expires while its vCPU goes to sleep",
    .races = "S12",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&timer_and_sleep),
};

/* ---- Priority ---- */

static const struct world_op raise_tpr[] = {G_CR8(5), G_CR8(0), {0}};

static const struct world_spec tpr_and_post = {
    .vcpu_count = 1,
    .vcpu = {{.ops = raise_tpr}},
    .actor = {{"device", post_one}},
};

const struct ex_scenario scenario_tpr_and_post = {
    .name = "tpr-and-post",
    .text = "the guest raises CR8 above a vector that is posted, and lowers it again",
    .races = "S16 A21 P17",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&tpr_and_post),
};

/* ---- vCPUs that come and go ---- */

static const struct world_op add_1[] = {H_ADD(1), {0}};
static const struct world_op broadcast_maybe[] = {
    {.kind = WORLD_ICR, .to = 2, .maybe = true, .a = 0x41 | APIC_ICR_ALL_EXCL}, G_STOP};

static const struct world_spec hotplug_and_broadcast = {
    .vcpu_count = 2,
    .vcpu = {{.ops = broadcast_maybe}, {.flags = W_ABSENT}},
    .actor = {{"creator", add_1}},
};

const struct ex_scenario scenario_hotplug_and_broadcast = {
    .name = "hotplug-and-broadcast",
    .text = "a vCPU is added under a broadcast: it gets it or does not, and takes what it got",
    .races = "S13 A17",
    .modes = MODES_ALL,
    .bound = 1,
    WORLD(&hotplug_and_broadcast),
};

static const struct world_op stop[] = {G_STOP};
static const struct world_op remove_1[] = {H_REMOVE(1), {0}};
static const struct world_op msi_1_maybe[] = {
    {.kind = WORLD_MSI, .v = 1, .to = 2, .maybe = true, .a = 0x45}, {0}};

static const struct world_spec remove_and_msi = {
    .vcpu_count = 2,
    .vcpu = {{.ops = stop}, {.ops = stop}},
    .actor = {{"administrator", remove_1}, {"device", msi_1_maybe}},
};

const struct ex_scenario scenario_remove_and_msi = {
    .name = "remove-and-msi",
    .text = "a vCPU is removed while a message for it is under way",
    .races = "S14",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&remove_and_msi),
};

/* ---- Paravirtual companions ---- */

static const struct world_spec pv_eoi_and_post = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_PV}},
    .actor = {{"device", post_twice}},
};

const struct ex_scenario scenario_pv_eoi_and_post = {
    .name = "pv-eoi-and-post",
    .text = "a guest that ends by its paravirtual word gets a second vector meanwhile",
    .races = "S19",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = EX_COMPLETE,
    WORLD(&pv_eoi_and_post),
};

static const struct world_op pv_ipi[] = {G_PV_IPI(2, 0x41), G_STOP};

static const struct world_spec pv_ipi_to_sleeper = {
    .vcpu_count = 2,
    .vcpu = {{.ops = pv_ipi, .flags = W_PV}, {.ops = NULL}},
};

const struct ex_scenario scenario_pv_ipi_to_sleeper = {
    .name = "pv-ipi-to-sleeper",
    .text = "an IPI by hypercall finds its target on the way to sleep",
    .races = "S1 A4 P4",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&pv_ipi_to_sleeper),
};
