/* SPDX-License-Identifier: MIT */
/*
 * How APICv is wired into a VMLAUNCH loop: the VMCS, the loop, the exits, notifications, sleeping
 * and the wake-up vector, kicking, a device behind an IOMMU. docs/acceleration.md explains it field
 * by field.
 *
 * "hypervisor" is what yours has already: threads, VMX, EPT. So that this file can be compiled and
 * run anywhere, the processors and the IOMMU are those of vapic/silicon.h, and the guest is a
 * script per vCPU. Wherever vapic_sil_ is called yours has an instruction or a device. Each vCPU's
 * thread plays its processor, in the guest and in the host.
 *
 * The guest: vCPU 1 sleeps in HLT, vCPU 0 sends it an IPI and sleeps; vCPU 1 answers and sleeps
 * again, and then a device that was assigned to the guest interrupts it. Left out, and said where:
 * timers, SMM, nested guests.
 */
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vapic/accel.h"
#include "vapic/silicon.h"

enum {
    VCPUS = 2,
    PAGE = 4096,
    IPI_VECTOR = 0x51,
    DEVICE_VECTOR = 0x61,
    DEVICE = 0x100,       /* its source-id */
    KICK_VECTOR = 0xF0,   /* the host's own: its only purpose is that the processor exits */
    NOTIFY_VECTOR = 0xF1, /* its handler in the host does nothing */
    WAKEUP_VECTOR = 0xF2, /* its handler is vapic_wakeup() */
};

/* ---- hypervisor: a vCPU, a VM ---- */

struct vcpu {
    struct vapic apic; /* first, so that it is 64-byte aligned with the rest */
    struct vapic_accel_vcpu accel;
    uint8_t *page, *bitmap;
    struct vapic_sil_vmcs vmcs;
    struct vapic_sil_cpu processor; /* this vCPU's thread is bound to it */
    struct vapic_pcpu pcpu;
    uint64_t event; /* of an exit during the delivery of an event: to be injected again */
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
    bool page_mapped; /* FEE00000h is in the EPT, and leads to `access_page` */
    struct vcpu vcpus[VCPUS];
    alignas(16) uint64_t irte[2];
};

static struct vm the_vm;
static alignas(PAGE) uint8_t pages[VCPUS][PAGE], bitmaps[VCPUS][PAGE], access_page[PAGE];
static alignas(PAGE) uint8_t table[PAGE];
static alignas(64) uint8_t map[65536];

static struct vcpu *vcpu_of(struct vapic *v)
{
    return (struct vcpu *)(void *)v;
}

static uint64_t vmread(const struct vcpu *c, uint32_t field)
{
    uint64_t value = 0;

    if (!vapic_sil_vmread(&c->vmcs, field, &value))
        exit(1);
    return value;
}

static void vmwrite(struct vcpu *c, uint32_t field, uint64_t value)
{
    if (!vapic_sil_vmwrite(&c->vmcs, field, value))
        exit(1);
}

static void vmwrite_bits(struct vcpu *c, uint32_t field, uint64_t mask, uint64_t value)
{
    vmwrite(c, field, (vmread(c, field) & ~mask) | (value & mask));
}

/* Timers are left out: the guest has none. */
static struct vapic_now now(void)
{
    return (struct vapic_now){0};
}

/* In this program a host-physical address is the pointer itself. */
static uint64_t host_physical(void *ctx, const void *memory)
{
    (void)ctx;
    return (uintptr_t)memory;
}

/* ---- The VMCS: what is the host's. The library writes the rest through host_control() ---- */

