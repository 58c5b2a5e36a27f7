/* SPDX-License-Identifier: MIT */
/* The nested part of saved state on Intel: a vCPU in L2 goes to another host, whatever the strategy
 * there; and records that nobody has saved. */
#include "nested_vmx_bench.h"

enum { RECORD_VERSION = 4, NESTED = 96, NESTED_FIELDS = NESTED + 104 };

struct saved {
    uint8_t image[VAPIC_IMAGE_SIZE], record[VAPIC_RECORD_SIZE];
    uint8_t ram[VB_PAGES * VB_PAGE];
    uint64_t base;
};

static struct vb *machine(enum vapic_nested_strategy strategy)
{
    return vb_new(&(struct vb_options){.x2apic = true, .strategy = strategy, .vcpus = 3});
}

static void save(struct vb *b, uint32_t n, struct saved *s)
{
    struct vapic *v = &b->v[n]->apic;

    vb_leave(b, n);
    s->base = vapic_base(v);
    assert_int_equal(vapic_save_image(v, VAPIC_IMAGE_ID32, s->image, sizeof(s->image), b->now),
                     VAPIC_OK);
    assert_int_equal(vapic_save_record(v, s->record, sizeof(s->record), b->now), VAPIC_OK);
    memcpy(s->ram, b->ram, sizeof(s->ram));
}

static int load(struct vb *b, uint32_t n, const struct saved *s)
{
    struct vapic *v = &b->v[n]->apic;

    memcpy(b->ram, s->ram, sizeof(s->ram));
    assert_int_equal(vapic_load_base(v, s->base), VAPIC_OK);
    assert_int_equal(vapic_load_image(v, VAPIC_IMAGE_ID32, s->image, sizeof(s->image), b->now),
                     VAPIC_OK);
    return vapic_load_record(v, s->record, sizeof(s->record), b->now, NULL);
}

/* Loads, and 02 becomes current. */
static void move(struct vb *to, uint32_t n, const struct saved *s)
{
    assert_int_equal(load(to, n, s), VAPIC_OK);
    assert_int_equal(vapic_nested_state(&to->v[n]->apic), VAPIC_NESTED_RESTORED);
    to->v[n]->l2 = true;
}

#define EACH_WAY(from, to)                                                                         \
    for (uint32_t way = 0, from = way & 1, to = way >> 1; way < 4;                                 \
         way++, from = way & 1, to = way >> 1)

static void a_vcpu_in_l2_goes_to_another_host(void **state)
{
    struct saved *s = malloc(sizeof(*s));

    (void)state;
    EACH_WAY(from, to)
    {
        struct vb *a = machine(from), *b = machine(to);

        vb_to_l2(a, 0);
        vb_post(a, 1, 0, 0x51);
        vb_run(a, 0); /* in service */
        vb_post(a, 1, 0, 0x41);
        vb_run(a, 0); /* in VIRR */
        save(a, 0, s);
        move(b, 0, s);
        assert_true(vb_enter(b, 0));
        assert_int_equal(vapic_nested_state(&b->v[0]->apic), VAPIC_NESTED_L2);
        assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x80B, 0), VAPIC_SIL_DONE);
        assert_true(vb_boundary(b, 0));
        assert_int_equal(vb_times(b->v[0], 0x141), 1);
        assert_int_equal(vb_to_l1(b, 0).interrupt_status, 0x4100);
        vb_free(a);
        vb_free(b);
    }
    free(s);
}

/* Latched, and not looked at yet. */
static void a_notification_that_was_latched(void **state)
{
    struct saved *s = malloc(sizeof(*s));

    (void)state;
    EACH_WAY(from, to)
    {
        struct vb *a = machine(from), *b = machine(to);

        vb_to_l2(a, 0);
        vb_leave(a, 0);
        vb_post(a, 1, 0, 0x51);
        save(a, 0, s);
        move(b, 0, s);
        assert_true(vb_boundary(b, 0));
        assert_int_equal(vb_times(b->v[0], 0x151), 1);
        vb_free(a);
        vb_free(b);
    }
    free(s);
}

