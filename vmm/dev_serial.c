/* SPDX-License-Identifier: MIT */
/*
 * The 16550A (see dev_serial.h), from the chip's data sheet, cited as [16550]. Called by the port
 * bus and by the console.
 */
#include "dev_serial.h"

#include <string.h>

enum {
    R_DATA = 0, /* RBR, THR; divisor low */
    R_IER = 1,  /* divisor high */
    R_IIR = 2,  /* FCR */
    R_LCR = 3,
    R_MCR = 4,
    R_LSR = 5,
    R_MSR = 6,
    R_SCR = 7,

    IER_RX = 0x01,
    IER_TX = 0x02,
    IER_LINE = 0x04,
    IER_MODEM = 0x08,
    IER_RW = 0x0f,

    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_TX = 0x02,
    IIR_RX = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0,

    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_RW = 0xc9,

    LCR_DLAB = 0x80,

    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_RW = 0x1f,

    LSR_DATA = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,

    MSR_DCTS = 0x01,
    MSR_DDSR = 0x02,
    MSR_TERI = 0x04,
    MSR_DDCD = 0x08,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

/* Room that the queue keeps so that the FIFO can be put back into it. */
#define QUEUE_LIMIT (VMM_SERIAL_QUEUE - VMM_SERIAL_FIFO)

/* ---- receive FIFO and queue ---- */

static unsigned fifo_capacity(const struct vmm_serial *serial)
{
    return serial->fcr & FCR_ENABLE ? VMM_SERIAL_FIFO : 1;
}

static void fifo_push(struct vmm_serial *serial, uint8_t byte)
{
    serial->fifo[(serial->fifo_head + serial->fifo_count++) % VMM_SERIAL_FIFO] = byte;
}

static void fifo_clear(struct vmm_serial *serial)
{
    serial->fifo_head = 0;
    serial->fifo_count = 0;
    serial->fifo_looped = false;
}

/* Does the guest let the other end send? */
static bool listening(const struct vmm_serial *serial)
{
    if (serial->mcr & MCR_LOOP)
        return false;
    return !serial->mcr_written || (serial->mcr & MCR_RTS);
}

static void pump(struct vmm_serial *serial)
{
    if (!listening(serial))
        return;
    while (serial->queue_count && serial->fifo_count < fifo_capacity(serial)) {
        fifo_push(serial, serial->queue[serial->queue_head]);
        serial->queue_head = (serial->queue_head + 1) % VMM_SERIAL_QUEUE;
        serial->queue_count--;
    }
    if (serial->queue_was_full && serial->queue_count <= QUEUE_LIMIT / 2) {
        serial->queue_was_full = false;
        serial->backend.room(serial->backend.ctx);
    }
}

/*
 * The other end takes back what the guest has not read. Not if some of it was looped back: so the
 * queue never gets more than the FIFO took from it, for which QUEUE_LIMIT leaves room.
 */
static void put_back(struct vmm_serial *serial)
{
    if (serial->fifo_looped)
        return;
    while (serial->fifo_count) {
        unsigned last = (serial->fifo_head + --serial->fifo_count) % VMM_SERIAL_FIFO;

        serial->queue_head = (serial->queue_head + VMM_SERIAL_QUEUE - 1) % VMM_SERIAL_QUEUE;
        serial->queue[serial->queue_head] = serial->fifo[last];
        serial->queue_count++;
    }
}

/* ---- interrupts ---- */

static unsigned trigger_level(const struct vmm_serial *serial)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return serial->fcr & FCR_ENABLE ? levels[serial->fcr >> 6] : 1;
}

