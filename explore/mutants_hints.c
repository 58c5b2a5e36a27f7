/* SPDX-License-Identifier: MIT */
/* Where each mutant is known to be found. Made by tools/mutant-hints.py. */
#include "mutants.h"

const struct ex_mutant_hint ex_mutant_hints[] = {
    {"WHERE_READ_EARLY", "post-to-sleeper", EX_NONE, EX_SC, EX_SYSTEMATIC},
};
const size_t ex_mutant_hint_count = sizeof(ex_mutant_hints) / sizeof(ex_mutant_hints[0]);
