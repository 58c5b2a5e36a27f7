/* SPDX-License-Identifier: MIT */
/* Guest memory; see mem.h. Owned by the machine, used by loaders, tables and the KVM engine. */
#include "mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "layout.h"

#define HUGE_PAGE (2ull << 20)

int vmm_mem_init(struct vmm_mem *mem, uint64_t size, struct vmm_err *err)
{
    uint64_t span;
    void *host;

    if (size < VMM_MEM_MIN) {
        return vmm_fail(err, "--mem: %llu KiB is too little: give at least 2M",
                        (unsigned long long)(size >> 10));
    }
    if ((size & 0xfff) != 0) {
        return vmm_fail(err, "--mem: %llu bytes is no multiple of 4 KiB: round it, or use M or G",
                        (unsigned long long)size);
    }
    if (size > VMM_MEM_MAX) {
        return vmm_fail(err, "--mem: %llu GiB is too much: give at most 64T",
                        (unsigned long long)(size >> 30));
    }
    span = size + HUGE_PAGE;
    host = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0);
    if (host == MAP_FAILED) {
        return vmm_fail(err, "--mem: cannot reserve %llu MiB of memory: %s: ask for less",
                        (unsigned long long)(size >> 20), strerror(errno));
    }
    mem->span = host;
    mem->span_size = span;
    mem->host = (uint8_t *)(((uintptr_t)host + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    /* Fewer and larger nested page tables; a kernel that cannot is as good, but slower. */
    madvise(mem->host, size, MADV_HUGEPAGE);
    mem->low = size < VMM_HOLE_BASE ? size : VMM_HOLE_BASE;
    mem->high = size - mem->low;
    return 0;
}

void vmm_mem_fini(struct vmm_mem *mem)
{
    if (mem->span != NULL) {
        munmap(mem->span, mem->span_size);
    }
    memset(mem, 0, sizeof(*mem));
}

int vmm_mem_clear(struct vmm_mem *mem, struct vmm_err *err)
{
    if (madvise(mem->host, mem->low + mem->high, MADV_DONTNEED) != 0) {
        return vmm_fail(err, "cannot clear guest memory: %s", strerror(errno));
    }
    return 0;
}

static bool inside(uint64_t gpa, uint64_t len, uint64_t base, uint64_t size)
{
    return gpa >= base && gpa - base <= size && len <= size - (gpa - base);
}

void *vmm_mem_at(const struct vmm_mem *mem, uint64_t gpa, uint64_t len)
{
    if (inside(gpa, len, 0, mem->low)) {
        return mem->host + gpa;
    }
    if (inside(gpa, len, VMM_HOLE_END, mem->high)) {
        return mem->host + mem->low + (gpa - VMM_HOLE_END);
    }
    return NULL;
}

unsigned vmm_mem_map(const struct vmm_mem *mem, struct vmm_mem_range map[VMM_MEM_RANGES_MAX])
{
    unsigned n = 0;

    map[n++] = (struct vmm_mem_range){0, VMM_LOW_RAM_END, VMM_MEM_RAM};
    map[n++] = (struct vmm_mem_range){VMM_EBDA_BASE, 0xa0000 - VMM_EBDA_BASE, VMM_MEM_RESERVED};
    map[n++] =
        (struct vmm_mem_range){VMM_ACPI_BASE, VMM_HIGH_RAM_BASE - VMM_ACPI_BASE, VMM_MEM_RESERVED};
    map[n++] = (struct vmm_mem_range){VMM_HIGH_RAM_BASE, mem->low - VMM_HIGH_RAM_BASE, VMM_MEM_RAM};
    if (mem->high != 0) {
        map[n++] = (struct vmm_mem_range){VMM_HOLE_END, mem->high, VMM_MEM_RAM};
    }
    return n;
}
