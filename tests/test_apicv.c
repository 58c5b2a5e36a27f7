/* SPDX-License-Identifier: MIT */
/*
 * The APICv back end: what vmcs01 and the MSR bitmap hold in every mode and activity, what is
 * written when, and the PID-pointer table.
 */
#include "apicv_bench.h"

#define ALL_SECONDARY                                                                              \
    (VMX_SEC_APIC_ACCESSES | VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY)

/* ---- Controls ---- */

enum mode { XAPIC, X2APIC, DISABLED };

static void set_mode(struct ax *ax, uint32_t n, enum mode mode)
{
    static const uint64_t base[] = {APIC_DEFAULT_BASE | APIC_BASE_EN,
                                    APIC_DEFAULT_BASE | APIC_BASE_EN | APIC_BASE_EXTD,
                                    APIC_DEFAULT_BASE};

    ax_leave(ax, n);
    assert_int_equal(vapic_load_base(&ax->v[n]->apic, base[mode] | (n == 0 ? APIC_BASE_BSP : 0)),
                     VAPIC_OK);
}

static const struct {
    enum mode mode;
    bool inhibited;
    uint32_t pin, secondary;
    bool ipiv;
} control_rows[] = {
    {XAPIC, false, VMX_PIN_POSTED_INTERRUPTS,
     VMX_SEC_APIC_ACCESSES | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY, true},
    {XAPIC, true, 0, VMX_SEC_APIC_ACCESSES, false},
    {X2APIC, false, VMX_PIN_POSTED_INTERRUPTS,
     VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY, true},
    {X2APIC, true, 0, VMX_SEC_X2APIC, false},
    {DISABLED, false, 0, 0, false},
    {DISABLED, true, 0, 0, false},
};

#define CONTROL_ROWS (sizeof(control_rows) / sizeof(control_rows[0]))

