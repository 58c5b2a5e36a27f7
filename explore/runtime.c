/* SPDX-License-Identifier: MIT */
/*
 * The thread-sanitizer run-time of this room: what the compilers (gcc and clang) call for each
 * access of the code that they instrument. Nothing is decided here; steps.c gets every access in
 * one form. Memory that is copied or filled by a call comes here, too: the build redirects the
 * instrumented objects' memcpy(), memmove() and memset() to the three functions at the end.
 *
 * A plain access is made by the compiled code after the call, an atomic one by us.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "entry.h"
#include "machine.h"
#include "mutation.h"
#include "steps.h"

/* ---- Plain accesses ---- */

static inline void plain(const volatile void *address, size_t size, bool write, uintptr_t pc,
                         uint64_t aside)
{
    if (machine.active)
        machine_plain((uintptr_t)address, size, write, pc, aside);
}

#define PLAIN(name, size, write)                                                                   \
    ENTRY(__tsan_##name);                                                                          \
    ENTERED void entered___tsan_##name(void *address)                                              \
    {                                                                                              \
        plain(address, size, write, entry_pc(), 0);                                                \
    }                                                                                              \
    ENTRY(__tsan_##name##_pc);                                                                     \
    ENTERED void entered___tsan_##name##_pc(void *address, void *pc)                               \
    {                                                                                              \
        plain(address, size, write, (uintptr_t)pc, 0);                                             \
    }

#define READ_WRITE(name, size)                                                                     \
    ENTRY(__tsan_##name);                                                                          \
    ENTERED void entered___tsan_##name(void *address)                                              \
    {                                                                                              \
        uintptr_t pc = entry_pc();                                                                 \
                                                                                                   \
        plain(address, size, false, pc, 0);                                                        \
        plain(address, size, true, pc, 0);                                                         \
    }

#define PLAIN_SIZE(size)                                                                           \
    PLAIN(read##size, size, false)                                                                 \
    PLAIN(write##size, size, true)                                                                 \
    PLAIN(unaligned_read##size, size, false)                                                       \
    PLAIN(unaligned_write##size, size, true)                                                       \
    PLAIN(volatile_read##size, size, false)                                                        \
    PLAIN(volatile_write##size, size, true)                                                        \
    PLAIN(unaligned_volatile_read##size, size, false)                                              \
    PLAIN(unaligned_volatile_write##size, size, true)                                              \
    READ_WRITE(read_write##size, size)                                                             \
    READ_WRITE(unaligned_read_write##size, size)

PLAIN_SIZE(1)
PLAIN_SIZE(2)
PLAIN_SIZE(4)
PLAIN_SIZE(8)
PLAIN_SIZE(16)

#define RANGE(name, write)                                                                         \
    ENTRY(__tsan_##name##_range);                                                                  \
    ENTERED void entered___tsan_##name##_range(void *address, size_t size)                         \
    {                                                                                              \
        if (size > 0)                                                                              \
            plain(address, size, write, entry_pc(), 0);                                            \
    }                                                                                              \
    ENTRY(__tsan_##name##_range_pc);                                                               \
    ENTERED void entered___tsan_##name##_range_pc(void *address, size_t size, void *pc)            \
    {                                                                                              \
        if (size > 0)                                                                              \
            plain(address, size, write, (uintptr_t)pc, 0);                                         \
    }

RANGE(read, false)
RANGE(write, true)

/* ---- Atomic accesses ---- */

static inline uint64_t atomic(struct machine_access access)
{
    if (machine.active)
        access.order = mutation_order(&access);
    return machine_atomic(&access);
}

#define ACCESS(bits, p, k, o, v)                                                                   \
    (struct machine_access)                                                                        \
    {                                                                                              \
        .address = (uintptr_t)(p), .size = bits / 8, .kind = (k), .order = (uint8_t)(o),           \
        .operand = (uint##bits##_t)(v), .pc = entry_pc()                                           \
    }

#define FETCH(bits, name, operation)                                                               \
    ENTRY(__tsan_atomic##bits##_##name);                                                           \
    ENTERED uint##bits##_t entered___tsan_atomic##bits##_##name(volatile uint##bits##_t *p,        \
                                                                uint##bits##_t v, int order)       \
    {                                                                                              \
        struct machine_access access = ACCESS(bits, p, MACHINE_RMW, order, v);                     \
                                                                                                   \
        access.op = operation;                                                                     \
        return (uint##bits##_t)atomic(access);                                                     \
    }

#define COMPARE(bits, strength)                                                                    \
    ENTRY(__tsan_atomic##bits##_compare_exchange_##strength);                                      \
    ENTERED int entered___tsan_atomic##bits##_compare_exchange_##strength(                         \
        volatile uint##bits##_t *p, uint##bits##_t *expected, uint##bits##_t v, int order,         \
        int failure)                                                                               \
    {                                                                                              \
        uint##bits##_t old, wanted = *expected;                                                    \
        struct machine_access access = ACCESS(bits, p, MACHINE_CAS, order, v);                     \
                                                                                                   \
        access.expected = wanted;                                                                  \
        access.failure = (uint8_t)failure;                                                         \
        access.aside = (uintptr_t)expected;                                                        \
        old = (uint##bits##_t)atomic(access);                                                      \
        if (old == wanted)                                                                         \
            return 1;                                                                              \
        *expected = old;                                                                           \
        return 0;                                                                                  \
    }

#define ATOMIC(bits)                                                                               \
    ENTRY(__tsan_atomic##bits##_load);                                                             \
    ENTERED uint##bits##_t entered___tsan_atomic##bits##_load(const volatile uint##bits##_t *p,    \
                                                              int order)                           \
    {                                                                                              \
        return (uint##bits##_t)atomic(ACCESS(bits, p, MACHINE_LOAD, order, 0));                    \
    }                                                                                              \
    ENTRY(__tsan_atomic##bits##_store);                                                            \
    ENTERED void entered___tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, \
                                                     int order)                                    \
    {                                                                                              \
        atomic(ACCESS(bits, p, MACHINE_STORE, order, v));                                          \
    }                                                                                              \
    FETCH(bits, exchange, MACHINE_XCHG)                                                            \
    FETCH(bits, fetch_add, MACHINE_ADD)                                                            \
    FETCH(bits, fetch_sub, MACHINE_SUB)                                                            \
    FETCH(bits, fetch_and, MACHINE_AND)                                                            \
    FETCH(bits, fetch_or, MACHINE_OR)                                                              \
    FETCH(bits, fetch_xor, MACHINE_XOR)                                                            \
    FETCH(bits, fetch_nand, MACHINE_NAND)                                                          \
    COMPARE(bits, strong)                                                                          \
    COMPARE(bits, weak)                                                                            \
    ENTRY(__tsan_atomic##bits##_compare_exchange_val);                                             \
    ENTERED uint##bits##_t entered___tsan_atomic##bits##_compare_exchange_val(                     \
        volatile uint##bits##_t *p, uint##bits##_t wanted, uint##bits##_t v, int order,            \
        int failure)                                                                               \
    {                                                                                              \
        struct machine_access access = ACCESS(bits, p, MACHINE_CAS, order, v);                     \
                                                                                                   \
        access.expected = wanted;                                                                  \
        access.failure = (uint8_t)failure;                                                         \
        return (uint##bits##_t)atomic(access);                                                     \
    }

ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)

ENTRY(__tsan_atomic_thread_fence);
ENTERED void entered___tsan_atomic_thread_fence(int order)
{
    atomic(
        (struct machine_access){.kind = MACHINE_FENCE, .order = (uint8_t)order, .pc = entry_pc()});
}

/* Orders the compiler only. */
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order)
{
    (void)order;
}

/* ---- What needs nothing done ---- */

void __tsan_init(void);
void __tsan_init(void)
{
}

void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc)
{
    (void)pc;
}

void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}

/* ---- Copies and fills: eight bytes a step, for nothing says that they are indivisible ---- */

#define CHUNK ((size_t)8)

static inline size_t chunk(size_t left)
{
    return left < CHUNK ? left : CHUNK;
}

/* What a copy still has to do is part of the actor's state. */
static inline uint64_t hand(const void *to, const void *from, size_t size, uint64_t value)
{
    return steps_mix((uintptr_t)to + steps_mix((uintptr_t)from + steps_mix(size + value)));
}

static void *copy_upwards(void *to, const void *from, size_t size)
{
    uintptr_t pc = entry_pc();

    for (size_t at = 0, step; machine.active && at < size; at += step) {
        uint64_t value = 0;

        step = chunk(size - at);
        plain((const char *)from + at, step, false, pc, hand(to, from, size, 0));
        memcpy(&value, (const char *)from + at, step);
        plain((char *)to + at, step, true, pc, hand(to, from, size, value));
        memcpy((char *)to + at, &value, step);
    }
    return machine.active ? to : memcpy(to, from, size);
}

ENTRY(machine_memcpy);
ENTERED void *entered_machine_memcpy(void *to, const void *from, size_t size)
{
    return copy_upwards(to, from, size);
}

ENTRY(machine_memmove);
ENTERED void *entered_machine_memmove(void *to, const void *from, size_t size)
{
    uintptr_t pc = entry_pc();

    if ((uintptr_t)to <= (uintptr_t)from || (uintptr_t)from + size <= (uintptr_t)to)
        return copy_upwards(to, from, size);
    for (size_t left = size, step; machine.active && left > 0; left -= step) {
        uint64_t value = 0;

        step = chunk(left);
        plain((const char *)from + left - step, step, false, pc, hand(to, from, left, 0));
        memcpy(&value, (const char *)from + left - step, step);
        plain((char *)to + left - step, step, true, pc, hand(to, from, left, value));
        memcpy((char *)to + left - step, &value, step);
    }
    return machine.active ? to : memmove(to, from, size);
}

ENTRY(machine_memset);
ENTERED void *entered_machine_memset(void *to, int byte, size_t size)
{
    uintptr_t pc = entry_pc();

    for (size_t at = 0, step; machine.active && at < size; at += step) {
        step = chunk(size - at);
        plain((char *)to + at, step, true, pc, hand(to, NULL, size, (uint8_t)byte));
        memset((char *)to + at, byte, step);
    }
    return machine.active ? to : memset(to, byte, size);
}
