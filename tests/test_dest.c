/* SPDX-License-Identifier: MIT */
/*
 * Destinations: physical and logical, flat, cluster and x2APIC, broadcasts, aliases, both kinds of
 * APIC in one VM. [SDM3 12.6.2] [SDM3 12.12.9] [SDM3 12.12.10]
 */
#include "reference.h"

#define VECTOR 0x51

static struct fx *with(uint32_t vcpus, const uint32_t *ids, uint32_t knobs)
{
    return fx_new(&(struct fx_options){
        .vcpus = vcpus, .ids = ids, .config = {.knobs = knobs, .knobs_set = true}});
}

static void to_x2apic(struct fx *fx, uint32_t n)
{
    assert_int_equal(vapic_load_base(&fx->v[n], vapic_base(&fx->v[n]) | APIC_BASE_EXTD), VAPIC_OK);
}

/* Bit n: vCPU n has got VECTOR, exactly once. Ends the interrupt there. */
static uint32_t receivers(struct fx *fx)
{
    uint32_t set = 0;

    for (uint32_t n = 0; n < fx->vcpus; n++) {
        if (fx_take_eoi(fx, n) == VECTOR)
            set |= 1u << n;
        fx_equal(fx_take(fx, n), (uint64_t)-1, "vCPU %u got it twice", n);
    }
    return set;
}

static uint32_t ipi(struct fx *fx, uint32_t from, uint32_t bits, uint32_t dest)
{
    fx_icr(fx, from, bits | VECTOR, dest);
    return receivers(fx);
}

static uint32_t device(struct fx *fx, uint32_t bits, uint32_t dest)
{
    struct vapic_msg msg = {.icr = bits | VECTOR, .dest = dest, .source = VAPIC_FROM_DEVICE};

    vapic_send(&fx->vm, msg);
    return receivers(fx);
}

/* ---- A VM with everything that can go wrong about IDs ---- */

enum { A, B, C, D, E };
#define BIT(x)       (1u << (x))
#define X2APICS      (BIT(B) | BIT(D))
#define DEVICE       100
#define ALL_BUT_SELF 0xFFFFFFF0u /* no destination: the shorthand */

static struct fx *mixed(uint32_t knobs)
{
    static const uint32_t ids[] = {0, 1, 257, 258, 2};
    struct fx *fx = with(5, ids, knobs);

    to_x2apic(fx, B);
    to_x2apic(fx, D);
    fx_write(fx, E, APIC_ID, 1u << 24);
    fx_write(fx, A, APIC_LDR, 0x01000000);
    fx_write(fx, C, APIC_LDR, 0x02000000);
    fx_write(fx, E, APIC_LDR, 0x04000000);
    return fx;
}

static const struct {
    const char *name;
    uint32_t from, dest;
    uint32_t aliases; /* manual profile */
    uint32_t unique;  /* with UNIQUE_ID */
    uint32_t narrow;  /* with UNIQUE_ID, without DEVICE_BROADCAST_FF */
} worked[] = {
    {"A to 0", A, 0, BIT(A), BIT(A), BIT(A)},
    {"A to 1", A, 1, BIT(B) | BIT(C) | BIT(E), BIT(B), BIT(B)},
    {"B to 1", B, 1, BIT(B) | BIT(C) | BIT(E), BIT(B), BIT(B)},
    {"device to 1", DEVICE, 1, BIT(B) | BIT(C) | BIT(E), BIT(B), BIT(B)},
    {"A to 2", A, 2, 0, 0, 0},
    {"device to 2", DEVICE, 2, 0, 0, 0},
    {"B to 257", B, 257, BIT(C), BIT(C), BIT(C)},
    {"B to 258", B, 258, BIT(D), BIT(D), BIT(D)},
    {"A to FF", A, 0xFF, BIT(A) | BIT(C) | BIT(E), BIT(A) | BIT(C) | BIT(E),
     BIT(A) | BIT(C) | BIT(E)},
    {"B to FF", B, 0xFF, BIT(A) | BIT(C) | BIT(E), BIT(A) | BIT(C) | BIT(E),
     BIT(A) | BIT(C) | BIT(E)},
    {"B to FFFFFFFF", B, 0xFFFFFFFF, BIT(B) | BIT(D), BIT(B) | BIT(D), BIT(B) | BIT(D)},
    {"device to FF", DEVICE, 0xFF, 0x1F, 0x1F, BIT(A) | BIT(C) | BIT(E)},
    {"device to FFFFFFFF", DEVICE, 0xFFFFFFFF, BIT(B) | BIT(D), BIT(B) | BIT(D), BIT(B) | BIT(D)},
    {"A, all but self", A, ALL_BUT_SELF, 0x1E, 0x1E, 0x1E},
    {"B, all but self", B, ALL_BUT_SELF, 0x1D, 0x1D, 0x1D},
};

