/* SPDX-License-Identifier: MIT */
/* The I/O APIC: registers, redirection entries, the state machine of a pin, EOI, storms. */
#include "fixture.h"

#include <string.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

#define LEVEL   IOAPIC_RTE_LEVEL
#define MASKED  IOAPIC_RTE_MASKED
#define LOGICAL IOAPIC_RTE_LOGICAL
#define RIRR    IOAPIC_RTE_RIRR
#define VECTOR  0x51
#define PIN     5

struct bench {
    struct fx *fx;
    struct vapic_ioapic *io;
};

static struct bench begin_with(const struct fx_options *options, uint32_t pins, uint8_t version)
{
    struct bench b = {.fx = fx_new(options)};

    b.io = fx_ioapic(b.fx, pins, 0, version);
    fx_forget(b.fx);
    return b;
}

static struct bench begin(uint32_t vcpus)
{
    return begin_with(&(struct fx_options){.vcpus = vcpus}, 24, IOAPIC_VERSION_20);
}

static void end(struct bench *b)
{
    fx_free(b->fx);
    fx_ioapic_free(b->io);
}

static uint64_t rte(uint32_t low, uint8_t dest)
{
    return low | (uint64_t)dest << 56;
}

/* Source 0 of PIN. */
static int set(struct bench *b, bool level)
{
    return vapic_ioapic_set(b->io, PIN, 0, level);
}

static bool rirr(struct bench *b)
{
    return (vapic_ioapic_entry(b->io, PIN) & RIRR) != 0;
}

/* How many times the handler runs on `cpu` until it is quiet; it does nothing but EOI. */
static uint32_t runs(struct bench *b, uint32_t cpu)
{
    uint32_t n = 0;

    while (n < 100 && fx_take_eoi(b->fx, cpu) >= 0)
        n++;
    return n;
}

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

/* ---- Edge ---- */

static void edge_fires_on_each_rise_and_never_sets_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(set(&b, true), 1);
    assert_false(rirr(&b));
    assert_int_equal(runs(&b, 0), 1);
    assert_int_equal(set(&b, false), 0);
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    end(&b);
}

static void edge_needs_a_fall_before_the_next_rise(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    assert_int_equal(set(&b, true), 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void edge_rise_onto_a_pending_vector_coalesces(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(set(&b, true), 1);
    set(&b, false);
    assert_int_equal(set(&b, true), 0);
    assert_int_equal(runs(&b, 0), 1);
    end(&b);
}

static void shared_edge_line_rises_once(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 3, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 4, true), 0);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 3, false), 0);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 3, true), 0); /* 4 held it high */
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* [IOAPIC 3.2.4], mask: an edge that comes while masked is not remembered. */
static void trap_76_masked_edge_is_lost(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | MASKED, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    set(&b, false);
    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(runs(&b, 0), 1);
    end(&b);
}

static void edge_high_through_the_unmask_does_not_fire(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | MASKED, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    assert_int_equal(runs(&b, 0), 0);
    set(&b, false);
    assert_int_equal(set(&b, true), 1);
    end(&b);
}

static void edge_that_nobody_accepts_is_gone(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* ---- Level ---- */

static void level_remote_irr_is_set_until_the_eoi(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_false(rirr(&b));
    assert_int_equal(set(&b, true), 1);
    assert_true(rirr(&b));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    assert_true(rirr(&b));
    set(&b, false);
    assert_true(rirr(&b));
    fx_eoi(b.fx, 0);
    assert_false(rirr(&b));
    end(&b);
}

static void level_rise_during_service_is_blocked(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 1, true), VAPIC_GSI_BLOCKED);
    end(&b);
}

