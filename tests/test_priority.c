/* SPDX-License-Identifier: MIT */
/*
 * IRR, ISR, TPR, PPR and CR8: which vector is delivered when, and what blocks it.
 * [SDM3 12.8.3] [SDM3 12.8.4]
 */
#include "fixture.h"

static void post(struct fx *fx, uint8_t vector)
{
    vapic_post(&fx->v[0], vector, false, NULL);
}

static void take(struct fx *fx, int vector)
{
    assert_int_equal(fx_take(fx, 0), vector);
}

/* ---- PPR and APR ---- */

static const struct {
    uint8_t tpr, isr;
    uint32_t ppr;
} ppr_rows[] = {
    {0x00, 0, 0x00},    {0x20, 0, 0x20},    {0x2F, 0, 0x2F},    {0x0F, 0, 0x0F},
    {0xFF, 0, 0xFF},    {0x00, 0x51, 0x50}, {0x00, 0xFF, 0xF0}, {0x4F, 0x51, 0x50},
    {0x50, 0x51, 0x50}, {0x5A, 0x51, 0x5A}, {0x61, 0x51, 0x61}, {0xF0, 0x51, 0xF0},
};

/* [SDM3 12.8.3.1] */
static void ppr_from_tpr_and_isr(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(ppr_rows) / sizeof(ppr_rows[0]); n++) {
        struct fx *fx = fx_new(NULL);

        if (ppr_rows[n].isr != 0) {
            post(fx, ppr_rows[n].isr);
            take(fx, ppr_rows[n].isr);
        }
        fx_set(fx, 0, APIC_TPR, ppr_rows[n].tpr);
        fx_equal(fx_get(fx, 0, APIC_PPR), ppr_rows[n].ppr, "TPR %x, ISR %x", ppr_rows[n].tpr,
                 ppr_rows[n].isr);
        fx_free(fx);
    }
}

static const struct {
    uint8_t tpr, isr, irr;
    uint32_t intel, amd;
} apr_rows[] = {
    {0x00, 0, 0, 0x00, 0x00},       {0x65, 0, 0, 0x65, 0x65},       {0x65, 0x51, 0x41, 0x65, 0x65},
    {0x00, 0, 0x71, 0x70, 0x70},    {0x00, 0x51, 0x41, 0x40, 0x50}, {0x30, 0x51, 0x11, 0x10, 0x50},
    {0x70, 0x51, 0x81, 0x80, 0x80},
};

/* [SDM3 12.6.2.4] [APM2 16.6.4] */
static void apr_from_tpr_isr_irr(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(apr_rows) / sizeof(apr_rows[0]); n++) {
        for (int amd = 0; amd < 2; amd++) {
            struct fx *fx = fx_new(&(struct fx_options){.features = amd ? VAPIC_FEATURE_AMD : 0});

            if (apr_rows[n].isr != 0) {
                post(fx, apr_rows[n].isr);
                take(fx, apr_rows[n].isr);
            }
            if (apr_rows[n].irr != 0)
                post(fx, apr_rows[n].irr);
            fx_set(fx, 0, APIC_TPR, apr_rows[n].tpr);
            fx_equal(fx_get(fx, 0, APIC_APR) & (amd ? 0xF0 : 0xFF),
                     amd ? apr_rows[n].amd & 0xF0 : apr_rows[n].intel,
                     "TPR %x, ISR %x, IRR %x, amd %d", apr_rows[n].tpr, apr_rows[n].isr,
                     apr_rows[n].irr, amd);
            fx_free(fx);
        }
    }
}

/* ---- What may be delivered ---- */

