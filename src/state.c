/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's state, out and in: the 1 KiB image that KVM_GET_LAPIC exchanges, and a record of what
 * that image lacks. Whatever is loaded may be hostile: it is checked or normalized to something a
 * guest could have brought about itself, and a refused load has changed nothing.
 */
#include "bytes.h"
#include "internal.h"
#include "nested/saved.h"
#include "vapic/pv.h"

/* ---- The image ---- */

static uint32_t image_word(const struct vapic *v, enum vapic_image kind, uint32_t offset,
                           struct vapic_now now)
{
    if (offset == APIC_TMCCT)
        return vapic_timer_current(v, now);
    if (offset == APIC_ID && in_x2apic(v) && kind == VAPIC_IMAGE_ID8)
        return reg(v, APIC_ID) << 24;
    /* The image has it in its xAPIC place, whatever the back end. */
    if (offset == APIC_ICR2)
        return reg(v, vapic_lapic_icr_high_offset(v));
    return reg(v, offset);
}

int vapic_save_image(struct vapic *v, enum vapic_image kind, void *image, size_t size,
                     struct vapic_now now)
{
    uint8_t *out = image;
    const struct vapic_reg *row;

    if (v == NULL || image == NULL)
        return VAPIC_E_ARG;
    if (size != VAPIC_IMAGE_SIZE)
        return VAPIC_E_SIZE;
    if (kind != VAPIC_IMAGE_ID8 && kind != VAPIC_IMAGE_ID32)
        return VAPIC_E_ARG;
    if (UNLIKELY(v->pv != NULL))
        vapic_pv_sync(v);
    if (UNLIKELY(nested_of(v) != NULL))
        vapic_nested_late(v);
    vapic_lapic_harvest(v);
    zero_bytes(out, size);
    for (uint32_t n = 0; (row = vapic_reg_row(n)) != NULL; n++)
        for (uint32_t i = 0; i < row->count && row->offset < VAPIC_IMAGE_SIZE; i++)
            put_le(out + row->offset + 16 * i, image_word(v, kind, row->offset + 16 * i, now), 4);
    return VAPIC_OK;
}

static uint32_t word_at(const uint8_t *image, uint32_t offset)
{
    return (uint32_t)get_le(image + offset, 4);
}

/*
 * The x2APIC ID that an image gives a vCPU in x2APIC mode: its own, or one that was written in
 * xAPIC mode and kept on the switch. The low byte that an ID8 image holds can tell that apart only
 * where the vCPU's own ID has no more.
 */
static uint32_t image_id(const struct vapic *v, const uint8_t *image, enum vapic_image kind)
{
    uint32_t id = word_at(image, APIC_ID);

    if (kind == VAPIC_IMAGE_ID32)
        return id;
    return v->id <= 0xFF && knob(v->vm, VAPIC_KNOB_X2APIC_KEEPS_WRITTEN_ID) ? id >> 24 : v->id;
}

static bool may_have_id(const struct vapic *v, uint32_t id)
{
    return id == v->id || (id <= 0xFF && knob(v->vm, VAPIC_KNOB_X2APIC_KEEPS_WRITTEN_ID));
}

/* Without the knob the LDR of x2APIC mode is still there in xAPIC mode, until the guest writes it.
 */
static uint32_t xapic_ldr(const struct vapic *v, uint32_t ldr)
{
    bool left_over = ldr == LDR_OF_ID(v->id) && v->features & VAPIC_FEATURE_X2APIC &&
                     !knob(v->vm, VAPIC_KNOB_DISABLE_CLEARS_LDR);

    return left_over ? ldr : ldr & 0xFF000000;
}

/* ID, LDR, DFR; in x2APIC mode ID and LDR follow from the vCPU [SDM3 12.12.10.2]. */
static void load_identity(struct vapic *v, const uint8_t *image, enum vapic_image kind)
{
    uint32_t id = image_id(v, image, kind);

    set_reg(v, APIC_DFR, word_at(image, APIC_DFR) | 0x0FFFFFFF);
    if (in_x2apic(v)) {
        set_reg(v, APIC_ID, id);
        set_reg(v, APIC_LDR, LDR_OF_ID(id));
        return;
    }
    set_reg(v, APIC_ID, word_at(image, APIC_ID) & 0xFF000000);
    set_reg(v, APIC_LDR, xapic_ldr(v, word_at(image, APIC_LDR)));
}