static void check_controls(struct ax *ax, size_t row, bool ipiv)
{
    uint64_t primary = VMX_PRI_TPR_SHADOW | VMX_PRI_SECONDARY | (ipiv ? VMX_PRI_TERTIARY : 0);

    assert_int_equal(field(ax, 0, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS,
                     control_rows[row].pin);
    assert_int_equal(field(ax, 0, VMCS_PRIMARY_CONTROLS) &
                         (VMX_PRI_TPR_SHADOW | VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE |
                          VMX_PRI_SECONDARY | VMX_PRI_TERTIARY),
                     primary);
    assert_int_equal(field(ax, 0, VMCS_SECONDARY_CONTROLS) & ALL_SECONDARY,
                     control_rows[row].secondary);
    assert_int_equal(field(ax, 0, VMCS_TERTIARY_CONTROLS),
                     ipiv && control_rows[row].ipiv ? VMX_TER_IPI_VIRTUALIZATION : 0);
    assert_int_equal(vapic_active(&ax->v[0]->apic), control_rows[row].pin != 0);
}

/* From every row to every row: nothing is left over from the one before, and entry succeeds. */
static void check_transitions(unsigned with)
{
    struct ax *ax = machine(with, 1);

    for (size_t from = 0; from < CONTROL_ROWS; from++) {
        for (size_t to = 0; to < CONTROL_ROWS; to++) {
            set_mode(ax, 0, control_rows[from].mode);
            inhibit(ax, control_rows[from].inhibited);
            assert_true(ax_enter(ax, 0));
            set_mode(ax, 0, control_rows[to].mode);
            inhibit(ax, control_rows[to].inhibited);
            assert_true(ax_enter(ax, 0));
            check_controls(ax, to, (with & WITH_IPIV) != 0);
            ax_forget(ax);
        }
    }
    ax_free(ax);
}

static void controls_of_every_mode(void **state)
{
    (void)state;
    check_transitions(0);
    check_transitions(WITH_IPIV);
}

/* [SDM3 28.2.1.1]: both at once would make the next entry fail, between the two writes even. */
static void both_modes_change_in_one_write(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    set_mode(ax, 0, X2APIC);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(told(ax, 0, VMCS_SECONDARY_CONTROLS), 1);
    ax_free(ax);
}

static void the_hosts_bits_stay(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    uint64_t pin, primary, secondary;

    (void)state;
    assert_true(ax_enter(ax, 0));
    pin = field(ax, 0, VMCS_PIN_CONTROLS) & ~(uint64_t)VMX_PIN_POSTED_INTERRUPTS;
    primary = field(ax, 0, VMCS_PRIMARY_CONTROLS);
    secondary = field(ax, 0, VMCS_SECONDARY_CONTROLS) & ~(uint64_t)ALL_SECONDARY;
    assert_int_equal(secondary, VMX_SEC_EPT | VMX_SEC_VPID);
    set_mode(ax, 0, DISABLED);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(field(ax, 0, VMCS_PIN_CONTROLS), pin);
    assert_int_equal(field(ax, 0, VMCS_PRIMARY_CONTROLS), primary);
    assert_int_equal(field(ax, 0, VMCS_SECONDARY_CONTROLS), secondary);
    ax_free(ax);
}

/* [SDM3 26.6] */
static void the_constant_fields(void **state)
{
    static const uint32_t ids[] = {0, 300};
    struct ax *ax = machine_with_ids(WITH_IPIV, 2, ids);
    struct ax_vcpu *c = ax->v[1];

    (void)state;
    set_mode(ax, 1, X2APIC);
    assert_true(ax_enter(ax, 1));
    assert_int_equal(field(ax, 1, VMCS_VIRTUAL_APIC), ax_hpa(ax, c->page));
    assert_int_equal(field(ax, 1, VMCS_PID), ax_hpa(ax, &c->apic.pid));
    assert_int_equal(field(ax, 1, VMCS_NOTIFICATION_VECTOR), AX_NOTIFY_VECTOR);
    assert_int_equal(field(ax, 1, VMCS_PID_TABLE), ax_hpa(ax, ax->accel.physical_table));
    assert_int_equal(field(ax, 1, VMCS_LAST_PID_INDEX), 300);
    ax_free(ax);
}

/* An entry where nothing changed costs one VMREAD and no VMWRITE. */
/* Everything that is the library's to set, and is not a constant. */
static const struct {
    uint32_t field;
    uint64_t mask;
} owned[] = {
    {VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS},
    {VMCS_PRIMARY_CONTROLS,
     VMX_PRI_TPR_SHADOW | VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE | VMX_PRI_SECONDARY},
    {VMCS_SECONDARY_CONTROLS, ALL_SECONDARY},
    {VMCS_TPR_THRESHOLD, 0xFFFFFFFF},
    {VMCS_GUEST_INTERRUPT_STATUS, 0xFFFF},
    {VMCS_EOI_EXIT0, UINT64_MAX},
    {VMCS_EOI_EXIT1, UINT64_MAX},
    {VMCS_EOI_EXIT2, UINT64_MAX},
    {VMCS_EOI_EXIT3, UINT64_MAX},
    {VMCS_TERTIARY_CONTROLS, VMX_TER_IPI_VIRTUALIZATION}, /* the last: not every processor has it */
};

static size_t owned_by(bool ipiv)
{
    return sizeof(owned) / sizeof(owned[0]) - (ipiv ? 0 : 1);
}

static void spoil(struct ax_vcpu *c)
{
    for (size_t i = 0; i < owned_by(c->ax->options.accel.features & VAPIC_ACCEL_IPIV); i++) {
        uint64_t value = field(c->ax, c->n, owned[i].field) ^ owned[i].mask;

        assert_true(vapic_sil_vmwrite(&c->vmcs, owned[i].field, value));
    }
}

/* A vmcs01 in which its host has left anything is as good as a new one. [SDM3 26.6] */
static void check_stale_fields(bool ipiv, bool x2apic)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_APICV, .features = ipiv ? VAPIC_ACCEL_IPIV : 0},
        .x2apic = x2apic};
    struct ax *clean = ax_new(&o), *stale;

    o.on_create = spoil;
    stale = ax_new(&o);
    assert_true(ax_enter(clean, 0));
    assert_true(ax_enter(stale, 0));
    for (size_t i = 0; i < owned_by(ipiv); i++)
        assert_int_equal(field(stale, 0, owned[i].field), field(clean, 0, owned[i].field));
    ax_free(stale);
    ax_free(clean);
}

static void what_the_host_left_is_overwritten(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        check_stale_fields(i & 1, i & 2);
}

