/* SPDX-License-Identifier: MIT */
/*
 * How a hypervisor embeds libvapic: a small run loop in which every call has its place. Left out,
 * and said where: timers, NMI, windows.
 *
 * Everything marked "hypervisor" is what yours already has: threads, a way to run a guest, a kick,
 * a clock. So that this file can be compiled and run anywhere, its guest is not a processor but a
 * short script per vCPU, and a "VM entry" performs one step of it. vCPU 0 sends vCPU 1 an IPI,
 * which wakes it from HLT, and vCPU 1 answers; then both stop. docs/embedding.md explains it call
 * by call.
 */
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "vapic/vapic.h"

enum { VCPUS = 2, VECTOR = 0x51 };

/* ---- hypervisor: a vCPU ---- */

struct vcpu {
    struct vapic apic; /* first, so that it is 64-byte aligned with the rest */
    struct vm *vm;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards `wake` */
    pthread_cond_t cond;
    bool wake;
    atomic_bool kicked; /* what a signal or an inter-processor interrupt is to a real one */
    bool interrupts_enabled;
    unsigned step, interrupts;
};

struct vm {
    struct vapic_vm apics;
    pthread_mutex_t lock;
    struct vcpu vcpus[VCPUS];
};

static struct vm the_vm;
static alignas(4096) unsigned char pages[VCPUS][4096]; /* the register pages */
static alignas(64) unsigned char map[65536];           /* the destination map */

static struct vcpu *vcpu_of(struct vapic *v)
{
    return (struct vcpu *)(void *)v;
}

static struct vapic_now now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (struct vapic_now){.ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec};
}

/* ---- The callbacks: struct vapic_host ---- */

static void host_lock(void *ctx)
{
    pthread_mutex_lock(&((struct vm *)ctx)->lock);
}

static void host_unlock(void *ctx)
{
    pthread_mutex_unlock(&((struct vm *)ctx)->lock);
}

/* This VM never removes a vCPU while others run, so there is nobody to wait for. */
static void host_quiesce(void *ctx)
{
    (void)ctx;
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct vcpu *c = vcpu_of(target);

    (void)ctx;
    if (action == VAPIC_ACTION_KICK) {
        atomic_store(&c->kicked, true);
        return;
    }
    pthread_mutex_lock(&c->mutex);
    c->wake = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

static const struct vapic_host host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
};

/* ---- The guest: what the script of a vCPU does next; false: power off ---- */

static void write_register(struct vcpu *c, uint32_t offset, uint32_t value)
{
    /* A real hypervisor comes here from an MMIO exit for which vapic_mmio_claims() was true. */
    vapic_mmio_write(&c->apic, offset, &value, sizeof(value), now());
}

static void send_ipi(struct vcpu *c, uint32_t id)
{
    write_register(c, APIC_ICR2, id << 24);
    write_register(c, APIC_ICR, VECTOR | APIC_ICR_ASSERT);
}

static atomic_bool guest_ready; /* vCPU 1 has enabled its APIC */

