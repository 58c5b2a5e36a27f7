/* SPDX-License-Identifier: MIT */
/*
 * State of interrupt controllers out of libvapic or KVM and into them; see irqchip_state.h.
 *
 * Two things that a saved image cannot say are settled before it is taken. Events that libvapic
 * holds for the processor (INIT, SIPI, NMIs) are carried out or handed to KVM, which keeps them
 * with the processor's other state. And an expired timer of KVM's becomes an interrupt only at the
 * next KVM_RUN: flush() makes one that enters no guest code.
 */
#include "irqchip_state.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "kvm_irqchip.h"
#include "machine.h"
#include "vapic/arch/ioapic.h"

#define FLUSH_TRIES    100u
#define EXPIRY_WAIT_NS 200000 /* after this a timer that is due has fired */
#define KERNEL_SIGSET  8u     /* bytes of the kernel's signal mask */

static int failed(const struct vmm_vcpu *v, struct vmm_err *err, const char *what)
{
    return vmm_fail(err, "/dev/kvm: vCPU %u: %s: %s", v->index, what, strerror(errno));
}

static int refused(const struct vmm_vcpu *v, struct vmm_err *err, const char *what, int result)
{
    return vmm_fail(err, "libvapic: vCPU %u: %s: %s", v->index, what, vapic_result_text(result));
}

/* KVM may still have part of an instruction to do, even after a write, which needs no answer. */
void vmm_vcpu_settle(struct vmm_vcpu *v)
{
    do {
        vmm_vcpu_finish(v);
    } while (v->incomplete);
}

/* ---- Out of libvapic ---- */

/* INIT and SIPI happen now; NMIs go to KVM, which holds them until the processor takes them. */
static int take_events(struct vmm_vcpu *v, struct vapic_entry *entry, struct vmm_err *err)
{
    const uint32_t can = VAPIC_CAN_INIT | VAPIC_CAN_NMI;

    for (;;) {
        vapic_enter(&v->apic, can, vmm_clock_now_exact(v), entry);
        if (entry->event != VAPIC_CPU_NONE) {
            vmm_vcpu_event(v, entry);
        } else if (entry->inject == VAPIC_INJECT_NMI) {
            vapic_commit(&v->apic, entry);
            if (ioctl(v->fd, KVM_NMI, 0) != 0) {
                return failed(v, err, "KVM_NMI");
            }
        } else {
            break;
        }
    }
    vapic_exit(&v->apic, entry->cr8, true);
    return 0;
}

/* The timer may come to its end, or within a tick of it, after its last look at the clock. */
static void keep_count(struct vmm_apic_state *state, const struct vapic_entry *entry)
{
    if (entry->deadline.clock == VAPIC_CLOCK_NS && vmm_apic_state_count(state) == 0) {
        vmm_apic_state_set_count(state, 1);
    }
}

static int save_vapic(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err)
{
    struct vapic_entry entry;
    struct vapic_now now;
    int rc;

    if (take_events(v, &entry, err) != 0) {
        return -1;
    }
    now = vmm_clock_now_exact(v);
    *state = (struct vmm_apic_state){
        .saved_ns = now.ns,
        .base = vapic_base(&v->apic),
        .activity = vapic_activity(&v->apic),
    };
    rc = vapic_msr_read(&v->apic, MSR_TSC_DEADLINE, &state->deadline, now);
    if (rc != VAPIC_OK) {
        state->deadline = 0; /* this machine does not offer it */
    }
    if (v->machine->config.pv_eoi) {
        vapic_pv_msr_read(&v->apic, VAPIC_MSR_KVM_EOI, &state->pv_eoi);
    }
    rc = vapic_save_image(&v->apic, VAPIC_IMAGE_ID8, state->image, sizeof(state->image), now);
    keep_count(state, &entry);
    return rc == VAPIC_OK ? 0 : refused(v, err, "cannot save", rc);
}

/* ---- Out of KVM ---- */

/* In KVM_RUN every signal but the kick's is blocked, which the caller has blocked elsewhere. */
static int let_kick_in(const struct vmm_vcpu *v)
{
    struct {
        uint32_t len;
        uint8_t bits[KERNEL_SIGSET];
    } __attribute__((packed)) mask = {.len = KERNEL_SIGSET};
    unsigned bit = VMM_KICK_SIGNAL - 1;

    _Static_assert(sizeof(mask) == sizeof(struct kvm_signal_mask) + KERNEL_SIGSET, "KVM's layout");
    memset(mask.bits, 0xff, sizeof(mask.bits));
    mask.bits[bit / 8] &= (uint8_t) ~(1u << bit % 8);
    return ioctl(v->fd, KVM_SET_SIGNAL_MASK, &mask);
}

/*
 * What KVM_RUN may find before the guest. Nothing else can be handled here: a device's access would
 * want the device lock, which the switch holds.
 */
