/* SPDX-License-Identifier: MIT */
/*
 * AMD IOMMUs: interrupt remapping entries that post into a vCPU's page, and the GA log, by which an
 * IOMMU says that it has posted to a vCPU which sleeps [IOMMU 2.2.5] [IOMMU 2.8].
 *
 * An entry has two forms. In guest mode a device's message goes into IRR, and to the processor's
 * doorbell (IsRun) or into the GA log (GALogIntr), or, for a vCPU that was preempted, nowhere.
 * While the vCPU is not accelerated the entry is an ordinary one: the host gets an interrupt, and
 * posts.
 *
 * The vCPU's spin lock covers its list of entries together with the state that they follow; the
 * platform's covers the list of VMs, and is the outer one.
 */
#include "avic.h"

/* ---- Entries ---- */

static bool in_guest_mode(const struct vapic *v)
{
    /* Without a GA log nobody would wake the vCPU: the device interrupts the host meanwhile. */
    if (v->accel->entry & ENTRY_SLEEPS && v->vm->accel->vm_tag == 0 && !MUTANT(SLEEPS_WITHOUT_LOG))
        return false;
    return (v->accel->entry & ENTRY_POSTS) != 0;
}

static uint64_t low_word(const struct vapic *v, const struct vapic_irte *irte)
{
    const struct vapic_accel_vcpu *av = v->accel;
    uint64_t value = irte->posted[0];

    value |= (uint64_t)av->host_id << AMD_IRTE_DEST_LOW_SHIFT & AMD_IRTE_DEST_LOW;
    if (av->entry & AVIC_PHYSICAL_RUNNING)
        value |= AMD_IRTE_IS_RUN;
    if (av->entry & ENTRY_SLEEPS && !MUTANT(GA_LOG_NOT_ASKED))
        value |= AMD_IRTE_GA_LOG_INTR;
    return value;
}

/* IOMMUs cache neither destination nor IsRun nor GALogIntr; a change of form must be invalidated.
 */
static void write_irte(struct vapic *v, struct vapic_irte *irte, bool guest, bool invalidate)
{
    uint64_t value[2] = {irte->remapped[0], irte->remapped[1]};

    if (guest) {
        value[0] = low_word(v, irte);
        value[1] = irte->posted[1] | (uint64_t)(v->accel->host_id >> 24) << AMD_IRTE_HI_DEST_SHIFT;
    }
    v->vm->host.irte(v->vm->ctx, irte->ctx, value, invalidate || guest != irte->guest);
    irte->guest = guest;
}

void vapic_avic_update_irtes(struct vapic *v)
{
    bool guest = in_guest_mode(v);

    for (struct vapic_irte *irte = v->accel->irtes; irte != NULL; irte = irte->next)
        if (guest || irte->guest)
            write_irte(v, irte, guest, false);
}

static bool can_attach(const struct vapic_irte *irte, const struct vapic *v, uint8_t vector,
                       const uint64_t remapped[2])
{
    return irte != NULL && v != NULL && remapped != NULL && vector >= APIC_FIRST_VECTOR &&
           v->accel != NULL && v->vm->backend == &vapic_avic_backend && v->vm->host.irte != NULL &&
           v->index != VAPIC_NO_INDEX;
}

int vapic_irte_attach(struct vapic_irte *irte, struct vapic *v, uint8_t vector,
                      const uint64_t remapped[2], void *ctx)
{
    uint64_t page;

    if (!can_attach(irte, v, vector, remapped))
        return VAPIC_E_ARG;
    if (irte->v != NULL)
        return VAPIC_E_BUSY;
    page = v->vm->host.physical(v->vm->ctx, v->page);
    *irte = (struct vapic_irte){
        .v = v,
        .posted = {AMD_IRTE_VALID | AMD_IRTE_GUEST_MODE |
                       (uint64_t)AVIC_GA_TAG(v->vm->accel->vm_tag, v->index)
                           << AMD_IRTE_GA_TAG_SHIFT,
                   vector | (page & AMD_IRTE_HI_ROOT)},
        .remapped = {remapped[0], remapped[1]},
        .ctx = ctx,
    };
    vapic_add32(&v->vm->accel->devices, 1, VAPIC_RELAXED);
    avic_lock(v);
    irte->next = v->accel->irtes;
    v->accel->irtes = irte;
    write_irte(v, irte, in_guest_mode(v), true);
    avic_unlock(v);
    return VAPIC_OK;
}

