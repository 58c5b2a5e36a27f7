/* SPDX-License-Identifier: MIT */
/* The switches of mutant.h. Part of the library for tests only. */
#include "mutant.h"

#include <stddef.h>

enum vapic_mutant vapic_mutant = VAPIC_MUTANT_NONE;
void (*vapic_point)(struct vapic *target) = NULL;
