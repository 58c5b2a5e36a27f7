/* SPDX-License-Identifier: MIT */
/*
 * The 8259 pair: initialisation, priority, end of interrupt, rotation, spurious vectors, polling,
 * level mode.
 */
#include "dev_fixture.h"

#include "dev_pic.h"

struct pic_fixture {
    struct fixture fix;
    struct vmm_pic pic;
    bool intr;
    unsigned intr_rises;
};

static void on_intr(void *ctx, bool level)
{
    struct pic_fixture *f = ctx;

    assert_int_not_equal(level, f->intr);
    f->intr = level;
    f->intr_rises += level;
}

static void program(struct pic_fixture *f, uint8_t icw4)
{
    out8(&f->fix, 0x20, 0x11);
    out8(&f->fix, 0x21, 0x20);
    out8(&f->fix, 0x21, 0x04);
    out8(&f->fix, 0x21, icw4);
    out8(&f->fix, 0xa0, 0x11);
    out8(&f->fix, 0xa1, 0x28);
    out8(&f->fix, 0xa1, 0x02);
    out8(&f->fix, 0xa1, icw4 & (uint8_t)~0x10);
}

static int setup(void **state)
{
    struct pic_fixture *f = calloc(1, sizeof(*f));
    struct vmm_pic_output output = {f, on_intr};

    assert_non_null(f);
    fix_init(&f->fix);
    assert_int_equal(vmm_pic_init(&f->pic, &f->fix.env, &output), 0);
    program(f, 0x01);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct pic_fixture *f = *state;

    fix_fini(&f->fix);
    free(f);
    return 0;
}

static void line(struct pic_fixture *f, unsigned input, bool level)
{
    fix_lock(&f->fix);
    vmm_pic_set_line(&f->pic, input, level);
    fix_unlock(&f->fix);
}

static void pulse(struct pic_fixture *f, unsigned input)
{
    line(f, input, true);
    line(f, input, false);
}

static void eoi(struct pic_fixture *f)
{
    out8(&f->fix, 0x20, 0x20);
}

static uint8_t irr(struct pic_fixture *f, uint16_t port)
{
    out8(&f->fix, port, 0x0a);
    return in8(&f->fix, port);
}

static uint8_t isr(struct pic_fixture *f, uint16_t port)
{
    out8(&f->fix, port, 0x0b);
    return in8(&f->fix, port);
}

/* Every input has its vector; the slave's come through the master's input 2. */
static void test_vectors(void **state)
{
    struct pic_fixture *f = *state;

    for (unsigned input = 0; input < 16; input++) {
        if (input == 2)
            continue;
        pulse(f, input);
        assert_true(f->intr);
        assert_int_equal(vmm_pic_ack(&f->pic), 0x20 + input);
        assert_false(f->intr);
        assert_int_equal(isr(f, 0x20), input < 8 ? 1u << input : 4);
        assert_int_equal(isr(f, 0xa0), input < 8 ? 0 : 1u << (input - 8));
        if (input >= 8)
            out8(&f->fix, 0xa0, 0x20);
        eoi(f);
        assert_int_equal(isr(f, 0x20) | isr(f, 0xa0), 0);
    }
}

static void test_reset_masks_all(void **state)
{
    struct pic_fixture *f = *state;

    fix_lock(&f->fix);
    vmm_pic_reset(&f->pic);
    fix_unlock(&f->fix);
    pulse(f, 1);
    assert_false(f->intr);
    assert_int_equal(in8(&f->fix, 0x21), 0xff);
    assert_int_equal(in8(&f->fix, 0xa1), 0xff);
}

static void test_masks_read_back(void **state)
{
    struct pic_fixture *f = *state;

    for (unsigned value = 0; value < 256; value++) {
        out8(&f->fix, 0x21, (uint8_t)value);
        out8(&f->fix, 0xa1, (uint8_t)~value);
        assert_int_equal(in8(&f->fix, 0x21), value);
        assert_int_equal(in8(&f->fix, 0xa1), (uint8_t)~value);
    }
}

/* Lower inputs win, the slave's sit between 1 and 3; a lower one waits for the EOI of a higher. */
static void test_priority(void **state)
{
    static const uint8_t order[] = {0x20, 0x21, 0x28, 0x2f, 0x23, 0x27};
    struct pic_fixture *f = *state;

    for (size_t i = COUNT(order); i-- > 0;)
        pulse(f, order[i] - 0x20u);
    for (size_t i = 0; i < COUNT(order); i++) {
        assert_int_equal(vmm_pic_ack(&f->pic), order[i]);
        assert_false(f->intr);
        if (order[i] >= 0x28)
            out8(&f->fix, 0xa0, 0x20);
        eoi(f);
    }
    assert_false(f->intr);
}

