/* SPDX-License-Identifier: MIT */
/*
 * The guest's accesses: MMIO in xAPIC mode, MSRs in x2APIC mode. Who may read and write what comes
 * from the register table; what an access does beyond loading and storing comes from `readers` and
 * `writers` below, one entry per 16-byte slot as the page has them.
 */
#include "internal.h"

/* ---- Reading ---- */

static uint32_t class_of(int vector)
{
    return vector < 0 ? 0 : (uint32_t)vector & 0xF0;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/*
 * The priority with which this APIC takes part in lowest-priority arbitration. Intel's P6 family
 * weighs requests against what runs; AMD takes the highest of all [APM2 16.6.4].
 */
static uint32_t read_apr(struct vapic *v, uint32_t offset, struct vapic_now now)
{
    uint32_t tpr = reg(v, APIC_TPR), irr, isr;

    (void)offset;
    (void)now;
    if (!knob(v->vm, VAPIC_KNOB_APR))
        return 0;
    vapic_lapic_harvest(v);
    irr = class_of(highest_vector(v, APIC_IRR, v->irr_words));
    isr = class_of(highest_vector(v, APIC_ISR, v->isr_words));
    if ((tpr & 0xF0) >= irr && (tpr & 0xF0) > isr)
        return tpr;
    if (v->features & VAPIC_FEATURE_AMD)
        return larger(isr, irr);
    return larger(tpr & isr & 0xF0, irr);
}

static uint32_t read_tmcct(struct vapic *v, uint32_t offset, struct vapic_now now)
{
    (void)offset;
    return vapic_timer_current(v, now);
}

/* A posted interrupt has been accepted although the page does not show it yet. */
static uint32_t read_posted(struct vapic *v, uint32_t offset, struct vapic_now now)
{
    (void)now;
    vapic_lapic_harvest(v);
    return reg(v, offset);
}

typedef uint32_t (*read_fn)(struct vapic *v, uint32_t offset, struct vapic_now now);

#define EIGHT(fn) fn, fn, fn, fn, fn, fn, fn, fn

/* By offset / 10h; a slot without an entry is read as the page has it. */
static const read_fn readers[REG_SLOTS] = {
    [APIC_APR >> 4] = read_apr,
    [APIC_TMR >> 4] = EIGHT(read_posted),
    [APIC_IRR >> 4] = EIGHT(read_posted),
    [APIC_TMCCT >> 4] = read_tmcct,
};

static inline uint32_t read_word(struct vapic *v, uint32_t offset, struct vapic_now now)
{
    read_fn fn = readers[offset >> 4];

    return LIKELY(fn == NULL) ? reg(v, offset) : fn(v, offset, now);
}

/* ---- Writing: what it does beyond the bits it stores ---- */

typedef void (*write_fn)(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now);

static void store(struct vapic *v, uint32_t offset, uint32_t value)
{
    const struct vapic_reg *row = reg_at(offset);

    set_reg(v, offset, (value & row->writable) | row->ones);
}

static void write_plain(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)now;
    store(v, offset, value);
}

static void write_tpr(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)now;
    set_reg(v, offset, value & 0xFF);
    vapic_lapic_update_ppr(v);
}

static void write_eoi(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)offset;
    (void)value;
    (void)now;
    vapic_eoi(v);
}

/* ID, LDR, DFR: the destination map follows. */
static void write_identity(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    uint32_t old = reg(v, offset);

    (void)now;
    store(v, offset, value);
    if (reg(v, offset) != old && v->index != VAPIC_NO_INDEX)
        vapic_fabric_update(v);
}

/* With SVR[8] clear every LVT entry is masked and stays so [SDM3 12.4.7.2]. */
static void mask_all_lvts(struct vapic *v)
{
    const struct vapic_reg *row;

    for (uint32_t n = 0; (row = vapic_reg_row(n)) != NULL; n++) {
        bool lvt = (row->offset >= APIC_LVT_TIMER && row->offset <= APIC_LVT_ERROR) ||
                   row->offset == APIC_LVT_CMCI;

        if (lvt && has_reg(v, row))
            set_reg(v, row->offset, reg(v, row->offset) | APIC_LVT_MASKED);
    }
}

