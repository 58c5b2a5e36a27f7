/* SPDX-License-Identifier: MIT */
/*
 * What libvapic asks of a host with acceleration, and the silicon model of what surrounds it, on
 * the modelled machine; see accel.h. Two parties that know nothing of each other meet here: an
 * address that the library got from physical() comes back from the model's memory().
 */
#include <sched.h>
#include <time.h>

#include "accel.h"
#include "machine.h"
#include "vapic/arch/atomic.h"

#define SPINS    64u /* so often the processor is given away before sleeping */
#define PAUSE_NS 20000L

static struct vmm_vcpu *vcpu_of(struct vapic *v)
{
    return (struct vmm_vcpu *)v; /* the APIC is its vCPU's first member */
}

/* ---------------------------------------------------------------------------------------------- */
/* For libvapic                                                                                   */
/* ---------------------------------------------------------------------------------------------- */

static uint64_t host_physical(void *ctx, const void *memory)
{
    struct vmm_machine *m = ctx;

    return vmm_hpa_of(&m->accel->hpa, memory);
}

static bool still_inside(struct vmm_vcpu *v, uint32_t outside)
{
    return vapic_in_guest(&v->apic) && atomic_load(&v->accel->outside) == outside;
}

/* A thread of the guest holds no lock while it is inside, so that it comes out by itself. */
static void wait_outside(struct vmm_vcpu *v, uint32_t outside)
{
    static const struct timespec pause = {0, PAUSE_NS};

    for (unsigned i = 0; still_inside(v, outside); i++) {
        if (i < SPINS) {
            sched_yield();
        } else {
            nanosleep(&pause, NULL);
        }
    }
}

static void host_kick_all(void *ctx)
{
    struct vmm_machine *m = ctx;

    for (unsigned i = 0; i < m->cpus_made; i++) {
        struct vmm_vcpu *v = &m->cpu[i];
        struct vmm_accel_vcpu *a = v->accel;

        a->kick_mark = atomic_load(&a->outside);
        if (vapic_in_guest(&v->apic)) {
            vmm_vcpu_act(v, VAPIC_ACTION_KICK);
        }
    }
    for (unsigned i = 0; i < m->cpus_made; i++) {
        wait_outside(&m->cpu[i], m->cpu[i].accel->kick_mark);
    }
}

/* A vCPU that moves and one that withdraws the page may meet at a processor. */
void vmm_accel_flush(struct vmm_accel_pcpu *p)
{
    pthread_mutex_lock(&p->flushing);
    vapic_sil_flush(&p->sil, VMM_LAPIC_BASE);
    pthread_mutex_unlock(&p->flushing);
}

/* No vCPU is in the guest when the page goes, and none gets there before this returns: both are
 * the library's promise, so that the processors' translations may be touched from here. */
static void host_access_page(void *ctx, bool mapped)
{
    struct vmm_machine *m = ctx;

    atomic_store(&m->accel->page_mapped, mapped);
    for (unsigned i = 0; i < m->accel->pcpu_count && !mapped; i++) {
        vmm_accel_flush(&m->accel->pcpus[i]);
    }
}

static void host_flush(void *ctx, struct vapic *v)
{
    struct vmm_accel_pcpu *on = vcpu_of(v)->accel->on;

    (void)ctx;
    if (on != NULL) {
        vmm_accel_flush(on);
    }
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    struct vmm_machine *m = ctx;
    struct vmm_accel_vcpu *a = vcpu_of(v)->accel;

    if (m->accel->intel) {
        vapic_pass_to_bitmap(pass, a->map);
        return;
    }
    vapic_pass_to_msrpm(pass, a->map);
    vapic_and32((uint32_t *)(void *)(a->vmcb + VMCB_CLEAN), ~VMCB_CLEAN_PERMISSION, VAPIC_RELAXED);
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    struct vmm_accel_vcpu *a = vcpu_of(v)->accel;
    uint64_t old = 0;

    (void)ctx;
    if (!vapic_sil_vmread(&a->vmcs, field, &old) ||
        !vapic_sil_vmwrite(&a->vmcs, field, (old & ~mask) | (value & mask))) {
        vmm_machine_fail(vcpu_of(v)->machine, vcpu_of(v), "the model's VMCS lacks a field");
    }
}

