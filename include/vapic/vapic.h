/* SPDX-License-Identifier: MIT */
/*
 * libvapic: a virtual local APIC, the fabric that connects local APICs, and the I/O APIC.
 *
 * This header is the manual. Read it from the top:
 *
 *   1. Versions, results, threads           5. The run loop: enter, commit, exit, block
 *   2. The VM                               6. Devices: messages, MSI, GSI routes, I/O APIC
 *   3. A vCPU's APIC                        7. State save and load
 *   4. The guest touches its registers      8. Knobs, registers, statistics, tracing
 *
 * In short, for a hypervisor author:
 *
 *      once per VM         vapic_vm_init(), then optionally vapic_ioapic_init()
 *      once per vCPU       vapic_init(), vapic_add()
 *      vCPU thread, loop   vapic_enter() -> inject what it says -> vapic_commit()
 *                          run the guest
 *                          vapic_exit() -> handle the exit, with
 *                              vapic_mmio_read/write() for the register page,
 *                              vapic_msr_read/write()  for 1Bh, 6E0h, 800h-8FFh,
 *                              vapic_halt()            for HLT
 *                          vapic_block()/vapic_unblock() around sleeping
 *      device threads      vapic_gsi_set(), vapic_msi()
 *
 * docs/embedding.md walks through the same with a program that compiles (examples/embed.c). What
 * AVIC and APICv add to it is in accel.h and docs/acceleration.md, paravirtual EOIs and IPIs are in
 * pv.h.
 *
 * Threads. "Owner" is the thread that runs the vCPU; a function marked [owner] may be called by it
 * only (or by anybody while the vCPU is known not to run, as before it starts). [any] functions may
 * be called from any thread at any time after the object was initialized. [config] functions take
 * the host's configuration lock themselves and must not be called with it held; nor must those
 * [any] functions that can make an I/O APIC pin send (section 6), and EOIs. [init] functions need
 * exclusive use of the object.
 *
 * Manual citations: [SDM3 n] is the Intel Software Developer's Manual, volume 3, in the section
 * numbering of 2024 and later (the APIC is chapter 12); [APM2 n] is AMD's Architecture Programmer's
 * Manual, volume 2; [IOAPIC n] is the 82093AA data sheet.
 */
#ifndef VAPIC_VAPIC_H
#define VAPIC_VAPIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vapic/arch/apic.h"
#include "vapic/host.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------- */
/* 1. Versions, results                                                                           */
/* ---------------------------------------------------------------------------------------------- */

/* Changes when a structure or a contract changes incompatibly. */
#define VAPIC_API_VERSION 1

/*
 * Results. Zero is success; positive values are what the guest did (data for the host, no error of
 * it); negative values are misuse by the host or bad input, and changed nothing.
 */
#define VAPIC_RESULTS(X)                                                                           \
    X(VAPIC_OK, 0, "success")                                                                      \
    X(VAPIC_GP, 1, "the access raises #GP(0) in the guest")                                        \
    X(VAPIC_UNCLAIMED, 2, "the address or MSR is not this APIC's")                                 \
    X(VAPIC_EMULATE, 3, "nothing has happened yet: emulate the instruction")                       \
    X(VAPIC_ADVANCE, 4, "done, but RIP must move past the instruction")                            \
    X(VAPIC_REFLECT, 5, "the exit is one that L1 has to see")                                      \
    X(VAPIC_E_ARG, -1, "an argument is out of its documented range")                               \
    X(VAPIC_E_SIZE, -2, "a structure or buffer size does not match this library")                  \
    X(VAPIC_E_BUSY, -3, "the object is in use")                                                    \
    X(VAPIC_E_EXIST, -4, "the APIC ID is taken")                                                   \
    X(VAPIC_E_FULL, -5, "the table is full")                                                       \
    X(VAPIC_E_ID, -6, "saved state carries an APIC ID that is not this vCPU's")                    \
    X(VAPIC_E_BASE, -7, "illegal IA32_APIC_BASE value")                                            \
    X(VAPIC_E_FORMAT, -8, "saved state is malformed")                                              \
    X(VAPIC_E_VERSION, -9, "saved state is of an unknown version")                                 \
    X(VAPIC_E_MSI, -10, "not a deliverable MSI address or data")                                   \
    X(VAPIC_E_CONTROLS, -11, "L1's control block fails a check of the processor")                  \
    X(VAPIC_E_MEMORY, -12, "L1's control block or table names memory that L1 does not have")

enum vapic_result {
#define VAPIC_X(name, value, text) name = (value),
    VAPIC_RESULTS(VAPIC_X)
#undef VAPIC_X
};

/* The text of a result; "unknown result" for any other number. [any] */
const char *vapic_result_text(int result);

/* VAPIC_API_VERSION of the library that was linked. [any] */
uint32_t vapic_api_version(void);

/* ---------------------------------------------------------------------------------------------- */
/* 2. The VM                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

#define VAPIC_MAX_VCPUS 4096u
#define VAPIC_NO_INDEX  0xFFFFFFFFu

/*
 * Points where the manuals leave room, contradict each other, or are not followed by Linux. Each is
 * a bit in vapic_vm_config.knobs. VAPIC_PROFILE_MANUAL (the default) and VAPIC_PROFILE_KVM set them
 * all. Columns: name, in the manual profile, in the kvm profile, what setting it does.
 */
