/* SPDX-License-Identifier: MIT */
/*
 * The machine around the vendors' halves: processors, raw memory, cached translations, interrupts
 * of the host's own local APICs; and the way from the calls of silicon.h to the halves (avic*.c,
 * apicv*.c).
 */
#include "apicv.h"
#include "internal.h"

static const struct vapic_sil_ops apicv_ops = {
    .leave = vapic_sil_apicv_leave,
    .boundary = vapic_sil_apicv_boundary,
    .waiting = vapic_sil_apicv_waiting,
    .access = vapic_sil_apicv_access,
    .rdmsr = vapic_sil_apicv_rdmsr,
    .wrmsr = vapic_sil_apicv_wrmsr,
    .read_cr8 = vapic_sil_apicv_read_cr8,
    .write_cr8 = vapic_sil_apicv_write_cr8,
    .hlt = vapic_sil_apicv_hlt,
};

static const struct vapic_sil_ops *ops_of(const struct vapic_sil_cpu *cpu)
{
    return cpu->machine->config.vendor == VAPIC_SIL_AMD ? &vapic_sil_avic_ops : &apicv_ops;
}

/* ---- Initialization ---- */

#define MAX_CPUS          65536u
#define DEFAULT_PHYS_BITS 48u

bool vapic_sil_init(struct vapic_sil *m, const struct vapic_sil_config *config,
                    const struct vapic_sil_host *host, void *ctx, struct vapic_sil_cpu **cpus,
                    uint32_t cpu_count)
{
    if (host->size != sizeof(*host) || !host->memory || !host->walk)
        return false;
    if (config->vendor != VAPIC_SIL_AMD && config->vendor != VAPIC_SIL_INTEL)
        return false;
    if (config->phys_bits != 0 && (config->phys_bits < 32 || config->phys_bits > 52))
        return false;
    if (!cpus || cpu_count == 0 || cpu_count > MAX_CPUS)
        return false;

    *m = (struct vapic_sil){
        .host = *host, .ctx = ctx, .config = *config, .cpus = cpus, .cpu_count = cpu_count};
    if (m->config.phys_bits == 0)
        m->config.phys_bits = DEFAULT_PHYS_BITS;
    for (uint32_t i = 0; i < cpu_count; i++)
        cpus[i] = NULL;
    return true;
}

bool vapic_sil_cpu_init(struct vapic_sil_cpu *cpu, struct vapic_sil *m, uint32_t apic_id)
{
    if (apic_id >= m->cpu_count || m->cpus[apic_id])
        return false;
    *cpu = (struct vapic_sil_cpu){.machine = m, .apic_id = apic_id};
    m->cpus[apic_id] = cpu;
    return true;
}

/* ---- Memory ---- */

void *vapic_sil_memory(const struct vapic_sil *m, uint64_t hpa, size_t size)
{
    return m->host.memory(m->ctx, hpa, size);
}

bool vapic_sil_legal(const struct vapic_sil *m, uint64_t hpa)
{
    return (hpa >> m->config.phys_bits) == 0;
}

