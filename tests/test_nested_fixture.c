/* SPDX-License-Identifier: MIT */
/* The fixture of nested tests itself: does the world of three levels run at all, and do its checks
 * notice what they are for? */
#include "nested_fixture.h"

#define IPI (APIC_DM_FIXED | APIC_ICR_ASSERT)

/* ---- Everybody runs, and hears of everything once ---- */

struct world {
    const char *name;
    struct nx_options options;
};

static const struct world worlds[] = {
    {"AMD, nothing", {.kind = VAPIC_ACCEL_AVIC}},
    {"AMD, nothing, view",
     {.kind = VAPIC_ACCEL_AVIC, .offered = VAPIC_NESTED_AVIC, .features = VAPIC_ACCEL_IPIV}},
    {"AMD, nothing, HLT inside", {.kind = VAPIC_ACCEL_AVIC, .hlt_inside = true}},
    {"AMD, nothing, HLT inside, view",
     {.kind = VAPIC_ACCEL_AVIC, .offered = VAPIC_NESTED_AVIC, .hlt_inside = true}},
    {"AMD, AVIC, dummy",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_AVIC,
      .l2 = NX_L2_AVIC}},
    {"AMD, AVIC, shadow",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_AVIC,
      .vcpus = 4}},
    {"AMD, AVIC, shadow, HLT inside",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_AVIC,
      .hlt_inside = true}},
    {"AMD, AVIC, L1 not accelerated",
     {.kind = VAPIC_ACCEL_AVIC,
      .disabled = true,
      .offered = VAPIC_NESTED_AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_AVIC}},
    {"AMD, x2AVIC, shadow, L1 in x2APIC mode",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
      .l1_x2apic = true,
      .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_X2AVIC}},
    {"AMD, x2AVIC, dummy",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
      .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC,
      .l2 = NX_L2_X2AVIC,
      .vcpus = 3}},
    {"Intel, nothing", {.kind = VAPIC_ACCEL_APICV}},
    {"Intel, nothing, view", {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV}},
    {"Intel, nothing, HLT inside", {.kind = VAPIC_ACCEL_APICV, .hlt_inside = true}},
    {"Intel, nothing, HLT inside, view, no acknowledge",
     {.kind = VAPIC_ACCEL_APICV,
      .offered = VAPIC_NESTED_APICV,
      .hlt_inside = true,
      .no_ack = true}},
    {"Intel, APICv",
     {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV, .l2 = NX_L2_APICV}},
    {"Intel, APICv, no acknowledge, L1 not accelerated",
     {.kind = VAPIC_ACCEL_APICV,
      .disabled = true,
      .offered = VAPIC_NESTED_APICV,
      .l2 = NX_L2_APICV,
      .no_ack = true}},
    {"Intel, posted",
     {.kind = VAPIC_ACCEL_APICV,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED,
      .l2 = NX_L2_POSTED}},
    {"Intel, posted, HLT inside, x2APIC",
     {.kind = VAPIC_ACCEL_APICV,
      .l1_x2apic = true,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED,
      .l2 = NX_L2_POSTED,
      .l2_x2apic = true,
      .hlt_inside = true,
      .vcpus = 4}},
    {"Intel, IPIv, dummy",
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
      .l2 = NX_L2_IPIV}},
    {"Intel, IPIv, shadow",
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_IPIV,
      .vcpus = 4}},
    {"Intel, IPIv, shadow, HLT inside, x2APIC",
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .l1_x2apic = true,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_IPIV,
      .l2_x2apic = true,
      .hlt_inside = true}},
};

static void exchange(struct nx *nx, uint32_t from, uint32_t to, uint8_t vector)
{
    nx_l2_ipi(nx, from, IPI | vector, to);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, to, vector), 1);
    nx_l2_eoi(nx, to);
    assert_false(nx_l2_bit(nx, to, APIC_ISR, vector));
}

/* IPIs both ways, L1's devices and L0's, self IPI, TPR. */
static void talk(struct nx *nx)
{
    exchange(nx, 0, 1, 0x51);
    exchange(nx, 1, 0, 0x52);
    exchange(nx, 0, 0, 0x53);
    assert_true(nx_l2_interrupt(nx, nx_spare(nx), 1, 0x61, false));
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x61), 1);
    nx_l2_eoi(nx, 1);
    assert_true(nx_l1_interrupt(nx, 0, 0x71));
    assert_true(nx_l1_interrupt(nx, nx_spare(nx), 0x72));
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x71), 1);
    assert_int_equal(nx_l1_delivered(nx, nx_spare(nx), 0x72), 1);
    assert_true(nx_in_l2(nx, 0));
    nx_l2_write_cr8(nx, 1, 6);
    nx_l2_ipi(nx, 0, IPI | 0x54, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x54), 0);
    nx_l2_write_cr8(nx, 1, 0);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x54), 1);
    nx_l2_eoi(nx, 1);
}

/* HLT ends with an IPI, with a device's interrupt, and not with one of L1's. */
static void sleep_and_wake(struct nx *nx)
{
    struct nx_op read = {NX_CR8, false, 0, 0, 0};

    nx_l2_hlt(nx, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_execute(nx, 1, &read), NX_STUCK);
    nx_l1_interrupt(nx, 1, 0x73);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 1, 0x73), 1);
    exchange(nx, 0, 1, 0x55);
    assert_int_equal(nx_l2_execute(nx, 1, &read), NX_DONE);
    nx_l2_hlt(nx, 1);
    nx_settle(nx);
    assert_true(nx_l2_interrupt(nx, nx_spare(nx), 1, 0x62, false));
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x62), 1);
    nx_l2_eoi(nx, 1);
}

/* Either scheduler takes a vCPU away, and brings it back somewhere else. */
static void schedule(struct nx *nx)
{
    nx_deschedule(nx, 1);
    nx_l2_ipi(nx, 0, IPI | 0x56, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x56), 0);
    nx_schedule(nx, 1, nx->cpu_count - 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x56), 1);
    nx_l2_eoi(nx, 1);
    nx_l1_deschedule(nx, 1);
    nx_l2_ipi(nx, 0, IPI | 0x57, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x57), 0);
    nx_l1_schedule(nx, 1, nx_spare(nx));
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x57), 1);
    nx_l2_eoi(nx, 1);
    exchange(nx, 0, 1, 0x58);
    exchange(nx, 1, 0, 0x59);
}

static void toggle(struct nx *nx)
{
    nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, true);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5A);
    nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, false);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5B);
    nx_l1_toggle_inhibit(nx, 0, VAPIC_INHIBIT_BLOCKIRQ, true);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5C);
    nx_l1_toggle_inhibit(nx, 0, VAPIC_INHIBIT_BLOCKIRQ, false);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5D);
}

static void restore(struct nx *nx)
{
    nx_save_restore(nx, 0);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5E);
    exchange(nx, 1, 0, 0x5F);
}

static void test_worlds(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++) {
        struct nx *nx = nx_new(&worlds[i].options);

        print_message("# %s\n", worlds[i].name);
        assert_true(nx_in_l2(nx, 0));
        assert_true(nx_in_l2(nx, 1));
        assert_false(nx_in_l2(nx, nx_spare(nx)));
        talk(nx);
        sleep_and_wake(nx);
        schedule(nx);
        toggle(nx);
        restore(nx);
        nx_free(nx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worlds),
    };

    return cmocka_run_group_tests_name("nested_fixture", tests, NULL, NULL);
}
