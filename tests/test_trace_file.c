/* SPDX-License-Identifier: MIT */
/* The trace file of a run: both forms, several threads, and files that cannot be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "trace.h"

#define CPUS    4u
#define THREADS 4u
/* Of each thread: more than two batches hold. */
#define EVENTS 9000u

static struct vmm_trace trace;
static char path[64];
static char *text; /* of the file, after closing */

/* ---- Opening, closing, reading ---- */

static void open_trace(enum vmm_trace_form form)
{
    struct vmm_trace_config config = {path, form, CPUS};
    struct vmm_err err;
    int fd;

    strcpy(path, "/tmp/vapic-trace-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(vmm_trace_open(&trace, &config, &err), 0);
}

static void read_text(void)
{
    FILE *f = fopen(path, "r");
    long size;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    rewind(f);
    free(text);
    text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    text[size] = '\0';
    fclose(f);
}

static void close_trace(void)
{
    struct vmm_err err;

    assert_int_equal(vmm_trace_close(&trace, &err), 0);
    read_text();
    unlink(path);
}

static int free_text(void **state)
{
    (void)state;
    free(text);
    text = NULL;
    return 0;
}

static void emit(enum vapic_event_kind kind, uint32_t vcpu, uint64_t a, uint64_t b, uint64_t c)
{
    struct vapic_event event = {.kind = kind, .vcpu = vcpu, .arg = {a, b, c}};

    vmm_trace_event(&trace, &event);
}

static void inhibit(uint64_t reason, bool set, uint64_t inhibits)
{
    emit(VAPIC_EVENT_APICV_INHIBIT_CHANGED, VAPIC_NO_INDEX, reason, set, inhibits);
}

static unsigned long long micros_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (unsigned long long)ts.tv_sec * 1000000 + (unsigned long long)ts.tv_nsec / 1000;
}

/* ---- Text ---- */

/* The text with '#' for each digit of a time stamp, and its first stamp in microseconds. */
static unsigned long long hide_stamps(char *line)
{
    unsigned long long first = 0;

    while ((line = strstr(line, "] ")) != NULL) {
        unsigned long long s, us;
        int length;

        assert_int_equal(sscanf(line + 2, "%llu.%llu%n", &s, &us, &length), 2);
        first = first != 0 ? first : s * 1000000 + us;
        for (char *at = line + 2; at < line + 2 + length; at++) {
            *at = *at == '.' ? '.' : '#';
        }
        line += length;
    }
    return first;
}

/* Makes a stamp of any uptime five digits and a dot and six: "#####.######". */
static void shorten_stamps(void)
{
    char *at;

    while ((at = strstr(text, "######.")) != NULL) {
        memmove(at, at + 1, strlen(at));
    }
}

static void lines_are_those_of_trace_cmd(void **state)
{
    unsigned long long before = micros_now();
    unsigned long long stamp;

    (void)state;
    open_trace(VMM_TRACE_AUTO);
    emit(VAPIC_EVENT_EOI, 3, 3, 65, 0);
    inhibit(8, true, 0x120);
    emit(VAPIC_EVENT_AVIC_UNACCELERATED_ACCESS, 1023, 0xB0, 3, 0x51);
    close_trace();
    stamp = hide_stamps(text);
    shorten_stamps();
    assert_string_equal(
        text, "cpus=4\n"
              "            vcpu-3     [003] #####.######: kvm_eoi:              "
              "apicid 3 vector 65\n"
              "              vm-0     [000] #####.######: kvm_apicv_inhibit_changed: "
              "set reason=8, inhibits=0x120 APIC_ID_MODIFIED|IRQWIN\n"
              "            vcpu-1023  [1023] #####.######: kvm_avic_unaccelerated_access: "
              "vcpu=1023, offset=0xb0(APIC_EOI), trap, write, vec=0x51\n");
    assert_true(stamp >= before && stamp <= micros_now());
}

static void an_empty_trace_has_its_head(void **state)
{
    (void)state;
    open_trace(VMM_TRACE_TEXT);
    close_trace();
    assert_string_equal(text, "cpus=4\n");
}

