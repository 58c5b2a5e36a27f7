/* SPDX-License-Identifier: MIT */
/*
 * What all fuzz targets share. A target is one file, target_<name>.c, with the entry point that
 * libFuzzer, AFL++, Honggfuzz and OSS-Fuzz agree on. It owns no memory that grows: what it needs is
 * static and set back before each input, so that an input's effect follows from its bytes alone.
 *
 *      fuzz.h          reading an input, checks
 *      fuzz.c          what a failed check does; the mutator for inputs that are lists of records
 *      vm.h, vm.c      a small VM on the library alone, set back by one copy
 *      cmocka.h        the tests' fixtures in a build without cmocka: a failure aborts
 *      replay.c        main() for builds without a fuzzing engine: runs files once each
 *
 * docs/fuzzing.md says how to run and to reproduce.
 */
#ifndef VAPIC_FUZZ_H
#define VAPIC_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* ---- Reading: what is not there any more reads as zeros ---- */

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

static inline void fuzz_bytes(struct fuzz_input *in, void *to, size_t size)
{
    size_t have = in->left < size ? in->left : size;

    memset(to, 0, size);
    if (have != 0)
        memcpy(to, in->data, have);
    in->data += have;
    in->left -= have;
}

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
    uint8_t value;

    fuzz_bytes(in, &value, sizeof(value));
    return value;
}

static inline uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint64_t value;

    fuzz_bytes(in, &value, sizeof(value));
    return value;
}

/* ---- Operations: an input is a head and then records of 8 bytes ---- */

#define FUZZ_RECORD 8u

struct fuzz_op {
    uint8_t kind;
    uint8_t who; /* which vCPU, how wide, and so on: see the target */
    uint16_t where;
    uint32_t value;
};

/* False: the input is used up. A record that is cut off ends it. */
static inline bool fuzz_next(struct fuzz_input *in, struct fuzz_op *op)
{
    if (in->left < FUZZ_RECORD)
        return false;
    fuzz_bytes(in, op, sizeof(*op));
    return true;
}

/* LLVMFuzzerCustomMutator() for such inputs: inserts, drops, copies, swaps and changes records. */
size_t fuzz_mutate(uint8_t *data, size_t size, size_t max_size, unsigned seed, size_t head);

/* ---- Checks ---- */

_Noreturn void fuzz_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The text says what the numbers mean. */
#define fuzz_check(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, __VA_ARGS__);                                            \
    } while (0)

#endif
