/* SPDX-License-Identifier: MIT */
/*
 * rig-exec: runs any command inside the rig. The tests use it to run several guests in one host,
 * to watch the system calls of `vapic run`, and to test the rig itself.
 *
 *   rig-exec [--cpus N] [--icount] [--mem MIB] [--kernel FILE] [--file PATH=NAME]... COMMAND...
 *
 * NAME is absolute, inside the rig. A word of COMMAND that starts with `in:` names a file here
 * that the command reads, with `out:` one that it writes, `self:NAME` is this program.
 */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rig.h"

#define WORDS_MAX 128u

struct options {
    struct vmm_rig_config cfg;
    struct vmm_rig_file files[VMM_RIG_FILES_MAX];
    struct vmm_rig_arg args[WORDS_MAX];
};

static const struct argp_option option_table[] = {
    {"cpus", 'c', "N", 0, "processors of the host", 0},
    {"icount", 'i', NULL, 0, "repeatable virtual time", 0},
    {"mem", 'm', "MIB", 0, "memory that the command needs", 0},
    {"kernel", 'k', "FILE", 0, "the host's kernel", 0},
    {"file", 'f', "PATH=NAME", 0, "a file for the command, and its name inside", 0},
    {0},
};

static void add_file(struct options *options, char *text, struct argp_state *state)
{
    char *name = strchr(text, '=');

    if (!name || name[1] != '/' || options->cfg.nfiles == VMM_RIG_FILES_MAX) {
        argp_error(state, "--file needs PATH=/NAME (at most %u of them)", VMM_RIG_FILES_MAX);
        return;
    }
    *name = '\0';
    options->files[options->cfg.nfiles++] = (struct vmm_rig_file){text, name + 1};
}

static void add_word(struct options *options, char *text, struct argp_state *state)
{
    static const struct {
        const char *prefix;
        enum vmm_rig_arg_kind kind;
    } kinds[] = {{"in:", VMM_RIG_IN}, {"out:", VMM_RIG_OUT}, {"self:", VMM_RIG_SELF}};
    struct vmm_rig_arg *arg = &options->args[options->cfg.nargs];

    if (options->cfg.nargs++ == WORDS_MAX)
        argp_error(state, "more than %u words", WORDS_MAX);
    *arg = (struct vmm_rig_arg){VMM_RIG_TEXT, text};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t length = strlen(kinds[i].prefix);

        if (!strncmp(text, kinds[i].prefix, length))
            *arg = (struct vmm_rig_arg){kinds[i].kind, text + length};
    }
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 'c':
        options->cfg.cpus = (unsigned)strtoul(text, NULL, 10);
        return 0;
    case 'i':
        options->cfg.icount = true;
        return 0;
    case 'm':
        options->cfg.guest_mem = strtoull(text, NULL, 10) << 20;
        return 0;
    case 'k':
        options->cfg.kernel = text;
        return 0;
    case 'f':
        add_file(options, text, state);
        return 0;
    case ARGP_KEY_ARG:
        add_word(options, text, state);
        while (state->next < state->argc)
            add_word(options, state->argv[state->next++], state);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no command was given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        option_table, parse, "COMMAND...", "Runs COMMAND inside the rig.", NULL, NULL, NULL};
    static struct options options;
    struct vmm_err err;
    int status;

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &options);
    options.cfg.args = options.args;
    options.cfg.files = options.files;
    if (vmm_rig_run(&options.cfg, &status, &err)) {
        fprintf(stderr, "rig-exec: %s\n", err.text);
        return 2;
    }
    return status;
}
