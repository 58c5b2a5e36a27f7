/* SPDX-License-Identifier: MIT */
/*
 * Modelled hardware acceleration of a machine: which processor is modelled, its memory, its logical
 * processors, and what each vCPU has of its own (VMCB or VMCS, permission map).
 *
 *   accel.c           modes; building and taking apart; vCPUs on modelled processors
 *   accel_host.c      what libvapic and the silicon model call
 *   accel_run.c       the loop of a vCPU's thread while its model is in the guest
 *   accel_exit.c      what the guest does there: registers, HLT, exits
 *   accel_hpa.c       addresses of the modelled memory
 *   accel_timeline.c  when which reason inhibited acceleration
 *   accel_report.c    counters as text and JSON
 *   accel_disturb.c   scripted disturbances
 *
 * KVM runs the guest without an interrupt controller, so the hardware does not exist. Each vCPU
 * thread therefore drives a modelled processor along with KVM's: vapic_enter() -> VMRUN or VMENTRY
 * of the model -> the guest runs under KVM; every access to the APIC that KVM reports is done by
 * the model -> only when the model leaves its guest mode, vapic_exit() and the library's handlers.
 * KVM exits in between are the price of the emulation and count as nothing in vmm_accel_counts.
 *
 * What KVM does not report is not seen: CR8 is compared after every exit, which gives a lower
 * bound of its writes; CPUID and other instructions that KVM handles by itself are not counted.
 */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "accel_counts.h"
#include "accel_hpa.h"
#include "accel_timeline.h"
#include "err.h"
#include "vapic/accel.h"
#include "vapic/silicon.h"

struct vmm_machine;
struct vmm_vcpu;

enum vmm_accel_mode {
    VMM_ACCEL_NONE,
    VMM_ACCEL_AVIC,
    VMM_ACCEL_AVIC_NOIPIV,
    VMM_ACCEL_X2AVIC,
    VMM_ACCEL_APICV,
    VMM_ACCEL_APICV_IPIV,
    VMM_ACCEL_MODES
};

/* "none", "avic", ...; NULL-terminated, by enumerator. */
extern const char *const vmm_accel_names[];

/* The mode that models the processor of this host, VMM_ACCEL_NONE when it has no acceleration.
 * `why` says what decided, in one phrase. */
enum vmm_accel_mode vmm_accel_host_mode(char *why, size_t size);

/* The host's /proc/cpuinfo, CPUID 8000000A:EDX and 1:EAX decide; apart so that a test can ask. */
enum vmm_accel_mode vmm_accel_judge_host(const char *cpuinfo, uint32_t svm_edx, uint32_t signature);

/* Does a change of this reason do anything on this hardware? */
bool vmm_accel_honours(enum vmm_accel_mode mode, enum vapic_inhibit reason);

/* A modelled processor. Driven by one thread at a time, or by none. */
struct vmm_accel_pcpu {
    struct vapic_sil_cpu sil;
    struct vapic_pcpu pcpu;
    _Atomic(struct vmm_vcpu *) driver; /* any thread reads */
    pthread_mutex_t flushing;          /* one at a time drops translations; a leaf */
};

/* One machine's. Constant after the build unless it says otherwise. */
struct vmm_accel {
    enum vmm_accel_mode mode;
    bool intel;
    struct vmm_hpa hpa;
    struct vapic_accel lib;
    struct vapic_sil silicon;
    struct vapic_sil_cpu **sil_cpus; /* by host APIC ID */
    struct vmm_accel_pcpu *pcpus;
    unsigned pcpu_count;
    pthread_mutex_t free_lock;
    struct vmm_accel_pcpu **free; /* those that nobody drives; free_lock */
    unsigned free_count;          /* free_lock */
    uint8_t *arena;
    uint64_t arena_size;
    uint64_t scratch_hpa;     /* what the APIC access page maps to */
    _Atomic bool page_mapped; /* written under the configuration lock */
    struct vmm_accel_vcpu *vcpus;
    struct vmm_timeline timeline;
    uint32_t *boot_masks; /* inhibitions after each reboot; the machine's thread */
    unsigned boot_mask_count;
};

