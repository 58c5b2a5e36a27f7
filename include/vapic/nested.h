/* SPDX-License-Identifier: MIT */
/*
 * Nested virtualization: the guest (L1) is itself a hypervisor, and its guests (L2) use APICv or
 * AVIC. L0 is the host of this library. Both vendors; nested AVIC and nested IPI virtualization
 * included.
 *
 * Read accel.h first. L0 emulates VMRUN, VMLAUNCH and VMRESUME by itself: checks, guest state,
 * paging, event injection. The library does what concerns APICs: L1's own, which must go on while
 * another guest is on the processor, and L2's, which lives in L1's memory. "01" is the control
 * block that L1 runs on, "12" the one that L1 wrote in its memory, "02" the one that L2 runs on.
 *
 *      once per VM         vapic_nested_init() after vapic_accel_init(), before the first vCPU
 *      once per vCPU       vapic_nested_attach() after vapic_accel_attach(), before vapic_add()
 *      L1 enters L2        checks of L0's own; 02 becomes current; vapic_nested_enter()
 *      run loop            vapic_enter() ... vapic_exit() as ever, and vapic_nested_ran() once;
 *                          vapic_entry.nested says when L2 has to be left for an interrupt of L1's
 *      exits of L2         vapic_nested_avic_exit(), vapic_nested_apicv_exit(): handled, or L1's
 *      L2 is left          vapic_nested_leave() with 02 still current; 01 becomes current;
 *                          vapic_nested_exit()
 *      L1's memory         vapic_nested_written(), vapic_nested_unmap()
 *      scheduler           vapic_load(), vapic_put(), vapic_block(), vapic_unblock() as ever
 *
 * Rules that everything here follows:
 *   - Inhibition is about L1's use of acceleration. What L1 gives to L2 follows from 12 alone.
 *   - Nothing about L1's APIC is ever written into 02, nothing about L2's into 01.
 *   - No other thread ever reads 12: what senders need of it is published before L2 is entered and
 *     withdrawn after it was left.
 *   - Hardware reaches no page by way of L1's tables that is not L1's, and pinned.
 *
 * A host that gives L2 no acceleration needs neither init nor attach: vapic_nested_enter() with a
 * NULL view, vapic_nested_leave() and vapic_nested_exit() are enough. L2's accesses to L1's APIC,
 * where L1 lets them through, are accesses of L1's: vapic_mmio_write(), vapic_msr_write(),
 * vapic_write_cr8() in any state.
 *
 * Saved state: vapic_save_record() holds the nested part too, whatever the strategy;
 * vapic_load_record() leaves a vCPU that was in L2 in state RESTORED.
 *
 * docs/nested.md has the state machines as tables and wires the calls into both vendors' loops.
 */
#ifndef VAPIC_NESTED_H
#define VAPIC_NESTED_H

#include "vapic/accel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------- */
/* 1. What the host provides                                                                      */
/* ---------------------------------------------------------------------------------------------- */

/* A page of L1's memory that stays where it is. */
struct vapic_l1_page {
    void *memory; /* 4 KiB; NULL: not pinned */
    uint64_t hpa; /* host-physical, page aligned */
};

struct vapic_nested_host {
    size_t size; /* sizeof(struct vapic_nested_host), as the host was compiled with it */

    /*
     * Pins the writable RAM page at L1-physical `gpa` (page aligned): it is neither freed, moved
     * nor unmapped until unpin(). False: there is no such page. Pins of a page nest. Called with
     * the configuration lock held, on a vCPU's thread outside the guest. May wait.
     */
    bool (*pin)(void *ctx, uint64_t gpa, struct vapic_l1_page *pin);

    /* The opposite. No processor uses the page any more. Configuration lock held, any thread. Must
     * not wait. */
    void (*unpin)(void *ctx, uint64_t gpa, const struct vapic_l1_page *pin);

    /*
     * From now on (until it is called with false) every write into the page at `gpa`, by any vCPU
     * of L1 and by devices, is followed by vapic_nested_written(), before the writer goes on. A
     * write that came before the return with true need not be told. False: cannot be had.
     * Configuration lock held. May wait. Optional: without it the strategy is DUMMY.
     */
    bool (*track)(void *ctx, uint64_t gpa, bool on);

