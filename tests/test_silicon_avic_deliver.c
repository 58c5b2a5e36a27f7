/* SPDX-License-Identifier: MIT */
/*
 * AVIC: when the processor looks at IRR, what it delivers, what EOI does, and TPR in its three
 * places. [APM2 15.29.4] [APM2 15.29.5]
 */
#include "silicon_fixture.h"

static uint64_t v_tpr(struct sf *sf, uint32_t n)
{
    return sf->cpu[n].svm.int_ctl & VMCB_V_TPR;
}

/* ---- Evaluation and delivery [APM2 15.29.5] ---- */

static void vmrun_evaluates(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_bit(sf, 0, APIC_IRR, 0x31, true);
    sf_set_bit(sf, 0, APIC_IRR, 0xFE, true);
    sf_set_bit(sf, 0, APIC_IRR, 0x0F, true); /* illegal vectors are not looked at */
    sf_run(sf, 0);
    assert_true(vapic_sil_waiting(&sf->cpu[0]));
    assert_int_equal(sf_take(sf, 0), 0xFE);
    assert_false(sf_bit(sf, 0, APIC_IRR, 0xFE));
    assert_true(sf_bit(sf, 0, APIC_ISR, 0xFE));
    sf_equal(sf_reg(sf, 0, APIC_PPR), 0xF0, "PPR");
    assert_int_equal(sf_take(sf, 0), -1);
    assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_DONE);
    sf_equal(sf_reg(sf, 0, APIC_PPR), 0, "PPR");
    assert_int_equal(sf_take(sf, 0), 0x31);
    assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), -1);
    sf_free(sf);
}

/* Trap 17: a bit in IRR without a doorbell is not noticed. Trap 18: nor is it lost. */
static void trap_17_no_doorbell(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    assert_int_equal(sf_take(sf, 0), -1);
    sf->cpu[0].guest.interrupt_flag = false; /* nor does a window that opens help */
    assert_int_equal(sf_take(sf, 0), -1);
    sf->cpu[0].guest.interrupt_flag = true;
    assert_int_equal(sf_take(sf, 0), -1);
    assert_false(vapic_sil_waiting(&sf->cpu[0]));
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 0), VAPIC_SIL_DONE);
    assert_true(vapic_sil_waiting(&sf->cpu[0]));
    assert_int_equal(sf_take(sf, 0), 0x40);
    sf_free(sf);
}

static void trap_18_exit_before_the_doorbell(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 0), VAPIC_SIL_DONE);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x40);
    sf_free(sf);
}

/* Other evaluation points: TPR, CR8, EOI, SELF_IPI of another vector. */
static void other_evaluation_points(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct sf *sf = sf_new(NULL, false);

        sf_run(sf, 0);
        if (i == 2)
            sf_set_bit(sf, 0, APIC_ISR, 0x30, true); /* an EOI of nothing changes nothing */
        sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
        if (i == 0)
            sf_write(sf, 0, APIC_TPR, 0x10);
        else if (i == 1)
            vapic_sil_write_cr8(&sf->cpu[0], 1);
        else if (i == 2)
            sf_write(sf, 0, APIC_EOI, 0);
        else
            sf_write(sf, 0, APIC_ICR, APIC_ICR_SELF | 0x20);
        sf_equal(sf_take(sf, 0), 0x40, "point %d", i);
        sf_free(sf);
    }
}

/* Trap 14 */
static void trap_14_eoi_of_nothing(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_reg(sf, 0, APIC_TMR + 0x70, ~0u);
    sf_run(sf, 0);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), -1); /* no evaluation either */
    sf_free(sf);
}

