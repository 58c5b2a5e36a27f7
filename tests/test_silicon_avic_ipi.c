/* SPDX-License-Identifier: MIT */
/*
 * IPIs under AVIC: which writes of ICR are accelerated, who receives them, who is signalled, and
 * which exit there is. The expected outcome is computed here from [APM2 15.29.6] and the exit's
 * description [APM2 15.29.9] by an oracle that knows nothing of the model.
 */
#include "silicon_fixture.h"

enum mode { FLAT, CLUSTER, X2, MODES };

static const char *const mode_names[] = {"flat", "cluster", "x2AVIC"};

/* Logical IDs: flat, vCPU n < 8 has bit n. Cluster: vCPU n has cluster n/4, bit n%4. x2AVIC: one
 * cluster of 16. */
static struct sf *scene(enum mode mode, const struct vapic_sil_knobs *knobs)
{
    struct vapic_sil_config config = {.x2avic = true};
    struct sf *sf;

    if (knobs)
        config.knobs = *knobs;
    sf = sf_new(&config, mode == X2);
    for (uint32_t n = 0; mode == CLUSTER && n < SF_CPUS; n++) {
        sf_set_reg(sf, n, APIC_DFR, APIC_DFR_CLUSTER);
        *sf_logical(sf, n) = AVIC_LOGICAL_VALID | n; /* 4 * cluster + bit is n again */
    }
    return sf;
}

static uint64_t received(struct sf *sf, uint8_t vector)
{
    uint64_t set = 0;

    for (uint32_t n = 0; n < SF_CPUS; n++)
        set |= (uint64_t)sf_bit(sf, n, APIC_IRR, vector) << n;
    return set;
}

static uint64_t rung(struct sf *sf)
{
    uint64_t set = 0;

    for (uint32_t n = 0; n < SF_CPUS; n++) {
        assert_true(sf->signals[n] <= 1);
        assert_int_equal(sf->cpu[n].doorbell, sf->signals[n]);
        set |= (uint64_t)sf->signals[n] << n;
    }
    return set;
}

/* ---- Every kind of ICR write ---- */

/* Exit ID, or -1 and who receives it. */
static int expected(uint32_t low, uint64_t *who)
{
    *who = 0;
    if ((low >> 8 & 7) != 0 || (low >> 15 & 1) != 0)
        return 0; /* not fixed, or level-triggered: invalid interrupt type */
    if ((low & 0xFF) < 16)
        return 4; /* invalid vector */
    switch (low >> 18 & 3) {
    case 1:
        *who = 1;
        break;
    case 2:
        *who = 0xFFFF;
        break;
    case 3:
        *who = 0xFFFE;
        break;
    default:
        if (low >> 11 & 1)
            *who = 6; /* vCPU n is bit n, so that mask and set are the same */
        else
            *who = 1 << 6; /* physical 6 */
        break;
    }
    return -1;
}

static void matrix_cell(enum mode mode, uint32_t low)
{
    struct sf *sf = scene(mode, NULL);
    uint32_t dest = 6; /* also a physical ID */
    uint64_t who, high = mode == X2 ? dest : dest << 24;
    int id = expected(low, &who);
    enum vapic_sil_result result;

    sf_run(sf, 0);
    result = sf_icr(sf, 0, low, dest);
    sf_equal(sf_reg(sf, 0, APIC_ICR), low, "%s ICR %08x: page", mode_names[mode], low);
    sf_equal(result, id < 0 ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT, "%s ICR %08x", mode_names[mode],
             low);
    sf_equal(received(sf, (uint8_t)low), who, "%s ICR %08x: IRR", mode_names[mode], low);
    if ((low >> 18 & 3) == 1)
        who = 0; /* one's own: without a doorbell */
    sf_equal(rung(sf), who, "%s ICR %08x: doorbells", mode_names[mode], low);
    sf_equal(sf->cpu[0].doorbells_sent, __builtin_popcountll(who), "doorbells sent");
    if (id >= 0) {
        sf_exit(sf, 0, 0x401, high << 32 | low, (uint64_t)id << 32);
        sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + (mode == X2 ? 2 : 6), "RIP");
    }
    sf_free(sf);
}

