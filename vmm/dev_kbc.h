/* SPDX-License-Identifier: MIT */
/*
 * The keyboard controller (ports 60h/64h) with no keyboard and no mouse attached, and system
 * control port A (92h). Here for what PCs do with it besides keys: reset (command FEh, output port
 * bit 0, port 92h bit 0) and the A20 gate, which is always open. A byte sent to the absent keyboard
 * is answered at once with "resend" and the time-out bit, so that a driver's probe ends without
 * waiting. Drives wire 1.
 */
#ifndef VMM_DEV_KBC_H
#define VMM_DEV_KBC_H

#include "dev_env.h"

struct vmm_kbc {
    struct vmm_env *env;
    uint8_t mode;    /* the command byte: bit 0 = interrupt on output */
    uint8_t pending; /* a command that awaits its parameter in port 60h; 0: none */
    uint8_t data;
    uint8_t status; /* bits 0 (output full), 2, 3, 6 */
    uint8_t port92;
    bool line;
};

int vmm_kbc_init(struct vmm_kbc *kbc, struct vmm_env *env);
void vmm_kbc_reset(struct vmm_kbc *kbc);

#endif
