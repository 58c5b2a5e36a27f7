/* SPDX-License-Identifier: MIT */
/* What L2's IPIs may cost: between vCPUs that run, shadowed tables and nested IPI virtualization
 * leave hardware to deliver them; without those tables no IPI is free. */
#include "nested_cost.h"

#define IPIS 1000u

static void check_unicast(const struct nested_cost_world *world, const struct nested_cost *cost)
{
    print_message("# %s: %u exits to L0, %u reflected\n", world->name, cost->exits,
                  cost->reflected);
    if (cost->delivered != IPIS)
        fail_msg("%s: %u of %u IPIs were delivered", world->name, cost->delivered, IPIS);
    switch (world->way) {
    case COST_SHADOW:
        assert_in_range(cost->exits, 0, 9);
        break;
    case COST_DUMMY: /* one exit, which L0 answers */
        assert_in_range(cost->l2_exits, IPIS, 2 * IPIS);
        assert_int_equal(cost->reflected, 0);
        break;
    default:
        assert_true(cost->reflected >= IPIS);
        assert_true(cost->exits > 2 * IPIS);
        break;
    }
}

static void test_unicast(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COST_WORLDS; i++) {
        struct nested_cost cost = nested_cost(&nested_cost_worlds[i], COST_PHYSICAL, IPIS);

        check_unicast(&nested_cost_worlds[i], &cost);
    }
}

/* The others arrive, too, and once each. */
static void test_all_kinds_arrive(void **state)
{
    static const uint32_t targets[COST_KINDS] = {1, 1, 3, 1};

    (void)state;
    for (uint32_t i = 0; i < COST_WORLDS; i++)
        for (uint32_t kind = 0; kind < COST_KINDS; kind++) {
            struct nested_cost cost =
                nested_cost(&nested_cost_worlds[i], (enum nested_cost_kind)kind, 24);

            assert_int_equal(cost.delivered, 24 * targets[kind]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unicast),
        cmocka_unit_test(test_all_kinds_arrive),
    };

    return cmocka_run_group_tests_name("nested_exits", tests, NULL, NULL);
}
