/* SPDX-License-Identifier: MIT */
/*
 * Scenarios of the destination map alone: a VM without guests, in which one thread plays the owners
 * of the vCPUs and changes what messages find them by, and another one sends (or adds one). So few
 * steps that the memory of C11 can be sampled thoroughly: each order of the map is there for one of
 * them. A line is one step; what a message must reach, and what it may reach, stands beside it.
 */
#include "bare.h"
#include "properties.h"
#include "scenarios.h"

#include "vapic/arch/apic.h"

#define OPS     4u

#define XID(id) (0x100u | (id))

enum op_kind {
    OP_END,
    OP_WRITE, /* the owner of `v` writes `value` to register `a` */
    OP_X2APIC,
    OP_ADD,
    OP_REMOVE,
    OP_SEND, /* `a` is ICR without the vector, `value` the destination */
    OP_MSI,  /* to physical ID `value`, which takes the short way if it can */
    OP_KICK, /* looks for vCPU number `v`, as who kicks everybody does */
};

struct op {
    enum op_kind kind;
    uint8_t v;
    uint32_t a, value;
    uint8_t must, may; /* vCPUs, bit n is n */
};

struct map_spec {
    uint32_t vcpus;
    uint8_t removed; /* bit n: vCPU n was removed, its slot is free */
    uint8_t absent;  /* vCPU n was never added */
    uint8_t x2apic;
    uint8_t ldr[BARE_VCPUS];
    uint16_t xid[BARE_VCPUS]; /* XID(); 0: that of configuration */
    uint32_t id[BARE_VCPUS];  /* that of configuration; 0: n */
    struct op owner[OPS], sender[OPS];
};

struct map {
    struct bare b; /* first: the host's context */
    const struct map_spec *spec;
    uint32_t accepted[OPS]; /* sender's steps */
};

/* ---- Steps ---- */

static uint8_t vector_of(uint32_t step)
{
    return (uint8_t)(0x41 + 0x10 * step);
}

static uint32_t make(struct map *m, uint32_t step, const struct op *op)
{
    struct vapic *v = &m->b.v[op->v];

    switch (op->kind) {
    case OP_WRITE:
        bare_write(v, op->a, op->value);
        break;
    case OP_X2APIC:
        vapic_msr_write(v, MSR_APIC_BASE, vapic_base(v) | APIC_BASE_EXTD, bare_now);
        break;
    case OP_ADD:
        vapic_add(v);
        break;
    case OP_REMOVE:
        vapic_remove(v);
        break;
    case OP_SEND:
        return vapic_send(&m->b.vm,
                          (struct vapic_msg){.icr = op->a | APIC_ICR_ASSERT | vector_of(step),
                                             .dest = op->value,
                                             .source = VAPIC_FROM_DEVICE})
            .accepted;
    case OP_MSI:
        return (uint32_t)vapic_msi(&m->b.vm, 0xFEE00000u | op->value << 12, vector_of(step));
    case OP_KICK:
        v = vapic_at(&m->b.vm, op->v);
        return v != NULL ? (uint32_t)vapic_poke(v) : 0;
    case OP_END:
        break;
    }
    return 0;
}

static void own(void *arg)
{
    struct map *m = arg;

    for (uint32_t i = 0; i < OPS && m->spec->owner[i].kind != OP_END; i++)
        make(m, i, &m->spec->owner[i]);
}

static void send(void *arg)
{
    struct map *m = arg;

    for (uint32_t i = 0; i < OPS && m->spec->sender[i].kind != OP_END; i++)
        m->accepted[i] = make(m, i, &m->spec->sender[i]);
}

/* ---- Setup and what must hold ---- */

static void make_vcpu(struct map *m, uint32_t n)
{
    const struct map_spec *spec = m->spec;
    struct vapic *v = &m->b.v[n];

    bare_make_vcpu(&m->b, n, spec->id[n] != 0 ? spec->id[n] : n);
    if (spec->x2apic >> n & 1)
        make(m, 0, &(struct op){.kind = OP_X2APIC, .v = (uint8_t)n});
    else
        bare_write(v, APIC_LDR, (uint32_t)spec->ldr[n] << 24);
    if (spec->xid[n] != 0)
        bare_write(v, APIC_ID, (uint32_t)spec->xid[n] << 24);
    if (!(spec->absent >> n & 1))
        bare_add(&m->b, n);
}