    /* Intel, in vmcs02, which is current: as host.control() does in vmcs01. Owner's thread. */
    void (*control)(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value);

    /* Intel: the guest interrupt status of vmcs02, which is current. Owner's thread. */
    uint16_t (*interrupt_status)(void *ctx, struct vapic *v);

    /*
     * Which of the MSRs 800h-8FFh pass without an exit while 02 runs: never more than both L1 and
     * the virtualization of L2's registers allow. The other MSRs are the host's business. AMD hosts
     * also clear clean bit 1. Owner's thread. Must not wait.
     */
    void (*intercept)(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass);
};

/* ---------------------------------------------------------------------------------------------- */
/* 2. The VM                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

/* What L1 finds in its CPUID or capability MSRs. What is not offered is refused in 12 as a
 * processor without it would. */
enum vapic_nested_feature {
    VAPIC_NESTED_AVIC = 1u << 0,       /* AMD */
    VAPIC_NESTED_X2AVIC = 1u << 1,     /* needs VAPIC_ACCEL_X2AVIC */
    VAPIC_NESTED_X2AVIC_EXT = 1u << 2, /* needs VAPIC_ACCEL_X2AVIC_EXT */
    VAPIC_NESTED_APICV = 1u << 3,      /* Intel: TPR shadow, APIC accesses, x2APIC, register */
                                       /* virtualization, virtual-interrupt delivery */
    VAPIC_NESTED_POSTED = 1u << 4,     /* posted interrupts; needs APICV */
    VAPIC_NESTED_IPIV = 1u << 5,       /* needs POSTED and VAPIC_ACCEL_IPIV */
};

enum vapic_nested_strategy {
    /* One table of L0's, on which every IPI between L2's vCPUs exits; L0 answers it from L1's
     * tables. No memory of L1's is watched. */
    VAPIC_NESTED_DUMMY,
    /* Each of L1's tables has a shadow that the processor walks: IPIs between running vCPUs of L2
     * need no exit. L1's tables are watched. */
    VAPIC_NESTED_SHADOW,
};

struct vapic_nested_config {
    uint32_t features; /* VAPIC_NESTED_ masks */
    enum vapic_nested_strategy strategy;
    uint32_t tables;  /* SHADOW: how many of L1's tables can have a shadow at once; a vCPU that */
                      /* finds none left runs as with DUMMY */
    uint32_t entries; /* highest last index of one of L1's tables that can be shadowed, plus 1 */
    uint8_t notify_vector; /* Intel: notification vector of vmcs02, none of accel.h's */
};

#define VAPIC_NESTED_BUCKETS 256u

struct vapic_shadow;
struct vapic_shadow_entry;
struct vapic_nested_vcpu;

/* One VM's nested support. The caller's memory; private. */
struct vapic_nested {
    struct vapic_vm *vm;
    struct vapic_nested_host host;
    struct vapic_nested_config config;
    void *scratch; /* AMD: where hardware posts that nobody looks at */
    uint64_t scratch_hpa;
    uint64_t dummy_hpa, dummy_logical_hpa; /* the tables of strategy DUMMY */
    struct vapic_shadow *shadows;          /* config.tables of them */
    uint32_t turn;                         /* of their use */
    uint64_t unmaps;                       /* that have doomed pins; configuration lock */
    uint32_t lock;                         /* host.spin_lock(): the two below, and more */
    struct vapic_shadow_entry *naming[VAPIC_NESTED_BUCKETS]; /* entries by whom they name */
    struct vapic_nested_vcpu *named[VAPIC_NESTED_BUCKETS];   /* who can be named */
};

/*
 * Bytes of page-aligned memory that vapic_nested_init() needs, physically contiguous and
 * write-back: tables of L0's that the hardware walks, and what is known of L1's. `accel` is the
 * VM's configuration. 0: out of range, or features that do not go together. [any]
 */
size_t vapic_nested_memory(const struct vapic_nested_config *config,
                           const struct vapic_accel_config *accel);

