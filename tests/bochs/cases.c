/* SPDX-License-Identifier: MIT */
/*
 * The list of cases (cases.h): groups, each a product of a few dimensions whose point is computed
 * from its number, and last a group of random cases, seeded by theirs. Freestanding.
 */
#include "cases.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Offsets that the list names; it shares no register table with the code under test. */
enum {
    R_TPR = 0x080,
    R_PPR = 0x0A0,
    R_EOI = 0x0B0,
    R_ISR = 0x100,
    R_IRR = 0x200,
    R_ICR = 0x300,
    R_SELF = 0x3F0,
    MSR_TPR = 0x808,
    MSR_EOI = 0x80B,
    MSR_ICR = 0x830,
    MSR_SELF = 0x83F,
};

enum { SLOTS = 256, BASE = C_SEC | C_BM };

/* ---- Small tools ---- */

/* Takes the dimension of `size` points off `n`. */
static uint32_t dim(uint32_t *n, uint32_t size)
{
    uint32_t point = *n % size;

    *n /= size;
    return point;
}

static uint32_t hash(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}

static void add(struct apicv_case *c, uint8_t code, uint8_t size, uint16_t at, uint64_t value)
{
    if (c->count < CASE_OPS)
        c->ops[c->count++] = (struct case_op){code, size, at, value};
}

static void set_all_eoi(struct apicv_case *c)
{
    for (unsigned i = 0; i < 4; i++)
        c->eoi_exit[i] = UINT64_MAX;
}

static void set_eoi(struct apicv_case *c, uint8_t vector)
{
    c->eoi_exit[vector / 64] |= UINT64_C(1) << (vector % 64);
}

/* The control combinations that VM entry takes, and of these, those with the APIC-access page. */
#define TPR_COMBOS(extra)                                                                          \
    C_TS | (extra), C_TS | C_EIE | (extra), C_TS | C_ARV | (extra),                                \
        C_TS | C_ARV | C_EIE | (extra), C_TS | C_VID | C_EIE | (extra),                            \
        C_TS | C_ARV | C_VID | C_EIE | (extra)

static const uint16_t combos[] = {
    C_VAA, C_VAA | C_EIE, TPR_COMBOS(C_VAA), 0, C_EIE, TPR_COMBOS(0), TPR_COMBOS(C_VX2),
};
enum { COMBOS = ARRAY_COUNT(combos), COMBOS_VAA = 8, COMBOS_PLAIN = COMBOS - COMBOS_VAA };
_Static_assert(COMBOS == 22, "4 without the TPR shadow, 18 with it");

/* With virtual-interrupt delivery, in all modes. */
static const uint16_t vid_combos[] = {
    C_TS | C_VID | C_EIE | C_VAA, C_TS | C_VID | C_EIE | C_VAA | C_ARV,
    C_TS | C_VID | C_EIE | C_VX2, C_TS | C_VID | C_EIE | C_VX2 | C_ARV,
    C_TS | C_VID | C_EIE,         C_TS | C_VID | C_EIE | C_ARV,
};

/* EOI and self-IPI by what the mode has. */
static void add_eoi(struct apicv_case *c)
{
    if (c->controls & C_VX2)
        add(c, OP_WRMSR, 0, MSR_EOI, 0);
    else
        add(c, OP_WRITE, 4, R_EOI, 0);
}

static void add_self(struct apicv_case *c, uint8_t vector)
{
    if (c->controls & C_VX2)
        add(c, OP_WRMSR, 0, MSR_SELF, vector);
    else
        add(c, OP_WRITE, 4, R_ICR, 0x40000u | vector);
}

/* ---- VM entry: every combination of controls ---- */

static const uint32_t thresholds[] = {0, 3, 8, 0x10, UINT32_MAX};
static const uint8_t vtprs[] = {0x00, 0x35, 0x80, 0xFF};

static void make_entry(uint32_t n, struct apicv_case *c)
{
    c->threshold = thresholds[dim(&n, ARRAY_COUNT(thresholds))];
    c->vtpr = vtprs[dim(&n, ARRAY_COUNT(vtprs))];
    c->controls = C_BM | dim(&n, 128);
    c->rvi = 0x41;
}

static void make_spoiled(uint32_t n, struct apicv_case *c)
{
    c->spoil = (uint8_t)(1 + dim(&n, SPOIL_COUNT - 1));
    c->controls = dim(&n, 128) | (dim(&n, 2) ? C_BM : 0);
}

