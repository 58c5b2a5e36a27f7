/* SPDX-License-Identifier: MIT */
/*
 * Posting against blocking, with real threads: two guests send IPIs and a device sends messages to
 * one vCPU whose VMM now leaves it in the guest until a doorbell comes, now blocks it after HLT,
 * and wakes it only when it is told to. No interrupt may be lost.
 *
 * Each sender waits until its interrupt has been served before it sends the next one. So a lost
 * wake-up, or a doorbell that was not rung, ends in a time-out, which fails the test. Only the main
 * thread asserts.
 *
 * The two sides of the race [APM2 15.29.6] [IOMMU 2.2.5.2]:
 *
 *      sender (model)                       VMM of the target (here)
 *      set IRR                              clear IsRunning (IsRun)
 *      read IsRunning (IsRun)               read IRR
 *      ring, or exit (log)                  sleep if there is nothing
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "silicon_fixture.h"

#define ROUNDS    4000u
#define TIMEOUT_S 20
#define TARGET    2u
#define SENDERS   2u /* vCPUs 0 and 1 */
#define DEVICE    SENDERS

struct race {
    struct sf *sf;
    struct vapic_sil_amd_iommu iommu;
    uint64_t log[8];
    uint64_t irte[2];
    uint32_t served[SENDERS + 1]; /* atomic: interrupts of each sender */
    uint32_t stop, timeouts;      /* atomic */
    sem_t wake;                   /* of the blocked target */
    uint32_t blocks, doorbells, exits, logged;
    uint32_t found;   /* blocks that the look at IRR prevented */
    uint32_t moments; /* atomic */
    uint32_t broken;  /* atomic: something that must not happen */
};

static uint8_t vector_of(uint32_t sender)
{
    return (uint8_t)(0x50 + 0x10 * sender);
}

static uint32_t get(const uint32_t *p)
{
    return vapic_load32(p, VAPIC_SEQ_CST);
}

static void count(uint32_t *p)
{
    vapic_add32(p, 1, VAPIC_SEQ_CST);
}

/* Some disorder, the same in each run for each thread: 0 to 3. */
static uint32_t dice(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 30;
}

static bool late(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - start->tv_sec > TIMEOUT_S;
}

/* Spins until `*p` is no longer `old`, or the end. False: nobody came. */
static bool wait_change(struct race *r, const uint32_t *p, uint32_t old)
{
    struct timespec start;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (get(p) == old && !get(&r->stop)) {
        sched_yield();
        if (late(&start)) {
            count(&r->timeouts);
            return false;
        }
    }
    return true;
}

/* ---- The senders ---- */

struct sender {
    struct race *race;
    uint32_t n;
    pthread_t thread;
};

static void send_ipi(struct race *r, uint32_t n)
{
    if (sf_icr(r->sf, n, vector_of(n), TARGET) == VAPIC_SIL_DONE)
        return;
    if (sf_vmcb(r->sf, n, VMCB_EXITINFO2) != (1ull << 32 | TARGET))
        count(&r->broken);
    count(&r->exits);
    sem_post(&r->wake); /* IRR is set already: only wake it */
    sf_run(r->sf, n);
}

static void send_message(struct race *r)
{
    switch (vapic_sil_amd_msi(&r->iommu, r->irte, 0x100)) {
    case VAPIC_SIL_MSI_POSTED:
        return;
    case VAPIC_SIL_MSI_LOGGED:
        while (r->iommu.head != get(&r->iommu.tail))
            vapic_store32(&r->iommu.head, (r->iommu.head + 1) % 8, VAPIC_RELEASE);
        count(&r->logged);
        sem_post(&r->wake);
        return;
    default:
        count(&r->broken);
    }
}

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    struct race *r = s->race;
    uint32_t n = s->n, state = n + 1;

    if (n != DEVICE)
        sf_run(r->sf, n);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        for (uint32_t pause = dice(&state); pause; pause--)
            sched_yield();
        if (n == DEVICE)
            send_message(r);
        else
            send_ipi(r, n);
        if (!wait_change(r, &r->served[n], i))
            break;
    }
    return NULL;
}

/* ---- The target ---- */

static bool interrupt_pending(struct race *r)
{
    for (uint32_t s = 0; s <= SENDERS; s++) {
        if (sf_bit(r->sf, TARGET, APIC_IRR, vector_of(s)))
            return true;
    }
    return false;
}

/* Gives the other side time in the middle of an IPI, now and then. */
static void disturb(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct race *r = sf->user;

    (void)cpu;
    (void)point;
    if (vapic_add32(&r->moments, 1, VAPIC_RELAXED) % 3 == 0)
        sched_yield();
}

