/* SPDX-License-Identifier: MIT */
/*
 * Facts of Intel's APIC virtualization: VMX controls, VMCS fields, exits, the posted-interrupt
 * descriptor, the PID-pointer table and the VT-d interrupt remapping entries. Constants only; the
 * rules that go with them are in the code that cites the manual. Only what takes part in APIC
 * virtualization is here: this is no VMX header.
 *
 * Intel's volume 3 by the numbering of 2024: chapter 26 VMCS, 28 entries, 29 exits, 31 APIC
 * virtualization; capabilities, field encodings and exit reasons are in the appendices.
 */
#ifndef VAPIC_ARCH_APICV_H
#define VAPIC_ARCH_APICV_H

#include <stdint.h>

/* ---------------------------------------------------------------------------------------------- */
/* Capability MSRs                                                                                */
/* ---------------------------------------------------------------------------------------------- */

#define MSR_VMX_BASIC           0x480u
#define MSR_VMX_PIN_CTLS        0x481u /* low half: bits that must be 1; high half: that may be */
#define MSR_VMX_PRIMARY_CTLS    0x482u
#define MSR_VMX_EXIT_CTLS       0x483u
#define MSR_VMX_ENTRY_CTLS      0x484u
#define MSR_VMX_MISC            0x485u
#define MSR_VMX_SECONDARY_CTLS  0x48Bu
#define MSR_VMX_TRUE_PIN_CTLS   0x48Du
#define MSR_VMX_TRUE_PRIM_CTLS  0x48Eu
#define MSR_VMX_TRUE_EXIT_CTLS  0x48Fu
#define MSR_VMX_TRUE_ENTRY_CTLS 0x490u
#define MSR_VMX_TERTIARY_CTLS   0x492u /* 64 bits that may be 1; none must be */

/* ---------------------------------------------------------------------------------------------- */
/* Controls                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

#define VMX_PIN_EXTINT_EXITING     (1u << 0)
#define VMX_PIN_NMI_EXITING        (1u << 3)
#define VMX_PIN_VIRTUAL_NMIS       (1u << 5)
#define VMX_PIN_PREEMPTION_TIMER   (1u << 6)
#define VMX_PIN_POSTED_INTERRUPTS  (1u << 7)

#define VMX_PRI_INTERRUPT_WINDOW   (1u << 2)
#define VMX_PRI_HLT_EXITING        (1u << 7)
#define VMX_PRI_MWAIT_EXITING      (1u << 10)
#define VMX_PRI_TERTIARY           (1u << 17) /* 0: all tertiary controls act as 0 */
#define VMX_PRI_CR8_LOAD           (1u << 19) /* CR8-load exiting: MOV to CR8 */
#define VMX_PRI_CR8_STORE          (1u << 20)
#define VMX_PRI_TPR_SHADOW         (1u << 21)
#define VMX_PRI_NMI_WINDOW         (1u << 22)
#define VMX_PRI_MSR_BITMAPS        (1u << 28)
#define VMX_PRI_SECONDARY          (1u << 31) /* 0: all secondary controls act as 0 */

#define VMX_SEC_APIC_ACCESSES      (1u << 0)
#define VMX_SEC_EPT                (1u << 1)
#define VMX_SEC_X2APIC             (1u << 4)
#define VMX_SEC_VPID               (1u << 5)
#define VMX_SEC_UNRESTRICTED_GUEST (1u << 7)
#define VMX_SEC_APIC_REGISTER      (1u << 8) /* APIC-register virtualization */
#define VMX_SEC_INTERRUPT_DELIVERY (1u << 9) /* virtual-interrupt delivery */

#define VMX_TER_IPI_VIRTUALIZATION (UINT64_C(1) << 4)

#define VMX_EXC_ACK_INTERRUPT      (1u << 15) /* VM-exit control: acknowledge interrupt on exit */

