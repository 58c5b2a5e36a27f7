/* SPDX-License-Identifier: MIT */
/*
 * The exits of AVIC: 401h with every ID, 402h with every register; through the silicon model where
 * it takes them, and by hand where a processor would have to be odd.
 */
#include "avic_tests.h"

#define TRAPS_WITH   1u /* a trap with EXT_LVT, a fault without */
#define ICR_FIXED(v) (APIC_ICR_ASSERT | (v))

static int exit_by_hand(struct ax *ax, uint64_t code, uint64_t info1, uint64_t info2)
{
    return vapic_avic_exit(&ax->v[0]->apic, code, info1, info2, ax->now);
}

static int noaccel(struct ax *ax, uint32_t offset, bool write, uint8_t vector)
{
    return exit_by_hand(ax, SVM_EXIT_AVIC_NOACCEL, (write ? AVIC_NOACCEL_WRITE : 0) | offset,
                        vector);
}

static int incomplete(struct ax *ax, uint32_t low, uint32_t high, uint32_t id)
{
    return exit_by_hand(ax, SVM_EXIT_AVIC_INCOMPLETE, (uint64_t)high << 32 | low,
                        (uint64_t)id << AVIC_IPI_ID_SHIFT);
}

/* ---- Not such an exit ---- */

static void test_foreign_exit(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);
    struct ax_options none = {.vcpus = 1};

    (void)state;
    assert_int_equal(exit_by_hand(ax, SVM_EXIT_NPF, 0, 0), VAPIC_E_ARG);
    assert_int_equal(exit_by_hand(ax, SVM_EXIT_INVALID, 0, 0), VAPIC_E_ARG);
    ax_free(ax);
    ax = ax_new(&none);
    assert_int_equal(exit_by_hand(ax, SVM_EXIT_AVIC_NOACCEL, 0, 0), VAPIC_E_ARG);
    ax_free(ax);
}

/* ---- 402h: trap or fault, by offset and direction alone ---- */

static bool traps(uint32_t offset)
{
    static const uint16_t list[] = {0x020, 0x0B0, 0x0C0, 0x0D0, 0x0E0, 0x0F0, 0x280, 0x300,
                                    0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3E0};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (list[i] == offset)
            return true;
    return false;
}

static void classify(uint32_t features, uint32_t offset, bool write)
{
    struct ax *ax = avic_vm(features, 1, false);
    bool trap = write && (traps(offset) ||
                          (features & VAPIC_ACCEL_EXT_LVT && offset >= 0x500 && offset <= 0x530));
    const struct vapic_event *event;

    ax_enter(ax, 0);
    ax_leave(ax, 0);
    ax_forget(ax);
    assert_int_equal(noaccel(ax, offset, write, 0x77), trap ? VAPIC_OK : VAPIC_EMULATE);
    assert_int_equal(ax_traced(ax, VAPIC_EVENT_AVIC_UNACCELERATED_ACCESS), 1);
    event = ax_last_trace(ax, VAPIC_EVENT_AVIC_UNACCELERATED_ACCESS);
    assert_int_equal(event->arg[0], offset);
    assert_int_equal(event->arg[1], (uint64_t)trap | (uint64_t)write << 1);
    assert_int_equal(event->arg[2], 0x77);
    ax_free(ax);
}

static void test_trap_or_fault(void **state)
{
    (void)state;
    for (uint32_t offset = 0; offset < 0x1000; offset += 16)
        for (uint32_t i = 0; i < 4; i++)
            classify(XAVIC | (i & 1 ? VAPIC_ACCEL_EXT_LVT : 0), offset, i & 2);
}

/* Only bits 11:4 and 32 of EXITINFO1 mean anything. */
static void test_reserved_bits_of_info(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    assert_int_equal(exit_by_hand(ax, SVM_EXIT_AVIC_NOACCEL, 0xFFFFFFFE0000F00Full, ~0ull),
                     VAPIC_EMULATE); /* a read of offset 0 */
    assert_int_equal(
        exit_by_hand(ax, SVM_EXIT_AVIC_NOACCEL, AVIC_NOACCEL_WRITE | 0x280 | 0xF000F, ~0ull),
        VAPIC_OK);
    ax_free(ax);
}

/* ---- Traps have their effect ---- */

