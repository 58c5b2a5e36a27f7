/* SPDX-License-Identifier: MIT */
/* The switches of mutant.h: mutable data, and so in the library for tests only. */
#include "mutant.h"

#include <stddef.h>

#ifdef VAPIC_MUTANTS
enum vapic_mutant vapic_mutant = VAPIC_MUTANT_NONE;
void (*vapic_point)(struct vapic *target) = NULL;
#endif
