/* SPDX-License-Identifier: MIT */
/*
 * A guest's accesses to all devices of the command at once (8259s, PIT, RTC, serial port, keyboard
 * controller, PCI configuration, ACPI power management, firmware configuration, test device) at any
 * port and width, with input for the serial port and time that passes. The sink may only be told of
 * changes, timers must not fire without end.
 *
 * An input is operations: `kind` what, `who` bits 1:0 the width, `where` the port, `value`.
 */
#include "fuzz.h"

#include "dev_all.h"

#define HEAD       1u
#define START_NS   5000000000ull
#define START_UTC  (1767323045ll * 1000000000ll)
#define LONGEST_NS 2000000u
#define FIRES_MAX  6000u

static struct machine {
    struct vmm_devices devices;
    struct vmm_bus ports;
    struct vmm_evloop loop;
    uint64_t now;
    bool wire[VMM_WIRES], intr;
    unsigned requests;
    bool full; /* the serial port's output is not taken */
} f;

/* ---- What is behind the devices ---- */

static uint64_t mono(void *ctx)
{
    (void)ctx;
    return f.now;
}

static int64_t utc(void *ctx)
{
    (void)ctx;
    return START_UTC + (int64_t)(f.now - START_NS);
}

static void set_wire(void *ctx, unsigned gsi, bool level)
{
    (void)ctx;
    fuzz_check(gsi < VMM_WIRES && f.wire[gsi] != level, "wire %u told twice of %d", gsi, level);
    f.wire[gsi] = level;
    if (gsi < 16)
        vmm_pic_set_line(&f.devices.pic, gsi, level);
}

static void request(void *ctx, enum vmm_power_request what, int code)
{
    (void)ctx;
    (void)code;
    fuzz_check(what <= VMM_POWER_QUIT, "request %d", (int)what);
    f.requests++;
}

static void set_intr(void *ctx, bool level)
{
    (void)ctx;
    f.intr = level;
}

static bool output(void *ctx, uint8_t byte)
{
    (void)ctx;
    (void)byte;
    return !f.full;
}

static void room(void *ctx)
{
    (void)ctx;
}

/* ---- Operations ---- */

static const uint16_t ports[] = {
    0x20,  0x21,  0xA0,  0xA1,  0x4D0, 0x4D1, 0x40,   0x41,   0x42,  0x43,
    0x61,  0x70,  0x71,  0x3F8, 0x3F9, 0x3FA, 0x3FB,  0x3FC,  0x3FD, 0x3FE,
    0x3FF, 0x60,  0x64,  0x92,  0xCF8, 0xCF9, 0xCFC,  0x600,  0x602, 0x604,
    0x608, 0x510, 0x511, 0xF4,  0xE0,  0xE8,  0x2000, 0x2005, 0x80,  0xCFB,
};

static uint16_t port_of(const struct fuzz_op *op)
{
    if (op->who & 4)
        return op->where;
    return ports[op->where % (sizeof(ports) / sizeof(ports[0]))];
}

static void op_out(const struct fuzz_op *op)
{
    vmm_bus_write(&f.ports, port_of(op), 1u << (op->who & 3), op->value);
}

static void op_in(const struct fuzz_op *op)
{
    unsigned size = 1u << (op->who & 3);
    uint64_t value = vmm_bus_read(&f.ports, port_of(op), size);

    fuzz_check(size == 8 || value >> 8 * size == 0, "port %#x: %u bytes read %#llx", port_of(op),
               size, (unsigned long long)value);
}

/*
 * Each timer fires at its own time (the fastest is the PIT, with a count of 1), or late: a busy
 * host's thread may come only after a while.
 */