#define VAPIC_KNOBS(X)                                                                             \
    X(DELIVER_SOFT_DISABLED, 0, 1, "IRR bits pending when SVR[8] is cleared are still delivered")  \
    X(STRICT_RESERVED, 1, 0, "reserved bits in x2APIC TPR, SVR, LVT, TDCR writes raise #GP")       \
    X(STRICT_EOI, 1, 0, "a nonzero x2APIC EOI write raises #GP")                                   \
    X(ESR, 1, 0, "errors are recorded in ESR and raise the error LVT")                             \
    X(REMEMBER_MASKED_TICK, 0, 1, "a timer expiry under LVT mask is delivered at unmask")          \
    X(TDCR_REFIRES, 0, 1, "a divisor change after a one-shot expired fires it again")              \
    X(RESET_DISABLED, 0, 0, "RESET leaves IA32_APIC_BASE.EN clear")                                \
    X(X2APIC_KEEPS_WRITTEN_ID, 0, 0, "a written xAPIC ID is kept on the switch to x2APIC")         \
    X(SIPI_AFTER_RESET, 1, 0, "an application processor takes a SIPI that no INIT preceded")       \
    X(BSP_WRITABLE, 0, 1, "the guest may write IA32_APIC_BASE.BSP")                                \
    X(LOWEST_IN_X2APIC, 1, 1, "lowest-priority IPIs work in x2APIC mode (else ESR bit 4)")         \
    X(LEVEL_IPI, 1, 1, "an IPI with trigger mode level sets TMR (else every IPI is edge)")         \
    X(LEVEL_FORGOTTEN, 0, 1, "a level that nobody accepted waits for its line, entry or EOI")      \
    X(X2APIC_ALIASES_XAPIC, 0, 0, "destinations above FFh reach xAPIC targets by their low byte")  \
    X(WIDE_XAPIC, 1, 1, "a vCPU whose ID exceeds FFh is reached by it in xAPIC mode too")          \
    X(UNIQUE_ID, 0, 0, "one vCPU per physical ID: x2APIC wins, then the lowest index")             \
    X(DEVICE_BROADCAST_FF, 1, 1, "8-bit destination FFh of a device reaches x2APIC vCPUs too")     \
    X(ARBITRATE, 0, 0, "lowest priority arbitrates by load, else the vector is hashed")            \
    X(DISABLED_READS_ONES, 1, 1, "the page reads as ones while xAPIC is off, else unclaimed")      \
    X(DISABLE_STOPS_TIMER, 1, 0, "clearing IA32_APIC_BASE.EN stops the timer")                     \
    X(DISABLE_CLEARS_LDR, 1, 0, "LDR is zero after disabled -> xAPIC")                             \
    X(LINT0_EXTINT, 0, 1, "RESET and INIT leave LINT0 of the BSP as unmasked ExtINT")              \
    X(LVT_STATUS_WRITABLE, 0, 1, "LVT bits 12 and 14 store what is written")                       \
    X(BYTE_ID_WRITES, 0, 0, "a byte write at +3 of ID, LDR, DFR works")                            \
    X(APR, 1, 0, "the arbitration priority register is computed (else it reads 0)")                \
    X(IPI_FORMS, 0, 0, "IPIs with mode and shorthand combinations the manual forbids are dropped") \
    X(SPLIT_IGNORES_SUPPRESS, 0, 1, "host.eoi is called although SVR[12] suppresses broadcast")

enum vapic_knob_index {
#define VAPIC_X(name, manual, kvm, text) VAPIC_KNOB_INDEX_##name,
    VAPIC_KNOBS(VAPIC_X)
#undef VAPIC_X
        VAPIC_KNOB_COUNT
};

/* The masks, as constants: VAPIC_KNOB_ESR and so on. */
enum vapic_knob {
#define VAPIC_X(name, manual, kvm, text) VAPIC_KNOB_##name = 1u << VAPIC_KNOB_INDEX_##name,
    VAPIC_KNOBS(VAPIC_X)
#undef VAPIC_X
};

#define VAPIC_X_MANUAL(name, manual, kvm, text) | ((manual) ? VAPIC_KNOB_##name : 0u)
#define VAPIC_X_KVM(name, manual, kvm, text)    | ((kvm) ? VAPIC_KNOB_##name : 0u)
#define VAPIC_PROFILE_MANUAL                    (0u VAPIC_KNOBS(VAPIC_X_MANUAL))
#define VAPIC_PROFILE_KVM                       (0u VAPIC_KNOBS(VAPIC_X_KVM))

struct vapic_knob_info {
    const char *name;
    const char *text;
    bool manual, kvm;
};

/* Describes knob `index` (below VAPIC_KNOB_COUNT); NULL otherwise. [any] */
const struct vapic_knob_info *vapic_knob_info(uint32_t index);

/* How devices name destinations above FFh. */
enum vapic_msi_dest {
    VAPIC_MSI_DEST_8,  /* 8 bits: address bits 19:12, RTE bits 63:56 */
    VAPIC_MSI_DEST_15, /* plus bits 14:8 in address bits 11:5, RTE bits 55:49 (extended ID) */
    VAPIC_MSI_DEST_32, /* plus bits 31:8 in address bits 63:40 (as KVM's 32-bit MSI format) */
};

/* Zero is a sane default for every field but max_vcpus. */
struct vapic_vm_config {
    uint32_t max_vcpus;           /* 1 to VAPIC_MAX_VCPUS: vCPUs present at the same time */
    uint32_t id_bound;            /* IDs below it are found in an array, others in a hash; */
                                  /* 0: max_vcpus, at least 256 and at most 65536 */
    uint32_t knobs;               /* VAPIC_KNOB_ masks */
    bool knobs_set;               /* false: `knobs` is ignored, the profile is the manual one */
    enum vapic_msi_dest msi_dest; /* of MSIs and I/O APIC entries */
    uint32_t bus_ns;              /* ns per APIC bus cycle, at most 33554432; 0: 1 (1 GHz) */
    uint32_t min_period_ns;       /* shortest period of a periodic timer; 0: 200000 */
    uint32_t max_gsis;            /* GSI routes, at most 4096; 0: none */
    bool count_received; /* count received IPIs and MSIs: one or two locked operations more */
};

/* Where an entry of vapic_gsi_route() leads. */
enum vapic_route_kind {
    VAPIC_ROUTE_NONE,
    VAPIC_ROUTE_IOAPIC, /* a pin of an attached I/O APIC */
    VAPIC_ROUTE_MSI,    /* a message (also: a pin of an I/O APIC the host keeps itself) */
};

struct vapic_slot;
struct vapic_map;
struct vapic_accel;
struct vapic_accel_vcpu;
struct vapic_backend;
struct vapic_pv;

/* Trace events, see section 8. */
struct vapic_event;
typedef void (*vapic_trace_fn)(void *ctx, const struct vapic_event *event);

/*
 * One virtual machine. The caller's memory; the fields are private. Written under the configuration
 * lock, read by any thread; the arrays it points to lie in the memory given to vapic_vm_init().
 */
