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

/* Saves the caller in *from, as if it were left, calls then(arg) and goes on. Who switches to *from
 * later, with the stack as it was at that call, comes back from coroutine_mark() once more. */
void coroutine_mark(void **from, void (*then)(void *arg), void *arg);

#endif
