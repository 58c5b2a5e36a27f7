/* SPDX-License-Identifier: MIT */
/*
 * Scenarios of inhibition: an administrator switches acceleration off and on, or the guest's own
 * doing does, beside vCPUs that run, sleep, move, change mode or are being created.
 */
#include "scenarios.h"
#include "world_parts.h"

#include "vapic/arch/apic.h"

static const struct world_op switches_off[] = {H_INHIBIT(BLOCKIRQ, 1), {0}};
static const struct world_op switches_on[] = {H_INHIBIT(BLOCKIRQ, 0), {0}};
static const struct world_op switches_off_and_on[] = {
    H_INHIBIT(BLOCKIRQ, 1), H_INHIBIT(BLOCKIRQ, 0), {0}};
static const struct world_op sets_and_clears_hyperv[] = {
    H_INHIBIT(HYPERV, 1), H_INHIBIT(HYPERV, 0), {0}};
static const struct world_op off_on_and_posts[] = {
    H_INHIBIT(BLOCKIRQ, 1), H_INHIBIT(BLOCKIRQ, 0), H_POST(0, 0x41), {0}};
static const struct world_op adds_1[] = {H_ADD(1), {0}};
static const struct world_op adds_1_and_posts[] = {H_ADD(1), H_POST(1, 0x41), {0}};
static const struct world_op posts_0[] = {H_POST(0, 0x41), {0}};
static const struct world_op device_0[] = {H_DEVICE(0), {0}};
static const struct world_op extint_0[] = {H_LINT0(0, 0x20), {0}};
static const struct world_op preempts_0[] = {H_PREEMPT(0), H_RESUME(0, 4), {0}};

static const struct world_op stops[] = {G_STOP};
static const struct world_op runs_l2[] = {G_L2, {0}};
static const struct world_op ipi_1[] = {G_IPI(1, 0x41), G_STOP};
static const struct world_op opens[] = {G_STI, {0}};
static const struct world_op enters_x2apic[] = {
    G_X2APIC, G_WRITE(APIC_TPR, 0x20), G_READ(APIC_TPR, 0xFF, 0x20), {0}};
/* vCPU 0 has bit 0, vCPU 1 bit 1 of the flat model. */
static const struct world_op borrows_ldr[] = {G_WRITE(APIC_LDR, 2u << 24),
                                              G_WRITE(APIC_LDR, 1u << 24), G_STOP};
static const struct world_op gives_ldr_up[] = {G_WRITE(APIC_LDR, 4u << 24), G_STOP};
static const struct world_op changes_ldr[] = {G_WRITE(APIC_LDR, 2u << 24), G_STOP};
static const struct world_op waits_and_reads[] = {G_AWAIT(0x41, 1), G_READ(APIC_TPR, 0xFF, 0), {0}};

static void not_inhibited(struct world *w)
{
    uint32_t reasons = vapic_inhibits(world_vm(w)).bits;

    if (reasons != 0)
        ex_fail("scenario", "the VM ends inhibited: %#x", reasons);
}

static void page_is_mapped(struct world *w)
{
    not_inhibited(w);
    if (w->page_mapped == 0)
        ex_fail("scenario", "nothing inhibits, and the access page is not mapped");
}

static const struct world_spec inhibit_and_add = {
    .vcpu_count = 2,
    .vcpu = {{.ops = stops}, {.flags = W_ABSENT | W_SPINS}},
    .actor = {{"creator", adds_1}, {"administrator", switches_off}},
};

const struct ex_scenario scenario_inhibit_and_add = {
    .name = "inhibit-and-add",
    .text = "acceleration is switched off while a vCPU is created and starts to run",
    .races = "I1 S13",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&inhibit_and_add),
};

static const struct world_spec inhibit_and_restored_l2 = {
    .vcpu_count = 2,
    .vcpu = {{.ops = stops}, {.ops = runs_l2, .flags = W_ABSENT}},
    .actor = {{"creator", adds_1_and_posts}, {"administrator", switches_off}},
};

const struct ex_scenario scenario_inhibit_and_restored_l2 = {
    .name = "inhibit-and-restored-l2",
    .text = "acceleration is switched off while a vCPU is created that starts in L2",
    .races = "I17 I1 I16",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&inhibit_and_restored_l2),
};

static const struct world_spec inhibit_a_runner = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", posts_0}, {"administrator", switches_off}},
};

const struct ex_scenario scenario_inhibit_a_runner = {
    .name = "inhibit-a-runner",
    .text = "acceleration is switched off while the guest runs and a message comes",
    .races = "I2 I7 I9 P15",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&inhibit_a_runner),
};

