/* SPDX-License-Identifier: MIT */
/*
 * Shadows of tables that L1 wrote for its L2: what the processor walks in their place. One engine
 * for AVIC's physical APIC ID tables and for PID-pointer tables; what an entry means is the
 * vendor's (struct shadow_kind).
 *
 * Each shadow follows one of L1's tables, whose frames are pinned and whose writes are told
 * (vapic_nested_written()). An entry names somebody by a key (AVIC: L1's APIC ID; IPI
 * virtualization: the address of a descriptor), and is found by it when that one's place changes.
 *
 * Locks. The configuration lock: which shadows there are, what they follow, pins, parsing. Under
 * it, or alone from a scheduler's notifier, nested.lock (spin): chains, keys, the entries that the
 * hardware reads, and who can be named. Hardware reads entries at any time; each is written
 * by one 64-bit store.
 *
 * A pin is given back after the entry that named the page has been rewritten and every vCPU has
 * left the guest since: an IPI in the middle may have held the address.
 */
#ifndef VAPIC_NESTED_SHADOW_H
#define VAPIC_NESTED_SHADOW_H

#include "nested.h"

#define SHADOW_FRAMES 8u /* an x2AVIC table of 4096 entries */
#define SHADOW_NOBODY UINT64_MAX

struct vapic_shadow_entry {
    uint64_t l1;        /* as it was last read */
    uint64_t *hardware; /* hardware reads; nested.lock */
    uint64_t key;       /* SHADOW_NOBODY: in no chain; nested.lock */
    uint64_t page;      /* L1-physical address of the pinned page; NESTED_NO_PAGE: none */
    struct vapic_l1_page pin;
    struct vapic_shadow_entry *next, **back; /* chain; nested.lock */
};

struct vapic_shadow {
    uint64_t gpa;     /* of L1's table; NESTED_NO_PAGE: free */
    uint32_t entries; /* that are followed: L1's last index + 1 */
    uint32_t users;   /* vCPUs whose vapic_nested_vcpu.shadow this is */
    uint32_t writes;  /* told since L2 was last entered with it; atomic */
    uint32_t idled;   /* how often an entry was made idle, or a page taken away; atomic */
    uint32_t used;    /* turn of the last use: the oldest makes room */
    bool synced;      /* the entries are L1's; else they are all idle */
    uint32_t frames;  /* of L1's table that are pinned and tracked */
    struct vapic_l1_page frame[SHADOW_FRAMES];
    uint64_t *hardware;
    uint64_t hpa; /* for 02 */
    struct vapic_shadow_entry *entry;
};

/* What an entry of L1's says. */
struct shadow_parsed {
    uint64_t key;  /* SHADOW_NOBODY: it names nobody */
    uint64_t page; /* that the hardware would write to; NESTED_NO_PAGE: none */
};

struct shadow_kind {
    struct shadow_parsed (*parse)(const struct vapic_nested *n, uint64_t l1);
    /* What the hardware gets for `e`, whose l1 and pin are set, when the vCPU that it names is
     * `nv` (NULL: there is none now). nested.lock held. */
    uint64_t (*hardware)(const struct vapic_nested *n, const struct vapic_shadow_entry *e,
                         const struct vapic_nested_vcpu *nv);
    /* What it gets while L1's entry is not known. */
    uint64_t (*idle)(const struct vapic_nested *n);
};

/* svm_shadow.c, vmx_shadow.c */
extern const struct shadow_kind vapic_shadow_avic __attribute__((visibility("hidden")));
extern const struct shadow_kind vapic_shadow_pid __attribute__((visibility("hidden")));

/* Memory for config.tables shadows of config.entries entries, page aligned; 0 where the strategy
 * has none. place() gets it zeroed. */
size_t vapic_shadow_memory(const struct vapic_nested_config *config);
void vapic_shadow_place(struct vapic_nested *n, void *memory);
void vapic_shadow_fini(struct vapic_nested *n); /* configuration lock held */

/*
 * `v` goes over to a shadow of the table at `gpa` with `entries` entries, in sync; or to none
 * (v->accel->nested->shadow NULL), where there is none to be had. VAPIC_E_MEMORY: there is no such
 * memory. Configuration lock held, owner.
 */
int vapic_shadow_use(struct vapic *v, uint64_t gpa, uint32_t entries);
/* Reads L1's entry number `i` again. Configuration lock held. */
void vapic_shadow_follow(struct vapic_nested *n, struct vapic_shadow *s, uint32_t i);
/* It uses none any more. Configuration lock held. */
void vapic_shadow_unuse(struct vapic *v);

/* L2 is entered with the shadow. Owner, no lock. */
static inline void vapic_shadow_entered(struct vapic_shadow *s)
{
    vapic_store32(&s->writes, 0, VAPIC_RELAXED);
}

/* nested_ops.written and .unmap. */
void vapic_shadow_written(struct vapic_nested *n, uint64_t gpa, uint64_t size);
void vapic_shadow_unmap(struct vapic_nested *n, uint64_t gpa, uint64_t size);

/*
 * Entries name the vCPU by `key` from now on (SHADOW_NOBODY: they do not), and it is loaded on the
 * processor with host APIC ID `where` - 1 (0: on none): what names it, or did so, is written anew.
 * Ends with a SEQ_CST read-modify-write of each entry, so that a look at what is pending is ordered
 * behind it. Any thread, also from a preemption notifier; the vCPU's calls are made one after the
 * other.
 */
void vapic_shadow_name(struct vapic_nested *n, struct vapic_nested_vcpu *nv, uint64_t key,
                       uint32_t where);

#endif
