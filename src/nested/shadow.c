/* SPDX-License-Identifier: MIT */
/*
 * The engine for shadowed tables: taking one into use, keeping it in step with L1's writes and with
 * where vCPUs are, giving it up. See shadow.h for the locks.
 *
 *      state    entry of a shadow
 *      free     the shadow follows no table
 *      idle     (not synced) what kind.idle() says: every IPI through it exits; nothing pinned but
 *               L1's frames
 *      synced   each entry is as L1's, with addresses and places translated
 */
#include "shadow.h"

/* Writes of single entries up to here are followed one by one; more make the shadow idle. */
#define FOLLOWED 16u
/* So often may L1 write each entry of a table that nobody runs L2 with before it is let go. */
#define FLOOD 1000u

static const struct shadow_kind *kind(const struct vapic_nested *n)
{
    return n->vm->accel->kind == VAPIC_ACCEL_AVIC ? &vapic_shadow_avic : &vapic_shadow_pid;
}

/* ---- Memory ---- */

static size_t pages(size_t bytes)
{
    return (bytes + APIC_PAGE_SIZE - 1) & ~(size_t)(APIC_PAGE_SIZE - 1);
}

static size_t table_bytes(const struct vapic_nested_config *config)
{
    return pages(config->entries * sizeof(uint64_t));
}

size_t vapic_shadow_memory(const struct vapic_nested_config *config)
{
    size_t one = table_bytes(config) + pages(config->entries * sizeof(struct vapic_shadow_entry));

    if (config->strategy != VAPIC_NESTED_SHADOW)
        return 0;
    return pages(config->tables * sizeof(struct vapic_shadow)) + config->tables * one;
}

void vapic_shadow_place(struct vapic_nested *n, void *memory)
{
    const struct vapic_nested_config *c = &n->config;
    uint8_t *at = memory;

    if (c->strategy != VAPIC_NESTED_SHADOW)
        return;
    n->shadows = memory;
    at += pages(c->tables * sizeof(struct vapic_shadow));
    for (uint32_t i = 0; i < c->tables; i++) {
        struct vapic_shadow *s = &n->shadows[i];

        s->gpa = NESTED_NO_PAGE;
        s->hardware = (uint64_t *)(void *)at;
        s->hpa = n->vm->host.physical(n->vm->ctx, at);
        at += table_bytes(c);
        s->entry = (struct vapic_shadow_entry *)(void *)at;
        at += pages(c->entries * sizeof(struct vapic_shadow_entry));
        for (uint32_t k = 0; k < c->entries; k++) {
            s->entry[k].hardware = &s->hardware[k];
            s->entry[k].key = SHADOW_NOBODY;
            s->entry[k].page = NESTED_NO_PAGE;
        }
    }
}

/* ---- Under nested.lock ---- */

static void lock(struct vapic_nested *n)
{
    n->vm->host.spin_lock(n->vm->ctx, &n->lock);
}

static void unlock(struct vapic_nested *n)
{
    n->vm->host.spin_unlock(n->vm->ctx, &n->lock);
}

/* A descriptor's address has its low 6 bits zero, an APIC ID its high ones. */
static uint32_t bucket(uint64_t key)
{
    return (uint32_t)((key ^ key >> 6 ^ key >> 14) % VAPIC_NESTED_BUCKETS);
}

static void unchain(struct vapic_shadow_entry *e)
{
    if (e->key == SHADOW_NOBODY)
        return;
    *e->back = e->next;
    if (e->next != NULL)
        e->next->back = e->back;
    e->key = SHADOW_NOBODY;
}

static void chain(struct vapic_nested *n, struct vapic_shadow_entry *e, uint64_t key)
{
    struct vapic_shadow_entry **head;

    unchain(e);
    if (key == SHADOW_NOBODY)
        return;
    head = &n->naming[bucket(key)];
    e->key = key;
    e->next = *head;
    e->back = head;
    if (e->next != NULL)
        e->next->back = &e->next;
    *head = e;
}

static const struct vapic_nested_vcpu *who(const struct vapic_nested *n, uint64_t key)
{
    if (key == SHADOW_NOBODY)
        return NULL;
    for (const struct vapic_nested_vcpu *nv = n->named[bucket(key)]; nv; nv = nv->next_named)
        if (nv->key == key)
            return nv;
    return NULL;
}

/* SEQ_CST: L1 (or the scheduler) looks at what was posted behind it; pairs with the processor's
 * posting first and reading the entry then. */
static void put(struct vapic_shadow_entry *e, uint64_t value)
{
    if (MUTANT(SHADOW_UNORDERED))
        vapic_store64(e->hardware, value, VAPIC_RELAXED);
    else
        vapic_xchg64(e->hardware, value, VAPIC_SEQ_CST);
}

