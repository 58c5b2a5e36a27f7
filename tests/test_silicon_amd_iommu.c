/* SPDX-License-Identifier: MIT */
/*
 * An AMD IOMMU's interrupt remapping: guest mode posts, rings or logs; remapped mode sends to the
 * host. [IOMMU 2.2.5] [IOMMU 2.8]
 */
#include <string.h>

#include "silicon_fixture.h"

#define LOG_ENTRIES 4u
#define DEVICE      0x1234u
#define TAG         0xABCDE007u
#define VECTOR      0x61u

struct scene {
    struct sf *sf;
    struct vapic_sil_amd_iommu iommu;
    uint64_t log[LOG_ENTRIES];
    uint64_t irte[2];
};

/* An entry that posts to vCPU 3, which runs on processor 3. */
static struct scene make(void)
{
    struct scene s = {.sf = sf_new(NULL, false)};

    s.iommu = (struct vapic_sil_amd_iommu){.machine = &s.sf->machine};
    s.irte[0] = 1 | 1ull << 6 | 1ull << 7 | 3ull << 8 | (uint64_t)TAG << 32;
    s.irte[1] = VECTOR | (SF_BACKING + 3 * 0x1000);
    return s;
}

static void with_log(struct scene *s)
{
    s->iommu.log = s->log;
    s->iommu.entries = LOG_ENTRIES;
}

static enum vapic_sil_msi message(struct scene *s)
{
    return vapic_sil_amd_msi(&s->iommu, s->irte, DEVICE);
}

#define IS_RUN   (1ull << 6)
#define GA_LOG   (1ull << 2)
#define MODE     (1ull << 7)
#define LOG_DATA (1ull << 60 | (uint64_t)DEVICE << 32 | TAG)

/* ---- Guest mode ---- */

static void posts_to_a_running_vcpu(void **state)
{
    struct scene s = make();

    (void)state;
    sf_run(s.sf, 3);
    sf_set_bit(s.sf, 3, APIC_TMR, VECTOR, true);
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(s.sf->signals[3], 1);
    assert_true(sf_bit(s.sf, 3, APIC_TMR, VECTOR)); /* a post leaves TMR alone */
    assert_int_equal(sf_take(s.sf, 3), VECTOR);
    sf_free(s.sf);
}

/* Preempted: nobody is told, its next VMRUN finds the interrupt. */
static void posts_to_a_preempted_vcpu(void **state)
{
    struct scene s = make();

    (void)state;
    with_log(&s);
    s.irte[0] &= ~IS_RUN;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(s.sf->signals[3], 0);
    assert_int_equal(s.iommu.tail, 0);
    sf_run(s.sf, 3);
    assert_int_equal(sf_take(s.sf, 3), VECTOR);
    sf_free(s.sf);
}

static void logs_for_a_blocked_vcpu(void **state)
{
    (void)state;
    for (int interrupt = 0; interrupt < 2; interrupt++) {
        struct scene s = make();

        with_log(&s);
        s.iommu.log_interrupt = interrupt;
        s.iommu.log_dest = 5;
        s.iommu.log_vector = 0xF2;
        s.irte[0] = (s.irte[0] & ~IS_RUN) | GA_LOG;
        assert_int_equal(message(&s), VAPIC_SIL_MSI_LOGGED);
        assert_true(sf_bit(s.sf, 3, APIC_IRR, VECTOR));
        assert_int_equal(s.iommu.tail, 1);
        sf_equal(s.log[0], LOG_DATA, "log entry");
        assert_int_equal(vapic_sil_take_interrupt(&s.sf->cpu[5]), interrupt ? 0xF2 : -1);
        assert_int_equal(s.sf->signals[3], 0);
        sf_free(s.sf);
    }
}

/* IsRun wins over GALogIntr; and without a log there is none. */
static void running_or_no_log(void **state)
{
    struct scene s = make();

    (void)state;
    with_log(&s);
    s.irte[0] |= GA_LOG;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(s.sf->signals[3], 1);
    s.irte[0] &= ~IS_RUN;
    s.iommu.entries = 0;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(s.iommu.tail, 0);
    sf_free(s.sf);
}

