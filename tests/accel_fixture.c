/* SPDX-License-Identifier: MIT */
/* See accel_fixture.h. */
#include "accel_fixture.h"

#include <stdlib.h>
#include <string.h>

#define SPARE_CPUS 4u
#define FIRST_HPA  0x100000000ull
#define PAGE       4096u
#define LENGTH     3u /* of the guest's memory accesses */

/* ---- The log ---- */

static void grow_log(struct ax *ax)
{
    assert_true(ax->log_size < AX_LOG_SIZE); /* ax_forget() more often */
    ax->log_size = ax->log_size != 0 ? 2 * ax->log_size : 64;
    ax->log = realloc(ax->log, ax->log_size * sizeof(*ax->log));
    assert_non_null(ax->log);
}

void ax_log(struct ax *ax, struct ax_event event)
{
    if (ax->silent)
        return;
    ax->counts[event.kind]++;
    ax->total++;
    if (ax->quiet)
        return;
    if (ax->logged == ax->log_size)
        grow_log(ax);
    ax->log[ax->logged++] = event;
}

uint32_t ax_count(const struct ax *ax, enum ax_kind kind)
{
    return ax->counts[kind];
}

const struct ax_event *ax_nth(const struct ax *ax, enum ax_kind kind, uint32_t at)
{
    for (uint32_t i = 0; i < ax->logged; i++)
        if (ax->log[i].kind == kind && at-- == 0)
            return &ax->log[i];
    return NULL;
}

static uint32_t count_of(const struct ax *ax, enum ax_kind kind, uint32_t n, uint64_t a)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ax->logged; i++)
        count += ax->log[i].kind == kind && ax->log[i].vcpu == n && ax->log[i].a == a;
    return count;
}

uint32_t ax_delivered(const struct ax *ax, uint32_t n, uint8_t vector)
{
    return count_of(ax, AX_DELIVERED, n, vector);
}

uint32_t ax_exits(const struct ax *ax, uint32_t n, uint64_t code)
{
    return count_of(ax, AX_EXIT, n, code);
}

uint32_t ax_traced(const struct ax *ax, enum vapic_event_kind kind)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ax->logged; i++)
        count += ax->log[i].kind == AX_TRACE && ax->log[i].event.kind == kind;
    return count;
}

const struct vapic_event *ax_last_trace(const struct ax *ax, enum vapic_event_kind kind)
{
    for (uint32_t i = ax->logged; i-- > 0;)
        if (ax->log[i].kind == AX_TRACE && ax->log[i].event.kind == kind)
            return &ax->log[i].event;
    return NULL;
}

void ax_forget(struct ax *ax)
{
    memset(ax->counts, 0, sizeof(ax->counts));
    ax->logged = 0;
}

/* ---- Host-physical memory ---- */

void *ax_memory(struct ax *ax, size_t size, size_t align)
{
    size_t at = (ax->arena_used + align - 1) & ~(align - 1);

    assert_true(at + size <= ax->arena_size);
    ax->arena_used = at + size;
    return ax->arena + at;
}

uint64_t ax_hpa(struct ax *ax, const void *memory)
{
    uintptr_t offset = (uintptr_t)memory - (uintptr_t)ax->arena;

    assert_true(offset < ax->arena_size);
    return FIRST_HPA + offset;
}

static void *sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct ax *ax = ctx;

    if (hpa < FIRST_HPA || hpa - FIRST_HPA + size > ax->arena_size)
        return NULL;
    return ax->arena + (hpa - FIRST_HPA);
}

/* The guest has no memory but the APIC's page: one scratch page for all vCPUs, or nothing. */
static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct ax *ax = ctx;

    (void)cpu;
    if (gpa != APIC_DEFAULT_BASE || !ax->page_mapped)
        return false;
    *page = (struct vapic_sil_page){ax_hpa(ax, ax->scratch), true, true};
    return true;
}

static void sil_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct ax *ax = ctx;

    if (ax->on_point != NULL)
        ax->on_point(ax, cpu, point);
}

/* ---- The host's callbacks ---- */

static struct ax_vcpu *vcpu_of(struct vapic *v)
{
    return (struct ax_vcpu *)(void *)v;
}

static void host_lock(void *ctx)
{
    struct ax *ax = ctx;

    if (ax->locked && ax->on_contended != NULL)
        ax->on_contended(ax);
    assert_false(ax->locked);
    ax->locked = true;
    ax->locks++;
}

static void host_unlock(void *ctx)
{
    struct ax *ax = ctx;

    assert_true(ax->locked);
    ax->locked = false;
}

static void host_quiesce(void *ctx)
{
    assert_false(((struct ax *)ctx)->locked);
}

