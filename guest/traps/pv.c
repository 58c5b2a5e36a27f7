/* SPDX-License-Identifier: MIT */
/*
 * KVM's PV EOI: a word per processor whose bit 0 the machine sets when an interrupt may be ended by
 * clearing it. The guest clears it with one instruction; an EOI must neither be lost nor doubled by
 * whatever comes in between.
 */
#include "clock.h"
#include "groups.h"

#define MSR_PV_EOI  0x4b564d04u
#define PV_SIGN     0x40000000u
#define PV_FEATURES 0x40000001u
#define FEATURE_EOI (1u << 6)
#define KVMK        0x4b4d564bu /* "KVMK" */
#define ENABLE      1u

#define VEC_LOW     0x51
#define VEC_HIGH    0x61
#define VEC_FIRE    0x70 /* and up: one per sender */
#define SENDERS_MAX 8u

static volatile uint32_t words[MAX_CPUS];
static volatile uint32_t by_word, by_register;
static volatile uint32_t runs[256]; /* of handlers on the first processor, in this test */
static volatile uint32_t high_by_word, order_wrong;

static bool offered(void)
{
    return cpuid(1, 0).ecx >> 31 && cpuid(PV_SIGN, 0).ebx == KVMK &&
           cpuid(PV_SIGN, 0).eax >= PV_FEATURES && cpuid(PV_FEATURES, 0).eax & FEATURE_EOI;
}

static bool absent(void)
{
    if (offered())
        return false;
    test_skip("PV EOI is not offered");
    return true;
}

static uint64_t address(void)
{
    return (uint64_t)&words[this_cpu()->index];
}

static void enable(uint64_t unused)
{
    (void)unused;
    words[this_cpu()->index] = 0;
    wrmsr(MSR_PV_EOI, address() | ENABLE);
}

static void disable(void)
{
    wrmsr(MSR_PV_EOI, 0);
    CHECK_EQ(words[this_cpu()->index], 0);
}

/* Without a lock prefix: only this processor and, while it does not run, the machine write it. */
static bool test_and_clear(void)
{
    bool was;

    __asm__ volatile("btrl $0, %1\n setc %0"
                     : "=q"(was), "+m"(words[this_cpu()->index])
                     :
                     : "cc", "memory");
    return was;
}

static bool end(struct irq_frame *f)
{
    runs[f->vector]++;
    if (test_and_clear()) {
        by_word++;
        return true;
    }
    apic_eoi();
    by_register++;
    return false;
}

static void on_plain(struct irq_frame *f)
{
    end(f);
}

static void begin(void)
{
    by_word = by_register = high_by_word = order_wrong = 0;
    for (uint32_t i = 0; i < 256; i++)
        runs[i] = 0;
    enable(0);
}

/* ---- The MSR ---- */

static void msr(void)
{
    uint64_t value, here = address();

    if (!offered()) {
        CHECK(!rdmsr_safe(MSR_PV_EOI, &value));
        CHECK(!wrmsr_safe(MSR_PV_EOI, 0));
        return;
    }
    CHECK(wrmsr_safe(MSR_PV_EOI, here | ENABLE));
    CHECK_EQ(rdmsr(MSR_PV_EOI), here | ENABLE);
    CHECK(!wrmsr_safe(MSR_PV_EOI, here | 2 | ENABLE));
    CHECK(!wrmsr_safe(MSR_PV_EOI, 1ull << 51 | ENABLE)); /* no memory there */
    CHECK_EQ(rdmsr(MSR_PV_EOI), here | ENABLE);
    CHECK(wrmsr_safe(MSR_PV_EOI, 0));
    CHECK_EQ(rdmsr(MSR_PV_EOI), 0);
}

/* ---- One interrupt at a time ---- */

static void alone(void)
{
    uint32_t rounds = test_rounds(500);

    if (absent())
        return;
    irq_set(VEC_LOW, on_plain);
    begin();
    for (uint32_t i = 1; i <= rounds; i++) {
        apic_self(VEC_LOW);
        CHECK(wait_word_open(&runs[VEC_LOW], i));
        CHECK_EQ(words[0], 0);
        if (i % 16 == 0)
            CHECK(!apic_isr(VEC_LOW));
    }
    CHECK_EQ(by_word + by_register, rounds);
    CHECK_EQ(apic_read(APIC_PPR), 0);
    test_stat("pv-eois", 0, by_word);
    disable();
}

/* ---- Two at once: the end of the first lets the second in, so it is no business of the word ----
 */

static void on_high(struct irq_frame *f)
{
    order_wrong += runs[VEC_LOW] != runs[VEC_HIGH];
    high_by_word += end(f);
}

