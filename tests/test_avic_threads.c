/* SPDX-License-Identifier: MIT */
/*
 * AVIC under real threads: tokens travel round a ring of vCPUs, one vector each, as IPIs, while a
 * device behind an IOMMU interrupts one of them, another thread inhibits the VM and lets it go
 * again, and every vCPU sleeps whenever it has nothing to do and changes its processor now and
 * then. An interrupt that is lost stops its token for ever; one that comes twice makes two of it.
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
#include "vapic/accel.h"
#include "vapic/silicon.h"

#define VCPUS         3u
#define CPUS          (2 * VCPUS) /* vCPU n runs on n or on VCPUS + n */
#define TOKENS        4u
#define FIRST_VECTOR  0x50u
#define DEVICE_VECTOR 0x90u
#define KICK_VECTOR   0xF0u
#define HOPS          4000u
#define SECONDS       60
#define PAGE          4096u
#define LOG           16u

enum phase { IDLE, END, DESTINATION, SEND };

struct vcpu {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    uint8_t *page, *vmcb, *msrpm;
    struct vapic_sil_cpu *cpu;
    uint64_t event;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool wake;
    enum phase phase;
    uint8_t vector;
    uint32_t turns, spurious;
};

static struct {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_platform platform;
    struct vapic_sil silicon;
    struct vapic_sil_cpu cpus[CPUS], *by_id[CPUS];
    struct vapic_pcpu pcpus[CPUS];
    struct vcpu v[VCPUS];
    pthread_mutex_t lock;
    atomic_bool page_mapped, stop;
    atomic_uint hops[TOKENS], fired, answered;
    uint32_t toggles;
    struct vapic_irte device;
    uint64_t irte[2] __attribute__((aligned(16)));
    struct vapic_sil_amd_iommu iommu;
    uint64_t log[LOG];
    bool x2apic;
} m;

static uint8_t pages[VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t vmcbs[VCPUS][PAGE] __attribute__((aligned(4096)));
static uint8_t msrpms[VCPUS][SVM_MSRPM_SIZE] __attribute__((aligned(4096)));
static uint8_t tables[2 * PAGE] __attribute__((aligned(4096)));
static uint8_t scratch[PAGE] __attribute__((aligned(4096)));
static uint8_t map[65536] __attribute__((aligned(64)));

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

static void wake_up(struct vcpu *c)
{
    pthread_mutex_lock(&c->mutex);
    c->wake = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

/* Wherever it runs: on one of its two processors. */
static void kick(struct vapic *v)
{
    uint32_t n = vcpu_of(v)->apic.id;

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
        if (m.v[n].page != NULL && vapic_in_guest(&m.v[n].apic))
            kick(&m.v[n].apic);
    for (uint32_t n = 0; n < VCPUS; n++)
        while (m.v[n].page != NULL && vapic_in_guest(&m.v[n].apic))
            sched_yield();
}

/* Nobody is in the guest; each flushes before it enters again (see enter()). */
static void host_access_page(void *ctx, bool mapped)
{
    (void)ctx;
    atomic_store(&m.page_mapped, mapped);
}

static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    vcpu_of(v)->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    struct vcpu *c = vcpu_of(v);

    (void)ctx;
    vapic_pass_to_msrpm(pass, c->msrpm);
    vmcb_dirty(c->vmcb, VMCB_CLEAN_PERMISSION);
}

/* A change of form goes through an entry that is not valid, so that nobody sees half of each. */
static void host_irte(void *ctx, void *irte, const uint64_t value[2], bool invalidate)
{
    uint64_t *entry = irte;

    (void)ctx;
    if (invalidate)
        __atomic_store_n(&entry[0], 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&entry[1], value[1], __ATOMIC_SEQ_CST);
    __atomic_store_n(&entry[0], value[0], __ATOMIC_SEQ_CST);
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
    .spin_lock = th_spin_lock,
    .spin_unlock = th_spin_unlock,
    .irte = host_irte,
};

static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    (void)ctx;
    (void)cpu;
    return th_walk(gpa, atomic_load(&m.page_mapped), scratch, page);
}

/* ---- The guest ---- */

static void interrupted(struct vcpu *c, uint8_t vector)
{
    c->cpu->guest.interrupt_flag = false;
    if (c->phase != IDLE)
        c->spurious++;
    c->vector = vector;
    c->phase = END;
}

