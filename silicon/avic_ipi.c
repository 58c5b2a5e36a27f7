/* SPDX-License-Identifier: MIT */
/*
 * What the processor does when a guest writes ICR under AVIC: it checks type and vector, resolves
 * the destination in the physical and logical APIC ID tables, posts into the targets' backing pages
 * and rings doorbells, or gives up with an exit. Also the doorbell MSR. Called by avic_access.c.
 *
 * Delivery has two passes [APM2 15.29.6]: the first finds all targets and writes nothing, so that
 * an IPI to a valid and an invalid target leaves the valid one alone; the second serves every
 * target and then exits once if one of them was not running.
 *
 * The race of the second pass. The sender sets IRR, then reads IsRunning; a vCPU that is about to
 * block clears IsRunning, then reads IRR. Each side's write is ordered before its own read (here by
 * the locked OR, there by whatever software takes), so that at least one of them sees the other:
 * either the sender finds IsRunning clear and exits, or the blocking vCPU finds the interrupt.
 */
#include "avic.h"

#define TABLE_WORDS ((AVIC_MAX_INDEX_X2_EXT + 1) / 64)
#define NO_INDEX    (-1)

struct ipi {
    struct vapic_sil_cpu *cpu;
    uint32_t low, high, dest;
    bool x2;
    uint32_t limit;                /* the highest usable physical index */
    uint64_t targets[TABLE_WORDS]; /* physical indices */
    enum avic_ipi_id id;           /* of the failure, when `failed` is an index */
    int32_t failed;
    bool broken; /* the failure ends delivery at once */
};

/* ---- Tables ---- */

static uint64_t entry_address(const struct ipi *ipi, uint32_t index)
{
    return (ipi->cpu->svm.physical & AVIC_ADDRESS) + 8ull * index;
}

/* Memory that is not there has no valid entries. */
static uint64_t physical_entry(const struct ipi *ipi, uint32_t index)
{
    const uint64_t *entry = vapic_sil_memory(ipi->cpu->machine, entry_address(ipi, index), 8);

    /* Software stores whole entries. In the second pass this is the load after the OR of IRR, and
     * pairs with the store that clears IsRunning before a vCPU blocks; see above. */
    return entry ? vapic_load64(entry, VAPIC_SEQ_CST) : 0;
}

static uint32_t logical_entry(const struct ipi *ipi, uint32_t slot)
{
    uint64_t hpa = (ipi->cpu->svm.logical & AVIC_ADDRESS) + 4ull * slot;
    const uint32_t *entry = vapic_sil_memory(ipi->cpu->machine, hpa, 4);

    return entry ? vapic_load32(entry, VAPIC_ACQUIRE) : 0;
}

static bool usable(const struct ipi *ipi, uint32_t index)
{
    if (index > ipi->limit)
        return false;
    if (ipi->x2 && index == 255 && vapic_sil_knobs(ipi->cpu)->entry255_special)
        return false;
    return (physical_entry(ipi, index) & AVIC_PHYSICAL_VALID) != 0;
}

static bool legal_entry(const struct ipi *ipi, uint64_t entry)
{
    uint64_t hpa = entry & AVIC_PHYSICAL_BACKING;

    return vapic_sil_legal(ipi->cpu->machine, hpa) &&
           vapic_sil_memory(ipi->cpu->machine, hpa, VAPIC_SIL_PAGE_MASK + 1);
}

/* ---- Failures: several of one kind, and the exit names one. The manual does not say which ---- */

static void fail(struct ipi *ipi, enum avic_ipi_id id, uint32_t index)
{
    if (ipi->failed != NO_INDEX && !vapic_sil_knobs(ipi->cpu)->index_highest)
        return;
    ipi->id = id;
    ipi->failed = (int32_t)(index & AVIC_IPI_INDEX);
}

