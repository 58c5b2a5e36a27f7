/* SPDX-License-Identifier: MIT */
/* The fixture of nested tests itself: does the world of three levels run at all, and do its checks
 * notice what they are for? */
#include "nested_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IPI (APIC_DM_FIXED | APIC_ICR_ASSERT)

/* ---- Everybody runs, and hears of everything once ---- */

struct world {
    const char *name;
    struct nx_options options;
};

static const struct world worlds[] = {
    {"AMD, nothing", {.kind = VAPIC_ACCEL_AVIC}},
    {"AMD, nothing, view",
     {.kind = VAPIC_ACCEL_AVIC, .offered = VAPIC_NESTED_AVIC, .features = VAPIC_ACCEL_IPIV}},
    {"AMD, nothing, HLT inside", {.kind = VAPIC_ACCEL_AVIC, .hlt_inside = true}},
    {"AMD, nothing, HLT inside, view",
     {.kind = VAPIC_ACCEL_AVIC, .offered = VAPIC_NESTED_AVIC, .hlt_inside = true}},
    {"AMD, AVIC, dummy",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_AVIC,
      .l2 = NX_L2_AVIC}},
    {"AMD, AVIC, shadow",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_AVIC,
      .vcpus = 4}},
    {"AMD, AVIC, shadow, HLT inside",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_AVIC,
      .hlt_inside = true}},
    {"AMD, AVIC, L1 not accelerated",
     {.kind = VAPIC_ACCEL_AVIC,
      .disabled = true,
      .offered = VAPIC_NESTED_AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_AVIC}},
    {"AMD, x2AVIC, shadow, L1 in x2APIC mode",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
      .l1_x2apic = true,
      .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_X2AVIC}},
    {"AMD, x2AVIC, dummy",
     {.kind = VAPIC_ACCEL_AVIC,
      .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
      .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC,
      .l2 = NX_L2_X2AVIC,
      .vcpus = 3}},
    {"Intel, nothing", {.kind = VAPIC_ACCEL_APICV}},
    {"Intel, nothing, view", {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV}},
    {"Intel, nothing, HLT inside", {.kind = VAPIC_ACCEL_APICV, .hlt_inside = true}},
    {"Intel, nothing, HLT inside, view, no acknowledge",
     {.kind = VAPIC_ACCEL_APICV,
      .offered = VAPIC_NESTED_APICV,
      .hlt_inside = true,
      .no_ack = true}},
    {"Intel, APICv", {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV, .l2 = NX_L2_APICV}},
    {"Intel, APICv, no acknowledge, L1 not accelerated",
     {.kind = VAPIC_ACCEL_APICV,
      .disabled = true,
      .offered = VAPIC_NESTED_APICV,
      .l2 = NX_L2_APICV,
      .no_ack = true}},
    {"Intel, posted",
     {.kind = VAPIC_ACCEL_APICV,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED,
      .l2 = NX_L2_POSTED}},
    {"Intel, posted, HLT inside, x2APIC",
     {.kind = VAPIC_ACCEL_APICV,
      .l1_x2apic = true,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED,
      .l2 = NX_L2_POSTED,
      .l2_x2apic = true,
      .hlt_inside = true,
      .vcpus = 4}},
    {"Intel, IPIv, dummy",
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
      .l2 = NX_L2_IPIV}},
    {"Intel, IPIv, shadow",
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_IPIV,
      .vcpus = 4}},
    {"Intel, IPIv, shadow, HLT inside, x2APIC",
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .l1_x2apic = true,
      .offered = VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV,
      .strategy = VAPIC_NESTED_SHADOW,
      .l2 = NX_L2_IPIV,
      .l2_x2apic = true,
      .hlt_inside = true}},
};

static void exchange(struct nx *nx, uint32_t from, uint32_t to, uint8_t vector)
{
    nx_l2_ipi(nx, from, IPI | vector, to);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, to, vector), 1);
    nx_l2_eoi(nx, to);
    assert_false(nx_l2_bit(nx, to, APIC_ISR, vector));
}

/* IPIs both ways, L1's devices and L0's, self IPI, TPR. */
static void talk(struct nx *nx)
{
    exchange(nx, 0, 1, 0x51);
    exchange(nx, 1, 0, 0x52);
    exchange(nx, 0, 0, 0x53);
    assert_true(nx_l2_interrupt(nx, nx_spare(nx), 1, 0x61, false));
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x61), 1);
    nx_l2_eoi(nx, 1);
    assert_true(nx_l1_interrupt(nx, 0, 0x71));
    assert_true(nx_l1_interrupt(nx, nx_spare(nx), 0x72));
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x71), 1);
    assert_int_equal(nx_l1_delivered(nx, nx_spare(nx), 0x72), 1);
    nx_l1_ipi(nx, nx_spare(nx), IPI | 0x74, vapic_id(&nx->l1[0]->apic));
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x74), 1);
    assert_true(nx_in_l2(nx, 0));
    nx_l2_write_cr8(nx, 1, 6);
    nx_l2_ipi(nx, 0, IPI | 0x54, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x54), 0);
    nx_l2_write_cr8(nx, 1, 0);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x54), 1);
    nx_l2_eoi(nx, 1);
}

