/* SPDX-License-Identifier: MIT */
/*
 * State of interrupt controllers, in a form that both libvapic's and KVM's take, and the
 * conversions. No system call and no lock here: irqchip_state.c reads and writes the controllers,
 * switch.c moves a whole machine. docs/interchange.md says what each side can hold.
 */
#ifndef VMM_INTERCHANGE_H
#define VMM_INTERCHANGE_H

#include <linux/kvm.h>
#include <stdint.h>

#include "dev_pic.h"
#include "layout.h"
#include "vapic/vapic.h"

/* A local APIC, at the time `saved_ns` of the monotonic clock. */
struct vmm_apic_state {
    uint64_t saved_ns;
    uint64_t base;     /* IA32_APIC_BASE */
    uint64_t deadline; /* IA32_TSC_DEADLINE */
    uint64_t pv_eoi;   /* KVM's PV EOI MSR */
    enum vapic_activity activity;
    uint8_t image[VAPIC_IMAGE_SIZE]; /* VAPIC_IMAGE_ID8 */
};

struct vmm_ioapic_state {
    uint32_t id;     /* register 0 */
    uint32_t select; /* IOREGSEL */
    uint64_t entry[VMM_IOAPIC_PINS];
};

/*
 * Lets the time since the save pass for the timer that counts: what would have ended meanwhile ends
 * at once. `bus_ns` is the APIC's bus cycle.
 */
void vmm_apic_state_age(struct vmm_apic_state *state, uint32_t bus_ns, uint64_t now_ns);

/* The timer's current count, and whether it is one that counts (and not TSC-deadline mode). */
uint32_t vmm_apic_state_count(const struct vmm_apic_state *state);
void vmm_apic_state_set_count(struct vmm_apic_state *state, uint32_t count);
bool vmm_apic_state_counts(const struct vmm_apic_state *state);

/*
 * Is it a one-shot timer that has ended, its interrupt delivered or, under mask, lost? Whoever
 * saved the state made sure that a count of 0 means that; both models take it for an interrupt that
 * is still to come.
 */
bool vmm_apic_state_ended(const struct vmm_apic_state *state);

/*
 * Of two images, between which everything that was due before the first was flushed: has the later
 * one every interrupt of the timer? Not if the timer expired in between. After a few tries that
 * does for a periodic timer: one so quick misses periods in the switch anyway, and the next comes.
 */
bool vmm_apic_state_settled(const struct vmm_apic_state *before, const struct vmm_apic_state *after,
                            unsigned tries);

/* The initial count becomes 0 too, which stops the timer in any model. */
void vmm_apic_state_stop(struct vmm_apic_state *state);

/* KVM_MP_STATE_ and what a vCPU of libvapic's does. */
uint32_t vmm_mp_state_of(enum vapic_activity activity);
enum vapic_activity vmm_activity_of(uint32_t mp_state);

/* `wires`: bit n is the level of wire n. */
void vmm_ioapic_to_kernel(const struct vmm_ioapic_state *from, uint32_t wires,
                          struct kvm_ioapic_state *to);
void vmm_ioapic_from_kernel(const struct kvm_ioapic_state *from, struct vmm_ioapic_state *to);

/* One 8259A. The chip's wiring (lines, cascade, which inputs may be level-triggered) stays. */
void vmm_pic_to_kernel(const struct vmm_pic_chip *from, struct kvm_pic_state *to);
void vmm_pic_from_kernel(const struct kvm_pic_state *from, struct vmm_pic_chip *to);

#endif
