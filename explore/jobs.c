/* SPDX-License-Identifier: MIT */
/*
 * Processes for jobs: jobs.h. A job writes lines to its pipe, each a letter and what it means:
 * "p SCHEDULES FRACTION" how far it is, "r JSON" its result, "e TEXT" why there is none.
 */
#include "jobs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "output.h"

#define LOOK_SECONDS  0.1  /* between two lines of progress of one job */
#define GRACE_SECONDS 10.0 /* in which a job that is told to end must have ended */

struct slot {
    pid_t pid; /* 0: free */
    int fd;
    size_t job;
    char *text; /* what was read and is not a whole line yet */
    size_t used, size;
    uint64_t schedules;
    double fraction;
};

struct runner {
    struct check_jobs *jobs;
    struct slot *slots;
    struct pollfd *polls;
    size_t next, done;
    uint64_t schedules; /* of the jobs that are done */
    double start, deadline;
};

double check_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- The job's process ---- */

struct reporter {
    FILE *to;
    double last, deadline;
};

static bool report(void *arg, uint64_t schedules, double fraction)
{
    struct reporter *r = arg;
    double now = check_now();

    if (now - r->last >= LOOK_SECONDS) {
        r->last = now;
        fprintf(r->to, "p %llu %.6f\n", (unsigned long long)schedules, fraction);
        fflush(r->to);
    }
    return r->deadline == 0 || now < r->deadline;
}

static _Noreturn void child(const struct check_job *shared, int fd, double deadline)
{
    struct reporter reporter = {.to = fdopen(fd, "w"), .deadline = deadline};
    struct check_job job = *shared;
    char error[sizeof(job.error)] = "";
    json_t *result;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (reporter.to == NULL) {
        _exit(1);
    }
    job.progress = report;
    job.progress_arg = &reporter;
    result = job.work(&job, error, sizeof(error));
    if (result == NULL) {
        error[strcspn(error, "\n")] = '\0';
        fprintf(reporter.to, "e %s\n", error);
    } else {
        fputs("r ", reporter.to);
        json_dumpf(result, reporter.to, JSON_COMPACT);
        fputc('\n', reporter.to);
    }
    _exit(fclose(reporter.to) == 0 ? 0 : 1);
}

/* ---- Starting ---- */

static void not_started(struct runner *r, struct check_job *job, const char *what)
{
    snprintf(job->error, sizeof(job->error), "%s: %s", what, strerror(errno));
    r->done++;
}

static void start(struct runner *r, struct slot *slot)
{
    size_t n = r->next++;
    struct check_job *job = &r->jobs->job[n];
    int ends[2];
    pid_t pid;

    if (pipe(ends) != 0) {
        not_started(r, job, "no pipe");
        return;
    }
    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        not_started(r, job, "no process");
        close(ends[0]);
        close(ends[1]);
        return;
    }
    if (pid == 0) {
        close(ends[0]);
        child(job, ends[1], r->deadline);
    }
    close(ends[1]);
    *slot = (struct slot){.pid = pid, .fd = ends[0], .job = n};
}

static bool may_start(const struct runner *r)
{
    return r->next < r->jobs->count && (r->deadline == 0 || check_now() < r->deadline);
}

static bool start_some(struct runner *r)
{
    bool running = false;

    for (unsigned i = 0; i < r->jobs->parallel; i++) {
        if (r->slots[i].pid == 0 && may_start(r)) {
            start(r, &r->slots[i]);
        }
        running |= r->slots[i].pid != 0;
    }
    return running;
}

/* ---- Listening ---- */

static void take_line(struct slot *slot, struct check_job *job, const char *line)
{
    unsigned long long schedules;
    double fraction;

    if (line[0] == 'p' && sscanf(line, "p %llu %lf", &schedules, &fraction) == 2) {
        slot->schedules = schedules;
        slot->fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
    } else if (line[0] == 'r' && job->result == NULL) {
        job->result = json_loads(line + 2, 0, NULL);
    } else if (line[0] == 'e') {
        job->refused = true;
        snprintf(job->error, sizeof(job->error), "%s", line + 2);
    }
}

static void take_lines(struct slot *slot, struct check_job *job)
{
    char *line = slot->text;
    char *end;

    while ((end = memchr(line, '\n', slot->used - (size_t)(line - slot->text))) != NULL) {
        *end = '\0';
        take_line(slot, job, line);
        line = end + 1;
    }
    slot->used -= (size_t)(line - slot->text);
    memmove(slot->text, line, slot->used);
}

