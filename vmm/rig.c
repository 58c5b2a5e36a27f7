/* SPDX-License-Identifier: MIT */
/*
 * The rig's main loop; see rig.h. rig_host.c finds the parts, rig_pack.c builds the initramfs,
 * rig_qemu.c starts the emulator; here bytes go back and forth until the command has ended.
 *
 * The control channel speaks in lines. From the host (tools/initramfs-rig.init):
 *
 *   init RELEASE           /init runs; from here on a silent host is an error, not a bad start
 *   fail TEXT              there is no KVM in there
 *   alive                  every few seconds while the command runs
 *   sent PORT BYTES        after the command's end: how much it wrote to that port in all
 *   status N               the command's exit status, after all the `sent` lines
 *
 * and to the host: `kill TERM`, sent to the command, and `ping`, which does nothing but interrupt
 * the host. QEMU's TCG changes a processor's set of pending interrupts at VMRUN and #VMEXIT without
 * its lock; when its other thread adds one at that moment, that one is forgotten until the next
 * arrives. If it was the timer's, and the host sleeps, none does: everything stands still. So a
 * silent host is poked before it is given up. The ports are separate queues without any
 * order between them: only the counts of the `sent` lines tell when all output has arrived.
 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rig_evidence.h"
#include "rig_host.h"
#include "rig_pack.h"
#include "rig_qemu.h"
#include "sandbox.h"
#include "term.h"

#define BOOT_ATTEMPTS   2u
#define BOOT_SECONDS    90
#define SILENCE_SECONDS 90 /* VAPIC_RIG_SILENCE */
#define PING_SECONDS    15
#define NO_LIMIT        (365 * 24 * 3600) /* repeatable time gives no sign of life in real time */
#define GRACE_SECONDS   10
#define DRAIN_SECONDS   30
#define LOG_SHOWN       (6u * 1024)
#define LINE_MAX_SIZE   256u

enum state { BOOTING, RUNNING, STOPPING, DRAINING, DONE, FAILED };

struct stream {
    int to; /* where this channel's bytes go; -1: nowhere */
    uint64_t received;
    uint64_t expected; /* known when DRAINING */
};

struct rig {
    const struct vmm_rig_config *cfg;
    const sigset_t *unblocked; /* the signal mask while waiting */
    struct vmm_rig_machine machine;
    struct vmm_rig_evidence evidence;
    struct stream stream[VMM_RIG_CHANNELS_MAX];
    enum state state;
    time_t deadline; /* of the state; monotonic */
    time_t ping_at;  /* when a silent host is poked next */
    int silence;     /* seconds without a sign of life after which it is given up */
    unsigned pings;  /* since its last sign of life */
    bool frozen;     /* failed before /init ran, so another start is worth while */
    int status;
    char line[LINE_MAX_SIZE];
    size_t line_length;
    char input[4096]; /* read from standard input, not yet taken by the console channel */
    size_t input_length;
    bool input_open;
    bool escapes; /* the input is a terminal: Ctrl-A x quits */
    bool quit;
    struct vmm_escape escape;
    struct vmm_err *err;
};

static volatile sig_atomic_t stop_signals;

static void count_signal(int number)
{
    (void)number;
    stop_signals++;
}

static time_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec;
}

static void enter(struct rig *rig, enum state state, int seconds)
{
    rig->state = state;
    rig->deadline = now() + seconds;
    rig->ping_at = now() + PING_SECONDS;
    rig->pings = 0;
}

__attribute__((format(printf, 2, 3))) static void fail(struct rig *rig, const char *fmt, ...)
{
    char text[sizeof(rig->err->text) - 8];
    va_list ap;

    if (rig->state == FAILED)
        return;
    va_start(ap, fmt);
    /* clang-tidy 14 loses sight of va_start() on the way from a caller. */
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    vmm_fail(rig->err, "rig: %s", text);
    rig->state = FAILED;
}