static void doorbell(struct ax *ax, struct vapic *v)
{
    uint32_t id;

    if (!vapic_doorbell_id(v, &id))
        return;
    if (ax->kind == VAPIC_ACCEL_AVIC)
        assert_int_equal(vapic_sil_doorbell(&ax->silicon, id), VAPIC_SIL_DONE);
    else
        vapic_sil_interrupt(&ax->silicon, id, AX_NOTIFY_VECTOR);
}

void ax_act(struct ax *ax, uint32_t n, enum vapic_action action)
{
    struct ax_vcpu *c = ax->v[n];

    if (action == VAPIC_ACTION_NONE)
        return;
    ax_log(ax, (struct ax_event){.kind = AX_NOTIFY, .vcpu = n, .a = action});
    if (action == VAPIC_ACTION_DOORBELL)
        doorbell(ax, &c->apic);
    else if (action == VAPIC_ACTION_WAKE)
        c->woken = true;
    else if (c->cpu != NULL)
        vapic_sil_interrupt(&ax->silicon, c->cpu->apic_id, AX_KICK_VECTOR);
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct ax *ax = ctx;
    uint32_t n = vcpu_of(target)->n;

    assert_int_not_equal(action, VAPIC_ACTION_NONE);
    ax_act(ax, n, action);
    if (ax->on_notify != NULL)
        ax->on_notify(ax, n, action);
}

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    ax_log(ctx, (struct ax_event){.kind = AX_EOI, .vcpu = vcpu_of(v)->n, .a = vector});
}

static void host_gsi_ack(void *ctx, uint32_t gsi)
{
    struct ax *ax = ctx;

    ax_log(ax, (struct ax_event){.kind = AX_GSI_ACK, .vcpu = VAPIC_NO_INDEX, .a = gsi});
    if (ax->on_ack != NULL)
        ax->on_ack(ax, gsi);
}

static uint64_t host_physical(void *ctx, const void *memory)
{
    return ax_hpa(ctx, memory);
}

static void host_kick_all(void *ctx)
{
    struct ax *ax = ctx;

    assert_true(ax->locked);
    ax_log(ax, (struct ax_event){.kind = AX_KICK_ALL, .vcpu = VAPIC_NO_INDEX});
    if (ax->on_kick_all != NULL)
        ax->on_kick_all(ax);
    for (uint32_t n = 0; n < ax->vcpus; n++) {
        struct ax_vcpu *c = ax->v[n];

        if (c == NULL || !vapic_in_guest(&c->apic)) /* NULL: ax_new() is still at it */
            continue;
        if ((int)n != ax->executing) {
            ax_leave(ax, n);
            continue;
        }
        vapic_sil_interrupt(&ax->silicon, c->cpu->apic_id, AX_KICK_VECTOR);
        assert_non_null(ax->on_wait);
        while (vapic_in_guest(&c->apic))
            ax->on_wait(ax);
    }
}

static void host_access_page(void *ctx, bool mapped)
{
    struct ax *ax = ctx;

    assert_true(ax->locked);
    ax_log(ax, (struct ax_event){.kind = AX_PAGE, .vcpu = VAPIC_NO_INDEX, .a = mapped});
    ax->page_mapped = mapped;
    /* A shoot-down: whoever is in the guest leaves it, and no translation survives. */
    for (uint32_t i = 0; i < ax->cpu_count && !mapped; i++)
        vapic_sil_flush(&ax->cpus[i], APIC_DEFAULT_BASE);
    if (ax->on_page != NULL)
        ax->on_page(ax, mapped);
}

static void host_flush(void *ctx, struct vapic *v)
{
    struct ax *ax = ctx;

    ax_log(ax, (struct ax_event){.kind = AX_FLUSH, .vcpu = vcpu_of(v)->n});
    ax->vendor->flush(vcpu_of(v));
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    struct ax *ax = ctx;

    ax_log(ax, (struct ax_event){.kind = AX_INTERCEPT, .vcpu = vcpu_of(v)->n});
    ax->vendor->intercept(vcpu_of(v), pass);
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    ax_intel_control(vcpu_of(v), field, mask, value);
}

static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    return ax_intel_interrupt_status(vcpu_of(v));
}

static void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 0);
    *word = 1;
}

static void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 1);
    *word = 0;
}

static void host_irte(void *ctx, void *irte_ctx, const uint64_t value[2], bool invalidate)
{
    struct ax *ax = ctx;

    ax_log(ax, (struct ax_event){.kind = AX_IRTE,
                                 .vcpu = VAPIC_NO_INDEX,
                                 .a = value[0],
                                 .b = value[1],
                                 .c = invalidate});
    if (irte_ctx != NULL)
        memcpy(irte_ctx, value, 2 * sizeof(uint64_t));
}

static void trace_event(void *ctx, const struct vapic_event *event)
{
    ax_log(ctx, (struct ax_event){.kind = AX_TRACE, .vcpu = event->vcpu, .event = *event});
}

static const struct vapic_host the_host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .eoi = host_eoi,
    .gsi_ack = host_gsi_ack,
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

