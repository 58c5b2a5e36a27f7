/* SPDX-License-Identifier: MIT */
/*
 * Host-physical memory of the modelled machine: which of our allocations lies at which made-up
 * address. The library asks for addresses of what it gives to the hardware, the silicon model for
 * the memory behind them; both see one map. Filled while a machine is built, constant afterwards,
 * so that any thread may look things up. Owned by the machine's acceleration (accel.h).
 */
#ifndef VMM_ACCEL_HPA_H
#define VMM_ACCEL_HPA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMM_HPA_REGIONS_MAX 8u
#define VMM_HPA_NONE        UINT64_MAX

struct vmm_hpa_region {
    uint8_t *host;
    uint64_t hpa;
    uint64_t size;
};

struct vmm_hpa {
    struct vmm_hpa_region region[VMM_HPA_REGIONS_MAX]; /* by ascending hpa */
    unsigned count;
    uint64_t next; /* the first address that is not given away */
};

/* An empty map; zero is no address of anything. */
void vmm_hpa_init(struct vmm_hpa *map);

/*
 * Gives `size` bytes at `host` an address range of their own, with the same place in a page, apart
 * from every other by at least a page. False: size is 0, the map is full, or part of the memory
 * has an address already.
 */
bool vmm_hpa_add(struct vmm_hpa *map, void *host, uint64_t size);

/* The address of `host`; VMM_HPA_NONE where nothing was added. */
uint64_t vmm_hpa_of(const struct vmm_hpa *map, const void *host);

/* The memory at [hpa, hpa + size), which must lie in one region; NULL otherwise. */
void *vmm_hpa_at(const struct vmm_hpa *map, uint64_t hpa, uint64_t size);

#endif
