/* SPDX-License-Identifier: MIT */
/*
 * AMD: VMRUN and its checks, #VMEXIT, clean bits, EVENTINJ, the classic V_IRQ, virtual NMIs, HLT
 * and physical interrupts, with AVIC and without. [APM2 15.5] [APM2 15.20] [APM2 15.21]
 */
#include "silicon_fixture.h"

static enum vapic_sil_result vmrun(struct sf *sf, uint32_t n)
{
    return vapic_sil_vmrun(&sf->cpu[n], SF_VMCB + n * 0x1000);
}

static uint64_t v_tpr(struct sf *sf, uint32_t n)
{
    return sf->cpu[n].svm.int_ctl & VMCB_V_TPR;
}

/* ---- VMRUN: checks. One row, one thing that is wrong, or just right ----
 * What concerns no AVIC is of [APM2 15.5.1], the rest of [APM2 15.29].
 */

enum { X1 = 1, X2 = 2, EXT = 4, NP_OPTIONAL = 8, UNCHECKED = 16, NO_X2 = 32, OK = 64 };

static const struct {
    const char *what;
    uint32_t how;
    uint32_t offset; /* a 64-bit field of the VMCB, */
    uint64_t value;  /* replaced by this, */
    uint64_t xored;  /* or changed by this */
} checks[] = {
    {"nothing wrong, xAVIC", X1 | OK, VMCB_TSC_OFFSET, 0, 0},
    {"nothing wrong, x2AVIC", X2 | OK, VMCB_TSC_OFFSET, 0, 0},
    {"VMRUN not intercepted", X1, VMCB_INTERCEPT4, 0, 0},
    {"ASID 0", X1, VMCB_ASID, 0, 0},
    {"MSRPM out of range", X1, VMCB_MSRPM_BASE, 1ull << 48, 0},
    {"event of type 1", X1, VMCB_EVENTINJ, VMCB_EVENT_VALID | 1 << 8, 0},
    {"event of type 7", X1, VMCB_EVENTINJ, VMCB_EVENT_VALID | 7 << 8, 0},
    {"event of type 7, not valid", X1 | OK, VMCB_EVENTINJ, 7 << 8, 0},
    {"exception 2", X1, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x302, 0},
    {"exception 32", X1, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x320, 0},
    {"exception 31", X1 | OK, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x31F, 0},
    {"software interrupt 255", X1 | OK, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x4FF, 0},
    {"trap 29: bit 30 without bit 31", X2, VMCB_INT_CTL, 0, VMCB_V_AVIC},
    {"neither bit", X2 | OK, VMCB_INT_CTL, 0, VMCB_V_AVIC | VMCB_V_X2AVIC},
    {"x2AVIC on silicon without", X2 | NO_X2, VMCB_TSC_OFFSET, 0, 0},
    {"trap 28: xAVIC, MAX_INDEX 256", X1, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 256, 0},
    {"trap 28: xAVIC, MAX_INDEX 255", X1 | OK, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 255, 0},
    {"xAVIC, MAX_INDEX 256, EXT", X1 | EXT, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 256, 0},
    {"x2AVIC, MAX_INDEX 511", X2 | OK, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 511, 0},
    {"x2AVIC, MAX_INDEX 512", X2, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 512, 0},
    {"x2AVIC, MAX_INDEX 512, EXT", X2 | EXT | OK, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 512, 0},
    {"x2AVIC, MAX_INDEX 4095, EXT", X2 | EXT | OK, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 4095, 0},
    {"no NP_ENABLE", X1, VMCB_NP_ENABLE, 0, 0},
    {"no NP_ENABLE, np_optional", X1 | NP_OPTIONAL | OK, VMCB_NP_ENABLE, 0, 0},
    {"APIC_BAR bit 52", X1, VMCB_AVIC_BAR, 1ull << 52, 0},
    {"APIC_BAR bit 52, x2AVIC", X2 | OK, VMCB_AVIC_BAR, 1ull << 52, 0},
    {"backing page out of range", X1, VMCB_AVIC_BACKING, 1ull << 48, 0},
    {"backing page, bit 63", X1, VMCB_AVIC_BACKING, SF_BACKING | 1ull << 63, 0},
    {"backing page, bit 0", X1, VMCB_AVIC_BACKING, SF_BACKING | 1, 0},
    {"backing page, bit 0, x2AVIC", X2, VMCB_AVIC_BACKING, SF_BACKING | 1, 0},
    {"physical table out of range", X1, VMCB_AVIC_PHYSICAL, 1ull << 48, 0},
    {"physical table, bit 62", X2, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 1ull << 62, 0},
    {"its last page out of range", X2 | EXT, VMCB_AVIC_PHYSICAL, 0xFFFFFFFFF000 | 512, 0},
    {"its last page in range", X2 | EXT | OK, VMCB_AVIC_PHYSICAL, 0xFFFFFFFFF000 | 511, 0},
    {"logical table out of range", X1, VMCB_AVIC_LOGICAL, 1ull << 48, 0},
    {"logical table, bit 11", X1, VMCB_AVIC_LOGICAL, SF_LOGICAL | 1 << 11, 0},
    {"logical table, bit 11, x2AVIC", X2 | OK, VMCB_AVIC_LOGICAL, SF_LOGICAL | 1 << 11, 0},
    {"backing page, unchecked", X1 | UNCHECKED | OK, VMCB_AVIC_BACKING, 1ull << 48, 0},
    {"MAX_INDEX, unchecked", X1 | UNCHECKED, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | 256, 0},
};