static int end_flush(struct vmm_vcpu *v, struct vmm_err *err)
{
    if (v->run->exit_reason == KVM_EXIT_SHUTDOWN) {
        vmm_vcpu_exit(v);
        return 0;
    }
    return v->run->exit_reason == KVM_EXIT_INTR
               ? 0
               : vmm_fail(err, "/dev/kvm: vCPU %u: exit %u of a KVM_RUN that enters no guest",
                          v->index, v->run->exit_reason);
}

/*
 * A KVM_RUN with a signal pending does everything that comes before the guest, and not the guest.
 * (With immediate_exit set it would do nothing at all.)
 */
static int flush(struct vmm_vcpu *v, struct vmm_err *err)
{
    const struct timespec none = {0, 0};
    sigset_t kick, before;
    int rc, error;

    sigemptyset(&kick);
    sigaddset(&kick, VMM_KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &kick, &before);
    pthread_kill(pthread_self(), VMM_KICK_SIGNAL);
    rc = ioctl(v->fd, KVM_RUN, 0);
    error = errno;
    sigtimedwait(&kick, NULL, &none);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        return end_flush(v, err);
    }
    errno = error;
    return error == EINTR || error == EAGAIN ? 0 : failed(v, err, "KVM_RUN");
}

/* The time is taken afterwards: a timer may end late for it, never early. */
static int get_image(struct vmm_vcpu *v, struct vmm_apic_state *state)
{
    struct kvm_lapic_state apic;

    _Static_assert(sizeof(apic.regs) == VAPIC_IMAGE_SIZE, "the same image");
    if (ioctl(v->fd, KVM_GET_LAPIC, &apic) != 0) {
        return -1;
    }
    state->saved_ns = vmm_clock_mono(&vmm_clock_host);
    memcpy(state->image, apic.regs, sizeof(state->image));
    return 0;
}

/*
 * An image in which every interrupt of the timer is that was due before: the timer did not expire
 * since the image before it, and what had expired until then was flushed in between. The deadline
 * mode needs no such care, there KVM shows an expiry by a deadline of zero. A periodic timer that
 * is quicker than this is not waited for.
 */
static int get_settled_image(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err)
{
    const struct timespec wait = {0, EXPIRY_WAIT_NS};
    struct vmm_apic_state before;

    for (unsigned i = 1; i <= FLUSH_TRIES; i++) {
        before = *state;
        if (get_image(v, &before) != 0) {
            return failed(v, err, "KVM_GET_LAPIC");
        }
        if (vmm_apic_state_counts(&before)) {
            nanosleep(&wait, NULL);
        }
        if (flush(v, err) != 0) {
            return -1;
        }
        if (get_image(v, state) != 0) {
            return failed(v, err, "KVM_GET_LAPIC");
        }
        if (vmm_apic_state_settled(&before, state, i)) {
            return 0;
        }
    }
    return vmm_fail(err,
                    "/dev/kvm: vCPU %u: its APIC timer expires again and again in the "
                    "save: run without --switch-irqchip",
                    v->index);
}

static int read_apic_msrs(struct vmm_vcpu *v, struct vmm_apic_state *state)
{
    if (vmm_kvm_read_msr_of(v->fd, MSR_APIC_BASE, &state->base) != 0) {
        return -1;
    }
    if (v->machine->config.tsc_deadline &&
        vmm_kvm_read_msr_of(v->fd, MSR_TSC_DEADLINE, &state->deadline) != 0) {
        return -1;
    }
    return v->machine->config.pv_eoi ? vmm_kvm_read_msr_of(v->fd, VAPIC_MSR_KVM_EOI, &state->pv_eoi)
                                     : 0;
}

/* Asking for the MP state makes KVM carry out INIT and SIPI: first, so that the image has them. */
static int save_kernel(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err)
{
    struct kvm_mp_state mp;

    *state = (struct vmm_apic_state){.saved_ns = 0};
    if (let_kick_in(v) != 0 || ioctl(v->fd, KVM_GET_MP_STATE, &mp) != 0) {
        return failed(v, err, "KVM_GET_MP_STATE");
    }
    if (get_settled_image(v, state, err) != 0) {
        return -1;
    }
    if (ioctl(v->fd, KVM_GET_MP_STATE, &mp) != 0 || read_apic_msrs(v, state) != 0) {
        return failed(v, err, "the APIC's MSRs");
    }
    state->activity = vmm_activity_of(mp.mp_state);
    return 0;
}

int vmm_apic_save(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err)
{
    return v->machine->irqchip == VMM_IRQCHIP_KERNEL ? save_kernel(v, state, err)
                                                     : save_vapic(v, state, err);
}

/* ---- Into libvapic ---- */

