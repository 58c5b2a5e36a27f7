/* SPDX-License-Identifier: MIT */
/*
 * What must hold, looked at where it happens, and the sequential reference: per vCPU the vectors
 * that are due, those in service, and TPR, kept from what was sent, taken and ended. It knows
 * nothing of the library. All of it runs between the accesses that are explored and is no part of
 * them.
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"

#include <string.h>

const struct ex_property ex_properties[] = {
#define X(id, name, text) {name, text},
    EX_PROPERTIES(X)
#undef X
};
const size_t ex_property_count = sizeof(ex_properties) / sizeof(ex_properties[0]);

/* ---- The reference ---- */

static int highest(const uint32_t set[8])
{
    for (int word = 7; word >= 0; word--)
        if (set[word] != 0)
            return word * 32 + 31 - __builtin_clz(set[word]);
    return -1;
}

/* [SDM3 12.8.3.1] */
static uint8_t ppr_of(const struct reference *r)
{
    int isr = highest(r->isr);

    if (isr < 0 || r->tpr >> 4 >= isr >> 4)
        return r->tpr;
    return (uint8_t)(isr & 0xF0);
}

/* The level-triggered pin with this vector, WORLD_PINS when there is none. */
static uint32_t pin_of(const struct world *w, uint8_t vector)
{
    uint32_t i = 0;

    while (i < WORLD_PINS &&
           !(vector != 0 && w->spec->pin[i].vector == vector && w->spec->pin[i].level))
        i++;
    return i;
}

void world_sent_to(struct world_vcpu *v, uint8_t vector, bool maybe)
{
    struct reference *r = &v->ref;

    if (v->repeats)
        ex_add(&v->sends, 1, "a message");
    if (r->sent[vector] < 255)
        r->sent[vector]++;
    set_bit(maybe ? r->may : r->due, vector);
}

void world_sent(struct world *w, const struct world_op *op, uint8_t vector)
{
    for (uint32_t n = 0; n < WORLD_VCPUS; n++)
        if (op->to >> n & 1)
            world_sent_to(&w->v[n], vector, op->maybe);
}

/* A level is taken when its line is high, or has been since it was last taken. */
static void account_for_level(struct world_vcpu *v, uint8_t vector, uint32_t pin)
{
    uint32_t line = ex_read(&v->w->line[pin], "line");

    if (!(line & LINE_HIGH) && line == v->ref.line_seen[pin])
        EX_BROKEN(INVENTED, "vCPU %u takes %02Xh, and its line has not been high", v->n, vector);
    v->ref.line_seen[pin] = line;
}

/* One edge, one delivery. */
static void account_for(struct world_vcpu *v, uint8_t vector)
{
    uint32_t pin = pin_of(v->w, vector);
    struct reference *r = &v->ref;

    if (v->w->spec->nested && vector == L1_NOTIFY) {
        v->l2s.notified = true;
        return;
    }
    if (v->repeats)
        ex_read(&v->sends, "messages");
    if (pin < WORLD_PINS) {
        account_for_level(v, vector, pin);
        return;
    }
    if (r->sent[vector] == 0)
        EX_BROKEN(INVENTED, "vCPU %u takes %02Xh, which nobody sent", v->n, vector);
    if (r->taken[vector] >= r->sent[vector])
        EX_BROKEN(TWICE, "vCPU %u takes %02Xh once more than the %u times it was sent", v->n,
                  vector, r->sent[vector]);
}

void world_delivered(struct world_vcpu *v, uint8_t vector)
{
    struct reference *r = &v->ref;
    uint8_t ppr = ppr_of(r);

    account_for(v, vector);
    if (vector >> 4 <= ppr >> 4)
        EX_BROKEN(PRIORITY, "vCPU %u takes %02Xh, and its PPR is %02Xh", v->n, vector, ppr);
    if (!v->guest_if)
        EX_BROKEN(PRIORITY, "vCPU %u takes %02Xh, and its interrupts are off", v->n, vector);
    set_bit(r->isr, vector);
    clear_bit(r->due, vector);
    clear_bit(r->may, vector);
    r->taken[vector]++;
}