/* By a processor's IPI virtualization, into a vCPU that was preempted. */
static void what_hardware_had_posted(void **state)
{
    struct saved *s = malloc(sizeof(*s));

    (void)state;
    for (uint32_t to = 0; to < 4; to++) {
        struct vb *a = machine(VAPIC_NESTED_SHADOW), *b = machine(to & 1);

        vb_vmcs12(a, 0);
        vb_vmcs12(a, 1);
        vb_to_l2(a, 0);
        vb_to_l2(a, 1);
        vb_leave(a, 0);
        if (to & 2)
            vapic_put(&a->v[0]->apic);
        assert_int_equal(vb_icr(a, 1, 0x51, 0), VAPIC_SIL_DONE);
        save(a, 0, s);
        move(b, 0, s);
        assert_true(vb_boundary(b, 0));
        assert_int_equal(vb_times(b->v[0], 0x151), 1);
        vb_free(a);
        vb_free(b);
    }
    free(s);
}

/* ... and it is left before it runs: L1 finds it, and is told. */
static void what_hardware_had_posted_for_an_l2_that_is_left(void **state)
{
    struct saved *s = malloc(sizeof(*s));
    struct vb *a = machine(VAPIC_NESTED_SHADOW), *b = machine(VAPIC_NESTED_DUMMY);

    (void)state;
    vb_vmcs12(a, 0);
    vb_vmcs12(a, 1);
    vb_to_l2(a, 0);
    vb_to_l2(a, 1);
    vb_leave(a, 0);
    assert_int_equal(vb_icr(a, 1, 0x51, 0), VAPIC_SIL_DONE);
    save(a, 0, s);
    move(b, 0, s);
    vb_to_l1(b, 0);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], VB_NV12), 1);
    assert_int_equal(vb_pid(b, 0)->pir[1], 1u << 0x11);
    vb_free(a);
    vb_free(b);
    free(s);
}

static void before_the_first_entry(void **state)
{
    struct saved *s = malloc(sizeof(*s));
    struct vb *a = machine(VAPIC_NESTED_DUMMY), *b = machine(VAPIC_NESTED_SHADOW);

    (void)state;
    vb_vmcs12(a, 0);
    a->v[0]->vmcs12.interrupt_status = 0x51;
    assert_int_equal(vb_launch(a, 0), VAPIC_OK);
    save(a, 0, s);
    move(b, 0, s);
    vapic_post(&b->v[0]->apic, 0x41, false, NULL);
    assert_true(vb_prepare(b->v[0], VB_CAN));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_SOON); /* not LEAVE: it must run first */
    vb_leave(b, 0);
    assert_int_equal(vapic_nested_state(&b->v[0]->apic), VAPIC_NESTED_ENTERING);
    vb_free(a);
    vb_free(b);
    free(s);
}

/* Saved again before it has run. */
static void saved_twice(void **state)
{
    struct saved *s = malloc(2 * sizeof(*s));
    struct vb *a = machine(VAPIC_NESTED_DUMMY), *b = machine(VAPIC_NESTED_SHADOW);

    (void)state;
    vb_to_l2(a, 0);
    vb_leave(a, 0);
    vb_post(a, 1, 0, 0x51);
    save(a, 0, &s[0]);
    move(b, 0, &s[0]);
    save(b, 0, &s[1]);
    assert_memory_equal(s[0].record, s[1].record, sizeof(s[0].record));
    vb_free(a);
    vb_free(b);
    free(s);
}

