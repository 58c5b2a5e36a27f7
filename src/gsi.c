/* SPDX-License-Identifier: MIT */
/*
 * GSIs and messages of devices: MSI decoding, GSI routes, EOI broadcast, acknowledge notifiers.
 *
 * Owns vm->routes, vm->watch and what is derived from them. Called by device threads, by the EOI of
 * a local APIC (vapic_eoi_from_vcpu), and by ioapic.c for pins whose GSI is watched.
 *
 * A route is one 64-bit word per GSI, so that any thread reads it whole without a lock:
 *
 *   63            32 31          16  15   14 13  12  11  10  8 7        0
 *  +----------------+--------------+----+------+----+---+-----+----------+
 *  | destination    | line sources | T  | kind | RH | L | DM  | vector   |   kind MSI
 *  +----------------+--------------+----+------+----+---+-----+----------+
 *  | I/O APIC | pin |      0       | 0  | kind |          0             |   kind IOAPIC
 *  +----------------+--------------+----+------+------------------------+
 *
 * Line sources of an MSI route live here and are changed by compare-and-swap: the message is sent
 * by the thread that took the line from low to high. Those of a pin live in the pin. Routes are
 * written under the configuration lock, also by compare-and-swap because of the sources.
 *
 * A watch is one 32-bit word per GSI: flags in 7:0, source in 15:8.
 */
#include "fabric.h"
#include "ioapic_pin.h"
#include "vapic/arch/msi.h"

#define MAX_SOURCES         IOAPIC_MAX_SOURCES

#define ROUTE_ICR           (APIC_ICR_VECTOR | APIC_ICR_DM | APIC_ICR_LOGICAL | APIC_ICR_LEVEL)
#define ROUTE_REDIRECT      (UINT64_C(1) << 12)
#define ROUTE_KIND_SHIFT    13
#define ROUTE_SOURCES_SHIFT 16
#define ROUTE_SOURCES       (UINT64_C(0xFFFF) << ROUTE_SOURCES_SHIFT)
#define ROUTE_DEST_SHIFT    32
#define ROUTE_PIN_SHIFT     32
#define ROUTE_IOAPIC_SHIFT  40

#define WATCH_FLAGS         (VAPIC_GSI_ACK | VAPIC_GSI_RESAMPLE)
#define WATCH_SOURCE_SHIFT  8

static enum vapic_route_kind route_kind(uint64_t route)
{
    return (enum vapic_route_kind)((route >> ROUTE_KIND_SHIFT) & 3);
}

int vapic_gsi_outcome(struct vapic_sent sent)
{
    if (sent.accepted == 0)
        return VAPIC_GSI_BLOCKED;
    return sent.accepted == 1 && sent.coalesced ? 0 : (int)sent.accepted;
}

/* ---- Messages ---- */

static uint32_t msi_destination(const struct vapic_vm *vm, uint64_t address)
{
    uint32_t dest = (address >> MSI_ADDR_DEST_SHIFT) & 0xFF;

    switch (vm->msi_dest) {
    case VAPIC_MSI_DEST_15:
        return dest | ((address >> MSI_ADDR_EXT_SHIFT) & MSI_ADDR_EXT_MASK) << 8;
    case VAPIC_MSI_DEST_32:
        return dest | (uint32_t)(address >> 32 & 0xFFFFFF00u);
    default:
        return dest;
    }
}

static bool msi_address_good(const struct vapic_vm *vm, uint64_t address)
{
    if ((address & MSI_ADDR_PREFIX_MASK) != MSI_ADDR_PREFIX || (address & MSI_ADDR_REMAPPABLE))
        return false;
    return vm->msi_dest != VAPIC_MSI_DEST_32 || (address >> 32 & 0xFF) == 0;
}

/*
 * [SDM3 12.11.1] [SDM3 12.11.2]. The destination mode bit counts with the redirection hint clear
 * too, and the level bit of the data (14) is taken as set: what an I/O APIC kept by the host turns
 * its entries into does not carry it, and a de-assert message means nothing to a local APIC.
 */
