/* SPDX-License-Identifier: MIT */
/*
 * Guests with few and with many vCPUs that reboot out of x2APIC mode: the monitor resets vCPU after
 * vCPU while others still run, the boot processor starts the others again, and all of them return
 * to x2APIC mode. Wherever the silicon's tables reach, no reason may be left after it.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"

#define REBOOTS   3
#define BIT(name) (1u << VAPIC_INHIBIT_##name)

struct row {
    const char *title;
    enum vapic_accel_kind kind;
    uint32_t features;
    uint32_t vcpus;
    bool unique;     /* one vCPU per ID: the policy UNIQUE_ID */
    uint32_t always; /* reasons that never go away */
    uint32_t reset;  /* and in addition those of a guest that was reset and not yet booted */
};

#define X2     (VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC)
#define X2_EXT (X2 | VAPIC_ACCEL_X2AVIC_EXT)
#define BIG    BIT(PHYSICAL_ID_TOO_BIG)
/* vCPUs 256 and above share an 8-bit ID with others until they are in x2APIC mode. */
#define SHARED (BIT(PHYSICAL_ID_ALIASED) | BIT(LOGICAL_ID_ALIASED))

static const struct row rows[] = {
    {"xavic, 2", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 2, false, 0, 0},
    {"xavic, 4", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 4, false, 0, 0},
    {"xavic, 32", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 32, false, 0, 0},
    {"xavic, 255", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 255, false, 0, 0},
    {"xavic, 256", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 256, false, BIG, 0},
    {"xavic, 380", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 380, true, BIG, 0},
    {"xavic, 512", VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, 512, true, BIG, 0},
    {"x2avic, 2", VAPIC_ACCEL_AVIC, X2, 2, false, 0, 0},
    {"x2avic, 32", VAPIC_ACCEL_AVIC, X2, 32, false, 0, 0},
    {"x2avic, 255", VAPIC_ACCEL_AVIC, X2, 255, false, 0, 0},
    {"x2avic, 380", VAPIC_ACCEL_AVIC, X2, 380, true, 0, 0},
    {"x2avic, 380, IDs shared", VAPIC_ACCEL_AVIC, X2, 380, false, 0, SHARED},
    {"x2avic, 512", VAPIC_ACCEL_AVIC, X2, 512, true, 0, 0},
    {"x2avic, 513", VAPIC_ACCEL_AVIC, X2, 513, true, BIG, 0},
    {"x2avic ext, 512", VAPIC_ACCEL_AVIC, X2_EXT, 512, true, 0, 0},
    {"x2avic ext, 600", VAPIC_ACCEL_AVIC, X2_EXT, 600, true, 0, 0},
    {"apicv, 2", VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV, 2, false, 0, 0},
    {"apicv, 32", VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV, 32, false, 0, 0},
    {"apicv, 255", VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV, 255, false, 0, 0},
    {"apicv, 380", VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV, 380, true, 0, 0},
    {"apicv, 512", VAPIC_ACCEL_APICV, 0, 512, true, 0, 0},
    {"apicv, 512, IDs shared", VAPIC_ACCEL_APICV, 0, 512, false, 0, BIT(PHYSICAL_ID_ALIASED)},
};

static struct ax *machine(const struct row *row)
{
    struct ax_options options = ax_options_for(AX_MODE_NONE, row->vcpus);

    options.accel.kind = row->kind;
    options.accel.features = row->features;
    options.config.knobs_set = true;
    options.config.knobs = VAPIC_PROFILE_MANUAL | (row->unique ? VAPIC_KNOB_UNIQUE_ID : 0);
    return ax_new(&options);
}

static void assert_mask(const struct ax *ax, const struct row *row, const char *when, uint32_t want)
{
    uint32_t mask = vapic_inhibits(&ax->vm).bits;

    if (mask != want)
        fail_msg("%s, %s: reasons %#x instead of %#x", row->title, when, mask, want);
}

static void to_x2apic(struct ax *ax, uint32_t n)
{
    uint64_t base;

    assert_int_equal(ax_rdmsr(ax, n, 0x1B, &base), AX_DONE);
    assert_int_equal(ax_wrmsr(ax, n, 0x1B, base | APIC_BASE_EXTD), AX_DONE);
    ax_write(ax, n, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
}

static void boot(struct ax *ax, const struct row *row)
{
    for (uint32_t n = 0; n < row->vcpus; n++)
        to_x2apic(ax, n);
    ax_settle(ax);
    assert_mask(ax, row, "up", row->always);
    for (uint32_t n = 0; n < row->vcpus; n++)
        if (vapic_active(&ax->v[n]->apic) != (row->always == 0))
            fail_msg("%s: vCPU %u is not as it should be", row->title, n);
}

/* An interrupt crosses the machine, by whatever means are left. */
static void ping(struct ax *ax, const struct row *row)
{
    uint32_t last = row->vcpus - 1;

    ax_forget(ax);
    ax->quiet = false;
    ax_ipi(ax, 0, 0x51, last);
    ax_settle(ax);
    if (ax_delivered(ax, last, 0x51) != 1)
        fail_msg("%s: vCPU %u was not reached", row->title, last);
    ax->quiet = true;
    ax_eoi(ax, last);
}

static void reset_all(struct ax *ax, const struct row *row)
{
    for (uint32_t n = 0; n < row->vcpus; n++) {
        ax_leave(ax, n);
        vapic_reset(&ax->v[n]->apic);
        ax->v[n]->woken = ax->v[n]->blocked;
        if (n % 64 == 0)
            ax_settle(ax); /* the others still run */
    }
    ax_settle(ax);
    assert_mask(ax, row, "reset", row->always | row->reset);
}

static void start_others(struct ax *ax)
{
    ax_write(ax, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    ax_ipi(ax, 0, 0x500 | APIC_ICR_ASSERT | APIC_ICR_ALL_EXCL, 0);
    ax_settle(ax);
    ax_ipi(ax, 0, 0x608 | APIC_ICR_ASSERT | APIC_ICR_ALL_EXCL, 0);
    ax_settle(ax);
}

static void reboots(void **state)
{
    const struct row *row = *state;
    struct ax *ax = machine(row);

    ax->quiet = true; /* so many would fill the log */
    boot(ax, row);
    for (int i = 0; i < REBOOTS; i++) {
        ping(ax, row);
        reset_all(ax, row);
        start_others(ax);
        boot(ax, row);
    }
    ping(ax, row);
    ax_free(ax);
}

int main(void)
{
    struct CMUnitTest tests[sizeof(rows) / sizeof(rows[0])];
    size_t count = sizeof(rows) / sizeof(rows[0]);

    for (size_t i = 0; i < count; i++)
        tests[i] = (struct CMUnitTest){
            .name = rows[i].title,
            .test_func = reboots,
            .initial_state = (void *)(uintptr_t)&rows[i],
        };
    return _cmocka_run_group_tests("reboots", tests, count, NULL, NULL);
}