static void text_has_no_spans(void **state)
{
    (void)state;
    open_trace(VMM_TRACE_TEXT);
    assert_int_equal(vmm_trace_start(&trace), 0);
    vmm_trace_span(&trace, 0, VMM_TRACE_GUEST, 0);
    assert_int_equal(vmm_trace_start(NULL), 0);
    vmm_trace_span(NULL, 0, VMM_TRACE_GUEST, 0);
    close_trace();
    assert_string_equal(text, "cpus=4\n");
}

/* ---- JSON: what a reader relies on ---- */

static json_t *load(void)
{
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);

    if (root == NULL) {
        fail_msg("line %d: %s", error.line, error.text);
    }
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(root, "otherData"), "clock")),
        "CLOCK_MONOTONIC");
    assert_true(json_is_array(json_object_get(root, "traceEvents")));
    return root;
}

static const char *phase_of(json_t *event)
{
    return json_string_value(json_object_get(event, "ph"));
}

static const char *name_of(json_t *event)
{
    return json_string_value(json_object_get(event, "name"));
}

static double number_of(json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}

/* Fields that an event of this phase must have, each with its kind of value. */
static void check_event(json_t *event)
{
    const char *phase = phase_of(event);

    assert_true(json_is_string(json_object_get(event, "name")));
    assert_true(json_is_number(json_object_get(event, "ts")));
    assert_true(json_is_integer(json_object_get(event, "pid")));
    assert_true(json_is_integer(json_object_get(event, "tid")));
    assert_non_null(phase);
    assert_int_equal(strlen(phase), 1);
    assert_non_null(strchr("iBEXM", *phase));
    if (*phase == 'i') {
        assert_string_equal(json_string_value(json_object_get(event, "s")), "t");
        assert_true(json_is_string(json_object_get(json_object_get(event, "args"), "text")));
    }
    if (*phase == 'X') {
        assert_true(number_of(event, "dur") >= 0);
    }
    if (*phase == 'M') {
        assert_int_equal(json_object_size(json_object_get(event, "args")), 1);
    }
}

/* Instants are in order; slices of one track alternate. Returns the number of instants. */
static unsigned check_file(json_t *root)
{
    json_t *events = json_object_get(root, "traceEvents");
    bool open[VAPIC_MAX_VCPUS + 128] = {false};
    unsigned instants = 0;
    double last = 0;
    size_t n;
    json_t *event;

    json_array_foreach(events, n, event)
    {
        size_t track = (size_t)number_of(event, "tid");

        check_event(event);
        if (*phase_of(event) == 'i') {
            assert_true(number_of(event, "ts") >= last);
            last = number_of(event, "ts");
            instants++;
        } else if (strchr("BE", *phase_of(event)) != NULL) {
            assert_int_equal(open[track], *phase_of(event) == 'E');
            open[track] = !open[track];
        }
    }
    for (n = 0; n < sizeof(open) / sizeof(open[0]); n++) {
        assert_false(open[n]);
    }
    return instants;
}

/* The n-th event with this phase and name (NULL: any); NULL when there are fewer. */
static json_t *find(json_t *root, const char *phase, const char *name, unsigned nth)
{
    size_t n;
    json_t *event;

    json_array_foreach(json_object_get(root, "traceEvents"), n, event)
    {
        if (strcmp(phase_of(event), phase) == 0 &&
            (name == NULL || strcmp(name_of(event), name) == 0) && nth-- == 0) {
            return event;
        }
    }
    return NULL;
}

/* The name of the track that an event is on. */
static const char *track_of(json_t *root, json_t *event)
{
    json_t *name;

    for (unsigned n = 0; (name = find(root, "M", "thread_name", n)) != NULL; n++) {
        if (number_of(name, "tid") == number_of(event, "tid")) {
            return json_string_value(json_object_get(json_object_get(name, "args"), "name"));
        }
    }
    return NULL;
}

static void json_of_nothing_is_valid(void **state)
{
    json_t *root;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    close_trace();
    root = load();
    assert_int_equal(check_file(root), 0);
    json_decref(root);
}

