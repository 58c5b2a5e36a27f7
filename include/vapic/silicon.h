/* SPDX-License-Identifier: MIT */
/*
 * libvapic-silicon: an executable model of what processors and IOMMUs do for virtual local APICs:
 * AMD's AVIC and x2AVIC, Intel's APICv with posted interrupts and IPI virtualization, and the
 * interrupt remapping tables that post into them. It shares no code with libvapic: it is the other
 * party, built from the manuals.
 *
 *      struct vapic_sil           one machine: its memory, its processors, its knobs
 *      struct vapic_sil_cpu       one logical processor
 *      struct vapic_sil_vmcs      one VMCS (a VMCB is a page of memory, as on the real thing)
 *      struct vapic_sil_amd_iommu, vapic_sil_vtd_msi()
 *
 * A model has no instruction decoder. Whoever drives it (a test, an explorer, a VMM that runs the
 * guest by other means) plays the instruction stream and says: the guest writes this register now,
 * this is an instruction boundary. The model answers what the silicon does about it.
 *
 *      vapic_sil_vmrun() / vapic_sil_vmentry()
 *          loop: vapic_sil_boundary()      interrupts: delivered, exit, or nothing
 *                vapic_sil_access(), _rdmsr(), _wrmsr(), _read_cr8(), _write_cr8(), _hlt()
 *          until one of them says VAPIC_SIL_EXIT, or vapic_sil_leave()
 *
 * Threads. One thread at a time drives a processor (its "owner"). Everything that processors do to
 * each other (doorbells, notifications, posting into IRR or PIR, table look-ups) goes through
 * memory with the locked operations that the manuals name, so that processors may be driven by
 * threads of their own at the same time. Functions marked [any] may be called from any thread;
 * [owner] by the processor's owner; [init] need exclusive use.
 *
 * Manual citations are as in vapic.h; AVIC is [APM2 15.29], APICv [SDM3 31].
 */
#ifndef VAPIC_SILICON_H
#define VAPIC_SILICON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vapic/arch/apicv.h"
#include "vapic/arch/avic.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------- */
/* 1. The machine                                                                                 */
/* ---------------------------------------------------------------------------------------------- */

struct vapic_sil;
struct vapic_sil_cpu;
struct vapic_sil_vmcs;

/* What the host's page tables (nested or extended) say about a guest-physical page. */
struct vapic_sil_page {
    uint64_t hpa; /* of the page, 4 KiB aligned */
    bool present, writable;
};

/*
 * Moments inside an operation at which another processor may come in between on real silicon. A
 * test that wants to hit one installs vapic_sil_host.point.
 */
enum vapic_sil_point {
    VAPIC_SIL_POINT_RESOLVED, /* an IPI's targets are known and valid, nothing is posted yet */
    VAPIC_SIL_POINT_POSTED,   /* IRR (PIR) has the vector; IsRunning (ON, SN) not yet looked at */
    VAPIC_SIL_POINT_FOUND,    /* IsRunning (ON, SN) looked at; no doorbell sent yet */
    VAPIC_SIL_POINT_CLEARED,  /* a receiver cleared ON and has not harvested PIR yet */
    VAPIC_SIL_POINTS
};

/* What surrounds the machine. A NULL member marked optional is not called. */
struct vapic_sil_host {
    size_t size; /* sizeof(struct vapic_sil_host) */

    /* Host-physical memory: a pointer to `size` bytes (never across a page) at `hpa`, NULL where
     * the machine has no memory. The same address always gives the same pointer. Any thread. */
    void *(*memory)(void *ctx, uint64_t hpa, size_t size);

    /* The nested page walk for `gpa` of the guest that `cpu` runs (N_CR3 or EPTP are the host's
     * business). False, or page->present false: not mapped. On the owner's thread, on TLB misses
     * only. */
    bool (*walk)(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa, struct vapic_sil_page *page);

    /* A doorbell or a physical interrupt has reached `cpu`, which may be in the guest, in the host,
     * or asleep; its owner should look (vapic_sil_boundary(), vapic_sil_take_interrupt()). On the
     * sender's thread, after everything is visible in memory. Optional. */
    void (*signal)(void *ctx, struct vapic_sil_cpu *cpu);

