/* SPDX-License-Identifier: MIT */
/* The steps of a counterexample in words, for the timeline and for the picture. */
#include <stdlib.h>
#include <string.h>

#include "output.h"

static bool is_access(const char *kind)
{
    static const char *const kinds[] = {"read", "write", "rmw", "cas-failed", "drain"};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i], kind) == 0) {
            return true;
        }
    }
    return false;
}

bool check_step_parse(json_t *json, struct check_step *step)
{
    json_int_t number, actor;
    int decisive;

    *step = (struct check_step){.name = NULL, .place = "", .order = "", .value = "", .old = ""};
    if (json_unpack(json, "{s:I, s:I, s:s, s:b, s?s, s?s, s?s, s?s, s?s, s?s, s?s}", "step",
                    &number, "actor", &actor, "kind", &step->kind, "decisive", &decisive, "name",
                    &step->name, "place", &step->place, "order", &step->order, "value",
                    &step->value, "old", &step->old, "text", &step->text, "missed",
                    &step->missed) != 0) {
        return false;
    }
    step->number = number;
    step->actor = actor;
    step->decisive = decisive != 0;
    return is_access(step->kind) == (step->name != NULL);
}

void check_step_say(const struct check_step *s, char *to, size_t size)
{
    const char *text = s->text != NULL ? s->text : "";

    if (strcmp(s->kind, "rmw") == 0) {
        snprintf(to, size, "change %s: %s -> %s", s->name, s->old, s->value);
    } else if (strcmp(s->kind, "cas-failed") == 0) {
        snprintf(to, size, "compare %s: %s, differs", s->name, s->value);
    } else if (strcmp(s->kind, "drain") == 0) {
        snprintf(to, size, "visible %s = %s", s->name, s->value);
    } else if (strcmp(s->kind, "wait") == 0) {
        snprintf(to, size, "waits: %s", text);
    } else if (strcmp(s->kind, "choice") == 0) {
        snprintf(to, size, "choice %s: %s", s->value, text);
    } else if (strcmp(s->kind, "fail") == 0) {
        snprintf(to, size, "BROKEN: %s", text);
    } else if (s->missed != NULL && s->name != NULL) {
        snprintf(to, size, "read %s = %s, not yet %s", s->name, s->value, s->missed);
    } else if (s->name == NULL) {
        snprintf(to, size, "* %s", text);
    } else {
        snprintf(to, size, "%s %s = %s", s->kind, s->name, s->value);
    }
}

/* The function's name is what can be missed first: the line says it, too. */
static void shorten(char *place, size_t width)
{
    char *blank = strchr(place, ' ');

    if (strlen(place) <= width) {
        return;
    }
    if (blank != NULL && (size_t)(blank - place) + 4 > width) {
        *blank = '\0';
    }
    if (strlen(place) > width && width > 2) {
        memcpy(place + width - 2, "..", 3);
    }
}

void check_step_where(const struct check_step *s, char *to, size_t size, size_t width)
{
    bool ordered = s->order[0] != '\0' && strcmp(s->order, "plain") != 0;
    size_t length;

    if (s->name == NULL) {
        to[0] = '\0';
        return;
    }
    if (s->place[0] == '\0') {
        snprintf(to, size, "%s", s->text != NULL ? s->text : "");
    } else {
        snprintf(to, size, "%s", s->place);
    }
    length = strlen(to);
    if (ordered && s->place[0] != '\0' && length + 2 + strlen(s->order) <= width &&
        length + 2 + strlen(s->order) < size) {
        snprintf(to + length, size - length, ", %s", s->order);
    }
    shorten(to, width);
}

/* Where a line of at most `width` may end, after one of the `marks`; 0: not in its second half. */
static size_t last_mark(const char *text, size_t width, const char *marks)
{
    for (size_t cut = width; cut > width / 2; cut--) {
        if (strchr(marks, text[cut - 1]) != NULL) {
            return cut;
        }
    }
    return 0;
}

size_t check_wrap(const char *text, size_t width)
{
    size_t cut;

    if (strlen(text) <= width || text[width] == ' ') {
        return strlen(text) <= width ? strlen(text) : width;
    }
    cut = last_mark(text, width, " ");
    if (cut != 0) {
        return cut - 1;
    }
    cut = last_mark(text, width, ".:/],_-");
    return cut != 0 ? cut : width;
}

/* ---- The replay line ---- */

static bool is_plain(const char *word)
{
    return word[0] != '\0' &&
           word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "-_.,:/@%+=")] == '\0';
}

static void quote(FILE *to, const char *word)
{
    if (is_plain(word)) {
        fputs(word, to);
        return;
    }
    fputc('\'', to);
    for (; *word != '\0'; word++) {
        if (*word == '\'') {
            fputs("'\\''", to);
        } else {
            fputc(*word, to);
        }
    }
    fputc('\'', to);
}

char *check_replay_line(const json_t *document, const struct check_outcome *o)
{
    const json_t *options = json_object_get(document, "options");
    const char *memory = json_string_value(json_object_get(options, "memory"));
    const char *mutant = json_string_value(json_object_get(options, "mutant"));
    const char *schedule = json_string_value(json_object_get(o->failure, "schedule"));
    char *line = NULL;
    size_t size;
    FILE *to = open_memstream(&line, &size);

    if (to == NULL) {
        return NULL;
    }
    fprintf(to, "vapic check %s --accel %s", o->scenario, o->mode);
    if (memory != NULL && strcmp(memory, "sc") != 0) {
        fprintf(to, " --memory %s", memory);
    }
    if (mutant != NULL) {
        fputs(" --mutant ", to);
        quote(to, mutant);
    }
    fputs(" --replay ", to);
    quote(to, schedule != NULL ? schedule : "");
    fclose(to);
    return line;
}
