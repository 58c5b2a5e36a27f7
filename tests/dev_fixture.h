/* SPDX-License-Identifier: MIT */
/*
 * What the tests of devices share: a machine of one lock, a port bus and an event loop without a
 * thread, with a clock that the test moves, a sink that records interrupt wires and a recorder of
 * power requests. Includes cmocka.
 */
#ifndef DEV_FIXTURE_H
#define DEV_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev_env.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FIX_WIRES    24
/* 2026-01-02 03:04:05.25 UTC, a Friday. */
#define FIX_UTC  (1767323045ll * 1000000000ll + 250000000ll)
#define FIX_MONO 5000000000ull

struct fixture {
    struct vmm_env env;
    struct vmm_env *checked; /* whose lock the recorders look at: `env`, or that of all devices */
    struct vmm_bus ports;
    struct vmm_evloop loop;
    uint64_t now;
    bool wire[FIX_WIRES];
    unsigned rises[FIX_WIRES];
    unsigned requests;
    enum vmm_power_request request;
    int code;
};

static inline uint64_t fix_mono(void *ctx)
{
    return ((struct fixture *)ctx)->now;
}

static inline int64_t fix_utc(void *ctx)
{
    return FIX_UTC + (int64_t)(((struct fixture *)ctx)->now - FIX_MONO);
}

static inline void fix_gsi(void *ctx, unsigned gsi, bool level)
{
    struct fixture *fix = ctx;

    assert_true(gsi < FIX_WIRES);
    /* The device lock is held: the documented rule for the sink. */
    assert_int_not_equal(pthread_mutex_trylock(&fix->checked->lock), 0);
    assert_int_not_equal(fix->wire[gsi], level);
    fix->wire[gsi] = level;
    fix->rises[gsi] += level;
}

static inline void fix_power(void *ctx, enum vmm_power_request request, int code)
{
    struct fixture *fix = ctx;

    assert_int_not_equal(pthread_mutex_trylock(&fix->checked->lock), 0);
    fix->requests++;
    fix->request = request;
    fix->code = code;
}

static inline void fix_init(struct fixture *fix)
{
    memset(fix, 0, sizeof(*fix));
    fix->now = FIX_MONO;
    vmm_env_init(&fix->env);
    fix->checked = &fix->env;
    fix->env.clock = (struct vmm_clock){fix, fix_mono, fix_utc};
    fix->env.loop = &fix->loop;
    fix->env.ports = &fix->ports;
    fix->env.irq = (struct vmm_irq_sink){fix, fix_gsi};
    fix->env.power = (struct vmm_power){fix, fix_power};
    vmm_bus_init(&fix->ports, VMM_BUS_LAST_PORT);
    assert_int_equal(vmm_evloop_init(&fix->loop, &fix->env.clock), 0);
}

static inline void fix_fini(struct fixture *fix)
{
    vmm_evloop_fini(&fix->loop);
    pthread_mutex_destroy(&fix->env.lock);
}

/* Moves the clock, firing each timer at its own time. Returns how many fired. */
static inline unsigned fix_advance(struct fixture *fix, uint64_t ns)
{
    uint64_t until = fix->now + ns;
    unsigned fired = 0;

    while (vmm_evloop_next(&fix->loop) <= until) {
        uint64_t next = vmm_evloop_next(&fix->loop);

        if (next > fix->now)
            fix->now = next;
        fired += vmm_evloop_run_due(&fix->loop);
    }
    fix->now = until;
    return fired;
}

static inline uint8_t in8(struct fixture *fix, uint16_t port)
{
    return (uint8_t)vmm_bus_read(&fix->ports, port, 1);
}

static inline uint16_t in16(struct fixture *fix, uint16_t port)
{
    return (uint16_t)vmm_bus_read(&fix->ports, port, 2);
}

static inline uint32_t in32(struct fixture *fix, uint16_t port)
{
    return (uint32_t)vmm_bus_read(&fix->ports, port, 4);
}

static inline void out8(struct fixture *fix, uint16_t port, uint8_t value)
{
    vmm_bus_write(&fix->ports, port, 1, value);
}

static inline void out16(struct fixture *fix, uint16_t port, uint16_t value)
{
    vmm_bus_write(&fix->ports, port, 2, value);
}

static inline void out32(struct fixture *fix, uint16_t port, uint32_t value)
{
    vmm_bus_write(&fix->ports, port, 4, value);
}

static inline void fix_lock(struct fixture *fix)
{
    pthread_mutex_lock(&fix->env.lock);
}

static inline void fix_unlock(struct fixture *fix)
{
    pthread_mutex_unlock(&fix->env.lock);
}

#endif