/* Without virtualization there is only the fact. */
static void an_l2_without_virtualization(void **state)
{
    struct saved *s = malloc(sizeof(*s));
    struct vb *a = machine(VAPIC_NESTED_DUMMY), *b = machine(VAPIC_NESTED_DUMMY);

    (void)state;
    a->v[0]->l2 = true;
    assert_int_equal(vapic_nested_enter(&a->v[0]->apic, NULL), VAPIC_OK);
    save(a, 0, s);
    assert_int_equal(s->record[RECORD_VERSION], 2);
    move(b, 0, s);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vapic_nested_state(&b->v[0]->apic), VAPIC_NESTED_ENTERING);
    vb_free(a);
    vb_free(b);
    free(s);
}

/* Who runs L1 is saved as ever: older libraries can load it, and newer ones what older saved. */
static void a_vcpu_in_l1_has_no_nested_part(void **state)
{
    struct saved *s = malloc(sizeof(*s));
    struct vb *a = machine(VAPIC_NESTED_DUMMY);

    (void)state;
    vb_to_l2(a, 0);
    vb_to_l1(a, 0);
    save(a, 0, s);
    assert_int_equal(s->record[RECORD_VERSION], 1);
    for (uint32_t i = NESTED; i < VAPIC_RECORD_SIZE; i++)
        assert_int_equal(s->record[i], 0);
    assert_int_equal(load(a, 0, s), VAPIC_OK);
    assert_int_equal(vapic_nested_state(&a->v[0]->apic), VAPIC_NESTED_L1);
    vb_free(a);
    free(s);
}

static void a_vcpu_in_l2_is_abandoned_before(void **state)
{
    struct saved *s = malloc(sizeof(*s));
    struct vb *a = machine(VAPIC_NESTED_SHADOW);

    (void)state;
    save(a, 0, s);
    vb_to_l2(a, 0);
    vb_leave(a, 0);
    vb_post(a, 1, 0, 0x51);
    assert_int_equal(load(a, 0, s), VAPIC_E_BUSY);
    a->v[0]->l2 = false;
    vapic_nested_abandon(&a->v[0]->apic);
    assert_int_equal(vapic_nested_state(&a->v[0]->apic), VAPIC_NESTED_L1);
    assert_int_equal(load(a, 0, s), VAPIC_OK);
    vb_run(a, 0);
    assert_int_equal(a->v[0]->delivered_count, 0);
    vb_free(a);
    free(s);
}

/* ---- Hostile records ---- */

static struct saved *saved_in_l2(void)
{
    struct saved *s = malloc(sizeof(*s));
    struct vb *a = vb_new(&(struct vb_options){.x2apic = true, .phys_bits = 40});

    vb_to_l2(a, 0);
    save(a, 0, s);
    vb_free(a);
    return s;
}

/* Refused, and the vCPU is as it was. */
static void must_be_refused(struct vb *b, const struct saved *s, const char *what, uint32_t at)
{
    uint8_t before[VAPIC_RECORD_SIZE], after[VAPIC_RECORD_SIZE];
    struct vapic *v = &b->v[0]->apic;
    int result;

    assert_int_equal(vapic_save_record(v, before, sizeof(before), b->now), VAPIC_OK);
    result = vapic_load_record(v, s->record, sizeof(s->record), b->now, NULL);
    if (result != VAPIC_E_FORMAT)
        fail_msg("%s, byte %u: %d", what, at, result);
    assert_int_equal(vapic_save_record(v, after, sizeof(after), b->now), VAPIC_OK);
    assert_memory_equal(before, after, sizeof(before));
    assert_int_equal(vapic_nested_state(v), VAPIC_NESTED_L1);
}

