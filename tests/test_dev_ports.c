/* SPDX-License-Identifier: MIT */
/*
 * The small devices: ACPI power management, keyboard controller, PCI configuration and reset ports,
 * firmware configuration, test devices; and all devices together.
 */
#include "dev_fixture.h"

#include "dev_all.h"

struct ports_fixture {
    struct fixture fix;
    struct vmm_devices *devices;
};

static void on_intr(void *ctx, bool level)
{
    (void)ctx;
    (void)level;
}

static bool on_output(void *ctx, uint8_t byte)
{
    (void)ctx;
    (void)byte;
    return true;
}

static void on_room(void *ctx)
{
    (void)ctx;
}

static const struct vmm_devices_config config = {
    .ram_below_4g = 3ull << 30,
    .ram_above_4g = 0x123400000ull,
    .cpus = 288,
    .max_cpus = 300,
    .pm_timer_bits = 24,
    .pic_output = {NULL, on_intr},
    .serial = {NULL, on_output, on_room},
};

static int setup(void **state)
{
    struct ports_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    fix_init(&f->fix);
    f->devices = calloc(1, sizeof(*f->devices));
    assert_non_null(f->devices);
    vmm_env_init(&f->devices->env);
    f->devices->env.clock = f->fix.env.clock;
    f->devices->env.loop = f->fix.env.loop;
    f->devices->env.ports = f->fix.env.ports;
    f->devices->env.irq = f->fix.env.irq;
    f->devices->env.power = f->fix.env.power;
    f->fix.checked = &f->devices->env;
    assert_int_equal(vmm_devices_init(f->devices, &config), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct ports_fixture *f = *state;

    vmm_devices_fini(f->devices);
    free(f->devices);
    fix_fini(&f->fix);
    free(f);
    return 0;
}

#define OUT8(port, value)  out8(&f->fix, port, value)
#define OUT16(port, value) out16(&f->fix, port, value)
#define OUT32(port, value) out32(&f->fix, port, value)
#define IN8(port)          in8(&f->fix, port)
#define IN16(port)         in16(&f->fix, port)
#define IN32(port)         in32(&f->fix, port)

/* Every write that makes a request of the machine, and near misses that must not. */
static void test_power_requests(void **state)
{
    static const struct {
        uint16_t port;
        unsigned size;
        uint32_t value;
        int request; /* -1: none */
        int code;
    } rows[] = {
        {0x604, 2, 0x2000, VMM_POWER_OFF, 0},
        {0x604, 2, 0x2001, VMM_POWER_OFF, 0},
        {0x605, 1, 0x20, VMM_POWER_OFF, 0},
        {0x604, 4, 0x2000, VMM_POWER_OFF, 0},
        {0x604, 2, 0x2400, -1, 0},
        {0x604, 2, 0x3c00, -1, 0},
        {0x604, 2, 0x0001, -1, 0},
        {0x602, 2, 0x2000, -1, 0},
        {0xcf9, 1, 0x06, VMM_POWER_RESET, 0},
        {0xcf9, 1, 0x0e, VMM_POWER_RESET, 0},
        {0xcf9, 1, 0x04, VMM_POWER_RESET, 0},
        {0xcf9, 1, 0x02, -1, 0},
        {0xcf8, 4, 0x80000400, -1, 0},
        {0xcfb, 1, 0x01, -1, 0},
        {0x64, 1, 0xfe, VMM_POWER_RESET, 0},
        {0x64, 1, 0xf0, VMM_POWER_RESET, 0},
        {0x64, 1, 0xff, -1, 0},
        {0x64, 1, 0xaa, -1, 0},
        {0x92, 1, 0x03, VMM_POWER_RESET, 0},
        {0x92, 1, 0x02, -1, 0},
        {0xf4, 4, 0, VMM_POWER_DEBUG_EXIT, 1},
        {0xf4, 1, 0x10, VMM_POWER_DEBUG_EXIT, 0x21},
        {0xf4, 2, 0x100, VMM_POWER_DEBUG_EXIT, 0x201},
        {0xf5, 1, 3, VMM_POWER_DEBUG_EXIT, 7},
        {0xf8, 1, 3, -1, 0},
    };
    struct ports_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        f->fix.requests = 0;
        vmm_bus_write(&f->fix.ports, rows[i].port, rows[i].size, rows[i].value);
        assert_int_equal(f->fix.requests, rows[i].request >= 0);
        if (rows[i].request >= 0) {
            assert_int_equal((int)f->fix.request, rows[i].request);
            assert_int_equal(f->fix.code, rows[i].code);
        }
    }
}