/* ---- Making ---- */

static uint32_t highest_id(const struct ax_options *o, uint32_t vcpus)
{
    uint32_t highest = 0;

    for (uint32_t n = 0; n < vcpus; n++) {
        uint32_t id = o->ids != NULL ? o->ids[n] : n;

        highest = id > highest ? id : highest;
    }
    return highest;
}

static struct vapic_accel_config accel_config(const struct ax_options *o, uint32_t vcpus)
{
    struct vapic_accel_config config = o->accel;

    if (config.max_id == 0)
        config.max_id = highest_id(o, vcpus);
    config.notify_vector = AX_NOTIFY_VECTOR;
    config.wakeup_vector = AX_WAKEUP_VECTOR;
    return config;
}

static void make_arena(struct ax *ax, const struct vapic_accel_config *accel)
{
    size_t per_vcpu = 6 * PAGE + ((sizeof(struct ax_vcpu) + PAGE - 1) & ~(size_t)(PAGE - 1));

    ax->arena_size = ax->vcpus * per_vcpu + 64 * PAGE;
    if (accel->kind != VAPIC_ACCEL_NONE)
        ax->arena_size += vapic_accel_memory(accel);
    ax->arena = aligned_alloc(PAGE, (ax->arena_size + PAGE - 1) & ~(size_t)(PAGE - 1));
    assert_non_null(ax->arena);
    memset(ax->arena, 0, ax->arena_size);
    ax->scratch = ax_memory(ax, PAGE, PAGE);
}

static void make_silicon(struct ax *ax, const struct ax_options *o)
{
    static const struct vapic_sil_host host = {.size = sizeof(struct vapic_sil_host),
                                               .memory = sil_memory,
                                               .walk = sil_walk,
                                               .point = sil_point};
    struct vapic_sil_config config = o->silicon;

    config.vendor = ax->vendor->silicon;
    if (!o->silicon_set) {
        config.x2avic = (o->accel.features & VAPIC_ACCEL_X2AVIC) != 0;
        config.x2avic_ext = (o->accel.features & VAPIC_ACCEL_X2AVIC_EXT) != 0;
        config.ext_lvt = (o->accel.features & VAPIC_ACCEL_EXT_LVT) != 0;
        config.xapic_host = (o->accel.features & VAPIC_ACCEL_XAPIC_HOST) != 0;
    }
    ax->cpu_count = ax->vcpus + SPARE_CPUS;
    ax->cpus = calloc(ax->cpu_count, sizeof(*ax->cpus));
    ax->pcpus = calloc(ax->cpu_count, sizeof(*ax->pcpus));
    ax->by_id = calloc(AX_HOST_ID(ax->cpu_count), sizeof(struct vapic_sil_cpu *));
    assert_true(
        vapic_sil_init(&ax->silicon, &config, &host, ax, ax->by_id, AX_HOST_ID(ax->cpu_count)));
    for (uint32_t i = 0; i < ax->cpu_count; i++) {
        assert_true(vapic_sil_cpu_init(&ax->cpus[i], &ax->silicon, AX_HOST_ID(i)));
        assert_int_equal(vapic_pcpu_init(&ax->pcpus[i], sizeof(ax->pcpus[i]), AX_HOST_ID(i)),
                         VAPIC_OK);
    }
}

static void make_vm(struct ax *ax, const struct ax_options *o)
{
    struct vapic_vm_config config = o->config;
    size_t size;

    if (config.max_vcpus == 0)
        config.max_vcpus = ax->vcpus;
    size = vapic_vm_memory(&config);
    assert_true(size > 0);
    ax->memory_size = size;
    ax->memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_int_equal(
        vapic_vm_init(&ax->vm, sizeof(ax->vm), &config, &ax->host, ax, ax->memory, size), VAPIC_OK);
    if (o->trace)
        vapic_trace(&ax->vm, trace_event, ax);
}

static void make_accel(struct ax *ax, struct vapic_accel_config config)
{
    size_t size = vapic_accel_memory(&config);

    assert_true(size > 0);
    if (config.platform == NULL && config.vm_tag != 0) {
        assert_int_equal(vapic_platform_init(&ax->platform, sizeof(ax->platform), &ax->host, ax),
                         VAPIC_OK);
        config.platform = &ax->platform;
    }
    assert_int_equal(vapic_accel_init(&ax->accel, sizeof(ax->accel), &ax->vm, &config,
                                      ax_memory(ax, size, PAGE), size),
                     VAPIC_OK);
}

