/* SPDX-License-Identifier: MIT */
/*
 * Names: of memory, as setup gives them; of places in the code, from the executable's own debug
 * information (libdw).
 */
#include "symbols.h"

#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

/* ---- Memory ---- */

struct region {
    uintptr_t start;
    size_t size, stride; /* stride 0: no array */
    const char *name;
};

static struct region *regions;
static size_t region_count, region_room;
static char **texts;
static size_t text_count, text_room;

static void *grown(void *array, size_t *room, size_t element)
{
    *room = *room * 2 + 64;
    array = realloc(array, *room * element);
    if (array == NULL)
        abort();
    return array;
}

void symbols_forget(void)
{
    while (text_count > 0)
        free(texts[--text_count]);
    region_count = 0;
}

const char *ex_text(const char *format, ...)
{
    char *text;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        abort();
    va_end(arguments);
    if (text_count == text_room)
        texts = grown(texts, &text_room, sizeof *texts);
    texts[text_count++] = text;
    return text;
}

void ex_name_array(const void *start, size_t size, size_t stride, const char *name)
{
    if (region_count == region_room)
        regions = grown(regions, &region_room, sizeof *regions);
    regions[region_count++] = (struct region){(uintptr_t)start, size, stride, name};
}

void ex_name(const void *start, size_t size, const char *name)
{
    ex_name_array(start, size, 0, name);
}

/* The smallest region around the address: a field is named within its structure. */
static const struct region *find(uintptr_t address)
{
    const struct region *best = NULL;

    for (size_t i = 0; i < region_count; i++) {
        const struct region *r = &regions[i];

        if (address - r->start < r->size && (best == NULL || r->size <= best->size))
            best = r;
    }
    return best;
}

const char *ex_address_name(const void *address, size_t size)
{
    static char text[128];
    const struct region *region = find((uintptr_t)address);
    size_t offset;

    (void)size;
    if (region == NULL) {
        snprintf(text, sizeof text, "+%#zx", (size_t)((uintptr_t)address - MACHINE_BASE));
        return text;
    }
    offset = (uintptr_t)address - region->start;
    if (region->stride > 0) {
        size_t index = offset / region->stride;

        offset %= region->stride;
        snprintf(text, sizeof text, offset ? "%s[%zu]+%#zx" : "%s[%zu]", region->name, index,
                 offset);
    } else {
        snprintf(text, sizeof text, offset ? "%s+%#zx" : "%s", region->name, offset);
    }
    return text;
}

/* ---- Code ---- */

static Dwfl *dwfl;

static void open_debug_information(void)
{
    static const Dwfl_Callbacks callbacks = {
        .find_elf = dwfl_linux_proc_find_elf,
        .find_debuginfo = dwfl_standard_find_debuginfo,
    };

    dwfl = dwfl_begin(&callbacks);
    if (dwfl == NULL)
        return;
    dwfl_report_begin(dwfl);
    dwfl_linux_proc_report(dwfl, getpid());
    dwfl_report_end(dwfl, NULL, NULL);
}

/* A path of the source tree from its root on: "src/accel/post.c". */
static const char *in_tree(const char *path)
{
    static const char *const rooms[] = {"/src/", "/silicon/", "/include/", "/explore/", "/tests/"};
    const char *at = NULL;

    for (size_t i = 0; path != NULL && at == NULL && i < sizeof rooms / sizeof rooms[0]; i++)
        at = strstr(path, rooms[i]);
    return at != NULL ? at + 1 : path;
}

static int number_of(Dwarf_Die *die, unsigned attribute)
{
    Dwarf_Attribute found;
    Dwarf_Word value;

    if (dwarf_attr(die, attribute, &found) == NULL || dwarf_formudata(&found, &value) != 0)
        return 0;
    return (int)value;
}

/* The file in which an inlined function was called. */
static const char *call_file(Dwarf_Die *unit, Dwarf_Die *die)
{
    Dwarf_Files *files;
    size_t count;

    if (dwarf_getsrcfiles(unit, &files, &count) != 0)
        return NULL;
    return in_tree(dwarf_filesrc(files, (size_t)number_of(die, DW_AT_call_file), NULL, NULL));
}

static bool is_atomic_h(const char *path)
{
    return path != NULL && strstr(path, "arch/atomic.h") != NULL;
}

/* The scopes around an address from the innermost on. libdw's search by address goes on behind an
 * inlined function where that was defined, not where it was called; its search by DIE does. */
static int scopes_of(Dwarf_Die *unit, Dwarf_Addr address, Dwarf_Die **scopes)
{
    Dwarf_Die *innermost = NULL;
    int count = dwarf_getscopes(unit, address, &innermost);

    if (count > 0)
        count = dwarf_getscopes_die(&innermost[0], scopes);
    free(innermost);
    return count;
}

/* Walks out of inlined functions until one is not of atomic.h. */
static void walk_out(Dwarf_Die *unit, Dwarf_Addr address, struct symbols_place *place)
{
    Dwarf_Die *scopes = NULL;
    int count = scopes_of(unit, address, &scopes);

    for (int i = 0; i < count; i++) {
        int tag = dwarf_tag(&scopes[i]);

        if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram)
            continue;
        place->function = dwarf_diename(&scopes[i]);
        if (dwarf_decl_line(&scopes[i], &place->first) != 0)
            place->first = 0;
        if (!is_atomic_h(dwarf_decl_file(&scopes[i])) || tag == DW_TAG_subprogram)
            break;
        if (is_atomic_h(place->file)) {
            place->file = call_file(unit, &scopes[i]);
            place->line = number_of(&scopes[i], DW_AT_call_line);
        }
    }
    free(scopes);
}

struct symbols_place symbols_place(uintptr_t pc)
{
    struct symbols_place place = {0};
    Dwarf_Addr bias = 0, address = pc - 1; /* inside of the call, not behind it */
    Dwfl_Module *module;
    Dwfl_Line *line;
    Dwarf_Die *unit;

    if (pc == 0)
        return place;
    if (dwfl == NULL)
        open_debug_information();
    module = dwfl != NULL ? dwfl_addrmodule(dwfl, address) : NULL;
    if (module == NULL)
        return place;
    line = dwfl_module_getsrc(module, address);
    if (line != NULL)
        place.file = in_tree(dwfl_lineinfo(line, NULL, &place.line, NULL, NULL, NULL));
    unit = dwfl_module_addrdie(module, address, &bias);
    if (unit != NULL)
        walk_out(unit, address - bias, &place);
    return place;
}

const char *ex_place_name(uintptr_t pc)
{
    static char text[160];
    struct symbols_place place = symbols_place(pc);

    text[0] = '\0';
    if (place.file != NULL)
        snprintf(text, sizeof text, "%s:%d %s", place.file, place.line,
                 place.function != NULL ? place.function : "");
    return text;
}