/* Class against class, every combination; the low nibble of TPR never matters. [SDM3 12.8.3.1] */
static void tpr_class_against_vector_class(void **state)
{
    (void)state;
    for (uint32_t x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(&(struct fx_options){.x2apic = x2apic != 0});

        for (uint32_t tpr = 0; tpr < 256; tpr += tpr % 16 == 0 ? 15 : 1) {
            for (uint32_t class = 1; class < 16; class ++) {
                uint8_t vector = (uint8_t)(class << 4 | (tpr & 15));
                bool through = class > tpr >> 4;

                fx_set(fx, 0, APIC_TPR, tpr);
                post(fx, vector);
                fx_equal(fx_take_eoi(fx, 0), through ? vector : (uint64_t)-1, "TPR %x, vector %x",
                         tpr, vector);
                fx_set(fx, 0, APIC_TPR, 0);
                if (!through)
                    fx_equal(fx_take_eoi(fx, 0), vector, "vector %x afterwards", vector);
            }
        }
        fx_free(fx);
    }
}

static void trap_32_tpr_class(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x51);
    fx_set(fx, 0, APIC_TPR, 0x50);
    take(fx, -1);
    fx_set(fx, 0, APIC_TPR, 0x40);
    take(fx, 0x51);
    fx_free(fx);
}

static void trap_31_tpr_lowered_in_steps(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0xF0);
    post(fx, 32);
    post(fx, 62);
    take(fx, -1);
    fx_set(fx, 0, APIC_TPR, 0x20);
    assert_int_equal(fx_take_eoi(fx, 0), 62);
    take(fx, -1);
    fx_set(fx, 0, APIC_TPR, 0);
    take(fx, 32);
    fx_free(fx);
}

static void same_class_as_in_service_waits(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x66);
    take(fx, 0x66);
    post(fx, 0x6F);
    take(fx, -1);
    fx_eoi(fx, 0);
    take(fx, 0x6F);
    fx_free(fx);
}

static void lower_class_than_in_service_waits(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x66);
    take(fx, 0x66);
    post(fx, 0x3F);
    take(fx, -1);
    fx_eoi(fx, 0);
    take(fx, 0x3F);
    fx_free(fx);
}

static void higher_class_nests(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t class = 1; class < 16; class ++) {
        post(fx, (uint8_t)(class << 4 | 3));
        take(fx, (int)(class << 4 | 3));
    }
    for (uint32_t class = 15; class >= 1; class --) {
        fx_equal(fx_get(fx, 0, APIC_PPR), class << 4, "PPR, nested");
        fx_eoi(fx, 0);
    }
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0);
    fx_free(fx);
}

/* [SDM3 12.8.4] all 240 at once come out by priority, highest first */
static void every_vector_in_order(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(&(struct fx_options){.x2apic = x2apic != 0});

        for (uint32_t vector = 16; vector < 256; vector++)
            post(fx, (uint8_t)vector);
        for (int vector = 255; vector >= 16; vector--)
            fx_equal(fx_take_eoi(fx, 0), vector, "next vector");
        take(fx, -1);
        fx_free(fx);
    }
}

static void trap_29_two_vectors(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x66);
    post(fx, 0x78);
    assert_int_equal(fx_step(fx, 0, 0).inject, VAPIC_INJECT_NONE);
    assert_int_equal(fx_take_eoi(fx, 0), 0x78);
    assert_int_equal(fx_take_eoi(fx, 0), 0x66);
    fx_free(fx);
}

static void trap_30_two_vectors_of_one_class(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_icr(fx, 0, APIC_ICR_SELF | 32, 0);
    fx_icr(fx, 0, APIC_ICR_SELF | 33, 0);
    assert_int_equal(fx_take_eoi(fx, 0), 33);
    assert_int_equal(fx_take_eoi(fx, 0), 32);
    take(fx, -1);
    fx_free(fx);
}

/* ---- IRR and ISR ---- */