/* The end of the log, each line marked: the last thing before the error's own line. */
static void show_log(int log)
{
    char text[LOG_SHOWN];
    off_t end = lseek(log, 0, SEEK_END);
    off_t start = end > (off_t)sizeof(text) ? end - (off_t)sizeof(text) : 0;
    ssize_t size = pread(log, text, sizeof(text), start);
    char *at = text;

    if (size <= 0)
        return;
    while (at < text + size) {
        char *newline = memchr(at, '\n', (size_t)(text + size - at));
        char *stop = newline ? newline : text + size;

        fprintf(stderr, "rig host: %.*s\n", (int)(stop - at), at);
        at = stop + 1;
    }
}

/* False when a reader that stalls has used up the patience that signals leave it. */
static bool may_wait(time_t *until)
{
    if (stop_signals == 1 && *until == 0)
        *until = now() + GRACE_SECONDS;
    return stop_signals < 2 && (*until == 0 || now() < *until);
}

/*
 * Signals are let in while the reader is waited for; a write of at most PIPE_BUF bytes to a
 * descriptor that is ready does not block.
 */
static bool write_all(const struct rig *rig, int fd, const char *data, size_t size)
{
    const struct timespec second = {.tv_sec = 1};
    time_t until = 0;

    while (size > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        ssize_t done;

        if (!may_wait(&until)) {
            errno = ETIMEDOUT;
            return false;
        }
        if (ppoll(&ready, 1, &second, rig->unblocked) <= 0)
            continue;
        done = write(fd, data, size < PIPE_BUF ? size : PIPE_BUF);
        if (done < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (done <= 0)
            return false;
        data += done;
        size -= (size_t)done;
    }
    return true;
}

/* For tests, and for machines that are slow beyond measure. */
static int wanted_silence(void)
{
    const char *text = getenv("VAPIC_RIG_SILENCE");
    long seconds = text != NULL ? strtol(text, NULL, 10) : 0;

    return seconds > 0 && seconds < NO_LIMIT ? (int)seconds : SILENCE_SECONDS;
}

static int silence_seconds(const struct rig *rig)
{
    return rig->cfg->icount ? NO_LIMIT : rig->silence;
}

static void on_init(struct rig *rig, const char *rest)
{
    struct vmm_err err;

    (void)rest;
    if (rig->state != BOOTING)
        return;
    vmm_rig_evidence_open(&rig->evidence, rig->machine.pid);
    /* From here on the emulator is not started again, and all files are open. */
    if (rig->cfg->sandbox && vmm_sandbox_enter(VMM_SANDBOX_RIG, rig->machine.pid, &err) != 0) {
        fail(rig, "%s", err.text);
        return;
    }
    enter(rig, RUNNING, silence_seconds(rig));
}

static void on_fail(struct rig *rig, const char *rest)
{
    fail(rig, "the host kernel offers no usable KVM: %.120s", rest);
}

static void on_alive(struct rig *rig, const char *rest)
{
    (void)rest;
    if (rig->state != RUNNING)
        return;
    if (rig->pings > 0)
        dprintf(rig->machine.log, "rig: a sign of life after %u pokes\n", rig->pings);
    enter(rig, RUNNING, silence_seconds(rig));
}

static void on_sent(struct rig *rig, const char *rest)
{
    unsigned port;
    unsigned long long bytes;

    if (sscanf(rest, "%u %llu", &port, &bytes) == 2 && port >= 1 && port <= rig->machine.channels)
        rig->stream[port - 1].expected = bytes;
}

static void on_status(struct rig *rig, const char *rest)
{
    unsigned status;

    if (sscanf(rest, "%u", &status) != 1 || status > 255) {
        fail(rig, "the host reported no exit status but '%.80s'", rest);
        return;
    }
    rig->status = (int)status;
    enter(rig, DRAINING, DRAIN_SECONDS);
}

static void take_line(struct rig *rig, char *line)
{
    static const struct {
        const char *verb;
        void (*act)(struct rig *rig, const char *rest);
    } verbs[] = {
        {"init", on_init}, {"fail", on_fail},     {"alive", on_alive},
        {"sent", on_sent}, {"status", on_status},
    };
    char *rest = line + strcspn(line, " ");

    if (*rest)
        *rest++ = '\0';
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (!strcmp(line, verbs[i].verb))
            verbs[i].act(rig, rest);
    }
}

