/* SPDX-License-Identifier: MIT */
/* The VM object: its configuration, and how the caller's memory is divided. [init] only. */
#include "bytes.h"
#include "internal.h"

struct layout {
    size_t slots, by_id, by_hash, by_xid, by_flat, by_cluster, routes, watch, claims, total;
    uint32_t id_bound, hash_size;
};

static size_t take(size_t *at, size_t count, size_t size)
{
    size_t here = *at;

    *at += (count * size + 63) & ~(size_t)63;
    return here;
}

static uint32_t power_of_two_above(uint32_t n)
{
    uint32_t p = 16;

    while (p < n)
        p *= 2;
    return p;
}

static bool vm_config_valid(const struct vapic_vm_config *c)
{
    return c->max_vcpus >= 1 && c->max_vcpus <= VAPIC_MAX_VCPUS && c->id_bound <= 65536 &&
           c->bus_ns <= 33554432 && c->max_gsis <= 4096 && c->msi_dest <= VAPIC_MSI_DEST_32 &&
           (!c->knobs_set || c->knobs >> (VAPIC_KNOB_COUNT - 1) <= 1);
}

static bool lay_out(const struct vapic_vm_config *c, struct layout *l)
{
    size_t at = 0;

    if (!vm_config_valid(c))
        return false;
    l->id_bound = c->id_bound ? c->id_bound : c->max_vcpus > 256 ? c->max_vcpus : 256;
    l->hash_size = power_of_two_above(c->max_vcpus);
    l->slots = take(&at, c->max_vcpus, sizeof(struct vapic_slot));
    l->by_id = take(&at, l->id_bound, sizeof(uint16_t));
    l->by_hash = take(&at, l->hash_size, sizeof(uint16_t));
    l->by_xid = take(&at, 256, sizeof(uint16_t));
    l->by_flat = take(&at, 8, sizeof(uint16_t));
    l->by_cluster = take(&at, 64, sizeof(uint16_t));
    l->routes = take(&at, c->max_gsis, sizeof(uint64_t));
    l->watch = take(&at, c->max_gsis, sizeof(uint32_t));
    l->claims = take(&at, VAPIC_CLAIMS, sizeof(uint16_t));
    l->total = at;
    return true;
}

size_t vapic_vm_memory(const struct vapic_vm_config *config)
{
    struct layout l;

    return config != NULL && lay_out(config, &l) ? l.total : 0;
}

static void place(struct vapic_vm *vm, uint8_t *memory, const struct layout *l)
{
    vm->slots = (struct vapic_slot *)(void *)(memory + l->slots);
    vm->by_id = (uint16_t *)(void *)(memory + l->by_id);
    vm->by_hash = (uint16_t *)(void *)(memory + l->by_hash);
    vm->by_xid = (uint16_t *)(void *)(memory + l->by_xid);
    vm->by_flat = (uint16_t *)(void *)(memory + l->by_flat);
    vm->by_cluster = (uint16_t *)(void *)(memory + l->by_cluster);
    vm->routes = (uint64_t *)(void *)(memory + l->routes);
    vm->watch = (uint32_t *)(void *)(memory + l->watch);
    vm->claims = (uint16_t *)(void *)(memory + l->claims);
    vm->id_bound = l->id_bound;
    vm->hash_mask = l->hash_size - 1;
}

int vapic_vm_init(struct vapic_vm *vm, size_t vm_size, const struct vapic_vm_config *config,
                  const struct vapic_host *host, void *ctx, void *memory, size_t size)
{
    struct layout l;

    if (vm_size != sizeof(*vm))
        return VAPIC_E_SIZE;
    if (vm == NULL || config == NULL || host == NULL)
        return VAPIC_E_ARG;
    if (host->size != sizeof(*host))
        return VAPIC_E_SIZE;
    if (!lay_out(config, &l) || memory == NULL || ((uintptr_t)memory & 63) != 0)
        return VAPIC_E_ARG;
    if (!host->lock || !host->unlock || !host->quiesce || !host->notify)
        return VAPIC_E_ARG;
    if (size < l.total)
        return VAPIC_E_SIZE;
    zero_bytes(vm, sizeof(*vm));
    zero_bytes(memory, l.total);
    place(vm, memory, &l);
    vm->host = *host;
    vm->ctx = ctx;
    vm->knobs = config->knobs_set ? config->knobs : VAPIC_PROFILE_MANUAL;
    vm->bus_ns = config->bus_ns ? config->bus_ns : 1;
    vm->min_period_ns = config->min_period_ns ? config->min_period_ns : 200000;
    vm->max_vcpus = config->max_vcpus;
    vm->max_gsis = config->max_gsis;
    vm->msi_dest = (uint8_t)config->msi_dest;
    vm->count_received = config->count_received;
    return VAPIC_OK;
}
