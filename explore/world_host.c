/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor's callbacks, and what the model of the silicon asks of its surroundings. Where the
 * contract lets a callback wait it waits here as a real one would: for the lock, for vCPUs to leave
 * the guest. Called by the library and the model, on the actor whose call it is.
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"

/* ---- Memory ---- */

static uint64_t host_physical(void *ctx, const void *memory)
{
    return world_hpa(ctx, memory);
}

static void *sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct world *w = ctx;

    if (hpa < FIRST_HPA || hpa - FIRST_HPA + size > w->used)
        return NULL;
    return (uint8_t *)w + (hpa - FIRST_HPA);
}

/* L1's tables for its L2 have the page, whatever becomes of L1's own. */
static bool in_l2_of(const struct world *w, const struct vapic_sil_cpu *cpu)
{
    for (uint32_t n = 0; n < w->spec->vcpu_count && w->spec->nested; n++)
        if (w->v[n].cpu == cpu)
            return in_l2(&w->v[n]);
    return false;
}

static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct world *w = ctx;

    if (gpa == APIC_DEFAULT_BASE && in_l2_of(w, cpu)) {
        *page = (struct vapic_sil_page){world_hpa(w, w->scratch), true, true};
        return true;
    }
    if (gpa != APIC_DEFAULT_BASE || !ex_read(&w->page_mapped, "access page mapped?"))
        return false;
    *page = (struct vapic_sil_page){world_hpa(w, w->scratch), true, true};
    return true;
}

const struct vapic_sil_host world_silicon = {
    .size = sizeof(struct vapic_sil_host), .memory = sil_memory, .walk = sil_walk};

/* ---- Locks ---- */

static void host_lock(void *ctx)
{
    ex_lock(&((struct world *)ctx)->lock, "configuration lock");
}

static void host_unlock(void *ctx)
{
    ex_unlock(&((struct world *)ctx)->lock, "configuration lock");
}

static void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    ex_lock(word, "spin lock");
}

static void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    /* As x86 kernels do it: no barrier. */
    ex_release(word, 0, "spin lock");
}

/* ---- Grace periods ---- */

void world_call_begin(struct world *w)
{
    if (w->quiesces && ex_self() < EX_MAX_ACTORS)
        ex_add(&w->calls[ex_self()], 1, "into the library");
}

void world_call_end(struct world *w)
{
    if (w->quiesces && ex_self() < EX_MAX_ACTORS)
        ex_add(&w->calls[ex_self()], 1, "out of the library");
}

struct grace {
    uint32_t *calls, before;
};

static bool call_is_over(void *arg)
{
    struct grace *g = arg;

    return ex_read(g->calls, "in the library?") != g->before;
}

static void host_quiesce(void *ctx)
{
    struct world *w = ctx;

    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++) {
        struct grace g = {&w->calls[i], 0};

        if (i == ex_self())
            continue;
        g.before = ex_read(g.calls, "in the library?");
        if (g.before & 1)
            ex_wait(call_is_over, &g, "until its call is over");
    }
}

/* ---- Interrupts of the host ---- */

void world_handle_interrupt(struct world *w, uint32_t cpu, uint8_t vector)
{
    if (vector == WAKEUP_VECTOR && w->vendor == &world_intel)
        vapic_wakeup(&w->vm, &w->pcpu[cpu]);
}

bool world_cpu_pending(const struct vapic_sil_cpu *cpu)
{
    const uint32_t *words = (const uint32_t *)(const void *)cpu->physical;

    /* The host's own vectors are all in the last word. */
    return ex_read(&words[7], "interrupt pending?") != 0;
}

bool world_take_interrupts(struct world *w, struct vapic_sil_cpu *cpu)
{
    bool kicked = false;
    int vector;

    if (cpu == NULL || !world_cpu_pending(cpu))
        return false;
    while ((vector = vapic_sil_take_interrupt(cpu)) >= 0) {
        kicked |= vector == KICK_VECTOR;
        world_handle_interrupt(w, (uint32_t)(cpu - w->cpu), (uint8_t)vector);
    }
    return kicked;
}

/* ---- Kicking, waking ---- */

void world_kick(struct world_vcpu *v)
{
    uint32_t where;

    if (ex_dropped("kick"))
        return;
    if (v->w->vendor == NULL) {
        ex_write(&v->kicked, 1, "kick");
        return;
    }
    where = ex_read(&v->where, "where does it run?");
    if (where != NOWHERE)
        vapic_sil_interrupt(&v->w->silicon, where - 1, KICK_VECTOR);
}

static void doorbell(struct world_vcpu *v)
{
    uint32_t id;

    if (ex_dropped("doorbell") || !vapic_doorbell_id(&v->apic, &id))
        return;
    if (v->w->vendor == &world_amd)
        vapic_sil_doorbell(&v->w->silicon, id);
    else
        vapic_sil_interrupt(&v->w->silicon, id, NOTIFY_VECTOR);
}

void world_act(struct world_vcpu *v, enum vapic_action action)
{
    switch (action) {
    case VAPIC_ACTION_NESTED:
        world_l2_notify(v);
        return;
    case VAPIC_ACTION_NONE:
        return;
    case VAPIC_ACTION_KICK:
        world_kick(v);
        return;
    case VAPIC_ACTION_WAKE:
        if (!ex_dropped("wake"))
            ex_write(&v->woken, 1, "wake");
        return;
    case VAPIC_ACTION_DOORBELL:
        doorbell(v);
        return;
    }
}

static struct world_vcpu *vcpu_of(struct vapic *v)
{
    return (struct world_vcpu *)(void *)v;
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct world *w = ctx;

