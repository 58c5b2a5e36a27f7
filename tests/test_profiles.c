/* SPDX-License-Identifier: MIT */
/*
 * The knobs: each one has a scene in which it makes the difference, and the two profiles set them
 * as documented. A knob without a scene does not compile. [SDM3 12.4] [KVM lapic]
 */
#include "fixture.h"

#define VECTOR 0x51

static struct vapic_ioapic *scene_ioapic;

static uint64_t base_of(struct fx *fx)
{
    return vapic_base(&fx->v[0]);
}

static void write_base(struct fx *fx, uint64_t value)
{
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, value), VAPIC_OK);
}

static void off_and_on(struct fx *fx, uint64_t ns_between)
{
    uint64_t base = base_of(fx);

    write_base(fx, base & ~(uint64_t)APIC_BASE_EN);
    fx->now.ns += ns_between;
    write_base(fx, base);
}

static uint32_t device(struct fx *fx, uint32_t icr, uint32_t dest)
{
    struct vapic_msg msg = {.icr = icr, .dest = dest, .source = VAPIC_FROM_DEVICE};

    return vapic_send(&fx->vm, msg).accepted;
}

/* ---- One scene per knob: true when the effect that the knob switches on is there ---- */

static bool effect_DELIVER_SOFT_DISABLED(struct fx *fx)
{
    vapic_post(&fx->v[0], VECTOR, false, NULL);
    fx_set(fx, 0, APIC_SVR, 0xFF);
    return fx_take(fx, 0) == VECTOR;
}

static bool effect_STRICT_RESERVED(struct fx *fx)
{
    return fx_wrmsr(fx, 0, 0x808, 0x100) == VAPIC_GP;
}

static bool effect_STRICT_EOI(struct fx *fx)
{
    return fx_wrmsr(fx, 0, 0x80B, 1) == VAPIC_GP;
}

static bool effect_ESR(struct fx *fx)
{
    fx_read(fx, 0, 0x3A0);
    fx_write(fx, 0, APIC_ESR, 0);
    return fx_read(fx, 0, APIC_ESR) == APIC_ESR_ILLEGAL_REG;
}

static bool effect_REMEMBER_MASKED_TICK(struct fx *fx)
{
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | VECTOR);
    fx_set(fx, 0, APIC_TMICT, 100);
    fx->now.ns += 1000;
    fx_step(fx, 0, FX_CAN_ALL);
    fx_set(fx, 0, APIC_LVT_TIMER, VECTOR);
    return fx_take(fx, 0) == VECTOR;
}

static bool effect_TDCR_REFIRES(struct fx *fx)
{
    fx_set(fx, 0, APIC_LVT_TIMER, VECTOR);
    fx_set(fx, 0, APIC_TMICT, 100);
    fx->now.ns += 1000;
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    fx_set(fx, 0, APIC_TDCR, 0xB);
    fx->now.ns += 1;
    return fx_take(fx, 0) == VECTOR;
}

static bool effect_RESET_DISABLED(struct fx *fx)
{
    vapic_reset(&fx->v[0]);
    return !(base_of(fx) & APIC_BASE_EN);
}

/* [APM2 16.10] */
static bool effect_X2APIC_KEEPS_WRITTEN_ID(struct fx *fx)
{
    fx_write(fx, 0, APIC_ID, 0x09000000);
    write_base(fx, base_of(fx) | APIC_BASE_EXTD);
    return fx_get(fx, 0, APIC_ID) == 9;
}

static bool effect_SIPI_AFTER_RESET(struct fx *fx)
{
    fx_icr(fx, 0, APIC_DM_SIPI | 0x10, 1);
    return fx_step(fx, 1, FX_CAN_ALL).event == VAPIC_CPU_SIPI;
}

static bool effect_BSP_WRITABLE(struct fx *fx)
{
    write_base(fx, base_of(fx) ^ APIC_BASE_BSP);
    return !(base_of(fx) & APIC_BASE_BSP);
}

static bool effect_LOWEST_IN_X2APIC(struct fx *fx)
{
    fx_icr(fx, 0, APIC_DM_LOWEST | VECTOR, 0);
    return fx_take(fx, 0) == VECTOR;
}

