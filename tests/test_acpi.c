/* SPDX-License-Identifier: MIT */
/* The ACPI tables as a guest walks them, from the root pointer on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "acpi.h"
#include "dev_acpi_pm.h"
#include "layout.h"
#include "load_bytes.h"

#define MIB       (1ull << 20)
#define CPUS_MAX  4096u
#define MADT_HEAD 44u

static uint32_t ids[CPUS_MAX + 1];

static struct vmm_mem build(unsigned cpus)
{
    struct vmm_acpi_config config = {.apic_ids = ids, .cpus = cpus};
    struct vmm_mem mem;
    struct vmm_err err = {""};
    uint64_t rsdp;

    for (unsigned i = 0; i < cpus; i++) {
        ids[i] = i;
    }
    assert_int_equal(vmm_mem_init(&mem, 4 * MIB, &err), 0);
    assert_int_equal(vmm_acpi_build(&mem, &config, &rsdp, &err), 0);
    assert_int_equal(rsdp, VMM_ACPI_BASE);
    return mem;
}

static uint8_t sum(const uint8_t *p, uint32_t len)
{
    uint8_t s = 0;

    while (len-- > 0) {
        s = (uint8_t)(s + *p++);
    }
    return s;
}

/* As a guest searches it: on 16-byte boundaries of the BIOS area. */
static const uint8_t *find_rsdp(const struct vmm_mem *mem)
{
    for (uint64_t at = 0xe0000; at < 0x100000; at += 16) {
        const uint8_t *p = vmm_mem_at(mem, at, 36);

        if (p != NULL && memcmp(p, "RSD PTR ", 8) == 0 && sum(p, 20) == 0) {
            return p;
        }
    }
    return NULL;
}

/* A table of the root table, `wide`: the XSDT. Checks signature, place, length and checksum. */
static const uint8_t *find(const struct vmm_mem *mem, bool wide, const char *signature)
{
    const uint8_t *rsdp = find_rsdp(mem);
    uint64_t root = wide ? get64(rsdp + 24) : get32(rsdp + 16);
    const uint8_t *r = vmm_mem_at(mem, root, 36);
    uint32_t step = wide ? 8 : 4;

    assert_memory_equal(r, wide ? "XSDT" : "RSDT", 4);
    assert_int_equal(sum(r, get32(r + 4)), 0);
    for (uint32_t at = 36; at + step <= get32(r + 4); at += step) {
        uint64_t gpa = wide ? get64(r + at) : get32(r + at);
        const uint8_t *t = vmm_mem_at(mem, gpa, 36);

        assert_true(gpa >= VMM_ACPI_BASE && gpa < VMM_ACPI_BASE + VMM_ACPI_SIZE);
        if (memcmp(t, signature, 4) == 0) {
            assert_true(gpa + get32(t + 4) <= VMM_ACPI_BASE + VMM_ACPI_SIZE);
            assert_int_equal(sum(t, get32(t + 4)), 0);
            return t;
        }
    }
    return NULL;
}

static void root_pointer_is_found_by_scanning(void **state)
{
    struct vmm_mem mem = build(1);
    const uint8_t *p = find_rsdp(&mem);

    (void)state;
    assert_non_null(p);
    assert_int_equal(p[15], 2);
    assert_int_equal(get32(p + 20), 36);
    assert_int_equal(sum(p, 36), 0);
    vmm_mem_fini(&mem);
}

static void both_root_tables_name_the_same_tables(void **state)
{
    struct vmm_mem mem = build(2);

    (void)state;
    assert_non_null(find(&mem, true, "FACP"));
    assert_non_null(find(&mem, true, "APIC"));
    assert_ptr_equal(find(&mem, true, "FACP"), find(&mem, false, "FACP"));
    assert_ptr_equal(find(&mem, true, "APIC"), find(&mem, false, "APIC"));
    vmm_mem_fini(&mem);
}

