/* SPDX-License-Identifier: MIT */
/* See diff_report.h. Called by the command. */
#include "diff_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void record_text(const struct diff_record *r, char *text, size_t size)
{
    switch (r->kind) {
    case DIFF_NOTHING:
        snprintf(text, size, "nothing");
        break;
    case DIFF_VALUE:
    case DIFF_FIRED:
    case DIFF_RESTART:
        snprintf(text, size, "CPU %u: %s, %" PRIX32 "h: 0x%" PRIx64, r->cpu,
                 diff_kind_names[r->kind], r->what, r->value);
        break;
    default:
        snprintf(text, size, "CPU %u: %s %" PRIX32 "h", r->cpu,
                 r->kind < DIFF_KIND_COUNT ? diff_kind_names[r->kind] : "?", r->what);
        break;
    }
}

static void side_text(const struct diff_log *log, const struct diff_record *r, uint32_t op,
                      char *text, size_t size)
{
    if (log->end != DIFF_END_DONE && log->pc == op) {
        snprintf(text, size, "%s", log->text);
    } else {
        record_text(r, text, size);
    }
}

void diff_finding_text(const struct diff_finding *f, FILE *to)
{
    const struct diff_difference *d = &f->difference;
    char text[200];

    fprintf(to, "--accel %s, profile %s, host %s; %s, shortened to %" PRIu32 " operations:\n",
            f->place->mode, f->place->profile, f->place->host, f->program->name, f->program->count);
    for (uint32_t i = 0; i < f->program->count; i++) {
        fputs("    ", to);
        diff_op_print(&f->program->ops[i], to);
        fputs(i == d->op ? "    # here:\n" : "\n", to);
    }
    side_text(f->kernel, &d->kernel, d->op, text, sizeof(text));
    fprintf(to, "  Linux:    %s\n", text);
    side_text(f->vapic, &d->vapic, d->op, text, sizeof(text));
    fprintf(to, "  libvapic: %s\n", text);
}

static json_t *program_json(const struct diff_program *p)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < p->count; i++) {
        char *text = NULL;
        size_t size = 0;
        FILE *memory = open_memstream(&text, &size);

        if (memory == NULL) {
            break;
        }
        diff_op_print(&p->ops[i], memory);
        fclose(memory);
        json_array_append_new(list, json_string(text));
        free(text);
    }
    return list;
}

json_t *diff_finding_json(const struct diff_finding *f)
{
    const struct diff_difference *d = &f->difference;
    char kernel[200], vapic[200];

    side_text(f->kernel, &d->kernel, d->op, kernel, sizeof(kernel));
    side_text(f->vapic, &d->vapic, d->op, vapic, sizeof(vapic));
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:i, s:s, s:s}", "mode", f->place->mode, "profile",
                     f->place->profile, "host", f->place->host, "from", f->program->name, "program",
                     program_json(f->program), "operation", (int)d->op, "linux", kernel, "libvapic",
                     vapic);
}

void diff_totals_text(const struct diff_totals *t, unsigned count, const struct diff_rules *rules,
                      FILE *to)
{
    fprintf(to, "%-12s %-8s %10s %12s %8s %8s %12s %9s\n", "accel", "profile", "programs",
            "operations", "known", "cut", "unexplained", "unsteady");
    for (unsigned i = 0; i < count; i++) {
        fprintf(to,
                "%-12s %-8s %10" PRIu64 " %12" PRIu64 " %8" PRIu64 " %8" PRIu64 " %12" PRIu64
                " %9" PRIu64 "\n",
                t[i].place.mode, t[i].place.profile, t[i].programs, t[i].ops, t[i].explained,
                t[i].cut, t[i].unexplained, t[i].unsteady);
    }
    for (unsigned i = 0; i < rules->count; i++) {
        if (rules->rule[i].hits != 0) {
            fprintf(to, "  known: %-40s %10" PRIu64 "\n", rules->rule[i].name, rules->rule[i].hits);
        }
    }
}

json_t *diff_totals_json(const struct diff_totals *t, unsigned count)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < count; i++) {
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "mode", t[i].place.mode,
                            "profile", t[i].place.profile, "programs", (json_int_t)t[i].programs,
                            "operations", (json_int_t)t[i].ops, "known", (json_int_t)t[i].explained,
                            "cut", (json_int_t)t[i].cut, "unexplained",
                            (json_int_t)t[i].unexplained, "unsteady", (json_int_t)t[i].unsteady));
    }
    return list;
}

json_t *diff_rules_json(const struct diff_rules *rules)
{
    json_t *hits = json_object();

    for (unsigned i = 0; i < rules->count; i++) {
        if (rules->rule[i].hits != 0) {
            json_object_set_new(hits, rules->rule[i].name,
                                json_integer((json_int_t)rules->rule[i].hits));
        }
    }
    return hits;
}