static void take_control(struct rig *rig, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] != '\n') {
            if (rig->line_length < sizeof(rig->line) - 1)
                rig->line[rig->line_length++] = data[i];
            continue;
        }
        rig->line[rig->line_length] = '\0';
        rig->line_length = 0;
        take_line(rig, rig->line);
    }
}

static void lost_emulator(struct rig *rig)
{
    rig->frozen = rig->state == BOOTING;
    fail(rig, "the emulator ended before %s; the lines above are its last",
         rig->frozen ? "the host was up" : "the command did");
}

static void take_bytes(struct rig *rig, unsigned index, const char *data, size_t size)
{
    struct stream *stream = &rig->stream[index];

    stream->received += size;
    if (index == VMM_RIG_PORT_CONTROL - 1) {
        take_control(rig, data, size);
        return;
    }
    if (stream->to >= 0 && !write_all(rig, stream->to, data, size))
        fail(rig, "cannot pass on the command's output: %s", strerror(errno));
}

/* Reads what is there, at most a few blocks, so that no channel starves another. */
static void receive(struct rig *rig, unsigned index)
{
    char data[65536];
    ssize_t size = read(rig->machine.channel[index], data, sizeof(data));

    if (size > 0)
        take_bytes(rig, index, data, (size_t)size);
    else if (size == 0 || (errno != EAGAIN && errno != EINTR))
        lost_emulator(rig);
}

static void send_input(struct rig *rig)
{
    int console = rig->machine.channel[VMM_RIG_PORT_CONSOLE - 1];
    ssize_t done = write(console, rig->input, rig->input_length);

    if (done <= 0)
        return;
    rig->input_length -= (size_t)done;
    memmove(rig->input, rig->input + done, rig->input_length);
}

static void stop_command(struct rig *rig)
{
    static const char order[] = "kill TERM\n";

    write_all(rig, rig->machine.channel[VMM_RIG_PORT_CONTROL - 1], order, strlen(order));
    enter(rig, STOPPING, GRACE_SECONDS);
}

static void take_input(struct rig *rig, size_t size)
{
    rig->input_length = size;
    if (!rig->escapes)
        return;
    rig->input_length = vmm_escape_filter(&rig->escape, (uint8_t *)rig->input, size, &rig->quit);
    if (rig->quit)
        stop_command(rig);
}

static void read_input(struct rig *rig)
{
    ssize_t size = read(STDIN_FILENO, rig->input, sizeof(rig->input));

    if (size > 0)
        take_input(rig, (size_t)size);
    else if (size == 0 || (errno != EAGAIN && errno != EINTR))
        rig->input_open = false;
}

static bool drained(const struct rig *rig)
{
    for (unsigned i = 0; i < rig->machine.channels; i++) {
        if (rig->stream[i].received < rig->stream[i].expected)
            return false;
    }
    return true;
}

static void check_signals(struct rig *rig)
{
    if (stop_signals == 0 || rig->state >= DRAINING)
        return;
    if (rig->state == BOOTING || stop_signals > 1) {
        fail(rig, "stopped by a signal");
        return;
    }
    if (rig->state == RUNNING)
        stop_command(rig);
}

