/* SPDX-License-Identifier: MIT */
/*
 * Lazy EOI on a vCPU that is accelerated and not, in turn, on every kind of silicon: the word is
 * set only while the vCPU is not, what the guest did with it is not forgotten at the change, and no
 * interrupt is lost or delivered twice.
 */
#include <string.h>

#include "accel_modes.h"
#include "vapic/arch/apic.h"
#include "vapic/pv.h"

#define STEPS 20000u

static struct {
    uint32_t word;
    struct vapic_pv pv, other;
} guest;

static void *map(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    (void)ctx;
    (void)v;
    (void)gpa;
    (void)size;
    return &guest.word;
}

static struct ax *machine(enum ax_mode_index mode, bool x2apic)
{
    struct ax_options options = ax_options_for(mode, 1);
    struct vapic_pv_config config = {VAPIC_PV_EOI, map, NULL};
    struct ax *ax;

    options.x2apic = x2apic;
    ax = ax_new(&options);
    ax_leave(ax, 0);
    memset(&guest, 0, sizeof(guest));
    assert_int_equal(vapic_pv_attach(&ax->v[0]->apic, &guest.pv, sizeof(guest.pv), &config),
                     VAPIC_OK);
    assert_int_equal(vapic_pv_msr_write(&ax->v[0]->apic, VAPIC_MSR_KVM_EOI, 0x1000 | 1), VAPIC_OK);
    return ax;
}

static void inhibit(struct ax *ax, bool set)
{
    assert_int_equal(vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, set), VAPIC_OK);
}

/* In the guest: test and clear. */
static bool guest_eoi(struct ax *ax)
{
    assert_true(ax_enter(ax, 0));
    return __atomic_fetch_and(&guest.word, ~1u, __ATOMIC_SEQ_CST) & 1;
}

/* Leaves first: hardware may keep what it has accepted to itself. */
static bool in_service(struct ax *ax, uint8_t vector)
{
    ax_leave(ax, 0);
    return ax_page_bit(ax, 0, APIC_ISR, vector);
}

typedef void (*mode_fn)(enum ax_mode_index mode, bool x2apic);

static void on_all_silicon(mode_fn test)
{
    for (unsigned mode = AX_MODE_AVIC; mode < AX_MODES; mode++)
        for (int x2apic = 0; x2apic < 2; x2apic++)
            test((enum ax_mode_index)mode, x2apic);
}

static void take_by_software(struct ax *ax, uint8_t vector)
{
    inhibit(ax, true);
    assert_true(ax_post(ax, 0, vector, false));
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, vector), 1);
    assert_false(vapic_active(&ax->v[0]->apic));
    assert_int_equal(guest.word, 1);
}

static void ended_then_accelerated(enum ax_mode_index mode, bool x2apic)
{
    struct ax *ax = machine(mode, x2apic);

    take_by_software(ax, 0x51);
    assert_true(guest_eoi(ax));
    inhibit(ax, false);
    ax_run(ax, 0);
    assert_true(vapic_active(&ax->v[0]->apic));
    assert_false(in_service(ax, 0x51));
    assert_true(ax_post(ax, 0, 0x52, false)); /* of the same class: nothing holds it back */
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x52), 1);
    ax_free(ax);
}

static void accelerated_after_the_eoi(void **state)
{
    (void)state;
    on_all_silicon(ended_then_accelerated);
}

static void accelerated_then_ended(enum ax_mode_index mode, bool x2apic)
{
    struct ax *ax = machine(mode, x2apic);

    take_by_software(ax, 0x51);
    inhibit(ax, false);
    ax_run(ax, 0);
    assert_true(vapic_active(&ax->v[0]->apic));
    assert_int_equal(guest.word, 0);
    assert_true(in_service(ax, 0x51));
    assert_false(guest_eoi(ax));
    ax_eoi(ax, 0);
    assert_false(in_service(ax, 0x51));
    ax_free(ax);
}

static void accelerated_before_the_eoi(void **state)
{
    (void)state;
    on_all_silicon(accelerated_then_ended);
}

static void never_set(enum ax_mode_index mode, bool x2apic)
{
    struct ax *ax = machine(mode, x2apic);

    for (uint8_t vector = 0x30; vector < 0x80; vector += 0x11) {
        assert_true(ax_post(ax, 0, vector, false));
        ax_run(ax, 0);
        assert_true(vapic_active(&ax->v[0]->apic));
        assert_false(guest_eoi(ax));
        ax_leave(ax, 0);
        assert_false(guest_eoi(ax));
        ax_eoi(ax, 0);
    }
    ax_leave(ax, 0);
    assert_int_equal(guest.pv.stats.armed, 0);
    ax_free(ax);
}

