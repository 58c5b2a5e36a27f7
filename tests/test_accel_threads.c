/* SPDX-License-Identifier: MIT */
/*
 * Four vCPUs with a thread each on modelled processors, a thread of devices (messages by software
 * and by the IOMMU), an administrator who sets and clears reasons for inhibition, and a scheduler
 * who moves vCPUs between processors, all at once.
 *
 * Every source has a vector of its own at every target and sends again only after the last one was
 * taken. So each interrupt is taken exactly once: one that is lost stops its source, one that is
 * doubled is counted too often. A sleeping vCPU sleeps until it is woken.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"
#include "vapic/arch/atomic.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VCPUS      4u
#define BY_MSI     4u /* sources 0 to 3 are vCPUs */
#define BY_IOMMU   5u
#define BY_TIMER   6u
#define SOURCES    7u
#define QUOTA      400u /* of each source to each target */
#define PATIENCE_S 20

struct vcpu {
    struct ax_vcpu *c;
    pthread_t thread;
    sem_t signal;       /* WAKE, and whatever reaches the processor of a sleeper */
    uint32_t host_id;   /* atomic: where it runs */
    uint32_t outside;   /* atomic: how often it has left the guest */
    uint32_t preempt;   /* atomic: the scheduler wants it to move */
    uint32_t woken;     /* atomic: by host.notify() */
    uint32_t page_seen; /* generation of the access page that its processor has flushed for */
    uint32_t processor;
    uint32_t eois, step;
    struct ax_op op;
    bool has_op;
};

static struct world {
    struct ax *ax;
    struct vcpu v[VCPUS];
    pthread_mutex_t lock, processors;
    uint32_t taken[64];                                      /* under `processors` */
    uint32_t page_mapped, page_generation;                   /* atomic */
    uint32_t sent[SOURCES][VCPUS], received[SOURCES][VCPUS]; /* atomic */
    uint32_t stop, failed;                                   /* atomic */
    uint32_t toggles, moves; /* each written by its thread; atomic */
    struct vapic_sil_amd_iommu iommu;
    struct vapic_irte irte[VCPUS];
    uint64_t words[VCPUS][2] __attribute__((aligned(16)));
    uint64_t log[64];
} * w;

static uint32_t load(const uint32_t *word)
{
    return vapic_load32(word, VAPIC_SEQ_CST);
}

static void store(uint32_t *word, uint32_t value)
{
    vapic_store32(word, value, VAPIC_SEQ_CST);
}

static uint8_t vector_of(uint32_t source, uint32_t target)
{
    return (uint8_t)(0x30 + 0x10 * source + 3 * target);
}

/* Only one at a time is under way. */
static bool may_send(uint32_t source, uint32_t target)
{
    uint32_t sent = load(&w->sent[source][target]);

    return sent < QUOTA && load(&w->received[source][target]) == sent;
}

static void count_sent(uint32_t source, uint32_t target)
{
    vapic_add32(&w->sent[source][target], 1, VAPIC_SEQ_CST);
}

static bool everything_taken(void)
{
    for (uint32_t s = 0; s < SOURCES; s++)
        for (uint32_t t = 0; t < VCPUS; t++)
            if (load(&w->received[s][t]) != QUOTA)
                return false;
    return true;
}

static void went_wrong(const char *what, uint32_t a, uint32_t b)
{
    if (vapic_xchg32(&w->failed, 1, VAPIC_SEQ_CST) == 0)
        fprintf(stderr, "%s (%u, %u)\n", what, a, b);
}

/* ---- The host ---- */

static struct vcpu *vcpu_of(struct vapic *v)
{
    return &w->v[((struct ax_vcpu *)(void *)v)->n];
}

static void host_lock(void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&w->lock);
}

static void host_unlock(void *ctx)
{
    (void)ctx;
    pthread_mutex_unlock(&w->lock);
}

static void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    while (vapic_xchg32(word, 1, VAPIC_SEQ_CST) != 0)
        sched_yield();
}

static void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    store(word, 0);
}

static void kick(struct vcpu *v)
{
    vapic_sil_interrupt(&w->ax->silicon, load(&v->host_id), AX_KICK_VECTOR);
}

