/* SPDX-License-Identifier: MIT */
/* /dev/kvm and one virtual machine; see kvm.h. Called by the machine. */
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm_irqchip.h"
#include "layout.h"
#include "vapic/arch/apic.h"
#include "vapic/pv.h"

#define CPUID_ENTRIES_MAX    256u

#define LEAF7_EBX_TSC_ADJUST (1u << 1)

/* What the engine cannot do without. */
static const struct {
    int cap;
    const char *name;
} needed_caps[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
    {KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
};

static int check_caps(const struct vmm_kvm *kvm, struct vmm_err *err)
{
    int version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);

    if (version != KVM_API_VERSION) {
        return vmm_fail(err, "/dev/kvm: API version %d, not %d: use --engine rig", version,
                        KVM_API_VERSION);
    }
    for (size_t i = 0; i < sizeof(needed_caps) / sizeof(needed_caps[0]); i++) {
        if (ioctl(kvm->fd, KVM_CHECK_EXTENSION, needed_caps[i].cap) <= 0) {
            return vmm_fail(err, "/dev/kvm: no %s (Linux 5.10 has it): use --engine rig",
                            needed_caps[i].name);
        }
    }
    return 0;
}

static int read_limits(struct vmm_kvm *kvm, struct vmm_err *err)
{
    int size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    int max = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    int max_id = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID);
    int sync = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);

    if (size < (int)sizeof(struct kvm_run) || max <= 0) {
        return vmm_fail(err, "/dev/kvm: mmap size %d, %d vCPUs: use --engine rig", size, max);
    }
    kvm->tsc_offset = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_VCPU_ATTRIBUTES) > 0;
    kvm->run_size = (size_t)size;
    kvm->max_cpus = (unsigned)max;
    kvm->max_id = (unsigned)(max_id > max ? max_id : max);
    kvm->sync_regs = sync > 0 && (sync & KVM_SYNC_X86_REGS) != 0;
    kvm->forgets_shadow = vmm_shadow_is_forgotten();
    return 0;
}

static int read_cpuid(struct vmm_kvm *kvm, struct vmm_err *err)
{
    size_t size = sizeof(struct kvm_cpuid2) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2);

    kvm->supported = calloc(1, size);
    if (kvm->supported == NULL) {
        return vmm_fail(err, "no memory for the host's CPUID table");
    }
    kvm->supported->nent = CPUID_ENTRIES_MAX;
    if (ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, kvm->supported) != 0) {
        return vmm_fail(err, "/dev/kvm: KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    }
    for (unsigned i = 0; i < kvm->supported->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &kvm->supported->entries[i];

        kvm->tsc_adjust |=
            e->function == 7 && e->index == 0 && (e->ebx & LEAF7_EBX_TSC_ADJUST) != 0;
    }
    return 0;
}

/* Opened once and kept: a later machine of the same process may be made inside the sandbox, where
 * nothing can be opened any more. */
static int device(void)
{
    static int kept = -1;

    if (kept < 0) {
        kept = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    }
    return kept < 0 ? -1 : fcntl(kept, F_DUPFD_CLOEXEC, 0);
}

int vmm_kvm_open(struct vmm_kvm *kvm, struct vmm_err *err)
{
    *kvm = (struct vmm_kvm){.fd = device()};
    if (kvm->fd < 0) {
        return vmm_fail(err,
                        "cannot open /dev/kvm: %s: load the kvm module, get access to the "
                        "device, or use --engine rig",
                        strerror(errno));
    }
    if (check_caps(kvm, err) != 0 || read_limits(kvm, err) != 0 || read_cpuid(kvm, err) != 0) {
        vmm_kvm_close(kvm);
        return -1;
    }
    return 0;
}

void vmm_kvm_close(struct vmm_kvm *kvm)
{
    free(kvm->supported);
    if (kvm->fd >= 0) {
        close(kvm->fd);
    }
    *kvm = (struct vmm_kvm){.fd = -1};
}

static int add_memory(int vm, uint32_t slot, uint64_t gpa, uint64_t size, const uint8_t *host)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };

    return size == 0 ? 0 : ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