static enum vapic_sil_result incomplete(const struct ipi *ipi, enum avic_ipi_id id, int32_t index)
{
    return vapic_sil_avic_exit(ipi->cpu, SVM_EXIT_AVIC_INCOMPLETE,
                               (uint64_t)ipi->high << 32 | ipi->low,
                               (uint64_t)id << AVIC_IPI_ID_SHIFT | (uint32_t)index);
}

/* ---- First pass: who ---- */

static void add(struct ipi *ipi, uint32_t index)
{
    ipi->targets[index / 64] |= 1ull << (index % 64);
}

static uint32_t own_id(const struct ipi *ipi)
{
    uint32_t id = vapic_sil_avic_load(ipi->cpu, APIC_ID);

    return ipi->x2 ? id : id >> 24;
}

/* Entries that are not valid are skipped in silence. The manual does not say how the sender leaves
 * itself out; here by the APIC ID in its backing page. */
static void resolve_broadcast(struct ipi *ipi)
{
    bool but_self = (ipi->low & APIC_ICR_SHORTHAND) == APIC_ICR_ALL_EXCL;
    uint32_t self = own_id(ipi);

    for (uint32_t i = 0; i <= ipi->limit; i++) {
        if (!(but_self && i == self) && usable(ipi, i))
            add(ipi, i);
    }
}

static void resolve_index(struct ipi *ipi, uint32_t index, uint32_t named)
{
    if (usable(ipi, index))
        add(ipi, index);
    else
        fail(ipi, AVIC_IPI_INVALID_TARGET, named);
}

/* x2APIC logical IDs are derived from physical ones; there is no table. [APM2 16.14] */
static void resolve_x2_logical(struct ipi *ipi)
{
    for (uint32_t b = 0; b < 16; b++) {
        uint32_t index = (ipi->dest >> 16) << 4 | b;

        if (ipi->dest & (1u << b))
            resolve_index(ipi, index, index);
    }
}

static void resolve_slot(struct ipi *ipi, uint32_t slot)
{
    uint32_t entry = logical_entry(ipi, slot);

    if (entry & AVIC_LOGICAL_VALID)
        resolve_index(ipi, entry & AVIC_LOGICAL_ID, slot);
    else
        fail(ipi, AVIC_IPI_INVALID_TARGET, slot);
}

/* Flat or cluster model as the sender's own DFR says; anything but 1111b is cluster here. */
static void resolve_logical(struct ipi *ipi)
{
    bool flat = vapic_sil_avic_load(ipi->cpu, APIC_DFR) >> 28 == 0xF;
    uint32_t bits = flat ? 8 : 4;
    uint32_t first = flat ? 0 : (ipi->dest >> 4) * 4;

    for (uint32_t b = 0; b < bits; b++) {
        if (ipi->dest & (1u << b))
            resolve_slot(ipi, first + b);
    }
}

static bool is_broadcast(const struct ipi *ipi)
{
    if (ipi->low & APIC_ICR_SHORTHAND)
        return true;
    if (!ipi->x2)
        return ipi->dest == APIC_DEST_ALL_8; /* physical and logical alike */
    return ipi->dest == APIC_DEST_ALL_32 && !vapic_sil_knobs(ipi->cpu)->x2_no_broadcast;
}

static bool empty_mask(const struct ipi *ipi)
{
    uint32_t mask = 0xFF;

    if (ipi->x2)
        mask = 0xFFFF;
    else if (vapic_sil_avic_load(ipi->cpu, APIC_DFR) >> 28 != 0xF)
        mask = 0xF;
    return (ipi->dest & mask) == 0;
}

static void resolve(struct ipi *ipi)
{
    if (is_broadcast(ipi))
        resolve_broadcast(ipi);
    else if (!(ipi->low & APIC_ICR_LOGICAL))
        resolve_index(ipi, ipi->dest, ipi->dest);
    else if (empty_mask(ipi) && vapic_sil_knobs(ipi->cpu)->empty_mask_exits)
        fail(ipi, AVIC_IPI_INVALID_TARGET, 0);
    else if (ipi->x2)
        resolve_x2_logical(ipi);
    else
        resolve_logical(ipi);
}

