/* SPDX-License-Identifier: MIT */
/*
 * The destination map while it changes: written IDs, mode switches, reboots, sparse and colliding
 * IDs, the largest VM; after every change it has to agree with the rules.
 * [SDM3 12.4.6] [SDM3 12.12.5]
 */
#include "reference.h"

#define VECTOR 0x51
#define BASE   (APIC_DEFAULT_BASE | APIC_BASE_EN)

/* The vCPU that a physical message to `dest` reaches, -1 for none, -2 for several. */
static int who(struct fx *fx, uint32_t dest)
{
    struct vapic_sent sent = vapic_send(
        &fx->vm, (struct vapic_msg){.icr = VECTOR, .dest = dest, .source = VAPIC_FROM_DEVICE});

    for (uint32_t n = 0; n < fx->vcpus; n++)
        fx_take_eoi(fx, n);
    if (sent.accepted > 1)
        return -2;
    return sent.accepted == 1 ? sent.target : -1;
}

static void load_base(struct fx *fx, uint32_t n, uint64_t value)
{
    assert_int_equal(vapic_load_base(&fx->v[n], value), VAPIC_OK);
}

static void init(struct fx *fx, uint32_t n)
{
    vapic_send(&fx->vm, (struct vapic_msg){.icr = APIC_DM_INIT | APIC_ICR_SELF,
                                           .source = vapic_index(&fx->v[n])});
    vapic_send(&fx->vm, (struct vapic_msg){.icr = APIC_DM_SIPI | APIC_ICR_SELF,
                                           .source = vapic_index(&fx->v[n])});
    fx_settle(fx);
    fx_set(fx, n, APIC_SVR, 0x1FF);
}

/* ---- One vCPU with ID 5 through its life ---- */

static struct fx *one(void)
{
    return fx_new(&(struct fx_options){.ids = (uint32_t[]){5}});
}

static struct fx *one_with_written_id(void)
{
    struct fx *fx = one();

    fx_write(fx, 0, APIC_ID, 0x09000000);
    return fx;
}

static void written_id(void **state)
{
    struct fx *fx = one_with_written_id();

    (void)state;
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x09000000);
    assert_int_equal(who(fx, 9), 0);
    assert_int_equal(who(fx, 5), -1);
    fx_free(fx);
}

static void written_id_survives_init(void **state)
{
    struct fx *fx = one_with_written_id();

    (void)state;
    init(fx, 0);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x09000000);
    assert_int_equal(who(fx, 9), 0);
    assert_int_equal(who(fx, 5), -1);
    fx_free(fx);
}

static void reset_restores_the_id(void **state)
{
    struct fx *fx = one_with_written_id();

    (void)state;
    vapic_reset(&fx->v[0]);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    assert_int_equal(who(fx, 5), 0);
    assert_int_equal(who(fx, 9), -1);
    fx_free(fx);
}

static void off_and_on_restores_the_id(void **state)
{
    struct fx *fx = one_with_written_id();
    uint64_t base = vapic_base(&fx->v[0]);

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base & ~(uint64_t)APIC_BASE_EN), VAPIC_OK);
    assert_int_equal(who(fx, 5), -1);
    assert_int_equal(who(fx, 9), -1);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    assert_int_equal(who(fx, 5), 0);
    assert_int_equal(who(fx, 9), -1);
    fx_free(fx);
}

static void x2apic_restores_the_id(void **state)
{
    struct fx *fx = one_with_written_id();
    uint64_t base = vapic_base(&fx->v[0]);

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, base | APIC_BASE_EXTD), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 5);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 1u << 5);
    assert_int_equal(who(fx, 5), 0);
    assert_int_equal(who(fx, 9), -1);
    fx_free(fx);
}

static void reboot_from_x2apic(void **state)
{
    struct fx *fx = one();

    (void)state;
    load_base(fx, 0, BASE | APIC_BASE_EXTD);
    load_base(fx, 0, BASE);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    assert_int_equal(who(fx, 5), 0);
    fx_free(fx);
}

static void wide_id_after_reset(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){257}});

    (void)state;
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x01000000);
    assert_int_equal(who(fx, 257), 0);
    assert_int_equal(who(fx, 1), 0);
    fx_free(fx);
}

