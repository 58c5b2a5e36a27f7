/* SPDX-License-Identifier: MIT */
/*
 * Scenarios for bugs of src/mutant.h that the others do not find: each is the smallest world in
 * which one of them shows. They hold as all scenarios do.
 */
#include "scenarios.h"
#include "world.h"
#include "world_parts.h"

#include "vapic/arch/apic.h"

#include <string.h>

#define REASON(name)  (1u << VAPIC_INHIBIT_##name)
#define AMD_WITH_IPIV (EX_MODE(EX_AVIC) | EX_MODE(EX_X2AVIC))
#define LDR(bits)     ((uint64_t)(bits) << 24)
#define SEND(vector, to_set, dest)                                                                 \
    {                                                                                              \
        .kind = WORLD_ICR, .to = (to_set), .a = (vector), .b = (dest)                              \
    }
#define SEND_MAYBE(vector, to_set, dest)                                                           \
    {                                                                                              \
        .kind = WORLD_ICR, .to = (to_set), .maybe = true, .a = (vector), .b = (dest)               \
    }

static void no_reason_is_left(struct world *w)
{
    if (vapic_inhibits(world_vm(w)).bits != 0)
        EX_BROKEN(SCENARIO, "reasons %#x are left", vapic_inhibits(world_vm(w)).bits);
}

/* ---- A level while something else makes the owner look ---- */

static const struct world_op raise_pin[] = {H_PIN(0, 1), {0}};
static const struct world_op poke[] = {H_POKE(0), {0}};

static const struct world_spec level_and_poke = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", raise_pin}, {"thread", poke}},
    .pin = {{.vector = 0x61, .level = true, .services = 1}},
};

const struct ex_scenario scenario_level_and_poke = {
    .name = "level-and-poke",
    .text = "a level is posted while its vCPU is made to look for another reason",
    .races = "S6 S3",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&level_and_poke),
};

/* ---- NMI and the 8259, latched in one word ---- */

static const struct world_op nmi[] = {H_NMI(0), {0}};
static const struct world_op extint[] = {H_LINT0(0, 0x20), {0}};

static void both_are_taken(struct world *w)
{
    if (world_nmis(w, 0) != 1 || w->v[0].ref.extints != 1)
        EX_BROKEN(LOST, "vCPU 0 took %u NMIs and %u ExtINTs, should be one of each",
                  world_nmis(w, 0), w->v[0].ref.extints);
}

static const struct world_spec nmi_and_extint = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"NMI button", nmi}, {"8259", extint}},
    .check = both_are_taken,
};

const struct ex_scenario scenario_nmi_and_extint = {
    .name = "nmi-and-extint",
    .text = "an NMI and the 8259 interrupt at once: both are taken",
    .races = "S10 S20",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = 2,
    WORLD(&nmi_and_extint),
};

/* ---- Two lives ---- */

#define INIT APIC_DM_INIT
#define SIPI (APIC_DM_SIPI | 0x10u)

static const struct world_op start_twice[] = {G_SEND(INIT, 1), G_SEND(SIPI, 1), G_SEND(INIT, 1),
                                              G_SEND(SIPI, 1), G_STOP};

static void it_runs(struct world *w)
{
    enum vapic_activity activity = vapic_activity(world_vcpu(w, 1));

    if (activity == VAPIC_WAIT_FOR_SIPI)
        EX_BROKEN(LOST, "vCPU 1 waits for a SIPI that was sent");
}

static const struct world_spec two_lives = {
    .vcpu_count = 2,
    .vcpu = {{.ops = start_twice}, {.ops = NULL}},
    .check = it_runs,
};

const struct ex_scenario scenario_two_lives = {
    .name = "two-lives",
    .text = "INIT, SIPI, INIT, SIPI: the vCPU runs in the end",
    .races = "S11",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = EX_COMPLETE,
    WORLD(&two_lives),
};

static const struct world_op start_and_stop[] = {G_SEND(INIT, 1), G_SEND(SIPI, 1), G_SEND(INIT, 1),
                                                 G_STOP};

static void it_waits(struct world *w)
{
    if (vapic_activity(world_vcpu(w, 1)) != VAPIC_WAIT_FOR_SIPI)
        EX_BROKEN(INVENTED, "vCPU 1 runs, started by a SIPI from before its INIT");
}

