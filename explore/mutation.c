/* SPDX-License-Identifier: MIT */
/*
 * Which mutation is on, and which places there are. A place is a line of the library: of inlined
 * functions the innermost, but for those of vapic/arch/atomic.h. Places of the silicon's model and
 * of this room are none: the library must be right on hardware as it is.
 */
#include "mutation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/mutant.h"
#include "shadow.h"
#include "symbols.h"

bool mutation_orders, mutation_delays;

static char chosen[160];  /* the place; "" */
static char dropped[160]; /* the notification; "" */
static bool met;          /* one of them was come to */
static bool profiling;

/* ---- Places, by program counter ---- */

enum kind { ORDER, SWAP, KINDS };

static const char *const kind_names[KINDS] = {"order", "swap"};

struct place {
    uintptr_t pc; /* 0: free */
    char *name;   /* NULL: not of the library */
    bool chosen;
};

#define PLACES 16384u /* a power of two, many more than there are accesses in the library */

static struct place places[PLACES];

/* Line 96 of src/accel/post.c, of post_page(), which begins on line 87, as "post.c:post_page+9". */
static char *name_of(uintptr_t pc)
{
    struct symbols_place at = symbols_place(pc);
    char name[160];

    if (at.file == NULL || at.function == NULL || strncmp(at.file, "src/", 4) != 0)
        return NULL;
    snprintf(name, sizeof(name), "%s:%s+%d", strrchr(at.file, '/') + 1, at.function,
             at.line - at.first);
    return strdup(name);
}

static struct place *place_of(uintptr_t pc)
{
    uint32_t at = (uint32_t)((pc * UINT64_C(0x9E3779B97F4A7C15)) >> 40) % PLACES;

    while (places[at].pc != 0 && places[at].pc != pc)
        at = (at + 1) % PLACES;
    if (places[at].pc == 0) {
        places[at].pc = pc;
        places[at].name = name_of(pc);
        places[at].chosen = places[at].name != NULL && strcmp(places[at].name, chosen) == 0;
    }
    return &places[at];
}

static void choose_places(void)
{
    for (uint32_t i = 0; i < PLACES; i++)
        places[i].chosen = places[i].name != NULL && strcmp(places[i].name, chosen) == 0;
}

/* ---- What the places touch ---- */

struct touch {
    uint64_t key; /* of all the rest; 0: free */
    const struct place *place;
    enum kind kind;
    uint32_t actor;
    size_t offset, size;
    bool write;
};

#define TOUCHES 65536u /* a power of two */

static struct touch touches[TOUCHES];
static uint32_t touch_count;

static void touch(const struct place *place, enum kind kind, const struct machine_access *access)
{
    size_t offset = access->address - MACHINE_BASE;
    uint64_t key = (uint64_t)(place - places) << 40 | (uint64_t)kind << 36 |
                   (uint64_t)machine.current << 32 | (uint64_t)access->size << 24 | offset;
    uint32_t at = (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % TOUCHES;

    if (offset >= EX_MEMORY || access->size > EX_MEMORY - offset || touch_count == TOUCHES / 2)
        return;
    for (; touches[at].place != NULL; at = (at + 1) % TOUCHES)
        if (touches[at].key == key)
            return;
    touch_count++;
    touches[at] = (struct touch){
        key, place, kind, machine.current, offset, access->size, access->kind != MACHINE_LOAD};
}

static bool is_shared(const struct touch *t)
{
    return shadow_conflicts(t->offset, t->size, t->write, (uint8_t) ~(1u << t->actor));
}

uint8_t mutation_changed_order(const struct machine_access *access)
{
    struct place *place = place_of(access->pc);

    if (place->name == NULL || access->order == __ATOMIC_RELAXED)
        return access->order;
    if (profiling)
        touch(place, ORDER, access);
    met |= place->chosen;
    return place->chosen ? __ATOMIC_RELAXED : access->order;
}

bool mutation_is_delayed(const struct machine_access *access)
{
    struct place *place = place_of(access->pc);

    if (place->name == NULL)
        return false;
    if (profiling)
        touch(place, SWAP, access);
    met |= place->chosen;
    return place->chosen;
}

/* ---- Notifications ---- */

#define WHATS 64u

static char *noted[WHATS];

bool ex_dropped(const char *what)
{
    for (uint32_t i = 0; profiling && i < WHATS; i++) {
        if (noted[i] != NULL && strcmp(noted[i], what) == 0)
            break;
        if (noted[i] == NULL) {
            noted[i] = strdup(what);
            break;
        }
    }
    if (dropped[0] == '\0' || strcmp(dropped, what) != 0)
        return false;
    met = true;
    return true;
}

/* ---- Selecting ---- */

static int unknown(const char *name, char *error, size_t error_size)
{
    snprintf(error, error_size,
             "no mutation is called \"%s\": see --mutants --list, or order:, swap:, drop:", name);
    return -1;
}

static int select_switch(const char *name, char *error, size_t error_size)
{
    for (uint32_t i = 1; i < VAPIC_MUTANT_COUNT; i++) {
        if (strcmp(vapic_mutant_texts[i].name, name) == 0) {
            vapic_mutant = (enum vapic_mutant)i;
            return 0;
        }
    }
    return unknown(name, error, error_size);
}

int mutation_select(const char *name, char *error, size_t error_size)
{
    const char *rest = name != NULL ? strchr(name, ':') : NULL;
    int result = 0;

    vapic_mutant = VAPIC_MUTANT_NONE;
    mutation_orders = mutation_delays = profiling;
    chosen[0] = dropped[0] = '\0';
    met = rest == NULL;
    if (rest == NULL) {
        result = name != NULL ? select_switch(name, error, error_size) : 0;
    } else if (strncmp(name, "drop:", 5) == 0) {
        snprintf(dropped, sizeof(dropped), "%s", rest + 1);
    } else {
        bool order = strncmp(name, "order:", 6) == 0, swap = strncmp(name, "swap:", 5) == 0;

        if (!order && !swap)
            return unknown(name, error, error_size);
        mutation_orders |= order;
        mutation_delays |= swap;
        snprintf(chosen, sizeof(chosen), "%s", rest + 1);
    }
    choose_places();
    return result;
}

bool ex_mutation_met(void)
{
    return met;
}

/* ---- Profiles ---- */

static void forget_profile(void)
{
    memset(touches, 0, sizeof(touches));
    touch_count = 0;
    for (uint32_t i = 0; i < WHATS; i++) {
        free(noted[i]);
        noted[i] = NULL;
    }
}

void mutation_profile_begin(void)
{
    forget_profile();
    profiling = true;
}

void mutation_profile_end(void (*note)(const char *kind, const char *name, bool shared))
{
    profiling = false;
    for (uint32_t i = 0; i < TOUCHES; i++)
        if (touches[i].place != NULL)
            note(kind_names[touches[i].kind], touches[i].place->name, is_shared(&touches[i]));
    for (uint32_t i = 0; i < WHATS && noted[i] != NULL; i++)
        note("drop", noted[i], true);
    forget_profile();
}