static void make_vcpu(struct ax *ax, uint32_t n, const struct ax_options *o)
{
    struct ax_vcpu *c = ax_memory(ax, sizeof(*c), 64);
    struct vapic_config config = {.id = o->ids != NULL ? o->ids[n] : n,
                                  .features = o->features,
                                  .bsp = n == 0,
                                  .max_lvt = o->max_lvt};

    ax->v[n] = c;
    c->ax = ax;
    c->n = n;
    c->guest_if = true;
    c->page = ax_memory(ax, PAGE, PAGE);
    if (!o->no_features)
        config.features |=
            VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS;
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &ax->vm, &config, c->page), VAPIC_OK);
    if (ax->vendor != NULL) {
        struct vapic_accel_vcpu_config accel;

        c->cpu = &ax->cpus[n];
        c->pcpu = &ax->pcpus[n];
        ax->vendor->create(c);
        if (o->on_create != NULL)
            o->on_create(c);
        accel = (struct vapic_accel_vcpu_config){.vmcb = c->vmcb};
        assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel),
                         VAPIC_OK);
        vapic_load(&c->apic, c->pcpu);
    }
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    if (o->x2apic)
        assert_int_equal(vapic_load_base(&c->apic, vapic_base(&c->apic) | APIC_BASE_EXTD),
                         VAPIC_OK);
}

/* From the first vCPU to all others, as firmware does. Nobody is in the guest yet. */
static void start_message(struct ax *ax, uint32_t icr)
{
    vapic_send(&ax->vm, (struct vapic_msg){.icr = icr | APIC_ICR_ALL_EXCL,
                                           .source = vapic_index(&ax->v[0]->apic)});
    for (uint32_t n = 0; n < ax->vcpus; n++) {
        struct vapic *v = &ax->v[n]->apic;
        struct vapic_entry entry;

        do {
            vapic_enter(v, VAPIC_CAN_INIT, ax->now, &entry);
        } while (entry.event != VAPIC_CPU_NONE);
        vapic_exit(v, (uint8_t)vapic_read_cr8(v), true);
    }
}

static void enable(struct ax *ax, uint32_t n)
{
    struct vapic *v = &ax->v[n]->apic;
    uint32_t svr = APIC_SVR_ENABLE | APIC_SVR_VECTOR;

    if (vapic_base(v) & APIC_BASE_EXTD)
        vapic_msr_write(v, MSR_X2APIC_FIRST + (APIC_SVR >> 4), svr, ax->now);
    else
        vapic_mmio_write(v, APIC_SVR, &svr, sizeof(svr), ax->now);
}

static void start_all(struct ax *ax, const struct ax_options *o)
{
    if (!o->parked) {
        start_message(ax, APIC_DM_INIT | APIC_ICR_ASSERT);
        start_message(ax, APIC_DM_SIPI);
    }
    for (uint32_t n = 0; n < ax->vcpus && !o->soft_disabled; n++)
        enable(ax, n);
}

struct ax *ax_new(const struct ax_options *options)
{
    struct ax *ax = calloc(1, sizeof(*ax));
    struct vapic_accel_config accel;

    assert_non_null(ax);
    ax->options = *options;
    ax->vcpus = options->vcpus != 0 ? options->vcpus : 1;
    ax->kind = options->accel.kind;
    if (ax->kind != VAPIC_ACCEL_NONE)
        ax->vendor = ax->kind == VAPIC_ACCEL_AVIC ? &ax_amd : &ax_intel;
    ax->executing = -1;
    ax->host = the_host;
    ax->now = (struct vapic_now){.ns = 1000000, .tsc = 1000000};
    ax->v = calloc(ax->vcpus, sizeof(struct ax_vcpu *));
    accel = accel_config(options, ax->vcpus);
    make_arena(ax, &accel);
    if (ax->vendor != NULL)
        make_silicon(ax, options);
    make_vm(ax, options);
    if (ax->vendor != NULL)
        make_accel(ax, accel);
    for (uint32_t n = 0; n < ax->vcpus; n++)
        make_vcpu(ax, n, options);
    start_all(ax, options);
    ax_forget(ax);
    return ax;
}

void ax_free(struct ax *ax)
{
    if (ax->vendor != NULL)
        vapic_accel_fini(&ax->accel);
    free(ax->cpus);
    free(ax->pcpus);
    free(ax->by_id);
    free(ax->memory);
    free(ax->arena);
    free(ax->log);
    free(ax->v);
    free(ax);
}

/* ---- Back to an earlier state ---- */

#define BLOCKS 6

struct block {
    void *at;
    size_t size;
};

struct ax_copy {
    struct block blocks[BLOCKS];
};

static void blocks_of(struct ax *ax, struct block to[BLOCKS])
{
    const struct block blocks[BLOCKS] = {
        {ax, sizeof(*ax)},
        {ax->arena, ax->arena_size},
        {ax->memory, ax->memory_size},
        {ax->cpus, ax->cpu_count * sizeof(*ax->cpus)},
        {ax->pcpus, ax->cpu_count * sizeof(*ax->pcpus)},
        {ax->by_id, AX_HOST_ID(ax->cpu_count) * sizeof(*ax->by_id)},
    };

    memcpy(to, blocks, sizeof(blocks));
}

