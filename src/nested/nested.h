/* SPDX-License-Identifier: MIT */
/*
 * Nested support, among its own files and for the core:
 *
 *      nested.c    the states, entering and leaving, pins; what the core and the scheduler call
 *      svm*.c      AVIC and x2AVIC for L2
 *      vmx*.c      APICv, posted interrupts and IPI virtualization for L2
 *      shadow.c    shadows of tables that L1 wrote, for both vendors
 *
 * A vendor's half is a table of operations, chosen by the VM's back end. All run on the owner's
 * thread with the vCPU outside the guest, unless said otherwise.
 *
 * Pins of a vCPU. They are changed under the configuration lock, and used without it: by the owner
 * in its calls, and by the processor in the guest. They stay when L2 is left, so that entering with
 * the same 12 again takes no lock. Who takes one away (vapic_nested_unmap) marks it doomed, sets
 * `again`, waits until every vCPU has left the guest (kick_all) and every call in progress has
 * ended (quiesce), and unpins. An owner that announces its presence and then reads `again`:
 *
 *      unmap: again := 1 (SEQ_CST), then presence         owner: presence (xchg), then again
 *
 * either is seen in the guest and made to leave, or sees `again`, steps back and pins anew.
 */
#ifndef VAPIC_NESTED_INTERNAL_H
#define VAPIC_NESTED_INTERNAL_H

#include "../accel/backend.h"
#include "vapic/nested.h"

/* No page: not an address that a page can have. */
#define NESTED_NO_PAGE UINT64_MAX

struct nested_ops {
    /*
     * Copies what is needed of 12 and makes the checks that need no memory of L1's.
     * VAPIC_E_CONTROLS. The view has what the vendor needs.
     */
    int (*take)(struct vapic *v, const struct vapic_nested_view *view);

    /* The same checks on what has been put into vapic_nested_vcpu already (vmcb12, pass, l1_if)
     * from a saved record. NULL: take() can do it. */
    int (*retake)(struct vapic *v);

    /* The pages of L1's that 12 names, for the pins' slots; NESTED_NO_PAGE where there is none. */
    void (*pages)(const struct vapic *v, uint64_t gpa[VAPIC_NESTED_PINS]);

    /* The table of L1's that senders' IPIs go through, by its address; NESTED_NO_PAGE: none. */
    uint64_t (*table)(const struct vapic *v);

    /* Takes the table's shadow (or what stands for it) into use, in place of the one in use now.
     * Configuration lock held; also when what is in use has gone stale. VAPIC_E_MEMORY. NULL. */
    int (*use_table)(struct vapic *v);

    /* The checks that read pages of 12, which are pinned. VAPIC_E_CONTROLS. NULL. */
    int (*check_memory)(const struct vapic *v);

    /* Writes the APIC's part of 02. `first`: L2 starts with what 12 says (RVI and SVI, V_TPR); else
     * 02 has run, and they are its own. No lock. */
    void (*write)(struct vapic *v, bool first);

    /* The state is ENTERING (or L2 after a restore): from now on senders find L2. */
    void (*publish)(struct vapic *v);

    /* Each vapic_enter() in L2, the presence announced: what was posted for L2 gets into 02. */
    void (*enter)(struct vapic *v);

    /* The same, when L2 sleeps on: who posts looks whether the last post was taken over. NULL:
     * nothing to do. */
    void (*asleep)(struct vapic *v);

    /* 02 is current: senders do not find L2 any more, *left is filled (NULL: abandoned). */
    void (*leave)(struct vapic *v, struct vapic_nested_left *left);

    /* What leave() would say, but L2 stays. */
    void (*peek)(struct vapic *v, struct vapic_nested_left *left);

    /* Does an interrupt for L1 exit to L1 (true), or does L1 want it injected into L2? */
    bool (*l1_intercepts)(const struct vapic *v);

    /* Would the processor take an interrupt for L1 now? `can` as vapic_enter() was told. */
    bool (*l1_open)(const struct vapic *v, uint32_t can);

    /* It would not: can L2 change that by itself (RFLAGS.IF), and must exit then? NULL: never. */
    bool (*l1_window)(const struct vapic *v);

    /*
     * L1's highest vector is about to make L2 exit. True: it was L2's (a notification in IRR) and
     * is consumed; look again. NULL: never.
     */
    bool (*consume)(struct vapic *v, int vector);

    /* Has L2 an interrupt of its own that would end HLT? */
    bool (*l2_due)(const struct vapic *v);

    /* ON is set in vapic_nested_vcpu.posted, which is no current L2's. NULL: never. */
    void (*late)(struct vapic *v);

    /* The vCPU was published as running, or withdrawn (with the back end's). Maybe from a
     * preemption notifier. NULL: nothing to do. */
    void (*load)(struct vapic *v);
    void (*put)(struct vapic *v, bool blocking);

    /* L1's memory at [gpa, gpa + size) was written. Configuration lock held, any thread. NULL. */
    void (*written)(struct vapic_nested *n, uint64_t gpa, uint64_t size);
    /* It goes away: drops every pin in it that belongs to the VM and not to a vCPU. Configuration
     * lock held, any thread; may call host.kick_all(). NULL. */
    void (*unmap)(struct vapic_nested *n, uint64_t gpa, uint64_t size);

    /* The vCPU goes. Configuration lock held, any thread. NULL. */
    void (*detach)(struct vapic *v);

    /* Memory of the VM: how much, and placing it (zeroed). fini() undoes all that is left. */
    size_t (*memory)(const struct vapic_nested_config *config,
                     const struct vapic_accel_config *accel);
    void (*place)(struct vapic_nested *n, void *memory);
    void (*fini)(struct vapic_nested *n); /* configuration lock held */
};

extern const struct nested_ops vapic_nested_svm __attribute__((visibility("hidden")));
extern const struct nested_ops vapic_nested_vmx __attribute__((visibility("hidden")));

static inline struct vapic_nested_vcpu *nested_of(const struct vapic *v)
{
    return v->accel != NULL ? v->accel->nested : NULL;
}

static inline const struct nested_ops *nested_ops(const struct vapic *v)
{
    return v->vm->accel->kind == VAPIC_ACCEL_AVIC ? &vapic_nested_svm : &vapic_nested_vmx;
}

static inline struct vapic_nested *nested_vm(const struct vapic *v)
{
    return v->vm->accel->nested;
}

/* 02 is current, and it virtualizes L2's APIC. */
static inline bool nested_virtualized(const struct vapic *v)
{
    return v->accel->in_l2 && v->accel->nested != NULL && v->accel->nested->virtualized;
}

/* Do two ranges of addresses have one in common? Either may reach the end of all addresses. */
static inline bool nested_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a - b < b_size || b - a < a_size;
}

/* ---- nested.c ---- */

/* The page in `slot`; its memory is NULL where 12 names none. Owner. */
static inline const struct vapic_l1_page *nested_pin(const struct vapic_nested_vcpu *nv,
                                                     uint32_t slot)
{
    return &nv->pins[slot].pin;
}

/* vapic_nested_restore() of what retake() looks at. Owner. */
int vapic_nested_restore_copied(struct vapic *v, bool ran);

/* Makes `v` look at its pages and tables before it next enters L2. Any thread; the caller makes it
 * leave the guest afterwards. */
void vapic_nested_look_again(struct vapic *v);

#endif
