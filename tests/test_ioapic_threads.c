/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC under threads: devices raise and lower shared lines, vCPUs handle and EOI, one vCPU
 * switches its APIC off and on, a guest masks, unmasks and retargets the entries meanwhile.
 *
 * The invariant: a level-triggered interrupt is never lost. A device raises its source and waits
 * for the handler to see it; the handler serves every source that it finds high. A device that
 * waits for longer than seconds has found a lost interrupt.
 */
#include "fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

#define PINS      2u /* both in use, with the same vector or with two */
#define DEVICES   4u
#define VCPUS     2u
#define ROUNDS    3000u
#define TIMEOUT_S 20

struct device {
    struct stage *stage;
    uint32_t number;
    atomic_uint wants;  /* rounds asked for; the device itself */
    atomic_uint served; /* rounds that a handler has seen */
};

struct stage {
    struct fx *fx;
    struct vapic_ioapic *io;
    struct device devices[DEVICES];
    uint64_t dest;
    bool toggles;  /* vCPU 1 switches its APIC off and on */
    bool directed; /* EOI broadcasts are suppressed, the handler writes the EOI register */
    uint8_t vector[PINS];
    atomic_uint running; /* devices not done yet */
    atomic_bool lost;
    atomic_uint handled;
};

static uint32_t pin_of(const struct device *d)
{
    return d->number % PINS;
}

static bool timed_out(struct timespec start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - start.tv_sec > TIMEOUT_S;
}

/* ---- Devices ---- */

static bool wait_served(struct device *d, uint32_t round)
{
    struct timespec start;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (atomic_load(&d->served) < round) {
        if (atomic_load(&d->stage->lost) || timed_out(start))
            return false;
        sched_yield();
    }
    return true;
}

/* The handler lowers the line when it sees what is wanted; until then every EOI finds it high. */
static void *device_thread(void *arg)
{
    struct device *d = arg;
    struct stage *s = d->stage;

    for (uint32_t round = 1; round <= ROUNDS; round++) {
        vapic_ioapic_set(s->io, pin_of(d), d->number, true);
        atomic_store(&d->wants, round);
        if (!wait_served(d, round)) {
            atomic_store(&s->lost, true);
            break;
        }
    }
    atomic_fetch_sub(&s->running, 1);
    return NULL;
}

/* ---- vCPUs ---- */

/* Serves everything that wants service on the pins with this vector, and lowers its lines. */
static void handle(struct stage *s, uint8_t vector)
{
    for (uint32_t n = 0; n < DEVICES; n++) {
        struct device *d = &s->devices[n];
        uint32_t wants;

        if (s->vector[pin_of(d)] != vector)
            continue;
        wants = atomic_load(&d->wants);
        if (wants == atomic_load(&d->served))
            continue;
        vapic_ioapic_set(s->io, pin_of(d), n, false);
        atomic_store(&d->served, wants);
    }
    atomic_fetch_add(&s->handled, 1);
}

static void end_interrupt(struct stage *s, uint32_t cpu, uint8_t vector)
{
    fx_eoi(s->fx, cpu);
    if (s->directed)
        vapic_ioapic_write(s->io, IOAPIC_EOIR, vector, 4);
}

static void toggle(struct stage *s, uint32_t cpu, uint32_t n)
{
    uint32_t svr = 0xFF | (s->directed ? APIC_SVR_EOI_SUPPRESS : 0);

    fx_set(s->fx, cpu, APIC_SVR, n & 16 ? svr : svr | APIC_SVR_ENABLE);
}

static void run_vcpu(struct stage *s, uint32_t cpu)
{
    for (uint32_t n = 0; atomic_load(&s->running) > 0; n++) {
        int vector = fx_take(s->fx, cpu);

        if (cpu == 1 && s->toggles && n % 16 == 0)
            toggle(s, cpu, n);
        if (vector < 0) {
            sched_yield();
            continue;
        }
        handle(s, (uint8_t)vector);
        end_interrupt(s, cpu, (uint8_t)vector);
    }
}

static void *vcpu0_thread(void *arg)
{
    run_vcpu(arg, 0);
    return NULL;
}

static void *vcpu1_thread(void *arg)
{
    run_vcpu(arg, 1);
    return NULL;
}

/* ---- The guest's writes to the entries ---- */

static void write_half(struct stage *s, uint32_t index, uint32_t value)
{
    vapic_ioapic_write(s->io, IOAPIC_REGSEL, index, 4);
    vapic_ioapic_write(s->io, IOAPIC_IOWIN, value, 4);
}

