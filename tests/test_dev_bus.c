/* SPDX-License-Identifier: MIT */
/*
 * The port and MMIO registries: claims, look-up, and how accesses are cut.
 */
#include <errno.h>
#include <stdio.h>

#include "dev_fixture.h"

/* A region that logs its accesses and reads as its offset, byte by byte. */
struct probe {
    char log[256];
};

static uint64_t probe_read(void *ctx, uint64_t offset, unsigned size)
{
    struct probe *probe = ctx;
    size_t len = strlen(probe->log);
    uint64_t value = 0;

    snprintf(probe->log + len, sizeof(probe->log) - len, "r%u@%llx ", size,
             (unsigned long long)offset);
    for (unsigned i = 0; i < size; i++)
        value |= (offset + i) << (8 * i);
    return value;
}

static void probe_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct probe *probe = ctx;
    size_t len = strlen(probe->log);

    snprintf(probe->log + len, sizeof(probe->log) - len, "w%u@%llx=%llx ", size,
             (unsigned long long)offset, (unsigned long long)value);
}

static const struct vmm_bus_ops probe_ops = {probe_read, probe_write};

static int claim(struct vmm_bus *bus, uint64_t base, uint64_t len, unsigned widths, void *ctx)
{
    const struct vmm_bus_region region = {
        .name = "probe", .base = base, .len = len, .widths = widths, .ops = &probe_ops, .ctx = ctx};

    return vmm_bus_add(bus, &region);
}

static void test_claims(void **state)
{
    static const struct {
        uint64_t base, len;
        unsigned widths;
        int result;
    } rows[] = {
        {0x100, 8, 1, 0},         {0x108, 8, 1, 0}, /* touches the one before */
        {0xf8, 8, 1, 0},                            /* touches the one after */
        {0x107, 1, 1, -EEXIST},                     /* last byte of one */
        {0xf0, 0x40, 1, -EEXIST},                   /* around several */
        {0xf0, 9, 1, -EEXIST},                      /* into the first */
        {0x200, 0, 1, -EINVAL},   {0x200, 8, 0, -EINVAL},
        {0xffff, 1, 1, 0},        {0xfffe, 3, 1, -EINVAL}, /* beyond the last port */
        {0x10000, 1, 1, -EINVAL}, {0xfff0, UINT64_MAX, 1, -EINVAL},
    };
    struct probe probe = {0};
    struct vmm_bus bus;

    (void)state;
    vmm_bus_init(&bus, VMM_BUS_LAST_PORT);
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(claim(&bus, rows[i].base, rows[i].len, rows[i].widths, &probe),
                         rows[i].result);
    assert_int_equal(bus.count, 4);
}

static void test_full(void **state)
{
    struct probe probe = {0};
    struct vmm_bus bus;

    (void)state;
    vmm_bus_init(&bus, VMM_BUS_LAST_PORT);
    for (unsigned i = 0; i < VMM_BUS_REGIONS_MAX; i++)
        assert_int_equal(claim(&bus, 0x1000 - 16 * i, 4, 1, &probe), 0);
    assert_int_equal(claim(&bus, 0x4000, 4, 1, &probe), -ENOSPC);
    for (unsigned i = 0; i < VMM_BUS_REGIONS_MAX; i++) {
        assert_int_equal(vmm_bus_find(&bus, 0x1000 - 16 * i)->base, 0x1000 - 16 * i);
        assert_null(vmm_bus_find(&bus, 0x1004 - 16 * i));
    }
}

static void test_top_of_memory(void **state)
{
    struct probe probe = {0};
    struct vmm_bus bus;

    (void)state;
    vmm_bus_init(&bus, VMM_BUS_LAST_MMIO);
    assert_int_equal(claim(&bus, UINT64_MAX - 3, 4, VMM_BUS_W124, &probe), 0);
    assert_true(vmm_bus_read(&bus, UINT64_MAX - 3, 4) == 0x03020100);
    assert_true(vmm_bus_read(&bus, UINT64_MAX - 3, 8) == 0xffffffff03020100);
    vmm_bus_write(&bus, UINT64_MAX, 8, 0x1234);
    assert_string_equal(probe.log, "r4@0 r4@0 w1@3=34 ");
}

/* 10h-17h bytes only, 18h-1Fh 1/2/4, 20h-27h words only; nothing else. */
static const struct {
    uint16_t port;
    unsigned size;
    uint64_t value;
    const char *log;
} cuts[] = {
    {0x10, 1, 0x00, "r1@0 "},
    {0x12, 2, 0x0302, "r1@2 r1@3 "},
    {0x14, 4, 0x07060504, "r1@4 r1@5 r1@6 r1@7 "},
    {0x18, 4, 0x03020100, "r4@0 "},
    {0x19, 2, 0x0201, "r1@1 r1@2 "},
    {0x1a, 4, 0x05040302, "r2@2 r2@4 "},
    {0x16, 4, 0x01000706, "r1@6 r1@7 r2@0 "},
    {0x1e, 4, 0x01000706, "r2@6 r2@0 "},
    {0x20, 1, 0xff, ""},
    {0x21, 2, 0xffff, ""},
    {0x20, 4, 0x03020100, "r2@0 r2@2 "},
    {0x0f, 2, 0x00ff, "r1@0 "},
    {0x26, 4, 0xffff0706, "r2@6 "},
    {0x300, 4, 0xffffffff, ""},
    {0xfffe, 4, 0xffffffff, ""},
};

static void test_cuts(void **state)
{
    struct probe probe = {0};
    struct vmm_bus bus;

    (void)state;
    vmm_bus_init(&bus, VMM_BUS_LAST_PORT);
    assert_int_equal(claim(&bus, 0x10, 8, VMM_BUS_W1, &probe), 0);
    assert_int_equal(claim(&bus, 0x18, 8, VMM_BUS_W124, &probe), 0);
    assert_int_equal(claim(&bus, 0x20, 8, VMM_BUS_W2, &probe), 0);
    for (size_t i = 0; i < COUNT(cuts); i++) {
        probe.log[0] = 0;
        assert_int_equal(vmm_bus_read(&bus, cuts[i].port, cuts[i].size), cuts[i].value);
        assert_string_equal(probe.log, cuts[i].log);
    }
}

static void test_write_values(void **state)
{
    struct probe probe = {0};
    struct vmm_bus bus;

    (void)state;
    vmm_bus_init(&bus, VMM_BUS_LAST_PORT);
    assert_int_equal(claim(&bus, 0x10, 8, VMM_BUS_W1 | VMM_BUS_W2, &probe), 0);
    vmm_bus_write(&bus, 0x11, 4, 0xffffffff44332211);
    vmm_bus_write(&bus, 0x14, 1, 0xabcd);
    vmm_bus_write(&bus, 0x17, 2, 0x8877);
    vmm_bus_write(&bus, 0x18, 4, 0x1);
    assert_string_equal(probe.log, "w1@1=11 w2@2=3322 w1@4=44 w1@4=cd w1@7=77 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claims),        cmocka_unit_test(test_full),
        cmocka_unit_test(test_top_of_memory), cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_write_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
