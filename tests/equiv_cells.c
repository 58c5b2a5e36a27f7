/* SPDX-License-Identifier: MIT */
/*
 * Every cell of the two access tables (register, direction, mode of the APIC) through the back end:
 * read, written with zero, with ones, and with something sensible; while the vCPU is accelerated
 * and while it is not; with one vector in service and one pending. Each on a pair of machines of
 * its own, and the same offset is read back.
 */
#include "equiv.h"

#include <string.h>

struct cell {
    bool x2apic, inhibited, write;
    uint32_t slot;
    uint64_t value;
};

static struct eq_op operation(const struct cell *c)
{
    if (c->x2apic)
        return (struct eq_op){.kind = EQ_MSR,
                              .write = c->write,
                              .where = MSR_X2APIC_FIRST + c->slot,
                              .value = c->value};
    return (struct eq_op){
        .kind = EQ_MMIO, .write = c->write, .size = 4, .where = c->slot << 4, .value = c->value};
}

static bool step(struct equiv *e, struct eq_op op)
{
    bool fine = eq_step(e, &op);

    e->number++;
    return fine;
}

static bool prepare(struct equiv *e, const struct cell *c)
{
    uint32_t tpr = APIC_TPR;
    struct cell set_tpr = {.x2apic = c->x2apic, .write = true, .slot = tpr >> 4, .value = 0x50};

    if (c->inhibited)
        vapic_set_inhibit(&e->acc->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    return step(e, (struct eq_op){.kind = EQ_POST, .value = 0x41}) &&
           step(e, (struct eq_op){.kind = EQ_POST, .vcpu = 1, .value = 0x42}) &&
           step(e, operation(&set_tpr)) && step(e, (struct eq_op){.kind = EQ_POST, .value = 0x45});
}

static bool one_cell(struct equiv *e, const struct cell *c)
{
    struct cell again = *c;
    bool fine;

    again.write = false;
    e->epoch = (struct eq_epoch){.x2apic = c->x2apic, .target_x2 = c->x2apic};
    eq_make(e);
    fine = prepare(e, c) && step(e, operation(c)) && step(e, operation(&again));
    eq_free(e);
    return fine;
}

static uint64_t sensible(const struct cell *c)
{
    static const struct {
        uint32_t offset;
        uint64_t value;
    } table[] = {
        {APIC_TPR, 0x20},      {APIC_SVR, 0x1FF},
        {APIC_LDR, 1u << 24},  {APIC_DFR, APIC_DFR_CLUSTER},
        {APIC_ICR2, 1u << 24}, {APIC_SELF_IPI, 0x61},
        {APIC_TMICT, 1000},    {APIC_TDCR, 0xB},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].offset == c->slot << 4)
            return table[i].value;
    if (c->slot << 4 == APIC_ICR)
        return c->x2apic ? UINT64_C(1) << 32 | 0x61 : 0x61;
    return 0x10061;
}

static bool values(struct equiv *e, struct cell c)
{
    if (!c.write)
        return one_cell(e, &c);
    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t value[4] = {0, 0xFFFFFFFF, sensible(&c), UINT64_MAX};

        if (i == 3 && !c.x2apic)
            continue;
        c.value = value[i];
        if (!one_cell(e, &c))
            return false;
    }
    return true;
}

bool eq_cells(struct equiv *e)
{
    e->toggling = false;
    for (uint32_t i = 0; i < EQ_CELLS * 2; i++) {
        struct cell c = {
            .inhibited = i & 1, .write = i & 2, .slot = i >> 2 & 255, .x2apic = i >> 10 & 1};

        if (!values(e, c))
            return false;
    }
    return true;
}