static void acknowledge_moves_irr_to_isr(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t vector = 16; vector < 256; vector++) {
        uint8_t v = (uint8_t)vector;

        post(fx, v);
        fx_equal(fx_bit(fx, 0, APIC_IRR, v), 1, "IRR %x pending", v);
        fx_equal(fx_bit(fx, 0, APIC_ISR, v), 0, "ISR %x pending", v);
        fx_equal(fx_take(fx, 0), v, "taken");
        fx_equal(fx_bit(fx, 0, APIC_IRR, v), 0, "IRR %x in service", v);
        fx_equal(fx_bit(fx, 0, APIC_ISR, v), 1, "ISR %x in service", v);
        fx_eoi(fx, 0);
        fx_equal(fx_bit(fx, 0, APIC_ISR, v), 0, "ISR %x after EOI", v);
    }
    fx_free(fx);
}

/* At most one instance waits and one is in service. [SDM3 12.8.4] */
static void trap_34_same_vector_twice(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x51);
    post(fx, 0x51);
    take(fx, 0x51);
    take(fx, -1);
    post(fx, 0x51);
    post(fx, 0x51);
    take(fx, -1);
    fx_eoi(fx, 0);
    take(fx, 0x51);
    fx_eoi(fx, 0);
    take(fx, -1);
    fx_free(fx);
}

/* TMR is the trigger mode of the last accepted message, per APIC. [SDM3 12.8.4] */
static void trap_36_tmr_follows_the_message(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
    static const bool modes[] = {false, true, true, false, true, false};

    (void)state;
    for (uint32_t n = 0; n < sizeof(modes); n++) {
        if (n > 0)
            fx_equal(fx_bit(fx, 0, APIC_TMR, 0x51), modes[n - 1], "TMR before, step %u", n);
        vapic_post(&fx->v[0], 0x51, modes[n], NULL);
        take(fx, 0x51);
        fx_equal(fx_bit(fx, 0, APIC_TMR, 0x51), modes[n], "TMR inside, step %u", n);
        fx_eoi(fx, 0);
        fx_equal(fx_bit(fx, 0, APIC_TMR, 0x51), modes[n], "TMR after EOI, step %u", n);
        fx_equal(fx_bit(fx, 1, APIC_TMR, 0x51), 0, "TMR of the other APIC");
    }
    fx_free(fx);
}

/* ... also when the vector was pending already. */
static void tmr_follows_a_coalesced_message(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (int level = 0; level < 2; level++) {
        vapic_post(&fx->v[0], 0x51, !level, NULL);
        vapic_post(&fx->v[0], 0x51, level, NULL);
        fx_equal(fx_bit(fx, 0, APIC_TMR, 0x51), level, "not harvested in between");
        vapic_post(&fx->v[0], 0x52, !level, NULL);
        assert_true(fx_bit(fx, 0, APIC_IRR, 0x52));
        vapic_post(&fx->v[0], 0x52, level, NULL);
        fx_equal(fx_bit(fx, 0, APIC_TMR, 0x52), level, "harvested in between");
        while (fx_take_eoi(fx, 0) >= 0)
            continue;
    }
    fx_free(fx);
}

static void accepted_while_blocked(void **state)
{
    struct fx *fx = fx_new(NULL);
    bool accepted = false;

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0xFF);
    vapic_post(&fx->v[0], 0x51, false, &accepted);
    assert_true(accepted);
    assert_true(fx_bit(fx, 0, APIC_IRR, 0x51));
    fx_free(fx);
}

/* [SDM3 12.5.2] Vectors below 16 are illegal: refused here, a dead IRR bit on Linux. */
static void illegal_vectors(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint8_t vector = 0; vector < 16; vector++) {
        post(fx, vector);
        take(fx, -1);
        fx_equal(fx_bit(fx, 0, APIC_IRR, vector), 0, "vector %u", vector);
    }
    fx_free(fx);
}

static void illegal_vectors_without_esr(void **state)
{
    struct fx *fx =
        fx_new(&(struct fx_options){.config = {.knobs = VAPIC_PROFILE_KVM, .knobs_set = true}});

    (void)state;
    for (uint8_t vector = 0; vector < 16; vector++) {
        post(fx, vector);
        take(fx, -1);
        fx_equal(fx_bit(fx, 0, APIC_IRR, vector), 1, "vector %u", vector);
    }
    post(fx, 0x51);
    take(fx, 0x51);
    fx_free(fx);
}

