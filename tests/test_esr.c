/* SPDX-License-Identifier: MIT */
/*
 * The error status register: what sets which bit, how a write samples, how the error LVT reports.
 * [SDM3 12.5.3]
 */
#include "fixture.h"

#define ERROR_VECTOR 0xFE

static struct fx *new_fx(void)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});

    fx_set(fx, 0, APIC_LVT_ERROR, ERROR_VECTOR);
    return fx;
}

static uint32_t sample(struct fx *fx, uint32_t n)
{
    fx_set(fx, n, APIC_ESR, 0);
    return fx_get(fx, n, APIC_ESR);
}

static void touch_reserved(struct fx *fx)
{
    fx_read(fx, 0, 0x3A0);
}

/* ---- What sets a bit ---- */

/* Bit 5: a fixed or lowest-priority IPI with a vector below 16, whatever it is addressed to. */
static const struct {
    uint32_t icr;
    uint32_t expected;
} sends[] = {
    {APIC_DM_FIXED | 15, APIC_ESR_SEND_ILLEGAL},
    {APIC_DM_FIXED | 0, APIC_ESR_SEND_ILLEGAL},
    {APIC_DM_FIXED | 16, 0},
    {APIC_DM_LOWEST | 15, APIC_ESR_SEND_ILLEGAL},
    {APIC_DM_LOWEST | 16, 0},
    {APIC_ICR_SELF | 15, APIC_ESR_SEND_ILLEGAL},
    {APIC_ICR_ALL_EXCL | 15, APIC_ESR_SEND_ILLEGAL},
    {APIC_ICR_LOGICAL | 15, APIC_ESR_SEND_ILLEGAL},
    {APIC_DM_SMI, 0},
    {APIC_DM_NMI, 0},
    {APIC_DM_INIT | APIC_ICR_ASSERT, 0},
    {APIC_DM_SIPI | 8, 0},
};

static void sends_that_are_illegal(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        for (uint32_t n = 0; n < sizeof(sends) / sizeof(sends[0]); n++) {
            struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2, .x2apic = x2apic != 0});

            fx_icr(fx, 0, sends[n].icr, 1);
            fx_equal(sample(fx, 0) & APIC_ESR_SEND_ILLEGAL, sends[n].expected, "ICR %x, x2apic %d",
                     sends[n].icr, x2apic);
            fx_free(fx);
        }
    }
}

/* [SDM3 12.12.11] */
static void self_ipi_register(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.x2apic = true});

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, 0x83F, 15), VAPIC_OK);
    assert_int_equal(sample(fx, 0) & APIC_ESR_SEND_ILLEGAL, APIC_ESR_SEND_ILLEGAL);
    assert_int_equal(fx_wrmsr(fx, 0, 0x83F, 16), VAPIC_OK);
    assert_int_equal(sample(fx, 0), 0);
    fx_free(fx);
}

/* Bit 6: a message with such a vector arrives. */
static void received_illegal_vector(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_msg msg = {.icr = APIC_DM_FIXED | 7, .source = VAPIC_FROM_DEVICE};

    (void)state;
    vapic_send(&fx->vm, msg);
    fx_step(fx, 0, FX_CAN_ALL);
    assert_int_equal(sample(fx, 0), APIC_ESR_RECV_ILLEGAL);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

/* ... or the APIC's own LVT fires one; writing it there is no error. [SDM3 12.5.2] */
static void lvt_with_an_illegal_vector(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_THERMAL, 0x0F);
    assert_int_equal(sample(fx, 0), 0);
    vapic_local_event(&fx->v[0], APIC_LVT_THERMAL);
    fx_step(fx, 0, FX_CAN_ALL);
    assert_int_equal(sample(fx, 0), APIC_ESR_RECV_ILLEGAL);
    fx_free(fx);
}

static void timer_with_an_illegal_vector(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, 0);
    fx_set(fx, 0, APIC_TMICT, 10);
    fx->now.ns += 1000;
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(sample(fx, 0), APIC_ESR_RECV_ILLEGAL);
    fx_free(fx);
}

/* Bit 4: lowest priority where it is not supported; an illegal vector does not add bit 5. */
static void redirectable_ipi(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .x2apic = true,
        .config = {.knobs = VAPIC_PROFILE_MANUAL & ~VAPIC_KNOB_LOWEST_IN_X2APIC,
                   .knobs_set = true}});

    (void)state;
    fx_icr(fx, 0, APIC_DM_LOWEST | 0x51, 0);
    assert_int_equal(sample(fx, 0), APIC_ESR_REDIRECTABLE);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_icr(fx, 0, APIC_DM_LOWEST | 15, 0);
    assert_int_equal(sample(fx, 0), APIC_ESR_REDIRECTABLE);
    fx_free(fx);
}

/* ---- Latch and register ---- */