static void base_register_moves_do_not_matter(void **state)
{
    struct fx *fx = one();

    (void)state;
    load_base(fx, 0, 0xFED40000u | APIC_BASE_EN);
    assert_int_equal(who(fx, 5), 0);
    fx_free(fx);
}

/* ---- What changes the map, and what must not take the lock ---- */

static const struct {
    const char *name;
    uint32_t offset, value;
    bool changes;
} writes[] = {
    {"ID", APIC_ID, 0x07000000, true},
    {"LDR", APIC_LDR, 0x10000000, true},
    {"DFR", APIC_DFR, 0x0FFFFFFF, true},
    {"SVR enable", APIC_SVR, 0xFF, true},
    {"SVR vector", APIC_SVR, 0x1EF, false},
    {"TPR", APIC_TPR, 0x20, false},
    {"EOI", APIC_EOI, 0, false},
    {"LVT", APIC_LVT_LINT0, 0x31, false},
    {"TMICT", APIC_TMICT, 100, false},
    {"ICR", APIC_ICR, 0x40051, false},
};

static void who_takes_the_lock(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(writes) / sizeof(writes[0]); n++) {
        struct fx *fx = one();

        fx_write(fx, 0, writes[n].offset, writes[n].value);
        fx_equal(fx_count(fx, FX_LOCK) != 0, writes[n].changes, "%s", writes[n].name);
        fx_take_eoi(fx, 0);
        fx_free(fx);
    }
}

/* ---- Unique IDs: x2APIC first, then the lowest index ---- */

static struct fx *unique(uint32_t vcpus, const uint32_t *ids)
{
    return fx_new(&(struct fx_options){
        .vcpus = vcpus,
        .ids = ids,
        .config = {.knobs = VAPIC_PROFILE_MANUAL | VAPIC_KNOB_UNIQUE_ID, .knobs_set = true}});
}

static void unique_lowest_index_wins(void **state)
{
    static const uint32_t ids[] = {0, 3, 0x103, 0x203};
    struct fx *fx = unique(4, ids);

    (void)state;
    assert_int_equal(who(fx, 3), 1);
    fx_write(fx, 1, APIC_ID, 0x11000000);
    assert_int_equal(who(fx, 3), 2);
    assert_int_equal(who(fx, 0x11), 1);
    fx_write(fx, 1, APIC_ID, 0x03000000);
    assert_int_equal(who(fx, 3), 1);
    assert_int_equal(who(fx, 0x103), 2);
    assert_int_equal(who(fx, 0x203), 3);
    fx_free(fx);
}

static void unique_x2apic_wins(void **state)
{
    static const uint32_t ids[] = {0, 0x103, 3};
    struct fx *fx = unique(3, ids);

    (void)state;
    assert_int_equal(who(fx, 3), 1);
    load_base(fx, 2, BASE | APIC_BASE_EXTD);
    assert_int_equal(who(fx, 3), 2);
    load_base(fx, 2, BASE);
    assert_int_equal(who(fx, 3), 1);
    fx_free(fx);
}

static void unique_loser_takes_over(void **state)
{
    static const uint32_t ids[] = {0, 3, 0x103};
    struct fx *fx = unique(3, ids);

    (void)state;
    assert_int_equal(who(fx, 3), 1);
    load_base(fx, 1, APIC_DEFAULT_BASE);
    assert_int_equal(who(fx, 3), 2);
    assert_int_equal(vapic_remove(&fx->v[1]), VAPIC_OK);
    assert_int_equal(who(fx, 3), 2);
    fx_free(fx);
}

/* ---- Sparse IDs: array below the bound, hash above ---- */

static void sparse_ids(void **state)
{
    enum { COUNT = 300 };
    static uint32_t ids[COUNT];

    (void)state;
    for (uint32_t bound = 1; bound <= 65536; bound *= 256) {
        struct fx *fx;

        for (uint32_t n = 0; n < COUNT; n++)
            ids[n] = n * 0x00D1B547u; /* far apart, below and above the bound */
        fx = fx_new(&(struct fx_options){
            .vcpus = COUNT, .ids = ids, .x2apic = true, .config = {.id_bound = bound}});
        for (uint32_t n = 0; n < COUNT; n++) {
            fx_equal((uintptr_t)vapic_by_id(&fx->vm, ids[n]), (uintptr_t)&fx->v[n], "ID %x",
                     ids[n]);
            vapic_send(&fx->vm, (struct vapic_msg){
                                    .icr = VECTOR, .dest = ids[n], .source = VAPIC_FROM_DEVICE});
            fx_equal(fx_take_eoi(fx, n), VECTOR, "ID %x", ids[n]);
        }
        assert_null(vapic_by_id(&fx->vm, 0x12345));
        assert_null(vapic_by_id(&fx->vm, 0xFFFFFFFF));
        fx_free(fx);
    }
}

