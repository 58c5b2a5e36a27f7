/* SPDX-License-Identifier: MIT */
/*
 * The machine: guest memory, the vCPUs with their APICs, the I/O APIC, the devices, and what holds
 * them together. It is built once and booted as often as the guest reboots; each boot is a fresh
 * KVM virtual machine, so that nothing of the last one is left, while libvapic's objects are reset.
 *
 * Threads: the thread in vmm_machine_run() builds, waits, joins and rebuilds; one thread per vCPU;
 * the event loop's thread fires device timers and reads the terminal. A request (power off, reset,
 * failure, ...) is one atomic word; the first one wins. Whoever makes it prods every vCPU; vCPU
 * threads leave their loop when they see it.
 *
 * Locks: device lock (dev_env.h) -> libvapic -> configuration lock (`config_lock`, a leaf).
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "accel.h"
#include "accel_disturb.h"
#include "accel_report.h"
#include "dev_all.h"
#include "dev_console.h"
#include "err.h"
#include "evloop.h"
#include "kvm.h"
#include "kvm_vcpu.h"
#include "layout.h"
#include "load.h"
#include "mem.h"
#include "stats.h"
#include "trace.h"
#include "trace_probe.h"
#include "vapic/vapic.h"

#define VMM_APIC_BUS_NS 1u /* the APIC timer counts at 1 GHz before division */

/* IDs 0 to 254: what 8 bits name; 255 is the broadcast. */
#define VMM_XAPIC_CPUS 255u

struct vmm_machine_config {
    struct vmm_blob kernel;
    struct vmm_blob initrd;
    const char *cmdline;
    unsigned cpus;
    uint64_t mem;
    bool x2apic;
    bool tsc_deadline;
    bool pv_eoi;
    bool count;              /* keep the counters that cost something */
    struct vmm_trace *trace; /* NULL: none */
    enum vmm_accel_mode accel;
    uint32_t knobs; /* libvapic's VAPIC_KNOB_ masks, if knobs_set; else what suits the machine */
    bool knobs_set;
    enum vmm_irqchip irqchip;                 /* what the machine boots with */
    uint64_t switch_ns;                       /* so often it becomes the other one; 0: never */
    uint64_t switch_count;                    /* and so many times; 0: without end */
    const struct vmm_disturb_config *disturb; /* NULL: nothing disturbs */
    int in_fd;                                /* the console's; -1: no input */
    int out_fd;
    bool escapes;
};

/* Why a machine stopped. */
enum vmm_want {
    VMM_WANT_NOTHING,
    VMM_WANT_SWITCH, /* to the other irqchip, and on */
    VMM_WANT_RESET,
    VMM_WANT_OFF,
    VMM_WANT_DEBUG_EXIT, /* the code is the exit status */
    VMM_WANT_QUIT,
    VMM_WANT_SIGNAL, /* the code is the signal's number */
    VMM_WANT_FAIL,   /* `failure` says why */
};

struct vmm_machine;

/* The timer of one I/O APIC pin that the guest does not quieten. */
struct vmm_pin_pause {
    struct vmm_machine *machine;
    uint32_t pin;
    struct vmm_timer timer;
};

struct vmm_machine {
    struct vmm_machine_config config;
    struct vmm_kvm kvm;
    struct vmm_kvm_cpu_config cpu_config;
    struct vmm_mem mem;

    struct vapic_vm vm;
    void *vm_memory;
    pthread_mutex_t config_lock;
    struct vapic_ioapic ioapic;
    struct vapic_pin pins[VMM_IOAPIC_PINS];
    struct vmm_pin_pause pauses[VMM_IOAPIC_PINS];
    struct vmm_probes probes;

    struct vmm_accel *accel; /* NULL: none */
    struct vmm_disturb *disturb;

    struct vmm_vcpu *cpu; /* config.cpus of them */
    unsigned cpus_made;
    uint8_t *pages;
    uint64_t (*vectors)[256];
    int vm_fd;
    enum vmm_irqchip irqchip; /* of vm_fd; constant while vCPUs run */
    int wires_fd;             /* KVM's irqchip, where wires lead; -1: libvapic. Device lock */
    bool stuck;               /* a vCPU thread never came back */

    struct vmm_bus ports;
    struct vmm_evloop loop;
    bool loop_made;
    struct vmm_devices devices;
    bool devices_made;
    struct vmm_console console;
    struct vmm_watch signal_watch;
    int signal_fd;

    _Atomic uint64_t want; /* enum vmm_want, and its code in the upper half */
    pthread_mutex_t want_lock;
    pthread_cond_t wanted;
    char failure[1200]; /* guarded by want_lock */

    uint64_t switches;      /* between irqchips */
    uint64_t switch_ns_max; /* the longest */
    uint64_t boots;
    uint64_t boot_ns;      /* when the last one began */
    unsigned quick_faults; /* resets by triple fault in a row, each soon after the boot */
    bool signalled;        /* the event thread's: a signal has asked for the end */
    double seconds;
};

/* How it ended. */
struct vmm_machine_result {
    enum vmm_want why;
    int code;
    bool used_x2apic;
    bool output_lost; /* the console's reader did not take its end */ /* the boot processor was in
                                                                         x2APIC mode at some time */
};

/* Makes a machine; needs nothing but /dev/kvm. NULL with the error set. */
struct vmm_machine *vmm_machine_new(const struct vmm_machine_config *config, struct vmm_err *err);

/* Boots and reboots until the guest or the user ends it. -1: it could not be started. */
int vmm_machine_run(struct vmm_machine *m, struct vmm_machine_result *result, struct vmm_err *err);

/* After the run. The text ends with a newline. */
const char *vmm_machine_failure(const struct vmm_machine *m);
void vmm_machine_stats(struct vmm_machine *m, struct vmm_stats *stats, struct vmm_vcpu_stats *cpu,
                       struct vmm_accel_report *accel);
void vmm_machine_free(struct vmm_machine *m);

/* For the vCPUs and the devices; any thread. */
static inline bool vmm_machine_wants(struct vmm_machine *m)
{
    return atomic_load_explicit(&m->want, memory_order_seq_cst) != 0;
}

void vmm_machine_request(struct vmm_machine *m, enum vmm_want want, int code);

/* The guest cannot go on: ends the machine with `what` and the registers of this vCPU. */
void vmm_machine_fail(struct vmm_machine *m, struct vmm_vcpu *v, const char *what);

/* KVM has refused a change of a wire: an interrupt is lost. Any thread; device lock held or not. */
void vmm_machine_fail_wire(struct vmm_machine *m, unsigned wire, int error);

/* A triple fault: a reset if the guest meant it, else a failure. */
void vmm_machine_triple_fault(struct vmm_machine *m, struct vmm_vcpu *v);

/* A message of a device's; returns how many vCPUs took it, or a negative value. Any thread. */
int vmm_machine_msi(struct vmm_machine *m, uint64_t address, uint32_t data);

/* For switch.c: the KVM side of the machine, of `irqchip`'s kind. Device lock held. */
int vmm_machine_open_vm(struct vmm_machine *m, struct vmm_err *err);
void vmm_machine_close_vm(struct vmm_machine *m);

/* A wire's share of libvapic's I/O APIC. Device lock held. */
void vmm_machine_wire_to_ioapic(struct vmm_machine *m, unsigned wire, bool level);

/* The interrupt acknowledge cycle of the 8259 pair. */
uint8_t vmm_machine_acknowledge_pic(struct vmm_machine *m);

#endif
