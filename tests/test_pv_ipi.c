/* SPDX-License-Identifier: MIT */
/*
 * IPIs by hypercall: KVM's to a bitmap of APIC IDs, Hyper-V's to a set of VP indices. Who gets one,
 * what is returned, and that nobody else is looked at.
 */
#include "pv_guest.h"

static struct pv_guest guest;

static int64_t call(struct fx *fx, uint32_t n, struct vapic_pv_call c)
{
    int64_t result = INT64_MIN;

    c.number = VAPIC_PV_CALL_SEND_IPI;
    assert_int_equal(vapic_pv_hypercall(&fx->v[n], &c, &result), VAPIC_OK);
    return result;
}

static int64_t send(struct fx *fx, uint64_t low, uint64_t high, uint64_t first, uint64_t icr)
{
    return call(fx, 0, (struct vapic_pv_call){.arg = {low, high, first, icr}, .long_mode = true});
}

static struct fx *with_ids(const uint32_t *ids, uint32_t count, bool x2apic)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = count, .ids = ids, .x2apic = x2apic});

    pv_attach(fx, &guest, VAPIC_PV_SEND_IPI);
    fx_forget(fx);
    return fx;
}

/* The vCPUs that hold `vector`, as a bitmap by number; it is taken from them. */
static uint64_t holders(struct fx *fx, uint8_t vector)
{
    uint64_t set = 0;

    for (uint32_t n = 0; n < fx->vcpus; n++)
        if (fx_take_eoi(fx, n) == vector)
            set |= UINT64_C(1) << n;
    return set;
}

#define FULL UINT64_MAX

static void bitmaps(void **state)
{
    static const uint32_t ids[] = {0, 1, 2, 63, 64, 65, 127, 128, 255, 256, 300, 0xFFFFFFFE};
    static const struct {
        const char *name;
        uint64_t low, high, first;
        uint64_t targets; /* by number */
    } table[] = {
        {"nobody", 0, 0, 0, 0},
        {"one", 2, 0, 0, 1u << 1},
        {"oneself", 1, 0, 0, 1u << 0},
        {"the low word", FULL, 0, 0, 0x00F},
        {"the high word", 0, FULL, 0, 0x070},
        {"both", FULL, FULL, 0, 0x07F},
        {"from 1 on", FULL, FULL, 1, 0x0FE},
        {"an ID that nobody has", 8, 0, 0, 0},
        {"the last bit of the low word", UINT64_C(1) << 63, 0, 0, 1u << 3},
        {"the first bit of the high word", 0, 1, 0, 1u << 4},
        {"255 is an ID and no broadcast", 1, 0, 255, 1u << 8},
        {"255 and 256", 3, 0, 255, 3u << 8},
        {"above all", FULL, FULL, 1000, 0},
        {"the last ID there can be", 1, 0, 0xFFFFFFFE, 1u << 11},
        {"trap 55: FFFFFFFFh", 1, 0, 0xFFFFFFFF, 0},
        {"trap 55: FFFFFFFFh, everything", FULL, FULL, 0xFFFFFFFF, 0},
        {"across the end", FULL, FULL, 0xFFFFFFF0, 1u << 11},
        {"only 32 bits of the first ID count", 2, 0, UINT64_C(1) << 32, 1u << 1},
    };
    struct fx *fx = with_ids(ids, 12, true);

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        fx_equal(send(fx, table[i].low, table[i].high, table[i].first, 0x51),
                 (uint64_t)__builtin_popcountll(table[i].targets), "result of %s", table[i].name);
        fx_equal(holders(fx, 0x51), table[i].targets, "targets of %s", table[i].name);
    }
    fx_free(fx);
}

static void trap_55_wild_bitmap(void **state)
{
    struct fx *fx = with_ids(NULL, 2, true);

    (void)state;
    assert_int_equal(send(fx, FULL, FULL, 0xFFFFFFFF, 0x51), 0);
    assert_int_equal(send(fx, FULL, FULL, 0xFFFFFFFF, APIC_DM_NMI), 0);
    assert_int_equal(holders(fx, 0x51), 0);
    fx_free(fx);
}

/* In xAPIC mode FFh is the broadcast of the ICR, but not of the bitmap. */
static void no_broadcast_in_xapic_mode(void **state)
{
    struct fx *fx = with_ids(NULL, 4, false);

    (void)state;
    assert_int_equal(send(fx, 1, 0, 255, 0x51), 0);
    assert_int_equal(holders(fx, 0x51), 0);
    assert_int_equal(send(fx, 0xE, 0, 0, 0x51), 3);
    assert_int_equal(holders(fx, 0x51), 0xE);
    fx_free(fx);
}

