/* SPDX-License-Identifier: MIT */
/* The command's loader of multiboot images, by the addresses in their headers and by ELF; see
 * loader.h. The segments that the ELF parser takes are checked by themselves, too. */
#include "loader.h"

#include "load_elf.h"

static void check_elf(const struct vmm_blob *file)
{
    struct vmm_elf elf;
    struct vmm_err err;

    if (vmm_elf_parse(file, &elf, &err) != 0)
        return;
    fuzz_check(elf.segments <= VMM_ELF_SEGMENTS_MAX, "%u segments", elf.segments);
    for (unsigned i = 0; i < elf.segments; i++) {
        const struct vmm_elf_segment *s = &elf.segment[i];

        fuzz_check(s->offset <= file->size && s->file_size <= file->size - s->offset &&
                       s->file_size <= s->mem_size,
                   "segment %u is not in the file", i);
        fuzz_check(s->address < 1ull << 32 && s->mem_size <= (1ull << 32) - s->address,
                   "segment %u reaches beyond 4 GiB", i);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_loader *l = fuzz_loader(data, size);

    check_elf(&l->args.kernel);
    fuzz_load(l, vmm_load_multiboot);
    return 0;
}