static void icr_matrix(void **state)
{
    static const uint8_t vectors[] = {15, 16, 255};
    uint32_t cells = 0;

    (void)state;
    for (uint32_t mode = 0; mode < MODES; mode++) {
        for (uint32_t bits = 0; bits < 8 * 2 * 3 * 4 * 2; bits++) {
            uint32_t low = (bits & 7) << 8 | (bits >> 3 & 1) << 15 | (bits >> 4 & 3) << 18 |
                           (bits >> 6 & 1) << 11 | vectors[bits >> 7];

            matrix_cell(mode, low);
            matrix_cell(mode, low | 1 << 14); /* assert: don't care */
            cells += 2;
        }
    }
    assert_int_equal(cells, 2304);
}

/* ---- Target sets: valid, running, legal pointer ---- */

enum { VALID = 1, RUNNING = 2, LEGAL = 4, STATES = 8 };

static uint64_t entry_in(uint32_t index, uint32_t state)
{
    uint64_t entry = sf_legal_entry(index, (state & RUNNING) != 0);

    if (!(state & VALID))
        entry &= ~AVIC_PHYSICAL_VALID;
    if (!(state & LEGAL))
        entry = (entry & ~AVIC_PHYSICAL_BACKING) | 1ull << 50; /* beyond 48 bits */
    return entry;
}

struct outcome {
    int id; /* -1: no exit */
    uint32_t index;
    uint64_t irr, doorbells;
};

/* Targets 1 and 2 with states s[1], s[2]; `list` is which of them the IPI names. */
struct oracle {
    uint32_t s[3];
    uint32_t list;
    bool broadcast, highest, late;
};

static void note(struct outcome *out, int id, uint32_t index, bool highest)
{
    if (out->id >= 0 && !highest)
        return;
    out->id = id;
    out->index = index;
}

static void expect_posts(const struct oracle *o, uint32_t list, struct outcome *out)
{
    for (uint32_t n = 1; n <= 2; n++) {
        if (!(list & 1u << n))
            continue;
        if (!(o->s[n] & LEGAL)) { /* with id3_after_post only: found on the way */
            out->id = 3;
            out->index = n;
            return;
        }
        out->irr |= 1u << n;
        if (o->s[n] & RUNNING)
            out->doorbells |= 1u << n;
        else
            note(out, 1, n, o->highest);
    }
}

static struct outcome expect_set(const struct oracle *o)
{
    struct outcome out = {.id = -1};
    uint32_t list = 0;

    for (uint32_t n = 1; n <= 2; n++) {
        if (!(o->list & 1u << n))
            continue;
        if (o->s[n] & VALID)
            list |= 1u << n;
        else if (!o->broadcast)
            note(&out, 2, n, o->highest);
    }
    for (uint32_t n = 1; n <= 2 && out.id != 2 && !o->late; n++) {
        if ((list & 1u << n) && !(o->s[n] & LEGAL))
            note(&out, 3, n, o->highest);
    }
    if (out.id < 0)
        expect_posts(o, list, &out);
    return out;
}

enum kind { UNICAST, TWO, BROADCAST, KINDS };

static void target_set(enum mode mode, enum kind kind, uint32_t s1, uint32_t s2, bool highest,
                       bool late)
{
    static const uint32_t lows[] = {0x40, 0x840, 0xC0040};
    struct vapic_sil_knobs knobs = {.index_highest = highest, .id3_after_post = late};
    struct oracle o = {.s = {0, s1, s2},
                       .list = kind == UNICAST ? 2 : 6,
                       .broadcast = kind == BROADCAST,
                       .highest = highest,
                       .late = late};
    struct outcome want = expect_set(&o);
    struct sf *sf = scene(mode, &knobs);
    uint32_t dest = kind == UNICAST ? 1 : 6;
    uint64_t high = mode == X2 ? dest : dest << 24;

    for (uint32_t n = 3; n < SF_CPUS; n++)
        *sf_entry(sf, n) = 0;
    *sf_entry(sf, 1) = entry_in(1, s1);
    *sf_entry(sf, 2) = entry_in(2, s2);
    sf_run(sf, 0);
    sf_equal(sf_icr(sf, 0, lows[kind], dest), want.id < 0 ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT,
             "%s kind %d states %u %u", mode_names[mode], kind, s1, s2);
    sf_equal(received(sf, 0x40), want.irr, "%s kind %d states %u %u: IRR", mode_names[mode], kind,
             s1, s2);
    sf_equal(rung(sf), want.doorbells, "%s kind %d states %u %u: doorbells", mode_names[mode], kind,
             s1, s2);
    if (want.id >= 0)
        sf_exit(sf, 0, 0x401, high << 32 | lows[kind], (uint64_t)want.id << 32 | want.index);
    sf_free(sf);
}

