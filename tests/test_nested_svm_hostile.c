/* SPDX-License-Identifier: MIT */
/*
 * An L1 that writes whatever it likes into its control blocks and tables, while L0 and the
 * processor use them. Two claims: L1 and L2 see what a processor would do that ran L1's VMCB itself
 * (the "ideal" machine of the bench, whose memory is a copy of L1's); and nothing outside of L1's
 * memory is read or written, and every pin is given back.
 */
#include "nested_svm_bench.h"

#define FIXED(v) (APIC_ICR_ASSERT | (v))
#define VMCB12   (SB_FREE + 2) /* page of L1's memory with the VMCB, for the ideal machine */

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((seed >> 33) % below);
}

static bool one_in(uint32_t n)
{
    return rnd(n) == 0;
}

/* ---- The ideal machine ---- */

/* Takes L1's memory as it is now. */
static void copy_ram(struct sb *sb)
{
    if (sb->ideal_ram == NULL)
        sb->ideal_ram = malloc(SB_PAGES * 4096u);
    assert_non_null(sb->ideal_ram);
    for (uint32_t i = 0; i < SB_PAGES; i++)
        memcpy(sb->ideal_ram + i * 4096u, sb_page(sb, i), 4096);
}

static enum vapic_sil_result ideal_vmrun(struct sb *sb, uint32_t n)
{
    struct vapic_sil_cpu *cpu = &sb->ideal_cpu[n];

    memcpy(sb->ideal_ram + VMCB12 * 4096u, sb->v[n]->vmcb12, 4096);
    vmcb_set32(sb->ideal_ram + VMCB12 * 4096u, VMCB_CLEAN, 0);
    return vapic_sil_vmrun(cpu, SB_GPA(VMCB12));
}

static uint64_t ideal_field(struct sb *sb, uint32_t field)
{
    return vmcb_get64(sb->ideal_ram + VMCB12 * 4096u, field);
}

static void ideal_end(struct sb *sb)
{
    for (uint32_t n = 0; n < SB_VCPUS; n++) {
        if (sb->ideal_cpu[n].in_guest)
            vapic_sil_leave(&sb->ideal_cpu[n], SVM_EXIT_INTR, 0, 0);
        sb->ideal_cpu[n].doorbell = 0;
    }
}

/* L1's memory is the same on both; the ideal machine's VMCB is not looked at. */
static void compare_ram(struct sb *sb, const char *what)
{
    for (uint32_t i = 0; i < SB_PAGES; i++)
        if (i != VMCB12 && memcmp(sb->ideal_ram + i * 4096u, sb_page(sb, i), 4096) != 0)
            fail_msg("%s: page %u of L1's differs", what, i);
}

static void free_all(struct sb *sb)
{
    uint8_t *ram = sb->ideal_ram;

    sb_free(sb);
    free(ram);
}

/* ---- Control blocks ---- */

static const struct sb_options all_of_it = {
    .hardware = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC | VAPIC_ACCEL_X2AVIC_EXT,
    .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC | VAPIC_NESTED_X2AVIC_EXT,
    .phys_bits = 40,
    .entries = 4096,
};

static uint64_t hostile_pointer(void)
{
    static const uint64_t odd[] = {
        0,          8,          1ull << 39, (1ull << 40) - 4096, 1ull << 40, 1ull << 51,
        1ull << 52, 1ull << 63, ~0ull,      AVIC_ADDRESS,        SB_NOWHERE};

    if (one_in(3))
        return odd[rnd(sizeof(odd) / sizeof(odd[0]))];
    return SB_GPA(rnd(SB_PAGES)) | (one_in(8) ? rnd(4096) : 0);
}

static void hostile_vmcb(uint8_t *vmcb)
{
    static const uint32_t field[] = {VMCB_AVIC_BAR, VMCB_AVIC_BACKING, VMCB_AVIC_LOGICAL,
                                     VMCB_AVIC_PHYSICAL};

    vmcb_set64(vmcb, VMCB_INT_CTL,
               (one_in(4) ? 0 : VMCB_V_AVIC) | (one_in(2) ? 0 : VMCB_V_X2AVIC) | rnd(16) |
                   (one_in(4) ? 0 : VMCB_V_INTR_MASKING));
    vmcb_set64(vmcb, VMCB_NP_ENABLE, one_in(8) ? 0 : VMCB_NP_ENABLED);
    for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
        if (one_in(3))
            vmcb_set64(vmcb, field[i], hostile_pointer());
    if (one_in(3))
        vmcb_set64(vmcb, VMCB_AVIC_PHYSICAL, SB_GPA(rnd(SB_PAGES)) | rnd(4096));
}