static uint32_t offset_of(enum phase phase)
{
    static const uint16_t offsets[] = {0, APIC_EOI, APIC_ICR2, APIC_ICR};

    return offsets[phase];
}

static uint64_t value_of(const struct vcpu *c)
{
    uint32_t next = (c->apic.id + 1) % VCPUS;
    uint64_t icr = APIC_ICR_ASSERT | c->vector;

    switch (c->phase) {
    case DESTINATION:
        return next << 24;
    case SEND:
        return m.x2apic ? (uint64_t)next << 32 | icr : icr;
    default:
        return 0;
    }
}

/* The handler's next instruction; a token counts once it has been passed on. */
static void advance(struct vcpu *c)
{
    if (c->phase == END && c->vector == DEVICE_VECTOR) {
        c->phase = IDLE;
        atomic_fetch_add(&m.answered, 1);
    } else if (c->phase == END) {
        c->phase = m.x2apic ? SEND : DESTINATION;
    } else if (c->phase == DESTINATION) {
        c->phase = SEND;
    } else {
        c->phase = IDLE;
        atomic_fetch_add(&m.hops[c->vector - FIRST_VECTOR], 1);
    }
}

static enum vapic_sil_result write_register(struct vcpu *c)
{
    uint32_t offset = offset_of(c->phase);

    if (m.x2apic)
        return vapic_sil_wrmsr(c->cpu, MSR_X2APIC_FIRST + (offset >> 4), value_of(c));
    return th_write(c->cpu, offset, (uint32_t)value_of(c));
}

static void emulate(struct vcpu *c)
{
    uint32_t offset = offset_of(c->phase), low = (uint32_t)value_of(c);

    if (m.x2apic)
        vapic_msr_write(&c->apic, MSR_X2APIC_FIRST + (offset >> 4), value_of(c), now());
    else
        vapic_mmio_write(&c->apic, offset, &low, sizeof(low), now());
    advance(c);
}

static enum vapic_sil_result execute(struct vcpu *c)
{
    enum vapic_sil_result result;

    if (c->phase != IDLE) {
        result = write_register(c);
        if (result == VAPIC_SIL_DONE)
            advance(c);
        return result;
    }
    c->cpu->guest.interrupt_flag = true;
    return vapic_sil_hlt(c->cpu);
}

