/* SPDX-License-Identifier: MIT */
/*
 * Virtual-interrupt delivery: virtualization of TPR, PPR, EOI and self-IPIs, recognition and
 * delivery, what else comes at an instruction boundary and in which order, HLT [SDM3 31.1.2]
 * [SDM3 31.1.3] [SDM3 31.1.4] [SDM3 31.1.5] [SDM3 31.2.1] [SDM3 31.2.2]
 * [SDM3 26.8.3] [SDM3 28.7] [SDM3 28.7.1].
 */
#include "silicon_vmx.h"

/* Enters with RVI and SVI; what the page's sets hold is the caller's. */
static void start(struct vmx *x, uint32_t controls, unsigned rvi, unsigned svi)
{
    vmx_program(x, 0, controls);
    vmx_set(x, 0, 0x0810, svi << 8 | rvi);
    vmx_set(x, 0, 0x4824, 0);
    vmx_set(x, 0, 0x4826, 0);
    vmx_enter(x, 0);
}

static void clear_page(struct vmx *x)
{
    memset(vmx_word(x, 0, 0), 0, 4096);
}

static enum vapic_sil_result eoi(struct vmx *x, uint32_t controls)
{
    return controls & VX2 ? vapic_sil_wrmsr(&x->cpu[0], 0x80B, 0) : vmx_write(x, 0, 0x0B0, 0);
}

/* ---- PPR ---- */

static void ppr(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned svi = 0; svi < 256; svi += 5) {
        for (unsigned tpr = 0; tpr < 256; tpr++) {
            *vmx_word(&x, 0, 0x080) = tpr;
            start(&x, XAPIC_FULL, 0, svi);
            assert_int_equal(*vmx_word(&x, 0, 0x0A0),
                             (tpr & 0xF0) >= (svi & 0xF0) ? tpr : svi & 0xF0);
            vmx_leave(&x, 0);
        }
    }
    vmx_free(&x);
}

/* PPR virtualization comes with entry, TPR and EOI, not with a self-IPI, whose evaluation takes the
 * PPR as it is; a plain store to the page does nothing. */
static void ppr_triggers(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, X2APIC_FULL, 0, 0);
    *vmx_word(&x, 0, 0x0A0) = 0x90;
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x83F, 0x81), VAPIC_SIL_DONE);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x90);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    *vmx_word(&x, 0, 0x080) = 0x10; /* behind the processor's back */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x90);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x808, 0x20), VAPIC_SIL_DONE);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x20);
    vmx_assert_delivers(&x, 0, 0x81);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x80);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x20);
    vmx_free(&x);
}

/* ---- Recognition and delivery ---- */

/* RVI set by software alone is delivered iff its class is above VTPR's: every vector, every TPR,
 * and when the guest lowers CR8. */
static void rvi_against_tpr(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned vector = 0x21; vector < 256; vector += 3) {
        for (unsigned tpr = 0; tpr < 256; tpr++) {
            clear_page(&x);
            *vmx_word(&x, 0, 0x080) = tpr;
            start(&x, X2APIC_FULL & ~ARV, vector, 0);
            if (vector >> 4 > tpr >> 4) {
                vmx_assert_delivers(&x, 0, vector);
                assert_true(vmx_in_set(&x, 0, APIC_ISR, (uint8_t)vector));
                assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
                vmx_leave(&x, 0);
                vmx_assert_status(&x, 0, 0, 0);
            } else {
                vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
                vmx_leave(&x, 0);
                vmx_assert_status(&x, 0, vector, 0);
            }
        }
    }
    vmx_free(&x);
}

static void cr8_lowered(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned class = 2; class < 16; class ++) {
        for (unsigned to = 0; to < 16; to++) {
            clear_page(&x);
            *vmx_word(&x, 0, 0x080) = 0xF0;
            start(&x, XAPIC_FULL, class << 4 | 7, 0);
            vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
            assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], to), VAPIC_SIL_DONE);
            if (to < class)
                vmx_assert_delivers(&x, 0, class << 4 | 7);
            vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
            vmx_leave(&x, 0);
        }
    }
    vmx_free(&x);
}

