/* SPDX-License-Identifier: MIT */
/*
 * The inhibition of acceleration: every reason with each vendor, what changes nothing, two reasons
 * that overlap, where each reason comes from, and the withdrawal of the access page.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"
#include "vapic/nested.h"

#define VCPUS     4u
#define BIT(name) (1u << VAPIC_INHIBIT_##name)

static const struct {
    const char *name;
    bool avic, apicv;
} honoured[] = {
    /* Written a second time, not taken from the header. */
    {"DISABLED", true, true},
    {"HYPERV", true, true},
    {"ABSENT", true, true},
    {"BLOCKIRQ", true, true},
    {"PHYSICAL_ID_ALIASED", true, true},
    {"APIC_ID_MODIFIED", true, true},
    {"APIC_BASE_MODIFIED", true, true},
    {"NESTED", true, false},
    {"IRQWIN", true, false},
    {"PIT_REINJ", true, false},
    {"SEV", true, false},
    {"LOGICAL_ID_ALIASED", true, false},
    {"PHYSICAL_ID_TOO_BIG", true, false},
};

#define REASONS (sizeof(honoured) / sizeof(honoured[0]))

static struct ax *running(enum ax_mode_index mode)
{
    struct ax_options options = ax_options_for(mode, VCPUS);
    struct ax *ax;

    options.trace = true;
    ax = ax_new(&options);
    ax_settle(ax);
    ax_forget(ax);
    return ax;
}

static bool is_avic(const struct ax *ax)
{
    return ax->kind == VAPIC_ACCEL_AVIC;
}

static uint32_t mask(const struct ax *ax)
{
    return vapic_inhibits(&ax->vm).bits;
}

static void assert_active(struct ax *ax, bool active)
{
    for (uint32_t n = 0; n < ax->vcpus; n++)
        if (vapic_active(&ax->v[n]->apic) != active)
            fail_msg("vCPU %u is %sactive, reasons %#x", n, active ? "in" : "", mask(ax));
}

static void assert_line(const struct ax *ax, uint32_t at, uint32_t reason, bool set, uint32_t bits)
{
    uint32_t seen = 0;

    for (uint32_t i = 0; i < ax_count(ax, AX_TRACE); i++) {
        const struct vapic_event *event = &ax_nth(ax, AX_TRACE, i)->event;

        if (event->kind != VAPIC_EVENT_APICV_INHIBIT_CHANGED || seen++ != at)
            continue;
        assert_int_equal(event->arg[0], reason);
        assert_int_equal(event->arg[1], set);
        assert_int_equal(event->arg[2], bits);
        return;
    }
    fail_msg("there are %u lines, not %u", seen, at + 1);
}

static uint32_t lines(const struct ax *ax)
{
    return ax_traced(ax, VAPIC_EVENT_APICV_INHIBIT_CHANGED);
}

/* ---- Every reason ---- */

static void change(struct ax *ax, uint32_t reason, bool set, bool honours)
{
    uint32_t bits = set && honours ? 1u << reason : 0;

    ax_forget(ax);
    assert_int_equal(vapic_set_inhibit(&ax->vm, (enum vapic_inhibit)reason, set), VAPIC_OK);
    assert_int_equal(mask(ax), bits);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), honours);
    assert_int_equal(lines(ax), honours ? (is_avic(ax) ? 2 : 1) : 0);
    if (honours) {
        assert_line(ax, 0, reason, set, bits);
        if (is_avic(ax)) /* what became of IRQWIN with it */
            assert_line(ax, 1, VAPIC_INHIBIT_IRQWIN, false, bits);
        assert_int_equal(ax->page_mapped, !set);
    }
    ax_settle(ax);
    assert_active(ax, !(set && honours));
}

