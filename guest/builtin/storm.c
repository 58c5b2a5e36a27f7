/* SPDX-License-Identifier: MIT */
/*
 * Storm: each processor sends numbered interrupts to all processors, itself too, as many as fit. A
 * lane is one vector from one sender to one receiver, with one message under way, so that nothing
 * coalesces: every message must raise exactly one interrupt, and the receiver must see its number.
 * n= messages per processor and seconds= of the real-time clock: it goes on until both are reached,
 * with a wave now and then when only time is missing.
 *
 * Lines: the same for a device's line on each processor in turn. Every edge must raise one
 * interrupt, and every level as many as there are EOIs that find it high, and the first.
 */
#include "clock.h"
#include "groups.h"
#include "ioapic.h"

#define FIRST_VEC      0x40
#define LANES          16u /* vectors of each sender */
#define PARTNERS       8u  /* processors that take part */
#define VEC_TICK       0xc4
#define LOOK_TICKS     100000000u /* TSC cycles between two looks at the real-time clock */
#define PACE           25u        /* short times between two waves when only time is missing */

#define PORT_RTC_INDEX 0x70
#define PORT_RTC_DATA  0x71

struct lane {
    uint32_t sent;     /* number under way; the sender's */
    uint32_t received; /* number that the receiver has seen */
    uint32_t taken;    /* interrupts that it took */
} __attribute__((aligned(64)));

static struct lane lanes[PARTNERS][PARTNERS][LANES]; /* [sender][receiver] */
static uint32_t partners, wrong, running;
static bool over; /* the time is up */

static void on_message(struct irq_frame *f)
{
    uint32_t n = (uint32_t)f->vector - FIRST_VEC, me = this_cpu()->index;
    struct lane *lane = &lanes[n / LANES][me][n % LANES];
    uint32_t sent = __atomic_load_n(&lane->sent, __ATOMIC_ACQUIRE);

    if (sent != lane->received + 1)
        __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
    lane->taken++;
    __atomic_store_n(&lane->received, sent, __ATOMIC_RELEASE);
    apic_eoi();
}

static uint32_t ticks[PARTNERS];

static void on_tick(struct irq_frame *f)
{
    (void)f;
    ticks[this_cpu()->index]++;
    apic_eoi();
}

static bool acknowledged(const struct lane *lane)
{
    return __atomic_load_n(&lane->received, __ATOMIC_ACQUIRE) == lane->sent;
}

/* By physical and by logical ID in turn; to itself also by the register that is for that. */
static void send(uint32_t target, uint32_t vector, uint32_t number)
{
    uint32_t low = ICR_FIXED | ICR_ASSERT | vector;

    if (target == this_cpu()->index && (number & 2))
        apic_self((uint8_t)vector);
    else if (number & 1)
        apic_icr(low | ICR_LOGICAL, apic_logical_id(target));
    else
        apic_icr(low, cpu_table[target]->apic_id);
}

/* A message on each lane that is free; returns how many. */
static uint32_t send_wave(uint32_t me)
{
    uint32_t count = 0;

    for (uint32_t l = 0; l < LANES; l++) {
        for (uint32_t r = 0; r < partners; r++) {
            struct lane *lane = &lanes[me][r][l];

            if (!acknowledged(lane))
                continue;
            __atomic_store_n(&lane->sent, lane->sent + 1, __ATOMIC_RELEASE);
            send(r, FIRST_VEC + me * LANES + l, lane->sent);
            count++;
        }
    }
    return count;
}

/* Takes what has come; or sleeps, so that its peers' messages find it so. */
static void rest(bool asleep)
{
    if (asleep) {
        clock_arm(VEC_TICK, clock_short());
        sti_hlt_cli();
        return;
    }
    sti();
    spin(8); /* long enough for a machine that opens the interrupt window late */
    cli();
}

/* Sleeps, whatever comes, until a longer time is over. */
static void pause_long(void)
{
    uint32_t me = this_cpu()->index, before = ticks[me];

    clock_arm(VEC_TICK, clock_short() * PACE);
    while (*(volatile uint32_t *)&ticks[me] == before)
        sti_hlt_cli();
}

static struct {
    uint64_t looked;
    uint32_t last, changes;
} watch;

static void begin_watch(void)
{
    over = false;
    watch.looked = 0;
    watch.changes = 0;
    watch.last = 0xff; /* no second's number: the first look is a change */
}

static uint32_t clock_second(void)
{
    outb(PORT_RTC_INDEX, 0);
    return inb(PORT_RTC_DATA);
}

/* The first processor watches the time: counts each new second of the real-time clock. */
static void watch_time(void)
{
    uint64_t now = rdtsc();
    uint32_t second;

    if (__atomic_load_n(&over, __ATOMIC_RELAXED) || now - watch.looked < LOOK_TICKS)
        return;
    watch.looked = now;
    second = clock_second();
    watch.changes += second != watch.last;
    watch.last = second;
    /* The first two changes may be short: the first look, and a second that had begun. */
    if (options.seconds == 0 || watch.changes > options.seconds + 1)
        __atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
}

