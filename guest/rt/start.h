/* SPDX-License-Identifier: MIT */
/* What each guest provides: its main, called once on the first processor in long mode with IF=0. */
#ifndef GUEST_START_H
#define GUEST_START_H

#include <stdint.h>

_Noreturn void guest_main(const char *command_line);

#endif