static void nothing_is_written_twice(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    for (int i = 0; i < 3; i++)
        reenter(ax, 0);
    assert_int_equal(controls_told(ax), 0);
    assert_int_equal(ax_count(ax, AX_INTERCEPT), 0);
    assert_int_equal(ax_count(ax, AX_FLUSH), 0);
    ax_free(ax);
}

/* The processor may have cached FEE00000h as ordinary memory [SDM3 31.4.6]. */
static void the_page_is_flushed_when_it_comes_into_use(void **state)
{
    static const struct {
        enum mode from, to;
        uint32_t flushes;
    } rows[] = {
        {XAPIC, X2APIC, 0},   {X2APIC, XAPIC, 1},    {XAPIC, DISABLED, 0},
        {DISABLED, XAPIC, 1}, {X2APIC, DISABLED, 0}, {DISABLED, X2APIC, 0},
    };
    struct ax *ax = machine(0, 1);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        set_mode(ax, 0, rows[i].from);
        assert_true(ax_enter(ax, 0));
        ax_forget(ax);
        set_mode(ax, 0, rows[i].to);
        assert_true(ax_enter(ax, 0));
        assert_int_equal(ax_count(ax, AX_FLUSH), rows[i].flushes);
    }
    ax_free(ax);
}

/* ... and the flush works: with the stale translation the access would reach the scratch page. */
static void no_access_reaches_the_scratch_page_after_a_switch(void **state)
{
    struct ax *ax = machine(0, 1);
    uint64_t value = 0;

    (void)state;
    set_mode(ax, 0, DISABLED);
    /* Disabled: RAM, by hardware. */
    assert_int_equal(ax_mmio(ax, 0, false, APIC_DEFAULT_BASE + APIC_LVR, &value), AX_DONE);
    assert_int_equal(value, 0);
    set_mode(ax, 0, XAPIC);
    assert_int_equal(ax_read(ax, 0, APIC_LVR) & 0xFF, 0x14);
    ax_free(ax);
}

/* Only bits of existing fields are ever written, so that a processor without the feature works. */
static void no_tertiary_field_without_ipiv(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    for (uint32_t i = 0; i < ax->logged; i++)
        if (ax->log[i].kind == AX_CONTROL)
            assert_true(ax->log[i].a != VMCS_TERTIARY_CONTROLS && ax->log[i].a != VMCS_PID_TABLE &&
                        ax->log[i].a != VMCS_LAST_PID_INDEX);
    ax_free(ax);
}

/* ---- MSRs that pass, register by register ---- */

enum { R = 1, W = 2, IW = 4 /* a write, with IPI virtualization */ };

static const struct {
    uint32_t first, last;
    unsigned pass;
} msr_rows[] = {
    {0x802, 0x803, R},      {0x808, 0x808, R | W}, {0x80A, 0x80A, R}, {0x80B, 0x80B, W},
    {0x80D, 0x80D, R},      {0x80F, 0x80F, R},     {0x810, 0x827, R}, {0x828, 0x828, R},
    {0x830, 0x830, R | IW}, {0x832, 0x838, R},     {0x83E, 0x83E, R}, {0x83F, 0x83F, W},
};

static unsigned passes(uint32_t msr, bool ipiv)
{
    for (size_t i = 0; i < sizeof(msr_rows) / sizeof(msr_rows[0]); i++)
        if (msr >= msr_rows[i].first && msr <= msr_rows[i].last)
            return (msr_rows[i].pass & (R | W)) | (ipiv && msr_rows[i].pass & IW ? (unsigned)W : 0);
    return 0;
}

static unsigned bitmap_passes(const struct ax *ax, uint32_t msr)
{
    const uint8_t *map = ax->v[0]->msrpm + APICV_MSR_BITMAP_BYTE(msr);
    uint8_t bit = APICV_MSR_BITMAP_BIT(msr);

    return (map[APICV_MSR_BITMAP_READ_LOW] & bit ? 0 : R) |
           (map[APICV_MSR_BITMAP_WRITE_LOW] & bit ? 0 : W);
}

