/* SPDX-License-Identifier: MIT */
/*
 * The event loop: one thread that fires timers and watches file descriptors. Every timer of the
 * machine's devices (PIT, RTC, ACPI PM timer) and every host file descriptor hangs on it. (A vCPU's
 * APIC timer does not: its expiry concerns that vCPU's thread alone, which a kick must reach in any
 * case; kvm_vcpu.h argues that.)
 *
 * Why one thread with one timerfd: a device has no thread of its own. One thread that sleeps in
 * epoll_wait() needs a system call only when a timer becomes *the earliest*, and gives each device
 * one place where its asynchronous work happens.
 *
 * Why no wake-up is lost or late: `lock` guards a binary min-heap of the armed timers and
 * `programmed`, the absolute CLOCK_MONOTONIC time for which the timerfd is set (UINT64_MAX: not
 * set). The invariant, whenever `lock` is free, the thread runs, and it is not in the middle of a
 * firing pass:
 *
 *     programmed <= deadline of the heap's root          (or the heap is empty)
 *
 * - Arming (any thread) changes the heap and, if the root is now before `programmed`, calls
 *   timerfd_settime() *inside* the lock. So two threads cannot set the timerfd in another order
 *   than that in which they changed the heap, and an earlier timer shortens a sleep that has
 *   already begun: epoll_wait() returns because the timerfd becomes readable.
 * - Cancelling, or arming for later, leaves the timerfd alone: it may fire once for nothing.
 * - The thread empties the timerfd *before* it takes the lock for a firing pass, in which it sets
 *   `programmed` to UINT64_MAX, and ends the pass by setting the timerfd to the root, still under
 *   the lock. What was armed before the pass is seen by the pass; what is armed while it runs a
 *   callback is in the heap at its end; what is armed later finds `programmed` valid. A deadline in
 *   the past makes the timerfd readable at once.
 * - A pass fires at most as many timers as were armed when it began, each due at the time that was
 *   read once at its start: a callback that arms itself for the past over and over cannot starve
 *   the file descriptors.
 *
 * Callbacks run on the event thread with no lock of the loop held. They may arm and cancel any
 * timer, including their own, and take the device lock.
 *
 * Threads: everything is callable from any thread unless it says otherwise. The loop's lock is a
 * leaf: it may be taken under any other lock, and nothing is called with it held.
 */
#ifndef VMM_EVLOOP_H
#define VMM_EVLOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMM_NS_PER_SEC 1000000000ull
#define VMM_TIME_NEVER UINT64_MAX

/* Where time comes from; injected, so that tests of devices need not sleep. */
struct vmm_clock {
    void *ctx;
    uint64_t (*mono_ns)(void *ctx); /* CLOCK_MONOTONIC, the clock of every deadline */
    int64_t (*utc_ns)(void *ctx);   /* since 1970-01-01 00:00 UTC */
};

extern const struct vmm_clock vmm_clock_host;

static inline uint64_t vmm_clock_mono(const struct vmm_clock *clock)
{
    return clock->mono_ns(clock->ctx);
}

struct vmm_timer;
struct vmm_watch;

/* All fields are the loop's own. */
struct vmm_evloop {
    struct vmm_clock clock;
    pthread_mutex_t lock;    /* guards everything below */
    pthread_cond_t idle;     /* signalled when a callback has returned */
    struct vmm_timer **heap; /* min-heap by deadline */
    size_t armed;            /* timers in the heap */
    size_t timers;           /* initialised timers; the heap has room for all of them */
    size_t capacity;
    uint64_t programmed;
    struct vmm_watch *watches; /* linked list */
    uint64_t next_watch_id;
    unsigned unpollable; /* enabled watches on files that epoll does not take */
    bool passing;        /* in a firing pass: its end programs the timerfd */
    const void *running; /* timer or watch whose callback runs now */
    pthread_t runner;    /* the thread on which it runs */
    bool started;
    bool stopping;
    pthread_t thread;
    int epoll_fd;
    int timer_fd;
    int wake_fd;
};

