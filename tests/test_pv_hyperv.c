/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's interface to the local APIC: MSRs for EOI, ICR and TPR, the VP assist page, AutoEOI
 * vectors and how they inhibit acceleration.
 */
#include "accel/backend.h"
#include "pv_guest.h"

static struct pv_guest guest;

static struct fx *with_hyperv(const struct fx_options *options)
{
    struct fx *fx = fx_new(options);

    pv_attach(fx, &guest, VAPIC_PV_HYPERV | VAPIC_PV_EOI);
    fx_forget(fx);
    return fx;
}

static int wrmsr(struct fx *fx, uint32_t msr, uint64_t value)
{
    return vapic_pv_msr_write(&fx->v[0], msr, value);
}

static uint64_t rdmsr(struct fx *fx, uint32_t msr)
{
    uint64_t value = 0;

    assert_int_equal(vapic_pv_msr_read(&fx->v[0], msr, &value), VAPIC_OK);
    return value;
}

/* ---- EOI, ICR, TPR ---- */

static void eoi(void **state)
{
    static const uint64_t values[] = {0, 1, UINT64_MAX};
    uint64_t value;

    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = with_hyperv(&(struct fx_options){.x2apic = x2apic});

        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            pv_start(fx, 0, 0x51, true);
            fx_forget(fx);
            assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_EOI, values[i]), VAPIC_OK);
            assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
            assert_int_equal(fx_count(fx, FX_EOI), 1);
        }
        assert_int_equal(vapic_pv_msr_read(&fx->v[0], VAPIC_MSR_HV_EOI, &value), VAPIC_GP);
        fx_free(fx);
    }
}

static void icr(void **state)
{
    static const struct {
        const char *name;
        bool x2apic;
        uint64_t value;
        int result;
        uint64_t reads;
        int takes; /* what vCPU 1 takes */
    } table[] = {
        {"x2APIC", true, UINT64_C(1) << 32 | 0x51, VAPIC_OK, UINT64_C(1) << 32 | 0x51, 0x51},
        {"xAPIC", false, UINT64_C(1) << 56 | 0x51, VAPIC_OK, UINT64_C(1) << 56 | 0x51, 0x51},
        {"xAPIC, destination as in x2APIC mode", false, UINT64_C(1) << 32 | 0x51, VAPIC_OK, 0x51,
         -1},
        {"busy", false, UINT64_C(1) << 56 | 0x1051, VAPIC_OK, UINT64_C(1) << 56 | 0x51, 0x51},
        {"all others", false, 0xC0051, VAPIC_OK, 0xC0051, 0x51},
        {"bit 13", false, UINT64_C(1) << 56 | 0x2051, VAPIC_GP, 0, -1},
        {"bit 16", true, UINT64_C(1) << 32 | 0x10051, VAPIC_GP, 0, -1},
        {"bit 31", true, UINT64_C(1) << 32 | 0x80000051, VAPIC_GP, 0, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fx *fx = with_hyperv(&(struct fx_options){.vcpus = 2, .x2apic = table[i].x2apic});

        fx_equal(wrmsr(fx, VAPIC_MSR_HV_ICR, table[i].value), table[i].result, "result of %s",
                 table[i].name);
        fx_equal(rdmsr(fx, VAPIC_MSR_HV_ICR), table[i].reads, "ICR after %s", table[i].name);
        fx_equal(fx_take(fx, 1), table[i].takes, "vCPU 1 after %s", table[i].name);
        fx_equal(fx_get(fx, 0, APIC_ICR), (uint32_t)table[i].reads, "the register after %s",
                 table[i].name);
        fx_free(fx);
    }
}

/* It is the APIC's register that is read, whoever wrote it. */
static void icr_written_by_the_register(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = with_hyperv(&(struct fx_options){.vcpus = 2, .x2apic = x2apic});

        fx_icr(fx, 0, 0x51, 1);
        fx_equal(rdmsr(fx, VAPIC_MSR_HV_ICR), UINT64_C(1) << (x2apic ? 32 : 56) | 0x51, "x2APIC %d",
                 x2apic);
        fx_free(fx);
    }
}

