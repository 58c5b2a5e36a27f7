/* SPDX-License-Identifier: MIT */
/*
 * #VMEXIT 401h and 402h of L2 [APM2 15.29.9], and the doorbell MSR of L1 [APM2 15.29.3.3].
 *
 * 402h is always L1's. Of 401h, what the processor refused by itself (type, trigger mode, vector)
 * is L1's too. The rest depends on the table that the processor went by:
 *
 *      id                   the dummy                  a shadow
 *      1 not running        nothing that counts was    posted in every target: L1's running ones
 *                           posted: emulate            that L0 has put aside are woken, and L1 is
 *                                                      told of those that it has put aside
 *      2 invalid target     nothing was posted: emulate, in both
 *      3 invalid backing    the same; no table of L0's holds such an address
 *
 * To emulate is to do what the processor would with L1's own tables: find all targets before
 * anything is posted, post once in each, look at IsRunning behind that, ring or report. L1 gets one
 * exit at most, with the ID and the index of the lowest target that has failed.
 *
 * L1's tables are read and its pages written under the configuration lock, by pins that are this
 * vCPU's or last for the moment, so that no memory goes away meanwhile (vapic_nested_unmap).
 * Whatever they hold, indices stay below MAX_INDEX and below the end of the page, and a page that
 * L1 does not have is an invalid backing page.
 */
#include "../bytes.h"
#include "shadow.h"
#include "svm.h"

#define TARGET_WORDS ((AVIC_MAX_INDEX_X2_EXT + 1) / 64)
#define TABLE_PAGES  ((AVIC_MAX_INDEX_X2_EXT + 1) * 8 / APIC_PAGE_SIZE)
#define NO_INDEX     UINT32_MAX

/* ---- Pages of L1's, for the moment. Configuration lock held ---- */

struct reach {
    uint64_t gpa;
    struct vapic_l1_page page; /* memory NULL: not reached */
    bool pinned;               /* for the moment; else the vCPU's own pin is used */
};

static bool reach(struct vapic *v, uint64_t gpa, struct reach *r)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    *r = (struct reach){.gpa = gpa};
    for (uint32_t i = 0; i < SVM_SLOTS && r->page.memory == NULL; i++)
        if (nv->pins[i].gpa == gpa && nv->pins[i].doomed == 0)
            r->page = nv->pins[i].pin;
    if (r->page.memory != NULL)
        return true;
    r->pinned = nested_vm(v)->host.pin(v->vm->ctx, gpa, &r->page);
    if (!r->pinned)
        r->page.memory = NULL;
    return r->pinned;
}

static void let_go(struct vapic *v, struct reach *r)
{
    if (r->pinned)
        nested_vm(v)->host.unpin(v->vm->ctx, r->gpa, &r->page);
    *r = (struct reach){.gpa = NESTED_NO_PAGE};
}

/* ---- The IPI ---- */

struct ipi {
    struct vapic *v;
    uint64_t info1;
    uint32_t low, dest;
    bool x2, absent;           /* absent: memory of the tables was not to be had */
    uint32_t limit;            /* the highest usable index */
    struct reach own, logical; /* L2's backing page, logical table */
    struct reach table[TABLE_PAGES];
    uint64_t targets[TARGET_WORDS]; /* indices of the physical table */
    uint32_t id, failed;            /* the failure that is reported, when `failed` is an index */
};

static const struct vapic_nested_vcpu *nested_vcpu(const struct ipi *ipi)
{
    return ipi->v->accel->nested;
}

static void begin(struct ipi *ipi, struct vapic *v, uint64_t info1)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    bool x2 = svm_x2avic(nv);
    uint32_t last = (uint32_t)(nv->vmcb12.physical & AVIC_MAX_INDEX);

    zero_bytes(ipi, sizeof(*ipi));
    ipi->v = v;
    ipi->info1 = info1;
    ipi->low = (uint32_t)info1;
    ipi->dest = (uint32_t)(x2 ? info1 >> 32 : info1 >> 56);
    ipi->x2 = x2;
    ipi->limit = !x2 && last > AVIC_LAST_ID_X1 ? AVIC_LAST_ID_X1 : last;
    ipi->failed = NO_INDEX;
    ipi->absent = !reach(v, nv->vmcb12.backing, &ipi->own);
    if (!x2)
        ipi->absent |= !reach(v, nv->vmcb12.logical, &ipi->logical);
}

static void end(struct ipi *ipi)
{
    let_go(ipi->v, &ipi->own);
    let_go(ipi->v, &ipi->logical);
    for (uint32_t i = 0; i < TABLE_PAGES; i++)
        let_go(ipi->v, &ipi->table[i]);
}

