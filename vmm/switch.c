/* SPDX-License-Identifier: MIT */
/*
 * The live switch between the models; see switch.h.
 *
 * The event thread goes on meanwhile. Whatever it raises or lowers waits for the device lock, which
 * is held from before the first controller is read until the wires lead to the new ones: so every
 * edge is seen by exactly one of the two models. Only what ends a pause of an I/O APIC's pin takes
 * no lock: the pauses are ended before.
 */
#include "switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "irqchip_state.h"
#include "kvm_state.h"
#include "machine.h"

#define RFLAGS_IF 0x200u

struct saved {
    struct vmm_cpu_state *cpu;
    struct vmm_apic_state *apic;
    struct vmm_chips_state chips;
    struct vmm_clock_state clock;
};

static void free_saved(const struct vmm_machine *m, struct saved *s)
{
    for (unsigned i = 0; s->cpu != NULL && i < m->config.cpus; i++) {
        vmm_cpu_state_free(&s->cpu[i]);
    }
    free(s->cpu);
    free(s->apic);
}

/*
 * For the chips' places see irqchip_state.h. Every APIC before any processor: what is settled there
 * may be an event of the processor's.
 */
static int save(struct vmm_machine *m, struct saved *s, struct vmm_err *err)
{
    int rc = vmm_clock_save(m->vm_fd, &s->clock, err);

    if (rc == 0) {
        rc = vmm_ioapic_save(m, &s->chips.ioapic, err);
    }
    for (unsigned i = 0; i < m->config.cpus && rc == 0; i++) {
        rc = vmm_apic_save(&m->cpu[i], &s->apic[i], err);
    }
    for (unsigned i = 0; i < m->config.cpus && rc == 0; i++) {
        rc = vmm_cpu_save_events(m->cpu[i].fd, &s->cpu[i], err);
        if (rc == 0) {
            rc = vmm_cpu_save(&m->kvm, m->vm_fd, m->cpu[i].fd, &s->cpu[i], err);
        }
    }
    return rc == 0 ? vmm_pics_save(m, &s->chips, err) : rc;
}

/* Where libvapic has the APIC, the run loop keeps what KVM does otherwise. */
static void set_activity(struct vmm_vcpu *v, struct vmm_cpu_state *cpu,
                         const struct vmm_apic_state *apic)
{
    bool kernel = v->machine->irqchip == VMM_IRQCHIP_KERNEL;

    cpu->mp.mp_state = kernel ? vmm_mp_state_of(apic->activity) : KVM_MP_STATE_RUNNABLE;
    v->interrupt_flag = (cpu->regs.regs.rflags & RFLAGS_IF) != 0; /* a halted one does not run */
    v->nmi_masked = !kernel && apic->activity == VAPIC_HALTED && cpu->events.nmi.masked != 0;
    v->nmi_given = cpu->events.nmi.masked != 0 || cpu->events.nmi.pending != 0;
}

/* CR8 is the upper half of the TPR: KVM loads it into its own APIC, if it has one. */
static int load_cpu(struct vmm_vcpu *v, struct vmm_cpu_state *cpu, struct vmm_apic_state *apic,
                    struct vmm_err *err)
{
    cpu->regs.sregs.apic_base = apic->base;
    cpu->regs.sregs.cr8 = apic->image[APIC_TPR] >> 4;
    set_activity(v, cpu, apic);
    if (vmm_cpu_load(&v->machine->kvm, v->fd, cpu, err) != 0) {
        return -1;
    }
    if (v->machine->irqchip == VMM_IRQCHIP_KERNEL && vmm_apic_load_kernel(v, apic, err) != 0) {
        return -1;
    }
    return vmm_cpu_load_events(v->fd, cpu, err);
}

static int load_libvapic(struct vmm_machine *m, struct saved *s, struct vmm_err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < m->config.cpus && rc == 0; i++) {
        rc = vmm_apic_load_vapic(&m->cpu[i], &s->apic[i], err);
    }
    return rc == 0 ? vmm_chips_load_vapic(m, &s->chips, err) : rc;
}

static int load(struct vmm_machine *m, struct saved *s, struct vmm_err *err)
{
    int rc = m->irqchip == VMM_IRQCHIP_VAPIC ? load_libvapic(m, s, err) : 0;

    if (rc == 0) {
        rc = vmm_machine_open_vm(m, err);
    }
    if (rc == 0) {
        rc = vmm_clock_load(m->vm_fd, &s->clock, err);
    }
    for (unsigned i = 0; i < m->config.cpus && rc == 0; i++) {
        rc = load_cpu(&m->cpu[i], &s->cpu[i], &s->apic[i], err);
    }
    return rc == 0 && m->irqchip == VMM_IRQCHIP_KERNEL ? vmm_chips_load_kernel(m, &s->chips, err)
                                                       : rc;
}

static int move(struct vmm_machine *m, struct saved *s, struct vmm_err *err)
{
    if (save(m, s, err) != 0) {
        return -1;
    }
    vmm_machine_close_vm(m);
    m->irqchip = m->irqchip == VMM_IRQCHIP_KERNEL ? VMM_IRQCHIP_VAPIC : VMM_IRQCHIP_KERNEL;
    if (load(m, s, err) != 0) {
        return -1;
    }
    m->wires_fd = m->irqchip == VMM_IRQCHIP_KERNEL ? m->vm_fd : -1;
    return 0;
}

int vmm_switch(struct vmm_machine *m, struct vmm_err *err)
{
    struct saved s = {
        .cpu = calloc(m->config.cpus, sizeof(*s.cpu)),
        .apic = calloc(m->config.cpus, sizeof(*s.apic)),
    };
    uint64_t start = vmm_clock_mono(&vmm_clock_host);
    int rc = -1;

    if (s.cpu == NULL || s.apic == NULL) {
        vmm_fail(err, "no memory for the state of %u vCPUs", m->config.cpus);
    } else {
        for (unsigned i = 0; i < m->config.cpus; i++) {
            vmm_vcpu_settle(&m->cpu[i]);
        }
        vmm_chips_end_pauses(m);
        pthread_mutex_lock(&m->devices.env.lock);
        rc = move(m, &s, err);
        pthread_mutex_unlock(&m->devices.env.lock);
    }
    free_saved(m, &s);
    start = vmm_clock_mono(&vmm_clock_host) - start;
    m->switches++;
    m->switch_ns_max = start > m->switch_ns_max ? start : m->switch_ns_max;
    return rc;
}