static void test_output_port_reset(void **state)
{
    struct ports_fixture *f = *state;

    OUT8(0x64, 0xd1);
    OUT8(0x60, 0xdf);
    assert_int_equal(f->fix.requests, 0);
    OUT8(0x60, 0xde); /* no command before it: to the keyboard */
    assert_int_equal(f->fix.requests, 0);
    OUT8(0x64, 0xd1);
    OUT8(0x60, 0xde);
    assert_int_equal(f->fix.requests, 1);
    assert_int_equal((int)f->fix.request, VMM_POWER_RESET);
}

/* 3.579545 MHz, cut to 24 bits, in any width. */
static void test_pm_timer(void **state)
{
    struct ports_fixture *f = *state;
    uint32_t first = IN32(0x608);
    uint32_t second;

    assert_int_equal(first, FIX_MONO / 1000 * 3579545 / 1000000 & 0xffffff);
    assert_int_equal(IN16(0x608), first & 0xffff);
    assert_int_equal(IN16(0x60a), first >> 16);
    assert_int_equal(IN8(0x609), first >> 8 & 0xff);
    fix_advance(&f->fix, VMM_NS_PER_SEC);
    second = IN32(0x608);
    assert_int_equal((second - first) & 0xffffff, 3579545);
    fix_advance(&f->fix, 10 * VMM_NS_PER_SEC);
    assert_int_equal(IN32(0x608) >> 24, 0);
}

/* The status bit follows bit 23; the SCI needs it, its enable and SCI_EN. */
static void test_pm_timer_interrupt(void **state)
{
    const uint64_t half = vmm_ticks_to_ns(1u << 23, VMM_ACPI_PM_TMR_HZ);
    struct ports_fixture *f = *state;

    assert_int_equal(IN16(0x604), 0x0001);
    fix_advance(&f->fix, half);
    assert_int_equal(IN16(0x600), 0x0001);
    assert_false(f->fix.wire[9]);
    OUT16(0x602, 0x0001);
    assert_true(f->fix.wire[9]);
    OUT16(0x600, 0x0000);
    assert_true(f->fix.wire[9]);
    OUT16(0x600, 0x0001);
    assert_false(f->fix.wire[9]);
    fix_advance(&f->fix, half);
    assert_true(f->fix.wire[9]);
    OUT8(0xb2, VMM_ACPI_DISABLE);
    assert_int_equal(IN16(0x604), 0);
    assert_false(f->fix.wire[9]);
    OUT8(0xb2, VMM_ACPI_ENABLE);
    assert_true(f->fix.wire[9]);
    vmm_devices_reset(f->devices);
    assert_false(f->fix.wire[9]);
    assert_int_equal(IN16(0x602), 0);
}

/* No event while the guest leaves the status set: no timer either. */
static void test_pm_timer_coalesces(void **state)
{
    struct ports_fixture *f = *state;

    OUT16(0x602, 0x0001);
    fix_advance(&f->fix, 60 * VMM_NS_PER_SEC);
    assert_int_equal(f->fix.rises[9], 1);
    assert_int_equal(vmm_evloop_next(&f->fix.loop), VMM_TIME_NEVER);
}

/* The commands that a driver's probe uses answer at once. */
static void test_kbc_commands(void **state)
{
    static const struct {
        uint8_t command, status, data;
    } rows[] = {
        {0xaa, 0x1d, 0x55}, {0xab, 0x1d, 0x00}, {0x20, 0x1d, 0x65},
        {0xd0, 0x1d, 0xcf}, {0xa9, 0x1d, 0x03},
    };
    struct ports_fixture *f = *state;

    assert_int_equal(IN8(0x64), 0x14);
    for (size_t i = 0; i < COUNT(rows); i++) {
        OUT8(0x64, rows[i].command);
        assert_int_equal(IN8(0x64), rows[i].status);
        assert_int_equal(IN8(0x60), rows[i].data);
        assert_int_equal(IN8(0x64), 0x1c);
    }
}