static void shared_level_line_stays_high_until_the_last_source(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    vapic_ioapic_set(b.io, PIN, 0, true);
    vapic_ioapic_set(b.io, PIN, 15, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    vapic_ioapic_set(b.io, PIN, 0, false);
    fx_eoi(b.fx, 0); /* 15 still holds it */
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    vapic_ioapic_set(b.io, PIN, 15, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(fx_take(b.fx, 0), -1);
    end(&b);
}

/* [IOAPIC 3.2.4] [SDM3 12.8.5] */
static void trap_71_edge_pulse_and_level_run_once_each(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    set(&b, true);
    set(&b, false);
    assert_int_equal(runs(&b, 0), 1);

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_72_lower_raise_lower_in_the_handler_runs_once(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    set(&b, true);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_73_raised_again_after_service_runs_again(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    for (int n = 0; n < 2; n++) {
        assert_int_equal(set(&b, true), 1);
        assert_int_equal(fx_take(b.fx, 0), VECTOR);
        set(&b, false);
        fx_eoi(b.fx, 0);
        assert_int_equal(runs(&b, 0), 0);
    }
    end(&b);
}

/* The vCPU sleeps in HLT with interrupts on when the EOI's re-delivery must wake it. */
static void trap_74_line_left_high_at_eoi_runs_again(void **state)
{
    struct bench b = begin(1);
    struct vapic_entry entry;
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    fx_eoi(b.fx, 0);
    vapic_halt(&b.fx->v[0]);
    entry = fx_peek(b.fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);
    assert_true(entry.runnable);
    assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_75_masked_in_the_handler_runs_again_at_unmask(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL | MASKED);
    fx_eoi(b.fx, 0);
    assert_false(rirr(&b));
    assert_int_equal(runs(&b, 0), 0);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    set(&b, false);
    fx_eoi(b.fx, 0);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void trap_77_masked_level_fires_at_unmask(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | MASKED, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_int_equal(runs(&b, 0), 0);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void masked_level_lowered_before_the_unmask_is_gone(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | MASKED, 0));
    set(&b, true);
    set(&b, false);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* [SDM3 12.8.4]: TMR follows the message that was accepted last, not the entry. */
static void trap_78_tmr_follows_the_message_not_the_entry(void **state)
{
    static const uint32_t triggers[] = {0, LEVEL};
    (void)state;

    for (int first = 0; first < 2; first++) {
        struct bench b = begin(2);

        for (uint32_t cpu = 0; cpu < 2; cpu++) {
            fx_rte_write(b.io, PIN, rte(VECTOR | triggers[first], (uint8_t)cpu));
            set(&b, true);
            assert_int_equal(fx_take(b.fx, cpu), VECTOR);
            set(&b, false);
            fx_eoi(b.fx, cpu);
            fx_equal(fx_bit(b.fx, cpu, APIC_TMR, VECTOR), first, "first on %u", cpu);
            fx_rte_write(b.io, PIN, rte(VECTOR | triggers[!first], (uint8_t)cpu));
            fx_equal(fx_bit(b.fx, cpu, APIC_TMR, VECTOR), first, "entry written, %u", cpu);
            set(&b, true);
            assert_int_equal(fx_take(b.fx, cpu), VECTOR);
            fx_equal(fx_bit(b.fx, cpu, APIC_TMR, VECTOR), !first, "in the handler, %u", cpu);
            set(&b, false);
            fx_eoi(b.fx, cpu);
        }
        end(&b);
    }
}

/* 64h in service and 84h pending on CPU 0 when both are sent to CPU 1: the EOIs still count. */
static void trap_79_destination_rewritten_before_the_eoi(void **state)
{
    struct bench b = begin(2);
    struct vapic_entry entry;
    (void)state;

    fx_rte_write(b.io, 1, rte(0x64 | LEVEL, 0));
    fx_rte_write(b.io, 2, rte(0x84 | LEVEL, 0));
    vapic_ioapic_set(b.io, 1, 0, true);
    assert_int_equal(fx_take(b.fx, 0), 0x64);
    vapic_ioapic_set(b.io, 2, 0, true);
    vapic_ioapic_set(b.io, 1, 0, false);
    vapic_ioapic_set(b.io, 2, 0, false);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * 1 + 1, 0x01000000);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * 2 + 1, 0x01000000);
    assert_true(vapic_ioapic_entry(b.io, 1) & RIRR);
    assert_true(vapic_ioapic_entry(b.io, 2) & RIRR);
    fx_eoi(b.fx, 0);
    assert_false(vapic_ioapic_entry(b.io, 1) & RIRR);
    entry = fx_peek(b.fx, 0, 0); /* IF = 0: it waits */
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_int_equal(fx_take_eoi(b.fx, 0), 0x84);
    assert_false(vapic_ioapic_entry(b.io, 2) & RIRR);
    assert_int_equal(runs(&b, 1), 0);
    end(&b);
}

/* [SDM3 12.12.10.2] */
static void trap_80_physical_one_and_logical_three_of_four(void **state)
{
    struct fx_options options = {.vcpus = 4, .x2apic = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 1));
    assert_int_equal(set(&b, true), 1);
    set(&b, false);
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        fx_equal(runs(&b, cpu), cpu == 1, "physical, vCPU %u", cpu);

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | LOGICAL, 0x0D));
    assert_int_equal(set(&b, true), 3);
    set(&b, false);
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        fx_equal(runs(&b, cpu), cpu != 1, "logical, vCPU %u", cpu);
    assert_false(rirr(&b));
    end(&b);
}

