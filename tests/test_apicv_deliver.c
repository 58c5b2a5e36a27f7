/* SPDX-License-Identifier: MIT */
/*
 * APICv and the interrupts themselves: RVI, SVI and the TPR threshold, switching acceleration while
 * something is pending or in service, IPI virtualization, and nested guests. [SDM3 31]
 */
#include "apicv_bench.h"
#include "vapic/nested.h"

static void cr8(struct ax *ax, uint32_t n, uint8_t value)
{
    ax_write_cr8(ax, n, value);
}

/* ---- RVI and SVI ---- */

static void the_hardware_keeps_rvi_and_svi(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    ax_post(ax, 0, 0x91, false);
    ax_run(ax, 0);
    ax_post(ax, 0, 0x41, false);
    ax_run(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), VMX_STATUS_MAKE(0x41, 0x91));
    assert_true(ax_enter(ax, 0));
    assert_int_equal(told(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), 0);
    ax_eoi(ax, 0);
    ax_eoi(ax, 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    ax_eoi(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), 0);
    ax_free(ax);
}

static void rvi_is_the_highest_of_what_was_harvested(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_if(ax, 0, false);
    assert_true(ax_enter(ax, 0));
    ax_leave(ax, 0);
    ax_post(ax, 0, 0x35, false);
    ax_post(ax, 0, 0xE1, false);
    ax_post(ax, 0, 0x71, true);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(rvi(ax, 0), 0xE1);
    assert_int_equal(svi(ax, 0), 0);
    ax_free(ax);
}

/* An APIC that is software disabled holds IRR back [SDM3 12.4.7.2]; KVM's does not. */
static void a_soft_disabled_apic_requests_nothing(void **state)
{
    static const struct {
        uint32_t knobs;
        uint8_t rvi;
    } rows[] = {{VAPIC_PROFILE_MANUAL, 0}, {VAPIC_PROFILE_KVM, 0x51}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_APICV},
                               .config = {.knobs = rows[i].knobs, .knobs_set = true}};
        struct ax *ax = ax_new(&o);

        ax_if(ax, 0, false);
        ax_post(ax, 0, 0x51, false);
        ax_run(ax, 0);
        ax_write(ax, 0, APIC_SVR, 0xFF);
        assert_true(ax_enter(ax, 0));
        assert_true(vapic_active(&ax->v[0]->apic));
        assert_int_equal(rvi(ax, 0), rows[i].rvi);
        ax_if(ax, 0, true);
        ax_run(ax, 0);
        assert_int_equal(ax_delivered(ax, 0, 0x51), rows[i].rvi != 0);
        ax_write(ax, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
        ax_run(ax, 0);
        assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
        ax_free(ax);
    }
}

/* An EOI by other means than the register. */
static void svi_follows_an_eoi_of_software(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    ax_post(ax, 0, 0x91, false);
    ax_run(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(svi(ax, 0), 0x91);
    vapic_eoi(&ax->v[0]->apic);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(svi(ax, 0), 0x51);
    ax_leave(ax, 0);
    vapic_eoi(&ax->v[0]->apic);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(svi(ax, 0), 0);
    ax_free(ax);
}

static void svi_and_rvi_follow_a_loaded_state(void **state)
{
    uint8_t image[VAPIC_IMAGE_SIZE];
    struct ax *ax = machine(0, 1);
    struct vapic *v = &ax->v[0]->apic;

    (void)state;
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    ax_post(ax, 0, 0x41, false);
    ax_leave(ax, 0);
    assert_int_equal(vapic_save_image(v, VAPIC_IMAGE_ID8, image, sizeof(image), ax->now), VAPIC_OK);
    assert_true(ax_enter(ax, 0));
    ax_eoi(ax, 0);
    ax_run(ax, 0);
    ax_eoi(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), 0);
    assert_int_equal(vapic_load_image(v, VAPIC_IMAGE_ID8, image, sizeof(image), ax->now), VAPIC_OK);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), VMX_STATUS_MAKE(0x41, 0x51));
    ax_eoi(ax, 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 2);
    ax_free(ax);
}

/* ---- Switching ---- */