/* Trap 15 */
static void trap_15_edge_above_level(void **state)
{
    (void)state;
    for (int x2 = 0; x2 < 2; x2++) {
        struct sf *sf = sf_new(NULL, x2);

        sf_set_bit(sf, 0, APIC_ISR, 0x80, true);
        sf_set_bit(sf, 0, APIC_ISR, 0x31, true);
        sf_set_bit(sf, 0, APIC_TMR, 0x31, true);
        sf_run(sf, 0);
        for (int n = 0; n < 2; n++) {
            enum vapic_sil_result result =
                x2 ? vapic_sil_wrmsr(&sf->cpu[0], 0x80B, 0) : sf_write(sf, 0, APIC_EOI, 0);

            assert_int_equal(result, n ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        }
        sf_exit(sf, 0, 0x402, 1ull << 32 | 0xB0, 0x31);
        sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + (x2 ? 4 : 6), "RIP: a trap");
        assert_false(sf_bit(sf, 0, APIC_ISR, 0x80));
        assert_true(sf_bit(sf, 0, APIC_ISR, 0x31));
        sf_equal(sf_reg(sf, 0, APIC_PPR), 0x30, "PPR");
        sf_free(sf);
    }
}

/* Knob level_eoi_clears_isr. */
static void level_eoi_that_clears(void **state)
{
    struct vapic_sil_config config = {.knobs.level_eoi_clears_isr = true};
    struct sf *sf = sf_new(&config, false);

    (void)state;
    sf_set_bit(sf, 0, APIC_ISR, 0x31, true);
    sf_set_bit(sf, 0, APIC_TMR, 0x31, true);
    sf_run(sf, 0);
    assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 1ull << 32 | 0xB0, 0x31);
    assert_false(sf_bit(sf, 0, APIC_ISR, 0x31));
    sf_equal(sf_reg(sf, 0, APIC_PPR), 0, "PPR");
    sf_free(sf);
}

/* The window: IF, interrupt shadow, GIF. Held back, remembered, delivered when it opens. */
static void held_back(void **state)
{
    (void)state;
    for (int why = 0; why < 3; why++) {
        struct sf *sf = sf_new(NULL, false);
        struct vapic_sil_guest *g = &sf->cpu[0].guest;

        sf_int_ctl(sf, 0, VMCB_V_GIF_ENABLE | VMCB_V_GIF, 0);
        sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
        sf_run(sf, 0);
        g->interrupt_flag = why != 0;
        g->shadow = why == 1;
        g->gif = why != 2;
        sf_equal(sf_take(sf, 0), -1, "held back by %d", why);
        assert_true(vapic_sil_waiting(&sf->cpu[0]));
        sf_set_bit(sf, 0, APIC_IRR, 0x50, true); /* a higher one, in time */
        if (why == 1) {
            struct vapic_sil_access nop = {
                .gpa = SF_RAM, .kind = VAPIC_SIL_READ, .size = 4, .length = 1};

            assert_int_equal(vapic_sil_access(&sf->cpu[0], &nop), VAPIC_SIL_DONE);
            assert_false(g->shadow); /* the next instruction ends it */
        }
        g->interrupt_flag = g->gif = true;
        sf_equal(sf_take(sf, 0), 0x50, "held back by %d", why);
        assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_DONE);
        assert_true(sf->cpu[0].remembered);
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        assert_false(sf->cpu[0].remembered); /* that is the guest's; its next VMRUN looks anew */
        sf_free(sf);
    }
}

/* Gone in the meantime: AVIC delivers nothing, and no spurious vector either. */
static void gone_in_the_meantime(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    sf_run(sf, 0);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, false);
    assert_int_equal(sf_take(sf, 0), -1);
    assert_false(vapic_sil_waiting(&sf->cpu[0]));
    sf_free(sf);
}

/* Every pair of classes: what ISR and V_TPR let through. */
static void priorities(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    for (uint32_t tpr = 0; tpr < 16; tpr++) {
        for (uint32_t isr = 0; isr < 16; isr++) {
            for (uint32_t irr = 1; irr < 16; irr++) {
                bool through = irr > tpr && irr > isr;

                sf_int_ctl(sf, 0, tpr, VMCB_V_TPR);
                if (isr)
                    sf_set_bit(sf, 0, APIC_ISR, (uint8_t)(isr << 4 | 5), true);
                sf_set_bit(sf, 0, APIC_IRR, (uint8_t)(irr << 4 | 9), true);
                sf_run(sf, 0);
                sf_equal(sf_take(sf, 0), through ? (int)(irr << 4 | 9) : -1, "TPR %x ISR %x IRR %x",
                         tpr, isr, irr);
                vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
                for (uint32_t offset = APIC_ISR; offset <= APIC_IRR + 0x70; offset += 16)
                    sf_set_reg(sf, 0, offset, 0);
            }
        }
    }
    sf_free(sf);
}

