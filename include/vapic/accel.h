/* SPDX-License-Identifier: MIT */
/*
 * libvapic with hardware acceleration: AMD's AVIC and x2AVIC, Intel's APICv with posted interrupts
 * and IPI virtualization, and the reasons for which either is switched off while the guest runs.
 *
 * Read vapic.h first. What this header adds to a hypervisor's life:
 *
 *      once per host       vapic_platform_init(); vapic_pcpu_init() per physical processor
 *      once per VM         vapic_accel_init() after vapic_vm_init(), before the first vCPU
 *      once per vCPU       vapic_accel_attach() between vapic_init() and vapic_add()
 *      scheduler           vapic_load() when the vCPU's thread gets a processor, vapic_put() when
 *                          it loses it
 *      run loop            as without: vapic_enter() ... vapic_exit(); the exits of the hardware go
 *                          to vapic_avic_exit() or vapic_apicv_exit()
 *      interrupt handlers  vapic_wakeup() on the wake-up vector, vapic_ga_log() for the GA log
 *      devices             vapic_irte_attach() where the IOMMU can post
 *
 * The register page is the same with and without acceleration: nothing is copied when it is
 * switched on or off. While a vCPU is "active" the processor delivers its interrupts and
 * vapic_entry.inject names only what the hardware cannot deliver (NMI, SMI, ExtINT, INIT, SIPI).
 *
 * Every [owner] function but vapic_enter() and vapic_commit() is for a vCPU outside the guest,
 * after vapic_exit(): a register write may bring about a change that waits until all vCPUs are
 * outside.
 *
 * docs/acceleration.md wires each back end into a VMRUN and a VMLAUNCH loop, field by field.
 */
#ifndef VAPIC_ACCEL_H
#define VAPIC_ACCEL_H

#include "vapic/arch/apicv.h"
#include "vapic/arch/avic.h"
#include "vapic/vapic.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------- */
/* 1. Inhibition: why a guest cannot be accelerated now                                           */
/* ---------------------------------------------------------------------------------------------- */

/*
 * The reasons, with the names and numbers of Linux 7.2 so that traces can be compared. Columns:
 * name, number, honoured by AVIC, honoured by APICv, text. A change of a reason that the VM's
 * back end does not honour does nothing.
 *
 * Set and cleared by the library itself: ABSENT (until the first vapic_add()),
 * PHYSICAL_ID_ALIASED, LOGICAL_ID_ALIASED and APIC_ID_MODIFIED (with every change of the
 * destination map; following UNIQUE_ID), APIC_BASE_MODIFIED (sticky), IRQWIN (counted),
 * PHYSICAL_ID_TOO_BIG (sticky), HYPERV (counted per vCPU, see pv.h), DISABLED. By the host through
 * vapic_inhibit(): BLOCKIRQ, PIT_REINJ, SEV, and HYPERV where it does AutoEOI by itself. NESTED
 * concerns one vCPU only: nested.h.
 */
#define VAPIC_INHIBITS(X)                                                                          \
    X(DISABLED, 0, 1, 1, "the host's configuration or its processor rules it out")                 \
    X(HYPERV, 1, 1, 1, "a vCPU has AutoEOI vectors")                                               \
    X(ABSENT, 2, 1, 1, "there is no local APIC yet")                                               \
    X(BLOCKIRQ, 3, 1, 1, "a debugger blocks interrupts")                                           \
    X(PHYSICAL_ID_ALIASED, 4, 1, 1, "two vCPUs answer to one physical APIC ID")                    \
    X(APIC_ID_MODIFIED, 5, 1, 1, "a guest rewrote an xAPIC ID")                                    \
    X(APIC_BASE_MODIFIED, 6, 1, 1, "a guest moved its register page")                              \
    X(NESTED, 7, 1, 0, "the vCPU runs a nested guest")                                             \
    X(IRQWIN, 8, 1, 0, "an ExtINT waits for an interrupt window")                                  \
    X(PIT_REINJ, 9, 1, 0, "the PIT re-injects ticks and must see their EOIs")                      \
    X(SEV, 10, 1, 0, "the guest's memory is encrypted")                                            \
    X(LOGICAL_ID_ALIASED, 11, 1, 0, "logical APIC IDs are not one-to-one")                         \
    X(PHYSICAL_ID_TOO_BIG, 12, 1, 0, "an APIC ID exceeds the hardware's table")

