/* SPDX-License-Identifier: MIT */
/* The one-line error text; see err.h. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>

int vmm_fail(struct vmm_err *err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return -1;
}
