/* SPDX-License-Identifier: MIT */
/* The hypervisor and the guest of model_host.h. Read svm_loop.c or vmx_loop.c first. */
#include "model_host.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- The callbacks ---- */

void host_lock(void *ctx)
{
    pthread_mutex_lock(&((struct vm *)ctx)->lock);
}

void host_unlock(void *ctx)
{
    pthread_mutex_unlock(&((struct vm *)ctx)->lock);
}

/* This VM never removes a vCPU while others run, so there is nobody to wait for. */
void host_quiesce(void *ctx)
{
    (void)ctx;
}

/* In this program a host-physical address is the pointer itself. */
uint64_t host_physical(void *ctx, const void *memory)
{
    (void)ctx;
    return (uintptr_t)memory;
}

/*
 * All out of the guest, and seen out of it: a vCPU that enters after this has seen what the library
 * is about to change. A vCPU that sleeps is let sleep.
 */
void host_kick_all(void *ctx)
{
    struct vm *vm = ctx;

    for (uint32_t i = 0; i < VCPUS; i++)
        if (vapic_in_guest(&vm->vcpus[i].apic))
            kick(vm, &vm->vcpus[i]);
    for (uint32_t i = 0; i < VCPUS; i++)
        while (vapic_in_guest(&vm->vcpus[i].apic))
            sched_yield();
}

/* A hypervisor whose tables are filled by faults remembers the permission. When it is taken away,
 * the entry is zapped and a shoot-down (Intel: with INVEPT) reaches every processor before the
 * function returns. */
void host_access_page(void *ctx, bool mapped)
{
    ((struct vm *)ctx)->page_mapped = mapped;
}

/* In a kernel: a spin lock, with interrupts off, for handlers of interrupts take it, too. */
void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE) != 0)
        sched_yield();
}

void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

/* ---- Kicking, sleeping, waking ---- */

void kick(struct vm *vm, struct vcpu *c)
{
    vapic_sil_interrupt(&vm->silicon, c->processor.apic_id, KICK_VECTOR);
}

static void signal_thread(struct vcpu *c, bool *what)
{
    pthread_mutex_lock(&c->mutex);
    *what = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

void wake_up(struct vcpu *c)
{
    signal_thread(c, &c->wake);
}

bool wait_for_wake(struct vcpu *c)
{
    bool woken;

    pthread_mutex_lock(&c->mutex);
    while (!c->wake && !c->interrupted) /* a real one also waits for entry.deadline */
        pthread_cond_wait(&c->cond, &c->mutex);
    woken = c->wake;
    if (woken)
        c->wake = false;
    else
        c->interrupted = false;
    pthread_mutex_unlock(&c->mutex);
    return woken;
}

/* ---- What the model of the silicon asks for ---- */

static void *sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    (void)ctx;
    (void)size;
    return (void *)(uintptr_t)hpa;
}

/* The nested page tables. */
static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct vm *vm = ctx;

    (void)cpu;
    if (gpa != APIC_DEFAULT_BASE || !vm->page_mapped)
        return false;
    *page = (struct vapic_sil_page){host_physical(vm, vm->access_page), true, true};
    return true;
}

/* An interrupt has become pending in a processor: in the guest it shows by itself. */
static void sil_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct vcpu *c = &((struct vm *)ctx)->vcpus[cpu->apic_id];

    signal_thread(c, &c->interrupted);
}

/* ---- The guest, a script ---- */

static atomic_bool guest_ready; /* vCPU 1 has enabled its APIC */

struct step {
    enum { WRITE, STI_HLT, WAIT_READY, SET_READY, STOP } what;
    uint32_t offset, value;
};

static const struct step scripts[VCPUS][10] = {
    {
        {WRITE, APIC_SVR, APIC_SVR_ENABLE | 0xFF},
        {WAIT_READY, 0, 0},
        {WRITE, APIC_ICR2, 1u << 24},
        {WRITE, APIC_ICR, APIC_ICR_ASSERT | IPI_VECTOR},
        {STI_HLT, 0, 0},
        {WRITE, APIC_EOI, 0},
        {STOP, 0, 0},
    },
    {
        {WRITE, APIC_SVR, APIC_SVR_ENABLE | 0xFF},
        {SET_READY, 0, 0},
        {STI_HLT, 0, 0},
        {WRITE, APIC_EOI, 0},
        {WRITE, APIC_ICR2, 0},
        {WRITE, APIC_ICR, APIC_ICR_ASSERT | IPI_VECTOR},
        {STI_HLT, 0, 0},
        {WRITE, APIC_EOI, 0},
        {STOP, 0, 0},
    },
};

