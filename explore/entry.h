/* SPDX-License-Identifier: MIT */
/*
 * How actors come into the engine: ENTRY(f) defines the function that they call, f; it notes what
 * its caller has in registers, goes over to the engine's own stack of the actor, and calls the
 * static function entered_f. So an actor's stack has nothing on it but what the actor put there,
 * and where it stands is known exactly: the noted registers, the stack from `rsp` on, and the
 * access that it is about to make.
 *
 * Used by runtime.c and steps.c; machine.c says which stack it is.
 */
#ifndef VAPIC_EXPLORE_ENTRY_H
#define VAPIC_EXPLORE_ENTRY_H

#include <stdint.h>

/* What a callee keeps, and the stack pointer at the call: the return address is there. */
struct caller {
    uint64_t rbx, rbp, r12, r13, r14, r15, rsp;
    uintptr_t
        stack; /* to go over to: 8 below a multiple of 16; 0: outside of actors, in conditions */
};

extern struct caller caller;

#define ENTERED __attribute__((used)) static

#define ENTRY(name)                                                                                \
    __asm__(".text\n"                                                                              \
            ".p2align 4\n"                                                                         \
            ".globl " #name "\n"                                                                   \
            ".type " #name ", @function\n" #name ":\n"                                             \
            "    movq %rbx, caller+0(%rip)\n"                                                      \
            "    movq %rbp, caller+8(%rip)\n"                                                      \
            "    movq %r12, caller+16(%rip)\n"                                                     \
            "    movq %r13, caller+24(%rip)\n"                                                     \
            "    movq %r14, caller+32(%rip)\n"                                                     \
            "    movq %r15, caller+40(%rip)\n"                                                     \
            "    movq %rsp, caller+48(%rip)\n"                                                     \
            "    movq caller+56(%rip), %r11\n"                                                     \
            "    testq %r11, %r11\n"                                                               \
            "    jz entered_" #name "\n"                                                           \
            "    movq %r11, %rsp\n"                                                                \
            "    pushq caller+48(%rip)\n"                                                          \
            "    call entered_" #name "\n"                                                         \
            "    popq %rsp\n"                                                                      \
            "    ret\n"                                                                            \
            ".size " #name ", . - " #name "\n")

/* Where the caller goes on. */
static inline uintptr_t entry_pc(void)
{
    return *(const uintptr_t *)(uintptr_t)caller.rsp;
}

#endif
