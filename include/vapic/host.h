/* SPDX-License-Identifier: MIT */
/*
 * What a hypervisor provides to libvapic: one table of callbacks, the same for every vCPU of a VM.
 *
 * A callback marked optional may be NULL; the library then behaves as its text says. `ctx` is the
 * pointer given to vapic_vm_init(). The library has no locks of its own; callbacks that run under
 * the host's configuration lock, or under a spin lock of the host's that the library took, say so.
 */
#ifndef VAPIC_HOST_H
#define VAPIC_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vapic;
struct vapic_ioapic;
struct vapic_msr_pass;

/* What the caller of a posting function has to do for the target, see vapic_post(). */
enum vapic_action {
    VAPIC_ACTION_NONE, /* the target's own thread looks before it next enters the guest */
    VAPIC_ACTION_KICK, /* the target may be in the guest: make it exit */
    VAPIC_ACTION_WAKE, /* the target's thread sleeps after vapic_block(): wake it */
    /*
     * The target is in the guest and accelerated: signal its processor, without making it exit.
     * AMD: WRMSR C001011Bh with the host APIC ID; Intel: an IPI with the notification vector. The
     * ID is vapic_doorbell_id()'s; ringing the processor one runs on is needless but harmless. Only
     * VMs with vapic_accel_init() see this action.
     */
    VAPIC_ACTION_DOORBELL,
    /*
     * Intel: the target runs its nested guest, and something was posted for that: send its
     * processor (vapic_doorbell_id()) the notification vector of vmcs02
     * (vapic_nested_config.notify_vector). Only VMs with vapic_nested_init() see this action.
     */
    VAPIC_ACTION_NESTED,
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
     * Do `action` (any but NONE) for `target`. Called on the sender's thread,
     * once per target and after that target's state is committed, for messages that a guest's
     * register write or an I/O APIC pin sends and for messages with several targets. Must not wait,
     * must not take the configuration lock (which is held when a pin had no other way to find a
     * target at rest; the spin lock of a platform is held when the GA log wakes), and must not call
     * back into the library for the *sending* vCPU.
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

    /* ---- The rest is for VMs with a back end (accel.h); vapic_accel_init() demands it ---- */

    /* The host-physical address of caller's memory that was given to the library: a register page,
     * struct vapic, struct vapic_nested_vcpu, the tables. Any thread. Must not wait. */
    uint64_t (*physical)(void *ctx, const void *memory);

    /*
     * Makes every vCPU of the VM that is in the guest leave it, and returns when each has been seen
     * outside (vapic_in_guest() false) at least once since the call. Vcpus that are outside or
     * asleep are left alone: nobody is woken. Called with the configuration lock held, possibly on
     * the thread of a vCPU (which is outside). May wait.
     */
    void (*kick_all)(void *ctx);

    /*
     * Map the APIC access page at FEE00000h in the guest's nested page tables, or withdraw it; true
     * is a permission (a host may map it at a fault instead, see vapic_access_page()), false
     * returns after no processor has a translation of it any more. No vCPU of the VM is in the
     * guest, and none enters before it returns. Called with the configuration lock held. May wait;
     * must not need a vCPU to make progress that waits for the configuration lock.
     */
    void (*access_page)(void *ctx, bool mapped);

    /* Drop what the vCPU's processor has cached of guest page FEE00000h before the vCPU is next
     * entered. On the vCPU's thread. Must not wait. */
    void (*flush)(void *ctx, struct vapic *v);

    /* Which x2APIC MSRs exit from now on: vapic_pass_to_msrpm(), vapic_pass_to_bitmap() write them
     * into a map; AMD hosts also clear clean bit 1. On the vCPU's thread. Must not wait. */
    void (*intercept)(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass);

    /*
     * Intel: in L1's VMCS (vmcs01), field `field` (its encoding), set the bits of `mask` to those
     * of `value`; the others are the host's. vmcs01 is current. On the vCPU's thread. Must not
     * wait.
     */
    void (*control)(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value);

    /* Intel: the guest interrupt status field of vmcs01 (RVI, SVI), as it is now. */
    uint16_t (*interrupt_status)(void *ctx, struct vapic *v);

    /* A spin lock on a word of the library's (0: free), with host interrupts off while it is held.
     * Held for a few dozen instructions when a vCPU is loaded, put, blocked, switched on or off, or
     * a device attached; by vapic_wakeup() and vapic_ga_overflow() while they walk what sleeps. */
    void (*spin_lock)(void *ctx, uint32_t *word);
    void (*spin_unlock)(void *ctx, uint32_t *word);

    /*
     * AMD: the 128-bit remapping entry of `irte` (vapic_irte.ctx) becomes `value`, in one piece.
     * `invalidate`: its cached form must be invalidated too, and the invalidation complete before
     * the return, or a device goes on posting by the old one (otherwise only fields changed that an
     * IOMMU never caches). Called with a spin lock of the library held. Must not wait. Optional:
     * vapic_irte_attach() needs it.
     */
    void (*irte)(void *ctx, void *irte_ctx, const uint64_t value[2], bool invalidate);
};

#endif
