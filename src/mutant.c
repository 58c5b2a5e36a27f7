/* SPDX-License-Identifier: MIT */
/* The switches of mutant.h: mutable data, and so in the library for tests only. */
#include "mutant.h"

#include <stddef.h>

#ifdef VAPIC_MUTANTS
const struct vapic_mutant_text vapic_mutant_texts[VAPIC_MUTANT_COUNT] = {
    {"NONE", "the code as it is"},
#define VAPIC_X(name, text) {#name, text},
    VAPIC_MUTANT_LIST(VAPIC_X)
#undef VAPIC_X
};
enum vapic_mutant vapic_mutant = VAPIC_MUTANT_NONE;
void (*vapic_point)(struct vapic *target) = NULL;
#endif
