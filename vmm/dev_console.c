/* SPDX-License-Identifier: MIT */
/*
 * The console (see dev_console.h). Called by the serial port (output, room), the event loop (input)
 * and the machine.
 */
#include "dev_console.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* The serial port is told to wait when less than this is free, and to go on at half the ring. */
#define RING_SLACK 64u
/* Bytes that follow within this time are written together. */
#define BATCH_NS    1000000L
#define INPUT_CHUNK 256u
/* Ends a write() that blocks. A signal that nobody minds: by default it is ignored. */
#define INTERRUPT          SIGURG
#define INTERRUPT_EVERY_MS 10u

/* ---- output ---- */

static bool on_output(void *ctx, uint8_t byte)
{
    struct vmm_console *console = ctx;
    bool room;

    pthread_mutex_lock(&console->lock);
    if (!console->broken && console->count < VMM_CONSOLE_RING) {
        console->ring[(console->head + console->count++) % VMM_CONSOLE_RING] = byte;
        if (console->count == 1)
            pthread_cond_signal(&console->work);
    }
    room = console->count < VMM_CONSOLE_RING - RING_SLACK;
    console->blocked |= !room;
    pthread_mutex_unlock(&console->lock);
    return room;
}

/*
 * Blocks while the descriptor does. A stop interrupts it by INTERRUPT, and is noticed by the
 * caller.
 */
static ssize_t write_some(int fd, const uint8_t *data, size_t len)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    ssize_t ret = write(fd, data, len);

    if (ret >= 0 || errno == EINTR)
        return ret < 0 ? 0 : ret;
    if (errno != EAGAIN)
        return -1;
    /* Somebody who shares the descriptor has made it non-blocking. */
    poll(&poll_fd, 1, -1);
    return 0;
}

/* With the lock held, dropped while writing. */
static void write_chunk(struct vmm_console *console)
{
    size_t len = VMM_CONSOLE_RING - console->head;
    ssize_t done;

    if (len > console->count)
        len = console->count;
    /* These bytes stay counted, so nobody overwrites them meanwhile. */
    pthread_mutex_unlock(&console->lock);
    done = write_some(console->out_fd, &console->ring[console->head], len);
    pthread_mutex_lock(&console->lock);
    if (done < 0) {
        console->broken = true;
        done = (ssize_t)console->count;
    }
    console->head = (console->head + (size_t)done) % VMM_CONSOLE_RING;
    console->count -= (size_t)done;
    if (console->count == 0)
        pthread_cond_broadcast(&console->empty);
}

static void tell_ready(struct vmm_console *console)
{
    pthread_mutex_unlock(&console->lock);
    pthread_mutex_lock(&console->env->lock);
    vmm_serial_tx_ready(console->serial);
    pthread_mutex_unlock(&console->env->lock);
    pthread_mutex_lock(&console->lock);
}

static void gather(struct vmm_console *console)
{
    const struct timespec batch = {.tv_nsec = BATCH_NS};

    if (console->stopping)
        return;
    pthread_mutex_unlock(&console->lock);
    nanosleep(&batch, NULL);
    pthread_mutex_lock(&console->lock);
}

static void *output_thread(void *arg)
{
    struct vmm_console *console = arg;

    pthread_mutex_lock(&console->lock);
    while (!console->stopping) {
        if (console->count == 0) {
            pthread_cond_wait(&console->work, &console->lock);
            gather(console);
            continue;
        }
        write_chunk(console);
        if (console->blocked && console->count <= VMM_CONSOLE_RING / 2) {
            console->blocked = false;
            tell_ready(console);
        }
    }
    console->exited = true;
    pthread_cond_broadcast(&console->empty);
    pthread_mutex_unlock(&console->lock);
    return NULL;
}

/* ---- input ---- */

static void on_room(void *ctx)
{
    struct vmm_console *console = ctx;

    if (console->watching)
        vmm_watch_enable(&console->watch, true);
}

/*
 * How much may be read now. Switching the watch off and the serial port's call of on_room() are
 * both under the device lock, so that the one cannot slip between the other's check and act.
 * Nothing read has to wait here, as the escape filter never gives more than it got.
 */
static size_t input_room(struct vmm_console *console)
{
    size_t room;

    pthread_mutex_lock(&console->env->lock);
    room = vmm_serial_room(console->serial);
    if (room == 0)
        vmm_watch_enable(&console->watch, false);
    pthread_mutex_unlock(&console->env->lock);
    return room < INPUT_CHUNK ? room : INPUT_CHUNK;
}

