/* SPDX-License-Identifier: MIT */
/* See fuzz.h. */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void fuzz_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

/* ---- The mutator ---- */

/* libFuzzer's own mutations of a few bytes; engines without it never call a custom mutator. */
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

struct records {
    uint8_t *data;
    size_t count, room;
};

static uint32_t below(uint64_t *state, size_t n)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % n);
}

static uint8_t *record(struct records *r, size_t n)
{
    return r->data + n * FUZZ_RECORD;
}

static void change(struct records *r, uint64_t *state)
{
    if (r->count != 0)
        LLVMFuzzerMutate(record(r, below(state, r->count)), FUZZ_RECORD, FUZZ_RECORD);
}

/* A new one is a copy of another, or zeros, and then changed. */
static void insert(struct records *r, uint64_t *state)
{
    size_t at = below(state, r->count + 1);
    uint8_t bytes[FUZZ_RECORD] = {0};

    if (r->count == r->room)
        return;
    if (r->count != 0 && below(state, 4) != 0)
        memcpy(bytes, record(r, below(state, r->count)), FUZZ_RECORD);
    memmove(record(r, at + 1), record(r, at), (r->count - at) * FUZZ_RECORD);
    memcpy(record(r, at), bytes, FUZZ_RECORD);
    r->count++;
    if (below(state, 3) != 0)
        LLVMFuzzerMutate(record(r, at), FUZZ_RECORD, FUZZ_RECORD);
}

static void drop(struct records *r, uint64_t *state)
{
    size_t at, many;

    if (r->count == 0)
        return;
    at = below(state, r->count);
    many = 1 + below(state, below(state, 4) == 0 ? r->count - at : 1);
    memmove(record(r, at), record(r, at + many), (r->count - at - many) * FUZZ_RECORD);
    r->count -= many;
}

static void swap(struct records *r, uint64_t *state)
{
    uint8_t bytes[FUZZ_RECORD];
    size_t a, b;

    if (r->count == 0)
        return;
    a = below(state, r->count);
    b = below(state, r->count);
    memcpy(bytes, record(r, a), FUZZ_RECORD);
    memmove(record(r, a), record(r, b), FUZZ_RECORD);
    memcpy(record(r, b), bytes, FUZZ_RECORD);
}

/* A run of records once more, at the end. */
static void repeat(struct records *r, uint64_t *state)
{
    size_t at, many;

    if (r->count == 0 || r->count == r->room)
        return;
    at = below(state, r->count);
    many = 1 + below(state, r->count - at);
    if (many > r->room - r->count)
        many = r->room - r->count;
    memcpy(record(r, r->count), record(r, at), many * FUZZ_RECORD);
    r->count += many;
}

size_t fuzz_mutate(uint8_t *data, size_t size, size_t max_size, unsigned seed, size_t head)
{
    static void (*const ways[])(struct records * r, uint64_t * state) = {
        change, change, change, insert, insert, drop, swap, repeat};
    struct records r;
    uint64_t state = seed;

    if (max_size < head + FUZZ_RECORD)
        return LLVMFuzzerMutate(data, size, max_size);
    if (size < head) {
        memset(data + size, 0, head - size);
        size = head;
    }
    r = (struct records){data + head, (size - head) / FUZZ_RECORD, (max_size - head) / FUZZ_RECORD};
    if (head != 0 && below(&state, 16) == 0)
        LLVMFuzzerMutate(data, head, head);
    for (uint32_t n = 1 + below(&state, 4); n > 0; n--)
        ways[below(&state, sizeof(ways) / sizeof(ways[0]))](&r, &state);
    return head + r.count * FUZZ_RECORD;
}