static void run_guest(struct vcpu *c)
{
    enum vapic_sil_result result = vapic_sil_vmrun(c->cpu, (uintptr_t)c->vmcb);
    uint8_t vector;

    if (result != VAPIC_SIL_DONE)
        abort();
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

/* ---- The loop of a vCPU ---- */

static void handle_exit(struct vcpu *c)
{
    uint64_t code = vmcb_get64(c->vmcb, VMCB_EXITCODE);

    if (code == SVM_EXIT_AVIC_INCOMPLETE || code == SVM_EXIT_AVIC_NOACCEL) {
        if (vapic_avic_exit(&c->apic, code, vmcb_get64(c->vmcb, VMCB_EXITINFO1),
                            vmcb_get64(c->vmcb, VMCB_EXITINFO2), now()) == VAPIC_EMULATE)
            emulate(c);
        else
            advance(c);
    } else if (code == SVM_EXIT_NPF || code == SVM_EXIT_MSR) {
        emulate(c);
    } else if (code == SVM_EXIT_HLT) {
        vapic_halt(&c->apic);
    } else {
        while (vapic_sil_take_interrupt(c->cpu) >= 0)
            continue;
    }
}

static void sleep_until_woken(struct vcpu *c)
{
    if (!vapic_block(&c->apic))
        return;
    pthread_mutex_lock(&c->mutex);
    while (!c->wake)
        pthread_cond_wait(&c->cond, &c->mutex);
    c->wake = false;
    pthread_mutex_unlock(&c->mutex);
    vapic_unblock(&c->apic);
}

static uint32_t can(const struct vcpu *c)
{
    uint32_t set = VAPIC_CAN_INIT;

    if (vmcb_get64(c->vmcb, VMCB_RFLAGS) & VMCB_RFLAGS_IF)
        set |= VAPIC_IF | (c->event ? 0u : (uint32_t)VAPIC_CAN_IRQ);
    return set;
}

static void move(struct vcpu *c)
{
    uint32_t n = (uint32_t)(c->cpu - m.cpus);

    vapic_put(&c->apic);
    sched_yield();
    n = n < VCPUS ? n + VCPUS : n - VCPUS;
    c->cpu = &m.cpus[n];
    vmcb_set32(c->vmcb, VMCB_CLEAN, 0);
    c->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
    vapic_load(&c->apic, &m.pcpus[n]);
}

static void enter(struct vcpu *c, const struct vapic_entry *entry)
{
    uint64_t event = c->event;

    if (entry->inject == VAPIC_INJECT_VECTOR)
        event = VMCB_EVENT_VALID | VMCB_EVENT_INTR | entry->vector;
    vapic_commit(&c->apic, entry);
    vmcb_set64(c->vmcb, VMCB_EVENTINJ, event);
    /* The page may have been withdrawn and allowed since. */
    c->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
    run_guest(c);
    c->event = vmcb_get64(c->vmcb, VMCB_EXITINTINFO) & VMCB_EVENT_VALID
                   ? vmcb_get64(c->vmcb, VMCB_EXITINTINFO)
                   : 0;
    vmcb_set32(c->vmcb, VMCB_CLEAN, 0xFFFFFFFF);
    vapic_exit(&c->apic, (uint8_t)(vmcb_get64(c->vmcb, VMCB_INT_CTL) & VMCB_V_TPR), c->event == 0);
    handle_exit(c);
}

static void turn(struct vcpu *c)
{
    struct vapic_entry entry;

    if (++c->turns % 37 == 0)
        move(c);
    vapic_enter(&c->apic, can(c), now(), &entry);
    if (entry.event != VAPIC_CPU_NONE)
        return;
    if (entry.runnable)
        enter(c, &entry);
    else
        sleep_until_woken(c);
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *c = arg;

    vapic_load(&c->apic, &m.pcpus[c->apic.id]);
    while (!atomic_load(&m.stop))
        turn(c);
    vapic_put(&c->apic);
    return NULL;
}

/* ---- The device, and its driver in the host ---- */

static void device_interrupts(void)
{
    struct vapic *v = &m.v[0].apic;

    switch (vapic_sil_amd_msi(&m.iommu, m.irte, 1)) {
    case VAPIC_SIL_MSI_BLOCKED: /* its entry changes form just now */
        return;
    case VAPIC_SIL_MSI_REMAPPED: {
        enum vapic_action action = vapic_post(v, DEVICE_VECTOR, false, NULL);

        if (action != VAPIC_ACTION_NONE)
            host_notify(NULL, v, action);
        break;
    }
    case VAPIC_SIL_MSI_LOGGED:
        vapic_ga_log(&m.platform, m.log[m.iommu.head]);
        m.iommu.head = (m.iommu.head + 1) % LOG;
        break;
    case VAPIC_SIL_MSI_POSTED:
        break;
    default:
        abort();
    }
    atomic_fetch_add(&m.fired, 1);
}

static void *device_thread(void *arg)
{
    (void)arg;
    while (!atomic_load(&m.stop)) {
        if (atomic_load(&m.fired) == atomic_load(&m.answered))
            device_interrupts();
        sched_yield();
    }
    return NULL;
}

/* ---- Set-up ---- */

static void make_vcpu(uint32_t n)
{
    struct vcpu *c = &m.v[n];
    struct vapic_config config = {.id = n, .bsp = n == 0, .features = VAPIC_FEATURE_X2APIC};
    struct vapic_accel_vcpu_config accel = {.vmcb = vmcbs[n]};
    uint32_t svr = APIC_SVR_ENABLE | 0xFF;

    memset(vmcbs[n], 0, PAGE);
    c->page = pages[n];
    c->vmcb = vmcbs[n];
    c->msrpm = msrpms[n];
    c->cpu = &m.cpus[n];
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->cond, NULL);
    vmcb_create(c->vmcb, c->msrpm, (uintptr_t)c->msrpm, n + 1);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &m.vm, &config, c->page), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel), VAPIC_OK);
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    if (m.x2apic)
        assert_int_equal(vapic_load_base(&c->apic, vapic_base(&c->apic) | APIC_BASE_EXTD),
                         VAPIC_OK);
    if (m.x2apic)
        vapic_msr_write(&c->apic, 0x80F, svr, now());
    else
        vapic_mmio_write(&c->apic, APIC_SVR, &svr, sizeof(svr), now());
}

