/* SPDX-License-Identifier: MIT */
/*
 * Included by the build before everything else in code that is instrumented: copies and fills that
 * the compiler makes by a call, of its own accord or not, go to runtime.c. Names of the assembler,
 * because clang decides for such a call after it has forgotten about names of C.
 */
__asm__(".set memcpy, machine_memcpy\n"
        ".set memmove, machine_memmove\n"
        ".set memset, machine_memset\n");