/* HLT ends with an IPI, with a device's interrupt, and not with one of L1's. */
static void sleep_and_wake(struct nx *nx)
{
    struct nx_op read = {NX_CR8, false, 0, 0, 0};

    nx_l2_hlt(nx, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_execute(nx, 1, &read), NX_STUCK);
    nx_l1_interrupt(nx, 1, 0x73);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 1, 0x73), 1);
    exchange(nx, 0, 1, 0x55);
    assert_int_equal(nx_l2_execute(nx, 1, &read), NX_DONE);
    nx_l2_hlt(nx, 1);
    nx_settle(nx);
    assert_true(nx_l2_interrupt(nx, nx_spare(nx), 1, 0x62, false));
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x62), 1);
    nx_l2_eoi(nx, 1);
}

/* Either scheduler takes a vCPU away, and brings it back somewhere else. */
static void schedule(struct nx *nx)
{
    nx_deschedule(nx, 1);
    nx_l2_ipi(nx, 0, IPI | 0x56, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x56), 0);
    nx_schedule(nx, 1, nx->cpu_count - 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x56), 1);
    nx_l2_eoi(nx, 1);
    nx_l1_deschedule(nx, 1);
    nx_l2_ipi(nx, 0, IPI | 0x57, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x57), 0);
    nx_l1_schedule(nx, 1, nx_spare(nx));
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x57), 1);
    nx_l2_eoi(nx, 1);
    exchange(nx, 0, 1, 0x58);
    exchange(nx, 1, 0, 0x59);
}

static void toggle(struct nx *nx)
{
    nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, true);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5A);
    nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, false);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5B);
    nx_l1_toggle_inhibit(nx, 0, VAPIC_INHIBIT_BLOCKIRQ, true);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5C);
    nx_l1_toggle_inhibit(nx, 0, VAPIC_INHIBIT_BLOCKIRQ, false);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5D);
}

static void restore(struct nx *nx)
{
    nx_save_restore(nx, 0);
    nx_settle(nx);
    exchange(nx, 0, 1, 0x5E);
    exchange(nx, 1, 0, 0x5F);
}

/* Back in L1 the vCPU is accelerated as if it had never been in L2. */
static void come_back(struct nx *nx)
{
    for (uint32_t n = 0; n < nx->l1_count; n++) {
        assert_true(nx_l1_take(nx, n));
        nx_l1_read(nx, n, APIC_LVR);
        assert_int_equal(vapic_active(&nx->l1[n]->apic), !nx->options.disabled);
    }
    nx_settle(nx);
}

static void test_worlds(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++) {
        struct nx *nx = nx_new(&worlds[i].options);

        print_message("# %s\n", worlds[i].name);
        assert_true(nx_in_l2(nx, 0));
        assert_true(nx_in_l2(nx, 1));
        assert_false(nx_in_l2(nx, nx_spare(nx)));
        talk(nx);
        sleep_and_wake(nx);
        schedule(nx);
        toggle(nx);
        restore(nx);
        come_back(nx);
        nx_free(nx);
    }
}

/* ---- What an IPI of L2 costs ---- */

#define AMD_AVIC    VAPIC_NESTED_AVIC
#define INTEL_POSTS (VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED)
#define INTEL_ALL   (INTEL_POSTS | VAPIC_NESTED_IPIV)