/* Processing of posted interrupts: all entries but those that succeed. */
static void make_posting(uint32_t n, struct apicv_case *c)
{
    static const uint8_t spoils[] = {SPOIL_PID_ALIGN, SPOIL_PID_WIDTH, SPOIL_VECTOR};
    static const uint16_t full = C_TS | C_VID | C_EIE | C_AIE | C_PPI | C_SEC | C_BM;
    static const uint16_t lacks[] = {C_AIE, C_VID, C_EIE, C_TS, C_VID | C_EIE, C_AIE | C_VID};
    uint32_t point = dim(&n, ARRAY_COUNT(spoils) + ARRAY_COUNT(lacks));

    c->controls = full | (dim(&n, 2) ? C_ARV : 0) | (dim(&n, 2) ? C_VX2 : 0);
    if (point < ARRAY_COUNT(spoils))
        c->spoil = spoils[point];
    else
        c->controls &= ~(uint32_t)lacks[point - ARRAY_COUNT(spoils)];
}

/* ---- The page, every access ---- */

struct shape {
    uint8_t code, size, at;
};

static const struct shape shapes[] = {
    {OP_READ, 1, 0},  {OP_READ, 2, 0},   {OP_READ, 4, 0},  {OP_READ, 8, 0},   {OP_READ, 16, 0},
    {OP_READ, 1, 1},  {OP_READ, 1, 2},   {OP_READ, 1, 3},  {OP_READ, 2, 1},   {OP_READ, 2, 2},
    {OP_READ, 2, 3},  {OP_READ, 4, 1},   {OP_READ, 4, 2},  {OP_READ, 4, 3},   {OP_READ, 4, 4},
    {OP_READ, 4, 8},  {OP_READ, 4, 12},  {OP_READ, 1, 4},  {OP_READ, 8, 4},   {OP_READ, 8, 8},
    {OP_WRITE, 1, 0}, {OP_WRITE, 2, 0},  {OP_WRITE, 4, 0}, {OP_WRITE, 8, 0},  {OP_WRITE, 16, 0},
    {OP_WRITE, 1, 1}, {OP_WRITE, 1, 2},  {OP_WRITE, 1, 3}, {OP_WRITE, 2, 1},  {OP_WRITE, 2, 2},
    {OP_WRITE, 2, 3}, {OP_WRITE, 4, 1},  {OP_WRITE, 4, 2}, {OP_WRITE, 4, 3},  {OP_WRITE, 4, 4},
    {OP_WRITE, 4, 8}, {OP_WRITE, 4, 12}, {OP_WRITE, 1, 4}, {OP_WRITE, 8, 4},  {OP_WRITE, 8, 8},
    {OP_OR, 1, 0},    {OP_OR, 2, 0},     {OP_OR, 4, 0},    {OP_OR, 8, 0},     {OP_OR, 1, 1},
    {OP_OR, 4, 2},    {OP_OR, 4, 4},     {OP_READ, 4, 14}, {OP_WRITE, 4, 14},
};

static void make_access(uint32_t n, struct apicv_case *c)
{
    const struct shape *s = &shapes[dim(&n, ARRAY_COUNT(shapes))];
    uint32_t slot = dim(&n, SLOTS);
    uint32_t at = slot * 16 + s->at;
    uint32_t combo = dim(&n, COMBOS_VAA);

    if (at + s->size > 4096)
        at = 4096u - s->size;
    c->controls = BASE | combos[combo] | (hash(slot + combo) & 1 ? C_EPT : 0);
    c->page = PAGE_PATTERN;
    c->vtpr = 0x35;
    c->svi = 0x21;
    add(c, s->code, s->size, (uint16_t)at, UINT64_C(0x8877665544F3A24C) ^ (uint64_t)slot << 8);
}

/* Without "virtualize APIC accesses" the page is memory like any other. */
static void make_plain_access(uint32_t n, struct apicv_case *c)
{
    static const struct shape plain[] = {{OP_READ, 4, 0}, {OP_WRITE, 4, 0}, {OP_OR, 4, 0}};
    const struct shape *s = &plain[dim(&n, ARRAY_COUNT(plain))];
    uint32_t at = dim(&n, SLOTS) * 16;

    c->controls = BASE | combos[COMBOS_VAA + dim(&n, COMBOS_PLAIN)];
    c->page = PAGE_PATTERN;
    c->vtpr = 0x35;
    add(c, s->code, s->size, (uint16_t)at, 0x44F3A24C);
}

/* One instruction with two accesses: string moves within the page. */
static void make_moves(uint32_t n, struct apicv_case *c)
{
    static const uint16_t at[] = {0x020, 0x030, 0x080, 0x081, 0x0A0, 0x0B0,
                                  0x0D0, 0x110, 0x280, 0x300, 0x310, 0x3F0};
    static const uint8_t sizes[] = {1, 2, 4, 8};
    uint16_t from = at[dim(&n, ARRAY_COUNT(at))];
    uint16_t to = at[dim(&n, ARRAY_COUNT(at))];
    uint8_t size = sizes[dim(&n, ARRAY_COUNT(sizes))];

    c->controls = BASE | combos[dim(&n, COMBOS)];
    c->page = PAGE_PATTERN;
    c->vtpr = 0x20;
    add(c, OP_MOVS, size, to, from);
}