static void wake(struct vcpu *v)
{
    store(&v->woken, 1);
    sem_post(&v->signal);
}

static void act(struct vapic *v, enum vapic_action action)
{
    uint32_t id;

    if (action == VAPIC_ACTION_KICK)
        kick(vcpu_of(v));
    else if (action == VAPIC_ACTION_WAKE)
        wake(vcpu_of(v));
    else if (action == VAPIC_ACTION_DOORBELL && vapic_doorbell_id(v, &id)) {
        if (w->ax->kind == VAPIC_ACCEL_AVIC)
            vapic_sil_doorbell(&w->ax->silicon, id);
        else
            vapic_sil_interrupt(&w->ax->silicon, id, AX_NOTIFY_VECTOR);
    }
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    (void)ctx;
    act(target, action);
}

static void host_kick_all(void *ctx)
{
    uint32_t before[VCPUS];

    (void)ctx;
    for (uint32_t n = 0; n < VCPUS; n++) {
        before[n] = load(&w->v[n].outside);
        if (vapic_in_guest(&w->v[n].c->apic))
            kick(&w->v[n]);
    }
    for (uint32_t n = 0; n < VCPUS; n++)
        while (vapic_in_guest(&w->v[n].c->apic) && load(&w->v[n].outside) == before[n])
            sched_yield();
}

/* Called with everybody outside (the tests do not change modes); caches go before the next entry.
 */
static void host_access_page(void *ctx, bool mapped)
{
    (void)ctx;
    store(&w->page_mapped, mapped);
    vapic_add32(&w->page_generation, 1, VAPIC_SEQ_CST);
}

static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    w->ax->vendor->flush(vcpu_of(v)->c);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    w->ax->vendor->intercept(vcpu_of(v)->c, pass);
}

static void host_irte(void *ctx, void *irte_ctx, const uint64_t value[2], bool invalidate)
{
    uint64_t *to = irte_ctx;

    (void)ctx;
    (void)invalidate;
    /* In one piece on silicon. The model reads the low word again after the high one; as the low
     * word says which form it is, it must be the one that is not valid for both. */
    vapic_store64(&to[0], 0, VAPIC_SEQ_CST);
    vapic_store64(&to[1], value[1], VAPIC_SEQ_CST);
    vapic_store64(&to[0], value[0], VAPIC_SEQ_CST);
}

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    (void)ctx;
    went_wrong("an edge was ended as a level", vcpu_of(v)->c->n, vector);
}

static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct ax *ax = ctx;

    (void)cpu;
    if (gpa != APIC_DEFAULT_BASE || !load(&w->page_mapped))
        return false;
    *page = (struct vapic_sil_page){ax_hpa(ax, ax->scratch), true, true};
    return true;
}

/* Something reached a processor; if a vCPU sleeps there its thread is the one to look. */
static void sil_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    (void)ctx;
    for (uint32_t n = 0; n < VCPUS; n++)
        if (load(&w->v[n].host_id) == cpu->apic_id)
            sem_post(&w->v[n].signal);
}

/* ---- Processors ---- */

static uint32_t get_processor(uint32_t from)
{
    uint32_t i = from;

    pthread_mutex_lock(&w->processors);
    do
        i = (i + 1) % w->ax->cpu_count;
    while (w->taken[i]);
    w->taken[i] = 1;
    pthread_mutex_unlock(&w->processors);
    return i;
}

static void free_processor(uint32_t i)
{
    pthread_mutex_lock(&w->processors);
    w->taken[i] = 0;
    pthread_mutex_unlock(&w->processors);
}

static void run_on(struct vcpu *v, uint32_t processor)
{
    v->processor = processor;
    v->c->cpu = &w->ax->cpus[processor];
    v->c->pcpu = &w->ax->pcpus[processor];
    v->page_seen = 0;
    store(&v->host_id, v->c->cpu->apic_id);
    vapic_load(&v->c->apic, v->c->pcpu);
}

static void take_interrupts(struct vcpu *v)
{
    int vector;

    while ((vector = vapic_sil_take_interrupt(v->c->cpu)) >= 0)
        if (vector == AX_WAKEUP_VECTOR)
            vapic_wakeup(&w->ax->vm, v->c->pcpu);
}