static void refresh(struct vapic_nested *n, struct vapic_shadow_entry *e)
{
    put(e, kind(n)->hardware(n, e, who(n, e->key)));
}

static void refresh_naming(struct vapic_nested *n, uint64_t key)
{
    if (key == SHADOW_NOBODY)
        return;
    for (struct vapic_shadow_entry *e = n->naming[bucket(key)]; e != NULL; e = e->next)
        if (e->key == key)
            refresh(n, e);
}

static void forget_name(struct vapic_nested *n, struct vapic_nested_vcpu *nv)
{
    struct vapic_nested_vcpu **at = &n->named[bucket(nv->key)];

    while (*at != NULL && *at != nv)
        at = &(*at)->next_named;
    if (*at == nv)
        *at = nv->next_named;
}

void vapic_shadow_name(struct vapic_nested *n, struct vapic_nested_vcpu *nv, uint64_t key,
                       uint32_t where)
{
    uint64_t before;

    lock(n);
    before = nv->key;
    if (before != key) {
        if (before != SHADOW_NOBODY)
            forget_name(n, nv);
        nv->key = key;
        if (key != SHADOW_NOBODY) {
            nv->next_named = n->named[bucket(key)];
            n->named[bucket(key)] = nv;
        }
        refresh_naming(n, before);
    }
    nv->where = where;
    if (where != 0 || before != key || !MUTANT(SHADOW_STAYS_RUNNING))
        refresh_naming(n, key);
    unlock(n);
}

/* ---- Entries. Configuration lock held ---- */

static void give_back(struct vapic_nested *n, struct vapic_shadow_entry *e)
{
    if (e->page == NESTED_NO_PAGE)
        return;
    n->host.unpin(n->vm->ctx, e->page, &e->pin);
    e->page = NESTED_NO_PAGE;
    e->pin.memory = NULL;
}

/* The hardware does not find the page by this entry any more; true: a pin is left to give back. */
static bool make_idle(struct vapic_nested *n, struct vapic_shadow *s, struct vapic_shadow_entry *e)
{
    /* Before the entry: who has noted the count by now finds it changed. Who notes it from now on,
     * while the entry is idle, finds it changed by what comes behind the entry: that it follows
     * L1's again (vapic_shadow_follow), or that it has no page (desync). */
    vapic_add32(&s->idled, 1, VAPIC_SEQ_CST);
    if (MUTANT(SHADOW_UNPINS_NAMED)) {
        give_back(n, e);
        return false;
    }
    lock(n);
    unchain(e);
    put(e, kind(n)->idle(n));
    unlock(n);
    return e->page != NESTED_NO_PAGE;
}

/* L1's entry number `i`, in one piece: L1 may be writing it. */
static uint64_t l1_entry(const struct vapic_shadow *s, uint32_t i)
{
    uint32_t per_frame = APIC_PAGE_SIZE / sizeof(uint64_t);
    const uint64_t *frame = s->frame[i / per_frame].memory;

    return vapic_load64(&frame[i % per_frame], VAPIC_ACQUIRE);
}

void vapic_shadow_follow(struct vapic_nested *n, struct vapic_shadow *s, uint32_t i)
{
    struct vapic_shadow_entry *e = &s->entry[i];
    uint64_t l1 = l1_entry(s, i);
    struct shadow_parsed p = kind(n)->parse(n, l1);
    bool moves = p.page != e->page;

    if (moves && make_idle(n, s, e)) {
        if (!MUTANT(SHADOW_UNPINS_UNKICKED))
            n->vm->host.kick_all(n->vm->ctx);
        give_back(n, e);
    }
    /* A page that L1 does not have leaves the pin empty, and kind.hardware() says what that is. */
    if (p.page != e->page && n->host.pin(n->vm->ctx, p.page, &e->pin))
        e->page = p.page;
    lock(n);
    e->l1 = l1;
    chain(n, e, p.key);
    refresh(n, e);
    unlock(n);
    /* Behind the entry; pairs with the note before VMRUN (acquire), after which the processor reads
     * the entry: a count noted while the entry was idle is not the one found after the exit, which
     * is looked at under the configuration lock. */
    if (moves)
        vapic_add32(&s->idled, 1, VAPIC_SEQ_CST);
}

/* ---- Whole shadows. Configuration lock held ---- */

/* Every vCPU that runs L2 with it has to look again, after which it is in sync or gone. */
static void tell_users(struct vapic_nested *n, const struct vapic_shadow *s)
{
    const struct vapic_vm *vm = n->vm;

    for (uint32_t i = 0; i < vm->top; i++) {
        struct vapic *v = vm->slots[i].vcpu;

        if (v != NULL && nested_of(v) != NULL && nested_of(v)->shadow == s)
            vapic_nested_look_again(v);
    }
}