/* With SVI left alone the first EOI would end vector 0, and 41h would wait for ever. */
static void activation_with_a_vector_in_service(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    inhibit(ax, true);
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    ax_post(ax, 0, 0x41, false);
    ax_run(ax, 0);
    inhibit(ax, false);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), VMX_STATUS_MAKE(0x41, 0x51));
    ax_forget(ax);
    ax_eoi(ax, 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_eoi(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), 0);
    ax_free(ax);
}

/* Nothing else would ever trigger the injection. */
static void deactivation_with_a_vector_pending(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    cr8(ax, 0, 6);
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    cr8(ax, 0, 0);
    ax_if(ax, 0, false); /* it is recognized now, and not yet taken */
    inhibit(ax, true);
    ax_if(ax, 0, true);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    ax_eoi(ax, 0);
    assert_int_equal(
        ax_exits(ax, 0, VMX_EXIT_APIC_ACCESS) + ax_exits(ax, 0, VMX_EXIT_EPT_VIOLATION), 1);
    ax_free(ax);
}

static uint32_t toggle_seed = 1;

static uint32_t next_random(uint32_t below)
{
    toggle_seed = toggle_seed * 1664525u + 1013904223u;
    return (toggle_seed >> 8) % below;
}

/* Whatever the state when acceleration goes on and off: each vector comes once for each post that
 * did not coalesce, and every one in service is ended by exactly one EOI. */
static void toggles_lose_and_double_nothing(void **state)
{
    struct ax *ax = machine(0, 1);
    uint32_t posted[256] = {0}, taken[256] = {0}, in_service = 0, toggles = 0;
    bool inhibited = false;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint8_t vector = (uint8_t)(0x30 + next_random(0xC0));

        switch (next_random(5)) {
        case 0:
        case 1:
            if (!ax_page_bit(ax, 0, APIC_IRR, vector) &&
                !(ax->v[0]->apic.pid.pir[vector >> 6] >> (vector & 63) & 1) &&
                !(ax->v[0]->apic.level[vector >> 6] >> (vector & 63) & 1))
                posted[vector]++;
            ax_post(ax, 0, vector, next_random(2));
            break;
        case 2:
            inhibited = !inhibited;
            inhibit(ax, inhibited);
            toggles++;
            break;
        case 3:
            ax_if(ax, 0, next_random(2));
            break;
        default:
            if (in_service > 0) {
                ax_eoi(ax, 0);
                in_service--;
            }
        }
        ax_run(ax, 0);
        in_service += ax_count(ax, AX_DELIVERED);
        for (uint32_t n = 0; n < ax_count(ax, AX_DELIVERED); n++)
            taken[ax_nth(ax, AX_DELIVERED, n)->a]++;
        ax_forget(ax);
    }
    ax_if(ax, 0, true);
    for (int i = 0; i < 1000; i++) {
        ax_run(ax, 0);
        for (uint32_t n = 0; n < ax_count(ax, AX_DELIVERED); n++)
            taken[ax_nth(ax, AX_DELIVERED, n)->a]++;
        ax_forget(ax);
        ax_eoi(ax, 0);
    }
    for (uint32_t vector = 0x30; vector < 0xF0; vector++)
        assert_int_equal(taken[vector], posted[vector]);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(ax_page(ax, 0, APIC_ISR + 16 * i), 0);
    assert_true(toggles > 3000);
    ax_free(ax);
}

static void a_disabled_apic_is_not_accelerated_and_others_are(void **state)
{
    struct ax *ax = machine(0, 2);

    (void)state;
    ax_leave(ax, 0);
    assert_int_equal(vapic_load_base(&ax->v[0]->apic, APIC_DEFAULT_BASE | APIC_BASE_BSP), VAPIC_OK);
    assert_true(ax_enter(ax, 0));
    assert_true(ax_enter(ax, 1));
    assert_false(vapic_active(&ax->v[0]->apic));
    assert_true(vapic_active(&ax->v[1]->apic));
    ax_forget(ax);
    assert_false(ax_post(ax, 0, 0x51, false));
    assert_true(ax_post(ax, 1, 0x51, false));
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    assert_int_equal(ax_delivered(ax, 1, 0x51), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* What is pending and in service stays so when the guest goes from xAPIC to x2APIC mode. */
static void vectors_across_a_change_of_mode(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    uint64_t base = 0;

    (void)state;
    ax_post(ax, 0, 0x91, false);
    ax_run(ax, 0);
    ax_post(ax, 0, 0x51, false);
    ax_post(ax, 0, 0x61, true);
    assert_int_equal(ax_rdmsr(ax, 0, MSR_APIC_BASE, &base), AX_DONE);
    assert_int_equal(ax_wrmsr(ax, 0, MSR_APIC_BASE, base | APIC_BASE_EXTD), AX_DONE);
    ax_run(ax, 0);
    assert_int_equal(ax_count(ax, AX_DELIVERED), 1);
    ax_forget(ax);
    ax_eoi(ax, 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x61), 1);
    ax_eoi(ax, 0);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_VIRTUALIZED_EOI), 1);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    ax_eoi(ax, 0);
    assert_int_equal(ax_count(ax, AX_EXIT), 1);
    assert_int_equal(ax_count(ax, AX_EOI), 1);
    ax_free(ax);
}

