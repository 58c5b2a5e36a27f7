/* SPDX-License-Identifier: MIT */
/* The I/O APIC: registers, redirection entries, delivery modes [IOAPIC 3.1] [IOAPIC 3.2]. */
#include "ioapic_bench.h"

#include <string.h>

/* ---- Registers ---- */

/* [IOAPIC 3.2.1] [IOAPIC 3.2.2] [IOAPIC 3.2.3] */
static void trap_70_version_and_id_registers(void **state)
{
    struct bench b = begin_with(NULL, 24, IOAPIC_VERSION_11);
    (void)state;

    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_VERSION), 0x00170011);
    fx_io_write(b.io, IOAPIC_REG_VERSION, 0xFFFFFFFF);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_VERSION), 0x00170011);
    fx_io_write(b.io, IOAPIC_REG_ID, 0xFFFFFFFF);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_ID), 0x0F000000);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_ARB), 0x0F000000);
    fx_io_write(b.io, IOAPIC_REG_ID, 0xA5FFFFFF);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_ARB), 0x05000000);
    fx_io_write(b.io, IOAPIC_REG_ARB, 0x0A000000);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_ARB), 0x05000000);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_ID), 0x05000000);
    end(&b);
}

/* [IOAPIC 3.2.2] */
static void version_register_says_pins_and_version(void **state)
{
    static const struct {
        uint32_t pins;
        uint8_t version;
        uint32_t value;
    } rows[] = {
        {0, 0, 0x00170020},     {1, 0x11, 0x00000011},   {24, 0x20, 0x00170020},
        {48, 0x20, 0x002F0020}, {240, 0x20, 0x00EF0020}, {240, 0x11, 0x00EF0011},
    };
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct bench b = begin_with(NULL, rows[n].pins, rows[n].version);

        fx_equal(fx_io_read(b.io, IOAPIC_REG_VERSION), rows[n].value, "%u pins", rows[n].pins);
        end(&b);
    }
}

static void register_index_reads_back_eight_bits(void **state)
{
    struct bench b = begin(1);
    (void)state;

    vapic_ioapic_write(b.io, IOAPIC_REGSEL, 0x123, 4);
    assert_int_equal(vapic_ioapic_read(b.io, IOAPIC_REGSEL, 4), 0x23);
    end(&b);
}

static void index_out_of_range_reads_zero_and_ignores_writes(void **state)
{
    static const uint32_t indices[] = {0x03, 0x0F, 0x40, 0x41, 0xFF};
    struct bench b = begin(1);
    (void)state;

    for (size_t n = 0; n < sizeof(indices) / sizeof(indices[0]); n++) {
        fx_io_write(b.io, indices[n], 0xFFFFFFFF);
        fx_equal(fx_io_read(b.io, indices[n]), 0, "index %#x", indices[n]);
    }
    end(&b);
}

/* [IOAPIC 3.1.1] has eight bits; an I/O APIC with more than 120 pins has nine. */
static void every_pin_of_the_largest_is_reachable(void **state)
{
    struct bench b = begin_with(NULL, 240, IOAPIC_VERSION_20);
    (void)state;

    for (uint32_t pin = 0; pin < 240; pin++)
        fx_rte_write(b.io, pin, rte((uint32_t)MASKED | pin, (uint8_t)~pin));
    for (uint32_t pin = 0; pin < 240; pin++) {
        uint64_t expected = rte((uint32_t)MASKED | pin, (uint8_t)~pin);

        fx_equal(fx_rte_read(b.io, pin), expected, "pin %u", pin);
        fx_equal(vapic_ioapic_entry(b.io, pin), expected, "pin %u", pin);
    }
    assert_int_equal(vapic_ioapic_entry(b.io, 240), 0);
    end(&b);
}

/* [IOAPIC 3.1]: registers are 32 bits wide; what a narrow write does not give is zero. */
static void access_sizes_use_the_low_bytes(void **state)
{
    static const struct {
        size_t size;
        uint64_t kept, read;
    } rows[] = {{1, 0x88, 0x88}, {2, 0x2788, 0x2788}, {4, 0x12788, 0x12788}, {8, 0x12788, 0x12788}};
    struct bench b = begin(1);
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        size_t size = rows[n].size;

        fx_rte_write(b.io, 0, MASKED | 0x123);
        vapic_ioapic_write(b.io, IOAPIC_REGSEL, 0xFFFFFF00 | IOAPIC_REG_RTE, size);
        assert_int_equal(vapic_ioapic_read(b.io, IOAPIC_REGSEL, size), IOAPIC_REG_RTE);
        vapic_ioapic_write(b.io, IOAPIC_IOWIN, 0x1122334455012788, size);
        fx_equal(vapic_ioapic_entry(b.io, 0), rows[n].kept, "write of %zu", size);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_IOWIN, size), rows[n].read, "read of %zu", size);
    }
    end(&b);
}