static void vmrun_checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        uint32_t how = checks[i].how;
        struct vapic_sil_config config = {.x2avic = !(how & NO_X2), .x2avic_ext = how & EXT};
        struct sf *sf;
        uint64_t value = checks[i].value;

        config.knobs.np_optional = how & NP_OPTIONAL;
        config.knobs.pointers_unchecked = how & UNCHECKED;
        sf = sf_new(&config, how & X2);
        if (checks[i].xored)
            value = sf_vmcb(sf, 0, checks[i].offset) ^ checks[i].xored;
        sf_set_vmcb(sf, 0, checks[i].offset, value);
        sf_equal(vmrun(sf, 0), how & OK ? VAPIC_SIL_DONE : VAPIC_SIL_INVALID, "%s", checks[i].what);
        sf_equal(sf->cpu[0].in_guest, (how & OK) != 0, "%s", checks[i].what);
        sf_equal(sf_vmcb(sf, 0, VMCB_EXITCODE), how & OK ? 0 : ~0ull, "%s", checks[i].what);
        sf_free(sf);
    }
}

/* Four of the 256 values mean something. [APM2 15.16.2] */
static void tlb_control(void **state)
{
    (void)state;
    for (uint64_t value = 0; value <= 0xFF; value++) {
        bool legal = value == 0 || value == 1 || value == 3 || value == 7;
        struct sf *sf = sf_new(NULL, false);

        sf_set_vmcb(sf, 0, VMCB_ASID, value << 32 | 1);
        sf_equal(vmrun(sf, 0), legal ? VAPIC_SIL_DONE : VAPIC_SIL_INVALID, "%#x", (unsigned)value);
        sf_free(sf);
    }
}

/* Without AVIC nobody looks at its fields. */
static void vmrun_without_avic(void **state)
{
    static const uint32_t fields[] = {VMCB_AVIC_BAR, VMCB_AVIC_BACKING, VMCB_AVIC_LOGICAL,
                                      VMCB_AVIC_PHYSICAL, VMCB_NP_ENABLE};
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        sf_set_vmcb(sf, 0, fields[i], ~0ull << 1);
    sf_run(sf, 0);
    sf_free(sf);
}

static void vmrun_refused(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[0], SF_VMCB + 1), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[0], 1ull << 48), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[0], 0x10000000), VAPIC_SIL_GP);
    sf_run(sf, 0);
    assert_int_equal(vmrun(sf, 0), VAPIC_SIL_INVALID); /* it is in the guest already */
    assert_true(sf->cpu[0].in_guest);
    sf_free(sf);
}

static void vmrun_on_the_other_vendor(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf->machine.config.vendor = VAPIC_SIL_INTEL;
    assert_int_equal(vmrun(sf, 0), VAPIC_SIL_INVALID);
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITCODE), 0, "the VMCB is not touched");
    sf_free(sf);
}

