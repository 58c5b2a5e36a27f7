/* SPDX-License-Identifier: MIT */
/*
 * One line of text for the user, carried from where a thing failed to where it is printed.
 * The text says what is wrong, where, and what to do; functions that can fail take a pointer
 * to one and return -1 after vmm_fail().
 */
#ifndef VMM_ERR_H
#define VMM_ERR_H

struct vmm_err {
    char text[320];
};

/* Formats the text and returns -1, so that callers can write `return vmm_fail(err, …)`. */
int vmm_fail(struct vmm_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
