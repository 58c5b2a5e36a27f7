/* SPDX-License-Identifier: MIT */
/* The multiboot loader: ELF of both classes, the address form, the hand-over, hostile images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "load.h"
#include "load_bytes.h"
#include "load_elf.h"

#define MIB       (1ull << 20)

#define MAGIC     0x1badb002u
#define HEADER_AT 0x400u
#define TEXT_AT   0x800u
#define TEXT_SIZE 0x300u
#define LOAD_AT   0x100000ull
#define VIRTUAL   0xffffffff80100000ull
#define SIZE      0x1000u

struct image {
    uint8_t bytes[SIZE];
    size_t size;
};

static void put_header(struct image *im, uint32_t at, uint32_t flags)
{
    put32(im->bytes + at, MAGIC);
    put32(im->bytes + at + 4, flags);
    put32(im->bytes + at + 8, 0u - MAGIC - flags);
}

static void make_text(struct image *im)
{
    memset(im, 0, sizeof(*im));
    im->size = SIZE;
    for (unsigned i = 0; i < TEXT_SIZE; i++) {
        im->bytes[TEXT_AT + i] = (uint8_t)(i + 1);
    }
}

static Elf32_Ehdr *elf32(struct image *im)
{
    Elf32_Ehdr *e = (Elf32_Ehdr *)im->bytes;
    Elf32_Phdr *p = (Elf32_Phdr *)(im->bytes + sizeof(*e));

    make_text(im);
    put_header(im, HEADER_AT, 3);
    memcpy(e->e_ident, ELFMAG, SELFMAG);
    e->e_ident[EI_CLASS] = ELFCLASS32;
    e->e_ident[EI_DATA] = ELFDATA2LSB;
    e->e_type = ET_EXEC;
    e->e_machine = EM_386;
    e->e_entry = LOAD_AT + 0x10;
    e->e_phoff = sizeof(*e);
    e->e_phentsize = sizeof(*p);
    e->e_phnum = 2;
    *p = (Elf32_Phdr){.p_type = PT_LOAD,
                      .p_offset = TEXT_AT,
                      .p_vaddr = LOAD_AT,
                      .p_paddr = LOAD_AT,
                      .p_filesz = TEXT_SIZE,
                      .p_memsz = 0x500};
    p[1] = (Elf32_Phdr){.p_type = PT_NOTE, .p_offset = 0xffffffff, .p_filesz = 0xffffffff};
    return e;
}

static Elf64_Ehdr *elf64(struct image *im)
{
    Elf64_Ehdr *e = (Elf64_Ehdr *)im->bytes;
    Elf64_Phdr *p = (Elf64_Phdr *)(im->bytes + sizeof(*e));

    make_text(im);
    put_header(im, HEADER_AT, 0);
    memcpy(e->e_ident, ELFMAG, SELFMAG);
    e->e_ident[EI_CLASS] = ELFCLASS64;
    e->e_ident[EI_DATA] = ELFDATA2LSB;
    e->e_type = ET_EXEC;
    e->e_machine = EM_X86_64;
    e->e_entry = VIRTUAL + 0x20;
    e->e_phoff = sizeof(*e);
    e->e_phentsize = sizeof(*p);
    e->e_phnum = 1;
    *p = (Elf64_Phdr){.p_type = PT_LOAD,
                      .p_offset = TEXT_AT,
                      .p_vaddr = VIRTUAL,
                      .p_paddr = LOAD_AT,
                      .p_filesz = TEXT_SIZE,
                      .p_memsz = 0x500};
    return e;
}

/* Loads a copy in a block of exactly its size, so that a sanitizer sees a read past its end. */
static int load(const struct vmm_mem *mem, const struct image *im, struct vmm_load_args args,
                struct vmm_start *start, struct vmm_err *err)
{
    uint8_t *exact = malloc(im->size);
    int rc;

    args.kernel = (struct vmm_blob){memcpy(exact, im->bytes, im->size), im->size, "k.elf"};
    if (args.cmdline == NULL) {
        args.cmdline = "";
    }
    rc = vmm_load_multiboot(mem, &args, start, err);
    free(exact);
    return rc;
}

static struct vmm_mem memory(void)
{
    struct vmm_mem mem;
    struct vmm_err err;