static void fixed_table_names_the_devices(void **state)
{
    struct vmm_mem mem = build(1);
    const uint8_t *t = find(&mem, true, "FACP");

    (void)state;
    assert_int_equal(get16(t + 46), 9);
    assert_int_equal(get32(t + 48), 0); /* no SMI command: ACPI mode from the start */
    assert_int_equal(get32(t + 56), 0x600);
    assert_int_equal(get32(t + 64), 0x604);
    assert_int_equal(get32(t + 76), 0x608);
    assert_int_equal(t[88], 4);
    assert_int_equal(t[89], 2);
    assert_int_equal(t[91], 4);
    assert_int_equal(get32(t + 112) >> 10 & 1, 1); /* reset register */
    assert_int_equal(t[116], 1);
    assert_int_equal(get64(t + 120), 0xcf9);
    assert_int_equal(t[128], 6);
    assert_int_equal(get32(t + 112) >> 20 & 1, 0); /* not hardware-reduced */
    assert_int_equal(get64(t + 152), 0x600);
    assert_int_equal(get64(t + 176), 0x604);
    assert_int_equal(get64(t + 212), 0x608);
    vmm_mem_fini(&mem);
}

static void pm_timer_width_is_the_devices(void **state)
{
    struct vmm_mem mem = build(1);

    (void)state;
    assert_int_equal(get32(find(&mem, true, "FACP") + 112) >> 8 & 1, VMM_ACPI_PM_TIMER_BITS == 32);
    assert_int_equal(VMM_ACPI_PM_TMR, 0x608);
    vmm_mem_fini(&mem);
}

static void fixed_table_points_to_facs_and_dsdt(void **state)
{
    struct vmm_mem mem = build(1);
    const uint8_t *t = find(&mem, true, "FACP");
    const uint8_t *facs = vmm_mem_at(&mem, get32(t + 36), 64);
    const uint8_t *dsdt = vmm_mem_at(&mem, get32(t + 40), vmm_dsdt_size);

    (void)state;
    assert_int_equal(get32(t + 36) % 64, 0);
    assert_memory_equal(facs, "FACS", 4);
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_int_equal(get32(dsdt + 4), vmm_dsdt_size);
    assert_int_equal(sum(dsdt, (uint32_t)vmm_dsdt_size), 0);
    assert_int_equal(get64(t + 132), get32(t + 36));
    assert_int_equal(get64(t + 140), get32(t + 40));
    vmm_mem_fini(&mem);
}

/* Is this byte string somewhere in the DSDT? */
static bool dsdt_has(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i + len <= vmm_dsdt_size; i++) {
        if (memcmp(vmm_dsdt + i, bytes, len) == 0) {
            return true;
        }
    }
    return false;
}

static void definition_block_has_soft_off_and_the_serial_port(void **state)
{
    /* Name(_S5_, Package(4) {0, 0, 0, 0}) and IO (Decode16, 0x3F8, 0x3F8, 1, 8). */
    static const uint8_t s5[] = {0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0, 0, 0, 0};
    static const uint8_t com1[] = {0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03,
                                   0x01, 0x08, 0x22, 0x10, 0x00};

    (void)state;
    assert_true(dsdt_has(s5, sizeof(s5)));
    assert_true(dsdt_has(com1, sizeof(com1)));
}

/* ---------------------------------------------------------------------------------------------- */

/* Entry number `n` of a type, or NULL. */
static const uint8_t *madt_entry(const uint8_t *madt, uint8_t type, unsigned n)
{
    for (uint32_t at = MADT_HEAD; at < get32(madt + 4); at += madt[at + 1]) {
        assert_true(madt[at + 1] >= 2);
        if (madt[at] == type && n-- == 0) {
            return madt + at;
        }
    }
    return NULL;
}

static unsigned madt_count(const uint8_t *madt, uint8_t type)
{
    unsigned n = 0;

    while (madt_entry(madt, type, n) != NULL) {
        n++;
    }
    return n;
}

static void processors_below_255_have_local_apic_entries(void **state)
{
    struct vmm_mem mem = build(4);
    const uint8_t *madt = find(&mem, true, "APIC");

    (void)state;
    assert_int_equal(madt_count(madt, 0), 4);
    assert_int_equal(madt_count(madt, 9), 0);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = madt_entry(madt, 0, i);

        assert_int_equal(e[2], i);
        assert_int_equal(e[3], i);
        assert_int_equal(get32(e + 4), 1);
    }
    vmm_mem_fini(&mem);
}

static void processors_from_255_on_have_x2apic_entries(void **state)
{
    struct vmm_mem mem = build(288);
    const uint8_t *madt = find(&mem, true, "APIC");

    (void)state;
    assert_int_equal(madt_count(madt, 0), 255);
    assert_int_equal(madt_count(madt, 9), 33);
    for (unsigned i = 0; i < 33; i++) {
        const uint8_t *e = madt_entry(madt, 9, i);

        assert_int_equal(get32(e + 4), 255 + i);
        assert_int_equal(get32(e + 8), 1);
        assert_int_equal(get32(e + 12), 255 + i);
    }
    assert_int_equal(madt_count(madt, 10), 1);
    vmm_mem_fini(&mem);
}