/* "They are refused exactly as the processor refuses them." */
static void test_control_blocks(void **state)
{
    struct sb *sb = sb_new(&all_of_it);
    uint32_t refused = 0, absent = 0, run = 0;

    (void)state;
    seed = 1;
    for (uint32_t i = 0; i < 20000; i++) {
        bool legal;
        int result;

        memset(sb->v[0]->vmcb12, 0, 4096);
        sb_good_vmcb12(sb, 0);
        hostile_vmcb(sb->v[0]->vmcb12);
        if (i % 64 == 0)
            copy_ram(sb);
        legal = ideal_vmrun(sb, 0) == VAPIC_SIL_DONE;
        ideal_end(sb);
        result = sb_nested_enter(sb, 0);
        assert_int_equal(result == VAPIC_E_CONTROLS, !legal);
        refused += result == VAPIC_E_CONTROLS;
        absent += result == VAPIC_E_MEMORY;
        if (result != VAPIC_OK)
            continue;
        run++;
        sb_run(sb, 0); /* 02 never fails */
        sb_nested_exit(sb, 0, NULL);
    }
    assert_true(refused > 1000 && absent > 500 && run > 1000);
    free_all(sb);
}

/* ---- Tables ---- */

struct game {
    struct sb_options options;
    bool overlaps;  /* backing pointers may name tables */
    uint32_t limit; /* MAX_INDEX up to here */
};

static uint64_t hostile_entry(const struct game *g, uint32_t index)
{
    uint64_t entry = sb_good_entry(rnd(SB_VCPUS));

    if (index < SB_VCPUS && !one_in(4))
        entry = sb_good_entry(index);
    if (one_in(4))
        entry &= ~AVIC_PHYSICAL_VALID;
    if (one_in(4))
        entry &= ~AVIC_PHYSICAL_RUNNING;
    if (one_in(16))
        entry ^= rnd(4096);
    if (one_in(16))
        entry |= AVIC_PHYSICAL_RESERVED & (uint64_t)rnd(1024) << 52;
    if (one_in(16))
        entry = (entry & ~AVIC_PHYSICAL_BACKING) | (hostile_pointer() & AVIC_PHYSICAL_BACKING);
    if (g->overlaps && one_in(8))
        entry = (entry & ~AVIC_PHYSICAL_BACKING) | SB_GPA(rnd(12));
    return entry;
}

static void hostile_tables(struct sb *sb, const struct game *g, uint32_t last)
{
    /* Sparse, or broadcasts are all that there is. */
    for (uint32_t i = 0; i <= last; i++)
        *sb_entry(sb, i) = i < 8 || one_in(32) ? hostile_entry(g, i) : 0;
    for (uint32_t i = 0; i < 64; i++)
        *sb_logical(sb, i) =
            (one_in(8) ? 0 : AVIC_LOGICAL_VALID) | (one_in(8) ? rnd(0xFFFFFFFF) : rnd(6));
    for (uint32_t n = 0; n < SB_VCPUS; n++) {
        memset(sb_reg(sb, n, APIC_IRR), 0, 0x80);
        *sb_reg(sb, n, APIC_DFR) = one_in(2) ? APIC_DFR_FLAT : rnd(4) << 28;
        *sb_reg(sb, n, APIC_ID) = one_in(8) ? rnd(0xFFFFFFFF) : sb->x2 ? n : n << 24;
    }
}

static uint32_t hostile_dest(const struct sb *sb)
{
    if (!sb->x2)
        return one_in(2) ? rnd(256) : one_in(8) ? 255 : rnd(8);
    if (one_in(8))
        return APIC_DEST_ALL_32;
    return one_in(2) ? rnd(8) : rnd(4) << 16 | rnd(256);
}

static uint32_t hostile_icr(void)
{
    static const uint32_t shorthand[] = {0, 0, 0, 0, APIC_ICR_ALL_INCL, APIC_ICR_ALL_EXCL};
    uint32_t icr = FIXED(rnd(256)) | shorthand[rnd(6)];

    if (one_in(3))
        icr |= APIC_ICR_LOGICAL;
    if (one_in(16))
        icr |= rnd(8) << 8;
    if (one_in(32))
        icr |= APIC_ICR_LEVEL;
    return icr;
}

/* L2 on vCPU 0 sends one IPI, with all others in L2 as well. */
struct round {
    uint32_t low, dest;
    bool exits;
    uint64_t info1, info2; /* of the ideal machine, if it exits */
};

static void play_ideal(struct sb *sb, struct round *r)
{
    copy_ram(sb);
    assert_int_equal(ideal_vmrun(sb, 0), VAPIC_SIL_DONE);
    r->exits = sb_icr(&sb->ideal_cpu[0], sb->x2, r->low, r->dest) == VAPIC_SIL_EXIT;
    r->info1 = ideal_field(sb, VMCB_EXITINFO1);
    r->info2 = ideal_field(sb, VMCB_EXITINFO2);
}

