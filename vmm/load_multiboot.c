/* SPDX-License-Identifier: MIT */
/*
 * The multiboot (version 1) loader: finds the header in the first 8 KiB, loads the image by the
 * addresses in the header or by its ELF segments, and hands over in 32-bit protected mode with
 * the information block that QEMU's `-kernel` would give: memory sizes and map, the command
 * line as "path arguments", the modules, the name of the loader.
 *
 * Called by vmm_load(). Modules go above the image, page aligned.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"
#include "load_bytes.h"
#include "load_elf.h"

#define SEARCH_LIMIT          8192u
#define HEADER_MAGIC          0x1badb002u
#define HANDOVER_MAGIC        0x2badb002u
#define HEADER_SIZE           12u
#define HEADER_SIZE_ADDRESSES 32u

/* Header flags; of the low half an unknown one must be refused. */
#define FLAG_ALIGN_MODULES 0x00000001u
#define FLAG_MEMORY_INFO   0x00000002u
#define FLAG_VIDEO         0x00000004u
#define FLAG_ADDRESSES     0x00010000u
#define FLAGS_KNOWN        (FLAG_ALIGN_MODULES | FLAG_MEMORY_INFO)
#define FLAGS_REQUIRED     0x0000ffffu

/* The information block: flags, then fields at fixed offsets. */
#define INFO_SIZE        120u
#define INFO_HAS_MEMORY  0x001u
#define INFO_HAS_CMDLINE 0x004u
#define INFO_HAS_MODULES 0x008u
#define INFO_HAS_MMAP    0x040u
#define INFO_HAS_LOADER  0x200u
#define INFO_MEM_LOWER   4u
#define INFO_MEM_UPPER   8u
#define INFO_CMDLINE     16u
#define INFO_MODS_COUNT  20u
#define INFO_MODS_ADDR   24u
#define INFO_MMAP_LENGTH 44u
#define INFO_MMAP_ADDR   48u
#define INFO_LOADER_NAME 64u

/* Where the parts lie in the page of the information block. */
#define AT_MODULES      0x100u
#define AT_LOADER_NAME  0x180u
#define AT_MMAP         0x200u
#define AT_MODULE_NAME  0x400u
#define MODULE_NAME_MAX 0xc00u
#define MMAP_ENTRY      24u

#define BOOT_CS         0x08u
#define BOOT_DS         0x10u
#define GDT_CODE_32     0x00cf9b000000ffffull
#define GDT_DATA        0x00cf93000000ffffull

uint64_t vmm_multiboot_header(const struct vmm_blob *b)
{
    for (uint64_t off = 0; off + HEADER_SIZE <= SEARCH_LIMIT; off += 4) {
        const uint8_t *h = blob_at(b, off, HEADER_SIZE);

        if (h == NULL) {
            break;
        }
        if (get32(h) == HEADER_MAGIC && get32(h) + get32(h + 4) + get32(h + 8) == 0) {
            return off;
        }
    }
    return VMM_MULTIBOOT_NONE;
}

/* A segment may use any RAM but the pages that the hand-over and the tables need. */
static int check_range(const struct vmm_mem *mem, const char *name, uint64_t base, uint64_t size,
                       struct vmm_err *err)
{
    if (vmm_mem_at(mem, base, size) == NULL) {
        return vmm_fail(err,
                        "%s: loads at 0x%" PRIx64 "+0x%" PRIx64 ", outside of the guest's %" PRIu64
                        " MiB of RAM: raise --mem",
                        name, base, size, mem->low >> 20);
    }
    if (base < VMM_LOADER_END) {
        return vmm_fail(err,
                        "%s: loads at 0x%" PRIx64 ", below 0x%x, where the boot information lies: "
                        "link it higher",
                        name, base, (unsigned)VMM_LOADER_END);
    }
    if (base < VMM_ACPI_END && base + size > VMM_EBDA_BASE) {
        return vmm_fail(err,
                        "%s: loads at 0x%" PRIx64 "+0x%" PRIx64
                        ", over the firmware area 0x9FC00..0xF7FFF: link it at 1 MiB",
                        name, base, size);
    }
    return 0;
}

