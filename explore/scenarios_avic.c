/* SPDX-License-Identifier: MIT */
/*
 * Scenarios of AVIC: IPIs by hardware, the tables that it reads, IOMMUs that post, the GA log.
 * Those that mean something without AVIC run there too.
 */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

/* ---- An IPI and where its target is ---- */

static const struct world_op ipi_1[] = {G_IPI(1, 0x41), G_STOP};

static const struct world_spec ipi_to_sleeper = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.ops = NULL}},
};

const struct ex_scenario scenario_ipi_to_sleeper = {
    .name = "ipi-to-sleeper",
    .text = "an IPI finds its target on the way to sleep",
    .races = "A1 A9 S1 P10",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ipi_to_sleeper),
};

static const struct world_spec ipi_to_sleeper_x2apic = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1, .flags = W_X2APIC}, {.flags = W_X2APIC}},
};

const struct ex_scenario scenario_ipi_to_sleeper_x2apic = {
    .name = "ipi-to-sleeper-x2apic",
    .text = "the same with both in x2APIC mode; with xAVIC only the sender always exits",
    .races = "A1 A9 P10",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ipi_to_sleeper_x2apic),
};

static const struct world_spec ipi_to_runner = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_SPINS}},
};

const struct ex_scenario scenario_ipi_to_runner = {
    .name = "ipi-to-runner",
    .text = "an IPI finds its target entering the guest, where it stays",
    .races = "A4 S2",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ipi_to_runner),
};

static const struct world_op moves_1[] = {H_MOVE(1, 4), {0}};

static const struct world_spec ipi_and_move = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_SPINS}},
    .actor = {{"scheduler", moves_1}},
};

const struct ex_scenario scenario_ipi_and_move = {
    .name = "ipi-and-move",
    .text = "an IPI while its target moves to another processor",
    .races = "A3 A9 P8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&ipi_and_move),
};

static const struct world_op preempts_1[] = {H_PREEMPT(1), H_RESUME(1, 1), {0}};

static const struct world_spec ipi_and_preemption = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_SPINS}},
    .actor = {{"scheduler", preempts_1}},
};

const struct ex_scenario scenario_ipi_and_preemption = {
    .name = "ipi-and-preemption",
    .text = "an IPI while its target is preempted, and resumed later",
    .races = "A2 A9 P6 P10",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&ipi_and_preemption),
};

static const struct world_spec ipi_to_sleeper_off_cpu = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_OFF_CPU}},
};

static const struct world_op serves_1[] = {H_SERVE(1), {0}};

static const struct world_spec sleeper_off_cpu = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_OFF_CPU}},
    .actor = {{"processor 1", serves_1}},
};

const struct ex_scenario scenario_ipi_to_sleeper_off_cpu = {
    .name = "ipi-to-sleeper-off-cpu",
    .text = "an IPI to a vCPU that loses its processor as it sleeps, and wakes on another one",
    .races = "A18 A1",
    .modes = MODES_AMD,
    .bound = EX_COMPLETE,
    WORLD(&ipi_to_sleeper_off_cpu),
};

const struct ex_scenario scenario_sleeper_off_cpu = {
    .name = "sleeper-off-cpu",
    .text = "the same where the processor that it leaves has to take the wake-up vector",
    .races = "A18 P5 P7",
    .modes = MODES_INTEL,
    .bound = 2,
    WORLD(&sleeper_off_cpu),
};

/* ---- Several targets ---- */

static const struct world_op ipi_12[] = {G_IPI_LOGICAL(6, 0x41), G_STOP};

static const struct world_spec logical_to_two = {
    .vcpu_count = 3,
    .vcpu = {{.ops = ipi_12}, {.flags = W_SPINS}, {.flags = 0}},
};

const struct ex_scenario scenario_logical_to_two = {
    .name = "logical-to-two",
    .text = "a logical IPI finds one target in the guest and one on the way to sleep",
    .races = "A11 A9 S18",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&logical_to_two),
};

/* LDR of vCPU 1 goes from bit 1 to bit 3: only the new name reaches it, but perhaps not yet. */
static const struct world_op ipi_bit_1[] = {
    {.kind = WORLD_ICR, .to = 2, .maybe = true, .a = 0x41 | APIC_ICR_LOGICAL, .b = 2}, G_STOP};
static const struct world_op new_ldr[] = {G_WRITE(APIC_LDR, 8u << 24), {0}};

static const struct world_spec logical_and_ldr = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_bit_1}, {.ops = new_ldr}},
};