static void move(struct vcpu *v)
{
    uint32_t old = v->processor;

    vapic_put(&v->c->apic);
    take_interrupts(v);
    run_on(v, get_processor(old));
    free_processor(old);
}

/* ---- The guest ---- */

static struct ax_op msr_or_mmio(const struct vcpu *v, uint32_t offset, uint64_t value)
{
    if (vapic_base(&v->c->apic) & APIC_BASE_EXTD)
        return (struct ax_op){AX_MSR, true, 0, MSR_X2APIC_FIRST + (offset >> 4), value};
    return (struct ax_op){AX_MMIO, true, 4, APIC_DEFAULT_BASE + offset, value};
}

static bool send_one(struct vcpu *v, struct ax_op *op)
{
    bool x2 = (vapic_base(&v->c->apic) & APIC_BASE_EXTD) != 0;
    uint32_t n = v->c->n, target = v->step / 2 % VCPUS;

    if (v->step % 2 == 0 && !may_send(n, target)) {
        v->step += 2;
        return false;
    }
    if (v->step++ % 2 == 0) { /* the high word first; x2APIC mode has one register */
        *op = msr_or_mmio(v, APIC_ICR2, (uint64_t)target << 24);
        if (x2)
            *op = (struct ax_op){AX_CR8, true, 0, 0, 0};
        return true;
    }
    count_sent(n, target);
    *op = msr_or_mmio(v, APIC_ICR,
                      (x2 ? (uint64_t)target << 32 : 0) | APIC_ICR_ASSERT | vector_of(n, target));
    return true;
}

static struct ax_op next_op(struct vcpu *v)
{
    struct ax_op op;

    if (v->eois != 0) {
        v->eois--;
        return msr_or_mmio(v, APIC_EOI, 0);
    }
    for (uint32_t i = 0; i < VCPUS; i++)
        if (send_one(v, &op))
            return op;
    if (v->step / 2 % 8 == 0 && may_send(BY_TIMER, v->c->n)) {
        count_sent(BY_TIMER, v->c->n);
        v->step += 2;
        return msr_or_mmio(v, APIC_TMICT, 1);
    }
    v->step += 2;
    /* While the device has something to wake it with. */
    if (v->step / 2 % 3 == 0 && load(&w->received[BY_MSI][v->c->n]) < QUOTA)
        return (struct ax_op){AX_HLT, true, 0, 0, 0};
    return (struct ax_op){AX_CR8, true, 0, 0, v->step / 2 % 2};
}

static void delivered(struct vcpu *v, uint8_t vector)
{
    uint32_t source = (vector - 0x30u) / 0x10, target = vector % 0x10 / 3;

    if (vector < 0x30 || source >= SOURCES || target != v->c->n) {
        went_wrong("a vector that nobody sent", v->c->n, vector);
        return;
    }
    v->eois++;
    v->c->injected = VAPIC_INJECT_NONE;
    if (vapic_add32(&w->received[source][target], 1, VAPIC_SEQ_CST) + 1 >
        load(&w->sent[source][target]))
        went_wrong("taken twice", source, target);
}

static enum vapic_sil_result perform(struct vcpu *v)
{
    struct vapic_sil_cpu *cpu = v->c->cpu;
    struct vapic_sil_access access = {.gpa = v->op.address,
                                      .kind = VAPIC_SIL_WRITE,
                                      .size = v->op.size,
                                      .length = 3,
                                      .value = v->op.value};

    switch (v->op.kind) {
    case AX_MMIO:
        return vapic_sil_access(cpu, &access);
    case AX_MSR:
        return vapic_sil_wrmsr(cpu, (uint32_t)v->op.address, v->op.value);
    case AX_CR8:
        return vapic_sil_write_cr8(cpu, v->op.value);
    case AX_HLT:
        break;
    }
    return vapic_sil_hlt(cpu);
}

