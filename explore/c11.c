/* SPDX-License-Identifier: MIT */
/*
 * The memory of C11, and what happens before what.
 *
 * Each location has the history of its stores, oldest first; a store's place in it is its stamp.
 * Each actor has a view: of each location the oldest stamp that it may still read.
 *
 *      load        any store that is not older than the view allows. The view moves up to it;
 *                  acquire: the store's own view, if it has one, joins the actor's
 *      store       appended; release: it takes the actor's view with it
 *      exchange…   reads the newest and appends, so that two are never between each other; what it
 *                  replaces hands its view on (a release sequence)
 *      SEQ_CST     one more view that all such accesses share: a store is entered there, a load is
 *                  not older than that. A read-modify-write is both and no more: on x86 it is a
 *                  full barrier, but a load behind it that needs one has to ask for SEQ_CST itself
 *      waits, and locks of this room: full barriers, as a host's are
 *
 * What it cannot do, and C11 can: a load that reads from a store that the other actor has yet to
 * make (no compiler and no processor in sight does that with the dependencies here), and a store
 * that gets an older place than one that is there already. Stale reads are bounded: DEPTH stores
 * back, and PATIENCE times in a row from one location, for stores become visible in finite time.
 * Memory that changes without an access of instrumented code (the world's own) loses its history.
 *
 * Data races, in every memory model: vector clocks, joined where an acquire reads what a release
 * wrote. Two accesses of one location race if one is a store, one is plain, and neither happens
 * before the other. In this code base memory that others read by design is reached by atomic.h
 * only, so a race is an error.
 */
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steps.h"

#define DEPTH    4u
#define PATIENCE 3u

/* ---- Views, clocks ---- */

struct clocks {
    uint32_t of[EX_MAX_ACTORS];
};

struct view {
    uint32_t count; /* locations; later ones: 0 */
    uint32_t *stamp;
};

struct store {
    uint64_t value;
    uint32_t view_count; /* 0: none */
    size_t view_at;      /* in pool[] */
    bool released;       /* `clocks` counts */
    struct clocks clocks;
};

struct location {
    uintptr_t address;
    uint32_t size;
    uint32_t moment; /* since which it is kept, for going back */
    uint32_t last;   /* stamp of the newest; the DEPTH newest are kept, fewer than that at first */
    uint32_t kept;
    struct store store[DEPTH]; /* at stamp % DEPTH */
    uint8_t patience[EX_MAX_ACTORS];
};

enum touch { PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE, TOUCHES };

/* The last accesses of the same bytes by each actor. */
struct record {
    uintptr_t address;
    uint32_t size, next; /* in the slot: index + 1 */
    uint32_t moment;
    uint32_t clock[TOUCHES][EX_MAX_ACTORS];
    uintptr_t pc[TOUCHES][EX_MAX_ACTORS];
};

/* Eight bytes of memory. */
struct slot {
    uint32_t run; /* the rest is of this run, or nothing */
    uint32_t moment;
    uint32_t grain;
    uint32_t location[8]; /* index + 1, by address & 7 */
    uint32_t records;     /* index + 1 of the first */
};

#define SLOTS (EX_MEMORY / 8)

static struct slot slots[SLOTS];
static uint32_t run;
static bool stale_reads;

static struct location *locations;
static uint32_t location_count, location_room;
static struct record *records;
static uint32_t record_count, record_room;
static uint32_t *pool; /* of the stores' views */
static size_t pool_count, pool_room;

static struct view seen[EX_MAX_ACTORS], shared; /* `shared`: of SEQ_CST */
static struct clocks clocks[EX_MAX_ACTORS];

/* What the condition of each actor's wait has read, in the epoch in which it was asked last. */
static struct {
    uint64_t epoch;
    uint32_t count;
    uintptr_t address[16];
    uint32_t size[16];
} conditions[EX_MAX_ACTORS];

static void *grown(void *memory, size_t count, size_t size)
{
    memory = realloc(memory, count * size);
    if (memory == NULL)
        abort();
    return memory;
}

/* ---- Going back ---- */

/* What one of them was before it was changed for the first time since a mark. */
struct undo {
    enum { SLOT, LOCATION, RECORD } kind;
    uint32_t index;
    union {
        struct slot slot;
        struct location location;
        struct record record;
    } was;
};

