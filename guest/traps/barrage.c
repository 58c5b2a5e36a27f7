/* SPDX-License-Identifier: MIT */
/* The barrage: see barrage.h. */
#include "barrage.h"

#include "clock.h"
#include "test.h"

#define VEC_ACK     0xd1
#define VEC_GUARD   0xd2
#define FIRST_VEC   0x40 /* to 0x7F: sender s owns the vectors with low half s */
#define CLASSES     4u
#define MAX_SENDERS 15u

struct shot {
    uint32_t sent, taken;
} __attribute__((aligned(64)));

static struct shot shots[MAX_SENDERS + 1];
static uint32_t active, wrong_place, wrong_number;
static bool (*is_forbidden)(void);

static uint32_t senders(void)
{
    return cpu_count - 1 < MAX_SENDERS ? cpu_count - 1 : MAX_SENDERS;
}

void barrage_forbid(bool (*forbidden)(void))
{
    is_forbidden = forbidden;
}

/* Its class changes from shot to shot, or the highest senders would starve the others. */
static uint8_t vector_of(uint32_t sender, uint32_t number)
{
    return (uint8_t)(FIRST_VEC + 16 * ((sender + number) % CLASSES) + sender);
}

static void on_shot(struct irq_frame *f)
{
    uint32_t sender = f->vector % 16;
    struct shot *s = &shots[sender];

    if (is_forbidden && is_forbidden())
        wrong_place++;
    if (__atomic_load_n(&s->sent, __ATOMIC_ACQUIRE) != s->taken + 1)
        wrong_number++;
    apic_eoi();
    __atomic_store_n(&s->taken, s->taken + 1, __ATOMIC_RELEASE);
    apic_icr(ICR_FIXED | ICR_ASSERT | VEC_ACK, cpu_table[sender]->apic_id);
}

/* Wakes a waiting sender now and then, so that it notices a loss. */
static void on_guard(struct irq_frame *f)
{
    (void)f;
    clock_arm(VEC_GUARD, wait_limit() / 8);
    apic_eoi();
}

static bool acknowledged(struct shot *s)
{
    uint64_t start = rdtsc();

    while (__atomic_load_n(&s->taken, __ATOMIC_ACQUIRE) != s->sent) {
        if (rdtsc() - start > wait_limit())
            return false;
        sti_hlt_cli(); /* leaves the host's processors to the target */
    }
    return true;
}

static void send(uint64_t rounds)
{
    uint32_t me = this_cpu()->index;
    struct shot *s = &shots[me];

    clock_arm(VEC_GUARD, wait_limit() / 8);
    for (uint32_t n = 1; n <= rounds; n++) {
        __atomic_store_n(&s->sent, n, __ATOMIC_RELEASE);
        apic_icr(ICR_FIXED | ICR_ASSERT | vector_of(me, n), cpu_table[0]->apic_id);
        if (!acknowledged(s)) {
            print("# interrupt %u of CPU %u was lost\n", n, me);
            test_fail(__FILE__, __LINE__, "every interrupt sent is taken");
            break;
        }
        spin(n % 16); /* meets the target at a new place each time */
    }
    clock_disarm();
    __atomic_sub_fetch(&active, 1, __ATOMIC_SEQ_CST);
}

void barrage_start(uint32_t rounds)
{
    clock_counts(1); /* calibrates here, once */
    wrong_place = wrong_number = 0;
    irq_set(VEC_GUARD, on_guard);
    active = senders();
    for (uint32_t i = 1; i <= senders(); i++) {
        shots[i] = (struct shot){0, 0};
        for (uint32_t n = 0; n < CLASSES; n++)
            irq_set(vector_of(i, n), on_shot);
        cpu_run_async(cpu_table[i], send, rounds);
    }
}

bool barrage_over(void)
{
    return !__atomic_load_n(&active, __ATOMIC_SEQ_CST);
}

void barrage_check(void)
{
    sti();
    for (uint32_t i = 1; i <= senders(); i++)
        CHECK(cpu_join(cpu_table[i]));
    cli();
    for (uint32_t i = 1; i <= senders(); i++) {
        CHECK_EQ(shots[i].taken, shots[i].sent);
        test_stat("barrage-sent", i, shots[i].sent);
        test_stat("barrage-taken", i, shots[i].taken);
    }
    CHECK_EQ(wrong_place, 0);
    CHECK_EQ(wrong_number, 0);
    is_forbidden = NULL;
}
