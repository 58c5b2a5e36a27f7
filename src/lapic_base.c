/* SPDX-License-Identifier: MIT */
/*
 * IA32_APIC_BASE: the state machine disabled / xAPIC / x2APIC [SDM3 12.4.3] [SDM3 12.12.5], and
 * what each transition does to the registers whose format depends on the mode.
 *
 * The identity registers are rewritten first, for the mode that is being entered, and the
 * destination map is rebuilt last, so that no sender sees an ID in the format of the old mode.
 */
#include "internal.h"

enum mode {
    MODE_DISABLED,
    MODE_INVALID, /* EXTD without EN */
    MODE_XAPIC,
    MODE_X2APIC,
};

static enum mode mode_of(uint64_t base)
{
    return (enum mode)((base & APIC_BASE_EN ? 2 : 0) | (base & APIC_BASE_EXTD ? 1 : 0));
}

/* [SDM3 F12-27]: what a guest's WRMSR may do; rows from, columns to. */
static const bool guest_may[4][4] = {
    [MODE_DISABLED] = {[MODE_DISABLED] = true, [MODE_XAPIC] = true},
    [MODE_XAPIC] = {[MODE_DISABLED] = true, [MODE_XAPIC] = true, [MODE_X2APIC] = true},
    [MODE_X2APIC] = {[MODE_DISABLED] = true, [MODE_X2APIC] = true},
};

static bool base_legal(const struct vapic *v, uint64_t value)
{
    uint64_t reserved = APIC_BASE_LOW_RESERVED | ~((UINT64_C(1) << v->phys_bits) - 1);

    if (!(v->features & VAPIC_FEATURE_X2APIC))
        reserved |= APIC_BASE_EXTD;
    return (value & reserved) == 0 && mode_of(value) != MODE_INVALID;
}

static void enter_x2apic(struct vapic *v, enum mode from)
{
    uint32_t id = v->id;

    /* AMD keeps an ID that was written in xAPIC mode, Intel does not [APM2 16.10] [SDM3 12.12.5].
     */
    if (from == MODE_XAPIC && knob(v->vm, VAPIC_KNOB_X2APIC_KEEPS_WRITTEN_ID) &&
        reg(v, APIC_ID) >> 24 != (id & 0xFF))
        id = reg(v, APIC_ID) >> 24;
    set_reg(v, APIC_ID, id);
    set_reg(v, APIC_LDR, LDR_OF_ID(id));
    /* While the mode is still the old one; APICv keeps the new one's upper half elsewhere. */
    set_reg(v, APIC_ICR2, 0);
    if (UNLIKELY(v->vm->post == POST_SPLIT))
        set_reg(v, APIC_ICR + 4, 0);
}

static void enter_xapic(struct vapic *v)
{
    set_reg(v, APIC_ID, (v->id & 0xFF) << 24);
    set_reg(v, APIC_ICR2, reg(v, APIC_ICR2) & 0xFF000000);
    if (UNLIKELY(v->vm->post == POST_SPLIT))
        set_reg(v, APIC_ICR + 4, 0); /* upper halves of xAPIC slots read as zero */
    if (knob(v->vm, VAPIC_KNOB_DISABLE_CLEARS_LDR))
        set_reg(v, APIC_LDR, 0);
}

/* APICv keeps the upper half of the ICR elsewhere in x2APIC mode: what is left shows in xAPIC mode
 * as it does by software. While the mode is still the old one. */
static void leave_x2apic(struct vapic *v)
{
    set_reg(v, APIC_ICR2, reg(v, vapic_lapic_icr_high_offset(v)));
}

static void change_mode(struct vapic *v, enum mode from, enum mode to)
{
    if (from == MODE_X2APIC)
        leave_x2apic(v);
    if (to == MODE_X2APIC)
        enter_x2apic(v, from);
    else if (to == MODE_XAPIC)
        enter_xapic(v);
    else if (knob(v->vm, VAPIC_KNOB_DISABLE_STOPS_TIMER))
        vapic_timer_stop(v);
}

/* The hardware has one mapping, at the default address, for all vCPUs. */
static void note_page(struct vapic *v)
{
    uint64_t page = v->apic_base & ~(uint64_t)(APIC_BASE_LOW_RESERVED | APIC_BASE_EN |
                                               APIC_BASE_EXTD | APIC_BASE_BSP);

    if (apic_enabled(v) && page != APIC_DEFAULT_BASE)
        vapic_set_inhibit(v->vm, VAPIC_INHIBIT_APIC_BASE_MODIFIED, true);
}

static void apply_base(struct vapic *v, uint64_t value)
{
    enum mode from = mode_of(v->apic_base), to = mode_of(value);

    TRACE(v->vm, BASE, v->index, v->id, v->apic_base, value, 0);
    if (from != to)
        change_mode(v, from, to);
    v->apic_base = value;
    if (v->index != VAPIC_NO_INDEX)
        vapic_fabric_update(v);
    if (UNLIKELY(v->accel != NULL))
        note_page(v);
}

int vapic_lapic_write_base(struct vapic *v, uint64_t value)
{
    /* The BSP flag says who came out of RESET as bootstrap processor; a guest cannot change that.
     */
    if (!knob(v->vm, VAPIC_KNOB_BSP_WRITABLE))
        value = (value & ~(uint64_t)APIC_BASE_BSP) | (v->apic_base & APIC_BASE_BSP);
    if (value == v->apic_base)
        return VAPIC_OK;
    if (!base_legal(v, value) || !guest_may[mode_of(v->apic_base)][mode_of(value)])
        return VAPIC_GP;
    apply_base(v, value);
    return VAPIC_OK;
}

int vapic_load_base(struct vapic *v, uint64_t value)
{
    if (value == v->apic_base)
        return VAPIC_OK;
    if (!base_legal(v, value))
        return VAPIC_E_BASE;
    apply_base(v, value);
    return VAPIC_OK;
}
