/* SPDX-License-Identifier: MIT */
/*
 * The register file: its table against the manuals, the values after RESET and INIT, the bits of
 * each register that a guest can change. [SDM3 T12-1] [SDM3 12.4.7.1] [SDM3 12.4.7.3]
 */
#include "fixture.h"
#include "registers.h"

#define ALL_FEATURES                                                                               \
    (VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_CMCI |                      \
     VAPIC_FEATURE_EOI_SUPPRESS | VAPIC_FEATURE_AMD_EXT)

#define NOT_RDMSR (unsigned)(VAPIC_X_R | VAPIC_X_W | VAPIC_X2_W)

static struct fx *plain(uint32_t features, uint32_t knobs)
{
    return fx_new(&(struct fx_options){.no_features = true,
                                       .features = features,
                                       .soft_disabled = true,
                                       .config = {.knobs = knobs, .knobs_set = true}});
}

/* ---- The library's table ---- */

static void table_access_rights(void **state)
{
    (void)state;
    for (uint32_t offset = 0; offset < 0x1000; offset += 16) {
        const struct vapic_reg *row = vapic_reg_at(offset);
        unsigned expected = expected_access(offset, ALL_FEATURES);

        fx_equal(row == NULL ? 0 : row->access & NOT_RDMSR, expected & NOT_RDMSR, "access of %x",
                 offset);
        if (offset != APIC_APR) /* AMD reads it by MSR, Intel does not */
            fx_equal(row == NULL ? 0 : row->access & VAPIC_X2_R, expected & VAPIC_X2_R,
                     "RDMSR of %x", offset);
    }
}

static void table_needs(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < EXPECTED_REGS; n++) {
        const struct vapic_reg *row = vapic_reg_at(expected_regs[n].offset);

        assert_non_null(row);
        fx_equal(row->need == VAPIC_NEED_CMCI, expected_regs[n].feature == VAPIC_FEATURE_CMCI,
                 "%s needs CMCI", row->name);
        fx_equal(row->need == VAPIC_NEED_PMC, row->offset == APIC_LVT_PMC, "%s needs 5 entries",
                 row->name);
        fx_equal(row->need == VAPIC_NEED_THERMAL, row->offset == APIC_LVT_THERMAL,
                 "%s needs 6 entries", row->name);
        fx_equal(row->need == VAPIC_NEED_AMD_EXT, expected_regs[n].feature == VAPIC_FEATURE_AMD_EXT,
                 "%s needs AMD's space", row->name);
    }
}

static void table_rows_cover_their_words(void **state)
{
    const struct vapic_reg *row;
    uint32_t rows = 0;

    (void)state;
    for (; (row = vapic_reg_row(rows)) != NULL; rows++) {
        assert_non_null(row->name);
        assert_int_equal(row->offset % 16, 0);
        assert_true(row->count > 0);
        for (uint32_t word = 0; word < row->count; word++)
            fx_equal((uintptr_t)vapic_reg_at(row->offset + 16 * word), (uintptr_t)row, "%s word %u",
                     row->name, word);
        assert_null(vapic_reg_row(1000));
    }
    assert_int_equal(rows, EXPECTED_REGS);
}

static void table_ends(void **state)
{
    (void)state;
    assert_null(vapic_reg_at(0x1000));
    assert_null(vapic_reg_at(0xFFFFFFF0));
    assert_null(vapic_reg_at(0x540));
    assert_null(vapic_reg_row(VAPIC_NO_INDEX));
}

/* ---- RESET ---- */

static void check_reset_values(struct fx *fx, uint32_t features, const char *when)
{
    for (uint32_t n = 0; n < EXPECTED_REGS; n++) {
        const struct expected_reg *row = &expected_regs[n];

        if ((row->feature & features) != row->feature || !(row->access & VAPIC_X_R) ||
            row->offset == APIC_LVR)
            continue;
        for (uint32_t word = 0; word < row->count; word++)
            fx_equal(fx_read(fx, 0, row->offset + 16 * word), row->reset, "%s: register %x", when,
                     row->offset + 16 * word);
    }
}

