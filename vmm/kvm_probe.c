/* SPDX-License-Identifier: MIT */
/* The probe of /dev/kvm; see kvm_probe.h. */
#include "kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blobs.h"
#include "machine.h"

#define LIMIT_MS 3000

/* Hardware takes about half a cycle for an instruction of the loop, an interpreter hundreds. */
#define CYCLES_PER_INSTRUCTION_MAX 8u

#define REPORT_MAX                 512u
#define SELFTEST_MEM               (16ull << 20)

bool vmm_kvm_probe_judge(const char *report, char *why, size_t size)
{
    const char *line = strstr(report, "selftest instructions=");
    unsigned instructions;
    unsigned irqs;
    unsigned long cycles;

    if (strncmp(report, "error: ", 7) == 0) {
        snprintf(why, size, "%s", report + 7);
        return false;
    }
    if (line == NULL ||
        sscanf(line, "selftest instructions=%u cycles=%lu irqs=%u", &instructions, &cycles,
               &irqs) != 3 ||
        instructions == 0) {
        snprintf(why, size, "/dev/kvm did not run the self-test guest to its end");
        return false;
    }
    if (irqs != 1) {
        snprintf(why, size, "/dev/kvm delivered %u interrupts for one", irqs);
        return false;
    }
    if (cycles / instructions >= CYCLES_PER_INSTRUCTION_MAX) {
        snprintf(why, size, "/dev/kvm interprets: %lu cycles for an instruction",
                 cycles / instructions);
        return false;
    }
    snprintf(why, size, "/dev/kvm passes the self-test at hardware speed");
    return true;
}

static int run_selftest(int out_fd, struct vmm_err *err)
{
    struct vmm_machine_config config = {
        .kernel = {vmm_guest_selftest, vmm_guest_selftest_size, "selftest"},
        .cmdline = "",
        .cpus = 1,
        .mem = SELFTEST_MEM,
        .x2apic = true,
        .tsc_deadline = true,
        .in_fd = -1,
        .out_fd = out_fd,
    };
    struct vmm_machine_result result;
    struct vmm_machine *m = vmm_machine_new(&config, err);

    if (m == NULL) {
        return -1;
    }
    return vmm_machine_run(m, &result, err);
}

/*
 * The child may hang for ever in a system call of a broken KVM. It must then hold nothing that
 * somebody waits for: it keeps no descriptor of ours but the pipe.
 */
static _Noreturn void child(int out_fd)
{
    struct vmm_err err = {{0}};
    int null = open("/dev/null", O_RDWR);

    for (int fd = 0; fd < 3 && null >= 0; fd++) {
        dup2(null, fd);
    }
    /* A hanging child is of no use to anybody once the parent is gone. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out_fd, 3);
    close_range(4, ~0u, 0);
    setsid();
    if (run_selftest(3, &err) != 0) {
        dprintf(3, "error: %s", err.text);
    }
    _exit(0);
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Reads until the other end is closed or the time is up; false: the latter. */
static bool read_report(int fd, char *report, size_t size)
{
    int64_t until = now_ms() + LIMIT_MS;
    size_t used = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = until - now_ms();
        ssize_t n;

        if (left <= 0) {
            return false;
        }
        if (poll(&p, 1, (int)left) <= 0) {
            continue;
        }
        n = read(fd, report + used, size - 1 - used);
        if (n <= 0) {
            return true;
        }
        used += (size_t)n;
        report[used] = '\0';
        if (used == size - 1) {
            return true;
        }
    }
}

/* Does not insist: a child that is stuck in the kernel is init's when we exit. */
static void reap(pid_t pid)
{
    const struct timespec pause = {0, 5000000};

    for (unsigned i = 0; i < 50 && waitpid(pid, NULL, WNOHANG) == 0; i++) {
        nanosleep(&pause, NULL);
    }
}

bool vmm_kvm_probe(char *why, size_t size)
{
    char report[REPORT_MAX] = "";
    int pipes[2];
    bool complete;
    pid_t pid;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        snprintf(why, size, "/dev/kvm: %s", strerror(errno));
        return false;
    }
    if (pipe2(pipes, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
        snprintf(why, size, "/dev/kvm cannot be probed: %s", strerror(errno));
        return false;
    }
    if (pid == 0) {
        child(pipes[1]);
    }
    close(pipes[1]);
    complete = read_report(pipes[0], report, sizeof(report));
    close(pipes[0]);
    kill(pid, SIGKILL);
    reap(pid);
    if (!complete) {
        snprintf(why, size, "/dev/kvm hangs: no end of the self-test in %d s", LIMIT_MS / 1000);
        return false;
    }
    return vmm_kvm_probe_judge(report, why, size);
}
