/* SPDX-License-Identifier: MIT */
/*
 * The sandbox of `vapic run`: what it forbids ends the process, with a line that says so, and what
 * it allows works. Each case is a child of its own, for the filter is for good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rig_evidence.h"
#include "sandbox.h"
#include "term.h"
#include "trace.h"

#define FINE 7

/* ---- What is there before. False: it cannot be had ---- */

static int own_pipe[2];

static bool open_pipe(void)
{
    return pipe(own_pipe) == 0;
}

static pid_t parent;
static pid_t emulator; /* the process that the rig may end */

/* It ends with its parent, whose end of the pipe is the only one. */
static bool start_child(void)
{
    char byte;

    if (!open_pipe())
        return false;
    emulator = fork();
    if (emulator == 0) {
        close(own_pipe[1]);
        _exit((int)read(own_pipe[0], &byte, 1));
    }
    return emulator > 0;
}

/* ---- What is tried inside. Returns FINE, or what was wrong ---- */

static int try_open(void)
{
    return open("/dev/null", O_RDONLY) >= 0 ? 1 : 2;
}

static int try_create(void)
{
    return open("/tmp/vapic-sandbox-test", O_WRONLY | O_CREAT, 0600) >= 0 ? 1 : 2;
}

static int try_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 1 : 2;
}

static int try_execute(void)
{
    execl("/bin/true", "true", (char *)NULL);
    return 2;
}

static int try_fork(void)
{
    return (int)syscall(SYS_fork) == 0 ? 1 : 2;
}

static int try_clone(unsigned long flags)
{
    return (int)syscall(SYS_clone, flags, 0, 0, 0, 0) == 0 ? 1 : 2;
}

static int try_clone_process(void)
{
    return try_clone(SIGCHLD);
}

static int try_clone_user_namespace(void)
{
    return try_clone(CLONE_NEWUSER | SIGCHLD);
}

/* A process of its own that shares the memory, as vfork() makes it. */
static int try_clone_with_memory(void)
{
    return try_clone(CLONE_VM | CLONE_VFORK | SIGCHLD);
}

static int try_thread_in_namespace(void)
{
    return try_clone(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWNET);
}

static int try_limit_of_parent(void)
{
    struct rlimit now;

    return (int)syscall(SYS_prlimit64, parent, RLIMIT_CPU, NULL, &now) == 0 ? 1 : 2;
}

static int try_own_limit(void)
{
    struct rlimit limit = {1000, 1000};

    return setrlimit(RLIMIT_CPU, &limit) == 0 ? 1 : 2;
}

static int try_own_descriptor_for_parent(void)
{
    return fcntl(STDERR_FILENO, F_SETOWN, parent) == 0 ? 1 : 2;
}

static int try_kill_parent(void)
{
    return kill(parent, SIGKILL) == 0 ? 1 : 2;
}

static int try_ptrace(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 1 : 2;
}

static int try_executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED
               ? 1
               : 2;
}

static int try_make_executable(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0 ? 1 : 2;
}

static int try_type_into_terminal(void)
{
    return ioctl(own_pipe[0], TIOCSTI, "x") == 0 ? 1 : 2;
}

/* A request of KVM that vmm/ never makes. */
static int try_other_kvm_request(void)
{
    return ioctl(own_pipe[0], KVM_CREATE_DEVICE, NULL) == 0 ? 1 : 2;
}

static int try_signal_parent(void)
{
    return (int)syscall(SYS_tgkill, parent, parent, 0) == 0 ? 1 : 2;
}

static void *nothing(void *arg)
{
    return arg;
}

static int use_threads(void)
{
    pthread_t thread;

    for (int i = 0; i < 3; i++)
        if (pthread_create(&thread, NULL, nothing, NULL) != 0 || pthread_join(thread, NULL) != 0)
            return 1;
    return FINE;
}

static int use_memory(void)
{
    char *small[100];
    char *large = malloc(64 << 20);

    if (large == NULL)
        return 1;
    memset(large, 1, 64 << 20);
    for (int i = 0; i < 100; i++)
        small[i] = malloc((size_t)i * 100 + 1);
    for (int i = 0; i < 100; i++)
        free(small[i]);
    free(large);
    return FINE;
}

static int use_time_and_output(void)
{
    struct timespec now, pause = {0, 1000};

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0 || nanosleep(&pause, NULL) != 0)
        return 1;
    printf("# %ld\n", (long)now.tv_sec);
    return fflush(stdout) == 0 ? FINE : 2;
}

/* The request is let through: a pipe does not know it. */
static int use_kvm_requests(void)
{
    return ioctl(own_pipe[0], KVM_RUN, 0) < 0 && (errno == ENOTTY || errno == EINVAL) ? FINE : 1;
}

/* The C library then makes the thread by clone(). */
static int use_clone3(void)
{
    return syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS ? FINE : 1;
}