static int copy_segment(const struct vmm_mem *mem, const struct vmm_blob *k,
                        const struct vmm_elf_segment *s, struct vmm_err *err)
{
    uint8_t *to;

    if (check_range(mem, k->name, s->address, s->mem_size, err) != 0) {
        return -1;
    }
    to = vmm_mem_at(mem, s->address, s->mem_size);
    memcpy(to, k->data + s->offset, s->file_size);
    return 0;
}

/* The address form: the header says what part of the file goes where. */
static int load_by_addresses(const struct vmm_mem *mem, const struct vmm_blob *k, uint64_t off,
                             uint64_t *entry, uint64_t *end, struct vmm_err *err)
{
    const uint8_t *h = blob_at(k, off, HEADER_SIZE_ADDRESSES);
    uint64_t header_addr, load_addr, load_end, bss_end, start, size;
    struct vmm_elf_segment s;

    if (h == NULL || off + HEADER_SIZE_ADDRESSES > SEARCH_LIMIT) {
        return vmm_fail(err, "%s: the multiboot header at 0x%" PRIx64 " is cut off", k->name, off);
    }
    header_addr = get32(h + 12);
    load_addr = get32(h + 16);
    load_end = get32(h + 20);
    bss_end = get32(h + 24);
    if (load_addr > header_addr || header_addr - load_addr > off) {
        return vmm_fail(err,
                        "%s: multiboot load_addr 0x%" PRIx64 " and header_addr 0x%" PRIx64
                        " do not fit a header at file offset 0x%" PRIx64,
                        k->name, load_addr, header_addr, off);
    }
    start = off - (header_addr - load_addr);
    size = load_end != 0 ? load_end - load_addr : k->size - start;
    if ((load_end != 0 && load_end < load_addr) || blob_at(k, start, size) == NULL) {
        return vmm_fail(err,
                        "%s: multiboot load_end_addr 0x%" PRIx64 " is below load_addr, or asks for "
                        "more than the file's %zu bytes",
                        k->name, load_end, k->size);
    }
    if (bss_end != 0 && bss_end < load_addr + size) {
        return vmm_fail(err, "%s: multiboot bss_end_addr 0x%" PRIx64 " is below the data's end",
                        k->name, bss_end);
    }
    *end = bss_end != 0 ? bss_end : load_addr + size;
    *entry = get32(h + 28);
    s = (struct vmm_elf_segment){start, size, load_addr, load_addr, *end - load_addr};
    return copy_segment(mem, k, &s, err);
}

static int load_by_elf(const struct vmm_mem *mem, const struct vmm_blob *k, uint64_t *entry,
                       uint64_t *end, struct vmm_err *err)
{
    struct vmm_elf elf;

    if (vmm_elf_parse(k, &elf, err) != 0) {
        return -1;
    }
    *end = 0;
    for (unsigned i = 0; i < elf.segments; i++) {
        const struct vmm_elf_segment *s = &elf.segment[i];

        if (copy_segment(mem, k, s, err) != 0) {
            return -1;
        }
        if (s->address + s->mem_size > *end) {
            *end = s->address + s->mem_size;
        }
    }
    *entry = elf.entry;
    return 0;
}

static int check_flags(const struct vmm_blob *k, uint32_t flags, struct vmm_err *err)
{
    if ((flags & FLAG_VIDEO) != 0) {
        return vmm_fail(err, "%s: the multiboot header asks for a video mode: there is no display",
                        k->name);
    }
    if ((flags & FLAGS_REQUIRED & ~FLAGS_KNOWN) != 0) {
        return vmm_fail(err, "%s: the multiboot header requires unknown features (flags 0x%x)",
                        k->name, flags);
    }
    return 0;
}

static int place_module(const struct vmm_mem *mem, const struct vmm_blob *module,
                        uint64_t image_end, uint8_t *info, struct vmm_err *err)
{
    uint64_t base = align_up(image_end < VMM_HIGH_RAM_BASE ? VMM_HIGH_RAM_BASE : image_end, 4096);
    uint8_t *to = base < mem->low ? vmm_mem_at(mem, base, module->size) : NULL;
    uint8_t *entry = info + AT_MODULES;

    if (to == NULL) {
        return vmm_fail(err,
                        "--initrd: %s (%zu KiB) does not fit above the image's end at 0x%" PRIx64
                        ": raise --mem",
                        module->name, module->size >> 10, image_end);
    }
    memcpy(to, module->data, module->size);
    snprintf((char *)info + AT_MODULE_NAME, MODULE_NAME_MAX, "%s", module->name);
    put32(entry, (uint32_t)base);
    put32(entry + 4, (uint32_t)(base + module->size));
    put32(entry + 8, (uint32_t)VMM_BOOT_INFO_BASE + AT_MODULE_NAME);
    put32(info + INFO_MODS_COUNT, 1);
    return 0;
}

