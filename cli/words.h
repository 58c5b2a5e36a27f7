/* SPDX-License-Identifier: MIT */
/* Arguments of options that every subcommand reads alike. A bad one ends the program with argp's
 * error, status 2. */
#ifndef CLI_WORDS_H
#define CLI_WORDS_H

#include <stdint.h>

struct argp_state;

/* The place of `word` in `names`, which ends with NULL. */
int cli_choose(struct argp_state *state, const char *option, const char *word,
               const char *const *names);

/* Decimal, or hexadecimal behind 0x. */
uint64_t cli_number(struct argp_state *state, const char *option, const char *word, uint64_t low,
                    uint64_t high);

#endif