static void values_after_init_call(void **state)
{
    struct fx *fx = plain(ALL_FEATURES, VAPIC_PROFILE_MANUAL);

    (void)state;
    check_reset_values(fx, ALL_FEATURES, "start");
    fx_free(fx);
}

/* Leaves nothing at its reset value. */
static void disturb(struct fx *fx)
{
    static const struct {
        uint32_t offset, value;
    } writes[] = {
        {APIC_SVR, 0x1FF},        {APIC_ID, 0x42000000},      {APIC_TPR, 0x20},
        {APIC_LDR, 0x04000000},   {APIC_DFR, 0x0FFFFFFF},     {APIC_LVT_TIMER, 0x20031},
        {APIC_LVT_THERMAL, 0x32}, {APIC_LVT_PMC, 0x33},       {APIC_LVT_LINT0, 0x34},
        {APIC_LVT_LINT1, 0x35},   {APIC_LVT_ERROR, 0x36},     {APIC_LVT_CMCI, 0x37},
        {APIC_TDCR, 0xB},         {APIC_TMICT, 0x1000},       {APIC_EACR, 7},
        {APIC_IER, 0x11111111},   {APIC_EILVT + 16, 0x102F1}, {APIC_ICR2, 0x42000000},
        {APIC_ICR, 0x40061},
    };

    for (uint32_t n = 0; n < sizeof(writes) / sizeof(writes[0]); n++)
        fx_write(fx, 0, writes[n].offset, writes[n].value);
    fx_read(fx, 0, 0x3A0); /* an error for ESR */
    fx_write(fx, 0, APIC_ESR, 0);
    vapic_post(&fx->v[0], 0x91, false, NULL);
    assert_int_equal(fx_take(fx, 0), 0x91);
    vapic_post(&fx->v[0], 0x71, true, NULL);
    vapic_post(&fx->v[0], 0xC1, true, NULL);
}

/* [SDM3 12.4.7.1] [SDM3 11.1.1] */
static void values_after_reset(void **state)
{
    struct fx *fx = plain(ALL_FEATURES, VAPIC_PROFILE_MANUAL);

    (void)state;
    disturb(fx);
    vapic_reset(&fx->v[0]);
    check_reset_values(fx, ALL_FEATURES, "RESET");
    assert_int_equal(fx_peek(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

/* [SDM3 12.4.7.3] INIT leaves the ID and the base as they are. */
static void values_after_init(void **state)
{
    struct fx *fx = plain(ALL_FEATURES, VAPIC_PROFILE_MANUAL);
    uint64_t base;

    (void)state;
    disturb(fx);
    base = vapic_base(&fx->v[0]);
    fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0x42);
    fx_settle(fx);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x42000000);
    fx_write(fx, 0, APIC_ID, 0);
    check_reset_values(fx, ALL_FEATURES, "INIT");
    assert_int_equal(vapic_base(&fx->v[0]), base);
    fx_free(fx);
}

/* ... and an x2APIC stays one, with the LDR that follows from its ID. [SDM3 12.12.5.1] */
static void init_in_x2apic_mode(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x25}, .x2apic = true});

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0x30);
    fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0x25);
    fx_settle(fx);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x25);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 0x00020020);
    assert_int_equal(fx_get(fx, 0, APIC_TPR), 0);
    assert_int_equal(fx_get(fx, 0, APIC_SVR), 0xFF);
    fx_free(fx);
}

