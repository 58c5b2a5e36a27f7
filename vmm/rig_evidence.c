/* SPDX-License-Identifier: MIT */
/* Evidence about a silent emulator; see rig_evidence.h. */
#include "rig_evidence.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS  2000
#define ANSWER_MAX 65536u
#define MARK       "rig evidence: "

/* ---- Its threads ---- */

/* Number, name, state, and time on a processor: fields 1, 2, 3, 14 and 15 [proc(5)]. */
static void show_thread(int fd)
{
    unsigned long user, system;
    char text[1024];
    ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
    char *end;
    char state;

    text[size > 0 ? size : 0] = '\0';
    if ((end = strrchr(text, ')')) == NULL ||
        sscanf(end, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state, &user,
               &system) != 3) {
        return; /* it has ended */
    }
    *end = '\0';
    fprintf(stderr, MARK "thread %s) state %c, user %lu, system %lu ticks\n", text, state, user,
            system);
}

static void show_threads(const struct vmm_rig_evidence *evidence)
{
    for (unsigned i = 0; i < evidence->threads; i++) {
        show_thread(evidence->stat[i]);
    }
}

void vmm_rig_evidence_open(struct vmm_rig_evidence *evidence, pid_t pid)
{
    const struct dirent *entry;
    char path[64];
    DIR *dir;

    evidence->threads = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    dir = opendir(path);
    while (dir != NULL && evidence->threads < VMM_RIG_THREADS_MAX && (entry = readdir(dir))) {
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)pid, entry->d_name);
        fd = entry->d_name[0] != '.' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0) {
            evidence->stat[evidence->threads++] = fd;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

void vmm_rig_evidence_close(struct vmm_rig_evidence *evidence)
{
    while (evidence->threads > 0) {
        close(evidence->stat[--evidence->threads]);
    }
}

/* ---- Its monitor ---- */

static bool send_all(int fd, const char *text)
{
    size_t length = strlen(text);

    return write(fd, text, length) == (ssize_t)length;
}

/* One line of the monitor's, without its end; false when none comes in time. */
static bool read_line(int fd, char *line, size_t size)
{
    size_t used = 0;

    while (used < size - 1) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};

        if (poll(&ready, 1, ANSWER_MS) <= 0 || read(fd, line + used, 1) != 1) {
            return false;
        }
        if (line[used] == '\n') {
            break;
        }
        used++;
    }
    line[used] = '\0';
    return true;
}

static void show_lines(const char *text)
{
    while (*text != '\0') {
        int length = (int)strcspn(text, "\r\n");

        if (length > 0) {
            fprintf(stderr, MARK "%.*s\n", length, text);
        }
        text += length;
        text += strspn(text, "\r\n");
    }
}

/* Reads up to the answer; what happened in between (events) is no answer. */
static bool show_answer(int fd)
{
    char *line = malloc(ANSWER_MAX);
    bool answered = false;

    while (line != NULL && !answered && read_line(fd, line, ANSWER_MAX)) {
        json_t *root = json_loads(line, 0, NULL);
        const json_t *text = json_object_get(root, "return");

        answered = text != NULL;
        if (json_is_string(text)) {
            show_lines(json_string_value(text));
        }
        json_decref(root);
    }
    free(line);
    return answered;
}

static bool ask(int fd, const char *command)
{
    char text[256];

    snprintf(text, sizeof(text),
             "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"%s\"}}\n",
             command);
    return send_all(fd, text) && show_answer(fd);
}

static bool ask_all(int fd)
{
    static const char *const commands[] = {"info status", "info registers -a", "info lapic",
                                           "info irq", "x /8i $pc"};

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (!ask(fd, commands[i])) {
            return false;
        }
    }
    return true;
}

void vmm_rig_evidence_show(const struct vmm_rig_evidence *evidence, int monitor)
{
    const struct timespec second = {1, 0};

    show_threads(evidence);
    if (!send_all(monitor, "{\"execute\":\"qmp_capabilities\"}\n") || !show_answer(monitor) ||
        !ask_all(monitor)) {
        fprintf(stderr, MARK "the emulator's monitor does not answer either\n");
    }
    nanosleep(&second, NULL);
    fprintf(stderr, MARK "a second later:\n");
    show_threads(evidence);
    ask(monitor, "info registers -a");
}
