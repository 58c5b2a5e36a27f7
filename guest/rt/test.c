/* SPDX-License-Identifier: MIT */
/* The runner: options, machine start-up, the loop over the table, TAP, the exit. */
#include "test.h"

#include "acpi.h"
#include "ioapic.h"

#define HIGHEST_XAPIC_ID  254u
#define HIGHEST_X2APIC_ID 0xfffffffeu
#define TRAMPOLINE        0x08

/* TSC cycles: nobody waits long for what is known not to come. */
#define WAIT_USUAL            60000000000ull
#define WAIT_EXPECTED_FAILURE 1000000000ull

#define MAX_TESTS             256

struct test_options options = {.count = 0, .apic = "auto", .timer = "auto", .ref = "manual"};
enum apic_mode run_mode;

static const struct test *chosen[MAX_TESTS];
static uint32_t chosen_count;
static const char *skip_reason;
static uint32_t failures_of_test;

void test_skip(const char *why)
{
    skip_reason = why;
}

static const char *base_name(const char *path)
{
    const char *name = path;

    for (; *path; path++)
        if (*path == '/')
            name = path + 1;
    return name;
}

void test_fail(const char *file, int line, const char *what)
{
    if (__atomic_fetch_add(&failures_of_test, 1, __ATOMIC_SEQ_CST) < 8)
        print("# %s:%d: CPU %u: not so: %s\n", base_name(file), line, this_cpu()->index, what);
}

void test_fail_eq(const char *file, int line, const char *what, uint64_t got, uint64_t want)
{
    if (__atomic_fetch_add(&failures_of_test, 1, __ATOMIC_SEQ_CST) < 8)
        print("# %s:%d: CPU %u: %s is 0x%lx, not 0x%lx\n", base_name(file), line, this_cpu()->index,
              what, got, want);
}

void test_stat(const char *name, uint32_t cpu, uint64_t value)
{
    print("# stat %s %u %lu\n", name, cpu, value);
}

static uint32_t parse_number(const char *s)
{
    uint32_t n = 0;

    for (; *s >= '0' && *s <= '9'; s++)
        n = n * 10 + (uint32_t)(*s - '0');
    return n;
}

static void parse_word(const char *word)
{
    const char *value;

    if ((value = str_after(word, "apic=")))
        options.apic = value;
    else if ((value = str_after(word, "timer=")))
        options.timer = value;
    else if ((value = str_after(word, "only=")))
        options.only = value;
    else if ((value = str_after(word, "ref=")))
        options.ref = value;
    else if ((value = str_after(word, "n=")))
        options.count = parse_number(value);
    else if ((value = str_after(word, "seconds=")))
        options.seconds = parse_number(value);
    else if (str_is(word, "list", ' '))
        options.list = true;
    else if (str_is(word, "strict", ' '))
        options.strict = true;
}

static void parse(const char *line)
{
    while (*line) {
        while (*line == ' ')
            line++;
        parse_word(line);
        while (*line && *line != ' ')
            line++;
    }
}

static bool option_is(const char *value, const char *word)
{
    return str_is(value, word, ' ');
}

static uint32_t reference_bit(const char *name)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } names[] = {
        {"manual", REF_MANUAL},
        {"qemu", REF_QEMU},
        {"kvm", REF_KVM},
        {"soft-kvm", REF_SOFT_KVM},
        {"rig", REF_RIG},
        {"reserved-offset-is-memory", REF_RESERVED_MEMORY},
        {"delivered-while-soft-disabled", REF_DELIVERED_DISABLED},
        {"posted-while-soft-disabled", REF_POSTED_DISABLED},
        {"stale-trigger-mode", REF_STALE_TMR},
    };

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (str_is(name, names[i].name, ' ') || str_is(name, names[i].name, ','))
            return names[i].bit;
    panic("ref= takes manual, qemu, kvm, soft-kvm, rig, a deviation, or several with commas");
}

static uint32_t reference(void)
{
    uint32_t bits = REF_MANUAL;
    const char *name = options.ref;

    for (;;) {
        bits |= reference_bit(name);
        while (*name && *name != ' ' && *name != ',')
            name++;
        if (*name++ != ',')
            return bits;
    }
}

bool test_ref_is(enum test_ref ref)
{
    return reference() & ref;
}

static enum apic_mode choose_mode(void)
{
    if (option_is(options.apic, "xapic"))
        return APIC_XAPIC;
    if (option_is(options.apic, "auto"))
        return apic_has_x2apic() ? APIC_X2APIC : APIC_XAPIC;
    if (!option_is(options.apic, "x2apic"))
        panic("apic= takes auto, xapic or x2apic");
    if (!apic_has_x2apic())
        panic("apic=x2apic, but CPUID does not offer x2APIC");
    return APIC_X2APIC;
}

/* A name selects a test, or with a trailing '*' all that begin so. */
static bool selected(const struct test *t)
{
    const char *name = t->name, *want = options.only;

    if (!want)
        return true;
    while (*want && *want != ' ' && *want != '*' && *want == *name) {
        want++;
        name++;
    }
    return *want == '*' || ((*want == '\0' || *want == ' ') && *name == '\0');
}

