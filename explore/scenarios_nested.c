/* SPDX-License-Identifier: MIT */
/*
 * A hypervisor under the hypervisor: vCPUs that enter and leave an L2 with an APIC of its own,
 * under those who send to L1 and to L2, change L1's tables, take its memory away, move its vCPUs
 * and switch its acceleration. Dummy tables where nothing else is said. docs/races.md has the list.
 */
#include "scenarios.h"
#include "world.h"

#include "vapic/arch/apic.h"

static const struct world_op stays[] = {G_VMRUN, {0}};
static const struct world_op visits[] = {G_VMRUN, G_LEAVE, {0}};
static const struct world_op awaits_41[] = {G_VMRUN, G_SPIN(0x41, 1), G_LEAVE, {0}};
static const struct world_op sends_to_1[] = {G_VMRUN, G_IPI(1, 0x41), G_LEAVE, G_STOP};
static const struct world_op may_reach_1[] = {G_VMRUN, G_IPI_MAYBE(1, 0x41), G_LEAVE, G_STOP};
static const struct world_op sleeps_between[] = {G_L1_SLEEP, G_VMRUN, {0}};
static const struct world_op stops[] = {G_STOP};

static const struct world_op post_l1[] = {H_POST(0, 0x31), {0}};
static const struct world_op post_l2[] = {H_L2_POST(0, 0x41), {0}};
static const struct world_op toggle[] = {H_INHIBIT(BLOCKIRQ, 1), H_INHIBIT(BLOCKIRQ, 0), {0}};
static const struct world_op lift[] = {H_INHIBIT(BLOCKIRQ, 0), {0}};

#define SCENARIO(id, title, line, which, where, most)                                              \
    const struct ex_scenario scenario_##id = {                                                     \
        .name = title,                                                                             \
        .text = line,                                                                              \
        .races = which,                                                                            \
        .modes = where,                                                                            \
        .bound = most,                                                                             \
        WORLD(&id),                                                                                \
    }

/* ---- L1's interrupts ---- */

