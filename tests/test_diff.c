/* SPDX-License-Identifier: MIT */
/*
 * What `vapic diff` is made of but for its machines: the text of programs, random programs, the
 * comparison of logs, the list of known differences, and the shortening of programs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diff_compare.h"
#include "diff_program.h"
#include "diff_shrink.h"

static struct diff_program program, again;
static struct diff_log kernel_log, vapic_log;
static struct diff_rules rules;
static struct vmm_err err;

static const struct diff_place place = {"none", "manual", "6.1.0"};

static void parse(const char *text)
{
    if (diff_program_parse(&program, "test", text, &err) != 0)
        fail_msg("%s", err.text);
}

static void parse_rules(const char *text)
{
    if (diff_rules_parse(&rules, "rules", text, &err) != 0)
        fail_msg("%s", err.text);
}

/* ---- Programs as text ---- */

static void text_round_trip(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);

    (void)state;
    for (uint64_t n = 0; n < 50; n++) {
        diff_program_random(&program, 7, n, 150, 3);
        rewind(memory);
        diff_program_print(&program, memory);
        fputc('\0', memory);
        fflush(memory);
        assert_int_equal(diff_program_parse(&again, "again", text, &err), 0);
        assert_int_equal(again.count, program.count);
        assert_memory_equal(again.ops, program.ops, program.count * sizeof(program.ops[0]));
    }
    fclose(memory);
    free(text);
}

static void text_has_comments_and_blank_lines(void **state)
{
    (void)state;
    parse("# nothing\n\n  1 wr 0x80 32 # TPR\n0 take 1");
    assert_int_equal(program.count, 2);
    assert_int_equal(program.ops[0].cpu, 1);
    assert_int_equal(program.ops[0].a, 0x80);
    assert_int_equal(program.ops[0].c, 32);
    assert_int_equal(program.ops[1].code, DIFF_OP_TAKE);
}