static void never_while_accelerated(void **state)
{
    (void)state;
    on_all_silicon(never_set);
}

/* Hardware has delivered it, the word ends it, and hardware goes on with what comes after. */
static void delivered_by_hardware(enum ax_mode_index mode, bool x2apic)
{
    struct ax *ax = machine(mode, x2apic);

    assert_true(ax_post(ax, 0, 0x51, false));
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    inhibit(ax, true);
    assert_true(guest_eoi(ax));
    inhibit(ax, false);
    assert_true(ax_post(ax, 0, 0x41, false));
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    assert_false(in_service(ax, 0x51));
    ax_free(ax);
}

static void ended_after_acceleration(void **state)
{
    (void)state;
    on_all_silicon(delivered_by_hardware);
}

/* ---- The other companions, with the vCPU accelerated ---- */

static struct ax *hyperv_machine(enum ax_mode_index mode, bool x2apic)
{
    struct vapic_pv_config config = {VAPIC_PV_HYPERV | VAPIC_PV_SEND_IPI, map, NULL};
    struct ax_options options = ax_options_for(mode, 2);
    struct ax *ax;

    options.x2apic = x2apic;
    ax = ax_new(&options);
    ax_leave(ax, 0);
    ax_leave(ax, 1);
    assert_int_equal(vapic_pv_attach(&ax->v[0]->apic, &guest.pv, sizeof(guest.pv), &config),
                     VAPIC_OK);
    assert_int_equal(vapic_pv_attach(&ax->v[1]->apic, &guest.other, sizeof(guest.other), &config),
                     VAPIC_OK);
    ax_settle(ax);
    assert_true(vapic_active(&ax->v[0]->apic));
    return ax;
}

/* WRMSR of a synthetic MSR exits whatever the hardware can do. */
static void hv_write(struct ax *ax, uint32_t msr, uint64_t value)
{
    ax_leave(ax, 0);
    assert_int_equal(vapic_pv_msr_write(&ax->v[0]->apic, msr, value), VAPIC_OK);
    ax_run(ax, 0);
}

static void msrs(enum ax_mode_index mode, bool x2apic)
{
    struct ax *ax = hyperv_machine(mode, x2apic);

    assert_true(ax_post(ax, 0, 0x51, false));
    ax_run(ax, 0);
    assert_true(ax_post(ax, 0, 0x41, false));
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 0);
    hv_write(ax, VAPIC_MSR_HV_EOI, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    ax_eoi(ax, 0);
    hv_write(ax, VAPIC_MSR_HV_TPR, 0x60);
    assert_int_equal(ax_read_cr8(ax, 0), 6);
    assert_true(ax_post(ax, 0, 0x61, false));
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x61), 0);
    hv_write(ax, VAPIC_MSR_HV_TPR, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x61), 1);
    hv_write(ax, VAPIC_MSR_HV_ICR, UINT64_C(1) << (x2apic ? 32 : 56) | 0x71);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x71), 1);
    assert_true(vapic_active(&ax->v[0]->apic));
    ax_free(ax);
}

static void hyperv_msrs_while_accelerated(void **state)
{
    (void)state;
    on_all_silicon(msrs);
}

static void auto_eoi(enum ax_mode_index mode, bool x2apic)
{
    static const uint64_t vectors[4] = {[1] = UINT64_C(1) << (0x51 - 64)}, none[4];
    struct ax *ax = hyperv_machine(mode, x2apic);

    ax_leave(ax, 0);
    assert_int_equal(vapic_hv_set_auto_eoi(&ax->v[0]->apic, vectors), VAPIC_OK);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 1u << VAPIC_INHIBIT_HYPERV);
    assert_true(ax_post(ax, 0, 0x51, false));
    ax_settle(ax);
    assert_false(vapic_active(&ax->v[0]->apic));
    assert_false(vapic_active(&ax->v[1]->apic));
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_false(in_service(ax, 0x51));
    assert_int_equal(vapic_hv_set_auto_eoi(&ax->v[0]->apic, none), VAPIC_OK);
    assert_true(ax_post(ax, 0, 0x51, false));
    ax_settle(ax);
    assert_true(vapic_active(&ax->v[0]->apic));
    assert_int_equal(ax_delivered(ax, 0, 0x51), 2);
    assert_true(in_service(ax, 0x51));
    ax_free(ax);
}