static void worked_table(uint32_t knobs, int column)
{
    struct fx *fx = mixed(knobs);

    for (uint32_t n = 0; n < sizeof(worked) / sizeof(worked[0]); n++) {
        uint32_t expected = column == 0   ? worked[n].aliases
                            : column == 1 ? worked[n].unique
                                          : worked[n].narrow;
        uint32_t got;

        if (worked[n].from == DEVICE)
            got = device(fx, 0, worked[n].dest);
        else if (worked[n].dest == ALL_BUT_SELF)
            got = ipi(fx, worked[n].from, APIC_ICR_ALL_EXCL, 0);
        else
            got = ipi(fx, worked[n].from, 0, worked[n].dest);
        fx_equal(got, expected, "%s", worked[n].name);
    }
    fx_free(fx);
}

static void worked_table_aliases(void **state)
{
    (void)state;
    worked_table(VAPIC_PROFILE_MANUAL, 0);
}

static void worked_table_unique_ids(void **state)
{
    (void)state;
    worked_table(VAPIC_PROFILE_MANUAL | VAPIC_KNOB_UNIQUE_ID, 1);
}

static void worked_table_narrow_device_broadcast(void **state)
{
    (void)state;
    worked_table((VAPIC_PROFILE_MANUAL | VAPIC_KNOB_UNIQUE_ID) & ~VAPIC_KNOB_DEVICE_BROADCAST_FF,
                 2);
}

/* The value 2 is cluster 0, bit 1 for an x2APIC, and bit 1 of a flat LDR for an xAPIC. */
static void logical_destination_in_a_mixed_vm(void **state)
{
    struct fx *fx = mixed(VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(ipi(fx, A, APIC_ICR_LOGICAL, 2), BIT(B) | BIT(C));
    assert_int_equal(ipi(fx, B, APIC_ICR_LOGICAL, 2), BIT(B) | BIT(C));
    assert_int_equal(ipi(fx, B, APIC_ICR_LOGICAL, 0x00100004) & X2APICS, BIT(D));
    assert_int_equal(ipi(fx, B, APIC_ICR_LOGICAL, 0xFFFFFFFF) & (BIT(B) | BIT(D)), BIT(B) | BIT(D));
    fx_free(fx);
}

/* ---- Physical [SDM3 12.6.2.1] ---- */

static void physical_single(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(&(struct fx_options){.vcpus = 8, .x2apic = x2apic != 0});

        for (uint32_t from = 0; from < 8; from++) {
            for (uint32_t dest = 0; dest < 12; dest++)
                fx_equal(ipi(fx, from, 0, dest), dest < 8 ? 1u << dest : 0, "%u to %u", from, dest);
        }
        fx_free(fx);
    }
}