struct vapic_vm {
    struct vapic_host host;
    void *ctx;
    uint32_t knobs;
    uint32_t bus_ns;
    uint32_t min_period_ns;
    uint32_t max_vcpus;
    uint32_t id_bound;
    uint32_t hash_mask;
    uint32_t max_gsis;
    uint8_t msi_dest;
    bool count_received;
    uint8_t post; /* enum post: where a post goes; constant after vapic_accel_init() */
    /* What every message reads, together: */
    uint32_t seq;                 /* odd while the destination map is being rewritten */
    uint32_t top;                 /* slots at and above it were never used */
    struct vapic_slot *slots;     /* dense, one cache line per vCPU, lives as long as the VM */
    uint16_t *by_id;              /* x2APIC ID below id_bound -> slot + 1 */
    uint16_t *by_xid;             /* 256 chains of vCPUs in xAPIC mode, by 8-bit ID */
    vapic_trace_fn trace;         /* NULL: off; atomic */
    uint32_t odd_ids;             /* added vCPUs that answer to another ID than their own */
    uint32_t watched;             /* GSIs that vapic_gsi_watch() watches; atomic */
    uint16_t *by_hash;            /* chains of the IDs that by_id has no room for */
    uint16_t *by_flat;            /* 8 chains, by bit of a flat LDR */
    uint16_t *by_cluster;         /* 16 x 4 chains, by cluster and bit */
    uint64_t *routes;             /* GSI -> one packed word */
    uint32_t *watch;              /* GSI -> watch flags and source */
    uint64_t watched_msis[4];     /* vectors of watched level-triggered MSI routes; atomic */
    uint32_t xapic_count;         /* present vCPUs in xAPIC mode */
    uint32_t far_ids;             /* added vCPUs whose ID does not fit a logical x2APIC ID */
    uint32_t starved;             /* atomic: pins whose last message nobody accepted may exist */
    struct vapic_ioapic *ioapics; /* attached ones, linked; published with release */
    /* Acceleration (accel.h); constant after vapic_accel_init(): */
    const struct vapic_backend *backend;
    struct vapic_accel *accel;
    uint16_t *claims; /* how many vCPUs claim a physical ID, a logical bit; under the lock */
    /* Under the lock but for the upper half of `inhibits`; any thread reads: */
    uint64_t inhibits;   /* reasons, and in bits 63:32 the open requests for interrupt windows */
    uint32_t derived;    /* reasons that the library derives; under the lock */
    uint32_t by_host;    /* reasons that vapic_set_inhibit() set; under the lock, atomic */
    uint32_t generation; /* of `inhibits`; odd while it changes; never 0 */
    uint32_t routes_generation; /* of what EOI-exit bitmaps are made from; atomic, any thread */
    uint32_t routes_changing;   /* threads that change it now; atomic, any thread */
    uint32_t page_mapped;    /* may the access page be mapped? atomic: the lock's holder writes */
    bool page_withdrawn;     /* and never will be again */
    uint32_t auto_eoi_vcpus; /* vCPUs with AutoEOI vectors (pv.h) */
    struct {
        uint32_t modified;              /* enabled vCPUs in xAPIC mode whose ID is not their own */
        uint32_t physical;              /* physical IDs below 100h that several claim */
        uint32_t flat, cluster, x2apic; /* software-enabled vCPUs by logical mode */
        uint32_t unusual;               /* of these, LDRs that no table can express */
        uint32_t logical;               /* logical bits that several claim */
    } aliases;
    void *trace_ctx; /* atomic */
};

/*
 * Bytes of memory (64-byte aligned) that vapic_vm_init() needs for this configuration; 0 when the
 * configuration is out of range. [any]
 */
size_t vapic_vm_memory(const struct vapic_vm_config *config);

/*
 * Makes `vm` an empty VM. `memory` (64-byte aligned, `size` bytes, at least vapic_vm_memory()) and
 * what `host` and `ctx` point to stay in use until the VM is gone; there is nothing to destroy.
 * `vm_size` is sizeof(struct vapic_vm) as the caller sees it. VAPIC_E_ARG: bad configuration,
 * alignment, or a missing callback; VAPIC_E_SIZE: `size` or `vm_size` is wrong. [init]
 */
int vapic_vm_init(struct vapic_vm *vm, size_t vm_size, const struct vapic_vm_config *config,
                  const struct vapic_host *host, void *ctx, void *memory, size_t size);

/* ---------------------------------------------------------------------------------------------- */
/* 3. A vCPU's APIC                                                                               */
/* ---------------------------------------------------------------------------------------------- */

/* What the vCPU's CPUID and model say; VAPIC_FEATURE_ masks. */
enum vapic_feature {
    VAPIC_FEATURE_X2APIC = 1u << 0,       /* CPUID.1:ECX[21] */
    VAPIC_FEATURE_TSC_DEADLINE = 1u << 1, /* CPUID.1:ECX[24] */
    VAPIC_FEATURE_CMCI = 1u << 2,         /* MCG_CAP[10]: LVT CMCI exists */
    VAPIC_FEATURE_EOI_SUPPRESS = 1u << 3, /* version register bit 24, SVR bit 12 */
    VAPIC_FEATURE_AMD = 1u << 4,          /* AMD: no automatic PMC mask, APR readable in x2APIC */
    VAPIC_FEATURE_AMD_EXT = 1u << 5,      /* CPUID.80000001:ECX[3]: extended APIC space */
};

struct vapic_config {
    uint32_t id;       /* the x2APIC ID, also the initial xAPIC ID (low 8 bits). Not FFFFFFFFh */
    uint32_t features; /* VAPIC_FEATURE_ masks */
    bool bsp;          /* the bootstrap processor */
    uint8_t version;   /* low byte of the version register, 10h to 15h; 0: 14h */
    uint8_t max_lvt;   /* 3: timer, LINT0/1, error; 4: and PMC; 5: and thermal; 6: and CMCI; */
                       /* 0: 6 with VAPIC_FEATURE_CMCI, else 5; 6 if and only if CMCI */
    uint8_t phys_bits; /* MAXPHYADDR, 32 to 52; 0: 52 */
};

/* What a vCPU does as far as its APIC is concerned. */
enum vapic_activity {
    VAPIC_RUNNING,       /* executes, or would */
    VAPIC_HALTED,        /* after vapic_halt(), until an interrupt */
    VAPIC_WAIT_FOR_SIPI, /* after INIT (and, with SIPI_AFTER_RESET, after RESET) */
    VAPIC_UNINITIALIZED, /* an application processor after RESET, waits for INIT */
};

/* Statistics of one vCPU. Written by the owner, except the received counts (any thread, atomic). */
struct vapic_stats {
    uint64_t ipis_received; /* fixed and lowest-priority IPIs accepted; with count_received only */
    uint64_t msis_received; /* the same for messages from devices */
    uint64_t posts_unnotified; /* of both, by others: those that needed neither kick nor wake-up */
    uint64_t ipis_sent;        /* ICR and SELF_IPI writes that sent something */
    uint64_t ipi_targets;      /* vCPUs that these reached */
    uint64_t timer_ticks;      /* timer interrupts accepted into IRR */
    uint64_t lvt_events;       /* other local interrupts */
    uint64_t eois;             /* EOIs, by register or otherwise, that retired a vector */
    uint64_t eois_broadcast;   /* of these, sent on to I/O APICs */
    uint64_t injected;         /* vectors committed */
    uint64_t extints;          /* ExtINTs committed */
    uint64_t nmis;             /* NMIs committed */
    uint64_t mmio_reads, mmio_writes, msr_reads, msr_writes;
};