struct ax_copy *ax_save(struct ax *ax)
{
    struct ax_copy *copy = malloc(sizeof(*copy));

    assert_non_null(copy);
    blocks_of(ax, copy->blocks);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct block *b = &copy->blocks[i];
        void *original = b->at;

        if (original == NULL) /* there is no silicon */
            b->size = 0;
        b->at = malloc(b->size + 1);
        assert_non_null(b->at);
        if (b->size > 0)
            memcpy(b->at, original, b->size);
    }
    return copy;
}

void ax_restore(struct ax *ax, const struct ax_copy *copy)
{
    struct ax_event *log = ax->log;
    uint32_t log_size = ax->log_size;
    struct block blocks[BLOCKS];

    blocks_of(ax, blocks);
    for (uint32_t i = 0; i < BLOCKS; i++)
        if (copy->blocks[i].size > 0)
            memcpy(blocks[i].at, copy->blocks[i].at, copy->blocks[i].size);
    ax->log = log;
    ax->log_size = log_size;
    ax->logged = 0;
}

struct vapic_ioapic *ax_ioapic(struct ax *ax)
{
    struct vapic_ioapic_config config = {0};

    assert_int_equal(vapic_ioapic_init(&ax->io, sizeof(ax->io), &ax->vm, &config, ax->pins),
                     VAPIC_OK);
    return &ax->io;
}

/* ---- The run loop ---- */

static uint32_t can_of(const struct ax_vcpu *c)
{
    if (c->injected != VAPIC_INJECT_NONE) /* the slot is not free */
        return VAPIC_CAN_INIT | (c->guest_if ? VAPIC_IF : 0);
    return VAPIC_CAN_INIT | VAPIC_CAN_NMI | (c->guest_if ? VAPIC_CAN_IRQ | VAPIC_IF : 0);
}

static void delivered(struct ax_vcpu *c, uint8_t vector)
{
    if (c->injected == VAPIC_INJECT_NMI)
        ax_log(c->ax, (struct ax_event){.kind = AX_NMI, .vcpu = c->n});
    else if (c->injected == VAPIC_INJECT_EXTINT)
        ax_log(c->ax, (struct ax_event){.kind = AX_EXTINT, .vcpu = c->n, .a = vector});
    else
        ax_log(c->ax, (struct ax_event){.kind = AX_DELIVERED, .vcpu = c->n, .a = vector});
    c->injected = VAPIC_INJECT_NONE;
    c->extint = 0;
}

static uint8_t fetch_extint(struct ax_vcpu *c)
{
    if (c->ax->on_inta != NULL)
        return (uint8_t)c->ax->on_inta(c->ax, c->n);
    vapic_set_lint(&c->apic, 0, false);
    return 0x20;
}

/* What c->entry wants injected goes into the injection slot. */
static void commit(struct ax_vcpu *c)
{
    if (c->entry.inject == VAPIC_INJECT_NONE)
        return;
    if (c->entry.inject == VAPIC_INJECT_EXTINT)
        c->extint = fetch_extint(c);
    vapic_commit(&c->apic, &c->entry);
    c->injected = (uint8_t)c->entry.inject;
}

static void after_exit(struct ax_vcpu *c, bool taken)
{
    c->entered = false;
    vapic_exit(&c->apic,
               c->ax->vendor != NULL ? c->ax->vendor->cr8(c) : (uint8_t)vapic_read_cr8(&c->apic),
               taken);
    if (taken || c->injected == VAPIC_INJECT_NONE)
        return;
    /* It did not get into the guest: chosen anew. (An ExtINT is kept by the vendor's half.) */
    if (c->injected != VAPIC_INJECT_EXTINT) {
        assert_true(vapic_not_delivered(&c->apic));
        c->injected = VAPIC_INJECT_NONE;
    }
}

/* The library alone: what is injected is delivered at once. */
static bool run_software(struct ax_vcpu *c)
{
    for (uint32_t i = 0; i < 1000; i++) {
        vapic_enter(&c->apic, can_of(c), c->ax->now, &c->entry);
        if (c->entry.event != VAPIC_CPU_NONE)
            continue;
        if (!c->entry.runnable)
            return false;
        commit(c);
        if (c->injected != VAPIC_INJECT_NONE)
            delivered(c, c->extint != 0 ? c->extint : c->entry.vector);
        after_exit(c, true);
        if (c->entry.inject == VAPIC_INJECT_NONE)
            return true;
    }
    fail_msg("vCPU %u: interrupts without end", c->n);
    return false;
}

static void wake(struct ax_vcpu *c)
{
    if (!c->blocked)
        return;
    c->blocked = false;
    c->woken = false;
    vapic_unblock(&c->apic);
}

static void log_exit(struct ax_vcpu *c)
{
    struct ax_event event = {.kind = AX_EXIT, .vcpu = c->n};

    c->ax->vendor->why(c, &event.a, &event.b, &event.c);
    ax_log(c->ax, event);
}