static void target_sets(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MODES * KINDS * STATES * STATES * 4; i++)
        target_set(i / 4 / STATES / STATES / KINDS, i / 4 / STATES / STATES % KINDS,
                   i / 4 / STATES % STATES, i / 4 % STATES, i & 1, i & 2);
}

/* Trap 1, trap 3 are cells above; by name, since they are the ones that VMMs get wrong. */
static void trap_01_all_or_nothing(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    *sf_entry(sf, 2) = 0;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x840, 6), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 6ull << 56 | 0x840, 2ull << 32 | 2);
    assert_false(sf_bit(sf, 1, APIC_IRR, 0x40));
    sf_free(sf);
}

static void trap_03_two_idle_one_running(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    for (uint32_t n = 4; n < SF_CPUS; n++)
        *sf_entry(sf, n) = 0;
    *sf_entry(sf, 2) &= ~AVIC_PHYSICAL_RUNNING;
    *sf_entry(sf, 3) &= ~AVIC_PHYSICAL_RUNNING;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0xC0040, 0), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 0xC0040, 1ull << 32 | 2);
    sf_equal(received(sf, 0x40), 0xE, "IRR");
    sf_equal(rung(sf), 2, "doorbells");
    sf_free(sf);
}

static void trap_02_broadcast_skips_invalid(void **state)
{
    (void)state;
    for (uint32_t mode = 0; mode < MODES; mode++) {
        struct sf *sf = scene(mode, NULL);

        *sf_entry(sf, 1) = 0;
        *sf_entry(sf, 7) = 0;
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x80040, 0), VAPIC_SIL_DONE);
        sf_equal(received(sf, 0x40), 0xFF7D, "IRR");
        sf_free(sf);
    }
}

/* Trap 5: FFh is everybody in xAVIC, physical and logical, also those without a logical ID. */
static void trap_05_all_ones_in_xavic(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct sf *sf = scene(i & 1 ? CLUSTER : FLAT, NULL);

        sf_set_reg(sf, 5, APIC_LDR, 0);
        *sf_logical(sf, 5) = 0;
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, i & 2 ? 0x840 : 0x40, 0xFF), VAPIC_SIL_DONE);
        sf_equal(received(sf, 0x40), 0xFFFF, "IRR"); /* the sender, too */
        sf_free(sf);
    }
}

static void trap_06_cluster_15(void **state)
{
    struct sf *sf = scene(CLUSTER, NULL);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x840, 0xF3), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 0xF3ull << 56 | 0x840, 2ull << 32 | 60);
    sf_free(sf);
}

/* Physical entries whose pages are those of vCPUs 0 to 15 in turn. */
static void fill_table(struct sf *sf, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        *sf_entry(sf, i) = sf_legal_entry(i % SF_CPUS, true);
}

static void set_max(struct sf *sf, uint32_t max)
{
    for (uint32_t n = 0; n < SF_CPUS; n++)
        sf_set_vmcb(sf, n, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | max);
}

/* Trap 7: 255 is an ordinary ID in x2AVIC (knob entry255_special). */
static void trap_07_id_255(void **state)
{
    (void)state;
    for (int special = 0; special < 2; special++) {
        struct vapic_sil_knobs knobs = {.entry255_special = special};
        struct sf *sf = scene(X2, &knobs);

        set_max(sf, 511);
        fill_table(sf, 512);
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40, 255), special ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        sf_equal(received(sf, 0x40), special ? 0 : 1u << 15, "IRR");
        if (special)
            sf_exit(sf, 0, 0x401, 255ull << 32 | 0x40, 2ull << 32 | 255);
        sf_free(sf);
    }
}

/* And FFFFFFFFh is everybody (knob x2_no_broadcast). */
static void all_ones_in_x2avic(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct vapic_sil_knobs knobs = {.x2_no_broadcast = i & 1};
        struct sf *sf = scene(X2, &knobs);
        uint32_t low = i & 2 ? 0x840 : 0x40;

        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, low, 0xFFFFFFFF), i & 1 ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        sf_equal(received(sf, 0x40), i & 1 ? 0 : 0xFFFF, "IRR");
        if (i & 1)
            sf_exit(sf, 0, 0x401, 0xFFFFFFFF00000000 | low, 2ull << 32 | (i & 2 ? 0xFF0 : 0xFFF));
        sf_free(sf);
    }
}

