/* SPDX-License-Identifier: MIT */
/*
 * Messages while the vCPUs they are meant for change modes, IDs and logical IDs, come and go: a
 * vCPU that matches before and after is found exactly once, nobody else is, nothing is lost and
 * nothing crashes. [SDM3 12.6.2] [SDM3 12.12.5]
 */
#include <string.h>

#include "owner.h"

#define OWNERS  3
#define SENDERS 2
#define ROUNDS  1500 /* per sender */

struct sender {
    struct stage *stage;
    pthread_t thread;
    uint32_t number;
    uint32_t sent[256];
    uint32_t wrong_count, wrong_target, lost;
    uint32_t in_call; /* atomic: inside the library */
};

/* One scene: who the owners are, what they do, what is sent and who must get it. */
struct stage {
    struct fx *fx;
    struct owner owners[OWNERS];
    struct sender senders[SENDERS];
    struct vapic_msg msg;
    bool by_icr;       /* sent by the guest of a vCPU that the sender owns */
    uint32_t accepted; /* by each message; 0: any number */
    uint32_t targets;  /* bit n: vCPU n must take it (may, when not `exact`) */
    uint32_t allowed;  /* these may take it, too */
    bool exact;        /* each target takes each sending once, nobody else any */
};

static struct stage stage;

static void notify_owner(struct fx *fx, uint32_t vcpu, enum vapic_action action)
{
    (void)fx;
    if (vcpu < OWNERS)
        owner_act(&stage.owners[vcpu], action);
}

/* All that must take the vector have taken it: its next sending cannot coalesce. */
static bool all_took(struct sender *s, uint8_t vector)
{
    for (uint32_t n = 0; n < OWNERS; n++) {
        if ((s->stage->targets >> n & 1) &&
            !owner_await(&s->stage->owners[n], vector, s->sent[vector]))
            return false;
    }
    return true;
}

/* As the guest of the sender's own vCPU, which comes after the owners'. */
static void send_by_icr(struct sender *s, struct vapic_msg msg)
{
    fx_icr(s->stage->fx, OWNERS + s->number, msg.icr, msg.dest);
}

static void send_by_call(struct sender *s, struct vapic_msg msg)
{
    struct vapic_sent sent = vapic_send(&s->stage->fx->vm, msg);

    s->wrong_count += s->stage->accepted != 0 && sent.accepted != s->stage->accepted;
    if (sent.accepted != 1)
        return;
    s->wrong_target += !((s->stage->targets | s->stage->allowed) >> sent.target & 1);
    owner_act(&s->stage->owners[sent.target], (enum vapic_action)sent.action);
}

static void send_round(struct sender *s, uint32_t round)
{
    uint8_t vector = (uint8_t)(0x30 + 0x40 * s->number + round % 16);
    struct vapic_msg msg = s->stage->msg;

    if (s->stage->exact && !all_took(s, vector)) {
        s->lost++;
        return;
    }
    msg.icr |= vector;
    __atomic_store_n(&s->in_call, 1, __ATOMIC_SEQ_CST);
    if (s->stage->by_icr)
        send_by_icr(s, msg);
    else
        send_by_call(s, msg);
    __atomic_store_n(&s->in_call, 0, __ATOMIC_SEQ_CST);
    s->sent[vector]++;
}

static void *sender_main(void *arg)
{
    struct sender *s = arg;

    for (uint32_t round = 0; round < ROUNDS && s->lost == 0; round++)
        send_round(s, round);
    return NULL;
}

static void play(struct fx *fx)
{
    stage.fx = fx;
    fx->on_notify = notify_owner;
    for (uint32_t n = 0; n < SENDERS; n++)
        stage.senders[n] = (struct sender){.stage = &stage, .number = n};
    for (uint32_t n = 0; n < OWNERS; n++) {
        stage.owners[n].fx = fx;
        stage.owners[n].n = n;
        stage.owners[n].spin = true;
        owner_start(&stage.owners[n]);
    }
    for (uint32_t n = 0; n < SENDERS; n++) {
        assert_int_equal(
            pthread_create(&stage.senders[n].thread, NULL, sender_main, &stage.senders[n]), 0);
    }
    for (uint32_t n = 0; n < SENDERS; n++)
        pthread_join(stage.senders[n].thread, NULL);
}