static void machine_arguments(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    struct vapic_sil_host host = sf->machine.host;
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_AMD};
    struct vapic_sil_cpu *cpus[2], cpu;
    struct vapic_sil m;

    (void)state;
    assert_true(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    assert_int_equal(m.config.phys_bits, 48);
    assert_true(vapic_sil_cpu_init(&cpu, &m, 1));
    assert_false(vapic_sil_cpu_init(&cpu, &m, 1));
    assert_false(vapic_sil_cpu_init(&cpu, &m, 2));
    assert_false(vapic_sil_init(&m, &config, &host, sf, NULL, 2));
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 0));
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 65537));
    config.phys_bits = 31;
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    config.phys_bits = 52;
    assert_true(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    config.phys_bits = 53;
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    config.phys_bits = 0;
    config.vendor = (enum vapic_sil_vendor)2;
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    config.vendor = VAPIC_SIL_AMD;
    host.walk = NULL;
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    host = sf->machine.host;
    host.memory = NULL;
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    host = sf->machine.host;
    host.size--;
    assert_false(vapic_sil_init(&m, &config, &host, sf, cpus, 2));
    sf_free(sf);
}

/* ---- State in and out ---- */

static void guest_state_travels(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    struct vapic_sil_guest *g = &sf->cpu[0].guest;

    (void)state;
    sf_int_ctl(sf, 0, VMCB_V_GIF_ENABLE | VMCB_V_NMI_ENABLE | VMCB_V_NMI_MASK | 7, 0);
    sf_set_vmcb(sf, 0, VMCB_INT_STATE, 1);
    sf_set_vmcb(sf, 0, VMCB_EXITINTINFO, 0x1234);
    sf_run(sf, 0);
    sf_equal(g->rip, SF_RIP, "RIP");
    assert_true(g->interrupt_flag && g->shadow && !g->gif && g->nmi_masked && !g->halted);
    g->rip = 0x2345;
    g->interrupt_flag = g->shadow = g->nmi_masked = false;
    g->gif = true;
    g->cpl = 3;
    vapic_sil_leave(&sf->cpu[0], 0x72, 0x11, 0x22);
    sf_exit(sf, 0, 0x72, 0x11, 0x22);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), 0x2345, "RIP");
    sf_equal(sf_vmcb(sf, 0, VMCB_RFLAGS), 2, "RFLAGS");
    sf_equal(sf_vmcb(sf, 0, VMCB_INT_STATE), 0, "shadow");
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO), 0, "EXITINTINFO");
    sf_equal(sf_vmcb(sf, 0, VMCB_INT_CTL),
             VMCB_V_AVIC | VMCB_V_INTR_MASKING | VMCB_V_GIF_ENABLE | VMCB_V_NMI_ENABLE |
                 VMCB_V_GIF | 7,
             "int_ctl");
    sf_equal(sf_vmcb32(sf, 0, VMCB_CPL - 3) >> 24, 3, "CPL");
    vapic_sil_leave(&sf->cpu[0], 0x73, 0, 0); /* in host mode: nothing */
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITCODE), 0x72, "EXITCODE");
    sf_run(sf, 0);
    assert_true(g->gif);
    g->gif = false;
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_INT_CTL),
             VMCB_V_AVIC | VMCB_V_INTR_MASKING | VMCB_V_GIF_ENABLE | VMCB_V_NMI_ENABLE | 7,
             "int_ctl");
    sf_free(sf);
}

/* A field whose clean bit is set keeps the value of the last run here, and no other clean bit does
 * that for it. [APM2 15.15] [APM2 15.15.3] */