    assert_int_equal(vmm_mem_init(&mem, 16 * MIB, &err), 0);
    return mem;
}

/* ---------------------------------------------------------------------------------------------- */

static void assert_text_loaded(const struct vmm_mem *mem)
{
    const uint8_t *p = vmm_mem_at(mem, LOAD_AT, 0x500);

    for (unsigned i = 0; i < 0x500; i++) {
        assert_int_equal(p[i], i < TEXT_SIZE ? (uint8_t)(i + 1) : 0);
    }
}

static void elf32_starts_in_protected_mode(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    elf32(&im);
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    assert_text_loaded(&mem);
    assert_false(start.long_mode);
    assert_int_equal(start.rax, 0x2badb002);
    assert_int_equal(start.rbx, VMM_BOOT_INFO_BASE);
    assert_int_equal(start.rip, LOAD_AT + 0x10);
    assert_int_equal(start.code_selector, 0x08);
    assert_int_equal(get64(vmm_mem_at(&mem, start.gdt_base + 8, 8)), 0x00cf9b000000ffff);
    assert_int_equal(get64(vmm_mem_at(&mem, start.gdt_base + 16, 8)), 0x00cf93000000ffff);
    vmm_mem_fini(&mem);
}

static void elf64_enters_at_the_physical_address_of_its_entry(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    elf64(&im);
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    assert_text_loaded(&mem);
    assert_int_equal(start.rip, LOAD_AT + 0x20);
    assert_false(start.long_mode);
    vmm_mem_fini(&mem);
}

static void a_physical_entry_is_taken_as_it_is(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    elf64(&im)->e_entry = LOAD_AT + 0x4ff;
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    assert_int_equal(start.rip, LOAD_AT + 0x4ff);
    vmm_mem_fini(&mem);
}

static void information_says_what_qemu_says(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;
    const uint8_t *info;

    (void)state;
    elf32(&im);
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){.cmdline = "a b"}, &start, &err), 0);
    info = vmm_mem_at(&mem, start.rbx, 4096);
    assert_int_equal(get32(info) & 0x4d, 0x4d);
    assert_int_equal(get32(info + 4), 639);
    assert_int_equal(get32(info + 8), 15 * 1024);
    assert_string_equal((const char *)vmm_mem_at(&mem, get32(info + 16), 64), "k.elf a b");
    assert_int_equal(get32(info + 20), 0);
    assert_int_equal(get32(info + 44), 4 * 24);
    info = vmm_mem_at(&mem, get32(info + 48), 4 * 24);
    assert_int_equal(get32(info + 3 * 24), 20);
    assert_int_equal(get64(info + 3 * 24 + 4), MIB);
    assert_int_equal(get64(info + 3 * 24 + 12), 15 * MIB);
    assert_int_equal(get32(info + 3 * 24 + 20), 1);
    vmm_mem_fini(&mem);
}

static void no_arguments_leave_only_the_path(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    elf32(&im);
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    assert_string_equal((const char *)vmm_mem_at(&mem, VMM_CMDLINE_BASE, 64), "k.elf");
    vmm_mem_fini(&mem);
}

static void module_lies_above_the_image_page_aligned(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_load_args args = {.initrd = {(const uint8_t *)"module", 6, "env"}};
    struct vmm_start start;
    struct vmm_err err;
    struct image im;
    const uint8_t *info, *mod;

    (void)state;
    elf32(&im);
    assert_int_equal(load(&mem, &im, args, &start, &err), 0);
    info = vmm_mem_at(&mem, start.rbx, 4096);
    assert_int_equal(get32(info + 20), 1);
    mod = vmm_mem_at(&mem, get32(info + 24), 16);
    assert_int_equal(get32(mod), LOAD_AT + 0x1000);
    assert_int_equal(get32(mod + 4), LOAD_AT + 0x1006);
    assert_memory_equal(vmm_mem_at(&mem, LOAD_AT + 0x1000, 6), "module", 6);
    assert_string_equal((const char *)vmm_mem_at(&mem, get32(mod + 8), 4), "env");
    vmm_mem_fini(&mem);
}