/* A doorbell meant for another vCPU, or with AVIC off, is harmless. */
static void stray_doorbells(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), -1);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), -1);
    sf_equal(sf->cpu[0].doorbell, 0, "answered");
    assert_true(sf_bit(sf, 0, APIC_IRR, 0x40));
    sf_free(sf);
}

/* ---- TPR, V_TPR, CR8 ---- */

/* Trap 12 */
static void trap_12_tpr_and_cr8(void **state)
{
    (void)state;
    for (int x2 = 0; x2 < 2; x2++) {
        struct sf *sf = sf_new(NULL, x2);
        uint64_t value = 0;

        sf_int_ctl(sf, 0, 0, VMCB_V_INTR_MASKING); /* it does not matter with AVIC */
        sf_run(sf, 0);
        if (x2)
            assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x808, 0x35), VAPIC_SIL_DONE);
        else
            assert_int_equal(sf_write(sf, 0, APIC_TPR, 0xFFFFFF35), VAPIC_SIL_DONE);
        assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_DONE);
        sf_equal(value, 3, "CR8");
        sf_equal(sf->cpu[0].guest.rip, SF_RIP + (x2 ? 2 : 3) + 4, "RIP");
        sf_equal(sf_reg(sf, 0, APIC_TPR), 0x35, "TPR");
        sf_equal(sf_reg(sf, 0, APIC_PPR), 0x35, "PPR");
        assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 5), VAPIC_SIL_DONE);
        sf_equal(sf_reg(sf, 0, APIC_TPR), 0x50, "TPR");
        sf_equal(sf_reg(sf, 0, APIC_PPR), 0x50, "PPR");
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_equal(sf_vmcb(sf, 0, VMCB_INT_CTL) & 0xFF, 5, "V_TPR");
        sf_free(sf);
    }
}

/* Trap 16: V_TPR gates (knob gate_on_tpr: the page's TPR does); VMRUN makes neither the other. */
static void trap_16_v_tpr_gates(void **state)
{
    (void)state;
    for (int knob = 0; knob < 2; knob++) {
        struct vapic_sil_config config = {.knobs.gate_on_tpr = knob};
        struct sf *sf = sf_new(&config, false);

        sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
        sf_set_reg(sf, 0, APIC_TPR, 0);
        sf_int_ctl(sf, 0, 0xF, 0);
        sf_run(sf, 0);
        sf_equal(sf_reg(sf, 0, APIC_TPR), 0, "TPR");
        sf_equal(v_tpr(sf, 0), 0xF, "V_TPR");
        sf_equal(sf_take(sf, 0), knob ? 0x40 : -1, "TPR 0, V_TPR 15");
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_set_bit(sf, 0, APIC_ISR, 0x40, false);
        sf_set_bit(sf, 0, APIC_IRR, 0x41, true);
        sf_set_reg(sf, 0, APIC_TPR, 0xF0);
        sf_int_ctl(sf, 0, 0, 0xF);
        sf_run(sf, 0);
        sf_equal(sf_take(sf, 0), knob ? -1 : 0x41, "TPR F0h, V_TPR 0");
        sf_free(sf);
    }
}

static void cr8_checks(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    uint64_t value = 0;

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 16), VAPIC_SIL_GP);
    sf_equal(v_tpr(sf, 0), 0, "V_TPR");
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT_CR, VMCB_CR8_WRITE);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x18, 0, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + 4, "RIP: not executed");
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT_CR, VMCB_CR8_READ);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 1), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x08, 0, 0);
    sf_free(sf);
}

