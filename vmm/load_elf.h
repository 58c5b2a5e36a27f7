/* SPDX-License-Identifier: MIT */
/*
 * ELF executables of either class for x86, reduced to what a loader needs: the checked list of
 * segments and the entry point as a physical address. Called by the multiboot loader.
 */
#ifndef VMM_LOAD_ELF_H
#define VMM_LOAD_ELF_H

#include <stdint.h>

#include "load.h"

#define VMM_ELF_SEGMENTS_MAX 32u

/* Every segment lies in the file and below 4 GiB in memory, and no two overlap. */
struct vmm_elf_segment {
    uint64_t offset;
    uint64_t file_size;
    uint64_t address; /* physical */
    uint64_t virtual_address;
    uint64_t mem_size;
};

struct vmm_elf {
    struct vmm_elf_segment segment[VMM_ELF_SEGMENTS_MAX];
    unsigned segments;
    uint64_t entry; /* physical */
};

int vmm_elf_parse(const struct vmm_blob *file, struct vmm_elf *elf, struct vmm_err *err);

#endif