static void test_cost(void **state)
{
    static const struct {
        struct nx_options options;
        uint32_t exits, reflected; /* of L2 to L0, of these to L1; by sender and target */
    } rows[] = {
        {{.kind = VAPIC_ACCEL_AVIC, .offered = AMD_AVIC, .l2 = NX_L2_AVIC}, 1, 0},
        {{.kind = VAPIC_ACCEL_AVIC,
          .features = VAPIC_ACCEL_IPIV,
          .offered = AMD_AVIC,
          .l2 = NX_L2_AVIC,
          .strategy = VAPIC_NESTED_SHADOW},
         0,
         0},
        {{.kind = VAPIC_ACCEL_APICV, .offered = INTEL_POSTS, .l2 = NX_L2_POSTED}, 1, 1},
        {{.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV, .l2 = NX_L2_APICV}, 2, 2},
        {{.kind = VAPIC_ACCEL_APICV,
          .features = VAPIC_ACCEL_IPIV,
          .offered = INTEL_ALL,
          .l2 = NX_L2_IPIV},
         1,
         0},
        {{.kind = VAPIC_ACCEL_APICV,
          .features = VAPIC_ACCEL_IPIV,
          .offered = INTEL_ALL,
          .l2 = NX_L2_IPIV,
          .strategy = VAPIC_NESTED_SHADOW},
         0,
         0},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nx *nx = nx_new(&rows[i].options);

        nx_l2_ipi(nx, 0, IPI | 0x51, 1);
        nx_forget(nx);
        nx_l2_ipi(nx, 0, IPI | 0x61, 1);
        nx_settle(nx);
        assert_int_equal(nx_l2_delivered(nx, 1, 0x61), 1);
        assert_int_equal(nx_exits(nx, NX_ANY, NX_ANY_CODE, true), rows[i].exits);
        assert_int_equal(nx_reflected(nx, NX_ANY, NX_ANY_CODE), rows[i].reflected);
        nx_free(nx);
    }
}

/* ---- The same stream in worlds that differ in what costs exits, and in nothing else ---- */

#define WORLDS  8u
#define VCPUS   3u
#define HISTORY 64u

struct many {
    struct nx *nx[WORLDS];
    uint32_t count;
    uint64_t random;
};

static uint32_t draw(struct many *m, uint32_t below)
{
    m->random = m->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(m->random >> 33) % below;
}

/* Everything that went through somebody's IDT, per vCPU in order. */
static uint32_t history(const struct nx *nx, bool l2, uint32_t n, uint8_t vectors[HISTORY])
{
    enum nx_kind kind = l2 ? NX_L2_DELIVERED : NX_L1_DELIVERED;
    uint32_t count = 0;

    for (uint32_t i = 0; i < nx->logged; i++)
        if (nx->log[i].kind == kind && nx->log[i].n == n) {
            assert_true(count < HISTORY);
            vectors[count++] = (uint8_t)nx->log[i].a;
        }
    return count;
}

static void compare_histories(struct many *m, uint32_t w, bool l2, uint32_t n, const char *what)
{
    uint8_t expected[HISTORY], seen[HISTORY];
    uint32_t count = history(m->nx[0], l2, n, expected), more = history(m->nx[w], l2, n, seen);

    if (count == more && memcmp(expected, seen, count) == 0)
        return;
    fail_msg("%s: L%d's vCPU %u in world %u: %u vectors (first %02x), not %u (first %02x)", what,
             l2 ? 2 : 1, n, w, more, more != 0 ? seen[0] : 0, count, count != 0 ? expected[0] : 0);
}

static void compare_words(struct many *m, uint32_t w, uint32_t n, uint32_t offset, const char *what)
{
    uint32_t expected = nx_l2_page(m->nx[0], n, offset), seen = nx_l2_page(m->nx[w], n, offset);

    if (expected != seen)
        fail_msg("%s: L2's vCPU %u in world %u: %03x is %08x, not %08x", what, n, w, offset, seen,
                 expected);
}

static void compare_worlds(struct many *m, const char *what)
{
    for (uint32_t w = 1; w < m->count; w++) {
        for (uint32_t n = 0; n < VCPUS; n++) {
            compare_histories(m, w, true, n, what);
            compare_histories(m, w, false, n, what);
            for (uint32_t i = 0; i < 8; i++)
                compare_words(m, w, n, APIC_ISR + 16 * i, what);
            compare_words(m, w, n, APIC_TPR, what);
        }
    }
    for (uint32_t w = 0; w < m->count; w++)
        nx_forget(m->nx[w]);
}

struct step {
    uint32_t kind, a, b, value, icr;
    bool flag;
};

static const char *const step_names[] = {
    "IPI",     "IPI",           "EOI",     "EOI",  "EOI",    "CR8",
    "HLT",     "device",        "IF",      "L1's", "move",   "move by L1",
    "inhibit", "inhibit by L1", "restore", "swap", "memory", "MSI of all",
};

static void do_write(struct nx *nx, uint32_t l2, uint32_t offset, uint64_t value)
{
    enum nx_result result = nx_l2_try_write(nx, l2, offset, value);

    assert_true(result == NX_DONE || result == NX_STUCK);
}

static void do_ipi(struct nx *nx, const struct step *s)
{
    struct nx_op look = {NX_CR8, false, 0, 0, 0};

    if (nx_l2_execute(nx, s->a, &look) == NX_DONE)
        nx_l2_ipi(nx, s->a, s->icr, vapic_id(&nx->l2[s->b]->apic));
}

