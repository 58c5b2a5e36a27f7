/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts: the control word of the descriptor (ON, SN, NV, NDST), vCPUs that sleep, and
 * the entries by which an IOMMU posts. What is posted and harvested is in post.c and lapic.c.
 *
 *      the vCPU         SN  NV        NDST            a post by hardware
 *      runs, or may     0   notify    its processor   is processed there, in the guest
 *      is preempted     1   notify    as before       is silent; load looks for it
 *      sleeps           0   wake-up   its processor   interrupts that processor, which wakes it
 *      sleeps, IF = 0   1   as was    as before       is silent; it could not end HLT
 *
 * Protocol "block". Both sides change the word by one read-modify-write of all its 8 bytes, and so
 * does the hardware that posts (PIR before it). So a post finds either the old or the new NV:
 *
 *      owner                                   who posts by hardware
 *      presence := blocked                     PIR bit
 *      on the list of its processor            ON = 0 and SN = 0: ON := 1, NV is sent to NDST
 *      NV := wake-up, SN := 0
 *      ON? then do not sleep (vapic_block)
 *
 * Before the change of NV: ON is set and the owner finds it. After it: the wake-up vector comes to
 * the processor on whose list it is already. ON that was set before, or by a sender that saw the
 * notification vector, is found as well, so no interrupt to oneself is needed. On load SN goes
 * first; whoever posted silently before has left a PIR bit and no ON, and ON is set for him. Plain
 * stores to the word would lose an ON that comes in between.
 *
 * Protocol "first device". A VM in which only software posts does not need the list (senders find
 * presence "blocked" and wake by host.notify). When the first device is attached:
 *
 *      owner: presence := blocked, then reads `devices`
 *      vapic_device_attached(): `devices` := 1, then reads presence, wakes who is blocked
 *
 * One of them sees the other: no vCPU sleeps on without the list.
 *
 * Locks: a processor's list is guarded by its `lock`, taken with host interrupts off, for the
 * wake-up handler runs on it. wake_on goes from NULL to a processor by the owner only; back by
 * whoever takes it off the list, under the lock.
 */
#include "apicv.h"

/* One read-modify-write; the value before. */
static uint64_t change(struct vapic *v, uint64_t clear, uint64_t set)
{
    uint64_t seen = vapic_load64(&v->pid.control, VAPIC_RELAXED);

    if (MUTANT(CONTROL_BY_STORE)) {
        vapic_store64(&v->pid.control, (seen & ~clear) | set, VAPIC_SEQ_CST);
        return seen;
    }
    /* SEQ_CST: see the two protocols above. ON may come in between: again. */
    while (!vapic_cas64(&v->pid.control, &seen, (seen & ~clear) | set, VAPIC_SEQ_CST))
        ;
    return seen;
}

static bool on(const struct vapic *v)
{
    return (vapic_load64(&v->pid.control, VAPIC_SEQ_CST) & PID_ON) != 0;
}

bool vapic_posted(const struct vapic *v)
{
    return on(v) ||
           (v->accel != NULL && UNLIKELY(v->accel->nested != NULL) && vapic_nested_posted(v));
}

static uint64_t nv(uint8_t vector)
{
    return (uint64_t)vector << PID_NV_SHIFT;
}

uint64_t vapic_posted_ndst(const struct vapic *v, const struct vapic_pcpu *pcpu)
{
    uint32_t id = pcpu->apic_id;

    if (v->vm->accel->features & VAPIC_ACCEL_XAPIC_HOST)
        id = PID_NDST_XAPIC(id);
    return (uint64_t)id << PID_NDST_SHIFT;
}

/* ---- The processors' lists ---- */

static void lock(const struct vapic_vm *vm, struct vapic_pcpu *pcpu)
{
    if (!MUTANT(LIST_UNLOCKED))
        vm->host.spin_lock(vm->ctx, &pcpu->lock);
}

static void unlock(const struct vapic_vm *vm, struct vapic_pcpu *pcpu)
{
    if (!MUTANT(LIST_UNLOCKED))
        vm->host.spin_unlock(vm->ctx, &pcpu->lock);
}

static void list_insert(struct vapic_pcpu *pcpu, struct vapic_accel_vcpu *av)
{
    av->prev_blocked = NULL;
    av->next_blocked = pcpu->blocked;
    if (pcpu->blocked != NULL)
        pcpu->blocked->prev_blocked = av;
    pcpu->blocked = av;
    vapic_store_ptr(&av->wake_on, pcpu, VAPIC_RELAXED);
}

static void list_remove(struct vapic_pcpu *pcpu, struct vapic_accel_vcpu *av)
{
    if (av->prev_blocked != NULL)
        av->prev_blocked->next_blocked = av->next_blocked;
    else
        pcpu->blocked = av->next_blocked;
    if (av->next_blocked != NULL)
        av->next_blocked->prev_blocked = av->prev_blocked;
    /* Release: the owner may use the links again as soon as it sees this without the lock. */
    vapic_store_ptr(&av->wake_on, NULL, VAPIC_RELEASE);
}

static void join_list(struct vapic *v, struct vapic_pcpu *pcpu)
{
    lock(v->vm, pcpu);
    list_insert(pcpu, v->accel);
    unlock(v->vm, pcpu);
}

static void leave_list(struct vapic *v)
{
    struct vapic_pcpu *pcpu = vapic_load_ptr(&v->accel->wake_on, VAPIC_ACQUIRE);

    if (pcpu == NULL)
        return;
    lock(v->vm, pcpu);
    /* The wake-up handler may have been quicker. */
    if (v->accel->wake_on == pcpu)
        list_remove(pcpu, v->accel);
    unlock(v->vm, pcpu);
}