static void fill_mmap(const struct vmm_mem *mem, uint8_t *info)
{
    struct vmm_mem_range map[VMM_MEM_RANGES_MAX];
    unsigned n = vmm_mem_map(mem, map);

    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = info + AT_MMAP + i * MMAP_ENTRY;

        put32(e, MMAP_ENTRY - 4); /* the size field does not count itself */
        put64(e + 4, map[i].base);
        put64(e + 12, map[i].size);
        put32(e + 20, (uint32_t)map[i].kind);
    }
    put32(info + INFO_MMAP_LENGTH, n * MMAP_ENTRY);
    put32(info + INFO_MMAP_ADDR, (uint32_t)VMM_BOOT_INFO_BASE + AT_MMAP);
}

static void fill_info(const struct vmm_mem *mem, uint8_t *info)
{
    put32(info,
          INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MODULES | INFO_HAS_MMAP | INFO_HAS_LOADER);
    put32(info + INFO_MEM_LOWER, (uint32_t)(VMM_LOW_RAM_END >> 10));
    put32(info + INFO_MEM_UPPER, (uint32_t)((mem->low - VMM_HIGH_RAM_BASE) >> 10));
    put32(info + INFO_CMDLINE, (uint32_t)VMM_CMDLINE_BASE);
    put32(info + INFO_MODS_ADDR, (uint32_t)VMM_BOOT_INFO_BASE + AT_MODULES);
    memcpy(info + AT_LOADER_NAME, "vapic", 6);
    put32(info + INFO_LOADER_NAME, (uint32_t)VMM_BOOT_INFO_BASE + AT_LOADER_NAME);
    fill_mmap(mem, info);
}

static void fill_start(uint8_t *gdt, uint64_t entry, struct vmm_start *start)
{
    put64(gdt + BOOT_CS, GDT_CODE_32);
    put64(gdt + BOOT_DS, GDT_DATA);
    *start = (struct vmm_start){
        .long_mode = false,
        .code_selector = BOOT_CS,
        .data_selector = BOOT_DS,
        .gdt_base = VMM_GDT_BASE,
        .gdt_limit = BOOT_DS + 7,
        .rip = entry,
        .rax = HANDOVER_MAGIC,
        .rbx = VMM_BOOT_INFO_BASE,
    };
}

int vmm_load_multiboot(const struct vmm_mem *mem, const struct vmm_load_args *args,
                       struct vmm_start *start, struct vmm_err *err)
{
    const struct vmm_blob *k = &args->kernel;
    uint64_t off = vmm_multiboot_header(k);
    uint64_t entry = 0;
    uint64_t end = 0;
    uint8_t *info;
    uint32_t flags;
    int rc;

    if (off == VMM_MULTIBOOT_NONE) {
        return vmm_fail(err, "%s: no multiboot header in the first 8 KiB", k->name);
    }
    flags = get32(k->data + off + 4);
    if (check_flags(k, flags, err) != 0 ||
        vmm_load_cmdline(mem, k->name, args->cmdline, VMM_CMDLINE_MAX - 1, err) != 0) {
        return -1;
    }
    rc = (flags & FLAG_ADDRESSES) != 0 ? load_by_addresses(mem, k, off, &entry, &end, err)
                                       : load_by_elf(mem, k, &entry, &end, err);
    if (rc != 0) {
        return -1;
    }
    if (vmm_mem_at(mem, entry, 1) == NULL) {
        return vmm_fail(err, "%s: the entry point 0x%" PRIx64 " lies outside of RAM", k->name,
                        entry);
    }
    info = vmm_mem_at(mem, VMM_BOOT_INFO_BASE, 0x1000);
    fill_info(mem, info);
    if (args->initrd.data != NULL && place_module(mem, &args->initrd, end, info, err) != 0) {
        return -1;
    }
    fill_start(vmm_mem_at(mem, VMM_GDT_BASE, 0x1000), entry, start);
    return 0;
}
