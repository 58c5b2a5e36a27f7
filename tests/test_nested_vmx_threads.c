/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts and IPI virtualization for L2 under real threads: tokens travel round a ring of
 * L2's vCPUs as IPIs, one vector each. L1 takes its vCPUs out of L2 whenever an interrupt of its
 * own comes, looks through its descriptor as hypervisors do, and enters again; L0 inhibits L1 all
 * the time, and takes vCPUs off their processors. Or nobody disturbs them, so that nothing makes up
 * for a notification that was lost. Every L2 sleeps when it has nothing to do. An interrupt that is
 * lost stops its token for ever; one that comes twice, or to another one, is seen at once. L1's
 * addresses are pointers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "thread_host.h"
#include "vapic/nested.h"
#include "vapic/silicon.h"

#define VCPUS        3u
#define TOKENS       4u
#define FIRST_VECTOR 0x50u /* token t has vector 50h + 10h * t: classes of their own */
#define L1_VECTOR    0x41u
#define NV12         0x61u
#define KICK         0xF0u
#define NOTIFY       0xF1u
#define WAKEUP       0xF2u
#define NESTED       0xF3u
#define HOPS         4000u
#define SECONDS      90
#define PAGE         4096u
#define NOBODY       99u

enum phase { IDLE, END, SEND };

struct vcpu {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    struct vapic_nested_vcpu nested;
    struct vapic_sil_vmcs vmcs01, vmcs02;
    struct vapic_vmcs12 vmcs12;
    struct vapic_sil_cpu *cpu;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool wake; /* under the mutex */
    bool signalled;
    bool l2, created, leave;
    enum phase phase;
    uint8_t vector;
    uint32_t turns;
    atomic_uint fired, answered; /* L1_VECTOR */
};

static struct {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_nested nested;
    struct vapic_sil silicon;
    struct vapic_sil_cpu cpus[VCPUS], *by_id[VCPUS];
    struct vapic_pcpu pcpus[VCPUS];
    struct vcpu v[VCPUS];
    pthread_mutex_t lock;
    atomic_bool page_mapped, stop;
    bool calm;
    atomic_uint hops[TOKENS], holder[TOKENS];
    atomic_uint left; /* how often L2 was left for L1 */
} m;

static uint8_t pages[VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t bitmap[2][VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t table01[PAGE] __attribute__((aligned(4096)));
static uint8_t scratch[PAGE] __attribute__((aligned(4096)));
static uint8_t map[65536] __attribute__((aligned(64)));
/* L1's memory: L2's register pages, descriptors, the PID-pointer table. */
static uint8_t ram[VCPUS + 2][PAGE] __attribute__((aligned(4096)));

static struct vcpu *vcpu_of(struct vapic *v)
{
    return (struct vcpu *)(void *)v;
}

static struct vapic_now now(void)
{
    return (struct vapic_now){0};
}

static struct vapic_pid *descriptor(uint32_t n)
{
    return (struct vapic_pid *)(void *)(ram[VCPUS] + sizeof(struct vapic_pid) * n);
}

/* ---- Host ---- */

static void host_lock(void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&m.lock);
}

static void host_unlock(void *ctx)
{
    (void)ctx;
    pthread_mutex_unlock(&m.lock);
}

static void wake_up(struct vcpu *c, bool *flag)
{
    pthread_mutex_lock(&c->mutex);
    *flag = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    uint32_t id;

    (void)ctx;
    if (action == VAPIC_ACTION_WAKE)
        wake_up(vcpu_of(target), &vcpu_of(target)->wake);
    else if (action == VAPIC_ACTION_KICK)
        vapic_sil_interrupt(&m.silicon, target->id, KICK);
    else if (vapic_doorbell_id(target, &id))
        vapic_sil_interrupt(&m.silicon, id, action == VAPIC_ACTION_NESTED ? NESTED : NOTIFY);
}

static void host_kick_all(void *ctx)
{
    (void)ctx;
    for (uint32_t n = 0; n < VCPUS; n++)
        if (m.v[n].created && vapic_in_guest(&m.v[n].apic))
            vapic_sil_interrupt(&m.silicon, n, KICK);
    for (uint32_t n = 0; n < VCPUS; n++)
        while (m.v[n].created && vapic_in_guest(&m.v[n].apic))
            sched_yield();
}

static void host_access_page(void *ctx, bool mapped)
{
    (void)ctx;
    atomic_store(&m.page_mapped, mapped);
}

static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    vapic_sil_flush(vcpu_of(v)->cpu, APIC_DEFAULT_BASE);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    vapic_pass_to_bitmap(pass, bitmap[0][v->id]);
}

