/* SPDX-License-Identifier: MIT */
/*
 * One vCPU's local APIC: life cycle, priority, acceptance and EOI, local interrupts, errors.
 *
 * The registers live in the page; beside them `isr_words` and `irr_words` remember which words of
 * ISR and IRR are not zero, so that finding the highest vector costs one bit scan and one load
 * instead of eight loads from a 4 KiB aligned page. Both are hints of the owner, derived from the
 * page by vapic_lapic_recount() whenever somebody else may have written it.
 *
 * Everything here runs on the owner's thread but for the last section, which any thread may call.
 */
#include "bytes.h"
#include "internal.h"

/* ---- Life cycle ---- */

static const uint32_t known_features = VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE |
                                       VAPIC_FEATURE_CMCI | VAPIC_FEATURE_EOI_SUPPRESS |
                                       VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT;

/* 6 names the CMCI entry, so one is not to be had without the other [SDM3 12.4.8]. */
static bool max_lvt_valid(const struct vapic_config *c)
{
    if (c->max_lvt == 0)
        return true;
    if (c->features & VAPIC_FEATURE_CMCI)
        return c->max_lvt == 6;
    return c->max_lvt >= 3 && c->max_lvt <= 5;
}

static bool config_valid(const struct vapic_config *c)
{
    return c->id != APIC_DEST_ALL_32 && (c->features & ~known_features) == 0 && max_lvt_valid(c) &&
           (c->version == 0 || (c->version >= 0x10 && c->version <= 0x15)) &&
           (c->phys_bits == 0 || (c->phys_bits >= 32 && c->phys_bits <= 52));
}

int vapic_init(struct vapic *v, size_t v_size, struct vapic_vm *vm,
               const struct vapic_config *config, void *page)
{
    if (v_size != sizeof(*v))
        return VAPIC_E_SIZE;
    if (v == NULL || vm == NULL || config == NULL || !config_valid(config) || page == NULL ||
        ((uintptr_t)page & (APIC_PAGE_SIZE - 1)) != 0 || ((uintptr_t)v & 63) != 0)
        return VAPIC_E_ARG;
    zero_bytes(v, sizeof(*v));
    zero_bytes(page, APIC_PAGE_SIZE);
    v->vm = vm;
    v->page = page;
    v->id = config->id;
    v->index = VAPIC_NO_INDEX;
    v->features = config->features;
    v->version = config->version ? config->version : 0x14;
    v->max_lvt = config->max_lvt;
    if (v->max_lvt == 0)
        v->max_lvt = config->features & VAPIC_FEATURE_CMCI ? 6 : 5;
    v->features |= (v->max_lvt >= 4 ? FEATURE_PMC : 0) | (v->max_lvt >= 5 ? FEATURE_THERMAL : 0);
    v->phys_bits = config->phys_bits ? config->phys_bits : 52;
    v->bsp = config->bsp;
    vapic_reset(v);
    return VAPIC_OK;
}

uint32_t vapic_lapic_version(const struct vapic *v)
{
    uint32_t lvr = v->version;

    lvr |= (uint32_t)v->max_lvt << APIC_LVR_MAXLVT_SHIFT;
    if (v->features & VAPIC_FEATURE_EOI_SUPPRESS)
        lvr |= APIC_LVR_EOI_SUPPRESS;
    if (v->features & VAPIC_FEATURE_AMD_EXT)
        lvr |= APIC_LVR_EXT_SPACE;
    return lvr;
}

/* ID and LDR in the format of the mode [SDM3 12.12.5]; INIT keeps them where the manual says so. */
static void reset_identity(struct vapic *v, bool init, uint32_t kept_id, uint32_t kept_ldr)
{
    if (init)
        set_reg(v, APIC_ID, kept_id);
    else
        set_reg(v, APIC_ID, (v->id & 0xFF) << 24);
    if (init && in_x2apic(v))
        set_reg(v, APIC_LDR, kept_ldr);
}

static void drop_posted(struct vapic *v)
{
    for (uint32_t i = 0; i < 4; i++) {
        vapic_xchg64(&v->pid.pir[i], 0, VAPIC_SEQ_CST);
        vapic_store64(&v->level[i], 0, VAPIC_RELAXED);
        if (UNLIKELY(v->accel != NULL))
            vapic_store64(&v->accel->edge[i], 0, VAPIC_RELAXED);
    }
}

