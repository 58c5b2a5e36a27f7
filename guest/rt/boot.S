/* SPDX-License-Identifier: MIT */
/*
 * Entry of every guest: multiboot header, 32-bit entry, long mode, and the real-mode page that
 * SIPI starts application processors at. Owns the GDT and the page tables: the first 4 GiB are
 * mapped one to one with 2 MiB pages, the topmost GiB (APIC pages) uncached.
 */
#define CODE32 0x08
#define DATA   0x10
#define CODE64 0x18

#define MB_MAGIC 0x1badb002
#define MB_FLAGS 0x00000003 /* page aligned modules, memory information */

#define CR0_PE_ET_PG 0x80000011
#define CR4_PAE      0x20
#define MSR_EFER     0xc0000080
#define EFER_LME     0x100

    .section .multiboot, "a"
    .balign 4
    .long MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)

    .text
    .code32
    .global start32
start32:
    cli
    cld
    mov %eax, boot_magic
    mov %ebx, boot_info
    mov $boot_stack_top, %esp
    call make_page_tables
    mov $enter64_bsp, %edi
    jmp enter_long_mode

/* Four page directories of 512 entries; entry n maps 2 MiB at n * 2 MiB. */
make_page_tables:
    movl $(pdpt + 3), pml4
    mov $pdpt, %edi
    mov $(pd + 3), %eax
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 1b
    mov $pd, %edi
    mov $0x83, %eax
    xor %ecx, %ecx
2:  cmp $(3 * 512), %ecx
    jne 3f
    or $0x18, %eax /* uncached from here on */
3:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $0x200000, %eax
    add $8, %edi
    inc %ecx
    cmp $(4 * 512), %ecx
    jne 2b
    ret

/* %edi: 32-bit address of the 64-bit code to go on with; %ebx is kept. */
enter_long_mode:
    lgdt gdt_pointer
    mov $CR4_PAE, %eax
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov $CR0_PE_ET_PG, %eax
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
    mov %edi, %edi
    jmp *%rdi

enter64_bsp:
    mov $boot_stack_top, %esp
    mov boot_magic, %edi
    mov boot_info, %esi
    xor %ebp, %ebp
    call guest_start
1:  cli
    hlt
    jmp 1b

/*
 * An application processor finds itself by its initial APIC ID, which CPUID shows in every APIC
 * mode, so that any number of them may pass here at once.
 */
    .code32
enter32_ap:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $enter64_ap, %edi
    jmp enter_long_mode
    .code64
enter64_ap:
    mov %ebx, %esi /* the real-mode CS: start page << 8 */
    xor %eax, %eax
    cpuid
    cmp $0xb, %eax
    jb 1f
    mov $0xb, %eax
    xor %ecx, %ecx
    cpuid
    test %ebx, %ebx
    jnz 2f
1:  mov $1, %eax
    cpuid
    mov %ebx, %edx
    shr $24, %edx
2:  xor %ecx, %ecx
3:  cmp cpu_count, %ecx
    jae 4f
    cmp %edx, cpu_apic_ids(, %rcx, 4)
    je 5f
    inc %ecx
    jmp 3b
4:  cli /* not in the MADT: sleep */
    hlt
    jmp 4b
5:  mov cpu_table(, %rcx, 8), %rdi
    mov cpu_stacks(, %rcx, 8), %rsp
    xor %ebp, %ebp
    call ap_start
6:  cli
    hlt
    jmp 6b

/* Copied to the pages that SIPI names; finds itself by CS. */
    .code16
    .global trampoline, trampoline_end
trampoline:
    cli
    cld
    xor %ebx, %ebx
    mov %cs, %bx
    lgdtl %cs:(trampoline_gdt - trampoline)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $CODE32, $enter32_ap
    .balign 4
trampoline_gdt:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .bss
    .balign 4096
pml4:
    .skip 4096
pdpt:
    .skip 4096
pd:
    .skip 4 * 4096
boot_stack:
    .skip 16384
boot_stack_top:
boot_magic:
    .skip 4
boot_info:
    .skip 4

    .section .note.GNU-stack, "", @progbits
