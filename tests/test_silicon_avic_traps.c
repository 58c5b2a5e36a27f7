/* SPDX-License-Identifier: MIT */
/*
 * What VMMs get wrong about AVIC, as the processor shows it: cells of the access table that have a
 * story, wrong and right reactions to exits, and a storm of mode changes with interrupts in flight.
 * The other traps are with their subjects.
 */
#include "silicon_fixture.h"

/* ---- Reactions to exits ---- */

/* Trap 4: a VMM that posts again for ID 1 duplicates an interrupt. */
static void trap_04_posting_again(void **state)
{
    (void)state;
    for (int again = 0; again < 2; again++) {
        struct sf *sf = sf_new(NULL, false);

        *sf_entry(sf, 1) &= ~AVIC_PHYSICAL_RUNNING;
        sf_run(sf, 0);
        assert_int_equal(sf_icr(sf, 0, 0x40, 1), VAPIC_SIL_EXIT);
        sf_run(sf, 1); /* the target is scheduled in before the VMM gets to it */
        assert_int_equal(sf_take(sf, 1), 0x40);
        assert_int_equal(sf_write(sf, 1, APIC_EOI, 0), VAPIC_SIL_DONE);
        if (again)
            sf_set_bit(sf, 1, APIC_IRR, 0x40, true);
        vapic_sil_doorbell(&sf->machine, 1);
        assert_int_equal(sf_take(sf, 1), again ? 0x40 : -1);
        sf_free(sf);
    }
}

/* Trap 46: the value of a trapped write is in the page; the register may be write-only. */
static void trap_46_eoi_trap_in_x2avic(void **state)
{
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 0;

    (void)state;
    sf_set_reg(sf, 0, APIC_EOI, 0x77);
    sf_set_bit(sf, 0, APIC_ISR, 0x31, true);
    sf_set_bit(sf, 0, APIC_TMR, 0x31, true);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x80B, &value), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x80B, 0), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 1ull << 32 | 0xB0, 0x31);
    sf_equal(sf_reg(sf, 0, APIC_EOI), 0, "the written value");
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + 2, "RIP");
    sf_free(sf);
}

/* ---- Cells with a story ---- */

/* Traps 30, 31, 32, 35: what the guest gets when the VMM leaves an MSR open that it should not. */
static void trap_30_31_32_35_open_msrs(void **state)
{
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 1;
    uint32_t word = 1;

    (void)state;
    sf_set_reg(sf, 0, APIC_TMCCT, 0x1234);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x832, 1u << 18 | 0x40), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x820, 0), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x839, &value), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 0x390, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP, "RIP: a fault");
    sf_equal(sf_vmcb(sf, 0, VMCB_NRIP), 0, "no next RIP: it must be decoded");
    sf_equal(value, 1, "nothing comes from the page");
    sf_int_ctl(sf, 0, 0, VMCB_V_X2AVIC);
    sf_run(sf, 0);
    assert_int_equal(sf_read(sf, 0, APIC_APR, &word), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 0x90, 0);
    sf_free(sf);
}

/* Trap 23: AVIC without x2AVIC under a guest in x2APIC mode. The processor does not know about the
 * guest's mode: only a page that is not mapped keeps its MMIO away from the vAPIC page. */
static void trap_23_hybrid_mode(void **state)
{
    (void)state;
    for (int mapped = 0; mapped < 2; mapped++) {
        struct sf *sf = sf_new(NULL, false);
        uint32_t value = 0;

        sf->apic_page.present = mapped;
        sf_set_reg(sf, 0, APIC_LDR, 0x00010002);
        sf_run(sf, 0);
        assert_int_equal(sf_read(sf, 0, APIC_LDR, &value),
                         mapped ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        sf_equal(value, mapped ? 0x00010002 : 0, "LDR");
        if (!mapped)
            sf_exit(sf, 0, 0x400, SVM_NPF_FINAL | SVM_NPF_USER, APIC_DEFAULT_BASE + APIC_LDR);
        sf_free(sf);
    }
}

/* And what hybrid mode is for: posting and doorbells go on as ever. */
static void hybrid_mode_delivers(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf->apic_page.present = false;
    sf_run(sf, 0);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    vapic_sil_doorbell(&sf->machine, 0);
    assert_int_equal(sf_take(sf, 0), 0x40);
    sf_free(sf);
}

/* xAVIC and x2AVIC vCPUs of one VM, with one physical table. */
static void mixed_modes(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_int_ctl(sf, 3, VMCB_V_X2AVIC, 0);
    sf_set_reg(sf, 3, APIC_ID, 3);
    sf_run(sf, 0);
    sf_run(sf, 3);
    assert_int_equal(sf_icr(sf, 0, 0x40, 3), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 3), 0x40);
    assert_int_equal(sf_icr(sf, 3, 0x41, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), 0x41);
    assert_int_equal(sf_icr(sf, 3, 0xC0042, 0), VAPIC_SIL_DONE); /* itself left out by 32-bit ID */
    assert_false(sf_bit(sf, 3, APIC_IRR, 0x42));
    assert_true(sf_bit(sf, 0, APIC_IRR, 0x42));
    sf_free(sf);
}

/* ---- A storm of toggles ---- */

enum mode { OFF, XAVIC, X2AVIC, MODES };

