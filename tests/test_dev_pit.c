/* SPDX-License-Identifier: MIT */
/*
 * The 8254: every mode's counter and output over time, latch and read-back, gate and port 61h, wire
 * 0.
 */
#include "dev_fixture.h"

#include "dev_pit.h"

struct pit_fixture {
    struct fixture fix;
    struct vmm_pit pit;
};

static int setup(void **state)
{
    struct pit_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    fix_init(&f->fix);
    assert_int_equal(vmm_pit_init(&f->pit, &f->fix.env), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct pit_fixture *f = *state;

    vmm_pit_fini(&f->pit);
    fix_fini(&f->fix);
    free(f);
    return 0;
}

/* Moves the clock to the first instant of tick `tick`, counted from `start`. */
static void at_tick(struct pit_fixture *f, uint64_t start, uint64_t tick)
{
    uint64_t then = start + vmm_ticks_to_ns(tick, VMM_PIT_HZ);

    fix_advance(&f->fix, then - f->fix.now);
}

static void program(struct pit_fixture *f, unsigned channel, unsigned mode, uint16_t count)
{
    out8(&f->fix, 0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out8(&f->fix, (uint16_t)(0x40 + channel), (uint8_t)count);
    out8(&f->fix, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t latched(struct pit_fixture *f, unsigned channel)
{
    uint16_t port = (uint16_t)(0x40 + channel);
    uint8_t low;

    out8(&f->fix, 0x43, (uint8_t)(channel << 6));
    low = in8(&f->fix, port);
    return (uint16_t)(low | in8(&f->fix, port) << 8);
}

static bool out2(struct pit_fixture *f)
{
    return in8(&f->fix, 0x61) & 0x20;
}

static void gate2(struct pit_fixture *f, bool high)
{
    out8(&f->fix, 0x61, high);
}

/* Channel 2 with the gate high all the time but for modes 1 and 5, which it triggers at tick 0. */
static const struct {
    unsigned mode;
    uint16_t count;
    uint64_t tick;
    uint16_t value;
    bool out;
} counting[] = {
    {0, 10, 0, 10, false},     {0, 10, 9, 1, false},      {0, 10, 10, 0, true},
    {0, 10, 11, 0xffff, true}, {0, 0, 1, 0xffff, false},  {0, 0, 65535, 1, false},
    {0, 0, 65536, 0, true},    {1, 10, 0, 10, false},     {1, 10, 9, 1, false},
    {1, 10, 10, 0, true},      {2, 10, 0, 10, true},      {2, 10, 8, 2, true},
    {2, 10, 9, 1, false},      {2, 10, 10, 10, true},     {2, 10, 19, 1, false},
    {2, 0, 0, 0, true},        {2, 0, 65535, 1, false},   {3, 10, 0, 10, true},
    {3, 10, 1, 8, true},       {3, 10, 4, 2, true},       {3, 10, 5, 10, false},
    {3, 10, 9, 2, false},      {3, 10, 10, 10, true},     {3, 9, 0, 8, true},
    {3, 9, 4, 0, true},        {3, 9, 5, 8, false},       {3, 9, 8, 2, false},
    {3, 9, 9, 8, true},        {4, 10, 0, 10, true},      {4, 10, 9, 1, true},
    {4, 10, 10, 0, false},     {4, 10, 11, 0xffff, true}, {5, 10, 9, 1, true},
    {5, 10, 10, 0, false},     {5, 10, 11, 0xffff, true}, {6, 10, 9, 1, false}, /* the same as 2 */
    {7, 10, 5, 10, false},                                                      /* the same as 3 */
};

static void test_counting(void **state)
{
    struct pit_fixture *f = *state;

    for (size_t i = 0; i < COUNT(counting); i++) {
        bool triggered = counting[i].mode == 1 || counting[i].mode == 5;
        uint64_t start;

        gate2(f, !triggered);
        program(f, 2, counting[i].mode, counting[i].count);
        gate2(f, true);
        start = f->fix.now;
        at_tick(f, start, counting[i].tick);
        assert_int_equal(latched(f, 2), counting[i].value);
        assert_int_equal(out2(f), counting[i].out);
    }
}

static void test_bcd(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;

    gate2(f, true);
    out8(&f->fix, 0x43, 0xb1);
    out8(&f->fix, 0x42, 0x00);
    out8(&f->fix, 0x42, 0x10); /* one thousand */
    assert_int_equal(latched(f, 2), 0x1000);
    at_tick(f, start, 1);
    assert_int_equal(latched(f, 2), 0x0999);
    at_tick(f, start, 1001);
    assert_int_equal(latched(f, 2), 0x9999);
    assert_true(out2(f));
}

static void test_access_modes(void **state)
{
    static const struct {
        uint8_t control;
        uint8_t write;
        uint32_t count;
    } rows[] = {{0x90, 0x34, 0x34}, {0xa0, 0x12, 0x1200}, {0x90, 0, 65536}};
    struct pit_fixture *f = *state;

    gate2(f, true);
    for (size_t i = 0; i < COUNT(rows); i++) {
        out8(&f->fix, 0x43, rows[i].control);
        out8(&f->fix, 0x42, rows[i].write);
        assert_int_equal(f->pit.ch[2].count, rows[i].count);
        assert_int_equal(in8(&f->fix, 0x42), rows[i].write);
    }
}

/* A latched count stands still until it is read; a second latch before that is ignored. */
static void test_latch_holds(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;
    uint8_t low;

    gate2(f, true);
    program(f, 2, 2, 1000);
    out8(&f->fix, 0x43, 0x80);
    at_tick(f, start, 300);
    out8(&f->fix, 0x43, 0x80);
    low = in8(&f->fix, 0x42);
    assert_int_equal(low | in8(&f->fix, 0x42) << 8, 1000);
    assert_int_equal(latched(f, 2), 700);
}

static void test_unlatched_alternates(void **state)
{
    struct pit_fixture *f = *state;

    gate2(f, true);
    program(f, 2, 2, 0x1234);
    assert_int_equal(in8(&f->fix, 0x42), 0x34);
    assert_int_equal(in8(&f->fix, 0x42), 0x12);
    assert_int_equal(in8(&f->fix, 0x42), 0x34);
}

/* A latched count begins with its low byte even after an odd number of unlatched reads. */
static void test_latch_starts_low(void **state)
{
    struct pit_fixture *f = *state;

    gate2(f, true);
    program(f, 2, 2, 0x1234);
    assert_int_equal(in8(&f->fix, 0x42), 0x34);
    assert_int_equal(latched(f, 2), 0x1234);
    assert_int_equal(in8(&f->fix, 0x42), 0x12);
}

/* A first count written with the gate low is in the counter, which waits for the gate. */
static void test_load_with_gate_low(void **state)
{
    static const uint8_t modes[] = {0, 2, 3, 4};
    struct pit_fixture *f = *state;

    for (size_t i = 0; i < COUNT(modes); i++) {
        gate2(f, false);
        program(f, 2, modes[i], 0x1234);
        fix_advance(&f->fix, 1000000);
        assert_int_equal(latched(f, 2), 0x1234);
        gate2(f, true);
        assert_int_equal(latched(f, 2), 0x1234);
        fix_advance(&f->fix, 1000000);
        assert_true(latched(f, 2) < 0x1234);
    }
}

/* Status: output, null count, access, mode, BCD; and it is read before the count. */
static void test_read_back(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;

    gate2(f, true);
    out8(&f->fix, 0x43, 0xb0);
    out8(&f->fix, 0x43, 0xe8);
    assert_int_equal(in8(&f->fix, 0x42), 0x70); /* low, no count yet, both bytes, mode 0 */
    out8(&f->fix, 0x42, 100);
    out8(&f->fix, 0x42, 0);
    at_tick(f, start, 100);
    out8(&f->fix, 0x43, 0xc8); /* status and count */
    at_tick(f, start, 150);
    assert_int_equal(in8(&f->fix, 0x42), 0xb0);
    assert_int_equal(in8(&f->fix, 0x42), 0);
    assert_int_equal(in8(&f->fix, 0x42), 0);
    assert_int_equal(in8(&f->fix, 0x42), (uint8_t)(100 - 150));
}

static void test_read_back_many(void **state)
{
    struct pit_fixture *f = *state;

    gate2(f, true);
    program(f, 0, 2, 0x1111);
    program(f, 2, 3, 0x2222);
    out8(&f->fix, 0x43, 0xda); /* counts of 0 and 2 */
    out8(&f->fix, 0x43, 0xea); /* status of 0 and 2 */
    assert_int_equal(in8(&f->fix, 0x40), 0xb4);
    assert_int_equal(in8(&f->fix, 0x40), 0x11);
    assert_int_equal(in8(&f->fix, 0x42), 0xb6);
    assert_int_equal(in8(&f->fix, 0x42), 0x22);
}

/* A new count without a control word waits for the end of the period, and null count says so. */
static void test_reload_waits(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;

    gate2(f, true);
    program(f, 2, 2, 100);
    at_tick(f, start, 30);
    out8(&f->fix, 0x42, 50);
    out8(&f->fix, 0x42, 0);
    assert_int_equal(latched(f, 2), 70);
    out8(&f->fix, 0x43, 0xe8);
    assert_int_equal(in8(&f->fix, 0x42) & 0x40, 0x40);
    at_tick(f, start, 111);
    assert_in_range(latched(f, 2), 39, 40);
    out8(&f->fix, 0x43, 0xe8);
    assert_int_equal(in8(&f->fix, 0x42) & 0x40, 0);
}

static void test_gate_pauses(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;

    gate2(f, true);
    program(f, 2, 0, 100);
    at_tick(f, start, 40);
    gate2(f, false);
    at_tick(f, start, 1000);
    assert_int_equal(latched(f, 2), 60);
    assert_false(out2(f));
    gate2(f, true);
    at_tick(f, f->fix.now, 10);
    assert_in_range(latched(f, 2), 50, 51);
}

static void test_gate_restarts(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;

    gate2(f, true);
    program(f, 2, 2, 100);
    at_tick(f, start, 40);
    gate2(f, false);
    assert_true(out2(f));
    at_tick(f, start, 500);
    gate2(f, true);
    assert_int_equal(latched(f, 2), 100);
}

static void test_retrigger(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start;

    program(f, 2, 1, 100);
    assert_true(out2(f));
    gate2(f, true);
    start = f->fix.now;
    at_tick(f, start, 99);
    assert_false(out2(f));
    gate2(f, false);
    gate2(f, true);
    at_tick(f, start, 150);
    assert_false(out2(f));
    at_tick(f, start, 200);
    assert_true(out2(f));
}

/* The way an OS measures its clock: gate channel 2, mode 0, wait for the output. */
static void test_calibration(void **state)
{
    struct pit_fixture *f = *state;
    uint64_t start = f->fix.now;

    out8(&f->fix, 0x61, (in8(&f->fix, 0x61) & (uint8_t)~0x02) | 0x01);
    program(f, 2, 0, VMM_PIT_HZ / 100);
    while (!(in8(&f->fix, 0x61) & 0x20))
        f->fix.now += 1000;
    assert_in_range(f->fix.now - start, 9999000, 10002000);
}

static void test_port61(void **state)
{
    struct pit_fixture *f = *state;
    unsigned toggles = 0;

    out8(&f->fix, 0x61, 0xff);
    assert_int_equal(in8(&f->fix, 0x61) & 0x0f, 0x0f);
    for (unsigned i = 0; i < 1000; i++) {
        uint8_t before = in8(&f->fix, 0x61);

        f->fix.now += 1000;
        toggles += ((before ^ in8(&f->fix, 0x61)) & 0x10) != 0;
    }
    assert_in_range(toggles, 65, 67);
}

/* Interrupts of wire 0 in one second, by mode and count. */
static void test_interrupt_rate(void **state)
{
    static const struct {
        unsigned mode;
        uint16_t count;
        unsigned low, high;
    } rows[] = {
        {2, 11932, 99, 100},                   /* 100 Hz */
        {3, 1193, 999, 1001},                  /* 1000 Hz */
        {2, 0, 18, 18},                        /* 18.2 Hz */
        {2, 1, 9900, 10000},                   /* as fast as the policy lets it */
        {0, 1193, 1, 1},                       /* one shot */
        {4, 1193, 1, 1},      {1, 1193, 0, 0}, /* waits for a gate that never rises */
        {5, 1193, 0, 0},
    };
    struct pit_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        unsigned before;

        program(f, 0, rows[i].mode, rows[i].count);
        before = f->fix.rises[0];
        fix_advance(&f->fix, VMM_NS_PER_SEC);
        assert_in_range(f->fix.rises[0] - before, rows[i].low, rows[i].high);
    }
}

static void test_late_events_coalesce(void **state)
{
    struct pit_fixture *f = *state;
    unsigned before;

    program(f, 0, 2, 1193);
    before = f->fix.rises[0];
    f->fix.now += 50 * 1000000ull; /* the host slept through fifty of them */
    assert_int_equal(vmm_evloop_run_due(&f->fix.loop), 1);
    assert_int_equal(f->fix.rises[0], before + 1);
    assert_true(vmm_evloop_next(&f->fix.loop) > f->fix.now);
    assert_true(vmm_evloop_next(&f->fix.loop) <= f->fix.now + 1000000);
}

static void test_silent_until_programmed(void **state)
{
    struct pit_fixture *f = *state;

    at_tick(f, f->fix.now, 3 * 65536 + 1000);
    assert_int_equal(f->fix.rises[0], 0);
    assert_int_equal(vmm_evloop_next(&f->fix.loop), VMM_TIME_NEVER);
    assert_int_equal(latched(f, 0), 65536 - 1000); /* but it does count */
}

static void test_reset_stops(void **state)
{
    struct pit_fixture *f = *state;

    program(f, 0, 2, 1193);
    fix_advance(&f->fix, 2000000);
    assert_true(f->fix.wire[0]);
    fix_lock(&f->fix);
    vmm_pit_reset(&f->pit);
    fix_unlock(&f->fix);
    assert_false(f->fix.wire[0]);
    assert_int_equal(fix_advance(&f->fix, VMM_NS_PER_SEC), 0);
}

/* Any bytes a guest may write: no trap, no hang, and the interrupt rate stays bounded. */
static void test_any_bytes(void **state)
{
    struct pit_fixture *f = *state;
    uint32_t seed = 1;

    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525u + 1013904223u;
        out8(&f->fix, 0x40 + (seed >> 30), (uint8_t)(seed >> 16));
        out8(&f->fix, 0x61, (uint8_t)(seed >> 8));
        in8(&f->fix, 0x40 + ((seed >> 28) & 3));
        assert_in_range(fix_advance(&f->fix, seed >> 13), 0, 8);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_counting),
        T(test_bcd),
        T(test_access_modes),
        T(test_latch_holds),
        T(test_unlatched_alternates),
        T(test_latch_starts_low),
        T(test_load_with_gate_low),
        T(test_read_back),
        T(test_read_back_many),
        T(test_reload_waits),
        T(test_gate_pauses),
        T(test_gate_restarts),
        T(test_retrigger),
        T(test_calibration),
        T(test_port61),
        T(test_interrupt_rate),
        T(test_late_events_coalesce),
        T(test_silent_until_programmed),
        T(test_reset_stops),
        T(test_any_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
