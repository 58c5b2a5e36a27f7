/* SPDX-License-Identifier: MIT */
/*
 * The text of an outcome (cases.h): the same code on both sides, so that two lines differ only
 * where the outcomes do. Freestanding.
 */
#include "cases.h"

static void put(struct outcome *o, char c)
{
    if (o->length + 1 < sizeof(o->text)) {
        o->text[o->length++] = c;
        o->text[o->length] = 0;
    }
}

static void hex(struct outcome *o, uint64_t value)
{
    static const char digits[] = "0123456789abcdef";
    int shift = 60;

    while (shift > 0 && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put(o, digits[value >> shift & 15]);
}

static void tagged(struct outcome *o, char tag, uint64_t value)
{
    put(o, ' ');
    put(o, tag);
    hex(o, value);
}

void outcome_begin(struct outcome *o)
{
    o->length = 0;
    o->text[0] = 0;
}

void outcome_done(struct outcome *o)
{
    put(o, ' ');
    put(o, '.');
}

void outcome_value(struct outcome *o, uint64_t value)
{
    tagged(o, '=', value);
}

void outcome_exception(struct outcome *o, unsigned vector)
{
    tagged(o, '!', vector);
}

void outcome_delivery(struct outcome *o, unsigned vector)
{
    tagged(o, 'D', vector);
}

void outcome_entry_error(struct outcome *o, unsigned error)
{
    tagged(o, 'F', error);
}

void outcome_entry_exit(struct outcome *o, uint32_t reason, uint64_t qualification)
{
    tagged(o, 'E', reason);
    put(o, ':');
    hex(o, qualification);
}

/* Exits whose instruction length means something: faults of an instruction [SDM3 29.2.5]; 44 where
 * the manual leaves it open and software relies on it. */
static bool has_length(uint32_t reason)
{
    return reason == EXIT_HLT || reason == EXIT_CR || reason == EXIT_RDMSR ||
           reason == EXIT_WRMSR || reason == EXIT_ACCESS;
}

/* Of exit 44 the offset in the page is undefined for guest-physical accesses, types 10 and 15. Of
 * exit 48 bits 11:9 are those of a capability that not every processor has [SDM3 29.2.1]. */
static uint64_t defined_qualification(const struct outcome_exit *exit)
{
    uint32_t basic = exit->reason & 0xFFFF;

    if (basic == EXIT_ACCESS && exit->qualification >> 12 >= 10)
        return exit->qualification & ~UINT64_C(0xFFF);
    return basic == EXIT_EPT ? exit->qualification & ~UINT64_C(0xE00) : exit->qualification;
}

void outcome_exit(struct outcome *o, const struct outcome_exit *exit)
{
    uint32_t basic = exit->reason & 0xFFFF;

    tagged(o, 'X', exit->reason);
    put(o, ':');
    hex(o, defined_qualification(exit));
    if (exit->before)
        put(o, exit->rip == exit->before ? 'f' : exit->rip == exit->behind ? 't' : '?');
    if (exit->before && has_length(basic) && exit->length == exit->behind - exit->before)
        put(o, 'l');
    if (exit->halted)
        put(o, 'h');
    if (exit->resume)
        put(o, 'r');
    if (exit->blocking) {
        put(o, 'b');
        hex(o, exit->blocking);
    }
    if (basic == EXIT_EPT) {
        put(o, 'g');
        hex(o, exit->gpa);
    }
    if (basic == EXIT_EXTERNAL && exit->intr_info >> 31) {
        put(o, 'i');
        hex(o, exit->intr_info);
    }
    if (exit->vectoring >> 31) {
        put(o, 'v');
        hex(o, exit->vectoring);
    }
}

void outcome_status(struct outcome *o, uint16_t status)
{
    tagged(o, 's', status);
}

void outcome_word(struct outcome *o, char page, uint32_t offset, uint32_t value)
{
    tagged(o, page, offset);
    put(o, '=');
    hex(o, value);
}