/*
 * The Posted-Interrupt Descriptor's layout [SDM3 T31-1]. In a VM without AVIC every sender posts
 * here, accelerated or not: the bit of the vector in PIR, then ON, and notifies if ON was clear.
 */
struct vapic_pid {
    uint64_t pir[4];
    uint64_t control; /* bit 0: ON */
    uint64_t reserved[3];
};

/*
 * One vCPU's APIC. The caller's memory, 64-byte aligned, best inside the hypervisor's own vCPU
 * structure; holds no pointer to itself, but the VM points to it between vapic_add() and
 * vapic_remove(). The fields are private. Who writes what is said per group.
 */
struct vapic {
    /* Any thread, atomic; cleared by the owner. */
    struct vapic_pid pid;
    uint64_t level[4]; /* trigger mode of vectors in PIR, written before the vector's bit */
    uint32_t events;   /* INIT, SIPI and its vector, NMI count, SMI, lines, timer */
    uint32_t presence; /* owner writes, senders read: outside, in guest, blocked */
    uint64_t ipis_received, msis_received, posts_unnotified;

    /* Owner only from here on. Constant after vapic_init(): */
    uint8_t *page;
    struct vapic_vm *vm;
    uint64_t *vector_counts;
    struct vapic_accel_vcpu *accel; /* constant after vapic_accel_attach(); NULL: none */
    struct vapic_pv *pv;            /* constant after vapic_pv_attach(); NULL: none */
    uint32_t active;                /* atomic: the owner writes, any thread reads */
    uint32_t id;
    uint32_t index; /* in the dense array; atomic: add and remove write, any thread reads */
    uint32_t features;
    uint8_t version;
    uint8_t max_lvt;
    uint8_t phys_bits;
    bool bsp;
    uint32_t nested_vector; /* posts of it are for L2; 0: none; atomic: owner writes, any reads */
    /* State that the register page cannot hold. In a line of its own: it changes with every
     * interrupt, and in VMs with a back end senders read the page's address above. */
    uint8_t activity __attribute__((aligned(64)));
    uint8_t injected_kind; /* acknowledged, not yet known to be taken */
    uint8_t injected;
    uint8_t isr_words, irr_words; /* bit n: word n of ISR, IRR is not zero */
    uint8_t esr_latch;
    bool fresh;          /* since RESET or INIT the APIC has not been software enabled */
    bool isr_touched;    /* ISR was changed by other means than the hardware */
    uint8_t timer_flags; /* armed, tick remembered */
    uint8_t told_clock;
    uint64_t apic_base;
    uint64_t timer_when; /* on the clock of the LVT's mode */
    uint64_t told_when;  /* what host.arm() was last told, with told_clock */
    struct vapic_stats stats;
} __attribute__((aligned(64)));

/*
 * Initializes an APIC to its RESET state, outside of any VM's map. `page` is one 4 KiB page, page
 * aligned, all the vCPU's registers will live in it at their architectural offsets (it is the AVIC
 * backing page and the APICv virtual-APIC page); it must stay mapped until vapic_remove() returned.
 * `v_size` is sizeof(struct vapic). VAPIC_E_ARG, VAPIC_E_SIZE. [init]
 */
int vapic_init(struct vapic *v, size_t v_size, struct vapic_vm *vm,
               const struct vapic_config *config, void *page);

/*
 * Publishes the vCPU: from now on messages find it. VAPIC_E_EXIST: another vCPU has this x2APIC ID;
 * VAPIC_E_FULL: max_vcpus are present; VAPIC_E_BUSY: already added. [config]
 */
int vapic_add(struct vapic *v);

/*
 * Withdraws the vCPU: after return no other thread touches it or its page. Its owner must have
 * stopped. Calls host.quiesce(). VAPIC_E_ARG: was not added. [config]
 */
int vapic_remove(struct vapic *v);

/*
 * RESET (power-on, machine reboot): APIC base, registers, timer, latches, activity as after
 * vapic_init() [SDM3 12.4.7.1] [SDM3 11.1.1]. Interrupts not yet delivered are gone. [owner]
 */
void vapic_reset(struct vapic *v);

/* The x2APIC ID given at init. [any] */
uint32_t vapic_id(const struct vapic *v);

/* Index in the VM's dense array, stable between add and remove; VAPIC_NO_INDEX before. [any] */
uint32_t vapic_index(const struct vapic *v);

/* IA32_APIC_BASE as the guest would read it. [owner] */
uint64_t vapic_base(const struct vapic *v);

/*
 * Loads IA32_APIC_BASE on behalf of the VMM (state load, firmware hand-over): any legal state may
 * follow any other, also x2APIC -> xAPIC. VAPIC_E_BASE (nothing changed): reserved bits, EXTD
 * without EN, EXTD without the x2APIC feature. [owner][config]
 */
int vapic_load_base(struct vapic *v, uint64_t value);

enum vapic_activity vapic_activity(const struct vapic *v); /* [owner] */

/*
 * Counts every vector that vapic_commit() acknowledges into counts[vector] (256 entries, the
 * caller's memory); NULL stops. [owner]
 */
void vapic_count_vectors(struct vapic *v, uint64_t *counts);

/* A snapshot of the statistics. [owner] */
void vapic_get_stats(const struct vapic *v, struct vapic_stats *stats);

/* ---------------------------------------------------------------------------------------------- */
/* 4. The guest touches its registers (nothing has happened yet: the host decoded the access)     */
/* ---------------------------------------------------------------------------------------------- */

/*
 * Does guest-physical address `gpa` lie in this vCPU's register page? True while the APIC is
 * enabled in xAPIC mode; in x2APIC mode and while disabled it depends on DISABLED_READS_ONES, which
 * makes the page stay claimed. RAM that the guest put there goes first; the host decides that.
 * [SDM3 12.4.5] [owner]
 */
bool vapic_mmio_claims(const struct vapic *v, uint64_t gpa);

/*
 * A read of `size` (1, 2, 4, 8, ... up to 64) bytes at `offset` (0 to FFFh) in the page; `data`
 * gets `size` bytes, zeros where the guest gets nothing sensible. Never faults. [SDM3 12.4.1]
 * [owner]
 */
void vapic_mmio_read(struct vapic *v, uint32_t offset, void *data, size_t size,
                     struct vapic_now now);

/*
 * A write of `size` bytes. Anything but an aligned 4-byte write at offset%16 == 0 is dropped. Never
 * faults. May send IPIs (host.notify), take the configuration lock, re-arm the timer. [owner]
 */
void vapic_mmio_write(struct vapic *v, uint32_t offset, const void *data, size_t size,
                      struct vapic_now now);