static void check_msrs(unsigned with)
{
    struct ax *ax = machine(with | WITH_X2APIC, 1);

    assert_true(ax_enter(ax, 0));
    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++)
        if (bitmap_passes(ax, msr) != passes(msr, (with & WITH_IPIV) != 0))
            fail_msg("MSR %#x", msr);
    inhibit(ax, true);
    assert_true(ax_enter(ax, 0));
    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++)
        assert_int_equal(bitmap_passes(ax, msr), msr == 0x808 ? R | W : 0);
    set_mode(ax, 0, XAPIC);
    assert_true(ax_enter(ax, 0));
    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++)
        assert_int_equal(bitmap_passes(ax, msr), 0);
    ax_free(ax);
}

static void msrs_that_pass(void **state)
{
    (void)state;
    check_msrs(0);
    check_msrs(WITH_IPIV);
}

/* LVT entries pass when they exist; CMCI is absent above. */
static void cmci_passes_where_it_exists(void **state)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_APICV}, .x2apic = true, .features = VAPIC_FEATURE_CMCI};
    struct ax *ax = ax_new(&o);

    (void)state;
    assert_true(ax_enter(ax, 0));
    assert_int_equal(bitmap_passes(ax, 0x82F), R);
    ax_free(ax);
}

static void the_bitmap_keeps_other_msrs(void **state)
{
    struct vapic_msr_pass pass = {{1, 0, 0, 0}, {0, 0, 0, UINT64_C(1) << 63}};
    uint8_t map[4096];

    (void)state;
    memset(map, 0x5A, sizeof(map));
    vapic_pass_to_bitmap(&pass, map);
    for (uint32_t i = 0; i < sizeof(map); i++) {
        uint8_t wanted = 0x5A;

        if ((i >= 0x100 && i < 0x120) || (i >= 0x900 && i < 0x920))
            wanted = 0xFF;
        if (i == 0x100)
            wanted = 0xFE;
        if (i == 0x91F)
            wanted = 0x7F;
        assert_int_equal(map[i], wanted);
    }
}

/* ---- Configuration ---- */