static void trap_42_broadcast_and_all_including_self(void **state)
{
    struct fx *fx = with(6, NULL, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(ipi(fx, 2, 0, 0xFF), 0x3F);
    assert_int_equal(ipi(fx, 2, APIC_ICR_LOGICAL, 0xFF), 0x3F);
    assert_int_equal(ipi(fx, 2, APIC_ICR_ALL_INCL, 0), 0x3F);
    fx_free(fx);
}

static void broadcast_in_x2apic_mode(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 6, .x2apic = true});

    (void)state;
    assert_int_equal(ipi(fx, 2, 0, 0xFFFFFFFF), 0x3F);
    assert_int_equal(ipi(fx, 2, APIC_ICR_LOGICAL, 0xFFFFFFFF), 0x3F);
    assert_int_equal(ipi(fx, 2, 0, 0xFF), 0);
    assert_int_equal(ipi(fx, 2, APIC_ICR_LOGICAL, 0xFF), 0x3F); /* cluster 0, bits 7:0 */
    fx_free(fx);
}

/* All 255 IDs of the 8-bit form, as written by the guest, and every one twice. */
static void every_8_bit_id(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3});

    (void)state;
    for (uint32_t id = 0; id < 0xFF; id++) {
        uint32_t other = (id + 0x80) % 0xFF;

        fx_write(fx, 0, APIC_ID, other << 24);
        fx_write(fx, 1, APIC_ID, id << 24);
        fx_write(fx, 2, APIC_ID, id << 24);
        fx_equal(ipi(fx, 0, 0, id), 0x6, "ID %x, IPI", id);
        fx_equal(device(fx, 0, id), 0x6, "ID %x, device", id);
        fx_equal(device(fx, APIC_ICR_LEVEL | APIC_ICR_ASSERT, id), 0x6, "ID %x, level", id);
        fx_write(fx, 2, APIC_ID, other << 24);
        fx_equal(ipi(fx, 0, 0, id), 0x2, "ID %x, alone", id);
        fx_equal(ipi(fx, 1, 0, other), 0x5, "ID %x, the others", id);
    }
    fx_free(fx);
}

/* FFh is an ordinary ID for an x2APIC. */
static void id_ff_in_x2apic_mode(void **state)
{
    struct fx *fx =
        fx_new(&(struct fx_options){.vcpus = 3, .ids = (uint32_t[]){0, 1, 0xFF}, .x2apic = true});

    (void)state;
    assert_int_equal(ipi(fx, 0, 0, 0xFF), 0x4);
    assert_int_equal(device(fx, 0, 0xFF), 0x7);
    fx_free(fx);
}

static void trap_45_aliased_ids(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 4, .no_features = true});

    (void)state;
    fx_write(fx, 1, APIC_ID, 7u << 24);
    fx_write(fx, 3, APIC_ID, 7u << 24);
    assert_int_equal(ipi(fx, 0, 0, 7), 0xA);
    assert_int_equal(ipi(fx, 0, 0, 1), 0);
    fx_write(fx, 1, APIC_ID, 1u << 24);
    assert_int_equal(ipi(fx, 0, 0, 7), 0x8);
    assert_int_equal(ipi(fx, 0, 0, 1), 0x2);
    fx_free(fx);
}