/* Masks, retargets (to 0, 1, or nobody), unmasks; the last thing it does is to aim at vCPU 0. */
static void *guest_thread(void *arg)
{
    static const uint8_t dests[] = {0, 1, 0x77, 1};
    struct stage *s = arg;

    for (uint32_t n = 0; atomic_load(&s->running) > 0; n++) {
        uint32_t pin = n % PINS;
        uint32_t low = IOAPIC_REG_RTE + 2 * pin, entry = s->vector[pin] | IOAPIC_RTE_LEVEL;

        if (n % 3 == 0)
            write_half(s, low, entry | IOAPIC_RTE_MASKED);
        write_half(s, low + 1, (uint32_t)dests[n / PINS % 4] << 24);
        sched_yield();
        write_half(s, low, entry);
        write_half(s, low + 1, (uint32_t)(n / 8 % 2) << 24);
        sched_yield();
    }
    return NULL;
}

/* ---- The play ---- */

static void resume_at_once(struct fx *fx, struct vapic_ioapic *io, uint32_t pin)
{
    (void)fx;
    vapic_ioapic_resume(io, pin);
}

static void begin_stage(struct stage *s)
{
    struct fx_options options = {.vcpus = VCPUS, .x2apic = true};

    s->fx = fx_new(&options);
    s->fx->on_delay = resume_at_once;
    s->io = fx_ioapic(s->fx, PINS, 0, 0x20);
    for (uint32_t cpu = 0; cpu < VCPUS; cpu++)
        toggle(s, cpu, 0);
    for (uint32_t pin = 0; pin < PINS; pin++)
        fx_rte_write(s->io, pin, s->vector[pin] | IOAPIC_RTE_LEVEL | s->dest << 56);
    atomic_store(&s->running, DEVICES);
    for (uint32_t n = 0; n < DEVICES; n++) {
        s->devices[n].stage = s;
        s->devices[n].number = n;
    }
}

static void play(struct stage *s, bool with_guest)
{
    pthread_t threads[DEVICES + VCPUS + 1];
    uint32_t count = 0;

    begin_stage(s);
    pthread_create(&threads[count++], NULL, vcpu0_thread, s);
    pthread_create(&threads[count++], NULL, vcpu1_thread, s);
    if (with_guest)
        pthread_create(&threads[count++], NULL, guest_thread, s);
    for (uint32_t n = 0; n < DEVICES; n++)
        pthread_create(&threads[count++], NULL, device_thread, &s->devices[n]);
    while (count > 0)
        pthread_join(threads[--count], NULL);
}

/* All lines are low: whatever is left over is handled, then every pin is at rest. */
static void check_rest(struct stage *s)
{
    for (uint32_t cpu = 0; cpu < VCPUS; cpu++) {
        int vector;

        toggle(s, cpu, 0);
        while ((vector = fx_take(s->fx, cpu)) >= 0)
            end_interrupt(s, cpu, (uint8_t)vector);
    }
    for (uint32_t pin = 0; pin < PINS; pin++)
        fx_equal(vapic_ioapic_entry(s->io, pin) & (IOAPIC_RTE_RIRR | IOAPIC_RTE_DS), 0, "pin %u",
                 pin);
}

static void finish(struct stage *s)
{
    assert_false(atomic_load(&s->lost));
    assert_true(atomic_load(&s->handled) > 0);
    check_rest(s);
    fx_free(s->fx);
    fx_ioapic_free(s->io);
}

static void shared_lines_lose_nothing(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}};
    (void)state;

    play(&s, false);
    finish(&s);
}

static void two_pins_with_one_vector_lose_nothing(void **state)
{
    static struct stage s = {.vector = {0x51, 0x51}};
    (void)state;

    play(&s, true);
    finish(&s);
}

static void masking_and_retargeting_lose_nothing(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}};
    (void)state;

    play(&s, true);
    finish(&s);
}

static void a_target_that_comes_and_goes_loses_nothing(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}, .toggles = true};
    (void)state;

    play(&s, true);
    finish(&s);
}

/* Nothing but the change of the destination map can feed a starved pin here. */
static void the_only_target_comes_and_goes_and_loses_nothing(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}, .dest = 1, .toggles = true};
    (void)state;

    play(&s, false);
    finish(&s);
}

/* [SDM3 12.8.5] */
static void directed_eoi_loses_nothing(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}, .directed = true};
    (void)state;

    play(&s, true);
    finish(&s);
}

/* ---- Edges ---- */

struct pulses {
    struct stage *stage;
    uint32_t source;
    atomic_uint sent, reported;
};

#define PULSES 20000u