static const struct world_spec sipi_of_before = {
    .vcpu_count = 2,
    .vcpu = {{.ops = start_and_stop}, {.ops = NULL}},
    .check = it_waits,
};

const struct ex_scenario scenario_sipi_of_before = {
    .name = "sipi-of-before",
    .text = "INIT, SIPI, INIT: the vCPU waits for the next SIPI",
    .races = "S11",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = EX_COMPLETE,
    WORLD(&sipi_of_before),
};

/* ---- Injection by software on silicon, cut short by a kick ---- */

static const struct world_op post_twice[] = {H_POST(0, 0x41), H_POST(0, 0x61), {0}};

static const struct world_spec inhibited_posts = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_SPINS}},
    .actor = {{"device", post_twice}},
    .inhibited = REASON(BLOCKIRQ),
};

const struct ex_scenario scenario_inhibited_posts = {
    .name = "inhibited-posts",
    .text = "without acceleration a second vector cuts the injection of the first one short",
    .races = "S21 S5 I11",
    .modes = EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = EX_COMPLETE,
    WORLD(&inhibited_posts),
};

/* ---- The I/O APIC ---- */

static const struct world_op unmask[] = {H_ROUTE(0, 0, 0x61 | RTE_LEVEL), {0}};

static const struct world_spec level_and_unmask = {
    .vcpu_count = 1,
    .actor = {{"device", raise_pin}, {"administrator", unmask}},
    .pin = {{.vector = 0x61, .level = true, .masked = true, .services = 1}},
};

const struct ex_scenario scenario_level_and_unmask = {
    .name = "level-and-unmask",
    .text = "a level meets the unmasking of its pin: whoever comes second makes it interrupt",
    .races = "S9 S7",
    .modes = MODES_ALL,
    .bound = 2,
    WORLD(&level_and_unmask),
};

#define SVR_OFF APIC_SVR_VECTOR
#define SVR_ON  (APIC_SVR_ENABLE | APIC_SVR_VECTOR)

static const struct world_op off_and_on[] = {
    G_WRITE(APIC_SVR, SVR_OFF), G_WRITE(APIC_SVR, SVR_ON), {0}};

static const struct world_spec level_to_nobody = {
    .vcpu_count = 1,
    .vcpu = {{.ops = off_and_on}},
    .actor = {{"device", raise_pin}},
    .pin = {{.vector = 0x61, .level = true, .services = 1}},
};

const struct ex_scenario scenario_level_to_nobody = {
    .name = "level-to-nobody",
    .text = "a level finds its only target software disabled, and interrupts once it is enabled",
    .races = "S15 S8",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&level_to_nobody),
};

/* ---- The destination map ---- */

static const struct world_op to_either[] = {SEND(0x41 | APIC_ICR_LOGICAL, 2, 6), G_STOP};
static const struct world_op there_and_back[] = {
    G_WRITE(APIC_LDR, LDR(4)), G_WRITE(APIC_LDR, LDR(2)), {0}};

static const struct world_spec moves_between_chains = {
    .vcpu_count = 2,
    .vcpu = {{.ops = to_either}, {.ops = there_and_back}},
};

const struct ex_scenario scenario_moves_between_chains = {
    .name = "moves-between-chains",
    .text = "an IPI to two logical IDs, and its target always has one of them: it gets it once",
    .races = "S15",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = EX_COMPLETE,
    WORLD(&moves_between_chains),
};

static const struct world_op nmi_to_others[] = {G_SEND(APIC_DM_NMI | APIC_ICR_ALL_EXCL, 0), G_STOP};
static const struct world_op add_1[] = {H_ADD(1), {0}};

static const struct world_spec hotplug_and_nmi = {
    .vcpu_count = 2,
    .vcpu = {{.ops = nmi_to_others}, {.flags = W_ABSENT}},
    .actor = {{"creator", add_1}},
};

const struct ex_scenario scenario_hotplug_and_nmi = {
    .name = "hotplug-and-nmi",
    .text = "a vCPU is added under an NMI to all: who finds it on the map finds all of it",
    .races = "S13",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = 2,
    WORLD(&hotplug_and_nmi),
};

/* ---- Hardware senders ---- */