    if (w->ends && ex_read(&w->gone, "gone?"))
        EX_BROKEN(CRASH, "a vCPU of a VM that is gone is notified");
    if (!ex_dropped("notify"))
        world_act(vcpu_of(target), action);
}

struct exit_wait {
    struct world_vcpu *v;
    uint32_t bit;
};

/* "Has been seen outside at least once since the call." */
static bool was_outside(void *arg)
{
    struct exit_wait *e = arg;

    return !(ex_read(&e->v->watched, "no exit yet?") & e->bit) || !vapic_in_guest(&e->v->apic);
}

/* All are kicked before the first is waited for. */
static void host_kick_all(void *ctx)
{
    struct world *w = ctx;
    struct exit_wait waits[WORLD_VCPUS];

    for (uint32_t n = 0; n < w->spec->vcpu_count; n++) {
        waits[n] = (struct exit_wait){NULL, 0};
        if (!ex_read(&w->v[n].exists, "exists?"))
            continue;
        waits[n].bit = 1u << ex_self();
        if (!(ex_read(&w->v[n].watched, "watched?") & waits[n].bit))
            ex_add(&w->v[n].watched, waits[n].bit, "is watched");
        if (!vapic_in_guest(&w->v[n].apic))
            continue;
        waits[n].v = &w->v[n];
        world_kick(&w->v[n]);
    }
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        if (waits[n].v != NULL)
            ex_wait(was_outside, &waits[n], "until it is outside");
}

/* ---- The access page, control blocks ---- */

/* The permission is asked for under the lock under which the page is withdrawn. */
bool world_map_page(struct world *w)
{
    bool allowed;

    if (!(w->spec->flags & WORLD_MAPS_AT_FAULT))
        return false;
    ex_lock(&w->page_lock, "page lock");
    allowed = vapic_access_page(&w->vm);
    if (allowed)
        ex_write(&w->page_mapped, 1, "access page");
    ex_unlock(&w->page_lock, "page lock");
    return allowed;
}

static void set_page(struct world *w, bool mapped)
{
    bool at_fault = (w->spec->flags & WORLD_MAPS_AT_FAULT) != 0;

    if (mapped && at_fault)
        return;
    if (at_fault)
        ex_lock(&w->page_lock, "page lock");
    ex_write(&w->page_mapped, mapped, "access page");
    if (at_fault)
        ex_unlock(&w->page_lock, "page lock");
}

/* The contract says that nobody is in the guest; the caches of all processors are dropped. */
static void host_access_page(void *ctx, bool mapped)
{
    struct world *w = ctx;

    set_page(w, mapped);
    for (uint32_t i = 0; i < WORLD_CPUS && !mapped; i++) {
        if (w->cpu[i].in_guest)
            EX_BROKEN(SERVED, "the access page is withdrawn under the guest on processor %u", i);
        vapic_sil_flush(&w->cpu[i], APIC_DEFAULT_BASE);
    }
}

static void host_flush(void *ctx, struct vapic *v)
{
    if (!ex_dropped("flush"))
        ((struct world *)ctx)->vendor->flush(vcpu_of(v));
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    if (!ex_dropped("intercept"))
        ((struct world *)ctx)->vendor->intercept(vcpu_of(v), pass);
}

static struct vapic_sil_vmcs *current(struct world_vcpu *v)
{
    return v->l2 ? &v->vmcs02 : &v->vmcs;
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    struct vapic_sil_vmcs *vmcs = current(vcpu_of(v));
    uint64_t old = 0;

    (void)ctx;
    world_require(vapic_sil_vmread(vmcs, field, &old), "a field of the VMCS");
    vapic_sil_vmwrite(vmcs, field, (old & ~mask) | (value & mask));
}

static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    uint64_t value = 0;

    (void)ctx;
    vapic_sil_vmread(current(vcpu_of(v)), VMCS_GUEST_INTERRUPT_STATUS, &value);
    return (uint16_t)value;
}

static bool message_is_over(void *arg)
{
    struct grace *g = arg;

    return ex_read(g->calls, "message under way?") != g->before;
}

/* The IOMMU of the model caches nothing. But a message that is under way by the old entry is: once
 * an invalidation is complete it is no more. */
static void host_irte(void *ctx, void *irte_ctx, const uint64_t value[2], bool invalidate)
{
    struct world *w = ctx;
    struct grace g = {&w->messages, 0};

    ex_write_block(irte_ctx, value, 2 * sizeof(uint64_t), "IRTE");
    if (!invalidate)
        return;
    g.before = ex_read(g.calls, "message under way?");
    if (g.before & 1)
        ex_wait(message_is_over, &g, "until the invalidation is complete");
}

/* ---- EOI, timer ---- */

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    (void)ctx;
    world_eoi_seen(vcpu_of(v), vector);
}

static void host_arm(void *ctx, struct vapic *v, struct vapic_deadline deadline)
{
    uint32_t when = deadline.when > START_NS ? (uint32_t)(deadline.when - START_NS) : 1;

    (void)ctx;
    ex_write(&vcpu_of(v)->armed, deadline.clock != VAPIC_CLOCK_NONE ? when : 0, "timer");
}

const struct vapic_host world_host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .arm = host_arm,
    .eoi = host_eoi,
    .physical = host_physical,
    .kick_all = host_kick_all,
    .access_page = host_access_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .control = host_control,
    .interrupt_status = host_interrupt_status,
    .spin_lock = host_spin_lock,
    .spin_unlock = host_spin_unlock,
    .irte = host_irte,
};