static void load_vectors(struct vapic *v, const uint8_t *image)
{
    for (uint32_t i = 0; i < 8; i++) {
        set_reg(v, APIC_ISR + 16 * i, word_at(image, APIC_ISR + 16 * i));
        set_reg(v, APIC_TMR + 16 * i, word_at(image, APIC_TMR + 16 * i));
        set_reg(v, APIC_IRR + 16 * i, word_at(image, APIC_IRR + 16 * i));
    }
}

static void load_lvts(struct vapic *v, const uint8_t *image)
{
    static const uint16_t lvts[] = {APIC_LVT_CMCI,  APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PMC,
                                    APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};

    for (uint32_t i = 0; i < sizeof(lvts) / sizeof(lvts[0]); i++)
        if (has_reg(v, vapic_reg_at(lvts[i]))) {
            set_reg(v, lvts[i], 0);
            set_reg(v, lvts[i], vapic_lapic_lvt_value(v, lvts[i], word_at(image, lvts[i])));
        }
    /* As RESET leaves it, before the guest has software enabled the APIC. (Who was the bootstrap
     * processor then may have given up the bit since.) */
    if (knob(v->vm, VAPIC_KNOB_LINT0_EXTINT) && word_at(image, APIC_LVT_LINT0) == APIC_DM_EXTINT)
        set_reg(v, APIC_LVT_LINT0, APIC_DM_EXTINT);
    /* Only a level-triggered LINT0 has a remote IRR. */
    if ((reg(v, APIC_LVT_LINT0) & (APIC_LVT_LEVEL | APIC_LVT_DM)) == APIC_LVT_LEVEL)
        set_reg(v, APIC_LVT_LINT0,
                reg(v, APIC_LVT_LINT0) | (word_at(image, APIC_LVT_LINT0) & APIC_LVT_RIRR));
}

/* Nothing is sent. A saved busy bit would never go away [SDM3 12.6.1]. */
static void load_icr(struct vapic *v, const uint8_t *image)
{
    uint32_t high = word_at(image, APIC_ICR2);

    set_reg(v, APIC_ICR, word_at(image, APIC_ICR) & ~APIC_ICR_BUSY);
    set_reg(v, vapic_lapic_icr_high_offset(v), in_x2apic(v) ? high : high & 0xFF000000);
}

static void load_registers(struct vapic *v, const uint8_t *image, enum vapic_image kind,
                           struct vapic_now now)
{
    if (UNLIKELY(v->pv != NULL))
        vapic_pv_sync(v);
    /* Bits posted before are part of the old state; later ones come on top of the new. */
    vapic_lapic_harvest(v);
    v->fresh = false; /* what IRR holds from here on was loaded */
    vapic_timer_stop(v);
    /* SVR first: whether the LVTs may be unmasked depends on it. */
    vapic_lapic_load_svr(v, word_at(image, APIC_SVR));
    set_reg(v, APIC_TPR, word_at(image, APIC_TPR) & 0xFF);
    load_identity(v, image, kind);
    load_vectors(v, image);
    load_lvts(v, image);
    load_icr(v, image);
    set_reg(v, APIC_ESR, word_at(image, APIC_ESR) & 0xFF);
    set_reg(v, APIC_TMICT, word_at(image, APIC_TMICT));
    set_reg(v, APIC_TDCR, word_at(image, APIC_TDCR) & 0xB);
    v->esr_latch = 0;
    v->injected_kind = VAPIC_INJECT_NONE;
    v->isr_touched = true;
    vapic_fabric_forget_load(v);
    vapic_lapic_recount(v);
    vapic_timer_restore(v, word_at(image, APIC_TMCCT), now);
}