/* Trap 8: the index has 12 bits, the destination is in EXITINFO1. */
static void trap_08_beyond_max_index(void **state)
{
    static const uint32_t dests[] = {16, 511, 4096, 0x12345678};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct sf *sf = scene(X2, NULL);

        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40, dests[i]), VAPIC_SIL_EXIT);
        sf_exit(sf, 0, 0x401, (uint64_t)dests[i] << 32 | 0x40, 2ull << 32 | (dests[i] & 0xFFF));
        sf_free(sf);
    }
}

/* Trap 9: one's own IPI needs no table. */
static void trap_09_self_without_table(void **state)
{
    (void)state;
    for (uint32_t mode = 0; mode < MODES; mode++) {
        struct sf *sf = scene(mode, NULL);

        for (uint32_t n = 0; n < SF_CPUS; n++)
            *sf_entry(sf, n) = 0;
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40040, 0), VAPIC_SIL_DONE);
        assert_int_equal(sf_take(sf, 0), 0x40);
        sf_free(sf);
    }
}

/* Trap 10: an NMI with vector field 0 is an invalid type (knobs vector_before_type, unfixed_id). */
static void trap_10_nmi_with_vector_0(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct vapic_sil_knobs knobs = {.vector_before_type = i == 1, .unfixed_id = i == 2 ? 5 : 0};
        static const uint64_t ids[] = {0, 4, 5};
        struct sf *sf = scene(FLAT, &knobs);

        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x400, 1), VAPIC_SIL_EXIT);
        sf_exit(sf, 0, 0x401, 1ull << 56 | 0x400, ids[i] << 32);
        sf_run(sf, 0); /* a level-triggered fixed one is always an invalid type */
        assert_int_equal(sf_icr(sf, 0, 0x8040, 1), VAPIC_SIL_EXIT);
        sf_exit(sf, 0, 0x401, 1ull << 56 | 0x8040, 0);
        sf_free(sf);
    }
}

static void trap_11_vector_15(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 15, 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 1ull << 56 | 15, 4ull << 32);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + 6, "RIP: a trap");
    sf_free(sf);
}

/* Knob post_clears_tmr; trap 13 is what follows from its default. */
static void posting_and_tmr(void **state)
{
    (void)state;
    for (int clears = 0; clears < 2; clears++) {
        struct vapic_sil_knobs knobs = {.post_clears_tmr = clears};
        struct sf *sf = scene(FLAT, &knobs);

        sf_set_bit(sf, 1, APIC_TMR, 0x40, true);
        sf_set_bit(sf, 1, APIC_TMR, 0x41, true);
        sf_set_bit(sf, 0, APIC_TMR, 0x42, true);
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
        assert_int_equal(sf_icr(sf, 0, 0x40042, 1), VAPIC_SIL_DONE);
        assert_int_equal(sf_bit(sf, 1, APIC_TMR, 0x40), !clears);
        assert_true(sf_bit(sf, 1, APIC_TMR, 0x41));
        assert_int_equal(sf_bit(sf, 0, APIC_TMR, 0x42), !clears);
        sf_free(sf);
    }
}

static void trap_13_stale_tmr(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    sf_set_bit(sf, 1, APIC_TMR, 0x40, true);
    sf_run(sf, 0);
    sf_run(sf, 1);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 1), 0x40);
    assert_int_equal(sf_write(sf, 1, APIC_EOI, 0), VAPIC_SIL_EXIT);
    sf_exit(sf, 1, 0x402, 1ull << 32 | 0xB0, 0x40);
    sf_free(sf);
}

/* Trap 50, and its neighbour: only oneself, included, idle. */
static void trap_50_alone(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    for (uint32_t n = 1; n < SF_CPUS; n++)
        *sf_entry(sf, n) = 0;
    *sf_entry(sf, 0) &= ~AVIC_PHYSICAL_RUNNING;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0xC0040, 0), VAPIC_SIL_DONE);
    sf_equal(received(sf, 0x40), 0, "IRR");
    assert_int_equal(sf_icr(sf, 0, 0x80040, 0), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 0x80040, 1ull << 32);
    sf_equal(received(sf, 0x40), 1, "IRR");
    sf_free(sf);
}