static void host_intercept02(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    vapic_pass_to_bitmap(pass, bitmap[1][v->id]);
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    vmcs_set_bits(&vcpu_of(v)->vmcs01, field, mask, value);
}

static void host_control02(void *ctx, struct vapic *v, uint32_t field, uint64_t mask,
                           uint64_t value)
{
    (void)ctx;
    vmcs_set_bits(&vcpu_of(v)->vmcs02, field, mask, value);
}

static uint16_t host_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    return (uint16_t)vmcs_get(&vcpu_of(v)->vmcs01, VMCS_GUEST_INTERRUPT_STATUS);
}

static uint16_t host_status02(void *ctx, struct vapic *v)
{
    (void)ctx;
    return (uint16_t)vmcs_get(&vcpu_of(v)->vmcs02, VMCS_GUEST_INTERRUPT_STATUS);
}

static bool host_pin(void *ctx, uint64_t gpa, struct vapic_l1_page *pin)
{
    uintptr_t offset = (uintptr_t)gpa - (uintptr_t)ram;

    (void)ctx;
    if (offset >= sizeof(ram))
        return false;
    *pin = (struct vapic_l1_page){ram[offset / PAGE], gpa};
    return true;
}

static void host_unpin(void *ctx, uint64_t gpa, const struct vapic_l1_page *pin)
{
    (void)ctx;
    (void)gpa;
    (void)pin;
}

static bool host_track(void *ctx, uint64_t gpa, bool on)
{
    (void)ctx;
    (void)gpa;
    (void)on;
    return true;
}

static const struct vapic_host host = {
    .size = sizeof(host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = th_quiesce,
    .notify = host_notify,
    .physical = th_physical,
    .kick_all = host_kick_all,
    .access_page = host_access_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .control = host_control,
    .interrupt_status = host_status,
    .spin_lock = th_spin_lock,
    .spin_unlock = th_spin_unlock,
};

static const struct vapic_nested_host nested_host = {
    .size = sizeof(nested_host),
    .pin = host_pin,
    .unpin = host_unpin,
    .track = host_track,
    .control = host_control02,
    .interrupt_status = host_status02,
    .intercept = host_intercept02,
};

static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    (void)ctx;
    (void)cpu;
    return th_walk(gpa, atomic_load(&m.page_mapped), scratch, page);
}

static void sil_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct vcpu *c = &m.v[cpu->apic_id];

    (void)ctx;
    wake_up(c, &c->signalled);
}

/* ---- L2 ---- */

static void delivered(struct vcpu *c, uint8_t vector)
{
    uint32_t token = (vector - FIRST_VECTOR) / 16, holder;

    if (token >= TOKENS || c->phase != IDLE)
        abort();
    holder = atomic_exchange(&m.holder[token], NOBODY);
    if (holder != c->apic.id)
        abort(); /* twice, or somebody else's */
    c->cpu->guest.interrupt_flag = false;
    c->vector = vector;
    c->phase = END;
}

static void sent(struct vcpu *c)
{
    atomic_fetch_add(&m.hops[(c->vector - FIRST_VECTOR) / 16], 1);
    c->phase = IDLE;
}

static enum vapic_sil_result execute(struct vcpu *c)
{
    uint64_t next = (c->apic.id + 1) % VCPUS;
    enum vapic_sil_result result;

