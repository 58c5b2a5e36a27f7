/* SPDX-License-Identifier: MIT */
/* The trace file: from the threads of events to the thread that writes; see trace.h. */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trace_probe.h"

/* How long an event may wait in memory. */
#define LINGER_MS 100u
/* A file that takes no record for so long is given up at the end: soon if the user wants out. */
#define PATIENCE_MS         60000u
#define PATIENCE_HURRIED_MS 2000u
/* How often who waits looks whether a signal waits too. */
#define LOOK_MS 500u

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct timespec in_ms(unsigned ms)
{
    uint64_t at = now_ns() + ms * UINT64_C(1000000);

    return (struct timespec){(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
}

/* ---- The thread that writes ---- */

static void wait_for_work(struct vmm_trace *trace)
{
    struct timespec until = in_ms(LINGER_MS);

    while (trace->count < VMM_TRACE_BATCH / 2 && !trace->ending) {
        if (pthread_cond_timedwait(&trace->work, &trace->lock, &until) == ETIMEDOUT) {
            return;
        }
    }
}

/* The next batch: its records, and their number. False: that was the last one. */
static bool take(struct vmm_trace *trace, const struct vmm_trace_record **records, unsigned *count)
{
    bool more;

    pthread_mutex_lock(&trace->lock);
    wait_for_work(trace);
    *records = trace->batch[trace->filling];
    *count = trace->count;
    more = !trace->ending;
    trace->filling ^= 1;
    trace->count = 0;
    trace->closed = trace->ending;
    pthread_cond_broadcast(&trace->room);
    pthread_mutex_unlock(&trace->lock);
    return more;
}

/* After anything that writes: takes note of the first error, while errno still says what it was. */
static bool is_good(struct vmm_trace *trace)
{
    if (trace->error == 0 && ferror(trace->out.file)) {
        trace->error = errno;
    }
    return trace->error == 0;
}

static void write_batch(struct vmm_trace *trace, const struct vmm_trace_record *records,
                        unsigned count)
{
    struct vmm_trace_out *out = &trace->out;

    for (unsigned n = 0; n < count && is_good(trace); n++) {
        out->writer->record(out, &records[n]);
        atomic_fetch_add(&trace->written, 1);
    }
    if (is_good(trace)) {
        fflush(out->file);
        is_good(trace);
    }
}

static void *write_file(void *arg)
{
    struct vmm_trace *trace = arg;
    struct vmm_trace_out *out = &trace->out;
    const struct vmm_trace_record *records;
    unsigned count;
    bool more;

    out->writer->begin(out);
    do {
        more = take(trace, &records, &count);
        write_batch(trace, records, count);
    } while (more);
    if (is_good(trace)) {
        out->writer->end(out, now_ns());
        fflush(out->file);
        is_good(trace);
    }
    pthread_mutex_lock(&trace->lock);
    trace->done = true;
    pthread_cond_broadcast(&trace->room);
    pthread_mutex_unlock(&trace->lock);
    return NULL;
}

/* ---- Opening and closing ---- */

enum vmm_trace_form vmm_trace_form_of(enum vmm_trace_form wanted, const char *path)
{
    const char *dot = strrchr(path, '.');

    if (wanted != VMM_TRACE_AUTO) {
        return wanted;
    }
    return dot != NULL && strcmp(dot, ".json") == 0 ? VMM_TRACE_JSON : VMM_TRACE_TEXT;
}

static const struct vmm_trace_writer *writer_of(const struct vmm_trace_config *config)
{
    return vmm_trace_form_of(config->form, config->path) == VMM_TRACE_JSON ? &vmm_trace_json
                                                                           : &vmm_trace_text;
}

/* No signal of the run's is for this thread, nor SIGPIPE: the error of write() says it. */
static int start_thread(struct vmm_trace *trace)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&trace->thread, NULL, write_file, trace);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int vmm_trace_open(struct vmm_trace *trace, const struct vmm_trace_config *config,
                   struct vmm_err *err)
{
    pthread_condattr_t attr;
    int rc;

    trace->path = config->path;
    trace->out = (struct vmm_trace_out){.writer = writer_of(config), .cpus = config->cpus};
    trace->spans = trace->out.writer->spans;
    trace->ending = trace->closed = false;
    trace->hurry = trace->stalled = trace->done = false;
    atomic_store(&trace->written, 0);
    trace->error = 0;
    trace->filling = trace->count = 0;
    trace->null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (trace->null_fd < 0) {
        return vmm_fail(err, "--trace: cannot open /dev/null: %s", strerror(errno));
    }
    trace->out.file = fopen(config->path, "we");
    if (trace->out.file == NULL) {
        vmm_fail(err, "--trace: cannot write %s: %s: check the path", config->path,
                 strerror(errno));
        close(trace->null_fd);
        return -1;
    }
    pthread_mutex_init(&trace->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&trace->room, &attr);
    pthread_cond_init(&trace->work, &attr);
    pthread_condattr_destroy(&attr);
    rc = start_thread(trace);
    if (rc != 0) {
        fclose(trace->out.file);
        close(trace->null_fd);
        return vmm_fail(err, "--trace: no thread for it: %s", strerror(rc));
    }
    return 0;
}

void vmm_trace_hurry(struct vmm_trace *trace)
{
    if (trace != NULL) {
        pthread_mutex_lock(&trace->lock);
        trace->hurry = true;
        pthread_cond_broadcast(&trace->room);
        pthread_mutex_unlock(&trace->lock);
    }
}

/* Waits for room, or the end. Notes it if the file has taken nothing in the meantime. Locked. */
static void wait_with_patience(struct vmm_trace *trace, unsigned ms)
{
    uint64_t before = atomic_load(&trace->written);
    struct timespec until = in_ms(ms);

    if (pthread_cond_timedwait(&trace->room, &trace->lock, &until) == ETIMEDOUT &&
        atomic_load(&trace->written) == before) {
        trace->stalled = true;
        pthread_cond_broadcast(&trace->room);
    }
}

/* Has the thread come to its end? Not when the file's reader does not read. */
static bool finish_thread(struct vmm_trace *trace)
{
    bool done;

    pthread_mutex_lock(&trace->lock);
    trace->ending = true;
    pthread_cond_signal(&trace->work);
    while (!trace->done && !trace->stalled) {
        wait_with_patience(trace, trace->hurry ? PATIENCE_HURRIED_MS : PATIENCE_MS);
    }
    done = trace->done;
    pthread_mutex_unlock(&trace->lock);
    return done;
}

/* The thread waits in write() for ever; exit() would flush the stream, and wait too. */
static void abandon(struct vmm_trace *trace)
{
    dup2(trace->null_fd, fileno(trace->out.file));
    close(trace->null_fd);
    pthread_detach(trace->thread);
}

int vmm_trace_close(struct vmm_trace *trace, struct vmm_err *err)
{
    int error;

    if (!finish_thread(trace)) {
        abandon(trace);
        return vmm_fail(err, "--trace: %s is incomplete: its reader does not read", trace->path);
    }
    pthread_join(trace->thread, NULL);
    close(trace->null_fd);
    error = trace->error != 0 || !trace->stalled ? trace->error : ETIMEDOUT;
    if (fclose(trace->out.file) != 0 && error == 0) {
        error = errno;
    }
    if (error != 0) {
        return vmm_fail(err, "--trace: %s is incomplete: %s", trace->path, strerror(error));
    }
    return 0;
}

/* ---- The threads of events ---- */

/* The thread that would see the signal, and ask for hurry, may be the one that waits. */
static bool is_called_off(void)
{
    sigset_t pending;

    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
            sigismember(&pending, SIGHUP) == 1);
}

