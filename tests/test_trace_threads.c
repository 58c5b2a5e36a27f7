/* SPDX-License-Identifier: MIT */
/* A listener of trace events that comes and goes while threads send messages. */
#include "fixture.h"

#include <sched.h>

#define SENDERS 2u
#define TOGGLES 2000u

struct count {
    uint32_t heard; /* atomic */
    uint32_t bad;   /* atomic: events that no sender caused */
};

static bool stop; /* atomic */

static void listen(void *ctx, const struct vapic_event *event)
{
    struct count *count = ctx;
    bool known =
        event->kind == VAPIC_EVENT_MSI_SET_IRQ || event->kind == VAPIC_EVENT_APIC_ACCEPT_IRQ;

    __atomic_fetch_add(known ? &count->heard : &count->bad, 1, __ATOMIC_RELAXED);
}

static void *send(void *arg)
{
    struct fx *fx = arg;

    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
        vapic_msi(&fx->vm, 0xFEE00000, 0x51);
    return NULL;
}

static uint32_t heard(struct count *count)
{
    return __atomic_load_n(&count->heard, __ATOMIC_RELAXED);
}

/* Waits until an event was heard that came later than now. */
static void hear_one(struct count *count)
{
    uint32_t before = heard(count);

    while (heard(count) == before)
        sched_yield();
}

static void a_listener_comes_and_goes(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 1});
    struct count count = {0};
    pthread_t senders[SENDERS];
    uint32_t last;
    (void)state;

    for (uint32_t n = 0; n < SENDERS; n++)
        assert_int_equal(pthread_create(&senders[n], NULL, send, fx), 0);
    for (uint32_t n = 0; n < TOGGLES; n++) {
        vapic_trace(&fx->vm, listen, &count);
        hear_one(&count);
        vapic_trace(&fx->vm, NULL, &count);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (uint32_t n = 0; n < SENDERS; n++)
        pthread_join(senders[n], NULL);
    last = heard(&count);
    vapic_msi(&fx->vm, 0xFEE00000, 0x51);
    assert_int_equal(heard(&count), last);
    assert_true(last >= TOGGLES);
    assert_int_equal(count.bad, 0);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listener_comes_and_goes),
    };

    return cmocka_run_group_tests_name("trace threads", tests, NULL, NULL);
}
