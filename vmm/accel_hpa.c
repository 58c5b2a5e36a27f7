/* SPDX-License-Identifier: MIT */
/* The map of made-up host-physical addresses; see accel_hpa.h. */
#include "accel_hpa.h"

#define PAGE  UINT64_C(4096)
#define FIRST UINT64_C(0x100000) /* a stray small number is no address */

void vmm_hpa_init(struct vmm_hpa *map)
{
    *map = (struct vmm_hpa){.next = FIRST};
}

static bool overlaps(const struct vmm_hpa_region *r, uintptr_t host, uint64_t size)
{
    uintptr_t at = (uintptr_t)r->host;

    return host < at + r->size && at < host + size;
}

bool vmm_hpa_add(struct vmm_hpa *map, void *host, uint64_t size)
{
    uintptr_t at = (uintptr_t)host;

    if (size == 0 || size > UINT32_MAX || map->count == VMM_HPA_REGIONS_MAX) {
        return false;
    }
    for (unsigned i = 0; i < map->count; i++) {
        if (overlaps(&map->region[i], at, size)) {
            return false;
        }
    }
    map->region[map->count++] = (struct vmm_hpa_region){host, map->next + at % PAGE, size};
    map->next += (at % PAGE + size + PAGE - 1) / PAGE * PAGE + PAGE;
    return true;
}

uint64_t vmm_hpa_of(const struct vmm_hpa *map, const void *host)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct vmm_hpa_region *r = &map->region[i];

        if ((uintptr_t)host - (uintptr_t)r->host < r->size) {
            return r->hpa + ((uintptr_t)host - (uintptr_t)r->host);
        }
    }
    return VMM_HPA_NONE;
}

void *vmm_hpa_at(const struct vmm_hpa *map, uint64_t hpa, uint64_t size)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct vmm_hpa_region *r = &map->region[i];

        if (hpa - r->hpa < r->size) {
            return size <= r->size - (hpa - r->hpa) ? r->host + (hpa - r->hpa) : NULL;
        }
    }
    return NULL;
}