/* A reason's number. */
enum vapic_inhibit {
#define VAPIC_X(name, number, avic, apicv, text) VAPIC_INHIBIT_##name = (number),
    VAPIC_INHIBITS(VAPIC_X)
#undef VAPIC_X
        VAPIC_INHIBIT_COUNT
};

/* A set of reasons: bit n is reason n. A type of its own, because a number is not a set. */
struct vapic_inhibit_set {
    uint32_t bits;
};

/* "IRQWIN" and so on; NULL for a number that is no reason. [any] */
const char *vapic_inhibit_name(uint32_t number);
const char *vapic_inhibit_text(uint32_t number);

/*
 * Sets or clears a reason for the whole VM. When the set becomes empty, or is no longer, the
 * function returns after every vCPU has left the guest (host.kick_all()), and none enters again
 * before it has taken notice. A change that changes nothing costs one load while nobody traces.
 * Without a back end nothing happens. VAPIC_E_ARG: no such reason, or NESTED or IRQWIN, which
 * belong to vCPUs. [config]
 */
int vapic_set_inhibit(struct vapic_vm *vm, enum vapic_inhibit reason, bool set);

/* The reasons in force for the VM now. [any] */
struct vapic_inhibit_set vapic_inhibits(const struct vapic_vm *vm);

/* Is this vCPU accelerated, as it last took notice? [any] */
bool vapic_active(const struct vapic *v);

/* Is this vCPU between vapic_enter() and vapic_exit()? For host.kick_all(). [any] */
bool vapic_in_guest(const struct vapic *v);

/*
 * May the APIC access page be mapped for guests now? A host that maps it at a fault asks under the
 * lock that its host.access_page() takes to withdraw it (or asks again after mapping and withdraws
 * it itself). Once withdrawn for a vCPU in x2APIC mode it never comes back. [any]
 */
bool vapic_access_page(const struct vapic_vm *vm);

/* ---------------------------------------------------------------------------------------------- */
/* 2. Host, physical processors                                                                   */
/* ---------------------------------------------------------------------------------------------- */

struct vapic_accel;
struct vapic_nested;
struct vapic_nested_vcpu;

/* All VMs of a host whose IOMMU posts for them: who is meant by a GA log entry. Private. */
struct vapic_platform {
    struct vapic_accel *vms; /* linked by vapic_accel.next_vm; under `lock` */
    uint32_t lock;           /* spin_lock() */
    void (*spin_lock)(void *ctx, uint32_t *word);
    void (*spin_unlock)(void *ctx, uint32_t *word);
    void *ctx;
};

/*
 * Before the first VM. The spin lock functions of `host` are called with `ctx`, also from
 * vapic_ga_log(), before any VM is known. `size` is sizeof(struct vapic_platform). VAPIC_E_ARG,
 * VAPIC_E_SIZE. [init]
 */
int vapic_platform_init(struct vapic_platform *p, size_t size, const struct vapic_host *host,
                        void *ctx);

/* A physical processor. The caller's memory, one per processor, never moved. Private. */
struct vapic_pcpu {
    uint32_t apic_id;
    uint32_t lock;                    /* host.spin_lock() */
    struct vapic_accel_vcpu *blocked; /* APICv: vCPUs that sleep here; under `lock` */
};

/* [init] */
int vapic_pcpu_init(struct vapic_pcpu *pcpu, size_t size, uint32_t apic_id);

/*
 * The wake-up vector (vapic_accel_config.wakeup_vector) arrived on this processor: wakes, through
 * host.notify(), the vCPUs that sleep here and for which something was posted. On that processor,
 * from its interrupt handler. The list is the processor's: one call, with any VM (whose spin lock
 * functions are used), wakes the vCPUs of all. [SDM3 31.6] [any]
 */
void vapic_wakeup(struct vapic_vm *vm, struct vapic_pcpu *pcpu);

/* ---------------------------------------------------------------------------------------------- */
/* 3. The VM's back end                                                                           */
/* ---------------------------------------------------------------------------------------------- */

enum vapic_accel_kind { VAPIC_ACCEL_NONE, VAPIC_ACCEL_AVIC, VAPIC_ACCEL_APICV };

