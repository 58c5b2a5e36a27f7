/* SPDX-License-Identifier: MIT */
/*
 * How AVIC is wired into a VMRUN loop: the VMCB, the loop, the exits, doorbells, sleeping, kicking,
 * a device behind an IOMMU and its GA log. docs/acceleration.md explains it field by field.
 *
 * "hypervisor" is what yours has already: threads, VMRUN, nested page tables. So that this file can
 * be compiled and run anywhere, the processors and the IOMMU are those of vapic/silicon.h, and the
 * guest is a script per vCPU. Wherever vapic_sil_ is called yours has an instruction or an MSR.
 *
 * The guest: vCPU 1 sleeps in HLT, vCPU 0 sends it an IPI and sleeps; vCPU 1 answers and sleeps
 * again, and then a device that was assigned to the guest interrupts it. Left out, and said where:
 * timers, SMM, interrupt windows' small print.
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
    KICK_VECTOR = 0xF0, /* the host's own: its only purpose is that the processor exits */
    DEVICE_VECTOR_OF_HOST = 0x41,
    VM_TAG = 7,
    LOG_ENTRIES = 64,
};

/* ---- hypervisor: a vCPU, a VM ---- */

struct vcpu {
    struct vapic apic; /* first, so that it is 64-byte aligned with the rest */
    struct vapic_accel_vcpu accel;
    uint8_t *page, *vmcb, *msrpm;
    struct vapic_sil_cpu processor; /* this vCPU's thread is bound to it */
    struct vapic_pcpu pcpu;
    uint64_t event; /* of an exit during the delivery of an event: to be injected again */
    pthread_t thread;
    pthread_mutex_t mutex; /* guards `wake` */
    pthread_cond_t cond;
    bool wake;
    atomic_uint interrupts, sleeps;
    unsigned step;
    bool done;
};

struct vm {
    struct vapic_vm apics;
    struct vapic_accel accel;
    struct vapic_platform platform; /* one per host */
    struct vapic_sil silicon;
    struct vapic_sil_cpu *by_id[VCPUS];
    pthread_mutex_t lock;
    bool page_mapped; /* FEE00000h is in the nested page tables, with a page of zeros behind it */
    struct vcpu vcpus[VCPUS];
    struct vapic_irte device;
    alignas(16) uint64_t irte[2];
    struct vapic_sil_amd_iommu iommu;
    uint64_t log[LOG_ENTRIES];
};

static struct vm the_vm;
static alignas(PAGE) uint8_t pages[VCPUS][PAGE], vmcbs[VCPUS][PAGE], zeros[PAGE];
static alignas(PAGE) uint8_t msrpms[VCPUS][SVM_MSRPM_SIZE];
static alignas(PAGE) uint8_t tables[2 * PAGE];
static alignas(64) uint8_t map[65536];

static struct vcpu *vcpu_of(struct vapic *v)
{
    return (struct vcpu *)(void *)v;
}

static uint64_t get64(const struct vcpu *c, uint32_t field)
{
    uint64_t value;

    memcpy(&value, c->vmcb + field, sizeof(value));
    return value;
}

static void set64(struct vcpu *c, uint32_t field, uint64_t value)
{
    memcpy(c->vmcb + field, &value, sizeof(value));
}

static void set32(struct vcpu *c, uint32_t field, uint32_t value)
{
    memcpy(c->vmcb + field, &value, sizeof(value));
}

static void dirty(struct vcpu *c, uint32_t clean)
{
    set32(c, VMCB_CLEAN, (uint32_t)get64(c, VMCB_CLEAN) & ~clean);
}

