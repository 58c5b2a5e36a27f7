/* SPDX-License-Identifier: MIT */
/*
 * The shared test fixture: one VM with N vCPUs on a host that is all recording.
 *
 * fx_new() makes the VM, its memory, the vCPUs with their pages, adds the vCPUs and (unless told
 * otherwise) starts them by INIT and SIPI and software-enables them, so that a test starts where
 * the interesting part begins. Every callback of the host table writes one entry into one log, in
 * the order of the calls; a test asks fx_count() and fx_nth() for what happened, and fx_forget()
 * between two steps. Hooks (`on_ack` and so on) let a test play the device or the host inside a
 * callback.
 *
 * Misuse of the host by the library fails the test at once: a recursive configuration lock, a
 * notification with VAPIC_ACTION_NONE, a callback under the lock that must run without it.
 *
 * The log and the counters may be used from several threads. What only a test's main thread does
 * (fx_new, fx_free, the helpers that name a vCPU) follows the library's own rules on owners.
 */
#ifndef VAPIC_TESTS_FIXTURE_H
#define VAPIC_TESTS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "vapic/vapic.h"

/* What the log holds. */
enum fx_kind {
    FX_NOTIFY,  /* vcpu; a: enum vapic_action */
    FX_ARM,     /* vcpu; a: enum vapic_clock, b: when */
    FX_EOI,     /* vcpu; a: vector */
    FX_GSI_ACK, /* a: gsi */
    FX_DELAY,   /* a: pin, b: nanoseconds; io */
    FX_LOCK,    /* the configuration lock was taken */
    FX_QUIESCE,
    FX_TRACE, /* event; after fx_trace() only */
    FX_KINDS
};

struct fx_event {
    enum fx_kind kind;
    uint32_t vcpu; /* number in fx->v[], VAPIC_NO_INDEX where there is none */
    uint64_t a, b;
    struct vapic_ioapic *io;
    struct vapic_event event;
};

/* How fx_new() makes the VM. Zero is a sane default for every field. */
struct fx_options {
    uint32_t vcpus;                /* 0: 1 */
    const uint32_t *ids;           /* one per vCPU; NULL: 0, 1, 2, ... */
    bool x2apic;                   /* every vCPU starts in x2APIC mode */
    bool soft_disabled;            /* leave SVR as RESET leaves it */
    bool parked;                   /* leave application processors as RESET leaves them */
    bool not_added;                /* vapic_init() only */
    bool silent;                   /* keep no log: its lock would order what threads race for */
    bool no_optional;              /* the optional callbacks are NULL */
    bool no_features;              /* default: X2APIC, TSC_DEADLINE, EOI_SUPPRESS */
    uint32_t features;             /* these in addition */
    uint8_t version;               /* of the local APICs, see struct vapic_config */
    uint32_t max_gsis;             /* 0: 256 */
    struct vapic_vm_config config; /* max_vcpus 0: vcpus; max_gsis: see above */
};

#define FX_LOG_SIZE 4096u

struct fx {
    struct vapic_vm vm;
    struct vapic_host host;
    uint32_t vcpus;
    struct vapic *v; /* array of `vcpus` */
    uint8_t *pages;  /* vCPU n's page is pages + 4096 * n */
    void *memory;
    struct vapic_now now; /* what the helpers below pass; a test moves it */

    /* Called by the callback after it wrote the log; NULL: nothing. */
    void (*on_ack)(struct fx *fx, uint32_t gsi);
    void (*on_eoi)(struct fx *fx, uint32_t vcpu, uint8_t vector);
    void (*on_delay)(struct fx *fx, struct vapic_ioapic *io, uint32_t pin);
    void (*on_notify)(struct fx *fx, uint32_t vcpu, enum vapic_action action);
    void (*on_quiesce)(struct fx *fx);
    void *user; /* the test's own */

    /* Private. */
    pthread_mutex_t config_lock, log_lock;
    bool locked, silent;
    pthread_t lock_owner;
    uint32_t counts[FX_KINDS];
    uint32_t logged;
    struct fx_event log[FX_LOG_SIZE];
};

