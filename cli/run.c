/* SPDX-License-Identifier: MIT */
/*
 * `vapic run`: reads the guest's files, chooses the engine, runs the guest, prints the counters,
 * and turns the way it ended into an exit status.
 */
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blobs.h"
#include "cli.h"
#include "kvm_probe.h"
#include "machine.h"
#include "rig.h"
#include "run_options.h"
#include "sandbox.h"
#include "term.h"

#define RIG_ARGS_MAX 64u /* 50 at most by now: rig_command() */

struct guest_files {
    struct vmm_blob kernel;
    struct vmm_blob initrd;
};

static int complain(const struct vmm_err *err)
{
    fprintf(stderr, "vapic run: %s\n", err->text);
    return CLI_USAGE;
}

/* What was chosen, for a person: with statistics in JSON, standard error is one document. */
__attribute__((format(printf, 2, 3))) static void say(const struct run_options *o,
                                                      const char *format, ...)
{
    va_list args;

    if (o->stats == RUN_STATS_JSON) {
        return;
    }
    fputs("vapic run: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---------------------------------------------------------------------------------------------- */
/* The guest's files                                                                              */
/* ---------------------------------------------------------------------------------------------- */

static int read_files(const struct run_options *o, struct guest_files *files, struct vmm_err *err)
{
    *files = (struct guest_files){0};
    if (o->kernel == NULL) {
        files->kernel = (struct vmm_blob){vmm_guest_builtin, vmm_guest_builtin_size, "builtin"};
    } else if (vmm_blob_read(&files->kernel, "--kernel", o->kernel, err) != 0) {
        return -1;
    }
    if (o->initrd != NULL) {
        return vmm_blob_read(&files->initrd, "--initrd", o->initrd, err);
    }
    return 0;
}

static void free_files(const struct run_options *o, struct guest_files *files)
{
    if (o->kernel != NULL) {
        vmm_blob_free(&files->kernel);
    }
    vmm_blob_free(&files->initrd);
}

/* Loads the guest into memory that is thrown away, so that a bad file fails before an engine runs.
 */
static int rehearse(const struct run_options *o, const struct guest_files *files,
                    struct vmm_err *err)
{
    struct vmm_load_args args = {
        .kernel = files->kernel,
        .initrd = files->initrd,
        .cmdline = o->append,
    };
    struct vmm_start start;
    struct vmm_mem mem;
    int rc;

    if (vmm_mem_init(&mem, o->mem, err) != 0) {
        return -1;
    }
    rc = vmm_load(&mem, &args, &start, err);
    vmm_mem_fini(&mem);
    return rc;
}

/* ---------------------------------------------------------------------------------------------- */
/* The kvm engine                                                                                 */
/* ---------------------------------------------------------------------------------------------- */

/* After a run: its counters, or their place in the comparison. */
static void keep_stats(const struct run_options *o, struct vmm_machine *m, int status,
                       struct vmm_compare *compare)
{
    struct vmm_vcpu_stats *cpu = calloc(o->cpus, sizeof(*cpu));
    struct vmm_accel_report accel;
    struct vmm_stats stats;

    if (cpu == NULL) {
        fprintf(stderr, "vapic run: no memory for the counters\n");
        return;
    }
    vmm_machine_stats(m, &stats, cpu, &accel);
    if (compare != NULL) {
        if (!vmm_compare_add(compare, vmm_accel_names[m->config.accel], status, &stats)) {
            fprintf(stderr, "vapic run: no memory for the comparison\n");
        }
    } else if (o->stats == RUN_STATS_TEXT) {
        vmm_stats_text(&stats, stderr);
    } else {
        vmm_stats_json(&stats, stderr);
    }
    free(cpu);
}

/* A signal that ended the run ends the command too, as its parent expects. */
static int die_of(int signo)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, signo);
    signal(signo, SIG_DFL);
    raise(signo);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return CLI_FAILED;
}