/* ---- TPR, CR8 and the host ---- */

/* [SDM3 12.8.6.1] */
static void cr8_of_the_entry(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t tpr = 0; tpr < 256; tpr += 0x11) {
        fx_set(fx, 0, APIC_TPR, tpr);
        fx_equal(fx_step(fx, 0, 0).cr8, tpr >> 4, "TPR %x", tpr);
        fx_equal(fx_get(fx, 0, APIC_TPR), tpr, "TPR %x after an exit with the same CR8", tpr);
    }
    fx_free(fx);
}

static void cr8_of_the_exit(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0x35);
    fx_peek(fx, 0, 0);
    vapic_exit(&fx->v[0], 7, true);
    assert_int_equal(fx_get(fx, 0, APIC_TPR), 0x70);
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0x70);
    assert_int_equal(vapic_read_cr8(&fx->v[0]), 7);
    fx_free(fx);
}

static const struct {
    uint8_t tpr, isr, irr;
    uint8_t threshold;
} threshold_rows[] = {
    {0x00, 0, 0, 0},    {0x50, 0, 0, 0},       {0x50, 0, 0x51, 5},    {0xF0, 0, 0x51, 5},
    {0x4F, 0, 0x51, 0}, {0x00, 0x61, 0x51, 0}, {0x70, 0x61, 0x6F, 0}, {0x70, 0x31, 0x51, 5},
};

/* What lets the host see a CR8 write that unblocks a vector. [SDM3 12.8.6] */
static void trap_38_tpr_threshold(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(threshold_rows) / sizeof(threshold_rows[0]); n++) {
        struct fx *fx = fx_new(NULL);
        struct vapic_entry entry;

        if (threshold_rows[n].isr != 0) {
            post(fx, threshold_rows[n].isr);
            take(fx, threshold_rows[n].isr);
        }
        fx_set(fx, 0, APIC_TPR, threshold_rows[n].tpr);
        if (threshold_rows[n].irr != 0)
            post(fx, threshold_rows[n].irr);
        entry = fx_peek(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);
        fx_equal(entry.tpr_threshold, threshold_rows[n].threshold, "row %u", n);
        if (entry.tpr_threshold != 0) {
            vapic_exit(&fx->v[0], entry.tpr_threshold - 1, true);
            fx_equal(fx_take(fx, 0), threshold_rows[n].irr, "row %u, CR8 lowered", n);
        }
        fx_free(fx);
    }
}

static void trap_39_interrupt_shadow(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    entry = fx_step(fx, 0, VAPIC_IF); /* the shadow of STI: IF, and yet nothing may be injected */
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_true(entry.irq_window);
    assert_true(fx_bit(fx, 0, APIC_IRR, 0x51));
    entry = fx_step(fx, 0, VAPIC_IF | VAPIC_CAN_IRQ);
    assert_int_equal(entry.vector, 0x51);
    assert_false(entry.irq_window);
    fx_free(fx);
}

static void window_only_for_a_deliverable_vector(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_false(fx_step(fx, 0, 0).irq_window);
    fx_set(fx, 0, APIC_TPR, 0x60);
    post(fx, 0x51);
    assert_false(fx_step(fx, 0, 0).irq_window);
    fx_set(fx, 0, APIC_TPR, 0);
    assert_true(fx_step(fx, 0, 0).irq_window);
    fx_free(fx);
}

static void window_for_the_next_vector(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    post(fx, 0x51);
    post(fx, 0x81);
    entry = fx_step(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);
    assert_int_equal(entry.vector, 0x81);
    assert_false(entry.irq_window); /* 51 waits for the EOI, a window would not help it */
    fx_free(fx);
}

/* ---- Software disable [SDM3 12.4.7.2] ---- */

