/* SPDX-License-Identifier: MIT */
/*
 * Who must receive a message, decided target by target from the rules of the manuals and without
 * any map: what the library's map has to agree with. [SDM3 12.6.2] [SDM3 12.12.10]
 *
 * It looks at the guest-visible registers of each vCPU and at the knobs of its VM. The UNIQUE_ID
 * policy depends on the other vCPUs too and is not modelled here.
 */
#ifndef VAPIC_TESTS_REFERENCE_H
#define VAPIC_TESTS_REFERENCE_H

#include "fixture.h"

/* A guest's or a device's message. */
struct ref_msg {
    uint32_t dest;
    bool logical;
    bool device;
};

static inline bool ref_x2apic(const struct fx *fx, uint32_t n)
{
    return (vapic_base(&fx->v[n]) & APIC_BASE_EXTD) != 0;
}

static inline bool ref_enabled(const struct fx *fx, uint32_t n)
{
    return (vapic_base(&fx->v[n]) & APIC_BASE_EN) != 0;
}

static inline bool ref_knob(const struct fx *fx, uint32_t knob)
{
    return (fx->vm.knobs & knob) != 0;
}

/* Everybody of the target's kind? [SDM3 12.6.2.1] [SDM3 12.12.9] */
static inline bool ref_broadcast(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    if (!ref_x2apic(fx, n))
        return msg.dest == 0xFF;
    if (msg.dest == 0xFFFFFFFF)
        return true;
    return msg.dest == 0xFF && msg.device && ref_knob(fx, VAPIC_KNOB_DEVICE_BROADCAST_FF);
}

static inline bool ref_physical(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    uint32_t id = vapic_id(&fx->v[n]);
    uint32_t xid;

    if (ref_x2apic(fx, n))
        return msg.dest == id;
    xid = fx_read(fx, n, APIC_ID) >> 24;
    if (msg.dest <= 0xFF)
        return msg.dest == xid;
    if (msg.dest == 0xFFFFFFFF)
        return false;
    if (ref_knob(fx, VAPIC_KNOB_X2APIC_ALIASES_XAPIC) && (msg.dest & 0xFF) == xid)
        return true;
    return ref_knob(fx, VAPIC_KNOB_WIDE_XAPIC) && msg.dest == id;
}

/* [SDM3 12.6.2.2] [SDM3 12.12.10.1]; of a wide destination an xAPIC sees the low byte */
static inline bool ref_logical(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    uint32_t dest = msg.dest, ldr, dfr;

    if (ref_x2apic(fx, n)) {
        ldr = fx_get(fx, n, APIC_LDR);
        return dest >> 16 == ldr >> 16 && (dest & ldr & 0xFFFF) != 0;
    }
    ldr = fx_read(fx, n, APIC_LDR) >> 24;
    dfr = fx_read(fx, n, APIC_DFR);
    if (dfr == APIC_DFR_FLAT)
        return (ldr & dest & 0xFF) != 0;
    if (dfr == APIC_DFR_CLUSTER)
        return (dest & 0xF0) == (ldr & 0xF0) && (dest & ldr & 0xF) != 0;
    return false;
}

static inline bool ref_matches(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    if (!ref_enabled(fx, n))
        return false;
    if (ref_broadcast(fx, n, msg))
        return true;
    return msg.logical ? ref_logical(fx, n, msg) : ref_physical(fx, n, msg);
}

/* A fixed interrupt is taken by whoever matches and is software enabled. */
static inline bool ref_takes_fixed(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    return ref_matches(fx, n, msg) && (fx_get(fx, n, APIC_SVR) & APIC_SVR_ENABLE) != 0;
}

/* The message as the library takes it; from a device or from nobody in particular. */
static inline struct vapic_msg ref_message(struct ref_msg msg, uint32_t sender, uint32_t icr)
{
    return (struct vapic_msg){
        .icr = icr | (msg.logical ? APIC_ICR_LOGICAL : 0),
        .dest = msg.dest,
        .source = msg.device ? VAPIC_FROM_DEVICE : sender,
    };
}

/* Small, fast, the same everywhere: tests with random input must be repeatable. */
static inline uint32_t ref_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
