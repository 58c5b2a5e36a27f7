/* SPDX-License-Identifier: MIT */
/*
 * The MC146818: formats of the time, setting it, flags and interrupts, CMOS memory.
 */
#include "dev_fixture.h"

#include "dev_rtc.h"

struct rtc_fixture {
    struct fixture fix;
    struct vmm_rtc rtc;
};

static const struct vmm_rtc_config config = {
    .ram_below_4g = 3ull << 30,
    .ram_above_4g = 5ull << 30,
    .cpus = 4,
};

static int setup(void **state)
{
    struct rtc_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    fix_init(&f->fix);
    assert_int_equal(vmm_rtc_init(&f->rtc, &f->fix.env, &config), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct rtc_fixture *f = *state;

    vmm_rtc_fini(&f->rtc);
    fix_fini(&f->fix);
    free(f);
    return 0;
}

static uint8_t get(struct rtc_fixture *f, uint8_t reg)
{
    out8(&f->fix, 0x70, reg);
    return in8(&f->fix, 0x71);
}

static void put(struct rtc_fixture *f, uint8_t reg, uint8_t value)
{
    out8(&f->fix, 0x70, reg);
    out8(&f->fix, 0x71, value);
}

static void advance(struct rtc_fixture *f, uint64_t ms)
{
    fix_advance(&f->fix, ms * 1000000);
}

static const uint8_t time_regs[] = {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32};

static void check_time(struct rtc_fixture *f, const uint8_t expect[COUNT(time_regs)])
{
    for (size_t i = 0; i < COUNT(time_regs); i++)
        assert_int_equal(get(f, time_regs[i]), expect[i]);
}

/* Friday 2026-01-02 03:04:05 and, 12 hours on, 15:04:05, in the four formats of register B. */
static void test_formats(void **state)
{
    static const struct {
        uint8_t b;
        uint8_t morning[COUNT(time_regs)];
        uint8_t afternoon;
    } rows[] = {
        {0x02, {0x05, 0x04, 0x03, 0x06, 0x02, 0x01, 0x26, 0x20}, 0x15},
        {0x06, {5, 4, 3, 6, 2, 1, 26, 20}, 15},
        {0x00, {0x05, 0x04, 0x03, 0x06, 0x02, 0x01, 0x26, 0x20}, 0x83},
        {0x04, {5, 4, 3, 6, 2, 1, 26, 20}, 0x83},
    };
    struct rtc_fixture *f = *state;
    uint64_t start = f->fix.now;

    for (size_t i = 0; i < COUNT(rows); i++) {
        f->fix.now = start;
        put(f, 0x0b, rows[i].b);
        check_time(f, rows[i].morning);
        f->fix.now = start + 12 * 3600 * VMM_NS_PER_SEC;
        assert_int_equal(get(f, 0x04), rows[i].afternoon);
    }
}

static void test_time_runs(void **state)
{
    static const uint8_t later[] = {0x06, 0x04, 0x03, 0x07, 0x28, 0x02, 0x26, 0x20};
    struct rtc_fixture *f = *state;

    advance(f, 749);
    assert_int_equal(get(f, 0x00), 0x05);
    advance(f, 1);
    assert_int_equal(get(f, 0x00), 0x06);
    advance(f, 57ull * 86400 * 1000);
    check_time(f, later);
}

/* As an OS sets it: SET, the registers, SET off; the fraction of the second is kept. */
static void test_set_time(void **state)
{
    static const uint8_t leap[] = {0x59, 0x59, 0x23, 0x03, 0x29, 0x02, 0x00, 0x20};
    static const uint8_t march[] = {0x00, 0x00, 0x00, 0x04, 0x01, 0x03, 0x00, 0x20};
    struct rtc_fixture *f = *state;

    put(f, 0x0b, 0x82);
    advance(f, 5000);
    assert_int_equal(get(f, 0x00), 0x05); /* stopped */
    for (size_t i = 0; i < COUNT(time_regs); i++)
        put(f, time_regs[i], leap[i]);
    put(f, 0x0b, 0x02);
    check_time(f, leap);
    advance(f, 750);
    check_time(f, march);
}

static void test_set_without_stopping(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x04, 0x22);
    assert_int_equal(get(f, 0x04), 0x22);
    assert_int_equal(get(f, 0x00), 0x05);
    assert_int_equal(get(f, 0x07), 0x02);
}