void world_ended(struct world_vcpu *v)
{
    struct reference *r = &v->ref;
    int vector = highest(r->isr);

    if (vector < 0)
        return;
    clear_bit(r->isr, (uint8_t)vector);
    r->eois_of_level += bit_of(v->w->level_vectors, (uint8_t)vector);
}

void world_eoi_seen(struct world_vcpu *v, uint8_t vector)
{
    if (!bit_of(v->w->level_vectors, vector))
        EX_BROKEN(EOI, "the EOI of vCPU %u for the edge %02Xh reaches the I/O APIC", v->n, vector);
    v->ref.eois_seen++;
}

/* What is under way meanwhile may arrive before it or after it. */
void world_forgotten(struct world_vcpu *v)
{
    struct reference *r = &v->ref;

    for (uint32_t i = 0; i < 8; i++) {
        r->may[i] |= r->due[i];
        r->due[i] = 0;
        r->isr[i] = 0;
    }
    r->tpr = 0;
}

/* ---- Before an entry ---- */

/* Nobody can change the set from empty or to empty while this vCPU counts as being in the guest. */
void world_check_entry(struct world_vcpu *v)
{
    uint32_t reasons = vapic_inhibits(&v->w->vm).bits;
    bool wanted = reasons == 0 && !v->off && !(v->l2 && v->w->vendor == &world_amd);

    if (vapic_active(&v->apic) != wanted)
        EX_BROKEN(SERVED, "vCPU %u enters %s acceleration, reasons %#x", v->n,
                  wanted ? "without" : "with", reasons);
    if (v->w->spec->nested && !v->l2)
        world_check_01(v);
    if (reasons != 0 && ex_read(&v->w->page_mapped, "access page mapped?"))
        EX_BROKEN(SERVED, "vCPU %u enters, reasons %#x, and the access page is mapped", v->n,
                  reasons);
}

/* ---- At the end ---- */

static uint32_t word_at(const uint8_t *image, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, image + offset, sizeof(value));
    return value;
}

static void bitmap_at(const uint8_t *image, uint32_t base, uint32_t set[8])
{
    for (uint32_t i = 0; i < 8; i++)
        set[i] = word_at(image, base + 0x10 * i);
}

static void check_pending(struct world_vcpu *v, uint8_t vector, bool pending)
{
    const struct reference *r = &v->ref;
    bool level = pin_of(v->w, vector) < WORLD_PINS;

    if (v->w->spec->nested && vector == L1_NOTIFY)
        return;
    if (bit_of(r->due, vector) && !pending)
        EX_BROKEN(LOST, "vCPU %u never took %02Xh, and it is not pending", v->n, vector);
    if (!pending)
        return;
    if (!level && r->sent[vector] == 0)
        EX_BROKEN(INVENTED, "%02Xh is pending at vCPU %u, and nobody sent it", vector, v->n);
    if (!level && r->taken[vector] >= r->sent[vector])
        EX_BROKEN(TWICE, "%02Xh is pending at vCPU %u once more than it was sent", vector, v->n);
    if (v->stopped || !v->guest_if || vector >> 4 <= ppr_of(r) >> 4 || v->off)
        return;
    if (v->asleep)
        EX_BROKEN(ASLEEP, "vCPU %u sleeps, and %02Xh could be delivered", v->n, vector);
    EX_BROKEN(LOST, "vCPU %u runs on, and %02Xh is pending for ever", v->n, vector);
}

static void compare(const struct world_vcpu *v, const char *what, uint32_t is, uint32_t should)
{
    if (is != should)
        EX_BROKEN(REFERENCE, "vCPU %u: %s is %02Xh, should be %02Xh", v->n, what, is, should);
}

