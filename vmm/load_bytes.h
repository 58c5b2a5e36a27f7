/* SPDX-License-Identifier: MIT */
/* Little-endian fields at any alignment, and checked views of a blob. For the loaders only. */
#ifndef VMM_LOAD_BYTES_H
#define VMM_LOAD_BYTES_H

#include <stdint.h>
#include <string.h>

#include "load.h"

static inline uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static inline uint64_t get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static inline void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static inline void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

/* Rounds up; the callers' values stay far below 2^63. */
static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

/* The bytes [off, off + len) of a blob, or NULL when they are not all there. */
static inline const uint8_t *blob_at(const struct vmm_blob *b, uint64_t off, uint64_t len)
{
    if (off > b->size || len > b->size - off) {
        return NULL;
    }
    return b->data + off;
}

/* Offset of the multiboot header, which lies in the first 8 KiB, or VMM_MULTIBOOT_NONE. */
#define VMM_MULTIBOOT_NONE UINT64_MAX
uint64_t vmm_multiboot_header(const struct vmm_blob *b);

/* Copies the command line to its place; `prefix` may be empty. */
int vmm_load_cmdline(const struct vmm_mem *mem, const char *prefix, const char *cmdline,
                     size_t limit, struct vmm_err *err);

#endif
