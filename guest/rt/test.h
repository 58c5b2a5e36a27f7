/* SPDX-License-Identifier: MIT */
/*
 * The test runner of the bare-metal guests: a table of tests, run in order, reported as TAP over
 * serial. Ends in ACPI power-off when all is well, in debug exit code 1 otherwise.
 */
#ifndef GUEST_TEST_H
#define GUEST_TEST_H

#include <stdbool.h>
#include <stdint.h>

#include "apic.h"
#include "console.h"
#include "cpu.h"
#include "irq.h"
#include "x86.h"

enum test_need {
    NEED_2_CPUS = 1 << 0,
    NEED_3_CPUS = 1 << 1,
    NEED_4_CPUS = 1 << 2,
    NEED_X2APIC = 1 << 3, /* offered by CPUID, whatever the run's mode */
    RUN_XAPIC = 1 << 4,   /* the run's mode must be this one */
    RUN_X2APIC = 1 << 5,
    NEED_DEADLINE = 1 << 6,
    NEED_IOAPIC = 1 << 7,
    NEED_LINES = 1 << 8, /* ports 0x2000+n raise and lower interrupt lines */
    NEED_INT_N = 1 << 9, /* the INT n instruction */
};

/*
 * Machines that are known not to follow the manual somewhere: ref=NAME. `soft-kvm` is a KVM that
 * interprets the guest: whatever the APIC, it opens the interrupt window late. `rig` is a KVM on an
 * emulated processor whose VMRUN forgets the shadow of STI: see shadows_lost(). The rest names
 * what hardware does that accelerates interrupts: tests/deviations.h says more under the same
 * names.
 */
enum test_ref {
    REF_MANUAL = 0,
    REF_QEMU = 1 << 0,
    REF_KVM = 1 << 1,
    REF_SOFT_KVM = 1 << 2,
    REF_RIG = 1 << 3,
    REF_RESERVED_MEMORY = 1 << 4,
    REF_DELIVERED_DISABLED = 1 << 5,
    REF_POSTED_DISABLED = 1 << 6,
    REF_STALE_TMR = 1 << 7,
};

struct test {
    const char *name;
    const char *cite; /* the manual's words it holds the machine to */
    void (*run)(void);
    uint32_t needs;
    uint32_t deviates; /* references of which a failure is known: reported as TODO */
};

struct test_options {
    uint32_t count;   /* n=: iterations of whatever repeats */
    uint32_t seconds; /* seconds=: how long a test goes on that has no natural end */
    bool list, strict;
    const char *apic, *timer, *only, *ref;
};

/* n=, or what the test thinks is enough. */
uint32_t test_rounds(uint32_t usual);

extern struct test_options options;
extern enum apic_mode run_mode;

/* Whole life of a test guest; never returns. Each group ends with an empty row. */
_Noreturn void test_main(const char *title, const struct test *const *groups, uint32_t count,
                         const char *command_line);

/* Whether the machine is one that ref= names. */
bool test_ref_is(enum test_ref ref);

/* For a test: what follows does not apply here, and why. The caller returns. */
void test_skip(const char *why);
void test_fail(const char *file, int line, const char *what);
void test_fail_eq(const char *file, int line, const char *what, uint64_t got, uint64_t want);
/* Reads `# stat NAME CPU VALUE`. */
void test_stat(const char *name, uint32_t cpu, uint64_t value);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)

#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        uint64_t got_ = (uint64_t)(got), want_ = (uint64_t)(want);                                 \
        if (got_ != want_)                                                                         \
            test_fail_eq(__FILE__, __LINE__, #got, got_, want_);                                   \
    } while (0)

#endif
