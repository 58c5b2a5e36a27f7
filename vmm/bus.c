/* SPDX-License-Identifier: MIT */
/*
 * The port and MMIO registries (see bus.h). Owns the sorted table of regions; called by the machine
 * while it is built and by vCPU threads for every I/O exit.
 */
#include "bus.h"

#include <errno.h>
#include <string.h>

void vmm_bus_init(struct vmm_bus *bus, uint64_t last)
{
    memset(bus, 0, sizeof(*bus));
    bus->last = last;
}

static uint64_t region_last(const struct vmm_bus_region *region)
{
    return region->base + (region->len - 1);
}

/* Index of the first region that ends at or after `addr`; `count` if there is none. */
static size_t lower_bound(const struct vmm_bus *bus, uint64_t addr)
{
    size_t low = 0;
    size_t high = bus->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (region_last(&bus->regions[mid]) < addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int vmm_bus_add(struct vmm_bus *bus, const struct vmm_bus_region *region)
{
    size_t at;

    if (region->len == 0 || region->base > bus->last || region->len - 1 > bus->last - region->base)
        return -EINVAL;
    if (region->widths == 0 || !region->ops || !region->ops->read || !region->ops->write)
        return -EINVAL;
    if (bus->count == VMM_BUS_REGIONS_MAX)
        return -ENOSPC;

    at = lower_bound(bus, region->base);
    if (at < bus->count && bus->regions[at].base <= region_last(region))
        return -EEXIST;
    memmove(&bus->regions[at + 1], &bus->regions[at], (bus->count - at) * sizeof(bus->regions[0]));
    bus->regions[at] = *region;
    bus->count++;
    return 0;
}

const struct vmm_bus_region *vmm_bus_find(const struct vmm_bus *bus, uint64_t addr)
{
    size_t at = lower_bound(bus, addr);

    if (at == bus->count || bus->regions[at].base > addr)
        return NULL;
    return &bus->regions[at];
}

/* The widest aligned piece of at most `left` bytes at `addr` that the region takes; 0: none. */
static unsigned piece_size(const struct vmm_bus_region *region, uint64_t addr, unsigned left)
{
    unsigned size = 8;

    while (size && (size > left || (addr & (size - 1)) || !(region->widths & size) ||
                    size - 1 > region_last(region) - addr))
        size >>= 1;
    return size;
}

static uint64_t ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

static uint64_t read_piece(const struct vmm_bus_region *region, uint64_t addr, unsigned size)
{
    uint64_t value;

    if (region->lock)
        pthread_mutex_lock(region->lock);
    value = region->ops->read(region->ctx, addr - region->base, size);
    if (region->lock)
        pthread_mutex_unlock(region->lock);
    return value & ones(size);
}

static void write_piece(const struct vmm_bus_region *region, uint64_t addr, unsigned size,
                        uint64_t value)
{
    if (region->lock)
        pthread_mutex_lock(region->lock);
    region->ops->write(region->ctx, addr - region->base, size, value & ones(size));
    if (region->lock)
        pthread_mutex_unlock(region->lock);
}

uint64_t vmm_bus_read(const struct vmm_bus *bus, uint64_t addr, unsigned size)
{
    uint64_t value = ones(size);
    unsigned done = 0;

    while (done < size && done < 8 && addr <= bus->last && done <= bus->last - addr) {
        const struct vmm_bus_region *region = vmm_bus_find(bus, addr + done);
        unsigned piece = region ? piece_size(region, addr + done, size - done) : 0;

        if (piece) {
            value &= ~(ones(piece) << (8 * done));
            value |= read_piece(region, addr + done, piece) << (8 * done);
        }
        done += piece ? piece : 1;
    }
    return value;
}

void vmm_bus_write(const struct vmm_bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    unsigned done = 0;

    while (done < size && done < 8 && addr <= bus->last && done <= bus->last - addr) {
        const struct vmm_bus_region *region = vmm_bus_find(bus, addr + done);
        unsigned piece = region ? piece_size(region, addr + done, size - done) : 0;

        if (piece)
            write_piece(region, addr + done, piece, value >> (8 * done));
        done += piece ? piece : 1;
    }
}