static void setup(const struct ex_scenario *scenario, void *memory, uint32_t mode)
{
    static const struct vapic_host host;
    struct map *m = memory;
    struct vapic_vm_config config = {.knobs = VAPIC_PROFILE_MANUAL, .knobs_set = true};

    (void)mode;
    m->spec = scenario->data;
    config.max_vcpus = m->spec->vcpus;
    bare_make(&m->b, &config, &host);
    for (uint32_t n = 0; n < m->spec->vcpus; n++)
        make_vcpu(m, n);
    for (uint32_t n = 0; n < m->spec->vcpus; n++)
        if (m->spec->removed >> n & 1)
            bare_require(vapic_remove(&m->b.v[n]) == VAPIC_OK, "a slot to be free");
    ex_actor("owner", own, m);
    ex_actor("sender", send, m);
}

static bool has(struct map *m, uint32_t n, uint8_t vector)
{
    struct vapic *v = &m->b.v[n];
    uint32_t offset = APIC_IRR + 16 * (vector / 32u), irr = 0;
    uint64_t value = 0;

    if (vapic_base(v) & APIC_BASE_EXTD)
        vapic_msr_read(v, MSR_X2APIC_FIRST + (offset >> 4), &value, bare_now);
    else
        vapic_mmio_read(v, offset, &irr, sizeof(irr), bare_now);
    return (value | irr) >> vector % 32u & 1;
}

static void check_message(struct map *m, uint32_t step, const struct op *op)
{
    uint8_t vector = vector_of(step);
    uint32_t got = 0;

    for (uint32_t n = 0; n < m->spec->vcpus; n++) {
        bool here = has(m, n, vector);

        got += here;
        if (!here && op->must >> n & 1)
            EX_BROKEN(LOST, "%02xh did not reach vCPU %u", vector, n);
        if (here && !((op->must | op->may) >> n & 1))
            EX_BROKEN(INVENTED, "%02xh reached vCPU %u", vector, n);
    }
    if (got != m->accepted[step])
        EX_BROKEN(TWICE, "%02xh was accepted %u times, by %u vCPUs", vector, m->accepted[step],
                  got);
}

static void check(const struct ex_scenario *scenario, void *memory)
{
    struct map *m = memory;

    (void)scenario;
    for (uint32_t i = 0; i < OPS && m->spec->sender[i].kind != OP_END; i++)
        if (m->spec->sender[i].kind == OP_SEND || m->spec->sender[i].kind == OP_MSI)
            check_message(m, i, &m->spec->sender[i]);
}

#define MAP(spec)                                                                                  \
    .data = (spec), .races = "S15", .modes = EX_MODE(EX_NONE), .bound = EX_COMPLETE,               \
    .setup = setup, .check = check

/* ---- The scenarios ---- */

#define LOGICAL APIC_ICR_LOGICAL

/* Chains are ordered by index: vCPU 2 stands behind the one that comes or goes. */
static const struct map_spec leaves_by_dfr = {
    .vcpus = 3,
    .ldr = {1, 2, 1},
    .owner = {{OP_WRITE, 0, APIC_DFR, 0x0FFFFFFF, 0, 0}},
    .sender = {{OP_SEND, 0, LOGICAL, 1, .must = 4, .may = 1}},
};

const struct ex_scenario scenario_leaves_by_dfr = {
    .name = "leaves-by-dfr",
    .text = "the first of a chain goes into another one by its DFR: the one behind it is found",
    MAP(&leaves_by_dfr),
};

static const struct map_spec joins_a_chain = {
    .vcpus = 3,
    .ldr = {1, 2, 1},
    .owner = {{OP_WRITE, 1, APIC_LDR, 1u << 24, 0, 0}},
    .sender = {{OP_SEND, 0, LOGICAL, 1, .must = 5, .may = 2}},
};

const struct ex_scenario scenario_joins_a_chain = {
    .name = "joins-a-chain",
    .text = "a vCPU's new LDR puts it between two others: these are found",
    MAP(&joins_a_chain),
};

static const struct map_spec there_and_back = {
    .vcpus = 1,
    .ldr = {2},
    .owner = {{OP_WRITE, 0, APIC_LDR, 4u << 24, 0, 0}, {OP_WRITE, 0, APIC_LDR, 2u << 24, 0, 0}},
    .sender = {{OP_SEND, 0, LOGICAL, 6, .must = 1, .may = 0}},
};

