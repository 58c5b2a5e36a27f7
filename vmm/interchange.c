/* SPDX-License-Identifier: MIT */
/* Conversions between libvapic's controllers and KVM's; see interchange.h. */
#include "interchange.h"

#include <string.h>

#include "vapic/arch/ioapic.h"

#define CASCADE_BIT    0x04u
#define IOAPIC_PIT     2u

#define PERIODIC_TRIES 8u /* with which a period of several milliseconds is saved exactly */

/* ---- The local APIC's timer ---- */

static uint32_t get_register(const struct vmm_apic_state *state, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, state->image + offset, sizeof(value));
    return value;
}

static void put_register(struct vmm_apic_state *state, uint32_t offset, uint32_t value)
{
    memcpy(state->image + offset, &value, sizeof(value));
}

uint32_t vmm_apic_state_count(const struct vmm_apic_state *state)
{
    return get_register(state, APIC_TMCCT);
}

void vmm_apic_state_set_count(struct vmm_apic_state *state, uint32_t count)
{
    put_register(state, APIC_TMCCT, count);
}

bool vmm_apic_state_counts(const struct vmm_apic_state *state)
{
    uint32_t mode = get_register(state, APIC_LVT_TIMER) & APIC_LVT_TIMER_MODE;

    return (mode == APIC_TIMER_ONESHOT || mode == APIC_TIMER_PERIODIC) &&
           get_register(state, APIC_TMICT) != 0;
}

/* Code 111b divides by 1, the others by 2 << code [SDM3 F12-10]. */
static uint32_t divisor(const struct vmm_apic_state *state)
{
    uint32_t tdcr = get_register(state, APIC_TDCR);
    uint32_t code = (tdcr & 3) | (tdcr >> 1 & 4);

    return code == 7 ? 1 : 2u << code;
}

void vmm_apic_state_age(struct vmm_apic_state *state, uint32_t bus_ns, uint64_t now_ns)
{
    uint64_t passed = (now_ns - state->saved_ns) / ((uint64_t)bus_ns * divisor(state));
    uint32_t count = get_register(state, APIC_TMCCT);

    state->saved_ns = now_ns;
    if (vmm_apic_state_counts(state) && count != 0) {
        put_register(state, APIC_TMCCT, passed < count ? count - (uint32_t)passed : 1);
    }
}

bool vmm_apic_state_ended(const struct vmm_apic_state *state)
{
    uint32_t mode = get_register(state, APIC_LVT_TIMER) & APIC_LVT_TIMER_MODE;

    return vmm_apic_state_counts(state) && mode == APIC_TIMER_ONESHOT &&
           get_register(state, APIC_TMCCT) == 0;
}

static bool expired_between(const struct vmm_apic_state *a, const struct vmm_apic_state *b)
{
    uint32_t before = vmm_apic_state_count(a);
    uint32_t after = vmm_apic_state_count(b);

    return vmm_apic_state_counts(b) && (after > before || (after == 0 && before != 0));
}

bool vmm_apic_state_settled(const struct vmm_apic_state *before, const struct vmm_apic_state *after,
                            unsigned tries)
{
    uint32_t mode = get_register(after, APIC_LVT_TIMER) & APIC_LVT_TIMER_MODE;

    return !expired_between(before, after) ||
           (mode == APIC_TIMER_PERIODIC && tries >= PERIODIC_TRIES);
}

void vmm_apic_state_stop(struct vmm_apic_state *state)
{
    put_register(state, APIC_TMICT, 0);
}

/* ---- What a processor does ---- */

static const struct {
    enum vapic_activity activity;
    uint32_t mp_state;
} activities[] = {
    {VAPIC_RUNNING, KVM_MP_STATE_RUNNABLE},
    {VAPIC_HALTED, KVM_MP_STATE_HALTED},
    {VAPIC_WAIT_FOR_SIPI, KVM_MP_STATE_INIT_RECEIVED},
    {VAPIC_UNINITIALIZED, KVM_MP_STATE_UNINITIALIZED},
};

#define ACTIVITIES (sizeof(activities) / sizeof(activities[0]))

