/* SPDX-License-Identifier: MIT */
/*
 * main() of a fuzz target in a build without a fuzzing engine: every file named, and every file of
 * every directory named, is one input. Prints TAP, one test per argument: the target either
 * survives its inputs or the program dies, and the last line tells which input it was.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static bool run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    uint8_t *data;
    bool fine;

    if (file == NULL || fstat(fileno(file), &st) != 0) {
        printf("# %s: %s\n", path, strerror(errno));
        if (file != NULL)
            fclose(file);
        return false;
    }
    printf("# %s\n", path);
    fflush(stdout);
    /* Exactly as large as the input, so that a byte too many is seen. */
    data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    fine = data != NULL && fread(data, 1, (size_t)st.st_size, file) == (size_t)st.st_size;
    if (fine)
        LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    free(data);
    fclose(file);
    return fine;
}

static bool run_directory(const char *path)
{
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort), files = 0;
    bool fine = true;

    for (int i = 0; i < count; i++) {
        char file[PATH_MAX];

        if (names[i]->d_name[0] != '.') {
            snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
            fine = run_file(file) && fine;
            files++;
        }
        free(names[i]);
    }
    free(names);
    return fine && files > 0;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;

    for (int i = 1; i < argc; i++) {
        struct stat st;
        bool directory = stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode);
        bool fine = directory ? run_directory(argv[i]) : run_file(argv[i]);

        printf("%sok %d - %s\n", fine ? "" : "not ", i, argv[i]);
        failed |= !fine;
    }
    printf("1..%d\n", argc - 1);
    return failed;
}
