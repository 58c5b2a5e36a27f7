/* SPDX-License-Identifier: MIT */
/* The nested part of a saved record: saved.c, for state.c. */
#ifndef VAPIC_NESTED_SAVED_H
#define VAPIC_NESTED_SAVED_H

#include "nested.h"

#define NESTED_SAVED_SIZE 208u

/* Writes the part into `out`, which is zero; false: L1 runs, and there is none. Owner. */
bool vapic_nested_save(struct vapic *v, uint8_t *out);

/* The part into a vCPU that runs L1: RESTORED after it. VAPIC_E_FORMAT: nothing has changed. Owner.
 */
int vapic_nested_load_saved(struct vapic *v, const uint8_t *in);

#endif
