/* SPDX-License-Identifier: MIT */
/*
 * What the guest can see of the two machines after an operation, or could see if it looked. A
 * difference must be one of the named deviations of real silicon (deviations.h). Then the state of
 * the reference is loaded into the other machine, so that what follows can be compared again.
 */
#include "deviations.h"

#include <stdio.h>
#include <string.h>

#define DIFFERENCES 48u

struct differences {
    uint32_t count;
    struct eq_difference d[DIFFERENCES];
};

static void differs(struct differences *all, struct eq_difference d)
{
    if (all->count < DIFFERENCES)
        all->d[all->count++] = d;
}

uint32_t eq_deviation_count(void)
{
    return sizeof(deviations) / sizeof(deviations[0]);
}

const struct eq_deviation *eq_deviation(uint32_t n)
{
    return &deviations[n];
}

/* ---- Interrupts that the guest saw ---- */

#define EVENTS 256u

struct events {
    uint32_t count;
    uint16_t list[EVENTS];
};

static uint32_t event_code(const struct ax_event *event)
{
    switch (event->kind) {
    case AX_DELIVERED:
        return (uint32_t)event->a;
    case AX_NMI:
        return EQ_EVENT_NMI;
    case AX_EXTINT:
        return EQ_EVENT_EXT | (uint32_t)event->a;
    default:
        return EQ_NO_EVENT;
    }
}

static void collect(const struct ax *ax, struct events *per_vcpu, struct events *eois)
{
    for (uint32_t i = 0; i < ax->logged; i++) {
        const struct ax_event *event = &ax->log[i];
        uint32_t code = event_code(event);
        struct events *to = NULL;

        if (code != EQ_NO_EVENT)
            to = &per_vcpu[event->vcpu];
        else if (event->kind == AX_EOI) {
            to = eois;
            code = event->vcpu << 8 | (uint32_t)event->a;
        }
        if (to != NULL && to->count < EVENTS)
            to->list[to->count++] = (uint16_t)code;
    }
}

static void compare_lists(struct differences *all, enum eq_difference_kind kind, uint32_t vcpu,
                          const struct events *ref, const struct events *acc)
{
    uint32_t longest = ref->count > acc->count ? ref->count : acc->count;

    for (uint32_t i = 0; i < longest; i++) {
        uint32_t r = i < ref->count ? ref->list[i] : EQ_NO_EVENT;
        uint32_t a = i < acc->count ? acc->list[i] : EQ_NO_EVENT;

        if (r == a)
            continue;
        differs(all, (struct eq_difference){.kind = kind, .vcpu = vcpu, .ref = r, .acc = a});
        return;
    }
}

static void compare_events(struct equiv *e, struct differences *all)
{
    static struct events ref[EQ_VCPUS], acc[EQ_VCPUS], ref_eois, acc_eois;

    for (uint32_t n = 0; n < EQ_VCPUS; n++)
        ref[n].count = acc[n].count = 0;
    ref_eois.count = acc_eois.count = 0;
    collect(e->ref, ref, &ref_eois);
    collect(e->acc, acc, &acc_eois);
    for (uint32_t n = 0; n < EQ_VCPUS; n++) {
        e->counts.delivered += ref[n].count;
        compare_lists(all, EQ_EVENT, n, &ref[n], &acc[n]);
    }
    compare_lists(all, EQ_EOI, 0, &ref_eois, &acc_eois);
}

/* ---- Registers ---- */

/* What is posted and not yet taken over counts as in IRR. */
static uint32_t pending_word(const struct ax *ax, uint32_t n, uint32_t word)
{
    const struct vapic *v = &ax->v[n]->apic;
    uint64_t bits = v->pid.pir[word / 2];

    if (ax->kind == VAPIC_ACCEL_APICV)
        bits |= v->level[word / 2];
    return ax_page(ax, n, APIC_IRR + 16 * word) | (uint32_t)(bits >> 32 * (word % 2));
}

static uint32_t icr_high(const struct ax *ax, uint32_t n)
{
    bool wide = ax->kind == VAPIC_ACCEL_APICV && vapic_base(&ax->v[n]->apic) & APIC_BASE_EXTD;

    return ax_page(ax, n, wide ? APIC_ICR + 4 : APIC_ICR2);
}