/* Bits that must be 1 (as the TRUE capability MSRs say) and that may be. The model and
 * most processors: what has no name above is accepted where the architecture defines it. */
#define VMX_PIN_MUST   0x00000016u
#define VMX_PIN_MAY    0x000000FFu
#define VMX_PRI_MUST   0x04006172u
#define VMX_PRI_MAY    0xFFFBFFFEu
#define VMX_SEC_MAY    0xDFFFFFFFu
#define VMX_TER_MAY    UINT64_C(0x00000000000000DF)
#define VMX_EXC_MUST   0x00036DFBu
#define VMX_EXC_MAY    0xFFFFFFFFu
#define VMX_ENTRY_MUST 0x000011FBu
#define VMX_ENTRY_MAY  0x00FFFFFFu

/* ---------------------------------------------------------------------------------------------- */
/* VMCS fields, by encoding. A 64-bit field's high half is at encoding + 1 [SDM3 26.11.2]         */
/* ---------------------------------------------------------------------------------------------- */

#define VMCS_FIELD_HIGH             1u

#define VMCS_VPID                   0x0000u
#define VMCS_NOTIFICATION_VECTOR    0x0002u
#define VMCS_LAST_PID_INDEX         0x0008u
#define VMCS_GUEST_INTERRUPT_STATUS 0x0810u
#define VMCS_MSR_BITMAP             0x2004u
#define VMCS_ENTRY_MSR_LOAD         0x200Au
#define VMCS_VIRTUAL_APIC           0x2012u
#define VMCS_APIC_ACCESS            0x2014u
#define VMCS_PID                    0x2016u /* posted-interrupt descriptor address */
#define VMCS_EPTP                   0x201Au
#define VMCS_EOI_EXIT0              0x201Cu /* vectors 0 to 63 */
#define VMCS_EOI_EXIT1              0x201Eu
#define VMCS_EOI_EXIT2              0x2020u
#define VMCS_EOI_EXIT3              0x2022u
#define VMCS_TERTIARY_CONTROLS      0x2034u
#define VMCS_PID_TABLE              0x2042u /* PID-pointer table address */
#define VMCS_GUEST_PHYSICAL_ADDRESS 0x2400u
#define VMCS_PIN_CONTROLS           0x4000u
#define VMCS_PRIMARY_CONTROLS       0x4002u
#define VMCS_EXIT_CONTROLS          0x400Cu
#define VMCS_ENTRY_CONTROLS         0x4012u
#define VMCS_ENTRY_MSR_LOAD_COUNT   0x4014u
#define VMCS_ENTRY_INTR_INFO        0x4016u /* VM-entry interruption information */
#define VMCS_ENTRY_EXCEPTION_ERROR  0x4018u
#define VMCS_ENTRY_LENGTH           0x401Au
#define VMCS_TPR_THRESHOLD          0x401Cu
#define VMCS_SECONDARY_CONTROLS     0x401Eu
#define VMCS_INSTRUCTION_ERROR      0x4400u
#define VMCS_EXIT_REASON            0x4402u
#define VMCS_EXIT_INTR_INFO         0x4404u
#define VMCS_EXIT_INTR_ERROR        0x4406u
#define VMCS_IDT_VECTORING          0x4408u
#define VMCS_IDT_VECTORING_ERROR    0x440Au
#define VMCS_EXIT_LENGTH            0x440Cu
#define VMCS_GUEST_SS_RIGHTS        0x4818u /* DPL, bits 6:5, is the CPL */
#define VMCS_GUEST_INTERRUPTIBILITY 0x4824u
#define VMCS_GUEST_ACTIVITY         0x4826u
#define VMCS_EXIT_QUALIFICATION     0x6400u
#define VMCS_GUEST_RIP              0x681Eu
#define VMCS_GUEST_RFLAGS           0x6820u
#define VMCS_GUEST_PENDING_DEBUG    0x6822u

/* How many of them there are: a model of a VMCS keeps this many values. */
#define APICV_VMCS_FIELDS 41u

