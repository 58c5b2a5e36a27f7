/* SPDX-License-Identifier: MIT */
/*
 * Sending by the ICR: delivery mode against shorthand against APIC mode, levels, what a sender may
 * do while disabled, what vapic_send() tells. [SDM3 12.6.1] [SDM3 12.12.9]
 */
#include "fixture.h"

#define VCPUS 4

/* What a receiver that runs with nothing blocked sees. */
static const struct mode_row {
    uint32_t mode;
    const char *name;
    enum vapic_inject inject;
    enum vapic_cpu_event event;
} modes[] = {
    {APIC_DM_FIXED, "fixed", VAPIC_INJECT_VECTOR, VAPIC_CPU_NONE},
    {APIC_DM_SMI, "SMI", VAPIC_INJECT_SMI, VAPIC_CPU_NONE},
    {APIC_DM_REMOTE, "remote read", VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
    {APIC_DM_NMI, "NMI", VAPIC_INJECT_NMI, VAPIC_CPU_NONE},
    {APIC_DM_INIT, "INIT", VAPIC_INJECT_NONE, VAPIC_CPU_INIT},
    {APIC_DM_SIPI, "SIPI to a running processor", VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
    {APIC_DM_EXTINT, "ExtINT", VAPIC_INJECT_NONE, VAPIC_CPU_NONE},
};

#define MODES (sizeof(modes) / sizeof(modes[0]))

/* Bit n: vCPU n is a target of a message from vCPU 1, without shorthand to ID 2. */
static const struct {
    uint32_t bits;
    const char *name;
    unsigned targets;
} shorthands[] = {
    {0, "none", 0x4},
    {APIC_ICR_SELF, "self", 0x2},
    {APIC_ICR_ALL_INCL, "all including self", 0xF},
    {APIC_ICR_ALL_EXCL, "all excluding self", 0xD},
};

static struct fx *new_fx(bool x2apic)
{
    return fx_new(&(struct fx_options){.vcpus = VCPUS, .x2apic = x2apic});
}

static void check_receiver(struct fx *fx, uint32_t n, const struct mode_row *mode, bool target,
                           const char *shorthand)
{
    struct vapic_entry entry = fx_step(fx, n, FX_CAN_ALL);

    fx_equal(entry.inject, target ? mode->inject : VAPIC_INJECT_NONE, "%s, %s, vCPU %u: inject",
             mode->name, shorthand, n);
    fx_equal(entry.event, target ? mode->event : VAPIC_CPU_NONE, "%s, %s, vCPU %u: event",
             mode->name, shorthand, n);
    if (entry.event != VAPIC_CPU_NONE)
        return;
    if (entry.inject == VAPIC_INJECT_VECTOR)
        fx_equal(entry.vector, 0x51, "%s, %s, vCPU %u: vector", mode->name, shorthand, n);
    fx_equal(fx_bit(fx, n, APIC_TMR, 0x51), 0, "%s, %s: TMR", mode->name, shorthand);
    fx_equal(fx_step(fx, n, FX_CAN_ALL).inject, VAPIC_INJECT_NONE, "%s, %s, vCPU %u: once",
             mode->name, shorthand, n);
}

/* Every delivery mode by every shorthand in both formats reaches exactly whom it should. */
static void mode_by_shorthand_by_format(void **state)
{
    (void)state;
    for (uint32_t m = 0; m < MODES; m++) {
        for (uint32_t s = 0; s < 4; s++) {
            for (int x2apic = 0; x2apic < 2; x2apic++) {
                struct fx *fx = new_fx(x2apic != 0);

                fx_icr(fx, 1, modes[m].mode | shorthands[s].bits | 0x51, 2);
                for (uint32_t n = 0; n < VCPUS; n++)
                    check_receiver(fx, n, &modes[m], shorthands[s].targets >> n & 1,
                                   shorthands[s].name);
                fx_free(fx);
            }
        }
    }
}

/* A shorthand ignores destination and destination mode. */
static void shorthand_ignores_the_destination(void **state)
{
    static const uint32_t destinations[] = {0, 1, 2, 0x77, 0xFF};

    (void)state;
    for (uint32_t s = 1; s < 4; s++) {
        for (uint32_t d = 0; d < 5; d++) {
            struct fx *fx = new_fx(false);

            fx_icr(fx, 1, APIC_ICR_LOGICAL | shorthands[s].bits | 0x51, destinations[d]);
            for (uint32_t n = 0; n < VCPUS; n++)
                fx_equal(fx_take(fx, n) == 0x51, shorthands[s].targets >> n & 1, "%s, vCPU %u",
                         shorthands[s].name, n);
            fx_free(fx);
        }
    }
}

static void shorthand_reaches_both_kinds(void **state)
{
    struct fx *fx = new_fx(false);

    (void)state;
    assert_int_equal(vapic_load_base(&fx->v[2], vapic_base(&fx->v[2]) | APIC_BASE_EXTD), VAPIC_OK);
    fx_icr(fx, 0, APIC_ICR_ALL_EXCL | 0x51, 0);
    fx_icr(fx, 2, APIC_ICR_ALL_EXCL | 0x61, 0);
    for (uint32_t n = 0; n < VCPUS; n++) {
        fx_equal(fx_take_eoi(fx, n), n == 2 ? 0x51 : 0x61, "vCPU %u", n);
        fx_equal(fx_take_eoi(fx, n), n == 2 || n == 0 ? (uint64_t)-1 : 0x51, "vCPU %u, second", n);
    }
    fx_free(fx);
}

static void trap_41_self_ipi(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct fx *fx = fx_new(&(struct fx_options){.x2apic = how > 0});

        if (how == 2)
            assert_int_equal(fx_wrmsr(fx, 0, 0x83F, 0x51), VAPIC_OK);
        else
            fx_icr(fx, 0, APIC_ICR_SELF | 0x51, 0);
        fx_equal(fx_take_eoi(fx, 0), 0x51, "how %d", how);
        fx_equal(fx_take(fx, 0), (uint64_t)-1, "how %d, once", how);
        fx_free(fx);
    }
}

static void to_oneself_by_id(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = new_fx(x2apic != 0);

        fx_icr(fx, 3, 0x51, 3);
        assert_int_equal(fx_take(fx, 3), 0x51);
        fx_icr(fx, 3, APIC_DM_NMI, 3);
        assert_int_equal(fx_step(fx, 3, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
        fx_free(fx);
    }
}

/* [SDM3 12.6.1] a destination that nobody has */
static void nobody(void **state)
{
    (void)state;
    for (uint32_t mode = 0; mode < 8; mode++) {
        for (int x2apic = 0; x2apic < 2; x2apic++) {
            struct fx *fx = new_fx(x2apic != 0);

            fx_icr(fx, 0, mode << 8 | 0x51, 0x77);
            for (uint32_t n = 0; n < VCPUS; n++)
                fx_equal(fx_step(fx, n, FX_CAN_ALL).inject, VAPIC_INJECT_NONE, "mode %u, vCPU %u",
                         mode, n);
            fx_set(fx, 0, APIC_ESR, 0);
            fx_equal(fx_get(fx, 0, APIC_ESR), 0, "mode %u, ESR", mode);
            fx_free(fx);
        }
    }
}

/* ---- Trigger and level ---- */

static const struct {
    uint32_t bits;
    int delivered;
    bool tmr;
} trigger_rows[] = {
    {0, 1, false},
    {APIC_ICR_ASSERT, 1, false},
    {APIC_ICR_LEVEL | APIC_ICR_ASSERT, 1, true},
    {APIC_ICR_LEVEL, 0, false}, /* a de-assert message */
};

static void trigger_and_level_of_fixed(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 4; n++) {
        struct fx *fx = new_fx(false);

        fx_icr(fx, 0, trigger_rows[n].bits | 0x51, 1);
        fx_equal(fx_take(fx, 1) == 0x51, trigger_rows[n].delivered, "row %u", n);
        fx_equal(fx_bit(fx, 1, APIC_TMR, 0x51), trigger_rows[n].tmr, "row %u, TMR", n);
        fx_free(fx);
    }
}

static void trigger_and_level_to_oneself(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 4; n++) {
        for (uint32_t by_id = 0; by_id < 2; by_id++) {
            struct fx *fx = new_fx(false);

            fx_icr(fx, 1, trigger_rows[n].bits | (by_id ? 0 : APIC_ICR_SELF) | 0x51, 1);
            fx_equal(fx_take(fx, 1) == 0x51, trigger_rows[n].delivered, "row %u", n);
            fx_equal(fx_bit(fx, 1, APIC_TMR, 0x51), trigger_rows[n].tmr, "row %u, TMR", n);
            fx_free(fx);
        }
    }
}

