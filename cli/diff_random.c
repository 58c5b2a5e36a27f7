/* SPDX-License-Identifier: MIT */
/*
 * Random programs; see diff_program.h. Each begins with all processors in xAPIC mode and ends with
 * a dump of all. Kept out is only what has no one result: counts short enough to end by themselves,
 * what stops or restarts the boot processor (INIT to it), and SMIs, for which the guest has no
 * handler. What is known to differ is left to a share of the programs, mostly one kind of it at a
 * time, for the comparison may end there.
 */
#include <stddef.h>
#include <string.h>

#include "diff_program.h"
#include "vapic/arch/apic.h"

#define BASE_ADDRESS 0xfee00000ull
#define MOVED_TO     0xfed40000ull
#define POOL         6u
#define LONG_COUNT   0xf0000000u /* seconds: no program takes so long */
#define SHORT_COUNT  20000u      /* tens of microseconds */
#define PERIOD_COUNT 400000u

/* What is known to differ, by what a program does for it; see tests/diff/known.md. */
enum odd {
    ODD_VECTOR = 1 << 0,   /* vectors below 16 */
    ODD_TPR = 1 << 1,      /* its low half */
    ODD_SVR = 1 << 2,      /* software disables the APIC */
    ODD_INIT = 1 << 3,     /* so do INIT, and IA32_APIC_BASE.EN: it stays so */
    ODD_LDR = 1 << 4,      /* several bits, or somebody else's */
    ODD_ERROR = 1 << 5,    /* error interrupts */
    ODD_RESERVED = 1 << 6, /* any bit of a register */
    ODD_NARROW = 1 << 7,   /* writes of one or two bytes */
    ODD_LOWEST = 1 << 8,   /* messages of the lowest priority */
    ODD_ALL_ONES = 1 << 9, /* destination FFh where a processor is in x2APIC mode */
    ODD_SHARED = 1 << 10,  /* a vector for levels and edges */
    ODD_TAKER = 1 << 11,   /* levels that nobody takes */
    ODD_INDEX = 1 << 12,   /* registers of the I/O APIC that do not exist */
    ODD_BASE = 1 << 13,    /* another place of the page */
    ODD_COUNT = 14,
};

struct source {
    struct diff_program *p;
    uint64_t state;
    uint32_t cpus, limit;
    uint8_t cpu;           /* of the next operation */
    uint8_t vectors[POOL]; /* that this program likes */
    uint32_t odd;          /* enum odd: what this program does as well */
    bool nmi_pins;         /* dear: with one every EOI may send an NMI, by known.md */
};

