/* SPDX-License-Identifier: MIT */
/*
 * The run loop of a vCPU whose APIC is KVM's own: interrupts, HLT, INIT and SIPI never come here,
 * the devices' accesses do. See kvm_vcpu.h; started by the machine.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm_vcpu.h"
#include "machine.h"
#include "vapic/arch/apic.h"

#define RESET_RIP     0xfff0u
#define RESET_CS_BASE 0xffff0000u

/*
 * INIT sends the boot processor to the reset vector, where firmware restarts the machine; without
 * any KVM finds no instruction to execute there.
 */
static bool is_at_reset_vector(const struct vmm_vcpu *v)
{
    struct vmm_kvm_regs now;

    return v->index == 0 && v->run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
           vmm_kvm_save_regs(v->fd, &now) == 0 && now.regs.rip == RESET_RIP &&
           now.sregs.cs.base == RESET_CS_BASE;
}

static void run(struct vmm_vcpu *v)
{
    uint64_t start = vmm_trace_start(v->machine->config.trace);
    int rc;

    v->stats.runs++;
    rc = ioctl(v->fd, KVM_RUN, 0);
    vmm_trace_span(v->machine->config.trace, v->index, VMM_TRACE_GUEST, start);
    v->incomplete = false;
    if (rc != 0 && errno != EINTR && errno != EAGAIN) {
        vmm_machine_fail(v->machine, v, strerror(errno));
    } else if (rc != 0) {
        v->stats.exits[VMM_EXIT_KICK]++;
    } else if (is_at_reset_vector(v)) {
        vmm_machine_request(v->machine, VMM_WANT_RESET, 0);
    } else {
        vmm_vcpu_exit(v);
    }
}

void *vmm_vcpu_thread_inkernel(void *arg)
{
    struct vmm_vcpu *v = arg;
    uint64_t base;

    vmm_vcpu_begin(v);
    while (!vmm_machine_wants(v->machine)) {
        run(v);
        /* Before the look at the request: whoever makes one kicks afterwards. */
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    }
    if (vmm_kvm_read_msr_of(v->fd, MSR_APIC_BASE, &base) == 0) {
        v->ever_x2apic |= (base & APIC_BASE_EXTD) != 0;
    }
    vmm_vcpu_end(v);
    return NULL;
}