/* The frame of an interrupt is pushed into the page. */
static void make_frames(uint32_t n, struct apicv_case *c)
{
    c->controls = BASE | vid_combos[dim(&n, 2)];
    add(c, OP_READ, 4, R_TPR, 0);
    c->rvi = (uint8_t)(0x31 + 0x40 * dim(&n, 3));
    add(c, OP_PUSH, 0, (uint16_t)(0x30 + 0x18 * dim(&n, 160)), 0);
    add(c, OP_READ, 4, R_TPR, 0);
}

/* Other accesses than those of instructions to their operands. */
static void make_walks(uint32_t n, struct apicv_case *c)
{
    c->controls = BASE | C_EPT | combos[dim(&n, COMBOS)];
    c->rvi = (uint8_t[]){0, 0x81}[dim(&n, 2)];
    c->ept = (uint8_t)dim(&n, 3);
    add(c, dim(&n, 2) ? OP_WALK : OP_WALK_PUSH, 0, (uint16_t)(8 + 64 * dim(&n, 63)), 0);
    add(c, OP_READ, 4, R_TPR, 0);
}

/* Rights of the page in the extended page tables: they come first. */
static void make_rights(uint32_t n, struct apicv_case *c)
{
    static const uint16_t at[] = {0x020, 0x030, 0x080, 0x0B0, 0x300, 0x310, 0x3F0, 0x842};
    const struct shape *s = &shapes[dim(&n, ARRAY_COUNT(shapes))];

    c->controls = BASE | C_EPT | combos[dim(&n, COMBOS)];
    c->ept = (uint8_t)(1 + dim(&n, 2));
    c->page = PAGE_PATTERN;
    add(c, s->code, s->size, at[dim(&n, ARRAY_COUNT(at))], 0x41);
    add(c, OP_MOVS, 4, 0x080, 0x020);
}

/* ---- MSRs ---- */

static const uint64_t few_values[] = {0, 0x41, 0x100, 0x1000000FFull};
static const uint64_t many_values[] = {
    0,          1,          0x0F,           0x10,          0x1F,       0x20,
    0x41,       0x80,       0xFF,           0x100,         0x1FF,      0x40041,
    0x40000,    0x44041,    0xC40F0,        0x80000000,    0xFFFFFFFF, 0x100000000ull,
    1ull << 63, UINT64_MAX, 0x200000041ull, 0x41ull << 32, 0xFE,       0x3041,
};
static const uint16_t special_msrs[] = {MSR_TPR, 0x80A, MSR_EOI, MSR_ICR, MSR_SELF, 0x831};

static void prepare_msr(uint32_t combo, struct apicv_case *c)
{
    c->controls = BASE | combos[combo];
    c->page = PAGE_PATTERN;
    c->vtpr = 0x35;
    c->svi = 0x51;
    c->rvi = 0x22;
}

static void make_msr(uint32_t n, struct apicv_case *c)
{
    uint16_t msr = (uint16_t)(0x800 + dim(&n, SLOTS));
    uint32_t what = dim(&n, 1 + ARRAY_COUNT(few_values));

    prepare_msr(dim(&n, COMBOS), c);
    if (what)
        add(c, OP_WRMSR, 0, msr, few_values[what - 1]);
    else
        add(c, OP_RDMSR, 0, msr, 0);
}

static void make_special_msr(uint32_t n, struct apicv_case *c)
{
    uint16_t msr = special_msrs[dim(&n, ARRAY_COUNT(special_msrs))];
    uint64_t value = many_values[dim(&n, ARRAY_COUNT(many_values))];

    prepare_msr(dim(&n, COMBOS), c);
    c->page = dim(&n, 2) ? PAGE_PATTERN : PAGE_EMPTY;
    add(c, OP_WRMSR, 0, msr, value);
    add(c, OP_RDMSR, 0, msr, 0);
    add(c, OP_STI, 0, 0, 0);
}

/* Intercepted: by bits of the bitmap, and for want of a bitmap. */
static void make_intercepted_msr(uint32_t n, struct apicv_case *c)
{
    uint16_t msr = (uint16_t)(0x7FE + dim(&n, SLOTS + 4));

    prepare_msr(dim(&n, 2) ? COMBOS - 1 : 2, c);
    c->controls = (c->controls & ~(uint32_t)C_BM) | (dim(&n, 2) ? C_BM | C_BITS : 0);
    /* 7FEh, 7FFh, 900h and 901h are not the bitmap's: natively they do not exist. */
    if (dim(&n, 2))
        add(c, OP_WRMSR, 0, msr, 0x41);
    else
        add(c, OP_RDMSR, 0, msr, 0);
}

