/* SPDX-License-Identifier: MIT */
/*
 * What was saved can be loaded, and is then the same: states for which that was not so. Each was
 * found by fuzzing (fuzz/target_lapic.c).
 */
#include <stdlib.h>

#include "pv_guest.h"
#include "vapic/arch/apic.h"

struct saved {
    uint64_t base;
    uint8_t image[VAPIC_IMAGE_SIZE], record[VAPIC_RECORD_SIZE];
};

static void save(struct fx *fx, struct saved *to)
{
    struct vapic *v = &fx->v[0];

    to->base = vapic_base(v);
    assert_int_equal(vapic_save_image(v, VAPIC_IMAGE_ID32, to->image, sizeof(to->image), fx->now),
                     VAPIC_OK);
    assert_int_equal(vapic_save_record(v, to->record, sizeof(to->record), fx->now), VAPIC_OK);
}

static struct vapic_entry load(struct fx *fx, const struct saved *from)
{
    struct vapic *v = &fx->v[0];
    struct vapic_entry entry;

    assert_int_equal(vapic_load_base(v, from->base), VAPIC_OK);
    assert_int_equal(
        vapic_load_image(v, VAPIC_IMAGE_ID32, from->image, sizeof(from->image), fx->now), VAPIC_OK);
    assert_int_equal(vapic_load_record(v, from->record, sizeof(from->record), fx->now, &entry),
                     VAPIC_OK);
    return entry;
}

static struct fx *new_fx(uint32_t knobs, bool soft_disabled)
{
    struct fx_options options = {.soft_disabled = soft_disabled};

    options.config.knobs = knobs;
    options.config.knobs_set = true;
    return fx_new(&options);
}

/* As KVM has it: LDR of x2APIC mode is still there in xAPIC mode. */
static void ldr_left_over_from_x2apic(void **state)
{
    struct fx *fx = new_fx(VAPIC_PROFILE_KVM, false), *other = new_fx(VAPIC_PROFILE_KVM, false);
    struct vapic *v = &fx->v[0];
    uint64_t base = vapic_base(v);
    struct saved saved;

    (void)state;
    assert_int_equal(vapic_load_base(v, base | APIC_BASE_EXTD), VAPIC_OK);
    assert_int_equal(vapic_load_base(v, base & ~(uint64_t)APIC_BASE_EN), VAPIC_OK);
    assert_int_equal(vapic_load_base(v, base), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_LDR), 1);
    save(fx, &saved);
    load(other, &saved);
    assert_int_equal(fx_read(other, 0, APIC_LDR), 1);
    fx_free(fx);
    fx_free(other);
}

/* ... but nothing else that no guest could have written. */
static void other_bits_of_ldr(void **state)
{
    struct fx *fx = new_fx(VAPIC_PROFILE_KVM, false);
    struct saved saved;

    (void)state;
    save(fx, &saved);
    saved.image[APIC_LDR] = 3;
    saved.image[APIC_LDR + 3] = 0x20;
    load(fx, &saved);
    assert_int_equal(fx_read(fx, 0, APIC_LDR), 0x20000000);
    fx_free(fx);
}

/* RESET leaves LINT0 unmasked although the APIC is software disabled. */
static void lint0_after_reset(void **state)
{
    struct fx *fx = new_fx(VAPIC_PROFILE_KVM, true), *other = new_fx(VAPIC_PROFILE_KVM, true);
    struct saved saved;

    (void)state;
    assert_int_equal(fx_read(fx, 0, APIC_LVT_LINT0), APIC_DM_EXTINT);
    save(fx, &saved);
    load(other, &saved);
    assert_int_equal(fx_read(other, 0, APIC_LVT_LINT0), APIC_DM_EXTINT);
    fx_free(fx);
    fx_free(other);
}

/* Acknowledges the vector; whether the guest has taken it is not known at the exit. */
static void run_with(struct fx *fx, uint8_t vector)
{
    struct vapic_entry entry;

    vapic_post(&fx->v[0], vector, false, NULL);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
}

/* ... but then the guest ends it: it is not outstanding any more. */
static void ended_before_it_was_known_as_delivered(void **state)
{
    struct fx *fx = fx_new(NULL), *other = fx_new(NULL);
    struct vapic_entry entry;
    struct saved saved;

    (void)state;
    run_with(fx, 0x51);
    fx_eoi(fx, 0);
    save(fx, &saved);
    entry = load(other, &saved);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_int_equal(fx_take(other, 0), -1);
    fx_free(fx);
    fx_free(other);
}

/* A vector whose injection is its end is not in service, and must be injected again all the same.
 */
static void outstanding_auto_eoi(void **state)
{
    static const uint64_t vectors[4] = {0, 1ull << (0x51 - 64), 0, 0};
    struct pv_guest *guests = aligned_alloc(4096, 2 * sizeof(*guests));
    struct fx *fx = fx_new(NULL), *other = fx_new(NULL);
    struct vapic_entry entry;
    struct saved saved;

    (void)state;
    assert_non_null(guests);
    pv_attach(fx, &guests[0], VAPIC_PV_HYPERV);
    pv_attach(other, &guests[1], VAPIC_PV_HYPERV);
    assert_int_equal(vapic_hv_set_auto_eoi(&fx->v[0], vectors), VAPIC_OK);
    assert_int_equal(vapic_hv_set_auto_eoi(&other->v[0], vectors), VAPIC_OK);
    run_with(fx, 0x51);
    save(fx, &saved);
    entry = load(other, &saved);
    assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
    assert_int_equal(entry.vector, 0x51);
    fx_free(fx);
    fx_free(other);
    free(guests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ldr_left_over_from_x2apic),
        cmocka_unit_test(other_bits_of_ldr),
        cmocka_unit_test(lint0_after_reset),
        cmocka_unit_test(ended_before_it_was_known_as_delivered),
        cmocka_unit_test(outstanding_auto_eoi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