static void create_vmcs(struct vcpu *c, uint16_t vpid)
{
    vapic_sil_vmcs_init(&c->vmcs); /* all that must be one is one */
    /* Virtual-interrupt delivery needs the first, posted interrupts need the second: the host has
     * the vector of an interrupt that made the guest exit in VMCS_EXIT_INTR_INFO. */
    vmwrite_bits(c, VMCS_PIN_CONTROLS, VMX_PIN_EXTINT_EXITING, UINT64_MAX);
    vmwrite_bits(c, VMCS_EXIT_CONTROLS, VMX_EXC_ACK_INTERRUPT, UINT64_MAX);
    vmwrite_bits(c, VMCS_PRIMARY_CONTROLS, VMX_PRI_HLT_EXITING | VMX_PRI_MSR_BITMAPS, UINT64_MAX);
    vmwrite_bits(c, VMCS_SECONDARY_CONTROLS, VMX_SEC_EPT | VMX_SEC_VPID, UINT64_MAX);
    vmwrite(c, VMCS_EPTP, 0x1000);
    vmwrite(c, VMCS_VPID, vpid);
    memset(c->bitmap, 0xFF, PAGE); /* every MSR exits; host_intercept() opens some */
    vmwrite(c, VMCS_MSR_BITMAP, host_physical(NULL, c->bitmap));
    vmwrite(c, VMCS_APIC_ACCESS, host_physical(NULL, access_page)); /* one page for all vCPUs */
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

static void wake_up(struct vcpu *c)
{
    pthread_mutex_lock(&c->mutex);
    c->wake = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

static void kick(struct vm *vm, struct vcpu *c)
{
    vapic_sil_interrupt(&vm->silicon, c->processor.apic_id, KICK_VECTOR);
}

/* A notification makes no exit: the target's processor takes over what was posted. */
static void send_notification(struct vm *vm, struct vapic *target)
{
    uint32_t id;

    if (vapic_doorbell_id(target, &id))
        vapic_sil_interrupt(&vm->silicon, id, NOTIFY_VECTOR); /* an IPI */
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    if (action == VAPIC_ACTION_DOORBELL)
        send_notification(ctx, target);
    else if (action == VAPIC_ACTION_KICK)
        kick(ctx, vcpu_of(target));
    else
        wake_up(vcpu_of(target));
}

/*
 * All out of the guest, and seen out of it: a vCPU that enters after this has seen what the library
 * is about to change. A vCPU that sleeps is let sleep.
 */
static void host_kick_all(void *ctx)
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
 * the entry is zapped and an INVEPT reaches every processor before the function returns. */
static void host_access_page(void *ctx, bool mapped)
{
    ((struct vm *)ctx)->page_mapped = mapped;
}

/* INVVPID of FEE00000h. */
static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    vapic_sil_flush(&vcpu_of(v)->processor, APIC_DEFAULT_BASE);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    vapic_pass_to_bitmap(pass, vcpu_of(v)->bitmap);
}

/* Always of vmcs01. A host that keeps copies of the controls changes the copies, too. */
static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    vmwrite_bits(vcpu_of(v), field, mask, value);
}

static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    return (uint16_t)vmread(vcpu_of(v), VMCS_GUEST_INTERRUPT_STATUS);
}

/* In a kernel: a spin lock, with interrupts off: the wake-up handler takes it, too. */
static void host_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE) != 0)
        sched_yield();
}

static void host_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

static const struct vapic_host host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .physical = host_physical,
    .kick_all = host_kick_all,
    .access_page = host_access_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .control = host_control,
    .interrupt_status = host_interrupt_status,
    .spin_lock = host_spin_lock,
    .spin_unlock = host_spin_unlock,
};

/* ---- The host's interrupt handlers ---- */

/* All that is pending on this processor while it is in the host with its interrupts on. */
static void take_interrupts(struct vm *vm, struct vcpu *c)
{
    int vector;

    while ((vector = vapic_sil_take_interrupt(&c->processor)) >= 0) {
        if (vector == WAKEUP_VECTOR)
            vapic_wakeup(&vm->apics, &c->pcpu); /* wakes by host_notify() who sleeps here */
        /* KICK_VECTOR and NOTIFY_VECTOR: being taken was all. */
    }
}

/* ---- Injection: what the processor cannot deliver, and everything while it delivers nothing ----
 */

static void inject(struct vcpu *c, const struct vapic_entry *entry)
{
    uint64_t event =
        c->event; /* an earlier one first; vapic_enter() was told that the slot is full */

    if (entry->inject == VAPIC_INJECT_VECTOR)
        event = VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | entry->vector;
    else if (entry->inject == VAPIC_INJECT_NMI)
        event = VMX_INFO_VALID | VMX_INFO_TYPE_NMI | 2;
    vmwrite(c, VMCS_ENTRY_INTR_INFO, event);
    vapic_commit(&c->apic, entry);
    /* While this is set the processor delivers no virtual interrupt: only for an ExtINT, or when
     * the vCPU is not accelerated. */
    vmwrite_bits(c, VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW,
                 entry->irq_window ? VMX_PRI_INTERRUPT_WINDOW : 0);
}

