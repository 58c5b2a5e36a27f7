/* SPDX-License-Identifier: MIT */
/*
 * Inhibition: the reasons for which a VM's vCPUs must not be accelerated, and the protocol by which
 * they take notice.
 *
 * Protocol "inhibit". A change that makes the set of reasons empty, or no longer empty, concerns
 * every vCPU:
 *
 *      changer, under the configuration lock      vCPU, in vapic_enter()
 *
 *      generation := odd                   (1)    presence := in the guest             (a)
 *      host.kick_all(): every vCPU that    (2)    generation == the one served?        (b)
 *        is in the guest leaves it                  no:  presence := outside
 *      reasons := new                                    lock; decide anew; unlock; go to (a)
 *      access page withdrawn or allowed             yes: enter
 *      generation := even                  (3)
 *
 * (1) and (a) are sequentially consistent read-modify-writes, and each side then looks at what the
 * other one wrote: so either the vCPU sees the odd generation and retreats, or kick_all() finds it
 * in the guest and waits. After (2) nobody is in the guest, nobody gets in before (3) without
 * having waited for the lock, and whoever decides under the lock sees the new reasons. A vCPU that
 * is being created has served generation 0, which never is: it decides at its first entry whatever
 * happened before. A vCPU that sleeps is not woken: it decides when it next enters, and until then
 * senders treat it alike in both states (they post and wake it).
 *
 * Why senders are right meanwhile: they read the presence after they have posted. A vCPU that has
 * been switched off has passed vapic_enter(), which looks at everything that is posted after it
 * has announced itself without acceleration; a doorbell that was meant for the time before is lost
 * without harm.
 *
 * The reasons and the number of vCPUs that wait for an interrupt window share one 64-bit word.
 * While another reason is in force a window changes the count and nothing else, by one
 * compare-and-swap that fails when the other reasons change under it; so neither can be missed.
 * Reason IRQWIN is derived from the count whenever the reasons are written.
 */
#include "accel/backend.h"

#define COUNT_ONE  (UINT64_C(1) << 32)
#define REASONS(w) ((uint32_t)(w))
#define COUNT(w)   ((uint32_t)((w) >> 32))

static const struct {
    const char *name, *text;
} reasons[] = {
#define VAPIC_X(name, number, avic, apicv, text) [number] = {#name, text},
    VAPIC_INHIBITS(VAPIC_X)
#undef VAPIC_X
};

_Static_assert(sizeof(reasons) / sizeof(reasons[0]) == VAPIC_INHIBIT_COUNT, "one row per reason");

const char *vapic_inhibit_name(uint32_t number)
{
    return number < VAPIC_INHIBIT_COUNT ? reasons[number].name : NULL;
}

const char *vapic_inhibit_text(uint32_t number)
{
    return number < VAPIC_INHIBIT_COUNT ? reasons[number].text : NULL;
}

static uint64_t load_word(const struct vapic_vm *vm)
{
    /* Acquire: who sees a reason gone may map what was withdrawn for it. */
    return vapic_load64(&vm->inhibits, VAPIC_ACQUIRE);
}

struct vapic_inhibit_set vapic_inhibits(const struct vapic_vm *vm)
{
    return (struct vapic_inhibit_set){REASONS(load_word(vm))};
}

bool vapic_active(const struct vapic *v)
{
    return is_active(v);
}

bool vapic_in_guest(const struct vapic *v)
{
    /* SEQ_CST: step (2) of protocol "inhibit", behind the odd generation. */
    uint32_t where = vapic_load32(&v->presence, VAPIC_SEQ_CST);

    return where == PRESENCE_GUEST || where == PRESENCE_ACCEL;
}

bool vapic_access_page(const struct vapic_vm *vm)
{
    /* Acquire: pairs with tell_page(). */
    return vapic_load32(&vm->page_mapped, VAPIC_ACQUIRE) != 0;
}

/* ---- The APIC access page, under the lock ---- */

/*
 * A host that maps the page at a fault asks vapic_access_page() under the lock under which it
 * withdraws it. So the permission ends before the withdrawal and begins after the mapping: a fault
 * handler that came first is undone by the withdrawal, one that comes later sees no permission.
 */
