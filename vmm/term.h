/* SPDX-License-Identifier: MIT */
/*
 * The user's terminal: raw mode with a sure way back, and the escape sequence. Knows nothing of
 * devices.
 *
 * Raw mode is entered on a terminal that this process owns (foreground); anything else (pipe, file,
 * /dev/null, background job) is left alone. Output processing stays on, so that messages of the
 * host stay readable. The mode found is restored by vmm_term_leave(), at exit(), and when a signal
 * kills the process: handlers are installed for the deadly signals that nobody handles; they
 * restore the terminal and let the signal kill the process after all. A program that handles
 * signals itself ends by exit() or by vmm_term_leave().
 *
 * There is one controlling terminal per process, so this file has the only global state of the
 * device side.
 */
#ifndef VMM_TERM_H
#define VMM_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMM_TERM_ESCAPE 0x01 /* Ctrl-A */

/* Returns true if `fd` is now in raw mode. Call it once, from the main thread. */
bool vmm_term_enter(int fd);

/* Restores the mode found. Any number of times, on any thread, in signal handlers too. */
void vmm_term_leave(void);

/* The escape sequence. Zeroed = at rest. */
struct vmm_escape {
    bool pending; /* Ctrl-A was typed */
};

/*
 * Filters typed bytes in place: Ctrl-A x sets *quit (what follows it is dropped), Ctrl-A Ctrl-A
 * becomes one Ctrl-A, Ctrl-A followed by any other byte is dropped together with it. Returns how
 * many bytes remain in `data`.
 */
size_t vmm_escape_filter(struct vmm_escape *escape, uint8_t *data, size_t len, bool *quit);

#endif