static void test_kbc_mode(void **state)
{
    static const struct {
        uint8_t command, mode;
    } rows[] = {{0xad, 0x10}, {0xa7, 0x30}, {0xae, 0x20}, {0xa8, 0x00}};
    struct ports_fixture *f = *state;

    OUT8(0x64, 0x60);
    OUT8(0x60, 0x00);
    for (size_t i = 0; i < COUNT(rows); i++) {
        OUT8(0x64, rows[i].command);
        OUT8(0x64, 0x20);
        assert_int_equal(IN8(0x60), rows[i].mode);
    }
    assert_int_equal(f->fix.rises[1], 0);
}

/*
 * The absent keyboard: resend with time-out, on wire 1. The absent mouse: its loop command is not
 * the mouse's.
 */
static void test_kbc_no_devices(void **state)
{
    struct ports_fixture *f = *state;

    OUT8(0x60, 0xf2);
    assert_true(f->fix.wire[1]);
    assert_int_equal(IN8(0x64) & 0x61, 0x41);
    assert_int_equal(IN8(0x60), 0xfe);
    assert_false(f->fix.wire[1]);
    OUT8(0x64, 0xd3);
    OUT8(0x60, 0x5a);
    assert_int_equal(IN8(0x64) & 0x61, 0x01);
    assert_int_equal(IN8(0x60), 0x5a);
}

static void test_port92(void **state)
{
    struct ports_fixture *f = *state;

    assert_int_equal(IN8(0x92), 0x02);
    OUT8(0x92, 0xfc);
    assert_int_equal(IN8(0x92), 0x00);
}

static void test_pci_presence(void **state)
{
    static const struct {
        uint32_t address, value;
    } rows[] = {
        {0x80000000, 0x12378086}, {0x80000004, 0x02800006}, {0x80000008, 0x06000002},
        {0x8000000c, 0x00000000}, {0x80000100, 0xffffffff}, {0x80000800, 0xffffffff},
        {0x80010000, 0xffffffff}, {0x00000000, 0xffffffff}, {0x800000fc, 0x00000000},
    };
    struct ports_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        OUT32(0xcf8, rows[i].address);
        assert_int_equal(IN32(0xcf8), rows[i].address);
        assert_int_equal(IN32(0xcfc), rows[i].value);
    }
}

/* How an OS finds mechanism 1: a byte at CFBh, then the address port reads back. */
static void test_pci_probe(void **state)
{
    struct ports_fixture *f = *state;

    OUT8(0xcfb, 0x01);
    OUT32(0xcf8, 0x80000000);
    assert_int_equal(IN32(0xcf8), 0x80000000);
    assert_int_equal(IN16(0xcfe), 0x1237);
    assert_int_equal(IN8(0xcfc), 0x86);
    OUT32(0xcf8, 0xffffffff);
    assert_int_equal(IN32(0xcf8), 0x80fffffc);
    OUT8(0xcf9, 0x02);
    assert_int_equal(IN8(0xcf9), 0x02);
    assert_int_equal(IN32(0xcf8), 0x80fffffc);
}

static void test_pci_command(void **state)
{
    struct ports_fixture *f = *state;

    OUT32(0xcf8, 0x80000004);
    OUT16(0xcfc, 0xffff);
    assert_int_equal(IN32(0xcfc), 0x02800146);
    OUT32(0xcfc, 0);
    assert_int_equal(IN32(0xcfc), 0x02800006);
    OUT32(0xcf8, 0x80000000);
    OUT32(0xcfc, 0);
    assert_int_equal(IN32(0xcfc), 0x12378086);
}

static uint64_t item(struct ports_fixture *f, uint16_t key)
{
    uint64_t value = 0;

    OUT16(0x510, key);
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)IN8(0x511) << (8 * i);
    return value;
}

static void test_fwcfg_items(void **state)
{
    static const struct {
        uint16_t key;
        uint64_t value;
    } rows[] = {
        {0x00, 0x554d4551},
        {0x01, 1},
        {0x03, (3ull << 30) + 0x123400000ull},
        {0x05, 288},
        {0x0f, 300},
        {0x19, 0},
        {0x4005, 288},
        /* to write: still the item */ {0x8005, 0},
        {0x0c, 0},
        {0x0e, 0},
        {0xffff, 0},
    };
    struct ports_fixture *f = *state;

    for (size_t i = 0; i < COUNT(rows); i++)
        assert_true(item(f, rows[i].key) == rows[i].value);
}

