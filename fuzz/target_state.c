/* SPDX-License-Identifier: MIT */
/*
 * Saved state that nobody honest has written. A load either fails and has changed nothing, not one
 * byte of the VM, or leaves a state that lives: it saves and loads again as itself, it can be run,
 * timed, sent to and ended without end, and no register holds what it cannot hold. [SDM3 12.4.1]
 *
 * An input is a head (kind of VM, what to load and in which order, IA32_APIC_BASE), then patches of
 * a valid state: `kind` which part, `where` the offset, `value` what to put there. What the bytes
 * are before the patches follows from bits of the head: saved from the VM, all ones, or noise.
 */
#include "vm.h"

#include "vapic/arch/apic.h"

#define HEAD 16u

enum part { IMAGE, RECORD, IOAPIC, PARTS };

static uint8_t parts[PARTS][VAPIC_IMAGE_SIZE];
static const size_t sizes[PARTS] = {VAPIC_IMAGE_SIZE, VAPIC_RECORD_SIZE,
                                    VAPIC_IOAPIC_RECORD(FUZZ_PINS)};
static struct fuzz_vm before;

struct head {
    uint8_t vm;
    uint8_t order; /* which parts, and the form of the image */
    uint8_t fill;
    uint8_t size; /* a record that is too short, or longer than its size says */
    uint32_t noise;
    uint64_t base;
};

_Static_assert(sizeof(struct head) == HEAD, "as documented");

/* ---- Making the bytes ---- */