static void test_svr_trap(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_write(ax, 0, APIC_LVT_LINT1, 0x44);
    enter_all(ax);
    ax_write(ax, 0, APIC_SVR, 0xFF); /* software disable masks the LVT entries */
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_NOACCEL), 1);
    assert_int_equal(ax_read(ax, 0, APIC_LVT_LINT1), 0x44 | APIC_LVT_MASKED);
    assert_false(vapic_post(&ax->v[0]->apic, 0x55, false, NULL));
    ax_free(ax);
}

static void test_esr_trap(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ax_ipi(ax, 0, APIC_ICR_ASSERT | 5, 0); /* send illegal vector */
    ax_write(ax, 0, APIC_ESR, 0);
    assert_int_equal(ax_read(ax, 0, APIC_ESR), APIC_ESR_SEND_ILLEGAL);
    ax_write(ax, 0, APIC_ESR, 0);
    assert_int_equal(ax_read(ax, 0, APIC_ESR), 0);
    ax_free(ax);
}

static void test_timer_traps(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ax_write(ax, 0, APIC_TDCR, 0xB);
    ax_write(ax, 0, APIC_LVT_TIMER, 0xEC);
    ax_write(ax, 0, APIC_TMICT, 1000000);
    assert_int_equal(ax_read(ax, 0, APIC_TMICT), 1000000);
    assert_int_equal(ax_read(ax, 0, APIC_TMCCT), 1000000); /* a fault, emulated */
    ax_tick(ax, 400000);
    assert_int_equal(ax_read(ax, 0, APIC_TMCCT), 600000);
    ax_tick(ax, 600000);
    assert_int_equal(ax_delivered(ax, 0, 0xEC), 1);
    ax_free(ax);
}

static void test_rrr_trap(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ax_write(ax, 0, APIC_RRR, 0x12345678);
    assert_int_equal(ax_read(ax, 0, APIC_RRR), 0);
    ax_free(ax);
}

/* A rewritten ID inhibits the VM, and the old one brings it back. */
static void test_id_trap(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    ax_write(ax, 1, APIC_ID, 9u << 24);
    ax_settle(ax);
    assert_true(vapic_inhibits(&ax->vm).bits & 1u << VAPIC_INHIBIT_APIC_ID_MODIFIED);
    assert_int_equal(ax_read(ax, 1, APIC_ID), 9u << 24);
    ax_ipi(ax, 0, ICR_FIXED(0x61), 9);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_write(ax, 1, APIC_ID, 1u << 24);
    ax_settle(ax);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    assert_int_equal(avic_mode(ax, 0), VMCB_V_AVIC);
    ax_free(ax);
}

/* Extended LVT entries [APM2 16.4.5]: with the feature the write is complete, without it is not. */
static void test_extended_lvt(void **state)
{
    (void)state;
    for (uint32_t with = 0; with < 2; with++) {
        struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC,
                                         .features = XAVIC | (with ? VAPIC_ACCEL_EXT_LVT : 0)},
                               .features = VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT};
        struct ax *ax = ax_new(&o);

        ax_write(ax, 0, APIC_EILVT + 0x10, 0xFFFFFFFF);
        assert_int_equal(ax_read(ax, 0, APIC_EILVT + 0x10), 0x107FF);
        assert_int_equal(ax_page(ax, 0, APIC_EILVT + 0x10), 0x107FF);
        assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_NOACCEL), with ? 1 : 2);
        ax_free(ax);
    }
}

/* ---- EOI ---- */

/* A level-triggered interrupt of the I/O APIC: its EOI exits and reaches the pin. */
static void level_eoi(bool x2apic, uint32_t features, bool cleared)
{
    struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC, .features = features},
                           .silicon = {.x2avic = (features & VAPIC_ACCEL_X2AVIC) != 0,
                                       .knobs = {.level_eoi_clears_isr = cleared}},
                           .silicon_set = true,
                           .config = {.max_gsis = 24},
                           .x2apic = x2apic,
                           .trace = true};
    struct ax *ax = ax_new(&o);
    struct vapic_ioapic *io = ax_ioapic(ax);
    bool hybrid = x2apic && !(features & VAPIC_ACCEL_X2AVIC);

    vapic_ioapic_write(io, 0, 0x10 + 2 * 5, 4);
    vapic_ioapic_write(io, 0x10, 0x8000 | 0x71, 4);
    enter_all(ax);
    vapic_gsi_set(&ax->vm, 5, 0, true);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x71), 1);
    assert_true(vapic_ioapic_entry(io, 5) >> 14 & 1);
    vapic_gsi_set(&ax->vm, 5, 0, false);
    ax_forget(ax);
    ax_eoi(ax, 0);
    assert_int_equal(ax_exits(ax, 0, hybrid ? SVM_EXIT_MSR : SVM_EXIT_AVIC_NOACCEL), 1);
    assert_false(vapic_ioapic_entry(io, 5) >> 14 & 1);
    assert_int_equal(ax_count(ax, AX_EOI), 1);
    assert_int_equal(ax_traced(ax, VAPIC_EVENT_EOI), 1);
    assert_false(ax_page_bit(ax, 0, APIC_ISR, 0x71));
    assert_int_equal(ax_page(ax, 0, APIC_PPR), 0);
    ax_free(ax);
}