static bool effect_LEVEL_IPI(struct fx *fx)
{
    fx_icr(fx, 0, APIC_ICR_LEVEL | APIC_ICR_ASSERT | VECTOR, 0);
    assert_true(fx_bit(fx, 0, APIC_IRR, VECTOR));
    return fx_bit(fx, 0, APIC_TMR, VECTOR);
}

static bool effect_LEVEL_FORGOTTEN(struct fx *fx)
{
    fx_set(fx, 0, APIC_SVR, 0xFF);
    scene_ioapic = fx_ioapic(fx, 24, 0, 0x20);
    fx_rte_write(scene_ioapic, 3, 0x8000 | VECTOR);
    vapic_ioapic_set(scene_ioapic, 3, 0, true);
    assert_int_equal(fx_rte_read(scene_ioapic, 3) >> 14 & 1, 0);
    fx_set(fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    return !fx_bit(fx, 0, APIC_IRR, VECTOR);
}

static bool effect_X2APIC_ALIASES_XAPIC(struct fx *fx)
{
    return device(fx, VECTOR, 0x105) == 1;
}

static bool effect_WIDE_XAPIC(struct fx *fx)
{
    return device(fx, VECTOR, 0x301) == 1;
}

static bool effect_UNIQUE_ID(struct fx *fx)
{
    return device(fx, VECTOR, 3) == 1;
}

static bool effect_DEVICE_BROADCAST_FF(struct fx *fx)
{
    return device(fx, VECTOR, 0xFF) == 1;
}

static bool effect_ARBITRATE(struct fx *fx)
{
    device(fx, APIC_ICR_LOGICAL | APIC_DM_LOWEST | VECTOR, 3);
    device(fx, APIC_ICR_LOGICAL | APIC_DM_LOWEST | VECTOR, 3);
    return fx_take(fx, 0) == VECTOR && fx_take(fx, 1) == VECTOR;
}

static bool effect_DISABLED_READS_ONES(struct fx *fx)
{
    write_base(fx, base_of(fx) & ~(uint64_t)APIC_BASE_EN);
    return vapic_mmio_claims(&fx->v[0], APIC_DEFAULT_BASE + APIC_LVR);
}

static bool effect_DISABLE_STOPS_TIMER(struct fx *fx)
{
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_PERIODIC | VECTOR);
    fx_set(fx, 0, APIC_TMICT, 1000000);
    off_and_on(fx, 100);
    return fx_get(fx, 0, APIC_TMCCT) == 0;
}

static bool effect_DISABLE_CLEARS_LDR(struct fx *fx)
{
    fx_write(fx, 0, APIC_LDR, 0x04000000);
    off_and_on(fx, 0);
    return fx_read(fx, 0, APIC_LDR) == 0;
}

static bool effect_LINT0_EXTINT(struct fx *fx)
{
    fx_set(fx, 0, APIC_LVT_LINT0, 0x31);
    vapic_reset(&fx->v[0]);
    return fx_read(fx, 0, APIC_LVT_LINT0) == APIC_DM_EXTINT;
}

static bool effect_LVT_STATUS_WRITABLE(struct fx *fx)
{
    fx_write(fx, 0, APIC_LVT_LINT1, APIC_LVT_DS | APIC_LVT_RIRR | APIC_LVT_MASKED);
    return fx_read(fx, 0, APIC_LVT_LINT1) == (APIC_LVT_DS | APIC_LVT_RIRR | APIC_LVT_MASKED);
}

static bool effect_BYTE_ID_WRITES(struct fx *fx)
{
    static const uint32_t offsets[] = {APIC_ID, APIC_LDR, APIC_DFR};
    uint32_t changed = 0;

    for (uint32_t n = 0; n < 3; n++) {
        vapic_mmio_write(&fx->v[0], offsets[n] + 3, &(uint8_t){0x0F}, 1, fx->now);
        changed += fx_read(fx, 0, offsets[n]) >> 24 == 0x0F;
    }
    assert_true(changed == 0 || changed == 3);
    return changed == 3;
}

static bool effect_APR(struct fx *fx)
{
    fx_set(fx, 0, APIC_TPR, 0x50);
    return fx_read(fx, 0, APIC_APR) == 0x50;
}