static void test_higher_interrupts_lower(void **state)
{
    struct pic_fixture *f = *state;

    pulse(f, 5);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
    pulse(f, 6);
    assert_false(f->intr);
    pulse(f, 4);
    assert_true(f->intr);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x24);
    assert_int_equal(isr(f, 0x20), 0x30);
    eoi(f); /* ends 4, the most urgent */
    assert_int_equal(isr(f, 0x20), 0x20);
    assert_false(f->intr);
    eoi(f);
    assert_true(f->intr);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x26);
}

static void test_mask(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x21, 0x10);
    pulse(f, 4);
    assert_false(f->intr);
    assert_int_equal(irr(f, 0x20), 0x10);
    out8(&f->fix, 0x21, 0x00);
    assert_true(f->intr);
    out8(&f->fix, 0x21, 0x10);
    assert_false(f->intr);
}

static void test_cascade_masked(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x21, 0x04);
    pulse(f, 12);
    assert_false(f->intr);
    out8(&f->fix, 0x21, 0x00);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x2c);
}

/* An acknowledge with nothing requested gives input 7's vector and leaves no ISR bit. */
static void test_spurious_master(void **state)
{
    struct pic_fixture *f = *state;

    assert_int_equal(vmm_pic_ack(&f->pic), 0x27);
    assert_int_equal(isr(f, 0x20), 0);
    pulse(f, 3);
    out8(&f->fix, 0x21, 0x08);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x27);
    assert_int_equal(isr(f, 0x20), 0);
    assert_int_equal(irr(f, 0x20), 0x08);
}

/* A level request of the slave that goes away leaves no request at the master either. */
static void test_level_withdrawn(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x4d1, 0x02);
    line(f, 9, true);
    assert_true(f->intr);
    line(f, 9, false);
    assert_false(f->intr);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x27);
    assert_int_equal(isr(f, 0x20) | isr(f, 0xa0), 0);
}

static void test_specific_eoi(void **state)
{
    struct pic_fixture *f = *state;

    pulse(f, 6);
    vmm_pic_ack(&f->pic);
    pulse(f, 1);
    vmm_pic_ack(&f->pic);
    out8(&f->fix, 0x20, 0x66);
    assert_int_equal(isr(f, 0x20), 0x02);
    out8(&f->fix, 0x20, 0x61);
    assert_int_equal(isr(f, 0x20), 0);
}

static void test_rotation(void **state)
{
    static const struct {
        uint8_t ocw2;
        uint8_t next; /* who wins when all ask */
    } rows[] = {
        {0xa0, 4}, /* rotate on non-specific EOI of 3 */
        {0xe3, 4}, /* rotate on specific EOI */
        {0x20, 0}, /* no rotation */
    };
    struct pic_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        program(f, 0x01);
        pulse(f, 3);
        assert_int_equal(vmm_pic_ack(&f->pic), 0x23);
        out8(&f->fix, 0x20, rows[i].ocw2);
        assert_int_equal(isr(f, 0x20), 0);
        pulse(f, 0);
        pulse(f, 4);
        assert_int_equal(vmm_pic_ack(&f->pic), 0x20 + rows[i].next);
    }
}

static void test_set_priority(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x20, 0xc5); /* 5 becomes the lowest */
    pulse(f, 5);
    pulse(f, 6);
    pulse(f, 0);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x26);
    eoi(f);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x20);
    eoi(f);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
}

static void test_auto_eoi(void **state)
{
    struct pic_fixture *f = *state;

    program(f, 0x03);
    pulse(f, 4);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x24);
    assert_int_equal(isr(f, 0x20), 0);
    out8(&f->fix, 0x20, 0x80); /* rotate in auto EOI mode */
    pulse(f, 4);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x24);
    pulse(f, 4);
    pulse(f, 5);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
}

/* A masked input in service does not hold back the less urgent ones in special mask mode. */
static void test_special_mask(void **state)
{
    struct pic_fixture *f = *state;

    pulse(f, 1);
    vmm_pic_ack(&f->pic);
    out8(&f->fix, 0x21, 0x02);
    pulse(f, 5);
    assert_false(f->intr);
    out8(&f->fix, 0x20, 0x68);
    assert_true(f->intr);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
    eoi(f); /* does not end the masked one */
    assert_int_equal(isr(f, 0x20), 0x02);
    out8(&f->fix, 0x20, 0x48);
    pulse(f, 6);
    assert_false(f->intr);
}

