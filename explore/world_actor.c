/* SPDX-License-Identifier: MIT */
/*
 * Everybody but the vCPUs: devices, the administrator, the scheduler, who creates and removes
 * vCPUs. Each runs its list of H_ steps on a thread of its own.
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"

/* ---- Messages ---- */

/* What a call of the library asks its caller to do. */
static void act(struct world_vcpu *v, enum vapic_action action, const char *what)
{
    if (!ex_dropped(what))
        world_act(v, action);
}

static void post(struct world *w, const struct world_op *op)
{
    struct world_vcpu *v = &w->v[op->v];

    world_sent(w, op, (uint8_t)op->a);
    act(v, vapic_post(&v->apic, (uint8_t)op->a, op->b != 0, NULL), "result of vapic_post");
}

static void msi(struct world *w, const struct world_op *op)
{
    uint64_t address = APIC_DEFAULT_BASE | (uint64_t)w->v[op->v].id << 12;

    world_sent(w, op, (uint8_t)op->a);
    vapic_msi(&w->vm, address, (uint8_t)op->a);
}

/* The handler of the GA log's interrupt. */
static void read_ga_log(struct world *w)
{
    while (w->iommu.head != ex_read(&w->iommu.tail, "GA log tail")) {
        uint64_t entry = w->ga_log[w->iommu.head];

        ex_write(&w->iommu.head, (w->iommu.head + 1) % w->iommu.entries, "GA log head");
        if (!ex_dropped("GA log"))
            vapic_ga_log(&w->platform, entry);
    }
}

static bool log_has_news(void *arg)
{
    struct world *w = arg;

    return w->iommu.head != ex_read(&w->iommu.tail, "GA log tail") ||
           ex_read(&w->iommu.overflow, "GA log overflow") != 0;
}

/* Who clears the overflow wakes everybody after that: the log works again, and what it lost before
 * was posted before. */
static void play_ga_handler(struct world *w)
{
    ex_may_end(true);
    for (;;) {
        ex_wait(log_has_news, w, "until the GA log has news");
        read_ga_log(w);
        if (ex_swap(&w->iommu.overflow, 0, "GA log overflow") != 0)
            vapic_ga_overflow(&w->platform);
    }
}

static void late_entry(struct world *w, uint32_t n)
{
    uint64_t entry = AMD_GA_LOG_GUEST_NR << AMD_GA_LOG_TYPE_SHIFT | AVIC_GA_TAG(1, n);

    vapic_ga_log(&w->platform, entry);
}

static void end_vm(struct world *w)
{
    static const uint64_t something_else[8];

    vapic_accel_fini(&w->accel);
    ex_write(&w->gone, 1, "gone");
    ex_write_block(&w->accel, something_else, sizeof(something_else), "other use");
}

/* An AMD device's message, and what the host does about it. */
static void amd_message(struct world *w, uint32_t i, struct world_vcpu *v)
{
    uint8_t vector = w->spec->irte[i].vector;
    enum vapic_sil_msi result;

    ex_add(&w->messages, 1, "a message");
    result = vapic_sil_amd_msi(&w->iommu, w->irte_words[i], (uint16_t)i);
    ex_add(&w->messages, 1, "the message is through");
    switch (result) {
    case VAPIC_SIL_MSI_LOGGED:
        if (!(w->spec->flags & WORLD_LOG_APART))
            read_ga_log(w);
        break;
    case VAPIC_SIL_MSI_REMAPPED: /* the handler of the host's vector posts */
        act(v, vapic_post(&v->apic, vector, false, NULL), "result of vapic_post");
        break;
    case VAPIC_SIL_MSI_BLOCKED:
    case VAPIC_SIL_MSI_FAULT:
        world_require(false, "the entry of a device");
        break;
    case VAPIC_SIL_MSI_POSTED:
        break;
    }
}

