/* SPDX-License-Identifier: MIT */
/* Priority: TPR, PPR, CR8, the order of delivery, nesting, EOI. All on one processor. */
#include "groups.h"

#define LOG_SIZE 512

static volatile uint8_t order[LOG_SIZE];
static volatile uint64_t rips[LOG_SIZE];
static volatile uint32_t logged;

static void note(struct irq_frame *f)
{
    if (logged < LOG_SIZE) {
        rips[logged] = f->rip;
        order[logged] = (uint8_t)f->vector;
    }
    logged++;
}

static void note_eoi(struct irq_frame *f)
{
    note(f);
    apic_eoi();
}

static void expect_log(const uint8_t *want, uint32_t count)
{
    CHECK_EQ(logged, count);
    for (uint32_t i = 0; i < count && i < logged; i++)
        CHECK_EQ(order[i], want[i]);
}

static void log_vectors(irq_handler handler, const uint8_t *vectors, uint32_t count)
{
    logged = 0;
    for (uint32_t i = 0; i < count; i++)
        irq_set(vectors[i], handler);
}

static void send_two(void)
{
    static const uint8_t sent[] = {0x66, 0x78}, want[] = {0x78, 0x66};

    log_vectors(note_eoi, sent, 2);
    apic_self(0x66);
    apic_self(0x78);
    CHECK(apic_irr(0x66) && apic_irr(0x78));
    CHECK(wait_word_open(&logged, 2));
    expect_log(want, 2);
}

/* The higher vector first, each once. */
static void descending(void)
{
    send_two();
}

/* The second follows the first one's IRET before any instruction of the program. */
static void same_boundary(void)
{
    send_two();
    CHECK_EQ(rips[0], rips[1]);
}

static void same_class(void)
{
    static const uint8_t sent[] = {0x30, 0x31}, want[] = {0x31, 0x30};

    log_vectors(note_eoi, sent, 2);
    apic_self(0x30);
    apic_self(0x31);
    CHECK(wait_word_open(&logged, 2));
    expect_log(want, 2);
}

static void every_vector(void)
{
    uint32_t count = 0;

    logged = 0;
    for (unsigned v = VEC_FIRST_IRQ; v < VEC_SPURIOUS; v++, count++) {
        irq_set(v, note_eoi);
        apic_self((uint8_t)v);
    }
    CHECK(wait_word_open(&logged, count));
    CHECK_EQ(logged, count);
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(order[i], VEC_SPURIOUS - 1 - i);
}

static void tpr_blocks(void)
{
    static const uint8_t sent[] = {0x32, 0x42}, want[] = {0x42, 0x32};

    log_vectors(note_eoi, sent, 2);
    apic_write(APIC_TPR, 0xf0);
    apic_self(0x32);
    apic_self(0x42);
    irq_window();
    CHECK_EQ(logged, 0);
    apic_write(APIC_TPR, 0x30); /* equal class: still blocked */
    CHECK(wait_word_open(&logged, 1));
    irq_window();
    CHECK_EQ(logged, 1);
    apic_write(APIC_TPR, 0x2f); /* the low half does not count */
    CHECK(wait_word_open(&logged, 2));
    expect_log(want, 2);
}

static void cr8_blocks(void)
{
    static const uint8_t sent[] = {0x52, 0xa2}, want[] = {0xa2, 0x52};

    log_vectors(note_eoi, sent, 2);
    write_cr8(15);
    apic_self(0x52);
    apic_self(0xa2);
    irq_window();
    CHECK_EQ(logged, 0);
    write_cr8(5);
    CHECK(wait_word_open(&logged, 1));
    irq_window();
    CHECK_EQ(logged, 1);
    write_cr8(4);
    CHECK(wait_word_open(&logged, 2));
    expect_log(want, 2);
}

static void cr8_is_tpr(void)
{
    for (uint32_t i = 0; i < 16; i++) {
        write_cr8(i);
        CHECK_EQ(apic_read(APIC_TPR), i << 4);
        apic_write(APIC_TPR, (i << 4) | 5);
        CHECK_EQ(read_cr8(), i);
    }
    CHECK(!write_cr8_safe(16));
    CHECK(!write_cr8_safe(1ull << 63));
    CHECK_EQ(read_cr8(), 15);
    write_cr8(0);
}

static volatile uint32_t ppr_inside, ppr_raised, tmr_inside, irr_inside, isr_inside;

