/* SPDX-License-Identifier: MIT */
/*
 * `vapic diff`: one program after the other on Linux's in-kernel APIC and on libvapic in every
 * chosen mode; a difference that is not known is repeated on fresh machines, its program shortened
 * and printed. In the rig all of that happens inside: this very command runs there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "diff_compare.h"
#include "diff_machine.h"
#include "diff_options.h"
#include "diff_program.h"
#include "diff_report.h"
#include "diff_shrink.h"
#include "kvm_probe.h"
#include "load.h"
#include "rig.h"
#include "vapic/vapic.h"

#define SUBJECTS_MAX (VMM_ACCEL_MODES * DIFF_PROFILES)
#define SHRINK_RUNS  400u
#define PROGRESS_S   10
#define RIG_MEM      (1024ull << 20)
#define RIG_ARGS_MAX (32u + 2 * DIFF_PROGRAMS_MAX)
/* Of so many operations less than one was compared: rules cut off nearly all. It is not enough. */
#define MADE_PER_COMPARED 8u
/* So few programs of a thousand may give another result when repeated. */
#define UNSTEADY_LIMIT 10u

struct subject {
    struct diff_machine *machine;
    struct diff_totals totals;
};

struct diff {
    const struct diff_options *o;
    struct diff_rules rules;
    struct diff_machine *reference;
    struct subject subject[SUBJECTS_MAX];
    unsigned subjects;
    struct diff_program program;
    struct diff_program shorter; /* what is left of it, if a mode has shown a difference */
    struct diff_log kernel, vapic;
    char host[64];
    json_t *findings;
    unsigned failures;
    uint64_t made; /* operations of the programs so far */
    time_t begun, told;
    bool stopped;
    struct vmm_err err;
};

static int complain(const struct vmm_err *err)
{
    fprintf(stderr, "vapic diff: %s\n", err->text);
    return CLI_USAGE;
}

/* ---------------------------------------------------------------------------------------------- */
/* One program                                                                                    */
/* ---------------------------------------------------------------------------------------------- */

static bool run_on(struct diff *d, struct diff_machine *machine, const struct diff_program *p,
                   struct diff_log *log)
{
    if (diff_machine_run(machine, p, log, &d->err) != 0) {
        d->stopped = true;
        return false;
    }
    d->stopped |= log->end == DIFF_END_STOP;
    return !d->stopped;
}

/* Whose difference is searched for while a program is shortened. */
struct search {
    struct diff *d;
    struct subject *s;
    struct diff_verdict verdict;
};

static bool differs(void *ctx, const struct diff_program *p)
{
    struct search *search = ctx;
    struct diff *d = search->d;

    if (!run_on(d, d->reference, p, &d->kernel) || !run_on(d, search->s->machine, p, &d->vapic)) {
        return false;
    }
    diff_compare(p, &d->kernel, &d->vapic, &d->rules, &search->s->totals.place, &search->verdict);
    return search->verdict.unexplained;
}

static bool differs_afresh(struct search *search, const struct diff_program *p)
{
    diff_machine_renew(search->d->reference);
    diff_machine_renew(search->s->machine);
    return differs(search, p);
}

/* What a program has left behind may make the next one differ: only a fresh machine counts. */
static bool differs_surely(void *ctx, const struct diff_program *p)
{
    return differs(ctx, p) && differs_afresh(ctx, p);
}

static void report(struct search *search, const struct diff_program *p)
{
    struct diff *d = search->d;
    const struct diff_finding finding = {p, &d->kernel, &d->vapic, &search->s->totals.place,
                                         search->verdict.first};

    d->failures++;
    search->s->totals.unexplained++;
    diff_finding_text(&finding, stderr);
    json_array_append_new(d->findings, diff_finding_json(&finding));
}

static bool comes_again(struct search *search, const struct diff_program *p, unsigned times)
{
    while (times > 0 && differs_afresh(search, p)) {
        times--;
    }
    return times == 0;
}

/* Most differences show in several modes: what is left for one is tried with the next. */
static void shorten(struct search *search, struct diff_program *p)
{
    struct diff *d = search->d;

    if (d->shorter.count != 0 && differs_surely(search, &d->shorter)) {
        *p = d->shorter;
        return;
    }
    diff_shrink(p, differs_surely, search, SHRINK_RUNS);
    d->shorter = *p;
}

