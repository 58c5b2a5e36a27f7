/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: its registers at any offset and size, lines of several sources, EOIs of any vector,
 * resampling and storms, routes of GSIs, records. Checked against a model of what is visible: an
 * entry reads back what was written but for the bits that only the I/O APIC sets, a masked pin
 * sends nothing, and a level-triggered entry waits for its EOI before it sends again.
 * [IOAPIC 3.2.4]
 *
 * An input is one byte (the kind of VM) and then operations.
 */
#include "vm.h"

#include "vapic/arch/apic.h"

#define HEAD          1u
#define RTE_DM        APIC_ICR_DM
#define RTE_FORMAT    (UINT64_C(1) << 48)      /* remappable: no message of ours */
#define SOURCES       (UINT64_C(0xFFFF) << 48) /* of a pin's word: which sources hold the line */
#define RTE_DS        (UINT64_C(1) << 12)
#define RTE_RIRR      (UINT64_C(1) << 14)
#define RTE_LEVEL     (UINT64_C(1) << 15)
#define RTE_MASK      (UINT64_C(1) << 16)
#define RTE_READ_ONLY (RTE_DS | RTE_RIRR)

struct state {
    struct fuzz_vm *m;
    const struct fuzz_op *op;
    uint32_t pin;
};

static void write_reg(struct state *s, uint32_t reg, uint32_t value)
{
    vapic_ioapic_write(&s->m->io, 0x00, reg, 4);
    vapic_ioapic_write(&s->m->io, 0x10, value, 4);
}

static uint32_t read_reg(struct state *s, uint32_t reg)
{
    vapic_ioapic_write(&s->m->io, 0x00, reg, 4);
    return (uint32_t)vapic_ioapic_read(&s->m->io, 0x10, 4);
}

/* An entry as a guest writes and reads it. */
static void op_entry(struct state *s)
{
    uint32_t reg = 0x10 + 2 * s->pin;
    uint64_t entry;

    write_reg(s, reg + 1, (uint32_t)(s->op->where & 0xFF) << 24);
    write_reg(s, reg, s->op->value);
    entry = vapic_ioapic_entry(&s->m->io, s->pin);
    fuzz_check(read_reg(s, reg) == (uint32_t)entry && read_reg(s, reg + 1) == entry >> 32,
               "pin %u: entry %#llx reads differently", s->pin, (unsigned long long)entry);
    fuzz_check(((entry ^ s->op->value) & 0x1AFFF & ~RTE_READ_ONLY) == 0,
               "pin %u: wrote %#x, reads %#llx", s->pin, s->op->value, (unsigned long long)entry);
}

static void op_half(struct state *s)
{
    write_reg(s, s->op->where & 0xFF, s->op->value);
}

static void op_raw_write(struct state *s)
{
    vapic_ioapic_write(&s->m->io, s->op->where, s->op->value, (size_t)1 << (s->op->who & 3));
}

static void op_raw_read(struct state *s)
{
    size_t size = (size_t)1 << (s->op->who & 3);
    uint64_t value = vapic_ioapic_read(&s->m->io, s->op->where, size);

    fuzz_check(size == 8 || value >> (8 * size) == 0, "a read of %zu bytes gives %#llx", size,
               (unsigned long long)value);
}

/* What a rising line may do follows from the entry. */
static void op_line(struct state *s)
{
    uint64_t entry = vapic_ioapic_entry(&s->m->io, s->pin);
    int result = vapic_ioapic_set(&s->m->io, s->pin, s->op->who >> 2 & 15, s->op->value & 1);

    fuzz_check(result == VAPIC_GSI_BLOCKED || (result >= 0 && result <= (int)FUZZ_VCPUS),
               "pin %u: set: %d", s->pin, result);
    if (entry & RTE_MASK)
        fuzz_check(result <= 0, "pin %u is masked and sends", s->pin);
    if (entry & RTE_LEVEL && entry & RTE_RIRR)
        fuzz_check(result <= 0, "pin %u awaits an EOI and sends", s->pin);
}

static void op_gsi(struct state *s)
{
    int result = vapic_gsi_set(&s->m->vm, s->op->where, s->op->who >> 2 & 63, s->op->value & 1);

    if (s->op->where >= FUZZ_GSIS || (s->op->who >> 2 & 63) > 15)
        fuzz_check(result == VAPIC_E_ARG, "GSI %u: %d", s->op->where, result);
}

static void op_eoi(struct state *s)
{
    vapic_broadcast_eoi(&s->m->vm, (uint8_t)s->op->value);
}

/* The EOI register of version 20h: the window at 40h. */
static void op_eoi_register(struct state *s)
{
    vapic_ioapic_write(&s->m->io, 0x40, s->op->value & 0xFF, 4);
}