static bool effect_IPI_FORMS(struct fx *fx)
{
    fx_icr(fx, 0, APIC_ICR_SELF | APIC_DM_NMI, 0);
    return fx_step(fx, 0, FX_CAN_ALL).inject == VAPIC_INJECT_NONE;
}

static bool effect_SPLIT_IGNORES_SUPPRESS(struct fx *fx)
{
    fx_set(fx, 0, APIC_SVR, 0x11FF);
    vapic_post(&fx->v[0], VECTOR, true, NULL);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    return fx_count(fx, FX_EOI) == 1;
}

/* How the VM of a scene is made, where it is not the plain one. */
static const uint32_t ids_alias[] = {0, 5};
static const uint32_t ids_wide[] = {0, 0x301};
static const uint32_t ids_same[] = {3, 0x103};

static struct fx_options options_of(enum vapic_knob_index knob)
{
    struct fx_options o = {0};

    switch (knob) {
    case VAPIC_KNOB_INDEX_STRICT_RESERVED:
    case VAPIC_KNOB_INDEX_STRICT_EOI:
    case VAPIC_KNOB_INDEX_LOWEST_IN_X2APIC:
    case VAPIC_KNOB_INDEX_DEVICE_BROADCAST_FF:
        o.x2apic = true;
        break;
    case VAPIC_KNOB_INDEX_SIPI_AFTER_RESET:
        o = (struct fx_options){.vcpus = 2, .parked = true};
        break;
    case VAPIC_KNOB_INDEX_X2APIC_ALIASES_XAPIC:
        o = (struct fx_options){.vcpus = 2, .ids = ids_alias};
        break;
    case VAPIC_KNOB_INDEX_WIDE_XAPIC:
        o = (struct fx_options){.vcpus = 2, .ids = ids_wide};
        break;
    case VAPIC_KNOB_INDEX_UNIQUE_ID:
        o = (struct fx_options){.vcpus = 2, .ids = ids_same};
        break;
    case VAPIC_KNOB_INDEX_ARBITRATE:
        o.vcpus = 2;
        break;
    default:
        break;
    }
    return o;
}

static bool (*const effects[])(struct fx *fx) = {
#define VAPIC_X(name, manual, kvm, text) effect_##name,
    VAPIC_KNOBS(VAPIC_X)
#undef VAPIC_X
};

static bool shows(uint32_t knob, uint32_t knobs)
{
    struct fx_options options = options_of((enum vapic_knob_index)knob);
    struct fx *fx;
    bool effect;

    options.config.knobs = knobs;
    options.config.knobs_set = true;
    fx = fx_new(&options);
    if (knob == VAPIC_KNOB_INDEX_ARBITRATE) {
        fx_write(fx, 0, APIC_LDR, 0x01000000);
        fx_write(fx, 1, APIC_LDR, 0x02000000);
    }
    effect = effects[knob](fx);
    fx_free(fx);
    if (scene_ioapic != NULL)
        fx_ioapic_free(scene_ioapic);
    scene_ioapic = NULL;
    return effect;
}

/* Against the background of either profile the knob alone decides. */
static void one_knob(uint32_t knob)
{
    static const uint32_t profiles[] = {VAPIC_PROFILE_MANUAL, VAPIC_PROFILE_KVM};

    for (uint32_t p = 0; p < 2; p++) {
        fx_equal(shows(knob, profiles[p] | 1u << knob), true, "%s set, profile %u",
                 vapic_knob_info(knob)->name, p);
        fx_equal(shows(knob, profiles[p] & ~(1u << knob)), false, "%s clear, profile %u",
                 vapic_knob_info(knob)->name, p);
    }
}

#define VAPIC_X(name, manual, kvm, text)                                                           \
    static void knob_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        one_knob(VAPIC_KNOB_INDEX_##name);                                                         \
    }
VAPIC_KNOBS(VAPIC_X)
#undef VAPIC_X

/* ---- The profiles ---- */

static void default_is_the_manual_profile(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.config = {.knobs = VAPIC_PROFILE_KVM}});

    (void)state;
    assert_true(effect_ESR(fx)); /* `knobs` without `knobs_set` is ignored */
    fx_free(fx);
}