static void json_instants_are_on_their_tracks(void **state)
{
    unsigned long long before = micros_now();
    json_t *root, *event, *args;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    emit(VAPIC_EVENT_EOI, 3, 3, 65, 0);
    emit(VAPIC_EVENT_SET_IRQ, VAPIC_NO_INDEX, 4, 1, 0);
    close_trace();
    root = load();
    assert_int_equal(check_file(root), 2);
    event = find(root, "i", "kvm_eoi", 0);
    assert_non_null(event);
    assert_string_equal(track_of(root, event), "vCPU 3");
    assert_true(number_of(event, "ts") >= (double)before);
    assert_true(number_of(event, "ts") <= (double)micros_now() + 1);
    args = json_object_get(event, "args");
    assert_string_equal(json_string_value(json_object_get(args, "text")), "apicid 3 vector 65");
    assert_int_equal(json_integer_value(json_object_get(args, "apicid")), 3);
    assert_int_equal(json_integer_value(json_object_get(args, "vector")), 65);
    assert_int_equal(json_object_size(args), 3);
    assert_string_equal(track_of(root, find(root, "i", "kvm_set_irq", 0)), "VM");
    json_decref(root);
}

static void json_takes_every_event(void **state)
{
    json_t *root;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    for (unsigned kind = 0; kind < VAPIC_EVENT_COUNT; kind++) {
        emit((enum vapic_event_kind)kind, 0, 1, 2, 3);
    }
    close_trace();
    root = load();
    assert_int_equal(check_file(root), VAPIC_EVENT_COUNT);
    for (unsigned kind = 0; kind < VAPIC_EVENT_COUNT; kind++) {
        json_t *event = find(root, "i", vapic_event_name(kind), 0);

        assert_non_null(event);
        assert_true(json_object_size(json_object_get(event, "args")) > 1);
    }
    json_decref(root);
}

static void json_numbers_too_large_are_strings(void **state)
{
    json_t *root, *args;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    emit(VAPIC_EVENT_TIMER, 0, 0, VAPIC_CLOCK_TSC, UINT64_MAX);
    close_trace();
    root = load();
    args = json_object_get(find(root, "i", "vapic_timer", 0), "args");
    assert_string_equal(json_string_value(json_object_get(args, "when")), "0xffffffffffffffff");
    assert_int_equal(json_integer_value(json_object_get(args, "clock")), VAPIC_CLOCK_TSC);
    json_decref(root);
}

static void json_spans(void **state)
{
    struct timespec ms = {0, 2000000};
    uint64_t start;
    json_t *root, *event;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    start = vmm_trace_start(&trace);
    assert_true(start != 0);
    nanosleep(&ms, NULL);
    vmm_trace_span(&trace, 2, VMM_TRACE_GUEST, start);
    vmm_trace_span(&trace, 1, VMM_TRACE_BLOCKED, vmm_trace_start(&trace));
    close_trace();
    root = load();
    check_file(root);
    event = find(root, "X", "guest", 0);
    assert_non_null(event);
    assert_string_equal(track_of(root, event), "vCPU 2");
    assert_true(number_of(event, "dur") >= 2000);
    assert_true(number_of(event, "ts") > (double)start / 1000 - 1);
    assert_true(number_of(event, "ts") < (double)start / 1000 + 1);
    assert_string_equal(track_of(root, find(root, "X", "blocked", 0)), "vCPU 1");
    json_decref(root);
}

/* What changes is the set; an event that says it again is no slice. */
static void json_inhibitions_are_slices(void **state)
{
    json_t *root, *event;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    inhibit(8, true, 0x100);
    inhibit(5, true, 0x120);
    inhibit(4, false, 0x120);
    inhibit(8, false, 0x20);
    inhibit(63, true, 1ull << 63 | 0x20);
    close_trace();
    root = load();
    assert_int_equal(check_file(root), 5);
    event = find(root, "B", "IRQWIN", 0);
    assert_non_null(event);
    assert_string_equal(track_of(root, event), "inhibited: IRQWIN");
    assert_true(number_of(event, "ts") == number_of(find(root, "i", NULL, 0), "ts"));
    event = find(root, "E", "IRQWIN", 0);
    assert_non_null(event);
    assert_true(number_of(event, "ts") == number_of(find(root, "i", NULL, 3), "ts"));
    assert_null(find(root, "B", "IRQWIN", 1));
    event = find(root, "E", "APIC_ID_MODIFIED", 0);
    assert_non_null(event);
    assert_true(number_of(event, "ts") >= number_of(find(root, "i", NULL, 4), "ts"));
    assert_non_null(find(root, "E", "reason 63", 0));
    assert_null(find(root, "B", NULL, 3));
    json_decref(root);
}