static void do_halt(struct nx *nx, const struct step *s)
{
    struct nx_op halt = {NX_HLT, false, 0, 0, 0};

    if (nx->l2[s->a]->guest_if)
        nx_l2_execute(nx, s->a, &halt);
}

/* STI and CLI of a vCPU that executes instructions. */
static void do_if(struct nx *nx, const struct step *s)
{
    struct nx_op look = {NX_CR8, false, 0, 0, 0};

    if (nx_l2_execute(nx, s->a, &look) == NX_DONE)
        nx_l2_if(nx, s->a, s->flag);
}

/* An IPI arrives while the target has no processor. */
static void do_move(struct nx *nx, const struct step *s)
{
    uint32_t l1 = (uint32_t)nx->l2[s->b]->on, cpu = 0;

    nx_deschedule(nx, l1);
    if (s->b != s->a)
        do_ipi(nx, s);
    nx_settle(nx);
    for (uint32_t n = 0; n < nx->l1_count; n++)
        for (uint32_t i = 0; i < nx->l1_count; i++)
            cpu += nx->l1[i]->cpu == &nx->cpus[cpu];
    nx_schedule(nx, l1, cpu);
}

static void do_l1_move(struct nx *nx, const struct step *s)
{
    uint32_t from = (uint32_t)nx->l2[s->b]->on, to = from;

    nx_l1_deschedule(nx, s->b);
    if (s->b != s->a)
        do_ipi(nx, s);
    nx_settle(nx);
    for (uint32_t n = 0; n < nx->l1_count; n++)
        if (nx->l1[n]->runs < 0 && n != from && s->flag)
            to = n;
    nx_l1_schedule(nx, s->b, to);
}

/* User space takes a page away and puts it back: L2's registers, or L1's tables. */
static void do_memory(struct nx *nx, const struct step *s)
{
    uint64_t page = nx_gpa(nx, nx->l2[s->b]->page);

    if (s->flag && nx->l1_accel != NULL)
        page = nx->l1_accel->physical_hpa;
    nx_unmap(nx, page, 4096);
    nx_settle(nx);
    nx_map(nx, page, 4096);
}

/* Two of L2's change places: where the one was is somebody who does not care. */
static void do_swap(struct nx *nx, const struct step *s)
{
    uint32_t other = (s->b + 1) % VCPUS;
    uint32_t first = (uint32_t)nx->l2[s->b]->on, second = (uint32_t)nx->l2[other]->on;

    nx_l1_deschedule(nx, s->b);
    nx_l1_deschedule(nx, other);
    nx_l1_schedule(nx, s->b, second);
    nx_l1_schedule(nx, other, first);
}

/* A vCPU of L1 on which no L2 runs: all of L1's devices are there. */
static uint32_t idle_l1(const struct nx *nx)
{
    for (uint32_t n = 0; n < nx->l1_count; n++)
        if (nx->l1[n]->runs < 0)
            return n;
    return 0;
}

static void do_step(struct nx *nx, const struct step *s)
{
    switch (s->kind) {
    case 0:
    case 1:
        do_ipi(nx, s);
        break;
    case 2:
    case 3:
    case 4:
        do_write(nx, s->a, APIC_EOI, 0);
        break;
    case 5:
        nx_l2_execute(nx, s->a, &(struct nx_op){NX_CR8, true, 0, 0, s->value % 13});
        break;
    case 6:
        do_halt(nx, s);
        break;
    case 7:
        nx_l2_interrupt(nx, idle_l1(nx), s->b, (uint8_t)s->icr, s->flag);
        break;
    case 8:
        do_if(nx, s);
        break;
    case 9:
        nx_l1_interrupt(nx, (uint32_t)nx->l2[s->b]->on, (uint8_t)(0x30 + s->value % 0xA0));
        break;
    case 10:
        do_move(nx, s);
        break;
    case 11:
        do_l1_move(nx, s);
        break;
    case 12:
        nx_toggle_inhibit(nx, VAPIC_INHIBIT_BLOCKIRQ, s->flag);
        break;
    case 13:
        nx_l1_toggle_inhibit(nx, idle_l1(nx), VAPIC_INHIBIT_BLOCKIRQ, s->flag);
        break;
    case 14:
        nx_save_restore(nx, s->b);
        break;
    case 15:
        do_swap(nx, s);
        break;
    case 16:
        do_memory(nx, s);
        break;
    default:
        for (uint32_t n = 0; n < VCPUS; n++)
            nx_l2_interrupt(nx, idle_l1(nx), n, 0xE8, false);
        break;
    }
    nx_settle(nx);
}