static int status_of(const struct run_options *o, const struct vmm_machine *m,
                     const struct vmm_machine_result *result)
{
    switch (result->why) {
    case VMM_WANT_FAIL:
        fprintf(stderr, "vapic run: %s", vmm_machine_failure(m));
        return CLI_GUEST;
    case VMM_WANT_QUIT:
        fprintf(stderr, "vapic run: quit by the user\n");
        return CLI_FAILED;
    case VMM_WANT_SIGNAL:
        return CLI_FAILED;
    case VMM_WANT_DEBUG_EXIT:
    case VMM_WANT_OFF:
    case VMM_WANT_RESET:
    case VMM_WANT_SWITCH:
    case VMM_WANT_NOTHING:
        break;
    }
    if (result->output_lost) {
        fprintf(stderr, "vapic run: standard output: its reader did not take the guest's last "
                        "words: let it read faster, or write to a file\n");
        return CLI_USAGE;
    }
    if (o->apic == RUN_APIC_X2APIC && !result->used_x2apic) {
        fprintf(stderr, "vapic run: --apic x2apic: the guest never switched to x2APIC mode\n");
        return CLI_FAILED;
    }
    return result->why == VMM_WANT_DEBUG_EXIT ? result->code : CLI_OK;
}

/* What a series of runs is about. */
struct series {
    struct vmm_compare *compare; /* NULL: a single run */
    int in_fd;                   /* the guests' input */
    int signo;                   /* the signal that ended it */
    bool quit;                   /* the user has had enough */
};

/* Everything is open now. Once for a series: it lasts. */
static int enter_sandbox(const struct run_options *o, struct vmm_err *err)
{
    static bool entered;

    if (!o->sandbox || entered) {
        return 0;
    }
    entered = true;
    return vmm_sandbox_enter(VMM_SANDBOX_KVM, 0, err);
}

static int run_machine(const struct run_options *o, struct vmm_machine *m, struct series *series)
{
    struct vmm_machine_result result;
    struct vmm_err err;
    bool raw = vmm_term_enter(STDIN_FILENO);
    int rc = enter_sandbox(o, &err);
    int status;

    if (rc == 0) {
        rc = vmm_machine_run(m, &result, &err);
    }
    if (raw) {
        vmm_term_leave();
    }
    if (rc != 0) {
        series->quit = m->stuck; /* it keeps its threads and memory: no other run beside it */
        return complain(&err);
    }
    if (o->stats != RUN_STATS_NONE && series->compare == NULL) {
        keep_stats(o, m, 0, NULL);
    }
    status = status_of(o, m, &result);
    if (o->stats != RUN_STATS_NONE && series->compare != NULL) {
        keep_stats(o, m, status, series->compare);
    }
    series->signo = result.why == VMM_WANT_SIGNAL ? result.code : 0;
    series->quit = result.why == VMM_WANT_QUIT || series->signo != 0;
    return status;
}

static bool is_disturbed(const struct run_options *o)
{
    return o->disturb.inhibits != 0 || o->disturb.pause_ns != 0;
}

static int run_mode(const struct run_options *o, const struct guest_files *files,
                    enum vmm_accel_mode mode, struct vmm_trace *trace, struct series *series)
{
    struct vmm_machine_config config = {
        .kernel = files->kernel,
        .initrd = files->initrd,
        .cmdline = o->append,
        .cpus = o->cpus,
        .mem = o->mem,
        .x2apic = o->apic != RUN_APIC_XAPIC,
        .tsc_deadline = o->timer != RUN_TIMER_ONESHOT,
        .pv_eoi = o->pv_eoi,
        .count = o->stats != RUN_STATS_NONE,
        .trace = trace,
        .accel = mode,
        .irqchip = o->irqchip,
        .switch_ns = o->switch_ns,
        .switch_count = o->switch_count,
        .disturb = is_disturbed(o) ? &o->disturb : NULL,
        .in_fd = series->in_fd,
        .out_fd = STDOUT_FILENO,
        .escapes = isatty(series->in_fd) != 0,
    };
    struct vmm_err err;
    struct vmm_machine *m = vmm_machine_new(&config, &err);
    int status = m != NULL ? run_machine(o, m, series) : complain(&err);

    if (m != NULL) {
        vmm_machine_free(m);
    }
    return status;
}

/*
 * Every mode, and the comparison. The status is the first bad one. What one guest reads from a file
 * or a pipe the next cannot read again, so that none gets any of it: they would not be the same.
 */
