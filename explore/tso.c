/* SPDX-License-Identifier: MIT */
/* Store buffers, as in tso.h. A store of more than eight bytes enters in pieces of eight. */
#include "tso.h"

#include <string.h>

#include "shadow.h"
#include "steps.h"

#define ROOM    64u /* stores; one more drains the oldest */
#define PIECE   ((size_t)8)
#define LONGEST ((size_t)4096) /* of one plain store */

struct entry {
    uintptr_t address;
    uint8_t size;
    uint8_t bytes[PIECE];
    uint8_t hidden[PIECE]; /* what lies under it while it is shown */
};

struct buffer {
    uint32_t count;
    struct entry entries[ROOM];
};

static struct buffer buffers[EX_MAX_ACTORS];
static uint32_t shown = MACHINE_NOBODY;
static uint8_t before[LONGEST];

void tso_reset(void)
{
    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++)
        buffers[i].count = 0;
    shown = MACHINE_NOBODY;
}

/* ---- Showing and hiding ---- */

static void put_on(const struct buffer *buffer)
{
    struct entry *entries = (struct entry *)buffer->entries;

    for (uint32_t i = 0; i < buffer->count; i++) {
        memcpy(entries[i].hidden, (void *)entries[i].address, entries[i].size);
        memcpy((void *)entries[i].address, entries[i].bytes, entries[i].size);
    }
}

static void take_off(const struct buffer *buffer)
{
    for (uint32_t i = buffer->count; i-- > 0;)
        memcpy((void *)buffer->entries[i].address, buffer->entries[i].hidden,
               buffer->entries[i].size);
}

void tso_show(uint32_t actor)
{
    if (machine.memory != EX_TSO || actor == shown)
        return;
    if (shown != MACHINE_NOBODY)
        take_off(&buffers[shown]);
    if (actor != MACHINE_NOBODY)
        put_on(&buffers[actor]);
    shown = actor;
}

/* ---- Draining ---- */

static uint64_t value_of(const struct entry *entry)
{
    uint64_t value = 0;

    memcpy(&value, entry->bytes, entry->size);
    return value;
}

void tso_drain(uint32_t actor)
{
    struct buffer *buffer = &buffers[actor];
    struct entry entry = buffer->entries[0];
    uint32_t viewer = shown;

    if (buffer->count == 0)
        return;
    tso_show(MACHINE_NOBODY);
    memcpy((void *)entry.address, entry.bytes, entry.size);
    buffer->count--;
    memmove(buffer->entries, buffer->entries + 1, buffer->count * sizeof entry);
    machine.epoch++;
    tso_show(viewer);
    if (machine.tracing)
        steps_trace((struct ex_step){.kind = EX_STEP_DRAIN,
                                     .actor = (uint8_t)actor,
                                     .size = entry.size,
                                     .order = MACHINE_PLAIN,
                                     .value = value_of(&entry),
                                     .address = (void *)entry.address});
}

void tso_flush(uint32_t actor)
{
    while (buffers[actor].count > 0)
        tso_drain(actor);
}

/* ---- Storing ---- */

/* One piece that memory shows already. */
static void push(uintptr_t address, const uint8_t *bytes, const uint8_t *hidden, size_t size)
{
    struct buffer *buffer = &buffers[machine.current];
    struct entry *entry;

    if (buffer->count == ROOM)
        tso_drain(machine.current);
    entry = &buffer->entries[buffer->count++];
    entry->address = address;
    entry->size = (uint8_t)size;
    memcpy(entry->bytes, bytes, size);
    memcpy(entry->hidden, hidden, size);
    machine.epoch++;
}

void tso_before_store(uintptr_t address, size_t size)
{
    if (size > LONGEST)
        machine_fail("scenario", "a store of %zu bytes under --tso", size);
    memcpy(before, (void *)address, size);
}

void tso_settle(uintptr_t address, size_t size)
{
    uint8_t bytes[LONGEST];

    memcpy(bytes, (void *)address, size);
    memcpy((void *)address, before, size); /* in case that an older store has to drain */
    for (size_t at = 0; at < size; at += PIECE) {
        size_t piece = size - at < PIECE ? size - at : PIECE;

        push(address + at, bytes + at, before + at, piece);
        memcpy((void *)(address + at), bytes + at, piece);
    }
}

bool tso_buffers(const struct machine_access *access)
{
    return access->kind == MACHINE_STORE && access->size <= PIECE &&
           (access->order == MACHINE_PLAIN || access->order != __ATOMIC_SEQ_CST);
}

