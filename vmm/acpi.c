/* SPDX-License-Identifier: MIT */
/*
 * The ACPI table builder; see acpi.h. A small writer appends bytes to the area and remembers
 * whether they fitted; every table is begun and ended by it, so lengths and checksums cannot be
 * forgotten. Field offsets follow the ACPI specification, revision 5.1.
 */
#include "acpi.h"

#include <stdbool.h>
#include <string.h>

#include "dev_acpi_pm.h"
#include "layout.h"
#include "load_bytes.h"

#define OEM_ID          "VAPIC "
#define OEM_TABLE_ID    "VAPICRUN"
#define CREATOR_ID      "VAPC"

#define HEADER_SIZE     36u
#define FADT_SIZE       244u
#define FACS_SIZE       64u
#define RSDP_SIZE       36u
#define RSDP_CHECKED_V1 20u

/* FADT flags and boot architecture flags: what this machine is. */
#define FADT_WBINVD          (1u << 0)
#define FADT_PROC_C1         (1u << 2)
#define FADT_NO_POWER_BUTTON (1u << 4)
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_NO_FIXED_RTC    (1u << 6)
#define FADT_TMR_VAL_EXT     (1u << 8)
#define FADT_RESET_REG_SUP   (1u << 10)
#define BOOT_LEGACY_DEVICES  (1u << 0)
#define BOOT_NO_VGA          (1u << 2)

#define MADT_PCAT_COMPAT     1u
#define MADT_LAPIC           0u
#define MADT_IOAPIC          1u
#define MADT_OVERRIDE        2u
#define MADT_LAPIC_NMI       4u
#define MADT_X2APIC          9u
#define MADT_X2APIC_NMI      10u
#define MADT_ENABLED         1u
#define FIRST_X2APIC_ONLY_ID 255u
#define ACTIVE_HIGH_LEVEL    0x000du

struct writer {
    uint8_t *area;
    uint64_t base; /* guest-physical address of the area */
    uint32_t size;
    uint32_t used;
    bool overflow;
};

/* Room for a table or a piece of one, zeroed and aligned; a scratch place when it is full. */
static uint8_t *take(struct writer *w, uint32_t bytes, uint32_t align)
{
    static uint8_t scratch[256];
    uint32_t at = (uint32_t)align_up(w->used, align);

    if (w->overflow || at > w->size || bytes > w->size - at) {
        w->overflow = true;
        return scratch;
    }
    w->used = at + bytes;
    memset(w->area + at, 0, bytes);
    return w->area + at;
}

static uint8_t checksum(const uint8_t *p, uint32_t len)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return (uint8_t)-sum;
}

static uint64_t address(const struct writer *w, const uint8_t *p)
{
    return w->overflow ? 0 : w->base + (uint64_t)(p - w->area);
}

static uint8_t *begin(struct writer *w, const char *signature, uint8_t revision, uint32_t size)
{
    uint8_t *t = take(w, size, 16);

    memcpy(t, signature, 4);
    t[8] = revision;
    memcpy(t + 10, OEM_ID, 6);
    memcpy(t + 16, OEM_TABLE_ID, 8);
    put32(t + 24, 1);
    memcpy(t + 28, CREATOR_ID, 4);
    put32(t + 32, 1);
    return t;
}

/* Closes the table that began at t and reaches to the writer's end. */
static uint64_t end(struct writer *w, uint8_t *t)
{
    uint32_t length;

    if (w->overflow) {
        return 0;
    }
    length = (uint32_t)(w->area + w->used - t);
    put32(t + 4, length);
    t[9] = 0;
    t[9] = checksum(t, length);
    return address(w, t);
}

static uint64_t write_dsdt(struct writer *w)
{
    uint8_t *t = take(w, (uint32_t)vmm_dsdt_size, 16);

    if (!w->overflow) {
        memcpy(t, vmm_dsdt, vmm_dsdt_size);
    }
    return address(w, t);
}

static uint64_t write_facs(struct writer *w)
{
    uint8_t *t = take(w, FACS_SIZE, 64);

    memcpy(t, "FACS", 4);
    put32(t + 4, FACS_SIZE);
    t[32] = 2;
    return address(w, t);
}

/* A generic address in I/O space. */
static void put_io(uint8_t *p, uint8_t bits, uint8_t access, uint16_t port)
{
    p[0] = 1;
    p[1] = bits;
    p[3] = access;
    put64(p + 4, port);
}