/* RESET and INIT values of every register [SDM3 12.4.7.1] [SDM3 12.4.7.3]. */
void vapic_lapic_reset_registers(struct vapic *v, bool init)
{
    uint32_t id = reg(v, APIC_ID), ldr = reg(v, APIC_LDR);
    const struct vapic_reg *row;

    drop_posted(v);
    for (uint32_t n = 0; (row = vapic_reg_row(n)) != NULL; n++)
        for (uint32_t i = 0; i < row->count; i++)
            set_reg(v, row->offset + 16 * i, has_reg(v, row) ? (init ? row->init : row->reset) : 0);
    reset_identity(v, init, id, ldr);
    set_reg(v, APIC_LVR, vapic_lapic_version(v));
    if (knob(v->vm, VAPIC_KNOB_LINT0_EXTINT) && v->apic_base & APIC_BASE_BSP)
        set_reg(v, APIC_LVT_LINT0, APIC_DM_EXTINT);
    if (UNLIKELY(v->vm->post == POST_SPLIT))
        set_reg(v, APIC_ICR + 4, 0);
    v->fresh = true;
    v->isr_touched = true;
    v->esr_latch = 0;
    v->injected_kind = VAPIC_INJECT_NONE;
    if (UNLIKELY(v->pv != NULL))
        vapic_pv_reset(v);
    vapic_fabric_forget_load(v);
    vapic_timer_stop(v);
    vapic_lapic_recount(v);
}

void vapic_reset(struct vapic *v)
{
    uint64_t base = APIC_DEFAULT_BASE | (v->bsp ? APIC_BASE_BSP : 0);

    if (!knob(v->vm, VAPIC_KNOB_RESET_DISABLED))
        base |= APIC_BASE_EN;
    v->apic_base = base;
    vapic_lapic_reset_registers(v, false);
    /* The LINT inputs are wires: their level survives. */
    vapic_and32(&v->events, EV_LINE0 | EV_LINE1, VAPIC_SEQ_CST);
    if (v->bsp)
        v->activity = VAPIC_RUNNING;
    else if (knob(v->vm, VAPIC_KNOB_SIPI_AFTER_RESET))
        v->activity = VAPIC_WAIT_FOR_SIPI;
    else
        v->activity = VAPIC_UNINITIALIZED;
    if (v->index != VAPIC_NO_INDEX)
        vapic_fabric_update(v);
}

uint32_t vapic_id(const struct vapic *v)
{
    return v->id;
}

uint32_t vapic_index(const struct vapic *v)
{
    return vapic_load32(&v->index, VAPIC_RELAXED);
}

uint64_t vapic_base(const struct vapic *v)
{
    return v->apic_base;
}

enum vapic_activity vapic_activity(const struct vapic *v)
{
    return (enum vapic_activity)v->activity;
}

/* Neither RESET nor INIT makes the bootstrap processor wait. */
int vapic_load_activity(struct vapic *v, enum vapic_activity activity)
{
    bool waits = activity == VAPIC_WAIT_FOR_SIPI || activity == VAPIC_UNINITIALIZED;

    if (v == NULL || (unsigned)activity > VAPIC_UNINITIALIZED)
        return VAPIC_E_ARG;
    if (waits && v->apic_base & APIC_BASE_BSP)
        return VAPIC_E_ARG;
    v->activity = (uint8_t)activity;
    return VAPIC_OK;
}

void vapic_count_vectors(struct vapic *v, uint64_t *counts)
{
    v->vector_counts = counts;
}

void vapic_get_stats(const struct vapic *v, struct vapic_stats *stats)
{
    *stats = v->stats;
    stats->ipis_received = vapic_load64(&v->ipis_received, VAPIC_RELAXED);
    stats->msis_received = vapic_load64(&v->msis_received, VAPIC_RELAXED);
    stats->posts_unnotified = vapic_load64(&v->posts_unnotified, VAPIC_RELAXED);
}

/* ---- IRR, ISR, priority [SDM3 12.8.3] [SDM3 12.8.4] ---- */

