/* SPDX-License-Identifier: MIT */
/*
 * Bugs that have happened, or easily could, as switches: with one switched on, the test that is
 * there to find it must fail. test_accel_situations.c plays the first six, `vapic check --mutants`
 * all of them. Only a library built with VAPIC_MUTANTS has them; in any other MUTANT() is false at
 * compile time. Columns: name, what goes wrong.
 */
#ifndef VAPIC_MUTANT_H
#define VAPIC_MUTANT_H

#define VAPIC_MUTANT_LIST(X)                                                                       \
    X(HYBRID_KEEPS_PAGE, "the access page stays mapped for a vCPU in x2APIC mode on xAVIC")        \
    X(CONTROL_WRITES_L2, "an APICv update while a nested guest is current writes its VMCS")        \
    X(EOI_TRAP_READS, "the EOI trap reads the register as a guest would: #GP in x2APIC mode")      \
    X(NESTED_KEEPS_RUNNING, "a vCPU that runs a nested guest stays published as running")          \
    X(ID_COMPARED_WIDE, "the xAPIC ID is compared with all 32 bits of the vCPU's own")             \
    X(ID_INHIBIT_STICKS, "APIC_ID_MODIFIED is never cleared")                                      \
    X(WHERE_READ_EARLY, "a sender reads where its target is before it posts")                      \
    X(MODE_AFTER_PIR, "the trigger mode is set after the vector's bit in PIR")                     \
    X(ANNOUNCE_UNORDERED, "where the owner is goes out by a plain store, without a barrier")       \
    X(LOOKED_BEFORE_ANNOUNCED, "an entry looks at what is posted before it announces itself")      \
    X(BLOCK_ANNOUNCED_LATE, "a vCPU announces its sleep after its last look at ON")                \
    X(ON_CLEARED_LATE, "ON is cleared after PIR was taken over")                                   \
    X(EVENT_BY_DOORBELL, "an NMI or INIT for an accelerated vCPU rings the doorbell")              \
    X(NMI_LATCHED_BY_STORE, "an NMI is latched by load and store")                                 \
    X(SIPI_CLEARED_LATE, "the latch of a SIPI is cleared after its vector was read")               \
    X(SIPI_BEFORE_INIT, "a SIPI that waits behind an INIT is taken before it")                     \
    X(INIT_KEEPS_SIPI, "INIT leaves a SIPI latched that came before it")                           \
    X(NOT_DELIVERED_DROPPED, "a vector whose injection failed does not return to IRR")             \
    X(TIMER_NOT_RETOLD, "the host's timer fires early and is not set again")                       \
    X(TIMER_TELLS_NOBODY, "the host's timer fires and nobody looks")                               \
    X(LEVEL_EOI_DROPPED, "the EOI of a level-triggered vector is not broadcast")                   \
    X(RIRR_AFTER_SEND, "remote IRR is set again when the message is out")                          \
    X(PIN_CAS_NOT_RETRIED, "a pin's word that changed meanwhile is not tried again")               \
    X(LINE_NOT_LOOKED_AT, "an EOI does not look whether the line is still high")                   \
    X(UNMASK_FORGETS_LINE, "unmasking a pin with its line high sends nothing")                     \
    X(STARVED_NOT_RETRIED, "a change of the map does not retry pins that reached nobody")          \
    X(MAP_NOT_RECHECKED, "a pin that reached nobody does not look whether the map has changed")    \
    X(COUNT_NOT_RECHECKED, "a sender does not read the sequence count again")                      \
    X(COUNT_STAYS_EVEN, "the sequence count is not odd while the map changes")                     \
    X(ADDED_BEFORE_FILLED, "a vCPU is on the map before its slot names it")                        \
    X(REMOVED_AT_ONCE, "a vCPU is removed without waiting for its senders")                        \
    X(ACTIVE_READ_EARLY, "a sender looks whether its target listens before it sets IRR")           \
    X(TMR_AFTER_IRR, "TMR is set after IRR")                                                       \
    X(ON_SPARES_DOORBELL, "no doorbell for a vCPU whose ON is set")                                \
    X(BLOCK_WITHDRAWN_LATE, "a vCPU is withdrawn from hardware senders after its last look")       \
    X(IRR_NOT_LOOKED_AT, "a vCPU sleeps without a look at IRR, which hardware sets without ON")    \
    X(RUNNING_UNORDERED, "IsRunning is cleared by a plain store, without a barrier")               \
    X(RUNNING_THOUGH_OFF, "IsRunning stays set when a vCPU is deactivated")                        \
    X(IPI_POSTED_AGAIN, "an incomplete IPI is sent again by software")                             \
    X(LOGICAL_NOT_UPDATED, "the logical table does not follow a write of LDR")                     \
    X(LOGICAL_COUNT_EVEN, "a change of the logical table is counted before it, never odd")         \
    X(SLOT_TAKEN_OVER, "of two vCPUs with one logical ID the table names the second")              \
    X(V_TPR_STALE, "V_TPR is not made equal to TPR when a vCPU enters")                            \
    X(NO_FLUSH, "translations of the access page survive a change of the mode")                    \
    X(MSRS_STAY_OPEN, "the x2APIC MSRs of a vCPU that is deactivated still pass")                  \
    X(IRTE_NOT_MOVED, "remapping entries do not follow a vCPU to another processor")               \
    X(GA_LOG_NOT_ASKED, "the entries of a vCPU that sleeps do not ask for the GA log")             \
    X(GA_LOG_WAKE_LOST, "an entry of the GA log wakes nobody")                                     \
    X(SLEEPS_WITHOUT_LOG, "without a GA log the entries of a vCPU that sleeps go on posting")      \
    X(REMOVED_BUT_VALID, "the table of a removed vCPU's hardware senders still has it")            \
    X(ON_TRUSTED_AT_ENTRY, "an entry harvests nothing while ON is clear")                          \
    X(LEVEL_INTO_PIR, "a level-triggered vector is posted into PIR")                               \
    X(RVI_STALE, "RVI is not made from IRR before an entry")                                       \
    X(SVI_STALE, "SVI is not made from ISR when software has changed it")                          \
    X(EOI_BITMAP_LATE, "the EOI-exit bitmap holds what routes say now, not what is in flight")     \
    X(NDST_STALE, "NDST keeps the processor on which the vCPU was before")                         \
    X(SILENT_POST_FORGOTTEN, "what was posted under SN is not announced when a vCPU is loaded")    \
    X(SLEEPS_SILENTLY, "a vCPU sleeps with SN set and the notification vector")                    \
    X(LIST_NOT_JOINED, "a vCPU sleeps with the wake-up vector and on no list")                     \
    X(LIST_UNLOCKED, "a processor's list of sleeping vCPUs is changed without its lock")           \
    X(CONTROL_BY_STORE, "SN, NV and NDST are written by load and store: ON is lost")               \
    X(FIRST_DEVICE_WAKES_NOBODY, "vCPUs that slept before the first device are not woken for it")  \
    X(KICKED_BEFORE_GENERATION, "vCPUs are kicked out before the generation is odd")               \
    X(GENERATION_NOT_RECHECKED,                                                                    \
      "an entry does not look at the generation after announcing itself")                          \
    X(DECIDED_UNLOCKED, "a vCPU decides what it is without the lock")                              \
    X(CREATED_WITHOUT_UPDATE, "a vCPU under creation does not see a change of the inhibition")     \
    X(REASONS_BY_STORE, "reasons are stored over a window that came meanwhile")                    \
    X(WINDOW_LEAKS, "a vCPU that is reset or removed keeps its interrupt window")                  \
    X(WINDOW_STAYS, "an interrupt window that nobody waits for any more stays counted")            \
    X(WINDOW_NOT_DERIVED, "the window's reason is not derived when another one changes")           \
    X(DERIVED_CLEARS_HOSTS, "a reason of the library's goes, and takes the host's with it")        \
    X(PAGE_COMES_BACK, "a page that was withdrawn for x2APIC vCPUs returns with an inhibition")    \
    X(PAGE_PERMITTED_LATE, "the permission to map the page ends after its withdrawal")             \
    X(NESTED_STAYS_INHIBITED, "a vCPU stays inhibited when it leaves its nested guest")            \
    X(CLAIMS_STAY, "an APIC ID that was changed stays claimed")                                    \
    X(ALIAS_NOT_SEEN, "two vCPUs with one physical ID stay accelerated")                           \
    X(PV_EOI_HIDES_PENDING, "the guest may skip an EOI while something else is pending")           \
    X(PV_EOI_OF_LEVEL, "the guest may skip the EOI of a level-triggered vector")                   \
    X(PV_EOI_WHILE_ACTIVE, "the guest may skip an EOI although the processor keeps ISR")           \
    X(PV_EOI_DROPPED, "an EOI that the guest skipped is not made up for")                          \
    X(NESTED_LATCHED_LATE, "a notification for L2 is latched after the look where the target is")  \
    X(NESTED_LATCH_READ_EARLY,                                                                     \
      "the latch is looked at before the vector of an L2 that is left is withdrawn")               \
    X(NESTED_VECTOR_STAYS, "the notification vector of an L2 that was left is still L2's")         \
    X(NESTED_EXIT_FORGETS,                                                                         \
      "a change that came while L2 was current is not written when L1 is back")                    \
    X(NESTED_SVI_FORGOTTEN,                                                                        \
      "SVI of vmcs01 is not made when L1 is back: activation came while in L2")                    \
    X(NESTED_SEEN_EARLY,                                                                           \
      "a vCPU that sleeps in L2 does not look at L2's IRR behind its announcement")                \
    X(NESTED_PAGES_NOT_RECHECKED,                                                                  \
      "an entry does not look again whether the pages of 12 are still its own")                    \
    X(NESTED_UPDATE_DROPPED,                                                                       \
      "an update that creation left pending is dropped when L2 is restored")                       \
    X(NESTED_LATE_POST_STAYS,                                                                      \
      "what hardware posts for an L2 that was left stays in L0's descriptor")                      \
    X(DOORBELL_WAKES_NOBODY, "L1's doorbell reaches vCPUs in the guest only")                      \
    X(RUNNING_READ_EARLY, "IsRunning of L1's table is read before the vector is in IRR")           \
    X(SHADOW_READ_UNTRACKED, "a table is read before its writes are told")                         \
    X(SHADOW_UNPINS_NAMED, "a page is given back while the shadow's entry still names it")         \
    X(SHADOW_UNPINS_UNKICKED,                                                                      \
      "a page is given back while a processor may be sending by the old entry")                    \
    X(SHADOW_STAYS_RUNNING, "a shadow's entry says running of a vCPU that was put aside")          \
    X(SHADOW_UNORDERED, "a shadow's entry is changed by a plain store, without a barrier")

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
struct vapic_mutant_text {
    const char *name, *text;
};
extern const struct vapic_mutant_text vapic_mutant_texts[VAPIC_MUTANT_COUNT];
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