#define WAKE_BATCH 16u

/* Takes vCPUs for which something was posted off the list. */
static uint32_t take_posted(const struct vapic_vm *vm, struct vapic_pcpu *pcpu,
                            struct vapic *taken[WAKE_BATCH])
{
    struct vapic_accel_vcpu *av, *next;
    uint32_t count = 0;

    lock(vm, pcpu);
    for (av = pcpu->blocked; av != NULL && count < WAKE_BATCH; av = next) {
        next = av->next_blocked;
        if (!on(av->v) && !(av->nested != NULL && vapic_nested_posted(av->v)))
            continue;
        list_remove(pcpu, av);
        taken[count++] = av->v;
    }
    unlock(vm, pcpu);
    return count;
}

/*
 * Who is woken is off the list, so a second wake-up vector does not find it again, and the host is
 * called without the lock. The vCPUs are of any VM.
 */
void vapic_wakeup(struct vapic_vm *vm, struct vapic_pcpu *pcpu)
{
    struct vapic *taken[WAKE_BATCH];
    uint32_t count;

    do {
        count = take_posted(vm, pcpu, taken);
        for (uint32_t i = 0; i < count; i++)
            taken[i]->vm->host.notify(taken[i]->vm->ctx, taken[i], VAPIC_ACTION_WAKE);
    } while (count == WAKE_BATCH);
}

/* ---- Scheduling ---- */

/* Nobody else knows the descriptor yet. */
void vapic_posted_attach(struct vapic *v)
{
    vapic_store64(&v->pid.control, nv(v->vm->accel->notify_vector) | PID_SN, VAPIC_RELAXED);
}

static bool anything_in_pir(const struct vapic *v)
{
    uint64_t any = 0;

    /* Acquire: behind the clearing of SN; a post that comes later sees that and sets ON itself. */
    for (uint32_t i = 0; i < 4; i++)
        any |= vapic_load64(&v->pid.pir[i], VAPIC_ACQUIRE);
    return any != 0;
}

void vapic_posted_load(struct vapic *v)
{
    uint64_t before;

    leave_list(v);
    before = change(v, (MUTANT(NDST_STALE) ? 0 : PID_NDST_MASK) | PID_NV_MASK | PID_SN,
                    vapic_posted_ndst(v, v->accel->pcpu) | nv(v->vm->accel->notify_vector));
    if (before & PID_SN && anything_in_pir(v) && !MUTANT(SILENT_POST_FORGOTTEN))
        vapic_or64(&v->pid.control, PID_ON, VAPIC_SEQ_CST);
}

/* SEQ_CST: protocol "first device". */
static bool hardware_posts(const struct vapic *v)
{
    return has_ipiv(v) || vapic_load32(&v->vm->accel->devices, VAPIC_SEQ_CST) != 0;
}

void vapic_posted_put(struct vapic *v, bool blocking)
{
    struct vapic_pcpu *pcpu = v->accel->pcpu;

    if (MUTANT(SLEEPS_SILENTLY) || !blocking || !v->accel->can_irq || !hardware_posts(v)) {
        change(v, 0, PID_SN);
        return;
    }
    /* The list first, so that the handler finds the vCPU whenever NV sends the vector. NDST names
     * the processor of that list, whatever becomes of the thread in between. */
    leave_list(v); /* blocked twice: still on a list */
    if (!MUTANT(LIST_NOT_JOINED))
        join_list(v, pcpu);
    change(v, PID_NDST_MASK | PID_NV_MASK | PID_SN,
           vapic_posted_ndst(v, pcpu) | nv(v->vm->accel->wakeup_vector));
}

void vapic_posted_detach(struct vapic *v)
{
    leave_list(v);
    change(v, 0, PID_SN);
}

/* ---- Devices ---- */

int vapic_vtd_irte(struct vapic *v, uint8_t vector, uint16_t source, uint64_t irte[2])
{
    uint64_t pid;

    if (v == NULL || irte == NULL || v->accel == NULL || v->vm->post != POST_SPLIT ||
        vector < APIC_FIRST_VECTOR)
        return VAPIC_E_ARG;
    pid = v->vm->host.physical(v->vm->ctx, &v->pid);
    /* Not urgent: that would interrupt a processor on which the vCPU does not run. */
    irte[0] = VTD_IRTE_PRESENT | VTD_IRTE_POSTED | (uint64_t)vector << VTD_IRTE_VECTOR_SHIFT |
              (pid >> 6 & 0x3FFFFFF) << VTD_IRTE_PID_LOW_SHIFT;
    irte[1] = source | VTD_IRTE_SVT_REQUESTER | pid >> 32 << VTD_IRTE_PID_HIGH_SHIFT;
    return VAPIC_OK;
}

static void wake_blocked(struct vapic_vm *vm)
{
    uint32_t top = slots_end(vm);

    for (uint32_t i = 0; i < top; i++) {
        struct vapic *v = vapic_at(vm, i);

        if (v != NULL && vapic_load32(&v->presence, VAPIC_SEQ_CST) == PRESENCE_BLOCKED &&
            !MUTANT(FIRST_DEVICE_WAKES_NOBODY))
            vm->host.notify(vm->ctx, v, VAPIC_ACTION_WAKE);
    }
}

void vapic_device_attached(struct vapic_vm *vm)
{
    if (vm->post != POST_SPLIT || vapic_xchg32(&vm->accel->devices, 1, VAPIC_SEQ_CST) != 0)
        return;
    /* With the lock no vCPU goes away meanwhile. */
    vm->host.lock(vm->ctx);
    wake_blocked(vm);
    vm->host.unlock(vm->ctx);
}
