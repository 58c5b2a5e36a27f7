/* SPDX-License-Identifier: MIT */
/* The operations of a program; each leaves one record of how it went, and those of what it met. */
#include "diff.h"

#include "ioapic.h"

#define PAGE_MASK  0xffffff000ull
#define SIPI_PAGE  8u
#define MODE_SHIFT 8

static volatile void *page(uint32_t offset)
{
    return (volatile void *)(APIC_DEFAULT_BASE + offset);
}

static volatile uint32_t *own_page(uint32_t offset)
{
    return (volatile uint32_t *)((me()->base & PAGE_MASK) + offset);
}

void refresh_base(void)
{
    me()->base = rdmsr(MSR_APIC_BASE);
}

static bool in_x2apic(void)
{
    return me()->base & APIC_BASE_EXTD;
}

bool reg_read(uint32_t reg, uint64_t *value)
{
    if (in_x2apic())
        return rdmsr_safe(apic_msr(reg), value);
    *value = *own_page(reg);
    return true;
}

bool reg_write(uint32_t reg, uint64_t value)
{
    if (in_x2apic())
        return wrmsr_safe(apic_msr(reg), value);
    *own_page(reg) = (uint32_t)value;
    return true;
}

static void result(bool fine, uint32_t what)
{
    record(fine ? DIFF_DONE : DIFF_FAULT, what, 0);
}

static void value(bool fine, uint32_t what, uint32_t reg, uint64_t v)
{
    record(fine ? DIFF_VALUE : DIFF_FAULT, what, fine ? coarse(reg, v) : 0);
}

/* What is neither fixed nor for the lowest priority does not wait for a window. */
static bool is_unmaskable(uint64_t word)
{
    return (word >> MODE_SHIFT & 7) > 1;
}

/* Interrupts that are pending are taken here, in the order that the APIC gives them. */
void open_window(void)
{
    __asm__ volatile("sti\n nop\n nop\n nop\n nop\n cli" : : : "memory");
}

static void op_rd(const struct diff_op *op)
{
    uint64_t v = 0;
    bool fine = reg_read(op->a, &v);

    value(fine, op->a, op->a, v);
}

static void op_wr(const struct diff_op *op)
{
    result(reg_write(op->a, op->c), op->a);
}

static void op_mmio_rd(const struct diff_op *op)
{
    uint32_t reg = op->a & 0xff0;
    uint64_t v;

    if (op->code == DIFF_OP_MMIO_RD1)
        v = *(volatile uint8_t *)page(op->a);
    else if (op->code == DIFF_OP_MMIO_RD2)
        v = *(volatile uint16_t *)page(op->a);
    else
        v = *(volatile uint32_t *)page(op->a);
    if (op->code != DIFF_OP_MMIO_RD4 && reg == APIC_TMCCT)
        v = 0; /* a part of a count that runs tells nothing */
    value(true, op->a, reg, v);
}

static void op_mmio_wr(const struct diff_op *op)
{
    if (op->code == DIFF_OP_MMIO_WR1)
        *(volatile uint8_t *)page(op->a) = (uint8_t)op->c;
    else if (op->code == DIFF_OP_MMIO_WR2)
        *(volatile uint16_t *)page(op->a) = (uint16_t)op->c;
    else
        *(volatile uint32_t *)page(op->a) = (uint32_t)op->c;
    result(true, op->a);
}

static void op_rdmsr(const struct diff_op *op)
{
    uint64_t v = 0;
    bool fine = rdmsr_safe(op->b, &v);
    uint32_t reg = op->b == MSR_TSC_DEADLINE ? APIC_TMCCT : (op->b - 0x800) << 4;

    value(fine, op->b, reg, v);
}

static void op_wrmsr(const struct diff_op *op)
{
    result(wrmsr_safe(op->b, op->c), op->b);
    refresh_base();
}

static void op_cr8_rd(const struct diff_op *op)
{
    (void)op;
    value(true, 8, 0, read_cr8());
}