bool tso_store(const struct machine_access *access)
{
    uint8_t old[PIECE];

    if (access->kind == MACHINE_LOAD)
        return false;
    if (!tso_buffers(access)) {
        if (access->kind != MACHINE_FENCE || access->order == __ATOMIC_SEQ_CST)
            tso_flush(machine.current);
        return false;
    }
    memcpy(old, (void *)access->address, access->size);
    push(access->address, (const uint8_t *)&access->operand, old, access->size);
    memcpy((void *)access->address, &access->operand, access->size);
    return true;
}

bool tso_waiting(uint32_t actor)
{
    return buffers[actor].count > 0;
}

bool tso_peek(uint32_t actor, uint32_t i, uintptr_t *address, size_t *size)
{
    if (i >= buffers[actor].count)
        return false;
    *address = buffers[actor].entries[i].address;
    *size = buffers[actor].entries[i].size;
    return true;
}

/* ---- Which drains can matter ---- */

static bool overlap(uintptr_t a, size_t a_size, uintptr_t b, size_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static bool holds(const struct buffer *buffer, uintptr_t address, size_t size)
{
    for (uint32_t i = 0; i < buffer->count; i++) {
        if (overlap(buffer->entries[i].address, buffer->entries[i].size, address, size))
            return true;
    }
    return false;
}

/* Two buffers that store to the same place: the order of their drains matters. */
static bool meet(uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < buffers[a].count; i++) {
        if (holds(&buffers[b], buffers[a].entries[i].address, buffers[a].entries[i].size))
            return true;
    }
    return false;
}

/* Somebody waits for a condition that reads this store. */
static bool awaited(const struct entry *entry, uint32_t actor)
{
    uint8_t readers = shadow_over(shadow_readers, entry->address - MACHINE_BASE, entry->size);

    for (uint32_t i = 0; i < machine.actor_count; i++) {
        if (i != actor && readers & 1u << i && machine.actors[i].status == MACHINE_WAITING)
            return true;
    }
    return false;
}

/* What the actor that stands before a step is about to do depends on this store. */
static bool noticed(const struct entry *entry, uint32_t actor, uint32_t current)
{
    const struct machine_access *pending;

    if (current == MACHINE_NOBODY || current == actor ||
        machine.actors[current].status != MACHINE_READY)
        return false;
    pending = &machine.actors[current].pending;
    return (pending->size > 0 &&
            overlap(pending->address, pending->size, entry->address, entry->size)) ||
           (pending->kind != MACHINE_LOAD && holds(&buffers[current], entry->address, entry->size));
}

/* The number of the oldest store that somebody might notice here; or the buffer's count. */
static uint32_t first_that_matters(uint32_t actor, uint32_t current)
{
    const struct buffer *buffer = &buffers[actor];
    uint32_t i = 0;

    while (i < buffer->count && !noticed(&buffer->entries[i], actor, current) &&
           !awaited(&buffer->entries[i], actor))
        i++;
    return i;
}

void tso_drain_what_matters(uint32_t actor, uint32_t current)
{
    uint32_t more = first_that_matters(actor, current);

    if (machine.single_drains || more == buffers[actor].count)
        more = 0;
    for (uint32_t i = 0; i <= more; i++)
        tso_drain(actor);
}

void tso_list_drains(struct machine_point *point)
{
    uint32_t wanted = 0;

    for (uint32_t i = 0; i < machine.actor_count; i++) {
        if (buffers[i].count > 0 && (point->count == 0 || machine.every_step ||
                                     first_that_matters(i, point->current) < buffers[i].count))
            wanted |= 1u << i;
    }
    for (uint32_t i = 0; i < machine.actor_count; i++) {
        for (uint32_t k = 0; k < machine.actor_count; k++) {
            if (wanted & 1u << i && meet(i, k))
                wanted |= 1u << k;
        }
    }
    for (uint32_t i = 0; i < machine.actor_count; i++) {
        if (wanted & 1u << i)
            point->moves[point->count++] = (uint8_t)(MACHINE_DRAIN | i);
    }
}

uint64_t tso_key(uint64_t key)
{
    for (uint32_t i = 0; i < machine.actor_count; i++) {
        key = steps_mix(key + buffers[i].count);
        for (uint32_t k = 0; k < buffers[i].count; k++) {
            const struct entry *entry = &buffers[i].entries[k];

            key = steps_mix(steps_mix(key ^ entry->address) + value_of(entry)) + entry->size;
        }
    }
    return key;
}

uint32_t tso_viewer(void)
{
    return shown;
}

void tso_transfer(void (*transfer)(void *memory, size_t size))
{
    transfer(&shown, sizeof shown);
    for (uint32_t i = 0; i < machine.actor_count; i++) {
        transfer(&buffers[i].count, sizeof buffers[i].count);
        transfer(buffers[i].entries, buffers[i].count * sizeof buffers[i].entries[0]);
    }
}