/* Knob empty_mask_exits. */
static void empty_logical_destination(void **state)
{
    static const uint32_t dests[] = {0, 0x10, 0x10000};

    (void)state;
    for (uint32_t mode = 0; mode < MODES; mode++) {
        for (int exits = 0; exits < 2; exits++) {
            struct vapic_sil_knobs knobs = {.empty_mask_exits = exits};
            struct sf *sf = scene(mode, &knobs);

            sf_run(sf, 0);
            assert_int_equal(sf_icr(sf, 0, 0x840, dests[mode]),
                             exits ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
            if (exits)
                assert_int_equal(sf_vmcb(sf, 0, VMCB_EXITINFO2), 2ull << 32);
            sf_equal(received(sf, 0x40), 0, "IRR");
            sf_free(sf);
        }
    }
}

/* ---- Tables ---- */

/* Trap 27: MAX_INDEX is inclusive. */
static void trap_27_max_index_is_inclusive(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    set_max(sf, 2);
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x80040, 0), VAPIC_SIL_DONE);
    sf_equal(received(sf, 0x40), 7, "IRR");
    assert_int_equal(sf_icr(sf, 0, 0x41, 2), VAPIC_SIL_DONE);
    assert_int_equal(sf_icr(sf, 0, 0x41, 3), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 3ull << 56 | 0x41, 2ull << 32 | 3);
    sf_free(sf);
}

/* Trap 28: entry 255 of an xAVIC table is of no use. */
static void trap_28_entry_255_of_xavic(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    set_max(sf, 255);
    fill_table(sf, SF_CPUS - 1); /* vCPU 15 is in entry 255 only */
    *sf_entry(sf, 15) = 0;
    *sf_entry(sf, 255) = sf_legal_entry(15, true);
    *sf_logical(sf, 7) = AVIC_LOGICAL_VALID | 255;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x80040, 0), VAPIC_SIL_DONE);
    sf_equal(received(sf, 0x40), 0x7FFF, "IRR");
    assert_int_equal(sf_icr(sf, 0, 0x840, 0x80), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 0x80ull << 56 | 0x840, 2ull << 32 | 7);
    sf_free(sf);
}

/* Sizes 255, 511, 4095: first and last entry of each page of the table. */
static void big_tables(void **state)
{
    static const uint32_t maxima[] = {254, 511, 4095};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct vapic_sil_config config = {.x2avic = true, .x2avic_ext = true};
        struct sf *sf = sf_new(&config, i > 0);
        uint32_t max = maxima[i];

        set_max(sf, max);
        for (uint32_t index = 0; index <= max;
             index += index % 512 == 511 ? 1 : 511 - index % 512) {
            if (index == 0)
                continue;
            *sf_entry(sf, index) = sf_legal_entry(3, true);
            sf_run(sf, 0);
            sf_equal(sf_icr(sf, 0, 0x40, index), VAPIC_SIL_DONE, "ID %u of %u", index, max);
            sf_equal(received(sf, 0x40), 8, "ID %u of %u", index, max);
            sf_set_bit(sf, 3, APIC_IRR, 0x40, false);
            sf_set_bit(sf, 0, APIC_IRR, 0x40, false);
            vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        }
        sf_run(sf, 0);
        *sf_entry(sf, max) = sf_legal_entry(9, true);
        assert_int_equal(sf_icr(sf, 0, 0xC0050, 0), VAPIC_SIL_DONE);
        sf_equal(sf_bit(sf, 9, APIC_IRR, 0x50), true, "the last of %u", max);
        sf_free(sf);
    }
}