int vapic_load_image(struct vapic *v, enum vapic_image kind, const void *image, size_t size,
                     struct vapic_now now)
{
    if (v == NULL || image == NULL)
        return VAPIC_E_ARG;
    if (size != VAPIC_IMAGE_SIZE)
        return VAPIC_E_SIZE;
    if (kind != VAPIC_IMAGE_ID8 && kind != VAPIC_IMAGE_ID32)
        return VAPIC_E_ARG;
    if (in_x2apic(v) && !may_have_id(v, image_id(v, image, kind)))
        return VAPIC_E_ID;
    load_registers(v, image, kind, now);
    if (v->index != VAPIC_NO_INDEX)
        vapic_fabric_update(v);
    return VAPIC_OK;
}

/* ---- The record ---- */

/*
 * Offsets in both versions. Version 2 has the nested part behind the end of version 1, and is for
 * vCPUs that run L2; of others nothing is saved that version 1 does not have. What follows up to
 * VAPIC_RECORD_SIZE is zero.
 */
#define RECORD_MAGIC_VALUE    0x52504156u /* "VAPR" */
#define RECORD_VERSION_PLAIN  1u
#define RECORD_VERSION_NESTED 2u
enum record {
    RECORD_MAGIC = 0,
    RECORD_VERSION = 4,
    RECORD_LENGTH = 6,
    RECORD_BASE = 8,
    RECORD_WHEN = 16,  /* guest TSC of the deadline, or nanoseconds that remain */
    RECORD_CLOCK = 24, /* enum vapic_clock */
    RECORD_TIMER = 25, /* timer flags */
    RECORD_ACTIVITY = 26,
    RECORD_ESR_LATCH = 27,
    RECORD_INJECT = 28, /* enum vapic_inject: acknowledged and not yet known to be taken */
    RECORD_VECTOR = 29,
    RECORD_EVENTS = 32,
    RECORD_EXT = 40, /* AMD: EACR, SEOI, IER0-7, EILVT0-3 */
    RECORD_END = RECORD_EXT + 4 * 14,
    RECORD_NESTED = RECORD_END,
    RECORD_NESTED_END = RECORD_NESTED + NESTED_SAVED_SIZE,
};

_Static_assert(RECORD_NESTED_END <= VAPIC_RECORD_SIZE, "the record fits its documented size");

#define SAVED_EVENTS                                                                               \
    (EV_INIT | EV_SIPI | EV_SIPI_VECTOR | EV_NMI | EV_SMI | EV_LINE0 | EV_LINE1 | EV_EDGE0 |       \
     EV_EDGE1 | EV_LOCAL | EV_REMOTE)

static const uint16_t ext_regs[14] = {
    APIC_EACR,       APIC_SEOI,         APIC_IER,          APIC_IER + 0x10,   APIC_IER + 0x20,
    APIC_IER + 0x30, APIC_IER + 0x40,   APIC_IER + 0x50,   APIC_IER + 0x60,   APIC_IER + 0x70,
    APIC_EILVT,      APIC_EILVT + 0x10, APIC_EILVT + 0x20, APIC_EILVT + 0x30,
};

static uint64_t saved_when(const struct vapic *v, struct vapic_now now)
{
    struct vapic_deadline d = vapic_timer_deadline(v);

    if (d.clock == VAPIC_CLOCK_NS)
        return d.when > now.ns ? d.when - now.ns : 0;
    /* A remembered tick of the deadline mode shows its deadline until it is delivered. */
    return v->timer_when;
}

/* A vector whose end needs no EOI is never in service. */
static bool is_auto_eoi(const struct vapic *v, uint8_t vector)
{
    return v->pv != NULL && v->pv->auto_eoi[vector >> 6] >> (vector & 63) & 1;
}

/* What was acknowledged and may have to be injected again: not a vector that has ended since. */
static enum vapic_inject outstanding(const struct vapic *v)
{
    bool ended = v->injected_kind == VAPIC_INJECT_VECTOR && !vector_bit(v, APIC_ISR, v->injected) &&
                 !is_auto_eoi(v, v->injected);

    return ended ? VAPIC_INJECT_NONE : (enum vapic_inject)v->injected_kind;
}