static void make_machine(uint32_t features)
{
    static const struct vapic_sil_host sil = {
        .size = sizeof(sil), .memory = th_memory, .walk = sil_walk};
    struct vapic_sil_config silicon = {.vendor = VAPIC_SIL_AMD,
                                       .x2avic = (features & VAPIC_ACCEL_X2AVIC) != 0};
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_AVIC,
                                       .features = features,
                                       .max_id = VCPUS - 1,
                                       .vm_tag = 3,
                                       .platform = &m.platform};

    pthread_mutex_init(&m.lock, NULL);
    assert_true(vapic_sil_init(&m.silicon, &silicon, &sil, NULL, m.by_id, CPUS));
    for (uint32_t i = 0; i < CPUS; i++) {
        assert_true(vapic_sil_cpu_init(&m.cpus[i], &m.silicon, i));
        assert_int_equal(vapic_pcpu_init(&m.pcpus[i], sizeof(m.pcpus[i]), i), VAPIC_OK);
    }
    m.iommu = (struct vapic_sil_amd_iommu){.machine = &m.silicon, .log = m.log, .entries = LOG};
    assert_int_equal(vapic_platform_init(&m.platform, sizeof(m.platform), &host, NULL), VAPIC_OK);
    assert_int_equal(vapic_vm_init(&m.vm, sizeof(m.vm), &config, &host, NULL, map, sizeof(map)),
                     VAPIC_OK);
    assert_int_equal(
        vapic_accel_init(&m.accel, sizeof(m.accel), &m.vm, &accel, tables, sizeof(tables)),
        VAPIC_OK);
    for (uint32_t n = 0; n < VCPUS; n++)
        make_vcpu(n);
    for (uint32_t n = 1; n < VCPUS; n++)
        th_start(&m.vm, &m.v[n].apic); /* the ring is not the place for start-up code */
}

/* ---- The test ---- */

static bool done(void)
{
    for (uint32_t i = 0; i < TOKENS; i++)
        if (atomic_load(&m.hops[i]) < HOPS)
            return false;
    return atomic_load(&m.answered) >= HOPS / 10;
}

static void pause_us(long us)
{
    struct timespec t = {.tv_nsec = us * 1000};

    nanosleep(&t, NULL);
}

static void toggle_until_done(void)
{
    time_t end = time(NULL) + SECONDS;

    while (!done() && time(NULL) < end) {
        vapic_set_inhibit(&m.vm, VAPIC_INHIBIT_BLOCKIRQ, m.toggles++ & 1);
        pause_us(50 + m.toggles % 7 * 40);
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

static void ring(uint32_t features, bool x2apic)
{
    const uint64_t remapped[2] = {AMD_IRTE_VALID, 0x41};
    pthread_t device;

    memset(&m, 0, sizeof(m));
    m.x2apic = x2apic;
    make_machine(features);
    assert_int_equal(vapic_irte_attach(&m.device, &m.v[0].apic, DEVICE_VECTOR, remapped, m.irte),
                     VAPIC_OK);
    for (uint32_t i = 0; i < TOKENS; i++)
        vapic_post(&m.v[i % VCPUS].apic, (uint8_t)(FIRST_VECTOR + i), false, NULL);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(pthread_create(&m.v[n].thread, NULL, vcpu_thread, &m.v[n]), 0);
    assert_int_equal(pthread_create(&device, NULL, device_thread, NULL), 0);
    toggle_until_done();
    stop_all();
    pthread_join(device, NULL);
    vapic_irte_detach(&m.device);
    for (uint32_t i = 0; i < TOKENS; i++)
        if (atomic_load(&m.hops[i]) < HOPS)
            fail_msg("token %u was lost after %u hops", i, atomic_load(&m.hops[i]));
    if (atomic_load(&m.answered) < HOPS / 10)
        fail_msg("the device's interrupt was lost: %u of %u", atomic_load(&m.answered),
                 atomic_load(&m.fired));
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(m.v[n].spurious, 0);
    assert_true(m.toggles > 2);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_int_equal(vapic_remove(&m.v[n].apic), VAPIC_OK);
    vapic_accel_fini(&m.accel);
}

static void test_xavic(void **state)
{
    (void)state;
    ring(VAPIC_ACCEL_IPIV, false);
}

static void test_xavic_unpublished(void **state)
{
    (void)state;
    ring(0, false);
}

static void test_x2avic(void **state)
{
    (void)state;
    ring(VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC, true);
}

static void test_hybrid(void **state)
{
    (void)state;
    ring(VAPIC_ACCEL_IPIV, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xavic),
        cmocka_unit_test(test_xavic_unpublished),
        cmocka_unit_test(test_x2avic),
        cmocka_unit_test(test_hybrid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