void ax_handle_interrupt(struct ax *ax, uint32_t cpu, uint8_t vector)
{
    if (vector == AX_WAKEUP_VECTOR)
        vapic_wakeup(&ax->vm, &ax->pcpus[cpu]);
    else if (vector != AX_KICK_VECTOR && vector != AX_NOTIFY_VECTOR && ax->on_interrupt != NULL)
        ax->on_interrupt(ax, cpu, vector);
}

/* The host's interrupt handlers. True: there were any. */
static bool take_interrupts(struct ax *ax, uint32_t cpu)
{
    bool any = false;
    int vector;

    while ((vector = vapic_sil_take_interrupt(&ax->cpus[cpu])) >= 0) {
        ax_handle_interrupt(ax, cpu, (uint8_t)vector);
        any = true;
    }
    return any;
}

/* The silicon has left the guest. */
static enum ax_result take_exit(struct ax_vcpu *c, struct ax_op *op)
{
    log_exit(c);
    c->ax->executing = -1;
    after_exit(c, c->injected == VAPIC_INJECT_NONE);
    take_interrupts(c->ax, (uint32_t)(c->cpu - c->ax->cpus));
    return c->ax->vendor->exit(c, op);
}

static void enter_silicon(struct ax_vcpu *c)
{
    enum vapic_sil_result result = c->ax->vendor->enter(c);

    ax_log(c->ax, (struct ax_event){.kind = AX_ENTRY, .vcpu = c->n});
    if (result == VAPIC_SIL_EXIT)
        take_exit(c, NULL);
    else
        assert_int_equal(result, VAPIC_SIL_DONE);
}

bool ax_enter(struct ax *ax, uint32_t n)
{
    struct ax_vcpu *c = ax->v[n];

    wake(c);
    if (ax->vendor == NULL)
        return run_software(c);
    if (c->entered)
        return true;
    assert_non_null(c->cpu); /* ax_load() it */
    for (uint32_t i = 0; i < 1000 && !c->entered; i++) {
        vapic_enter(&c->apic, can_of(c), ax->now, &c->entry);
        if (c->entry.event != VAPIC_CPU_NONE)
            continue;
        if (!c->entry.runnable)
            return false;
        c->entered = true;
        commit(c);
        if (ax->before_entry != NULL)
            ax->before_entry(ax, n);
        if (c->entered)
            enter_silicon(c);
    }
    assert_true(c->entered);
    return true;
}

void ax_leave(struct ax *ax, uint32_t n)
{
    struct ax_vcpu *c = ax->v[n];

    if (!c->entered)
        return;
    if (!c->cpu->in_guest) { /* between vapic_enter() and the entry: cancelled */
        after_exit(c, c->injected == VAPIC_INJECT_NONE);
        return;
    }
    vapic_sil_leave(c->cpu, ax->vendor->leave_code, 0, 0);
    take_exit(c, NULL);
}

/* The handler of an NMI is over at once, and so is what waited for its IRET. */
static void deliver(struct ax_vcpu *c, uint8_t vector)
{
    bool look_again = c->injected == VAPIC_INJECT_NMI && c->entry.nmi_window;

    delivered(c, vector);
    if (look_again)
        ax_leave(c->ax, c->n);
}

/* False: the vCPU does not run (any more). */
static bool boundaries(struct ax_vcpu *c)
{
    for (uint32_t i = 0; i < 10000; i++) {
        enum vapic_sil_result result;
        uint8_t vector = 0;

        if (!ax_enter(c->ax, c->n))
            return false;
        result = vapic_sil_boundary(c->cpu, &vector);
        if (result == VAPIC_SIL_NOTHING)
            return true;
        if (result == VAPIC_SIL_DELIVER)
            deliver(c, vector);
        else
            assert_int_equal(take_exit(c, NULL), AX_RETRY);
    }
    fail_msg("vCPU %u: interrupts without end", c->n);
    return false;
}

static void sleep_or_not(struct ax_vcpu *c)
{
    if (!c->blocked && vapic_block(&c->apic))
        c->blocked = true;
    else if (!c->blocked)
        c->ax->total++; /* something has come meanwhile: look again */
}

void ax_run(struct ax *ax, uint32_t n)
{
    struct ax_vcpu *c = ax->v[n];
    bool runs;

    if (c->blocked && !c->woken)
        return;
    if (ax->vendor != NULL && c->cpu == NULL)
        return;
    runs = ax->vendor == NULL ? ax_enter(ax, n) : boundaries(c);
    if (!runs)
        sleep_or_not(c);
}

void ax_settle(struct ax *ax)
{
    uint64_t before;
    uint32_t rounds = 0;

    do {
        before = ax->total;
        for (uint32_t n = 0; n < ax->vcpus; n++)
            ax_run(ax, n);
        /* Processors that sleep, or run nobody. */
        for (uint32_t i = 0; i < ax->cpu_count; i++)
            if (!ax->cpus[i].in_guest && take_interrupts(ax, i))
                ax->total++;
        assert_true(++rounds < 1000);
    } while (ax->total != before);
}