static void test_level_eoi(void **state)
{
    (void)state;
    level_eoi(false, XAVIC, false);
    level_eoi(false, XAVIC, true);
    level_eoi(true, X2AVIC, false);
    level_eoi(true, X2AVIC, true);
    level_eoi(true, XAVIC, false);
}

/* The line is still high: the EOI delivers it once more. */
static void test_level_again(void **state)
{
    struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC, .features = XAVIC},
                           .config = {.max_gsis = 24}};
    struct ax *ax = ax_new(&o);
    struct vapic_ioapic *io = ax_ioapic(ax);

    (void)state;
    vapic_ioapic_write(io, 0, 0x10, 4);
    vapic_ioapic_write(io, 0x10, 0x8000 | 0x71, 4);
    vapic_gsi_set(&ax->vm, 0, 0, true);
    ax_settle(ax);
    ax_eoi(ax, 0);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x71), 2);
    ax_free(ax);
}

/* 80h by edge above 31h by level: the first EOI is the processor's, the second exits for 31h. */
static void test_edge_above_level(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    ax_post(ax, 0, 0x31, true);
    ax_settle(ax);
    ax_post(ax, 0, 0x80, false);
    ax_settle(ax);
    ax_forget(ax);
    ax_eoi(ax, 0);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_eoi(ax, 0);
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_NOACCEL), 1);
    assert_int_equal(ax_nth(ax, AX_EXIT, 0)->c, 0x31);
    assert_int_equal(ax_nth(ax, AX_EOI, 0)->a, 0x31);
    ax_eoi(ax, 0); /* nothing is in service */
    assert_int_equal(ax_exits(ax, 0, SVM_EXIT_AVIC_NOACCEL), 1);
    ax_free(ax);
}

/* A vector that was level once comes as an edge IPI: the EOI may exit, nobody owns the vector. */
static void test_stale_trigger_mode(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_post(ax, 1, 0x71, true);
    ax_settle(ax);
    ax_eoi(ax, 1);
    ax_ipi(ax, 0, ICR_FIXED(0x71), 1);
    ax_settle(ax);
    ax_forget(ax);
    ax_eoi(ax, 1);
    assert_false(ax_page_bit(ax, 1, APIC_ISR, 0x71));
    ax_ipi(ax, 0, ICR_FIXED(0x71), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x71), 1);
    ax_free(ax);
}

/* ---- 401h ---- */