/* ---- hypervisor: the guest, a script ---- */

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
static enum vapic_sil_result execute(struct vcpu *c)
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
    vapic_sil_leave(&c->processor, VMX_EXIT_EXTINT, 0, 0);
    return VAPIC_SIL_EXIT;
}

/* Until the next exit, as VMLAUNCH and VMRESUME do. */
static void run_guest(struct vcpu *c)
{
    enum vapic_sil_result result = vapic_sil_vmentry(&c->processor, &c->vmcs);
    uint8_t vector;

    if (result != VAPIC_SIL_DONE) {
        fprintf(stderr, "VM entry fails, error %u\n", (unsigned)vmread(c, VMCS_INSTRUCTION_ERROR));
        exit(1);
    }
    for (;;) {
        result = vapic_sil_boundary(&c->processor, &vector);
        if (result == VAPIC_SIL_DELIVER) {
            printf("vCPU %u takes vector %#x\n", vapic_id(&c->apic), vector);
            c->interrupts++;
            c->processor.guest.interrupt_flag = false; /* an interrupt gate */
            continue;
        }
        if (result == VAPIC_SIL_NOTHING)
            result = execute(c);
        if (result == VAPIC_SIL_EXIT)
            return;
        c->step += result == VAPIC_SIL_DONE;
    }
}

/* ---- Exits ---- */

/* Whatever the guest was at has not happened yet: a hypervisor decodes the instruction. */
static void emulate(struct vcpu *c)
{
    const struct step *s = current_step(c);

    vapic_mmio_write(&c->apic, s->offset, &s->value, sizeof(s->value), now());
    c->step++; /* and moves RIP on */
}

static void apicv_exit(struct vcpu *c, uint32_t reason)
{
    uint64_t qualification = vmread(c, VMCS_EXIT_QUALIFICATION);

    printf("vCPU %u: exit %u, qualification %#llx\n", vapic_id(&c->apic), reason,
           (unsigned long long)qualification);
    switch (vapic_apicv_exit(&c->apic, reason, qualification, now())) {
    case VAPIC_EMULATE:
        emulate(c);
        break;
    case VAPIC_ADVANCE: /* RIP += VMCS_EXIT_LENGTH */
    default:            /* VAPIC_OK: a trap, RIP is past the instruction already */
        c->step++;
        break;
    }
}

static void handle_exit(struct vm *vm, struct vcpu *c)
{
    uint32_t reason = (uint32_t)vmread(c, VMCS_EXIT_REASON);

    switch (reason) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
    case VMX_EXIT_APIC_WRITE:
        apicv_exit(c, reason);
        break;
    case VMX_EXIT_EPT_VIOLATION: /* of the APIC's page: while the VM is not accelerated */
        emulate(c);
        break;
    case VMX_EXIT_RDMSR: /* 1Bh, 6E0h, 800h-8FFh: vapic_msr_read(), vapic_msr_write() */
    case VMX_EXIT_WRMSR:
        break; /* not in this guest. CR8 does not exit: the TPR shadow is always on */
    case VMX_EXIT_HLT:
        vapic_halt(&c->apic);
        c->step++;
        break;
    default: /* 1: with "acknowledge interrupt on exit" its handler must be run by the host, for the
              * vector in VMCS_EXIT_INTR_INFO; 7: the window is open. Look again. */
        break;
    }
    take_interrupts(vm, c); /* the host's interrupts are on again */
}

/* ---- Sleeping ---- */

/*
 * vapic_block() makes hardware that posts ask for a wake-up, and then looks once more. True:
 * nothing had come before that. While the thread sleeps its processor takes interrupts, and the
 * wake-up vector's handler finds the vCPU on the processor's list.
 */