static void set_running(struct race *r, bool running)
{
    uint64_t *entry = sf_entry(r->sf, TARGET);

    if (running) {
        vapic_or64(entry, AVIC_PHYSICAL_RUNNING, VAPIC_SEQ_CST);
        vapic_and64(&r->irte[0], ~AMD_IRTE_GA_LOG_INTR, VAPIC_SEQ_CST);
        vapic_or64(&r->irte[0], AMD_IRTE_IS_RUN, VAPIC_SEQ_CST);
    } else {
        vapic_and64(entry, ~AVIC_PHYSICAL_RUNNING, VAPIC_SEQ_CST);
        vapic_or64(&r->irte[0], AMD_IRTE_GA_LOG_INTR, VAPIC_SEQ_CST);
        vapic_and64(&r->irte[0], ~AMD_IRTE_IS_RUN, VAPIC_SEQ_CST);
    }
}

static void block(struct race *r, uint32_t pause)
{
    struct timespec until;

    r->blocks++;
    for (; pause; pause--)
        sched_yield();
    /* Tokens that came too late for an earlier sleep; their interrupts are in IRR, or served. */
    while (sem_trywait(&r->wake) == 0)
        continue;
    set_running(r, false);
    if (interrupt_pending(r)) {
        r->found++;
    } else if (!get(&r->stop)) { /* the token that came with it may be among the dropped ones */
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += TIMEOUT_S;
        if (sem_timedwait(&r->wake, &until) != 0)
            count(&r->timeouts);
    }
    set_running(r, true);
    sf_run(r->sf, TARGET);
}

static void serve(struct race *r, int vector)
{
    uint32_t sender = ((uint32_t)vector - 0x50) / 0x10;

    if (sf_write(r->sf, TARGET, APIC_EOI, 0) != VAPIC_SIL_DONE)
        count(&r->broken);
    count(&r->served[sender]);
}

/* Waits in the guest for a doorbell, or halts. */
static void idle(struct race *r, uint32_t *state)
{
    struct vapic_sil_cpu *cpu = &r->sf->cpu[TARGET];

    if (dice(state) == 0) {
        wait_change(r, &cpu->doorbell, 0);
        r->doorbells++;
    } else if (vapic_sil_hlt(cpu) == VAPIC_SIL_EXIT) {
        block(r, dice(state));
    } else {
        count(&r->broken);
    }
}

static void *target_main(void *arg)
{
    struct race *r = arg;
    uint32_t state = 77;

    sf_run(r->sf, TARGET);
    while (!get(&r->stop) && !get(&r->timeouts)) {
        int vector = sf_take(r->sf, TARGET);

        if (vector >= 0)
            serve(r, vector);
        else if (vector == -1)
            idle(r, &state);
        else
            count(&r->broken);
    }
    return NULL;
}

/* ---- The test ---- */

static void run_race(struct race *r)
{
    struct sender senders[SENDERS + 1];
    pthread_t target;

    assert_int_equal(pthread_create(&target, NULL, target_main, r), 0);
    for (uint32_t n = 0; n <= SENDERS; n++) {
        senders[n] = (struct sender){.race = r, .n = n};
        assert_int_equal(pthread_create(&senders[n].thread, NULL, sender_main, &senders[n]), 0);
    }
    for (uint32_t n = 0; n <= SENDERS; n++)
        pthread_join(senders[n].thread, NULL);
    vapic_store32(&r->stop, 1, VAPIC_SEQ_CST);
    sem_post(&r->wake);
    pthread_join(target, NULL);
}

/* [APM2 15.29.6] */
static void no_interrupt_is_lost(void **state)
{
    (void)state;
    for (int x2 = 0; x2 < 2; x2++) {
        struct race *r = test_calloc(1, sizeof(*r));

        r->sf = sf_new(NULL, x2);
        r->sf->on_point = disturb;
        r->sf->user = r;
        sem_init(&r->wake, 0, 0);
        r->iommu =
            (struct vapic_sil_amd_iommu){.machine = &r->sf->machine, .log = r->log, .entries = 8};
        r->irte[0] = AMD_IRTE_VALID | AMD_IRTE_GUEST_MODE | AMD_IRTE_IS_RUN | TARGET << 8;
        r->irte[1] = vector_of(DEVICE) | (SF_BACKING + TARGET * 0x1000);
        sf_set_vmcb32(r->sf, TARGET, VMCB_INTERCEPT3, VMCB_I3_HLT | VMCB_I3_INTR);
        if (x2) /* the target's EOIs go by MMIO: it is an xAVIC vCPU among x2AVIC ones */
            sf_int_ctl(r->sf, TARGET, 0, VMCB_V_X2AVIC);
        run_race(r);
        assert_int_equal(r->timeouts, 0);
        assert_int_equal(r->broken, 0);
        for (uint32_t n = 0; n <= SENDERS; n++)
            assert_int_equal(r->served[n], ROUNDS);
        assert_true(r->blocks > 0 && r->found > 0 && r->doorbells > 0 && r->exits + r->logged > 0);
        print_message("# %u blocks (%u found IRR set), %u waits for a doorbell, %u exits, "
                      "%u log entries\n",
                      r->blocks, r->found, r->doorbells, r->exits, r->logged);
        sem_destroy(&r->wake);
        sf_free(r->sf);
        test_free(r);
    }
}