/* ---- Which form ---- */

static void form_by_name(void **state)
{
    static const struct {
        enum vmm_trace_form wanted;
        const char *name;
        enum vmm_trace_form form;
    } rows[] = {
        {VMM_TRACE_AUTO, "a.json", VMM_TRACE_JSON},
        {VMM_TRACE_AUTO, "/tmp/a.perfetto.json", VMM_TRACE_JSON},
        {VMM_TRACE_AUTO, "a.txt", VMM_TRACE_TEXT},
        {VMM_TRACE_AUTO, "trace", VMM_TRACE_TEXT},
        {VMM_TRACE_AUTO, "json", VMM_TRACE_TEXT},
        {VMM_TRACE_AUTO, "a.json/trace", VMM_TRACE_TEXT},
        {VMM_TRACE_TEXT, "a.json", VMM_TRACE_TEXT},
        {VMM_TRACE_JSON, "a.txt", VMM_TRACE_JSON},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        assert_int_equal(vmm_trace_form_of(rows[n].wanted, rows[n].name), rows[n].form);
    }
}

/* ---- Threads ---- */

static void *emit_many(void *arg)
{
    uint32_t vcpu = (uint32_t)(uintptr_t)arg;

    for (unsigned n = 0; n < EVENTS; n++) {
        emit(VAPIC_EVENT_EOI, vcpu, vcpu, n, 0);
    }
    return NULL;
}

static void emit_from_threads(void)
{
    pthread_t threads[THREADS];

    for (uintptr_t n = 0; n < THREADS; n++) {
        assert_int_equal(pthread_create(&threads[n], NULL, emit_many, (void *)n), 0);
    }
    for (unsigned n = 0; n < THREADS; n++) {
        pthread_join(threads[n], NULL);
    }
}

