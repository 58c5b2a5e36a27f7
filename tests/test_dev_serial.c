/* SPDX-License-Identifier: MIT */
/*
 * The 16550A: registers, FIFO and trigger levels, interrupts and their priority, loopback, flow
 * control both ways.
 */
#include "dev_fixture.h"

#include "dev_serial.h"

#define BASE 0x3f8
#define DATA (BASE + 0)
#define IER  (BASE + 1)
#define IIR  (BASE + 2)
#define FCR  (BASE + 2)
#define LCR  (BASE + 3)
#define MCR  (BASE + 4)
#define LSR  (BASE + 5)
#define MSR  (BASE + 6)
#define SCR  (BASE + 7)

struct serial_fixture {
    struct fixture fix;
    struct vmm_serial serial;
    char out[64];
    size_t out_len;
    size_t out_room; /* bytes until the backend says that it is full */
    unsigned room_calls;
};

static bool on_output(void *ctx, uint8_t byte)
{
    struct serial_fixture *f = ctx;

    assert_true(f->out_len < sizeof(f->out));
    f->out[f->out_len++] = (char)byte;
    return --f->out_room > 0;
}

static void on_room(void *ctx)
{
    ((struct serial_fixture *)ctx)->room_calls++;
}

static int setup(void **state)
{
    struct serial_fixture *f = calloc(1, sizeof(*f));
    struct vmm_serial_backend backend = {f, on_output, on_room};

    assert_non_null(f);
    f->out_room = 1000;
    fix_init(&f->fix);
    assert_int_equal(vmm_serial_init(&f->serial, &f->fix.env, BASE, 4, &backend), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct serial_fixture *f = *state;

    fix_fini(&f->fix);
    free(f);
    return 0;
}

static uint8_t get(struct serial_fixture *f, uint16_t port)
{
    return in8(&f->fix, port);
}

static void put(struct serial_fixture *f, uint16_t port, uint8_t value)
{
    out8(&f->fix, port, value);
}

static size_t input(struct serial_fixture *f, const char *text)
{
    size_t taken;

    fix_lock(&f->fix);
    taken = vmm_serial_input(&f->serial, (const uint8_t *)text, strlen(text));
    fix_unlock(&f->fix);
    return taken;
}

static size_t room(struct serial_fixture *f)
{
    size_t size;

    fix_lock(&f->fix);
    size = vmm_serial_room(&f->serial);
    fix_unlock(&f->fix);
    return size;
}

static void test_power_on(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } rows[] = {{IER, 0x00}, {IIR, 0x01}, {LCR, 0x00}, {MCR, 0x00},
                {LSR, 0x60}, {MSR, 0xb0}, {SCR, 0x00}};
    struct serial_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(get(f, rows[i].port), rows[i].value);
}

/* What can be written, of each register that can. */
static void test_masks(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t mask;
    } rows[] = {{IER, 0x0f}, {LCR, 0xff}, {MCR, 0x1f}, {SCR, 0xff}};
    struct serial_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        put(f, rows[i].port, 0xff);
        assert_int_equal(get(f, rows[i].port), rows[i].mask);
        put(f, rows[i].port, 0x00);
        assert_int_equal(get(f, rows[i].port), 0x00);
    }
}

static void test_divisor(void **state)
{
    struct serial_fixture *f = *state;

    put(f, IER, 0x05);
    put(f, LCR, 0x83);
    put(f, DATA, 0x34);
    put(f, IER, 0x12);
    assert_int_equal(get(f, DATA), 0x34);
    assert_int_equal(get(f, IER), 0x12);
    put(f, LCR, 0x03);
    assert_int_equal(get(f, IER), 0x05);
    assert_int_equal(f->out_len, 0);
}

static void test_fcr(void **state)
{
    struct serial_fixture *f = *state;

    put(f, FCR, 0xc6); /* not enabled: nothing is programmed */
    assert_int_equal(get(f, IIR), 0x01);
    put(f, FCR, 0x01);
    assert_int_equal(get(f, IIR), 0xc1);
}

static void test_output(void **state)
{
    struct serial_fixture *f = *state;

    out16(&f->fix, SCR - 7, 0x0041); /* as two bytes: data, IER */
    put(f, DATA, 'B');
    assert_int_equal(f->out_len, 2);
    assert_memory_equal(f->out, "AB", 2);
    assert_int_equal(get(f, LSR), 0x60);
}

static void test_polled_input(void **state)
{
    struct serial_fixture *f = *state;

    assert_int_equal(get(f, DATA), 0);
    input(f, "hi");
    assert_int_equal(get(f, LSR), 0x61);
    assert_int_equal(get(f, DATA), 'h');
    assert_int_equal(get(f, DATA), 'i');
    assert_int_equal(get(f, LSR), 0x60);
}