/* Above FFh an xAPIC answers by its real ID, below by the low byte. */
static void wide_ids_in_xapic_mode(void **state)
{
    static const uint32_t ids[] = {0, 0x101, 0x305};
    struct fx *fx = with(3, ids, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(device(fx, 0, 0x101), 0x2);
    assert_int_equal(device(fx, 0, 1), 0x2);
    assert_int_equal(device(fx, 0, 0x305), 0x4);
    assert_int_equal(device(fx, 0, 5), 0x4);
    assert_int_equal(device(fx, 0, 0x105), 0);
    assert_int_equal(device(fx, 0, 0xFFFFFFFF), 0);
    fx_free(fx);
}

/* As on silicon, with the knob: the low byte reaches xAPICs, whoever sends. */
static void wide_ids_alias_with_the_knob(void **state)
{
    static const uint32_t ids[] = {0, 1, 0x101, 0x202, 0x305};
    struct fx *fx = with(5, ids, VAPIC_PROFILE_MANUAL | VAPIC_KNOB_X2APIC_ALIASES_XAPIC);

    (void)state;
    to_x2apic(fx, 0);
    to_x2apic(fx, 2);
    to_x2apic(fx, 3);
    assert_int_equal(ipi(fx, 0, 0, 0x101), 0x6);
    assert_int_equal(device(fx, 0, 0x101), 0x6);
    assert_int_equal(ipi(fx, 0, 0, 0x202), 0x8);
    assert_int_equal(ipi(fx, 0, 0, 0x7701), 0x2);
    assert_int_equal(ipi(fx, 0, 0, 0x305), 0x10);
    assert_int_equal(ipi(fx, 0, 0, 0xFFFFFFFF), 0xD);
    fx_free(fx);
}

/* ---- Logical, flat model [SDM3 12.6.2.2] ---- */

static struct fx *flat(uint32_t vcpus)
{
    struct fx *fx = with(vcpus, NULL, VAPIC_PROFILE_MANUAL);

    for (uint32_t n = 0; n < vcpus; n++)
        fx_write(fx, n, APIC_LDR, 1u << (24 + n));
    return fx;
}

static void trap_43_flat_sets(void **state)
{
    struct fx *fx = flat(8);

    (void)state;
    for (uint32_t set = 0; set < 256; set++)
        fx_equal(ipi(fx, 0, APIC_ICR_LOGICAL, set), set, "flat %x", set);
    fx_free(fx);
}

static void flat_ldr_of_several_bits(void **state)
{
    struct fx *fx = flat(3);

    (void)state;
    fx_write(fx, 1, APIC_LDR, 0xF0000000);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x10), 0x2);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xC0), 0x2);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x02), 0);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x85), 0x7);
    fx_free(fx);
}

/* FFh is everybody, also who has no logical ID. */
static void flat_broadcast_without_ldr(void **state)
{
    struct fx *fx = with(3, NULL, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xFF), 0x7);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xFE), 0);
    fx_free(fx);
}

/* ---- Logical, cluster model ---- */

static void trap_43_clusters(void **state)
{
    struct fx *fx = with(12, NULL, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t n = 0; n < 12; n++) {
        fx_write(fx, n, APIC_DFR, APIC_DFR_CLUSTER);
        fx_write(fx, n, APIC_LDR, (n / 4 << 4 | 1u << n % 4) << 24);
    }
    for (uint32_t dest = 0; dest < 0xFF; dest++) {
        uint32_t cluster = dest >> 4;
        uint32_t expected = cluster < 3 ? (dest & 15) << (4 * cluster) : 0;

        fx_equal(ipi(fx, 5, APIC_ICR_LOGICAL, dest), expected, "cluster %x", dest);
    }
    assert_int_equal(ipi(fx, 5, APIC_ICR_LOGICAL, 0xFF), 0xFFF);
    fx_free(fx);
}

/* Cluster Fh is an ordinary one but for FFh. */
static void cluster_15(void **state)
{
    struct fx *fx = with(2, NULL, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        fx_write(fx, n, APIC_DFR, APIC_DFR_CLUSTER);
        fx_write(fx, n, APIC_LDR, (0xF0u | 1u << n) << 24);
    }
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xF2), 0x2);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xFF), 0x3);
    fx_free(fx);
}

static void trap_44_equal_ldr_and_both_models(void **state)
{
    struct fx *fx = flat(4);

    (void)state;
    fx_write(fx, 2, APIC_LDR, 0x02000000);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x02), 0x6);
    fx_write(fx, 3, APIC_DFR, APIC_DFR_CLUSTER);
    fx_write(fx, 3, APIC_LDR, 0x12000000);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x12), 0xE); /* flat: bit 1; cluster 1, bit 1 */
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x22), 0x6);
    fx_free(fx);
}

