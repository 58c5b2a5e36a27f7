/* SPDX-License-Identifier: MIT */
/* Guest memory and the Linux loader: what a good image becomes, and what each bad one is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "load.h"
#include "load_bytes.h"

#define MIB       (1ull << 20)

#define SECTS     2u
#define SETUP     ((SECTS + 1) * 512u)
#define PAYLOAD   0x1000u
#define PREFERRED 0x1000000ull
#define ALIGN     0x200000u
#define INIT_SIZE 0x300000u

/* A well-formed image that every test changes in one place. */
struct image {
    uint8_t bytes[SETUP + PAYLOAD];
    struct vmm_blob blob;
};

static void make_image(struct image *im)
{
    uint8_t *b = im->bytes;

    memset(b, 0, sizeof(im->bytes));
    b[0x1f1] = SECTS;
    put32(b + 0x1f4, PAYLOAD / 16);
    put16(b + 0x1fe, 0xaa55);
    b[0x200] = 0xeb;
    b[0x201] = 0x66; /* the header ends at 268h */
    memcpy(b + 0x202, "HdrS", 4);
    put16(b + 0x206, 0x020f);
    b[0x211] = 1;
    put32(b + 0x22c, 0x7fffffff);
    put32(b + 0x230, ALIGN);
    b[0x234] = 1;
    put16(b + 0x236, 3);
    put32(b + 0x238, 2047);
    put64(b + 0x258, PREFERRED);
    put32(b + 0x260, INIT_SIZE);
    for (unsigned i = 0; i < PAYLOAD; i++) {
        b[SETUP + i] = (uint8_t)(i * 7 + 1);
    }
    im->blob = (struct vmm_blob){b, sizeof(im->bytes), "kernel"};
}

static struct vmm_mem memory(uint64_t size)
{
    struct vmm_mem mem;
    struct vmm_err err;

    assert_int_equal(vmm_mem_init(&mem, size, &err), 0);
    return mem;
}

/* ---------------------------------------------------------------------------------------------- */

static void memory_is_split_at_the_hole(void **state)
{
    struct vmm_mem mem = memory(4096 * MIB);

    (void)state;
    assert_int_equal(mem.low, 3072 * MIB);
    assert_int_equal(mem.high, 1024 * MIB);
    assert_ptr_equal(vmm_mem_at(&mem, 0, 1), mem.host);
    assert_ptr_equal(vmm_mem_at(&mem, VMM_HOLE_END, 1), mem.host + mem.low);
    assert_non_null(vmm_mem_at(&mem, VMM_HOLE_BASE - 4, 4));
    vmm_mem_fini(&mem);
}

static void memory_outside_of_ram_is_no_pointer(void **state)
{
    static const struct {
        uint64_t gpa, len;
    } rows[] = {
        {VMM_HOLE_BASE, 1},
        {VMM_HOLE_BASE - 4, 5},
        {VMM_HOLE_END - 1, 1},
        {VMM_HOLE_END - 1, 2},
        {VMM_HOLE_END + 1024 * MIB, 1},
        {VMM_HOLE_END + 1024 * MIB - 1, 2},
        {0, 4096 * MIB},
        {1, UINT64_MAX},
        {UINT64_MAX, 1},
        {UINT64_MAX, UINT64_MAX},
    };
    struct vmm_mem mem = memory(4096 * MIB);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_null(vmm_mem_at(&mem, rows[i].gpa, rows[i].len));
    }
    vmm_mem_fini(&mem);
}

static void memory_sizes_are_checked(void **state)
{
    struct vmm_mem mem;
    struct vmm_err err;

    (void)state;
    assert_int_equal(vmm_mem_init(&mem, MIB, &err), -1);
    assert_non_null(strstr(err.text, "at least 2M"));
    assert_int_equal(vmm_mem_init(&mem, 2 * MIB + 1, &err), -1);
    assert_non_null(strstr(err.text, "multiple of 4 KiB"));
    assert_int_equal(vmm_mem_init(&mem, UINT64_MAX - 4095, &err), -1);
    assert_non_null(strstr(err.text, "at most 64T"));
}

static void memory_clears_to_zero(void **state)
{
    struct vmm_mem mem = memory(2 * MIB);
    struct vmm_err err;
    uint8_t *p = vmm_mem_at(&mem, 0x1234, 1);

    (void)state;
    *p = 1;
    assert_int_equal(vmm_mem_clear(&mem, &err), 0);
    assert_int_equal(*p, 0);
    vmm_mem_fini(&mem);
}