static void pending(void)
{
    uint32_t rounds = test_rounds(200);

    if (absent())
        return;
    irq_set(VEC_LOW, on_plain);
    irq_set(VEC_HIGH, on_high);
    begin();
    for (uint32_t i = 1; i <= rounds; i++) {
        apic_self(VEC_LOW);
        apic_self(VEC_HIGH);
        CHECK(wait_word_open(&runs[VEC_LOW], i));
        CHECK_EQ(runs[VEC_HIGH], i);
    }
    CHECK_EQ(high_by_word, 0);
    CHECK_EQ(order_wrong, 0);
    CHECK_EQ(by_word + by_register, 2 * rounds);
    CHECK_EQ(apic_read(APIC_PPR), 0);
    disable();
}

/* ---- One inside the other ---- */

static void on_outer(struct irq_frame *f)
{
    uint32_t inner = runs[VEC_HIGH];

    apic_self(VEC_HIGH);
    sti();
    CHECK(wait_word(&runs[VEC_HIGH], inner + 1));
    cli();
    end(f);
}

static void nested(void)
{
    uint32_t rounds = test_rounds(200);

    if (absent())
        return;
    irq_set(VEC_LOW, on_outer);
    irq_set(VEC_HIGH, on_plain);
    begin();
    for (uint32_t i = 1; i <= rounds; i++) {
        apic_self(VEC_LOW);
        CHECK(wait_word_open(&runs[VEC_LOW], i));
        CHECK_EQ(apic_read(APIC_PPR), 0);
    }
    CHECK_EQ(by_word + by_register, 2 * rounds);
    CHECK_EQ(runs[VEC_HIGH], rounds);
    disable();
}

/* ---- Under fire of the others ---- */

static void fire(uint64_t rounds)
{
    struct cpu *first = cpu_table[0];
    uint8_t vector = (uint8_t)(VEC_FIRE + 0x10 * ((this_cpu()->index - 1) % SENDERS_MAX / 2) +
                               this_cpu()->index % 2);
    uint32_t before = first->received[vector];

    for (uint32_t i = 1; i <= rounds; i++) {
        apic_icr(ICR_ASSERT | vector, first->apic_id);
        if (!wait_word(&first->received[vector], before + i)) {
            test_fail(__FILE__, __LINE__, "every interrupt is taken");
            return;
        }
    }
}

/* However slow the machine is, it goes on. */
static bool wait_until_more(uint32_t seen)
{
    uint64_t start = rdtsc();

    while (by_word + by_register == seen) {
        if (rdtsc() - start > wait_limit())
            return false;
        cpu_pause();
    }
    return true;
}

static void under_fire(void)
{
    uint32_t rounds = test_rounds(300), senders = cpu_count - 1;
    uint32_t total;

    if (absent())
        return;
    senders = senders < SENDERS_MAX ? senders : SENDERS_MAX;
    for (uint32_t i = 0; i < 0x10 * SENDERS_MAX / 2; i++)
        irq_set(VEC_FIRE + i, on_plain);
    begin();
    total = rounds * senders;
    for (uint32_t i = 1; i <= senders; i++)
        cpu_run_async(cpu_table[i], fire, rounds);
    sti();
    for (uint32_t seen = 0; seen < total && wait_until_more(seen);)
        seen = by_word + by_register;
    cli();
    for (uint32_t i = 1; i <= senders; i++)
        CHECK(cpu_join(cpu_table[i]));
    CHECK_EQ(by_word + by_register, total);
    CHECK_EQ(apic_read(APIC_PPR), 0);
    test_stat("pv-eois", 0, by_word);
    disable();
}

/* ---- INIT ---- */

static volatile uint64_t msr_seen;

static void read_msr(uint64_t unused)
{
    (void)unused;
    msr_seen = rdmsr(MSR_PV_EOI);
}

static void init_disables(void)
{
    struct cpu *other = cpu_table[1];

    if (absent())
        return;
    CHECK(cpu_run(other, enable, 0));
    CHECK(cpu_run(other, read_msr, 0));
    CHECK(msr_seen & ENABLE);
    CHECK(cpu_start(other));
    CHECK(cpu_run(other, read_msr, 0));
    CHECK_EQ(msr_seen, 0);
}

const struct test pv_tests[] = {
    {"trap-pv-eoi-msr", "[KVM msr]", msr, 0, REF_QEMU | REF_KVM},
    {"trap-pv-eoi-alone", "[KVM msr]", alone, 0, 0},
    {"trap-pv-eoi-pending", "[KVM msr]", pending, 0, 0},
    {"trap-pv-eoi-nested", "[KVM msr]", nested, 0, 0},
    {"trap-pv-eoi-under-fire", "[KVM msr]", under_fire, NEED_2_CPUS, 0},
    {"trap-pv-eoi-init", "[KVM msr] [SDM3 12.4.7.3]", init_disables, NEED_2_CPUS, 0},
    {0},
};
