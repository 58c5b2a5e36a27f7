/* SPDX-License-Identifier: MIT */
/* See nested_equiv.h: what is drawn, and one operation on one world. */
#include "nested_equiv.h"

#define FIXED       (APIC_DM_FIXED | APIC_ICR_ASSERT)
#define LEVEL_FIRST 0xC0u /* level-triggered vectors, 16 of them */
#define CLUSTERED   0x0FFFFFFFu

const char *const neq_kind_names[NEQ_KINDS] = {
    [NEQ_PHYSICAL] = "physical IPI",
    [NEQ_LOGICAL] = "logical IPI",
    [NEQ_BROADCAST] = "broadcast",
    [NEQ_SELF] = "self IPI",
    [NEQ_EOI] = "EOI",
    [NEQ_TPR] = "TPR",
    [NEQ_CR8] = "CR8",
    [NEQ_READ] = "read",
    [NEQ_HLT] = "HLT",
    [NEQ_IF] = "IF",
    [NEQ_MASKED] = "masked phase",
    [NEQ_DEVICE] = "device",
    [NEQ_LEVEL] = "level device",
    [NEQ_DEVICE_ALL] = "device to all",
    [NEQ_MODEL] = "logical model",
    [NEQ_L1_DEVICE] = "L1's device",
    [NEQ_L1_IPI] = "L1's IPI",
    [NEQ_L1_MOVE] = "move by L1",
    [NEQ_L1_SWAP] = "swap by L1",
    [NEQ_L0_MOVE] = "move by L0",
    [NEQ_L0_INHIBIT] = "L1 inhibited",
    [NEQ_L1_INHIBIT] = "L2 inhibited",
    [NEQ_RESTORE] = "save and restore",
    [NEQ_MEET] = "move in the middle",
};

static const uint8_t weights[NEQ_KINDS] = {
    [NEQ_PHYSICAL] = 20,  [NEQ_LOGICAL] = 10,   [NEQ_BROADCAST] = 5, [NEQ_SELF] = 4,
    [NEQ_EOI] = 20,       [NEQ_TPR] = 3,        [NEQ_CR8] = 4,       [NEQ_READ] = 6,
    [NEQ_HLT] = 8,        [NEQ_IF] = 5,         [NEQ_MASKED] = 5,    [NEQ_DEVICE] = 6,
    [NEQ_LEVEL] = 3,      [NEQ_DEVICE_ALL] = 2, [NEQ_MODEL] = 1,     [NEQ_L1_DEVICE] = 5,
    [NEQ_L1_IPI] = 3,     [NEQ_L1_MOVE] = 5,    [NEQ_L1_SWAP] = 3,   [NEQ_L0_MOVE] = 5,
    [NEQ_L0_INHIBIT] = 3, [NEQ_L1_INHIBIT] = 3, [NEQ_RESTORE] = 3,   [NEQ_MEET] = 8,
};

/* ---- Drawing ---- */

static enum neq_kind any_kind(struct neq_random *r)
{
    uint32_t sum = 0, at;

    for (uint32_t i = 0; i < NEQ_KINDS; i++)
        sum += weights[i];
    at = neq_below(r, sum);
    for (uint32_t i = 0; i < NEQ_KINDS; i++) {
        if (at < weights[i])
            return (enum neq_kind)i;
        at -= weights[i];
    }
    return NEQ_EOI;
}

static uint32_t edge_vector(struct neq_random *r)
{
    uint32_t vector = 0x20 + neq_below(r, 0xE0 - 16);

    return vector < LEVEL_FIRST ? vector : vector + 16;
}

static uint32_t ldr(const struct neq_epoch *epoch, uint32_t n)
{
    if (!epoch->x2apic)
        return 1u << n;
    return epoch->l2_ids[n] >> 4 << 16 | 1u << (epoch->l2_ids[n] & 15);
}

/* One vCPU, two of one cluster (or any two in the flat model), or all bits. */
static uint32_t logical(struct neq_random *r, const struct neq_epoch *epoch)
{
    uint32_t one = ldr(epoch, neq_below(r, NEQ_VCPUS)), two = ldr(epoch, neq_below(r, NEQ_VCPUS));

    switch (neq_below(r, 4)) {
    case 0:
        return epoch->x2apic && one >> 16 != two >> 16 ? one : one | two;
    case 1:
        return epoch->x2apic ? one | 0xF : neq_below(r, 256);
    default:
        return one;
    }
}

