/* SPDX-License-Identifier: MIT */
/*
 * The arguments of docs/mutations-argued.md: lines "| `name` `name` ... | why |". A name stands for
 * itself, there are no patterns: an argument was made for places that somebody has looked at.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mutants_parts.h"

/* Of the list: such an argument is checked against what the profile of the scenarios says. */
#define OWN "own: "

bool mutant_is_argued_as_own(const char *argument)
{
    return strncmp(argument, OWN, strlen(OWN)) == 0;
}

static void complain(json_t *wrong, const char *name, const char *what)
{
    json_array_append_new(wrong, json_sprintf("%s: %s", name, what));
}

static void argue(struct mutants *all, const char *name, const char *why, json_t *wrong)
{
    struct mutant *m = mutants_find(all, name);

    if (m == NULL)
        complain(wrong, name, "argued, but there is no such mutant");
    else if (m->argued != NULL)
        complain(wrong, name, "argued twice");
    else
        m->argued = strdup(why);
    if (m != NULL && m->shared && mutant_is_argued_as_own(why))
        complain(wrong, name, "argued as its owner's own, but other actors touch it");
}

/* The names are changed into strings of their own. */
static void read_argument(struct mutants *all, char *line, json_t *wrong)
{
    char *why = strncmp(line, "| `", 3) == 0 ? strstr(line, "` | ") : NULL, *name;

    if (why == NULL)
        return;
    *why = '\0';
    why += strlen("` | ");
    why[strcspn(why, "|\n")] = '\0';
    for (size_t end = strlen(why); end > 0 && why[end - 1] == ' '; end--)
        why[end - 1] = '\0';
    for (line += 2; (name = strchr(line, '`')) != NULL; line = name + strlen(name) + 1) {
        bool last = strchr(name + 1, '`') == NULL;

        *strchrnul(++name, '`') = '\0';
        argue(all, name, why, wrong);
        if (last)
            break;
    }
}

json_t *mutants_argue(struct mutants *all)
{
    FILE *file = fopen(EX_ARGUED_FILE, "r");
    json_t *wrong = json_array();
    char *line = NULL;
    size_t size = 0;

    if (file == NULL) {
        complain(wrong, EX_ARGUED_FILE, "not there: no mutant is argued");
        return wrong;
    }
    while (getline(&line, &size, file) >= 0)
        read_argument(all, line, wrong);
    free(line);
    fclose(file);
    return wrong;
}