static void sleep_until_woken(struct vm *vm, struct vcpu *c)
{
    if (!vapic_block(&c->apic))
        return;
    pthread_mutex_lock(&c->mutex);
    while (!c->wake) { /* a real one also waits for entry.deadline */
        if (!c->interrupted) {
            pthread_cond_wait(&c->cond, &c->mutex);
            continue;
        }
        c->interrupted = false;
        pthread_mutex_unlock(&c->mutex);
        take_interrupts(vm, c);
        pthread_mutex_lock(&c->mutex);
    }
    c->wake = false;
    pthread_mutex_unlock(&c->mutex);
    vapic_unblock(&c->apic);
}

/* An interrupt has become pending in a processor: in the guest it shows by itself. */
static void sil_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct vcpu *c = &((struct vm *)ctx)->vcpus[cpu->apic_id];

    pthread_mutex_lock(&c->mutex);
    c->interrupted = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

/* ---- The loop ---- */

static uint32_t can(const struct vcpu *c)
{
    uint32_t set = VAPIC_CAN_INIT;

    if (vmread(c, VMCS_GUEST_RFLAGS) & VMX_RFLAGS_IF)
        set |= VAPIC_IF;
    if (c->event & VMX_INFO_VALID)
        return set; /* the injection slot is full */
    set |= VAPIC_CAN_NMI;
    if (set & VAPIC_IF &&
        !(vmread(c, VMCS_GUEST_INTERRUPTIBILITY) & (VMX_INTR_STI | VMX_INTR_MOV_SS)))
        set |= VAPIC_CAN_IRQ;
    return set;
}

/*
 * After an exit. An event whose delivery was cut short is injected again, whoever delivered it
 * first: a vector that the processor took from IRR has its ISR bit set already, so neither the page
 * nor the guest interrupt status is touched for it.
 */
static void after_exit(struct vcpu *c)
{
    uint64_t info = vmread(c, VMCS_IDT_VECTORING);

    c->event = info & VMX_INFO_VALID ? info : 0;
    /* TPR is in the page. */
    vapic_exit(&c->apic, (uint8_t)vapic_read_cr8(&c->apic), c->event == 0);
}

/* No entry after all: what is in the injection slot stays there. */
static void cancel(struct vcpu *c)
{
    uint64_t info = vmread(c, VMCS_ENTRY_INTR_INFO);

    c->event = info & VMX_INFO_VALID ? info : 0;
    vapic_exit(&c->apic, (uint8_t)vapic_read_cr8(&c->apic), c->event == 0);
}

static void turn(struct vm *vm, struct vcpu *c)
{
    struct vapic_entry entry;

    vapic_enter(&c->apic, can(c), now(), &entry);
    if (entry.event != VAPIC_CPU_NONE)
        return; /* a real one sets the registers for INIT or SIPI here, then looks again */
    if (!entry.runnable) {
        sleep_until_woken(vm, c);
        return;
    }
    inject(c, &entry);
    take_interrupts(vm, c);
    /*
     * Here the host turns its interrupts off. A notification from now on stays pending and is
     * processed in the guest. One that came between vapic_enter() and here was taken by the host,
     * and a VM entry does not look at what was posted: so look once more. (A kick that came there
     * has set a flag of the host's, which is looked at as well.)
     */
    if (vapic_posted(&c->apic)) {
        cancel(c);
        return;
    }
    vmwrite(c, VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE); /* HLT is over: entry.runnable */
    vmwrite_bits(c, VMCS_GUEST_INTERRUPTIBILITY, VMX_INTR_STI | VMX_INTR_MOV_SS, 0);
    run_guest(c);
    after_exit(c);
    handle_exit(vm, c);
}

/* A kernel calls vapic_load() and vapic_put() from its scheduler's hooks, whenever the thread gets
 * a processor and loses it. */
static void *vcpu_thread(void *arg)
{
    struct vcpu *c = arg;

    vapic_load(&c->apic, &c->pcpu);
    while (!c->done)
        turn(&the_vm, c);
    vapic_put(&c->apic);
    return NULL;
}

/* ---- hypervisor: the EPT and memory, for the model ---- */

static void *sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    (void)ctx;
    (void)size;
    return (void *)(uintptr_t)hpa;
}

static bool sil_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct vm *vm = ctx;

    (void)cpu;
    if (gpa != APIC_DEFAULT_BASE || !vm->page_mapped)
        return false;
    *page = (struct vapic_sil_page){host_physical(vm, access_page), true, true};
    return true;
}