/* In an AVIC VM IRR and TMR are written by others at any time. */
static inline bool shares_irr(const struct vapic *v)
{
    return UNLIKELY(v->vm->post == POST_PAGE);
}

/* ISR is nobody's but the owner's, and its processor's while it is in the guest. */
static inline void set_vector(struct vapic *v, uint32_t base, uint8_t *words, uint32_t vector)
{
    uint32_t offset = base + (vector >> 5) * 16u;

    if (base != APIC_ISR && shares_irr(v))
        set_reg_bits(v, offset, 1u << (vector & 31));
    else
        set_reg(v, offset, reg(v, offset) | 1u << (vector & 31));
    *words |= (uint8_t)(1u << (vector >> 5));
}

static inline void clear_vector(struct vapic *v, uint32_t base, uint8_t *words, uint32_t vector)
{
    uint32_t offset = base + (vector >> 5) * 16u;
    uint32_t value = reg(v, offset) & ~(1u << (vector & 31));

    if (base != APIC_ISR && shares_irr(v))
        clear_reg_bits(v, offset, 1u << (vector & 31));
    else
        set_reg(v, offset, value);
    if (value == 0)
        *words &= (uint8_t) ~(1u << (vector >> 5));
}

static inline void update_ppr(struct vapic *v)
{
    uint32_t tpr = reg(v, APIC_TPR);
    int isr = highest_vector(v, APIC_ISR, v->isr_words);
    uint32_t isr_class = isr < 0 ? 0 : (uint32_t)isr & 0xF0;

    /* When both classes are equal PPR[3:0] is model specific [SDM3 12.8.3.1]: TPR's here. */
    set_reg(v, APIC_PPR, (tpr & 0xF0) >= isr_class ? tpr : isr_class);
}

void vapic_lapic_update_ppr(struct vapic *v)
{
    update_ppr(v);
}

static ALWAYS_INLINE uint32_t nonzero_bit(const struct vapic *v, uint32_t base, uint32_t word,
                                          int order)
{
    const uint8_t *at = v->page + base + 16 * word;

    return (uint32_t)(vapic_load32((const uint32_t *)(const void *)at, order) != 0) << word;
}

/* Unrolled: accelerated vCPUs come here with every entry and exit. */
static ALWAYS_INLINE uint8_t nonzero_words(const struct vapic *v, uint32_t base, int order)
{
    uint32_t low = nonzero_bit(v, base, 0, order) | nonzero_bit(v, base, 1, order) |
                   nonzero_bit(v, base, 2, order) | nonzero_bit(v, base, 3, order);
    uint32_t high = nonzero_bit(v, base, 4, order) | nonzero_bit(v, base, 5, order) |
                    nonzero_bit(v, base, 6, order) | nonzero_bit(v, base, 7, order);

    return (uint8_t)(low | high);
}

void vapic_lapic_recount(struct vapic *v)
{
    v->isr_words = nonzero_words(v, APIC_ISR, VAPIC_RELAXED);
    v->irr_words = nonzero_words(v, APIC_IRR, VAPIC_RELAXED);
    update_ppr(v);
}

/* AMD's interrupt enable registers hold vectors back in IRR [APM2 16.7.2]. */
static int highest_enabled(const struct vapic *v)
{
    for (uint32_t n = 8; n-- > 0;) {
        uint32_t value = reg(v, APIC_IRR + 16 * n) & reg(v, APIC_IER + 16 * n);

        if (value)
            return (int)(32 * n + highest_bit(value));
    }
    return -1;
}

static inline int highest_irr(const struct vapic *v)
{
    /* With AVIC a guest reaches that word of the page whether or not it has the register. */
    if (UNLIKELY(reg(v, APIC_EACR) & APIC_EXT_IER) && v->features & VAPIC_FEATURE_AMD_EXT)
        return highest_enabled(v);
    return highest_vector(v, APIC_IRR, v->irr_words);
}

/*
 * The highest vector that IRR holds and nothing but priority keeps back, or -1. Vectors below 16
 * have class 0 and can never exceed PPR, so they need no test of their own.
 */
