/* SPDX-License-Identifier: MIT */
/*
 * What both vendors' halves of the model share; private to silicon/.
 *
 * machine.c owns what is common: the table of processors, physical interrupts, cached translations,
 * raw memory. It hands the calls of silicon.h that both vendors have to the half that
 * config.vendor names, through one table of functions each: vapic_sil_avic_ops (avic.c) and
 * vapic_sil_apicv_ops (built in machine.c from the functions of apicv.h).
 *
 * A call that makes no sense now (in the guest where the host is wanted, the other vendor's entry)
 * is answered VAPIC_SIL_INVALID and changes nothing.
 */
#ifndef VAPIC_SILICON_INTERNAL_H
#define VAPIC_SILICON_INTERNAL_H

#include "vapic/arch/apic.h"
#include "vapic/arch/atomic.h"
#include "vapic/silicon.h"

#define VAPIC_SIL_PAGE_MASK 0xFFFull

/* The calls of silicon.h that machine.c checks (vendor's half exists, processor is in the guest)
 * and hands on. */
struct vapic_sil_ops {
    void (*leave)(struct vapic_sil_cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2);
    enum vapic_sil_result (*boundary)(struct vapic_sil_cpu *cpu, uint8_t *vector);
    bool (*waiting)(const struct vapic_sil_cpu *cpu);
    enum vapic_sil_result (*access)(struct vapic_sil_cpu *cpu, struct vapic_sil_access *access);
    enum vapic_sil_result (*rdmsr)(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t *value);
    enum vapic_sil_result (*wrmsr)(struct vapic_sil_cpu *cpu, uint32_t msr, uint64_t value);
    enum vapic_sil_result (*read_cr8)(struct vapic_sil_cpu *cpu, uint64_t *value);
    enum vapic_sil_result (*write_cr8)(struct vapic_sil_cpu *cpu, uint64_t value);
    enum vapic_sil_result (*hlt)(struct vapic_sil_cpu *cpu);
};

extern const struct vapic_sil_ops vapic_sil_avic_ops;

/* ---- Memory ---- */

/* Like host.memory(). */
void *vapic_sil_memory(const struct vapic_sil *m, uint64_t hpa, size_t size);

/* Is the 4 KiB page at `hpa` inside of the processor's physical address range? */
bool vapic_sil_legal(const struct vapic_sil *m, uint64_t hpa);

/*
 * Plain memory accesses, as guests make them: 1 to 64 bytes that do not cross a page. Aligned
 * words of 2, 4 and 8 bytes are single relaxed accesses, since other processors may be at the same
 * words; others have no such promise on the real thing either. Memory that is not there reads as
 * ones and swallows writes. Reads return the first 8 bytes, writes beyond 8 bytes store zeros.
 */
uint64_t vapic_sil_read(const struct vapic_sil *m, uint64_t hpa, size_t size);
void vapic_sil_write(const struct vapic_sil *m, uint64_t hpa, size_t size, uint64_t value);

/* Is this an access that the model takes: a known size that does not cross a page? */
bool vapic_sil_sane(const struct vapic_sil_access *access);

/* ---- Cached translations; all of them by the owner ---- */

/* The translation of the page of `gpa` under `tag`, NULL when there is none that allows `write`. */
struct vapic_sil_tlb *vapic_sil_tlb_find(struct vapic_sil_cpu *cpu, uint64_t tag, uint64_t gpa,
                                         bool write);
/* Enters a translation, in place of an older one of the same page and tag. */
struct vapic_sil_tlb *vapic_sil_tlb_fill(struct vapic_sil_cpu *cpu, uint64_t tag, uint64_t gpa,
                                         const struct vapic_sil_page *page, bool redirect);
void vapic_sil_tlb_drop(struct vapic_sil_cpu *cpu, uint64_t tag);
void vapic_sil_tlb_drop_all(struct vapic_sil_cpu *cpu);

/* ---- Interrupts of the host ---- */

/* The highest vector pending in the host's local APIC, -1 for none. */
int vapic_sil_physical(const struct vapic_sil_cpu *cpu);
/* Takes `vector` out of the pending ones. */
void vapic_sil_acknowledge(struct vapic_sil_cpu *cpu, uint8_t vector);

/* ---- Small things ---- */

static inline void vapic_sil_at(struct vapic_sil *m, struct vapic_sil_cpu *cpu,
                                enum vapic_sil_point point)
{
    if (m->host.point)
        m->host.point(m->ctx, cpu, point);
}

static inline void vapic_sil_signal(struct vapic_sil_cpu *cpu)
{
    if (cpu->machine->host.signal)
        cpu->machine->host.signal(cpu->machine->ctx, cpu);
}

/* The processor with this host APIC ID, NULL when there is none. */
static inline struct vapic_sil_cpu *vapic_sil_cpu_at(const struct vapic_sil *m, uint64_t apic_id)
{
    return apic_id < m->cpu_count ? m->cpus[apic_id] : NULL;
}

/* The place of a vector in a bitmap of a register page whose first word is at `base`. */
static inline uint32_t vapic_sil_word(uint32_t base, uint8_t vector)
{
    return base + 0x10u * (vector / 32u);
}

static inline uint32_t vapic_sil_bit(uint8_t vector)
{
    return 1u << (vector % 32u);
}

#endif