static void module_that_does_not_fit_is_refused(void **state)
{
    struct vmm_mem mem = memory();
    uint8_t *data = calloc(1, 15 * MIB);
    struct vmm_load_args args = {.initrd = {data, 15 * MIB, "env"}};
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    elf32(&im);
    assert_int_equal(load(&mem, &im, args, &start, &err), -1);
    assert_non_null(strstr(err.text, "--initrd: env"));
    args.initrd.size = 15 * MIB - 4096;
    assert_int_equal(load(&mem, &im, args, &start, &err), 0);
    free(data);
    vmm_mem_fini(&mem);
}

/* ---------------------------------------------------------------------------------------------- */

struct addresses {
    uint32_t header, load, load_end, bss_end, entry;
};

static void address_form(struct image *im, const struct addresses *a)
{
    make_text(im);
    put_header(im, HEADER_AT, 0x10000);
    put32(im->bytes + HEADER_AT + 12, a->header);
    put32(im->bytes + HEADER_AT + 16, a->load);
    put32(im->bytes + HEADER_AT + 20, a->load_end);
    put32(im->bytes + HEADER_AT + 24, a->bss_end);
    put32(im->bytes + HEADER_AT + 28, a->entry);
}

static void address_form_loads_what_it_names(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    address_form(&im, &(struct addresses){0x200100, 0x200000, 0x200800, 0x203000, 0x200555});
    memset(vmm_mem_at(&mem, 0x200000, 0x4000), 0, 0x4000);
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    /* File offset 300h is 200000h: the header's place decides. */
    assert_memory_equal(vmm_mem_at(&mem, 0x200000, 0x800), im.bytes + 0x300, 0x800);
    assert_int_equal(start.rip, 0x200555);
    vmm_mem_fini(&mem);
}

static void address_form_without_end_loads_the_rest_of_the_file(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err;
    struct image im;

    (void)state;
    address_form(&im, &(struct addresses){0x200400, 0x200000, 0, 0, 0x200000});
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    assert_memory_equal(vmm_mem_at(&mem, 0x200000, SIZE), im.bytes, SIZE);
    vmm_mem_fini(&mem);
}

static void address_forms_that_lie_are_refused(void **state)
{
    static const struct {
        struct addresses a;
        const char *says;
    } rows[] = {
        {{0x200000, 0x200001, 0, 0, 0}, "do not fit a header"},
        {{0x200401, 0x200000, 0, 0, 0}, "do not fit a header"},
        {{0xffffffff, 0, 0, 0, 0}, "do not fit a header"},
        {{0x200000, 0x200000, 0x1fffff, 0, 0}, "load_end_addr 0x1fffff"},
        {{0x200000, 0x200000, 0x200c01, 0, 0}, "load_end_addr 0x200c01"},
        {{0x200000, 0x200000, 0x200100, 0x2000ff, 0}, "bss_end_addr 0x2000ff"},
        {{0x200000, 0x200000, 0x200100, 0xffffffff, 0}, "outside of the guest's 16 MiB"},
        {{0xfffffff0, 0xfffffff0, 0, 0, 0}, "outside of the guest's 16 MiB"},
        {{0x1000, 0x1000, 0, 0, 0x1000}, "below 0x16000"},
        {{0x9f000, 0x9f000, 0, 0xa0000, 0x9f000}, "over the firmware area"},
        {{0x200000, 0x200000, 0x200100, 0, 0xfee00000}, "the entry point 0xfee00000"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmm_mem mem = memory();
        struct vmm_start start;
        struct vmm_err err = {""};
        struct image im;

        address_form(&im, &rows[i].a);
        assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), -1);
        if (strstr(err.text, rows[i].says) == NULL) {
            fail_msg("row %zu: '%s' does not say '%s'", i, err.text, rows[i].says);
        }
        vmm_mem_fini(&mem);
    }
}

/* ---------------------------------------------------------------------------------------------- */

