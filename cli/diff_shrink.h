/* SPDX-License-Identifier: MIT */
/* Makes a program that fails as short as it can be and still fails, by leaving operations out. */
#ifndef CLI_DIFF_SHRINK_H
#define CLI_DIFF_SHRINK_H

#include <stdbool.h>

#include "diff_program.h"

typedef bool (*diff_fails_fn)(void *ctx, const struct diff_program *candidate);

/* At most `runs` candidates are tried; `p` becomes the shortest that failed. */
void diff_shrink(struct diff_program *p, diff_fails_fn fails, void *ctx, unsigned runs);

#endif
