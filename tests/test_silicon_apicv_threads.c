/* SPDX-License-Identifier: MIT */
/*
 * Posting with real threads: a receiver that enters, exits, halts, blocks and sleeps, against
 * senders of the three kinds that there are: software, another guest's IPIs, a device through the
 * IOMMU. Each has vectors of its own and waits for one to be handled before it sends it again; so
 * every interrupt that is lost is a sender that waits for ever, which the deadline turns into a
 * failure, and one that comes twice is counted [SDM3 31.6] [SDM3 31.1.6].
 * Last, a remapping entry that is rewritten under the IOMMU.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "silicon_vmx.h"

enum {
    ROUNDS = 4000,  /* interrupts per vector */
    PER_SENDER = 3, /* vectors per sender */
    SENDERS = 3,
    WAKE = 0xE1,  /* the host's wake-up vector */
    FIRST = 0x31, /* vectors: FIRST + 10h * sender + number */
    SECONDS = 35,
};

static struct vmx bench;
static struct {
    uint32_t sent[256], handled[256];
    uint32_t stop, failed, entries, blocks, wakes, moves;
    bool moving;
    pthread_mutex_t lock; /* of the sleep */
    pthread_cond_t wake;
    bool signalled;
    struct timespec deadline;
} run;

static void set_deadline(void)
{
    clock_gettime(CLOCK_REALTIME, &run.deadline);
    run.deadline.tv_sec += SECONDS;
}

static bool expired(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec > run.deadline.tv_sec;
}

/* ---- The receiver: processor 1 ---- */

/* Where the receiver's vCPU is: processor 1, or, when it moves, 2. Its thread's only. */
static struct vapic_sil_cpu *receiver;

/* An interrupt has reached some processor: only the receiver ever sleeps, and it looks again. */
static void on_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    (void)ctx;
    if (cpu == &bench.cpu[0])
        return;
    pthread_mutex_lock(&run.lock);
    run.signalled = true;
    pthread_cond_signal(&run.wake);
    pthread_mutex_unlock(&run.lock);
}

/* False: nothing came until the deadline. */
static bool sleep_until_signal(void)
{
    int status = 0;

    pthread_mutex_lock(&run.lock);
    while (!run.signalled && status == 0)
        status = pthread_cond_timedwait(&run.wake, &run.lock, &run.deadline);
    run.signalled = false;
    pthread_mutex_unlock(&run.lock);
    return status == 0;
}

static bool finished(void)
{
    return vapic_load32(&run.stop, VAPIC_ACQUIRE) != 0;
}

/* The guest's handler: counts, ends the interrupt. An exit by the EOI is taken and returned from.
 */
static void handle(uint8_t vector)
{
    receiver->guest.interrupt_flag = false;
    /* Release: pairs with the sender's acquire in wait_handled(). */
    vapic_add32(&run.handled[vector], 1, VAPIC_RELEASE);
    if (vapic_sil_wrmsr(receiver, 0x80B, 0) != VAPIC_SIL_DONE)
        vapic_store32(&run.failed, 1, VAPIC_RELAXED);
    receiver->guest.interrupt_flag = true;
}

/* Software's harvest before an entry: ON first, then PIR, then RVI. */
static void sync_pir(void)
{
    uint64_t *pid = vmx_pid(&bench, 1);
    unsigned top = 0;

    vapic_and64(&pid[4], ~(uint64_t)PID_ON, VAPIC_SEQ_CST);
    for (unsigned w = 0; w < 4; w++) {
        uint64_t bits = vapic_xchg64(&pid[w], 0, VAPIC_SEQ_CST);

        for (unsigned half = 0; half < 2; half++)
            vapic_or32(vmx_word(&bench, 1, APIC_IRR + 0x20 * w + 0x10 * half),
                       (uint32_t)(bits >> 32 * half), VAPIC_RELAXED);
    }
    for (unsigned vector = 0; vector < 256; vector++)
        top = vmx_in_set(&bench, 1, APIC_IRR, (uint8_t)vector) ? vector : top;
    vapic_sil_vmwrite(&bench.vmcs[1], 0x0810, (vmx_get(&bench, 1, 0x0810) & 0xFF00) | top);
}

