/* SPDX-License-Identifier: MIT */
/*
 * STI; HLT on a host processor that forgets the shadow of STI. Called by the run loop before it
 * injects an interrupt.
 *
 * STI lets no interrupt in before the next instruction has run [SDM2 STI], and every idle loop
 * relies on it: an interrupt between its STI and its HLT would be handled, and the HLT would then
 * sleep although there is work. A host interrupt may end the guest's run just there; SVM keeps the
 * shadow in the VMCB [APM2 15.21.5], but the emulated processor of the rig does not load it again
 * at VMRUN, and the interrupt window that KVM asked for opens before the HLT. So there the
 * interrupt waits until the HLT has exited, which ends it at once. It is never wrong to do so: to
 * the guest the interrupt came one instruction later.
 */
#include <cpuid.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm_vcpu.h"
#include "machine.h"

#define LEAF_HYPERVISOR   0x40000000u
#define L1_ECX_HYPERVISOR (1u << 31)
#define SIGNATURE_TCG     "TCGTCGTCGTCG"

#define OPCODE_STI        0xfbu
#define OPCODE_HLT        0xf4u
#define NO_BYTE           (-1)

bool vmm_shadow_is_forgotten(void)
{
    uint32_t eax, ebx, ecx, edx;
    uint32_t name[3];

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & L1_ECX_HYPERVISOR)) {
        return false;
    }
    __cpuid(LEAF_HYPERVISOR, eax, name[0], name[1], name[2]);
    return memcmp(name, SIGNATURE_TCG, sizeof(name)) == 0;
}

/* The byte at a linear address of the guest, or NO_BYTE. */
static int code_byte(const struct vmm_vcpu *v, uint64_t linear)
{
    struct kvm_translation at = {.linear_address = linear};
    const uint8_t *byte;

    if (ioctl(v->fd, KVM_TRANSLATE, &at) != 0 || !at.valid) {
        return NO_BYTE;
    }
    byte = vmm_mem_at(&v->machine->mem, at.physical_address, 1);
    return byte != NULL ? *byte : NO_BYTE;
}

/* Code segments with a base are left alone: a forgotten shadow there is what the processor does. */
bool vmm_shadow_before_hlt(const struct vmm_vcpu *v)
{
    struct kvm_sregs sregs;
    uint64_t rip;

    if (!v->machine->kvm.forgets_shadow || !v->machine->kvm.sync_regs) {
        return false;
    }
    rip = v->run->s.regs.regs.rip;
    return code_byte(v, rip - 1) == OPCODE_STI && code_byte(v, rip) == OPCODE_HLT &&
           ioctl(v->fd, KVM_GET_SREGS, &sregs) == 0 && sregs.cs.base == 0;
}
