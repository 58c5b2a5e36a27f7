/* SPDX-License-Identifier: MIT */
/*
 * The fixture of the tests of nested virtualization: three levels.
 *
 *      L0      a hypervisor on the silicon model, with libvapic's back end and nested.h for its
 *              vCPUs. It emulates VMRUN, VMLAUNCH and VMRESUME, and keeps L1's memory.
 *      L1      its guest, a hypervisor too: a second instance of libvapic whose memory is L1's.
 * What it wants of the world it does by instructions of L1: VMRUN (VMLAUNCH), WRMSR of the
 *              doorbell, writes of its own ICR, HLT. Its tables and control blocks hold L1-physical
 *              addresses, which are never host-physical ones; contiguous L1 pages are not
 *              contiguous in the host.
 *      L2      the guest of that; the test is its instruction stream.
 *
 *      nested_fixture.c         the machine, memory, pins, L0's callbacks, the log, invariants
 *      nested_fixture_l0.c      L0's run loop
 *      nested_fixture_l1.c      L1's callbacks, its run loop, interrupt handlers
 *      nested_fixture_amd.c     VMCBs: entry, exits, VMRUN, reflection          (nx_amd)
 *      nested_fixture_intel.c   VMCSs: entry, exits, VMLAUNCH, reflection       (nx_intel)
 *
 * Single-threaded and deterministic. "l1" numbers are vCPUs of L0 (0 ... nx->l1_count - 1), "l2"
 * numbers are vCPUs of L1 (0 ... nx->l2_count - 1). There is one vCPU of L1 more than of L2: L2's
 * vCPU n starts on L1's vCPU n, and the last one of L1, nx_spare(), runs no L2: L1's devices are
 * there. L1's vCPU n starts on the modelled processor with host APIC ID NX_HOST_ID(n); its own APIC
 * ID is n unless options say otherwise.
 *
 * A minimal test:
 *
 *      struct nx *nx = nx_new(&(struct nx_options){.kind = VAPIC_ACCEL_AVIC,
 *                                                  .l2 = NX_L2_AVIC,
 *                                                  .offered = VAPIC_NESTED_AVIC});
 *      nx_settle(nx);                          // both vCPUs of L2 run
 *      nx_forget(nx);
 *      nx_l2_ipi(nx, 0, APIC_DM_FIXED | 0x51, 1);
 *      nx_settle(nx);
 *      assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 1);
 *      assert_int_equal(nx_reflected(nx, NX_ANY, NX_ANY_CODE), 0);
 *      nx_free(nx);                            // checks that every pin was given back
 *
 * Checked at every VM entry, without being asked (nx_check()): the pages that 02 and the tables in
 * use name are L0's own or pinned pages of L1; AVIC's shadow entries never say "running" of a vCPU
 * that is not loaded; VMCB or VMCS 01 is not what L2 runs on, nor the reverse.
 */
#ifndef VAPIC_TESTS_NESTED_FIXTURE_H
#define VAPIC_TESTS_NESTED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vapic/nested.h"
#include "vapic/silicon.h"

#define NX_HOST_ID(n) ((n) + 8u)
#define NX_ANY        0xFFFFFFFFu
#define NX_ANY_CODE   0xFFFFFFFFFFFFFFF0ull
#define NX_MAX_L2     4u
#define NX_MAX_L1     (NX_MAX_L2 + 1u)
#define NX_L1_RAM     0x20000000ull /* L1-physical address of L1's memory */
#define NX_L1_PAGES   320u

/* Physical vectors of L0's host, and of L1 as a host. */
#define NX_KICK_VECTOR      0xF0u
#define NX_NOTIFY_VECTOR    0xF1u
#define NX_WAKEUP_VECTOR    0xF2u
#define NX_NESTED_VECTOR    0xF4u /* vmcs02's notification vector */
#define NX_L1_KICK_VECTOR   0xE0u
#define NX_L1_NOTIFY_VECTOR 0xE1u /* NV12 */
#define NX_L1_WAKEUP_VECTOR 0xE2u