static struct step any_step(struct many *m)
{
    static const uint32_t shorthands[] = {0, 0, 0, APIC_ICR_SELF, APIC_ICR_ALL_EXCL, 1u << 19};
    uint32_t names = sizeof(step_names) / sizeof(step_names[0]);
    struct step s = {.kind = draw(m, names),
                     .a = draw(m, VCPUS),
                     .b = draw(m, VCPUS),
                     .value = draw(m, 256),
                     .flag = draw(m, 2) != 0};

    s.icr = IPI | (0x30 + draw(m, 0xB0)) | shorthands[draw(m, 6)];
    return s;
}

static const uint32_t odd_ids[] = {6, 1, 4, 0, 7};

static void run_many(struct many *m, const struct nx_options *options, uint32_t count,
                     uint64_t seed, uint32_t steps)
{
    char what[64];

    m->random = seed;
    m->count = count;
    for (uint32_t w = 0; w < count; w++) {
        struct nx_options o = options[w];

        o.l1_ids = seed & 1 ? odd_ids : NULL;
        o.l2_ids = seed & 2 ? odd_ids + 1 : NULL;
        m->nx[w] = nx_new(&o);
    }
    for (uint32_t i = 0; i < steps; i++) {
        struct step s = any_step(m);

        snprintf(what, sizeof(what), "seed %llu, step %u (%s)", (unsigned long long)seed, i,
                 step_names[s.kind]);
        for (uint32_t w = 0; w < count; w++)
            do_step(m->nx[w], &s);
        compare_worlds(m, what);
    }
    for (uint32_t w = 0; w < count; w++)
        nx_free(m->nx[w]);
}

#define SEEDS 6u /* or NESTED_SEEDS in the environment */
#define STEPS 150u

static void run_seeds(const struct nx_options *options, uint32_t count)
{
    const char *more = getenv("NESTED_SEEDS");
    uint64_t seeds = more != NULL ? strtoull(more, NULL, 10) : SEEDS;
    struct many m = {0};

    for (uint64_t seed = 1; seed <= seeds; seed++)
        run_many(&m, options, count, seed, STEPS);
}

static void test_stream_avic(void **state)
{
    static const struct nx_options worlds_of[] = {
        {.kind = VAPIC_ACCEL_AVIC, .vcpus = VCPUS},
        {.kind = VAPIC_ACCEL_AVIC, .vcpus = VCPUS, .offered = AMD_AVIC},
        {.kind = VAPIC_ACCEL_AVIC, .vcpus = VCPUS, .offered = AMD_AVIC, .l2 = NX_L2_AVIC},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = VAPIC_ACCEL_IPIV,
         .vcpus = VCPUS,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .strategy = VAPIC_NESTED_SHADOW},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = VAPIC_ACCEL_IPIV,
         .vcpus = VCPUS,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .strategy = VAPIC_NESTED_SHADOW,
         .hlt_inside = true},
        {.kind = VAPIC_ACCEL_AVIC,
         .disabled = true,
         .vcpus = VCPUS,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .strategy = VAPIC_NESTED_SHADOW,
         .restore_by_view = true},
    };

    (void)state;
    run_seeds(worlds_of, sizeof(worlds_of) / sizeof(worlds_of[0]));
}

#define X2_FEATURES (VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC)
#define X2_OFFERED  (VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC)

static void test_stream_x2avic(void **state)
{
    static const struct nx_options worlds_of[] = {
        {.kind = VAPIC_ACCEL_AVIC, .features = X2_FEATURES, .vcpus = VCPUS, .l2_x2apic = true},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = X2_FEATURES,
         .vcpus = VCPUS,
         .offered = X2_OFFERED,
         .l2 = NX_L2_X2AVIC},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = X2_FEATURES,
         .vcpus = VCPUS,
         .l1_x2apic = true,
         .offered = X2_OFFERED,
         .l2 = NX_L2_X2AVIC,
         .strategy = VAPIC_NESTED_SHADOW},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = X2_FEATURES,
         .vcpus = VCPUS,
         .offered = X2_OFFERED,
         .l2 = NX_L2_AVIC, /* hybrid in L1's hands */
         .l2_x2apic = true,
         .strategy = VAPIC_NESTED_SHADOW,
         .hlt_inside = true},
    };

    (void)state;
    run_seeds(worlds_of, sizeof(worlds_of) / sizeof(worlds_of[0]));
}