static bool guest_step(struct vcpu *c)
{
    uint32_t id = vapic_id(&c->apic);

    switch (c->step++) {
    case 0:
        write_register(c, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
        return true;
    case 1:
        /* The guest's own business: a vCPU whose APIC is not enabled yet takes no interrupt. */
        if (id == 0 && !atomic_load(&guest_ready)) {
            c->step--;
            return true;
        }
        if (id == 0)
            send_ipi(c, 1);
        atomic_store(&guest_ready, true);
        return true;
    case 2:
        c->interrupts_enabled = true; /* STI; HLT: the other's interrupt cannot come in between */
        vapic_halt(&c->apic);
        return true;
    default:
        write_register(c, APIC_EOI, 0);
        if (id == 1)
            send_ipi(c, 0);
        return false;
    }
}

/* ---- hypervisor: the run loop ---- */

/* Injects what the library chose. False: nothing was injected, so nothing is to be committed. */
static bool inject(struct vcpu *c, const struct vapic_entry *entry)
{
    if (entry->inject != VAPIC_INJECT_VECTOR)
        return false; /* NMI, SMI and ExtINT have their own fields in a VMCB or VMCS */
    printf("vCPU %u takes vector %#x\n", vapic_id(&c->apic), entry->vector);
    c->interrupts++;
    return true;
}

static void sleep_until_woken(struct vcpu *c)
{
    if (vapic_block(&c->apic)) {
        pthread_mutex_lock(&c->mutex);
        while (!c->wake) /* a real one also waits for entry.deadline */
            pthread_cond_wait(&c->cond, &c->mutex);
        c->wake = false;
        pthread_mutex_unlock(&c->mutex);
    }
    vapic_unblock(&c->apic);
}

/* One turn: 1 look, 2 inject and commit, 3 run the guest, 4 tell the library of the exit. */
static bool turn(struct vcpu *c)
{
    uint32_t can = VAPIC_CAN_NMI | VAPIC_CAN_INIT;
    struct vapic_entry entry;
    bool alive = true, entered;

    if (c->interrupts_enabled)
        can |= VAPIC_CAN_IRQ | VAPIC_IF;
    vapic_enter(&c->apic, can, now(), &entry);
    if (entry.event != VAPIC_CPU_NONE)
        return true; /* a real one sets the registers for INIT or SIPI here, then looks again */
    if (!entry.runnable) {
        sleep_until_woken(c);
        return true;
    }
    if (inject(c, &entry))
        vapic_commit(&c->apic, &entry);
    /* A kick that arrived since vapic_enter() must prevent the entry. */
    entered = !atomic_exchange(&c->kicked, false);
    if (entered)
        alive = guest_step(c);
    /* Without an entry what was committed waits in the injection slot still. */
    vapic_exit(&c->apic, entry.cr8, entered);
    return alive;
}

static void *vcpu_thread(void *arg)
{
    while (turn(arg))
        ;
    return NULL;
}

/* ---- Set-up ---- */

static void check(int result, const char *what)
{
    if (result == VAPIC_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, vapic_result_text(result));
    exit(1);
}

static void create(struct vm *vm)
{
    struct vapic_vm_config config = {.max_vcpus = VCPUS};

    /* A hypervisor would allocate vapic_vm_memory(&config) bytes; this one checks that they fit. */
    pthread_mutex_init(&vm->lock, NULL);
    check(vapic_vm_init(&vm->apics, sizeof(vm->apics), &config, &host, vm, map, sizeof(map)),
          "vapic_vm_init");
    for (uint32_t i = 0; i < VCPUS; i++) {
        struct vcpu *c = &vm->vcpus[i];
        struct vapic_config apic = {.id = i, .bsp = i == 0};

        c->vm = vm;
        pthread_mutex_init(&c->mutex, NULL);
        pthread_cond_init(&c->cond, NULL);
        check(vapic_init(&c->apic, sizeof(c->apic), &vm->apics, &apic, pages[i]), "vapic_init");
        check(vapic_add(&c->apic), "vapic_add");
    }
}

/* The script has no start-up code, so a message stands in for the BSP's INIT and SIPI. */
static void start_second(struct vm *vm)
{
    uint32_t can = VAPIC_CAN_INIT;
    struct vapic_entry entry;

    vapic_send(&vm->apics, (struct vapic_msg){.icr = APIC_DM_SIPI | APIC_ICR_ASSERT | 0x10,
                                              .dest = 1,
                                              .source = VAPIC_FROM_DEVICE});
    vapic_enter(&vm->vcpus[1].apic, can, now(), &entry);
    vapic_exit(&vm->vcpus[1].apic, 0, true);
}

int main(void)
{
    struct vm *vm = &the_vm;
    unsigned taken = 0;

    create(vm);
    start_second(vm);
    for (uint32_t i = VCPUS; i-- > 0;)
        pthread_create(&vm->vcpus[i].thread, NULL, vcpu_thread, &vm->vcpus[i]);
    for (uint32_t i = 0; i < VCPUS; i++) {
        pthread_join(vm->vcpus[i].thread, NULL);
        taken += vm->vcpus[i].interrupts;
    }
    printf("%u interrupts taken\n", taken);
    return taken == 2 ? 0 : 1;
}
