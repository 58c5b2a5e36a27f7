/* SPDX-License-Identifier: MIT */
/*
 * A guest's and its devices' accesses to the library alone, as fast as possible: registers by MMIO
 * of any offset and size and by MSR, messages with any word of ICR, MSIs, lines, timers, INIT,
 * SIPI, RESET, paravirtual calls, mode switches, vCPUs that come and go, state saved and loaded
 * meanwhile.
 *
 * An input is one byte (the kind of VM, vm.h) and then operations: `who` bits 1:0 the vCPU, bits
 * 4:2 a size or the like.
 */
#include "vm.h"

#include "vapic/arch/apic.h"

#define HEAD 1u

struct state {
    struct fuzz_vm *m;
    uint32_t n;
    struct vapic *v;
    uint64_t wide; /* set by op_wide: the upper half of the next 64-bit value */
    const struct fuzz_op *op;
};

static uint64_t value64(struct state *s)
{
    uint64_t value = s->wide << 32 | s->op->value;

    s->wide = 0;
    return value;
}

static uint32_t size_of(const struct state *s)
{
    return 1u << (s->op->who >> 2 & 7) % 7;
}

static void op_wide(struct state *s)
{
    s->wide = s->op->value;
}

static void op_mmio_read(struct state *s)
{
    uint32_t size = size_of(s);
    uint8_t data[64];

    /* Exactly as large as the access: whatever is written behind it is seen. */
    vapic_mmio_read(s->v, s->op->where & 0xFFF, data + sizeof(data) - size, size, s->m->now);
}

static void op_mmio_write(struct state *s)
{
    uint8_t data[64] = {0};
    uint32_t size = size_of(s);
    uint8_t *at = data + sizeof(data) - size;

    memcpy(at, &s->op->value, size < 4 ? size : 4);
    vapic_mmio_write(s->v, s->op->where & 0xFFF, at, size, s->m->now);
}

/* A whole register by the way that the vCPU's mode offers. */
static void op_read(struct state *s)
{
    uint32_t offset = (s->op->where & 0xFF) << 4;
    uint64_t value = 0;

    if (vapic_base(s->v) & APIC_BASE_EXTD)
        vapic_msr_read(s->v, MSR_X2APIC_FIRST + (offset >> 4), &value, s->m->now);
    else
        vapic_mmio_read(s->v, offset, &value, 4, s->m->now);
}

static void op_write(struct state *s)
{
    uint32_t offset = (s->op->where & 0xFF) << 4;

    if (vapic_base(s->v) & APIC_BASE_EXTD)
        vapic_msr_write(s->v, MSR_X2APIC_FIRST + (offset >> 4), value64(s), s->m->now);
    else
        vapic_mmio_write(s->v, offset, &s->op->value, 4, s->m->now);
}

static uint32_t some_msr(const struct state *s)
{
    static const uint32_t msrs[] = {
        MSR_APIC_BASE,
        MSR_TSC_DEADLINE,
        VAPIC_MSR_KVM_EOI,
        0x83F,
        VAPIC_MSR_HV_EOI,
        VAPIC_MSR_HV_ICR,
        VAPIC_MSR_HV_VP_ASSIST,
        0x830,
        VAPIC_MSR_HV_TPR,
        0x80B,
        0x808,
        0x838,
    };

    if (s->op->who & 0x80)
        return s->op->where;
    return msrs[s->op->where % (sizeof(msrs) / sizeof(msrs[0]))];
}

static void op_rdmsr(struct state *s)
{
    uint64_t value = 0;

    if (vapic_msr_read(s->v, some_msr(s), &value, s->m->now) == VAPIC_UNCLAIMED)
        vapic_pv_msr_read(s->v, some_msr(s), &value);
}

static void op_wrmsr(struct state *s)
{
    uint64_t value = value64(s);

    if (vapic_msr_write(s->v, some_msr(s), value, s->m->now) == VAPIC_UNCLAIMED)
        vapic_pv_msr_write(s->v, some_msr(s), value);
}

static void op_cr8(struct state *s)
{
    uint64_t value = value64(s);
    int result = vapic_write_cr8(s->v, value);

    fuzz_check((result == VAPIC_GP) == (value > 15), "CR8 %#llx: %d", (unsigned long long)value,
               result);
    fuzz_check(vapic_read_cr8(s->v) <= 15, "CR8");
}

