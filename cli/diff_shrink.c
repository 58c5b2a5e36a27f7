/* SPDX-License-Identifier: MIT */
/*
 * Delta debugging over the list of operations: halves, then quarters, ... then single ones, again
 * and again until no single one can be left out. See diff_shrink.h.
 */
#include "diff_shrink.h"

#include <string.h>

static void leave_out(struct diff_program *to, const struct diff_program *from, uint32_t at,
                      uint32_t count)
{
    memcpy(to->name, from->name, sizeof(to->name));
    memcpy(to->ops, from->ops, at * sizeof(to->ops[0]));
    memcpy(to->ops + at, from->ops + at + count, (from->count - at - count) * sizeof(to->ops[0]));
    to->count = from->count - count;
}

/* One pass with pieces of this size; true: something could be left out. */
static bool pass(struct diff_program *p, uint32_t size, diff_fails_fn fails, void *ctx,
                 unsigned *runs)
{
    static struct diff_program candidate;
    bool shorter = false;
    uint32_t at = 0;

    while (at < p->count && p->count > 1 && *runs > 0) {
        uint32_t count = size < p->count - at ? size : p->count - at;

        leave_out(&candidate, p, at, count);
        (*runs)--;
        if (candidate.count > 0 && fails(ctx, &candidate)) {
            *p = candidate;
            shorter = true;
        } else {
            at += count;
        }
    }
    return shorter;
}

void diff_shrink(struct diff_program *p, diff_fails_fn fails, void *ctx, unsigned runs)
{
    for (uint32_t size = p->count / 2; size > 1; size /= 2) {
        pass(p, size, fails, ctx, &runs);
    }
    while (runs > 0 && pass(p, 1, fails, ctx, &runs)) {
    }
}