/* What the log holds, in the order in which it happened. */
enum nx_kind {
    NX_L2_DELIVERED, /* n: vCPU of L2; a: vector, through L2's IDT */
    NX_L1_DELIVERED, /* n: vCPU of L1; a: vector, through L1's IDT; not L1's own E0h-E2h */
    NX_L1_INTERNAL,  /* the same, for E0h-E2h */
    NX_EXIT,         /* n: vCPU of L1; a: code, b, c: infos; l2: it was L2 that exited, to L0 */
    NX_REFLECTED,    /* n: vCPU of L1; a: code, b, c: infos: L2's exit to L1 */
    NX_ENTRY,        /* n: vCPU of L1; l2: 02 was entered */
    NX_NOTIFY,       /* n: vCPU of L1; a: enum vapic_action: L0's libvapic */
    NX_L1_NOTIFY,    /* n: vCPU of L2; a: enum vapic_action: L1's libvapic */
    NX_DOORBELL,     /* n: vCPU of L1 that wrote C001011Bh; a: the value */
    NX_KICK_ALL,     /* L0's */
    NX_L1_KICK_ALL,
    NX_INTERCEPT, /* n: vCPU of L1; l2: for 02 */
    NX_CONTROL,   /* n: vCPU of L1; a: field, b: mask, c: value; l2: in vmcs02 */
    NX_EOI,       /* n: vCPU of L1; a: vector: L0's host.eoi */
    NX_PIN,       /* a: L1-physical address */
    NX_UNPIN,
    NX_TRACK,   /* a: L1-physical address, b: on */
    NX_WRITTEN, /* a: L1-physical address, b: size: told to the library */
    NX_STOP,    /* n: vCPU of L1: VAPIC_NESTED_STOP or VAPIC_E_MEMORY: to user space */
    NX_FAILED,  /* n: vCPU of L1: its VMRUN, VMLAUNCH failed; a: result */
    NX_KINDS
};

struct nx_event {
    enum nx_kind kind;
    uint32_t n;
    bool l2;
    uint64_t a, b, c;
};

/* How an instruction ended. */
enum nx_result {
    NX_DONE,
    NX_GP,
    NX_NATIVE, /* it reached the host's own APIC: the test should fail */
    NX_STUCK,  /* the vCPU does not run: halted, descheduled, stopped */
    NX_RETRY,  /* inside the fixture only */
};

/* What L1 gives to L2. */
enum nx_l2 {
    NX_L2_NONE,   /* nothing: L1 injects */
    NX_L2_AVIC,   /* AMD */
    NX_L2_X2AVIC, /* AMD; L2 is in x2APIC mode */
    NX_L2_APICV,  /* Intel: all but posted interrupts */
    NX_L2_POSTED, /* Intel: and posted interrupts */
    NX_L2_IPIV,   /* Intel: and IPI virtualization */
};

/* Zero is a sane default for every field but `kind`. */
struct nx_options {
    enum vapic_accel_kind kind; /* AVIC or APICV: the processor's vendor, and L0's back end */
    uint32_t features;          /* VAPIC_ACCEL_ masks: the processor, and what L0 uses for L1 */
    bool disabled;              /* L0 does not accelerate L1 */
    bool l1_x2apic;             /* L1 is in x2APIC mode */
    uint32_t offered;           /* VAPIC_NESTED_ masks; 0: the vCPUs have no nested support */
    enum vapic_nested_strategy strategy;
    uint32_t tables, entries; /* of vapic_nested_config; 0: 2, 512 */
    bool no_track;            /* host.track is NULL */
    bool null_view;           /* vapic_nested_enter() is told nothing of 12 (always without */
                              /* nested support); with NX_L2_NONE only */
    const uint32_t *l1_ids;   /* NULL: 0, 1, 2, ... */

    enum nx_l2 l2;
    uint32_t vcpus;         /* of L2, 2 to NX_MAX_L2; 0: 2 */
    const uint32_t *l2_ids; /* NULL: 0, 1, 2, ... */
    bool l2_x2apic;         /* L2 is in x2APIC mode (implied by NX_L2_X2AVIC) */
    bool hlt_inside;        /* L1 does not intercept HLT of L2 */
    bool intr_inside;       /* L1 does not intercept INTR (external interrupts) in L2 */
    bool no_v_intr_masking; /* AMD: vmcb12 without V_INTR_MASKING */
    bool no_ack;            /* Intel: vmcs12 without acknowledge-on-exit */
    bool pass_through;      /* L2 uses L1's own APIC: MMIO, MSRs, CR8 (with NX_L2_NONE) */
    bool l1_manual_eoi;     /* L1's handlers leave EOIs to the test (not those of E0h-E2h) */
    bool l2_eoi;            /* L2's handlers end with an EOI (at the latest in nx_settle()) */
    bool restore_by_view;   /* nx_save_restore() calls vapic_nested_restore() with 12 instead */
                            /* of relying on the record */
    struct vapic_sil_knobs knobs;
};

