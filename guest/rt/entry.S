/* SPDX-License-Identifier: MIT */
/*
 * The 256 interrupt entries, 16 bytes apart. Each brings the stack to the form of struct irq_frame
 * (irq.h) and calls irq_entry().
 */
    .text
    .balign 16
    .global irq_stubs
irq_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    /* the exceptions that push an error code: 8, 10-14, 17, 21, 29, 30 */
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || \
        (vector == 29) || (vector == 30)
    .else
    push $0
    .endif
    push $vector
    jmp common
    .set vector, vector + 1
    .endr

common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    cld
    call irq_entry
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

    .section .note.GNU-stack, "", @progbits
