/* SPDX-License-Identifier: MIT */
/*
 * What the files of libvapic share and nobody else sees: the register page, the dense array of
 * vCPUs, the posting protocol, and the calls from one file into another.
 */
#ifndef VAPIC_INTERNAL_H
#define VAPIC_INTERNAL_H

#include "mutant.h"
#include "pv.h"
#include "vapic/accel.h"
#include "vapic/arch/atomic.h"
#include "vapic/vapic.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
/* Apart, so that the path that does not go there saves no registers for it. */
#define NOINLINE      __attribute__((noinline))
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Where a post goes: fixed for the VM's life, whether or not a vCPU is active (accel/post.c). */
enum post {
    POST_PIR,   /* no back end: PIR, and the trigger mode beside it */
    POST_PAGE,  /* AVIC: TMR and IRR in the page */
    POST_SPLIT, /* APICv: edge into PIR, level into vapic.level[], which no hardware reads */
};

/* ---- Knobs, tracing ---- */

static inline bool knob(const struct vapic_vm *vm, enum vapic_knob k)
{
    return (vm->knobs & (uint32_t)k) != 0;
}

/* Does anybody listen? It may change at any time. */
static inline bool vapic_traced(const struct vapic_vm *vm)
{
    return vapic_load_ptr(&vm->trace, VAPIC_RELAXED) != NULL;
}

void vapic_trace_emit(struct vapic_vm *vm, enum vapic_event_kind kind, uint32_t vcpu,
                      const uint64_t arg[4]);

