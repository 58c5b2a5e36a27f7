/* SPDX-License-Identifier: MIT */
/*
 * Programs of APIC operations: what they are, their text form, and random ones. The operations are
 * those of guest/diff/abi.h. A text has one operation a line: processor, name, arguments;
 * '#' begins a comment.
 */
#ifndef CLI_DIFF_PROGRAM_H
#define CLI_DIFF_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "diff/abi.h"
#include "err.h"

struct diff_program {
    char name[96]; /* a file's, or seed and number */
    uint32_t count;
    struct diff_op ops[DIFF_OPS_MAX];
};

/* An operation's name and the letters of its arguments ("abc" in the order of the text). */
extern const char *const diff_op_names[DIFF_OP_COUNT];
extern const char *const diff_op_fields[DIFF_OP_COUNT];
extern const char *const diff_kind_names[DIFF_KIND_COUNT];

/* The operation of that name; DIFF_OP_COUNT: there is none. */
unsigned diff_op_find(const char *name);

/* Reads a text; `name` is for messages, which say the line. 0, or -1 with the error set. */
int diff_program_parse(struct diff_program *p, const char *name, const char *text,
                       struct vmm_err *err);

/* One operation, without a line's end. */
void diff_op_print(const struct diff_op *op, FILE *to);
void diff_program_print(const struct diff_program *p, FILE *to);

/* The random program `number` of `seed`: always the same one. At most `length` operations. */
void diff_program_random(struct diff_program *p, uint64_t seed, uint64_t number, uint32_t length,
                         uint32_t cpus);

#endif