static inline bool decode(const struct vapic_vm *vm, uint64_t address, uint32_t data,
                          struct vapic_msg *msg)
{
    uint32_t mode = data & MSI_DATA_DM;

    if (!msi_address_good(vm, address) || mode == APIC_DM_REMOTE || mode == APIC_DM_SIPI)
        return false;
    msg->icr = (data & (MSI_DATA_VECTOR | MSI_DATA_DM)) | APIC_ICR_ASSERT;
    if (address & MSI_ADDR_LOGICAL)
        msg->icr |= APIC_ICR_LOGICAL;
    if ((data & MSI_DATA_LEVEL) && mode <= APIC_DM_LOWEST)
        msg->icr |= APIC_ICR_LEVEL;
    msg->dest = msi_destination(vm, address);
    msg->source = VAPIC_FROM_DEVICE;
    msg->flags = address & MSI_ADDR_REDIRECT ? VAPIC_MSG_REDIRECT : 0;
    return true;
}

bool vapic_msi_decode(const struct vapic_vm *vm, uint64_t address, uint32_t data,
                      struct vapic_msg *msg)
{
    return decode(vm, address, data, msg);
}

static inline int send_msi(struct vapic_vm *vm, uint64_t address, uint32_t data)
{
    struct vapic_msg msg;

    if (UNLIKELY(!decode(vm, address, data, &msg)))
        return VAPIC_E_MSI;
    return (int)vapic_fabric_deliver(vm, msg).accepted;
}

static NOINLINE int send_msi_traced(struct vapic_vm *vm, uint64_t address, uint32_t data)
{
    TRACE(vm, MSI_SET_IRQ, VAPIC_NO_INDEX, address, data, 0, 0);
    return send_msi(vm, address, data);
}

int vapic_msi(struct vapic_vm *vm, uint64_t address, uint32_t data)
{
    return UNLIKELY(vapic_traced(vm)) ? send_msi_traced(vm, address, data)
                                      : send_msi(vm, address, data);
}

static uint64_t pack_msi(const struct vapic_msg *msg)
{
    return (msg->icr & ROUTE_ICR) | (msg->flags & VAPIC_MSG_REDIRECT ? ROUTE_REDIRECT : 0) |
           (uint64_t)VAPIC_ROUTE_MSI << ROUTE_KIND_SHIFT | (uint64_t)msg->dest << ROUTE_DEST_SHIFT;
}

static struct vapic_msg unpack_msi(uint64_t route)
{
    return (struct vapic_msg){
        .icr = (uint32_t)(route & ROUTE_ICR) | APIC_ICR_ASSERT,
        .dest = (uint32_t)(route >> ROUTE_DEST_SHIFT),
        .source = VAPIC_FROM_DEVICE,
        .flags = route & ROUTE_REDIRECT ? VAPIC_MSG_REDIRECT : 0,
    };
}

/* ---- Lines ---- */

static int set_message_line(struct vapic_vm *vm, uint32_t gsi, uint32_t source, bool level)
{
    uint64_t *route = &vm->routes[gsi];
    uint64_t bit = UINT64_C(1) << (ROUTE_SOURCES_SHIFT + source);
    uint64_t seen = vapic_load64(route, VAPIC_ACQUIRE);

    do {
        if (route_kind(seen) != VAPIC_ROUTE_MSI)
            return VAPIC_GSI_BLOCKED;
    } while (!vapic_cas64(route, &seen, level ? seen | bit : seen & ~bit, VAPIC_ACQ_REL));

    if (!level || (seen & ROUTE_SOURCES))
        return 0;
    return vapic_gsi_outcome(vapic_fabric_deliver(vm, unpack_msi(seen)));
}

/* The list only grows, and a route names an I/O APIC that was in it: the acquire finds it there. */
static struct vapic_ioapic *route_ioapic(const struct vapic_vm *vm, uint64_t route)
{
    struct vapic_ioapic *io = vapic_load_ptr(&vm->ioapics, VAPIC_ACQUIRE);

