/* SPDX-License-Identifier: MIT */
/*
 * The event loop: order and cancelling of timers with a clock of the test's, and the real thread
 * with real timers, armed and cancelled from several threads, and file descriptors.
 */
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dev_fixture.h"

#define MS 1000000ull
/* No test waits this long unless something is lost. */
#define LONG_MS 20000u

/* ---- without a thread ---- */

struct shot {
    struct vmm_timer timer;
    struct fixture *fix;
    unsigned id;
    unsigned fired;
    uint64_t again; /* arms itself for this much later; 0: not */
    unsigned *order;
    unsigned *count;
};

static void on_shot(void *ctx)
{
    struct shot *shot = ctx;

    assert_true(shot->fix->now >= shot->timer.deadline);
    shot->fired++;
    if (shot->order)
        shot->order[(*shot->count)++] = shot->id;
    if (shot->again)
        vmm_timer_arm(&shot->timer, shot->timer.deadline + shot->again);
}

static int setup(void **state)
{
    struct fixture *fix = calloc(1, sizeof(*fix));

    assert_non_null(fix);
    fix_init(fix);
    *state = fix;
    return 0;
}

static int teardown(void **state)
{
    fix_fini(*state);
    free(*state);
    return 0;
}

static void shot_init(struct shot *shot, struct fixture *fix)
{
    *shot = (struct shot){.fix = fix};
    assert_int_equal(vmm_timer_init(&shot->timer, &fix->loop, on_shot, shot), 0);
}

/* Hundreds of timers, armed, moved and cancelled at random: those left fire in order of time. */
static void test_order(void **state)
{
    enum { N = 300 };
    struct fixture *fix = *state;
    struct shot *shots = calloc(N, sizeof(*shots));
    unsigned order[N];
    unsigned count = 0;
    unsigned armed = 0;
    uint32_t seed = 5;

    assert_non_null(shots);
    for (unsigned i = 0; i < N; i++) {
        shot_init(&shots[i], fix);
        shots[i].id = i;
        shots[i].order = order;
        shots[i].count = &count;
    }
    for (unsigned i = 0; i < 10 * N; i++) {
        struct shot *shot = &shots[(seed >> 8) % N];

        seed = seed * 1664525u + 1013904223u;
        if (seed & 0x80)
            vmm_timer_arm(&shot->timer, fix->now + (seed >> 12));
        else
            vmm_timer_cancel(&shot->timer);
    }
    for (unsigned i = 0; i < N; i++)
        armed += shots[i].timer.slot != 0;
    assert_in_range(armed, N / 4, N);
    fix->now += 1u << 20;
    assert_int_equal(vmm_evloop_run_due(&fix->loop), armed);
    for (unsigned i = 1; i < count; i++)
        assert_true(shots[order[i - 1]].timer.deadline <= shots[order[i]].timer.deadline);
    assert_int_equal(vmm_evloop_next(&fix->loop), VMM_TIME_NEVER);
    for (unsigned i = 0; i < N; i++)
        vmm_timer_fini(&shots[i].timer);
    free(shots);
}

static void test_not_early(void **state)
{
    struct fixture *fix = *state;
    struct shot shot;

    shot_init(&shot, fix);
    vmm_timer_arm(&shot.timer, fix->now + 10);
    fix->now += 9;
    assert_int_equal(vmm_evloop_run_due(&fix->loop), 0);
    fix->now += 1;
    assert_int_equal(vmm_evloop_run_due(&fix->loop), 1);
    assert_int_equal(vmm_evloop_run_due(&fix->loop), 0);
    vmm_timer_fini(&shot.timer);
}

static void test_cancel(void **state)
{
    struct fixture *fix = *state;
    struct shot shot;

    shot_init(&shot, fix);
    assert_false(vmm_timer_cancel(&shot.timer));
    vmm_timer_arm(&shot.timer, fix->now);
    assert_true(vmm_timer_cancel(&shot.timer));
    assert_false(vmm_timer_cancel(&shot.timer));
    vmm_timer_arm(&shot.timer, fix->now);
    vmm_timer_arm(&shot.timer, VMM_TIME_NEVER);
    assert_false(vmm_timer_cancel_sync(&shot.timer));
    assert_int_equal(vmm_evloop_run_due(&fix->loop), 0);
    vmm_timer_fini(&shot.timer);
    vmm_timer_fini(&shot.timer);
}