/* Special fully nested: a more urgent input of the slave interrupts a less urgent one. */
static void test_special_nested(void **state)
{
    static const struct {
        uint8_t icw4;
        bool nests;
    } rows[] = {{0x01, false}, {0x11, true}};
    struct pic_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        program(f, rows[i].icw4);
        pulse(f, 12);
        assert_int_equal(vmm_pic_ack(&f->pic), 0x2c);
        pulse(f, 9);
        assert_int_equal(f->intr, rows[i].nests);
    }
}

static void test_poll(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x20, 0x0c);
    assert_int_equal(in8(&f->fix, 0x20), 0x00);
    pulse(f, 6);
    out8(&f->fix, 0x20, 0x0c);
    assert_int_equal(in8(&f->fix, 0x20), 0x86);
    assert_int_equal(isr(f, 0x20), 0x40);
    assert_false(f->intr);
    pulse(f, 11);
    out8(&f->fix, 0xa0, 0x0c);
    assert_int_equal(in8(&f->fix, 0xa0), 0x83);
    assert_int_equal(isr(f, 0xa0), 0x08);
}

static void test_level(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x4d0, 0x20);
    line(f, 5, true);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
    eoi(f);
    assert_true(f->intr); /* still high: again */
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
    line(f, 5, false);
    eoi(f);
    assert_false(f->intr);
}

static void test_edge_needs_a_fall(void **state)
{
    struct pic_fixture *f = *state;

    line(f, 5, true);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x25);
    eoi(f);
    line(f, 5, true);
    assert_false(f->intr);
    line(f, 5, false);
    line(f, 5, true);
    assert_true(f->intr);
}

static void test_elcr_mask(void **state)
{
    struct pic_fixture *f = *state;

    out16(&f->fix, 0x4d0, 0xffff);
    assert_int_equal(in16(&f->fix, 0x4d0), 0xdef8);
}

static void test_icw1_forgets(void **state)
{
    struct pic_fixture *f = *state;

    pulse(f, 3);
    vmm_pic_ack(&f->pic);
    pulse(f, 4);
    out8(&f->fix, 0x21, 0xf0);
    program(f, 0x01);
    assert_false(f->intr);
    assert_int_equal(isr(f, 0x20), 0);
    assert_int_equal(irr(f, 0x20), 0);
    assert_int_equal(in8(&f->fix, 0x21), 0);
}

/* Without ICW4 and single: two words only. */
static void test_short_init(void **state)
{
    struct pic_fixture *f = *state;

    out8(&f->fix, 0x20, 0x12);
    out8(&f->fix, 0x21, 0x47);
    out8(&f->fix, 0x21, 0x80);
    assert_int_equal(in8(&f->fix, 0x21), 0x80);
    pulse(f, 1);
    assert_int_equal(vmm_pic_ack(&f->pic), 0x41);
}

/* Two requests, one acknowledged: the output falls and rises, so that the second is told. */
static void test_output_told_each(void **state)
{
    struct pic_fixture *f = *state;
    unsigned rises = f->intr_rises;

    pulse(f, 5);
    pulse(f, 3);
    vmm_pic_ack(&f->pic);
    eoi(f);
    assert_true(f->intr);
    assert_int_equal(f->intr_rises, rises + 2);
}

static void test_bad_inputs_ignored(void **state)
{
    struct pic_fixture *f = *state;

    line(f, 2, true);
    line(f, 16, true);
    line(f, 4000, true);
    assert_false(f->intr);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_vectors),
        T(test_reset_masks_all),
        T(test_masks_read_back),
        T(test_priority),
        T(test_higher_interrupts_lower),
        T(test_mask),
        T(test_cascade_masked),
        T(test_spurious_master),
        T(test_level_withdrawn),
        T(test_specific_eoi),
        T(test_rotation),
        T(test_set_priority),
        T(test_auto_eoi),
        T(test_special_mask),
        T(test_special_nested),
        T(test_poll),
        T(test_level),
        T(test_edge_needs_a_fall),
        T(test_elcr_mask),
        T(test_icw1_forgets),
        T(test_short_init),
        T(test_output_told_each),
        T(test_bad_inputs_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