/* The last sendings are still under way when the senders have ended. */
static void await_targets(void)
{
    for (uint32_t s = 0; s < SENDERS; s++) {
        for (uint32_t vector = 0; vector < 256; vector++)
            all_took(&stage.senders[s], (uint8_t)vector);
    }
}

/* Every target took each sending once, the others nothing. */
static void check_exact(void)
{
    for (uint32_t s = 0; s < SENDERS; s++) {
        for (uint32_t vector = 0; vector < 256; vector++) {
            uint32_t sent = stage.senders[s].sent[vector];

            for (uint32_t n = 0; n < OWNERS && sent != 0; n++) {
                if (stage.allowed >> n & 1)
                    continue;
                fx_equal(owner_load(&stage.owners[n].seen[vector]),
                         stage.targets >> n & 1 ? sent : 0, "vCPU %u, vector %x", n, vector);
            }
        }
    }
}

/* Ends all threads before anything is asserted: a failure leaves this function. */
static void finish(struct fx *fx)
{
    if (stage.exact)
        await_targets();
    for (uint32_t n = 0; n < OWNERS; n++)
        owner_end(&stage.owners[n]);
    fx_free(fx);
    for (uint32_t n = 0; n < SENDERS; n++) {
        fx_equal(stage.senders[n].lost, 0, "sender %u waited in vain", n);
        fx_equal(stage.senders[n].wrong_count, 0, "sender %u: not exactly the targets", n);
        fx_equal(stage.senders[n].wrong_target, 0, "sender %u: a wrong target", n);
    }
    if (stage.exact)
        check_exact();
}

static struct fx *vm(void)
{
    memset(&stage, 0, sizeof(stage));
    return fx_new(&(struct fx_options){.vcpus = OWNERS, .silent = true});
}

static struct fx *vm_with_senders(void)
{
    memset(&stage, 0, sizeof(stage));
    stage.by_icr = true;
    return fx_new(&(struct fx_options){.vcpus = OWNERS + SENDERS, .silent = true});
}

/* ---- What the owners do ---- */

static void toggle_mode(struct owner *o, uint32_t round)
{
    struct vapic *v = &o->fx->v[o->n];
    uint64_t base = vapic_base(v);

    if (round % 2 == 0)
        vapic_load_base(v, base ^ APIC_BASE_EXTD);
}

static void toggle_ldr(struct owner *o, uint32_t round)
{
    fx_write(o->fx, o->n, APIC_LDR, round % 2 ? 0x01000000 : 0x02000000);
}

static void toggle_model(struct owner *o, uint32_t round)
{
    fx_write(o->fx, o->n, APIC_DFR, round % 2 ? APIC_DFR_FLAT : APIC_DFR_CLUSTER);
}

static void toggle_id(struct owner *o, uint32_t round)
{
    fx_write(o->fx, o->n, APIC_ID, round % 2 ? 0x21000000 : 0x22000000);
}

static void toggle_enable(struct owner *o, uint32_t round)
{
    struct vapic *v = &o->fx->v[o->n];

    if (round % 2 == 0)
        vapic_load_base(v, vapic_base(v) ^ (APIC_BASE_EN | APIC_BASE_EXTD));
}

static void toggle_software_enable(struct owner *o, uint32_t round)
{
    fx_write(o->fx, o->n, APIC_SVR, round % 2 ? 0x1FF : 0xFF);
}

/* ---- Exactly once ---- */

/* Its ID is the same in both modes, so it always matches. */
static void physical_while_the_target_toggles_its_mode(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[1].between = toggle_mode;
    stage.owners[2].between = toggle_mode;
    stage.msg = (struct vapic_msg){.dest = 1, .source = VAPIC_FROM_DEVICE};
    stage.targets = 1u << 1;
    stage.accepted = 1;
    stage.exact = true;
    play(fx);
    finish(fx);
}

static void toggle_alias(struct owner *o, uint32_t round)
{
    fx_write(o->fx, o->n, APIC_ID, round % 2 ? 0x01000000 : 0x22000000);
}

