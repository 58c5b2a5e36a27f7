/* SPDX-License-Identifier: MIT */
/* Who receives an interrupt message: every destination form, shorthand and delivery mode. */
#include "groups.h"

#define FIRST_VEC 0x40
#define VECTORS   128u /* 0x40 to 0xBF are this file's */
#define NMI_BURST 10

static uint32_t total_before[MAX_CPUS], vector_before[MAX_CPUS];
static uint8_t want[MAX_CPUS], vector_now;

static uint32_t total(const struct cpu *c)
{
    uint32_t sum = 0;

    for (unsigned v = FIRST_VEC; v < FIRST_VEC + VECTORS; v++)
        sum += c->received[v];
    return sum;
}

/* From here to finish(), CPU i must get want[i] interrupts of this vector and no other. */
static void begin(uint8_t vector)
{
    vector_now = vector;
    for (uint32_t i = 0; i < cpu_count; i++) {
        total_before[i] = total(cpu_table[i]);
        vector_before[i] = cpu_table[i]->received[vector];
        want[i] = 0;
    }
}

static void want_all(uint8_t count)
{
    for (uint32_t i = 0; i < cpu_count; i++)
        want[i] = count;
}

static void await(uint32_t i)
{
    volatile uint32_t *got = &cpu_table[i]->received[vector_now];

    if (!wait_word_open(got, vector_before[i] + want[i]))
        print("# CPU %u got %u of %u interrupts %x\n", i, *got - vector_before[i], want[i],
              vector_now);
}

static void finish(void)
{
    for (uint32_t i = 0; i < cpu_count; i++)
        if (want[i])
            await(i);
    cpu_settle();
    irq_window();
    for (uint32_t i = 0; i < cpu_count; i++) {
        CHECK_EQ(cpu_table[i]->received[vector_now] - vector_before[i], want[i]);
        CHECK_EQ(total(cpu_table[i]) - total_before[i], want[i]);
    }
}

static void self_forms(void)
{
    static const uint32_t lows[] = {ICR_SELF, ICR_SELF | ICR_LOGICAL};
    struct cpu *me = this_cpu();

    for (unsigned i = 0; i < 2; i++) {
        begin(0x41);
        want[0] = 1;
        apic_icr(lows[i] | ICR_ASSERT | 0x41, 0);
        finish();
    }
    begin(0x42);
    want[0] = 1;
    apic_icr(ICR_FIXED | ICR_ASSERT | 0x42, me->apic_id);
    finish();
    begin(0x43);
    want[0] = 1;
    apic_self(0x43);
    finish();
    CHECK(me->mode == APIC_X2APIC || !(apic_read(APIC_ICR) & ICR_BUSY));
}

static void self_msr_keeps_icr(void)
{
    uint64_t icr;

    apic_set_mode(APIC_X2APIC);
    apic_setup();
    apic_icr(ICR_SELF | ICR_ASSERT | 0x44, 0x123);
    icr = rdmsr(apic_msr(APIC_ICR));
    begin(0x45);
    want[0] = 1;
    apic_self_ipi_msr(0x45);
    CHECK_EQ(rdmsr(apic_msr(APIC_ICR)), icr);
    CHECK(wait_word_open(&this_cpu()->received[0x45], vector_before[0] + 1));
    CHECK_EQ(this_cpu()->received[0x45], vector_before[0] + 1);
}

/* One vector per target, so that a message to the wrong one shows. */
static void physical_each(void)
{
    begin(FIRST_VEC);
    for (uint32_t i = 0; i < cpu_count; i++)
        vector_before[i] = cpu_table[i]->received[FIRST_VEC + i % VECTORS];
    for (uint32_t i = 0; i < cpu_count; i++)
        apic_icr(ICR_FIXED | ICR_ASSERT | (FIRST_VEC + i % VECTORS), cpu_table[i]->apic_id);
    for (uint32_t i = 0; i < cpu_count; i++)
        CHECK(
            wait_word_open(&cpu_table[i]->received[FIRST_VEC + i % VECTORS], vector_before[i] + 1));
    cpu_settle();
    irq_window();
    for (uint32_t i = 0; i < cpu_count; i++)
        CHECK_EQ(total(cpu_table[i]) - total_before[i], 1);
}

