/* SPDX-License-Identifier: MIT */
/*
 * Systematic exploration: depth-first over all decisions within the preemption bound, without
 * entering any state twice (state.c says what a state is).
 *
 * Two schedules that differ only in the order of steps that commute meet in the same state after
 * them, and the second is cut off there: this is the reduction. It needs no independence relation
 * to be computed, it holds under a bound (a state is left alone only if it was entered before with
 * at least as many preemptions to spend), and it merges more than the order of commuting steps:
 * what an actor has read and no longer has at hand makes no difference any more.
 *
 * Preemptions are tried only before a step that may conflict with one of another living actor
 * (shadow.h); a step that does not can as well be made before the switch. When an access shows
 * that there is a conflict that nobody knew of, the bound is begun anew: at once, or, where much
 * was done already, at its end, when all that there is to learn is known.
 *
 * A state may come again in a run that has made no decision of its own since: then nothing but
 * itself ever follows, and the run is let go on to be the livelock that it is. One that comes again
 * after decisions is cut off like any other. So what is not looked for is a livelock that takes
 * preemptions for ever.
 *
 * A run shares its beginning with the one before it, and goes on from the last of the checkpoints
 * that were made on the way.
 *
 * Bounds are explored one after the other, 0 first, so that a failure comes with few preemptions;
 * without a limit all the rest follows at once after two small ones.
 *
 * A shard owns the schedules whose first deviation from the default falls to it by number. The
 * default schedule itself is run by all, owned by the first. Along it a shard looks at every step,
 * because it cannot know which conflicts the others will find.
 */
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "steps.h"
#include "strategy.h"

/* ---- States that have been entered ---- */

struct seen {
    uint64_t key; /* 0: free */
    uint32_t left;
    uint32_t run; /* that entered it last */
};

#define FEW_RUNS   2000u             /* not worth finishing, when they must be made again */
#define SEEN_LIMIT ((size_t)1 << 26) /* entries: 1 GiB; beyond, states are forgotten */

static struct seen *table;
static size_t table_size, table_used;
static uint32_t this_run;

static void table_clear(void)
{
    if (table_size > ((size_t)1 << 16)) {
        free(table);
        table = NULL;
        table_size = 0;
    }
    if (table == NULL) {
        table_size = (size_t)1 << 12;
        table = malloc(table_size * sizeof *table);
        if (table == NULL)
            abort();
    }
    memset(table, 0, table_size * sizeof *table);
    table_used = 0;
}

static struct seen *slot(uint64_t key)
{
    size_t at = key & (table_size - 1);

    while (table[at].key != 0 && table[at].key != key)
        at = (at + 1) & (table_size - 1);
    return &table[at];
}

static void table_grow(void)
{
    struct seen *old = table;
    size_t old_size = table_size;

    table_size *= 2;
    table = calloc(table_size, sizeof *table);
    if (table == NULL)
        abort();
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].key != 0)
            *slot(old[i].key) = old[i];
    }
    free(old);
}

enum entered { NEW_STATE, OLD_STATE, OWN_STATE };

/* Old: it was entered before with as much left to spend; own: in this run, by nothing but default
 * decisions. */
static enum entered enter(uint64_t key, uint32_t left)
{
    struct seen *found;

    key |= key == 0;
    found = slot(key);
    if (found->key != 0) {
        if (found->left >= left)
            return found->run == this_run ? OWN_STATE : OLD_STATE;
        found->left = left;
        found->run = this_run;
        return NEW_STATE;
    }
    if (table_used * 2 >= table_size) {
        if (table_size >= SEEN_LIMIT)
            return NEW_STATE;
        table_grow();
        found = slot(key);
    }
    *found = (struct seen){key, left, this_run};
    table_used++;
    return NEW_STATE;
}

/* ---- Decisions of the current run ---- */

struct node {
    uint32_t step;
    uint16_t at, count;
    bool choice;       /* of the environment: an answer, not a move */
    bool default_only; /* of a shard: all before it were default, too */
    uint8_t moves[MACHINE_MAX_MOVES];
};

static struct node *nodes;
static size_t node_count, node_room;
static size_t followed; /* nodes that the run has passed */
static uint32_t bound;
static bool trunk; /* the run has not left the default so far */
static const struct ex_options *options;

static struct node *push(uint32_t step)
{
    if (node_count == node_room) {
        node_room = node_room * 2 + 256;
        nodes = realloc(nodes, node_room * sizeof *nodes);
        if (nodes == NULL)
            abort();
    }
    nodes[node_count] = (struct node){.step = step, .default_only = trunk};
    return &nodes[node_count++];
}

static bool sharded(void)
{
    return options->shards > 1;
}

/* Whether a deviation from the default schedule is ours. */
static bool ours(const struct node *node, uint32_t at)
{
    uint64_t number = steps_mix(((uint64_t)node->step << 32) + node->moves[at] + 1);

    if (node->choice)
        number = steps_mix(((uint64_t)node->step << 32) + 0x100 + at);
    return number % options->shards == options->shard;
}

static void skip_others(struct node *node)
{
    while (sharded() && node->default_only && node->at > 0 && node->at < node->count &&
           !ours(node, node->at))
        node->at++;
}

static void follow(void)
{
    bool more = followed < node_count;

    machine.consult_from = more ? nodes[followed].step : 0;
    machine.watchful = sharded() && trunk;
    machine.every_step = more || machine.watchful;
}

static void pass(const struct node *node)
{
    if (node->at > 0)
        trunk = false;
    followed++;
    follow();
}