/* The first failure counts, and with it the lowest index. */
static void fail(struct ipi *ipi, uint32_t id, uint32_t index)
{
    if (ipi->failed != NO_INDEX)
        return;
    ipi->id = id;
    ipi->failed = index & AVIC_IPI_INDEX;
}

/* ---- L1's tables ---- */

/* `index` is not above the limit. In one piece, for L1 may be writing it; SEQ_CST: IsRunning is
 * looked at behind the post. */
static uint64_t physical_entry(struct ipi *ipi, uint32_t index)
{
    uint32_t per_page = APIC_PAGE_SIZE / sizeof(uint64_t);
    uint64_t table = nested_vcpu(ipi)->vmcb12.physical & AVIC_ADDRESS;
    struct reach *r = &ipi->table[index / per_page];
    const uint64_t *entries;

    if (r->page.memory == NULL &&
        !reach(ipi->v, table + index / per_page * (uint64_t)APIC_PAGE_SIZE, r)) {
        ipi->absent = true;
        return 0;
    }
    entries = r->page.memory;
    return vapic_load64(&entries[index % per_page], VAPIC_SEQ_CST);
}

static bool usable(struct ipi *ipi, uint32_t index)
{
    return index <= ipi->limit && physical_entry(ipi, index) & AVIC_PHYSICAL_VALID;
}

/* ---- Who [APM2 15.29.6] ---- */

static void add(struct ipi *ipi, uint32_t index, uint32_t named)
{
    if (usable(ipi, index))
        ipi->targets[index / 64] |= UINT64_C(1) << (index % 64);
    else
        fail(ipi, AVIC_IPI_INVALID_TARGET, named);
}

static bool is_broadcast(const struct ipi *ipi)
{
    if (ipi->low & APIC_ICR_SHORTHAND)
        return true;
    return ipi->dest == (ipi->x2 ? APIC_DEST_ALL_32 : APIC_DEST_ALL_8);
}

/* Entries that are not valid are passed by; the sender is known by the ID in its page. */
static void find_everybody(struct ipi *ipi)
{
    bool but_self = (ipi->low & APIC_ICR_SHORTHAND) == APIC_ICR_ALL_EXCL;
    uint32_t id = svm_word(&ipi->own.page, APIC_ID), self = ipi->x2 ? id : id >> 24;

    for (uint32_t i = 0; i <= ipi->limit && !ipi->absent; i++)
        if (!(but_self && i == self) && usable(ipi, i))
            add(ipi, i, i);
}

static void find_x2_logical(struct ipi *ipi)
{
    for (uint32_t bits = ipi->dest & 0xFFFF; bits != 0; bits &= bits - 1) {
        uint32_t index = (ipi->dest >> 16) << 4 | (uint32_t)__builtin_ctz(bits);

        add(ipi, index, index);
    }
}

/* Slots of the logical table, lowest first: eight of the flat model, or four of the cluster that
 * the high half of the destination names, by the sender's own DFR. Entries have 32 bits. */
static void find_logical(struct ipi *ipi)
{
    bool flat = svm_word(&ipi->own.page, APIC_DFR) >> 28 == 0xF;
    uint32_t bits = flat ? ipi->dest & 0xFF : ipi->dest & 15,
             first = flat ? 0 : (ipi->dest >> 4 & 15) * 4;

    for (; bits != 0; bits &= bits - 1) {
        uint32_t slot = first + (uint32_t)__builtin_ctz(bits);
        uint32_t entry = svm_word(&ipi->logical.page, 4 * slot);

        if (entry & AVIC_LOGICAL_VALID)
            add(ipi, entry & AVIC_LOGICAL_ID, slot);
        else
            fail(ipi, AVIC_IPI_INVALID_TARGET, slot);
    }
}

static void find_targets(struct ipi *ipi)
{
    if (ipi->absent)
        return;
    if (is_broadcast(ipi))
        find_everybody(ipi);
    else if (!(ipi->low & APIC_ICR_LOGICAL))
        add(ipi, ipi->dest, ipi->dest);
    else if (ipi->x2)
        find_x2_logical(ipi);
    else
        find_logical(ipi);
}

/* Lowest first; stops when `visit` says false. */
static void for_each_target(struct ipi *ipi, bool (*visit)(struct ipi *ipi, uint32_t index))
{
    for (uint32_t w = 0; w < TARGET_WORDS; w++)
        for (uint64_t bits = ipi->targets[w]; bits != 0; bits &= bits - 1)
            if (!visit(ipi, w * 64 + (uint32_t)__builtin_ctzll(bits)))
                return;
}

/* ---- Doorbells ---- */

/*
 * A vector is in the page of the L2 that L1 runs on its vCPU `id`; whoever set it there is past a
 * full barrier (a locked OR, an exit). SEQ_CST: pairs with announce() in lapic_run.c. A target that
 * is in L2 without being in the guest, or gets there later, passes VMRUN, which looks at IRR; one
 * that is about to sleep looks behind its announcement. One that is in L1 is L1's to start.
 */