/* [SDM3 12.6.1] INIT Level De-assert does nothing; an edge with level 0 is an INIT. */
static void trigger_and_level_of_init(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 4; n++) {
        struct fx *fx = new_fx(false);

        fx_icr(fx, 0, trigger_rows[n].bits | APIC_DM_INIT, 1);
        fx_equal(fx_step(fx, 1, FX_CAN_ALL).event,
                 trigger_rows[n].delivered ? VAPIC_CPU_INIT : VAPIC_CPU_NONE, "row %u", n);
        fx_free(fx);
    }
}

/* Also where IPIs have no levels: the de-assert is not an INIT for that. */
static void init_deassert_without_level_ipis(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .vcpus = 2,
        .config = {.knobs = VAPIC_PROFILE_MANUAL & ~(unsigned)VAPIC_KNOB_LEVEL_IPI,
                   .knobs_set = true}});

    (void)state;
    fx_icr(fx, 0, APIC_ICR_LEVEL | APIC_DM_INIT, 1);
    assert_int_equal(fx_step(fx, 1, FX_CAN_ALL).event, VAPIC_CPU_NONE);
    fx_icr(fx, 0, APIC_ICR_LEVEL | APIC_ICR_ASSERT | APIC_DM_INIT, 1);
    assert_int_equal(fx_step(fx, 1, FX_CAN_ALL).event, VAPIC_CPU_INIT);
    fx_free(fx);
}

