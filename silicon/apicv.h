/* SPDX-License-Identifier: MIT */
/*
 * The inside of the Intel half: what the files apicv_*.c and iommu_vtd.c say to each other.
 *
 *      apicv_vmcs.c      the VMCS as a table of fields
 *      apicv_checks.c    VM entry: the checks on the controls
 *      apicv_entry.c     VM entry: the rest
 *      apicv_exit.c      VM exit: save, report
 *      apicv_boundary.c  instruction boundaries and HLT
 *      apicv_memory.c    translation with a TLB, ordinary memory, the APIC-access page found
 *      apicv_mmio.c      which accesses to the APIC-access page are virtualized
 *      apicv_msr.c       MSRs and CR8
 *      apicv_virt.c      the primitives: TPR, PPR, EOI, self-IPI; delivery; APIC-write emulation
 *      apicv_posted.c    posted interrupts: both ends
 *      apicv_ipiv.c      IPI virtualization
 *      iommu_vtd.c       the IOMMU's end of posting
 *
 * The virtual-APIC page belongs to the processor's owner while it is in the guest. Its words are
 * nevertheless reached with atomic operations only, because other threads look at them; where no
 * order is needed that is VAPIC_RELAXED.
 */
#ifndef VAPIC_SILICON_APICV_H
#define VAPIC_SILICON_APICV_H

#include "internal.h"

/* Fields of a VMCS by their place in struct vapic_sil_vmcs. */
#define APICV_FIELD_LIST(X)                                                                        \
    X(VPID)                                                                                        \
    X(NOTIFICATION_VECTOR)                                                                         \
    X(LAST_PID_INDEX)                                                                              \
    X(GUEST_INTERRUPT_STATUS)                                                                      \
    X(MSR_BITMAP)                                                                                  \
    X(ENTRY_MSR_LOAD)                                                                              \
    X(VIRTUAL_APIC)                                                                                \
    X(APIC_ACCESS)                                                                                 \
    X(PID)                                                                                         \
    X(EPTP)                                                                                        \
    X(EOI_EXIT0)                                                                                   \
    X(EOI_EXIT1)                                                                                   \
    X(EOI_EXIT2)                                                                                   \
    X(EOI_EXIT3)                                                                                   \
    X(TERTIARY_CONTROLS)                                                                           \
    X(PID_TABLE)                                                                                   \
    X(GUEST_PHYSICAL_ADDRESS)                                                                      \
    X(PIN_CONTROLS)                                                                                \
    X(PRIMARY_CONTROLS)                                                                            \
    X(EXIT_CONTROLS)                                                                               \
    X(ENTRY_CONTROLS)                                                                              \
    X(ENTRY_MSR_LOAD_COUNT)                                                                        \
    X(ENTRY_INTR_INFO)                                                                             \
    X(ENTRY_EXCEPTION_ERROR)                                                                       \
    X(ENTRY_LENGTH)                                                                                \
    X(TPR_THRESHOLD)                                                                               \
    X(SECONDARY_CONTROLS)                                                                          \
    X(INSTRUCTION_ERROR)                                                                           \
    X(EXIT_REASON)                                                                                 \
    X(EXIT_INTR_INFO)                                                                              \
    X(EXIT_INTR_ERROR)                                                                             \
    X(IDT_VECTORING)                                                                               \
    X(IDT_VECTORING_ERROR)                                                                         \
    X(EXIT_LENGTH)                                                                                 \
    X(GUEST_SS_RIGHTS)                                                                             \
    X(GUEST_INTERRUPTIBILITY)                                                                      \
    X(GUEST_ACTIVITY)                                                                              \
    X(EXIT_QUALIFICATION)                                                                          \
    X(GUEST_RIP)                                                                                   \
    X(GUEST_RFLAGS)                                                                                \
    X(GUEST_PENDING_DEBUG)

#define APICV_FIELD_ENUM(name) FIELD_##name,
enum apicv_field { APICV_FIELD_LIST(APICV_FIELD_ENUM) APICV_FIELD_COUNT };
#undef APICV_FIELD_ENUM

_Static_assert(APICV_FIELD_COUNT == APICV_VMCS_FIELDS, "the header counts the fields");

static inline uint64_t apicv_get(const struct vapic_sil_cpu *cpu, enum apicv_field field)
{
    return cpu->vmcs->field[field];
}

static inline void apicv_set(struct vapic_sil_cpu *cpu, enum apicv_field field, uint64_t value)
{
    cpu->vmcs->field[field] = value;
}

static inline const struct vapic_sil_knobs *apicv_knobs(const struct vapic_sil_cpu *cpu)
{
    return &cpu->machine->config.knobs;
}

/* Controls that are in effect. */
static inline bool apicv_pin(const struct vapic_sil_cpu *cpu, uint32_t bit)
{
    return (cpu->apicv.pin & bit) != 0;
}

static inline bool apicv_primary(const struct vapic_sil_cpu *cpu, uint32_t bit)
{
    return (cpu->apicv.primary & bit) != 0;
}