/* How guests get rid of a stuck remote IRR without an EOI register. */
static void trap_81_edge_trick_clears_remote_irr(void **state)
{
    static const bool highs[] = {false, true};
    (void)state;

    for (size_t n = 0; n < 2; n++) {
        struct bench b = begin_with(NULL, 24, IOAPIC_VERSION_11);

        fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
        set(&b, true);
        assert_int_equal(fx_take(b.fx, 0), VECTOR);
        if (!highs[n])
            set(&b, false);
        fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | MASKED);
        assert_false(rirr(&b));
        fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | LEVEL);
        fx_equal(rirr(&b), highs[n], "line %d", highs[n]);
        fx_equal(fx_bit(b.fx, 0, APIC_IRR, VECTOR), highs[n], "line %d", highs[n]);
        end(&b);
    }
}

static void vector_rewritten_in_service_keeps_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    fx_rte_write(b.io, PIN, rte(0x61 | LEVEL, 0));
    fx_eoi(b.fx, 0);
    assert_true(rirr(&b));
    vapic_broadcast_eoi(&b.fx->vm, 0x61); /* an EOI of the new vector */
    assert_int_equal(fx_take_eoi(b.fx, 0), 0x61);
    end(&b);
}

static void eoi_reaches_every_pin_with_the_vector(void **state)
{
    struct bench b = begin(1);
    struct vapic_ioapic *second;
    (void)state;

    second = fx_ioapic(b.fx, 8, 24, IOAPIC_VERSION_11);
    fx_rte_write(b.io, 1, rte(VECTOR | LEVEL, 0));
    fx_rte_write(b.io, 23, rte(VECTOR | LEVEL, 0));
    fx_rte_write(second, 7, rte(VECTOR | LEVEL, 0));
    vapic_ioapic_set(b.io, 1, 0, true);
    vapic_ioapic_set(b.io, 23, 0, true);
    vapic_ioapic_set(second, 7, 0, true);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    vapic_ioapic_set(b.io, 1, 0, false);
    vapic_ioapic_set(b.io, 23, 0, false);
    vapic_ioapic_set(second, 7, 0, false);
    fx_eoi(b.fx, 0);
    assert_false(vapic_ioapic_entry(b.io, 1) & RIRR);
    assert_false(vapic_ioapic_entry(b.io, 23) & RIRR);
    assert_false(vapic_ioapic_entry(second, 7) & RIRR);
    end(&b);
    fx_ioapic_free(second);
}

static void eoi_of_an_edge_message_leaves_remote_irr(void **state)
{
    struct bench b = begin(2);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    set(&b, false);
    vapic_msi(&b.fx->vm, 0xFEE01000, VECTOR); /* edge, to the other vCPU */
    assert_int_equal(fx_take_eoi(b.fx, 1), VECTOR);
    assert_true(rirr(&b));
    end(&b);
}

/* ---- EOI register, directed EOI [IOAPIC 3.1] [SDM3 12.8.5] ---- */

static void eoi_register_ends_a_level_round(void **state)
{
    static const struct {
        uint8_t version;
        uint8_t written;
        bool high, rirr;
        const char *what;
    } rows[] = {
        {0x20, VECTOR, false, false, "clears remote IRR"},
        {0x20, VECTOR, true, true, "and sends again while the line is high"},
        {0x20, VECTOR + 1, false, true, "another vector"},
        {0x11, VECTOR, false, true, "version 11h has no such register"},
    };
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct bench b = begin_with(NULL, 24, rows[n].version);

        fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
        set(&b, true);
        assert_int_equal(fx_take(b.fx, 0), VECTOR);
        if (!rows[n].high)
            set(&b, false);
        vapic_ioapic_write(b.io, IOAPIC_EOIR, 0xFFFFFF00 | rows[n].written, 4);
        fx_equal(rirr(&b), rows[n].rirr, "%s", rows[n].what);
        fx_equal(fx_bit(b.fx, 0, APIC_IRR, VECTOR), rows[n].high, "%s", rows[n].what);
        fx_equal(vapic_ioapic_read(b.io, IOAPIC_EOIR, 4), 0, "%s, read", rows[n].what);
        end(&b);
    }
}

