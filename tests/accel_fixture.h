/* SPDX-License-Identifier: MIT */
/*
 * The fixture of the tests with a back end: libvapic on one side, the silicon model on the other,
 * and between them the smallest hypervisor that can run a vCPU on both.
 *
 *      accel_fixture.c         machine, memory, host callbacks, the run loop
 *      accel_fixture_amd.c     VMCB: entry, exits          (ax_amd)
 *      accel_fixture_intel.c   VMCS: entry, exits          (ax_intel)
 *
 * Single-threaded and deterministic. The test is the instruction stream of every vCPU: ax_read(),
 * ax_write(), ax_cr8() and ax_hlt() are one instruction each, and go through the silicon. The run
 * loop enters the guest when it must, takes exits to the library, emulates what is left to emulate,
 * and records every vector that goes through the guest's IDT. ax_settle() runs every vCPU until
 * nothing moves any more. The same instructions with `kind` VAPIC_ACCEL_NONE go to the library
 * alone: that is the guest-visible truth that the accelerated runs are compared with.
 *
 * A vCPU n runs on the modelled processor with host APIC ID AX_HOST_ID(n), unless ax_move() says
 * otherwise. Host-physical memory is one arena: what the silicon reaches by address (pages, tables,
 * VMCBs, descriptors) lies in it and nothing else does.
 */
#ifndef VAPIC_TESTS_ACCEL_FIXTURE_H
#define VAPIC_TESTS_ACCEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vapic/accel.h"
#include "vapic/silicon.h"

#define AX_HOST_ID(n)    ((n) + 8u)
#define AX_KICK_VECTOR   0xF0u /* makes a processor leave the guest */
#define AX_NOTIFY_VECTOR 0xF1u
#define AX_WAKEUP_VECTOR 0xF2u
#define AX_LOG_SIZE      32768u

/* What the log holds, in the order in which it happened. */
enum ax_kind {
    AX_DELIVERED, /* vcpu; a: vector, through the guest's IDT */
    AX_NOTIFY,    /* vcpu; a: enum vapic_action; by host.notify() or ax_act() */
    AX_EXIT,      /* vcpu; a: exit code or basic reason, b: EXITINFO1 or qualification, c: INFO2 */
    AX_ENTRY,     /* vcpu */
    AX_EOI,       /* vcpu; a: vector: host.eoi */
    AX_GSI_ACK,   /* a: gsi */
    AX_INTERCEPT, /* vcpu */
    AX_FLUSH,     /* vcpu */
    AX_PAGE,      /* a: mapped */
    AX_IRTE,      /* a, b: the two words, c: invalidate */
    AX_KICK_ALL,
    AX_SELF_IPI, /* a: vector */
    AX_NMI,      /* vcpu */
    AX_EXTINT,   /* vcpu */
    AX_TRACE,    /* event */
    AX_CONTROL,  /* vcpu; host.control(): a: field, b: mask, c: value */
    AX_FAILED,   /* vcpu; a VM entry failed; a: VM-instruction error */
    AX_KINDS
};

struct ax_event {
    enum ax_kind kind;
    uint32_t vcpu; /* number, VAPIC_NO_INDEX where there is none */
    uint64_t a, b, c;
    struct vapic_event event;
};

/* How an instruction of the guest ended. */
enum ax_result {
    AX_DONE,
    AX_GP,     /* #GP(0) in the guest */
    AX_NATIVE, /* it reached the host's own APIC: the test should fail */
    AX_STUCK,  /* the vCPU does not run: halted, or waits for SIPI */
    AX_RETRY,  /* between exit handler and run loop only: execute it again */
};

/* An instruction of the guest. */
enum ax_op_kind { AX_MMIO, AX_MSR, AX_CR8, AX_HLT };

struct ax_op {
    enum ax_op_kind kind;
    bool write;
    uint8_t size;     /* AX_MMIO */
    uint64_t address; /* guest-physical address, or MSR */
    uint64_t value;
};

