/* SPDX-License-Identifier: MIT */
/*
 * Memory accesses of the guest: through the cached translations or the host's extended page tables
 * to ordinary memory, or to the APIC-access page, which apicv_mmio.c judges.
 *
 * What makes an access one to the APIC-access page is the host-physical address, and that the
 * translation in use was made when "virtualize APIC accesses" was on: a translation from before may
 * behave as if it still were off, until software invalidates it [SDM3 31.4.5]. In this model it
 * does. IA32_APIC_BASE plays no part.
 */
#include "apicv.h"

static bool is_write(enum vapic_sil_access_kind kind)
{
    return kind == VAPIC_SIL_WRITE || kind == VAPIC_SIL_TABLE_WRITE ||
           kind == VAPIC_SIL_EVENT_WRITE;
}

/* Both accesses of a read-modify-write are translated for writing. */
static bool wants_write(const struct vapic_sil_access *access)
{
    return is_write(access->kind) || (access->kind == VAPIC_SIL_READ && access->modify);
}

static bool by_instruction(enum vapic_sil_access_kind kind)
{
    return kind == VAPIC_SIL_READ || kind == VAPIC_SIL_WRITE || kind == VAPIC_SIL_FETCH;
}

static bool by_page_walk(enum vapic_sil_access_kind kind)
{
    return kind == VAPIC_SIL_TABLE_READ || kind == VAPIC_SIL_TABLE_WRITE;
}

/* A page that is present can be read and executed: all that it can lack is the right to write.
 * Every access here has a linear address [SDM3 29.2.1]. */
static uint64_t violation_qualification(const struct vapic_sil_access *access, bool present)
{
    uint64_t q = is_write(access->kind) ? VMX_EPT_QUAL_WRITE : VMX_EPT_QUAL_READ;

    q |= VMX_EPT_QUAL_LINEAR | (by_page_walk(access->kind) ? 0 : VMX_EPT_QUAL_TRANSLATED);
    if (access->kind == VAPIC_SIL_FETCH)
        q ^= VMX_EPT_QUAL_READ | VMX_EPT_QUAL_FETCH;
    else if (wants_write(access))
        q |= VMX_EPT_QUAL_WRITE;
    if (present)
        q |= VMX_EPT_QUAL_READABLE | VMX_EPT_QUAL_EXECUTABLE;
    return q;
}

/* The translation, or NULL after an EPT violation. One that does not allow the access is never
 * believed when it comes from the cache: the processor walks again before it faults. */
static struct vapic_sil_tlb *translate(struct vapic_sil_cpu *cpu,
                                       const struct vapic_sil_access *access)
{
    const struct vapic_sil *m = cpu->machine;
    bool write = wants_write(access);
    struct vapic_sil_tlb *cached = vapic_sil_tlb_find(cpu, cpu->apicv.tag, access->gpa, write);
    struct apicv_exit exit = {.reason = VMX_EXIT_EPT_VIOLATION, .gpa = access->gpa, .fault = true};
    struct vapic_sil_page page = {0};
    bool present, redirect;

    if (cached)
        return cached;
    present = m->host.walk(m->ctx, cpu, access->gpa & ~VAPIC_SIL_PAGE_MASK, &page) && page.present;
    if (!present || (write && !page.writable)) {
        exit.qualification = violation_qualification(access, present);
        vapic_sil_apicv_exit(cpu, &exit);
        return NULL;
    }
    redirect = apicv_secondary(cpu, VMX_SEC_APIC_ACCESSES) &&
               (page.hpa & ~VAPIC_SIL_PAGE_MASK) == apicv_get(cpu, FIELD_APIC_ACCESS);
    return vapic_sil_tlb_fill(cpu, cpu->apicv.tag, access->gpa, &page, redirect);
}

static bool is_apic_access(const struct vapic_sil_cpu *cpu, const struct vapic_sil_tlb *t)
{
    return t->redirect && apicv_secondary(cpu, VMX_SEC_APIC_ACCESSES) &&
           t->hpa == apicv_get(cpu, FIELD_APIC_ACCESS);
}

/* Fetches and page walks are parts of an instruction that goes on. */
enum vapic_sil_result vapic_sil_apicv_accessed(struct vapic_sil_cpu *cpu,
                                               const struct vapic_sil_access *access)
{
    enum vapic_sil_access_kind kind = access->kind;

    if (access->more || kind == VAPIC_SIL_FETCH || by_page_walk(kind))
        return VAPIC_SIL_DONE;
    if (kind == VAPIC_SIL_EVENT_WRITE)
        cpu->apicv.vectoring = 0;
    else
        vapic_sil_apicv_complete(cpu, access->length);
    if (cpu->operation.pending_write)
        return vapic_sil_apicv_emulate_write(cpu);
    return VAPIC_SIL_DONE;
}

enum vapic_sil_result vapic_sil_apicv_access(struct vapic_sil_cpu *cpu,
                                             struct vapic_sil_access *access)
{
    const struct vapic_sil_tlb *t;
    uint64_t hpa;

    if (by_instruction(access->kind))
        cpu->apicv.vectoring = 0;
    t = translate(cpu, access);
    if (!t)
        return VAPIC_SIL_EXIT;
    if (is_apic_access(cpu, t))
        return vapic_sil_apicv_page_access(cpu, access);
    hpa = t->hpa | (access->gpa & VAPIC_SIL_PAGE_MASK);
    if (is_write(access->kind))
        vapic_sil_write(cpu->machine, hpa, access->size, access->value);
    else
        access->value = vapic_sil_read(cpu->machine, hpa, access->size);
    return vapic_sil_apicv_accessed(cpu, access);
}