/* Is there a request of a higher class than the processor's priority? */
static bool is_deliverable(void)
{
    uint64_t ppr = 0, word = 0;
    uint32_t i = 8;

    while (i > 0 && reg_read(APIC_IRR + 16 * (i - 1), &word) && !word)
        i--;
    if (i == 0 || !word || !(me()->base & APIC_BASE_EN))
        return false;
    reg_read(APIC_PPR, &ppr);
    return 2 * (i - 1) + (word >> 16 != 0) > ppr >> 4;
}

static void op_cr8_wr(const struct diff_op *op)
{
    bool careful = mailbox.flags & DIFF_CAREFUL_CR8;

    if (careful && is_deliverable()) {
        result(reg_write(APIC_TPR, op->c << 4), 8);
        return;
    }
    if (careful)
        open_window(); /* takes nothing, but withdraws KVM's virtual interrupt */
    result(write_cr8_safe(op->c), 8);
}

static void op_base(const struct diff_op *op)
{
    uint64_t flags = this_cpu()->index == 0 ? APIC_BASE_BSP : 0;

    result(wrmsr_safe(MSR_APIC_BASE, op->c | flags), MSR_APIC_BASE);
    refresh_base();
    record(DIFF_VALUE, MSR_APIC_BASE, me()->base);
}

static bool send(uint32_t low, uint32_t dest)
{
    if (in_x2apic())
        return wrmsr_safe(apic_msr(APIC_ICR), (uint64_t)dest << 32 | low);
    *own_page(APIC_ICR2) = dest << 24;
    *own_page(APIC_ICR) = low;
    return true;
}

static void op_ipi(const struct diff_op *op)
{
    result(send(op->b, (uint32_t)op->c), APIC_ICR);
    if (is_unmaskable(op->b))
        settle();
}

static bool is_self(uint32_t low, uint32_t dest)
{
    uint64_t id = 0;

    reg_read(APIC_ID, &id);
    return !(low & ICR_OTHERS) && (in_x2apic() ? dest == id : (dest & 0xff) == id >> 24);
}

/*
 * Whoever was stopped starts again before anything else happens. A processor that stops itself
 * could not send the SIPI.
 */
static void op_init(const struct diff_op *op)
{
    bool fine = is_self(op->b, (uint32_t)op->c) || send(op->b, (uint32_t)op->c);

    send(ICR_OTHERS | ICR_ASSERT | ICR_SIPI | SIPI_PAGE, 0);
    result(fine, APIC_ICR);
    settle();
}

static void op_self(const struct diff_op *op)
{
    result(wrmsr_safe(apic_msr(APIC_SELF_IPI), op->c), APIC_SELF_IPI);
}

/* An EOI may make Linux send what edge-triggered pins have; see known.md. */
static void settle_pins(void)
{
    if (unmaskable_pins)
        settle();
}

static void op_eoi(const struct diff_op *op)
{
    (void)op;
    result(reg_write(APIC_EOI, 0), APIC_EOI);
    settle_pins();
}

static void op_take(const struct diff_op *op)
{
    me()->take = op->a;
    me()->taken = 0;
    open_window();
    me()->take = 0;
    record(DIFF_DONE, 0, 0);
    settle_pins();
}

/* A pin that has once sent what is unmaskable may do so again. */
static void set_pin(uint32_t pin, uint32_t low)
{
    touched_pins |= 1u << pin % 32;
    unmaskable_pins |= (uint32_t)is_unmaskable(low) << pin % 32;
}

static void settle_pin(uint32_t pin)
{
    if (unmaskable_pins >> pin % 32 & 1)
        settle();
}

static void op_rte(const struct diff_op *op)
{
    set_pin(op->a, op->b);
    ioapic_route(op->a, op->b, (uint32_t)op->c);
    record(DIFF_DONE, op->a, 0);
    settle_pin(op->a);
}