void vapic_lapic_load_svr(struct vapic *v, uint32_t value)
{
    if (!(v->features & VAPIC_FEATURE_EOI_SUPPRESS))
        value &= ~APIC_SVR_EOI_SUPPRESS;
    if (value & APIC_SVR_ENABLE)
        v->fresh = false;
    store(v, APIC_SVR, value);
}

static void write_svr(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    uint32_t old = reg(v, offset);

    (void)now;
    /* What was posted before belongs to the state before. */
    vapic_lapic_harvest(v);
    vapic_lapic_load_svr(v, value);
    if (((old ^ value) & APIC_SVR_ENABLE) == 0)
        return;
    if (!(value & APIC_SVR_ENABLE)) {
        mask_all_lvts(v);
        vapic_timer_soft_disabled(v);
    }
    if (v->index != VAPIC_NO_INDEX)
        vapic_fabric_update(v);
}

/* [SDM3 12.5.3]: a write copies what was latched since the last one, and clears the latch. */
static void write_esr(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)value;
    (void)now;
    set_reg(v, offset, v->esr_latch);
    v->esr_latch = 0;
}

static inline uint32_t lvt_value(const struct vapic *v, uint32_t offset, uint32_t value)
{
    const struct vapic_reg *row = reg_at(offset);
    uint32_t writable = row->writable;

    if (knob(v->vm, VAPIC_KNOB_LVT_STATUS_WRITABLE))
        writable |= ~row->reserved & (APIC_LVT_DS | APIC_LVT_RIRR);
    if (offset == APIC_LVT_TIMER && !(v->features & VAPIC_FEATURE_TSC_DEADLINE))
        writable &= ~APIC_TIMER_DEADLINE;
    value = (reg(v, offset) & ~writable & (APIC_LVT_DS | APIC_LVT_RIRR)) | (value & writable);
    return sw_enabled(v) ? value : value | APIC_LVT_MASKED;
}

/* The value that a write of `value` leaves in an LVT entry. */
uint32_t vapic_lapic_lvt_value(const struct vapic *v, uint32_t offset, uint32_t value)
{
    return lvt_value(v, offset, value);
}

static void write_lvt(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)now;
    set_reg(v, offset, vapic_lapic_lvt_value(v, offset, value));
}

static void write_lvt_timer(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)offset;
    (void)now;
    vapic_timer_write_lvt(v, lvt_value(v, APIC_LVT_TIMER, value));
}

/* Remote IRR belongs to level triggering; a change to edge forgets it. LINT1 knows only edges. */
static void write_lint(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    uint32_t lvt = vapic_lapic_lvt_value(v, offset, value);

    (void)now;
    if (!(lvt & APIC_LVT_LEVEL) && !knob(v->vm, VAPIC_KNOB_LVT_STATUS_WRITABLE))
        lvt &= ~APIC_LVT_RIRR;
    set_reg(v, offset, lvt);
    if (offset == APIC_LVT_LINT0)
        vapic_lapic_eval_lint(v);
}

static void write_tmict(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)offset;
    vapic_timer_write_initial(v, value, now);
}

static void write_tdcr(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    vapic_timer_write_divide(v, value & reg_at(offset)->writable, now);
}

static void write_seoi(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)now;
    store(v, offset, value);
    vapic_lapic_specific_eoi(v, (uint8_t)value);
}

/* ---- ICR [SDM3 12.6.1] [SDM3 12.12.9] ---- */

