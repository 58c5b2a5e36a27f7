/* SPDX-License-Identifier: MIT */
/* The `vapic` command: finds the subcommand and hands it its arguments. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const struct subcommand {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;
} subcommands[] = {
    {"check", cli_check, "explore the interleavings of the library's code in small scenarios"},
    {"diff", cli_diff, "compare libvapic with Linux's own APIC, operation by operation"},
    {"run", cli_run, "boot a guest whose every interrupt goes through libvapic"},
};

#define SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

static void usage(FILE *to)
{
    fputs("Usage: vapic COMMAND [OPTION...]\n\n", to);
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        fprintf(to, "  %-8s %s\n", subcommands[i].name, subcommands[i].help);
    }
    fputs("\n`vapic COMMAND --help` describes a command; `vapic --version` the version.\n", to);
}

/* A standard descriptor that is closed would be given to the next file that is opened. */
static void open_standard_descriptors(void)
{
    int fd = open("/dev/null", O_RDWR);

    while (fd >= 0 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDWR);
    }
    if (fd >= 0) {
        close(fd);
    }
}

int main(int argc, char **argv)
{
    open_standard_descriptors();
    if (argc < 2) {
        usage(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("vapic " VAPIC_VERSION);
        return CLI_OK;
    }
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            return subcommands[i].main(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "vapic: no command '%s': `vapic --help` lists them\n", argv[1]);
    return CLI_USAGE;
}
