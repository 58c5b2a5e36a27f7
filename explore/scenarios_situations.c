/* SPDX-License-Identifier: MIT */
/*
 * Five situations in which hypervisors have lost interrupts, let a guest where it must not be, or
 * run without acceleration for good, as scenarios: what happens beside them happens at every moment
 * at which it can.
 */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

#define HIGH_ID 0x101u

/* ---- 1. A vCPU in x2APIC mode on silicon that virtualizes xAPIC only ---- */

static const struct world_op switches_and_probes[] = {G_X2APIC, G_PROBE(0x70), G_STOP};
static const struct world_op uses_page[] = {G_WRITE(APIC_TPR, 0x20), G_READ(APIC_TPR, 0xFF, 0x20),
                                            G_STOP};

static const struct world_spec page_in_x2apic_mode = {
    .vcpu_count = 2,
    .vcpu = {{.ops = switches_and_probes}, {.ops = uses_page}},
    .flags = WORLD_NO_LDR,
};

const struct ex_scenario scenario_page_in_x2apic_mode = {
    .name = "page-in-x2apic-mode",
    .text = "a vCPU enters x2APIC mode and reaches for the page that a peer uses",
    .races = "A16 I12 I21",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&page_in_x2apic_mode),
};

/* ---- 2. An update of the controls while a nested guest is current ---- */

static const struct world_op runs_l2[] = {G_L2, {0}};
static const struct world_op lifts[] = {H_INHIBIT(BLOCKIRQ, 0), H_POST(0, 0x41), {0}};

static const struct world_spec update_under_l2 = {
    .vcpu_count = 1,
    .vcpu = {{.ops = runs_l2}},
    .actor = {{"administrator", lifts}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
};

const struct ex_scenario scenario_update_under_l2 = {
    .name = "update-under-l2",
    .text = "acceleration is switched on while L2 runs, and a message for L1 ends L2",
    .races = "I15 I16 P16 A15",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&update_under_l2),
};

/* ---- 3. The EOI of a level in x2APIC mode, where the register cannot be read ---- */

static const struct world_op raises[] = {H_PIN(0, 1), {0}};

static const struct world_spec eoi_trap = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_X2APIC}},
    .actor = {{"device", raises}},
    .pin = {{.vector = 0x61, .level = true, .services = 2}},
};

const struct ex_scenario scenario_eoi_trap = {
    .name = "eoi-trap",
    .text = "a level ends by a trapped EOI in x2APIC mode, and its device wants more",
    .races = "A13 S7 P13",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&eoi_trap),
};

/* ---- 4. An IPI for a vCPU that runs a nested guest ---- */

static const struct world_op ipi_1[] = {G_IPI(1, 0x41), G_STOP};

static const struct world_spec ipi_to_l2 = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.ops = runs_l2}},
};

const struct ex_scenario scenario_ipi_to_l2 = {
    .name = "ipi-to-l2",
    .text = "an IPI for a vCPU whose nested guest runs for as long as it may",
    .races = "A15 I16",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&ipi_to_l2),
};

/* ---- 5. APIC_ID_MODIFIED for IDs that were never modified, or are no more ---- */

static void not_inhibited(struct world *w)
{
    uint32_t reasons = vapic_inhibits(world_vm(w)).bits;

    if (reasons != 0)
        ex_fail("scenario", "the VM ends inhibited: %#x", reasons);
}

static const struct world_op post_0[] = {H_POST(0, 0x41), {0}};

static const struct world_spec wide_id = {
    .vcpu_count = 2,
    .vcpu = {{.flags = W_SPINS}, {.ops = NULL, .id = HIGH_ID}},
    .actor = {{"device", post_0}},
    .flags = WORLD_UNIQUE_ID,
    .check = not_inhibited,
};

const struct ex_scenario scenario_wide_id = {
    .name = "wide-id",
    .text = "a vCPU whose ID exceeds FFh idles in xAPIC mode: its ID counts as its own",
    .races = "I13",
    .modes = EX_MODE(EX_X2AVIC) | MODES_INTEL,
    .bound = 2,
    WORLD(&wide_id),
};

static const struct world_op modifies_and_resets[] = {
    G_WRITE(APIC_ID, 0x99u << 24), G_RESET, G_WRITE(APIC_SVR, 0x1FF), {0}};
static const struct world_op post_1[] = {H_POST(1, 0x41), {0}};

static const struct world_spec id_restored = {
    .vcpu_count = 2,
    .vcpu = {{.ops = modifies_and_resets}, {.flags = W_SPINS}},
    .actor = {{"device", post_1}},
    .flags = WORLD_UNIQUE_ID,
    .check = not_inhibited,
};

const struct ex_scenario scenario_id_restored = {
    .name = "id-restored",
    .text = "a guest modifies an APIC ID and reboots; a peer gets a message meanwhile",
    .races = "I13 I2 I7 I8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&id_restored),
};