static void text_errors_name_the_line(void **state)
{
    static const struct {
        const char *text, *error;
    } table[] = {
        {"", "no operations"},
        {"# only words\n", "no operations"},
        {"0 eoi\nx eoi\n", "test:2: a line begins with a processor"},
        {"8 eoi\n", "test:1: a line begins with a processor"},
        {"0\n", "there is no such operation"},
        {"0 fly\n", "there is no such operation"},
        {"0 wr 0x80\n", "wrong number of arguments"},
        {"0 wr 0x80 1 2\n", "wrong number of arguments"},
        {"0 wr 0x10000 1\n", "no number, or too large"},
        {"0 rdmsr 0x100000000\n", "no number, or too large"},
        {"0 wr 0x80 -1\n", "no number, or too large"},
        {"0 rd 1 2 3 4 5 6\n", "too many words"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(diff_program_parse(&program, "test", table[i].text, &err), -1);
        if (strstr(err.text, table[i].error) == NULL)
            fail_msg("'%s' is no '%s'", err.text, table[i].error);
    }
}

/* ---- Random programs ---- */

static void random_programs_repeat(void **state)
{
    (void)state;
    diff_program_random(&program, 3, 9, 200, 4);
    diff_program_random(&again, 3, 9, 200, 4);
    assert_memory_equal(&program, &again, sizeof(program));
    diff_program_random(&again, 3, 10, 200, 4);
    assert_memory_not_equal(program.ops, again.ops, sizeof(program.ops[0]) * 100);
}

/* No SMI, and no INIT that may stop the boot processor, which would restart the machine. */
static void check_op(const struct diff_op *op)
{
    uint64_t word = op->code == DIFF_OP_MSI ? op->c : op->b;
    bool sends = op->code == DIFF_OP_IPI || op->code == DIFF_OP_MSI || op->code == DIFF_OP_RTE;

    assert_true(op->code < DIFF_OP_COUNT);
    if (sends) {
        assert_int_not_equal(word >> 8 & 7, 2);
        assert_int_not_equal(word >> 8 & 7, 5);
    }
    if (op->code == DIFF_OP_INIT) {
        assert_int_equal(op->b >> 8 & 7, 5);
        assert_int_equal(op->b & 0x800, 0);
        assert_true((op->b >> 18 & 3) == 0 || ((op->b >> 18 & 3) == 3 && op->cpu == 0));
        assert_in_range(op->c, 1, DIFF_CPUS_MAX - 1);
    }
    if (op->code == DIFF_OP_WR) {
        assert_int_not_equal(op->a, 0x300);
        assert_true(op->a != 0x20 || op->cpu != 0 || (uint32_t)op->c >> 24 == 0);
    }
}

static void random_programs_end_well(void **state)
{
    uint64_t used = 0;

    (void)state;
    for (uint64_t n = 0; n < 2000; n++) {
        unsigned cpus = 1 + (unsigned)n % DIFF_CPUS_MAX;

        diff_program_random(&program, 1, n, 150, cpus);
        assert_int_equal(program.count, 150);
        for (uint32_t i = 0; i < program.count; i++) {
            check_op(&program.ops[i]);
            assert_true(program.ops[i].cpu < cpus);
            used |= 1ull << program.ops[i].code;
        }
        for (unsigned c = 0; c < cpus; c++)
            assert_int_equal(program.ops[program.count - cpus + c].code, DIFF_OP_DUMP);
    }
    /* but for the register by which the I/O APIC takes EOIs, which Linux's has not */
    assert_int_equal(used, ((1ull << DIFF_OP_COUNT) - 1) & ~(1ull << DIFF_OP_IO_EOI));
}

/* ---- Comparing ---- */

static void log_of(struct diff_log *log, const struct diff_record *records, uint32_t count)
{
    log->end = DIFF_END_DONE;
    log->count = count;
    memcpy(log->record, records, count * sizeof(records[0]));
}

#define LOG(log, ...)                                                                              \
    log_of(&(log), (const struct diff_record[]){__VA_ARGS__},                                      \
           sizeof((const struct diff_record[]){__VA_ARGS__}) / sizeof(struct diff_record))

static struct diff_verdict compare(void)
{
    struct diff_verdict verdict;

    diff_compare(&program, &kernel_log, &vapic_log, &rules, &place, &verdict);
    return verdict;
}

#define THREE_OPS "0 rd 0x280\n1 take 0\n0 wr 0xf0 0xff\n"

static void equal_logs_are_equal(void **state)
{
    struct diff_verdict verdict;

    (void)state;
    rules.count = 0;
    parse(THREE_OPS);
    LOG(kernel_log, {0, 0, DIFF_VALUE, 0x280, 5}, {1, 1, DIFF_DONE, 0, 0},
        {2, 0, DIFF_DONE, 0xf0, 0});
    vapic_log = kernel_log;
    verdict = compare();
    assert_false(verdict.unexplained);
    assert_int_equal(verdict.compared, 3);
    assert_int_equal(verdict.explained, 0);
}

static void any_difference_is_found(void **state)
{
    static const struct diff_record base[] = {
        {0, 0, DIFF_VALUE, 0x280, 5},
        {1, 1, DIFF_VECTOR, 0x50, 0},
        {1, 1, DIFF_DONE, 0, 0},
        {2, 0, DIFF_DONE, 0xf0, 0},
    };
    static const struct {
        uint32_t at;
        struct diff_record record;
        uint32_t op;
    } table[] = {
        {0, {0, 0, DIFF_VALUE, 0x280, 6}, 0}, {0, {0, 0, DIFF_FAULT, 0x280, 0}, 0},
        {0, {0, 1, DIFF_VALUE, 0x280, 5}, 0}, {1, {1, 1, DIFF_VECTOR, 0x51, 0}, 1},
        {1, {1, 1, DIFF_NMI, 0, 0}, 1},       {3, {2, 0, DIFF_FAULT, 0xf0, 0}, 2},
    };

    (void)state;
    rules.count = 0;
    parse(THREE_OPS);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct diff_verdict verdict;

        log_of(&kernel_log, base, 4);
        log_of(&vapic_log, base, 4);
        vapic_log.record[table[i].at] = table[i].record;
        verdict = compare();
        assert_true(verdict.unexplained);
        assert_int_equal(verdict.first.op, table[i].op);
        assert_int_equal(verdict.compared, table[i].op);
    }
}