    switch (c->phase) {
    case END:
        c->phase = SEND;
        return vapic_sil_wrmsr(c->cpu, 0x80B, 0);
    case SEND:
        atomic_store(&m.holder[(c->vector - FIRST_VECTOR) / 16], (uint32_t)next);
        result = vapic_sil_wrmsr(c->cpu, 0x830, next << 32 | c->vector);
        sent(c); /* also when it exits: it is complete */
        return result;
    default:
        c->cpu->guest.interrupt_flag = true;
        return vapic_sil_hlt(c->cpu);
    }
}

static void run_l2(struct vcpu *c)
{
    enum vapic_sil_result result;
    uint8_t vector;

    do {
        result = vapic_sil_boundary(c->cpu, &vector);
        if (result == VAPIC_SIL_DELIVER)
            delivered(c, vector);
        else if (result == VAPIC_SIL_NOTHING)
            result = execute(c);
        if (result == VAPIC_SIL_GP || result == VAPIC_SIL_NATIVE || result == VAPIC_SIL_INVALID)
            abort();
    } while (result != VAPIC_SIL_EXIT);
}

/* ---- L1 ---- */

static void answer(struct vcpu *c, int vector)
{
    if (vector == L1_VECTOR)
        atomic_fetch_add(&c->answered, 1);
    else if (vector != NV12)
        abort();
}

/* A hypervisor's look at what was posted while its L2 did not run, with interrupts off. */
static void sync_descriptor(struct vcpu *c)
{
    struct vapic_pid *pid = descriptor(c->apic.id);
    uint32_t *virr = (uint32_t *)(void *)(ram[c->apic.id] + APIC_IRR), top = 0;

    if (__atomic_fetch_and(&pid->control, ~(uint64_t)PID_ON, __ATOMIC_SEQ_CST) & PID_ON)
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t *half = (uint32_t *)(void *)pid->pir + i;
            uint32_t bits = __atomic_exchange_n(half, 0, __ATOMIC_SEQ_CST);

            __atomic_fetch_or(&virr[4 * i], bits, __ATOMIC_SEQ_CST);
        }
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t bits = __atomic_load_n(&virr[4 * i], __ATOMIC_SEQ_CST);

        if (bits != 0)
            top = 32 * i + 31u - (uint32_t)__builtin_clz(bits);
    }
    c->vmcs12.interrupt_status = (uint16_t)((c->vmcs12.interrupt_status & 0xFF00) | top);
}

static void launch(struct vcpu *c)
{
    struct vapic_msr_pass pass;
    struct vapic_nested_view view = {.vmcs12 = &c->vmcs12, .pass = &pass};

    memset(&pass, 0xFF, sizeof(pass));
    sync_descriptor(c);
    c->l2 = true;
    if (vapic_nested_enter(&c->apic, &view) != VAPIC_OK)
        abort();
}

static void leave_l2(struct vcpu *c)
{
    struct vapic_nested_left left;
    int vector;

    vapic_nested_leave(&c->apic, &left);
    c->vmcs12.interrupt_status = left.interrupt_status;
    c->l2 = false;
    vapic_nested_exit(&c->apic);
    vector = vapic_nested_acknowledge(&c->apic);
    if (vector < 0)
        return;
    answer(c, vector);
    vapic_eoi(&c->apic);
    atomic_fetch_add(&m.left, 1);
}

/* L1's software ends every interrupt at once, and enters L2 again. */
static void run_l1(struct vcpu *c)
{
    enum vapic_sil_result result;
    uint8_t vector;

    while ((result = vapic_sil_boundary(c->cpu, &vector)) == VAPIC_SIL_DELIVER) {
        answer(c, vector);
        result = vapic_sil_wrmsr(c->cpu, 0x80B, 0);
        if (result == VAPIC_SIL_EXIT)
            return;
        if (result != VAPIC_SIL_DONE)
            abort();
    }
    if (result == VAPIC_SIL_NOTHING)
        vapic_sil_leave(c->cpu, VMX_EXIT_CPUID, 0, 0); /* VMLAUNCH */
}

/* ---- L0's loop ---- */

static struct vapic_sil_vmcs *current(struct vcpu *c)
{
    return c->l2 ? &c->vmcs02 : &c->vmcs01;
}

