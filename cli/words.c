/* SPDX-License-Identifier: MIT */
/* Arguments of options that every subcommand reads alike; see words.h. */
#include "words.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

int cli_choose(struct argp_state *state, const char *option, const char *word,
               const char *const *names)
{
    char list[96] = "";
    size_t used = 0;

    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(word, names[i]) == 0) {
            return i;
        }
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i == 0 ? "" : ", ",
                                 names[i]);
    }
    argp_failure(state, CLI_USAGE, 0, "--%s: no '%s': give one of %s", option, word, list);
    return 0;
}

uint64_t cli_number(struct argp_state *state, const char *option, const char *word, uint64_t low,
                    uint64_t high)
{
    bool hex = word[0] == '0' && (word[1] | 0x20) == 'x';
    unsigned long long n;
    char *end;

    errno = 0;
    n = strtoull(word, &end, hex ? 16 : 10);
    if (errno != 0 || !isdigit((unsigned char)*word) || *end != '\0' || n < low || n > high) {
        argp_failure(state, CLI_USAGE, 0, "--%s: '%s' is no number from %llu to %llu", option, word,
                     (unsigned long long)low, (unsigned long long)high);
    }
    return n;
}