/* After delivery: ISR, IRR, RVI (the next of IRR), SVI, PPR. */
static void delivery_state(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_IRR, 0x61);
    vmx_set_vector(&x, 0, APIC_IRR, 0x35);
    vmx_set_vector(&x, 0, APIC_TMR, 0x61);
    start(&x, XAPIC_FULL, 0x61, 0);
    assert_true(x.cpu[0].recognized);
    vmx_assert_delivers(&x, 0, 0x61);
    assert_false(x.cpu[0].recognized);
    assert_false(vmx_in_set(&x, 0, APIC_IRR, 0x61));
    assert_true(vmx_in_set(&x, 0, APIC_ISR, 0x61));
    assert_true(vmx_in_set(&x, 0, APIC_TMR, 0x61)); /* nobody's business */
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x60);
    assert_int_equal(x.cpu[0].rvi, 0x35);
    assert_int_equal(x.cpu[0].svi, 0x61);
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_DONE);
    vmx_assert_delivers(&x, 0, 0x35);
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_DONE);
    vmx_leave(&x, 0);
    vmx_assert_status(&x, 0, 0, 0);
    for (uint32_t o = 0; o < 0x80; o += 0x10)
        assert_int_equal(*vmx_word(&x, 0, APIC_IRR + o) | *vmx_word(&x, 0, APIC_ISR + o), 0);
    vmx_free(&x);
}

/* RVI below the top of IRR: the lower is delivered first; the higher waits for an evaluation. */
static void rvi_below_irr(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_IRR, 0x91);
    start(&x, XAPIC_FULL, 0x31, 0);
    vmx_assert_delivers(&x, 0, 0x31);
    assert_int_equal(x.cpu[0].rvi, 0x91);
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], 0), VAPIC_SIL_DONE);
    vmx_assert_delivers(&x, 0, 0x91);
    vmx_free(&x);
}

/* IF, the shadow of STI and MOV SS: recognition lasts, delivery waits for the window. */
static void windows(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x0810, 0x41);
    vmx_set(&x, 0, 0x6820, 0x2);
    vmx_enter(&x, 0);
    assert_true(vapic_sil_waiting(&x.cpu[0]));
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    x.cpu[0].guest.interrupt_flag = true;
    x.cpu[0].guest.shadow = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_true(vapic_sil_waiting(&x.cpu[0]));
    x.cpu[0].guest.shadow = false;
    vmx_assert_delivers(&x, 0, 0x41);
    assert_false(vapic_sil_waiting(&x.cpu[0]));
    vmx_leave(&x, 0);

    start(&x, XAPIC_FULL, 0x91, 0);
    assert_true(x.cpu[0].recognized);
    vapic_sil_leave(&x.cpu[0], 10, 0, 0);
    assert_false(x.cpu[0].recognized); /* an exit ends it; RVI is saved */
    assert_false(vapic_sil_waiting(&x.cpu[0]));
    vmx_assert_status(&x, 0, 0x91, 0);
    vmx_free(&x);
}

/* ---- EOI ---- */

/* Any vector in service, with and without its EOI-exit bit, by both ways to write. */
static void eoi_exits(void **state)
{
    static const uint32_t ways[] = {XAPIC_FULL, X2APIC_FULL, VAA | TS | VID,
                                    TS | VX2 | VID | BITMAPS};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 4 * 256 * 2; i++) {
        unsigned vector = i & 255, way = i >> 9;
        bool exits = i & 256;

        clear_page(&x);
        vmx_set_vector(&x, 0, APIC_ISR, (uint8_t)vector);
        vmx_set_vector(&x, 0, APIC_ISR, 0x11);
        for (unsigned w = 0; w < 4; w++)
            vmx_set(&x, 0, 0x201C + 2 * w,
                    w == vector / 64 && exits ? UINT64_C(1) << vector % 64 : 0);
        start(&x, ways[way], 0, vector);
        assert_int_equal(eoi(&x, ways[way]), exits ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        if (exits) {
            vmx_assert_exit(&x, 0, 45, vector);
            assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + (ways[way] & VX2 ? 2 : 6));
        } else {
            vmx_leave(&x, 0);
        }
        assert_false(vmx_in_set(&x, 0, APIC_ISR, (uint8_t)vector));
        vmx_assert_status(&x, 0, 0, vector == 0x11 ? 0 : 0x11);
        assert_int_equal(*vmx_word(&x, 0, 0x0A0), vector == 0x11 ? 0 : 0x10);
    }
    vmx_free(&x);
}