static struct undo *undo;
static uint32_t undo_count, undo_room;
static uint32_t moment; /* since the last mark, or going back; 0: there is no mark in this run */

static struct undo *new_undo(void)
{
    if (undo_count == undo_room) {
        undo_room = 2 * undo_room + 1024;
        undo = grown(undo, undo_room, sizeof(*undo));
    }
    return &undo[undo_count++];
}

#define KEEP(which, kind_, member, index_)                                                         \
    do {                                                                                           \
        if (moment != 0 && (which)->moment != moment) {                                            \
            struct undo *u = new_undo();                                                           \
                                                                                                   \
            u->kind = (kind_);                                                                     \
            u->index = (index_);                                                                   \
            u->was.member = *(which);                                                              \
            (which)->moment = moment;                                                              \
        }                                                                                          \
    } while (0)

static void keep_slot(struct slot *slot)
{
    KEEP(slot, SLOT, slot, (uint32_t)(slot - slots));
}

static void keep_location(struct location *l)
{
    KEEP(l, LOCATION, location, (uint32_t)(l - locations));
}

static void keep_record(struct record *r)
{
    KEEP(r, RECORD, record, (uint32_t)(r - records));
}

/* Moments are never used twice, runs least of all. */
static uint32_t next_moment(void)
{
    static uint32_t last;

    return ++last;
}

struct memory_mark memory_mark(void)
{
    moment = next_moment();
    return (struct memory_mark){undo_count, location_count, record_count};
}

static void take_back(const struct undo *u)
{
    switch (u->kind) {
    case SLOT:
        slots[u->index] = u->was.slot;
        break;
    case LOCATION:
        locations[u->index] = u->was.location;
        break;
    case RECORD:
        records[u->index] = u->was.record;
        break;
    }
}

void memory_back(struct memory_mark mark)
{
    while (undo_count > mark.undo)
        take_back(&undo[--undo_count]);
    location_count = mark.locations;
    record_count = mark.records;
    moment = next_moment();
}

void memory_transfer(void (*transfer)(void *memory, size_t size))
{
    transfer(clocks, machine.actor_count * sizeof(clocks[0]));
    transfer(conditions, machine.actor_count * sizeof(conditions[0]));
}

void memory_reset(void)
{
    run++;
    moment = 0;
    undo_count = 0;
    stale_reads = machine.memory == EX_C11;
    location_count = 0;
    record_count = 0;
    pool_count = 0;
    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++) {
        seen[i].count = 0;
        conditions[i].count = 0;
        memset(&clocks[i], 0, sizeof(clocks[i]));
        clocks[i].of[i] = 1; /* the setup happens before everything */
    }
    shared.count = 0;
}

/* ---- Views ---- */

static uint32_t stamp_of(const struct view *view, uint32_t location)
{
    return location < view->count ? view->stamp[location] : 0;
}

static void widen(struct view *view, uint32_t count)
{
    static size_t room[EX_MAX_ACTORS + 1];
    size_t n = view == &shared ? EX_MAX_ACTORS : (size_t)(view - seen);

    if (count > room[n]) {
        room[n] = count + 256;
        view->stamp = grown(view->stamp, room[n], sizeof(*view->stamp));
    }
    for (; view->count < count; view->count++)
        view->stamp[view->count] = 0;
}

static void raise_stamp(struct view *view, uint32_t location, uint32_t stamp)
{
    widen(view, location + 1);
    if (view->stamp[location] < stamp)
        view->stamp[location] = stamp;
}

static void join(struct view *view, const uint32_t *stamp, uint32_t count)
{
    widen(view, count);
    for (uint32_t i = 0; i < count; i++)
        if (view->stamp[i] < stamp[i])
            view->stamp[i] = stamp[i];
}

static void full_barrier(uint32_t actor)
{
    join(&seen[actor], shared.stamp, shared.count);
    join(&shared, seen[actor].stamp, seen[actor].count);
}

/* A copy of `view`, with another one's stamps where these are newer. */
static void keep_view(struct store *store, const struct view *view, const struct store *before)
{
    uint32_t count = view != NULL ? view->count : 0;

    if (before != NULL && before->view_count > count)
        count = before->view_count;
    store->view_count = count;
    store->view_at = pool_count;
    if (pool_count + count > pool_room) {
        pool_room = 2 * (pool_count + count) + 4096;
        pool = grown(pool, pool_room, sizeof(*pool));
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t stamp = view != NULL ? stamp_of(view, i) : 0;

        if (before != NULL && i < before->view_count && pool[before->view_at + i] > stamp)
            stamp = pool[before->view_at + i];
        pool[pool_count + i] = stamp;
    }
    pool_count += count;
}

