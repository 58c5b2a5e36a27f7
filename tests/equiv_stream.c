/* SPDX-License-Identifier: MIT */
/*
 * The stream of the equivalence test. It is meant to be unpleasant, and yet the guest must stay
 * alive: what stops a vCPU or makes it deaf (INIT, HLT, a disabled APIC, an ID that is not its own)
 * is healed some operations later.
 */
#include "equiv.h"

const char *const eq_kind_names[EQ_KINDS] = {
    [EQ_NOTHING] = "nothing", [EQ_MMIO] = "mmio",     [EQ_MSR] = "msr",   [EQ_CR8] = "cr8",
    [EQ_IPI] = "ipi",         [EQ_HLT] = "hlt",       [EQ_IF] = "if",     [EQ_POST] = "post",
    [EQ_MSI] = "msi",         [EQ_IRTE] = "irte",     [EQ_PIN] = "pin",   [EQ_RTE] = "rte",
    [EQ_NMI] = "nmi",         [EQ_LINT] = "lint",     [EQ_TICK] = "tick", [EQ_START] = "start",
    [EQ_PAUSE] = "pause",     [EQ_RESUME] = "resume",
};

#define R (&e->stream)

/* ---- What the reference shows ---- */

static uint32_t reg(const struct equiv *e, uint32_t n, uint32_t offset)
{
    return ax_page(e->ref, n, offset);
}

static bool is_x2(const struct equiv *e, uint32_t n)
{
    return (vapic_base(eq_vcpu(e, n)) & APIC_BASE_EXTD) != 0;
}

static bool is_enabled(const struct equiv *e, uint32_t n)
{
    return (vapic_base(eq_vcpu(e, n)) & APIC_BASE_EN) != 0;
}

/* ---- Values ---- */

static uint8_t edge_vector(struct equiv *e)
{
    static const uint8_t some[] = {0x21, 0x22, 0x31, 0x3F, 0x41, 0x52, 0x63, 0x74,
                                   0x85, 0x96, 0xA7, 0xB8, 0xC9, 0xDA, 0xEB, 0xFC};

    return eq_chance(R, 90) ? some[eq_below(R, sizeof(some))] : (uint8_t)eq_next(R);
}

static uint8_t level_vector(struct equiv *e)
{
    static const uint8_t some[] = {0x29, 0x39, 0x4A, 0x5A, 0x6B, 0x8B, 0xAC, 0xCD};

    return eq_chance(R, 95) ? some[eq_below(R, sizeof(some))] : edge_vector(e);
}

static uint32_t icr_mode(struct equiv *e)
{
    uint32_t p = eq_below(R, 100);

    if (p < 78)
        return APIC_DM_FIXED;
    if (p < 86)
        return APIC_DM_LOWEST;
    if (p < 93)
        return APIC_DM_NMI;
    if (p < 95)
        return APIC_DM_INIT;
    if (p < 98)
        return APIC_DM_SIPI;
    return p == 98 ? APIC_DM_REMOTE : APIC_DM_EXTINT;
}

static uint32_t icr_low(struct equiv *e)
{
    uint32_t p = eq_below(R, 100), icr = icr_mode(e) | edge_vector(e);

    if (eq_chance(R, 2))
        icr = (icr & ~0xFFu) | eq_below(R, 16);
    icr |= eq_chance(R, 30) ? APIC_ICR_LOGICAL : 0;
    icr |= eq_chance(R, 70) ? APIC_ICR_ASSERT : 0;
    icr |= eq_chance(R, 2) ? APIC_ICR_LEVEL : 0;
    icr |= eq_chance(R, 2) ? APIC_ICR_BUSY : 0;
    icr |= eq_chance(R, 1) ? (uint32_t)eq_next(R) & APIC_ICR_X2_RESERVED : 0;
    if (p < 12)
        return icr | APIC_ICR_SELF;
    if (p < 18)
        return icr | APIC_ICR_ALL_INCL;
    return p < 26 ? icr | APIC_ICR_ALL_EXCL : icr;
}