/* Every logical ID that x2APIC IDs up to 511 give. */
static void x2_logical_ids(void **state)
{
    struct sf *sf = scene(X2, NULL);

    (void)state;
    set_max(sf, 511);
    for (uint32_t id = 1; id < 512; id++) {
        uint32_t ldr = (id >> 4) << 16 | 1u << (id & 15);

        *sf_entry(sf, id) = sf_legal_entry(3, true);
        sf_run(sf, 0);
        sf_equal(sf_icr(sf, 0, 0x840, ldr), VAPIC_SIL_DONE, "LDR %08x", ldr);
        sf_equal(received(sf, 0x40), 8, "LDR %08x", ldr);
        sf_set_bit(sf, 3, APIC_IRR, 0x40, false);
        *sf_entry(sf, id) = 0;
        sf_equal(sf_icr(sf, 0, 0x840, ldr), VAPIC_SIL_EXIT, "LDR %08x", ldr);
        sf_exit(sf, 0, 0x401, (uint64_t)ldr << 32 | 0x840, 2ull << 32 | id);
    }
    sf_free(sf);
}

/* The table says who it is, not LDR; and the sender's DFR says how to read the destination. */
static void logical_table_decides(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    *sf_logical(sf, 1) = AVIC_LOGICAL_VALID | 9;
    *sf_logical(sf, 5) = AVIC_LOGICAL_VALID | 10;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x840, 2), VAPIC_SIL_DONE);
    sf_equal(received(sf, 0x40), 1u << 9, "flat");
    sf_set_reg(sf, 0, APIC_DFR, APIC_DFR_CLUSTER);
    assert_int_equal(sf_icr(sf, 0, 0x841, 0x12), VAPIC_SIL_DONE);
    sf_equal(received(sf, 0x41), 1u << 10, "cluster 1, bit 1");
    assert_int_equal(sf_icr(sf, 0, 0x842, 0xE8), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 0xE8ull << 56 | 0x842, 2ull << 32 | 59);
    sf_free(sf);
}

/* A table that is in no memory has no valid entry; nothing is written anywhere. */
static void tables_outside_of_memory(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    sf_set_vmcb(sf, 0, VMCB_AVIC_PHYSICAL, 0x10000000 | 15);
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 1ull << 56 | 0x40, 2ull << 32 | 1);
    sf_set_vmcb(sf, 0, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 15);
    sf_set_vmcb(sf, 0, VMCB_AVIC_LOGICAL, 0x10000000);
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x840, 4), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 4ull << 56 | 0x840, 2ull << 32 | 2);
    *sf_entry(sf, 1) = AVIC_PHYSICAL_VALID | 0x10000000; /* legal, but there is nothing */
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 1ull << 56 | 0x40, 3ull << 32 | 1);
    sf_free(sf);
}

/* ---- Quirks of ICR ---- */

/* Trap 34, knobs masks_icr_high and masks_busy: what xAVIC stores. */
static void trap_34_what_icr_keeps(void **state)
{
    (void)state;
    for (int masks = 0; masks < 2; masks++) {
        struct vapic_sil_knobs knobs = {.masks_busy = masks, .masks_icr_high = masks};
        struct sf *sf = scene(FLAT, &knobs);

        *sf_entry(sf, 0x12) = 0;
        sf_run(sf, 0);
        assert_int_equal(sf_write(sf, 0, APIC_ICR2, 0x12345678), VAPIC_SIL_DONE);
        sf_equal(sf_reg(sf, 0, APIC_ICR2), masks ? 0x12000000 : 0x12345678, "310h");
        assert_int_equal(sf_write(sf, 0, APIC_ICR, 0x1040), VAPIC_SIL_EXIT);
        sf_equal(sf_reg(sf, 0, APIC_ICR), masks ? 0x40 : 0x1040, "300h");
        sf_exit(sf, 0, 0x401, (masks ? 0x12000000ull : 0x12345678ull) << 32 | 0x1040,
                2ull << 32 | 0x12);
        sf_free(sf);
    }
}

/* SELF_IPI [APM2 16.15] */
static void self_ipi_register(void **state)
{
    struct sf *sf = scene(X2, NULL);

    (void)state;
    *sf_entry(sf, 0) = 0;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x83F, 0x51), VAPIC_SIL_DONE);
    sf_equal(sf_reg(sf, 0, APIC_ICR), 0, "ICR is not touched");
    assert_int_equal(sf_take(sf, 0), 0x51);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x83F, 15), VAPIC_SIL_EXIT);
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITCODE), 0x401, "exit");
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITINFO2), 4ull << 32, "ID");
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + 4, "RIP");
    sf_free(sf);
}

/* ---- The race with a vCPU that blocks ---- */

struct race {
    enum vapic_sil_point when;
    uint32_t points[VAPIC_SIL_POINTS];
    bool irr_at_clear;
};