/* A timer that always arms itself for the past fires once in a pass. */
static void test_pass_is_bounded(void **state)
{
    struct fixture *fix = *state;
    struct shot shots[2];

    shot_init(&shots[0], fix);
    shot_init(&shots[1], fix);
    shots[0].again = 1;
    vmm_timer_arm(&shots[0].timer, 1);
    vmm_timer_arm(&shots[1].timer, fix->now);
    assert_in_range(vmm_evloop_run_due(&fix->loop), 1, 2);
    assert_in_range(vmm_evloop_run_due(&fix->loop), 1, 2);
    vmm_timer_fini(&shots[0].timer);
    vmm_timer_fini(&shots[1].timer);
}

/* ---- with the thread ---- */

static uint64_t host_now(void)
{
    return vmm_clock_mono(&vmm_clock_host);
}

struct real {
    struct vmm_evloop loop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

struct counter {
    struct vmm_timer timer;
    struct real *real;
    uint64_t deadline; /* guarded by real->lock; VMM_TIME_NEVER: not wanted */
    unsigned fired;
    unsigned early;
    unsigned stale;
};

static void on_counter(void *ctx)
{
    struct counter *counter = ctx;
    uint64_t now = host_now();

    pthread_mutex_lock(&counter->real->lock);
    if (counter->deadline == VMM_TIME_NEVER)
        counter->stale++;
    else if (now < counter->deadline)
        counter->early++;
    else
        counter->deadline = VMM_TIME_NEVER;
    counter->fired++;
    pthread_cond_broadcast(&counter->real->changed);
    pthread_mutex_unlock(&counter->real->lock);
}

static int real_setup(void **state)
{
    struct real *real = calloc(1, sizeof(*real));

    assert_non_null(real);
    pthread_mutex_init(&real->lock, NULL);
    pthread_cond_init(&real->changed, NULL);
    assert_int_equal(vmm_evloop_init(&real->loop, &vmm_clock_host), 0);
    assert_int_equal(vmm_evloop_start(&real->loop), 0);
    *state = real;
    return 0;
}

static int real_teardown(void **state)
{
    struct real *real = *state;

    vmm_evloop_fini(&real->loop);
    pthread_mutex_destroy(&real->lock);
    pthread_cond_destroy(&real->changed);
    free(real);
    return 0;
}

static void counter_init(struct counter *counter, struct real *real)
{
    *counter = (struct counter){.real = real, .deadline = VMM_TIME_NEVER};
    assert_int_equal(vmm_timer_init(&counter->timer, &real->loop, on_counter, counter), 0);
}

static void counter_arm(struct counter *counter, uint64_t deadline)
{
    pthread_mutex_lock(&counter->real->lock);
    counter->deadline = deadline;
    vmm_timer_arm(&counter->timer, deadline);
    pthread_mutex_unlock(&counter->real->lock);
}

/* Waits until `*value` is at least `least`; false after LONG_MS. */
static bool wait_for(struct real *real, const unsigned *value, unsigned least)
{
    struct timespec limit;
    int err = 0;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += LONG_MS / 1000;
    pthread_mutex_lock(&real->lock);
    while (*value < least && err == 0)
        err = pthread_cond_timedwait(&real->changed, &real->lock, &limit);
    pthread_mutex_unlock(&real->lock);
    return err == 0;
}

/* A sleep until a far deadline is cut short by an earlier one from another thread. */
static void test_earlier_cuts_short(void **state)
{
    struct real *real = *state;
    struct counter far;
    struct counter near;

    counter_init(&far, real);
    counter_init(&near, real);
    counter_arm(&far, host_now() + 3600 * VMM_NS_PER_SEC);
    for (unsigned i = 1; i <= 50; i++) {
        usleep(1000);
        counter_arm(&near, host_now() + MS);
        assert_true(wait_for(real, &near.fired, i));
    }
    assert_int_equal(near.early, 0);
    assert_int_equal(far.fired, 0);
    vmm_timer_fini(&near.timer);
    vmm_timer_fini(&far.timer);
}

static void test_past_deadlines(void **state)
{
    static const uint64_t past[] = {0, 1, 999999999};
    struct real *real = *state;
    struct counter counter;

    counter_init(&counter, real);
    for (unsigned i = 0; i < COUNT(past); i++) {
        counter_arm(&counter, past[i]);
        assert_true(wait_for(real, &counter.fired, i + 1));
    }
    counter_arm(&counter, VMM_TIME_NEVER - 1); /* farther than the kernel can count */
    counter_arm(&counter, host_now());
    assert_true(wait_for(real, &counter.fired, COUNT(past) + 1));
    vmm_timer_fini(&counter.timer);
}

/* Each thread arms its own timer, near and far, and waits for each: none may be lost. */
static void *arm_many(void *arg)
{
    struct counter *counter = arg;
    uint32_t seed = (uint32_t)(uintptr_t)arg;

    for (unsigned i = 0; i < 500; i++) {
        unsigned fired;

        seed = seed * 1664525u + 1013904223u;
        pthread_mutex_lock(&counter->real->lock);
        fired = counter->fired;
        pthread_mutex_unlock(&counter->real->lock);
        counter_arm(counter, host_now() + VMM_NS_PER_SEC + (seed >> 4));
        counter_arm(counter, host_now() + (seed >> 13));
        if (!wait_for(counter->real, &counter->fired, fired + 1))
            return NULL;
    }
    return counter;
}

static void test_many_threads(void **state)
{
    struct real *real = *state;
    struct counter counters[4];
    pthread_t threads[4];

    for (unsigned i = 0; i < 4; i++)
        counter_init(&counters[i], real);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, arm_many, &counters[i]), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *done;