/* 0 is told, and sends to the ID that 1 had before. */
static const struct world_op to_old_ldr[] = {G_AWAIT(0x51, 1), SEND(0x41 | APIC_ICR_LOGICAL, 0, 2),
                                             G_STOP};
static const struct world_op new_ldr[] = {G_WRITE(APIC_LDR, LDR(4)), G_IPI(0, 0x51), {0}};

static const struct world_spec ldr_of_nobody = {
    .vcpu_count = 2,
    .vcpu = {{.ops = to_old_ldr}, {.ops = new_ldr}},
};

const struct ex_scenario scenario_ldr_of_nobody = {
    .name = "ldr-of-nobody",
    .text = "a vCPU gives up its logical ID and says so: an IPI to it reaches nobody",
    .races = "A10 S15",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&ldr_of_nobody),
};

static const struct world_op to_shared_ldr[] = {SEND_MAYBE(0x41 | APIC_ICR_LOGICAL, 3, 1), G_STOP};
static const struct world_op shares_ldr[] = {G_WRITE(APIC_LDR, LDR(1)), {0}};

static void first_took_it(struct world *w)
{
    if (world_taken(w, 0, 0x41) != 1)
        EX_BROKEN(LOST, "vCPU 0 always had logical ID 1, and took %u of one IPI to it",
                  world_taken(w, 0, 0x41));
}

static const struct world_spec ldr_is_shared = {
    .vcpu_count = 3,
    .vcpu = {{.ops = NULL}, {.ops = shares_ldr}, {.ops = to_shared_ldr}},
    .check = first_took_it,
};

const struct ex_scenario scenario_ldr_is_shared = {
    .name = "ldr-is-shared",
    .text = "a vCPU takes the logical ID of another one under an IPI to it: the other one gets it",
    .races = "A10 I13",
    .modes = AMD_WITH_IPIV,
    .bound = 2,
    WORLD(&ldr_is_shared),
};

static const struct world_op stop[] = {G_STOP};
static const struct world_op told_then_sends[] = {G_AWAIT(0x51, 1), SEND(0x41, 0, 1), G_STOP};
static const struct world_op remove_1[] = {H_REMOVE(1), H_POST(0, 0x51), {0}};

static void nothing_was_posted(struct world *w)
{
    const struct world_vcpu *v = &w->v[1];
    uint32_t irr;

    memcpy(&irr, v->page + APIC_IRR + 0x20, sizeof(irr));
    if (irr != 0 || v->apic.pid.pir[1] != 0)
        EX_BROKEN(INVENTED, "an IPI reaches the memory of a vCPU that was removed");
}

static const struct world_spec ipi_to_removed = {
    .vcpu_count = 2,
    .vcpu = {{.ops = told_then_sends}, {.ops = stop}},
    .actor = {{"administrator", remove_1}},
    .check = nothing_was_posted,
};

const struct ex_scenario scenario_ipi_to_removed = {
    .name = "ipi-to-removed",
    .text = "an IPI to an ID whose vCPU has been removed touches nothing of it",
    .races = "S14",
    .modes = MODES_ALL,
    .bound = 1,
    WORLD(&ipi_to_removed),
};

/* Its ID is 100h: in xAPIC mode both answer to 0, and neither has written its ID. */
static const struct world_op to_both[] = {SEND(0x41, 3, 0), G_STOP};

static const struct world_spec id_is_shared = {
    .vcpu_count = 3,
    .vcpu = {{.ops = NULL}, {.id = 0x100}, {.ops = to_both}},
};

const struct ex_scenario scenario_id_is_shared = {
    .name = "id-is-shared",
    .text = "two vCPUs answer to one 8-bit ID: both get an IPI to it",
    .races = "S15 I13",
    .modes = EX_MODE(EX_X2AVIC) | MODES_INTEL,
    .bound = 1,
    WORLD(&id_is_shared),
};

/* ---- The access page, TPR ---- */

static const struct world_op off_then_on[] = {
    G_APIC_OFF, G_READ(APIC_TPR, 0, 0), G_XAPIC, G_WRITE(APIC_TPR, 0x30), {0}};

static const struct world_spec apic_off_and_on = {
    .vcpu_count = 1,
    .vcpu = {{.ops = off_then_on}},
};

