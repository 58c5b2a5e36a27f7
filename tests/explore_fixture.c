/* SPDX-License-Identifier: MIT */
/* Toy scenarios: explore_fixture.h. */
#include "explore_fixture.h"

#include <stdlib.h>

/* Numbers for actors, in the memory that setup is given. */
struct seat {
    struct toys *toys;
    const struct toy_scenario *scenario;
    uint32_t number;
};

struct table {
    struct toys toys;
    struct seat seats[EX_MAX_ACTORS];
};

static struct outcomes *collecting;

static void run(void *arg)
{
    const struct seat *seat = arg;

    seat->scenario->actors[seat->number].run(seat->toys, seat->number);
}

static void setup(const struct ex_scenario *scenario, void *memory, uint32_t mode)
{
    const struct toy_scenario *toy = scenario->data;
    struct table *table = memory;

    (void)mode;
    for (uint32_t i = 0; i < EX_MAX_ACTORS && toy->actors[i].run != NULL; i++) {
        table->seats[i] = (struct seat){&table->toys, toy, i};
        ex_actor(ex_text("toy %u", i), run, &table->seats[i]);
    }
    ex_name(&table->toys.x, sizeof table->toys.x, "x");
    ex_name(&table->toys.y, sizeof table->toys.y, "y");
    ex_name_array(table->toys.result, sizeof table->toys.result, sizeof table->toys.result[0],
                  "result");
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

bool outcomes_have(const struct outcomes *outcomes, uint64_t value)
{
    for (size_t i = 0; i < outcomes->count; i++) {
        if (outcomes->value[i] == value)
            return true;
    }
    return false;
}

static void check(const struct ex_scenario *scenario, void *memory)
{
    const struct toy_scenario *toy = scenario->data;
    const struct table *table = memory;
    uint64_t outcome = toy->outcome != NULL ? toy->outcome(&table->toys) : 0;

    if (toy->check != NULL)
        toy->check(&table->toys);
    if (collecting == NULL || outcomes_have(collecting, outcome))
        return;
    if (collecting->count == MAX_OUTCOMES)
        abort();
    collecting->value[collecting->count++] = outcome;
    qsort(collecting->value, collecting->count, sizeof outcome, compare);
}

struct ex_scenario toy_scenario(const struct toy_scenario *toy)
{
    return (struct ex_scenario){.data = toy,
                                .name = "toy",
                                .text = "a program of the test",
                                .modes = EX_MODE(EX_NONE),
                                .bound = EX_COMPLETE,
                                .setup = setup,
                                .check = check};
}

void outcomes_start(struct outcomes *outcomes)
{
    collecting = outcomes;
    if (outcomes != NULL)
        outcomes->count = 0;
}

struct ex_result explore_toy(const struct toy_scenario *toy, const struct ex_options *options,
                             struct outcomes *outcomes)
{
    const struct ex_scenario scenario = toy_scenario(toy);
    struct ex_result result;
    char error[200] = "";

    outcomes_start(outcomes);
    if (ex_explore(&scenario, options, &result, error, sizeof error) != 0)
        fail_msg("%s", error);
    collecting = NULL;
    return result;
}