/* x2APIC MSRs cannot be loaded by VM entry, whatever the controls are. */
static void make_loads(uint32_t n, struct apicv_case *c)
{
    c->load_msr = (uint16_t)(0x800 + dim(&n, SLOTS));
    c->controls = BASE | combos[dim(&n, COMBOS)];
}

/* Privileged instructions of a guest at CPL 3, and its accesses to the page. */
static void make_user(uint32_t n, struct apicv_case *c)
{
    static const struct case_op ops[] = {
        {OP_READ, 4, R_TPR, 0},      {OP_WRITE, 4, R_TPR, 0x20},  {OP_WRITE, 4, R_EOI, 0},
        {OP_READ, 4, 0x020, 0},      {OP_RDMSR, 0, MSR_TPR, 0},   {OP_WRMSR, 0, MSR_TPR, 0x20},
        {OP_WRMSR, 0, MSR_SELF, 81}, {OP_RDMSR, 0, 0x802, 0},     {OP_READ_CR8, 0, 0, 0},
        {OP_WRITE_CR8, 0, 0, 2},     {OP_WRITE_CR8, 0, 0, 0x100}, {OP_HLT, 0, 0, 0},
    };
    static const uint16_t extras[] = {0, C_HLT, C_CRL | C_CRS, C_BITS};

    c->user = true;
    for (unsigned i = 0; i < 2; i++) {
        const struct case_op *op = &ops[dim(&n, ARRAY_COUNT(ops))];

        add(c, op->code, op->size, op->at, op->value);
    }
    c->controls = BASE | combos[dim(&n, COMBOS)] | extras[dim(&n, ARRAY_COUNT(extras))];
    c->interrupt_flag = dim(&n, 2);
    c->rvi = 0x71;
    c->vtpr = 0x40;
}

/* ---- CR8 and TPR ---- */

static void make_cr8(uint32_t n, struct apicv_case *c)
{
    static const uint64_t odd[] = {16, 0x80, 0xFF, 0x100000000ull, 1ull << 63};
    static const uint16_t exits[] = {0, C_CRL, C_CRS};
    uint32_t value = dim(&n, 16 + ARRAY_COUNT(odd));

    c->vtpr = vtprs[dim(&n, ARRAY_COUNT(vtprs))];
    c->threshold = (uint32_t[]){0, 3, 15}[dim(&n, 3)];
    c->controls = BASE | combos[dim(&n, COMBOS)];
    c->controls |= exits[dim(&n, ARRAY_COUNT(exits))];
    c->rvi = 0x61;
    c->interrupt_flag = dim(&n, 2);
    add(c, OP_READ_CR8, 0, 0, 0);
    add(c, OP_WRITE_CR8, 0, 0, value < 16 ? value : odd[value - 16]);
    add(c, OP_READ_CR8, 0, 0, 0);
}

static void make_tpr(uint32_t n, struct apicv_case *c)
{
    static const uint8_t sizes[] = {1, 2, 4, 0};
    uint8_t size = sizes[dim(&n, 4)];
    uint32_t value = dim(&n, 64) * 4 + (n & 3);

    value |= hash(n + value) & 0xFFFFFF00;
    c->vtpr = vtprs[dim(&n, ARRAY_COUNT(vtprs))];
    c->threshold = (uint32_t[]){0, 3, 15}[dim(&n, 3)];
    c->controls = BASE | combos[dim(&n, COMBOS)];
    c->rvi = 0x91;
    c->interrupt_flag = true;
    if (size)
        add(c, OP_WRITE, size, R_TPR, value);
    else
        add(c, OP_WRMSR, 0, MSR_TPR, value & 0xFF);
    add(c, OP_READ_CR8, 0, 0, 0);
}

/* ---- ICR, self-IPI ---- */

static uint32_t icr_value(uint32_t n)
{
    static const uint8_t vectors[] = {0x00, 0x0F, 0x10, 0x41, 0xFF};
    uint32_t value;

    if (n < 32)
        return 0x40041u ^ 1u << n;
    n -= 32;
    value = vectors[dim(&n, ARRAY_COUNT(vectors))];
    value |= dim(&n, 4) << 18;
    value |= dim(&n, 8) << 8;
    value |= dim(&n, 2) << 11;
    value |= dim(&n, 2) << 14;
    value |= dim(&n, 2) << 15;
    return value;
}
enum { ICR_VALUES = 32 + 5 * 4 * 8 * 2 * 2 * 2 };

static void make_icr(uint32_t n, struct apicv_case *c)
{
    uint32_t value = icr_value(dim(&n, ICR_VALUES));

    c->controls = BASE | combos[2 + dim(&n, COMBOS_VAA - 2)];
    c->vtpr = 0x10;
    add(c, OP_WRITE, 4, 0x310, 0x12345678);
    add(c, OP_WRITE, 4, R_ICR, value);
    add(c, OP_STI, 0, 0, 0);
}

