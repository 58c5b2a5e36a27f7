/* SPDX-License-Identifier: MIT */
/* Trace events: names, texts as the tracepoints of Linux print them, and that they are emitted. */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"
#include "vapic/arch/msi.h"

#define VECTOR 0x51

/* ---- Texts ---- */

struct text_row {
    struct vapic_event event;
    const char *text;
};

#define ROW(kind, text, ...)                                                                       \
    {                                                                                              \
        {VAPIC_EVENT_##kind, 0, {__VA_ARGS__}}, text                                               \
    }

/* The same of a vCPU other than 0. */
#define ROW_OF(vcpu, kind, text, ...)                                                              \
    {                                                                                              \
        {VAPIC_EVENT_##kind, vcpu, {__VA_ARGS__}}, text                                            \
    }

static const struct text_row text_rows[] = {
    ROW(APIC, "apic_read APIC_LVR = 0x50014", 0, APIC_LVR, 0x50014),
    ROW(APIC, "apic_write APIC_EOI = 0x0", 1, APIC_EOI, 0),
    ROW(APIC, "apic_write APIC_TASKPRI = 0x20", 1, APIC_TPR, 0x20),
    ROW(APIC, "apic_write APIC_SPIV = 0x1ff", 1, APIC_SVR, 0x1FF),
    ROW(APIC, "apic_write APIC_LVT0 = 0x700", 1, APIC_LVT_LINT0, 0x700),
    ROW(APIC, "apic_read APIC_IRR = 0x0", 0, APIC_IRR, 0),
    ROW(APIC, "apic_read 0x210 = 0x1", 0, APIC_IRR + 0x10, 1),
    ROW(APIC, "apic_read 0x2f0 = 0x10000", 0, APIC_LVT_CMCI, 0x10000),
    ROW(APIC, "apic_write APIC_ICR = 0x1000008fb", 3, 0x830, 0x1000008FB),
    ROW(APIC, "apic_write APIC_SELF_IPI = 0xfb", 3, 0x83F, 0xFB),
    ROW(APIC, "apic_read msr 0x1b = 0xfee00900", 2, 0x1B, 0xFEE00900),
    ROW(APIC, "apic_write msr 0x6e0 = 0x123456789ab", 3, 0x6E0, 0x123456789AB),
    ROW(APIC_IPI, "dst 1 vec 251 (Fixed|logical|assert|edge|dst)", 0x48FB, 1),
    ROW(APIC_IPI, "dst ff vec 0 (NMI|physical|assert|level|all-but-self)", 0xCC400, 0xFF),
    ROW(APIC_IPI, "dst 0 vec 2 (SIPI|physical|de-assert|edge|all)", 0x80602, 0),
    ROW(APIC_IPI, "dst 0 vec 64 (LowPrio|physical|assert|edge|self)", 0x44140, 0),
    ROW(APIC_ACCEPT_IRQ, "apicid 1a vec 81 (Fixed|edge)", 0x1A, 0, 0, 81),
    ROW(APIC_ACCEPT_IRQ, "apicid 0 vec 48 (LowPrio|level)", 0, 1, 1, 48),
    ROW(EOI, "apicid 12 vector 81", 0x12, 81),
    ROW(INJ_VIRQ, "IRQ 0xec", 0xEC, 0, 0),
    ROW(INJ_VIRQ, "Soft/INTn 0x80 [reinjected]", 0x80, 1, 1),
    ROW(MSI_SET_IRQ, "dst 1 vec 49 (Fixed|physical|edge)", 0xFEE01000, 49),
    ROW(MSI_SET_IRQ, "dst ff vec 50 (LowPrio|logical|edge|rh)", 0xFEEFF00C, 0x132),
    ROW(MSI_SET_IRQ, "dst 12345678 vec 50 (NMI|physical|level)", 0x123456FFFEE78000, 0x8432),
    ROW(IOAPIC_SET_IRQ, "pin 4 dst 3 vec 52 (Fixed|physical|edge)", 4, 0x0300000000000034, 0),
    ROW(IOAPIC_SET_IRQ, "pin 23 dst ff vec 0 (Res3|logical|level|masked) (coalesced)", 23,
        0xFF00000000018B00, 1),
    ROW(IOAPIC_DELAYED_EOI, "dst 3 vec 52 (SMI|physical|level)", 0x0300000000008234),
    ROW(IOAPIC_DELAYED_EOI, "dst 3 vec 52 (ExtINT|physical|edge|masked)", 0x0300000000010734),
    ROW(SET_IRQ, "gsi 4 level 1 source 0", 4, 1, 0),
    ROW(SET_IRQ, "gsi 4095 level 0 source 15", 4095, 0, 15),
    ROW(SET_IRQ, "gsi 1 level -1 source -2147483648", 1, 0xFFFFFFFF, 0x80000000),
    ROW(ACK_IRQ, "irqchip IOAPIC pin 9", 0, 9),
    ROW(TIMER, "apicid 2 clock none when 0", 2, VAPIC_CLOCK_NONE, 0),
    ROW(TIMER, "apicid 2 clock ns when 1000", 2, VAPIC_CLOCK_NS, 1000),
    ROW(TIMER, "apicid 2 clock tsc when 18446744073709551615", 2, VAPIC_CLOCK_TSC, UINT64_MAX),
    ROW(TIMER, "apicid 2 clock ? when 0", 2, 3, 0),
    ROW(BASE, "apicid 1 old 0xfee00900 new 0xfee00d00", 1, 0xFEE00900, 0xFEE00D00),
    ROW(CPU_EVENT, "apicid 1 INIT vector 0x0", 1, VAPIC_CPU_INIT, 0),
    ROW(CPU_EVENT, "apicid 1 SIPI vector 0x9f", 1, VAPIC_CPU_SIPI, 0x9F),
    ROW(CPU_EVENT, "apicid 1 ? vector 0x0", 1, 9, 0),
    ROW(APICV_INHIBIT_CHANGED, "set reason=8, inhibits=0x120 APIC_ID_MODIFIED|IRQWIN", 8, 1, 0x120),
    ROW(APICV_INHIBIT_CHANGED, "cleared reason=8, inhibits=0x20 APIC_ID_MODIFIED", 8, 0, 0x20),
    ROW(APICV_INHIBIT_CHANGED, "set reason=9, inhibits=0x200 PIT_REINJ", 9, 1, 0x200),
    ROW(APICV_INHIBIT_CHANGED, "cleared reason=4, inhibits=0x0", 4, 0, 0),
    ROW(APICV_INHIBIT_CHANGED,
        "set reason=12, inhibits=0x1fff DISABLED|HYPERV|ABSENT|BLOCKIRQ|PHYSICAL_ID_ALIASED|"
        "APIC_ID_MODIFIED|APIC_BASE_MODIFIED|NESTED|IRQWIN|PIT_REINJ|SEV|LOGICAL_ID_ALIASED|"
        "PHYSICAL_ID_TOO_BIG",
        12, 1, 0x1FFF),
    ROW(APICV_INHIBIT_CHANGED, "set reason=10, inhibits=0x6400 SEV|0x6000", 10, 1, 0x6400),
    ROW(APICV_INHIBIT_CHANGED, "set reason=63, inhibits=0x8000000000000000 0x8000000000000000", 63,
        1, 1ull << 63),
    ROW_OF(3, AVIC_INCOMPLETE_IPI, "vcpu=3, icrh:icrl=0x01000000:000040fb, id=1, index=1",
           0x01000000, 0x40FB, 1, 1),
    ROW(AVIC_INCOMPLETE_IPI, "vcpu=0, icrh:icrl=0x00000000:000c00fb, id=0, index=511", 0, 0xC00FB,
        0, 511),
    ROW(AVIC_INCOMPLETE_IPI, "vcpu=0, icrh:icrl=0xfedcba98:87654321, id=4, index=0", 0xFEDCBA98,
        0x87654321, 4, 0),
    ROW_OF(4095, AVIC_UNACCELERATED_ACCESS,
           "vcpu=4095, offset=0xb0(APIC_EOI), trap, write, vec=0x51", 0xB0, 3, 0x51),
    ROW(AVIC_UNACCELERATED_ACCESS, "vcpu=0, offset=0xc0(APIC_RRR), fault, read, vec=0x0", 0xC0, 0,
        0),
    ROW(AVIC_UNACCELERATED_ACCESS, "vcpu=0, offset=0x390(APIC_TMCCT), fault, read, vec=0x0", 0x390,
        0, 0),
    ROW(AVIC_UNACCELERATED_ACCESS, "vcpu=0, offset=0x500(0x500), fault, write, vec=0x0", 0x500, 2,
        0),
    ROW_OF(2, AVIC_DOORBELL, "vcpuid=1, apicid=17", 1, 17),
    ROW(AVIC_KICK_VCPU_SLOWPATH, "icrh:icrl=0x2000000:000008fb, index=2", 0x2000000, 0x8FB, 2),
    ROW(AVIC_KICK_VCPU_SLOWPATH, "icrh:icrl=0x00012c:000000fb, index=300", 0x12C, 0xFB, 300),
    ROW(AVIC_KICK_VCPU_SLOWPATH, "icrh:icrl=0x000000:000000fb, index=0", 0, 0xFB, 0),
    ROW(AVIC_GA_LOG, "vmid=7, vcpuid=3", 7, 3),
    ROW(APICV_ACCEPT_IRQ, "apicid 1a vec 236 (Fixed|edge)", 0x1A, 0, 0, 236),
    ROW(APICV_ACCEPT_IRQ, "apicid 0 vec 49 (LowPrio|level)", 0, 1, 1, 49),
    ROW(PV_EOI, "apicid 1f vector 236", 0x1F, 236),
    ROW(PV_EOI, "apicid 0 vector -1", 0, 0xFFFFFFFF),
    {{(enum vapic_event_kind)VAPIC_EVENT_COUNT, 0, {0}}, "unknown event 21"},
};

static void texts_are_those_of_linux(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(text_rows) / sizeof(text_rows[0]); n++) {
        char text[256];
        size_t length = vapic_event_format(&text_rows[n].event, text, sizeof(text));

        assert_string_equal(text, text_rows[n].text);
        fx_equal(length, strlen(text_rows[n].text), "%s", text);
    }
}

static void every_event_has_a_text(void **state)
{
    bool seen[VAPIC_EVENT_COUNT] = {false};
    (void)state;

    for (size_t n = 0; n < sizeof(text_rows) / sizeof(text_rows[0]); n++) {
        if ((uint32_t)text_rows[n].event.kind < VAPIC_EVENT_COUNT)
            seen[text_rows[n].event.kind] = true;
    }
    for (uint32_t kind = 0; kind < VAPIC_EVENT_COUNT; kind++)
        fx_equal(seen[kind], true, "event %u, %s", kind, vapic_event_name(kind));
}

static void a_short_buffer_gets_what_fits_and_a_terminator(void **state)
{
    static const struct vapic_event event = {VAPIC_EVENT_SET_IRQ, 0, {4, 1, 0}};
    static const char full[] = "gsi 4 level 1 source 0";
    char text[sizeof(full) + 8];
    (void)state;

    for (size_t size = 0; size <= sizeof(text); size++) {
        size_t fits = size == 0 ? 0 : size - 1 < sizeof(full) - 1 ? size - 1 : sizeof(full) - 1;

        memset(text, '#', sizeof(text));
        fx_equal(vapic_event_format(&event, text, size), sizeof(full) - 1, "size %zu", size);
        assert_memory_equal(text, full, fits);
        if (size > 0)
            fx_equal((unsigned)text[fits], 0, "size %zu", size);
        for (size_t n = size; n < sizeof(text); n++)
            fx_equal((unsigned)text[n], '#', "size %zu, byte %zu", size, n);
    }
    assert_int_equal(vapic_event_format(&event, NULL, 0), sizeof(full) - 1);
}

static void names(void **state)
{
    static const char *const expected[] = {
        "kvm_apic",
        "kvm_apic_ipi",
        "kvm_apic_accept_irq",
        "kvm_eoi",
        "kvm_inj_virq",
        "kvm_msi_set_irq",
        "kvm_ioapic_set_irq",
        "kvm_ioapic_delayed_eoi_inj",
        "kvm_set_irq",
        "kvm_ack_irq",
        "vapic_timer",
        "vapic_apic_base",
        "vapic_cpu_event",
        "kvm_apicv_inhibit_changed",
        "kvm_avic_incomplete_ipi",
        "kvm_avic_unaccelerated_access",
        "kvm_avic_doorbell",
        "kvm_avic_kick_vcpu_slowpath",
        "kvm_avic_ga_log",
        "kvm_apicv_accept_irq",
        "kvm_pv_eoi",
    };
    (void)state;

    assert_int_equal(sizeof(expected) / sizeof(expected[0]), VAPIC_EVENT_COUNT);
    for (uint32_t kind = 0; kind < VAPIC_EVENT_COUNT; kind++)
        assert_string_equal(vapic_event_name(kind), expected[kind]);
    assert_null(vapic_event_name(VAPIC_EVENT_COUNT));
    assert_null(vapic_event_name(0xFFFFFFFF));
}

/* ---- Emission ---- */

/* The texts of all events since the last call, one per line. */
static const char *traced(struct fx *fx)
{
    static char all[4096];
    size_t at = 0;

    all[0] = '\0';
    for (uint32_t n = 0; n < fx_count(fx, FX_TRACE); n++) {
        struct vapic_event event = fx_nth(fx, FX_TRACE, n).event;
        char text[256];

        vapic_event_format(&event, text, sizeof(text));
        at += (size_t)snprintf(all + at, sizeof(all) - at, "%s: %s\n", vapic_event_name(event.kind),
                               text);
        assert_true(at < sizeof(all));
    }
    fx_forget(fx);
    return all;
}

static void a_level_interrupt_from_gsi_to_eoi(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    fx_rte_write(io, 5, VECTOR | IOAPIC_RTE_LEVEL);
    fx_trace(fx);
    vapic_gsi_set(&fx->vm, 5, 2, true);
    assert_string_equal(traced(fx), "kvm_set_irq: gsi 5 level 1 source 2\n"
                                    "kvm_apic_accept_irq: apicid 0 vec 81 (Fixed|level)\n"
                                    "kvm_ioapic_set_irq: pin 5 dst 0 vec 81 "
                                    "(Fixed|physical|level)\n");
    fx_take(fx, 0);
    assert_string_equal(traced(fx), "kvm_inj_virq: IRQ 0x51\n");
    vapic_gsi_set(&fx->vm, 5, 2, false);
    assert_string_equal(traced(fx), "kvm_set_irq: gsi 5 level 0 source 2\n");
    fx_eoi(fx, 0);
    assert_string_equal(traced(fx), "kvm_apic: apic_write APIC_EOI = 0x0\n"
                                    "kvm_eoi: apicid 0 vector 81\n"
                                    "kvm_ack_irq: irqchip IOAPIC pin 5\n");
    fx_free(fx);
    fx_ioapic_free(io);
}

static void an_edge_that_coalesces_says_so(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    fx_rte_write(io, 5, VECTOR);
    vapic_ioapic_set(io, 5, 0, true);
    fx_trace(fx);
    vapic_ioapic_set(io, 5, 0, true);
    assert_string_equal(traced(fx), "kvm_ioapic_set_irq: pin 5 dst 0 vec 81 "
                                    "(Fixed|physical|edge) (coalesced)\n");
    fx_free(fx);
    fx_ioapic_free(io);
}

static void a_message(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    fx_trace(fx);
    vapic_msi(&fx->vm, 0xFEE00000, VECTOR);
    assert_string_equal(traced(fx), "kvm_msi_set_irq: dst 0 vec 81 (Fixed|physical|edge)\n"
                                    "kvm_apic_accept_irq: apicid 0 vec 81 (Fixed|edge)\n");
    fx_free(fx);
}

/* An NMI is edge-triggered whatever the data says. */
static void a_message_with_an_nmi(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    fx_trace(fx);
    vapic_msi(&fx->vm, 0xFEE00000, APIC_DM_NMI | MSI_DATA_LEVEL);
    assert_string_equal(traced(fx), "kvm_msi_set_irq: dst 0 vec 0 (NMI|physical|level)\n"
                                    "kvm_apic_accept_irq: apicid 0 vec 0 (NMI|edge)\n");
    fx_free(fx);
}

static void a_pause_in_a_storm(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    fx_rte_write(io, 5, VECTOR | IOAPIC_RTE_LEVEL);
    vapic_ioapic_set(io, 5, 0, true);
    for (int n = 0; n < 9999; n++)
        fx_take_eoi(fx, 0);
    fx_take(fx, 0);
    fx_forget(fx);
    fx_trace(fx);
    fx_eoi(fx, 0);
    assert_non_null(
        strstr(traced(fx), "kvm_ioapic_delayed_eoi_inj: dst 0 vec 81 (Fixed|physical|level)\n"));
    fx_free(fx);
    fx_ioapic_free(io);
}

static void an_ipi(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2, .x2apic = true});
    (void)state;

    fx_trace(fx);
    fx_icr(fx, 0, 0x40FB, 1);
    assert_non_null(
        strstr(traced(fx), "kvm_apic_ipi: dst 1 vec 251 (Fixed|physical|assert|edge|dst)\n"));
    fx_free(fx);
}

static void tracing_can_be_turned_off(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    fx_trace(fx);
    vapic_trace(&fx->vm, NULL, NULL);
    vapic_msi(&fx->vm, 0xFEE00000, VECTOR);
    assert_int_equal(fx_count(fx, FX_TRACE), 0);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_those_of_linux),
        cmocka_unit_test(every_event_has_a_text),
        cmocka_unit_test(a_short_buffer_gets_what_fits_and_a_terminator),
        cmocka_unit_test(names),
        cmocka_unit_test(a_level_interrupt_from_gsi_to_eoi),
        cmocka_unit_test(an_edge_that_coalesces_says_so),
        cmocka_unit_test(a_message),
        cmocka_unit_test(a_message_with_an_nmi),
        cmocka_unit_test(a_pause_in_a_storm),
        cmocka_unit_test(an_ipi),
        cmocka_unit_test(tracing_can_be_turned_off),
    };

    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