static void every_reason(enum ax_mode_index mode)
{
    struct ax *ax = running(mode);

    assert_active(ax, true);
    for (uint32_t reason = 0; reason < REASONS; reason++) {
        bool honours = is_avic(ax) ? honoured[reason].avic : honoured[reason].apicv;

        assert_string_equal(vapic_inhibit_name(reason), honoured[reason].name);
        if (reason == VAPIC_INHIBIT_NESTED || reason == VAPIC_INHIBIT_IRQWIN) {
            assert_int_equal(vapic_set_inhibit(&ax->vm, (enum vapic_inhibit)reason, true),
                             VAPIC_E_ARG);
            continue;
        }
        change(ax, reason, true, honours);
        change(ax, reason, false, honours);
    }
    assert_null(vapic_inhibit_name(REASONS));
    assert_int_equal(vapic_set_inhibit(&ax->vm, (enum vapic_inhibit)REASONS, true), VAPIC_E_ARG);
    ax_free(ax);
}

static void every_reason_avic(void **state)
{
    (void)state;
    every_reason(AX_MODE_AVIC);
    every_reason(AX_MODE_X2AVIC);
}

static void every_reason_apicv(void **state)
{
    (void)state;
    every_reason(AX_MODE_APICV);
    every_reason(AX_MODE_APICV_IPIV);
}

/* ---- No change ---- */

static void no_op_costs_nothing(enum ax_mode_index mode)
{
    struct ax *ax = running(mode);
    uint32_t generation = ax->vm.generation, per_call = is_avic(ax) ? 2 : 1;

    ax->locks = 0;
    /* Traced: the lines that Linux prints, and one round of the lock. */
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    assert_int_equal(lines(ax), per_call);
    assert_int_equal(ax->locks, 1);
    vapic_trace(&ax->vm, NULL, NULL);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    assert_int_equal(ax->locks, 1);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    assert_int_equal(ax->locks, 2);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    assert_int_equal(ax->locks, 2);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    assert_int_equal(ax->vm.generation, generation + 2);
    ax_free(ax);
}

static void no_op(void **state)
{
    (void)state;
    no_op_costs_nothing(AX_MODE_AVIC);
    no_op_costs_nothing(AX_MODE_APICV);
}

/* Nothing but the first reason and the last concerns anybody. */
static void two_reasons(enum ax_mode_index mode, bool first_goes_first)
{
    static const enum vapic_inhibit both[2] = {VAPIC_INHIBIT_BLOCKIRQ, VAPIC_INHIBIT_HYPERV};
    struct ax *ax = running(mode);

    vapic_set_inhibit(&ax->vm, both[0], true);
    ax_settle(ax);
    assert_active(ax, false);
    vapic_set_inhibit(&ax->vm, both[1], true);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    vapic_set_inhibit(&ax->vm, both[!first_goes_first], false);
    ax_settle(ax);
    assert_active(ax, false);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    vapic_set_inhibit(&ax->vm, both[first_goes_first], false);
    ax_settle(ax);
    assert_active(ax, true);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 2);
    assert_int_equal(mask(ax), 0);
    ax_free(ax);
}

static void two_overlap(void **state)
{
    (void)state;
    for (int order = 0; order < 2; order++) {
        two_reasons(AX_MODE_AVIC, order);
        two_reasons(AX_MODE_APICV, order);
    }
}

/* A vCPU that sleeps takes notice when it next enters; nobody wakes it for that. */
static void sleeper_is_left_alone(enum ax_mode_index mode)
{
    struct ax *ax = running(mode);

    ax_hlt(ax, 2);
    ax_settle(ax);
    assert_true(ax->v[2]->blocked);
    ax_forget(ax);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_settle(ax);
    assert_true(ax->v[2]->blocked);
    assert_int_equal(ax_count(ax, AX_NOTIFY), 0);
    assert_true(vapic_active(&ax->v[2]->apic));
    ax_post(ax, 2, 0x41, false);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 2, 0x41), 1);
    assert_false(vapic_active(&ax->v[2]->apic));
    ax_free(ax);
}

static void sleeper(void **state)
{
    (void)state;
    for (int mode = AX_MODE_AVIC; mode < AX_MODES; mode++)
        sleeper_is_left_alone((enum ax_mode_index)mode);
}

/* ---- Where reasons come from ---- */

struct source_row {
    const char *name;
    uint32_t reasons;       /* after the deed, with AVIC */
    uint32_t apicv;         /* the same with APICv */
    uint32_t offset, value; /* what vCPU 1 writes */
};

