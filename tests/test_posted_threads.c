/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts under real threads: one vCPU that runs, sleeps, is preempted and moves from
 * processor to processor while a device, a peer's hardware IPIs and software post to it, and while
 * acceleration is switched off and on. Each sender waits for its vector to be taken before it sends
 * the next, so one interrupt that is lost stops everything, and one too many shows in the counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "thread_host.h"
#include "vapic/accel.h"
#include "vapic/silicon.h"

enum {
    PAGE = 4096,
    PROCESSORS = 3, /* 0 and 1: the receiver's, 2: the sender's of IPIs */
    ROUNDS = 20000,
    PATIENCE_S = 60,
    KICK_VECTOR = 0xF0,
    NOTIFY_VECTOR = 0xF1,
    WAKEUP_VECTOR = 0xF2,
    DEVICE_VECTOR = 0x61,
    EDGE_VECTOR = 0x72,
    LEVEL_VECTOR = 0x83,
    IPI_VECTOR = 0x94,
};

struct vcpu {
    struct vapic apic;
    struct vapic_accel_vcpu accel;
    struct vapic_sil_vmcs vmcs;
    struct vapic_sil_cpu *cpu; /* owner */
    atomic_bool wake;
    uint64_t event;
};

struct world {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_sil silicon;
    struct vapic_sil_cpu *by_id[PROCESSORS];
    struct vapic_sil_cpu cpu[PROCESSORS];
    struct vapic_pcpu pcpu[PROCESSORS];
    struct vcpu vcpu[2];
    pthread_mutex_t lock;
    atomic_bool page_mapped, stop;
    atomic_uint taken[256], eois[256], sent[256];
    atomic_uint senders, sleeps, moves, toggles;
};

static alignas(PAGE) uint8_t pages[2][PAGE], bitmaps[2][PAGE], access_page[PAGE], table[PAGE];
static alignas(64) uint8_t map[65536];
static struct world world;

static const struct vapic_now now = {.ns = 1};

/* ---- The host ---- */

static void host_lock(void *ctx)
{
    pthread_mutex_lock(&((struct world *)ctx)->lock);
}

static void host_unlock(void *ctx)
{
    pthread_mutex_unlock(&((struct world *)ctx)->lock);
}

static void interrupt(struct world *w, struct vapic *target, uint8_t vector)
{
    uint32_t id;

    if (vapic_doorbell_id(target, &id))
        vapic_sil_interrupt(&w->silicon, id, vector);
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    if (action == VAPIC_ACTION_WAKE)
        atomic_store(&((struct vcpu *)(void *)target)->wake, true);
    else if (action != VAPIC_ACTION_NONE)
        interrupt(ctx, target, action == VAPIC_ACTION_KICK ? KICK_VECTOR : NOTIFY_VECTOR);
}

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    (void)v;
    atomic_fetch_add(&((struct world *)ctx)->eois[vector], 1);
}

static void host_kick_all(void *ctx)
{
    struct world *w = ctx;

    for (unsigned i = 0; i < 2; i++) {
        if (vapic_in_guest(&w->vcpu[i].apic))
            interrupt(w, &w->vcpu[i].apic, KICK_VECTOR);
        while (vapic_in_guest(&w->vcpu[i].apic))
            sched_yield();
    }
}

static void host_access_page(void *ctx, bool mapped)
{
    atomic_store(&((struct world *)ctx)->page_mapped, mapped);
}

static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    vapic_sil_flush(((struct vcpu *)(void *)v)->cpu, APIC_DEFAULT_BASE);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_bitmap(pass, bitmaps[(struct vcpu *)(void *)v - ((struct world *)ctx)->vcpu]);
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    vmcs_set_bits(&((struct vcpu *)(void *)v)->vmcs, field, mask, value);
}

static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    return (uint16_t)vmcs_get(&((struct vcpu *)(void *)v)->vmcs, VMCS_GUEST_INTERRUPT_STATUS);
}

static const struct vapic_host host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = th_quiesce,
    .notify = host_notify,
    .eoi = host_eoi,
    .physical = th_physical,
    .kick_all = host_kick_all,
    .access_page = host_access_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .control = host_control,
    .interrupt_status = host_interrupt_status,
    .spin_lock = th_spin_lock,
    .spin_unlock = th_spin_unlock,
};