/* ---- Without virtual-interrupt delivery: the threshold ---- */

static void check_threshold(unsigned with)
{
    struct ax *ax = machine(with, 1);

    inhibit(ax, true);
    cr8(ax, 0, 5);
    ax_post(ax, 0, 0x41, false);
    ax_run(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_TPR_THRESHOLD), 4);
    ax_forget(ax);
    cr8(ax, 0, 6);
    cr8(ax, 0, 4);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    cr8(ax, 0, 3);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_TPR_THRESHOLD), 1);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    assert_int_equal(field(ax, 0, VMCS_TPR_THRESHOLD), 0);
    ax_free(ax);
}

/* In x2APIC mode a threshold above TPR's class would make the entry fail. */
static void exit_43_lets_the_vector_pass(void **state)
{
    (void)state;
    check_threshold(0);
    check_threshold(WITH_X2APIC);
}

static void the_threshold_is_zero_when_active(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    inhibit(ax, true);
    cr8(ax, 0, 5);
    ax_post(ax, 0, 0x41, false);
    ax_run(ax, 0);
    inhibit(ax, false);
    ax_run(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_TPR_THRESHOLD), 0);
    ax_forget(ax);
    cr8(ax, 0, 3);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* The shadow takes MOV CR8 without an exit; the priority that software computes must follow. */
static void a_tpr_raised_without_exit_holds_vectors_back(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    inhibit(ax, true);
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    cr8(ax, 0, 6);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    cr8(ax, 0, 4);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    ax_free(ax);
}

/* ---- With what the hardware cannot deliver ---- */

static void extint_and_nmi_while_active(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_write(ax, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    ax_if(ax, 0, false);
    assert_true(ax_enter(ax, 0));
    ax_act(ax, 0, vapic_set_lint(&ax->v[0]->apic, 0, true));
    ax_act(ax, 0, vapic_nmi(&ax->v[0]->apic));
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    assert_int_equal(ax_count(ax, AX_NMI), 1);
    assert_int_equal(ax_count(ax, AX_EXTINT), 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    ax_if(ax, 0, true);
    ax_run(ax, 0);
    assert_true(ax_exits(ax, 0, VMX_EXIT_INTERRUPT_WINDOW) > 0);
    assert_int_equal(ax_count(ax, AX_EXTINT), 1);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_true(vapic_active(&ax->v[0]->apic));
    ax_free(ax);
}

/* The exit comes while the processor delivers a vector, for instance because the guest's stack is
 * not mapped: ISR and SVI have it already. The host injects it again and tells nobody. */
static void an_exit_during_delivery(void **state)
{
    struct ax *ax = machine(0, 1);
    struct ax_vcpu *c = ax->v[0];
    struct vapic_entry entry;
    uint8_t vector = 0;

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_post(ax, 0, 0x51, false);
    assert_int_equal(vapic_sil_boundary(c->cpu, &vector), VAPIC_SIL_DELIVER);
    assert_int_equal(vector, 0x51);
    vapic_sil_leave(c->cpu, VMX_EXIT_EPT_VIOLATION, VMX_EPT_QUAL_WRITE, 0x5000);
    assert_int_equal(field(ax, 0, VMCS_IDT_VECTORING),
                     VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | 0x51);
    vapic_exit(&c->apic, (uint8_t)vapic_read_cr8(&c->apic), false);
    assert_false(vapic_not_delivered(&c->apic));
    vapic_enter(&c->apic, VAPIC_IF, ax->now, &entry);
    assert_int_equal(entry.inject, VAPIC_INJECT_NONE);
    assert_false(entry.irq_window);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), VMX_STATUS_MAKE(0, 0x51));
    assert_true(
        vapic_sil_vmwrite(&c->vmcs, VMCS_ENTRY_INTR_INFO, field(ax, 0, VMCS_IDT_VECTORING)));
    assert_int_equal(vapic_sil_vmentry(c->cpu, &c->vmcs), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_boundary(c->cpu, &vector), VAPIC_SIL_DELIVER);
    assert_int_equal(vector, 0x51);
    assert_int_equal(vapic_sil_boundary(c->cpu, &vector), VAPIC_SIL_NOTHING);
    ax_eoi(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), 0);
    ax_free(ax);
}