static void broadcasts(void)
{
    begin(0x48);
    want_all(1);
    apic_icr(ICR_ALL | ICR_ASSERT | 0x48, 0);
    finish();
    begin(0x49);
    want_all(1);
    want[0] = 0;
    apic_icr(ICR_OTHERS | ICR_ASSERT | 0x49, 0);
    finish();
    begin(0x4a);
    want_all(1);
    apic_icr(ICR_FIXED | ICR_ASSERT | 0x4a, apic_broadcast());
    finish();
    begin(0x4b);
    want_all(1);
    apic_icr(ICR_LOGICAL | ICR_ASSERT | 0x4b, apic_broadcast());
    finish();
}

static uint32_t absent_id(void)
{
    uint32_t id = apic_broadcast() - 1;

    for (uint32_t i = 0; i < cpu_count; i++)
        if (cpu_table[i]->apic_id == id)
            id--;
    return id;
}

static void absent(void)
{
    begin(0x4c);
    apic_icr(ICR_FIXED | ICR_ASSERT | 0x4c, absent_id());
    finish();
    CHECK(this_cpu()->mode == APIC_X2APIC || !(apic_read(APIC_ICR) & ICR_BUSY));
}

/* x2APIC: same cluster (high half) and a common bit; flat: a common bit. */
static bool logical_match(uint32_t index, uint32_t dest)
{
    uint32_t ldr = apic_logical_id(index);

    if (this_cpu()->mode == APIC_X2APIC)
        return (ldr >> 16) == (dest >> 16) && (ldr & dest & 0xffff);
    return ldr & dest;
}

static void logical_to(uint32_t dest, uint8_t vector)
{
    begin(vector);
    for (uint32_t i = 0; i < cpu_count; i++)
        want[i] = logical_match(i, dest);
    apic_icr(ICR_LOGICAL | ICR_ASSERT | vector, dest);
    finish();
}

static void flat_logical(void)
{
    static const uint8_t masks[] = {0x01, 0x02, 0x04, 0x08, 0x80, 0x05, 0x0a, 0x0f, 0x7e};

    for (unsigned i = 0; i < sizeof(masks); i++)
        logical_to(masks[i], (uint8_t)(0x50 + i));
}

/* Each cluster that has a processor, and one that has none. */
static void x2apic_logical(void)
{
    static const uint16_t masks[] = {0x0001, 0x0002, 0x8000, 0x000d, 0x5555, 0xffff};
    uint32_t last = 0xffffffff;

    for (uint32_t i = 0; i < cpu_count; i++) {
        uint32_t cluster = cpu_table[i]->apic_id >> 4;

        if (cluster == last)
            continue;
        last = cluster;
        for (unsigned m = 0; m < sizeof(masks) / sizeof(masks[0]); m++)
            logical_to((cluster << 16) | masks[m], (uint8_t)(0x60 + m));
    }
    logical_to(((last + 7) << 16) | 0xffff, 0x66);
}

/* arg: DFR in the high half (cluster: 0), LDR in the low one. */
static void set_logical(uint64_t arg)
{
    apic_write(APIC_DFR, arg >> 32 ? DFR_ALL_FLAT : DFR_CLUSTER);
    apic_write(APIC_LDR, (uint32_t)arg << 24);
}

static void reset_logical(uint64_t unused)
{
    (void)unused;
    apic_setup();
}

static void set_logical_of(uint32_t index, bool flat, uint8_t id)
{
    uint64_t arg = ((uint64_t)flat << 32) | id;

    if (index == 0)
        set_logical(arg);
    else
        cpu_run(cpu_table[index], set_logical, arg);
}

static uint8_t cluster_id(uint32_t index)
{
    return (uint8_t)(((index / 4 % 15) << 4) | (1u << (index % 4)));
}

static void cluster_to(uint8_t dest, uint8_t vector)
{
    begin(vector);
    for (uint32_t i = 0; i < cpu_count; i++) {
        uint8_t id = cluster_id(i);

        want[i] = dest == 0xff || ((id >> 4) == (dest >> 4) && (id & dest & 0xf));
    }
    apic_icr(ICR_LOGICAL | ICR_ASSERT | vector, dest);
    finish();
}

static void xapic_cluster(void)
{
    static const uint8_t dests[] = {0x01, 0x02, 0x03, 0x0d, 0x0f, 0x11, 0x1f, 0x2f, 0xef, 0xff};

    for (uint32_t i = 0; i < cpu_count; i++)
        set_logical_of(i, false, cluster_id(i));
    for (unsigned i = 0; i < sizeof(dests); i++)
        cluster_to(dests[i], (uint8_t)(0x70 + i));
    reset_logical(0);
    cpu_run_others(reset_logical, 0);
}