/* What the processor offers and what the host wants of it. */
enum vapic_accel_feature {
    VAPIC_ACCEL_X2AVIC = 1u << 0,     /* AMD: CPUID 8000000A:EDX[18] */
    VAPIC_ACCEL_X2AVIC_EXT = 1u << 1, /* AMD: CPUID 8000000A:ECX[6]: IDs up to 4095 */
    VAPIC_ACCEL_EXT_LVT = 1u << 2,    /* AMD: CPUID 8000000A:EDX[27] */
    VAPIC_ACCEL_IPIV = 1u << 3, /* IPIs by hardware. AMD: clear it on family 17h and 18h (erratum */
    /* 1235), IsRunning is then never published; Intel: tertiary bit 4 */
    VAPIC_ACCEL_XAPIC_HOST = 1u << 4, /* Intel: the host's APICs are in xAPIC mode (form of NDST) */
};

struct vapic_accel_config {
    enum vapic_accel_kind kind;
    uint32_t features;               /* VAPIC_ACCEL_ masks */
    bool disabled;                   /* the host does not want it: inhibited by DISABLED for good */
    uint32_t max_id;                 /* highest APIC ID that a vCPU of this VM may ever have */
    uint8_t notify_vector;           /* Intel: posted-interrupt notification vector of L1 */
    uint8_t wakeup_vector;           /* Intel: notification vector while blocked */
    uint32_t vm_tag;                 /* AMD: names the VM in GA tags, 1 to FFFFFh; 0: no GA log */
    struct vapic_platform *platform; /* AMD: where GA log entries look for the VM; or NULL */
};

/* One VM's acceleration. The caller's memory; the fields are private. */
struct vapic_accel {
    struct vapic_vm *vm;
    struct vapic_accel *next_vm;
    struct vapic_platform *platform;
    enum vapic_accel_kind kind;
    uint32_t features;
    bool disabled;        /* DISABLED was set at the beginning: nothing changes any more */
    uint32_t max_id;      /* as configured */
    uint32_t table_limit; /* highest APIC ID that the hardware's table can hold */
    uint8_t notify_vector, wakeup_vector;
    uint32_t vm_tag;
    uint64_t *physical_table; /* AVIC physical APIC ID table, or APICv PID-pointer table */
    uint64_t physical_hpa;
    uint32_t *logical_table; /* AVIC logical APIC ID table */
    uint64_t logical_hpa;
    uint32_t logical_changes; /* of the logical table, odd during each; under the lock, any reads */
    uint32_t devices;         /* IRTEs that post; atomic */
    struct vapic_nested *nested; /* constant after vapic_nested_init(); NULL: none */
};

/*
 * Bytes of page-aligned memory that vapic_accel_init() needs: the tables that the hardware walks,
 * physically contiguous and write-back. 0: the configuration is out of range. [any]
 */
size_t vapic_accel_memory(const struct vapic_accel_config *config);

/*
 * Gives `vm` a back end. Before the first vapic_init() of the VM. `size` is sizeof(struct
 * vapic_accel); `memory` has `memory_size` bytes and stays in use until the VM is gone, as does
 * `accel`. VAPIC_E_ARG, VAPIC_E_SIZE; VAPIC_E_BUSY: the VM has one; VAPIC_E_EXIST: another VM of
 * the platform has the vm_tag. [init]
 */
int vapic_accel_init(struct vapic_accel *accel, size_t size, struct vapic_vm *vm,
                     const struct vapic_accel_config *config, void *memory, size_t memory_size);

/* After the last vapic_remove(): the platform forgets the VM. Returns when no GA log lookup can
 * find it any more. [config] */
void vapic_accel_fini(struct vapic_accel *accel);

/* ---------------------------------------------------------------------------------------------- */
/* 4. A vCPU's back end                                                                           */
/* ---------------------------------------------------------------------------------------------- */

/* The x2APIC MSRs 800h-8FFh that a guest may touch without an exit: bit n of the 256 is MSR 800h+n.
 * See host.intercept(). */
struct vapic_msr_pass {
    uint64_t read[4], write[4];
};

/* Writes the bits of 800h-8FFh into a VM's MSR permission map (8 KiB, AMD) [APM2 15.11], or MSR
 * bitmap (4 KiB, Intel) [SDM3 26.6.9]. Others stay. [any] */
void vapic_pass_to_msrpm(const struct vapic_msr_pass *pass, void *msrpm);
void vapic_pass_to_bitmap(const struct vapic_msr_pass *pass, void *bitmap);

struct vapic_irte;

/* VMCS fields of which APICv changes bits while the VM runs. */
#define VAPIC_APICV_FIELDS 9u

/* Registers whose guest write is reported after the page has it; see vapic_trap_write(). */
#define VAPIC_TRAP_REGS 24u

