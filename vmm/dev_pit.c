/* SPDX-License-Identifier: MIT */
/*
 * The 8254 (see dev_pit.h), from the chip's data sheet, cited as [8254]. Called by the port bus and
 * by the event loop.
 */
#include "dev_pit.h"

#include <string.h>

/* Port 61h bit 4 follows the memory refresh, one edge in 15 us. */
#define REFRESH_NS 15085u

enum {
    ACCESS_LATCH = 0,
    ACCESS_LOW = 1,
    ACCESS_HIGH = 2,
    ACCESS_BOTH = 3,
    READ_BACK_NO_COUNT = 0x20,
    READ_BACK_NO_STATUS = 0x10,
    STATUS_OUT = 0x80,
    STATUS_NULL = 0x40,
    PORT61_GATE2 = 0x01,
    PORT61_RW = 0x0f,
    PORT61_REFRESH = 0x10,
    PORT61_OUT2 = 0x20,
};

/* ---- one counter, as a function of time ---- */

/* Modes 0 and 4: gate low pauses. Modes 1 and 5: gate's rise starts. Modes 2 and 3: periodic. */
static bool pauses(const struct vmm_pit_channel *ch)
{
    return ch->mode == 0 || ch->mode == 4;
}

static bool periodic(const struct vmm_pit_channel *ch)
{
    return ch->mode == 2 || ch->mode == 3;
}

static uint64_t elapsed(const struct vmm_pit_channel *ch, uint64_t now)
{
    if (!ch->counting)
        return 0;
    if (pauses(ch) && !ch->gate)
        return ch->held;
    return vmm_ticks(now - ch->start, VMM_PIT_HZ);
}

/* Takes over a count that was written in the middle of a period that is over now [8254 mode 2]. */
static void settle(struct vmm_pit_channel *ch, uint64_t now)
{
    if (!periodic(ch) || !ch->reload || !ch->gate || elapsed(ch, now) < ch->count)
        return;
    ch->start += vmm_ticks_to_ns(ch->count, VMM_PIT_HZ);
    ch->count = ch->reload;
    ch->reload = 0;
    ch->null_count = false;
}

static bool output(const struct vmm_pit_channel *ch, uint64_t now)
{
    uint64_t ticks = elapsed(ch, now);

    if (!ch->counting)
        return ch->mode != 0;
    switch (ch->mode) {
    case 0:
    case 1:
        return ticks >= ch->count;
    case 2:
        return !ch->gate || ticks % ch->count != ch->count - 1;
    case 3:
        return !ch->gate || ticks % ch->count < (ch->count + 1) / 2;
    default:
        return ticks != ch->count;
    }
}

/* Square wave: counts down by two, twice per period; an odd count begins one lower [8254 mode 3].
 */
static uint32_t square_value(uint32_t count, uint32_t phase)
{
    uint32_t high = (count + 1) / 2;

    return (count & ~1u) - 2 * (phase < high ? phase : phase - high);
}

static uint16_t to_bcd(uint32_t value)
{
    return (uint16_t)((value / 1000 % 10) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 |
                      value % 10);
}

static uint32_t from_bcd(uint16_t value)
{
    return (value >> 12) * 1000u + ((value >> 8) & 0xf) * 100u + ((value >> 4) & 0xf) * 10u +
           (value & 0xf);
}

static uint16_t current(const struct vmm_pit_channel *ch, uint64_t now)
{
    uint64_t ticks = elapsed(ch, now);
    uint32_t range = ch->bcd ? 10000 : 65536;
    uint32_t value = ch->count;

    if (!periodic(ch))
        value = ch->count + range - (uint32_t)(ticks % range);
    else if (ch->gate && ch->mode == 2)
        value = ch->count - (uint32_t)(ticks % ch->count);
    else if (ch->gate)
        value = square_value(ch->count, (uint32_t)(ticks % ch->count));
    value %= range;
    return ch->bcd ? to_bcd(value) : (uint16_t)value;
}

/* Ticks after `start` at which the output rises for the first time after now; 0: never. */
static uint64_t next_rise(const struct vmm_pit_channel *ch, uint64_t now)
{
    uint64_t ticks = elapsed(ch, now);

    if (!ch->counting || !ch->gate)
        return 0;
    if (periodic(ch))
        return (ticks / ch->count + 1) * ch->count;
    if (ch->mode == 0 && ticks < ch->count)
        return ch->count;
    if (ch->mode == 4 && ticks <= ch->count)
        return ch->count + 1;
    return 0;
}

/* ---- programming a counter ---- */

static void trigger(struct vmm_pit_channel *ch, uint64_t now)
{
    if (ch->reload)
        ch->count = ch->reload;
    ch->reload = 0;
    ch->null_count = false;
    ch->start = now;
    ch->held = 0;
    ch->counting = true;
}