/* Timers are left out: the guest has none. */
static struct vapic_now now(void)
{
    return (struct vapic_now){0};
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

/* The doorbell makes no exit: the target's processor looks at IRR while the guest runs. */
static void ring(struct vm *vm, struct vapic *target)
{
    uint32_t id;

    if (vapic_doorbell_id(target, &id))
        vapic_sil_doorbell(&vm->silicon, id); /* WRMSR C001011Bh */
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    if (action == VAPIC_ACTION_DOORBELL)
        ring(ctx, target);
    else if (action == VAPIC_ACTION_KICK)
        kick(ctx, vcpu_of(target));
    else
        wake_up(vcpu_of(target));
}

/* In this program a host-physical address is the pointer itself. */
static uint64_t host_physical(void *ctx, const void *memory)
{
    (void)ctx;
    return (uintptr_t)memory;
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
 * the entry is zapped and a shoot-down reaches every processor before the function returns. */
static void host_access_page(void *ctx, bool mapped)
{
    ((struct vm *)ctx)->page_mapped = mapped;
}

/* Every vCPU has an ASID of its own: under a shared one a translation of FEE00000h would lead to
 * another vCPU's registers. */
static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    vcpu_of(v)->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    vapic_pass_to_msrpm(pass, vcpu_of(v)->msrpm);
    dirty(vcpu_of(v), VMCB_CLEAN_PERMISSION);
}

/* In a kernel: a spin lock, with interrupts off. */
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

/* In a kernel: one CMPXCHG16B, and INVALIDATE_INTERRUPT_TABLE if asked for. This program's device
 * is silent while its entry changes form. */
static void host_irte(void *ctx, void *irte, const uint64_t value[2], bool invalidate)
{
    uint64_t *entry = irte;

    (void)ctx;
    (void)invalidate;
    __atomic_store_n(&entry[1], value[1], __ATOMIC_SEQ_CST);
    __atomic_store_n(&entry[0], value[0], __ATOMIC_SEQ_CST);
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
    .spin_lock = host_spin_lock,
    .spin_unlock = host_spin_unlock,
    .irte = host_irte,
};

/* ---- The VMCB: what is the host's. vapic_accel_attach() fills in the rest ---- */

static void create_vmcb(struct vcpu *c, uint32_t asid)
{
    memset(c->msrpm, 0xFF, SVM_MSRPM_SIZE); /* everything exits; host_intercept() opens some */
    set32(c, VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_NMI | VMCB_I3_HLT | VMCB_I3_MSR);
    set32(c, VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    set64(c, VMCB_MSRPM_BASE, host_physical(NULL, c->msrpm));
    set64(c, VMCB_NP_ENABLE, VMCB_NP_ENABLED); /* AVIC needs nested paging */
    set32(c, VMCB_ASID, asid);
}

/* ---- Injection: what the processor cannot deliver, and everything while AVIC is off ---- */

static void inject(struct vcpu *c, const struct vapic_entry *entry)
{
    uint64_t event =
        c->event; /* an earlier one first; vapic_enter() was told that the slot is full */

    if (entry->inject == VAPIC_INJECT_VECTOR)
        event = VMCB_EVENT_VALID | VMCB_EVENT_INTR | entry->vector;
    else if (entry->inject == VAPIC_INJECT_NMI)
        event = VMCB_EVENT_VALID | VMCB_EVENT_NMI | 2;
    set64(c, VMCB_EVENTINJ, event);
    vapic_commit(&c->apic, entry);
}

/*
 * "Exit when an interrupt can be injected": a virtual interrupt that is only there to be
 * intercepted. With AVIC on the processor ignores V_IRQ; the library has switched AVIC off for the
 * whole VM when it asks for this (reason IRQWIN).
 */
static void request_window(struct vcpu *c, bool wanted)
{
    const uint64_t virq = VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR;
    uint64_t control = get64(c, VMCB_INT_CTL);
    uint32_t intercepts = (uint32_t)get64(c, VMCB_INTERCEPT3);

    if (wanted == ((intercepts & VMCB_I3_VINTR) != 0))
        return;
    set64(c, VMCB_INT_CTL, wanted ? control | virq : control & ~virq);
    set32(c, VMCB_INTERCEPT3, intercepts ^ VMCB_I3_VINTR);
    dirty(c, VMCB_CLEAN_TPR | VMCB_CLEAN_INTERCEPTS);
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
    vapic_sil_leave(&c->processor, SVM_EXIT_INTR, 0, 0);
    return VAPIC_SIL_EXIT;
}

/* Until the next exit, as VMRUN does. */
static void run_guest(struct vcpu *c)
{
    enum vapic_sil_result result = vapic_sil_vmrun(&c->processor, host_physical(NULL, c->vmcb));
    uint8_t vector;

    if (result != VAPIC_SIL_DONE) {
        fprintf(stderr, "VMRUN fails\n");
        exit(1);
    }
    for (;;) {
        result = vapic_sil_boundary(&c->processor, &vector);
        if (result == VAPIC_SIL_DELIVER) {
            printf("vCPU %u takes vector %#x\n", vapic_id(&c->apic), vector);
            atomic_fetch_add(&c->interrupts, 1);
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

static void avic_exit(struct vcpu *c, uint64_t code)
{
    int result =
        vapic_avic_exit(&c->apic, code, get64(c, VMCB_EXITINFO1), get64(c, VMCB_EXITINFO2), now());

    printf("vCPU %u: exit %#llx, EXITINFO2 %#llx\n", vapic_id(&c->apic), (unsigned long long)code,
           (unsigned long long)get64(c, VMCB_EXITINFO2));
    if (result == VAPIC_EMULATE)
        emulate(c);
    else
        c->step++; /* a trap: RIP is past the instruction already */
}

static void handle_exit(struct vcpu *c)
{
    uint64_t code = get64(c, VMCB_EXITCODE);

    switch (code) {
    case SVM_EXIT_AVIC_INCOMPLETE:
    case SVM_EXIT_AVIC_NOACCEL:
        avic_exit(c, code);
        break;
    case SVM_EXIT_NPF: /* of the APIC's page: while AVIC is off, or for good in hybrid mode */
        emulate(c);
        break;
    case SVM_EXIT_MSR:       /* 1Bh, 6E0h, 800h-8FFh: vapic_msr_read(), vapic_msr_write() */
    case SVM_EXIT_CR8_WRITE: /* vapic_write_cr8(); only while AVIC is off */
        break;               /* not in this guest */
    case SVM_EXIT_HLT:
        vapic_halt(&c->apic);
        c->step++;
        break;
    default: /* INTR: the host's own interrupts; VINTR: the window is open. Look again. */
        while (vapic_sil_take_interrupt(&c->processor) >= 0)
            continue;
        break;
    }
}

/* ---- Sleeping ---- */

/*
 * vapic_block() takes the vCPU for not running any more, so that hardware which posts asks for a
 * wake-up, and then looks once more. True: nothing had come before that.
 */
static void sleep_until_woken(struct vcpu *c)
{
    if (!vapic_block(&c->apic))
        return;
    atomic_fetch_add(&c->sleeps, 1);
    pthread_mutex_lock(&c->mutex);
    while (!c->wake) /* a real one also waits for entry.deadline */
        pthread_cond_wait(&c->cond, &c->mutex);
    c->wake = false;
    pthread_mutex_unlock(&c->mutex);
    vapic_unblock(&c->apic);
}

/* ---- The loop ---- */

static uint32_t can(const struct vcpu *c)
{
    uint32_t set = VAPIC_CAN_INIT;

    if (get64(c, VMCB_RFLAGS) & VMCB_RFLAGS_IF)
        set |= VAPIC_IF;
    if (c->event & VMCB_EVENT_VALID)
        return set; /* the injection slot is full */
    set |= VAPIC_CAN_NMI;
    if (set & VAPIC_IF && !(get64(c, VMCB_INT_STATE) & VMCB_STATE_SHADOW))
        set |= VAPIC_CAN_IRQ;
    return set;
}

/*
 * After #VMEXIT. An event whose delivery was cut short is delivered again by EVENTINJ, whoever
 * delivered it first: a vector that the processor took from IRR has its ISR bit set already.
 */
static void after_exit(struct vcpu *c)
{
    uint64_t info = get64(c, VMCB_EXITINTINFO);

    c->event = info & VMCB_EVENT_VALID ? info : 0;
    /* All is clean but for what is changed from here on; on another processor nothing would be. */
    set32(c, VMCB_CLEAN, 0xFFFFFFFF);
    c->vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_NOTHING;
    vapic_exit(&c->apic, (uint8_t)(get64(c, VMCB_INT_CTL) & VMCB_V_TPR), c->event == 0);
}

static void turn(struct vcpu *c)
{
    struct vapic_entry entry;

    vapic_enter(&c->apic, can(c), now(), &entry);
    if (entry.event != VAPIC_CPU_NONE)
        return; /* a real one sets the registers for INIT or SIPI here, then looks again */
    if (!entry.runnable) {
        sleep_until_woken(c);
        return;
    }
    inject(c, &entry);
    request_window(c, entry.irq_window);
    /* A kernel turns its interrupts off here (CLGI), looks for work of its own, and enters. A kick
     * that comes from here on stays pending and is an exit; so is one that came before. */
    run_guest(c);
    after_exit(c);
    handle_exit(c);
}

/* A kernel calls vapic_load() and vapic_put() from its scheduler's hooks, whenever the thread gets
 * a processor and loses it; a vCPU that moves needs VMCB_CLEAN = 0 and a flush of its ASID, too. */
static void *vcpu_thread(void *arg)
{
    struct vcpu *c = arg;

    vapic_load(&c->apic, &c->pcpu);
    while (!c->done)
        turn(c);
    vapic_put(&c->apic);
    return NULL;
}

/* ---- A device behind the IOMMU ---- */

/* The handler of the IOMMU's GA log interrupt. */
static void ga_log_interrupt(struct vm *vm)
{
    while (vm->iommu.head != vm->iommu.tail) {
        vapic_ga_log(&vm->platform, vm->log[vm->iommu.head]);
        vm->iommu.head = (vm->iommu.head + 1) % LOG_ENTRIES;
    }
    if (vm->iommu.overflow) {
        vm->iommu.overflow = 0;
        vapic_ga_overflow(&vm->platform);
    }
}

static void device_interrupts(struct vm *vm)
{
    switch (vapic_sil_amd_msi(&vm->iommu, vm->irte, 0x100)) {
    case VAPIC_SIL_MSI_LOGGED: /* posted into IRR, but the vCPU sleeps */
        ga_log_interrupt(vm);
        break;
    case VAPIC_SIL_MSI_REMAPPED: { /* AVIC is off: the handler of DEVICE_VECTOR_OF_HOST posts */
        struct vapic *v = &vm->vcpus[1].apic;
        enum vapic_action action = vapic_post(v, DEVICE_VECTOR, false, NULL);

        if (action != VAPIC_ACTION_NONE)
            host_notify(vm, v, action);
        break;
    }
    default:
        break;
    }
}

/* ---- hypervisor: the nested page tables and memory, for the model ---- */

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
    *page = (struct vapic_sil_page){host_physical(vm, zeros), true, true};
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
        .size = sizeof(sil), .memory = sil_memory, .walk = sil_walk};
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_AMD};

    if (!vapic_sil_init(&vm->silicon, &config, &sil, vm, vm->by_id, VCPUS))
        exit(1);
    vm->iommu = (struct vapic_sil_amd_iommu){
        .machine = &vm->silicon, .log = vm->log, .entries = LOG_ENTRIES};
}

static void create_vm(struct vm *vm)
{
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_AVIC,
                                       .features = VAPIC_ACCEL_IPIV, /* from CPUID and family */
                                       .max_id = VCPUS - 1,
                                       .vm_tag = VM_TAG,
                                       .platform = &vm->platform};

    pthread_mutex_init(&vm->lock, NULL);
    check(vapic_platform_init(&vm->platform, sizeof(vm->platform), &host, vm),
          "vapic_platform_init");
    check(vapic_vm_init(&vm->apics, sizeof(vm->apics), &config, &host, vm, map, sizeof(map)),
          "vapic_vm_init");
    /* vapic_accel_memory(&accel) says how much; here it is known to be two pages. */
    check(
        vapic_accel_init(&vm->accel, sizeof(vm->accel), &vm->apics, &accel, tables, sizeof(tables)),
        "vapic_accel_init");
}

static void create_vcpu(struct vm *vm, uint32_t i)
{
    struct vcpu *c = &vm->vcpus[i];
    struct vapic_config apic = {.id = i, .bsp = i == 0};
    struct vapic_accel_vcpu_config accel = {.vmcb = vmcbs[i]};

    c->page = pages[i];
    c->vmcb = vmcbs[i];
    c->msrpm = msrpms[i];
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->cond, NULL);
    if (!vapic_sil_cpu_init(&c->processor, &vm->silicon, i))
        exit(1);
    check(vapic_pcpu_init(&c->pcpu, sizeof(c->pcpu), i), "vapic_pcpu_init");
    create_vmcb(c, i + 1);
    check(vapic_init(&c->apic, sizeof(c->apic), &vm->apics, &apic, c->page), "vapic_init");
    check(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel), "vapic_accel_attach");
    check(vapic_add(&c->apic), "vapic_add");
}

static void create_device(struct vm *vm)
{
    const uint64_t remapped[2] = {AMD_IRTE_VALID, DEVICE_VECTOR_OF_HOST};

    check(vapic_irte_attach(&vm->device, &vm->vcpus[1].apic, DEVICE_VECTOR, remapped, vm->irte),
          "vapic_irte_attach");
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
    device_interrupts(vm);
    pthread_join(vm->vcpus[1].thread, NULL);
    vapic_irte_detach(&vm->device);
    for (uint32_t i = 0; i < VCPUS; i++)
        taken += vm->vcpus[i].interrupts;
    printf("%u interrupts taken\n", taken);
    for (uint32_t i = 0; i < VCPUS; i++)
        check(vapic_remove(&vm->vcpus[i].apic), "vapic_remove");
    vapic_accel_fini(&vm->accel);
    return taken == 3 ? 0 : 1;
}