/* Neighbours in the hash stay findable while others come and go. */
static void hashed_ids_come_and_go(void **state)
{
    enum { COUNT = 64 };
    static uint32_t ids[COUNT];
    struct fx *fx;

    (void)state;
    for (uint32_t n = 0; n < COUNT; n++)
        ids[n] = 0x10000 + n * 0x1000;
    fx = fx_new(&(struct fx_options){
        .vcpus = COUNT, .ids = ids, .x2apic = true, .config = {.id_bound = 1}});
    for (uint32_t step = 1; step < COUNT; step += 7) {
        for (uint32_t n = 0; n < COUNT; n += step)
            assert_int_equal(vapic_remove(&fx->v[n]), VAPIC_OK);
        for (uint32_t n = 0; n < COUNT; n++)
            fx_equal(vapic_by_id(&fx->vm, ids[n]) != NULL, n % step != 0, "ID %x", ids[n]);
        for (uint32_t n = 0; n < COUNT; n += step)
            assert_int_equal(vapic_add(&fx->v[n]), VAPIC_OK);
    }
    for (uint32_t n = 0; n < COUNT; n++)
        fx_equal((uintptr_t)vapic_by_id(&fx->vm, ids[n]), (uintptr_t)&fx->v[n], "ID %x", ids[n]);
    fx_free(fx);
}

/* ---- The largest VM ---- */

static void four_thousand_vcpus(void **state)
{
    struct fx *fx =
        fx_new(&(struct fx_options){.vcpus = VAPIC_MAX_VCPUS, .parked = true, .x2apic = true});
    struct vapic_sent sent;
    bool accepted;

    (void)state;
    for (uint32_t n = 0; n < VAPIC_MAX_VCPUS; n += 331) {
        sent = vapic_send(
            &fx->vm, (struct vapic_msg){.icr = VECTOR, .dest = n, .source = VAPIC_FROM_DEVICE});
        fx_equal(sent.accepted, 1, "vCPU %u", n);
        fx_equal(sent.target, n, "vCPU %u", n);
        fx_equal(fx_bit(fx, n, APIC_IRR, VECTOR), 1, "IRR of %u", n);
    }
    sent = vapic_send(
        &fx->vm, (struct vapic_msg){.icr = 0x61, .dest = 0xFFFFFFFF, .source = VAPIC_FROM_DEVICE});
    assert_int_equal(sent.accepted, VAPIC_MAX_VCPUS);
    sent = vapic_send(&fx->vm, (struct vapic_msg){.icr = APIC_ICR_ALL_EXCL | 0x62, .source = 77});
    assert_int_equal(sent.accepted, VAPIC_MAX_VCPUS - 1);
    sent = vapic_send(&fx->vm, (struct vapic_msg){.icr = APIC_ICR_LOGICAL | 0x63,
                                                  .dest = 0x00FFFFFF,
                                                  .source = VAPIC_FROM_DEVICE});
    assert_int_equal(sent.accepted, 16);
    vapic_post(&fx->v[4095], 0x64, false, &accepted);
    assert_true(accepted);
    fx_free(fx);
}

/* All share one 8-bit ID, all share one logical ID. */
static void long_alias_chains(void **state)
{
    enum { COUNT = 100 };
    static uint32_t ids[COUNT];
    struct fx *fx;
    struct vapic_msg msg = {.icr = VECTOR, .dest = 0x77, .source = VAPIC_FROM_DEVICE};

    (void)state;
    for (uint32_t n = 0; n < COUNT; n++)
        ids[n] = 0x77 + n * 0x100;
    fx = fx_new(&(struct fx_options){.vcpus = COUNT, .ids = ids});
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, COUNT);
    for (uint32_t n = 0; n < COUNT; n++)
        fx_write(fx, n, APIC_LDR, 0x80000000);
    msg = (struct vapic_msg){.icr = APIC_ICR_LOGICAL | 0x61, .dest = 0x80, .source = 3};
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, COUNT);
    for (uint32_t n = 0; n < COUNT; n += 2)
        fx_write(fx, n, APIC_LDR, 0);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, COUNT / 2);
    fx_free(fx);
}

