/* SPDX-License-Identifier: MIT */
/* A processor's state out of KVM and into it; see kvm_state.h. */
#include "kvm_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "evloop.h"
#include "vapic/arch/apic.h"
#include "vapic/pv.h"

#define XSAVE_SIZE_MIN sizeof(struct kvm_xsave)
#define TR_BUSY        0x2u

static int failed(struct vmm_err *err, const char *what)
{
    return vmm_fail(err, "/dev/kvm: %s: %s", what, strerror(errno));
}

/* ---- MSRs ---- */

/*
 * MSRs that are not copied: those of the APIC have their own way, the TSC is carried over by its
 * offset, the wall clock is written to guest memory whenever its address is, the old name of the
 * system time names the same as the new one, and of Hyper-V nothing is offered.
 */
static const struct {
    uint32_t first, last;
} not_copied[] = {
    {0x00000010, 0x00000012},
    {MSR_APIC_BASE, MSR_APIC_BASE},
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE},
    {MSR_X2APIC_FIRST, MSR_X2APIC_LAST},
    {0x40000000, 0x400001ff},
    {0x4b564d00, 0x4b564d00},
    {VAPIC_MSR_KVM_EOI, VAPIC_MSR_KVM_EOI},
};

static bool is_copied(uint32_t msr)
{
    for (size_t i = 0; i < sizeof(not_copied) / sizeof(not_copied[0]); i++) {
        if (msr >= not_copied[i].first && msr <= not_copied[i].last) {
            return false;
        }
    }
    return true;
}

/* Which MSRs KVM knows. Free it. */
static struct kvm_msr_list *list_msrs(const struct vmm_kvm *kvm)
{
    struct kvm_msr_list probe = {.nmsrs = 0};
    struct kvm_msr_list *list;

    ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, &probe); /* fails, and says how many there are */
    list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
    if (list == NULL) {
        return NULL;
    }
    list->nmsrs = probe.nmsrs;
    if (ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, list) != 0) {
        free(list);
        return NULL;
    }
    return list;
}

/* An MSR of the list that this processor does not have is left out. */
static int save_msrs(const struct vmm_kvm *kvm, int fd, struct vmm_cpu_state *state,
                     struct vmm_err *err)
{
    struct kvm_msr_list *list = list_msrs(kvm);
    struct kvm_msrs *msrs;

    if (list == NULL) {
        return failed(err, "its list of MSRs");
    }
    msrs = calloc(1, sizeof(*msrs) + list->nmsrs * sizeof(msrs->entries[0]));
    if (msrs == NULL) {
        free(list);
        return vmm_fail(err, "no memory for a vCPU's MSRs");
    }
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        uint32_t msr = list->indices[i];
        uint64_t value;

        if (is_copied(msr) && vmm_kvm_read_msr_of(fd, msr, &value) == 0) {
            msrs->entries[msrs->nmsrs++] = (struct kvm_msr_entry){.index = msr, .data = value};
        }
    }
    free(list);
    state->msrs = msrs;
    return 0;
}

/* What a new vCPU has anyway is not written: some of it cannot be. */
static int load_msrs(int fd, const struct kvm_msrs *msrs, struct vmm_err *err)
{
    for (uint32_t i = 0; i < msrs->nmsrs; i++) {
        const struct kvm_msr_entry *e = &msrs->entries[i];
        uint64_t now;

        if (vmm_kvm_read_msr_of(fd, e->index, &now) == 0 && now == e->data) {
            continue;
        }
        if (vmm_kvm_write_msr_of(fd, e->index, e->data) != 0) {
            return vmm_fail(err,
                            "/dev/kvm: MSR %xh, which it gave as %llxh, it does not take in a new "
                            "vCPU: run without --switch-irqchip",
                            e->index, (unsigned long long)e->data);
        }
    }
    return 0;
}

/* ---- TSC ---- */

static uint64_t ns_now(void)
{
    return vmm_clock_mono(&vmm_clock_host);
}

static int tsc_offset_attr(int fd, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)offset,
    };

    return ioctl(fd, request, &attr);
}

static int save_tsc(const struct vmm_kvm *kvm, int fd, struct vmm_cpu_state *state)
{
    int khz = ioctl(fd, KVM_GET_TSC_KHZ, 0);

    state->tsc_khz = khz > 0 ? (uint32_t)khz : 1000000;
    state->tsc_ns = ns_now();
    if (vmm_kvm_read_tsc(fd, &state->tsc) != 0) {
        return -1;
    }
    return kvm->tsc_offset ? tsc_offset_attr(fd, KVM_GET_DEVICE_ATTR, &state->tsc_offset) : 0;
}

/* With the offset the guest's TSC goes on as if nothing had happened; else nearly so. */
static int load_tsc(const struct vmm_kvm *kvm, int fd, const struct vmm_cpu_state *state)
{
    uint64_t offset = state->tsc_offset;
    unsigned __int128 ticks;

    if (kvm->tsc_offset) {
        return tsc_offset_attr(fd, KVM_SET_DEVICE_ATTR, &offset);
    }
    ticks = (unsigned __int128)(ns_now() - state->tsc_ns) * state->tsc_khz / 1000000u;
    return vmm_kvm_write_msr_of(fd, VMM_MSR_TSC, state->tsc + (uint64_t)ticks);
}

