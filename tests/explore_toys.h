/* SPDX-License-Identifier: MIT */
/*
 * Small racy programs for tests of the explorer. explore_toys.c is compiled with the explorer's
 * instrumentation, like the library in it.
 */
#ifndef VAPIC_TESTS_EXPLORE_TOYS_H
#define VAPIC_TESTS_EXPLORE_TOYS_H

#include <stdbool.h>
#include <stdint.h>

/* What the programs share. Each word has a cache line to itself. */
struct toy_word {
    _Alignas(64) uint32_t value;
};

struct toys {
    struct toy_word x, y, z, turn, flag[3], result[6], lock;
    uint32_t block[24];
};

void toy_add_plain(struct toys *t);  /* x = x + 1 */
void toy_add_in_two(struct toys *t); /* the same by a load and a store, both atomic */
void toy_add_atomic(struct toys *t); /* the same, indivisible */
void toy_add_with_cas(struct toys *t);

uint32_t toy_load(const uint32_t *word);        /* acquire */
void toy_store(uint32_t *word, uint32_t value); /* release */

/* Store buffering: x = 1; r = y, and the other way round. */
void toy_sb(struct toys *t, uint32_t self, int store, int load);
/* Message passing: x = 1; flag = 1, and flag; x. */
void toy_mp_send(struct toys *t);
void toy_mp_receive(struct toys *t);
/* Load buffering: r = x; y = 1, and the other way round. */
void toy_lb(struct toys *t, uint32_t self);
/* Independent reads of independent writes. */
void toy_iriw_write(struct toys *t, uint32_t self);
void toy_iriw_read(struct toys *t, uint32_t self);
/* Peterson's lock around x = x + 1, with this order of the stores to the flags. */
void toy_peterson(struct toys *t, uint32_t self, int store);

/* Copies 96 bytes by an assignment. */
struct toy_block {
    uint32_t word[24];
};
void toy_copy(struct toy_block *to, const struct toy_block *from);
void toy_fill(struct toy_block *to);

/* A program of `length` operations on few words, picked by `seed`, for comparison with brute force:
 * what it reads goes into what it writes. What is not `allowed`, or has no function of the host's,
 * is a load instead. */
struct toy_random {
    uint32_t seed, length;
    uint32_t allowed; /* TOY_... */
    void (*wait)(uint32_t *word);
    void (*lock)(uint32_t *word);
    void (*unlock)(uint32_t *word);
    uint32_t (*choose)(void);
};
#define TOY_WAITS   1u
#define TOY_LOCKS   2u
#define TOY_CHOICES 4u
#define TOY_PLAIN   8u /* and so maybe a data race */
void toy_random(struct toys *t, uint32_t self, const struct toy_random *random);

/* y is handed over by x, or by turn; who looks at x too early and comes first to turn goes by z. */
void toy_hand_over(struct toys *t);
void toy_take_over(struct toys *t);

void toy_wild(void);
void toy_spin(struct toys *t); /* until x is not 0 */
void toy_lock(struct toys *t); /* by exchanges of `lock` */
void toy_unlock(struct toys *t);
void toy_for_ever(struct toys *t);

#endif