/* Calls `visit` for each target, lowest first, until the IPI is broken. */
static void for_each_target(struct ipi *ipi, void (*visit)(struct ipi *ipi, uint32_t index))
{
    for (uint32_t w = 0; w < TABLE_WORDS; w++) {
        for (uint64_t bits = ipi->targets[w]; bits && !ipi->broken; bits &= bits - 1)
            visit(ipi, w * 64 + (uint32_t)__builtin_ctzll(bits));
    }
}

static void check_pointer(struct ipi *ipi, uint32_t index)
{
    if (!legal_entry(ipi, physical_entry(ipi, index)))
        fail(ipi, AVIC_IPI_INVALID_BACKING, index);
}

/* ---- Second pass: post ---- */

bool vapic_sil_avic_post(const struct vapic_sil *m, uint64_t hpa, uint8_t vector)
{
    uint8_t *page = vapic_sil_memory(m, hpa, VAPIC_SIL_PAGE_MASK + 1);

    if (!page)
        return false;
    /* A full barrier: what the poster reads next (IsRunning) must not be older than this. */
    vapic_or32((uint32_t *)(void *)(page + vapic_sil_word(APIC_IRR, vector)), vapic_sil_bit(vector),
               VAPIC_SEQ_CST);
    return true;
}

static void post(const struct vapic_sil *m, uint64_t hpa, uint8_t vector)
{
    uint8_t *page = vapic_sil_memory(m, hpa, VAPIC_SIL_PAGE_MASK + 1);

    /* Before the IRR bit: who finds that one must find this, too. The manual is silent on TMR. */
    if (page && m->config.knobs.post_clears_tmr)
        vapic_and32((uint32_t *)(void *)(page + vapic_sil_word(APIC_TMR, vector)),
                    ~vapic_sil_bit(vector), VAPIC_SEQ_CST);
    vapic_sil_avic_post(m, hpa, vector);
}

void vapic_sil_avic_ring(const struct vapic_sil *m, uint64_t apic_id)
{
    struct vapic_sil_cpu *target = vapic_sil_cpu_at(m, apic_id);

    if (!target)
        return;
    /* After the IRR bit; pairs with the exchanges in avic_run.c and avic_deliver.c
     * that precede a look at IRR. */
    vapic_or32(&target->doorbell, 1, VAPIC_SEQ_CST);
    vapic_sil_signal(target);
}

/*
 * Erratum 1235: a processor may act on IsRunning=1 that software has cleared since. Here it does so
 * whenever it has used the entry before: once for each time that software clears the bit.
 */
static uint64_t stale_entry(struct ipi *ipi, uint32_t index, uint64_t entry)
{
    struct vapic_sil_cpu *cpu = ipi->cpu;
    uint64_t hpa = entry_address(ipi, index), old = cpu->svm.seen[index % 8].entry;
    bool stale = cpu->svm.seen[index % 8].hpa == hpa && (old & AVIC_PHYSICAL_RUNNING) != 0 &&
                 (entry & AVIC_PHYSICAL_RUNNING) == 0;

    cpu->svm.seen[index % 8].hpa = hpa;
    cpu->svm.seen[index % 8].entry = entry;
    return stale ? old : entry;
}

static void serve(struct ipi *ipi, uint32_t index)
{
    const struct vapic_sil_knobs *knobs = vapic_sil_knobs(ipi->cpu);
    struct vapic_sil *m = ipi->cpu->machine;
    uint8_t vector = (uint8_t)(ipi->low & APIC_ICR_VECTOR);
    uint64_t entry = physical_entry(ipi, index);

    /* With id3_after_post, or when software changed the entry since the first pass. */
    if (!(entry & AVIC_PHYSICAL_VALID) || !legal_entry(ipi, entry)) {
        ipi->failed = NO_INDEX;
        fail(ipi, AVIC_IPI_INVALID_BACKING, index);
        ipi->broken = true;
        return;
    }
    post(m, entry & AVIC_PHYSICAL_BACKING, vector);
    vapic_sil_at(m, ipi->cpu, VAPIC_SIL_POINT_POSTED);
    entry = physical_entry(ipi, index);
    if (knobs->quirk_1235)
        entry = stale_entry(ipi, index, entry);
    vapic_sil_at(m, ipi->cpu, VAPIC_SIL_POINT_FOUND);
    if (!(entry & AVIC_PHYSICAL_RUNNING)) {
        fail(ipi, AVIC_IPI_NOT_RUNNING, index);
        return;
    }
    ipi->cpu->doorbells_sent++;
    vapic_sil_avic_ring(m, entry & AVIC_PHYSICAL_HOST_ID);
}