static void intel_worlds(struct nx_options worlds_of[WORLDS], bool x2)
{
    static const struct nx_options all[WORLDS] = {
        {.kind = VAPIC_ACCEL_APICV},
        {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV, .no_ack = true},
        {.kind = VAPIC_ACCEL_APICV, .offered = VAPIC_NESTED_APICV, .l2 = NX_L2_APICV},
        {.kind = VAPIC_ACCEL_APICV, .offered = INTEL_POSTS, .l2 = NX_L2_POSTED},
        {.kind = VAPIC_ACCEL_APICV,
         .disabled = true,
         .offered = INTEL_POSTS,
         .l2 = NX_L2_POSTED,
         .hlt_inside = true,
         .restore_by_view = true},
        {.kind = VAPIC_ACCEL_APICV,
         .features = VAPIC_ACCEL_IPIV,
         .offered = INTEL_ALL,
         .l2 = NX_L2_IPIV},
        {.kind = VAPIC_ACCEL_APICV,
         .features = VAPIC_ACCEL_IPIV,
         .offered = INTEL_ALL,
         .l2 = NX_L2_IPIV,
         .strategy = VAPIC_NESTED_SHADOW},
        {.kind = VAPIC_ACCEL_APICV,
         .features = VAPIC_ACCEL_IPIV,
         .offered = INTEL_ALL,
         .l2 = NX_L2_IPIV,
         .strategy = VAPIC_NESTED_SHADOW,
         .hlt_inside = true},
    };

    for (uint32_t i = 0; i < WORLDS; i++) {
        worlds_of[i] = all[i];
        worlds_of[i].vcpus = VCPUS;
        worlds_of[i].l1_x2apic = worlds_of[i].l2_x2apic = x2;
    }
}

static void test_stream_intel(void **state)
{
    struct nx_options worlds_of[WORLDS];

    (void)state;
    for (int x2 = 0; x2 < 2; x2++) {
        intel_worlds(worlds_of, x2 != 0);
        run_seeds(worlds_of, WORLDS);
    }
}

/* ---- Something happens to the target in the middle of an IPI ---- */

enum { MEET_RUN, MEET_HALT, MEET_PUT, MEET_MOVE, MEET_L1_PUT, MEET_L1_MOVE, MEET_INTERRUPT, MEETS };

struct meeting {
    enum vapic_sil_point point;
    uint32_t what;
    bool met;
};

static void meet(struct nx *nx, uint32_t what)
{
    uint32_t l1 = (uint32_t)nx->l2[1]->on;

    switch (what) {
    case MEET_RUN:
        nx_run(nx, l1);
        break;
    case MEET_HALT:
        nx_l2_hlt(nx, 1);
        nx_run(nx, l1);
        break;
    case MEET_PUT:
    case MEET_MOVE:
        nx_deschedule(nx, l1);
        if (what == MEET_MOVE)
            nx_schedule(nx, l1, nx->cpu_count - 1);
        break;
    case MEET_L1_PUT:
    case MEET_L1_MOVE:
        nx_l1_deschedule(nx, 1);
        if (what == MEET_L1_MOVE)
            nx_l1_schedule(nx, 1, nx_spare(nx));
        break;
    default:
        nx_l1_interrupt(nx, l1, 0x71);
        nx_run(nx, l1);
        break;
    }
}

static void at_point(struct nx *nx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct meeting *m = nx->user;

    if (m->met || point != m->point || cpu != nx->l1[0]->cpu)
        return;
    m->met = true;
    meet(nx, m->what);
}

static void run_meeting(const struct nx_options *options, enum vapic_sil_point point, uint32_t what)
{
    struct nx *nx = nx_new(options);
    struct meeting m = {.point = point, .what = what};

    nx->user = &m;
    nx->on_point = at_point;
    nx_l2_ipi(nx, 0, IPI | 0x51, 1);
    nx->on_point = NULL;
    nx_settle(nx);
    if (m.met && what == MEET_PUT)
        nx_schedule(nx, (uint32_t)nx->l2[1]->on, nx->cpu_count - 1);
    if (m.met && what == MEET_L1_PUT)
        nx_l1_schedule(nx, 1, nx_spare(nx));
    nx_settle(nx);
    if (nx_l2_delivered(nx, 1, 0x51) != 1)
        fail_msg("point %d, event %u: delivered %u times", (int)point, what,
                 nx_l2_delivered(nx, 1, 0x51));
    assert_int_equal(nx_l1_delivered(nx, NX_ANY, 0x71), m.met && what == MEET_INTERRUPT);
    nx_l2_eoi(nx, 1);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x51), 1);
    nx_free(nx);
}