static void take_interrupts(struct vcpu *c)
{
    int vector;

    while ((vector = vapic_sil_take_interrupt(c->cpu)) >= 0)
        if (vector == (int)WAKEUP)
            vapic_wakeup(&m.vm, &m.pcpus[c->apic.id]);
}

static void sleep_until_woken(struct vcpu *c)
{
    if (!vapic_block(&c->apic))
        return;
    pthread_mutex_lock(&c->mutex);
    while (!c->wake && !atomic_load(&m.stop)) {
        if (!c->signalled)
            pthread_cond_wait(&c->cond, &c->mutex);
        c->signalled = false;
        pthread_mutex_unlock(&c->mutex);
        take_interrupts(c);
        pthread_mutex_lock(&c->mutex);
    }
    c->wake = false;
    pthread_mutex_unlock(&c->mutex);
    vapic_unblock(&c->apic);
}

static void handle_exit(struct vcpu *c)
{
    uint32_t reason = (uint32_t)vmcs_get(current(c), VMCS_EXIT_REASON);
    uint64_t info = vmcs_get(current(c), VMCS_EXIT_INTR_INFO);
    struct vapic_reflect reflect;

    switch (reason) {
    case VMX_EXIT_EXTINT:
        if ((uint8_t)info == WAKEUP)
            vapic_wakeup(&m.vm, &m.pcpus[c->apic.id]);
        break;
    case VMX_EXIT_HLT:
        vapic_halt(&c->apic);
        break;
    case VMX_EXIT_APIC_WRITE:
        if (!c->l2 ||
            vapic_nested_apicv_exit(&c->apic, reason, vmcs_get(current(c), VMCS_EXIT_QUALIFICATION),
                                    &reflect) != VAPIC_OK)
            abort();
        break;
    case VMX_EXIT_WRMSR: /* L1's EOI, while it is inhibited */
        if (c->l2 || vapic_msr_write(&c->apic, 0x80B, 0, now()) != VAPIC_OK)
            abort();
        break;
    case VMX_EXIT_CPUID:
        launch(c);
        break;
    default:
        abort();
    }
}

static uint32_t can(struct vcpu *c)
{
    bool flag = (vmcs_get(current(c), VMCS_GUEST_RFLAGS) & VMX_RFLAGS_IF) != 0;

    return VAPIC_CAN_INIT | (flag ? VAPIC_CAN_IRQ | VAPIC_IF : 0);
}

static void enter(struct vcpu *c, const struct vapic_entry *entry)
{
    bool was_l2 = c->l2;

    if (entry->inject == VAPIC_INJECT_VECTOR)
        vapic_commit(&c->apic, entry);
    vmcs_set(current(c), VMCS_ENTRY_INTR_INFO,
             entry->inject == VAPIC_INJECT_VECTOR
                 ? VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | entry->vector
                 : 0);
    if (vapic_sil_vmentry(c->cpu, current(c)) != VAPIC_SIL_DONE)
        abort();
    if (entry->nested == VAPIC_NESTED_SOON)
        vapic_sil_leave(c->cpu, VMX_EXIT_EXTINT, 0, 0);
    else if (was_l2)
        run_l2(c);
    else
        run_l1(c);
    vapic_exit(&c->apic, 0, true);
    vapic_nested_ran(&c->apic);
    handle_exit(c);
}

static void turn(struct vcpu *c)
{
    struct vapic_entry entry;

    take_interrupts(c);
    if (++c->turns % 16 == 0 && !m.calm) { /* preempted */
        vapic_put(&c->apic);
        sched_yield();
        vapic_load(&c->apic, &m.pcpus[c->apic.id]);
    }
    vapic_enter(&c->apic, can(c), now(), &entry);
    if (entry.nested == VAPIC_NESTED_STOP)
        abort();
    if (entry.nested == VAPIC_NESTED_LEAVE) {
        vapic_exit(&c->apic, 0, false);
        leave_l2(c);
    } else if (!entry.runnable) {
        sleep_until_woken(c);
    } else if (vapic_posted(&c->apic)) {
        vapic_exit(&c->apic, 0, false);
    } else {
        enter(c, &entry);
    }
}