static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    (void)cpu;
    return th_walk(gpa, atomic_load(&((struct world *)ctx)->page_mapped), access_page, page);
}

/* ---- A vCPU's turn ---- */

static uint32_t seed(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static void take_interrupts(struct world *w, unsigned processor)
{
    int vector;

    while ((vector = vapic_sil_take_interrupt(&w->cpu[processor])) >= 0)
        if (vector == WAKEUP_VECTOR)
            vapic_wakeup(&w->vm, &w->pcpu[processor]);
}

/* No event injection is ever cut short here: the exits come at boundaries and in EOIs. */
static bool enter(struct world *w, struct vcpu *c)
{
    uint32_t can = VAPIC_CAN_INIT | VAPIC_CAN_NMI | VAPIC_CAN_IRQ | VAPIC_IF;
    struct vapic_entry entry;

    do {
        vapic_enter(&c->apic, can, now, &entry);
    } while (entry.event != VAPIC_CPU_NONE);
    if (!entry.runnable)
        return false;
    c->event = entry.inject == VAPIC_INJECT_VECTOR ? VMX_INFO_VALID | entry.vector : 0;
    vapic_commit(&c->apic, &entry);
    vmcs_set(&c->vmcs, VMCS_ENTRY_INTR_INFO, c->event);
    vmcs_set_bits(&c->vmcs, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, VMX_RFLAGS_IF);
    vmcs_set(&c->vmcs, VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
    vmcs_set_bits(&c->vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW,
                  entry.irq_window ? VMX_PRI_INTERRUPT_WINDOW : 0);
    assert_int_equal(vapic_sil_vmentry(c->cpu, &c->vmcs), VAPIC_SIL_DONE);
    (void)w;
    return true;
}

/* After an exit; `offset` and `value`: the write under way, if any. */
static void leave(struct world *w, struct vcpu *c, uint32_t offset, uint32_t value)
{
    uint32_t reason = (uint32_t)vmcs_get(&c->vmcs, VMCS_EXIT_REASON);
    int result = VAPIC_OK;

    vapic_exit(&c->apic, (uint8_t)vapic_read_cr8(&c->apic), true);
    if (reason == VMX_EXIT_EPT_VIOLATION)
        result = VAPIC_EMULATE;
    else if (reason == VMX_EXIT_HLT)
        vapic_halt(&c->apic);
    else if (reason >= VMX_EXIT_TPR_THRESHOLD)
        result =
            vapic_apicv_exit(&c->apic, reason, vmcs_get(&c->vmcs, VMCS_EXIT_QUALIFICATION), now);
    if (result == VAPIC_EMULATE)
        vapic_mmio_write(&c->apic, offset, &value, sizeof(value), now);
    take_interrupts(w, (unsigned)(c->cpu - w->cpu));
}

/* One instruction of the guest, from outside: with whatever exits and entries it takes. The vCPU is
 * in the guest after it. */
static void guest_write(struct world *w, struct vcpu *c, uint32_t offset, uint32_t value)
{
    if (th_write(c->cpu, offset, value) == VAPIC_SIL_EXIT) {
        leave(w, c, offset, value);
        while (!enter(w, c))
            sched_yield();
    }
}

/* ---- The receiver ---- */

static void move(struct world *w, struct vcpu *c, unsigned processor)
{
    vapic_put(&c->apic);
    sched_yield(); /* nowhere: posts are silent */
    c->cpu = &w->cpu[processor];
    vapic_sil_flush(c->cpu, APIC_DEFAULT_BASE);
    vapic_load(&c->apic, &w->pcpu[processor]);
    atomic_fetch_add(&w->moves, 1);
}

static void sleep_until_woken(struct world *w, struct vcpu *c, uint32_t *random)
{
    if (!vapic_block(&c->apic))
        return;
    atomic_fetch_add(&w->sleeps, 1);
    while (!atomic_exchange(&c->wake, false) && !atomic_load(&w->stop)) {
        take_interrupts(w, 0);
        take_interrupts(w, 1);
        if (seed(random, 64) == 0)
            move(w, c, seed(random, 2));
        sched_yield();
    }
    vapic_unblock(&c->apic);
}

/* An interrupt: its handler ends it with the window closed. */
static void handler(struct world *w, struct vcpu *c, uint8_t vector)
{
    c->cpu->guest.interrupt_flag = false;
    guest_write(w, c, APIC_EOI, 0);
    c->cpu->guest.interrupt_flag = true;
    atomic_fetch_add(&w->taken[vector], 1);
}

/* Until an exit at a boundary, or there is nothing to do: then HLT, or spin a little. */
static void run_receiver(struct world *w, struct vcpu *c, uint32_t *random)
{
    uint8_t vector = 0;

    for (;;) {
        switch (vapic_sil_boundary(c->cpu, &vector)) {
        case VAPIC_SIL_DELIVER:
            handler(w, c, vector);
            continue;
        case VAPIC_SIL_EXIT:
            leave(w, c, 0, 0);
            return;
        default:
            if (atomic_load(&w->stop))
                vapic_sil_leave(c->cpu, VMX_EXIT_EXTINT, 0, 0);
            else if (seed(random, 4) != 0) {
                sched_yield();
                continue;
            } else {
                assert_int_equal(vapic_sil_hlt(c->cpu), VAPIC_SIL_EXIT);
            }
            leave(w, c, 0, 0);
            return;
        }
    }
}

static void *receiver(void *arg)
{
    struct world *w = arg;
    struct vcpu *c = &w->vcpu[0];
    uint32_t random = 12345;

    while (!atomic_load(&w->stop)) {
        if (!enter(w, c)) {
            sleep_until_woken(w, c, &random);
            continue;
        }
        run_receiver(w, c, &random);
        if (seed(&random, 8) == 0)
            move(w, c, seed(&random, 2));
    }
    return NULL;
}

/* ---- Senders: one at a time of each ---- */

static bool may_send(struct world *w, uint8_t vector)
{
    while (atomic_load(&w->taken[vector]) < atomic_load(&w->sent[vector])) {
        if (atomic_load(&w->stop))
            return false;
        sched_yield();
    }
    atomic_fetch_add(&w->sent[vector], 1);
    return true;
}

static void *device(void *arg)
{
    struct world *w = arg;
    uint64_t irte[2];

    vapic_vtd_irte(&w->vcpu[0].apic, DEVICE_VECTOR, 7, irte);
    for (unsigned i = 0; i < ROUNDS && may_send(w, DEVICE_VECTOR); i++)
        vapic_sil_vtd_msi(&w->silicon, irte, 7);
    atomic_fetch_sub(&w->senders, 1);
    return NULL;
}

static void *software(void *arg)
{
    struct world *w = arg;
    struct vapic *v = &w->vcpu[0].apic;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (!may_send(w, EDGE_VECTOR))
            break;
        host_notify(w, v, vapic_post(v, EDGE_VECTOR, false, NULL));
        if (!may_send(w, LEVEL_VECTOR))
            break;
        host_notify(w, v, vapic_post(v, LEVEL_VECTOR, true, NULL));
    }
    atomic_fetch_sub(&w->senders, 1);
    return NULL;
}

/* Never sleeps; leaves the guest when it is kicked. */
static void *peer(void *arg)
{
    struct world *w = arg;
    struct vcpu *c = &w->vcpu[1];
    uint8_t vector;

    assert_true(enter(w, c));
    for (unsigned i = 0; i < ROUNDS && may_send(w, IPI_VECTOR); i++) {
        guest_write(w, c, APIC_ICR2, 0);
        guest_write(w, c, APIC_ICR, IPI_VECTOR);
        while (atomic_load(&w->taken[IPI_VECTOR]) < atomic_load(&w->sent[IPI_VECTOR]) &&
               !atomic_load(&w->stop)) {
            if (vapic_sil_boundary(c->cpu, &vector) == VAPIC_SIL_EXIT) {
                leave(w, c, 0, 0);
                assert_true(enter(w, c));
            }
            sched_yield();
        }
    }
    vapic_sil_leave(c->cpu, VMX_EXIT_EXTINT, 0, 0);
    leave(w, c, 0, 0);
    atomic_fetch_sub(&w->senders, 1);
    return NULL;
}

static void *toggler(void *arg)
{
    struct world *w = arg;
    bool set = false;

    while (!atomic_load(&w->stop)) {
        struct timespec pause = {.tv_nsec = 200000};

        set = !set;
        vapic_set_inhibit(&w->vm, VAPIC_INHIBIT_BLOCKIRQ, set);
        atomic_fetch_add(&w->toggles, 1);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* ---- The world ---- */

static void create_vcpu(struct world *w, uint32_t n)
{
    struct vcpu *c = &w->vcpu[n];
    struct vapic_config config = {.id = n, .bsp = n == 0};
    uint32_t svr = APIC_SVR_ENABLE | 0xFF;

    c->cpu = &w->cpu[n == 0 ? 0 : 2];
    memset(bitmaps[n], 0xFF, PAGE);
    vmcs_create(&c->vmcs, (uintptr_t)bitmaps[n], (uintptr_t)access_page, n + 1);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &w->vm, &config, pages[n]), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), NULL), VAPIC_OK);
    vapic_load(&c->apic, &w->pcpu[c->cpu - w->cpu]);
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    if (n != 0)
        th_start(&w->vm, &c->apic);
    vapic_mmio_write(&c->apic, APIC_SVR, &svr, sizeof(svr), now);
}

