/* SPDX-License-Identifier: MIT */
/*
 * Paravirtual companions: life cycle, the shared word of lazy EOI, the MSRs that place it.
 *
 * The word has two writers. The library sets bit 0 while the vCPU is outside the guest, the guest
 * clears it while it is inside, and the library clears it when the vCPU is outside again; what it
 * finds then says whether the guest has ended the vector. The vCPU's own guest code never runs at
 * the same time as this file, but another vCPU, or a device, can write the word whenever it likes:
 * hence locked operations, and hence an EOI only of the vector for which the bit was set and only
 * if that is still the highest in service.
 *
 * What makes it right to leave ISR stale while the guest runs: nothing that anybody else does
 * depends on it. IRR is empty, so PPR keeps nothing back; whoever posts something now finds the
 * vCPU in the guest and kicks it, and vapic_exit() takes notice before anything is decided
 * (protocol "post", internal.h). Every register that could show or change ISR exits. The vector is
 * edge- triggered and nobody watches EOIs, so no I/O APIC and no device waits for its end.
 */
#include "bytes.h"
#include "internal.h"

#define WORD_EOI 1u /* bit 0: no EOI is required */

static const uint32_t known_features = VAPIC_PV_EOI | VAPIC_PV_SEND_IPI | VAPIC_PV_HYPERV;

/* ---- The shared word ---- */

static void touched(struct vapic *v, uint64_t gpa)
{
    if (v->pv->config.dirty != NULL)
        v->pv->config.dirty(v->vm->ctx, v, gpa);
}

/* May the end of the highest vector in service go unnoticed until the next exit? */
static bool may_arm(const struct vapic *v, int vector)
{
    return vector >= 0 && (v->irr_words == 0 || MUTANT(PV_EOI_HIDES_PENDING)) &&
           (!vector_bit(v, APIC_TMR, (uint32_t)vector) || MUTANT(PV_EOI_OF_LEVEL)) &&
           !vapic_eoi_is_watched(v->vm) && (!is_active(v) || MUTANT(PV_EOI_WHILE_ACTIVE));
}

static void arm(struct vapic *v)
{
    struct vapic_pv *pv = v->pv;
    int vector;

    if (pv->word == NULL || pv->armed)
        return;
    vector = highest_vector(v, APIC_ISR, v->isr_words);
    if (!may_arm(v, vector))
        return;
    vapic_or32(pv->word, WORD_EOI, VAPIC_SEQ_CST);
    touched(v, pv->word_gpa);
    pv->armed = true;
    pv->armed_vector = (uint8_t)vector;
    pv->stats.armed++;
}

/* Clears the bit. True: the guest had done so before. */
static bool disarm(struct vapic *v)
{
    struct vapic_pv *pv = v->pv;
    bool ended = !(vapic_and32(pv->word, ~WORD_EOI, VAPIC_SEQ_CST) & WORD_EOI);

    touched(v, pv->word_gpa);
    pv->armed = false;
    pv->stats.withdrawn += !ended;
    return ended;
}

void vapic_pv_sync(struct vapic *v)
{
    struct vapic_pv *pv = v->pv;
    uint8_t vector = pv->armed_vector;

    if (!pv->armed || !disarm(v))
        return;
    /* Taken back by vapic_not_delivered(): there is nothing to end, whatever the word says. */
    if (highest_vector(v, APIC_ISR, v->isr_words) != vector)
        return;
    pv->stats.eois++;
    if (MUTANT(PV_EOI_DROPPED))
        return;
    vapic_eoi(v);
    TRACE(v->vm, PV_EOI, v->index, v->id, vector, 0, 0);
}

void vapic_pv_enter(struct vapic *v)
{
    arm(v);
}

bool vapic_pv_committed(struct vapic *v, uint8_t vector)
{
    struct vapic_pv *pv = v->pv;

    if (UNLIKELY(pv->auto_eoi[vector >> 6] >> (vector & 63) & 1)) {
        pv->stats.auto_eois++;
        return true;
    }
    arm(v);
    return false;
}

/* ---- The MSRs that place the words ---- */

/* What the two MSRs have in common. */
struct placement {
    uint64_t reserved; /* must be zero */
    uint64_t address;
};

static const struct placement kvm_placement = {2, ~UINT64_C(3)};
/* Bits 11:1 are reserved and preserved: guests may write what they have read. */
static const struct placement hv_placement = {0, ~UINT64_C(0xFFF)};

/* One word per vCPU: of two that are enabled the VP assist page's. */
static void choose_word(struct vapic_pv *pv)
{
    bool assist = pv->assist_word != NULL;

    pv->word = assist ? pv->assist_word : pv->eoi_word;
    pv->word_gpa =
        assist ? pv->assist_msr & hv_placement.address : pv->eoi_msr & kvm_placement.address;
}