const struct ex_scenario scenario_apic_off_and_on = {
    .name = "apic-off-and-on",
    .text = "a guest reads memory where its APIC was, and then writes a register there",
    .races = "I18",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&apic_off_and_on),
};

static const struct world_op tpr_up_and_down[] = {
    G_WRITE(APIC_TPR, 0x50), G_WRITE(APIC_TPR, 0x20), {0}};
static const struct world_op post_one[] = {H_POST(0, 0x41), {0}};

static const struct world_spec tpr_by_msr = {
    .vcpu_count = 1,
    .vcpu = {{.ops = tpr_up_and_down, .flags = W_X2APIC}},
    .actor = {{"device", post_one}},
};

const struct ex_scenario scenario_tpr_by_msr = {
    .name = "tpr-by-msr",
    .text = "TPR is written by MSR, which may exit, while a vector comes",
    .races = "A21 S16 P17",
    .modes = MODES_ALL,
    .bound = EX_COMPLETE,
    WORLD(&tpr_by_msr),
};

/* Without a logical ID the two modes can be mixed; it tells 0 of it. */
static const struct world_op has_no_ldr[] = {G_WRITE(APIC_LDR, 0), G_IPI(0, 0x51), {0}};
static const struct world_op switches_and_probes[] = {G_AWAIT(0x51, 1), G_X2APIC, G_PROBE(0x70),
                                                      G_STOP};

static const struct world_spec page_under_a_peer = {
    .vcpu_count = 2,
    .vcpu = {{.ops = switches_and_probes}, {.ops = has_no_ldr}},
};

const struct ex_scenario scenario_page_under_a_peer = {
    .name = "page-under-a-peer",
    .text = "a vCPU enters x2APIC mode and reaches for the page; its peer stays accelerated",
    .races = "A16 I12 I21",
    .modes = MODES_ACCEL,
    .bound = EX_COMPLETE,
    WORLD(&page_under_a_peer),
};

static const struct world_op probe_when_told[] = {
    G_AWAIT(0x51, 1), G_AWAIT(0x41, 1), G_PROBE(0x55), {0}};
static const struct world_op toggle_then_post[] = {
    H_AFTER(0, 0x51, 1), H_INHIBIT(BLOCKIRQ, 1), H_INHIBIT(BLOCKIRQ, 0), H_POST(0, 0x41), {0}};

static const struct world_spec page_stays_away = {
    .vcpu_count = 2,
    .vcpu = {{.ops = probe_when_told, .flags = W_X2APIC}, {.ops = has_no_ldr}},
    .actor = {{"administrator", toggle_then_post}},
};

const struct ex_scenario scenario_page_stays_away = {
    .name = "page-stays-away",
    .text = "a page that was withdrawn for a vCPU in x2APIC mode does not return with a change",
    .races = "A16 I18",
    .modes = MODES_ACCEL,
    .bound = 1,
    WORLD(&page_stays_away),
};

/* ---- Reasons that stay, or go with others ---- */

static const struct world_op resets_itself[] = {
    G_READ(APIC_TPR, 0, 0), G_READ(APIC_TPR, 0, 0), G_RESET, {0}};

static const struct world_spec window_and_reset = {
    .vcpu_count = 1,
    .vcpu = {{.ops = resets_itself, .flags = W_CLOSED}},
    .actor = {{"8259", extint}},
    .check = no_reason_is_left,
};

const struct ex_scenario scenario_window_and_reset = {
    .name = "window-and-reset",
    .text = "a vCPU that waits for an interrupt window is reset: nobody waits any more",
    .races = "A20 I14",
    .modes = MODES_AMD,
    .bound = EX_COMPLETE,
    WORLD(&window_and_reset),
};

static const struct world_op opens_late[] = {G_READ(APIC_TPR, 0, 0), G_STI, {0}};

static const struct world_spec window_is_closed = {
    .vcpu_count = 1,
    .vcpu = {{.ops = opens_late, .flags = W_CLOSED}},
    .actor = {{"8259", extint}},
    .check = no_reason_is_left,
};

const struct ex_scenario scenario_window_is_closed = {
    .name = "window-is-closed",
    .text = "an ExtINT was taken in its window: acceleration is on again",
    .races = "A20 S20",
    .modes = MODES_AMD,
    .bound = EX_COMPLETE,
    WORLD(&window_is_closed),
};