static const char *missing(uint32_t needs, uint32_t ref)
{
    if ((needs & NEED_INT_N) && (ref & REF_SOFT_KVM))
        return "a software KVM cannot interpret INT n";
    if ((needs & NEED_4_CPUS) && cpu_count < 4)
        return "needs 4 CPUs";
    if ((needs & NEED_3_CPUS) && cpu_count < 3)
        return "needs 3 CPUs";
    if ((needs & NEED_2_CPUS) && cpu_count < 2)
        return "needs 2 CPUs";
    if ((needs & RUN_XAPIC) && run_mode != APIC_XAPIC)
        return "for xAPIC mode only";
    if ((needs & RUN_X2APIC) && run_mode != APIC_X2APIC)
        return "for x2APIC mode only";
    return NULL;
}

/* What a complete machine has: with `strict` its absence is a failure. */
static const char *lacking(uint32_t needs)
{
    if ((needs & NEED_X2APIC) && !apic_has_x2apic())
        return "no x2APIC";
    if ((needs & NEED_DEADLINE) && (!apic_has_deadline() || option_is(options.timer, "oneshot")))
        return "no TSC-deadline timer";
    if ((needs & NEED_IOAPIC) && !ioapic_present())
        return "no I/O APIC";
    if ((needs & NEED_LINES) && !ioapic_lines_work())
        return "no interrupt lines at port 0x2000";
    return NULL;
}

static uint32_t in_service(void)
{
    uint32_t bits = 0;

    for (uint32_t i = 0; i < 8; i++)
        bits |= apic_read(APIC_ISR + 16 * i);
    return bits;
}

/* Leaves the APIC and the handlers as the next test may expect them, however this one went. */
static void restore(void)
{
    cli();
    irq_reset_handlers();
    ioapic_mask_all();
    apic_set_mode(run_mode);
    apic_setup();
    for (uint32_t i = 0; i < 256 && in_service(); i++)
        apic_eoi();
    irq_window();
}

static bool run_one(const struct test *t, uint32_t number, uint32_t ref)
{
    const char *lacks = lacking(t->needs);
    uint32_t violations = irq_violations();

    skip_reason = missing(t->needs, ref);
    failures_of_test = 0;
    set_wait_limit(t->deviates & ref ? WAIT_EXPECTED_FAILURE : WAIT_USUAL);
    if (!skip_reason)
        skip_reason = lacks;
    if (!skip_reason)
        t->run();
    restore();
    if (irq_violations() != violations)
        test_fail(t->name, 0, "no maskable interrupt was taken with IF=0");
    if (options.strict && skip_reason && skip_reason == lacks)
        test_fail(t->name, 0, lacks);
    print("%sok %u - %s", failures_of_test ? "not " : "", number, t->name);
    if (skip_reason && !failures_of_test)
        print(" # SKIP %s", skip_reason);
    else if (t->deviates & ref)
        print(" # TODO known deviation of this reference");
    print("\n");
    return !failures_of_test || (t->deviates & ref);
}

static void choose(const struct test *const *groups, uint32_t count)
{
    for (uint32_t g = 0; g < count; g++)
        for (const struct test *t = groups[g]; t->name; t++)
            if (selected(t) && chosen_count < MAX_TESTS)
                chosen[chosen_count++] = t;
    if (!chosen_count)
        panic("only= names no test; `list` lists them");
}

static _Noreturn void list(void)
{
    for (uint32_t i = 0; i < chosen_count; i++)
        print("# %s %s\n", chosen[i]->name, chosen[i]->cite);
    print("1..0 # SKIP list only\n");
    power_off();
}

static void start_cpus(void)
{
    for (uint32_t i = 1; i < cpu_count; i++)
        if (!cpu_start(cpu_table[i]))
            panic("CPU %u (APIC ID %u) did not start", i, cpu_table[i]->apic_id);
}

static void print_stats(void)
{
    for (uint32_t i = 0; i < cpu_count; i++) {
        const struct cpu *c = cpu_table[i];
        uint64_t interrupts = 0;

        for (uint32_t v = VEC_FIRST_IRQ; v < 256; v++)
            interrupts += c->received[v];
        test_stat("interrupts", i, interrupts);
        test_stat("nmis", i, c->received[VEC_NMI]);
        test_stat("eois", i, c->eois);
        test_stat("icr-writes", i, c->icr_writes);
        test_stat("self-ipi-writes", i, c->self_writes);
        test_stat("starts", i, c->boots);
    }
}

static void start_machine(const char *title)
{
    if (!acpi_init())
        panic("no ACPI tables");
    irq_init();
    run_mode = choose_mode();
    cpu_init(run_mode == APIC_X2APIC ? HIGHEST_X2APIC_ID : HIGHEST_XAPIC_ID);
    if (option_is(options.timer, "tsc-deadline") && !apic_has_deadline())
        panic("timer=tsc-deadline, but CPUID does not offer it");
    print("TAP version 13\n# %s: %u CPUs, %s mode\n", title, cpu_count,
          run_mode == APIC_X2APIC ? "x2APIC" : "xAPIC");
}

uint32_t test_rounds(uint32_t usual)
{
    return options.count ? options.count : usual;
}

_Noreturn void test_main(const char *title, const struct test *const *groups, uint32_t count,
                         const char *command_line)
{
    uint32_t failed = 0, ref;

    parse(command_line);
    ref = reference();
    choose(groups, count);
    start_machine(title);
    if (options.list)
        list();
    print("1..%u\n", chosen_count);
    apic_set_mode(run_mode);
    apic_setup();
    cpu_place_trampoline(TRAMPOLINE);
    ioapic_init();
    start_cpus();
    for (uint32_t i = 0; i < chosen_count; i++)
        failed += !run_one(chosen[i], i + 1, ref);
    print_stats();
    print("# %u of %u tests failed\n", failed, chosen_count);
    if (failed)
        debug_exit(1);
    power_off();
}
