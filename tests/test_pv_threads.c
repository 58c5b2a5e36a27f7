/* SPDX-License-Identifier: MIT */
/*
 * The word of lazy EOI against a guest that runs on a thread of its own, senders on theirs, and
 * another vCPU that writes the word when it likes.
 *
 * The vCPU's processor is a mutex. The owner holds it while the vCPU is outside, and gives it up
 * while it waits for a kick; the guest takes it for one instruction at a time. So an exit comes
 * between any two instructions of the guest, also between the test of the word and the write of the
 * EOI register, and never in the middle of one: as on hardware.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "pv_guest.h"

#define SENDERS   3u
#define VECTORS   4u    /* per sender */
#define ROUNDS    1500u /* per sender */
#define TIMEOUT_S 20
#define NOTHING   (-1)

static struct pv_guest guest;

/* What the guest's processor does next. */
enum step { TEST_WORD, WRITE_EOI };

struct cpu {
    struct fx *fx;
    pthread_mutex_t core;
    sem_t exit;          /* kicks, and exits that the guest asks for */
    bool inside;         /* under core, and so are the next five */
    int injected;        /* committed, not yet taken: the injection slot */
    bool eoi_exit;       /* the guest has written the EOI register */
    uint32_t depth;      /* handlers that have not ended */
    enum step step[257]; /* of each, the innermost at `depth` */
    uint32_t by_word, by_register;
    uint32_t seen[256]; /* atomic: handlers that have ended */
    uint8_t stack[257];
    uint32_t lost; /* atomic */
    bool stop;     /* atomic */
};

static uint32_t load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static bool stopped(const struct cpu *c)
{
    return __atomic_load_n(&c->stop, __ATOMIC_ACQUIRE);
}

/* ---- The guest ---- */

static void handler_ends(struct cpu *c)
{
    __atomic_fetch_add(&c->seen[c->stack[c->depth--]], 1, __ATOMIC_RELEASE);
}

static void end_by_word(struct cpu *c)
{
    if (!pv_guest_eoi(pv_word(&guest, PV_WORD))) {
        c->step[c->depth] = WRITE_EOI;
        return;
    }
    c->by_word++;
    handler_ends(c);
}

/* The write exits; the handler goes on when it has been done. */
static void write_eoi(struct cpu *c)
{
    c->eoi_exit = true;
    c->inside = false;
    sem_post(&c->exit);
}

/* The handler that is interrupted goes on later where it was. */
static void take(struct cpu *c)
{
    c->stack[++c->depth] = (uint8_t)c->injected;
    c->step[c->depth] = TEST_WORD;
    c->injected = NOTHING;
}

static void instruction(struct cpu *c)
{
    if (!c->inside)
        return;
    if (c->injected != NOTHING)
        take(c);
    else if (c->depth != 0 && c->step[c->depth] == TEST_WORD)
        end_by_word(c);
    else if (c->depth != 0)
        write_eoi(c);
}

static void *guest_main(void *arg)
{
    struct cpu *c = arg;

    while (!stopped(c)) {
        pthread_mutex_lock(&c->core);
        instruction(c);
        pthread_mutex_unlock(&c->core);
        sched_yield();
    }
    return NULL;
}

/* ---- The owner ---- */

static void enter(struct cpu *c)
{
    struct vapic *v = &c->fx->v[0];
    struct vapic_entry entry;

    vapic_enter(v, c->injected == NOTHING ? VAPIC_CAN_IRQ | VAPIC_IF : 0, c->fx->now, &entry);
    if (entry.inject == VAPIC_INJECT_VECTOR) {
        vapic_commit(v, &entry);
        c->injected = entry.vector;
    }
    c->inside = true;
}

static void leave(struct cpu *c)
{
    c->inside = false;
    vapic_exit(&c->fx->v[0], 0, true);
    if (!c->eoi_exit)
        return;
    c->eoi_exit = false;
    c->by_register++;
    fx_eoi(c->fx, 0);
    handler_ends(c);
}

/* Until a kick. As on hardware with a window asked for, a waiting vector exits when it can. */
static void *owner_main(void *arg)
{
    struct cpu *c = arg;

    pthread_mutex_lock(&c->core);
    while (!stopped(c)) {
        enter(c);
        pthread_mutex_unlock(&c->core);
        while (sem_wait(&c->exit) != 0 && errno == EINTR)
            ;
        pthread_mutex_lock(&c->core);
        leave(c);
    }
    pthread_mutex_unlock(&c->core);
    return NULL;
}

/* ---- Senders ---- */

struct sender {
    struct cpu *cpu;
    uint32_t number;
    uint32_t sent[256];
    pthread_t thread;
};

static void kick(struct cpu *c, enum vapic_action action)
{
    if (action != VAPIC_ACTION_NONE)
        sem_post(&c->exit);
}

static bool await(struct cpu *c, uint8_t vector, uint32_t times)
{
    time_t end = time(NULL) + TIMEOUT_S;

    while (load(&c->seen[vector]) < times) {
        if (time(NULL) > end)
            return false;
        sched_yield();
    }
    return true;
}

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    struct cpu *c = s->cpu;

    for (uint32_t round = 0; round < ROUNDS && load(&c->lost) == 0; round++) {
        uint8_t vector = (uint8_t)(0x30 + 0x10 * s->number + round % VECTORS);

        if (!await(c, vector, s->sent[vector])) {
            __atomic_fetch_add(&c->lost, 1, __ATOMIC_RELAXED);
            return NULL;
        }
        kick(c, vapic_post(&c->fx->v[0], vector, round % 16 == 0, NULL));
        s->sent[vector]++;
        if (round % 8 == 0)
            kick(c, vapic_poke(&c->fx->v[0]));
    }
    return NULL;
}