void vapic_irte_detach(struct vapic_irte *irte)
{
    struct vapic *v = irte->v;
    struct vapic_irte **at;

    if (v == NULL)
        return;
    avic_lock(v);
    for (at = &v->accel->irtes; *at != irte; at = &(*at)->next)
        continue;
    *at = irte->next;
    write_irte(v, irte, false, false);
    avic_unlock(v);
    irte->v = NULL;
    irte->next = NULL;
    vapic_add32(&v->vm->accel->devices, UINT32_MAX, VAPIC_RELAXED);
}

/* ---- Platform ---- */

int vapic_platform_init(struct vapic_platform *p, size_t size, const struct vapic_host *host,
                        void *ctx)
{
    if (size != sizeof(*p))
        return VAPIC_E_SIZE;
    if (p == NULL || host == NULL || host->size != sizeof(*host) || host->spin_lock == NULL ||
        host->spin_unlock == NULL)
        return VAPIC_E_ARG;
    *p = (struct vapic_platform){
        .spin_lock = host->spin_lock, .spin_unlock = host->spin_unlock, .ctx = ctx};
    return VAPIC_OK;
}

static struct vapic_accel *find_vm(struct vapic_platform *p, uint32_t tag)
{
    struct vapic_accel *accel = p->vms;

    while (accel != NULL && accel->vm_tag != tag)
        accel = accel->next_vm;
    return accel;
}

int vapic_avic_join(struct vapic_accel *accel)
{
    struct vapic_platform *p = accel->platform;
    bool taken;

    if (p == NULL || accel->vm_tag == 0)
        return VAPIC_OK;
    p->spin_lock(p->ctx, &p->lock);
    taken = find_vm(p, accel->vm_tag) != NULL;
    if (!taken) {
        accel->next_vm = p->vms;
        p->vms = accel;
    }
    p->spin_unlock(p->ctx, &p->lock);
    return taken ? VAPIC_E_EXIST : VAPIC_OK;
}

/* Look-ups wake under the platform's lock: who has got it after this finds the VM no more. */
void vapic_avic_leave(struct vapic_accel *accel)
{
    struct vapic_platform *p = accel->platform;
    struct vapic_accel **at;

    if (p == NULL || accel->vm_tag == 0)
        return;
    p->spin_lock(p->ctx, &p->lock);
    for (at = &p->vms; *at != NULL && *at != accel; at = &(*at)->next_vm)
        continue;
    if (*at == accel)
        *at = accel->next_vm;
    p->spin_unlock(p->ctx, &p->lock);
}

/* ---- GA log ---- */

/*
 * The IOMMU set IRR before it wrote the log. A vCPU that is awake, whatever the log says, has that
 * look at IRR still before it which it takes before it sleeps; pairs with announce() in
 * lapic_run.c.
 */
static void wake(struct vapic *v)
{
    enum vapic_action action;

    if (vapic_load32(&v->presence, VAPIC_SEQ_CST) != PRESENCE_BLOCKED || MUTANT(GA_LOG_WAKE_LOST))
        return;
    action = vapic_accel_notify(v);
    if (action != VAPIC_ACTION_NONE)
        v->vm->host.notify(v->vm->ctx, v, action);
}

static void wake_index(struct vapic_accel *accel, uint32_t index)
{
    struct vapic *v = vapic_at(accel->vm, index);

    TRACE(accel->vm, AVIC_GA_LOG, VAPIC_NO_INDEX, accel->vm_tag, index, 0, 0);
    if (v != NULL)
        wake(v);
}

void vapic_ga_log(struct vapic_platform *platform, uint64_t entry)
{
    uint32_t tag = (uint32_t)(entry & AMD_GA_LOG_TAG);
    struct vapic_accel *accel;

    if (entry >> AMD_GA_LOG_TYPE_SHIFT != AMD_GA_LOG_GUEST_NR)
        return;
    platform->spin_lock(platform->ctx, &platform->lock);
    accel = find_vm(platform, tag >> AVIC_GA_TAG_VCPU_BITS);
    if (accel != NULL)
        wake_index(accel, tag & AVIC_GA_TAG_VCPU);
    platform->spin_unlock(platform->ctx, &platform->lock);
}

static void wake_vm(struct vapic_accel *accel)
{
    uint32_t top = slots_end(accel->vm);

    for (uint32_t i = 0; i < top; i++) {
        struct vapic *v = vapic_at(accel->vm, i);

        /* Whether it has devices of its own is not worth a lock in what happens almost never. */
        if (v != NULL)
            wake(v);
    }
}

void vapic_ga_overflow(struct vapic_platform *platform)
{
    platform->spin_lock(platform->ctx, &platform->lock);
    for (struct vapic_accel *accel = platform->vms; accel != NULL; accel = accel->next_vm)
        if (vapic_load32(&accel->devices, VAPIC_RELAXED) != 0)
            wake_vm(accel);
    platform->spin_unlock(platform->ctx, &platform->lock);
}