static uint32_t state_word(const struct ax *ax, uint32_t n, uint32_t offset)
{
    if (offset >= APIC_IRR && offset < APIC_ESR)
        return pending_word(ax, n, (offset - APIC_IRR) / 16);
    if (offset == APIC_ICR2)
        return icr_high(ax, n);
    return ax_page(ax, n, offset);
}

static const uint16_t state_offsets[] = {
    0x020, 0x030, 0x080, 0x0A0, 0x0C0, 0x0D0, 0x0E0, 0x0F0, 0x100, 0x110, 0x120,
    0x130, 0x140, 0x150, 0x160, 0x170, 0x180, 0x190, 0x1A0, 0x1B0, 0x1C0, 0x1D0,
    0x1E0, 0x1F0, 0x200, 0x210, 0x220, 0x230, 0x240, 0x250, 0x260, 0x270, 0x280,
    0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3E0,
};

static void compare_registers(struct equiv *e, uint32_t n, struct differences *all)
{
    for (uint32_t i = 0; i < sizeof(state_offsets) / sizeof(state_offsets[0]); i++) {
        uint32_t offset = state_offsets[i];
        uint32_t ref = state_word(e->ref, n, offset), acc = state_word(e->acc, n, offset);

        /* The processor computes PPR when it delivers; else software does when it is outside. */
        if (offset == APIC_PPR && !vapic_active(&e->acc->v[n]->apic))
            continue;
        if (ref != acc)
            differs(all, (struct eq_difference){EQ_STATE, n, offset, ref, acc});
    }
}

#define RTE_MASKED (1u << 16)
#define RTE_STATUS (1u << 12)

/* The status of a masked pin says that its last message found no taker: no record carries that. */
static uint64_t pin_entry(const struct ax *ax, uint32_t pin)
{
    uint64_t entry = vapic_ioapic_entry(&ax->io, pin);

    return entry & RTE_MASKED ? entry & ~(uint64_t)RTE_STATUS : entry;
}

static void compare_state(struct equiv *e, struct differences *all)
{
    for (uint32_t n = 0; n < EQ_VCPUS; n++) {
        const struct vapic *ref = &e->ref->v[n]->apic, *acc = &e->acc->v[n]->apic;

        if (e->paused[n])
            continue;
        if (vapic_base(ref) & APIC_BASE_EN) /* else nobody can see them, nor will */
            compare_registers(e, n, all);
        if (vapic_base(ref) != vapic_base(acc))
            differs(all, (struct eq_difference){EQ_STATE, n, MSR_APIC_BASE, vapic_base(ref),
                                                vapic_base(acc)});
        if (ref->esr_latch != acc->esr_latch)
            differs(all, (struct eq_difference){EQ_LATCH, n, 0, ref->esr_latch, acc->esr_latch});
        if (vapic_activity(ref) != vapic_activity(acc))
            differs(all, (struct eq_difference){EQ_ACTIVITY, n, 0, vapic_activity(ref),
                                                vapic_activity(acc)});
    }
    for (uint32_t pin = 0; pin < EQ_PINS; pin++) {
        uint64_t ref = pin_entry(e->ref, pin), acc = pin_entry(e->acc, pin);

        if (ref != acc)
            differs(all, (struct eq_difference){EQ_REDIRECTION, 0, pin, ref, acc});
    }
}

/* ---- The outcome of the instruction ---- */

static void compare_outcome(struct equiv *e, struct differences *all)
{
    if (e->ref_outcome.result != e->acc_outcome.result)
        differs(all, (struct eq_difference){EQ_RESULT, e->op.vcpu, 0, e->ref_outcome.result,
                                            e->acc_outcome.result});
    else if (e->ref_outcome.value != e->acc_outcome.value)
        differs(all, (struct eq_difference){EQ_VALUE, e->op.vcpu, 0, e->ref_outcome.value,
                                            e->acc_outcome.value});
}

/* ---- Verdict ---- */