static void tpr(void **state)
{
    static const struct {
        const char *name;
        uint32_t knobs;
        uint64_t value;
        int result;
        uint32_t reads;
    } table[] = {
        {"7Fh", VAPIC_PROFILE_MANUAL, 0x7F, VAPIC_OK, 0x7F},
        {"100h, strictly", VAPIC_PROFILE_MANUAL, 0x100, VAPIC_GP, 0x20},
        {"135h", VAPIC_PROFILE_KVM, 0x135, VAPIC_OK, 0x35},
        {"the upper half", VAPIC_PROFILE_KVM, UINT64_C(1) << 32, VAPIC_GP, 0x20},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fx *fx = with_hyperv(
            &(struct fx_options){.config = {.knobs = table[i].knobs, .knobs_set = true}});

        fx_set(fx, 0, APIC_TPR, 0x20);
        fx_equal(wrmsr(fx, VAPIC_MSR_HV_TPR, table[i].value), table[i].result, "result of %s",
                 table[i].name);
        fx_equal(rdmsr(fx, VAPIC_MSR_HV_TPR), table[i].reads, "TPR after %s", table[i].name);
        fx_equal(fx_get(fx, 0, APIC_PPR), table[i].reads, "PPR after %s", table[i].name);
        fx_equal(vapic_read_cr8(&fx->v[0]), table[i].reads >> 4, "CR8 after %s", table[i].name);
        fx_free(fx);
    }
}

static void nothing_while_the_apic_is_disabled(void **state)
{
    static const uint32_t msrs[] = {VAPIC_MSR_HV_EOI, VAPIC_MSR_HV_ICR, VAPIC_MSR_HV_TPR};
    struct fx *fx = with_hyperv(NULL);
    uint64_t value;

    (void)state;
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, APIC_DEFAULT_BASE | APIC_BASE_BSP), VAPIC_OK);
    for (size_t i = 0; i < 3; i++) {
        fx_equal(vapic_pv_msr_read(&fx->v[0], msrs[i], &value), VAPIC_GP, "read %x", msrs[i]);
        fx_equal(wrmsr(fx, msrs[i], 0), VAPIC_GP, "write %x", msrs[i]);
    }
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_VP_ASSIST, PV_PAGE | 1), VAPIC_OK);
    fx_free(fx);
}

/* ---- The VP assist page ---- */

static void the_assist_page(void **state)
{
    static const struct pv_write table[] = {
        {"disabled", 0, VAPIC_OK},
        {"enabled", PV_PAGE | 1, VAPIC_OK},
        {"reserved bits are kept", PV_PAGE | 0xFFF, VAPIC_OK},
        {"no RAM", PV_RAM | 1, VAPIC_GP},
        {"no RAM, disabled", PV_RAM, VAPIC_OK},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fx *fx = with_hyperv(NULL);

        pv_write_and_read(fx, VAPIC_MSR_HV_VP_ASSIST, &table[i], 0);
        fx_free(fx);
    }
}