/* DFR before LDR or after: the final pair counts. */
static void dfr_and_ldr_in_either_order(void **state)
{
    struct fx *fx = with(2, NULL, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_write(fx, 0, APIC_LDR, 0x21000000);
    fx_write(fx, 0, APIC_DFR, APIC_DFR_CLUSTER);
    fx_write(fx, 1, APIC_DFR, APIC_DFR_CLUSTER);
    fx_write(fx, 1, APIC_LDR, 0x22000000);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x23), 0x3);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x01), 0);
    fx_free(fx);
}

static void other_models_match_broadcast_only(void **state)
{
    (void)state;
    for (uint32_t model = 1; model < 15; model++) {
        struct fx *fx = flat(2);

        fx_write(fx, 1, APIC_DFR, model << 28);
        fx_equal(fx_read(fx, 1, APIC_DFR), model << 28 | 0x0FFFFFFF, "DFR %x", model);
        fx_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x02), 0, "DFR %x", model);
        fx_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xFF), 0x3, "DFR %x, broadcast", model);
        fx_free(fx);
    }
}

/* ---- Logical, x2APIC [SDM3 12.12.10.2] ---- */

static void x2apic_clusters(void **state)
{
    static const uint32_t ids[] = {0, 1, 15, 16, 0x2F, 0xFFFF0, 0x12345};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 7, .ids = ids, .x2apic = true});

    (void)state;
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x00000003), 0x3);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x0000FFFF), 0x7);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x0001FFFF), 0x8);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x00028000), 0x10);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0xFFFF0001), 0x20);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x12340020), 0x40);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x12340000), 0);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x55550001), 0);
    fx_free(fx);
}

/* IDs above FFFFFh share logical IDs: both get it. */
static void x2apic_logical_aliases(void **state)
{
    static const uint32_t ids[] = {0, 0x12, 0x500012, 0xABC00012};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 4, .ids = ids, .x2apic = true});

    (void)state;
    assert_int_equal(fx_get(fx, 1, APIC_LDR), fx_get(fx, 2, APIC_LDR));
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x00010004), 0xE);
    fx_free(fx);
}

static void partial_clusters(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 20, .x2apic = true});

    (void)state;
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x0001FFFF), 0xF0000);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x0001FFF0), 0);
    fx_free(fx);
}

/* ---- Who cannot receive ---- */

static void software_disabled_takes_no_fixed(void **state)
{
    struct fx *fx = flat(3);

    (void)state;
    fx_set(fx, 1, APIC_SVR, 0xFF);
    assert_int_equal(ipi(fx, 0, 0, 1), 0);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x7), 0x5);
    assert_int_equal(ipi(fx, 0, 0, 0xFF), 0x5);
    fx_set(fx, 1, APIC_SVR, 0x1FF);
    assert_int_equal(ipi(fx, 0, 0, 1), 0x2);
    fx_free(fx);
}

static void disabled_receives_nothing(void **state)
{
    struct fx *fx = flat(3);
    uint64_t base = vapic_base(&fx->v[1]);

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 1, MSR_APIC_BASE, base & ~(uint64_t)APIC_BASE_EN), VAPIC_OK);
    assert_int_equal(ipi(fx, 0, 0, 1), 0);
    assert_int_equal(ipi(fx, 0, APIC_ICR_LOGICAL, 0x7), 0x5);
    assert_int_equal(ipi(fx, 0, 0, 0xFF), 0x5);
    assert_int_equal(ipi(fx, 0, APIC_ICR_ALL_INCL, 0), 0x5);
    assert_int_equal(fx_wrmsr(fx, 1, MSR_APIC_BASE, base), VAPIC_OK);
    assert_int_equal(ipi(fx, 0, 0, 1), 0x2);
    fx_free(fx);
}

/* ---- Random VMs and messages against the rules, target by target ---- */

static uint32_t random_id(uint32_t *seed, uint32_t n)
{
    static const uint32_t spread[] = {0, 0x100, 0x10000, 0x7FFF0000};

    return n + spread[ref_random(seed) % 4];
}

