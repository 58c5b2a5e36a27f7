/* SPDX-License-Identifier: MIT */
/* The rig's emulator process; see rig_qemu.h. */
#include "rig_qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX     96u
#define ARG_TEXT_MAX (PATH_MAX + 64u)

/*
 * One processor: several that run nested guests lose interrupts of the host and now and then fault
 * (the emulator changes a processor's pending interrupts at VMRUN without its lock).
 */
#define DEFAULT_CPUS 1u

#define MIB          (1024ull * 1024)

/*
 * nokaslr, mitigations=off and tsc=reliable: less to emulate. panic=-1 with -no-reboot: a panic
 * ends the emulator. print-fatal-signals: a command that dies of a signal leaves a line in the log.
 */
#define HOST_COMMAND_LINE                                                                          \
    "console=ttyS0 loglevel=7 panic=-1 oops=panic nokaslr mitigations=off tsc=reliable "           \
    "audit=0 cryptomgr.notests random.trust_cpu=on print-fatal-signals=1"

struct args {
    char *word[ARGS_MAX + 1];
    unsigned count;
    bool failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct args *args, const char *fmt, ...)
{
    va_list ap;
    char *word = NULL;
    int length;

    va_start(ap, fmt);
    length = vasprintf(&word, fmt, ap);
    va_end(ap);
    if (length < 0 || args->count == ARGS_MAX) {
        args->failed = true;
        if (length >= 0)
            free(word);
        return;
    }
    args->word[args->count++] = word;
}

/* Adds the words of a text, which one blank separates. */
static void add_words(struct args *args, const char *text)
{
    while (*text) {
        int length = (int)strcspn(text, " ");

        add(args, "%.*s", length, text);
        text += length;
        text += *text == ' ';
    }
}

static void free_args(struct args *args)
{
    for (unsigned i = 0; i < args->count; i++)
        free(args->word[i]);
}

/* The guest's memory, twice the initramfs (packed and unpacked), the host's own needs. */
static uint64_t memory_mib(const struct vmm_rig_boot *boot)
{
    uint64_t guest = boot->cfg->guest_mem;

    return (guest + guest / 64 + 2 * boot->initramfs_size) / MIB + 320;
}

/*
 * Without XSAVE: TCG's SVM does not intercept XSETBV, so KVM never learns the guest's XCR0 and runs
 * it with another one. And so without AVX, which needs it: kernels of 2026 use it as soon as CPUID
 * shows it.
 *
 * With icount an interrupt that KVM's own irqchip injects may come twice: VMRUN leaves its vector
 * behind as an exception still to be raised, and a timer of the emulator's that is due before the
 * next VMEXIT raises it (docs/interchange.md). After one of libvapic's KVM makes it exit first.
 */
static void add_processor(struct args *args, const struct vmm_rig_config *cfg)
{
    add_words(args, "-cpu max,-xsave,-avx,-avx2");
    if (cfg->icount) {
        add_words(args, "-accel tcg,thread=single -smp 1 -icount shift=0,sleep=off -seed 1");
        add_words(args, "-rtc base=2026-01-01T00:00:00,clock=vm");
        return;
    }
    add_words(args, "-accel tcg,thread=multi -smp");
    add(args, "%u", cfg->cpus ? cfg->cpus : DEFAULT_CPUS);
}

static void add_channels(struct args *args, const int *fds, unsigned channels)
{
    add_words(args, "-device virtio-serial-pci");
    for (unsigned i = 0; i < channels; i++) {
        add(args, "-chardev");
        add(args, "socket,id=c%u,fd=%d", i, fds[i]);
        add(args, "-device");
        add(args, "virtserialport,nr=%u,chardev=c%u,name=vapic.%u", i + 1, i, i + 1);
    }
}

static void build_args(struct args *args, const struct vmm_rig_boot *boot, const int *fds,
                       unsigned channels, int monitor, int log)
{
    add(args, "%s", boot->host->qemu);
    add_words(args, "-nodefaults -no-user-config -no-reboot -display none -machine pc,hpet=off");
    add_processor(args, boot->cfg);
    add(args, "-m");
    add(args, "%lluM", (unsigned long long)memory_mib(boot));
    add(args, "-kernel");
    add(args, "%s", boot->host->kernel);
    add(args, "-initrd");
    add(args, "/proc/self/fd/%d", boot->initramfs);
    add(args, "-append");
    add(args, "%s", HOST_COMMAND_LINE);
    add_words(args, "-serial chardev:log -chardev");
    add(args, "file,id=log,append=on,path=/proc/self/fd/%d", log);
    add_words(args, "-mon chardev=mon,mode=control -chardev");
    add(args, "socket,id=mon,fd=%d", monitor);
    add_channels(args, fds, channels);
}

