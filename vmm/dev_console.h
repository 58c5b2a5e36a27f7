/* SPDX-License-Identifier: MIT */
/*
 * The console: ties the serial port to two host file descriptors. Owns the output ring with the
 * thread that writes it out, the watch on the input and the escape sequence's state (term.h).
 *
 * Why output has a thread of its own: a terminal or pipe may block for ever (a stopped terminal, a
 * pager), and it cannot be made non-blocking without doing so to every process that shares it. Only
 * this thread waits for it; when the ring is nearly full the serial port holds the guest back
 * (dev_serial.h).
 *
 * Input is read on the event thread, never more than the serial port has room for; when it has none
 * the watch is switched off until it has. At end of file the input is forgotten and the guest goes
 * on.
 *
 * Lock order: device lock -> the ring's lock (a leaf).
 */
#ifndef VMM_DEV_CONSOLE_H
#define VMM_DEV_CONSOLE_H

#include "dev_env.h"
#include "dev_serial.h"
#include "term.h"

#define VMM_CONSOLE_RING 65536u

struct vmm_console {
    struct vmm_env *env;
    struct vmm_serial *serial;
    int in_fd; /* -1: no input */
    int out_fd;
    bool escapes;
    struct vmm_escape escape;
    struct vmm_watch watch;
    bool watching;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;  /* there is output, or the thread shall stop */
    pthread_cond_t empty; /* the ring has been written out */
    bool stopping;
    bool exited;  /* the thread is about to return */
    bool broken;  /* the output is gone: everything is dropped */
    bool blocked; /* the serial port has been told that there is no room */
    size_t head;
    size_t count;
    uint8_t ring[VMM_CONSOLE_RING];
};

/*
 * Before vmm_serial_init(), as the serial port wants the backend. With `escapes`, Ctrl-A x asks the
 * machine to quit (VMM_POWER_QUIT); without, input is passed on as it is. Cannot fail.
 */
void vmm_console_init(struct vmm_console *console, struct vmm_env *env, struct vmm_serial *serial,
                      int in_fd, int out_fd, bool escapes);

/* What to give to vmm_serial_init(). */
struct vmm_serial_backend vmm_console_backend(struct vmm_console *console);

/*
 * Starts the output thread and the input watch. Returns 0 or a negative errno. Not under the device
 * lock.
 */
int vmm_console_start(struct vmm_console *console);

/*
 * Waits until the output is written, at most `timeout_ms`, then stops both. Returns false if output
 * was left. Any thread but the event thread; not under the device lock. Harmless if not started.
 */
bool vmm_console_stop(struct vmm_console *console, unsigned timeout_ms);

#endif
