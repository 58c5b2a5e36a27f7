/* SPDX-License-Identifier: MIT */
/*
 * CPUID per vCPU: what the host supports, changed by one small function per leaf. The topology is
 * one package of single-threaded cores, the APIC ID being the core's number.
 *
 * CPUID.1:EDX[9] follows IA32_APIC_BASE.EN in KVM by itself, as long as KVM's copy of that MSR is
 * kept in step (vmm_kvm_set_apic_base()); OSXSAVE follows CR4 in the same way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define PV_SIGNATURE 0x40000000u
#define PV_FEATURES  0x40000001u

/* Of KVM's paravirtual features those that need no in-kernel APIC, and PV EOI, which is ours. */
#define PV_CLOCKSOURCE        (1u << 0)
#define PV_NOP_IO_DELAY       (1u << 1)
#define PV_CLOCKSOURCE2       (1u << 3)
#define PV_EOI                (1u << 6)
#define PV_MSI_EXT_DEST_ID    (1u << 15)
#define PV_CLOCKSOURCE_STABLE (1u << 24)
#define PV_CLOCKS             (PV_CLOCKSOURCE | PV_CLOCKSOURCE2 | PV_CLOCKSOURCE_STABLE)
#define PV_KEPT               (PV_CLOCKS | PV_NOP_IO_DELAY)

#define L1_ECX_MONITOR        (1u << 3)
#define L1_ECX_VMX            (1u << 5)
#define L1_ECX_PDCM           (1u << 15)
#define L1_ECX_X2APIC         (1u << 21)
#define L1_ECX_TSC_DEADLINE   (1u << 24)
#define L1_ECX_HYPERVISOR     (1u << 31)
#define L1_EDX_APIC           (1u << 9)
#define L1_EDX_HTT            (1u << 28)
#define L6_EAX_ARAT           (1u << 2)
#define LE1_ECX_CMP_LEGACY    (1u << 1)
#define LE1_ECX_SVM           (1u << 2)
#define LE1_ECX_EXTAPIC       (1u << 3)
#define LE1_ECX_IBS           (1u << 10)
#define LE1_ECX_PERFCTR       (1u << 23 | 1u << 24 | 1u << 28)

#define TOPOLOGY_SMT          1u
#define TOPOLOGY_CORE         2u

typedef void (*leaf_fn)(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e);

