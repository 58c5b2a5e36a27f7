/* SPDX-License-Identifier: MIT */
/*
 * Facts of AMD's AVIC and x2AVIC, of the VMCB around them, and of AMD IOMMUs that post into backing
 * pages. Constants and layouts only; the rules that go with them are where the code cites them.
 *
 * [APM2 15.29] AVIC, [APM2 B] VMCB layout, [APM2 C] exit codes, [IOMMU] AMD I/O Virtualization
 * Technology specification. Offsets are bytes. Bits of a 64-bit field are given as 64-bit masks.
 */
#ifndef VAPIC_ARCH_AVIC_H
#define VAPIC_ARCH_AVIC_H

#include <stdint.h>

/* ---- CPUID 8000000A ---- */

#define SVM_CPUID_EDX_NP         (1u << 0)
#define SVM_CPUID_EDX_NRIPS      (1u << 3)
#define SVM_CPUID_EDX_CLEAN      (1u << 5)
#define SVM_CPUID_EDX_AVIC       (1u << 13)
#define SVM_CPUID_EDX_VGIF       (1u << 16)
#define SVM_CPUID_EDX_X2AVIC     (1u << 18)
#define SVM_CPUID_EDX_VNMI       (1u << 25)
#define SVM_CPUID_EDX_EXT_LVT    (1u << 27) /* extended LVTs: reads allowed, writes trap */
#define SVM_CPUID_EDX_IDLE_HLT   (1u << 30)
#define SVM_CPUID_ECX_X2AVIC_EXT (1u << 6) /* x2AVIC with up to 4096 vCPUs */

/* ---- MSRs ---- */

#define AVIC_DOORBELL_MSR 0xC001011Bu /* write only: host APIC ID of the processor to signal */
#define SVM_MSR_FIRST     0xC0010000u /* third range of the permission map */

/* ---- VMCB control area [APM2 B.1] ---- */

#define VMCB_SIZE          0x1000u
#define VMCB_INTERCEPT_CR  0x000u /* 16 bits of reads, 16 bits of writes */
#define VMCB_INTERCEPT_DR  0x004u
#define VMCB_INTERCEPT_EXC 0x008u
#define VMCB_INTERCEPT3    0x00Cu /* INTR, NMI, ..., HLT, MSR; VMCB_I3_* */
#define VMCB_INTERCEPT4    0x010u /* VMRUN, ...; VMCB_I4_* */
#define VMCB_INTERCEPT5    0x014u /* idle HLT, ...; VMCB_I5_* */
#define VMCB_IOPM_BASE     0x040u
#define VMCB_MSRPM_BASE    0x048u
#define VMCB_TSC_OFFSET    0x050u
#define VMCB_ASID          0x058u /* 32 bits */
#define VMCB_TLB_CONTROL   0x05Cu /* 8 bits */
#define VMCB_INT_CTL       0x060u /* 64 bits; VMCB_V_* */
#define VMCB_INT_STATE     0x068u
#define VMCB_EXITCODE      0x070u
#define VMCB_EXITINFO1     0x078u
#define VMCB_EXITINFO2     0x080u
#define VMCB_EXITINTINFO   0x088u
#define VMCB_NP_ENABLE     0x090u
#define VMCB_AVIC_BAR      0x098u /* guest-physical address of the APIC page */
#define VMCB_EVENTINJ      0x0A8u
#define VMCB_N_CR3         0x0B0u
#define VMCB_CLEAN         0x0C0u /* 32 bits; VMCB_CLEAN_* */
#define VMCB_NRIP          0x0C8u
#define VMCB_AVIC_BACKING  0x0E0u /* backing page */
#define VMCB_AVIC_LOGICAL  0x0F0u /* logical APIC ID table */
#define VMCB_AVIC_PHYSICAL 0x0F8u /* physical APIC ID table, and the index of its last entry */