static void memory_map_ascends_and_ends_at_ram(void **state)
{
    struct vmm_mem_range map[VMM_MEM_RANGES_MAX];
    struct vmm_mem mem = memory(3200 * MIB);
    unsigned n = vmm_mem_map(&mem, map);
    uint64_t end = 0;

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        assert_true(map[i].base >= end);
        assert_true(map[i].size > 0);
        end = map[i].base + map[i].size;
    }
    assert_int_equal(end, VMM_HOLE_END + 128 * MIB);
    vmm_mem_fini(&mem);
}

/* ---------------------------------------------------------------------------------------------- */

static void probe_tells_images_apart(void **state)
{
    struct image im;
    struct vmm_blob empty = {(const uint8_t *)"", 0, "empty"};

    (void)state;
    make_image(&im);
    assert_int_equal(vmm_load_probe(&im.blob), VMM_LOAD_LINUX);
    im.bytes[0x202] = 'X';
    assert_int_equal(vmm_load_probe(&im.blob), VMM_LOAD_UNKNOWN);
    assert_int_equal(vmm_load_probe(&empty), VMM_LOAD_UNKNOWN);
}

static void linux_starts_in_long_mode_at_its_64_bit_entry(void **state)
{
    struct vmm_mem mem = memory(64 * MIB);
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    make_image(&im);
    assert_int_equal(
        vmm_load(&mem, &(struct vmm_load_args){.kernel = im.blob, .cmdline = "a b"}, &start, &err),
        0);
    assert_true(start.long_mode);
    assert_int_equal(start.rip, PREFERRED + 0x200);
    assert_int_equal(start.rsi, VMM_BOOT_INFO_BASE);
    assert_int_equal(start.code_selector, 0x10);
    assert_int_equal(start.data_selector, 0x18);
    assert_int_equal(start.cr3, VMM_PAGE_TABLE_BASE);
    assert_memory_equal(vmm_mem_at(&mem, PREFERRED, PAYLOAD), im.bytes + SETUP, PAYLOAD);
    vmm_mem_fini(&mem);
}

static void linux_gets_its_zero_page(void **state)
{
    struct vmm_mem mem = memory(64 * MIB);
    struct vmm_start start;
    struct vmm_err err;
    struct image im;
    const uint8_t *zp;

    (void)state;
    make_image(&im);
    assert_int_equal(
        vmm_load(&mem,
                 &(struct vmm_load_args){.kernel = im.blob, .cmdline = "quiet", .rsdp = 0xe0000},
                 &start, &err),
        0);
    zp = vmm_mem_at(&mem, start.rsi, 4096);
    assert_memory_equal(zp + 0x202, "HdrS", 4);
    assert_int_equal(zp[0x210], 0xff);
    assert_int_equal(get32(zp + 0x228), VMM_CMDLINE_BASE);
    assert_string_equal((const char *)vmm_mem_at(&mem, VMM_CMDLINE_BASE, 16), "quiet");
    assert_int_equal(get64(zp + 0x70), 0xe0000);
    assert_int_equal(zp[0x1e8], 4);
    assert_int_equal(get64(zp + 0x2d0 + 3 * 20), VMM_HIGH_RAM_BASE);
    assert_int_equal(get64(zp + 0x2d0 + 3 * 20 + 8), 63 * MIB);
    assert_int_equal(get32(zp + 0x2d0 + 3 * 20 + 16), 1);
    assert_int_equal(get32(zp + 0x218), 0);
    vmm_mem_fini(&mem);
}

static void linux_header_does_not_run_over_the_memory_map(void **state)
{
    struct vmm_mem mem = memory(64 * MIB);
    struct vmm_start start;
    struct vmm_err err;
    struct image im;
    const uint8_t *zp;

    (void)state;
    make_image(&im);
    im.bytes[0x201] = 0xff;
    memset(im.bytes + 0x268, 0xee, 0x301 - 0x268);
    assert_int_equal(
        vmm_load(&mem, &(struct vmm_load_args){.kernel = im.blob, .cmdline = ""}, &start, &err), 0);
    zp = vmm_mem_at(&mem, start.rsi, 4096);
    assert_int_equal(get64(zp + 0x2d0), 0);
    assert_int_equal(zp[0x28f], 0xee);
    assert_int_equal(zp[0x290], 0);
    vmm_mem_fini(&mem);
}