/*
 * In the child. A session of its own keeps the terminal's Ctrl-C away from the emulator; the
 * parent may have died before prctl() could arrange for us to follow it.
 */
static void execute(struct args *args, int log, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);

    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || null < 0)
        _exit(127);
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(args->word[0], args->word);
    dprintf(log, "cannot execute '%s': %s\n", args->word[0], strerror(errno));
    _exit(127);
}

static int spawn(struct vmm_rig_machine *machine, const struct vmm_rig_boot *boot, const int *fds,
                 int monitor, struct vmm_err *err)
{
    struct args args = {0};
    pid_t parent = getpid();
    sigset_t none;

    build_args(&args, boot, fds, machine->channels, monitor, machine->log);
    if (args.failed) {
        free_args(&args);
        return vmm_fail(err, "rig: cannot build the emulator's command line: out of memory");
    }
    machine->pid = fork();
    if (machine->pid == 0) {
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        execute(&args, machine->log, parent);
    }
    free_args(&args);
    if (machine->pid < 0)
        return vmm_fail(err, "rig: cannot start a process: %s", strerror(errno));
    return 0;
}

/* The emulator's ends are inherited; ours are not, so that each side sees the other's end. */
static int open_channel(int *ours, int *theirs, struct vmm_err *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return vmm_fail(err, "rig: cannot create a channel: %s", strerror(errno));
    *ours = pair[0];
    *theirs = pair[1];
    fcntl(*theirs, F_SETFD, 0);
    return 0;
}

static int open_channels(struct vmm_rig_machine *machine, int *fds, int *monitor,
                         struct vmm_err *err)
{
    int result = open_channel(&machine->monitor, monitor, err);

    for (unsigned i = 0; i < machine->channels && result == 0; i++)
        result = open_channel(&machine->channel[i], &fds[i], err);
    return result;
}

static int open_log(struct vmm_err *err)
{
    const char *path = getenv("VAPIC_RIG_LOG");
    int fd;

    if (!path || !*path) {
        fd = memfd_create("vapic-rig-log", 0);
        if (fd >= 0)
            fcntl(fd, F_SETFL, O_APPEND);
        path = "(memory)";
    } else {
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0644);
    }
    if (fd < 0)
        return vmm_fail(err, "rig: cannot open the log '%.200s': %s", path, strerror(errno));
    return fd;
}

static void close_all(int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

int vmm_rig_qemu_start(struct vmm_rig_machine *machine, const struct vmm_rig_boot *boot,
                       struct vmm_err *err)
{
    int fds[VMM_RIG_CHANNELS_MAX];
    int monitor = -1;
    int result;

    *machine = (struct vmm_rig_machine){
        .pid = -1, .channels = VMM_RIG_PORT_CONTROL, .monitor = -1, .log = -1};
    for (size_t i = 0; i < boot->cfg->nargs; i++)
        machine->channels += boot->cfg->args[i].kind == VMM_RIG_OUT;
    if (machine->channels > VMM_RIG_CHANNELS_MAX)
        return vmm_fail(err, "rig: more than %u output files", VMM_RIG_OUTPUTS_MAX);
    for (unsigned i = 0; i < VMM_RIG_CHANNELS_MAX; i++)
        machine->channel[i] = fds[i] = -1;

    machine->log = open_log(err);
    result = machine->log < 0 ? -1 : open_channels(machine, fds, &monitor, err);
    if (result == 0)
        result = spawn(machine, boot, fds, monitor, err);
    close_all(fds, machine->channels);
    close_all(&monitor, 1);
    if (result)
        vmm_rig_qemu_stop(machine);
    return result;
}

int vmm_rig_qemu_stop(struct vmm_rig_machine *machine)
{
    int status = 0;

    if (machine->pid > 0) {
        kill(machine->pid, SIGKILL);
        while (waitpid(machine->pid, &status, 0) < 0 && errno == EINTR)
            ;
        machine->pid = -1;
    }
    close_all(machine->channel, machine->channels);
    close_all(&machine->monitor, 1);
    close_all(&machine->log, 1);
    return status;
}
