/* SPDX-License-Identifier: MIT */
/* Names of places, for people: the engine's side of symbols.c. */
#ifndef VAPIC_EXPLORE_SYMBOLS_H
#define VAPIC_EXPLORE_SYMBOLS_H

#include <stdint.h>

/* Before a setup: the names that the last one gave. */
void symbols_forget(void);

struct symbols_place {
    const char *file;     /* from the root of the source tree on */
    const char *function; /* both NULL: unknown */
    int line;
    int first; /* the line on which the function is declared; 0: unknown */
};

/* Where the call that returns to `pc` stands in the source: the innermost function that is not one
 * of arch/atomic.h. The texts live as long as the process. */
struct symbols_place symbols_place(uintptr_t pc);

#endif