/* Nothing was posted: the whole IPI is sent; what was posted already is not posted again. */
static void test_incomplete_by_id(void **state)
{
    static const struct {
        uint32_t id, low;
        bool posts, nmi, illegal;
        enum vapic_action action;
    } rows[] = {
        {AVIC_IPI_INVALID_TYPE, ICR_FIXED(0x61), true, false, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_NOT_RUNNING, ICR_FIXED(0x61), false, false, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_INVALID_TARGET, ICR_FIXED(0x61), true, false, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_INVALID_BACKING, ICR_FIXED(0x61), false, false, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_INVALID_VECTOR, ICR_FIXED(5), false, false, true, VAPIC_ACTION_NONE},
        {AVIC_IPI_UNACCELERATED, ICR_FIXED(0x61), false, false, false, VAPIC_ACTION_NONE},
        {77, ICR_FIXED(0x61), false, false, false, VAPIC_ACTION_NONE},
        /* The type decides before the ID. */
        {AVIC_IPI_INVALID_TYPE, APIC_DM_NMI, false, true, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_INVALID_VECTOR, APIC_DM_NMI, false, true, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_INVALID_TARGET, APIC_DM_NMI, false, true, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_NOT_RUNNING, APIC_DM_NMI, false, true, false, VAPIC_ACTION_WAKE},
        {AVIC_IPI_INVALID_TYPE, APIC_DM_LOWEST | 0x61, true, false, false, VAPIC_ACTION_WAKE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = avic_vm(XAVIC, 2, false);
        const struct vapic_event *event;

        enter_all(ax);
        sleep_vcpu(ax, 1);
        ax_leave(ax, 0);
        ax_forget(ax);
        assert_int_equal(incomplete(ax, rows[i].low, 1u << 24, rows[i].id), VAPIC_OK);
        assert_int_equal(ax_page_bit(ax, 1, APIC_IRR, 0x61), rows[i].posts);
        assert_int_equal(ax_count(ax, AX_NOTIFY), rows[i].action != VAPIC_ACTION_NONE);
        if (rows[i].action != VAPIC_ACTION_NONE)
            assert_int_equal(ax_nth(ax, AX_NOTIFY, 0)->a, rows[i].action);
        event = ax_last_trace(ax, VAPIC_EVENT_AVIC_INCOMPLETE_IPI);
        assert_non_null(event);
        assert_int_equal(event->arg[0], 1u << 24);
        assert_int_equal(event->arg[1], rows[i].low);
        assert_int_equal(event->arg[2], rows[i].id);
        ax_settle(ax);
        assert_int_equal(ax_count(ax, AX_NMI), rows[i].nmi);
        ax_write(ax, 0, APIC_ESR, 0);
        assert_int_equal(ax_read(ax, 0, APIC_ESR) == APIC_ESR_SEND_ILLEGAL, rows[i].illegal);
        ax_free(ax);
    }
}

/* The same by the processor: who gets what, in every form of destination. */
static void sends(struct ax *ax, uint32_t icr, uint32_t dest, uint32_t vector, uint32_t targets)
{
    ax_forget(ax);
    ax_ipi(ax, 0, icr | APIC_ICR_ASSERT | vector, dest);
    ax_settle(ax);
    for (uint32_t n = 0; n < ax->vcpus; n++) {
        if (ax_delivered(ax, n, (uint8_t)vector) != (targets >> n & 1))
            fail_msg("icr %#x dest %#x: vCPU %u got %u", icr, dest, n,
                     ax_delivered(ax, n, (uint8_t)vector));
        if (targets >> n & 1)
            ax_eoi(ax, n);
    }
}

static void every_destination(uint32_t features, bool asleep)
{
    struct ax *ax = avic_vm(features, 4, false);

    for (uint32_t n = 0; n < 4; n++)
        ax_write(ax, n, APIC_LDR, 1u << (24 + n));
    enter_all(ax);
    for (uint32_t n = 1; n < 4 && asleep; n++)
        sleep_vcpu(ax, n);
    sends(ax, 0, 2, 0x61, 4);
    sends(ax, 0, 0, 0x62, 1);
    sends(ax, 0, 0xFF, 0x63, 15);
    sends(ax, 0, 7, 0x64, 0); /* nobody */
    sends(ax, APIC_ICR_LOGICAL, 0x06, 0x65, 6);
    sends(ax, APIC_ICR_LOGICAL, 0x18, 0x66, 8); /* one of them has no slot */
    sends(ax, APIC_ICR_LOGICAL, 0xFF, 0x67, 15);
    sends(ax, APIC_ICR_SELF, 0, 0x68, 1);
    sends(ax, APIC_ICR_ALL_INCL, 0, 0x69, 15);
    sends(ax, APIC_ICR_ALL_EXCL, 0, 0x6A, 14);
    sends(ax, APIC_DM_LOWEST | APIC_ICR_LOGICAL, 0x04, 0x6B, 4);
    sends(ax, APIC_ICR_LEVEL, 3, 0x6C, 8);
    ax_free(ax);
}

static void test_destinations(void **state)
{
    (void)state;
    every_destination(XAVIC, false);
    every_destination(XAVIC, true);
    every_destination(0, false);
    every_destination(0, true);
}

static void every_x2_destination(uint32_t features, bool asleep)
{
    struct ax *ax = avic_vm(features, 20, true);

    enter_all(ax);
    for (uint32_t n = 1; n < 20 && asleep; n++)
        sleep_vcpu(ax, n);
    sends(ax, 0, 18, 0x61, 1u << 18);
    sends(ax, 0, 0xFF, 0x62, 0);
    sends(ax, 0, 0xFFFFFFFF, 0x63, 0xFFFFF);
    sends(ax, 0, 0x10002, 0x64, 0);
    sends(ax, APIC_ICR_LOGICAL, 0x00010005, 0x65, 5u << 16);
    sends(ax, APIC_ICR_LOGICAL, 0x00010018, 0x66, 1u << 19);
    sends(ax, APIC_ICR_ALL_INCL, 0, 0x67, 0xFFFFF);
    sends(ax, APIC_ICR_ALL_EXCL, 0, 0x68, 0xFFFFE);
    sends(ax, APIC_ICR_SELF, 0, 0x69, 1);
    ax_forget(ax);
    ax_write(ax, 0, APIC_SELF_IPI, 0x6A);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x6A), 1);
    ax_free(ax);
}