static void header_is_found_anywhere_in_8_kib(void **state)
{
    static uint8_t bytes[16384];
    struct vmm_blob blob = {bytes, sizeof(bytes), "x"};
    static const struct {
        uint32_t at;
        bool found;
    } rows[] = {{0, true}, {4, true}, {2, false}, {8180, true}, {8184, false}, {8192, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memset(bytes, 0, sizeof(bytes));
        put32(bytes + rows[i].at, MAGIC);
        put32(bytes + rows[i].at + 8, 0u - MAGIC);
        assert_int_equal(vmm_multiboot_header(&blob),
                         rows[i].found ? rows[i].at : VMM_MULTIBOOT_NONE);
    }
    put32(bytes, MAGIC);
    assert_int_equal(vmm_multiboot_header(&blob), VMM_MULTIBOOT_NONE);
}

static void header_flags_that_are_not_understood_are_refused(void **state)
{
    static const struct {
        uint32_t flags;
        const char *says; /* NULL: accepted */
    } rows[] = {
        {0, NULL},
        {3, NULL},
        {0x20000, NULL},
        {4, "video mode"},
        {8, "unknown features"},
        {0x8000, "unknown features"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmm_mem mem = memory();
        struct vmm_start start;
        struct vmm_err err = {""};
        struct image im;
        int rc;

        elf32(&im);
        put_header(&im, HEADER_AT, rows[i].flags);
        rc = load(&mem, &im, (struct vmm_load_args){0}, &start, &err);
        assert_int_equal(rc, rows[i].says == NULL ? 0 : -1);
        assert_true(rows[i].says == NULL || strstr(err.text, rows[i].says) != NULL);
        vmm_mem_fini(&mem);
    }
}

#define PH32 (sizeof(Elf32_Ehdr))

/* Writes `value` of `width` bytes at `at`, or cuts the file at `at` (width 0). */
static const struct {
    size_t at;
    unsigned width;
    uint64_t value;
    const char *says;
} bad_elfs[] = {
    {0, 1, 0, "no ELF image"},
    {EI_CLASS, 1, 3, "not for i386 or x86-64"},
    {EI_CLASS, 1, ELFCLASS64, "not for i386 or x86-64"},
    {EI_DATA, 1, ELFDATA2MSB, "not for i386 or x86-64"},
    {offsetof(Elf32_Ehdr, e_machine), 2, EM_X86_64, "not for i386 or x86-64"},
    {offsetof(Elf32_Ehdr, e_type), 2, ET_DYN, "link it with -no-pie"},
    {offsetof(Elf32_Ehdr, e_phoff), 4, 0xffffffff, "program headers"},
    {offsetof(Elf32_Ehdr, e_phoff), 4, SIZE - 63, "program headers"},
    {offsetof(Elf32_Ehdr, e_phentsize), 2, sizeof(Elf32_Phdr) - 1, "too short"},
    {offsetof(Elf32_Ehdr, e_phentsize), 2, 0, "too short"},
    {offsetof(Elf32_Ehdr, e_phnum), 2, 0xffff, "program headers"},
    {offsetof(Elf32_Ehdr, e_phnum), 2, 0, "lies in none of its segments"},
    {offsetof(Elf32_Ehdr, e_entry), 4, LOAD_AT + 0x500, "lies in none of its segments"},
    {PH32 + offsetof(Elf32_Phdr, p_offset), 4, SIZE - TEXT_SIZE + 1, "truncated"},
    {PH32 + offsetof(Elf32_Phdr, p_offset), 4, 0xffffffff, "truncated"},
    {PH32 + offsetof(Elf32_Phdr, p_filesz), 4, 0x501, "0x501 bytes in the file for 0x500"},
    {PH32 + offsetof(Elf32_Phdr, p_paddr), 4, 0xfffffc00, "beyond 4 GiB"},
    {PH32 + offsetof(Elf32_Phdr, p_paddr), 4, 0xc0000000, "outside of the guest's 16 MiB"},
    {PH32 + offsetof(Elf32_Phdr, p_paddr), 4, 0x9f800, "over the firmware area"},
    {PH32 + offsetof(Elf32_Phdr, p_paddr), 4, 0xe0000, "over the firmware area"},
    {PH32 + offsetof(Elf32_Phdr, p_paddr), 4, 0x15fff, "link it higher"},
    {PH32 + offsetof(Elf32_Phdr, p_memsz), 4, 16 * MIB, "outside of the guest's 16 MiB"},
};

static void elf_images_that_lie_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_elfs) / sizeof(bad_elfs[0]); i++) {
        struct vmm_mem mem = memory();
        struct vmm_start start;
        struct vmm_err err = {""};
        struct image im;

        elf32(&im);
        memcpy(im.bytes + bad_elfs[i].at, &bad_elfs[i].value, bad_elfs[i].width);
        assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), -1);
        if (strstr(err.text, bad_elfs[i].says) == NULL) {
            fail_msg("row %zu: '%s' does not say '%s'", i, err.text, bad_elfs[i].says);
        }
        vmm_mem_fini(&mem);
    }
}