static void ring(struct vapic *v, uint32_t id)
{
    struct vapic *target = vapic_by_id(v->vm, id);
    const struct vapic_nested_vcpu *nv = target != NULL ? nested_of(target) : NULL;
    uint32_t where, state;

    if (nv == NULL)
        return;
    where = vapic_load32(&target->presence, VAPIC_SEQ_CST);
    state = vapic_load32(&nv->state, VAPIC_ACQUIRE);
    if (state == VAPIC_NESTED_L1 || state == VAPIC_NESTED_LEAVING)
        return;
    if (where == PRESENCE_GUEST)
        v->vm->host.notify(v->vm->ctx, target, VAPIC_ACTION_DOORBELL);
    else if (where == PRESENCE_BLOCKED && !MUTANT(DOORBELL_WAKES_NOBODY))
        v->vm->host.notify(v->vm->ctx, target, VAPIC_ACTION_WAKE);
}

int vapic_nested_doorbell(struct vapic *v, uint64_t value)
{
    if (nested_of(v) == NULL || !(nested_vm(v)->config.features & VAPIC_NESTED_AVIC) ||
        value >> 32 != 0)
        return VAPIC_GP;
    ring(v, (uint32_t)value);
    return VAPIC_OK;
}

/* ---- 401h: nothing was posted ---- */

static bool check_page(struct ipi *ipi, uint32_t index)
{
    struct reach page;

    if (!reach(ipi->v, physical_entry(ipi, index) & AVIC_PHYSICAL_BACKING, &page))
        fail(ipi, AVIC_IPI_INVALID_BACKING, index);
    let_go(ipi->v, &page);
    return ipi->failed == NO_INDEX;
}

/* L1 running its vCPU there, as far as L1 knows: rings; else that is what is reported. */
static void tell_by(struct ipi *ipi, uint32_t index, uint64_t entry)
{
    if (entry & AVIC_PHYSICAL_RUNNING)
        ring(ipi->v, (uint32_t)(entry & AVIC_PHYSICAL_HOST_ID));
    else
        fail(ipi, AVIC_IPI_NOT_RUNNING, index);
}

static void tell(struct ipi *ipi, uint32_t index)
{
    tell_by(ipi, index, physical_entry(ipi, index));
}

/* Between the two looks at the entry L1 may have made it invalid, or the page may have gone: the
 * IPI ends there, as it would on a processor. */
static bool post(struct ipi *ipi, uint32_t index)
{
    uint64_t entry = physical_entry(ipi, index);
    uint32_t vector = ipi->low & APIC_ICR_VECTOR;
    struct reach page;
    uint8_t *word;

    if (!(entry & AVIC_PHYSICAL_VALID) || !reach(ipi->v, entry & AVIC_PHYSICAL_BACKING, &page)) {
        ipi->failed = NO_INDEX;
        fail(ipi, AVIC_IPI_INVALID_BACKING, index);
        return false;
    }
    word = (uint8_t *)page.page.memory + APIC_IRR + (vector >> 5) * 16;
    vapic_or32((uint32_t *)(void *)word, 1u << (vector & 31), VAPIC_SEQ_CST);
    let_go(ipi->v, &page);
    if (MUTANT(RUNNING_READ_EARLY))
        tell_by(ipi, index, entry);
    else
        tell(ipi, index);
    return true;
}

static void emulate(struct ipi *ipi)
{
    find_targets(ipi);
    if (ipi->failed == NO_INDEX && !ipi->absent)
        for_each_target(ipi, check_page);
    if (ipi->failed == NO_INDEX && !ipi->absent)
        for_each_target(ipi, post);
}

/* ---- 401h: the processor has posted by a shadow, and found a target not running ---- */

/*
 * A page that L1 did not have when its entry was read it may have by now. What was posted went
 * nowhere; if there is still no page that is reported below, unless L1 has to wake somebody.
 */
static bool tell_target(struct ipi *ipi, uint32_t index)
{
    struct vapic_shadow *s = nested_vcpu(ipi)->shadow;

    if (index >= s->entries)
        return true;
    if (s->entry[index].page != NESTED_NO_PAGE) {
        tell(ipi, index);
        return true;
    }
    vapic_shadow_follow(nested_vm(ipi->v), s, index);
    return s->entry[index].page == NESTED_NO_PAGE || post(ipi, index);
}

static bool report_dummy(struct ipi *ipi, uint32_t index)
{
    const struct vapic_shadow *s = nested_vcpu(ipi)->shadow;

    if (index >= s->entries || s->entry[index].page == NESTED_NO_PAGE)
        fail(ipi, AVIC_IPI_INVALID_BACKING, index);
    return ipi->failed == NO_INDEX;
}