/* NMI, SMI and SIPI are edges: the bits do not matter. */
static void nmi_and_smi_ignore_trigger(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct fx *fx = new_fx(false);

        fx_icr(fx, 0, trigger_rows[n].bits | APIC_DM_NMI | 3, 1);
        fx_equal(fx_step(fx, 1, FX_CAN_ALL).inject, VAPIC_INJECT_NMI, "row %u", n);
        fx_icr(fx, 0, trigger_rows[n].bits | APIC_DM_SMI, 1);
        fx_equal(fx_step(fx, 1, FX_CAN_ALL).inject, VAPIC_INJECT_SMI, "row %u", n);
        fx_free(fx);
    }
}

/* ---- The sender's own state ---- */

/* [SDM3 12.4.7.2] */
static void software_disabled_sender(void **state)
{
    struct fx *fx = new_fx(false);

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0xFF);
    fx_icr(fx, 0, 0x51, 1);
    assert_int_equal(fx_take(fx, 1), 0x51);
    fx_icr(fx, 0, APIC_ICR_SELF | 0x52, 0);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void software_disabled_receiver(void **state)
{
    static const struct mode_row *row;

    (void)state;
    for (uint32_t m = 0; m < MODES; m++) {
        struct fx *fx = new_fx(false);
        struct vapic_entry entry;

        row = &modes[m];
        fx_set(fx, 2, APIC_SVR, 0xFF);
        fx_icr(fx, 1, row->mode | 0x51, 2);
        entry = fx_step(fx, 2, FX_CAN_ALL);
        fx_equal(entry.inject, row->mode == APIC_DM_FIXED ? VAPIC_INJECT_NONE : row->inject, "%s",
                 row->name);
        fx_equal(entry.event, row->event, "%s", row->name);
        fx_free(fx);
    }
}