static int run_all(const struct run_options *o, const struct guest_files *files, int *signo)
{
    struct vmm_compare compare = {.count = 0};
    int null_fd = isatty(STDIN_FILENO) ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct series series = {
        .compare = &compare,
        .in_fd = null_fd >= 0 ? null_fd : STDIN_FILENO,
    };
    int worst = CLI_OK;

    for (unsigned mode = 0; mode < VMM_ACCEL_MODES && !series.quit; mode++) {
        int status;

        say(o, "accel %s", vmm_accel_names[mode]);
        status = run_mode(o, files, (enum vmm_accel_mode)mode, NULL, &series);
        worst = worst == CLI_OK ? status : worst;
        if (o->stats != RUN_STATS_NONE && compare.count == mode) {
            vmm_compare_add(&compare, vmm_accel_names[mode], status, NULL);
        }
    }
    if (o->stats == RUN_STATS_TEXT) {
        vmm_compare_text(&compare, stderr);
    } else if (o->stats == RUN_STATS_JSON) {
        vmm_compare_json(&compare, stderr);
    }
    vmm_compare_free(&compare);
    if (null_fd >= 0) {
        close(null_fd);
    }
    *signo = series.signo;
    return worst;
}

static int run_one(const struct run_options *o, const struct guest_files *files, int *signo)
{
    static struct vmm_trace trace;
    struct vmm_trace_config trace_config = {o->trace, o->trace_form, o->cpus};
    struct series series = {.compare = NULL, .in_fd = STDIN_FILENO};
    struct vmm_err err;
    int status;

    if (o->trace != NULL && vmm_trace_open(&trace, &trace_config, &err) != 0) {
        return complain(&err);
    }
    status = run_mode(o, files, (enum vmm_accel_mode)o->accel, o->trace != NULL ? &trace : NULL,
                      &series);
    if (o->trace != NULL && vmm_trace_close(&trace, &err) != 0) {
        return complain(&err);
    }
    *signo = series.signo;
    return status;
}

static int run_kvm(const struct run_options *o, const struct guest_files *files)
{
    int signo = 0;
    int status = o->accel == RUN_ACCEL_ALL ? run_all(o, files, &signo) : run_one(o, files, &signo);

    return signo != 0 ? die_of(signo) : status;
}

/* ---------------------------------------------------------------------------------------------- */
/* The rig                                                                                        */
/* ---------------------------------------------------------------------------------------------- */

struct rig_command {
    struct vmm_rig_arg args[RIG_ARGS_MAX];
    size_t count;
};

static void add(struct rig_command *c, enum vmm_rig_arg_kind kind, const char *text)
{
    assert(c->count < RIG_ARGS_MAX);
    c->args[c->count++] = (struct vmm_rig_arg){kind, text};
}

static void add_option(struct rig_command *c, const char *option, enum vmm_rig_arg_kind kind,
                       const char *value)
{
    add(c, VMM_RIG_TEXT, option);
    add(c, kind, value);
}

/* The same command with the kvm engine, for the host inside. */
static void rig_command(const struct run_options *o, const char *cpus, const char *mem,
                        struct rig_command *c)
{
    add(c, VMM_RIG_SELF, "vapic");
    add(c, VMM_RIG_TEXT, "run");
    add_option(c, "--engine", VMM_RIG_TEXT, run_engine_names[RUN_ENGINE_KVM]);
    add_option(c, "--cpus", VMM_RIG_TEXT, cpus);
    add_option(c, "--mem", VMM_RIG_TEXT, mem);
    add_option(c, "--apic", VMM_RIG_TEXT, run_apic_names[o->apic]);
    add_option(c, "--timer", VMM_RIG_TEXT, run_timer_names[o->timer]);
    add_option(c, "--stats", VMM_RIG_TEXT, run_stats_names[o->stats]);
    add_option(c, "--append", VMM_RIG_TEXT, o->append);
    add(c, VMM_RIG_TEXT, o->pv_eoi ? "--pv-eoi" : "--no-pv-eoi");
    if (!o->sandbox) {
        add(c, VMM_RIG_TEXT, "--no-sandbox");
    }
    add_option(c, "--irqchip", VMM_RIG_TEXT, run_irqchip_names[o->irqchip]);
    if (o->switch_text != NULL) {
        add_option(c, "--switch-irqchip", VMM_RIG_TEXT, o->switch_text);
    }
    add_option(c, "--accel", VMM_RIG_TEXT, run_accel_names[o->accel]);
    for (unsigned i = 0; i < o->disturb.inhibits; i++) {
        add_option(c, "--inhibit", VMM_RIG_TEXT, o->inhibit_text[i]);
    }
    if (o->pause_text != NULL) {
        add_option(c, "--pause-vcpu", VMM_RIG_TEXT, o->pause_text);
    }
    if (o->kernel != NULL) {
        add_option(c, "--kernel", VMM_RIG_IN, o->kernel);
    }
    if (o->initrd != NULL) {
        add_option(c, "--initrd", VMM_RIG_IN, o->initrd);
    }
    if (o->trace != NULL) {
        add_option(c, "--trace", VMM_RIG_OUT, o->trace);
        add_option(c, "--trace-form", VMM_RIG_TEXT,
                   run_trace_names[vmm_trace_form_of(o->trace_form, o->trace)]);
    }
}

