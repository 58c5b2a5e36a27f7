/* SPDX-License-Identifier: MIT */
/*
 * Deviations of real silicon that the random stream of the equivalence test does not meet (it has
 * four vCPUs with small IDs and without AMD's extended registers): each a scene that is played by
 * the library alone and on the silicon, and ends differently. Those of deviations.h are named
 * there.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"

#define VECTOR 0x61u

struct scene {
    const char *name;
    enum ax_mode_index mode;
    uint32_t ids[3];
    uint32_t vcpus, features, knobs;
    void (*play)(struct ax *ax);
    uint32_t observer; /* how often does this vCPU take VECTOR */
    uint32_t alone, silicon;
};

static void to_x2apic(struct ax *ax, uint32_t n)
{
    uint64_t base;

    assert_int_equal(ax_rdmsr(ax, n, MSR_APIC_BASE, &base), AX_DONE);
    assert_int_equal(ax_wrmsr(ax, n, MSR_APIC_BASE, base | APIC_BASE_EXTD), AX_DONE);
}

/* MAX_INDEX of a vCPU in xAPIC mode ends at 255 [APM2 15.29.4.2]. */
static void broadcast_in_xapic_mode(struct ax *ax)
{
    ax_ipi(ax, 0, VECTOR | APIC_ICR_ALL_EXCL, 0);
}

/* FFh means every entry of the table, whatever mode its vCPU is in. */
static void broadcast_to_x2apic(struct ax *ax)
{
    to_x2apic(ax, 1);
    ax_settle(ax);
    ax_forget(ax);
    ax_ipi(ax, 0, VECTOR, APIC_DEST_ALL_8);
}

static void broadcast_to_xapic(struct ax *ax)
{
    to_x2apic(ax, 0);
    ax_settle(ax);
    ax_forget(ax);
    ax_ipi(ax, 0, VECTOR, APIC_DEST_ALL_32);
}

/* IER masks nothing for the processor, which does not know it. */
static void interrupt_enable_register(struct ax *ax)
{
    ax_write(ax, 0, APIC_IER + 16 * (VECTOR / 32), 0);
    ax_write(ax, 0, APIC_EACR, APIC_EXT_IER);
    ax_post(ax, 0, VECTOR, false);
}

/* All software-enabled APICs must have one model [SDM3 12.6.2.2]; a sender without a logical ID of
 * its own breaks that rule unnoticed, and the processor goes by the sender's. */
static void model_of_the_sender(struct ax *ax)
{
    ax_write(ax, 1, APIC_LDR, 0x10u << 24);
    ax_write(ax, 0, APIC_DFR, APIC_DFR_CLUSTER);
    ax_settle(ax);
    ax_forget(ax);
    ax_ipi(ax, 0, VECTOR | APIC_ICR_LOGICAL, 0x10);
}

/* One vCPU per ID is the host's policy; the table has the vCPU whose own ID it is. */
static void id_of_two(struct ax *ax)
{
    ax_ipi(ax, 2, VECTOR, 300 & 0xFF);
}

static const struct scene scenes[] = {
    {"far_vcpu_misses_xapic_broadcast",
     AX_MODE_X2AVIC,
     {0, 300},
     2,
     0,
     0,
     broadcast_in_xapic_mode,
     1,
     1,
     0},
    {"broadcast_crosses_to_x2apic", AX_MODE_X2AVIC, {0, 1}, 2, 0, 0, broadcast_to_x2apic, 1, 0, 1},
    {"broadcast_crosses_to_xapic", AX_MODE_X2AVIC, {0, 1}, 2, 0, 0, broadcast_to_xapic, 1, 0, 1},
    {"interrupt_enable_registers_ignored",
     AX_MODE_AVIC,
     {0},
     1,
     VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT,
     0,
     interrupt_enable_register,
     0,
     0,
     1},
    {"logical_by_senders_dfr", AX_MODE_AVIC, {0, 1}, 2, 0, 0, model_of_the_sender, 1, 1, 0},
    {"unique_id_by_table",
     AX_MODE_X2AVIC,
     {300, 44, 1},
     3,
     0,
     VAPIC_KNOB_UNIQUE_ID,
     id_of_two,
     0,
     1,
     0},
};

#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

static uint32_t play(const struct scene *scene, enum ax_mode_index mode)
{
    struct ax_options options = ax_options_for(mode, scene->vcpus);
    uint32_t taken;
    struct ax *ax;

    options.ids = scene->ids;
    options.features = scene->features;
    options.config.knobs_set = true;
    options.config.knobs = VAPIC_PROFILE_MANUAL | scene->knobs;
    ax = ax_new(&options);
    ax_settle(ax);
    if (mode != AX_MODE_NONE)
        assert_true(vapic_active(&ax->v[0]->apic));
    scene->play(ax);
    ax_settle(ax);
    taken = ax_delivered(ax, scene->observer, VECTOR);
    ax_free(ax);
    return taken;
}

static void deviates(void **state)
{
    const struct scene *scene = *state;

    assert_int_equal(play(scene, AX_MODE_NONE), scene->alone);
    assert_int_equal(play(scene, scene->mode), scene->silicon);
}

int main(void)
{
    struct CMUnitTest tests[SCENES];

    for (size_t i = 0; i < SCENES; i++)
        tests[i] = (struct CMUnitTest){
            .name = scenes[i].name,
            .test_func = deviates,
            .initial_state = (void *)(uintptr_t)&scenes[i],
        };
    return _cmocka_run_group_tests("deviations", tests, SCENES, NULL, NULL);
}
