/* SPDX-License-Identifier: MIT */
/*
 * The word of one I/O APIC pin, and its conversions from and to the guest's redirection table
 * entry. ioapic.c owns the word and explains it; ioapic_state.c saves and loads it; nobody else
 * looks.
 */
#ifndef VAPIC_IOAPIC_PIN_H
#define VAPIC_IOAPIC_PIN_H

#include "internal.h"
#include "vapic/arch/ioapic.h"

#define IOAPIC_MAX_PINS    240u
#define IOAPIC_MAX_SOURCES 16u
#define IOAPIC_MAX_COUNT   256u

/* A pin with this many EOIs in a row that found its line high makes a pause [KVM ioapic]. */
#define IOAPIC_STORM_LIMIT    10000u
#define IOAPIC_STORM_PAUSE_NS 10000000u

/* Bits 16:0 are the entry's low word, but for delivery status, which is PIN_STARVED. */
#define PIN_LOW           0x1EFFFu
#define PIN_LOW_WRITABLE  (PIN_LOW & ~IOAPIC_RTE_RIRR)
#define PIN_STARVED       (UINT64_C(1) << 17)
#define PIN_CLAIM_SHIFT   18
#define PIN_CLAIM         (UINT64_C(0x3FFF) << PIN_CLAIM_SHIFT)
#define PIN_HIGH_SHIFT    32 /* the entry's bits 63:48 */
#define PIN_HIGH          (UINT64_C(0xFFFF) << PIN_HIGH_SHIFT)
#define PIN_SOURCES_SHIFT 48
#define PIN_SOURCES       (UINT64_C(0xFFFF) << PIN_SOURCES_SHIFT)

/* Positions in the word of what the entry has in its high word. */
#define PIN_FORMAT     (UINT64_C(1) << 32)
#define PIN_EXT_SHIFT  33
#define PIN_DEST_SHIFT 40

/* What decides where a message goes and as what. */
#define PIN_MESSAGE                                                                                \
    (PIN_HIGH | IOAPIC_RTE_VECTOR | IOAPIC_RTE_DM | IOAPIC_RTE_LOGICAL | IOAPIC_RTE_LEVEL)

/* The entry's bits that a word can hold; the others read as zero [IOAPIC 3.2.4]. */
#define RTE_HIGH_BITS (UINT64_C(0xFFFF) << 48)
#define RTE_BITS      (RTE_HIGH_BITS | PIN_LOW | IOAPIC_RTE_DS)

/* The entry as the guest reads it [IOAPIC 3.2.4]. */
static inline uint64_t pin_entry(uint64_t word)
{
    uint64_t entry = (word & PIN_LOW) | (word & PIN_HIGH) << 16;

    if ((word & PIN_STARVED) && (word & PIN_SOURCES))
        entry |= IOAPIC_RTE_DS;
    return entry;
}

/* An interrupt that the target ends with an EOI: nothing else is [IOAPIC 3.2.4] [SDM3 12.6.1]. */
static inline bool pin_is_level(uint64_t word)
{
    return (word & IOAPIC_RTE_LEVEL) && (word & IOAPIC_RTE_DM) <= APIC_DM_LOWEST;
}

/*
 * The word after the guest wrote `entry`, all of it: sources and claim count stay, read-only bits
 * stay, an entry that is not level-triggered has no remote IRR.
 */
static inline uint64_t pin_with_entry(uint64_t word, uint64_t entry)
{
    word &= ~(uint64_t)(PIN_HIGH | PIN_LOW_WRITABLE);
    word |= (entry & PIN_LOW_WRITABLE) | (entry & RTE_HIGH_BITS) >> 16;
    return pin_is_level(word) ? word : word & ~(uint64_t)(IOAPIC_RTE_RIRR | PIN_STARVED);
}

/*
 * IOREGSEL has eight bits [IOAPIC 3.1.1], which name 120 entries. Where there are more it has nine;
 * guests write it with 32 bits anyway.
 */
static inline uint32_t ioapic_select_mask(const struct vapic_ioapic *io)
{
    return io->pin_count > 120 ? 0x1FF : 0xFF;
}

/*
 * ioapic.c: gives the pin entry (with remote IRR and delivery status), sources and storm count.
 * `sources` NULL: the lines stay as they are.
 */
void vapic_ioapic_load_pin(struct vapic_ioapic *io, uint32_t pin, uint64_t entry,
                           const uint16_t *sources, uint32_t storm);

#endif