/* "No EOI required": the same mechanism, in the page's first word. */
static void lazy_eoi(void **state)
{
    uint32_t *word = pv_word(&guest, PV_PAGE);
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_VP_ASSIST, PV_PAGE | 0xFFF), VAPIC_OK);
    assert_int_equal(guest.dirty_at, PV_PAGE);
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(*word, 1);
    assert_int_equal(guest.dirty_at, PV_PAGE);
    assert_true(pv_guest_eoi(word));
    vapic_exit(&fx->v[0], 0, true);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    /* And by the MSR where it cannot be lazy. */
    pv_start(fx, 0, 0x51, true);
    fx_peek(fx, 0, 0);
    assert_false(pv_guest_eoi(word));
    vapic_exit(&fx->v[0], 0, true);
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_EOI, 0), VAPIC_OK);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* A guest that enables both gets one: two bits for one EOI would be one too many. */
static void both_words(void **state)
{
    uint32_t *page = pv_word(&guest, PV_PAGE), *word = pv_word(&guest, PV_WORD);
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    assert_int_equal(wrmsr(fx, VAPIC_MSR_KVM_EOI, PV_WORD | 1), VAPIC_OK);
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_VP_ASSIST, PV_PAGE | 1), VAPIC_OK);
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(*page, 1);
    assert_int_equal(*word, 0);
    vapic_exit(&fx->v[0], 0, true);
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_VP_ASSIST, 0), VAPIC_OK);
    fx_peek(fx, 0, 0);
    assert_int_equal(*page, 0);
    assert_int_equal(*word, 1);
    assert_int_equal(guest.dirty_at, PV_WORD);
    vapic_exit(&fx->v[0], 0, true);
    fx_free(fx);
}

/* ---- AutoEOI ---- */

static void set_auto(struct fx *fx, uint32_t n, int vector)
{
    uint64_t vectors[4] = {0};

    if (vector >= 0)
        vectors[vector / 64] = UINT64_C(1) << (vector % 64);
    assert_int_equal(vapic_hv_set_auto_eoi(&fx->v[n], vectors), VAPIC_OK);
}

static void every_vector_ends_at_once(void **state)
{
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    for (int vector = 16; vector < 256; vector++) {
        set_auto(fx, 0, vector);
        vapic_post(&fx->v[0], (uint8_t)vector, false, NULL);
        fx_equal(fx_take(fx, 0), vector, "taken");
        fx_equal(fx_bit(fx, 0, APIC_IRR, (uint8_t)vector), 0, "IRR of %x", vector);
        fx_equal(fx_bit(fx, 0, APIC_ISR, (uint8_t)vector), 0, "ISR of %x", vector);
        fx_equal(fx_get(fx, 0, APIC_PPR), 0, "PPR after %x", vector);
    }
    assert_int_equal(pv_stats(fx, 0).auto_eois, 240);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    fx_free(fx);
}

/* Its neighbours are in service as ever, and it does not end them. */
static void only_that_vector(void **state)
{
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    set_auto(fx, 0, 0x61);
    pv_start(fx, 0, 0x51, false);
    pv_start(fx, 0, 0x61, false);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x61));
    pv_start(fx, 0, 0x62, false);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x62));
    set_auto(fx, 0, -1);
    fx_eoi(fx, 0);
    pv_start(fx, 0, 0x61, false);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x61));
    fx_free(fx);
}

/* The handler of an AutoEOI vector runs, and the word stays clear: it must not end another. */
static void auto_eoi_and_lazy_eoi(void **state)
{
    uint32_t *word = pv_word(&guest, PV_PAGE);
    struct fx *fx = with_hyperv(NULL);
    struct vapic_entry entry;

    (void)state;
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_VP_ASSIST, PV_PAGE | 1), VAPIC_OK);
    set_auto(fx, 0, 0x61);
    vapic_post(&fx->v[0], 0x61, false, NULL);
    entry = fx_peek(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);
    vapic_commit(&fx->v[0], &entry);
    assert_int_equal(entry.vector, 0x61);
    assert_int_equal(*word, 0);
    vapic_exit(&fx->v[0], 0, true);
    fx_free(fx);
}

static void auto_eoi_not_delivered(void **state)
{
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    set_auto(fx, 0, 0x61);
    vapic_post(&fx->v[0], 0x61, false, NULL);
    fx_step(fx, 0, 0);
    {
        struct vapic_entry entry = fx_peek(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);

        vapic_commit(&fx->v[0], &entry);
        vapic_exit(&fx->v[0], 0, false);
    }
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_take(fx, 0), 0x61);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x61));
    fx_free(fx);
}