    /* See enum vapic_sil_point; `cpu` is the processor in whose operation it is, NULL for an
     * IOMMU. Optional. */
    void (*point)(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
};

enum vapic_sil_vendor { VAPIC_SIL_AMD, VAPIC_SIL_INTEL };

/*
 * What the manuals leave open. Zero everywhere is the default: what the processors that have been
 * looked at do, and where nobody has looked, the safest reading. Each is tested both ways.
 */
struct vapic_sil_knobs {
    /* AMD */
    bool doorbell_8bit;        /* the doorbell MSR takes bits 7:0 (63:8 are #GP), not 31:0 */
    bool np_optional;          /* AVIC without NP_ENABLE runs, else VMEXIT_INVALID */
    bool pointers_unchecked;   /* VMRUN does not look at pointers beyond their range checks */
    bool avic_before_x2apic;   /* the AVIC table wins over x2APIC's own #GP checks */
    bool odd_mmio_faults;      /* accesses other than aligned 32-bit are fault exits, not memory */
    uint8_t unfixed_id;        /* exit ID of types other than Fixed; 0: invalid interrupt type */
    bool vector_before_type;   /* the illegal-vector check precedes the type check */
    bool x2_no_broadcast;      /* x2AVIC: destination FFFFFFFFh is an ordinary (absent) ID */
    bool empty_mask_exits;     /* a logical destination without bits exits with ID 2 */
    bool index_highest;        /* of several failing targets the exit names the highest */
    bool id3_after_post;       /* illegal backing page pointers are found while posting */
    bool post_clears_tmr;      /* posting an IPI clears the target's TMR bit */
    bool gate_on_tpr;          /* the page's TPR gates delivery, not V_TPR */
    bool level_eoi_clears_isr; /* a level-triggered EOI exits with the ISR bit cleared */
    bool vintr_intercept;      /* the VINTR intercept fires for AVIC's interrupts */
    bool quirk_1235;           /* IPIs may act on a stale IsRunning=1 (erratum 1235) */
    bool masks_busy;           /* xAVIC: ICR bit 12 is not stored */
    bool masks_icr_high;       /* xAVIC: 310h stores bits 31:24 only */
    bool entry255_special;     /* x2AVIC: physical index 255 is never valid */
    bool fetch_redirected;     /* instruction fetches from the APIC page read the backing page */
    bool idle_hlt_ignores_irr; /* the idle-HLT intercept looks at V_IRQ and V_NMI only */
    bool x2_busy_dropped;      /* x2AVIC: ICR bit 12 is dropped, not a must-be-zero bit (#GP) */
    /* Intel */
    bool eoi_icr_reads_need_arv;    /* MMIO reads of 0B0h, 300h exit with VID but without ARV */
    bool ipiv_without_vid;          /* IPIV alone virtualizes a 300h write */
    bool ipiv_ff_broadcast_exits;   /* xAPIC physical FFh always exits, whatever entry 255 says */
    bool ipiv_last_entry_unchecked; /* VM entry does not check the table's end */
    bool ppi_needs_no_secondary;    /* PPI without secondary controls does not fail VM entry */
    bool no_length_on_apic_access;  /* exit 44 leaves the instruction length undefined (zero) */
    bool shadow_gates_notification; /* STI/MOV SS blocking holds back posted-interrupt processing */
    bool entry_keeps_vtpr_bytes;    /* VM entry does not clear VTPR bytes 3:1 */
};

struct vapic_sil_config {
    enum vapic_sil_vendor vendor;
    unsigned phys_bits;      /* MAXPHYADDR; 0: 48 */
    bool x2avic, x2avic_ext; /* AMD: CPUID 8000000A EDX[18], ECX[6] */
    bool ext_lvt;            /* AMD: EDX[27], extended LVTs read-allowed, write-trap */
    bool xapic_host;         /* Intel: the host's own APICs are in xAPIC mode */
    uint32_t absent_pin, absent_primary, absent_secondary; /* Intel: controls that do not exist */
    uint64_t absent_tertiary;
    struct vapic_sil_knobs knobs;
};

/* One machine. The caller's memory; constant after init. Private. */
struct vapic_sil {
    struct vapic_sil_host host;
    void *ctx;
    struct vapic_sil_config config;
    struct vapic_sil_cpu **cpus; /* by host APIC ID; NULL where there is none */
    uint32_t cpu_count;          /* entries of `cpus` */
};

/*
 * `cpus` is an array of `cpu_count` pointers (at most 65536), indexed by host APIC ID, filled by
 * vapic_sil_cpu_init(). False: an argument is out of range or a callback missing. [init]
 */
bool vapic_sil_init(struct vapic_sil *m, const struct vapic_sil_config *config,
                    const struct vapic_sil_host *host, void *ctx, struct vapic_sil_cpu **cpus,
                    uint32_t cpu_count);

/* ---------------------------------------------------------------------------------------------- */
/* 2. A processor                                                                                 */
/* ---------------------------------------------------------------------------------------------- */

/* What became of something the guest did. */
enum vapic_sil_result {
    VAPIC_SIL_DONE,    /* the instruction is complete */
    VAPIC_SIL_GP,      /* it raises #GP(0) in the guest; nothing else happened */
    VAPIC_SIL_EXIT,    /* the processor is in host mode now; VMCB or VMCS say why */
    VAPIC_SIL_NATIVE,  /* the access reached the *host's* own APIC: a hole in the interception */
    VAPIC_SIL_DELIVER, /* boundary: an event goes through the guest's IDT now */
    VAPIC_SIL_NOTHING, /* boundary: nothing to deliver */
    VAPIC_SIL_INVALID, /* entry failed: VMEXIT_INVALID, or VMfailValid with error 7 */
};

/* The part of the guest's state that matters here. Entries load it, exits save it; in between the
 * owner may change it as the guest's instructions would. */
struct vapic_sil_guest {
    uint64_t rip;
    uint8_t cpl;
    bool interrupt_flag; /* RFLAGS.IF */
    bool shadow;         /* blocking by STI or MOV SS; ends at the next completed instruction */
    bool gif;            /* AMD: the (virtual) global interrupt flag */
    bool nmi_masked;     /* AMD, with V_NMI_ENABLE: the driver's IRET clears it */
    bool halted;         /* activity state HLT, or HLT not intercepted */
};

#define VAPIC_SIL_TLB 8u /* translations of the APIC page that a processor holds */

/* A translation of one guest page, as the processor cached it. Private. */
struct vapic_sil_tlb {
    uint64_t tag;                   /* VMX: EPTP and VPID stand-in; AMD: ASID */
    uint64_t gpa;                   /* page */
    uint64_t hpa;                   /* of the page that accesses go to */
    bool valid, writable, redirect; /* redirect: to the backing page, with AVIC's semantics */
};

/* One logical processor. The caller's memory. */
struct vapic_sil_cpu {
    /* Constant */
    struct vapic_sil *machine;
    uint32_t apic_id;
    /* Any thread, atomic */
    uint32_t doorbell;    /* AMD: rung and not yet looked at */
    uint64_t physical[4]; /* vectors pending in the host's local APIC */
    /* Owner; the driver may read and, in the guest, write `guest` */
    struct vapic_sil_guest guest;
    bool in_guest;
    bool remembered;   /* AMD: something is pending that was held back by IF, shadow or GIF */
    bool recognized;   /* Intel: a virtual interrupt is recognized */
    uint8_t rvi, svi;  /* Intel */
    uint64_t vmcb_hpa; /* AMD: of the guest that runs */
    struct vapic_sil_vmcs *vmcs; /* Intel: current VMCS */
    uint64_t eoi_exit[4];        /* Intel: loaded at entry */
    struct vapic_sil_tlb tlb[VAPIC_SIL_TLB];
    uint32_t tlb_next;
    /* For statistics; owner writes */
    uint64_t doorbells_sent, notifications_sent;
    /* Private scratch of the vendor's half */
    struct {
        bool pending_write;
        uint16_t write_offset;
        uint8_t write_size;
    } operation;
    struct { /* AMD: what VMRUN loaded; fields whose clean bit is set keep the last run's values */
        bool held; /* there was such a run, of the VMCB at vmcb_hpa */
        uint8_t *vmcb;
        uint32_t intercept_cr, intercept3, intercept4, intercept5;
        uint32_t asid;
        uint64_t int_ctl; /* V_TPR, V_IRQ, ... are live here */
        uint64_t np_enable;
        uint64_t bar, backing, logical, physical;
        uint64_t msrpm;
        uint64_t x2msrs[8]; /* the permission map's bits of MSRs 800h to 8FFh */
        uint64_t injected;  /* EVENTINJ, not delivered yet */
        uint64_t vectoring; /* the event whose delivery is under way */
        struct {
            uint64_t hpa, entry;
        } seen[8]; /* with quirk_1235: physical table entries of late */
    } svm;
    struct {                              /* Intel: what the VM entry loaded */
        uint32_t pin, primary, secondary; /* controls in effect */
        uint64_t tertiary;
        uint64_t tag;         /* of the translations that this guest may use */
        uint32_t entry_event; /* interruption information, not delivered yet */
        uint32_t vectoring;   /* the event whose delivery is under way */
        uint8_t activity;     /* shutdown and wait-for-SIPI; else `guest.halted` says */
        bool below;           /* exit 43 is due */
        bool resume;          /* RFLAGS.RF */
    } apicv;
};

/* Adds a processor; false when the APIC ID is out of range or taken. [init] */
bool vapic_sil_cpu_init(struct vapic_sil_cpu *cpu, struct vapic_sil *m, uint32_t apic_id);

/* ---- Entering and leaving the guest ---- */

/*
 * VMRUN of the VMCB at host-physical `vmcb_hpa`: checks, loads, delivers EVENTINJ (a valid one is
 * reported by the next vapic_sil_boundary()), evaluates. VAPIC_SIL_DONE: in the guest.
 * VAPIC_SIL_INVALID: EXITCODE is -1. VAPIC_SIL_GP: no aligned address of a page of memory. A field
 * whose clean bit is set keeps the value of this processor's last run of this VMCB.
 * [APM2 15.5] [APM2 15.15] [APM2 15.29] [owner]
 */
enum vapic_sil_result vapic_sil_vmrun(struct vapic_sil_cpu *cpu, uint64_t vmcb_hpa);

/*
 * VMLAUNCH or VMRESUME with `vmcs` as current VMCS. VAPIC_SIL_DONE: in the guest (look at
 * vapic_sil_boundary() first: an exit may be due at once). VAPIC_SIL_INVALID: VMfailValid, the
 * error number is in VMCS field 4400h. VAPIC_SIL_EXIT: failed after the checks, as exit 34 (MSR
 * loading). The host must have memory at the addresses of the controls in use, else the checks
 * fail: on silicon such an access would go astray. [SDM3 28.2.1.1] [owner]
 */
enum vapic_sil_result vapic_sil_vmentry(struct vapic_sil_cpu *cpu, struct vapic_sil_vmcs *vmcs);

/*
 * An exit for a reason that this model does not compute (I/O, CPUID, a page fault of the nested
 * tables elsewhere): host mode, state saved. `code` is an AMD exit code or a basic exit reason.
 * Intel: info1 is the exit qualification, info2 the instruction length; of exits 48 and 49 the
 * guest-physical address. Between VAPIC_SIL_DELIVER and the next boundary or instruction, exits
 * that the delivery of an event can cause (0, 9, 44, 48, 49; AMD: 40h to 5Fh, 7Dh, 7Fh, 400h)
 * carry IDT-vectoring information, EXITINTINFO. [owner]
 */
void vapic_sil_leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2);