/* In the guest until an exit. True: it was the instruction's. */
static bool guest(struct vcpu *v)
{
    for (;;) {
        uint8_t vector = 0;
        enum vapic_sil_result result = vapic_sil_boundary(v->c->cpu, &vector);

        if (result == VAPIC_SIL_EXIT)
            return false;
        if (result == VAPIC_SIL_DELIVER) {
            delivered(v, vector);
            continue;
        }
        if (load(&v->preempt) || load(&w->stop)) {
            vapic_sil_leave(v->c->cpu, w->ax->vendor->leave_code, 0, 0);
            return false;
        }
        if (!v->has_op)
            v->op = next_op(v);
        v->has_op = true;
        if (perform(v) == VAPIC_SIL_EXIT)
            return true;
        v->has_op = false;
    }
}

/* ---- The run loop of a vCPU ---- */

/* An interrupt of its processor does not wake the vCPU, unless the library says so. */
static void sleep_until_woken(struct vcpu *v)
{
    struct timespec until;

    store(&v->woken, 0);
    if (!vapic_block(&v->c->apic))
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2 * PATIENCE_S;
    while (!load(&v->woken) && !load(&w->stop) && !load(&w->failed)) {
        if (sem_timedwait(&v->signal, &until) != 0)
            went_wrong("sleeps on", v->c->n, 0);
        take_interrupts(v);
    }
    vapic_unblock(&v->c->apic);
}

static void flush_page(struct vcpu *v)
{
    uint32_t now = load(&w->page_generation);

    if (v->page_seen != now)
        vapic_sil_flush(v->c->cpu, APIC_DEFAULT_BASE);
    v->page_seen = now;
}

static void once(struct vcpu *v)
{
    struct vapic *apic = &v->c->apic;
    struct vapic_now now = {w->ax->now.ns + 1000000000, w->ax->now.tsc + 1000000000};
    bool by_op, taken;

    vapic_enter(apic, VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF, now, &v->c->entry);
    if (v->c->entry.event != VAPIC_CPU_NONE)
        return;
    if (!v->c->entry.runnable) {
        sleep_until_woken(v);
        return;
    }
    v->c->injected = (uint8_t)v->c->entry.inject;
    vapic_commit(apic, &v->c->entry);
    flush_page(v);
    if (w->ax->vendor->enter(v->c) != VAPIC_SIL_DONE) {
        went_wrong("the entry fails", v->c->n, 0);
        store(&w->stop, 1);
        return;
    }
    by_op = guest(v);
    taken = v->c->injected == VAPIC_INJECT_NONE;
    vapic_exit(apic, w->ax->vendor->cr8(v->c), taken);
    vapic_add32(&v->outside, 1, VAPIC_SEQ_CST);
    if (!taken)
        vapic_not_delivered(apic);
    v->c->injected = VAPIC_INJECT_NONE;
    take_interrupts(v);
    if (w->ax->vendor->exit(v->c, by_op ? &v->op : NULL) == AX_DONE && by_op)
        v->has_op = false;
}

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;

    while (!load(&w->stop) && !load(&w->failed)) {
        if (vapic_xchg32(&v->preempt, 0, VAPIC_SEQ_CST))
            move(v);
        once(v);
    }
    return NULL;
}

/* ---- Devices, the administrator, the scheduler ---- */

static void by_iommu(uint32_t n)
{
    enum vapic_sil_msi result;
    bool accepted;

    if (w->ax->kind == VAPIC_ACCEL_APICV) {
        vapic_sil_vtd_msi(&w->ax->silicon, w->words[n], (uint16_t)n);
        return;
    }
    do
        result = vapic_sil_amd_msi(&w->iommu, w->words[n], (uint16_t)n);
    while (result == VAPIC_SIL_MSI_BLOCKED); /* it was between its two forms */
    if (result == VAPIC_SIL_MSI_REMAPPED)
        act(&w->v[n].c->apic,
            vapic_post(&w->v[n].c->apic, vector_of(BY_IOMMU, n), false, &accepted));
    while (w->iommu.head != load(&w->iommu.tail)) {
        vapic_ga_log(&w->ax->platform, w->log[w->iommu.head]);
        w->iommu.head = (w->iommu.head + 1) % w->iommu.entries;
    }
}

