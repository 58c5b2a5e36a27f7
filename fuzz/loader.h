/* SPDX-License-Identifier: MIT */
/*
 * What the two targets of the command's kernel loaders share: guest memory between two pages that
 * nobody may touch, so that a byte too far is a fault; the arguments by the head of the input; and
 * what must be true of a start that a loader calls good.
 *
 * An input is a head of 4 bytes (how much RAM, the initial RAM disk's size, the command line's
 * length) and then the kernel's file, to the input's last byte.
 */
#ifndef VAPIC_FUZZ_LOADER_H
#define VAPIC_FUZZ_LOADER_H

#include "fuzz.h"

#include "load.h"

struct fuzz_loader {
    struct vmm_mem mem;
    struct vmm_load_args args;
    struct vmm_start start;
    struct vmm_err err;
};

/* Reads the head and sets everything up; the RAM holds what the last input left there. */
struct fuzz_loader *fuzz_loader(const uint8_t *data, size_t size);

typedef int (*fuzz_load_fn)(const struct vmm_mem *mem, const struct vmm_load_args *args,
                            struct vmm_start *start, struct vmm_err *err);

/* Loads by `load` and by vmm_load(), and checks what came of it. */
void fuzz_load(struct fuzz_loader *l, fuzz_load_fn load);

#endif
