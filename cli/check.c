/* SPDX-License-Identifier: MIT */
/*
 * `vapic check`: hands over to `vapic-check`, a program of its own because it holds the library a
 * second time, built for exploration. It lies beside this one, or where the build or the
 * installation has put it.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define PROGRAM "vapic-check"

/* As seen from the directory of this program; an absolute path stands for itself. */
static const char *const places[] = {PROGRAM, "../explore/" PROGRAM, VAPIC_LIBEXECDIR "/" PROGRAM};

static const char *own_directory(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);

    if (length <= 0) {
        return ".";
    }
    path[length] = '\0';
    return dirname(path);
}

/* What the program may be called with its name in argv[0]; returns only when it is not there. */
static void try_exec(const char *directory, const char *place, char **argv)
{
    char path[PATH_MAX];
    int length;

    if (place[0] == '/') {
        length = snprintf(path, sizeof(path), "%s", place);
    } else {
        length = snprintf(path, sizeof(path), "%s/%s", directory, place);
    }
    if (length > 0 && (size_t)length < sizeof(path) && access(path, X_OK) == 0) {
        execv(path, argv);
        fprintf(stderr, "vapic check: cannot run '%s': %s\n", path, strerror(errno));
    }
}

int cli_check(int argc, char **argv)
{
    char path[PATH_MAX];
    const char *directory = own_directory(path, sizeof(path));

    (void)argc;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        try_exec(directory, places[i], argv);
    }
    fprintf(stderr,
            "vapic check: no program '" PROGRAM "' beside '%s/vapic' nor in " VAPIC_LIBEXECDIR
            ": build or install it (meson target explore/" PROGRAM ")\n",
            directory);
    return CLI_USAGE;
}