static void test_meetings(void **state)
{
    static const struct nx_options of[] = {
        {.kind = VAPIC_ACCEL_AVIC,
         .features = VAPIC_ACCEL_IPIV,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .strategy = VAPIC_NESTED_SHADOW},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = VAPIC_ACCEL_IPIV,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .strategy = VAPIC_NESTED_SHADOW,
         .hlt_inside = true},
        {.kind = VAPIC_ACCEL_AVIC,
         .features = VAPIC_ACCEL_IPIV,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .hlt_inside = true},
        {.kind = VAPIC_ACCEL_APICV,
         .features = VAPIC_ACCEL_IPIV,
         .offered = INTEL_ALL,
         .l2 = NX_L2_IPIV,
         .strategy = VAPIC_NESTED_SHADOW},
        {.kind = VAPIC_ACCEL_APICV,
         .features = VAPIC_ACCEL_IPIV,
         .offered = INTEL_ALL,
         .l2 = NX_L2_IPIV,
         .strategy = VAPIC_NESTED_SHADOW,
         .hlt_inside = true},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
        for (uint32_t point = 0; point < VAPIC_SIL_POINTS; point++)
            for (uint32_t what = 0; what < MEETS; what++)
                run_meeting(&of[i], (enum vapic_sil_point)point, what);
}

/* An interrupt of L1's that ends no HLT of L2: Intel has an activity state in vmcs12, and L2 sleeps
 * on. */
static void test_activity(void **state)
{
    struct nx *nx = nx_new(&(struct nx_options){
        .kind = VAPIC_ACCEL_APICV, .offered = INTEL_POSTS, .l2 = NX_L2_POSTED, .hlt_inside = true});

    (void)state;
    nx_l2_hlt(nx, 1);
    nx_settle(nx);
    nx_l1_interrupt(nx, 1, 0x71);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 1, 0x71), 1);
    assert_int_equal(nx_exits(nx, 1, VMX_EXIT_HLT, true), 1);
    assert_true(nx_in_l2(nx, 1));
    assert_true(nx->l1[1]->blocked);
    nx_save_restore(nx, 1);
    nx_settle(nx);
    assert_true(nx->l1[1]->blocked);
    nx_l2_interrupt(nx, nx_spare(nx), 1, 0x61, false);
    nx_settle(nx);
    assert_int_equal(nx_l2_delivered(nx, 1, 0x61), 1);
    assert_int_equal(nx_exits(nx, 1, VMX_EXIT_HLT, true), 1);
    assert_false(nx->l1[1]->blocked);
    nx_free(nx);
}

/* ---- L1's memory goes away ---- */

static void test_memory_goes(void **state)
{
    static const struct nx_options of[] = {
        {.kind = VAPIC_ACCEL_AVIC,
         .features = VAPIC_ACCEL_IPIV,
         .offered = AMD_AVIC,
         .l2 = NX_L2_AVIC,
         .strategy = VAPIC_NESTED_SHADOW},
        {.kind = VAPIC_ACCEL_AVIC, .offered = AMD_AVIC, .l2 = NX_L2_AVIC, .hlt_inside = true},
        {.kind = VAPIC_ACCEL_APICV, .offered = INTEL_POSTS, .l2 = NX_L2_POSTED},
        {.kind = VAPIC_ACCEL_APICV,
         .features = VAPIC_ACCEL_IPIV,
         .offered = INTEL_ALL,
         .l2 = NX_L2_IPIV,
         .strategy = VAPIC_NESTED_SHADOW},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        struct nx *nx = nx_new(&of[i]);
        uint64_t page = nx_gpa(nx, nx->l2[1]->page);

        nx_unmap(nx, page, 4096);
        nx_settle(nx);
        assert_int_equal(nx_count(nx, NX_STOP), 1);
        assert_true(nx->l1[1]->stopped);
        assert_int_equal(nx_l2_read(nx, 0, APIC_ID) >> 24, 0); /* the other one goes on */
        nx_map(nx, page, 4096);
        nx_settle(nx);
        exchange(nx, 0, 1, 0x51);
        exchange(nx, 1, 0, 0x52);
        nx_free(nx);
    }
}

/* ---- L1's interrupts inside of L2 ---- */

/* Where L1 does not intercept them they are injected, when L2's IF lets them. */
static void interrupt_inside(enum vapic_accel_kind kind, uint32_t offered)
{
    struct nx *nx = nx_new(&(struct nx_options){.kind = kind,
                                                .offered = offered,
                                                .intr_inside = true,
                                                .hlt_inside = true,
                                                .no_v_intr_masking = true});

    nx_l2_if(nx, 0, false);
    nx_l1_interrupt(nx, 0, 0x71);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x71), 0);
    nx_l2_if(nx, 0, true);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x71), 1);
    assert_true(nx_nth(nx, NX_L1_DELIVERED, 0)->l2); /* by L2's IDT */
    assert_int_equal(nx_reflected(nx, 0, NX_ANY_CODE), 0);
    nx_free(nx);
}

static void test_interrupts_inside(void **state)
{
    (void)state;
    interrupt_inside(VAPIC_ACCEL_AVIC, 0);
    interrupt_inside(VAPIC_ACCEL_AVIC, AMD_AVIC);
    interrupt_inside(VAPIC_ACCEL_APICV, 0);
    interrupt_inside(VAPIC_ACCEL_APICV, VAPIC_NESTED_APICV);
}