/* Outside of 64-bit code the bitmap is two words of 32 bits, and upper halves are not looked at. */
static void callers_of_32_bits(void **state)
{
    static const uint32_t ids[] = {0, 31, 32, 63, 64};
    struct fx *fx = with_ids(ids, 5, true);
    struct vapic_pv_call c = {.number = UINT64_C(1) << 32 | VAPIC_PV_CALL_SEND_IPI,
                              .arg = {FULL, FULL, 0, UINT64_C(0xC0000) << 32 | 0x51}};
    int64_t result;

    (void)state;
    assert_int_equal(vapic_pv_hypercall(&fx->v[0], &c, &result), VAPIC_OK);
    assert_int_equal(result, 4);
    assert_int_equal(holders(fx, 0x51), 0xF);
    c.arg[0] = 0;
    c.arg[1] = 1;
    assert_int_equal(vapic_pv_hypercall(&fx->v[0], &c, &result), VAPIC_OK);
    assert_int_equal(result, 1);
    assert_int_equal(holders(fx, 0x51), 1u << 2);
    c.long_mode = true;
    assert_int_equal(vapic_pv_hypercall(&fx->v[0], &c, &result), VAPIC_UNCLAIMED);
    fx_free(fx);
}

static void icr_bits(void **state)
{
    static const struct {
        const char *name;
        uint64_t icr;
        int64_t result;
    } table[] = {
        {"edge without assert", 0x51, 1},
        {"edge with assert", 0x51 | APIC_ICR_ASSERT, 1},
        {"level", 0x51 | APIC_ICR_ASSERT | APIC_ICR_LEVEL, 1},
        {"level de-assert is dropped", 0x51 | APIC_ICR_LEVEL, 0},
        {"lowest priority", 0x51 | APIC_DM_LOWEST, 1},
        {"destination mode", 0x51 | APIC_ICR_LOGICAL, VAPIC_PV_EINVAL},
        {"self", 0x51 | APIC_ICR_SELF, VAPIC_PV_EINVAL},
        {"all", 0x51 | APIC_ICR_ALL_INCL, VAPIC_PV_EINVAL},
        {"all others", 0x51 | APIC_ICR_ALL_EXCL, VAPIC_PV_EINVAL},
        {"ExtINT is no message", 0x51 | APIC_DM_EXTINT, 0},
        {"other bits are not looked at", 0x51 | APIC_ICR_BUSY | 1u << 13 | 1u << 20, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fx *fx = with_ids(NULL, 2, i % 2);

        fx_equal(send(fx, 2, 0, 0, table[i].icr), (uint64_t)table[i].result, "result of %s",
                 table[i].name);
        fx_equal(holders(fx, 0x51), table[i].result == 1 ? 2 : 0, "targets of %s", table[i].name);
        fx_free(fx);
    }
}

/* What Linux sends to stop the others. */
static void nmis(void **state)
{
    struct fx *fx = with_ids(NULL, 3, true);

    (void)state;
    assert_int_equal(send(fx, 6, 0, 0, APIC_DM_NMI), 2);
    for (uint32_t n = 0; n < 3; n++)
        fx_equal(fx_step(fx, n, FX_CAN_ALL).inject, n ? VAPIC_INJECT_NMI : VAPIC_INJECT_NONE,
                 "vCPU %u", n);
    fx_free(fx);
}

static void who_drops_does_not_count(void **state)
{
    struct fx *fx = with_ids(NULL, 3, true);

    (void)state;
    fx_set(fx, 1, APIC_SVR, 0xFF); /* software-disabled */
    assert_int_equal(send(fx, 7, 0, 0, 0x51), 2);
    assert_int_equal(holders(fx, 0x51), 5);
    fx_free(fx);
}

/* Everybody that must act is told, once; one that is being told already is not. */
static void notifications(void **state)
{
    struct fx *fx = with_ids(NULL, 3, true);

    (void)state;
    fx_peek(fx, 1, 0);
    fx_forget(fx);
    assert_int_equal(send(fx, 6, 0, 0, 0x51), 2);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 1);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).vcpu, 1);
    assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).a, VAPIC_ACTION_KICK);
    assert_int_equal(send(fx, 6, 0, 0, 0x51), 2);
    assert_int_equal(fx_count(fx, FX_NOTIFY), 1);
    assert_int_equal(fx_count(fx, FX_LOCK), 0);
    fx_free(fx);
}

static void who_may_call(void **state)
{
    struct fx *fx = with_ids(NULL, 2, true);
    struct vapic_pv_call c = {.arg = {2, 0, 0, 0x51}, .long_mode = true, .cpl = 3};
    int64_t result = 7;

    (void)state;
    assert_int_equal(call(fx, 0, c), VAPIC_PV_EPERM);
    assert_int_equal(holders(fx, 0x51), 0);
    for (uint64_t number = 0; number < 20; number++) {
        c.number = number;
        if (number != VAPIC_PV_CALL_SEND_IPI)
            fx_equal(vapic_pv_hypercall(&fx->v[0], &c, &result), VAPIC_UNCLAIMED, "hypercall %u",
                     (unsigned)number);
    }
    assert_int_equal(result, 7);
    fx_free(fx);
}

static void a_vcpu_outside_of_the_map(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.not_added = true});

    (void)state;
    pv_attach(fx, &guest, VAPIC_PV_SEND_IPI);
    assert_int_equal(send(fx, 1, 0, 0, 0x51), VAPIC_PV_EOPNOTSUPP);
    fx_free(fx);
}

