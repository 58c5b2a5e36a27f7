/* SPDX-License-Identifier: MIT */
/*
 * The trace as JSON in the trace event format of Chrome, which Perfetto reads too, one object a
 * line: a track for each vCPU with its events as instants and its spans as slices, one for what
 * belongs to no vCPU, and one for each inhibition reason that occurs, with a slice while it is in
 * force. Time stamps are microseconds of CLOCK_MONOTONIC.
 */
#include <jansson.h>
#include <string.h>

#include "trace_form.h"
#include "vapic/accel.h"

#define TEXT_MAX 512u
#define PROCESS  1

/* Tracks: vCPU n is thread n + 1, so that no thread is 0, which tools take for the idle task. */
#define TRACK_VM      (VAPIC_MAX_VCPUS + 1u)
#define TRACK_REASONS (VAPIC_MAX_VCPUS + 2u)

/* Integers above it are not exact in every reader. */
#define EXACT_MAX (1ull << 53)

/* What the arguments of an event are, as the fields of the tracepoint are called. */
static const char *const fields[VAPIC_EVENT_COUNT][4] = {
    [VAPIC_EVENT_APIC] = {"access", "reg", "val"},
    [VAPIC_EVENT_APIC_IPI] = {"icr_low", "dest_id"},
    [VAPIC_EVENT_APIC_ACCEPT_IRQ] = {"apicid", "dm", "tm", "vec"},
    [VAPIC_EVENT_EOI] = {"apicid", "vector"},
    [VAPIC_EVENT_INJ_VIRQ] = {"vector", "soft", "reinjected"},
    [VAPIC_EVENT_MSI_SET_IRQ] = {"address", "data"},
    [VAPIC_EVENT_IOAPIC_SET_IRQ] = {"pin", "e", "coalesced"},
    [VAPIC_EVENT_IOAPIC_DELAYED_EOI] = {"e"},
    [VAPIC_EVENT_SET_IRQ] = {"gsi", "level", "irq_source_id"},
    [VAPIC_EVENT_ACK_IRQ] = {"ioapic", "pin"},
    [VAPIC_EVENT_TIMER] = {"apicid", "clock", "when"},
    [VAPIC_EVENT_BASE] = {"apicid", "old", "new"},
    [VAPIC_EVENT_CPU_EVENT] = {"apicid", "event", "vector"},
    [VAPIC_EVENT_APICV_INHIBIT_CHANGED] = {"reason", "set", "inhibits"},
    [VAPIC_EVENT_AVIC_INCOMPLETE_IPI] = {"icrh", "icrl", "id", "index"},
    [VAPIC_EVENT_AVIC_UNACCELERATED_ACCESS] = {"offset", "access", "vec"},
    [VAPIC_EVENT_AVIC_DOORBELL] = {"vcpuid", "apicid"},
    [VAPIC_EVENT_AVIC_KICK_VCPU_SLOWPATH] = {"icrh", "icrl", "index"},
    [VAPIC_EVENT_AVIC_GA_LOG] = {"vmid", "vcpuid"},
    [VAPIC_EVENT_APICV_ACCEPT_IRQ] = {"apicid", "dm", "tm", "vec"},
    [VAPIC_EVENT_PV_EOI] = {"apicid", "vector"},
};

static const char *const span_names[] = {
#define VMM_X(name, text) [VMM_TRACE_##name] = (text),
    VMM_TRACE_SPANS(VMM_X)
#undef VMM_X
};