/* Twice on fresh machines: what does not come again is no difference of the APICs. */
static void examine(struct diff *d, struct subject *s)
{
    static struct diff_program shorter;
    struct search search = {.d = d, .s = s};

    shorter = d->program;
    if (!comes_again(&search, &shorter, 2)) {
        s->totals.unsteady += !d->stopped;
        return;
    }
    if (!d->o->no_shrink) {
        shorten(&search, &shorter);
    }
    if (!differs_afresh(&search, &shorter)) {
        shorter = d->program;
        differs_afresh(&search, &shorter);
    }
    if (!d->stopped) {
        report(&search, &shorter);
    }
}

static void compare_on(struct diff *d, struct subject *s)
{
    struct diff_verdict verdict;

    if (!run_on(d, s->machine, &d->program, &d->vapic)) {
        return;
    }
    diff_compare(&d->program, &d->kernel, &d->vapic, &d->rules, &s->totals.place, &verdict);
    s->totals.programs++;
    s->totals.ops += verdict.compared;
    s->totals.explained += verdict.explained;
    s->totals.cut += verdict.cut != NULL;
    if (verdict.unexplained) {
        examine(d, s);
        /* The others are compared with what the reference says of the whole program. */
        run_on(d, d->reference, &d->program, &d->kernel);
    }
}

/* Operations that were compared in every mode. */
static uint64_t compared(const struct diff *d)
{
    uint64_t least = d->subjects != 0 ? d->subject[0].totals.ops : 0;

    for (unsigned i = 1; i < d->subjects; i++) {
        least = d->subject[i].totals.ops < least ? d->subject[i].totals.ops : least;
    }
    return least;
}

static void tell_progress(struct diff *d)
{
    uint64_t done = compared(d);
    time_t now = time(NULL);
    double rate;

    if (now - d->told < PROGRESS_S) {
        return;
    }
    d->told = now;
    rate = (double)done / (double)(now - d->begun);
    fprintf(stderr, "vapic diff: %" PRIu64 " of %" PRIu64 " operations, %.0f s to go\n", done,
            d->o->ops, rate > 0 && done < d->o->ops ? (double)(d->o->ops - done) / rate : 0.0);
}

