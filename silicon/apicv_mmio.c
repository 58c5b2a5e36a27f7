/* SPDX-License-Identifier: MIT */
/*
 * Accesses to the APIC-access page [SDM3 31.4]: which are virtualized, that is, go to the
 * virtual-APIC page instead, and which cause an APIC-access exit. The memory of the APIC-access
 * page itself is never touched.
 *
 * Called by apicv_memory.c when it finds that an access hits the page.
 */
#include "apicv.h"

/* What APIC-register virtualization virtualizes; ranges of 16-byte slots by their first and last
 * register. What is not here causes an exit [SDM3 31.4.2] [SDM3 31.4.3.1]. */
static const struct {
    uint16_t first, last;
    bool write;
} registers[] = {
    {APIC_ID, APIC_ID, true},   {APIC_LVR, APIC_LVR, false},  {APIC_TPR, APIC_TPR, true},
    {APIC_EOI, APIC_EOI, true}, {APIC_LDR, APIC_SVR, true},   {APIC_ISR, APIC_ESR - 0x10, false},
    {APIC_ESR, APIC_ESR, true}, {APIC_ICR, APIC_TMICT, true}, {APIC_TDCR, APIC_TDCR, true},
};

static bool register_virtualized(uint32_t offset, bool write)
{
    uint32_t slot = offset & ~15u;

    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
        if (slot >= registers[i].first && slot <= registers[i].last)
            return !write || registers[i].write;
    return false;
}

/*
 * Without APIC-register virtualization only exact offsets count. That reads of EOI and ICR follow
 * virtual-interrupt delivery is what the manual says since 2021; before, they caused exits: a knob.
 */
static bool exact_virtualized(const struct vapic_sil_cpu *cpu, uint32_t offset, bool write)
{
    bool delivery = apicv_secondary(cpu, VMX_SEC_INTERRUPT_DELIVERY);

    if (offset == APIC_TPR)
        return true;
    if (offset == APIC_ICR && write && apicv_ipiv(cpu) && apicv_knobs(cpu)->ipiv_without_vid)
        return true;
    if (offset != APIC_EOI && offset != APIC_ICR)
        return false;
    return delivery && (write || !apicv_knobs(cpu)->eoi_icr_reads_need_arv);
}

/* An operation may write once, and may repeat that write, but nothing else after it. */
static bool follows_write(const struct vapic_sil_cpu *cpu, const struct vapic_sil_access *access,
                          uint32_t offset, bool write)
{
    if (!cpu->operation.pending_write)
        return false;
    return !write || cpu->operation.write_offset != offset ||
           cpu->operation.write_size != access->size;
}

static bool virtualized(const struct vapic_sil_cpu *cpu, const struct vapic_sil_access *access)
{
    uint32_t offset = access->gpa & VAPIC_SIL_PAGE_MASK;
    bool write = access->kind == VAPIC_SIL_WRITE || access->kind == VAPIC_SIL_EVENT_WRITE;

    if (!write && access->kind != VAPIC_SIL_READ)
        return false;
    if (!apicv_primary(cpu, VMX_PRI_TPR_SHADOW) || (offset & 15) + access->size > 4)
        return false;
    if (follows_write(cpu, access, offset, write))
        return false;
    if (apicv_secondary(cpu, VMX_SEC_APIC_REGISTER))
        return register_virtualized(offset, write);
    return exact_virtualized(cpu, offset, write);
}

/* Page walks use a guest-physical address; whose, an event's or an instruction's, says the type. A
 * read-modify-write reports what a page fault on it would report: a write. */
static uint64_t qualification(const struct vapic_sil_cpu *cpu,
                              const struct vapic_sil_access *access)
{
    static const uint8_t types[] = {
        [VAPIC_SIL_READ] = APICV_ACCESS_READ,
        [VAPIC_SIL_WRITE] = APICV_ACCESS_WRITE,
        [VAPIC_SIL_FETCH] = APICV_ACCESS_FETCH,
        [VAPIC_SIL_TABLE_READ] = APICV_ACCESS_PHYS_INSTR,
        [VAPIC_SIL_TABLE_WRITE] = APICV_ACCESS_PHYS_INSTR,
        [VAPIC_SIL_EVENT_WRITE] = APICV_ACCESS_EVENT,
    };
    uint64_t type = types[access->kind];

    if (type == APICV_ACCESS_PHYS_INSTR)
        return (uint64_t)(cpu->apicv.vectoring ? APICV_ACCESS_PHYS_EVENT : type)
               << APICV_QUAL_TYPE_SHIFT;
    if (access->kind == VAPIC_SIL_READ && access->modify)
        type = APICV_ACCESS_WRITE;
    return type << APICV_QUAL_TYPE_SHIFT | (access->gpa & APICV_QUAL_OFFSET);
}

/* The manual leaves the instruction length undefined, processors supply it and software uses it. */
static enum vapic_sil_result exit_access(struct vapic_sil_cpu *cpu,
                                         const struct vapic_sil_access *access)
{
    struct apicv_exit exit = {
        .reason = VMX_EXIT_APIC_ACCESS,
        .qualification = qualification(cpu, access),
        .length = access->length,
        .fault = true,
    };

    if (cpu->apicv.vectoring || apicv_knobs(cpu)->no_length_on_apic_access)
        exit.length = 0;
    return vapic_sil_apicv_exit(cpu, &exit);
}

static uint32_t low_bytes(unsigned size)
{
    return size >= 4 ? UINT32_MAX : (1u << (8 * size)) - 1;
}

static void read_page(const struct vapic_sil_cpu *cpu, struct vapic_sil_access *access)
{
    uint32_t offset = access->gpa & VAPIC_SIL_PAGE_MASK;
    uint32_t word = vapic_sil_apicv_page_read(cpu, offset & ~3u);

    access->value = word >> (8 * (offset & 3)) & low_bytes(access->size);
}

static void write_page(struct vapic_sil_cpu *cpu, const struct vapic_sil_access *access)
{
    uint32_t offset = access->gpa & VAPIC_SIL_PAGE_MASK;
    unsigned shift = 8 * (offset & 3);
    uint32_t mask = low_bytes(access->size) << shift;
    uint32_t word = vapic_sil_apicv_page_read(cpu, offset & ~3u);

    vapic_sil_apicv_page_write(cpu, offset & ~3u,
                               (word & ~mask) | ((uint32_t)access->value << shift & mask));
    cpu->operation.pending_write = true;
    cpu->operation.write_offset = (uint16_t)offset;
    cpu->operation.write_size = access->size;
}

enum vapic_sil_result vapic_sil_apicv_page_access(struct vapic_sil_cpu *cpu,
                                                  struct vapic_sil_access *access)
{
    if (!virtualized(cpu, access))
        return exit_access(cpu, access);
    if (access->kind == VAPIC_SIL_READ)
        read_page(cpu, access);
    else
        write_page(cpu, access);
    return vapic_sil_apicv_accessed(cpu, access);
}