static unsigned min_u(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Bits that hold every APIC ID of `cpus` processors. */
static unsigned id_bits(unsigned cpus)
{
    unsigned bits = 0;

    while (bits < 31 && (1u << bits) < cpus) {
        bits++;
    }
    return bits;
}

static void assign(uint32_t *word, uint32_t mask, bool on)
{
    *word = on ? *word | mask : *word & ~mask;
}

static void leaf_features(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    e->ebx = (e->ebx & 0x0000ffffu) | (c->apic_id & 0xff) << 24 | min_u(c->cpus, 255) << 16;
    e->ecx &= ~(L1_ECX_MONITOR | L1_ECX_VMX | L1_ECX_PDCM);
    e->ecx |= L1_ECX_HYPERVISOR;
    e->edx |= L1_EDX_APIC;
    assign(&e->ecx, L1_ECX_X2APIC, c->x2apic);
    assign(&e->ecx, L1_ECX_TSC_DEADLINE, c->tsc_deadline);
    assign(&e->edx, L1_EDX_HTT, c->cpus > 1);
}

/* Intel's caches: the first two levels are a core's own, the third is the package's. */
static void leaf_caches(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    unsigned level = (e->eax >> 5) & 7;
    unsigned ids = 1u << id_bits(c->cpus);

    if ((e->eax & 0x1f) == 0) {
        return;
    }
    e->eax &= 0x00003fffu;
    e->eax |= (level >= 3 ? min_u(ids - 1, 0xfff) : 0) << 14;
    e->eax |= min_u(ids - 1, 0x3f) << 26;
}

/* The APIC timer runs in every C-state: it is ours. */
static void leaf_thermal(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    (void)c;
    e->eax = L6_EAX_ARAT;
    e->ebx = e->ecx = e->edx = 0;
}

/* No counters: their interrupt would have to come through an in-kernel APIC. */
static void leaf_none(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    (void)c;
    e->eax = e->ebx = e->ecx = e->edx = 0;
}

static void leaf_topology(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    static const uint32_t types[] = {TOPOLOGY_SMT, TOPOLOGY_CORE};

    e->eax = e->index == 1 ? id_bits(c->cpus) : 0;
    e->ebx = e->index == 0 ? 1 : e->index == 1 ? c->cpus : 0;
    e->ecx = e->index | (e->index < 2 ? types[e->index] << 8 : 0);
    e->edx = c->apic_id;
}

/* TSC and crystal: the crystal is the clock of the APIC timer. */
static void leaf_crystal(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    e->eax = e->ebx = e->ecx = e->edx = 0;
    if (c->tsc_khz == 0 || c->bus_hz < 1000) {
        return;
    }
    e->eax = c->bus_hz / 1000;
    e->ebx = c->tsc_khz;
    e->ecx = c->bus_hz;
}

static void leaf_pv_signature(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    (void)c;
    e->eax = PV_FEATURES;
}

static void leaf_pv_features(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    e->eax &= PV_KEPT;
    e->eax |= (c->x2apic ? PV_MSI_EXT_DEST_ID : 0) | (c->pv_eoi ? PV_EOI : 0);
    e->ebx = e->ecx = e->edx = 0;
}

static void leaf_ext_features(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    e->ecx &= ~(LE1_ECX_SVM | LE1_ECX_EXTAPIC | LE1_ECX_IBS | LE1_ECX_PERFCTR);
    assign(&e->ecx, LE1_ECX_CMP_LEGACY, c->cpus > 1 && (e->ecx & LE1_ECX_CMP_LEGACY) != 0);
}

static void leaf_ext_sizes(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    if (e->ecx != 0 || c->cpus > 1) {
        e->ecx = (e->ecx & ~0xf0ffu) | id_bits(c->cpus) << 12 | min_u(c->cpus - 1, 0xff);
    }
}

/* AMD's cache leaf: as for Intel's. */
static void leaf_ext_caches(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    unsigned level = (e->eax >> 5) & 7;

    if ((e->eax & 0x1f) != 0) {
        e->eax = (e->eax & 0x00003fffu) | (level >= 3 ? min_u(c->cpus - 1, 0xfff) : 0) << 14;
    }
}

static void leaf_ext_topology(const struct vmm_kvm_cpu_config *c, struct kvm_cpuid_entry2 *e)
{
    e->eax = c->apic_id;
    e->ebx = c->apic_id & 0xff;
    e->ecx = 0;
}

/* What to do with which leaf; a leaf that is not here stays as the host supports it. */
static const struct {
    uint32_t leaf;
    leaf_fn change;
} leaf_table[] = {
    {0x00000001, leaf_features},     {0x00000004, leaf_caches},
    {0x00000005, leaf_none},         {0x00000006, leaf_thermal},
    {0x0000000a, leaf_none},         {0x0000000b, leaf_topology},
    {0x00000015, leaf_crystal},      {0x00000016, leaf_none},
    {0x0000001f, leaf_topology},     {PV_SIGNATURE, leaf_pv_signature},
    {PV_FEATURES, leaf_pv_features}, {0x80000001, leaf_ext_features},
    {0x80000008, leaf_ext_sizes},    {0x8000000a, leaf_none},
    {0x8000001d, leaf_ext_caches},   {0x8000001e, leaf_ext_topology},
    {0x80000022, leaf_none},         {0x80000026, leaf_none},
};

/* Leaves that the engine makes itself, whether the host has them or not. */
struct own_leaf {
    uint32_t leaf;
    uint32_t index;
    uint32_t flags;
};

static const struct own_leaf own_leaves[] = {
    {0x00000006, 0, 0},
    {0x0000000b, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
    {0x0000000b, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
    {0x0000000b, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
    {0x00000015, 0, 0},
    {0x0000001f, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
    {0x0000001f, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
    {0x0000001f, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
};

#define LAST_OWN_LEAF 0x1fu

static bool is_own(uint32_t leaf)
{
    for (size_t i = 0; i < sizeof(own_leaves) / sizeof(own_leaves[0]); i++) {
        if (own_leaves[i].leaf == leaf) {
            return true;
        }
    }
    return false;
}

static void change(const struct vmm_kvm_cpu_config *config, struct kvm_cpuid_entry2 *e)
{
    for (size_t i = 0; i < sizeof(leaf_table) / sizeof(leaf_table[0]); i++) {
        if (leaf_table[i].leaf == e->function) {
            leaf_table[i].change(config, e);
        }
    }
    if (e->function == 0 && e->eax < LAST_OWN_LEAF) {
        e->eax = LAST_OWN_LEAF;
    }
}

unsigned vmm_kvm_build_cpuid(const struct kvm_cpuid2 *supported,
                             const struct vmm_kvm_cpu_config *config,
                             struct kvm_cpuid_entry2 *table, unsigned room)
{
    unsigned n = 0;

    if (supported->nent + sizeof(own_leaves) / sizeof(own_leaves[0]) > room) {
        return 0;
    }
    for (unsigned i = 0; i < supported->nent; i++) {
        if (!is_own(supported->entries[i].function)) {
            table[n++] = supported->entries[i];
        }
    }
    for (size_t i = 0; i < sizeof(own_leaves) / sizeof(own_leaves[0]); i++) {
        table[n++] = (struct kvm_cpuid_entry2){
            .function = own_leaves[i].leaf,
            .index = own_leaves[i].index,
            .flags = own_leaves[i].flags,
        };
    }
    for (unsigned i = 0; i < n; i++) {
        change(config, &table[i]);
    }
    return n;
}

int vmm_kvm_set_cpuid(const struct vmm_kvm *kvm, int vcpu_fd,
                      const struct vmm_kvm_cpu_config *config, struct vmm_err *err)
{
    unsigned room = kvm->supported->nent + sizeof(own_leaves) / sizeof(own_leaves[0]);
    struct kvm_cpuid2 *cpuid;
    int rc;

    cpuid = calloc(1, sizeof(*cpuid) + room * sizeof(struct kvm_cpuid_entry2));
    if (cpuid == NULL) {
        return vmm_fail(err, "no memory for a CPUID table");
    }
    cpuid->nent = vmm_kvm_build_cpuid(kvm->supported, config, cpuid->entries, room);
    rc = ioctl(vcpu_fd, KVM_SET_CPUID2, cpuid);
    free(cpuid);
    if (rc != 0) {
        return vmm_fail(err, "/dev/kvm: KVM_SET_CPUID2: %s", strerror(errno));
    }
    return 0;
}

static const struct kvm_cpuid_entry2 *find(const struct vmm_kvm *kvm, uint32_t leaf)
{
    for (unsigned i = 0; i < kvm->supported->nent; i++) {
        if (kvm->supported->entries[i].function == leaf) {
            return &kvm->supported->entries[i];
        }
    }
    return NULL;
}

bool vmm_kvm_is_amd(const struct vmm_kvm *kvm)
{
    const struct kvm_cpuid_entry2 *e = find(kvm, 0);

    /* "AuthenticAMD" and "HygonGenuine", by the first four letters. */
    return e != NULL && (e->ebx == 0x68747541u || e->ebx == 0x6f677948u);
}

unsigned vmm_kvm_phys_bits(const struct vmm_kvm *kvm)
{
    const struct kvm_cpuid_entry2 *e = find(kvm, 0x80000008u);
    unsigned bits = e != NULL ? e->eax & 0xff : 36;

    return bits < 32 ? 32 : bits > 52 ? 52 : bits;
}