static void tell_page(struct vapic_vm *vm, bool mapped)
{
    if (mapped == (vm->page_mapped != 0))
        return;
    if (!mapped && !MUTANT(PAGE_PERMITTED_LATE))
        vapic_store32(&vm->page_mapped, false, VAPIC_SEQ_CST);
    vm->host.access_page(vm->ctx, mapped);
    if (!mapped && MUTANT(PAGE_PERMITTED_LATE))
        vapic_store32(&vm->page_mapped, false, VAPIC_SEQ_CST);
    if (mapped)
        vapic_store32(&vm->page_mapped, true, VAPIC_RELEASE);
}

/* Steps (1) and (2): nobody is in the guest, and nobody gets in before end_change(). */
static void begin_change(struct vapic_vm *vm)
{
    if (MUTANT(KICKED_BEFORE_GENERATION))
        vm->host.kick_all(vm->ctx);
    vapic_add32(&vm->generation, 1, VAPIC_SEQ_CST); /* pairs with (a) and (b) */
    if (!MUTANT(KICKED_BEFORE_GENERATION))
        vm->host.kick_all(vm->ctx);
}

/* Step (3). Never 0, which means "nothing served". */
static void end_change(struct vapic_vm *vm)
{
    if (vm->generation == UINT32_MAX)
        vapic_store32(&vm->generation, 1, VAPIC_RELEASE);
    vapic_add32(&vm->generation, 1, VAPIC_SEQ_CST);
}

void vapic_inhibit_withdraw_page(struct vapic_vm *vm)
{
    begin_change(vm);
    tell_page(vm, false);
    vm->page_withdrawn = true;
    end_change(vm);
}

/* ---- Changing reasons, under the lock ---- */

static void trace_change(struct vapic_vm *vm, uint32_t reason, bool set, uint32_t bits)
{
    TRACE(vm, APICV_INHIBIT_CHANGED, VAPIC_NO_INDEX, reason, set, bits, 0);
}

static uint64_t with_irqwin(const struct vapic_vm *vm, uint64_t word)
{
    uint64_t bit = INHIBIT_BIT(IRQWIN);

    if (!(vm->backend->honours & bit) || MUTANT(WINDOW_NOT_DERIVED))
        return word;
    return COUNT(word) != 0 ? word | bit : word & ~bit;
}

/* As Linux 7.1 and later print it: the change, and what became of IRQWIN with it. */
static void trace_both(struct vapic_vm *vm, uint32_t reason, bool set, uint64_t word)
{
    trace_change(vm, reason, set, REASONS(word));
    if (reason != VAPIC_INHIBIT_IRQWIN && vm->backend->honours & INHIBIT_BIT(IRQWIN))
        trace_change(vm, VAPIC_INHIBIT_IRQWIN, COUNT(word) != 0, REASONS(with_irqwin(vm, word)));
}

static uint64_t changed(uint64_t word, uint32_t reason, bool set)
{
    uint64_t bit = UINT64_C(1) << reason;

    return set ? word | bit : word & ~bit;
}

static bool flips(uint64_t old, uint64_t new)
{
    return (REASONS(old) == 0) != (REASONS(new) == 0);
}

/*
 * Only the count may change meanwhile, for reasons are written under the lock. But the count
 * decides about IRQWIN, and so whether the change flips: both are decided from the word that is
 * replaced. False: it flips, and nothing was stored.
 */
static bool store_unless_flips(struct vapic_vm *vm, uint32_t reason, bool set)
{
    uint64_t old = load_word(vm), new;

    do {
        new = with_irqwin(vm, changed(old, reason, set));
        if (flips(old, new))
            return false;
        if (MUTANT(REASONS_BY_STORE)) {
            vapic_store64(&vm->inhibits, new, VAPIC_SEQ_CST);
            break;
        }
    } while (new != old && !vapic_cas64(&vm->inhibits, &old, new, VAPIC_SEQ_CST));
    return true;
}