/* DFR is invisible in x2APIC mode; back in xAPIC mode it shows the value of INIT. */
static void init_in_x2apic_mode_resets_dfr(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_write(fx, 0, APIC_DFR, APIC_DFR_CLUSTER);
    assert_int_equal(vapic_load_base(&fx->v[0], vapic_base(&fx->v[0]) | APIC_BASE_EXTD), VAPIC_OK);
    fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0);
    fx_settle(fx);
    assert_int_equal(vapic_load_base(&fx->v[0], vapic_base(&fx->v[0]) & ~(uint64_t)APIC_BASE_EXTD),
                     VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_DFR), APIC_DFR_FLAT);
    fx_free(fx);
}

/* [SDM3 12.4.7.1] from x2APIC mode with other IDs */
static void reset_restores_the_id(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}});

    (void)state;
    fx_write(fx, 0, APIC_ID, 0x09000000);
    vapic_reset(&fx->v[0]);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    fx_free(fx);
}

static void reset_stops_the_timer(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_PERIODIC | 0x31);
    fx_set(fx, 0, APIC_TMICT, 1000000);
    vapic_reset(&fx->v[0]);
    fx->now.ns += 10000000;
    assert_int_equal(fx_peek(fx, 0, FX_CAN_ALL).deadline.clock, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

/*
 * A sender on another thread found the APIC enabled just before RESET or INIT and posts just after:
 * for the guest that message came before, whenever the owner looks.
 */
static void late_post_is_dropped(void **state)
{
    (void)state;
    for (int init = 0; init < 2; init++) {
        for (int looks = 0; looks < 2; looks++) {
            struct fx *fx = fx_new(NULL);

            if (init)
                fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0);
            else
                vapic_reset(&fx->v[0]);
            fx_settle(fx);
            fx->v[0].pid.pir[0x91 / 64] |= UINT64_C(1) << (0x91 % 64);
            fx->v[0].pid.control |= 1;
            if (looks)
                fx_equal(fx_take(fx, 0), (uint64_t)-1, "init %d", init);
            fx_set(fx, 0, APIC_SVR, 0x1FF);
            fx_equal(fx_take(fx, 0), (uint64_t)-1, "init %d, looks %d", init, looks);
            fx_equal(fx_bit(fx, 0, APIC_IRR, 0x91), 0, "init %d, looks %d, IRR", init, looks);
            vapic_post(&fx->v[0], 0x92, false, NULL);
            fx_equal(fx_take(fx, 0), 0x92, "init %d, the next", init);
            fx_free(fx);
        }
    }
}

static void reset_drops_events(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;

    (void)state;
    vapic_nmi(&fx->v[0]);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 0);
    vapic_reset(&fx->v[0]);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    assert_int_equal(entry.event, VAPIC_CPU_NONE);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

/* ---- Version [SDM3 12.4.8] ---- */

static const struct {
    uint32_t features;
    uint8_t version;
    uint32_t expected;
} versions[] = {
    {0, 0, 0x00050014},
    {VAPIC_FEATURE_CMCI, 0, 0x00060014},
    {VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_EOI_SUPPRESS, 0, 0x01050014},
    {VAPIC_FEATURE_AMD_EXT, 0, 0x80050014},
    {0, 0x10, 0x00050010},
    {VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT | VAPIC_FEATURE_CMCI, 0x15, 0x80060015},
};

static void version_register(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++) {
        struct fx *fx = fx_new(&(struct fx_options){
            .no_features = true, .features = versions[n].features, .version = versions[n].version});

        fx_equal(fx_read(fx, 0, APIC_LVR), versions[n].expected, "row %u", n);
        fx_free(fx);
    }
}

static void trap_16_version(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(fx_read(fx, 0, APIC_LVR) & 0xFFFF, 0x0014);
    fx_free(fx);
}

static struct fx *with_max_lvt(uint32_t features, uint8_t max_lvt, int *result)
{
    struct fx *fx = fx_new(&(struct fx_options){.not_added = true, .soft_disabled = true});
    struct vapic_config config = {.bsp = true, .features = features, .max_lvt = max_lvt};

    *result = vapic_init(&fx->v[0], sizeof(fx->v[0]), &fx->vm, &config, fx->pages);
    return fx;
}