static struct neq_ipi any_ipi(struct neq_random *r, const struct neq_epoch *epoch, uint32_t from,
                              uint32_t to, enum neq_kind kind)
{
    static const uint32_t forms[] = {APIC_ICR_ALL_EXCL, APIC_ICR_ALL_INCL, 0};
    struct neq_ipi ipi = {.from = from, .icr = FIXED | edge_vector(r), .dest = epoch->l2_ids[to]};

    if (kind == NEQ_LOGICAL) {
        ipi.icr |= APIC_ICR_LOGICAL;
        ipi.dest = logical(r, epoch);
    }
    if (kind == NEQ_SELF)
        ipi.icr |= APIC_ICR_SELF;
    if (kind == NEQ_BROADCAST) {
        ipi.icr |= forms[neq_below(r, 3)];
        ipi.dest = epoch->x2apic ? 0xFFFFFFFF : 0xFF;
    }
    return ipi;
}

static enum neq_kind ipi_kind(struct neq_random *r, enum neq_kind kind)
{
    if (kind <= NEQ_SELF)
        return kind;
    return neq_below(r, 3) == 0 ? NEQ_LOGICAL : NEQ_PHYSICAL;
}

struct neq_op neq_draw(struct neq_random *r, const struct neq_epoch *epoch)
{
    struct neq_op op = {.kind = any_kind(r),
                        .a = neq_below(r, NEQ_VCPUS),
                        .b = neq_below(r, NEQ_VCPUS),
                        .value = neq_below(r, 0x10000),
                        .flag = neq_below(r, 2) != 0};

    op.count = op.kind <= NEQ_SELF || op.kind == NEQ_L1_MOVE || op.kind == NEQ_L0_MOVE ||
               op.kind == NEQ_MEET;
    if (op.kind == NEQ_MASKED)
        op.count = 1 + neq_below(r, NEQ_BURST);
    if (op.kind == NEQ_DEVICE || op.kind == NEQ_DEVICE_ALL)
        op.value = edge_vector(r);
    for (uint32_t i = 0; i < op.count; i++) {
        uint32_t from = i == 0 ? op.a : neq_below(r, NEQ_VCPUS);
        enum neq_kind kind =
            op.kind == NEQ_MASKED || op.kind == NEQ_MEET ? NEQ_PHYSICAL : ipi_kind(r, op.kind);

        op.ipi[i] = any_ipi(r, epoch, from, op.b, kind);
    }
    return op;
}

/* ---- Doing ---- */

static bool note(struct neq_outcome *out, enum nx_result result)
{
    assert_true(result == NX_DONE || result == NX_STUCK);
    out->done += result == NX_DONE;
    out->stuck += result == NX_STUCK;
    return result == NX_DONE;
}

static bool can_execute(struct nx *nx, uint32_t l2)
{
    struct nx_op look = {NX_CR8, false, 0, 0, 0};

    return nx_l2_execute(nx, l2, &look) == NX_DONE;
}

static void send(struct nx *nx, const struct neq_ipi *ipi, struct neq_outcome *out)
{
    if (note(out, can_execute(nx, ipi->from) ? NX_DONE : NX_STUCK))
        nx_l2_ipi(nx, ipi->from, ipi->icr, ipi->dest);
}

static void write_register(struct nx *nx, uint32_t l2, uint32_t offset, uint32_t value,
                           struct neq_outcome *out)
{
    note(out, nx_l2_try_write(nx, l2, offset, value));
}

static void write_cr8(struct nx *nx, uint32_t l2, uint32_t value, struct neq_outcome *out)
{
    struct nx_op op = {NX_CR8, true, 0, 0, value};

    note(out, nx_l2_execute(nx, l2, &op));
}

static void read_register(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    static const uint32_t singles[] = {APIC_TPR, APIC_PPR, APIC_LVR, APIC_ID};
    uint32_t i = op->value % 20;
    uint32_t offset = i < 8    ? APIC_ISR + 16 * i
                      : i < 16 ? APIC_IRR + 16 * (i - 8)
                               : singles[i - 16];

    note(out, nx_l2_try_read(nx, op->a, offset, &out->value));
}

static void set_if(struct nx *nx, uint32_t l2, bool enabled, struct neq_outcome *out)
{
    if (note(out, can_execute(nx, l2) ? NX_DONE : NX_STUCK))
        nx_l2_if(nx, l2, enabled);
}

/* With interrupts off nothing but a reset would end it. */
static void halt(struct nx *nx, uint32_t l2, struct neq_outcome *out)
{
    struct nx_op op = {NX_HLT, false, 0, 0, 0};

    if (nx->l2[l2]->guest_if)
        note(out, nx_l2_execute(nx, l2, &op));
}