static inline int requested(const struct vapic *v)
{
    if (!apic_enabled(v))
        return -1;
    /* IRR contents are held while software-disabled [SDM3 12.4.7.2]. */
    if (!sw_enabled(v) && !knob(v->vm, VAPIC_KNOB_DELIVER_SOFT_DISABLED))
        return -1;
    return highest_irr(v);
}

int vapic_lapic_pending(const struct vapic *v)
{
    int vector = requested(v);

    return vector >= 0 && ((uint32_t)vector & 0xF0) > (reg(v, APIC_PPR) & 0xF0) ? vector : -1;
}

uint8_t vapic_lapic_tpr_threshold(const struct vapic *v)
{
    int vector = requested(v), isr;

    if (vector < 0 || (uint32_t)vector >> 4 > reg(v, APIC_TPR) >> 4)
        return 0;
    isr = highest_vector(v, APIC_ISR, v->isr_words);
    return isr >= 0 && isr >> 4 >= vector >> 4 ? 0 : (uint8_t)(vector >> 4);
}

static NOINLINE bool accept_into_shared(struct vapic *v, uint32_t vector, bool level)
{
    uint32_t tmr = APIC_TMR + (vector >> 5) * 16u;
    uint32_t bit = 1u << (vector & 31);

    if (level)
        set_reg_bits(v, tmr, bit);
    else
        clear_reg_bits(v, tmr, bit);
    set_vector(v, APIC_IRR, &v->irr_words, vector);
    return true;
}

static inline bool accept_into_irr(struct vapic *v, uint32_t vector, bool level)
{
    uint32_t word = (vector >> 5) * 16u, bit = 1u << (vector & 31), tmr;

    if (shares_irr(v))
        return accept_into_shared(v, vector, level);
    tmr = reg(v, APIC_TMR + word) & ~bit;
    set_reg(v, APIC_TMR + word, tmr | (level ? bit : 0));
    set_reg(v, APIC_IRR + word, reg(v, APIC_IRR + word) | bit);
    v->irr_words |= (uint8_t)(1u << (vector >> 5));
    return true;
}

static NOINLINE bool refuse_illegal(struct vapic *v)
{
    vapic_lapic_error(v, APIC_ESR_RECV_ILLEGAL);
    return false;
}

bool vapic_lapic_accept_local(struct vapic *v, uint8_t vector, bool level)
{
    if (!apic_enabled(v) || !sw_enabled(v))
        return false;
    if (UNLIKELY(vector < APIC_FIRST_VECTOR && knob(v->vm, VAPIC_KNOB_ESR)))
        return refuse_illegal(v);
    return accept_into_irr(v, vector, level);
}

/* Vectors 0-15 are not accepted but reported [SDM3 12.5.2]. */
static uint64_t strip_illegal(struct vapic *v, uint64_t pir)
{
    uint64_t illegal = pir & 0xFFFF;

    if (LIKELY(illegal == 0) || !knob(v->vm, VAPIC_KNOB_ESR))
        return pir;
    vapic_lapic_error(v, APIC_ESR_RECV_ILLEGAL);
    return pir & ~illegal;
}

static inline void fold(struct vapic *v, uint32_t word, uint32_t pir, uint32_t level)
{
    if (pir == 0)
        return;
    set_reg(v, APIC_TMR + 16 * word, (reg(v, APIC_TMR + 16 * word) & ~pir) | (level & pir));
    set_reg(v, APIC_IRR + 16 * word, reg(v, APIC_IRR + 16 * word) | pir);
    v->irr_words |= (uint8_t)(1u << word);
}

/*
 * AVIC: what was posted is in the page already; only the hint is missing. Vectors below 16 that
 * were posted there have been checked by whoever posted them, and no processor delivers them.
 *
 * SEQ_CST: the owner's second step, behind the exchange in announce() or that of the physical
 * table's entry; the sender's is a SEQ_CST operation on IRR, then a look at one of these. It
 * acquires the trigger mode, too.
 */
static void harvest_page(struct vapic *v)
{
    for (uint32_t i = 0; i < 8 && UNLIKELY(v->fresh); i++)
        clear_reg_bits(v, APIC_IRR + 16 * i, 0xFFFFFFFF);
    v->irr_words = nonzero_words(v, APIC_IRR, VAPIC_SEQ_CST);
}

