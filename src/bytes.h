/* SPDX-License-Identifier: MIT */
/* Memory as bytes: zeroing the caller's, and little-endian fields of saved state. */
#ifndef VAPIC_BYTES_H
#define VAPIC_BYTES_H

#include <stddef.h>
#include <stdint.h>

static inline void zero_bytes(void *memory, size_t size)
{
    uint8_t *p = memory;

    for (size_t i = 0; i < size; i++)
        p[i] = 0;
}

/* `bytes` (1 to 8) of `value` at any alignment. */
static inline void put_le(uint8_t *to, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t get_le(const uint8_t *from, uint32_t bytes)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

#endif
