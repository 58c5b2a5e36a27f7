/* SPDX-License-Identifier: MIT */
/*
 * Instruction boundaries: what comes between two instructions, in the order of [SDM3 28.7] and
 * [SDM3 31.2.2]:
 *
 *      1. the event that VM entry injected
 *      2. exit 43 due after VM entry; emulation of an APIC write whose instruction ended by a fault
 *      3. interrupt-window exit, or delivery of a virtual interrupt: never both
 *      4. physical interrupts: exit 1, processing of posted interrupts, or the guest's IDT
 *
 * SMIs, INITs, NMIs, debug traps and the preemption timer, which have their places between 2 and 3,
 * are the driver's.
 */
#include "apicv.h"

/* At most this many notifications are consumed at one boundary: others may keep sending. */
enum { NOTIFICATIONS = 256 };

/* Does anything but SMI, NMI or INIT reach the processor in its activity state? */
static bool interruptible(const struct vapic_sil_cpu *cpu)
{
    return cpu->apicv.activity == VMX_ACTIVITY_ACTIVE;
}

static bool window_open(const struct vapic_sil_cpu *cpu)
{
    return interruptible(cpu) && cpu->guest.interrupt_flag && !cpu->guest.shadow;
}

static enum vapic_sil_result start_delivery(struct vapic_sil_cpu *cpu, uint32_t event,
                                            uint8_t *vector)
{
    *vector = (uint8_t)event;
    cpu->guest.halted = false;
    cpu->apicv.resume = false;
    cpu->apicv.vectoring =
        event & (VMX_INFO_VALID | VMX_INFO_TYPE | VMX_INFO_VECTOR | VMX_INFO_ERROR_CODE);
    return VAPIC_SIL_DELIVER;
}

static enum vapic_sil_result inject(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    uint32_t event = cpu->apicv.entry_event;

    cpu->apicv.entry_event = 0;
    return start_delivery(cpu, event, vector);
}

/*
 * Exits of the boundary come out of HLT, too. The processor becomes active only when the exit is
 * complete: HLT is what is saved [SDM3 29.1].
 *
 * Exit 43 waits in shutdown until that ends, and does not come in wait-for-SIPI, whose end is no
 * affair of this model: there and in shutdown it just stays due.
 */
static enum vapic_sil_result trap_below_threshold(struct vapic_sil_cpu *cpu)
{
    return vapic_sil_apicv_trap(cpu, VMX_EXIT_TPR_THRESHOLD, 0);
}

/* NOTHING: no exit, look on. */
static enum vapic_sil_result virtual_interrupts(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    uint32_t event;

    if (!window_open(cpu))
        return VAPIC_SIL_NOTHING;
    if (apicv_primary(cpu, VMX_PRI_INTERRUPT_WINDOW))
        return vapic_sil_apicv_trap(cpu, VMX_EXIT_INTERRUPT_WINDOW, 0);
    if (!cpu->recognized)
        return VAPIC_SIL_NOTHING;
    event = VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | vapic_sil_apicv_deliver(cpu);
    return start_delivery(cpu, event, vector);
}

/* The host left external interrupts to the guest: its IDT gets the host's vector. */
static enum vapic_sil_result give_away(struct vapic_sil_cpu *cpu, uint8_t physical, uint8_t *vector)
{
    if (!window_open(cpu))
        return VAPIC_SIL_NOTHING;
    vapic_sil_acknowledge(cpu, physical);
    return start_delivery(cpu, VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | physical, vector);
}

/* Without acknowledgement on exit the interrupt stays pending for the host. */
static enum vapic_sil_result exit_for(struct vapic_sil_cpu *cpu, uint8_t physical)
{
    struct apicv_exit exit = {.reason = VMX_EXIT_EXTINT};

    if (apicv_get(cpu, FIELD_EXIT_CONTROLS) & VMX_EXC_ACK_INTERRUPT) {
        vapic_sil_acknowledge(cpu, physical);
        exit.intr_info = VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | physical;
    }
    return vapic_sil_apicv_exit(cpu, &exit);
}

/*
 * One pending physical interrupt. DONE: it was a notification, which is acknowledged and ended in
 * the host's APIC before PIR is read; so one that is sent later is pending anew (pairs with the
 * OR of vapic_sil_interrupt()). A halted processor stays halted unless an interrupt is recognized.
 */
static enum vapic_sil_result physical_interrupt(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    int physical = vapic_sil_physical(cpu);
    bool held = cpu->guest.shadow && apicv_knobs(cpu)->shadow_gates_notification;

    if (physical < 0 || !interruptible(cpu) || held)
        return VAPIC_SIL_NOTHING;
    if (!apicv_pin(cpu, VMX_PIN_EXTINT_EXITING))
        return give_away(cpu, (uint8_t)physical, vector);
    if (!apicv_pin(cpu, VMX_PIN_POSTED_INTERRUPTS) ||
        (uint64_t)physical != apicv_get(cpu, FIELD_NOTIFICATION_VECTOR))
        return exit_for(cpu, (uint8_t)physical);
    vapic_sil_acknowledge(cpu, (uint8_t)physical);
    vapic_sil_apicv_process_posted(cpu);
    return VAPIC_SIL_DONE;
}

static enum vapic_sil_result interrupts(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    enum vapic_sil_result result = VAPIC_SIL_DONE;

    for (unsigned i = 0; result == VAPIC_SIL_DONE && i < NOTIFICATIONS; i++) {
        result = virtual_interrupts(cpu, vector);
        if (result == VAPIC_SIL_NOTHING)
            result = physical_interrupt(cpu, vector);
    }
    return result == VAPIC_SIL_DONE ? virtual_interrupts(cpu, vector) : result;
}

enum vapic_sil_result vapic_sil_apicv_boundary(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    cpu->apicv.vectoring = 0;
    if (cpu->apicv.entry_event)
        return inject(cpu, vector);
    if (cpu->apicv.below && interruptible(cpu))
        return trap_below_threshold(cpu);
    if (cpu->operation.pending_write && vapic_sil_apicv_emulate_write(cpu) == VAPIC_SIL_EXIT)
        return VAPIC_SIL_EXIT;
    return interrupts(cpu, vector);
}

/* An interrupt window that is watched for is waited for as well: it is an exit. */
bool vapic_sil_apicv_waiting(const struct vapic_sil_cpu *cpu)
{
    return interruptible(cpu) && (cpu->recognized || apicv_primary(cpu, VMX_PRI_INTERRUPT_WINDOW));
}

/* With HLT exiting a recognized interrupt that STI blocking holds back does not keep the exit from
 * coming: software has to look at RVI and PIR itself [SDM3 27.1.3]. */
enum vapic_sil_result vapic_sil_apicv_hlt(struct vapic_sil_cpu *cpu)
{
    struct apicv_exit exit = {.reason = VMX_EXIT_HLT, .length = 1};

    cpu->apicv.vectoring = 0;
    if (cpu->guest.cpl > 0)
        return VAPIC_SIL_GP;
    if (apicv_primary(cpu, VMX_PRI_HLT_EXITING))
        return vapic_sil_apicv_exit(cpu, &exit);
    vapic_sil_apicv_complete(cpu, 1);
    cpu->guest.halted = true;
    return VAPIC_SIL_DONE;
}
