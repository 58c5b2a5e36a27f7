/* SPDX-License-Identifier: MIT */
/*
 * The virtual machine that the benchmarks drive: N vCPUs, all started and software-enabled, on a
 * host whose callbacks do nothing but count. With a back end the vCPUs are attached, loaded on a
 * processor each and active; what the hardware would write is written by the cases.
 */
#ifndef VAPIC_BENCH_MACHINE_H
#define VAPIC_BENCH_MACHINE_H

#include "vapic/accel.h"

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
    uint64_t locks;           /* the configuration lock and the library's spin locks */
    enum vapic_action action; /* the last host.notify() */
    /* With a back end: */
    enum vapic_accel_kind kind;
    struct vapic_accel accel;
    struct vapic_accel_vcpu *av; /* arrays of `vcpus`, as the next two */
    struct vapic_pcpu *pcpus;
    uint8_t *vmcbs;
    void *tables;
    struct vapic_ioapic ioapic; /* for the cases that want it */
    struct vapic_pin pins[24];
};

/* Ends the program with a message when anything fails: a benchmark of nothing must not run. */
struct machine *machine_new(uint32_t vcpus, bool x2apic, enum vapic_accel_kind kind);
void machine_free(struct machine *m);

/* A guest's 32-bit register write or read on vCPU n, in its mode. */
void machine_write(struct machine *m, uint32_t n, uint32_t offset, uint32_t value);
uint32_t machine_read(struct machine *m, uint32_t n, uint32_t offset);

#endif
