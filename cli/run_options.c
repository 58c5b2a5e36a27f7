/* SPDX-License-Identifier: MIT */
/* Parsing of `vapic run`'s arguments with argp; see run_options.h. */
#include "run_options.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "kvm_irqchip.h"
#include "vapic/vapic.h"
#include "words.h"

#define DEFAULT_MEM    (512ull << 20)
#define BUILTIN_CPUS   4u
#define XAPIC_CPUS_MAX 255u

const char *const run_apic_names[] = {"auto", "xapic", "x2apic", NULL};
const char *const run_timer_names[] = {"auto", "tsc-deadline", "oneshot", NULL};
const char *const run_engine_names[] = {"auto", "kvm", "rig", NULL};
const char *const run_irqchip_names[] = {"vapic", "kernel", NULL}; /* by enum vmm_irqchip */
const char *const run_stats_names[] = {"text", "json", "none", NULL};
const char *const run_accel_names[] = {"none",       "avic", "avic-noipiv", "x2avic", "apicv",
                                       "apicv-ipiv", "auto", "all",         NULL};
const char *const run_trace_names[] = {"auto", "text", "json", NULL};

enum key {
    KEY_KERNEL = 256,
    KEY_INITRD,
    KEY_APPEND,
    KEY_CPUS,
    KEY_MEM,
    KEY_APIC,
    KEY_TIMER,
    KEY_ENGINE,
    KEY_IRQCHIP,
    KEY_SWITCH_IRQCHIP,
    KEY_PV_EOI,
    KEY_NO_PV_EOI,
    KEY_NO_SANDBOX,
    KEY_ACCEL,
    KEY_INHIBIT,
    KEY_PAUSE_VCPU,
    KEY_STATS,
    KEY_TRACE,
    KEY_TRACE_FORM,
    KEY_RIG_KERNEL,
    KEY_RIG_CPUS,
    KEY_RIG_ICOUNT,
};

static const struct argp_option option_table[] = {
    {"kernel", KEY_KERNEL, "FILE", 0, "Guest: a Linux bzImage or a multiboot ELF image", 0},
    {"initrd", KEY_INITRD, "FILE", 0, "Initial RAM disk of Linux, or multiboot module", 0},
    {"append", KEY_APPEND, "STR", 0, "The guest's command line", 0},
    {"cpus", KEY_CPUS, "N", 0, "Virtual processors (1; the built-in guest: 4)", 0},
    {"mem", KEY_MEM, "SIZE", 0, "RAM in bytes, or with suffix K, M, G (512M)", 0},
    {"apic", KEY_APIC, "MODE", 0,
     "What CPUID offers: auto or x2apic (x2APIC too), xapic. With x2apic the run fails if the "
     "guest never switches to it",
     0},
    {"timer", KEY_TIMER, "MODE", 0,
     "What CPUID offers: auto or tsc-deadline (TSC-deadline mode too), oneshot", 0},
    {"engine", KEY_ENGINE, "NAME", 0,
     "auto, kvm (/dev/kvm), or rig (a small host under QEMU's TCG); auto takes kvm if it works "
     "at hardware speed",
     0},
    {"irqchip", KEY_IRQCHIP, "NAME", 0,
     "Whose interrupt controllers the guest has: vapic (libvapic's), or, to compare, kernel (KVM's "
     "own)",
     0},
    {"switch-irqchip", KEY_SWITCH_IRQCHIP, "PERIOD[,COUNT]", 0,
     "Every PERIOD the running guest's interrupt controllers become the other ones, state and all, "
     "as often as COUNT says (without it: to the end), as 200ms,40. PERIOD as for --inhibit",
     0},
    {"pv-eoi", KEY_PV_EOI, NULL, 0,
     "Offer KVM's PV EOI: most interrupts end without an exit (the default)", 0},
    {"no-pv-eoi", KEY_NO_PV_EOI, NULL, 0, "Every end of an interrupt is a register write", 0},
    {"no-sandbox", KEY_NO_SANDBOX, NULL, 0,
     "Keep every right while the guest runs (the default: a list of system calls, no new "
     "privileges)",
     0},
    {"accel", KEY_ACCEL, "MODE", 0,
     "Model hardware that accelerates interrupts, and say what the guest costs on it: none (the "
     "default), avic, avic-noipiv, x2avic, apicv, apicv-ipiv, auto (what this processor has), or "
     "all: one run per mode, without input but from a terminal, and a table to compare them",
     0},
    {"inhibit", KEY_INHIBIT, "REASON@PERIOD", 0,
     "While the guest runs, inhibit acceleration for REASON in half of each PERIOD, as "
     "BLOCKIRQ@10ms. Can be repeated. REASON: DISABLED, HYPERV, ABSENT, BLOCKIRQ, "
     "PHYSICAL_ID_ALIASED, APIC_ID_MODIFIED, APIC_BASE_MODIFIED; with AVIC also PIT_REINJ, SEV, "
     "LOGICAL_ID_ALIASED, PHYSICAL_ID_TOO_BIG. PERIOD: from 100us to 3600s, in us, ms (also "
     "without a unit), or s",
     0},
    {"pause-vcpu", KEY_PAUSE_VCPU, "PERIOD", 0,
     "Every PERIOD one vCPU after the other moves to another modelled processor", 0},
    {"stats", KEY_STATS, "FORM", 0, "Counters at the end, on standard error: text, json, none", 0},
    {"trace", KEY_TRACE, "FILE", 0,
     "Write every APIC event to FILE, with times of CLOCK_MONOTONIC: as trace-cmd report prints "
     "those of KVM, or, if FILE ends in .json, in JSON for Perfetto and chrome://tracing",
     0},
    {"trace-form", KEY_TRACE_FORM, "FORM", 0, "auto (by FILE's name), text, or json", 0},
    {"rig-kernel", KEY_RIG_KERNEL, "FILE", 0, "The rig's host kernel (Debian's, fetched by make)",
     0},
    {"rig-cpus", KEY_RIG_CPUS, "N", 0, "The rig's host processors (1)", 0},
    {"rig-icount", KEY_RIG_ICOUNT, NULL, 0,
     "Repeatable time in the rig: 1 ns per instruction, one host processor", 0},
    {0},
};