static void *device_main(void *unused)
{
    (void)unused;
    while (!load(&w->stop) && !load(&w->failed)) {
        for (uint32_t n = 0; n < VCPUS; n++) {
            if (may_send(BY_MSI, n)) {
                count_sent(BY_MSI, n);
                vapic_msi(&w->ax->vm, APIC_DEFAULT_BASE | n << 12, vector_of(BY_MSI, n));
            }
            if (may_send(BY_IOMMU, n)) {
                count_sent(BY_IOMMU, n);
                by_iommu(n);
            }
        }
        sched_yield();
    }
    return NULL;
}

static void pause_us(long us)
{
    struct timespec t = {.tv_nsec = us * 1000};

    nanosleep(&t, NULL);
}

static void *administrator_main(void *unused)
{
    bool set = false;

    (void)unused;
    while (!load(&w->stop) && !load(&w->failed)) {
        set = !set;
        vapic_set_inhibit(&w->ax->vm, VAPIC_INHIBIT_BLOCKIRQ, set);
        store(&w->toggles, w->toggles + 1);
        pause_us(set ? 50 : 300);
    }
    return NULL;
}

static void *scheduler_main(void *unused)
{
    uint32_t n = 0;

    (void)unused;
    while (!load(&w->stop) && !load(&w->failed)) {
        n = (n + 1) % VCPUS;
        store(&w->v[n].preempt, 1); /* a sleeper moves when it has been woken */
        store(&w->moves, w->moves + 1);
        pause_us(200);
    }
    return NULL;
}

/* ---- The test ---- */

static void connect_devices(struct ax *ax)
{
    static const uint64_t remapped[2] = {AMD_IRTE_VALID | 0xFFFull << AMD_IRTE_DEST_LOW_SHIFT,
                                         0xE0};

    w->iommu = (struct vapic_sil_amd_iommu){.machine = &ax->silicon, .log = w->log, .entries = 64};
    if (ax->kind == VAPIC_ACCEL_APICV)
        vapic_device_attached(&ax->vm);
    for (uint32_t n = 0; n < VCPUS; n++) {
        uint8_t vector = vector_of(BY_IOMMU, n);

        if (ax->kind == VAPIC_ACCEL_APICV)
            assert_int_equal(vapic_vtd_irte(&ax->v[n]->apic, vector, (uint16_t)n, w->words[n]),
                             VAPIC_OK);
        else
            assert_int_equal(
                vapic_irte_attach(&w->irte[n], &ax->v[n]->apic, vector, remapped, w->words[n]),
                VAPIC_OK);
    }
}

static void take_over(struct ax *ax)
{
    struct vapic_host *h = &ax->vm.host;

    h->lock = host_lock;
    h->unlock = host_unlock;
    h->spin_lock = host_spin_lock;
    h->spin_unlock = host_spin_unlock;
    h->notify = host_notify;
    h->kick_all = host_kick_all;
    h->access_page = host_access_page;
    h->flush = host_flush;
    h->intercept = host_intercept;
    h->irte = host_irte;
    h->eoi = host_eoi;
    ax->platform.spin_lock = host_spin_lock;
    ax->platform.spin_unlock = host_spin_unlock;
    ax->silicon.host.walk = sil_walk;
    ax->silicon.host.signal = sil_signal;
}

static void set_up(enum ax_mode_index mode, bool x2apic)
{
    struct ax_options options = ax_options_for(mode, VCPUS);

    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    options.x2apic = x2apic;
    if (ax_modes[mode].kind == VAPIC_ACCEL_AVIC)
        options.accel.vm_tag = 1;
    w->ax = ax_new(&options);
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->processors, NULL);
    take_over(w->ax);
    w->ax->silent = true;
    w->page_mapped = w->ax->page_mapped;
    w->page_generation = 1;
    connect_devices(w->ax);
    for (uint32_t n = 0; n < VCPUS; n++) {
        uint32_t lvt = vector_of(BY_TIMER, n);
        struct vcpu *v = &w->v[n];

        v->c = w->ax->v[n];
        v->processor = n;
        v->host_id = v->c->cpu->apic_id;
        w->taken[n] = 1;
        sem_init(&v->signal, 0, 0);
        if (x2apic)
            vapic_msr_write(&v->c->apic, 0x832, lvt, w->ax->now);
        else
            vapic_mmio_write(&v->c->apic, APIC_LVT_TIMER, &lvt, 4, w->ax->now);
    }
}