    for (uint32_t n = (route >> ROUTE_IOAPIC_SHIFT) & 0xFF; n > 0; n--)
        io = vapic_load_ptr(&io->next, VAPIC_ACQUIRE);
    return io;
}

static uint32_t route_pin(uint64_t route)
{
    return (route >> ROUTE_PIN_SHIFT) & 0xFF;
}

int vapic_gsi_set(struct vapic_vm *vm, uint32_t gsi, uint32_t source, bool level)
{
    uint64_t route;

    if (gsi >= vm->max_gsis || source >= MAX_SOURCES)
        return VAPIC_E_ARG;
    TRACE(vm, SET_IRQ, VAPIC_NO_INDEX, gsi, level, source, 0);
    route = vapic_load64(&vm->routes[gsi], VAPIC_ACQUIRE);
    switch (route_kind(route)) {
    case VAPIC_ROUTE_IOAPIC:
        return vapic_ioapic_set(route_ioapic(vm, route), route_pin(route), source, level);
    case VAPIC_ROUTE_MSI:
        return set_message_line(vm, gsi, source, level);
    default:
        return VAPIC_GSI_BLOCKED;
    }
}

/* ---- Routes, under the configuration lock ---- */

static bool attached(const struct vapic_vm *vm, const struct vapic_ioapic *io)
{
    const struct vapic_ioapic *it = vm->ioapics;

    while (it != NULL && it != io)
        it = it->next;
    return it != NULL;
}

static int pack_route(const struct vapic_vm *vm, const struct vapic_route *route, uint64_t *packed)
{
    struct vapic_msg msg;

    switch (route->kind) {
    case VAPIC_ROUTE_NONE:
        *packed = 0;
        return VAPIC_OK;
    case VAPIC_ROUTE_IOAPIC:
        if (!attached(vm, route->ioapic) || route->pin >= route->ioapic->pin_count)
            return VAPIC_E_ARG;
        *packed = (uint64_t)VAPIC_ROUTE_IOAPIC << ROUTE_KIND_SHIFT |
                  (uint64_t)route->pin << ROUTE_PIN_SHIFT |
                  (uint64_t)route->ioapic->index << ROUTE_IOAPIC_SHIFT;
        return VAPIC_OK;
    case VAPIC_ROUTE_MSI:
        if (!vapic_msi_decode(vm, route->address, route->data, &msg))
            return VAPIC_E_MSI;
        *packed = pack_msi(&msg);
        return VAPIC_OK;
    }
    return VAPIC_E_ARG;
}

/* The pin that a route leads to, NULL when it leads elsewhere. */
static struct vapic_pin *pin_of(const struct vapic_vm *vm, uint64_t route)
{
    if (route_kind(route) != VAPIC_ROUTE_IOAPIC)
        return NULL;
    return &route_ioapic(vm, route)->pins[route_pin(route)];
}

static void set_route(struct vapic_vm *vm, uint32_t gsi, uint64_t packed)
{
    uint64_t seen = vapic_load64(&vm->routes[gsi], VAPIC_RELAXED);
    uint64_t next;
    struct vapic_pin *pin = pin_of(vm, seen);

    if (pin != NULL && vapic_load32(&pin->gsi, VAPIC_RELAXED) == gsi)
        vapic_store32(&pin->gsi, VAPIC_NO_INDEX, VAPIC_RELAXED);
    do {
        next = packed;
        if (route_kind(seen) == VAPIC_ROUTE_MSI && route_kind(packed) == VAPIC_ROUTE_MSI)
            next |= seen & ROUTE_SOURCES;
    } while (!vapic_cas64(&vm->routes[gsi], &seen, next, VAPIC_ACQ_REL));
    pin = pin_of(vm, packed);
    if (pin != NULL)
        vapic_store32(&pin->gsi, gsi, VAPIC_RELAXED);
}

