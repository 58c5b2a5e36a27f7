/* SPDX-License-Identifier: MIT */
/*
 * The trace of a run. libvapic's events come on whatever thread they happen; each fires its USDT
 * probe (trace_probe.h) and, when a file is wanted, goes into it: as text in the form of
 * `trace-cmd report`, or as JSON for Perfetto and chrome://tracing, with the times that vCPUs spent
 * in the guest and asleep.
 *
 * The thread of an event takes a time stamp and copies one record under a lock; the file's own
 * thread formats and writes. Records are in the order of their stamps (CLOCK_MONOTONIC in both
 * forms); a span comes when it has ended. Two batches of them are all the memory there is: when the
 * disk does not keep up, events wait, none is lost. After a write has failed, or when the run shall
 * end and the file (a pipe) takes nothing any more, events are dropped, and vmm_trace_close()
 * tells.
 */
#ifndef VMM_TRACE_H
#define VMM_TRACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"
#include "trace_form.h"
#include "vapic/vapic.h"

#define VMM_TRACE_BATCH 8192u

struct vmm_trace_config {
    const char *path;
    enum vmm_trace_form form;
    unsigned cpus;
};

/* The caller's memory; private. Large: best static. */
struct vmm_trace {
    const char *path;
    bool spans; /* the form has a place for them */
    struct vmm_trace_out out;
    int null_fd; /* takes the place of a file that is given up: then nothing can be opened */

    pthread_t thread;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t room;  /* the batch was taken */
    pthread_cond_t work;  /* it is half full, or the end has come */
    bool ending;
    bool closed;
    bool hurry;       /* the run is to end now: a reader that does not read is not waited for */
    bool stalled;     /* and there is one: events are dropped */
    bool done;        /* the thread has nothing more to write */
    int error;        /* the thread's: the errno that ended the file early, or 0 */
    unsigned filling; /* the batch that events go to; the thread has the other */
    unsigned count;   /* in it */
    _Atomic uint64_t written; /* records; the thread counts, anybody reads */
    struct vmm_trace_record batch[2][VMM_TRACE_BATCH];
};

/* The form of a file: what is wanted, or what its name says. Never VMM_TRACE_AUTO. */
enum vmm_trace_form vmm_trace_form_of(enum vmm_trace_form wanted, const char *path);

/* Truncates the file and starts the thread that writes it. */
int vmm_trace_open(struct vmm_trace *trace, const struct vmm_trace_config *config,
                   struct vmm_err *err);

/*
 * Writes out everything and ends the file. -1 with the error set when some of it is missing. Events
 * that still come from a thread that could not be stopped are dropped: `trace` stays valid.
 */
int vmm_trace_close(struct vmm_trace *trace, struct vmm_err *err);

/*
 * The run is to end before its time. From now on whoever waits for room does so only while the file
 * takes records. `trace` may be NULL. Any thread.
 */
void vmm_trace_hurry(struct vmm_trace *trace);

/* A vapic_trace_fn; `ctx` is a struct vmm_trace, or NULL: no file, only probes. */
void vmm_trace_event(void *ctx, const struct vapic_event *event);

/*
 * Time of a vCPU in the guest or asleep: what vmm_trace_start() returned goes to vmm_trace_span()
 * at the end. `trace` may be NULL.
 */
uint64_t vmm_trace_start(const struct vmm_trace *trace);
void vmm_trace_span(struct vmm_trace *trace, uint32_t vcpu, enum vmm_trace_span span,
                    uint64_t start);

#endif
