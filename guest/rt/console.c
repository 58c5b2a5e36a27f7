/* SPDX-License-Identifier: MIT */
/* Serial output, formatting, and the ends of the guest. Called by everything. */
#include "console.h"

#include <stdarg.h>

#include "acpi.h"
#include "x86.h"

#define COM1          0x3f8
#define COM_FCR       (COM1 + 2)
#define COM_LCR       (COM1 + 3)
#define COM_MCR       (COM1 + 4)
#define COM_LSR       (COM1 + 5)
#define LSR_THRE      0x20
#define FIFO_DEPTH    16
#define DEBUG_EXIT    0xf4
#define PM1_SLP_EN    (1u << 13)
#define PM1_SLP_TYP   10
#define S5_SLEEP_TYPE 0u

static uint32_t lock;

static void take(void)
{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        cpu_pause();
}

static void release(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

void console_init(void)
{
    outb(COM1 + 1, 0);
    outb(COM_LCR, 0x80);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM_LCR, 0x03);
    outb(COM_FCR, 0x07);
    outb(COM_MCR, 0x03);
}

/* An empty transmitter takes a whole FIFO of bytes, which saves 15 of 16 status reads. */
static void put_char(char c)
{
    static unsigned room;

    if (!room) {
        while (!(inb(COM_LSR) & LSR_THRE))
            cpu_pause();
        room = FIFO_DEPTH;
    }
    room--;
    outb(COM1, (uint8_t)c);
}

static void put_string(const char *s)
{
    while (*s)
        put_char(*s++);
}

static void put_number(uint64_t value, unsigned base, unsigned width)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (width > n) {
        put_char('0');
        width--;
    }
    while (n)
        put_char(digits[--n]);
}

static void put_signed(int64_t value)
{
    if (value < 0)
        put_char('-');
    put_number(value < 0 ? -(uint64_t)value : (uint64_t)value, 10, 0);
}

struct conversion {
    unsigned width;
    bool is_long;
    char letter;
};

/* The conversion that follows a '%'; returns what comes after it. */
static const char *parse(const char *f, struct conversion *c)
{
    *c = (struct conversion){0, false, 0};
    for (; *f >= '0' && *f <= '9'; f++)
        c->width = c->width * 10 + (unsigned)(*f - '0');
    for (; *f == 'l'; f++)
        c->is_long = true;
    c->letter = *f;
    return *f ? f + 1 : f;
}

/* clang-tidy 14 does not see that both callers have started the list. */
/* NOLINTBEGIN(clang-analyzer-valist.Uninitialized) */
static void vprint(const char *f, va_list args)
{
    struct conversion c;

    while (*f) {
        if (*f != '%') {
            put_char(*f++);
            continue;
        }
        f = parse(f + 1, &c);
        if (c.letter == 's')
            put_string(va_arg(args, const char *));
        else if (c.letter == 'd')
            put_signed(c.is_long ? va_arg(args, int64_t) : va_arg(args, int));
        else if (c.letter == 'u' || c.letter == 'x')
            put_number(c.is_long ? va_arg(args, uint64_t) : va_arg(args, unsigned),
                       c.letter == 'x' ? 16 : 10, c.width);
        else
            put_char(c.letter);
    }
}
/* NOLINTEND(clang-analyzer-valist.Uninitialized) */

void print(const char *format, ...)
{
    va_list args;
    uint64_t flags = read_flags();

    cli();
    take();
    va_start(args, format);
    vprint(format, args);
    va_end(args);
    release();
    if (flags & RFLAGS_IF)
        sti();
}

static _Noreturn void stop(void)
{
    for (;;)
        __asm__ volatile("cli\n hlt");
}

_Noreturn void debug_exit(uint8_t code)
{
    outb(DEBUG_EXIT, code);
    stop();
}

_Noreturn void power_off(void)
{
    uint16_t port = acpi_pm1a_control();

    if (!port)
        panic("no ACPI FADT: cannot power off");
    outw(port, (uint16_t)(PM1_SLP_EN | (S5_SLEEP_TYPE << PM1_SLP_TYP)));
    stop();
}

/* May be reached with the lock held by a CPU that will never release it: does not take it. */
_Noreturn void panic(const char *format, ...)
{
    va_list args;

    cli();
    put_string("\nBail out! ");
    va_start(args, format);
    vprint(format, args);
    va_end(args);
    put_char('\n');
    debug_exit(1);
}

bool str_eq(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

const char *str_after(const char *s, const char *prefix)
{
    while (*prefix)
        if (*s++ != *prefix++)
            return NULL;
    return s;
}

bool str_is(const char *s, const char *word, char stop_at)
{
    const char *rest = str_after(s, word);

    return rest && (*rest == '\0' || *rest == stop_at);
}

/* The compiler may call these for structure copies and initialisers. */
void *memset(void *to, int value, size_t n);
void *memcpy(void *restrict to, const void *restrict from, size_t n);

void *memset(void *to, int value, size_t n)
{
    volatile uint8_t *p = to;

    while (n--)
        *p++ = (uint8_t)value;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    volatile uint8_t *p = to;
    const uint8_t *q = from;

    while (n--)
        *p++ = *q++;
    return to;
}