/* Guest interrupt status [SDM3 26.4.2]. */
#define VMX_STATUS_RVI(status)    ((uint8_t)(status))
#define VMX_STATUS_SVI(status)    ((uint8_t)((status) >> 8))
#define VMX_STATUS_MAKE(rvi, svi) ((uint32_t)(uint8_t)(rvi) | (uint32_t)(uint8_t)(svi) << 8)

/* Interruptibility and activity [SDM3 26.4.2]. */
#define VMX_INTR_STI               (1u << 0)
#define VMX_INTR_MOV_SS            (1u << 1)
#define VMX_INTR_SMI               (1u << 2)
#define VMX_INTR_NMI               (1u << 3)
#define VMX_ACTIVITY_ACTIVE        0u
#define VMX_ACTIVITY_HLT           1u
#define VMX_ACTIVITY_SHUTDOWN      2u
#define VMX_ACTIVITY_WAIT_FOR_SIPI 3u
#define VMX_RFLAGS_IF              (1u << 9)
#define VMX_RFLAGS_RF              (1u << 16)

/* Interruption information: entry, exit and IDT-vectoring alike [SDM3 26.8.3]. */
#define VMX_INFO_VECTOR        0xFFu
#define VMX_INFO_TYPE          (7u << 8)
#define VMX_INFO_TYPE_EXTERNAL (0u << 8)
#define VMX_INFO_TYPE_NMI      (2u << 8)
#define VMX_INFO_TYPE_HARD     (3u << 8)
#define VMX_INFO_TYPE_SOFT_INT (4u << 8)
#define VMX_INFO_TYPE_PRIV     (5u << 8)
#define VMX_INFO_TYPE_SOFT_EXC (6u << 8)
#define VMX_INFO_TYPE_OTHER    (7u << 8)
#define VMX_INFO_ERROR_CODE    (1u << 11)
#define VMX_INFO_VALID         (1u << 31)

#define VMX_ERROR_CONTROLS     7u /* VM entry with invalid control fields [SDM3 32.4] */

/* ---------------------------------------------------------------------------------------------- */
/* Exits                                                                                          */
/* ---------------------------------------------------------------------------------------------- */

/* Basic exit reasons. */
#define VMX_EXIT_EXCEPTION         0u
#define VMX_EXIT_EXTINT            1u
#define VMX_EXIT_INTERRUPT_WINDOW  7u
#define VMX_EXIT_TASK_SWITCH       9u
#define VMX_EXIT_CPUID             10u
#define VMX_EXIT_HLT               12u
#define VMX_EXIT_VMLAUNCH          20u
#define VMX_EXIT_VMRESUME          24u
#define VMX_EXIT_CR_ACCESS         28u
#define VMX_EXIT_RDMSR             31u
#define VMX_EXIT_WRMSR             32u
#define VMX_EXIT_ENTRY_MSR         34u /* VM-entry failure due to MSR loading */
#define VMX_EXIT_TPR_THRESHOLD     43u
#define VMX_EXIT_APIC_ACCESS       44u /* fault-like */
#define VMX_EXIT_VIRTUALIZED_EOI   45u /* trap-like */
#define VMX_EXIT_EPT_VIOLATION     48u
#define VMX_EXIT_EPT_MISCONFIG     49u
#define VMX_EXIT_APIC_WRITE        56u /* trap-like */
#define VMX_EXIT_REASON_BASIC      0xFFFFu
#define VMX_EXIT_REASON_ENTRY_FAIL (1u << 31)

/* Qualification of exit 44 [SDM3 29.2.1]. */
#define APICV_QUAL_OFFSET       0xFFFu
#define APICV_QUAL_TYPE_SHIFT   12
#define APICV_QUAL_TYPE(q)      ((unsigned)((q) >> 12) & 15u)
#define APICV_ACCESS_READ       0u
#define APICV_ACCESS_WRITE      1u
#define APICV_ACCESS_FETCH      2u
#define APICV_ACCESS_EVENT      3u  /* linear, during event delivery */
#define APICV_ACCESS_PHYS_EVENT 10u /* guest-physical, during event delivery */
#define APICV_ACCESS_PHYS_INSTR 15u /* guest-physical, during an instruction */