static void missing_and_further_records_are_found(void **state)
{
    (void)state;
    rules.count = 0;
    parse(THREE_OPS);
    LOG(kernel_log, {0, 0, DIFF_DONE, 0, 0}, {1, 1, DIFF_VECTOR, 0x50, 0}, {1, 1, DIFF_DONE, 0, 0});
    LOG(vapic_log, {0, 0, DIFF_DONE, 0, 0}, {1, 1, DIFF_DONE, 0, 0});
    assert_true(compare().unexplained);
    assert_int_equal(compare().first.kernel.what, 0x50);
    LOG(kernel_log, {0, 0, DIFF_DONE, 0, 0}, {1, 1, DIFF_DONE, 0, 0});
    LOG(vapic_log, {0, 0, DIFF_DONE, 0, 0}, {1, 1, DIFF_DONE, 0, 0}, {1, 2, DIFF_NMI, 0, 0});
    assert_true(compare().unexplained);
    assert_int_equal(compare().first.vapic.kind, DIFF_NMI);
}

static void a_hang_is_a_difference(void **state)
{
    (void)state;
    rules.count = 0;
    parse(THREE_OPS);
    LOG(kernel_log, {0, 0, DIFF_DONE, 0, 0}, {1, 1, DIFF_DONE, 0, 0}, {2, 0, DIFF_DONE, 0, 0});
    vapic_log = kernel_log;
    vapic_log.end = DIFF_END_HANG;
    vapic_log.pc = 1;
    assert_true(compare().unexplained);
    assert_int_equal(compare().first.op, 1);
}

/* ---- Known differences ---- */

#define RULE(body) "text\n```rule\nname: it\n" body "```\n"

/* ESR reads 5 here, 6 there; then TPR differs in the next operation. */
static void two_differences(void)
{
    parse("0 rd 0x280\n0 ipi 0x4050 1\n0 rd 0x80\n");
    LOG(kernel_log, {0, 0, DIFF_VALUE, 0x280, 5}, {2, 0, DIFF_VALUE, 0x80, 0});
    LOG(vapic_log, {0, 0, DIFF_VALUE, 0x280, 6}, {2, 0, DIFF_VALUE, 0x80, 1});
}

static void rules_continue_or_stop(void **state)
{
    struct diff_verdict verdict;

    (void)state;
    two_differences();
    parse_rules(RULE("what: 0x280\nthen: continue\n"));
    verdict = compare();
    assert_true(verdict.unexplained);
    assert_int_equal(verdict.first.op, 2);
    assert_int_equal(verdict.explained, 1);
    parse_rules(RULE("what: 0x280\nthen: stop\n"));
    verdict = compare();
    assert_false(verdict.unexplained);
    assert_ptr_equal(verdict.cut, &rules.rule[0]);
    assert_int_equal(verdict.compared, 0);
    assert_int_equal(rules.rule[0].hits, 1);
}

static void a_rule_that_continues_goes_first(void **state)
{
    struct diff_verdict verdict;

    (void)state;
    two_differences();
    parse_rules(RULE("then: stop\n") RULE("what: 0x280\nthen: continue\n"));
    verdict = compare();
    assert_false(verdict.unexplained);
    assert_ptr_equal(verdict.cut, &rules.rule[0]);
    assert_int_equal(verdict.compared, 2);
    assert_int_equal(rules.rule[1].hits, 1);
}

/* A rule explains what it says and nothing else. */
static void rules_are_narrow(void **state)
{
    static const struct {
        const char *rule;
        bool explains;
    } table[] = {
        {RULE("then: stop\n"), true},
        {RULE("op: rd\nthen: stop\n"), true},
        {RULE("op: wr\nthen: stop\n"), false},
        {RULE("op: rd a=0x280\nthen: stop\n"), true},
        {RULE("op: rd a>0x280\nthen: stop\n"), false},
        {RULE("op: r*\nthen: stop\n"), true},
        {RULE("what: 0x270-0x290\nthen: stop\n"), true},
        {RULE("what: 0x80 0x290\nthen: stop\n"), false},
        {RULE("kernel: value 5\nthen: stop\n"), true},
        {RULE("kernel: value 6\nthen: stop\n"), false},
        {RULE("kernel: #GP\nthen: stop\n"), false},
        {RULE("vapic: value #GP\nthen: stop\n"), true},
        {RULE("bits: 3\nthen: stop\n"), true},
        {RULE("bits: 1\nthen: stop\n"), false},
        {RULE("modes: none avic\nthen: stop\n"), true},
        {RULE("modes: avic*\nthen: stop\n"), false},
        {RULE("profile: kvm\nthen: stop\n"), false},
        {RULE("hosts: 6.1*\nthen: stop\n"), true},
        {RULE("hosts: 6.12*\nthen: stop\n"), false},
        {RULE("after: rd\nthen: stop\n"), true},
        {RULE("after: ipi\nthen: stop\n"), false}, /* comes later */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        two_differences();
        parse_rules(table[i].rule);
        if ((compare().cut != NULL) != table[i].explains)
            fail_msg("%s", table[i].rule);
    }
}