static void linux_pages_map_four_gigabytes_one_to_one(void **state)
{
    struct vmm_mem mem = memory(64 * MIB);
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    make_image(&im);
    assert_int_equal(
        vmm_load(&mem, &(struct vmm_load_args){.kernel = im.blob, .cmdline = ""}, &start, &err), 0);
    for (uint64_t gpa = 0; gpa < 4096 * MIB; gpa += 2 * MIB) {
        uint64_t e = get64(vmm_mem_at(&mem, start.cr3, 8)) & ~0xfffull;

        e = get64(vmm_mem_at(&mem, e + (gpa >> 30) * 8, 8)) & ~0xfffull;
        e = get64(vmm_mem_at(&mem, e + (gpa >> 21 & 511) * 8, 8));
        assert_int_equal(e, gpa | 0x83);
    }
    vmm_mem_fini(&mem);
}

static void linux_moves_down_when_its_place_is_too_high(void **state)
{
    struct vmm_mem mem = memory(8 * MIB);
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    make_image(&im);
    assert_int_equal(
        vmm_load(&mem, &(struct vmm_load_args){.kernel = im.blob, .cmdline = ""}, &start, &err), 0);
    assert_int_equal(start.rip, ALIGN + 0x200);
    vmm_mem_fini(&mem);
}

static uint64_t load_initrd(uint64_t ram, uint32_t limit, size_t size)
{
    struct vmm_mem mem = memory(ram);
    uint8_t *data = calloc(1, size);
    struct vmm_load_args args = {.cmdline = "", .initrd = {data, size, "initrd"}};
    struct vmm_start start;
    struct vmm_err err;
    struct image im;
    uint64_t at = 0;

    make_image(&im);
    put32(im.bytes + 0x22c, limit);
    args.kernel = im.blob;
    data[0] = 0x5a;
    data[size - 1] = 0xa5;
    if (vmm_load(&mem, &args, &start, &err) == 0) {
        const uint8_t *zp = vmm_mem_at(&mem, start.rsi, 4096);
        const uint8_t *got;

        at = get32(zp + 0x218);
        assert_int_equal(get32(zp + 0x21c), size);
        got = vmm_mem_at(&mem, at, size);
        assert_int_equal(got[0], 0x5a);
        assert_int_equal(got[size - 1], 0xa5);
    } else {
        assert_non_null(strstr(err.text, "--initrd"));
    }
    free(data);
    vmm_mem_fini(&mem);
    return at;
}

static void initrd_goes_as_high_as_the_kernel_allows(void **state)
{
    (void)state;
    assert_int_equal(load_initrd(64 * MIB, 0x7fffffff, 5000), 64 * MIB - 8192);
    assert_int_equal(load_initrd(64 * MIB, 0x1ffffff, 5000), 32 * MIB - 8192);
    /* The kernel and what it needs at its start end at 19 MiB. */
    assert_int_equal(load_initrd(64 * MIB, 19 * MIB + 4095, 4096), 19 * MIB);
    assert_int_equal(load_initrd(64 * MIB, 19 * MIB + 4095, 4097), 0);
    assert_int_equal(load_initrd(64 * MIB, 19 * MIB + 4094, 4095), 19 * MIB);
    assert_int_equal(load_initrd(64 * MIB, 0, 100), 0);
    assert_int_equal(load_initrd(24 * MIB, 0x7fffffff, 6 * MIB), 0);
}

/* ---------------------------------------------------------------------------------------------- */

/* Writes `value` of `width` bytes at `at`, or cuts the file at `at` (width 0). */
static const struct {
    uint32_t at;
    unsigned width;
    uint64_t value;
    uint64_t ram_mib;
    const char *says;
} bad_images[] = {
    {0x263, 0, 0, 64, "truncated: 611 bytes are less than a setup header"},
    {0x206, 2, 0x020b, 64, "boot protocol 2.11 is too old"},
    {0x236, 2, 2, 64, "no 64-bit entry"},
    {0x211, 1, 0, 64, "zImage"},
    {0x201, 1, 0x10, 64, "the setup header ends at 0x212"},
    {0x1f1, 1, 200, 64, "truncated"},
    {0x1f1, 1, 0, 64, "truncated"},
    {0x1f4, 4, PAYLOAD / 16 + 1, 64, "truncated: the header announces 4112 bytes"},
    {0x1f4, 4, 0xffffffff, 64, "truncated"},
    {0x1f4, 4, 0, 64, "too few for a 64-bit entry"},
    {0x1f4, 4, 0x20, 64, "too few for a 64-bit entry"},
    {0x258, 8, 0xfffffffffffff000, 2, "raise --mem"},
    {0x258, 8, 0x1000, 2, "raise --mem"},
    {0x260, 4, 0xffffffff, 64, "the kernel needs 4096 MiB"},
    {0x230, 4, 3, 8, "raise --mem"},
    {0x230, 4, 0, 8, "raise --mem"},
    {0x234, 1, 0, 8, "raise --mem"},
    {0x238, 4, 3, 64, "--append: the command line has 4 bytes and the guest takes 3"},
    {SETUP, 0, 0, 64, "truncated"},
};