/* The receive interrupt by trigger level: data available at it, time-out below. */
static void test_trigger_levels(void **state)
{
    static const struct {
        const char *text;
        uint8_t fcr, iir;
    } rows[] = {
        {"a", 0x00, 0x04},
        {"a", 0x07, 0xc4},
        {"abc", 0x47, 0xcc},
        {"abcd", 0x47, 0xc4},
        {"abcdefg", 0x87, 0xcc},
        {"abcdefgh", 0x87, 0xc4},
        {"abcdefghijklm", 0xc7, 0xcc},
        {"abcdefghijklmn", 0xc7, 0xc4},
    };
    struct serial_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        put(f, FCR, rows[i].fcr);
        put(f, IER, 0x01);
        input(f, rows[i].text);
        assert_true(f->fix.wire[4]);
        assert_int_equal(get(f, IIR), rows[i].iir);
        for (size_t n = strlen(rows[i].text); n > 0; n--) {
            assert_true(f->fix.wire[4]);
            get(f, DATA);
        }
        assert_false(f->fix.wire[4]);
        put(f, IER, 0x00);
    }
}

/*
 * Enabling the transmitter interrupt raises it; reading IIR takes it; the next byte raises it
 * again.
 */
static void test_transmit_interrupt(void **state)
{
    struct serial_fixture *f = *state;

    put(f, IER, 0x02);
    assert_true(f->fix.wire[4]);
    assert_int_equal(get(f, IIR), 0x02);
    assert_false(f->fix.wire[4]);
    assert_int_equal(get(f, IIR), 0x01);
    put(f, DATA, 'x');
    assert_true(f->fix.wire[4]);
    put(f, DATA, 'y');
    assert_int_equal(f->fix.rises[4], 2); /* no edge per byte */
    assert_int_equal(get(f, IIR), 0x02);
    put(f, IER, 0x02); /* was on: nothing new */
    assert_false(f->fix.wire[4]);
    put(f, IER, 0x00);
    put(f, IER, 0x02);
    assert_true(f->fix.wire[4]);
}

/* Line status over data over transmitter over modem. */
static void test_interrupt_priority(void **state)
{
    struct serial_fixture *f = *state;

    put(f, MCR, 0x10); /* loopback: modem lines change */
    put(f, DATA, 'a');
    put(f, DATA, 'b'); /* overrun */
    put(f, IER, 0x0f);
    assert_int_equal(get(f, IIR), 0x06);
    assert_int_equal(get(f, LSR), 0x63);
    assert_int_equal(get(f, LSR), 0x61);
    assert_int_equal(get(f, IIR), 0x04);
    assert_int_equal(get(f, DATA), 'b');
    assert_int_equal(get(f, IIR), 0x02);
    assert_int_equal(get(f, IIR), 0x00);
    assert_true(f->fix.wire[4]);
    get(f, MSR);
    assert_int_equal(get(f, IIR), 0x01);
    assert_false(f->fix.wire[4]);
    assert_int_equal(f->out_len, 0); /* nothing left the port */
}

static void test_loopback_modem(void **state)
{
    static const struct {
        uint8_t mcr, msr;
    } rows[] = {{0x10, 0x0b}, {0x11, 0x22}, {0x12, 0x13}, {0x14, 0x41},
                {0x18, 0x8c}, {0x1f, 0xf3}, {0x00, 0xb4}};
    struct serial_fixture *f = *state;

    get(f, MSR);
    for (size_t i = 0; i < COUNT(rows); i++) {
        put(f, MCR, rows[i].mcr);
        assert_int_equal(get(f, MSR), rows[i].msr);
        assert_int_equal(get(f, MSR), rows[i].msr & 0xf0);
    }
}

static void test_loopback_fifo(void **state)
{
    struct serial_fixture *f = *state;

    put(f, MCR, 0x12);
    put(f, FCR, 0x07);
    for (unsigned i = 0; i < 17; i++)
        put(f, DATA, (uint8_t)('a' + i));
    assert_int_equal(get(f, LSR), 0x63);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(get(f, DATA), 'a' + i);
    assert_int_equal(get(f, LSR), 0x60);
}

static void test_fifo_clear(void **state)
{
    struct serial_fixture *f = *state;

    put(f, FCR, 0x01);
    input(f, "abc");
    put(f, FCR, 0x03);
    assert_int_equal(get(f, LSR), 0x60);
}

