/* SPDX-License-Identifier: MIT */
/* Message signalled interrupts: address and data formats, destinations, hints [SDM3 12.11]. */
#include "fixture.h"

#include "vapic/arch/apic.h"
#include "vapic/arch/msi.h"

#define VECTOR        0x51
#define ADDRESS(dest) (0xFEE00000u | (uint64_t)(dest) << 12)

static struct fx *make(enum vapic_msi_dest mode, bool x2apic, uint32_t vcpus, const uint32_t *ids)
{
    struct fx_options options = {.vcpus = vcpus, .ids = ids, .x2apic = x2apic};

    options.config.msi_dest = mode;
    return fx_new(&options);
}

/* ---- What is no MSI ---- */

struct refused_row {
    enum vapic_msi_dest mode;
    uint64_t address;
    uint32_t data;
    int result;
    const char *what;
};

/* [SDM3 12.11.1] [SDM3 12.11.2] */
static const struct refused_row refused_rows[] = {
    {VAPIC_MSI_DEST_8, 0xFEE00000, VECTOR, 1, "plain"},
    {VAPIC_MSI_DEST_8, 0xFED00000, VECTOR, VAPIC_E_MSI, "below the window"},
    {VAPIC_MSI_DEST_8, 0xFEF00000, VECTOR, VAPIC_E_MSI, "above the window"},
    {VAPIC_MSI_DEST_8, 0, VECTOR, VAPIC_E_MSI, "address zero"},
    {VAPIC_MSI_DEST_8, 0xFEE00010, VECTOR, VAPIC_E_MSI, "remappable format"},
    {VAPIC_MSI_DEST_15, 0xFEE00010, VECTOR, VAPIC_E_MSI, "remappable format, 15 bits"},
    {VAPIC_MSI_DEST_32, 0xFEE00010, VECTOR, VAPIC_E_MSI, "remappable format, 32 bits"},
    {VAPIC_MSI_DEST_8, 0xFEE00003, VECTOR, 1, "address bits 1:0 mean nothing"},
    {VAPIC_MSI_DEST_8, 0xFEE00FE0, VECTOR, 1, "bits 11:5 mean nothing with 8 bits"},
    {VAPIC_MSI_DEST_8, 0xFFFFFFFFFEE00000, VECTOR, 1, "bits 63:32 mean nothing with 8 bits"},
    {VAPIC_MSI_DEST_15, 0xFFFFFFFFFEE00000, VECTOR, 1, "bits 63:32 mean nothing with 15 bits"},
    {VAPIC_MSI_DEST_32, 0xFEE00FE0, VECTOR, 1, "bits 11:5 mean nothing with 32 bits"},
    {VAPIC_MSI_DEST_8, 0xFEE00000, 0xFFFF3800 | VECTOR, 1, "reserved data bits"},
    {VAPIC_MSI_DEST_8, 0xFEE00000, 0x300 | VECTOR, VAPIC_E_MSI, "reserved delivery mode 3"},
    {VAPIC_MSI_DEST_8, 0xFEE00000, 0x600 | VECTOR, VAPIC_E_MSI, "reserved delivery mode 6"},
    {VAPIC_MSI_DEST_8, ADDRESS(0x77), VECTOR, 0, "nobody there"},
};

static void addresses_and_data(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(refused_rows) / sizeof(refused_rows[0]); n++) {
        const struct refused_row *row = &refused_rows[n];
        struct fx *fx = make(row->mode, false, 1, NULL);

        fx_equal((unsigned)vapic_msi(&fx->vm, row->address, row->data), (unsigned)row->result, "%s",
                 row->what);
        fx_equal((unsigned)fx_take(fx, 0), (unsigned)(row->result == 1 ? VECTOR : -1), "%s",
                 row->what);
        fx_free(fx);
    }
}

/* The low byte of the high half is no part of a 32-bit destination. */
static void trap_85_32_bit_format_wants_bits_39_32_clear(void **state)
{
    struct fx *fx = make(VAPIC_MSI_DEST_32, true, 1, NULL);
    (void)state;

    assert_int_equal(vapic_msi(&fx->vm, UINT64_C(1) << 32 | ADDRESS(0), VECTOR), VAPIC_E_MSI);
    assert_int_equal(vapic_msi(&fx->vm, UINT64_C(0x80) << 32 | ADDRESS(0), VECTOR), VAPIC_E_MSI);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0), VECTOR), 1);
    fx_free(fx);
}

/* ---- Destinations ---- */

struct dest_row {
    enum vapic_msi_dest mode;
    uint64_t address;
    uint32_t id; /* of the only vCPU that may take it */
    const char *what;
};