/*
 * An instruction boundary in the guest: physical interrupts, doorbells, notifications, evaluation,
 * delivery. VAPIC_SIL_DELIVER: `*vector` goes through the guest's IDT; its ISR bit is set already
 * and guest.interrupt_flag is left to the driver (an interrupt gate clears it). Call again until it
 * says VAPIC_SIL_NOTHING or VAPIC_SIL_EXIT. A halted processor stays halted with
 * VAPIC_SIL_NOTHING. [owner]
 */
enum vapic_sil_result vapic_sil_boundary(struct vapic_sil_cpu *cpu, uint8_t *vector);

/*
 * Would an interrupt be delivered if only the guest opened its window (IF, shadow, GIF)? A driver
 * that runs the guest by other means asks this to know that it must watch for the window. [owner]
 */
bool vapic_sil_waiting(const struct vapic_sil_cpu *cpu);

/*
 * ---- What the guest does. All [owner], all only in the guest ----
 *
 * VAPIC_SIL_INVALID, and nothing has happened: the processor is in host mode or halted, or the
 * access has an impossible size or crosses a page. An MSR that is neither intercepted nor one of
 * those that the processor virtualizes is VAPIC_SIL_NATIVE.
 */

enum vapic_sil_access_kind {
    VAPIC_SIL_READ,
    VAPIC_SIL_WRITE,
    VAPIC_SIL_FETCH,      /* instruction fetch */
    VAPIC_SIL_TABLE_READ, /* by the guest's page walk, not by an instruction */
    VAPIC_SIL_TABLE_WRITE,
    VAPIC_SIL_EVENT_WRITE /* pushing a frame during event delivery */
};