static int use_limits_and_flags(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_STACK, &limit) != 0)
        return 1;
    return fcntl(STDERR_FILENO, F_GETFL) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0 ? FINE : 2;
}

static int use_child(void)
{
    int status = 0;

    if (kill(emulator, SIGKILL) != 0 || waitpid(emulator, &status, 0) != emulator)
        return 1;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? FINE : 2;
}

/* ---- Terminals, traces, evidence: what vmm/ does late ---- */

static int terminal;

/* The child's own, in whose foreground it is. */
static bool open_terminal(void)
{
    int controller;

    return openpty(&controller, &terminal, NULL, NULL, NULL) == 0 && setsid() >= 0 &&
           ioctl(terminal, TIOCSCTTY, 0) == 0;
}

static int use_terminal(void)
{
    for (int i = 0; i < 2; i++) {
        if (!vmm_term_enter(terminal))
            return 1;
        vmm_term_leave();
    }
    return FINE;
}

static struct vmm_trace trace;

static bool open_stalled_trace(void)
{
    char path[] = "/tmp/vapic-sandbox-XXXXXX";
    struct vmm_trace_config config = {path, VMM_TRACE_TEXT, 1};
    struct vmm_err err;
    bool opened;

    close(mkstemp(path));
    unlink(path);
    opened = mkfifo(path, 0600) == 0 && open(path, O_RDONLY | O_NONBLOCK) >= 0 &&
             vmm_trace_open(&trace, &config, &err) == 0;
    unlink(path);
    return opened;
}

static int use_stalled_trace(void)
{
    const struct vapic_event event = {.kind = VAPIC_EVENT_EOI};
    struct vmm_err err;

    vmm_trace_hurry(&trace);
    for (unsigned i = 0; i < 4 * VMM_TRACE_BATCH; i++)
        vmm_trace_event(&trace, &event);
    return vmm_trace_close(&trace, &err) == -1 && strstr(err.text, "does not read") ? FINE : 1;
}

static struct vmm_rig_evidence evidence;
static int monitor[2];

/* A monitor that has answered everything already. */
static bool open_evidence(void)
{
    static const char answer[] = "{\"return\": \"an answer\"}\n";

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, monitor) != 0)
        return false;
    for (int i = 0; i < 16; i++)
        if (write(monitor[1], answer, strlen(answer)) < 0)
            return false;
    vmm_rig_evidence_open(&evidence, getpid());
    return evidence.threads == 1;
}

static int use_evidence(void)
{
    vmm_rig_evidence_show(&evidence, monitor[0]);
    vmm_rig_evidence_close(&evidence);
    return FINE;
}

static const struct row {
    const char *name;
    int (*act)(void);
    enum vmm_sandbox kind;
    long forbidden; /* the call that ends it; -1: it is fine */
    bool (*before)(void);
} rows[] = {
    {"open", try_open, VMM_SANDBOX_KVM, SYS_openat, NULL},
    {"create a file", try_create, VMM_SANDBOX_KVM, SYS_openat, NULL},
    {"socket", try_socket, VMM_SANDBOX_KVM, SYS_socket, NULL},
    {"execute", try_execute, VMM_SANDBOX_KVM, SYS_execve, NULL},
    {"fork", try_fork, VMM_SANDBOX_KVM, SYS_fork, NULL},
    {"a process by clone()", try_clone_process, VMM_SANDBOX_KVM, SYS_clone, NULL},
    {"a user namespace", try_clone_user_namespace, VMM_SANDBOX_KVM, SYS_clone, NULL},
    {"a process in this memory", try_clone_with_memory, VMM_SANDBOX_KVM, SYS_clone, NULL},
    {"a thread in a namespace", try_thread_in_namespace, VMM_SANDBOX_KVM, SYS_clone, NULL},
    {"a limit of the parent", try_limit_of_parent, VMM_SANDBOX_KVM, SYS_prlimit64, NULL},
    {"an own limit", try_own_limit, VMM_SANDBOX_KVM, SYS_prlimit64, NULL},
    {"signals by a descriptor", try_own_descriptor_for_parent, VMM_SANDBOX_KVM, SYS_fcntl, NULL},
    {"ptrace", try_ptrace, VMM_SANDBOX_KVM, SYS_ptrace, NULL},
    {"executable memory", try_executable_memory, VMM_SANDBOX_KVM, SYS_mmap, NULL},
    {"make memory executable", try_make_executable, VMM_SANDBOX_KVM, SYS_mprotect, NULL},
    {"type into the terminal", try_type_into_terminal, VMM_SANDBOX_KVM, SYS_ioctl, open_pipe},
    {"another request of KVM", try_other_kvm_request, VMM_SANDBOX_KVM, SYS_ioctl, open_pipe},
    {"signal another process", try_signal_parent, VMM_SANDBOX_KVM, SYS_tgkill, NULL},
    {"threads", use_threads, VMM_SANDBOX_KVM, -1, NULL},
    {"clone3", use_clone3, VMM_SANDBOX_KVM, -1, NULL},
    {"limits and flags", use_limits_and_flags, VMM_SANDBOX_KVM, -1, NULL},
    {"memory", use_memory, VMM_SANDBOX_KVM, -1, NULL},
    {"time and output", use_time_and_output, VMM_SANDBOX_KVM, -1, NULL},
    {"requests of KVM", use_kvm_requests, VMM_SANDBOX_KVM, -1, open_pipe},
    {"terminal", use_terminal, VMM_SANDBOX_KVM, -1, open_terminal},
    {"trace that stalls", use_stalled_trace, VMM_SANDBOX_KVM, -1, open_stalled_trace},
    {"rig: terminal", use_terminal, VMM_SANDBOX_RIG, -1, open_terminal},
    {"rig: evidence", use_evidence, VMM_SANDBOX_RIG, -1, open_evidence},
    {"rig: open", try_open, VMM_SANDBOX_RIG, SYS_openat, NULL},
    {"rig: execute", try_execute, VMM_SANDBOX_RIG, SYS_execve, NULL},
    {"rig: a request of KVM", use_kvm_requests, VMM_SANDBOX_RIG, SYS_ioctl, open_pipe},
    {"rig: kill the parent", try_kill_parent, VMM_SANDBOX_RIG, SYS_kill, start_child},
    {"rig: end the emulator", use_child, VMM_SANDBOX_RIG, -1, start_child},
    {"rig: time and output", use_time_and_output, VMM_SANDBOX_RIG, -1, NULL},
};