/* ---- ICR ---- */

/* The exit ID that type, trigger mode and vector lead to; -1: none. */
static int refused(const struct vapic_sil_cpu *cpu, uint32_t low)
{
    const struct vapic_sil_knobs *knobs = vapic_sil_knobs(cpu);
    bool bad_vector = (low & APIC_ICR_VECTOR) < APIC_FIRST_VECTOR;

    if (bad_vector && knobs->vector_before_type)
        return AVIC_IPI_INVALID_VECTOR;
    if ((low & APIC_ICR_DM) != APIC_DM_FIXED)
        return knobs->unfixed_id;
    if (low & APIC_ICR_LEVEL)
        return AVIC_IPI_INVALID_TYPE;
    return bad_vector ? AVIC_IPI_INVALID_VECTOR : -1;
}

static enum vapic_sil_result deliver(struct ipi *ipi)
{
    struct vapic_sil_cpu *cpu = ipi->cpu;

    resolve(ipi);
    if (ipi->failed == NO_INDEX && !vapic_sil_knobs(cpu)->id3_after_post)
        for_each_target(ipi, check_pointer);
    if (ipi->failed != NO_INDEX)
        return incomplete(ipi, ipi->id, ipi->failed);
    vapic_sil_at(cpu->machine, cpu, VAPIC_SIL_POINT_RESOLVED);
    for_each_target(ipi, serve);
    if (ipi->failed != NO_INDEX)
        return incomplete(ipi, ipi->id, ipi->failed);
    return VAPIC_SIL_DONE;
}

static uint32_t highest_index(const struct vapic_sil_cpu *cpu)
{
    uint32_t max = (uint32_t)(cpu->svm.physical & AVIC_MAX_INDEX);

    if (!vapic_sil_avic_x2(cpu) && max > AVIC_LAST_ID_X1)
        return AVIC_LAST_ID_X1; /* MAX_INDEX 255 is legal, entry 255 is of no use */
    return max;
}

enum vapic_sil_result vapic_sil_avic_send(struct vapic_sil_cpu *cpu, uint32_t low, uint32_t high)
{
    bool x2 = vapic_sil_avic_x2(cpu);
    struct ipi ipi = {.cpu = cpu,
                      .low = low,
                      .high = high,
                      .dest = x2 ? high : high >> 24,
                      .x2 = x2,
                      .limit = highest_index(cpu),
                      .failed = NO_INDEX};
    int id = refused(cpu, low);

    if (id >= 0)
        return incomplete(&ipi, (enum avic_ipi_id)id, 0);
    if ((low & APIC_ICR_SHORTHAND) != APIC_ICR_SELF)
        return deliver(&ipi);
    /* Neither table nor IsRunning is looked at. */
    post(cpu->machine, cpu->svm.backing, (uint8_t)(low & APIC_ICR_VECTOR));
    vapic_sil_avic_evaluate(cpu);
    return VAPIC_SIL_DONE;
}

/* ---- The doorbell MSR ---- */

enum vapic_sil_result vapic_sil_doorbell(struct vapic_sil *m, uint64_t value)
{
    /* The manual's field has 8 bits, that of newer processors 32. */
    if (value >> (m->config.knobs.doorbell_8bit ? 8 : 32))
        return VAPIC_SIL_GP;
    vapic_sil_avic_ring(m, value);
    return VAPIC_SIL_DONE;
}
