/* SPDX-License-Identifier: MIT */
/*
 * What the hypervisors of test_avic_threads.c and test_posted_threads.c have in common. In these
 * programs every vCPU is a thread, and a host-physical address is the pointer itself: nothing of
 * accel_fixture.h, which is single-threaded, is used.
 */
#ifndef VAPIC_TESTS_THREAD_HOST_H
#define VAPIC_TESTS_THREAD_HOST_H

#include "control_block.h"

#include <sched.h>

#include "vapic/accel.h"

/* ---- Callbacks of struct vapic_host and struct vapic_sil_host ---- */

/* No vCPU is removed while others run. */
static inline void th_quiesce(void *ctx)
{
    (void)ctx;
}

static inline uint64_t th_physical(void *ctx, const void *memory)
{
    (void)ctx;
    return (uintptr_t)memory;
}

static inline void th_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE) != 0)
        sched_yield();
}

static inline void th_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

static inline void *th_memory(void *ctx, uint64_t hpa, size_t size)
{
    (void)ctx;
    (void)size;
    return (void *)(uintptr_t)hpa;
}

/* For the walk of the nested page tables, which lead FEE00000h to `memory` if it is `mapped`. */
static inline bool th_walk(uint64_t gpa, bool mapped, const void *memory,
                           struct vapic_sil_page *page)
{
    if (gpa != APIC_DEFAULT_BASE || !mapped)
        return false;
    *page = (struct vapic_sil_page){(uintptr_t)memory, true, true};
    return true;
}

/* ---- The guest ---- */

/* MOV of a 32-bit register to FEE00000h + `offset`. */
static inline enum vapic_sil_result th_write(struct vapic_sil_cpu *cpu, uint32_t offset,
                                             uint32_t value)
{
    struct vapic_sil_access access = {.gpa = APIC_DEFAULT_BASE + offset,
                                      .kind = VAPIC_SIL_WRITE,
                                      .size = 4,
                                      .length = 3,
                                      .value = value};

    return vapic_sil_access(cpu, &access);
}

/* Nobody runs start-up code: `v` is let out of wait-for-SIPI. */
static inline void th_start(struct vapic_vm *vm, struct vapic *v)
{
    struct vapic_entry entry;

    vapic_send(vm, (struct vapic_msg){.icr = APIC_DM_SIPI | APIC_ICR_ASSERT | 0x10,
                                      .dest = vapic_id(v),
                                      .source = VAPIC_FROM_DEVICE});
    vapic_enter(v, VAPIC_CAN_INIT, (struct vapic_now){0}, &entry);
    vapic_exit(v, 0, true);
}

#endif
