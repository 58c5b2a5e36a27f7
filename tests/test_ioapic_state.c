/* SPDX-License-Identifier: MIT */
/* Saving and loading an I/O APIC: round trips, what fires after a load, hostile records. */
#include "fixture.h"

#include <string.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

#define VECTOR    0x51
#define LEVEL     IOAPIC_RTE_LEVEL
#define MASKED    IOAPIC_RTE_MASKED
#define RIRR      IOAPIC_RTE_RIRR
#define PINS      24u
#define SIZE      VAPIC_IOAPIC_RECORD(PINS)
#define PIN_AT(n) (32u + 16u * (n))

struct bench {
    struct fx *fx;
    struct vapic_ioapic *io;
    uint8_t record[SIZE];
};

static struct bench begin(void)
{
    struct bench b = {.fx = fx_new(NULL)};

    b.io = fx_ioapic(b.fx, PINS, 0, 0x20);
    return b;
}

static void end(struct bench *b)
{
    fx_free(b->fx);
    fx_ioapic_free(b->io);
}

static void save(struct bench *b)
{
    assert_int_equal(vapic_ioapic_save(b->io, b->record, SIZE), VAPIC_OK);
}

/* Into another machine, whose vCPUs have nothing pending. */
static struct bench load_elsewhere(const struct bench *b)
{
    struct bench other = begin();

    assert_int_equal(vapic_ioapic_load(other.io, b->record, SIZE), VAPIC_OK);
    return other;
}

/* ---- Round trips ---- */

static void everything_comes_back(void **state)
{
    struct bench b = begin(), other;
    (void)state;

    for (uint32_t n = 0; n < PINS; n++)
        fx_rte_write(b.io, n, MASKED | (0x40 + n) | UINT64_C(0x0102030405060708) * n);
    fx_io_write(b.io, IOAPIC_REG_ID, 0x0B000000);
    vapic_ioapic_write(b.io, IOAPIC_REGSEL, 0x37, 4);
    save(&b);
    other = load_elsewhere(&b);
    assert_int_equal(vapic_ioapic_read(other.io, IOAPIC_REGSEL, 4), 0x37);
    assert_int_equal(fx_io_read(other.io, IOAPIC_REG_ID), 0x0B000000);
    for (uint32_t n = 0; n < PINS; n++)
        fx_equal(vapic_ioapic_entry(other.io, n), vapic_ioapic_entry(b.io, n), "pin %u", n);
    end(&b);
    end(&other);
}

/* How the record looks is a promise to files on disk. */
static void the_record_has_the_documented_layout(void **state)
{
    static const uint8_t header[32] = {'v', 'I',  'O', 'A',  1, 0, 32, 0, SIZE & 0xFF, SIZE >> 8, 0,
                                       0,   PINS, 0,   0x20, 0, 0, 0,  0, 0x0B,        0x37};
    static const uint8_t pin[16] = {0x51, 0xC0, 0, 0, 0, 0, 0, 0x12, 0x04, 0, 0, 0, 1};
    struct bench b = begin();
    (void)state;

    fx_io_write(b.io, IOAPIC_REG_ID, 0x0B000000);
    fx_rte_write(b.io, 5, VECTOR | LEVEL);
    vapic_ioapic_set(b.io, 5, 2, true);
    assert_int_equal(fx_take_eoi(b.fx, 0), VECTOR);
    fx_io_write(b.io, IOAPIC_REG_RTE + 2 * 5 + 1, 0x12000000);
    vapic_ioapic_write(b.io, IOAPIC_REGSEL, 0x37, 4);
    save(&b);
    assert_memory_equal(b.record, header, sizeof(header));
    assert_memory_equal(b.record + PIN_AT(5), pin, sizeof(pin));
    end(&b);
}

struct load_row {
    uint32_t low;
    bool high;  /* the line when it is saved */
    bool taken; /* the handler runs when it is saved */
    const char *what;
};

static const struct load_row load_rows[] = {
    {VECTOR, true, false, "edge, high: was delivered before"},
    {VECTOR, false, false, "edge, low"},
    {VECTOR | MASKED, true, false, "edge, masked"},
    {VECTOR | LEVEL, true, true, "level, in service: remote IRR keeps it quiet"},
    {VECTOR | LEVEL, false, false, "level, low"},
    {VECTOR | LEVEL | MASKED, true, false, "level, masked"},
};

static void a_load_sends_nothing_twice(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(load_rows) / sizeof(load_rows[0]); n++) {
        const struct load_row *row = &load_rows[n];
        struct bench b = begin(), other;

        fx_rte_write(b.io, 5, row->low);
        vapic_ioapic_set(b.io, 5, 0, row->high);
        save(&b);
        other = load_elsewhere(&b);
        fx_equal((unsigned)fx_take(other.fx, 0), (unsigned)-1, "%s", row->what);
        fx_equal((vapic_ioapic_entry(other.io, 5) & RIRR) != 0, row->taken, "%s", row->what);
        end(&b);
        end(&other);
    }
}