/* Acquire: what the senders wrote before they posted. */
static inline uint64_t take_word(uint64_t *word)
{
    return vapic_load64(word, VAPIC_RELAXED) != 0 ? vapic_xchg64(word, 0, VAPIC_ACQUIRE) : 0;
}

static inline uint64_t any_of(const uint64_t set[4])
{
    return vapic_load64(&set[0], VAPIC_RELAXED) | vapic_load64(&set[1], VAPIC_RELAXED) |
           vapic_load64(&set[2], VAPIC_RELAXED) | vapic_load64(&set[3], VAPIC_RELAXED);
}

/* The usual case of an entry after an exit for something else. */
static inline bool nothing_split(const struct vapic *v)
{
    return (any_of(v->pid.pir) | any_of(v->level) |
            (v->accel != NULL ? any_of(v->accel->edge) : 0)) == 0;
}

/*
 * APICv: PIR holds edges, which hardware may have taken over before; level[] and edge[] hold what
 * only this function takes. A vector that is pending as both was level-triggered last or first:
 * the level counts, or its EOI would be lost.
 */
static void harvest_split(struct vapic *v)
{
    if (LIKELY(nothing_split(v)))
        return;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t edge = take_word(&v->pid.pir[i]), level = take_word(&v->level[i]);

        if (v->accel != NULL)
            edge |= take_word(&v->accel->edge[i]);
        if (LIKELY((edge | level) == 0) || UNLIKELY(v->fresh))
            continue;
        if (i == 0) {
            edge = strip_illegal(v, edge);
            level = strip_illegal(v, level);
        }
        fold(v, 2 * i, (uint32_t)(edge | level), (uint32_t)level);
        fold(v, 2 * i + 1, (uint32_t)((edge | level) >> 32), (uint32_t)(level >> 32));
    }
}

static NOINLINE void harvest_accel(struct vapic *v)
{
    if (v->vm->post == POST_PAGE)
        harvest_page(v);
    else
        harvest_split(v);
}

/*
 * The last step of the owner's half of protocol "post" (internal.h). The exchange that takes a word
 * of PIR acquires what its senders wrote before, the trigger modes. ON is not touched: only
 * vapic_enter() clears it, and before it comes here, so that a harvest for a guest's read of IRR
 * cannot hide from it, or from vapic_block(), that something has arrived.
 *
 * A sender that found the APIC enabled may post after a RESET or INIT that came in between. RESET
 * and INIT forget what was pending, and until the guest enables the APIC again nothing is accepted:
 * so what is found until then is of the time before, and is forgotten too.
 */
void vapic_lapic_harvest(struct vapic *v)
{
    if (UNLIKELY(v->vm->post != POST_PIR)) {
        harvest_accel(v);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        if (vapic_load64(&v->pid.pir[i], VAPIC_RELAXED) == 0)
            continue;

        uint64_t pir = vapic_xchg64(&v->pid.pir[i], 0, VAPIC_ACQUIRE);
        uint64_t level = vapic_load64(&v->level[i], VAPIC_RELAXED);

        if (UNLIKELY(v->fresh))
            continue;
        if (i == 0)
            pir = strip_illegal(v, pir);
        fold(v, 2 * i, (uint32_t)pir, (uint32_t)level);
        fold(v, 2 * i + 1, (uint32_t)(pir >> 32), (uint32_t)(level >> 32));
    }
}

/* ---- Acknowledge and EOI ---- */

void vapic_lapic_ack(struct vapic *v, uint8_t vector)
{
    v->isr_touched = true;
    clear_vector(v, APIC_IRR, &v->irr_words, vector);
    set_vector(v, APIC_ISR, &v->isr_words, vector);
    update_ppr(v);
}

void vapic_lapic_unack(struct vapic *v, uint8_t vector)
{
    v->isr_touched = true;
    clear_vector(v, APIC_ISR, &v->isr_words, vector);
    set_vector(v, APIC_IRR, &v->irr_words, vector);
    update_ppr(v);
}

/* A level-triggered LINT0 is re-armed by the EOI of its vector [SDM3 12.5.1]. */
static void lint_eoi(struct vapic *v, uint8_t vector)
{
    uint32_t lvt = reg(v, APIC_LVT_LINT0);

    if (!(lvt & APIC_LVT_RIRR) || (lvt & APIC_LVT_VECTOR) != vector)
        return;
    set_reg(v, APIC_LVT_LINT0, lvt & ~APIC_LVT_RIRR);
    vapic_lapic_eval_lint(v);
}