/* [SDM3 12.12.9] one 64-bit register in x2APIC mode, two of 32 bits in xAPIC mode */
static void x2apic_destination_is_wide(void **state)
{
    static const uint32_t ids[] = {0, 0x100, 0x12345678, 0xFFFFFFFE};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 4, .ids = ids, .x2apic = true});

    (void)state;
    for (uint32_t n = 1; n < 4; n++) {
        fx_icr(fx, 0, 0x51, ids[n]);
        for (uint32_t target = 0; target < 4; target++)
            fx_equal(fx_take_eoi(fx, target), target == n ? 0x51 : (uint64_t)-1, "%x at %u", ids[n],
                     target);
    }
    fx_free(fx);
}

static void delivery_status_reads_idle(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = new_fx(x2apic != 0);

        fx_icr(fx, 0, 0x51 | APIC_ICR_BUSY, 1);
        assert_int_equal(fx_get(fx, 0, APIC_ICR), 0x51);
        fx_free(fx);
    }
}

/* ---- What vapic_send() and vapic_post() tell ---- */

static struct vapic_sent device(struct fx *fx, uint32_t icr, uint32_t dest)
{
    return vapic_send(&fx->vm,
                      (struct vapic_msg){.icr = icr, .dest = dest, .source = VAPIC_FROM_DEVICE});
}

static void sent_to_one(void **state)
{
    struct fx *fx = new_fx(false);
    struct vapic_sent sent = device(fx, 0x51, 2);

    (void)state;
    assert_int_equal(sent.accepted, 1);
    assert_int_equal(sent.target, vapic_index(&fx->v[2]));
    assert_int_equal(sent.coalesced, 0);
    assert_int_equal(sent.action, VAPIC_ACTION_NONE);
    sent = device(fx, 0x51, 2);
    assert_int_equal(sent.accepted, 1);
    assert_int_equal(sent.coalesced, 1);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 0);
    fx_free(fx);
}

/* The vector may wait in IRR already, long harvested. */
static void coalesced_with_irr(void **state)
{
    struct fx *fx = new_fx(false);

    (void)state;
    device(fx, 0x51, 2);
    assert_true(fx_bit(fx, 2, APIC_IRR, 0x51));
    device(fx, 0x51, 2);
    assert_int_equal(fx_take_eoi(fx, 2), 0x51);
    assert_int_equal(fx_take(fx, 2), -1);
    fx_free(fx);
}

/* However the one target is found. */
static void coalesced_by_every_kind_of_message(void **state)
{
    static const struct {
        uint32_t icr, dest;
    } kinds[] = {
        {0x51, 2},
        {APIC_DM_LOWEST | 0x52, 2},
        {APIC_ICR_LOGICAL | 0x53, 4},
        {APIC_ICR_LOGICAL | APIC_DM_LOWEST | 0x54, 4},
        {APIC_ICR_LEVEL | APIC_ICR_ASSERT | 0x55, 2},
        {APIC_ICR_LOGICAL | APIC_ICR_LEVEL | APIC_ICR_ASSERT | 0x56, 4},
    };
    struct fx *fx = new_fx(false);

    (void)state;
    fx_write(fx, 2, APIC_LDR, 0x04000000);
    for (uint32_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++) {
        for (uint32_t again = 0; again < 2; again++) {
            struct vapic_sent sent = device(fx, kinds[n].icr, kinds[n].dest);

            fx_equal(sent.accepted, 1, "ICR %x", kinds[n].icr);
            fx_equal(sent.target, 2, "ICR %x, target", kinds[n].icr);
            fx_equal(sent.coalesced, again, "ICR %x, coalesced", kinds[n].icr);
        }
    }
    fx_free(fx);
}

static void sent_to_nobody(void **state)
{
    struct fx *fx = new_fx(false);

    (void)state;
    assert_int_equal(device(fx, 0x51, 0x77).accepted, 0);
    fx_set(fx, 1, APIC_SVR, 0xFF);
    assert_int_equal(device(fx, 0x51, 1).accepted, 0);
    fx_free(fx);
}

