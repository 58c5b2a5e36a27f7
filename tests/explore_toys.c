/* SPDX-License-Identifier: MIT */
/* The programs of explore_toys.h. */
#include "explore_toys.h"

#include <stddef.h>

#include "vapic/arch/atomic.h"

void toy_add_plain(struct toys *t)
{
    t->x.value = t->x.value + 1;
}

void toy_add_in_two(struct toys *t)
{
    vapic_store32(&t->x.value, vapic_load32(&t->x.value, VAPIC_RELAXED) + 1, VAPIC_RELAXED);
}

void toy_add_atomic(struct toys *t)
{
    vapic_add32(&t->x.value, 1, VAPIC_SEQ_CST);
}

void toy_add_with_cas(struct toys *t)
{
    uint32_t seen = vapic_load32(&t->x.value, VAPIC_RELAXED);

    while (!vapic_cas32(&t->x.value, &seen, seen + 1, VAPIC_ACQ_REL))
        ;
}

static uint32_t load(const uint32_t *p, int order)
{
    return order == VAPIC_SEQ_CST ? vapic_load32(p, VAPIC_SEQ_CST) : vapic_load32(p, VAPIC_ACQUIRE);
}

static void store(uint32_t *p, uint32_t value, int order)
{
    if (order == VAPIC_SEQ_CST)
        vapic_store32(p, value, VAPIC_SEQ_CST);
    else
        vapic_store32(p, value, VAPIC_RELEASE);
}

uint32_t toy_load(const uint32_t *word)
{
    return vapic_load32(word, VAPIC_ACQUIRE);
}

void toy_store(uint32_t *word, uint32_t value)
{
    vapic_store32(word, value, VAPIC_RELEASE);
}

void toy_sb(struct toys *t, uint32_t self, int store_order, int load_order)
{
    store(self == 0 ? &t->x.value : &t->y.value, 1, store_order);
    t->result[self].value = load(self == 0 ? &t->y.value : &t->x.value, load_order);
}

void toy_mp_send(struct toys *t)
{
    vapic_store32(&t->x.value, 1, VAPIC_RELAXED);
    vapic_store32(&t->flag[0].value, 1, VAPIC_RELEASE);
}

void toy_mp_receive(struct toys *t)
{
    t->result[0].value = vapic_load32(&t->flag[0].value, VAPIC_ACQUIRE);
    t->result[1].value = vapic_load32(&t->x.value, VAPIC_RELAXED);
}

void toy_lb(struct toys *t, uint32_t self)
{
    t->result[self].value = vapic_load32(self == 0 ? &t->x.value : &t->y.value, VAPIC_RELAXED);
    vapic_store32(self == 0 ? &t->y.value : &t->x.value, 1, VAPIC_RELAXED);
}

void toy_iriw_write(struct toys *t, uint32_t self)
{
    vapic_store32(self == 0 ? &t->x.value : &t->y.value, 1, VAPIC_RELEASE);
}

void toy_iriw_read(struct toys *t, uint32_t self)
{
    struct toy_word *first = self == 0 ? &t->x : &t->y, *second = self == 0 ? &t->y : &t->x;

    t->result[2 * self].value = vapic_load32(&first->value, VAPIC_ACQUIRE);
    t->result[2 * self + 1].value = vapic_load32(&second->value, VAPIC_ACQUIRE);
}

void toy_peterson(struct toys *t, uint32_t self, int order)
{
    store(&t->flag[self].value, 1, order);
    store(&t->turn.value, 1 - self, order);
    if (load(&t->flag[1 - self].value, VAPIC_ACQUIRE) &&
        load(&t->turn.value, VAPIC_ACQUIRE) == 1 - self)
        return; /* somebody else is in, or goes first */
    toy_add_in_two(t);
    t->result[self].value = 1;
}

void toy_copy(struct toy_block *to, const struct toy_block *from)
{
    *to = *from;
}

void toy_fill(struct toy_block *to)
{
    *to = (struct toy_block){0};
}

/* ---- Random programs ---- */

struct machine_of_toys {
    struct toys *t;
    const struct toy_random *random;
    uint32_t self, sum, bits; /* `bits`: of this operation */
    uint32_t *word;
};

static void do_load(struct machine_of_toys *m)
{
    m->sum = m->sum * 5 + vapic_load32(m->word, VAPIC_RELAXED);
}

static void do_load_acquire(struct machine_of_toys *m)
{
    m->sum = m->sum * 5 + vapic_load32(m->word, VAPIC_ACQUIRE);
}

static void do_load_byte(struct machine_of_toys *m)
{
    m->sum = m->sum * 5 + __atomic_load_n((uint8_t *)m->word + m->bits % 2, __ATOMIC_ACQUIRE);
}

static void do_store(struct machine_of_toys *m)
{
    vapic_store32(m->word, m->sum * 4 + m->self, VAPIC_RELAXED);
}