static const struct world_spec inhibit_a_sleeper = {
    .vcpu_count = 1,
    .actor = {{"device", posts_0}, {"administrator", switches_off}},
};

const struct ex_scenario scenario_inhibit_a_sleeper = {
    .name = "inhibit-a-sleeper",
    .text = "acceleration is switched off while the guest goes to sleep and a message comes",
    .races = "I3 I7",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&inhibit_a_sleeper),
};

static const struct world_spec inhibit_the_preempted = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"scheduler", preempts_0}, {"administrator", switches_off_and_on}},
};

const struct ex_scenario scenario_inhibit_the_preempted = {
    .name = "inhibit-the-preempted",
    .text = "acceleration is switched off and on around a vCPU that loses its processor",
    .races = "I4 I5",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&inhibit_the_preempted),
};

static const struct world_spec inhibit_and_ipi = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_SPINS}},
    .actor = {{"administrator", switches_off}},
};

const struct ex_scenario scenario_inhibit_and_ipi = {
    .name = "inhibit-and-ipi",
    .text = "acceleration is switched off while a peer sends an IPI, by hardware or not",
    .races = "I10 I9 I7",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&inhibit_and_ipi),
};

static const struct world_spec permit_and_ipi = {
    .vcpu_count = 2,
    .vcpu = {{.ops = ipi_1}, {.flags = W_SPINS}},
    .actor = {{"administrator", switches_on}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
};

const struct ex_scenario scenario_permit_and_ipi = {
    .name = "permit-and-ipi",
    .text = "acceleration is switched on while a peer sends an IPI",
    .races = "I8",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&permit_and_ipi),
};

static const struct world_spec two_administrators = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"one", switches_off_and_on}, {"another", sets_and_clears_hyperv}},
    .check = not_inhibited,
};

const struct ex_scenario scenario_two_administrators = {
    .name = "two-administrators",
    .text = "two reasons come and go at once",
    .races = "I6 I2",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&two_administrators),
};

static const struct world_spec mode_and_inhibit = {
    .vcpu_count = 1,
    .vcpu = {{.ops = enters_x2apic}},
    .actor = {{"administrator", switches_off_and_on}},
};

const struct ex_scenario scenario_mode_and_inhibit = {
    .name = "mode-and-inhibit",
    .text = "a vCPU enters x2APIC mode while acceleration is switched off and on",
    .races = "I12",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&mode_and_inhibit),
};

static const struct world_spec two_ldr_changes = {
    .vcpu_count = 2,
    .vcpu = {{.ops = borrows_ldr}, {.ops = gives_ldr_up}},
    .check = not_inhibited,
};

const struct ex_scenario scenario_two_ldr_changes = {
    .name = "two-ldr-changes",
    .text = "two vCPUs share a logical ID and give it up at once: nothing stays inhibited",
    .races = "I13",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&two_ldr_changes),
};

static const struct world_spec window_and_reason = {
    .vcpu_count = 1,
    .vcpu = {{.ops = opens, .flags = W_CLOSED}},
    .actor = {{"8259", extint_0}, {"administrator", switches_off_and_on}},
    .check = not_inhibited,
};

const struct ex_scenario scenario_window_and_reason = {
    .name = "window-and-reason",
    .text = "an ExtINT waits for its window while another reason comes and goes",
    .races = "I14 A20",
    .modes = MODES_AMD,
    .bound = 2,
    WORLD(&window_and_reason),
};

static const struct world_spec page_comes_back = {
    .vcpu_count = 1,
    .vcpu = {{.ops = waits_and_reads}},
    .actor = {{"administrator", off_on_and_posts}},
    .check = page_is_mapped,
};

const struct ex_scenario scenario_page_comes_back = {
    .name = "page-comes-back",
    .text = "after the last reason has gone the access page is there again",
    .races = "I18",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&page_comes_back),
};

static const struct world_spec waiter_and_lock = {
    .vcpu_count = 1,
    .vcpu = {{.ops = changes_ldr}},
    .actor = {{"administrator", switches_off_and_on}},
};

const struct ex_scenario scenario_waiter_and_lock = {
    .name = "waiter-and-lock",
    .text = "a vCPU wants the lock whose holder waits for it to leave the guest",
    .races = "I21 I2",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&waiter_and_lock),
};

static const struct world_spec device_while_inhibited = {
    .vcpu_count = 1,
    .actor = {{"device", device_0}},
    .irte = {{.vector = 0x71}},
    .inhibited = 1u << VAPIC_INHIBIT_BLOCKIRQ,
};

const struct ex_scenario scenario_device_while_inhibited = {
    .name = "device-while-inhibited",
    .text = "a device that posts knows nothing of an inhibition",
    .races = "I11",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&device_while_inhibited),
};