static void stop_target(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct race *race = sf->user;

    assert_ptr_equal(cpu, &sf->cpu[0]);
    race->points[point]++;
    if (point != race->when)
        return;
    *sf_entry(sf, 1) &= ~AVIC_PHYSICAL_RUNNING;
    race->irr_at_clear = sf_bit(sf, 1, APIC_IRR, 0x40);
}

/* IsRunning is cleared at each of the moments: the exit tells, or the blocking vCPU sees IRR. */
static void target_stops_in_between(void **state)
{
    (void)state;
    for (uint32_t when = 0; when <= VAPIC_SIL_POINT_FOUND; when++) {
        struct race race = {.when = when};
        struct sf *sf = scene(FLAT, NULL);
        bool told;

        sf->on_point = stop_target;
        sf->user = &race;
        sf_run(sf, 0);
        told = sf_icr(sf, 0, 0x40, 1) == VAPIC_SIL_EXIT;
        assert_true(told || race.irr_at_clear);
        assert_int_equal(told, when != VAPIC_SIL_POINT_FOUND);
        for (uint32_t p = 0; p <= VAPIC_SIL_POINT_FOUND; p++)
            assert_int_equal(race.points[p], 1);
        sf_free(sf);
    }
}

/* Trap 19: a VMM that looks at IRR first and clears IsRunning then loses the interrupt. That both
 * orders come out differently is what makes the model fit to judge a VMM. */
struct blocker {
    bool right;       /* IsRunning first */
    bool saw;         /* found the interrupt in IRR */
    uint32_t moments; /* of the sender, seen so far */
};

static void block_in_steps(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct blocker *b = sf->user;
    bool first = point == VAPIC_SIL_POINT_RESOLVED, second = point == VAPIC_SIL_POINT_FOUND;

    (void)cpu;
    b->moments++;
    if (first == b->right && (first || second))
        *sf_entry(sf, 1) &= ~AVIC_PHYSICAL_RUNNING;
    if (first != b->right && (first || second))
        b->saw = sf_bit(sf, 1, APIC_IRR, 0x40);
}

static void trap_19_order_of_blocking(void **state)
{
    (void)state;
    for (int right = 0; right < 2; right++) {
        struct blocker b = {.right = right};
        struct sf *sf = scene(FLAT, NULL);
        bool told;

        sf->on_point = block_in_steps;
        sf->user = &b;
        sf_run(sf, 0);
        told = sf_icr(sf, 0, 0x40, 1) == VAPIC_SIL_EXIT;
        assert_int_equal(b.moments, 3);
        assert_int_equal(told || b.saw, right); /* lost, unless the order is right */
        assert_true(sf_bit(sf, 1, APIC_IRR, 0x40));
        sf_free(sf);
    }
}

/* An entry that software takes away in the middle ends the IPI without harm. */
static void drop_entry(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    (void)cpu;
    if (point == VAPIC_SIL_POINT_RESOLVED)
        *sf_entry(sf, 1) = 0;
}

static void target_vanishes_in_between(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    sf->on_point = drop_entry;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 1ull << 56 | 0x40, 3ull << 32 | 1);
    sf_equal(*(uint32_t *)sf_memory(sf, 0x220), 0, "page 0");
    sf_free(sf);
}

