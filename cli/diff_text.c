/* SPDX-License-Identifier: MIT */
/* The text form of programs; see diff_program.h. Called by the command and by tests. */
#include "diff_program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 256u
#define WORDS_MAX 6u

const char *const diff_op_names[DIFF_OP_COUNT] = {
#define DIFF_X(id, name, fields) [DIFF_OP_##id] = (name),
    DIFF_OPS(DIFF_X)
#undef DIFF_X
};

const char *const diff_op_fields[DIFF_OP_COUNT] = {
#define DIFF_X(id, name, fields) [DIFF_OP_##id] = (fields),
    DIFF_OPS(DIFF_X)
#undef DIFF_X
};

const char *const diff_kind_names[DIFF_KIND_COUNT] = {[DIFF_NOTHING] = "nothing",
#define DIFF_X(id, name) [DIFF_##id] = (name),
                                                      DIFF_KINDS(DIFF_X)
#undef DIFF_X
};

unsigned diff_op_find(const char *name)
{
    unsigned code = 0;

    while (code < DIFF_OP_COUNT && strcmp(diff_op_names[code], name) != 0) {
        code++;
    }
    return code;
}

static bool number(const char *word, uint64_t *value)
{
    char *end;

    if (word == NULL) {
        return false;
    }
    errno = 0;
    *value = strtoull(word, &end, 0);
    return errno == 0 && end != word && *end == '\0' && *word != '-';
}

static bool set_field(struct diff_op *op, char field, uint64_t value)
{
    switch (field) {
    case 'a':
        op->a = (uint16_t)value;
        return value <= UINT16_MAX;
    case 'b':
        op->b = (uint32_t)value;
        return value <= UINT32_MAX;
    default:
        op->c = value;
        return true;
    }
}

static uint64_t get_field(const struct diff_op *op, char field)
{
    return field == 'a' ? op->a : field == 'b' ? op->b : op->c;
}

static unsigned split(char *line, char *word[WORDS_MAX])
{
    unsigned words = 0;
    char *rest = NULL;

    line[strcspn(line, "#\n")] = '\0';
    for (char *w = strtok_r(line, " \t\r", &rest); w != NULL; w = strtok_r(NULL, " \t\r", &rest)) {
        if (words == WORDS_MAX) {
            return WORDS_MAX + 1;
        }
        word[words++] = w;
    }
    return words;
}

/* What is wrong with a line of `words` words; NULL: nothing. */
static const char *parse_op(struct diff_op *op, char *const *word, unsigned words)
{
    const char *fields;
    uint64_t value;
    unsigned code;

    if (!number(word[0], &value) || value >= DIFF_CPUS_MAX) {
        return "a line begins with a processor, from 0 to 7";
    }
    op->cpu = (uint8_t)value;
    code = word[1] == NULL ? DIFF_OP_COUNT : diff_op_find(word[1]);
    if (code == DIFF_OP_COUNT) {
        return "there is no such operation: docs/differential.md lists them";
    }
    op->code = (uint8_t)code;
    fields = diff_op_fields[code];
    if (words != 2 + strlen(fields)) {
        return "wrong number of arguments: docs/differential.md lists them";
    }
    for (unsigned i = 0; fields[i] != '\0'; i++) {
        if (!number(word[2 + i], &value) || !set_field(op, fields[i], value)) {
            return "an argument is no number, or too large";
        }
    }
    return NULL;
}

static const char *parse_line(struct diff_program *p, char *line)
{
    struct diff_op op = {0};
    char *word[WORDS_MAX] = {NULL};
    unsigned words = split(line, word);
    const char *wrong;

    if (words == 0 || word[0] == NULL) {
        return NULL;
    }
    if (words > WORDS_MAX) {
        return "too many words";
    }
    if (p->count == DIFF_OPS_MAX) {
        return "too many operations";
    }
    wrong = parse_op(&op, word, words);
    p->ops[p->count] = op;
    p->count += wrong == NULL;
    return wrong;
}

int diff_program_parse(struct diff_program *p, const char *name, const char *text,
                       struct vmm_err *err)
{
    const char *slash = strrchr(name, '/');

    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "%s", slash != NULL ? slash + 1 : name);
    for (unsigned at = 1; *text != '\0'; at++) {
        size_t length = strcspn(text, "\n");
        char line[LINE_SIZE];
        const char *wrong;

        snprintf(line, sizeof(line), "%.*s", (int)length, text);
        wrong = length < sizeof(line) ? parse_line(p, line) : "the line is too long";
        if (wrong != NULL) {
            return vmm_fail(err, "%.160s:%u: %s", name, at, wrong);
        }
        text += length + (text[length] == '\n');
    }
    return p->count != 0 ? 0 : vmm_fail(err, "%.160s: no operations in it", name);
}

void diff_op_print(const struct diff_op *op, FILE *to)
{
    const char *fields = diff_op_fields[op->code];

    fprintf(to, "%u %s", op->cpu, diff_op_names[op->code]);
    for (unsigned i = 0; fields[i] != '\0'; i++) {
        fprintf(to, " 0x%" PRIx64, get_field(op, fields[i]));
    }
}

void diff_program_print(const struct diff_program *p, FILE *to)
{
    for (uint32_t i = 0; i < p->count; i++) {
        diff_op_print(&p->ops[i], to);
        fputc('\n', to);
    }
}
