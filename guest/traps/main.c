/* SPDX-License-Identifier: MIT */
/*
 * The trap guest: what goes wrong in VMMs that emulate the APIC themselves, each as a stress with
 * exact counts. Takes the words of the built-in guest's command line (builtin/main.c).
 */
#include "groups.h"
#include "start.h"

_Noreturn void guest_main(const char *command_line)
{
    static const struct test *const groups[] = {
        msr_tests, halt_tests, window_tests, deadline_tests, reset_tests, pv_tests,
    };

    test_main("trap guest", groups, sizeof(groups) / sizeof(groups[0]), command_line);
}