static void rules_know_the_vector(void **state)
{
    (void)state;
    parse("0 ipi 0x4150 1\n0 ipi 0x4151 1\n1 take 0\n1 rd 0x220\n");
    LOG(kernel_log, {2, 1, DIFF_VECTOR, 0x51, 0}, {2, 1, DIFF_DONE, 0, 0});
    LOG(vapic_log, {2, 1, DIFF_DONE, 0, 0});
    parse_rules(RULE("after: ipi b=0x4151 vector\nthen: stop\n"));
    assert_false(compare().unexplained);
    parse_rules(RULE("after: ipi b=0x4150 vector\nthen: stop\n"));
    assert_true(compare().unexplained);
    LOG(kernel_log, {3, 1, DIFF_VALUE, 0x220, 0x10000});
    LOG(vapic_log, {3, 1, DIFF_VALUE, 0x220, 0});
    assert_false(compare().unexplained);
    LOG(kernel_log, {3, 1, DIFF_VALUE, 0x222, 0x1});
    LOG(vapic_log, {3, 1, DIFF_VALUE, 0x222, 0});
    assert_false(compare().unexplained);
    LOG(kernel_log, {3, 1, DIFF_VALUE, 0x221, 0x1});
    LOG(vapic_log, {3, 1, DIFF_VALUE, 0x221, 0});
    assert_true(compare().unexplained);
    parse_rules(RULE("after: ipi b=0x4150 vector cpu\nthen: stop\n"));
    assert_true(compare().unexplained);
}

/* An entry that has another vector by now is still about the pin that has sent this one. */
static void rules_know_the_pin(void **state)
{
    (void)state;
    parse("0 rte 5 0x88e9 0\n0 rte 6 0x8866 0\n1 line 5 1\n1 line 6 1\n2 io.wr 0x1a 0x804e\n"
          "0 take 0\n");
    LOG(kernel_log, {5, 0, DIFF_VECTOR, 0x4e, 0}, {5, 0, DIFF_DONE, 0, 0});
    LOG(vapic_log, {5, 0, DIFF_DONE, 0, 0});
    parse_rules(RULE("after: rte b=0x88e9 pin\nthen: stop\n"));
    assert_false(compare().unexplained);
    parse_rules(RULE("after: line a=5 pin\nthen: stop\n"));
    assert_false(compare().unexplained);
    parse_rules(RULE("after: line a=6 pin\nthen: stop\n"));
    assert_true(compare().unexplained);
    parse_rules(RULE("after: rte b=0x8866 pin\nthen: stop\n"));
    assert_true(compare().unexplained);
    parse_rules(RULE("after: take pin\nthen: stop\n"));
    assert_true(compare().unexplained);
}

/* Bits that differ are those of two values: a #GP on one side is another difference. */
static void rules_about_bits_are_about_values(void **state)
{
    (void)state;
    parse("0 wr 0x80 0x33\n");
    LOG(kernel_log, {0, 0, DIFF_DONE, 0x80, 0});
    LOG(vapic_log, {0, 0, DIFF_FAULT, 0x80, 0});
    parse_rules(RULE("what: 0x80\nbits: 0xf\nthen: continue\n"));
    assert_true(compare().unexplained);
}

static void rules_take_an_msr_for_its_register(void **state)
{
    (void)state;
    parse("0 wrmsr 0x80f 0xff\n0 rd 0x280\n");
    LOG(kernel_log, {1, 0, DIFF_VALUE, 0x280, 5});
    LOG(vapic_log, {1, 0, DIFF_VALUE, 0x280, 6});
    parse_rules(RULE("after: wrmsr a=0xf0 c!0x100\nthen: stop\n"));
    assert_false(compare().unexplained);
    parse_rules(RULE("after: wrmsr a=0xe0\nthen: stop\n"));
    assert_true(compare().unexplained);
}

