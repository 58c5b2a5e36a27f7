/* SPDX-License-Identifier: MIT */
/*
 * What svm_loop.c and vmx_loop.c have in common: "hypervisor", that is, what yours has already
 * (threads that sleep and are woken, nested page tables, memory), and the guest that they run. What
 * a vendor's silicon asks for is in the two examples alone.
 *
 * So that they can be compiled and run anywhere, the processors are those of vapic/silicon.h, and
 * the guest is a script per vCPU: vCPU 1 sleeps in HLT, vCPU 0 sends it an IPI and sleeps; vCPU 1
 * answers and sleeps again, and then a device that was assigned to the guest interrupts it. Left
 * out: timers, SMM, nested guests.
 */
#ifndef MODEL_HOST_H
#define MODEL_HOST_H

#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

#include "vapic/accel.h"
#include "vapic/silicon.h"

enum {
    VCPUS = 2,
    PAGE = 4096,
    IPI_VECTOR = 0x51,
    DEVICE_VECTOR = 0x61,
    DEVICE = 0x100,     /* its source-id */
    KICK_VECTOR = 0xF0, /* the host's own: its only purpose is that the processor exits */
};

struct vcpu {
    struct vapic apic; /* first, so that it is 64-byte aligned with the rest */
    struct vapic_accel_vcpu accel;
    uint8_t *page;              /* of registers */
    uint8_t *msrs;              /* AMD: MSR permission map; Intel: MSR bitmap */
    uint8_t *vmcb;              /* AMD */
    struct vapic_sil_vmcs vmcs; /* Intel */
    uint64_t event; /* of an exit during the delivery of an event: to be injected again */
    struct vapic_sil_cpu processor; /* this vCPU's thread is bound to it, and plays it */
    struct vapic_pcpu pcpu;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards `wake` and `interrupted` */
    pthread_cond_t cond;
    bool wake, interrupted;
    unsigned step, interrupts;
    bool done;
};

struct vm {
    struct vapic_vm apics;
    struct vapic_accel accel;
    struct vapic_sil silicon;
    struct vapic_sil_cpu *by_id[VCPUS];
    pthread_mutex_t lock;
    bool page_mapped; /* FEE00000h is in the nested page tables, and leads to `access_page` */
    struct vcpu vcpus[VCPUS];
    alignas(16) uint64_t irte[2];                                /* the device's */
    alignas(PAGE) uint8_t pages[VCPUS][PAGE], access_page[PAGE]; /* one of no content for all */
    alignas(64) uint8_t map[65536];
};

static inline struct vcpu *vcpu_of(struct vapic *v)
{
    return (struct vcpu *)(void *)v;
}

/* Timers are left out: the guest has none. */
static inline struct vapic_now now(void)
{
    return (struct vapic_now){0};
}

/* ---- Callbacks for struct vapic_host ---- */

void host_lock(void *ctx);
void host_unlock(void *ctx);
void host_quiesce(void *ctx);
uint64_t host_physical(void *ctx, const void *memory);
void host_kick_all(void *ctx);
void host_access_page(void *ctx, bool mapped);
void host_spin_lock(void *ctx, uint32_t *word);
void host_spin_unlock(void *ctx, uint32_t *word);

/* Two of the three actions of host.notify(). */
void kick(struct vm *vm, struct vcpu *c);
void wake_up(struct vcpu *c);

/* Until wake_up(): true; or until its processor has interrupts for the host to take: false. */
bool wait_for_wake(struct vcpu *c);

/* ---- The guest ---- */

/* After a VM entry, until the next exit. `stop`: the code of the exit that ends the script. */
void execute_guest(struct vcpu *c, uint64_t stop);

/* The instruction at RIP, by software, and on to the next. */
void emulate(struct vcpu *c);

/* ---- Set-up and end ---- */

/* What an example cannot go on without. */
void check(int result, const char *what);

void create_machine(struct vm *vm, enum vapic_sil_vendor vendor);
/* The processor and the thread's things of vCPU `i`; its APIC is the example's to make. */
struct vcpu *create_processor(struct vm *vm, uint32_t i);
/* The script has no start-up code, so a message stands in for the BSP's INIT and SIPI. */
void start_second(struct vm *vm);
void start_threads(struct vm *vm, void *(*thread)(void *));
/* The exit status of the program: 0 if the guest has taken its three interrupts. */
int finish(struct vm *vm);

#endif