static int load_deadline(struct vmm_vcpu *v, const struct vmm_apic_state *state)
{
    const struct vapic_now now = {vmm_clock_mono(&vmm_clock_host), 0};

    return state->deadline == 0 ? VAPIC_OK
                                : vapic_msr_write(&v->apic, MSR_TSC_DEADLINE, state->deadline, now);
}

int vmm_apic_load_vapic(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err)
{
    struct vapic_now now = {vmm_clock_mono(&vmm_clock_host), 0};
    int rc;

    vapic_reset(&v->apic);
    vmm_apic_state_age(state, VMM_APIC_BUS_NS, now.ns);
    rc = vapic_load_base(&v->apic, state->base);
    if (rc == VAPIC_OK) {
        rc = vapic_load_image(&v->apic, VAPIC_IMAGE_ID8, state->image, sizeof(state->image), now);
    }
    if (rc == VAPIC_OK && vmm_apic_state_ended(state)) {
        rc = vapic_load_timer_ended(&v->apic);
    }
    if (rc == VAPIC_OK) {
        rc = load_deadline(v, state);
    }
    if (rc == VAPIC_OK) {
        rc = vapic_load_activity(&v->apic, state->activity);
    }
    if (rc == VAPIC_OK && v->machine->config.pv_eoi) {
        rc = vapic_pv_msr_write(&v->apic, VAPIC_MSR_KVM_EOI, state->pv_eoi);
    }
    return rc == VAPIC_OK ? 0 : refused(v, err, "cannot load the state of KVM's APIC", rc);
}

/* ---- Into KVM ---- */

/* The deadline comes after the image, which has the timer's mode. */
int vmm_apic_load_kernel(struct vmm_vcpu *v, struct vmm_apic_state *state, struct vmm_err *err)
{
    struct kvm_lapic_state apic;

    if (vmm_kvm_set_apic_base(v->fd, state->base) != 0) {
        return failed(v, err, "IA32_APIC_BASE");
    }
    if (vmm_apic_state_ended(state)) {
        vmm_apic_state_stop(state); /* KVM would have it end once more */
    }
    vmm_apic_state_age(state, VMM_APIC_BUS_NS, vmm_clock_mono(&vmm_clock_host));
    memcpy(apic.regs, state->image, sizeof(apic.regs));
    if (ioctl(v->fd, KVM_SET_LAPIC, &apic) != 0) {
        return failed(v, err, "KVM_SET_LAPIC");
    }
    if (v->machine->config.tsc_deadline &&
        vmm_kvm_write_msr_of(v->fd, MSR_TSC_DEADLINE, state->deadline) != 0) {
        return failed(v, err, "IA32_TSC_DEADLINE");
    }
    if (v->machine->config.pv_eoi &&
        vmm_kvm_write_msr_of(v->fd, VAPIC_MSR_KVM_EOI, state->pv_eoi) != 0) {
        return failed(v, err, "the MSR of PV EOI");
    }
    return 0;
}

/* ---- I/O APIC and 8259 pair ---- */

/*
 * A pause that ends would send its pin's message in the middle of the save. Without it the pin has
 * no remote IRR and a high line, which in the other model sends at once. Nothing begins a pause any
 * more: only an EOI does.
 */
void vmm_chips_end_pauses(struct vmm_machine *m)
{
    for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
        vmm_timer_cancel_sync(&m->pauses[pin].timer);
    }
}

/* A bit for each wire that some device holds high. */
static uint32_t wires_high(const struct vmm_machine *m)
{
    uint32_t high = 0;

    for (unsigned wire = 0; wire < VMM_WIRES; wire++) {
        high |= (uint32_t)(m->devices.env.raised[wire] != 0) << wire;
    }
    return high;
}

static uint32_t read_select(struct vmm_machine *m)
{
    return (uint32_t)vapic_ioapic_read(&m->ioapic, IOAPIC_REGSEL, 4);
}

static void write_window(struct vmm_machine *m, uint32_t select, uint32_t value)
{
    vapic_ioapic_write(&m->ioapic, IOAPIC_REGSEL, select, 4);
    vapic_ioapic_write(&m->ioapic, IOAPIC_IOWIN, value, 4);
}

static void save_ioapic_vapic(struct vmm_machine *m, struct vmm_ioapic_state *state)
{
    state->select = read_select(m);
    vapic_ioapic_write(&m->ioapic, IOAPIC_REGSEL, IOAPIC_REG_ID, 4);
    state->id = (uint32_t)vapic_ioapic_read(&m->ioapic, IOAPIC_IOWIN, 4);
    vapic_ioapic_write(&m->ioapic, IOAPIC_REGSEL, state->select, 4);
    for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
        state->entry[pin] = vapic_ioapic_entry(&m->ioapic, pin);
    }
}