static void bad_rules_are_refused(void **state)
{
    static const struct {
        const char *text, *error;
    } table[] = {
        {"```rule\nname: x\n", "no end"},
        {"```rule\n```\n", "rules:2: the rule above has no name"},
        {"```rule\nname: x\ncolour: red\n```\n", "rules:3: no line of a rule"},
        {"```rule\nname: x\nop: fly\n```\n", "rules:3: no line of a rule"},
        {"```rule\nname: x\nwhat: high\n```\n", "rules:3: no line of a rule"},
        {"```rule\nname: x\nthen: perhaps\n```\n", "rules:3: no line of a rule"},
        {"```rule\nname: x\nkernel: 5\n```\n", "rules:3: no line of a rule"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(diff_rules_parse(&rules, "rules", table[i].text, &err), -1);
        if (strstr(err.text, table[i].error) == NULL)
            fail_msg("'%s' is no '%s'", err.text, table[i].error);
    }
}

/* The list itself can be read, and each rule says what it explains. */
static void the_list_is_well_formed(void **state)
{
    static char text[1 << 17];
    FILE *file = fopen(VAPIC_DIFF_KNOWN, "r");

    (void)state;
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    parse_rules(text);
    assert_true(rules.count > 10);
    for (unsigned i = 0; i < rules.count; i++) {
        const struct diff_rule *r = &rules.rule[i];

        if (r->ranges == 0 && r->afters == 0 && r->op.ops == UINT64_MAX)
            fail_msg("rule %s explains anything", r->name);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(r->name, rules.rule[j].name);
    }
}

/* ---- Shortening ---- */

/* Fails while it has these two, in this order. */
static bool has_both(void *ctx, const struct diff_program *p)
{
    bool first = false;

    (*(unsigned *)ctx)++;
    for (uint32_t i = 0; i < p->count; i++) {
        first |= p->ops[i].code == DIFF_OP_MSI;
        if (first && p->ops[i].code == DIFF_OP_CPUID)
            return true;
    }
    return false;
}

static void shortening_finds_the_two_that_matter(void **state)
{
    unsigned runs = 0;

    (void)state;
    parse("0 cpuid\n0 eoi\n0 rd 1\n0 msi 1 2\n0 rd 2\n0 rd 3\n0 rd 4\n0 cpuid\n0 rd 5\n0 rd 6\n");
    diff_shrink(&program, has_both, &runs, 1000);
    assert_int_equal(program.count, 2);
    assert_int_equal(program.ops[0].code, DIFF_OP_MSI);
    assert_int_equal(program.ops[1].code, DIFF_OP_CPUID);
}

static void shortening_keeps_to_its_limit(void **state)
{
    unsigned runs = 0;

    (void)state;
    diff_program_random(&program, 1, 1, 400, 2);
    program.ops[0].code = DIFF_OP_MSI;
    program.ops[399].code = DIFF_OP_CPUID;
    diff_shrink(&program, has_both, &runs, 20);
    assert_in_range(runs, 1, 20);
    assert_true(has_both(&runs, &program));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_round_trip),
        cmocka_unit_test(text_has_comments_and_blank_lines),
        cmocka_unit_test(text_errors_name_the_line),
        cmocka_unit_test(random_programs_repeat),
        cmocka_unit_test(random_programs_end_well),
        cmocka_unit_test(equal_logs_are_equal),
        cmocka_unit_test(any_difference_is_found),
        cmocka_unit_test(missing_and_further_records_are_found),
        cmocka_unit_test(a_hang_is_a_difference),
        cmocka_unit_test(rules_continue_or_stop),
        cmocka_unit_test(a_rule_that_continues_goes_first),
        cmocka_unit_test(rules_are_narrow),
        cmocka_unit_test(rules_know_the_vector),
        cmocka_unit_test(rules_know_the_pin),
        cmocka_unit_test(rules_about_bits_are_about_values),
        cmocka_unit_test(rules_take_an_msr_for_its_register),
        cmocka_unit_test(bad_rules_are_refused),
        cmocka_unit_test(the_list_is_well_formed),
        cmocka_unit_test(shortening_finds_the_two_that_matter),
        cmocka_unit_test(shortening_keeps_to_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