/* Another one takes the same ID for a while; the first must not suffer. */
static void physical_while_an_alias_comes_and_goes(void **state)
{
    (void)state;
    for (int by_icr = 0; by_icr < 2; by_icr++) {
        struct fx *fx = by_icr ? vm_with_senders() : vm();

        stage.owners[2].between = toggle_alias;
        stage.msg = (struct vapic_msg){.dest = 1, .source = VAPIC_FROM_DEVICE};
        stage.targets = 1u << 1;
        stage.allowed = 1u << 2;
        stage.exact = true;
        play(fx);
        finish(fx);
    }
}

static void ipis_while_the_target_toggles_its_mode(void **state)
{
    struct fx *fx = vm_with_senders();

    (void)state;
    stage.owners[1].between = toggle_mode;
    stage.owners[2].between = toggle_mode;
    stage.msg = (struct vapic_msg){.dest = 1};
    stage.targets = 1u << 1;
    stage.exact = true;
    play(fx);
    finish(fx);
}

static void flat_ipis_while_the_target_changes_its_bit(void **state)
{
    struct fx *fx = vm_with_senders();

    (void)state;
    stage.owners[1].between = toggle_ldr;
    stage.msg = (struct vapic_msg){.icr = APIC_ICR_LOGICAL, .dest = 3};
    fx_write(fx, 1, APIC_LDR, 0x01000000);
    stage.targets = 1u << 1;
    stage.exact = true;
    play(fx);
    finish(fx);
}

static void ipis_to_all_while_all_change(void **state)
{
    struct fx *fx = vm_with_senders();

    (void)state;
    stage.owners[0].between = toggle_id;
    stage.owners[1].between = toggle_mode;
    stage.owners[2].between = toggle_model;
    stage.msg = (struct vapic_msg){.icr = APIC_ICR_ALL_EXCL};
    stage.targets = 7;
    stage.exact = true;
    play(fx);
    finish(fx);
}

/* It matches by one bit or by the other, never by both or neither. */
static void flat_while_the_target_changes_its_bit(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[1].between = toggle_ldr;
    stage.msg = (struct vapic_msg){.icr = APIC_ICR_LOGICAL, .dest = 3, .source = VAPIC_FROM_DEVICE};
    fx_write(fx, 1, APIC_LDR, 0x01000000);
    stage.targets = 1u << 1;
    stage.accepted = 1;
    stage.exact = true;
    play(fx);
    finish(fx);
}

/* LDR 11h matches 11h in both models. */
static void logical_while_the_target_changes_its_model(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[2].between = toggle_model;
    fx_write(fx, 2, APIC_LDR, 0x11000000);
    stage.msg =
        (struct vapic_msg){.icr = APIC_ICR_LOGICAL, .dest = 0x11, .source = VAPIC_FROM_DEVICE};
    stage.targets = 1u << 2;
    stage.accepted = 1;
    stage.exact = true;
    play(fx);
    finish(fx);
}

static void broadcast_while_all_change(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[0].between = toggle_mode;
    stage.owners[1].between = toggle_id;
    stage.owners[2].between = toggle_ldr;
    stage.msg = (struct vapic_msg){.dest = 0xFF, .source = VAPIC_FROM_DEVICE};
    stage.targets = 7;
    stage.accepted = 3;
    stage.exact = true;
    play(fx);
    finish(fx);
}

static void shorthand_while_all_change(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[0].between = toggle_id;
    stage.owners[1].between = toggle_mode;
    stage.owners[2].between = toggle_model;
    stage.msg = (struct vapic_msg){.icr = APIC_ICR_ALL_EXCL, .source = 0};
    stage.targets = 6;
    stage.accepted = 2;
    stage.exact = true;
    play(fx);
    finish(fx);
}

/* One of the two is always there; exactly one is chosen each time. */
static void lowest_priority_while_a_candidate_leaves(void **state)
{
    struct fx *fx = vm();

    (void)state;
    fx_write(fx, 1, APIC_LDR, 0x01000000);
    fx_write(fx, 2, APIC_LDR, 0x02000000);
    stage.owners[2].between = toggle_software_enable;
    stage.msg = (struct vapic_msg){
        .icr = APIC_ICR_LOGICAL | APIC_DM_LOWEST, .dest = 3, .source = VAPIC_FROM_DEVICE};
    stage.targets = 6;
    stage.accepted = 1;
    play(fx);
    finish(fx);
}