/* All entries exit from now on, and nothing of L1's but the frames is pinned. */
static void desync(struct vapic_nested *n, struct vapic_shadow *s)
{
    bool pinned = false;

    if (!s->synced)
        return;
    for (uint32_t i = 0; i < s->entries; i++)
        pinned |= make_idle(n, s, &s->entry[i]);
    s->synced = false;
    tell_users(n, s);
    if (!pinned)
        return;
    n->vm->host.kick_all(n->vm->ctx);
    for (uint32_t i = 0; i < s->entries; i++)
        give_back(n, &s->entry[i]);
}

/* Tables of several pages may overlap, and host.track() does not nest. */
static bool others_track(const struct vapic_nested *n, const struct vapic_shadow *s, uint64_t gpa)
{
    for (uint32_t i = 0; i < n->config.tables; i++) {
        const struct vapic_shadow *t = &n->shadows[i];

        if (t != s && t->gpa != NESTED_NO_PAGE &&
            gpa - t->gpa < t->frames * (uint64_t)APIC_PAGE_SIZE)
            return true;
    }
    return false;
}

static bool track(struct vapic_nested *n, const struct vapic_shadow *s, uint64_t gpa)
{
    return others_track(n, s, gpa) || n->host.track(n->vm->ctx, gpa, true);
}

static void drop_frames(struct vapic_nested *n, struct vapic_shadow *s)
{
    while (s->frames > 0) {
        uint64_t gpa = s->gpa + --s->frames * (uint64_t)APIC_PAGE_SIZE;

        if (!others_track(n, s, gpa))
            n->host.track(n->vm->ctx, gpa, false);
        n->host.unpin(n->vm->ctx, gpa, &s->frame[s->frames]);
    }
}

/* Who used it is outside after this, and will look again: it may follow another table by then. */
static void release(struct vapic_nested *n, struct vapic_shadow *s)
{
    desync(n, s);
    drop_frames(n, s);
    tell_users(n, s);
    if (s->users > 0)
        n->vm->host.kick_all(n->vm->ctx);
    s->gpa = NESTED_NO_PAGE;
    s->entries = 0;
}

/* Tracking before anything is read: what is written after it is told. */
static int add_frame(struct vapic_nested *n, struct vapic_shadow *s)
{
    uint64_t gpa = s->gpa + s->frames * (uint64_t)APIC_PAGE_SIZE;

    if (!n->host.pin(n->vm->ctx, gpa, &s->frame[s->frames]))
        return VAPIC_E_MEMORY;
    if (!MUTANT(SHADOW_READ_UNTRACKED) && !track(n, s, gpa)) {
        n->host.unpin(n->vm->ctx, gpa, &s->frame[s->frames]);
        return VAPIC_E_FULL;
    }
    s->frames++;
    return VAPIC_OK;
}

static int grow(struct vapic_nested *n, struct vapic_shadow *s, uint32_t entries)
{
    uint32_t frames = (uint32_t)(pages(entries * sizeof(uint64_t)) / APIC_PAGE_SIZE);
    int result = VAPIC_OK;

    while (s->frames < frames && result == VAPIC_OK)
        result = add_frame(n, s);
    if (result != VAPIC_OK)
        return result;
    for (uint32_t i = s->synced ? s->entries : 0; i < entries; i++)
        vapic_shadow_follow(n, s, i);
    if (MUTANT(SHADOW_READ_UNTRACKED))
        n->host.track(n->vm->ctx, s->gpa, true);
    s->entries = entries;
    s->synced = true;
    return VAPIC_OK;
}

static struct vapic_shadow *find(struct vapic_nested *n, uint64_t gpa)
{
    for (uint32_t i = 0; i < n->config.tables; i++)
        if (n->shadows[i].gpa == gpa)
            return &n->shadows[i];
    return NULL;
}

/* A free one, or the one that has been without users for longest; NULL: all are in use. */
static struct vapic_shadow *make_room(struct vapic_nested *n)
{
    struct vapic_shadow *best = find(n, NESTED_NO_PAGE);

    for (uint32_t i = 0; best == NULL && i < n->config.tables; i++)
        if (n->shadows[i].users == 0)
            best = &n->shadows[i];
    for (uint32_t i = 0; best != NULL && best->gpa != NESTED_NO_PAGE && i < n->config.tables; i++)
        if (n->shadows[i].users == 0 && n->turn - n->shadows[i].used > n->turn - best->used)
            best = &n->shadows[i];
    if (best != NULL && best->gpa != NESTED_NO_PAGE)
        release(n, best);
    return best;
}