/* The bitmap in use is the one that the entry loaded. */
static void eoi_bitmap_is_loaded(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_ISR, 0x51);
    start(&x, XAPIC_FULL, 0, 0x51);
    vmx_set(&x, 0, 0x201E, UINT64_MAX);
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_DONE);
    vmx_free(&x);
}

/* Two interrupts, all EOI-exit bits set: two exits 45; the lower one waits for the re-entry. */
static void eoi_exit_delays_next(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_IRR, 0x31);
    for (unsigned w = 0; w < 4; w++)
        vmx_set(&x, 0, 0x201C + 2 * w, UINT64_MAX);
    start(&x, XAPIC_FULL, 0x61, 0);
    vmx_assert_delivers(&x, 0, 0x61);
    x.cpu[0].guest.interrupt_flag = true;
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 45, 0x61);
    vmx_assert_status(&x, 0, 0x31, 0);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x31);
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 45, 0x31);
    vmx_assert_status(&x, 0, 0, 0);
    assert_false(vmx_in_set(&x, 0, APIC_IRR, 0x31));
    vmx_free(&x);
}

/* SVI that software forgot to set: the EOI dismisses "vector 0" and only finds out then. */
static void eoi_with_stale_svi(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_ISR, 0x51);
    vmx_set(&x, 0, 0x201E, UINT64_C(1) << 0x11);
    start(&x, XAPIC_FULL, 0, 0);
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_DONE);
    assert_true(vmx_in_set(&x, 0, APIC_ISR, 0x51));
    assert_int_equal(x.cpu[0].svi, 0x51);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x50);
    assert_int_equal(eoi(&x, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 45, 0x51);
    assert_false(vmx_in_set(&x, 0, APIC_ISR, 0x51));
    vmx_free(&x);
}

/* ---- The ICR's self-IPI, by MMIO ---- */

/* Bits of 300h one at a time on top of a self-IPI that is virtualized: bits 14 and 11 are ignored,
 * the vector's own bits are the vector, everything else exits. */
static void icr_self_bits(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned bit = 8; bit < 32; bit++) {
        uint32_t icr = 0x00040091 ^ 1u << bit;
        bool virtualized = bit == 14 || bit == 11;

        clear_page(&x);
        start(&x, XAPIC_FULL, 0, 0);
        assert_int_equal(vmx_write(&x, 0, 0x300, icr),
                         virtualized ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        assert_int_equal(*vmx_word(&x, 0, 0x300), icr);
        assert_int_equal(vmx_in_set(&x, 0, APIC_IRR, 0x91), virtualized);
        if (virtualized)
            vmx_assert_delivers(&x, 0, 0x91);
        else
            vmx_assert_exit(&x, 0, 56, 0x300);
        if (x.cpu[0].in_guest)
            vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

static void icr_self_vectors(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned vector = 0; vector < 256; vector++) {
        clear_page(&x);
        start(&x, vector & 1 ? XAPIC_FULL : VAA | TS | VID, 0, 0);
        if (vector < 16) {
            assert_int_equal(vmx_write(&x, 0, 0x300, 0x40000 | vector), VAPIC_SIL_EXIT);
            vmx_assert_exit(&x, 0, 56, 0x300);
            continue;
        }
        assert_int_equal(vmx_write(&x, 0, 0x300, 0x40000 | vector), VAPIC_SIL_DONE);
        vmx_assert_delivers(&x, 0, vector);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* Without virtual-interrupt delivery nothing is sent by hardware. */
static void icr_without_vid(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, TS | VAA | ARV, 0, 0);
    assert_int_equal(vmx_write(&x, 0, 0x300, 0x40091), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x300);
    vmx_free(&x);
}

/* A self-IPI below RVI does not lower it; its TMR bit stays as it was. */
static void self_ipi_keeps_rvi(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x080) = 0xF0;
    vmx_set_vector(&x, 0, APIC_IRR, 0x91);
    vmx_set_vector(&x, 0, APIC_TMR, 0x41);
    start(&x, XAPIC_FULL, 0x91, 0);
    assert_int_equal(vmx_write(&x, 0, 0x300, 0x40041), VAPIC_SIL_DONE);
    assert_int_equal(x.cpu[0].rvi, 0x91);
    assert_true(vmx_in_set(&x, 0, APIC_TMR, 0x41));
    assert_int_equal(vmx_write(&x, 0, 0x300, 0x400A1), VAPIC_SIL_DONE);
    assert_int_equal(x.cpu[0].rvi, 0xA1);
    vmx_free(&x);
}

/* ---- Interrupt window, HLT, injection ---- */

static void interrupt_window(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned turn = 0; turn < 2; turn++) { /* every entry */
        start(&x, XAPIC_FULL | IWE, 0x41, 0);
        assert_false(x.cpu[0].recognized);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 7, 0);
        vmx_assert_status(&x, 0, 0x41, 0);
    }
    vmx_program(&x, 0, XAPIC_FULL | IWE);
    vmx_set(&x, 0, 0x0810, 0x41);
    vmx_set(&x, 0, 0x6820, 0x2);
    vmx_enter(&x, 0);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_true(vapic_sil_waiting(&x.cpu[0]));
    x.cpu[0].guest.interrupt_flag = true;
    x.cpu[0].guest.shadow = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    x.cpu[0].guest.shadow = false;
    x.cpu[0].guest.halted = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 7, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4826), 1); /* HLT ends when the exit is complete */
    start(&x, XAPIC_FULL, 0x41, 0);
    vmx_assert_delivers(&x, 0, 0x41);
    vmx_free(&x);
}