/* State save area [APM2 B.2]; offsets from the VMCB's start. */
#define VMCB_CPL       0x4CBu /* 8 bits */
#define VMCB_EFER      0x4D0u
#define VMCB_CR4       0x548u
#define VMCB_CR3       0x550u
#define VMCB_CR0       0x558u
#define VMCB_RFLAGS    0x570u
#define VMCB_RIP       0x578u
#define VMCB_RSP       0x5D8u
#define VMCB_RAX       0x5F8u

#define VMCB_RFLAGS_IF (1ull << 9)

/* Intercepts. A CR intercept's bit is the register's number; writes are 16 bits higher. */
#define VMCB_CR8_READ    (1u << 8)
#define VMCB_CR8_WRITE   (1u << 24)
#define VMCB_I3_INTR     (1u << 0)
#define VMCB_I3_NMI      (1u << 1)
#define VMCB_I3_SMI      (1u << 2)
#define VMCB_I3_INIT     (1u << 3)
#define VMCB_I3_VINTR    (1u << 4)
#define VMCB_I3_IRET     (1u << 20)
#define VMCB_I3_HLT      (1u << 24)
#define VMCB_I3_MSR      (1u << 28)
#define VMCB_I3_SHUTDOWN (1u << 31)
#define VMCB_I4_VMRUN    (1u << 0) /* must be one, or VMRUN fails [APM2 15.5.1] */
#define VMCB_I5_IDLE_HLT (1u << 6)

/* TLB_CONTROL [APM2 15.16.2] */
#define VMCB_TLB_NOTHING         0u
#define VMCB_TLB_ALL             1u
#define VMCB_TLB_ASID            3u
#define VMCB_TLB_ASID_NON_GLOBAL 7u

/* int_ctl [APM2 15.21] [APM2 15.29.2] */
#define VMCB_V_TPR             0xFull
#define VMCB_V_IRQ             (1ull << 8)
#define VMCB_V_GIF             (1ull << 9)
#define VMCB_V_NMI             (1ull << 11)
#define VMCB_V_NMI_MASK        (1ull << 12)
#define VMCB_V_INTR_PRIO_SHIFT 16
#define VMCB_V_INTR_PRIO       (0xFull << 16)
#define VMCB_V_IGN_TPR         (1ull << 20)
#define VMCB_V_INTR_MASKING    (1ull << 24)
#define VMCB_V_GIF_ENABLE      (1ull << 25)
#define VMCB_V_NMI_ENABLE      (1ull << 26)
#define VMCB_V_X2AVIC          (1ull << 30)
#define VMCB_V_AVIC            (1ull << 31)
#define VMCB_V_VECTOR_SHIFT    32
#define VMCB_V_VECTOR          (0xFFull << 32)

/* int_state */
#define VMCB_STATE_SHADOW 1u

/* NP_ENABLE */
#define VMCB_NP_ENABLED 1u

/* EVENTINJ, EXITINTINFO [APM2 15.20] */
#define VMCB_EVENT_VECTOR      0xFFull
#define VMCB_EVENT_TYPE        (7ull << 8)
#define VMCB_EVENT_INTR        (0ull << 8)
#define VMCB_EVENT_NMI         (2ull << 8)
#define VMCB_EVENT_EXCEPTION   (3ull << 8)
#define VMCB_EVENT_SOFTWARE    (4ull << 8)
#define VMCB_EVENT_ERROR_VALID (1ull << 11)
#define VMCB_EVENT_VALID       (1ull << 31)

/* Clean bits [APM2 15.15.3] */
#define VMCB_CLEAN_INTERCEPTS (1u << 0)
#define VMCB_CLEAN_PERMISSION (1u << 1) /* IOPM and MSRPM bases */
#define VMCB_CLEAN_ASID       (1u << 2)
#define VMCB_CLEAN_TPR        (1u << 3)  /* int_ctl */
#define VMCB_CLEAN_NP         (1u << 4)  /* NP_ENABLE, N_CR3 */
#define VMCB_CLEAN_AVIC       (1u << 11) /* 098h, 0E0h, 0F0h, 0F8h */

