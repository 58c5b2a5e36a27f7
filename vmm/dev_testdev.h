/* SPDX-License-Identifier: MIT */
/*
 * Devices for test guests: isa-debug-exit (F4h, 4 ports), the interrupt lines (2000h to 2017h: a
 * byte written to 2000h+n raises wire n, zero lowers it) and a 32-bit scratch register (E0h whole
 * or in parts, E8h byte by byte).
 */
#ifndef VMM_DEV_TESTDEV_H
#define VMM_DEV_TESTDEV_H

#include "dev_env.h"

#define VMM_TESTDEV_LINES 24

struct vmm_testdev {
    struct vmm_env *env;
    uint32_t scratch;
    bool lines[VMM_TESTDEV_LINES];
};

int vmm_testdev_init(struct vmm_testdev *testdev, struct vmm_env *env);
void vmm_testdev_reset(struct vmm_testdev *testdev);

#endif