static void do_store_release(struct machine_of_toys *m)
{
    vapic_store32(m->word, m->sum * 4 + m->self + 1, VAPIC_RELEASE);
}

static void do_store_strong(struct machine_of_toys *m)
{
    vapic_store32(m->word, m->sum * 4 + m->self + 1, VAPIC_SEQ_CST);
}

static void do_store_byte(struct machine_of_toys *m)
{
    __atomic_store_n((uint8_t *)m->word + 1, (uint8_t)(m->sum | 1), __ATOMIC_RELEASE);
}

static void do_add(struct machine_of_toys *m)
{
    m->sum = m->sum * 3 + vapic_add32(m->word, m->sum, VAPIC_SEQ_CST);
}

static void do_or(struct machine_of_toys *m)
{
    vapic_or32(m->word, 1u << m->bits % 4, VAPIC_ACQ_REL);
}

static void do_cas(struct machine_of_toys *m)
{
    uint32_t seen = 0;

    m->sum = m->sum * 3 + vapic_cas32(m->word, &seen, m->sum, VAPIC_SEQ_CST);
    m->sum += seen;
}

/* Decides by what it has read, and forgets it: others may come to the same state otherwise. */
static void do_branch(struct machine_of_toys *m)
{
    if (vapic_load32(m->word, VAPIC_RELAXED) & 1)
        vapic_or32(&m->t->y.value, 2, VAPIC_RELAXED);
}

static void do_wait(struct machine_of_toys *m)
{
    if (m->random->allowed & TOY_WAITS)
        m->random->wait(m->word);
    else
        do_load(m);
}

static void do_locked(struct machine_of_toys *m)
{
    if (m->random->allowed & TOY_LOCKS)
        m->random->lock(&m->t->lock.value);
    do_load(m);
    do_store(m);
    if (m->random->allowed & TOY_LOCKS)
        m->random->unlock(&m->t->lock.value);
}

static void do_choose(struct machine_of_toys *m)
{
    if (m->random->allowed & TOY_CHOICES)
        m->sum = m->sum * 3 + m->random->choose();
    else
        do_load(m);
}

static void do_plain_load(struct machine_of_toys *m)
{
    if (m->random->allowed & TOY_PLAIN)
        m->sum = m->sum * 5 + m->t->flag[m->bits % 2].value;
    else
        do_load(m);
}

static void do_plain_store(struct machine_of_toys *m)
{
    if (m->random->allowed & TOY_PLAIN)
        m->t->flag[m->bits % 2].value = m->sum;
    else
        do_store(m);
}

static void (*const operations[])(struct machine_of_toys *m) = {
    do_load,         do_load_acquire, do_load_byte, do_store,  do_store_release,
    do_store_strong, do_store_byte,   do_add,       do_or,     do_cas,
    do_branch,       do_wait,         do_locked,    do_choose, do_plain_load,
    do_plain_store,
};

void toy_random(struct toys *t, uint32_t self, const struct toy_random *random)
{
    struct toy_word *const words[] = {&t->x, &t->y, &t->z};
    struct machine_of_toys m = {.t = t, .random = random, .self = self, .sum = self + 1};
    uint32_t seed = random->seed;

    for (uint32_t i = 0; i < random->length; i++) {
        seed = seed * 1103515245 + 12345;
        m.word = &words[(seed >> 16) % 3]->value;
        m.bits = seed >> 26;
        operations[(seed >> 20) % 16](&m);
    }
    t->result[self].value = m.sum;
}

void toy_hand_over(struct toys *t)
{
    t->y.value = 1;
    vapic_store32(&t->x.value, 1, VAPIC_RELEASE);
    vapic_store32(&t->z.value, 1, VAPIC_RELAXED);
    vapic_add32(&t->turn.value, 1, VAPIC_SEQ_CST);
}

void toy_take_over(struct toys *t)
{
    (void)vapic_load32(&t->x.value, VAPIC_ACQUIRE);
    while (vapic_load32(&t->z.value, VAPIC_RELAXED) == 0)
        ;
    vapic_add32(&t->turn.value, 1, VAPIC_SEQ_CST);
    t->result[1].value = t->y.value;
}

void toy_wild(void)
{
    volatile uint32_t *nowhere = (uint32_t *)(uintptr_t)0x700000000000;

    *nowhere = 1;
}

void toy_spin(struct toys *t)
{
    while (vapic_load32(&t->x.value, VAPIC_ACQUIRE) == 0)
        ;
}

void toy_lock(struct toys *t)
{
    while (vapic_xchg32(&t->lock.value, 1, VAPIC_ACQUIRE) != 0)
        ;
}

void toy_unlock(struct toys *t)
{
    vapic_store32(&t->lock.value, 0, VAPIC_RELEASE);
}

void toy_for_ever(struct toys *t)
{
    for (;;)
        vapic_add32(&t->x.value, 1, VAPIC_RELAXED);
}
