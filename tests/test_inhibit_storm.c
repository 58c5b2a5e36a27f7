/* SPDX-License-Identifier: MIT */
/*
 * A storm of toggles, with interrupts of every source to vCPUs that run, sleep, or are preempted,
 * and nobody looks until several have come: none is lost, none invented, and none delivered more
 * often than it was sent. A vCPU that sleeps and gets none is left asleep.
 */
#include "accel_modes.h"
#include "vapic/arch/apic.h"

#include <string.h>

#define VCPUS  4u
#define IDLE   3u
#define ROUNDS 400u
#define BURST  6u

enum source { BY_IPI, BY_SELF, BY_POST, BY_MSI, BY_MESSAGE, BY_TIMER, SOURCES };

static uint32_t state;

static uint32_t below(uint32_t n)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)state * n) >> 32);
}

static uint8_t vector_of(enum source source)
{
    return (uint8_t)(0x31 + 0x10 * source);
}

static void send_message(struct ax *ax, uint32_t n, uint8_t vector)
{
    struct vapic_sent sent = vapic_send(
        &ax->vm, (struct vapic_msg){.icr = vector, .dest = n, .source = VAPIC_FROM_DEVICE});

    assert_int_equal(sent.accepted, 1);
    ax_act(ax, n, (enum vapic_action)sent.action);
}

/* Returns the vCPU that it was for. */
static uint32_t send_one(struct ax *ax, enum source source)
{
    uint32_t n = below(IDLE);
    uint8_t vector = vector_of(source);

    switch (source) {
    case BY_IPI:
        ax_ipi(ax, 0, vector, n);
        return n;
    case BY_SELF:
        ax_ipi(ax, 0, vector | APIC_ICR_SELF, 0);
        return 0;
    case BY_POST:
        ax_post(ax, n, vector, false);
        return n;
    case BY_MSI:
        assert_int_equal(vapic_msi(&ax->vm, APIC_DEFAULT_BASE | n << 12, vector), 1);
        return n;
    case BY_MESSAGE:
        send_message(ax, n, vector);
        return n;
    case BY_TIMER:
    case SOURCES:
        break;
    }
    ax_write(ax, 0, APIC_TMICT, 1);
    ax->now.ns += 1000;
    ax->now.tsc += 1000;
    ax_act(ax, 0, vapic_timer_expired(&ax->v[0]->apic));
    return 0;
}

static void disturb(struct ax *ax, bool *inhibited)
{
    uint32_t n = below(IDLE);

    if (below(2) == 0) {
        *inhibited = !*inhibited;
        vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, *inhibited);
    }
    if (below(4) == 0 && n != 0) {
        ax_put(ax, n);
        ax_load(ax, n, n);
    }
    if (below(4) == 0)
        ax_leave(ax, n);
}

static void end_all(struct ax *ax)
{
    for (uint32_t n = 0; n < IDLE; n++)
        for (uint32_t i = 0; i < ax_count(ax, AX_DELIVERED) + 1; i++)
            if (!ax->v[n]->blocked)
                ax_eoi(ax, n);
}

static void check(struct ax *ax, const uint32_t sent[VCPUS][SOURCES])
{
    for (uint32_t n = 0; n < IDLE; n++)
        for (uint32_t s = 0; s < SOURCES; s++) {
            uint32_t taken = ax_delivered(ax, n, vector_of((enum source)s));

            /* The same vector twice may have become one. */
            if (taken > sent[n][s] || (taken == 0 && sent[n][s] != 0))
                fail_msg("source %u to vCPU %u: sent %u, taken %u", s, n, sent[n][s], taken);
        }
    for (uint32_t i = 0; i < ax_count(ax, AX_NOTIFY); i++)
        assert_int_not_equal(ax_nth(ax, AX_NOTIFY, i)->vcpu, IDLE);
    assert_true(ax->v[IDLE]->blocked);
}

/* Delivered in the end: lower priorities wait for the EOI of higher ones. */
static void drain(struct ax *ax)
{
    for (uint32_t i = 0; i < SOURCES + 1; i++) {
        ax_settle(ax);
        end_all(ax);
    }
    ax_settle(ax);
}

static void storm(enum ax_mode_index mode, bool x2apic)
{
    struct ax_options options = ax_options_for(mode, VCPUS);
    bool inhibited = false;
    struct ax *ax;

    options.x2apic = x2apic;
    ax = ax_new(&options);
    ax_write(ax, 0, APIC_LVT_TIMER, vector_of(BY_TIMER));
    ax_settle(ax);
    ax_hlt(ax, IDLE);
    ax_settle(ax);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t sent[VCPUS][SOURCES] = {{0}};

        ax_forget(ax);
        if (below(3) == 0 && !ax->v[1]->blocked)
            ax_hlt(ax, 1);
        if (below(3) == 0)
            ax_run(ax, 1); /* asleep, or just about to be */
        for (uint32_t i = 0; i < BURST; i++) {
            enum source source = (enum source)below(SOURCES);

            disturb(ax, &inhibited);
            sent[send_one(ax, source)][source]++;
        }
        drain(ax);
        check(ax, (const uint32_t(*)[SOURCES])sent);
    }
    ax_free(ax);
}

static void every_mode(void **unused)
{
    (void)unused;
    for (uint32_t seed = 1; seed <= 3; seed++)
        for (int mode = AX_MODE_AVIC; mode < AX_MODES; mode++) {
            state = seed;
            storm((enum ax_mode_index)mode, false);
            storm((enum ax_mode_index)mode, true);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