/* What others have to do with an EOI: LINT0, I/O APICs, notifiers, the host. */
static NOINLINE void tell_of_eoi(struct vapic *v, uint8_t vector, bool level)
{
    bool suppressed = (reg(v, APIC_SVR) & APIC_SVR_EOI_SUPPRESS) != 0;

    TRACE(v->vm, EOI, v->index, v->id, vector, 0, 0);
    if (level) {
        v->stats.eois_broadcast += !suppressed;
        lint_eoi(v, vector);
    }
    vapic_eoi_from_vcpu(v, vector, level, suppressed);
}

/* [SDM3 12.8.5], of a vector in service. */
static ALWAYS_INLINE void end_of_interrupt(struct vapic *v, uint8_t vector)
{
    bool level = vector_bit(v, APIC_TMR, vector);

    if (MUTANT(LEVEL_EOI_DROPPED))
        level = false;
    clear_vector(v, APIC_ISR, &v->isr_words, vector);
    v->isr_touched = true;
    update_ppr(v);
    v->stats.eois++;
    if (UNLIKELY(level || vapic_eoi_is_watched(v->vm) || vapic_traced(v->vm)))
        tell_of_eoi(v, vector, level);
}

void vapic_lapic_auto_eoi(struct vapic *v, uint8_t vector)
{
    clear_vector(v, APIC_ISR, &v->isr_words, vector);
    update_ppr(v);
}

void vapic_eoi(struct vapic *v)
{
    int vector = highest_vector(v, APIC_ISR, v->isr_words);

    if (vector >= 0)
        end_of_interrupt(v, (uint8_t)vector);
}

/*
 * AVIC's EOI of a level-triggered vector leaves the ISR bit to software or not, by processor; APICv
 * has cleared it. Either way the register was written once, and the vector is not in service after.
 */
void vapic_trap_eoi(struct vapic *v, uint8_t vector)
{
    bool level = vector_bit(v, APIC_TMR, vector);

    if (vector_bit(v, APIC_ISR, vector)) {
        end_of_interrupt(v, vector);
        return;
    }
    v->stats.eois++;
    tell_of_eoi(v, vector, level);
}

/* AMD's specific EOI, out of order [APM2 16.7.1]. */
void vapic_lapic_specific_eoi(struct vapic *v, uint8_t vector)
{
    /* A vector that is not in service is ignored. */
    if (reg(v, APIC_EACR) & APIC_EXT_SEOI && vector_bit(v, APIC_ISR, vector))
        end_of_interrupt(v, vector);
}

/* ---- Errors [SDM3 12.5.3] ---- */

/*
 * Every error is latched; the visible register is a copy made by a write. A bit that is latched
 * already does not interrupt again. An illegal vector in the error entry itself is one more error,
 * and the end of it: no recursion.
 */
void vapic_lapic_error(struct vapic *v, uint32_t esr_bit)
{
    uint32_t lvt = reg(v, APIC_LVT_ERROR);

    if (!knob(v->vm, VAPIC_KNOB_ESR) || v->esr_latch & esr_bit)
        return;
    v->esr_latch |= (uint8_t)esr_bit;
    if (lvt & APIC_LVT_MASKED || !apic_enabled(v) || !sw_enabled(v))
        return;
    if ((lvt & APIC_LVT_VECTOR) < APIC_FIRST_VECTOR) {
        v->esr_latch |= APIC_ESR_RECV_ILLEGAL;
        return;
    }
    accept_into_irr(v, lvt & APIC_LVT_VECTOR, false);
    v->stats.lvt_events++;
}

/* ---- Local vector table [SDM3 12.5.1] ---- */

static bool fire(struct vapic *v, uint32_t lvt)
{
    switch (lvt & APIC_LVT_DM) {
    case APIC_DM_FIXED:
        return vapic_lapic_accept_local(v, lvt & APIC_LVT_VECTOR, false);
    case APIC_DM_NMI:
        vapic_lapic_event_nmi(v);
        return true;
    case APIC_DM_SMI:
        vapic_or32(&v->events, EV_SMI, VAPIC_SEQ_CST);
        return true;
    case APIC_DM_INIT:
        vapic_lapic_event_init(v);
        return true;
    default:
        return false; /* ExtINT is a level (vapic_lapic_extint()); the rest is reserved */
    }
}