/*
 * Before the first vapic_init() of the VM, after vapic_accel_init(). `size` is sizeof(struct
 * vapic_nested). All memory stays in use until vapic_nested_fini(). VAPIC_E_ARG, VAPIC_E_SIZE;
 * VAPIC_E_BUSY: the VM has one. [init]
 */
int vapic_nested_init(struct vapic_nested *nested, size_t size, struct vapic_vm *vm,
                      const struct vapic_nested_config *config,
                      const struct vapic_nested_host *host, void *memory, size_t memory_size);

/* After the last vapic_remove(): unpins and stops watching whatever is left. [config] */
void vapic_nested_fini(struct vapic_nested *nested);

/*
 * L1's memory was written at `gpa` (`size` bytes, visible already) in a page that is tracked.
 * Others are ignored. May take the configuration lock and have vCPUs leave the guest. On the
 * writer's thread, outside the guest. [config]
 */
void vapic_nested_written(struct vapic_vm *vm, uint64_t gpa, uint64_t size);

/*
 * The host is about to unmap, free or replace L1's memory at `gpa` (`size` bytes): after the return
 * no pin is left in it and no processor reaches it through a control block or table of the
 * library's. pin() must fail for it from before the call. vCPUs in L2 that used it find out at
 * their next vapic_enter(), which says VAPIC_NESTED_STOP until there is memory again. Calls
 * host.quiesce(). [config]
 */
void vapic_nested_unmap(struct vapic_vm *vm, uint64_t gpa, uint64_t size);

/* ---------------------------------------------------------------------------------------------- */
/* 3. A vCPU                                                                                      */
/* ---------------------------------------------------------------------------------------------- */

enum vapic_nested_state {
    VAPIC_NESTED_L1,       /* 01 is current */
    VAPIC_NESTED_ENTERING, /* 02 is current; L2 has not been entered yet: nothing may make it exit
                            */
                           /* to L1 before */
    VAPIC_NESTED_L2,       /* 02 is current, and has run */
    VAPIC_NESTED_LEAVING,  /* after vapic_nested_leave() */
    VAPIC_NESTED_RESTORED, /* as ENTERING or L2, but no page of 12 has been looked at yet */
};

struct vapic_nested_vcpu_config {
    void *vmcb02; /* AMD: the VMCB that L2 runs on, 4 KiB, constant until vapic_remove() */
};

/* Between vapic_accel_attach() and vapic_add(). `size` is sizeof(struct vapic_nested_vcpu).
 * VAPIC_E_ARG, VAPIC_E_SIZE. [config] */
int vapic_nested_attach(struct vapic *v, struct vapic_nested_vcpu *nv, size_t size,
                        const struct vapic_nested_vcpu_config *config);

/* [owner] */
enum vapic_nested_state vapic_nested_state(const struct vapic *v);

/* ---------------------------------------------------------------------------------------------- */
/* 4. Into L2 and out again. All of it on the vCPU's thread, outside the guest.                   */
/* ---------------------------------------------------------------------------------------------- */

/* The APIC's part of vmcs12, as L0 has copied it once from L1's memory. Controls that a zero
 * activation bit switches off count as zero. [SDM3 26.6] */
struct vapic_vmcs12 {
    uint32_t pin, primary, secondary, exit;
    uint64_t tertiary;
    uint16_t notification_vector, last_pid_index, interrupt_status;
    uint32_t tpr_threshold;
    uint64_t virtual_apic, apic_access, pid, pid_table; /* L1-physical */
    uint64_t eoi_exit[4];
};

/* 12 as L0 sees it at VMRUN, VMLAUNCH, VMRESUME. Not kept: all that is needed is copied. */
struct vapic_nested_view {
    const void *vmcb12;                /* AMD: L0's copy of L1's VMCB, 4 KiB; or NULL. With AVIC */
                                       /* or without */
    const struct vapic_vmcs12 *vmcs12; /* Intel; or NULL */
    const struct vapic_msr_pass *pass; /* MSRs 800h-8FFh that L1's map or bitmap lets pass, as it */
                                       /* is now; NULL: none */
    bool l1_if;                        /* AMD: L1's RFLAGS.IF at VMRUN */
};