void ax_put(struct ax *ax, uint32_t n)
{
    struct ax_vcpu *c = ax->v[n];

    ax_leave(ax, n);
    vapic_put(&c->apic);
    c->cpu = NULL;
    c->pcpu = NULL;
}

void ax_load(struct ax *ax, uint32_t n, uint32_t cpu)
{
    struct ax_vcpu *c = ax->v[n];

    assert_true(cpu < ax->cpu_count);
    c->cpu = &ax->cpus[cpu];
    c->pcpu = &ax->pcpus[cpu];
    vapic_load(&c->apic, c->pcpu);
}

void ax_tick(struct ax *ax, uint64_t ns)
{
    ax->now.ns += ns;
    ax->now.tsc += ns;
    for (uint32_t n = 0; n < ax->vcpus; n++) {
        ax_leave(ax, n);
        ax->v[n]->woken = ax->v[n]->blocked;
    }
    ax_settle(ax);
}

bool ax_post(struct ax *ax, uint32_t n, uint8_t vector, bool level)
{
    bool accepted = false;

    ax_act(ax, n, vapic_post(&ax->v[n]->apic, vector, level, &accepted));
    return accepted;
}

/* ---- Instructions ---- */

static enum ax_result emulate_mmio(struct ax_vcpu *c, struct ax_op *op)
{
    uint32_t offset = (uint32_t)(op->address & (PAGE - 1));

    if (!vapic_mmio_claims(&c->apic, op->address))
        fail_msg("vCPU %u: nothing at %#llx", c->n, (unsigned long long)op->address);
    if (op->write) {
        vapic_mmio_write(&c->apic, offset, &op->value, op->size, c->ax->now);
    } else {
        op->value = 0;
        vapic_mmio_read(&c->apic, offset, &op->value, op->size, c->ax->now);
    }
    return AX_DONE;
}

static enum ax_result result_of(int result)
{
    assert_true(result == VAPIC_OK || result == VAPIC_GP);
    return result == VAPIC_OK ? AX_DONE : AX_GP;
}

static enum ax_result emulate_cr8(struct ax_vcpu *c, struct ax_op *op)
{
    if (op->write)
        return result_of(vapic_write_cr8(&c->apic, op->value));
    op->value = vapic_read_cr8(&c->apic);
    return AX_DONE;
}

enum ax_result ax_emulate(struct ax_vcpu *c, struct ax_op *op)
{
    switch (op->kind) {
    case AX_MMIO:
        return emulate_mmio(c, op);
    case AX_MSR:
        if (op->write)
            return result_of(
                vapic_msr_write(&c->apic, (uint32_t)op->address, op->value, c->ax->now));
        return result_of(vapic_msr_read(&c->apic, (uint32_t)op->address, &op->value, c->ax->now));
    case AX_CR8:
        return emulate_cr8(c, op);
    case AX_HLT:
        break;
    }
    vapic_halt(&c->apic);
    return AX_DONE;
}

static enum vapic_sil_result do_access(struct ax_vcpu *c, struct ax_op *op)
{
    struct vapic_sil_access access = {
        .gpa = op->address,
        .kind = op->write ? VAPIC_SIL_WRITE : VAPIC_SIL_READ,
        .size = op->size,
        .length = LENGTH,
        .value = op->value,
    };
    enum vapic_sil_result result = vapic_sil_access(c->cpu, &access);

    if (result == VAPIC_SIL_DONE)
        op->value = access.value;
    return result;
}

static enum vapic_sil_result perform(struct ax_vcpu *c, struct ax_op *op)
{
    switch (op->kind) {
    case AX_MMIO:
        return do_access(c, op);
    case AX_MSR:
        if (op->write)
            return vapic_sil_wrmsr(c->cpu, (uint32_t)op->address, op->value);
        return vapic_sil_rdmsr(c->cpu, (uint32_t)op->address, &op->value);
    case AX_CR8:
        if (op->write)
            return vapic_sil_write_cr8(c->cpu, op->value);
        return vapic_sil_read_cr8(c->cpu, &op->value);
    case AX_HLT:
        break;
    }
    return vapic_sil_hlt(c->cpu);
}

static enum ax_result executed(struct ax_vcpu *c, struct ax_op *op, enum vapic_sil_result result)
{
    switch (result) {
    case VAPIC_SIL_DONE:
        return AX_DONE;
    case VAPIC_SIL_GP:
        return AX_GP;
    case VAPIC_SIL_NATIVE:
        return AX_NATIVE;
    case VAPIC_SIL_EXIT:
        return take_exit(c, op);
    default:
        fail_msg("vCPU %u: the silicon says %d", c->n, (int)result);
        return AX_STUCK;
    }
}