/* ---- By rule or not at all ---- */

static void trap_53_target_toggles_between_off_and_x2apic(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[2].between = toggle_enable;
    stage.owners[1].between = toggle_mode;
    stage.msg = (struct vapic_msg){.dest = 2, .source = VAPIC_FROM_DEVICE};
    stage.targets = 1u << 2;
    play(fx);
    for (uint32_t vector = 0; vector < 256; vector++) {
        assert_int_equal(owner_load(&stage.owners[0].seen[vector]), 0);
        assert_int_equal(owner_load(&stage.owners[1].seen[vector]), 0);
    }
    finish(fx);
}

static void target_changes_its_id(void **state)
{
    struct fx *fx = vm();

    (void)state;
    stage.owners[1].between = toggle_id;
    stage.msg = (struct vapic_msg){.dest = 0x21, .source = VAPIC_FROM_DEVICE};
    stage.targets = 1u << 1;
    play(fx);
    finish(fx);
}

/* ---- vCPUs that come and go ---- */

/* A grace period: each sender was outside of the library at least once. */
static void wait_for_senders(struct fx *fx)
{
    (void)fx;
    for (uint32_t n = 0; n < SENDERS; n++) {
        while (__atomic_load_n(&stage.senders[n].in_call, __ATOMIC_SEQ_CST) != 0)
            sched_yield();
    }
}

/* Between removing and adding again nobody may look at the memory: it is scribbled over. */
static void replace(struct owner *o, uint32_t round)
{
    struct vapic *v = &o->fx->v[o->n];
    uint8_t *page = o->fx->pages + 4096u * o->n;
    const struct vapic_config config = {.id = o->n, .features = VAPIC_FEATURE_X2APIC, .bsp = true};

    if (round % 8 != 7)
        return;
    if (vapic_remove(v) != VAPIC_OK)
        return;
    memset(page, 0xA5, 4096);
    memset(v, 0xA5, sizeof(*v));
    vapic_init(v, sizeof(*v), &o->fx->vm, &config, page);
    vapic_add(v);
    fx_write(o->fx, o->n, APIC_LDR, 0x02000000);
    fx_write(o->fx, o->n, APIC_SVR, 0x1FF);
}

static void replaced_vcpus(uint32_t icr, uint32_t dest)
{
    struct fx *fx = vm();

    fx->on_quiesce = wait_for_senders;
    stage.owners[1].between = replace;
    stage.owners[2].between = toggle_mode;
    stage.msg = (struct vapic_msg){.icr = icr, .dest = dest, .source = VAPIC_FROM_DEVICE};
    stage.targets = 7;
    play(fx);
    finish(fx);
}

static void physical_to_a_vcpu_that_is_replaced(void **state)
{
    (void)state;
    replaced_vcpus(0, 1);
}

static void logical_to_a_vcpu_that_is_replaced(void **state)
{
    (void)state;
    replaced_vcpus(APIC_ICR_LOGICAL, 2);
}

static void broadcast_with_a_vcpu_that_is_replaced(void **state)
{
    (void)state;
    replaced_vcpus(0, 0xFF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(physical_while_the_target_toggles_its_mode),
        cmocka_unit_test(physical_while_an_alias_comes_and_goes),
        cmocka_unit_test(ipis_while_the_target_toggles_its_mode),
        cmocka_unit_test(flat_ipis_while_the_target_changes_its_bit),
        cmocka_unit_test(ipis_to_all_while_all_change),
        cmocka_unit_test(flat_while_the_target_changes_its_bit),
        cmocka_unit_test(logical_while_the_target_changes_its_model),
        cmocka_unit_test(broadcast_while_all_change),
        cmocka_unit_test(shorthand_while_all_change),
        cmocka_unit_test(lowest_priority_while_a_candidate_leaves),
        cmocka_unit_test(trap_53_target_toggles_between_off_and_x2apic),
        cmocka_unit_test(target_changes_its_id),
        cmocka_unit_test(physical_to_a_vcpu_that_is_replaced),
        cmocka_unit_test(logical_to_a_vcpu_that_is_replaced),
        cmocka_unit_test(broadcast_with_a_vcpu_that_is_replaced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