static void check_registers(struct world_vcpu *v)
{
    const struct reference *r = &v->ref;
    uint8_t image[VAPIC_IMAGE_SIZE];
    uint32_t irr[8], isr[8];

    world_require(vapic_save_image(&v->apic, VAPIC_IMAGE_ID32, image, sizeof(image),
                                   world_now(v->w)) == VAPIC_OK,
                  "saving the registers");
    bitmap_at(image, APIC_IRR, irr);
    bitmap_at(image, APIC_ISR, isr);
    for (uint32_t vector = 0; vector < 256; vector++)
        check_pending(v, (uint8_t)vector, bit_of(irr, (uint8_t)vector));
    for (uint32_t i = 0; i < 8; i++)
        compare(v, ex_text("ISR[%u]", i), isr[i], r->isr[i]);
    compare(v, "TPR", word_at(image, APIC_TPR), r->tpr);
    compare(v, "PPR", word_at(image, APIC_PPR), ppr_of(r));
    if (r->eois_seen != r->eois_of_level && !(v->w->spec->flags & WORLD_SUPPRESS))
        EX_BROKEN(EOI, "vCPU %u ended %u levels, and %u EOIs reached the I/O APIC", v->n,
                  r->eois_of_level, r->eois_seen);
}

/* Of several NMIs some may become one. */
static void check_events(const struct world_vcpu *v)
{
    const struct reference *r = &v->ref;

    if (r->nmis > r->nmis_sent + r->nmis_may)
        EX_BROKEN(TWICE, "vCPU %u took %u NMIs of %u", v->n, r->nmis, r->nmis_sent + r->nmis_may);
    if (r->nmis == 0 && r->nmis_sent != 0 && !v->stopped)
        EX_BROKEN(LOST, "vCPU %u never took its NMI", v->n);
    if (r->extints > r->extints_sent)
        EX_BROKEN(TWICE, "vCPU %u took %u ExtINTs of %u", v->n, r->extints, r->extints_sent);
    if (r->extints < r->extints_sent && v->guest_if && !v->stopped && !v->off)
        EX_BROKEN(LOST, "vCPU %u never took its ExtINT", v->n);
}

/* Windows are closed when nobody waits for one any more: with the next entry. */
static void check_windows(const struct world *w)
{
    bool waits = false;

    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        waits |= w->v[n].ref.extints < w->v[n].ref.extints_sent || w->v[n].spinning;
    if (!waits && vapic_inhibits(&w->vm).bits & 1u << VAPIC_INHIBIT_IRQWIN)
        EX_BROKEN(SERVED, "the VM ends inhibited by a window that nobody waits for");
}

static bool anywhere(const struct world_vcpu *v, uint8_t vector)
{
    uint32_t irr[8], isr[8];

    bitmap_at(v->page, APIC_IRR, irr);
    bitmap_at(v->page, APIC_ISR, isr);
    return bit_of(irr, vector) || bit_of(isr, vector);
}

/* After check_registers(), which has taken over what was posted. */
static void check_pin(struct world *w, uint32_t i)
{
    const struct world_pin_spec *spec = &w->spec->pin[i];
    uint64_t entry = vapic_ioapic_entry(&w->io, i);
    uint8_t vector = (uint8_t)entry;
    bool waits = false;

    if (spec->vector == 0 || !spec->level || entry & RTE_MASKED)
        return;
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        waits |= w->v[n].exists && anywhere(&w->v[n], vector);
    if (entry & RTE_REMOTE_IRR && !waits)
        EX_BROKEN(EOI, "pin %u waits for an EOI of %02Xh, which is neither pending nor in service",
                  i, vector);
    if (w->line[i] & LINE_HIGH && !(entry & RTE_REMOTE_IRR))
        EX_BROKEN(LEVEL, "the line of pin %u is high, and it does not interrupt", i);
}

void world_check_end(struct world *w)
{
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++) {
        struct world_vcpu *v = &w->v[n];

        if (!v->exists)
            continue;
        if (w->vendor != NULL)
            w->vendor->check(v);
        world_leave(v);
        check_registers(v);
        check_events(v);
        if (w->spec->nested)
            world_l2_check(v);
    }
    check_windows(w);
    for (uint32_t i = 0; i < WORLD_PINS; i++)
        check_pin(w, i);
}