static unsigned suffix_shift(const char *suffix)
{
    static const char letters[4] = "KMGT";
    const char *at =
        isalpha((unsigned char)*suffix) ? memchr(letters, *suffix & ~0x20, sizeof(letters)) : NULL;

    if (*suffix == '\0') {
        return 0;
    }
    return at != NULL && suffix[1] == '\0' ? 10u * (unsigned)(at - letters + 1) : 64;
}

static uint64_t parse_mem(struct argp_state *state, const char *word)
{
    char *end;
    unsigned long long n;
    unsigned shift;

    errno = 0;
    n = strtoull(word, &end, 10);
    shift = suffix_shift(end);
    if (errno != 0 || end == word || strchr(word, '-') != NULL || shift >= 64 ||
        n > UINT64_MAX >> shift) {
        argp_failure(state, CLI_USAGE, 0,
                     "--mem: '%s' is no size: give a number, or one with K, M or G, as 512M", word);
        return 0;
    }
    return (uint64_t)n << shift;
}

static void set_guest(struct argp_state *state, struct run_options *o, const char *file)
{
    if (o->kernel != NULL) {
        argp_failure(state, CLI_USAGE, 0, "two guests, '%s' and '%s': name one", o->kernel, file);
    }
    o->kernel = file;
}

static void add_inhibit(struct argp_state *state, struct run_options *o, const char *text)
{
    struct vmm_err err;

    if (vmm_inhibit_parse(text, &o->disturb, &err) != 0) {
        argp_failure(state, CLI_USAGE, 0, "%s", err.text);
    }
    o->inhibit_text[o->disturb.inhibits - 1] = text;
}

static void set_pause(struct argp_state *state, struct run_options *o, const char *text)
{
    struct vmm_err err;

    if (vmm_period_parse("pause-vcpu", text, &o->disturb.pause_ns, &err) != 0) {
        argp_failure(state, CLI_USAGE, 0, "%s", err.text);
    }
    o->pause_text = text;
}

/* A comma, and how often. */
static uint64_t parse_count(struct argp_state *state, const char *text)
{
    unsigned long long n;
    char *end;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno != 0 || !isdigit((unsigned char)text[0]) || *end != '\0' || n == 0) {
        argp_failure(state, CLI_USAGE, 0, "--switch-irqchip: '%s' is no number of times", text);
    }
    return n;
}

static void set_switch(struct argp_state *state, struct run_options *o, const char *text)
{
    const char *comma = strchr(text, ',');
    int length = comma != NULL ? (int)(comma - text) : (int)strlen(text);
    char period[32];
    struct vmm_err err;

    snprintf(period, sizeof(period), "%.*s", length, text);
    if (vmm_period_parse("switch-irqchip", period, &o->switch_ns, &err) != 0) {
        argp_failure(state, CLI_USAGE, 0, "%s", err.text);
    }
    o->switch_count = comma != NULL ? parse_count(state, comma + 1) : 0;
    o->switch_text = text;
}

static void check_accel(struct argp_state *state, const struct run_options *o)
{
    if (o->accel == VMM_ACCEL_NONE && o->disturb.inhibits != 0) {
        argp_failure(state, CLI_USAGE, 0,
                     "--inhibit: there is no acceleration to inhibit: give --accel");
    }
    if (o->accel == VMM_ACCEL_NONE && o->disturb.pause_ns != 0) {
        argp_failure(state, CLI_USAGE, 0,
                     "--pause-vcpu: there are no modelled processors: give --accel");
    }
    if (o->accel == RUN_ACCEL_ALL && o->trace != NULL) {
        argp_failure(state, CLI_USAGE, 0,
                     "--trace: one file cannot take all runs of --accel all: name a mode");
    }
}