/* ---- Several devices, one log ---- */

#define DEVICES     3u
#define MESSAGES    30000u
#define LOG_ENTRIES 256u

struct logging {
    struct sf *sf;
    struct vapic_sil_amd_iommu iommu;
    uint64_t log[LOG_ENTRIES];
    uint32_t read[DEVICES]; /* entries that software found, by tag */
    uint32_t broken, overflows;
    uint32_t finished; /* atomic */
};

struct device {
    struct logging *l;
    uint32_t n, logged, posted;
    pthread_t thread;
};

static void *device_main(void *arg)
{
    struct device *d = arg;
    uint64_t irte[2] = {AMD_IRTE_VALID | AMD_IRTE_GUEST_MODE | AMD_IRTE_GA_LOG_INTR |
                            (uint64_t)(d->n + 1) << AMD_IRTE_GA_TAG_SHIFT,
                        (0x50 + d->n) | (SF_BACKING + TARGET * 0x1000)};

    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (vapic_sil_amd_msi(&d->l->iommu, irte, (uint16_t)(0x100 + d->n)) == VAPIC_SIL_MSI_LOGGED)
            d->logged++;
        else
            d->posted++; /* the log has overflowed: until software has cleared the bit */
        while (get(&d->l->iommu.overflow))
            sched_yield();
    }
    count(&d->l->finished);
    return NULL;
}

static void read_entry(struct logging *l, uint64_t entry)
{
    uint32_t n = (uint32_t)entry - 1;

    if (n < DEVICES && entry >> 32 == (0x10000100u + n)) /* type 1, device 100h + n */
        l->read[n]++;
    else
        l->broken++;
}

static void empty_log(struct logging *l)
{
    uint32_t head = l->iommu.head;

    while (head != vapic_load32(&l->iommu.tail, VAPIC_ACQUIRE)) {
        read_entry(l, vapic_load64(&l->log[head], VAPIC_RELAXED));
        head = (head + 1) % LOG_ENTRIES;
        vapic_store32(&l->iommu.head, head, VAPIC_RELEASE);
    }
    l->overflows += vapic_xchg32(&l->iommu.overflow, 0, VAPIC_ACQ_REL);
}

/* Every entry that a device was told of is found, whole, once. [IOMMU 2.8] */
static void no_log_entry_is_lost(void **state)
{
    struct logging *l = test_calloc(1, sizeof(*l));
    struct device devices[DEVICES];
    uint32_t lost = 0;

    (void)state;
    l->sf = sf_new(NULL, false);
    l->iommu = (struct vapic_sil_amd_iommu){
        .machine = &l->sf->machine, .log = l->log, .entries = LOG_ENTRIES};
    for (uint32_t n = 0; n < DEVICES; n++) {
        devices[n] = (struct device){.l = l, .n = n};
        assert_int_equal(pthread_create(&devices[n].thread, NULL, device_main, &devices[n]), 0);
    }
    while (get(&l->finished) != DEVICES) {
        empty_log(l);
    }
    for (uint32_t n = 0; n < DEVICES; n++)
        pthread_join(devices[n].thread, NULL);
    empty_log(l);
    assert_int_equal(l->broken, 0);
    for (uint32_t n = 0; n < DEVICES; n++) {
        assert_int_equal(l->read[n], devices[n].logged);
        assert_int_equal(devices[n].logged + devices[n].posted, MESSAGES);
        lost += devices[n].posted;
    }
    assert_true(lost == 0 || l->overflows > 0);
    print_message("# %u overflows, %u of %u messages beside the log\n", l->overflows, lost,
                  DEVICES * MESSAGES);
    sf_free(l->sf);
    test_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_interrupt_is_lost),
        cmocka_unit_test(no_log_entry_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