static inline bool apicv_secondary(const struct vapic_sil_cpu *cpu, uint32_t bit)
{
    return (cpu->apicv.secondary & bit) != 0;
}

static inline bool apicv_ipiv(const struct vapic_sil_cpu *cpu)
{
    return (cpu->apicv.tertiary & VMX_TER_IPI_VIRTUALIZATION) != 0;
}

/* Words of the virtual-APIC page. VM entry made sure that it exists. */
uint32_t vapic_sil_apicv_page_read(const struct vapic_sil_cpu *cpu, uint32_t offset);
void vapic_sil_apicv_page_write(struct vapic_sil_cpu *cpu, uint32_t offset, uint32_t value);

/* Entry */
struct apicv_controls {
    uint32_t pin, primary, secondary;
    uint64_t tertiary;
};
void vapic_sil_apicv_controls(const struct vapic_sil *m, const struct vapic_sil_vmcs *vmcs,
                              struct apicv_controls *controls);
bool vapic_sil_apicv_checks(const struct vapic_sil *m, const struct vapic_sil_vmcs *vmcs,
                            const struct apicv_controls *controls);
bool vapic_sil_apicv_address_ok(const struct vapic_sil *m, uint64_t address, uint64_t low_bits);

/* Exit. The processor is in host mode afterwards. */
struct apicv_exit {
    uint32_t reason, length, intr_info;
    uint64_t qualification, gpa;
    bool fault; /* the instruction did not happen: RFLAGS.RF is saved as 1 */
};
enum vapic_sil_result vapic_sil_apicv_exit(struct vapic_sil_cpu *cpu,
                                           const struct apicv_exit *exit);
/* An exit that has nothing but a reason and a qualification. */
enum vapic_sil_result vapic_sil_apicv_trap(struct vapic_sil_cpu *cpu, uint32_t reason,
                                           uint64_t qualification);

/* An instruction of `length` bytes is complete. */
void vapic_sil_apicv_complete(struct vapic_sil_cpu *cpu, unsigned length);

/* The primitives: VAPIC_SIL_DONE or VAPIC_SIL_EXIT. */
void vapic_sil_apicv_evaluate(struct vapic_sil_cpu *cpu);
void vapic_sil_apicv_ppr(struct vapic_sil_cpu *cpu);
enum vapic_sil_result vapic_sil_apicv_tpr(struct vapic_sil_cpu *cpu);
enum vapic_sil_result vapic_sil_apicv_eoi(struct vapic_sil_cpu *cpu);
void vapic_sil_apicv_self_ipi(struct vapic_sil_cpu *cpu, uint8_t vector);
uint8_t vapic_sil_apicv_deliver(struct vapic_sil_cpu *cpu);
/* What a completed operation with a virtualized write has to do yet [SDM3 31.4.3.2]. */
enum vapic_sil_result vapic_sil_apicv_emulate_write(struct vapic_sil_cpu *cpu);

/* Posted interrupts */
void vapic_sil_apicv_process_posted(struct vapic_sil_cpu *cpu);
/* `urgent` overrides SN. `cpu` is the sender, NULL for an IOMMU. */
void vapic_sil_apicv_post(struct vapic_sil *m, struct vapic_sil_cpu *cpu, uint64_t *pid,
                          uint8_t vector, bool urgent);

/* IPI virtualization of the value in VICR: VAPIC_SIL_DONE or exit 56 */
enum vapic_sil_result vapic_sil_apicv_send_ipi(struct vapic_sil_cpu *cpu, uint8_t vector,
                                               uint32_t target);

/* The APIC-access page */
enum vapic_sil_result vapic_sil_apicv_page_access(struct vapic_sil_cpu *cpu,
                                                  struct vapic_sil_access *access);
/* The access is done; ends the operation unless there is more of it. */
enum vapic_sil_result vapic_sil_apicv_accessed(struct vapic_sil_cpu *cpu,
                                               const struct vapic_sil_access *access);

/* The Intel half of the calls of silicon.h, with the same arguments. */
void vapic_sil_apicv_leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1,
                           uint64_t info2);
enum vapic_sil_result vapic_sil_apicv_boundary(struct vapic_sil_cpu *cpu, uint8_t *vector);
bool vapic_sil_apicv_waiting(const struct vapic_sil_cpu *cpu);
enum vapic_sil_result vapic_sil_apicv_access(struct vapic_sil_cpu *cpu,
                                             struct vapic_sil_access *access);
enum vapic_sil_result vapic_sil_apicv_rdmsr(struct vapic_sil_cpu *cpu, uint32_t msr,
                                            uint64_t *value);
enum vapic_sil_result vapic_sil_apicv_wrmsr(struct vapic_sil_cpu *cpu, uint32_t msr,
                                            uint64_t value);
enum vapic_sil_result vapic_sil_apicv_read_cr8(struct vapic_sil_cpu *cpu, uint64_t *value);
enum vapic_sil_result vapic_sil_apicv_write_cr8(struct vapic_sil_cpu *cpu, uint64_t value);
enum vapic_sil_result vapic_sil_apicv_hlt(struct vapic_sil_cpu *cpu);

#endif
