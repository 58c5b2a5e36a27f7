/* SPDX-License-Identifier: MIT */
/*
 * A back end: what the core asks of AVIC and APICv. The core never asks which one is attached, with
 * one exception that is fixed for a VM's life and stands in vapic_vm.post: where a post goes.
 *
 * All functions run on the owner's thread with the vCPU outside the guest, unless said otherwise.
 */
#ifndef VAPIC_ACCEL_BACKEND_H
#define VAPIC_ACCEL_BACKEND_H

#include "../internal.h"
#include "vapic/accel.h"

struct vapic_backend {
    /* VAPIC_INHIBITS column of this vendor, as a set. */
    uint32_t honours;

    /*
     * The hardware virtualizes xAPIC accesses of a vCPU whatever mode its APIC is in, and cannot
     * virtualize x2APIC: the access page must be gone before a vCPU in x2APIC mode enters.
     */
    bool (*hybrid)(const struct vapic_accel *accel);

    /* Under the configuration lock: constant parts of the control block, table entry. */
    void (*attach)(struct vapic *v);

    /*
     * v->active or the APIC's mode may have changed (v->active has its new value, was_active the
     * old one): write the controls for what is now; publish or withdraw as running. Under the
     * configuration lock.
     */
    void (*refresh)(struct vapic *v, bool was_active);

    /*
     * Last step of vapic_enter(), with the presence announced. Writes what an entry needs: V_TPR
     * (also when inactive); RVI, SVI, TPR threshold, EOI-exit bitmap.
     */
    void (*enter)(struct vapic *v, const struct vapic_entry *entry);

    /* First step of vapic_exit() of an active vCPU: the page becomes the whole truth again (TPR).
     */
    void (*exit)(struct vapic *v);

    /* vapic_load(), vapic_put(), vapic_block() (blocking: wants to be woken by hardware senders
     * too), vapic_unblock(). v->accel->pcpu is set. put() ends with a SEQ_CST read-modify-write of
     * what hardware senders read, so that the look at what is pending is ordered behind it. */
    void (*load)(struct vapic *v);
    void (*put)(struct vapic *v, bool blocking);

    /* L1 is current again: writes what was put off while L2's control block was. NULL: nothing. */
    void (*nested_exit)(struct vapic *v);

    /* ID, LDR, DFR, mode or enablement changed: tables that the hardware resolves IPIs with. Under
     * the configuration lock, owner. */
    void (*identity)(struct vapic *v);

    /* vapic_remove(): after it no hardware sender finds the vCPU. Under the configuration lock. */
    void (*detach)(struct vapic *v);
};

extern const struct vapic_backend vapic_avic_backend __attribute__((visibility("hidden")));
extern const struct vapic_backend vapic_apicv_backend __attribute__((visibility("hidden")));

/* Tables in the memory given to vapic_accel_init(); 0 when max_id and features do not go together.
 */
size_t vapic_avic_memory(const struct vapic_accel_config *config);
size_t vapic_apicv_memory(const struct vapic_accel_config *config);
/* Places them; under [init]. accel's plain fields are filled in already. */
void vapic_avic_place(struct vapic_accel *accel, void *memory);
void vapic_apicv_place(struct vapic_accel *accel, void *memory);

/* The platform finds the VM by its tag, or no longer: avic_irte.c. VAPIC_E_EXIST: the tag is taken.
 */
int vapic_avic_join(struct vapic_accel *accel);
void vapic_avic_leave(struct vapic_accel *accel);

/* ---- accel.c ---- */

/* The register of a trap gets back what it held when the guest was entered. Owner. */
void vapic_trap_undo(struct vapic *v, uint32_t offset);

/* `v` is attached and its VM has a back end. */
static inline bool accelerable(const struct vapic *v)
{
    return v->accel != NULL;
}

static inline const struct vapic_backend *backend(const struct vapic *v)
{
    return v->vm->backend;
}

/* Lets the MSR of a register's slot (offset / 10h) pass. */
static inline void vapic_pass_slot(uint64_t set[4], uint32_t slot)
{
    set[slot >> 6] |= UINT64_C(1) << (slot & 63);
}

/* host.intercept(), if `pass` is not what it was last told. Sets told.valid. Owner. */
void vapic_accel_tell_pass(struct vapic *v, const struct vapic_msr_pass *pass);

/* The next vapic_enter() computes everything anew, whatever the generation says. Owner. */
static inline void vapic_accel_request(struct vapic *v)
{
    if (v->accel != NULL)
        v->accel->served = 0;
}

#endif