/* Which combinations of mode and shorthand the manual calls valid [SDM3 T12-3]. */
static bool ipi_form_valid(uint32_t icr)
{
    bool fixed = (icr & APIC_ICR_DM) == APIC_DM_FIXED;
    uint32_t shorthand = icr & APIC_ICR_SHORTHAND;

    if ((icr & APIC_ICR_DM) == APIC_DM_REMOTE || (icr & APIC_ICR_DM) == APIC_DM_EXTINT)
        return false;
    return fixed || (shorthand != APIC_ICR_SELF && shorthand != APIC_ICR_ALL_INCL);
}

/* Errors that the sender notices; the message is not sent [SDM3 12.5.3]. */
static bool send_error(struct vapic *v, uint32_t icr)
{
    uint32_t mode = icr & APIC_ICR_DM;

    if (mode == APIC_DM_LOWEST && in_x2apic(v) && !knob(v->vm, VAPIC_KNOB_LOWEST_IN_X2APIC)) {
        vapic_lapic_error(v, APIC_ESR_REDIRECTABLE);
        return true;
    }
    if ((mode == APIC_DM_FIXED || mode == APIC_DM_LOWEST) &&
        (icr & APIC_ICR_VECTOR) < APIC_FIRST_VECTOR && knob(v->vm, VAPIC_KNOB_ESR)) {
        vapic_lapic_error(v, APIC_ESR_SEND_ILLEGAL);
        return true;
    }
    return false;
}

/* A fixed IPI to oneself needs no fabric. */
static bool is_fixed_self(uint32_t icr)
{
    return (icr & (APIC_ICR_SHORTHAND | APIC_ICR_DM)) == (APIC_ICR_SELF | APIC_DM_FIXED);
}

static NOINLINE void note_self_ipi(struct vapic *v, uint32_t icr)
{
    if (v->vm->count_received)
        vapic_add64(&v->ipis_received, 1, VAPIC_RELAXED);
    TRACE(v->vm, APIC_ACCEPT_IRQ, v->index, v->id, 0, (icr & APIC_ICR_LEVEL) != 0,
          icr & APIC_ICR_VECTOR);
}

static inline void send_self(struct vapic *v, uint32_t icr, bool level)
{
    if (!vapic_lapic_accept_local(v, (uint8_t)icr, level))
        return;
    v->stats.ipi_targets++;
    if (UNLIKELY(v->vm->count_received || vapic_traced(v->vm)))
        note_self_ipi(v, icr);
}

/* With the knob LEVEL_IPI off. INIT level de-assert keeps its meaning: nothing [SDM3 12.6.1]. */
static uint32_t as_edge(uint32_t icr)
{
    if ((icr & APIC_ICR_DM) == APIC_DM_INIT)
        return icr;
    return (icr & ~APIC_ICR_LEVEL) | APIC_ICR_ASSERT;
}

static NOINLINE void send_uncommon(struct vapic *v, uint32_t icr, uint32_t dest)
{
    if (send_error(v, icr))
        return;
    if (knob(v->vm, VAPIC_KNOB_IPI_FORMS) && !ipi_form_valid(icr))
        return;
    if (!knob(v->vm, VAPIC_KNOB_LEVEL_IPI))
        icr = as_edge(icr);
    v->stats.ipis_sent++;
    if (!is_fixed_self(icr))
        vapic_fabric_ipi(v, icr, dest);
    else if (!(icr & APIC_ICR_LEVEL) || icr & APIC_ICR_ASSERT)
        send_self(v, icr, (icr & APIC_ICR_LEVEL) != 0);
}

/* Fixed, edge, a legal vector: valid in every form, under every knob. */
static bool is_ordinary(uint32_t icr)
{
    return !(icr & (APIC_ICR_DM | APIC_ICR_LEVEL)) && icr & 0xF0;
}

static inline void send_untraced(struct vapic *v, uint32_t icr, uint32_t dest)
{
    if (UNLIKELY(!is_ordinary(icr))) {
        send_uncommon(v, icr, dest);
        return;
    }
    v->stats.ipis_sent++;
    if (is_fixed_self(icr))
        send_self(v, icr, false);
    else
        vapic_fabric_ipi(v, icr, dest);
}