static bool recorded(uint32_t step, uint32_t current, uint8_t *move)
{
    const struct node *node = &nodes[followed];

    if (followed == node_count)
        return false;
    if (node->step != step) {
        if (current == MACHINE_NOBODY)
            machine_fail(MACHINE_ASTRAY, "the same schedule led elsewhere at step %u", step);
        *move = (uint8_t)current;
        return true;
    }
    *move = node->moves[node->at];
    pass(node);
    return true;
}

/* ---- Checkpoints on the way ---- */

/* Making one costs as much as some ten decisions made once more. */
#define NODES_APART 4u

static struct {
    size_t node; /* at which it was made */
    struct checkpoint *checkpoint;
} * kept;
static size_t kept_count, kept_made;

static void forget_checkpoints(void)
{
    while (kept_count > 0 && kept[kept_count - 1].node >= node_count)
        kept_count--;
}

/* The newest node is one to come back to. True: the run did. */
static bool come_back(void)
{
    size_t node = node_count - 1;

    if (machine.current == MACHINE_NOBODY ||
        (kept_count > 0 && node < kept[kept_count - 1].node + NODES_APART))
        return false;
    if (kept_count == kept_made) {
        kept = realloc(kept, ++kept_made * sizeof *kept);
        if (kept == NULL)
            abort();
        kept[kept_count].checkpoint = NULL;
    }
    kept[kept_count].node = node;
    return checkpoint_take(&kept[kept_count++].checkpoint);
}

/* ---- Deciding ---- */

static void list_alternatives(struct node *node, const struct machine_point *point, uint32_t left)
{
    for (uint32_t i = 0; i < point->count; i++) {
        bool preempts =
            i > 0 && point->current != MACHINE_NOBODY && !(point->moves[i] & MACHINE_DRAIN);

        if (!preempts || left > 0)
            node->moves[node->count++] = point->moves[i];
    }
}

static uint8_t decide(const struct machine_point *point)
{
    uint32_t left = bound == EX_COMPLETE ? bound : bound - machine.preemptions;
    enum entered entered = NEW_STATE;
    struct node *node;

    if (point->fresh && point->count == 1)
        return point->moves[0];
    if (!(sharded() && trunk))
        entered = enter(machine_key(point->current), left);
    if (entered != NEW_STATE)
        return entered == OLD_STATE ? MACHINE_STOP : point->moves[0];
    node = push(point->step);
    list_alternatives(node, point, left);
    if (node->count == 1 && point->current != MACHINE_NOBODY) {
        node_count--;
        return point->moves[0];
    }
    followed++;
    if (!come_back())
        return point->moves[0];
    node = &nodes[followed];
    pass(node);
    return node->moves[node->at];
}

static uint32_t choose(uint32_t step, uint32_t count)
{
    struct node *node;

    if (followed == node_count) {
        node = push(step);
        node->choice = true;
        node->count = (uint16_t)count;
        followed++;
        if (!come_back())
            return 0;
    }
    node = &nodes[followed];
    pass(node);
    return node->at;
}

static const struct machine_driver driver = {recorded, decide, choose};

/* ---- Runs ---- */

/* The next run's decisions: the last one that can be made otherwise is. False: none is left. */
static bool next(void)
{
    while (node_count > 0) {
        struct node *node = &nodes[node_count - 1];

        node->at++;
        skip_others(node);
        if (node->at < node->count)
            return true;
        node_count--;
        forget_checkpoints();
    }
    return false;
}

/* How much of the tree lies behind, if all subtrees of a node were of one size. */
static double fraction(void)
{
    double done = 0, share = 1;

    for (size_t i = 0; i < node_count && share > 1e-9; i++) {
        share /= nodes[i].count;
        done += share * nodes[i].at;
    }
    return done;
}

/* Where the next run begins; NULL: with its first step. */
static const struct checkpoint *begin_run(void)
{
    this_run++;
    followed = kept_count > 0 ? kept[kept_count - 1].node : 0;
    trunk = kept_count > 0 ? nodes[followed].default_only : true;
    follow();
    return kept_count > 0 ? kept[kept_count - 1].checkpoint : NULL;
}

enum ended { ENDED_DONE, ENDED_GROWN, ENDED_EARLY };

/* Everything within `bound`. */
static enum ended pass_through(struct exploration *e)
{
    uint32_t runs = 0;

    table_clear();
    node_count = kept_count = 0;
    machine.grown = false;
    do {
        const struct checkpoint *from = begin_run();

        e->fraction = fraction();
        if (!exploration_run(e, from))
            return ENDED_EARLY;
        runs++;
        if (machine.grown && runs < FEW_RUNS)
            return ENDED_GROWN;
    } while (next());
    return machine.grown ? ENDED_GROWN : ENDED_DONE;
}

static bool within(struct exploration *e)
{
    enum ended ended;

    do
        ended = pass_through(e);
    while (ended == ENDED_GROWN);
    return ended == ENDED_DONE;
}

/* The bound to explore next: after two small ones all the rest, if there is no limit. */
static uint32_t following(uint32_t now)
{
    if (now >= options->bound)
        return now;
    return now < 2 || options->bound != EX_COMPLETE ? now + 1 : EX_COMPLETE;
}

void search(struct exploration *e)
{
    options = e->options;
    machine.driver = &driver;
    for (bound = 0; within(e); bound = following(bound)) {
        if (bound == options->bound) {
            e->result->complete = true;
            return;
        }
    }
}