/* ---- L2 uses L1's APIC ---- */

static void pass_through(const struct nx_options *options)
{
    struct nx *nx = nx_new(options);
    uint32_t spare = nx_spare(nx);

    nx_l2_write_cr8(nx, 0, 5);
    assert_int_equal(nx_l2_read_cr8(nx, 0), 5);
    assert_int_equal(nx_l1_page(nx, 0, APIC_TPR), 0x50);
    assert_int_equal(nx_l2_page(nx, 0, APIC_TPR), 0);
    nx_l2_ipi(nx, 0, IPI | 0x61, vapic_id(&nx->l1[spare]->apic));
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, spare, 0x61), 1);
    nx_l1_interrupt(nx, 0, 0x72);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x72), 1);
    assert_true(nx_l1_bit(nx, 0, APIC_ISR, 0x72));
    nx_l2_eoi(nx, 0); /* V7: L1's */
    assert_false(nx_l1_bit(nx, 0, APIC_ISR, 0x72));
    nx_l1_interrupt(nx, 0, 0x62);
    nx_settle(nx);
    assert_int_equal(nx_l1_delivered(nx, 0, 0x62), 1);
    assert_true(nx_l1_take(nx, 0));
    nx_l1_write(nx, 0, APIC_EOI, 0);
    assert_false(nx_l1_bit(nx, 0, APIC_ISR, 0x62));
    assert_int_equal(nx_l1_read(nx, 0, APIC_TPR), 0x50);
    nx_free(nx);
}

static void test_pass_through(void **state)
{
    static const enum vapic_accel_kind kinds[] = {VAPIC_ACCEL_AVIC, VAPIC_ACCEL_APICV};

    (void)state;
    for (uint32_t i = 0; i < 16; i++) {
        struct nx_options o = {.kind = kinds[i & 1],
                               .features =
                                   kinds[i & 1] == VAPIC_ACCEL_AVIC ? VAPIC_ACCEL_X2AVIC : 0,
                               .l1_x2apic = (i & 2) != 0,
                               .l1_manual_eoi = true,
                               .pass_through = true};

        if (i & 4)
            o.offered = o.kind == VAPIC_ACCEL_AVIC ? VAPIC_NESTED_AVIC : VAPIC_NESTED_APICV;
        o.disabled = (i & 8) != 0;
        pass_through(&o);
    }
}

/* ---- VMRUN and VMLAUNCH that fail ---- */

static void break_amd(struct nx *nx, uint32_t l1, struct nx_l2_vcpu *c)
{
    (void)nx;
    if (l1 == 0)
        c->vmcb[0x090] = 0; /* NP_ENABLE */
}

static void break_intel(struct nx *nx, uint32_t l1, struct nx_l2_vcpu *c)
{
    (void)nx;
    if (l1 == 0)
        vapic_sil_vmwrite(&c->vmcs, VMCS_VIRTUAL_APIC, 0x123);
}

static void test_failure(void **state)
{
    (void)state;
    for (int intel = 0; intel < 2; intel++) {
        struct nx *nx =
            nx_new(&(struct nx_options){.kind = intel ? VAPIC_ACCEL_APICV : VAPIC_ACCEL_AVIC,
                                        .offered = intel ? VAPIC_NESTED_APICV : VAPIC_NESTED_AVIC,
                                        .l2 = intel ? NX_L2_APICV : NX_L2_AVIC});

        nx->on_12 = intel ? break_intel : break_amd;
        assert_true(nx_l1_take(nx, 0));
        nx_settle(nx);
        assert_int_equal(nx_count(nx, NX_FAILED), 1);
        assert_int_equal((int)nx_nth(nx, NX_FAILED, 0)->a, VAPIC_E_CONTROLS);
        assert_false(nx_in_l2(nx, 0));
        nx_l1_interrupt(nx, 0, 0x71); /* L1 goes on */
        nx_settle(nx);
        assert_int_equal(nx_l1_delivered(nx, 0, 0x71), 1);
        nx_free(nx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worlds),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_stream_avic),
        cmocka_unit_test(test_stream_x2avic),
        cmocka_unit_test(test_stream_intel),
        cmocka_unit_test(test_meetings),
        cmocka_unit_test(test_activity),
        cmocka_unit_test(test_memory_goes),
        cmocka_unit_test(test_interrupts_inside),
        cmocka_unit_test(test_pass_through),
        cmocka_unit_test(test_failure),
    };

    return cmocka_run_group_tests_name("nested_fixture", tests, NULL, NULL);
}