static void fill_noise(uint8_t *bytes, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

static void fill(struct fuzz_vm *m, const struct head *h)
{
    vapic_save_image(&m->v[0], VAPIC_IMAGE_ID32, parts[IMAGE], sizes[IMAGE], m->now);
    vapic_save_record(&m->v[0], parts[RECORD], sizes[RECORD], m->now);
    vapic_ioapic_save(&m->io, parts[IOAPIC], sizes[IOAPIC]);
    for (uint32_t i = 0; i < PARTS; i++) {
        size_t keep = i == IMAGE ? 0 : 8; /* magic, version, length */

        if (h->fill >> i & 1)
            memset(parts[i] + keep, 0xFF, sizes[i] - keep);
        else if (h->fill >> (i + 3) & 1)
            fill_noise(parts[i] + keep, (i == RECORD ? 96 : sizes[i]) - keep, h->noise);
    }
}

static void patch(const struct fuzz_op *op)
{
    uint32_t part = op->kind % PARTS, size = 1u << (op->who & 3) % 3;
    size_t at = op->where % (sizes[part] - 3);

    if (op->who & 4) /* a whole register */
        at &= ~(size_t)15;
    memcpy(parts[part] + at, &op->value, size);
}

/* ---- Loading ---- */

static int load(struct fuzz_vm *m, enum part part, const struct head *h)
{
    enum vapic_image form = h->order & 0x40 ? VAPIC_IMAGE_ID8 : VAPIC_IMAGE_ID32;
    size_t size = h->order & 0x80 ? h->size : sizes[part];
    struct vapic_entry entry;

    switch (part) {
    case IMAGE:
        return vapic_load_image(&m->v[0], form, parts[IMAGE], sizes[IMAGE], m->now);
    case RECORD:
        return vapic_load_record(&m->v[0], parts[RECORD], size, m->now, &entry);
    default:
        return vapic_ioapic_load(&m->io, parts[IOAPIC], size);
    }
}

static void load_checked(struct fuzz_vm *m, enum part part, const struct head *h)
{
    int result;

    memcpy(&before, m, sizeof(before));
    result = load(m, part, h);
    fuzz_check(result <= 0 && result >= VAPIC_E_MSI, "load of part %d: %d", (int)part, result);
    if (result != VAPIC_OK)
        fuzz_check(memcmp(&before, m, sizeof(before)) == 0,
                   "a load of part %d that failed with %d has changed something", (int)part,
                   result);
}

/* ---- Afterwards ---- */

static const struct {
    uint32_t offset, may;
} registers[] = {
    {APIC_TPR, 0xFF},
    {APIC_SVR, 0x13FF},
    {APIC_LVT_CMCI, 0x117FF},
    {APIC_LVT_TIMER, 0x710FF},
    {APIC_LVT_THERMAL, 0x117FF},
    {APIC_LVT_PMC, 0x117FF},
    {APIC_LVT_LINT0, 0x1F7FF},
    {APIC_LVT_LINT1, 0x1F7FF},
    {APIC_LVT_ERROR, 0x110FF},
    {APIC_TDCR, 0xB},
    {APIC_ESR, 0xFF},
};

static void check_registers(struct fuzz_vm *m)
{
    for (uint32_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
        uint32_t value = fuzz_page(m, 0, registers[i].offset);

        fuzz_check((value & ~registers[i].may) == 0, "register %#x holds %#x", registers[i].offset,
                   value);
    }
}

/* Saved and loaded once more it is the same. */
static void check_again(struct fuzz_vm *m)
{
    static uint8_t image[VAPIC_IMAGE_SIZE], again[VAPIC_IMAGE_SIZE], record[VAPIC_RECORD_SIZE];
    struct vapic *v = &m->v[0];

    vapic_save_image(v, VAPIC_IMAGE_ID32, image, sizeof(image), m->now);
    vapic_save_record(v, record, sizeof(record), m->now);
    fuzz_check(vapic_load_image(v, VAPIC_IMAGE_ID32, image, sizeof(image), m->now) == VAPIC_OK,
               "what was loaded and saved does not load");
    fuzz_check(vapic_load_record(v, record, sizeof(record), m->now, NULL) == VAPIC_OK,
               "the record of what was loaded does not load");
    vapic_save_image(v, VAPIC_IMAGE_ID32, again, sizeof(again), m->now);
    for (uint32_t at = 0; at < sizeof(image) && vapic_base(v) & APIC_BASE_EN; at += 16)
        fuzz_check(at == APIC_TMCCT || memcmp(image + at, again + at, 16) == 0,
                   "register %#x differs when it is loaded twice", at);
}

/* It lives: interrupts come, are taken and ended, time passes, and somebody is sent to. */
static void live(struct fuzz_vm *m, uint32_t noise)
{
    uint32_t can = VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_CAN_SMI | VAPIC_IF;

    for (uint32_t i = 0; i < 6; i++) {
        uint32_t lines = noise >> i;

        m->now.ns += (uint64_t)noise << (i * 4);
        m->now.tsc += noise;
        fuzz_sent(m, vapic_send(&m->vm, (struct vapic_msg){.icr = 0x4000 | (noise >> i & 0xFF),
                                                           .dest = i & 1 ? 0 : 0xFF,
                                                           .source = VAPIC_FROM_DEVICE}));
        vapic_gsi_set(&m->vm, i, 0, lines & 1);
        fuzz_step(m, i % FUZZ_VCPUS, can);
        vapic_eoi(&m->v[i % FUZZ_VCPUS]);
    }
    for (uint32_t i = 0; i < 256 && fuzz_highest(m, 0, APIC_ISR) >= 0; i++)
        vapic_eoi(&m->v[0]);
    fuzz_check(fuzz_highest(m, 0, APIC_ISR) < 0, "256 EOIs leave something in service");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct fuzz_op op;
    struct fuzz_vm *m;
    struct head h;

    fuzz_bytes(&in, &h, sizeof(h));
    m = fuzz_vm(h.vm);
    fill(m, &h);
    while (fuzz_next(&in, &op))
        patch(&op);
    if (h.order & 8 && vapic_load_base(&m->v[0], h.base) == VAPIC_OK && h.order & 0x10)
        memcpy(parts[RECORD] + 8, &h.base, sizeof(h.base)); /* so that the record belongs to it */
    for (uint32_t i = 0; i < PARTS; i++)
        if (h.order >> i & 1)
            load_checked(m, (enum part)i, &h);
    check_registers(m);
    check_again(m);
    live(m, h.noise);
    fuzz_consistent(m);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