struct vapic_sil_access {
    uint64_t gpa;
    enum vapic_sil_access_kind kind;
    uint8_t size;   /* 1, 2, 4, 8, 16, 32, 64 */
    uint8_t length; /* of the instruction; moves RIP on when it completes */
    bool more;      /* not the last access of this instruction: RIP stays, effects wait */
    bool modify;    /* the read of a read-modify-write: needs, and reports, a write */
    uint64_t value; /* written; or, when DONE, read (sizes above 8: the first 8 bytes) */
};

/*
 * A memory access of the guest, after its own paging. It may hit the APIC page or any other: a
 * page that is not redirected is accessed in host memory. VAPIC_SIL_EXIT: 400h, 401h, 402h; 43,
 * 44, 45, 48, 56.
 */
enum vapic_sil_result vapic_sil_access(struct vapic_sil_cpu *cpu, struct vapic_sil_access *access);

enum vapic_sil_result vapic_sil_rdmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t *value);
enum vapic_sil_result vapic_sil_wrmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t value);
enum vapic_sil_result vapic_sil_read_cr8(struct vapic_sil_cpu *cpu, uint64_t *value);
enum vapic_sil_result vapic_sil_write_cr8(struct vapic_sil_cpu *cpu, uint64_t value);
enum vapic_sil_result vapic_sil_hlt(struct vapic_sil_cpu *cpu);