/* ---- Random changes: after each one the map agrees with the rules ---- */

/* An LDR with few bits set: some messages then match one vCPU, some several. */
static uint32_t sparse_ldr(uint32_t *seed)
{
    uint32_t bits = ref_random(seed);

    bits &= ref_random(seed);
    return bits & 0xFF000000;
}

static void random_change(struct fx *fx, uint32_t *seed)
{
    static const uint32_t models[] = {APIC_DFR_FLAT, APIC_DFR_CLUSTER, 0x30000000};
    static const uint32_t bases[] = {APIC_DEFAULT_BASE, BASE, BASE, BASE | APIC_BASE_EXTD};
    uint32_t n = ref_random(seed) % fx->vcpus;
    uint32_t what = ref_random(seed) % 8;

    if (what >= 6)
        load_base(fx, n, bases[ref_random(seed) % 4]);
    else if (what == 5 && ref_enabled(fx, n))
        fx_set(fx, n, APIC_SVR, ref_random(seed) % 4 == 0 ? 0xFF : 0x1FF);
    else if (what == 4)
        vapic_reset(&fx->v[n]);
    else if (what == 3)
        fx_write(fx, n, APIC_DFR, models[ref_random(seed) % 3]);
    else if (what == 2)
        fx_write(fx, n, APIC_ID, (ref_random(seed) % 8) << 24);
    else
        fx_write(fx, n, APIC_LDR, sparse_ldr(seed));
}

static void map_agrees(struct fx *fx, struct ref_msg msg, uint32_t step)
{
    uint32_t expected = 0;
    struct vapic_sent sent;

    for (uint32_t n = 0; n < fx->vcpus; n++)
        expected += ref_enabled(fx, n) && ref_takes_fixed(fx, n, msg);
    sent = vapic_send(&fx->vm, ref_message(msg, 0, VECTOR));
    fx_equal(sent.accepted, expected, "step %u, %s %x", step, msg.logical ? "logical" : "physical",
             msg.dest);
    if (expected == 1)
        fx_equal(ref_takes_fixed(fx, sent.target, msg), true, "step %u, target %u for %x", step,
                 sent.target, msg.dest);
}

static void every_small_destination_agrees(struct fx *fx, uint32_t step)
{
    for (uint32_t dest = 0; dest < 0x48; dest++) {
        map_agrees(fx, (struct ref_msg){.dest = dest, .device = true}, step);
        map_agrees(fx, (struct ref_msg){.dest = dest, .logical = true}, step);
    }
    map_agrees(fx, (struct ref_msg){.dest = 0xFF, .device = true}, step);
    map_agrees(fx, (struct ref_msg){.dest = 0xFF}, step);
    map_agrees(fx, (struct ref_msg){.dest = 0xFFFFFFFF}, step);
    map_agrees(fx, (struct ref_msg){.dest = 0x103}, step);
}

/*
 * Somebody else rewrites the map and was interrupted in the middle of it: a sender cannot wait for
 * him and looks at the vCPUs one by one, with the same answer.
 */
static void rewriting(struct fx *fx, bool begins)
{
    fx->vm.seq += 1;
    assert_int_equal(fx->vm.seq % 2, begins);
}

static void random_changes(void **state)
{
    static const uint32_t ids[] = {0, 1, 2, 3, 4, 0x17, 0x103, 0x20004};

    (void)state;
    for (uint32_t run = 0; run < 4; run++) {
        struct fx *fx = fx_new(&(struct fx_options){
            .vcpus = 8, .ids = ids, .parked = true, .config = {.id_bound = run % 2 ? 16 : 0}});
        uint32_t seed = 0xC0FFEE01u + run;

        for (uint32_t step = 0; step < 120; step++) {
            random_change(fx, &seed);
            every_small_destination_agrees(fx, step);
            if (step % 8 != 0)
                continue;
            rewriting(fx, true);
            every_small_destination_agrees(fx, step);
            rewriting(fx, false);
        }
        fx_free(fx);
    }
}

