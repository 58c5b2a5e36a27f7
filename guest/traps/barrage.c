/* SPDX-License-Identifier: MIT */
/* The barrage: see barrage.h. */
#include "barrage.h"

#include "test.h"

#define FIRST_VEC   0x40
#define MAX_SENDERS 64u

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

static void on_shot(struct irq_frame *f)
{
    struct shot *s = &shots[f->vector - FIRST_VEC];

    if (is_forbidden && is_forbidden())
        wrong_place++;
    if (__atomic_load_n(&s->sent, __ATOMIC_ACQUIRE) != s->taken + 1)
        wrong_number++;
    apic_eoi();
    __atomic_store_n(&s->taken, s->taken + 1, __ATOMIC_RELEASE);
}

static bool acknowledged(struct shot *s)
{
    uint64_t start = rdtsc();

    while (__atomic_load_n(&s->taken, __ATOMIC_ACQUIRE) != s->sent) {
        if (rdtsc() - start > wait_limit())
            return false;
        cpu_pause();
    }
    return true;
}

static void send(uint64_t rounds)
{
    uint32_t me = this_cpu()->index;
    struct shot *s = &shots[me];

    for (uint32_t n = 1; n <= rounds; n++) {
        __atomic_store_n(&s->sent, n, __ATOMIC_RELEASE);
        apic_icr(ICR_FIXED | ICR_ASSERT | (FIRST_VEC + me), cpu_table[0]->apic_id);
        if (!acknowledged(s)) {
            print("# interrupt %u of CPU %u was lost\n", n, me);
            test_fail(__FILE__, __LINE__, "every interrupt sent is taken");
            break;
        }
        spin(n % 16); /* meets the target at a new place each time */
    }
    __atomic_sub_fetch(&active, 1, __ATOMIC_SEQ_CST);
}

void barrage_start(uint32_t rounds)
{
    wrong_place = wrong_number = 0;
    active = senders();
    for (uint32_t i = 1; i <= senders(); i++) {
        shots[i] = (struct shot){0, 0};
        irq_set(FIRST_VEC + i, on_shot);
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