static void test_set_12_hour(void **state)
{
    static const struct {
        uint8_t written, read24;
    } rows[] = {{0x12, 0x00}, {0x01, 0x01}, {0x11, 0x11}, {0x92, 0x12}, {0x81, 0x13}, {0x91, 0x23}};
    struct rtc_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        put(f, 0x0b, 0x00);
        put(f, 0x04, rows[i].written);
        assert_int_equal(get(f, 0x04), rows[i].written);
        put(f, 0x0b, 0x02);
        assert_int_equal(get(f, 0x04), rows[i].read24);
    }
}

/* What was written while stopped was written in the format of that time. */
static void test_format_change_at_start(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x0b, 0x82);
    put(f, 0x00, 0x42);
    put(f, 0x0b, 0x06);
    assert_int_equal(get(f, 0x00), 42);
}

static void test_update_in_progress(void **state)
{
    struct rtc_fixture *f = *state;

    assert_int_equal(get(f, 0x0a), 0x26);
    f->fix.now += 750000000 - 244000;
    assert_int_equal(get(f, 0x0a), 0xa6);
    f->fix.now += 244000;
    assert_int_equal(get(f, 0x0a), 0x26);
    put(f, 0x0b, 0x82);
    f->fix.now += VMM_NS_PER_SEC - 1;
    assert_int_equal(get(f, 0x0a), 0x26);
}

static void test_divider_reset(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x0a, 0x76);
    put(f, 0x0a, 0x26);
    advance(f, 499);
    assert_int_equal(get(f, 0x00), 0x05);
    advance(f, 1);
    assert_int_equal(get(f, 0x00), 0x06);
}

/* Flags come without their interrupts too, and reading C clears them. */
static void test_flags_by_polling(void **state)
{
    struct rtc_fixture *f = *state;

    get(f, 0x0c);
    assert_int_equal(get(f, 0x0c), 0x00);
    f->fix.now += 1000000;
    assert_int_equal(get(f, 0x0c), 0x40);
    f->fix.now += 800000000;
    assert_int_equal(get(f, 0x0c), 0x50);
    assert_int_equal(get(f, 0x0c), 0x00);
    assert_int_equal(f->fix.rises[8], 0);
    assert_int_equal(vmm_evloop_next(&f->fix.loop), VMM_TIME_NEVER);
}

/* Interrupts in ten seconds if the guest reads C at each. */
static void test_periodic(void **state)
{
    static const struct {
        uint8_t rate;
        unsigned hz;
    } rows[] = {{0, 0}, {1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {10, 64}, {15, 2}};
    struct rtc_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t end;
        unsigned count = 0;

        put(f, 0x0a, 0x20 | rows[i].rate);
        put(f, 0x0b, 0x42);
        get(f, 0x0c);
        end = f->fix.now + 10 * VMM_NS_PER_SEC;
        while (vmm_evloop_next(&f->fix.loop) <= end) {
            fix_advance(&f->fix, vmm_evloop_next(&f->fix.loop) - f->fix.now);
            assert_true(f->fix.wire[8]);
            assert_int_equal(get(f, 0x0c) & 0xc0, 0xc0);
            assert_false(f->fix.wire[8]);
            count++;
        }
        f->fix.now = end;
        assert_in_range(count, rows[i].hz * 10, rows[i].hz * 10 + (rows[i].hz != 0));
    }
}

/* A guest that does not read C gets one interrupt, and the host no work. */
static void test_unread_coalesces(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x0a, 0x23);
    put(f, 0x0b, 0x42);
    assert_in_range(fix_advance(&f->fix, 10 * VMM_NS_PER_SEC), 0, 1);
    assert_int_equal(f->fix.rises[8], 1);
}

static void test_update_interrupt(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x0b, 0x12);
    get(f, 0x0c);
    advance(f, 749);
    assert_int_equal(f->fix.rises[8], 0);
    advance(f, 1);
    assert_true(f->fix.wire[8]);
    assert_int_equal(get(f, 0x0c) & 0x90, 0x90);
    advance(f, 1000);
    assert_int_equal(f->fix.rises[8], 2);
}