/* Which entries there are follows from the maximum LVT index, CMCI being the last. */
static void max_lvt_index(void **state)
{
    (void)state;
    for (uint8_t max = 0; max < 9; max++) {
        for (int cmci = 0; cmci < 2; cmci++) {
            int expected = max == 0 || (cmci ? max == 6 : max >= 3 && max <= 5) ? 0 : VAPIC_E_ARG;
            uint32_t shown = max != 0 ? max : cmci ? 6 : 5;
            int result;
            struct fx *fx = with_max_lvt(cmci ? VAPIC_FEATURE_CMCI : 0, max, &result);

            fx_equal(result, (uint64_t)(int64_t)expected, "index %u, CMCI %d", max, cmci);
            if (result == VAPIC_OK)
                fx_equal(fx_read(fx, 0, APIC_LVR) >> 16 & 0xFF, shown, "index %u", max);
            fx_free(fx);
        }
    }
}

static const struct {
    uint32_t offset;
    uint8_t first; /* the smallest maximum index with which it exists */
} optional_lvts[] = {
    {APIC_LVT_TIMER, 3}, {APIC_LVT_LINT0, 3}, {APIC_LVT_LINT1, 3},
    {APIC_LVT_ERROR, 3}, {APIC_LVT_PMC, 4},   {APIC_LVT_THERMAL, 5},
};

#define OPTIONAL_LVTS (sizeof(optional_lvts) / sizeof(optional_lvts[0]))

/* [SDM3 12.5.1] an entry that is not there is a reserved register */
static void absent_lvt_entries(void **state)
{
    (void)state;
    for (uint8_t max = 3; max <= 5; max++) {
        for (uint32_t n = 0; n < OPTIONAL_LVTS; n++) {
            bool there = max >= optional_lvts[n].first;
            uint32_t offset = optional_lvts[n].offset;
            int result;
            struct fx *fx = with_max_lvt(VAPIC_FEATURE_X2APIC, max, &result);
            uint64_t value;

            fx_set(fx, 0, APIC_SVR, 0x1FF);
            fx_write(fx, 0, offset, 0x10031);
            fx_equal(fx_read(fx, 0, offset), there ? 0x10031 : 0, "%x, index %u", offset, max);
            fx_write(fx, 0, APIC_ESR, 0);
            fx_equal(fx_read(fx, 0, APIC_ESR), there ? 0 : APIC_ESR_ILLEGAL_REG,
                     "%x, index %u, ESR", offset, max);
            fx_write(fx, 0, offset, 0x51);
            vapic_local_event(&fx->v[0], offset);
            if (optional_lvts[n].first > 3)
                fx_equal(fx_take_eoi(fx, 0), there ? 0x51 : (uint64_t)-1, "%x, index %u, event",
                         offset, max);
            assert_int_equal(vapic_load_base(&fx->v[0], vapic_base(&fx->v[0]) | APIC_BASE_EXTD), 0);
            fx_equal(fx_rdmsr(fx, 0, 0x800 + offset / 16, &value), there ? VAPIC_OK : VAPIC_GP,
                     "RDMSR %x, index %u", offset, max);
            fx_equal(fx_wrmsr(fx, 0, 0x800 + offset / 16, 0x10031), there ? VAPIC_OK : VAPIC_GP,
                     "WRMSR %x, index %u", offset, max);
            fx_free(fx);
        }
    }
}

static void version_is_read_only(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint32_t before = fx_read(fx, 0, APIC_LVR);

    (void)state;
    fx_write(fx, 0, APIC_LVR, ~before);
    assert_int_equal(fx_read(fx, 0, APIC_LVR), before);
    fx_free(fx);
}

/* ---- Writable bits ---- */

/* What a write of all ones leaves, after a write of zeros. [SDM3 12.5.1] [APM2 16.4.5] */
struct mask_row {
    uint32_t offset;
    uint32_t zeros, ones; /* manual profile */
    uint32_t kvm;         /* ones in the kvm profile, where delivery status is stored */
};

