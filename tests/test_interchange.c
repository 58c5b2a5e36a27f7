/* SPDX-License-Identifier: MIT */
/*
 * State of interrupt controllers between libvapic's form and KVM's: the timer's count, what a
 * processor does, I/O APIC entries and high lines, the 8259 pair.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "interchange.h"
#include "vapic/arch/ioapic.h"

static void put(struct vmm_apic_state *s, uint32_t offset, uint32_t value)
{
    memcpy(s->image + offset, &value, sizeof(value));
}

static uint32_t get(const struct vmm_apic_state *s, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, s->image + offset, sizeof(value));
    return value;
}

static struct vmm_apic_state timer(uint32_t mode, uint32_t initial, uint32_t current, uint32_t tdcr)
{
    struct vmm_apic_state s = {.saved_ns = 1000};

    put(&s, APIC_LVT_TIMER, mode | 0x40);
    put(&s, APIC_TMICT, initial);
    put(&s, APIC_TMCCT, current);
    put(&s, APIC_TDCR, tdcr);
    return s;
}

/* The count goes on while nobody runs, by the divisor [SDM3 F12-10]; it never passes its end. */
static void test_count_goes_on(void **state)
{
    static const struct {
        uint32_t tdcr, current, passed_ns, left;
    } rows[] = {
        {0xb, 5000, 1200, 3800}, /* divided by 1 */
        {0x0, 5000, 1200, 4400}, /* by 2 */
        {0xa, 5000, 1280, 4990}, /* by 128 */
        {0x3, 5000, 31, 4999},   /* by 16: a part of a tick is none */
        {0xb, 5000, 5000, 1},    /* due: as soon as it runs */
        {0xb, 5000, 4000000, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmm_apic_state s = timer(APIC_TIMER_PERIODIC, 9000, rows[i].current, rows[i].tdcr);

        vmm_apic_state_age(&s, 1, 1000 + rows[i].passed_ns);
        assert_int_equal(get(&s, APIC_TMCCT), rows[i].left);
        assert_int_equal(get(&s, APIC_TMICT), 9000);
        assert_int_equal(s.saved_ns, 1000 + rows[i].passed_ns);
    }
}

static void test_count_by_bus_clock(void **state)
{
    struct vmm_apic_state s = timer(APIC_TIMER_ONESHOT, 9000, 100, 0xb);

    (void)state;
    vmm_apic_state_age(&s, 10, 1000 + 250);
    assert_int_equal(get(&s, APIC_TMCCT), 75);
}

/* A stopped timer, and one in deadline mode, have no count that goes on. */
static void test_nothing_counts(void **state)
{
    struct vmm_apic_state stopped = timer(APIC_TIMER_ONESHOT, 0, 0, 0xb);
    struct vmm_apic_state deadline = timer(APIC_TIMER_DEADLINE, 7, 7, 0xb);

    (void)state;
    vmm_apic_state_age(&stopped, 1, 2000);
    vmm_apic_state_age(&deadline, 1, 2000);
    assert_false(vmm_apic_state_counts(&stopped));
    assert_false(vmm_apic_state_counts(&deadline));
    assert_int_equal(get(&stopped, APIC_TMCCT), 0);
    assert_int_equal(get(&deadline, APIC_TMCCT), 7);
}

static void test_ended(void **state)
{
    struct vmm_apic_state ended = timer(APIC_TIMER_ONESHOT, 9000, 0, 0xb);
    struct vmm_apic_state runs = timer(APIC_TIMER_ONESHOT, 9000, 1, 0xb);
    struct vmm_apic_state periodic = timer(APIC_TIMER_PERIODIC, 9000, 0, 0xb);

    (void)state;
    assert_true(vmm_apic_state_ended(&ended));
    assert_false(vmm_apic_state_ended(&runs));
    assert_false(vmm_apic_state_ended(&periodic));
    vmm_apic_state_stop(&ended);
    assert_int_equal(get(&ended, APIC_TMICT), 0);
    assert_false(vmm_apic_state_ended(&ended));
}

/* One that counts down is settled; one that expired is not, but a periodic one after some tries. */
static void test_settled(void **state)
{
    static const struct {
        uint32_t mode, before, after;
        unsigned tries;
        bool settled;
    } rows[] = {
        {APIC_TIMER_ONESHOT, 500, 400, 1, true},
        {APIC_TIMER_ONESHOT, 0, 0, 1, true}, /* ended before the flush */
        {APIC_TIMER_ONESHOT, 500, 0, 1, false},
        {APIC_TIMER_ONESHOT, 500, 0, 100, false},
        {APIC_TIMER_PERIODIC, 500, 400, 1, true},
        {APIC_TIMER_PERIODIC, 500, 600, 1, false},
        {APIC_TIMER_PERIODIC, 500, 0, 2, false},
        {APIC_TIMER_PERIODIC, 500, 600, 20, true},
        {APIC_TIMER_DEADLINE, 0, 0, 1, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmm_apic_state before = timer(rows[i].mode, 9000, rows[i].before, 0xb);
        struct vmm_apic_state after = timer(rows[i].mode, 9000, rows[i].after, 0xb);

        assert_int_equal(vmm_apic_state_settled(&before, &after, rows[i].tries), rows[i].settled);
    }
}

static void test_activity(void **state)
{
    (void)state;
    for (int a = VAPIC_RUNNING; a <= VAPIC_UNINITIALIZED; a++) {
        assert_int_equal(vmm_activity_of(vmm_mp_state_of((enum vapic_activity)a)), a);
    }
    assert_int_equal(vmm_mp_state_of(VAPIC_HALTED), KVM_MP_STATE_HALTED);
    assert_int_equal(vmm_mp_state_of(VAPIC_WAIT_FOR_SIPI), KVM_MP_STATE_INIT_RECEIVED);
    assert_int_equal(vmm_activity_of(KVM_MP_STATE_RUNNABLE), VAPIC_RUNNING);
}

#define LEVEL_ENTRY (0x0300000000000000ull | IOAPIC_RTE_LEVEL | 0x51)
#define EDGE_ENTRY  (0x0100000000000000ull | 0x52)

/* KVM's record of high lines has the level-triggered ones, and wire 0 is pin 2. */
static void test_ioapic_high_lines(void **state)
{
    struct vmm_ioapic_state from = {.id = 0x05000000, .select = 0x3f};
    struct kvm_ioapic_state to;

    (void)state;
    from.entry[2] = LEVEL_ENTRY;
    from.entry[9] = LEVEL_ENTRY | IOAPIC_RTE_RIRR;
    from.entry[4] = EDGE_ENTRY;
    from.entry[10] = LEVEL_ENTRY;
    vmm_ioapic_to_kernel(&from, 1u << 0 | 1u << 9 | 1u << 4, &to);
    assert_int_equal(to.irr, 1u << 2 | 1u << 9);
    assert_int_equal(to.id, 5);
    assert_int_equal(to.ioregsel, 0x3f);
    assert_int_equal(to.base_address, VMM_IOAPIC_BASE);
    assert_true(to.redirtbl[9].bits == (LEVEL_ENTRY | IOAPIC_RTE_RIRR));
}

/* Wire 0 drives nothing on pin 0, and wire 2 is no wire. */
static void test_ioapic_wires_that_are_none(void **state)
{
    struct vmm_ioapic_state from = {.id = 0};
    struct kvm_ioapic_state to;

    (void)state;
    from.entry[0] = from.entry[2] = LEVEL_ENTRY;
    vmm_ioapic_to_kernel(&from, 1u << 2, &to);
    assert_int_equal(to.irr, 0);
    vmm_ioapic_to_kernel(&from, 1u << 0, &to);
    assert_int_equal(to.irr, 1u << 2);
}

static void test_ioapic_back(void **state)
{
    struct vmm_ioapic_state from = {.id = 0x0a000000, .select = 0x10};
    struct vmm_ioapic_state back;
    struct kvm_ioapic_state kernel;

    (void)state;
    for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
        from.entry[pin] = pin % 3 == 0 ? IOAPIC_RTE_MASKED : LEVEL_ENTRY + pin;
    }
    vmm_ioapic_to_kernel(&from, 0, &kernel);
    kernel.redirtbl[5].bits |= IOAPIC_RTE_DS;
    vmm_ioapic_from_kernel(&kernel, &back);
    assert_memory_equal(&from, &back, sizeof(from));
}

/* A master in the middle of everything: what it is comes back, the wiring is the target's own. */
static void test_pic_round_trip(void **state)
{
    struct vmm_pic_chip from = {
        .lines = 0x91,
        .latched = 0x11,
        .isr = 0x20,
        .imr = 0x0c,
        .elcr = 0x80,
        .elcr_mask = 0xf8,
        .vector_base = 0x20,
        .top = 3,
        .init_next = 3,
        .want_icw4 = true,
        .auto_eoi = true,
        .rotate_on_auto_eoi = true,
        .special_mask = true,
        .special_nested = true,
        .read_isr = true,
        .poll = true,
        .has_slave = true,
        .slave_asks = true,
    };
    struct vmm_pic_chip back = {
        .lines = 0x91, .elcr_mask = 0xf8, .has_slave = true, .slave_asks = true};
    struct kvm_pic_state kernel;

    (void)state;
    vmm_pic_to_kernel(&from, &kernel);
    assert_int_equal(kernel.irr, 0x11 | 0x80 | 0x04);
    assert_int_equal(kernel.last_irr, 0x91);
    assert_int_equal(kernel.init_state, 2);
    vmm_pic_from_kernel(&kernel, &back);
    assert_memory_equal(&from, &back, sizeof(from));
}

/* Input 2 of a slave is an input like the others; of a master it is the cascade. */
static void test_pic_cascade(void **state)
{
    struct kvm_pic_state kernel = {.irr = 0x04};
    struct vmm_pic_chip master = {.elcr_mask = 0xf8, .has_slave = true};
    struct vmm_pic_chip slave = {.elcr_mask = 0xde};

    (void)state;
    vmm_pic_from_kernel(&kernel, &master);
    vmm_pic_from_kernel(&kernel, &slave);
    assert_int_equal(master.latched, 0);
    assert_int_equal(slave.latched, 0x04);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count_goes_on),     cmocka_unit_test(test_count_by_bus_clock),
        cmocka_unit_test(test_nothing_counts),    cmocka_unit_test(test_ended),
        cmocka_unit_test(test_settled),           cmocka_unit_test(test_activity),
        cmocka_unit_test(test_ioapic_high_lines), cmocka_unit_test(test_ioapic_wires_that_are_none),
        cmocka_unit_test(test_ioapic_back),       cmocka_unit_test(test_pic_round_trip),
        cmocka_unit_test(test_pic_cascade),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
