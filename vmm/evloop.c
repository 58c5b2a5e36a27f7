/* SPDX-License-Identifier: MIT */
/*
 * The event thread, its timers and its file descriptors; evloop.h has the argument why no wake-up
 * is lost. Owns the timerfd, the epoll set and the heap. Called by every part of the machine that
 * waits for time or input.
 */
#include "evloop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* What epoll gives back: these two, or the id of a watch. */
enum { EV_TIMER, EV_WAKE, EV_FIRST_WATCH };

static uint64_t host_mono_ns(void *ctx)
{
    struct timespec ts;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * VMM_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int64_t host_utc_ns(void *ctx)
{
    struct timespec ts;

    (void)ctx;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * (int64_t)VMM_NS_PER_SEC + ts.tv_nsec;
}

const struct vmm_clock vmm_clock_host = {.mono_ns = host_mono_ns, .utc_ns = host_utc_ns};

/* ---- the heap; all with loop->lock held ---- */

static void heap_put(struct vmm_evloop *loop, size_t at, struct vmm_timer *timer)
{
    loop->heap[at] = timer;
    timer->slot = at + 1;
}

static void heap_up(struct vmm_evloop *loop, size_t at)
{
    struct vmm_timer *timer = loop->heap[at];

    while (at > 0 && loop->heap[(at - 1) / 2]->deadline > timer->deadline) {
        heap_put(loop, at, loop->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_put(loop, at, timer);
}

static void heap_down(struct vmm_evloop *loop, size_t at)
{
    struct vmm_timer *timer = loop->heap[at];
    size_t child;

    while ((child = 2 * at + 1) < loop->armed) {
        if (child + 1 < loop->armed &&
            loop->heap[child + 1]->deadline < loop->heap[child]->deadline)
            child++;
        if (loop->heap[child]->deadline >= timer->deadline)
            break;
        heap_put(loop, at, loop->heap[child]);
        at = child;
    }
    heap_put(loop, at, timer);
}

static bool heap_remove(struct vmm_evloop *loop, struct vmm_timer *timer)
{
    struct vmm_timer *last;
    size_t at = timer->slot - 1;

    if (timer->slot == 0)
        return false;
    timer->slot = 0;
    last = loop->heap[--loop->armed];
    if (last == timer)
        return true;
    heap_put(loop, at, last);
    heap_up(loop, at);
    heap_down(loop, last->slot - 1);
    return true;
}

/* Restores the invariant of evloop.h; a pass does so at its end, and the thread at its start. */
static void program(struct vmm_evloop *loop)
{
    struct itimerspec spec = {0};
    uint64_t deadline;

    if (!loop->started || loop->passing || loop->armed == 0 ||
        loop->heap[0]->deadline >= loop->programmed)
        return;
    deadline = loop->heap[0]->deadline;
    loop->programmed = deadline;
    /* All zero would disarm. */
    spec.it_value.tv_sec = (time_t)(deadline / VMM_NS_PER_SEC);
    spec.it_value.tv_nsec = (long)(deadline % VMM_NS_PER_SEC);
    if (deadline == 0)
        spec.it_value.tv_nsec = 1;
    timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* ---- timers ---- */

int vmm_timer_init(struct vmm_timer *timer, struct vmm_evloop *loop, vmm_timer_fn fn, void *ctx)
{
    int ret = 0;

    *timer = (struct vmm_timer){.fn = fn, .ctx = ctx};
    pthread_mutex_lock(&loop->lock);
    if (loop->timers == loop->capacity) {
        size_t capacity = loop->capacity ? 2 * loop->capacity : 16;
        struct vmm_timer **heap = realloc(loop->heap, capacity * sizeof(*heap));

        if (heap) {
            loop->heap = heap;
            loop->capacity = capacity;
        } else {
            ret = -ENOMEM;
        }
    }
    if (ret == 0) {
        loop->timers++;
        timer->loop = loop;
    }
    pthread_mutex_unlock(&loop->lock);
    return ret;
}

void vmm_timer_arm(struct vmm_timer *timer, uint64_t deadline)
{
    struct vmm_evloop *loop = timer->loop;

    pthread_mutex_lock(&loop->lock);
    heap_remove(loop, timer);
    if (deadline != VMM_TIME_NEVER) {
        timer->deadline = deadline;
        loop->heap[loop->armed] = timer;
        heap_up(loop, loop->armed++);
        program(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

bool vmm_timer_cancel(struct vmm_timer *timer)
{
    struct vmm_evloop *loop = timer->loop;
    bool was_armed;

    pthread_mutex_lock(&loop->lock);
    was_armed = heap_remove(loop, timer);
    pthread_mutex_unlock(&loop->lock);
    return was_armed;
}

/* With the lock held: waits until `object`'s callback has returned, unless we are in it. */
static void wait_idle(struct vmm_evloop *loop, const void *object)
{
    while (loop->running == object && !pthread_equal(loop->runner, pthread_self()))
        pthread_cond_wait(&loop->idle, &loop->lock);
}

bool vmm_timer_cancel_sync(struct vmm_timer *timer)
{
    struct vmm_evloop *loop = timer->loop;
    bool was_armed;

    pthread_mutex_lock(&loop->lock);
    was_armed = heap_remove(loop, timer);
    wait_idle(loop, timer);
    /* The callback may have armed it again meanwhile. */
    was_armed |= heap_remove(loop, timer);
    pthread_mutex_unlock(&loop->lock);
    return was_armed;
}

void vmm_timer_fini(struct vmm_timer *timer)
{
    struct vmm_evloop *loop = timer->loop;

    if (!loop)
        return;
    vmm_timer_cancel_sync(timer);
    pthread_mutex_lock(&loop->lock);
    loop->timers--;
    pthread_mutex_unlock(&loop->lock);
    timer->loop = NULL;
}

uint64_t vmm_evloop_next(struct vmm_evloop *loop)
{
    uint64_t deadline;

    pthread_mutex_lock(&loop->lock);
    deadline = loop->armed ? loop->heap[0]->deadline : VMM_TIME_NEVER;
    pthread_mutex_unlock(&loop->lock);
    return deadline;
}

/* Brackets a callback: the lock is dropped between the two, and `running` names the object. */
static void callback_begin(struct vmm_evloop *loop, const void *object)
{
    loop->running = object;
    loop->runner = pthread_self();
    pthread_mutex_unlock(&loop->lock);
}

static void callback_end(struct vmm_evloop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->running = NULL;
    pthread_cond_broadcast(&loop->idle);
}

unsigned vmm_evloop_run_due(struct vmm_evloop *loop)
{
    uint64_t now = vmm_clock_mono(&loop->clock);
    unsigned fired = 0;
    size_t budget;

    pthread_mutex_lock(&loop->lock);
    loop->programmed = VMM_TIME_NEVER;
    loop->passing = true;
    budget = loop->armed;
    while (budget-- && loop->armed && loop->heap[0]->deadline <= now) {
        struct vmm_timer *timer = loop->heap[0];
        vmm_timer_fn fn = timer->fn;
        void *ctx = timer->ctx;

        heap_remove(loop, timer);
        callback_begin(loop, timer);
        fn(ctx);
        callback_end(loop);
        fired++;
    }
    loop->passing = false;
    program(loop);
    pthread_mutex_unlock(&loop->lock);
    return fired;
}

/* ---- watches ---- */

static struct vmm_watch *find_watch(struct vmm_evloop *loop, uint64_t id)
{
    struct vmm_watch *watch = loop->watches;

    while (watch && watch->id != id)
        watch = watch->next;
    return watch;
}

static int watch_ctl(struct vmm_watch *watch, int op, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = watch->id};

    return epoll_ctl(watch->loop->epoll_fd, op, watch->fd, &event) ? -errno : 0;
}

static void wake(struct vmm_evloop *loop)
{
    uint64_t one = 1;
    ssize_t ret;

    /* Fails only when the counter is about to overflow: then the thread is awake anyway. */
    ret = write(loop->wake_fd, &one, sizeof(one));
    (void)ret;
}

int vmm_watch_add(struct vmm_watch *watch, struct vmm_evloop *loop, int fd, uint32_t events,
                  vmm_watch_fn fn, void *ctx)
{
    int ret;

    *watch = (struct vmm_watch){
        .loop = loop, .fd = fd, .events = events, .enabled = true, .fn = fn, .ctx = ctx};
    pthread_mutex_lock(&loop->lock);
    watch->id = loop->next_watch_id++;
    ret = watch_ctl(watch, EPOLL_CTL_ADD, events);
    watch->pollable = ret == 0;
    if (ret == 0 || ret == -EPERM) {
        loop->unpollable += ret == -EPERM;
        watch->next = loop->watches;
        loop->watches = watch;
        ret = 0;
    } else {
        watch->loop = NULL;
    }
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
    return ret;
}

void vmm_watch_enable(struct vmm_watch *watch, bool enable)
{
    struct vmm_evloop *loop = watch->loop;
    bool nudge = false;

    if (!loop)
        return;
    pthread_mutex_lock(&loop->lock);
    if (watch->enabled != enable) {
        watch->enabled = enable;
        if (watch->pollable) {
            /* Out of the set, not an empty mask: a hang-up is reported whatever the mask. */
            watch_ctl(watch, enable ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, watch->events);
        } else {
            loop->unpollable += enable ? 1 : -1u;
            nudge = enable;
        }
    }
    pthread_mutex_unlock(&loop->lock);
    if (nudge)
        wake(loop);
}

void vmm_watch_remove(struct vmm_watch *watch)
{
    struct vmm_evloop *loop = watch->loop;
    struct vmm_watch **link;

    if (!loop)
        return;
    pthread_mutex_lock(&loop->lock);
    if (watch->enabled && watch->pollable)
        watch_ctl(watch, EPOLL_CTL_DEL, 0);
    if (watch->enabled && !watch->pollable)
        loop->unpollable--;
    watch->enabled = false;
    for (link = &loop->watches; *link != watch; link = &(*link)->next)
        ;
    *link = watch->next;
    wait_idle(loop, watch);
    pthread_mutex_unlock(&loop->lock);
    watch->loop = NULL;
}

/* With the lock held. The watch may be freed by its own callback. */
static void call_watch(struct vmm_evloop *loop, struct vmm_watch *watch, uint32_t events)
{
    vmm_watch_fn fn = watch->fn;
    void *ctx = watch->ctx;

    callback_begin(loop, watch);
    fn(ctx, events);
    callback_end(loop);
}

static void dispatch_watch(struct vmm_evloop *loop, uint64_t id, uint32_t events)
{
    struct vmm_watch *watch;

    pthread_mutex_lock(&loop->lock);
    /* By id: since epoll_wait() it may have been removed, and its memory used again. */
    watch = find_watch(loop, id);
    if (watch && watch->enabled)
        call_watch(loop, watch, events);
    pthread_mutex_unlock(&loop->lock);
}

/* Calls each enabled watch that epoll does not take, in order of id, as the list may change. */
static void dispatch_unpollable(struct vmm_evloop *loop)
{
    uint64_t id;

    pthread_mutex_lock(&loop->lock);
    for (id = EV_FIRST_WATCH; loop->unpollable && id < loop->next_watch_id; id++) {
        struct vmm_watch *watch = find_watch(loop, id);

        if (watch && watch->enabled && !watch->pollable)
            call_watch(loop, watch, watch->events);
    }
    pthread_mutex_unlock(&loop->lock);
}

/* ---- the thread ---- */

static void drain(int fd)
{
    uint64_t count;
    ssize_t ret = read(fd, &count, sizeof(count));

    /* EAGAIN: set anew since epoll_wait(); the pass that follows sees what it was set for. */
    (void)ret;
}

static void dispatch(struct vmm_evloop *loop, const struct epoll_event *event)
{
    switch (event->data.u64) {
    case EV_TIMER:
        drain(loop->timer_fd);
        vmm_evloop_run_due(loop);
        break;
    case EV_WAKE:
        drain(loop->wake_fd);
        break;
    default:
        dispatch_watch(loop, event->data.u64, event->events);
        break;
    }
}

static bool keep_going(struct vmm_evloop *loop, int *timeout)
{
    bool go;

    pthread_mutex_lock(&loop->lock);
    go = !loop->stopping;
    *timeout = loop->unpollable ? 0 : -1;
    pthread_mutex_unlock(&loop->lock);
    return go;
}

static void *event_thread(void *arg)
{
    struct vmm_evloop *loop = arg;
    struct epoll_event events[16];
    int timeout;

    while (keep_going(loop, &timeout)) {
        int count = epoll_wait(loop->epoll_fd, events, 16, timeout);

        for (int i = 0; i < count; i++)
            dispatch(loop, &events[i]);
        if (timeout == 0)
            dispatch_unpollable(loop);
    }
    return NULL;
}

static int epoll_add(struct vmm_evloop *loop, int fd, uint64_t what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = what};

    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void close_fds(struct vmm_evloop *loop)
{
    const int fds[] = {loop->epoll_fd, loop->timer_fd, loop->wake_fd};

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

int vmm_evloop_init(struct vmm_evloop *loop, const struct vmm_clock *clock)
{
    int err;

    memset(loop, 0, sizeof(*loop));
    loop->clock = *clock;
    loop->programmed = VMM_TIME_NEVER;
    loop->next_watch_id = EV_FIRST_WATCH;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->timer_fd < 0 || loop->wake_fd < 0 ||
        epoll_add(loop, loop->timer_fd, EV_TIMER) || epoll_add(loop, loop->wake_fd, EV_WAKE)) {
        err = -errno;
        close_fds(loop);
        return err;
    }
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->idle, NULL);
    return 0;
}

int vmm_evloop_start(struct vmm_evloop *loop)
{
    sigset_t all;
    sigset_t old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_mutex_lock(&loop->lock);
    loop->stopping = false;
    err = pthread_create(&loop->thread, NULL, event_thread, loop);
    loop->started = err == 0;
    loop->programmed = VMM_TIME_NEVER;
    program(loop);
    pthread_mutex_unlock(&loop->lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

void vmm_evloop_stop(struct vmm_evloop *loop)
{
    bool started;

    pthread_mutex_lock(&loop->lock);
    started = loop->started;
    loop->started = false;
    loop->stopping = true;
    pthread_mutex_unlock(&loop->lock);
    if (!started)
        return;
    wake(loop);
    pthread_join(loop->thread, NULL);
}

void vmm_evloop_fini(struct vmm_evloop *loop)
{
    vmm_evloop_stop(loop);
    close_fds(loop);
    pthread_mutex_destroy(&loop->lock);
    pthread_cond_destroy(&loop->idle);
    free(loop->heap);
    loop->heap = NULL;
}