static void test_x2_destinations(void **state)
{
    (void)state;
    every_x2_destination(X2AVIC, false);
    every_x2_destination(X2AVIC, true);
    every_x2_destination(VAPIC_ACCEL_X2AVIC, false);
    every_x2_destination(VAPIC_ACCEL_X2AVIC, true);
    every_x2_destination(XAVIC, true); /* hybrid */
}

/* Cluster model; cluster 15 has no slots and is emulated. */
static void test_clusters(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 4, false);
    static const uint8_t ldr[] = {0x01, 0x12, 0xE8, 0xF1};

    (void)state;
    for (uint32_t n = 0; n < 4; n++) {
        ax_write(ax, n, APIC_DFR, APIC_DFR_CLUSTER);
        ax_write(ax, n, APIC_LDR, (uint32_t)ldr[n] << 24);
    }
    enter_all(ax);
    assert_int_equal(logical_entry(ax, 0), AVIC_LOGICAL_VALID | 0);
    assert_int_equal(logical_entry(ax, 5), AVIC_LOGICAL_VALID | 1);
    assert_int_equal(logical_entry(ax, 59), AVIC_LOGICAL_VALID | 2);
    assert_int_equal(logical_entry(ax, 60), 0);
    sends(ax, APIC_ICR_LOGICAL, 0x12, 0x61, 2);
    sends(ax, APIC_ICR_LOGICAL, 0xE8, 0x62, 4);
    sleep_vcpu(ax, 2);
    sends(ax, APIC_ICR_LOGICAL, 0xE8, 0x64, 4);
    ax_free(ax);
}

/* {valid and running, invalid}: nothing is posted by the processor, everything by the library. */
static void test_all_or_nothing(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_write(ax, 1, APIC_LDR, 2u << 24);
    enter_all(ax);
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | ICR_FIXED(0x61), 0x0A);
    assert_int_equal(ax_nth(ax, AX_EXIT, 0)->c >> 32, AVIC_IPI_INVALID_TARGET);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* The only vCPU has no others. */
static void test_alone(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 1, false);

    (void)state;
    enter_all(ax);
    ax_ipi(ax, 0, APIC_ICR_ALL_EXCL | ICR_FIXED(0x61), 0);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_EXIT) + ax_count(ax, AX_DELIVERED), 0);
    ax_free(ax);
}

/* Two asleep, one running: one exit, which names one of them; both are woken. */
static void test_broadcast_wakes_all(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 4, false);
    uint32_t woken = 0;

    (void)state;
    enter_all(ax);
    sleep_vcpu(ax, 1);
    sleep_vcpu(ax, 2);
    ax_forget(ax);
    ax_ipi(ax, 0, APIC_ICR_ALL_EXCL | ICR_FIXED(0x61), 0);
    assert_int_equal(ax_count(ax, AX_EXIT), 1);
    for (uint32_t i = 0; i < ax_count(ax, AX_NOTIFY); i++)
        woken += ax_nth(ax, AX_NOTIFY, i)->a == VAPIC_ACTION_WAKE;
    assert_int_equal(woken, 2);
    assert_int_equal(ax_traced(ax, VAPIC_EVENT_AVIC_KICK_VCPU_SLOWPATH), 1);
    ax_settle(ax);
    for (uint32_t n = 1; n < 4; n++)
        assert_int_equal(ax_delivered(ax, n, 0x61), 1);
    ax_free(ax);
}

