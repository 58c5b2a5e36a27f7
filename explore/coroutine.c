/* SPDX-License-Identifier: MIT */
/*
 * Switching stacks, by hand: ucontext's switch makes two system calls for the signal mask, which
 * would be most of the time of a run. Saved is what the ABI lets a callee keep; the floating-point
 * control words are the same for everybody.
 */
#include "coroutine.h"

__asm__(".text\n"
        ".p2align 4\n"
        ".globl coroutine_switch\n"
        ".type coroutine_switch, @function\n"
        "coroutine_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size coroutine_switch, . - coroutine_switch\n");

__asm__(".text\n"
        ".p2align 4\n"
        ".globl coroutine_mark\n"
        ".type coroutine_mark, @function\n"
        "coroutine_mark:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rdx, %rdi\n"
        "    subq $8, %rsp\n"
        "    call *%rsi\n"
        "    addq $8, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size coroutine_mark, . - coroutine_mark\n");

void *coroutine_prepare(uintptr_t top, void (*entry)(void))
{
    uintptr_t *stack = (uintptr_t *)(top & ~(uintptr_t)15);

    *--stack = 0; /* nobody to return to: ends a debugger's walk */
    *--stack = (uintptr_t)entry;
    for (int i = 0; i < 6; i++)
        *--stack = 0;
    return stack;
}
