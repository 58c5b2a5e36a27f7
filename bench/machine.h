/* SPDX-License-Identifier: MIT */
/*
 * The virtual machine that the benchmarks drive: N vCPUs, all started and software-enabled, on a
 * host whose callbacks do nothing but count.
 */
#ifndef VAPIC_BENCH_MACHINE_H
#define VAPIC_BENCH_MACHINE_H

#include "vapic/vapic.h"

/* Everything that an interrupt may do is possible. */
#define MACHINE_CAN (VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF)

struct machine {
    struct vapic_vm vm;
    struct vapic *v; /* array of `vcpus` */
    uint8_t *pages;
    void *memory;
    uint32_t vcpus;
    bool x2apic;
    struct vapic_now now;
    struct vapic_entry entry;
    uint64_t notified, armed; /* what the host was asked to do */
};

/* Ends the program with a message when anything fails: a benchmark of nothing must not run. */
struct machine *machine_new(uint32_t vcpus, bool x2apic);
void machine_free(struct machine *m);

/* A guest's 32-bit register write or read on vCPU n, in its mode. */
void machine_write(struct machine *m, uint32_t n, uint32_t offset, uint32_t value);
uint32_t machine_read(struct machine *m, uint32_t n, uint32_t offset);

#endif