/* One vCPU's acceleration. The caller's memory; the fields are private. */
struct vapic_accel_vcpu {
    struct vapic *v;
    void *vmcb;                       /* AVIC: vmcb01 */
    struct vapic_nested_vcpu *nested; /* constant after vapic_nested_attach(); NULL: none */
    struct vapic_pcpu *pcpu;          /* owner: where the thread runs; NULL: nowhere */
    uint32_t served;      /* owner: generation of the VM's inhibits last taken notice of */
    uint32_t own_reasons; /* owner: this vCPU's own reasons (NESTED), a set */
    uint32_t doorbell;    /* atomic, owner writes: host APIC ID + 1 to ring; 0: nowhere */
    bool can_irq;         /* owner: an interrupt for this APIC would end HLT, also one of L2 */
    bool irqwin;          /* owner: counts in the VM's interrupt-window requests */
    bool loaded;          /* owner: published as running */
    bool blocking;        /* owner: between vapic_block() and vapic_unblock() */
    bool in_l2;           /* owner: a nested guest is current */
    uint32_t written[VAPIC_TRAP_REGS]; /* owner: what the page held when the guest was entered */
    /* AVIC */
    uint64_t entry;        /* software's copy of the physical table's entry, true IsRunning; */
                           /* under `lock`, as is host_id */
    uint32_t host_id;      /* where it runs, or ran last */
    uint64_t *table_entry; /* in the table; one 64-bit store at a time, hardware reads */
    uint32_t logical_slot; /* owner, under the configuration lock: slot + 1 in the table */
    uint32_t logical_seen; /* owner: vapic_accel.logical_changes at the last entry */
    uint32_t lock;         /* host.spin_lock(): guards `irtes` and what they follow */
    struct vapic_irte *irtes;
    /* APICv */
    struct vapic_pcpu *wake_on; /* whose list of blocked vCPUs this one is on, or NULL */
    struct vapic_accel_vcpu *next_blocked, *prev_blocked; /* under wake_on->lock */
    uint64_t edge[4]; /* any thread: edges whose bit in the bitmap is in doubt, see post.c */
    uint32_t scanned; /* owner writes, senders read: generation of the routes that were scanned */
    uint64_t eoi_here[4];    /* owner: vectors of routes that lead here whose EOI must be seen */
    uint64_t eoi_watched[4]; /* owner: vectors of watched routes, wherever they lead */
    struct {                 /* owner: what vmcs01 holds, to write only what differs */
        bool valid;
        uint64_t field[VAPIC_APICV_FIELDS];
        struct vapic_msr_pass pass;
    } told;
};

struct vapic_accel_vcpu_config {
    void *vmcb; /* AVIC: the vCPU's VMCB (vmcb01), 4 KiB, constant until vapic_remove() */
};

/*
 * Between vapic_init() and vapic_add(). Fills the parts of the control block that never change and
 * the hardware table's entry. A vCPU whose APIC ID exceeds the table sets PHYSICAL_ID_TOO_BIG
 * (for the life of the VM, added or not) and runs without. Before vapic_remove() its thread calls
 * vapic_put(). `size` is sizeof(struct vapic_accel_vcpu). VAPIC_E_ARG, VAPIC_E_SIZE. [config]
 */
int vapic_accel_attach(struct vapic *v, struct vapic_accel_vcpu *av, size_t size,
                       const struct vapic_accel_vcpu_config *config);

/*
 * The vCPU's thread runs on `pcpu` from now on (until vapic_put()): publishes it as running there.
 * Between vapic_block() and vapic_unblock() it only remembers. On `pcpu`, not preemptible. A host
 * whose threads have no fixed processors calls it once with a processor of its own making. It and
 * vapic_put() may come from a preemption notifier, in the middle of another [owner] function of the
 * same vCPU, but not while a spin lock of the library is held. [owner]
 */
void vapic_load(struct vapic *v, struct vapic_pcpu *pcpu);

/* The thread is about to lose its processor although it would run on. [owner] */
void vapic_put(struct vapic *v);

/* The host APIC ID to ring (WRMSR C001011Bh, or an IPI with the notification vector) for
 * VAPIC_ACTION_DOORBELL; false when the vCPU is not loaded, then nothing is to be done. [any] */
bool vapic_doorbell_id(const struct vapic *v, uint32_t *apic_id);