/* ---- Making and ending ---- */

/* NULL options: all defaults. Never returns NULL: a failure fails the test. */
struct fx *fx_new(const struct fx_options *options);
void fx_free(struct fx *fx);

/* One more I/O APIC with `pins` pins at `gsi_base`, version 11h or 20h; freed by fx_ioapic_free().
 */
struct vapic_ioapic *fx_ioapic(struct fx *fx, uint32_t pins, uint32_t gsi_base, uint8_t version);
void fx_ioapic_free(struct vapic_ioapic *io); /* after fx_free() */

/* Processes INIT and SIPI of every vCPU until nothing is left of them. */
void fx_settle(struct fx *fx);

/* ---- Checks that name the row of a table: the text tells which one failed ---- */

void fx_equal_at(uint64_t actual, uint64_t expected, const char *file, int line, const char *format,
                 ...) __attribute__((format(printf, 5, 6)));
#define fx_equal(actual, expected, ...)                                                            \
    fx_equal_at((uint64_t)(actual), (uint64_t)(expected), __FILE__, __LINE__, __VA_ARGS__)

/* ---- What happened ---- */

uint32_t fx_count(struct fx *fx, enum fx_kind kind);
/* The n-th (from 0) logged event of this kind; a missing one fails the test. */
struct fx_event fx_nth(struct fx *fx, enum fx_kind kind, uint32_t n);
void fx_forget(struct fx *fx);
/* From now on trace events go into the log. */
void fx_trace(struct fx *fx);

/* ---- A guest's accesses on vCPU `n` ---- */

uint32_t fx_read(struct fx *fx, uint32_t n, uint32_t offset); /* xAPIC page, 4 bytes */
void fx_write(struct fx *fx, uint32_t n, uint32_t offset, uint32_t value);
int fx_rdmsr(struct fx *fx, uint32_t n, uint32_t msr, uint64_t *value);
int fx_wrmsr(struct fx *fx, uint32_t n, uint32_t msr, uint64_t value);
/* The register at `offset` by MMIO or MSR, whichever the vCPU's mode needs; must succeed. */
uint32_t fx_get(struct fx *fx, uint32_t n, uint32_t offset);
void fx_set(struct fx *fx, uint32_t n, uint32_t offset, uint32_t value);
/* Sends by the ICR in the vCPU's mode; `dest` right aligned. */
void fx_icr(struct fx *fx, uint32_t n, uint32_t low, uint32_t dest);
void fx_eoi(struct fx *fx, uint32_t n);

/* ---- The run loop of vCPU `n` ---- */

/* Nothing is blocked. */
#define FX_CAN_ALL                                                                                 \
    (VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_SMI | VAPIC_CAN_INIT | (unsigned)VAPIC_IF)

/* vapic_enter() with `can`, without committing. */
struct vapic_entry fx_peek(struct fx *fx, uint32_t n, uint32_t can);
/* Enters with `can`, commits what there is to inject, exits. */
struct vapic_entry fx_step(struct fx *fx, uint32_t n, uint32_t can);
/* Enters with interrupts allowed, commits, exits. The vector taken, or -1. */
int fx_take(struct fx *fx, uint32_t n);
/* fx_take(), then EOI when a vector was taken. */
int fx_take_eoi(struct fx *fx, uint32_t n);
/* IRR (posted bits harvested first), ISR, TMR of a vector. Offsets APIC_IRR, APIC_ISR, APIC_TMR. */
bool fx_bit(struct fx *fx, uint32_t n, uint32_t base, uint8_t vector);

/* ---- I/O APIC registers as a guest reaches them ---- */

uint32_t fx_io_read(struct vapic_ioapic *io, uint32_t index);
void fx_io_write(struct vapic_ioapic *io, uint32_t index, uint32_t value);
void fx_rte_write(struct vapic_ioapic *io, uint32_t pin, uint64_t rte); /* high word first */
uint64_t fx_rte_read(struct vapic_ioapic *io, uint32_t pin);

#endif
