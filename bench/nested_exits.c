/* SPDX-License-Identifier: MIT */
/* nested_exits: prints what IPIs between the vCPUs of a guest's guest cost, in exits to L0. run.sh
 * calls it; the same count is demanded of tests/test_nested_exits.c. */
#include "nested_cost.h"

#include <stdio.h>

#define IPIS 1000u

int main(void)
{
    printf("\nExits to L0 per %u IPIs of L2's, between vCPUs that run (of the first kind: those "
           "of L2,\nand those that L1 saw)\n\n",
           IPIS);
    printf(
        "| world           | physical | of L2 | L1 saw | logical | to all others | to itself |\n"
        "|-----------------|---------:|------:|-------:|--------:|--------------:|----------:|\n");
    for (uint32_t i = 0; i < COST_WORLDS; i++) {
        const struct nested_cost_world *world = &nested_cost_worlds[i];
        struct nested_cost c[COST_KINDS];

        for (uint32_t kind = 0; kind < COST_KINDS; kind++)
            c[kind] = nested_cost(world, (enum nested_cost_kind)kind, IPIS);
        printf("| %-15s | %8u | %5u | %6u | %7u | %13u | %9u |\n", world->name,
               c[COST_PHYSICAL].exits, c[COST_PHYSICAL].l2_exits, c[COST_PHYSICAL].reflected,
               c[COST_LOGICAL].exits, c[COST_BROADCAST].exits, c[COST_SELF].exits);
    }
    return 0;
}