/* Replaces the bits of `mask` in the control word; senders may change ON meanwhile. */
static void change_control(uint64_t mask, uint64_t value)
{
    uint64_t *control = &vmx_pid(&bench, 1)[4];
    uint64_t old = vapic_load64(control, VAPIC_RELAXED);

    while (!vapic_cas64(control, &old, (old & ~mask) | value, VAPIC_SEQ_CST))
        ;
}

static void set_nv(uint8_t vector)
{
    change_control(PID_NV_MASK, (uint64_t)vector << PID_NV_SHIFT);
}

/*
 * The vCPU is taken off its processor and put on the other one. While it is off, SN keeps devices
 * and IPIs from notifying; they do not set ON either, so whoever loads it looks at PIR.
 */
static void move(void)
{
    uint64_t *pid = vmx_pid(&bench, 1);
    unsigned to = receiver == &bench.cpu[1] ? 2 : 1;

    change_control(PID_SN, PID_SN);
    sched_yield();
    while (vapic_sil_take_interrupt(receiver) >= 0)
        ;
    receiver = &bench.cpu[to];
    change_control(PID_NDST_MASK | PID_SN, (uint64_t)vmx_host_id(to) << PID_NDST_SHIFT);
    for (unsigned w = 0; w < 4; w++)
        if (vapic_load64(&pid[w], VAPIC_SEQ_CST))
            vapic_or64(&pid[4], PID_ON, VAPIC_SEQ_CST);
    vapic_add32(&run.moves, 1, VAPIC_RELAXED);
}

/* The host blocks the vCPU: the wake-up vector instead of the notification, then a last look. */
static bool block(void)
{
    uint64_t *control = &vmx_pid(&bench, 1)[4];
    bool woken = true;

    vapic_add32(&run.blocks, 1, VAPIC_RELAXED);
    set_nv(WAKE);
    while (woken && !(vapic_load64(control, VAPIC_SEQ_CST) & PID_ON) && !finished())
        woken = sleep_until_signal();
    while (vapic_sil_take_interrupt(receiver) >= 0)
        vapic_add32(&run.wakes, 1, VAPIC_RELAXED);
    set_nv(VMX_NV);
    return woken;
}

/* Some boundaries in the guest, some of them halted; then an exit. False: the deadline. */
static bool execute(unsigned turn)
{
    for (unsigned i = 0; i < 50 && receiver->in_guest && !finished(); i++) {
        uint8_t vector;
        enum vapic_sil_result result = vapic_sil_boundary(receiver, &vector);

        if (result == VAPIC_SIL_DELIVER)
            handle(vector);
        else if (result == VAPIC_SIL_NOTHING && receiver->guest.halted && !sleep_until_signal())
            return false;
        else if (result == VAPIC_SIL_NOTHING && !receiver->guest.halted && (i + turn) % 5 == 0)
            vapic_sil_hlt(receiver);
    }
    return true;
}

static void *receive(void *arg)
{
    for (unsigned turn = 0; !finished() && !expired(); turn++) {
        if (run.moving && turn % 2)
            move();
        if (vapic_load64(&vmx_pid(&bench, 1)[4], VAPIC_SEQ_CST) & PID_ON)
            sync_pir();
        if (vapic_sil_vmentry(receiver, &bench.vmcs[1]) != VAPIC_SIL_DONE)
            vapic_store32(&run.failed, 1, VAPIC_RELAXED);
        vapic_add32(&run.entries, 1, VAPIC_RELAXED);
        if (!execute(turn))
            break;
        if (receiver->in_guest) {
            receiver->guest.halted = false;
            vapic_sil_leave(receiver, 10, 0, 2);
        }
        /* An exit 1 for WAKE leaves nothing to do; blocking needs IRR to be empty. */
        if (turn % 3 == 0 && (vmx_get(&bench, 1, 0x0810) & 0xFF) == 0 && !block())
            break;
    }
    return arg;
}

