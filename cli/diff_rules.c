/* SPDX-License-Identifier: MIT */
/* Reading the list of known differences; see diff_compare.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff_compare.h"

#define LINE_SIZE 256u
#define FENCE     "```"

static bool number(const char *word, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(word, &end, 0);
    return errno == 0 && end != word && *end == '\0';
}

/* All operations of a name, or whose name begins so when it ends with '*'. */
static uint64_t ops_named(const char *name)
{
    size_t length = strlen(name);
    bool prefix = length > 0 && name[length - 1] == '*';
    uint64_t mask = 0;

    for (unsigned code = 0; code < DIFF_OP_COUNT; code++) {
        if (prefix ? strncmp(diff_op_names[code], name, length - 1) == 0
                   : strcmp(diff_op_names[code], name) == 0) {
            mask |= 1ull << code;
        }
    }
    return mask;
}

/* A word as c&0x80, b=5, a>7, c!0xff (no bit of it). */
static bool parse_condition(struct diff_pattern *p, const char *word)
{
    struct diff_condition *c = &p->condition[p->conditions];

    if (p->conditions == DIFF_CONDITIONS_MAX || strchr("abc", word[0]) == NULL ||
        strchr("&!=<>", word[1]) == NULL || word[1] == '\0') {
        return false;
    }
    *c = (struct diff_condition){.field = word[0], .test = word[1]};
    p->conditions++;
    return number(word + 2, &c->value);
}

/* Names of operations, then conditions. */
static bool parse_pattern(struct diff_pattern *p, char *text)
{
    char *rest = NULL;

    *p = (struct diff_pattern){0};
    for (char *w = strtok_r(text, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest)) {
        uint64_t ops = ops_named(w);

        if (strcmp(w, "vector") == 0) {
            p->vector = true;
        } else if (strcmp(w, "cpu") == 0) {
            p->cpu = true;
        } else if (strcmp(w, "pin") == 0) {
            p->pin = true;
        } else if (ops == 0 && !parse_condition(p, w)) {
            return false;
        }
        p->ops |= ops;
    }
    if (p->ops == 0) {
        p->ops = UINT64_MAX;
    }
    return true;
}

static bool parse_op(struct diff_rule *rule, char *text)
{
    return parse_pattern(&rule->op, text);
}

static bool parse_after(struct diff_rule *rule, char *text)
{
    if (rule->afters == sizeof(rule->after) / sizeof(rule->after[0])) {
        return false;
    }
    return parse_pattern(&rule->after[rule->afters++], text);
}

static bool parse_range(struct diff_range *range, char *text)
{
    char *dash = strchr(text, '-');
    uint64_t first, last;

    if (dash != NULL) {
        *dash = '\0';
    }
    if (!number(text, &first) || !number(dash != NULL ? dash + 1 : text, &last)) {
        return false;
    }
    *range = (struct diff_range){(uint32_t)first, (uint32_t)last};
    return true;
}

static bool parse_what(struct diff_rule *rule, char *text)
{
    char *rest = NULL;

    for (char *w = strtok_r(text, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest)) {
        if (rule->ranges == DIFF_RANGES_MAX || !parse_range(&rule->what[rule->ranges++], w)) {
            return false;
        }
    }
    return rule->ranges != 0;
}

static bool parse_side(struct diff_side *side, char *text)
{
    char *rest = NULL;

    *side = (struct diff_side){0};
    for (char *w = strtok_r(text, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest)) {
        unsigned kind = 0;

        while (kind < DIFF_KIND_COUNT && strcmp(diff_kind_names[kind], w) != 0) {
            kind++;
        }
        if (kind < DIFF_KIND_COUNT) {
            side->kinds |= 1u << kind;
        } else if (!side->has_value && number(w, &side->value)) {
            side->has_value = true;
        } else {
            return false;
        }
    }
    return side->kinds != 0;
}