/* Every line is whole, no event is lost, each thread's are in order, and so are the stamps. */
static void text_from_threads(void **state)
{
    unsigned next[THREADS] = {0};
    unsigned long long last = 0;
    char *rest;

    (void)state;
    open_trace(VMM_TRACE_TEXT);
    emit_from_threads();
    close_trace();
    strtok_r(text, "\n", &rest);
    for (char *line = strtok_r(NULL, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        unsigned pid, cpu, id, vector;
        unsigned long long s, us;
        int length = -1;

        assert_int_equal(sscanf(line, " vcpu-%u [%u] %llu.%llu: kvm_eoi: apicid %u vector %u%n",
                                &pid, &cpu, &s, &us, &id, &vector, &length),
                         6);
        assert_int_equal(length, strlen(line));
        assert_true(pid == cpu && pid == id && pid < THREADS);
        assert_int_equal(vector, next[pid]++);
        assert_true(s * 1000000 + us >= last);
        last = s * 1000000 + us;
    }
    for (unsigned n = 0; n < THREADS; n++) {
        assert_int_equal(next[n], EVENTS);
    }
}

static void json_from_threads(void **state)
{
    json_t *root;

    (void)state;
    open_trace(VMM_TRACE_JSON);
    emit_from_threads();
    close_trace();
    root = load();
    assert_int_equal(check_file(root), THREADS * EVENTS);
    json_decref(root);
}

static void an_event_after_the_end_is_dropped(void **state)
{
    (void)state;
    open_trace(VMM_TRACE_TEXT);
    close_trace();
    for (unsigned n = 0; n < 2 * VMM_TRACE_BATCH; n++) {
        emit(VAPIC_EVENT_EOI, 0, 0, 0, 0);
    }
}

/* Whoever looks at the file while the run goes on sees what has happened. */
static void events_do_not_linger(void **state)
{
    struct timespec ms = {0, 10000000};

    (void)state;
    open_trace(VMM_TRACE_TEXT);
    emit(VAPIC_EVENT_EOI, 0, 0, 1, 0);
    for (unsigned n = 0; n < 1000; n++) {
        read_text();
        if (strstr(text, "vector 1\n") != NULL) {
            break;
        }
        nanosleep(&ms, NULL);
    }
    assert_non_null(strstr(text, "vector 1\n"));
    close_trace();
}

/* ---- Files that cannot be written ---- */

static void a_file_that_cannot_be_opened(void **state)
{
    struct vmm_trace_config config = {"/nonexistent/trace", VMM_TRACE_AUTO, 1};
    struct vmm_err err;

    (void)state;
    assert_int_equal(vmm_trace_open(&trace, &config, &err), -1);
    assert_string_equal(err.text, "--trace: cannot write /nonexistent/trace: "
                                  "No such file or directory: check the path");
}

/* Events keep coming, nobody waits for ever, and the end says it. */
static void a_full_disk(void **state)
{
    static const enum vmm_trace_form forms[] = {VMM_TRACE_TEXT, VMM_TRACE_JSON};

    (void)state;
    for (size_t n = 0; n < sizeof(forms) / sizeof(forms[0]); n++) {
        struct vmm_trace_config config = {"/dev/full", forms[n], 1};
        struct vmm_err err;

        assert_int_equal(vmm_trace_open(&trace, &config, &err), 0);
        emit_from_threads();
        assert_int_equal(vmm_trace_close(&trace, &err), -1);
        assert_string_equal(err.text, "--trace: /dev/full is incomplete: No space left on device");
    }
}

/* Returns the reading end; the pipe's name is `path`. */
static int trace_into_a_pipe(void)
{
    struct vmm_trace_config config = {path, VMM_TRACE_TEXT, 1};
    struct vmm_err err;
    int reader;

    strcpy(path, "/tmp/vapic-trace-XXXXXX");
    close(mkstemp(path));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(vmm_trace_open(&trace, &config, &err), 0);
    return reader;
}

/* A reader that goes away is an error, not the signal that would end the run. */
static void a_pipe_that_nobody_reads(void **state)
{
    struct vmm_err err;
    int reader = trace_into_a_pipe();

    (void)state;
    close(reader);
    emit_from_threads();
    assert_int_equal(vmm_trace_close(&trace, &err), -1);
    assert_non_null(strstr(err.text, "is incomplete: Broken pipe"));
    unlink(path);
}

/* The last one's thread writes on until its reader goes away. */
static void wait_for_thread(void)
{
    bool done = false;

    for (unsigned i = 0; i < 1000 && !done; i++) {
        usleep(10000);
        pthread_mutex_lock(&trace.lock);
        done = trace.done;
        pthread_mutex_unlock(&trace.lock);
    }
    assert_true(done);
    fclose(trace.out.file);
}

/* Who wants out does not wait for a reader that reads nothing; whoever has events does not. */
static void a_pipe_whose_reader_stalls(void **state)
{
    struct vmm_err err;
    int reader = trace_into_a_pipe();

    (void)state;
    vmm_trace_hurry(&trace);
    for (unsigned i = 0; i < 4 * VMM_TRACE_BATCH; i++) {
        emit(VAPIC_EVENT_EOI, 0, 0, i & 255, 0);
    }
    assert_int_equal(vmm_trace_close(&trace, &err), -1);
    assert_non_null(strstr(err.text, "is incomplete: its reader does not read"));
    close(reader);
    wait_for_thread();
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_those_of_trace_cmd),
        cmocka_unit_test(an_empty_trace_has_its_head),
        cmocka_unit_test(text_has_no_spans),
        cmocka_unit_test(json_of_nothing_is_valid),
        cmocka_unit_test(json_instants_are_on_their_tracks),
        cmocka_unit_test(json_takes_every_event),
        cmocka_unit_test(json_numbers_too_large_are_strings),
        cmocka_unit_test(json_spans),
        cmocka_unit_test(json_inhibitions_are_slices),
        cmocka_unit_test(form_by_name),
        cmocka_unit_test(text_from_threads),
        cmocka_unit_test(json_from_threads),
        cmocka_unit_test(an_event_after_the_end_is_dropped),
        cmocka_unit_test(events_do_not_linger),
        cmocka_unit_test(a_file_that_cannot_be_opened),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(a_pipe_that_nobody_reads),
        cmocka_unit_test(a_pipe_whose_reader_stalls),
    };

    return cmocka_run_group_tests_name("trace file", tests, NULL, free_text);
}