/* Writes and frees `object`. */
static void write_object(struct vmm_trace_out *out, json_t *object)
{
    fputs(out->more ? ",\n" : "\n", out->file);
    out->more = true;
    json_dumpf(object, out->file, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(object);
}

/* Microseconds: 15 digits are exact to the nanosecond for eleven days of uptime. */
static json_t *micros(uint64_t ns)
{
    return json_real((double)ns / 1e3);
}

static json_t *object_of(const char *name, const char *phase, uint64_t ns, uint32_t track)
{
    json_t *object = json_pack("{s:s, s:s, s:i, s:i}", "name", name, "ph", phase, "pid", PROCESS,
                               "tid", (int)track);

    json_object_set_new(object, "ts", micros(ns));
    return object;
}

static void name_track(struct vmm_trace_out *out, uint32_t track, const char *name)
{
    write_object(out,
                 json_pack("{s:s, s:s, s:i, s:i, s:i, s:{s:s}}", "name", "thread_name", "ph", "M",
                           "ts", 0, "pid", PROCESS, "tid", (int)track, "args", "name", name));
    write_object(out, json_pack("{s:s, s:s, s:i, s:i, s:i, s:{s:i}}", "name", "thread_sort_index",
                                "ph", "M", "ts", 0, "pid", PROCESS, "tid", (int)track, "args",
                                "sort_index", (int)track));
}

static void begin(struct vmm_trace_out *out)
{
    char name[32];

    out->more = false;
    out->inhibits = 0;
    out->named = 0;
    fputs("{\"displayTimeUnit\":\"ns\",\"otherData\":{\"clock\":\"CLOCK_MONOTONIC\"},"
          "\"traceEvents\":[",
          out->file);
    write_object(out,
                 json_pack("{s:s, s:s, s:i, s:i, s:i, s:{s:s}}", "name", "process_name", "ph", "M",
                           "ts", 0, "pid", PROCESS, "tid", 0, "args", "name", "vapic run"));
    for (uint32_t n = 0; n < out->cpus; n++) {
        snprintf(name, sizeof(name), "vCPU %u", n);
        name_track(out, n + 1, name);
    }
    name_track(out, TRACK_VM, "VM");
}

/* ---- Inhibition ---- */

static const char *reason_name(uint32_t reason, char *number, size_t size)
{
    const char *name = vapic_inhibit_name(reason);

    if (name != NULL) {
        return name;
    }
    snprintf(number, size, "reason %u", reason);
    return number;
}

static void toggle_slice(struct vmm_trace_out *out, uint32_t reason, bool set, uint64_t ns)
{
    char number[24];
    char title[64];
    const char *name = reason_name(reason, number, sizeof(number));
    uint64_t bit = 1ull << reason;

    if (!(out->named & bit)) {
        out->named |= bit;
        snprintf(title, sizeof(title), "inhibited: %s", name);
        name_track(out, TRACK_REASONS + reason, title);
    }
    write_object(out, object_of(name, set ? "B" : "E", ns, TRACK_REASONS + reason));
}

/* Events may say again what is known: what counts is how the set differs from the last one. */
static void follow_inhibits(struct vmm_trace_out *out, uint64_t inhibits, uint64_t ns)
{
    uint64_t changed = out->inhibits ^ inhibits;

    for (uint32_t reason = 0; reason < 64; reason++) {
        if (changed >> reason & 1) {
            toggle_slice(out, reason, inhibits >> reason & 1, ns);
        }
    }
    out->inhibits = inhibits;
}

/* ---- Events and spans ---- */

static json_t *argument(uint64_t value)
{
    char text[24];

    if (value <= EXACT_MAX) {
        return json_integer((json_int_t)value);
    }
    snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
    return json_string(text);
}

static json_t *arguments(const struct vapic_event *event)
{
    json_t *args = json_object();
    char text[TEXT_MAX];

    vapic_event_format(event, text, sizeof(text));
    json_object_set_new(args, "text", json_string(text));
    for (unsigned n = 0; n < 4 && fields[event->kind][n] != NULL; n++) {
        json_object_set_new(args, fields[event->kind][n], argument(event->arg[n]));
    }
    return args;
}

static void write_event(struct vmm_trace_out *out, const struct vmm_trace_record *r)
{
    const struct vapic_event *event = &r->event;
    uint32_t track = event->vcpu == VAPIC_NO_INDEX ? TRACK_VM : event->vcpu + 1;
    json_t *object = object_of(vapic_event_name(event->kind), "i", r->ns, track);

    json_object_set_new(object, "s", json_string("t"));
    json_object_set_new(object, "args", arguments(event));
    write_object(out, object);
    if (event->kind == VAPIC_EVENT_APICV_INHIBIT_CHANGED) {
        follow_inhibits(out, event->arg[2], r->ns);
    }
}

static void record(struct vmm_trace_out *out, const struct vmm_trace_record *r)
{
    json_t *object;

    if (r->span == VMM_TRACE_SPAN_COUNT) {
        write_event(out, r);
        return;
    }
    object = object_of(span_names[r->span], "X", r->ns, r->event.vcpu + 1);
    json_object_set_new(object, "dur", micros(r->duration));
    write_object(out, object);
}

static void end(struct vmm_trace_out *out, uint64_t ns)
{
    follow_inhibits(out, 0, ns);
    fputs("\n]}\n", out->file);
}

const struct vmm_trace_writer vmm_trace_json = {begin, record, end, true};
