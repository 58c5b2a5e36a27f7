/* SPDX-License-Identifier: MIT */
/*
 * The trace as text: what `trace-cmd report` prints for a host's trace, with the vCPU's index in
 * place of the process and of the processor. Events of no vCPU are of "vm-0" on processor 0.
 */
#include <stdio.h>

#include "trace_form.h"

#define TEXT_MAX 512u
#define NAME_MAX 48u

static void begin(struct vmm_trace_out *out)
{
    fprintf(out->file, "cpus=%u\n", out->cpus);
}

static void record(struct vmm_trace_out *out, const struct vmm_trace_record *r)
{
    bool vm = r->event.vcpu == VAPIC_NO_INDEX;
    uint32_t cpu = vm ? 0 : r->event.vcpu;
    unsigned long long us = r->ns / 1000;
    char text[TEXT_MAX];
    char name[NAME_MAX];

    vapic_event_format(&r->event, text, sizeof(text));
    snprintf(name, sizeof(name), "%s:", vapic_event_name(r->event.kind));
    fprintf(out->file, "%16s-%-5u [%03u] %5llu.%06llu: %-21s %s\n", vm ? "vm" : "vcpu", cpu, cpu,
            us / 1000000, us % 1000000, name, text);
}

static void end(struct vmm_trace_out *out, uint64_t ns)
{
    (void)out;
    (void)ns;
}

const struct vmm_trace_writer vmm_trace_text = {begin, record, end, false};
