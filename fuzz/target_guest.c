/* SPDX-License-Identifier: MIT */
/*
 * A guest of four vCPUs and its devices, twice: on the library with a back end on modelled silicon,
 * and on the library alone. After each operation whatever the guest can see of the two must be the
 * same, but for the named deviations of real silicon (tests/deviations.h): the comparison is the
 * equivalence test's, the stream is the fuzzer's. Reasons for inhibition come and go and vCPUs move
 * between processors meanwhile, at moments that follow from the input too.
 *
 * An input is a head (mode of acceleration, x2APIC at start, seed of what only the host knows) and
 * then operations: `who` bits 1:0 the vCPU, 2 write, 3 anything goes (`where` is taken as it is).
 */
#include "../tests/equiv.h"
#include "fuzz.h"

#include "vapic/arch/apic.h"

#include <unistd.h>

#define HEAD    8u
#define OPS_MAX 96u

static struct equiv equiv;
static pid_t toggler_of; /* the toggles' thread does not survive a fork server's fork */

struct head {
    uint8_t mode;
    uint8_t flags; /* 0: starts in x2APIC mode, 1: toggles and moves, 2: the page may move */
    uint8_t unused[2];
    uint32_t seed;
};

/* ---- One operation of the input as one of the test's ---- */

static uint64_t wide; /* upper half of a value, for the operation after it */

static bool in_x2apic(uint32_t n)
{
    return (vapic_base(eq_vcpu(&equiv, n)) & APIC_BASE_EXTD) != 0;
}

static uint64_t destination(const struct fuzz_op *op, uint32_t n)
{
    uint32_t d = op->where & 0xFF;

    if (op->who & 8)
        return in_x2apic(n) ? (uint64_t)(op->where | (uint32_t)wide << 16) << 32
                            : (uint64_t)d << 32;
    if (d == 0xFF && in_x2apic(n) && op->where & 0x100)
        return (uint64_t)APIC_DEST_ALL_32 << 32;
    return (uint64_t)(d == 0xFF ? d : d % 16) << 32;
}

static struct eq_op of_register(const struct fuzz_op *op, struct eq_op to)
{
    uint32_t slot = op->where & 0xFF;

    to.value = op->value;
    if (in_x2apic(to.vcpu)) {
        to.kind = EQ_MSR;
        to.where = MSR_X2APIC_FIRST + slot;
        if (slot == APIC_ICR >> 4)
            to.value |= destination(op, to.vcpu);
        return to;
    }
    to.kind = EQ_MMIO;
    to.size = 4;
    to.where = slot << 4;
    return to;
}

static struct eq_op of_mmio(const struct fuzz_op *op, struct eq_op to)
{
    to.kind = EQ_MMIO;
    to.size = (uint8_t)(1u << (op->who >> 4 & 3));
    to.where = op->where & 0xFFF & ~(to.size - 1u);
    to.value = op->value;
    return to;
}

static struct eq_op of_msr(const struct fuzz_op *op, struct eq_op to)
{
    to.kind = EQ_MSR;
    to.where = MSR_X2APIC_FIRST + (op->where & 0xFF);
    to.value = wide << 32 | op->value;
    return to;
}

/* Modes, legal and not; the page moves only if anything goes. */
static struct eq_op of_base(const struct fuzz_op *op, struct eq_op to)
{
    uint64_t base = vapic_base(eq_vcpu(&equiv, to.vcpu));

    to.kind = EQ_MSR;
    to.where = MSR_APIC_BASE;
    to.value = (base & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXTD)) |
               (op->value & (APIC_BASE_EN | APIC_BASE_EXTD));
    if (op->who & 8 && op->value & 1)
        to.value = (to.value & 0xFFF) | (uint64_t)op->where << 16 | 0xF0000000u;
    return to;
}

static struct eq_op of_ipi(const struct fuzz_op *op, struct eq_op to)
{
    to.kind = EQ_IPI;
    to.value = destination(op, to.vcpu) | op->value;
    return to;
}

static struct eq_op of_eoi(const struct fuzz_op *op, struct eq_op to)
{
    struct fuzz_op write = *op;

    write.where = APIC_EOI >> 4;
    write.value = 0;
    to.write = true;
    return of_register(&write, to);
}

static struct eq_op of_cr8(const struct fuzz_op *op, struct eq_op to)
{
    to.kind = EQ_CR8;
    to.value = op->value & 0x1F;
    return to;
}

static struct eq_op of_cpu(const struct fuzz_op *op, struct eq_op to)
{
    static const uint8_t kinds[] = {EQ_HLT,   EQ_IF,     EQ_START,  EQ_NMI,
                                    EQ_PAUSE, EQ_RESUME, EQ_RESUME, EQ_IF};

    to.kind = kinds[op->where & 7];
    to.value = op->where >> 3 & 1;
    return to;
}

