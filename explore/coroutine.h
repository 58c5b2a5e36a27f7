/* SPDX-License-Identifier: MIT */
/*
 * Stacks to run on. An actor is started on a stack of its own and left at any call; leaving it for
 * good costs nothing, because nothing but the stack belongs to it. Used by machine.c.
 */
#ifndef VAPIC_EXPLORE_COROUTINE_H
#define VAPIC_EXPLORE_COROUTINE_H

#include <stddef.h>
#include <stdint.h>

/* The stack pointer to switch to for a first call of `entry` on a stack that ends at `top`. `entry`
 * must never return. */
void *coroutine_prepare(uintptr_t top, void (*entry)(void));

/* Saves the caller in *from and goes on where `to` was saved. */
void coroutine_switch(void **from, void *to);

/* What the caller's callers keep in registers across calls, and the stack pointer. */
struct coroutine_registers {
    uint64_t rbx, rbp, r12, r13, r14, r15, rsp;
};
void coroutine_registers(struct coroutine_registers *registers);

#endif
