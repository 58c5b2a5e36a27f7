/* SPDX-License-Identifier: MIT */
/*
 * One virtual processor: its local APIC from libvapic, its KVM descriptor, its thread and the run
 * loop. Files kvm_vcpu.c (loop, kicks, sleeping), kvm_exit.c (what an exit asks for), kvm_clock.c
 * (time), and kvm_inkernel.c (the much shorter loop of a machine whose APICs are KVM's own).
 * Created and joined by the machine.
 *
 * Who touches what: a field is the vCPU thread's own unless it says otherwise.
 *
 * The loop. Before each entry vapic_enter() says what to inject, whether the processor runs at
 * all, and until when. From that call on whoever posts an interrupt kicks this thread: a signal
 * whose handler sets run->immediate_exit, so that a kick is seen whether it comes before, in or
 * after KVM_RUN. A processor that does not run sleeps on the futex `wake`.
 *
 * Time. The APIC timer has no thread: a POSIX timer sends the kick at the deadline, whether the
 * vCPU runs or sleeps, and a sleeper whose timer is set for something else has a time-out. No lock
 * is shared between vCPUs, and no other thread must run first for a timer interrupt to arrive.
 */
#ifndef VMM_KVM_VCPU_H
#define VMM_KVM_VCPU_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "accel.h"
#include "kvm.h"
#include "stats.h"
#include "vapic/pv.h"
#include "vapic/vapic.h"

struct vmm_machine;

struct vmm_vcpu {
    struct vapic apic;  /* by the rules of libvapic */
    struct vapic_pv pv; /* likewise */

    struct vmm_machine *machine;  /* constant */
    unsigned index;               /* constant; also the APIC ID */
    uint8_t *page;                /* the APIC's register page; constant */
    struct vmm_accel_vcpu *accel; /* its share of the modelled hardware; NULL: none */

    int fd;
    struct kvm_run *run; /* immediate_exit: also its own signal handler */
    struct vmm_kvm_regs initial;
    struct kvm_regs before; /* general registers at the last exit */

    pthread_t thread;
    bool joinable;         /* the machine's */
    _Atomic pid_t tid;     /* 0 while there is no thread; any thread reads */
    _Atomic uint32_t wake; /* futex; 1: look again */

    bool irq_ready;      /* KVM's injection slot is free and the guest takes interrupts */
    bool interrupt_flag; /* RFLAGS.IF */
    bool held;           /* an interrupt waits for the HLT after STI; see kvm_shadow.c */
    bool incomplete;     /* KVM still has to finish the instruction that exited */
    bool nmi_given;      /* an NMI was given to KVM, and may still be in service */
    bool nmi_masked;     /* halted in an NMI handler: a further NMI does not end the halt */
    bool ever_x2apic;

    /* kvm_clock.c */
    uint32_t tsc_khz;
    uint64_t tsc_ref; /* guest TSC at ns_ref */
    uint64_t ns_ref;
    struct vapic_deadline deadline; /* what vapic_enter() said last */
    timer_t timer;
    bool timer_made;
    uint64_t armed_when;          /* the deadline that the timer is set for, with... */
    _Atomic uint32_t armed_clock; /* ...its clock; its signal's handler says none */

    struct vmm_vcpu_stats stats;
};

/* Once per process: the handler of the kick signal. */
int vmm_vcpu_install_kick(void);

/* A new KVM vCPU with its registers, CPUID and APIC base; `vm_fd` is the machine's. */
int vmm_vcpu_open(struct vmm_vcpu *v, int vm_fd, struct vmm_err *err);
void vmm_vcpu_close(struct vmm_vcpu *v);

/* The thread's function: runs the guest until the machine wants it to stop. `arg` is the vCPU. */
void *vmm_vcpu_thread(void *arg);

/* kvm_inkernel.c: the same for a machine whose APICs are KVM's own. */
void *vmm_vcpu_thread_inkernel(void *arg);

/* Every thread function begins and ends with these: who gets the kicks. */
void vmm_vcpu_begin(struct vmm_vcpu *v);
void vmm_vcpu_end(struct vmm_vcpu *v);

/* Makes the vCPU look at its APIC and at the machine's request; see enum vapic_action. Any thread.
 */
void vmm_vcpu_act(struct vmm_vcpu *v, enum vapic_action action);

/* The same when nothing is known of what it does. Any thread. */
void vmm_vcpu_prod(struct vmm_vcpu *v);

/* For accel_*.c: ends a KVM_RUN, or a sleep, without any meaning of its own. Any thread. */
void vmm_vcpu_interrupt(struct vmm_vcpu *v);
void vmm_vcpu_wake(struct vmm_vcpu *v);

/* The vCPU whose thread this is; NULL on other threads. */
struct vmm_vcpu *vmm_vcpu_current(void);

/* Gives KVM a vector. Only with v->irq_ready. */
void vmm_vcpu_queue_interrupt(struct vmm_vcpu *v, uint8_t vector);

/* A KVM_RUN that may enter the guest; returns what ioctl() does. */
int vmm_vcpu_run(struct vmm_vcpu *v, uint8_t cr8, bool watch_window);

/* kvm_exit.c: handles the exit that run->exit_reason tells. */
void vmm_vcpu_exit(struct vmm_vcpu *v);

/* Lets KVM finish the instruction of the last exit, without entering the guest. */
void vmm_vcpu_finish(struct vmm_vcpu *v);

/* Does what vapic_enter() said with INIT or SIPI. */
void vmm_vcpu_event(struct vmm_vcpu *v, const struct vapic_entry *entry);

/* kvm_shadow.c: must an interrupt wait, because the guest stands between STI and HLT? */
bool vmm_shadow_before_hlt(const struct vmm_vcpu *v);

/* kvm_clock.c; false: the host gives no timer. */
bool vmm_clock_start(struct vmm_vcpu *v);
void vmm_clock_stop(struct vmm_vcpu *v);
struct vapic_now vmm_clock_now(struct vmm_vcpu *v);
struct vapic_now vmm_clock_now_fresh(struct vmm_vcpu *v); /* to arm a deadline by */
struct vapic_now vmm_clock_now_exact(struct vmm_vcpu *v); /* to know that one has come */
/* The deadline as CLOCK_MONOTONIC nanoseconds, 0 for none. */
uint64_t vmm_clock_deadline_ns(struct vmm_vcpu *v, struct vapic_now now);
/* Is the kick at v->deadline arranged for? Then a sleeper needs no time-out of its own. */
bool vmm_clock_armed(const struct vmm_vcpu *v);
/* Arranges for it. */
void vmm_clock_arm(struct vmm_vcpu *v, struct vapic_now now);

/*
 * Kicks are an ordinary signal: a real-time one would be refused when the user's queue of signals
 * is full, and a kick is not repeated. A timer's signal has its place in the queue from its
 * creation.
 */
#define VMM_KICK_SIGNAL  SIGUSR1
#define VMM_TIMER_SIGNAL SIGRTMIN

#endif
