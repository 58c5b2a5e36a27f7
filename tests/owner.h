/* SPDX-License-Identifier: MIT */
/*
 * The threads of the concurrent tests: an owner that runs one vCPU as a hypervisor would, and what
 * senders need to check that nothing is lost.
 *
 * The owner believes the library: it stays "in the guest" until somebody kicks it, and it sleeps
 * after vapic_block() until somebody wakes it. A missing notification therefore ends in a time-out,
 * which is counted and fails the test. Only the main thread asserts.
 */
#ifndef VAPIC_TESTS_OWNER_H
#define VAPIC_TESTS_OWNER_H

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "fixture.h"

#define OWNER_TIMEOUT_S 10

struct owner {
    struct fx *fx;
    uint32_t n;
    pthread_t thread;
    sem_t signal;          /* posted by kicks and wakes */
    uint32_t seen[256];    /* vectors taken; atomic */
    uint32_t nmis;         /* atomic */
    uint32_t wakes, kicks; /* atomic */
    uint32_t blocks;       /* owner only, read after the end */
    uint32_t timeouts;     /* atomic */
    bool stop;             /* atomic */
    bool spin;             /* never wait in the guest, never halt */
    bool halts;            /* halt when there is nothing to do; else stay in the guest */
    void (*between)(struct owner *o, uint32_t round); /* before each entry; NULL: nothing */
};

static inline uint32_t owner_load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void owner_count(uint32_t *p)
{
    __atomic_fetch_add(p, 1, __ATOMIC_RELEASE);
}

static inline bool owner_stopped(const struct owner *o)
{
    return __atomic_load_n(&o->stop, __ATOMIC_ACQUIRE);
}

/* What a caller of a posting function has to do for the target. */
static inline void owner_act(struct owner *o, enum vapic_action action)
{
    if (action == VAPIC_ACTION_NONE)
        return;
    owner_count(action == VAPIC_ACTION_WAKE ? &o->wakes : &o->kicks);
    sem_post(&o->signal);
}

static inline void owner_wait(struct owner *o)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += OWNER_TIMEOUT_S;
    while (sem_timedwait(&o->signal, &until) != 0) {
        if (errno != EINTR) {
            owner_count(&o->timeouts);
            return;
        }
    }
}

static inline void owner_took(struct owner *o, const struct vapic_entry *entry)
{
    if (entry->inject == VAPIC_INJECT_NMI)
        owner_count(&o->nmis);
    if (entry->inject != VAPIC_INJECT_VECTOR)
        return;
    vapic_eoi(&o->fx->v[o->n]);
    owner_count(&o->seen[entry->vector]);
}

static inline void owner_idle(struct owner *o, const struct vapic_entry *entry)
{
    struct vapic *v = &o->fx->v[o->n];

    if (!o->spin && entry->runnable)
        owner_wait(o);
    vapic_exit(v, entry->cr8, true);
    if (entry->runnable && o->halts && !o->spin)
        vapic_halt(v);
    if (entry->runnable || !vapic_block(v))
        return;
    o->blocks++;
    owner_wait(o);
    vapic_unblock(v);
}

static inline void owner_round(struct owner *o)
{
    struct vapic *v = &o->fx->v[o->n];
    struct vapic_entry entry;

    vapic_enter(v, FX_CAN_ALL, o->fx->now, &entry);
    if (entry.event == VAPIC_CPU_NONE && entry.inject == VAPIC_INJECT_NONE) {
        owner_idle(o, &entry);
        return;
    }
    vapic_commit(v, &entry);
    vapic_exit(v, entry.cr8, true);
    owner_took(o, &entry);
}

static inline void *owner_main(void *arg)
{
    struct owner *o = arg;
    uint32_t round = 0;

    while (!owner_stopped(o)) {
        if (o->between != NULL)
            o->between(o, round++);
        owner_round(o);
        if (o->spin)
            sched_yield();
    }
    return NULL;
}

static inline void owner_start(struct owner *o)
{
    assert_int_equal(sem_init(&o->signal, 0, 0), 0);
    assert_int_equal(pthread_create(&o->thread, NULL, owner_main, o), 0);
}

/* Ends the owner, which may be asleep or in the guest. */
static inline void owner_end(struct owner *o)
{
    __atomic_store_n(&o->stop, true, __ATOMIC_RELEASE);
    sem_post(&o->signal);
    sem_post(&o->signal);
    pthread_join(o->thread, NULL);
    sem_destroy(&o->signal);
}

/* Waits until the owner took `vector` at least `times` times. False: it did not. */
static inline bool owner_await(struct owner *o, uint8_t vector, uint32_t times)
{
    time_t end = time(NULL) + OWNER_TIMEOUT_S;

    while (owner_load(&o->seen[vector]) < times) {
        if (time(NULL) > end)
            return false;
        sched_yield();
    }
    return true;
}

#endif