struct ax;

/* A vCPU and what its hypervisor keeps for it. Lies in the arena. */
struct ax_vcpu {
    struct vapic apic; /* first: struct vapic * is struct ax_vcpu * */
    struct vapic_accel_vcpu accel;
    struct ax *ax;
    uint32_t n;
    uint8_t *page;
    uint8_t *vmcb;  /* AMD: VMCB, and the MSR permission map after it */
    uint8_t *msrpm; /* AMD: permission map; Intel: MSR bitmap */
    struct vapic_sil_vmcs vmcs;
    struct vapic_sil_vmcs vmcs02; /* Intel: of a nested guest; the test fills it in */
    bool l2;                      /* Intel: vmcs02 is current */
    struct vapic_sil_cpu *last;   /* where it last ran: caches of another one are stale */
    struct vapic_sil_cpu *cpu;    /* where it runs; NULL: nowhere (preempted) */
    struct vapic_pcpu *pcpu;
    struct vapic_entry entry;
    bool entered;     /* between vapic_enter() and vapic_exit() */
    bool blocked;     /* vapic_block() said true */
    bool woken;       /* host.notify(WAKE) while blocked */
    bool guest_if;    /* RFLAGS.IF; true from the start */
    uint8_t injected; /* enum vapic_inject: in the injection slot, not seen delivered yet */
    uint8_t extint;   /* vector fetched from the 8259 and not delivered: inject it again */
};

/* What differs between the vendors. */
struct ax_vendor {
    enum vapic_sil_vendor silicon;
    /* After vapic_init() and before vapic_accel_attach(): the host's own part of the control
     * block. */
    void (*create)(struct ax_vcpu *c);
    /* Write what c->entry asks for and enter. VAPIC_SIL_DONE, _INVALID or _EXIT. */
    enum vapic_sil_result (*enter)(struct ax_vcpu *c);
    /* The guest's CR8 after an exit. */
    uint8_t (*cr8)(struct ax_vcpu *c);
    /* After vapic_exit(): the exit that the control block tells of, taken during `op` (NULL: at a
     * boundary). AX_RETRY: nothing has happened yet. */
    enum ax_result (*exit)(struct ax_vcpu *c, struct ax_op *op);
    /* What the control block says of the exit, for the log. */
    void (*why)(struct ax_vcpu *c, uint64_t *code, uint64_t *info1, uint64_t *info2);
    /* host.flush(), host.intercept() */
    void (*flush)(struct ax_vcpu *c);
    void (*intercept)(struct ax_vcpu *c, const struct vapic_msr_pass *pass);
    uint64_t leave_code; /* exit code of a forced exit */
};

extern const struct ax_vendor ax_amd, ax_intel;

/* Intel's half also answers host.control() and host.interrupt_status(). */
void ax_intel_control(struct ax_vcpu *c, uint32_t field, uint64_t mask, uint64_t value);
uint16_t ax_intel_interrupt_status(struct ax_vcpu *c);

/* How ax_new() makes the machine. Zero is a sane default for every field. */
struct ax_options {
    struct vapic_accel_config accel; /* kind NONE: the library alone. max_id 0: the highest ID */
    struct vapic_sil_config silicon; /* vendor is set from the kind; x2avic and so on from the */
                                     /* features, unless `silicon_set` */
    bool silicon_set;
    uint32_t vcpus;      /* 0: 1 */
    const uint32_t *ids; /* NULL: 0, 1, 2, ... */
    bool x2apic;         /* every vCPU starts in x2APIC mode */
    bool soft_disabled;  /* leave SVR as RESET leaves it */
    bool parked;         /* leave application processors as RESET leaves them */
    uint32_t features;   /* VAPIC_FEATURE_ masks in addition to X2APIC, TSC_DEADLINE, SUPPRESS */
    bool no_features;    /* ... or instead of them */
    uint8_t max_lvt;     /* see struct vapic_config */
    bool trace;          /* log AX_TRACE */
    void (*on_create)(struct ax_vcpu *c); /* before the library sees the control block */
    struct vapic_vm_config config;        /* max_vcpus 0: vcpus */
};