static void interrupt_wiring_is_described(void **state)
{
    struct vmm_mem mem = build(1);
    const uint8_t *madt = find(&mem, true, "APIC");
    const uint8_t *e;

    (void)state;
    assert_int_equal(get32(madt + 36), 0xfee00000);
    assert_int_equal(get32(madt + 40), 1); /* 8259s are there */
    e = madt_entry(madt, 1, 0);
    assert_int_equal(get32(e + 4), 0xfec00000);
    assert_int_equal(get32(e + 8), 0);
    e = madt_entry(madt, 2, 0); /* the PIT is at pin 2 */
    assert_int_equal(e[3], 0);
    assert_int_equal(get32(e + 4), 2);
    assert_int_equal(get16(e + 8), 0);
    e = madt_entry(madt, 2, 1); /* the SCI is level, active high */
    assert_int_equal(e[3], 9);
    assert_int_equal(get32(e + 4), 9);
    assert_int_equal(get16(e + 8), 0xd);
    e = madt_entry(madt, 4, 0); /* NMI at LINT1 of all processors */
    assert_int_equal(e[2], 0xff);
    assert_int_equal(e[5], 1);
    vmm_mem_fini(&mem);
}

static void the_most_processors_fit(void **state)
{
    struct vmm_mem mem = build(CPUS_MAX);
    const uint8_t *madt = find(&mem, true, "APIC");

    (void)state;
    assert_int_equal(madt_count(madt, 0) + madt_count(madt, 9), CPUS_MAX);
    vmm_mem_fini(&mem);
}

static void too_many_processors_are_refused(void **state)
{
    uint32_t *many = calloc(20000, sizeof(*many));
    struct vmm_acpi_config config = {.apic_ids = many, .cpus = 20000};
    struct vmm_mem mem;
    struct vmm_err err = {""};
    uint64_t rsdp;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        many[i] = i;
    }
    assert_int_equal(vmm_mem_init(&mem, 4 * MIB, &err), 0);
    assert_int_equal(vmm_acpi_build(&mem, &config, &rsdp, &err), -1);
    assert_non_null(strstr(err.text, "--cpus"));
    assert_int_equal(*(uint8_t *)vmm_mem_at(&mem, VMM_ACPI_BASE + VMM_ACPI_SIZE, 1), 0);
    vmm_mem_fini(&mem);
    free(many);
}

static void bios_data_area_points_to_the_ebda(void **state)
{
    struct vmm_mem mem = build(1);

    (void)state;
    assert_int_equal(get16(vmm_mem_at(&mem, 0x40e, 2)), 0x9fc0);
    assert_int_equal(get16(vmm_mem_at(&mem, 0x413, 2)), 639);
    assert_int_equal(get16(vmm_mem_at(&mem, VMM_EBDA_BASE, 2)), 1);
    vmm_mem_fini(&mem);
}

static void reset_flag_starts_with_no_request(void **state)
{
    struct vmm_mem mem = build(1);
    uint16_t flag = get16(vmm_mem_at(&mem, VMM_BDA_RESET_FLAG, 2));

    (void)state;
    assert_int_not_equal(flag, VMM_BDA_RESET_COLD);
    assert_int_not_equal(flag, VMM_BDA_RESET_WARM);
    vmm_mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(root_pointer_is_found_by_scanning),
        cmocka_unit_test(both_root_tables_name_the_same_tables),
        cmocka_unit_test(fixed_table_names_the_devices),
        cmocka_unit_test(pm_timer_width_is_the_devices),
        cmocka_unit_test(fixed_table_points_to_facs_and_dsdt),
        cmocka_unit_test(definition_block_has_soft_off_and_the_serial_port),
        cmocka_unit_test(processors_below_255_have_local_apic_entries),
        cmocka_unit_test(processors_from_255_on_have_x2apic_entries),
        cmocka_unit_test(interrupt_wiring_is_described),
        cmocka_unit_test(the_most_processors_fit),
        cmocka_unit_test(too_many_processors_are_refused),
        cmocka_unit_test(bios_data_area_points_to_the_ebda),
        cmocka_unit_test(reset_flag_starts_with_no_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