static void run_program(struct diff *d)
{
    d->shorter.count = 0;
    if (!run_on(d, d->reference, &d->program, &d->kernel)) {
        return;
    }
    for (unsigned i = 0; i < d->subjects && !d->stopped; i++) {
        compare_on(d, &d->subject[i]);
    }
    d->made += d->program.count;
    if (d->o->programs == 0) {
        tell_progress(d);
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* All programs                                                                                   */
/* ---------------------------------------------------------------------------------------------- */

/* A file's bytes as a string, which is the caller's to free. NULL: no memory. */
static char *text_of(const struct vmm_blob *blob)
{
    char *text = malloc(blob->size + 1);

    if (text != NULL) {
        memcpy(text, blob->data, blob->size);
        text[blob->size] = '\0';
    }
    return text;
}

static int load_program(struct diff_program *p, const char *file, struct vmm_err *err)
{
    struct vmm_blob blob;
    char *text;
    int rc;

    if (vmm_blob_read(&blob, "--program", file, err) != 0) {
        return -1;
    }
    text = text_of(&blob);
    rc = text != NULL ? diff_program_parse(p, file, text, err) : vmm_fail(err, "no memory");
    free(text);
    vmm_blob_free(&blob);
    return rc;
}

static bool goes_on(const struct diff *d)
{
    return !d->stopped && d->failures < d->o->limit;
}

static int run_files(struct diff *d)
{
    for (unsigned i = 0; i < d->o->programs && goes_on(d); i++) {
        if (load_program(&d->program, d->o->program[i], &d->err) != 0) {
            return -1;
        }
        run_program(d);
    }
    return 0;
}

static bool wants_more(const struct diff *d)
{
    return compared(d) < d->o->ops && d->made / MADE_PER_COMPARED < d->o->ops;
}

static void run_random(struct diff *d)
{
    for (uint64_t n = d->o->first; wants_more(d) && goes_on(d); n++) {
        diff_program_random(&d->program, d->o->seed, n, d->o->length, d->o->cpus);
        run_program(d);
    }
}

static int make_subject(struct diff *d, unsigned mode, unsigned profile)
{
    const struct diff_machine_config config = {
        .irqchip = VMM_IRQCHIP_VAPIC,
        .accel = (enum vmm_accel_mode)mode,
        .knobs = profile == DIFF_PROFILE_KVM ? VAPIC_PROFILE_KVM : VAPIC_PROFILE_MANUAL,
        .cpus = d->o->cpus,
    };
    struct subject *s = &d->subject[d->subjects];

    s->totals.place =
        (struct diff_place){diff_accel_names[mode], diff_profile_names[profile], d->host};
    s->machine = diff_machine_new(&config, &d->err);
    d->subjects += s->machine != NULL;
    return s->machine != NULL ? 0 : -1;
}

static int make_machines(struct diff *d)
{
    const struct diff_machine_config config = {
        .irqchip = VMM_IRQCHIP_KERNEL,
        .cpus = d->o->cpus,
    };

    d->reference = diff_machine_new(&config, &d->err);
    if (d->reference == NULL) {
        return -1;
    }
    for (unsigned mode = 0; mode < VMM_ACCEL_MODES; mode++) {
        for (unsigned profile = 0; profile < DIFF_PROFILES; profile++) {
            bool chosen = (d->o->accel == DIFF_ACCEL_ALL || d->o->accel == mode) &&
                          (d->o->profile == DIFF_PROFILES || d->o->profile == profile);

            if (chosen && make_subject(d, mode, profile) != 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int read_rules(struct diff_rules *rules, const char *file, struct vmm_err *err)
{
    struct vmm_blob blob;
    char *text;
    int rc;

    if (vmm_blob_read(&blob, "--known", file, err) != 0) {
        return -1;
    }
    text = text_of(&blob);
    rc = text != NULL ? diff_rules_parse(rules, file, text, err) : vmm_fail(err, "no memory");
    free(text);
    vmm_blob_free(&blob);
    return rc;
}

/* True: one mode or more was compared, and nothing unexplained was found. */
static bool is_fine(const struct diff *d)
{
    bool fine = d->failures == 0 && !d->stopped;

    for (unsigned i = 0; i < d->subjects; i++) {
        const struct diff_totals *t = &d->subject[i].totals;

        fine = fine && t->programs != 0 && t->unsteady * 1000 <= t->programs * UNSTEADY_LIMIT + 999;
    }
    return fine;
}

static void print_results(struct diff *d)
{
    struct diff_totals totals[SUBJECTS_MAX];
    json_t *all;

    for (unsigned i = 0; i < d->subjects; i++) {
        totals[i] = d->subject[i].totals;
    }
    if (!d->o->json) {
        printf("seed %" PRIu64 ", %u processors, host %s, %ld s%s\n", d->o->seed, d->o->cpus,
               d->host, (long)(time(NULL) - d->begun), d->stopped ? "; ended by a signal" : "");
        diff_totals_text(totals, d->subjects, &d->rules, stdout);
        return;
    }
    all = json_pack("{s:I, s:i, s:s, s:i, s:b, s:o, s:o, s:O, s:b}", "seed", (json_int_t)d->o->seed,
                    "cpus", (int)d->o->cpus, "host", d->host, "seconds",
                    (int)(time(NULL) - d->begun), "interrupted", (int)d->stopped, "runs",
                    diff_totals_json(totals, d->subjects), "known", diff_rules_json(&d->rules),
                    "findings", d->findings, "ok", (int)is_fine(d));
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
}

static int compare(struct diff *d)
{
    struct utsname host;
    int rc;

    uname(&host);
    snprintf(d->host, sizeof(d->host), "%.63s", host.release);
    d->findings = json_array();
    d->begun = d->told = time(NULL);
    rc = read_rules(&d->rules, d->o->known, &d->err) == 0 && make_machines(d) == 0 ? 0 : -1;
    if (rc == 0 && d->o->programs != 0) {
        rc = run_files(d);
    } else if (rc == 0) {
        run_random(d);
    }
    rc = d->err.text[0] == '\0' ? rc : -1;
    if (rc == 0) {
        print_results(d);
    }
    return rc;
}

static int run_kvm(const struct diff_options *o)
{
    struct diff *d = calloc(1, sizeof(*d));
    int status = CLI_USAGE;

    if (d == NULL) {
        fputs("vapic diff: no memory\n", stderr);
        return CLI_USAGE;
    }
    d->o = o;
    if (compare(d) != 0) {
        complain(&d->err);
    } else {
        status = is_fine(d) ? CLI_OK : CLI_FAILED;
    }
    for (unsigned i = 0; i < d->subjects; i++) {
        diff_machine_free(d->subject[i].machine);
    }
    diff_machine_free(d->reference);
    json_decref(d->findings);
    free(d);
    return status;
}

/* ---------------------------------------------------------------------------------------------- */
/* The rig                                                                                        */
/* ---------------------------------------------------------------------------------------------- */

struct rig_command {
    struct vmm_rig_arg args[RIG_ARGS_MAX];
    size_t count;
    char numbers[8][24];
    unsigned used;
};

static void add(struct rig_command *c, enum vmm_rig_arg_kind kind, const char *text)
{
    c->args[c->count++] = (struct vmm_rig_arg){kind, text};
}

static void add_word(struct rig_command *c, const char *option, enum vmm_rig_arg_kind kind,
                     const char *word)
{
    add(c, VMM_RIG_TEXT, option);
    add(c, kind, word);
}

static void add_number(struct rig_command *c, const char *option, uint64_t value)
{
    char *text = c->numbers[c->used++];

    snprintf(text, sizeof(c->numbers[0]), "%" PRIu64, value);
    add_word(c, option, VMM_RIG_TEXT, text);
}

static int run_rig(const struct diff_options *o)
{
    struct rig_command c = {.count = 0};
    struct vmm_rig_config config = {
        .args = c.args,
        .guest_mem = RIG_MEM,
        .kernel = o->rig_kernel,
    };
    struct vmm_err err;
    int status;

    add(&c, VMM_RIG_SELF, "vapic");
    add(&c, VMM_RIG_TEXT, "diff");
    add_word(&c, "--engine", VMM_RIG_TEXT, "kvm");
    add_word(&c, "--accel", VMM_RIG_TEXT, diff_accel_names[o->accel]);
    add_word(&c, "--profile", VMM_RIG_TEXT, diff_profile_names[o->profile]);
    add_word(&c, "--known", VMM_RIG_IN, o->known);
    add_number(&c, "--seed", o->seed);
    add_number(&c, "--first", o->first);
    add_number(&c, "--ops", o->ops);
    add_number(&c, "--length", o->length);
    add_number(&c, "--cpus", o->cpus);
    add_number(&c, "--limit", o->limit);
    for (unsigned i = 0; i < o->programs; i++) {
        add_word(&c, "--program", VMM_RIG_IN, o->program[i]);
    }
    if (o->json) {
        add(&c, VMM_RIG_TEXT, "--json");
    }
    if (o->no_shrink) {
        add(&c, VMM_RIG_TEXT, "--no-shrink");
    }
    config.nargs = c.count;
    return vmm_rig_run(&config, &status, &err) == 0 ? status : complain(&err);
}

/* ---------------------------------------------------------------------------------------------- */
/* The command                                                                                    */
/* ---------------------------------------------------------------------------------------------- */

static int print_programs(const struct diff_options *o)
{
    static struct diff_program p;
    struct vmm_err err;
    uint64_t done = 0;

    for (unsigned i = 0; i < o->programs; i++) {
        if (load_program(&p, o->program[i], &err) != 0) {
            return complain(&err);
        }
        printf("# %s\n", p.name);
        diff_program_print(&p, stdout);
    }
    for (uint64_t n = o->first; o->programs == 0 && done < o->ops; n++) {
        diff_program_random(&p, o->seed, n, o->length, o->cpus);
        printf("# %s\n", p.name);
        diff_program_print(&p, stdout);
        done += p.count;
    }
    return CLI_OK;
}

/* So that a bad file fails before an engine runs. */
static int check_files(const struct diff_options *o, struct vmm_err *err)
{
    static struct diff_program p;
    static struct diff_rules rules;

    for (unsigned i = 0; i < o->programs; i++) {
        if (load_program(&p, o->program[i], err) != 0) {
            return -1;
        }
    }
    return read_rules(&rules, o->known, err);
}

static bool use_kvm(const struct diff_options *o)
{
    char why[320];
    bool good;

    if (o->engine != DIFF_ENGINE_AUTO) {
        return o->engine == DIFF_ENGINE_KVM;
    }
    good = vmm_kvm_probe(why, sizeof(why));
    fprintf(stderr, "vapic diff: engine %s: %s\n", good ? "kvm" : "rig", why);
    return good;
}

int cli_diff(int argc, char **argv)
{
    struct diff_options options;
    struct vmm_err err;

    diff_options_parse(&options, argc, argv);
    if (options.print) {
        return print_programs(&options);
    }
    if (check_files(&options, &err) != 0) {
        return complain(&err);
    }
    return use_kvm(&options) ? run_kvm(&options) : run_rig(&options);
}