static void clean_bits(void **state)
{
    static const struct {
        uint32_t clean, offset;
    } fields[] = {
        {VMCB_CLEAN_INTERCEPTS, VMCB_INTERCEPT4}, {VMCB_CLEAN_ASID, VMCB_ASID},
        {VMCB_CLEAN_NP, VMCB_NP_ENABLE},          {VMCB_CLEAN_AVIC, VMCB_AVIC_BAR},
        {VMCB_CLEAN_AVIC, VMCB_AVIC_BACKING},     {VMCB_CLEAN_AVIC, VMCB_AVIC_LOGICAL},
        {VMCB_CLEAN_AVIC, VMCB_AVIC_PHYSICAL},    {VMCB_CLEAN_PERMISSION, VMCB_MSRPM_BASE}};

    (void)state;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        struct sf *sf = sf_new(NULL, false);
        uint64_t wrong = fields[i].offset >= VMCB_AVIC_BAR || fields[i].offset == VMCB_MSRPM_BASE
                             ? 1ull << 62 | 1ull << 50
                             : 0;

        sf_run(sf, 0);
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_set_vmcb(sf, 0, fields[i].offset, wrong);
        sf_set_vmcb32(sf, 0, VMCB_CLEAN, fields[i].clean);
        sf_run(sf, 0); /* the old value */
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_set_vmcb32(sf, 0, VMCB_CLEAN, ~fields[i].clean);
        sf_equal(vmrun(sf, 0), VAPIC_SIL_INVALID, "field %03x", fields[i].offset);
        sf_set_vmcb32(sf, 0, VMCB_CLEAN, ~0u);
        sf_equal(vmrun(sf, 0), VAPIC_SIL_INVALID, "nothing is kept of a failure");
        sf_free(sf);
    }
}

static void clean_int_ctl(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 9), VAPIC_SIL_DONE);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, 0, VMCB_V_AVIC | VMCB_V_TPR);
    sf_set_vmcb32(sf, 0, VMCB_CLEAN, VMCB_CLEAN_TPR);
    sf_run(sf, 0);
    sf_equal(v_tpr(sf, 0), 9, "V_TPR of the last exit");
    assert_true(sf->cpu[0].svm.int_ctl & VMCB_V_AVIC);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_INT_CTL) & VMCB_V_AVIC, 0, "bit 31 is not written back");
    sf_free(sf);
}

/* The clean bits mean this processor's last run, and of this VMCB. */
static void clean_bits_of_another(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_set_vmcb32(sf, 1, VMCB_CLEAN, ~0u);
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[0], SF_VMCB + 0x1000), VAPIC_SIL_DONE);
    sf_equal(sf->cpu[0].svm.backing, SF_BACKING + 0x1000, "backing page");
    sf_free(sf);
}

/* The permission map's contents are cached, too. */
static void clean_permission_map(void **state)
{
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 0;

    (void)state;
    sf_run(sf, 0);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_intercept_msr(sf, 0, 0x808, true, true);
    sf_set_vmcb32(sf, 0, VMCB_CLEAN, VMCB_CLEAN_PERMISSION);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x808, &value), VAPIC_SIL_DONE);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_set_vmcb32(sf, 0, VMCB_CLEAN, 0);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x808, &value), VAPIC_SIL_EXIT);
    sf_free(sf);
}

/* ---- EVENTINJ [APM2 15.20] ---- */

static void injected_events(void **state)
{
    static const struct {
        uint64_t event;
        int vector;
    } rows[] = {{0x0FD, 0xFD}, {0x200, 2}, {0x2FF, 2}, {0x30E, 14}, {0x480, 0x80}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sf *sf = sf_new(NULL, false);

        sf_set_vmcb(sf, 0, VMCB_RFLAGS, 2); /* whatever IF and TPR say */
        sf_int_ctl(sf, 0, 0xF, 0);
        sf_set_vmcb(sf, 0, VMCB_EVENTINJ, VMCB_EVENT_VALID | rows[i].event);
        sf_run(sf, 0);
        sf_equal(sf_take(sf, 0), rows[i].vector, "event %llx", (unsigned long long)rows[i].event);
        sf_equal(sf_take(sf, 0), -1, "once");
        sf_equal(sf_bit(sf, 0, APIC_ISR, (uint8_t)rows[i].vector), 0, "ISR");
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_equal(sf_vmcb(sf, 0, VMCB_EVENTINJ), rows[i].event, "the valid bit is clear");
        sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO), 0, "EXITINTINFO");
        sf_free(sf);
    }
}

