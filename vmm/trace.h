/* SPDX-License-Identifier: MIT */
/*
 * The trace file of a run: one line per event of libvapic, in the form that Linux's trace file has,
 * so that the same tools read both. Written by whatever thread an event happens on.
 */
#ifndef VMM_TRACE_H
#define VMM_TRACE_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"
#include "vapic/vapic.h"

struct vmm_trace {
    FILE *file;
    const char *path;
};

int vmm_trace_open(struct vmm_trace *trace, const char *path, struct vmm_err *err);

/* Writes out what is buffered. -1 with the error set when some of the trace is missing. */
int vmm_trace_close(struct vmm_trace *trace, struct vmm_err *err);

/* A vapic_trace_fn; `ctx` is the struct vmm_trace. */
void vmm_trace_event(void *ctx, const struct vapic_event *event);

#endif