static const struct world_spec nested_entry_and_post = {
    .vcpu_count = 1,
    .vcpu = {{.ops = stays, .flags = W_SPINS}},
    .actor = {{"device", post_l1}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_entry_and_post, "nested-entry-and-post",
         "a message for L1 while L1 enters an L2 that never exits", "N1", MODES_ACCEL, EX_COMPLETE);

static const struct world_spec nested_exit_and_post = {
    .vcpu_count = 1,
    .vcpu = {{.ops = visits}},
    .actor = {{"device", post_l1}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_exit_and_post, "nested-exit-and-post",
         "a message for L1 while L2 is left, and L1 halts", "N1 N2", MODES_ACCEL, EX_COMPLETE);

static const struct world_spec nested_and_toggle = {
    .vcpu_count = 1,
    .vcpu = {{.ops = visits}},
    .actor = {{"administrator", toggle}, {"device", post_l1}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_and_toggle, "nested-and-toggle",
         "L1 is inhibited and permitted while L2 is entered and left", "N3", MODES_ACCEL, 1);

static const struct world_spec nested_and_lift = {
    .vcpu_count = 1,
    .vcpu = {{.ops = stays, .flags = W_SPINS}},
    .actor = {{"administrator", lift}, {"device", post_l1}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_and_lift, "nested-and-lift",
         "acceleration of L1 is switched on while L2 runs, and L1's interrupt ends L2", "N3 N4",
         MODES_ACCEL, 2);

static const struct world_op visits_in_service[] = {G_SPIN(0x31, 1), G_VMRUN, G_LEAVE, G_EOI, {0}};
static const struct world_op post_and_lift[] = {
    H_POST(0, 0x31), H_AFTER(0, 0x31, 1), H_INHIBIT(BLOCKIRQ, 0), {0}};

static const struct world_spec nested_in_service = {
    .vcpu_count = 1,
    .vcpu = {{.ops = visits_in_service, .flags = W_BY_HAND}},
    .actor = {{"administrator", post_and_lift}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_in_service, "nested-in-service",
         "L1 enters L2 out of a handler, and its acceleration is switched on meanwhile", "N4",
         MODES_ACCEL, EX_COMPLETE);

/* ---- L2's interrupts ---- */

static const struct world_spec nested_notified_entering = {
    .vcpu_count = 1,
    .vcpu = {{.ops = awaits_41}},
    .actor = {{"L1", post_l2}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_notified_entering, "nested-notified-entering",
         "L1 posts for an L2 that is being entered, and notifies", "N5", MODES_ACCEL, EX_COMPLETE);

static const struct world_spec nested_notified_leaving = {
    .vcpu_count = 1,
    .vcpu = {{.ops = visits}},
    .actor = {{"L1", post_l2}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_notified_leaving, "nested-notified-leaving",
         "L1 posts for an L2 that is being left, and notifies", "N6", MODES_ACCEL, EX_COMPLETE);

static const struct world_spec nested_notified_and_post = {
    .vcpu_count = 1,
    .vcpu = {{.ops = awaits_41}},
    .actor = {{"L1", post_l2}, {"device", post_l1}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_notified_and_post, "nested-notified-and-post",
         "interrupts for L1 and for its L2 at the same time", "N1 N5", MODES_ACCEL, 1);

static const struct world_spec nested_notified_sleeper = {
    .vcpu_count = 1,
    .vcpu = {{.ops = stays}},
    .actor = {{"L1", post_l2}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_notified_sleeper, "nested-notified-sleeper",
         "L1 posts for an L2 that halts: by notification or doorbell", "N7", MODES_ACCEL,
         EX_COMPLETE);

/* ---- IPIs between vCPUs of L2 ---- */

static const struct world_spec nested_dummy_and_running = {
    .vcpu_count = 2,
    .vcpu = {{.ops = sends_to_1}, {.ops = sleeps_between}},
    .nested = WORLD_DUMMY,
    .reflects = true,
};
SCENARIO(nested_dummy_and_running, "nested-dummy-and-running",
         "an IPI of L2's is emulated while L1 clears IsRunning of its target", "N8", MODES_AMD,
         EX_COMPLETE);

static const struct world_spec nested_dummy_to_sleeper = {
    .vcpu_count = 2,
    .vcpu = {{.ops = sends_to_1}, {.ops = stays}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_dummy_to_sleeper, "nested-dummy-to-sleeper",
         "an IPI of L2's is emulated, and its target halts in L2", "N7 N8",
         MODES_AMD | EX_MODE(EX_APICV_IPIV), EX_COMPLETE);

static const struct world_spec nested_shadow_and_running = {
    .vcpu_count = 2,
    .vcpu = {{.ops = sends_to_1}, {.ops = sleeps_between}},
    .nested = WORLD_SHADOW,
    .reflects = true,
};
SCENARIO(nested_shadow_and_running, "nested-shadow-and-running",
         "an IPI goes by a shadow while L1 clears and sets IsRunning of its target", "N9",
         MODES_AMD, EX_COMPLETE);

static const struct world_spec nested_shadow_to_sleeper = {
    .vcpu_count = 2,
    .vcpu = {{.ops = sends_to_1}, {.ops = stays}},
    .nested = WORLD_SHADOW,
};
SCENARIO(nested_shadow_to_sleeper, "nested-shadow-to-sleeper",
         "an IPI goes by a shadow, and its target halts in L2", "N10",
         MODES_AMD | EX_MODE(EX_APICV_IPIV), EX_COMPLETE);

static const struct world_op reschedule_1[] = {H_PREEMPT(1), H_RESUME(1, 4), {0}};
static const struct world_spec nested_shadow_and_preemption = {
    .vcpu_count = 2,
    .vcpu = {{.ops = sends_to_1}, {.ops = stays, .flags = W_SPINS}},
    .actor = {{"scheduler", reschedule_1}},
    .nested = WORLD_SHADOW,
};
SCENARIO(nested_shadow_and_preemption, "nested-shadow-and-preemption",
         "an IPI goes by a shadow while the target is preempted and moved", "N10",
         MODES_AMD | EX_MODE(EX_APICV_IPIV), 1);

static const struct world_spec nested_shadow_and_exit = {
    .vcpu_count = 2,
    .vcpu = {{.ops = sends_to_1}, {.ops = visits}},
    .nested = WORLD_SHADOW,
    .reflects = true,
};
SCENARIO(nested_shadow_and_exit, "nested-shadow-and-exit",
         "an IPI goes by a shadow while its target's L2 is left: the post comes late", "N11",
         MODES_AMD | EX_MODE(EX_APICV_IPIV), EX_COMPLETE);

/* ---- L1's tables and memory ---- */

static const struct world_op frees_1[] = {H_ENTRY(1, 0), H_FREE(WORLD_L1_APIC(1)), {0}};
static const struct world_spec nested_entry_is_freed = {
    .vcpu_count = 2,
    .vcpu = {{.ops = may_reach_1}, {.ops = stops}},
    .actor = {{"L1", frees_1}},
    .nested = WORLD_SHADOW,
    .reflects = true,
};
SCENARIO(nested_entry_is_freed, "nested-entry-is-freed",
         "L1 takes an entry from its table and its page is used for something else", "N12",
         MODES_AMD | EX_MODE(EX_APICV_IPIV), 2);

static const struct world_op takes_away[] = {
    H_FREE(WORLD_L1_APIC(0)), H_GIVE(WORLD_L1_APIC(0)), {0}};
static const struct world_spec nested_entry_and_unmap = {
    .vcpu_count = 1,
    .vcpu = {{.ops = visits}},
    .actor = {{"user space", takes_away}},
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_entry_and_unmap, "nested-entry-and-unmap",
         "user space takes the page of L2's registers away while L2 is entered", "N13", MODES_ACCEL,
         EX_COMPLETE);

static const struct world_op takes_table[] = {H_FREE(WORLD_L1_TABLE), H_GIVE(WORLD_L1_TABLE), {0}};
static const struct world_spec nested_table_is_freed = {
    .vcpu_count = 1,
    .vcpu = {{.ops = visits}},
    .actor = {{"user space", takes_table}},
    .nested = WORLD_SHADOW,
};
SCENARIO(nested_table_is_freed, "nested-table-is-freed",
         "user space takes a table of L1's away while L2 is entered with its shadow", "N13",
         MODES_AMD | EX_MODE(EX_APICV_IPIV), EX_COMPLETE);

/* ---- Creation ---- */

static const struct world_op leaves[] = {G_LEAVE, {0}};
static const struct world_spec nested_restored_and_update = {
    .vcpu_count = 1,
    .vcpu = {{.ops = leaves, .flags = W_ABSENT | W_IN_L2}},
    .actor = {{"administrator", lift}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
    .nested = WORLD_DUMMY,
};
SCENARIO(nested_restored_and_update, "nested-restored-and-update",
         "a vCPU is created and restored straight into L2 while an inhibition ends", "N14",
         MODES_ACCEL, EX_COMPLETE);