static void op_step(struct state *s)
{
    fuzz_step(s->m, (s->op->where & 3) % FUZZ_VCPUS,
              VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF);
}

static void op_guest_eoi(struct state *s)
{
    vapic_eoi(&s->m->v[(s->op->where & 3) % FUZZ_VCPUS]);
}

static void op_route(struct state *s)
{
    struct vapic_route route = {
        .kind = (enum vapic_route_kind)(s->op->who & 3),
        .ioapic = s->op->who & 4 ? NULL : &s->m->io,
        .pin = s->op->where >> 8,
        .address = 0xFEE00000u | (uint64_t)(s->op->value >> 16) << 3,
        .data = s->op->value & 0xFFFF,
    };

    vapic_gsi_route(&s->m->vm, s->op->where & 0x3F, &route);
}

static void op_watch(struct state *s)
{
    vapic_gsi_watch(&s->m->vm, s->op->where & 0x3F, s->op->value & 7, s->op->who & 31);
    s->m->resample = s->op->who & 0x80;
}

static void op_resume(struct state *s)
{
    vapic_ioapic_resume(&s->m->io, s->op->value & 1 ? s->m->paused_pin : s->pin);
}

static void op_reset(struct state *s)
{
    vapic_ioapic_reset(&s->m->io);
    for (uint32_t pin = 0; pin < FUZZ_PINS; pin++)
        fuzz_check(vapic_ioapic_entry(&s->m->io, pin) & RTE_MASK, "pin %u after RESET", pin);
}

static void op_target(struct state *s)
{
    struct vapic *v = &s->m->v[(s->op->who & 3) % FUZZ_VCPUS];
    static const uint16_t offsets[] = {APIC_LDR, APIC_DFR, APIC_SVR, APIC_TPR, APIC_ID, APIC_EOI};
    uint32_t offset = offsets[s->op->where % 6];

    if (vapic_base(v) & APIC_BASE_EXTD)
        vapic_msr_write(v, MSR_X2APIC_FIRST + (offset >> 4), s->op->value, s->m->now);
    else
        vapic_mmio_write(v, offset, &s->op->value, 4, s->m->now);
}

static void op_record(struct state *s)
{
    static uint8_t record[VAPIC_IOAPIC_RECORD(FUZZ_PINS)];

    fuzz_check(vapic_ioapic_save(&s->m->io, record, sizeof(record)) == VAPIC_OK, "save");
    memcpy(record + s->op->where % (sizeof(record) - 4), &s->op->value, s->op->who & 1 ? 4 : 0);
    vapic_ioapic_load(&s->m->io, record, sizeof(record));
}

static void (*const ops[])(struct state *s) = {
    op_entry, op_entry,        op_half, op_raw_write, op_raw_read, op_line,  op_line,
    op_gsi,   op_eoi,          op_step, op_guest_eoi, op_route,    op_watch, op_resume,
    op_reset, op_eoi_register, op_line, op_target,    op_record,   op_entry,
};

/*
 * A level-triggered pin that is unmasked and high has sent its message: it awaits the EOI, or
 * nobody took it, which the entry shows as "send pending", unless the knob wants that forgotten.
 * (There are not enough EOIs for a pause.)
 */
static void check_sent(const struct fuzz_vm *m, uint32_t pin, uint64_t entry)
{
    bool high = (m->io.pins[pin].word & SOURCES) != 0;
    bool level = (entry & (RTE_LEVEL | RTE_MASK)) == RTE_LEVEL &&
                 (entry & RTE_DM) <= APIC_DM_LOWEST && (entry & 0xFF) >= APIC_FIRST_VECTOR &&
                 !(entry & RTE_FORMAT);

    if (m->vm.knobs & VAPIC_KNOB_LEVEL_FORGOTTEN)
        return;
    fuzz_check(!level || !high || entry & (RTE_RIRR | RTE_DS),
               "pin %u is high and has sent nothing: %#llx", pin, (unsigned long long)entry);
}

static void check(struct fuzz_vm *m)
{
    for (uint32_t pin = 0; pin < FUZZ_PINS; pin++) {
        uint64_t entry = vapic_ioapic_entry(&m->io, pin);

        check_sent(m, pin, entry);
        fuzz_check(!(entry & RTE_RIRR) || entry & RTE_LEVEL, "pin %u: edge with remote IRR: %#llx",
                   pin, (unsigned long long)entry);
    }
    fuzz_consistent(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct fuzz_op op;
    struct state s = {.m = fuzz_vm(fuzz_u8(&in)), .op = &op};

    for (uint32_t i = 0; i < 200 && fuzz_next(&in, &op); i++) {
        s.pin = op.where / 256u % FUZZ_PINS;
        ops[op.kind % (sizeof(ops) / sizeof(ops[0]))](&s);
    }
    check(s.m);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
