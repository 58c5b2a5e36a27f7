/* SPDX-License-Identifier: MIT */
/*
 * Posting in a VM with a back end. Any thread, no lock. Where a post goes depends on the back end
 * only; whether the target is accelerated at the moment decides nothing but the notification.
 *
 * AVIC. The vector's bit goes into the page's IRR, where the processor of a peer and the IOMMU put
 * theirs; the trigger mode before it, because the processor tests TMR at EOI. IRR itself is what
 * the owner looks at after it has announced where it is, so no ON is needed for a vector: it serves
 * to spare a second kick only.
 *
 *      sender: IRR, then presence        owner: presence, then IRR (vapic_enter, vapic_block)
 *
 * APICv. An edge goes into PIR, then ON, as the processor's and the IOMMU's posts do; a processor
 * in the guest takes PIR over when it gets the notification, and clears ON. A level-triggered
 * vector must not get there that way: its EOI has to exit, and no processor loads an EOI-exit
 * bitmap on its own. So it goes into level[], which only the owner harvests, outside the guest, and
 * an accelerated target is kicked for it: its bit in the bitmap is there before the vector can be
 * delivered, however the I/O APIC is reprogrammed meanwhile. The same way go edges for whose EOI
 * somebody may wait, into edge[], while the target's bitmap has yet to follow a change of the
 * routes.
 */
#include "backend.h"

static NOINLINE void trace_doorbell(const struct vapic *v)
{
    uint32_t id = 0;

    if (v->vm->post == POST_PAGE && vapic_doorbell_id(v, &id))
        TRACE(v->vm, AVIC_DOORBELL, v->index, v->id, id, 0, 0);
}

static enum vapic_action ring(const struct vapic *v)
{
    if (UNLIKELY(v->vm->trace != NULL))
        trace_doorbell(v);
    return VAPIC_ACTION_DOORBELL;
}

/* A doorbell leaves ON alone, so ON says nothing while the target is accelerated. */
static enum vapic_action notify_page(struct vapic *v)
{
    uint64_t before;
    uint32_t where;

    /* SEQ_CST: behind the read-modify-write of IRR; pairs with announce() in lapic_run.c. */
    if (vapic_load32(&v->presence, VAPIC_SEQ_CST) == PRESENCE_ACCEL && !MUTANT(ON_SPARES_DOORBELL))
        return ring(v);
    before = vapic_or64(&v->pid.control, PID_ON, VAPIC_SEQ_CST);
    where = vapic_load32(&v->presence, VAPIC_SEQ_CST);
    if (where == PRESENCE_ACCEL && !(MUTANT(ON_SPARES_DOORBELL) && before & PID_ON))
        return ring(v);
    return before & PID_ON ? VAPIC_ACTION_NONE : (enum vapic_action)where;
}

/* Whoever finds ON set need not notify: a notification is on its way, or the owner will look. */
static enum vapic_action notify_pir(struct vapic *v)
{
    uint32_t where;

    if (vapic_or64(&v->pid.control, PID_ON, VAPIC_SEQ_CST) & PID_ON)
        return VAPIC_ACTION_NONE;
    where = vapic_load32(&v->presence, VAPIC_SEQ_CST);
    return where == PRESENCE_ACCEL ? ring(v) : (enum vapic_action)where;
}

enum vapic_action vapic_accel_notify(struct vapic *v)
{
    return v->vm->post == POST_PAGE ? notify_page(v) : notify_pir(v);
}

static uint32_t *page_word(struct vapic *v, uint32_t base, uint32_t vector)
{
    return (uint32_t *)(void *)(v->page + base + (vector >> 5) * 16u);
}

static void set_trigger(struct vapic *v, uint32_t vector, bool level)
{
    uint32_t *tmr = page_word(v, APIC_TMR, vector), bit = 1u << (vector & 31);

    if (((vapic_load32(tmr, VAPIC_RELAXED) & bit) != 0) == level)
        return;
    if (level)
        vapic_or32(tmr, bit, VAPIC_RELAXED); /* ordered by the SEQ_CST operation on IRR after it */
    else
        vapic_and32(tmr, ~bit, VAPIC_RELAXED);
}

static enum vapic_action post_page(struct vapic *v, uint32_t vector, bool level, bool *coalesced)
{
    uint32_t bit = 1u << (vector & 31);
    bool early =
        MUTANT(ACTIVE_READ_EARLY) && vapic_load32(&v->presence, VAPIC_SEQ_CST) != PRESENCE_OUTSIDE;

    if (!MUTANT(TMR_AFTER_IRR))
        set_trigger(v, vector, level);
    if (vapic_or32(page_word(v, APIC_IRR, vector), bit, VAPIC_SEQ_CST) & bit) {
        *coalesced = true;
        return VAPIC_ACTION_NONE;
    }
    if (MUTANT(TMR_AFTER_IRR))
        set_trigger(v, vector, level);
    POINT(v);
    if (MUTANT(ACTIVE_READ_EARLY) && !early)
        return VAPIC_ACTION_NONE;
    return notify_page(v);
}

/*
 * Will the EOI of an edge that is posted into PIR exit if somebody watches for it? Yes, if the
 * target has made its bitmap from the routes as they are. The sender has its message from a route;
 * whoever wrote that route counted himself into routes_changing before and the generation up after
 * (vapic_routes_begin()), so one of the two shows if the target has not looked since.
 */
static bool bitmap_in_doubt(const struct vapic *v)
{
    const struct vapic_vm *vm = v->vm;

    if (LIKELY(!vapic_eoi_is_watched(vm)) || v->accel == NULL)
        return false;
    return vapic_load32(&vm->routes_changing, VAPIC_ACQUIRE) != 0 ||
           vapic_load32(&v->accel->scanned, VAPIC_RELAXED) !=
               vapic_load32(&vm->routes_generation, VAPIC_RELAXED);
}

/* The set that a vector goes into; true: one that only software takes from. */
static bool choose_set(struct vapic *v, bool level, uint64_t **set)
{
    bool software = level || UNLIKELY(bitmap_in_doubt(v));

    if (MUTANT(LEVEL_INTO_PIR))
        software = level = false;
    *set = level ? v->level : software ? v->accel->edge : v->pid.pir;
    return software;
}

static enum vapic_action post_split(struct vapic *v, uint32_t vector, bool level, bool *coalesced)
{
    uint64_t *set, bit = UINT64_C(1) << (vector & 63);
    bool software = choose_set(v, level, &set);

    if (vapic_or64(&set[vector >> 6], bit, VAPIC_SEQ_CST) & bit) {
        *coalesced = true;
        return VAPIC_ACTION_NONE;
    }
    POINT(v);
    return software ? post_notify(v) : notify_pir(v);
}

enum vapic_action vapic_accel_post(struct vapic *v, uint32_t vector, bool level, bool *coalesced)
{
    enum vapic_action action;

    /* Vectors below 16 would lie in IRR for ever, for a processor that takes them over tells
     * nobody; the owner reports them [SDM3 12.5.2]. */
    if (UNLIKELY(vector < APIC_FIRST_VECTOR)) {
        vapic_or32(&v->events, EV_ILLEGAL, VAPIC_SEQ_CST);
        return post_notify(v);
    }
    if (v->vm->post == POST_PAGE)
        return post_page(v, vector, level, coalesced);
    /* Read once: L2 may be left at any moment, and L1 then finds the vector like any other. */
    if (UNLIKELY(vector == vapic_load32(&v->nested_vector, VAPIC_ACQUIRE)) && !level &&
        vapic_nested_post(v, vector, &action))
        return action;
    return post_split(v, vector, level, coalesced);
}
