/* SPDX-License-Identifier: MIT */
/*
 * Is this machine's /dev/kvm good enough? Runs the embedded self-test guest on it, in a child
 * process with a time limit, and judges its report. A KVM that hangs, even so that the child cannot
 * be killed, costs the caller only the time limit. Called by `vapic run --engine auto`.
 */
#ifndef VMM_KVM_PROBE_H
#define VMM_KVM_PROBE_H

#include <stdbool.h>
#include <stddef.h>

/* True if it works at hardware speed; `why` gets half a sentence in any case. */
bool vmm_kvm_probe(char *why, size_t size);

/* Judges a self-test report; separate so that a test can call it. */
bool vmm_kvm_probe_judge(const char *report, char *why, size_t size);

#endif