static uint32_t destination(struct equiv *e, uint32_t n, uint32_t icr)
{
    uint32_t p = eq_below(R, 100);

    if (p < 3)
        return (uint32_t)eq_next(R) & (is_x2(e, n) ? 0xFFFFFFFFu : 0xFFu);
    if (p < 6)
        return is_x2(e, n) && eq_chance(R, 60) ? APIC_DEST_ALL_32 : APIC_DEST_ALL_8;
    if (icr & APIC_ICR_LOGICAL)
        return p < 20 ? eq_below(R, 16) : 1u << eq_below(R, EQ_VCPUS);
    return p < 10 ? eq_below(R, 16) : eq_below(R, EQ_VCPUS);
}

static uint32_t svr(struct equiv *e)
{
    uint32_t value = eq_chance(R, 70) ? 0x1FF : 0x100 | (uint32_t)eq_next(R) % 256;

    if (eq_chance(R, 8))
        value &= ~APIC_SVR_ENABLE;
    if (eq_chance(R, 10))
        value |= APIC_SVR_EOI_SUPPRESS;
    return eq_chance(R, 3) ? (uint32_t)eq_next(R) : value;
}

static uint32_t lvt(struct equiv *e, uint32_t offset)
{
    uint32_t value = edge_vector(e);

    if (eq_chance(R, 40))
        value |= APIC_LVT_MASKED;
    if (offset == APIC_LVT_TIMER)
        return value | (eq_chance(R, 30) ? APIC_TIMER_PERIODIC : 0) |
               (eq_chance(R, 3) ? APIC_TIMER_DEADLINE : 0);
    if (offset == APIC_LVT_LINT0 && eq_chance(R, 20))
        return APIC_DM_EXTINT;
    if (eq_chance(R, 20))
        value |= APIC_DM_NMI;
    return eq_chance(R, 3) ? (uint32_t)eq_next(R) : value;
}

/* A guest that behaves, mostly. */
static uint64_t value_for(struct equiv *e, uint32_t n, uint32_t offset)
{
    switch (offset) {
    case APIC_ID:
        return (eq_chance(R, 85) ? n : eq_below(R, 256)) << 24;
    case APIC_TPR:
        return eq_chance(R, 80) ? eq_below(R, 0x40) : eq_below(R, 0x104);
    case APIC_LDR:
        return (eq_chance(R, 85) ? 1u << n : eq_below(R, 256)) << 24;
    case APIC_DFR:
        return eq_chance(R, 85) ? APIC_DFR_FLAT : (uint32_t)eq_next(R) << 28;
    case APIC_SVR:
        return svr(e);
    case APIC_ICR:
        return icr_low(e);
    case APIC_ICR2:
        return (uint32_t)eq_below(R, EQ_VCPUS) << 24 | (eq_chance(R, 5) ? 0x123456 : 0);
    case APIC_TMICT:
        return eq_chance(R, 30) ? 0 : eq_below(R, 2000000);
    case APIC_TDCR:
        return eq_below(R, 16);
    case APIC_SELF_IPI:
        return eq_chance(R, 90) ? edge_vector(e) : eq_below(R, 0x120);
    case APIC_EOI:
    case APIC_ESR:
        return eq_chance(R, 92) ? 0 : (uint32_t)eq_next(R);
    case APIC_LVT_TIMER:
    case APIC_LVT_THERMAL:
    case APIC_LVT_PMC:
    case APIC_LVT_LINT0:
    case APIC_LVT_LINT1:
    case APIC_LVT_ERROR:
        return lvt(e, offset);
    default:
        return (uint32_t)eq_next(R);
    }
}

static uint64_t x2_value(struct equiv *e, uint32_t n, uint32_t offset)
{
    uint64_t value = value_for(e, n, offset);

    if (offset == APIC_ICR)
        return (uint64_t)destination(e, n, (uint32_t)value) << 32 | value;
    return eq_chance(R, 2) ? value | eq_next(R) << 32 : value;
}