void vapic_gsi_route_pins(struct vapic_ioapic *io)
{
    struct vapic_vm *vm = io->vm;

    for (uint32_t n = 0; n < io->pin_count && io->gsi_base + n < vm->max_gsis; n++) {
        uint32_t gsi = io->gsi_base + n;
        struct vapic_route route = {.kind = VAPIC_ROUTE_IOAPIC, .ioapic = io, .pin = n};
        uint64_t packed;

        if (vapic_load64(&vm->routes[gsi], VAPIC_RELAXED) == 0 &&
            pack_route(vm, &route, &packed) == VAPIC_OK)
            set_route(vm, gsi, packed);
    }
}

/*
 * The vectors whose EOI concerns a watched message. A bit may be seen set or clear by an EOI that
 * races with the change, as if the one or the other had come first.
 */
static void recompute_watched_msis(struct vapic_vm *vm)
{
    uint64_t set[4] = {0};

    for (uint32_t gsi = 0; gsi < vm->max_gsis; gsi++) {
        uint64_t route = vapic_load64(&vm->routes[gsi], VAPIC_RELAXED);
        uint8_t vector = (uint8_t)(route & APIC_ICR_VECTOR);

        if (route_kind(route) == VAPIC_ROUTE_MSI && (route & APIC_ICR_LEVEL) &&
            vapic_load32(&vm->watch[gsi], VAPIC_RELAXED) != 0)
            set[vector >> 6] |= UINT64_C(1) << (vector & 63);
    }
    for (uint32_t n = 0; n < 4; n++)
        vapic_store64(&vm->watched_msis[n], set[n], VAPIC_RELEASE);
}

int vapic_gsi_route(struct vapic_vm *vm, uint32_t gsi, const struct vapic_route *route)
{
    uint64_t packed;
    int result;

    if (gsi >= vm->max_gsis || route == NULL)
        return VAPIC_E_ARG;
    vm->host.lock(vm->ctx);
    result = pack_route(vm, route, &packed);
    if (result == VAPIC_OK) {
        vapic_routes_begin(vm);
        set_route(vm, gsi, packed);
        recompute_watched_msis(vm);
        vapic_routes_end(vm, true);
    }
    vm->host.unlock(vm->ctx);
    return result;
}

/* ---- Watches ---- */

int vapic_gsi_watch(struct vapic_vm *vm, uint32_t gsi, uint32_t flags, uint32_t source)
{
    uint32_t old, watch = 0;

    if (gsi >= vm->max_gsis || (flags & ~WATCH_FLAGS) || source >= MAX_SOURCES ||
        vm->host.gsi_ack == NULL)
        return VAPIC_E_ARG;
    if (flags != 0)
        watch = flags | source << WATCH_SOURCE_SHIFT;
    vm->host.lock(vm->ctx);
    vapic_routes_begin(vm);
    old = vapic_xchg32(&vm->watch[gsi], watch, VAPIC_ACQ_REL);
    vapic_add32(&vm->watched, (watch != 0) - (uint32_t)(old != 0), VAPIC_RELEASE);
    recompute_watched_msis(vm);
    vapic_routes_end(vm, true);
    /* APICv: what is in flight already must be ended with an exit too. */
    if (vm->post == POST_SPLIT && watch != 0 && old == 0)
        vm->host.kick_all(vm->ctx);
    vm->host.unlock(vm->ctx);
    return VAPIC_OK;
}

uint32_t vapic_gsi_resampled(const struct vapic_vm *vm, uint32_t gsi)
{
    uint32_t watch;

    if (gsi >= vm->max_gsis)
        return 0;
    watch = vapic_load32(&vm->watch[gsi], VAPIC_ACQUIRE);
    return watch & VAPIC_GSI_RESAMPLE ? 1u << (watch >> WATCH_SOURCE_SHIFT) : 0;
}

void vapic_gsi_acknowledge(struct vapic_vm *vm, uint32_t gsi)
{
    uint32_t watch;

    if (gsi >= vm->max_gsis)
        return;
    watch = vapic_load32(&vm->watch[gsi], VAPIC_ACQUIRE);
    if (watch == 0)
        return;
    if (watch & VAPIC_GSI_RESAMPLE)
        vapic_gsi_set(vm, gsi, watch >> WATCH_SOURCE_SHIFT, false);
    vm->host.gsi_ack(vm->ctx, gsi);
}