static uint64_t write_fadt(struct writer *w, uint64_t dsdt, uint64_t facs)
{
    uint8_t *t = begin(w, "FACP", 4, FADT_SIZE);

    put32(t + 36, (uint32_t)facs);
    put32(t + 40, (uint32_t)dsdt);
    put16(t + 46, VMM_ACPI_SCI);
    put32(t + 56, VMM_ACPI_PM1_EVT);
    put32(t + 64, VMM_ACPI_PM1_CNT);
    put32(t + 76, VMM_ACPI_PM_TMR);
    t[88] = 4;
    t[89] = 2;
    t[91] = 4;
    put16(t + 96, 0x0fff); /* no C2 and no C3: the latencies are beyond the limits */
    put16(t + 98, 0x0fff);
    t[108] = 0x32; /* the RTC's century register */
    put16(t + 109, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
    put32(t + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
                       FADT_NO_FIXED_RTC | FADT_TMR_VAL_EXT | FADT_RESET_REG_SUP);
    put_io(t + 116, 8, 1, VMM_ACPI_RESET_PORT);
    t[128] = VMM_ACPI_RESET_VALUE;
    put64(t + 132, facs);
    put64(t + 140, dsdt);
    put_io(t + 148, 32, 2, VMM_ACPI_PM1_EVT);
    put_io(t + 172, 16, 2, VMM_ACPI_PM1_CNT);
    put_io(t + 208, 32, 3, VMM_ACPI_PM_TMR);
    return end(w, t);
}

/* Processors with an 8-bit ID get the old entry, the others the one with a 32-bit ID. */
static void madt_processor(struct writer *w, uint32_t uid, uint32_t apic_id)
{
    uint8_t *e;

    if (apic_id < FIRST_X2APIC_ONLY_ID && uid < FIRST_X2APIC_ONLY_ID) {
        e = take(w, 8, 1);
        e[0] = MADT_LAPIC;
        e[1] = 8;
        e[2] = (uint8_t)uid;
        e[3] = (uint8_t)apic_id;
        put32(e + 4, MADT_ENABLED);
        return;
    }
    e = take(w, 16, 1);
    e[0] = MADT_X2APIC;
    e[1] = 16;
    put32(e + 4, apic_id);
    put32(e + 8, MADT_ENABLED);
    put32(e + 12, uid);
}

static void madt_override(struct writer *w, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    uint8_t *e = take(w, 10, 1);

    e[0] = MADT_OVERRIDE;
    e[1] = 10;
    e[3] = irq;
    put32(e + 4, gsi);
    put16(e + 8, flags);
}

static void madt_nmi(struct writer *w, bool x2apic)
{
    uint8_t *e = take(w, 6, 1);

    e[0] = MADT_LAPIC_NMI;
    e[1] = 6;
    e[2] = 0xff; /* all processors, at LINT1 */
    e[5] = 1;
    if (!x2apic) {
        return;
    }
    e = take(w, 12, 1);
    e[0] = MADT_X2APIC_NMI;
    e[1] = 12;
    put32(e + 4, 0xffffffffu);
    e[8] = 1;
}

static uint64_t write_madt(struct writer *w, const struct vmm_acpi_config *config)
{
    uint8_t *t = begin(w, "APIC", 3, 44);
    bool x2apic = false;
    uint8_t *e;

    put32(t + 36, (uint32_t)VMM_LAPIC_BASE);
    put32(t + 40, MADT_PCAT_COMPAT);
    for (unsigned i = 0; i < config->cpus; i++) {
        x2apic |= config->apic_ids[i] >= FIRST_X2APIC_ONLY_ID;
        madt_processor(w, i, config->apic_ids[i]);
    }
    e = take(w, 12, 1);
    e[0] = MADT_IOAPIC;
    e[1] = 12;
    put32(e + 4, (uint32_t)VMM_IOAPIC_BASE);
    madt_override(w, 0, 2, 0);
    madt_override(w, VMM_ACPI_SCI, VMM_ACPI_SCI, ACTIVE_HIGH_LEVEL);
    madt_nmi(w, x2apic);
    return end(w, t);
}

static uint64_t write_root(struct writer *w, bool wide, uint64_t fadt, uint64_t madt)
{
    uint32_t entry = wide ? 8 : 4;
    uint8_t *t = begin(w, wide ? "XSDT" : "RSDT", 1, HEADER_SIZE + 2 * entry);

    if (wide) {
        put64(t + HEADER_SIZE, fadt);
        put64(t + HEADER_SIZE + 8, madt);
    } else {
        put32(t + HEADER_SIZE, (uint32_t)fadt);
        put32(t + HEADER_SIZE + 4, (uint32_t)madt);
    }
    return end(w, t);
}

static void write_rsdp(uint8_t *p, uint64_t rsdt, uint64_t xsdt)
{
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, OEM_ID, 6);
    p[15] = 2;
    put32(p + 16, (uint32_t)rsdt);
    put32(p + 20, RSDP_SIZE);
    put64(p + 24, xsdt);
    p[8] = checksum(p, RSDP_CHECKED_V1);
    p[32] = checksum(p, RSDP_SIZE);
}

/* The first word of the EBDA is its size in KiB; the BIOS data area says where it lies. */
static void write_bios_data(const struct vmm_mem *mem)
{
    put16(vmm_mem_at(mem, 0x40e, 2), (uint16_t)(VMM_EBDA_BASE >> 4));
    put16(vmm_mem_at(mem, 0x413, 2), (uint16_t)(VMM_LOW_RAM_END >> 10));
    put16(vmm_mem_at(mem, VMM_BDA_RESET_FLAG, 2), VMM_BDA_RESET_UNSET);
    put16(vmm_mem_at(mem, VMM_EBDA_BASE, 2), 1);
}

int vmm_acpi_build(const struct vmm_mem *mem, const struct vmm_acpi_config *config, uint64_t *rsdp,
                   struct vmm_err *err)
{
    struct writer w = {
        .area = vmm_mem_at(mem, VMM_ACPI_BASE, VMM_ACPI_SIZE),
        .base = VMM_ACPI_BASE,
        .size = VMM_ACPI_SIZE,
    };
    uint8_t *root = take(&w, RSDP_SIZE, 16);
    uint64_t dsdt = write_dsdt(&w);
    uint64_t facs = write_facs(&w);
    uint64_t fadt = write_fadt(&w, dsdt, facs);
    uint64_t madt = write_madt(&w, config);
    uint64_t rsdt = write_root(&w, false, fadt, madt);
    uint64_t xsdt = write_root(&w, true, fadt, madt);

    if (w.overflow) {
        return vmm_fail(err, "--cpus: the ACPI tables of %u processors do not fit into %u KiB",
                        config->cpus, VMM_ACPI_SIZE >> 10);
    }
    write_rsdp(root, rsdt, xsdt);
    write_bios_data(mem);
    *rsdp = VMM_ACPI_BASE;
    return 0;
}