/* xAVIC takes logical FFh for everybody; a sleeping vCPU without LDR is woken for it. */
static void test_logical_ff_without_ldr(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    sleep_vcpu(ax, 1);
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | ICR_FIXED(0x61), 0xFF);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* Whom the processor's tables name is kicked, also when the fabric names somebody else by now. */
static void test_kick_by_table(void **state)
{
    static const struct {
        bool x2apic;
        uint32_t icr, dest;
    } rows[] = {
        {false, 0, 1},                   /* vCPU 1 answers to 9 */
        {false, APIC_ICR_LOGICAL, 0x82}, /* a slot without an LDR, and one without anything */
        {true, 0, 1},                    /* vCPU 1 is disabled */
        {true, APIC_ICR_LOGICAL, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = avic_vm(X2AVIC, 3, rows[i].x2apic);

        enter_all(ax);
        if (rows[i].x2apic)
            ax_wrmsr(ax, 1, MSR_APIC_BASE, APIC_DEFAULT_BASE);
        else
            ax_write(ax, 1, APIC_ID, 9u << 24);
        ax->accel.logical_table[1] = AVIC_LOGICAL_VALID | 1;
        ax_settle(ax);
        ax_leave(ax, 0);
        ax_forget(ax);
        assert_int_equal(incomplete(ax, rows[i].icr | ICR_FIXED(0x61),
                                    rows[i].x2apic ? rows[i].dest : rows[i].dest << 24,
                                    AVIC_IPI_NOT_RUNNING),
                         VAPIC_OK);
        assert_int_equal(ax_count(ax, AX_NOTIFY), 1);
        assert_int_equal(ax_nth(ax, AX_NOTIFY, 0)->vcpu, 1);
        ax_free(ax);
    }
}

static void change_ldr(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    uint32_t ldr = 8u << 24;

    (void)cpu;
    if (point != VAPIC_SIL_POINT_RESOLVED)
        return;
    ax->on_point = NULL;
    vapic_mmio_write(&ax->v[1]->apic, APIC_LDR, &ldr, sizeof(ldr), ax->now);
}

/* The processor has found the target by an entry that is gone when the exit is handled: neither the
 * tables nor the fabric name it any more, and it has the vector. */
static void test_kick_by_former_table(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_write(ax, 1, APIC_LDR, 2u << 24);
    enter_all(ax);
    sleep_vcpu(ax, 1);
    ax_settle(ax);
    ax->on_point = change_ldr;
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | ICR_FIXED(0x61), 2);
    assert_null(ax->on_point);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* Changes of the table before the sender's entry are history: whom the IPI is not for sleeps on. */
static void test_kick_by_settled_table(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 3, false);

    (void)state;
    ax_write(ax, 1, APIC_LDR, 2u << 24);
    ax_write(ax, 2, APIC_LDR, 4u << 24);
    enter_all(ax);
    sleep_vcpu(ax, 1);
    sleep_vcpu(ax, 2);
    ax_settle(ax);
    ax_forget(ax);
    ax_ipi(ax, 0, APIC_ICR_LOGICAL | ICR_FIXED(0x61), 2);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    for (uint32_t i = 0; i < ax_count(ax, AX_NOTIFY); i++)
        assert_int_not_equal(ax_nth(ax, AX_NOTIFY, i)->vcpu, 2);
    ax_free(ax);
}

/* A destination that names nobody, in the tables or out of them. */
static void test_kick_nobody(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    enter_all(ax);
    ax_write(ax, 0, APIC_DFR, APIC_DFR_CLUSTER);
    ax_leave(ax, 0);
    ax_forget(ax);
    incomplete(ax, ICR_FIXED(0x61), 77u << 24, AVIC_IPI_NOT_RUNNING);
    incomplete(ax, APIC_ICR_LOGICAL | ICR_FIXED(0x61), 0xF3u << 24, AVIC_IPI_NOT_RUNNING);
    incomplete(ax, APIC_ICR_LOGICAL | ICR_FIXED(0x61), 0x30u << 24, AVIC_IPI_NOT_RUNNING);
    assert_int_equal(ax_count(ax, AX_NOTIFY), 0);
    ax_free(ax);
}