/* First the injected event, then what AVIC has; first what is physical, then what is virtual. */
static void order_of_events(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_bit(sf, 0, APIC_IRR, 0x60, true);
    sf_set_vmcb(sf, 0, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x80);
    sf_run(sf, 0);
    vapic_sil_interrupt(&sf->machine, 0, 0xEC);
    assert_int_equal(sf_take(sf, 0), 0x80);
    assert_int_equal(sf_take(sf, 0), -2);
    sf_exit(sf, 0, 0x60, 0, 0);
    assert_int_equal(vapic_sil_take_interrupt(&sf->cpu[0]), 0xEC);
    assert_int_equal(vapic_sil_take_interrupt(&sf->cpu[0]), -1);
    assert_true(sf_bit(sf, 0, APIC_IRR, 0x60));
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_take_interrupt(&sf->cpu[0]), -1); /* that is for host mode */
    assert_int_equal(sf_take(sf, 0), 0x60);
    sf_free(sf);
}

/* An event that did not get in comes back; so does one whose delivery exits half-way. */
static void interrupted_delivery(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    struct vapic_sil_access push = {
        .gpa = 0x5000, .kind = VAPIC_SIL_EVENT_WRITE, .size = 8, .more = true};

    (void)state;
    sf_set_vmcb(sf, 0, VMCB_EVENTINJ,
                VMCB_EVENT_VALID | VMCB_EVENT_ERROR_VALID | 0x30E | 5ull << 32);
    sf_run(sf, 0);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO),
             VMCB_EVENT_VALID | VMCB_EVENT_ERROR_VALID | 0x30E | 5ull << 32, "not delivered");

    sf_set_bit(sf, 0, APIC_IRR, 0x60, true);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x60);
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &push), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x400, SVM_NPF_USER | SVM_NPF_FINAL | SVM_NPF_WRITE, 0x5000);
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO), VMCB_EVENT_VALID | 0x60, "EXITINTINFO");
    assert_true(sf_bit(sf, 0, APIC_ISR, 0x60)); /* the ISR bit stays */

    sf_set_bit(sf, 0, APIC_ISR, 0x60, false);
    sf_set_bit(sf, 0, APIC_IRR, 0x61, true);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x61);
    push.gpa = SF_RAM;
    push.more = false;
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &push), VAPIC_SIL_DONE);
    push.gpa = 0x5000;
    push.kind = VAPIC_SIL_WRITE;
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &push), VAPIC_SIL_EXIT);
    sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO), 0, "delivered");
    sf_free(sf);
}

/* The same for exits that the driver makes: only those that a delivery can cause. */
static void exits_during_delivery(void **state)
{
    static const struct {
        uint64_t code;
        bool in_delivery;
    } rows[] = {{0x3F, false}, {0x40, true}, {0x5F, true},  {0x60, false}, {0x72, false},
                {0x7D, true},  {0x7F, true}, {0x400, true}, {0x402, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sf *sf = sf_new(NULL, false);

        for (int later = 0; later < 2; later++) {
            sf_set_bit(sf, 0, APIC_IRR, 0x60, true);
            sf_set_bit(sf, 0, APIC_ISR, 0x60, false);
            sf_run(sf, 0);
            assert_int_equal(sf_take(sf, 0), 0x60);
            if (later)
                assert_int_equal(sf_take(sf, 0), -1);
            vapic_sil_leave(&sf->cpu[0], rows[i].code, 0, 0);
            sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO),
                     rows[i].in_delivery && !later ? VMCB_EVENT_VALID | 0x60 : 0, "exit %llx",
                     (unsigned long long)rows[i].code);
        }
        sf_free(sf);
    }
}

/* The first instruction of the handler is no longer part of the delivery, whatever exit it makes.
 */