static void play(struct sb *sb, const struct round *r)
{
    struct sb_vcpu *c = sb->v[0];

    c->result = VAPIC_OK;
    sb_ipi(sb, 0, r->low, r->dest);
    if (r->exits != (c->result == VAPIC_REFLECT))
        fail_msg("icr %x dest %x: result %d", r->low, r->dest, c->result);
    if (r->exits) {
        assert_int_equal(c->reflect.info1, r->info1);
        assert_int_equal(c->reflect.info2, r->info2);
    }
    compare_ram(sb, "IPI");
    for (uint32_t n = 1; n < SB_VCPUS; n++)
        if (sb->cpu[n].doorbell != sb->ideal_cpu[n].doorbell)
            fail_msg("icr %x dest %x: doorbell of %u: %u instead of %u", r->low, r->dest, n,
                     sb->cpu[n].doorbell, sb->ideal_cpu[n].doorbell);
}

static void end_round(struct sb *sb)
{
    ideal_end(sb);
    for (uint32_t n = 0; n < SB_VCPUS; n++) {
        sb_nested_exit(sb, n, NULL);
        sb->cpu[n].doorbell = 0;
    }
}

static void begin_round(struct sb *sb, const struct game *g)
{
    uint32_t last = rnd(g->limit + 1);

    hostile_tables(sb, g, last);
    if (g->options.strategy == VAPIC_NESTED_SHADOW)
        for (uint32_t i = 0; i < 8; i++)
            if (sb->tracked[SB_TABLE + i])
                vapic_nested_written(&sb->vm, SB_GPA(SB_TABLE + i), 4096);
    for (uint32_t n = 0; n < SB_VCPUS; n++)
        vmcb_set64(sb->v[n]->vmcb12, VMCB_AVIC_PHYSICAL, SB_GPA(SB_TABLE) | last);
    sb_start_all(sb);
}

/*
 * With a shadow the processor has posted in the others before a page that L1 does not have is
 * noticed, and L1 hears of whoever is not running rather than of the page.
 */
static bool comparable(const struct game *g, const struct round *r)
{
    return g->options.strategy == VAPIC_NESTED_DUMMY || !r->exits ||
           r->info2 >> 32 != AVIC_IPI_INVALID_BACKING;
}

static void compare_with_ideal(const struct game *g, uint32_t rounds)
{
    struct sb *sb = sb_new(&g->options);
    uint32_t ids[5] = {0}, silent = 0;

    seed = 2;
    for (uint32_t i = 0; i < rounds; i++) {
        struct round r = {.low = hostile_icr(), .dest = hostile_dest(sb)};

        begin_round(sb, g);
        play_ideal(sb, &r);
        if (comparable(g, &r))
            play(sb, &r);
        else
            sb_ipi(sb, 0, r.low, r.dest);
        if (r.exits)
            ids[(r.info2 >> 32) % 5]++;
        else
            silent++;
        end_round(sb);
    }
    assert_true(silent > rounds / 50);
    for (uint32_t id = 0; id < 5; id++)
        assert_true(ids[id] > rounds / 200);
    free_all(sb);
}

static const struct game games[] = {
    {{.hardware = VAPIC_ACCEL_IPIV, .offered = VAPIC_NESTED_AVIC}, true, 255},
    {{.hardware = VAPIC_ACCEL_IPIV, .offered = VAPIC_NESTED_AVIC, .strategy = VAPIC_NESTED_SHADOW},
     false,
     255},
    {{.hardware = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC | VAPIC_ACCEL_X2AVIC_EXT,
      .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC | VAPIC_NESTED_X2AVIC_EXT,
      .x2 = true},
     true,
     1200},
    {{.hardware = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC | VAPIC_ACCEL_X2AVIC_EXT,
      .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC | VAPIC_NESTED_X2AVIC_EXT,
      .strategy = VAPIC_NESTED_SHADOW,
      .x2 = true,
      .entries = 4096},
     false,
     1200},
};

static void test_dummy_is_ideal(void **state)
{
    (void)state;
    compare_with_ideal(&games[0], 3000);
}

static void test_shadow_is_ideal(void **state)
{
    (void)state;
    compare_with_ideal(&games[1], 2000);
}

static void test_x2_dummy_is_ideal(void **state)
{
    (void)state;
    compare_with_ideal(&games[2], 1000);
}

static void test_x2_shadow_is_ideal(void **state)
{
    (void)state;
    compare_with_ideal(&games[3], 600);
}

/* ---- Backing pointers that name tables, with a shadow: the processor writes what is followed ----
 */

