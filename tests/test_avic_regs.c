/* SPDX-License-Identifier: MIT */
/*
 * Every register, read and written, through the AVIC back end on each kind of silicon: the guest
 * sees what it sees without acceleration. What a processor is known to do differently is listed;
 * a difference that is not fails, and so does a listed one that does not show.
 */
#include "avic_tests.h"

struct mode {
    const char *name;
    uint32_t features;
    bool x2apic;
};

static const struct mode modes[] = {
    {"xAPIC on xAVIC", XAVIC, false},          {"xAPIC without published IsRunning", 0, false},
    {"x2APIC on x2AVIC", X2AVIC, true},        {"xAPIC on x2AVIC", X2AVIC, false},
    {"x2APIC on xAVIC (hybrid)", XAVIC, true},
};

#define MODES (sizeof(modes) / sizeof(modes[0]))

/* Values that mean something to some register, and some that mean nothing. */
static const uint32_t values[] = {
    0,
    0xFFFFFFFF,
    0x12345678,
    0x31,
    0x10031,                /* masked */
    0x1FF,                  /* SVR on */
    0xFF,                   /* SVR off */
    0x2000000,              /* an LDR, an ID */
    APIC_ICR_ASSERT | 0x61, /* to whoever 310h names: vCPU 0 */
    APIC_ICR_ASSERT | APIC_ICR_SELF | 0x61,
    APIC_ICR_ASSERT | APIC_ICR_ALL_EXCL | 0x61,
    APIC_ICR_ASSERT | APIC_ICR_LOGICAL | 0x61,
    APIC_ICR_ASSERT | APIC_ICR_BUSY | 0x61,
    APIC_DM_NMI | APIC_ICR_ALL_EXCL,
    APIC_DM_LOWEST | APIC_ICR_ASSERT | 0x61,
    APIC_ICR_LEVEL | APIC_ICR_ASSERT | 0x61,
    APIC_ICR_ASSERT | 5, /* an illegal vector */
};

#define VALUES (sizeof(values) / sizeof(values[0]))

/* A named deviation of the processor: after a write at `offset`, the register at `differs` may read
 * otherwise in the bits of `mask`. */
static struct {
    const char *why;
    uint16_t offset, differs;
    uint32_t mask;
    bool x2apic;
    uint32_t shown;
} deviations[] = {
    {"ICR high keeps its reserved bits", APIC_ICR2, APIC_ICR2, 0x00FFFFFF, false, 0},
    {"ICR keeps the busy bit of an accelerated IPI", APIC_ICR, APIC_ICR, APIC_ICR_BUSY, false, 0},
    {"EOI is memory when it is read", APIC_EOI, APIC_EOI, 0xFFFFFFFF, false, 0},
    {"MSR 83Fh's place is memory", APIC_SELF_IPI, APIC_SELF_IPI, 0xFFFFFFFF, false, 0},
};

#define DEVIATIONS (sizeof(deviations) / sizeof(deviations[0]))

static bool is_listed(const struct mode *m, uint16_t written, uint16_t read, uint64_t bits)
{
    for (size_t i = 0; i < DEVIATIONS; i++) {
        if (deviations[i].offset != written || deviations[i].differs != read ||
            deviations[i].x2apic != m->x2apic || bits & ~(uint64_t)deviations[i].mask)
            continue;
        deviations[i].shown++;
        return true;
    }
    return false;
}

/* The processor refuses the busy bit by MSR; without acceleration it is ignored. */
static uint32_t refused_busy;

static bool is_refused(const struct mode *m, uint16_t offset, uint64_t value)
{
    bool busy = m->x2apic && m->features & VAPIC_ACCEL_X2AVIC && offset == APIC_ICR &&
                value & APIC_ICR_BUSY;

    refused_busy += busy;
    return busy;
}

static struct ax *machine(const struct mode *m, enum vapic_accel_kind kind)
{
    struct ax_options o = {
        .accel = {.kind = kind, .features = m->features},
        .vcpus = 2,
        .x2apic = m->x2apic,
        .features = VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT,
    };
    struct ax *ax = ax_new(&o);

    enter_all(ax);
    return ax;
}

