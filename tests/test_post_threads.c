/* SPDX-License-Identifier: MIT */
/*
 * One vCPU that enters, is kicked, halts and sleeps, against several senders at once: every
 * accepted interrupt is delivered exactly once, nobody sleeps or stays in the guest with one
 * pending, and a sleeper is woken once. [SDM3 12.8.4] [SDM3 T31-1]
 */
#include "owner.h"

#define SENDERS 3
#define VECTORS 8    /* per sender */
#define ROUNDS  2000 /* per sender */

struct sender {
    struct owner *target;
    struct vapic_vm *vm;
    pthread_t thread;
    uint32_t number;
    uint32_t way;
    uint32_t sent[256];
    uint32_t refused, lost, failed;
};

/* vapic_post(), a message from a device, a line, an NMI and so on: the same protocol below. */
enum way { BY_POST, BY_MESSAGE, BY_BOTH };

static bool send_one(struct sender *s, uint8_t vector, uint32_t round)
{
    struct vapic *v = &s->target->fx->v[s->target->n];
    bool accepted = false;

    if (s->way == BY_POST || (s->way == BY_BOTH && round % 2)) {
        owner_act(s->target, vapic_post(v, vector, round % 3 == 0, &accepted));
    } else {
        struct vapic_sent sent = vapic_send(s->vm, (struct vapic_msg){
                                                       .icr = vector,
                                                       .dest = vapic_id(v),
                                                       .source = VAPIC_FROM_DEVICE,
                                                   });

        accepted = sent.accepted == 1;
        if (accepted)
            owner_act(s->target, (enum vapic_action)sent.action);
    }
    return accepted;
}

/* A vector is sent again only after it was taken, so each sending is one delivery. */
static void *sender_main(void *arg)
{
    struct sender *s = arg;

    for (uint32_t round = 0; round < ROUNDS && s->lost == 0; round++) {
        uint8_t vector = (uint8_t)(0x30 + 0x10 * s->number + round % VECTORS);

        if (!owner_await(s->target, vector, s->sent[vector])) {
            s->lost++;
            break;
        }
        if (send_one(s, vector, round))
            s->sent[vector]++;
        else
            s->refused++;
        if (round % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void start_senders(struct sender *senders, struct owner *o, uint32_t way)
{
    for (uint32_t n = 0; n < SENDERS; n++) {
        senders[n] = (struct sender){.target = o, .vm = &o->fx->vm, .number = n, .way = way};
        assert_int_equal(pthread_create(&senders[n].thread, NULL, sender_main, &senders[n]), 0);
    }
}

static void end_senders(struct sender *senders, struct owner *o)
{
    for (uint32_t n = 0; n < SENDERS; n++)
        pthread_join(senders[n].thread, NULL);
    for (uint32_t n = 0; n < SENDERS; n++) {
        fx_equal(senders[n].lost, 0, "sender %u waited in vain", n);
        fx_equal(senders[n].refused, 0, "sender %u was refused", n);
        for (uint32_t vector = 0; vector < 256; vector++) {
            if (senders[n].sent[vector] == 0)
                continue;
            owner_await(o, (uint8_t)vector, senders[n].sent[vector]);
            fx_equal(owner_load(&o->seen[vector]), senders[n].sent[vector], "vector %x", vector);
        }
    }
}

static void run(bool halts, uint32_t way, void (*between)(struct owner *o, uint32_t round))
{
    static struct owner owner;
    static struct sender senders[SENDERS];
    struct fx *fx = fx_new(&(struct fx_options){.silent = true});

    owner = (struct owner){.fx = fx, .halts = halts, .between = between};
    owner_start(&owner);
    start_senders(senders, &owner, way);
    end_senders(senders, &owner);
    owner_end(&owner);
    assert_int_equal(owner.timeouts, 0);
    assert_true(owner.wakes <= owner.blocks);
    fx_free(fx);
}

static void sleeping_owner_and_posts(void **state)
{
    (void)state;
    run(true, BY_POST, NULL);
}

static void sleeping_owner_and_messages(void **state)
{
    (void)state;
    run(true, BY_MESSAGE, NULL);
}

static void owner_that_stays_in_the_guest(void **state)
{
    (void)state;
    run(false, BY_BOTH, NULL);
}

/* The guest raises its TPR for a while; before anybody sleeps it is low again. */
static void raise_tpr_for_a_round(struct owner *o, uint32_t round)
{
    struct vapic *v = &o->fx->v[o->n];
    struct vapic_entry entry;

    if (round % 4 != 0)
        return;
    vapic_write_cr8(v, 4);
    vapic_enter(v, 0, o->fx->now, &entry);
    vapic_exit(v, entry.cr8, true);
    vapic_write_cr8(v, 0);
}

static void owner_that_changes_its_tpr(void **state)
{
    (void)state;
    run(true, BY_BOTH, raise_tpr_for_a_round);
}

/* Harvests outside of the entry, by reading IRR as a guest does. */
static void read_irr(struct owner *o, uint32_t round)
{
    uint32_t value;

    vapic_mmio_read(&o->fx->v[o->n], APIC_IRR + 16 * (round % 8), &value, 4, o->fx->now);
}

static void owner_that_reads_its_irr(void **state)
{
    (void)state;
    run(true, BY_BOTH, read_irr);
}

/* ---- NMIs and pokes: counted, not vectors ---- */

static void *nmi_main(void *arg)
{
    struct sender *s = arg;
    struct vapic *v = &s->target->fx->v[s->target->n];

    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t before = owner_load(&s->target->nmis);
        time_t end = time(NULL) + OWNER_TIMEOUT_S;

        owner_act(s->target, vapic_nmi(v));
        if (round % 3 == 0)
            owner_act(s->target, vapic_poke(v));
        while (owner_load(&s->target->nmis) == before && time(NULL) <= end)
            sched_yield();
        if (owner_load(&s->target->nmis) == before) {
            s->lost++;
            return NULL;
        }
    }
    return NULL;
}

static void nmis_against_vectors(void **state)
{
    static struct owner owner;
    static struct sender senders[SENDERS];
    static struct sender nmi;
    struct fx *fx = fx_new(&(struct fx_options){.silent = true});

    (void)state;
    owner = (struct owner){.fx = fx, .halts = true};
    owner_start(&owner);
    nmi = (struct sender){.target = &owner, .vm = &fx->vm};
    assert_int_equal(pthread_create(&nmi.thread, NULL, nmi_main, &nmi), 0);
    start_senders(senders, &owner, BY_BOTH);
    end_senders(senders, &owner);
    pthread_join(nmi.thread, NULL);
    owner_end(&owner);
    assert_int_equal(nmi.lost, 0);
    assert_int_equal(owner.nmis, ROUNDS);
    assert_int_equal(owner.timeouts, 0);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleeping_owner_and_posts),
        cmocka_unit_test(sleeping_owner_and_messages),
        cmocka_unit_test(owner_that_stays_in_the_guest),
        cmocka_unit_test(owner_that_changes_its_tpr),
        cmocka_unit_test(owner_that_reads_its_irr),
        cmocka_unit_test(nmis_against_vectors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
