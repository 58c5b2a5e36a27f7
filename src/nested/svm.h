/* SPDX-License-Identifier: MIT */
/*
 * AVIC for L2, among its own files:
 *
 *      svm.c           what is taken over of 12, what 02 gets, what is given back
 *      svm_exit.c      #VMEXIT 401h and 402h of L2, the doorbell MSR of L1
 *      svm_shadow.c    what an entry of L1's physical APIC ID table means
 *
 * Pins of a vCPU (vapic_nested_vcpu.pins), by slot: L2's backing page; L2's logical table, in xAVIC
 * mode; the first page of the physical table, which is all of it but for x2AVIC's largest.
 */
#ifndef VAPIC_NESTED_SVM_H
#define VAPIC_NESTED_SVM_H

#include "nested.h"

enum svm_slot { SVM_BACKING, SVM_LOGICAL, SVM_PHYSICAL, SVM_SLOTS };

_Static_assert(SVM_SLOTS <= VAPIC_NESTED_PINS, "one pin for each");

/* 12 gives L2 an AVIC, and with it x2AVIC. Bits of what L1 is not offered are gone already. */
static inline bool svm_avic(const struct vapic_nested_vcpu *nv)
{
    return (nv->vmcb12.int_ctl & VMCB_V_AVIC) != 0;
}

static inline bool svm_x2avic(const struct vapic_nested_vcpu *nv)
{
    return svm_avic(nv) && nv->vmcb12.int_ctl & VMCB_V_X2AVIC;
}

/* A word of a page of L1's, which L1 or a processor may be writing. SEQ_CST: behind what was
 * announced or posted before the look. */
static inline uint32_t svm_word(const struct vapic_l1_page *page, uint32_t offset)
{
    const uint8_t *at = page->memory;

    return vapic_load32((const uint32_t *)(const void *)(at + offset), VAPIC_SEQ_CST);
}

#endif
