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

void toy_random(struct toys *t, uint32_t self, uint32_t seed, uint32_t length)
{
    struct toy_word *const words[] = {&t->x, &t->y, &t->z};
    uint32_t sum = self + 1;

    for (uint32_t i = 0; i < length; i++) {
        uint32_t *word;

        seed = seed * 1103515245 + 12345;
        word = &words[(seed >> 16) % 3]->value;
        switch ((seed >> 20) % 4) {
        case 0:
            vapic_store32(word, sum * 4 + self, VAPIC_RELAXED);
            break;
        case 1:
            sum = sum * 3 + vapic_add32(word, sum, VAPIC_SEQ_CST);
            break;
        default:
            sum = sum * 5 + vapic_load32(word, VAPIC_RELAXED);
            break;
        }
    }
    t->result[self].value = sum;
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