static void what_is_not_vmcs12_is_refused(void **state)
{
    static const struct {
        const char *what;
        uint16_t at;
        uint8_t value;
    } bad[] = {
        {"state L1", NESTED, 0},
        {"no such state", NESTED, 3},
        {"AMD's", NESTED + 1, VAPIC_ACCEL_AVIC},
        {"no such kind", NESTED + 1, 3},
        {"unvirtualized, with fields", NESTED + 1, VAPIC_ACCEL_NONE},
        {"AMD's flag", NESTED + 2, 2},
        {"unused", NESTED + 3, 1},
        {"unused", NESTED + 7, 1},
        {"unused", NESTED_FIELDS + 30, 1},
        {"unused", NESTED_FIELDS + 36, 1},
        {"delivery without exiting", NESTED_FIELDS, 0x80},
        {"without acknowledge on exit", NESTED_FIELDS + 13, 0},
        {"without TPR shadow", NESTED_FIELDS + 6, 0},
        {"vector above 255", NESTED_FIELDS + 25, 1},
        {"virtual-APIC address unaligned", NESTED_FIELDS + 40, 1},
        {"virtual-APIC address too wide", NESTED_FIELDS + 45, 1},
        {"descriptor unaligned", NESTED_FIELDS + 56, 1},
        {"descriptor too wide", NESTED_FIELDS + 63, 1},
        {"table unaligned", NESTED_FIELDS + 64, 1},
        {"behind the end", NESTED + 208, 1},
        {"length", 6, 96},
    };
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true, .phys_bits = 40});
    struct saved *s = saved_in_l2();

    (void)state;
    for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t old = s->record[bad[i].at];

        s->record[bad[i].at] = bad[i].value;
        must_be_refused(b, s, bad[i].what, bad[i].at);
        s->record[bad[i].at] = old;
    }
    move(b, 0, s);
    assert_true(vb_enter(b, 0));
    vb_free(b);
    free(s);
}

static void features_that_this_host_does_not_offer(void **state)
{
    struct vb *b = vb_new(
        &(struct vb_options){.x2apic = true, .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED});
    struct saved *s = saved_in_l2();

    (void)state;
    must_be_refused(b, s, "IPI virtualization", 0);
    vb_free(b);
    free(s);
}

/* Whatever loads can be entered, or says that memory is missing. */
static void random_records(void **state)
{
    struct saved *good = saved_in_l2(), *s = malloc(sizeof(*s));
    uint32_t seed = 3, loaded = 0;

    (void)state;
    for (uint32_t round = 0; round < 300; round++) {
        struct vb *b =
            vb_new(&(struct vb_options){.x2apic = true, .phys_bits = 40, .strategy = round & 1});

        *s = *good;
        for (uint32_t k = 0; k < 1 + round % 4; k++) {
            seed = seed * 1664525 + 1013904223;
            s->record[NESTED + (seed >> 8) % 208] ^= (uint8_t)(1u << (seed >> 28 & 7));
        }
        if (load(b, 0, s) == VAPIC_OK) {
            loaded++;
            b->v[0]->l2 = true;
            if (vb_enter(b, 0)) {
                vb_boundary(b, 0);
                vb_leave(b, 0);
            } else {
                assert_true(b->v[0]->entry.nested == VAPIC_NESTED_STOP ||
                            b->v[0]->failed == 1); /* the threshold, which the page decides about */
            }
            vb_to_l1(b, 0);
        }
        vb_free(b);
    }
    assert_true(loaded > 50);
    free(good);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vcpu_in_l2_goes_to_another_host),
        cmocka_unit_test(a_notification_that_was_latched),
        cmocka_unit_test(what_hardware_had_posted),
        cmocka_unit_test(what_hardware_had_posted_for_an_l2_that_is_left),
        cmocka_unit_test(before_the_first_entry),
        cmocka_unit_test(saved_twice),
        cmocka_unit_test(an_l2_without_virtualization),
        cmocka_unit_test(a_vcpu_in_l1_has_no_nested_part),
        cmocka_unit_test(a_vcpu_in_l2_is_abandoned_before),
        cmocka_unit_test(what_is_not_vmcs12_is_refused),
        cmocka_unit_test(features_that_this_host_does_not_offer),
        cmocka_unit_test(random_records),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