/* splitmix64 */
static uint64_t next(struct source *s)
{
    uint64_t z = s->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint32_t below(struct source *s, uint32_t n)
{
    return (uint32_t)((next(s) >> 32) * n >> 32);
}

static bool one_in(struct source *s, uint32_t n)
{
    return below(s, n) == 0;
}

static bool is_odd(const struct source *s, enum odd what)
{
    return (s->odd & what) != 0;
}

static void emit(struct source *s, enum diff_code code, uint16_t a, uint32_t b, uint64_t c)
{
    if (s->p->count < s->limit) {
        s->p->ops[s->p->count++] = (struct diff_op){(uint8_t)code, s->cpu, a, b, c};
    }
}

/* 16 to 31 without those that would be exceptions with an error code. */
static uint8_t low_vector(struct source *s)
{
    static const uint8_t fine[] = {16, 18, 19, 20, 22, 25, 28, 31};

    return fine[below(s, sizeof(fine))];
}

static uint8_t any_vector(struct source *s)
{
    if (is_odd(s, ODD_VECTOR) && one_in(s, 24)) {
        return (uint8_t)below(s, 16);
    }
    if (one_in(s, 20)) {
        return low_vector(s);
    }
    return one_in(s, 4) ? (uint8_t)(32 + below(s, 224)) : s->vectors[below(s, POOL)];
}

/* Odd ones are for levels, even ones for edges. */
static uint8_t vector(struct source *s, bool level)
{
    uint8_t v = any_vector(s);

    if (is_odd(s, ODD_SHARED) || v < 32) {
        return v;
    }
    return level ? v | 1 : v & 0xfe;
}

/* ---------------------------------------------------------------------------------------------- */
/* Registers                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

static uint32_t any_tpr(struct source *s)
{
    uint32_t tpr = one_in(s, 3) ? 0 : below(s, 256) & (one_in(s, 2) ? 0xf0 : 0xff);

    tpr &= is_odd(s, ODD_TPR) ? 0xff : 0xf0;
    return one_in(s, 2) ? tpr & 0x7f : tpr;
}

static uint32_t any_svr(struct source *s)
{
    uint32_t svr = 0xff | (is_odd(s, ODD_SVR) && one_in(s, 3) ? 0 : 0x100);

    svr ^= one_in(s, 4) ? 0x200 : 0;
    return one_in(s, 3) ? (svr & ~0xffu) | (0x20 + below(s, 0xe0)) : svr;
}

static uint32_t any_lvt(struct source *s, uint32_t reg)
{
    uint32_t lvt = vector(s, false) | (one_in(s, 2) ? APIC_LVT_MASKED : 0);

    if (reg == APIC_LVT_TIMER) {
        return lvt | below(s, 3) << 17;
    }
    if (reg == APIC_LVT_ERROR) {
        return is_odd(s, ODD_ERROR) ? lvt : lvt | APIC_LVT_MASKED;
    }
    lvt |= below(s, 8) << 8;
    if (reg == APIC_LVT_LINT0 || reg == APIC_LVT_LINT1) {
        lvt |= below(s, 2) << 13 | below(s, 2) << 15;
    }
    return lvt;
}

static uint32_t any_value(struct source *s, uint32_t reg)
{
    switch (reg) {
    case APIC_TPR:
        return any_tpr(s);
    case APIC_SVR:
        return any_svr(s);
    case APIC_LDR:
        return (is_odd(s, ODD_LDR) && one_in(s, 3) ? below(s, 256) : 1u << s->cpu) << 24;
    case APIC_DFR:
        return one_in(s, 2) ? 0xffffffffu : one_in(s, 6) ? (uint32_t)next(s) : 0x0fffffffu;
    case APIC_ICR2:
        return below(s, 256) << 24;
    case APIC_TDCR:
        return below(s, 16) & 0xb;
    case APIC_TMICT:
        return one_in(s, 3) ? 0 : LONG_COUNT + below(s, 0x0fffffff);
    case APIC_ESR:
        return 0;
    case APIC_ID:
        return s->cpu == 0 ? 0 : below(s, 256) << 24;
    case APIC_LVT_TIMER:
    case APIC_LVT_THERMAL:
    case APIC_LVT_PMC:
    case APIC_LVT_LINT0:
    case APIC_LVT_LINT1:
    case APIC_LVT_ERROR:
        return any_lvt(s, reg);
    default:
        return (uint32_t)next(s);
    }
}

/* Those that can be written; ICR is for the operation `ipi`, and an ID is seldom changed. */
static void write_register(struct source *s)
{
    static const uint16_t regs[] = {
        APIC_TPR, APIC_TPR,       APIC_TPR,       APIC_SVR,       APIC_SVR,         APIC_LDR,
        APIC_LDR, APIC_DFR,       APIC_ICR2,      APIC_TDCR,      APIC_TMICT,       APIC_LVT_TIMER,
        APIC_ESR, APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR, APIC_LVT_THERMAL, APIC_LVT_PMC,
    };
    uint32_t reg = one_in(s, 40) ? APIC_ID : regs[below(s, sizeof(regs) / sizeof(regs[0]))];
    uint64_t value = any_value(s, reg);

    if (is_odd(s, ODD_RESERVED) && one_in(s, 20)) {
        value |= reg == APIC_ID || reg == APIC_TMICT ? 0 : 1u << below(s, 32);
    }
    value |= one_in(s, 100) ? 1ull << (32 + below(s, 32)) : 0;
    emit(s, DIFF_OP_WR, (uint16_t)reg, 0, value);
}

static void read_register(struct source *s)
{
    static const uint16_t regs[] = {
        APIC_ID,        APIC_LVR,   APIC_TPR,   APIC_PPR,  APIC_PPR,       APIC_LDR,
        APIC_DFR,       APIC_SVR,   APIC_ESR,   APIC_ICR,  APIC_ICR2,      APIC_LVT_TIMER,
        APIC_LVT_LINT0, APIC_TMICT, APIC_TMCCT, APIC_TDCR, APIC_LVT_ERROR, APIC_LVT_LINT1,
    };
    static const uint16_t banks[] = {APIC_ISR, APIC_TMR, APIC_IRR};

    if (one_in(s, 2)) {
        emit(s, DIFF_OP_RD,
             (uint16_t)(banks[below(s, 3)] + 16u * (s->vectors[below(s, POOL)] / 32u)), 0, 0);
    } else {
        emit(s, DIFF_OP_RD, regs[below(s, sizeof(regs) / sizeof(regs[0]))], 0, 0);
    }
}

/* Any offset and any MSR; what can send, or restart a count, is only read. */
static void odd_access(struct source *s)
{
    uint16_t offset = (uint16_t)(below(s, 0x40) << 4);
    uint32_t slot = offset;
    bool only_read = slot == APIC_ICR || slot == APIC_TMICT || slot == APIC_ID ||
                     slot == APIC_LVT_TIMER || slot == APIC_LVT_ERROR || slot == APIC_SVR ||
                     slot == APIC_SELF_IPI || slot == APIC_EOI;

    switch (below(s, 6)) {
    case 0:
        emit(s, DIFF_OP_MMIO_RD4, offset, 0, 0);
        break;
    case 1:
        emit(s, DIFF_OP_RDMSR, 0, 0x800 + below(s, one_in(s, 4) ? 0x100 : 0x40), 0);
        break;
    case 2:
        if (!only_read) {
            emit(s, DIFF_OP_WRMSR, 0, 0x800 + (slot >> 4), any_value(s, slot));
        }
        break;
    case 3:
        emit(s, one_in(s, 2) ? DIFF_OP_MMIO_RD1 : DIFF_OP_MMIO_RD2,
             (uint16_t)(offset + 2 * below(s, 2)), 0, 0);
        break;
    case 4:
        if (!only_read && is_odd(s, ODD_NARROW)) {
            emit(s, one_in(s, 2) ? DIFF_OP_MMIO_WR1 : DIFF_OP_MMIO_WR2, offset, 0, next(s));
        }
        break;
    default:
        if (!only_read) {
            emit(s, DIFF_OP_MMIO_WR4, offset, 0, any_value(s, slot));
        }
        break;
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* Messages                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/* Fixed, lowest, NMI; seldom SIPI to whoever runs, and the two that do nothing. */
static uint32_t delivery_mode(struct source *s)
{
    static const uint8_t modes[] = {0, 0, 0, 0, 0, 0, 1, 1, 4, 4, 6, 3, 7};
    uint8_t mode = modes[below(s, one_in(s, 8) ? sizeof(modes) : 9)];

    return mode == 1 && !is_odd(s, ODD_LOWEST) ? 0 : mode;
}

/* In xAPIC mode FFh and all ones are the same. */
static uint32_t destination(struct source *s, bool logical)
{
    switch (below(s, 8)) {
    case 0:
        return below(s, 255);
    case 1:
        return is_odd(s, ODD_ALL_ONES) && one_in(s, 2) ? 0xff : 0xffffffffu;
    case 2:
        return one_in(s, 2) ? (uint32_t)next(s) : below(s, 16) << 16 | below(s, 0x10000);
    default:
        return logical ? 1 + below(s, (1u << s->cpus) - 1) : below(s, s->cpus + 1);
    }
}

static void send_ipi(struct source *s)
{
    uint32_t mode = delivery_mode(s);
    bool level = one_in(s, 12);
    uint32_t low = vector(s, level) | mode << 8 | (one_in(s, 3) ? APIC_ICR_LOGICAL : 0);

    low |= one_in(s, 6) ? 0 : APIC_ICR_ASSERT;
    low |= level ? APIC_ICR_LEVEL : 0;
    low |= one_in(s, 3) ? below(s, 4) << 18 : 0;
    low |= one_in(s, 60) ? 1u << (20 + below(s, 12)) : 0;
    emit(s, DIFF_OP_IPI, 0, low, destination(s, (low & APIC_ICR_LOGICAL) != 0));
}

static void send_self(struct source *s)
{
    emit(s, DIFF_OP_SELF, 0, 0,
         vector(s, false) | (one_in(s, 20) ? 1ull << (8 + below(s, 56)) : 0));
}

/* What software disables is known to differ. */
static void enable_others(struct source *s)
{
    uint8_t cpu = s->cpu;

    for (s->cpu = 1; s->cpu < s->cpus; s->cpu++) {
        emit(s, DIFF_OP_WR, APIC_SVR, 0, 0x1ff);
    }
    s->cpu = cpu;
}

/* Never to processor 0: as the boot processor it would restart the machine. */
static void send_init(struct source *s)
{
    uint32_t low = 0x500 | (one_in(s, 4) ? 0 : APIC_ICR_ASSERT) | below(s, 256);
    uint32_t dest = s->cpus < 2 ? 1 : 1 + below(s, s->cpus - 1);

    low |= one_in(s, 3) ? APIC_ICR_LEVEL : 0;
    low |= s->cpu == 0 && one_in(s, 3) ? 3u << 18 : 0;
    emit(s, DIFF_OP_INIT, 0, low, dest);
    if (!is_odd(s, ODD_INIT)) {
        enable_others(s);
    }
}

static uint32_t device_destination(struct source *s)
{
    if (one_in(s, 6)) {
        return below(s, is_odd(s, ODD_ALL_ONES) ? 256 : 255);
    }
    return below(s, s->cpus + 1);
}

static void send_msi(struct source *s)
{
    uint32_t mode = one_in(s, 9) ? 4 : is_odd(s, ODD_LOWEST) && one_in(s, 4);
    uint32_t hint = is_odd(s, ODD_LOWEST) && one_in(s, 6) ? 8 : 0;
    uint32_t address = 0xfee00000u | device_destination(s) << 12 | hint | (one_in(s, 3) ? 4 : 0);
    uint32_t trigger = one_in(s, 5) ? below(s, 4) << 14 : 0;
    bool level = (trigger & 0x8000) != 0;

    emit(s, DIFF_OP_MSI, 0, address, vector(s, level) | mode << 8 | trigger);
}

/* ---------------------------------------------------------------------------------------------- */
/* I/O APIC                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

static uint16_t any_pin(struct source *s)
{
    static const uint8_t pins[] = {5, 10, 17, 18, 23};

    return pins[below(s, sizeof(pins))];
}

static uint32_t entry(struct source *s)
{
    uint32_t mode = s->nmi_pins && one_in(s, 8) ? 4 : is_odd(s, ODD_LOWEST) && one_in(s, 5);
    bool level = one_in(s, 2) && mode != 4;
    uint32_t low = vector(s, level) | mode << 8 | (level ? 0x8000 : 0);

    low |= one_in(s, 3) ? 0x800 : 0;
    low |= one_in(s, 10) ? 0x2000 : 0;
    return low | (one_in(s, 5) ? 0x10000 : 0);
}

/* A level that nobody takes is known to differ; 1 and 2 are somebody's, physical or logical. */
static bool needs_taker(const struct source *s, uint32_t low)
{
    return !is_odd(s, ODD_TAKER) && (low & 0x8000) != 0;
}

static void write_entry(struct source *s, uint16_t pin)
{
    uint32_t low = entry(s);
    uint32_t dest = device_destination(s);

    emit(s, DIFF_OP_RTE, pin, low, needs_taker(s, low) ? 1 + dest % 2 : dest);
}

/* The destination stays, and is 0 at first. */
static void write_low_half(struct source *s, uint16_t pin)
{
    uint32_t low = entry(s);

    emit(s, DIFF_OP_IO_WR, (uint16_t)(0x10 + 2 * pin), needs_taker(s, low) ? low & ~0x800u : low,
         0);
}

static void use_ioapic(struct source *s)
{
    uint16_t pin = any_pin(s);

    switch (below(s, 12)) {
    case 0:
    case 1:
    case 2:
        write_entry(s, pin);
        break;
    case 3:
        emit(s, DIFF_OP_RTE_RD, pin, 0, 0);
        break;
    case 4:
        write_low_half(s, pin);
        break;
    case 5:
        emit(s, DIFF_OP_IO_RD, (uint16_t)below(s, is_odd(s, ODD_INDEX) ? 0x50 : 0x40), 0, 0);
        break;
    default:
        emit(s, DIFF_OP_LINE, pin, one_in(s, 3) ? 0 : 1, 0);
        break;
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* Modes and time                                                                                 */
/* ---------------------------------------------------------------------------------------------- */

static void change_mode(struct source *s)
{
    static const uint16_t modes[] = {0,
                                     APIC_BASE_EN,
                                     APIC_BASE_EN,
                                     APIC_BASE_EN | APIC_BASE_EXTD,
                                     APIC_BASE_EN | APIC_BASE_EXTD,
                                     APIC_BASE_EXTD};
    uint64_t base = BASE_ADDRESS | modes[below(s, sizeof(modes) / sizeof(modes[0]))];

    if (is_odd(s, ODD_BASE) && one_in(s, 20)) {
        base = MOVED_TO | APIC_BASE_EN;
    }
    base |= one_in(s, 20) ? 1u << below(s, 8) : 0;
    base |= one_in(s, 20) ? 1ull << (52 + below(s, 12)) : 0;
    emit(s, DIFF_OP_BASE, 0, 0, base);
    if ((base & APIC_BASE_EN) != 0 && !is_odd(s, ODD_INIT)) {
        emit(s, DIFF_OP_WR, APIC_SVR, 0, 0x1ff);
    }
}

static void use_time(struct source *s)
{
    uint8_t v = (uint8_t)(0x20 + below(s, 0xe0));

    switch (below(s, 8)) {
    case 0:
    case 1:
    case 2:
        emit(s, DIFF_OP_TIMER, (uint16_t)(below(s, 16) & 0xb), v, SHORT_COUNT / 128);
        break;
    case 3:
        emit(s, DIFF_OP_TIMER, 0xb, v | (one_in(s, 2) ? APIC_LVT_MASKED : 0), SHORT_COUNT);
        break;
    case 4:
        emit(s, DIFF_OP_TIMER, 0xb, v | 1u << 17, PERIOD_COUNT);
        break;
    case 5:
        emit(s, DIFF_OP_WRMSR, 0, MSR_TSC_DEADLINE, one_in(s, 2) ? 0 : 1ull << 62);
        break;
    default:
        emit(s, DIFF_OP_DEADLINE, 0, v | 1u << 18, one_in(s, 4) ? 0 : 20000 + below(s, 50000));
        break;
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* Programs                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

static void take(struct source *s)
{
    emit(s, DIFF_OP_TAKE, (uint16_t)(one_in(s, 2) ? 0 : below(s, 4)), 0, 0);
}

static void eoi(struct source *s)
{
    emit(s, DIFF_OP_EOI, 0, 0, 0);
}

static void cr8(struct source *s)
{
    if (one_in(s, 3)) {
        emit(s, DIFF_OP_CR8_RD, 0, 0, 0);
    } else {
        emit(s, DIFF_OP_CR8_WR, 0, 0, below(s, 16));
    }
}

static void look(struct source *s)
{
    emit(s, one_in(s, 4) ? DIFF_OP_CPUID : DIFF_OP_DUMP, 0, 0, 0);
}

static void step(struct source *s)
{
    static const struct {
        uint16_t weight;
        void (*make)(struct source *);
    } kinds[] = {
        {160, take},
        {60, eoi},
        {190, send_ipi},
        {40, send_self},
        {110, write_register},
        {110, read_register},
        {50, cr8},
        {40, odd_access},
        {110, use_ioapic},
        {60, send_msi},
        {25, change_mode},
        {16, use_time},
        {8, send_init},
        {8, look},
    };
    uint32_t sum = 0, at;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        sum += kinds[i].weight;
    }
    at = below(s, sum);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (at < kinds[i].weight) {
            kinds[i].make(s);
            return;
        }
        at -= kinds[i].weight;
    }
}

/* Most programs have all processors in one mode, at first. */
static void begin(struct source *s)
{
    bool all = one_in(s, 2), some = one_in(s, 3);

    for (s->cpu = 0; s->cpu < s->cpus; s->cpu++) {
        if (all || (some && one_in(s, 2))) {
            emit(s, DIFF_OP_BASE, 0, 0, BASE_ADDRESS | APIC_BASE_EN | APIC_BASE_EXTD);
        }
    }
}

static void end(struct source *s)
{
    s->limit += s->cpus;
    for (s->cpu = 0; s->cpu < s->cpus; s->cpu++) {
        emit(s, DIFF_OP_DUMP, 0, 0, 0);
    }
}

/* Nothing in two of three programs; else one or two things, or, seldom, any. */
static uint32_t choose_odd(struct source *s)
{
    if (!one_in(s, 3)) {
        return 0;
    }
    if (one_in(s, 6)) {
        return below(s, 1u << ODD_COUNT);
    }
    return 1u << below(s, ODD_COUNT) | 1u << below(s, ODD_COUNT);
}

void diff_program_random(struct diff_program *p, uint64_t seed, uint64_t number, uint32_t length,
                         uint32_t cpus)
{
    struct source s = {.p = p, .state = seed, .cpus = cpus};

    s.state = next(&s) ^ number;
    s.limit = length < DIFF_OPS_MAX ? length - cpus : DIFF_OPS_MAX - cpus;
    p->count = 0;
    snprintf(p->name, sizeof(p->name), "seed %llu, program %llu", (unsigned long long)seed,
             (unsigned long long)number);
    s.odd = choose_odd(&s);
    s.nmi_pins = one_in(&s, 6);
    for (unsigned i = 0; i < POOL; i++) {
        s.vectors[i] = (uint8_t)(32 + below(&s, 224));
    }
    begin(&s);
    s.cpu = 0;
    while (p->count < s.limit) {
        s.cpu = one_in(&s, 6) ? (uint8_t)below(&s, cpus) : s.cpu;
        step(&s);
    }
    end(&s);
}