static void masked_phase(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    bool was = nx->l2[op->b]->guest_if;

    if (!note(out, can_execute(nx, op->b) ? NX_DONE : NX_STUCK))
        return;
    if (op->flag)
        nx_l2_write_cr8(nx, op->b, 15);
    else
        nx_l2_if(nx, op->b, false);
    for (uint32_t i = 0; i < op->count; i++)
        send(nx, &op->ipi[i], out);
    nx_settle(nx);
    if (op->flag)
        nx_l2_write_cr8(nx, op->b, 0);
    else
        nx_l2_if(nx, op->b, was);
}

/* The vCPUs change their logical IDs, those that can: then the models are mixed, which L1's library
 * has to notice. */
static void change_model(struct nx *nx, bool clusters, struct neq_outcome *out)
{
    if ((vapic_base(&nx->l2[0]->apic) & APIC_BASE_EXTD) != 0)
        return;
    for (uint32_t n = 0; n < NEQ_VCPUS; n++) {
        uint32_t id = clusters ? n / 2 << 4 | 1u << n % 2 : 1u << n;

        write_register(nx, n, APIC_DFR, clusters ? CLUSTERED : 0xFFFFFFFF, out);
        write_register(nx, n, APIC_LDR, id << 24, out);
    }
}

/* A vCPU of L1 on which no L2 runs: L1's devices are there. */
static uint32_t idle_l1(const struct nx *nx)
{
    for (uint32_t n = 0; n < nx->l1_count; n++)
        if (nx->l1[n]->runs < 0)
            return n;
    fail_msg("every vCPU of L1 runs L2");
    return 0;
}

static void device(struct nx *nx, uint32_t l2, uint8_t vector, bool level, struct neq_outcome *out)
{
    bool accepted = nx_l2_interrupt(nx, idle_l1(nx), l2, vector, level);

    note(out, accepted ? NX_DONE : NX_STUCK);
}

static void device_to_all(struct nx *nx, uint8_t vector, struct neq_outcome *out)
{
    for (uint32_t n = 0; n < NEQ_VCPUS; n++)
        device(nx, n, vector, false, out);
}

static void l1_move(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    uint32_t from = (uint32_t)nx->l2[op->b]->on, to = op->flag ? idle_l1(nx) : from;

    nx_l1_deschedule(nx, op->b);
    if (op->a != op->b)
        send(nx, &op->ipi[0], out);
    nx_settle(nx);
    nx_l1_schedule(nx, op->b, to);
    out->done++;
}

static void l1_swap(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    uint32_t other = (op->b + 1) % NEQ_VCPUS;
    uint32_t first = (uint32_t)nx->l2[op->b]->on, second = (uint32_t)nx->l2[other]->on;

    nx_l1_deschedule(nx, op->b);
    nx_l1_deschedule(nx, other);
    nx_l1_schedule(nx, op->b, second);
    nx_l1_schedule(nx, other, first);
    out->done++;
}

static uint32_t free_cpu(const struct nx *nx, uint32_t from)
{
    for (uint32_t i = 0; i < nx->cpu_count; i++) {
        uint32_t cpu = (from + i) % nx->cpu_count;
        bool taken = false;

        for (uint32_t n = 0; n < nx->l1_count; n++)
            taken |= nx->l1[n]->cpu == &nx->cpus[cpu];
        if (!taken)
            return cpu;
    }
    fail_msg("no free processor");
    return 0;
}

static void l0_move(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    uint32_t l1 = (uint32_t)nx->l2[op->b]->on;

    nx_deschedule(nx, l1);
    if (op->a != op->b)
        send(nx, &op->ipi[0], out);
    nx_settle(nx);
    nx_schedule(nx, l1, free_cpu(nx, op->value));
    out->done++;
}

/* ---- A move in the middle of an IPI: before, or after, it makes no difference ---- */

struct meeting {
    const struct neq_op *op;
    uint32_t point;
    bool met;
};

static void meet(struct nx *nx, const struct neq_op *op)
{
    uint32_t l1 = (uint32_t)nx->l2[op->b]->on;

    if (op->value % 3 == 0) {
        nx_deschedule(nx, l1);
        nx_schedule(nx, l1, free_cpu(nx, op->value));
    } else if (op->value % 3 == 1) {
        uint32_t to = op->flag ? idle_l1(nx) : l1;

        nx_l1_deschedule(nx, op->b);
        nx_l1_schedule(nx, op->b, to);
    } else {
        nx_leave(nx, l1);
        nx_l1_interrupt(nx, l1, (uint8_t)(0x30 + op->value % 0xA0));
        nx_run(nx, l1);
    }
}