static void enter_halted(void **state)
{
    static const struct {
        unsigned rvi, tpr, flags, activity;
        bool delivers;
    } cases[] = {
        {0xF1, 0x00, 0x202, 1, true},  {0xF1, 0xF0, 0x202, 1, false}, {0xF1, 0x00, 0x002, 1, false},
        {0x00, 0x00, 0x202, 1, false}, {0xF1, 0x00, 0x202, 2, false}, {0xF1, 0x00, 0x202, 3, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        clear_page(&x);
        *vmx_word(&x, 0, 0x080) = cases[i].tpr;
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x0810, cases[i].rvi);
        vmx_set(&x, 0, 0x6820, cases[i].flags);
        vmx_set(&x, 0, 0x4826, cases[i].activity);
        vmx_enter(&x, 0);
        assert_int_equal(x.cpu[0].guest.halted, cases[i].activity == 1);
        if (cases[i].delivers) {
            vmx_assert_delivers(&x, 0, cases[i].rvi);
            assert_false(x.cpu[0].guest.halted);
        }
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        if (cases[i].activity > 1)
            assert_false(vapic_sil_waiting(&x.cpu[0]));
        vmx_leave(&x, 0);
        assert_int_equal(vmx_get(&x, 0, 0x4826), cases[i].delivers ? 0 : cases[i].activity);
    }
    vmx_free(&x);
}

static void hlt(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, XAPIC_FULL, 0, 0);
    assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_DONE);
    assert_true(x.cpu[0].guest.halted);
    assert_int_equal(x.cpu[0].guest.rip, VMX_RIP + 1);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_INVALID); /* executes nothing */
    vmx_leave(&x, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4826), 1);

    start(&x, XAPIC_FULL, 0x41, 0); /* recognized and deliverable: not lost */
    x.cpu[0].guest.shadow = true;   /* STI; HLT */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_DONE);
    vmx_assert_delivers(&x, 0, 0x41);
    assert_false(x.cpu[0].guest.halted);
    vmx_leave(&x, 0);

    start(&x, XAPIC_FULL | HLTX, 0x41, 0); /* HLT exiting: software has to look at RVI */
    x.cpu[0].guest.shadow = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 12, 0);
    assert_int_equal(vmx_get(&x, 0, 0x440C), 1);
    assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP);
    assert_int_equal(vmx_get(&x, 0, 0x4826), 0);
    vmx_assert_status(&x, 0, 0x41, 0);
    vmx_free(&x);
}

/* The injected event is delivered first, whatever blocks; then what is recognized, if it may. */
static void injection(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x0810, 0x91);
    vmx_set(&x, 0, 0x4016, 0x80000041);
    vmx_set(&x, 0, 0x4824, 1);
    vmx_set(&x, 0, 0x4826, 1);
    vmx_enter(&x, 0);
    assert_false(x.cpu[0].guest.shadow);
    assert_false(x.cpu[0].guest.halted);
    vmx_assert_delivers(&x, 0, 0x41);
    assert_false(vmx_in_set(&x, 0, APIC_ISR, 0x41)); /* injection is no APIC's business */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);   /* IF=0 by the interrupt gate */
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_delivers(&x, 0, 0x91);
    vmx_leave(&x, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4016), 0x41);
    vmx_enter(&x, 0); /* not valid: nothing is injected twice */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    vmx_free(&x);
}