static const struct dest_row dest_rows[] = {
    {VAPIC_MSI_DEST_8, ADDRESS(0x34), 0x34, "bits 19:12"},
    {VAPIC_MSI_DEST_8, ADDRESS(0x34) | 0x12 << 5, 0x34, "8 bits ignore 11:5"},
    {VAPIC_MSI_DEST_8, ADDRESS(0x34) | UINT64_C(0x1200) << 32, 0x34, "8 bits ignore 63:40"},
    {VAPIC_MSI_DEST_15, ADDRESS(0x34), 0x34, "15 bits, upper clear"},
    {VAPIC_MSI_DEST_15, ADDRESS(0x34) | 0x12 << 5, 0x1234, "15 bits, 11:5 are 14:8"},
    {VAPIC_MSI_DEST_15, ADDRESS(0x34) | 0x7F << 5, 0x7F34, "15 bits, all of them"},
    {VAPIC_MSI_DEST_32, ADDRESS(0x34), 0x34, "32 bits, upper clear"},
    {VAPIC_MSI_DEST_32, ADDRESS(0x34) | UINT64_C(0x00001200) << 32, 0x1234, "32 bits"},
    {VAPIC_MSI_DEST_32, ADDRESS(0x34) | UINT64_C(0xABCDEF00) << 32, 0xABCDEF34, "all 32 bits"},
};

static void physical_destinations(void **state)
{
    static const uint32_t ids[] = {0x34, 0x1234, 0x7F34, 0xABCDEF34};
    (void)state;

    for (size_t n = 0; n < sizeof(dest_rows) / sizeof(dest_rows[0]); n++) {
        const struct dest_row *row = &dest_rows[n];
        struct fx *fx = make(row->mode, true, 4, ids);

        fx_equal((unsigned)vapic_msi(&fx->vm, row->address, VECTOR), 1, "%s", row->what);
        for (uint32_t cpu = 0; cpu < 4; cpu++)
            fx_equal(fx_bit(fx, cpu, APIC_IRR, VECTOR), ids[cpu] == row->id, "%s, ID %#x",
                     row->what, ids[cpu]);
        fx_free(fx);
    }
}

/* [SDM3 12.6.2.2] */
static void logical_destination_reaches_every_match(void **state)
{
    struct fx *fx = make(VAPIC_MSI_DEST_8, false, 4, NULL);
    (void)state;

    for (uint32_t cpu = 0; cpu < 4; cpu++)
        fx_write(fx, cpu, APIC_LDR, 1u << (24 + cpu));
    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0x0D) | MSI_ADDR_LOGICAL, VECTOR), 3);
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        fx_equal(fx_bit(fx, cpu, APIC_IRR, VECTOR), cpu != 1, "vCPU %u", cpu);
    fx_free(fx);
}

/* [SDM3 12.11.1]: the redirection hint chooses one, with either setting of the mode. */
static void redirection_hint_chooses_one(void **state)
{
    static const uint32_t modes[] = {APIC_DM_FIXED, APIC_DM_LOWEST};
    (void)state;

    for (size_t n = 0; n < 2; n++) {
        struct fx *fx = make(VAPIC_MSI_DEST_8, true, 4, NULL);
        uint32_t taken = 0;

        assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0x0F) | MSI_ADDR_LOGICAL | MSI_ADDR_REDIRECT,
                                   VECTOR | modes[n]),
                         1);
        for (uint32_t cpu = 0; cpu < 4; cpu++)
            taken += fx_take(fx, cpu) == VECTOR;
        fx_equal(taken, 1, "mode %#x", modes[n]);
        fx_free(fx);
    }
}

static void redirection_hint_with_physical_means_that_one(void **state)
{
    struct fx *fx = make(VAPIC_MSI_DEST_8, true, 4, NULL);
    (void)state;

    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(2) | MSI_ADDR_REDIRECT, VECTOR), 1);
    assert_int_equal(fx_take(fx, 2), VECTOR);
    fx_free(fx);
}

static void lowest_priority_without_the_hint_chooses_one(void **state)
{
    struct fx *fx = make(VAPIC_MSI_DEST_8, true, 4, NULL);
    (void)state;

    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0x0F) | MSI_ADDR_LOGICAL, VECTOR | APIC_DM_LOWEST),
                     1);
    fx_free(fx);
}

/* ---- Delivery ---- */

struct mode_row {
    uint32_t data;
    int result;
    enum vapic_inject inject;
    enum vapic_cpu_event event;
    const char *what;
};