/* ---- What the host does ---- */

/* WRMSR of the doorbell MSR C001011Bh by software on `cpu`; VAPIC_SIL_DONE or VAPIC_SIL_GP. A
 * doorbell for an ID without a processor has no effect. [APM2 15.29.3.3] [any] */
enum vapic_sil_result vapic_sil_doorbell(struct vapic_sil *m, uint64_t value);

/* A fixed, edge-triggered physical interrupt reaches the processor with this host APIC ID. [any] */
void vapic_sil_interrupt(struct vapic_sil *m, uint32_t apic_id, uint8_t vector);

/* In host mode: acknowledges and ends the highest pending physical interrupt; -1 when there is
 * none. [owner] */
int vapic_sil_take_interrupt(struct vapic_sil_cpu *cpu);

/*
 * Drops this processor's cached translations of the page at `gpa`, whatever their tag (an INVLPGA,
 * INVEPT, or TLB_CONTROL flush that reaches it). The caller makes sure that the processor is not
 * executing guest instructions: a real shoot-down makes it exit first. [any, then]
 */
void vapic_sil_flush(struct vapic_sil_cpu *cpu, uint64_t gpa);

/* ---------------------------------------------------------------------------------------------- */
/* 3. The VMCS                                                                                    */
/* ---------------------------------------------------------------------------------------------- */

/* The fields of one VMCS that take part here; others do not exist in the model. Private. */
struct vapic_sil_vmcs {
    uint64_t field[APICV_VMCS_FIELDS];
};

void vapic_sil_vmcs_init(struct vapic_sil_vmcs *vmcs); /* all zero but for what must be one */

/* VMREAD and VMWRITE by encoding (the high half of a 64-bit field at encoding+1 too). False: no
 * such field. [owner] */
bool vapic_sil_vmread(const struct vapic_sil_vmcs *vmcs, uint32_t encoding, uint64_t *value);
bool vapic_sil_vmwrite(struct vapic_sil_vmcs *vmcs, uint32_t encoding, uint64_t value);

/* ---------------------------------------------------------------------------------------------- */
/* 4. IOMMUs                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

/* What became of a device's message. */
enum vapic_sil_msi {
    VAPIC_SIL_MSI_POSTED,   /* into IRR or PIR, and the processor told if it was to be told */
    VAPIC_SIL_MSI_LOGGED,   /* AMD: posted, and an entry written to the GA log */
    VAPIC_SIL_MSI_REMAPPED, /* a host interrupt: sent to the processors' local APICs */
    VAPIC_SIL_MSI_BLOCKED,  /* entry not valid */
    VAPIC_SIL_MSI_FAULT,    /* illegal pointer or reserved bits: logged as an event, not posted */
};

/* An AMD IOMMU with guest virtual APIC mode. The caller's memory. [init] for all fields but head,
 * tail and overflow. */
struct vapic_sil_amd_iommu {
    struct vapic_sil *machine;
    uint64_t *log;       /* GA log: `entries` entries */
    uint32_t entries;    /* a power of two; 0: no log */
    uint32_t head, tail; /* entry numbers, modulo `entries`; software owns head; atomic */
    uint32_t overflow;   /* status bit 9; atomic; software clears it */
    uint32_t lock;       /* private: writers of the log */
    bool log_interrupt;  /* GAIntEn: raise `log_vector` at `log_dest` for each entry */
    uint32_t log_dest;
    uint8_t log_vector;
};

/*
 * A fixed, edge-triggered message of device `device` through the 128-bit entry at `irte` (16-byte
 * aligned, two atomic words). [any]
 */
enum vapic_sil_msi vapic_sil_amd_msi(struct vapic_sil_amd_iommu *iommu, const uint64_t irte[2],
                                     uint16_t device);

/* The same through a VT-d interrupt remapping table entry in posted or remapped format. [any] */
enum vapic_sil_msi vapic_sil_vtd_msi(struct vapic_sil *m, const uint64_t entry[2], uint16_t source);

#ifdef __cplusplus
}
#endif

#endif