/* HLT with a vector that only the closed window keeps back: the vCPU does not sleep. */
static void halted_with_a_vector_pending(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_if(ax, 0, false);
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    ax_if(ax, 0, true); /* STI; HLT: the shadow covers HLT */
    ax->v[0]->cpu->guest.shadow = true;
    ax_hlt(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_false(ax->v[0]->blocked);
    ax_free(ax);
}

/* ---- IPI virtualization: which ICR writes exit ---- */

enum { HW = 0, EXIT = 1, GP = 2 };

static const struct {
    const char *what;
    bool x2apic;
    uint32_t icr, dest;
    int with, without; /* IPI virtualization */
    uint8_t vector;    /* that vCPU 1 gets; 0: none */
} ipi_rows[] = {
    {"fixed", false, 0x61, 1, HW, EXIT, 0x61},
    {"fixed, level bit", false, APIC_ICR_ASSERT | 0x61, 1, HW, EXIT, 0x61},
    {"fixed", true, 0x61, 1, HW, EXIT, 0x61},
    {"bit 12", true, APIC_ICR_BUSY | 0x61, 1, EXIT, EXIT, 0x61},
    {"bit 12", false, APIC_ICR_BUSY | 0x61, 1, EXIT, EXIT, 0x61},
    {"bit 13", true, 1u << 13 | 0x61, 1, GP, GP, 0},
    {"bit 16", true, 1u << 16 | 0x61, 1, GP, GP, 0},
    {"bit 20", true, 1u << 20 | 0x61, 1, GP, GP, 0},
    {"logical", false, APIC_ICR_LOGICAL | 0x61, 2, EXIT, EXIT, 0x61},
    {"logical", true, APIC_ICR_LOGICAL | 0x61, 2, EXIT, EXIT, 0x61},
    {"lowest priority", false, APIC_DM_LOWEST | 0x61, 1, EXIT, EXIT, 0x61},
    {"level-triggered", false, APIC_ICR_LEVEL | APIC_ICR_ASSERT | 0x61, 1, EXIT, EXIT, 0x61},
    {"all", false, APIC_ICR_ALL_EXCL | 0x61, 0, EXIT, EXIT, 0x61},
    {"all and self", true, APIC_ICR_ALL_INCL | 0x61, 0, EXIT, EXIT, 0x61},
    {"broadcast FFh", false, 0x61, 0xFF, EXIT, EXIT, 0x61},
    {"broadcast FFFFFFFFh", true, 0x61, 0xFFFFFFFF, EXIT, EXIT, 0x61},
    {"nobody there", true, 0x61, 7, EXIT, EXIT, 0},
    {"beyond the table", true, 0x61, 70000, EXIT, EXIT, 0},
    {"vector 15", true, 15, 1, EXIT, EXIT, 0},
    {"vector 15", false, 15, 1, EXIT, EXIT, 0},
};

/* Names the row in what fails. */
static void expect(size_t i, unsigned with, const char *what, uint64_t actual, uint64_t expected)
{
    if (actual != expected)
        fail_msg("%s, %s, %s IPI virtualization: %s is %#llx, not %#llx", ipi_rows[i].what,
                 ipi_rows[i].x2apic ? "x2APIC" : "xAPIC", with & WITH_IPIV ? "with" : "without",
                 what, (unsigned long long)actual, (unsigned long long)expected);
}

static struct ax *ipi_machine(size_t i, unsigned with)
{
    static const uint32_t ids[] = {0, 1, 300};
    struct ax *ax = machine_with_ids(with | (ipi_rows[i].x2apic ? WITH_X2APIC : 0), 3, ids);

    if (!ipi_rows[i].x2apic) {
        ax_write(ax, 1, APIC_LDR, 2u << 24);
        ax_write(ax, 0, APIC_ICR2, (uint64_t)ipi_rows[i].dest << 24);
    }
    ax_settle(ax);
    ax_forget(ax);
    return ax;
}

/* What the guest reads afterwards. */
static void check_icr(struct ax *ax, size_t i, unsigned with, uint64_t icr)
{
    uint64_t value = 0;

    if ((ipi_rows[i].icr & 0xFF) == 15) {
        ax_write(ax, 0, APIC_ESR, 0);
        expect(i, with, "ESR", ax_read(ax, 0, APIC_ESR), APIC_ESR_SEND_ILLEGAL);
    }
    if (!ipi_rows[i].x2apic || ipi_rows[i].with == GP)
        return;
    assert_int_equal(ax_rdmsr(ax, 0, 0x830, &value), AX_DONE);
    expect(i, with, "ICR", value, icr & ~(uint64_t)APIC_ICR_BUSY);
}

static void check_ipi(size_t i, unsigned with, int expected)
{
    struct ax *ax = ipi_machine(i, with);
    bool x2 = ipi_rows[i].x2apic, exits = expected == EXIT || (expected == GP && with == 0);
    uint64_t icr = (uint64_t)(x2 ? ipi_rows[i].dest : 0) << 32 | ipi_rows[i].icr;
    uint32_t reason = x2 && !(with & WITH_IPIV) ? VMX_EXIT_WRMSR : VMX_EXIT_APIC_WRITE;

    expect(i, with, "result", ax_try_write(ax, 0, APIC_ICR, icr), expected == GP ? AX_GP : AX_DONE);
    expect(i, with, "exits", ax_count(ax, AX_EXIT), exits);
    expect(i, with, "exits for this", ax_exits(ax, 0, reason), exits);
    ax_settle(ax);
    expect(i, with, "delivered", ax_delivered(ax, 1, 0x61), ipi_rows[i].vector == 0x61);
    check_icr(ax, i, with, icr);
    ax_free(ax);
}

static void icr_writes_that_exit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ipi_rows) / sizeof(ipi_rows[0]); i++) {
        check_ipi(i, WITH_IPIV, ipi_rows[i].with);
        check_ipi(i, 0, ipi_rows[i].without);
    }
}