static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    uint64_t value = 0;

    (void)ctx;
    vapic_sil_vmread(&vcpu_of(v)->accel->vmcs, VMCS_GUEST_INTERRUPT_STATUS, &value);
    return (uint16_t)value;
}

static void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    while (vapic_xchg32(word, 1, VAPIC_ACQUIRE) != 0) {
        sched_yield(); /* its holder may have lost its processor */
    }
}

static void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    vapic_store32(word, 0, VAPIC_RELEASE);
}

void vmm_accel_fill_host(struct vapic_host *host)
{
    host->physical = host_physical;
    host->kick_all = host_kick_all;
    host->access_page = host_access_page;
    host->flush = host_flush;
    host->intercept = host_intercept;
    host->control = host_control;
    host->interrupt_status = host_interrupt_status;
    host->spin_lock = host_spin_lock;
    host->spin_unlock = host_spin_unlock;
}

void vmm_accel_doorbell(struct vmm_vcpu *v)
{
    struct vmm_accel *a = v->machine->accel;
    uint32_t id;

    if (!vapic_doorbell_id(&v->apic, &id)) {
        return;
    }
    __atomic_fetch_add(&v->accel->counts.posted, 1, __ATOMIC_RELAXED);
    if (a->intel) {
        vapic_sil_interrupt(&a->silicon, id, VMM_ACCEL_NOTIFY_VECTOR);
    } else {
        vapic_sil_doorbell(&a->silicon, id);
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* For the silicon model                                                                          */
/* ---------------------------------------------------------------------------------------------- */

static void *sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct vmm_machine *m = ctx;

    return vmm_hpa_at(&m->accel->hpa, hpa, size);
}

/* The model knows its processors by their first member. */
static struct vmm_accel_pcpu *pcpu_of(struct vapic_sil_cpu *cpu)
{
    return (struct vmm_accel_pcpu *)cpu;
}

/*
 * The only page that the model is asked for is the APIC's: everything else is KVM's. All vCPUs
 * share the nested page tables, so it is there for all of them or for none. A vCPU whose APIC is
 * disabled, or in x2APIC mode, finds ordinary memory in it.
 */
static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct vmm_machine *m = ctx;

    (void)cpu;
    if (gpa - VMM_LAPIC_BASE >= APIC_PAGE_SIZE || !atomic_load(&m->accel->page_mapped)) {
        return false;
    }
    *page = (struct vapic_sil_page){m->accel->scratch_hpa, true, true};
    return true;
}

/*
 * A processor whose thread sleeps has a host that would take the interrupt at once: its handler of
 * the wake-up vector runs here, on the sender's thread, so that the vCPUs that wait on the list are
 * woken, and counted, as on silicon. The thread itself is woken in any case: it may have come here
 * for another vector, and between its last look and its sleep it is on no list.
 */
static void wake_sleeper(struct vmm_machine *m, struct vmm_vcpu *v, struct vapic_pcpu *pcpu)
{
    if (m->accel->intel) {
        vapic_wakeup(&m->vm, pcpu);
    }
    vmm_vcpu_wake(v);
}

/*
 * The processor's own thread looks before it enters the guest or sleeps. Another thread's
 * interrupt is seen without a signal unless that thread is in the loop (it announces that before
 * it looks: accel_run.c) or asleep.
 */
static void sil_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct vmm_vcpu *v = atomic_load(&pcpu_of(cpu)->driver);
    struct vmm_machine *m = ctx;

    if (v == NULL) {
        return;
    }
    if (v == vmm_vcpu_current()) {
        atomic_store(&v->wake, 1);
    } else if (atomic_load(&v->accel->running)) {
        vmm_vcpu_interrupt(v);
    } else {
        wake_sleeper(m, v, &pcpu_of(cpu)->pcpu);
    }
}

const struct vapic_sil_host vmm_accel_sil_host = {
    .size = sizeof(struct vapic_sil_host),
    .memory = sil_memory,
    .walk = sil_walk,
    .signal = sil_signal,
};