static const struct world_op other_ldr[] = {G_WRITE(APIC_LDR, LDR(4)), {0}};

static void host_keeps_its_reason(struct world *w)
{
    if (vapic_inhibits(world_vm(w)).bits != REASON(LOGICAL_ID_ALIASED))
        EX_BROKEN(SCENARIO, "the host's reason is gone: %#x", vapic_inhibits(world_vm(w)).bits);
}

static const struct world_spec reason_of_both = {
    .vcpu_count = 1,
    .vcpu = {{.ops = other_ldr}},
    .inhibited = REASON(LOGICAL_ID_ALIASED),
    .check = host_keeps_its_reason,
};

const struct ex_scenario scenario_reason_of_both = {
    .name = "reason-of-both",
    .text = "the library finds that a reason of the host's does not hold by itself: it stays",
    .races = "I6 I13",
    .modes = MODES_AMD,
    .bound = EX_COMPLETE,
    WORLD(&reason_of_both),
};

/* ---- Paravirtual EOI ---- */

static const struct world_op raise_twice[] = {H_PIN(0, 1), H_AFTER(0, 0x61, 1), H_PIN(0, 1), {0}};

static const struct world_spec pv_eoi_of_level = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_PV | W_SPINS}},
    .actor = {{"device", raise_twice}},
    .pin = {{.vector = 0x61, .level = true, .services = 1}},
};

const struct ex_scenario scenario_pv_eoi_of_level = {
    .name = "pv-eoi-of-level",
    .text = "a level comes again to a guest that ends by its paravirtual word and does not exit",
    .races = "S19 S7",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = EX_COMPLETE,
    WORLD(&pv_eoi_of_level),
};

static const struct world_op post_down[] = {H_POST(0, 0x61), H_POST(0, 0x41), {0}};

static const struct world_spec pv_eoi_and_poke = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_PV | W_SPINS}},
    .actor = {{"device", post_down}, {"thread", poke}},
};

const struct ex_scenario scenario_pv_eoi_and_poke = {
    .name = "pv-eoi-and-poke",
    .text = "an exit between an interrupt and its end, and a lower vector waits",
    .races = "S19",
    .modes = EX_MODE(EX_NONE) | EX_MODE(EX_AVIC) | EX_MODE(EX_APICV),
    .bound = 2,
    WORLD(&pv_eoi_and_poke),
};

/* ---- The list of vCPUs that sleep on a processor ---- */

static void handles_wakeup(void *arg)
{
    struct world *w = arg;

    vapic_wakeup(&w->vm, &w->pcpu[0]);
}

static void setup_with_handler(const struct ex_scenario *scenario, void *memory, uint32_t mode)
{
    world_setup(scenario, memory, mode);
    ex_actor("processor 0", handles_wakeup, memory);
}

static const struct world_spec list_left_twice = {
    .vcpu_count = 1,
    .vcpu = {{.flags = W_OFF_CPU}},
    .actor = {{"device", post_one}},
};

const struct ex_scenario scenario_list_left_twice = {
    .name = "list-left-twice",
    .text = "a sleeper leaves the list of its old processor, whose wake-up handler looks at it",
    .races = "P7 P4",
    .modes = EX_MODE(EX_APICV_IPIV),
    .bound = 2,
    .data = &list_left_twice,
    .setup = setup_with_handler,
    .check = world_check,
};

/* ---- Preempted between the last look and the sleep ---- */

static const struct world_op preempts_0[] = {H_PREEMPT(0), H_RESUME(0, WORLD_CPUS - 1), {0}};
static const struct world_op device_0[] = {H_DEVICE(0), {0}};

static const struct world_spec silent_post_before_sleep = {
    .vcpu_count = 1,
    .actor = {{"device", device_0}, {"scheduler", preempts_0}},
    .irte = {{.vector = 0x71}},
};

const struct ex_scenario scenario_silent_post_before_sleep = {
    .name = "silent-post-before-sleep",
    .text = "a device posts to a vCPU that is preempted while it is about to sleep",
    .races = "P6 P5 A6 A18",
    .modes = MODES_ACCEL,
    .bound = 2,
    WORLD(&silent_post_before_sleep),
};