static int run_rig(const struct run_options *o)
{
    struct rig_command command = {.count = 0};
    struct vmm_rig_config config = {
        .args = command.args,
        .guest_mem = o->mem,
        .kernel = o->rig_kernel,
        .cpus = o->rig_cpus,
        .icount = o->rig_icount,
        .sandbox = o->sandbox,
    };
    struct vmm_err err;
    char cpus[16];
    char mem[24];
    int status;

    snprintf(cpus, sizeof(cpus), "%u", o->cpus);
    snprintf(mem, sizeof(mem), "%llu", (unsigned long long)o->mem);
    rig_command(o, cpus, mem, &command);
    config.nargs = command.count;
    return vmm_rig_run(&config, &status, &err) == 0 ? status : complain(&err);
}

/* ---------------------------------------------------------------------------------------------- */
/* The command                                                                                    */
/* ---------------------------------------------------------------------------------------------- */

static enum run_engine choose_engine(const struct run_options *o)
{
    char why[320];
    bool good;

    if (o->engine != RUN_ENGINE_AUTO) {
        return o->engine;
    }
    good = vmm_kvm_probe(why, sizeof(why));
    say(o, "engine %s: %s", good ? "kvm" : "rig", why);
    return good ? RUN_ENGINE_KVM : RUN_ENGINE_RIG;
}

/* Does each script find something to disturb? All modes together honour every reason. */
static int check_scripts(const struct run_options *o, struct vmm_err *err)
{
    for (unsigned i = 0; o->accel != RUN_ACCEL_ALL && i < o->disturb.inhibits; i++) {
        enum vapic_inhibit reason = o->disturb.inhibit[i].reason;

        if (!vmm_accel_honours((enum vmm_accel_mode)o->accel, reason)) {
            return vmm_fail(err,
                            "--inhibit: --accel %s goes on in spite of %s: name another reason",
                            vmm_accel_names[o->accel], vapic_inhibit_name(reason));
        }
    }
    return 0;
}

/* Here, because the processor of whoever gives the command is meant, not the one in the rig. */
static int choose_accel(struct run_options *o, struct vmm_err *err)
{
    enum vmm_accel_mode mode;
    char why[128];

    if (o->accel != RUN_ACCEL_AUTO) {
        return check_scripts(o, err);
    }
    mode = vmm_accel_host_mode(why, sizeof(why));
    if (mode == VMM_ACCEL_NONE && is_disturbed(o)) {
        return vmm_fail(err, "--inhibit, --pause-vcpu: %s: name a mode with --accel", why);
    }
    o->accel = mode;
    if (check_scripts(o, err) != 0) {
        return -1;
    }
    say(o, "accel %s: %s", vmm_accel_names[mode], why);
    return 0;
}

int cli_run(int argc, char **argv)
{
    struct run_options options;
    struct guest_files files = {0};
    struct vmm_err err;
    int status;

    run_options_parse(&options, argc, argv);
    if ((options.sandbox && vmm_sandbox_no_new_privs(&err) != 0) ||
        read_files(&options, &files, &err) != 0 || rehearse(&options, &files, &err) != 0 ||
        choose_accel(&options, &err) != 0) {
        status = complain(&err);
    } else if (choose_engine(&options) == RUN_ENGINE_KVM) {
        status = run_kvm(&options, &files);
    } else {
        status = run_rig(&options);
    }
    free_files(&options, &files);
    return status;
}