struct nx;

/* A processor's instruction, of L1 or L2. */
enum nx_op_kind { NX_MMIO, NX_MSR, NX_CR8, NX_HLT };

struct nx_op {
    enum nx_op_kind kind;
    bool write;
    uint8_t size;
    uint64_t address;
    uint64_t value;
};

/* A vCPU of L0: L1's. In the host's memory. */
struct nx_l1 {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    struct vapic_nested_vcpu nested __attribute__((aligned(64)));
    struct nx *nx;
    uint32_t n;
    uint8_t *page;
    uint8_t *vmcb01, *vmcb02;   /* AMD */
    uint8_t *msrpm01, *msrpm02; /* AMD: maps; Intel: bitmaps */
    struct vapic_sil_vmcs vmcs01, vmcs02;
    uint8_t *vmcb12;                       /* AMD: L0's copy of what L1 entered with */
    struct vapic_sil_vmcs vmcs12;          /* Intel: the same */
    uint64_t gpa12;                        /* where L1 has it */
    uint64_t asid12;                       /* AMD: whose translations are cached under 02's ASID */
    bool l2;                               /* 02 is current */
    struct vapic_sil_cpu *cpu;             /* NULL: preempted */
    struct vapic_sil_cpu *last01, *last02; /* where they last ran */
    struct vapic_pcpu *pcpu;
    struct vapic_entry entry;
    bool entered; /* between vapic_enter() and vapic_exit() */
    bool blocked, woken;
    bool stopped;     /* stopped to user space */
    bool l1_if;       /* L1's RFLAGS.IF */
    uint32_t cli;     /* L1's software holds interrupts off (CLI, CLGI), so many times */
    uint8_t injected; /* enum vapic_inject, by L0: not seen delivered yet */
    uint8_t vector;   /* of it */
    bool halted;      /* Intel: L2 executed HLT, and has not been entered since */
    bool pending_run; /* L2 has been entered by L1, but not by the processor yet */
    bool null_view;   /* ... without a word to the library about 12 */
    uint64_t event12; /* what 12 injects into L2, until it is seen delivered */
    /* L1's software */
    struct vapic_pcpu l1_pcpu; /* L1's libvapic: L1's vCPU is a processor there */
    int32_t runs;              /* the vCPU of L2 whose thread L1 has put here; -1: none */
    bool poked;                /* an interrupt has come to L1 since it last looked */
};

/* A vCPU of L1: L2's. In L1's memory. */
struct nx_l2_vcpu {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    struct nx *nx;
    uint32_t n;
    uint8_t *page;
    uint8_t *vmcb, *msrpm;      /* vmcb12, and L1's map or bitmap for it */
    struct vapic_sil_vmcs vmcs; /* vmcs12 */
    int32_t on;                 /* L1's vCPU; -1: nowhere (descheduled by L1) */
    struct vapic_entry entry;
    bool entered; /* L1: between vapic_enter() and vapic_exit() */
    bool blocked, woken;
    bool guest_if;
    uint8_t injected;
    int32_t last;        /* L1's vCPU where it last ran */
    bool l1_wants_flush; /* of its translations, at the next entry */
    bool failed;         /* VMRUN failed: L1 does not run it until it is scheduled again */
    uint64_t gpa12;      /* L1-physical address of vmcb (vmcs) */
    bool idle;           /* its last instruction was HLT, and no interrupt has come since */
    uint32_t owes;       /* EOIs, with options.l2_eoi */
};

struct nx_page {
    uint32_t pins;
    bool tracked;
    bool gone;       /* L1 has no memory here (any more) */
    uint8_t *shadow; /* content when it was last compared, while tracked */
};

struct nx_vendor;

struct nx {
    struct nx_options options;
    enum vapic_accel_kind kind;
    const struct nx_vendor *vendor;

    struct vapic_vm vm; /* L0's: L1 is the guest */
    struct vapic_host host;
    struct vapic_accel accel;
    struct vapic_nested nested;
    bool has_nested;
    uint32_t l1_count;
    struct nx_l1 *l1[NX_MAX_L1];

    struct vapic_vm *l1_vm; /* L1's: L2 is the guest; in L1's memory */
    struct vapic_host l1_host;
    struct vapic_accel *l1_accel;
    uint32_t l2_count;
    struct nx_l2_vcpu *l2[NX_MAX_L2];