static void set_gate(struct vmm_pit_channel *ch, bool gate, uint64_t now)
{
    bool ready = ch->counting || ch->reload;

    settle(ch, now);
    if (gate == ch->gate)
        return;
    if (pauses(ch) && !gate)
        ch->held = elapsed(ch, now);
    else if (pauses(ch))
        ch->start = now - vmm_ticks_to_ns(ch->held, VMM_PIT_HZ);
    else if (gate && ready)
        trigger(ch, now);
    ch->gate = gate;
}

static void load(struct vmm_pit_channel *ch, uint16_t value, uint64_t now)
{
    uint32_t count = ch->bcd ? from_bcd(value) : value;

    /* Zero is the largest count [8254 count ranges]. */
    ch->reload = count ? count : (ch->bcd ? 10000 : 65536);
    ch->null_count = true;
    /* The first count is loaded whatever the gate, which then only holds the counting [8254]. */
    if (pauses(ch) || (periodic(ch) && !ch->counting))
        trigger(ch, now);
}

static void write_count(struct vmm_pit_channel *ch, uint8_t value, uint64_t now)
{
    settle(ch, now);
    if (ch->access == ACCESS_LOW) {
        load(ch, value, now);
    } else if (ch->access == ACCESS_HIGH) {
        load(ch, (uint16_t)(value << 8), now);
    } else if (ch->write_high) {
        ch->write_high = false;
        load(ch, (uint16_t)(value << 8 | ch->write_low), now);
    } else {
        ch->write_high = true;
        ch->write_low = value;
        /* The first byte stops the counting [8254 mode 0]. */
        if (ch->mode == 0)
            ch->counting = false;
    }
}

static void write_mode(struct vmm_pit_channel *ch, uint8_t value)
{
    uint8_t mode = (value >> 1) & 7;
    bool gate = ch->gate;
    uint32_t count = ch->count;

    *ch = (struct vmm_pit_channel){
        .mode = mode > 5 ? mode - 4 : mode,
        .access = (value >> 4) & 3,
        .bcd = value & 1,
        .gate = gate,
        .null_count = true,
        .count = count,
    };
}

static void latch_count(struct vmm_pit_channel *ch, uint64_t now)
{
    settle(ch, now);
    if (ch->latch.count_bytes)
        return;
    ch->latch.count = current(ch, now);
    ch->latch.count_bytes = ch->access == ACCESS_BOTH ? 2 : 1;
}

static void latch_status(struct vmm_pit_channel *ch, uint64_t now)
{
    settle(ch, now);
    if (ch->latch.status_valid)
        return;
    ch->latch.status_valid = true;
    ch->latch.status =
        (uint8_t)((output(ch, now) ? STATUS_OUT : 0) | (ch->null_count ? STATUS_NULL : 0) |
                  ch->access << 4 | ch->mode << 1 | ch->bcd);
}

static uint8_t read_count(struct vmm_pit_channel *ch, uint64_t now)
{
    uint16_t value = ch->latch.count;
    bool high = ch->access == ACCESS_HIGH;

    if (ch->latch.status_valid) {
        ch->latch.status_valid = false;
        return ch->latch.status;
    }
    settle(ch, now);
    if (ch->latch.count_bytes) {
        /* A latched count begins with its low byte, whatever was read unlatched before. */
        if (ch->access == ACCESS_BOTH)
            high = ch->latch.count_bytes == 1;
        ch->latch.count_bytes--;
    } else {
        value = current(ch, now);
        if (ch->access == ACCESS_BOTH) {
            high = ch->read_high;
            ch->read_high = !high;
        }
    }
    return (uint8_t)(high ? value >> 8 : value);
}

/* ---- wire 0 ---- */

static void set_line(struct vmm_pit *pit, bool level)
{
    if (level == pit->line)
        return;
    pit->line = level;
    vmm_env_gsi(pit->env, 0, level);
}

/* One rising edge, whatever the wire is now. */
static void rise(struct vmm_pit *pit)
{
    set_line(pit, false);
    set_line(pit, true);
}

static void schedule(struct vmm_pit *pit, uint64_t now, uint64_t not_before)
{
    const struct vmm_pit_channel *ch = &pit->ch[0];
    uint64_t ticks = pit->programmed ? next_rise(ch, now) : 0;

    pit->edge = VMM_TIME_NEVER;
    if (ticks)
        pit->edge = ch->start + vmm_ticks_to_ns(ticks, VMM_PIT_HZ);
    if (pit->edge < not_before)
        pit->edge = not_before;
    vmm_timer_arm(&pit->timer, pit->edge);
}