void vapic_shadow_unuse(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (nv->shadow != NULL)
        nv->shadow->users--;
    nv->shadow = NULL;
}

int vapic_shadow_use(struct vapic *v, uint64_t gpa, uint32_t entries)
{
    struct vapic_nested *n = nested_vm(v);
    struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_shadow *s;
    int result;

    vapic_shadow_unuse(v);
    if (n->shadows == NULL || gpa == NESTED_NO_PAGE || entries > n->config.entries)
        return VAPIC_OK;
    s = find(n, gpa);
    if (s == NULL) {
        s = make_room(n);
        if (s == NULL)
            return VAPIC_OK;
        s->gpa = gpa;
    }
    result = grow(n, s, entries > s->entries ? entries : s->entries);
    if (result != VAPIC_OK) {
        release(n, s);
        return result == VAPIC_E_MEMORY ? result : VAPIC_OK;
    }
    s->used = ++n->turn;
    s->users++;
    nv->shadow = s;
    return VAPIC_OK;
}

/* ---- L1's memory ---- */

/* L2 runs with it somewhere. */
static bool runs(const struct vapic_nested *n, const struct vapic_shadow *s)
{
    const struct vapic_vm *vm = n->vm;

    for (uint32_t i = 0; i < vm->top; i++) {
        const struct vapic *v = vm->slots[i].vcpu;

        if (v != NULL && nested_of(v) != NULL && nested_of(v)->shadow == s &&
            vapic_load32(&nested_of(v)->state, VAPIC_RELAXED) != VAPIC_NESTED_L1)
            return true;
    }
    return false;
}

/* The frame is used for something else by now, it seems. */
static bool flooded(const struct vapic_nested *n, struct vapic_shadow *s)
{
    uint32_t writes = vapic_load32(&s->writes, VAPIC_RELAXED) + 1;

    vapic_store32(&s->writes, writes, VAPIC_RELAXED);
    return writes / FLOOD > s->entries && !runs(n, s);
}

static void written(struct vapic_nested *n, struct vapic_shadow *s, uint64_t gpa, uint64_t size)
{
    uint64_t bytes = (uint64_t)s->entries * sizeof(uint64_t), first, last;

    if (flooded(n, s)) {
        release(n, s);
        return;
    }
    if (!s->synced || size == 0 || !nested_overlap(gpa, size, s->gpa, bytes))
        return;
    first = gpa > s->gpa ? (gpa - s->gpa) / sizeof(uint64_t) : 0;
    last =
        gpa + size - s->gpa < bytes ? (gpa + size - 1 - s->gpa) / sizeof(uint64_t) : s->entries - 1;
    if (last - first >= FOLLOWED) {
        desync(n, s);
        return;
    }
    for (uint64_t i = first; i <= last; i++)
        vapic_shadow_follow(n, s, (uint32_t)i);
}

void vapic_shadow_written(struct vapic_nested *n, uint64_t gpa, uint64_t size)
{
    for (uint32_t i = 0; n->shadows != NULL && i < n->config.tables; i++) {
        struct vapic_shadow *s = &n->shadows[i];

        if (s->gpa != NESTED_NO_PAGE &&
            nested_overlap(gpa, size, s->gpa, s->frames * (uint64_t)APIC_PAGE_SIZE))
            written(n, s, gpa, size);
    }
}

static bool names_page_in(const struct vapic_shadow *s, uint64_t gpa, uint64_t size)
{
    for (uint32_t i = 0; i < s->entries; i++)
        if (s->entry[i].page != NESTED_NO_PAGE &&
            nested_overlap(gpa, size, s->entry[i].page, APIC_PAGE_SIZE))
            return true;
    return false;
}

void vapic_shadow_unmap(struct vapic_nested *n, uint64_t gpa, uint64_t size)
{
    for (uint32_t i = 0; n->shadows != NULL && i < n->config.tables; i++) {
        struct vapic_shadow *s = &n->shadows[i];

        if (s->gpa == NESTED_NO_PAGE)
            continue;
        if (nested_overlap(gpa, size, s->gpa, s->frames * (uint64_t)APIC_PAGE_SIZE))
            release(n, s);
        else if (names_page_in(s, gpa, size))
            desync(n, s);
    }
}

void vapic_shadow_fini(struct vapic_nested *n)
{
    for (uint32_t i = 0; n->shadows != NULL && i < n->config.tables; i++)
        if (n->shadows[i].gpa != NESTED_NO_PAGE)
            release(n, &n->shadows[i]);
}