static struct eq_op of_device(const struct fuzz_op *op, struct eq_op to)
{
    static const uint8_t kinds[] = {EQ_POST, EQ_MSI, EQ_IRTE, EQ_PIN, EQ_RTE, EQ_LINT, EQ_TICK};

    to.kind = kinds[op->where % 7];
    to.value = op->value;
    to.where = op->where >> 8;
    switch (to.kind) {
    case EQ_POST:
        to.value = (op->value & 0xFF) < 16 ? 0x31 : op->value & 0xFF;
        break;
    case EQ_MSI:
        to.where = 0xFEE00000u | (op->value >> 16) << 3 | (op->who >> 4 & 1) << 2;
        to.value = op->value & 0xFFFF;
        break;
    case EQ_PIN:
        to.where %= EQ_PINS;
        to.value = op->value & 1;
        break;
    case EQ_RTE:
        to.where %= EQ_PINS;
        to.value = (op->value & 0x1FFFF) | (uint64_t)(op->value >> 24) << 56;
        break;
    case EQ_LINT:
        to.where &= 1;
        to.value = op->value & 1;
        break;
    default:
        to.value = op->value % 2000000;
        break;
    }
    return to;
}

/* One that the equivalence test would choose in this situation, by a seed. */
static struct eq_op of_stream(const struct fuzz_op *op, struct eq_op to)
{
    equiv.stream.state = (uint64_t)to.vcpu << 48 | (uint64_t)op->where << 32 | op->value;
    if (op->who & 4)
        equiv.epoch.target_x2 = op->who & 8;
    return eq_draw(&equiv);
}

static struct eq_op (*const decoders[])(const struct fuzz_op *op, struct eq_op to) = {
    of_register, of_register, of_register, of_mmio,   of_msr,    of_base,   of_ipi,    of_ipi,
    of_eoi,      of_cr8,      of_cpu,      of_cpu,    of_device, of_device, of_device, of_register,
    of_stream,   of_stream,   of_stream,   of_stream, of_stream, of_stream, of_stream, of_stream,
    of_stream,   of_stream,   of_stream,   of_stream, of_stream, of_stream, of_stream, of_stream,
};

static struct eq_op decode(const struct fuzz_op *op)
{
    struct eq_op to = {.vcpu = op->who & 3, .write = op->who & 4};

    to = decoders[op->kind % (sizeof(decoders) / sizeof(decoders[0]))](op, to);
    wide = op->value;
    return to;
}

/* ---- A run ---- */

static void begin(const struct head *h)
{
    if (toggler_of != getpid()) {
        eq_machine_init(&equiv);
        toggler_of = getpid();
    }
    memset(&equiv, 0, sizeof(equiv));
    equiv.mode = (enum ax_mode_index)(AX_MODE_AVIC + h->mode % (AX_MODES - AX_MODE_AVIC));
    equiv.epoch = (struct eq_epoch){.x2apic = h->flags & 1,
                                    .target_x2 = h->flags & 1,
                                    .switch_at = OPS_MAX,
                                    .move_at = h->flags & 4 ? 0 : OPS_MAX};
    equiv.toggling = h->flags & 2;
    equiv.other.state = h->seed;
    equiv.silent = true;
    equiv.keeps = true;
    equiv.ops = equiv.epoch_length = OPS_MAX;
    wide = 0;
    eq_make(&equiv);
}

static bool step(const struct eq_op *op)
{
    equiv.op = equiv.history[equiv.number % 64] = *op;
    ax_forget(equiv.ref);
    ax_forget(equiv.acc);
    eq_note_before(&equiv);
    /* The other one first: the reference says where the guest's page is, before the operation. */
    equiv.acc_outcome = eq_apply(&equiv, equiv.acc, op);
    equiv.ref_outcome = eq_apply(&equiv, equiv.ref, op);
    eq_settle(&equiv, equiv.acc);
    eq_settle(&equiv, equiv.ref);
    return eq_compare(&equiv);
}

static bool disturb(void)
{
    ax_forget(equiv.ref);
    ax_forget(equiv.acc);
    if (!eq_disturb(&equiv))
        return true;
    equiv.op = (struct eq_op){.kind = EQ_NOTHING};
    equiv.ref_outcome = equiv.acc_outcome = (struct eq_outcome){0};
    eq_settle(&equiv, equiv.acc);
    return eq_compare(&equiv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct fuzz_op op;
    struct head h;

    fuzz_bytes(&in, &h, sizeof(h));
    begin(&h);
    for (; equiv.number < OPS_MAX && fuzz_next(&in, &op); equiv.number++) {
        struct eq_op next = decode(&op);

        if (!step(&next) || !disturb())
            fuzz_fail(__FILE__, __LINE__, "%s: %s", ax_modes[equiv.mode].name, equiv.failure);
    }
    fuzz_check(eq_compare_images(&equiv), "%s: %s", ax_modes[equiv.mode].name, equiv.failure);
    eq_free(&equiv);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
