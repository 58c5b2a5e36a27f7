/* SPDX-License-Identifier: MIT */
/*
 * Raw mode and its restoration, and the escape sequence (see term.h). Called by the run command
 * and, for the escape sequence, by the console.
 */
#include "term.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

/* Written before `raw_fd` is published, then only read. */
static struct termios saved_mode;
static atomic_int raw_fd = -1;

/* Signals whose default is to kill, and that a terminal's user, a supervisor or a bug sends. */
static const int deadly[] = {SIGHUP,  SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGILL,
                             SIGABRT, SIGBUS, SIGFPE,  SIGSEGV, SIGSYS};

void vmm_term_leave(void)
{
    int fd = atomic_exchange(&raw_fd, -1);

    /* tcsetattr() is async-signal-safe; TCSANOW, as a drain could block for ever. */
    if (fd >= 0)
        tcsetattr(fd, TCSANOW, &saved_mode);
}

static void die(int sig)
{
    vmm_term_leave();
    /* The handler was installed with SA_RESETHAND: this one kills. */
    raise(sig);
}

static void guard_signals(void)
{
    for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
        struct sigaction action;

        if (sigaction(deadly[i], NULL, &action) || (action.sa_flags & SA_SIGINFO) ||
            action.sa_handler != SIG_DFL)
            continue;
        action.sa_handler = die;
        action.sa_flags = (int)SA_RESETHAND;
        sigemptyset(&action.sa_mask);
        sigaction(deadly[i], &action, NULL);
    }
}

bool vmm_term_enter(int fd)
{
    static bool registered;
    struct termios raw;

    if (!isatty(fd) || tcgetpgrp(fd) != getpgrp() || tcgetattr(fd, &saved_mode))
        return false;
    raw = saved_mode;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    if (!registered) {
        atexit(vmm_term_leave);
        guard_signals();
        registered = true;
    }
    atomic_store(&raw_fd, fd);
    if (tcsetattr(fd, TCSANOW, &raw) == 0)
        return true;
    vmm_term_leave();
    return false;
}

size_t vmm_escape_filter(struct vmm_escape *escape, uint8_t *data, size_t len, bool *quit)
{
    size_t out = 0;

    *quit = false;
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = data[i];

        if (!escape->pending && byte == VMM_TERM_ESCAPE) {
            escape->pending = true;
            continue;
        }
        if (!escape->pending || byte == VMM_TERM_ESCAPE)
            data[out++] = byte;
        if (escape->pending && (byte == 'x' || byte == 'X')) {
            *quit = true;
            return out;
        }
        escape->pending = false;
    }
    return out;
}