static void op_step(struct state *s)
{
    uint32_t can = s->op->value & 0x7F;

    s->m->clears = s->op->where & 1;
    fuzz_step(s->m, s->n,
              s->op->who & 0x80
                  ? can
                  : VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_CAN_SMI | VAPIC_IF);
}

/* A pass whose injection may fail. */
static void op_aborted_step(struct state *s)
{
    struct vapic_entry entry;

    if (s->m->blocked[s->n])
        return;
    vapic_enter(s->v, VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF, s->m->now, &entry);
    if (entry.event != VAPIC_CPU_NONE || !entry.runnable)
        return;
    if (entry.inject != VAPIC_INJECT_NONE)
        vapic_commit(s->v, &entry);
    vapic_exit(s->v, entry.cr8, s->op->who & 0x40);
    if (s->op->who & 0x20 && vapic_not_delivered(s->v) && entry.inject == VAPIC_INJECT_VECTOR)
        fuzz_check(fuzz_bit(s->m, s->n, APIC_IRR, entry.vector) &&
                       !fuzz_bit(s->m, s->n, APIC_ISR, entry.vector),
                   "vector %#x was not delivered and is not pending again", entry.vector);
}

static void op_halt(struct state *s)
{
    if (vapic_activity(s->v) == VAPIC_RUNNING && !s->m->blocked[s->n])
        vapic_halt(s->v);
}

static void op_post(struct state *s)
{
    bool accepted;

    fuzz_act(s->m, s->v, vapic_post(s->v, (uint8_t)s->op->value, s->op->where & 1, &accepted));
}

static void op_send(struct state *s)
{
    struct vapic_msg msg = {.icr = s->op->value,
                            .dest = (uint32_t)s->wide | (s->op->where >> 8),
                            .source = vapic_index(s->v),
                            .flags = s->op->where & 1};

    s->wide = 0;
    if (s->op->where & 2 || msg.source == VAPIC_NO_INDEX)
        msg.source = VAPIC_FROM_DEVICE;
    fuzz_sent(s->m, vapic_send(&s->m->vm, msg));
}

static void op_msi(struct state *s)
{
    uint64_t address = s->op->who & 0x80 ? value64(s) : 0xFEE00000u | (uint32_t)s->op->where << 2;
    int result = vapic_msi(&s->m->vm, address, s->op->value);

    fuzz_check(result == VAPIC_E_MSI || (result >= 0 && result <= (int)FUZZ_VCPUS), "MSI: %d",
               result);
}

static void op_line(struct state *s)
{
    switch (s->op->where & 7) {
    case 0:
        fuzz_act(s->m, s->v, vapic_nmi(s->v));
        break;
    case 1:
    case 2:
        fuzz_act(s->m, s->v, vapic_set_lint(s->v, (s->op->where & 7) - 1, s->op->value & 1));
        break;
    case 3:
        fuzz_act(s->m, s->v, vapic_local_event(s->v, s->op->value & 0xFFF));
        break;
    case 4:
        fuzz_act(s->m, s->v, vapic_timer_expired(s->v));
        break;
    case 5:
        fuzz_act(s->m, s->v, vapic_poke(s->v));
        break;
    default:
        vapic_gsi_set(&s->m->vm, s->op->value & 63, s->op->value >> 8 & 31, s->op->value >> 16 & 1);
        break;
    }
}

static void op_time(struct state *s)
{
    uint64_t ns = value64(s);

    s->m->now.ns += ns;
    s->m->now.tsc += s->op->where & 1 ? ns : ns / 2;
}

static void op_reset(struct state *s)
{
    if (s->op->where % 4 == 0)
        vapic_ioapic_reset(&s->m->io);
    else if (!s->m->blocked[s->n])
        vapic_reset(s->v);
}

static void op_hotplug(struct state *s)
{
    if (s->m->blocked[s->n])
        return;
    if (s->m->present[s->n])
        fuzz_check(vapic_remove(s->v) == VAPIC_OK, "remove");
    else
        fuzz_check(vapic_add(s->v) == VAPIC_OK, "add");
    s->m->present[s->n] = !s->m->present[s->n];
}

static void op_load_base(struct state *s)
{
    uint64_t value = value64(s);
    int result = vapic_load_base(s->v, value);

    fuzz_check(result == VAPIC_OK || result == VAPIC_E_BASE, "load_base: %d", result);
}

