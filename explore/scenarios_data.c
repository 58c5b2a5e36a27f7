/* SPDX-License-Identifier: MIT */
/*
 * Scenarios of what stands behind a message. Whoever sends wrote something before: a device its
 * buffer, the host's timer its state, the attacher of an I/O APIC the I/O APIC. Who takes the
 * message must see it, whatever way the message came. No guests; for the memory of C11.
 *
 * What was written is the ID of an I/O APIC: a word that the library writes and reads by relaxed
 * accesses, so that nothing but the message carries it.
 */
#include "bare.h"
#include "properties.h"
#include "scenarios.h"

#include "vapic/arch/apic.h"

#define ENTRIES 2u /* of the owner: it need not find anything */

enum message {
    MESSAGE_NMI,
    MESSAGE_SMI,
    MESSAGE_INIT,
    MESSAGE_SIPI,
    MESSAGE_EXTINT,
    MESSAGE_LINT, /* LINT1, a vector */
    MESSAGE_TIMER,
    MESSAGE_EDGE,
    MESSAGE_LEVEL, /* a line rises: an EOI finds it high, and sends */
    MESSAGE_WATCH, /* an EOI is watched from now on */
    MESSAGE_IOAPIC,
};

struct data {
    struct bare b; /* first: the host's context */
    enum message message;
    struct vapic_ioapic io[2];
    struct vapic_pin pins[2][4];
};

#define VECTOR  0x41u
#define WRITTEN 0x01000000u

/* ---- The sender ---- */

static void send(struct data *d, uint32_t icr)
{
    vapic_send(&d->b.vm, (struct vapic_msg){
                             .icr = icr | APIC_ICR_ASSERT, .dest = 1, .source = VAPIC_FROM_DEVICE});
}

static void attach(struct data *d)
{
    struct vapic_ioapic_config config = {.pins = 4, .gsi_base = 4};

    vapic_ioapic_init(&d->io[1], sizeof(d->io[1]), &d->b.vm, &config, d->pins[1]);
}

static void sender(void *arg)
{
    struct data *d = arg;
    struct vapic *v = &d->b.v[1];

    vapic_ioapic_write(&d->io[0], 0x10, WRITTEN, 4);
    switch (d->message) {
    case MESSAGE_NMI:
        vapic_nmi(v);
        break;
    case MESSAGE_SMI:
        send(d, APIC_DM_SMI);
        break;
    case MESSAGE_INIT:
        send(d, APIC_DM_INIT);
        break;
    case MESSAGE_SIPI:
        send(d, APIC_DM_SIPI | 0x10);
        break;
    case MESSAGE_EXTINT:
        vapic_set_lint(v, 0, true);
        break;
    case MESSAGE_LINT:
        vapic_set_lint(v, 1, true);
        break;
    case MESSAGE_TIMER:
        vapic_timer_expired(v);
        break;
    case MESSAGE_EDGE:
        send(d, VECTOR);
        break;
    case MESSAGE_LEVEL:
        vapic_gsi_set(&d->b.vm, 0, 0, true);
        break;
    case MESSAGE_WATCH:
        vapic_gsi_watch(&d->b.vm, 0, VAPIC_GSI_ACK, 0);
        break;
    case MESSAGE_IOAPIC:
        attach(d);
        break;
    }
}

/* ---- Who takes it ---- */

static void must_be_seen(struct data *d)
{
    if (vapic_ioapic_read(&d->io[0], 0x10, 4) != WRITTEN)
        EX_BROKEN(SCENARIO, "the message was taken, and not what was written before it");
}

static bool took(const struct vapic_entry *entry)
{
    return entry->inject != VAPIC_INJECT_NONE || entry->event != VAPIC_CPU_NONE;
}

static void owner(void *arg)
{
    struct data *d = arg;
    struct vapic *v = &d->b.v[1];
    uint32_t can = VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_SMI | VAPIC_CAN_INIT | VAPIC_IF;

    if (d->message == MESSAGE_LEVEL)
        bare_write(v, APIC_EOI, 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        struct vapic_entry entry;

        vapic_enter(v, can, bare_now, &entry);
        if (took(&entry)) {
            must_be_seen(d);
            vapic_commit(v, &entry);
        }
        vapic_exit(v, entry.cr8, true);
    }
}

/* An EOI, and the line of a pin that may not be there yet. */
static void device(void *arg)
{
    struct data *d = arg;

    vapic_broadcast_eoi(&d->b.vm, VECTOR);
    vapic_gsi_set(&d->b.vm, 5, 0, true);
}

/* The host's callbacks: told of the timer's next time, and of a watched EOI. */
static void arm(void *ctx, struct vapic *v, struct vapic_deadline deadline)
{
    (void)v;
    (void)deadline;
    if (ex_self() < EX_MAX_ACTORS)
        must_be_seen(ctx);
}

static void gsi_ack(void *ctx, uint32_t gsi)
{
    (void)gsi;
    must_be_seen(ctx);
}

static const struct vapic_host host = {.arm = arm, .gsi_ack = gsi_ack};

/* ---- Setup ---- */