static void on_timer(void *ctx)
{
    struct vmm_pit *pit = ctx;
    uint64_t now;

    pthread_mutex_lock(&pit->env->lock);
    now = vmm_env_now(pit->env);
    if (now >= pit->edge) {
        settle(&pit->ch[0], now);
        rise(pit);
        schedule(pit, now, now + VMM_PIT_MIN_PERIOD_NS);
    }
    pthread_mutex_unlock(&pit->env->lock);
}

/* After a write to channel 0: its output may have changed at once. */
static void follow_output(struct vmm_pit *pit, bool was_high, uint64_t now)
{
    bool is_high = output(&pit->ch[0], now);

    pit->programmed = true;
    if (!is_high)
        set_line(pit, false);
    else if (!was_high)
        rise(pit);
    schedule(pit, now, 0);
}

/* ---- ports ---- */

static void read_back(struct vmm_pit *pit, uint8_t value, uint64_t now)
{
    for (unsigned i = 0; i < 3; i++) {
        if (!(value & (2u << i)))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            latch_count(&pit->ch[i], now);
        if (!(value & READ_BACK_NO_STATUS))
            latch_status(&pit->ch[i], now);
    }
}

static void write_control(struct vmm_pit *pit, uint8_t value, uint64_t now)
{
    unsigned select = value >> 6;
    bool was_high = output(&pit->ch[0], now);

    if (select == 3) {
        read_back(pit, value, now);
    } else if (((value >> 4) & 3) == ACCESS_LATCH) {
        latch_count(&pit->ch[select], now);
    } else {
        write_mode(&pit->ch[select], value);
        if (select == 0)
            follow_output(pit, was_high, now);
    }
}

static uint64_t pit_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_pit *pit = ctx;

    (void)size;
    /* The control word cannot be read back. */
    return offset < 3 ? read_count(&pit->ch[offset], vmm_env_now(pit->env)) : 0xff;
}

static void pit_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_pit *pit = ctx;
    uint64_t now = vmm_env_now(pit->env);
    bool was_high = output(&pit->ch[0], now);

    (void)size;
    if (offset == 3) {
        write_control(pit, (uint8_t)value, now);
        return;
    }
    write_count(&pit->ch[offset], (uint8_t)value, now);
    if (offset == 0)
        follow_output(pit, was_high, now);
}

static uint64_t port61_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_pit *pit = ctx;
    uint64_t now = vmm_env_now(pit->env);
    uint8_t value = pit->port61;

    (void)offset;
    (void)size;
    settle(&pit->ch[2], now);
    if (output(&pit->ch[2], now))
        value |= PORT61_OUT2;
    if (now / REFRESH_NS & 1)
        value |= PORT61_REFRESH;
    return value;
}

static void port61_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_pit *pit = ctx;

    (void)offset;
    (void)size;
    pit->port61 = (uint8_t)value & PORT61_RW;
    set_gate(&pit->ch[2], value & PORT61_GATE2, vmm_env_now(pit->env));
}

static const struct vmm_bus_ops pit_ops = {pit_read, pit_write};
static const struct vmm_bus_ops port61_ops = {port61_read, port61_write};

/* As a PC's firmware leaves it: channel 0 runs at 18.2 Hz, but interrupts once the guest wrote it.
 */
static void power_on(struct vmm_pit *pit)
{
    uint64_t now = vmm_env_now(pit->env);

    for (unsigned i = 0; i < 3; i++) {
        pit->ch[i] = (struct vmm_pit_channel){.gate = i != 2, .count = 65536};
        write_mode(&pit->ch[i], 0x34);
        load(&pit->ch[i], 0, now);
    }
    pit->port61 = 0;
    pit->programmed = false;
    pit->edge = VMM_TIME_NEVER;
}

int vmm_pit_init(struct vmm_pit *pit, struct vmm_env *env)
{
    int ret;

    memset(pit, 0, sizeof(*pit));
    pit->env = env;
    power_on(pit);
    ret = vmm_env_claim(env, "pit", 0x40, 4, VMM_BUS_W1, &pit_ops, pit);
    if (ret == 0)
        ret = vmm_env_claim(env, "port 61h", 0x61, 1, VMM_BUS_W1, &port61_ops, pit);
    if (ret == 0)
        ret = vmm_timer_init(&pit->timer, env->loop, on_timer, pit);
    return ret;
}

void vmm_pit_reset(struct vmm_pit *pit)
{
    power_on(pit);
    vmm_timer_cancel(&pit->timer);
    set_line(pit, false);
}

void vmm_pit_fini(struct vmm_pit *pit)
{
    vmm_timer_fini(&pit->timer);
}