static void create(struct world *w, uint32_t features)
{
    static const struct vapic_sil_host sil = {
        .size = sizeof(sil), .memory = th_memory, .walk = sil_walk};
    struct vapic_sil_config silicon = {.vendor = VAPIC_SIL_INTEL};
    struct vapic_vm_config config = {.max_vcpus = 2};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_APICV,
                                       .features = features,
                                       .max_id = 1,
                                       .notify_vector = NOTIFY_VECTOR,
                                       .wakeup_vector = WAKEUP_VECTOR};

    memset(w, 0, sizeof(*w));
    pthread_mutex_init(&w->lock, NULL);
    assert_true(vapic_sil_init(&w->silicon, &silicon, &sil, w, w->by_id, PROCESSORS));
    for (uint32_t i = 0; i < PROCESSORS; i++) {
        assert_true(vapic_sil_cpu_init(&w->cpu[i], &w->silicon, i));
        vapic_pcpu_init(&w->pcpu[i], sizeof(w->pcpu[i]), i);
    }
    assert_int_equal(vapic_vm_init(&w->vm, sizeof(w->vm), &config, &host, w, map, sizeof(map)),
                     VAPIC_OK);
    assert_int_equal(
        vapic_accel_init(&w->accel, sizeof(w->accel), &w->vm, &accel, table, sizeof(table)),
        VAPIC_OK);
    create_vcpu(w, 0);
    create_vcpu(w, 1);
    vapic_device_attached(&w->vm);
}

