/* SPDX-License-Identifier: MIT */
/* What IPIs of L2 cost: exits to L0, counted in worlds of nested_fixture.h. bench/nested_exits.c
 * prints them, test_nested_exits.c demands what is promised. */
#ifndef VAPIC_TESTS_NESTED_COST_H
#define VAPIC_TESTS_NESTED_COST_H

#include "nested_fixture.h"

enum nested_cost_way { COST_SOFTWARE, COST_DUMMY, COST_SHADOW };

struct nested_cost_world {
    const char *name;
    enum nested_cost_way way; /* how an IPI gets from L2's vCPU to another one */
    struct nx_options options;
};

#define COST_WORLDS 10u

extern const struct nested_cost_world nested_cost_worlds[COST_WORLDS];

enum nested_cost_kind {
    COST_PHYSICAL,  /* to one other vCPU */
    COST_LOGICAL,   /* the same, by its logical ID */
    COST_BROADCAST, /* to all others */
    COST_SELF,
    COST_KINDS
};

struct nested_cost {
    uint32_t exits;     /* to L0: of L2, and of L1 while it works for L2 */
    uint32_t l2_exits;  /* of those: of L2 */
    uint32_t reflected; /* of those: L1 saw */
    uint32_t delivered; /* interrupts */
};

/* `count` IPIs of L2, one after the other, between vCPUs that are running; of each the target's
 * handler has begun before the next one. EOIs are not counted. */
struct nested_cost nested_cost(const struct nested_cost_world *world, enum nested_cost_kind kind,
                               uint32_t count);

#endif