static void by_the_guest(enum ax_mode_index mode, const struct source_row *row)
{
    struct ax *ax = running(mode);
    uint32_t before = ax_read(ax, 1, row->offset);

    ax_write(ax, 1, row->offset, row->value);
    ax_settle(ax);
    if (mask(ax) != (is_avic(ax) ? row->reasons : row->apicv))
        fail_msg("%s: reasons %#x", row->name, mask(ax));
    assert_active(ax, mask(ax) == 0);
    ax_write(ax, 1, row->offset, before);
    ax_settle(ax);
    if (mask(ax) != 0)
        fail_msg("%s, undone: reasons %#x", row->name, mask(ax));
    assert_active(ax, true);
    ax_free(ax);
}

static void from_the_map(void **state)
{
    static const struct source_row rows[] = {
        {.name = "another ID",
         .reasons = BIT(APIC_ID_MODIFIED),
         .apicv = BIT(APIC_ID_MODIFIED),
         .offset = APIC_ID,
         .value = 9u << 24},
        {.name = "another's ID",
         .reasons = BIT(APIC_ID_MODIFIED) | BIT(PHYSICAL_ID_ALIASED) | BIT(LOGICAL_ID_ALIASED),
         .apicv = BIT(APIC_ID_MODIFIED) | BIT(PHYSICAL_ID_ALIASED),
         .offset = APIC_ID,
         .value = 2u << 24},
        {.name = "two bits in LDR",
         .reasons = BIT(LOGICAL_ID_ALIASED),
         .offset = APIC_LDR,
         .value = 3u << 24},
        {.name = "a logical ID alone", .offset = APIC_LDR, .value = 0x80u << 24},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        by_the_guest(AX_MODE_AVIC, &rows[i]);
        by_the_guest(AX_MODE_APICV, &rows[i]);
    }
}

static void logical_twice(void **state)
{
    struct ax *ax = running(AX_MODE_AVIC);

    (void)state;
    ax_write(ax, 0, APIC_LDR, 1u << 24);
    ax_write(ax, 1, APIC_LDR, 2u << 24);
    ax_settle(ax);
    assert_int_equal(mask(ax), 0);
    ax_write(ax, 2, APIC_LDR, 2u << 24);
    ax_settle(ax);
    assert_int_equal(mask(ax), BIT(LOGICAL_ID_ALIASED));
    assert_active(ax, false);
    /* IPIs to the logical ID reach both. */
    ax_forget(ax);
    ax_ipi(ax, 0, 0x55 | APIC_ICR_LOGICAL, 2);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x55), 1);
    assert_int_equal(ax_delivered(ax, 2, 0x55), 1);
    ax_write(ax, 2, APIC_LDR, 4u << 24);
    ax_settle(ax);
    assert_int_equal(mask(ax), 0);
    assert_active(ax, true);
    ax_free(ax);
}

static void base_moved(void **state)
{
    static const enum ax_mode_index modes[] = {AX_MODE_AVIC, AX_MODE_APICV};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ax *ax = running(modes[i]);
        uint64_t base;

        assert_int_equal(ax_rdmsr(ax, 1, 0x1B, &base), AX_DONE);
        assert_int_equal(ax_wrmsr(ax, 1, 0x1B, base + 0x10000), AX_DONE);
        ax_settle(ax);
        assert_int_equal(mask(ax), BIT(APIC_BASE_MODIFIED));
        assert_active(ax, false);
        assert_int_equal(ax_wrmsr(ax, 1, 0x1B, base), AX_DONE);
        ax_settle(ax);
        assert_int_equal(mask(ax), BIT(APIC_BASE_MODIFIED));
        for (uint32_t n = 0; n < VCPUS; n++)
            vapic_reset(&ax->v[n]->apic);
        assert_int_equal(mask(ax), BIT(APIC_BASE_MODIFIED));
        ax_free(ax);
    }
}

