/* SPDX-License-Identifier: MIT */
/* Checked ELF parsing; see load_elf.h. Both classes are widened to one shape, then checked. */
#include "load_elf.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "load_bytes.h"

#define ADDRESS_LIMIT 0x100000000ull

struct ehdr {
    uint16_t type;
    uint16_t machine;
    uint64_t entry;
    uint64_t phoff;
    uint16_t phentsize;
    uint16_t phnum;
};

static int read_ehdr32(const struct vmm_blob *f, struct ehdr *h)
{
    const uint8_t *p = blob_at(f, 0, sizeof(Elf32_Ehdr));
    Elf32_Ehdr e;

    if (p == NULL) {
        return -1;
    }
    memcpy(&e, p, sizeof(e));
    *h = (struct ehdr){e.e_type, e.e_machine, e.e_entry, e.e_phoff, e.e_phentsize, e.e_phnum};
    return e.e_machine == EM_386 ? 0 : -1;
}

static int read_ehdr64(const struct vmm_blob *f, struct ehdr *h)
{
    const uint8_t *p = blob_at(f, 0, sizeof(Elf64_Ehdr));
    Elf64_Ehdr e;

    if (p == NULL) {
        return -1;
    }
    memcpy(&e, p, sizeof(e));
    *h = (struct ehdr){e.e_type, e.e_machine, e.e_entry, e.e_phoff, e.e_phentsize, e.e_phnum};
    return e.e_machine == EM_X86_64 ? 0 : -1;
}

/* Returns the class, or ELFCLASSNONE with the error set. */
static int read_ehdr(const struct vmm_blob *f, struct ehdr *h, struct vmm_err *err)
{
    const uint8_t *ident = blob_at(f, 0, EI_NIDENT);
    int class;

    if (ident == NULL || memcmp(ident, ELFMAG, SELFMAG) != 0) {
        vmm_fail(err, "%s: multiboot header without load addresses, and the file is no ELF image",
                 f->name);
        return ELFCLASSNONE;
    }
    class = ident[EI_CLASS];
    if (ident[EI_DATA] != ELFDATA2LSB || !((class == ELFCLASS32 && read_ehdr32(f, h) == 0) ||
                                           (class == ELFCLASS64 && read_ehdr64(f, h) == 0))) {
        vmm_fail(err, "%s: an ELF image, but not for i386 or x86-64 (class %d, data %d)", f->name,
                 class, ident[EI_DATA]);
        return ELFCLASSNONE;
    }
    if (h->type != ET_EXEC) {
        vmm_fail(err,
                 "%s: ELF type %u is not an executable at fixed addresses: link it with -no-pie",
                 f->name, h->type);
        return ELFCLASSNONE;
    }
    return class;
}

static void read_phdr(int class, const uint8_t *p, uint32_t *type, struct vmm_elf_segment *s)
{
    if (class == ELFCLASS32) {
        Elf32_Phdr h;

        memcpy(&h, p, sizeof(h));
        *type = h.p_type;
        *s = (struct vmm_elf_segment){h.p_offset, h.p_filesz, h.p_paddr, h.p_vaddr, h.p_memsz};
    } else {
        Elf64_Phdr h;

        memcpy(&h, p, sizeof(h));
        *type = h.p_type;
        *s = (struct vmm_elf_segment){h.p_offset, h.p_filesz, h.p_paddr, h.p_vaddr, h.p_memsz};
    }
}

static bool overlaps(const struct vmm_elf_segment *a, const struct vmm_elf_segment *b)
{
    return a->address < b->address + b->mem_size && b->address < a->address + a->mem_size;
}