static const struct mask_row masks[] = {
    {APIC_ID, 0, 0xFF000000, 0xFF000000},
    {APIC_TPR, 0, 0xFF, 0xFF},
    {APIC_LDR, 0, 0xFF000000, 0xFF000000},
    {APIC_DFR, 0x0FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF},
    {APIC_LVT_CMCI, 0, 0x107FF, 0x117FF},
    {APIC_ICR2, 0, 0xFF000000, 0xFF000000},
    {APIC_LVT_TIMER, 0, 0x700FF, 0x710FF},
    {APIC_LVT_THERMAL, 0, 0x107FF, 0x117FF},
    {APIC_LVT_PMC, 0, 0x107FF, 0x117FF},
    {APIC_LVT_LINT0, 0, 0x1A7FF, 0x1F7FF},
    {APIC_LVT_LINT1, 0, 0x1A7FF, 0x1F7FF},
    {APIC_LVT_ERROR, 0, 0x100FF, 0x110FF},
    {APIC_TDCR, 0, 0xB, 0xB},
    {APIC_EACR, 0, 7, 7},
    {APIC_SEOI, 0, 0xFF, 0xFF},
    {APIC_IER, 0, 0xFFFFFFFF, 0xFFFFFFFF},
    {APIC_IER + 0x70, 0, 0xFFFFFFFF, 0xFFFFFFFF},
    {APIC_EILVT, 0, 0x107FF, 0x107FF},
    {APIC_EILVT + 0x30, 0, 0x107FF, 0x107FF},
    {APIC_TMICT, 0, 0xFFFFFFFF, 0xFFFFFFFF},
};

#define MASKS (sizeof(masks) / sizeof(masks[0]))

static void writable_bits(void **state)
{
    (void)state;
    for (int kvm = 0; kvm < 2; kvm++) {
        uint32_t knobs = kvm ? VAPIC_PROFILE_KVM : VAPIC_PROFILE_MANUAL;

        for (uint32_t n = 0; n < MASKS; n++) {
            struct fx *fx = plain(ALL_FEATURES, knobs);
            uint32_t offset = masks[n].offset;

            fx_write(fx, 0, APIC_SVR, 0x1FF);
            fx_write(fx, 0, offset, 0);
            fx_equal(fx_read(fx, 0, offset), masks[n].zeros, "%x := 0, kvm %d", offset, kvm);
            fx_write(fx, 0, offset, 0xFFFFFFFF);
            fx_equal(fx_read(fx, 0, offset), kvm ? masks[n].kvm : masks[n].ones,
                     "%x := ones, kvm %d", offset, kvm);
            fx_free(fx);
        }
    }
}

/* Without the feature bit 18 of the timer's entry does not exist. [SDM3 12.5.4.1] */
static void timer_bits_without_deadline_mode(void **state)
{
    struct fx *fx = plain(0, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_write(fx, 0, APIC_SVR, 0x1FF);
    fx_write(fx, 0, APIC_LVT_TIMER, 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_LVT_TIMER), 0x300FF);
    fx_free(fx);
}

/* [SDM3 12.9] bit 12 exists where the version register says so */
static void svr_bits(void **state)
{
    struct fx *fx = plain(0, VAPIC_PROFILE_MANUAL);

    (void)state;
    fx_write(fx, 0, APIC_SVR, 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0x3FF);
    fx_free(fx);
    fx = plain(VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_EOI_SUPPRESS, VAPIC_PROFILE_MANUAL);
    fx_write(fx, 0, APIC_SVR, 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0x13FF);
    fx_write(fx, 0, APIC_SVR, 0);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0);
    fx_free(fx);
}