/* Posting again would deliver twice. */
static void test_not_posted_twice(void **state)
{
    struct ax *ax = avic_vm(0, 2, false);

    (void)state;
    enter_all(ax);
    ax_ipi(ax, 0, ICR_FIXED(0x61), 1); /* exits with ID 1: posted by the processor */
    ax_settle(ax);
    ax_eoi(ax, 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* ---- Bit 12, the two halves of ICR ---- */

static void test_busy_bit(void **state)
{
    struct ax *ax = avic_vm(XAVIC, 2, false);

    (void)state;
    ax_ipi(ax, 0, APIC_ICR_BUSY | APIC_DM_NMI | APIC_ICR_ASSERT, 1);
    assert_int_equal(ax_read(ax, 0, APIC_ICR), APIC_DM_NMI | APIC_ICR_ASSERT);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_NMI), 1);
    ax_ipi(ax, 0, APIC_ICR_BUSY | ICR_FIXED(0x61), 1); /* accelerated: the processor keeps it */
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
    ax = avic_vm(0, 2, false); /* exits with ID 1, where nothing is sent again */
    ax_ipi(ax, 0, APIC_ICR_BUSY | ICR_FIXED(0x61), 1);
    assert_int_equal(ax_read(ax, 0, APIC_ICR), ICR_FIXED(0x61));
    ax_free(ax);
}

/* As two words of the page, by the processor, by emulation and by an image alike; the second is at
 * 310h as in xAPIC mode. [APM2 15.29.10] */
static void test_split_icr(void **state)
{
    struct ax *ax = avic_vm(X2AVIC, 2, true);
    uint8_t image[VAPIC_IMAGE_SIZE];
    uint64_t value;
    uint32_t high;

    (void)state;
    ax_ipi(ax, 0, ICR_FIXED(0x61), 1);
    assert_int_equal(ax_page(ax, 0, APIC_ICR), ICR_FIXED(0x61));
    assert_int_equal(ax_page(ax, 0, APIC_ICR + 4), 0);
    assert_int_equal(ax_page(ax, 0, APIC_ICR2), 1);
    assert_int_equal(ax_rdmsr(ax, 0, 0x830, &value), AX_DONE);
    assert_int_equal(value, 1ull << 32 | ICR_FIXED(0x61));
    ax_leave(ax, 0);
    assert_int_equal(
        vapic_save_image(&ax->v[0]->apic, VAPIC_IMAGE_ID32, image, sizeof(image), ax->now),
        VAPIC_OK);
    memcpy(&high, image + APIC_ICR2, sizeof(high));
    assert_int_equal(high, 1);
    ax_free(ax);
}

/* A processor that reports a write of ICR by 402h. */
static void test_icr_by_noaccel(void **state)
{
    static const struct {
        bool x2apic;
        uint32_t high;
    } rows[] = {{false, 1u << 24}, {true, 1}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ax *ax = avic_vm(X2AVIC, 2, rows[i].x2apic);
        uint32_t icr = APIC_ICR_BUSY | ICR_FIXED(0x61);

        enter_all(ax);
        ax_leave(ax, 0);
        memcpy(ax->v[0]->page + APIC_ICR, &icr, sizeof(icr));
        memcpy(ax->v[0]->page + APIC_ICR2, &rows[i].high, sizeof(icr));
        assert_int_equal(noaccel(ax, APIC_ICR, true, 0), VAPIC_OK);
        assert_int_equal(ax_page(ax, 0, APIC_ICR), ICR_FIXED(0x61));
        ax_settle(ax);
        assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
        ax_free(ax);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign_exit),
        cmocka_unit_test(test_trap_or_fault),
        cmocka_unit_test(test_reserved_bits_of_info),
        cmocka_unit_test(test_svr_trap),
        cmocka_unit_test(test_esr_trap),
        cmocka_unit_test(test_timer_traps),
        cmocka_unit_test(test_rrr_trap),
        cmocka_unit_test(test_id_trap),
        cmocka_unit_test(test_extended_lvt),
        cmocka_unit_test(test_level_eoi),
        cmocka_unit_test(test_level_again),
        cmocka_unit_test(test_edge_above_level),
        cmocka_unit_test(test_stale_trigger_mode),
        cmocka_unit_test(test_incomplete_by_id),
        cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_x2_destinations),
        cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_broadcast_wakes_all),
        cmocka_unit_test(test_logical_ff_without_ldr),
        cmocka_unit_test(test_kick_by_table),
        cmocka_unit_test(test_kick_by_former_table),
        cmocka_unit_test(test_kick_by_settled_table),
        cmocka_unit_test(test_kick_nobody),
        cmocka_unit_test(test_not_posted_twice),
        cmocka_unit_test(test_busy_bit),
        cmocka_unit_test(test_split_icr),
        cmocka_unit_test(test_icr_by_noaccel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
