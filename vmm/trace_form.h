/* SPDX-License-Identifier: MIT */
/*
 * The forms of a trace file, each a table of functions that write it front to back, in bounded
 * memory. Called by trace.c, on one thread.
 */
#ifndef VMM_TRACE_FORM_H
#define VMM_TRACE_FORM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vapic/vapic.h"

enum vmm_trace_form {
    VMM_TRACE_AUTO, /* JSON if the file's name ends in .json, else text */
    VMM_TRACE_TEXT,
    VMM_TRACE_JSON,
};

/* What a vCPU does for some time. Columns: name, text. */
#define VMM_TRACE_SPANS(X)                                                                         \
    X(GUEST, "guest")     /* KVM_RUN */                                                            \
    X(BLOCKED, "blocked") /* waiting for an interrupt */

enum vmm_trace_span {
#define VMM_X(name, text) VMM_TRACE_##name,
    VMM_TRACE_SPANS(VMM_X)
#undef VMM_X
        VMM_TRACE_SPAN_COUNT
};

struct vmm_trace_record {
    uint64_t ns;       /* CLOCK_MONOTONIC; when a span began */
    uint64_t duration; /* of a span */
    uint32_t span;     /* enum vmm_trace_span, or VMM_TRACE_SPAN_COUNT: an event */
    struct vapic_event event;
};

struct vmm_trace_writer;

struct vmm_trace_out {
    const struct vmm_trace_writer *writer;
    FILE *file;
    unsigned cpus;
    bool more;         /* JSON: not the first object */
    uint64_t inhibits; /* JSON: reasons whose slice is open */
    uint64_t named;    /* JSON: reasons whose track has its name */
};

/* Errors show in the stream's error flag. */
struct vmm_trace_writer {
    void (*begin)(struct vmm_trace_out *out);
    void (*record)(struct vmm_trace_out *out, const struct vmm_trace_record *record);
    void (*end)(struct vmm_trace_out *out, uint64_t ns);
    bool spans;
};

extern const struct vmm_trace_writer vmm_trace_text; /* trace_text.c */
extern const struct vmm_trace_writer vmm_trace_json; /* trace_json.c */

#endif
