/* SPDX-License-Identifier: MIT */
/*
 * What one vCPU costs on modelled hardware: every exit that the processor would have taken, by its
 * reason, and every access to the local APIC's registers, by what became of it. All counters are 64
 * bits wide, so that they can be summed as an array (stats.h). Written by the vCPU's thread but
 * for the one that says otherwise; accel_run.c and accel_exit.c count, accel_report.c prints.
 */
#ifndef VMM_ACCEL_COUNTS_H
#define VMM_ACCEL_COUNTS_H

#include <stdint.h>

#include "vapic/arch/avic.h"

/* Columns: enumerator, name, what it counts. */
#define VMM_ACCEL_EXITS(X)                                                                         \
    X(INTERRUPT, "interrupt", "physical interrupts: kicks, timers, wake-ups (60h, 1)")             \
    X(WINDOW, "window", "interrupt windows that were asked for (64h, 7)")                          \
    X(HLT, "hlt", "HLT (78h, 12)")                                                                 \
    X(IO, "io", "port accesses (7Bh, 30)")                                                         \
    X(MSR, "msr", "intercepted MSR accesses (7Ch, 31, 32)")                                        \
    X(PAGE, "page", "nested page faults: devices, APIC page without acceleration (400h, 48)")      \
    X(CR8, "cr8", "TPR: intercepted MOV CR8, or below the threshold (018h, 28, 43)")               \
    X(INCOMPLETE_IPI, "incomplete_ipi", "AVIC: incomplete IPIs (401h)")                            \
    X(UNACCELERATED, "unaccelerated", "AVIC: register accesses without acceleration (402h)")       \
    X(APIC_ACCESS, "apic_access", "APICv: register accesses without virtualization (44)")          \
    X(APIC_WRITE, "apic_write", "APICv: register writes with side effects (56)")                   \
    X(EOI, "eoi", "APICv: EOIs that software must see (45)")                                       \
    X(OTHER, "other", "everything else")

enum vmm_accel_exit {
#define VMM_X(name, text, what) VMM_ACCEL_EXIT_##name,
    VMM_ACCEL_EXITS(VMM_X)
#undef VMM_X
        VMM_ACCEL_EXIT_COUNT
};

/* What became of a register access. Columns: enumerator, name, what it means. */
#define VMM_ACCEL_ENDS(X)                                                                          \
    X(ACCELERATED, "accelerated", "done by the processor")                                         \
    X(TRAP, "trap", "an exit after the processor has stored the value")                            \
    X(FAULT, "fault", "an exit before anything has happened")                                      \
    X(EMULATED, "emulated", "an ordinary page fault or MSR intercept")                             \
    X(GP, "gp", "#GP in the guest")

enum vmm_accel_end {
#define VMM_X(name, text, what) VMM_ACCEL_END_##name,
    VMM_ACCEL_ENDS(VMM_X)
#undef VMM_X
        VMM_ACCEL_END_COUNT
};

/* Registers by offset / 16; the last two rows are CR8, and whatever lies behind the registers. */
#define VMM_ACCEL_REG_CR8   0x54u
#define VMM_ACCEL_REG_OTHER 0x55u
#define VMM_ACCEL_REGS      0x56u

/* IDs of an incomplete IPI: enum avic_ipi_id, and one for numbers that it does not name. */
#define VMM_ACCEL_IPI_IDS 7u

struct vmm_accel_counts {
    uint64_t entries; /* VMRUN, VMRESUME */
    uint64_t exits[VMM_ACCEL_EXIT_COUNT];
    uint64_t reg[VMM_ACCEL_REGS][2][VMM_ACCEL_END_COUNT]; /* [register][write][end] */
    uint64_t incomplete[VMM_ACCEL_IPI_IDS];               /* incomplete IPIs by ID */
    uint64_t eoi_exits;     /* EOIs of level-triggered or watched vectors */
    uint64_t delivered;     /* vectors that the processor delivered by itself */
    uint64_t doorbells;     /* rung by its processor, for IPIs that it sent */
    uint64_t notifications; /* notification interrupts sent by its processor for its IPIs */
    uint64_t posted;        /* doorbells and notifications sent to it by software (atomic, any) */
    uint64_t moves;         /* from one modelled processor to another */
};

#endif