/* ---- The tests ---- */

static void begin(struct cpu *c)
{
    *c = (struct cpu){.fx = fx_new(&(struct fx_options){.silent = true}), .injected = NOTHING};
    pv_attach(c->fx, &guest, VAPIC_PV_EOI);
    assert_int_equal(vapic_pv_msr_write(&c->fx->v[0], VAPIC_MSR_KVM_EOI, PV_WORD | 1), VAPIC_OK);
    pthread_mutex_init(&c->core, NULL);
    sem_init(&c->exit, 0, 0);
}

static void end(struct cpu *c, pthread_t owner, pthread_t runner)
{
    __atomic_store_n(&c->stop, true, __ATOMIC_RELEASE);
    sem_post(&c->exit);
    pthread_join(owner, NULL);
    pthread_join(runner, NULL);
    sem_destroy(&c->exit);
    pthread_mutex_destroy(&c->core);
}

static void run_senders(struct cpu *c, struct sender *senders)
{
    for (uint32_t n = 0; n < SENDERS; n++) {
        senders[n] = (struct sender){.cpu = c, .number = n};
        assert_int_equal(pthread_create(&senders[n].thread, NULL, sender_main, &senders[n]), 0);
    }
    for (uint32_t n = 0; n < SENDERS; n++)
        pthread_join(senders[n].thread, NULL);
    for (uint32_t n = 0; n < SENDERS; n++)
        for (uint32_t vector = 0; vector < 256; vector++)
            if (!await(c, (uint8_t)vector, senders[n].sent[vector]))
                c->lost++;
}

/* Every vector that was sent has one handler, every handler one EOI, whichever way. */
static void each_interrupt_ends_once(void **state)
{
    static struct cpu c;
    static struct sender senders[SENDERS];
    pthread_t owner, runner;
    struct vapic_stats stats;

    (void)state;
    begin(&c);
    assert_int_equal(pthread_create(&owner, NULL, owner_main, &c), 0);
    assert_int_equal(pthread_create(&runner, NULL, guest_main, &c), 0);
    run_senders(&c, senders);
    end(&c, owner, runner);
    assert_int_equal(c.lost, 0);
    for (uint32_t n = 0; n < SENDERS; n++)
        for (uint32_t vector = 0x30 + 0x10 * n; vector < 0x40 + 0x10 * n; vector++)
            fx_equal(c.seen[vector], senders[n].sent[vector], "handlers of %x", vector);
    vapic_get_stats(&c.fx->v[0], &stats);
    assert_int_equal(stats.injected, SENDERS * ROUNDS);
    assert_int_equal(stats.eois, SENDERS * ROUNDS);
    assert_int_equal(pv_stats(c.fx, 0).eois, c.by_word);
    assert_int_equal(c.by_word + c.by_register, SENDERS * ROUNDS);
    assert_true(c.by_word > 0);
    assert_true(c.by_register > 0);
    assert_int_equal(fx_get(c.fx, 0, APIC_PPR), 0);
    assert_int_equal(*pv_word(&guest, PV_WORD), 0);
    fx_free(c.fx);
}

/* Another vCPU sets and clears the word all the time. */
static void *stranger_main(void *arg)
{
    struct cpu *c = arg;
    uint32_t *word = pv_word(&guest, PV_WORD);

    for (uint32_t n = 0; !stopped(c); n++) {
        if (n % 2)
            __atomic_fetch_and(word, ~1u, __ATOMIC_SEQ_CST);
        else
            __atomic_store_n(word, n * 0x9E3779B1u, __ATOMIC_SEQ_CST);
        sched_yield();
    }
    return NULL;
}

static void run_for_a_moment(struct cpu *c)
{
    enter(c);
    sched_yield();
    c->injected = NOTHING;
    leave(c);
}

/* The guest ends interrupts of its own that way, too soon or not at all: the APIC stays in order,
 * and what it believes is at most one EOI for each time that it set the bit. */
static void a_stranger_harms_the_guest_only(void **state)
{
    static struct cpu c;
    pthread_t stranger;
    struct vapic_stats stats;
    struct vapic_pv_stats pv;

    (void)state;
    begin(&c);
    assert_int_equal(pthread_create(&stranger, NULL, stranger_main, &c), 0);
    for (uint32_t round = 0; round < 20000; round++) {
        vapic_post(&c.fx->v[0], (uint8_t)(0x30 + round % 0x60), round % 7 == 0, NULL);
        run_for_a_moment(&c);
        if (round % 3 == 0)
            fx_eoi(c.fx, 0);
    }
    __atomic_store_n(&c.stop, true, __ATOMIC_RELEASE);
    pthread_join(stranger, NULL);
    while (fx_get(c.fx, 0, APIC_PPR) != 0 || fx_take(c.fx, 0) >= 0)
        fx_eoi(c.fx, 0);
    vapic_get_stats(&c.fx->v[0], &stats);
    pv = pv_stats(c.fx, 0);
    assert_int_equal(stats.eois, stats.injected);
    /* Whether the stranger was ever in time to end one is the scheduler's business. */
    assert_int_equal(pv.armed, pv.withdrawn + pv.eois);
    assert_true(pv.armed > 0);
    fx_free(c.fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_interrupt_ends_once),
        cmocka_unit_test(a_stranger_harms_the_guest_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