static void overlapping_segments_are_refused(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err = {""};
    struct image im;
    Elf32_Phdr *p;

    (void)state;
    elf32(&im);
    p = (Elf32_Phdr *)(im.bytes + PH32);
    p[1] = p[0];
    p[1].p_paddr += 0x4ff;
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), -1);
    assert_non_null(strstr(err.text, "overlaps"));
    p[1].p_paddr += 1;
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    vmm_mem_fini(&mem);
}

static void segments_are_counted(void **state)
{
    struct vmm_mem mem = memory();
    struct vmm_start start;
    struct vmm_err err = {""};
    struct image im;
    Elf32_Phdr *p;

    (void)state;
    elf32(&im);
    p = (Elf32_Phdr *)(im.bytes + 0xa00);
    for (unsigned i = 0; i <= VMM_ELF_SEGMENTS_MAX; i++) {
        p[i] = (Elf32_Phdr){.p_type = PT_LOAD,
                            .p_vaddr = (uint32_t)LOAD_AT + i * 4096,
                            .p_paddr = (uint32_t)LOAD_AT + i * 4096,
                            .p_memsz = 4096};
    }
    ((Elf32_Ehdr *)im.bytes)->e_phoff = 0xa00;
    ((Elf32_Ehdr *)im.bytes)->e_phnum = VMM_ELF_SEGMENTS_MAX + 1;
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), -1);
    assert_non_null(strstr(err.text, "more than 32 segments"));
    ((Elf32_Ehdr *)im.bytes)->e_phnum = VMM_ELF_SEGMENTS_MAX;
    assert_int_equal(load(&mem, &im, (struct vmm_load_args){0}, &start, &err), 0);
    vmm_mem_fini(&mem);
}

/* Any change of any header byte either loads or is refused; the sanitizers watch. */
static void no_header_makes_the_loader_misbehave(void **state)
{
    struct vmm_mem mem = memory();
    uint32_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        struct vmm_load_args args = {.initrd = {(const uint8_t *)"y", 1, "i"}};
        struct vmm_start start;
        struct vmm_err err;
        struct image im;

        if (round % 2 == 0) {
            elf32(&im);
        } else {
            elf64(&im);
        }
        for (unsigned i = 0; i <= round % 4; i++) {
            seed = seed * 1664525 + 1013904223;
            im.bytes[(seed >> 8) % 0x78] = (uint8_t)(seed >> 24);
        }
        im.size -= round % 16 == 0 ? (seed >> 4) % SIZE : 0;
        if (load(&mem, &im, args, &start, &err) == 0) {
            assert_non_null(vmm_mem_at(&mem, start.rip, 1));
        }
    }
    vmm_mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elf32_starts_in_protected_mode),
        cmocka_unit_test(elf64_enters_at_the_physical_address_of_its_entry),
        cmocka_unit_test(a_physical_entry_is_taken_as_it_is),
        cmocka_unit_test(information_says_what_qemu_says),
        cmocka_unit_test(no_arguments_leave_only_the_path),
        cmocka_unit_test(module_lies_above_the_image_page_aligned),
        cmocka_unit_test(module_that_does_not_fit_is_refused),
        cmocka_unit_test(address_form_loads_what_it_names),
        cmocka_unit_test(address_form_without_end_loads_the_rest_of_the_file),
        cmocka_unit_test(address_forms_that_lie_are_refused),
        cmocka_unit_test(header_is_found_anywhere_in_8_kib),
        cmocka_unit_test(header_flags_that_are_not_understood_are_refused),
        cmocka_unit_test(elf_images_that_lie_are_refused),
        cmocka_unit_test(overlapping_segments_are_refused),
        cmocka_unit_test(segments_are_counted),
        cmocka_unit_test(no_header_makes_the_loader_misbehave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
