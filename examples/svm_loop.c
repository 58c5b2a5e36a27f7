/* SPDX-License-Identifier: MIT */
/*
 * How AVIC is wired into a VMRUN loop: the VMCB, the loop, the exits, doorbells, sleeping, kicking,
 * a device behind an IOMMU and its GA log. docs/acceleration.md explains it field by field.
 *
 * What is not AMD's (threads, nested page tables, the guest) is in model_host.h: "hypervisor",
 * which yours has already. The processors and the IOMMU are those of vapic/silicon.h: wherever
 * vapic_sil_ is called yours has an instruction or an MSR. Left out, and said where: timers, SMM,
 * interrupt windows' small print.
 */
#include "model_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICE_VECTOR_OF_HOST = 0x41,
    VM_TAG = 7,
    LOG_ENTRIES = 64,
};

static struct vapic_platform platform; /* one per host */
static struct vapic_irte device;       /* one per interrupt of a device that is assigned */
static struct vapic_sil_amd_iommu iommu;
static uint64_t ga_log[LOG_ENTRIES];

static struct vm the_vm;
static alignas(PAGE) uint8_t vmcbs[VCPUS][PAGE];
static alignas(PAGE) uint8_t msrpms[VCPUS][SVM_MSRPM_SIZE];
static alignas(PAGE) uint8_t tables[2 * PAGE];

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

/* ---- The callbacks: struct vapic_host. Those that are not here are in model_host.c ---- */

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
    vapic_pass_to_msrpm(pass, vcpu_of(v)->msrs);
    dirty(vcpu_of(v), VMCB_CLEAN_PERMISSION);
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
    memset(c->msrs, 0xFF, SVM_MSRPM_SIZE); /* everything exits; host_intercept() opens some */
    set32(c, VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_NMI | VMCB_I3_HLT | VMCB_I3_MSR);
    set32(c, VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    set64(c, VMCB_MSRPM_BASE, host_physical(NULL, c->msrs));
    set64(c, VMCB_NP_ENABLE, VMCB_NP_ENABLED); /* AVIC needs nested paging */
    set32(c, VMCB_ASID, asid);
}

/* ---- Injection: what the processor cannot deliver, and everything while AVIC is off ---- */

static void inject(struct vcpu *c, const struct vapic_entry *entry)
{
    /* An earlier one first; vapic_enter() was told that the slot is full. */
    uint64_t event = c->event;

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

/* Until the next exit, as VMRUN does. */
static void run_guest(struct vcpu *c)
{
    if (vapic_sil_vmrun(&c->processor, host_physical(NULL, c->vmcb)) != VAPIC_SIL_DONE) {
        fprintf(stderr, "VMRUN fails\n");
        exit(1);
    }
    execute_guest(c, SVM_EXIT_INTR);
}

/* ---- Exits ---- */

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

/* The host's own, of which there is only KICK_VECTOR: being taken is all. */
static void take_interrupts(struct vcpu *c)
{
    while (vapic_sil_take_interrupt(&c->processor) >= 0)
        continue;
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
        take_interrupts(c);
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
    while (!wait_for_wake(c))
        take_interrupts(c);
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
static void ga_log_interrupt(void)
{
    while (iommu.head != iommu.tail) {
        vapic_ga_log(&platform, ga_log[iommu.head]);
        iommu.head = (iommu.head + 1) % LOG_ENTRIES;
    }
    if (iommu.overflow) {
        iommu.overflow = 0;
        vapic_ga_overflow(&platform);
    }
}

static void device_interrupts(struct vm *vm)
{
    switch (vapic_sil_amd_msi(&iommu, vm->irte, DEVICE)) {
    case VAPIC_SIL_MSI_LOGGED: /* posted into IRR, but the vCPU sleeps */
        ga_log_interrupt();
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

/* ---- Set-up ---- */

static void create_vm(struct vm *vm)
{
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_AVIC,
                                       .features = VAPIC_ACCEL_IPIV, /* from CPUID and family */
                                       .max_id = VCPUS - 1,
                                       .vm_tag = VM_TAG,
                                       .platform = &platform};

    check(vapic_platform_init(&platform, sizeof(platform), &host, vm), "vapic_platform_init");
    check(
        vapic_vm_init(&vm->apics, sizeof(vm->apics), &config, &host, vm, vm->map, sizeof(vm->map)),
        "vapic_vm_init");
    /* vapic_accel_memory(&accel) says how much; here it is known to be two pages. */
    check(
        vapic_accel_init(&vm->accel, sizeof(vm->accel), &vm->apics, &accel, tables, sizeof(tables)),
        "vapic_accel_init");
}

static void create_vcpu(struct vm *vm, uint32_t i)
{
    struct vcpu *c = create_processor(vm, i);
    struct vapic_config apic = {.id = i, .bsp = i == 0};
    struct vapic_accel_vcpu_config accel = {.vmcb = vmcbs[i]};

    c->vmcb = vmcbs[i];
    c->msrs = msrpms[i];
    create_vmcb(c, i + 1);
    check(vapic_init(&c->apic, sizeof(c->apic), &vm->apics, &apic, c->page), "vapic_init");
    check(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel), "vapic_accel_attach");
    check(vapic_add(&c->apic), "vapic_add");
}

static void create_device(struct vm *vm)
{
    const uint64_t remapped[2] = {AMD_IRTE_VALID, DEVICE_VECTOR_OF_HOST};

    iommu = (struct vapic_sil_amd_iommu){
        .machine = &vm->silicon, .log = ga_log, .entries = LOG_ENTRIES};
    check(vapic_irte_attach(&device, &vm->vcpus[1].apic, DEVICE_VECTOR, remapped, vm->irte),
          "vapic_irte_attach");
}

int main(void)
{
    struct vm *vm = &the_vm;

    create_machine(vm, VAPIC_SIL_AMD);
    create_vm(vm);
    for (uint32_t i = 0; i < VCPUS; i++)
        create_vcpu(vm, i);
    create_device(vm);
    start_second(vm);
    start_threads(vm, vcpu_thread);
    /* vCPU 0 has had its answer. Its peer sleeps, or is about to. */
    pthread_join(vm->vcpus[0].thread, NULL);
    device_interrupts(vm);
    pthread_join(vm->vcpus[1].thread, NULL);
    vapic_irte_detach(&device);
    return finish(vm);
}