static void memory_of_configurations(void **state)
{
    static const struct {
        struct vapic_accel_config config;
        size_t size;
    } rows[] = {
        {{.max_id = 0, .notify_vector = 0xF1, .wakeup_vector = 0xF2}, 4096},
        {{.max_id = 0xFFFFFFFE, .notify_vector = 0xF1, .wakeup_vector = 0xF2}, 4096},
        {{.max_id = 0xFFFFFFFF, .notify_vector = 0xF1, .wakeup_vector = 0xF2}, 0},
        {{.max_id = 511,
          .features = VAPIC_ACCEL_IPIV,
          .notify_vector = 0xF1,
          .wakeup_vector = 0xF2},
         4096},
        {{.max_id = 512,
          .features = VAPIC_ACCEL_IPIV,
          .notify_vector = 0xF1,
          .wakeup_vector = 0xF2},
         8192},
        {{.max_id = 70000,
          .features = VAPIC_ACCEL_IPIV,
          .notify_vector = 0xF1,
          .wakeup_vector = 0xF2},
         65536 * 8},
        {{.max_id = 1, .notify_vector = 15, .wakeup_vector = 0xF2}, 0},
        {{.max_id = 1, .notify_vector = 0xF1, .wakeup_vector = 15}, 0},
        {{.max_id = 1, .notify_vector = 0xF1, .wakeup_vector = 0xF1}, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vapic_accel_config config = rows[i].config;

        config.kind = VAPIC_ACCEL_APICV;
        assert_int_equal(vapic_accel_memory(&config), rows[i].size);
    }
}

/* ---- The PID-pointer table ---- */

static uint64_t entry(const struct ax *ax, uint32_t id)
{
    return ax->accel.physical_table[id];
}

static uint64_t valid_entry(const struct ax *ax, uint32_t n)
{
    return ax_hpa((struct ax *)ax, &ax->v[n]->apic.pid) | APICV_PID_ENTRY_VALID;
}

static void an_entry_per_vcpu_that_takes_interrupts(void **state)
{
    struct ax *ax = machine(WITH_IPIV | WITH_X2APIC | SOFT_DISABLED, 2);

    (void)state;
    assert_int_equal(entry(ax, 0), 0); /* software disabled */
    ax_write(ax, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(entry(ax, 0), valid_entry(ax, 0));
    assert_int_equal(entry(ax, 1), 0);
    ax_write(ax, 1, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(entry(ax, 1), valid_entry(ax, 1));
    set_mode(ax, 1, DISABLED);
    assert_int_equal(entry(ax, 1), 0);
    set_mode(ax, 1, XAPIC);
    assert_int_equal(entry(ax, 1), valid_entry(ax, 1));
    ax_leave(ax, 1);
    assert_int_equal(vapic_remove(&ax->v[1]->apic), VAPIC_OK);
    assert_int_equal(entry(ax, 1), 0);
    ax_free(ax);
}

/* Entry 255 exists for nobody while FFh means everybody to some vCPU. */
static void entry_255_needs_all_in_x2apic_mode(void **state)
{
    static const uint32_t ids[] = {0, 255, 1};
    struct ax *ax = machine_with_ids(WITH_IPIV | WITH_X2APIC, 3, ids);

    (void)state;
    assert_int_equal(entry(ax, 255), valid_entry(ax, 1));
    set_mode(ax, 2, XAPIC);
    assert_int_equal(entry(ax, 255), 0);
    assert_int_equal(entry(ax, 0), valid_entry(ax, 0));
    set_mode(ax, 2, X2APIC);
    assert_int_equal(entry(ax, 255), valid_entry(ax, 1));
    set_mode(ax, 1, XAPIC);
    assert_int_equal(entry(ax, 255), 0);
    set_mode(ax, 1, DISABLED);
    set_mode(ax, 1, X2APIC);
    assert_int_equal(entry(ax, 255), valid_entry(ax, 1));
    set_mode(ax, 2, XAPIC);
    assert_int_equal(entry(ax, 255), 0);
    ax_leave(ax, 2);
    assert_int_equal(vapic_remove(&ax->v[2]->apic), VAPIC_OK);
    assert_int_equal(entry(ax, 255), valid_entry(ax, 1));
    ax_free(ax);
}

static void a_rewritten_id_loses_its_entry(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 2);

    (void)state;
    assert_int_equal(entry(ax, 1), valid_entry(ax, 1));
    ax_write(ax, 1, APIC_ID, 5u << 24);
    assert_int_equal(entry(ax, 1), 0);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 1u << VAPIC_INHIBIT_APIC_ID_MODIFIED);
    assert_true(ax_enter(ax, 0));
    assert_false(vapic_active(&ax->v[0]->apic));
    ax_write(ax, 1, APIC_ID, 1u << 24);
    assert_int_equal(entry(ax, 1), valid_entry(ax, 1));
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    reenter(ax, 0);
    assert_true(vapic_active(&ax->v[0]->apic));
    ax_free(ax);
}

/* The knobs that decide whether an ID above FFh reaches an APIC in xAPIC mode. */
static void wide_ids_follow_the_knobs(void **state)
{
    static const uint32_t ids[] = {0, 300};
    static const struct {
        uint32_t knobs;
        bool x2apic, valid;
    } rows[] = {
        {VAPIC_PROFILE_MANUAL, true, true},
        {VAPIC_PROFILE_MANUAL, false, true},
        {VAPIC_PROFILE_MANUAL & ~(uint32_t)VAPIC_KNOB_WIDE_XAPIC, true, true},
        {VAPIC_PROFILE_MANUAL & ~(uint32_t)VAPIC_KNOB_WIDE_XAPIC, false, false},
        {VAPIC_PROFILE_MANUAL | (uint32_t)VAPIC_KNOB_X2APIC_ALIASES_XAPIC, true, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax_options o = {
            .accel = {.kind = VAPIC_ACCEL_APICV, .features = VAPIC_ACCEL_IPIV},
            .vcpus = 2,
            .ids = ids,
            .x2apic = rows[i].x2apic,
            .config = {.knobs = rows[i].knobs, .knobs_set = true},
        };
        struct ax *ax = ax_new(&o);

        assert_int_equal(entry(ax, 300), rows[i].valid ? valid_entry(ax, 1) : 0);
        ax_free(ax);
    }
}

static uint32_t who_gets(struct ax *ax, uint8_t dest)
{
    uint32_t who = VAPIC_NO_INDEX;

    ax_forget(ax);
    ax_ipi(ax, 2, 0x61, dest);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_DELIVERED), 1);
    for (uint32_t n = 0; n < 2; n++)
        if (ax_delivered(ax, n, 0x61) != 0)
            who = n;
    assert_int_not_equal(who, VAPIC_NO_INDEX);
    ax_eoi(ax, who);
    return who;
}