static void auto_eoi_inhibits(void **state)
{
    (void)state;
    on_all_silicon(auto_eoi);
}

/* The hypercall's IPIs reach a vCPU in the guest without an exit of its own. */
static void hypercall(enum ax_mode_index mode, bool x2apic)
{
    struct vapic_pv_call call = {
        .number = VAPIC_PV_CALL_SEND_IPI, .arg = {3, 0, 0, 0x51}, .long_mode = true};
    struct ax *ax = hyperv_machine(mode, x2apic);
    int64_t result = 0;

    ax_forget(ax);
    ax_leave(ax, 0);
    assert_int_equal(vapic_pv_hypercall(&ax->v[0]->apic, &call, &result), VAPIC_OK);
    assert_int_equal(result, 2);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_int_equal(ax_delivered(ax, 1, 0x51), 1);
    for (uint32_t n = 0; n < ax_count(ax, AX_EXIT); n++)
        assert_int_equal(ax_nth(ax, AX_EXIT, n)->vcpu, 0);
    ax_free(ax);
}

static void hypercall_while_accelerated(void **state)
{
    (void)state;
    on_all_silicon(hypercall);
}

/* ---- At random ---- */

struct scene {
    struct ax *ax;
    uint32_t random;
    bool inhibited;
    uint32_t depth, posted[256], taken[256], seen, by_word, by_register;
    uint8_t stack[256];
    bool busy[256]; /* posted and not ended: posting it again would not count twice */
};

static uint32_t next(struct scene *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 17;
    s->random ^= s->random << 5;
    return s->random;
}

/* Runs, and enters the handlers of what was delivered. */
static void run(struct scene *s)
{
    ax_run(s->ax, 0);
    for (; s->seen < ax_count(s->ax, AX_DELIVERED); s->seen++) {
        uint8_t vector = (uint8_t)ax_nth(s->ax, AX_DELIVERED, s->seen)->a;

        s->taken[vector]++;
        s->stack[s->depth++] = vector;
    }
    ax_forget(s->ax);
    s->seen = 0;
}

static void post(struct scene *s)
{
    uint8_t vector = (uint8_t)(0x20 + next(s) % 0xC0);

    if (s->busy[vector])
        return;
    s->busy[vector] = true;
    s->posted[vector]++;
    assert_true(ax_post(s->ax, 0, vector, next(s) % 8 == 0));
}

static void end_handler(struct scene *s)
{
    if (s->depth == 0)
        return;
    if (guest_eoi(s->ax)) {
        s->by_word++;
    } else {
        ax_eoi(s->ax, 0);
        s->by_register++;
    }
    s->busy[s->stack[--s->depth]] = false;
}

static void toggle(struct scene *s)
{
    s->inhibited = !s->inhibited;
    inhibit(s->ax, s->inhibited);
}

static void step(struct scene *s)
{
    switch (next(s) % 8) {
    case 0:
    case 1:
    case 2:
        post(s);
        break;
    case 3:
    case 4:
    case 5:
        end_handler(s);
        break;
    case 6:
        toggle(s);
        break;
    default:
        ax_leave(s->ax, 0);
        break;
    }
    run(s);
}

static void at_random(enum ax_mode_index mode, bool x2apic)
{
    struct scene s = {.ax = machine(mode, x2apic), .random = 0x1234567u + (uint32_t)mode};

    ax_run(s.ax, 0);
    ax_forget(s.ax);
    for (uint32_t n = 0; n < STEPS / AX_MODES; n++)
        step(&s);
    while (s.depth != 0) {
        end_handler(&s);
        run(&s);
    }
    ax_leave(s.ax, 0);
    for (uint32_t vector = 0; vector < 256; vector++) {
        assert_int_equal(s.taken[vector], s.posted[vector]);
        assert_false(ax_page_bit(s.ax, 0, APIC_ISR, (uint8_t)vector));
    }
    assert_true(s.by_word > 0);
    assert_true(s.by_register > 0);
    assert_int_equal(guest.pv.stats.eois, s.by_word);
    ax_free(s.ax);
}

static void toggled_at_random(void **state)
{
    (void)state;
    on_all_silicon(at_random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accelerated_after_the_eoi),
        cmocka_unit_test(accelerated_before_the_eoi),
        cmocka_unit_test(never_while_accelerated),
        cmocka_unit_test(ended_after_acceleration),
        cmocka_unit_test(hyperv_msrs_while_accelerated),
        cmocka_unit_test(auto_eoi_inhibits),
        cmocka_unit_test(hypercall_while_accelerated),
        cmocka_unit_test(toggled_at_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
