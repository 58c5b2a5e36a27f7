/* SPDX-License-Identifier: MIT */
/*
 * How APICv is wired into a VMLAUNCH loop: the VMCS, the loop, the exits, notifications, sleeping
 * and the wake-up vector, kicking, a device behind an IOMMU. docs/acceleration.md explains it field
 * by field.
 *
 * What is not Intel's (threads, EPT, the guest) is in model_host.h: "hypervisor", which yours has
 * already. The processors and the IOMMU are those of vapic/silicon.h: wherever vapic_sil_ is called
 * yours has an instruction or a device. Each vCPU's thread plays its processor, in the guest and in
 * the host. Left out, and said where: timers, SMM, nested guests.
 */
#include "model_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NOTIFY_VECTOR = 0xF1, /* its handler in the host does nothing */
    WAKEUP_VECTOR = 0xF2, /* its handler is vapic_wakeup() */
};

static struct vm the_vm;
static alignas(PAGE) uint8_t bitmaps[VCPUS][PAGE], table[PAGE];

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

/* ---- The VMCS: what is the host's. The library writes the rest through host_control() ---- */

static void create_vmcs(struct vm *vm, struct vcpu *c, uint16_t vpid)
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
    memset(c->msrs, 0xFF, PAGE); /* every MSR exits; host_intercept() opens some */
    vmwrite(c, VMCS_MSR_BITMAP, host_physical(NULL, c->msrs));
    vmwrite(c, VMCS_APIC_ACCESS, host_physical(vm, vm->access_page));
}

/* ---- The callbacks: struct vapic_host. Those that are not here are in model_host.c ---- */

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

/* INVVPID of FEE00000h. */
static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    vapic_sil_flush(&vcpu_of(v)->processor, APIC_DEFAULT_BASE);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    vapic_pass_to_bitmap(pass, vcpu_of(v)->msrs);
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

/* All that is pending on this processor while it is in the host with its interrupts on. True: a
 * kick was among it. */
static bool take_interrupts(struct vm *vm, struct vcpu *c)
{
    bool kicked = false;
    int vector;

    while ((vector = vapic_sil_take_interrupt(&c->processor)) >= 0) {
        kicked |= vector == KICK_VECTOR;
        if (vector == WAKEUP_VECTOR)
            vapic_wakeup(&vm->apics, &c->pcpu); /* wakes by host_notify() who sleeps here */
        /* NOTIFY_VECTOR: being taken was all. */
    }
    return kicked;
}

/* ---- Injection: what the processor cannot deliver, or all while it delivers nothing ---- */

static void inject(struct vcpu *c, const struct vapic_entry *entry)
{
    /* An earlier one first; vapic_enter() was told that the slot is full. */
    uint64_t event = c->event;

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

/* Until the next exit, as VMLAUNCH and VMRESUME do. */
static void run_guest(struct vcpu *c)
{
    if (vapic_sil_vmentry(&c->processor, &c->vmcs) != VAPIC_SIL_DONE) {
        fprintf(stderr, "VM entry fails, error %u\n", (unsigned)vmread(c, VMCS_INSTRUCTION_ERROR));
        exit(1);
    }
    execute_guest(c, VMX_EXIT_EXTINT);
}

/* ---- Exits ---- */

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
    while (!wait_for_wake(c))
        take_interrupts(vm, c);
    vapic_unblock(&c->apic);
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
    bool kicked;

    vapic_enter(&c->apic, can(c), now(), &entry);
    if (entry.event != VAPIC_CPU_NONE)
        return; /* a real one sets the registers for INIT or SIPI here, then looks again */
    if (!entry.runnable) {
        sleep_until_woken(vm, c);
        return;
    }
    inject(c, &entry);
    kicked = take_interrupts(vm, c);
    /*
     * Here the host turns its interrupts off. A notification from now on stays pending and is
     * processed in the guest. One that came between vapic_enter() and here was taken by the host,
     * and a VM entry does not look at what was posted: so look once more. A kick that came there
     * is over, too, and whoever sent it waits for this vCPU to be outside.
     */
    if (kicked || vapic_posted(&c->apic)) {
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

/* ---- Set-up ---- */

static void create_vm(struct vm *vm)
{
    struct vapic_vm_config config = {.max_vcpus = VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_APICV,
                                       .features = VAPIC_ACCEL_IPIV, /* from the capability MSRs */
                                       .max_id = VCPUS - 1,
                                       .notify_vector = NOTIFY_VECTOR,
                                       .wakeup_vector = WAKEUP_VECTOR};

    check(
        vapic_vm_init(&vm->apics, sizeof(vm->apics), &config, &host, vm, vm->map, sizeof(vm->map)),
        "vapic_vm_init");
    /* vapic_accel_memory(&accel) says how much; here it is known to be one page. */
    check(vapic_accel_init(&vm->accel, sizeof(vm->accel), &vm->apics, &accel, table, sizeof(table)),
          "vapic_accel_init");
}

static void create_vcpu(struct vm *vm, uint32_t i)
{
    struct vcpu *c = create_processor(vm, i);
    struct vapic_config apic = {.id = i, .bsp = i == 0};

    c->msrs = bitmaps[i];
    create_vmcs(vm, c, (uint16_t)(i + 1));
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

int main(void)
{
    struct vm *vm = &the_vm;

    create_machine(vm, VAPIC_SIL_INTEL);
    create_vm(vm);
    for (uint32_t i = 0; i < VCPUS; i++)
        create_vcpu(vm, i);
    create_device(vm);
    start_second(vm);
    start_threads(vm, vcpu_thread);
    /* vCPU 0 has had its answer. Its peer sleeps, or is about to. */
    pthread_join(vm->vcpus[0].thread, NULL);
    vapic_sil_vtd_msi(&vm->silicon, vm->irte, DEVICE); /* the device's interrupt message */
    pthread_join(vm->vcpus[1].thread, NULL);
    return finish(vm);
}