/* An LDR with few bits set: most messages then find somebody, and few find everybody. */
static uint32_t sparse_ldr(uint32_t *seed)
{
    uint32_t bits = ref_random(seed);

    bits &= ref_random(seed);
    return bits & 0xFF000000;
}

static void random_vcpu(struct fx *fx, uint32_t n, uint32_t *seed)
{
    static const uint32_t models[] = {APIC_DFR_FLAT, APIC_DFR_FLAT, APIC_DFR_CLUSTER, 0x70000000};
    uint64_t base = APIC_DEFAULT_BASE | APIC_BASE_EN | (n == 0 ? APIC_BASE_BSP : 0);

    assert_int_equal(vapic_load_base(&fx->v[n], base), VAPIC_OK);
    fx_write(fx, n, APIC_DFR, models[ref_random(seed) % 4]);
    fx_write(fx, n, APIC_LDR, sparse_ldr(seed));
    if (ref_random(seed) % 3 == 0)
        fx_write(fx, n, APIC_ID, (ref_random(seed) % 12 | (ref_random(seed) & 0x80)) << 24);
    fx_write(fx, n, APIC_SVR, ref_random(seed) % 8 == 0 ? 0xFF : 0x1FF);
    if (ref_random(seed) % 2 == 0)
        to_x2apic(fx, n);
    if (ref_random(seed) % 8 == 0)
        assert_int_equal(vapic_load_base(&fx->v[n], base & ~(uint64_t)APIC_BASE_EN), VAPIC_OK);
}

static struct ref_msg random_message(struct fx *fx, uint32_t *seed)
{
    static const uint32_t some[] = {0xFF, 0xFFFFFFFF, 0x100, 0x0000FFFF, 0x00010003};
    struct ref_msg msg = {.device = ref_random(seed) % 2 == 0,
                          .logical = ref_random(seed) % 2 == 0};
    uint32_t n = ref_random(seed) % fx->vcpus;

    switch (ref_random(seed) % 4) {
    case 0:
        msg.dest = vapic_id(&fx->v[n]);
        break;
    case 1:
        msg.dest = ref_random(seed) % 256;
        break;
    case 2:
        msg.dest = some[ref_random(seed) % 5];
        break;
    default:
        msg.dest = ref_random(seed) & 0x0000F00F;
        break;
    }
    return msg;
}

/* The manuals do not say what an xAPIC makes of a wide logical destination. */
static bool undefined(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    return msg.logical && msg.dest > 0xFF && !ref_x2apic(fx, n);
}

static void ignore_event(void *ctx, const struct vapic_event *event)
{
    (void)ctx;
    (void)event;
}

/* Can this vCPU name the destination in its ICR? */
static bool can_send(struct fx *fx, uint32_t n, struct ref_msg msg)
{
    return ref_enabled(fx, n) && (msg.dest <= 0xFF || ref_x2apic(fx, n));
}

/*
 * The message by the way that it would take: ICR or MSI, each with and without somebody listening,
 * for these take shorter paths through the library than vapic_send(), which is the third.
 */
static void send_somehow(struct fx *fx, struct ref_msg msg, uint32_t *seed)
{
    uint32_t from = ref_random(seed) % fx->vcpus, logical = msg.logical ? APIC_ICR_LOGICAL : 0;

    vapic_trace(&fx->vm, ref_random(seed) % 2 ? ignore_event : NULL, NULL);
    if (ref_random(seed) % 4 != 0 && !msg.device && can_send(fx, from, msg))
        fx_icr(fx, from, logical | VECTOR, msg.dest);
    else if (ref_random(seed) % 4 != 0 && msg.device && msg.dest <= 0xFF)
        vapic_msi(&fx->vm, 0xFEE00000 | msg.dest << 12 | (msg.logical ? 4 : 0), VECTOR);
    else
        vapic_send(&fx->vm, ref_message(msg, 0, VECTOR));
    vapic_trace(&fx->vm, NULL, NULL);
}