typedef void (*vmm_timer_fn)(void *ctx);
typedef void (*vmm_watch_fn)(void *ctx, uint32_t events);

struct vmm_timer {
    struct vmm_evloop *loop;
    uint64_t deadline;
    size_t slot; /* index in the heap + 1; 0: not armed */
    vmm_timer_fn fn;
    void *ctx;
};

struct vmm_watch {
    struct vmm_evloop *loop;
    struct vmm_watch *next;
    uint64_t id;
    int fd;
    uint32_t events;
    bool enabled;
    bool pollable;
    vmm_watch_fn fn;
    void *ctx;
};

/*
 * Sets up a loop without a thread. Returns 0 or a negative errno. `clock` is copied. With a clock
 * other than vmm_clock_host the loop must not be started: drive it by vmm_evloop_run_due().
 */
int vmm_evloop_init(struct vmm_evloop *loop, const struct vmm_clock *clock);

/* Starts the event thread (all signals blocked in it). Returns 0 or a negative errno. */
int vmm_evloop_start(struct vmm_evloop *loop);

/*
 * Stops the event thread and joins it; afterwards no callback runs. Timers stay armed and fire if
 * the loop is started again. Not from a callback; not while holding a lock that a callback takes.
 */
void vmm_evloop_stop(struct vmm_evloop *loop);

/* Stops, then frees. Timers and watches that still exist must not be used any more. */
void vmm_evloop_fini(struct vmm_evloop *loop);

/* Without a thread: one firing pass on the calling thread. Returns the number of callbacks run. */
unsigned vmm_evloop_run_due(struct vmm_evloop *loop);

/* Deadline of the earliest armed timer; VMM_TIME_NEVER if there is none. */
uint64_t vmm_evloop_next(struct vmm_evloop *loop);

/*
 * Prepares a timer, not armed, and reserves its place in the heap, so that arming cannot fail.
 * Returns 0 or -ENOMEM.
 */
int vmm_timer_init(struct vmm_timer *timer, struct vmm_evloop *loop, vmm_timer_fn fn, void *ctx);

/* Cancels as vmm_timer_cancel_sync() and gives the place back. A zeroed timer is left alone. */
void vmm_timer_fini(struct vmm_timer *timer);

/*
 * Arms for an absolute time, replacing an earlier arming. The callback runs once, at or after
 * `deadline` (VMM_TIME_NEVER: never, the same as cancelling). Never fails; at most one system call.
 */
void vmm_timer_arm(struct vmm_timer *timer, uint64_t deadline);

/*
 * Cancels. True: the timer was armed, and that arming will not fire. False: it was not armed (it
 * never was, or its callback has begun). Either way no callback *begins* for an arming made before
 * the call; one that had begun may still be running when this returns. This is the one to use under
 * a lock that the callback takes, together with a state of the owner's, guarded by that lock, which
 * the callback looks at first (say the deadline that is wanted now).
 */
bool vmm_timer_cancel(struct vmm_timer *timer);

/*
 * The same, and waits until a callback that had begun has returned, unless that is the caller. Not
 * with a lock held that the callback takes.
 */
bool vmm_timer_cancel_sync(struct vmm_timer *timer);

/*
 * Watches a file descriptor (EPOLLIN, EPOLLOUT; level-triggered), enabled at once. Files that epoll
 * refuses because they are always ready (regular files, /dev/null) work too. The descriptor must
 * stay open until vmm_watch_remove(). Returns 0 or a negative errno.
 */
int vmm_watch_add(struct vmm_watch *watch, struct vmm_evloop *loop, int fd, uint32_t events,
                  vmm_watch_fn fn, void *ctx);

/* Switches a watch off and on. A callback that had begun is not waited for. */
void vmm_watch_enable(struct vmm_watch *watch, bool enable);

/*
 * Forgets a watch. Its callback does not run any more when this returns (unless it is the caller).
 * Not under a lock that the callback takes. A watch that is not watched (zeroed, or removed) is
 * left alone.
 */
void vmm_watch_remove(struct vmm_watch *watch);

#endif