/* The log wraps, and holds one entry less than its size. */
static void log_wraps_and_overflows(void **state)
{
    struct scene s = make();

    (void)state;
    with_log(&s);
    s.iommu.log_interrupt = true;
    s.iommu.log_vector = 0xF2;
    s.irte[0] = (s.irte[0] & ~IS_RUN) | GA_LOG;
    for (uint32_t i = 0; i < 10; i++) { /* software keeps up */
        memset(s.log, 0, sizeof(s.log));
        assert_int_equal(message(&s), VAPIC_SIL_MSI_LOGGED);
        sf_equal(s.log[s.iommu.head], LOG_DATA, "round %u", i);
        s.iommu.head = (s.iommu.head + 1) % LOG_ENTRIES;
        assert_int_equal(s.iommu.tail, s.iommu.head);
        assert_int_equal(vapic_sil_take_interrupt(&s.sf->cpu[0]), 0xF2);
    }
    for (uint32_t i = 0; i < LOG_ENTRIES - 1; i++)
        assert_int_equal(message(&s), VAPIC_SIL_MSI_LOGGED);
    assert_int_equal(s.iommu.overflow, 0);
    assert_int_equal(vapic_sil_take_interrupt(&s.sf->cpu[0]), 0xF2);
    sf_set_bit(s.sf, 3, APIC_IRR, VECTOR, false);
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED); /* lost from the log, not from IRR */
    assert_int_equal(s.iommu.overflow, 1);
    assert_true(sf_bit(s.sf, 3, APIC_IRR, VECTOR));
    assert_int_equal(vapic_sil_take_interrupt(&s.sf->cpu[0]), 0xF2); /* software hears of it */
    s.iommu.head = s.iommu.tail;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED); /* stopped until the bit is cleared */
    s.iommu.overflow = 0;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_LOGGED);
    sf_free(s.sf);
}

/* A tag means nothing to the hardware: that of a vCPU that is gone is logged like any other. */
static void stale_tag(void **state)
{
    struct scene s = make();

    (void)state;
    with_log(&s);
    s.irte[0] = 1 | MODE | GA_LOG | 0xFFFFFFFFull << 32;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_LOGGED);
    sf_equal(s.log[0] & AMD_GA_LOG_TAG, 0xFFFFFFFF, "tag");
    sf_free(s.sf);
}

static void bad_entries(void **state)
{
    static const struct {
        uint64_t low, high; /* changed */
        enum vapic_sil_msi want;
    } rows[] = {
        {1, 0, VAPIC_SIL_MSI_BLOCKED},        {1ull << 3, 0, VAPIC_SIL_MSI_FAULT},
        {1ull << 4, 0, VAPIC_SIL_MSI_FAULT},  {1ull << 5, 0, VAPIC_SIL_MSI_POSTED}, /* GAPPIDis */
        {1ull << 1, 0, VAPIC_SIL_MSI_POSTED},                                       /* SupIOPF */
        {0, 1ull << 8, VAPIC_SIL_MSI_FAULT},  {0, 1ull << 11, VAPIC_SIL_MSI_FAULT},
        {0, 1ull << 52, VAPIC_SIL_MSI_FAULT}, {0, 1ull << 55, VAPIC_SIL_MSI_FAULT},
        {0, 1ull << 51, VAPIC_SIL_MSI_FAULT}, /* beyond the physical range */
        {0, 1ull << 30, VAPIC_SIL_MSI_FAULT}, /* no memory */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct scene s = make();

        s.irte[0] ^= rows[i].low;
        s.irte[1] ^= rows[i].high;
        sf_equal(message(&s), rows[i].want, "row %zu", i);
        sf_equal(sf_bit(s.sf, 3, APIC_IRR, VECTOR), rows[i].want == VAPIC_SIL_MSI_POSTED,
                 "row %zu: IRR", i);
        sf_free(s.sf);
    }
}

/* The destination has 32 bits, in two pieces. */
static void destination_is_put_together(void **state)
{
    struct scene s = make();

    (void)state;
    s.irte[1] |= 1ull << 56; /* 01000003h: nobody */
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(s.sf->signals[3], 0);
    sf_free(s.sf);
}

/* ---- The race with a vCPU that blocks: IsRun and GALogIntr are read after the post ---- */

struct race {
    struct scene *s;
    enum vapic_sil_point when;
    bool irr;
};

static void block_target(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct race *race = sf->user;

    assert_null(cpu);
    if (point != race->when)
        return;
    race->s->irte[0] = (race->s->irte[0] & ~IS_RUN) | GA_LOG;
    race->irr = sf_bit(sf, 3, APIC_IRR, VECTOR);
}