struct ax {
    struct vapic_vm vm;
    struct vapic_host host;
    struct vapic_accel accel;
    struct vapic_platform platform;
    struct vapic_sil silicon;
    const struct ax_vendor *vendor; /* NULL: the library alone */
    enum vapic_accel_kind kind;
    uint32_t vcpus;
    struct ax_vcpu **v;
    struct vapic_sil_cpu *cpus;
    struct vapic_sil_cpu **by_id;
    struct vapic_pcpu *pcpus;
    uint32_t cpu_count;
    struct vapic_now now;
    bool page_mapped;       /* the APIC access page is in the nested page tables */
    bool locked;            /* the configuration lock is held */
    uint32_t locks;         /* how often it was taken */
    uint64_t *irtes[16];    /* ctx n+1 of host.irte writes irtes[n], NULL: log only */
    struct vapic_ioapic io; /* after ax_ioapic() */
    struct vapic_pin pins[24];

    /* Hooks; NULL: nothing. */
    void (*on_point)(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
    void (*on_notify)(struct ax *ax, uint32_t n, enum vapic_action action);
    void (*on_kick_all)(struct ax *ax);
    void (*on_page)(struct ax *ax, bool mapped);
    void (*on_ack)(struct ax *ax, uint32_t gsi);
    void (*before_entry)(struct ax *ax, uint32_t n); /* vapic_enter() is done, VMRUN is next */
    int (*on_inta)(struct ax *ax, uint32_t n);       /* the 8259's vector; NULL: 20h, LINT0 falls */
    void (*on_interrupt)(struct ax *ax, uint32_t cpu,
                         uint8_t vector); /* of a device, in the host */
    void (*on_wait)(struct ax *ax);       /* kick_all() waits for the vCPU that is `executing` */
    void (*on_contended)(struct ax *ax);  /* the configuration lock is taken; NULL: a failure */
    void *user;

    int executing; /* the vCPU whose instruction is inside the silicon right now; -1: none */
    bool quiet;    /* the log only counts */
    bool silent;   /* nor does it count: constant while several threads run */

    /* Private. */
    struct ax_options options;
    uint8_t *arena;
    size_t arena_used, arena_size;
    uint8_t *scratch; /* the APIC access page */
    void *memory;
    size_t memory_size;
    uint32_t counts[AX_KINDS];
    uint64_t total; /* events ever */
    uint32_t logged;
    uint32_t log_size;    /* entries allocated */
    struct ax_event *log; /* at most AX_LOG_SIZE: it grows */
};

/* ---- Making and ending ---- */

struct ax *ax_new(const struct ax_options *options);
void ax_free(struct ax *ax);

/* For who needs the same machine very often: a copy of all that it is made of, which ends with the
 * program, and back to it. The log begins anew. */
struct ax_copy *ax_save(struct ax *ax);
void ax_restore(struct ax *ax, const struct ax_copy *copy);

/* `size` bytes of host-physical memory, zero, aligned to `align` (a power of two). */
void *ax_memory(struct ax *ax, size_t size, size_t align);
uint64_t ax_hpa(struct ax *ax, const void *memory);

/* An I/O APIC with 24 pins at GSI 0 (config.max_gsis must not be 0 then). */
struct vapic_ioapic *ax_ioapic(struct ax *ax);

/* ---- Instructions. They enter the guest if it is outside ---- */

enum ax_result ax_execute(struct ax *ax, uint32_t n, struct ax_op *op);

/* A register by its xAPIC offset, by MMIO or MSR as the vCPU's mode asks for. */
enum ax_result ax_try_read(struct ax *ax, uint32_t n, uint32_t offset, uint64_t *value);
enum ax_result ax_try_write(struct ax *ax, uint32_t n, uint32_t offset, uint64_t value);
uint32_t ax_read(struct ax *ax, uint32_t n, uint32_t offset); /* must be AX_DONE */
void ax_write(struct ax *ax, uint32_t n, uint32_t offset, uint64_t value);

enum ax_result ax_mmio(struct ax *ax, uint32_t n, bool write, uint64_t gpa, uint64_t *value);
enum ax_result ax_rdmsr(struct ax *ax, uint32_t n, uint32_t msr, uint64_t *value);
enum ax_result ax_wrmsr(struct ax *ax, uint32_t n, uint32_t msr, uint64_t value);
uint8_t ax_read_cr8(struct ax *ax, uint32_t n);
void ax_write_cr8(struct ax *ax, uint32_t n, uint8_t value);
void ax_hlt(struct ax *ax, uint32_t n);

/* Sends an IPI as the mode asks for: 310h and 300h, or one 64-bit write. `dest` right aligned. */
void ax_ipi(struct ax *ax, uint32_t n, uint32_t icr, uint32_t dest);
void ax_eoi(struct ax *ax, uint32_t n);
/* CLI and STI: take effect in the guest at once. */
void ax_if(struct ax *ax, uint32_t n, bool enabled);

/* ---- The host ---- */

/* Enters the guest if it would run. False: it does not (halted, waits for SIPI). */
bool ax_enter(struct ax *ax, uint32_t n);
/* Makes it leave the guest, and tells the library. */
void ax_leave(struct ax *ax, uint32_t n);
/* Instruction boundaries until nothing is to be delivered; from outside it enters first. A vCPU
 * that does not run goes to sleep. */
void ax_run(struct ax *ax, uint32_t n);
/* ax_run() of all that are awake or were woken, until nobody has anything to do. */
void ax_settle(struct ax *ax);
/* The scheduler: takes the vCPU off its processor; lets it run on modelled processor `cpu`. */
void ax_put(struct ax *ax, uint32_t n);
void ax_load(struct ax *ax, uint32_t n, uint32_t cpu);
/* Time passes, and every vCPU looks. */
void ax_tick(struct ax *ax, uint64_t ns);
/* Does `action` for a vCPU, as a caller of vapic_post() must. */
void ax_act(struct ax *ax, uint32_t n, enum vapic_action action);
/* vapic_post() and the action. */
bool ax_post(struct ax *ax, uint32_t n, uint8_t vector, bool level);

/* ---- What happened ---- */

uint32_t ax_count(const struct ax *ax, enum ax_kind kind);
/* Event `at` (0 is the first since ax_forget()) of this kind; NULL: fewer. */
const struct ax_event *ax_nth(const struct ax *ax, enum ax_kind kind, uint32_t at);
/* How often `vector` was delivered to vCPU `n`. */
uint32_t ax_delivered(const struct ax *ax, uint32_t n, uint8_t vector);
/* How many exits with this code vCPU `n` took. */
uint32_t ax_exits(const struct ax *ax, uint32_t n, uint64_t code);
/* How many trace events of this kind; the last one of it, or NULL. */
uint32_t ax_traced(const struct ax *ax, enum vapic_event_kind kind);
const struct vapic_event *ax_last_trace(const struct ax *ax, enum vapic_event_kind kind);
void ax_forget(struct ax *ax);

/* The page's word at `offset`, past everybody. */
uint32_t ax_page(const struct ax *ax, uint32_t n, uint32_t offset);
bool ax_page_bit(const struct ax *ax, uint32_t n, uint32_t base, uint8_t vector);

/* ---- Used by the vendors' halves ---- */

/* The host's interrupt handler on modelled processor `cpu`. */
void ax_handle_interrupt(struct ax *ax, uint32_t cpu, uint8_t vector);

void ax_log(struct ax *ax, struct ax_event event);
/* Does `op` by the library's own access functions: after an exit that left it undone. */
enum ax_result ax_emulate(struct ax_vcpu *c, struct ax_op *op);

#endif
