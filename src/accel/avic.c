/* SPDX-License-Identifier: MIT */
/*
 * The AVIC back end: the AVIC part of a vCPU's VMCB [APM2 15.29.2], and whether the other
 * processors and the IOMMUs take the vCPU for running.
 *
 * Whose VMCB fields. The library's: int_ctl bits 31, 30, 24 and V_TPR; 098h, 0E0h, 0F0h, 0F8h; the
 * intercept of CR8 writes; the clean bits of what it has changed. All others are the host's, V_IRQ
 * and its fields among them, which the processor ignores while bit 31 is set. The VMCB is always
 * that of L1 (vmcb01): nothing here ever touches one that a nested guest runs on, and what changes
 * here while L2 is current takes effect with L1's next VMRUN.
 *
 * IsRunning. It says that the vCPU's thread has a processor, not that it is in the guest: with it
 * set senders ring that processor's doorbell and need no exit. A doorbell that arrives between a
 * vCPU's exit and its next entry is lost without harm, because VMRUN looks at IRR. It must be clear
 * before anybody looks at IRR for the last time without a VMRUN to follow: before the vCPU sleeps,
 * and before software takes over delivery. See vapic_avic_store_entry().
 */
#include "avic.h"

#define MODE_BITS (VMCB_V_AVIC | VMCB_V_X2AVIC)

/* ---- VMCB: the owner's memory while the vCPU is outside the guest ---- */

static uint8_t *vmcb(const struct vapic *v)
{
    return v->accel->vmcb;
}

static uint64_t vmcb_get(const struct vapic *v, uint32_t field)
{
    return vapic_load64((uint64_t *)(void *)(vmcb(v) + field), VAPIC_RELAXED);
}

static void vmcb_dirty(const struct vapic *v, uint32_t clean)
{
    uint32_t *word = (uint32_t *)(void *)(vmcb(v) + VMCB_CLEAN);

    vapic_store32(word, vapic_load32(word, VAPIC_RELAXED) & ~clean, VAPIC_RELAXED);
}

/* Only what differs: an untouched field keeps its clean bit, and the processor its copy. */
static void vmcb_set(const struct vapic *v, uint32_t field, uint64_t value, uint32_t clean)
{
    if (vmcb_get(v, field) == value)
        return;
    vapic_store64((uint64_t *)(void *)(vmcb(v) + field), value, VAPIC_RELAXED);
    vmcb_dirty(v, clean);
}

static void intercept_cr8_writes(const struct vapic *v, bool exits)
{
    uint32_t *word = (uint32_t *)(void *)(vmcb(v) + VMCB_INTERCEPT_CR);
    uint32_t old = vapic_load32(word, VAPIC_RELAXED);
    uint32_t new = exits ? old | VMCB_CR8_WRITE : old & ~VMCB_CR8_WRITE;

    if (new == old)
        return;
    vapic_store32(word, new, VAPIC_RELAXED);
    vmcb_dirty(v, VMCB_CLEAN_INTERCEPTS);
}

/*
 * The processor looks at no other mode bit than these, the guest's APIC_BASE least of all. A guest
 * in x2APIC mode on a processor without x2AVIC gets xAVIC ("hybrid"): interrupts come by doorbell,
 * MSRs exit, and the access page is gone for the whole VM, for the processor still decodes it.
 */
static uint64_t wanted_mode(const struct vapic *v)
{
    if (!is_active(v))
        return 0;
    return avic_in_x2avic(v) ? MODE_BITS : VMCB_V_AVIC;
}

/*
 * All of it before the next VMRUN of this vCPU, which nobody but its owner performs; so there is no
 * order among the fields. A CR8 intercept that is left on with AVIC would make TPR and V_TPR part.
 *
 * Whatever the mode was, translations of the APIC page were made under its rules: an address that
 * led to the host's page must now lead to the registers, or the reverse. The manual asks for a
 * flush when AVIC is switched on or to x2AVIC; switching off needs one where the page stays mapped.
 */
