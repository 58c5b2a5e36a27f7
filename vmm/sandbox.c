/* SPDX-License-Identifier: MIT */
/*
 * See sandbox.h. The lists are short because everything with a name (files, sockets, programs) is
 * opened before. What is left is of five kinds: bytes on open descriptors, memory, threads and
 * their signals, time, and ioctls, of which each request is listed. Memory may not become
 * executable.
 */
#include "sandbox.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/kvm.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "term.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Both kinds: the C library's needs, time, and an end by any signal or none. */
static const int common_calls[] = {
    SCMP_SYS(brk),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(close),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(fstat),
    SCMP_SYS(futex),
    SCMP_SYS(getpgrp),
    SCMP_SYS(getpid),
    SCMP_SYS(getrandom),
    SCMP_SYS(gettid),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(lseek),
    SCMP_SYS(madvise),
    SCMP_SYS(mremap),
    SCMP_SYS(munmap),
    SCMP_SYS(nanosleep),
    SCMP_SYS(newfstatat),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(pread64),
    SCMP_SYS(read),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(write),
    SCMP_SYS(writev),
};

/* The machine: its threads, its event loop, the vCPUs' timers and kicks. */
static const int kvm_calls[] = {
    SCMP_SYS(clock_getres),     SCMP_SYS(epoll_create1),      SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_pwait),      SCMP_SYS(epoll_wait),         SCMP_SYS(eventfd2),
    SCMP_SYS(get_robust_list),  SCMP_SYS(membarrier),         SCMP_SYS(rseq),
    SCMP_SYS(rt_sigpending),    SCMP_SYS(rt_sigtimedwait),    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_getparam),   SCMP_SYS(sched_getscheduler), SCMP_SYS(set_robust_list),
    SCMP_SYS(signalfd4),        SCMP_SYS(timer_create),       SCMP_SYS(timer_delete),
    SCMP_SYS(timer_getoverrun), SCMP_SYS(timer_gettime),      SCMP_SYS(timer_settime),
    SCMP_SYS(timerfd_create),   SCMP_SYS(timerfd_gettime),    SCMP_SYS(timerfd_settime),
};

static const int rig_calls[] = {
    SCMP_SYS(wait4),
};

/* Not F_SETOWN, by which a descriptor sends signals to any process. */
static const int descriptor_commands[] = {F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL};

/* What makes a thread of this process, and what would make more of it than that. */
#define THREAD_FLAGS (CLONE_VM | CLONE_SIGHAND | CLONE_THREAD)
#define SPACE_FLAGS                                                                                \
    (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUSER |  \
     CLONE_NEWUTS)

/* Terminals, of both; a descriptor's kind is asked for at the end, too. */
static const unsigned long common_requests[] = {
    FIONREAD, TCGETS,   TCGETS2, TCSETS,   TCSETS2,
    TCSETSF,  TCSETSF2, TCSETSW, TCSETSW2, TIOCGPGRP, /* is it ours to set? */
};

/* Every request of vmm/, the ones that make a machine included: a guest that reboots gets a new. */
static const unsigned long kvm_requests[] = {
    KVM_CHECK_EXTENSION,
    KVM_CREATE_IRQCHIP,
    KVM_CREATE_VCPU,
    KVM_CREATE_VM,
    KVM_ENABLE_CAP,
    KVM_GET_API_VERSION,
    KVM_GET_CLOCK,
    KVM_GET_DEBUGREGS,
    KVM_GET_DEVICE_ATTR,
    KVM_GET_IRQCHIP,
    KVM_GET_LAPIC,
    KVM_GET_MP_STATE,
    KVM_GET_MSRS,
    KVM_GET_MSR_INDEX_LIST,
    KVM_GET_REGS,
    KVM_GET_SREGS,
    KVM_GET_SUPPORTED_CPUID,
    KVM_GET_TSC_KHZ,
    KVM_GET_VCPU_EVENTS,
    KVM_GET_VCPU_MMAP_SIZE,
    KVM_GET_XCRS,
    KVM_GET_XSAVE,
    KVM_GET_XSAVE2,
    KVM_HAS_DEVICE_ATTR,
    KVM_INTERRUPT,
    KVM_IRQ_LINE,
    KVM_NMI,
    KVM_RUN,
    KVM_SET_CLOCK,
    KVM_SET_CPUID2,
    KVM_SET_DEBUGREGS,
    KVM_SET_DEVICE_ATTR,
    KVM_SET_GSI_ROUTING,
    KVM_SET_IRQCHIP,
    KVM_SET_LAPIC,
    KVM_SET_MP_STATE,
    KVM_SET_MSRS,
    KVM_SET_REGS,
    KVM_SET_SIGNAL_MASK,
    KVM_SET_SREGS,
    KVM_SET_TSC_KHZ,
    KVM_SET_TSS_ADDR,
    KVM_SET_USER_MEMORY_REGION,
    KVM_SET_VCPU_EVENTS,
    KVM_SET_XCRS,
    KVM_SET_XSAVE,
    KVM_SIGNAL_MSI,
    KVM_TRANSLATE,
    KVM_X86_SET_MSR_FILTER,
};

/* ---- The rules ---- */

static int allow(scmp_filter_ctx ctx, const int *calls, size_t count)
{
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    }
    return rc;
}

/* The kernel takes 32 bits of a request. */
static int allow_requests(scmp_filter_ctx ctx, const unsigned long *requests, size_t count)
{
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                              SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)requests[i]));
    }
    return rc;
}