/* ---- EOI ---- */

static void acknowledge_msis(struct vapic_vm *vm, uint8_t vector)
{
    if (!((vapic_load64(&vm->watched_msis[vector >> 6], VAPIC_ACQUIRE) >> (vector & 63)) & 1))
        return;
    for (uint32_t gsi = 0; gsi < vm->max_gsis; gsi++) {
        uint64_t route = vapic_load64(&vm->routes[gsi], VAPIC_ACQUIRE);

        if (route_kind(route) == VAPIC_ROUTE_MSI && (route & APIC_ICR_LEVEL) &&
            (route & APIC_ICR_VECTOR) == vector)
            vapic_gsi_acknowledge(vm, gsi);
    }
}

static void tell_all(struct vapic_vm *vm, uint8_t vector, bool broadcast)
{
    struct vapic_ioapic *io = vapic_load_ptr(&vm->ioapics, VAPIC_ACQUIRE);

    for (; io != NULL; io = vapic_load_ptr(&io->next, VAPIC_ACQUIRE))
        vapic_ioapic_eoi(io, vector, broadcast);
    acknowledge_msis(vm, vector);
}

/*
 * [SDM3 12.8.5]. Acknowledge notifiers run for edge-triggered vectors too, and when SVR[12]
 * suppresses the broadcast; remote IRR and host.eoi() see level-triggered, unsuppressed EOIs only.
 */
void vapic_eoi_from_vcpu(struct vapic *v, uint8_t vector, bool level, bool suppressed)
{
    struct vapic_vm *vm = v->vm;

    if (level || vapic_eoi_is_watched(vm))
        tell_all(vm, vector, level && !suppressed);
    if (level && vm->host.eoi != NULL &&
        (!suppressed || knob(vm, VAPIC_KNOB_SPLIT_IGNORES_SUPPRESS)))
        vm->host.eoi(vm->ctx, v, vector);
}

void vapic_broadcast_eoi(struct vapic_vm *vm, uint8_t vector)
{
    tell_all(vm, vector, true);
}

/* ---- Which EOIs must be seen: for hardware that ends interrupts by itself ---- */

static void add_vector(uint64_t set[4], uint8_t vector)
{
    set[vector >> 6] |= UINT64_C(1) << (vector & 63);
}

void vapic_eoi_vectors_add(const struct vapic *v, const struct vapic_msg *msg, bool watched,
                           struct vapic_eoi_vectors *set)
{
    const struct vapic_vm *vm = v->vm;
    uint8_t vector = (uint8_t)msg->icr;

    if (!watched && !(msg->icr & APIC_ICR_LEVEL))
        return;
    if (watched)
        add_vector(set->watched, vector);
    if (v->index != VAPIC_NO_INDEX &&
        vapic_fabric_concerns(vm, load_ident(vm, v->index), v->index, msg))
        add_vector(set->here, vector);
}

void vapic_eoi_vectors(const struct vapic *v, struct vapic_eoi_vectors *set)
{
    const struct vapic_vm *vm = v->vm;
    const struct vapic_ioapic *io = vapic_load_ptr(&vm->ioapics, VAPIC_ACQUIRE);

    *set = (struct vapic_eoi_vectors){{0}, {0}};
    for (; io != NULL; io = vapic_load_ptr(&io->next, VAPIC_ACQUIRE))
        vapic_ioapic_eoi_vectors(io, v, set);
    for (uint32_t gsi = 0; gsi < vm->max_gsis; gsi++) {
        uint64_t route = vapic_load64(&vm->routes[gsi], VAPIC_ACQUIRE);
        struct vapic_msg msg = unpack_msi(route);

        /* Messages without the level bit take no part in EOIs, watched or not. */
        if (route_kind(route) == VAPIC_ROUTE_MSI && route & APIC_ICR_LEVEL)
            vapic_eoi_vectors_add(v, &msg, vapic_load32(&vm->watch[gsi], VAPIC_ACQUIRE) != 0, set);
    }
}