static bool parse_kernel(struct diff_rule *rule, char *text)
{
    return parse_side(&rule->kernel, text);
}

static bool parse_vapic(struct diff_rule *rule, char *text)
{
    return parse_side(&rule->vapic, text);
}

static bool parse_bits(struct diff_rule *rule, char *text)
{
    return number(text, &rule->bits);
}

static bool copy(char *to, size_t size, const char *text)
{
    return (size_t)snprintf(to, size, "%s", text) < size;
}

static bool parse_name(struct diff_rule *rule, char *text)
{
    return copy(rule->name, sizeof(rule->name), text);
}

static bool parse_modes(struct diff_rule *rule, char *text)
{
    return copy(rule->modes, sizeof(rule->modes), text);
}

static bool parse_profile(struct diff_rule *rule, char *text)
{
    return copy(rule->profile, sizeof(rule->profile), text);
}

static bool parse_hosts(struct diff_rule *rule, char *text)
{
    return copy(rule->hosts, sizeof(rule->hosts), text);
}

static bool parse_then(struct diff_rule *rule, char *text)
{
    rule->stop = strcmp(text, "stop") == 0;
    return rule->stop || strcmp(text, "continue") == 0;
}

static bool parse_line(struct diff_rule *rule, char *line)
{
    static const struct {
        const char *key;
        bool (*parse)(struct diff_rule *rule, char *text);
    } keys[] = {
        {"name", parse_name},   {"op", parse_op},         {"after", parse_after},
        {"what", parse_what},   {"kernel", parse_kernel}, {"vapic", parse_vapic},
        {"bits", parse_bits},   {"modes", parse_modes},   {"profile", parse_profile},
        {"hosts", parse_hosts}, {"then", parse_then},
    };
    char *colon = strchr(line, ':');

    if (colon == NULL) {
        return false;
    }
    *colon++ = '\0';
    colon += strspn(colon, " ");
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(keys[i].key, line) == 0) {
            return keys[i].parse(rule, colon);
        }
    }
    return false;
}

static void begin_rule(struct diff_rule *rule)
{
    *rule = (struct diff_rule){
        .op = {.ops = UINT64_MAX},
        .kernel = {.kinds = UINT32_MAX},
        .vapic = {.kinds = UINT32_MAX},
        .bits = UINT64_MAX,
    };
}

/* Inside a rule: a line of it, or its end. What is wrong, or NULL. */
static const char *take_line(struct diff_rules *rules, char *line, bool *inside)
{
    struct diff_rule *rule = &rules->rule[rules->count];

    if (strncmp(line, FENCE, strlen(FENCE)) != 0) {
        return parse_line(rule, line) ? NULL : "no line of a rule: see docs/differential.md";
    }
    *inside = false;
    rules->count++;
    return rule->name[0] != '\0' ? NULL : "the rule above has no name";
}

int diff_rules_parse(struct diff_rules *rules, const char *name, const char *text,
                     struct vmm_err *err)
{
    bool inside = false;

    rules->count = 0;
    for (unsigned at = 1; *text != '\0'; at++) {
        size_t length = strcspn(text, "\n");
        char line[LINE_SIZE];
        const char *wrong = NULL;

        snprintf(line, sizeof(line), "%.*s", (int)length, text);
        if (inside) {
            wrong = length < sizeof(line) ? take_line(rules, line, &inside) : "too long";
        } else if (strcmp(line, FENCE "rule") == 0) {
            inside = true;
            wrong = rules->count < DIFF_RULES_MAX ? NULL : "too many rules";
            begin_rule(&rules->rule[wrong == NULL ? rules->count : 0]);
        }
        if (wrong != NULL) {
            return vmm_fail(err, "%.160s:%u: %s", name, at, wrong);
        }
        text += length + (text[length] == '\n');
    }
    return inside ? vmm_fail(err, "%.160s: the last rule has no end", name) : 0;
}