static uint64_t read_bytes(const volatile uint8_t *p, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size && i < sizeof(value); i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static void write_bytes(volatile uint8_t *p, size_t size, uint64_t value)
{
    for (size_t i = 0; i < size; i++)
        p[i] = i < sizeof(value) ? (uint8_t)(value >> (8 * i)) : 0;
}

/* Size of the single access that serves, or 0: byte by byte. */
static size_t single(uint64_t hpa, size_t size)
{
    return (size == 2 || size == 4 || size == 8) && hpa % size == 0 ? size : 0;
}

uint64_t vapic_sil_read(const struct vapic_sil *m, uint64_t hpa, size_t size)
{
    const void *p = vapic_sil_memory(m, hpa, size);

    if (!p)
        return size < 8 ? (1ull << (8 * size)) - 1 : ~0ull;
    switch (single(hpa, size)) {
    case 2:
        return vapic_load16(p, VAPIC_RELAXED);
    case 4:
        return vapic_load32(p, VAPIC_RELAXED);
    case 8:
        return vapic_load64(p, VAPIC_RELAXED);
    default:
        return read_bytes(p, size);
    }
}

void vapic_sil_write(const struct vapic_sil *m, uint64_t hpa, size_t size, uint64_t value)
{
    void *p = vapic_sil_memory(m, hpa, size);

    if (!p)
        return;
    switch (single(hpa, size)) {
    case 2:
        vapic_store16(p, (uint16_t)value, VAPIC_RELAXED);
        return;
    case 4:
        vapic_store32(p, (uint32_t)value, VAPIC_RELAXED);
        return;
    case 8:
        vapic_store64(p, value, VAPIC_RELAXED);
        return;
    default:
        write_bytes(p, size, value);
    }
}

bool vapic_sil_sane(const struct vapic_sil_access *access)
{
    uint8_t size = access->size;

    if (size == 0 || size > 64 || (size & (size - 1)) != 0)
        return false;
    return (access->gpa & VAPIC_SIL_PAGE_MASK) + size <= VAPIC_SIL_PAGE_MASK + 1;
}

/* ---- Cached translations ---- */

static struct vapic_sil_tlb *tlb_slot(struct vapic_sil_cpu *cpu, uint64_t tag, uint64_t gpa)
{
    gpa &= ~VAPIC_SIL_PAGE_MASK;
    for (uint32_t i = 0; i < VAPIC_SIL_TLB; i++) {
        struct vapic_sil_tlb *t = &cpu->tlb[i];

        if (t->valid && t->tag == tag && t->gpa == gpa)
            return t;
    }
    return NULL;
}

struct vapic_sil_tlb *vapic_sil_tlb_find(struct vapic_sil_cpu *cpu, uint64_t tag, uint64_t gpa,
                                         bool write)
{
    struct vapic_sil_tlb *t = tlb_slot(cpu, tag, gpa);

    return t && (t->writable || !write) ? t : NULL;
}

struct vapic_sil_tlb *vapic_sil_tlb_fill(struct vapic_sil_cpu *cpu, uint64_t tag, uint64_t gpa,
                                         const struct vapic_sil_page *page, bool redirect)
{
    struct vapic_sil_tlb *t = tlb_slot(cpu, tag, gpa);

    if (!t)
        t = &cpu->tlb[cpu->tlb_next++ % VAPIC_SIL_TLB];
    *t = (struct vapic_sil_tlb){.tag = tag,
                                .gpa = gpa & ~VAPIC_SIL_PAGE_MASK,
                                .hpa = page->hpa & ~VAPIC_SIL_PAGE_MASK,
                                .valid = true,
                                .writable = page->writable,
                                .redirect = redirect};
    return t;
}

void vapic_sil_tlb_drop(struct vapic_sil_cpu *cpu, uint64_t tag)
{
    for (uint32_t i = 0; i < VAPIC_SIL_TLB; i++) {
        if (cpu->tlb[i].tag == tag)
            cpu->tlb[i].valid = false;
    }
}

void vapic_sil_tlb_drop_all(struct vapic_sil_cpu *cpu)
{
    for (uint32_t i = 0; i < VAPIC_SIL_TLB; i++)
        cpu->tlb[i].valid = false;
}

void vapic_sil_flush(struct vapic_sil_cpu *cpu, uint64_t gpa)
{
    gpa &= ~VAPIC_SIL_PAGE_MASK;
    for (uint32_t i = 0; i < VAPIC_SIL_TLB; i++) {
        if (cpu->tlb[i].gpa == gpa)
            cpu->tlb[i].valid = false;
    }
}

/* ---- Interrupts of the host's local APICs ---- */

int vapic_sil_physical(const struct vapic_sil_cpu *cpu)
{
    for (int word = 3; word >= 0; word--) {
        /* Acquire: whatever the sender wrote before it sent is visible to who takes it. Pairs with
         * the OR in vapic_sil_interrupt(). */
        uint64_t bits = vapic_load64(&cpu->physical[word], VAPIC_ACQUIRE);

        if (bits)
            return word * 64 + 63 - __builtin_clzll(bits);
    }
    return -1;
}

void vapic_sil_acknowledge(struct vapic_sil_cpu *cpu, uint8_t vector)
{
    /* Locked: senders set other bits of the word. Acquire as above: a later request for the same
     * vector that merges into this one is taken with it. */
    vapic_and64(&cpu->physical[vector / 64], ~(1ull << (vector % 64)), VAPIC_ACQ_REL);
}

void vapic_sil_interrupt(struct vapic_sil *m, uint32_t apic_id, uint8_t vector)
{
    struct vapic_sil_cpu *cpu = vapic_sil_cpu_at(m, apic_id);

    if (!cpu)
        return;
    /* Pairs with the load in vapic_sil_physical(). */
    vapic_or64(&cpu->physical[vector / 64], 1ull << (vector % 64), VAPIC_SEQ_CST);
    vapic_sil_signal(cpu);
}

int vapic_sil_take_interrupt(struct vapic_sil_cpu *cpu)
{
    int vector = cpu->in_guest ? -1 : vapic_sil_physical(cpu);

    if (vector >= 0)
        vapic_sil_acknowledge(cpu, (uint8_t)vector);
    return vector;
}

/* ---- To the vendor's half ---- */

void vapic_sil_leave(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2)
{
    if (cpu->in_guest)
        ops_of(cpu)->leave(cpu, code, info1, info2);
}

enum vapic_sil_result vapic_sil_boundary(struct vapic_sil_cpu *cpu, uint8_t *vector)
{
    return cpu->in_guest ? ops_of(cpu)->boundary(cpu, vector) : VAPIC_SIL_INVALID;
}

bool vapic_sil_waiting(const struct vapic_sil_cpu *cpu)
{
    return cpu->in_guest && ops_of(cpu)->waiting(cpu);
}

/* A halted processor executes nothing. */
static bool executes(const struct vapic_sil_cpu *cpu)
{
    return cpu->in_guest && !cpu->guest.halted;
}

enum vapic_sil_result vapic_sil_access(struct vapic_sil_cpu *cpu, struct vapic_sil_access *access)
{
    if (!executes(cpu) || !vapic_sil_sane(access))
        return VAPIC_SIL_INVALID;
    return ops_of(cpu)->access(cpu, access);
}

enum vapic_sil_result vapic_sil_rdmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t *value)
{
    return executes(cpu) ? ops_of(cpu)->rdmsr(cpu, msr, value) : VAPIC_SIL_INVALID;
}

enum vapic_sil_result vapic_sil_wrmsr(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t value)
{
    return executes(cpu) ? ops_of(cpu)->wrmsr(cpu, msr, value) : VAPIC_SIL_INVALID;
}

enum vapic_sil_result vapic_sil_read_cr8(struct vapic_sil_cpu *cpu, uint64_t *value)
{
    return executes(cpu) ? ops_of(cpu)->read_cr8(cpu, value) : VAPIC_SIL_INVALID;
}

enum vapic_sil_result vapic_sil_write_cr8(struct vapic_sil_cpu *cpu, uint64_t value)
{
    return executes(cpu) ? ops_of(cpu)->write_cr8(cpu, value) : VAPIC_SIL_INVALID;
}

enum vapic_sil_result vapic_sil_hlt(struct vapic_sil_cpu *cpu)
{
    return executes(cpu) ? ops_of(cpu)->hlt(cpu) : VAPIC_SIL_INVALID;
}
