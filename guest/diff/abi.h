/* SPDX-License-Identifier: MIT */
/*
 * What `vapic diff` and its guest agree on: programs, logs, the mailbox in the guest's memory, and
 * the ports. Included by both sides; freestanding.
 *
 * A program is a list of operations, each of one processor. One processor at a time runs, the one
 * whose turn it is; all others stand in an OUT to DIFF_PORT_TURN, on which the monitor blocks their
 * threads. So the order of all operations of all processors is that of the list.
 */
#ifndef GUEST_DIFF_ABI_H
#define GUEST_DIFF_ABI_H

#include <stdint.h>

#define DIFF_MAGIC    0x46464944u
#define DIFF_CPUS_MAX 8u
#define DIFF_OPS_MAX  4096u
#define DIFF_LOG_MAX  65536u

/* 32-bit writes only. */
enum diff_port {
    DIFF_PORT_BASE = 0x2100,
    DIFF_PORT_ATTACH = 0x2100, /* address of the mailbox */
    DIFF_PORT_TURN = 0x2104,  /* self << 8 | next, or | DIFF_JOIN: returns when it is self's turn */
    DIFF_PORT_FETCH = 0x2108, /* the program is done: returns with the next one in the mailbox */
    DIFF_PORT_MSI_ADDR = 0x210c, /* of the next message */
    DIFF_PORT_MSI_DATA = 0x2110, /* sends it */
    DIFF_PORT_PANIC = 0x2114,    /* vector << 24 | low bits of RIP: never returns */
    DIFF_PORT_SIZE = 0x18,
};

#define DIFF_JOIN 0xffu

/*
 * X(enumerator, name in text, fields used, argument names). Fields: a 16 bits, b 32 bits, c 64
 * bits, in the order in which the text has them.
 */
#define DIFF_OPS(X)                                                                                \
    X(RD, "rd", "a")             /* register a, by the way of the current mode */                  \
    X(WR, "wr", "ac")            /* the same, c is written */                                      \
    X(MMIO_RD1, "mmio.rd1", "a") /* offset a of the page at FEE00000h, whatever the mode */        \
    X(MMIO_RD2, "mmio.rd2", "a")                                                                   \
    X(MMIO_RD4, "mmio.rd4", "a")                                                                   \
    X(MMIO_WR1, "mmio.wr1", "ac")                                                                  \
    X(MMIO_WR2, "mmio.wr2", "ac")                                                                  \
    X(MMIO_WR4, "mmio.wr4", "ac")                                                                  \
    X(RDMSR, "rdmsr", "b")                                                                         \
    X(WRMSR, "wrmsr", "bc")                                                                        \
    X(CR8_RD, "cr8.rd", "")                                                                        \
    X(CR8_WR, "cr8.wr", "c")                                                                       \
    X(BASE, "base", "c") /* IA32_APIC_BASE, the BSP flag as it belongs to the processor */         \
    X(IPI, "ipi", "bc")  /* b: ICR bits 31:0, c: destination (8 bits in xAPIC mode) */             \
    X(SELF, "self", "c") /* MSR 83Fh */                                                            \
    X(EOI, "eoi", "")    /* by the way of the current mode */                                      \
    X(TAKE, "take", "a") /* IF=1 for some instructions; a: enum diff_take */                       \
    X(RTE, "rte", "abc") /* I/O APIC: pin, bits 31:0, destination */                               \
    X(RTE_RD, "rte.rd", "a")                                                                       \
    X(IO_RD, "io.rd", "a") /* I/O APIC register by index */                                        \
    X(IO_WR, "io.wr", "ab")                                                                        \
    X(IO_EOI, "io.eoi", "b") /* the EOI register at 40h */                                         \
    X(LINE, "line", "ab")    /* device line a to level b */                                        \
    X(MSI, "msi", "bc")      /* address, data */                                                   \
    X(TIMER, "timer", "abc") /* divide code, LVT, count: runs until it expires; count is small */  \
    X(DEADLINE, "deadline", "bc") /* LVT, cycles from now: runs until it expires */                \
    X(INIT, "init", "bc") /* ICR bits 31:0 and destination, then SIPI to all but this one */       \
    X(CPUID, "cpuid", "") /* leaf 1: initial ID and the APIC bit */                                \
    X(DUMP, "dump", "")   /* all registers */

enum diff_code {
#define DIFF_X(id, name, fields) DIFF_OP_##id,
    DIFF_OPS(DIFF_X)
#undef DIFF_X
        DIFF_OP_COUNT
};

/* What the handler does in a TAKE. Bit 0: no EOI; bit 1: opens IF again inside. */
enum diff_take { DIFF_TAKE_KEEP = 1, DIFF_TAKE_NEST = 2 };

/* So many interrupts end in an EOI in one TAKE: a level that stays high would never cease. */
#define DIFF_TAKE_LIMIT 8u

struct diff_op {
    uint8_t code, cpu;
    uint16_t a;
    uint32_t b;
    uint64_t c;
};

/* X(enumerator, text) */
#define DIFF_KINDS(X)                                                                              \
    X(VALUE, "value")   /* what: register, MSR or index; value: as read */                         \
    X(DONE, "done")     /* a write that raised nothing */                                          \
    X(FAULT, "#GP")     /* what: register */                                                       \
    X(VECTOR, "vector") /* what: vector that was delivered */                                      \
    X(NMI, "NMI")                                                                                  \
    X(RESTART, "restart") /* what: page of the SIPI; value: IA32_APIC_BASE */                      \
    X(FIRED, "fired")     /* a timer; what: vector; value: enum diff_fired */

enum diff_kind {
    DIFF_NOTHING,
#define DIFF_X(id, name) DIFF_##id,
    DIFF_KINDS(DIFF_X)
#undef DIFF_X
        DIFF_KIND_COUNT
};

enum diff_fired {
    DIFF_FIRED_IRR = 1,     /* the vector was requested */
    DIFF_FIRED_STOPPED = 2, /* the count, or the deadline, reads 0 */
    DIFF_FIRED_WRAPPED = 4, /* the count began again */
    DIFF_FIRED_EARLY = 8,   /* before its time by the TSC */
};

/* Counts that run are recorded coarsely. */
enum diff_coarse { DIFF_COUNT_ZERO, DIFF_COUNT_RUNS, DIFF_COUNT_BEYOND };

struct diff_record {
    uint16_t op; /* index in the program */
    uint8_t cpu, kind;
    uint32_t what;
    uint64_t value;
};

/*
 * QEMU's TCG ends with a failed assertion when a guest under its SVM writes CR8 while a virtual
 * interrupt is pending: TPR is then written instead.
 */
enum diff_flag { DIFF_CAREFUL_CR8 = 1 };

struct diff_mailbox {
    uint32_t magic;
    uint32_t cpus;      /* the monitor's: before the first program */
    uint32_t op_count;  /* the monitor's */
    uint32_t log_count; /* the guest's; more than DIFF_LOG_MAX: the rest was lost */
    uint32_t pc;        /* the guest's: operation that runs */
    uint32_t flags;     /* enum diff_flag; the monitor's */
    uint32_t reserved[10];
    struct diff_op ops[DIFF_OPS_MAX];
    struct diff_record log[DIFF_LOG_MAX];
};

#endif