static void device(struct world *w, const struct world_op *op)
{
    const struct world_irte_spec *spec = &w->spec->irte[op->a];
    struct world_vcpu *v = &w->v[spec->vcpu];

    world_sent_to(v, spec->vector, false);
    if (w->vendor == &world_amd)
        amd_message(w, op->a, v);
    else if (w->vendor == &world_intel)
        vapic_sil_vtd_msi(&w->silicon, w->irte_words[op->a], (uint16_t)op->a);
    else
        act(v, vapic_post(&v->apic, spec->vector, false, NULL), "result of vapic_post");
}

/* A device has a lock: its line and what the I/O APIC was told of it are one. */
void world_line(struct world *w, uint32_t pin, bool high)
{
    uint32_t before;

    ex_lock(&w->line_lock[pin], "device's lock");
    before = ex_read(&w->line[pin], "line");
    ex_write(&w->line[pin], ((before & ~LINE_HIGH) + LINE_STEP) | (high ? LINE_HIGH : 0), "line");
    vapic_gsi_set(&w->vm, pin, 0, high);
    ex_unlock(&w->line_lock[pin], "device's lock");
}

static void pin(struct world *w, const struct world_op *op)
{
    const struct world_pin_spec *spec = &w->spec->pin[op->a];
    bool was_high = (ex_read(&w->line[op->a], "line") & LINE_HIGH) != 0;

    if (op->b != 0 && !spec->level && !was_high)
        world_sent_to(&w->v[spec->vcpu], spec->vector, spec->masked);
    world_line(w, op->a, op->b != 0);
}

static void route(struct world *w, const struct world_op *op)
{
    uint32_t at = 0x10 + 2 * op->a;

    vapic_ioapic_write(&w->io, 0, at + 1, 4);
    vapic_ioapic_write(&w->io, 0x10, (uint64_t)w->v[op->v].id << 24, 4);
    vapic_ioapic_write(&w->io, 0, at, 4);
    vapic_ioapic_write(&w->io, 0x10, op->b, 4);
}

static void lint0(struct world *w, const struct world_op *op)
{
    struct world_vcpu *v = &w->v[op->v];

    v->lint0 = (uint8_t)op->a;
    v->ref.extints_sent++;
    act(v, vapic_set_lint(&v->apic, 0, true), "result of vapic_set_lint");
}

/* ---- Time ---- */

static bool is_armed(void *arg)
{
    return ex_read(&((struct world_vcpu *)arg)->armed, "timer armed?") != 0;
}

/* What host.arm() was told is over. */
static bool is_due(void *arg)
{
    struct world_vcpu *v = arg;
    uint32_t when = ex_read(&v->armed, "timer armed?");

    return when != 0 && when <= ex_read(&v->w->time, "time");
}

/* The host's timer: fires once for each time that it was set. A vCPU that had read the clock before
 * sets it again, for a time that has passed. */
static void pass_time(struct world *w, const struct world_op *op)
{
    struct world_vcpu *v = &w->v[op->v];

    ex_wait(is_armed, v, "until the timer is armed");
    ex_write(&w->time, w->time + (uint32_t)op->b, "time");
    ex_may_end(true);
    for (;;) {
        ex_wait(is_due, v, "until the timer is due");
        ex_swap(&v->armed, 0, "timer fires");
        act(v, vapic_timer_expired(&v->apic), "result of vapic_timer_expired");
    }
}

/* ---- The scheduler ---- */

static void order(struct world_vcpu *v, uint32_t what)
{
    ex_write(&v->order, what, "orders");
    world_kick(v);
}

/* ---- Creating, removing ---- */

static void add(struct world_vcpu *v)
{
    world_create_vcpu(v);
    world_start_vcpu(v);
    ex_write(&v->exists, 1, "created");
}

static bool has_stopped(void *arg)
{
    return ex_read(&((struct world_vcpu *)arg)->stopped, "stopped?") != 0;
}

static void remove_vcpu(struct world_vcpu *v)
{
    ex_wait(has_stopped, v, "until its thread has ended");
    vapic_remove(&v->apic);
    ex_write(&v->exists, 0, "removed");
}

/* ---- Waiting ---- */

