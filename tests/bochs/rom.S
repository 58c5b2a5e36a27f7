/* SPDX-License-Identifier: MIT */
/*
 * The whole firmware of the machine: from the reset vector to the program at 1 MiB, which Bochs has
 * loaded there, in flat protected mode. 64 KiB that end at 4 GiB, where CS points after reset.
 */
#define ROM_BASE 0xffff0000
#define PROGRAM  0x100000

    .code16
    .text
rom:
    .org 0xff00 /* within the reach of a short jump */
start:
    cli
    cld
    mov $2, %al /* A20 */
    outb %al, $0x92
    lgdtl %cs:(gdt_pointer - rom)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $(ROM_BASE + (enter32 - rom))
    .code32
enter32:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $PROGRAM, %eax
    jmp *%eax

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long ROM_BASE + (gdt - rom)

    .org 0xfff0
    .code16
    jmp start
    .org 0x10000

    .section .note.GNU-stack, "", @progbits
