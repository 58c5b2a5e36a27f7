/* SPDX-License-Identifier: MIT */
/*
 * Saving and loading an I/O APIC as a record. Called by hosts; the words of the pins are
 * ioapic.c's.
 *
 * The record, little-endian:
 *
 *      0  u32  magic "vIOA"             16  u32  ID register
 *      4  u16  version, 1               20  u32  IOREGSEL
 *      6  u16  bytes before the pins    24  u64  0
 *      8  u32  bytes in all             then, for each pin:
 *     12  u16  pins                      0  u64  redirection entry as the guest reads it
 *     14  u8   version of the chip       8  u16  line sources
 *     15  u8   0                        10  u16  0
 *                                       12  u32  EOIs in a row that found the line high
 *
 * Everything is checked before anything is changed. What a guest could not have brought about
 * (reserved bits, remote IRR of an edge-triggered entry) is refused, not repaired: such a record
 * was damaged. Delivery status is recomputed, so any value of it loads.
 */
#include "bytes.h"
#include "ioapic_pin.h"

#define RECORD_MAGIC   0x414F4976u
#define RECORD_VERSION 1u
#define HEADER_SIZE    32u
#define PIN_SIZE       16u

_Static_assert(VAPIC_IOAPIC_RECORD(1) == HEADER_SIZE + PIN_SIZE, "the header says the same");

/* ---- Save ---- */

static void save_pin(uint8_t *to, const struct vapic_pin *pin)
{
    uint64_t word = vapic_load64(&pin->word, VAPIC_ACQUIRE);

    put_le(to, pin_entry(word), 8);
    put_le(to + 8, word >> PIN_SOURCES_SHIFT, 2);
    put_le(to + 10, 0, 2);
    put_le(to + 12, vapic_load32(&pin->storm, VAPIC_RELAXED), 4);
}

int vapic_ioapic_save(struct vapic_ioapic *io, void *record, size_t size)
{
    uint8_t *to = record;

    if (io == NULL || record == NULL)
        return VAPIC_E_ARG;
    if (size < VAPIC_IOAPIC_RECORD(io->pin_count))
        return VAPIC_E_SIZE;
    put_le(to, RECORD_MAGIC, 4);
    put_le(to + 4, RECORD_VERSION, 2);
    put_le(to + 6, HEADER_SIZE, 2);
    put_le(to + 8, VAPIC_IOAPIC_RECORD(io->pin_count), 4);
    put_le(to + 12, io->pin_count, 2);
    to[14] = io->version;
    to[15] = 0;
    put_le(to + 16, vapic_load32(&io->id, VAPIC_RELAXED), 4);
    put_le(to + 20, vapic_load32(&io->select, VAPIC_RELAXED), 4);
    put_le(to + 24, 0, 8);
    for (uint32_t n = 0; n < io->pin_count; n++)
        save_pin(to + HEADER_SIZE + PIN_SIZE * n, &io->pins[n]);
    return VAPIC_OK;
}

/* ---- Load ---- */

static bool entry_valid(uint64_t entry)
{
    if (entry & ~(uint64_t)RTE_BITS)
        return false;
    return !(entry & IOAPIC_RTE_RIRR) || pin_is_level(entry);
}

static bool pin_valid(const uint8_t *from)
{
    return entry_valid(get_le(from, 8)) && get_le(from + 10, 2) == 0 &&
           get_le(from + 12, 4) < IOAPIC_STORM_LIMIT;
}

/* Is it a whole record that some I/O APIC could have saved? */
static int check_form(const uint8_t *from, size_t size)
{
    uint64_t version = get_le(from + 4, 2), length = get_le(from + 8, 4);

    if (get_le(from, 4) != RECORD_MAGIC || version == 0)
        return VAPIC_E_FORMAT;
    if (version > RECORD_VERSION)
        return VAPIC_E_VERSION;
    if (get_le(from + 6, 2) != HEADER_SIZE || from[15] != 0 || get_le(from + 24, 8) != 0)
        return VAPIC_E_FORMAT;
    if (length != VAPIC_IOAPIC_RECORD(get_le(from + 12, 2)))
        return VAPIC_E_FORMAT;
    return length <= size ? VAPIC_OK : VAPIC_E_SIZE;
}

/* Does it fit this one? */
static int check_fit(const struct vapic_ioapic *io, const uint8_t *from)
{
    if (get_le(from + 12, 2) != io->pin_count || from[14] != io->version)
        return VAPIC_E_ARG;
    if ((get_le(from + 16, 4) & ~(uint64_t)IOAPIC_ID_MASK) ||
        (get_le(from + 20, 4) & ~(uint64_t)ioapic_select_mask(io)))
        return VAPIC_E_FORMAT;
    for (uint32_t n = 0; n < io->pin_count; n++) {
        if (!pin_valid(from + HEADER_SIZE + PIN_SIZE * n))
            return VAPIC_E_FORMAT;
    }
    return VAPIC_OK;
}

int vapic_ioapic_load(struct vapic_ioapic *io, const void *record, size_t size)
{
    const uint8_t *from = record;
    int result;

    if (io == NULL || record == NULL)
        return VAPIC_E_ARG;
    if (size < HEADER_SIZE)
        return VAPIC_E_SIZE;
    result = check_form(from, size);
    if (result == VAPIC_OK)
        result = check_fit(io, from);
    if (result != VAPIC_OK)
        return result;
    vapic_store32(&io->id, (uint32_t)get_le(from + 16, 4), VAPIC_RELAXED);
    vapic_store32(&io->select, (uint32_t)get_le(from + 20, 4), VAPIC_RELAXED);
    for (uint32_t n = 0; n < io->pin_count; n++) {
        const uint8_t *pin = from + HEADER_SIZE + PIN_SIZE * n;
        uint16_t sources = (uint16_t)get_le(pin + 8, 2);

        vapic_ioapic_load_pin(io, n, get_le(pin, 8), &sources, (uint32_t)get_le(pin + 12, 4));
    }
    return VAPIC_OK;
}

/* ---- One entry of another I/O APIC's ---- */

int vapic_ioapic_load_entry(struct vapic_ioapic *io, uint32_t pin, uint64_t entry)
{
    if (io == NULL || pin >= io->pin_count)
        return VAPIC_E_ARG;
    if (!pin_is_level(entry))
        entry &= ~(uint64_t)IOAPIC_RTE_RIRR;
    vapic_ioapic_load_pin(io, pin, entry & RTE_BITS, NULL, 0);
    return VAPIC_OK;
}