static void exits_after_delivery(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct sf *sf = sf_new(NULL, false);
        uint32_t value = 0;

        sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, VMCB_I3_HLT);
        sf_set_bit(sf, 0, APIC_IRR, 0x60, true);
        sf->apic_page.present = i != 2;
        sf_run(sf, 0);
        assert_int_equal(sf_take(sf, 0), 0x60);
        if (i == 0)
            assert_int_equal(vapic_sil_hlt(&sf->cpu[0]), VAPIC_SIL_EXIT);
        else
            assert_int_equal(sf_read(sf, 0, APIC_TMCCT, &value), VAPIC_SIL_EXIT);
        sf_equal(sf_vmcb(sf, 0, VMCB_EXITINTINFO), 0, "row %d", i);
        sf_free(sf);
    }
}

/* ---- V_IRQ ---- */

#define V_IRQ_5 (VMCB_V_IRQ | 5ull << 16 | 0x55ull << 32)

/* Trap 20 */
static void trap_20_v_irq_with_avic(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_int_ctl(sf, 0, V_IRQ_5 | VMCB_V_IGN_TPR, 0);
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, VMCB_I3_VINTR);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), -1);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    vapic_sil_doorbell(&sf->machine, 0);
    assert_int_equal(sf_take(sf, 0), 0x40); /* no VINTR exit for AVIC's own either */
    sf_free(sf);
}

/* Knob vintr_intercept. */
static void vintr_for_avic(void **state)
{
    struct vapic_sil_config config = {.knobs.vintr_intercept = true};
    struct sf *sf = sf_new(&config, false);

    (void)state;
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, VMCB_I3_VINTR);
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), -2);
    sf_exit(sf, 0, 0x64, 0, 0);
    assert_true(sf_bit(sf, 0, APIC_IRR, 0x40));
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, 0);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x40);
    sf_free(sf);
}

/* Without AVIC: priority, V_IGN_TPR, IF, shadow, GIF. */
static void v_irq_without_avic(void **state)
{
    static const struct {
        uint64_t int_ctl;
        bool interrupt_flag, shadow, gif;
        int vector;
    } rows[] = {
        {V_IRQ_5, true, false, true, 0x55},
        {V_IRQ_5 | 4, true, false, true, 0x55},
        {V_IRQ_5 | 5, true, false, true, -1},
        {V_IRQ_5 | 15 | VMCB_V_IGN_TPR, true, false, true, 0x55},
        {V_IRQ_5, false, false, true, -1},
        {V_IRQ_5, true, true, true, -1},
        {V_IRQ_5, true, false, false, -1},
        {V_IRQ_5 & ~VMCB_V_IRQ, true, false, true, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sf *sf = sf_new(NULL, false);
        bool due = i != 2 && i != 7;

        sf_int_ctl(sf, 0, rows[i].int_ctl, VMCB_V_AVIC);
        sf_set_bit(sf, 0, APIC_IRR, 0xE0, true); /* nobody looks at the page */
        sf_run(sf, 0);
        sf->cpu[0].guest.interrupt_flag = rows[i].interrupt_flag;
        sf->cpu[0].guest.shadow = rows[i].shadow;
        sf->cpu[0].guest.gif = rows[i].gif;
        sf_equal(vapic_sil_waiting(&sf->cpu[0]), due, "row %zu", i);
        sf_equal(sf_take(sf, 0), rows[i].vector, "row %zu", i);
        vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_equal(sf_vmcb(sf, 0, VMCB_INT_CTL) & VMCB_V_IRQ,
                 rows[i].vector < 0 ? rows[i].int_ctl & VMCB_V_IRQ : 0, "row %zu: V_IRQ", i);
        sf_free(sf);
    }
}

/* The classic interrupt window. Trap 21 is this with AVIC off. */
static void trap_21_interrupt_window(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_int_ctl(sf, 0, V_IRQ_5 | VMCB_V_IGN_TPR, VMCB_V_AVIC);
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, VMCB_I3_VINTR);
    sf_set_vmcb(sf, 0, VMCB_RFLAGS, 2);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), -1);
    sf->cpu[0].guest.interrupt_flag = true;
    assert_int_equal(sf_take(sf, 0), -2);
    sf_exit(sf, 0, 0x64, 0, 0);
    assert_true(sf_vmcb(sf, 0, VMCB_INT_CTL) & VMCB_V_IRQ);
    sf_int_ctl(sf, 0, VMCB_V_AVIC, VMCB_V_IRQ);
    sf_set_vmcb(sf, 0, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x28);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0x28);
    sf_free(sf);
}