static void blocks_in_between(void **state)
{
    static const enum vapic_sil_point points[] = {VAPIC_SIL_POINT_POSTED, VAPIC_SIL_POINT_FOUND};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct scene s = make();
        struct race race = {.s = &s, .when = points[i]};
        enum vapic_sil_msi result;

        with_log(&s);
        s.sf->on_point = block_target;
        s.sf->user = &race;
        result = message(&s);
        assert_int_equal(result, i ? VAPIC_SIL_MSI_POSTED : VAPIC_SIL_MSI_LOGGED);
        assert_true(race.irr); /* at both moments its look at IRR finds the interrupt as well */
        sf_free(s.sf);
    }
}

/* Switched to remapped mode in between: bits 2 and 6 are IntType and DM then. */
static void switch_mode(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct scene *s = sf->user;

    (void)cpu;
    if (point == VAPIC_SIL_POINT_POSTED)
        s->irte[0] = 1 | 1 << 6 | 1 << 2 | 3ull << 8;
}

static void switched_in_between(void **state)
{
    struct scene s = make();

    (void)state;
    with_log(&s);
    s.sf->on_point = switch_mode;
    s.sf->user = &s;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_POSTED);
    assert_true(sf_bit(s.sf, 3, APIC_IRR, VECTOR));
    assert_int_equal(s.sf->signals[3], 0);
    assert_int_equal(s.iommu.tail, 0);
    sf_free(s.sf);
}

/* ---- Remapped mode ---- */

static uint64_t pending(struct sf *sf, uint8_t vector)
{
    uint64_t set = 0;

    for (uint32_t n = 0; n < SF_CPUS; n++)
        set |= (uint64_t)(vapic_sil_take_interrupt(&sf->cpu[n]) == vector) << n;
    return set;
}

static void remapped(void **state)
{
    static const struct {
        uint64_t low;
        uint32_t dest;
        uint8_t vector;
        uint64_t want; /* processors; 0: fault */
    } rows[] = {
        {0, 5, 0x41, 1 << 5},
        {1 << 2, 5, 0x41, 1 << 5},     /* arbitrated */
        {1 << 6, 0x0006, 0x41, 6},     /* logical */
        {1 << 6 | 1 << 2, 6, 0x41, 2}, /* logical, arbitrated: one of them */
        {0, 0xFFFFFFFF, 0x41, 0xFFFF},
        {2 << 2, 5, 0x41, 0}, /* SMI: no such thing here */
        {4 << 2, 5, 0x41, 0}, /* NMI */
        {0, 5, 15, 0},
        {0, 5, 16, 1 << 5},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct scene s = make();

        s.irte[0] = 1 | rows[i].low | (rows[i].dest & 0xFFFFFFull) << 8;
        s.irte[1] = rows[i].vector | (uint64_t)(rows[i].dest >> 24) << 56;
        sf_equal(message(&s), rows[i].want ? VAPIC_SIL_MSI_REMAPPED : VAPIC_SIL_MSI_FAULT,
                 "row %zu", i);
        sf_equal(pending(s.sf, rows[i].vector), rows[i].want, "row %zu", i);
        sf_free(s.sf);
    }
}

static void remapped_to_nobody(void **state)
{
    struct scene s = make();

    (void)state;
    s.irte[0] = 1 | 99ull << 8;
    s.irte[1] = 0x41;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_REMAPPED);
    s.irte[0] = 1 | 1 << 6; /* logical 9:0001h */
    s.irte[1] = 0x41;
    s.irte[0] |= 0x090001ull << 8;
    assert_int_equal(message(&s), VAPIC_SIL_MSI_REMAPPED);
    sf_equal(pending(s.sf, 0x41), 0, "nobody");
    sf_free(s.sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_to_a_running_vcpu),
        cmocka_unit_test(posts_to_a_preempted_vcpu),
        cmocka_unit_test(logs_for_a_blocked_vcpu),
        cmocka_unit_test(running_or_no_log),
        cmocka_unit_test(log_wraps_and_overflows),
        cmocka_unit_test(stale_tag),
        cmocka_unit_test(bad_entries),
        cmocka_unit_test(destination_is_put_together),
        cmocka_unit_test(blocks_in_between),
        cmocka_unit_test(switched_in_between),
        cmocka_unit_test(remapped),
        cmocka_unit_test(remapped_to_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
