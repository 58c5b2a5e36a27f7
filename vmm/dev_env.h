/* SPDX-License-Identifier: MIT */
/*
 * What every device gets from the machine: the device lock, the clock, the event loop, the
 * interrupt sink and the power callback. The machine fills one `struct vmm_env` before it
 * initialises the first device, and it lives until the last device is gone.
 *
 * Rules for all devices:
 *
 * - vmm_<device>_init() puts the device in its power-on state and claims its ports; it returns 0 or
 *   a negative errno. vmm_<device>_reset() is what the machine's reset line does.
 *   vmm_<device>_fini() exists where there is a timer to give back.
 * - Every function of a device is called with the device lock held, except init and fini (nothing
 *   runs yet, or any more) and those that say "takes the device lock".
 * - Timer callbacks take the device lock themselves and then look whether they are still wanted.
 * - See bus.h for the lock order and for what may not be done behind the sink.
 */
#ifndef VMM_DEV_ENV_H
#define VMM_DEV_ENV_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bus.h"
#include "evloop.h"

/*
 * Interrupt lines. `gsi` is the number of the wire: an ISA interrupt has its own number, 0 being
 * the PIT. The engine carries a wire to two places: input `gsi` of the 8259 pair (below 16,
 * vmm_pic_set_line()) and an I/O APIC pin, which is `gsi` except that wire 0 is pin 2. Called on
 * every change of a line, with the device lock held.
 */
#define VMM_WIRES 24

struct vmm_irq_sink {
    void *ctx;
    void (*gsi)(void *ctx, unsigned gsi, bool level);
};

enum vmm_power_request {
    VMM_POWER_OFF,        /* ACPI soft-off */
    VMM_POWER_RESET,      /* any of the reset ports */
    VMM_POWER_DEBUG_EXIT, /* isa-debug-exit: `code` is (value << 1) | 1 */
    VMM_POWER_QUIT,       /* the user typed the escape sequence */
};

/*
 * Requests to the machine. Called with the device lock held, on a vCPU thread (or on the event
 * thread for VMM_POWER_QUIT): remember it, make the vCPUs leave the guest, return. The machine does
 * the work later, with no lock.
 */
struct vmm_power {
    void *ctx;
    void (*request)(void *ctx, enum vmm_power_request request, int code);
};

struct vmm_env {
    pthread_mutex_t lock; /* the device lock */
    struct vmm_clock clock;
    struct vmm_evloop *loop;
    struct vmm_bus *ports;
    struct vmm_irq_sink irq;
    struct vmm_power power;
    uint8_t raised[VMM_WIRES]; /* how many devices hold each wire high: wires are shared */
};

/* The caller then fills in the rest. */
static inline void vmm_env_init(struct vmm_env *env)
{
    *env = (struct vmm_env){.clock = vmm_clock_host};
    pthread_mutex_init(&env->lock, NULL);
}

static inline uint64_t vmm_env_now(const struct vmm_env *env)
{
    return vmm_clock_mono(&env->clock);
}

/*
 * A device's contribution to a wire, called when it changes. A wire is high while any device holds
 * it; the sink is told when that changes.
 */
static inline void vmm_env_gsi(struct vmm_env *env, unsigned gsi, bool level)
{
    unsigned before = env->raised[gsi];

    env->raised[gsi] = (uint8_t)(level ? before + 1 : before - 1);
    if (!before != !env->raised[gsi])
        env->irq.gsi(env->irq.ctx, gsi, level);
}

static inline void vmm_env_power(const struct vmm_env *env, enum vmm_power_request request,
                                 int code)
{
    env->power.request(env->power.ctx, request, code);
}

/* Claims `len` ports at `base` under the device lock. */
static inline int vmm_env_claim(struct vmm_env *env, const char *name, uint16_t base, uint16_t len,
                                unsigned widths, const struct vmm_bus_ops *ops, void *ctx)
{
    const struct vmm_bus_region region = {
        .name = name,
        .base = base,
        .len = len,
        .widths = widths,
        .lock = &env->lock,
        .ops = ops,
        .ctx = ctx,
    };

    return vmm_bus_add(env->ports, &region);
}

/* floor(ns * hz / 1e9) and the first ns at which that many ticks have passed; exact, no overflow.
 */
static inline uint64_t vmm_ticks(uint64_t ns, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)ns * hz / VMM_NS_PER_SEC);
}

static inline uint64_t vmm_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    return (uint64_t)(((unsigned __int128)ticks * VMM_NS_PER_SEC + hz - 1) / hz);
}

#endif