bool vapic_lapic_fire_lvt(struct vapic *v, uint32_t offset)
{
    uint32_t lvt = reg(v, offset);

    if (!apic_enabled(v) || lvt & APIC_LVT_MASKED)
        return false;
    /* The timer has mode bits where others have nothing, but neither has a delivery mode. */
    if (offset == APIC_LVT_TIMER)
        lvt &= ~APIC_LVT_DM;
    if (!fire(v, lvt))
        return false;
    if (offset == APIC_LVT_TIMER)
        v->stats.timer_ticks++;
    else
        v->stats.lvt_events++;
    /* Intel processors mask the entry on delivery [SDM3 12.5.1]; AMD's do not. */
    if (offset == APIC_LVT_PMC && !(v->features & VAPIC_FEATURE_AMD))
        set_reg(v, offset, lvt | APIC_LVT_MASKED);
    return true;
}

void vapic_lapic_eval_lint(struct vapic *v)
{
    uint32_t lvt = reg(v, APIC_LVT_LINT0);
    uint32_t must = APIC_LVT_LEVEL;

    if (!(vapic_load32(&v->events, VAPIC_ACQUIRE) & EV_LINE0) ||
        (lvt & (APIC_LVT_DM | APIC_LVT_LEVEL | APIC_LVT_MASKED | APIC_LVT_RIRR)) != must)
        return;
    if (vapic_lapic_accept_local(v, lvt & APIC_LVT_VECTOR, true)) {
        set_reg(v, APIC_LVT_LINT0, lvt | APIC_LVT_RIRR);
        v->stats.lvt_events++;
    }
}

static bool passes_extint(const struct vapic *v, uint32_t offset)
{
    return (reg(v, offset) & (APIC_LVT_DM | APIC_LVT_MASKED)) == APIC_DM_EXTINT;
}

/* INTR reaches the core directly while there is no APIC in between [SDM3 12.4.3]. */
bool vapic_lapic_extint(const struct vapic *v)
{
    uint32_t lines = vapic_load32(&v->events, VAPIC_ACQUIRE);

    if (!apic_enabled(v))
        return (lines & EV_LINE0) != 0;
    return (lines & EV_LINE0 && passes_extint(v, APIC_LVT_LINT0)) ||
           (lines & EV_LINE1 && passes_extint(v, APIC_LVT_LINT1));
}

/* A rise of LINT0 or LINT1. Level triggering exists on LINT0 only [SDM3 12.5.1]. */
static void lint_rose(struct vapic *v, unsigned n)
{
    uint32_t offset = n ? APIC_LVT_LINT1 : APIC_LVT_LINT0;
    uint32_t lvt = reg(v, offset);

    if (!apic_enabled(v)) {
        if (n == 1)
            vapic_lapic_event_nmi(v);
        return;
    }
    if (n == 0 && lvt & APIC_LVT_LEVEL && (lvt & APIC_LVT_DM) == APIC_DM_FIXED)
        vapic_lapic_eval_lint(v);
    else
        vapic_lapic_fire_lvt(v, offset);
}

/* Offsets of the local sources in the order of their event bits. */
static const uint16_t local_lvts[] = {APIC_LVT_THERMAL,  APIC_LVT_PMC,       APIC_LVT_CMCI,
                                      APIC_EILVT,        APIC_EILVT + 0x10u, APIC_EILVT + 0x20u,
                                      APIC_EILVT + 0x30u};

#define LOCAL_LVTS (sizeof(local_lvts) / sizeof(local_lvts[0]))
_Static_assert((1u << LOCAL_LVTS) - 1 == EV_LOCAL >> EV_LOCAL_SHIFT, "one bit per local source");