static void wait_for_room(struct vmm_trace *trace)
{
    struct timespec until = in_ms(LOOK_MS);

    if (trace->hurry) {
        wait_with_patience(trace, PATIENCE_HURRIED_MS);
    } else if (pthread_cond_timedwait(&trace->room, &trace->lock, &until) == ETIMEDOUT) {
        trace->hurry = is_called_off();
    }
}

/* A record for `push()` to complete and make visible; NULL: it is dropped. Locked. */
static struct vmm_trace_record *reserve(struct vmm_trace *trace)
{
    while (trace->count == VMM_TRACE_BATCH && !trace->closed && !trace->stalled) {
        wait_for_room(trace);
    }
    return trace->closed || trace->stalled ? NULL : &trace->batch[trace->filling][trace->count];
}

static void push(struct vmm_trace *trace, const struct vmm_trace_record *record)
{
    struct vmm_trace_record *place;

    pthread_mutex_lock(&trace->lock);
    place = reserve(trace);
    if (place != NULL) {
        *place = *record;
        if (record->span == VMM_TRACE_SPAN_COUNT) {
            place->ns = now_ns(); /* under the lock, for the order */
        }
        if (++trace->count == VMM_TRACE_BATCH / 2) {
            pthread_cond_signal(&trace->work);
        }
    }
    pthread_mutex_unlock(&trace->lock);
}

void vmm_trace_event(void *ctx, const struct vapic_event *event)
{
    vmm_trace_probe(event);
    if (ctx != NULL) {
        push(ctx, &(struct vmm_trace_record){.span = VMM_TRACE_SPAN_COUNT, .event = *event});
    }
}

uint64_t vmm_trace_start(const struct vmm_trace *trace)
{
    return trace != NULL && trace->spans ? now_ns() : 0;
}

void vmm_trace_span(struct vmm_trace *trace, uint32_t vcpu, enum vmm_trace_span span,
                    uint64_t start)
{
    if (start != 0) {
        push(trace, &(struct vmm_trace_record){
                        .ns = start,
                        .duration = now_ns() - start,
                        .span = span,
                        .event = {.vcpu = vcpu},
                    });
    }
}