static void give(struct vmm_console *console, uint8_t *data, size_t len)
{
    bool quit = false;

    if (console->escapes)
        len = vmm_escape_filter(&console->escape, data, len, &quit);
    pthread_mutex_lock(&console->env->lock);
    vmm_serial_input(console->serial, data, len);
    if (quit)
        vmm_env_power(console->env, VMM_POWER_QUIT, 0);
    pthread_mutex_unlock(&console->env->lock);
}

/* No more input: under the device lock, so that on_room() does not switch it on again. */
static void end_of_input(struct vmm_console *console)
{
    pthread_mutex_lock(&console->env->lock);
    console->watching = false;
    vmm_watch_enable(&console->watch, false);
    pthread_mutex_unlock(&console->env->lock);
}

static void on_input(void *ctx, uint32_t events)
{
    struct vmm_console *console = ctx;
    uint8_t data[INPUT_CHUNK];
    size_t room = input_room(console);
    ssize_t got;

    (void)events;
    if (room == 0)
        return;
    got = read(console->in_fd, data, room);
    if (got > 0)
        give(console, data, (size_t)got);
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        end_of_input(console);
}

/* ---- life ---- */

void vmm_console_init(struct vmm_console *console, struct vmm_env *env, struct vmm_serial *serial,
                      int in_fd, int out_fd, bool escapes)
{
    memset(console, 0, sizeof(*console));
    console->env = env;
    console->serial = serial;
    console->in_fd = in_fd;
    console->out_fd = out_fd;
    console->escapes = escapes;
    pthread_mutex_init(&console->lock, NULL);
    pthread_cond_init(&console->work, NULL);
    pthread_cond_init(&console->empty, NULL);
}

struct vmm_serial_backend vmm_console_backend(struct vmm_console *console)
{
    return (struct vmm_serial_backend){.ctx = console, .output = on_output, .room = on_room};
}

static void on_interrupt(int sig)
{
    (void)sig;
}

/* The thread takes no signal but INTERRUPT, which must not restart the call it interrupts. */
static int start_thread(struct vmm_console *console)
{
    const struct sigaction action = {.sa_handler = on_interrupt};
    sigset_t most;
    sigset_t old;
    int err;

    console->stopping = false;
    console->exited = false;
    sigaction(INTERRUPT, &action, NULL);
    sigfillset(&most);
    sigdelset(&most, INTERRUPT);
    pthread_sigmask(SIG_SETMASK, &most, &old);
    err = pthread_create(&console->thread, NULL, output_thread, console);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    console->started = err == 0;
    return -err;
}

int vmm_console_start(struct vmm_console *console)
{
    int ret = start_thread(console);

    if (ret || console->in_fd < 0)
        return ret;
    pthread_mutex_lock(&console->env->lock);
    console->watching = true;
    ret = vmm_watch_add(&console->watch, console->env->loop, console->in_fd, EPOLLIN, on_input,
                        console);
    console->watching = ret == 0;
    pthread_mutex_unlock(&console->env->lock);
    if (ret)
        vmm_console_stop(console, 0);
    return ret;
}

static void deadline_in(struct timespec *at, unsigned ms)
{
    clock_gettime(CLOCK_REALTIME, at);
    at->tv_sec += ms / 1000;
    at->tv_nsec += (long)(ms % 1000) * 1000000L;
    if (at->tv_nsec >= 1000000000L) {
        at->tv_nsec -= 1000000000L;
        at->tv_sec++;
    }
}

/*
 * Makes the thread end although it may be stuck in write(). Again and again, as the signal may come
 * just before the call that it is to interrupt.
 */
static void end_thread(struct vmm_console *console)
{
    struct timespec soon;

    console->stopping = true;
    pthread_cond_signal(&console->work);
    while (!console->exited) {
        pthread_kill(console->thread, INTERRUPT);
        deadline_in(&soon, INTERRUPT_EVERY_MS);
        pthread_cond_timedwait(&console->empty, &console->lock, &soon);
    }
}

/* Returns true if the ring is empty. */
static bool stop_thread(struct vmm_console *console, unsigned timeout_ms)
{
    struct timespec deadline;
    bool empty;

    deadline_in(&deadline, timeout_ms);
    pthread_mutex_lock(&console->lock);
    while (console->count &&
           pthread_cond_timedwait(&console->empty, &console->lock, &deadline) != ETIMEDOUT)
        ;
    end_thread(console);
    empty = console->count == 0;
    pthread_mutex_unlock(&console->lock);
    pthread_join(console->thread, NULL);
    return empty;
}

bool vmm_console_stop(struct vmm_console *console, unsigned timeout_ms)
{
    bool empty = true;

    vmm_watch_remove(&console->watch);
    if (console->started)
        empty = stop_thread(console, timeout_ms);
    console->started = false;
    return empty;
}