static void make_ioapic(struct data *d)
{
    struct vapic_ioapic_config config = {.pins = 4};

    bare_require(vapic_ioapic_init(&d->io[0], sizeof(d->io[0]), &d->b.vm, &config, d->pins[0]) ==
                     VAPIC_OK,
                 "an I/O APIC");
    vapic_ioapic_write(&d->io[0], 0, 0x11, 4);
    vapic_ioapic_write(&d->io[0], 0x10, 1u << 24, 4);
    vapic_ioapic_write(&d->io[0], 0, 0x10, 4);
    vapic_ioapic_write(&d->io[0], 0x10, VECTOR | (d->message == MESSAGE_LEVEL ? 1u << 15 : 0), 4);
    vapic_ioapic_write(&d->io[0], 0, 0, 4);
}

/* The line was high before: the vector was sent, taken, and not ended. */
static void make_level(struct data *d)
{
    struct vapic *v = &d->b.v[1];
    struct vapic_entry entry;

    vapic_gsi_set(&d->b.vm, 0, 0, true);
    vapic_gsi_set(&d->b.vm, 0, 0, false);
    vapic_enter(v, VAPIC_CAN_IRQ, bare_now, &entry);
    bare_require(entry.inject == VAPIC_INJECT_VECTOR, "the level");
    vapic_commit(v, &entry);
    vapic_exit(v, entry.cr8, true);
}

/* Runs and waits for nothing; or waits for the SIPI. */
static void make_vcpus(struct data *d)
{
    struct vapic *v = &d->b.v[1];
    struct vapic_entry entry;

    for (uint32_t n = 0; n < 2; n++) {
        bare_make_vcpu(&d->b, n, n);
        bare_add(&d->b, n);
    }
    bare_write(v, APIC_LVT_LINT0, APIC_DM_EXTINT);
    bare_write(v, APIC_LVT_LINT1, VECTOR);
    bare_write(v, APIC_LVT_TIMER, VECTOR + 0x10);
    if (d->message == MESSAGE_TIMER)
        bare_write(v, APIC_TMICT, 1000000);
    if (d->message == MESSAGE_SIPI)
        return;
    send(d, APIC_DM_SIPI | 0x10);
    do
        vapic_enter(v, VAPIC_CAN_INIT, bare_now, &entry);
    while (entry.event != VAPIC_CPU_NONE);
    vapic_exit(v, entry.cr8, true);
}

static void setup(const struct ex_scenario *scenario, void *memory, uint32_t mode)
{
    struct data *d = memory;
    struct vapic_vm_config config = {
        .max_vcpus = 2, .max_gsis = 8, .knobs = VAPIC_PROFILE_MANUAL, .knobs_set = true};

    (void)mode;
    d->message = *(const enum message *)scenario->data;
    bare_make(&d->b, &config, &host);
    make_ioapic(d);
    make_vcpus(d);
    if (d->message == MESSAGE_LEVEL)
        make_level(d);
    ex_name(&d->io[0].id, sizeof(d->io[0].id), "data");
    ex_actor("sender", sender, d);
    if (d->message < MESSAGE_WATCH)
        ex_actor("vCPU 1", owner, d);
    else
        ex_actor("device", device, d);
}

static void check(const struct ex_scenario *scenario, void *memory)
{
    (void)scenario;
    (void)memory;
}

#define DATA(kind, what, says)                                                                     \
    .name = "data-behind-" what, .text = says, .races = NULL,                                      \
    .data = (const enum message[]){MESSAGE_##kind}, .modes = EX_MODE(EX_NONE),                     \
    .bound = EX_COMPLETE, .setup = setup, .check = check

const struct ex_scenario scenario_data_behind_nmi = {
    DATA(NMI, "nmi", "who takes an NMI sees what its sender wrote before")};
const struct ex_scenario scenario_data_behind_smi = {
    DATA(SMI, "smi", "who takes an SMI sees what its sender wrote before")};
const struct ex_scenario scenario_data_behind_init = {
    DATA(INIT, "init", "who takes an INIT sees what its sender wrote before")};
const struct ex_scenario scenario_data_behind_sipi = {
    DATA(SIPI, "sipi", "who takes a SIPI sees what its sender wrote before")};
const struct ex_scenario scenario_data_behind_extint = {
    DATA(EXTINT, "extint", "who takes the 8259's interrupt sees what was written before it")};
const struct ex_scenario scenario_data_behind_lint = {
    DATA(LINT, "lint", "who takes a local interrupt sees what was written before it")};
const struct ex_scenario scenario_data_behind_timer = {
    DATA(TIMER, "timer", "who tells the timer again sees what the host wrote when it expired")};
const struct ex_scenario scenario_data_behind_edge = {
    DATA(EDGE, "edge", "who takes a message sees what its sender wrote before")};
const struct ex_scenario scenario_data_behind_level = {
    DATA(LEVEL, "level", "a line rises under an EOI, which sends: as if the device had sent it")};
const struct ex_scenario scenario_data_behind_watch = {
    DATA(WATCH, "watch", "the first acknowledge of a GSI finds what its watcher has prepared")};
const struct ex_scenario scenario_ioapic_attached = {
    .name = "ioapic-attached",
    .text = "an I/O APIC is attached under an EOI and a line of its own: they find all of it",
    .data = (const enum message[]){MESSAGE_IOAPIC},
    .modes = EX_MODE(EX_NONE),
    .bound = EX_COMPLETE,
    .setup = setup,
    .check = check,
};