/* High, unmasked, no remote IRR: it waited for a target or for the end of a storm's pause. */
static void a_level_that_is_due_fires_at_load(void **state)
{
    struct bench b = begin(), other;
    (void)state;

    fx_rte_write(b.io, 5, VECTOR | LEVEL | UINT64_C(0x77) << 56);
    vapic_ioapic_set(b.io, 5, 0, true);
    save(&b);
    b.record[PIN_AT(5) + 7] = 0; /* the destination: this vCPU */
    other = load_elsewhere(&b);
    assert_int_equal(fx_take(other.fx, 0), VECTOR);
    end(&b);
    end(&other);
}

static void the_line_goes_on_after_a_load(void **state)
{
    struct bench b = begin(), other;
    (void)state;

    fx_rte_write(b.io, 5, VECTOR);
    vapic_ioapic_set(b.io, 5, 9, true);
    save(&b);
    other = load_elsewhere(&b);
    assert_int_equal(vapic_ioapic_set(other.io, 5, 8, true), 0); /* 9 holds it high */
    vapic_ioapic_set(other.io, 5, 8, false);
    vapic_ioapic_set(other.io, 5, 9, false);
    assert_int_equal(vapic_ioapic_set(other.io, 5, 8, true), 1);
    end(&b);
    end(&other);
}

static void a_storm_goes_on_counting_after_a_load(void **state)
{
    struct bench b = begin(), other;
    (void)state;

    fx_rte_write(b.io, 5, VECTOR | LEVEL);
    vapic_ioapic_set(b.io, 5, 0, true);
    for (int n = 0; n < 9999; n++)
        fx_take_eoi(b.fx, 0);
    save(&b);
    other = load_elsewhere(&b);
    vapic_broadcast_eoi(&other.fx->vm, VECTOR);
    assert_int_equal(fx_count(other.fx, FX_DELAY), 1);
    end(&b);
    end(&other);
}

/* ---- Hostile records ---- */

struct hostile_row {
    uint32_t at;
    uint8_t value;
    int result;
    const char *what;
};

static const struct hostile_row hostile_rows[] = {
    {0, 'V', VAPIC_E_FORMAT, "magic"},
    {3, 0, VAPIC_E_FORMAT, "magic, last byte"},
    {4, 0, VAPIC_E_FORMAT, "version 0"},
    {4, 2, VAPIC_E_VERSION, "version 2"},
    {5, 0xFF, VAPIC_E_VERSION, "version FF01h"},
    {6, 31, VAPIC_E_FORMAT, "short header"},
    {7, 1, VAPIC_E_FORMAT, "long header"},
    {8, 0, VAPIC_E_FORMAT, "length, first byte"},
    {9, 0xFF, VAPIC_E_FORMAT, "longer than the buffer"},
    {11, 0xFF, VAPIC_E_FORMAT, "much longer than the buffer"},
    {12, 23, VAPIC_E_FORMAT, "pins do not fit the length"},
    {13, 0xFF, VAPIC_E_FORMAT, "far too many pins"},
    {14, 0x11, VAPIC_E_ARG, "another version of the chip"},
    {15, 1, VAPIC_E_FORMAT, "a byte that must be zero"},
    {16, 1, VAPIC_E_FORMAT, "ID bit 0"},
    {19, 0x1F, VAPIC_E_FORMAT, "ID bit 28"},
    {21, 1, VAPIC_E_FORMAT, "IOREGSEL bit 8"},
    {23, 0x80, VAPIC_E_FORMAT, "IOREGSEL bit 31"},
    {24, 1, VAPIC_E_FORMAT, "bytes that must be zero"},
    {31, 1, VAPIC_E_FORMAT, "last byte that must be zero"},
    {PIN_AT(0) + 1, 0x40, VAPIC_E_FORMAT, "remote IRR of an edge entry"},
    {PIN_AT(0) + 1, 0xC4, VAPIC_E_FORMAT, "remote IRR of an NMI entry"},
    {PIN_AT(0) + 2, 0x03, VAPIC_E_FORMAT, "entry bit 17"},
    {PIN_AT(0) + 5, 0x80, VAPIC_E_FORMAT, "entry bit 47"},
    {PIN_AT(23) + 10, 1, VAPIC_E_FORMAT, "bytes of the last pin that must be zero"},
    {PIN_AT(23) + 14, 1, VAPIC_E_FORMAT, "storm count beyond its limit"},
    {PIN_AT(0) + 1, 0xC1, VAPIC_OK, "remote IRR of a lowest-priority level entry"},
    {PIN_AT(0) + 1, 0x10, VAPIC_OK, "delivery status is recomputed"},
    {PIN_AT(0) + 6, 0xFF, VAPIC_OK, "format and extended destination"},
    {PIN_AT(0) + 9, 0xFF, VAPIC_OK, "line sources"},
};

