/* SPDX-License-Identifier: MIT */
/*
 * Devices for test guests (see dev_testdev.h). Called by the port bus.
 */
#include "dev_testdev.h"

#include <string.h>

static uint64_t exit_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx;
    (void)offset;
    (void)size;
    return 0;
}

static void exit_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_testdev *testdev = ctx;

    (void)offset;
    (void)size;
    vmm_env_power(testdev->env, VMM_POWER_DEBUG_EXIT, (int)((uint32_t)value << 1 | 1));
}

static uint64_t line_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct vmm_testdev *testdev = ctx;

    (void)size;
    return testdev->lines[offset];
}

static void set_line(struct vmm_testdev *testdev, unsigned gsi, bool level)
{
    if (testdev->lines[gsi] == level)
        return;
    testdev->lines[gsi] = level;
    vmm_env_gsi(testdev->env, gsi, level);
}

static void line_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    set_line(ctx, (unsigned)offset, value != 0);
}

static uint64_t scratch_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct vmm_testdev *testdev = ctx;

    (void)size;
    return testdev->scratch >> (8 * offset);
}

static void scratch_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_testdev *testdev = ctx;
    uint32_t mask = UINT32_MAX >> (32 - 8 * size) << (8 * offset);

    testdev->scratch = (testdev->scratch & ~mask) | ((uint32_t)value << (8 * offset) & mask);
}

static const struct vmm_bus_ops exit_ops = {exit_read, exit_write};
static const struct vmm_bus_ops line_ops = {line_read, line_write};
static const struct vmm_bus_ops scratch_ops = {scratch_read, scratch_write};

int vmm_testdev_init(struct vmm_testdev *testdev, struct vmm_env *env)
{
    int ret;

    memset(testdev, 0, sizeof(*testdev));
    testdev->env = env;
    ret = vmm_env_claim(env, "debug exit", 0xf4, 4, VMM_BUS_W124, &exit_ops, testdev);
    if (ret == 0)
        ret = vmm_env_claim(env, "test scratch", 0xe0, 4, VMM_BUS_W124, &scratch_ops, testdev);
    if (ret == 0)
        ret = vmm_env_claim(env, "test scratch bytes", 0xe8, 4, VMM_BUS_W1, &scratch_ops, testdev);
    if (ret == 0)
        ret = vmm_env_claim(env, "test lines", 0x2000, VMM_TESTDEV_LINES, VMM_BUS_W1, &line_ops,
                            testdev);
    return ret;
}

void vmm_testdev_reset(struct vmm_testdev *testdev)
{
    testdev->scratch = 0;
    for (unsigned gsi = 0; gsi < VMM_TESTDEV_LINES; gsi++)
        set_line(testdev, gsi, false);
}