/* ---- Registers ---- */

static int save_xsave(int vm_fd, int fd, struct vmm_cpu_state *state)
{
    int size = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    bool large = size > (int)XSAVE_SIZE_MIN;

    state->xsave = calloc(1, large ? (size_t)size : XSAVE_SIZE_MIN);
    if (state->xsave == NULL) {
        return -1;
    }
    return ioctl(fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, state->xsave);
}

int vmm_cpu_save(const struct vmm_kvm *kvm, int vm_fd, int vcpu_fd, struct vmm_cpu_state *state,
                 struct vmm_err *err)
{
    if (vmm_kvm_save_regs(vcpu_fd, &state->regs) != 0) {
        return failed(err, "cannot save the registers");
    }
    if (ioctl(vcpu_fd, KVM_GET_XCRS, &state->xcrs) != 0 || save_xsave(vm_fd, vcpu_fd, state) != 0) {
        return failed(err, "cannot save the floating point state");
    }
    if (save_tsc(kvm, vcpu_fd, state) != 0) {
        return failed(err, "cannot save the TSC");
    }
    return save_msrs(kvm, vcpu_fd, state, err);
}

/*
 * An interrupt that is on its way to the processor is among the events. KVM reports every loaded TR
 * as busy; emulated hosts keep it as available, and consult the I/O permissions of no other.
 */
static int load_regs(const struct vmm_kvm *kvm, int fd, const struct vmm_kvm_regs *from)
{
    struct vmm_kvm_regs regs = *from;

    memset(regs.sregs.interrupt_bitmap, 0, sizeof(regs.sregs.interrupt_bitmap));
    if (kvm->forgets_shadow) {
        regs.sregs.tr.type &= (uint8_t)~TR_BUSY;
    }
    if (ioctl(fd, KVM_SET_SREGS, &regs.sregs) != 0 || ioctl(fd, KVM_SET_REGS, &regs.regs) != 0) {
        return -1;
    }
    return ioctl(fd, KVM_SET_DEBUGREGS, &regs.debug);
}

int vmm_cpu_load(const struct vmm_kvm *kvm, int vcpu_fd, const struct vmm_cpu_state *state,
                 struct vmm_err *err)
{
    if (load_regs(kvm, vcpu_fd, &state->regs) != 0) {
        return failed(err, "cannot load the registers");
    }
    if (state->xcrs.nr_xcrs != 0 && ioctl(vcpu_fd, KVM_SET_XCRS, &state->xcrs) != 0) {
        return failed(err, "cannot load XCR0");
    }
    if (ioctl(vcpu_fd, KVM_SET_XSAVE, state->xsave) != 0) {
        return failed(err, "cannot load the floating point state");
    }
    if (load_tsc(kvm, vcpu_fd, state) != 0) {
        return failed(err, "cannot load the TSC");
    }
    return load_msrs(vcpu_fd, state->msrs, err);
}

int vmm_cpu_save_events(int vcpu_fd, struct vmm_cpu_state *state, struct vmm_err *err)
{
    if (ioctl(vcpu_fd, KVM_GET_MP_STATE, &state->mp) != 0 ||
        ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &state->events) != 0) {
        return failed(err, "cannot save pending events");
    }
    return 0;
}

int vmm_cpu_load_events(int vcpu_fd, const struct vmm_cpu_state *state, struct vmm_err *err)
{
    struct kvm_vcpu_events events = state->events;
    struct kvm_mp_state mp = state->mp;

    if (ioctl(vcpu_fd, KVM_SET_MP_STATE, &mp) != 0 ||
        ioctl(vcpu_fd, KVM_SET_VCPU_EVENTS, &events) != 0) {
        return failed(err, "cannot load pending events");
    }
    return 0;
}

void vmm_cpu_state_free(struct vmm_cpu_state *state)
{
    free(state->xsave);
    free(state->msrs);
    state->xsave = NULL;
    state->msrs = NULL;
}

/* ---- kvmclock ---- */

int vmm_clock_save(int vm_fd, struct vmm_clock_state *state, struct vmm_err *err)
{
    struct kvm_clock_data data = {.clock = 0};

    state->at_ns = ns_now();
    if (ioctl(vm_fd, KVM_GET_CLOCK, &data) != 0) {
        return failed(err, "cannot save kvmclock");
    }
    state->ns = data.clock;
    return 0;
}

/* Time has passed meanwhile for the guest too. */
int vmm_clock_load(int vm_fd, const struct vmm_clock_state *state, struct vmm_err *err)
{
    struct kvm_clock_data data = {.clock = state->ns + (ns_now() - state->at_ns)};

    if (ioctl(vm_fd, KVM_SET_CLOCK, &data) != 0) {
        return failed(err, "cannot load kvmclock");
    }
    return 0;
}