static void self_ipis(void **state)
{
    static const struct {
        bool x2apic;
        uint32_t offset, value;
        unsigned with, exits;
    } rows[] = {
        {false, APIC_ICR, APIC_ICR_SELF | 0x61, 0, 0},
        {false, APIC_ICR, APIC_ICR_SELF | 0x61, WITH_IPIV, 0},
        {true, APIC_ICR, APIC_ICR_SELF | 0x61, 0, 1},
        {true, APIC_ICR, APIC_ICR_SELF | 0x61, WITH_IPIV, 1},
        {true, APIC_SELF_IPI, 0x61, 0, 0},
        {true, APIC_SELF_IPI, 0x61, WITH_IPIV, 0},
        {true, APIC_ICR, 0x61, WITH_IPIV, 0}, /* by its ID 0: posted to itself */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = machine(rows[i].with | (rows[i].x2apic ? WITH_X2APIC : 0), 1);

        assert_true(ax_enter(ax, 0));
        ax_forget(ax);
        ax_write(ax, 0, rows[i].offset, rows[i].value);
        ax_run(ax, 0);
        assert_int_equal(ax_delivered(ax, 0, 0x61), 1);
        assert_int_equal(ax_count(ax, AX_EXIT), rows[i].exits);
        ax_free(ax);
    }
}

