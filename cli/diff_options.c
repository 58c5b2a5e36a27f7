/* SPDX-License-Identifier: MIT */
/* Parsing of `vapic diff`'s arguments with argp; see diff_options.h. */
#include "diff_options.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "diff_program.h"
#include "words.h"

const char *const diff_accel_names[] = {"none",  "avic",       "avic-noipiv", "x2avic",
                                        "apicv", "apicv-ipiv", "all",         NULL};
const char *const diff_profile_names[] = {"manual", "kvm", "all", NULL};
static const char *const engine_names[] = {"auto", "kvm", "rig", NULL};

enum key {
    KEY_SEED = 256,
    KEY_FIRST,
    KEY_OPS,
    KEY_LENGTH,
    KEY_CPUS,
    KEY_ACCEL,
    KEY_PROFILE,
    KEY_ENGINE,
    KEY_HOST_KERNEL,
    KEY_PROGRAM,
    KEY_KNOWN,
    KEY_LIMIT,
    KEY_JSON,
    KEY_PRINT,
    KEY_NO_SHRINK,
};

static const struct argp_option option_table[] = {
    {"seed", KEY_SEED, "N", 0, "Seed of the random programs (1)", 0},
    {"first", KEY_FIRST, "N", 0, "Number of the first random program (0)", 0},
    {"ops", KEY_OPS, "N", 0,
     "Operations to compare in each mode (20000); what a known difference cuts off does not count",
     0},
    {"length", KEY_LENGTH, "N", 0, "Operations of a random program (150)", 0},
    {"cpus", KEY_CPUS, "N", 0, "Virtual processors, 1 to 8 (3)", 0},
    {"accel", KEY_ACCEL, "MODE", 0,
     "none, avic, avic-noipiv, x2avic, apicv, apicv-ipiv, or all (the default)", 0},
    {"profile", KEY_PROFILE, "NAME", 0,
     "libvapic's profile: manual (the default), kvm (what Linux does where the manuals leave room "
     "or are not followed), or all",
     0},
    {"engine", KEY_ENGINE, "NAME", 0, "auto, kvm (/dev/kvm), or rig; as of `vapic run`", 0},
    {"host-kernel", KEY_HOST_KERNEL, "FILE", 0,
     "The rig's host kernel, whose APIC is compared with (Debian's, fetched by make)", 0},
    {"program", KEY_PROGRAM, "FILE", 0, "Compare this program, no random ones. Can be repeated", 0},
    {"known", KEY_KNOWN, "FILE", 0, "The list of known differences", 0},
    {"limit", KEY_LIMIT, "N", 0, "End after so many unexplained differences (5)", 0},
    {"json", KEY_JSON, NULL, 0, "The results on standard output as JSON", 0},
    {"no-shrink", KEY_NO_SHRINK, NULL, 0, "Do not shorten a program that shows a difference", 0},
    {"print", KEY_PRINT, NULL, 0, "Print the programs, and compare nothing", 0},
    {0},
};

static void add_program(struct argp_state *state, struct diff_options *o, const char *file)
{
    if (o->programs == DIFF_PROGRAMS_MAX) {
        argp_failure(state, CLI_USAGE, 0, "--program: more than %u programs", DIFF_PROGRAMS_MAX);
    }
    o->program[o->programs++] = file;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct diff_options *o = state->input;

    switch (key) {
    case KEY_SEED:
        o->seed = cli_number(state, "seed", arg, 0, UINT64_MAX);
        break;
    case KEY_FIRST:
        o->first = cli_number(state, "first", arg, 0, UINT64_MAX);
        break;
    case KEY_OPS:
        o->ops = cli_number(state, "ops", arg, 1, 1ull << 40);
        break;
    case KEY_LENGTH:
        o->length = (uint32_t)cli_number(state, "length", arg, 2 * DIFF_CPUS_MAX, DIFF_OPS_MAX);
        break;
    case KEY_CPUS:
        o->cpus = (unsigned)cli_number(state, "cpus", arg, 1, DIFF_CPUS_MAX);
        break;
    case KEY_ACCEL:
        o->accel = (unsigned)cli_choose(state, "accel", arg, diff_accel_names);
        break;
    case KEY_PROFILE:
        o->profile = (unsigned)cli_choose(state, "profile", arg, diff_profile_names);
        break;
    case KEY_ENGINE:
        o->engine = (enum diff_engine)cli_choose(state, "engine", arg, engine_names);
        break;
    case KEY_HOST_KERNEL:
        o->rig_kernel = arg;
        break;
    case KEY_PROGRAM:
        add_program(state, o, arg);
        break;
    case KEY_KNOWN:
        o->known = arg;
        break;
    case KEY_LIMIT:
        o->limit = (unsigned)cli_number(state, "limit", arg, 1, 1000000);
        break;
    case KEY_JSON:
        o->json = true;
        break;
    case KEY_NO_SHRINK:
        o->no_shrink = true;
        break;
    case KEY_PRINT:
        o->print = true;
        break;
    case ARGP_KEY_ARG:
        argp_failure(state, CLI_USAGE, 0, "'%s': a program's file is given with --program", arg);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void diff_options_parse(struct diff_options *options, int argc, char **argv)
{
    static const struct argp parser = {
        .options = option_table,
        .parser = parse_option,
        .doc = "Runs programs of APIC operations on Linux's own APIC and on libvapic, and compares "
               "what the guest saw: values, #GPs, interrupts in their order."
               "\vExit status: 0 no difference but known ones; 1 there are others; 2 bad "
               "arguments, files or host.",
    };
    static char name[] = "vapic diff";

    *options = (struct diff_options){
        .seed = 1,
        .ops = 20000,
        .length = 150,
        .cpus = 3,
        .accel = DIFF_ACCEL_ALL,
        .limit = 5,
        .known = VAPIC_DIFF_KNOWN,
    };
    argp_err_exit_status = CLI_USAGE;
    argv[0] = name;
    argp_parse(&parser, argc, argv, 0, NULL, options);
}