/* What must be: a set of requested and of served vectors, and a threshold. */
struct storm {
    struct sf *sf;
    uint64_t seed;
    enum mode mode;
    bool irr[256], isr[256];
    uint32_t tpr;
    uint32_t toggles, taken, refused;
    struct vapic_sil_amd_iommu iommu;
    uint64_t irte[2];
};

static uint32_t draw(struct storm *s, uint32_t below)
{
    s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->seed >> 33) % below;
}

static int highest(const bool *set)
{
    for (int v = 255; v >= 16; v--) {
        if (set[v])
            return v;
    }
    return -1;
}

static void storm_post(struct storm *s)
{
    uint32_t vector = 16 + draw(s, 240);

    s->irte[1] = vector | SF_BACKING;
    assert_int_equal(vapic_sil_amd_msi(&s->iommu, s->irte, 0), VAPIC_SIL_MSI_POSTED);
    s->irr[vector] = true;
}

static void storm_toggle(struct storm *s)
{
    static const uint64_t bits[MODES] = {0, VMCB_V_AVIC, VMCB_V_AVIC | VMCB_V_X2AVIC};

    vapic_sil_leave(&s->sf->cpu[0], 0x72, 0, 0);
    s->mode = draw(s, MODES);
    sf_int_ctl(s->sf, 0, bits[s->mode], VMCB_V_AVIC | VMCB_V_X2AVIC);
    sf_set_vmcb(s->sf, 0, VMCB_ASID, 3ull << 32 | 1);
    sf_run(s->sf, 0);
    s->toggles++;
}

static void storm_tpr(struct storm *s)
{
    uint32_t tpr = draw(s, 256);
    enum vapic_sil_result result;

    if (s->mode == OFF)
        return;
    s->tpr = tpr;
    if (s->mode == X2AVIC)
        result = vapic_sil_wrmsr(&s->sf->cpu[0], 0x808, tpr);
    else
        result = sf_write(s->sf, 0, APIC_TPR, tpr);
    assert_int_equal(result, VAPIC_SIL_DONE);
}

static void storm_take(struct storm *s)
{
    int due = highest(s->irr), top = highest(s->isr);
    int got = sf_take(s->sf, 0);

    if (s->mode == OFF || due < 0 || due >> 4 <= (int)(s->tpr >> 4) || due >> 4 <= top >> 4) {
        assert_int_equal(got, -1);
        s->refused++;
        return;
    }
    assert_int_equal(got, due);
    s->irr[due] = false;
    s->isr[due] = true;
    s->taken++;
}

static void storm_eoi(struct storm *s)
{
    int top = highest(s->isr);
    enum vapic_sil_result result;

    if (s->mode == OFF)
        return;
    if (s->mode == X2AVIC)
        result = vapic_sil_wrmsr(&s->sf->cpu[0], 0x80B, 0);
    else
        result = sf_write(s->sf, 0, APIC_EOI, 0);
    assert_int_equal(result, VAPIC_SIL_DONE);
    if (top >= 0)
        s->isr[top] = false;
}

static void storm_compare(const struct storm *s)
{
    int top = highest(s->isr);
    uint32_t isr = top < 0 ? 0 : (uint32_t)top & 0xF0, tpr = s->tpr;

    for (uint32_t v = 16; v < 256; v++) {
        sf_equal(sf_bit(s->sf, 0, APIC_IRR, (uint8_t)v), s->irr[v], "IRR %02x", v);
        sf_equal(sf_bit(s->sf, 0, APIC_ISR, (uint8_t)v), s->isr[v], "ISR %02x", v);
    }
    sf_equal(sf_reg(s->sf, 0, APIC_TPR), tpr, "TPR");
    sf_equal(sf_reg(s->sf, 0, APIC_PPR), (tpr & 0xF0) >= isr ? tpr : isr, "PPR");
}

/* AVIC off and on, xAVIC and x2AVIC, with interrupts pending and in service, and a device that goes
 * on posting: nothing is lost, doubled, or out of order. */
static void toggle_storm(void **state)
{
    static void (*const operations[])(struct storm * s) = {storm_post, storm_post,  storm_take,
                                                           storm_take, storm_eoi,   storm_eoi,
                                                           storm_tpr,  storm_toggle};
    struct storm s = {.sf = sf_new(NULL, false), .seed = 20261120, .mode = XAVIC};

    (void)state;
    s.iommu.machine = &s.sf->machine;
    s.irte[0] = AMD_IRTE_VALID | AMD_IRTE_GUEST_MODE | AMD_IRTE_IS_RUN;
    sf_run(s.sf, 0);
    for (uint32_t i = 0; i < 40000; i++) {
        operations[draw(&s, sizeof(operations) / sizeof(operations[0]))](&s);
        storm_compare(&s);
    }
    print_message("# %u toggles, %u taken, %u refused\n", s.toggles, s.taken, s.refused);
    assert_true(s.toggles > 1000 && s.taken > 1000 && s.refused > 1000);
    sf_free(s.sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trap_04_posting_again),
        cmocka_unit_test(trap_46_eoi_trap_in_x2avic),
        cmocka_unit_test(trap_30_31_32_35_open_msrs),
        cmocka_unit_test(trap_23_hybrid_mode),
        cmocka_unit_test(hybrid_mode_delivers),
        cmocka_unit_test(mixed_modes),
        cmocka_unit_test(toggle_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