/* Nobody is in the guest, so it may flip or not. */
static void store_word(struct vapic_vm *vm, uint32_t reason, bool set)
{
    uint64_t old = load_word(vm);

    while (!vapic_cas64(&vm->inhibits, &old, with_irqwin(vm, changed(old, reason, set)),
                        VAPIC_SEQ_CST))
        ;
}

static void flip(struct vapic_vm *vm, uint32_t reason, bool set)
{
    begin_change(vm);
    store_word(vm, reason, set);
    tell_page(vm, REASONS(load_word(vm)) == 0 && (!vm->page_withdrawn || MUTANT(PAGE_COMES_BACK)));
    end_change(vm);
}

static void apply(struct vapic_vm *vm, uint32_t reason, bool set)
{
    /* Of a VM that is disabled for good nothing more is told or changed, as in Linux. */
    if (!(vm->backend->honours & 1u << reason) || vm->accel->disabled)
        return;
    if (UNLIKELY(vapic_traced(vm)))
        trace_both(vm, reason, set, changed(load_word(vm), reason, set));
    if (!store_unless_flips(vm, reason, set))
        flip(vm, reason, set);
}

static uint32_t with_bit(uint32_t set, uint32_t reason, bool on)
{
    return on ? set | 1u << reason : set & ~(1u << reason);
}

/*
 * A reason is in force while the library derives it from what the guest does, or the host says so:
 * neither can take back what the other one knows.
 */
void vapic_inhibit_locked(struct vapic_vm *vm, uint32_t reason, bool set)
{
    vm->derived = with_bit(vm->derived, reason, set);
    apply(vm, reason, set || (vm->by_host >> reason & 1 && !MUTANT(DERIVED_CLEARS_HOSTS)));
}

int vapic_set_inhibit(struct vapic_vm *vm, enum vapic_inhibit reason, bool set)
{
    if ((uint32_t)reason >= VAPIC_INHIBIT_COUNT || reason == VAPIC_INHIBIT_NESTED ||
        reason == VAPIC_INHIBIT_IRQWIN)
        return VAPIC_E_ARG;
    if (vm->backend == NULL || !(vm->backend->honours & 1u << reason))
        return VAPIC_OK;
    /* Acquire: who finds the bit as wanted finds the change that brought it complete. */
    if (((vapic_load32(&vm->by_host, VAPIC_ACQUIRE) >> reason) & 1) == set && !vapic_traced(vm))
        return VAPIC_OK;
    vm->host.lock(vm->ctx);
    apply(vm, reason, set || vm->derived >> reason & 1);
    vapic_store32(&vm->by_host, with_bit(vm->by_host, reason, set), VAPIC_RELEASE);
    vm->host.unlock(vm->ctx);
    return VAPIC_OK;
}

/* ---- Interrupt windows ---- */

static bool count_only(struct vapic_vm *vm, uint64_t delta)
{
    uint64_t old = load_word(vm);

    while (REASONS(old) & ~INHIBIT_BIT(IRQWIN))
        if (vapic_cas64(&vm->inhibits, &old, old + delta, VAPIC_SEQ_CST))
            return true;
    return false;
}

static uint64_t delta_of(bool more)
{
    return more ? COUNT_ONE : (uint64_t)0 - COUNT_ONE;
}

void vapic_inhibit_irqwin_locked(struct vapic_vm *vm, bool more)
{
    uint64_t word;

    if (count_only(vm, delta_of(more)))
        return;
    word = vapic_add64(&vm->inhibits, delta_of(more), VAPIC_SEQ_CST) + delta_of(more);
    if (COUNT(word) == (more ? 1u : 0u))
        apply(vm, VAPIC_INHIBIT_IRQWIN, more);
}

void vapic_inhibit_irqwin(struct vapic_vm *vm, bool more)
{
    if (count_only(vm, delta_of(more)))
        return;
    vm->host.lock(vm->ctx);
    /* Another reason may have come before the lock was there: it looks again. */
    vapic_inhibit_irqwin_locked(vm, more);
    vm->host.unlock(vm->ctx);
}
