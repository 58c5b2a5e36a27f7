/* SPDX-License-Identifier: MIT */
/*
 * AVIC for L2 under real threads: tokens travel round a ring of L2's vCPUs as IPIs, one vector
 * each, while L1 takes its vCPUs out of L2 and puts them back (IsRunning in its table), posts into
 * their pages and rings its doorbell; interrupts of L1's own come; L0 moves vCPUs between
 * processors, inhibits L1, and takes pages of L1's memory away for a moment. Every L2 sleeps
 * whenever it has nothing to do, which L1 does not know. An interrupt that is lost stops its token
 * for ever; one that comes twice makes two of it. L1's addresses are pointers.
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
#define CPUS         (2 * VCPUS) /* vCPU n runs on n or on VCPUS + n */
#define TOKENS       4u
#define FIRST_VECTOR 0x50u
#define BELL_VECTOR  0x90u
#define L1_VECTOR    0x41u
#define KICK_VECTOR  0xF0u
#define HOPS         1500u
#define SECONDS      60
#define PAGE         4096u

enum phase { IDLE, END, DESTINATION, SEND };

struct vcpu {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    struct vapic_nested_vcpu nested;
    uint8_t *vmcb; /* the current one: 01 or 02 */
    struct vapic_sil_cpu *cpu;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool added; /* constant while there are threads */
    bool wake, in_l2;
    uint64_t event;   /* injected into L1, not delivered yet */
    atomic_uint call; /* odd while the thread is in the library */
    enum phase phase; /* of L2 */
    uint8_t vector;
    uint32_t turns, spurious, nested_entries;
};

static struct {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_nested nested;
    struct vapic_sil silicon;
    struct vapic_sil_cpu cpus[CPUS], *by_id[CPUS];
    struct vapic_pcpu pcpus[CPUS];
    struct vcpu v[VCPUS];
    pthread_mutex_t lock;
    atomic_bool page_mapped, stop, gone[VCPUS + 2];
    atomic_uint hops[TOKENS], rung, heard, l1_fired, l1_answered, reflected;
    uint32_t toggles, unmaps;
    bool x2;
    void *memory;
} m;

