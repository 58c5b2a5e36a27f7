/* SPDX-License-Identifier: MIT */
/*
 * A VM without guests and without a back end, for scenarios of a few dozen steps: what world.h is
 * for everything else. The host's lock is a mutex of the room, its other callbacks do nothing.
 */
#ifndef VAPIC_EXPLORE_BARE_H
#define VAPIC_EXPLORE_BARE_H

#include "explore.h"

#include "vapic/vapic.h"

#define BARE_VCPUS 4u
#define BARE_PAGE  4096u

struct bare {
    uint32_t lock;
    struct vapic_vm vm;
    struct vapic v[BARE_VCPUS];
    uint8_t page[BARE_VCPUS][BARE_PAGE] __attribute__((aligned(4096)));
    uint8_t memory[65536] __attribute__((aligned(64)));
};

extern const struct vapic_now bare_now;

/* `more`: callbacks that this scenario has, the rest is NULL; the context of all is `b`. */
void bare_make(struct bare *b, const struct vapic_vm_config *config, const struct vapic_host *more);
/* Initialized and software enabled, not added. */
void bare_make_vcpu(struct bare *b, uint32_t n, uint32_t id);
void bare_add(struct bare *b, uint32_t n);
void bare_write(struct vapic *v, uint32_t offset, uint32_t value);
void bare_require(bool good, const char *what);

#endif
