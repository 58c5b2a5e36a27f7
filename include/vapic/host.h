/* SPDX-License-Identifier: MIT */
/*
 * What a hypervisor provides to libvapic: one table of callbacks, the same for every vCPU of a VM.
 *
 * A callback marked optional may be NULL; the library then behaves as its text says. `ctx` is the
 * pointer given to vapic_vm_init(). No callback is ever called with a library-internal lock held
 * (there is none); the ones that run under the host's own configuration lock say so.
 */
#ifndef VAPIC_HOST_H
#define VAPIC_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vapic;
struct vapic_ioapic;

/* What the caller of a posting function has to do for the target, see vapic_post(). */
enum vapic_action {
    VAPIC_ACTION_NONE, /* the target's own thread looks before it next enters the guest */
    VAPIC_ACTION_KICK, /* the target may be in the guest: make it exit */
    VAPIC_ACTION_WAKE, /* the target's thread sleeps after vapic_block(): wake it */
};

/* A moment, as the host knows it. */
struct vapic_now {
    uint64_t ns;  /* a clock that never steps back; any origin, the same for all vCPUs of the VM */
    uint64_t tsc; /* this vCPU's guest TSC at the same moment; 0 where the host offers none */
};

/* When a vCPU's timer wants attention. */
enum vapic_clock {
    VAPIC_CLOCK_NONE, /* not armed */
    VAPIC_CLOCK_NS,   /* `when` is on vapic_now.ns */
    VAPIC_CLOCK_TSC,  /* `when` is on vapic_now.tsc */
};

struct vapic_deadline {
    enum vapic_clock clock;
    uint64_t when;
};

struct vapic_host {
    size_t size; /* sizeof(struct vapic_host), as the host was compiled with it */

    /*
     * The VM's configuration lock. Taken for changes that rewrite the destination map: adding and
     * removing vCPUs, guest writes of APIC_BASE, ID, LDR, DFR, the enable bit of SVR, INIT, state
     * loads, routes. Never taken on delivery, EOI or entry without such a change of one's own, but
     * for one last resort: a level-triggered pin whose target keeps changing under its message.
     * Not recursive. May wait.
     */
    void (*lock)(void *ctx);
    void (*unlock)(void *ctx);

    /*
     * Returns after every library call that was in progress on another thread when quiesce() was
     * called has finished (for instance: an RCU grace period, or a handshake with every thread that
     * calls the library). Called by vapic_remove(), without the configuration lock. May wait.
     */
    void (*quiesce)(void *ctx);

    /*
     * Do `action` (KICK or WAKE, never NONE) for `target`. Called on the sender's thread, once per
     * target and after that target's state is committed, for messages that a guest's register write
     * or an I/O APIC pin sends and for messages with several targets. Must not wait, must not take
     * the configuration lock (which is held when a pin had no other way to find a target at rest),
     * and must not call back into the library for the *sending* vCPU.
     */
    void (*notify)(void *ctx, struct vapic *target, enum vapic_action action);

    /*
     * The timer of `v` now wants attention at `deadline` (an earlier request is replaced;
     * VAPIC_CLOCK_NONE cancels). When the time comes call vapic_timer_expired() from any thread, or
     * vapic_enter() on the vCPU's thread. Runs on the vCPU's own thread. Must not wait. Optional: a
     * host that computes its sleeping and preemption times from vapic_entry.deadline needs no call.
     */
    void (*arm)(void *ctx, struct vapic *v, struct vapic_deadline deadline);

    /*
     * The guest ended a level-triggered interrupt (TMR bit set) on `v` and the EOI was not
     * suppressed by SVR bit 12. For hosts that keep an I/O APIC of their own. Called once per EOI,
     * on the vCPU's thread, after the library's own I/O APICs have seen it. Optional.
     */
    void (*eoi)(void *ctx, struct vapic *v, uint8_t vector);

    /*
     * Acknowledge notifier: an EOI arrived for a pin or route whose GSI asked for it, see
     * vapic_gsi_watch(). With VAPIC_GSI_RESAMPLE the line (of the source named there) has been
     * lowered already; raise it again with vapic_gsi_set() if the device still wants service. Runs
     * on the vCPU's thread before re-delivery is considered. With VAPIC_GSI_RESAMPLE it is also
     * called when the guest unmasks a pin that only this source holds high: a level that may be
     * stale must not interrupt once more. Optional, but vapic_gsi_watch() needs it.
     */
    void (*gsi_ack)(void *ctx, uint32_t gsi);

    /*
     * A level-triggered pin was re-delivered too often without its line going low (an interrupt
     * storm). Call vapic_ioapic_resume() for this pin after `delay_ns` nanoseconds. Runs on the
     * thread that wrote the EOI. Must not wait. Optional: without it re-delivery is immediate.
     */
    void (*ioapic_delay)(void *ctx, struct vapic_ioapic *io, uint32_t pin, uint64_t delay_ns);
};

#endif