static void linux_images_that_lie_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_images) / sizeof(bad_images[0]); i++) {
        struct vmm_mem mem = memory(bad_images[i].ram_mib * MIB);
        struct vmm_load_args args = {.cmdline = "abcd"};
        struct vmm_start start;
        struct vmm_err err = {""};
        struct image im;
        uint8_t *exact;

        make_image(&im);
        memcpy(im.bytes + bad_images[i].at, &bad_images[i].value, bad_images[i].width);
        args.kernel = im.blob;
        if (bad_images[i].width == 0) {
            args.kernel.size = bad_images[i].at;
        }
        /* In a block of its size, so that a sanitizer sees a read past its end. */
        exact = malloc(args.kernel.size);
        args.kernel.data = memcpy(exact, im.bytes, args.kernel.size);
        assert_int_equal(vmm_load_linux(&mem, &args, &start, &err), -1);
        if (strstr(err.text, bad_images[i].says) == NULL) {
            fail_msg("row %zu: '%s' does not say '%s'", i, err.text, bad_images[i].says);
        }
        free(exact);
        vmm_mem_fini(&mem);
    }
}

static void the_longest_command_line_fits(void **state)
{
    struct vmm_mem mem = memory(64 * MIB);
    char line[2049];
    struct vmm_load_args args = {.cmdline = line};
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    make_image(&im);
    args.kernel = im.blob;
    memset(line, 'x', sizeof(line));
    line[2047] = '\0';
    assert_int_equal(vmm_load(&mem, &args, &start, &err), 0);
    assert_string_equal((const char *)vmm_mem_at(&mem, VMM_CMDLINE_BASE, 2048), line);
    line[2047] = 'x';
    line[2048] = '\0';
    assert_int_equal(vmm_load(&mem, &args, &start, &err), -1);
    vmm_mem_fini(&mem);
}

/* Any change of any header byte either loads or is refused; the sanitizers watch. */
static void no_header_makes_the_loader_misbehave(void **state)
{
    struct vmm_mem mem = memory(24 * MIB);
    uint32_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        struct vmm_load_args args = {.cmdline = "x", .initrd = {(const uint8_t *)"y", 1, "i"}};
        struct vmm_start start;
        struct vmm_err err;
        struct image im;
        uint8_t *exact;

        make_image(&im);
        for (unsigned i = 0; i <= round % 4; i++) {
            seed = seed * 1664525 + 1013904223;
            im.bytes[0x1f1 + (seed >> 8) % 0x77] = (uint8_t)(seed >> 24);
        }
        args.kernel = im.blob;
        args.kernel.size -= round % 64 == 0 ? seed % PAYLOAD : 0;
        exact = malloc(args.kernel.size);
        args.kernel.data = memcpy(exact, im.bytes, args.kernel.size);
        if (vmm_load_linux(&mem, &args, &start, &err) == 0) {
            assert_non_null(vmm_mem_at(&mem, start.rip, 1));
        }
        free(exact);
    }
    vmm_mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_split_at_the_hole),
        cmocka_unit_test(memory_outside_of_ram_is_no_pointer),
        cmocka_unit_test(memory_sizes_are_checked),
        cmocka_unit_test(memory_clears_to_zero),
        cmocka_unit_test(memory_map_ascends_and_ends_at_ram),
        cmocka_unit_test(probe_tells_images_apart),
        cmocka_unit_test(linux_starts_in_long_mode_at_its_64_bit_entry),
        cmocka_unit_test(linux_gets_its_zero_page),
        cmocka_unit_test(linux_header_does_not_run_over_the_memory_map),
        cmocka_unit_test(linux_pages_map_four_gigabytes_one_to_one),
        cmocka_unit_test(linux_moves_down_when_its_place_is_too_high),
        cmocka_unit_test(initrd_goes_as_high_as_the_kernel_allows),
        cmocka_unit_test(linux_images_that_lie_are_refused),
        cmocka_unit_test(the_longest_command_line_fits),
        cmocka_unit_test(no_header_makes_the_loader_misbehave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