/* Exit codes [APM2 C] */
#define SVM_EXIT_CR8_READ        0x008ull
#define SVM_EXIT_CR8_WRITE       0x018ull
#define SVM_EXIT_EXCEPTION       0x040ull /* 32 of them, by vector */
#define SVM_EXIT_INTR            0x060ull
#define SVM_EXIT_NMI             0x061ull
#define SVM_EXIT_VINTR           0x064ull
#define SVM_EXIT_HLT             0x078ull
#define SVM_EXIT_MSR             0x07Cull /* EXITINFO1: 0 RDMSR, 1 WRMSR */
#define SVM_EXIT_TASK_SWITCH     0x07Dull
#define SVM_EXIT_SHUTDOWN        0x07Full
#define SVM_EXIT_VMRUN           0x080ull
#define SVM_EXIT_IDLE_HLT        0x0A6ull
#define SVM_EXIT_NPF             0x400ull
#define SVM_EXIT_AVIC_INCOMPLETE 0x401ull /* incomplete IPI */
#define SVM_EXIT_AVIC_NOACCEL    0x402ull /* access that is not accelerated */
#define SVM_EXIT_INVALID         (~0ull)

/* EXITINFO1 of a nested page fault [APM2 15.25.6]; EXITINFO2 is the guest-physical address. */
#define SVM_NPF_PRESENT (1ull << 0)
#define SVM_NPF_WRITE   (1ull << 1)
#define SVM_NPF_USER    (1ull << 2) /* always set: nested walks are user accesses */
#define SVM_NPF_FETCH   (1ull << 4)
#define SVM_NPF_FINAL   (1ull << 32) /* at the final address of the guest's access */
#define SVM_NPF_TABLE   (1ull << 33) /* during the guest's own table walk */

/* ---- MSR permission map [APM2 15.11] ---- */

#define SVM_MSRPM_SIZE 0x2000u

/* The first of the two bits of `msr` (read; the next one is write); -1 for an MSR outside of the
 * three ranges, which is always intercepted. Byte n/8, bit n%8 of the map. */
static inline int32_t svm_msrpm_bit(uint32_t msr)
{
    uint32_t low = msr & 0x1FFFu;

    switch (msr & ~0x1FFFu) {
    case 0x00000000u:
        return (int32_t)(low * 2);
    case 0xC0000000u:
        return (int32_t)(0x800u * 8 + low * 2);
    case SVM_MSR_FIRST:
        return (int32_t)(0x1000u * 8 + low * 2);
    default:
        return -1;
    }
}

/* ---- Tables [APM2 15.29.2] ---- */

/* Pointers in the VMCB and in table entries. */
#define AVIC_ADDRESS      0x000FFFFFFFFFF000ull /* 51:12 */
#define AVIC_ADDRESS_HIGH 0xFFF0000000000000ull /* 63:52, should be zero */
#define AVIC_ADDRESS_LOW  0xFFFull
#define AVIC_MAX_INDEX    0xFFFull /* in VMCB_AVIC_PHYSICAL: the last entry, not a count */

/* What MAX_INDEX may be. */
#define AVIC_MAX_INDEX_X1     255u
#define AVIC_MAX_INDEX_X2     511u
#define AVIC_MAX_INDEX_X2_EXT 4095u
/* The highest ID that xAVIC can address; FFh means everybody. */
#define AVIC_LAST_ID_X1 254u

/* Physical APIC ID table: 64-bit entries by guest APIC ID. */
#define AVIC_PHYSICAL_VALID    (1ull << 63)
#define AVIC_PHYSICAL_RUNNING  (1ull << 62)
#define AVIC_PHYSICAL_RESERVED (0x3FFull << 52)
#define AVIC_PHYSICAL_BACKING  AVIC_ADDRESS
#define AVIC_PHYSICAL_HOST_ID  0xFFFull