static void op_rte_rd(const struct diff_op *op)
{
    uint64_t low = ioapic_read(IOAPIC_RTE + 2u * op->a);

    record(DIFF_VALUE, op->a, low | (uint64_t)ioapic_read(IOAPIC_RTE + 2u * op->a + 1) << 32);
}

static void op_io_rd(const struct diff_op *op)
{
    record(DIFF_VALUE, op->a, ioapic_read(op->a));
}

static void op_io_wr(const struct diff_op *op)
{
    uint32_t pin = (op->a - IOAPIC_RTE) / 2;
    bool is_entry = op->a >= IOAPIC_RTE;

    if (is_entry)
        set_pin(pin, op->a % 2 == 0 ? op->b : 0);
    ioapic_write(op->a, op->b);
    record(DIFF_DONE, op->a, 0);
    if (is_entry)
        settle_pin(pin);
}

static void op_io_eoi(const struct diff_op *op)
{
    ioapic_eoi((uint8_t)op->b);
    record(DIFF_DONE, op->b, 0);
}

static void op_line(const struct diff_op *op)
{
    touched_pins |= 1u << op->a % 32;
    line_set(op->a, op->b & 1);
    record(DIFF_DONE, op->a, 0);
    settle_pin(op->a);
}

static void op_msi(const struct diff_op *op)
{
    outl(DIFF_PORT_MSI_ADDR, op->b);
    outl(DIFF_PORT_MSI_DATA, (uint32_t)op->c);
    record(DIFF_DONE, op->b, 0);
    if (is_unmaskable(op->c))
        settle();
}

static void op_cpuid(const struct diff_op *op)
{
    struct cpuid leaf = cpuid(1, 0);

    (void)op;
    record(DIFF_VALUE, 1, leaf.ebx >> 24 | (leaf.edx & 1u << 9));
}

static void op_dump(const struct diff_op *op)
{
    (void)op;
    dump();
}

void execute(const struct diff_op *op)
{
    static void (*const table[])(const struct diff_op *) = {
        [DIFF_OP_RD] = op_rd,
        [DIFF_OP_WR] = op_wr,
        [DIFF_OP_MMIO_RD1] = op_mmio_rd,
        [DIFF_OP_MMIO_RD2] = op_mmio_rd,
        [DIFF_OP_MMIO_RD4] = op_mmio_rd,
        [DIFF_OP_MMIO_WR1] = op_mmio_wr,
        [DIFF_OP_MMIO_WR2] = op_mmio_wr,
        [DIFF_OP_MMIO_WR4] = op_mmio_wr,
        [DIFF_OP_RDMSR] = op_rdmsr,
        [DIFF_OP_WRMSR] = op_wrmsr,
        [DIFF_OP_CR8_RD] = op_cr8_rd,
        [DIFF_OP_CR8_WR] = op_cr8_wr,
        [DIFF_OP_BASE] = op_base,
        [DIFF_OP_IPI] = op_ipi,
        [DIFF_OP_SELF] = op_self,
        [DIFF_OP_EOI] = op_eoi,
        [DIFF_OP_TAKE] = op_take,
        [DIFF_OP_RTE] = op_rte,
        [DIFF_OP_RTE_RD] = op_rte_rd,
        [DIFF_OP_IO_RD] = op_io_rd,
        [DIFF_OP_IO_WR] = op_io_wr,
        [DIFF_OP_IO_EOI] = op_io_eoi,
        [DIFF_OP_LINE] = op_line,
        [DIFF_OP_MSI] = op_msi,
        [DIFF_OP_TIMER] = run_timer,
        [DIFF_OP_DEADLINE] = run_deadline,
        [DIFF_OP_INIT] = op_init,
        [DIFF_OP_CPUID] = op_cpuid,
        [DIFF_OP_DUMP] = op_dump,
    };

    if (op->code < DIFF_OP_COUNT)
        table[op->code](op);
}