static void equal_ldr(void)
{
    for (uint32_t i = 0; i < cpu_count; i++)
        set_logical_of(i, true, 0x10);
    begin(0x7b);
    want_all(1);
    apic_icr(ICR_LOGICAL | ICR_ASSERT | 0x7b, 0x10);
    finish();
    begin(0x7c);
    apic_icr(ICR_LOGICAL | ICR_ASSERT | 0x7c, 0x20);
    finish();
    reset_logical(0);
    cpu_run_others(reset_logical, 0);
}

/* CPU 1 flat with ID 20H, CPU 2 cluster 2 member 1: each matches by its own format. */
static void mixed_dfr(void)
{
    for (uint32_t i = 0; i < cpu_count; i++)
        set_logical_of(i, true, 0x40);
    set_logical_of(1, true, 0x20);
    set_logical_of(2, false, 0x21);
    begin(0x7d);
    want[1] = want[2] = 1;
    apic_icr(ICR_LOGICAL | ICR_ASSERT | 0x7d, 0x21);
    finish();
    begin(0x7e);
    apic_icr(ICR_LOGICAL | ICR_ASSERT | 0x7e, 0x11);
    finish();
    reset_logical(0);
    cpu_run_others(reset_logical, 0);
}

static void write_id(uint64_t id)
{
    apic_write(APIC_ID, (uint32_t)id << 24);
}

static void aliased_id(void)
{
    struct cpu *one = cpu_table[1], *two = cpu_table[2];
    uint32_t before1 = one->received[0x7f], before2 = two->received[0x7f];

    if (apic_has_x2apic()) {
        test_skip("IDs are not aliased where x2APIC is offered");
        return;
    }
    cpu_run(two, write_id, one->apic_id);
    apic_icr(ICR_FIXED | ICR_ASSERT | 0x7f, one->apic_id);
    CHECK(wait_word(&one->received[0x7f], before1 + 1));
    CHECK(wait_word(&two->received[0x7f], before2 + 1));
    cpu_run_async(two, write_id, two->apic_id);
    apic_icr(ICR_OTHERS | ICR_ASSERT | VEC_PING, 0); /* no ID is its own */
    CHECK(cpu_join(two));
}

static void lowest_priority(void)
{
    struct cpu *zero = cpu_table[0], *one = cpu_table[1];
    uint32_t dest = apic_logical_id(0) | apic_logical_id(1);

    for (uint8_t v = 0x80; v < 0x90; v++) {
        uint32_t before0 = zero->received[v], before1 = one->received[v], sum = 0;

        apic_icr(ICR_LOWEST | ICR_LOGICAL | ICR_ASSERT | v, dest);
        for (uint32_t i = 0; i < 1000 && !sum; i++) {
            irq_window();
            sum = zero->received[v] - before0 + one->received[v] - before1;
        }
        cpu_settle();
        irq_window();
        CHECK_EQ(zero->received[v] - before0 + one->received[v] - before1, 1);
    }
}

static void level_deassert(void)
{
    begin(0x91);
    apic_icr(ICR_FIXED | ICR_LEVEL | 0x91, this_cpu()->apic_id);
    finish();
}

static void level_assert(void)
{
    begin(0x92);
    want[0] = 1;
    apic_icr(ICR_FIXED | ICR_LEVEL | ICR_ASSERT | 0x92, this_cpu()->apic_id);
    finish();
    begin(0x92);
    want[0] = 1;
    apic_self(0x92);
    CHECK(!apic_tmr(0x92));
    finish();
}

static void wait_for_nmi(uint64_t count)
{
    CHECK(wait_word(&this_cpu()->received[VEC_NMI], (uint32_t)count));
}

/* Taken with IF=0; the vector field means nothing. */
static void nmi_each(void)
{
    for (uint32_t i = 1; i < cpu_count; i++) {
        struct cpu *c = cpu_table[i];
        uint32_t before = c->received[VEC_NMI];

        cpu_run_async(c, wait_for_nmi, before + 1);
        apic_icr(ICR_NMI | ICR_ASSERT | 0x93, c->apic_id);
        CHECK(cpu_join(c));
        CHECK_EQ(c->received[VEC_NMI], before + 1);
    }
}

static void nmi_self(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[VEC_NMI];

    apic_icr(ICR_NMI | ICR_ASSERT, me->apic_id);
    CHECK(wait_word(&me->received[VEC_NMI], before + 1));
    irq_window();
    CHECK_EQ(me->received[VEC_NMI], before + 1);
}

static volatile uint32_t nmi_runs;