static NOINLINE void send_traced(struct vapic *v, uint32_t icr, uint32_t dest)
{
    TRACE(v->vm, APIC_IPI, v->index, icr, dest, 0, 0);
    send_untraced(v, icr, dest);
}

static ALWAYS_INLINE void send_ipi(struct vapic *v, uint32_t icr, uint32_t dest)
{
    if (UNLIKELY(vapic_traced(v->vm)))
        send_traced(v, icr, dest);
    else
        send_untraced(v, icr, dest);
}

/* Delivery status never shows busy: delivery is complete when the write is [SDM3 12.6.1]. */
static void write_icr(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)now;
    set_reg(v, offset, value & ~APIC_ICR_BUSY);
    send_ipi(v, value & ~APIC_ICR_BUSY, reg(v, APIC_ICR2) >> 24);
}

static void write_self_ipi(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    (void)offset;
    (void)now;
    send_ipi(v, (value & APIC_ICR_VECTOR) | APIC_ICR_SELF | APIC_ICR_ASSERT, 0);
}

/* By offset / 10h; slots without an entry are never written (read-only or absent). */
static const write_fn writers[REG_SLOTS] = {
    [APIC_ID >> 4] = write_identity,
    [APIC_TPR >> 4] = write_tpr,
    [APIC_EOI >> 4] = write_eoi,
    [APIC_LDR >> 4] = write_identity,
    [APIC_DFR >> 4] = write_identity,
    [APIC_SVR >> 4] = write_svr,
    [APIC_ESR >> 4] = write_esr,
    [APIC_LVT_CMCI >> 4] = write_lvt,
    [APIC_ICR >> 4] = write_icr,
    [APIC_ICR2 >> 4] = write_plain,
    [APIC_LVT_TIMER >> 4] = write_lvt_timer,
    [APIC_LVT_THERMAL >> 4] = write_lvt,
    [APIC_LVT_PMC >> 4] = write_lvt,
    [APIC_LVT_LINT0 >> 4] = write_lint,
    [APIC_LVT_LINT1 >> 4] = write_lint,
    [APIC_LVT_ERROR >> 4] = write_lvt,
    [APIC_TMICT >> 4] = write_tmict,
    [APIC_TDCR >> 4] = write_tdcr,
    [APIC_SELF_IPI >> 4] = write_self_ipi,
    [APIC_EACR >> 4] = write_plain,
    [APIC_SEOI >> 4] = write_seoi,
    [APIC_IER >> 4] = EIGHT(write_plain),
    /* Extended LVT entries have no forced mask [APM2 16.4.5]. */
    [APIC_EILVT >> 4] = write_plain,
    write_plain,
    write_plain,
    write_plain,
};

void vapic_lapic_send(struct vapic *v, uint32_t icr, uint32_t dest)
{
    /* Hardware stores bit 12 as the guest wrote it; delivery is complete here [SDM3 12.6.1]. */
    set_reg(v, APIC_ICR, reg(v, APIC_ICR) & ~APIC_ICR_BUSY);
    send_ipi(v, icr & ~APIC_ICR_BUSY, dest);
}

static void write_word(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    writers[offset >> 4](v, offset, value, now);
}

bool vapic_lapic_write(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now)
{
    const struct vapic_reg *row = reg_at(offset);
    uint8_t access = in_x2apic(v) ? VAPIC_X2_W : VAPIC_X_W;

    if (!in_x2apic(v) && (row == NULL || !has_reg(v, row)))
        vapic_lapic_error(v, APIC_ESR_ILLEGAL_REG); /* [SDM3 12.5.3] */
    if (row == NULL || !(row->access & access) || !has_reg(v, row))
        return false;
    TRACE(v->vm, APIC, v->index, 1 | (in_x2apic(v) ? 2 : 0),
          in_x2apic(v) ? MSR_X2APIC_FIRST + (offset >> 4) : offset, value, 0);
    write_word(v, offset, value, now);
    return true;
}

