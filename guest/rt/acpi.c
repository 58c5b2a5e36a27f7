/* SPDX-License-Identifier: MIT */
/*
 * Walks RSDP -> XSDT or RSDT -> FADT and MADT. Reads tables where the firmware left them (below
 * 4 GiB, mapped one to one). Called once at start, by the first processor.
 */
#include "acpi.h"

#include <stddef.h>

#include "x86.h"

#define RSDP_AREA_BEGIN  0xe0000u
#define RSDP_AREA_END    0x100000u
#define EBDA_POINTER     0x40eu
#define FADT_PM1A_CNT    64u
#define FADT_X_PM1A_ADDR 176u
#define MADT_ENTRIES     44u
#define MADT_LAPIC       0
#define MADT_IOAPIC      1
#define MADT_X2APIC      9
#define MADT_CPU_ENABLED 1u

struct table {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem[18];
    uint32_t creator_revision_and_id[2];
} __attribute__((packed));

static const struct table *fadt, *madt;

/* Tables lie at any address; these read them byte-wise aligned or not. */
static uint32_t get32(const void *base, size_t offset)
{
    uint32_t value;

    __builtin_memcpy(&value, (const uint8_t *)base + offset, sizeof(value));
    return value;
}

static uint64_t get64(const void *base, size_t offset)
{
    return get32(base, offset) | ((uint64_t)get32(base, offset + 4) << 32);
}

static bool sums_to_zero(const void *base, size_t length)
{
    const uint8_t *p = base;
    uint8_t sum = 0;

    while (length--)
        sum = (uint8_t)(sum + *p++);
    return sum == 0;
}

static const void *at(uint64_t address)
{
    __asm__("" : "+r"(address)); /* keeps the compiler from judging low addresses */
    return (const void *)address;
}

static const void *find_rsdp(uint64_t begin, uint64_t end)
{
    for (uint64_t a = begin; a + 36 <= end; a += 16)
        if (get64(at(a), 0) == 0x2052545020445352ull && sums_to_zero(at(a), 20))
            return at(a);
    return NULL;
}

static bool keep(const struct table *t)
{
    if (!sums_to_zero(t, t->length))
        return false;
    if (get32(t, 0) == 0x50434146u) /* FACP */
        fadt = t;
    else if (get32(t, 0) == 0x43495041u) /* APIC */
        madt = t;
    return true;
}

static bool walk(const struct table *root, unsigned entry_size)
{
    if (!sums_to_zero(root, root->length))
        return false;
    for (uint32_t o = sizeof(*root); o + entry_size <= root->length; o += entry_size)
        if (!keep(at(entry_size == 8 ? get64(root, o) : get32(root, o))))
            return false;
    return true;
}

bool acpi_init(void)
{
    uint32_t ebda = (get32(at(EBDA_POINTER), 0) & 0xffff) << 4;
    const void *rsdp = find_rsdp(RSDP_AREA_BEGIN, RSDP_AREA_END);

    if (!rsdp && ebda)
        rsdp = find_rsdp(ebda, ebda + 1024);
    if (!rsdp)
        return false;
    if (((const uint8_t *)rsdp)[15] >= 2 && get64(rsdp, 24))
        return walk(at(get64(rsdp, 24)), 8);
    return walk(at(get32(rsdp, 16)), 4);
}

uint16_t acpi_pm1a_control(void)
{
    if (!fadt)
        return 0;
    if (get32(fadt, FADT_PM1A_CNT))
        return (uint16_t)get32(fadt, FADT_PM1A_CNT);
    return fadt->length >= FADT_X_PM1A_ADDR + 8 ? (uint16_t)get64(fadt, FADT_X_PM1A_ADDR) : 0;
}

/* The entry after `e`, or the first one; null at the end. */
static const uint8_t *madt_next(const uint8_t *e)
{
    const uint8_t *end = (const uint8_t *)madt + (madt ? madt->length : 0);

    if (!madt)
        return NULL;
    e = e ? e + e[1] : (const uint8_t *)madt + MADT_ENTRIES;
    return e + 2 <= end && e[1] >= 2 && e + e[1] <= end ? e : NULL;
}

struct acpi_ioapic acpi_first_ioapic(void)
{
    struct acpi_ioapic io = {0, 0, false};

    for (const uint8_t *e = madt_next(NULL); e && !io.present; e = madt_next(e))
        if (e[0] == MADT_IOAPIC)
            io = (struct acpi_ioapic){get32(e, 4), get32(e, 8), true};
    return io;
}

void acpi_each_cpu(acpi_cpu_fn fn)
{
    for (const uint8_t *e = madt_next(NULL); e; e = madt_next(e)) {
        if (e[0] == MADT_LAPIC && (get32(e, 4) & MADT_CPU_ENABLED))
            fn(e[3]);
        else if (e[0] == MADT_X2APIC && (get32(e, 8) & MADT_CPU_ENABLED))
            fn(get32(e, 4));
    }
}