/* Logical APIC ID table: 32-bit entries; flat: bit number; cluster: 4 * cluster + bit number. */
#define AVIC_LOGICAL_VALID    (1u << 31)
#define AVIC_LOGICAL_ID       0xFFu
#define AVIC_LOGICAL_FLAT     8u  /* entries used by the flat model */
#define AVIC_LOGICAL_CLUSTERS 15u /* 0 to 14; 15 is reserved */

/* ---- Exits of AVIC [APM2 15.29.9] ---- */

/* 401h, incomplete IPI. EXITINFO1: ICR, high half in 63:32. */
#define AVIC_IPI_INDEX    0xFFFull /* EXITINFO2 */
#define AVIC_IPI_ID_SHIFT 32       /* EXITINFO2 */

enum avic_ipi_id {
    AVIC_IPI_INVALID_TYPE = 0,
    AVIC_IPI_NOT_RUNNING = 1, /* IRR is set in every valid target already */
    AVIC_IPI_INVALID_TARGET = 2,
    AVIC_IPI_INVALID_BACKING = 3,
    AVIC_IPI_INVALID_VECTOR = 4,
    AVIC_IPI_UNACCELERATED = 5 /* Secure AVIC only */
};

/* 402h, access without acceleration. EXITINFO1; EXITINFO2 for EOI: the vector in 7:0. */
#define AVIC_NOACCEL_OFFSET 0xFF0ull
#define AVIC_NOACCEL_WRITE  (1ull << 32)
#define AVIC_NOACCEL_VECTOR 0xFFull

/* ---- IOMMU: interrupt remapping table entry, 128 bits [IOMMU 2.2.5] ---- */

/* Low word; the comment says which mode has the bit. */
#define AMD_IRTE_VALID          (1ull << 0) /* RemapEn */
#define AMD_IRTE_SUP_IOPF       (1ull << 1)
#define AMD_IRTE_GA_LOG_INTR    (1ull << 2) /* guest: log when not running */
#define AMD_IRTE_INT_TYPE       (7ull << 2) /* remapped */
#define AMD_IRTE_INT_TYPE_SHIFT 2
#define AMD_IRTE_GA_RESERVED    (3ull << 3) /* guest */
#define AMD_IRTE_GAPPI_DIS      (1ull << 5) /* RQ_EOI on older parts, when remapped */
#define AMD_IRTE_IS_RUN         (1ull << 6) /* guest */
#define AMD_IRTE_LOGICAL        (1ull << 6) /* remapped: logical destination mode */
#define AMD_IRTE_GUEST_MODE     (1ull << 7)
#define AMD_IRTE_DEST_LOW       (0xFFFFFFull << 8) /* destination 23:0 */
#define AMD_IRTE_DEST_LOW_SHIFT 8
#define AMD_IRTE_GA_TAG_SHIFT   32 /* guest: 63:32 */
/* High word. */
#define AMD_IRTE_HI_VECTOR     0xFFull
#define AMD_IRTE_HI_RESERVED   ((0xFull << 8) | (0xFull << 52))
#define AMD_IRTE_HI_ROOT       (0xFFFFFFFFFFull << 12) /* guest: backing page 51:12 in place */
#define AMD_IRTE_HI_DEST_HIGH  (0xFFull << 56)         /* destination 31:24 */
#define AMD_IRTE_HI_DEST_SHIFT 56

/* GA log entry [IOMMU 2.8]. */
#define AMD_GA_LOG_TAG          0xFFFFFFFFull
#define AMD_GA_LOG_DEVICE_SHIFT 32
#define AMD_GA_LOG_DEVICE       (0xFFFFull << 32)
#define AMD_GA_LOG_TYPE_SHIFT   60
#define AMD_GA_LOG_GUEST_NR     1ull /* type: interrupt for a vCPU that is not running */

/* GATag as vapic's users commonly build it: the hardware does not look into it. */
#define AVIC_GA_TAG_VCPU_BITS 12
#define AVIC_GA_TAG_VCPU      0xFFFu
#define AVIC_GA_TAG(vm, vcpu) (((uint32_t)(vm) << AVIC_GA_TAG_VCPU_BITS) | (uint32_t)(vcpu))

#endif