void vapic_lapic_local_events(struct vapic *v)
{
    uint32_t events = vapic_and32(&v->events, ~EV_OWNER, VAPIC_SEQ_CST);

    for (uint32_t i = 0; i < LOCAL_LVTS; i++)
        if (events & 1u << (EV_LOCAL_SHIFT + i) && has_reg(v, vapic_reg_at(local_lvts[i])))
            vapic_lapic_fire_lvt(v, local_lvts[i]);
    if (events & EV_ILLEGAL)
        vapic_lapic_error(v, APIC_ESR_RECV_ILLEGAL);
    if (events & EV_EDGE0)
        lint_rose(v, 0);
    if (events & EV_EDGE1)
        lint_rose(v, 1);
}

/* ---- Events, from any thread ---- */

/*
 * One NMI may wait behind the one in service. Two senders at once, with none in service, both
 * count: the first is taken at once and the second waits [SDM3 7.7.1]. vapic_enter() reduces the
 * count to one while an NMI is in service.
 */
void vapic_lapic_event_nmi(struct vapic *v)
{
    uint32_t old = vapic_load32(&v->events, VAPIC_RELAXED);

    if (MUTANT(NMI_LATCHED_BY_STORE)) {
        vapic_store32(&v->events, (old & ~EV_NMI) | EV_NMI_ONE, VAPIC_SEQ_CST);
        return;
    }
    while ((old & EV_NMI) < 2u << EV_NMI_SHIFT &&
           !vapic_cas32(&v->events, &old, old + (1u << EV_NMI_SHIFT), VAPIC_SEQ_CST))
        ;
}

/* INIT drops a SIPI that was latched before it: that one was for the life before. */
void vapic_lapic_event_init(struct vapic *v)
{
    uint32_t old = vapic_load32(&v->events, VAPIC_RELAXED);

    if (MUTANT(INIT_KEEPS_SIPI)) {
        vapic_or32(&v->events, EV_INIT, VAPIC_SEQ_CST);
        return;
    }
    while (!vapic_cas32(&v->events, &old, (old & ~(EV_SIPI | EV_SIPI_VECTOR)) | EV_INIT,
                        VAPIC_SEQ_CST))
        ;
}

/* The vector of the last SIPI wins; vector and latch change together. */
void vapic_lapic_event_sipi(struct vapic *v, uint8_t vector)
{
    uint32_t old = vapic_load32(&v->events, VAPIC_RELAXED), new;

    do {
        new = (old & ~EV_SIPI_VECTOR) | EV_SIPI | (uint32_t)vector << EV_SIPI_VECTOR_SHIFT;
    } while (!vapic_cas32(&v->events, &old, new, VAPIC_SEQ_CST));
}

enum vapic_action vapic_nmi(struct vapic *v)
{
    vapic_lapic_event_nmi(v);
    return post_notify(v);
}

enum vapic_action vapic_set_lint(struct vapic *v, unsigned n, bool level)
{
    uint32_t line = n ? EV_LINE1 : EV_LINE0, edge = n ? EV_EDGE1 : EV_EDGE0;
    uint32_t old;

    if (n > 1)
        return VAPIC_ACTION_NONE;
    if (!level) {
        vapic_and32(&v->events, ~line, VAPIC_SEQ_CST);
        return VAPIC_ACTION_NONE;
    }
    old = vapic_load32(&v->events, VAPIC_RELAXED);
    do {
        if (old & line)
            return VAPIC_ACTION_NONE;
    } while (!vapic_cas32(&v->events, &old, old | line | edge, VAPIC_SEQ_CST));
    return post_notify(v);
}

enum vapic_action vapic_local_event(struct vapic *v, uint32_t lvt)
{
    for (uint32_t i = 0; i < LOCAL_LVTS; i++) {
        if (local_lvts[i] != lvt)
            continue;
        vapic_or32(&v->events, 1u << (EV_LOCAL_SHIFT + i), VAPIC_SEQ_CST);
        return post_notify(v);
    }
    return VAPIC_ACTION_NONE;
}

enum vapic_action vapic_poke(struct vapic *v)
{
    return post_notify(v);
}

enum vapic_action vapic_timer_expired(struct vapic *v)
{
    vapic_or32(&v->events, EV_TIMER, VAPIC_SEQ_CST);
    if (MUTANT(TIMER_TELLS_NOBODY))
        return VAPIC_ACTION_NONE;
    return post_notify(v);
}