/* The same for the policy that gives each ID to one vCPU. */
static void unique_ids_while_the_map_is_rewritten(void **state)
{
    static const uint32_t ids[] = {0, 3, 0x103, 0x203, 7, 0x107};
    struct fx *fx = unique(6, ids);

    (void)state;
    load_base(fx, 5, BASE | APIC_BASE_EXTD);
    load_base(fx, 2, BASE | APIC_BASE_EXTD);
    fx_write(fx, 1, APIC_ID, 0x07000000);
    rewriting(fx, true);
    assert_int_equal(who(fx, 7), 1);
    assert_int_equal(who(fx, 3), 3);
    assert_int_equal(who(fx, 0x103), 2);
    assert_int_equal(who(fx, 0x107), 5);
    assert_int_equal(who(fx, 0x203), 3);
    assert_int_equal(who(fx, 0x207), -1);
    assert_int_equal(who(fx, 0xFF), -2);
    rewriting(fx, false);
    assert_int_equal(who(fx, 7), 1);
    assert_int_equal(who(fx, 3), 3);
    assert_int_equal(who(fx, 0x107), 5);
    fx_free(fx);
}

/* One target is still one target. */
static void lowest_priority_while_the_map_is_rewritten(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 4});

    (void)state;
    for (uint32_t n = 0; n < 4; n++)
        fx_write(fx, n, APIC_LDR, 1u << (24 + n));
    for (uint32_t vector = 16; vector < 48; vector++) {
        struct vapic_msg msg = {.icr = APIC_DM_LOWEST | APIC_ICR_LOGICAL | vector,
                                .dest = 0xF,
                                .source = VAPIC_FROM_DEVICE};
        struct vapic_sent before = vapic_send(&fx->vm, msg), during;

        rewriting(fx, true);
        during = vapic_send(&fx->vm, msg);
        rewriting(fx, false);
        assert_int_equal(before.accepted, 1);
        assert_int_equal(during.accepted, 1);
        assert_int_equal(during.target, before.target);
    }
    fx_free(fx);
}

/* Shorthands need no map. */
static void shorthands_while_the_map_is_rewritten(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3});

    (void)state;
    rewriting(fx, true);
    fx_icr(fx, 0, APIC_ICR_SELF | 0x41, 0);
    fx_icr(fx, 0, APIC_ICR_ALL_EXCL | 0x42, 0);
    fx_icr(fx, 0, APIC_ICR_ALL_INCL | 0x43, 0);
    assert_int_equal(fx_take_eoi(fx, 0), 0x43);
    assert_int_equal(fx_take_eoi(fx, 0), 0x41);
    for (uint32_t n = 1; n < 3; n++) {
        assert_int_equal(fx_take_eoi(fx, n), 0x43);
        assert_int_equal(fx_take_eoi(fx, n), 0x42);
    }
    rewriting(fx, false);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_id),
        cmocka_unit_test(written_id_survives_init),
        cmocka_unit_test(reset_restores_the_id),
        cmocka_unit_test(off_and_on_restores_the_id),
        cmocka_unit_test(x2apic_restores_the_id),
        cmocka_unit_test(reboot_from_x2apic),
        cmocka_unit_test(wide_id_after_reset),
        cmocka_unit_test(base_register_moves_do_not_matter),
        cmocka_unit_test(who_takes_the_lock),
        cmocka_unit_test(unique_lowest_index_wins),
        cmocka_unit_test(unique_x2apic_wins),
        cmocka_unit_test(unique_loser_takes_over),
        cmocka_unit_test(sparse_ids),
        cmocka_unit_test(hashed_ids_come_and_go),
        cmocka_unit_test(four_thousand_vcpus),
        cmocka_unit_test(long_alias_chains),
        cmocka_unit_test(random_changes),
        cmocka_unit_test(unique_ids_while_the_map_is_rewritten),
        cmocka_unit_test(lowest_priority_while_the_map_is_rewritten),
        cmocka_unit_test(shorthands_while_the_map_is_rewritten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