static void join_clocks(struct clocks *into, const struct clocks *from)
{
    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++)
        if (into->of[i] < from->of[i])
            into->of[i] = from->of[i];
}

/* ---- Memory ---- */

static uint64_t mask_of(uint32_t size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * size) - 1;
}

static uint64_t load_memory(uintptr_t address, uint32_t size)
{
    uint64_t value = 0;

    memcpy(&value, (const void *)address, size);
    return value;
}

static void store_memory(uintptr_t address, uint32_t size, uint64_t value)
{
    memcpy((void *)address, &value, size);
}

static struct slot *slot_of(uintptr_t address)
{
    struct slot *slot = &slots[(address - MACHINE_BASE) / 8];

    if (slot->run != run) {
        keep_slot(slot);
        *slot = (struct slot){.run = run, .moment = slot->moment};
    }
    return slot;
}

/* ---- Data races ---- */

static const char *const touch_names[] = {"plain read", "plain write", "atomic read",
                                          "atomic write"};

static bool conflict(enum touch a, enum touch b)
{
    bool writes = a == PLAIN_WRITE || a == ATOMIC_WRITE || b == PLAIN_WRITE || b == ATOMIC_WRITE;

    return writes && (a <= PLAIN_WRITE || b <= PLAIN_WRITE);
}

static void check_record(const struct record *r, uint32_t actor, enum touch touch, uintptr_t pc)
{
    for (uint32_t other = 0; other < EX_MAX_ACTORS; other++) {
        for (uint32_t t = 0; other != actor && t < TOUCHES; t++) {
            char place[96];

            if (!conflict((enum touch)t, touch) || r->clock[t][other] <= clocks[actor].of[other])
                continue;
            snprintf(place, sizeof(place), "%s", ex_place_name(r->pc[t][other]));
            machine_fail("race", "%s: %s at %s and %s at %s",
                         ex_address_name((const void *)r->address, r->size), touch_names[t], place,
                         touch_names[touch], ex_place_name(pc));
        }
    }
}

static struct record *record_at(struct slot *slot, uintptr_t address, uint32_t size)
{
    struct record *r;

    for (uint32_t at = slot->records; at != 0; at = records[at - 1].next)
        if (records[at - 1].address == address && records[at - 1].size == size)
            return &records[at - 1];
    if (record_count == record_room) {
        record_room = record_room ? 2 * record_room : 1024;
        records = grown(records, record_room, sizeof(*records));
    }
    r = &records[record_count++];
    memset(r, 0, sizeof(*r));
    r->address = address;
    r->size = size;
    r->next = slot->records;
    r->moment = moment;
    keep_slot(slot);
    slot->records = record_count;
    return r;
}

/* Who has touched each slot in which way, in any run: `plain` both ways. */
static struct {
    uint8_t plain, written, any;
    bool racy; /* two of them might race, if nothing ordered them: part of the state */
} touched[SLOTS];
static uint32_t racy[SLOTS], racy_count;

void memory_forget(void)
{
    memset(touched, 0, sizeof(touched));
    racy_count = 0;
}

/* One of them plain, one a write, by different actors. */
static bool might_race(uint8_t plain, uint8_t written, uint8_t any)
{
    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++) {
        uint8_t others = (uint8_t) ~(1u << i);

        if (plain >> i & 1 && (written & others || (written >> i & 1 && any & others)))
            return true;
    }
    return false;
}

static void note_touch(const struct slot *slot, uint32_t actor, enum touch touch)
{
    size_t n = (size_t)(slot - slots);
    uint8_t bit = (uint8_t)(1u << actor);

    touched[n].any |= bit;
    if (touch <= PLAIN_WRITE)
        touched[n].plain |= bit;
    if (touch == PLAIN_WRITE || touch == ATOMIC_WRITE)
        touched[n].written |= bit;
    if (touched[n].racy || !might_race(touched[n].plain, touched[n].written, touched[n].any))
        return;
    touched[n].racy = true;
    racy[racy_count++] = (uint32_t)n;
    machine.grown = true;
}