/* One target: the caller acts. Several: the library has notified each. */
static void sent_to_vcpus_in_the_guest(void **state)
{
    struct fx *fx = new_fx(false);
    struct vapic_sent sent;

    (void)state;
    for (uint32_t n = 0; n < VCPUS; n++)
        fx_peek(fx, n, FX_CAN_ALL);
    sent = device(fx, 0x51, 2);
    assert_int_equal(sent.accepted, 1);
    assert_int_equal(sent.action, VAPIC_ACTION_KICK);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 0);
    sent = device(fx, 0x61, 0xFF);
    assert_int_equal(sent.accepted, 4);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 3); /* vCPU 2 is on its way out already */
    for (uint32_t n = 0; n < 3; n++)
        assert_int_equal(fx_nth(fx, FX_NOTIFY, n).a, VAPIC_ACTION_KICK);
    fx_free(fx);
}

static void guest_ipis_notify(void **state)
{
    struct fx *fx = new_fx(false);

    (void)state;
    fx_peek(fx, 2, FX_CAN_ALL);
    fx_icr(fx, 0, 0x51, 2);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 1);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).vcpu, 2);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).a, VAPIC_ACTION_KICK);
    fx_free(fx);
}

static void delivery_takes_no_lock(void **state)
{
    struct fx *fx = new_fx(false);

    (void)state;
    for (uint32_t m = 0; m < MODES; m++) {
        if (modes[m].mode == APIC_DM_INIT)
            continue;
        for (uint32_t s = 0; s < 4; s++)
            fx_icr(fx, 1, modes[m].mode | shorthands[s].bits | 0x51, 2);
    }
    fx_icr(fx, 1, APIC_ICR_LOGICAL | APIC_DM_LOWEST | 0x51, 0xFF);
    for (uint32_t n = 0; n < VCPUS; n++)
        fx_step(fx, n, FX_CAN_ALL);
    assert_int_equal(fx_count(fx, FX_LOCK), 0);
    fx_free(fx);
}

static void counts_what_was_sent(void **state)
{
    struct fx *fx =
        fx_new(&(struct fx_options){.vcpus = VCPUS, .config = {.count_received = true}});
    struct vapic_stats stats;

    (void)state;
    fx_icr(fx, 0, 0x51, 1);
    fx_icr(fx, 0, APIC_ICR_ALL_EXCL | 0x52, 0);
    fx_icr(fx, 0, 0x53, 0x77);
    device(fx, 0x54, 1);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.ipis_sent, 3);
    assert_int_equal(stats.ipi_targets, 4);
    assert_int_equal(stats.ipis_received, 0);
    vapic_get_stats(&fx->v[1], &stats);
    assert_int_equal(stats.ipis_received, 2);
    assert_int_equal(stats.msis_received, 1);
    assert_int_equal(stats.posts_unnotified, 3); /* it was not in the guest */
    fx_free(fx);
}

/* A source that is no vCPU: nothing, not even for shorthands that name the sender. */
static void message_from_an_unknown_source(void **state)
{
    struct fx *fx = new_fx(false);
    static const uint32_t sources[] = {VCPUS, 0xFFFF, VAPIC_FROM_DEVICE};

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        struct vapic_msg msg = {.icr = APIC_ICR_SELF | 0x51, .source = sources[n]};

        fx_equal(vapic_send(&fx->vm, msg).accepted, 0, "source %x", sources[n]);
    }
    fx_free(fx);
}

/* An illegal vector reaches nobody, however it is sent. */
static void illegal_vectors_are_not_accepted(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = new_fx(x2apic != 0);

        for (uint32_t s = 0; s < 4; s++)
            fx_icr(fx, 1, shorthands[s].bits | 15, 2);
        for (uint32_t n = 0; n < VCPUS; n++)
            fx_equal(fx_get(fx, n, APIC_IRR), 0, "vCPU %u", n);
        fx_free(fx);
    }
}