static void test_overlapping_pages_with_a_shadow(void **state)
{
    struct game g = games[1];
    struct sb *sb = sb_new(&g.options);

    (void)state;
    g.overlaps = true;
    seed = 3;
    for (uint32_t i = 0; i < 3000; i++) {
        begin_round(sb, &g);
        for (uint32_t k = 0; k < 4; k++) {
            sb_ipi(sb, 0, hostile_icr(), hostile_dest(sb));
            if (!sb->v[0]->entered)
                sb_run(sb, 0);
        }
        end_round(sb);
    }
    sb_free(sb);
}

/* ---- L1 at work while L0 answers: between any two steps that reach for a page ---- */

static uint32_t steps_left;
static bool takes_memory;

/* Any of L1's pages; some writes are told, some are not told yet. */
static void interfere(struct sb *sb)
{
    const struct game g = {.overlaps = true};
    uint32_t i = rnd(8);

    if (steps_left == 0 || --steps_left != 0)
        return;
    *sb_entry(sb, i) = hostile_entry(&g, i);
    *sb_logical(sb, rnd(64)) = rnd(0xFFFFFFFF);
    *sb_reg(sb, 0, APIC_ID) = rnd(0xFFFFFFFF);
    *sb_reg(sb, 0, APIC_DFR) = rnd(0xFFFFFFFF);
    if (takes_memory)
        sb->gone[rnd(SB_FREE)] = true;
}

static void interfering_pin(struct sb *sb, uint64_t gpa)
{
    (void)gpa;
    interfere(sb);
}

static void interfering_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    interfere(ctx);
    sb_notify(ctx, target, action);
}

static void interfering_point(struct sb *sb, enum vapic_sil_point point)
{
    (void)point;
    interfere(sb);
}

/* What has gone comes back, and all is told. */
static void recover(struct sb *sb)
{
    for (uint32_t i = 0; i < SB_PAGES; i++) {
        if (sb->gone[i])
            vapic_nested_unmap(&sb->vm, SB_GPA(i), 4096);
        assert_true(!sb->gone[i] || sb->pins[i] == 0);
        sb->gone[i] = false;
    }
}

static void interfering_rounds(const struct game *g, uint32_t rounds)
{
    struct sb *sb = sb_new(&g->options);
    uint32_t reflected = 0;

    sb->on_pin = interfering_pin;
    sb->vm.host.notify = interfering_notify;
    sb->on_point = interfering_point;
    for (uint32_t i = 0; i < rounds; i++) {
        struct sb_vcpu *c = sb->v[0];

        steps_left = 0;
        begin_round(sb, g);
        takes_memory = one_in(3);
        steps_left = 1 + rnd(12);
        c->result = VAPIC_OK;
        sb_ipi(sb, 0, hostile_icr(), hostile_dest(sb));
        steps_left = 0;
        /* Whatever it is, it is one of these, and at most one exit. */
        assert_true(c->result == VAPIC_OK || c->result == VAPIC_REFLECT ||
                    c->result == VAPIC_E_MEMORY);
        reflected += c->result == VAPIC_REFLECT;
        recover(sb);
        end_round(sb);
    }
    assert_true(reflected > rounds / 10);
    sb_free(sb);
}

static void test_tables_change_while_in_use(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(games) / sizeof(games[0]); i++) {
        struct game g = games[i];

        g.overlaps = true;
        seed = 4 + i;
        interfering_rounds(&g, g.limit > 255 ? 500 : 2000);
    }
}

/* ---- Exits that no processor makes ---- */

static void test_forged_exits(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof(games) / sizeof(games[0]); k++) {
        struct sb *sb = sb_new(&games[k].options);
        struct game g = games[k];

        seed = 10 + k;
        begin_round(sb, &g);
        sb_leave(sb, 0);
        for (uint32_t i = 0; i < 20000; i++) {
            uint64_t info1 = (uint64_t)rnd(0xFFFFFFFF) << 32 | rnd(0xFFFFFFFF);
            uint64_t info2 = (uint64_t)rnd(8) << 32 | rnd(0xFFFFFFFF);
            int result = vapic_nested_avic_exit(
                &sb->v[0]->apic, one_in(8) ? SVM_EXIT_AVIC_NOACCEL : SVM_EXIT_AVIC_INCOMPLETE,
                one_in(2) ? info1 : (info1 & ~0xFFFFFFFFull) | hostile_icr(), info2,
                &sb->v[0]->reflect);

            assert_true(result == VAPIC_OK || result == VAPIC_REFLECT);
        }
        sb_run(sb, 0);
        end_round(sb);
        sb_free(sb);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_blocks),
        cmocka_unit_test(test_dummy_is_ideal),
        cmocka_unit_test(test_shadow_is_ideal),
        cmocka_unit_test(test_x2_dummy_is_ideal),
        cmocka_unit_test(test_x2_shadow_is_ideal),
        cmocka_unit_test(test_overlapping_pages_with_a_shadow),
        cmocka_unit_test(test_tables_change_while_in_use),
        cmocka_unit_test(test_forged_exits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