/* What 12 has to hold when L1 is next entered. */
struct vapic_nested_left {
    uint64_t
        int_ctl; /* AMD: V_TPR and, where L2 has no AVIC, V_IRQ as vmcb12 must have them; the */
    uint64_t int_ctl_mask;     /* bits that count */
    uint16_t interrupt_status; /* Intel: of vmcs12, if it has virtual-interrupt delivery */
};

#define VAPIC_NESTED_LOGICAL 64u /* slots of AVIC's logical table that a destination can name */
#define VAPIC_NESTED_PINS    4u /* pages of 12: APIC page, access page, descriptor; logical table */

/* One vCPU's nested support. The caller's memory; the fields are private. */
struct vapic_nested_vcpu {
    /* Intel: in L0's memory, what vmcs02 and shadow tables name */
    struct vapic_pid posted __attribute__((aligned(64)));
    struct vapic *v;
    uint64_t posted_hpa;
    void *vmcb02;
    uint32_t state;   /* enum vapic_nested_state; owner writes, any thread reads */
    uint32_t pending; /* Intel: a notification for L2 has been latched; atomic */
    uint32_t named;   /* Intel: shadow tables lead to `posted`; owner writes, any thread reads */
    uint32_t again;   /* pages or tables of 12 have changed: look before the next entry; atomic */
    bool virtualized; /* 12 virtualizes L2's APIC in some way: the rest holds */
    bool ran;         /* RESTORED: L2 had been entered */
    bool l1_if;       /* as in the view */
    bool can_irq;     /* owner, in L2: an interrupt of L2's own would end HLT */
    bool started;     /* 02's RVI, SVI, V_TPR are its own, no longer what 12 says */
    bool mapped;      /* the pages of 12 are pinned, and 02 names them */
    struct vapic_vmcs12 vmcs12;
    struct {
        uint64_t int_ctl, bar, backing, logical, physical;
        uint32_t intercept3;
        bool nested_paging;
    } vmcb12;
    struct vapic_msr_pass pass;
    struct { /* what host.intercept() was told last */
        bool valid;
        struct vapic_msr_pass pass;
    } told;
    bool window; /* the last entry in L2 asked for an interrupt window: V_IRQ of 02 is the host's */
    uint32_t idled; /* AMD, at the last entry: vapic_shadow.idled, and the logical table */
    uint32_t logical_seen[VAPIC_NESTED_LOGICAL];
    uint64_t table;              /* L1-physical address of the table in use */
    struct vapic_shadow *shadow; /* and its shadow; NULL: the dummy. Configuration lock */
    /* Under vapic_nested.lock: */
    uint64_t key;   /* by which entries of L1's tables name it */
    uint32_t where; /* host APIC ID + 1 where it is loaded; 0: nowhere */
    struct vapic_nested_vcpu *next_named;
    struct {
        uint64_t gpa;
        struct vapic_l1_page pin;
        uint64_t doomed;       /* by which vapic_nested_unmap(), which waits for its end; 0: none */
    } pins[VAPIC_NESTED_PINS]; /* changed under the configuration lock; the owner reads without */
};

/*
 * L1 -> ENTERING. L0 has made its own checks and 02 is current. Checks the APIC's part of 12, pins
 * its pages, and writes the APIC's part of 02: controls, addresses, permissions, guest interrupt
 * status. A NULL `view` stands for an L2 without any virtualization of APICs. From now on messages
 * for L1 make L2 exit, and messages for L2 find it.
 *
 * AMD: call it after L0 has merged the intercepts of 12 into 02. What it writes there: int_ctl bits
 * 31, 30 (as 12 has them), 24 (always set) and V_TPR; V_IRQ, V_INTR_PRIO, V_IGN_TPR and the vector
 * (L2's own without AVIC, zero with it); 098h, 0E0h, 0F0h, 0F8h; TLB_CONTROL, which it raises where
 * translations of L2's APIC page have become wrong; intercepts of CR8, which it adds where L2's CR8
 * is the TPR of L1's APIC; clean bits. A host that opens an interrupt window in L2
 * (vapic_entry.irq_window) may use V_IRQ for it: the next vapic_enter() puts L2's own back. With
 * AVIC in 12 the processor ignores V_IRQ; the host then steps through L2, or looks again soon. (It
 * comes to that only with an L1 that does not intercept INTR, or leaves V_INTR_MASKING clear.)
 * L2's accesses to x2APIC MSRs that exit although L1 lets them pass: #GP where 12 has x2AVIC, else
 * they are accesses to L1's APIC.
 *
 *   VAPIC_E_CONTROLS   12 fails a check that a processor makes [APM2 15.29.4.1] [SDM3 28.2.1.1]:
 *                      VMEXIT_INVALID, VM-instruction error 7
 *   VAPIC_E_MEMORY     12 names memory that L1 does not have
 *
 * After an error the state is L1, and 02's APIC part is undefined. [owner]
 */