/* What the host sends in a vCPU's name is checked as the rest is. */
static void illegal_vector_in_a_message_of_the_host(void **state)
{
    static const uint32_t forms[] = {0, APIC_ICR_SELF, APIC_DM_LOWEST,
                                     APIC_ICR_LEVEL | APIC_ICR_ASSERT};
    struct fx *fx = new_fx(false);

    (void)state;
    for (uint32_t n = 0; n < 4; n++) {
        struct vapic_msg msg = {.icr = forms[n] | 15, .dest = 1, .source = vapic_index(&fx->v[1])};

        vapic_send(&fx->vm, msg);
        fx_equal(fx_take(fx, 1), (uint64_t)-1, "form %x", forms[n]);
        fx_equal(fx_get(fx, 1, APIC_IRR), 0, "form %x", forms[n]);
    }
    fx_free(fx);
}

/* ---- The common case in every variant: one physical target, counted, traced, widely addressed
 * ---- */

static void check_common(struct fx *fx, uint32_t dest, uint32_t target, const char *name)
{
    for (uint32_t mode = 0; mode < 2; mode++) {
        for (uint32_t level = 0; level < 2; level++) {
            uint32_t icr = mode << 8 | (level ? APIC_ICR_LEVEL | APIC_ICR_ASSERT : 0) | 0x51;

            fx_icr(fx, 0, icr, dest);
            for (uint32_t n = 0; n < fx->vcpus; n++) {
                fx_equal(fx_take_eoi(fx, n), n == target ? 0x51 : (uint64_t)-1,
                         "%s: ICR %x to %x at %u", name, icr, dest, n);
                if (n == target)
                    fx_equal(fx_bit(fx, n, APIC_TMR, 0x51), level, "%s: ICR %x, TMR", name, icr);
            }
        }
    }
}

static void one_physical_target(void **state)
{
    static const uint32_t ids[] = {0, 7, 0xFE, 0x101, 0xFFF8, 0x10009};

    (void)state;
    for (uint32_t variant = 0; variant < 8; variant++) {
        struct fx *fx = fx_new(&(struct fx_options){
            .vcpus = 6,
            .ids = ids,
            .x2apic = (variant & 1) != 0,
            .config = {.count_received = (variant & 2) != 0, .id_bound = 65536}});

        if (variant & 4)
            fx_trace(fx);
        for (uint32_t n = 0; n < (variant & 1 ? 6 : 3); n++)
            check_common(fx, ids[n], n, variant & 1 ? "x2APIC" : "xAPIC");
        fx_free(fx);
    }
}

/* In xAPIC mode the IDs 101h and 1 are one, and FFFFh is FFh. */
static void one_physical_target_with_an_alias(void **state)
{
    static const uint32_t ids[] = {0, 1, 0x101};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3, .ids = ids});

    (void)state;
    fx_icr(fx, 0, 0x51, 1);
    assert_int_equal(fx_take_eoi(fx, 1), 0x51);
    assert_int_equal(fx_take_eoi(fx, 2), 0x51);
    fx_write(fx, 2, APIC_ID, 0);
    fx_icr(fx, 1, 0x51, 0);
    assert_int_equal(fx_take_eoi(fx, 0), 0x51);
    assert_int_equal(fx_take_eoi(fx, 1), -1);
    assert_int_equal(fx_take_eoi(fx, 2), 0x51);
    check_common(fx, 1, 1, "alias gone");
    fx_free(fx);
}

/* A target that went to x2APIC mode or away leaves the alias alone. */
static void one_physical_target_changes_its_mode(void **state)
{
    static const uint32_t ids[] = {0, 1, 0x101};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3, .ids = ids});

    (void)state;
    assert_int_equal(vapic_load_base(&fx->v[2], vapic_base(&fx->v[2]) | APIC_BASE_EXTD), VAPIC_OK);
    check_common(fx, 1, 1, "alias in x2APIC mode");
    assert_int_equal(vapic_load_base(&fx->v[1], vapic_base(&fx->v[1]) & ~(uint64_t)APIC_BASE_EN),
                     VAPIC_OK);
    check_common(fx, 1, 77, "target off");
    assert_int_equal(vapic_load_base(&fx->v[2], vapic_base(&fx->v[2]) & ~(uint64_t)APIC_BASE_EXTD),
                     VAPIC_OK);
    check_common(fx, 1, 2, "alias alone");
    fx_free(fx);
}

