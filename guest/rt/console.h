/* SPDX-License-Identifier: MIT */
/*
 * The guest's only output, the first serial port, and its ways to end: ACPI power-off for success,
 * isa-debug-exit (port 0xF4, exit status 2 * code + 1) otherwise. Also the few string helpers.
 */
#ifndef GUEST_CONSOLE_H
#define GUEST_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void console_init(void);

/* Understands %s %d %u %x, the long forms %ld %lu %lx, widths with leading zero (%08x), %%. */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);

_Noreturn void debug_exit(uint8_t code);
_Noreturn void power_off(void);
__attribute__((format(printf, 1, 2))) _Noreturn void panic(const char *format, ...);

bool str_eq(const char *a, const char *b);
/* The text after `prefix`, or null. */
const char *str_after(const char *s, const char *prefix);
/* `s` up to `stop` against the whole of `word`. */
bool str_is(const char *s, const char *word, char stop);

#endif