static void trap_37_soft_disable_holds_irr(void **state)
{
    (void)state;
    for (int kvm = 0; kvm < 2; kvm++) {
        struct fx *fx = fx_new(
            &(struct fx_options){.config = {.knobs = kvm ? VAPIC_PROFILE_KVM : VAPIC_PROFILE_MANUAL,
                                            .knobs_set = true}});

        post(fx, 0x51);
        fx_set(fx, 0, APIC_SVR, 0xFF);
        take(fx, kvm ? 0x51 : -1);
        fx_set(fx, 0, APIC_SVR, 0x1FF);
        take(fx, kvm ? -1 : 0x51);
        fx_free(fx);
    }
}

static void soft_disable_refuses_new_vectors(void **state)
{
    struct fx *fx = fx_new(NULL);
    bool accepted = true;

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0xFF);
    vapic_post(&fx->v[0], 0x51, false, &accepted);
    assert_false(accepted);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    take(fx, -1);
    fx_free(fx);
}

static void soft_disable_keeps_isr(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    post(fx, 0x51);
    take(fx, 0x51);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_eoi(fx, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* Nothing in this model races between choosing and acknowledging, so none arises. [SDM3 12.9] */
static void no_spurious_vector(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0x1EF);
    post(fx, 0x51);
    fx_peek(fx, 0, VAPIC_IF | VAPIC_CAN_IRQ);
    vapic_exit(&fx->v[0], 0xF, true);
    take(fx, -1);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0xEF));
    fx_set(fx, 0, APIC_TPR, 0);
    take(fx, 0x51);
    fx_free(fx);
}

static void counts_what_was_injected(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t counts[256] = {0};
    struct vapic_stats stats;

    (void)state;
    vapic_count_vectors(&fx->v[0], counts);
    for (int n = 0; n < 3; n++) {
        post(fx, 0x51);
        fx_take_eoi(fx, 0);
    }
    vapic_count_vectors(&fx->v[0], NULL);
    post(fx, 0x51);
    fx_take_eoi(fx, 0);
    assert_int_equal(counts[0x51], 3);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.injected, 4);
    assert_int_equal(stats.eois, 4);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ppr_from_tpr_and_isr),
        cmocka_unit_test(apr_from_tpr_isr_irr),
        cmocka_unit_test(tpr_class_against_vector_class),
        cmocka_unit_test(trap_32_tpr_class),
        cmocka_unit_test(trap_31_tpr_lowered_in_steps),
        cmocka_unit_test(same_class_as_in_service_waits),
        cmocka_unit_test(lower_class_than_in_service_waits),
        cmocka_unit_test(higher_class_nests),
        cmocka_unit_test(every_vector_in_order),
        cmocka_unit_test(trap_29_two_vectors),
        cmocka_unit_test(trap_30_two_vectors_of_one_class),
        cmocka_unit_test(acknowledge_moves_irr_to_isr),
        cmocka_unit_test(trap_34_same_vector_twice),
        cmocka_unit_test(trap_36_tmr_follows_the_message),
        cmocka_unit_test(tmr_follows_a_coalesced_message),
        cmocka_unit_test(accepted_while_blocked),
        cmocka_unit_test(illegal_vectors),
        cmocka_unit_test(illegal_vectors_without_esr),
        cmocka_unit_test(cr8_of_the_entry),
        cmocka_unit_test(cr8_of_the_exit),
        cmocka_unit_test(trap_38_tpr_threshold),
        cmocka_unit_test(trap_39_interrupt_shadow),
        cmocka_unit_test(window_only_for_a_deliverable_vector),
        cmocka_unit_test(window_for_the_next_vector),
        cmocka_unit_test(trap_37_soft_disable_holds_irr),
        cmocka_unit_test(soft_disable_refuses_new_vectors),
        cmocka_unit_test(soft_disable_keeps_isr),
        cmocka_unit_test(no_spurious_vector),
        cmocka_unit_test(counts_what_was_injected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