static void hostile_records_are_refused_and_change_nothing(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(hostile_rows) / sizeof(hostile_rows[0]); n++) {
        const struct hostile_row *row = &hostile_rows[n];
        struct bench b = begin();
        uint8_t before[SIZE], after[SIZE];

        save(&b);
        fx_rte_write(b.io, 0, MASKED | 0x33);
        fx_io_write(b.io, IOAPIC_REG_ID, 0x05000000);
        assert_int_equal(vapic_ioapic_save(b.io, before, SIZE), VAPIC_OK);
        b.record[row->at] = row->value;
        fx_equal((unsigned)vapic_ioapic_load(b.io, b.record, SIZE), (unsigned)row->result, "%s",
                 row->what);
        assert_int_equal(vapic_ioapic_save(b.io, after, SIZE), VAPIC_OK);
        fx_equal(memcmp(before, after, SIZE) == 0, row->result != VAPIC_OK, "%s", row->what);
        end(&b);
    }
}

/* Any single byte with any value: a result, never a fault, and what loads saves again. */
static void any_byte_may_be_anything(void **state)
{
    struct bench b = begin();
    uint8_t record[SIZE];
    (void)state;

    fx_rte_write(b.io, 5, VECTOR | LEVEL);
    save(&b);
    for (uint32_t at = 0; at < SIZE; at++) {
        for (uint32_t value = 0; value < 256; value++) {
            memcpy(record, b.record, SIZE);
            record[at] = (uint8_t)value;
            if (vapic_ioapic_load(b.io, record, SIZE) != VAPIC_OK)
                continue;
            assert_int_equal(vapic_ioapic_save(b.io, record, SIZE), VAPIC_OK);
            fx_equal((unsigned)vapic_ioapic_load(b.io, record, SIZE), VAPIC_OK, "byte %u = %u", at,
                     value);
        }
    }
    end(&b);
}

static void short_buffers_are_refused(void **state)
{
    struct bench b = begin();
    (void)state;

    memset(b.record, 0xA5, SIZE);
    assert_int_equal(vapic_ioapic_save(b.io, b.record, SIZE - 1), VAPIC_E_SIZE);
    for (uint32_t n = 0; n < SIZE; n++)
        fx_equal(b.record[n], 0xA5, "byte %u", n);
    save(&b);
    for (uint32_t size = 0; size < SIZE; size++)
        fx_equal((unsigned)vapic_ioapic_load(b.io, b.record, size), (unsigned)VAPIC_E_SIZE,
                 "%u bytes", size);
    end(&b);
}

static void null_pointers_are_refused(void **state)
{
    struct bench b = begin();
    (void)state;

    assert_int_equal(vapic_ioapic_save(NULL, b.record, SIZE), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_save(b.io, NULL, SIZE), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_load(NULL, b.record, SIZE), VAPIC_E_ARG);
    assert_int_equal(vapic_ioapic_load(b.io, NULL, SIZE), VAPIC_E_ARG);
    end(&b);
}

static void another_number_of_pins_is_refused(void **state)
{
    struct bench b = begin();
    struct vapic_ioapic *small = fx_ioapic(b.fx, 8, 24, 0x20);
    uint8_t record[VAPIC_IOAPIC_RECORD(8)];
    (void)state;

    assert_int_equal(vapic_ioapic_save(small, record, sizeof(record)), VAPIC_OK);
    assert_int_equal(vapic_ioapic_load(b.io, record, sizeof(record)), VAPIC_E_ARG);
    end(&b);
    fx_ioapic_free(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),
        cmocka_unit_test(the_record_has_the_documented_layout),
        cmocka_unit_test(a_load_sends_nothing_twice),
        cmocka_unit_test(a_level_that_is_due_fires_at_load),
        cmocka_unit_test(the_line_goes_on_after_a_load),
        cmocka_unit_test(a_storm_goes_on_counting_after_a_load),
        cmocka_unit_test(hostile_records_are_refused_and_change_nothing),
        cmocka_unit_test(any_byte_may_be_anything),
        cmocka_unit_test(short_buffers_are_refused),
        cmocka_unit_test(null_pointers_are_refused),
        cmocka_unit_test(another_number_of_pins_is_refused),
    };

    return cmocka_run_group_tests_name("ioapic_state", tests, NULL, NULL);
}
