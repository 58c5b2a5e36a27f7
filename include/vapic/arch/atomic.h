/* SPDX-License-Identifier: MIT */
/*
 * Operations on memory that more than one party touches.
 *
 * The library and the model of the hardware reach shared words (PIR, ON, IRR, destination map, pin
 * words, events) through these functions and in no other way, so that a reader finds every such
 * access with one search, and so that a checker can put itself in their place. The memory order is
 * an argument at each use, and a comment there names the access it pairs with.
 *
 * A read-modify-write with VAPIC_SEQ_CST is a full barrier on x86 and costs no more than one with a
 * weaker order; the protocols prefer it to a store followed by a fence. There is no fence here: a
 * sequence count is written with release stores and read with acquire loads of the data itself.
 *
 * Only naturally aligned words may be passed. No function blocks or loops.
 */
#ifndef VAPIC_ARCH_ATOMIC_H
#define VAPIC_ARCH_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#define VAPIC_RELAXED __ATOMIC_RELAXED
#define VAPIC_ACQUIRE __ATOMIC_ACQUIRE
#define VAPIC_RELEASE __ATOMIC_RELEASE
#define VAPIC_ACQ_REL __ATOMIC_ACQ_REL
#define VAPIC_SEQ_CST __ATOMIC_SEQ_CST

/* The order must reach the builtin as a constant, also in a build without optimization. */
#define VAPIC_ATOMIC_FN static inline __attribute__((always_inline, unused))

#define VAPIC_ATOMIC_DEFINE(bits)                                                                  \
    VAPIC_ATOMIC_FN uint##bits##_t vapic_load##bits(const uint##bits##_t *p, int order)            \
    {                                                                                              \
        return __atomic_load_n(p, order);                                                          \
    }                                                                                              \
    VAPIC_ATOMIC_FN void vapic_store##bits(uint##bits##_t *p, uint##bits##_t v, int order)         \
    {                                                                                              \
        __atomic_store_n(p, v, order);                                                             \
    }                                                                                              \
    VAPIC_ATOMIC_FN uint##bits##_t vapic_xchg##bits(uint##bits##_t *p, uint##bits##_t v,           \
                                                    int order)                                     \
    {                                                                                              \
        return __atomic_exchange_n(p, v, order);                                                   \
    }                                                                                              \
    VAPIC_ATOMIC_FN uint##bits##_t vapic_or##bits(uint##bits##_t *p, uint##bits##_t v, int order)  \
    {                                                                                              \
        return __atomic_fetch_or(p, v, order);                                                     \
    }                                                                                              \
    VAPIC_ATOMIC_FN uint##bits##_t vapic_and##bits(uint##bits##_t *p, uint##bits##_t v, int order) \
    {                                                                                              \
        return __atomic_fetch_and(p, v, order);                                                    \
    }                                                                                              \
    VAPIC_ATOMIC_FN uint##bits##_t vapic_add##bits(uint##bits##_t *p, uint##bits##_t v, int order) \
    {                                                                                              \
        return __atomic_fetch_add(p, v, order);                                                    \
    }                                                                                              \
    VAPIC_ATOMIC_FN bool vapic_cas##bits(uint##bits##_t *p, uint##bits##_t *expected,              \
                                         uint##bits##_t v, int order)                              \
    {                                                                                              \
        return __atomic_compare_exchange_n(p, expected, v, false, order, VAPIC_RELAXED);           \
    }

VAPIC_ATOMIC_DEFINE(16)
VAPIC_ATOMIC_DEFINE(32)
VAPIC_ATOMIC_DEFINE(64)

/* Pointers, of any type: `p` is the address of the pointer. */
#define vapic_load_ptr(p, order)     __atomic_load_n(p, order)
#define vapic_store_ptr(p, v, order) __atomic_store_n(p, v, order)

#undef VAPIC_ATOMIC_DEFINE

#endif
