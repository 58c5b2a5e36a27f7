/* SPDX-License-Identifier: MIT */
/* The options of `vapic run`, parsed and checked. */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "accel.h"
#include "accel_disturb.h"
#include "kvm.h"
#include "trace_form.h"

enum run_apic { RUN_APIC_AUTO, RUN_APIC_XAPIC, RUN_APIC_X2APIC };
enum run_timer { RUN_TIMER_AUTO, RUN_TIMER_TSC_DEADLINE, RUN_TIMER_ONESHOT };
enum run_engine { RUN_ENGINE_AUTO, RUN_ENGINE_KVM, RUN_ENGINE_RIG };
enum run_stats { RUN_STATS_TEXT, RUN_STATS_JSON, RUN_STATS_NONE };

/* enum vmm_accel_mode, and two words more. */
enum run_accel { RUN_ACCEL_AUTO = VMM_ACCEL_MODES, RUN_ACCEL_ALL };

struct run_options {
    const char *kernel; /* NULL: the built-in guest */
    const char *initrd; /* NULL: none */
    const char *append;
    const char *trace; /* NULL: none */
    enum vmm_trace_form trace_form;
    unsigned cpus;
    uint64_t mem;
    enum run_apic apic;
    enum run_timer timer;
    enum run_engine engine;
    enum run_stats stats;
    enum vmm_irqchip irqchip;
    uint64_t switch_ns;      /* 0: the guest keeps them */
    uint64_t switch_count;   /* 0: no end */
    const char *switch_text; /* as it was given; NULL: not */
    unsigned accel;          /* enum vmm_accel_mode or enum run_accel */
    struct vmm_disturb_config disturb;
    const char *inhibit_text[VMM_INHIBITS_MAX]; /* as they were given */
    const char *pause_text;                     /* NULL: none */
    const char *rig_kernel;                     /* NULL: the one that `make` fetched */
    unsigned rig_cpus;                          /* 0: the rig's default */
    bool rig_icount;
    bool pv_eoi;
    bool sandbox;
};

/* Prints what is wrong and ends the process with status 2 when the arguments are bad. */
void run_options_parse(struct run_options *options, int argc, char **argv);

/* The words that the options take, by enumerator; for messages and for the rig's command. */
extern const char *const run_apic_names[];
extern const char *const run_timer_names[];
extern const char *const run_engine_names[];
extern const char *const run_irqchip_names[];
extern const char *const run_stats_names[];
extern const char *const run_accel_names[];
extern const char *const run_trace_names[];

#endif