static void look_inside(struct irq_frame *f)
{
    uint8_t v = (uint8_t)f->vector;

    ppr_inside = apic_read(APIC_PPR);
    isr_inside = apic_isr(v);
    irr_inside = apic_irr(v);
    tmr_inside = apic_tmr(v);
    apic_write(APIC_TPR, 0x95);
    ppr_raised = apic_read(APIC_PPR);
    apic_write(APIC_TPR, 0);
    note_eoi(f);
}

static void ppr_is_the_higher(void)
{
    apic_write(APIC_TPR, 0x37);
    CHECK_EQ(apic_read(APIC_PPR), 0x37);
    apic_write(APIC_TPR, 0);
    CHECK_EQ(apic_read(APIC_PPR), 0);
    logged = 0;
    irq_set(0x6b, look_inside);
    apic_self(0x6b);
    CHECK(wait_word_open(&logged, 1));
    CHECK_EQ(ppr_inside, 0x60);
    CHECK_EQ(ppr_raised, 0x95);
    CHECK_EQ(apic_read(APIC_PPR), 0);
}

static void irr_to_isr(void)
{
    logged = 0;
    irq_set(0x6c, look_inside);
    apic_self(0x6c);
    CHECK(apic_irr(0x6c));
    CHECK(!apic_isr(0x6c));
    CHECK(wait_word_open(&logged, 1));
    CHECK_EQ(isr_inside, 1);
    CHECK_EQ(irr_inside, 0);
    CHECK_EQ(tmr_inside, 0);
    CHECK(!apic_isr(0x6c));
}

static void send_again_inside(struct irq_frame *f)
{
    note(f);
    if (logged == 1) {
        apic_self((uint8_t)f->vector);
        apic_self((uint8_t)f->vector);
        CHECK(apic_irr((uint8_t)f->vector));
    }
    apic_eoi();
}

/* Two instances at most: one in service, one pending. */
static void coalesce(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[0x71];

    irq_set(0x71, note_eoi);
    logged = 0;
    apic_self(0x71);
    apic_self(0x71);
    CHECK(wait_word_open(&logged, 1));
    irq_window();
    CHECK_EQ(me->received[0x71], before + 1);
    irq_set(0x71, send_again_inside);
    logged = 0;
    apic_self(0x71);
    CHECK(wait_word_open(&logged, 2));
    irq_window();
    CHECK_EQ(me->received[0x71], before + 3);
}

/* In the handler of 0x65: a higher class nests, the same class (higher vector) and lower wait. */
static void nest_inside(struct irq_frame *f)
{
    note(f);
    apic_self(0x6f);
    apic_self(0x45);
    apic_self(0x75);
    CHECK(wait_word_open(&logged, 2));
    irq_window();
    CHECK_EQ(logged, 2);
    CHECK(apic_irr(0x6f));
    CHECK(apic_irr(0x45));
    apic_eoi();
}

static void nesting(void)
{
    static const uint8_t others[] = {0x6f, 0x45, 0x75}, want[] = {0x65, 0x75, 0x6f, 0x45};

    log_vectors(note_eoi, others, 3);
    irq_set(0x65, nest_inside);
    apic_self(0x65);
    CHECK(wait_word_open(&logged, 4));
    irq_window();
    expect_log(want, 4);
}

/* Two in service: EOI clears the higher one, whoever's handler runs. */
static void eoi_highest(void)
{
    static const uint8_t two[] = {0x54, 0x84};

    log_vectors(note, two, 2);
    apic_self(0x54);
    CHECK(wait_word_open(&logged, 1));
    apic_self(0x84);
    CHECK(wait_word_open(&logged, 2));
    CHECK(apic_isr(0x54) && apic_isr(0x84));
    CHECK_EQ(apic_read(APIC_PPR), 0x80);
    apic_eoi();
    CHECK(apic_isr(0x54) && !apic_isr(0x84));
    CHECK_EQ(apic_read(APIC_PPR), 0x50);
    apic_eoi();
    CHECK(!apic_isr(0x54));
}

static void eoi_without_service(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[0x55];

    for (unsigned i = 0; i < 10; i++)
        apic_eoi();
    apic_self(0x55);
    CHECK(wait_word_open(&me->received[0x55], before + 1));
    CHECK_EQ(me->received[0x55], before + 1);
}