struct after {
    struct world_vcpu *v;
    const struct world_op *op;
};

static bool has_taken(void *arg)
{
    struct after *a = arg;

    ex_read(&a->v->deliveries, "interrupts taken");
    return a->v->ref.taken[(uint8_t)a->op->a] >= a->op->b;
}

struct idle {
    struct world *w;
    uint32_t cpu;
};

/* Only what comes when no vCPU runs there any more. */
static bool cpu_has_work(void *arg)
{
    struct idle *idle = arg;

    for (uint32_t n = 0; n < idle->w->spec->vcpu_count; n++)
        if (ex_read(&idle->w->v[n].where, "where does it run?") == idle->cpu + 1)
            return false;
    return world_cpu_pending(&idle->w->cpu[idle->cpu]);
}

static void serve(struct world *w, uint32_t cpu)
{
    struct idle idle = {w, cpu};

    ex_may_end(true);
    for (;;) {
        ex_wait(cpu_has_work, &idle, "the processor is idle");
        world_take_interrupts(w, &w->cpu[cpu]);
    }
}

/* ---- Steps ---- */

static void step(struct world *w, const struct world_op *op)
{
    struct world_vcpu *v = &w->v[op->v];
    struct after after = {v, op};

    switch ((enum world_op_kind)op->kind) {
    case WORLD_POST:
        post(w, op);
        break;
    case WORLD_MSI:
        msi(w, op);
        break;
    case WORLD_DEVICE:
        device(w, op);
        break;
    case WORLD_PIN:
        pin(w, op);
        break;
    case WORLD_ROUTE:
        route(w, op);
        break;
    case WORLD_INHIBIT:
        world_require(vapic_set_inhibit(&w->vm, (enum vapic_inhibit)op->a, op->b != 0) == VAPIC_OK,
                      "a reason for inhibition");
        break;
    case WORLD_LINT0:
        lint0(w, op);
        break;
    case WORLD_NMI:
        v->ref.nmis_sent++;
        act(v, vapic_nmi(&v->apic), "result of vapic_nmi");
        break;
    case WORLD_POKE:
        act(v, vapic_poke(&v->apic), "result of vapic_poke");
        break;
    case WORLD_TIME:
        pass_time(w, op);
        break;
    case WORLD_MOVE:
    case WORLD_RESUME:
        order(v, op->a + 1);
        break;
    case WORLD_PREEMPT:
        order(v, ORDER_PUT);
        break;
    case WORLD_ADD:
        add(v);
        break;
    case WORLD_REMOVE:
        remove_vcpu(v);
        break;
    case WORLD_ATTACH:
        world_attach(w, op->a);
        break;
    case WORLD_DETACH:
        vapic_irte_detach(&w->irte[op->a]);
        break;
    case WORLD_AFTER:
        ex_wait(has_taken, &after, "until it is taken");
        break;
    case WORLD_GA_LOG:
        play_ga_handler(w);
        break;
    case WORLD_GA_LATE:
        late_entry(w, op->v);
        break;
    case WORLD_END_VM:
        end_vm(w);
        break;
    case WORLD_SERVE:
        serve(w, op->a);
        break;
    case WORLD_L2_POST:
    case WORLD_ENTRY:
    case WORLD_FREE:
    case WORLD_GIVE:
        world_l2_step(w, op);
        break;
    default:
        world_require(false, "a guest's step is not for others");
        break;
    }
}

static bool waits(const struct world_op *op)
{
    return op->kind == WORLD_AFTER || op->kind == WORLD_SERVE || op->kind == WORLD_REMOVE ||
           op->kind == WORLD_TIME || op->kind == WORLD_GA_LOG;
}

void world_actor_main(void *arg)
{
    const struct world_actor_arg *a = arg;

    for (const struct world_op *op = a->ops; op->kind != WORLD_END; op++) {
        if (!waits(op))
            world_call_begin(a->w);
        step(a->w, op);
        if (!waits(op))
            world_call_end(a->w);
    }
}