/* Not with repeatable time, which an interrupt from outside would end. */
static void poke(struct rig *rig)
{
    static const char order[] = "ping\n";

    if (rig->state != RUNNING || rig->cfg->icount || now() < rig->ping_at)
        return;
    rig->ping_at = now() + PING_SECONDS;
    rig->pings++;
    write_all(rig, rig->machine.channel[VMM_RIG_PORT_CONTROL - 1], order, strlen(order));
}

static void check_deadline(struct rig *rig)
{
    poke(rig);
    if (now() < rig->deadline)
        return;
    switch (rig->state) {
    case BOOTING:
        rig->frozen = true;
        fail(rig, "the host kernel did not reach /init in %d s", BOOT_SECONDS);
        break;
    case RUNNING:
        fail(rig, "the emulator froze: no sign of life for %d s, after %u pokes", rig->silence,
             rig->pings);
        /* The verdict first, whatever comes of the rest. */
        fprintf(stderr, "%s\n", rig->err->text);
        vmm_rig_evidence_show(&rig->evidence, rig->machine.monitor);
        break;
    case STOPPING:
        fail(rig, "stopped by a signal; the command did not end within %d s", GRACE_SECONDS);
        break;
    default:
        fail(rig, "the command ended with status %d, but some of its output is lost", rig->status);
        break;
    }
}

/* One round: wait for a channel, for input, for a signal, or for a second. */
static void step(struct rig *rig)
{
    struct pollfd fds[VMM_RIG_CHANNELS_MAX + 1] = {0};
    unsigned channels = rig->machine.channels;
    const struct timespec second = {.tv_sec = 1};
    bool want_input = rig->input_open && rig->input_length == 0 && rig->state == RUNNING;

    for (unsigned i = 0; i < channels; i++)
        fds[i] = (struct pollfd){.fd = rig->machine.channel[i], .events = POLLIN};
    if (rig->input_length > 0)
        fds[VMM_RIG_PORT_CONSOLE - 1].events |= POLLOUT;
    fds[channels] = (struct pollfd){.fd = want_input ? STDIN_FILENO : -1, .events = POLLIN};

    if (ppoll(fds, channels + 1, &second, rig->unblocked) > 0) {
        for (unsigned i = 0; i < channels && rig->state != FAILED; i++) {
            if (fds[i].revents & ~POLLOUT)
                receive(rig, i);
        }
        if (fds[VMM_RIG_PORT_CONSOLE - 1].revents & POLLOUT)
            send_input(rig);
        if (fds[channels].revents)
            read_input(rig);
    }
    check_signals(rig);
    if (rig->state == DRAINING && drained(rig))
        rig->state = DONE;
    else if (rig->state != FAILED)
        check_deadline(rig);
}

/* One start of the host, to the end of the command. */
static void run_once(struct rig *rig, const struct vmm_rig_boot *boot)
{
    rig->frozen = false;
    rig->line_length = 0;
    enter(rig, BOOTING, BOOT_SECONDS);
    if (vmm_rig_qemu_start(&rig->machine, boot, rig->err)) {
        rig->state = FAILED;
        return;
    }
    while (rig->state != DONE && rig->state != FAILED)
        step(rig);
    if (rig->state == FAILED && stop_signals == 0)
        show_log(rig->machine.log);
    vmm_rig_evidence_close(&rig->evidence);
    vmm_rig_qemu_stop(&rig->machine);
}

static int run_attempts(struct rig *rig, const struct vmm_rig_boot *boot)
{
    for (unsigned attempt = 1; attempt <= BOOT_ATTEMPTS; attempt++) {
        run_once(rig, boot);
        if (rig->state == DONE)
            return 0;
        if (!rig->frozen || stop_signals > 0)
            return -1;
        if (attempt < BOOT_ATTEMPTS)
            fprintf(stderr, "%s; starting it once more\n", rig->err->text);
    }
    return -1;
}