static void write_controls(struct vapic *v)
{
    struct vapic_msr_pass pass;
    uint64_t mode = wanted_mode(v), control = vmcb_get(v, VMCB_INT_CTL);
    uint32_t last = vapic_avic_max_index(v->vm->accel, (mode & VMCB_V_X2AVIC) != 0);

    if ((control & MODE_BITS) != mode) {
        /* The manual leaves open which clean bit covers 31:30; both are dropped. */
        vmcb_set(v, VMCB_INT_CTL, (control & ~MODE_BITS) | mode, VMCB_CLEAN_TPR | VMCB_CLEAN_AVIC);
        if (!MUTANT(NO_FLUSH))
            v->vm->host.flush(v->vm->ctx, v);
    }
    vmcb_set(v, VMCB_AVIC_PHYSICAL, v->vm->accel->physical_hpa | last, VMCB_CLEAN_AVIC);
    intercept_cr8_writes(v, mode == 0);
    vapic_avic_pass(v, &pass);
    if (mode != 0 || !MUTANT(MSRS_STAY_OPEN))
        vapic_accel_tell_pass(v, &pass);
}

/* ---- Running, preempted, asleep, switched off ---- */

/*
 * The vCPU runs on its processor. The table first: an IRTE may ring only once the processor is the
 * right one, and both are under one lock, so that an IRTE which is attached meanwhile either finds
 * the new state here or is updated by the loop.
 */
static void publish(struct vapic *v)
{
    struct vapic_accel_vcpu *av = v->accel;

    if (av->pcpu == NULL)
        return;
    avic_lock(v);
    av->host_id = av->pcpu->apic_id;
    av->entry = (av->entry & (AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_BACKING)) |
                (av->host_id & AVIC_PHYSICAL_HOST_ID) | AVIC_PHYSICAL_RUNNING | ENTRY_POSTS;
    vapic_avic_store_entry(v);
    if (!MUTANT(IRTE_NOT_MOVED))
        vapic_avic_update_irtes(v);
    avic_unlock(v);
}

/*
 * It no longer does. IRTEs first, so that the exchange in vapic_avic_store_entry() orders both
 * before the caller's next look at IRR. Only a vCPU that sleeps wants to hear of what is posted:
 * one that was preempted will run by itself. The processor's ID stays: a late doorbell then rings
 * where the vCPU has been and not just anywhere.
 */
static void withdraw(struct vapic *v, uint64_t private)
{
    struct vapic_accel_vcpu *av = v->accel;

    avic_lock(v);
    av->entry = (av->entry & ~(AVIC_PHYSICAL_RUNNING | ENTRY_PRIVATE)) | private;
    vapic_avic_update_irtes(v);
    vapic_avic_store_entry(v);
    avic_unlock(v);
}

static void avic_load(struct vapic *v)
{
    if (is_active(v))
        publish(v);
}

static void avic_put(struct vapic *v, bool blocking)
{
    if (is_active(v))
        withdraw(v, blocking ? ENTRY_POSTS | ENTRY_SLEEPS : ENTRY_POSTS);
}

/* ---- Activation, deactivation, change of mode ---- */

/*
 * On: the tables, the VMCB, then IsRunning: from then on senders count on a VMRUN that looks at
 * IRR. Off: IsRunning first: from then on they exit and tell the library, which has not looked at
 * IRR for the last time yet. IRTEs go to remapped form, so that devices tell it too.
 */
static void avic_refresh(struct vapic *v, bool was_active)
{
    if (was_active && !is_active(v) && !MUTANT(RUNNING_THOUGH_OFF))
        withdraw(v, 0);
    if (is_active(v))
        vapic_avic_update_logical(v);
    write_controls(v);
    if (is_active(v) && !was_active)
        publish(v);
}

/* ---- Entry and exit ---- */

static uint64_t tpr_class(const struct vapic *v)
{
    return reg(v, APIC_TPR) >> 4 & VMCB_V_TPR;
}

/*
 * VMRUN does not reconcile V_TPR with the page, and V_TPR is what gates delivery; with AVIC off it
 * is what the guest reads in CR8 (V_INTR_MASKING).
 */
static void avic_enter(struct vapic *v, const struct vapic_entry *entry)
{
    uint64_t control = vmcb_get(v, VMCB_INT_CTL);

    (void)entry;
    /* Before the guest's IPIs; pairs with store_logical(). For table_has_changed(). */
    v->accel->logical_seen = vapic_load32(&v->vm->accel->logical_changes, VAPIC_ACQUIRE);
    if (MUTANT(V_TPR_STALE) && is_active(v))
        return;
    vmcb_set(v, VMCB_INT_CTL, (control & ~VMCB_V_TPR) | tpr_class(v), VMCB_CLEAN_TPR);
}