        assert_int_equal(pthread_join(threads[i], &done), 0);
        assert_ptr_equal(done, &counters[i]);
        assert_int_equal(counters[i].early, 0);
        vmm_timer_fini(&counters[i].timer);
    }
}

/* After cancel_sync the callback neither runs nor is running: its memory may go. */
static void test_cancel_sync(void **state)
{
    struct real *real = *state;

    for (unsigned i = 0; i < 2000; i++) {
        struct counter *counter = malloc(sizeof(*counter));

        assert_non_null(counter);
        counter_init(counter, real);
        counter_arm(counter, host_now() + i % 100 * 1000);
        if (i % 3 == 0)
            usleep(i % 50);
        vmm_timer_cancel_sync(&counter->timer);
        vmm_timer_fini(&counter->timer);
        memset(counter, 0xff, sizeof(*counter));
        free(counter);
    }
}

/* The owner's own deadline, under the lock that the callback takes, tells a stale callback. */
static void test_cancel_with_state(void **state)
{
    struct real *real = *state;
    struct counter counter;

    counter_init(&counter, real);
    for (unsigned i = 0; i < 500; i++) {
        unsigned fired;

        counter_arm(&counter, host_now() + i % 30 * 1000);
        usleep(i % 40);
        pthread_mutex_lock(&real->lock);
        counter.deadline = VMM_TIME_NEVER;
        vmm_timer_cancel(&counter.timer);
        fired = counter.fired - counter.stale;
        pthread_mutex_unlock(&real->lock);
        usleep(50);
        pthread_mutex_lock(&real->lock);
        assert_int_equal(counter.fired - counter.stale, fired);
        pthread_mutex_unlock(&real->lock);
    }
    vmm_timer_fini(&counter.timer);
}

static void test_stop_and_start(void **state)
{
    struct real *real = *state;
    struct counter counter;

    counter_init(&counter, real);
    vmm_evloop_stop(&real->loop);
    vmm_evloop_stop(&real->loop);
    counter_arm(&counter, host_now());
    usleep(10000);
    assert_int_equal(counter.fired, 0);
    assert_int_equal(vmm_evloop_start(&real->loop), 0);
    assert_true(wait_for(real, &counter.fired, 1));
    vmm_timer_fini(&counter.timer);
}

/* ---- descriptors ---- */

struct reader {
    struct vmm_watch watch;
    struct real *real;
    int fd;
    unsigned bytes;
    unsigned ends;
};