/* ---- Set-up ---- */

static void check(int result, const char *what)
{
    if (result == VAPIC_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, vapic_result_text(result));
    exit(1);
}

static void create_machine(struct vm *vm)
{
    static const struct vapic_sil_host sil = {
        .size = sizeof(sil), .memory = sil_memory, .walk = sil_walk, .signal = sil_signal};
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL};

    if (!vapic_sil_init(&vm->silicon, &config, &sil, vm, vm->by_id, VCPUS))
        exit(1);
}

static void create_vm(struct vm *vm)
{
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_APICV,
                                       .features = VAPIC_ACCEL_IPIV, /* from the capability MSRs */
                                       .max_id = VCPUS - 1,
                                       .notify_vector = NOTIFY_VECTOR,
                                       .wakeup_vector = WAKEUP_VECTOR};

    pthread_mutex_init(&vm->lock, NULL);
    check(vapic_vm_init(&vm->apics, sizeof(vm->apics), &config, &host, vm, map, sizeof(map)),
          "vapic_vm_init");
    /* vapic_accel_memory(&accel) says how much; here it is known to be one page. */
    check(vapic_accel_init(&vm->accel, sizeof(vm->accel), &vm->apics, &accel, table, sizeof(table)),
          "vapic_accel_init");
}

static void create_vcpu(struct vm *vm, uint32_t i)
{
    struct vcpu *c = &vm->vcpus[i];
    struct vapic_config apic = {.id = i, .bsp = i == 0};

    c->page = pages[i];
    c->bitmap = bitmaps[i];
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->cond, NULL);
    if (!vapic_sil_cpu_init(&c->processor, &vm->silicon, i))
        exit(1);
    check(vapic_pcpu_init(&c->pcpu, sizeof(c->pcpu), i), "vapic_pcpu_init");
    create_vmcs(c, (uint16_t)(i + 1));
    check(vapic_init(&c->apic, sizeof(c->apic), &vm->apics, &apic, c->page), "vapic_init");
    check(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), NULL), "vapic_accel_attach");
    check(vapic_add(&c->apic), "vapic_add");
}

/* A device behind the IOMMU. Its entry need not follow the vCPU from processor to processor. */
static void create_device(struct vm *vm)
{
    vapic_device_attached(&vm->apics);
    check(vapic_vtd_irte(&vm->vcpus[1].apic, DEVICE_VECTOR, DEVICE, vm->irte), "vapic_vtd_irte");
}

/* The script has no start-up code, so a message stands in for the BSP's INIT and SIPI. */
static void start_second(struct vm *vm)
{
    struct vapic_entry entry;

    vapic_send(&vm->apics, (struct vapic_msg){.icr = APIC_DM_SIPI | APIC_ICR_ASSERT | 0x10,
                                              .dest = 1,
                                              .source = VAPIC_FROM_DEVICE});
    vapic_enter(&vm->vcpus[1].apic, VAPIC_CAN_INIT, now(), &entry);
    vapic_exit(&vm->vcpus[1].apic, 0, true);
}

int main(void)
{
    struct vm *vm = &the_vm;
    unsigned taken = 0;

    create_machine(vm);
    create_vm(vm);
    for (uint32_t i = 0; i < VCPUS; i++)
        create_vcpu(vm, i);
    create_device(vm);
    start_second(vm);
    for (uint32_t i = VCPUS; i-- > 0;)
        pthread_create(&vm->vcpus[i].thread, NULL, vcpu_thread, &vm->vcpus[i]);
    /* vCPU 0 has had its answer. Its peer sleeps, or is about to. */
    pthread_join(vm->vcpus[0].thread, NULL);
    vapic_sil_vtd_msi(&vm->silicon, vm->irte, DEVICE); /* the device's interrupt message */
    pthread_join(vm->vcpus[1].thread, NULL);
    for (uint32_t i = 0; i < VCPUS; i++)
        taken += vm->vcpus[i].interrupts;
    printf("%u interrupts taken\n", taken);
    for (uint32_t i = 0; i < VCPUS; i++)
        check(vapic_remove(&vm->vcpus[i].apic), "vapic_remove");
    vapic_accel_fini(&vm->accel);
    return taken == 3 ? 0 : 1;
}
