/* SPDX-License-Identifier: MIT */
#include "start.h"
#include "test.h"
_Noreturn void guest_main(const char *command_line)
{
    static const struct test none[] = {{0}};
    static const struct test *const groups[] = {none};
    test_main("trap guests", groups, 1, command_line);
}