/* ---- The senders ---- */

static uint8_t vector_of(unsigned sender, unsigned number)
{
    return (uint8_t)(FIRST + 0x10 * sender + number);
}

static void post_by_software(uint8_t vector)
{
    uint64_t *pid = vmx_pid(&bench, 1);
    uint64_t control;

    if (vapic_or64(&pid[vector / 64], UINT64_C(1) << vector % 64, VAPIC_SEQ_CST) >> vector % 64 & 1)
        return;
    if (vapic_or64(&pid[4], PID_ON, VAPIC_SEQ_CST) & PID_ON)
        return;
    control = vapic_load64(&pid[4], VAPIC_SEQ_CST);
    vapic_sil_interrupt(&bench.m, PID_NDST(control), PID_NV(control));
}

static void post_by_ipi(uint8_t vector)
{
    if (vapic_sil_wrmsr(&bench.cpu[0], 0x830, UINT64_C(1) << 32 | vector) != VAPIC_SIL_DONE)
        vapic_store32(&run.failed, 1, VAPIC_RELAXED);
}

static void post_by_device(uint8_t vector)
{
    uint64_t pid = VMX_PID + PID_SIZE;
    _Alignas(16) uint64_t irte[2] = {1 | 1u << 15 | (uint64_t)vector << 16 | pid >> 6 << 38, 0};

    if (vapic_sil_vtd_msi(&bench.m, irte, 0) != VAPIC_SIL_MSI_POSTED)
        vapic_store32(&run.failed, 1, VAPIC_RELAXED);
}

static void (*const posters[SENDERS])(uint8_t vector) = {post_by_software, post_by_ipi,
                                                         post_by_device};

static bool wait_handled(uint8_t vector, uint32_t count)
{
    unsigned spins = 0;

    /* Acquire: pairs with handle(). */
    while (vapic_load32(&run.handled[vector], VAPIC_ACQUIRE) < count) {
        if (spins++ % 64 == 0)
            sched_yield();
        if (spins % 4096 == 0 && expired())
            return false;
    }
    return true;
}

static void *send(void *arg)
{
    unsigned sender = (unsigned)(uintptr_t)arg;

    for (uint32_t round = 1; round <= ROUNDS; round++) {
        for (unsigned number = 0; number < PER_SENDER; number++) {
            uint8_t vector = vector_of(sender, number);

            if (!wait_handled(vector, round - 1))
                return NULL;
            run.sent[vector] = round;
            posters[sender](vector);
        }
    }
    for (unsigned number = 0; number < PER_SENDER; number++)
        wait_handled(vector_of(sender, number), ROUNDS);
    return arg;
}

static void prepare(bool moving)
{
    memset(&run, 0, sizeof(run));
    run.moving = moving;
    vmx_new(&bench);
    receiver = &bench.cpu[1];
    bench.m.host.signal = on_signal;
    set_deadline();
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.wake, NULL);
    vmx_program(&bench, 0, X2APIC_FULL | IPIV);
    vmx_program(&bench, 1, X2APIC_FULL | IPIV);
    vmx_enter(&bench, 0);
}

static void run_threads(void)
{
    pthread_t threads[SENDERS + 1];

    assert_int_equal(pthread_create(&threads[SENDERS], NULL, receive, NULL), 0);
    for (uintptr_t i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send, (void *)i), 0);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    vapic_store32(&run.stop, 1, VAPIC_RELEASE);
    on_signal(NULL, &bench.cpu[1]);
    pthread_join(threads[SENDERS], NULL);
}

