/* SPDX-License-Identifier: MIT */
/* Timer calibration and arming: see clock.h. */
#include "clock.h"

#include "test.h"

#define LEAST_SHORT 4000000u
#define SAMPLES     8u
#define COST_FACTOR 64u

const uint8_t clock_divide[8] = {0xb, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa};

static struct clock_rate base_rate;
static uint64_t short_cycles;

bool clock_measure(uint8_t divide_code, uint64_t cycles, struct clock_rate *rate)
{
    uint64_t before, after, count0, count1, t0, t1, counts;

    apic_write(APIC_LVT_TIMER, LVT_MASKED | VEC_SPURIOUS);
    apic_write(APIC_TDCR, divide_code);
    apic_write(APIC_TMICT, 0xffffffffu);
    before = rdtsc();
    count0 = apic_read(APIC_TMCCT);
    t0 = rdtsc();
    while (rdtsc() - t0 < cycles)
        cpu_pause();
    t1 = rdtsc();
    count1 = apic_read(APIC_TMCCT);
    after = rdtsc();
    apic_write(APIC_TMICT, 0);
    if (count1 >= count0)
        return false;
    counts = count0 - count1;
    /* A reading is exact to one count, so the difference may be one off either way. */
    rate->least = ((t1 - t0) << CLOCK_SHIFT) / (counts + 1);
    rate->most = counts > 1 ? ((after - before) << CLOCK_SHIFT) / (counts - 1) : UINT64_MAX;
    return true;
}

/*
 * What one access to the APIC costs: an interpreter, or a VMM in a VMM, needs longer periods. The
 * cheapest one counts: any other may hold a pause of the whole machine.
 */
static uint64_t access_cost(void)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t start = rdtsc(), cost;

        apic_read(APIC_TMCCT);
        cost = rdtsc() - start;
        if (cost < least)
            least = cost;
    }
    return least;
}

/* Every measurement gives a true lower bound; the greatest is the least spoilt by pauses. */
static void measure_base_rate(void)
{
    struct clock_rate rate;

    for (unsigned i = 0; i < SAMPLES; i++) {
        if (!clock_measure(clock_divide[0], short_cycles, &rate))
            panic("the APIC timer does not count");
        if (rate.least > base_rate.least)
            base_rate = rate;
    }
}

static void calibrate(void)
{
    if (short_cycles)
        return;
    short_cycles = access_cost() * COST_FACTOR;
    if (short_cycles < LEAST_SHORT)
        short_cycles = LEAST_SHORT;
    measure_base_rate();
}

uint64_t clock_least_cycles(uint64_t counts)
{
    calibrate();
    return (counts * base_rate.least) >> CLOCK_SHIFT;
}

static uint64_t wide_counts(uint64_t cycles)
{
    calibrate();
    return (cycles << CLOCK_SHIFT) / base_rate.least;
}

uint32_t clock_counts(uint64_t cycles)
{
    uint64_t counts = wide_counts(cycles);

    if (counts > UINT32_MAX)
        panic("%lu cycles are too many for the APIC timer's counter", cycles);
    return counts ? (uint32_t)counts : 1;
}

uint64_t clock_short(void)
{
    calibrate();
    return short_cycles;
}

static bool by_deadline(void)
{
    return apic_has_deadline() && !str_is(options.timer, "oneshot", ' ');
}

/* A long time needs a divisor, for the counter has 32 bits. [SDM3 12.5.4] */
static void arm_counter(uint64_t cycles)
{
    unsigned shift = 0;

    while (shift < sizeof(clock_divide) - 1 && wide_counts(cycles) >> shift > UINT32_MAX)
        shift++;
    apic_write(APIC_TDCR, clock_divide[shift]);
    apic_write(APIC_TMICT, clock_counts(cycles >> shift));
}

void clock_arm(uint8_t vector, uint64_t cycles)
{
    if (by_deadline()) {
        apic_write(APIC_LVT_TIMER, LVT_DEADLINE | vector);
        fence(); /* the LVT store before the MSR write [SDM3 12.5.4.1] */
        wrmsr(MSR_TSC_DEADLINE, rdtsc() + cycles);
        return;
    }
    apic_write(APIC_LVT_TIMER, vector);
    arm_counter(cycles);
}

void clock_disarm(void)
{
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_TMICT, 0);
}