static void *pulse_thread(void *arg)
{
    struct pulses *p = arg;

    for (uint32_t n = 0; n < PULSES; n++) {
        int result = vapic_ioapic_set(p->stage->io, 0, p->source, true);

        atomic_fetch_add(&p->reported, result == 1);
        vapic_ioapic_set(p->stage->io, 0, p->source, false);
    }
    atomic_fetch_sub(&p->stage->running, 1);
    return NULL;
}

/* As many runs as were reported delivered: an edge is neither lost nor doubled. */
static void edges_run_as_often_as_reported(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}};
    struct pulses pulses[2] = {{.stage = &s, .source = 0}, {.stage = &s, .source = 1}};
    pthread_t threads[2];
    uint32_t runs = 0;
    (void)state;

    begin_stage(&s);
    fx_rte_write(s.io, 0, 0x51);
    atomic_store(&s.running, 2);
    for (uint32_t n = 0; n < 2; n++)
        pthread_create(&threads[n], NULL, pulse_thread, &pulses[n]);
    while (atomic_load(&s.running) > 0)
        runs += fx_take_eoi(s.fx, 0) >= 0;
    for (uint32_t n = 0; n < 2; n++)
        pthread_join(threads[n], NULL);
    while (fx_take_eoi(s.fx, 0) >= 0)
        runs++;
    fx_equal(runs, atomic_load(&pulses[0].reported) + atomic_load(&pulses[1].reported), "runs");
    fx_free(s.fx);
    fx_ioapic_free(s.io);
}

/* ---- Lines of message routes ---- */

static void *line_thread(void *arg)
{
    struct pulses *p = arg;

    for (uint32_t n = 0; n < PULSES; n++) {
        int result = vapic_gsi_set(&p->stage->fx->vm, 9, p->source, true);

        atomic_fetch_add(&p->reported, result == 1);
        vapic_gsi_set(&p->stage->fx->vm, 9, p->source, false);
    }
    atomic_fetch_sub(&p->stage->running, 1);
    return NULL;
}

static void *route_thread(void *arg)
{
    struct stage *s = arg;

    for (uint32_t n = 0; atomic_load(&s->running) > 0; n++) {
        struct vapic_route route = {.kind = VAPIC_ROUTE_MSI, .address = 0xFEE00000, .data = 0x51};

        route.data += n & 1;
        assert_int_equal(vapic_gsi_route(&s->fx->vm, 9, &route), VAPIC_OK);
        vapic_gsi_watch(&s->fx->vm, 9, n & 2 ? VAPIC_GSI_ACK : 0, 0);
    }
    return NULL;
}

static void message_lines_run_as_often_as_reported(void **state)
{
    static struct stage s = {.vector = {0x51, 0x61}};
    struct pulses pulses[2] = {{.stage = &s, .source = 0}, {.stage = &s, .source = 1}};
    struct vapic_route route = {.kind = VAPIC_ROUTE_MSI, .address = 0xFEE00000, .data = 0x51};
    pthread_t threads[3];
    uint32_t runs = 0;
    (void)state;

    begin_stage(&s);
    assert_int_equal(vapic_gsi_route(&s.fx->vm, 9, &route), VAPIC_OK);
    atomic_store(&s.running, 2);
    pthread_create(&threads[2], NULL, route_thread, &s);
    for (uint32_t n = 0; n < 2; n++)
        pthread_create(&threads[n], NULL, line_thread, &pulses[n]);
    while (atomic_load(&s.running) > 0)
        runs += fx_take_eoi(s.fx, 0) >= 0;
    for (uint32_t n = 0; n < 3; n++)
        pthread_join(threads[n], NULL);
    while (fx_take_eoi(s.fx, 0) >= 0)
        runs++;
    fx_equal(runs, atomic_load(&pulses[0].reported) + atomic_load(&pulses[1].reported), "runs");
    fx_free(s.fx);
    fx_ioapic_free(s.io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_lines_lose_nothing),
        cmocka_unit_test(two_pins_with_one_vector_lose_nothing),
        cmocka_unit_test(masking_and_retargeting_lose_nothing),
        cmocka_unit_test(a_target_that_comes_and_goes_loses_nothing),
        cmocka_unit_test(the_only_target_comes_and_goes_and_loses_nothing),
        cmocka_unit_test(directed_eoi_loses_nothing),
        cmocka_unit_test(edges_run_as_often_as_reported),
        cmocka_unit_test(message_lines_run_as_often_as_reported),
    };

    return cmocka_run_group_tests_name("ioapic_threads", tests, NULL, NULL);
}
