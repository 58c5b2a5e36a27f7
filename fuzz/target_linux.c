/* SPDX-License-Identifier: MIT */
/* The command's loader of Linux kernels (bzImage); see loader.h. */
#include "loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_loader *l = fuzz_loader(data, size);

    fuzz_load(l, vmm_load_linux);
    return 0;
}