/* vCPUs are counted, not vectors; the lock is taken only where the count changes. */
static void vcpus_are_counted(void **state)
{
    static const struct {
        uint32_t vcpu;
        int vector;
        uint32_t count;
        bool locks;
    } table[] = {
        {0, -1, 0, false},  {0, 0x61, 1, true}, {0, 0x62, 1, false}, {1, 0x61, 2, true},
        {2, 0x30, 3, true}, {0, -1, 2, true},   {0, -1, 2, false},   {1, -1, 1, true},
        {0, 0x40, 2, true}, {2, -1, 1, true},   {0, -1, 0, true},    {1, 0xFF, 1, true},
    };
    struct fx *fx = with_hyperv(&(struct fx_options){.vcpus = 3});

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        fx_forget(fx);
        set_auto(fx, table[i].vcpu, table[i].vector);
        fx_equal(fx->vm.auto_eoi_vcpus, table[i].count, "count in step %u", (unsigned)i);
        fx_equal(fx_count(fx, FX_LOCK), table[i].locks, "lock in step %u", (unsigned)i);
    }
    assert_int_equal(vapic_pv_detach(&fx->v[1]), VAPIC_OK);
    assert_int_equal(fx->vm.auto_eoi_vcpus, 0);
    fx_free(fx);
}

static uint32_t kicks;

static void count_kick(void *ctx)
{
    (void)ctx;
    kicks++;
}

static void ignore_page(void *ctx, bool mapped)
{
    (void)ctx;
    (void)mapped;
}

/* The reason is in force as long as any vCPU counts; only the first and the last change it. */
static void acceleration_is_inhibited(void **state)
{
    static const struct {
        uint32_t vcpu;
        int vector;
        bool inhibited, changes;
    } table[] = {
        {0, 0x61, true, true}, {1, 0x61, true, false}, {0, 0x71, true, false},
        {0, -1, true, false},  {1, -1, false, true},   {1, 0x20, true, true},
    };
    static const struct vapic_backend backend = {.honours = INHIBIT_BIT(HYPERV)};
    static struct vapic_accel accel;
    struct fx *fx = with_hyperv(&(struct fx_options){.vcpus = 2});

    (void)state;
    fx->vm.backend = &backend;
    fx->vm.accel = &accel;
    fx->vm.generation = 2;
    fx->vm.host.kick_all = count_kick;
    fx->vm.host.access_page = ignore_page;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        kicks = 0;
        set_auto(fx, table[i].vcpu, table[i].vector);
        fx_equal(vapic_inhibits(&fx->vm).bits, table[i].inhibited ? INHIBIT_BIT(HYPERV) : 0,
                 "reasons after step %u", (unsigned)i);
        fx_equal(kicks != 0, table[i].changes, "kicks in step %u", (unsigned)i);
    }
    vapic_reset(&fx->v[1]);
    assert_int_equal(vapic_inhibits(&fx->vm).bits, 0);
    fx_free(fx);
}