/* Seconds until the alarm strikes, from 03:04:05.25. */
static void test_alarm(void **state)
{
    static const struct {
        uint8_t hour, min, sec;
        uint64_t strikes; /* first whole second after 05, 0: never */
    } rows[] = {
        {0x03, 0x04, 0x06, 1},
        {0x03, 0x04, 0x05, 86400},
        {0xff, 0xff, 0xff, 1},
        {0xff, 0xff, 0x00, 55},
        {0xff, 0x00, 0x00, 56 * 60 - 5},
        {0x00, 0x00, 0x00, 86400 - (3 * 3600 + 4 * 60 + 5)},
        {0x02, 0xc0, 0xc5, 86400 - (3600 + 4 * 60 + 5)},
        {0x99, 0x00, 0x00, 0},
    };
    struct rtc_fixture *f = *state;
    uint64_t start = f->fix.now;

    for (size_t i = 0; i < COUNT(rows); i++) {
        unsigned before = f->fix.rises[8];

        put(f, 0x0b, 0x82);
        put(f, 0x04, 0x03);
        put(f, 0x02, 0x04);
        put(f, 0x00, 0x05);
        put(f, 0x0b, 0x02);
        get(f, 0x0c);
        put(f, 0x05, rows[i].hour);
        put(f, 0x03, rows[i].min);
        put(f, 0x01, rows[i].sec);
        put(f, 0x0b, 0x22);
        if (rows[i].strikes) {
            advance(f, rows[i].strikes * 1000 - 251);
            assert_int_equal(f->fix.rises[8], before);
            advance(f, 1);
            assert_int_equal(f->fix.rises[8], before + 1);
            assert_int_equal(get(f, 0x0c) & 0xa0, 0xa0);
        } else {
            advance(f, 3ull * 86400 * 1000);
            assert_int_equal(f->fix.rises[8], before);
        }
        put(f, 0x0b, 0x02);
        f->fix.now += VMM_NS_PER_SEC - (f->fix.now - start) % VMM_NS_PER_SEC;
    }
}

static void test_memory_sizes(void **state)
{
    static const struct {
        uint8_t reg, value;
    } rows[] = {
        {0x15, 0x80}, {0x16, 0x02}, /* 640 KiB */
        {0x17, 0xff}, {0x18, 0xff}, {0x30, 0xff},
        {0x31, 0xff}, {0x34, 0x00}, {0x35, 0xbf}, /* 3 GiB - 16 MiB in 64 KiB */
        {0x5b, 0x00}, {0x5c, 0x40}, {0x5d, 0x01}, /* 5 GiB in 64 KiB */
        {0x5f, 3},    {0x0d, 0x80},
    };
    struct rtc_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(get(f, rows[i].reg), rows[i].value);
}

static void test_memory(void **state)
{
    struct rtc_fixture *f = *state;

    for (unsigned reg = 0x0e; reg < 0x80; reg++) {
        if (reg == 0x32)
            continue;
        put(f, (uint8_t)(reg | 0x80), (uint8_t)~reg); /* bit 7: the NMI gate */
        assert_int_equal(get(f, (uint8_t)reg), (uint8_t)~reg);
    }
    assert_int_equal(in8(&f->fix, 0x70), 0xff);
}

static void test_read_only(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x0c, 0xff);
    put(f, 0x0d, 0x00);
    assert_int_equal(get(f, 0x0c) & 0x2f, 0);
    assert_int_equal(get(f, 0x0d), 0x80);
    put(f, 0x0a, 0xff);
    assert_int_equal(get(f, 0x0a), 0x7f);
}

/* Interrupts end at reset; memory and time are on a battery. */
static void test_reset(void **state)
{
    struct rtc_fixture *f = *state;

    put(f, 0x0f, 0x0a);
    put(f, 0x0b, 0x72);
    advance(f, 2000);
    assert_true(f->fix.wire[8]);
    fix_lock(&f->fix);
    vmm_rtc_reset(&f->rtc);
    fix_unlock(&f->fix);
    assert_false(f->fix.wire[8]);
    assert_int_equal(get(f, 0x0b), 0x02);
    assert_int_equal(get(f, 0x0c), 0x00);
    assert_int_equal(get(f, 0x0f), 0x0a);
    assert_int_equal(get(f, 0x00), 0x07);
    assert_int_equal(fix_advance(&f->fix, 10 * VMM_NS_PER_SEC), 0);
}

static void test_any_bytes(void **state)
{
    struct rtc_fixture *f = *state;
    uint32_t seed = 3;

    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525u + 1013904223u;
        put(f, (seed >> 27) & 0x0f, (uint8_t)(seed >> 16));
        put(f, 0x32, (uint8_t)(seed >> 8));
        get(f, (seed >> 20) & 0x3f);
        fix_advance(&f->fix, seed >> 7);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_formats),
        T(test_time_runs),
        T(test_set_time),
        T(test_set_without_stopping),
        T(test_set_12_hour),
        T(test_format_change_at_start),
        T(test_update_in_progress),
        T(test_divider_reset),
        T(test_flags_by_polling),
        T(test_periodic),
        T(test_unread_coalesces),
        T(test_update_interrupt),
        T(test_alarm),
        T(test_memory_sizes),
        T(test_memory),
        T(test_read_only),
        T(test_reset),
        T(test_any_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