static int open_outputs(struct rig *rig)
{
    const struct vmm_rig_config *cfg = rig->cfg;
    unsigned index = VMM_RIG_PORT_OUTPUT - 1;

    for (size_t i = 0; i < cfg->nargs; i++) {
        int fd;

        if (cfg->args[i].kind != VMM_RIG_OUT)
            continue;
        if (index == VMM_RIG_CHANNELS_MAX)
            return vmm_fail(rig->err, "rig: more than %u output files", VMM_RIG_OUTPUTS_MAX);
        fd = open(cfg->args[i].text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0)
            return vmm_fail(rig->err, "cannot write '%.200s': %s", cfg->args[i].text,
                            strerror(errno));
        rig->stream[index++].to = fd;
    }
    return 0;
}

static void close_outputs(struct rig *rig)
{
    for (unsigned i = VMM_RIG_PORT_OUTPUT - 1; i < VMM_RIG_CHANNELS_MAX; i++) {
        if (rig->stream[i].to >= 0)
            close(rig->stream[i].to);
    }
}

static int boot_and_run(struct rig *rig)
{
    struct vmm_rig_host host;
    struct vmm_rig_boot boot = {.cfg = rig->cfg, .host = &host};
    int result;

    if (vmm_rig_host_find(&host, rig->cfg, rig->err))
        return -1;
    boot.initramfs = vmm_rig_pack(rig->cfg, &host, &boot.initramfs_size, rig->err);
    if (boot.initramfs < 0)
        return -1;
    result = open_outputs(rig);
    if (result == 0)
        result = run_attempts(rig, &boot);
    close_outputs(rig);
    close(boot.initramfs);
    return result;
}

/* The signals stay blocked but for the time in ppoll(), so none is missed between. */
static const int stop_signal[] = {SIGINT, SIGTERM, SIGHUP};
#define STOP_SIGNALS (sizeof(stop_signal) / sizeof(stop_signal[0]))

struct signals_before {
    struct sigaction stop[STOP_SIGNALS];
    struct sigaction pipe;
    sigset_t mask;
};

static void take_signals(struct signals_before *before)
{
    struct sigaction count = {.sa_handler = count_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t block;

    stop_signals = 0;
    sigemptyset(&block);
    for (size_t i = 0; i < STOP_SIGNALS; i++) {
        sigaddset(&block, stop_signal[i]);
        sigaction(stop_signal[i], &count, &before->stop[i]);
        /* Who started us may want it ignored (nohup, a job in the background of a script). */
        if (before->stop[i].sa_handler == SIG_IGN)
            sigaction(stop_signal[i], &ignore, NULL);
    }
    sigaction(SIGPIPE, &ignore, &before->pipe);
    sigprocmask(SIG_BLOCK, &block, &before->mask);
}

static void give_back_signals(const struct signals_before *before)
{
    for (size_t i = 0; i < STOP_SIGNALS; i++)
        sigaction(stop_signal[i], &before->stop[i], NULL);
    sigaction(SIGPIPE, &before->pipe, NULL);
    sigprocmask(SIG_SETMASK, &before->mask, NULL);
}

int vmm_rig_run(const struct vmm_rig_config *cfg, int *status, struct vmm_err *err)
{
    struct rig rig = {.cfg = cfg, .err = err, .input_open = true, .silence = wanted_silence()};
    struct signals_before signals;
    int result;

    for (unsigned i = 0; i < VMM_RIG_CHANNELS_MAX; i++)
        rig.stream[i].to = -1;
    rig.stream[VMM_RIG_PORT_CONSOLE - 1].to = STDOUT_FILENO;
    rig.stream[VMM_RIG_PORT_STDERR - 1].to = STDERR_FILENO;
    take_signals(&signals);
    rig.unblocked = &signals.mask;
    rig.escapes = vmm_term_enter(STDIN_FILENO);
    result = boot_and_run(&rig);
    if (rig.escapes)
        vmm_term_leave();
    give_back_signals(&signals);
    *status = rig.quit ? 1 : rig.status;
    return result;
}