static void counting(void **state)
{
    struct fx *fx = with_ids(NULL, 4, true);
    struct vapic_stats before, after;

    (void)state;
    vapic_get_stats(&fx->v[0], &before);
    send(fx, 0xF, 0, 0, 0x51);
    send(fx, 0xF0, 0, 0, 0x51);
    vapic_get_stats(&fx->v[0], &after);
    assert_int_equal(after.ipis_sent - before.ipis_sent, 2);
    assert_int_equal(after.ipi_targets - before.ipi_targets, 4);
    assert_int_equal(pv_stats(fx, 0).ipi_calls, 2);
    assert_int_equal(pv_stats(fx, 0).ipi_targets, 4);
    fx_free(fx);
}

/* ---- Hyper-V ---- */

static int hv_send(struct fx *fx, uint64_t vector, uint64_t valid, const uint64_t *banks)
{
    return vapic_hv_send_ipi(&fx->v[0], vector, &(struct vapic_hv_targets){false, valid, banks});
}

/* VPs are counted as the VM's vCPUs are, whatever their APIC IDs. */
static void trap_98_sparse_vps(void **state)
{
    static const uint64_t banks[] = {1u << 2, 1u << 1};
    uint32_t ids[66];
    struct fx *fx;

    (void)state;
    for (uint32_t n = 0; n < 66; n++)
        ids[n] = n == 0 ? 0 : 200 - n;
    fx = with_ids(ids, 66, true);
    assert_int_equal(hv_send(fx, 0x51, 3, banks), VAPIC_HV_SUCCESS);
    for (uint32_t n = 0; n < 66; n++)
        fx_equal(fx_take_eoi(fx, n), n == 2 || n == 65 ? 0x51 : -1, "VP %u", n);
    fx_free(fx);
}

static void banks_that_are_left_out(void **state)
{
    static const uint64_t banks[] = {1u << 3, FULL, FULL};
    struct fx *fx = with_ids(NULL, 70, true);

    (void)state;
    /* The words are those of banks 1, 7 and 63. */
    assert_int_equal(hv_send(fx, 0x51, 1u << 1 | 1u << 7 | UINT64_C(1) << 63, banks),
                     VAPIC_HV_SUCCESS);
    for (uint32_t n = 0; n < 70; n++)
        fx_equal(fx_take_eoi(fx, n), n == 67 ? 0x51 : -1, "VP %u", n);
    fx_free(fx);
}

static void hv_vectors(void **state)
{
    static const uint64_t one = 2;
    struct fx *fx = with_ids(NULL, 2, false);

    (void)state;
    for (uint64_t vector = 0; vector < 0x120; vector++) {
        bool good = vector >= 0x10 && vector <= 0xFF;

        fx_equal(hv_send(fx, vector, 1, &one), good ? VAPIC_HV_SUCCESS : VAPIC_HV_INVALID_INPUT,
                 "vector %x", (unsigned)vector);
        fx_equal(fx_take_eoi(fx, 1), good ? (int)vector : -1, "what VP 1 takes of %x",
                 (unsigned)vector);
    }
    assert_int_equal(hv_send(fx, UINT64_C(1) << 32 | 0x51, 1, &one), VAPIC_HV_INVALID_INPUT);
    fx_free(fx);
}

/* With and without the rest of the companions; the sender is one of all. */
static void hv_everybody(void **state)
{
    const struct vapic_hv_targets all = {.all = true};

    (void)state;
    for (int attached = 0; attached < 2; attached++) {
        struct fx *fx = fx_new(&(struct fx_options){.vcpus = 5});
        struct vapic_stats stats;

        if (attached)
            pv_attach(fx, &guest, VAPIC_PV_HYPERV);
        fx_peek(fx, 1, 0);
        fx_forget(fx);
        assert_int_equal(vapic_hv_send_ipi(&fx->v[0], 0x51, &all), VAPIC_HV_SUCCESS);
        assert_int_equal(fx_count(fx, FX_NOTIFY), 1);
        assert_int_equal(fx_nth(fx, FX_NOTIFY, 0).vcpu, 1);
        vapic_get_stats(&fx->v[0], &stats);
        assert_int_equal(stats.ipi_targets, 5);
        assert_int_equal(pv_stats(fx, 0).ipi_targets, attached ? 5 : 0);
        assert_int_equal(holders(fx, 0x51), 0x1F);
        fx_free(fx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmaps),
        cmocka_unit_test(trap_55_wild_bitmap),
        cmocka_unit_test(no_broadcast_in_xapic_mode),
        cmocka_unit_test(callers_of_32_bits),
        cmocka_unit_test(icr_bits),
        cmocka_unit_test(nmis),
        cmocka_unit_test(who_drops_does_not_count),
        cmocka_unit_test(notifications),
        cmocka_unit_test(who_may_call),
        cmocka_unit_test(a_vcpu_outside_of_the_map),
        cmocka_unit_test(counting),
        cmocka_unit_test(trap_98_sparse_vps),
        cmocka_unit_test(banks_that_are_left_out),
        cmocka_unit_test(hv_vectors),
        cmocka_unit_test(hv_everybody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
