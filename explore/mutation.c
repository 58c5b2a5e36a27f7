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
#include "engine.h"

bool mutation_orders, mutation_delays;

static char chosen[160];  /* the place; "" */
static char dropped[160]; /* the notification; "" */
static bool met;          /* one of them was come to */
static void (*profile)(const char *kind, const char *name);

/* ---- Places, by program counter ---- */

struct place {
    uintptr_t pc; /* 0: free */
    char *name;   /* NULL: not of the library */
    bool chosen, noted_order, noted_swap;
};

#define PLACES 16384u /* a power of two, many more than there are accesses in the library */

static struct place places[PLACES];

/* "src/accel/post.c:88 post_page" of the debug information as "post.c:88:post_page". */
static char *name_of(uintptr_t pc)
{
    char place[160], *at, *slash;

    snprintf(place, sizeof(place), "%s", ex_place_name(pc));
    if (strncmp(place, "src/", 4) != 0 || (at = strchr(place, ' ')) == NULL)
        return NULL;
    *at = ':';
    slash = strrchr(place, '/');
    return strdup(slash + 1);
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

uint8_t mutation_changed_order(uintptr_t pc, uint8_t order)
{
    struct place *place = place_of(pc);

    if (place->name == NULL || order == __ATOMIC_RELAXED)
        return order;
    if (profile != NULL && !place->noted_order) {
        place->noted_order = true;
        profile("order", place->name);
    }
    met |= place->chosen;
    return place->chosen ? __ATOMIC_RELAXED : order;
}

bool mutation_is_delayed(uintptr_t pc)
{
    struct place *place = place_of(pc);

    if (place->name == NULL)
        return false;
    if (profile != NULL && !place->noted_swap) {
        place->noted_swap = true;
        profile("swap", place->name);
    }
    met |= place->chosen;
    return place->chosen;
}

/* ---- Notifications ---- */

#define WHATS 64u

static char *noted[WHATS];

bool ex_dropped(const char *what)
{
    for (uint32_t i = 0; profile != NULL && i < WHATS; i++) {
        if (noted[i] != NULL && strcmp(noted[i], what) == 0)
            break;
        if (noted[i] == NULL) {
            noted[i] = strdup(what);
            profile("drop", noted[i]);
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
    mutation_orders = mutation_delays = profile != NULL;
    chosen[0] = dropped[0] = '\0';
    met = rest == NULL;
    if (name == NULL)
        return 0;
    if (rest == NULL) {
        result = select_switch(name, error, error_size);
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

void mutation_profile(void (*note)(const char *kind, const char *name))
{
    profile = note;
    mutation_orders = mutation_delays = note != NULL;
    for (uint32_t i = 0; i < PLACES; i++)
        places[i].noted_order = places[i].noted_swap = false;
    for (uint32_t i = 0; i < WHATS; i++) {
        free(noted[i]);
        noted[i] = NULL;
    }
}