/*
 * RDMSR/WRMSR of 1Bh, 6E0h and 800h-8FFh. VAPIC_OK, VAPIC_GP (nothing changed), or VAPIC_UNCLAIMED
 * for any other number. [SDM3 12.12.1.2] [SDM3 12.5.4.1] [owner]
 */
int vapic_msr_read(struct vapic *v, uint32_t msr, uint64_t *value, struct vapic_now now);
int vapic_msr_write(struct vapic *v, uint32_t msr, uint64_t value, struct vapic_now now);

/* MOV CR8: works in every mode; VAPIC_GP when bits 63:4 are set. [SDM3 12.8.6.1] [owner] */
uint64_t vapic_read_cr8(const struct vapic *v);
int vapic_write_cr8(struct vapic *v, uint64_t value);

/*
 * EOI by other means than the register (a paravirtual EOI). Same effect as the guest's write.
 * [owner]
 */
void vapic_eoi(struct vapic *v);

/* ---------------------------------------------------------------------------------------------- */
/* 5. The run loop                                                                                */
/* ---------------------------------------------------------------------------------------------- */

/* What only the vCPU thread knows before an entry. */
enum vapic_can {
    VAPIC_CAN_IRQ = 1u << 0,  /* IF=1, no STI/MOV SS shadow, GIF=1, injection slot free */
    VAPIC_CAN_NMI = 1u << 1,  /* no NMI in service, no shadow, injection slot free */
    VAPIC_CAN_SMI = 1u << 2,  /* SMM is supported and not active */
    VAPIC_CAN_INIT = 1u << 3, /* not blocked by SMM, VMX root operation, GIF=0; when it was, the */
                              /* host enters again after RSM, VMXOFF, STGI by itself */
    VAPIC_IF = 1u << 4,       /* RFLAGS.IF, for waking a halted vCPU */
    VAPIC_NMI_MASKED = 1u << 5, /* an NMI is in service: limits what is remembered to one */
    VAPIC_INCOMPLETE = 1u << 6, /* an exit awaits completion by the host: inject nothing now */
};

enum vapic_inject {
    VAPIC_INJECT_NONE,
    VAPIC_INJECT_VECTOR, /* inject .vector */
    VAPIC_INJECT_EXTINT, /* fetch the vector from the 8259 (INTA) and inject that */
    VAPIC_INJECT_NMI,
    VAPIC_INJECT_SMI,
};

enum vapic_cpu_event {
    VAPIC_CPU_NONE,
    VAPIC_CPU_INIT, /* set the registers to their INIT values; the APIC's are done. Enter again */
    VAPIC_CPU_SIPI, /* CS.selector = vector<<8, CS.base = vector<<12, RIP = 0 */
};

/* What a vCPU whose nested guest (L2) is current has to do for an interrupt of L1's, see nested.h.
 */
enum vapic_nested_do {
    VAPIC_NESTED_STAY,  /* nothing; or .inject goes into L2 itself, because L1 wants it so */
    VAPIC_NESTED_LEAVE, /* do not enter: leave L2 with an external-interrupt exit to L1; the vCPU */
                        /* is outside as after vapic_exit(), which is not needed but allowed */
    VAPIC_NESTED_SOON,  /* the same, but L2 must be entered once before: make it exit at once */
    VAPIC_NESTED_STOP,  /* do not enter: L1's control block names memory that L1 does not have; */
                        /* stop to user space, and ask again when that may have changed */
};

/* What to do before the next entry. */
struct vapic_entry {
    enum vapic_cpu_event event;
    enum vapic_inject inject;
    enum vapic_nested_do nested; /* only while L2 is current */
    uint8_t vector;              /* of SIPI, or of VAPIC_INJECT_VECTOR */
    uint8_t cr8;                 /* load it into CR8/V_TPR/TPR shadow */
    uint8_t tpr_threshold; /* class that CR8 must fall below to let a vector through; 0: none */
    bool runnable;         /* false: do not enter the guest; sleep with vapic_block() */
    bool irq_window;       /* exit as soon as an interrupt can be injected */
    bool nmi_window;       /* the same for NMI */
    bool smi_window;       /* the same for SMI: look again after RSM */
    struct vapic_deadline deadline; /* when to look again at the latest */
};

/*
 * Looks at everything that concerns this vCPU and says what to do. Harvests posted interrupts,
 * events and an expired timer; handles INIT and SIPI; chooses what to inject by priority (SMI, NMI,
 * ExtINT, vector) but acknowledges nothing. After it the vCPU counts as being in the guest: whoever
 * posts from then on gets VAPIC_ACTION_KICK, so the host must have a kick that also works between
 * this call and the actual entry. `can` is a set of enum vapic_can.
 *
 * When .event is not NONE, do that and call vapic_enter() again before anything else.
 * Takes no lock but for INIT and, in a VM with a back end, for a change of the inhibition that this
 * vCPU has not taken notice of (configuration lock). [owner]
 */
void vapic_enter(struct vapic *v, uint32_t can, struct vapic_now now, struct vapic_entry *entry);

/*
 * The host has injected (or is certain to inject) what `entry` said: acknowledges it (IRR to ISR
 * for a vector) [SDM3 12.8.4]. Call it directly after vapic_enter(), for nothing else may come in
 * between. Not needed for VAPIC_INJECT_NONE. [owner]
 */
void vapic_commit(struct vapic *v, const struct vapic_entry *entry);

/*
 * The vector, ExtINT or NMI of the last commit did not reach the guest after all (the exit happened
 * during delivery and the hardware does not re-deliver): takes the acknowledgement back so that it
 * is chosen again. Returns false when nothing was outstanding. An ExtINT cannot be put back into
 * the 8259: the host must keep that vector and inject it again. [owner]
 */
bool vapic_not_delivered(struct vapic *v);

/*
 * The guest has exited. `cr8` is its CR8 now. `delivered`: what was last committed has been taken
 * by the processor (false: unknown, as with a VMM whose kernel keeps the injection slot). [owner]
 */
void vapic_exit(struct vapic *v, uint8_t cr8, bool delivered);

/* The guest executed HLT. vapic_enter() says when it goes on. [SDM2 HLT] [owner] */
void vapic_halt(struct vapic *v);

/*
 * About to sleep because vapic_enter() said not runnable. True: nothing has arrived since; sleep
 * until host.notify(WAKE) or the deadline, then call vapic_unblock(). False: look again, do not
 * sleep. After true a sender gets VAPIC_ACTION_WAKE exactly once per vapic_block(). [owner]
 */
bool vapic_block(struct vapic *v);
void vapic_unblock(struct vapic *v); /* [owner] */

