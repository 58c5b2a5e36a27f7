/* SPDX-License-Identifier: MIT */
/*
 * The MC146818 and its memory (see dev_rtc.h), from the chip's data sheet, cited as [MC146818].
 */
#include "dev_rtc.h"

#include <string.h>
#include <time.h>

#define GSI_RTC 8
#define DAY     86400
/* An update is announced this long before it happens [MC146818 update cycle]. */
#define UIP_NS     244000u
#define DIVIDER_HZ 32768u

enum {
    R_SEC = 0x00,
    R_SEC_ALARM = 0x01,
    R_MIN = 0x02,
    R_MIN_ALARM = 0x03,
    R_HOUR = 0x04,
    R_HOUR_ALARM = 0x05,
    R_WDAY = 0x06,
    R_MDAY = 0x07,
    R_MONTH = 0x08,
    R_YEAR = 0x09,
    R_A = 0x0a,
    R_B = 0x0b,
    R_C = 0x0c,
    R_D = 0x0d,
    R_CENTURY = 0x32,

    A_UIP = 0x80,
    A_DIVIDER = 0x70,
    A_DIVIDER_RESET = 0x60, /* 11x */
    A_RATE = 0x0f,
    B_SET = 0x80,
    B_PIE = 0x40,
    B_AIE = 0x20,
    B_UIE = 0x10,
    B_SQWE = 0x08,
    B_BINARY = 0x04,
    B_24H = 0x02,
    C_IRQF = 0x80,
    C_PF = 0x40,
    C_AF = 0x20,
    C_UF = 0x10,
    D_VALID = 0x80,
    HOUR_PM = 0x80,
    ALARM_ANY = 0xc0,
};

/* ---- numbers in the guest's format ---- */

static uint8_t encode(const struct vmm_rtc *rtc, int value)
{
    if (rtc->cmos[R_B] & B_BINARY)
        return (uint8_t)value;
    return (uint8_t)(value / 10 % 10 << 4 | value % 10);
}

static int decode(const struct vmm_rtc *rtc, uint8_t value)
{
    if (rtc->cmos[R_B] & B_BINARY)
        return value;
    return (value >> 4) * 10 + (value & 0xf);
}

