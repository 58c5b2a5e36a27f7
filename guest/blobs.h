/* SPDX-License-Identifier: MIT */
/* The multiboot images embedded in the command (blobs.S): the built-in guest, the guest of
 * `vapic diff`, the speed test. */
#ifndef VMM_GUEST_BLOBS_H
#define VMM_GUEST_BLOBS_H

#include <stddef.h>

extern const unsigned char vmm_guest_builtin[];
extern const size_t vmm_guest_builtin_size;
extern const unsigned char vmm_guest_diff[];
extern const size_t vmm_guest_diff_size;
extern const unsigned char vmm_guest_selftest[];
extern const size_t vmm_guest_selftest_size;

#endif