static void test_fwcfg_reading(void **state)
{
    struct ports_fixture *f = *state;

    OUT16(0x510, 0);
    assert_int_equal(IN8(0x511), 'Q');
    OUT8(0x511, 'X'); /* cannot be changed, does not move */
    assert_int_equal(IN8(0x510), 'E');
    assert_int_equal(IN16(0x510), 'M' | 'U' << 8);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(IN8(0x511), 0);
    OUT16(0x510, 0);
    assert_int_equal(IN8(0x511), 'Q');
}

static void test_lines(void **state)
{
    struct ports_fixture *f = *state;

    for (uint16_t gsi = 0; gsi < 24; gsi++) {
        OUT8(0x2000 + gsi, 1);
        assert_true(f->fix.wire[gsi]);
        OUT8(0x2000 + gsi, 0x80);
        assert_int_equal(f->fix.rises[gsi], 1);
        OUT8(0x2000 + gsi, 0);
        assert_false(f->fix.wire[gsi]);
    }
    OUT8(0x2018, 1);
    OUT8(0x2010, 1);
    vmm_devices_reset(f->devices);
    assert_false(f->fix.wire[16]);
}

/* Two devices on one wire: it falls when both let go. */
static void test_shared_wire(void **state)
{
    struct ports_fixture *f = *state;

    OUT8(0x3f9, 0x02); /* serial port, transmitter interrupt */
    assert_true(f->fix.wire[4]);
    OUT8(0x2004, 1);
    assert_int_equal(IN8(0x3fa), 0x02);
    assert_true(f->fix.wire[4]);
    OUT8(0x2004, 0);
    assert_false(f->fix.wire[4]);
    assert_int_equal(f->fix.rises[4], 1);
}

static void test_scratch(void **state)
{
    struct ports_fixture *f = *state;

    OUT32(0xe0, 0x12345678);
    assert_int_equal(IN32(0xe0), 0x12345678);
    assert_int_equal(IN16(0xe2), 0x1234);
    assert_int_equal(IN8(0xe1), 0x56);
    OUT16(0xe0, 0xabcd);
    OUT8(0xe3, 0xef);
    assert_int_equal(IN32(0xe8), 0xef34abcd);
}

/*
 * Every port, every width, all the values that have broken things before: it must end, and in
 * range.
 */
static void test_every_port(void **state)
{
    static const uint32_t values[] = {0, 1, 0xff, 0x80000000, 0xffffffff, 0x55aa1234};
    struct ports_fixture *f = *state;

    for (uint32_t port = 0; port < 0x10000; port++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            for (size_t i = 0; i < COUNT(values); i++)
                vmm_bus_write(&f->fix.ports, port, size, values[i]);
            vmm_bus_read(&f->fix.ports, port, size);
        }
    }
    vmm_devices_reset(f->devices);
    for (unsigned gsi = 0; gsi < 24; gsi++)
        assert_false(f->fix.wire[gsi]);
    fix_advance(&f->fix, VMM_NS_PER_SEC);
    assert_int_equal(IN8(0x21), 0xff);
    assert_int_equal(IN8(0x3fd), 0x60);
}

static void test_ports_unclaimed(void **state)
{
    static const uint16_t ports[] = {0x80, 0x2f8, 0x3f0, 0x402, 0xed, 0x512, 0x700, 0xffff};
    struct ports_fixture *f = *state;

    for (size_t i = 0; i < COUNT(ports); i++)
        assert_int_equal(IN8(ports[i]), 0xff);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_power_requests),
        T(test_output_port_reset),
        T(test_pm_timer),
        T(test_pm_timer_interrupt),
        T(test_pm_timer_coalesces),
        T(test_kbc_commands),
        T(test_kbc_mode),
        T(test_kbc_no_devices),
        T(test_port92),
        T(test_pci_presence),
        T(test_pci_probe),
        T(test_pci_command),
        T(test_fwcfg_items),
        T(test_fwcfg_reading),
        T(test_lines),
        T(test_shared_wire),
        T(test_scratch),
        T(test_every_port),
        T(test_ports_unclaimed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