static void other_sizes_read_zero_and_write_nothing(void **state)
{
    static const size_t sizes[] = {0, 3, 5, 7, 9, 16, (size_t)-1};
    struct bench b = begin(1);
    (void)state;

    fx_io_write(b.io, IOAPIC_REG_ID, 0x05000000);
    for (size_t n = 0; n < sizeof(sizes) / sizeof(sizes[0]); n++) {
        vapic_ioapic_write(b.io, IOAPIC_IOWIN, 0x0F000000, sizes[n]);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_IOWIN, 4), 0x05000000, "size %zu", sizes[n]);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_IOWIN, sizes[n]), 0, "size %zu", sizes[n]);
    }
    end(&b);
}

static void other_offsets_read_zero_and_write_nothing(void **state)
{
    static const uint32_t offsets[] = {0x04, 0x08, 0x11, 0x14, 0x20, 0x40, 0x50, 0x100, 0xFFC, ~0u};
    struct bench b = begin(1);
    uint32_t before;
    (void)state;

    before = fx_io_read(b.io, IOAPIC_REG_ID);
    for (size_t n = 0; n < sizeof(offsets) / sizeof(offsets[0]); n++) {
        vapic_ioapic_write(b.io, offsets[n], 0x0F000000, 4);
        fx_equal(vapic_ioapic_read(b.io, offsets[n], 4), 0, "offset %#x", offsets[n]);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_REGSEL, 4), 0, "offset %#x", offsets[n]);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_IOWIN, 4), before, "offset %#x", offsets[n]);
    }
    end(&b);
}

static void reset_masks_everything_and_keeps_lines(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_io_write(b.io, IOAPIC_REG_ID, 0x05000000);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), 1);
    vapic_ioapic_reset(b.io);
    assert_int_equal(vapic_ioapic_read(b.io, IOAPIC_REGSEL, 4), 0);
    assert_int_equal(fx_io_read(b.io, IOAPIC_REG_ID), 0);
    for (uint32_t pin = 0; pin < 24; pin++)
        fx_equal(vapic_ioapic_entry(b.io, pin), 0x10000, "pin %u", pin);
    assert_int_equal(runs(&b, 0), 1);
    fx_rte_write(b.io, PIN, rte((VECTOR + 1) | LEVEL, 0)); /* the line is still high */
    assert_int_equal(fx_take(b.fx, 0), VECTOR + 1);
    end(&b);
}

static void init_refuses_what_it_cannot_be(void **state)
{
    static const struct {
        struct vapic_ioapic_config config;
        int result;
        const char *what;
    } rows[] = {
        {{.pins = 241}, VAPIC_E_ARG, "too many pins"},
        {{.pins = 0xFFFFFFFF}, VAPIC_E_ARG, "far too many pins"},
        {{.version = 0x12}, VAPIC_E_ARG, "unknown version"},
        {{.version = 0x21}, VAPIC_E_ARG, "unknown later version"},
        {{.id = 16}, VAPIC_E_ARG, "wide ID"},
        {{.gsi_base = 0xFFFFFFFF}, VAPIC_E_ARG, "GSIs wrap"},
        {{.pins = 240, .id = 15}, VAPIC_OK, "largest"},
    };
    struct fx *fx = fx_new(NULL);
    struct vapic_pin pins[240];
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct vapic_ioapic io;

        memset(&io, 0xA5, sizeof(io));
        fx_equal((unsigned)vapic_ioapic_init(&io, sizeof(io), &fx->vm, &rows[n].config, pins),
                 (unsigned)rows[n].result, "%s", rows[n].what);
        if (rows[n].result != VAPIC_OK)
            assert_null(fx->vm.ioapics);
    }
    fx_free(fx);
}