static int check_segment(const struct vmm_blob *f, const struct vmm_elf *elf, unsigned index,
                         const struct vmm_elf_segment *s, struct vmm_err *err)
{
    if (s->file_size > s->mem_size) {
        return vmm_fail(err,
                        "%s: program header %u: 0x%" PRIx64 " bytes in the file for 0x%" PRIx64
                        " bytes of memory: the file is damaged",
                        f->name, index, s->file_size, s->mem_size);
    }
    if (blob_at(f, s->offset, s->file_size) == NULL) {
        return vmm_fail(err,
                        "%s: truncated: program header %u wants 0x%" PRIx64
                        " bytes at offset 0x%" PRIx64 ", the file has 0x%zx",
                        f->name, index, s->file_size, s->offset, f->size);
    }
    if (s->address >= ADDRESS_LIMIT || s->mem_size > ADDRESS_LIMIT - s->address) {
        return vmm_fail(err,
                        "%s: program header %u: physical 0x%" PRIx64 "+0x%" PRIx64
                        " reaches beyond 4 GiB: set the load address in the linker script",
                        f->name, index, s->address, s->mem_size);
    }
    for (unsigned i = 0; i < elf->segments; i++) {
        if (overlaps(s, &elf->segment[i])) {
            return vmm_fail(err,
                            "%s: program header %u: physical 0x%" PRIx64 "+0x%" PRIx64
                            " overlaps another segment: the file is damaged",
                            f->name, index, s->address, s->mem_size);
        }
    }
    return 0;
}

static int read_segments(const struct vmm_blob *f, int class, const struct ehdr *h,
                         struct vmm_elf *elf, struct vmm_err *err)
{
    size_t need = class == ELFCLASS32 ? sizeof(Elf32_Phdr) : sizeof(Elf64_Phdr);
    const uint8_t *table = blob_at(f, h->phoff, (uint64_t)h->phnum * h->phentsize);

    if (h->phentsize < need || table == NULL) {
        return vmm_fail(err,
                        "%s: the table of %u program headers of %u bytes at offset 0x%" PRIx64
                        " is not in the file, or its entries are too short",
                        f->name, h->phnum, h->phentsize, h->phoff);
    }
    for (unsigned i = 0; i < h->phnum; i++) {
        struct vmm_elf_segment s;
        uint32_t type;

        read_phdr(class, table + (size_t)i * h->phentsize, &type, &s);
        if (type != PT_LOAD || s.mem_size == 0) {
            continue;
        }
        if (elf->segments == VMM_ELF_SEGMENTS_MAX) {
            return vmm_fail(err, "%s: more than %u segments to load", f->name,
                            VMM_ELF_SEGMENTS_MAX);
        }
        if (check_segment(f, elf, i, &s, err) != 0) {
            return -1;
        }
        elf->segment[elf->segments++] = s;
    }
    return 0;
}

/*
 * The entry is a virtual address; where virtual and physical addresses differ, it is found in
 * its segment. An entry that no segment holds by its virtual address must be physical already.
 */
static int find_entry(const struct vmm_blob *f, uint64_t entry, struct vmm_elf *elf,
                      struct vmm_err *err)
{
    for (unsigned i = 0; i < elf->segments; i++) {
        const struct vmm_elf_segment *s = &elf->segment[i];

        if (entry >= s->virtual_address && entry - s->virtual_address < s->mem_size) {
            elf->entry = s->address + (entry - s->virtual_address);
            return 0;
        }
    }
    for (unsigned i = 0; i < elf->segments; i++) {
        const struct vmm_elf_segment *s = &elf->segment[i];

        if (entry >= s->address && entry - s->address < s->mem_size) {
            elf->entry = entry;
            return 0;
        }
    }
    return vmm_fail(err, "%s: the entry point 0x%" PRIx64 " lies in none of its segments", f->name,
                    entry);
}

int vmm_elf_parse(const struct vmm_blob *file, struct vmm_elf *elf, struct vmm_err *err)
{
    struct ehdr h;
    int class = read_ehdr(file, &h, err);

    elf->segments = 0;
    if (class == ELFCLASSNONE || read_segments(file, class, &h, elf, err) != 0) {
        return -1;
    }
    return find_entry(file, h.entry, elf, err);
}
