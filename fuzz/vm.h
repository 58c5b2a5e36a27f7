/* SPDX-License-Identifier: MIT */
/*
 * A small VM on the library alone, for targets that want many executions per second: three vCPUs,
 * an I/O APIC, paravirtual companions, and the smallest host around them, all in one structure.
 * Each kind of VM is made once; fuzz_vm() then sets it back by one copy.
 *
 * fuzz_step() is the run loop's pass for one vCPU, with the checks that hold for any guest: what is
 * injected is the highest vector that may be, nothing that may be stays behind, and the
 * acknowledgement moves it from IRR to ISR. [SDM3 12.8.3] [SDM3 12.8.4]
 */
#ifndef VAPIC_FUZZ_VM_H
#define VAPIC_FUZZ_VM_H

#include "fuzz.h"
#include "vapic/pv.h"
#include "vapic/vapic.h"

#define FUZZ_VCPUS  3u
#define FUZZ_PINS   24u
#define FUZZ_GSIS   32u
#define FUZZ_RAM    0x2000u
#define FUZZ_MEMORY 8192u

/* How a VM is made; a set. */
enum fuzz_vm_kind {
    FUZZ_KVM_PROFILE = 1 << 0,
    FUZZ_X2APIC = 1 << 1,    /* the vCPUs start in x2APIC mode, one with a wide ID */
    FUZZ_EXTENDED = 1 << 2,  /* CMCI and AMD's extended registers */
    FUZZ_ALL_KNOBS = 1 << 3, /* every knob turned over */
    FUZZ_VM_KINDS = 1 << 4
};

struct fuzz_vm {
    _Alignas(4096) uint8_t page[FUZZ_VCPUS][4096];
    _Alignas(64) uint8_t memory[FUZZ_MEMORY];
    _Alignas(64) uint8_t ram[FUZZ_RAM];
    struct vapic v[FUZZ_VCPUS];
    struct vapic_pv pv[FUZZ_VCPUS];
    struct vapic_vm vm;
    struct vapic_ioapic io;
    struct vapic_pin pins[FUZZ_PINS];
    struct vapic_now now;
    unsigned kind;
    bool locked;
    bool blocked[FUZZ_VCPUS], woken[FUZZ_VCPUS];
    bool present[FUZZ_VCPUS];
    bool clears;   /* the guest uses the paravirtual EOI */
    bool resample; /* raise the line again when its EOI is acknowledged */
    uint32_t acks, eois, pauses;
    uint32_t paused_pin;
};

/* The VM as it was made; there is only this one. */
struct fuzz_vm *fuzz_vm(unsigned kind);

/* One pass: -1: no vector was injected. `can` as for vapic_enter(). */
int fuzz_step(struct fuzz_vm *m, uint32_t n, uint32_t can);

/* The host does what a posting function said. */
void fuzz_act(struct fuzz_vm *m, struct vapic *v, enum vapic_action action);
void fuzz_sent(struct fuzz_vm *m, struct vapic_sent sent);

/* A word of the register page; the highest vector of ISR, IRR or TMR, -1: none. */
uint32_t fuzz_page(const struct fuzz_vm *m, uint32_t n, uint32_t offset);
bool fuzz_bit(const struct fuzz_vm *m, uint32_t n, uint32_t base, uint8_t vector);
int fuzz_highest(const struct fuzz_vm *m, uint32_t n, uint32_t base);

/* What is true of every vCPU whatever the guest did: registers hold what they can hold. */
void fuzz_consistent(struct fuzz_vm *m);

#endif
