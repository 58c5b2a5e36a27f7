/* SPDX-License-Identifier: MIT */
/*
 * The built-in guest: what `vapic run` runs when no guest is named. Words of the command line:
 *
 *   apic=auto|xapic|x2apic          mode of the run (auto: x2APIC if CPUID offers it)
 *   timer=auto|tsc-deadline|oneshot which timer wakes and loads (auto: deadline if offered)
 *   only=NAME, only=PREFIX*         a part of the tests
 *   n=COUNT                         iterations of what repeats
 *   seconds=SECONDS                 how long each load-storm* goes on, at least
 *   ref=manual|qemu|kvm|soft-kvm|rig|DEVIATION  known deviations of these machines are reported as
 *                                   TODO; several with commas; see rt/test.c
 *   strict                          a missing device fails instead of being skipped
 *   list                            prints names and citations only
 */
#include "groups.h"
#include "start.h"

_Noreturn void guest_main(const char *command_line)
{
    /* A host that accelerates interrupts may stop for good at what the last ones do. */
    static const struct test *const groups[] = {
        register_tests, priority_tests, ipi_tests,   start_tests, timer_tests,
        ioapic_tests,   load_tests,     storm_tests, base_tests,
    };

    test_main("built-in guest", groups, sizeof(groups) / sizeof(groups[0]), command_line);
}