/* Qualification of exit 28, MOV CR [SDM3 29.2.1]. */
#define VMX_CR_NUMBER    15u
#define VMX_CR_MOV_TO    (0u << 4)
#define VMX_CR_MOV_FROM  (1u << 4)
#define VMX_CR_GPR_SHIFT 8

/* Qualification of exit 48, EPT violation [SDM3 29.2.1]. */
#define VMX_EPT_QUAL_READ       (1u << 0)
#define VMX_EPT_QUAL_WRITE      (1u << 1)
#define VMX_EPT_QUAL_FETCH      (1u << 2)
#define VMX_EPT_QUAL_READABLE   (1u << 3)
#define VMX_EPT_QUAL_WRITABLE   (1u << 4)
#define VMX_EPT_QUAL_EXECUTABLE (1u << 5)
#define VMX_EPT_QUAL_LINEAR     (1u << 7) /* the access has a linear address */
#define VMX_EPT_QUAL_TRANSLATED (1u << 8) /* ... and is to its translation, not a page walk's */

/* ---------------------------------------------------------------------------------------------- */
/* MSR bitmap                                                                                     */
/* ---------------------------------------------------------------------------------------------- */

/* A page of four bit sets, a 1 means exit: reads of 0 to 1FFFh, reads of C0000000h to C0001FFFh,
 * writes of both [SDM3 26.6.9]. For a low MSR (the x2APIC's are): */
#define APICV_MSR_BITMAP_READ_LOW   0x000u
#define APICV_MSR_BITMAP_READ_HIGH  0x400u
#define APICV_MSR_BITMAP_WRITE_LOW  0x800u
#define APICV_MSR_BITMAP_WRITE_HIGH 0xC00u
#define APICV_MSR_BITMAP_BYTE(msr)  (((msr)&0x1FFFu) >> 3)
#define APICV_MSR_BITMAP_BIT(msr)   ((uint8_t)(1u << ((msr)&7u)))

/* ---------------------------------------------------------------------------------------------- */
/* Virtual APIC: writes that hardware understands                                                 */
/* ---------------------------------------------------------------------------------------------- */

/* ICR low bits that must be zero for a virtualized self-IPI (shorthand 01b; bits 14 and 11 are
 * ignored) and for IPI virtualization (bit 14 is ignored) [SDM3 31.4.3.2] [SDM3 31.1.6]. */
#define APICV_ICR_SELF_RESERVED 0xFFF3B700u
#define APICV_ICR_SELF          (1u << 18)
#define APICV_ICR_IPIV_RESERVED 0xFFFFBF00u
/* WRMSR 830h with IPI virtualization: bits that are #GP (bit 12 is not one) [SDM3 31.5]. */
#define APICV_ICR_X2_RESERVED 0xFFF32000u
#define APICV_FIRST_VECTOR    16u /* self-IPI and IPI virtualization refuse lower ones */

/* ---------------------------------------------------------------------------------------------- */
/* Posted-interrupt descriptor [SDM3 31.6]                                                        */
/* ---------------------------------------------------------------------------------------------- */

/*
 * 64 bytes, 64-byte aligned:
 *      0  PIR, 256 bits
 *      32 ON, SN, NV, NDST as one 64-bit word, the control word
 *      40 left to software
 */