static void auto_eoi_wrongly(void **state)
{
    static const uint64_t none[4];
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(vapic_hv_set_auto_eoi(&fx->v[0], none), VAPIC_E_ARG);
    assert_int_equal(vapic_hv_set_auto_eoi(NULL, none), VAPIC_E_ARG);
    assert_int_equal(vapic_hv_write_sint(&fx->v[0], 0, 0x51), VAPIC_E_ARG);
    assert_int_equal(vapic_hv_write_sint(NULL, 0, 0x51), VAPIC_E_ARG);
    assert_int_equal(vapic_hv_read_sint(&fx->v[0], 0), 0);
    pv_attach(fx, &guest, VAPIC_PV_HYPERV);
    assert_int_equal(vapic_hv_set_auto_eoi(&fx->v[0], NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_hv_write_sint(&fx->v[0], 16, 0x51), VAPIC_E_ARG);
    assert_int_equal(vapic_hv_read_sint(&fx->v[0], 16), 0);
    fx_free(fx);
}

/* ---- SINTs ---- */

#define AUTO   VAPIC_HV_SINT_AUTO_EOI
#define MASKED VAPIC_HV_SINT_MASKED

static bool is_auto(struct fx *fx, uint8_t vector)
{
    bool stays;

    vapic_post(&fx->v[0], vector, false, NULL);
    assert_int_equal(fx_take(fx, 0), vector);
    stays = fx_bit(fx, 0, APIC_ISR, vector);
    if (stays)
        fx_eoi(fx, 0);
    return !stays;
}

static void sints(void **state)
{
    static const struct {
        const char *name;
        uint32_t n;
        uint64_t value;
        int result;
        bool auto_61, auto_71;
        uint32_t count;
    } table[] = {
        {"AutoEOI", 2, AUTO | 0x61, VAPIC_OK, true, false, 1},
        {"another, of the same vector", 15, AUTO | 0x61, VAPIC_OK, true, false, 1},
        {"the first masked", 2, AUTO | MASKED | 0x61, VAPIC_OK, true, false, 1},
        {"the second without AutoEOI", 15, 0x61, VAPIC_OK, false, false, 0},
        {"another vector", 15, AUTO | 0x71, VAPIC_OK, false, true, 1},
        {"an illegal vector", 3, AUTO | 0x0F, VAPIC_GP, false, true, 1},
        {"an illegal vector, masked", 3, AUTO | MASKED | 0x0F, VAPIC_OK, false, true, 1},
        {"both", 3, AUTO | 0x61, VAPIC_OK, true, true, 1},
    };
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    assert_int_equal(vapic_hv_read_sint(&fx->v[0], 3), MASKED);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint64_t before = vapic_hv_read_sint(&fx->v[0], table[i].n);

        fx_equal(vapic_hv_write_sint(&fx->v[0], table[i].n, table[i].value), table[i].result,
                 "result of %s", table[i].name);
        fx_equal(vapic_hv_read_sint(&fx->v[0], table[i].n),
                 table[i].result == VAPIC_OK ? table[i].value : before, "SINT after %s",
                 table[i].name);
        fx_equal(is_auto(fx, 0x61), table[i].auto_61, "61h after %s", table[i].name);
        fx_equal(is_auto(fx, 0x71), table[i].auto_71, "71h after %s", table[i].name);
        fx_equal(fx->vm.auto_eoi_vcpus, table[i].count, "vCPUs after %s", table[i].name);
    }
    fx_free(fx);
}

static void reset_masks_them(void **state)
{
    struct fx *fx = with_hyperv(NULL);

    (void)state;
    assert_int_equal(vapic_hv_write_sint(&fx->v[0], 2, AUTO | 0x61), VAPIC_OK);
    assert_int_equal(wrmsr(fx, VAPIC_MSR_HV_VP_ASSIST, PV_PAGE | 1), VAPIC_OK);
    vapic_reset(&fx->v[0]);
    assert_int_equal(vapic_hv_read_sint(&fx->v[0], 2), MASKED);
    assert_int_equal(rdmsr(fx, VAPIC_MSR_HV_VP_ASSIST), 0);
    assert_int_equal(fx->vm.auto_eoi_vcpus, 0);
    fx_set(fx, 0, APIC_SVR, 0x1FF);
    assert_false(is_auto(fx, 0x61));
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eoi),
        cmocka_unit_test(icr),
        cmocka_unit_test(icr_written_by_the_register),
        cmocka_unit_test(tpr),
        cmocka_unit_test(nothing_while_the_apic_is_disabled),
        cmocka_unit_test(the_assist_page),
        cmocka_unit_test(lazy_eoi),
        cmocka_unit_test(both_words),
        cmocka_unit_test(every_vector_ends_at_once),
        cmocka_unit_test(only_that_vector),
        cmocka_unit_test(auto_eoi_and_lazy_eoi),
        cmocka_unit_test(auto_eoi_not_delivered),
        cmocka_unit_test(vcpus_are_counted),
        cmocka_unit_test(acceleration_is_inhibited),
        cmocka_unit_test(auto_eoi_wrongly),
        cmocka_unit_test(sints),
        cmocka_unit_test(reset_masks_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