static void random_message_agrees(struct fx *fx, uint32_t vm, uint32_t *seed)
{
    struct ref_msg msg = random_message(fx, seed);
    bool expected[32] = {false};

    for (uint32_t n = 0; n < fx->vcpus; n++)
        expected[n] = ref_enabled(fx, n) && ref_takes_fixed(fx, n, msg);
    send_somehow(fx, msg, seed);
    for (uint32_t n = 0; n < fx->vcpus; n++) {
        bool got = fx_take_eoi(fx, n) == VECTOR;

        if (undefined(fx, n, msg))
            continue;
        fx_equal(got, expected[n], "VM %u, %s %x%s at %u", vm, msg.logical ? "logical" : "physical",
                 msg.dest, msg.device ? ", device" : "", n);
    }
}

static void random_vm_agrees(uint32_t vm, uint32_t knobs)
{
    uint32_t seed = 0x9E3779B9u * (vm + 1);
    uint32_t ids[12];
    uint32_t vcpus = 2 + vm % 11;
    struct fx *fx;

    for (uint32_t n = 0; n < vcpus; n++)
        ids[n] = random_id(&seed, n);
    fx = fx_new(&(struct fx_options){
        .vcpus = vcpus, .ids = ids, .config = {.knobs = knobs, .knobs_set = true}});
    for (int round = 0; round < 3; round++) {
        for (uint32_t n = 0; n < vcpus; n++)
            random_vcpu(fx, n, &seed);
        for (int n = 0; n < 60; n++)
            random_message_agrees(fx, vm, &seed);
    }
    fx_free(fx);
}

static void agrees_with_the_rules(void **state)
{
    static const uint32_t knobs[] = {
        VAPIC_PROFILE_MANUAL,
        VAPIC_PROFILE_MANUAL & ~VAPIC_KNOB_DEVICE_BROADCAST_FF,
        VAPIC_PROFILE_MANUAL & ~VAPIC_KNOB_WIDE_XAPIC,
        VAPIC_PROFILE_MANUAL | VAPIC_KNOB_X2APIC_ALIASES_XAPIC,
    };

    (void)state;
    for (uint32_t vm = 0; vm < 200; vm++)
        random_vm_agrees(vm, knobs[vm % 4]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_table_aliases),
        cmocka_unit_test(worked_table_unique_ids),
        cmocka_unit_test(worked_table_narrow_device_broadcast),
        cmocka_unit_test(logical_destination_in_a_mixed_vm),
        cmocka_unit_test(physical_single),
        cmocka_unit_test(trap_42_broadcast_and_all_including_self),
        cmocka_unit_test(broadcast_in_x2apic_mode),
        cmocka_unit_test(every_8_bit_id),
        cmocka_unit_test(id_ff_in_x2apic_mode),
        cmocka_unit_test(trap_45_aliased_ids),
        cmocka_unit_test(wide_ids_in_xapic_mode),
        cmocka_unit_test(wide_ids_alias_with_the_knob),
        cmocka_unit_test(trap_43_flat_sets),
        cmocka_unit_test(flat_ldr_of_several_bits),
        cmocka_unit_test(flat_broadcast_without_ldr),
        cmocka_unit_test(trap_43_clusters),
        cmocka_unit_test(cluster_15),
        cmocka_unit_test(trap_44_equal_ldr_and_both_models),
        cmocka_unit_test(dfr_and_ldr_in_either_order),
        cmocka_unit_test(other_models_match_broadcast_only),
        cmocka_unit_test(x2apic_clusters),
        cmocka_unit_test(x2apic_logical_aliases),
        cmocka_unit_test(partial_clusters),
        cmocka_unit_test(software_disabled_takes_no_fixed),
        cmocka_unit_test(disabled_receives_nothing),
        cmocka_unit_test(agrees_with_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
