/* SPDX-License-Identifier: MIT */
/*
 * Interrupt windows on AVIC, which cannot open one: while an ExtINT waits for the guest to take
 * interrupts the VM runs without. Requests are counted, and while another reason is in force they
 * change the count and nothing else.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"

#define VCPUS      4u
#define IRQWIN     (1u << VAPIC_INHIBIT_IRQWIN)
#define OTHER      (1u << VAPIC_INHIBIT_BLOCKIRQ)
#define LVT_EXTINT 0x700u

static uint32_t mask(const struct ax *ax)
{
    return vapic_inhibits(&ax->vm).bits;
}

/* Bits 63:32 of the word that holds the reasons: open requests. */
static uint32_t count(const struct ax *ax)
{
    return (uint32_t)(ax->vm.inhibits >> 32);
}

static struct ax *machine(enum ax_mode_index mode)
{
    struct ax_options options = ax_options_for(mode, VCPUS);
    struct ax *ax;

    options.trace = true;
    ax = ax_new(&options);
    for (uint32_t n = 0; n < VCPUS; n++)
        ax_write(ax, n, APIC_LVT_LINT0, LVT_EXTINT);
    ax_settle(ax);
    ax_forget(ax);
    return ax;
}

/* An ExtINT arrives that the guest does not take now. */
static void open_window(struct ax *ax, uint32_t n)
{
    ax_if(ax, n, false);
    ax_act(ax, n, vapic_set_lint(&ax->v[n]->apic, 0, true));
    ax_settle(ax);
}

/* The guest takes it, and the 8259 has no other. */
static void close_window(struct ax *ax, uint32_t n)
{
    ax_act(ax, n, vapic_set_lint(&ax->v[n]->apic, 0, false));
    ax_if(ax, n, true);
    ax_settle(ax);
    /* An interrupt that is withdrawn makes nobody look. */
    ax_leave(ax, n);
    ax_enter(ax, n);
}

static void assert_law(const struct ax *ax, uint32_t open)
{
    assert_int_equal(count(ax), open);
    if ((mask(ax) & ~IRQWIN) == 0 && (mask(ax) != 0) != (open != 0))
        fail_msg("%u windows are open, the reasons are %#x", open, mask(ax));
}

static void one_window(void **state)
{
    struct ax *ax = machine(AX_MODE_AVIC);

    (void)state;
    open_window(ax, 1);
    assert_int_equal(mask(ax), IRQWIN);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_false(vapic_active(&ax->v[n]->apic));
    ax_if(ax, 1, true);
    ax_settle(ax);
    assert_int_not_equal(ax_count(ax, AX_EXTINT), 0);
    close_window(ax, 1);
    ax_settle(ax);
    assert_int_equal(mask(ax), 0);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_true(vapic_active(&ax->v[n]->apic));
    ax_free(ax);
}

/* An NMI goes first: the guest could take the ExtINT, but not at this entry. */
static void behind_an_nmi(void **state)
{
    struct ax *ax = machine(AX_MODE_AVIC);

    (void)state;
    ax_leave(ax, 1);
    ax_act(ax, 1, vapic_nmi(&ax->v[1]->apic));
    ax_act(ax, 1, vapic_set_lint(&ax->v[1]->apic, 0, true));
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_NMI), 1);
    assert_int_equal(ax_count(ax, AX_EXTINT), 1);
    ax_leave(ax, 1);
    ax_settle(ax);
    assert_law(ax, 0);
    assert_int_equal(mask(ax), 0);
    ax_free(ax);
}

/* Intel opens windows with acceleration on. */
static void not_with_apicv(void **state)
{
    struct ax *ax = machine(AX_MODE_APICV);

    (void)state;
    open_window(ax, 1);
    assert_int_equal(mask(ax), 0);
    assert_int_equal(count(ax), 0);
    assert_true(vapic_active(&ax->v[1]->apic));
    ax_if(ax, 1, true);
    ax_settle(ax);
    assert_int_not_equal(ax_count(ax, AX_EXTINT), 0);
    ax_free(ax);
}

enum step { OPEN, CLOSE, OTHER_ON, OTHER_OFF };

/* Three vCPUs' windows overlap: 0 opens, 1 opens, 0 closes, 2 opens, 1 closes, 2 closes. */
static const struct {
    enum step step;
    uint32_t n, open;
} script[] = {
    {OPEN, 0, 1}, {OPEN, 1, 2}, {CLOSE, 0, 1}, {OPEN, 2, 2}, {CLOSE, 1, 1}, {CLOSE, 2, 0},
};

#define STEPS (sizeof(script) / sizeof(script[0]))

static void set_other(struct ax *ax, bool set, uint32_t open)
{
    assert_int_equal(vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, set), VAPIC_OK);
    ax_settle(ax);
    assert_int_equal((mask(ax) & OTHER) != 0, set);
    assert_law(ax, open);
    /* Right the moment the other reason goes away. */
    if (!set)
        assert_int_equal(mask(ax), open != 0 ? IRQWIN : 0);
}

/* Another reason comes before step `on` and goes before step `off`. */
static void three_windows(size_t on, size_t off)
{
    struct ax *ax = machine(AX_MODE_AVIC);
    uint32_t open = 0;

    for (size_t i = 0; i <= STEPS; i++) {
        if (i == on)
            set_other(ax, true, open);
        if (i == off)
            set_other(ax, false, open);
        if (i == STEPS)
            break;
        if (script[i].step == OPEN)
            open_window(ax, script[i].n);
        else
            close_window(ax, script[i].n);
        open = script[i].open;
        assert_law(ax, open);
    }
    assert_int_equal(mask(ax) & ~OTHER, 0);
    ax_free(ax);
}

static void windows_overlap(void **state)
{
    (void)state;
    three_windows(STEPS + 1, STEPS + 1);
    for (size_t on = 0; on <= STEPS; on++)
        for (size_t off = on; off <= STEPS; off++)
            three_windows(on, off);
}

/* While another reason is in force a window is the count and nothing else: no lock, no trace line,
 * no kick. */
static void window_while_inhibited(void **state)
{
    struct ax *ax = machine(AX_MODE_AVIC);
    uint32_t generation;

    (void)state;
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_settle(ax);
    ax_forget(ax);
    generation = ax->vm.generation;
    ax->locks = 0;
    open_window(ax, 1);
    assert_int_equal(count(ax), 1);
    close_window(ax, 1);
    assert_int_equal(count(ax), 0);
    assert_int_equal(ax->locks, 0);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 0);
    assert_int_equal(ax_traced(ax, VAPIC_EVENT_APICV_INHIBIT_CHANGED), 0);
    assert_int_equal(ax->vm.generation, generation);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_window),
        cmocka_unit_test(behind_an_nmi),
        cmocka_unit_test(not_with_apicv),
        cmocka_unit_test(windows_overlap),
        cmocka_unit_test(window_while_inhibited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