/* An exit while the injected or virtual interrupt is being delivered is reported with it. */
static void exit_during_delivery(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x4016, 0x80000B0E); /* #PF with an error code */
    vmx_set(&x, 0, 0x4018, 0x6);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 14);
    vapic_sil_leave(&x.cpu[0], 48, 0x182, 0x5000);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0x80000B0E);
    assert_int_equal(vmx_get(&x, 0, 0x440A), 6);

    vmx_set(&x, 0, 0x4016, 0x80000202); /* an NMI, not even looked at */
    vmx_enter(&x, 0);
    vapic_sil_leave(&x.cpu[0], 48, 0x182, 0x5000);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0x80000202);
    assert_int_equal(vmx_get(&x, 0, 0x440A), 0);

    start(&x, XAPIC_FULL, 0x61, 0); /* the stack is not mapped */
    vmx_assert_delivers(&x, 0, 0x61);
    struct vapic_sil_access push = {
        .gpa = 0x7FFF0000, .kind = VAPIC_SIL_EVENT_WRITE, .size = 8, .more = true};
    assert_int_equal(vapic_sil_access(&x.cpu[0], &push), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 48, 0x182);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0x80000061);
    assert_int_equal(vmx_get(&x, 0, 0x440A), 0);
    vmx_assert_status(&x, 0, 0, 0x61);
    assert_true(vmx_in_set(&x, 0, APIC_ISR, 0x61));

    vmx_set(&x, 0, 0x4016, 0x80000061); /* injected again: once, nothing is posted */
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x61);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    vapic_sil_leave(&x.cpu[0], 48, 0x182, 0x5000);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0); /* delivery was over */
    vmx_assert_status(&x, 0, 0, 0x61);
    vmx_free(&x);
}

/* Delivery is over when the handler executes: MSR accesses, CR8, memory, each after a delivery. */
static void delivery_ends(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned way = 0; way < 5; way++) {
        struct vapic_sil_access a = {.gpa = 0x7FFF0000, .kind = VAPIC_SIL_READ, .size = 4};
        uint64_t value;

        clear_page(&x);
        start(&x, (X2APIC_FULL & ~BITMAPS) | CR8LD | CR8ST, 0x61, 0);
        vmx_assert_delivers(&x, 0, 0x61);
        if (way == 0)
            vapic_sil_rdmsr(&x.cpu[0], 0x808, &value);
        else if (way == 1)
            vapic_sil_wrmsr(&x.cpu[0], 0x808, 0);
        else if (way == 2)
            vapic_sil_read_cr8(&x.cpu[0], &value);
        else if (way == 3)
            vapic_sil_write_cr8(&x.cpu[0], 0);
        else
            vapic_sil_access(&x.cpu[0], &a);
        assert_false(x.cpu[0].in_guest);
        assert_int_equal(vmx_get(&x, 0, 0x4408), 0);
    }
    vmx_free(&x);
}

/* Exits that delivery can cause carry the event; for others the handler must have executed. */
static void exits_of_delivery(void **state)
{
    static const uint16_t of_delivery[] = {0, 9, 44, 48, 49}, of_handlers[] = {1, 10, 18, 30, 40};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 10; i++) {
        uint16_t code = i < 5 ? of_delivery[i] : of_handlers[i - 5];

        clear_page(&x);
        start(&x, XAPIC_FULL, 0x61, 0);
        vmx_assert_delivers(&x, 0, 0x61);
        vapic_sil_leave(&x.cpu[0], code, 0, 0);
        vmx_assert_exit(&x, 0, code, 0);
        assert_int_equal(vmx_get(&x, 0, 0x4408), i < 5 ? 0x80000061 : 0);
    }
    vmx_free(&x);
}

/* HLT right after delivery, too (a handler that only halts). */
static void hlt_in_handler(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, XAPIC_FULL | HLTX, 0x61, 0);
    vmx_assert_delivers(&x, 0, 0x61);
    assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 12, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0);
    vmx_free(&x);
}