/* One vCPU's own reason: its peers stay as they are. */
static void nested_is_one_vcpus(void **state)
{
    struct ax *ax = running(AX_MODE_AVIC);

    (void)state;
    ax_leave(ax, 1);
    vapic_nested_enter(&ax->v[1]->apic, NULL);
    ax_settle(ax);
    assert_false(vapic_active(&ax->v[1]->apic));
    assert_true(vapic_active(&ax->v[0]->apic));
    assert_int_equal(mask(ax), 0);
    assert_int_equal(lines(ax), 0);
    ax_leave(ax, 1);
    vapic_nested_exit(&ax->v[1]->apic);
    ax_settle(ax);
    assert_active(ax, true);
    ax_free(ax);
}

/* ABSENT until the first vCPU is there, DISABLED for good and instead of it. */
static void disabled_for_good(void **state)
{
    static const enum ax_mode_index modes[] = {AX_MODE_AVIC, AX_MODE_APICV};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ax_options options = ax_options_for(modes[i], VCPUS);
        struct ax *ax;

        options.trace = true;
        options.accel.disabled = true;
        ax = ax_new(&options);
        ax_settle(ax);
        assert_int_equal(mask(ax), BIT(DISABLED));
        assert_active(ax, false);
        ax_forget(ax);
        vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
        vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_DISABLED, false);
        ax_write(ax, 1, APIC_ID, 9u << 24);
        ax_settle(ax);
        assert_int_equal(lines(ax), 0);
        assert_int_equal(mask(ax), BIT(DISABLED));
        assert_int_equal(ax_count(ax, AX_KICK_ALL), 0);
        ax_free(ax);
    }
}

/* ---- The access page ---- */

/* vCPU 0 goes to x2APIC mode while vCPU 1 uses the page: gone before vCPU 0's first instruction. */
static void hybrid_withdraws_the_page(void **state)
{
    struct ax *ax = running(AX_MODE_AVIC);
    uint64_t base;

    (void)state;
    ax_write(ax, 1, APIC_TPR, 0x10);
    assert_true(ax->page_mapped);
    assert_int_equal(ax_rdmsr(ax, 0, 0x1B, &base), AX_DONE);
    assert_int_equal(ax_wrmsr(ax, 0, 0x1B, base | APIC_BASE_EXTD), AX_DONE);
    ax_enter(ax, 0);
    assert_false(ax->page_mapped);
    assert_true(vapic_active(&ax->v[0]->apic));
    ax_write(ax, 1, APIC_TPR, 0x20);
    assert_int_equal(ax_read(ax, 1, APIC_TPR), 0x20);
    assert_int_equal(mask(ax), 0);
    for (uint32_t n = 0; n < VCPUS; n++) {
        ax_leave(ax, n);
        vapic_reset(&ax->v[n]->apic);
        ax->v[n]->woken = ax->v[n]->blocked;
    }
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    ax_settle(ax);
    assert_false(ax->page_mapped);
    assert_false(vapic_access_page(&ax->vm));
    ax_free(ax);
}

/* Where x2APIC is virtualized too it must not go away. */
static void page_stays(void **state)
{
    static const enum ax_mode_index modes[] = {AX_MODE_X2AVIC, AX_MODE_APICV};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ax *ax = running(modes[i]);
        uint64_t base;

        assert_int_equal(ax_rdmsr(ax, 0, 0x1B, &base), AX_DONE);
        assert_int_equal(ax_wrmsr(ax, 0, 0x1B, base | APIC_BASE_EXTD), AX_DONE);
        ax_settle(ax);
        assert_true(ax->page_mapped);
        assert_active(ax, true);
        ax_free(ax);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reason_avic),
        cmocka_unit_test(every_reason_apicv),
        cmocka_unit_test(no_op),
        cmocka_unit_test(two_overlap),
        cmocka_unit_test(sleeper),
        cmocka_unit_test(from_the_map),
        cmocka_unit_test(logical_twice),
        cmocka_unit_test(base_moved),
        cmocka_unit_test(nested_is_one_vcpus),
        cmocka_unit_test(disabled_for_good),
        cmocka_unit_test(hybrid_withdraws_the_page),
        cmocka_unit_test(page_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