/* The time given to host.arm() has come: makes the vCPU look. Do the action returned. [any] */
enum vapic_action vapic_timer_expired(struct vapic *v);

/* Makes the vCPU leave the guest and pass through vapic_enter(). Do the action returned. [any] */
enum vapic_action vapic_poke(struct vapic *v);

/* ---------------------------------------------------------------------------------------------- */
/* 6. Devices                                                                                     */
/* ---------------------------------------------------------------------------------------------- */

#define VAPIC_FROM_DEVICE 0xFFFFFFFFu

/*
 * An interrupt message. IPIs, MSIs, I/O APIC entries and LVTs all become one. `icr` is the ICR's
 * low word (vector, delivery mode, destination mode, level, trigger, shorthand) [SDM3 12.6.1].
 */
struct vapic_msg {
    uint32_t icr;
    uint32_t dest;   /* destination field, right aligned */
    uint32_t source; /* index of the sending vCPU, or VAPIC_FROM_DEVICE */
    uint32_t flags;  /* VAPIC_MSG_ masks */
};

#define VAPIC_MSG_REDIRECT (1u << 0) /* redirection hint: choose one target */

/* What became of a message. */
struct vapic_sent {
    uint32_t accepted; /* vCPUs that took it; a vector already pending counts as taken */
    uint16_t target;   /* index of the target when accepted is 1 */
    uint8_t action;    /* enum vapic_action: to be done for `target` when accepted is 1 */
    uint8_t coalesced; /* 1 when the only target had the vector pending already */
};

/*
 * Sends a message. With a vCPU as source only its owner may call it. With exactly one target the
 * caller must do the action returned (the vCPU is vapic_at(vm, target)); with more the library has
 * called host.notify() for each. Takes no lock. [SDM3 12.6.2] [SDM3 12.12.10] [any]
 */
struct vapic_sent vapic_send(struct vapic_vm *vm, struct vapic_msg msg);

/* The vCPU at `index`, NULL when there is none (any more). [any] */
struct vapic *vapic_at(struct vapic_vm *vm, uint32_t index);

/* The added vCPU with this x2APIC ID, or NULL. [any] */
struct vapic *vapic_by_id(struct vapic_vm *vm, uint32_t id);

/*
 * Accepts one fixed interrupt at one vCPU, as its local APIC does for a message that matched:
 * dropped unless enabled and software enabled. *accepted (may be NULL) tells. Do the action
 * returned. [SDM3 12.8.4] [any]
 */
enum vapic_action vapic_post(struct vapic *v, uint8_t vector, bool level, bool *accepted);

/* The LINT0 (n = 0) or LINT1 (n = 1) input changed. LINT0 is where the 8259's INTR arrives.
 * [SDM3 12.5.1] [any] */
enum vapic_action vapic_set_lint(struct vapic *v, unsigned n, bool level);

/* One event of another local source: APIC_LVT_THERMAL, _PMC, _CMCI, or an extended LVT
 * (APIC_EILVT + 10h*n). VAPIC_ACTION_NONE also for an offset that is no such entry. [any] */
enum vapic_action vapic_local_event(struct vapic *v, uint32_t lvt);

/* An NMI by other means than the fabric. [any] */
enum vapic_action vapic_nmi(struct vapic *v);

/*
 * Message signalled interrupt [SDM3 12.11]. Returns the number of vCPUs that accepted it (0:
 * nobody) or VAPIC_E_MSI: address outside FEExxxxxh, remappable format, a reserved delivery mode (3
 * or 6), or (32-bit format) address bits 39:32 set. Address bits 63:32 are ignored in the other
 * formats, and so is the level bit (14) of the data. Notifies by itself. [any]
 */
int vapic_msi(struct vapic_vm *vm, uint64_t address, uint32_t data);

/*
 * GSI routes. A device raises and lowers GSI lines; a route leads to an I/O APIC pin of this
 * library or to a message (then a rising line sends it). `source` (0 to 15) tells devices that
 * share a GSI apart: the line is high while any source holds it high.
 */
struct vapic_route {
    enum vapic_route_kind kind;
    struct vapic_ioapic *ioapic; /* VAPIC_ROUTE_IOAPIC */
    uint32_t pin;
    uint64_t address; /* VAPIC_ROUTE_MSI; data bit 15 (level) makes it take part in EOIs */
    uint32_t data;
};

/*
 * Sets the route of a GSI. The levels of its sources are not carried from one pin to another, nor
 * between a pin and a message: let the line be low when the kind or the pin changes. VAPIC_E_ARG,
 * VAPIC_E_MSI. [config]
 */
int vapic_gsi_route(struct vapic_vm *vm, uint32_t gsi, const struct vapic_route *route);

#define VAPIC_GSI_ACK      (1u << 0) /* call host.gsi_ack() at EOI */
#define VAPIC_GSI_RESAMPLE (1u << 1) /* lower `source` first; implies VAPIC_GSI_ACK */

/*
 * What happens at an EOI of this GSI's vector, on any vCPU: VAPIC_GSI_ masks; 0 stops. Pins of
 * either trigger mode take part, messages only with data bit 15 (level). A pin that several GSIs
 * are routed to reports the one that was routed last. VAPIC_E_ARG: no such GSI, source or flag, or
 * there is no host.gsi_ack(). [config]
 *
 * AVIC's processors end edge-triggered vectors without telling anybody: a host that needs to know
 * of those, as for a PIT that re-injects ticks, sets PIT_REINJ meanwhile (accel.h).
 */
int vapic_gsi_watch(struct vapic_vm *vm, uint32_t gsi, uint32_t flags, uint32_t source);

/*
 * Source `source` of a GSI goes high or low. Returns the number of vCPUs that accepted an interrupt
 * from it, 0 when it coalesced with a pending one or the source went low, VAPIC_GSI_BLOCKED when it
 * was blocked (masked, or remote IRR set, or nobody is addressed, or the GSI has no route),
 * VAPIC_E_ARG when there is no such GSI or source. [any]
 */
#define VAPIC_GSI_BLOCKED (-1000)
int vapic_gsi_set(struct vapic_vm *vm, uint32_t gsi, uint32_t source, bool level);

/* One redirection entry and what belongs to it. Private. */
struct vapic_pin {
    uint64_t word;  /* any thread, one compare-and-swap word: entry, line sources, pending */
    uint32_t storm; /* EOIs in a row that found the line high; atomic */
    uint32_t gsi;   /* the GSI last routed here, VAPIC_NO_INDEX: none; under the lock, any reads */
};