static const uint8_t vectors[] = {DEVICE_VECTOR, EDGE_VECTOR, LEVEL_VECTOR, IPI_VECTOR};

static void wait_for_senders(struct world *w)
{
    time_t start = time(NULL);

    while (atomic_load(&w->senders) != 0 && time(NULL) - start < PATIENCE_S)
        sched_yield();
    /* What was sent last is still to be taken. */
    for (size_t i = 0; i < sizeof(vectors); i++)
        while (atomic_load(&w->taken[vectors[i]]) < atomic_load(&w->sent[vectors[i]]) &&
               time(NULL) - start < PATIENCE_S)
            sched_yield();
    atomic_store(&w->stop, true);
}

static void run(uint32_t features)
{
    static void *(*const threads[])(void *) = {receiver, device, software, peer, toggler};
    struct world *w = &world;
    pthread_t thread[5];

    create(w, features);
    atomic_store(&w->senders, 3);
    for (size_t i = 0; i < 5; i++)
        pthread_create(&thread[i], NULL, threads[i], w);
    wait_for_senders(w);
    for (size_t i = 0; i < 5; i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 0; i < sizeof(vectors); i++) {
        assert_int_equal(w->sent[vectors[i]], ROUNDS);
        assert_int_equal(w->taken[vectors[i]], ROUNDS);
    }
    assert_int_equal(w->eois[LEVEL_VECTOR], ROUNDS);
    assert_int_equal(w->eois[EDGE_VECTOR] + w->eois[DEVICE_VECTOR] + w->eois[IPI_VECTOR], 0);
    assert_true(w->sleeps > 10);
    assert_true(w->moves > 10);
    assert_true(w->toggles > 10);
}

static void nothing_is_lost(void **state)
{
    (void)state;
    run(VAPIC_ACCEL_IPIV);
}

static void nothing_is_lost_without_ipi_virtualization(void **state)
{
    (void)state;
    run(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(nothing_is_lost_without_ipi_virtualization),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
