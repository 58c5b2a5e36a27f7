/* SPDX-License-Identifier: MIT */
/*
 * What must hold in every scenario. The names are those that ex_fail() takes and that
 * `vapic check --list-properties` prints; world.c says where each is looked at.
 */
#ifndef VAPIC_EXPLORE_PROPERTIES_H
#define VAPIC_EXPLORE_PROPERTIES_H

#include <stddef.h>

/* Columns: identifier, name, text. */
#define EX_PROPERTIES(X)                                                                           \
    X(LOST, "lost", "every interrupt that was accepted is delivered")                              \
    X(INVENTED, "invented", "none is delivered that nobody sent")                                  \
    X(TWICE, "twice", "one edge is delivered once")                                                \
    X(PRIORITY, "priority", "a vector is delivered only if its class is above PPR and IF is set")  \
    X(ASLEEP, "asleep", "nobody sleeps with an interrupt that could be delivered")                 \
    X(LEVEL, "level", "a level-triggered pin interrupts again while its line is high")             \
    X(EOI, "eoi", "the EOI of a level reaches the I/O APIC exactly once, that of an edge never")   \
    X(PAGE, "page", "no vCPU in x2APIC mode reaches its register page by MMIO")                    \
    X(NATIVE, "native", "no guest reaches the host's own APIC")                                    \
    X(SERVED, "served", "a vCPU enters as the VM's reasons for inhibition ask for")                \
    X(CONTROLS, "controls", "the control block, tables and descriptors say what is so")            \
    X(PINNED, "pinned", "hardware reaches no page of L1's that is not pinned")                     \
    X(REFLECTED, "reflected", "L1 hears of its L2's IPIs only where it has to")                    \
    X(REFERENCE, "reference", "IRR, ISR, TPR and PPR end as those of the sequential reference")    \
    X(ENTRY, "entry", "no VM entry fails")                                                         \
    X(FAULT, "fault", "no access of a guest faults that must not")                                 \
    X(ACCESS, "access", "registers read as they should")                                           \
    X(SCENARIO, "scenario", "what a scenario demands by itself")                                   \
    X(DEADLOCK, "deadlock", "nobody waits for ever for another actor")                             \
    X(LIVELOCK, "livelock", "everybody's program ends")                                            \
    X(CRASH, "crash", "no access leaves the memory that there is")                                 \
    X(RACE, "race", "no unordered access to what another thread writes")                           \
    X(PRIVATE, "private", "memory of one actor is not touched by another")

#define X(id, name, text) EX_PROPERTY_##id,
enum ex_property_id { EX_PROPERTIES(X) EX_PROPERTY_COUNT };
#undef X

struct ex_property {
    const char *name, *text;
};

extern const struct ex_property ex_properties[];
extern const size_t ex_property_count;

/* One of them is broken: the run ends. `id` as in EX_PROPERTIES, then as in printf(). */
#define EX_BROKEN(id, ...) ex_fail(ex_properties[EX_PROPERTY_##id].name, __VA_ARGS__)

#endif