uint32_t vmm_mp_state_of(enum vapic_activity activity)
{
    for (size_t i = 0; i < ACTIVITIES; i++) {
        if (activities[i].activity == activity) {
            return activities[i].mp_state;
        }
    }
    return KVM_MP_STATE_RUNNABLE;
}

enum vapic_activity vmm_activity_of(uint32_t mp_state)
{
    for (size_t i = 0; i < ACTIVITIES; i++) {
        if (activities[i].mp_state == mp_state) {
            return activities[i].activity;
        }
    }
    return VAPIC_RUNNING;
}

/* ---- The I/O APIC ---- */

static bool pin_is_high(uint32_t wires, unsigned pin)
{
    unsigned wire = pin == IOAPIC_PIT ? 0 : pin;

    return (pin != 0 && (wires >> wire & 1)) != 0;
}

/* KVM keeps, beside the entries, which level-triggered pins are high. */
void vmm_ioapic_to_kernel(const struct vmm_ioapic_state *from, uint32_t wires,
                          struct kvm_ioapic_state *to)
{
    *to = (struct kvm_ioapic_state){
        .base_address = VMM_IOAPIC_BASE,
        .ioregsel = from->select,
        .id = from->id >> 24,
    };
    for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
        to->redirtbl[pin].bits = from->entry[pin] & ~(uint64_t)IOAPIC_RTE_DS;
        if ((from->entry[pin] & IOAPIC_RTE_LEVEL) && pin_is_high(wires, pin)) {
            to->irr |= 1u << pin;
        }
    }
}

/*
 * Its record of high lines is left: the devices know theirs. An edge on a masked pin, which it
 * shows there too, has no effect in either model.
 */
void vmm_ioapic_from_kernel(const struct kvm_ioapic_state *from, struct vmm_ioapic_state *to)
{
    to->id = (from->id << 24) & IOAPIC_ID_MASK;
    to->select = from->ioregsel & 0xff;
    for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
        to->entry[pin] = from->redirtbl[pin].bits & ~(uint64_t)IOAPIC_RTE_DS;
    }
}

/* ---- The 8259A ---- */

void vmm_pic_to_kernel(const struct vmm_pic_chip *from, struct kvm_pic_state *to)
{
    *to = (struct kvm_pic_state){
        .last_irr = from->lines,
        .irr = (uint8_t)(from->latched | (from->lines & from->elcr) |
                         (from->slave_asks ? CASCADE_BIT : 0)),
        .imr = from->imr,
        .isr = from->isr,
        .priority_add = from->top,
        .irq_base = from->vector_base,
        .read_reg_select = from->read_isr,
        .poll = from->poll,
        .special_mask = from->special_mask,
        .init_state = from->init_next != 0 ? from->init_next - 1 : 0,
        .auto_eoi = from->auto_eoi,
        .rotate_on_auto_eoi = from->rotate_on_auto_eoi,
        .special_fully_nested_mode = from->special_nested,
        .init4 = from->want_icw4,
        .elcr = from->elcr,
        .elcr_mask = from->elcr_mask,
    };
}

void vmm_pic_from_kernel(const struct kvm_pic_state *from, struct vmm_pic_chip *to)
{
    uint8_t cascade = to->has_slave ? CASCADE_BIT : 0;

    to->elcr = from->elcr & to->elcr_mask;
    to->latched = from->irr & (uint8_t) ~(to->elcr | cascade);
    to->isr = from->isr;
    to->imr = from->imr;
    to->vector_base = from->irq_base & 0xf8;
    to->top = from->priority_add & 7;
    to->init_next = from->init_state != 0 ? (from->init_state & 3) + 1 : 0;
    to->want_icw4 = from->init4 != 0;
    to->single = false;
    to->auto_eoi = from->auto_eoi != 0;
    to->rotate_on_auto_eoi = from->rotate_on_auto_eoi != 0;
    to->special_mask = from->special_mask != 0;
    to->special_nested = from->special_fully_nested_mode != 0;
    to->read_isr = from->read_reg_select != 0;
    to->poll = from->poll != 0;
}