/* An I/O APIC. The caller's memory; the fields are private. */
struct vapic_ioapic {
    struct vapic_vm *vm;
    struct vapic_ioapic *next;
    struct vapic_pin *pins;
    uint32_t pin_count;
    uint32_t gsi_base;
    uint32_t id;     /* register 0, atomic */
    uint32_t select; /* IOREGSEL, atomic */
    uint32_t index;  /* constant: position in vapic_vm.ioapics, how routes name it */
    uint8_t version;
};

struct vapic_ioapic_config {
    uint32_t pins;     /* 1 to 240; 0: 24 */
    uint32_t gsi_base; /* GSI of pin 0 */
    uint8_t version;   /* 11h, or 20h (with EOI register); 0: 20h */
    uint8_t id;        /* initial ID, 0 to 15 */
};

/*
 * Initializes an I/O APIC (all pins masked), attaches it to the VM, and routes GSIs gsi_base ...
 * gsi_base + pins - 1 that exist and have no route yet to its pins. `pins` is an array of
 * config->pins entries (24 when 0); it and `io` stay in use as long as the VM. `io_size` is
 * sizeof(struct vapic_ioapic). VAPIC_E_ARG, VAPIC_E_SIZE; VAPIC_E_BUSY: `io` is attached already;
 * VAPIC_E_FULL: 256 I/O APICs are. [config]
 */
int vapic_ioapic_init(struct vapic_ioapic *io, size_t io_size, struct vapic_vm *vm,
                      const struct vapic_ioapic_config *config, struct vapic_pin *pins);

/* RESET: every pin masked, ID back to 0, lines keep their level. [any] */
void vapic_ioapic_reset(struct vapic_ioapic *io);

/*
 * The guest reads or writes `size` (1, 2, 4, 8) bytes at `offset` of the I/O APIC's window.
 * Other offsets and sizes read 0 and are ignored. A narrow write sets the whole register, its upper
 * bytes to zero. The register index is shared: a host must not let two accesses to IOREGSEL and
 * IOWIN overlap that the guest keeps apart by a lock. [IOAPIC 3.1] [any]
 */
uint64_t vapic_ioapic_read(struct vapic_ioapic *io, uint32_t offset, size_t size);
void vapic_ioapic_write(struct vapic_ioapic *io, uint32_t offset, uint64_t value, size_t size);

/* Like vapic_gsi_set() for a pin of this I/O APIC. [any] */
int vapic_ioapic_set(struct vapic_ioapic *io, uint32_t pin, uint32_t source, bool level);

/* Tells every attached I/O APIC and route about an EOI the library did not see itself. [any] */
void vapic_broadcast_eoi(struct vapic_vm *vm, uint8_t vector);

/* The pause that host.ioapic_delay() asked for is over. [any] */
void vapic_ioapic_resume(struct vapic_ioapic *io, uint32_t pin);

/* One redirection entry as the guest would read it; 0 for a pin that does not exist. [any] */
uint64_t vapic_ioapic_entry(const struct vapic_ioapic *io, uint32_t pin);

/* ---------------------------------------------------------------------------------------------- */
/* 7. State save and load                                                                         */
/* ---------------------------------------------------------------------------------------------- */

#define VAPIC_IMAGE_SIZE 1024u

/* How the image holds the ID while in x2APIC mode. */
enum vapic_image {
    VAPIC_IMAGE_ID8,  /* id << 24, as KVM without 32-bit IDs; ignored on load, unless the knob */
                      /* X2APIC_KEEPS_WRITTEN_ID gives it a meaning */
    VAPIC_IMAGE_ID32, /* the full ID; checked on load */
};

/*
 * The 1 KiB image that KVM_GET_LAPIC and KVM_SET_LAPIC exchange: each register at its xAPIC offset,
 * ICR split in 300h/310h. The vCPU must not run. Save merges posted interrupts first. Load needs
 * IA32_APIC_BASE to be loaded before (vapic_load_base()); it normalizes what a guest could not have
 * written, sends nothing, and restarts the timer from the current count. VAPIC_E_ID leaves
 * everything unchanged. [owner][config]
 */
int vapic_save_image(struct vapic *v, enum vapic_image kind, void *image, size_t size,
                     struct vapic_now now);
int vapic_load_image(struct vapic *v, enum vapic_image kind, const void *image, size_t size,
                     struct vapic_now now);

/*
 * What the image lacks, as a versioned little-endian record: IA32_APIC_BASE, timer deadline and
 * remaining time, INIT/SIPI, activity, NMIs, the error latch, lines, a vector acknowledged but not
 * yet taken, AMD extended registers; of a vCPU in L2 the nested part (nested.h). Load it after the
 * image. The record carries its own length and
 * version: an older one loads, a newer one is refused with VAPIC_E_VERSION, a malformed one with
 * VAPIC_E_FORMAT, both without any change.
 *
 * Save the record after the image. Events that were posted meanwhile are overwritten by a load. A
 * vCPU with AutoEOI vectors (pv.h) is told of them before the record is loaded: an acknowledged one
 * is not in service. VAPIC_E_BUSY: the vCPU is in L2; vapic_nested_abandon() it before.
 *
 * After a load, *entry (may be NULL) says what was acknowledged and must be injected again, without
 * another vapic_commit().
 */
#define VAPIC_RECORD_SIZE 512u
int vapic_save_record(struct vapic *v, void *record, size_t size, struct vapic_now now);
int vapic_load_record(struct vapic *v, const void *record, size_t size, struct vapic_now now,
                      struct vapic_entry *entry);

/*
 * What the vCPU does, for state of another hypervisor's APIC, which has no record: after
 * vapic_reset(), vapic_load_base() and vapic_load_image(). VAPIC_E_ARG: no such activity, or one in
 * which the bootstrap processor would wait to be started. [owner]
 */
int vapic_load_activity(struct vapic *v, enum vapic_activity activity);

/*
 * Likewise: the one-shot timer has ended, and its interrupt was delivered, which a count of 0 in an
 * image does not say: vapic_load_image() has armed it to end now. VAPIC_E_ARG: the image that was
 * loaded has no one-shot timer with an initial count. [owner]
 */
int vapic_load_timer_ended(struct vapic *v);

/*
 * The same for an I/O APIC; `size` must be at least VAPIC_IOAPIC_RECORD(pins) (VAPIC_E_SIZE). Load
 * needs an I/O APIC with the same number of pins and the same version, and the vCPUs loaded before:
 * a level-triggered pin whose line is high and which awaits no EOI sends its message at once.
 * VAPIC_E_ARG: `io` or `record` is NULL, or the record is of another kind of I/O APIC. [any]
 */
#define VAPIC_IOAPIC_RECORD(pins) (32u + 16u * (pins))
int vapic_ioapic_save(struct vapic_ioapic *io, void *record, size_t size);
int vapic_ioapic_load(struct vapic_ioapic *io, const void *record, size_t size);