/* Without AVIC: V_TPR with V_INTR_MASKING, else the host's own TPR. */
static void cr8_without_avic(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    uint64_t value = 0;

    (void)state;
    sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 7), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_DONE);
    sf_equal(value, 7, "CR8");
    sf_equal(sf->cpu[0].guest.rip, SF_RIP + 8, "RIP");
    sf_equal(sf_reg(sf, 0, APIC_TPR), 0, "the page");
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, 0, VMCB_V_INTR_MASKING);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 7), VAPIC_SIL_NATIVE);
    assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_NATIVE);
    sf_free(sf);
}

/* ---- More of the manual's traps ---- */

/* Trap 45: software disabling does not stop posting. */
static void trap_45_software_disabled(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_reg(sf, 1, APIC_SVR, 0xFF);
    sf_run(sf, 0);
    sf_run(sf, 1);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
    assert_true(sf_bit(sf, 1, APIC_IRR, 0x40));
    assert_int_equal(sf_write(sf, 1, APIC_SVR, 0xFF), VAPIC_SIL_EXIT);
    sf_exit(sf, 1, 0x402, 1ull << 32 | 0xF0, 0);
    sf_free(sf);
}

/* Trap 37: IsRunning while the target handles an exit in host mode: no exit for the sender, and
 * its next VMRUN finds the interrupt. Trap 38: a doorbell to where it ran before is harmless. */
static void trap_37_target_in_host_mode(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    sf_run(sf, 1);
    vapic_sil_leave(&sf->cpu[1], 0x72, 0, 0);
    assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[5], SF_VMCB + 0x1000), VAPIC_SIL_DONE); /* migrated */
    sf_run(sf, 2);
    assert_int_equal(vapic_sil_doorbell(&sf->machine, 2), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 2), -1);
    assert_int_equal(sf_take(sf, 5), 0x40);
    sf_free(sf);
}

/* Trap 43: AVIC goes off with ISR bits set: they stay, and software goes on with the same page. */
static void trap_43_off_with_isr_set(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x40);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
    sf_set_bit(sf, 0, APIC_IRR, 0x70, true);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), -1);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, VMCB_V_AVIC, 0);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x70);
    vapic_sil_flush(&sf->cpu[0], APIC_DEFAULT_BASE);
    assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_DONE);
    assert_true(sf_bit(sf, 0, APIC_ISR, 0x40));
    sf_equal(sf_reg(sf, 0, APIC_PPR), 0x40, "PPR");
    sf_free(sf);
}

/* Trap 25: a new DFR makes the logical table stale; IPIs in between find no entry. */
static void trap_25_ldr_then_dfr(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(sf_write(sf, 0, APIC_LDR, 1u << 24), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 1ull << 32 | 0xD0, 0);
    sf_equal(sf_reg(sf, 0, APIC_LDR), 1u << 24, "stored before the exit");
    sf_run(sf, 0);
    assert_int_equal(sf_write(sf, 0, APIC_DFR, APIC_DFR_CLUSTER), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 1ull << 32 | 0xE0, 0);
    *sf_logical(sf, 0) = 0; /* what the VMM does */
    sf_run(sf, 0);
    assert_int_equal(sf_icr(sf, 0, 0x840, 1), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x401, 1ull << 56 | 0x840, 2ull << 32);
    sf_free(sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vmrun_evaluates),
        cmocka_unit_test(trap_17_no_doorbell),
        cmocka_unit_test(trap_18_exit_before_the_doorbell),
        cmocka_unit_test(other_evaluation_points),
        cmocka_unit_test(trap_14_eoi_of_nothing),
        cmocka_unit_test(trap_15_edge_above_level),
        cmocka_unit_test(level_eoi_that_clears),
        cmocka_unit_test(held_back),
        cmocka_unit_test(gone_in_the_meantime),
        cmocka_unit_test(priorities),
        cmocka_unit_test(stray_doorbells),
        cmocka_unit_test(trap_12_tpr_and_cr8),
        cmocka_unit_test(trap_16_v_tpr_gates),
        cmocka_unit_test(cr8_checks),
        cmocka_unit_test(cr8_without_avic),
        cmocka_unit_test(trap_45_software_disabled),
        cmocka_unit_test(trap_37_target_in_host_mode),
        cmocka_unit_test(trap_43_off_with_isr_set),
        cmocka_unit_test(trap_25_ldr_then_dfr),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