int vapic_nested_enter(struct vapic *v, const struct vapic_nested_view *view);

/*
 * L1 -> RESTORED: user space puts a vCPU straight into L2, perhaps right after its creation and
 * before its memory is there. No memory of L1's is touched, and nothing is written into 02: the
 * first vapic_enter(), with 02 current, does all of that, and goes on to ENTERING or, when L2 `ran`
 * before, to L2. VAPIC_E_ARG, VAPIC_E_CONTROLS (only checks that need no memory). [owner]
 */
int vapic_nested_restore(struct vapic *v, const struct vapic_nested_view *view, bool ran);

/*
 * ENTERING -> L2: the processor has entered L2 and has come back, whatever for. After vapic_exit().
 * In another state nothing happens. [owner]
 */
void vapic_nested_ran(struct vapic *v);

/*
 * ENTERING or L2 -> LEAVING, with 02 still current. Messages for L2 wait in L1's memory from now
 * on; *left is what 12 must be given. [owner]
 */
void vapic_nested_leave(struct vapic *v, struct vapic_nested_left *left);

/*
 * LEAVING -> L1, with 01 current: writes whatever L1's control block should hold by now. [owner]
 */
void vapic_nested_exit(struct vapic *v);

/*
 * Any state -> L1 without a word to L1: reset, VMX or SVM switched off, user space loads a state
 * that is not nested. 01 is current. [owner]
 */
void vapic_nested_abandon(struct vapic *v);

/*
 * Intel, after vapic_nested_exit() for an external interrupt when vmcs12 has "acknowledge interrupt
 * on exit": acknowledges L1's highest vector (IRR to ISR, and SVI of vmcs01) for the
 * interruption-information field of vmcs12. VAPIC_NESTED_EXTINT: an ExtINT goes first, its vector
 * is the 8259's; -1: nothing waits any more. [SDM3 29.2.2] [owner]
 */
#define VAPIC_NESTED_EXTINT 256
int vapic_nested_acknowledge(struct vapic *v);

/* ---------------------------------------------------------------------------------------------- */
/* 5. Exits of L2, instructions of L1                                                             */
/* ---------------------------------------------------------------------------------------------- */

/* An exit that L1 has to see. */
struct vapic_reflect {
    uint64_t code;         /* #VMEXIT code, or basic exit reason */
    uint64_t info1, info2; /* EXITINFO1 and 2; or the qualification in info1 */
};

/*
 * #VMEXIT 401h or 402h of L2, or VM exit 43, 44, 45, 56. After vapic_exit(). VAPIC_OK: L1 need not
 * know, enter L2 again; VAPIC_REFLECT: *reflect goes to L1; VAPIC_E_MEMORY: L1's tables name memory
 * that cannot be had any more: stop to user space, and ask again; VAPIC_E_ARG: not such an exit.
 * 401h may take the configuration lock, and calls host.notify() with it held. [owner]
 */
int vapic_nested_avic_exit(struct vapic *v, uint64_t code, uint64_t info1, uint64_t info2,
                           struct vapic_reflect *reflect);
int vapic_nested_apicv_exit(struct vapic *v, uint32_t reason, uint64_t qualification,
                            struct vapic_reflect *reflect);

/*
 * AMD: L1 executes WRMSR C001011Bh. VAPIC_OK; VAPIC_GP: reserved bits, or AVIC is not offered.
 * Rings, wakes (host.notify()), or does nothing where nothing is needed. [APM2 15.29.3.3] [owner]
 */
int vapic_nested_doorbell(struct vapic *v, uint64_t value);

#ifdef __cplusplus
}
#endif

#endif