/* The most urgent interrupt [16550 table of interrupt control functions]. */
static uint8_t pending(const struct vmm_serial *serial)
{
    if ((serial->ier & IER_LINE) && serial->line_errors)
        return IIR_LINE;
    if ((serial->ier & IER_RX) && serial->fifo_count >= trigger_level(serial))
        return IIR_RX;
    if ((serial->ier & IER_RX) && serial->fifo_count)
        return IIR_TIMEOUT;
    if ((serial->ier & IER_TX) && serial->thre_pending)
        return IIR_TX;
    if ((serial->ier & IER_MODEM) && serial->msr_delta)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update(struct vmm_serial *serial)
{
    bool level = pending(serial) != IIR_NONE;

    if (level == serial->line)
        return;
    serial->line = level;
    vmm_env_gsi(serial->env, serial->gsi, level);
}

/* ---- modem lines ---- */

/* The other end is always ready; in loopback the outputs are fed back [16550 modem control]. */
static uint8_t modem_inputs(const struct vmm_serial *serial)
{
    uint8_t mcr = serial->mcr;

    if (!(mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
                     (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void write_mcr(struct vmm_serial *serial, uint8_t value)
{
    uint8_t before = modem_inputs(serial);
    bool was_listening = listening(serial);
    uint8_t changed;
    uint8_t after;

    serial->mcr = value & MCR_RW;
    serial->mcr_written = true;
    after = modem_inputs(serial);
    changed = before ^ after;
    serial->msr_delta |= (changed >> 4) & (MSR_DCTS | MSR_DDSR | MSR_DDCD);
    /* The ring indicator reports its trailing edge only. */
    if (changed & before & MSR_RI)
        serial->msr_delta |= MSR_TERI;
    if (was_listening && !listening(serial))
        put_back(serial);
    pump(serial);
}

/* ---- data ---- */

static void loop_back(struct vmm_serial *serial, uint8_t byte)
{
    serial->fifo_looped = true;
    if (serial->fifo_count < fifo_capacity(serial)) {
        fifo_push(serial, byte);
        return;
    }
    serial->line_errors |= LSR_OVERRUN;
    /* Without FIFOs the new byte replaces the old one; a full FIFO keeps what it has [16550]. */
    if (!(serial->fcr & FCR_ENABLE))
        serial->fifo[serial->fifo_head] = byte;
}

static void write_data(struct vmm_serial *serial, uint8_t byte)
{
    if (serial->mcr & MCR_LOOP)
        loop_back(serial, byte);
    else
        serial->tx_ready = serial->backend.output(serial->backend.ctx, byte);
    serial->thre_pending = serial->tx_ready;
}

static uint8_t read_data(struct vmm_serial *serial)
{
    uint8_t byte = serial->fifo[serial->fifo_head];

    if (serial->fifo_count == 0)
        return 0;
    serial->fifo_head = (serial->fifo_head + 1) % VMM_SERIAL_FIFO;
    serial->fifo_count--;
    if (serial->fifo_count == 0)
        serial->fifo_looped = false;
    pump(serial);
    return byte;
}

static void write_ier(struct vmm_serial *serial, uint8_t value)
{
    bool was_tx = serial->ier & IER_TX;

    serial->ier = value & IER_RW;
    /* Enabling it with the transmitter empty raises it at once, each time anew. */
    if (!was_tx && (serial->ier & IER_TX) && serial->tx_ready)
        serial->thre_pending = true;
}

static void write_fcr(struct vmm_serial *serial, uint8_t value)
{
    if (((serial->fcr ^ value) & FCR_ENABLE) || (value & FCR_CLEAR_RX))
        fifo_clear(serial);
    /* The other bits are not programmed unless the FIFOs are enabled [16550 FCR]. */
    serial->fcr = value & FCR_ENABLE ? value & FCR_RW : 0;
    pump(serial);
}

/* Reading it takes the transmitter interrupt if that is what it reports. */
static uint8_t read_iir(struct vmm_serial *serial)
{
    uint8_t id = pending(serial);

    if (id == IIR_TX)
        serial->thre_pending = false;
    return id | (serial->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct vmm_serial *serial)
{
    uint8_t value = serial->line_errors;

    serial->line_errors = 0;
    if (serial->fifo_count)
        value |= LSR_DATA;
    if (serial->tx_ready)
        value |= LSR_THRE | LSR_TEMT;
    return value;
}

static uint8_t read_msr(struct vmm_serial *serial)
{
    uint8_t value = serial->msr_delta | modem_inputs(serial);

    serial->msr_delta = 0;
    return value;
}

static uint8_t read_register(struct vmm_serial *serial, uint64_t offset)
{
    switch (offset) {
    case R_DATA:
        return read_data(serial);
    case R_IER:
        return serial->ier;
    case R_IIR:
        return read_iir(serial);
    case R_LCR:
        return serial->lcr;
    case R_MCR:
        return serial->mcr;
    case R_LSR:
        return read_lsr(serial);
    case R_MSR:
        return read_msr(serial);
    default:
        return serial->scr;
    }
}

static void write_register(struct vmm_serial *serial, uint64_t offset, uint8_t value)
{
    switch (offset) {
    case R_DATA:
        write_data(serial, value);
        break;
    case R_IER:
        write_ier(serial, value);
        break;
    case R_IIR:
        write_fcr(serial, value);
        break;
    case R_LCR:
        serial->lcr = value;
        break;
    case R_MCR:
        write_mcr(serial, value);
        break;
    case R_SCR:
        serial->scr = value;
        break;
    default: /* LSR and MSR are written in the factory only. */
        break;
    }
}

static bool is_divisor(const struct vmm_serial *serial, uint64_t offset)
{
    return (serial->lcr & LCR_DLAB) && offset <= R_IER;
}

static uint64_t serial_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_serial *serial = ctx;
    uint8_t value;

    (void)size;
    if (is_divisor(serial, offset))
        return serial->divisor[offset];
    value = read_register(serial, offset);
    update(serial);
    return value;
}

static void serial_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_serial *serial = ctx;

    (void)size;
    if (is_divisor(serial, offset)) {
        serial->divisor[offset] = (uint8_t)value;
        return;
    }
    write_register(serial, offset, (uint8_t)value);
    update(serial);
}

static const struct vmm_bus_ops serial_ops = {serial_read, serial_write};

/* ---- the other end ---- */

size_t vmm_serial_room(struct vmm_serial *serial)
{
    if (serial->queue_count >= QUEUE_LIMIT)
        serial->queue_was_full = true;
    return serial->queue_was_full ? 0 : QUEUE_LIMIT - serial->queue_count;
}

size_t vmm_serial_input(struct vmm_serial *serial, const uint8_t *data, size_t len)
{
    size_t taken = 0;

    while (taken < len && serial->queue_count < QUEUE_LIMIT) {
        unsigned tail = (serial->queue_head + serial->queue_count) % VMM_SERIAL_QUEUE;

        serial->queue[tail] = data[taken++];
        serial->queue_count++;
    }
    pump(serial);
    update(serial);
    return taken;
}

void vmm_serial_tx_ready(struct vmm_serial *serial)
{
    if (serial->tx_ready)
        return;
    serial->tx_ready = true;
    serial->thre_pending = true;
    update(serial);
}

static void power_on(struct vmm_serial *serial)
{
    serial->ier = 0;
    serial->fcr = 0;
    serial->lcr = 0;
    serial->mcr = 0;
    serial->scr = 0;
    serial->divisor[0] = 0x0c; /* 9600 baud */
    serial->divisor[1] = 0;
    serial->line_errors = 0;
    serial->msr_delta = 0;
    serial->mcr_written = false;
    serial->thre_pending = false;
}

int vmm_serial_init(struct vmm_serial *serial, struct vmm_env *env, uint16_t base, unsigned gsi,
                    const struct vmm_serial_backend *backend)
{
    memset(serial, 0, sizeof(*serial));
    serial->env = env;
    serial->backend = *backend;
    serial->base = base;
    serial->gsi = gsi;
    serial->tx_ready = true;
    power_on(serial);
    return vmm_env_claim(env, "serial", base, 8, VMM_BUS_W1, &serial_ops, serial);
}

void vmm_serial_reset(struct vmm_serial *serial)
{
    if (listening(serial))
        put_back(serial);
    fifo_clear(serial);
    power_on(serial);
    pump(serial);
    update(serial);
}