/* More than a FIFO: the queue refills it as the guest reads, in order, nothing lost. */
static void test_long_input(void **state)
{
    struct serial_fixture *f = *state;
    char text[1001];

    for (unsigned i = 0; i < 1000; i++)
        text[i] = (char)('a' + i % 26);
    text[1000] = 0;
    put(f, FCR, 0x01);
    assert_int_equal(input(f, text), 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(get(f, DATA), text[i]);
    assert_int_equal(get(f, LSR), 0x60);
}

static void test_back_pressure(void **state)
{
    struct serial_fixture *f = *state;
    size_t total = 0;

    while (room(f))
        total += input(f, "x");
    assert_in_range(total, VMM_SERIAL_QUEUE / 2, VMM_SERIAL_QUEUE);
    assert_int_equal(input(f, "y"), 0);
    while (f->room_calls == 0) {
        assert_int_equal(get(f, DATA), 'x');
        total--;
    }
    assert_true(room(f) > 0);
    while (total--)
        assert_int_equal(get(f, DATA), 'x');
    assert_int_equal(get(f, LSR), 0x60);
    assert_int_equal(f->room_calls, 1);
}

/* A driver's start: probe in loopback, clear the FIFOs, read the port empty, then raise RTS. */
static void test_type_ahead_survives_probing(void **state)
{
    struct serial_fixture *f = *state;

    input(f, "typed");
    assert_int_equal(get(f, LSR), 0x61);
    put(f, MCR, 0x1a);
    assert_int_equal(get(f, LSR), 0x60);
    put(f, MCR, 0x08);
    put(f, FCR, 0x01);
    put(f, FCR, 0x07);
    put(f, FCR, 0x00);
    assert_int_equal(get(f, DATA), 0);
    put(f, IER, 0x01);
    assert_false(f->fix.wire[4]);
    put(f, FCR, 0x01);
    put(f, MCR, 0x0b);
    assert_true(f->fix.wire[4]);
    for (const char *p = "typed"; *p; p++)
        assert_int_equal(get(f, DATA), *p);
}

static void test_rts_holds_input(void **state)
{
    struct serial_fixture *f = *state;

    put(f, MCR, 0x0b);
    put(f, FCR, 0x01);
    input(f, "ab");
    assert_int_equal(get(f, DATA), 'a');
    put(f, MCR, 0x09);
    assert_int_equal(get(f, LSR), 0x60);
    input(f, "c");
    assert_int_equal(get(f, LSR), 0x60);
    put(f, MCR, 0x0b);
    assert_int_equal(get(f, DATA), 'b');
    assert_int_equal(get(f, DATA), 'c');
}

/* A full backend holds the guest back: THRE stays clear until it has room. */
static void test_slow_backend(void **state)
{
    struct serial_fixture *f = *state;

    f->out_room = 2;
    put(f, IER, 0x02);
    assert_int_equal(get(f, IIR), 0x02);
    put(f, DATA, 'a');
    assert_int_equal(get(f, LSR), 0x60);
    put(f, DATA, 'b');
    assert_int_equal(get(f, LSR), 0x00);
    assert_false(f->fix.wire[4]);
    assert_int_equal(get(f, IIR), 0x01);
    fix_lock(&f->fix);
    vmm_serial_tx_ready(&f->serial);
    fix_unlock(&f->fix);
    assert_true(f->fix.wire[4]);
    assert_int_equal(get(f, IIR), 0x02);
    assert_int_equal(get(f, LSR), 0x60);
}

static void test_reset(void **state)
{
    struct serial_fixture *f = *state;

    put(f, FCR, 0xc1);
    put(f, IER, 0x01);
    put(f, MCR, 0x0b);
    input(f, "next");
    assert_true(f->fix.wire[4]);
    fix_lock(&f->fix);
    vmm_serial_reset(&f->serial);
    fix_unlock(&f->fix);
    assert_false(f->fix.wire[4]);
    assert_int_equal(get(f, IER), 0);
    assert_int_equal(get(f, MCR), 0);
    for (const char *p = "next"; *p; p++)
        assert_int_equal(get(f, DATA), *p);
}

static void test_any_bytes(void **state)
{
    struct serial_fixture *f = *state;
    uint32_t seed = 7;

    for (unsigned i = 0; i < 100000; i++) {
        seed = seed * 1664525u + 1013904223u;
        f->out_len = 0;
        f->out_room = 1 + (seed & 3);
        put(f, (uint16_t)(BASE + (seed >> 29)), (uint8_t)(seed >> 8));
        get(f, (uint16_t)(BASE + ((seed >> 26) & 7)));
        if (seed & 0x10000)
            input(f, "some input");
        assert_in_range(f->serial.fifo_count, 0, VMM_SERIAL_FIFO);
        assert_in_range(f->serial.queue_count, 0, VMM_SERIAL_QUEUE);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_power_on),
        T(test_masks),
        T(test_divisor),
        T(test_fcr),
        T(test_output),
        T(test_polled_input),
        T(test_trigger_levels),
        T(test_transmit_interrupt),
        T(test_interrupt_priority),
        T(test_loopback_modem),
        T(test_loopback_fifo),
        T(test_fifo_clear),
        T(test_long_input),
        T(test_back_pressure),
        T(test_type_ahead_survives_probing),
        T(test_rts_holds_input),
        T(test_slow_backend),
        T(test_reset),
        T(test_any_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