static void make_icr_msr(uint32_t n, struct apicv_case *c)
{
    uint64_t value = icr_value(dim(&n, ICR_VALUES));

    c->controls = BASE | C_VX2 | combos[10 + dim(&n, 6)];
    add(c, OP_WRMSR, 0, MSR_ICR, value | (uint64_t)dim(&n, 2) << 32);
    add(c, OP_STI, 0, 0, 0);
}

/* Parts of ICR: the merged word is what counts. Parts of EOI. */
static void make_icr_parts(uint32_t n, struct apicv_case *c)
{
    static const uint16_t at[] = {R_ICR, R_EOI};
    static const uint16_t values[] = {0x51, 0x0F, 0x4051, 0x00, 0x04, 0x08, 0x0C, 0x80};

    c->controls = BASE | combos[2 + dim(&n, COMBOS_VAA - 2)];
    add(c, OP_WRITE, 4, R_ICR, 0x40041);
    add(c, OP_WRITE, (uint8_t)(1 + dim(&n, 2)), (uint16_t)(at[dim(&n, 2)] + dim(&n, 4)),
        values[dim(&n, ARRAY_COUNT(values))]);
    add(c, OP_STI, 0, 0, 0);
    add(c, OP_READ, 4, R_ICR, 0);
}

static void make_self(uint32_t n, struct apicv_case *c)
{
    uint8_t vector = (uint8_t)dim(&n, 256);

    c->controls = BASE | vid_combos[dim(&n, 4)];
    c->vtpr = vtprs[dim(&n, ARRAY_COUNT(vtprs))];
    c->interrupt_flag = dim(&n, 2);
    c->page = PAGE_PENDING;
    c->irr[0] = 0x61;
    c->rvi = 0x61;
    add_self(c, vector);
    add_self(c, (uint8_t)(vector ^ 0x15));
    add_eoi(c);
    add(c, OP_STI, 0, 0, 0);
    add_eoi(c);
}

/* ---- Delivery and EOI ---- */

static void make_deliver(uint32_t n, struct apicv_case *c)
{
    c->rvi = (uint8_t)dim(&n, 256);
    c->vtpr = (uint8_t)(dim(&n, 16) << 4 | (dim(&n, 2) ? 0x0F : 0));
    c->controls = BASE | vid_combos[dim(&n, ARRAY_COUNT(vid_combos))];
    c->interrupt_flag = hash(n + c->rvi) & 1;
    c->page = PAGE_PENDING;
    c->irr[0] = c->rvi;
    c->irr[1] = 0x27;
    c->svi = (uint8_t[]){0, 0x35, 0x8F}[hash(c->rvi + c->vtpr) % 3];
    c->isr[0] = c->svi;
    add(c, OP_STI, 0, 0, 0);
    add_eoi(c);
    add(c, OP_WRITE_CR8, 0, 0, 2);
    add_eoi(c);
    add_eoi(c);
}

static void make_eoi(uint32_t n, struct apicv_case *c)
{
    static const uint8_t in_service[][3] = {{0}, {0x31}, {0x51, 0x31}, {0xF1, 0x51, 0x10}};
    uint32_t bitmap = dim(&n, 3);
    uint32_t how = dim(&n, 3);

    c->svi = (uint8_t[]){0, 0x31, 0x51, 0xF1}[dim(&n, 4)];
    for (unsigned i = 0, set = dim(&n, 4); i < 3; i++)
        c->isr[i] = in_service[set][i];
    c->rvi = (uint8_t[]){0, 0x41, 0x61}[dim(&n, 3)];
    c->irr[0] = 0x22;
    c->irr[1] = c->rvi;
    c->page = PAGE_PENDING;
    c->vtpr = (uint8_t[]){0, 0x20, 0x5F}[dim(&n, 3)];
    c->controls = BASE | C_TS | C_VID | C_EIE | (how == 2 ? C_VX2 : C_VAA);
    c->controls |= dim(&n, 2) ? C_ARV : 0;
    c->interrupt_flag = dim(&n, 2);
    if (bitmap == 1)
        set_all_eoi(c);
    if (bitmap == 2)
        set_eoi(c, c->svi);
    for (unsigned i = 0; i < 3; i++) {
        if (how == 2)
            add(c, OP_WRMSR, 0, MSR_EOI, 0);
        else
            add(c, OP_WRITE, how ? 1 : 4, R_EOI, i ? 0 : 0x12345678);
    }
    add(c, OP_STI, 0, 0, 0);
    add(c, OP_READ, 4, R_EOI, 0);
}

/* ---- Halt, windows, interrupts of the host ---- */