int vapic_save_record(struct vapic *v, void *record, size_t size, struct vapic_now now)
{
    uint8_t *out = record;
    bool nested;

    if (v == NULL || record == NULL)
        return VAPIC_E_ARG;
    if (size < VAPIC_RECORD_SIZE)
        return VAPIC_E_SIZE;
    zero_bytes(out, size);
    put_le(out + RECORD_MAGIC, RECORD_MAGIC_VALUE, 4);
    nested = vapic_nested_save(v, out + RECORD_NESTED);
    put_le(out + RECORD_VERSION, nested ? RECORD_VERSION_NESTED : RECORD_VERSION_PLAIN, 2);
    put_le(out + RECORD_LENGTH, nested ? RECORD_NESTED_END : RECORD_END, 2);
    put_le(out + RECORD_BASE, v->apic_base, 8);
    put_le(out + RECORD_WHEN, saved_when(v, now), 8);
    put_le(out + RECORD_CLOCK, vapic_timer_deadline(v).clock, 1);
    put_le(out + RECORD_TIMER, v->timer_flags, 1);
    put_le(out + RECORD_ACTIVITY, v->activity, 1);
    put_le(out + RECORD_ESR_LATCH, v->esr_latch, 1);
    put_le(out + RECORD_INJECT, outstanding(v), 1);
    put_le(out + RECORD_VECTOR, v->injected, 1);
    put_le(out + RECORD_EVENTS, vapic_load32(&v->events, VAPIC_ACQUIRE) & SAVED_EVENTS, 4);
    for (uint32_t i = 0; i < 14; i++)
        put_le(out + RECORD_EXT + 4 * i, reg(v, ext_regs[i]), 4);
    return VAPIC_OK;
}

static bool all_zero(const uint8_t *in, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (in[i] != 0)
            return false;
    return true;
}

/* Bytes without a meaning yet: a later version may give them one, and then says so by its number.
 */
static bool unused_are_zero(const uint8_t *in, size_t end, size_t size)
{
    return all_zero(in, RECORD_VECTOR + 1, RECORD_EVENTS) &&
           all_zero(in, RECORD_EVENTS + 4, RECORD_EXT) && all_zero(in, end, size);
}

static bool is_nested(const uint8_t *in)
{
    return get_le(in + RECORD_VERSION, 2) == RECORD_VERSION_NESTED;
}

static int check_header(const uint8_t *in, size_t size)
{
    size_t end;

    if (size < RECORD_END)
        return VAPIC_E_SIZE;
    if (get_le(in + RECORD_MAGIC, 4) != RECORD_MAGIC_VALUE)
        return VAPIC_E_FORMAT;
    if (get_le(in + RECORD_VERSION, 2) > RECORD_VERSION_NESTED)
        return VAPIC_E_VERSION;
    end = is_nested(in) ? RECORD_NESTED_END : RECORD_END;
    if (size < end)
        return VAPIC_E_SIZE;
    if (get_le(in + RECORD_VERSION, 2) == 0 || get_le(in + RECORD_LENGTH, 2) != end ||
        !unused_are_zero(in, end, size))
        return VAPIC_E_FORMAT;
    return VAPIC_OK;
}

/* A vector that was acknowledged is in service, or it could never be ended. */
static bool injected_plausible(const struct vapic *v, const uint8_t *in)
{
    uint8_t kind = in[RECORD_INJECT];

    if (kind == VAPIC_INJECT_VECTOR)
        return in[RECORD_VECTOR] >= APIC_FIRST_VECTOR &&
               (vector_bit(v, APIC_ISR, in[RECORD_VECTOR]) || is_auto_eoi(v, in[RECORD_VECTOR]));
    return kind <= VAPIC_INJECT_SMI;
}