const struct ex_scenario scenario_logical_and_ldr = {
    .name = "logical-and-ldr",
    .text = "a logical IPI while its target changes its LDR",
    .races = "A9 A10 S15",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&logical_and_ldr),
};

/* LDR of vCPU 1 becomes 0: one change of the table, and no second one that would betray it. */
static const struct world_op no_ldr[] = {G_WRITE(APIC_LDR, 0), {0}};

static const struct world_spec logical_and_no_ldr = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_bit_1}, {.ops = no_ldr}},
};

const struct ex_scenario scenario_logical_and_no_ldr = {
    .name = "logical-and-no-ldr",
    .text = "a logical IPI while its target gives up its logical ID and goes to sleep",
    .races = "A10 S15",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&logical_and_no_ldr),
};

/* vCPU 1 goes from bit 1 to bit 3 and tells vCPU 0 by an IPI: the old name is nobody's then, and
 * the new one reaches it. */
static const struct world_op tells_ldr[] = {G_WRITE(APIC_LDR, 8u << 24), G_IPI(0, 0x51), {0}};
static const struct world_op ipi_both_bits[] = {
    G_AWAIT(0x51, 1),
    G_SEND(0x45 | APIC_ICR_LOGICAL, 2),
    {.kind = WORLD_ICR, .to = 2, .a = 0x41 | APIC_ICR_LOGICAL, .b = 8},
    G_STOP};

static const struct world_spec ldr_then_logical = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_both_bits}, {.ops = tells_ldr}},
};

const struct ex_scenario scenario_ldr_then_logical = {
    .name = "ldr-then-logical",
    .text = "a vCPU changes its LDR and says so; logical IPIs to the old one and to the new one",
    .races = "A10",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ldr_then_logical),
};

/* ---- IOMMU ---- */

static const struct world_op device_0[] = {H_DEVICE(0), {0}};

static const struct world_spec iommu_to_sleeper = {
    .vcpu_count = 1,
    .actor = {{"device", device_0}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_iommu_to_sleeper = {
    .name = "iommu-to-sleeper",
    .text = "a device's message is posted while its vCPU goes to sleep",
    .races = "A5 P5",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&iommu_to_sleeper),
};

static const struct world_spec iommu_without_log = {
    .vcpu_count = 1,
    .actor = {{"device", device_0}},
    .irte = {{.vector = 0x71}},
    .flags = WORLD_NO_GA_LOG,
};

const struct ex_scenario scenario_iommu_without_log = {
    .name = "iommu-without-log",
    .text = "the same without a GA log: the entry of a sleeper interrupts the host",
    .races = "A5 A7",
    .modes = MODES_AMD,
    .bound = EX_COMPLETE,
    WORLD(&iommu_without_log),
};

static const struct world_spec iommu_to_runner = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", device_0}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_iommu_to_runner = {
    .name = "iommu-to-runner",
    .text = "a device's message is posted while its vCPU enters the guest",
    .races = "A6 A4 P2 P3",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&iommu_to_runner),
};

static const struct world_op preempts_0[] = {H_PREEMPT(0), H_RESUME(0, 4), {0}};

static const struct world_spec iommu_and_preemption = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", device_0}, {"scheduler", preempts_0}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_iommu_and_preemption = {
    .name = "iommu-and-preemption",
    .text = "a device's message is posted while its vCPU loses one processor and gets another",
    .races = "A6 A3 P6 P8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&iommu_and_preemption),
};

static const struct world_op attach_and_send[] = {H_ATTACH(0), H_DEVICE(0), {0}};

static const struct world_spec attach_to_sleeper = {
    .vcpu_count = 1,
    .actor = {{"administrator", attach_and_send}},
    .irte = {{.vector = 0x71, .later = true}},
};

const struct ex_scenario scenario_attach_to_sleeper = {
    .name = "attach-to-sleeper",
    .text = "the VM's first device is attached, and interrupts, while its vCPU goes to sleep",
    .races = "A8 P9",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&attach_to_sleeper),
};

static const struct world_op moves_0[] = {H_MOVE(0, 4), {0}};

static const struct world_spec attach_and_move = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"administrator", attach_and_send}, {"scheduler", moves_0}},
    .irte = {{.vector = 0x71, .later = true}},
};

const struct ex_scenario scenario_attach_and_move = {
    .name = "attach-and-move",
    .text = "a device is attached while its vCPU moves to another processor",
    .races = "A8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&attach_and_move),
};

static const struct world_op inhibits[] = {H_INHIBIT(BLOCKIRQ, 1), H_INHIBIT(BLOCKIRQ, 0), {0}};

