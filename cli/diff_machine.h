/* SPDX-License-Identifier: MIT */
/*
 * A machine that runs programs: one guest (guest/diff) on libvapic or on KVM's in-kernel APIC,
 * started once, which fetches one program after the other. Used by one thread. It answers the
 * guest's ports (abi.h) on the vCPUs' threads, and blocks there those whose turn it is not.
 */
#ifndef CLI_DIFF_MACHINE_H
#define CLI_DIFF_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel.h"
#include "diff_program.h"
#include "err.h"
#include "kvm.h"

struct diff_machine_config {
    enum vmm_irqchip irqchip;
    enum vmm_accel_mode accel;
    uint32_t knobs;
    unsigned cpus;
};

/* How a program ended. */
enum diff_end {
    DIFF_END_DONE,
    DIFF_END_HANG,  /* it did not end in time */
    DIFF_END_CRASH, /* the guest met an exception, or the machine stopped */
    DIFF_END_STOP,  /* a signal asks for the end of everything */
};

struct diff_log {
    enum diff_end end;
    uint32_t pc; /* where it hung or crashed */
    char text[160];
    uint32_t count;
    struct diff_record record[DIFF_LOG_MAX];
};

struct diff_machine;

/* NULL with the error set: the host cannot run it. */
struct diff_machine *diff_machine_new(const struct diff_machine_config *config,
                                      struct vmm_err *err);

/*
 * Runs one program. After a hang or a crash the machine is made anew for the next one. -1: it
 * could not be made; the error is set.
 */
int diff_machine_run(struct diff_machine *d, const struct diff_program *p, struct diff_log *log,
                     struct vmm_err *err);

/* The next program finds a machine that was just started. */
void diff_machine_renew(struct diff_machine *d);

void diff_machine_free(struct diff_machine *d);

#endif