/* False, with its own line: a message was never acknowledged. */
static bool all_acknowledged(uint32_t me)
{
    uint64_t start = rdtsc();

    for (uint32_t i = 0; i < partners * LANES; i++) {
        struct lane *lane = &lanes[me][i / LANES][i % LANES];

        while (!acknowledged(lane)) {
            if (rdtsc() - start > wait_limit()) {
                print("# CPU %u: message %u to CPU %u with vector %u got lost\n", me, lane->sent,
                      i / LANES, FIRST_VEC + me * LANES + i % LANES);
                return false;
            }
            rest(false);
        }
    }
    return true;
}

static void storm(uint64_t count)
{
    uint32_t me = this_cpu()->index;
    uint64_t sent = 0, last = rdtsc();

    for (uint32_t round = 0; sent < count || !__atomic_load_n(&over, __ATOMIC_RELAXED); round++) {
        uint32_t now = send_wave(me);

        if (now)
            last = rdtsc();
        else if (rdtsc() - last > wait_limit())
            break;
        sent += now;
        if (me == 0)
            watch_time();
        if (sent < count)
            rest(round % 4 == 3);
        else
            pause_long();
    }
    if (!all_acknowledged(me))
        __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
    /* The others may still send here. */
    __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&running, __ATOMIC_SEQ_CST))
        rest(false);
    clock_disarm();
}

static void start_storm(uint64_t count)
{
    wrong = 0;
    begin_watch();
    partners = cpu_count < PARTNERS ? cpu_count : PARTNERS;
    running = partners;
    irq_set(VEC_TICK, on_tick);
    for (uint32_t v = 0; v < partners * LANES; v++)
        irq_set(FIRST_VEC + v, on_message);
    clock_counts(1);
    for (uint32_t i = 1; i < partners; i++)
        cpu_run_async(cpu_table[i], storm, count);
    storm(count);
    for (uint32_t i = 1; i < partners; i++)
        CHECK(cpu_join(cpu_table[i]));
}

static void all_to_all(void)
{
    start_storm(test_rounds(300));
    CHECK_EQ(wrong, 0);
    for (uint32_t i = 0; i < partners; i++) {
        uint64_t sent = 0, taken = 0;

        for (uint32_t k = 0; k < partners * LANES; k++) {
            sent += lanes[i][k / LANES][k % LANES].sent;
            taken += lanes[i][k / LANES][k % LANES].taken;
        }
        CHECK_EQ(taken, sent);
        test_stat("load-storm-sent", i, sent);
        test_stat("load-storm-taken", i, taken);
    }
}

#define PIN_LEVEL  14
#define PIN_EDGE   15
#define VEC_LEVEL  0xc5
#define VEC_EDGE   0xc6
#define LEVEL_RUNS 3u /* interrupts of a level: it stays high for all EOIs but the last */

static uint32_t level_taken, level_eois;

static void on_level(struct irq_frame *f)
{
    (void)f;
    if (__atomic_add_fetch(&level_taken, 1, __ATOMIC_SEQ_CST) % LEVEL_RUNS == 0)
        line_set(PIN_LEVEL, false);
    apic_eoi();
    __atomic_add_fetch(&level_eois, 1, __ATOMIC_SEQ_CST);
}

static uint32_t edges_taken;

static void on_edge(struct irq_frame *f)
{
    (void)f;
    apic_eoi();
    __atomic_add_fetch(&edges_taken, 1, __ATOMIC_SEQ_CST);
}

/* Levels, then edges, to one processor; false: one is missing, or one too many came. */
static bool move_lines(uint32_t target, uint32_t round)
{
    uint32_t id = cpu_table[target]->apic_id;
    bool came;

    ioapic_route(PIN_LEVEL, RTE_LEVEL | VEC_LEVEL, id);
    ioapic_route(PIN_EDGE, VEC_EDGE, id);
    line_set(PIN_LEVEL, true);
    line_set(PIN_EDGE, true);
    line_set(PIN_EDGE, false);
    came = wait_word_open(&level_eois, round * LEVEL_RUNS);
    return wait_word_open(&edges_taken, round) && came;
}

static void lines(void)
{
    uint32_t rounds = test_rounds(100), round = 0;
    bool came = true;

    level_taken = level_eois = edges_taken = 0;
    begin_watch();
    irq_set(VEC_LEVEL, on_level);
    irq_set(VEC_EDGE, on_edge);
    while (came && (round < rounds || !over)) {
        round++;
        came = move_lines(round % cpu_count, round);
        watch_time();
    }
    cpu_settle();
    irq_window();
    ioapic_mask_all();
    CHECK_EQ(level_taken, round * LEVEL_RUNS);
    CHECK_EQ(level_eois, level_taken);
    CHECK_EQ(edges_taken, round);
    CHECK(!(ioapic_low(PIN_LEVEL) & RTE_REMOTE_IRR));
    test_stat("load-storm-raised", 0, round);
    test_stat("load-storm-levels", 0, level_eois);
    test_stat("load-storm-edges", 0, edges_taken);
}

const struct test storm_tests[] = {
    {"load-storm", "[SDM3 12.6.1] [SDM3 12.8.4]", all_to_all, 0, 0},
    {"load-storm-lines", "[82093AA 3.2.4] [SDM3 12.8.5]", lines, NEED_LINES, 0},
    {0},
};
