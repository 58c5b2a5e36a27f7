/* SPDX-License-Identifier: MIT */
/*
 * machine: what the Linux guest's /init needs of the hardware and cannot do from a shell.
 *
 *   machine exit CODE     write CODE to isa-debug-exit: `vapic run` ends with status 2*CODE+1
 *   machine cmos          print the byte that survives a reboot (CMOS RAM, as a number)
 *   machine cmos VALUE    set it
 *   machine counts CODE   write a line `vapic-exact NAME COUNT...` per counter of /proc/interrupts
 *                         below, straight to the serial port, then exit as above
 *
 * The counts of the last command are to be those at the moment the machine stops. Just after a
 * timer tick a few milliseconds are quiet: it reads until a count has changed, and writes the
 * lines. When the processors have interrupted each other meanwhile it does so again; then it ends
 * at once. On a slow machine some ticks, and seldom an IPI, may still come in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <unistd.h>

#define PORT_CMOS_INDEX 0x70
#define PORT_CMOS_DATA  0x71
#define PORT_DEBUG_EXIT 0xf4
#define PORT_SERIAL     0x3f8
#define SERIAL_STATUS   5
#define SERIAL_EMPTY    0x40 /* line status: transmitter empty */

#define CMOS_BYTE       0x48 /* of the RTC's general-purpose RAM; no firmware uses it here */

#define TEXT_MAX        (256u * 1024)
#define LINES_MAX       (16u * 1024)

static const char *const counters[] = {"LOC", "RES"};
#define LAST_LINE "vapic-exact RES"

static int fail(const char *what)
{
    fprintf(stderr, "machine: %s: %s\n", what, strerror(errno));
    return 1;
}

static unsigned parse(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 0);

    if (end == text || *end || value > 255) {
        fprintf(stderr, "machine: '%s' is no number from 0 to 255\n", text);
        exit(1);
    }
    return (unsigned)value;
}

static int do_exit(unsigned code)
{
    outl(code, PORT_DEBUG_EXIT);
    fprintf(stderr, "machine: nothing listens at the debug-exit port\n");
    return 1;
}

static unsigned read_cmos(void)
{
    outb(CMOS_BYTE, PORT_CMOS_INDEX);
    return inb(PORT_CMOS_DATA);
}

static void write_cmos(unsigned value)
{
    outb(CMOS_BYTE, PORT_CMOS_INDEX);
    outb((unsigned char)value, PORT_CMOS_DATA);
}

/* The file anew, in one read so that it is quick, at most `size` bytes with the final zero. */
static void read_interrupts(char *text, size_t size)
{
    int fd = open("/proc/interrupts", O_RDONLY);
    size_t length = 0;
    ssize_t done;

    if (fd < 0)
        exit(fail("/proc/interrupts"));
    while ((done = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)done;
    text[length] = '\0';
    close(fd);
}

/* Copies the counts of the line that starts with `name`, up to the words that explain it. */
static size_t copy_counts(char *out, const char *text, const char *name)
{
    const char *line = strstr(text, name);
    const char *at = line ? line + strlen(name) + 1 : "";
    size_t length = (size_t)sprintf(out, "vapic-exact %s", name);

    while (*at == ' ' || (*at >= '0' && *at <= '9')) {
        if (*at != ' ' || out[length - 1] != ' ')
            out[length++] = *at;
        at++;
    }
    length += (size_t)sprintf(out + length, "\r\n");
    return length;
}

static size_t summarize(char *lines, char *text)
{
    size_t length = 0;

    read_interrupts(text, TEXT_MAX);
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        length += copy_counts(lines + length, text, counters[i]);
    return length;
}

/* One string instruction: one exit to the hypervisor for all of it, not one per byte. */
static void write_serial(const char *data, size_t size)
{
    while (!(inb(PORT_SERIAL + SERIAL_STATUS) & SERIAL_EMPTY))
        ;
    outsb(PORT_SERIAL, data, size);
}

static int do_counts(unsigned code)
{
    static char text[TEXT_MAX], before[LINES_MAX], now[LINES_MAX];
    size_t size_before = summarize(before, text);
    size_t size;

    do
        size = summarize(now, text);
    while (size == size_before && !memcmp(before, now, size));
    do {
        write_serial(now, size);
        memcpy(before, now, size + 1);
        size = summarize(now, text);
    } while (strcmp(strstr(before, LAST_LINE), strstr(now, LAST_LINE)) != 0);
    return do_exit(code);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (iopl(3))
        return fail("no access to I/O ports");
    if (!strcmp(verb, "exit") && argc == 3)
        return do_exit(parse(argv[2]));
    if (!strcmp(verb, "counts") && argc == 3)
        return do_counts(parse(argv[2]));
    if (!strcmp(verb, "cmos") && argc == 3)
        return write_cmos(parse(argv[2])), 0;
    if (!strcmp(verb, "cmos") && argc == 2)
        return printf("%u\n", read_cmos()) < 0;
    fprintf(stderr, "usage: machine exit CODE | cmos [VALUE] | counts CODE\n");
    return 1;
}