/* The errors show after a write only. */
static void a_write_samples(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    assert_int_equal(fx_get(fx, 0, APIC_ESR), 0);
    fx_set(fx, 0, APIC_ESR, 0);
    assert_int_equal(fx_get(fx, 0, APIC_ESR), APIC_ESR_ILLEGAL_REG);
    assert_int_equal(fx_get(fx, 0, APIC_ESR), APIC_ESR_ILLEGAL_REG);
    fx_free(fx);
}

static void two_writes_give_zero(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    fx_set(fx, 0, APIC_ESR, 0);
    assert_int_equal(sample(fx, 0), 0);
    fx_free(fx);
}

static void bits_add_up(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    fx_icr(fx, 0, 5, 1);
    assert_int_equal(sample(fx, 0), APIC_ESR_ILLEGAL_REG | APIC_ESR_SEND_ILLEGAL);
    fx_free(fx);
}

static void any_value_samples_in_xapic_mode(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    fx_write(fx, 0, APIC_ESR, 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_ESR), APIC_ESR_ILLEGAL_REG);
    fx_free(fx);
}

static void errors_are_per_apic(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    assert_int_equal(sample(fx, 1), 0);
    fx_free(fx);
}

static void trap_26_no_errors(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    assert_int_equal(sample(fx, 0), 0);
    assert_int_equal(sample(fx, 0), 0);
    fx_free(fx);
}

/* ---- LVT error ---- */

static void error_interrupt(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    assert_int_equal(fx_take_eoi(fx, 0), ERROR_VECTOR);
    assert_false(fx_bit(fx, 0, APIC_TMR, ERROR_VECTOR));
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void a_latched_bit_does_not_refire(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    assert_int_equal(fx_take_eoi(fx, 0), ERROR_VECTOR);
    touch_reserved(fx);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_set(fx, 0, APIC_ESR, 0);
    touch_reserved(fx);
    assert_int_equal(fx_take(fx, 0), ERROR_VECTOR);
    fx_free(fx);
}

static void another_bit_fires_again(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    touch_reserved(fx);
    assert_int_equal(fx_take_eoi(fx, 0), ERROR_VECTOR);
    fx_icr(fx, 0, 5, 1);
    assert_int_equal(fx_take(fx, 0), ERROR_VECTOR);
    fx_free(fx);
}

static void masked_error_is_latched_only(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    fx_set(fx, 0, APIC_LVT_ERROR, APIC_LVT_MASKED | ERROR_VECTOR);
    touch_reserved(fx);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_set(fx, 0, APIC_LVT_ERROR, ERROR_VECTOR);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(sample(fx, 0), APIC_ESR_ILLEGAL_REG);
    fx_free(fx);
}

/* An error entry with an illegal vector is an error of its own and must not recurse. */
static void error_entry_with_an_illegal_vector(void **state)
{
    struct fx *fx = new_fx();

    (void)state;
    fx_set(fx, 0, APIC_LVT_ERROR, 3);
    touch_reserved(fx);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(sample(fx, 0), APIC_ESR_ILLEGAL_REG | APIC_ESR_RECV_ILLEGAL);
    fx_free(fx);
}

static void received_error_interrupts_the_receiver(void **state)
{
    struct fx *fx = new_fx();
    struct vapic_msg msg = {.icr = APIC_DM_FIXED | 7, .source = VAPIC_FROM_DEVICE};

    (void)state;
    vapic_send(&fx->vm, msg);
    assert_int_equal(fx_take(fx, 0), ERROR_VECTOR);
    fx_free(fx);
}

/* ---- Without the knob: as Linux, nothing at all ---- */

static void without_the_knob(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .config = {.knobs = VAPIC_PROFILE_MANUAL & ~VAPIC_KNOB_ESR, .knobs_set = true}});

    (void)state;
    fx_set(fx, 0, APIC_LVT_ERROR, ERROR_VECTOR);
    touch_reserved(fx);
    fx_icr(fx, 0, APIC_ICR_SELF | 5, 0);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(sample(fx, 0), 0);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_that_are_illegal),
        cmocka_unit_test(self_ipi_register),
        cmocka_unit_test(received_illegal_vector),
        cmocka_unit_test(lvt_with_an_illegal_vector),
        cmocka_unit_test(timer_with_an_illegal_vector),
        cmocka_unit_test(redirectable_ipi),
        cmocka_unit_test(a_write_samples),
        cmocka_unit_test(two_writes_give_zero),
        cmocka_unit_test(bits_add_up),
        cmocka_unit_test(any_value_samples_in_xapic_mode),
        cmocka_unit_test(errors_are_per_apic),
        cmocka_unit_test(trap_26_no_errors),
        cmocka_unit_test(error_interrupt),
        cmocka_unit_test(a_latched_bit_does_not_refire),
        cmocka_unit_test(another_bit_fires_again),
        cmocka_unit_test(masked_error_is_latched_only),
        cmocka_unit_test(error_entry_with_an_illegal_vector),
        cmocka_unit_test(received_error_interrupts_the_receiver),
        cmocka_unit_test(without_the_knob),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