static void trap_25_all_ones(void **state)
{
    struct fx *fx = plain(VAPIC_FEATURE_TSC_DEADLINE, VAPIC_PROFILE_KVM);

    (void)state;
    fx_write(fx, 0, APIC_SVR, 0xFFFFFFFF);
    fx_write(fx, 0, APIC_LVT_TIMER, 0xFFFFFFFF);
    fx_write(fx, 0, APIC_TDCR, 0xFFFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0x3FF);
    assert_int_equal(fx_read(fx, 0, APIC_LVT_TIMER), 0x000710FF);
    assert_int_equal(fx_read(fx, 0, APIC_TDCR), 0xB);
    fx_free(fx);
}

/* ---- Optional registers ---- */

/* [SDM3 12.5.1] LVT CMCI is there when the maximum LVT index says so */
static void trap_23_cmci_presence(void **state)
{
    (void)state;
    for (int present = 0; present < 2; present++) {
        struct fx *fx = fx_new(
            &(struct fx_options){.x2apic = true, .features = present ? VAPIC_FEATURE_CMCI : 0});
        int expected = present ? VAPIC_OK : VAPIC_GP;
        uint64_t value = 0;

        assert_int_equal(fx_rdmsr(fx, 0, 0x82F, &value), expected);
        assert_int_equal(fx_wrmsr(fx, 0, 0x82F, 0x10031), expected);
        assert_int_equal(fx_get(fx, 0, APIC_LVR) >> 16 & 0xFF, present ? 6 : 5);
        fx_free(fx);
    }
}

/* [APM2 16.3.4] */
static void extended_space_presence(void **state)
{
    struct fx *fx = plain(ALL_FEATURES & ~(unsigned)VAPIC_FEATURE_AMD_EXT, VAPIC_PROFILE_MANUAL);

    (void)state;
    for (uint32_t offset = APIC_EAFR; offset < 0x1000; offset += 16) {
        fx_write(fx, 0, offset, 0x31);
        fx_equal(fx_read(fx, 0, offset), 0, "offset %x", offset);
    }
    assert_int_equal(fx_read(fx, 0, APIC_LVR) & APIC_LVR_EXT_SPACE, 0);
    fx_free(fx);
}

/* [APM2 16.3.4] features: four extended LVTs, 8-bit IDs, specific EOI, interrupt enables */
static void extended_feature_register(void **state)
{
    struct fx *fx = plain(ALL_FEATURES, VAPIC_PROFILE_MANUAL);

    (void)state;
    assert_int_equal(fx_read(fx, 0, APIC_EAFR), 0x00040007);
    fx_write(fx, 0, APIC_EAFR, 0);
    assert_int_equal(fx_read(fx, 0, APIC_EAFR), 0x00040007);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_access_rights),
        cmocka_unit_test(table_needs),
        cmocka_unit_test(table_rows_cover_their_words),
        cmocka_unit_test(table_ends),
        cmocka_unit_test(values_after_init_call),
        cmocka_unit_test(values_after_reset),
        cmocka_unit_test(values_after_init),
        cmocka_unit_test(init_in_x2apic_mode),
        cmocka_unit_test(init_in_x2apic_mode_resets_dfr),
        cmocka_unit_test(reset_restores_the_id),
        cmocka_unit_test(reset_stops_the_timer),
        cmocka_unit_test(late_post_is_dropped),
        cmocka_unit_test(reset_drops_events),
        cmocka_unit_test(version_register),
        cmocka_unit_test(trap_16_version),
        cmocka_unit_test(max_lvt_index),
        cmocka_unit_test(absent_lvt_entries),
        cmocka_unit_test(version_is_read_only),
        cmocka_unit_test(writable_bits),
        cmocka_unit_test(timer_bits_without_deadline_mode),
        cmocka_unit_test(svr_bits),
        cmocka_unit_test(trap_25_all_ones),
        cmocka_unit_test(trap_23_cmci_presence),
        cmocka_unit_test(extended_space_presence),
        cmocka_unit_test(extended_feature_register),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