static void self_ipi_counted_and_traced(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.config = {.count_received = true}});
    struct vapic_stats stats;

    (void)state;
    fx_trace(fx);
    fx_icr(fx, 0, APIC_ICR_SELF | 0x51, 0);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.ipis_sent, 1);
    assert_int_equal(stats.ipi_targets, 1);
    assert_int_equal(stats.ipis_received, 1);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

/* The trace tells edge from level. */
static void traced_trigger_mode(void **state)
{
    static const uint32_t forms[] = {APIC_ICR_SELF, 0};

    (void)state;
    for (uint32_t form = 0; form < 2; form++) {
        for (uint32_t level = 0; level < 2; level++) {
            struct fx *fx = fx_new(NULL);
            uint32_t accepted = 0;

            fx_trace(fx);
            fx_icr(fx, 0, forms[form] | (level ? APIC_ICR_LEVEL | APIC_ICR_ASSERT : 0) | 0x51, 0);
            for (uint32_t n = 0; n < fx_count(fx, FX_TRACE); n++) {
                struct vapic_event event = fx_nth(fx, FX_TRACE, n).event;

                if (event.kind != VAPIC_EVENT_APIC_ACCEPT_IRQ)
                    continue;
                accepted++;
                fx_equal(event.arg[2], level, "trigger mode, form %u", form);
                fx_equal(event.arg[3], 0x51, "vector, form %u", form);
            }
            fx_equal(accepted, 1, "events, form %u", form);
            fx_free(fx);
        }
    }
}

/* [SDM3 12.4.7.2] reached nobody, and says so */
static void self_ipi_while_software_disabled(void **state)
{
    struct fx *fx = new_fx(false);
    struct vapic_stats stats;

    (void)state;
    fx_set(fx, 0, APIC_SVR, 0xFF);
    fx_icr(fx, 0, APIC_ICR_SELF | 0x51, 0);
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.ipi_targets, 0);
    assert_int_equal(fx_get(fx, 0, APIC_IRR + 0x20), 0);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mode_by_shorthand_by_format),
        cmocka_unit_test(shorthand_ignores_the_destination),
        cmocka_unit_test(shorthand_reaches_both_kinds),
        cmocka_unit_test(trap_41_self_ipi),
        cmocka_unit_test(to_oneself_by_id),
        cmocka_unit_test(nobody),
        cmocka_unit_test(trigger_and_level_of_fixed),
        cmocka_unit_test(trigger_and_level_to_oneself),
        cmocka_unit_test(trigger_and_level_of_init),
        cmocka_unit_test(init_deassert_without_level_ipis),
        cmocka_unit_test(nmi_and_smi_ignore_trigger),
        cmocka_unit_test(software_disabled_sender),
        cmocka_unit_test(software_disabled_receiver),
        cmocka_unit_test(x2apic_destination_is_wide),
        cmocka_unit_test(delivery_status_reads_idle),
        cmocka_unit_test(sent_to_one),
        cmocka_unit_test(coalesced_with_irr),
        cmocka_unit_test(coalesced_by_every_kind_of_message),
        cmocka_unit_test(sent_to_nobody),
        cmocka_unit_test(sent_to_vcpus_in_the_guest),
        cmocka_unit_test(guest_ipis_notify),
        cmocka_unit_test(delivery_takes_no_lock),
        cmocka_unit_test(counts_what_was_sent),
        cmocka_unit_test(message_from_an_unknown_source),
        cmocka_unit_test(illegal_vectors_are_not_accepted),
        cmocka_unit_test(illegal_vector_in_a_message_of_the_host),
        cmocka_unit_test(one_physical_target),
        cmocka_unit_test(one_physical_target_with_an_alias),
        cmocka_unit_test(one_physical_target_changes_its_mode),
        cmocka_unit_test(self_ipi_counted_and_traced),
        cmocka_unit_test(traced_trigger_mode),
        cmocka_unit_test(self_ipi_while_software_disabled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
