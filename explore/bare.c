/* SPDX-License-Identifier: MIT */
/* A VM without guests: bare.h. */
#include "bare.h"

#include <stdio.h>
#include <stdlib.h>

#include "vapic/arch/apic.h"

const struct vapic_now bare_now = {.ns = 1, .tsc = 1};

void bare_require(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "bare VM: %s: the scenario is wrong\n", what);
    abort();
}

static void lock(void *ctx)
{
    ex_lock(&((struct bare *)ctx)->lock, "configuration lock");
}

static void unlock(void *ctx)
{
    ex_unlock(&((struct bare *)ctx)->lock, "configuration lock");
}

static void quiesce(void *ctx)
{
    (void)ctx;
}

static void notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    (void)ctx;
    (void)target;
    (void)action;
}

void bare_make(struct bare *b, const struct vapic_vm_config *config, const struct vapic_host *more)
{
    struct vapic_host host = *more;

    _Static_assert(sizeof(*b) + 4096 <= EX_MEMORY, "the scenario's memory");
    host.size = sizeof(host);
    host.lock = lock;
    host.unlock = unlock;
    host.quiesce = quiesce;
    host.notify = notify;
    bare_require(vapic_vm_memory(config) <= sizeof(b->memory), "the VM's memory");
    bare_require(vapic_vm_init(&b->vm, sizeof(b->vm), config, &host, b, b->memory,
                               sizeof(b->memory)) == VAPIC_OK,
                 "the VM");
    ex_name(&b->lock, sizeof(b->lock), "configuration-lock");
}

void bare_write(struct vapic *v, uint32_t offset, uint32_t value)
{
    vapic_mmio_write(v, offset, &value, sizeof(value), bare_now);
}

void bare_make_vcpu(struct bare *b, uint32_t n, uint32_t id)
{
    struct vapic_config config = {.id = id, .features = VAPIC_FEATURE_X2APIC, .bsp = n == 0};
    struct vapic *v = &b->v[n];

    bare_require(vapic_init(v, sizeof(*v), &b->vm, &config, b->page[n]) == VAPIC_OK, "a vCPU");
    bare_write(v, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
}

void bare_add(struct bare *b, uint32_t n)
{
    bare_require(vapic_add(&b->v[n]) == VAPIC_OK, "a vCPU's place");
}