/* ---- One child each ---- */

/* How a child ends that does this. Built with a sanitizer there is no sandbox, nor this test. */
static int status_of(void (*act)(const void *arg), const void *arg)
{
    int status = 0;
    pid_t pid;

    assert_true(vmm_sandbox_possible());
    fflush(stdout);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        act(arg);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int err_pipe[2];

static void do_row(const void *arg)
{
    const struct row *row = arg;
    struct vmm_err err = {.text = ""};

    dup2(err_pipe[1], STDERR_FILENO);
    if (row->before != NULL && !row->before())
        _exit(5);
    if (vmm_sandbox_no_new_privs(&err) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        _exit(3);
    if (vmm_sandbox_enter(row->kind, emulator, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(4);
    }
    _exit(row->act());
}

static void check_row(const struct row *row)
{
    char text[512] = "", expected[64];
    ssize_t size;
    int status;

    assert_int_equal(pipe(err_pipe), 0);
    parent = getpid();
    status = status_of(do_row, row);
    close(err_pipe[1]);
    size = read(err_pipe[0], text, sizeof(text) - 1);
    close(err_pipe[0]);
    if (row->forbidden < 0) {
        if (!WIFEXITED(status) || WEXITSTATUS(status) != FINE)
            fail_msg("%s: status %#x: %s", row->name, (unsigned)status, text);
        return;
    }
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
        fail_msg("%s: survived, status %#x", row->name, (unsigned)status);
    snprintf(expected, sizeof(expected), "vapic run: system call %ld is forbidden", row->forbidden);
    if (size <= 0 || strncmp(text, expected, strlen(expected)) != 0)
        fail_msg("%s: says '%s'", row->name, text);
}

static void every_row(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check_row(&rows[i]);
}

/* ---- A terminal when it strikes ---- */

static void lead_a_terminal(const void *arg)
{
    struct termios before, after;
    struct vmm_err err;
    int status = 0;
    pid_t pid;

    (void)arg;
    if (!open_terminal() || tcgetattr(terminal, &before) != 0)
        _exit(1);
    pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        if (!vmm_term_enter(terminal) || vmm_sandbox_enter(VMM_SANDBOX_KVM, 0, &err) != 0)
            _exit(2);
        _exit(try_open());
    }
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
        _exit(3);
    if (tcgetattr(terminal, &after) != 0 || after.c_lflag != before.c_lflag)
        _exit(4);
    _exit(FINE);
}

static void the_terminal_comes_back(void **state)
{
    int status = status_of(lead_a_terminal, NULL);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), FINE);
}

/* ---- Threads that were there before ---- */

static volatile int go;

static void *open_later(void *arg)
{
    (void)arg;
    while (!go)
        sched_yield();
    _exit(try_open());
}

static void start_thread_first(const void *arg)
{
    struct vmm_err err;
    pthread_t thread;

    (void)arg;
    close(STDERR_FILENO);
    if (pthread_create(&thread, NULL, open_later, NULL) != 0 ||
        vmm_sandbox_enter(VMM_SANDBOX_KVM, 0, &err) != 0)
        _exit(3);
    go = 1;
    pthread_join(thread, NULL);
    _exit(FINE);
}

static void threads_from_before(void **state)
{
    int status = status_of(start_thread_first, NULL);

    (void)state;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row),
        cmocka_unit_test(the_terminal_comes_back),
        cmocka_unit_test(threads_from_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