static void on_readable(void *ctx, uint32_t events)
{
    struct reader *reader = ctx;
    char byte;
    ssize_t got = read(reader->fd, &byte, 1);

    (void)events;
    pthread_mutex_lock(&reader->real->lock);
    if (got > 0)
        reader->bytes++;
    else
        reader->ends++;
    pthread_cond_broadcast(&reader->real->changed);
    pthread_mutex_unlock(&reader->real->lock);
    if (got <= 0)
        vmm_watch_enable(&reader->watch, false);
}

static void reader_add(struct reader *reader, struct real *real, int fd)
{
    *reader = (struct reader){.real = real, .fd = fd};
    assert_int_equal(vmm_watch_add(&reader->watch, &real->loop, fd, EPOLLIN, on_readable, reader),
                     0);
}

static void test_watch_pipe(void **state)
{
    struct real *real = *state;
    struct reader reader;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    reader_add(&reader, real, fds[0]);
    for (unsigned i = 1; i <= 100; i++) {
        assert_int_equal(write(fds[1], "x", 1), 1);
        assert_true(wait_for(real, &reader.bytes, i));
    }
    vmm_watch_enable(&reader.watch, false);
    assert_int_equal(write(fds[1], "x", 1), 1);
    usleep(10000);
    vmm_watch_enable(&reader.watch, true);
    assert_true(wait_for(real, &reader.bytes, 101));
    close(fds[1]);
    assert_true(wait_for(real, &reader.ends, 1));
    usleep(10000);
    assert_int_equal(reader.ends, 1); /* switched off: a hang-up does not spin */
    vmm_watch_remove(&reader.watch);
    vmm_watch_remove(&reader.watch);
    close(fds[0]);
}

/* Files that epoll refuses are read like the others, and timers go on beside them. */
static void test_watch_files(void **state)
{
    char name[] = "/tmp/vapic-test-XXXXXX";
    struct real *real = *state;
    struct reader readers[2];
    struct counter counter;
    int fd = mkstemp(name);
    int null_fd = open("/dev/null", O_RDONLY);

    assert_true(fd >= 0 && null_fd >= 0);
    unlink(name);
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    counter_init(&counter, real);
    reader_add(&readers[0], real, fd);
    reader_add(&readers[1], real, null_fd);
    counter_arm(&counter, host_now() + MS);
    assert_true(wait_for(real, &readers[0].ends, 1));
    assert_true(wait_for(real, &readers[1].ends, 1));
    assert_true(wait_for(real, &counter.fired, 1));
    assert_int_equal(readers[0].bytes, 5);
    assert_int_equal(readers[1].bytes, 0);
    vmm_timer_fini(&counter.timer);
    vmm_watch_remove(&readers[0].watch);
    vmm_watch_remove(&readers[1].watch);
    close(fd);
    close(null_fd);
}

static void test_watch_bad_fd(void **state)
{
    struct real *real = *state;
    struct vmm_watch watch;

    assert_true(vmm_watch_add(&watch, &real->loop, -1, EPOLLIN, on_readable, NULL) < 0);
    vmm_watch_enable(&watch, true);
    vmm_watch_remove(&watch);
}

/* Removing while input streams in: the callback never sees freed memory. */
static void test_watch_remove(void **state)
{
    struct real *real = *state;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    for (unsigned i = 0; i < 500; i++) {
        struct reader *reader = malloc(sizeof(*reader));

        assert_non_null(reader);
        assert_int_equal(write(fds[1], "xyz", 3), 3);
        reader_add(reader, real, fds[0]);
        if (i % 2)
            usleep(i % 30);
        vmm_watch_remove(&reader->watch);
        memset(reader, 0xff, sizeof(*reader));
        free(reader);
    }
    close(fds[0]);
    close(fds[1]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define R(name) cmocka_unit_test_setup_teardown(name, real_setup, real_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_order),           T(test_not_early),          T(test_cancel),
        T(test_pass_is_bounded), R(test_earlier_cuts_short), R(test_past_deadlines),
        R(test_many_threads),    R(test_cancel_sync),        R(test_cancel_with_state),
        R(test_stop_and_start),  R(test_watch_pipe),         R(test_watch_files),
        R(test_watch_bad_fd),    R(test_watch_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