static uint32_t word(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

/* What was saved can be loaded, and is then the same. */
static void op_state(struct state *s)
{
    static uint8_t image[VAPIC_IMAGE_SIZE], again[VAPIC_IMAGE_SIZE], record[VAPIC_RECORD_SIZE];
    struct vapic_entry entry;

    if (s->m->blocked[s->n])
        return;
    vapic_save_image(s->v, VAPIC_IMAGE_ID32, image, sizeof(image), s->m->now);
    vapic_save_record(s->v, record, sizeof(record), s->m->now);
    fuzz_check(vapic_load_image(s->v, VAPIC_IMAGE_ID32, image, sizeof(image), s->m->now) ==
                   VAPIC_OK,
               "a saved image does not load");
    fuzz_check(vapic_load_record(s->v, record, sizeof(record), s->m->now, &entry) == VAPIC_OK,
               "a saved record does not load");
    vapic_save_image(s->v, VAPIC_IMAGE_ID32, again, sizeof(again), s->m->now);
    if (!(vapic_base(s->v) & APIC_BASE_EN)) /* nobody can see them, and enabling sets them */
        return;
    for (uint32_t at = 0; at < VAPIC_IMAGE_SIZE; at += 16)
        fuzz_check(at == APIC_TMCCT || memcmp(image + at, again + at, 16) == 0,
                   "register %#x differs after a save and a load: %#x, %#x; base %#llx", at,
                   word(image + at), word(again + at), (unsigned long long)vapic_base(s->v));
}

static void op_eoi(struct state *s)
{
    vapic_eoi(s->v);
}

static void op_hypercall(struct state *s)
{
    struct vapic_pv_call call = {
        .number = s->op->where & 1 ? VAPIC_PV_CALL_SEND_IPI : s->op->where,
        .arg = {s->wide | (uint64_t)s->op->value << 40, s->op->value, s->op->where >> 8,
                s->op->value & 0x7FF},
        .cpl = s->op->who >> 6,
        .long_mode = s->op->where & 2,
    };
    int64_t result;

    s->wide = 0;
    vapic_pv_hypercall(s->v, &call, &result);
}

static void op_hyperv(struct state *s)
{
    uint64_t banks[64] = {s->op->value, s->wide};
    struct vapic_hv_targets targets = {
        .all = s->op->where & 1, .valid = s->op->where >> 8, .banks = banks};

    if (s->op->who & 0x80)
        vapic_hv_send_ipi(s->v, s->op->who & 0x40 ? 0x51 : s->op->value, &targets);
    else
        vapic_hv_write_sint(s->v, s->op->where & 31, value64(s));
}

/* The words that the guest shares, where the library is told of them. */
static void op_pv_word(struct state *s)
{
    uint64_t word = 0x100u * s->n + 4u * (s->op->where & 7);

    if (s->op->where & 8)
        vapic_pv_msr_write(s->v, VAPIC_MSR_HV_VP_ASSIST, 0x1000 | (s->op->value & 1));
    else
        vapic_pv_msr_write(s->v, VAPIC_MSR_KVM_EOI, word | (s->op->value & 1));
}

static void op_guest_word(struct state *s)
{
    uint32_t at = s->op->where % (FUZZ_RAM - 4);

    memcpy(s->m->ram + at, &s->op->value, 4);
    if (s->op->who & 0x80)
        vapic_pv_remap(s->v);
}

static void op_ioapic(struct state *s)
{
    vapic_ioapic_write(&s->m->io, 0x00, s->op->where & 0xFF, 4);
    vapic_ioapic_write(&s->m->io, 0x10, s->op->value, 4);
}

static void (*const ops[])(struct state *s) = {
    op_read,   op_write,   op_read,      op_write, op_write,     op_mmio_read, op_mmio_write,
    op_rdmsr,  op_wrmsr,   op_wide,      op_cr8,   op_step,      op_step,      op_aborted_step,
    op_halt,   op_post,    op_send,      op_msi,   op_line,      op_time,      op_reset,
    op_eoi,    op_hotplug, op_load_base, op_state, op_hypercall, op_hyperv,    op_guest_word,
    op_ioapic, op_step,    op_pv_word,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct fuzz_op op;
    struct state s = {.m = fuzz_vm(fuzz_u8(&in)), .op = &op};

    for (uint32_t i = 0; i < 200 && fuzz_next(&in, &op); i++) {
        s.n = (op.who & 3) % FUZZ_VCPUS;
        s.v = &s.m->v[s.n];
        ops[op.kind % (sizeof(ops) / sizeof(ops[0]))](&s);
    }
    for (uint32_t n = 0; n < FUZZ_VCPUS; n++)
        fuzz_step(s.m, n, VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF);
    fuzz_consistent(s.m);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