static bool is_listed(struct equiv *e, const struct eq_difference *d)
{
    for (uint32_t i = 0; i < eq_deviation_count(); i++)
        if (deviations[i].modes & 1u << e->mode && deviations[i].explains(e, d)) {
            e->counts.deviations[i]++;
            return true;
        }
    return false;
}

static const char *const kind_names[] = {
    [EQ_RESULT] = "result",     [EQ_VALUE] = "value",       [EQ_EVENT] = "interrupts",
    [EQ_EOI] = "EOIs",          [EQ_STATE] = "state",       [EQ_REDIRECTION] = "I/O APIC pin",
    [EQ_ACTIVITY] = "activity", [EQ_IMAGE] = "saved image", [EQ_LATCH] = "error latch",
};

static void describe(struct equiv *e, const struct eq_difference *d)
{
    const struct eq_op *op = &e->op;

    snprintf(e->failure, sizeof(e->failure),
             "operation %llu: %s vcpu %u %s size %u where %#x value %#llx (%s, %s): %s of vCPU %u "
             "at %#x is %#llx alone, %#llx with %s",
             (unsigned long long)e->number, eq_kind_names[op->kind], op->vcpu,
             op->write ? "write" : "read", op->size, op->where, (unsigned long long)op->value,
             e->before.x2apic[op->vcpu] ? "x2APIC" : "xAPIC",
             e->before.active[op->vcpu] ? "active" : "inactive", kind_names[d->kind], d->vcpu,
             d->offset, (unsigned long long)d->ref, (unsigned long long)d->acc,
             ax_modes[e->mode].name);
}

/* One line for each kind of difference that is met: to review what the table should say. */
static void survey(struct equiv *e, const struct eq_difference *d)
{
    static uint32_t known[4096], count;
    uint32_t slot = e->op.kind == EQ_MMIO || e->op.kind == EQ_MSR ? e->op.where & 0xFF0 : 0;
    uint32_t key = (uint32_t)d->kind << 28 | (uint32_t)e->op.kind << 23 | slot << 10 |
                   (e->op.kind == EQ_MSR ? (e->op.where & 0xF) << 14 : 0) |
                   (uint32_t)e->op.write << 9 | (uint32_t)e->before.active[e->op.vcpu] << 8 |
                   (d->offset >> 4 & 0x7F) << 1 | (uint32_t)e->before.x2apic[e->op.vcpu];

    for (uint32_t i = 0; i < count; i++)
        if (known[i] == key)
            return;
    if (count < 4096)
        known[count++] = key;
    describe(e, d);
    printf("# %s\n", e->failure);
}

static void copy_vcpu(struct equiv *e, uint32_t n)
{
    struct vapic *from = &e->ref->v[n]->apic, *to = &e->acc->v[n]->apic;
    uint8_t image[VAPIC_IMAGE_SIZE], record[VAPIC_RECORD_SIZE];
    struct ax_vcpu *c = e->acc->v[n];
    struct vapic_entry entry;

    ax_leave(e->acc, n);
    if (c->blocked)
        vapic_unblock(to);
    c->blocked = c->woken = false;
    assert_int_equal(vapic_save_image(from, VAPIC_IMAGE_ID32, image, sizeof(image), e->ref->now),
                     VAPIC_OK);
    assert_int_equal(vapic_save_record(from, record, sizeof(record), e->ref->now), VAPIC_OK);
    /* Also what no image carries, because no guest should be able to change it. */
    memcpy(c->page, e->ref->v[n]->page, APIC_PAGE_SIZE);
    assert_int_equal(vapic_load_base(to, vapic_base(from)), VAPIC_OK);
    assert_int_equal(vapic_load_image(to, VAPIC_IMAGE_ID32, image, sizeof(image), e->acc->now),
                     VAPIC_OK);
    assert_int_equal(vapic_load_record(to, record, sizeof(record), e->acc->now, &entry), VAPIC_OK);
    /* A load makes no count exceed TMICT; a period that was stretched (min_period_ns) does. */
    to->timer_when = from->timer_when;
}