/* Of the sender's instruction in L2, not of what L1 does on its behalf. */
static void at_point(struct nx *nx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct meeting *m = nx->user;
    const struct nx_l1 *sender = nx->l1[nx->l2[m->op->a]->on];

    if (m->met || (uint32_t)point != m->point || cpu != sender->cpu || !sender->l2)
        return;
    m->met = true;
    meet(nx, m->op);
}

static void meeting(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    struct meeting m = {.op = op, .point = op->value / 3 % VAPIC_SIL_POINTS};

    if (op->a == op->b)
        return;
    nx->user = &m;
    nx->on_point = at_point;
    send(nx, &op->ipi[0], out);
    nx->on_point = NULL;
    if (m.met)
        return;
    nx_settle(nx); /* a processor that has a wakeup vector pending takes it */
    meet(nx, op);
}

static void l1_ipi(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    uint32_t to = (uint32_t)nx->l2[op->b]->on;

    nx_l1_ipi(nx, idle_l1(nx), FIXED | (0x30 + op->value % 0xA0), vapic_id(&nx->l1[to]->apic));
    out->done++;
}

static void inhibit(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    bool on = op->value % 4 == 0;

    if (op->kind == NEQ_L0_INHIBIT)
        nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, on);
    else
        nx_l1_toggle_inhibit(nx, idle_l1(nx), VAPIC_INHIBIT_BLOCKIRQ, on);
    out->done++;
}

static void l1_device(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    uint32_t to = op->flag ? (uint32_t)nx->l2[op->b]->on : idle_l1(nx);

    note(out, nx_l1_interrupt(nx, to, (uint8_t)(0x30 + op->value % 0xA0)) ? NX_DONE : NX_STUCK);
}

static void perform(struct nx *nx, const struct neq_op *op, struct neq_outcome *out)
{
    switch (op->kind) {
    case NEQ_EOI:
        for (uint32_t i = 0; i <= op->value % 6; i++)
            write_register(nx, op->a, APIC_EOI, 0, out);
        break;
    case NEQ_TPR:
        write_register(nx, op->a, APIC_TPR, (op->flag ? op->value % 13 << 4 : 0), out);
        break;
    case NEQ_CR8:
        write_cr8(nx, op->a, op->flag ? op->value % 13 : 0, out);
        break;
    case NEQ_READ:
        read_register(nx, op, out);
        break;
    case NEQ_HLT:
        halt(nx, op->a, out);
        break;
    case NEQ_IF:
        set_if(nx, op->a, op->value % 4 != 0, out);
        break;
    case NEQ_MASKED:
        masked_phase(nx, op, out);
        break;
    case NEQ_DEVICE:
        device(nx, op->b, (uint8_t)op->value, false, out);
        break;
    case NEQ_LEVEL:
        device(nx, op->b, (uint8_t)(LEVEL_FIRST + op->value % 16), true, out);
        break;
    case NEQ_DEVICE_ALL:
        device_to_all(nx, (uint8_t)op->value, out);
        break;
    case NEQ_MODEL:
        change_model(nx, op->flag, out);
        break;
    case NEQ_L1_DEVICE:
        l1_device(nx, op, out);
        break;
    case NEQ_L1_IPI:
        l1_ipi(nx, op, out);
        break;
    case NEQ_L1_MOVE:
        l1_move(nx, op, out);
        break;
    case NEQ_L1_SWAP:
        l1_swap(nx, op, out);
        break;
    case NEQ_L0_MOVE:
        l0_move(nx, op, out);
        break;
    case NEQ_MEET:
        meeting(nx, op, out);
        break;
    case NEQ_L0_INHIBIT:
    case NEQ_L1_INHIBIT:
        inhibit(nx, op, out);
        break;
    case NEQ_RESTORE:
        nx_save_restore(nx, (uint32_t)nx->l2[op->b]->on);
        out->done++;
        break;
    default:
        send(nx, &op->ipi[0], out);
        break;
    }
}

struct neq_outcome neq_apply(struct nx *nx, const struct neq_op *op)
{
    struct neq_outcome out = {0};

    perform(nx, op, &out);
    nx_settle(nx);
    return out;
}

void neq_begin(struct nx *nx, const struct neq_epoch *epoch)
{
    struct neq_outcome out = {0};

    nx_settle(nx);
    if (!epoch->x2apic)
        change_model(nx, false, &out);
    nx_settle(nx);
}