/* The clock of an armed timer must be the one of the mode that the image has set. */
static bool timer_plausible(const struct vapic *v, const uint8_t *in)
{
    uint32_t mode = reg(v, APIC_LVT_TIMER) & APIC_LVT_TIMER_MODE;

    if (in[RECORD_TIMER] & ~VAPIC_TIMER_FLAGS)
        return false;
    if (in[RECORD_CLOCK] == VAPIC_CLOCK_NONE)
        return !(in[RECORD_TIMER] & VAPIC_TIMER_ARMED);
    if (!(in[RECORD_TIMER] & VAPIC_TIMER_ARMED))
        return false;
    if (in[RECORD_CLOCK] == VAPIC_CLOCK_TSC)
        return mode == APIC_TIMER_DEADLINE;
    return in[RECORD_CLOCK] == VAPIC_CLOCK_NS && reg(v, APIC_TMICT) != 0 &&
           (mode == APIC_TIMER_ONESHOT || mode == APIC_TIMER_PERIODIC);
}

/* A SIPI vector without a SIPI, three NMIs: no sender can do that. */
static bool events_plausible(uint32_t events)
{
    if (events & EV_SIPI_VECTOR && !(events & EV_SIPI))
        return false;
    return !(events & ~SAVED_EVENTS) && (events & EV_NMI) != EV_NMI;
}

/* Neither RESET nor INIT makes the bootstrap processor wait. */
static bool activity_plausible(const struct vapic *v, uint8_t activity)
{
    if (activity == VAPIC_WAIT_FOR_SIPI || activity == VAPIC_UNINITIALIZED)
        return !(v->apic_base & APIC_BASE_BSP);
    return activity <= VAPIC_UNINITIALIZED;
}

static int check_record(const struct vapic *v, const uint8_t *in, size_t size)
{
    int result = check_header(in, size);

    if (result != VAPIC_OK)
        return result;
    if (get_le(in + RECORD_BASE, 8) != v->apic_base)
        return VAPIC_E_BASE;
    if (!events_plausible((uint32_t)get_le(in + RECORD_EVENTS, 4)) ||
        !activity_plausible(v, in[RECORD_ACTIVITY]) || !injected_plausible(v, in) ||
        !timer_plausible(v, in))
        return VAPIC_E_FORMAT;
    return VAPIC_OK;
}

static void load_ext(struct vapic *v, const uint8_t *in)
{
    for (uint32_t i = 0; i < 14; i++) {
        const struct vapic_reg *row = vapic_reg_at(ext_regs[i]);

        if (has_reg(v, row))
            set_reg(v, ext_regs[i], (uint32_t)get_le(in + RECORD_EXT + 4 * i, 4) & row->writable);
    }
}

int vapic_load_record(struct vapic *v, const void *record, size_t size, struct vapic_now now,
                      struct vapic_entry *entry)
{
    const uint8_t *in = record;
    int result;

    if (v == NULL || record == NULL)
        return VAPIC_E_ARG;
    /* Somebody has to say first that it runs L1. */
    if (nested_of(v) != NULL && vapic_nested_state(v) != VAPIC_NESTED_L1)
        return VAPIC_E_BUSY;
    result = check_record(v, in, size);
    /* The last that can fail. */
    if (result == VAPIC_OK && is_nested(in))
        result = vapic_nested_load_saved(v, in + RECORD_NESTED);
    if (result != VAPIC_OK)
        return result;
    if (UNLIKELY(v->pv != NULL))
        vapic_pv_sync(v);
    v->activity = in[RECORD_ACTIVITY];
    v->esr_latch = in[RECORD_ESR_LATCH];
    v->injected_kind = in[RECORD_INJECT];
    v->injected = in[RECORD_VECTOR];
    load_ext(v, in);
    vapic_store32(&v->events, (uint32_t)get_le(in + RECORD_EVENTS, 4), VAPIC_SEQ_CST);
    /* Somebody has to look at them. */
    vapic_or64(&v->pid.control, PID_ON, VAPIC_SEQ_CST);
    vapic_timer_load(v, in[RECORD_TIMER], get_le(in + RECORD_WHEN, 8), now);
    if (entry != NULL) {
        *entry = (struct vapic_entry){0};
        entry->inject = (enum vapic_inject)v->injected_kind;
        entry->vector = v->injected;
    }
    return VAPIC_OK;
}