static void init_refuses_bad_pointers_sizes_and_a_second_time(void **state)
{
    struct vapic_ioapic_config config = {.pins = 2, .id = 3};
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic io;
    struct vapic_pin pins[2];
    (void)state;

    assert_int_equal(vapic_ioapic_init(NULL, sizeof(io), &fx->vm, &config, pins), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_init(&io, sizeof(io), NULL, &config, pins), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_init(&io, sizeof(io), &fx->vm, NULL, pins), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_init(&io, sizeof(io), &fx->vm, &config, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_init(&io, sizeof(io) - 1, &fx->vm, &config, pins), VAPIC_E_SIZE);
    assert_int_equal(vapic_ioapic_init(&io, sizeof(io), &fx->vm, &config, pins), VAPIC_OK);
    assert_int_equal(fx_io_read(&io, IOAPIC_REG_ID), 0x03000000);
    assert_int_equal(vapic_ioapic_init(&io, sizeof(io), &fx->vm, &config, pins), VAPIC_E_BUSY);
    fx_free(fx);
}

static void a_vm_holds_256_and_no_more(void **state)
{
    static struct vapic_ioapic ios[257];
    static struct vapic_pin pins[257];
    struct vapic_ioapic_config config = {.pins = 1};
    struct fx *fx = fx_new(NULL);
    (void)state;

    for (uint32_t n = 0; n < 256; n++) {
        config.gsi_base = n;
        assert_int_equal(vapic_ioapic_init(&ios[n], sizeof(ios[n]), &fx->vm, &config, &pins[n]),
                         VAPIC_OK);
    }
    assert_int_equal(vapic_ioapic_init(&ios[256], sizeof(ios[256]), &fx->vm, &config, &pins[256]),
                     VAPIC_E_FULL);
    vapic_ioapic_write(&ios[255], IOAPIC_REGSEL, IOAPIC_REG_RTE, 4);
    vapic_ioapic_write(&ios[255], IOAPIC_IOWIN, VECTOR, 4);
    assert_int_equal(vapic_gsi_set(&fx->vm, 255, 0, true), 1);
    fx_free(fx);
}

static void bad_pins_and_sources_are_refused(void **state)
{
    struct bench b = begin(1);
    (void)state;

    assert_int_equal(vapic_ioapic_set(b.io, 24, 0, true), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_set(b.io, 0xFFFFFFFF, 0, true), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_set(b.io, 0, 16, true), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_set(b.io, 0, 15, true), VAPIC_GSI_BLOCKED);
    vapic_ioapic_resume(b.io, 24); /* does nothing */
    end(&b);
}

/* ---- Redirection entries [IOAPIC 3.2.4] ---- */

static void entry_fields_store_what_the_guest_may_write(void **state)
{
    static const struct {
        uint64_t written, read;
        const char *what;
    } rows[] = {
        {0xFFFFFFFFFFFFFFFF, 0xFFFF00000001AFFF, "all bits: read-only and reserved ones stay 0"},
        {MASKED | 0xFF, MASKED | 0xFF, "vector"},
        {MASKED | 0x700, MASKED | 0x700, "delivery mode"},
        {MASKED | LOGICAL, MASKED | LOGICAL, "destination mode"},
        {MASKED | IOAPIC_RTE_DS, MASKED, "delivery status is read-only"},
        {MASKED | IOAPIC_RTE_LOW, MASKED | IOAPIC_RTE_LOW, "polarity"},
        {MASKED | LEVEL | RIRR, MASKED | LEVEL, "remote IRR is read-only"},
        {MASKED | LEVEL, MASKED | LEVEL, "trigger mode"},
        {0x0000FFFFFFFE0000, 0, "reserved bits"},
        {UINT64_C(1) << 48, UINT64_C(1) << 48, "interrupt format"},
        {UINT64_C(0x7F) << 49, UINT64_C(0x7F) << 49, "extended destination"},
        {UINT64_C(0xFF) << 56, UINT64_C(0xFF) << 56, "destination"},
    };
    struct bench b = begin(1);
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        fx_rte_write(b.io, PIN, rows[n].written);
        fx_equal(fx_rte_read(b.io, PIN), rows[n].read, "%s", rows[n].what);
    }
    end(&b);
}

static void halves_are_written_separately(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, MASKED | 0x77);
    assert_true(fx_rte_read(b.io, PIN) == (MASKED | 0x77));
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0x12000000);
    assert_true(fx_rte_read(b.io, PIN) == rte(MASKED | 0x77, 0x12));
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, MASKED | 0x78);
    assert_true(fx_rte_read(b.io, PIN) == rte(MASKED | 0x78, 0x12));
    end(&b);
}

static void write_preserves_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_true(rirr(&b));
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL | MASKED);
    assert_true(rirr(&b));
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0x01000000);
    assert_true(rirr(&b));
    end(&b);
}

/* How many bits of the destination count [IOAPIC 3.2.4]; 55:49 are an extension of hypervisors. */
static void destination_width_follows_the_vm(void **state)
{
    static const struct {
        enum vapic_msi_dest mode;
        bool far_reached;
    } rows[] = {{VAPIC_MSI_DEST_8, false}, {VAPIC_MSI_DEST_15, true}, {VAPIC_MSI_DEST_32, true}};
    static const uint32_t ids[] = {0x34, 0x1234};
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct fx_options options = {.vcpus = 2, .ids = ids, .x2apic = true};
        struct bench b;

        options.config.msi_dest = rows[n].mode;
        b = begin_with(&options, 24, IOAPIC_VERSION_20);
        fx_rte_write(b.io, PIN, rte(VECTOR, 0x34) | UINT64_C(0x12) << 49);
        assert_int_equal(set(&b, true), 1);
        fx_equal((unsigned)fx_take(b.fx, rows[n].far_reached), VECTOR, "mode %zu", n);
        end(&b);
    }
}