static void profiles_set_each_knob_as_listed(void **state)
{
    (void)state;
    for (uint32_t knob = 0; knob < VAPIC_KNOB_COUNT; knob++) {
        const struct vapic_knob_info *info = vapic_knob_info(knob);

        fx_equal(shows(knob, VAPIC_PROFILE_MANUAL), info->manual, "%s, manual", info->name);
        fx_equal(shows(knob, VAPIC_PROFILE_KVM), info->kvm, "%s, kvm", info->name);
    }
}

/* LINT0_EXTINT: the 8259 is behind the boot processor alone, after INIT as after RESET. */
static void lint0_of_each_processor(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .vcpus = 2, .config = {.knobs = VAPIC_PROFILE_KVM, .knobs_set = true}});

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        fx_set(fx, n, APIC_LVT_LINT0, 0x31);
        fx_icr(fx, n, APIC_DM_INIT | APIC_ICR_ASSERT, n);
        fx_settle(fx);
        fx_equal(fx_read(fx, n, APIC_LVT_LINT0), n == 0 ? APIC_DM_EXTINT : APIC_LVT_MASKED,
                 "INIT of %u", n);
        vapic_reset(&fx->v[n]);
        fx_equal(fx_read(fx, n, APIC_LVT_LINT0), n == 0 ? APIC_DM_EXTINT : APIC_LVT_MASKED,
                 "RESET of %u", n);
    }
    fx_free(fx);
}

/* ---- IPI_FORMS: which modes go with which shorthand [SDM3 T12-3] ---- */

static void forms_of_the_manual(void **state)
{
    /* bit n: delivery mode n is allowed */
    static const uint32_t allowed[] = {0xFF, 0x01, 0x01, 0x77};

    (void)state;
    for (uint32_t shorthand = 1; shorthand < 4; shorthand++) {
        static const uint32_t modes[] = {0, 1, 2, 4};

        for (uint32_t m = 0; m < 4; m++) {
            struct fx *fx = fx_new(&(struct fx_options){
                .vcpus = 2,
                .config = {.knobs = VAPIC_PROFILE_MANUAL | VAPIC_KNOB_IPI_FORMS,
                           .knobs_set = true}});
            uint32_t reached = 0;

            fx_icr(fx, 0, shorthand << 18 | modes[m] << 8 | VECTOR, 0);
            for (uint32_t n = 0; n < 2; n++)
                reached += fx_step(fx, n, FX_CAN_ALL).inject != VAPIC_INJECT_NONE;
            fx_equal(reached > 0, allowed[shorthand] >> modes[m] & 1, "shorthand %u, mode %u",
                     shorthand, modes[m]);
            fx_free(fx);
        }
    }
}

/* Remote read and ExtINT are no modes of an IPI. */
static void modes_that_are_no_ipi(void **state)
{
    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        struct fx *fx = fx_new(&(struct fx_options){
            .vcpus = 2,
            .config = {.knobs = VAPIC_PROFILE_MANUAL | (strict ? VAPIC_KNOB_IPI_FORMS : 0),
                       .knobs_set = true}});
        struct vapic_stats stats;

        vapic_halt(&fx->v[1]);
        fx_icr(fx, 0, APIC_DM_REMOTE, 1);
        assert_int_equal(fx_step(fx, 1, FX_CAN_ALL).runnable, !strict);
        fx_icr(fx, 0, APIC_DM_EXTINT, 1);
        assert_int_equal(fx_step(fx, 1, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
        vapic_get_stats(&fx->v[0], &stats);
        assert_int_equal(stats.ipis_sent, strict ? 0 : 2);
        fx_free(fx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define VAPIC_X(name, manual, kvm, text) cmocka_unit_test(knob_##name),
        VAPIC_KNOBS(VAPIC_X)
#undef VAPIC_X
            cmocka_unit_test(default_is_the_manual_profile),
        cmocka_unit_test(profiles_set_each_knob_as_listed),
        cmocka_unit_test(lint0_of_each_processor),
        cmocka_unit_test(forms_of_the_manual),
        cmocka_unit_test(modes_that_are_no_ipi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
