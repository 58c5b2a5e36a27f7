/* SPDX-License-Identifier: MIT */
/*
 * kvm-log: runs a command and records every KVM ioctl it makes except KVM_RUN, which a seccomp
 * filter lets pass at full speed. Linked statically, so that it runs in the rig as it is.
 *
 *   kvm-log LOG COMMAND...
 *
 * LOG receives one line per kind of call, `NAME COUNT`, where KVM_ENABLE_CAP also tells which
 * capability. The exit status is the command's, 125 when the command could not be watched.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAILED    125
#define KINDS_MAX 256u
#define KVM_TYPE  0xaeu

struct kind {
    unsigned request;
    unsigned capability; /* of KVM_ENABLE_CAP, else 0 */
    unsigned long count;
};

static struct kind kinds[KINDS_MAX];
static unsigned kind_count;

#define NAMED(name)                                                                                \
    {                                                                                              \
        name, #name                                                                                \
    }

static const struct {
    unsigned request;
    const char *name;
} request_names[] = {
    NAMED(KVM_CHECK_EXTENSION),
    NAMED(KVM_CREATE_IRQCHIP),
    NAMED(KVM_CREATE_PIT),
    NAMED(KVM_CREATE_PIT2),
    NAMED(KVM_CREATE_VCPU),
    NAMED(KVM_CREATE_VM),
    NAMED(KVM_ENABLE_CAP),
    NAMED(KVM_GET_API_VERSION),
    NAMED(KVM_GET_DEBUGREGS),
    NAMED(KVM_GET_LAPIC),
    NAMED(KVM_GET_MSRS),
    NAMED(KVM_GET_REGS),
    NAMED(KVM_GET_SREGS),
    NAMED(KVM_GET_SUPPORTED_CPUID),
    NAMED(KVM_GET_TSC_KHZ),
    NAMED(KVM_GET_VCPU_EVENTS),
    NAMED(KVM_GET_VCPU_MMAP_SIZE),
    NAMED(KVM_INTERRUPT),
    NAMED(KVM_IRQFD),
    NAMED(KVM_IRQ_LINE),
    NAMED(KVM_IRQ_LINE_STATUS),
    NAMED(KVM_NMI),
    NAMED(KVM_SET_CPUID2),
    NAMED(KVM_SET_DEBUGREGS),
    NAMED(KVM_SET_GSI_ROUTING),
    NAMED(KVM_SET_IRQCHIP),
    NAMED(KVM_SET_LAPIC),
    NAMED(KVM_SET_MSRS),
    NAMED(KVM_SET_REGS),
    NAMED(KVM_SET_SIGNAL_MASK),
    NAMED(KVM_SET_SREGS),
    NAMED(KVM_SET_TSS_ADDR),
    NAMED(KVM_SET_USER_MEMORY_REGION),
    NAMED(KVM_SET_VCPU_EVENTS),
    NAMED(KVM_SIGNAL_MSI),
    NAMED(KVM_X86_SET_MSR_FILTER),
};

static const char *name_of(unsigned request)
{
    static char unknown[24];

    for (size_t i = 0; i < sizeof(request_names) / sizeof(request_names[0]); i++) {
        if (request_names[i].request == request)
            return request_names[i].name;
    }
    snprintf(unknown, sizeof(unknown), "0x%08x", request);
    return unknown;
}

static void count(unsigned request, unsigned capability)
{
    unsigned i = 0;

    while (i < kind_count && (kinds[i].request != request || kinds[i].capability != capability))
        i++;
    if (i == KINDS_MAX)
        return;
    if (i == kind_count)
        kinds[kind_count++] = (struct kind){.request = request, .capability = capability};
    kinds[i].count++;
}

static int write_log(const char *path)
{
    FILE *log = fopen(path, "w");

    if (!log)
        return -1;
    for (unsigned i = 0; i < kind_count; i++) {
        fputs(name_of(kinds[i].request), log);
        if (kinds[i].request == KVM_ENABLE_CAP)
            fprintf(log, ":%u", kinds[i].capability);
        fprintf(log, " %lu\n", kinds[i].count);
    }
    return fclose(log);
}

/* Stops at ioctl() with a request of KVM's type other than KVM_RUN. */
static int install_filter(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_RUN, 3, 0),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_TYPE << 8, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static _Noreturn void child(char **command)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) || raise(SIGSTOP) || install_filter()) {
        perror("kvm-log");
        _exit(FAILED);
    }
    execvp(command[0], command);
    fprintf(stderr, "kvm-log: cannot execute '%s': %s\n", command[0], strerror(errno));
    _exit(FAILED);
}

static void record(pid_t thread)
{
    struct user_regs_struct regs;
    unsigned request, capability = 0;

    if (ptrace(PTRACE_GETREGS, thread, NULL, &regs))
        return;
    request = (unsigned)regs.rsi;
    if (request == KVM_ENABLE_CAP)
        capability = (unsigned)ptrace(PTRACE_PEEKDATA, thread, (void *)regs.rdx, NULL);
    count(request, capability);
}

/* Lets every thread run on until the first process ends; returns its wait status. */
static int watch(pid_t first)
{
    for (;;) {
        int status;
        long deliver = 0;
        pid_t thread = waitpid(-1, &status, __WALL);

        if (thread < 0)
            return -1;
        if (!WIFSTOPPED(status)) {
            if (thread == first)
                return status;
            continue;
        }
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
            record(thread);
        else if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP)
            deliver = WSTOPSIG(status);
        ptrace(PTRACE_CONT, thread, NULL, (void *)deliver);
    }
}

int main(int argc, char **argv)
{
    const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                         PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    pid_t pid;
    int status;

    if (argc < 3) {
        fprintf(stderr, "usage: kvm-log LOG COMMAND...\n");
        return FAILED;
    }
    pid = fork();
    if (pid == 0)
        child(argv + 2);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
        ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)options) ||
        ptrace(PTRACE_CONT, pid, NULL, NULL)) {
        perror("kvm-log: cannot watch the command");
        return FAILED;
    }
    status = watch(pid);
    if (write_log(argv[1])) {
        perror("kvm-log: cannot write the log");
        return FAILED;
    }
    return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : FAILED;
}
