/* SPDX-License-Identifier: MIT */
/* Access to the local APIC in its two forms. Called by everything. */
#include "apic.h"

#include "cpu.h"
#include "irq.h"
#include "x86.h"

#define CPUID1_ECX_X2APIC   (1u << 21)
#define CPUID1_ECX_DEADLINE (1u << 24)
#define BUSY_POLLS          1000000u

static volatile uint32_t *mmio(uint32_t reg)
{
    uint64_t address = APIC_DEFAULT_BASE + reg;

    return (volatile uint32_t *)address;
}

enum apic_mode apic_current_mode(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);

    if (!(base & APIC_BASE_EN))
        return APIC_OFF;
    return base & APIC_BASE_EXTD ? APIC_X2APIC : APIC_XAPIC;
}

bool apic_has_x2apic(void)
{
    return cpuid(1, 0).ecx & CPUID1_ECX_X2APIC;
}

bool apic_has_deadline(void)
{
    return cpuid(1, 0).ecx & CPUID1_ECX_DEADLINE;
}

unsigned cpu_physical_bits(void)
{
    if (cpuid(0x80000000u, 0).eax < 0x80000008u)
        return 36;
    return cpuid(0x80000008u, 0).eax & 0xff;
}

/* x2APIC mode is left only to the disabled state, and entered only from xAPIC. [SDM3 12.12.5] */
void apic_set_mode(enum apic_mode mode)
{
    uint64_t rest = rdmsr(MSR_APIC_BASE) & ~(APIC_BASE_EN | APIC_BASE_EXTD);
    struct cpu *c = this_cpu();

    c->mode = apic_current_mode();
    if (c->mode == mode)
        return;
    if (c->mode == APIC_X2APIC || mode == APIC_OFF)
        wrmsr(MSR_APIC_BASE, rest);
    if (mode != APIC_OFF)
        wrmsr(MSR_APIC_BASE, rest | APIC_BASE_EN);
    if (mode == APIC_X2APIC)
        wrmsr(MSR_APIC_BASE, rest | APIC_BASE_EN | APIC_BASE_EXTD);
    c->mode = mode;
}

uint32_t apic_mmio_read(uint32_t reg)
{
    return *mmio(reg);
}

void apic_mmio_write(uint32_t reg, uint32_t value)
{
    *mmio(reg) = value;
}

uint32_t apic_read(uint32_t reg)
{
    if (this_cpu()->mode == APIC_X2APIC)
        return (uint32_t)rdmsr(apic_msr(reg));
    return apic_mmio_read(reg);
}

void apic_write(uint32_t reg, uint32_t value)
{
    if (this_cpu()->mode == APIC_X2APIC)
        wrmsr(apic_msr(reg), value);
    else
        apic_mmio_write(reg, value);
}

void apic_eoi(void)
{
    this_cpu()->eois++;
    apic_write(APIC_EOI, 0);
}

/* The two halves must not be torn by a handler that sends as well. */
static void xapic_icr(uint32_t low, uint32_t dest)
{
    uint64_t flags = read_flags();

    cli();
    for (unsigned i = 0; i < BUSY_POLLS && (apic_mmio_read(APIC_ICR) & ICR_BUSY); i++)
        cpu_pause();
    apic_mmio_write(APIC_ICR2, dest << 24);
    apic_mmio_write(APIC_ICR, low);
    if (flags & RFLAGS_IF)
        sti();
}

void apic_icr(uint32_t low, uint32_t dest)
{
    struct cpu *c = this_cpu();

    if (c->mode == APIC_X2APIC) {
        fence();
        wrmsr(apic_msr(APIC_ICR), ((uint64_t)dest << 32) | low);
    } else {
        xapic_icr(low, dest);
    }
    __atomic_fetch_add(&c->icr_writes, 1, __ATOMIC_RELEASE);
}

void apic_self_ipi_msr(uint8_t vector)
{
    __atomic_fetch_add(&this_cpu()->self_writes, 1, __ATOMIC_RELAXED);
    wrmsr(apic_msr(APIC_SELF_IPI), vector);
}

void apic_self(uint8_t vector)
{
    if (this_cpu()->mode == APIC_X2APIC)
        apic_self_ipi_msr(vector);
    else
        apic_icr(ICR_FIXED | ICR_ASSERT | ICR_SELF | vector, 0);
}

static bool vector_bit(uint32_t first, uint8_t vector)
{
    return (apic_read(first + 16u * (vector / 32u)) >> (vector % 32)) & 1;
}

bool apic_irr(uint8_t vector)
{
    return vector_bit(APIC_IRR, vector);
}

bool apic_isr(uint8_t vector)
{
    return vector_bit(APIC_ISR, vector);
}

bool apic_tmr(uint8_t vector)
{
    return vector_bit(APIC_TMR, vector);
}

uint32_t apic_broadcast(void)
{
    return this_cpu()->mode == APIC_X2APIC ? 0xffffffffu : 0xffu;
}

/* [SDM3 12.12.10.2] for x2APIC mode */
uint32_t apic_logical_id(uint32_t index)
{
    uint32_t id = cpu_table[index]->apic_id;

    if (this_cpu()->mode == APIC_X2APIC)
        return ((id >> 4) << 16) | (1u << (id & 15));
    return 1u << (index % 8);
}

void apic_setup(void)
{
    static const uint16_t lvts[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};
    struct cpu *c = this_cpu();

    apic_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
    for (unsigned i = 0; i < sizeof(lvts) / sizeof(lvts[0]); i++)
        apic_write(lvts[i], LVT_MASKED);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_TMICT, 0);
    if (c->mode == APIC_XAPIC) {
        apic_write(APIC_DFR, DFR_ALL_FLAT);
        apic_write(APIC_LDR, apic_logical_id(c->index) << 24);
    }
}

void apic_take_snapshot(struct apic_snapshot *s)
{
    s->base = rdmsr(MSR_APIC_BASE);
    s->id = apic_read(APIC_ID);
    s->tpr = apic_read(APIC_TPR);
    s->svr = apic_read(APIC_SVR);
    s->ldr = apic_read(APIC_LDR);
    s->dfr = this_cpu()->mode == APIC_XAPIC ? apic_read(APIC_DFR) : DFR_ALL_FLAT;
    s->irr = s->isr = 0;
    for (uint32_t i = 0; i < 8; i++) {
        s->irr |= apic_read(APIC_IRR + 16 * i);
        s->isr |= apic_read(APIC_ISR + 16 * i);
    }
    s->tmict = apic_read(APIC_TMICT);
    s->tdcr = apic_read(APIC_TDCR);
    s->lvt_timer = apic_read(APIC_LVT_TIMER);
    s->lvt_lint0 = apic_read(APIC_LVT_LINT0);
    s->lvt_lint1 = apic_read(APIC_LVT_LINT1);
    s->lvt_error = apic_read(APIC_LVT_ERROR);
}