static void *run(void *argument)
{
    struct vcpu *c = argument;

    vapic_load(&c->apic, &m.pcpus[c->apic.id]);
    while (!atomic_load(&m.stop))
        turn(c);
    if (c->l2)
        vapic_nested_abandon(&c->apic);
    vapic_put(&c->apic);
    return NULL;
}

/* ---- All of it ---- */

static void make_silicon(void)
{
    static const struct vapic_sil_host sil = {
        .size = sizeof(sil), .memory = th_memory, .walk = sil_walk, .signal = sil_signal};
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL};

    assert_true(vapic_sil_init(&m.silicon, &config, &sil, NULL, m.by_id, VCPUS));
    for (uint32_t n = 0; n < VCPUS; n++) {
        assert_true(vapic_sil_cpu_init(&m.cpus[n], &m.silicon, n));
        assert_int_equal(vapic_pcpu_init(&m.pcpus[n], sizeof(m.pcpus[n]), n), VAPIC_OK);
    }
}

static void *make_vm(enum vapic_nested_strategy strategy)
{
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_APICV,
                                       .features = VAPIC_ACCEL_IPIV,
                                       .max_id = VCPUS - 1,
                                       .notify_vector = NOTIFY,
                                       .wakeup_vector = WAKEUP};
    struct vapic_nested_config nested = {.features = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED |
                                                     VAPIC_NESTED_IPIV,
                                         .strategy = strategy,
                                         .tables = 1,
                                         .entries = VCPUS,
                                         .notify_vector = NESTED};
    size_t size = vapic_nested_memory(&nested, &accel);
    void *memory = aligned_alloc(PAGE, size);

    assert_int_equal(vapic_vm_init(&m.vm, sizeof(m.vm), &config, &host, NULL, map, sizeof(map)),
                     VAPIC_OK);
    assert_int_equal(
        vapic_accel_init(&m.accel, sizeof(m.accel), &m.vm, &accel, table01, sizeof(table01)),
        VAPIC_OK);
    assert_int_equal(
        vapic_nested_init(&m.nested, sizeof(m.nested), &m.vm, &nested, &nested_host, memory, size),
        VAPIC_OK);
    return memory;
}

static void make_vmcs12(struct vcpu *c, uint32_t n)
{
    c->vmcs12 = (struct vapic_vmcs12){
        .pin = VMX_PIN_EXTINT_EXITING | VMX_PIN_POSTED_INTERRUPTS,
        .primary = VMX_PRI_TPR_SHADOW | VMX_PRI_SECONDARY | VMX_PRI_TERTIARY | VMX_PRI_MSR_BITMAPS,
        .secondary = VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY,
        .exit = VMX_EXC_ACK_INTERRUPT,
        .tertiary = VMX_TER_IPI_VIRTUALIZATION,
        .notification_vector = NV12,
        .last_pid_index = VCPUS - 1,
        .virtual_apic = (uintptr_t)ram[n],
        .pid = (uintptr_t)descriptor(n),
        .pid_table = (uintptr_t)ram[VCPUS + 1],
    };
    descriptor(n)->control = (uint64_t)NV12 << PID_NV_SHIFT | (uint64_t)n << PID_NDST_SHIFT;
    ((uint64_t *)(void *)ram[VCPUS + 1])[n] = c->vmcs12.pid | APICV_PID_ENTRY_VALID;
}