/* Knob quirk_1235: after IsRunning was used and cleared, one IPI acts on the old value. */
static void erratum_1235(void **state)
{
    (void)state;
    for (int quirk = 0; quirk < 2; quirk++) {
        struct vapic_sil_knobs knobs = {.quirk_1235 = quirk};
        struct sf *sf = scene(FLAT, &knobs);

        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
        *sf_entry(sf, 1) &= ~AVIC_PHYSICAL_RUNNING;
        assert_int_equal(sf_icr(sf, 0, 0x41, 1), quirk ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        assert_true(sf_bit(sf, 1, APIC_IRR, 0x41)); /* posted, and nobody is told */
        sf_equal(sf->signals[1], 1 + quirk, "doorbells");
        if (quirk) {
            assert_int_equal(sf_icr(sf, 0, 0x42, 1), VAPIC_SIL_EXIT);
            sf_exit(sf, 0, 0x401, 1ull << 56 | 0x42, 1ull << 32 | 1);
        }
        sf_free(sf);
    }
}

/* What a processor remembers of one entry says nothing about another. */
static void erratum_1235_of_another(void **state)
{
    struct vapic_sil_knobs knobs = {.quirk_1235 = true};
    struct sf *sf = scene(FLAT, &knobs);

    (void)state;
    *sf_entry(sf, 9) &= ~AVIC_PHYSICAL_RUNNING;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
    assert_int_equal(sf_icr(sf, 0, 0x41, 9), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 9ull << 56 | 0x41, 1ull << 32 | 9);
    sf_free(sf);
}

/* The mitigation: IsRunning is never published. */
static void erratum_1235_mitigated(void **state)
{
    struct vapic_sil_knobs knobs = {.quirk_1235 = true};
    struct sf *sf = scene(FLAT, &knobs);

    (void)state;
    *sf_entry(sf, 1) &= ~AVIC_PHYSICAL_RUNNING;
    for (uint32_t i = 0; i < 10; i++) {
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40 + i, 1), VAPIC_SIL_EXIT);
        sf_exit(sf, 0, 0x401, 1ull << 56 | (0x40 + i), 1ull << 32 | 1);
    }
    sf_free(sf);
}

/* ---- The doorbell MSR [APM2 15.29.3.3] ---- */

static void doorbell_msr(void **state)
{
    (void)state;
    for (int narrow = 0; narrow < 2; narrow++) {
        struct vapic_sil_knobs knobs = {.doorbell_8bit = narrow};
        struct sf *sf = scene(FLAT, &knobs);

        assert_int_equal(vapic_sil_doorbell(&sf->machine, 3), VAPIC_SIL_DONE);
        sf_equal(rung(sf), 8, "doorbells");
        assert_int_equal(vapic_sil_doorbell(&sf->machine, 0x103),
                         narrow ? VAPIC_SIL_GP : VAPIC_SIL_DONE); /* nobody has this ID */
        assert_int_equal(vapic_sil_doorbell(&sf->machine, 0x100000000), VAPIC_SIL_GP);
        sf_equal(rung(sf), 8, "doorbells");
        sf_free(sf);
    }
}

/* An entry with the ID of no processor: the doorbell goes nowhere. */
static void doorbell_to_nobody(void **state)
{
    struct sf *sf = scene(FLAT, NULL);

    (void)state;
    *sf_entry(sf, 1) |= 0xFFF;
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
    sf_equal(rung(sf), 0, "doorbells");
    sf_equal(received(sf, 0x40), 2, "IRR");
    sf_free(sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(icr_matrix),
        cmocka_unit_test(target_sets),
        cmocka_unit_test(trap_01_all_or_nothing),
        cmocka_unit_test(trap_02_broadcast_skips_invalid),
        cmocka_unit_test(trap_03_two_idle_one_running),
        cmocka_unit_test(trap_05_all_ones_in_xavic),
        cmocka_unit_test(trap_06_cluster_15),
        cmocka_unit_test(trap_07_id_255),
        cmocka_unit_test(all_ones_in_x2avic),
        cmocka_unit_test(trap_08_beyond_max_index),
        cmocka_unit_test(trap_09_self_without_table),
        cmocka_unit_test(trap_10_nmi_with_vector_0),
        cmocka_unit_test(trap_11_vector_15),
        cmocka_unit_test(posting_and_tmr),
        cmocka_unit_test(trap_13_stale_tmr),
        cmocka_unit_test(trap_50_alone),
        cmocka_unit_test(empty_logical_destination),
        cmocka_unit_test(trap_27_max_index_is_inclusive),
        cmocka_unit_test(trap_28_entry_255_of_xavic),
        cmocka_unit_test(big_tables),
        cmocka_unit_test(x2_logical_ids),
        cmocka_unit_test(logical_table_decides),
        cmocka_unit_test(tables_outside_of_memory),
        cmocka_unit_test(trap_34_what_icr_keeps),
        cmocka_unit_test(self_ipi_register),
        cmocka_unit_test(target_stops_in_between),
        cmocka_unit_test(trap_19_order_of_blocking),
        cmocka_unit_test(target_vanishes_in_between),
        cmocka_unit_test(erratum_1235),
        cmocka_unit_test(erratum_1235_of_another),
        cmocka_unit_test(erratum_1235_mitigated),
        cmocka_unit_test(doorbell_msr),
        cmocka_unit_test(doorbell_to_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
