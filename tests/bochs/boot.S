/* SPDX-License-Identifier: MIT */
/*
 * The beginning of the bare-metal program, and what it needs to be assembled: 32-bit entry, long
 * mode with the first 4 GiB one to one, a GDT with a task state segment (VM exits load one), 256
 * interrupt stubs, and the VM entry itself.
 */
#define CODE64 0x18
#define DATA   0x10
#define TSS    0x20

#define HOST_RSP 0x6c14

    .section .start, "ax"
    .code32
    .global start32
start32:
    mov $bss_begin, %edi
    mov $bss_end, %ecx
    sub %edi, %ecx
    xor %eax, %eax
    rep stosb
    movl $(pdpt + 7), pml4
    mov $pdpt, %edi
    mov $(pd + 7), %eax
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 1b
    mov $pd, %edi
    mov $0x87, %eax /* large, writable, the user's, too */
    mov $(4 * 512), %ecx
2:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 2b
    lgdt gdt_pointer
    mov $0x20, %eax /* PAE */
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax /* LME */
    wrmsr
    mov $0x80000031, %eax /* PG, NE, ET, PE */
    mov %eax, %cr0
    ljmp $CODE64, $1f
    .code64
1:  mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    lea tss(%rip), %rax /* the descriptor's base */
    lea gdt_tss(%rip), %rdx
    mov %ax, 2(%rdx)
    shr $16, %rax
    mov %al, 4(%rdx)
    mov %ah, 7(%rdx)
    mov $TSS, %eax
    ltr %ax
    mov $stack_top, %esp
    xor %ebp, %ebp
    call l1_main
3:  hlt
    jmp 3b

/* The guest's beginning, at its first entry and after each exit. */
    .text
    .global l2_start
l2_start:
    mov $l2_stack_top, %esp
    xor %ebp, %ebp
    call l2_main
    ud2

/* unsigned vm_enter(bool again): 0 after an exit, 1 VMfailInvalid, 2 VMfailValid. */
    .global vm_enter, vm_exit
vm_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov $HOST_RSP, %eax
    vmwrite %rsp, %rax
    test %edi, %edi
    jnz 1f
    vmlaunch
    jmp 2f
1:  vmresume
2:  mov $1, %eax
    jc 3f
    mov $2, %eax
    jmp 3f
vm_exit:
    xor %eax, %eax
3:  pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* What compilers call for large objects. */
    .global memset, memcpy
memset:
    mov %rdi, %r8
    mov %esi, %eax
    mov %rdx, %rcx
    rep stosb
    mov %r8, %rax
    ret
memcpy:
    mov %rdi, %rax
    mov %rdx, %rcx
    rep movsb
    ret

/* 256 stubs, 16 bytes apart. Events with an error code come in the host only, which they end. */
    .balign 16
    .global interrupt_stubs
interrupt_stubs:
    vector = 0
    .rept 256
    .balign 16
    push $vector
    jmp interrupted
    vector = vector + 1
    .endr
interrupted:
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    mov 72(%rsp), %rdi
    mov 80(%rsp), %rsi
    cld
    call on_interrupt
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    add $8, %rsp
    iretq

    .data
    .balign 8
    .global gdt
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
gdt_tss:
    .quad 0x0000890000000067
    .quad 0
    .quad 0x00cff3000000ffff /* of a guest at CPL 3 */
    .quad 0x00affb000000ffff
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
    .long 0

    .bss
    .balign 4096
    .global l2_stack_top, pd, tss
pml4:
    .skip 4096
pdpt:
    .skip 4096
pd:
    .skip 4 * 4096
stack:
    .skip 16384
stack_top:
l2_stack:
    .skip 16384
l2_stack_top:
tss:
    .skip 104

    .section .note.GNU-stack, "", @progbits