static void make_halt(uint32_t n, struct apicv_case *c)
{
    uint32_t kind = dim(&n, 3);

    c->controls = BASE | combos[dim(&n, COMBOS)];
    c->controls |= (dim(&n, 2) ? C_HLT : 0) | (dim(&n, 2) ? C_IWE : 0);
    c->interrupt_flag = dim(&n, 2);
    c->rvi = (uint8_t[]){0, 0x31, 0x81}[dim(&n, 3)];
    c->vtpr = 0x30;
    c->threshold = (uint32_t[]){0, 3, 5}[dim(&n, 3)];
    c->halted = kind == 2;
    if (kind != 2)
        add(c, OP_HLT, 0, (uint16_t)kind, 0);
    add(c, OP_READ_CR8, 0, 0, 0);
}

static void make_window(uint32_t n, struct apicv_case *c)
{
    c->controls = BASE | C_IWE | combos[dim(&n, COMBOS)];
    c->interrupt_flag = dim(&n, 2);
    c->rvi = (uint8_t[]){0, 0x31, 0x81}[dim(&n, 3)];
    c->physical = (uint8_t[]){0, 0x71}[dim(&n, 2)];
    c->vtpr = 0x40;
    add(c, OP_READ_CR8, 0, 0, 0);
    if (dim(&n, 2))
        add_self(c, 0x91);
    add(c, OP_STI, 0, 0, 0);
    add(c, OP_CLI, 0, 0, 0);
    add(c, OP_READ_CR8, 0, 0, 0);
}

/* What VM entry injects, and blocking that it loads, beside virtual interrupts. Injection wants
 * IF=1 and no blocking, blocking by STI IF=1. */
static void make_injection(uint32_t n, struct apicv_case *c)
{
    uint32_t kind = dim(&n, 4);

    c->interrupt_flag = kind == 2 ? dim(&n, 2) : true;
    c->inject = kind == 0 ? 0x55 : kind == 3 ? 0xE5 : 0;
    c->blocking = kind == 1 ? 1 : kind == 2 ? 2 : 0;
    c->halted = !c->blocking && dim(&n, 2);
    c->controls = BASE | combos[dim(&n, COMBOS)];
    c->controls |= (dim(&n, 2) ? C_IWE : 0) | (dim(&n, 2) ? C_AIE : 0);
    c->rvi = (uint8_t[]){0, 0x31, 0xB1}[dim(&n, 3)];
    c->physical = (uint8_t[]){0, 0x91}[dim(&n, 2)];
    c->vtpr = 0x30;
    c->threshold = (uint32_t[]){0, 5}[dim(&n, 2)];
    add(c, OP_READ_CR8, 0, 0, 0);
    add(c, OP_WRITE_CR8, 0, 0, 1);
    add_eoi(c);
}

/* Stores to the virtual-APIC page have no effect but on memory, until something reads it. */
static void make_stores(uint32_t n, struct apicv_case *c)
{
    static const uint16_t at[] = {R_TPR, R_EOI, R_IRR + 0x30, R_ISR + 0x20, R_ISR + 0x60};
    static const uint32_t values[] = {0, 0x20, 0x8000, 0x90, 0xFFFFFFFF};
    uint32_t after = dim(&n, 4);

    c->controls = BASE | vid_combos[dim(&n, ARRAY_COUNT(vid_combos))];
    c->rvi = (uint8_t[]){0, 0x61}[dim(&n, 2)];
    c->svi = (uint8_t[]){0, 0x51}[dim(&n, 2)];
    c->vtpr = (uint8_t[]){0, 0x70}[dim(&n, 2)];
    c->interrupt_flag = dim(&n, 2);
    add(c, OP_STORE, 4, at[dim(&n, ARRAY_COUNT(at))], values[dim(&n, ARRAY_COUNT(values))]);
    add(c, OP_STI, 0, 0, 0);
    if (after == 0)
        add_eoi(c);
    if (after == 1)
        add_self(c, 0x42);
    if (after == 2)
        add(c, OP_WRITE_CR8, 0, 0, 3);
    add(c, OP_READ_CR8, 0, 0, 0);
    add_eoi(c);
}

static void make_physical(uint32_t n, struct apicv_case *c)
{
    c->physical = (uint8_t)(0x20 + dim(&n, 14) * 16);
    c->controls = BASE | combos[dim(&n, COMBOS)];
    c->controls |= dim(&n, 2) ? C_AIE : 0;
    c->interrupt_flag = dim(&n, 2);
    c->halted = dim(&n, 2);
    c->rvi = (uint8_t[]){0, 0x31, 0xE1}[dim(&n, 3)];
    c->vtpr = 0x30;
    if (!c->halted)
        add(c, OP_READ_CR8, 0, 0, 0);
    add(c, OP_STI, 0, 0, 0);
}

/* ---- Random ---- */

static uint32_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 20);
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
    return next(state) % limit;
}

static bool one_in(uint64_t *state, uint32_t chance)
{
    return below(state, chance) == 0;
}

