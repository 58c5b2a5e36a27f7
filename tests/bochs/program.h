/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of the bare-metal program share: the host (l1.c), which makes a VMCS of each
 * case and prints its outcome, and the guest (l2.c), which does the case's operations. They have
 * one address space; the guest writes its part of the outcome itself.
 */
#ifndef BOCHS_PROGRAM_H
#define BOCHS_PROGRAM_H

#include "cases.h"

/* Where the APIC-access page is; plain memory to a guest without "virtualize APIC accesses". */
#define ACCESS_PAGE UINT64_C(0x400000)

/* Memory whose page-table entries are the APIC-access page. */
#define WALKED UINT64_C(0x40000000)

extern uint32_t virtual_apic[1024];

struct run {
    struct apicv_case c;
    struct outcome outcome;
    unsigned next;           /* operation */
    uint64_t before, behind; /* of its instruction, 0 before it is known */
    bool in_guest;
};
extern struct run run;

void l1_main(void);
void l2_main(void);
void on_interrupt(uint64_t vector, uint64_t rip);

#endif