static void eoi_register_ignores_edge_entries(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    set(&b, true);
    assert_int_equal(fx_take_eoi(b.fx, 0), VECTOR);
    vapic_ioapic_write(b.io, IOAPIC_EOIR, VECTOR, 4);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

static void suppressed_broadcast_waits_for_the_eoi_register(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_EOI_SUPPRESS | 0xFF);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    assert_int_equal(fx_take_eoi(b.fx, 0), VECTOR);
    assert_true(rirr(&b));
    assert_int_equal(runs(&b, 0), 0);
    vapic_ioapic_write(b.io, IOAPIC_EOIR, VECTOR, 4);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

/* ---- Nobody accepts ---- */

static void nobody_accepts_leaves_no_remote_irr(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_false(rirr(&b));
    assert_true(vapic_ioapic_entry(b.io, PIN) & IOAPIC_RTE_DS); /* send pending */
    set(&b, false);
    assert_false(vapic_ioapic_entry(b.io, PIN) & IOAPIC_RTE_DS);
    end(&b);
}

static void nobody_accepts_sets_remote_irr_by_knob(void **state)
{
    struct fx_options options = {.config = {.knobs_set = true, .knobs = VAPIC_PROFILE_KVM}};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_11);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_true(rirr(&b));
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN, VECTOR | MASKED);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_fires_when_a_vcpu_is_enabled(void **state)
{
    struct fx_options options = {.soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_true(rirr(&b));
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_fires_when_a_vcpu_is_added(void **state)
{
    struct fx_options options = {.not_added = true, .soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    assert_int_equal(vapic_add(&b.fx->v[0]), VAPIC_OK);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_fires_when_its_destination_is_rewritten(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0x77));
    assert_int_equal(set(&b, true), VAPIC_GSI_BLOCKED);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * PIN + 1, 0);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void starved_pin_that_went_low_stays_quiet(void **state)
{
    struct fx_options options = {.soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    set(&b, false);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_false(rirr(&b));
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* A change that feeds nobody leaves the pin to the next change. */
static void starved_pin_is_retried_at_every_change(void **state)
{
    struct fx_options options = {.vcpus = 2, .soft_disabled = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 1));
    set(&b, true);
    fx_set(b.fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_false(rirr(&b));
    fx_set(b.fx, 1, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    assert_int_equal(fx_take(b.fx, 1), VECTOR);
    assert_int_equal(runs(&b, 0), 0);
    end(&b);
}

/* ---- Storms ---- */

/* The handler runs `n` times; the device never lowers its line. */
static void eois(struct bench *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(fx_take_eoi(b->fx, 0), VECTOR);
}

static void trap_82_storm_makes_a_pause_and_goes_on(void **state)
{
    struct bench b = begin(1);
    struct fx_event pause;
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    for (int round = 0; round < 2; round++) { /* the count restarts */
        eois(&b, 9999);
        assert_int_equal(fx_count(b.fx, FX_DELAY), 0);
        fx_forget(b.fx); /* the log is full of EOIs */
        eois(&b, 1);
        assert_int_equal(fx_count(b.fx, FX_DELAY), 1);
        pause = fx_nth(b.fx, FX_DELAY, 0);
        assert_int_equal(pause.a, PIN);
        assert_int_equal(pause.b, 10000000);
        assert_ptr_equal(pause.io, b.io);
        assert_int_equal(fx_take(b.fx, 0), -1); /* the guest makes progress */
        assert_false(rirr(&b));
        vapic_ioapic_resume(b.io, PIN);
        fx_forget(b.fx);
    }
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void an_eoi_with_the_line_low_restarts_the_storm_count(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 9999);
    set(&b, false);
    eois(&b, 1);
    set(&b, true);
    eois(&b, 9999);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 0);
    eois(&b, 1);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 1);
    end(&b);
}

static void a_masked_eoi_restarts_the_storm_count(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 9998);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL | MASKED, 0));
    eois(&b, 1);
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    eois(&b, 9999);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 0);
    end(&b);
}

static void resume_after_the_line_went_low_does_nothing(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 10000);
    set(&b, false);
    vapic_ioapic_resume(b.io, PIN);
    assert_int_equal(runs(&b, 0), 0);
    assert_int_equal(set(&b, true), 1);
    end(&b);
}