/* TPR[3:0] is the page's alone; an unchanged class says nothing about it. */
static void avic_exit(struct vapic *v)
{
    uint32_t v_tpr = (uint32_t)(vmcb_get(v, VMCB_INT_CTL) & VMCB_V_TPR);

    if (v_tpr != tpr_class(v))
        set_reg(v, APIC_TPR, v_tpr << 4);
}

/* ---- Life cycle ---- */

/* The access page is at its one address: a guest that moves it is inhibited (APIC_BASE_MODIFIED).
 */
static void constant_controls(struct vapic *v)
{
    const struct vapic_accel *accel = v->vm->accel;
    uint64_t control = vmcb_get(v, VMCB_INT_CTL) & ~MODE_BITS;

    vmcb_set(v, VMCB_INT_CTL, control | VMCB_V_INTR_MASKING, VMCB_CLEAN_TPR);
    vmcb_set(v, VMCB_AVIC_BAR, APIC_DEFAULT_BASE, VMCB_CLEAN_AVIC);
    vmcb_set(v, VMCB_AVIC_BACKING, v->accel->entry & AVIC_PHYSICAL_BACKING, VMCB_CLEAN_AVIC);
    vmcb_set(v, VMCB_AVIC_LOGICAL, accel->logical_hpa, VMCB_CLEAN_AVIC);
    vmcb_set(v, VMCB_AVIC_PHYSICAL, accel->physical_hpa | vapic_avic_max_index(accel, false),
             VMCB_CLEAN_AVIC);
    intercept_cr8_writes(v, true);
}

/*
 * The entry is valid from vapic_add() on, running or not: broadcasts skip entries that are not, and
 * nobody would hear of it. That is just what is wanted of an APIC that is globally disabled: it
 * accepts nothing, and an IPI to it alone exits and comes to nothing in the fabric.
 */
static uint64_t validity(const struct vapic *v)
{
    return apic_enabled(v) && vapic_index(v) != VAPIC_NO_INDEX ? AVIC_PHYSICAL_VALID : 0;
}

static void avic_attach(struct vapic *v)
{
    const struct vapic_accel *accel = v->vm->accel;
    struct vapic_accel_vcpu *av = v->accel;

    if (v->id <= accel->max_id && v->id <= accel->table_limit)
        av->table_entry = &accel->physical_table[v->id];
    av->entry = v->vm->host.physical(v->vm->ctx, v->page);
    constant_controls(v);
    vapic_avic_store_entry(v);
}

static void avic_identity(struct vapic *v)
{
    struct vapic_accel_vcpu *av = v->accel;

    vapic_avic_update_logical(v);
    if ((av->entry & AVIC_PHYSICAL_VALID) == validity(v))
        return;
    avic_lock(v);
    av->entry ^= AVIC_PHYSICAL_VALID;
    vapic_avic_store_entry(v);
    avic_unlock(v);
}

static void avic_detach(struct vapic *v)
{
    vapic_avic_drop_logical(v);
    if (MUTANT(REMOVED_BUT_VALID))
        return;
    avic_lock(v);
    v->accel->entry &= AVIC_PHYSICAL_BACKING; /* for another vapic_add() */
    vapic_avic_update_irtes(v);
    vapic_avic_store_entry(v);
    avic_unlock(v);
}

static bool avic_hybrid(const struct vapic_accel *accel)
{
    return !(accel->features & VAPIC_ACCEL_X2AVIC);
}

#define HONOURS(name, number, avic, apicv, text) | (uint32_t)(avic) << (number)

const struct vapic_backend vapic_avic_backend = {
    .honours = 0 VAPIC_INHIBITS(HONOURS),
    .hybrid = avic_hybrid,
    .attach = avic_attach,
    .refresh = avic_refresh,
    .enter = avic_enter,
    .exit = avic_exit,
    .load = avic_load,
    .put = avic_put,
    .identity = avic_identity,
    .detach = avic_detach,
};