static void check_irqchip(struct argp_state *state, const struct run_options *o)
{
    if (o->irqchip != VMM_IRQCHIP_KERNEL && o->switch_ns == 0) {
        return;
    }
    if (o->accel != VMM_ACCEL_NONE) {
        argp_failure(state, CLI_USAGE, 0,
                     "--%s: KVM's own APIC is not modelled hardware's: leave out --accel",
                     o->switch_ns != 0 ? "switch-irqchip" : "irqchip kernel");
    }
    if (o->cpus > VMM_KERNEL_CPUS) {
        argp_failure(state, CLI_USAGE, 0,
                     "--cpus: KVM's own interrupt controllers address %u processors, not %u",
                     VMM_KERNEL_CPUS, o->cpus);
    }
}

static void check(struct argp_state *state, struct run_options *o)
{
    if (o->cpus == 0) {
        o->cpus = o->kernel == NULL ? BUILTIN_CPUS : 1;
    }
    if (o->kernel == NULL && o->initrd != NULL) {
        argp_failure(state, CLI_USAGE, 0, "--initrd: the built-in guest takes none: give --kernel");
    }
    if (o->apic == RUN_APIC_XAPIC && o->cpus > XAPIC_CPUS_MAX) {
        argp_failure(state, CLI_USAGE, 0,
                     "--cpus: xAPIC addresses %u processors, not %u: use --apic x2apic",
                     XAPIC_CPUS_MAX, o->cpus);
    }
    check_accel(state, o);
    check_irqchip(state, o);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct run_options *o = state->input;

    switch (key) {
    case KEY_KERNEL:
    case ARGP_KEY_ARG:
        set_guest(state, o, arg);
        break;
    case KEY_INITRD:
        o->initrd = arg;
        break;
    case KEY_APPEND:
        o->append = arg;
        break;
    case KEY_CPUS:
        o->cpus = (unsigned)cli_number(state, "cpus", arg, 1, VAPIC_MAX_VCPUS);
        break;
    case KEY_MEM:
        o->mem = parse_mem(state, arg);
        break;
    case KEY_APIC:
        o->apic = (enum run_apic)cli_choose(state, "apic", arg, run_apic_names);
        break;
    case KEY_TIMER:
        o->timer = (enum run_timer)cli_choose(state, "timer", arg, run_timer_names);
        break;
    case KEY_ENGINE:
        o->engine = (enum run_engine)cli_choose(state, "engine", arg, run_engine_names);
        break;
    case KEY_IRQCHIP:
        o->irqchip = (enum vmm_irqchip)cli_choose(state, "irqchip", arg, run_irqchip_names);
        break;
    case KEY_SWITCH_IRQCHIP:
        set_switch(state, o, arg);
        break;
    case KEY_PV_EOI:
        o->pv_eoi = true;
        break;
    case KEY_NO_PV_EOI:
        o->pv_eoi = false;
        break;
    case KEY_NO_SANDBOX:
        o->sandbox = false;
        break;
    case KEY_ACCEL:
        o->accel = (unsigned)cli_choose(state, "accel", arg, run_accel_names);
        break;
    case KEY_INHIBIT:
        add_inhibit(state, o, arg);
        break;
    case KEY_PAUSE_VCPU:
        set_pause(state, o, arg);
        break;
    case KEY_STATS:
        o->stats = (enum run_stats)cli_choose(state, "stats", arg, run_stats_names);
        break;
    case KEY_TRACE:
        o->trace = arg;
        break;
    case KEY_TRACE_FORM:
        o->trace_form = (enum vmm_trace_form)cli_choose(state, "trace-form", arg, run_trace_names);
        break;
    case KEY_RIG_KERNEL:
        o->rig_kernel = arg;
        break;
    case KEY_RIG_CPUS:
        o->rig_cpus = (unsigned)cli_number(state, "rig-cpus", arg, 1, VAPIC_MAX_VCPUS);
        break;
    case KEY_RIG_ICOUNT:
        o->rig_icount = true;
        break;
    case ARGP_KEY_END:
        check(state, o);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void run_options_parse(struct run_options *options, int argc, char **argv)
{
    static const struct argp parser = {
        .options = option_table,
        .parser = parse_option,
        .args_doc = "[GUEST]",
        .doc = "Boots a guest on /dev/kvm without any in-kernel interrupt controller: every "
               "interrupt goes through libvapic. Without GUEST a built-in test guest runs."
               "\vExit status: 0 the guest powered off; 1 the run failed its purpose; 2 bad "
               "arguments, files or host; 4 the guest triple-faulted or KVM cannot run it; 2n+1 "
               "the guest wrote n to isa-debug-exit. On a terminal, Ctrl-A x quits.",
    };
    static char name[] = "vapic run";

    *options =
        (struct run_options){.append = "", .mem = DEFAULT_MEM, .pv_eoi = true, .sandbox = true};
    argp_err_exit_status = CLI_USAGE;
    argv[0] = name;
    argp_parse(&parser, argc, argv, 0, NULL, options);
}