static void copy_ioapic(struct equiv *e)
{
    uint8_t record[VAPIC_IOAPIC_RECORD(24)];
    bool same = true;

    for (uint32_t pin = 0; pin < EQ_PINS; pin++)
        same = same && pin_entry(e->ref, pin) == pin_entry(e->acc, pin);
    if (same)
        return;
    assert_int_equal(vapic_ioapic_save(&e->ref->io, record, sizeof(record)), VAPIC_OK);
    assert_int_equal(vapic_ioapic_load(&e->acc->io, record, sizeof(record)), VAPIC_OK);
}

static void resynchronize(struct equiv *e)
{
    e->counts.resyncs++;
    for (uint32_t n = 0; n < EQ_VCPUS; n++)
        copy_vcpu(e, n);
    copy_ioapic(e);
    eq_settle(e, e->acc);
}

/* False: there are some, and not all of them are listed. */
static bool judge(struct equiv *e, const struct differences *all)
{
    for (uint32_t i = 0; i < all->count; i++) {
        if (is_listed(e, &all->d[i]))
            continue;
        if (e->survey) {
            survey(e, &all->d[i]);
            continue;
        }
        describe(e, &all->d[i]);
        return false;
    }
    return true;
}

bool eq_compare(struct equiv *e)
{
    struct differences all = {0};

    compare_outcome(e, &all);
    compare_events(e, &all);
    compare_state(e, &all);
    if (!judge(e, &all))
        return false;
    if (all.count != 0)
        resynchronize(e);
    return true;
}

static uint32_t image_word(const uint8_t *image, uint32_t at)
{
    uint32_t word;

    memcpy(&word, image + at, sizeof(word));
    return word;
}

/* At the end of an epoch: what a migration would take along. */
bool eq_compare_images(struct equiv *e)
{
    uint8_t ref[VAPIC_IMAGE_SIZE], acc[VAPIC_IMAGE_SIZE];
    struct differences all = {0};

    for (uint32_t n = 0; n < EQ_VCPUS; n++) {
        if (e->paused[n] || !(vapic_base(eq_vcpu(e, n)) & APIC_BASE_EN))
            continue;
        ax_leave(e->acc, n);
        vapic_save_image(eq_vcpu(e, n), VAPIC_IMAGE_ID32, ref, sizeof(ref), e->ref->now);
        vapic_save_image(&e->acc->v[n]->apic, VAPIC_IMAGE_ID32, acc, sizeof(acc), e->acc->now);
        for (uint32_t at = 0; at < sizeof(ref); at += 4)
            if (image_word(ref, at) != image_word(acc, at))
                differs(&all, (struct eq_difference){EQ_IMAGE, n, at, image_word(ref, at),
                                                     image_word(acc, at)});
    }
    return judge(e, &all);
}

/* ---- Before the operation ---- */

void eq_note_before(struct equiv *e)
{
    for (uint32_t n = 0; n < EQ_VCPUS; n++) {
        uint64_t base = vapic_base(eq_vcpu(e, n));

        e->before.active[n] = vapic_active(&e->acc->v[n]->apic);
        e->before.x2apic[n] = (base & APIC_BASE_EXTD) != 0;
        e->before.enabled[n] = (base & APIC_BASE_EN) != 0;
        e->before.software[n] = (ax_page(e->ref, n, APIC_SVR) & APIC_SVR_ENABLE) != 0;
        e->counts.samples++;
        e->counts.active += e->before.active[n];
    }
    e->before.page_mapped = e->acc->page_mapped;
}

void eq_note_cell(struct equiv *e)
{
    const struct eq_op *op = &e->op;
    bool x2 = e->before.x2apic[op->vcpu], active = e->before.active[op->vcpu];
    uint32_t cell;

    if (e->ref_outcome.result == AX_STUCK || !e->before.enabled[op->vcpu])
        return;
    if (op->kind == EQ_MMIO && !x2 && op->size == 4 && op->where % 16 == 0) {
        cell = eq_cell(false, op->where >> 4, op->write);
        active = active && e->before.page_mapped;
    } else if (op->kind == EQ_MSR && x2 && op->where >= MSR_X2APIC_FIRST &&
               op->where <= MSR_X2APIC_LAST) {
        cell = eq_cell(true, op->where - MSR_X2APIC_FIRST, op->write);
    } else {
        return;
    }
    if (active)
        e->counts.cells[cell]++;
}