static void assert_nothing_lost(void)
{
    for (unsigned sender = 0; sender < SENDERS; sender++) {
        for (unsigned number = 0; number < PER_SENDER; number++) {
            uint8_t vector = vector_of(sender, number);

            assert_int_equal(run.sent[vector], ROUNDS);
            assert_int_equal(run.handled[vector], ROUNDS);
        }
    }
    assert_int_equal(run.failed, 0);
    /* All states of the receiver were really there. */
    assert_true(run.entries > 100);
    assert_true(run.blocks > 10);
    assert_true(bench.points[VAPIC_SIL_POINT_CLEARED] > 100);
    print_message("# %u entries, %u blocks, %u wake-ups, %u moves, %u notifications\n", run.entries,
                  run.blocks, run.wakes, run.moves, bench.points[VAPIC_SIL_POINT_CLEARED]);
}

static void nothing_is_lost(void **state)
{
    (void)state;
    prepare(false);
    run_threads();
    assert_nothing_lost();
    vmx_free(&bench);
}

static void nothing_is_lost_on_the_move(void **state)
{
    (void)state;
    prepare(true);
    run_threads();
    assert_nothing_lost();
    assert_true(run.moves > 50);
    vmx_free(&bench);
}

/* ---- An IOMMU's entry that software changes meanwhile ---- */

static _Alignas(16) uint64_t entry[2];

/* As software changes it: 16 bytes at once. There is one writer, so the old value is known. */
static void store_entry(const uint64_t value[2])
{
    uint64_t low = entry[0], high = entry[1];
    bool done;

    __asm__ volatile("lock cmpxchg16b %0"
                     : "+m"(entry), "+a"(low), "+d"(high), "=@ccz"(done)
                     : "b"(value[0]), "c"(value[1])
                     : "memory");
    if (!done)
        vapic_store32(&run.failed, 1, VAPIC_RELAXED);
}

/* Entry n: vector 16 + n modulo 240, for requester n modulo 2. The bits that software may use make
 * the first words differ, so that none comes again soon. */
static void make_entry(unsigned n, uint64_t value[2])
{
    uint64_t vector = 16 + n % 240, software = n / 240 % 16;

    value[0] = 1 | 1u << 15 | software << 8 | vector << 16 | (uint64_t)VMX_PID >> 6 << 38;
    value[1] = 1u << 18 | n % 2;
}

static void *rewrite(void *arg)
{
    for (unsigned n = 0; !finished(); n++) {
        uint64_t value[2];

        make_entry(n, value);
        store_entry(value);
    }
    return arg;
}

/* Messages of requester 0 are posted with an even vector or refused, whichever entry is there: with
 * an odd one only if halves of two entries were mixed. */
static void entry_is_read_at_once(void **state)
{
    unsigned posted = 0, refused = 0;
    pthread_t writer;

    (void)state;
    memset(&run, 0, sizeof(run));
    set_deadline();
    vmx_new(&bench);
    assert_int_equal(pthread_create(&writer, NULL, rewrite, NULL), 0);
    for (unsigned i = 0; i < 200000 || posted < 100 || refused < 100; i++) {
        enum vapic_sil_msi result = vapic_sil_vtd_msi(&bench.m, entry, 0);

        posted += result == VAPIC_SIL_MSI_POSTED;
        refused += result == VAPIC_SIL_MSI_FAULT;
        if (i % 4096 == 0) {
            assert_false(expired());
            sched_yield();
        }
    }
    vapic_store32(&run.stop, 1, VAPIC_RELEASE);
    pthread_join(writer, NULL);
    print_message("# %u posted, %u refused\n", posted, refused);
    assert_int_equal(run.failed, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(vmx_pid(&bench, 0)[i] & UINT64_C(0xAAAAAAAAAAAAAAAA), 0);
    vmx_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(nothing_is_lost_on_the_move),
        cmocka_unit_test(entry_is_read_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