static void eoi_any_value(void)
{
    apic_set_mode(APIC_XAPIC);
    apic_setup();
    log_vectors(note, (const uint8_t[]){0x56}, 1);
    apic_self(0x56);
    CHECK(wait_word_open(&logged, 1));
    apic_mmio_write(APIC_EOI, 77);
    CHECK(!apic_isr(0x56));
    apic_self(0x56);
    CHECK(wait_word_open(&logged, 2));
    __asm__ volatile("xchgl %%eax, %0"
                     :
                     : "m"(*(volatile uint32_t *)(APIC_DEFAULT_BASE + APIC_EOI)), "a"(0)
                     : "memory");
    CHECK(!apic_isr(0x56));
}

/* Software disable drops what comes, and holds or delivers, but never loses, what is pending. */
static void disable_keeps_pending(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[0x57], dropped = me->received[0x58];

    apic_self(0x57);
    apic_write(APIC_SVR, VEC_SPURIOUS);
    apic_self(0x58);
    irq_window();
    CHECK(!apic_irr(0x58));
    apic_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
    CHECK(wait_word_open(&me->received[0x57], before + 1));
    irq_window();
    CHECK_EQ(me->received[0x57], before + 1);
    CHECK_EQ(me->received[0x58], dropped);
}

static void disabled_holds(void)
{
    struct cpu *me = this_cpu();
    uint32_t before = me->received[0x57];

    apic_self(0x57);
    apic_write(APIC_SVR, VEC_SPURIOUS);
    irq_window();
    CHECK_EQ(me->received[0x57], before);
    apic_write(APIC_SVR, SVR_ENABLE | VEC_SPURIOUS);
    CHECK(wait_word_open(&me->received[0x57], before + 1));
}

/*
 * Vectors below 16 never reach the processor. Those of exceptions with an error code are left out:
 * a wrong delivery could not even be returned from.
 */
static void illegal_vectors(void)
{
    static const uint8_t vectors[] = {0, 1, 3, 4, 5, 6, 7, 9, 15};
    struct cpu *me = this_cpu();

    log_vectors(note_eoi, vectors, sizeof(vectors));
    for (unsigned i = 0; i < sizeof(vectors); i++)
        apic_icr(ICR_FIXED | ICR_ASSERT | vectors[i], me->apic_id);
    irq_window();
    CHECK_EQ(logged, 0);
    apic_write(APIC_ESR, 0);
}

const struct test priority_tests[] = {
    {"prio-descending", "[SDM3 12.8.4]", descending, 0, 0},
    {"prio-same-boundary", "[SDM3 12.8.5]", same_boundary, 0, REF_SOFT_KVM},
    {"prio-same-class", "[SDM3 12.8.4]", same_class, 0, 0},
    {"prio-every-vector", "[SDM3 12.8.4] [SDM3 12.5.2]", every_vector, 0, 0},
    {"prio-tpr-blocks", "[SDM3 12.8.3.1]", tpr_blocks, 0, 0},
    {"prio-cr8-blocks", "[SDM3 12.8.6]", cr8_blocks, 0, REF_SOFT_KVM},
    {"prio-cr8-is-tpr", "[SDM3 12.8.6.1]", cr8_is_tpr, 0, REF_QEMU},
    {"prio-ppr", "[SDM3 12.8.3.1]", ppr_is_the_higher, 0, 0},
    {"prio-irr-to-isr", "[SDM3 12.8.4]", irr_to_isr, 0, 0},
    {"prio-coalesce", "[SDM3 12.8.4]", coalesce, 0, 0},
    {"prio-nesting", "[SDM3 12.8.3.1]", nesting, 0, 0},
    {"prio-eoi-highest", "[SDM3 12.8.5]", eoi_highest, 0, 0},
    {"prio-eoi-without-service", "[SDM3 12.8.5]", eoi_without_service, 0, 0},
    {"prio-eoi-any-value", "[SDM3 12.8.5]", eoi_any_value, 0, 0},
    {"prio-disable-keeps-pending", "[SDM3 12.4.7.2]", disable_keeps_pending, 0,
     REF_QEMU | REF_POSTED_DISABLED},
    {"prio-disabled-holds", "[SDM3 12.4.7.2]", disabled_holds, 0, REF_KVM | REF_DELIVERED_DISABLED},
    {"prio-illegal-vectors", "[SDM3 12.5.2]", illegal_vectors, 0, REF_QEMU},
    {0},
};