struct filtered {
    uint32_t msr;
    uint32_t flags;
};

#define FILTERED_MAX 5u

/* Which MSR accesses KVM shall leave to us; returns their number. */
static unsigned list_filtered(const struct vmm_kvm *kvm, struct filtered list[FILTERED_MAX])
{
    unsigned n = 0;

    list[n++] = (struct filtered){MSR_APIC_BASE, KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE};
    list[n++] = (struct filtered){MSR_TSC_DEADLINE, KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE};
    list[n++] = (struct filtered){VAPIC_MSR_KVM_EOI, KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE};
    if (kvm->tsc_offset) {
        list[n++] = (struct filtered){VMM_MSR_TSC, KVM_MSR_FILTER_WRITE};
    }
    if (kvm->tsc_offset && kvm->tsc_adjust) {
        list[n++] = (struct filtered){VMM_MSR_TSC_ADJUST, KVM_MSR_FILTER_WRITE};
    }
    return n;
}

/*
 * KVM would swallow IA32_APIC_BASE, IA32_TSC_DEADLINE and the MSR of PV EOI, and carry out a write
 * of the TSC without telling the timer that waits for it. A cleared bit in the filter's bitmap
 * denies the access, which then exits. The x2APIC MSRs cannot be named in a filter and need not:
 * without an in-kernel APIC they are invalid, and that exits too.
 */
static int filter_msrs(const struct vmm_kvm *kvm, int vm)
{
    static uint64_t denied; /* KVM reads bitmaps in words of 64 bits */
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args[0] =
            KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER,
    };
    struct filtered list[FILTERED_MAX];
    unsigned n = list_filtered(kvm, list);

    for (unsigned i = 0; i < n; i++) {
        filter.ranges[i].flags = list[i].flags;
        filter.ranges[i].base = list[i].msr;
        filter.ranges[i].nmsrs = 1;
        filter.ranges[i].bitmap = (uint8_t *)&denied;
    }
    if (ioctl(vm, KVM_ENABLE_CAP, &cap) != 0) {
        return -1;
    }
    return ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter);
}

/* With its own APIC KVM carries out every access; only MSRs that it does not know are ours. */
static int leave_msrs(int vm)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args[0] = KVM_MSR_EXIT_REASON_UNKNOWN,
    };

    return ioctl(vm, KVM_ENABLE_CAP, &cap);
}

static int set_up_vm(const struct vmm_kvm *kvm, int vm, enum vmm_irqchip irqchip)
{
    if (ioctl(vm, KVM_SET_TSS_ADDR, VMM_KVM_TSS_BASE) != 0) {
        return -1;
    }
    if (irqchip == VMM_IRQCHIP_KERNEL) {
        return leave_msrs(vm) != 0 ? -1 : vmm_irqchip_create(vm);
    }
    return filter_msrs(kvm, vm);
}

int vmm_kvm_create_vm(const struct vmm_kvm *kvm, const struct vmm_mem *mem,
                      enum vmm_irqchip irqchip, struct vmm_err *err)
{
    int vm;

    do {
        vm = ioctl(kvm->fd, KVM_CREATE_VM, 0);
    } while (vm < 0 && errno == EINTR);
    if (vm < 0) {
        return vmm_fail(err, "/dev/kvm: KVM_CREATE_VM: %s: use --engine rig", strerror(errno));
    }
    if (set_up_vm(kvm, vm, irqchip) != 0) {
        vmm_fail(err, "/dev/kvm: setting up the virtual machine: %s", strerror(errno));
    } else if (add_memory(vm, 0, 0, mem->low, mem->host) != 0 ||
               add_memory(vm, 1, VMM_HOLE_END, mem->high, mem->host + mem->low) != 0) {
        vmm_fail(err, "/dev/kvm: cannot give %llu MiB to the guest: %s: lower --mem",
                 (unsigned long long)((mem->low + mem->high) >> 20), strerror(errno));
    } else {
        return vm;
    }
    close(vm);
    return -1;
}
