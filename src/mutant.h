/* SPDX-License-Identifier: MIT */
/*
 * Bugs that have happened, as switches for tests: with one switched on, the test that is there to
 * find it must fail. Only a library built with VAPIC_MUTANTS has them; in any other MUTANT() is
 * false at compile time. Columns: name, what goes wrong.
 */
#ifndef VAPIC_MUTANT_H
#define VAPIC_MUTANT_H

#define VAPIC_MUTANT_LIST(X)                                                                       \
    X(HYBRID_KEEPS_PAGE, "the access page stays mapped for a vCPU in x2APIC mode on xAVIC")        \
    X(CONTROL_WRITES_L2, "an APICv update while a nested guest is current writes its VMCS")        \
    X(EOI_TRAP_READS, "the EOI trap reads the register as a guest would: #GP in x2APIC mode")      \
    X(NESTED_KEEPS_RUNNING, "a vCPU that runs a nested guest stays published as running")          \
    X(ID_COMPARED_WIDE, "the xAPIC ID is compared with all 32 bits of the vCPU's own")             \
    X(ID_INHIBIT_STICKS, "APIC_ID_MODIFIED is never cleared")

enum vapic_mutant {
    VAPIC_MUTANT_NONE,
#define VAPIC_X(name, text) VAPIC_MUTANT_##name,
    VAPIC_MUTANT_LIST(VAPIC_X)
#undef VAPIC_X
        VAPIC_MUTANT_COUNT
};

struct vapic;

/*
 * The moment between a post and the look at where its target is, at which an inhibition may change
 * on another thread: a test that wants to be that thread installs vapic_point, which then runs on
 * the sender's. `target` has the vector already.
 */
#ifdef VAPIC_MUTANTS
extern enum vapic_mutant vapic_mutant;
extern void (*vapic_point)(struct vapic *target);
#define MUTANT(name) __builtin_expect(vapic_mutant == VAPIC_MUTANT_##name, 0)
#define POINT(target)                                                                              \
    do {                                                                                           \
        if (vapic_point)                                                                           \
            vapic_point(target);                                                                   \
    } while (0)
#else
#define MUTANT(name) 0
#define POINT(target)                                                                              \
    do {                                                                                           \
    } while (0)
#endif

#endif