/* Who takes no interrupts gets none by hardware either. */
static void ipis_to_who_is_disabled(void **state)
{
    struct ax *ax = machine(WITH_IPIV | WITH_X2APIC, 3);

    (void)state;
    ax_write(ax, 1, APIC_SVR, 0xFF);
    ax_leave(ax, 2);
    assert_int_equal(vapic_load_base(&ax->v[2]->apic, APIC_DEFAULT_BASE), VAPIC_OK);
    ax_settle(ax);
    ax_forget(ax);
    ax_ipi(ax, 0, 0x61, 1);
    ax_ipi(ax, 0, 0x61, 2);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_APIC_WRITE), 2);
    ax_write(ax, 1, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 0);
    ax_free(ax);
}

static void ipis_to_who_does_not_run(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 3);

    (void)state;
    assert_true(ax_enter(ax, 1));
    ax_put(ax, 1); /* preempted */
    ax_hlt(ax, 2);
    ax_run(ax, 2); /* asleep */
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    ax_ipi(ax, 0, 0x61, 1);
    ax_ipi(ax, 0, 0x61, 2);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_load(ax, 1, 4);
    assert_int_equal(vapic_sil_take_interrupt(&ax->cpus[2]), AX_WAKEUP_VECTOR);
    vapic_wakeup(&ax->vm, &ax->pcpus[2]);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    assert_int_equal(ax_delivered(ax, 2, 0x61), 1);
    ax_free(ax);
}

/* Inhibited, a WRMSR of 830h must not reach the host's own APIC. */
static void no_ipi_by_hardware_while_inhibited(void **state)
{
    struct ax *ax = machine(WITH_IPIV | WITH_X2APIC, 2);

    (void)state;
    inhibit(ax, true);
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    ax_ipi(ax, 0, 0x61, 1);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_WRMSR), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, 0x61), 1);
    ax_free(ax);
}

/* ---- Nested guests ---- */

static void make_vmcs02(struct ax_vcpu *c)
{
    vapic_sil_vmcs_init(&c->vmcs02);
    assert_true(
        vapic_sil_vmwrite(&c->vmcs02, VMCS_PIN_CONTROLS, VMX_PIN_MUST | VMX_PIN_EXTINT_EXITING));
    assert_true(
        vapic_sil_vmwrite(&c->vmcs02, VMCS_EXIT_CONTROLS, VMX_EXC_MUST | VMX_EXC_ACK_INTERRUPT));
    assert_true(
        vapic_sil_vmwrite(&c->vmcs02, VMCS_PRIMARY_CONTROLS, VMX_PRI_MUST | VMX_PRI_SECONDARY));
}

static void to_l2(struct ax *ax, uint32_t n)
{
    ax_leave(ax, n);
    make_vmcs02(ax->v[n]);
    ax->v[n]->l2 = true;
    vapic_nested_enter(&ax->v[n]->apic, NULL);
}

static void to_l1(struct ax *ax, uint32_t n)
{
    ax_leave(ax, n);
    ax->v[n]->l2 = false;
    vapic_nested_exit(&ax->v[n]->apic);
}

static uint32_t writes(const struct ax *ax)
{
    return ax_count(ax, AX_CONTROL) + ax_count(ax, AX_INTERCEPT) + ax_count(ax, AX_FLUSH);
}

/* Every cause of a change of vmcs01, while vmcs02 is current: nothing is written, L2's entry
 * succeeds, and at the nested exit vmcs01 has it all at once, before L1's next entry. */
static void changes_wait_for_the_nested_exit(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    struct vapic *v = &ax->v[0]->apic;

    (void)state;
    ax_ioapic(ax);
    inhibit(ax, true);
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    ax_post(ax, 0, 0x91, false);
    ax_run(ax, 0);
    to_l2(ax, 0);
    ax_forget(ax);
    inhibit(ax, false); /* controls */
    assert_true(ax_enter(ax, 0));
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | 0x71 | RTE_TO(0)); /* EOI exits */
    reenter(ax, 0);
    ax_leave(ax, 0);
    vapic_eoi(v);                                                                   /* SVI */
    assert_int_equal(vapic_load_base(v, vapic_base(v) | APIC_BASE_EXTD), VAPIC_OK); /* mode */
    assert_true(ax_enter(ax, 0));
    assert_int_equal(writes(ax), 0);
    assert_int_equal(ax_count(ax, AX_FAILED), 0);
    to_l1(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_SECONDARY_CONTROLS) &
                         ~(uint64_t)(VMX_SEC_EPT | VMX_SEC_VPID),
                     VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY);
    assert_int_equal(field(ax, 0, VMCS_TERTIARY_CONTROLS), VMX_TER_IPI_VIRTUALIZATION);
    assert_int_equal(svi(ax, 0), 0x51);
    assert_true(eoi_exits(ax, 0, 0x71));
    assert_int_equal(ax_count(ax, AX_INTERCEPT), 1);
    assert_true(ax_enter(ax, 0));
    ax_free(ax);
}

