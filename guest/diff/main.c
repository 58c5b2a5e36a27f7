/* SPDX-License-Identifier: MIT */
/* The guest of `vapic diff`: start, the loop over programs, and the state each begins in. */
#include "diff.h"

#include "console.h"
#include "ioapic.h"
#include "start.h"

#define VEC_BASELINE   0x30u
#define DRAIN_ROUNDS   300u
#define LINES          24u

#define MSI_ADDRESS    0xfee00000u
#define MSI_DEST_SHIFT 12

struct diff_mailbox mailbox;
struct diff_cpu diff_cpu[DIFF_CPUS_MAX];
uint32_t touched_pins = ~0u, unmaskable_pins;

/* An NMI may come in the middle: the place is taken first. */
void record(enum diff_kind kind, uint32_t what, uint64_t value)
{
    uint32_t at = __atomic_fetch_add(&mailbox.log_count, 1, __ATOMIC_RELAXED);

    if (at < DIFF_LOG_MAX)
        mailbox.log[at] = (struct diff_record){(uint16_t)mailbox.pc, (uint8_t)this_cpu()->index,
                                               (uint8_t)kind, what, value};
}

/* Vectors below 16 stay: see known.md. */
static bool is_requested(void)
{
    uint32_t all = apic_mmio_read(APIC_IRR) >> 16;

    for (uint32_t i = 1; i < 8 && !all; i++)
        all = apic_mmio_read(APIC_IRR + 16 * i);
    return all;
}

/*
 * What is in service ends (with TPR 0 it is PPR that says so), and what is pending is taken; by a
 * message to itself the processor looks at what it may have overlooked, and ICR is as always.
 */
static void drain(void)
{
    for (uint32_t i = 0; i < DRAIN_ROUNDS; i++) {
        apic_mmio_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VEC_BASELINE);
        for (uint32_t n = 0; n < DRAIN_ROUNDS && apic_mmio_read(APIC_PPR); n++)
            apic_mmio_write(APIC_EOI, 0);
        open_window();
        if (!is_requested())
            return;
    }
}

static void send_edge(uint8_t vector)
{
    outl(DIFF_PORT_MSI_ADDR, MSI_ADDRESS | this_cpu()->index << MSI_DEST_SHIFT);
    outl(DIFF_PORT_MSI_DATA, vector);
}

/*
 * A vector's trigger mode goes back to edge with the next edge: a device's, for hardware that posts
 * IPIs does not look at it. True: there was one.
 */
static bool clear_tmr(void)
{
    bool any = false;

    for (uint32_t i = 0; i < 8; i++) {
        uint32_t word = apic_mmio_read(APIC_TMR + 16 * i);

        any |= word != 0;
        for (uint32_t bit = i ? 0 : 16; bit < 32 && word >> bit; bit++)
            if (word >> bit & 1)
                send_edge((uint8_t)(32 * i + bit));
    }
    return any;
}

/* xAPIC mode at the usual place, reached by legal steps; that restores the ID, too. */
static void restart_apic(void)
{
    uint64_t flags = this_cpu()->index == 0 ? APIC_BASE_BSP : 0;

    wrmsr(MSR_APIC_BASE, APIC_DEFAULT_BASE | flags);
    wrmsr(MSR_APIC_BASE, APIC_DEFAULT_BASE | flags | APIC_BASE_EN);
    refresh_base();
}

void baseline(void)
{
    static const uint16_t lvts[] = {APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PMC,
                                    APIC_LVT_LINT0, APIC_LVT_LINT1,   APIC_LVT_ERROR};
    uint32_t index = this_cpu()->index;

    me()->quiet = true;
    restart_apic();
    apic_mmio_write(APIC_TPR, 0);
    apic_mmio_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
    for (uint32_t i = 0; i < sizeof(lvts) / sizeof(lvts[0]); i++)
        apic_mmio_write(lvts[i], LVT_MASKED);
    apic_mmio_write(APIC_TMICT, 0);
    apic_mmio_write(APIC_TDCR, 0);
    if (apic_has_deadline())
        wrmsr(MSR_TSC_DEADLINE, 0);
    apic_mmio_write(APIC_ID, index << 24);
    apic_mmio_write(APIC_DFR, DFR_ALL_FLAT);
    apic_mmio_write(APIC_LDR, (1u << index) << 24);
    apic_mmio_write(APIC_ICR2, 0);
    drain();
    if (clear_tmr())
        drain();
    apic_mmio_write(APIC_ESR, 0);
    apic_mmio_write(APIC_ESR, 0);
    me()->quiet = false;
}

/* Only what the program has touched: exits are dear. */
static void reset_ioapic(uint32_t touched)
{
    for (unsigned n = 0; n < LINES; n++)
        if (touched >> n & 1)
            line_set(n, false);
    for (unsigned pin = 0; pin < LINES; pin++)
        if (touched >> pin & 1)
            ioapic_route(pin, RTE_MASKED, 0);
}

static void reset_machine(void)
{
    reset_ioapic(touched_pins);
    baseline();
    call_others(CALL_BASELINE);
    touched_pins = unmaskable_pins = 0;
    mailbox.pc = 0;
    mailbox.log_count = 0;
}

_Noreturn void guest_main(const char *command_line)
{
    (void)command_line;
    mailbox.magic = DIFF_MAGIC;
    outl(DIFF_PORT_ATTACH, (uint32_t)(uint64_t)&mailbox);
    irq_init();
    start_cpus();
    pic_mask_all();
    for (;;) {
        outl(DIFF_PORT_FETCH, 0);
        reset_machine();
        interpret();
    }
}