    struct vapic_sil silicon;
    struct vapic_sil_cpu *cpus; /* NX_MAX_L1 + 4 */
    struct vapic_sil_cpu **by_id;
    struct vapic_pcpu *pcpus;
    uint32_t cpu_count;
    struct vapic_now now;

    bool locked, l1_locked; /* the configuration locks */
    bool page_mapped;       /* L1's APIC-access page is in L0's nested tables */
    bool l2_page_mapped;    /* L2's in L1's */
    int on_l1;              /* the vCPU of L1 whose software runs right now; -1: none */
    int executing;          /* the vCPU of L1 inside the silicon right now; -1: none */
    uint32_t lock_count;    /* how often L0's configuration lock was taken */

    /* Hooks; NULL: nothing. on_point may do anything with other vCPUs than the one that is
     * `executing`, which cannot be made to leave the guest then. */
    void (*on_point)(struct nx *nx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
    void (*on_notify)(struct nx *nx, uint32_t l1, enum vapic_action action);
    void (*before_entry)(struct nx *nx, uint32_t l1); /* vapic_enter() is done, VMRUN is next */
    void (*on_stop)(struct nx *nx, uint32_t l1);
    /* L1 changes vmcb12 (vmcs12) before it executes VMRUN. */
    void (*on_12)(struct nx *nx, uint32_t l1, struct nx_l2_vcpu *c);
    void *user;

    /* Private. */
    uint8_t *arena;
    size_t arena_used, arena_size;
    uint8_t *ram; /* L1's, NX_L1_PAGES */
    size_t ram_used;
    struct nx_page page[NX_L1_PAGES];
    uint64_t pins; /* in all */
    uint8_t *scratch;
    uint8_t *l2_scratch; /* L1's access page */
    void *memory, *l1_memory;
    uint32_t counts[NX_KINDS];
    uint64_t total;
    uint32_t logged, log_size;
    struct nx_event *log;
};

/* ---- Making and ending ---- */

struct nx *nx_new(const struct nx_options *options);
/* Removes all vCPUs and checks that no page is pinned or tracked any more. */
void nx_free(struct nx *nx);

static inline uint32_t nx_spare(const struct nx *nx)
{
    return nx->l1_count - 1;
}

/* ---- L2 executes one instruction. Its L1 vCPU enters it if need be ---- */

enum nx_result nx_l2_execute(struct nx *nx, uint32_t l2, struct nx_op *op);
/* A register by its xAPIC offset, by MMIO or MSR as L2's mode asks for. */
enum nx_result nx_l2_try_read(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t *value);
enum nx_result nx_l2_try_write(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t value);
uint32_t nx_l2_read(struct nx *nx, uint32_t l2, uint32_t offset); /* must be NX_DONE */
void nx_l2_write(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t value);
uint8_t nx_l2_read_cr8(struct nx *nx, uint32_t l2);
void nx_l2_write_cr8(struct nx *nx, uint32_t l2, uint8_t value);
void nx_l2_hlt(struct nx *nx, uint32_t l2);
void nx_l2_eoi(struct nx *nx, uint32_t l2);
/* `dest` right aligned. */
void nx_l2_ipi(struct nx *nx, uint32_t l2, uint32_t icr, uint32_t dest);
void nx_l2_if(struct nx *nx, uint32_t l2, bool enabled); /* CLI and STI, at once */

/* ---- L1's software executes one instruction, after nx_l1_take() where it is needed ---- */

enum nx_result nx_l1_execute(struct nx *nx, uint32_t l1, struct nx_op *op);
enum nx_result nx_l1_try_read(struct nx *nx, uint32_t l1, uint32_t offset, uint64_t *value);
enum nx_result nx_l1_try_write(struct nx *nx, uint32_t l1, uint32_t offset, uint64_t value);
uint32_t nx_l1_read(struct nx *nx, uint32_t l1, uint32_t offset);
void nx_l1_write(struct nx *nx, uint32_t l1, uint32_t offset, uint64_t value);
enum nx_result nx_l1_wrmsr(struct nx *nx, uint32_t l1, uint32_t msr, uint64_t value);
enum nx_result nx_l1_rdmsr(struct nx *nx, uint32_t l1, uint32_t msr, uint64_t *value);
void nx_l1_ipi(struct nx *nx, uint32_t l1, uint32_t icr, uint32_t dest);
void nx_l1_if(struct nx *nx, uint32_t l1, bool enabled);
/* Brings the vCPU out of L2, or out of HLT, into L1's software (by an interrupt E0h); false: it
 * cannot run. */
bool nx_l1_take(struct nx *nx, uint32_t l1);
/* Does it run L2 (02 is current)? */
bool nx_in_l2(const struct nx *nx, uint32_t l1);

/* ---- Interrupts from outside ---- */

/* A device of L0's interrupts L1's vCPU: vapic_post() by L0. False: not accepted. */
bool nx_l1_interrupt(struct nx *nx, uint32_t l1, uint8_t vector);
/* A device of L1's interrupts L2's vCPU: L1's software on vCPU `from` (nx_spare()) posts it. */
bool nx_l2_interrupt(struct nx *nx, uint32_t from, uint32_t l2, uint8_t vector, bool level);

/* ---- Running ---- */

/* Everybody who can run does, up to instruction boundaries, until nothing moves any more. */
void nx_settle(struct nx *nx);
/* The same for one vCPU of L1 and what runs on it: one round. */
void nx_run(struct nx *nx, uint32_t l1);
/* L1's vCPU enters the guest (L1 or L2) if it would run; leaves it, to L0. */
bool nx_enter(struct nx *nx, uint32_t l1);
void nx_leave(struct nx *nx, uint32_t l1);

/* L0's scheduler: off its processor; on modelled processor `cpu`. */
void nx_deschedule(struct nx *nx, uint32_t l1);
void nx_schedule(struct nx *nx, uint32_t l1, uint32_t cpu);
/* L1's scheduler: L2's vCPU loses its L1 vCPU (which must be able to run); gets another one. */
void nx_l1_deschedule(struct nx *nx, uint32_t l2);
void nx_l1_schedule(struct nx *nx, uint32_t l2, uint32_t l1);

/* ---- Configuration ---- */

/* L0's inhibition of L1; L1's inhibition of L2, by software on vCPU `from`. */
void nx_toggle_inhibit(struct nx *nx, enum vapic_inhibit reason, bool set);
void nx_l1_toggle_inhibit(struct nx *nx, uint32_t from, enum vapic_inhibit reason, bool set);

/* User space saves the vCPU of L1, destroys what the library holds of it, and loads it again. */
void nx_save_restore(struct nx *nx, uint32_t l1);

/* L1's memory at `gpa` (whole pages) goes away; comes back with its content. */
void nx_unmap(struct nx *nx, uint64_t gpa, uint64_t size);
void nx_map(struct nx *nx, uint64_t gpa, uint64_t size);

/* ---- Memory ---- */

/* L1's memory, zero, aligned; its L1-physical address and back; and where it is in the host. */
void *nx_l1_memory(struct nx *nx, size_t size, size_t align);
uint64_t nx_gpa(struct nx *nx, const void *memory);
void *nx_at(struct nx *nx, uint64_t gpa); /* NULL: none */
uint64_t nx_hpa(struct nx *nx, uint64_t gpa);
/* L0's own. */
void *nx_host_memory(struct nx *nx, size_t size, size_t align);
uint64_t nx_host_hpa(struct nx *nx, const void *memory);
/* L1's software has written to its memory behind the fixture's back: reports tracked pages. Runs by
 * itself before and after all that L1's libvapic does. */
void nx_written(struct nx *nx);

/* A word of the register page, past everybody. */
uint32_t nx_l1_page(const struct nx *nx, uint32_t l1, uint32_t offset);
uint32_t nx_l2_page(const struct nx *nx, uint32_t l2, uint32_t offset);
bool nx_l1_bit(const struct nx *nx, uint32_t l1, uint32_t base, uint8_t vector);
bool nx_l2_bit(const struct nx *nx, uint32_t l2, uint32_t base, uint8_t vector);

/* ---- What happened ---- */

uint32_t nx_count(const struct nx *nx, enum nx_kind kind);
const struct nx_event *nx_nth(const struct nx *nx, enum nx_kind kind, uint32_t at);
uint32_t nx_l2_delivered(const struct nx *nx, uint32_t l2, uint8_t vector);
uint32_t nx_l1_delivered(const struct nx *nx, uint32_t l1, uint8_t vector);
/* Exits to L0 of L1's vCPU (NX_ANY: any) with this code (NX_ANY_CODE: any), while in L2 or L1. */
uint32_t nx_exits(const struct nx *nx, uint32_t l1, uint64_t code, bool of_l2);
/* Exits of L2 that L1 saw. */
uint32_t nx_reflected(const struct nx *nx, uint32_t l1, uint64_t code);
void nx_forget(struct nx *nx);

/* The invariants of the silicon's side; by itself at each VM entry. */
void nx_check(struct nx *nx);

#endif