static int get_chip(struct vmm_machine *m, uint32_t id, struct kvm_irqchip *chip)
{
    *chip = (struct kvm_irqchip){.chip_id = id};
    return ioctl(m->vm_fd, KVM_GET_IRQCHIP, chip);
}

int vmm_ioapic_save(struct vmm_machine *m, struct vmm_ioapic_state *state, struct vmm_err *err)
{
    struct kvm_irqchip chip;

    if (m->irqchip == VMM_IRQCHIP_VAPIC) {
        save_ioapic_vapic(m, state);
        return 0;
    }
    if (get_chip(m, KVM_IRQCHIP_IOAPIC, &chip) != 0) {
        return vmm_fail(err, "/dev/kvm: KVM_GET_IRQCHIP: %s", strerror(errno));
    }
    vmm_ioapic_from_kernel(&chip.chip.ioapic, state);
    return 0;
}

static int save_pics_kernel(struct vmm_machine *m, struct vmm_chips_state *state)
{
    struct kvm_irqchip chip;

    if (get_chip(m, KVM_IRQCHIP_PIC_MASTER, &chip) != 0) {
        return -1;
    }
    vmm_pic_from_kernel(&chip.chip.pic, &state->master);
    if (get_chip(m, KVM_IRQCHIP_PIC_SLAVE, &chip) != 0) {
        return -1;
    }
    vmm_pic_from_kernel(&chip.chip.pic, &state->slave);
    return 0;
}

int vmm_pics_save(struct vmm_machine *m, struct vmm_chips_state *state, struct vmm_err *err)
{
    state->master = m->devices.pic.master; /* the wiring is ours in either model */
    state->slave = m->devices.pic.slave;
    if (m->irqchip == VMM_IRQCHIP_KERNEL && save_pics_kernel(m, state) != 0) {
        return vmm_fail(err, "/dev/kvm: KVM_GET_IRQCHIP: %s", strerror(errno));
    }
    return 0;
}

/* The lines first, on masked pins, where a rise is no edge yet. */
int vmm_chips_load_vapic(struct vmm_machine *m, const struct vmm_chips_state *state,
                         struct vmm_err *err)
{
    uint32_t high = wires_high(m);
    int rc = VAPIC_OK;

    vapic_ioapic_reset(&m->ioapic);
    for (unsigned wire = 0; wire < VMM_WIRES; wire++) {
        vmm_machine_wire_to_ioapic(m, wire, high >> wire & 1);
    }
    vmm_pic_load(&m->devices.pic, &state->master, &state->slave, (uint16_t)high);
    vmm_vcpu_act(&m->cpu[0], vapic_set_lint(&m->cpu[0].apic, 0, m->devices.pic.intr));
    write_window(m, IOAPIC_REG_ID, state->ioapic.id);
    vapic_ioapic_write(&m->ioapic, IOAPIC_REGSEL, state->ioapic.select, 4);
    for (unsigned pin = 0; pin < VMM_IOAPIC_PINS && rc == VAPIC_OK; pin++) {
        rc = vapic_ioapic_load_entry(&m->ioapic, pin, state->ioapic.entry[pin]);
    }
    return rc == VAPIC_OK ? 0 : vmm_fail(err, "libvapic: I/O APIC: %s", vapic_result_text(rc));
}

/* The lines first here too: the loaded state then says which of them are news. */
int vmm_chips_load_kernel(struct vmm_machine *m, const struct vmm_chips_state *state,
                          struct vmm_err *err)
{
    struct kvm_irqchip master = {.chip_id = KVM_IRQCHIP_PIC_MASTER};
    struct kvm_irqchip slave = {.chip_id = KVM_IRQCHIP_PIC_SLAVE};
    struct kvm_irqchip ioapic = {.chip_id = KVM_IRQCHIP_IOAPIC};
    uint32_t high = wires_high(m);
    int rc = 0;

    for (unsigned wire = 0; wire < VMM_WIRES && rc == 0; wire++) {
        rc = high >> wire & 1 ? vmm_irqchip_set_wire(m->vm_fd, wire, true) : 0;
    }
    vmm_pic_to_kernel(&state->master, &master.chip.pic);
    vmm_pic_to_kernel(&state->slave, &slave.chip.pic);
    vmm_ioapic_to_kernel(&state->ioapic, high, &ioapic.chip.ioapic);
    if (rc < 0 || ioctl(m->vm_fd, KVM_SET_IRQCHIP, &slave) != 0 ||
        ioctl(m->vm_fd, KVM_SET_IRQCHIP, &master) != 0 ||
        ioctl(m->vm_fd, KVM_SET_IRQCHIP, &ioapic) != 0) {
        return vmm_fail(err, "/dev/kvm: KVM_SET_IRQCHIP: %s", strerror(errno));
    }
    return 0;
}