static void op_time(const struct fuzz_op *op)
{
    uint64_t until = f.now + op->value % LONGEST_NS;
    unsigned fired = 0;

    if (op->who & 4) {
        f.now += (uint64_t)op->value * 4;
        vmm_evloop_run_due(&f.loop);
        return;
    }
    while (vmm_evloop_next(&f.loop) <= until) {
        uint64_t next = vmm_evloop_next(&f.loop);

        f.now = next > f.now ? next : f.now;
        fired += vmm_evloop_run_due(&f.loop) + 1;
        fuzz_check(fired < FIRES_MAX, "timers fire without end");
    }
    f.now = until > f.now ? until : f.now;
}

static void op_acknowledge(const struct fuzz_op *op)
{
    (void)op;
    vmm_pic_ack(&f.devices.pic);
}

static void op_input(const struct fuzz_op *op)
{
    static const uint8_t line[64] = "the quick brown fox jumps over the lazy dog";

    pthread_mutex_lock(&f.devices.env.lock);
    size_t room_now = vmm_serial_room(&f.devices.serial);
    size_t taken = vmm_serial_input(&f.devices.serial, line, 1 + (op->who >> 2));

    fuzz_check(taken <= room_now && taken <= 1u + (op->who >> 2), "%zu bytes taken, room for %zu",
               taken, room_now);
    if (op->who & 1)
        vmm_serial_tx_ready(&f.devices.serial);
    pthread_mutex_unlock(&f.devices.env.lock);
}

static void op_output(const struct fuzz_op *op)
{
    f.full = op->value & 1;
}

static void op_reset(const struct fuzz_op *op)
{
    if (op->value % 8 == 0)
        vmm_devices_reset(&f.devices);
}

static void (*const ops[])(const struct fuzz_op *op) = {
    op_out, op_out, op_in, op_out, op_time, op_acknowledge, op_input, op_in, op_output, op_reset,
};

/* The machine as it is made, and the timers that are armed then: to set it back by a copy. */
static struct machine made;
static struct vmm_timer *made_heap[32];

static void make(void)
{
    const struct vmm_devices_config config = {
        .ram_below_4g = 3ull << 30,
        .ram_above_4g = 0x123400000ull,
        .cpus = 288,
        .max_cpus = 300,
        .pm_timer_bits = 24,
        .pic_output = {NULL, set_intr},
        .serial = {NULL, output, room},
    };

    memset(&f, 0, sizeof(f));
    f.now = START_NS;
    vmm_env_init(&f.devices.env);
    f.devices.env.clock = (struct vmm_clock){NULL, mono, utc};
    f.devices.env.loop = &f.loop;
    f.devices.env.ports = &f.ports;
    f.devices.env.irq = (struct vmm_irq_sink){NULL, set_wire};
    f.devices.env.power = (struct vmm_power){NULL, request};
    vmm_bus_init(&f.ports, VMM_BUS_LAST_PORT);
    fuzz_check(vmm_evloop_init(&f.loop, &f.devices.env.clock) == 0, "loop");
    fuzz_check(vmm_devices_init(&f.devices, &config) == 0, "devices");
    fuzz_check(f.loop.capacity <= sizeof(made_heap) / sizeof(made_heap[0]), "timers");
    memcpy(made_heap, f.loop.heap, f.loop.capacity * sizeof(made_heap[0]));
    made = f;
}

static void begin(void)
{
    if (made.loop.heap == NULL)
        make();
    f = made;
    memcpy(f.loop.heap, made_heap, f.loop.capacity * sizeof(made_heap[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct fuzz_op op;

    fuzz_u8(&in);
    begin();
    for (unsigned i = 0; i < 100 && fuzz_next(&in, &op); i++)
        ops[op.kind % (sizeof(ops) / sizeof(ops[0]))](&op);
    /* Nothing holds the lock, and each wire is as high as its devices hold it. */
    fuzz_check(pthread_mutex_trylock(&f.devices.env.lock) == 0, "the device lock is held");
    for (unsigned i = 0; i < VMM_WIRES; i++)
        fuzz_check(f.wire[i] == (f.devices.env.raised[i] != 0) && f.devices.env.raised[i] < 8,
                   "wire %u is held by %u", i, f.devices.env.raised[i]);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