/* False at the end of what the process has to say. */
static bool hear(struct slot *slot, struct check_job *job)
{
    ssize_t n;

    if (slot->size - slot->used < 4096) {
        char *more = realloc(slot->text, slot->size * 2 + 8192);

        if (more == NULL) {
            return false;
        }
        slot->text = more;
        slot->size = slot->size * 2 + 8192;
    }
    n = read(slot->fd, slot->text + slot->used, slot->size - slot->used);
    if (n < 0) {
        return errno == EINTR || errno == EAGAIN;
    }
    slot->used += (size_t)n;
    take_lines(slot, job);
    return n > 0;
}

static uint64_t schedules_of(const json_t *result)
{
    return (uint64_t)json_integer_value(json_object_get(result, "schedules"));
}

static void finish(struct runner *r, struct slot *slot)
{
    struct check_job *job = &r->jobs->job[slot->job];
    int status = 0;

    while (waitpid(slot->pid, &status, 0) < 0 && errno == EINTR) {
    }
    close(slot->fd);
    free(slot->text);
    if (job->result == NULL && job->error[0] == '\0') {
        if (WIFSIGNALED(status)) {
            snprintf(job->error, sizeof(job->error), "its process was ended by signal %d (%s)",
                     WTERMSIG(status), strsignal(WTERMSIG(status)));
        } else {
            snprintf(job->error, sizeof(job->error),
                     "its process ended without a result, status %d", WEXITSTATUS(status));
        }
    }
    r->schedules += job->result != NULL ? schedules_of(job->result) : slot->schedules;
    r->done++;
    *slot = (struct slot){0};
}

static void kill_late(struct runner *r)
{
    for (unsigned i = 0; i < r->jobs->parallel; i++) {
        struct slot *slot = &r->slots[i];

        if (slot->pid != 0) {
            snprintf(r->jobs->job[slot->job].error, sizeof(r->jobs->job[slot->job].error),
                     "did not end when its time was over");
            kill(slot->pid, SIGKILL);
        }
    }
}

static void listen_once(struct runner *r)
{
    unsigned slots = r->jobs->parallel;

    for (unsigned i = 0; i < slots; i++) {
        bool used = r->slots[i].pid != 0;

        r->polls[i] = (struct pollfd){.fd = used ? r->slots[i].fd : -1, .events = POLLIN};
    }
    if (poll(r->polls, slots, 200) <= 0) {
        return;
    }
    for (unsigned i = 0; i < slots; i++) {
        struct slot *slot = &r->slots[i];

        if (r->polls[i].revents != 0 && !hear(slot, &r->jobs->job[slot->job])) {
            finish(r, slot);
        }
    }
}

static void show(const struct runner *r)
{
    struct check_progress p = {
        .done = r->done,
        .count = r->jobs->count,
        .schedules = r->schedules,
        .seconds = check_now() - r->start,
        .fraction = (double)r->done,
    };

    for (unsigned i = 0; i < r->jobs->parallel; i++) {
        if (r->slots[i].pid != 0) {
            p.schedules += r->slots[i].schedules;
            p.fraction += r->slots[i].fraction;
            p.title = r->jobs->job[r->slots[i].job].title;
        }
    }
    p.fraction /= (double)r->jobs->count;
    check_progress_show(&p);
}

bool check_jobs_run(struct check_jobs *jobs)
{
    struct runner r = {.jobs = jobs, .start = check_now()};

    r.deadline = jobs->timeout > 0 ? r.start + jobs->timeout : 0;
    r.slots = calloc(jobs->parallel, sizeof(*r.slots));
    r.polls = calloc(jobs->parallel, sizeof(*r.polls));
    if (r.slots == NULL || r.polls == NULL) {
        abort();
    }
    while (start_some(&r)) {
        listen_once(&r);
        if (!jobs->quiet) {
            show(&r);
        }
        if (r.deadline != 0 && check_now() > r.deadline + GRACE_SECONDS) {
            kill_late(&r);
        }
    }
    if (!jobs->quiet) {
        check_progress_clear();
    }
    free(r.slots);
    free(r.polls);
    return r.next == jobs->count && (r.deadline == 0 || check_now() < r.deadline);
}