/* The processor may have gone by slots that hold something else by now. */
static bool logical_has_changed(const struct ipi *ipi)
{
    const struct vapic_nested_vcpu *nv = nested_vcpu(ipi);

    if (ipi->x2 || !(ipi->low & APIC_ICR_LOGICAL) || is_broadcast(ipi))
        return false;
    for (uint32_t i = 0; i < VAPIC_NESTED_LOGICAL; i++)
        if (svm_word(&ipi->logical.page, 4 * i) != nv->logical_seen[i])
            return true;
    return false;
}

/*
 * Targets that L1's tables do not hold any more were reached all the same; L1, which has changed
 * them, looks after itself. But whether one of those was not running nobody can say: L1 is told.
 */
static void wake_targets(struct ipi *ipi)
{
    find_targets(ipi);
    ipi->failed = NO_INDEX;
    for_each_target(ipi, tell_target);
    for_each_target(ipi, report_dummy);
    if (!ipi->absent && logical_has_changed(ipi))
        fail(ipi, AVIC_IPI_NOT_RUNNING, 0);
}

/*
 * By an entry of L1's, and not by one that was idle because L1's was just changing or its memory
 * went away. Where that is in doubt it is posted again: an interrupt too many can be answered, one
 * too few cannot. A shadow that is out of step is left alone until somebody looks again: its
 * entries are all idle, and none may get a page. Configuration lock held: entries become idle and
 * vCPUs are told to look again under it.
 */
static bool posted_by_shadow(const struct vapic_nested_vcpu *nv)
{
    return nv->shadow != NULL && nv->shadow->synced &&
           vapic_load32(&nv->again, VAPIC_RELAXED) == 0 &&
           vapic_load32(&nv->shadow->idled, VAPIC_RELAXED) == nv->idled;
}

/* ---- Whose exit it is ---- */

static int result_of(const struct ipi *ipi, struct vapic_reflect *reflect)
{
    if (ipi->absent)
        return VAPIC_E_MEMORY;
    if (ipi->failed == NO_INDEX)
        return VAPIC_OK;
    *reflect = (struct vapic_reflect){SVM_EXIT_AVIC_INCOMPLETE, ipi->info1,
                                      (uint64_t)ipi->id << AVIC_IPI_ID_SHIFT | ipi->failed};
    return VAPIC_REFLECT;
}

static int incomplete(struct vapic *v, uint64_t info1, uint32_t id, struct vapic_reflect *reflect)
{
    struct vapic_vm *vm = v->vm;
    struct ipi ipi;
    int result;

    vm->host.lock(vm->ctx);
    begin(&ipi, v, info1);
    /* No target is missing from the processor's own broadcast: it took this for something else. */
    if (id == AVIC_IPI_INVALID_TARGET && is_broadcast(&ipi))
        fail(&ipi, id, ipi.dest);
    else if (id == AVIC_IPI_NOT_RUNNING && posted_by_shadow(v->accel->nested))
        wake_targets(&ipi);
    else
        emulate(&ipi);
    result = result_of(&ipi, reflect);
    end(&ipi);
    vm->host.unlock(vm->ctx);
    return result;
}

/* Nothing that depends on a table. */
static bool refused(uint64_t info1, uint32_t id)
{
    uint32_t low = (uint32_t)info1;

    return (low & APIC_ICR_DM) != APIC_DM_FIXED || low & APIC_ICR_LEVEL ||
           (low & APIC_ICR_VECTOR) < APIC_FIRST_VECTOR ||
           (low & APIC_ICR_SHORTHAND) == APIC_ICR_SELF ||
           (id != AVIC_IPI_NOT_RUNNING && id != AVIC_IPI_INVALID_TARGET &&
            id != AVIC_IPI_INVALID_BACKING);
}

int vapic_nested_avic_exit(struct vapic *v, uint64_t code, uint64_t info1, uint64_t info2,
                           struct vapic_reflect *reflect)
{
    const struct vapic_nested_vcpu *nv = nested_of(v);
    uint32_t id = (uint32_t)(info2 >> AVIC_IPI_ID_SHIFT);

    if (nv == NULL || nested_ops(v) != &vapic_nested_svm || !nested_virtualized(v) ||
        !svm_avic(nv) || (code != SVM_EXIT_AVIC_INCOMPLETE && code != SVM_EXIT_AVIC_NOACCEL))
        return VAPIC_E_ARG;
    if (code == SVM_EXIT_AVIC_INCOMPLETE && !refused(info1, id))
        return incomplete(v, info1, id, reflect);
    *reflect = (struct vapic_reflect){code, info1, info2};
    return VAPIC_REFLECT;
}