static const struct world_spec iommu_and_inhibition = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", device_0}, {"administrator", inhibits}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_iommu_and_inhibition = {
    .name = "iommu-and-inhibition",
    .text = "a device's message while acceleration is switched off and on again",
    .races = "A7 I7 I8 I11",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&iommu_and_inhibition),
};

static const struct world_op both_devices[] = {H_DEVICE(0), H_DEVICE(1), {0}};
static const struct world_op ga_handler[] = {H_GA_LOG, {0}};

static const struct world_spec log_overflows = {
    .vcpu_count = 2,
    .actor = {{"devices", both_devices}, {"GA handler", ga_handler}},
    .irte = {{.vector = 0x71}, {.vector = 0x75, .vcpu = 1}},
    .flags = WORLD_LOG_APART | WORLD_LOG_OF_ONE,
};

const struct ex_scenario scenario_log_overflows = {
    .name = "log-overflows",
    .text = "two devices wake two sleepers by a GA log that has room for one entry",
    .races = "A19 A5",
    .modes = MODES_AMD,
    .bound = 1,
    WORLD(&log_overflows),
};

static const struct world_op stops[] = {G_STOP};
static const struct world_op ends_vm[] = {H_REMOVE(0), H_END_VM, {0}};
static const struct world_op late_entry[] = {H_GA_LATE(0), {0}};

static const struct world_spec log_outlives_vm = {
    .vcpu_count = 1,
    .vcpu = {{.ops = stops}},
    .actor = {{"administrator", ends_vm}, {"GA handler", late_entry}},
};

const struct ex_scenario scenario_log_outlives_vm = {
    .name = "log-outlives-vm",
    .text = "an entry of the GA log is handled while the VM that it names comes to its end",
    .races = "I20 S14",
    .modes = MODES_AMD,
    .bound = EX_COMPLETE,
    WORLD(&log_outlives_vm),
};

static const struct world_op touches_page[] = {
    G_WRITE(APIC_TPR, 0x20), G_WRITE(APIC_TPR, 0x10), {0}};
static const struct world_op inhibits_once[] = {H_INHIBIT(BLOCKIRQ, 1), {0}};

static const struct world_spec page_fault_and_withdrawal = {
    .vcpu_count = 1,
    .vcpu = {{.ops = touches_page}},
    .actor = {{"administrator", inhibits_once}},
    .flags = WORLD_MAPS_AT_FAULT,
};

const struct ex_scenario scenario_page_fault_and_withdrawal = {
    .name = "page-fault-and-withdrawal",
    .text = "a guest faults on the access page, which is mapped, while it is withdrawn",
    .races = "I19 I2 I18",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&page_fault_and_withdrawal),
};

/* ---- Level-triggered ---- */

static const struct world_op posts_level[] = {H_PIN(0, 1), {0}};
static const struct world_op posts_edge[] = {H_POST(0, 0x45), {0}};

static const struct world_spec level_to_runner = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"level", posts_level}, {"edge", posts_edge}},
    .pin = {{.vector = 0x61, .level = true, .services = 1}},
};

const struct ex_scenario scenario_level_to_runner = {
    .name = "level-to-runner",
    .text = "a level and an edge come while the guest runs; only the level's EOI is broadcast",
    .races = "A14 S6 P11",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&level_to_runner),
};

/* ---- ExtINT ---- */

static const struct world_op extint_0[] = {H_LINT0(0, 0x20), {0}};
static const struct world_op extint_1[] = {H_LINT0(1, 0x21), {0}};
static const struct world_op opens[] = {G_STI, {0}};

static const struct world_spec two_windows = {
    .vcpu_count = 2,
    .vcpu = {{.ops = opens, .flags = W_CLOSED}, {.ops = opens, .flags = W_CLOSED}},
    .actor = {{"8259", extint_0}, {"another", extint_1}},
};

const struct ex_scenario scenario_two_windows = {
    .name = "two-windows",
    .text = "two vCPUs want a window each: the VM is not accelerated until both are closed",
    .races = "A20 I14 I6",
    .modes = MODES_AMD,
    .bound = 1,
    WORLD(&two_windows),
};

/* ---- Erratum 1235 ---- */

static const struct world_spec stale_running = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.ops = NULL}},
    .quirk_1235 = true,
};

const struct ex_scenario scenario_stale_running = {
    .name = "stale-running",
    .text = "the sender's processor acts on an IsRunning that it read before",
    .races = "A12",
    .modes = EX_MODE(EX_AVIC_NOIPIV),
    .bound = EX_COMPLETE,
    WORLD(&stale_running),
};