static void a_rise_during_the_pause_fires_at_once(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 10000);
    assert_int_equal(vapic_ioapic_set(b.io, PIN, 1, true), 1);
    vapic_ioapic_resume(b.io, PIN);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void resume_from_inside_the_callback(struct fx *fx, struct vapic_ioapic *io, uint32_t pin)
{
    (void)fx;
    vapic_ioapic_resume(io, pin);
}

static void the_host_may_resume_inside_the_callback(void **state)
{
    struct bench b = begin(1);
    (void)state;

    b.fx->on_delay = resume_from_inside_the_callback;
    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 10000);
    assert_int_equal(fx_count(b.fx, FX_DELAY), 1);
    assert_int_equal(fx_take(b.fx, 0), VECTOR);
    end(&b);
}

static void without_the_callback_there_is_no_pause(void **state)
{
    struct fx_options options = {.no_optional = true};
    struct bench b = begin_with(&options, 24, IOAPIC_VERSION_20);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR | LEVEL, 0));
    set(&b, true);
    eois(&b, 20001);
    end(&b);
}

/* ---- Who is told ---- */

static void a_running_target_is_kicked(void **state)
{
    struct bench b = begin(1);
    (void)state;

    fx_rte_write(b.io, PIN, rte(VECTOR, 0));
    fx_peek(b.fx, 0, VAPIC_CAN_IRQ | VAPIC_IF); /* in the guest from here on */
    assert_int_equal(set(&b, true), 1);
    assert_int_equal(fx_count(b.fx, FX_NOTIFY), 1);
    assert_int_equal(fx_nth(b.fx, FX_NOTIFY, 0).a, VAPIC_ACTION_KICK);
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
        TEST(edge_fires_on_each_rise_and_never_sets_remote_irr),
        TEST(edge_needs_a_fall_before_the_next_rise),
        TEST(edge_rise_onto_a_pending_vector_coalesces),
        TEST(shared_edge_line_rises_once),
        TEST(trap_76_masked_edge_is_lost),
        TEST(edge_high_through_the_unmask_does_not_fire),
        TEST(edge_that_nobody_accepts_is_gone),
        TEST(level_remote_irr_is_set_until_the_eoi),
        TEST(level_rise_during_service_is_blocked),
        TEST(shared_level_line_stays_high_until_the_last_source),
        TEST(trap_71_edge_pulse_and_level_run_once_each),
        TEST(trap_72_lower_raise_lower_in_the_handler_runs_once),
        TEST(trap_73_raised_again_after_service_runs_again),
        TEST(trap_74_line_left_high_at_eoi_runs_again),
        TEST(trap_75_masked_in_the_handler_runs_again_at_unmask),
        TEST(trap_77_masked_level_fires_at_unmask),
        TEST(masked_level_lowered_before_the_unmask_is_gone),
        TEST(trap_78_tmr_follows_the_message_not_the_entry),
        TEST(trap_79_destination_rewritten_before_the_eoi),
        TEST(trap_80_physical_one_and_logical_three_of_four),
        TEST(trap_81_edge_trick_clears_remote_irr),
        TEST(vector_rewritten_in_service_keeps_remote_irr),
        TEST(eoi_reaches_every_pin_with_the_vector),
        TEST(eoi_of_an_edge_message_leaves_remote_irr),
        TEST(eoi_register_ends_a_level_round),
        TEST(eoi_register_ignores_edge_entries),
        TEST(suppressed_broadcast_waits_for_the_eoi_register),
        TEST(nobody_accepts_leaves_no_remote_irr),
        TEST(nobody_accepts_sets_remote_irr_by_knob),
        TEST(starved_pin_fires_when_a_vcpu_is_enabled),
        TEST(starved_pin_fires_when_a_vcpu_is_added),
        TEST(starved_pin_fires_when_its_destination_is_rewritten),
        TEST(starved_pin_that_went_low_stays_quiet),
        TEST(starved_pin_is_retried_at_every_change),
        TEST(trap_82_storm_makes_a_pause_and_goes_on),
        TEST(an_eoi_with_the_line_low_restarts_the_storm_count),
        TEST(a_masked_eoi_restarts_the_storm_count),
        TEST(resume_after_the_line_went_low_does_nothing),
        TEST(a_rise_during_the_pause_fires_at_once),
        TEST(the_host_may_resume_inside_the_callback),
        TEST(without_the_callback_there_is_no_pause),
        TEST(a_running_target_is_kicked),
    };

    return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