static uint32_t *map_word(struct vapic *v, const struct placement *place, uint64_t msr)
{
    void *word;

    if (!(msr & VAPIC_PV_ENABLE))
        return NULL;
    word = v->pv->config.map(v->vm->ctx, v, msr & place->address, sizeof(uint32_t));
    return (uintptr_t)word & (sizeof(uint32_t) - 1) ? NULL : word;
}

/*
 * What was outstanding ended with the exit, or is taken back now, before the word moves. A bit left
 * over from another life would make the guest skip an EOI that is needed.
 */
static int place_word(struct vapic *v, const struct placement *place, uint64_t *msr,
                      uint32_t **word, uint64_t value)
{
    uint32_t *to;

    if (value & place->reserved)
        return VAPIC_GP;
    to = map_word(v, place, value);
    if (value & VAPIC_PV_ENABLE && to == NULL)
        return VAPIC_GP;
    vapic_pv_sync(v);
    *msr = value;
    *word = to;
    choose_word(v->pv);
    if (to != NULL) {
        vapic_and32(to, ~WORD_EOI, VAPIC_SEQ_CST);
        touched(v, value & place->address);
    }
    return VAPIC_OK;
}

void vapic_pv_remap(struct vapic *v)
{
    struct vapic_pv *pv = v->pv;

    if (pv == NULL)
        return;
    vapic_pv_sync(v);
    pv->eoi_word = map_word(v, &kvm_placement, pv->eoi_msr);
    pv->assist_word = map_word(v, &hv_placement, pv->assist_msr);
    choose_word(pv);
}

/* The feature that an MSR belongs to; 0: not one of ours. */
static uint32_t feature_of(uint32_t msr)
{
    if (msr == VAPIC_MSR_KVM_EOI)
        return VAPIC_PV_EOI;
    return msr >= VAPIC_MSR_HV_EOI && msr <= VAPIC_MSR_HV_VP_ASSIST ? VAPIC_PV_HYPERV : 0;
}

static int claim(const struct vapic *v, uint32_t msr)
{
    uint32_t feature = feature_of(msr);

    if (v->pv == NULL || feature == 0)
        return VAPIC_UNCLAIMED;
    return v->pv->config.features & feature ? VAPIC_OK : VAPIC_GP;
}

int vapic_pv_msr_read(struct vapic *v, uint32_t msr, uint64_t *value)
{
    int result = claim(v, msr);

    if (result != VAPIC_OK)
        return result;
    if (msr == VAPIC_MSR_KVM_EOI)
        *value = v->pv->eoi_msr;
    else if (msr == VAPIC_MSR_HV_VP_ASSIST)
        *value = v->pv->assist_msr;
    else
        return vapic_hv_msr_read(v, msr, value);
    return VAPIC_OK;
}

int vapic_pv_msr_write(struct vapic *v, uint32_t msr, uint64_t value)
{
    int result = claim(v, msr);

    if (result != VAPIC_OK)
        return result;
    if (msr == VAPIC_MSR_KVM_EOI)
        return place_word(v, &kvm_placement, &v->pv->eoi_msr, &v->pv->eoi_word, value);
    if (msr == VAPIC_MSR_HV_VP_ASSIST)
        return place_word(v, &hv_placement, &v->pv->assist_msr, &v->pv->assist_word, value);
    return vapic_hv_msr_write(v, msr, value);
}

/* ---- Life cycle ---- */

static bool config_valid(const struct vapic_pv_config *c)
{
    return !(c->features & ~known_features) &&
           (c->map != NULL || !(c->features & (VAPIC_PV_EOI | VAPIC_PV_HYPERV)));
}

int vapic_pv_attach(struct vapic *v, struct vapic_pv *pv, size_t size,
                    const struct vapic_pv_config *config)
{
    if (size != sizeof(*pv))
        return VAPIC_E_SIZE;
    if (v == NULL || pv == NULL || config == NULL || !config_valid(config))
        return VAPIC_E_ARG;
    if (v->pv != NULL)
        return VAPIC_E_BUSY;
    zero_bytes(pv, sizeof(*pv));
    pv->config = *config;
    v->pv = pv;
    vapic_pv_reset(v);
    return VAPIC_OK;
}

int vapic_pv_detach(struct vapic *v)
{
    if (v == NULL || v->pv == NULL)
        return VAPIC_E_ARG;
    vapic_pv_sync(v);
    vapic_hv_reset(v);
    v->pv = NULL;
    return VAPIC_OK;
}

/* No vector is in service any more; a bit that is still set must not be found by the next life. */
void vapic_pv_reset(struct vapic *v)
{
    struct vapic_pv *pv = v->pv;

    if (pv->armed)
        disarm(v);
    pv->eoi_msr = pv->assist_msr = 0;
    pv->eoi_word = pv->assist_word = NULL;
    choose_word(pv);
    vapic_hv_reset(v);
}

void vapic_pv_get_stats(const struct vapic *v, struct vapic_pv_stats *stats)
{
    if (v->pv != NULL)
        *stats = v->pv->stats;
    else
        zero_bytes(stats, sizeof(*stats));
}
