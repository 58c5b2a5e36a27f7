/* SPDX-License-Identifier: MIT */
/* Evidence about a silent emulator; see rig_evidence.h. */
#include "rig_evidence.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS  2000
#define ANSWER_MAX 65536u
#define MARK       "rig evidence: "

/* ---- Its threads ---- */

static bool read_text(char *text, size_t size, const char *path)
{
    FILE *file = fopen(path, "re");
    size_t length;

    if (file == NULL) {
        return false;
    }
    length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    fclose(file);
    return length > 0;
}

/* Name, state, and time on a processor, of one thread: fields 2, 3, 14 and 15 [proc(5)]. */
static void show_thread(pid_t pid, const char *tid)
{
    unsigned long user, system;
    char path[64], text[1024];
    char *end;
    char state;

    snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)pid, tid);
    if (!read_text(text, sizeof(text), path) || (end = strrchr(text, ')')) == NULL ||
        sscanf(end, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state, &user,
               &system) != 3) {
        return;
    }
    *end = '\0';
    fprintf(stderr, MARK "thread %s '%s' state %c, user %lu, system %lu ticks\n", tid,
            strchr(text, '(') != NULL ? strchr(text, '(') + 1 : "", state, user, system);
}

static void show_threads(pid_t pid)
{
    char path[64];
    const struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            show_thread(pid, entry->d_name);
        }
    }
    if (dir != NULL) {
        closedir(dir);
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

void vmm_rig_evidence(const struct vmm_rig_machine *machine)
{
    const struct timespec second = {1, 0};
    int fd = machine->monitor;

    show_threads(machine->pid);
    if (!send_all(fd, "{\"execute\":\"qmp_capabilities\"}\n") || !show_answer(fd) || !ask_all(fd)) {
        fprintf(stderr, MARK "the emulator's monitor does not answer either\n");
    }
    nanosleep(&second, NULL);
    fprintf(stderr, MARK "a second later:\n");
    show_threads(machine->pid);
    ask(fd, "info registers -a");
}