/* ---- Operations of a vCPU ---- */

static uint32_t any_offset(struct equiv *e)
{
    static const uint16_t usual[] = {
        APIC_ID,        APIC_LVR,   APIC_TPR,   APIC_TPR,       APIC_APR,       APIC_PPR,
        APIC_EOI,       APIC_EOI,   APIC_LDR,   APIC_DFR,       APIC_SVR,       APIC_ESR,
        APIC_ICR,       APIC_ICR,   APIC_ICR2,  APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1,
        APIC_LVT_ERROR, APIC_TMICT, APIC_TMCCT, APIC_TDCR,      APIC_SELF_IPI,  APIC_ISR,
        APIC_IRR,       APIC_TMR,
    };

    if (eq_chance(R, 50))
        return eq_below(R, 256) << 4;
    if (eq_chance(R, 15)) /* ISR, TMR, IRR */
        return APIC_ISR + (eq_below(R, 24) << 4);
    return usual[eq_below(R, sizeof(usual) / sizeof(usual[0]))];
}

static struct eq_op msr_access(struct equiv *e, uint32_t n)
{
    struct eq_op op = {.kind = EQ_MSR, .vcpu = (uint8_t)n, .write = eq_chance(R, 50)};
    uint32_t offset = any_offset(e);

    op.where = MSR_X2APIC_FIRST + (offset >> 4);
    op.value = op.write ? x2_value(e, n, offset) : 0;
    return op;
}

static struct eq_op mmio_access(struct equiv *e, uint32_t n)
{
    struct eq_op op = {.kind = EQ_MMIO, .vcpu = (uint8_t)n, .size = 4};

    op.write = eq_chance(R, 50);
    op.where = any_offset(e);
    op.value = op.write ? value_for(e, n, op.where) : 0;
    if (eq_chance(R, 97))
        return op;
    op.size = (uint8_t)(1u << eq_below(R, 4));
    op.where += eq_below(R, 16 / op.size) * op.size;
    return op;
}

static struct eq_op access(struct equiv *e, uint32_t n)
{
    bool msr = is_x2(e, n);

    if (eq_chance(R, 1)) /* the other mode's way: #GP, or nothing */
        msr = !msr;
    return msr ? msr_access(e, n) : mmio_access(e, n);
}

static struct eq_op eoi(struct equiv *e, uint32_t n)
{
    if (is_x2(e, n))
        return (struct eq_op){.kind = EQ_MSR, .vcpu = (uint8_t)n, .write = true, .where = 0x80B};
    return (struct eq_op){
        .kind = EQ_MMIO, .vcpu = (uint8_t)n, .write = true, .size = 4, .where = APIC_EOI};
}

static struct eq_op ipi(struct equiv *e, uint32_t n)
{
    uint32_t icr = icr_low(e);

    return (struct eq_op){
        .kind = EQ_IPI, .vcpu = (uint8_t)n, .value = (uint64_t)destination(e, n, icr) << 32 | icr};
}

static struct eq_op cr8(struct equiv *e, uint32_t n)
{
    struct eq_op op = {.kind = EQ_CR8, .vcpu = (uint8_t)n, .write = eq_chance(R, 60)};

    if (op.write)
        op.value = eq_chance(R, 80) ? eq_below(R, 4) : eq_below(R, 18);
    return op;
}

static uint64_t base_of(struct equiv *e, uint32_t n, bool x2)
{
    uint64_t base = vapic_base(eq_vcpu(e, n)) & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXTD);

    return base | APIC_BASE_EN | (x2 ? APIC_BASE_EXTD : 0);
}

static struct eq_op write_base(uint32_t n, uint64_t value)
{
    return (struct eq_op){
        .kind = EQ_MSR, .vcpu = (uint8_t)n, .write = true, .where = MSR_APIC_BASE, .value = value};
}