static uint8_t random_vector(uint64_t *state)
{
    return one_in(state, 3) ? 0 : (uint8_t)(16 + below(state, 240));
}

static uint64_t random_value(uint64_t *state)
{
    switch (below(state, 5)) {
    case 0:
        return below(state, 16);
    case 1:
        return 0x40000u | below(state, 256);
    case 2:
        return icr_value(below(state, ICR_VALUES));
    case 3:
        return below(state, 256);
    default:
        return next(state) | (uint64_t)next(state) << 32;
    }
}

static uint16_t random_offset(uint64_t *state)
{
    static const uint16_t at[] = {R_TPR, R_EOI, R_ICR, 0x310, R_PPR, R_SELF, 0x020, 0x0F0};

    if (!one_in(state, 4))
        return at[below(state, ARRAY_COUNT(at))];
    return (uint16_t)(below(state, 64) * 16 + (one_in(state, 4) ? below(state, 16) : 0));
}

static uint16_t random_msr(uint64_t *state)
{
    if (!one_in(state, 4))
        return special_msrs[below(state, ARRAY_COUNT(special_msrs))];
    return (uint16_t)(0x800 + below(state, 0x40));
}

static void random_op(uint64_t *state, struct apicv_case *c)
{
    static const uint8_t codes[] = {OP_READ, OP_READ, OP_WRITE, OP_WRITE,    OP_WRITE,     OP_WRITE,
                                    OP_OR,   OP_MOVS, OP_RDMSR, OP_WRMSR,    OP_WRMSR,     OP_WRMSR,
                                    OP_STI,  OP_STI,  OP_CLI,   OP_READ_CR8, OP_WRITE_CR8, OP_HLT};
    uint8_t code = codes[below(state, ARRAY_COUNT(codes))];
    uint8_t size = one_in(state, 4) ? (uint8_t)(1 << below(state, 3)) : 4;

    uint16_t slot = (uint16_t)(below(state, 64) * 16);

    /* VPPR is left alone: processors may keep a copy. */
    if (one_in(state, 16) && slot != R_PPR)
        add(c, OP_STORE, 4, slot, random_value(state));
    else if (code == OP_RDMSR || code == OP_WRMSR)
        add(c, code, 0, random_msr(state), random_value(state));
    else if (code == OP_MOVS)
        add(c, code, size, random_offset(state), random_offset(state));
    else if (code == OP_HLT)
        add(c, code, 0, (uint16_t)below(state, 2), 0);
    else if (code == OP_WRITE_CR8)
        add(c, code, 0, 0, below(state, 18));
    else
        add(c, code, size, random_offset(state), random_value(state));
}

static void make_random(uint32_t n, struct apicv_case *c)
{
    uint64_t s = (uint64_t)hash(n + 1) << 32 | (hash(n ^ 0x5A5A5A5A) | 1);

    c->controls = BASE | (one_in(&s, 2) ? vid_combos[below(&s, ARRAY_COUNT(vid_combos))]
                                        : combos[below(&s, COMBOS)]);
    c->controls |= one_in(&s, 16) ? C_IWE : 0;
    c->controls |= one_in(&s, 4) ? C_HLT : 0;
    c->controls |= one_in(&s, 16) ? C_CRL : 0;
    c->controls |= one_in(&s, 16) ? C_CRS : 0;
    c->controls |= one_in(&s, 16) ? C_BITS : 0;
    c->controls |= one_in(&s, 2) ? C_AIE : 0;
    c->controls |= one_in(&s, 2) ? C_EPT : 0;
    c->page = (uint8_t)below(&s, 3);
    c->vtpr = one_in(&s, 3) ? 0 : (uint8_t)below(&s, 256);
    c->threshold = one_in(&s, 2) ? 0 : below(&s, 16);
    c->interrupt_flag = one_in(&s, 2);
    /* Not where CR8 is the processor's own: the host's APIC is no part of what is compared. */
    c->physical = one_in(&s, 12) && c->controls & C_TS ? (uint8_t)(0x20 + below(&s, 0xD0)) : 0;
    c->rvi = random_vector(&s);
    c->svi = one_in(&s, 2) ? 0 : random_vector(&s);
    for (unsigned i = 0; i < 3; i++) {
        c->irr[i] = random_vector(&s);
        c->isr[i] = random_vector(&s);
    }
    for (unsigned i = 0; i < 4; i++)
        c->eoi_exit[i] = one_in(&s, 2) ? 0 : next(&s) | (uint64_t)next(&s) << 32;
    for (unsigned i = 0; i < CASE_OPS; i++)
        random_op(&s, c);
}

/* ---- The list ---- */