/* Of an access by `actor` at this clock: who does not know of it yet; 0: all do that can still
 * race with it. */
static uint32_t unaware(uint32_t actor, uint32_t clock)
{
    uint32_t mask = 0;

    for (uint32_t i = 0; i < machine.actor_count; i++) {
        if (i != actor && machine.actors[i].status != MACHINE_ENDED && clocks[i].of[actor] < clock)
            mask |= 1u << i;
    }
    return mask;
}

/* The words that would tell of it. */
static uint64_t tellers(uint32_t actor, uint32_t clock)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < location_count; i++) {
        const struct location *l = &locations[i];
        const struct store *store = &l->store[l->last % DEPTH];

        if (store->released && store->clocks.of[actor] >= clock)
            sum += steps_mix(l->address);
    }
    return sum;
}

static uint64_t record_key(const struct record *r)
{
    uint64_t sum = 0;

    for (uint32_t t = 0; t < TOUCHES; t++) {
        for (uint32_t i = 0; i < machine.actor_count; i++) {
            uint32_t clock = r->clock[t][i], who = clock != 0 ? unaware(i, clock) : 0;

            if (who != 0)
                sum += steps_mix(steps_mix(r->address * 8 + r->size) + t * 4096 + i * 256 + who +
                                 tellers(i, clock));
        }
    }
    return sum;
}

uint64_t memory_key(void)
{
    uint64_t sum = 0;

    for (uint32_t n = 0; n < racy_count; n++) {
        const struct slot *slot = &slots[racy[n]];

        if (slot->run != run)
            continue;
        for (uint32_t at = slot->records; at != 0; at = records[at - 1].next)
            sum += record_key(&records[at - 1]);
    }
    return sum;
}

static void touch_bytes(uintptr_t address, uint32_t size, enum touch touch, uintptr_t pc)
{
    struct slot *slot = slot_of(address);
    uint32_t actor = machine.current;
    struct record *own;

    for (uint32_t at = slot->records; at != 0; at = records[at - 1].next) {
        const struct record *r = &records[at - 1];

        if (r->address < address + size && address < r->address + r->size)
            check_record(r, actor, touch, pc);
    }
    own = record_at(slot, address, size);
    note_touch(slot, actor, touch);
    keep_record(own);
    own->clock[touch][actor] = clocks[actor].of[actor];
    own->pc[touch][actor] = pc;
}

void memory_plain(const struct machine_access *a)
{
    enum touch touch = a->kind == MACHINE_LOAD ? PLAIN_READ : PLAIN_WRITE;
    uintptr_t address = a->address, end = a->address + a->size;

    while (address < end) {
        uintptr_t next = (address & ~(uintptr_t)7) + 8;

        next = next < end ? next : end;
        touch_bytes(address, (uint32_t)(next - address), touch, a->pc);
        address = next;
    }
}

/* ---- Locations ---- */

static struct store *store_at(struct location *l, uint32_t stamp)
{
    return &l->store[stamp % DEPTH];
}

/* One store without a view, which everybody has to read. */
static void forget_history(struct location *l, uint64_t value)
{
    l->last++;
    l->kept = 1;
    *store_at(l, l->last) = (struct store){.value = value};
}

static uint32_t new_location(uintptr_t address, uint32_t size)
{
    struct location *l;

    if (location_count == location_room) {
        location_room = location_room ? 2 * location_room : 512;
        locations = grown(locations, location_room, sizeof(*locations));
    }
    l = &locations[location_count++];
    memset(l, 0, sizeof(*l));
    l->moment = moment;
    l->address = address;
    l->size = size;
    forget_history(l, load_memory(address, size));
    l->last = 0;
    l->store[0] = l->store[1 % DEPTH];
    return location_count;
}

/* A location is as large as the largest access to it was; an access to a part of it goes to the
 * whole. */
static uint32_t find_location(uintptr_t address, uint32_t size)
{
    struct slot *slot = slot_of(address);
    uintptr_t start;
    uint32_t *at;

    if (size > slot->grain) {
        keep_slot(slot);
        memset(slot->location, 0, sizeof(slot->location));
        slot->grain = size;
    }
    start = address & ~(uintptr_t)(slot->grain - 1);
    at = &slot->location[start & 7];
    if (*at == 0) {
        keep_slot(slot);
        *at = new_location(start, slot->grain);
    }
    return *at - 1;
}