/* Legal and illegal ones. The page moves only near the end of an epoch: that lasts. */
static struct eq_op base(struct equiv *e, uint32_t n)
{
    uint64_t value = vapic_base(eq_vcpu(e, n));
    uint32_t p = eq_below(R, 100);

    if (p < 40)
        return (struct eq_op){.kind = EQ_MSR, .vcpu = (uint8_t)n, .where = MSR_APIC_BASE};
    if (p < 55)
        return write_base(n, value & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXTD));
    if (p < 65)
        return write_base(n, (value & ~(uint64_t)APIC_BASE_EN) | APIC_BASE_EXTD);
    if (p < 75)
        return write_base(n, value ^ 1u << eq_below(R, 10));
    if (p < 80 && e->number - e->epoch_start > e->epoch.move_at)
        return write_base(n, (value & 0xFFF) | UINT64_C(0xFEE10000));
    return write_base(n, base_of(e, n, e->epoch.target_x2));
}

/* ---- Operations of devices ---- */

static struct eq_op rte(struct equiv *e)
{
    uint32_t pin = eq_below(R, EQ_PINS);
    bool level = pin >= EQ_PINS / 2 && eq_chance(R, 95);
    uint64_t entry = level ? level_vector(e) | 1u << 15 : edge_vector(e);

    if (eq_chance(R, 15))
        entry |= 1u << 16; /* masked */
    if (eq_chance(R, 10))
        entry |= 1u << 8; /* lowest priority */
    if (eq_chance(R, 20))
        entry |= 1u << 11 | (uint64_t)(1u << eq_below(R, EQ_VCPUS)) << 56;
    else
        entry |= (uint64_t)eq_below(R, EQ_VCPUS) << 56;
    return (struct eq_op){.kind = EQ_RTE, .where = pin, .value = entry};
}

static struct eq_op msi(struct equiv *e)
{
    uint32_t data = edge_vector(e), address = 0xFEE00000;

    if (eq_chance(R, 15))
        data |= APIC_DM_LOWEST;
    else if (eq_chance(R, 5))
        data |= APIC_DM_NMI;
    if (eq_chance(R, 25))
        address |= 1u << 2 | (1u << eq_below(R, EQ_VCPUS)) << 12;
    else
        address |= (eq_chance(R, 3) ? 0xFFu : eq_below(R, EQ_VCPUS)) << 12;
    if (eq_chance(R, 10))
        address |= 1u << 3;
    return (struct eq_op){.kind = EQ_MSI, .where = address, .value = data};
}

static struct eq_op device(struct equiv *e, uint32_t n)
{
    struct eq_op op = {.vcpu = (uint8_t)n};
    uint32_t p = eq_below(R, 100);

    if (p < 15)
        return rte(e);
    if (p < 35)
        return msi(e);
    if (p < 50) {
        op.kind = EQ_PIN;
        op.where = eq_below(R, EQ_PINS);
        op.value = eq_chance(R, 50);
    } else if (p < 65) {
        op.kind = EQ_IRTE;
    } else if (p < 85) {
        op.kind = EQ_POST;
        op.write = eq_chance(R, 15);
        op.value = op.write ? level_vector(e) : edge_vector(e);
    } else if (p < 90) {
        op.kind = EQ_NMI;
    } else if (p < 95) {
        op.kind = EQ_LINT;
        op.where = eq_below(R, 2);
        op.value = eq_chance(R, 50);
    } else {
        op.kind = EQ_TICK;
        op.value = eq_below(R, 400000);
    }
    return op;
}

/* ---- Healing ---- */

static struct eq_op write_reg(const struct equiv *e, uint32_t n, uint32_t offset, uint64_t value)
{
    struct eq_op op = {.kind = EQ_MMIO, .vcpu = (uint8_t)n, .write = true, .size = 4};

    op.where = offset;
    op.value = value;
    if (is_x2(e, n)) {
        op.kind = EQ_MSR;
        op.where = MSR_X2APIC_FIRST + (offset >> 4);
    }
    return op;
}