/* Memory, but none that can be executed; signals and prctl(), to this process. */
static int allow_narrow(scmp_filter_ctx ctx)
{
    const scmp_datum_t self = (scmp_datum_t)getpid();
    int rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                              SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                              SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                              SCMP_A0(SCMP_CMP_EQ, self, 0));
    }
    if (rc == 0) { /* a thread's name */
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                              SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
    }
    return rc;
}

static int allow_descriptor_commands(scmp_filter_ctx ctx)
{
    int rc = 0;

    for (size_t i = 0; i < COUNT(descriptor_commands) && rc == 0; i++) {
        rc = seccomp_rule_add(
            ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
            SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, (scmp_datum_t)descriptor_commands[i]));
    }
    return rc;
}

/*
 * Threads, but no processes. clone3() has its flags in memory, where no filter sees them: it is
 * said not to exist, and the C library uses clone(). Limits can be read.
 */
static int allow_threads(scmp_filter_ctx ctx)
{
    int rc = seccomp_rule_add(
        ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
        SCMP_A0(SCMP_CMP_MASKED_EQ, (uint32_t)(THREAD_FLAGS | SPACE_FLAGS), THREAD_FLAGS));

    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2,
                              SCMP_A0(SCMP_CMP_EQ, 0, 0), SCMP_A2(SCMP_CMP_EQ, 0, 0));
    }
    return rc;
}

static int add_rig_rules(scmp_filter_ctx ctx, pid_t emulator)
{
    int rc = allow(ctx, rig_calls, COUNT(rig_calls));

    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(kill), 2,
                              SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)emulator, 0),
                              SCMP_A1(SCMP_CMP_EQ, SIGKILL, 0));
    }
    return rc;
}

static int add_rules(scmp_filter_ctx ctx, enum vmm_sandbox kind, pid_t emulator)
{
    int rc = allow(ctx, common_calls, COUNT(common_calls));

    if (rc == 0) {
        rc = allow_requests(ctx, common_requests, COUNT(common_requests));
    }
    if (rc == 0) {
        rc = allow_narrow(ctx);
    }
    if (rc == 0) {
        rc = allow_descriptor_commands(ctx);
    }
    if (rc == 0 && kind == VMM_SANDBOX_RIG) {
        return add_rig_rules(ctx, emulator);
    }
    if (rc == 0) {
        rc = allow(ctx, kvm_calls, COUNT(kvm_calls));
    }
    if (rc == 0) {
        rc = allow_threads(ctx);
    }
    return rc == 0 ? allow_requests(ctx, kvm_requests, COUNT(kvm_requests)) : rc;
}

/* ---- The end ---- */

static size_t put_number(char *to, unsigned value)
{
    char digits[12];
    size_t n = 0, length;

    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (length = n; n > 0; n--) {
        *to++ = digits[n - 1];
    }
    return length;
}

/*
 * The kernel has not made the call. Says which, in one write, gives the terminal its mode back,
 * and dies of the signal: the handler was installed with SA_RESETHAND.
 */
static void on_forbidden(int signo, siginfo_t *info, void *context)
{
    static const char before[] = "vapic run: system call ";
    static const char after[] = " is forbidden by the sandbox, so the run ends here: please report "
                                "this; --no-sandbox runs without it\n";
    char text[sizeof(before) + sizeof(after) + 12];
    size_t length = sizeof(before) - 1;
    sigset_t set;

    (void)context;
    memcpy(text, before, length);
    length += put_number(text + length, (unsigned)info->si_syscall);
    memcpy(text + length, after, sizeof(after) - 1);
    length += sizeof(after) - 1;
    if (write(STDERR_FILENO, text, length) < 0) {
        /* Then nobody reads it. */
    }
    vmm_term_leave();
    sigemptyset(&set);
    sigaddset(&set, signo);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    raise(signo);
}

static int catch_forbidden(void)
{
    struct sigaction action = {.sa_sigaction = on_forbidden,
                               .sa_flags = SA_SIGINFO | (int)SA_RESETHAND};

    sigfillset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL);
}

/* ---- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

bool vmm_sandbox_possible(void)
{
#ifdef SANITIZED
    return false;
#else
    return true;
#endif
}

int vmm_sandbox_no_new_privs(struct vmm_err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return vmm_fail(err, "cannot give up new privileges: %s: use --no-sandbox",
                        strerror(errno));
    }
    return 0;
}

/* What libraries would read at first use: the time zone's file, and jansson, for its hashes,
 * random bytes. */
static void open_lazily_opened_files(void)
{
    tzset();
    json_object_seed(0);
}

int vmm_sandbox_enter(enum vmm_sandbox kind, pid_t emulator, struct vmm_err *err)
{
    scmp_filter_ctx ctx;
    int rc;

    if (!vmm_sandbox_possible()) {
        return 0;
    }
    open_lazily_opened_files();
    ctx = seccomp_init(SCMP_ACT_TRAP);
    if (ctx == NULL) {
        return vmm_fail(err, "sandbox: no memory for the filter: use --no-sandbox");
    }
    /* Threads that run already are under it, too; the filter sets no-new-privileges by itself. */
    rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    if (rc == 0) {
        rc = add_rules(ctx, kind, emulator);
    }
    if (rc == 0) {
        rc = catch_forbidden();
    }
    if (rc == 0) {
        rc = seccomp_load(ctx);
    }
    seccomp_release(ctx);
    if (rc != 0) {
        return vmm_fail(err, "sandbox: the kernel does not take the filter: %s: use --no-sandbox",
                        strerror(rc < 0 ? -rc : errno));
    }
    return 0;
}