static uint8_t pages[VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t vmcb01[VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t vmcb02[VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t msrpm[2][VCPUS][SVM_MSRPM_SIZE] __attribute__((aligned(4096)));
static uint8_t tables[2 * PAGE] __attribute__((aligned(4096)));
static uint8_t scratch[2][PAGE] __attribute__((aligned(4096)));
static uint8_t map[65536] __attribute__((aligned(64)));
/* L1's memory: L2's backing pages, the physical table, the logical table; and VMCBs. */
static uint8_t ram[VCPUS + 2][PAGE] __attribute__((aligned(4096)));
static uint8_t vmcb12[VCPUS][PAGE] __attribute__((aligned(4096)));

#define TABLE   (ram[VCPUS])
#define LOGICAL (ram[VCPUS + 1])

static struct vcpu *vcpu_of(struct vapic *v)
{
    return (struct vcpu *)(void *)v;
}

static struct vapic_now now(void)
{
    return (struct vapic_now){0};
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

/* Around what a vCPU's thread does in the library. */
static void begin_call(struct vcpu *c)
{
    atomic_fetch_add(&c->call, 1);
}

static void end_call(struct vcpu *c)
{
    atomic_fetch_add(&c->call, 1);
}

static void host_quiesce(void *ctx)
{
    (void)ctx;
    for (uint32_t n = 0; n < VCPUS; n++) {
        unsigned before = atomic_load(&m.v[n].call);

        while (before % 2 == 1 && atomic_load(&m.v[n].call) == before)
            sched_yield();
    }
}

static void wake_up(struct vcpu *c)
{
    pthread_mutex_lock(&c->mutex);
    c->wake = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

static void kick(struct vapic *v)
{
    uint32_t n = v->id;

    vapic_sil_interrupt(&m.silicon, n, KICK_VECTOR);
    vapic_sil_interrupt(&m.silicon, n + VCPUS, KICK_VECTOR);
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    uint32_t id;

    (void)ctx;
    if (action == VAPIC_ACTION_WAKE)
        wake_up(vcpu_of(target));
    else if (action == VAPIC_ACTION_KICK)
        kick(target);
    else if (vapic_doorbell_id(target, &id))
        vapic_sil_doorbell(&m.silicon, id);
}

static void host_kick_all(void *ctx)
{
    (void)ctx;
    for (uint32_t n = 0; n < VCPUS; n++)
        if (m.v[n].added && vapic_in_guest(&m.v[n].apic))
            kick(&m.v[n].apic);
    for (uint32_t n = 0; n < VCPUS; n++)
        while (m.v[n].added && vapic_in_guest(&m.v[n].apic))
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
    vmcb01[v->id][VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
}

static void pass_to(uint32_t level, struct vapic *v, uint8_t *vmcb,
                    const struct vapic_msr_pass *pass)
{
    vapic_pass_to_msrpm(pass, msrpm[level][v->id]);
    vmcb_dirty(vmcb, VMCB_CLEAN_PERMISSION);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    pass_to(0, v, vmcb01[v->id], pass);
}

static void host_intercept02(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    pass_to(1, v, vmcb02[v->id], pass);
}

static bool host_pin(void *ctx, uint64_t gpa, struct vapic_l1_page *pin)
{
    uintptr_t offset = (uintptr_t)gpa - (uintptr_t)ram;

    (void)ctx;
    if (offset >= sizeof(ram) || atomic_load(&m.gone[offset / PAGE]))
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
    .quiesce = host_quiesce,
    .notify = host_notify,
    .physical = th_physical,
    .kick_all = host_kick_all,
    .access_page = host_access_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .spin_lock = th_spin_lock,
    .spin_unlock = th_spin_unlock,
};

static const struct vapic_nested_host nested_host = {
    .size = sizeof(nested_host),
    .pin = host_pin,
    .unpin = host_unpin,
    .track = host_track,
    .intercept = host_intercept02,
};

/* L2's APIC page is always mapped: L1's page tables are L1's. */
static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    bool l2 = cpu->svm.asid > VCPUS;

    (void)ctx;
    return th_walk(gpa, l2 || atomic_load(&m.page_mapped), scratch[l2], page);
}

/* ---- L2 ---- */

static uint64_t value_of(const struct vcpu *c)
{
    uint32_t next = (c->apic.id + 1) % VCPUS;
    uint64_t icr = APIC_ICR_ASSERT | c->vector;

    if (c->phase == DESTINATION)
        return next << 24;
    if (c->phase == SEND)
        return m.x2 ? (uint64_t)next << 32 | icr : icr;
    return 0;
}

static void advance(struct vcpu *c)
{
    if (c->phase == END && c->vector == BELL_VECTOR) {
        c->phase = IDLE;
        atomic_fetch_add(&m.heard, 1);
    } else if (c->phase == END) {
        c->phase = m.x2 ? SEND : DESTINATION;
    } else if (c->phase == DESTINATION) {
        c->phase = SEND;
    } else {
        c->phase = IDLE;
        atomic_fetch_add(&m.hops[c->vector - FIRST_VECTOR], 1);
    }
}

static enum vapic_sil_result execute(struct vcpu *c)
{
    static const uint16_t offsets[] = {0, APIC_EOI, APIC_ICR2, APIC_ICR};
    uint32_t offset = offsets[c->phase];
    enum vapic_sil_result result;

    if (c->phase == IDLE) {
        c->cpu->guest.interrupt_flag = true;
        return vapic_sil_hlt(c->cpu);
    }
    if (m.x2)
        result = vapic_sil_wrmsr(c->cpu, MSR_X2APIC_FIRST + (offset >> 4), value_of(c));
    else
        result = th_write(c->cpu, offset, (uint32_t)value_of(c));
    if (result == VAPIC_SIL_DONE)
        advance(c);
    return result;
}

static void interrupted(struct vcpu *c, uint8_t vector)
{
    c->cpu->guest.interrupt_flag = false;
    c->spurious += c->phase != IDLE;
    c->vector = vector;
    c->phase = END;
}

static void run_l2(struct vcpu *c)
{
    enum vapic_sil_result result;
    uint8_t vector;

    do {
        result = vapic_sil_boundary(c->cpu, &vector);
        if (result == VAPIC_SIL_DELIVER)
            interrupted(c, vector);
        else if (result == VAPIC_SIL_NOTHING)
            result = execute(c);
        if (result == VAPIC_SIL_GP || result == VAPIC_SIL_NATIVE)
            abort();
    } while (result != VAPIC_SIL_EXIT);
}

/* ---- L1's software on a vCPU ---- */

/* Any interrupt is ended at once; then L1 goes back to its L2. */
static void run_l1(struct vcpu *c)
{
    uint8_t vector;

    for (;;) {
        switch (vapic_sil_boundary(c->cpu, &vector)) {
        case VAPIC_SIL_DELIVER:
            if (vector != L1_VECTOR)
                abort();
            atomic_fetch_add(&m.l1_answered, 1);
            if (th_write(c->cpu, APIC_EOI, 0) != VAPIC_SIL_EXIT)
                continue;
            c->phase |= 8; /* the EOI exits: L1 is not accelerated now */
            return;
        case VAPIC_SIL_NOTHING:
            vapic_sil_leave(c->cpu, SVM_EXIT_MSR, 0, 0);
            return;
        default:
            return;
        }
    }
}

/* L1's table as L1 writes it: what tracks it is told before the writer goes on. */
static void set_running(struct vcpu *c, bool running)
{
    uint64_t *entry = (uint64_t *)(void *)TABLE + c->apic.id;
    uint64_t value = AVIC_PHYSICAL_VALID | (uintptr_t)ram[c->apic.id] | c->apic.id;

    __atomic_store_n(entry, running ? value | AVIC_PHYSICAL_RUNNING : value, __ATOMIC_SEQ_CST);
    vapic_nested_written(&m.vm, (uintptr_t)entry, sizeof(*entry));
}

/* A device of L1's for the L2 next door. */
static void ring_next(struct vcpu *c)
{
    uint32_t next = (c->apic.id + 1) % VCPUS;
    unsigned heard = atomic_load(&m.heard);
    uint32_t *irr = (uint32_t *)(void *)(ram[next] + APIC_IRR + BELL_VECTOR / 32 * 16);

    if (!atomic_compare_exchange_strong(&m.rung, &heard, heard + 1))
        return;
    __atomic_fetch_or(irr, 1u << BELL_VECTOR % 32, __ATOMIC_SEQ_CST);
    if (vapic_nested_doorbell(&c->apic, next) != VAPIC_OK)
        abort();
}

/* ---- L0's loop ---- */

static void vmrun(struct vcpu *c, const struct vapic_entry *entry)
{
    uint64_t event = c->event;

    if (entry->inject == VAPIC_INJECT_VECTOR)
        event = VMCB_EVENT_VALID | VMCB_EVENT_INTR | entry->vector;
    vmcb_set64(c->vmcb, VMCB_EVENTINJ, event);
    vmcb_set32(c->vmcb, VMCB_CLEAN, 0);
    c->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
    if (vapic_sil_vmrun(c->cpu, (uintptr_t)c->vmcb) != VAPIC_SIL_DONE)
        abort();
    if (c->in_l2)
        run_l2(c);
    else
        run_l1(c);
    event = vmcb_get64(c->vmcb, VMCB_EXITINTINFO);
    c->event = event & VMCB_EVENT_VALID ? event : 0;
}

static void nested_enter(struct vcpu *c)
{
    struct vapic_nested_view view = {.vmcb12 = vmcb12[c->apic.id],
                                     .pass = &(struct vapic_msr_pass){{~0ull, ~0ull, ~0ull, ~0ull},
                                                                      {~0ull, ~0ull, ~0ull, ~0ull}},
                                     .l1_if = true};
    int result;

    set_running(c, true);
    if (++c->nested_entries % 3 == 0)
        ring_next(c);
    result = vapic_nested_enter(&c->apic, &view);
    if (result == VAPIC_E_MEMORY)
        return; /* gone for a moment; L1 executes VMRUN again */
    if (result != VAPIC_OK)
        abort();
    c->vmcb = vmcb02[c->apic.id];
    c->in_l2 = true;
}

static void nested_exit(struct vcpu *c)
{
    struct vapic_nested_left left;
    uint8_t *vmcb = vmcb12[c->apic.id];

    vapic_nested_leave(&c->apic, &left);
    vmcb_set64(vmcb, VMCB_INT_CTL,
               (vmcb_get64(vmcb, VMCB_INT_CTL) & ~left.int_ctl_mask) | left.int_ctl);
    c->vmcb = vmcb01[c->apic.id];
    c->in_l2 = false;
    vapic_nested_exit(&c->apic);
    set_running(c, false);
}

static int ask(struct vcpu *c, struct vapic_reflect *reflect)
{
    return vapic_nested_avic_exit(&c->apic, vmcb_get64(c->vmcb, VMCB_EXITCODE),
                                  vmcb_get64(c->vmcb, VMCB_EXITINFO1),
                                  vmcb_get64(c->vmcb, VMCB_EXITINFO2), reflect);
}

/* A target that L1 does not run: L1 runs it by itself before long. */
static void l2_exit(struct vcpu *c)
{
    uint64_t code = vmcb_get64(c->vmcb, VMCB_EXITCODE);
    struct vapic_reflect reflect;
    int result;

    if (code == SVM_EXIT_HLT) {
        vapic_halt(&c->apic);
        return;
    }
    if (code != SVM_EXIT_AVIC_INCOMPLETE)
        return;
    while ((result = ask(c, &reflect)) == VAPIC_E_MEMORY) {
        end_call(c); /* who takes the memory away waits for that */
        sched_yield();
        begin_call(c);
    }
    /* A page that is gone for the moment: nothing was posted, L1 does nothing but send again. */
    if (result == VAPIC_REFLECT && reflect.info2 >> 32 == AVIC_IPI_INVALID_BACKING) {
        atomic_fetch_add(&m.reflected, 1);
        return;
    }
    advance(c);
    if (result != VAPIC_REFLECT)
        return;
    if (reflect.info2 >> 32 != AVIC_IPI_NOT_RUNNING)
        abort();
    atomic_fetch_add(&m.reflected, 1);
    nested_exit(c);
}

static void handle_exit(struct vcpu *c)
{
    uint32_t zero = 0;

    while (vapic_sil_take_interrupt(c->cpu) >= 0)
        continue;
    if (c->in_l2) {
        l2_exit(c);
        return;
    }
    if (c->phase & 8) {
        c->phase &= 7;
        vapic_mmio_write(&c->apic, APIC_EOI, &zero, sizeof(zero), now());
        return;
    }
    if (vmcb_get64(c->vmcb, VMCB_EXITCODE) == SVM_EXIT_MSR) /* it has nothing more to do */
        nested_enter(c);
}

static void sleep_until_woken(struct vcpu *c)
{
    if (!vapic_block(&c->apic))
        return;
    end_call(c);
    pthread_mutex_lock(&c->mutex);
    while (!c->wake)
        pthread_cond_wait(&c->cond, &c->mutex);
    c->wake = false;
    pthread_mutex_unlock(&c->mutex);
    begin_call(c);
    vapic_unblock(&c->apic);
}

static void move(struct vcpu *c)
{
    uint32_t n = (uint32_t)(c->cpu - m.cpus);

    vapic_put(&c->apic);
    sched_yield();
    n = n < VCPUS ? n + VCPUS : n - VCPUS;
    c->cpu = &m.cpus[n];
    vapic_load(&c->apic, &m.pcpus[n]);
}

static uint32_t can(const struct vcpu *c)
{
    uint32_t set = VAPIC_CAN_INIT;

    if (vmcb_get64(c->vmcb, VMCB_RFLAGS) & VMCB_RFLAGS_IF)
        set |= VAPIC_IF | (c->event ? 0u : (uint32_t)VAPIC_CAN_IRQ);
    return set;
}

static void enter(struct vcpu *c, const struct vapic_entry *entry)
{
    vapic_commit(&c->apic, entry);
    end_call(c);
    if (entry->nested == VAPIC_NESTED_SOON)
        vapic_sil_interrupt(&m.silicon, c->cpu->apic_id, KICK_VECTOR);
    vmrun(c, entry);
    begin_call(c);
    vapic_exit(&c->apic, (uint8_t)(vmcb_get64(c->vmcb, VMCB_INT_CTL) & VMCB_V_TPR), c->event == 0);
    vapic_nested_ran(&c->apic);
    handle_exit(c);
}

/* Every now and then L1's timer takes the vCPU out of L2. */
static void turn(struct vcpu *c)
{
    struct vapic_entry entry;

    if (++c->turns % 37 == 0)
        move(c);
    if (c->turns % 11 == 0 && c->in_l2 && vapic_nested_state(&c->apic) == VAPIC_NESTED_L2 &&
        vapic_activity(&c->apic) == VAPIC_RUNNING)
        nested_exit(c);
    vapic_enter(&c->apic, can(c), now(), &entry);
    if (entry.nested == VAPIC_NESTED_STOP) {
        sched_yield();
    } else if (entry.nested == VAPIC_NESTED_LEAVE) {
        vapic_exit(&c->apic, 0, true);
        nested_exit(c);
    } else if (entry.runnable) {
        enter(c, &entry);
    } else {
        sleep_until_woken(c);
    }
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *c = arg;

    vapic_load(&c->apic, &m.pcpus[c->apic.id]);
    while (!atomic_load(&m.stop)) {
        begin_call(c);
        turn(c);
        end_call(c);
    }
    vapic_nested_abandon(&c->apic);
    vapic_put(&c->apic);
    return NULL;
}

/* ---- Set-up ---- */

static void make_l1_memory(uint32_t n)
{
    uint32_t *page = (uint32_t *)(void *)ram[n];
    uint8_t *vmcb = vmcb12[n];

    page[APIC_ID / 4] = m.x2 ? n : n << 24;
    page[APIC_SVR / 4] = 0x1FF;
    page[APIC_DFR / 4] = APIC_DFR_FLAT;
    ((uint64_t *)(void *)TABLE)[n] = AVIC_PHYSICAL_VALID | (uintptr_t)ram[n] | n;
    memset(vmcb, 0, PAGE);
    vmcb_set32(vmcb, VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_MSR);
    vmcb_set64(vmcb, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    vmcb_set64(vmcb, VMCB_INT_CTL, VMCB_V_AVIC | VMCB_V_INTR_MASKING | (m.x2 ? VMCB_V_X2AVIC : 0));
    vmcb_set64(vmcb, VMCB_AVIC_BAR, APIC_DEFAULT_BASE);
    vmcb_set64(vmcb, VMCB_AVIC_BACKING, (uintptr_t)ram[n]);
    vmcb_set64(vmcb, VMCB_AVIC_LOGICAL, (uintptr_t)LOGICAL);
    vmcb_set64(vmcb, VMCB_AVIC_PHYSICAL, (uintptr_t)TABLE | (VCPUS - 1));
}

static void make_vcpu(uint32_t n)
{
    struct vcpu *c = &m.v[n];
    struct vapic_config config = {.id = n, .bsp = n == 0, .features = VAPIC_FEATURE_X2APIC};
    struct vapic_accel_vcpu_config accel = {.vmcb = vmcb01[n]};
    struct vapic_nested_vcpu_config nested = {.vmcb02 = vmcb02[n]};
    uint32_t svr = APIC_SVR_ENABLE | 0xFF;

    memset(vmcb01[n], 0, PAGE);
    memset(vmcb02[n], 0, PAGE);
    c->cpu = &m.cpus[n];
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->cond, NULL);
    vmcb_create(vmcb01[n], msrpm[0][n], (uintptr_t)msrpm[0][n], n + 1);
    vmcb_create(vmcb02[n], msrpm[1][n], (uintptr_t)msrpm[1][n], VCPUS + n + 1);
    vmcb_set64(vmcb01[n], VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
    vmcb_set64(vmcb02[n], VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &m.vm, &config, pages[n]), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel), VAPIC_OK);
    assert_int_equal(vapic_nested_attach(&c->apic, &c->nested, sizeof(c->nested), &nested),
                     VAPIC_OK);
    c->added = true;
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    c->vmcb = vmcb01[n];
    vapic_mmio_write(&c->apic, APIC_SVR, &svr, sizeof(svr), now());
    make_l1_memory(n);
}

static void make_machine(enum vapic_nested_strategy strategy)
{
    static const struct vapic_sil_host sil = {
        .size = sizeof(sil), .memory = th_memory, .walk = sil_walk};
    uint32_t features = VAPIC_ACCEL_IPIV | (m.x2 ? VAPIC_ACCEL_X2AVIC : 0);
    struct vapic_sil_config silicon = {.vendor = VAPIC_SIL_AMD, .x2avic = m.x2};
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {
        .kind = VAPIC_ACCEL_AVIC, .features = features, .max_id = VCPUS - 1};
    struct vapic_nested_config nested = {.features =
                                             VAPIC_NESTED_AVIC | (m.x2 ? VAPIC_NESTED_X2AVIC : 0),
                                         .strategy = strategy,
                                         .tables = 2,
                                         .entries = 8};
    size_t size;

    memset(ram, 0, sizeof(ram));
    pthread_mutex_init(&m.lock, NULL);
    assert_true(vapic_sil_init(&m.silicon, &silicon, &sil, NULL, m.by_id, CPUS));
    for (uint32_t i = 0; i < CPUS; i++) {
        assert_true(vapic_sil_cpu_init(&m.cpus[i], &m.silicon, i));
        assert_int_equal(vapic_pcpu_init(&m.pcpus[i], sizeof(m.pcpus[i]), i), VAPIC_OK);
    }
    assert_int_equal(vapic_vm_init(&m.vm, sizeof(m.vm), &config, &host, NULL, map, sizeof(map)),
                     VAPIC_OK);
    assert_int_equal(
        vapic_accel_init(&m.accel, sizeof(m.accel), &m.vm, &accel, tables, sizeof(tables)),
        VAPIC_OK);
    size = vapic_nested_memory(&nested, &accel);
    m.memory = aligned_alloc(PAGE, size);
    assert_int_equal(vapic_nested_init(&m.nested, sizeof(m.nested), &m.vm, &nested, &nested_host,
                                       m.memory, size),
                     VAPIC_OK);
    for (uint32_t n = 0; n < VCPUS; n++)
        make_vcpu(n);
    for (uint32_t n = 1; n < VCPUS; n++)
        th_start(&m.vm, &m.v[n].apic);
}

/* ---- The test ---- */

static bool done(void)
{
    for (uint32_t i = 0; i < TOKENS; i++)
        if (atomic_load(&m.hops[i]) < HOPS)
            return false;
    return atomic_load(&m.heard) >= 20 && atomic_load(&m.l1_answered) >= 20;
}

static void unmap_one(uint32_t i)
{
    atomic_store(&m.gone[i], true);
    vapic_nested_unmap(&m.vm, (uintptr_t)ram[i], PAGE);
    atomic_store(&m.gone[i], false);
    m.unmaps++;
}

static void interrupt_l1(void)
{
    struct vapic *v = &m.v[m.toggles % VCPUS].apic;
    enum vapic_action action;

    if (atomic_load(&m.l1_fired) != atomic_load(&m.l1_answered))
        return;
    atomic_fetch_add(&m.l1_fired, 1);
    action = vapic_post(v, L1_VECTOR, false, NULL);
    if (action != VAPIC_ACTION_NONE)
        host_notify(NULL, v, action);
}

static void disturb_until_done(void)
{
    time_t end = time(NULL) + SECONDS;

    while (!done() && time(NULL) < end) {
        struct timespec t = {.tv_nsec = 50000 + m.toggles % 7 * 40000};

        vapic_set_inhibit(&m.vm, VAPIC_INHIBIT_BLOCKIRQ, m.toggles++ & 1);
        if (m.toggles % 5 == 0)
            unmap_one(m.toggles / 5 % (VCPUS + 2));
        interrupt_l1();
        nanosleep(&t, NULL);
    }
    vapic_set_inhibit(&m.vm, VAPIC_INHIBIT_BLOCKIRQ, false);
}

static void stop_all(void)
{
    atomic_store(&m.stop, true);
    for (uint32_t n = 0; n < VCPUS; n++) {
        kick(&m.v[n].apic);
        wake_up(&m.v[n]);
        pthread_join(m.v[n].thread, NULL);
    }
}

static void check(void)
{
    for (uint32_t i = 0; i < TOKENS; i++)
        if (atomic_load(&m.hops[i]) < HOPS)
            fail_msg("token %u was lost after %u hops", i, atomic_load(&m.hops[i]));
    if (atomic_load(&m.heard) < 20)
        fail_msg("%u doorbells of %u were heard", atomic_load(&m.heard), atomic_load(&m.rung));
    if (atomic_load(&m.l1_answered) < 20)
        fail_msg("L1 got %u interrupts of %u", atomic_load(&m.l1_answered),
                 atomic_load(&m.l1_fired));
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(m.v[n].spurious, 0);
    assert_true(m.toggles > 2);
}

static void ring(enum vapic_nested_strategy strategy, bool x2)
{
    memset(&m, 0, sizeof(m));
    m.x2 = x2;
    make_machine(strategy);
    for (uint32_t i = 0; i < TOKENS; i++)
        *(uint32_t *)(void *)(ram[i % VCPUS] + APIC_IRR + FIRST_VECTOR / 32 * 16) |=
            1u << (FIRST_VECTOR + i) % 32;
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(pthread_create(&m.v[n].thread, NULL, vcpu_thread, &m.v[n]), 0);
    disturb_until_done();
    stop_all();
    check();
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(vapic_remove(&m.v[n].apic), VAPIC_OK);
    vapic_nested_fini(&m.nested);
    vapic_accel_fini(&m.accel);
    free(m.memory);
}

static void test_dummy(void **state)
{
    (void)state;
    ring(VAPIC_NESTED_DUMMY, false);
}

static void test_shadow(void **state)
{
    (void)state;
    ring(VAPIC_NESTED_SHADOW, false);
}

static void test_x2_shadow(void **state)
{
    (void)state;
    ring(VAPIC_NESTED_SHADOW, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dummy),
        cmocka_unit_test(test_shadow),
        cmocka_unit_test(test_x2_shadow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