/* One vCPU's. The thread's own unless it says otherwise. */
struct vmm_accel_vcpu {
    struct vapic_accel_vcpu lib;
    struct vmm_accel_pcpu *on; /* what it drives; NULL: its thread does not run */
    uint8_t *vmcb;             /* AMD */
    uint64_t vmcb_hpa;
    struct vapic_sil_vmcs vmcs; /* Intel */
    uint8_t *map;               /* MSR permission map, or MSR bitmap */
    uint64_t ticks[2];          /* the processor's counts of doorbells, notifications at entry */
    uint8_t cr8;                /* the guest's, as KVM was last told or told us */
    bool window;                /* vapic_enter() asked for an interrupt window */
    bool watch;                 /* KVM shall exit when the window opens */
    bool moved;                 /* to another processor since the last entry */
    _Atomic bool leave;         /* any thread: the next boundary is an exit */
    _Atomic bool running;       /* any thread reads: in the loop, a signal is needed to be seen */
    _Atomic bool move;          /* any thread: go to another processor */
    _Atomic uint32_t outside;   /* any thread reads: counts the model's exits */
    uint32_t kick_mark;         /* `outside` at the beginning of kick_all(); configuration lock */
    struct vmm_accel_counts counts;
};

#define VMM_ACCEL_NOTIFY_VECTOR 0xf2u
#define VMM_ACCEL_WAKEUP_VECTOR 0xf1u

/* ---- accel.c: building ---- */

/* After vapic_vm_init(), before the first vCPU; `spare` processors more than vCPUs. */
int vmm_accel_make(struct vmm_machine *m, enum vmm_accel_mode mode, unsigned spare,
                   struct vmm_err *err);
/* Between vapic_init() and vapic_add() of vCPU `v`. */
int vmm_accel_attach(struct vmm_vcpu *v, struct vmm_err *err);
/* After vapic_remove() of all vCPUs. */
void vmm_accel_free(struct vmm_machine *m);
/* All vCPUs have been reset: notes the inhibitions that are left. */
void vmm_accel_rebooted(struct vmm_machine *m);

/* ---- accel.c: a vCPU and its processor; on its thread, outside the guest ---- */

void vmm_accel_begin(struct vmm_vcpu *v);
void vmm_accel_end(struct vmm_vcpu *v);
/* The vCPU does not count as being in the guest any more. The model is not. */
void vmm_accel_step_out(struct vmm_vcpu *v);
/* Between two entries: takes the processor's interrupts, and another processor if it is told to. */
void vmm_accel_host_mode_work(struct vmm_vcpu *v);

/* ---- accel_host.c ---- */

struct vapic_host;

/* Fills in the callbacks that only VMs with acceleration need. */
void vmm_accel_fill_host(struct vapic_host *host);
extern const struct vapic_sil_host vmm_accel_sil_host;
/* The processor forgets where the APIC page is. It is not in the guest. Any thread. */
void vmm_accel_flush(struct vmm_accel_pcpu *p);
/* VAPIC_ACTION_DOORBELL for `v`. Any thread. */
void vmm_accel_doorbell(struct vmm_vcpu *v);

/* ---- accel_run.c ---- */

/* Enters the guest with the model; returns when the model has left it and vapic_exit() was called.
 */
void vmm_accel_run(struct vmm_vcpu *v, const struct vapic_entry *entry);
/* The guest's CR8, whoever has it. */
uint8_t vmm_accel_cr8(const struct vmm_vcpu *v);
bool vmm_accel_in_guest(const struct vmm_vcpu *v);

/* ---- accel_exit.c ---- */

/* The model leaves the guest for something that it does not compute. Nothing if it is outside. */
void vmm_accel_leave(struct vmm_vcpu *v, enum vmm_accel_exit why);
/* The model has left by itself: counts, vapic_exit(), handler. Returns an enum vapic_result. */
int vmm_accel_exited(struct vmm_vcpu *v);
/*
 * What the guest does. True: done, `data`, `value` or *fault is the outcome; false: the model is
 * outside the guest and nothing has happened yet: emulate it.
 */
bool vmm_accel_mmio(struct vmm_vcpu *v, uint32_t offset, void *data, uint32_t len, bool write);
bool vmm_accel_rdmsr(struct vmm_vcpu *v, uint32_t msr, uint64_t *value, bool *fault);
bool vmm_accel_wrmsr(struct vmm_vcpu *v, uint32_t msr, uint64_t value, bool *fault);
/*
 * Before an exit of KVM's is handled. If the model has left the guest already (for a CR8 write that
 * came before, or an earlier part of the same instruction), a processor would have entered again
 * and left once more: counts that.
 */
void vmm_accel_between(struct vmm_vcpu *v);
/* The guest's HLT: the model is outside the guest afterwards. */
void vmm_accel_hlt(struct vmm_vcpu *v);
/* CR8 after a KVM_RUN. */
void vmm_accel_cr8_now(struct vmm_vcpu *v, uint8_t cr8);

#endif
