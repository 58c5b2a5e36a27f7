/* SPDX-License-Identifier: MIT */
/*
 * A guest for the tests of the paravirtual companions: its memory, and what its kernel does at the
 * end of an interrupt handler.
 */
#ifndef VAPIC_TESTS_PV_GUEST_H
#define VAPIC_TESTS_PV_GUEST_H

#include <string.h>

#include "fixture.h"
#include "vapic/pv.h"

#define PV_MAX_VCPUS 80u
#define PV_RAM       0x4000u
#define PV_WORD      0x1004u /* guest-physical: the KVM word of vCPU 0, not at a page's start */
#define PV_PAGE      0x2000u /* the VP assist page */

struct pv_guest {
    _Alignas(4096) uint8_t ram[PV_RAM];
    struct vapic_pv pv[PV_MAX_VCPUS];
    bool gone;        /* the memory has been taken away */
    uint32_t dirtied; /* calls of dirty(), and its last address */
    uint64_t dirty_at;
};

static inline void *pv_map(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    struct pv_guest *g = ((struct fx *)ctx)->user;

    (void)v;
    return !g->gone && gpa <= PV_RAM - size ? g->ram + gpa : NULL;
}

static inline void pv_dirty(void *ctx, struct vapic *v, uint64_t gpa)
{
    struct pv_guest *g = ((struct fx *)ctx)->user;

    (void)v;
    g->dirtied++;
    g->dirty_at = gpa;
}

static inline uint32_t *pv_word(struct pv_guest *g, uint64_t gpa)
{
    return (uint32_t *)(void *)(g->ram + gpa);
}

/* Every vCPU of `fx` gets the features. */
static inline void pv_attach(struct fx *fx, struct pv_guest *g, uint32_t features)
{
    struct vapic_pv_config config = {features, pv_map, pv_dirty};

    memset(g, 0, sizeof(*g));
    fx->user = g;
    assert_true(fx->vcpus <= PV_MAX_VCPUS);
    for (uint32_t n = 0; n < fx->vcpus; n++)
        assert_int_equal(vapic_pv_attach(&fx->v[n], &g->pv[n], sizeof(g->pv[n]), &config),
                         VAPIC_OK);
}

/* What the guest's kernel does: test and clear in one instruction. True: that was the EOI. */
static inline bool pv_guest_eoi(uint32_t *word)
{
    return __atomic_fetch_and(word, ~1u, __ATOMIC_SEQ_CST) & 1;
}

/* `vector` is taken by vCPU `n` and in service, the vCPU outside. */
static inline void pv_start(struct fx *fx, uint32_t n, uint8_t vector, bool level)
{
    vapic_post(&fx->v[n], vector, level, NULL);
    assert_int_equal(fx_take(fx, n), vector);
}

/* A value written to an MSR of vCPU 0, and what the write says. */
struct pv_write {
    const char *name;
    uint64_t value;
    int result;
};

/* An MSR keeps what it accepts; after a refusal it reads as `before`. */
static inline void pv_write_and_read(struct fx *fx, uint32_t msr, const struct pv_write *w,
                                     uint64_t before)
{
    uint64_t value = 0;

    fx_equal(vapic_pv_msr_write(&fx->v[0], msr, w->value), w->result, "result of %s", w->name);
    fx_equal(vapic_pv_msr_read(&fx->v[0], msr, &value), VAPIC_OK, "read after %s", w->name);
    fx_equal(value, w->result == VAPIC_OK ? w->value : before, "value after %s", w->name);
}

static inline struct vapic_pv_stats pv_stats(struct fx *fx, uint32_t n)
{
    struct vapic_pv_stats stats;

    vapic_pv_get_stats(&fx->v[n], &stats);
    return stats;
}

#endif
