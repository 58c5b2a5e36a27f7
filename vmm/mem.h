/* SPDX-License-Identifier: MIT */
/*
 * Guest memory: one anonymous mapping, seen by the guest as RAM below the MMIO hole and, when
 * there is more, above 4 GiB. Loaders and devices reach it only through vmm_mem_at(), which
 * returns a pointer for a range that lies wholly in RAM and nothing otherwise.
 */
#ifndef VMM_MEM_H
#define VMM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct vmm_mem {
    uint8_t *host; /* start of the mapping; high RAM follows low RAM without a gap */
    uint64_t low;  /* bytes of RAM from guest-physical 0 */
    uint64_t high; /* bytes of RAM from guest-physical 4 GiB */
    void *span;    /* the mapping, which begins before `host` to align that for large pages */
    uint64_t span_size;
};

enum vmm_mem_kind {
    VMM_MEM_RAM = 1, /* numbers as in an E820 or multiboot map */
    VMM_MEM_RESERVED = 2,
};

struct vmm_mem_range {
    uint64_t base;
    uint64_t size;
    enum vmm_mem_kind kind;
};

#define VMM_MEM_RANGES_MAX 6u
#define VMM_MEM_MIN        (2ull << 20)
#define VMM_MEM_MAX        (64ull << 40)

int vmm_mem_init(struct vmm_mem *mem, uint64_t size, struct vmm_err *err);
void vmm_mem_fini(struct vmm_mem *mem);

/* All bytes become zero again, as for a machine that is switched on. */
int vmm_mem_clear(struct vmm_mem *mem, struct vmm_err *err);

/* Host address of guest-physical [gpa, gpa + len), or NULL unless all of it is RAM. */
void *vmm_mem_at(const struct vmm_mem *mem, uint64_t gpa, uint64_t len);

/* The map a firmware would report, in ascending order; returns the number of ranges. */
unsigned vmm_mem_map(const struct vmm_mem *mem, struct vmm_mem_range map[VMM_MEM_RANGES_MAX]);

#endif
