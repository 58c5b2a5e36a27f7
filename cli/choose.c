/* SPDX-License-Identifier: MIT */
/* An option whose argument is one of a few words: of every subcommand. */
#include <argp.h>
#include <stdio.h>
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