enum ax_result ax_execute(struct ax *ax, uint32_t n, struct ax_op *op)
{
    struct ax_vcpu *c = ax->v[n];
    enum ax_result result = AX_RETRY;

    if (c->blocked && !c->woken)
        return AX_STUCK;
    if (ax->vendor == NULL)
        return ax_enter(ax, n) ? ax_emulate(c, op) : AX_STUCK;
    for (uint32_t i = 0; i < 1000 && result == AX_RETRY; i++) {
        if (!boundaries(c))
            return AX_STUCK;
        ax->executing = (int)n;
        result = executed(c, op, perform(c, op));
        ax->executing = -1;
    }
    assert_int_not_equal(result, AX_RETRY);
    return result;
}

enum ax_result ax_mmio(struct ax *ax, uint32_t n, bool write, uint64_t gpa, uint64_t *value)
{
    struct ax_op op = {AX_MMIO, write, 4, gpa, write ? *value : 0};
    enum ax_result result = ax_execute(ax, n, &op);

    *value = op.value;
    return result;
}

enum ax_result ax_rdmsr(struct ax *ax, uint32_t n, uint32_t msr, uint64_t *value)
{
    struct ax_op op = {AX_MSR, false, 0, msr, 0};
    enum ax_result result = ax_execute(ax, n, &op);

    *value = op.value;
    return result;
}

enum ax_result ax_wrmsr(struct ax *ax, uint32_t n, uint32_t msr, uint64_t value)
{
    struct ax_op op = {AX_MSR, true, 0, msr, value};

    return ax_execute(ax, n, &op);
}

static bool by_msr(const struct ax *ax, uint32_t n)
{
    return (vapic_base(&ax->v[n]->apic) & APIC_BASE_EXTD) != 0;
}

enum ax_result ax_try_read(struct ax *ax, uint32_t n, uint32_t offset, uint64_t *value)
{
    if (by_msr(ax, n))
        return ax_rdmsr(ax, n, MSR_X2APIC_FIRST + (offset >> 4), value);
    return ax_mmio(ax, n, false, APIC_DEFAULT_BASE + offset, value);
}

enum ax_result ax_try_write(struct ax *ax, uint32_t n, uint32_t offset, uint64_t value)
{
    if (by_msr(ax, n))
        return ax_wrmsr(ax, n, MSR_X2APIC_FIRST + (offset >> 4), value);
    return ax_mmio(ax, n, true, APIC_DEFAULT_BASE + offset, &value);
}

uint32_t ax_read(struct ax *ax, uint32_t n, uint32_t offset)
{
    uint64_t value = 0;

    assert_int_equal(ax_try_read(ax, n, offset, &value), AX_DONE);
    return (uint32_t)value;
}

void ax_write(struct ax *ax, uint32_t n, uint32_t offset, uint64_t value)
{
    assert_int_equal(ax_try_write(ax, n, offset, value), AX_DONE);
}

uint8_t ax_read_cr8(struct ax *ax, uint32_t n)
{
    struct ax_op op = {AX_CR8, false, 0, 0, 0};

    assert_int_equal(ax_execute(ax, n, &op), AX_DONE);
    return (uint8_t)op.value;
}

void ax_write_cr8(struct ax *ax, uint32_t n, uint8_t value)
{
    struct ax_op op = {AX_CR8, true, 0, 0, value};

    assert_int_equal(ax_execute(ax, n, &op), AX_DONE);
}

void ax_hlt(struct ax *ax, uint32_t n)
{
    struct ax_op op = {AX_HLT, false, 0, 0, 0};

    assert_int_equal(ax_execute(ax, n, &op), AX_DONE);
}

void ax_ipi(struct ax *ax, uint32_t n, uint32_t icr, uint32_t dest)
{
    if (by_msr(ax, n)) {
        ax_write(ax, n, APIC_ICR, (uint64_t)dest << 32 | icr);
        return;
    }
    ax_write(ax, n, APIC_ICR2, (uint64_t)dest << 24);
    ax_write(ax, n, APIC_ICR, icr);
}

void ax_eoi(struct ax *ax, uint32_t n)
{
    ax_write(ax, n, APIC_EOI, 0);
}

void ax_if(struct ax *ax, uint32_t n, bool enabled)
{
    struct ax_vcpu *c = ax->v[n];

    c->guest_if = enabled;
    if (c->entered && c->cpu->in_guest)
        c->cpu->guest.interrupt_flag = enabled;
}

/* ---- The page ---- */

uint32_t ax_page(const struct ax *ax, uint32_t n, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, ax->v[n]->page + offset, sizeof(value));
    return value;
}

bool ax_page_bit(const struct ax *ax, uint32_t n, uint32_t base, uint8_t vector)
{
    return (ax_page(ax, n, base + (vector >> 5) * 16u) >> (vector & 31)) & 1;
}