/* ---- Virtual NMI ---- */

static void virtual_nmi(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_int_ctl(sf, 0, VMCB_V_NMI, 0);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), -1); /* not enabled */
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, VMCB_V_NMI_ENABLE, 0);
    sf_set_bit(sf, 0, APIC_IRR, 0xE0, true);
    sf_set_vmcb(sf, 0, VMCB_INT_STATE, 1);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), -1);
    sf->cpu[0].guest.shadow = false;
    assert_int_equal(sf_take(sf, 0), 2); /* before interrupts */
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_INT_CTL) & (VMCB_V_NMI | VMCB_V_NMI_MASK), VMCB_V_NMI_MASK,
             "delivered, masked");
    sf_int_ctl(sf, 0, VMCB_V_NMI, 0);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 0xE0); /* masked until IRET */
    sf->cpu[0].guest.nmi_masked = false;
    sf->cpu[0].guest.gif = false;
    assert_int_equal(sf_take(sf, 0), -1);
    sf->cpu[0].guest.gif = true;
    assert_int_equal(sf_take(sf, 0), 2);
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
    sf_int_ctl(sf, 0, 0, VMCB_V_NMI_MASK);
    sf_set_vmcb(sf, 0, VMCB_EVENTINJ, VMCB_EVENT_VALID | 0x200);
    sf_run(sf, 0);
    assert_int_equal(sf_take(sf, 0), 2);
    assert_true(sf->cpu[0].guest.nmi_masked);
    sf_free(sf);
}

/* ---- HLT ---- */

/* Trap 44 */
static void trap_44_halt_intercepted(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
    sf_set_vmcb(sf, 0, VMCB_RFLAGS, 2);
    sf_set_vmcb(sf, 0, VMCB_INT_STATE, 1);
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, VMCB_I3_HLT);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_hlt(&sf->cpu[0]), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x78, 0, 0); /* whatever IRR holds */
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP, "RIP");
    sf_equal(sf_vmcb(sf, 0, VMCB_NRIP), SF_RIP + 1, "next RIP");
    sf_equal(sf_vmcb(sf, 0, VMCB_INT_STATE), 1, "shadow");
    sf_free(sf);
}

static void halt_in_the_guest(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    sf->cpu[0].guest.shadow = true; /* STI; HLT */
    assert_int_equal(vapic_sil_hlt(&sf->cpu[0]), VAPIC_SIL_DONE);
    assert_true(sf->cpu[0].guest.halted);
    assert_int_equal(sf_take(sf, 0), -1);
    vapic_sil_doorbell(&sf->machine, 0);
    assert_int_equal(sf_take(sf, 0), -1); /* for nothing: it sleeps on */
    assert_true(sf->cpu[0].guest.halted);
    sf_run(sf, 1);
    assert_int_equal(sf_icr(sf, 1, 0x40, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), 0x40);
    assert_false(sf->cpu[0].guest.halted);
    sf_equal(sf->cpu[0].guest.rip, SF_RIP + 1, "RIP");
    sf_free(sf);
}