static void remappable_format_sends_nothing_until_cleared(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0) | UINT64_C(1) << 48);
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_false(rirr(&b));
    assert_int_equal(fx_take(b.fx, 0), -1);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void polarity_is_ignored_on_logical_levels(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | IOAPIC_RTE_LOW, 0));
    assert_int_equal(fx_take(b.fx, 0), -1);
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

/* ---- Delivery modes ---- */

struct mode_row {
    uint32_t mode;
    int result;
    enum vapic_inject inject;
    enum vapic_cpu_event event;
    const char *what;
};

/* [IOAPIC 3.2.4]: NMI, SMI and INIT are edge-triggered although programmed as level; 3 and 6 are
 * reserved; ExtINT has no acknowledge cycle here. */
static void delivery_modes(void **state)
{
    static const struct mode_row rows[] = {
        {APIC_DM_FIXED, 1, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE, "Fixed"},
        {APIC_DM_LOWEST, 1, VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE, "Lowest"},
        {APIC_DM_SMI, 1, VAPIC_INJECT_SMI, VAPIC_CPU_NONE, "SMI"},
        {APIC_DM_REMOTE, VAPIC_GSI_BLOCKED, VAPIC_INJECT_NONE, VAPIC_CPU_NONE, "reserved 3"},
        {APIC_DM_NMI, 1, VAPIC_INJECT_NMI, VAPIC_CPU_NONE, "NMI"},
        {APIC_DM_INIT, 1, VAPIC_INJECT_NONE, VAPIC_CPU_INIT, "INIT"},
        {APIC_DM_SIPI, VAPIC_GSI_BLOCKED, VAPIC_INJECT_NONE, VAPIC_CPU_NONE, "reserved 6"},
        {APIC_DM_EXTINT, VAPIC_GSI_BLOCKED, VAPIC_INJECT_NONE, VAPIC_CPU_NONE, "ExtINT"},
    };
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct bench b = begin(1);
        bool level = rows[n].mode <= APIC_DM_LOWEST;
        struct vapic_entry entry;

        fx_rte_write(b.io, PIN, rte(VECTOR | rows[n].mode | LEVEL, 0));
        fx_equal((unsigned)set(&b, true), (unsigned)rows[n].result, "%s", rows[n].what);
        fx_equal(rirr(&b), level, "%s remote IRR", rows[n].what);
        entry = fx_peek(b.fx, 0, FX_CAN_ALL);
        fx_equal(entry.inject, rows[n].inject, "%s", rows[n].what);
        fx_equal(entry.event, rows[n].event, "%s", rows[n].what);
        end(&b);
    }
}

/* A level-programmed NMI pin fires once per rise. */
static void nmi_pin_is_edge_triggered(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(APIC_DM_NMI | LEVEL, 0));
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(set(&b, true), 0);
    set(&b, false);
    assert_int_equal(set(&b, true), 1);
    end(&b);
}

static void level_sets_tmr_and_edge_clears_it(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_true(fx_bit(b.fx, 0, APIC_IRR, VECTOR));
    assert_true(fx_bit(b.fx, 0, APIC_TMR, VECTOR));
    end(&b);
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(trap_70_version_and_id_registers),
        TEST(version_register_says_pins_and_version),
        TEST(register_index_reads_back_eight_bits),
        TEST(index_out_of_range_reads_zero_and_ignores_writes),
        TEST(every_pin_of_the_largest_is_reachable),
        TEST(access_sizes_use_the_low_bytes),
        TEST(other_sizes_read_zero_and_write_nothing),
        TEST(other_offsets_read_zero_and_write_nothing),
        TEST(reset_masks_everything_and_keeps_lines),
        TEST(init_refuses_what_it_cannot_be),
        TEST(init_refuses_bad_pointers_sizes_and_a_second_time),
        TEST(a_vm_holds_256_and_no_more),
        TEST(bad_pins_and_sources_are_refused),
        TEST(entry_fields_store_what_the_guest_may_write),
        TEST(halves_are_written_separately),
        TEST(write_preserves_remote_irr),
        TEST(destination_width_follows_the_vm),
        TEST(remappable_format_sends_nothing_until_cleared),
        TEST(polarity_is_ignored_on_logical_levels),
        TEST(delivery_modes),
        TEST(nmi_pin_is_edge_triggered),
        TEST(level_sets_tmr_and_edge_clears_it),
    };

    return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