/*
 * Intel: has something been posted since vapic_enter() looked? Ask with the host's interrupts off,
 * directly before VMLAUNCH or VMRESUME. When true call vapic_exit() and vapic_enter() again: the
 * notification may have arrived while the processor was still in the host, where it does nothing,
 * and a VM entry does not look at the descriptor. One that arrives after the interrupts were turned
 * off stays pending and is processed in the guest. [SDM3 31.6] [owner]
 */
bool vapic_posted(const struct vapic *v);

/* ---------------------------------------------------------------------------------------------- */
/* 5. Exits                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/*
 * #VMEXIT 401h or 402h with EXITINFO1 and 2 [APM2 15.29.9]. After vapic_exit(). VAPIC_OK: handled,
 * RIP is right. VAPIC_EMULATE: nothing has happened yet, decode the instruction and use
 * vapic_mmio_read/write() or vapic_msr_read/write(). VAPIC_E_ARG: not such an exit. [owner]
 */
int vapic_avic_exit(struct vapic *v, uint64_t code, uint64_t info1, uint64_t info2,
                    struct vapic_now now);

/*
 * VM exits with basic reason 43, 44, 45, 56 and their qualification [SDM3 29.2.1]. After
 * vapic_exit(). VAPIC_OK, VAPIC_EMULATE, VAPIC_E_ARG as above; VAPIC_ADVANCE: done, but RIP must
 * move on by the VM-exit instruction length. [owner]
 */
int vapic_apicv_exit(struct vapic *v, uint32_t reason, uint64_t qualification,
                     struct vapic_now now);

/*
 * For hosts with other sources of the same: the processor has stored the guest's write to the
 * register at `offset` in the page and moved RIP on; its side effects are still to be done. A value
 * that the register cannot hold is corrected in the page. [owner]
 */
void vapic_trap_write(struct vapic *v, uint32_t offset, struct vapic_now now);

/* The guest ended `vector` in service by a write that was stored already. [owner] */
void vapic_trap_eoi(struct vapic *v, uint8_t vector);

/* ---------------------------------------------------------------------------------------------- */
/* 6. Devices behind an IOMMU                                                                     */
/* ---------------------------------------------------------------------------------------------- */

/* One AMD interrupt remapping entry that can post. The caller's memory; private. */
struct vapic_irte {
    struct vapic *v;         /* NULL: remapped */
    struct vapic_irte *next; /* under the vCPU's lock */
    uint64_t posted[2];      /* what the entry holds in guest mode */
    uint64_t remapped[2];    /* what it holds otherwise */
    void *ctx;               /* the host's */
    bool guest;              /* in guest mode now; under the vCPU's lock */
};

/*
 * Posts the device's interrupt as `vector` into `v` (fixed, edge, one target), from now on and
 * whenever the vCPU is accelerated; `remapped` is the entry to use otherwise, whose host interrupt
 * the host then turns into vapic_post(). `irte` is all zero before its first use. `v` is added.
 * VAPIC_E_ARG: vector below 16, kind is not AVIC, there is no host.irte(); VAPIC_E_BUSY: `irte` is
 * attached. [APM2 15.29.5] [IOMMU 2.2.5] [config]
 */
int vapic_irte_attach(struct vapic_irte *irte, struct vapic *v, uint8_t vector,
                      const uint64_t remapped[2], void *ctx);

/* Back to the remapped form. Before another target is attached, and before vapic_remove().
 * [config] */
void vapic_irte_detach(struct vapic_irte *irte);

/* Intel: the posted-format entry for `vector` of `v`; it never needs to be changed when the vCPU
 * moves. Call vapic_device_attached() before the first is put to use; the entry must be gone, and
 * invalidated, before vapic_remove(). VAPIC_E_ARG. [any] */
int vapic_vtd_irte(struct vapic *v, uint8_t vector, uint16_t source, uint64_t irte[2]);

/* The first device that posts by hardware: vCPUs that sleep without having asked for a wake-up
 * vector are woken once. [config] */
void vapic_device_attached(struct vapic_vm *vm);

/*
 * A GA log entry: wakes the vCPU that its tag names (host.notify(), with the platform's spin lock
 * held, so that the VM cannot go meanwhile). Unknown tags are ignored. vapic_ga_overflow(): entries
 * were lost, every sleeping vCPU of VMs with devices is woken. [any]
 */
void vapic_ga_log(struct vapic_platform *platform, uint64_t entry);
void vapic_ga_overflow(struct vapic_platform *platform);

#ifdef __cplusplus
}
#endif

#endif