/* ---- Physical interrupts ---- */

static void external_interrupts(void **state)
{
    static const struct {
        uint32_t controls;
        unsigned flags;
        uint32_t info; /* of exit 1 */
        bool pending;  /* in the host afterwards */
    } cases[] = {
        {EIE, 0x202, 0, true},
        {EIE, 0x002, 0, true},
        {EIE | AIE, 0x202, 0x80000077, false},
        {EIE | AIE, 0x002, 0x80000077, false},
        {XAPIC_FULL, 0x202, 0x80000077, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        vmx_program(&x, 0, cases[i].controls);
        vmx_set(&x, 0, 0x6820, cases[i].flags);
        vmx_set(&x, 0, 0x4826, 1);
        vmx_enter(&x, 0);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        vapic_sil_interrupt(&x.m, vmx_host_id(0), 0x77);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 1, 0);
        assert_int_equal(vmx_get(&x, 0, 0x4404), cases[i].info);
        assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP);
        assert_int_equal(vmx_get(&x, 0, 0x4826), 1);
        assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), cases[i].pending ? 0x77 : -1);
    }
    vmx_free(&x);
}

/* Without external-interrupt exiting the guest takes the host's interrupts, subject to IF. */
static void external_interrupts_not_intercepted(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, TS | VAA | ARV);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), 0x77);
    x.cpu[0].guest.interrupt_flag = false;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_delivers(&x, 0, 0x77);
    assert_false(vmx_in_set(&x, 0, APIC_ISR, 0x77));
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    vmx_free(&x);
}

/* In shutdown and wait-for-SIPI external interrupts are blocked. */
static void external_interrupts_blocked(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned activity = 2; activity < 4; activity++) {
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x4826, activity);
        vmx_enter(&x, 0);
        vapic_sil_interrupt(&x.m, vmx_host_id(0), 0x77);
        vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        vmx_leave(&x, 0);
        assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), VMX_NV);
        assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), 0x77);
    }
    vmx_free(&x);
}

/* A recognized virtual interrupt goes before a physical one, an interrupt window as well. */
static void priorities(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, XAPIC_FULL, 0x41, 0);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), 0x77);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    vmx_pid(&x, 0)[1] = UINT64_C(1) << 0x11; /* 51h */
    vmx_pid(&x, 0)[4] |= PID_ON;
    vmx_assert_delivers(&x, 0, 0x41);
    assert_int_equal(vmx_pid(&x, 0)[4] & PID_ON, PID_ON);
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_delivers(&x, 0, 0x51); /* the notification, then what it brought */
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 1, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4404), 0x80000077);

    start(&x, XAPIC_FULL | IWE, 0, 0);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), 0x77);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 7, 0);
    assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), 0x77);

    vmx_program(&x, 0, TS | VAA | EIE | AIE); /* exit 43 before an external interrupt */
    vmx_set(&x, 0, 0x401C, 3);
    vmx_enter(&x, 0);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), 0x77);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 43, 0);
    vmx_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ppr),
        cmocka_unit_test(ppr_triggers),
        cmocka_unit_test(rvi_against_tpr),
        cmocka_unit_test(cr8_lowered),
        cmocka_unit_test(delivery_state),
        cmocka_unit_test(rvi_below_irr),
        cmocka_unit_test(windows),
        cmocka_unit_test(eoi_exits),
        cmocka_unit_test(eoi_bitmap_is_loaded),
        cmocka_unit_test(eoi_exit_delays_next),
        cmocka_unit_test(eoi_with_stale_svi),
        cmocka_unit_test(icr_self_bits),
        cmocka_unit_test(icr_self_vectors),
        cmocka_unit_test(icr_without_vid),
        cmocka_unit_test(self_ipi_keeps_rvi),
        cmocka_unit_test(interrupt_window),
        cmocka_unit_test(enter_halted),
        cmocka_unit_test(hlt),
        cmocka_unit_test(injection),
        cmocka_unit_test(exit_during_delivery),
        cmocka_unit_test(delivery_ends),
        cmocka_unit_test(exits_of_delivery),
        cmocka_unit_test(hlt_in_handler),
        cmocka_unit_test(external_interrupts),
        cmocka_unit_test(external_interrupts_not_intercepted),
        cmocka_unit_test(external_interrupts_blocked),
        cmocka_unit_test(priorities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