static const struct step *current_step(const struct vcpu *c)
{
    return &scripts[vapic_id(&c->apic)][c->step];
}

static enum vapic_sil_result write_register(struct vcpu *c, const struct step *s)
{
    struct vapic_sil_access access = {.gpa = APIC_DEFAULT_BASE + s->offset,
                                      .kind = VAPIC_SIL_WRITE,
                                      .size = 4,
                                      .length = 3,
                                      .value = s->value};

    return vapic_sil_access(&c->processor, &access);
}

/* One instruction. */
static enum vapic_sil_result execute(struct vcpu *c, uint64_t stop)
{
    const struct step *s = current_step(c);

    switch (s->what) {
    case WRITE:
        return write_register(c, s);
    case STI_HLT:
        c->processor.guest.interrupt_flag = true;
        return vapic_sil_hlt(&c->processor);
    case WAIT_READY:
        if (!atomic_load(&guest_ready)) {
            sched_yield();
            return VAPIC_SIL_NOTHING; /* the same again */
        }
        return VAPIC_SIL_DONE;
    case SET_READY:
        atomic_store(&guest_ready, true);
        return VAPIC_SIL_DONE;
    case STOP:
        break;
    }
    c->done = true;
    vapic_sil_leave(&c->processor, stop, 0, 0);
    return VAPIC_SIL_EXIT;
}

void execute_guest(struct vcpu *c, uint64_t stop)
{
    enum vapic_sil_result result;
    uint8_t vector;

    for (;;) {
        result = vapic_sil_boundary(&c->processor, &vector);
        if (result == VAPIC_SIL_DELIVER) {
            printf("vCPU %u takes vector %#x\n", vapic_id(&c->apic), vector);
            c->interrupts++;
            c->processor.guest.interrupt_flag = false; /* an interrupt gate */
            continue;
        }
        if (result == VAPIC_SIL_NOTHING)
            result = execute(c, stop);
        if (result == VAPIC_SIL_EXIT)
            return;
        c->step += result == VAPIC_SIL_DONE;
    }
}

/* A hypervisor decodes the instruction, and moves RIP on. */
void emulate(struct vcpu *c)
{
    const struct step *s = current_step(c);

    vapic_mmio_write(&c->apic, s->offset, &s->value, sizeof(s->value), now());
    c->step++;
}

/* ---- Set-up and end ---- */

void check(int result, const char *what)
{
    if (result == VAPIC_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, vapic_result_text(result));
    exit(1);
}

void create_machine(struct vm *vm, enum vapic_sil_vendor vendor)
{
    static const struct vapic_sil_host sil = {
        .size = sizeof(sil), .memory = sil_memory, .walk = sil_walk, .signal = sil_signal};
    struct vapic_sil_config config = {.vendor = vendor};

    pthread_mutex_init(&vm->lock, NULL);
    if (!vapic_sil_init(&vm->silicon, &config, &sil, vm, vm->by_id, VCPUS))
        exit(1);
}

struct vcpu *create_processor(struct vm *vm, uint32_t i)
{
    struct vcpu *c = &vm->vcpus[i];

    c->page = vm->pages[i];
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->cond, NULL);
    if (!vapic_sil_cpu_init(&c->processor, &vm->silicon, i))
        exit(1);
    check(vapic_pcpu_init(&c->pcpu, sizeof(c->pcpu), i), "vapic_pcpu_init");
    return c;
}

void start_second(struct vm *vm)
{
    struct vapic_entry entry;

    vapic_send(&vm->apics, (struct vapic_msg){.icr = APIC_DM_SIPI | APIC_ICR_ASSERT | 0x10,
                                              .dest = 1,
                                              .source = VAPIC_FROM_DEVICE});
    vapic_enter(&vm->vcpus[1].apic, VAPIC_CAN_INIT, now(), &entry);
    vapic_exit(&vm->vcpus[1].apic, 0, true);
}

void start_threads(struct vm *vm, void *(*thread)(void *))
{
    for (uint32_t i = VCPUS; i-- > 0;)
        if (pthread_create(&vm->vcpus[i].thread, NULL, thread, &vm->vcpus[i]) != 0)
            exit(1);
}

int finish(struct vm *vm)
{
    unsigned taken = 0;

    for (uint32_t i = 0; i < VCPUS; i++)
        taken += vm->vcpus[i].interrupts;
    printf("%u interrupts taken\n", taken);
    for (uint32_t i = 0; i < VCPUS; i++)
        check(vapic_remove(&vm->vcpus[i].apic), "vapic_remove");
    vapic_accel_fini(&vm->accel);
    return taken == 3 ? 0 : 1;
}