static uint8_t encode_hour(const struct vmm_rtc *rtc, int hour)
{
    if (rtc->cmos[R_B] & B_24H)
        return encode(rtc, hour);
    return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct vmm_rtc *rtc, uint8_t value)
{
    if (rtc->cmos[R_B] & B_24H)
        return decode(rtc, value);
    return decode(rtc, value & ~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* ---- time ---- */

/* ns since base_mono; right modulo 2^64 even if that lies before the clock's zero. */
static uint64_t elapsed(const struct vmm_rtc *rtc, uint64_t now)
{
    return now - rtc->base_mono;
}

static bool stopped(const struct vmm_rtc *rtc)
{
    return rtc->cmos[R_B] & B_SET;
}

static void time_to_registers(struct vmm_rtc *rtc, uint64_t now)
{
    time_t sec = (time_t)(rtc->base_sec + (int64_t)(elapsed(rtc, now) / VMM_NS_PER_SEC));
    struct tm tm;

    gmtime_r(&sec, &tm);
    rtc->cmos[R_SEC] = encode(rtc, tm.tm_sec);
    rtc->cmos[R_MIN] = encode(rtc, tm.tm_min);
    rtc->cmos[R_HOUR] = encode_hour(rtc, tm.tm_hour);
    rtc->cmos[R_WDAY] = encode(rtc, tm.tm_wday + 1);
    rtc->cmos[R_MDAY] = encode(rtc, tm.tm_mday);
    rtc->cmos[R_MONTH] = encode(rtc, tm.tm_mon + 1);
    rtc->cmos[R_YEAR] = encode(rtc, (tm.tm_year + 1900) % 100);
    rtc->cmos[R_CENTURY] = encode(rtc, (tm.tm_year + 1900) / 100);
}

/* The registers become the time; the fraction of the second stays. Nonsense is normalised. */
static void registers_to_time(struct vmm_rtc *rtc, uint64_t now)
{
    uint64_t fraction = elapsed(rtc, now) % VMM_NS_PER_SEC;
    struct tm tm = {
        .tm_sec = decode(rtc, rtc->cmos[R_SEC]),
        .tm_min = decode(rtc, rtc->cmos[R_MIN]),
        .tm_hour = decode_hour(rtc, rtc->cmos[R_HOUR]),
        .tm_mday = decode(rtc, rtc->cmos[R_MDAY]),
        .tm_mon = decode(rtc, rtc->cmos[R_MONTH]) - 1,
        .tm_year = decode(rtc, rtc->cmos[R_CENTURY]) * 100 + decode(rtc, rtc->cmos[R_YEAR]) - 1900,
    };

    rtc->base_sec = timegm(&tm);
    rtc->base_mono = now - fraction;
    rtc->seen = fraction;
}

/* One alarm register against one field of the time. */
static bool alarm_hits(const struct vmm_rtc *rtc, unsigned reg, int value)
{
    uint8_t alarm = rtc->cmos[reg];

    if (alarm >= ALARM_ANY)
        return true;
    return (reg == R_HOUR_ALARM ? decode_hour(rtc, alarm) : decode(rtc, alarm)) == value;
}

/* Sets `alarm` to the first hit after the second that was seen last; at most about 150 steps. */
static void find_alarm(struct vmm_rtc *rtc)
{
    uint64_t first = rtc->seen / VMM_NS_PER_SEC + 1;
    uint64_t at = first;

    rtc->alarm = UINT64_MAX;
    while (at - first <= DAY) {
        int64_t of_day = ((rtc->base_sec + (int64_t)at) % DAY + DAY) % DAY;

        if (!alarm_hits(rtc, R_HOUR_ALARM, (int)(of_day / 3600))) {
            at += (uint64_t)(3600 - of_day % 3600);
        } else if (!alarm_hits(rtc, R_MIN_ALARM, (int)(of_day / 60 % 60))) {
            at += (uint64_t)(60 - of_day % 60);
        } else if (!alarm_hits(rtc, R_SEC_ALARM, (int)(of_day % 60))) {
            at++;
        } else {
            rtc->alarm = at;
            return;
        }
    }
}

/* Length of the periodic interrupt's period in ticks of the divider; 0: none [MC146818 table 5]. */
static uint64_t period_ticks(const struct vmm_rtc *rtc)
{
    unsigned rate = rtc->cmos[R_A] & A_RATE;

    if (rate == 0)
        return 0;
    return 1ull << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t periods(const struct vmm_rtc *rtc, uint64_t ns)
{
    uint64_t ticks = period_ticks(rtc);

    return ticks ? vmm_ticks(ns, DIVIDER_HZ) / ticks : 0;
}

/* Brings the flags of register C up to now. */
static void settle(struct vmm_rtc *rtc, uint64_t now)
{
    uint64_t to = elapsed(rtc, now);

    if (periods(rtc, to) != periods(rtc, rtc->seen))
        rtc->cmos[R_C] |= C_PF;
    if (!stopped(rtc) && to / VMM_NS_PER_SEC != rtc->seen / VMM_NS_PER_SEC)
        rtc->cmos[R_C] |= C_UF;
    rtc->seen = to;
    if (rtc->alarm != UINT64_MAX && to / VMM_NS_PER_SEC >= rtc->alarm) {
        if (!stopped(rtc))
            rtc->cmos[R_C] |= C_AF;
        find_alarm(rtc);
    }
}

/* ---- wire 8 ---- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ns since base_mono of the next event that raises the wire. */
static uint64_t next_event(const struct vmm_rtc *rtc)
{
    uint8_t b = rtc->cmos[R_B];
    uint64_t at = UINT64_MAX;

    if ((b & B_PIE) && period_ticks(rtc))
        at = vmm_ticks_to_ns((periods(rtc, rtc->seen) + 1) * period_ticks(rtc), DIVIDER_HZ);
    if ((b & B_UIE) && !stopped(rtc))
        at = sooner(at, (rtc->seen / VMM_NS_PER_SEC + 1) * VMM_NS_PER_SEC);
    if ((b & B_AIE) && !stopped(rtc) && rtc->alarm != UINT64_MAX)
        at = sooner(at, rtc->alarm * VMM_NS_PER_SEC);
    return at;
}

/* After any change, with the flags up to now: the wire and the timer. */
static void update(struct vmm_rtc *rtc)
{
    bool level = rtc->cmos[R_C] & rtc->cmos[R_B] & (C_PF | C_AF | C_UF);
    uint64_t at = level ? UINT64_MAX : next_event(rtc);

    if (level != rtc->line) {
        rtc->line = level;
        vmm_env_gsi(rtc->env, GSI_RTC, level);
    }
    rtc->event = at == UINT64_MAX ? VMM_TIME_NEVER : rtc->base_mono + at;
    vmm_timer_arm(&rtc->timer, rtc->event);
}

static void on_timer(void *ctx)
{
    struct vmm_rtc *rtc = ctx;
    uint64_t now;

    pthread_mutex_lock(&rtc->env->lock);
    now = vmm_env_now(rtc->env);
    if (now >= rtc->event) {
        settle(rtc, now);
        update(rtc);
    }
    pthread_mutex_unlock(&rtc->env->lock);
}

/* ---- registers ---- */

static bool is_time(unsigned reg)
{
    return reg == R_CENTURY ||
           (reg <= R_YEAR && reg != R_SEC_ALARM && reg != R_MIN_ALARM && reg != R_HOUR_ALARM);
}

static void write_a(struct vmm_rtc *rtc, uint8_t value, uint64_t now)
{
    bool was_reset = (rtc->cmos[R_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    bool is_reset = (value & A_DIVIDER_RESET) == A_DIVIDER_RESET;

    rtc->cmos[R_A] = value & (uint8_t)~A_UIP;
    /* The first update comes half a second after the divider starts [MC146818 divider control]. */
    if (was_reset && !is_reset) {
        rtc->base_sec += (int64_t)(elapsed(rtc, now) / VMM_NS_PER_SEC);
        rtc->base_mono = now - VMM_NS_PER_SEC / 2;
        rtc->seen = VMM_NS_PER_SEC / 2;
        find_alarm(rtc);
    }
}

static void write_b(struct vmm_rtc *rtc, uint8_t value, uint64_t now)
{
    bool was_stopped = stopped(rtc);

    /* Both in the old format: what the registers hold when the format changes was written in it. */
    if (!was_stopped && (value & B_SET))
        time_to_registers(rtc, now);
    if (was_stopped && !(value & B_SET))
        registers_to_time(rtc, now);
    /* SET clears the update interrupt's enable [MC146818 register B]. */
    rtc->cmos[R_B] = value & B_SET ? value & (uint8_t)~B_UIE : value;
    find_alarm(rtc);
}

static void write_time(struct vmm_rtc *rtc, unsigned reg, uint8_t value, uint64_t now)
{
    if (stopped(rtc)) {
        rtc->cmos[reg] = value;
        return;
    }
    time_to_registers(rtc, now);
    rtc->cmos[reg] = value;
    registers_to_time(rtc, now);
    find_alarm(rtc);
}

static void write_register(struct vmm_rtc *rtc, unsigned reg, uint8_t value, uint64_t now)
{
    if (is_time(reg)) {
        write_time(rtc, reg, value, now);
    } else if (reg == R_A) {
        write_a(rtc, value, now);
    } else if (reg == R_B) {
        write_b(rtc, value, now);
    } else if (reg != R_C && reg != R_D) {
        rtc->cmos[reg] = value;
        if (reg <= R_YEAR)
            find_alarm(rtc);
    }
}

static uint8_t read_c(struct vmm_rtc *rtc)
{
    uint8_t value = rtc->cmos[R_C];

    if (value & rtc->cmos[R_B] & (C_PF | C_AF | C_UF))
        value |= C_IRQF;
    rtc->cmos[R_C] = 0;
    return value;
}

static uint8_t read_register(struct vmm_rtc *rtc, unsigned reg, uint64_t now)
{
    if (reg == R_C)
        return read_c(rtc);
    if (reg == R_A && !stopped(rtc) &&
        elapsed(rtc, now) % VMM_NS_PER_SEC >= VMM_NS_PER_SEC - UIP_NS)
        return rtc->cmos[R_A] | A_UIP;
    if (is_time(reg) && !stopped(rtc))
        time_to_registers(rtc, now);
    return rtc->cmos[reg];
}

static uint64_t rtc_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_rtc *rtc = ctx;
    uint64_t now = vmm_env_now(rtc->env);
    uint8_t value;

    (void)size;
    /* The index is write-only. */
    if (offset == 0)
        return 0xff;
    settle(rtc, now);
    value = read_register(rtc, rtc->index, now);
    update(rtc);
    return value;
}

static void rtc_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_rtc *rtc = ctx;
    uint64_t now = vmm_env_now(rtc->env);

    (void)size;
    if (offset == 0) {
        /* Bit 7 is the board's NMI gate; nothing here raises such an NMI. */
        rtc->index = value & 0x7f;
        return;
    }
    settle(rtc, now);
    write_register(rtc, rtc->index, (uint8_t)value, now);
    update(rtc);
}

static const struct vmm_bus_ops rtc_ops = {rtc_read, rtc_write};

/* ---- memory size bytes, where a PC's firmware looks for them ---- */

static void put16(struct vmm_rtc *rtc, unsigned at, uint64_t value)
{
    uint64_t cut = value > 0xffff ? 0xffff : value;

    rtc->cmos[at] = (uint8_t)cut;
    rtc->cmos[at + 1] = (uint8_t)(cut >> 8);
}

static uint64_t above(uint64_t size, uint64_t limit)
{
    return size > limit ? size - limit : 0;
}

static void fill_cmos(struct vmm_rtc *rtc, const struct vmm_rtc_config *config)
{
    uint64_t high = config->ram_above_4g >> 16;

    rtc->cmos[R_A] = 0x26;
    rtc->cmos[R_B] = B_24H;
    rtc->cmos[R_D] = D_VALID;
    put16(rtc, 0x15, 640);
    put16(rtc, 0x17, above(config->ram_below_4g, 1ull << 20) >> 10);
    put16(rtc, 0x30, above(config->ram_below_4g, 1ull << 20) >> 10);
    put16(rtc, 0x34, above(config->ram_below_4g, 16ull << 20) >> 16);
    put16(rtc, 0x5b, high & 0xffff);
    rtc->cmos[0x5d] = (uint8_t)(high >> 16);
    rtc->cmos[0x5f] = (uint8_t)(config->cpus - 1);
}

int vmm_rtc_init(struct vmm_rtc *rtc, struct vmm_env *env, const struct vmm_rtc_config *config)
{
    int64_t utc = env->clock.utc_ns(env->clock.ctx);
    int ret;

    memset(rtc, 0, sizeof(*rtc));
    rtc->env = env;
    rtc->base_sec = utc / (int64_t)VMM_NS_PER_SEC;
    rtc->seen = (uint64_t)(utc % (int64_t)VMM_NS_PER_SEC);
    rtc->base_mono = vmm_env_now(env) - rtc->seen;
    rtc->event = VMM_TIME_NEVER;
    fill_cmos(rtc, config);
    find_alarm(rtc);
    ret = vmm_env_claim(env, "rtc", 0x70, 2, VMM_BUS_W1, &rtc_ops, rtc);
    if (ret == 0)
        ret = vmm_timer_init(&rtc->timer, env->loop, on_timer, rtc);
    return ret;
}

void vmm_rtc_reset(struct vmm_rtc *rtc)
{
    uint64_t now = vmm_env_now(rtc->env);

    rtc->index = 0;
    settle(rtc, now);
    write_b(rtc, rtc->cmos[R_B] & (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE), now);
    rtc->cmos[R_C] = 0;
    update(rtc);
}

void vmm_rtc_fini(struct vmm_rtc *rtc)
{
    vmm_timer_fini(&rtc->timer);
}