/* One predictable branch when nobody listens. */
#define TRACE(vm, kind, vcpu, a, b, c, d)                                                          \
    do {                                                                                           \
        if (UNLIKELY(vapic_traced(vm)))                                                            \
            vapic_trace_emit(vm, VAPIC_EVENT_##kind, vcpu, (const uint64_t[4]){a, b, c, d});       \
    } while (0)

/* ---- The register page ---- */

/* Relaxed: the owner is the only writer, but the page may be looked at by others. */
static inline uint32_t reg(const struct vapic *v, uint32_t offset)
{
    return vapic_load32((const uint32_t *)(const void *)(v->page + offset), VAPIC_RELAXED);
}

static inline void set_reg(struct vapic *v, uint32_t offset, uint32_t value)
{
    vapic_store32((uint32_t *)(void *)(v->page + offset), value, VAPIC_RELAXED);
}

/* In an AVIC VM senders, and the processor for them, write IRR and TMR of the page at any time. */
static inline void set_reg_bits(struct vapic *v, uint32_t offset, uint32_t bits)
{
    vapic_or32((uint32_t *)(void *)(v->page + offset), bits, VAPIC_RELAXED);
}

static inline void clear_reg_bits(struct vapic *v, uint32_t offset, uint32_t bits)
{
    vapic_and32((uint32_t *)(void *)(v->page + offset), ~bits, VAPIC_RELAXED);
}

/* ISR, TMR and IRR: bit n%32 of the word at base + 10h * (n/32) [SDM3 12.8.4]. */
static inline bool vector_bit(const struct vapic *v, uint32_t base, uint32_t vector)
{
    return (reg(v, base + (vector >> 5) * 16u) >> (vector & 31)) & 1;
}

/* The rows of regs.c and, for each 16-byte slot of the page, row + 1 or 0. For reg_at() only. */
#define REG_SLOTS ((APIC_EILVT >> 4) + 4)
extern const struct vapic_reg vapic_reg_rows[] __attribute__((visibility("hidden")));
extern const uint8_t vapic_reg_slots[REG_SLOTS] __attribute__((visibility("hidden")));

/* vapic_reg_at() for every access: `offset` is a multiple of 16. */
static inline const struct vapic_reg *reg_at(uint32_t offset)
{
    size_t slot = offset >> 4, row = slot < REG_SLOTS ? vapic_reg_slots[slot] : 0;

    return LIKELY(row != 0) ? &vapic_reg_rows[row - 1] : NULL;
}

static inline uint32_t highest_bit(uint32_t value)
{
    return 31u ^ (uint32_t)__builtin_clz(value);
}

/*
 * The highest vector in the eight words at `base`, -1 when there is none. `words` is the hint which
 * words are not zero: isr_words or irr_words of struct vapic.
 */
static inline int highest_vector(const struct vapic *v, uint32_t base, uint8_t words)
{
    uint32_t n, value;

    if (words == 0)
        return -1;
    n = highest_bit(words);
    value = reg(v, base + 16 * n);
    /* A hint may name a word that is empty only through a bug; never scan zero. */
    return LIKELY(value != 0) ? (int)(32 * n + highest_bit(value)) : -1;
}

static inline bool apic_enabled(const struct vapic *v)
{
    return (v->apic_base & APIC_BASE_EN) != 0;
}

static inline bool in_x2apic(const struct vapic *v)
{
    return (v->apic_base & APIC_BASE_EXTD) != 0;
}

/* Beside enum vapic_feature: which optional LVT entries max_lvt leaves. */
#define FEATURE_THERMAL (1u << 6)
#define FEATURE_PMC     (1u << 7)

/* Does this vCPU have the register, in the mode that it is in? */
static inline bool has_reg(const struct vapic *v, const struct vapic_reg *row)
{
    static const uint8_t features[] = {
        [VAPIC_NEED_CMCI] = VAPIC_FEATURE_CMCI,
        [VAPIC_NEED_AMD_EXT] = VAPIC_FEATURE_AMD_EXT,
        [VAPIC_NEED_THERMAL] = FEATURE_THERMAL,
        [VAPIC_NEED_PMC] = FEATURE_PMC,
    };

    if (LIKELY(row->need == VAPIC_NEED_NONE) || v->features & features[row->need])
        return true;
    if (row->need != VAPIC_NEED_AMD_IN_X2APIC)
        return false;
    return !in_x2apic(v) || (v->features & VAPIC_FEATURE_AMD && knob(v->vm, VAPIC_KNOB_APR));
}

/*
 * Where the upper half of the ICR lives: APICv in x2APIC mode has one 64-bit register at 300h
 * [SDM3 31.5], everything else a second word at 310h [APM2 15.29.10].
 */
static inline uint32_t vapic_lapic_icr_high_offset(const struct vapic *v)
{
    return v->vm->post == POST_SPLIT && in_x2apic(v) ? APIC_ICR + 4 : APIC_ICR2;
}

static inline bool sw_enabled(const struct vapic *v)
{
    return (reg(v, APIC_SVR) & APIC_SVR_ENABLE) != 0;
}

/* ---- Events of struct vapic: any thread sets, the owner consumes ---- */

#define EV_INIT        (1u << 0)
#define EV_SIPI        (1u << 1)
#define EV_NMI_SHIFT   2 /* two bits: 0, 1 or 2 NMIs pend */
#define EV_NMI         (3u << EV_NMI_SHIFT)
#define EV_NMI_ONE     (1u << EV_NMI_SHIFT)
#define EV_SMI         (1u << 4)
#define EV_LINE0       (1u << 5) /* levels of the LINT inputs */
#define EV_LINE1       (1u << 6)
#define EV_EDGE0       (1u << 7) /* a rise that the owner has not looked at yet */
#define EV_EDGE1       (1u << 8)
#define EV_THERMAL     (1u << 9) /* one event of a local source; order as in local_lvts[] */
#define EV_PMC         (1u << 10)
#define EV_CMCI        (1u << 11)
#define EV_EILVT0      (1u << 12) /* and the three after it */
#define EV_LOCAL_SHIFT 9
#define EV_LOCAL       (0x7Fu << EV_LOCAL_SHIFT)
#define EV_ILLEGAL     (1u << 26) /* a vector below 16 was sent here; with a back end only */
/* for vapic_lapic_local_events() */
#define EV_OWNER             (EV_EDGE0 | EV_EDGE1 | EV_LOCAL | EV_ILLEGAL)
#define EV_SIPI_VECTOR_SHIFT 16
#define EV_SIPI_VECTOR       (0xFFu << EV_SIPI_VECTOR_SHIFT)
#define EV_REMOTE            (1u << 24) /* remote read: ends HLT, nothing else */
#define EV_TIMER             (1u << 25) /* the host's timer fired, perhaps early */

/* Presence of the owner, for senders: a value is what they have to do after a post. */
enum presence {
    /* will pass vapic_enter() or vapic_block() before it matters */
    PRESENCE_OUTSIDE = VAPIC_ACTION_NONE,
    PRESENCE_GUEST = VAPIC_ACTION_KICK,
    PRESENCE_BLOCKED = VAPIC_ACTION_WAKE,
    /* in the guest and accelerated: a vector needs no exit, an event does */
    PRESENCE_ACCEL = VAPIC_ACTION_DOORBELL,
};

#ifndef PID_ON
#define PID_ON 1u
#endif

/*
 * Protocol "post". Sender: the vector's bit in PIR (or an event bit), then ON, then reads presence.
 * Owner: writes presence, then reads ON (vapic_enter, vapic_block); clears ON, then takes PIR and
 * events (harvest). Both sides use SEQ_CST read-modify-writes for the first step, so one of them
 * sees the other: either the owner finds ON set and stays, or the sender finds the owner in the
 * guest (or asleep) and notifies. Were ON cleared after PIR was taken, a vector posted in between
 * would stay in PIR with ON clear and nobody told.
 *
 * Whoever finds ON already set need not notify: the one who set it did or will, and the owner has
 * not harvested since. Whoever finds the vector's bit already set need not even look at ON.
 */
static inline enum vapic_action post_notify(struct vapic *v)
{
    uint64_t before = vapic_or64(&v->pid.control, PID_ON, VAPIC_SEQ_CST);
    uint32_t where = vapic_load32(&v->presence, VAPIC_SEQ_CST);

    /* A doorbell may answer for ON, and no doorbell makes the owner look at events. */
    if (UNLIKELY(where == PRESENCE_ACCEL))
        return MUTANT(EVENT_BY_DOORBELL) ? VAPIC_ACTION_DOORBELL : VAPIC_ACTION_KICK;
    /* enum presence says what its place asks of the sender. */
    return before & PID_ON ? VAPIC_ACTION_NONE : (enum vapic_action)where;
}

/* The same for a vector, in a VM without a back end: there nobody is ever accelerated. */
static inline enum vapic_action post_notify_vector(struct vapic *v)
{
    if (vapic_or64(&v->pid.control, PID_ON, VAPIC_SEQ_CST) & PID_ON)
        return VAPIC_ACTION_NONE;
    return (enum vapic_action)vapic_load32(&v->presence, VAPIC_SEQ_CST);
}

/* post_vector() in a VM with a back end, and its second half alone: `vector` is pending already,
 * somebody has to look. accel/post.c. Any thread. */
enum vapic_action vapic_accel_post(struct vapic *v, uint32_t vector, bool level, bool *coalesced);
enum vapic_action vapic_accel_notify(struct vapic *v);

static inline void post_mode(struct vapic *v, uint32_t word, uint64_t bit, bool level)
{
    bool was_level = (vapic_load64(&v->level[word], VAPIC_RELAXED) & bit) != 0;

    if (UNLIKELY(was_level != level)) {
        if (level)
            vapic_or64(&v->level[word], bit, VAPIC_RELAXED);
        else
            vapic_and64(&v->level[word], ~bit, VAPIC_RELAXED);
    }
}

/*
 * The trigger mode goes before the vector's bit: the owner that sees the bit in PIR (acquire in
 * harvest) sees the mode too. Written only where it differs, so the common edge after edge costs no
 * locked operation for it. [SDM3 12.8.4]
 *
 * Of the target only its first two cache lines are touched. In a VM without a back end only.
 */
static inline enum vapic_action post_to_pir(struct vapic *v, uint32_t vector, bool level,
                                            bool *coalesced)
{
    uint32_t word = vector >> 6;
    uint64_t bit = UINT64_C(1) << (vector & 63);
    uint32_t early = MUTANT(WHERE_READ_EARLY) ? vapic_load32(&v->presence, VAPIC_SEQ_CST) : 0;

    if (!MUTANT(MODE_AFTER_PIR))
        post_mode(v, word, bit, level);
    if (vapic_or64(&v->pid.pir[word], bit, VAPIC_SEQ_CST) & bit) {
        *coalesced = true;
        return VAPIC_ACTION_NONE;
    }
    if (MUTANT(MODE_AFTER_PIR))
        post_mode(v, word, bit, level);
    POINT(v);
    if (MUTANT(WHERE_READ_EARLY))
        return post_notify_vector(v) == VAPIC_ACTION_NONE ? 0 : (enum vapic_action)early;
    return post_notify_vector(v);
}

/* `vm` is v->vm, from the sender's side: the target's line of constants stays out of it. */
static inline enum vapic_action post_vector(const struct vapic_vm *vm, struct vapic *v,
                                            uint32_t vector, bool level, bool *coalesced)
{
    if (UNLIKELY(vm->post != POST_PIR))
        return vapic_accel_post(v, vector, level, coalesced);
    return post_to_pir(v, vector, level, coalesced);
}

/* ---- The dense array of vCPUs: one cache line each ---- */

/*
 * Everything that decides whether a message concerns a vCPU, in one word, so that a reader without
 * the sequence count still sees one consistent identity.
 */
#define IDENT_ADDED     (1u << 0)
#define IDENT_ENABLED   (1u << 1) /* IA32_APIC_BASE.EN */
#define IDENT_X2APIC    (1u << 2)
#define IDENT_SW        (1u << 3) /* SVR[8] */
#define IDENT_DFR_SHIFT 4
#define IDENT_ODD       (1u << 6) /* answers to another x2APIC ID than the configured one */
#define IDENT_DFR       (3u << IDENT_DFR_SHIFT)
#define IDENT_XID_SHIFT 8
#define IDENT_LDR_SHIFT 16
#define IDENT_ID_SHIFT  32

enum ident_dfr {
    DFR_FLAT,
    DFR_CLUSTER,
    DFR_NEITHER,
};

/* A vCPU's chains: one for each bit of its LDR, one by xAPIC ID, one by hashed x2APIC ID. */
#define LINK_XID 8u
#define LINK_ID  9u
#define LINKS    10u

struct vapic_slot {
    uint64_t ident;       /* under the lock inside the sequence count; any thread reads */
    struct vapic *vcpu;   /* constant while IDENT_ADDED; readers keep off by host.quiesce() */
    uint32_t id;          /* the configured x2APIC ID; constant while IDENT_ADDED */
    uint32_t arbiter;     /* lowest-priority messages taken; atomic, any thread */
    uint16_t next[LINKS]; /* chains: slot + 1 of the next, 0 at the end */
} __attribute__((aligned(64)));

/*
 * No slot from here on has ever held a vCPU. Relaxed: whether one below does is for its identity
 * word to say, which is acquired and was 0 before; one that is added meanwhile may be missed.
 */
static inline uint32_t slots_end(const struct vapic_vm *vm)
{
    return vapic_load32(&vm->top, VAPIC_RELAXED);
}

static inline uint8_t ident_xid(uint64_t ident)
{
    return (uint8_t)(ident >> IDENT_XID_SHIFT);
}

static inline uint8_t ident_ldr(uint64_t ident)
{
    return (uint8_t)(ident >> IDENT_LDR_SHIFT);
}

static inline uint32_t ident_id(uint64_t ident)
{
    return (uint32_t)(ident >> IDENT_ID_SHIFT);
}

static inline enum ident_dfr ident_dfr(uint64_t ident)
{
    return (enum ident_dfr)((ident & IDENT_DFR) >> IDENT_DFR_SHIFT);
}

/* ---- fabric.c ---- */

/* Takes the lock and rewrites this vCPU's entries from its page and base. Owner. */
void vapic_fabric_update(struct vapic *v);

/* Sends an IPI of `v` and adds the vCPUs that took it to its statistics. Owner, no lock. */
void vapic_fabric_ipi(struct vapic *v, uint32_t icr, uint32_t dest);

/* Lowest-priority arbitration counts from zero again. Owner. */
void vapic_fabric_forget_load(struct vapic *v);

/* Notifies the targets of an IPI that the hardware has posted already. Owner, no lock. */
void vapic_fabric_kick(struct vapic *v, uint32_t icr, uint32_t dest);

/* vapic_send() that also notifies a single target. Any thread, no lock. */
struct vapic_sent vapic_fabric_deliver(struct vapic_vm *vm, struct vapic_msg msg);

/* ---- lapic.c ---- */

#define LDR_OF_ID(id) ((((id) >> 4) & 0xFFFFu) << 16 | 1u << ((id)&15u))

void vapic_lapic_reset_registers(struct vapic *v, bool init);
void vapic_lapic_recount(struct vapic *v); /* derived state from the page: word hints, PPR */
void vapic_lapic_update_ppr(struct vapic *v);
void vapic_lapic_harvest(struct vapic *v);      /* PIR into IRR and TMR; leaves ON alone */
int vapic_lapic_pending(const struct vapic *v); /* the vector that may be delivered now, or -1 */
/* A fixed interrupt of this vCPU to itself, on the owner's thread. */
bool vapic_lapic_accept_local(struct vapic *v, uint8_t vector, bool level);
void vapic_lapic_error(struct vapic *v, uint32_t esr_bit);
void vapic_lapic_ack(struct vapic *v, uint8_t vector);
void vapic_lapic_unack(struct vapic *v, uint8_t vector); /* back from ISR to IRR */
void vapic_lapic_specific_eoi(struct vapic *v, uint8_t vector);
void vapic_lapic_auto_eoi(struct vapic *v, uint8_t vector); /* out of service, and nobody is told */
/* The class that TPR must fall below for the next vector to pass; 0 when TPR is not in its way. */
uint8_t vapic_lapic_tpr_threshold(const struct vapic *v);
bool vapic_lapic_extint(const struct vapic *v); /* INTR is asserted and reaches the core */
void vapic_lapic_local_events(struct vapic *v); /* consumes EV_LOCAL and the edges of LINT0/1 */
/* Latch an event; any thread; post_notify() is the caller's. */
void vapic_lapic_event_nmi(struct vapic *v);
void vapic_lapic_event_init(struct vapic *v);
void vapic_lapic_event_sipi(struct vapic *v, uint8_t vector);
/* Fires the LVT entry at `offset` once; false when masked or refused. */
bool vapic_lapic_fire_lvt(struct vapic *v, uint32_t offset);
void vapic_lapic_eval_lint(struct vapic *v); /* level-triggered LINT inputs */
uint32_t vapic_lapic_version(const struct vapic *v);

/* ---- lapic_access.c ---- */

void vapic_lapic_load_svr(struct vapic *v, uint32_t value); /* stores, without consequences */
uint32_t vapic_lapic_lvt_value(const struct vapic *v, uint32_t offset, uint32_t value);

/* Sends an IPI as a write of ICR does, without storing anything but the cleared busy bit. Owner. */
void vapic_lapic_send(struct vapic *v, uint32_t icr, uint32_t dest);
/* What a guest's write of a register does, whatever the page holds now; false: not writable. */
bool vapic_lapic_write(struct vapic *v, uint32_t offset, uint32_t value, struct vapic_now now);

/* ---- inhibit.c, alias.c, accel/accel.c: all of them return at once without a back end ---- */

#define INHIBIT_BIT(name) (1u << VAPIC_INHIBIT_##name)

/* Physical IDs below 100h, bits of a flat LDR, bits of 16 clusters. */
#define VAPIC_CLAIMS (256u + 8u + 64u)

/* The lock is held; `reason` is an enum vapic_inhibit. The caller is outside the guest. */
void vapic_inhibit_locked(struct vapic_vm *vm, uint32_t reason, bool set);
/* One more, or one less, vCPU waits for an interrupt window. No lock held, outside the guest. */
void vapic_inhibit_irqwin(struct vapic_vm *vm, bool more);
void vapic_inhibit_irqwin_locked(struct vapic_vm *vm, bool more); /* the same, lock held */
/* Withdraws the APIC access page for good. Under the lock. */
void vapic_inhibit_withdraw_page(struct vapic_vm *vm);
/* A vCPU's identity word changes. Under the lock. */
void vapic_alias_change(struct vapic_vm *vm, uint32_t id, uint64_t old, uint64_t new);
/* The destination map has been rebuilt: the three reasons that depend on it. Under the lock. */
void vapic_alias_evaluate(struct vapic_vm *vm);

/* Before the presence is announced: interrupt windows, pending changes of the inhibition. */
void vapic_accel_prepare(struct vapic *v, uint32_t can);
/* Has nothing changed since? After the presence was announced. */
bool vapic_accel_prepared(const struct vapic *v);
/* The entry wants an interrupt window that AVIC cannot open: asks for one. The owner is outside
 * after it, and has to look anew. */
bool vapic_accel_opens_window(struct vapic *v, const struct vapic_entry *entry);
void vapic_accel_enter(struct vapic *v, const struct vapic_entry *entry);
void vapic_accel_exit(struct vapic *v);
void vapic_accel_block(struct vapic *v);
bool vapic_accel_must_look(struct vapic *v); /* instead of sleeping */
void vapic_accel_unblock(struct vapic *v);
/* ID, LDR, DFR, mode or enablement changed; the map has them. Under the lock, owner. */
void vapic_accel_identity(struct vapic *v);
void vapic_accel_added(struct vapic *v);   /* under the lock */
void vapic_accel_removed(struct vapic *v); /* under the lock */

static inline bool is_active(const struct vapic *v)
{
    return vapic_load32(&v->active, VAPIC_RELAXED) != 0;
}

/* Does the processor deliver this vCPU's vectors when it runs now? Not those of L1 to L2. Owner. */
static inline bool by_hardware(const struct vapic *v)
{
    return is_active(v) && !v->accel->in_l2;
}

/* ---- nested/nested.c: only for vCPUs with nested support ---- */

/* A nested guest is current, and the library knows of its control block. Owner. */
static inline bool in_nested(const struct vapic *v)
{
    return v->accel != NULL && v->accel->in_l2 && v->accel->nested != NULL;
}

/* vapic_enter(): before the presence is announced; is nothing to be done again, announced; what
 * L1's and L2's interrupts make of the entry (false: it is not made). */
void vapic_nested_prepare(struct vapic *v, uint32_t can);
bool vapic_nested_prepared(const struct vapic *v);
bool vapic_nested_choose(struct vapic *v, uint32_t can, struct vapic_entry *entry);
/* HLT of L2: does it end; after the presence "blocked": must not the vCPU sleep? */
bool vapic_nested_wakes(const struct vapic *v, uint32_t can);
bool vapic_nested_must_look(const struct vapic *v);
/* A post of v->nested_vector: it is for L2. False: not any more. Any thread. */
bool vapic_nested_post(struct vapic *v, uint32_t vector, enum vapic_action *action);
/* Something for L2 waits for software to look. Only with nested support. Any thread; of what the
 * owner alone can know only when it asks. */
bool vapic_nested_posted(const struct vapic *v);
/* vapic_enter(), before all else: what came for L2 by hardware after L2 was left. */
void vapic_nested_late(struct vapic *v);
/* The vCPU is published as running, or withdrawn. */
void vapic_nested_load(struct vapic *v);
void vapic_nested_put(struct vapic *v, bool blocking);
/* Under the configuration lock, from vapic_remove(): hardware finds it no more, once every vCPU has
 * been outside; its pages are given back. */
void vapic_nested_withdrawn(struct vapic *v);
void vapic_nested_removed(struct vapic *v);

/* ---- lapic_base.c ---- */

int vapic_lapic_write_base(struct vapic *v, uint64_t value); /* a guest WRMSR */

/* ---- lapic_timer.c ---- */

void vapic_timer_write_lvt(struct vapic *v, uint32_t value);
void vapic_timer_write_initial(struct vapic *v, uint32_t count, struct vapic_now now);
void vapic_timer_write_divide(struct vapic *v, uint32_t value, struct vapic_now now);
void vapic_timer_write_deadline(struct vapic *v, uint64_t tsc, struct vapic_now now);
uint64_t vapic_timer_read_deadline(const struct vapic *v);
uint32_t vapic_timer_current(const struct vapic *v, struct vapic_now now);
void vapic_timer_stop(struct vapic *v);
void vapic_timer_run(struct vapic *v, struct vapic_now now); /* expiry */
void vapic_timer_soft_disabled(struct vapic *v);
void vapic_timer_retell(
    struct vapic *v); /* the host's timer is used up: tell it again if need be */
struct vapic_deadline vapic_timer_deadline(const struct vapic *v);
/* Bits of vapic.timer_flags. */
#define VAPIC_TIMER_ARMED      (1u << 0)
#define VAPIC_TIMER_REMEMBERED (1u << 1) /* expired under mask, REMEMBER_MASKED_TICK */
#define VAPIC_TIMER_EXPIRED    (1u << 2) /* the one-shot count ran out, for TDCR_REFIRES */
#define VAPIC_TIMER_FLAGS      7u
/* State load from a record: `when` is the TSC deadline or the nanoseconds that remain. */
void vapic_timer_load(struct vapic *v, uint8_t flags, uint64_t when, struct vapic_now now);
/* State load from an image: the count stands at `current`. */
void vapic_timer_restore(struct vapic *v, uint32_t current, struct vapic_now now);

/* ---- gsi.c, ioapic.c ---- */

/* Do acknowledge notifiers want to know of EOIs? */
static inline bool vapic_eoi_is_watched(const struct vapic_vm *vm)
{
    /* Acquire: pairs with the release in vapic_gsi_watch(). */
    return vapic_load32(&vm->watched, VAPIC_ACQUIRE) != 0;
}

/*
 * An EOI of `vector` on `v`; `level`: TMR said level-triggered; `suppressed`: SVR[12] keeps a level
 * one from the I/O APICs. Of edge-triggered vectors only acknowledge notifiers (vapic_gsi_watch)
 * want to know; when there are none for edge pins this must cost one load and a branch.
 */
void vapic_eoi_from_vcpu(struct vapic *v, uint8_t vector, bool level, bool suppressed);

/*
 * Around a change of what decides whose EOIs software must see: the message of an I/O APIC pin or
 * of a route, or a watch. Any thread, also several at once. `changed` false: nothing was. Who has
 * looked before the end sees by the generation that he must look again; until the end, who uses the
 * new state sees that not everybody can have looked yet. Only APICv asks.
 */
static inline void vapic_routes_begin(struct vapic_vm *vm)
{
    if (UNLIKELY(vm->post == POST_SPLIT))
        vapic_add32(&vm->routes_changing, 1, VAPIC_SEQ_CST);
}

static inline void vapic_routes_end(struct vapic_vm *vm, bool changed)
{
    if (LIKELY(vm->post != POST_SPLIT))
        return;
    if (changed)
        vapic_add32(&vm->routes_generation, 1, VAPIC_SEQ_CST);
    vapic_add32(&vm->routes_changing, UINT32_MAX, VAPIC_SEQ_CST);
}

/* Vectors whose EOI must not pass unnoticed, according to pins and routes. */
struct vapic_eoi_vectors {
    uint64_t here[4];    /* of level-triggered or watched ones that concern the vCPU */
    uint64_t watched[4]; /* of all watched ones */
};

/* Collects them for `v`, masked entries too. gsi.c, and ioapic.c for the pins. Owner, no lock. */
void vapic_eoi_vectors(const struct vapic *v, struct vapic_eoi_vectors *set);
void vapic_ioapic_eoi_vectors(const struct vapic_ioapic *io, const struct vapic *v,
                              struct vapic_eoi_vectors *set);
void vapic_eoi_vectors_add(const struct vapic *v, const struct vapic_msg *msg, bool watched,
                           struct vapic_eoi_vectors *set);

/* Destinations changed: tries again the pins whose message nobody accepted. No lock held. */
void vapic_ioapic_map_changed(struct vapic_vm *vm);

/* One I/O APIC's part of an EOI of `vector`: acknowledges; with `broadcast` clears remote IRR. */
void vapic_ioapic_eoi(struct vapic_ioapic *io, uint8_t vector, bool broadcast);

/* Tells the watcher of `gsi`, if any: lowers the resampled source, calls host.gsi_ack(). */
void vapic_gsi_acknowledge(struct vapic_vm *vm, uint32_t gsi);

/* The source that an acknowledge of `gsi` lowers, as a mask; 0 when it is not resampled. */
uint32_t vapic_gsi_resampled(const struct vapic_vm *vm, uint32_t gsi);

/* What vapic_gsi_set() returns for a message that was sent. */
int vapic_gsi_outcome(struct vapic_sent sent);

/* Routes the GSIs of a new I/O APIC that have no route. With the configuration lock held. */
void vapic_gsi_route_pins(struct vapic_ioapic *io);

/* Destination field and ICR bits of MSI address and data; false when not deliverable. */
bool vapic_msi_decode(const struct vapic_vm *vm, uint64_t address, uint32_t data,
                      struct vapic_msg *msg);

#endif