/* What lies in memory is the newest value; if nobody we know of wrote it there is no history. */
static void check_memory(struct location *l)
{
    uint64_t value = load_memory(l->address, l->size);

    if (store_at(l, l->last)->value != value)
        forget_history(l, value);
}

static void append(struct location *l, uint64_t value)
{
    l->last++;
    if (l->kept < DEPTH)
        l->kept++;
    *store_at(l, l->last) = (struct store){.value = value};
    store_memory(l->address, l->size, value);
}

/* ---- Accesses ---- */

static bool acquires(int order)
{
    return order == __ATOMIC_ACQUIRE || order == __ATOMIC_CONSUME || order == __ATOMIC_ACQ_REL ||
           order == __ATOMIC_SEQ_CST;
}

static bool releases(int order)
{
    return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static uint64_t part_of(const struct location *l, const struct machine_access *a, uint64_t whole)
{
    return whole >> 8 * (a->address - l->address) & mask_of((uint32_t)a->size);
}

static uint64_t with_part(const struct location *l, const struct machine_access *a, uint64_t whole,
                          uint64_t part)
{
    uint32_t shift = 8 * (uint32_t)(a->address - l->address);
    uint64_t mask = mask_of((uint32_t)a->size) << shift;

    return (whole & ~mask) | (part << shift & mask);
}

static void read_from(uint32_t actor, uint32_t index, uint32_t stamp, int order)
{
    const struct store *store = store_at(&locations[index], stamp);

    if (stale_reads)
        raise_stamp(&seen[actor], index, stamp);
    if (!acquires(order))
        return;
    if (store->released)
        join_clocks(&clocks[actor], &store->clocks);
    if (stale_reads && store->view_count != 0)
        join(&seen[actor], &pool[store->view_at], store->view_count);
}

/* The stamp to read: newest, or an older one that the actor may still see. */
static uint32_t choose_stamp(uint32_t actor, uint32_t index, int order)
{
    struct location *l = &locations[index];
    uint32_t floor = stamp_of(&seen[actor], index), count, back;

    if (order == __ATOMIC_SEQ_CST && stamp_of(&shared, index) > floor)
        floor = stamp_of(&shared, index);
    count = l->last - floor + 1;
    if (count > l->kept)
        count = l->kept;
    if (!stale_reads || count < 2 || l->patience[actor] == PATIENCE) {
        l->patience[actor] = 0;
        return l->last;
    }
    /* Mostly the newest, or a run of hundreds of loads would be nothing but stale ones. */
    back = machine_choose(2 * count);
    back = back < count ? back : 0;
    l->patience[actor] = back != 0 ? l->patience[actor] + 1 : 0;
    return l->last - back;
}

static void load(uint32_t actor, uint32_t index, struct machine_access *a)
{
    uint32_t stamp = choose_stamp(actor, index, a->order);

    a->value = part_of(&locations[index], a, store_at(&locations[index], stamp)->value);
    read_from(actor, index, stamp, a->order);
}

/* `before`: the store that a read-modify-write replaces. */
static void put(uint32_t actor, uint32_t index, struct machine_access *a, uint64_t part,
                const struct store *before)
{
    struct location *l = &locations[index];
    uint64_t whole = with_part(l, a, store_at(l, l->last)->value, part);
    bool release = releases(a->order);
    struct store *store;

    append(l, whole);
    raise_stamp(&seen[actor], index, l->last);
    if (a->order == __ATOMIC_SEQ_CST)
        raise_stamp(&shared, index, l->last);
    store = store_at(l, l->last);
    store->released = release || (before != NULL && before->released);
    if (release)
        store->clocks = clocks[actor];
    if (before != NULL && before->released)
        join_clocks(&store->clocks, &before->clocks);
    if (stale_reads && store->released)
        keep_view(store, release ? &seen[actor] : NULL, before);
}

static uint64_t combined(const struct machine_access *a, uint64_t old)
{
    switch (a->op) {
    case MACHINE_XCHG:
        return a->operand;
    case MACHINE_ADD:
        return old + a->operand;
    case MACHINE_SUB:
        return old - a->operand;
    case MACHINE_AND:
        return old & a->operand;
    case MACHINE_OR:
        return old | a->operand;
    case MACHINE_XOR:
        return old ^ a->operand;
    case MACHINE_NAND:
        return ~(old & a->operand);
    }
    return old;
}

static void modify(uint32_t actor, uint32_t index, struct machine_access *a)
{
    struct location *l = &locations[index];
    struct store before = *store_at(l, l->last);
    uint64_t old = part_of(l, a, before.value);

    a->value = old;
    a->failed = a->kind == MACHINE_CAS && old != (a->expected & mask_of((uint32_t)a->size));
    if (a->failed) {
        read_from(actor, index, l->last, a->failure);
        return;
    }
    read_from(actor, index, l->last, a->order);
    put(actor, index, a, a->kind == MACHINE_CAS ? a->operand : combined(a, old), &before);
}

static void check_race(const struct machine_access *a)
{
    bool writes = a->kind != MACHINE_LOAD && !a->failed;

    touch_bytes(a->address, (uint32_t)a->size, writes ? ATOMIC_WRITE : ATOMIC_READ, a->pc);
}

void memory_atomic(struct machine_access *a)
{
    uint32_t actor = machine.current, index;

    if (a->kind == MACHINE_FENCE) {
        full_barrier(actor);
        return;
    }
    index = find_location(a->address, (uint32_t)a->size);
    check_memory(&locations[index]);
    a->failed = a->kind == MACHINE_CAS && load_memory(a->address, (uint32_t)a->size) != a->expected;
    check_race(a);
    if (a->kind == MACHINE_LOAD)
        load(actor, index, a);
    else if (a->kind == MACHINE_STORE)
        put(actor, index, a, a->operand, NULL);
    else
        modify(actor, index, a);
    clocks[actor].of[actor]++;
}

/* What such an access hands on. Only the newest store of a location is kept. */
static void observe_store(uint32_t actor, struct location *l, const struct machine_access *a)
{
    struct store before = *store_at(l, l->last), *store;
    bool goes_on = a->kind != MACHINE_STORE && before.released, release = releases(a->order);

    keep_location(l);
    store = store_at(l, ++l->last);
    if (goes_on && acquires(a->order))
        join_clocks(&clocks[actor], &before.clocks);
    *store = (struct store){.released = release || goes_on};
    if (release)
        store->clocks = clocks[actor];
    if (goes_on)
        join_clocks(&store->clocks, &before.clocks);
}

void memory_observe(const struct machine_access *a)
{
    uint32_t actor = machine.current, index;

    if (a->kind == MACHINE_FENCE)
        return;
    index = find_location(a->address, (uint32_t)a->size);
    check_race(a);
    if (a->kind == MACHINE_LOAD || a->failed)
        read_from(actor, index, locations[index].last, a->failed ? a->failure : a->order);
    else
        observe_store(actor, &locations[index], a);
    clocks[actor].of[actor]++;
}

/* ---- Waits and locks of this room ---- */

static void acquire_newest(uint32_t actor, uintptr_t address, uint32_t size)
{
    uint32_t index = find_location(address, size);

    if (stale_reads)
        check_memory(&locations[index]);
    read_from(actor, index, locations[index].last, __ATOMIC_SEQ_CST);
}

void memory_condition(uint32_t actor, uintptr_t address, size_t size)
{
    uint32_t n;

    if (conditions[actor].epoch != machine.epoch)
        conditions[actor].count = 0;
    conditions[actor].epoch = machine.epoch;
    n = conditions[actor].count;
    if (size > 8 || n == sizeof(conditions[actor].size) / sizeof(conditions[actor].size[0]))
        return;
    conditions[actor].address[n] = address;
    conditions[actor].size[n] = (uint32_t)size;
    conditions[actor].count++;
}

void memory_waited(void)
{
    uint32_t actor = machine.current;

    for (uint32_t i = 0; i < conditions[actor].count; i++)
        acquire_newest(actor, conditions[actor].address[i], conditions[actor].size[i]);
    conditions[actor].count = 0;
    if (stale_reads)
        full_barrier(actor);
}

void memory_lock(const uint32_t *word)
{
    uint32_t actor = machine.current;

    acquire_newest(actor, (uintptr_t)word, sizeof(*word));
    if (stale_reads)
        full_barrier(actor);
}

/* The exchange that follows hands everything on. */
void memory_unlock(const uint32_t *word)
{
    (void)word;
}
