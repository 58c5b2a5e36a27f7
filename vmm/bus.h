/* SPDX-License-Identifier: MIT */
/*
 * The bus: which device answers at which address.
 *
 * A bus is a sorted table of address ranges. `vapic run` has two, of the same kind: one of I/O
 * ports and one of guest-physical addresses (MMIO). The machine fills them while it is built, by
 * vmm_bus_add(); after that they never change, so the vCPU threads look up without any lock.
 *
 * What an access does:
 *
 * - Reads that no region claims give all ones, writes that no region claims are dropped.
 * - A region says which access widths it understands. A wider or misaligned access, or one that
 *   reaches over the end of a region, is cut into naturally aligned pieces of a width that the
 *   region at that address does understand, lowest address first, as a chipset would do. Each piece
 *   is looked up on its own.
 * - A region whose widths do not include 1 ignores what cannot be cut to fit.
 *
 * Locks: a region may name a mutex; the bus holds it around the callback. All devices of a machine
 * name the same one, `vmm_env.lock`, the *device lock*: a machine has one. A region that needs no
 * lock (the I/O APIC, which is lock-free) names none. The lock order of the whole device side:
 *
 *     device lock -> the event loop's own lock (a leaf)
 *     device lock -> what is behind the interrupt sink, the PIC's output and the power callback
 *
 * The sink (`vmm_irq_sink.gsi`), the PIC's output (`vmm_pic_output.intr`) and `vmm_power.request`
 * are called WITH the device lock held: only so do the edges of one wire arrive in the order in
 * which they happened. Therefore what is behind them must never call the bus or a device (but for
 * vmm_pic_set_line(), which is made to be called from the sink), must never take a lock under which
 * somebody else calls the bus or a device, and must not wait for another vCPU. Posting an
 * interrupt, setting a flag and kicking a vCPU are fine.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define VMM_BUS_REGIONS_MAX 48

/* Access widths that a region understands, as a mask; a width's bit is its number of bytes. */
#define VMM_BUS_W1   1u
#define VMM_BUS_W2   2u
#define VMM_BUS_W4   4u
#define VMM_BUS_W8   8u
#define VMM_BUS_W124 (VMM_BUS_W1 | VMM_BUS_W2 | VMM_BUS_W4)

/*
 * `offset` counts from the region's base; `size` is one of the region's widths and divides the
 * address.
 */
struct vmm_bus_ops {
    uint64_t (*read)(void *ctx, uint64_t offset, unsigned size);
    void (*write)(void *ctx, uint64_t offset, unsigned size, uint64_t value);
};

struct vmm_bus_region {
    const char *name;
    uint64_t base;
    uint64_t len;
    unsigned widths;
    pthread_mutex_t *lock; /* held around the callbacks; NULL: none */
    const struct vmm_bus_ops *ops;
    void *ctx;
};

struct vmm_bus {
    uint64_t last; /* highest address of the bus */
    size_t count;
    struct vmm_bus_region regions[VMM_BUS_REGIONS_MAX]; /* by rising base, disjoint */
};

#define VMM_BUS_LAST_PORT 0xffffull
#define VMM_BUS_LAST_MMIO UINT64_MAX

void vmm_bus_init(struct vmm_bus *bus, uint64_t last);

/*
 * Claims a range. Returns 0, or -EINVAL (empty, beyond the bus, no width, no callbacks), -EEXIST
 * (overlaps another region) or -ENOSPC; on error the bus is unchanged. Not to be called once vCPUs
 * run.
 */
int vmm_bus_add(struct vmm_bus *bus, const struct vmm_bus_region *region);

/* The region at `addr`, or NULL. */
const struct vmm_bus_region *vmm_bus_find(const struct vmm_bus *bus, uint64_t addr);

/* `size` is 1, 2, 4 or 8. Any thread that does not hold the device lock. */
uint64_t vmm_bus_read(const struct vmm_bus *bus, uint64_t addr, unsigned size);
void vmm_bus_write(const struct vmm_bus *bus, uint64_t addr, unsigned size, uint64_t value);

#endif