static void make_vcpu(uint32_t n)
{
    struct vcpu *c = &m.v[n];
    struct vapic_config config = {.id = n, .features = VAPIC_FEATURE_X2APIC, .bsp = n == 0};

    c->cpu = &m.cpus[n];
    memset(bitmap[0][n], 0xFF, PAGE);
    memset(bitmap[1][n], 0xFF, PAGE);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->cond, NULL);
    vmcs_create(&c->vmcs01, (uintptr_t)bitmap[0][n], (uintptr_t)scratch, 2 * n + 1);
    vmcs_create(&c->vmcs02, (uintptr_t)bitmap[1][n], 0, 2 * n + 2);
    vmcs_set_bits(&c->vmcs01, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, VMX_RFLAGS_IF);
    vmcs_set_bits(&c->vmcs02, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, VMX_RFLAGS_IF);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &m.vm, &config, pages[n]), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), NULL), VAPIC_OK);
    assert_int_equal(vapic_nested_attach(&c->apic, &c->nested, sizeof(c->nested), NULL), VAPIC_OK);
    c->created = true;
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    if (n != 0)
        assert_int_equal(vapic_load_activity(&c->apic, VAPIC_RUNNING), VAPIC_OK);
    assert_int_equal(vapic_load_base(&c->apic, vapic_base(&c->apic) | APIC_BASE_EXTD), VAPIC_OK);
    assert_int_equal(vapic_msr_write(&c->apic, 0x80F, 0x1FF, now()), VAPIC_OK);
    make_vmcs12(c, n);
}

/* The tokens start in L1's descriptors: found by L1 at its first VMLAUNCH. */
static void start_tokens(void)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        uint32_t n = t % VCPUS, vector = FIRST_VECTOR + 16 * t;

        atomic_store(&m.holder[t], n);
        descriptor(n)->pir[vector / 64] |= UINT64_C(1) << vector % 64;
        descriptor(n)->control |= PID_ON;
    }
}

static bool all_there(void)
{
    for (uint32_t t = 0; t < TOKENS; t++)
        if (atomic_load(&m.hops[t]) < HOPS)
            return false;
    return true;
}

static void interrupt_l1(uint32_t n)
{
    struct vcpu *c = &m.v[n];
    enum vapic_action action;

    if (atomic_load(&c->fired) != atomic_load(&c->answered))
        return;
    atomic_fetch_add(&c->fired, 1);
    action = vapic_post(&c->apic, L1_VECTOR, false, NULL);
    if (action != VAPIC_ACTION_NONE)
        host_notify(NULL, &c->apic, action);
}

/* L1's devices, and whoever inhibits L1. */
static bool disturb_until_done(void)
{
    time_t end = time(NULL) + SECONDS;

    /* The ring may have come to its end before anybody was disturbed: not without that. */
    for (uint32_t i = 0; !all_there() || (!m.calm && atomic_load(&m.left) == 0); i++) {
        if (!m.calm)
            interrupt_l1(i % VCPUS);
        if (i % 7 == 0 && !m.calm)
            vapic_set_inhibit(&m.vm, VAPIC_INHIBIT_BLOCKIRQ, i % 2 == 0);
        for (uint32_t k = 0; k < 3; k++)
            sched_yield();
        if (time(NULL) > end)
            return false;
    }
    return true;
}

static void ring(enum vapic_nested_strategy strategy, bool calm)
{
    void *memory;
    bool done;

    memset(&m, 0, sizeof(m));
    m.calm = calm;
    memset(ram, 0, sizeof(ram));
    memset(pages, 0, sizeof(pages));
    pthread_mutex_init(&m.lock, NULL);
    make_silicon();
    memory = make_vm(strategy);
    for (uint32_t n = 0; n < VCPUS; n++)
        make_vcpu(n);
    start_tokens();
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(pthread_create(&m.v[n].thread, NULL, run, &m.v[n]), 0);
    done = disturb_until_done();
    atomic_store(&m.stop, true);
    for (uint32_t n = 0; n < VCPUS; n++) {
        wake_up(&m.v[n], &m.v[n].wake);
        vapic_sil_interrupt(&m.silicon, n, KICK);
        pthread_join(m.v[n].thread, NULL);
    }
    assert_true(done);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(vapic_remove(&m.v[n].apic), VAPIC_OK);
    vapic_nested_fini(&m.nested);
    vapic_accel_fini(&m.accel);
    free(memory);
}

static void tokens_by_software(void **state)
{
    (void)state;
    ring(VAPIC_NESTED_DUMMY, false);
    ring(VAPIC_NESTED_DUMMY, true);
}

static void tokens_by_shadow(void **state)
{
    (void)state;
    ring(VAPIC_NESTED_SHADOW, false);
    ring(VAPIC_NESTED_SHADOW, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_by_software),
        cmocka_unit_test(tokens_by_shadow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
