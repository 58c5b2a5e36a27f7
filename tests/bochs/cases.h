/* SPDX-License-Identifier: MIT */
/*
 * What is compared between Bochs and the silicon model: a numbered list of cases, and how the
 * outcome of a case is told. Both sides compile this header and cases.c and outcome.c: the
 * bare-metal program that runs in Bochs (l1.c) and the host's program (compare.c).
 *
 * A case is a VM entry with some controls and state, and up to CASE_OPS operations of a guest. Case
 * n is computed from n alone, so that any share of the list is the same on both sides.
 *
 * Who resumes after an exit: both sides do the same (case_after_exit()): the next operation, with
 * the exit's cause switched off where it would come again for ever.
 */
#ifndef BOCHS_CASES_H
#define BOCHS_CASES_H

#include <stdbool.h>
#include <stdint.h>

/* Controls of a case. */
enum {
    C_TS = 1 << 0,    /* use TPR shadow */
    C_VAA = 1 << 1,   /* virtualize APIC accesses */
    C_VX2 = 1 << 2,   /* virtualize x2APIC mode */
    C_ARV = 1 << 3,   /* APIC-register virtualization */
    C_VID = 1 << 4,   /* virtual-interrupt delivery */
    C_EIE = 1 << 5,   /* external-interrupt exiting */
    C_SEC = 1 << 6,   /* activate secondary controls */
    C_BM = 1 << 7,    /* use MSR bitmaps */
    C_IWE = 1 << 8,   /* interrupt-window exiting */
    C_HLT = 1 << 9,   /* HLT exiting */
    C_CRL = 1 << 10,  /* CR8-load exiting */
    C_CRS = 1 << 11,  /* CR8-store exiting */
    C_AIE = 1 << 12,  /* acknowledge interrupt on exit */
    C_PPI = 1 << 13,  /* process posted interrupts: in entries that fail only */
    C_BITS = 1 << 14, /* the MSR bitmap has all bits of 800h to 8FFh set */
    C_EPT = 1 << 15,  /* enable EPT: one to one */
};

/* Operations of the guest. `at` is an offset of the APIC page, an MSR, or nothing. */
enum case_op_code {
    OP_READ,
    OP_WRITE,
    OP_OR,   /* read-modify-write: OR with the value */
    OP_MOVS, /* MOVS of `size` bytes from offset `value` to offset `at` */
    OP_RDMSR,
    OP_WRMSR,
    OP_READ_CR8,
    OP_WRITE_CR8,
    OP_STI, /* and the instruction of its shadow */
    OP_CLI,
    OP_HLT,       /* STI and HLT where IF was set: no window between the two */
    OP_PUSH,      /* OP_STI, with the stack at offset `at` of the page */
    OP_WALK,      /* read memory whose page-table entry is at offset `at` of the page */
    OP_WALK_PUSH, /* OP_STI, with the stack in such memory */
    OP_STORE,     /* store 4 bytes in the virtual-APIC page, which is memory, too */
    OP_CODES
};

enum { CASE_OPS = 6 };

struct case_op {
    uint8_t code, size;
    uint16_t at;
    uint64_t value;
};

/* How the virtual-APIC page begins. */
enum case_page {
    PAGE_EMPTY,   /* zeros */
    PAGE_PATTERN, /* every word its own value; ISR and IRR empty, PPR and VTPR below */
    PAGE_PENDING, /* as PAGE_EMPTY, with the bits of `irr` and `isr` set, and upper halves */
};

/* What the extended page tables say of the APIC-access page. */
enum case_ept { EPT_ALL, EPT_ABSENT, EPT_READ_ONLY };

/* Deviations of VMCS fields from what works, for VM-entry checks. */
enum case_spoil {
    SPOIL_NONE,
    SPOIL_VAPIC_ALIGN,  /* virtual-APIC address + 8 */
    SPOIL_VAPIC_WIDTH,  /* beyond the physical-address width */
    SPOIL_ACCESS_ALIGN, /* APIC-access address */
    SPOIL_ACCESS_WIDTH,
    SPOIL_BITMAP_ALIGN, /* MSR bitmap */
    SPOIL_BITMAP_WIDTH,
    SPOIL_PID_ALIGN, /* posted-interrupt descriptor */
    SPOIL_PID_WIDTH,
    SPOIL_VECTOR, /* notification vector 1F2h */
    SPOIL_COUNT
};

