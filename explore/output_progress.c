/* SPDX-License-Identifier: MIT */
/* The progress line on a terminal, and how numbers and times are written. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "jobs.h"
#include "output.h"

#define LINE_SECONDS 0.2 /* between two lines */
#define BUFFERS      8u

static char *buffer(size_t *size)
{
    static char buffers[BUFFERS][40];
    static unsigned next;

    *size = sizeof(buffers[0]);
    return buffers[next++ % BUFFERS];
}

const char *check_number(uint64_t n)
{
    char digits[24];
    size_t size;
    char *text = buffer(&size);
    size_t count = (size_t)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) {
            text[used++] = ' ';
        }
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

const char *check_duration(double seconds)
{
    size_t size;
    char *text = buffer(&size);
    unsigned long whole = (unsigned long)(seconds + 0.5);

    if (seconds < 99.95) {
        snprintf(text, size, seconds < 9.995 ? "%.2f s" : "%.1f s", seconds);
    } else if (whole < 3600) {
        snprintf(text, size, "%lu min %02lu s", whole / 60, whole % 60);
    } else {
        snprintf(text, size, "%lu h %02lu min", whole / 3600, whole / 60 % 60);
    }
    return text;
}

/* What fits into one line of the terminal; a wrapped one could not be rewritten. */
static size_t room(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79;
}

static bool shown;

void check_progress_show(const struct check_progress *p)
{
    static double last;
    double now = check_now();
    double rate = p->seconds > 0 ? (double)p->schedules / p->seconds : 0;
    char left[64] = "";
    char line[256];

    if (!isatty(STDERR_FILENO) || now - last < LINE_SECONDS) {
        return;
    }
    last = now;
    shown = true;
    if (p->fraction > 0.001 && p->seconds > 1) {
        snprintf(left, sizeof(left), ", about %s left",
                 check_duration(p->seconds * (1 - p->fraction) / p->fraction));
    }
    snprintf(line, sizeof(line), "%zu of %zu done, %s schedules, %s/s%s  %s", p->done, p->count,
             check_number(p->schedules), check_number((uint64_t)rate), left,
             p->title != NULL ? p->title : "");
    fprintf(stderr, "\r\033[K%.*s", (int)room(), line);
    fflush(stderr);
}

void check_progress_clear(void)
{
    if (shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        shown = false;
    }
}