/* The first run sends itself ten more: they merge into one, taken after this handler's IRET. */
static void burst_inside(struct irq_frame *f)
{
    (void)f;
    if (++nmi_runs > 1)
        return;
    for (unsigned i = 0; i < NMI_BURST; i++)
        apic_icr(ICR_NMI | ICR_ASSERT, this_cpu()->apic_id);
    spin(100);
    CHECK_EQ(nmi_runs, 1);
}

static void nmi_pends_once(void)
{
    nmi_runs = 0;
    irq_set(VEC_NMI, burst_inside);
    apic_icr(ICR_NMI | ICR_ASSERT, this_cpu()->apic_id);
    CHECK(wait_word(&nmi_runs, 2));
    irq_window();
    CHECK_EQ(nmi_runs, 2);
}

static void sleep_once(uint64_t vector)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[vector];

    me->scratch = 1;
    while (me->received[vector] == before)
        sti_hlt_cli();
    CHECK_EQ(me->received[vector], before + 1);
}

static void halted(void)
{
    for (uint32_t i = 1; i < cpu_count; i++) {
        struct cpu *c = cpu_table[i];

        c->scratch = 0;
        cpu_run_async(c, sleep_once, 0x94);
        CHECK(wait_word(&c->scratch, 1));
        spin(1000); /* mostly enough for it to sleep; either way it must wake */
        apic_icr(ICR_FIXED | ICR_ASSERT | 0x94, c->apic_id);
        CHECK(cpu_join(c));
    }
}

static void send_to_all(uint64_t vector)
{
    for (uint32_t i = 0; i < cpu_count; i++)
        apic_icr(ICR_FIXED | ICR_ASSERT | (uint32_t)vector, cpu_table[i]->apic_id);
}

/* Every sender, not just the first CPU, one after the other. */
static void from_each(void)
{
    uint32_t senders = cpu_count < 8 ? cpu_count : 8;

    for (uint32_t s = 0; s < senders; s++) {
        begin((uint8_t)(0xa0 + s));
        want_all(1);
        if (s == 0)
            send_to_all(0xa0);
        else
            CHECK(cpu_run(cpu_table[s], send_to_all, 0xa0 + s));
        finish();
    }
}

const struct test ipi_tests[] = {
    {"ipi-self-forms", "[SDM3 12.6.1]", self_forms, 0, 0},
    {"ipi-self-msr-keeps-icr", "[SDM3 12.12.11]", self_msr_keeps_icr, NEED_X2APIC, 0},
    {"ipi-physical-each", "[SDM3 12.6.2.1]", physical_each, 0, 0},
    {"ipi-broadcasts", "[SDM3 12.6.2.3] [SDM3 12.12.9]", broadcasts, 0, 0},
    {"ipi-absent", "[SDM3 12.6.1]", absent, 0, 0},
    {"ipi-from-each", "[SDM3 12.6.2.1]", from_each, 0, 0},
    {"ipi-flat-logical", "[SDM3 12.6.2.2]", flat_logical, RUN_XAPIC, 0},
    {"ipi-x2apic-logical", "[SDM3 12.12.10.1]", x2apic_logical, RUN_X2APIC, 0},
    {"ipi-xapic-cluster", "[SDM3 12.6.2.2]", xapic_cluster, RUN_XAPIC, REF_QEMU},
    {"ipi-equal-ldr", "[SDM3 12.6.2.2]", equal_ldr, RUN_XAPIC, 0},
    {"ipi-mixed-dfr", "[SDM3 12.6.2.2]", mixed_dfr, RUN_XAPIC | NEED_3_CPUS, 0},
    {"ipi-aliased-id", "[SDM3 12.4.6]", aliased_id, RUN_XAPIC | NEED_3_CPUS, REF_QEMU},
    {"ipi-lowest-priority", "[SDM3 12.6.2.4]", lowest_priority, NEED_2_CPUS, 0},
    {"ipi-level-deassert", "[SDM3 12.6.1]", level_deassert, 0, REF_QEMU},
    {"ipi-level-assert", "[SDM3 12.6.1] [APM2 16.5]", level_assert, 0, REF_STALE_TMR},
    {"ipi-nmi-each", "[SDM3 7.7]", nmi_each, NEED_2_CPUS, 0},
    {"ipi-nmi-self", "[SDM3 7.7]", nmi_self, 0, 0},
    {"ipi-nmi-pends-once", "[SDM3 7.7.1]", nmi_pends_once, 0, 0},
    {"ipi-halted", "[SDM3 12.8.4]", halted, NEED_2_CPUS, 0},
    {0},
};