/* Two answer to 2Ch, and the VM is accelerated [knob UNIQUE_ID]: software chooses, always the same.
 * Alone again, the one whose own ID it is gets it without an exit. */
static void an_id_that_is_shared_by_its_low_byte(void **state)
{
    static const uint32_t ids[] = {0x12C, 0x2C, 0};
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_APICV, .features = VAPIC_ACCEL_IPIV},
        .vcpus = 3,
        .ids = ids,
        .config = {.knobs = VAPIC_PROFILE_MANUAL | (uint32_t)VAPIC_KNOB_UNIQUE_ID,
                   .knobs_set = true},
    };
    struct ax *ax = ax_new(&o);
    uint32_t active, inhibited;

    (void)state;
    assert_int_equal(entry(ax, 0x2C), 0);
    assert_true(ax_enter(ax, 0));
    assert_true(vapic_active(&ax->v[0]->apic));
    active = who_gets(ax, 0x2C);
    inhibit(ax, true);
    inhibited = who_gets(ax, 0x2C);
    assert_int_equal(active, inhibited);
    inhibit(ax, false);
    set_mode(ax, 0, X2APIC);
    assert_int_equal(entry(ax, 0x2C), valid_entry(ax, 1));
    assert_int_equal(who_gets(ax, 0x2C), 1);
    set_mode(ax, 0, XAPIC);
    assert_int_equal(entry(ax, 0x2C), 0);
    ax_leave(ax, 0);
    ax_put(ax, 0);
    assert_int_equal(vapic_remove(&ax->v[0]->apic), VAPIC_OK);
    assert_int_equal(entry(ax, 0x2C), valid_entry(ax, 1));
    ax_free(ax);
}

/* Its IPIs exit, its own and those to it; nothing is written beyond the table. */
static void an_id_beyond_the_table(void **state)
{
    static const uint32_t ids[] = {0, 65536};
    struct ax *ax = machine_with_ids(WITH_IPIV | WITH_X2APIC, 2, ids);

    (void)state;
    assert_true(ax_enter(ax, 0));
    assert_int_equal(field(ax, 0, VMCS_LAST_PID_INDEX), 65535);
    assert_true(ax_enter(ax, 1));
    assert_true(vapic_active(&ax->v[1]->apic));
    ax_forget(ax);
    ax_ipi(ax, 0, 0x61, 65536);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_APIC_WRITE), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* A processor in the middle of an IPI must be through before the descriptor may go away. */
static void removal_waits_for_hardware_senders(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 2);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    assert_int_equal(vapic_remove(&ax->v[1]->apic), VAPIC_OK);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    assert_int_equal(entry(ax, 1), 0);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(controls_of_every_mode),
        cmocka_unit_test(both_modes_change_in_one_write),
        cmocka_unit_test(the_hosts_bits_stay),
        cmocka_unit_test(the_constant_fields),
        cmocka_unit_test(what_the_host_left_is_overwritten),
        cmocka_unit_test(nothing_is_written_twice),
        cmocka_unit_test(the_page_is_flushed_when_it_comes_into_use),
        cmocka_unit_test(no_access_reaches_the_scratch_page_after_a_switch),
        cmocka_unit_test(no_tertiary_field_without_ipiv),
        cmocka_unit_test(msrs_that_pass),
        cmocka_unit_test(cmci_passes_where_it_exists),
        cmocka_unit_test(the_bitmap_keeps_other_msrs),
        cmocka_unit_test(memory_of_configurations),
        cmocka_unit_test(an_entry_per_vcpu_that_takes_interrupts),
        cmocka_unit_test(entry_255_needs_all_in_x2apic_mode),
        cmocka_unit_test(a_rewritten_id_loses_its_entry),
        cmocka_unit_test(wide_ids_follow_the_knobs),
        cmocka_unit_test(an_id_that_is_shared_by_its_low_byte),
        cmocka_unit_test(an_id_beyond_the_table),
        cmocka_unit_test(removal_waits_for_hardware_senders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