#define PID_SIZE          64u
#define PID_PIR_OFFSET    0u
#define PID_CONTROL       32u
#define PID_ON            1u
#define PID_SN            2u
#define PID_NV_SHIFT      16
#define PID_NV_MASK       (UINT64_C(0xFF) << PID_NV_SHIFT)
#define PID_NDST_SHIFT    32
#define PID_NDST_MASK     (UINT64_C(0xFFFFFFFF) << PID_NDST_SHIFT)
#define PID_RESERVED      UINT64_C(0x00000000FF00FFFC)
#define PID_NV(control)   ((uint8_t)((control) >> PID_NV_SHIFT))
#define PID_NDST(control) ((uint32_t)((control) >> PID_NDST_SHIFT))

/* NDST holds a 32-bit APIC ID on a host in x2APIC mode, an 8-bit one in bits 15:8 else. */
#define PID_NDST_XAPIC(id)      ((uint32_t)(uint8_t)(id) << 8)
#define PID_NDST_XAPIC_ID(ndst) ((uint8_t)((ndst) >> 8))

/* PID-pointer table entry, 8 bytes, indexed by the virtual APIC ID [SDM3 31.1.6]. */
#define APICV_PID_ENTRY_VALID    UINT64_C(1)
#define APICV_PID_ENTRY_RESERVED UINT64_C(0x3E)
#define APICV_PID_ENTRY_FLAGS    UINT64_C(0x3F)
#define APICV_PID_TABLE_MAX      65536u

/* ---------------------------------------------------------------------------------------------- */
/* VT-d interrupt remapping table entry, 128 bits as two words                                    */
/* ---------------------------------------------------------------------------------------------- */

/* Word 0, both formats. */
#define VTD_IRTE_PRESENT      (UINT64_C(1) << 0)
#define VTD_IRTE_FPD          (UINT64_C(1) << 1) /* fault processing disable */
#define VTD_IRTE_POSTED       (UINT64_C(1) << 15)
#define VTD_IRTE_VECTOR(e)    ((uint8_t)((e) >> 16))
#define VTD_IRTE_VECTOR_SHIFT 16
/* Word 0, remapped format. */
#define VTD_IRTE_LOGICAL           (UINT64_C(1) << 2)
#define VTD_IRTE_REDIRECTION_HINT  (UINT64_C(1) << 3)
#define VTD_IRTE_LEVEL             (UINT64_C(1) << 4)
#define VTD_IRTE_DM_SHIFT          5
#define VTD_IRTE_DM                (UINT64_C(7) << 5)
#define VTD_IRTE_DEST_SHIFT        32
#define VTD_IRTE_REMAPPED_RESERVED UINT64_C(0x00000000FF007000)
/* Remapped format on a host in xAPIC mode: the ID is at bits 47:40 (EIM clear). */
#define VTD_IRTE_DEST_XAPIC_SHIFT    40
#define VTD_IRTE_DEST_XAPIC_RESERVED UINT64_C(0xFFFF00FF00000000)
/* Word 0, posted format. */
#define VTD_IRTE_URGENT          (UINT64_C(1) << 14)
#define VTD_IRTE_PID_LOW_SHIFT   38 /* bits 63:38 are the descriptor's address bits 31:6 */
#define VTD_IRTE_POSTED_RESERVED UINT64_C(0x0000003FFF0030FC)
/* Word 1: both formats but for the descriptor's address bits 63:32 at the top. */
#define VTD_IRTE_SID(e)         ((uint16_t)(e))
#define VTD_IRTE_SQ_SHIFT       16
#define VTD_IRTE_SQ             (UINT64_C(3) << 16)
#define VTD_IRTE_SVT_SHIFT      18
#define VTD_IRTE_SVT            (UINT64_C(3) << 18)
#define VTD_IRTE_SVT_NONE       (UINT64_C(0) << 18)
#define VTD_IRTE_SVT_REQUESTER  (UINT64_C(1) << 18) /* compare the source-id, as SQ says */
#define VTD_IRTE_SVT_BUS        (UINT64_C(2) << 18) /* the bus is in SID's range */
#define VTD_IRTE_HIGH_RESERVED  UINT64_C(0x00000000FFF00000)
#define VTD_IRTE_PID_HIGH_SHIFT 32

#endif
