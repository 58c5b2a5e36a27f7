/* SPDX-License-Identifier: MIT */
/*
 * Corners of the inhibition: a fault handler that maps the page, kept IDs, a host that asks twice,
 * reasons of host and guest at once, RESET with a window open.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"

#define VCPUS      3u
#define LVT_EXTINT 0x700u

static uint32_t mask(const struct ax *ax)
{
    return vapic_inhibits(&ax->vm).bits;
}

static struct ax *machine(enum ax_mode_index mode)
{
    struct ax_options options = ax_options_for(mode, VCPUS);

    return ax_new(&options);
}

static void look_all(struct ax *ax)
{
    ax_settle(ax);
    for (uint32_t n = 0; n < VCPUS; n++) {
        ax_leave(ax, n);
        ax_enter(ax, n);
    }
}

/* ---- The permission to map the page ends before it is withdrawn ---- */

static void (*real_access_page)(void *ctx, bool mapped);
static bool permitted_at_withdrawal;

static void access_page(void *ctx, bool mapped)
{
    if (!mapped)
        permitted_at_withdrawal = vapic_access_page(&((struct ax *)ctx)->vm);
    real_access_page(ctx, mapped);
}

static void permission_ends_first(void **state)
{
    struct ax *ax = machine(AX_MODE_AVIC);

    (void)state;
    look_all(ax);
    assert_true(vapic_access_page(&ax->vm));
    real_access_page = ax->vm.host.access_page;
    ax->vm.host.access_page = access_page;
    permitted_at_withdrawal = true;
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    assert_false(permitted_at_withdrawal);
    ax_free(ax);
}

/* ---- An ID that was written in xAPIC mode and kept in x2APIC mode ---- */

static void kept_id(void **state)
{
    static const enum ax_mode_index modes[] = {AX_MODE_AVIC, AX_MODE_X2AVIC, AX_MODE_APICV_IPIV};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct ax_options options = ax_options_for(modes[i], VCPUS);
        uint64_t value = 0;
        struct ax *ax;

        options.config.knobs_set = true;
        options.config.knobs = VAPIC_PROFILE_MANUAL | VAPIC_KNOB_X2APIC_KEEPS_WRITTEN_ID;
        options.accel.max_id = 10;
        ax = ax_new(&options);
        ax_write(ax, 1, APIC_ID, 5u << 24);
        for (uint32_t n = 0; n < VCPUS; n++) {
            uint64_t base = vapic_base(&ax->v[n]->apic) | APIC_BASE_EXTD;

            assert_int_equal(ax_wrmsr(ax, n, 0x1B, base), AX_DONE);
        }
        look_all(ax);
        assert_int_equal(ax_rdmsr(ax, 1, 0x802, &value), AX_DONE);
        assert_int_equal(value, 5);
        assert_int_equal(mask(ax), 1u << VAPIC_INHIBIT_APIC_ID_MODIFIED);
        ax_free(ax);
    }
}

/* ---- A host that asks twice before it enters is outside when the lock is asked for ---- */

static void (*real_lock)(void *ctx);
static uint32_t locks_inside, locks_taken;

static void lock_outside(void *ctx)
{
    struct ax *ax = ctx;

    locks_taken++;
    for (uint32_t n = 0; n < VCPUS; n++)
        locks_inside += vapic_in_guest(&ax->v[n]->apic);
    real_lock(ctx);
}

static void asking_twice(void **state)
{
    struct ax *ax = machine(AX_MODE_X2AVIC);
    struct vapic_entry entry;

    (void)state;
    look_all(ax);
    for (uint32_t n = 0; n < VCPUS; n++)
        ax_leave(ax, n);
    vapic_enter(&ax->v[0]->apic, VAPIC_CAN_IRQ | VAPIC_IF, ax->now, &entry);
    ax->v[0]->apic.accel->served = 0; /* as after a change that it has not seen yet */
    real_lock = ax->vm.host.lock;
    ax->vm.host.lock = lock_outside;
    locks_inside = locks_taken = 0;
    vapic_enter(&ax->v[0]->apic, VAPIC_CAN_IRQ | VAPIC_IF, ax->now, &entry);
    assert_int_equal(locks_taken, 1);
    assert_int_equal(locks_inside, 0);
    vapic_exit(&ax->v[0]->apic, 0, true);
    ax->vm.host.lock = real_lock;
    ax_free(ax);
}

/* ---- A write of an LVT entry that this APIC does not have ---- */

static void absent_entry(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ax_options options = ax_options_for(i ? AX_MODE_X2AVIC : AX_MODE_NONE, 1);
        struct ax *ax;

        options.max_lvt = 3;
        ax = ax_new(&options);
        ax_settle(ax);
        ax_write(ax, 0, APIC_LVT_PMC, 0x31);
        ax_write(ax, 0, APIC_ESR, 0);
        assert_int_equal(ax_read(ax, 0, APIC_ESR), APIC_ESR_ILLEGAL_REG);
        ax_free(ax);
    }
}

/* ---- Neither host nor guest takes back what the other one set ---- */

static void host_and_guest(void **state)
{
    struct ax *ax = machine(AX_MODE_X2AVIC);
    const uint32_t modified = 1u << VAPIC_INHIBIT_APIC_ID_MODIFIED;

    (void)state;
    ax_settle(ax);
    ax_write(ax, 1, APIC_ID, 9u << 24);
    assert_int_equal(mask(ax), modified);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_APIC_ID_MODIFIED, false);
    assert_int_equal(mask(ax), modified);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_APIC_ID_MODIFIED, true);
    ax_write(ax, 1, APIC_ID, 1u << 24);
    assert_int_equal(mask(ax), modified);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_APIC_ID_MODIFIED, false);
    assert_int_equal(mask(ax), 0);
    ax_free(ax);
}

/* ---- RESET of a vCPU that sleeps with a window open ---- */

static void reset_drops_the_window(void **state)
{
    struct ax *ax = machine(AX_MODE_AVIC);

    (void)state;
    ax_write(ax, 1, APIC_LVT_LINT0, LVT_EXTINT);
    ax_settle(ax);
    ax_if(ax, 1, false);
    ax_act(ax, 1, vapic_set_lint(&ax->v[1]->apic, 0, true));
    ax_settle(ax);
    assert_int_equal(mask(ax), 1u << VAPIC_INHIBIT_IRQWIN);
    for (uint32_t n = 0; n < VCPUS; n++)
        ax_leave(ax, n);
    vapic_reset(&ax->v[1]->apic);
    assert_int_equal(mask(ax), 0);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permission_ends_first), cmocka_unit_test(kept_id),
        cmocka_unit_test(asking_twice),          cmocka_unit_test(absent_entry),
        cmocka_unit_test(host_and_guest),        cmocka_unit_test(reset_drops_the_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