static const struct group {
    const char *name;
    uint32_t count;
    void (*make)(uint32_t n, struct apicv_case *c);
} groups[] = {
    {"entry", 128 * 5 * 4, make_entry},
    {"spoiled", (SPOIL_COUNT - 1) * 128 * 2, make_spoiled},
    {"posting", 9 * 4, make_posting},
    {"access", ARRAY_COUNT(shapes) * SLOTS *COMBOS_VAA, make_access},
    {"plain", 3 * SLOTS *COMBOS_PLAIN, make_plain_access},
    {"moves", 12 * 12 * 4 * COMBOS, make_moves},
    {"frames", 2 * 3 * 160, make_frames},
    {"walks", COMBOS * 2 * 3 * 2 * 63, make_walks},
    {"rights", ARRAY_COUNT(shapes) * COMBOS * 2 * 8, make_rights},
    {"msr", SLOTS *(1 + ARRAY_COUNT(few_values)) * COMBOS, make_msr},
    {"special", ARRAY_COUNT(special_msrs) * ARRAY_COUNT(many_values) * COMBOS * 2,
     make_special_msr},
    {"intercepted", (SLOTS + 4) * 2 * 2 * 2, make_intercepted_msr},
    {"loads", SLOTS *COMBOS, make_loads},
    {"user", 12 * 12 * COMBOS * 4 * 2, make_user},
    {"cr8", 21 * 4 * 3 * COMBOS * 3 * 2, make_cr8},
    {"tpr", 4 * 64 * 4 * 3 * COMBOS, make_tpr},
    {"icr", ICR_VALUES *(COMBOS_VAA - 2), make_icr},
    {"icr-msr", ICR_VALUES * 6 * 2, make_icr_msr},
    {"icr-parts", (COMBOS_VAA - 2) * 2 * 2 * 4 * 8, make_icr_parts},
    {"self", 256 * 4 * 4 * 2, make_self},
    {"deliver", 256 * 16 * 2 * 6, make_deliver},
    {"eoi", 3 * 3 * 4 * 4 * 3 * 3 * 2 * 2, make_eoi},
    {"halt", 3 * COMBOS * 2 * 2 * 2 * 3 * 3, make_halt},
    {"window", COMBOS * 2 * 3 * 2 * 2, make_window},
    {"injection", 4 * 2 * 2 * COMBOS * 2 * 2 * 3 * 2 * 2, make_injection},
    {"stores", 4 * 6 * 2 * 2 * 2 * 2 * 5 * 5, make_stores},
    {"physical", 14 * COMBOS * 2 * 2 * 2 * 3, make_physical},
    {"random", 100000, make_random},
};

uint32_t case_count(void)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < ARRAY_COUNT(groups); i++)
        sum += groups[i].count;
    return sum;
}

void case_make(uint32_t n, struct apicv_case *c)
{
    unsigned i = 0;

    while (i + 1 < ARRAY_COUNT(groups) && n >= groups[i].count)
        n -= groups[i++].count;
    *c = (struct apicv_case){.group = (uint8_t)i};
    groups[i].make(n, c);
}

const char *case_group_name(unsigned group)
{
    return groups[group].name;
}

unsigned case_groups(void)
{
    return ARRAY_COUNT(groups);
}

/* The checks of VM entry are in every share. */
bool case_in_share(uint32_t n, uint32_t shares)
{
    const uint32_t whole = groups[0].count + groups[1].count + groups[2].count;

    return shares < 2 || n < whole || hash(n) % shares == 0;
}

static uint32_t in_set(const uint8_t vectors[3], uint32_t word)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < 3; i++)
        if (vectors[i] && vectors[i] / 32u == word)
            bits |= 1u << (vectors[i] % 32u);
    return bits;
}

uint32_t case_page_word(const struct apicv_case *c, uint32_t offset)
{
    if (offset == R_TPR)
        return c->vtpr;
    if (c->page == PAGE_PATTERN)
        return 0x10203040u + offset * 0x01010101u;
    if (c->page == PAGE_PENDING && (offset & 15) == 4)
        return 0x40000000u | offset;
    if (c->page == PAGE_PENDING && (offset & 15) == 0) {
        if (offset >= R_ISR && offset < R_ISR + 0x80)
            return in_set(c->isr, (offset - R_ISR) / 16);
        if (offset >= R_IRR && offset < R_IRR + 0x80)
            return in_set(c->irr, (offset - R_IRR) / 16);
    }
    return 0;
}

uint32_t case_access_word(uint32_t offset)
{
    return 0xACCE5500u ^ offset;
}

void case_after_exit(struct apicv_case *c, uint32_t reason)
{
    switch (reason & 0xFFFF) {
    case EXIT_WINDOW:
        c->controls &= ~(uint32_t)C_IWE;
        break;
    case EXIT_THRESHOLD:
        c->threshold = 0;
        break;
    case EXIT_EXTERNAL:
        c->physical = 0;
        break;
    default:
        break;
    }
}