struct apicv_case {
    uint8_t group;
    uint8_t page, spoil;
    uint8_t rvi, svi;
    uint8_t vtpr;
    uint8_t irr[3], isr[3]; /* vectors; 0 is none */
    uint8_t physical;       /* pending in the host's APIC at entry; 0 is none */
    uint8_t inject;         /* vector of an external interrupt to be injected; 0 is none */
    uint8_t blocking;       /* guest interruptibility: 1 by STI, 2 by MOV SS */
    uint8_t ept;            /* enum case_ept */
    bool interrupt_flag, halted, user;
    uint16_t load_msr; /* index in the VM-entry MSR-load area; 0: there is none */
    uint32_t controls;
    uint32_t threshold;
    uint64_t eoi_exit[4];
    unsigned count;
    struct case_op ops[CASE_OPS];
};

enum { CASE_ENTRIES = 12 }; /* VM entries of a case, at most */

/* What is to be run: case n for all n below `end` of which case_in_share() says so. */
struct case_parameters {
    uint32_t end, shares;
};

/* The number of cases, and case n of them. Numbers beyond are valid, too: more random cases. */
uint32_t case_count(void);
void case_make(uint32_t n, struct apicv_case *c);
const char *case_group_name(unsigned group);
unsigned case_groups(void);

/* Is case n in the one of `shares` shares that is run? */
bool case_in_share(uint32_t n, uint32_t shares);

/* The word at `offset` of the virtual-APIC page at the beginning; of the APIC-access page, which
 * is memory of its own. */
uint32_t case_page_word(const struct apicv_case *c, uint32_t offset);
uint32_t case_access_word(uint32_t offset);

/* ---- The outcome, as one line of text ---- */

/*
 *      .            the operation is done;  =V a read with this value
 *      !N           it raised exception N
 *      XR:Q         exit R with qualification Q, hexadecimal, then
 *         f t ?     ... before, behind, at neither end of the instruction
 *         l         ... with its length;  h: HLT was saved;  r: RFLAGS.RF = 1 was saved
 *         bN        ... guest interruptibility N was saved
 *         iN        ... interruption information N;  vN: IDT-vectoring information N
 *         gN        ... guest-physical address N, less that of the APIC-access page
 *      DN           the guest took interrupt N
 *      FN           VM entry failed with error N;  EN:Q: with exit N
 *      sN           guest interrupt status;  pO=V aO=V changed words of the two pages
 */
struct outcome {
    char text[1024];
    unsigned length;
};

void outcome_begin(struct outcome *o);
void outcome_done(struct outcome *o);
void outcome_value(struct outcome *o, uint64_t value);
void outcome_exception(struct outcome *o, unsigned vector);
void outcome_delivery(struct outcome *o, unsigned vector);
void outcome_entry_error(struct outcome *o, unsigned error);
void outcome_entry_exit(struct outcome *o, uint32_t reason, uint64_t qualification);

struct outcome_exit {
    uint32_t reason, length, intr_info, vectoring;
    uint64_t qualification, rip;
    uint64_t before, behind; /* of the operation's instruction; 0 where none was begun */
    uint64_t gpa;            /* less the APIC-access page's address */
    uint8_t blocking;        /* guest interruptibility that was saved */
    bool resume;             /* RFLAGS.RF that was saved */
    bool halted;             /* activity state HLT was saved */
};
void outcome_exit(struct outcome *o, const struct outcome_exit *exit);
void outcome_status(struct outcome *o, uint16_t status);
void outcome_word(struct outcome *o, char page, uint32_t offset, uint32_t value);

/* Basic exit reasons that the two sides make something of. */
enum {
    EXIT_EXCEPTION = 0,
    EXIT_EXTERNAL = 1,
    EXIT_WINDOW = 7,
    EXIT_HLT = 12,
    EXIT_VMCALL = 18,
    EXIT_CR = 28,
    EXIT_RDMSR = 31,
    EXIT_WRMSR = 32,
    EXIT_THRESHOLD = 43,
    EXIT_ACCESS = 44,
    EXIT_EPT = 48,
    EXIT_TIMER = 52,
};

/* What is switched off after an exit, so that it does not come again at once: changes `c`. */
void case_after_exit(struct apicv_case *c, uint32_t reason);

#endif