static bool heal_identity(struct equiv *e, uint32_t n, struct eq_op *op)
{
    if (is_x2(e, n))
        return false;
    if (reg(e, n, APIC_ID) != n << 24)
        *op = write_reg(e, n, APIC_ID, n << 24);
    else if (reg(e, n, APIC_DFR) != APIC_DFR_FLAT)
        *op = write_reg(e, n, APIC_DFR, APIC_DFR_FLAT);
    else if (reg(e, n, APIC_LDR) != 1u << (24 + n))
        *op = write_reg(e, n, APIC_LDR, 1u << (24 + n));
    else
        return false;
    return true;
}

static bool in_service(const struct equiv *e, uint32_t n)
{
    uint32_t any = 0;

    for (uint32_t i = 0; i < 8; i++)
        any |= reg(e, n, APIC_ISR + 16 * i);
    return any != 0;
}

static bool heal(struct equiv *e, uint32_t n, struct eq_op *op)
{
    enum vapic_activity activity = vapic_activity(eq_vcpu(e, n));

    *op = (struct eq_op){.vcpu = (uint8_t)n};
    if (e->paused[n])
        op->kind = EQ_RESUME;
    else if (activity == VAPIC_WAIT_FOR_SIPI)
        op->kind = EQ_START;
    else if (activity == VAPIC_HALTED)
        op->kind = EQ_NMI;
    else if (!is_enabled(e, n) || is_x2(e, n) != e->epoch.target_x2)
        *op = is_x2(e, n) && is_enabled(e, n)
                  ? write_base(n, base_of(e, n, false) & ~(uint64_t)APIC_BASE_EN)
                  : write_base(n, base_of(e, n, e->epoch.target_x2));
    else if (!(reg(e, n, APIC_SVR) & APIC_SVR_ENABLE))
        *op = write_reg(e, n, APIC_SVR, 0x1FF);
    else if (heal_identity(e, n, op))
        return true;
    else if (!e->ref->v[n]->guest_if)
        *op = (struct eq_op){.kind = EQ_IF, .vcpu = (uint8_t)n, .value = 1};
    else if (reg(e, n, APIC_TPR) > 0x40)
        *op = write_reg(e, n, APIC_TPR, 0);
    else if (in_service(e, n))
        *op = eoi(e, n);
    else
        return false;
    return true;
}

/* ---- */

void eq_begin_epoch(struct equiv *e)
{
    uint32_t p = eq_below(R, 100);

    e->epoch.x2apic = p < 35;
    e->epoch.target_x2 = e->epoch.x2apic;
    e->epoch.switch_at = p % 3 == 0 ? eq_below(R, e->epoch_length) : e->epoch_length;
    e->epoch.move_at = p % 5 == 0 ? e->epoch_length * 9 / 10 : e->epoch_length;
}

static struct eq_op of_vcpu(struct equiv *e, uint32_t n)
{
    uint32_t p = eq_below(R, 100);

    if (p < 58)
        return access(e, n);
    if (p < 75)
        return ipi(e, n);
    if (p < 85)
        return eoi(e, n);
    if (p < 92)
        return cr8(e, n);
    if (p < 94)
        return base(e, n);
    if (p < 97)
        return (struct eq_op){.kind = EQ_HLT, .vcpu = (uint8_t)n};
    return (struct eq_op){.kind = EQ_IF, .vcpu = (uint8_t)n, .value = eq_chance(R, 50)};
}

struct eq_op eq_draw(struct equiv *e)
{
    uint32_t n = eq_below(R, EQ_VCPUS);
    struct eq_op op;

    if (e->number - e->epoch_start == e->epoch.switch_at)
        e->epoch.target_x2 = !e->epoch.target_x2;
    if (eq_chance(R, 16) && heal(e, n, &op))
        return op;
    if (eq_chance(R, 20))
        return device(e, n);
    if (eq_chance(R, 1))
        return (struct eq_op){.kind = EQ_PAUSE, .vcpu = (uint8_t)n};
    return of_vcpu(e, n);
}