/* [SDM3 12.11.2] */
static const struct mode_row mode_rows[] = {
    {APIC_DM_FIXED | VECTOR, 1, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE, "Fixed"},
    {APIC_DM_LOWEST | VECTOR, 1, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE, "Lowest"},
    {APIC_DM_SMI, 1, VAPIC_INJECT_SMI, VAPIC_CPU_NONE, "SMI"},
    {APIC_DM_NMI, 1, VAPIC_INJECT_NMI, VAPIC_CPU_NONE, "NMI"},
    {APIC_DM_NMI | MSI_DATA_LEVEL, 1, VAPIC_INJECT_NMI, VAPIC_CPU_NONE, "NMI, level"},
    {APIC_DM_INIT, 1, VAPIC_INJECT_NONE, VAPIC_CPU_INIT, "INIT"},
    {APIC_DM_INIT | MSI_DATA_LEVEL, 1, VAPIC_INJECT_NONE, VAPIC_CPU_INIT, "INIT, level"},
    {APIC_DM_EXTINT, 0, VAPIC_INJECT_NONE, VAPIC_CPU_NONE, "ExtINT"},
};

static void delivery_modes(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(mode_rows) / sizeof(mode_rows[0]); n++) {
        const struct mode_row *row = &mode_rows[n];
        struct fx *fx = make(VAPIC_MSI_DEST_8, false, 1, NULL);
        struct vapic_entry entry;

        fx_equal((unsigned)vapic_msi(&fx->vm, ADDRESS(0), row->data), (unsigned)row->result, "%s",
                 row->what);
        entry = fx_peek(fx, 0, FX_CAN_ALL);
        fx_equal(entry.inject, row->inject, "%s", row->what);
        fx_equal(entry.event, row->event, "%s", row->what);
        fx_free(fx);
    }
}

/* The level bit does not matter: see msi_decode(). */
static void trigger_mode_sets_tmr(void **state)
{
    static const struct {
        uint32_t data;
        bool tmr;
    } rows[] = {{VECTOR, false},
                {VECTOR | MSI_DATA_ASSERT, false},
                {VECTOR | MSI_DATA_LEVEL, true},
                {VECTOR | MSI_DATA_LEVEL | MSI_DATA_ASSERT, true}};
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct fx *fx = make(VAPIC_MSI_DEST_8, false, 1, NULL);

        fx_equal((unsigned)vapic_msi(&fx->vm, ADDRESS(0), rows[n].data), 1, "data %#x",
                 rows[n].data);
        fx_equal(fx_bit(fx, 0, APIC_IRR, VECTOR), true, "data %#x", rows[n].data);
        fx_equal(fx_bit(fx, 0, APIC_TMR, VECTOR), rows[n].tmr, "data %#x", rows[n].data);
        fx_free(fx);
    }
}

/* A vector already pending counts as taken. */
static void a_second_message_is_accepted_and_coalesces(void **state)
{
    struct fx *fx = make(VAPIC_MSI_DEST_8, false, 1, NULL);
    (void)state;

    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0), VECTOR), 1);
    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0), VECTOR), 1);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void a_soft_disabled_vcpu_accepts_nothing(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.soft_disabled = true});
    (void)state;

    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(0), VECTOR), 0);
    fx_free(fx);
}

static void targets_in_the_guest_are_kicked_once_each(void **state)
{
    struct fx *fx = make(VAPIC_MSI_DEST_8, true, 3, NULL);
    (void)state;

    for (uint32_t cpu = 0; cpu < 3; cpu++)
        fx_peek(fx, cpu, VAPIC_CAN_IRQ | VAPIC_IF);
    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(1), VECTOR), 1);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 1);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).vcpu, 1);
    assert_int_equal(vapic_msi(&fx->vm, ADDRESS(7) | MSI_ADDR_LOGICAL, VECTOR + 1), 3);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 3); /* vCPU 1 had been told */
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_and_data),
        cmocka_unit_test(trap_85_32_bit_format_wants_bits_39_32_clear),
        cmocka_unit_test(physical_destinations),
        cmocka_unit_test(logical_destination_reaches_every_match),
        cmocka_unit_test(redirection_hint_chooses_one),
        cmocka_unit_test(redirection_hint_with_physical_means_that_one),
        cmocka_unit_test(lowest_priority_without_the_hint_chooses_one),
        cmocka_unit_test(delivery_modes),
        cmocka_unit_test(trigger_mode_sets_tmr),
        cmocka_unit_test(a_second_message_is_accepted_and_coalesces),
        cmocka_unit_test(a_soft_disabled_vcpu_accepts_nothing),
        cmocka_unit_test(targets_in_the_guest_are_kicked_once_each),
    };

    return cmocka_run_group_tests_name("msi", tests, NULL, NULL);
}