/*
 * One redirection entry with its remote IRR, for state of another I/O APIC, which has no record:
 * after vapic_ioapic_reset(), and after the lines have their levels and the vCPUs theirs. What an
 * entry cannot hold is left out. A level-triggered pin whose line is high and which awaits no EOI
 * sends its message at once; an edge is none. A line that moves meanwhile is not lost: on an
 * edge-triggered pin its rise comes before or after the load. VAPIC_E_ARG: no such pin. [any]
 */
int vapic_ioapic_load_entry(struct vapic_ioapic *io, uint32_t pin, uint64_t entry);

/* ---------------------------------------------------------------------------------------------- */
/* 8. Registers, tracing                                                                          */
/* ---------------------------------------------------------------------------------------------- */

/* How a register may be accessed; combined in vapic_reg.access. */
enum vapic_access {
    VAPIC_X_R = 1u << 0,  /* xAPIC read */
    VAPIC_X_W = 1u << 1,  /* xAPIC write */
    VAPIC_X2_R = 1u << 2, /* x2APIC RDMSR */
    VAPIC_X2_W = 1u << 3, /* x2APIC WRMSR */
};

/* What must be true for a register (or for an x2APIC access right) to exist. */
enum vapic_need {
    VAPIC_NEED_NONE,
    VAPIC_NEED_CMCI,
    VAPIC_NEED_AMD_EXT,
    VAPIC_NEED_AMD_IN_X2APIC, /* everywhere in xAPIC mode, on AMD (and knob APR) in x2APIC mode */
    VAPIC_NEED_THERMAL,       /* max_lvt 5 or more */
    VAPIC_NEED_PMC,           /* max_lvt 4 or more */
};

/*
 * The register file is a table of these: [SDM3 T12-1] [SDM3 T12-6] [APM2 T16-2]. Code, tests, trace
 * and documentation read the same rows.
 */
struct vapic_reg {
    const char *name;
    uint16_t offset;   /* of the first word */
    uint8_t count;     /* words, 10h apart */
    uint8_t access;    /* enum vapic_access */
    uint8_t need;      /* enum vapic_need */
    uint32_t writable; /* bits that a write changes */
    uint32_t ones;     /* bits that always read as one */
    uint32_t reserved; /* bits whose write raises #GP in x2APIC mode (STRICT_RESERVED) */
    uint32_t reset;    /* value after RESET */
    uint32_t init;     /* value after INIT; equal to reset unless the manual says otherwise */
};

/* The row that covers `offset` (a multiple of 16 below 1000h), or NULL. [any] */
const struct vapic_reg *vapic_reg_at(uint32_t offset);

/* Row `n` of the table, NULL at the end. [any] */
const struct vapic_reg *vapic_reg_row(uint32_t n);

/*
 * Trace events have the names and fields of KVM's tracepoints where KVM has such an event, so that
 * tools that read the one can read the other. Columns: event, name; the comment says what arg[0],
 * arg[1], ... are.
 */
#define VAPIC_EVENTS(X)                                                                            \
    X(APIC, kvm_apic)                       /* bit 0 write, bit 1 MSR; MSR or offset; value */     \
    X(APIC_IPI, kvm_apic_ipi)               /* icr low, destination */                             \
    X(APIC_ACCEPT_IRQ, kvm_apic_accept_irq) /* apicid, delivery mode, trigger mode, vector */      \
    X(EOI, kvm_eoi)                         /* apicid, vector */                                   \
    X(INJ_VIRQ, kvm_inj_virq)               /* vector, soft, reinjected */                         \
    X(MSI_SET_IRQ, kvm_msi_set_irq)         /* address, data */                                    \
    X(IOAPIC_SET_IRQ, kvm_ioapic_set_irq)   /* pin, entry, coalesced */                            \
    X(IOAPIC_DELAYED_EOI, kvm_ioapic_delayed_eoi_inj)   /* entry */                                \
    X(SET_IRQ, kvm_set_irq)                             /* gsi, level, source */                   \
    X(ACK_IRQ, kvm_ack_irq)                             /* ioapic, pin */                          \
    X(TIMER, vapic_timer)                               /* apicid, mode, when */                   \
    X(BASE, vapic_apic_base)                            /* apicid, old, new */                     \
    X(CPU_EVENT, vapic_cpu_event)                       /* apicid, enum vapic_cpu_event, vector */ \
    X(APICV_INHIBIT_CHANGED, kvm_apicv_inhibit_changed) /* reason, set, inhibits */                \
    X(AVIC_INCOMPLETE_IPI, kvm_avic_incomplete_ipi)     /* icr high, icr low, id, index */         \
    /* offset; bit 0 trap, bit 1 write; vector: */                                                 \
    X(AVIC_UNACCELERATED_ACCESS, kvm_avic_unaccelerated_access)                                    \
    X(AVIC_DOORBELL, kvm_avic_doorbell)                     /* vcpuid, the processor's apicid */   \
    X(AVIC_KICK_VCPU_SLOWPATH, kvm_avic_kick_vcpu_slowpath) /* icr high, icr low, index */         \
    X(AVIC_GA_LOG, kvm_avic_ga_log)                         /* vmid, vcpuid */                     \
    X(APICV_ACCEPT_IRQ, kvm_apicv_accept_irq)               /* as kvm_apic_accept_irq */           \
    X(PV_EOI, kvm_pv_eoi)                                   /* apicid, vector */

enum vapic_event_kind {
#define VAPIC_X(name, event) VAPIC_EVENT_##name,
    VAPIC_EVENTS(VAPIC_X)
#undef VAPIC_X
        VAPIC_EVENT_COUNT
};

struct vapic_event {
    enum vapic_event_kind kind;
    uint32_t vcpu; /* index, or VAPIC_NO_INDEX */
    uint64_t arg[4];
};

/* "kvm_apic" and so on; NULL for a number that is no event. [any] */
const char *vapic_event_name(uint32_t kind);

/*
 * Formats an event's arguments as KVM's tracepoint of the same name prints them, without a newline,
 * always terminated. Returns the length that the full text has. Numbers look as the kernel prints
 * them: a zero in hexadecimal keeps its 0x, which tools that format by themselves leave off. [any]
 */
size_t vapic_event_format(const struct vapic_event *event, char *text, size_t size);

/*
 * Calls `fn` for each event of this VM, on the thread where it happens; NULL turns tracing off,
 * which costs one predictable branch per event. The function must not call the library. It may be
 * called for a while after it was turned off, until the threads that are in the library have left
 * it; another `fn` or `ctx` may only be given after that. [any]
 */
void vapic_trace(struct vapic_vm *vm, vapic_trace_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