/* ---- MMIO [SDM3 12.4.1] ---- */

bool vapic_mmio_claims(const struct vapic *v, uint64_t gpa)
{
    if ((gpa ^ v->apic_base) & ~(uint64_t)(APIC_PAGE_SIZE - 1))
        return false;
    return (apic_enabled(v) && !in_x2apic(v)) || knob(v->vm, VAPIC_KNOB_DISABLED_READS_ONES);
}

static bool mmio_live(const struct vapic *v)
{
    return (v->apic_base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN;
}

/* The row that covers an MMIO offset, NULL for a reserved one. */
static inline const struct vapic_reg *mmio_row(const struct vapic *v, uint32_t offset)
{
    const struct vapic_reg *row = reg_at(offset);

    if (LIKELY(row != NULL && row->access & (VAPIC_X_R | VAPIC_X_W) && has_reg(v, row)))
        return row;
    return NULL;
}

/* x86 is little-endian. */
static inline void store_le32(void *data, uint32_t value)
{
    __builtin_memcpy(data, &value, sizeof(value));
}

static inline uint32_t load_le32(const void *data)
{
    uint32_t value;

    __builtin_memcpy(&value, data, sizeof(value));
    return value;
}

/* Any size, any alignment, any register; listened to or not. */
static NOINLINE void mmio_read_uncommon(struct vapic *v, uint32_t offset, uint8_t *out, size_t size,
                                        struct vapic_now now)
{
    const struct vapic_reg *row = mmio_row(v, offset & ~15u);
    uint32_t value;

    for (size_t i = 0; i < size; i++)
        out[i] = 0;
    if (row == NULL)
        vapic_lapic_error(v, APIC_ESR_ILLEGAL_REG); /* [SDM3 12.5.3] */
    /* Only the register's own four bytes of its 16-byte slot hold anything. */
    if (row == NULL || !(row->access & VAPIC_X_R) || (offset & 15) + size > 4)
        return;
    value = read_word(v, offset & ~15u, now);
    TRACE(v->vm, APIC, v->index, 0, offset, value, 0);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(value >> 8 * ((offset & 3) + i));
}

static NOINLINE void mmio_read_ones(uint8_t *out, size_t size)
{
    for (size_t i = 0; i < size; i++)
        out[i] = 0xFF;
}

/* A whole register that is read as the page has it. */
static inline bool is_plain_mmio_read(const struct vapic *v, uint32_t offset, size_t size)
{
    const struct vapic_reg *row = mmio_row(v, offset);

    return size == 4 && (offset & 15) == 0 && row != NULL && row->access & VAPIC_X_R &&
           readers[offset >> 4] == NULL && !vapic_traced(v->vm);
}

void vapic_mmio_read(struct vapic *v, uint32_t offset, void *data, size_t size,
                     struct vapic_now now)
{
    v->stats.mmio_reads++;
    if (UNLIKELY(!mmio_live(v)))
        mmio_read_ones(data, size);
    else if (LIKELY(is_plain_mmio_read(v, offset, size)))
        store_le32(data, reg(v, offset));
    else
        mmio_read_uncommon(v, offset, data, size, now);
}

static bool is_id_byte(const struct vapic *v, uint32_t offset, size_t size)
{
    uint32_t slot = offset & ~15u;

    return size == 1 && (offset & 15) == 3 && knob(v->vm, VAPIC_KNOB_BYTE_ID_WRITES) &&
           (slot == APIC_ID || slot == APIC_LDR || slot == APIC_DFR);
}

static uint32_t widened_byte(const struct vapic *v, uint32_t slot, uint8_t byte)
{
    return (reg(v, slot) & 0x00FFFFFF) | (uint32_t)byte << 24;
}

static NOINLINE void mmio_write_uncommon(struct vapic *v, uint32_t offset, uint32_t value,
                                         struct vapic_now now)
{
    const struct vapic_reg *row = mmio_row(v, offset);

    if (row == NULL)
        vapic_lapic_error(v, APIC_ESR_ILLEGAL_REG); /* [SDM3 12.5.3] */
    TRACE(v->vm, APIC, v->index, 1, offset, value, 0);
    if (row != NULL && row->access & VAPIC_X_W)
        write_word(v, offset, value, now);
}

static inline void mmio_write_word(struct vapic *v, uint32_t offset, uint32_t value,
                                   struct vapic_now now)
{
    const struct vapic_reg *row = mmio_row(v, offset);

    if (LIKELY(row != NULL && row->access & VAPIC_X_W && !vapic_traced(v->vm)))
        write_word(v, offset, value, now);
    else
        mmio_write_uncommon(v, offset, value, now);
}

void vapic_mmio_write(struct vapic *v, uint32_t offset, const void *data, size_t size,
                      struct vapic_now now)
{
    uint32_t slot = offset & ~15u;

    v->stats.mmio_writes++;
    if (!mmio_live(v))
        return;
    if (LIKELY(size == 4 && slot == offset))
        mmio_write_word(v, offset, load_le32(data), now);
    else if (is_id_byte(v, offset, size))
        mmio_write_uncommon(v, slot, widened_byte(v, slot, *(const uint8_t *)data), now);
}

/* ---- MSRs [SDM3 12.12.1.2] ---- */

static inline const struct vapic_reg *msr_row(const struct vapic *v, uint32_t msr, uint8_t access)
{
    const struct vapic_reg *row = reg_at((msr - MSR_X2APIC_FIRST) << 4);

    if (UNLIKELY(!in_x2apic(v) || row == NULL || !(row->access & access) || !has_reg(v, row)))
        return NULL;
    return row;
}

static NOINLINE int x2apic_read_uncommon(struct vapic *v, uint32_t offset, uint64_t *value,
                                         struct vapic_now now)
{
    *value = read_word(v, offset, now);
    if (offset == APIC_ICR)
        *value |= (uint64_t)reg(v, vapic_lapic_icr_high_offset(v)) << 32;
    TRACE(v->vm, APIC, v->index, 0 | 2, MSR_X2APIC_FIRST + (offset >> 4), *value, 0);
    return VAPIC_OK;
}

static inline int x2apic_read(struct vapic *v, uint32_t msr, uint64_t *value, struct vapic_now now)
{
    uint32_t offset = (msr - MSR_X2APIC_FIRST) << 4;

    if (UNLIKELY(msr_row(v, msr, VAPIC_X2_R) == NULL))
        return VAPIC_GP;
    if (UNLIKELY(offset == APIC_ICR || readers[offset >> 4] != NULL || vapic_traced(v->vm)))
        return x2apic_read_uncommon(v, offset, value, now);
    *value = reg(v, offset);
    return VAPIC_OK;
}

static uint32_t reserved_bits(const struct vapic *v, const struct vapic_reg *row)
{
    uint32_t reserved = row->reserved;

    switch (row->offset) {
    case APIC_EOI:
        return knob(v->vm, VAPIC_KNOB_STRICT_EOI) ? reserved : 0;
    case APIC_SELF_IPI:
    case APIC_ICR:
        return reserved; /* in both profiles: guests are known to rely on it */
    case APIC_SVR:
        if (!(v->features & VAPIC_FEATURE_EOI_SUPPRESS))
            reserved |= APIC_SVR_EOI_SUPPRESS;
        break;
    case APIC_LVT_TIMER:
        if (!(v->features & VAPIC_FEATURE_TSC_DEADLINE))
            reserved |= APIC_TIMER_DEADLINE;
        break;
    default:
        break;
    }
    return knob(v->vm, VAPIC_KNOB_STRICT_RESERVED) ? reserved : 0;
}

/* Reserved on some vCPUs only, where the row does not say so. */
#define RESERVED_BY_FEATURE (APIC_SVR_EOI_SUPPRESS | APIC_TIMER_DEADLINE)

/* The one 64-bit register; in the page its upper half has a slot of its own. */
static ALWAYS_INLINE int store_and_send(struct vapic *v, uint64_t value, bool traced)
{
    uint32_t icr = (uint32_t)value & ~APIC_ICR_BUSY, dest = (uint32_t)(value >> 32);

    set_reg(v, vapic_lapic_icr_high_offset(v), dest);
    set_reg(v, APIC_ICR, icr);
    if (traced)
        send_ipi(v, icr, dest);
    else
        send_untraced(v, icr, dest);
    return VAPIC_OK;
}

static inline int store_by_msr(struct vapic *v, uint32_t offset, uint64_t value,
                               struct vapic_now now)
{
    if (UNLIKELY(value >> 32 || (offset == APIC_ESR && value != 0)))
        return VAPIC_GP;
    write_word(v, offset, (uint32_t)value, now);
    return VAPIC_OK;
}

/* With a bit that is reserved somewhere (the knobs forgive some), or listened to. */
static NOINLINE int x2apic_write_uncommon(struct vapic *v, uint32_t offset, uint64_t value,
                                          struct vapic_now now)
{
    if ((uint32_t)value & reserved_bits(v, reg_at(offset)))
        return VAPIC_GP;
    TRACE(v->vm, APIC, v->index, 1 | 2, MSR_X2APIC_FIRST + (offset >> 4), value, 0);
    if (offset == APIC_ICR)
        return store_and_send(v, value, true);
    return store_by_msr(v, offset, value, now);
}

static int x2apic_write(struct vapic *v, uint32_t msr, uint64_t value, struct vapic_now now)
{
    uint32_t offset = (msr - MSR_X2APIC_FIRST) << 4;
    const struct vapic_reg *row;

    /* What guests write most by far has no rules but these two. */
    if (offset == APIC_ICR &&
        LIKELY(in_x2apic(v) && !(value & APIC_ICR_X2_RESERVED) && !vapic_traced(v->vm)))
        return store_and_send(v, value, false);
    row = msr_row(v, msr, VAPIC_X2_W);
    if (UNLIKELY(row == NULL))
        return VAPIC_GP;
    if (UNLIKELY(value & (row->reserved | RESERVED_BY_FEATURE) || vapic_traced(v->vm)))
        return x2apic_write_uncommon(v, offset, value, now);
    return store_by_msr(v, offset, value, now);
}

int vapic_msr_read(struct vapic *v, uint32_t msr, uint64_t *value, struct vapic_now now)
{
    v->stats.msr_reads++;
    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
        return x2apic_read(v, msr, value, now);
    if (msr == MSR_TSC_DEADLINE)
        *value = vapic_timer_read_deadline(v);
    else if (msr == MSR_APIC_BASE)
        *value = v->apic_base;
    else
        return VAPIC_UNCLAIMED;
    return VAPIC_OK;
}

int vapic_msr_write(struct vapic *v, uint32_t msr, uint64_t value, struct vapic_now now)
{
    v->stats.msr_writes++;
    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
        return x2apic_write(v, msr, value, now);
    if (msr == MSR_APIC_BASE)
        return vapic_lapic_write_base(v, value);
    if (msr != MSR_TSC_DEADLINE)
        return VAPIC_UNCLAIMED;
    vapic_timer_write_deadline(v, value, now);
    return VAPIC_OK;
}

/* ---- CR8 [SDM3 12.8.6.1] ---- */

uint64_t vapic_read_cr8(const struct vapic *v)
{
    return reg(v, APIC_TPR) >> 4;
}

int vapic_write_cr8(struct vapic *v, uint64_t value)
{
    if (value > 15)
        return VAPIC_GP;
    set_reg(v, APIC_TPR, (uint32_t)value << 4);
    vapic_lapic_update_ppr(v);
    return VAPIC_OK;
}
