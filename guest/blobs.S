/* SPDX-License-Identifier: MIT */
/* The guest images that the command carries inside itself; declared in blobs.h. */
    .section .rodata
    .macro blob name, file
    .balign 16
    .global vmm_guest_\name
    .type vmm_guest_\name, @object
vmm_guest_\name:
    .incbin "\file"
1:
    .size vmm_guest_\name, 1b - vmm_guest_\name
    .balign 8
    .global vmm_guest_\name\()_size
    .type vmm_guest_\name\()_size, @object
    .size vmm_guest_\name\()_size, 8
vmm_guest_\name\()_size:
    .quad 1b - vmm_guest_\name
    .endm

    blob builtin, builtin.elf
    blob diff, diff.elf
    blob selftest, selftest.elf

    .section .note.GNU-stack, "", @progbits
