/* SPDX-License-Identifier: MIT */
/* The trace file; see trace.h. Lines do not mix: stdio locks the stream for each. */
#include "trace.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 256

int vmm_trace_open(struct vmm_trace *trace, const char *path, struct vmm_err *err)
{
    trace->path = path;
    trace->file = fopen(path, "we");
    if (trace->file == NULL) {
        return vmm_fail(err, "--trace: cannot write %s: %s: check the path", path, strerror(errno));
    }
    fputs("# tracer: nop\n#\n#           TASK-PID     CPU#     TIMESTAMP  FUNCTION\n", trace->file);
    return 0;
}

int vmm_trace_close(struct vmm_trace *trace, struct vmm_err *err)
{
    int failed = ferror(trace->file);

    if (fclose(trace->file) != 0 || failed) {
        return vmm_fail(err, "--trace: %s is incomplete: %s", trace->path, strerror(errno));
    }
    return 0;
}

void vmm_trace_event(void *ctx, const struct vapic_event *event)
{
    struct vmm_trace *trace = ctx;
    char text[LINE_MAX_BYTES];
    struct timespec ts;
    unsigned cpu = event->vcpu == VAPIC_NO_INDEX ? 0 : event->vcpu;

    vapic_event_format(event, text, sizeof(text));
    clock_gettime(CLOCK_MONOTONIC, &ts);
    fprintf(trace->file, "%16s-%-7u [%03u] ..... %lld.%06ld: %s: %s\n",
            event->vcpu == VAPIC_NO_INDEX ? "device" : "vcpu", cpu, cpu, (long long)ts.tv_sec,
            ts.tv_nsec / 1000, vapic_event_name(event->kind), text);
}