/* Every register of both vCPUs, and what both have been interrupted by. */
static void compare(const struct mode *m, struct ax *soft, struct ax *hard, uint16_t written,
                    uint64_t value)
{
    const struct vapic_reg *row;

    for (uint32_t n = 0; n < 2; n++) {
        for (uint32_t vector = 16; vector < 256; vector++)
            if (ax_delivered(soft, n, (uint8_t)vector) != ax_delivered(hard, n, (uint8_t)vector))
                fail_msg("%s: %#llx to %#x: vCPU %u, vector %#x: %u and %u", m->name,
                         (unsigned long long)value, written, n, vector,
                         ax_delivered(soft, n, (uint8_t)vector),
                         ax_delivered(hard, n, (uint8_t)vector));
        for (uint32_t i = 0; (row = vapic_reg_row(i)) != NULL; i++) {
            for (uint32_t word = 0; word < row->count; word++) {
                uint16_t offset = (uint16_t)(row->offset + 16 * word);
                uint64_t a = 0, b = 0;
                enum ax_result ra = ax_try_read(soft, n, offset, &a);
                enum ax_result rb = ax_try_read(hard, n, offset, &b);

                if (ra == rb && (ra != AX_DONE || a == b || is_listed(m, written, offset, a ^ b)))
                    continue;
                fail_msg("%s: %#llx to %#x: vCPU %u then reads %d:%#llx and %d:%#llx at %#x",
                         m->name, (unsigned long long)value, written, n, ra, (unsigned long long)a,
                         rb, (unsigned long long)b, offset);
            }
        }
    }
}

static void write_everywhere(const struct mode *m, uint16_t offset, uint64_t value, bool serving)
{
    struct ax *soft = machine(m, VAPIC_ACCEL_NONE), *hard = machine(m, VAPIC_ACCEL_AVIC);
    enum ax_result a, b;

    if (serving) { /* something is in service, something else pends */
        struct ax *both[] = {soft, hard};

        for (uint32_t i = 0; i < 2; i++) {
            ax_post(both[i], 0, 0x82, true);
            ax_settle(both[i]);
            ax_post(both[i], 0, 0x45, false);
            ax_settle(both[i]);
        }
    }
    a = ax_try_write(soft, 0, offset, value);
    b = ax_try_write(hard, 0, offset, value);
    if (a == AX_DONE && b == AX_GP && is_refused(m, offset, value)) {
        ax_free(soft);
        ax_free(hard);
        return;
    }
    if (a != b)
        fail_msg("%s: %#llx to %#x: %d and %d", m->name, (unsigned long long)value, offset, a, b);
    ax_settle(soft);
    ax_settle(hard);
    compare(m, soft, hard, offset, value);
    ax_free(soft);
    ax_free(hard);
}

/* Registers whose write may have to do with what is in service or pends. */
static bool concerns_interrupts(uint16_t offset)
{
    return offset == APIC_TPR || offset == APIC_EOI || offset == APIC_SVR || offset == APIC_ICR ||
           offset == APIC_SELF_IPI || offset == APIC_SEOI;
}

static void every_write(const struct mode *m, uint16_t offset)
{
    for (size_t i = 0; i < VALUES; i++) {
        write_everywhere(m, offset, values[i], false);
        if (concerns_interrupts(offset))
            write_everywhere(m, offset, values[i], true);
    }
    if (m->x2apic)
        write_everywhere(m, offset, 1ull << 32 | APIC_ICR_ASSERT | 0x61, false);
}

static void test_every_register(void **state)
{
    const struct mode *m = *state;
    const struct vapic_reg *row;

    for (uint32_t i = 0; (row = vapic_reg_row(i)) != NULL; i++) {
        if (row->need == VAPIC_NEED_CMCI)
            continue;
        every_write(m, row->offset);
        if (row->count > 1)
            every_write(m, (uint16_t)(row->offset + 16 * (row->count - 1)));
    }
}

static void test_every_deviation_shown(void **state)
{
    (void)state;
    for (size_t i = 0; i < DEVIATIONS; i++)
        if (deviations[i].shown == 0)
            fail_msg("never seen: %s", deviations[i].why);
    assert_int_not_equal(refused_busy, 0);
}

int main(void)
{
    struct CMUnitTest tests[MODES + 1];

    for (size_t i = 0; i < MODES; i++)
        tests[i] = (struct CMUnitTest){.name = modes[i].name,
                                       .test_func = test_every_register,
                                       .initial_state = (void *)(uintptr_t)&modes[i]};
    tests[MODES] = (struct CMUnitTest)cmocka_unit_test(test_every_deviation_shown);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