static void deactivation_under_l2(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    to_l2(ax, 0);
    ax_forget(ax);
    inhibit(ax, true);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(writes(ax), 0);
    to_l1(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS, 0);
    ax_forget(ax);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(writes(ax), 0); /* nothing was left for the entry */
    ax_free(ax);
}

/* On and off again: nothing has changed, so nothing is written. */
static void what_comes_and_goes_under_l2_is_not_written(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    to_l2(ax, 0);
    ax_forget(ax);
    for (int i = 0; i < 4; i++) {
        inhibit(ax, i % 2 == 0);
        assert_true(ax_enter(ax, 0));
    }
    to_l1(ax, 0);
    assert_int_equal(writes(ax), 0);
    ax_free(ax);
}

/* L2 is restored before the vCPU has ever run: even the constant fields have to wait. */
static void l2_before_the_first_entry(void **state)
{
    struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_APICV}, .parked = true};
    struct ax *ax = ax_new(&o);

    (void)state;
    to_l2(ax, 0);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(writes(ax), 0);
    to_l1(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_VIRTUAL_APIC), ax_hpa(ax, ax->v[0]->page));
    assert_true(ax_enter(ax, 0));
    assert_true(vapic_active(&ax->v[0]->apic));
    ax_free(ax);
}

/* L1's vector under L2: by software, and what software acknowledged is in SVI afterwards. */
static void l1s_vectors_under_l2(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    to_l2(ax, 0);
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    ax_act(ax, 0, vapic_post(&ax->v[0]->apic, 0x51, false, NULL));
    assert_int_equal(ax_nth(ax, AX_NOTIFY, 0)->a, VAPIC_ACTION_KICK);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_int_equal(writes(ax), 0);
    to_l1(ax, 0);
    assert_int_equal(svi(ax, 0), 0x51);
    ax_eoi(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(field(ax, 0, VMCS_GUEST_INTERRUPT_STATUS), 0);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hardware_keeps_rvi_and_svi),
        cmocka_unit_test(rvi_is_the_highest_of_what_was_harvested),
        cmocka_unit_test(a_soft_disabled_apic_requests_nothing),
        cmocka_unit_test(svi_follows_an_eoi_of_software),
        cmocka_unit_test(svi_and_rvi_follow_a_loaded_state),
        cmocka_unit_test(activation_with_a_vector_in_service),
        cmocka_unit_test(deactivation_with_a_vector_pending),
        cmocka_unit_test(toggles_lose_and_double_nothing),
        cmocka_unit_test(a_disabled_apic_is_not_accelerated_and_others_are),
        cmocka_unit_test(vectors_across_a_change_of_mode),
        cmocka_unit_test(exit_43_lets_the_vector_pass),
        cmocka_unit_test(the_threshold_is_zero_when_active),
        cmocka_unit_test(a_tpr_raised_without_exit_holds_vectors_back),
        cmocka_unit_test(extint_and_nmi_while_active),
        cmocka_unit_test(an_exit_during_delivery),
        cmocka_unit_test(halted_with_a_vector_pending),
        cmocka_unit_test(icr_writes_that_exit),
        cmocka_unit_test(self_ipis),
        cmocka_unit_test(ipis_to_who_is_disabled),
        cmocka_unit_test(ipis_to_who_does_not_run),
        cmocka_unit_test(no_ipi_by_hardware_while_inhibited),
        cmocka_unit_test(changes_wait_for_the_nested_exit),
        cmocka_unit_test(deactivation_under_l2),
        cmocka_unit_test(what_comes_and_goes_under_l2_is_not_written),
        cmocka_unit_test(l2_before_the_first_entry),
        cmocka_unit_test(l1s_vectors_under_l2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