/* Idle-HLT: only without pending event (knob idle_hlt_ignores_irr). */
static void idle_halt(void **state)
{
    enum {
        NONE,
        IRR,
        LOW_IRR,
        V_IRQ,
        V_NMI,
        IRR_KNOB,
        V_IRQ_KNOB,
        V_IRQ_OFF,
        IRR_OFF,
        NMI_ENABLE,
        NMI_DISABLED,
        ROWS
    };
    static const bool exits[ROWS] = {true,  false, true, true, false, true,
                                     false, false, true, true, true};

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        struct vapic_sil_config config = {0};
        struct sf *sf;

        config.knobs.idle_hlt_ignores_irr = i == IRR_KNOB || i == V_IRQ_KNOB;
        sf = sf_new(&config, false);
        sf_set_vmcb32(sf, 0, VMCB_INTERCEPT5, VMCB_I5_IDLE_HLT);
        if (i == V_IRQ_OFF || i == IRR_OFF)
            sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
        if (i == V_IRQ || i == V_IRQ_KNOB || i == V_IRQ_OFF)
            sf_int_ctl(sf, 0, V_IRQ_5, 0);
        if (i == V_NMI)
            sf_int_ctl(sf, 0, VMCB_V_NMI | VMCB_V_NMI_ENABLE | VMCB_V_NMI_MASK, 0);
        if (i == NMI_ENABLE || i == NMI_DISABLED)
            sf_int_ctl(sf, 0, i == NMI_ENABLE ? VMCB_V_NMI_ENABLE : VMCB_V_NMI, 0);
        if (i == LOW_IRR)
            sf_int_ctl(sf, 0, 4, 0);
        sf_run(sf, 0);
        if (i == IRR || i == LOW_IRR || i == IRR_KNOB || i == IRR_OFF)
            sf_set_bit(sf, 0, APIC_IRR, 0x40, true);
        sf_equal(vapic_sil_hlt(&sf->cpu[0]), exits[i] ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE, "row %d",
                 i);
        if (exits[i])
            sf_exit(sf, 0, 0xA6, 0, 0);
        if (i == IRR)
            assert_int_equal(sf_take(sf, 0), 0x40); /* found when it looked */
        sf_free(sf);
    }
}

/* ---- Physical interrupts ---- */

static void physical_interrupts(void **state)
{
    static const struct {
        bool intercept, masking, interrupt_flag, shadow;
        int want; /* as sf_take() */
    } rows[] = {
        {true, true, true, false, -2},     {true, true, false, false, -2},
        {true, true, true, true, -2},      {true, false, true, false, -2},
        {true, false, false, false, -1},   {true, false, true, true, -1},
        {false, true, false, false, 0xC0}, {false, false, true, false, 0xC0},
        {false, false, false, false, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sf *sf = sf_new(NULL, false);

        sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, rows[i].intercept ? VMCB_I3_INTR : 0);
        sf_int_ctl(sf, 0, 0, rows[i].masking ? 0 : VMCB_V_INTR_MASKING);
        sf_run(sf, 0);
        sf->cpu[0].guest.interrupt_flag = rows[i].interrupt_flag;
        sf->cpu[0].guest.shadow = rows[i].shadow;
        vapic_sil_interrupt(&sf->machine, 0, 0x22);
        vapic_sil_interrupt(&sf->machine, 0, 0xC0);
        vapic_sil_interrupt(&sf->machine, 99, 0xC0); /* nobody */
        assert_int_equal(sf->signals[0], 2);
        sf_equal(sf_take(sf, 0), rows[i].want, "row %zu", i);
        if (rows[i].want == -2)
            sf_exit(sf, 0, 0x60, 0, 0);
        else
            vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
        sf_equal(vapic_sil_take_interrupt(&sf->cpu[0]), rows[i].want == 0xC0 ? 0x22 : 0xC0,
                 "row %zu", i);
        sf_free(sf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vmrun_checks),
        cmocka_unit_test(tlb_control),
        cmocka_unit_test(vmrun_without_avic),
        cmocka_unit_test(vmrun_refused),
        cmocka_unit_test(vmrun_on_the_other_vendor),
        cmocka_unit_test(machine_arguments),
        cmocka_unit_test(guest_state_travels),
        cmocka_unit_test(clean_bits),
        cmocka_unit_test(clean_int_ctl),
        cmocka_unit_test(clean_bits_of_another),
        cmocka_unit_test(clean_permission_map),
        cmocka_unit_test(injected_events),
        cmocka_unit_test(order_of_events),
        cmocka_unit_test(interrupted_delivery),
        cmocka_unit_test(exits_during_delivery),
        cmocka_unit_test(exits_after_delivery),
        cmocka_unit_test(trap_20_v_irq_with_avic),
        cmocka_unit_test(vintr_for_avic),
        cmocka_unit_test(v_irq_without_avic),
        cmocka_unit_test(trap_21_interrupt_window),
        cmocka_unit_test(virtual_nmi),
        cmocka_unit_test(trap_44_halt_intercepted),
        cmocka_unit_test(halt_in_the_guest),
        cmocka_unit_test(idle_halt),
        cmocka_unit_test(physical_interrupts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