const struct ex_scenario scenario_ldr_there_and_back = {
    .name = "ldr-there-and-back",
    .text = "a message to both LDRs that a vCPU has in turn: it gets it once",
    MAP(&there_and_back),
};

static const struct map_spec x2apic_physical = {
    .vcpus = 1,
    .owner = {{OP_X2APIC, 0, 0, 0, 0, 0}},
    .sender = {{OP_SEND, 0, 0, 0, .must = 1, .may = 0}},
};

const struct ex_scenario scenario_x2apic_and_physical = {
    .name = "x2apic-and-physical",
    .text = "the last xAPIC of a VM becomes an x2APIC under a message to its ID, which it keeps",
    MAP(&x2apic_physical),
};

static const struct map_spec x2apic_logical = {
    .vcpus = 1,
    .ldr = {1},
    .owner = {{OP_X2APIC, 0, 0, 0, 0, 0}},
    .sender = {{OP_SEND, 0, LOGICAL, 1, .must = 1, .may = 0}},
};

const struct ex_scenario scenario_x2apic_and_logical = {
    .name = "x2apic-and-logical",
    .text = "the same under a message to a logical ID that it has in both modes",
    MAP(&x2apic_logical),
};

/* vCPU 1 answers to ID 0, and vCPU 0, who has it by configuration, does when it has written it. */
static const struct map_spec id_is_taken = {
    .vcpus = 2,
    .xid = {XID(5), XID(0)},
    .owner = {{OP_WRITE, 0, APIC_ID, 0, 0, 0}},
    .sender = {{OP_MSI, 0, 0, 0, .must = 2, .may = 1}},
};

const struct ex_scenario scenario_id_is_taken = {
    .name = "id-is-taken",
    .text = "a vCPU writes an ID into its register that another one has: that one is found",
    MAP(&id_is_taken),
};

static const struct map_spec added_and_scanned = {
    .vcpus = 3,
    .removed = 2,
    .owner = {{OP_ADD, 1, 0, 0, 0, 0}},
    .sender = {{OP_SEND, 0, APIC_ICR_ALL_INCL, 0, .must = 5, .may = 2},
               {OP_KICK, 1, 0, 0, 0, 0},
               {OP_SEND, 0, 0, 1, .must = 0, .may = 2}},
};

const struct ex_scenario scenario_added_and_scanned = {
    .name = "added-and-scanned",
    .text = "a vCPU takes the slot between two others: who scans them finds all of it or nothing",
    MAP(&added_and_scanned),
};

/* All in one chain of the hash but vCPU 0, whose slot is free for vCPU 3, ahead of the others. */
static const struct map_spec added_by_hash = {
    .vcpus = 4,
    .removed = 1,
    .absent = 8,
    .x2apic = 15,
    .id = {0x10000, 0x10011, 0x10020, 0x1002F},
    .owner = {{OP_ADD, 3, 0, 0, 0, 0}},
    .sender = {{OP_SEND, 0, 0, 0x10011, .must = 2, .may = 0},
               {OP_SEND, 0, 0, 0x1002F, .must = 0, .may = 8}},
};

const struct ex_scenario scenario_added_by_hash = {
    .name = "added-by-hash",
    .text = "a vCPU of a large ID is added ahead of others in its chain: those are found",
    MAP(&added_by_hash),
};

static const struct map_spec added_inside_the_hash = {
    .vcpus = 4,
    .removed = 2,
    .absent = 8,
    .x2apic = 15,
    .id = {0x10011, 0x10000, 0x10020, 0x1002F},
    .owner = {{OP_ADD, 3, 0, 0, 0, 0}},
    .sender = {{OP_SEND, 0, 0, 0x10020, .must = 4, .may = 0}},
};

const struct ex_scenario scenario_added_inside_the_hash = {
    .name = "added-inside-the-hash",
    .text = "the same between two others: the one behind it is found",
    MAP(&added_inside_the_hash),
};

/* Nobody sends: the host's quiesce() waits for nobody here. */
static const struct map_spec removed_and_added = {
    .vcpus = 4,
    .absent = 8,
    .owner = {{OP_REMOVE, 1, 0, 0, 0, 0}},
    .sender = {{OP_ADD, 3, 0, 0, 0, 0}},
};

const struct ex_scenario scenario_removed_and_added = {
    .name = "removed-and-added",
    .text = "a vCPU is removed while another one is added: each has its own slot",
    MAP(&removed_and_added),
};