/* What there is to see when somebody waits for ever. */
static void print_state(void)
{
    for (uint32_t n = 0; n < VCPUS; n++) {
        const struct ax_vcpu *c = w->v[n].c;

        fprintf(stderr, "vCPU %u: presence %u, active %u, ON %u, activity %u, IRR", n,
                load(&w->v[n].c->apic.presence), load(&w->v[n].c->apic.active),
                (unsigned)c->apic.pid.control & 1, c->apic.activity);
        for (uint32_t i = 0; i < 8; i++)
            fprintf(stderr, " %x", ax_page(w->ax, n, APIC_IRR + 16 * i));
        fprintf(stderr, ", not taken:");
        for (uint32_t s = 0; s < SOURCES; s++)
            if (load(&w->sent[s][n]) != load(&w->received[s][n]))
                fprintf(stderr, " %#x", vector_of(s, n));
        fprintf(stderr, "\n");
    }
}

/* A fast machine may be through before administrator and scheduler have had their turns. */
static bool disturbed(void)
{
    return load(&w->toggles) > 10 && load(&w->moves) > 10;
}

static void wait_for_the_end(void)
{
    for (uint32_t ms = 0; !(everything_taken() && disturbed()) && !load(&w->failed); ms += 2) {
        if (ms > PATIENCE_S * 1000)
            went_wrong("interrupts are lost", 0, 0);
        pause_us(2000);
    }
    if (load(&w->failed))
        print_state();
    store(&w->stop, 1);
    for (uint32_t n = 0; n < VCPUS; n++)
        sem_post(&w->v[n].signal);
}

static void report_missing(void)
{
    for (uint32_t s = 0; s < SOURCES; s++)
        for (uint32_t t = 0; t < VCPUS; t++)
            if (w->sent[s][t] != w->received[s][t] || w->sent[s][t] != QUOTA)
                fail_msg("source %u to vCPU %u: sent %u, taken %u", s, t, w->sent[s][t],
                         w->received[s][t]);
}

static void storm(enum ax_mode_index mode, bool x2apic)
{
    void *(*const mains[3])(void *) = {device_main, administrator_main, scheduler_main};
    pthread_t others[3];

    set_up(mode, x2apic);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(pthread_create(&w->v[n].thread, NULL, vcpu_main, &w->v[n]), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&others[i], NULL, mains[i], NULL), 0);
    wait_for_the_end();
    for (uint32_t n = 0; n < VCPUS; n++)
        pthread_join(w->v[n].thread, NULL);
    for (uint32_t i = 0; i < 3; i++)
        pthread_join(others[i], NULL);
    report_missing();
    assert_int_equal(w->failed, 0);
    assert_true(disturbed());
    for (uint32_t n = 0; n < VCPUS && w->ax->kind == VAPIC_ACCEL_AVIC; n++)
        vapic_irte_detach(&w->irte[n]);
    ax_free(w->ax);
    free(w);
}

static void xavic(void **state)
{
    (void)state;
    storm(AX_MODE_AVIC, false);
}

static void xavic_without_ipiv(void **state)
{
    (void)state;
    storm(AX_MODE_AVIC_NOIPIV, false);
}

static void hybrid(void **state)
{
    (void)state;
    storm(AX_MODE_AVIC, true);
}

static void x2avic(void **state)
{
    (void)state;
    storm(AX_MODE_X2AVIC, true);
}

static void apicv_xapic(void **state)
{
    (void)state;
    storm(AX_MODE_APICV, false);
}

static void apicv_x2apic(void **state)
{
    (void)state;
    storm(AX_MODE_APICV, true);
}

static void ipiv_xapic(void **state)
{
    (void)state;
    storm(AX_MODE_APICV_IPIV, false);
}

static void ipiv_x2apic(void **state)
{
    (void)state;
    storm(AX_MODE_APICV_IPIV, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xavic),       cmocka_unit_test(xavic_without_ipiv),
        cmocka_unit_test(hybrid),      cmocka_unit_test(x2avic),
        cmocka_unit_test(apicv_xapic), cmocka_unit_test(apicv_x2apic),
        cmocka_unit_test(ipiv_xapic),  cmocka_unit_test(ipiv_x2apic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
